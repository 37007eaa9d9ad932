//! The economy of outages: while Drata refuses, fails or is silent, and while the ledger is gone, there are probes and not
//! attempts, nothing is parked, and what can be recorded is; afterwards each account that is due is reconciled once,
//! losses first.

use std::sync::Arc;
use std::time::Duration;

use rollcall::delivery::Timestamp;
use tokio::time::Instant;

use crate::check::{Violation, identity_called};
use crate::harness::github::Account;
use crate::ledger::Look;
use crate::notes::Notes;
use crate::options::{Options, Topology};
use crate::quiet;
use crate::report::Verdict;
use crate::schedule::{Fault, Hosts};
use crate::stage::Stage;
use crate::world::World;

/// How many accounts leave in each outage, and how many join.
const EACH: i64 = 150;
/// How many accounts one worker works on at once.
const AT_ONCE: usize = 16;

/// The outages, one after the other.
const OUTAGES: [Fault; 4] = [Fault::Drata("401"), Fault::Drata("500"), Fault::Drata("timeout"), Fault::BothGone];

/// Runs every outage for so many seconds.
pub(crate) async fn run(seconds: u64, options: &Options) -> Verdict {
    let notes = Notes::new(options.verbose);
    println!("outages of {seconds} s each on {}", Topology::Single.as_str());
    let count = i64::try_from(OUTAGES.len()).unwrap();
    let world = World::quiet(EACH * (count + 1));
    let mut stage = Stage::set(Topology::Single, &world, None, false, notes.clone()).await;
    stage.calm();
    let stage = Arc::new(stage);
    let mut look = Look::into(&stage.site).await;
    let mut told = 0;
    let mut violations = Vec::new();
    // Those who leave in an outage are those who joined in the one before; the first joined before all.
    let group = |n: i64| (n * EACH + 1..=(n + 1) * EACH).map(Account).filter(|account| !World::is_unknown(*account).0);
    for account in group(0) {
        tell(&stage, account, true).await;
        told += 1;
    }
    let mut wrong = |what: String| violations.push(Violation { account: None, what });
    if let Err(what) = quiet::wait(&stage, &mut look, told).await {
        wrong(what);
    }
    for (n, outage) in (0..).zip(OUTAGES) {
        stage.strike(outage).await;
        let (began, over) = (Timestamp::now().micros(), Instant::now() + Duration::from_secs(seconds));
        for (leaving, joining) in group(n).zip(group(n + 1)) {
            tell(&stage, joining, true).await;
            tell(&stage, leaving, false).await;
            told += 2;
        }
        let mut recorded = 0;
        while Instant::now() < over {
            recorded = look.work().await.recorded;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        if outage != Fault::BothGone && recorded != told {
            wrong(format!("{outage}: recording goes on, but {recorded} of {told} deliveries were recorded"));
        }
        let asked = stage.site.drata.requests().iter().filter(|seen| seen.begun > began).count();
        let most = most_requests(seconds);
        if asked > most {
            wrong(format!(
                "{outage}: Drata was asked {asked} times in {seconds} s, where probes come to {most} at the most"
            ));
        }
        let ended = Timestamp::now().micros();
        stage.mend(outage).await;
        if let Err(what) = quiet::wait(&stage, &mut look, told).await {
            wrong(format!("{outage}: {what}"));
        }
        for what in afterwards(&stage, ended, group(n), group(n + 1)) {
            wrong(format!("{outage}: {what}"));
        }
        for (account, why) in look.parked().await {
            wrong(format!("{outage}: the account {account} is parked: {why}"));
        }
        println!("  {outage}: Drata was asked {asked} times meanwhile, {told} deliveries told so far");
    }
    for host in &stage.hosts {
        host.stop(&stage).await;
    }
    violations.extend(notes.faults_of_ours().into_iter().map(|what| Violation { account: None, what }));
    for violation in &violations {
        println!("  VIOLATION {}", violation.what);
    }
    Verdict::of("outages".to_owned(), usize::try_from(told).unwrap(), &notes, violations.len())
}

async fn tell(stage: &Stage, account: Account, joins: bool) {
    let github = &stage.site.github;
    let posted = if joins { github.join(account) } else { github.leave(account) };
    github.accepted(&stage.door(0).unwrap(), &posted).await;
}

/// How often Drata may be asked in an outage: what was under way when it began, and a few requests for each probe. The
/// first probe comes after 5 s, each after twice the wait before, and after a minute at the most.
fn most_requests(seconds: u64) -> usize {
    let (mut probes, mut at, mut wait) = (0, 5, 5);
    while at <= seconds {
        probes += 1;
        wait = (wait * 2).min(60);
        at += wait;
    }
    Hosts::of(Topology::Single).workers * AT_ONCE * 2 + probes * 3
}

/// What isn't as it should be after an outage: each account was to be reconciled once, losses first.
fn afterwards(
    stage: &Stage,
    ended: i64,
    left: impl Iterator<Item = Account>,
    joined: impl Iterator<Item = Account>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut calls: Vec<_> = stage.site.drata.requests();
    calls.retain(|seen| seen.begun > ended && identity_called(seen).is_some());
    calls.sort_by_key(|seen| seen.begun);
    for (account, linked) in left.map(|account| (account, false)).chain(joined.map(|account| (account, true))) {
        let times = calls.iter().filter(|seen| identity_called(seen) == Some(account.identity())).count();
        if stage.site.is_linked(account) != linked || times > 1 {
            wrong.push(format!("{account:?} should be linked ({linked}), and was called for {times} times"));
        }
    }
    let last_loss = calls.iter().rposition(|seen| seen.user_id.is_none()).unwrap_or(0);
    let before = calls[..last_loss].iter().filter(|seen| seen.user_id.is_some()).count();
    // What was taken at the same time may go out in any order, and a probe takes its turn.
    let most = Hosts::of(Topology::Single).workers * AT_ONCE + OUTAGES.len();
    if before > most {
        wrong.push(format!("{before} links were set before the last loss"));
    }
    wrong
}
