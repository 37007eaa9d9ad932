//! `rollcall serve`: all roles in one process.

use secrecy::SecretString;

use super::{Exit, Place, say};
use crate::app::{self, FolderLock, ReadySource, Setup, StartError};
use crate::broker::rabbitmq;
use crate::config::{SecretRef, Settings};
use crate::delivery::Timestamp;
use crate::drata::{self, Client};
use crate::ledger::Ledger;
use crate::people::People;
use crate::reconcile::{self, Schedule};
use crate::shutdown::{Signal, signal};
use crate::telemetry::{logs, metrics};

/// How many accounts are worked on at once. The platform's rate limit is what bounds them in the end.
const CONCURRENCY: usize = 8;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without broker.url the deliveries go through a queue in data_dir, without ledger.url the ledger \
                        is a SQLite file there: one binary does the whole job.\n\n\
                        Example: rollcall --config /etc/rollcall/rollcall.toml serve"
)]
pub(super) struct Args {}

pub(super) async fn run(_: Args, place: &Place) -> anyhow::Result<Exit> {
    let settings = place.settings()?;
    settings.require_sources()?;
    logs::install(&settings.log, place.env.get("NO_COLOR").is_some_and(|value| !value.is_empty()))?;
    let grace = settings.ingress.settings.shutdown_grace;

    // Everything that can be wrong with the configuration is found out before a port is bound.
    let sources = settings
        .sources
        .iter()
        .map(|source| {
            let resolve = |(n, secret): (usize, &SecretRef)| {
                let key = || format!("source[{}].secrets[{n}]", source.settings.name);
                secret.resolve(&place.env).map_err(|error| settings.needed_for(&key(), error))
            };
            let secrets = source.secrets.iter().enumerate().map(resolve).collect::<Result<_, _>>()?;
            ReadySource::new(source.clone(), secrets)
        })
        .collect::<Result<Vec<_>, StartError>>()?;
    let client = client(&settings, place)?;
    let people = match &settings.people.file {
        Some(file) => People::read(file).map_err(StartError::People)?,
        None => People::default(),
    };
    let broker_url = settings.broker.url.as_ref().map(|url| url.resolve(&place.env)).transpose();
    let broker_url = broker_url.map_err(|error| settings.needed_for("broker.url", error))?;

    let _lock = FolderLock::take(&settings.data_dir)?;
    let ledger = Ledger::open(&settings.data_dir).await.map_err(StartError::Ledger)?;
    ledger.end_leases().await.map_err(StartError::Ledger)?;
    let max_message = usize::try_from(settings.broker.max_message.as_u64()).unwrap_or(usize::MAX);
    let broker = match broker_url {
        None => app::open_embedded(&settings.data_dir, max_message).await?,
        Some(url) => app::connect_rabbitmq(rabbitmq::Settings {
            prefix: settings.broker.prefix.clone(),
            max_message,
            confirm_timeout: settings.broker.confirm_timeout,
            publish_timeout: settings.broker.publish_timeout,
            declare: settings.broker.declare,
            ..rabbitmq::Settings::new(SecretString::from(url.to_string()))
        })?,
    };
    let webhooks = app::listen(settings.ingress.listen).await?;
    let admin = app::listen(settings.admin.listen).await?;

    let setup = Setup {
        sources,
        broker,
        ledger,
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
            request_timeout: settings.drata.timeout,
            concurrency: CONCURRENCY,
        },
        ingress: settings.ingress.settings.clone(),
        prefetch: settings.broker.prefetch,
        metrics: metrics::install()?,
    };
    let running = app::start(setup, webhooks, admin)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        webhooks = %running.ingress,
        admin = %running.admin,
        broker = settings.broker.url.as_ref().map_or_else(|| "embedded".to_owned(), ToString::to_string),
        data_dir = %settings.data_dir.display(),
        "ready"
    );
    for source in &settings.sources {
        say(format_args!(
            "{} ({}): POST http://{}/webhooks/{}",
            source.settings.name, source.provider.title, running.ingress, source.settings.name
        ))?;
    }
    let why = signal().await?;
    let began = Timestamp::now();
    tracing::info!(signal = ?why, "ending: finishing what is under way");
    let all_finished = running.stop(grace).await;
    let took = Timestamp::now().since(began);
    if all_finished {
        tracing::info!(?took, "ended");
    } else {
        tracing::warn!(?took, "ended before all was finished; nothing is lost, it goes on at the next start");
    }
    Ok(match why {
        Signal::Interrupt => Exit::Interrupted,
        Signal::Terminate => Exit::Done,
    })
}

fn client(settings: &Settings, place: &Place) -> Result<Client, StartError> {
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
