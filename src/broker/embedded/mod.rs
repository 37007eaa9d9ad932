//! The embedded broker: the port's promises in SQLite files, for one machine: one for work, one for replays.
//!
//! It owns the files. In each a [`writer`] commits all concurrent publishes and acks together, so that they share one
//! fsync; a [`feed`] hands messages out in the order in which they were published, replays when no work waits. Two files,
//! because SQLite has one writer at a time: a command that publishes thousands of replays doesn't keep a webhook waiting.
//! It must not know what a delivery means. Only one process may consume a file at a time (whoever runs rollcall locks the
//! folder); any number may publish to it.

mod feed;
mod store;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Connection as _;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::feed::{EmbeddedConsumer, Feed, Share};
pub(super) use self::store::Row as Stored;
use self::writer::{Command, Commits};
use crate::broker::{AckTag, Broker, Consumer, Health, Item, Lane, PublishError, State, fail};
use crate::delivery::{Checkpoint, Delivery, Timestamp};
use crate::files;
use crate::shutdown::Tasks;

/// How many bytes of bodies are in memory at the most, of messages that are ready or handed out: a few large ones, and not
/// all of them. The last of them may go over it.
pub const MOST_HELD: usize = 32 * 1024 * 1024;

/// How long closing may take.
const CLOSE: Duration = Duration::from_secs(5);
/// How many replays a consumer takes at a time: few enough not to delay work that comes meanwhile.
const REPLAY_PREFETCH: u16 = 64;

/// Where the queue is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What it is called in logs and errors.
    pub name: &'static str,
    /// The SQLite file. It and its folder are created if need be.
    pub file: PathBuf,
    /// The file for replays; without one they are published as work.
    pub replays: Option<PathBuf>,
    /// The largest body to take, in bytes.
    pub max_message: usize,
    /// How long to wait for another process that is writing to the file.
    pub busy_timeout: Duration,
    /// Whether a message that may have been handed out before a crash is marked so. It takes a write ahead.
    pub marks_redelivered: bool,
}

impl Settings {
    /// The defaults for a queue in `folder`.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        Self {
            name: "the embedded broker",
            file: folder.join("queue.db"),
            replays: Some(folder.join("replays.db")),
            max_message: 16 * 1024 * 1024,
            busy_timeout: Duration::from_secs(5),
            marks_redelivered: true,
        }
    }
}

/// The file can't be used.
#[derive(Debug, thiserror::Error)]
#[error("can't open the queue {file}: {why}", file = file.display())]
pub struct OpenError {
    file: PathBuf,
    why: String,
}

/// The embedded broker. Dropping it closes the files.
#[derive(Debug)]
pub struct Embedded {
    max_message: usize,
    work: Queue,
    replays: Option<Queue>,
    ready: Arc<Notify>,
    closing: CancellationToken,
    _close_on_drop: DropGuard,
}

/// One file, and the tasks that write and read it.
#[derive(Debug)]
struct Queue {
    settings: Settings,
    commands: mpsc::UnboundedSender<Command>,
    feed: Arc<Feed>,
    writing: Condition,
    reading: Condition,
    commits: Commits,
}

impl Queue {
    /// Opens the file of `settings` and starts its writer and its reader.
    async fn open(
        lane: Lane,
        settings: Settings,
        ready: &Arc<Notify>,
        closing: &CancellationToken,
        tasks: &Tasks,
    ) -> Result<Self, OpenError> {
        let failed = |why: String| OpenError { file: settings.file.clone(), why };
        files::prepare_database(&settings.file).map_err(|error| failed(error.to_string()))?;
        let mut connection =
            store::connect(&settings.file, settings.busy_timeout).await.map_err(|error| failed(error.to_string()))?;
        let handed_out = store::prepare(&mut connection).await.map_err(|error| failed(error.to_string()))?;

        let (commands, receiver) = mpsc::unbounded_channel();
        let feed = Arc::new(Feed::new(lane, handed_out, ready.clone()));
        let (writing, reading) = (Condition::new(settings.name), Condition::new(settings.name));
        let commits = Commits::default();
        let tasks = tasks.ending_on(closing.clone());
        let writer = writer::Writer::new(settings.clone(), connection, feed.clone(), writing.clone(), commits.clone());
        tasks.essential(format!("writer of {}", settings.name), writer::run(writer, receiver, closing.clone()));
        let reader = feed::run(feed.clone(), settings.clone(), commands.clone(), reading.clone(), closing.clone());
        tasks.essential(format!("reader of {}", settings.name), reader);
        Ok(Self { settings, commands, feed, writing, reading, commits })
    }

    /// Tells of every message that is stored, in order.
    async fn each(&self, tell: impl FnMut(Stored)) -> Result<(), OpenError> {
        let failed = |error: sqlx::Error| OpenError { file: self.settings.file.clone(), why: error.to_string() };
        let mut connection = store::connect(&self.settings.file, self.settings.busy_timeout).await.map_err(failed)?;
        store::each(&mut connection, tell).await.map_err(failed)?;
        connection.close().await.map_err(failed)
    }

    /// Puts what was set aside back into its places. Only before anybody consumes.
    async fn put_back(&self) -> Result<u64, OpenError> {
        let failed = |error: sqlx::Error| OpenError { file: self.settings.file.clone(), why: error.to_string() };
        let connection = store::connect(&self.settings.file, self.settings.busy_timeout).await.map_err(failed)?;
        let (connection, back) =
            store::transaction(connection, async |file| store::put_back(file).await).await.map_err(failed)?;
        connection.close().await.map_err(failed)?;
        Ok(back)
    }

    /// Takes a message that was handed out from the queue and keeps it apart, until it is put back.
    fn set_aside(&self, tag: AckTag, why: &str) {
        for id in self.feed.done(tag.session, &[tag]) {
            // Once the queue is closed, it stays where it is, and is set aside another time.
            let _ = self.commands.send(Command::Aside(id, why.to_owned()));
        }
    }

    async fn write(&self, item: Item) -> Result<(), PublishError> {
        let began = Instant::now();
        let (answer, answered) = oneshot::channel();
        let closed = || fail("closed", PublishError::Unavailable("the broker was closed".to_owned()));
        self.commands.send(Command::Publish(item, answer)).map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?.map_err(|why| fail("not_stored", PublishError::Unavailable(why)))?;
        metrics::histogram!("rollcall_broker_publish_seconds").record(began.elapsed());
        Ok(())
    }

    fn health(&self) -> Health {
        let writing = self.writing.health();
        if writing.state == State::Ok { self.reading.health() } else { writing }
    }
}

impl Embedded {
    /// Opens the files and starts their writers and readers.
    ///
    /// # Errors
    /// If a file can't be created, opened or written.
    pub async fn open(settings: Settings, tasks: &Tasks) -> Result<Self, OpenError> {
        let closing = tasks.token().child_token();
        let close_on_drop = closing.clone().drop_guard();
        let ready = Arc::new(Notify::new());
        let work = Queue::open(Lane::Work, settings.clone(), &ready, &closing, tasks).await?;
        let replays = match settings.replays.clone() {
            Some(file) => {
                let settings = Settings { file, ..settings.clone() };
                Some(Queue::open(Lane::Replay, settings, &ready, &closing, tasks).await?)
            }
            None => None,
        };
        Ok(Self { max_message: settings.max_message, work, replays, ready, closing, _close_on_drop: close_on_drop })
    }

    /// How many transactions have been committed for work: fewer than publishes and acks, which share them.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.work.commits.count()
    }

    /// Tells of every message that is stored as work, in order.
    pub(super) async fn each(&self, tell: impl FnMut(Stored)) -> Result<(), OpenError> {
        self.work.each(tell).await
    }

    /// Puts what was set aside back into its places. Only before anybody consumes.
    pub(super) async fn put_back(&self) -> Result<u64, OpenError> {
        self.work.put_back().await
    }

    /// Takes a message that was handed out from the queue and keeps it apart, until it is put back.
    pub(super) fn set_aside(&self, tag: AckTag, why: &str) {
        self.work.set_aside(tag, why);
    }
}

#[async_trait]
impl Broker for Embedded {
    async fn publish(&self, delivery: &Delivery) -> Result<(), PublishError> {
        let (size, limit) = (delivery.body.len(), self.max_message);
        if size > limit {
            return Err(fail("too_large", PublishError::TooLarge { size, limit }));
        }
        let replays = self.replays.as_ref().filter(|_| delivery.replay.is_some());
        replays.unwrap_or(&self.work).write(Item::Delivery(delivery.clone())).await
    }

    async fn checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), PublishError> {
        self.work.write(Item::Checkpoint(checkpoint.clone())).await
    }

    async fn consume(&self, prefetch: u16) -> Box<dyn Consumer> {
        let share = |queue: &Queue, prefetch| Share::new(&queue.feed, &queue.commands, prefetch);
        let replays = self.replays.iter().map(|queue| share(queue, prefetch.min(REPLAY_PREFETCH)));
        Box::new(EmbeddedConsumer {
            shares: std::iter::once(share(&self.work, prefetch)).chain(replays).collect(),
            ready: self.ready.clone(),
            closing: self.closing.clone(),
        })
    }

    fn health(&self) -> Health {
        let work = self.work.health();
        match &self.replays {
            Some(replays) if work.state == State::Ok => replays.health(),
            _ => work,
        }
    }

    async fn close(&self) {
        self.closing.cancel();
        let closed = async {
            for queue in std::iter::once(&self.work).chain(&self.replays) {
                queue.commands.closed().await;
            }
        };
        let _ = timeout(CLOSE, closed).await;
    }
}

/// Whether one side of the file works, as its task last saw it.
#[derive(Clone, Debug)]
struct Condition {
    name: &'static str,
    health: Arc<Mutex<Health>>,
}

impl Condition {
    fn new(name: &'static str) -> Self {
        let health = Health { state: State::Ok, reason: None, since: Timestamp::now() };
        Self { name, health: Arc::new(Mutex::new(health)) }
    }

    fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what is wrong, or that nothing is, and says so once.
    fn note(&self, trouble: Option<String>) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if health.reason == trouble {
            return;
        }
        match &trouble {
            None => tracing::info!("{} works again", self.name),
            Some(reason) => tracing::warn!("{reason}"),
        }
        let state = if trouble.is_some() { State::Down } else { State::Ok };
        *health = Health { state, reason: trouble, since: Timestamp::now() };
    }

    fn is_ok(&self) -> bool {
        self.health().state == State::Ok
    }
}
