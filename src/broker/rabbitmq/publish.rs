//! Publishing: one connection, a few confirm channels in turn, and the patience that a delivery is worth.
//!
//! A publish that fails is *ambiguous*: the message may be stored. So it is published again, under the same message id,
//! until it is confirmed or its time is over; whoever consumes knows duplicates by that id. What one channel does is in
//! [`super::window`], how the connection comes back in [`super::link`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lapin::options::ConfirmSelectOptions;
use lapin::{Channel, Connection};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::link::{Ending, Link, Role, Standing, Watch, supervise};
use super::message::properties;
use super::window::{self, Job, Outcome, Outgoing};
use super::{Settings, Shared};
use crate::broker::compression::Encoded;
use crate::broker::envelope::Envelope;
use crate::broker::{Item, PublishError, fail};
use crate::delivery::{Checkpoint, Delivery};
use crate::shutdown::Tasks;

/// How many publishes may be in flight. More would only wait longer, and use more memory.
const IN_FLIGHT: usize = 512;
/// How long to wait before a message that was refused or returned is published again.
const AGAIN: Duration = Duration::from_millis(200);

/// How long what is published in order may take to be confirmed: nobody waits for an answer, and a second copy of all of it
/// would make a slow broker slower.
const IN_ORDER: Duration = Duration::from_secs(10);

/// The publishing side of RabbitMQ.
#[derive(Debug)]
pub(super) struct Publisher {
    shared: Arc<Shared>,
    link: Link<Windows>,
    in_flight: Arc<Semaphore>,
    /// The lesser of the configured limit and the broker's own, learnt when it refuses a message for its size.
    limit: Arc<AtomicUsize>,
}

impl Publisher {
    /// Starts to connect.
    pub(super) fn start(shared: &Arc<Shared>, tasks: &Tasks, closing: &CancellationToken) -> Self {
        let limit = Arc::new(AtomicUsize::new(shared.settings.max_message));
        let role = Publishing { channels: shared.settings.channels.max(1), tasks: tasks.clone(), limit: limit.clone() };
        Self {
            shared: shared.clone(),
            link: supervise(role, shared, tasks, closing.child_token()),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT)),
            limit,
        }
    }

    /// See [`crate::broker::Broker::publish`]. A replay goes to its own queue alone: other consumers have
    /// seen it, and work doesn't wait for it.
    pub(super) async fn publish(&self, delivery: &Delivery) -> Result<(), PublishError> {
        let encoded = self.shared.settings.compression.encode(&delivery.body).await;
        self.persist(encoded.body.len(), || self.of_delivery(delivery, &encoded)).await
    }

    fn of_delivery(&self, delivery: &Delivery, encoded: &Encoded) -> Outgoing {
        let mut envelope = Envelope::of_delivery(delivery);
        envelope.content_encoding = encoded.encoding.map(Into::into);
        let names = &self.shared.names;
        let (exchange, routing_key) = match delivery.replay {
            None => (names.exchange.clone(), envelope.kind.as_ref().into()),
            Some(_) => ("".into(), names.replays.clone()),
        };
        Outgoing { exchange, routing_key, properties: properties(&envelope), body: encoded.body.clone() }
    }

    fn of_checkpoint(&self, checkpoint: &Checkpoint) -> Outgoing {
        Outgoing {
            exchange: "".into(),
            routing_key: self.shared.names.work.clone(),
            properties: properties(&Envelope::of_checkpoint(checkpoint)),
            body: Envelope::settled(checkpoint),
        }
    }

    /// See [`crate::broker::Broker::checkpoint`].
    pub(super) async fn checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), PublishError> {
        self.persist(0, || self.of_checkpoint(checkpoint)).await
    }

    /// See [`crate::broker::Broker::fits`].
    pub(super) async fn fits(&self, delivery: &Delivery) -> Result<(), PublishError> {
        // What is small enough as it is needn't be compressed to know.
        if delivery.body.len() <= self.limit.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.measure(self.shared.settings.compression.encode(&delivery.body).await.body.len())
    }

    fn measure(&self, size: usize) -> Result<(), PublishError> {
        let limit = self.limit.load(Ordering::Relaxed);
        if size > limit { Err(fail("too_large", PublishError::TooLarge { size, limit })) } else { Ok(()) }
    }

    /// See [`crate::broker::Broker::publish_in_order`]: all on one channel, each once.
    pub(super) async fn publish_in_order(&self, items: &[&Item]) -> Vec<Result<(), PublishError>> {
        let began = Instant::now();
        let mut messages = Vec::with_capacity(items.len());
        for item in items {
            messages.push(match item {
                Item::Delivery(delivery) => {
                    let encoded = self.shared.settings.compression.encode(&delivery.body).await;
                    self.measure(encoded.body.len()).map(|()| self.of_delivery(delivery, &encoded))
                }
                Item::Checkpoint(checkpoint) => Ok(self.of_checkpoint(checkpoint)),
            });
        }
        let Some(windows) = self.windows(began + self.shared.settings.publish_timeout).await else {
            let reason = self.link.now().trouble().unwrap_or_else(|| Failure::NotConnected.to_string());
            let failed = |message: Result<_, _>| message.and(Err(PublishError::Unavailable(reason.clone())));
            return messages.into_iter().map(failed).collect();
        };
        // What one channel is given in order it stores in order.
        let deadline = Instant::now() + IN_ORDER;
        let mut begun = Vec::with_capacity(messages.len());
        for message in messages {
            begun.push(match message {
                Ok(message) => Ok(timeout_at(deadline, self.begin(windows.first(), message)).await),
                Err(too_large) => Err(too_large),
            });
        }
        let mut published = Vec::with_capacity(begun.len());
        for begun in begun {
            let outcome = match begun {
                Ok(Ok(Ok(answered))) => timeout_at(deadline, Self::outcome(answered)).await,
                Ok(Ok(Err(failure))) => Ok(Err(failure)),
                Ok(Err(elapsed)) => Err(elapsed),
                Err(too_large) => {
                    published.push(Err(too_large));
                    continue;
                }
            };
            published.push(outcome.unwrap_or(Err(Failure::NoConfirm)).map_err(|failure| {
                if matches!(failure, Failure::Returned(_)) && self.shared.settings.declare {
                    windows.ending.repair();
                }
                fail(failure.label(), failure.into())
            }));
        }
        published
    }

    /// How the publishing connection is doing.
    pub(super) fn watch(&self) -> Watch {
        self.link.watch()
    }

    /// Publishes until it is confirmed, or its time is over.
    async fn persist(&self, size: usize, message: impl Fn() -> Outgoing + Send) -> Result<(), PublishError> {
        let began = Instant::now();
        let Settings { publish_timeout, confirm_timeout, .. } = self.shared.settings;
        let deadline = began + publish_timeout;
        let mut failure = Failure::NotConnected;
        loop {
            self.measure(size)?;
            let Some(windows) = self.windows(deadline).await else {
                // What kept it from being tried again says more than how the last try ended.
                let standing = self.link.now();
                let label = if matches!(standing, Standing::Blocked(_)) { "blocked" } else { failure.label() };
                let reason = standing.trouble().unwrap_or_else(|| failure.to_string());
                return Err(fail(label, PublishError::Unavailable(reason)));
            };
            failure =
                match self.attempt(windows.next(), message(), deadline.min(Instant::now() + confirm_timeout)).await {
                    Ok(()) => {
                        metrics::histogram!("rollcall_broker_publish_seconds").record(began.elapsed());
                        return Ok(());
                    }
                    Err(failure) => failure,
                };
            if let Failure::Returned(_) = failure
                && self.shared.settings.declare
            {
                windows.ending.repair();
            }
            let again = Instant::now() + AGAIN;
            match failure {
                Failure::Returned(_) | Failure::Refused if again < deadline => sleep_until(again).await,
                _ if Instant::now() < deadline => {}
                _ => return Err(fail(failure.label(), failure.into())),
            }
        }
    }

    async fn windows(&self, deadline: Instant) -> Option<Arc<Windows>> {
        if let Standing::Up(windows) = self.link.now()
            && !windows.ending.is_over()
        {
            return Some(windows);
        }
        timeout_at(deadline, self.link.session(|windows| !windows.ending.is_over())).await.ok().flatten()
    }

    async fn attempt(
        &self,
        window: &mpsc::UnboundedSender<Job>,
        message: Outgoing,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let publishing = async { Self::outcome(self.begin(window, message).await?).await };
        timeout_at(deadline, publishing).await.unwrap_or(Err(Failure::NoConfirm))
    }

    async fn begin(
        &self,
        window: &mpsc::UnboundedSender<Job>,
        message: Outgoing,
    ) -> Result<oneshot::Receiver<Outcome>, Failure> {
        let place = self.in_flight.clone().acquire_owned().await.map_err(|_| Failure::Lost)?;
        let (answer, answered) = oneshot::channel();
        window.send(Job { message, answer, place }).map_err(|_| Failure::Lost)?;
        Ok(answered)
    }

    async fn outcome(answered: oneshot::Receiver<Outcome>) -> Result<(), Failure> {
        match answered.await {
            Ok(Outcome::Confirmed) => Ok(()),
            Ok(Outcome::Returned(why)) => Err(Failure::Returned(why)),
            Ok(Outcome::Refused) => Err(Failure::Refused),
            Err(_) => Err(Failure::Lost),
        }
    }
}

/// How a try ended.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("not connected to RabbitMQ")]
    NotConnected,
    #[error("no queue took it ({0})")]
    Returned(String),
    #[error("RabbitMQ refused to store it")]
    Refused,
    #[error("RabbitMQ didn't confirm it in time")]
    NoConfirm,
    #[error("the connection to RabbitMQ broke before the confirm")]
    Lost,
}

impl Failure {
    const fn label(&self) -> &'static str {
        match self {
            Self::NotConnected => "not_connected",
            Self::Returned(_) => "returned",
            Self::Refused => "refused",
            Self::NoConfirm => "no_confirm",
            Self::Lost => "lost",
        }
    }
}

impl From<Failure> for PublishError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Returned(_) => Self::Unroutable(failure.to_string()),
            _ => Self::Unavailable(failure.to_string()),
        }
    }
}

/// The channels of one publishing connection.
#[derive(Debug)]
pub(super) struct Windows {
    windows: Vec<mpsc::UnboundedSender<Job>>,
    turn: AtomicUsize,
    ending: Ending,
    /// Kept open until the session is dropped.
    _channels: Vec<Channel>,
}

impl Windows {
    /// The one for what is published in order.
    fn first(&self) -> &mpsc::UnboundedSender<Job> {
        &self.windows[0]
    }

    fn next(&self) -> &mpsc::UnboundedSender<Job> {
        &self.windows[self.turn.fetch_add(1, Ordering::Relaxed) % self.windows.len()]
    }
}

struct Publishing {
    channels: u16,
    tasks: Tasks,
    limit: Arc<AtomicUsize>,
}

impl Role for Publishing {
    type Session = Windows;
    const NAME: &'static str = "publisher";

    async fn build(&self, connection: &Connection, ending: &Ending) -> Result<Windows, lapin::Error> {
        let mut windows = Vec::new();
        let mut channels = Vec::new();
        for _ in 0..self.channels {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            let (sender, jobs) = mpsc::unbounded_channel();
            let limit = self.limit.clone();
            let learn = move |most| {
                limit.fetch_min(most, Ordering::Relaxed);
            };
            channels.push(channel.clone());
            let window = window::run(channel, connection.status().clone(), jobs, ending.clone(), learn);
            self.tasks.essential_once("RabbitMQ publishing window", window);
            windows.push(sender);
        }
        Ok(Windows { windows, turn: AtomicUsize::new(0), ending: ending.clone(), _channels: channels })
    }

    /// The windows themselves see when nothing is confirmed any more.
    async fn check(&self, _: &Windows) -> Result<(), String> {
        Ok(())
    }
}
