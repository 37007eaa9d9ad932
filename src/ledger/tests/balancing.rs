//! Accepted = the sum of the outcomes + the gaps.

use super::*;
use crate::delivery::Checkpoint;
use crate::ledger::balance::Balance;

fn stamped(id: &str, sequence: u64) -> Record {
    let mut entry = Entry { reading: Reading::Ignored("a star".into()), ..told(id, 1, Change::SourceBack) };
    entry.delivery.stamp = Some(Stamp { run: Uuid::from_u128(7), sequence });
    Record::Delivery(Box::new(entry))
}

fn checkpoint(sequence: u64, voids: &[u64]) -> Record {
    let source = "acme-github".parse().unwrap();
    Record::Checkpoint(Checkpoint {
        run: Uuid::from_u128(7),
        source,
        sequence,
        voids: voids.to_vec(),
        held: None,
        refused: Vec::new(),
    })
}

/// Records batch after batch, each of which has to leave a balance that adds up, and returns the last.
async fn after(on: Database, batches: &[&[Record]]) -> Balance {
    let site = Site::open(on).await;
    let mut balance = site.ledger.balance().await.unwrap();
    for batch in batches {
        site.ledger.record(batch).await.unwrap();
        balance = site.ledger.balance().await.unwrap();
        assert!(balance.adds_up(), "{balance}");
    }
    balance
}

fn missing(balance: &Balance) -> Vec<(i64, i64)> {
    balance.gaps.iter().map(|gap| (gap.first, gap.last)).collect()
}

#[rstest]
#[tokio::test]
async fn an_empty_ledger_adds_up(#[values(Sqlite, PostgreSql)] on: Database) {
    assert_eq!(after(on, &[]).await.to_string(), "0 accepted = 0 missing");
}

#[rstest]
#[tokio::test]
async fn what_has_not_arrived_is_named(#[values(Sqlite, PostgreSql)] on: Database) {
    let balance = after(on, &[&[stamped("b", 2)], &[stamped("e", 5), stamped("d", 4)]]).await;
    assert_eq!((balance.accepted, missing(&balance)), (5, vec![(1, 1), (3, 3)]));
    assert_eq!(balance.to_string(), "5 accepted = 3 ignored + 2 missing");
    assert_eq!(
        (balance.gaps[0].run.clone(), balance.gaps[0].source.as_str()),
        (Uuid::from_u128(7).to_string(), "acme-github")
    );
}

#[rstest]
#[tokio::test]
async fn what_arrives_late_closes_its_gap(#[values(Sqlite, PostgreSql)] on: Database) {
    let late = [&[stamped("e", 5)][..], &[stamped("c", 3)], &[stamped("a", 1), stamped("d", 4)]];
    assert_eq!(missing(&after(on, &late).await), [(2, 2)]);
}

#[rstest]
#[tokio::test]
async fn a_checkpoint_names_the_missing_tail(#[values(Sqlite, PostgreSql)] on: Database) {
    let balance = after(on, &[&[stamped("a", 1)], &[checkpoint(3, &[])], &[checkpoint(2, &[])]]).await;
    assert_eq!((balance.accepted, missing(&balance)), (3, vec![(2, 3)]));
}

#[rstest]
#[tokio::test]
async fn a_message_that_the_broker_delivers_twice_counts_once(#[values(Sqlite, PostgreSql)] on: Database) {
    let balance = after(on, &[&[stamped("a", 1), stamped("a", 1)], &[stamped("a", 1)]]).await;
    assert_eq!(balance.to_string(), "1 accepted = 1 ignored + 0 missing");
}

#[rstest]
#[tokio::test]
async fn a_delivery_that_was_accepted_twice_counts_twice(#[values(Sqlite, PostgreSql)] on: Database) {
    let balance = after(on, &[&[stamped("a", 1), stamped("a", 2)], &[stamped("a", 3)]]).await;
    assert_eq!(balance.to_string(), "3 accepted = 3 ignored + 0 missing");
}

#[rstest]
#[tokio::test]
async fn a_number_that_was_never_answered_with_success_is_not_missing(#[values(Sqlite, PostgreSql)] on: Database) {
    let balance = after(on, &[&[stamped("a", 1)], &[checkpoint(3, &[2])], &[checkpoint(3, &[2])]]).await;
    assert_eq!((balance.accepted, missing(&balance)), (2, vec![(3, 3)]));
}

#[rstest]
#[tokio::test]
async fn a_void_that_arrives_all_the_same_never_spoils_the_balance(#[values(Sqlite, PostgreSql)] on: Database) {
    let before = after(on, &[&[stamped("a", 1), stamped("b", 2)], &[checkpoint(2, &[2])]]).await;
    assert_eq!(before.to_string(), "2 accepted = 2 ignored + 0 missing");
    let behind = after(on, &[&[stamped("a", 1)], &[checkpoint(2, &[2])], &[stamped("b", 2)]]).await;
    assert_eq!(behind.to_string(), "1 accepted = 1 ignored + 0 missing");
}

#[rstest]
#[tokio::test]
async fn runs_and_sources_are_counted_apart(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut other = stamped("b", 1);
    if let Record::Delivery(entry) = &mut other {
        entry.delivery.stamp = Some(Stamp { run: Uuid::from_u128(8), sequence: 2 });
    }
    let balance = after(on, &[&[stamped("a", 1), other]]).await;
    assert_eq!((balance.accepted, missing(&balance)), (3, vec![(1, 1)]));
}

#[rstest]
#[tokio::test]
async fn a_replay_is_not_accepted(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut replay = stamped("a", 1);
    if let Record::Delivery(entry) = &mut replay {
        entry.delivery.stamp = None;
        entry.delivery.replay = Some(Uuid::from_u128(9));
    }
    assert_eq!(after(on, &[&[stamped("a", 1)], &[replay]]).await.to_string(), "1 accepted = 1 ignored + 0 missing");
}

/// Whoever may publish to the broker may send any number; what no ingress can have come to says nothing of any.
#[rstest]
#[tokio::test]
async fn a_number_that_no_ingress_can_have_come_to_is_left_out(#[values(Sqlite, PostgreSql)] on: Database) {
    const HUGE: u64 = i64::MAX.unsigned_abs();
    let mut strange = vec![stamped("max", HUGE), stamped("beyond", u64::MAX), checkpoint(HUGE, &[HUGE, u64::MAX])];
    strange.push(checkpoint(3, &[2, HUGE, u64::MAX]));
    let balance = after(on, &[&[stamped("one", 1)], &strange, &[stamped("three", 3)]]).await;
    assert_eq!(balance.to_string(), "2 accepted = 2 ignored + 0 missing");
}

/// What an earlier version has let in, or somebody has written by hand.
#[rstest]
#[tokio::test]
async fn sums_beyond_all_numbers_are_shown_as_the_greatest(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = Site::open(on).await;
    for run in 1..=3_i64 {
        let row =
            "INSERT INTO stamps (run, source, high, voids, told, since, seen_at) VALUES ($1, 's', $2, 0, $2, 0, 0)";
        sqlx::query(row).bind(run.to_string()).bind(i64::MAX).execute(&site.ledger.write).await.unwrap();
        let gap = "INSERT INTO gaps (run, source, first, last, since) VALUES ($1, 's', 1, $2, 0)";
        sqlx::query(gap).bind(run.to_string()).bind(i64::MAX).execute(&site.ledger.write).await.unwrap();
    }
    let balance = site.ledger.balance().await.unwrap();
    assert_eq!((balance.accepted, balance.missing(), balance.adds_up()), (i64::MAX, i64::MAX, true));
    assert_eq!(site.ledger.missing(Duration::ZERO).await.unwrap().len(), 3);
}
