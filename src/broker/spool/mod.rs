//! The spool: what RabbitMQ doesn't take at the moment waits on the ingress's own disk, and is forwarded when it does.
//!
//! It wraps another broker. A delivery goes to that one first, and has only a short time there; once one has failed, or
//! the connection is known to be down or blocked, none is made to wait ([`door`]): it is written to the spool, an
//! embedded queue that answers after its fsync. The [`forward`]er takes it on from there, through the exchange like any
//! other: what was never confirmed may never have been seen by anybody. Everybody knows duplicates by their id.
//!
//! It is bounded by bytes, by the room that is left on the disk, and by age. Age deletes nothing: what was accepted stays.
//! A spool whose oldest delivery is too old takes no new ones, so that an outage doesn't go unnoticed for ever.
//!
//! Only an ingress has one. Consuming goes past it.

mod contents;
mod door;
mod forward;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytesize::ByteSize;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::contents::{Bounds, Contents, NoRoom, Share};
use self::door::Door;
use self::forward::Forwarder;
use super::embedded::{self, Embedded, OpenError};
use super::pause::pause;
use super::{AckTag, Broker, Consumer, Health, Item, PublishError, SharedBroker, State};
use crate::delivery::{Checkpoint, Delivery, Timestamp};
use crate::shutdown::Tasks;
use crate::telemetry::metrics as names;

/// How many writes may be under way. More would wait longer than a request may take.
const WRITES: usize = 2048;
/// How often room on the disk, gauges and health are looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Where the spool is and how much it may hold.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its folder.
    pub folder: PathBuf,
    /// How long a delivery may wait for the broker before it is written to the spool.
    pub after: Duration,
    /// How much it holds at most: bodies, and half a KiB for what goes with each.
    pub max_bytes: u64,
    /// How old the oldest delivery may be before no new ones are taken.
    pub max_age: Duration,
    /// How many bytes it leaves free on its disk.
    pub min_free: u64,
}

impl Settings {
    /// The defaults for a spool in `folder`.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            after: Duration::from_secs(2),
            max_bytes: 1024 * 1024 * 1024,
            max_age: Duration::from_secs(72 * 60 * 60),
            min_free: 64 * 1024 * 1024,
        }
    }
}

/// A broker with a spool before it. Dropping it closes the spool's file.
#[derive(Debug)]
pub struct Spool {
    shared: Arc<Shared>,
    tasks: Tasks,
    closing: CancellationToken,
    _close_on_drop: DropGuard,
}

/// What its tasks share.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    broker: SharedBroker,
    /// Set once it could be opened.
    queue: OnceLock<Embedded>,
    /// Why it couldn't be opened yet.
    unopened: Mutex<Option<String>>,
    contents: Contents,
    door: Door,
    /// How many bytes are free on the disk, as last seen.
    free: AtomicU64,
    /// How many deliveries are on their way past the spool.
    live: AtomicUsize,
    writes: Arc<Semaphore>,
    /// Rung when the forwarder goes on after a pause.
    resumed: Notify,
    /// The state that health last had, and since when.
    state: Mutex<(State, Timestamp)>,
}

impl Spool {
    /// Opens the spool and starts to forward what it holds. A file that can't be opened is tried again in the background:
    /// while RabbitMQ takes deliveries, nobody needs it.
    pub async fn start(settings: Settings, broker: SharedBroker, tasks: &Tasks) -> Self {
        let closing = tasks.token().child_token();
        let bounds = Bounds { max_bytes: settings.max_bytes, max_age: settings.max_age };
        let shared = Arc::new(Shared {
            broker,
            queue: OnceLock::new(),
            unopened: Mutex::default(),
            contents: Contents::new(bounds),
            door: Door::default(),
            free: AtomicU64::new(u64::MAX),
            live: AtomicUsize::new(0),
            writes: Arc::new(Semaphore::new(WRITES)),
            resumed: Notify::new(),
            state: Mutex::new((State::Ok, Timestamp::now())),
            settings,
        });
        shared.open(tasks).await;
        let (forwarding, opening) = (Arc::clone(&shared), tasks.clone());
        let forward = async move {
            let mut attempt = 0;
            while forwarding.queue.get().is_none() {
                sleep(pause(attempt)).await;
                attempt += 1;
                forwarding.open(&opening).await;
            }
            if let Some(forwarder) = Forwarder::start(forwarding).await {
                forwarder.run().await;
            }
        };
        let until_closed = tasks.ending_on(closing.clone());
        until_closed.essential("spool forwarder", closing.clone().run_until_cancelled_owned(forward));
        let tell = forward::tell(Arc::clone(&shared));
        until_closed.essential("spool reports", closing.clone().run_until_cancelled_owned(tell));
        let look = look(Arc::clone(&shared));
        until_closed.essential("spool watcher", closing.clone().run_until_cancelled_owned(look));
        Self { shared, tasks: tasks.clone(), _close_on_drop: closing.clone().drop_guard(), closing }
    }

    /// How the spool itself is doing.
    #[must_use]
    pub fn spool_health(&self) -> Health {
        self.shared.health(Timestamp::now())
    }

    /// Writes something to the spool, and says when it is on disk.
    async fn store(&self, item: Item) -> Result<(), Refused> {
        let shared = Arc::clone(&self.shared);
        if shared.queue.get().is_none() {
            let why = shared.unopened.lock().unwrap_or_else(PoisonError::into_inner).clone();
            return Err(Refused::Unopened(why.unwrap_or_else(|| "it isn't open yet".to_owned())));
        }
        if shared.free.load(Ordering::Relaxed) < shared.settings.min_free {
            return Err(Refused::DiskFull(shared.settings.min_free));
        }
        let place = Arc::clone(&shared.writes).try_acquire_owned().map_err(|_full| Refused::Busy)?;
        let share = Share::of(&item);
        shared.contents.add(&share, Timestamp::now()).map_err(|no_room| shared.refused(no_room))?;
        // On its own, so that the counts are right whoever stops waiting for it.
        let writing = self.tasks.short_lived("spool write", async move {
            let _place = place;
            let stored = match (&item, shared.queue.get()) {
                (Item::Delivery(delivery), Some(queue)) => queue.publish(delivery).await,
                (Item::Checkpoint(checkpoint), Some(queue)) => queue.checkpoint(checkpoint).await,
                (_, None) => Err(PublishError::Unavailable("it isn't open".to_owned())),
            };
            if stored.is_err() {
                shared.contents.remove(&share);
            }
            stored
        });
        match writing.await {
            Ok(stored) => stored.map_err(|error| Refused::Unwritten(error.to_string())),
            Err(error) if error.is_panic() => Err(Refused::Unwritten("the write panicked".to_owned())),
            Err(_ended) => Err(Refused::Unwritten("the process ends".to_owned())),
        }
    }

    /// The broker, for a short time.
    async fn direct(&self, delivery: &Delivery) -> Result<(), PublishError> {
        let _live = Live::begin(&self.shared.live);
        match timeout(self.shared.settings.after, self.shared.broker.publish(delivery)).await {
            Ok(published) => published,
            Err(_elapsed) => {
                let after = self.shared.settings.after;
                Err(PublishError::Unavailable(format!("it wasn't confirmed within {after:?}")))
            }
        }
    }
}

#[async_trait]
impl Broker for Spool {
    async fn publish(&self, delivery: &Delivery) -> Result<(), PublishError> {
        let shared = &self.shared;
        let shut = shared.shut();
        let tried = shut.is_none();
        let failure = match shut {
            Some(reason) => reason,
            None => match self.direct(delivery).await {
                Err(PublishError::Unavailable(reason)) => {
                    shared.door.shut(reason.clone(), Timestamp::now());
                    reason
                }
                Err(PublishError::Unroutable(reason)) => reason,
                done => return done,
            },
        };
        shared.broker.fits(delivery).await?;
        let refused = match self.store(Item::Delivery(delivery.clone())).await {
            Ok(()) => {
                metrics::counter!(names::SPOOL_STORED).increment(1);
                return Ok(());
            }
            Err(refused) => refused,
        };
        // Without the spool's help it has to wait for the broker after all, if there is any hope.
        if !tried && shared.broker.publishing().state == State::Ok && self.direct(delivery).await.is_ok() {
            shared.door.open(shared.contents.look().deliveries);
            return Ok(());
        }
        metrics::counter!(names::SPOOL_REFUSED, "reason" => refused.label()).increment(1);
        Err(PublishError::Unavailable(format!("{failure}; and the spool can't take it: {refused}")))
    }

    async fn checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), PublishError> {
        if self.shared.shut().is_none() {
            let held = self.shared.contents.least(checkpoint.run, &checkpoint.source);
            let checkpoint = Checkpoint { held, ..checkpoint.clone() };
            let published = timeout(self.shared.settings.after, self.shared.broker.checkpoint(&checkpoint)).await;
            if let Ok(Ok(())) = published {
                return Ok(());
            }
        }
        // Behind the deliveries that it closes.
        let stored = self.store(Item::Checkpoint(checkpoint.clone())).await;
        stored.map_err(|refused| PublishError::Unavailable(format!("the spool can't take it: {refused}")))
    }

    async fn fits(&self, delivery: &Delivery) -> Result<(), PublishError> {
        self.shared.broker.fits(delivery).await
    }

    async fn consume(&self, prefetch: u16) -> Box<dyn Consumer> {
        self.shared.broker.consume(prefetch).await
    }

    /// The health of the broker behind it.
    fn health(&self) -> Health {
        let health = self.shared.broker.health();
        match self.shared.door.why() {
            Some(shut) if health.state == State::Ok => {
                let state = if self.spool_health().state == State::Down { State::Down } else { State::Degraded };
                let reason = format!("deliveries go to the spool: {}", shut.reason);
                Health { state, reason: Some(reason), since: shut.since }
            }
            _ => health,
        }
    }

    fn publishing(&self) -> Health {
        self.shared.broker.publishing()
    }

    /// What is in the spool stays there for the next start.
    async fn close(&self) {
        self.closing.cancel();
        if let Some(queue) = self.shared.queue.get() {
            queue.close().await;
        }
        self.shared.broker.close().await;
    }
}

impl Shared {
    /// Why nothing goes past the spool at the moment, if nothing does.
    fn shut(&self) -> Option<String> {
        let publishing = self.broker.publishing();
        if publishing.state != State::Ok {
            return Some(publishing.reason.unwrap_or_else(|| "the broker is down".to_owned()));
        }
        self.door.why().map(|shut| shut.reason)
    }

    /// Opens the queue, and counts what it holds.
    async fn open(&self, tasks: &Tasks) {
        self.free.store(free(&self.settings.folder).await, Ordering::Relaxed);
        let trouble = match self.try_open(tasks).await {
            Ok(queue) => {
                let look = self.contents.look();
                if look.deliveries > 0 {
                    tracing::info!(deliveries = look.deliveries, bytes = look.bytes, "the spool isn't empty");
                }
                let _ = self.queue.set(queue);
                None
            }
            Err(error) => Some(error.to_string()),
        };
        let mut unopened = self.unopened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(trouble) = trouble.as_ref().filter(|trouble| Some(*trouble) != unopened.as_ref()) {
            tracing::error!("the spool: {trouble}");
        }
        *unopened = trouble;
    }

    async fn try_open(&self, tasks: &Tasks) -> Result<Embedded, OpenError> {
        let settings = embedded::Settings {
            name: "the spool",
            // How large a message may be is for the broker to say, which compresses it.
            max_message: usize::MAX,
            // Everything that comes out of it may have been published before.
            marks_redelivered: false,
            // Replays wait here among the others.
            replays: None,
            ..embedded::Settings::new(&self.settings.folder)
        };
        let queue = Embedded::open(settings, tasks).await?;
        let back = queue.put_back().await?;
        if back > 0 {
            tracing::info!(messages = back, "what the spool had set aside is tried once more");
        }
        let mut rows = Vec::new();
        queue.each(|row| rows.push(row)).await?;
        self.contents.load(&rows);
        Ok(queue)
    }

    fn refused(&self, no_room: NoRoom) -> Refused {
        match no_room {
            NoRoom::Full => Refused::Full(self.settings.max_bytes),
            NoRoom::TooOld => Refused::TooOld(self.settings.max_age),
        }
    }

    /// Keeps a message that can't be forwarded, and says so.
    fn set_aside(&self, tag: AckTag, share: &Share, why: &str) {
        tracing::error!(row = tag.number, "a message in the spool can't be forwarded and is set aside: {why}");
        if let Some(queue) = self.queue.get() {
            queue.set_aside(tag, why);
        }
        self.contents.set_aside(share);
    }

    /// What is wrong with the spool, the worst first.
    fn trouble(&self, now: Timestamp) -> Option<(State, String)> {
        let Some(queue) = self.queue.get() else {
            let why = self.unopened.lock().unwrap_or_else(PoisonError::into_inner).clone();
            return Some((State::Down, why.unwrap_or_else(|| "it isn't open yet".to_owned())));
        };
        let look = self.contents.look();
        let (bytes, taken) = (ByteSize::b(look.bytes), ByteSize::b(self.settings.max_bytes));
        let holds = || {
            let oldest = look.oldest.map_or_else(String::new, |oldest| format!(", the oldest received at {oldest}"));
            format!("{} deliveries ({bytes} of {taken}) wait for RabbitMQ{oldest}", look.deliveries)
        };
        let file = queue.health();
        if file.state != State::Ok {
            return Some((State::Down, file.reason.unwrap_or_default()));
        }
        if let Some(no_room) = self.contents.no_room(now) {
            return Some((State::Down, format!("{}; {}", self.refused(no_room), holds())));
        }
        if self.free.load(Ordering::Relaxed) < self.settings.min_free {
            return Some((State::Down, format!("{}; {}", Refused::DiskFull(self.settings.min_free), holds())));
        }
        if look.aside > 0 {
            let what = "can't be forwarded and are set aside; the log says why, and a restart tries them once more";
            return Some((State::Degraded, format!("{} deliveries {what}", look.aside)));
        }
        (look.deliveries > 0).then(|| (State::Degraded, holds()))
    }

    fn health(&self, now: Timestamp) -> Health {
        let (state, reason) = match self.trouble(now) {
            Some((state, reason)) => (state, Some(reason)),
            None => (State::Ok, None),
        };
        let mut last = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0 != state {
            if state == State::Down {
                tracing::error!("the spool can't take deliveries: {}", reason.as_deref().unwrap_or_default());
            } else if last.0 == State::Down {
                tracing::info!("the spool can take deliveries again");
            }
            *last = (state, now);
        }
        Health { state, reason, since: last.1 }
    }
}

/// Why the spool can't take something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Unopened(String),
    #[error("it is full (spool.max_bytes is {max_bytes})", max_bytes = ByteSize::b(*.0))]
    Full(u64),
    #[error("its oldest delivery is older than spool.max_age ({0:?})")]
    TooOld(Duration),
    #[error("less than spool.min_free ({min_free}) is free on its disk", min_free = ByteSize::b(*.0))]
    DiskFull(u64),
    #[error("too many writes are under way")]
    Busy,
    #[error("{0}")]
    Unwritten(String),
}

impl Refused {
    const fn label(&self) -> &'static str {
        match self {
            Self::Unopened(_) => "unopened",
            Self::Full(_) => "full",
            Self::TooOld(_) => "too_old",
            Self::DiskFull(_) => "disk_full",
            Self::Busy => "busy",
            Self::Unwritten(_) => "unwritten",
        }
    }
}

/// A delivery on its way past the spool, as long as it lives.
struct Live<'a>(&'a AtomicUsize);

impl<'a> Live<'a> {
    fn begin(live: &'a AtomicUsize) -> Self {
        live.fetch_add(1, Ordering::Relaxed);
        Self(live)
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Keeps an eye on the disk, the age of what is held, and health, which is logged when it changes.
async fn look(shared: Arc<Shared>) {
    let oldest = metrics::gauge!(names::SPOOL_OLDEST);
    let mut tick = interval(LOOK);
    loop {
        tick.tick().await;
        shared.free.store(free(&shared.settings.folder).await, Ordering::Relaxed);
        let now = Timestamp::now();
        let age = shared.contents.look().oldest.map_or(Duration::ZERO, |oldest| now.since(oldest));
        oldest.set(age.as_secs_f64());
        shared.health(now);
    }
}

/// How many bytes are free where the folder is. What can't be asked isn't known to be full.
async fn free(folder: &std::path::Path) -> u64 {
    let folder = folder.to_owned();
    let asked = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&folder)).await;
    match asked {
        Ok(Ok(disk)) => disk.f_bavail.saturating_mul(disk.f_frsize),
        _ => u64::MAX,
    }
}
