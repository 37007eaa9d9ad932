//! The composition root: settings become ports, ports become tasks, and everything ends in order.
//!
//! In order: stop accepting, stop consuming, finish what is under way, close the ledger, close the broker.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::broker::embedded::{self, Embedded};
use crate::broker::rabbitmq::{self, RabbitMq};
use crate::broker::{Health, SharedBroker, State};
use crate::config::{ConfigError, Source};
use crate::delivery::{SourceName, Timestamp};
use crate::drata::{self, Client};
use crate::ingress::admin::{self, HealthOf, Part};
use crate::ingress::{self, Ingress, IngressSource, Limits};
use crate::ledger::{Ledger, LedgerError};
use crate::people::{People, PeopleError};
use crate::provider::{Secret, SettingsError};
use crate::reconcile::{self, Policies, Reconciler};
use crate::shutdown::Tasks;
use crate::telemetry::metrics::{self as names, Metrics};
use crate::worker::{Reader, Worker, WorkerSource};

/// How long the worker and the reconciler may take to finish.
const FINISH: Duration = Duration::from_secs(45);
/// How often gauges and the ledger's health are brought up to date.
const OBSERVE_EVERY: Duration = Duration::from_secs(5);
/// How often the people map is looked at for changes.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Why the process can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A source's settings don't fit its provider.
    #[error("source {0}: {1}")]
    Source(SourceName, SettingsError),
    /// The people map can't be read.
    #[error("the people map: {0}")]
    People(#[from] PeopleError),
    /// `[drata] api_key` is missing.
    #[error("drata.api_key is missing; write api_key = {{ env = \"DRATA_API_KEY\" }} under [drata]")]
    NoApiKey,
    /// The client for Drata can't be built.
    #[error(transparent)]
    Client(#[from] drata::BuildError),
    /// RabbitMQ's address is wrong.
    #[error("broker.url: {0}")]
    RabbitMq(#[from] rabbitmq::SettingsError),
    /// The embedded queue can't be opened.
    #[error(transparent)]
    Embedded(#[from] embedded::OpenError),
    /// The ledger can't be opened.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The data folder can't be used.
    #[error("data_dir {folder}: {why}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        why: String,
    },
    /// A port can't be bound.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

impl StartError {
    /// Whether the configuration is to blame, and not something outside.
    #[must_use]
    pub const fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Config(_) | Self::Source(..) | Self::People(_) | Self::NoApiKey | Self::Client(_) | Self::RabbitMq(_)
        )
    }
}

/// One source with its secrets, ready to verify and to interpret.
#[derive(Debug)]
pub struct ReadySource {
    source: Source,
    ingress: IngressSource,
    worker: WorkerSource,
}

impl ReadySource {
    /// Builds what verifies and interprets a source's deliveries.
    ///
    /// # Errors
    /// If its settings or secrets don't fit its provider.
    pub fn new(source: Source, secrets: Vec<Secret>) -> Result<Self, StartError> {
        let wrong = |error| StartError::Source(source.settings.name.clone(), error);
        let ingress = IngressSource {
            name: source.settings.name.clone(),
            provider: source.provider.name,
            verifier: (source.provider.verifier)(&source.settings, secrets).map_err(wrong)?,
        };
        let worker = worker_source(&source)?;
        Ok(Self { source, ingress, worker })
    }
}

/// What interprets a source's deliveries. Needs no secret.
///
/// # Errors
/// If its settings don't fit its provider.
fn worker_source(source: &Source) -> Result<WorkerSource, StartError> {
    Ok(WorkerSource {
        provider: source.provider.name,
        host: source.settings.host.clone(),
        interpreter: (source.provider.interpreter)(&source.settings)
            .map_err(|error| StartError::Source(source.settings.name.clone(), error))?,
        roots: source.settings.roots.clone(),
        connections: source.connections.clone(),
        mass_change_limit: source.mass_change_limit.into(),
    })
}

/// A reader of these sources' deliveries. Needs no secret.
///
/// # Errors
/// If a source's settings don't fit its provider.
pub fn reader(sources: &[Source]) -> Result<Reader, StartError> {
    let sources = sources.iter().map(|source| Ok((source.settings.name.clone(), worker_source(source)?)));
    Ok(Reader::new(sources.collect::<Result<_, StartError>>()?))
}

/// The policies of all connections of these sources.
#[must_use]
pub fn policies<'a>(sources: impl IntoIterator<Item = &'a Source>) -> Policies {
    let mut policies = Policies::default();
    for source in sources {
        for connection in source.connections.all() {
            policies.add(connection.clone(), source.on_access_lost, &source.settings.roots);
        }
    }
    policies
}

/// Everything that a process with all roles is made of.
#[derive(Debug)]
pub struct Setup {
    /// The sources.
    pub sources: Vec<ReadySource>,
    /// The broker, and the tasks that keep it going: they end last.
    pub broker: (SharedBroker, Tasks),
    /// The ledger.
    pub ledger: Ledger,
    /// The platform.
    pub client: Client,
    /// The people map, and its file if it is to be watched.
    pub people: (People, Option<PathBuf>),
    /// How to reconcile.
    pub reconcile: reconcile::Settings,
    /// How to take requests.
    pub ingress: ingress::Settings,
    /// How many unacked messages the worker may have.
    pub prefetch: u16,
    /// The metrics to serve.
    pub metrics: Metrics,
}

/// A process that runs.
#[derive(Debug)]
pub struct Running {
    /// Where webhooks are taken.
    pub ingress: SocketAddr,
    /// Where `/live`, `/ready`, `/health` and `/metrics` are.
    pub admin: SocketAddr,
    /// The ledger, to look at.
    pub ledger: Ledger,
    front: Tasks,
    back: Tasks,
    broker: (SharedBroker, Tasks),
    edge: Ingress,
}

/// Starts all tasks.
///
/// # Errors
/// If a listener has no address.
pub fn start(setup: Setup, webhooks: TcpListener, admin: TcpListener) -> Result<Running, std::io::Error> {
    let (front, back) = (Tasks::new(), Tasks::new());
    let policies = policies(setup.sources.iter().map(|ready| &ready.source));
    let (people, people_file) = setup.people;
    let reconciler =
        Arc::new(Reconciler::new(setup.ledger.clone(), setup.client, people.clone(), policies, setup.reconcile));
    let mut readers = BTreeMap::new();
    let mut edges = Vec::new();
    for ready in setup.sources {
        readers.insert(ready.ingress.name.clone(), ready.worker);
        edges.push(ready.ingress);
    }
    let broker = setup.broker.0.clone();
    let edge = Ingress::new(setup.ingress.clone(), edges, broker.clone());
    let running = Running {
        ingress: webhooks.local_addr()?,
        admin: admin.local_addr()?,
        ledger: setup.ledger.clone(),
        front: front.clone(),
        back: back.clone(),
        broker: setup.broker,
        edge: edge.clone(),
    };

    let names: Vec<SourceName> = readers.keys().cloned().collect();
    let worker = Worker::new(setup.ledger.clone(), Reader::new(readers), Arc::clone(&reconciler));
    back.spawn(worker.run(broker.clone(), setup.prefetch, back.token().clone()));
    back.spawn(Arc::clone(&reconciler).run(back.token().clone()));
    if let Some(file) = people_file {
        back.spawn(watch_people(file, people, setup.ledger.clone(), Arc::clone(&reconciler), back.token().clone()));
    }
    let observed = Arc::new(Observed::new(Timestamp::now()));
    back.spawn(observe(setup.ledger, Arc::clone(&observed), back.token().clone()));
    back.spawn(setup.metrics.clone().upkeep(back.token().clone()));

    let mut parts = vec![
        Part { name: "broker".into(), health: Arc::new(move || broker.health()), needed: true },
        Part { name: "ledger".into(), health: observed.clone().part(LEDGER), needed: false },
        Part { name: "drata".into(), health: Arc::new(move || reconciler.health()), needed: false },
    ];
    parts.extend(names.into_iter().map(|name| {
        let part = format!("source:{name}");
        Part { health: observed.clone().part(&part), name: part, needed: false }
    }));
    let limits = Limits { header_timeout: Duration::from_secs(5), max_connections: 64, grace: Duration::from_secs(1) };
    let admin_tasks = back.clone();
    let admin_router = admin::router(parts, setup.metrics);
    back.spawn(async move { ingress::serve(admin, admin_router, limits, &admin_tasks).await });
    let edge_tasks = front.clone();
    front.spawn(async move { edge.serve(webhooks, &edge_tasks).await });
    Ok(running)
}

impl Running {
    /// Tells the ledger how far the ingress has come, now.
    pub async fn checkpoint(&self) {
        self.edge.checkpoint().await;
    }

    /// Ends everything in order. Returns whether all could finish.
    pub async fn stop(self, grace: Duration) -> bool {
        let accepted = self.front.end(grace + Duration::from_secs(5)).await;
        let worked = self.back.end(FINISH).await;
        self.ledger.close().await;
        self.broker.0.close().await;
        let closed = self.broker.1.end(Duration::from_secs(5)).await;
        accepted && worked && closed
    }
}

/// Opens the embedded broker of a folder.
///
/// # Errors
/// If its file can't be opened.
pub async fn open_embedded(folder: &Path, max_message: usize) -> Result<(SharedBroker, Tasks), StartError> {
    let tasks = Tasks::new();
    let settings = embedded::Settings { max_message, ..embedded::Settings::new(folder) };
    let broker: SharedBroker = Arc::new(Embedded::open(settings, &tasks).await?);
    Ok((broker, tasks))
}

/// Connects to RabbitMQ, in the background.
///
/// # Errors
/// If the address is wrong.
pub fn connect_rabbitmq(settings: rabbitmq::Settings) -> Result<(SharedBroker, Tasks), StartError> {
    let tasks = Tasks::new();
    let broker: SharedBroker = Arc::new(RabbitMq::connect(settings, &tasks)?);
    Ok((broker, tasks))
}

/// Binds a port.
///
/// # Errors
/// If it can't be bound.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}

/// The data folder, held by this process alone until dropped.
#[derive(Debug)]
pub struct FolderLock(#[expect(dead_code, reason = "the lock is held as long as the file is open")] File);

impl FolderLock {
    /// Creates the folder if need be, and takes it.
    ///
    /// # Errors
    /// If it can't be written, or another process has it.
    pub fn take(folder: &Path) -> Result<Self, StartError> {
        let wrong = |why: String| StartError::Folder { folder: folder.to_owned(), why };
        create_private(folder).map_err(|error| wrong(format!("can't be created: {error}")))?;
        let file = File::create(folder.join("lock")).map_err(|error| wrong(format!("can't be written: {error}")))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => {
                Err(wrong("another rollcall is running on it; stop that one, or set another data_dir".to_owned()))
            }
            Err(TryLockError::Error(error)) => Err(wrong(format!("can't be locked: {error}"))),
        }
    }
}

/// Bodies are other people's data: the folder is its owner's alone.
fn create_private(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// The ledger's name among the parts.
const LEDGER: &str = "ledger";

/// How parts were when they were last asked: those that can't answer at once. A part of which nothing is said is well.
#[derive(Debug)]
struct Observed {
    began: Timestamp,
    unwell: Mutex<BTreeMap<String, Health>>,
}

impl Observed {
    const fn new(began: Timestamp) -> Self {
        Self { began, unwell: Mutex::new(BTreeMap::new()) }
    }

    fn part(self: Arc<Self>, name: &str) -> HealthOf {
        let name = name.to_owned();
        Arc::new(move || {
            let unwell = self.unwell.lock().unwrap_or_else(PoisonError::into_inner);
            unwell.get(&name).cloned().unwrap_or(Health { state: State::Ok, reason: None, since: self.began })
        })
    }

    fn ledger(&self, error: &LedgerError, now: Timestamp) {
        let mut unwell = self.unwell.lock().unwrap_or_else(PoisonError::into_inner);
        let since = unwell.get(LEDGER).map_or(now, |known| known.since);
        unwell.insert(LEDGER.to_owned(), Health { state: State::Down, reason: Some(error.to_string()), since });
    }

    fn all_but(&self, blind: Vec<(String, Option<String>, Timestamp)>) {
        let blind = blind.into_iter().map(|(source, reason, since)| {
            (format!("source:{source}"), Health { state: State::Degraded, reason, since })
        });
        *self.unwell.lock().unwrap_or_else(PoisonError::into_inner) = blind.collect();
    }
}

async fn observe(ledger: Ledger, observed: Arc<Observed>, token: CancellationToken) {
    let mut tick = tokio::time::interval(OBSERVE_EVERY);
    while token.run_until_cancelled(tick.tick()).await.is_some() {
        match observe_once(&ledger).await {
            Ok(blind) => observed.all_but(blind),
            Err(error) => observed.ledger(&error, Timestamp::now()),
        }
    }
}

async fn observe_once(ledger: &Ledger) -> Result<Vec<(String, Option<String>, Timestamp)>, LedgerError> {
    let counts = ledger.counts().await?;
    let gauges = [
        (names::DUE_ACCOUNTS, counts.due),
        (names::WAITING_ACCOUNTS, counts.waiting),
        (names::PARKED_ACCOUNTS, counts.parked),
    ];
    for (name, count) in gauges {
        metrics::gauge!(name).set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
    }
    metrics::gauge!(names::OLDEST_UNAPPLIED).set(counts.oldest_owed.map_or(0.0, |owed| owed.as_secs_f64()));
    ledger.blind_sources().await
}

async fn watch_people(
    file: PathBuf,
    people: People,
    ledger: Ledger,
    reconciler: Arc<Reconciler>,
    token: CancellationToken,
) {
    let changed_at = async |file: &Path| tokio::fs::metadata(file).await.and_then(|meta| meta.modified()).ok();
    let mut known = changed_at(&file).await;
    let mut tick = tokio::time::interval(WATCH_EVERY);
    while token.run_until_cancelled(tick.tick()).await.is_some() {
        let now = changed_at(&file).await;
        if now == known {
            continue;
        }
        known = now;
        match people.read_again(&file) {
            Ok(rows) => {
                tracing::info!(rows, "the people map has changed; looking again at whoever waits");
                match ledger.wake_waiting().await {
                    Ok(_) => reconciler.wake(),
                    Err(error) => tracing::error!(%error, "can't look again at whoever waits"),
                }
            }
            Err(error) => tracing::error!(%error, "the people map can't be read; the last good one stays"),
        }
    }
}
