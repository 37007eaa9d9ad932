use std::time::Duration;

use super::accounts::{AccountFilter, State};
use super::filter::DeliveryFilter;
use super::sample::Sample;
use crate::delivery::Timestamp;
use crate::ledger::outcome::Outcome;
use crate::target::ConnectionRef;

fn all() -> DeliveryFilter {
    DeliveryFilter::default()
}

async fn ids(sample: &Sample, filter: DeliveryFilter) -> Vec<String> {
    sample.ledger.deliveries(&filter, None, 100).await.unwrap().into_iter().map(|row| row.delivery).collect()
}

#[tokio::test]
async fn each_filter_narrows_the_deliveries() {
    let sample = Sample::new().await;
    assert_eq!(ids(&sample, all()).await.len(), 9);
    assert_eq!(ids(&sample, DeliveryFilter { outcomes: vec![Outcome::Parked], ..all() }).await, ["odd-1"]);
    let outcomes = vec![Outcome::Parked, Outcome::Ignored];
    assert_eq!(ids(&sample, DeliveryFilter { outcomes, ..all() }).await, ["odd-1", "star-1"]);
    assert_eq!(ids(&sample, DeliveryFilter { source: Some("other".into()), ..all() }).await, [""; 0]);
    assert_eq!(ids(&sample, DeliveryFilter { provider: Some("github".into()), ..all() }).await.len(), 9);
    assert_eq!(ids(&sample, DeliveryFilter { provider: Some("gitlab".into()), ..all() }).await, [""; 0]);
    assert_eq!(ids(&sample, DeliveryFilter { event: Some("member.removed".into()), ..all() }).await, ["left-repo"]);
    assert_eq!(ids(&sample, DeliveryFilter { event: Some("member".into()), ..all() }).await, ["left-repo"]);
    assert_eq!(ids(&sample, DeliveryFilter { event: Some("organization".into()), ..all() }).await.len(), 7);
    let since = sample.ledger.now().await.unwrap().plus_micros(-2 * 60_000_000);
    assert_eq!(ids(&sample, DeliveryFilter { since: Some(since), ..all() }).await, ["odd-1", "star-1"]);
    assert_eq!(ids(&sample, DeliveryFilter { until: Some(since), ..all() }).await.len(), 7);
    for (account, expected) in [
        ("mona", vec!["join-3", "left-2", "join-2"]),
        ("github:MONA-old", vec!["left-2", "join-2"]),
        ("github:#9", vec!["join-4"]),
        ("github@git.acme.example:mona", vec![]),
        ("gitlab:mona", vec![]),
    ] {
        let account = Some(account.parse().unwrap());
        assert_eq!(ids(&sample, DeliveryFilter { account, ..all() }).await, expected);
    }
    for (scope, expected) in [("org:ACME", 7), ("org:#1", 7), ("repo:acme/web", 1), ("repo:#7", 1), ("team:acme", 0)] {
        let scope = Some(scope.parse().unwrap());
        assert_eq!(ids(&sample, DeliveryFilter { scope: scope.clone(), ..all() }).await.len(), expected, "{scope:?}");
    }
    for (reason, expected) in
        [("INTERNAL server", vec!["join-4"]), ("missing field", vec!["odd-1"]), ("100%", vec![]), ("_", vec![])]
    {
        assert_eq!(ids(&sample, DeliveryFilter { reason: Some(reason.into()), ..all() }).await, expected);
    }
    let names = ["#1", "join-4", "none"].map(|name| name.parse().unwrap()).to_vec();
    assert_eq!(ids(&sample, DeliveryFilter { names, ..all() }).await, ["join-4", "join-1"]);
    let both = DeliveryFilter { event: Some("organization".into()), since: Some(since), ..all() };
    assert_eq!(ids(&sample, both).await, ["odd-1"]);
}

#[tokio::test]
async fn pages_follow_each_other_whatever_comes_meanwhile() {
    let sample = Sample::new().await;
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = sample.ledger.deliveries(&all(), before, 4).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.row);
        seen.extend(page.into_iter().map(|row| row.row));
    }
    assert_eq!(seen, (1..=9).rev().collect::<Vec<_>>());

    let mut logins = Vec::new();
    let mut after = None;
    loop {
        let page = sample.ledger.accounts(&AccountFilter::default(), after, 1).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.place.to_string().parse().unwrap());
        logins.extend(page.into_iter().filter_map(|row| row.account.login));
    }
    assert_eq!(logins, ["mona", "hubber", "octocat", "mona-old"]);
}

#[tokio::test]
async fn each_filter_narrows_the_accounts() {
    let sample = Sample::new().await;
    let logins = async |filter: AccountFilter| {
        let rows = sample.ledger.accounts(&filter, None, 100).await.unwrap();
        rows.into_iter().filter_map(|row| row.account.login).collect::<Vec<_>>()
    };
    let all = AccountFilter::default;
    assert_eq!(logins(all()).await, ["mona", "hubber", "octocat", "mona-old"]);
    assert_eq!(logins(AccountFilter { state: Some(State::Waiting), ..all() }).await, ["mona"]);
    let settled = AccountFilter { state: Some(State::Settled), connection: Some(ConnectionRef::Id(12)), ..all() };
    assert_eq!(logins(settled).await, ["octocat", "mona-old"]);
    let other = AccountFilter { connection: Some(ConnectionRef::Only("GITHUB".into())), ..all() };
    assert_eq!(logins(other).await, [""; 0]);
    let account = AccountFilter { account: Some("mona".parse().unwrap()), ..all() };
    assert_eq!(logins(account).await, ["mona", "mona-old"]);
    assert_eq!(logins(AccountFilter { provider: Some("gitlab".into()), ..all() }).await, [""; 0]);
    assert_eq!(logins(AccountFilter { reason: Some("internal SERVER".into()), ..all() }).await, ["hubber"]);
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
