//! `[spool]`: where an ingress keeps what RabbitMQ doesn't take at the moment.

use std::time::Duration;

use bytesize::ByteSize;

use super::layers::Layers;

/// The section's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spool {
    /// Whether there is one; if nothing is said, that depends on the roles of the process.
    pub enabled: Option<bool>,
    /// How long a delivery may wait for RabbitMQ before it is written to the spool.
    pub after: Duration,
    /// How much it holds at most.
    pub max_bytes: ByteSize,
    /// How old the oldest delivery in it may be before it takes no new ones.
    pub max_age: Duration,
    /// How much it leaves free on its disk.
    pub min_free: ByteSize,
}

impl Spool {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        let enabled = layers.optional("spool.enabled");
        let after = layers.required("spool.after");
        let max_bytes = layers.required("spool.max_bytes");
        let max_age = layers.required("spool.max_age");
        let min_free = layers.required("spool.min_free");
        Some(Self { enabled: enabled?, after: after?, max_bytes: max_bytes?, max_age: max_age?, min_free: min_free? })
    }
}
