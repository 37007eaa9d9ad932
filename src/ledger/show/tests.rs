use std::time::Duration;

use super::accounts::{AccountFilter, State};
use super::deliveries::DeliveryFilter;
use super::sample::Sample;
use crate::delivery::Timestamp;
use crate::ledger::outcome::Outcome;
use crate::target::ConnectionRef;

const ALL: DeliveryFilter =
    DeliveryFilter { outcome: None, source: None, event: None, account: None, since: None, limit: 100 };

async fn ids(sample: &Sample, filter: DeliveryFilter) -> Vec<String> {
    sample.ledger.deliveries(&filter).await.unwrap().into_iter().map(|row| row.delivery).collect()
}

#[tokio::test]
async fn each_filter_narrows_the_deliveries() {
    let sample = Sample::new().await;
    assert_eq!(ids(&sample, ALL).await.len(), 9);
    assert_eq!(ids(&sample, DeliveryFilter { outcome: Some(Outcome::Parked), ..ALL }).await, ["odd-1"]);
    assert_eq!(ids(&sample, DeliveryFilter { source: Some("other".into()), ..ALL }).await, [""; 0]);
    assert_eq!(ids(&sample, DeliveryFilter { event: Some("member.removed".into()), ..ALL }).await, ["left-repo"]);
    assert_eq!(ids(&sample, DeliveryFilter { event: Some("member".into()), ..ALL }).await, ["left-repo"]);
    assert_eq!(ids(&sample, DeliveryFilter { event: Some("organization".into()), ..ALL }).await.len(), 7);
    assert_eq!(ids(&sample, DeliveryFilter { limit: 1, ..ALL }).await, ["odd-1"]);
    let since = sample.ledger.now().await.unwrap().plus_micros(-2 * 60_000_000);
    assert_eq!(ids(&sample, DeliveryFilter { since: Some(since), ..ALL }).await, ["odd-1", "star-1"]);
    for (account, expected) in [
        ("mona", vec!["join-3", "left-2", "join-2"]),
        ("github:MONA-old", vec!["left-2", "join-2"]),
        ("github:#9", vec!["join-4"]),
        ("github@git.acme.example:mona", vec![]),
        ("gitlab:mona", vec![]),
    ] {
        let account = Some(account.parse().unwrap());
        assert_eq!(ids(&sample, DeliveryFilter { account, ..ALL }).await, expected);
    }
}

#[tokio::test]
async fn each_filter_narrows_the_accounts() {
    let sample = Sample::new().await;
    let logins = async |state, connection| {
        let filter = AccountFilter { state, connection, limit: 100 };
        let rows = sample.ledger.accounts(&filter).await.unwrap();
        rows.into_iter().filter_map(|row| row.account.login).collect::<Vec<_>>()
    };
    assert_eq!(logins(None, None).await, ["mona", "hubber", "octocat", "mona-old"]);
    assert_eq!(logins(Some(State::Waiting), None).await, ["mona"]);
    assert_eq!(logins(Some(State::Settled), Some(ConnectionRef::Id(12))).await, ["octocat", "mona-old"]);
    assert_eq!(logins(None, Some(ConnectionRef::Only("GITHUB".into()))).await, [""; 0]);
}

#[tokio::test]
async fn a_body_is_given_back_byte_by_byte_unless_the_delivery_was_ignored() {
    let sample = Sample::new().await;
    let row = async |id: &str| sample.ledger.deliveries_named(&id.parse().unwrap()).await.unwrap()[0].row;
    assert_eq!(sample.ledger.body(row("join-1").await).await.unwrap().unwrap(), br#"{"delivery":"join-1"}"#);
    assert_eq!(sample.ledger.body(row("star-1").await).await.unwrap(), None);
    assert_eq!(sample.ledger.body(4711).await.unwrap(), None);
}

#[tokio::test]
async fn counts_tell_what_is_due_and_how_long_the_platform_has_been_owed() {
    let sample = Sample::new().await;
    let counts = sample.ledger.counts().await.unwrap();
    assert_eq!((counts.due, counts.waiting, counts.parked), (1, 1, 0));
    let oldest = sample.ledger.oldest_unapplied().await.unwrap();
    let pending: Vec<_> = oldest.iter().filter(|oldest| oldest.outcome == Outcome::Pending).collect();
    // Hubber's, received three minutes ago; the older one that waits for a person is told apart.
    assert_eq!(pending.iter().map(|oldest| oldest.age).collect::<Vec<_>>(), [Duration::from_secs(180)]);
    assert!(oldest.iter().any(|oldest| oldest.outcome == Outcome::Waiting && oldest.age > pending[0].age));
    let open = sample.ledger.open_deliveries().await.unwrap();
    assert!(open.iter().any(|open| open.outcome == Outcome::Waiting && open.count == 1), "{open:?}");
    assert_eq!(sample.ledger.now().await.unwrap(), "2026-11-24T08:10:00Z".parse::<Timestamp>().unwrap());
}
