//! What is printed: the plan, the verdict, and all there is to know about an account that isn't right.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use crate::check::{Found, identity_called};
use crate::harness::github::Account;
use crate::model::concerns;
use crate::notes::{Answered, Notes};
use crate::round::Plan;
use crate::stage::Stage;
use crate::telling::Delivery;
use crate::world::Post;

/// How a round ended.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    name: String,
    deliveries: usize,
    faults: usize,
    pub(crate) violations: usize,
    seconds: f64,
}

impl Verdict {
    pub(crate) fn of(name: String, deliveries: usize, notes: &Notes, violations: usize) -> Self {
        let (faults, seconds) = (notes.struck().len(), notes.elapsed());
        Self { name, deliveries, faults, violations, seconds }
    }
}

/// What a seed does, in one line.
pub(crate) fn outline(plan: &Plan) -> String {
    let world = &plan.world;
    format!(
        "{} accounts, {} deliveries in {} posts, {} root(s), {} faults, clocks wrong by {} s, {} spools",
        world.accounts,
        world.told.len(),
        world.posts.len(),
        world.roots,
        plan.schedule.len(),
        plan.skew.unwrap_or_default(),
        if plan.spools { "with" } else { "without" },
    )
}

/// What a seed does, in full.
pub(crate) fn plan(plan: &Plan) {
    println!("seed {} on {}: {}", plan.seed, plan.topology.as_str(), outline(plan));
    for strike in &plan.schedule {
        println!("  posts {:5} to {:5}: {}", strike.begin, strike.end, strike.fault);
    }
    for (number, Post { told, forged }) in plan.world.posts.iter().enumerate() {
        let told = &plan.world.told[*told];
        let forged = if *forged { " forged" } else { "" };
        println!("  post {number:5}: #{} {:?} {:?}{forged}", told.event.number, told.event.account, told.what);
    }
}

/// Prints how a round went.
pub(crate) fn verdict(plan: &Plan, notes: &Notes, deliveries: &[Delivery], found: &Found, told: f64) -> Verdict {
    let mut timeline = String::new();
    for struck in notes.struck() {
        let ended = struck.ended.map_or_else(|| "?".to_owned(), |ended| format!("{:.0}", notes.seconds_until(ended)));
        let _ = write!(timeline, "{:.0}-{ended} s {}; ", notes.seconds_until(struck.began), struck.fault);
    }
    println!("  faults: {}", timeline.trim_end_matches("; "));
    let sent: usize = deliveries.iter().map(|delivery| delivery.sent.load(Ordering::Relaxed)).sum();
    println!(
        "  posts: {sent} honest ones sent, {} taken (202), {} told to come again, {} without an answer; {} refused (401)",
        notes.count(Answered::Accepted),
        notes.count(Answered::Unavailable),
        notes.count(Answered::NotAtAll),
        notes.count(Answered::Unauthorized),
    );
    println!("  outcomes: {:?}; numbers of killed runs that nobody knows of: {}", found.outcomes, found.unknown);
    println!(
        "  accounts: {:?}; calls: {}, of which {} landed late; statuses overtaken and corrected: {}",
        found.statuses, found.calls, found.landed_late, found.overtaken
    );
    let name = format!("seed {} on {}", plan.seed, plan.topology.as_str());
    let verdict = Verdict::of(name, deliveries.len(), notes, found.violations.len());
    println!(
        "  told after {told:.0} s, quiet and checked after {:.0} s: {} violations",
        verdict.seconds, verdict.violations
    );
    verdict
}

/// Prints all rounds.
pub(crate) fn summary(verdicts: &[Verdict]) {
    for verdict in verdicts {
        let Verdict { name, deliveries, faults, violations, seconds } = verdict;
        println!("{name}: {deliveries} deliveries, {faults} faults, {violations} violations, {seconds:.0} s");
    }
}

/// Prints all there is to know about an account.
pub(crate) async fn account(stage: &Stage, plan: &Plan, deliveries: &[Delivery], account: Account) {
    println!("  {account:?}, id {}, identity {}:", account.id(), account.identity());
    for (delivery, told) in deliveries.iter().zip(&plan.world.told) {
        if concerns(told, account) {
            let (accepted, id) = (delivery.accepted.load(Ordering::Relaxed), &delivery.posted.id);
            println!("    told #{} {:?}: {id}, accepted {accepted} times", told.event.number, told.what);
        }
    }
    for seen in stage.site.drata.requests() {
        if identity_called(&seen) == Some(account.identity()) {
            println!("    asked {seen:?}");
        }
    }
    let who = format!("github:#{}", account.id());
    let key = [("DRATA_API_KEY", "a key".to_owned())];
    let explained = stage.site.run_in(&["explain", &who], &key).ended().await;
    println!("{}{}", explained.output, explained.log);
}
