//! The checker: what is so when all is quiet, against the model and against the invariants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use rollcall::sandbox::Seen;

use crate::harness::github::Account;
use crate::ledger::{Look, Recorded};
use crate::model::{Expected, concerns, expected};
use crate::order::{self, History};
use crate::stage::Stage;
use crate::telling::Delivery;
use crate::world::{What, World};

/// Something that must not be.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    /// Whose, if it is one account's.
    pub(crate) account: Option<Account>,
    pub(crate) what: String,
}

/// What the checker found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) violations: Vec<Violation>,
    /// How many accounts have each status by the model.
    pub(crate) statuses: BTreeMap<&'static str, usize>,
    /// How many deliveries have each outcome.
    pub(crate) outcomes: BTreeMap<String, usize>,
    /// How many calls were to set a status.
    pub(crate) calls: usize,
    /// How many of them took effect after nobody waited for them any more.
    pub(crate) landed_late: usize,
    /// How many were overtaken by older bytes and corrected.
    pub(crate) overtaken: usize,
    /// Numbers of killed runs of which nobody knows whether they were accepted.
    pub(crate) unknown: i64,
}

impl Found {
    fn wrong(&mut self, account: Option<Account>, what: String) {
        self.violations.push(Violation { account, what });
    }
}

/// Holds everything against the model.
pub(crate) async fn check(stage: &Stage, world: &World, deliveries: &[Delivery], look: &mut Look) -> Found {
    let mut found = Found::default();
    for what in stage.notes.faults_of_ours() {
        found.wrong(None, what);
    }
    let recorded = look.recorded().await;
    outcomes(world, deliveries, &recorded, &mut found);
    balance(look, deliveries, &mut found).await;
    for (account, why) in look.parked().await {
        found.wrong(account_of(&account), format!("it is parked: {why}"));
    }
    let unreadable = look.unreadable().await;
    if unreadable > 0 {
        found.wrong(None, format!("{unreadable} messages are kept as unreadable"));
    }
    for log in stage.notes.logs() {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        for line in text.lines().filter(|line| line.contains("panicked at")) {
            found.wrong(None, format!("{}: {line}", log.display()));
        }
    }
    statuses(stage, world, deliveries, &recorded, &mut found);
    found
}

/// Every accepted delivery has one row and an outcome that isn't a question any more; what was forged has none.
fn outcomes(world: &World, deliveries: &[Delivery], recorded: &BTreeMap<String, Vec<Recorded>>, found: &mut Found) {
    let ids: BTreeSet<&str> = deliveries.iter().map(|delivery| delivery.posted.id.as_str()).collect();
    for (id, rows) in recorded {
        if !ids.contains(id.as_str()) {
            found.wrong(None, format!("the ledger has a delivery {id} that nobody told: {rows:?}"));
        }
    }
    for (delivery, told) in deliveries.iter().zip(&world.told) {
        let (id, account) = (&delivery.posted.id, told.event.account);
        let [row] = recorded.get(id.as_str()).map_or(&[][..], Vec::as_slice) else {
            let rows = recorded.get(id.as_str());
            found.wrong(Some(account), format!("{id} ({}) was accepted, but the ledger has {rows:?}", told.event.name));
            continue;
        };
        *found.outcomes.entry(row.outcome.clone()).or_default() += 1;
        let waits = World::is_unknown(account) == (true, false);
        let settled = match row.outcome.as_str() {
            "applied" | "unchanged" | "superseded" => true,
            "waiting" => waits,
            "ignored" => told.what == What::Renamed,
            _ => false,
        };
        if !settled {
            let reason = row.reason.as_deref().unwrap_or("no reason");
            found.wrong(Some(account), format!("{id} ({}) is {}: {reason}", told.event.name, row.outcome));
        }
        let (accepted, sent) = (delivery.accepted.load(Ordering::Relaxed), delivery.sent.load(Ordering::Relaxed));
        let copies = usize::try_from(row.copies).unwrap();
        if !(accepted..=sent).contains(&copies) {
            found
                .wrong(Some(account), format!("{id} was accepted {accepted} times of {sent}, and has {copies} copies"));
        }
    }
}

/// What was accepted is what has outcomes, and nothing is missing of which it is known that it was accepted.
async fn balance(look: &Look, deliveries: &[Delivery], found: &mut Found) {
    let balance = look.balance().await;
    let accepted: usize = deliveries.iter().map(|delivery| delivery.accepted.load(Ordering::Relaxed)).sum();
    if !balance.adds_up() {
        found.wrong(None, format!("the balance doesn't add up: {balance}"));
    }
    for gap in balance.gaps.iter().filter(|gap| gap.accepted) {
        found.wrong(None, format!("missing: {gap}"));
    }
    found.unknown = balance.missing();
    if balance.accepted < i64::try_from(accepted).unwrap() {
        found.wrong(None, format!("{accepted} were answered with 202, and the balance says {balance}"));
    }
}

/// Every account's status at the platform is what the model says, and how it came to that was in order.
fn statuses(
    stage: &Stage,
    world: &World,
    deliveries: &[Delivery],
    recorded: &BTreeMap<String, Vec<Recorded>>,
    found: &mut Found,
) {
    let at: Vec<Option<i64>> = deliveries
        .iter()
        .map(|delivery| recorded.get(delivery.posted.id.as_str()).and_then(|rows| rows.first()).map(|row| row.at))
        .collect();
    let mut calls: BTreeMap<i64, Vec<Seen>> = BTreeMap::new();
    for seen in stage.site.drata.requests() {
        if let Some(identity) = identity_called(&seen) {
            found.calls += 1;
            found.landed_late += usize::from(seen.landed.is_some());
            calls.entry(identity).or_default().push(seen);
        }
    }
    let late = order::late(&stage.notes.struck());
    for account in (1..=world.accounts).map(Account) {
        let calls = calls.remove(&account.identity()).unwrap_or_default();
        let is_linked = stage.site.is_linked(account);
        let about = || world.told.iter().filter(|told| concerns(told, account));
        let expected = expected(world, account, about());
        let known = !matches!(World::is_unknown(account), (true, false));
        let (word, right) = match expected {
            _ if !known => ("without an identity", calls.is_empty()),
            _ if World::is_bot(account) => ("a bot's", calls.is_empty()),
            Expected::Kept if about().all(|told| told.event.account != account) => ("never told of", calls.is_empty()),
            Expected::Linked => ("linked", is_linked),
            Expected::Unlinked => ("unlinked", !is_linked),
            Expected::Kept => ("kept", true),
        };
        *found.statuses.entry(word).or_default() += 1;
        if !right {
            let status = if is_linked { "linked" } else { "not linked" };
            found.wrong(Some(account), format!("it should be {word}, and is {status}"));
        }
        let history = History::new(world, account, &at);
        let judged = order::judge(&history, &calls, &late);
        found.overtaken += judged.overtaken;
        for what in judged.wrong {
            found.wrong(Some(account), what);
        }
    }
    for (identity, calls) in calls {
        found.wrong(None, format!("calls for an identity {identity} that is nobody's: {calls:?}"));
    }
}

/// The identity whose status a request was to set.
pub(crate) fn identity_called(seen: &Seen) -> Option<i64> {
    seen.path.strip_prefix("/user-identities/version-control/")?.strip_suffix("/connect")?.parse().ok()
}

/// The account with GitHub's id of it.
fn account_of(id: &str) -> Option<Account> {
    Some(Account(id.parse::<i64>().ok()? - 2_000))
}
