//! `rollcall migrate`: the ledger's tables, brought up to date by whoever owns them.

use std::io::Write;

use super::Exit;
use crate::ledger::Ledger;

const EXAMPLES: &str = "\
`rollcall serve` does the same at its start, unless ledger.migrate is false: set it so where the role that serves may
not change tables, and run this as their owner (ROLLCALL__LEDGER__URL=env:OWNER_URL rollcall migrate).

Exit code 1 with --check if something is pending.";

/// Bring the ledger's tables up to date
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Only say what is pending
    #[arg(long)]
    check: bool,
}

/// Migrates, or says what is pending; then [`Exit::Failed`] if anything is.
///
/// # Errors
/// If the ledger or `out` fails.
pub(super) async fn run(args: Args, ledger: &Ledger, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let pending = ledger.pending().await?;
    let database = ledger.database().name();
    if pending.is_empty() {
        writeln!(out, "{database}: up to date")?;
        return Ok(Exit::Done);
    }
    if !args.check {
        ledger.migrate().await?;
    }
    for migration in &pending {
        writeln!(out, "{database}: {} {migration}", if args.check { "pending" } else { "applied" })?;
    }
    Ok(if args.check { Exit::Failed } else { Exit::Done })
}
