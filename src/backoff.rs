//! How long to wait before something outside is tried again: longer each time, and never the same for two processes,
//! so that a fleet doesn't come back as one when an outage ends.

use std::time::Duration;

/// Waits that double from the first to the longest, each with up to half taken off at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first failure.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl Backoff {
    /// The wait after that many failures before this one; `chance` in 0..1 says how much is taken off.
    #[must_use]
    pub fn pause(&self, failures: u32, chance: f64) -> Duration {
        let whole = self.first.saturating_mul(2_u32.saturating_pow(failures)).min(self.longest);
        let shorter = Duration::try_from_secs_f64(whole.as_secs_f64() * chance.clamp(0.0, 1.0) / 2.0);
        whole.saturating_sub(shorter.unwrap_or_default())
    }
}

/// A wait that somebody else has named or that is the same for all, lengthened by up to a tenth: what ends for many at
/// one moment doesn't begin for them at one.
#[must_use]
pub fn spread(wait: Duration, chance: f64) -> Duration {
    let longer = Duration::try_from_secs_f64(wait.as_secs_f64() * chance.clamp(0.0, 1.0) / 10.0);
    wait.saturating_add(longer.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(10) };

    #[test]
    fn pauses_grow_to_a_limit_and_differ() {
        let whole: Vec<u128> = (0..8).map(|failures| BACKOFF.pause(failures, 0.0).as_millis()).collect();
        assert_eq!(whole, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(BACKOFF.pause(0, 1.0), Duration::from_millis(100));
        assert_eq!(BACKOFF.pause(u32::MAX, 1.0), Duration::from_secs(5));
    }

    #[test]
    fn a_wait_is_never_shortened_by_being_spread() {
        let wait = Duration::from_secs(10);
        assert_eq!([spread(wait, 0.0), spread(wait, 1.0)], [wait, Duration::from_secs(11)]);
        assert_eq!(spread(Duration::MAX, 1.0), Duration::MAX);
        assert_eq!(Backoff { first: Duration::MAX, longest: Duration::MAX }.pause(1, 0.0), Duration::MAX);
    }
}
