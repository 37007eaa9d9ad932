//! `rollcall serve`: all roles in one process, or some of them.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use super::{Exit, Place, recover};
use crate::app::{self, FolderLock, IngressRole, Preparation, RosterSchedule, Setup, StartError, Stopped, WorkerRole};
use crate::broker::spool;
use crate::config::{self, SecretRef, Settings, Source};
use crate::delivery::Timestamp;
use crate::drata::{self, Client};
use crate::ingress::IngressSource;
use crate::ledger::Ledger;
use crate::people::People;
use crate::reconcile::{self, Schedule};
use crate::shutdown::{Signal, TaskFailure, signal};
use crate::telemetry::writer::LineWriter;
use crate::telemetry::{logs, metrics};

/// How many accounts are worked on at once. The platform's rate limit is what bounds them in the end.
const CONCURRENCY: usize = 16;
/// How long one request for a roster may wait for the provider's rate limit: GitHub's is per hour.
const ROSTER_PATIENCE: Duration = Duration::from_mins(65);

/// What a process does. Left out, it does everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    /// Take webhooks and make them durable in the broker
    Ingress,
    /// Record deliveries, and bring Drata up to date
    Worker,
}

impl Role {
    const ALL: [Self; 2] = [Self::Ingress, Self::Worker];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Worker => "worker",
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without broker.url the deliveries go through a queue in data_dir, without ledger.url the ledger \
                        is a SQLite file there: one binary does the whole job. Roles apart need broker.url, and \
                        each reads only the secrets that it uses.\n\n\
                        Examples:\n  \
                        rollcall --config /etc/rollcall/rollcall.toml serve\n  \
                        rollcall serve --role ingress\n  \
                        rollcall serve --dry-run    what would be changed at Drata, without changing it"
)]
pub(super) struct Args {
    /// What this process does
    #[arg(long = "role", value_name = "ROLE", value_enum, value_delimiter = ',', default_values_t = Role::ALL)]
    roles: Vec<Role>,
    /// Change nothing at Drata: report each account that would be changed, and leave it waiting
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(args: Args, place: &Place) -> anyhow::Result<Exit> {
    let settings = place.settings()?;
    settings.require_sources()?;
    let has = |role| args.roles.contains(&role);
    if settings.broker.url.is_none() && !Role::ALL.into_iter().all(has) {
        return Err(settings.wrong("broker.url", APART).into());
    }
    logs::install(&settings.log, place.env.get("NO_COLOR").is_some_and(|value| !value.is_empty()))?;
    // Parts take their handles when they are built.
    let metrics = metrics::install()?;
    let grace = settings.ingress.settings.shutdown_grace;

    // Everything that can be wrong with the configuration is found out before a port is bound.
    let verifying = if has(Role::Ingress) { Some(ingress_sources(&settings, place)?) } else { None };
    warn_of_secrets(&settings, place, has(Role::Ingress), has(Role::Worker));
    let rosters = if has(Role::Worker) && settings.roster.enabled {
        super::roster::sources(&settings, place, ROSTER_PATIENCE)?
    } else {
        Vec::new()
    };
    let reconciling = if has(Role::Worker) { Some((client(&settings, place)?, people(&settings)?)) } else { None };
    let broker_url = place.broker_url(&settings)?;

    // SQLite and the embedded broker have one process each; an ingress alone keeps nothing in data_dir.
    let in_folder = broker_url.is_none() || (has(Role::Worker) && settings.ledger.url.is_none());
    let _lock = if in_folder { Some(FolderLock::take(&settings.data_dir)?) } else { None };
    let ledger = if has(Role::Worker) { Some(open_ledger(&settings, place, args.dry_run).await?) } else { None };
    let recoveries =
        ledger.as_ref().map(|(ledger, _)| recover::all(&settings, place, ledger)).transpose()?.unwrap_or_default();
    // The spool has a lock of its own, so that an ingress and a worker apart can share data_dir.
    let spooling = has(Role::Ingress) && settings.has_spool(Role::ALL.into_iter().all(has));
    let spool_folder = spooling.then(|| settings.spool_folder());
    let _spool_lock = spool_folder.as_deref().map(FolderLock::take).transpose()?;
    let mut broker = match place.rabbitmq(&settings)? {
        None => app::open_embedded(&settings.data_dir, super::max_message(&settings)).await?,
        Some(rabbitmq) => app::connect_rabbitmq(rabbitmq)?,
    };
    let mut spool = None;
    if spooling {
        let (before, tasks) = app::with_spool(spool_settings(&settings), broker).await;
        spool = Some(Arc::clone(&before));
        broker = (before, tasks);
    }
    let ingress = match verifying {
        None => None,
        Some(sources) => Some(IngressRole {
            sources,
            settings: settings.ingress.settings.clone(),
            listener: app::listen(settings.ingress.listen).await?,
        }),
    };
    let admin = app::listen(settings.admin.listen).await?;
    let worker = reconciling.zip(ledger).map(|((client, people), (ledger, unprepared))| WorkerRole {
        sources: settings.sources.clone(),
        ledger,
        unprepared,
        client,
        people: (people, settings.people.file.clone()),
        reconcile: reconcile::Settings {
            schedule: Schedule {
                first: settings.retry.first,
                factor: settings.retry.factor,
                max: settings.retry.max,
                attempts: settings.retry.attempts,
            },
            waiting: settings.retry.waiting,
            deadline: settings.sweep.waiting,
            second_look: settings.retry.second_look,
            request_timeout: settings.drata.timeout,
            concurrency: CONCURRENCY,
            dry_run: args.dry_run,
        },
        sweep_every: settings.sweep.every,
        prefetch: settings.broker.prefetch,
        max_batch: usize::try_from(settings.broker.max_batch.as_u64()).unwrap_or(usize::MAX),
        missing_after: settings.balance.after,
        recover: (recoveries, settings.recover.every),
        rosters: RosterSchedule { sources: rosters, every: settings.roster.every, apart: settings.roster.apart },
        seal_every: settings.evidence.seal_every,
    });
    let running = app::start(Setup { broker, spool, ingress, worker, metrics }, admin)?;
    let out = LineWriter::stdout()?;
    let roles: Vec<&str> = Role::ALL.into_iter().filter(|role| has(*role)).map(Role::as_str).collect();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        roles = roles.join(","),
        webhooks = running.ingress.map(tracing::field::display),
        admin = %running.admin,
        broker = settings.broker.url.as_ref().map_or_else(|| "embedded".to_owned(), ToString::to_string),
        ledger = has(Role::Worker).then(|| settings.ledger.url.as_ref().map_or_else(|| "SQLite".to_owned(), ToString::to_string)),
        spool = spool_folder.as_ref().map(|folder| tracing::field::display(folder.display())),
        data_dir = in_folder.then(|| tracing::field::display(settings.data_dir.display())),
        "ready"
    );
    if args.dry_run && has(Role::Worker) {
        tracing::warn!("THIS IS A DRY RUN: what would be applied is only reported, and nothing is changed at Drata");
    }
    for (source, address) in settings.sources.iter().zip(std::iter::repeat(running.ingress)) {
        let Some(address) = address else { break };
        let name = &source.settings.name;
        // Whether anybody reads it makes no difference to the service.
        let line = format!("{name} ({}): POST http://{address}/webhooks/{name}\n", source.provider.title);
        out.line(line.as_bytes());
    }
    let ended_by = tokio::select! {
        signal = signal() => EndedBy::Signal(signal?),
        failure = running.failed() => EndedBy::Failure(failure),
    };
    let began = Timestamp::now();
    match &ended_by {
        EndedBy::Signal(signal) => tracing::info!(?signal, "ending: finishing what is under way"),
        EndedBy::Failure(failure) => tracing::error!(%failure, "ending after a failure: finishing what is under way"),
    }
    let Stopped { all_finished, failed } = running.stop(grace).await;
    let took = Timestamp::now().since(began);
    if all_finished && !failed {
        tracing::info!(?took, "ended");
    } else {
        tracing::warn!(?took, "ended before all was finished; nothing is lost, it goes on at the next start");
    }
    out.flush(Duration::from_millis(100));
    logs::flush();
    Ok(ended_by.exit(failed))
}

/// Why the process ends.
enum EndedBy {
    Signal(Signal),
    Failure(TaskFailure),
}

impl EndedBy {
    /// The exit code. `failed` is whether an essential task has failed at all: it may have done so while all were ending.
    const fn exit(&self, failed: bool) -> Exit {
        match self {
            Self::Failure(_) => Exit::Failed,
            Self::Signal(_) if failed => Exit::Failed,
            Self::Signal(Signal::Interrupt) => Exit::Interrupted,
            Self::Signal(Signal::Terminate) => Exit::Done,
        }
    }
}

fn spool_settings(settings: &Settings) -> spool::Settings {
    spool::Settings {
        folder: settings.spool_folder(),
        after: settings.spool.after,
        max_bytes: settings.spool.max_bytes.as_u64(),
        max_age: settings.spool.max_age,
        min_free: settings.spool.min_free.as_u64(),
    }
}

/// Why roles apart can't do without RabbitMQ.
const APART: &str = "is missing, and a process with some of the roles needs it: the embedded broker lives in one process, \
    so that the others would never see its deliveries. Set it to RabbitMQ's address, or serve without --role";

fn ingress_sources(settings: &Settings, place: &Place) -> Result<Vec<IngressSource>, StartError> {
    let ready = |source: &Source| {
        let resolve = |(n, secret): (usize, &SecretRef)| {
            let key = || format!("source[{}].secrets[{n}]", source.settings.name);
            secret.resolve(&place.env).map_err(|error| settings.needed_for(&key(), error))
        };
        let secrets = source.secrets.iter().enumerate().map(resolve).collect::<Result<_, _>>()?;
        app::ingress_source(source, secrets)
    };
    settings.sources.iter().map(ready).collect()
}

/// Says which secrets look wrong, of those that the roles use. They are used all the same, and never shown.
fn warn_of_secrets(settings: &Settings, place: &Place, ingress: bool, worker: bool) {
    let warn = |secrets: &mut dyn Iterator<Item = &SecretRef>, suspicions: fn(&SecretString) -> Vec<&'static str>| {
        for secret in secrets {
            // One that can't be read is said where it is needed.
            let found = secret.resolve(&place.env).map(|value| suspicions(&value.value));
            for what in found.unwrap_or_default() {
                tracing::warn!("the secret {secret} {what}");
            }
        }
    };
    if ingress {
        warn(&mut settings.sources.iter().flat_map(|source| &source.secrets), config::webhook_suspicions);
    }
    if worker {
        let tokens = settings.sources.iter().filter_map(|source| source.api_token.as_ref());
        warn(&mut settings.drata.api_key.iter().chain(tokens), config::suspicions);
    }
}

fn people(settings: &Settings) -> Result<People, StartError> {
    Ok(match &settings.people.file {
        Some(file) => People::read(file)?,
        None => People::default(),
    })
}

/// Opens the ledger for a worker, and lets go of what an earlier process held. A PostgreSQL that isn't there yet is an
/// outage like any other: the process comes up without it, and goes on when it is there.
async fn open_ledger(
    settings: &Settings,
    place: &Place,
    dry_run: bool,
) -> Result<(Ledger, Option<Preparation>), StartError> {
    let preparation = |failed| Preparation { migrate: settings.ledger.migrate, dry_run, failed };
    let Some(url) = place.ledger_url(settings)? else {
        let ledger = Ledger::open(&settings.data_dir).await?;
        ledger.end_leases().await?;
        app::prepare(&ledger, true, dry_run).await?;
        return Ok((ledger, None));
    };
    // Other workers may be at work there, under leases of their own.
    let ledger = Ledger::lazy(&url, settings.ledger.timeout)?;
    match app::prepare(&ledger, settings.ledger.migrate, dry_run).await {
        Ok(()) => Ok((ledger, None)),
        Err(error) if error.is_transient() => Ok((ledger, Some(preparation(error)))),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn client(settings: &Settings, place: &Place) -> Result<Client, StartError> {
    let key = settings.drata.api_key.as_ref().ok_or(StartError::NoApiKey)?;
    let key = key.resolve(&place.env).map_err(|error| settings.needed_for("drata.api_key", error))?;
    Ok(Client::new(
        drata::Settings {
            requests_per_minute: settings.drata.requests_per_minute,
            timeout: settings.drata.timeout,
            ..drata::Settings::new(settings.drata.base_url.clone())
        },
        key.value,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shutdown::HowFailed;

    #[test]
    fn a_failure_is_never_a_success() {
        let failure = || EndedBy::Failure(TaskFailure { task: "worker".into(), how: HowFailed::Ended });
        assert_eq!([failure().exit(true), failure().exit(false)], [Exit::Failed; 2]);
        assert_eq!(EndedBy::Signal(Signal::Terminate).exit(false), Exit::Done);
        assert_eq!(EndedBy::Signal(Signal::Interrupt).exit(false), Exit::Interrupted);
        assert_eq!(EndedBy::Signal(Signal::Terminate).exit(true), Exit::Failed);
    }
}
