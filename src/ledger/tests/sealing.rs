//! The seal over the history: what was committed is sealed, late or not, and whoever touches it is found out.

use sha2::{Digest, Sha256};
use sqlx::AssertSqlSafe;

use super::*;
use crate::ledger::actions::NewAction;
use crate::ledger::seal::sealer::Sealed;
use crate::ledger::seal::verify::{Place as At, Verified, What};
use crate::ledger::seal::{Head, KnownHead, LATE};
use crate::ledger::work::Attempt;
use crate::target::FailureClass;

/// Noon of some day.
const NOON: Timestamp = Timestamp(1_795_521_600_000_000);

impl Site {
    /// A history with something in every sealed table, not sealed yet.
    async fn with_history(on: Database) -> Self {
        let mut site = Self::open(on).await;
        site._trial.set_clock(NOON).await;
        site.record([told("join-1", 10, gained("1", org())), told("join-2", 20, gained("2", org()))]).await;
        for lease in site.take().await {
            let view = site.ledger.view(&lease, &|_| Vec::new()).await.unwrap();
            let attempt = Attempt {
                operation: "connect",
                wanted: Some(PERSON),
                answer: Some(500),
                failure: Some(FailureClass::Transient),
                duration: Duration::from_millis(120),
                message: Some("Internal server error".to_owned()),
            };
            let settlement = settlement_of(&access(&view.grants, &view.roots));
            site.ledger.settle(&lease, view.version, &settlement, vec![attempt]).await.unwrap();
        }
        // An earlier copy of the first one, so that it is moved.
        site.record([told("join-1", 5, gained("1", org()))]).await;
        let action =
            NewAction { operator: "ada", action: "link", account: Some(1), delivery: None, detail: Some("by hand") };
        site.ledger.note_action(action).await.unwrap();
        site
    }

    async fn sealed_history(on: Database) -> (Self, Head) {
        let site = Self::with_history(on).await;
        let head = site.ledger.seal().await.unwrap().head.unwrap();
        (site, head)
    }

    /// Does what somebody with the database's password may do.
    async fn tamper(&self, text: &str) {
        sqlx::query(AssertSqlSafe(text.to_owned())).execute(&self.ledger.write).await.unwrap();
    }

    /// Adds a line to the history of the first delivery, under an id of one's own choice.
    async fn put_outcome(&self, id: i64) {
        let own = match self.ledger.database() {
            Sqlite => "",
            PostgreSql => "OVERRIDING SYSTEM VALUE",
        };
        self.tamper(&format!(
            "INSERT INTO outcomes (id, delivery, at, outcome) {own} VALUES ({id}, 1, {}, 'applied')",
            NOON.micros()
        ))
        .await;
    }

    async fn verified(&self) -> Verified {
        self.ledger.verify(None).await.unwrap()
    }

    /// The first broken place, against a head that was noted.
    async fn broken(&self, head: Option<KnownHead>) -> (At, What) {
        let verified = self.ledger.verify(head).await.unwrap();
        assert!(!verified.holds());
        let first = verified.first_broken.first().unwrap();
        (first.place, first.what)
    }
}

fn noted(head: Head) -> KnownHead {
    head.to_string().parse().unwrap()
}

fn without_number(head: Head) -> KnownHead {
    head.hash.to_string().parse().unwrap()
}

#[rstest]
#[tokio::test]
async fn what_is_committed_gets_sealed_and_the_rest_is_said_to_be_unsealed(#[values(Sqlite, PostgreSql)] on: Database) {
    let empty = Site::open(on).await;
    assert_eq!(empty.ledger.seal().await.unwrap(), Sealed { rows: 0, head: None });
    assert!(empty.verified().await.holds());

    let mut site = Site::with_history(on).await;
    let unsealed = site.verified().await.unsealed;
    // 2 accounts, 2 deliveries, 2 changes, 1 receipt, 2 outcomes each, 2 attempts, 1 action; the copy is another outcome.
    assert!(unsealed >= 14, "{unsealed}");
    let first = site.ledger.seal().await.unwrap();
    assert_eq!(i64::try_from(first.rows), Ok(unsealed));
    let verified = site.verified().await;
    assert_eq!((verified.broken, verified.rows, verified.unsealed), (0, unsealed, 0), "{verified:?}");
    assert_eq!((verified.head, verified.seals), (first.head, 1));
    assert_eq!(site.ledger.seal().await.unwrap(), Sealed { rows: 0, ..first }, "nothing new is no new seal");

    site.record([told("leave-1", 30, lost("1", org()))]).await;
    let verified = site.verified().await;
    assert!(verified.holds() && verified.unsealed >= 3, "{verified:?}");
    let second = site.ledger.seal().await.unwrap().head.unwrap();
    assert_eq!(second.number, 2);
    for known in [noted(first.head.unwrap()), without_number(first.head.unwrap()), noted(second)] {
        let verified = site.ledger.verify(Some(known)).await.unwrap();
        assert_eq!((verified.broken, verified.known_head, verified.unsealed), (0, Some(true), 0), "{verified:?}");
    }
}

/// A receipt may still move, and a delivery may be replayed, after they were sealed.
#[rstest]
#[tokio::test]
async fn what_is_worked_on_is_no_tampering(#[values(Sqlite, PostgreSql)] on: Database) {
    let (mut site, _) = Site::sealed_history(on).await;
    site.record([told("join-2", 4, gained("2", org()))]).await;
    site.record([told("join-1", 3, gained("1", org()))]).await;
    let mut replayed = told("join-1", 3, gained("1", org()));
    replayed.delivery.replay = Some(Uuid::from_u128(9));
    site.record([replayed]).await;
    site.reconcile(&[]).await;
    assert_eq!(site.verified().await.first_broken, []);
    site.ledger.seal().await.unwrap();
    let verified = site.verified().await;
    assert_eq!((verified.first_broken, verified.unsealed), (vec![], 0));
}

#[rstest]
#[case::a_name("accounts", 1, "UPDATE accounts SET stable = '3' WHERE id = 1", What::Changed)]
#[case::a_source("deliveries", 1, "UPDATE deliveries SET source = 'other' WHERE id = 1", What::Changed)]
#[case::a_receipt("deliveries", 2, "UPDATE deliveries SET received_at = received_at - 1 WHERE id = 2", What::Changed)]
#[case::a_moved_receipt(
    "deliveries",
    1,
    "UPDATE deliveries SET received_at = received_at - 1 WHERE id = 1",
    What::Contradicts
)]
#[case::a_body("deliveries", 1, "UPDATE deliveries SET body = digest WHERE id = 1", What::Body)]
#[case::a_body_and_its_hash(
    "deliveries",
    1,
    "UPDATE deliveries SET body = NULL, digest = (SELECT digest FROM deliveries AS other WHERE other.id = 2) WHERE id = 1",
    What::Changed
)]
#[case::a_kind("changes", 2, "UPDATE changes SET kind = 'lost' WHERE id = 2", What::Changed)]
#[case::a_time("changes", 2, "UPDATE changes SET event_time = event_time + 1 WHERE id = 2", What::Changed)]
#[case::a_moved_time("changes", 1, "UPDATE changes SET event_time = event_time + 1 WHERE id = 1", What::Contradicts)]
#[case::a_move("deliveries", 1, "UPDATE receipts SET received_at = received_at - 1", What::Contradicts)]
#[case::the_time_of_a_move("receipts", 1, "UPDATE receipts SET at = at - 1", What::Changed)]
#[case::an_outcome("outcomes", 1, "UPDATE outcomes SET outcome = 'applied' WHERE id = 1", What::Changed)]
#[case::a_reason("attempts", 1, "UPDATE attempts SET message = 'fine' WHERE id = 1", What::Changed)]
#[case::an_answer("attempts", 2, "UPDATE attempts SET answer = 200, result = 'done' WHERE id = 2", What::Changed)]
#[case::an_operator("actions", 1, "UPDATE actions SET operator = 'bob'", What::Changed)]
#[case::a_deleted_action("actions", 1, "DELETE FROM actions", What::Deleted)]
#[case::a_deleted_outcome("outcomes", 1, "DELETE FROM outcomes WHERE id = 1", What::Deleted)]
#[case::a_deleted_call("attempts", 2, "DELETE FROM attempts WHERE id = 2", What::Deleted)]
#[tokio::test]
async fn a_row_that_was_changed_or_deleted_is_named(
    #[values(Sqlite, PostgreSql)] on: Database,
    #[case] table: &'static str,
    #[case] id: i64,
    #[case] tampering: &str,
    #[case] what: What,
) {
    let (site, _) = Site::sealed_history(on).await;
    site.tamper(tampering).await;
    assert_eq!(site.broken(None).await, (At::Row { table, id }, what));
}

#[rstest]
#[tokio::test]
async fn a_body_may_go_but_not_change(#[values(Sqlite, PostgreSql)] on: Database) {
    let (site, _) = Site::sealed_history(on).await;
    site.tamper("UPDATE deliveries SET body = NULL").await;
    assert!(site.verified().await.holds());
}

/// As `deploy/docs/evidence.md` says it is done by hand.
#[rstest]
#[tokio::test]
async fn a_name_may_be_erased_with_its_salt_and_the_rest_of_the_row_still_holds(
    #[values(Sqlite, PostgreSql)] on: Database,
) {
    let (site, head) = Site::sealed_history(on).await;
    let row = sqlx::query("SELECT entries, salts FROM seals").fetch_one(&site.ledger.read).await.unwrap();
    let (entries, salts): (String, String) = (row.try_get(0).unwrap(), row.try_get(1).unwrap());
    let mut salts: Vec<&str> = salts.split('\n').collect();
    let place = entries.split('\n').position(|line| line.starts_with("attempts 1 ")).unwrap();
    let hash = Sha256::digest(format!("{}Internal server error", salts[place]));
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    salts[place] = "";
    site.tamper(&format!("UPDATE attempts SET message = 'erased:{hash}' WHERE id = 1")).await;
    site.tamper(&format!("UPDATE seals SET salts = '{}'", salts.join("\n"))).await;
    let verified = site.ledger.verify(Some(noted(head))).await.unwrap();
    assert_eq!((verified.first_broken, verified.erased), (vec![], 1));

    site.tamper("UPDATE attempts SET answer = 200 WHERE id = 1").await;
    assert_eq!(site.broken(None).await, (At::Row { table: "attempts", id: 1 }, What::Changed));
}

#[rstest]
#[tokio::test]
async fn a_row_that_is_committed_late_is_sealed_late_and_kept_from_then_on(#[values(Sqlite, PostgreSql)] on: Database) {
    let (site, _) = Site::sealed_history(on).await;
    site.put_outcome(100).await;
    site.put_outcome(102).await;
    site.ledger.seal().await.unwrap();
    // The transaction that was given 101 commits only now.
    site.put_outcome(101).await;
    let verified = site.verified().await;
    assert_eq!((verified.broken, verified.unsealed), (0, 1), "{verified:?}");
    assert_eq!(site.ledger.seal().await.unwrap().rows, 1);
    let verified = site.verified().await;
    assert_eq!((verified.broken, verified.unsealed), (0, 0), "{verified:?}");
    site.tamper("UPDATE outcomes SET at = at + 1 WHERE id = 101").await;
    assert_eq!(site.broken(None).await, (At::Row { table: "outcomes", id: 101 }, What::Changed));
    site.tamper("DELETE FROM outcomes WHERE id = 101").await;
    assert_eq!(site.broken(None).await, (At::Row { table: "outcomes", id: 101 }, What::Deleted));
}

#[rstest]
#[tokio::test]
async fn a_row_that_is_put_among_sealed_ones_is_named_even_if_the_sealer_is_tricked(
    #[values(Sqlite, PostgreSql)] on: Database,
) {
    let (mut site, _) = Site::sealed_history(on).await;
    site.put_outcome(100).await;
    site.ledger.seal().await.unwrap();
    site._trial.set_clock(NOON.plus(LATE)).await;
    site.record([told("join-3", 30, gained("3", org()))]).await;
    site.ledger.seal().await.unwrap();

    site.put_outcome(50).await;
    let inserted = (At::Row { table: "outcomes", id: 50 }, What::Inserted);
    assert_eq!(site.broken(None).await, inserted);
    assert_eq!(site.ledger.seal().await.unwrap().rows, 0, "what came too late isn't sealed");
    let since = NOON.plus(LATE).micros();
    site.tamper(&format!("INSERT INTO unsealed VALUES ('outcomes', 50, 50, {since})")).await;
    assert_eq!(site.broken(None).await, inserted);
    assert_eq!(site.ledger.seal().await.unwrap().rows, 1);
    assert_eq!(site.broken(None).await, inserted);
}

#[rstest]
#[tokio::test]
async fn a_seal_that_was_touched_is_named(#[values(Sqlite, PostgreSql)] on: Database) {
    let (mut site, _) = Site::sealed_history(on).await;
    for second in 0..2 {
        site.record([told(&format!("join-{second}-more"), 30 + second, gained("3", org()))]).await;
        site.ledger.seal().await.unwrap();
    }
    site.tamper("UPDATE seals SET at = at - 1 WHERE number = 2").await;
    assert_eq!(site.broken(None).await, (At::Seal { number: 2 }, What::SealChanged));
    site.tamper("UPDATE seals SET at = at + 1 WHERE number = 2").await;
    assert!(site.verified().await.holds());
    site.tamper("UPDATE seals SET salts = '' WHERE number = 1").await;
    assert_eq!(site.broken(None).await, (At::Row { table: "accounts", id: 1 }, What::Unsalted));
    site.tamper("DELETE FROM seals WHERE number = 1").await;
    assert_eq!(site.broken(None).await, (At::Seal { number: 1 }, What::SealMissing));
}

#[rstest]
#[tokio::test]
async fn a_tail_that_was_cut_off_is_found_out_against_a_known_head(#[values(Sqlite, PostgreSql)] on: Database) {
    let (mut site, first) = Site::sealed_history(on).await;
    site.record([told("leave-1", 30, lost("1", org()))]).await;
    let second = site.ledger.seal().await.unwrap().head.unwrap();
    let deleted = ["effects", "changes", "outcomes"].map(|table| {
        let column = if table == "outcomes" { "delivery" } else { "row" };
        format!("DELETE FROM {table} WHERE {column} = (SELECT MAX(id) FROM deliveries)")
    });
    site.tamper("DELETE FROM grants").await;
    for text in &deleted {
        site.tamper(text).await;
    }
    site.tamper("DELETE FROM deliveries WHERE id = (SELECT MAX(id) FROM deliveries)").await;
    site.tamper("DELETE FROM outcomes WHERE id > (SELECT COUNT(*) FROM outcomes)").await;
    site.tamper("DELETE FROM seals WHERE number = 2").await;
    assert_eq!(site.broken(None).await, (At::End, What::Truncated), "the sealer knows how far it was");
    // Who knows that covers it up.
    site.tamper("DELETE FROM unsealed").await;
    for (table, number) in [("accounts", 3), ("deliveries", 3), ("changes", 3), ("receipts", 2)] {
        site.tamper(&format!("INSERT INTO unsealed VALUES ('{table}', {number}, {}, 0)", i64::MAX)).await;
    }
    assert!(site.verified().await.holds(), "{:?}", site.verified().await);
    assert!(site.ledger.verify(Some(noted(first))).await.unwrap().holds());
    assert_eq!(site.broken(Some(noted(second))).await, (At::End, What::HeadGone));
    assert_eq!(site.broken(Some(without_number(second))).await, (At::End, What::HeadUnknown));
}

#[rstest]
#[tokio::test]
async fn a_chain_that_was_rewritten_is_found_out_against_a_known_head(#[values(Sqlite, PostgreSql)] on: Database) {
    let (site, head) = Site::sealed_history(on).await;
    site.tamper("UPDATE outcomes SET outcome = 'applied' WHERE id = 1").await;
    site.tamper("DELETE FROM seals").await;
    site.tamper("DELETE FROM unsealed").await;
    site.ledger.seal().await.unwrap();
    assert!(site.verified().await.holds(), "on its own it is as good as any");
    assert_eq!(site.broken(Some(noted(head))).await, (At::Seal { number: 1 }, What::HeadOther));
    assert_eq!(site.broken(Some(without_number(head))).await, (At::End, What::HeadUnknown));
}

#[rstest]
#[tokio::test]
async fn workers_insert_freely_while_it_is_sealed(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    let ledger = site.ledger.clone();
    let done = tokio_util::sync::CancellationToken::new();
    let ended = done.clone();
    let sealing = tokio::spawn(async move {
        let mut rounds = 0;
        while !ended.is_cancelled() {
            ledger.seal().await.unwrap();
            rounds += 1;
        }
        rounds
    });
    for round in 0..20 {
        let entries = (0..20).map(|n| told(&format!("{round}-{n}"), round * 20 + n, gained(&n.to_string(), org())));
        site.record(entries).await;
        // Settled side by side: on PostgreSQL these commit in any order.
        let leases = site.take().await;
        let settling = leases.into_iter().map(|lease| {
            let ledger = site.ledger.clone();
            async move {
                let view = ledger.view(&lease, &|_| Vec::new()).await.unwrap();
                ledger
                    .settle(&lease, view.version, &settlement_of(&access(&view.grants, &view.roots)), Vec::new())
                    .await
            }
        });
        for held in futures_util::future::join_all(settling).await {
            assert_eq!(held.unwrap(), Held::Written);
        }
    }
    done.cancel();
    assert!(sealing.await.unwrap() > 1);
    site.ledger.seal().await.unwrap();
    let verified = site.verified().await;
    assert_eq!((verified.first_broken, verified.unsealed), (vec![], 0));
    assert!(verified.seals > 1 && verified.rows >= 20 + 3 * 400, "{}", verified.rows);
}
