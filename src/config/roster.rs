//! `[roster]`: how often rosters are read, for sources that have an `api_token`.

use std::time::Duration;

use super::layers::Layers;

/// The section's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roster {
    /// Whether they are read on a schedule.
    pub enabled: bool,
    /// How long after a reading the next one begins.
    pub every: Duration,
    /// How far apart the two readings must lie that a difference needs.
    pub apart: Duration,
}

impl Roster {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        let enabled = layers.required("roster.enabled");
        let (every, apart) = (layers.required("roster.every"), layers.required("roster.apart"));
        Some(Self { enabled: enabled?, every: every?, apart: apart? })
    }
}
