//! `rollcall gaps`: which periods are known to have no gap, what is missing, and what nobody has looked at.

use std::io::Write;

use serde::Serialize;

use super::Exit;
use super::exit::Misuse;
use super::recover::deliveries;
use super::table::{Table, Width, json, plain, sentence, time};
use crate::config::{Settings, Source};
use crate::ledger::Ledger;
use crate::ledger::balance::Gap;
use crate::ledger::recoveries::{Fate, Period, Undelivered};
use crate::recover::gaps::{Covered, HookGaps, SourceGaps, gaps};

const EXAMPLES: &str = "\
Two kinds of gaps are shown together. Between the provider and rollcall: what the provider failed to deliver, as far as \
somebody looked at its own list of attempts (`rollcall recover`, or the schedule); a period that nobody looked at is told \
as such. Inside rollcall: what was accepted and hasn't been recorded (`rollcall balance` tells more).

Exit code 1 if something is missing.

Examples:
  rollcall gaps
  rollcall gaps --source acme-github --json

With --json: an array with an object a source: source, recoverable, heard_of, hooks (hook, looked_at, never_looked_at, \
missing), never_looked_at, accepted_and_missing.";

/// How many deliveries are listed for people.
const LISTED: usize = 50;

/// Show for which periods nothing is missing, what is, and what nobody has looked at
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Only of this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Write a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    width: Width,
}

#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    gaps: SourceGaps,
    /// Whether its provider tells which deliveries failed.
    recoverable: bool,
    /// What was accepted and hasn't been recorded.
    accepted_and_missing: Vec<&'a Gap>,
}

pub(super) async fn run(
    args: &Args,
    settings: &Settings,
    ledger: &Ledger,
    out: &mut dyn Write,
) -> anyhow::Result<Exit> {
    let wanted = |source: &&Source| args.source.as_deref().is_none_or(|only| only == source.settings.name.as_str());
    let sources: Vec<&Source> = settings.sources.iter().filter(wanted).collect();
    if sources.is_empty() {
        let name = args.source.as_deref().unwrap_or("at all");
        return Err(Misuse(format!("no source {name} is configured")).into());
    }
    let accepted = ledger.missing(settings.balance.after).await?;
    let mut reports = Vec::new();
    for source in sources {
        let name = &source.settings.name;
        let gaps = gaps(ledger, name).await?;
        let accepted_and_missing = accepted.iter().filter(|gap| gap.source == name.as_str()).collect();
        reports.push(Report { gaps, recoverable: source.provider.recover.is_some(), accepted_and_missing });
    }
    let missing = reports.iter().any(|report| report.gaps.missing() > 0 || !report.accepted_and_missing.is_empty());
    if args.json {
        json(out, &reports)?;
    } else {
        for (n, report) in reports.iter().enumerate() {
            if n > 0 {
                writeln!(out)?;
            }
            show(report, args.width, out)?;
        }
    }
    Ok(if missing { Exit::Failed } else { Exit::Done })
}

fn show(report: &Report<'_>, width: Width, out: &mut dyn Write) -> anyhow::Result<()> {
    let Report { gaps, recoverable, accepted_and_missing } = report;
    writeln!(out, "{}", gaps.source)?;
    for hook in &gaps.hooks {
        show_hook(hook, width, out)?;
    }
    if gaps.hooks.is_empty() {
        let since = gaps.heard_of.map_or_else(
            || "nothing has come of it yet".to_owned(),
            |at| format!("since {}, when it was first heard of", time(at)),
        );
        let how = if *recoverable {
            format!("`rollcall recover --source {}` looks", gaps.source)
        } else {
            "its provider has no API that tells".to_owned()
        };
        let text = format!("Whether the provider failed to deliver something was never looked at ({since}): {how}.");
        sentence(out, 2, width, &text)?;
    }
    match accepted_and_missing.iter().map(|gap| gap.count()).sum::<i64>() {
        0 => sentence(out, 2, width, "Nothing that was accepted is missing.")?,
        missing => {
            sentence(out, 2, width, &format!("{missing} accepted and missing:"))?;
            for gap in accepted_and_missing {
                sentence(out, 4, width, &gap.to_string())?;
            }
        }
    }
    Ok(())
}

fn show_hook(hook: &HookGaps, width: Width, out: &mut dyn Write) -> anyhow::Result<()> {
    sentence(out, 2, width, &format!("Hook {}", plain(&hook.hook)))?;
    let looked_at = hook.looked_at.iter().map(|covered| (covered.period, Some(covered)));
    let mut periods: Vec<(Period, Option<&Covered>)> =
        looked_at.chain(hook.never_looked_at.iter().map(|period| (*period, None))).collect();
    periods.sort_by_key(|(period, _)| *period);
    let mut table = Table::new(&["FROM", "TO", "WHAT THE PROVIDER FAILED TO DELIVER"]);
    for (n, (period, covered)) in periods.iter().enumerate() {
        let verdict = match covered {
            Some(covered) => verdict(covered),
            None if n + 1 == periods.len() => "not looked at yet".to_owned(),
            None => "never looked at".to_owned(),
        };
        table.row([time(period.from), time(period.to), verdict], "");
    }
    table.write(out, 4, width)?;
    for doubt in hook.looked_at.iter().flat_map(|covered| &covered.doubts) {
        sentence(out, 4, width, &format!("Doubtful: {doubt}."))?;
    }
    if !hook.missing.is_empty() {
        sentence(out, 2, width, &format!("{} missing:", deliveries(hook.missing.len())))?;
        missing(&hook.missing, LISTED).write(out, 4, width)?;
        if hook.missing.len() > LISTED {
            writeln!(out, "    and {} more; --json has them", hook.missing.len() - LISTED)?;
        }
    }
    Ok(())
}

fn verdict(covered: &Covered) -> String {
    match (covered.missing, covered.recovered) {
        (0, 0) => "no gap".to_owned(),
        (0, recovered) => format!("no gap ({recovered} recovered)"),
        (missing, 0) => format!("{missing} missing"),
        (missing, recovered) => format!("{missing} missing, {recovered} recovered"),
    }
}

/// What is missing, and why.
pub(super) fn missing(missing: &[Undelivered], most: usize) -> Table {
    let mut table = Table::new(&["FAILED", "EVENT", "DELIVERY"]);
    for undelivered in missing.iter().take(most) {
        let why = undelivered.reason.as_deref().unwrap_or("not asked for yet");
        let fate = if undelivered.state == Fate::Lost { "lost" } else { "open" };
        let note = format!("{fate}: {} ({why})", undelivered.status);
        let failed = undelivered.failed_at.map_or_else(|| "-".to_owned(), time);
        table.row([failed, undelivered.event.clone(), undelivered.delivery.clone()], &note);
    }
    table
}
