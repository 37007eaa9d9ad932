//! `rollcall balance`: whether everything that was accepted has arrived.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use super::Exit;
use super::table::{Table, Width, json, time};
use crate::ledger::Ledger;
use crate::ledger::balance::{Balance, Gap, Run};

const EXAMPLES: &str = "\
Each ingress process (a run) counts what it accepts, from 1 for each source. What the ledger hasn't seen of that is \
missing once it is older than balance.after; until then it may be on its way.

Exit code 1 if something is missing, or the sum doesn't add up.

With --json: an object with accepted, outcomes, gaps (run, source, first, last, since, accepted, before, after), \
missing (those of the gaps that are older than balance.after) and runs (run, source, since, seen_at, high, voids).";

/// Show whether everything that was accepted has arrived, and what is missing
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Write a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    width: Width,
}

#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    balance: &'a Balance,
    missing: &'a [Gap],
    runs: &'a [Run],
}

/// Shows the balance. [`Exit::Failed`] if something is missing, or it doesn't add up.
///
/// # Errors
/// If the ledger or `out` fails.
pub async fn run(args: &Args, ledger: &Ledger, after: Duration, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let (balance, missing, runs) = (ledger.balance().await?, ledger.missing(after).await?, ledger.runs().await?);
    let exit = if missing.is_empty() && balance.adds_up() { Exit::Done } else { Exit::Failed };
    if args.json {
        json(out, &Report { balance: &balance, missing: &missing, runs: &runs })?;
        return Ok(exit);
    }
    writeln!(out, "{balance}")?;
    if !runs.is_empty() {
        writeln!(out)?;
        let mut table = Table::new(&["SOURCE", "RUN", "SINCE", "LAST SEEN", "HIGHEST", "VOIDS"]);
        for run in &runs {
            let cells = [
                run.source.clone(),
                run.run.clone(),
                time(run.since),
                time(run.seen_at),
                run.high.to_string(),
                run.voids.to_string(),
            ];
            table.row(cells, "");
        }
        table.write(out, 0, args.width)?;
    }
    for gap in &balance.gaps {
        let state = if missing.contains(gap) { "missing" } else { "perhaps on its way" };
        writeln!(out, "\n{state}: {gap}")?;
    }
    Ok(exit)
}
