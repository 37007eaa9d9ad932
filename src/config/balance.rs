//! `[balance]`: when an accepted delivery counts as missing.

use std::time::Duration;

use super::layers::Layers;

/// The section's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// How long a delivery may be on its way after a later one was recorded.
    pub after: Duration,
}

impl Balance {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        let after: Duration = layers.required("balance.after")?;
        if after.is_zero() {
            layers.blame_value("balance.after", "must be more than nothing: deliveries overtake each other");
        }
        Some(Self { after })
    }
}
