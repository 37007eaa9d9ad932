//! `[evidence]`: how often the ledger's history is sealed.

use std::time::Duration;

use super::layers::Layers;

/// The section's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// How long after a seal the next one is made.
    pub seal_every: Duration,
}

impl Evidence {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        let seal_every: Duration = layers.required("evidence.seal_every")?;
        if seal_every.is_zero() {
            layers
                .blame_value("evidence.seal_every", "must be more than nothing: each seal asks the ledger what is new");
        }
        Some(Self { seal_every })
    }
}
