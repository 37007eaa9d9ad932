//! How long to wait before something that failed is tried again.

use std::time::Duration;

use crate::backoff::Backoff;

/// The pauses between attempts.
const PAUSES: Backoff = Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(10) };

/// The pause after that many failed attempts before this one.
pub(super) fn pause(attempt: u32) -> Duration {
    PAUSES.pause(attempt, fastrand::f64())
}
