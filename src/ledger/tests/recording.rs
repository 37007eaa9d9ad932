//! Deliveries come in.

use super::*;
use crate::delivery::TryKey;
use crate::ledger::LedgerError;
use crate::ledger::outcome::Outcome::{Applied, Held, Ignored, Parked, Pending, Superseded, Unchanged};

#[rstest]
#[tokio::test]
async fn a_join_makes_a_pending_effect_and_a_due_account(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    assert!(site.record([told("join", 1, gained("1", org()))]).await);
    assert_eq!(site.deliveries("join").await, [(Pending, 1, false, false)]);
    let (_, view) = site.take_one().await;
    assert_eq!(view.account, account("1"));
    assert!(view.login_is_its_own);
    assert_eq!((view.actual, view.identity, view.intent, view.attempts), (None, None, None, 0));
    assert_eq!(view.connection, ConnectionRef::Only("GITHUB".into()));
    assert!(matches!(access(&view.grants, &view.roots), Access::Held { seen_only: false, .. }));
    assert_eq!(view.roots[0].name, "org:acme");
}

#[rstest]
#[tokio::test]
async fn a_duplicate_is_counted_and_changes_nothing(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    site.record([told("join", 1, gained("1", org()))]).await;
    let (lease, view) = site.take_one().await;
    let copy = told("join", 5, gained("1", org()));
    assert!(!site.record([copy.clone(), copy]).await);
    assert_eq!(site.deliveries("join").await, [(Pending, 3, false, false)]);
    assert_eq!((site.count("changes").await, site.count("effects").await), (1, 1));
    assert_eq!(site.ledger.view(&lease, &|_| Vec::new()).await.unwrap().version, view.version);
}

#[rstest]
#[tokio::test]
async fn the_same_id_with_other_bytes_is_another_delivery_and_says_so(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    let mut other = told("one", 2, gained("2", org()));
    other.delivery.body = Bytes::from_static(b"{\"of\":\"another\"}");
    site.record([told("one", 1, gained("1", org())), other]).await;
    assert_eq!(site.deliveries("one").await, [(Pending, 1, false, false), (Pending, 1, false, true)]);
    assert_eq!(site.take().await.len(), 2);
}

#[rstest]
#[tokio::test]
async fn the_same_bytes_under_another_id_are_flagged_and_count_as_another_delivery(
    #[values(Sqlite, PostgreSql)] on: Database,
) {
    let mut site = Site::open(on).await;
    let mut again = told("two", 9, gained("1", org()));
    again.delivery.body = delivery("one", 1).body;
    site.record([told("one", 1, gained("1", org()))]).await;
    site.record([again]).await;
    assert_eq!(site.deliveries("one").await, [(Superseded, 1, false, false)]);
    assert_eq!(site.deliveries("two").await, [(Pending, 1, true, false)]);
}

#[rstest]
#[tokio::test]
async fn an_older_change_that_comes_later_is_superseded(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    site.record([told("leave", 5, lost("1", org()))]).await;
    assert!(!site.record([told("join", 1, gained("1", org()))]).await);
    assert_eq!((site.outcome("leave").await, site.outcome("join").await), (Pending, Superseded));
    assert_eq!(site.reconcile(&[]).await, [(account("1"), Access::Gone)]);
    assert_eq!((site.outcome("leave").await, site.outcome("join").await), (Applied, Superseded));
}

#[rstest]
#[tokio::test]
async fn a_newer_change_supersedes_what_is_pending_waiting_or_parked(#[values(Sqlite, PostgreSql)] on: Database) {
    for result in [Settled::Failed, Settled::Waiting, Settled::Parked] {
        let mut site = Site::open(on).await;
        site.record([told("join", 1, gained("1", org()))]).await;
        let (lease, view) = site.take_one().await;
        site.ledger.settle(&lease, view.version, &settled(result, Some(PERSON), None), Vec::new()).await.unwrap();
        site.record([told("leave", 5, lost("1", org()))]).await;
        assert_eq!((site.outcome("join").await, site.outcome("leave").await), (Superseded, Pending));
        let last = site.history("join").await.pop().unwrap();
        assert_eq!(last, ("superseded".into(), Some("delivery leave is newer".into())));
    }
}

#[rstest]
#[tokio::test]
async fn what_was_applied_stays_applied(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    site.record([told("join", 1, gained("1", org()))]).await;
    site.reconcile(&[]).await;
    site.record([told("leave", 5, lost("1", org()))]).await;
    site.reconcile(&[]).await;
    assert_eq!((site.outcome("join").await, site.outcome("leave").await), (Applied, Applied));
}

#[rstest]
#[tokio::test]
async fn an_earlier_copy_moves_a_delivery_back_in_the_order(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    site.record([told("leave", 5, lost("1", org())), told("join", 9, gained("1", org()))]).await;
    assert_eq!((site.outcome("leave").await, site.outcome("join").await), (Superseded, Pending));
    assert!(site.record([told("join", 1, gained("1", org()))]).await);
    assert_eq!((site.outcome("leave").await, site.outcome("join").await), (Pending, Superseded));
    assert_eq!(site.reconcile(&[]).await, [(account("1"), Access::Gone)]);
    assert_eq!((site.outcome("leave").await, site.outcome("join").await), (Applied, Superseded));
}

#[rstest]
#[tokio::test]
async fn a_look_that_began_before_the_order_changed_has_to_look_again(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    site.record([told("leave", 5, lost("1", org())), told("join", 9, gained("1", org()))]).await;
    let (lease, view) = site.take_one().await;
    site.record([told("join", 1, gained("1", org()))]).await;
    let held = site.ledger.intend(&lease, view.version, PERSON, LEASE, Vec::new()).await.unwrap();
    assert_eq!(held, crate::ledger::work::Held::Moved);
}

#[rstest]
#[tokio::test]
async fn activity_gives_way_to_any_join_or_leave(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    site.record([told("push", 9, seen("1", repo("7")))]).await;
    let (lease, view) = site.take_one().await;
    assert!(matches!(access(&view.grants, &view.roots), Access::Held { seen_only: true, .. }));
    site.ledger.settle(&lease, view.version, &settled(Settled::Waiting, None, None), Vec::new()).await.unwrap();
    site.record([told("removed", 5, lost("1", repo("7")))]).await;
    assert_eq!((site.outcome("push").await, site.outcome("removed").await), (Superseded, Pending));
    site.record([told("push-2", 12, seen("1", repo("7")))]).await;
    let reason = Some("activity doesn't beat a recorded join or leave".to_owned());
    assert_eq!(site.history("push-2").await.pop(), Some(("superseded".into(), reason)));
}

#[rstest]
#[tokio::test]
async fn parked_and_ignored_deliveries_touch_nobody_and_an_ignored_one_keeps_no_body(
    #[values(Sqlite, PostgreSql)] on: Database,
) {
    let mut site = Site::open(on).await;
    let parked = Entry { reading: Reading::Parked("not JSON".into()), ..told("parked", 1, gained("1", org())) };
    let ignored = Entry { reading: Reading::Ignored("a star".into()), ..told("ignored", 1, gained("1", org())) };
    assert!(!site.record([parked, ignored]).await);
    assert_eq!((site.outcome("parked").await, site.outcome("ignored").await), (Parked, Ignored));
    assert!(site.take().await.is_empty());
    let kept = sqlx::query("SELECT delivery FROM deliveries WHERE body IS NOT NULL")
        .fetch_all(&site.ledger.read)
        .await
        .unwrap();
    assert_eq!(kept.iter().map(|row| row.get(0)).collect::<Vec<String>>(), ["parked"]);
}

#[rstest]
#[tokio::test]
async fn without_a_connection_a_change_is_recorded_and_touches_nothing(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    let mut entry = told("join", 1, gained("1", org()));
    if let Reading::Told { changes, .. } = &mut entry.reading {
        changes[0].connection = None;
    }
    assert!(!site.record([entry]).await);
    assert_eq!((site.outcome("join").await, site.count("grants").await), (Unchanged, 1));
    assert_eq!((site.count("statuses").await, site.count("roots").await), (0, 0));
}

#[rstest]
#[tokio::test]
async fn a_replay_is_read_anew_and_is_not_accepted_anew(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    site.record([Entry { reading: Reading::Parked("unknown".into()), ..told("join", 1, gained("1", org())) }]).await;
    let mut replay = told("join", 1, gained("1", org()));
    replay.delivery.replay = Some(Uuid::from_u128(9));
    assert!(site.record([replay.clone()]).await);
    assert_eq!(site.deliveries("join").await, [(Pending, 1, false, false)]);
    site.reconcile(&[]).await;
    assert!(site.record([replay]).await, "a replay has the account looked at again");
    site.reconcile(&[]).await;
    let outcomes: Vec<String> = site.history("join").await.into_iter().map(|(outcome, _)| outcome).collect();
    assert_eq!(outcomes, ["parked", "pending", "applied", "pending", "applied"]);
}

#[rstest]
#[tokio::test]
async fn a_batch_is_recorded_whole_or_not_at_all(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = Site::open(on).await;
    sqlx::query("DROP TABLE begun").execute(&site.ledger.write).await.unwrap();
    sqlx::query("ALTER TABLE gaps RENAME TO elsewhere").execute(&site.ledger.write).await.unwrap();
    let mut entry = told("join", 1, gained("1", org()));
    entry.delivery.stamp = Some(Stamp { run: site.run, sequence: 1 });
    let error = site.ledger.record(&[Record::Delivery(Box::new(entry))]).await.unwrap_err();
    assert!(error.is_outage() && !error.is_transient(), "{error}");
    assert_eq!(site.count("deliveries").await, 0);
}

/// What is run again, or taken back, didn't happen.
#[rstest]
#[tokio::test]
async fn outcomes_are_counted_when_they_are_committed(#[values(Sqlite, PostgreSql)] on: Database) {
    let (recorder, read) = crate::telemetry::metrics::recorder().unwrap();
    let _counted = metrics::set_default_local_recorder(&recorder);
    let mut site = Site::open(on).await;
    let mut entry = told("join", 1, gained("1", org()));
    entry.delivery.stamp = Some(Stamp { run: site.run, sequence: 1 });
    sqlx::query("ALTER TABLE stamps RENAME TO elsewhere").execute(&site.ledger.write).await.unwrap();
    site.ledger.record(&[Record::Delivery(Box::new(entry.clone()))]).await.unwrap_err();
    sqlx::query("ALTER TABLE elsewhere RENAME TO stamps").execute(&site.ledger.write).await.unwrap();
    site.ledger.try_recording(Some(&entry.delivery)).await.unwrap();
    assert!(!read.render().contains("rollcall_outcomes_total{"), "{}", read.render());
    site.record([entry]).await;
    site.reconcile(&[]).await;
    for outcome in ["pending", "applied"] {
        let line = format!("rollcall_outcomes_total{{outcome=\"{outcome}\"}} 1");
        assert!(read.render().contains(&line), "{}", read.render());
    }
    assert_eq!(site.count("deliveries").await, 1, "what was tried is taken back");
}

#[rstest]
#[tokio::test]
async fn a_redelivery_has_a_waiting_account_looked_at_again(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    site.record([told("join", 1, gained("1", org()))]).await;
    let (lease, view) = site.take_one().await;
    site.ledger.settle(&lease, view.version, &settled(Settled::Waiting, None, None), Vec::new()).await.unwrap();
    assert!(site.take().await.is_empty());
    assert!(site.record([told("join", 3, gained("1", org()))]).await);
    assert_eq!(site.take().await.len(), 1);
}

#[rstest]
#[tokio::test]
async fn one_delivery_may_concern_many_accounts_and_its_outcome_is_the_first_of_theirs(
    #[values(Sqlite, PostgreSql)] on: Database,
) {
    let mut site = Site::open(on).await;
    let mut entry = told("both", 1, gained("1", org()));
    if let Reading::Told { changes, .. } = &mut entry.reading {
        changes.extend(placed(&[], gained("2", org())));
    }
    site.record([entry]).await;
    let leases = site.take().await;
    for (lease, result) in leases.iter().zip([Settled::Applied, Settled::Waiting]) {
        let view = site.ledger.view(lease, &|_| Vec::new()).await.unwrap();
        site.ledger
            .settle(lease, view.version, &settled(result, Some(PERSON), Some(PERSON)), Vec::new())
            .await
            .unwrap();
    }
    assert_eq!(site.outcome("both").await, Outcome::Waiting);
    site.ledger.wake_waiting().await.unwrap();
    site.reconcile(&[]).await;
    assert_eq!(site.outcome("both").await, Applied);
    assert!(Held < Applied);
}

#[rstest]
#[tokio::test]
async fn tries_of_a_delivery_are_counted_until_it_is_finished(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = Site::open(on).await;
    let Delivery { source, id, .. } = delivery("one", 1);
    let one = TryKey { source, delivery: id, digest: vec![1; 32] };
    let other_bytes = TryKey { digest: vec![2; 32], ..one.clone() };
    assert_eq!(site.ledger.begin_delivery(&one).await.unwrap(), 1);
    assert_eq!(site.ledger.begin_delivery(&one).await.unwrap(), 2);
    assert_eq!(site.ledger.begin_delivery(&other_bytes).await.unwrap(), 1);
    site.ledger.finish_delivery(&one).await.unwrap();
    assert_eq!(site.ledger.begin_delivery(&one).await.unwrap(), 1);
    assert_eq!(site.ledger.begin_delivery(&other_bytes).await.unwrap(), 2);
}

/// A name that is a legal JSON text and can't be a text in PostgreSQL.
fn with_a_null_character() -> Entry {
    let mut odd = account("1");
    odd.login = Some("octo\0cat".to_owned());
    told("null", 1, Change::Access { account: odd, scope: org(), kind: AccessKind::Gained })
}

#[tokio::test]
async fn what_the_database_refuses_for_its_data_is_not_waited_out() {
    let site = Site::open(PostgreSql).await;
    let error = site.ledger.record(&[Record::Delivery(Box::new(with_a_null_character()))]).await.unwrap_err();
    assert!(!error.is_outage(), "{error}");
    let name = "CREATE TABLE twice (name TEXT UNIQUE)";
    for on in [Sqlite, PostgreSql] {
        let site = Site::open(on).await;
        sqlx::query(name).execute(&site.ledger.write).await.unwrap();
        let twice = "INSERT INTO twice VALUES ('a'), ('a')";
        let error = sqlx::query(twice).execute(&site.ledger.write).await.unwrap_err();
        assert!(!LedgerError::from(error).is_outage(), "{on:?}");
        let missing = sqlx::query("SELECT 1 FROM nowhere").execute(&site.ledger.write).await.unwrap_err();
        let missing = LedgerError::from(missing);
        assert!(
            missing.is_outage() && !missing.is_transient(),
            "{on:?}: an operator can put that right, and time can't"
        );
    }
}

#[rstest]
#[tokio::test]
async fn a_message_that_cannot_be_read_is_kept_once_with_its_bytes(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = Site::open(on).await;
    let message = |id: Option<&str>, body: &'static [u8]| Record::Unreadable {
        id: id.map(str::to_owned),
        why: "it isn't one of ours: it has no headers".to_owned(),
        body: Bytes::from_static(body),
        properties: None,
    };
    let odd = b"\0\xff not text";
    let batch = [message(Some("m\0-1"), odd), message(None, b"{}"), message(Some("m\0-1"), odd), message(None, b"")];
    assert!(!site.ledger.record(&batch).await.unwrap());
    site.ledger.record(&batch[1..2]).await.unwrap();
    let kept = site.ledger.unreadable(10).await.unwrap();
    let told: Vec<_> = kept.iter().map(|row| (row.message.as_deref(), row.copies, row.bytes)).collect();
    assert_eq!(told, [(None, 2, 2), (None, 1, 0), (Some("m\u{fffd}-1"), 2, 11)]);
    assert_eq!(site.ledger.unreadable_body(kept[2].row).await.unwrap().as_deref(), Some(&odd[..]));
    assert_eq!(site.ledger.unreadable_body(99).await.unwrap(), None);
    assert_eq!(site.ledger.counts().await.unwrap().unreadable, 3);
}

/// A wrong clock, or whoever may publish to the broker: a time far ahead must not win over what really happens later.
#[rstest]
#[case::far_ahead(i64::MAX)]
#[case::an_hour_ahead(3_600_000_000)]
#[case::before_all_times(i64::MIN)]
#[tokio::test]
async fn a_time_of_receipt_is_clamped_to_the_ledgers_clock(
    #[values(Sqlite, PostgreSql)] on: Database,
    #[case] offset: i64,
) {
    let mut site = Site::open(on).await;
    let now = site.ledger.now().await.unwrap();
    let mut join = told("join", 1, gained("1", org()));
    join.delivery.received_at = now.plus_micros(offset);
    site.record([join]).await;
    let stored: i64 =
        sqlx::query("SELECT received_at FROM deliveries").fetch_one(&site.ledger.read).await.unwrap().get(0);
    let latest = site.ledger.now().await.unwrap().plus(Duration::from_mins(5)).micros();
    assert!((0..=latest).contains(&stored), "{stored}");
    assert_eq!(stored > now.micros(), offset > 0);
    let secrets = site.ledger.secrets().await.unwrap();
    assert!((0..=latest).contains(&secrets[0].last_at.micros()), "{secrets:?}");
    assert!(site.ledger.runs().await.unwrap()[0].seen_at.micros() <= latest);
}
