//! Due accounts go out under a lease and come back settled.

use futures_util::future::join_all;

use super::*;
use crate::ledger::LedgerError;
use crate::ledger::learned::IdentityForm;
use crate::ledger::work::Attempt;
use crate::target::FailureClass;

/// A lease that is over as soon as it is given.
const OVER: Duration = Duration::ZERO;

async fn with_a_join(on: Database) -> Site {
    let mut site = Site::open(on).await;
    site.record([told("join", 1, gained("1", org()))]).await;
    site
}

#[rstest]
#[tokio::test]
async fn what_is_leased_is_not_taken_again_before_the_lease_is_over(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = with_a_join(on).await;
    let first = site.ledger.take_due("one", OVER, 10).await.unwrap().leases;
    let second = site.ledger.take_due("two", LEASE, 10).await.unwrap().leases;
    assert_eq!((first.len(), second.len()), (1, 1));
    assert!(site.ledger.take_due("three", LEASE, 10).await.unwrap().leases.is_empty());
}

#[rstest]
#[tokio::test]
async fn losses_go_first_then_what_is_due_longest(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    for n in 1..=4 {
        site.record([told(&format!("join-{n}"), n, gained(&n.to_string(), org()))]).await;
    }
    site.record([told("leave-3", 9, lost("3", org()))]).await;
    let first = site.ledger.take_due("one", LEASE, 2).await.unwrap().leases;
    let mut ids = Vec::new();
    for lease in first.iter().chain(&site.take().await) {
        ids.push(site.ledger.view(lease, &|_| Vec::new()).await.unwrap().account.key.id);
    }
    assert_eq!(ids, ["3", "1", "2", "4"]);
}

#[rstest]
#[tokio::test]
async fn what_is_due_later_is_not_taken_and_says_when(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = with_a_join(on).await;
    assert_eq!(site.ledger.next_due().await.unwrap(), Some(Duration::ZERO));
    let (lease, view) = site.take_one().await;
    let later = Settlement {
        due_at: Some(view.now.plus(Duration::from_hours(1))),
        ..settled(Settled::Failed, Some(PERSON), None)
    };
    assert_eq!(site.ledger.settle(&lease, view.version, &later, Vec::new()).await.unwrap(), Held::Written);
    assert!(site.take().await.is_empty());
    let next = site.ledger.next_due().await.unwrap().unwrap();
    assert!(next > Duration::from_mins(50) && next <= Duration::from_hours(1), "{next:?}");
}

#[rstest]
#[tokio::test]
async fn a_leased_account_is_next_when_its_lease_is_over(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = with_a_join(on).await;
    site.take().await;
    let next = site.ledger.next_due().await.unwrap().unwrap();
    assert!(next > LEASE / 2 && next <= LEASE, "{next:?}");
}

#[rstest]
#[tokio::test]
async fn nothing_is_next_when_all_is_settled(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = with_a_join(on).await;
    site.reconcile(&[]).await;
    assert_eq!(site.ledger.next_due().await.unwrap(), None);
}

#[rstest]
#[tokio::test]
async fn an_intent_is_written_before_anything_is_sent_and_makes_the_status_unknown(
    #[values(Sqlite, PostgreSql)] on: Database,
) {
    let site = with_a_join(on).await;
    let (lease, view) = site.take_one().await;
    site.ledger
        .settle(
            &lease,
            view.version,
            &Settlement {
                due_at: Some(Timestamp(0)),
                ..settled(Settled::Postponed, Some(PERSON), Some(LinkStatus::Unlinked))
            },
            Vec::new(),
        )
        .await
        .unwrap();
    let (lease, view) = site.take_one().await;
    assert_eq!((view.actual, view.identity), (Some(LinkStatus::Unlinked), Some(IdentityRef(71))));
    assert_eq!(site.ledger.intend(&lease, view.version, PERSON, LEASE, Vec::new()).await.unwrap(), Held::Written);
    let view = site.ledger.view(&lease, &|_| Vec::new()).await.unwrap();
    assert_eq!((view.actual, view.intent.map(|(status, _)| status)), (None, Some(PERSON)));
}

#[rstest]
#[tokio::test]
async fn an_unanswered_intent_survives_until_it_is_answered(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = with_a_join(on).await;
    let (lease, view) = site.take_one().await;
    site.ledger.intend(&lease, view.version, PERSON, LEASE, Vec::new()).await.unwrap();
    let unanswered =
        Settlement { keep_intent: true, due_at: Some(Timestamp(0)), ..settled(Settled::Failed, Some(PERSON), None) };
    site.ledger.settle(&lease, view.version, &unanswered, Vec::new()).await.unwrap();
    let (lease, view) = site.take_one().await;
    assert_eq!(view.intent.map(|(status, _)| status), Some(PERSON));
    site.ledger
        .settle(&lease, view.version, &settled(Settled::Applied, Some(PERSON), Some(PERSON)), Vec::new())
        .await
        .unwrap();
    assert_eq!(site.ledger.view(&lease, &|_| Vec::new()).await.unwrap().intent, None);
}

#[rstest]
#[tokio::test]
async fn nothing_is_intended_or_settled_once_the_version_has_moved(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = with_a_join(on).await;
    let (lease, view) = site.take_one().await;
    site.record([told("leave", 5, lost("1", org()))]).await;
    let applied = settled(Settled::Applied, Some(PERSON), Some(PERSON));
    assert_eq!(site.ledger.intend(&lease, view.version, PERSON, LEASE, Vec::new()).await.unwrap(), Held::Moved);
    assert_eq!(site.ledger.settle(&lease, view.version, &applied, Vec::new()).await.unwrap(), Held::Moved);
    assert_eq!(site.outcome("leave").await, Outcome::Pending);
    let again = site.ledger.view(&lease, &|_| Vec::new()).await.unwrap();
    assert_eq!(again.version, view.version + 1);
    assert_eq!((again.actual, again.identity), (Some(PERSON), Some(IdentityRef(71))), "what was learned is kept");
    let gone = settlement_of(&access(&again.grants, &again.roots));
    assert_eq!(site.ledger.settle(&lease, again.version, &gone, Vec::new()).await.unwrap(), Held::Written);
    assert_eq!(site.outcome("leave").await, Outcome::Applied);
}

#[rstest]
#[tokio::test]
async fn nothing_is_intended_or_settled_once_the_lease_is_over(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = with_a_join(on).await;
    let lease = site.ledger.take_due("one", OVER, 1).await.unwrap().leases.remove(0);
    let view = site.ledger.view(&lease, &|_| Vec::new()).await.unwrap();
    let applied = settled(Settled::Applied, Some(PERSON), Some(PERSON));
    assert_eq!(site.ledger.intend(&lease, view.version, PERSON, LEASE, Vec::new()).await.unwrap(), Held::Lost);
    assert_eq!(site.ledger.settle(&lease, view.version, &applied, Vec::new()).await.unwrap(), Held::Lost);
    let view = site.ledger.view(&lease, &|_| Vec::new()).await.unwrap();
    assert_eq!((view.actual, view.intent), (None, None));
    assert_eq!(site.outcome("join").await, Outcome::Pending);
}

#[rstest]
#[tokio::test]
async fn a_lease_that_is_over_says_nothing_under_the_next_one_of_the_same_owner(
    #[values(Sqlite, PostgreSql)] on: Database,
) {
    let site = with_a_join(on).await;
    let stale = site.ledger.take_due("one", OVER, 1).await.unwrap().leases.remove(0);
    let fresh = site.ledger.take_due("one", LEASE, 1).await.unwrap().leases.remove(0);
    let view = site.ledger.view(&stale, &|_| Vec::new()).await.unwrap();
    let applied = settled(Settled::Applied, Some(PERSON), Some(PERSON));
    assert_eq!(site.ledger.intend(&stale, view.version, PERSON, LEASE, Vec::new()).await.unwrap(), Held::Lost);
    assert_eq!(site.ledger.settle(&stale, view.version, &applied, Vec::new()).await.unwrap(), Held::Lost);
    assert_eq!(site.ledger.settle(&fresh, view.version, &applied, Vec::new()).await.unwrap(), Held::Written);
}

#[rstest]
#[tokio::test]
async fn each_way_to_settle_has_its_outcome(#[values(Sqlite, PostgreSql)] on: Database) {
    for (result, outcome, attempts) in [
        (Settled::Applied, Outcome::Applied, 0),
        (Settled::Unchanged, Outcome::Unchanged, 0),
        (Settled::Waiting, Outcome::Waiting, 0),
        (Settled::Failed, Outcome::Pending, 2),
        (Settled::Postponed, Outcome::Pending, 1),
        (Settled::Parked, Outcome::Parked, 1),
    ] {
        let site = with_a_join(on).await;
        let (lease, view) = site.take_one().await;
        let failed = Settlement { due_at: Some(Timestamp(0)), ..settled(Settled::Failed, Some(PERSON), None) };
        site.ledger.settle(&lease, view.version, &failed, Vec::new()).await.unwrap();
        let (lease, view) = site.take_one().await;
        assert_eq!(view.attempts, 1);
        let settlement = Settlement { reason: Some("because".into()), ..settled(result, Some(PERSON), Some(PERSON)) };
        assert_eq!(site.ledger.settle(&lease, view.version, &settlement, Vec::new()).await.unwrap(), Held::Written);
        assert_eq!(site.outcome("join").await, outcome, "{result:?}");
        assert_eq!(site.ledger.view(&lease, &|_| Vec::new()).await.unwrap().attempts, attempts, "{result:?}");
        let last = site.history("join").await.pop().unwrap();
        assert_eq!(last, (outcome.as_str().to_owned(), Some("because".to_owned())));
    }
}

#[rstest]
#[tokio::test]
async fn the_history_has_a_line_for_each_piece_of_news(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = with_a_join(on).await;
    for reason in ["no identity yet", "no identity yet", "nobody knows whose it is"] {
        let (lease, view) = site.take_one().await;
        let waiting = Settlement {
            reason: Some(reason.into()),
            due_at: Some(Timestamp(0)),
            ..settled(Settled::Waiting, None, None)
        };
        site.ledger.settle(&lease, view.version, &waiting, Vec::new()).await.unwrap();
    }
    site.reconcile(&[]).await;
    let lines = site.history("join").await;
    let lines: Vec<(&str, Option<&str>)> = lines.iter().map(|(word, why)| (word.as_str(), why.as_deref())).collect();
    assert_eq!(
        lines,
        [
            ("pending", None),
            ("waiting", Some("no identity yet")),
            ("waiting", Some("nobody knows whose it is")),
            ("applied", None),
        ]
    );
}

#[rstest]
#[tokio::test]
async fn whoever_waits_can_be_woken(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = with_a_join(on).await;
    let (lease, view) = site.take_one().await;
    site.ledger.settle(&lease, view.version, &settled(Settled::Waiting, None, None), Vec::new()).await.unwrap();
    assert_eq!(site.ledger.wake_waiting().await.unwrap(), 1);
    site.reconcile(&[]).await;
    assert_eq!(site.ledger.wake_waiting().await.unwrap(), 0);
}

fn failed_call() -> Attempt {
    Attempt {
        operation: "connect",
        wanted: Some(PERSON),
        answer: Some(500),
        failure: Some(FailureClass::Transient),
        duration: Duration::from_millis(3),
        message: Some("out of order".to_owned()),
    }
}

#[rstest]
#[tokio::test]
async fn calls_are_written_down_with_what_follows_from_them(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = with_a_join(on).await;
    let (lease, view) = site.take_one().await;
    let held = site.ledger.intend(&lease, view.version, PERSON, LEASE, vec![failed_call()]).await.unwrap();
    assert_eq!(held, Held::Written);
    let done = Attempt { answer: Some(200), failure: None, message: None, ..failed_call() };
    // They were made, whoever holds the account by now.
    let stranger = Lease { owner: "somebody else".to_owned(), ..lease };
    let applied = settled(Settled::Applied, Some(PERSON), Some(PERSON));
    assert_eq!(site.ledger.settle(&stranger, view.version, &applied, vec![done]).await.unwrap(), Held::Lost);
    let rows = sqlx::query("SELECT wanted, answer, result, duration_us, message FROM attempts ORDER BY id")
        .fetch_all(&site.ledger.read)
        .await
        .unwrap();
    let rows: Vec<(String, i64, String, i64, Option<String>)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))).collect();
    assert_eq!(
        rows,
        [
            ("518".into(), 500, "transient".into(), 3000, Some("out of order".into())),
            ("518".into(), 200, "done".into(), 3000, None),
        ]
    );
}

#[rstest]
#[tokio::test]
async fn of_looks_that_settle_at_once_one_that_fails_fails_alone(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    site.record((1..=6).map(|n| told(&format!("join-{n}"), n, gained(&n.to_string(), org())))).await;
    let leases = site.take().await;
    assert_eq!(leases.len(), 6);
    let nobodys = Lease { status: -1, owner: "nobody".to_owned(), probe: false };
    let applied = settled(Settled::Applied, Some(PERSON), Some(PERSON));
    let settling = leases.iter().chain([&nobodys]).map(async |lease| {
        let version =
            if lease.status < 0 { 0 } else { site.ledger.view(lease, &|_| Vec::new()).await.unwrap().version };
        site.ledger.settle(lease, version, &applied, vec![failed_call()]).await
    });
    let mut settled = join_all(settling).await;
    assert!(matches!(settled.pop(), Some(Err(LedgerError::Database(_)))));
    assert!(settled.into_iter().all(|held| matches!(held, Ok(Held::Written))));
    let row = sqlx::query("SELECT COUNT(*) FROM attempts").fetch_one(&site.ledger.read).await.unwrap();
    assert_eq!(row.get::<i64, _>(0), 6);
}

#[rstest]
#[tokio::test]
async fn the_first_form_of_identity_ids_that_was_found_is_kept_to(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = Site::open(on).await;
    let connection = ConnectionRef::Id(12);
    assert_eq!(site.ledger.identity_form(&connection).await.unwrap(), None);
    for form in [IdentityForm::NodeId, IdentityForm::Login] {
        site.ledger.learn_identity_form(&connection, form).await.unwrap();
        assert_eq!(site.ledger.identity_form(&connection).await.unwrap(), Some(IdentityForm::NodeId));
    }
}

#[rstest]
#[tokio::test]
async fn a_login_in_the_people_map_stays_with_the_first_account_that_had_it(
    #[values(Sqlite, PostgreSql)] on: Database,
) {
    let mut site = Site::open(on).await;
    site.record([told("a", 1, gained("1", org())), told("b", 2, gained("2", org()))]).await;
    let mut rows = Vec::new();
    for lease in site.take().await {
        rows.push(site.ledger.view(&lease, &|_| Vec::new()).await.unwrap().account_row);
    }
    assert!(site.ledger.bind_login("github:ada", rows[0]).await.unwrap());
    assert!(!site.ledger.bind_login("github:ada", rows[1]).await.unwrap());
    assert!(site.ledger.bind_login("github:ada", rows[0]).await.unwrap());
}

#[tokio::test]
async fn what_was_recorded_is_there_when_the_ledger_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).await.unwrap();
    ledger.record(&[Record::Delivery(Box::new(told("join", 1, gained("1", org()))))]).await.unwrap();
    ledger.close().await;
    let ledger = Ledger::open(folder.path()).await.unwrap();
    assert_eq!(ledger.take_due("worker", LEASE, 10).await.unwrap().leases.len(), 1);
}
