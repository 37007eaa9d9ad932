//! `[recover]`: when providers are asked what they failed to deliver.

use std::time::Duration;

use super::layers::Layers;

/// The section's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recover {
    /// How often each source's provider is asked.
    pub every: Duration,
}

impl Recover {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        let every: Duration = layers.required("recover.every")?;
        if every.is_zero() {
            layers.blame_value("recover.every", "must be more than nothing; to switch it off, leave api_token out");
        }
        Some(Self { every })
    }
}
