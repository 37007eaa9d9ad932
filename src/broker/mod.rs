//! The broker carries deliveries from the ingress to the worker, at least once.
//!
//! This is the port; [`rabbitmq`] is the real thing, [`embedded`] the same promises in one SQLite file for one machine.
//! [`spool`] is for an ingress: what RabbitMQ doesn't take at the moment waits on its own disk.
//!
//! One contract suite (`tests/it/broker.rs`) holds the two brokers to these promises:
//!
//! * [`Broker::publish`] returns `Ok` only when the delivery is durable and routed. An error is *ambiguous*: the message
//!   may be stored all the same, so whoever publishes again uses the same delivery.
//! * A message that was not acked comes again, marked [`Message::redelivered`], after a crash of either side.
//! * Replays wait in a queue of their own, so that however many they are, work doesn't wait for them.
//! * Outages are waited out inside: [`Consumer::next`] and [`Consumer::ack`] never fail because a connection broke.

mod compression;
pub mod embedded;
mod encoded;
mod envelope;
mod pause;
pub mod rabbitmq;
pub mod spool;

use std::sync::Arc;

use async_trait::async_trait;

pub use self::encoded::{EncodedPayload, NotDecoded};
use crate::delivery::{Checkpoint, Delivery};

/// Why a publish didn't succeed. In every case the delivery may be stored all the same.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// No connection, no confirm in time, or a negative confirm.
    #[error("the broker can't take it: {0}")]
    Unavailable(String),
    /// The broker works, and no queue is bound that would take this one.
    #[error("the broker can't take it: {0}")]
    Unroutable(String),
    /// The message is larger than the broker takes (`broker.max_message`).
    #[error("{size} bytes are more than the broker takes ({limit})")]
    TooLarge {
        /// The body's size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

impl PublishError {
    /// Whether the same publish may succeed later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Unroutable(_))
    }
}

/// Counts a publish that failed for good.
fn fail(reason: &'static str, error: PublishError) -> PublishError {
    metrics::counter!("rollcall_broker_publish_failures_total", "reason" => reason).increment(1);
    error
}

/// How a part of rollcall is doing, for `/health`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Health {
    /// The state.
    pub state: State,
    /// One sentence, if it isn't `ok`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when.
    pub since: crate::delivery::Timestamp,
}

/// The states of [`Health`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All is well.
    Ok,
    /// It works, but not as it should.
    Degraded,
    /// It doesn't work.
    Down,
    /// It was stopped on purpose until somebody acts.
    Halted,
}

/// Where a message was waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// The work queue.
    Work,
    /// The queue of replays, which is handed out when no work waits.
    Replay,
    /// The parked queue: the broker gave up on it (delivery limit).
    Parked,
}

/// What a message says.
pub enum Payload {
    /// A delivery.
    Delivery(Delivery),
    /// How far an ingress has come.
    Checkpoint(Checkpoint),
    /// Something that isn't ours, or that can't be read.
    Unreadable {
        /// The message id, if it had one.
        id: Option<String>,
        /// Why it can't be read.
        why: String,
        /// The bytes, as they travelled.
        body: bytes::Bytes,
        /// What else there was, if it bears a version of rollcall's: [`EncodedPayload::kept`] reads it again.
        properties: Option<String>,
    },
}

impl Payload {
    /// The length of its body, in bytes.
    #[must_use]
    pub fn body_len(&self) -> usize {
        match self {
            Self::Delivery(delivery) => delivery.body.len(),
            Self::Checkpoint(checkpoint) => checkpoint.voids.len() * size_of::<u64>(),
            Self::Unreadable { body, .. } => body.len(),
        }
    }
}

/// What to keep of a delivery beside its body, so that [`EncodedPayload::kept`] reads it again.
#[must_use]
pub fn kept_properties(delivery: &Delivery) -> Option<String> {
    envelope::Envelope::of_delivery(delivery).properties()
}

impl std::fmt::Debug for Payload {
    /// Leaves bodies out, so that no log line can carry one.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Delivery(delivery) => f.debug_tuple("Delivery").field(delivery).finish(),
            Self::Checkpoint(checkpoint) => f.debug_tuple("Checkpoint").field(checkpoint).finish(),
            Self::Unreadable { id, why, body, .. } => {
                f.debug_struct("Unreadable").field("id", id).field("why", why).field("bytes", &body.len()).finish()
            }
        }
    }
}

/// Something to publish.
#[derive(Clone, Debug)]
pub enum Item {
    /// A delivery.
    Delivery(Delivery),
    /// A checkpoint.
    Checkpoint(Checkpoint),
}

impl Item {
    /// The length of its body, in bytes.
    fn len(&self) -> usize {
        match self {
            Self::Delivery(delivery) => delivery.body.len(),
            Self::Checkpoint(checkpoint) => checkpoint.voids.len() * size_of::<u64>(),
        }
    }
}

/// A message that waits for its ack.
#[derive(Debug)]
pub struct Message {
    /// What to ack it with.
    pub tag: AckTag,
    /// Where it was waiting.
    pub lane: Lane,
    /// Whether it may have been handed out before.
    pub redelivered: bool,
    /// What it says, with its body as it travels.
    pub payload: EncodedPayload,
}

/// Names an unacked message: the consuming session and the place in it. Acking a message of a session that is over does
/// nothing; the broker hands that message out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AckTag {
    /// Counts the consuming sessions of this broker: connections, or consumers of the embedded queue.
    pub session: u64,
    /// The lane, since tags are counted apart in each.
    pub lane: Lane,
    /// The place in the session and lane, ascending in the order of hand-out.
    pub number: u64,
}

/// A broker.
#[async_trait]
pub trait Broker: Send + Sync + std::fmt::Debug {
    /// Publishes a delivery to everybody who is bound (a replay: to the queue of replays alone).
    ///
    /// # Errors
    /// See [`PublishError`]. Always returns within the configured time-out.
    async fn publish(&self, delivery: &Delivery) -> Result<(), PublishError>;

    /// Publishes a checkpoint to the work queue alone.
    ///
    /// # Errors
    /// See [`PublishError`].
    async fn checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), PublishError>;

    /// Publishes all of these, so that they are stored in this order as far as each succeeds, and answers for each.
    async fn publish_in_order(&self, items: &[&Item]) -> Vec<Result<(), PublishError>> {
        let mut published = Vec::with_capacity(items.len());
        for item in items {
            published.push(match item {
                Item::Delivery(delivery) => self.publish(delivery).await,
                Item::Checkpoint(checkpoint) => self.checkpoint(checkpoint).await,
            });
        }
        published
    }

    /// Whether a delivery is small enough, before anybody has to wait for the broker to refuse it.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`].
    async fn fits(&self, _delivery: &Delivery) -> Result<(), PublishError> {
        Ok(())
    }

    /// Starts consuming, with at most `prefetch` unacked messages of the work queue and a few of the queues of replays and
    /// of what is parked. Work goes before replays. Fewer may be out until one comes that isn't redelivered.
    async fn consume(&self, prefetch: u16) -> Box<dyn Consumer>;

    /// How it is doing.
    fn health(&self) -> Health;

    /// How the part of it is doing that publishes.
    fn publishing(&self) -> Health {
        self.health()
    }

    /// Closes all connections, within a few seconds.
    async fn close(&self);
}

/// A consuming session that survives outages.
#[async_trait]
pub trait Consumer: Send {
    /// The next message, as soon as there is one. `None` once the broker was closed.
    async fn next(&mut self) -> Option<Message>;

    /// A further message if one is there already; never waits.
    fn try_next(&mut self) -> Option<Message>;

    /// Acks messages, in one go where that is cheaper. Returns how many of the acks had come too late, because the
    /// session they belong to is over: those messages come again.
    async fn ack(&mut self, tags: &[AckTag]) -> usize;
}

/// A broker that several parts share.
pub type SharedBroker = Arc<dyn Broker>;
