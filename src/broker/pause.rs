//! How long to wait before something that failed is tried again.

use std::time::Duration;

/// The first pause between attempts, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Doubles with each attempt, with up to half taken off at random so that a fleet doesn't come back as one.
pub(super) fn pause(attempt: u32) -> Duration {
    let (first, longest) = PAUSES;
    let pause = first.saturating_mul(2_u32.saturating_pow(attempt)).min(longest);
    pause.mul_f64(1.0 - fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_differ() {
        for attempt in 0..100 {
            let pause = pause(attempt);
            assert!(pause >= Duration::from_millis(100) && pause <= Duration::from_secs(10), "{attempt}: {pause:?}");
        }
        assert!(pause(0) <= Duration::from_millis(200));
        assert!(pause(9) >= Duration::from_secs(5));
    }
}
