//! `rollcall roster`: who really has access, as the provider's own API lists it, beside what the ledger knows.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::exit::Misuse;
use super::table::{Table, Width, json, sentence, time};
use super::words::key_text;
use super::{Exit, OutOfReach, Place};
use crate::access::{AccessKind, AccountKey};
use crate::app::{self, StartError};
use crate::config::{Settings, Source};
use crate::delivery::Timestamp;
use crate::roster::compare::{Difference, LedgerSays};
use crate::roster::{Look, Recorded, RosterError, RosterSource, Rosters, is_new, name_of};

const EXAMPLES: &str = "\
Examples:
  rollcall roster --dry-run                     what differs, and what a reading would change
  rollcall roster --source acme-github          the first time: take in whoever is there already
  rollcall roster --source acme-github --json   for machines; with --yes without a question

A process that serves reads the rosters of all sources that have an api_token by itself (roster.every). This command does \
the same at once, and also takes in members of whom the ledger has never heard, after a question. Anything else counts \
only once two readings have shown it that lie roster.apart apart, with no event about it between them.

Exit codes: 0 done, 1 a roster couldn't be read, or was refused by the provider, 2 usage or configuration, 3 the ledger \
or the provider can't be reached.

With --json: an array of rosters, each with source, root, name, began_at, members, differences (an array of objects with \
account, login, scope, access, roster, ledger, effect, first_seen_at) and recorded (what was recorded: gained, lost, \
held, pending; null with --dry-run), or with failure instead of what couldn't be read.";

/// How long one request may wait for the provider's rate limit while somebody watches.
const PATIENCE: Duration = Duration::from_mins(2);

/// Show who really has access at the provider, beside what the ledger knows, and let the ledger know it
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Only the rosters of this source [default: of all that have an api_token]
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    /// Change nothing and remember nothing
    #[arg(long)]
    dry_run: bool,
    /// Take members in of whom the ledger has never heard, without a question
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Write a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    width: Width,
}

/// What a reading would do about a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Effect {
    /// Taken in, once an operator says yes.
    Imported,
    /// Recorded.
    Recorded,
    /// Held for an operator's yes, with all other losses of this reading.
    Held,
    /// It has to show in another reading.
    Pending,
}

impl Effect {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Imported => "taken in",
            Self::Recorded => "recorded",
            Self::Held => "held",
            Self::Pending => "wait",
        }
    }
}

#[derive(Debug, Serialize)]
struct Row {
    account: AccountKey,
    login: Option<String>,
    scope: String,
    access: AccessKind,
    roster: String,
    ledger: LedgerSays,
    effect: Effect,
    first_seen_at: Timestamp,
}

/// One root's roster.
#[derive(Debug, Serialize)]
struct Report {
    source: String,
    root: String,
    name: Option<String>,
    began_at: Option<Timestamp>,
    members: Option<usize>,
    differences: Vec<Row>,
    recorded: Option<Recorded>,
    failure: Option<String>,
}

/// The sources whose rosters can be read.
///
/// # Errors
/// If a token can't be read, or the address of an API can't be used.
pub(super) fn sources(settings: &Settings, place: &Place, patience: Duration) -> Result<Vec<RosterSource>, StartError> {
    let mut sources = Vec::new();
    for source in &settings.sources {
        sources.extend(one_source(source, settings, place, patience)?);
    }
    Ok(sources)
}

/// A source whose rosters can be read; none if it has no token or its provider no rosters.
pub(super) fn one_source(
    source: &Source,
    settings: &Settings,
    place: &Place,
    patience: Duration,
) -> Result<Option<RosterSource>, StartError> {
    let key = || format!("source[{}].api_token", source.settings.name);
    let token = source.api_token.as_ref().map(|token| token.resolve(&place.env)).transpose();
    let token = token.map_err(|error| settings.needed_for(&key(), error))?;
    app::roster_source(source, token.as_ref(), patience)
}

pub(super) async fn run(args: Args, place: &Place, out: &mut (dyn Write + Send)) -> anyhow::Result<Exit> {
    let settings = place.settings()?;
    settings.require_sources()?;
    let sources = chosen(&args, &settings, place)?;
    let ledger = place.ledger(&settings).await?;
    let rosters = Rosters {
        ledger: ledger.clone(),
        reader: Arc::new(app::reader(&settings.sources)?),
        policies: Arc::new(app::policies(&settings.sources)),
        apart: settings.roster.apart,
    };
    let (mut looks, mut failures) = (Vec::new(), Vec::new());
    for source in &sources {
        let roots = match source.roots(&ledger).await {
            Ok(roots) => roots,
            Err(RosterError::Ledger(error)) => return Err(error.into()),
            Err(error) => {
                failures.push((source, "-".to_owned(), error));
                continue;
            }
        };
        for root in roots {
            match rosters.look(source, &root).await {
                Ok(look) => looks.push((source, look)),
                Err(RosterError::Ledger(error)) => return Err(error.into()),
                Err(error) => failures.push((source, root.to_string(), error)),
            }
        }
    }
    let mut reports: Vec<Report> = looks.iter().map(|(source, look)| report(source, look)).collect();
    if !args.json {
        for report in &reports {
            show(report, args.width, out)?;
        }
    }
    let new = looks.iter().map(|(_, look)| look.verdict.pending.iter().filter(|(it, _)| is_new(it)).count()).sum();
    let goes_ahead = !args.dry_run && confirmed(&args, new, looks.len())?;
    if goes_ahead {
        for ((source, look), report) in looks.into_iter().zip(&mut reports) {
            report.recorded = Some(rosters.record(source, look, true).await?);
        }
    }
    for (source, root, error) in &failures {
        if !args.dry_run {
            ledger.reading_failed(&source.name, root, &error.to_string()).await?;
        }
        reports.push(failed(source, root, error));
    }
    tell(&args, &reports, goes_ahead, out)?;
    if failures.is_empty() {
        return Ok(Exit::Done);
    }
    if failures.iter().all(|(_, _, error)| error.is_transient()) {
        let (source, root, error) = &failures[0];
        return Err(OutOfReach(format!("source {}, {root}: {error}", source.name)).into());
    }
    Ok(Exit::Failed)
}

/// The sources that were asked for.
fn chosen(args: &Args, settings: &Settings, place: &Place) -> anyhow::Result<Vec<RosterSource>> {
    let Some(name) = &args.source else {
        let sources = sources(settings, place, PATIENCE)?;
        if sources.is_empty() {
            let why = "no source has an api_token and a provider with rosters; `rollcall providers` shows which have";
            return Err(Misuse(why.to_owned()).into());
        }
        return Ok(sources);
    };
    let source = settings.sources.iter().find(|source| source.settings.name.as_str() == name);
    let source = source.ok_or_else(|| Misuse(format!("no source {name:?} is configured")))?;
    if source.provider.roster.is_none() {
        return Err(Misuse(format!("{} has no list of members that rollcall could read", source.provider.title)).into());
    }
    let found = one_source(source, settings, place, PATIENCE)?;
    let found = found.ok_or_else(|| {
        Misuse(format!("source {name} has no api_token; write api_token = {{ env = \"NAME\" }} in its table"))
    })?;
    Ok(vec![found])
}

fn report(source: &RosterSource, look: &Look) -> Report {
    let losing = look.losses();
    let held = losing > usize::try_from(source.mass_change_limit).unwrap_or(usize::MAX);
    let row = |difference: &Difference, first_seen_at: Timestamp, effect: Effect| Row {
        account: difference.observed.account.key.clone(),
        login: difference.observed.account.login.clone(),
        scope: name_of(&difference.observed.scope),
        access: difference.observed.access,
        roster: match (&difference.observed.role, difference.observed.access) {
            (Some(role), _) => role.clone(),
            (None, AccessKind::Lost) => "not there".to_owned(),
            (None, _) => "member".to_owned(),
        },
        ledger: difference.ledger,
        effect,
        first_seen_at,
    };
    let confirmed = look.verdict.confirmed.iter().map(|(difference, first)| {
        let is_loss = difference.observed.access == AccessKind::Lost;
        row(difference, *first, if is_loss && held { Effect::Held } else { Effect::Recorded })
    });
    let pending = look.verdict.pending.iter().map(|(difference, first)| {
        row(difference, *first, if is_new(difference) { Effect::Imported } else { Effect::Pending })
    });
    Report {
        source: source.name.to_string(),
        root: look.root.to_string(),
        name: Some(name_of(&look.scope)),
        began_at: Some(look.times.began),
        members: Some(look.members),
        differences: confirmed.chain(pending).collect(),
        recorded: None,
        failure: None,
    }
}

fn failed(source: &RosterSource, root: &str, error: &RosterError) -> Report {
    Report {
        source: source.name.to_string(),
        root: root.to_owned(),
        name: None,
        began_at: None,
        members: None,
        differences: Vec::new(),
        recorded: None,
        failure: Some(error.to_string()),
    }
}

fn show(report: &Report, width: Width, out: &mut dyn Write) -> anyhow::Result<()> {
    let name = report.name.as_ref().unwrap_or(&report.root);
    let members = report.members.unwrap_or_default();
    let have = if members == 1 { "account has" } else { "accounts have" };
    sentence(out, 0, width, &format!("{name} ({}): {members} {have} access.", report.source))?;
    if report.differences.is_empty() {
        sentence(out, 2, width, "The ledger knows the same.")?;
        return Ok(());
    }
    let mut table = Table::new(&["ACCOUNT", "LOGIN", "SCOPE", "ROSTER", "LEDGER", "EFFECT"]);
    for row in &report.differences {
        let note = match row.effect {
            Effect::Imported => String::new(),
            Effect::Recorded => format!("shown first at {}", time(row.first_seen_at)),
            Effect::Held => "more losses than mass_change_limit: an operator has to say yes".to_owned(),
            Effect::Pending => format!("shown first at {}; must show again", time(row.first_seen_at)),
        };
        let cells = [
            key_text(&row.account),
            row.login.clone().unwrap_or_else(|| "-".to_owned()),
            row.scope.clone(),
            row.roster.clone(),
            row.ledger.as_str().to_owned(),
            row.effect.as_str().to_owned(),
        ];
        table.row(cells, &note);
    }
    Ok(table.write(out, 2, width)?)
}

/// Whether to go ahead. Taking in whom the ledger has never heard of is a question.
fn confirmed(args: &Args, new: usize, rosters: usize) -> anyhow::Result<bool> {
    if args.yes || new == 0 || rosters == 0 {
        return Ok(true);
    }
    let mut err = std::io::stderr();
    if !std::io::stdin().is_terminal() || !err.is_terminal() {
        let why = format!(
            "it would take in {new} that the ledger has never heard of; add --yes to do it, or --dry-run to see \
                           what differs"
        );
        return Err(Misuse(why).into());
    }
    write!(err, "\nTake in {new} that the ledger has never heard of? [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// What it came to in the end.
fn tell(args: &Args, reports: &[Report], went_ahead: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    if args.json {
        return json(out, &reports);
    }
    for report in reports {
        if let Some(failure) = &report.failure {
            sentence(out, 0, args.width, &format!("{} ({}): can't be read: {failure}", report.root, report.source))?;
        }
        if let Some(recorded) = &report.recorded {
            let name = report.name.as_ref().unwrap_or(&report.root);
            sentence(out, 0, args.width, &format!("{name} ({}): {recorded}.", report.source))?;
        }
    }
    let held: usize = reports.iter().filter_map(|report| Some(report.recorded?.held)).sum();
    if held > 0 {
        let how = "Held: `rollcall deliveries --outcome held` shows what waits for a yes, and how to give it.";
        sentence(out, 0, args.width, how)?;
    }
    if !went_ahead {
        sentence(out, 0, args.width, "Nothing was changed, and nothing is remembered of this reading.")?;
    }
    Ok(())
}
