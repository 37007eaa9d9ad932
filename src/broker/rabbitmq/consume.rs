//! Consuming: one connection, a channel for each lane, rebuilt by its supervisor for as long as the consumer lives.
//!
//! A session is one such connection. Its tags mean nothing to the next one, so acks that come after it are counted and
//! dropped; the broker hands those messages out again. How the connection comes back is in [`super::link`].

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::acks::{Acks, plan};
use super::link::{Ending, Link, Role, Watch, supervise};
use super::message::payload;
use super::topology::Names;
use super::{Shared, topology};
use crate::broker::{AckTag, Consumer, Lane, Message};
use crate::shutdown::Tasks;

/// How many parked messages to take at a time: they are few, and nobody waits for them.
const PARKED_PREFETCH: u16 = 10;
/// How many replays to take at a time: enough for a transaction that is worth it, few enough not to delay work.
const REPLAY_PREFETCH: u16 = 64;
/// How long an ack may take to reach the socket.
const ACK: Duration = Duration::from_secs(5);

/// Sessions are counted over the whole process, so that no two consumers can mistake each other's tags.
static SESSIONS: AtomicU64 = AtomicU64::new(1);

/// A consumer of RabbitMQ. Dropping it closes its connection.
pub(super) struct RabbitMqConsumer {
    link: Link<Session>,
    current: Option<Current>,
    _close_on_drop: DropGuard,
}

/// Lets the session's check see that somebody with room waits for a message, until it is dropped.
struct Hungry<'a>(&'a AtomicBool);

impl<'a> Hungry<'a> {
    fn begin(session: &'a Session, work: &Consuming) -> Self {
        session.hungry.store(work.unacked.len() < work.prefetch.into(), Ordering::Relaxed);
        Self(&session.hungry)
    }
}

impl Drop for Hungry<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// The session that is being consumed.
struct Current {
    session: Arc<Session>,
    work: Consuming,
    replays: Consuming,
    parked: Consuming,
}

/// One lane of it.
struct Consuming {
    lane: Lane,
    channel: Channel,
    stream: lapin::Consumer,
    unacked: BTreeSet<u64>,
    prefetch: u16,
}

/// A consuming connection.
pub(super) struct Session {
    number: u64,
    ending: Ending,
    /// Whether somebody with room waits for a message.
    hungry: AtomicBool,
    /// How many messages have come.
    received: AtomicU64,
    /// That number at the last check, if somebody was hungry then although messages were ready.
    starved_at: Mutex<Option<u64>>,
    /// For questions. What the broker minds on a channel closes it, and the session with it.
    questions: Channel,
    /// Work, replays and parked, until the consumer takes them.
    lanes: Mutex<Option<[Consuming; 3]>>,
}

impl RabbitMqConsumer {
    /// Starts to connect.
    pub(super) fn start(shared: &Arc<Shared>, tasks: &Tasks, closing: &CancellationToken, prefetch: u16) -> Self {
        let closing = closing.child_token();
        let role = ConsumerRole { names: shared.names.clone(), prefetch: prefetch.max(1) };
        Self {
            link: supervise(role, shared, tasks, closing.clone()),
            current: None,
            _close_on_drop: closing.drop_guard(),
        }
    }

    /// How its connection is doing.
    pub(super) fn watch(&self) -> Watch {
        self.link.watch()
    }
}

#[async_trait]
impl Consumer for RabbitMqConsumer {
    async fn next(&mut self) -> Option<Message> {
        loop {
            let Some(current) = &mut self.current else {
                let session = self.link.session(|session| !session.ending.is_over()).await?;
                let lanes = session.lanes.lock().unwrap_or_else(PoisonError::into_inner).take();
                self.current = lanes.map(|[work, replays, parked]| Current { session, work, replays, parked });
                continue;
            };
            let session = current.session.clone();
            let _hungry = Hungry::begin(&session, &current.work);
            let message = tokio::select! {
                biased;
                () = session.ending.over() => None,
                message = current.parked.next(&session) => message,
                message = current.work.next(&session) => message,
                message = current.replays.next(&session) => message,
            };
            match message {
                Some(message) => return Some(message),
                None => self.current = None,
            }
        }
    }

    fn try_next(&mut self) -> Option<Message> {
        let current = self.current.as_mut()?;
        if current.session.ending.is_over() {
            return None;
        }
        let parked = current.parked.next(&current.session).now_or_never().flatten();
        parked
            .or_else(|| current.work.next(&current.session).now_or_never().flatten())
            .or_else(|| current.replays.next(&current.session).now_or_never().flatten())
    }

    async fn ack(&mut self, tags: &[AckTag]) -> usize {
        let mut stale = tags.len();
        if let Some(current) = self.current.as_mut().filter(|current| !current.session.ending.is_over()) {
            let of = |lane| {
                let number = current.session.number;
                tags.iter().filter(move |tag| tag.session == number && tag.lane == lane).map(|tag| tag.number)
            };
            let mut acked = 0;
            for consuming in [&mut current.work, &mut current.replays, &mut current.parked] {
                match consuming.ack(of(consuming.lane)).await {
                    Ok(count) => acked += count,
                    Err(reason) => current.session.ending.because(reason),
                }
            }
            stale -= acked;
        }
        if stale > 0 {
            metrics::counter!("rollcall_broker_stale_acks_total").increment(u64::try_from(stale).unwrap_or(u64::MAX));
        }
        stale
    }
}

impl Consuming {
    /// The next message. `None` if the session is over, which it is told.
    async fn next(&mut self, session: &Session) -> Option<Message> {
        match self.stream.next().await {
            Some(Ok(delivery)) => {
                session.received.fetch_add(1, Ordering::Relaxed);
                self.unacked.insert(delivery.delivery_tag);
                Some(Message {
                    tag: AckTag { session: session.number, lane: self.lane, number: delivery.delivery_tag },
                    lane: self.lane,
                    redelivered: delivery.redelivered,
                    payload: payload(&delivery.properties, delivery.data),
                })
            }
            Some(Err(error)) => {
                session.ending.because(topology::explain(&error));
                None
            }
            None => {
                session.ending.because("RabbitMQ ended the consumer, as it does when its queue is deleted");
                None
            }
        }
    }

    /// Acks, and returns how many tags had still been waiting for it.
    async fn ack(&mut self, tags: impl Iterator<Item = u64>) -> Result<usize, String> {
        let before = self.unacked.len();
        let Acks { up_to, single, .. } = plan(&mut self.unacked, tags);
        let acks = up_to.map(|tag| (tag, true)).into_iter().chain(single.into_iter().map(|tag| (tag, false)));
        let sent = try_join_all(acks.map(|(tag, multiple)| self.channel.basic_ack(tag, BasicAckOptions { multiple })));
        match timeout(ACK, sent).await {
            Ok(Ok(_)) => Ok(before - self.unacked.len()),
            Ok(Err(error)) => Err(topology::explain(&error)),
            Err(_) => Err(format!("an ack didn't get through to RabbitMQ within {} seconds", ACK.as_secs())),
        }
    }
}

struct ConsumerRole {
    names: Names,
    prefetch: u16,
}

impl Role for ConsumerRole {
    type Session = Session;
    const NAME: &'static str = "consumer";

    async fn build(&self, connection: &Connection, ending: &Ending) -> Result<Session, lapin::Error> {
        let work = consuming(connection, Lane::Work, &self.names.work, self.prefetch).await?;
        let replays =
            consuming(connection, Lane::Replay, &self.names.replays, REPLAY_PREFETCH.min(self.prefetch)).await?;
        let parked = consuming(connection, Lane::Parked, &self.names.parked, PARKED_PREFETCH).await?;
        Ok(Session {
            number: SESSIONS.fetch_add(1, Ordering::Relaxed),
            ending: ending.clone(),
            hungry: AtomicBool::new(false),
            received: AtomicU64::new(0),
            starved_at: Mutex::default(),
            questions: connection.create_channel().await?,
            lanes: Mutex::new(Some([work, replays, parked])),
        })
    }

    /// RabbitMQ doesn't always say when it ends a consumer, so look: does each queue know of one, and does the work queue
    /// hand out what waits in it?
    async fn check(&self, session: &Session) -> Result<(), String> {
        let mut ready = 0;
        for queue in [&self.names.parked, &self.names.replays, &self.names.work] {
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let asked = session.questions.queue_declare(queue.clone(), passive, FieldTable::default()).await;
            let queue_now = asked.map_err(|error| topology::explain(&error))?;
            if queue_now.consumer_count() == 0 {
                return Err(format!("RabbitMQ has lost the consumer of queue {queue}"));
            }
            ready = queue_now.message_count();
        }
        let received = session.received.load(Ordering::Relaxed);
        let starved_at = (ready > 0 && session.hungry.load(Ordering::Relaxed)).then_some(received);
        let before =
            std::mem::replace(&mut *session.starved_at.lock().unwrap_or_else(PoisonError::into_inner), starved_at);
        if starved_at.is_some() && before == starved_at {
            return Err(format!("queue {} has messages and hands none out", self.names.work));
        }
        Ok(())
    }
}

async fn consuming(
    connection: &Connection,
    lane: Lane,
    queue: &ShortString,
    prefetch: u16,
) -> Result<Consuming, lapin::Error> {
    let channel = connection.create_channel().await?;
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let stream =
        channel.basic_consume(queue.clone(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await?;
    Ok(Consuming { lane, channel, stream, unacked: BTreeSet::new(), prefetch })
}
