//! What providers failed to deliver: looks, what they find, and what becomes of that.

use super::*;
use crate::ledger::recoveries::{Fate, HookKey, Look, LookPage, NewLook, Period, RecoveryCounts, SeenAttempt};

const HOUR: i64 = 3_600_000_000;

fn hook() -> HookKey {
    HookKey { source: "acme-github".parse().unwrap(), hook: "orgs/acme/hooks/1".to_owned() }
}

/// An attempt that failed at that hour.
fn failed(delivery: &str, attempt: &str, hour: i64) -> SeenAttempt {
    SeenAttempt {
        delivery: delivery.to_owned(),
        attempt: attempt.to_owned(),
        event: "organization.member_added".to_owned(),
        at: Some(Timestamp(hour * HOUR)),
        delivered: false,
        status: "timed out".to_owned(),
        lost: None,
    }
}

impl Site {
    async fn look(&self, from: i64, to: i64) -> Look {
        let period = Period { from: Timestamp(from * HOUR), to: Timestamp(to * HOUR) };
        let new = NewLook { hook: &hook(), started_by: "ada", period, lapsed_from: None };
        self.ledger.begin_look(new).await.unwrap()
    }

    async fn page(&self, look: &Look, attempts: Vec<SeenAttempt>, cursor: Option<&str>) {
        let page = LookPage { read: 3, attempts, cursor: cursor.map(str::to_owned), ..LookPage::default() };
        self.ledger.note_page(look, &page).await.unwrap();
    }

    /// Delivery, attempt, state and asks of what failed.
    async fn failures(&self) -> Vec<(String, String, Fate, i64)> {
        let rows = self.ledger.undelivered(&hook().source, true).await.unwrap();
        rows.into_iter().map(|row| (row.delivery, row.attempt, row.state, row.asks)).collect()
    }

    async fn settle_undelivered(&self, kept_from: i64) -> (u64, u64) {
        self.ledger.settle_undelivered(&hook(), Timestamp(kept_from * HOUR), "too old").await.unwrap()
    }
}

fn row(delivery: &str, attempt: &str, state: Fate, asks: i64) -> (String, String, Fate, i64) {
    (delivery.to_owned(), attempt.to_owned(), state, asks)
}

#[rstest]
#[tokio::test]
async fn a_look_notes_what_neither_the_ledger_has_nor_the_provider_delivered_later(
    #[values(Sqlite, PostgreSql)] on: Database,
) {
    let mut site = Site::open(on).await;
    site.record([told("recorded", 1, gained("1", org()))]).await;
    let look = site.look(1, 9).await;
    let delivered = SeenAttempt { delivered: true, ..failed("mended", "22", 8) };
    site.page(&look, vec![delivered, failed("twice", "21", 7)], Some("page 2")).await;
    let interrupted = site.ledger.interrupted_look(&hook()).await.unwrap().unwrap();
    assert_eq!((interrupted.look, interrupted.cursor.as_deref(), interrupted.attempts), (look.look, Some("page 2"), 3));
    assert!(site.ledger.looks(&hook().source).await.unwrap().is_empty(), "what isn't read to its end covers nothing");

    // The same page once more, and the rest of the list.
    site.page(&look, vec![failed("twice", "21", 7)], Some("page 2")).await;
    let rest = ["twice", "mended", "recorded", "once"].map(|delivery| failed(delivery, "9", 3));
    site.page(&look, rest.to_vec(), None).await;
    assert_eq!(site.failures().await, [row("once", "9", Fate::Open, 0), row("twice", "21", Fate::Open, 0)]);
    let twice = site.ledger.undelivered(&hook().source, false).await.unwrap().remove(1);
    assert_eq!((twice.failed_at, twice.attempt_at), (Some(Timestamp(3 * HOUR)), Timestamp(7 * HOUR)));
    assert_eq!(site.ledger.interrupted_look(&hook()).await.unwrap(), None);
    assert_eq!(site.ledger.looks(&hook().source).await.unwrap()[0].period, look.period);
    let told = site.ledger.has_deliveries(&hook().source, &["once".to_owned(), "recorded".to_owned()]).await.unwrap();
    assert_eq!(told, [false, true]);
}

#[rstest]
#[tokio::test]
async fn what_is_asked_for_is_asked_for_by_one_and_arrives_or_is_lost(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    let look = site.look(1, 9).await;
    let gone = SeenAttempt { lost: Some("no body was kept"), ..failed("gone", "4", 4) };
    site.page(&look, vec![failed("comes", "3", 3), failed("stays", "2", 2), gone], None).await;
    let open = site.ledger.undelivered(&hook().source, false).await.unwrap();
    let comes = open.iter().find(|undelivered| undelivered.delivery == "comes").unwrap();
    assert!(site.ledger.claim_undelivered(comes).await.unwrap());
    assert!(!site.ledger.claim_undelivered(comes).await.unwrap(), "somebody else has asked for it since it was read");
    let stays = open.iter().find(|undelivered| undelivered.delivery == "stays").unwrap();
    assert!(site.ledger.claim_undelivered(stays).await.unwrap());
    site.ledger.note_refusal(stays, "422", false).await.unwrap();
    assert_eq!(site.settle_undelivered(1).await, (0, 0));

    site.record([told("comes", 1, gained("1", org()))]).await;
    assert_eq!(site.settle_undelivered(1).await, (1, 0));
    let counts = site.ledger.recovery_counts().await.unwrap();
    assert_eq!(counts["acme-github"], RecoveryCounts { requested: 2, recovered: 1, missing: 2 });
    assert_eq!(site.settle_undelivered(3).await, (0, 1), "the provider keeps nothing from before that");
    let expected =
        [row("stays", "2", Fate::Lost, 1), row("comes", "3", Fate::Arrived, 1), row("gone", "4", Fate::Lost, 0)];
    assert_eq!(site.failures().await, expected);
    let missing = site.ledger.undelivered(&hook().source, false).await.unwrap();
    let reasons: Vec<Option<&str>> = missing.iter().map(|undelivered| undelivered.reason.as_deref()).collect();
    assert_eq!(reasons, [Some("422; too old"), Some("no body was kept")]);
    assert!(!site.ledger.claim_undelivered(&missing[0]).await.unwrap(), "what is lost isn't asked for");

    let week = Duration::from_hours(7 * 24);
    let irrecoverable = site.ledger.irrecoverable(week).await.unwrap();
    assert_eq!(
        irrecoverable["acme-github"].what,
        "2 deliveries that matter were missed and can't be recovered any more"
    );
    // Somebody may find it after all, and press the provider's own button.
    site.record([told("stays", 1, gained("2", org()))]).await;
    assert_eq!(site.settle_undelivered(3).await, (1, 0));
    let irrecoverable = site.ledger.irrecoverable(week).await.unwrap();
    assert_eq!(irrecoverable["acme-github"].what, "a delivery that matters was missed and can't be recovered any more");
}

#[rstest]
#[tokio::test]
async fn a_period_that_came_too_late_to_be_looked_at_is_told(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = Site::open(on).await;
    let period = Period { from: Timestamp(5 * HOUR), to: Timestamp(9 * HOUR) };
    let hook = hook();
    let new = NewLook { hook: &hook, started_by: "the schedule", period, lapsed_from: Some(Timestamp(2 * HOUR)) };
    let look = site.ledger.begin_look(new).await.unwrap();
    site.page(&look, Vec::new(), None).await;
    let irrecoverable = site.ledger.irrecoverable(Duration::from_hours(1)).await.unwrap();
    let what = "nobody can say any more what was missed between 1970-01-01T02:00:00Z and 1970-01-01T05:00:00Z";
    assert_eq!(irrecoverable["acme-github"].what, what);
    assert_eq!(site.ledger.heard_of(&hook.source).await.unwrap(), Some(period.from));

    let gaps = crate::recover::gaps::gaps(&site.ledger, &hook.source).await.unwrap();
    assert_eq!((gaps.missing(), gaps.hooks[0].looked_at[0].period), (0, period));
    assert_eq!(gaps.hooks[0].never_looked_at[0].from, period.to);
    let other = crate::recover::gaps::gaps(&site.ledger, &"other".parse().unwrap()).await.unwrap();
    assert!(other.heard_of.is_none() && other.hooks.is_empty() && other.never_looked_at.is_empty());
}
