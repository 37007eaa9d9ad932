//! RabbitMQ behind the broker port.
//!
//! It owns every AMQP connection of the process: one for publishing, one for each consumer, because a broker short of
//! memory blocks a publishing connection as a whole, acks included. Each is rebuilt by its own supervisor ([`link`]):
//! lapin's recovery gives up on the first conflicting declaration, and a broker that comes back must always be enough.
//! It must not know what a delivery means.
//!
//! For consumers of other programs the exchange is a public interface: a topic exchange `<prefix>.deliveries`, routing
//! key `<provider>.<event>.<action>`, the signed bytes as body (compressed if `content_encoding` says so), and the
//! properties and headers listed in [`message`].

mod acks;
mod consume;
pub mod definitions;
pub mod doctor;
mod link;
mod management;
mod message;
mod publish;
mod topology;
mod window;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};
use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::consume::INITIAL_PREFETCH;
use self::consume::RabbitMqConsumer;
use self::link::Watch;
use self::publish::Publisher;
use self::topology::Names;
pub use crate::broker::compression::Compression;
use crate::broker::{Broker, Consumer, Health, Item, PublishError, State};
use crate::delivery::{Checkpoint, Delivery};
use crate::shutdown::Tasks;

/// How to reach RabbitMQ and what to expect of it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `amqp://` or `amqps://`, with user, password and virtual host. Never printed.
    pub url: SecretString,
    /// What the names of exchange and queues begin with.
    pub prefix: String,
    /// The largest body to publish, in bytes, as it travels. The broker's own limit counts too, once it is known.
    pub max_message: usize,
    /// How bodies travel.
    pub compression: Compression,
    /// How long to wait for one confirm before the message is published again.
    pub confirm_timeout: Duration,
    /// How long a publish may take, reconnecting included.
    pub publish_timeout: Duration,
    /// Whether to declare exchange, queues and binding, or only check that they are there.
    pub declare: bool,
    /// After how many returns to the queue the broker gives up on a message and parks it.
    pub delivery_limit: u32,
    /// How many channels to publish on.
    pub channels: u16,
}

impl Settings {
    /// The defaults for a broker at `url`.
    #[must_use]
    pub fn new(url: SecretString) -> Self {
        Self {
            url,
            prefix: "rollcall".to_owned(),
            max_message: 16 * 1024 * 1024,
            compression: Compression::default(),
            confirm_timeout: Duration::from_secs(2),
            publish_timeout: Duration::from_secs(6),
            declare: true,
            delivery_limit: 1000,
            channels: 4,
        }
    }
}

/// The settings can't be used. Says nothing of the URL's content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

/// RabbitMQ as a [`Broker`]. Dropping it closes its connections.
#[derive(Debug)]
pub struct RabbitMq {
    shared: Arc<Shared>,
    publisher: Publisher,
    consumers: Mutex<Vec<Watch>>,
    closing: CancellationToken,
    tasks: Tasks,
    _close_on_drop: DropGuard,
}

/// What all connections have in common.
struct Shared {
    uri: AMQPUri,
    names: Names,
    settings: Settings,
}

impl std::fmt::Debug for Shared {
    /// Leaves the parsed address out: it holds the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Removes exchange and queues with all that is in them. For trials that leave nothing behind.
///
/// # Errors
/// If RabbitMQ can't be reached within a few seconds, or refuses.
pub async fn remove(settings: &Settings) -> Result<(), RemoveError> {
    let uri = address(&settings.url).map_err(|error| RemoveError(error.0))?;
    let names = Names::new(&settings.prefix).map_err(RemoveError)?;
    let removing = async {
        let connection = Connection::connect_uri(uri, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.exchange_delete(names.exchange, ExchangeDeleteOptions::default()).await?;
        for queue in [names.work, names.replays, names.parked] {
            channel.queue_delete(queue, QueueDeleteOptions::default()).await?;
        }
        connection.close(200, "OK".into()).await
    };
    match tokio::time::timeout(REMOVE, removing).await {
        Ok(removed) => removed.map_err(|error| RemoveError(topology::explain(&error))),
        Err(_) => Err(RemoveError("RabbitMQ didn't answer".to_owned())),
    }
}

/// Exchange and queues can't be removed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RemoveError(String);

/// How long removing may take.
const REMOVE: Duration = Duration::from_secs(10);

impl RabbitMq {
    /// Starts to connect, in the background: a broker that isn't there yet is an outage like any other.
    ///
    /// # Errors
    /// If the URL or the prefix can't be used.
    pub fn connect(settings: Settings, tasks: &Tasks) -> Result<Self, SettingsError> {
        let shared = Arc::new(Shared {
            uri: address(&settings.url)?,
            names: Names::new(&settings.prefix).map_err(SettingsError)?,
            settings,
        });
        let closing = tasks.token().child_token();
        Ok(Self {
            publisher: Publisher::start(&shared, tasks, &closing),
            shared,
            consumers: Mutex::default(),
            tasks: tasks.clone(),
            _close_on_drop: closing.clone().drop_guard(),
            closing,
        })
    }

    fn links(&self) -> Vec<Watch> {
        let mut consumers = self.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        consumers.retain(|consumer| !consumer.is_over());
        std::iter::once(self.publisher.watch()).chain(consumers.iter().cloned()).collect()
    }
}

fn address(url: &SecretString) -> Result<AMQPUri, SettingsError> {
    // The parser's own message may quote the URL, password and all.
    let mut uri: AMQPUri = url.expose_secret().parse().map_err(|_| {
        SettingsError("the broker's URL isn't an AMQP address; write amqp://user:password@host:5672/%2f".to_owned())
    })?;
    uri.query.heartbeat.get_or_insert(HEARTBEAT);
    Ok(uri)
}

/// Seconds between signs of life; a connection without any for twice as long is dead.
const HEARTBEAT: u16 = 10;

#[async_trait]
impl Broker for RabbitMq {
    async fn publish(&self, delivery: &Delivery) -> Result<(), PublishError> {
        self.publisher.publish(delivery).await
    }

    async fn checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), PublishError> {
        self.publisher.checkpoint(checkpoint).await
    }

    async fn publish_in_order(&self, items: &[&Item]) -> Vec<Result<(), PublishError>> {
        self.publisher.publish_in_order(items).await
    }

    async fn fits(&self, delivery: &Delivery) -> Result<(), PublishError> {
        self.publisher.fits(delivery).await
    }

    async fn consume(&self, prefetch: u16) -> Box<dyn Consumer> {
        let consumer = RabbitMqConsumer::start(&self.shared, &self.tasks, &self.closing, prefetch);
        self.consumers.lock().unwrap_or_else(PoisonError::into_inner).push(consumer.watch());
        Box::new(consumer)
    }

    fn health(&self) -> Health {
        let mut worst: Option<Health> = None;
        for health in self.links().iter().map(Watch::health) {
            let worse = worst.as_ref().is_none_or(|worst| worst.state == State::Ok && health.state != State::Ok);
            if worse {
                worst = Some(health);
            }
        }
        worst.unwrap_or_else(|| self.publisher.watch().health())
    }

    fn publishing(&self) -> Health {
        self.publisher.watch().health()
    }

    async fn close(&self) {
        let links = self.links();
        self.closing.cancel();
        for link in links {
            link.over().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unusable_url_is_refused_without_being_shown() {
        let error = address(&"amqpx://user:hunter2@host".into()).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        let settings = Settings::new("amqp://user:hunter2@host/%2f".into());
        assert!(!format!("{settings:?}").contains("hunter2"));
        let shared = Shared { uri: address(&settings.url).unwrap(), names: Names::new("rollcall").unwrap(), settings };
        assert!(!format!("{shared:?}").contains("hunter2"));
    }
}
