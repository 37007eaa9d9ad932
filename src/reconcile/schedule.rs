//! When to try again: exponential backoff with jitter, as a pure function.

use std::time::Duration;

/// The schedule of retries after transient failures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The delay after the first failure.
    pub first: Duration,
    /// What each further delay is multiplied with, at least 1.
    pub factor: f64,
    /// The longest delay.
    pub max: Duration,
    /// How many tries there are in all; after the last one the account is parked.
    pub attempts: u32,
}

impl Schedule {
    /// The delay after that many failures (from 1), or none if there are no tries left. `chance` in 0..1 spreads the
    /// delays by a tenth to both sides, so that accounts that failed together don't come back together.
    #[must_use]
    pub fn delay(&self, failures: u32, chance: f64) -> Option<Duration> {
        if failures >= self.attempts {
            return None;
        }
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let base = self.first.as_secs_f64() * self.factor.powi(exponent);
        let capped = base.min(self.max.as_secs_f64());
        let spread = capped * (0.9 + 0.2 * chance.clamp(0.0, 1.0));
        Some(Duration::try_from_secs_f64(spread).unwrap_or(self.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SCHEDULE: Schedule =
        Schedule { first: Duration::from_secs(2), factor: 2.0, max: Duration::from_secs(600), attempts: 12 };

    #[test]
    fn delays_double_up_to_the_longest() {
        let seconds: Vec<u64> = (1..12).map(|n| SCHEDULE.delay(n, 0.5).unwrap().as_secs()).collect();
        assert_eq!(seconds, [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
        assert_eq!(SCHEDULE.delay(12, 0.5), None);
        assert_eq!(
            Schedule { first: Duration::MAX, max: Duration::MAX, ..SCHEDULE }.delay(1, 1.0),
            Some(Duration::MAX)
        );
    }

    proptest! {
        #[test]
        fn a_delay_is_never_longer_than_the_longest_and_a_tenth(failures in 1_u32..5000, chance in 0.0_f64..1.0) {
            let patient = Schedule { attempts: u32::MAX, ..SCHEDULE };
            let delay = patient.delay(failures, chance).unwrap();
            prop_assert!(delay <= Duration::from_secs(660) && delay >= Duration::from_millis(1800));
        }
    }
}
