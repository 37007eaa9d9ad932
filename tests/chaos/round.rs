//! One round: a seed's world told under a seed's faults, and what came of it.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::check::{self, Found, Violation};
use crate::ledger::Look;
use crate::meter::Meter;
use crate::notes::Notes;
use crate::options::{Options, Topology};
use crate::quiet;
use crate::report::{self, Verdict};
use crate::schedule::{Pace, Strike, schedule};
use crate::stage::Stage;
use crate::telling::{self, Delivery};
use crate::world::World;

/// How many violations are printed.
const MOST: usize = 25;

/// What a seed does.
pub(crate) struct Plan {
    pub(crate) topology: Topology,
    pub(crate) seed: u64,
    pub(crate) world: World,
    pub(crate) schedule: Vec<Strike>,
    pub(crate) rate: usize,
    /// By how many seconds some clocks are wrong.
    pub(crate) skew: Option<i64>,
    /// How close the faults come.
    pub(crate) pace: Pace,
    /// Whether each ingress has a spool: then it takes deliveries that RabbitMQ doesn't.
    pub(crate) spools: bool,
}

impl Plan {
    pub(crate) fn new(topology: Topology, seed: u64, deliveries: usize, options: &Options) -> Self {
        let pace = if options.soak.is_some() { Pace::Soak } else { Pace::Dense };
        let world = World::new(seed, options.accounts, deliveries);
        let schedule = schedule(seed, topology, world.posts.len(), options.rate, pace);
        let skew = (!options.no_skew).then(|| fastrand::Rng::with_seed(seed).i64(-200..=200));
        let spools = topology != Topology::Embedded && (seed % 2 == 0 || pace == Pace::Soak);
        Self { topology, seed, world, schedule, rate: options.rate, skew, pace, spools }
    }
}

/// Runs it.
pub(crate) async fn run(plan: Plan, options: &Options) -> Verdict {
    let notes = Notes::new(options.verbose);
    let Plan { topology, seed, ref world, ref schedule, rate, skew, pace, spools } = plan;
    println!("seed {seed} on {}: {}", topology.as_str(), report::outline(&plan));
    let stage = Arc::new(Stage::set(topology, world, skew, spools, notes.clone()).await);
    let deliveries = Arc::new(telling::deliveries(&stage, world));
    let watched = CancellationToken::new();
    let mut watch = JoinSet::new();
    let (watching, token) = (Arc::clone(&stage), watched.clone());
    watch.spawn_local(async move { token.run_until_cancelled(watching.watch()).await });
    let meter = Arc::new(Meter::default());
    let metering = Arc::clone(&meter);
    let (watching, token) = (Arc::clone(&stage), watched.clone());
    watch.spawn_local(async move { token.run_until_cancelled(metering.watch(&watching)).await });
    telling::tell(&stage, world, &deliveries, schedule, rate).await;
    let told = notes.elapsed();
    let mut look = Look::into(&stage.site).await;
    let settled = settle(&stage, &mut look, &deliveries, &watched).await;
    watch.join_all().await;
    let mut found = check::check(&stage, world, &deliveries, &mut look).await;
    if let Err(what) = settled {
        found.violations.insert(0, Violation { account: None, what });
    }
    drop(look);
    let mut stage = Arc::into_inner(stage).expect("nobody else has the stage any more");
    if pace == Pace::Soak {
        let grown =
            meter.verdict().into_iter().map(|what| Violation { account: None, what: format!("it grows: {what}") });
        found.violations.extend(grown);
    }
    let verdict = report::verdict(&plan, &notes, &deliveries, &found, told);
    if !found.violations.is_empty() {
        tell_of(&mut stage, &plan, &deliveries, &found).await;
    }
    verdict
}

/// Waits for quiet, ends the processes in order, and sees that nothing was left in them. Says what never came.
async fn settle(
    stage: &Stage,
    look: &mut Look,
    deliveries: &[Delivery],
    watched: &CancellationToken,
) -> Result<(), String> {
    let count = i64::try_from(deliveries.len()).unwrap();
    let spools = quiet::wait_for_the_spools(stage).await;
    let quiet = quiet::wait(stage, look, count).await;
    watched.cancel();
    spools?;
    if let Err(what) = quiet {
        return Err(format!("{what}\n{}", stage.queues().await));
    }
    // Ingresses first: their last checkpoints have to be recorded by somebody.
    let (ingresses, others): (Vec<_>, Vec<_>) =
        stage.hosts.iter().partition(|host| host.role == crate::host::Role::Ingress);
    for host in ingresses {
        host.stop(stage).await;
    }
    quiet::wait_for_the_balance(look).await?;
    quiet::wait(stage, look, count).await?;
    for host in others {
        host.stop(stage).await;
    }
    quiet::wait(stage, look, count).await
}

/// Says all there is to know about each account that isn't right, and keeps the folder.
async fn tell_of(stage: &mut Stage, plan: &Plan, deliveries: &[Delivery], found: &Found) {
    let mut shown = Vec::new();
    for violation in found.violations.iter().take(MOST) {
        println!("  VIOLATION {}", violation.what);
        if let Some(account) = violation.account
            && shown.len() < 5
            && !shown.contains(&account)
        {
            shown.push(account);
            report::account(stage, plan, deliveries, account).await;
        }
    }
    if let Some(more) = found.violations.len().checked_sub(MOST + 1) {
        println!("  and {} more", more + 1);
    }
    println!("  the folder is kept: {}", stage.site.keep().display());
}
