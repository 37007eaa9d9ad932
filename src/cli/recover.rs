//! `rollcall recover`: has a provider deliver again what it failed to deliver. What it does is in [`crate::recover`].

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::choice::When;
use super::exit::{Misuse, OutOfReach};
use super::table::{Table, Width, json, plain, sentence, time};
use super::{Exit, Place};
use crate::api::Api;
use crate::config::{Settings, Source};
use crate::ledger::Ledger;
use crate::provider::recover::HookPath;
use crate::recover::{HookPlan, HookReport, Manner, RecoverError, Recovery, Step};
use crate::shutdown::signal;

const EXAMPLES: &str = "\
Looks at the provider's own list of attempts for what failed, matters and isn't in the ledger, and asks the provider to \
deliver it again: it comes in signed, over the ordinary way, so an ingress and a worker have to be running. What the \
period holds is on record afterwards: `rollcall gaps` shows it. An interrupted run goes on where it was.

GitHub tells of the last 3 days (an Enterprise Server of 7), GitLab of 7. Other providers have no such API. The source \
needs an api_token; the hook is found by ingress.public_url, or named by `hook` in the source's table. A process that \
serves does the same by itself, every recover.every.

Examples:
  rollcall recover --source acme-github --dry-run     what is missing, without asking for it
  rollcall recover --source acme-github --since 24h
  rollcall recover                                    all sources, whatever wasn't looked at yet
  rollcall recover --forgotten --since 3d             after the ledger was restored from a backup

With --json: an array with an object a hook: source, hook, looked_at (from, to), read, asked, arrived, missing; with \
--dry-run would_ask instead of the last three.

Exit codes: 0 nothing is missing, 1 something is, 2 usage or configuration, 3 the provider or the ledger can't be \
reached, 130 interrupted.";

/// How long one request may wait for the provider's rate limit and for a failing server.
const PATIENCE: Duration = Duration::from_mins(10);
/// How many deliveries are listed for people.
const LISTED: usize = 50;

/// Have a provider deliver again what it failed to deliver
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Only of this source [default: all that have an api_token]
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Look at everything since then: 24h, 3d, or 2026-11-24T08:00:00Z [default: what wasn't looked at yet]
    #[arg(long, value_name = "DURATION|TIME")]
    since: Option<When>,
    /// Also what the provider did deliver and the ledger doesn't have: after a restore from a backup
    #[arg(long)]
    forgotten: bool,
    /// Only show what would be asked for
    #[arg(long)]
    dry_run: bool,
    /// How long to wait for what was asked for
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = humantime::parse_duration)]
    wait: Duration,
    /// Write a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    width: Width,
}

pub(super) async fn run(args: Args, place: &Place, out: &mut (dyn Write + Send)) -> anyhow::Result<Exit> {
    let settings = place.settings()?;
    settings.require_sources()?;
    let sources = chosen(&settings, args.source.as_deref())?;
    let ledger = place.ledger(&settings).await?;
    let recoveries =
        sources.into_iter().map(|source| recovery(source, &settings, place, &ledger)).collect::<Result<Vec<_>, _>>()?;
    tokio::select! {
        ended = go(&args, &recoveries, place, &ledger, out) => ended,
        signal = signal() => {
            signal?;
            writeln!(std::io::stderr(), "Interrupted; the same command goes on where it was.")?;
            Ok(Exit::Interrupted)
        }
    }
}

async fn go(
    args: &Args,
    recoveries: &[Recovery],
    place: &Place,
    ledger: &Ledger,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<Exit> {
    let now = ledger.now().await?;
    let since = args.since.map(|since| since.from(now));
    let progress = Progress::new();
    let (mut plans, mut reports, mut failure) = (Vec::new(), Vec::new(), None);
    for recovery in recoveries {
        let ended = async {
            let found = recovery.hooks().await?;
            for list in found.without {
                // Nobody is left to tell if standard error is closed, too.
                let _told = writeln!(std::io::stderr(), "None of the hooks in {list} posts to {}.", recovery.source);
            }
            for hook in found.hooks {
                let watcher = |hook: &HookPath, step| progress.show(hook, step);
                let (wait, forgotten, by) = (args.wait, args.forgotten, place.operator());
                let manner = Manner { since, forgotten, wait, by: &by, scheduled: false };
                if args.dry_run {
                    plans.push(recovery.plan(&hook, &manner, &watcher).await?);
                } else {
                    reports.push(recovery.recover(&hook, &manner, &watcher).await?);
                }
            }
            Ok::<(), RecoverError>(())
        };
        // One source's trouble keeps nobody from the others.
        if let Err(error) = ended.await {
            let error = failed(recovery, error);
            match &failure {
                None => failure = Some(error),
                Some(_) => writeln!(std::io::stderr(), "rollcall: {error:#}")?,
            }
        }
    }
    progress.end();
    let missing = reports.iter().any(|report| !report.missing.is_empty());
    if args.dry_run {
        shown(args, out, &plans, show_plan)?;
    } else {
        shown(args, out, &reports, show_report)?;
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    let would_ask = plans.iter().any(|plan| !plan.would_ask.is_empty());
    Ok(if missing || would_ask { Exit::Failed } else { Exit::Done })
}

/// The sources to recover for.
fn chosen<'a>(settings: &'a Settings, name: Option<&str>) -> anyhow::Result<Vec<&'a Source>> {
    let Some(name) = name else {
        let able = |source: &&Source| source.api_token.is_some() && source.provider.recover.is_some();
        let able: Vec<&Source> = settings.sources.iter().filter(able).collect();
        if able.is_empty() {
            let why = "no source has an api_token and a provider that tells which deliveries failed (GitHub, GitLab); \
                add api_token = { env = \"NAME\" } to its table";
            return Err(Misuse(why.to_owned()).into());
        }
        return Ok(able);
    };
    let found = settings.sources.iter().find(|source| source.settings.name.as_str() == name);
    let found = found.ok_or_else(|| Misuse(format!("no source {name} is configured")))?;
    Ok(vec![found])
}

/// What can be recovered for a source.
fn recovery(source: &Source, settings: &Settings, place: &Place, ledger: &Ledger) -> anyhow::Result<Recovery> {
    let Source { settings: own, provider, .. } = source;
    let able = provider.recover.zip(provider.api.as_ref());
    let (recover, api) = able.ok_or_else(|| {
        Misuse(format!(
            "{} has no API that tells which deliveries failed, or that delivers them again, so nothing can be recovered \
             for {}. What its deliveries failed to tell is found by comparing with who has access there: a roster \
             (`rollcall roster --source {}`), where rollcall reads one of that provider",
            provider.title, own.name, own.name
        ))
    })?;
    let key = format!("source[{}].api_token", own.name);
    let token = source.api_token.as_ref().ok_or_else(|| {
        settings
            .wrong(&key, "is missing, and without it the provider can't be asked; write api_token = { env = \"NAME\" }")
    })?;
    let token = token.resolve(&place.env).map_err(|error| settings.needed_for(&key, error))?;
    let recover =
        recover(own).map_err(|error| settings.wrong(&key.replace("api_token", &error.key), &error.message))?;
    let api = Api::new(api, &own.host, source.api_url.as_ref(), &token.value, PATIENCE)
        .map_err(|error| settings.wrong(&key, &error.to_string()))?;
    let endpoint = settings.ingress.public_url.as_ref().map(|_| settings.ingress.webhook_url(&own.name));
    Ok(Recovery {
        source: own.name.clone(),
        provider,
        sightings: own.sightings,
        recover,
        api,
        endpoint: endpoint.map(|url| url.parse()).transpose().context("ingress.public_url")?,
        ledger: ledger.clone(),
    })
}

/// What a process that serves recovers on its schedule.
pub(super) fn all(settings: &Settings, place: &Place, ledger: &Ledger) -> anyhow::Result<Vec<Recovery>> {
    let able = |source: &&Source| source.api_token.is_some() && source.provider.recover.is_some();
    settings.sources.iter().filter(able).map(|source| recovery(source, settings, place, ledger)).collect()
}

fn failed(recovery: &Recovery, error: RecoverError) -> anyhow::Error {
    let source = &recovery.source;
    match error {
        RecoverError::Ledger(error) => error.into(),
        error @ (RecoverError::Hook(_) | RecoverError::NoHook { .. }) => {
            Misuse(format!("source {source}: {error}")).into()
        }
        error if error.is_unreachable() => OutOfReach(format!("source {source}: {error}")).into(),
        error => anyhow::Error::new(error).context(format!("source {source}")),
    }
}

fn shown<T: Serialize>(
    args: &Args,
    out: &mut (dyn Write + Send),
    hooks: &[T],
    show: impl Fn(&T, Width, &mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if args.json {
        return json(out, &hooks);
    }
    for (n, hook) in hooks.iter().enumerate() {
        if n > 0 {
            writeln!(out)?;
        }
        show(hook, args.width, out)?;
    }
    Ok(())
}

fn show_report(report: &HookReport, width: Width, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "{}, {}", report.hook.source, plain(&report.hook.hook))?;
    let mut facts = vec![
        (
            "looked at",
            report.looked_at.map_or_else(
                || "nothing: all was looked at before".to_owned(),
                |period| format!("{} to {}, {} attempts", time(period.from), time(period.to), report.read),
            ),
        ),
        ("asked for", deliveries(report.asked)),
        ("arrived", deliveries(usize::try_from(report.arrived).unwrap_or(usize::MAX))),
        ("missing", deliveries(report.missing.len())),
    ];
    if let Some(lapsed) = report.lapsed_from {
        facts.push((
            "too late",
            format!("nobody looked between {} and then, and it can't be told any more", time(lapsed)),
        ));
    }
    if let Some(doubt) = &report.doubt {
        facts.push(("doubtful", doubt.clone()));
    }
    for (what, fact) in facts {
        sentence(out, 2, width, &format!("{what:<9}  {fact}"))?;
    }
    if let (Some(period), true) = (report.looked_at, report.missing.is_empty()) {
        return Ok(sentence(out, 2, width, &format!("No gap between {} and {}.", time(period.from), time(period.to)))?);
    }
    if report.missing.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    Ok(super::gaps::missing(&report.missing, LISTED).write(out, 2, width)?)
}

fn show_plan(plan: &HookPlan, width: Width, out: &mut dyn Write) -> anyhow::Result<()> {
    let HookPlan { hook, looked_at, read, would_ask } = plan;
    writeln!(out, "{}, {}", hook.source, plain(&hook.hook))?;
    let period = format!("{} to {}", time(looked_at.from), time(looked_at.to));
    sentence(out, 2, width, &format!("looked at  {period}, {read} attempts"))?;
    if would_ask.is_empty() {
        return Ok(sentence(out, 2, width, &format!("No gap between {}.", period.replace(" to ", " and ")))?);
    }
    sentence(out, 2, width, &format!("would ask  {}", deliveries(would_ask.len())))?;
    writeln!(out)?;
    let mut table = Table::new(&["FAILED", "EVENT", "DELIVERY"]);
    for wanted in would_ask.iter().take(LISTED) {
        let note = wanted.lost.map_or_else(|| wanted.status.clone(), |lost| format!("can't be asked for: {lost}"));
        let failed = wanted.failed_at.map_or_else(|| "-".to_owned(), time);
        table.row([failed, wanted.event.clone(), wanted.delivery.clone()], &note);
    }
    table.write(out, 2, width)?;
    if would_ask.len() > LISTED {
        writeln!(out, "  and {} more; --json has them", would_ask.len() - LISTED)?;
    }
    Ok(())
}

pub(super) fn deliveries(count: usize) -> String {
    match count {
        1 => "1 delivery".to_owned(),
        count => format!("{count} deliveries"),
    }
}

/// How far it has come, on standard error, if that is a terminal.
struct Progress(ProgressBar);

impl Progress {
    fn new() -> Self {
        let target =
            if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{msg} ({elapsed})") {
            bar.set_style(style);
        }
        Self(bar)
    }

    fn show(&self, hook: &HookPath, step: Step) {
        self.0.set_message(match step {
            Step::Reading(read) => format!("{hook}: {read} attempts read"),
            Step::Asking(done, all) => format!("{hook}: {done} of {all} asked for"),
            Step::Waiting(left) => format!("{hook}: waiting for {}", deliveries(left)),
        });
        self.0.tick();
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}
