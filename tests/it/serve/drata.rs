//! Drata fails, refuses, or does what it is asked and says that it didn't.

use rollcall::ledger::outcome::Outcome;
use rstest::rstest;

use crate::harness::github::Account;
use crate::harness::site::{Carrier, Site, becomes, outcome};
use crate::harness::until;

const ACCOUNT: Account = Account(1);

#[tokio::test]
async fn a_call_that_fails_with_500_is_tried_again_until_it_succeeds() {
    let site = Site::new(Carrier::Embedded, 1).await;
    site.break_drata(&["500:first=3@connect"]);
    let (_process, at) = site.serve().await;
    let join = site.github.join(ACCOUNT);
    site.github.accepted(&at.webhook, &join).await;

    becomes(&site.ledger().await, &join.id, Outcome::Applied).await;
    assert!(site.is_linked(ACCOUNT));
    let answers: Vec<_> = site.connects(ACCOUNT).iter().map(|seen| seen.status).collect();
    assert_eq!(answers, [Some(500), Some(500), Some(500), Some(200)]);
}

#[tokio::test]
async fn an_account_is_parked_with_dratas_message_when_its_attempts_are_used_up() {
    let mut site = Site::new(Carrier::Embedded, 3).await;
    site.set("retry", "attempts", 3);
    site.set("retry", "first", "1s");
    site.set("retry", "max", "1s");
    site.break_drata(&[&format!("500:id={}@connect", ACCOUNT.identity())]);
    let (process, at) = site.serve().await;
    let join = site.github.join(ACCOUNT);
    site.github.accepted(&at.webhook, &join).await;
    until("it has failed once", async || site.connects(ACCOUNT).len() == 1).await;
    let ledger = site.ledger().await;
    let other = site.github.join(Account(2));
    site.github.accepted(&at.webhook, &other).await;
    becomes(&ledger, &other.id, Outcome::Applied).await;

    let reason = becomes(&ledger, &join.id, Outcome::Parked).await;
    assert_eq!(reason, "after 3 attempts: connect: 500: Drata answered 500: Internal Server Error");
    assert_eq!(site.connects(ACCOUNT).len(), 3);

    // Nobody else suffers, and the parked one is left alone.
    site.break_drata(&[]);
    let other = site.github.join(Account(3));
    site.github.accepted(&at.webhook, &other).await;
    becomes(&ledger, &other.id, Outcome::Applied).await;
    assert_eq!(process.stop().await.code, Some(0));
    assert_eq!(outcome(&site.ledger().await, &join.id).await.unwrap().0, Outcome::Parked);
    assert_eq!(site.connects(ACCOUNT).len(), 3);
}

/// Nobody else tried, so nobody knows whose trouble it is.
#[tokio::test]
async fn an_outage_that_only_one_account_has_met_parks_nobody() {
    let mut site = Site::new(Carrier::Embedded, 1).await;
    site.set("retry", "attempts", 3);
    site.break_drata(&["500@connect"]);
    let (_process, at) = site.serve().await;
    let join = site.github.join(ACCOUNT);
    site.github.accepted(&at.webhook, &join).await;
    let ledger = site.ledger().await;
    until("a probe has failed", async || ledger.halt().await.unwrap().is_some_and(|halt| halt.probes > 0)).await;
    assert_eq!(outcome(&ledger, &join.id).await.unwrap().0, Outcome::Pending);
    assert_eq!(site.ask(&at, "/health").await.1["parts"]["drata"]["state"], "down");
    site.break_drata(&[]);
    becomes(&ledger, &join.id, Outcome::Applied).await;
}

#[rstest]
#[case::an_error("500:applied:first=1@connect")]
#[case::a_hang_up("drop:applied:first=1@connect")]
#[case::garbage("garbled:first=1@connect")]
#[tokio::test]
async fn a_call_that_was_done_but_not_confirmed_ends_well(#[case] fault: &str) {
    let site = Site::new(Carrier::Embedded, 1).await;
    site.break_drata(&[fault]);
    let (_process, at) = site.serve().await;
    let ledger = site.ledger().await;
    let join = site.github.join(ACCOUNT);
    site.github.accepted(&at.webhook, &join).await;
    becomes(&ledger, &join.id, Outcome::Applied).await;
    assert!(site.is_linked(ACCOUNT));

    let leave = site.github.leave(ACCOUNT);
    site.github.accepted(&at.webhook, &leave).await;
    becomes(&ledger, &leave.id, Outcome::Applied).await;
    assert_eq!(site.drata.linked(ACCOUNT.identity()), None);
}

#[rstest]
#[case::the_key(Refusal::Key)]
#[case::the_terms(Refusal::Terms)]
#[case::the_plan(Refusal::Plan)]
#[tokio::test]
async fn a_refusal_of_everything_halts_calls_and_parks_nothing(#[case] refusal: Refusal) {
    let site = Site::new(Carrier::Embedded, 3).await;
    refusal.begin(&site);
    let (_process, at) = site.serve().await;
    let joins: Vec<_> = (1..=3).map(|n| site.github.join(Account(n))).collect();
    for join in &joins {
        site.github.accepted(&at.webhook, join).await;
    }

    until("calls are halted", async || site.ask(&at, "/health").await.1["parts"]["drata"]["state"] == "halted").await;
    let (status, health) = site.ask(&at, "/health").await;
    assert_eq!(status, 503, "{health}");
    assert!(health["parts"]["drata"]["reason"].as_str().unwrap().contains(refusal.status()), "{health}");
    assert_eq!(site.ask(&at, "/ready").await.0, 200);
    let ledger = site.ledger().await;
    for join in &joins {
        until("it is recorded", async || outcome(&ledger, &join.id).await.is_some()).await;
        assert_eq!(outcome(&ledger, &join.id).await.unwrap().0, Outcome::Pending);
    }

    refusal.end(&site);
    for join in &joins {
        becomes(&ledger, &join.id, Outcome::Applied).await;
        assert!(site.is_linked(join.account));
    }
    assert_eq!(site.ask(&at, "/health").await.0, 200);
}

/// What Drata refuses everything for.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    Key,
    Terms,
    Plan,
}

impl Refusal {
    const fn status(self) -> &'static str {
        match self {
            Self::Key => "401",
            Self::Terms => "412",
            Self::Plan => "402",
        }
    }

    fn begin(self, site: &Site) {
        match self {
            Self::Key => site.break_drata(&["401"]),
            Self::Terms => site.drata.set_terms_accepted(false),
            Self::Plan => site.drata.set_plan_paid(false),
        }
    }

    fn end(self, site: &Site) {
        match self {
            Self::Key => site.break_drata(&[]),
            Self::Terms => site.drata.set_terms_accepted(true),
            Self::Plan => site.drata.set_plan_paid(true),
        }
    }
}

/// A refusal of one account looks like a refusal of everything until another account's call succeeds.
#[rstest]
#[case::refused(403)]
#[case::failing(500)]
#[tokio::test]
async fn one_accounts_own_trouble_stops_nobody_else(#[case] status: u16) {
    let mut site = Site::new(Carrier::Embedded, 12).await;
    site.set("retry", "attempts", 3);
    site.set("retry", "first", "100ms");
    site.break_drata(&[&format!("{status}:id={}@connect", ACCOUNT.identity())]);
    let (_process, at) = site.serve().await;
    let joins: Vec<_> = (1..=6).map(|n| site.github.join(Account(n))).collect();
    for join in &joins {
        site.github.accepted(&at.webhook, join).await;
    }
    let ledger = site.ledger().await;
    for join in joins.iter().filter(|join| join.account != ACCOUNT) {
        becomes(&ledger, &join.id, Outcome::Applied).await;
    }
    let own = joins.iter().find(|join| join.account == ACCOUNT).unwrap();
    // A halt that another account's success ends shows whose trouble it is; two such halts park the account.
    for n in 7..=12 {
        let other = site.github.join(Account(n));
        site.github.accepted(&at.webhook, &other).await;
        becomes(&ledger, &other.id, Outcome::Applied).await;
    }
    let reason = becomes(&ledger, &own.id, Outcome::Parked).await;
    assert!(reason.contains(&status.to_string()), "{reason}");
    until("health is well", async || site.ask(&at, "/health").await.0 == 200).await;
}

#[tokio::test]
async fn a_drata_that_fails_for_everybody_costs_probes_and_parks_nothing() {
    let people = 8;
    let mut site = Site::new(Carrier::Embedded, people).await;
    site.set("retry", "attempts", 3);
    site.break_drata(&["500@connect"]);
    let (_process, at) = site.serve().await;
    let joins: Vec<_> = (1..=people).map(|n| site.github.join(Account(n))).collect();
    for join in &joins {
        site.github.accepted(&at.webhook, join).await;
    }
    until("the breaker is open", async || site.ask(&at, "/health").await.1["parts"]["drata"]["state"] == "down").await;
    assert_eq!(site.ask(&at, "/ready").await.0, 200);
    let ledger = site.ledger().await;
    until("a probe has failed", async || ledger.halt().await.unwrap().is_some_and(|halt| halt.probes > 0)).await;
    // Recording goes on.
    let leave = site.github.leave(Account(1));
    site.github.accepted(&at.webhook, &leave).await;
    until("it is recorded", async || outcome(&ledger, &leave.id).await.is_some()).await;
    let calls: usize = (1..=people).map(|n| site.connects(Account(n)).len()).sum();
    assert!(calls < 3 * 8, "{calls} calls were made in vain");

    site.break_drata(&[]);
    for join in &joins[1..] {
        becomes(&ledger, &join.id, Outcome::Applied).await;
    }
    until("the leave is settled", async || outcome(&ledger, &leave.id).await.unwrap().0 != Outcome::Pending).await;
    assert!(!site.is_linked(Account(1)));
    until("health is well", async || site.ask(&at, "/health").await.0 == 200).await;
    assert!(!ledger.balance().await.unwrap().outcomes.contains_key("parked"));
}

/// How Drata can't be reached.
#[derive(Clone, Copy, Debug)]
enum Away {
    /// Connections are accepted and closed.
    Cut,
    /// Connections stand, and nothing comes back.
    Silent,
}

#[rstest]
#[case::cut(Away::Cut)]
#[case::silent(Away::Silent)]
#[tokio::test]
async fn a_drata_that_cannot_be_reached_costs_probes_and_parks_nothing(#[case] away: Away) {
    let people = 8;
    let mut site = Site::new(Carrier::Embedded, people).await;
    site.set("retry", "attempts", 3);
    let drata = site.drata_behind_a_proxy().await;
    match away {
        Away::Cut => drata.cut(),
        Away::Silent => drata.hold(),
    }
    let (process, at) = site.serve().await;
    let joins: Vec<_> = (1..=people).map(|n| site.github.join(Account(n))).collect();
    for join in &joins {
        site.github.accepted(&at.webhook, join).await;
    }
    until("the breaker is open", async || site.ask(&at, "/health").await.1["parts"]["drata"]["state"] == "down").await;
    assert_eq!(site.ask(&at, "/ready").await.0, 200);
    let ledger = site.ledger().await;
    until("a probe has failed", async || ledger.halt().await.unwrap().is_some_and(|halt| halt.probes > 0)).await;
    for join in &joins {
        assert_eq!(outcome(&ledger, &join.id).await.unwrap().0, Outcome::Pending);
    }

    drata.mend();
    for join in &joins {
        becomes(&ledger, &join.id, Outcome::Applied).await;
    }
    let calls: usize = joins.iter().map(|join| site.connects(join.account).len()).sum();
    assert_eq!(calls, joins.len(), "each account was reconciled once");
    until("health is well", async || site.ask(&at, "/health").await.0 == 200).await;
    assert_eq!(process.stop().await.code, Some(0));
}
