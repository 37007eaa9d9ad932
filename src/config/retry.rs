//! `[retry]`: when a failed account is tried again.

use std::time::Duration;

use super::layers::Layers;

/// The section's settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// The wait after the first failure.
    pub first: Duration,
    /// How much longer each further wait is; at least 1.
    pub factor: f64,
    /// The longest wait.
    pub max: Duration,
    /// How many failed attempts an account has before it is parked.
    pub attempts: u32,
    /// How often a waiting account is looked at again.
    pub waiting: Duration,
    /// How long after a call that was never answered its account is looked at once more.
    pub second_look: Duration,
}

impl Retry {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        let first = layers.required("retry.first");
        let factor = layers.required("retry.factor");
        let max = layers.required("retry.max");
        let attempts = layers.required("retry.attempts");
        let waiting = layers.required("retry.waiting");
        let second_look = layers.required("retry.second_look");
        let retry = Self {
            first: first?,
            factor: factor?,
            max: max?,
            attempts: attempts?,
            waiting: waiting?,
            second_look: second_look?,
        };
        if retry.factor < 1.0 {
            layers.blame_value("retry.factor", "must be at least 1, else the waits become shorter and shorter");
        }
        if retry.first > retry.max {
            layers.blame_value("retry.first", "must be at most retry.max");
        }
        Some(retry)
    }
}
