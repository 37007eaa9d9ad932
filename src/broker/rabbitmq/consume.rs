//! Consuming: one connection, a channel for each lane, rebuilt by its supervisor for as long as the consumer lives.
//!
//! A session is one such connection. Its tags mean nothing to the next one, so acks that come after it are counted and
//! dropped; the broker hands those messages out again. How the connection comes back is in [`super::link`].
//!
//! RabbitMQ counts messages and no bytes, so the prefetch doesn't bound a worker's memory. A process that was killed over
//! it must not be handed the same messages all at once: each lane begins with a small prefetch, and has the full one once
//! a message comes that nobody was handed before. Those that may have killed a worker come before such a one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{BoxFuture, OptionFuture, ready, try_join_all};
use futures_util::stream::{BoxStream, SelectAll, once};
use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
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
/// How many messages of a lane to take at a time before one comes that is new.
pub const INITIAL_PREFETCH: u16 = 8;
/// How long RabbitMQ may take to answer when a lane gets its full prefetch.
const ANSWER: Duration = Duration::from_secs(10);
/// How long an ack may take to reach the socket.
const ACK: Duration = Duration::from_secs(5);

const CONSUMER_ENDED: &str = "RabbitMQ ended the consumer, as it does when its queue is deleted";

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
    queue: ShortString,
    /// What the consumers on the channel receive: there is one, and another once the prefetch is the full one.
    received: SelectAll<BoxStream<'static, Result<Delivery, String>>>,
    /// What one of them received while an earlier message was still in the other's stream, by its tag.
    early: BTreeMap<u64, Delivery>,
    /// The tag that was handed out last. A channel counts its messages from one on without gaps.
    last: u64,
    unacked: BTreeSet<u64>,
    /// The prefetch in force.
    prefetch: u16,
    full_prefetch: u16,
    /// The second consumer, while it begins. Kept here since whoever waits for a message may stop at any time: RabbitMQ
    /// hands out messages to a consumer that nobody reads, too.
    second: Option<BoxFuture<'static, Result<lapin::Consumer, String>>>,
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
            for lane in [&mut current.work, &mut current.replays, &mut current.parked] {
                // Whoever holds all that there may be and waits for more has survived them, and won't ack them.
                if lane.unacked.len() >= lane.prefetch.into() {
                    lane.widen();
                }
            }
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
    /// The next message. `None` if the session is over, which it is told. May be dropped at any time.
    async fn next(&mut self, session: &Session) -> Option<Message> {
        match self.next_delivery().await {
            Ok(delivery) => {
                session.received.fetch_add(1, Ordering::Relaxed);
                self.unacked.insert(delivery.delivery_tag);
                if !delivery.redelivered {
                    self.widen();
                }
                Some(Message {
                    tag: AckTag { session: session.number, lane: self.lane, number: delivery.delivery_tag },
                    lane: self.lane,
                    redelivered: delivery.redelivered,
                    payload: payload(&delivery.properties, delivery.data),
                })
            }
            Err(reason) => {
                session.ending.because(reason);
                None
            }
        }
    }

    /// The next one by its tag, whichever consumer receives it. An ack with `multiple` relies on that order: it covers
    /// all messages before it, so none of them may still be on its way.
    async fn next_delivery(&mut self) -> Result<Delivery, String> {
        loop {
            if let Some(delivery) = self.early.remove(&(self.last + 1)) {
                self.last += 1;
                return Ok(delivery);
            }
            tokio::select! {
                Some(second) = OptionFuture::from(self.second.as_mut()) => {
                    self.second = None;
                    self.received.push(deliveries(second?));
                    self.prefetch = self.full_prefetch;
                }
                Some(delivery) = self.received.next() => {
                    let delivery = delivery?;
                    self.early.insert(delivery.delivery_tag, delivery);
                }
                else => return Err(CONSUMER_ENDED.to_owned()),
            }
        }
    }

    /// Takes the full prefetch from now on, if that isn't so yet. A prefetch is that of the consumers that begin after it
    /// was set, and quorum queues know none of a whole channel: so a second consumer takes the rest.
    fn widen(&mut self) {
        let rest = self.full_prefetch - self.prefetch;
        if rest > 0 && self.second.is_none() {
            let (channel, queue) = (self.channel.clone(), self.queue.clone());
            let second = async move {
                answered(channel.basic_qos(rest, BasicQosOptions::default())).await?;
                answered(consume(&channel, queue)).await
            };
            self.second = Some(second.boxed());
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
    full_prefetch: u16,
) -> Result<Consuming, lapin::Error> {
    let channel = connection.create_channel().await?;
    let prefetch = INITIAL_PREFETCH.min(full_prefetch);
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let first = consume(&channel, queue.clone()).await?;
    Ok(Consuming {
        lane,
        channel,
        queue: queue.clone(),
        received: SelectAll::from_iter([deliveries(first)]),
        early: BTreeMap::new(),
        last: 0,
        unacked: BTreeSet::new(),
        prefetch,
        full_prefetch,
        second: None,
    })
}

async fn consume(channel: &Channel, queue: ShortString) -> Result<lapin::Consumer, lapin::Error> {
    channel.basic_consume(queue, "".into(), BasicConsumeOptions::default(), FieldTable::default()).await
}

/// What a consumer receives. Its end is an error, so that it is noticed while the other one goes on.
fn deliveries(consumer: lapin::Consumer) -> BoxStream<'static, Result<Delivery, String>> {
    consumer
        .map(|delivery| delivery.map_err(|error| topology::explain(&error)))
        .chain(once(ready(Err(CONSUMER_ENDED.to_owned()))))
        .boxed()
}

/// Waits for RabbitMQ's answer. Each has its own time, since nobody may be waiting when it comes.
async fn answered<T>(asked: impl Future<Output = Result<T, lapin::Error>>) -> Result<T, String> {
    match timeout(ANSWER, asked).await {
        Ok(answer) => answer.map_err(|error| topology::explain(&error)),
        Err(_) => Err(format!("RabbitMQ didn't begin to hand out more within {} seconds", ANSWER.as_secs())),
    }
}
