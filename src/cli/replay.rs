//! `rollcall replay`: chooses deliveries and publishes them again. What it does is in [`crate::replay`]; here are the
//! options, the questions and the words.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use super::choice::ChoiceArgs;
use super::exit::{Misuse, OutOfReach};
use super::named::NameError;
use super::table::{Table, Width, json, plain, sentence, time};
use super::{Exit, Place, ask};
use crate::app;
use crate::config::{SecretRef, Settings};
use crate::delivery::SourceName;
use crate::ledger::Ledger;
use crate::ledger::replays::{Chosen, NewReplay, ReplayProgress, ReplayRow, Shift};
use crate::ledger::show::filter::DeliveryFilter;
use crate::ledger::show::outlook::Fate;
use crate::outbound;
use crate::provider::{self, SourceSettings};
use crate::replay::destination::Destination;
use crate::replay::export::{Contents, Import, ImportSource, Lines, Seals};
use crate::replay::pace::Rate;
use crate::replay::plan::{Plan, plan};
use crate::replay::unreadable::{self, ReadAgain};
use crate::replay::{Ended, Origin, ReplayError, Run};
use crate::shutdown::signal;

const EXAMPLES: &str = "\
A replay publishes deliveries again with their own ids and first receipts. It can do no harm: the ledger orders changes by \
when they happened, so an old join never connects somebody who has left. Replays wait in a queue of their own, behind the \
live work, and aren't counted as accepted. Ignored deliveries keep no body and can't be replayed.

Examples:
  rollcall replay --outcome parked --dry-run          the flight plan: what each would change now
  rollcall replay --outcome parked --since 7d
  rollcall replay --delivery 72d3162e-cc78-11e3-81ab-4c9367dc0958
  rollcall replay --reason 'no source' --rate 200 --yes --wait
  rollcall replay --all --rate unlimited
  rollcall replay --unreadable --dry-run              which messages that couldn't be read can be read now
  rollcall replay --resume                            go on where the last one was interrupted
  rollcall replay list                                what was replayed, and how much of it is recorded
  rollcall replay show                                what the last one has changed

From one deployment to another:
  rollcall deliveries export --since 7d > week.jsonl
  rollcall --config staging.toml replay --from-file week.jsonl
  rollcall replay --since 1h --to https://staging.example/webhooks/acme-github --secret-env STAGING_SECRET

Exit codes: 0 done, 1 some couldn't be published, 2 usage or configuration, 3 the broker, the ledger or the URL can't be \
reached (what was published is on record: --resume), 130 interrupted.";

/// More than so many are published only after a question.
const HANDFUL: i64 = 5;
/// How often the ledger is asked how much has been recorded.
const LOOK: Duration = Duration::from_millis(200);
/// How many deliveries a plan for people lists.
const LISTED: usize = 20;

/// Publish deliveries again: those that a filter chooses, or those of an exported file
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    choice: ChoiceArgs,
    /// All deliveries of the ledger
    #[arg(long, help_heading = "Which deliveries")]
    all: bool,
    /// Messages that couldn't be read and bear a version of rollcall's, read again
    #[arg(long, conflicts_with_all = ["all", "from_file", "to"], help_heading = "Which deliveries")]
    unreadable: bool,
    /// Those of a file that `rollcall deliveries export` has written
    #[arg(long, value_name = "FILE", help_heading = "Which deliveries")]
    from_file: Option<PathBuf>,
    /// Take the lines of the file as they are, unverified
    #[arg(long, requires = "from_file", help_heading = "Which deliveries")]
    trusted: bool,
    /// Take the lines of the file for this source, whichever they name
    #[arg(long, value_name = "SOURCE", requires = "from_file", help_heading = "Which deliveries")]
    into: Option<SourceName>,
    /// Go on with an interrupted replay: the one with this id, else the last
    #[arg(long, value_name = "ID", num_args = 0..=1)]
    resume: Option<Option<Uuid>>,
    /// Only show what it would do
    #[arg(long)]
    dry_run: bool,
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
    /// How many a second, or unlimited
    #[arg(long, value_name = "RATE", default_value = "100")]
    rate: Rate,
    /// Wait until all is recorded, and say what has changed
    #[arg(long, conflicts_with = "to")]
    wait: bool,
    /// Post them to this URL as the provider would, signed anew, instead of publishing them here
    #[arg(long, value_name = "URL", help_heading = "To another deployment")]
    to: Option<Url>,
    /// The environment variable with the secret to sign with
    #[arg(long, value_name = "NAME", help_heading = "To another deployment")]
    secret_env: Option<String>,
    /// The file with the secret to sign with
    #[arg(long, value_name = "FILE", conflicts_with = "secret_env", help_heading = "To another deployment")]
    secret_file: Option<PathBuf>,
    /// Write the plan, or the summary, as a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    width: Width,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List replays, the last first
    List {
        /// How many to show at most
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..))]
        limit: i64,
        /// Write a JSON array
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        width: Width,
    },
    /// Show how far a replay has come, and what it has changed
    Show {
        /// Its id, as `rollcall replay list` shows it [default: the last]
        id: Option<Uuid>,
        /// Write a JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        width: Width,
    },
}

/// How to go on with a replay: kept in the ledger.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    /// The file; none for a choice of the ledger's deliveries.
    file: Option<FileJob>,
    /// Whether the messages that couldn't be read are read again.
    #[serde(default)]
    unreadable: bool,
    /// The URL; none for the broker.
    to: Option<ToJob>,
    rate: Rate,
}

#[derive(Debug, Serialize, Deserialize)]
struct FileJob {
    path: PathBuf,
    digest: String,
    trusted: bool,
    into: Option<SourceName>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ToJob {
    url: String,
    /// The source as which to sign: its provider and way to verify.
    source: SourceName,
}

pub(super) async fn run(args: Args, place: &Place, out: &mut (dyn Write + Send)) -> anyhow::Result<Exit> {
    let settings = place.settings()?;
    let ledger = place.ledger(&settings).await?;
    let replay = Replay { place, settings: &settings, ledger: &ledger, out };
    match args.command {
        Some(Command::List { limit, json: as_json, width }) => replay.list(limit, as_json, width).await,
        Some(Command::Show { id, json: as_json, width }) => replay.show(id, as_json, width).await,
        None => replay.go(args).await,
    }
}

struct Replay<'a> {
    place: &'a Place,
    settings: &'a Settings,
    ledger: &'a Ledger,
    out: &'a mut (dyn Write + Send),
}

/// A replay that is ready to go.
struct Ready {
    id: Uuid,
    origin: Origin,
    job: Job,
    total: i64,
    /// How many different deliveries the ledger can record of it.
    distinct: i64,
    progress: ReplayProgress,
}

impl Replay<'_> {
    async fn go(mut self, args: Args) -> anyhow::Result<Exit> {
        let ready = match args.resume {
            Some(id) => self.resume(id, &args).await?,
            None => match self.begin(&args).await? {
                Ok(ready) => ready,
                Err(exit) => return Ok(exit),
            },
        };
        self.publish(ready, &args).await
    }

    /// Plans a new replay, asks, and puts it on record. An exit if nothing is to be done.
    async fn begin(&mut self, args: &Args) -> anyhow::Result<Result<Ready, Exit>> {
        let filter = args.choice.filter(self.ledger.now().await?);
        if args.from_file.is_some() && (args.all || !filter.is_all()) {
            let why = "--from-file takes all lines of the file; choose when exporting, or edit the file";
            return Err(Misuse(why.to_owned()).into());
        }
        if let Some(file) = &args.from_file {
            return self.begin_file(file, args).await;
        }
        if args.unreadable {
            if !filter.is_all() {
                let why = "--unreadable takes all messages that can be read again, and no other choice";
                return Err(Misuse(why.to_owned()).into());
            }
            return self.begin_unreadable(args).await;
        }
        if filter.is_all() && !args.all {
            let why = "say which deliveries, such as --outcome parked or --since 7d, or --all of them; see --help";
            return Err(Misuse(why.to_owned()).into());
        }
        let reader = app::reader(&self.settings.sources)?;
        let plan = plan(self.ledger, &reader, &filter, args.rate).await?;
        if args.dry_run {
            if args.json {
                json(self.out, &plan)?;
            } else {
                show_plan(&plan, args.width, self.out)?;
                show_flights(&plan, args.width, self.out)?;
            }
            return Ok(Err(Exit::Done));
        }
        let count = plan.outlook.deliveries;
        if count == 0 {
            show_plan(&plan, args.width, &mut std::io::stderr())?;
            return Ok(Err(Exit::Done));
        }
        let to = self.to(args, &self.sources_of(&filter).await?)?;
        if !confirmed(args, count, |err| show_plan(&plan, args.width, err))? {
            writeln!(std::io::stderr(), "Nothing was published.")?;
            return Ok(Err(Exit::Done));
        }
        let job = Job { file: None, unreadable: false, to, rate: args.rate };
        let id = Uuid::now_v7();
        let total = self.record(id, &filter.to_string(), &job, Chosen::Deliveries(&filter)).await?;
        let progress = ReplayProgress::default();
        Ok(Ok(Ready { id, origin: Origin::Ledger, job, total, distinct: total, progress }))
    }

    async fn begin_file(&mut self, file: &Path, args: &Args) -> anyhow::Result<Result<Ready, Exit>> {
        let path = std::path::absolute(file)?;
        let import = self.import(args.trusted, args.into.clone());
        let (contents, import) = Lines::open(&path, import).await.map_err(unusable)?.check().await.map_err(unusable)?;
        if args.dry_run || contents.deliveries == 0 {
            if args.json {
                json(self.out, &contents)?;
            } else {
                show_contents(&contents, args, self.out)?;
            }
            return Ok(Err(Exit::Done));
        }
        let sources = contents.sources.keys().filter_map(|source| self.source_of(source)).collect::<Vec<_>>();
        let to = self.to(args, &sources)?;
        if !confirmed(args, contents.deliveries, |err| show_contents(&contents, args, err))? {
            writeln!(std::io::stderr(), "Nothing was published.")?;
            return Ok(Err(Exit::Done));
        }
        let choice = format!("{} ({} deliveries)", path.display(), contents.deliveries);
        let (digest, distinct) = (contents.digest, contents.distinct);
        let file = FileJob { path: path.clone(), digest, trusted: args.trusted, into: args.into.clone() };
        let job = Job { file: Some(file), unreadable: false, to, rate: args.rate };
        let id = Uuid::now_v7();
        let total = self.record(id, &choice, &job, Chosen::Lines(contents.deliveries)).await?;
        let origin = Origin::File(Box::new(Lines::open(&path, import).await.map_err(unusable)?));
        Ok(Ok(Ready { id, origin, job, total, distinct, progress: ReplayProgress::default() }))
    }

    async fn begin_unreadable(&mut self, args: &Args) -> anyhow::Result<Result<Ready, Exit>> {
        let plan = unreadable::plan(self.ledger).await?;
        if args.dry_run || plan.deliveries == 0 {
            if args.json {
                json(self.out, &plan)?;
            } else {
                show_read_again(&plan, args, self.out)?;
            }
            return Ok(Err(Exit::Done));
        }
        if !confirmed(args, plan.deliveries, |err| show_read_again(&plan, args, err))? {
            writeln!(std::io::stderr(), "Nothing was published.")?;
            return Ok(Err(Exit::Done));
        }
        let job = Job { file: None, unreadable: true, to: None, rate: args.rate };
        let id = Uuid::now_v7();
        let choice = format!("unreadable messages ({} deliveries)", plan.deliveries);
        let total = self.record(id, &choice, &job, Chosen::Lines(plan.deliveries)).await?;
        let progress = ReplayProgress::default();
        Ok(Ok(Ready { id, origin: Origin::Unreadable, job, total, distinct: total, progress }))
    }

    async fn record(&self, id: Uuid, choice: &str, job: &Job, what: Chosen<'_>) -> anyhow::Result<i64> {
        let by = self.place.operator();
        let job = serde_json::to_string(job)?;
        let choice = match serde_json::from_str::<Job>(&job)?.to {
            Some(to) => format!("{choice}, to {}", to.url),
            None => choice.to_owned(),
        };
        let new = NewReplay { id, started_by: &by, choice: &choice, job: &job, what };
        Ok(self.ledger.begin_replay(new).await?)
    }

    /// Finds an interrupted replay again.
    async fn resume(&mut self, id: Option<Uuid>, args: &Args) -> anyhow::Result<Ready> {
        let found = match id {
            Some(id) => self.one(Some(id)).await?,
            None => {
                let replays = self.ledger.replays(100).await?;
                let unfinished = replays.into_iter().find(|replay| replay.finished_at.is_none());
                unfinished
                    .ok_or_else(|| Misuse("no replay was interrupted; `rollcall replay list` shows all".to_owned()))?
            }
        };
        if found.finished_at.is_some() {
            return Err(Misuse(format!("replay {} has published everything already", found.replay)).into());
        }
        let job: Job = serde_json::from_str(&found.job).context("the ledger doesn't say how to go on with it")?;
        let (origin, distinct) = match &job.file {
            None if job.unreadable => (Origin::Unreadable, found.total),
            None => (Origin::Ledger, found.total),
            Some(file) => {
                let import = self.import(file.trusted, file.into.clone());
                let lines = Lines::open(&file.path, import).await.map_err(unusable)?;
                let (contents, import) = lines.check().await.map_err(unusable)?;
                if contents.digest != file.digest {
                    let why =
                        format!("{} isn't what it was when the replay began; begin a new one", file.path.display());
                    return Err(Misuse(why).into());
                }
                let lines = Lines::open(&file.path, import).await.map_err(unusable)?;
                (Origin::File(Box::new(lines)), contents.distinct)
            }
        };
        let progress = ReplayProgress { cursor: found.cursor, published: found.published, failed: found.failed };
        if !args.json {
            let done = found.published + found.failed;
            let mut err = std::io::stderr();
            let text = format!(
                "Going on with replay {} ({}): {done} of {} are done.",
                found.replay, found.choice, found.total
            );
            sentence(&mut err, 0, args.width, &text)?;
        }
        Ok(Ready { id: found.replay, origin, job, total: found.total, distinct, progress })
    }

    async fn publish(&mut self, ready: Ready, args: &Args) -> anyhow::Result<Exit> {
        let Ready { id, origin, job, total, distinct, progress } = ready;
        let (destination, tasks) = self.destination(&job, args).await?;
        let token = CancellationToken::new();
        let bar = bar(total, "published");
        let done = |progress: ReplayProgress| u64::try_from(progress.published + progress.failed).unwrap_or_default();
        bar.set_position(done(progress));
        bar.reset_eta();
        let mut told = |progress| bar.set_position(done(progress));
        let run = Run { ledger: self.ledger, id, origin, destination: &destination, rate: job.rate };
        let ended = unless_interrupted(&token, run.go(progress, &token, &mut told)).await?;
        bar.finish_and_clear();
        if let Destination::Broker(broker) = &destination {
            broker.close().await;
        }
        if let Some(tasks) = tasks {
            tasks.end(Duration::from_secs(5)).await;
        }
        let ended = match ended {
            Ok(ended) => ended,
            Err(ReplayError::Unreachable(why)) => {
                let how = format!("`rollcall replay --resume {id}` goes on when it is back");
                return Err(OutOfReach(format!("the replay stopped: {}; {how}", plain(&why))).into());
            }
            Err(error) => return Err(error.into()),
        };
        let mut waited = true;
        if args.wait && ended.finished && job.to.is_none() {
            let target = distinct - ended.progress.failed;
            waited = unless_interrupted(&token, self.wait(id, target, &token)).await??;
        }
        self.summary(id, &ended, &job, args).await?;
        Ok(match () {
            () if !ended.finished || !waited => Exit::Interrupted,
            () if ended.progress.failed > 0 => Exit::Failed,
            () => Exit::Done,
        })
    }

    /// Waits until the workers have recorded so many. False if the token is cancelled first.
    async fn wait(&self, id: Uuid, target: i64, token: &CancellationToken) -> anyhow::Result<bool> {
        let bar = bar(target, "recorded");
        loop {
            let recorded = self.ledger.replay(id).await?.map_or(0, |replay| replay.recorded);
            bar.set_position(u64::try_from(recorded).unwrap_or_default());
            if recorded >= target {
                bar.finish_and_clear();
                return Ok(true);
            }
            if token.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
                bar.finish_and_clear();
                return Ok(false);
            }
        }
    }

    async fn summary(&mut self, id: Uuid, ended: &Ended, job: &Job, args: &Args) -> anyhow::Result<()> {
        let replay = self.one(Some(id)).await?;
        let shifts = if args.wait { self.ledger.replay_shifts(id).await? } else { Vec::new() };
        if args.json {
            #[derive(Serialize)]
            struct Summary<'a> {
                #[serde(flatten)]
                replay: &'a ReplayRow,
                finished: bool,
                answers: &'a std::collections::BTreeMap<String, i64>,
                shifts: &'a [Shift],
            }
            let (finished, answers) = (ended.finished, &ended.answers);
            return json(self.out, &Summary { replay: &replay, finished, answers, shifts: &shifts });
        }
        let ReplayRow { total, published, failed, recorded, .. } = replay;
        let (out, width) = (&mut *self.out, args.width);
        if ended.finished {
            sentence(out, 0, width, &format!("Replay {id}: {published} of {total} published."))?;
        } else {
            let done = published + failed;
            sentence(out, 0, width, &format!("Interrupted: {done} of {total} are done."))?;
            sentence(out, 0, width, &format!("`rollcall replay --resume {id}` goes on behind them."))?;
        }
        let taken = if job.to.is_some() { "" } else { "published" };
        for (answer, count) in ended.answers.iter().filter(|(answer, _)| *answer != taken) {
            sentence(out, 2, width, &format!("{count:>7}  {}", plain(answer)))?;
        }
        if failed > 0 {
            sentence(out, 0, width, &format!("{failed} couldn't be published, for good."))?;
        }
        if args.wait {
            sentence(out, 0, width, &format!("{recorded} are recorded again."))?;
            show_shifts(&shifts, width, out)?;
        } else if ended.finished && job.to.is_none() {
            let text = format!(
                "The workers record them behind the live work; `rollcall replay show {id}` tells how far they are."
            );
            sentence(out, 0, width, &text)?;
        }
        Ok(())
    }

    async fn list(self, limit: i64, as_json: bool, width: Width) -> anyhow::Result<Exit> {
        let replays = self.ledger.replays(limit).await?;
        if as_json {
            json(self.out, &replays)?;
        } else if replays.is_empty() {
            writeln!(self.out, "Nothing was replayed yet.")?;
        } else {
            let mut table = Table::new(&["STARTED", "BY", "PUBLISHED", "RECORDED", "STATE"]);
            for replay in &replays {
                let state = if replay.finished_at.is_some() { "published" } else { "unfinished" };
                let cells = [
                    time(replay.started_at),
                    replay.started_by.clone(),
                    format!("{}/{}", replay.published, replay.total),
                    replay.recorded.to_string(),
                    state.to_owned(),
                ];
                table.row(cells, &format!("{} · {}", replay.replay, replay.choice));
            }
            table.write(self.out, 0, width)?;
        }
        Ok(Exit::Done)
    }

    async fn show(self, id: Option<Uuid>, as_json: bool, width: Width) -> anyhow::Result<Exit> {
        let replay = self.one(id).await?;
        let shifts = self.ledger.replay_shifts(replay.replay).await?;
        let out = self.out;
        if as_json {
            #[derive(Serialize)]
            struct Shown<'a> {
                #[serde(flatten)]
                replay: &'a ReplayRow,
                shifts: &'a [Shift],
            }
            json(out, &Shown { replay: &replay, shifts: &shifts })?;
            return Ok(Exit::Done);
        }
        sentence(out, 0, width, &format!("Replay {}", replay.replay))?;
        let finished = replay.finished_at.map_or_else(
            || format!("no; `rollcall replay --resume {}` goes on", replay.replay),
            |at| format!("at {}", time(at)),
        );
        let facts = [
            ("chosen", replay.choice.clone()),
            ("started", format!("{} by {}", time(replay.started_at), replay.started_by)),
            ("published", format!("{} of {}", replay.published, replay.total)),
            ("failed", replay.failed.to_string()),
            ("recorded", replay.recorded.to_string()),
            ("finished", finished),
        ];
        for (what, fact) in facts {
            sentence(out, 2, width, &format!("{what:<9}  {fact}"))?;
        }
        show_shifts(&shifts, width, out)?;
        Ok(Exit::Done)
    }

    async fn one(&self, id: Option<Uuid>) -> anyhow::Result<ReplayRow> {
        let found = match id {
            Some(id) => self.ledger.replay(id).await?,
            None => self.ledger.replays(1).await?.pop(),
        };
        let name = id.map_or_else(|| "the last".to_owned(), |id| id.to_string());
        let hint = "`rollcall replay list` shows all";
        Ok(found.ok_or(NameError::NotFound { what: "replay", name, hint })?)
    }

    /// What verifies imported lines. A source whose secrets aren't at hand can only be imported on trust.
    fn import(&self, trusted: bool, into: Option<SourceName>) -> Import {
        let sources = self.settings.sources.iter().map(|source| {
            let secrets: Result<Vec<_>, _> =
                source.secrets.iter().map(|secret| secret.resolve(&self.place.env)).collect();
            let seals = secrets.ok().and_then(|secrets| Seals::new(&secrets));
            (source.settings.name.clone(), ImportSource { provider: source.provider.name, seals })
        });
        Import { sources: sources.collect(), into, trusted }
    }

    fn source_of(&self, source: &str) -> Option<SourceName> {
        let source = self.settings.sources.iter().find(|known| known.settings.name.as_str() == source);
        source.map(|source| source.settings.name.clone())
    }

    /// The configured sources of what a filter chooses.
    async fn sources_of(&self, filter: &DeliveryFilter) -> anyhow::Result<Vec<SourceName>> {
        let chosen = self.ledger.sources_of(filter).await?;
        Ok(chosen.iter().filter_map(|source| self.source_of(source)).collect())
    }

    /// To which URL, and as which source to sign.
    fn to(&self, args: &Args, sources: &[SourceName]) -> anyhow::Result<Option<ToJob>> {
        let Some(url) = &args.to else {
            if args.secret_env.is_some() || args.secret_file.is_some() {
                return Err(Misuse("a secret is only needed with --to".to_owned()).into());
            }
            return Ok(None);
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                Misuse("--to can't hold user and password: the address is kept in the ledger".to_owned()).into()
            );
        }
        match sources {
            [source] => Ok(Some(ToJob { url: url.to_string(), source: source.clone() })),
            [] => Err(Misuse("none of the chosen deliveries is of a source that is configured here".to_owned()).into()),
            _ => Err(Misuse("a URL is of one source: choose the deliveries of one with --source".to_owned()).into()),
        }
    }

    async fn destination(
        &self,
        job: &Job,
        args: &Args,
    ) -> anyhow::Result<(Destination, Option<crate::shutdown::Tasks>)> {
        if let Some(to) = &job.to {
            return Ok((self.signed(to, args)?, None));
        }
        let (broker, tasks) = match self.place.rabbitmq(self.settings)? {
            Some(rabbitmq) => app::connect_rabbitmq(rabbitmq)?,
            None => app::open_embedded(&self.settings.data_dir, super::max_message(self.settings)).await?,
        };
        Ok((Destination::Broker(broker), Some(tasks)))
    }

    /// A URL, and what signs for it.
    fn signed(&self, to: &ToJob, args: &Args) -> anyhow::Result<Destination> {
        let reference = match (&args.secret_env, &args.secret_file) {
            (Some(name), _) => SecretRef::Env(name.clone()),
            (None, Some(file)) => SecretRef::File(file.clone()),
            (None, None) => return Err(Misuse("--to needs --secret-env or --secret-file".to_owned()).into()),
        };
        let secret = reference.resolve(&self.place.env)?;
        let source = self.settings.sources.iter().find(|source| source.settings.name == to.source);
        let source = source.ok_or_else(|| Misuse(format!("no source {} is configured any more", to.source)))?;
        let provider = provider::find(source.provider.name).context("no such provider")?;
        let settings: &SourceSettings = &source.settings;
        let signer = (provider.signer)(settings, secret).map_err(|error| Misuse(error.to_string()))?;
        let url: Url = to.url.parse()?;
        let client = outbound::builder(&url, Duration::from_secs(15))?.build().context("setting up the HTTP client")?;
        Ok(Destination::Http { url, client, signer })
    }
}

/// Does something until it is done. Ctrl-C and SIGTERM cancel the token, and it ends as it sees fit.
async fn unless_interrupted<T>(token: &CancellationToken, work: impl Future<Output = T>) -> std::io::Result<T> {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        done = &mut work => return Ok(done),
        signal = signal() => { signal?; }
    }
    token.cancel();
    Ok(work.await)
}

/// A file that can't be used is a wrong use; one that can't be read may be.
fn unusable(error: crate::replay::export::ExportError) -> anyhow::Error {
    Misuse(error.to_string()).into()
}

/// Whether to go ahead: a handful is no question, more is one, unless it was answered on the command line.
fn confirmed(args: &Args, count: i64, show: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> anyhow::Result<bool> {
    if args.yes || count <= HANDFUL {
        return Ok(true);
    }
    let unasked =
        format!("it would publish {count} deliveries; add --yes to do it, or --dry-run to see what they change");
    ask::confirmed(&unasked, &format!("Publish these {count} deliveries again?"), show)
}

/// Progress on standard error, if that is a terminal.
fn bar(total: i64, what: &str) -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(u64::try_from(total).ok(), target);
    let template = format!("{what} [{{bar:24}}] {{pos}}/{{len}}, {{eta}} left");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn show_plan(plan: &Plan, width: Width, out: &mut dyn Write) -> anyhow::Result<()> {
    let outlook = &plan.outlook;
    if outlook.deliveries == 0 && outlook.without_body == 0 {
        return Ok(writeln!(out, "No such deliveries.")?);
    }
    writeln!(out, "Flight plan")?;
    let at = |at: Option<crate::delivery::Timestamp>| at.map_or_else(|| "-".to_owned(), time);
    let long = plan.seconds.map_or_else(
        || "as fast as the broker takes them".to_owned(),
        |seconds| format!("about {} at {} a second", human(seconds), plan.rate),
    );
    let outcomes: Vec<String> = outlook.outcomes.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
    let mut facts = vec![
        ("deliveries", format!("{} ({})", outlook.deliveries, outcomes.join(", "))),
        ("accounts", outlook.accounts.to_string()),
        ("received", format!("{} to {}", at(outlook.first), at(outlook.last))),
        ("takes", long),
    ];
    if outlook.deliveries == 0 {
        facts = vec![("deliveries", "0".to_owned())];
    }
    if outlook.without_body > 0 {
        let why = "more were ignored, so that no body was kept, and can't be replayed";
        facts.push(("left out", format!("{} {why}", outlook.without_body)));
    }
    for (what, fact) in facts {
        sentence(out, 2, width, &format!("{what:<10}  {fact}"))?;
    }
    if outlook.deliveries == 0 {
        return Ok(());
    }
    writeln!(out, "\nWhat they would change now")?;
    for (fate, count) in &outlook.fates {
        sentence(out, 2, width, &format!("{count:>7}  {}", fate.meaning()))?;
    }
    if plan.read_again < outlook.deliveries {
        let (read, others) = (plan.read_again, outlook.deliveries - plan.read_again);
        let text = format!("{read} were read again for this; the other {others} are taken to mean what they meant.");
        sentence(out, 2, width, &text)?;
    }
    let held = outlook.fates.get(&Fate::Held).is_some_and(|held| *held > 0);
    if held {
        sentence(out, 2, width, "Held ones need `rollcall approve`; a replay doesn't say yes.")?;
    }
    Ok(())
}

fn show_flights(plan: &Plan, width: Width, out: &mut dyn Write) -> anyhow::Result<()> {
    if plan.flights.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nEach of them")?;
    let mut table = Table::new(&["ROW", "RECEIVED", "EVENT", "WOULD BE"]);
    for flight in plan.flights.iter().take(LISTED) {
        let cells = [
            format!("#{}", flight.row),
            time(flight.received_at),
            flight.event.clone(),
            flight.fate.as_str().replace('_', " "),
        ];
        table.row(cells, &flight.reading);
    }
    table.write(out, 2, width)?;
    if plan.flights.len() > LISTED {
        writeln!(out, "  and {} more; --dry-run --json has them", plan.flights.len() - LISTED)?;
    }
    Ok(())
}

fn show_contents(contents: &Contents, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    if contents.deliveries == 0 {
        return Ok(writeln!(out, "The file holds no deliveries.")?);
    }
    writeln!(out, "Flight plan")?;
    let at = |at: Option<crate::delivery::Timestamp>| at.map_or_else(|| "-".to_owned(), time);
    let sources: Vec<String> = contents.sources.iter().map(|(source, count)| format!("{count} of {source}")).collect();
    let long = args.rate.duration(contents.deliveries).map_or_else(
        || "as fast as they are taken".to_owned(),
        |took| format!("about {} at {} a second", human(took.as_secs_f64()), args.rate),
    );
    let facts = [
        ("deliveries", format!("{} ({})", contents.deliveries, sources.join(", "))),
        ("received", format!("{} to {}", at(contents.first), at(contents.last))),
        ("verified", if args.trusted { "no: taken as they are".to_owned() } else { "all, by their seals".to_owned() }),
        ("takes", long),
    ];
    for (what, fact) in facts {
        sentence(out, 2, args.width, &format!("{what:<10}  {fact}"))?;
    }
    Ok(())
}

fn show_read_again(plan: &ReadAgain, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    if plan.deliveries == 0 {
        writeln!(out, "No unreadable message can be read now.")?;
    } else {
        writeln!(out, "Can be read now")?;
        let at = |at: Option<crate::delivery::Timestamp>| at.map_or_else(|| "-".to_owned(), time);
        let sources: Vec<String> = plan.sources.iter().map(|(source, count)| format!("{count} of {source}")).collect();
        let facts = [
            ("deliveries", format!("{} ({})", plan.deliveries, sources.join(", "))),
            ("received", format!("{} to {}", at(plan.first), at(plan.last))),
        ];
        for (what, fact) in facts {
            sentence(out, 2, args.width, &format!("{what:<10}  {fact}"))?;
        }
    }
    if plan.unread.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nStill unreadable")?;
    let mut table = Table::new(&["ROW", "WHY"]);
    for unread in plan.unread.iter().take(LISTED) {
        table.row([format!("#{}", unread.row), unread.why.clone()], "");
    }
    table.write(out, 2, args.width)?;
    if plan.unread.len() > LISTED {
        writeln!(out, "  and {} more; --dry-run --json has them", plan.unread.len() - LISTED)?;
    }
    Ok(())
}

fn show_shifts(shifts: &[Shift], width: Width, out: &mut dyn Write) -> anyhow::Result<()> {
    if shifts.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nWhat became of them")?;
    let mut table = Table::new(&["BEFORE", "NOW", "DELIVERIES"]);
    for shift in shifts {
        let before = shift.before.map_or_else(|| "not here".to_owned(), |before| before.to_string());
        table.row([before, shift.now.to_string(), shift.count.to_string()], "");
    }
    Ok(table.write(out, 2, width)?)
}

/// So many seconds, in the two largest units.
fn human(seconds: f64) -> String {
    let rounded = Duration::try_from_secs_f64(seconds.ceil()).unwrap_or(Duration::MAX);
    let text = humantime::format_duration(rounded).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}
