//! `[broker]`: RabbitMQ, or the embedded broker if no address is given.

use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;

use super::layers::Layers;
use super::secret::UrlRef;
use super::value::{Setting, Written};
use crate::broker::rabbitmq::Compression;

/// The section's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// RabbitMQ's address; none for the embedded broker.
    pub url: Option<UrlRef>,
    /// What the names of exchange and queues begin with.
    pub prefix: String,
    /// The largest message in bytes.
    pub max_message: ByteSize,
    /// How bodies travel through RabbitMQ.
    pub compression: Compression,
    /// How many unacked messages a worker holds.
    pub prefetch: u16,
    /// How many bytes of bodies a worker decodes at a time.
    pub max_batch: ByteSize,
    /// Whether to declare exchange, queues and bindings.
    pub declare: bool,
    /// How long to wait for one confirm.
    pub confirm_timeout: Duration,
    /// How long to try to publish one delivery in all.
    pub publish_timeout: Duration,
}

impl Setting for Compression {
    fn read(written: Written<'_>, _: &Path) -> Result<Self, String> {
        match written.text("lz4 or none")? {
            "lz4" => Ok(Self::Lz4),
            "none" => Ok(Self::None),
            _ => Err("must be lz4 or none".to_owned()),
        }
    }
}

impl Broker {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        let url = layers.optional("broker.url");
        let prefix = layers.required("broker.prefix");
        let max_message = layers.required("broker.max_message");
        let compression = layers.required("broker.compression");
        let prefetch = layers.required("broker.prefetch");
        let max_batch = layers.required("broker.max_batch");
        let declare = layers.required("broker.declare");
        let confirm_timeout = layers.required("broker.confirm_timeout");
        let publish_timeout = layers.required("broker.publish_timeout");
        let broker = Self {
            url: url?,
            prefix: prefix?,
            max_message: max_message?,
            compression: compression?,
            prefetch: prefetch?,
            max_batch: max_batch?,
            declare: declare?,
            confirm_timeout: confirm_timeout?,
            publish_timeout: publish_timeout?,
        };
        if let Some(UrlRef::Plain(url)) = &broker.url
            && !matches!(url.scheme(), "amqp" | "amqps")
        {
            layers.blame_value("broker.url", "must begin with amqp:// or amqps://");
        }
        let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if broker.prefix.len() > 100 || !broker.prefix.chars().all(usable) {
            layers.blame_value(
                "broker.prefix",
                "may only have letters, digits, '.', '-' and '_', and at most 100 of them",
            );
        }
        if broker.confirm_timeout > broker.publish_timeout {
            layers.blame_value("broker.confirm_timeout", "must be at most broker.publish_timeout");
        }
        Some(broker)
    }
}
