//! Chaos: rollcall's real binaries between real services under seeded faults, and what came of it against a model.
//!
//! * [`world`]: what happens, and in which order GitHub tells of it; [`model`]: what follows from that;
//! * [`schedule`]: which faults strike, and when; [`stage`] and [`host`]: the processes, the wires, the services;
//! * [`telling`]: the deliveries are posted, again and again until they are taken; [`quiet`]: until nothing is left to do;
//! * [`check`], [`order`]: what must hold then, and what must have held all the time;
//! * [`round`]: all of it for one seed; [`meter`]: what the processes have in memory meanwhile;
//! * [`outage`]: what long outages cost.
//!
//! `tests/chaos/README.md` says how to run it, and how it was shown that it can fail.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for tests prints, and fails by panicking"
)]

mod check;
#[expect(dead_code, reason = "the harness of tests/it has more than what is needed here")]
#[path = "../it/harness/mod.rs"]
mod harness;
mod host;
mod ledger;
mod meter;
mod model;
mod notes;
mod options;
mod order;
mod outage;
mod quiet;
mod report;
mod round;
mod schedule;
mod stage;
mod telling;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use rollcall::shutdown;
use tokio::task::LocalSet;
use tokio::time::Instant;

use options::{Options, SHORT, Topology};

#[tokio::main]
async fn main() -> ExitCode {
    // What is spawned locally shares this thread; proxies and Drata's stand-in have the others.
    let local = LocalSet::new();
    tokio::select! {
        code = local.run_until(run(Options::parse())) => code,
        // What is dropped takes its processes with it.
        _ = shutdown::signal() => ExitCode::from(130),
    }
}

async fn run(options: Options) -> ExitCode {
    if !options.no_skew && options::faketime().is_none() {
        eprintln!("chaos: libfaketime is needed to set clocks wrong (Debian's package libfaketime), or --no-skew");
        return ExitCode::from(3);
    }
    let began = Instant::now();
    let mut verdicts = Vec::new();
    if let Some(seconds) = options.outage {
        verdicts.push(outage::run(seconds, &options).await);
    }
    for (topology, seed, deliveries) in rounds(&options) {
        if options.plan {
            report::plan(&round::Plan::new(topology, seed, deliveries, &options));
            continue;
        }
        verdicts.push(round::run(round::Plan::new(topology, seed, deliveries, &options), &options).await);
        let enough = Duration::from_secs(60 * options.minutes.unwrap_or(u64::MAX / 60));
        if began.elapsed() > enough {
            break;
        }
    }
    report::summary(&verdicts);
    if verdicts.iter().any(|verdict| verdict.violations > 0) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What is run: the short run if nothing was said, else the seeds that were named, and on from the last of them for as
/// many minutes as were asked for.
fn rounds(options: &Options) -> Box<dyn Iterator<Item = (Topology, u64, usize)>> {
    let (topology, deliveries) = (options.topology, options.deliveries);
    let seeds = options.seeds.clone();
    if let Some(minutes) = options.soak {
        return Box::new(std::iter::once((topology, 1, minutes * 60 * options.rate * 8 / 9)));
    }
    match (seeds.last().copied(), options.minutes) {
        (None, None) if options.outage.is_some() => Box::new(std::iter::empty()),
        (None, None) => Box::new(SHORT.into_iter()),
        (last, Some(_)) => {
            let on = last.map_or(1, |last| last + 1);
            Box::new(seeds.into_iter().chain(on..).map(move |seed| (topology, seed, deliveries)))
        }
        (Some(_), None) => Box::new(seeds.into_iter().map(move |seed| (topology, seed, deliveries))),
    }
}
