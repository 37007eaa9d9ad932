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
use crate::broker::envelope::Envelope;
use crate::broker::{PublishError, fail};
use crate::delivery::{Checkpoint, Delivery};
use crate::shutdown::Tasks;

/// How many publishes may be in flight. More would only wait longer, and use more memory.
const IN_FLIGHT: usize = 512;
/// How long to wait before a message that was refused or returned is published again.
const AGAIN: Duration = Duration::from_millis(200);

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
        self.persist(encoded.body.len(), || {
            let envelope = Envelope::of_delivery(delivery);
            let names = &self.shared.names;
            let (exchange, routing_key) = match delivery.replay {
                None => (names.exchange.clone(), envelope.kind.as_ref().into()),
                Some(_) => ("".into(), names.replays.clone()),
            };
            let mut properties = properties(&envelope);
            if let Some(encoding) = encoded.encoding {
                properties = properties.with_content_encoding(encoding.into());
            }
            Outgoing { exchange, routing_key, properties, body: encoded.body.clone() }
        })
        .await
    }

    /// See [`crate::broker::Broker::checkpoint`].
    pub(super) async fn checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), PublishError> {
        self.persist(0, || Outgoing {
            exchange: "".into(),
            routing_key: self.shared.names.work.clone(),
            properties: properties(&Envelope::of_checkpoint(checkpoint)),
            body: Envelope::voids(checkpoint),
        })
        .await
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
            let limit = self.limit.load(Ordering::Relaxed);
            if size > limit {
                return Err(fail("too_large", PublishError::TooLarge { size, limit }));
            }
            let Some(windows) = self.windows(deadline).await else {
                // What kept it from being tried again says more than how the last try ended.
                let standing = self.link.now();
                let label = if matches!(standing, Standing::Blocked(_)) { "blocked" } else { failure.label() };
                let reason = standing.trouble().unwrap_or_else(|| failure.to_string());
                return Err(fail(label, PublishError::Unavailable(reason)));
            };
            failure = match self.attempt(&windows, message(), deadline.min(Instant::now() + confirm_timeout)).await {
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
                _ => return Err(fail(failure.label(), PublishError::Unavailable(failure.to_string()))),
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

    async fn attempt(&self, windows: &Windows, message: Outgoing, deadline: Instant) -> Result<(), Failure> {
        let publishing = async {
            let place = self.in_flight.clone().acquire_owned().await.map_err(|_| Failure::Lost)?;
            let (answer, answered) = oneshot::channel();
            windows.next().send(Job { message, answer, place }).map_err(|_| Failure::Lost)?;
            match answered.await {
                Ok(Outcome::Confirmed) => Ok(()),
                Ok(Outcome::Returned(why)) => Err(Failure::Returned(why)),
                Ok(Outcome::Refused) => Err(Failure::Refused),
                Err(_) => Err(Failure::Lost),
            }
        };
        timeout_at(deadline, publishing).await.unwrap_or(Err(Failure::NoConfirm))
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
            self.tasks.spawn(window::run(channel, connection.status().clone(), jobs, ending.clone(), learn));
            windows.push(sender);
        }
        Ok(Windows { windows, turn: AtomicUsize::new(0), ending: ending.clone(), _channels: channels })
    }

    /// The windows themselves see when nothing is confirmed any more.
    async fn check(&self, _: &Windows) -> Result<(), String> {
        Ok(())
    }
}
