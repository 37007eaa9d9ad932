//! `[sweep]`: when all accounts are compared with the platform, and how long one may wait.

use std::path::Path;
use std::time::Duration;

use super::layers::Layers;
use super::value::{Setting, Written};

/// The section's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// How long after a sweep the next one is; none for never.
    pub every: Option<Duration>,
    /// How long an account may wait for its identity or its person before it is parked.
    pub waiting: Duration,
}

/// A duration, or `off`.
struct Every(Option<Duration>);

impl Setting for Every {
    fn read(written: Written<'_>, folder: &Path) -> Result<Self, String> {
        if written.text("a duration, or \"off\"")? == "off" {
            return Ok(Self(None));
        }
        Duration::read(written, folder).map(|every| Self(Some(every))).map_err(|error| format!("{error}; or \"off\""))
    }
}

impl Sweep {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        let every = layers.required::<Every>("sweep.every");
        let waiting = layers.required("sweep.waiting");
        Some(Self { every: every?.0, waiting: waiting? })
    }
}
