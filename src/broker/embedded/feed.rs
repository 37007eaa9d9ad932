//! Handing out: a reader that keeps a few messages ready, and the consumers that take them.
//!
//! The reader goes through the file in the order of ids and never looks back, except that a consumer that goes away
//! gives back what it hadn't acked. "Handed out" has to outlive a crash, so it is written *ahead*: before the first
//! message of a stretch is handed out, the end of that stretch is on disk. After a crash a few messages may be marked
//! redelivered that nobody had seen, as with any broker's prefetch; the other way round can't happen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::store::HandedOut;
use super::writer::Command;
use super::{Condition, MOST_HELD, Settings, store};
use crate::broker::{AckTag, Consumer, EncodedPayload, Lane, Message};

/// How often to look whether another process has published.
const LOOK: Duration = Duration::from_secs(1);
/// How many messages to read at a time.
const READ: usize = 256;
/// How far ahead "handed out" is written.
const AHEAD: i64 = 256;

/// What the reader and the consumers share.
#[derive(Debug)]
pub(super) struct Feed {
    /// Which queue this is.
    lane: Lane,
    state: Mutex<FeedState>,
    /// Rung for the reader: there may be something to read, and room for it.
    look: Notify,
    /// Rung for the consumers, which take from several feeds: something is ready.
    ready: Arc<Notify>,
}

#[derive(Debug)]
struct FeedState {
    /// Everything up to this id is ready, out, or done.
    cursor: i64,
    /// Counts how often the cursor went back, so that a read from before that is thrown away.
    rewinds: u64,
    ready: VecDeque<(i64, EncodedPayload)>,
    /// Handed out.
    out: BTreeMap<i64, Out>,
    /// The bytes of all that is ready, or handed out and not acked.
    bytes: usize,
    /// The highest id that may have been handed out.
    handed_out: i64,
    /// The same, as far as it is on disk.
    handed_out_on_disk: i64,
    /// The sessions, with how many messages each may hold and holds.
    sessions: BTreeMap<u64, Session>,
    next_session: u64,
}

/// A message that was handed out.
#[derive(Debug)]
struct Out {
    /// The session that holds it, or none if it is acked and only waits to be deleted.
    holder: Option<u64>,
    bytes: usize,
}

#[derive(Debug)]
struct Session {
    prefetch: usize,
    holds: usize,
}

impl Feed {
    /// A feed of a file whose messages up to `handed_out` may have been handed out before.
    pub(super) fn new(lane: Lane, handed_out: HandedOut, ready: Arc<Notify>) -> Self {
        let state = FeedState {
            cursor: 0,
            rewinds: 0,
            ready: VecDeque::new(),
            out: BTreeMap::new(),
            handed_out: handed_out.existing,
            handed_out_on_disk: handed_out.written,
            bytes: 0,
            sessions: BTreeMap::new(),
            next_session: 1,
        };
        Self { lane, state: Mutex::new(state), look: Notify::new(), ready }
    }

    /// Something was published.
    pub(super) fn published(&self) {
        self.look.notify_one();
    }

    /// These messages are deleted.
    pub(super) fn forget(&self, ids: &BTreeSet<i64>) {
        let mut state = self.lock();
        for id in ids {
            state.out.remove(id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, FeedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, prefetch: usize) -> u64 {
        let mut state = self.lock();
        let session = state.next_session;
        state.next_session += 1;
        state.sessions.insert(session, Session { prefetch, holds: 0 });
        self.look.notify_one();
        session
    }

    /// Gives back what a session holds.
    fn leave(&self, session: u64) {
        let mut state = self.lock();
        state.sessions.remove(&session);
        let back: Vec<i64> =
            state.out.iter().filter(|(_, out)| out.holder == Some(session)).map(|(id, _)| *id).collect();
        if let Some(first) = back.first() {
            // What is ready comes after it and is read again too, so that the order stays that of publishing.
            let first = state.ready.front().map_or(*first, |(ready, _)| (*first).min(*ready));
            state.cursor = first - 1;
            state.rewinds += 1;
            state.bytes -= state.ready.iter().map(|(_, payload)| payload.encoded_len()).sum::<usize>();
            state.ready.clear();
            for id in back {
                state.bytes -= state.out.remove(&id).map_or(0, |out| out.bytes);
            }
        }
        self.look.notify_one();
    }

    fn take(&self, session: u64) -> Option<Message> {
        let mut state = self.lock();
        let state = &mut *state;
        let holder = state.sessions.get_mut(&session).filter(|holder| holder.holds < holder.prefetch)?;
        let (id, payload) = state.ready.pop_front()?;
        holder.holds += 1;
        state.out.insert(id, Out { holder: Some(session), bytes: payload.encoded_len() });
        let redelivered = id <= state.handed_out;
        state.handed_out = state.handed_out.max(id);
        if state.ready.is_empty() {
            self.look.notify_one();
        }
        let tag = AckTag { session, lane: self.lane, number: id.unsigned_abs() };
        Some(Message { tag, lane: self.lane, redelivered, payload })
    }

    /// Takes the messages of `tags` that the session holds out of its hands, and returns their ids.
    pub(super) fn done(&self, session: u64, tags: &[AckTag]) -> Vec<i64> {
        let mut state = self.lock();
        let state = &mut *state;
        let mut done = Vec::with_capacity(tags.len());
        for tag in tags.iter().filter(|tag| tag.session == session && tag.lane == self.lane) {
            let Ok(id) = i64::try_from(tag.number) else { continue };
            if let Some(out) = state.out.get_mut(&id).filter(|out| out.holder == Some(session)) {
                out.holder = None;
                state.bytes -= out.bytes;
                done.push(id);
            }
        }
        if let Some(session) = state.sessions.get_mut(&session) {
            session.holds -= done.len().min(session.holds);
        }
        if !done.is_empty() {
            self.ready.notify_waiters();
            self.look.notify_one();
        }
        done
    }

    /// What to read next. `None` if nobody has room for more.
    fn wanted(&self) -> Option<Wanted> {
        let state = self.lock();
        let room: usize = state.sessions.values().map(|session| session.prefetch - session.holds).sum();
        // What was handed out before may have killed whoever had it: one at a time, so that it is alone when it is read.
        let again = state.cursor < state.handed_out;
        let messages = room.min(if again { 1 } else { usize::MAX }).saturating_sub(state.ready.len()).min(READ);
        let bytes = MOST_HELD.saturating_sub(state.bytes);
        (messages > 0 && bytes > 0).then_some(Wanted { after: state.cursor, messages, bytes, rewinds: state.rewinds })
    }

    /// Up to which id "handed out" has to be written before a message of that id may be.
    fn to_write_ahead(&self, id: i64) -> Option<i64> {
        (id > self.lock().handed_out_on_disk).then_some(id.saturating_add(AHEAD))
    }

    fn written_ahead(&self, up_to: i64) {
        let mut state = self.lock();
        state.handed_out_on_disk = state.handed_out_on_disk.max(up_to);
    }

    fn offer(&self, messages: Vec<(i64, EncodedPayload)>, rewinds: u64) {
        let mut state = self.lock();
        if state.rewinds != rewinds {
            return;
        }
        for (id, payload) in messages {
            state.cursor = id;
            if !state.out.contains_key(&id) {
                state.bytes += payload.encoded_len();
                state.ready.push_back((id, payload));
            }
        }
        self.ready.notify_waiters();
    }
}

/// What to read next.
struct Wanted {
    /// The id after which to read.
    after: i64,
    /// How many messages at the most.
    messages: usize,
    /// How many bytes of bodies; one message may go over it.
    bytes: usize,
    /// The rewinds so far.
    rewinds: u64,
}

/// Keeps the feed filled until it is told to close.
pub(super) async fn run(
    feed: Arc<Feed>,
    settings: Settings,
    commands: mpsc::UnboundedSender<Command>,
    condition: Condition,
    closing: CancellationToken,
) {
    let mut reader = Reader { connection: None, seen: None, settings };
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let rung = tokio::select! {
            () = closing.cancelled() => return,
            () = feed.look.notified() => true,
            _ = look.tick() => false,
        };
        let filled = tokio::select! {
            () = closing.cancelled() => return,
            filled = reader.fill(&feed, &commands, rung || !condition.is_ok()) => filled,
        };
        if filled.is_err() {
            reader.connection = None;
        }
        let Settings { name, file, .. } = &reader.settings;
        let why = |error| format!("{name} can't read {}: {error}", file.display());
        condition.note(filled.err().map(why));
    }
}

struct Reader {
    settings: Settings,
    connection: Option<SqliteConnection>,
    /// The last data version seen.
    seen: Option<i64>,
}

impl Reader {
    /// Reads as much as there is room for, if there can be anything new.
    async fn fill(&mut self, feed: &Feed, commands: &mpsc::UnboundedSender<Command>, rung: bool) -> sqlx::Result<()> {
        if feed.wanted().is_none() {
            return Ok(());
        }
        if self.connection.is_none() {
            self.connection = Some(store::connect(&self.settings.file, self.settings.busy_timeout).await?);
        }
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let version = store::data_version(connection).await?;
        if self.seen.replace(version) == Some(version) && !rung {
            return Ok(());
        }
        while let Some(Wanted { after, messages, bytes, rewinds }) = feed.wanted() {
            let most = i64::try_from(messages).unwrap_or(i64::MAX);
            let messages = store::read(connection, after, most, bytes).await?;
            let Some((last, _)) = messages.last() else { return Ok(()) };
            if self.settings.marks_redelivered
                && let Some(up_to) = feed.to_write_ahead(*last)
            {
                let (written, is_written) = oneshot::channel();
                if commands.send(Command::HandOut(up_to, written)).is_err() || is_written.await.is_err() {
                    return Ok(());
                }
                feed.written_ahead(up_to);
            }
            feed.offer(messages, rewinds);
        }
        Ok(())
    }
}

/// What a consumer holds of one queue. Dropping it gives back what isn't acked.
pub(super) struct Share {
    feed: Arc<Feed>,
    commands: mpsc::UnboundedSender<Command>,
    session: u64,
}

impl Share {
    pub(super) fn new(feed: &Arc<Feed>, commands: &mpsc::UnboundedSender<Command>, prefetch: u16) -> Self {
        let session = feed.join(prefetch.max(1).into());
        Self { feed: feed.clone(), commands: commands.clone(), session }
    }

    /// Acks what is this queue's of `tags`. Returns how many it was.
    fn ack(&self, tags: &[AckTag]) -> usize {
        let done = self.feed.done(self.session, tags);
        let count = done.len();
        if count > 0 {
            // Once the broker is closed, a late ack is lost, and its message comes again.
            let _ = self.commands.send(Command::Acked(done));
        }
        count
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.feed.leave(self.session);
    }
}

/// A consumer of the embedded queues, the first of which goes before the others.
pub(super) struct EmbeddedConsumer {
    pub(super) shares: Vec<Share>,
    pub(super) ready: Arc<Notify>,
    pub(super) closing: CancellationToken,
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn next(&mut self) -> Option<Message> {
        let feeds_ready = self.ready.clone();
        while !self.closing.is_cancelled() {
            let mut ready = std::pin::pin!(feeds_ready.notified());
            ready.as_mut().enable();
            if let Some(message) = self.try_next() {
                return Some(message);
            }
            tokio::select! {
                () = ready => {}
                () = self.closing.cancelled() => {}
            }
        }
        None
    }

    fn try_next(&mut self) -> Option<Message> {
        self.shares.iter().find_map(|share| share.feed.take(share.session))
    }

    async fn ack(&mut self, tags: &[AckTag]) -> usize {
        let done: usize = self.shares.iter().map(|share| share.ack(tags)).sum();
        let stale = tags.len() - done;
        if stale > 0 {
            metrics::counter!("rollcall_broker_stale_acks_total").increment(u64::try_from(stale).unwrap_or(u64::MAX));
        }
        stale
    }
}
