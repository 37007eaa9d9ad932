//! The composition root: settings become ports, ports become tasks, and everything ends in order.
//!
//! In order: stop accepting, stop consuming, finish what is under way, close the ledger, close the broker.

mod observe;

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::observe::{Observed, Observer};
use crate::api::{self, Api};
use crate::backoff::Backoff;
use crate::broker::embedded::{self, Embedded};
use crate::broker::rabbitmq::{self, RabbitMq};
use crate::broker::spool::{self, Spool};
use crate::broker::{Health, SharedBroker, State};
use crate::config::{ConfigError, Source};
use crate::delivery::{SourceName, Timestamp};
use crate::drata::{self, Client};
use crate::files;
use crate::ingress::admin::{self, Needed, Part};
use crate::ingress::{self, Ingress, IngressSource};
use crate::jobs::{self, Job, Jobs};
use crate::ledger::health::Activity;
use crate::ledger::{Ledger, LedgerError};
use crate::people::People;
use crate::people::file::PeopleError;
use crate::provider::{Secret, SettingsError};
use crate::reconcile::{self, Policies, Reconciler};
use crate::recover::{self, Recovery};
use crate::roster::{self, RosterSource, Rosters};
use crate::shutdown::{TaskFailure, TaskName, Tasks};
use crate::sweep::Sweep;
use crate::telemetry::logs;
use crate::telemetry::metrics::Metrics;
use crate::worker::{Reader, Recording, Worker, WorkerSource};

/// How long the worker and the reconciler may take to finish.
const FINISH: Duration = Duration::from_secs(45);
/// How long to wait between tries to reach a ledger that wasn't there at the start.
const LEDGER_AGAIN: Backoff = Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(15) };
/// The names of two parts that stand in for each other.
const BROKER: &str = "broker";
const SPOOL: &str = "spool";
/// The name of the part that says whether accounts are worked on.
const RECONCILE: &str = "reconcile";
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
    /// A source's provider's API can't be asked.
    #[error("source {0}: {1}")]
    Api(SourceName, api::BuildError),
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
            Self::Config(_)
                | Self::Source(..)
                | Self::People(_)
                | Self::NoApiKey
                | Self::Client(_)
                | Self::Api(..)
                | Self::RabbitMq(_)
                | Self::Ledger(LedgerError::Address)
        )
    }
}

/// What verifies a source's deliveries.
///
/// # Errors
/// If its settings or secrets don't fit its provider.
pub fn ingress_source(source: &Source, secrets: Vec<Secret>) -> Result<IngressSource, StartError> {
    Ok(IngressSource {
        name: source.settings.name.clone(),
        provider: source.provider.name,
        allow_from: source.allow_from.clone(),
        encodings: source.provider.encodings,
        verifier: (source.provider.verifier)(&source.settings, secrets)
            .map_err(|error| StartError::Source(source.settings.name.clone(), error))?,
    })
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

/// The way to a source's provider's API, with the source's token; none if the provider has no API that is asked.
///
/// # Errors
/// If the address or the token can't be used.
pub fn api(source: &Source, token: &Secret, patience: Duration) -> Result<Option<Api>, StartError> {
    let Some(description) = &source.provider.api else { return Ok(None) };
    Api::new(description, &source.settings.host, source.api_url.as_ref(), &token.value, patience)
        .map(Some)
        .map_err(|error| StartError::Api(source.settings.name.clone(), error))
}

/// A reader of these sources' deliveries. Needs no secret.
///
/// # Errors
/// If a source's settings don't fit its provider.
pub fn reader(sources: &[Source]) -> Result<Reader, StartError> {
    let sources = sources.iter().map(|source| Ok((source.settings.name.clone(), worker_source(source)?)));
    Ok(Reader::new(sources.collect::<Result<_, StartError>>()?))
}

/// What reads a source's rosters. None if its provider has none, or the source no token.
///
/// # Errors
/// If the address of the API or the token can't be used.
pub fn roster_source(
    source: &Source,
    token: Option<&Secret>,
    patience: Duration,
) -> Result<Option<RosterSource>, StartError> {
    let Some((build, token)) = source.provider.roster.zip(token) else { return Ok(None) };
    let read_by = |api| RosterSource {
        name: source.settings.name.clone(),
        provider: source.provider.name,
        host: source.settings.host.clone(),
        api,
        roster: build(&source.settings),
        roots: source.settings.roots.clone(),
        connections: source.connections.clone(),
        mass_change_limit: source.mass_change_limit,
    };
    Ok(api(source, token, patience)?.map(read_by))
}

/// The policies of all connections of these sources.
#[must_use]
pub fn policies<'a>(sources: impl IntoIterator<Item = &'a Source>) -> Policies {
    let mut policies = Policies::default();
    for source in sources {
        for connection in source.connections.all() {
            policies.add(connection.clone(), source.on_access_lost, source.drift, &source.settings.roots);
        }
    }
    policies
}

/// Everything that a process is made of. It has at least one role.
#[derive(Debug)]
pub struct Setup {
    /// The broker, and the tasks that keep it going: they end last.
    pub broker: (SharedBroker, Tasks),
    /// The spool, if the broker is one.
    pub spool: Option<Arc<Spool>>,
    /// What it needs to take webhooks, if that is among its roles.
    pub ingress: Option<IngressRole>,
    /// What it needs to record deliveries and to reconcile, if that is among its roles.
    pub worker: Option<WorkerRole>,
    /// The metrics to serve.
    pub metrics: Metrics,
}

/// The role that takes webhooks. It holds the webhook secrets, and knows neither ledger nor platform.
#[derive(Debug)]
pub struct IngressRole {
    /// What verifies each source's deliveries.
    pub sources: Vec<IngressSource>,
    /// How to take requests.
    pub settings: ingress::Settings,
    /// Where webhooks come in.
    pub listener: TcpListener,
}

/// The role that records deliveries and reconciles accounts. It holds the platform's key, and no webhook secret.
#[derive(Debug)]
pub struct WorkerRole {
    /// The sources whose deliveries it reads.
    pub sources: Vec<Source>,
    /// The ledger.
    pub ledger: Ledger,
    /// What is still to be done before it can be worked with, if it couldn't be done yet.
    pub unprepared: Option<Preparation>,
    /// The platform.
    pub client: Client,
    /// The people map, and its file if it is to be watched.
    pub people: (People, Option<PathBuf>),
    /// How to reconcile.
    pub reconcile: reconcile::Settings,
    /// How long after a sweep the next one is; none for never.
    pub sweep_every: Option<Duration>,
    /// How many unacked messages it may have.
    pub prefetch: u16,
    /// How many bytes of bodies it decodes at a time.
    pub max_batch: usize,
    /// How long after a seal over the ledger's history the next one is made.
    pub seal_every: Duration,
    /// How long an accepted delivery may be on its way before it is missing.
    pub missing_after: Duration,
    /// What can be recovered of which sources, and how often that is done.
    pub recover: (Vec<Recovery>, Duration),
    /// The rosters to read on a schedule.
    pub rosters: RosterSchedule,
}

/// Rosters that are read on a schedule.
#[derive(Debug)]
pub struct RosterSchedule {
    /// The sources whose rosters these are.
    pub sources: Vec<RosterSource>,
    /// How long after a reading the next one begins.
    pub every: Duration,
    /// How far apart the two readings must lie that a difference needs.
    pub apart: Duration,
}

/// What a ledger needs before it can be worked with; see [`prepare`].
#[derive(Debug)]
pub struct Preparation {
    /// Whether to bring its tables up to date, or to wait until they are.
    pub migrate: bool,
    /// Whether this is a dry run.
    pub dry_run: bool,
    /// What the first try failed with.
    pub failed: LedgerError,
}

/// Makes a ledger ready to be worked with: its tables are as they should be, and unless this is a dry run too, what an
/// earlier dry run would have applied is due.
///
/// # Errors
/// If the database can't be reached or fails, or its tables can't be brought up to date.
pub async fn prepare(ledger: &Ledger, migrate: bool, dry_run: bool) -> Result<(), LedgerError> {
    ledger.prepare(migrate).await?;
    if !dry_run {
        let woken = ledger.end_dry_run().await?;
        if woken > 0 {
            tracing::info!(accounts = woken, "an earlier run was a dry run; what it would have applied is due now");
        }
    }
    Ok(())
}

/// A process that runs.
#[derive(Debug)]
pub struct Running {
    /// Where webhooks are taken, if they are.
    pub ingress: Option<SocketAddr>,
    /// Where `/live`, `/ready`, `/health` and `/metrics` are.
    pub admin: SocketAddr,
    ledger: Option<Ledger>,
    front: Tasks,
    back: Tasks,
    broker: (SharedBroker, Tasks),
    edge: Option<Ingress>,
}

/// Starts all tasks.
///
/// # Errors
/// If a listener has no address, or a source's settings don't fit its provider.
pub fn start(setup: Setup, admin: TcpListener) -> anyhow::Result<Running> {
    let (front, back) = (Tasks::new(), Tasks::new());
    let mut running = Running {
        ingress: None,
        admin: admin.local_addr()?,
        ledger: None,
        front: front.clone(),
        back: back.clone(),
        broker: setup.broker,
        edge: None,
    };
    let broker = running.broker.0.clone();
    let asked = broker.clone();
    let needed = if setup.spool.is_some() { Needed::Unless(SPOOL) } else { Needed::Yes };
    let mut parts = vec![Part { name: BROKER.into(), health: Arc::new(move || asked.health()), needed }];
    if let Some(spool) = setup.spool {
        let health = Arc::new(move || spool.spool_health());
        parts.push(Part { name: SPOOL.into(), health, needed: Needed::Unless(BROKER) });
    }
    if let Some(role) = setup.worker {
        running.ledger = Some(role.ledger.clone());
        // A process that also takes webhooks stays in its load balancer while the ledger is down: it can make them durable.
        parts.extend(start_worker(role, broker.clone(), setup.ingress.is_none(), &back)?);
    }
    let taking = setup.ingress.map(|role| (Ingress::new(role.settings, role.sources, broker), role.listener));
    parts.extend(taking.iter().flat_map(|(edge, _)| edge.parts()));
    back.essential("metrics upkeep", setup.metrics.clone().upkeep(back.token().clone()));
    back.essential("log summary", logs::summarize(back.token().clone()));
    let admin_tasks = back.clone();
    let admin_router = admin::router(parts, setup.metrics);
    back.essential("admin listener", async move {
        ingress::serve(admin, admin_router, admin::limits(), &admin_tasks).await
    });
    if let Some((edge, listener)) = taking {
        running.ingress = Some(listener.local_addr()?);
        running.edge = Some(edge.clone());
        let edge_tasks = front.clone();
        front.essential("ingress", async move { edge.serve(listener, &edge_tasks).await });
    }
    Ok(running)
}

/// Starts the worker's tasks, and returns its parts for `/health`.
fn start_worker(role: WorkerRole, broker: SharedBroker, alone: bool, back: &Tasks) -> Result<Vec<Part>, StartError> {
    let (people, people_file) = role.people;
    let dry_run = role.reconcile.dry_run;
    let sources: Vec<SourceName> = role.sources.iter().map(|source| source.settings.name.clone()).collect();
    let policies = policies(&role.sources);
    let roster_policies = Arc::new(policies.clone());
    let sweep = Sweep {
        ledger: role.ledger.clone(),
        client: role.client.clone(),
        people: people.clone(),
        policies: policies.clone(),
        deadline: role.reconcile.deadline,
    };
    let reconciler =
        Arc::new(Reconciler::new(role.ledger.clone(), role.client, people.clone(), policies, role.reconcile));
    let worker = Worker::new(role.ledger.clone(), reader(&role.sources)?, Arc::clone(&reconciler), role.max_batch);
    let recording = worker.recording();
    let (ledger_part, reporting) = (observe::ledger_part(role.ledger.clone(), Timestamp::now()), back.token().clone());
    let reported = Arc::clone(&recording);
    back.essential("recording gauges", async move { reported.report(&reporting).await });
    let observed = Arc::new(Observed::new(Timestamp::now()));
    let observer = Observer::new(
        role.ledger.clone(),
        broker.clone(),
        sources.clone(),
        role.rosters.sources.iter().map(|source| source.name.to_string()).collect(),
        role.missing_after,
        Arc::clone(&observed),
    );
    let sealed = role.ledger.clone();
    let ready = CancellationToken::new();
    match role.unprepared {
        None => ready.cancel(),
        Some(preparation) => {
            role.ledger.note(Activity::Preparing, Some(&preparation.failed));
            recording.paused(&preparation.failed);
            let preparing = prepare_at_last(role.ledger.clone(), preparation, Arc::clone(&recording), ready.clone());
            back.essential_once("ledger preparation", back.token().clone().run_until_cancelled_owned(preparing));
        }
    }
    let work = When { ready: &ready, tasks: back };
    let jobs = Jobs::new(Timestamp::now());
    work.essential("worker", worker.run(broker, role.prefetch, back.token().clone()));
    work.essential("reconciler", Arc::clone(&reconciler).run(back.token().clone()));
    work.essential("heartbeat", Arc::clone(&reconciler).attend(back.token().clone()));
    if let Some(every) = role.sweep_every {
        let job = jobs.add("sweep", every);
        work.job(&job, sweep_again(sweep, job.clone(), Arc::clone(&reconciler), back.token().clone()));
    }
    let RosterSchedule { sources: roster_sources, every, apart } = role.rosters;
    let rosters = Rosters {
        ledger: role.ledger.clone(),
        reader: Arc::new(reader(&role.sources)?),
        policies: roster_policies,
        apart,
    };
    for source in roster_sources {
        let (rosters, reconciler, token) = (rosters.clone(), Arc::clone(&reconciler), back.token().clone());
        let job = jobs.add(format!("roster:{}", source.name), every);
        let running = job.clone();
        work.job(&job, async move { roster::run(rosters, source, running, &token, move || reconciler.wake()).await });
    }
    if let Some(file) = people_file {
        let watching = watch_people(file, people, role.ledger.clone(), Arc::clone(&reconciler), back.token().clone());
        work.essential("people watcher", watching);
    }
    work.essential("observer", observer.run(back.token().clone()));
    let (recoveries, every) = role.recover;
    for recovery in recoveries {
        if recover::schedule::knows_its_hook(&recovery) {
            let job = jobs.add(format!("{}{}", recover::schedule::JOB, recovery.source), every);
            work.job(&job, recover::schedule::run(recovery, job.clone(), back.token().clone()));
        }
    }
    let job = jobs.add("seal", role.seal_every);
    work.job(&job, seal(sealed, job.clone(), back.token().clone()));
    work.essential("job monitor", jobs.clone().watch(role.ledger, back.token().clone()));

    let needed = if alone { Needed::Yes } else { Needed::No };
    let progress = Arc::clone(&reconciler);
    let mut parts = vec![
        Part { name: observe::LEDGER.into(), health: ledger_part, needed },
        Part { name: observe::RECORDING.into(), health: Arc::new(move || recording.health()), needed },
        Part { name: observe::BALANCE.into(), health: observed.clone().part(observe::BALANCE), needed: Needed::No },
        Part { name: observe::DRIFT.into(), health: observed.clone().part(observe::DRIFT), needed: Needed::No },
        Part { name: RECONCILE.into(), health: Arc::new(move || progress.progress()), needed: Needed::No },
        Part { name: "drata".into(), health: Arc::new(move || reconciler.health()), needed: Needed::No },
    ];
    parts.extend(jobs.all().into_iter().map(|job| {
        let name = format!("job:{}", job.name());
        Part { name, health: Arc::new(move || job.health()), needed: Needed::No }
    }));
    if dry_run {
        let reason =
            "this is a dry run: what would be applied is only reported, and nothing is changed at the platform";
        let health = Health { state: State::Degraded, reason: Some(reason.to_owned()), since: Timestamp::now() };
        parts.push(Part { name: "dry-run".into(), health: Arc::new(move || health.clone()), needed: Needed::No });
    }
    parts.extend(sources.into_iter().map(|name| {
        let part = format!("source:{name}");
        Part { health: observed.clone().part(&part), name: part, needed: Needed::No }
    }));
    Ok(parts)
}

/// Starts essential tasks that begin once the ledger is ready, and never if the process ends before that.
struct When<'a> {
    ready: &'a CancellationToken,
    tasks: &'a Tasks,
}

impl When<'_> {
    fn job(&self, job: &Job, task: impl Future<Output = ()> + Send + 'static) {
        self.essential(format!("job {}", job.name()), task);
    }

    fn essential(&self, name: impl Into<TaskName>, task: impl Future<Output = ()> + Send + 'static) {
        let (ready, token) = (self.ready.clone(), self.tasks.token().clone());
        self.tasks.essential(name, async move {
            if token.run_until_cancelled(ready.cancelled()).await.is_some() {
                task.await;
            }
        });
    }
}

/// Prepares a ledger that couldn't be yet, however long it takes, and says how it stands meanwhile.
async fn prepare_at_last(
    ledger: Ledger,
    preparation: Preparation,
    recording: Arc<Recording>,
    ready: CancellationToken,
) {
    let mut failed = preparation.failed;
    for failures in 0.. {
        tracing::warn!(error = %failed, "nothing is recorded before the ledger is there; trying again");
        ledger.note(Activity::Preparing, Some(&failed));
        recording.paused(&failed);
        tokio::time::sleep(LEDGER_AGAIN.pause(failures, fastrand::f64())).await;
        match prepare(&ledger, preparation.migrate, preparation.dry_run).await {
            Ok(()) => break,
            Err(error) => failed = error,
        }
    }
    tracing::info!("the ledger is there");
    ledger.note(Activity::Preparing, None);
    recording.resume();
    ready.cancel();
}

impl Running {
    /// Tells the ledger how far the ingress has come, now.
    pub async fn checkpoint(&self) {
        if let Some(edge) = &self.edge {
            edge.checkpoint().await;
        }
    }

    /// Waits until an essential task fails: then the process must end. Never returns if none does.
    pub async fn failed(&self) -> TaskFailure {
        tokio::select! {
            failure = self.front.failed() => failure,
            failure = self.back.failed() => failure,
            failure = self.broker.1.failed() => failure,
        }
    }

    /// Ends everything in order.
    pub async fn stop(self, grace: Duration) -> Stopped {
        let accepted = self.front.end(grace + Duration::from_secs(5)).await;
        let worked = self.back.end(FINISH).await;
        if let Some(ledger) = &self.ledger {
            ledger.close().await;
        }
        self.broker.0.close().await;
        let closed = self.broker.1.end(Duration::from_secs(5)).await;
        let failed = [&self.front, &self.back, &self.broker.1].into_iter().any(|tasks| tasks.failure().is_some());
        Stopped { all_finished: accepted && worked && closed, failed }
    }
}

/// How everything has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Stopped {
    /// Whether all that was under way could finish.
    pub all_finished: bool,
    /// Whether an essential task has failed, before the end or in it.
    pub failed: bool,
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

/// Puts a spool before a broker: what that one doesn't take waits on the disk.
pub async fn with_spool(settings: spool::Settings, (broker, tasks): (SharedBroker, Tasks)) -> (Arc<Spool>, Tasks) {
    (Arc::new(Spool::start(settings, broker, &tasks).await), tasks)
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
        files::create_folder(folder).map_err(|error| wrong(format!("can't be created: {error}")))?;
        let file =
            files::open_private(&folder.join("lock")).map_err(|error| wrong(format!("can't be written: {error}")))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => {
                Err(wrong("another rollcall is running on it; stop that one, or set another data_dir".to_owned()))
            }
            Err(TryLockError::Error(error)) => Err(wrong(format!("can't be locked: {error}"))),
        }
    }
}

/// Sweeps on the schedule, as one of all workers.
async fn sweep_again(sweep: Sweep, job: Job, reconciler: Arc<Reconciler>, token: CancellationToken) {
    let ledger = sweep.ledger.clone();
    let work = move || {
        let (sweep, reconciler) = (sweep.clone(), Arc::clone(&reconciler));
        // Boxed, since the compiler can't see of a borrowing closure that its futures may change threads.
        async move {
            let report = sweep.patiently().await;
            reconciler.wake();
            report
        }
        .boxed()
    };
    jobs::run(&ledger, &job, &token, work).await;
}

/// Seals the ledger's history on a schedule, whichever worker comes first.
async fn seal(ledger: Ledger, job: Job, token: CancellationToken) {
    let sealed = ledger.clone();
    let once = move || {
        let ledger = sealed.clone();
        async move { ledger.seal().await }.boxed()
    };
    jobs::run(&ledger, &job, &token, once).await;
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
                match ledger.in_time(ledger.wake_waiting()).await {
                    Ok(_) => reconciler.wake(),
                    Err(error) => tracing::error!(%error, "can't look again at whoever waits"),
                }
            }
            Err(error) => tracing::error!(%error, "the people map can't be read; the last good one stays"),
        }
    }
}

#[cfg(test)]
mod tests;
