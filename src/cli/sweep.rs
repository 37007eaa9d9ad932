//! `rollcall sweep`: all accounts compared with Drata, now.

use std::io::Write;

use super::exit::Misuse;
use super::table::{Table, Width, json, sentence};
use super::words::account_text;
use super::{Exit, OutOfReach, Place, asked_in_vain, serve};
use crate::app;
use crate::config::Settings;
use crate::people::People;
use crate::sweep::compare::Kind;
use crate::sweep::{Report, Sweep, SweepError, Swept};
use crate::target::ConnectionRef;

const EXAMPLES: &str = "\
A worker sweeps by itself (sweep.every). A sweep lists Drata's identities and people in pages, and compares them with what \
the ledger knows. It changes nothing at Drata: it marks accounts as due, and a worker that runs reconciles them at once.

Examples:
  rollcall sweep --dry-run              what it would find
  rollcall sweep --source acme-github
  rollcall accounts --drifted           what somebody has changed at Drata

With --json: an object with dry_run, people_unlisted and connections: an array of objects with connection, accounts, \
identities, still_waiting, drifted, marked, unclear and findings (account, login, finding, told).

Exit codes: 0 done, 1 Drata refuses or it can't be told which connection is meant, 3 Drata or the ledger can't be reached.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Only the connections of this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only this connection: its id, or its client type where the configuration names no id
    #[arg(long, value_name = "CONNECTION", conflicts_with = "source")]
    connection: Option<ConnectionRef>,
    /// Mark nothing, and only show what was found
    #[arg(long)]
    dry_run: bool,
    /// Write a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    width: Width,
}

pub(super) async fn run(args: Args, place: &Place, out: &mut (dyn Write + Send)) -> anyhow::Result<Exit> {
    let settings = place.settings()?;
    settings.require_sources()?;
    let only = chosen(&args, &settings)?;
    let people = match &settings.people.file {
        Some(file) => People::read(file).map_err(|error| Misuse(error.to_string()))?,
        None => People::default(),
    };
    let sweep = Sweep {
        client: serve::client(&settings, place)?,
        ledger: place.ledger(&settings).await?,
        people,
        policies: app::policies(&settings.sources),
        deadline: settings.sweep.waiting,
    };
    let report = sweep.once(only.as_deref(), args.dry_run).await.map_err(|error| match error {
        SweepError::Platform { ref why, .. } => asked_in_vain(why).context("can't list what Drata has"),
        SweepError::Halted(_) => OutOfReach(format!("{error}; `/health` of a worker says more")).into(),
        SweepError::Ledger(error) => error.into(),
    })?;
    if args.json {
        json(out, &report)?
    } else {
        show(&report, args.width, out)?
    }
    let clear = report.connections.iter().all(|swept| swept.unclear.is_none());
    Ok(if clear { Exit::Done } else { Exit::Failed })
}

/// The chosen connections; none for all.
fn chosen(args: &Args, settings: &Settings) -> anyhow::Result<Option<Vec<ConnectionRef>>> {
    let known = |source: &crate::config::Source| source.connections.all().cloned().collect::<Vec<_>>();
    if let Some(name) = &args.source {
        let found = settings.sources.iter().find(|source| source.settings.name.as_str() == name);
        let found = found.ok_or_else(|| Misuse(format!("no source {name} is configured")))?;
        let connections = known(found);
        if connections.is_empty() {
            return Err(Misuse(format!(
                "Drata has no connections for {}, so there is nothing to compare",
                found.provider.title
            ))
            .into());
        }
        return Ok(Some(connections));
    }
    let Some(connection) = &args.connection else { return Ok(None) };
    if !settings.sources.iter().flat_map(known).any(|known| known == *connection) {
        return Err(Misuse(format!("no source is configured for the connection {connection}")).into());
    }
    Ok(Some(vec![connection.clone()]))
}

fn show(report: &Report, width: Width, out: &mut dyn Write) -> anyhow::Result<()> {
    for swept in &report.connections {
        connection(swept, width, out)?;
    }
    if let Some(why) = &report.people_unlisted {
        let told = format!(
            "Nobody was looked for by e-mail address, since the key may not list people ({why}): grant it Personnel: List \
             Personnel, or Users: List Users."
        );
        sentence(out, 0, width, &told)?;
    }
    let found: usize = report.connections.iter().map(|swept| swept.findings.len()).sum();
    let marked: usize = report.connections.iter().map(|swept| swept.marked).sum();
    let summary = match (found, report.dry_run) {
        (0, _) => "Nothing to do.".to_owned(),
        (found, true) => format!("This was a dry run: {found} found, nothing marked."),
        (found, false) if marked < found => {
            format!("{found} found, {marked} marked; the others changed meanwhile. A worker does the rest.")
        }
        (found, false) => format!("{found} found and marked. A worker does the rest."),
    };
    Ok(writeln!(out, "{summary}")?)
}

fn connection(swept: &Swept, width: Width, out: &mut dyn Write) -> anyhow::Result<()> {
    let Swept { connection, accounts, identities, still_waiting, drifted, .. } = swept;
    if let Some(why) = &swept.unclear {
        return Ok(sentence(out, 0, width, &format!("Connection {connection}: {why}."))?);
    }
    let counts = format!(
        "Connection {connection}: {accounts} accounts, {identities} identities at Drata; {still_waiting} wait on, {drifted} drifted."
    );
    sentence(out, 0, width, &counts)?;
    if swept.findings.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["FINDING", "ACCOUNT"]);
    for found in &swept.findings {
        table.row([Kind::as_str(found.finding).to_owned(), account_text(&found.account)], &found.told);
    }
    Ok(table.write(out, 2, width)?)
}
