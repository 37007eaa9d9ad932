//! How fast deliveries are replayed: evenly, by tokio's clock.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};

use crate::delivery::InvalidName;

/// How many deliveries a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Rate {
    /// So many a second, more than none.
    PerSecond(f64),
    /// As many as go.
    Unlimited,
}

impl Rate {
    /// How long so many deliveries take; none if that isn't bounded by the rate.
    #[must_use]
    pub fn duration(self, deliveries: i64) -> Option<Duration> {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "an estimate for people")]
            Self::PerSecond(rate) => Duration::try_from_secs_f64(deliveries as f64 / rate).ok(),
            Self::Unlimited => None,
        }
    }
}

impl FromStr for Rate {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if matches!(text, "0" | "unlimited") {
            return Ok(Self::Unlimited);
        }
        // Less than one in a day is a mistake, and more than a million a second is no limit.
        text.parse()
            .ok()
            .filter(|rate: &f64| (1e-5..=1e6).contains(rate))
            .map(Self::PerSecond)
            .ok_or(InvalidName { what: "rate", why: "must be a number of deliveries a second, or \"unlimited\"" })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerSecond(rate) => write!(f, "{rate}"),
            Self::Unlimited => f.write_str("unlimited"),
        }
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

impl TryFrom<String> for Rate {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Gives out turns.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Rate,
    began: Instant,
    turns: AtomicU32,
}

impl Pace {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, began: Instant::now(), turns: AtomicU32::new(0) }
    }

    /// Waits for the next turn. What took longer is caught up with, so that the rate is right over the whole run.
    pub(super) async fn turn(&self) {
        let Rate::PerSecond(rate) = self.rate else { return };
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let after = Duration::try_from_secs_f64(f64::from(turn) / rate).unwrap_or(Duration::MAX);
        if let Some(at) = self.began.checked_add(after) {
            sleep_until(at).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_come_at_the_rate() {
        let began = Instant::now();
        let pace = Pace::new(Rate::PerSecond(20.0));
        for _ in 0..=40 {
            pace.turn().await;
        }
        let took = began.elapsed();
        assert!((Duration::from_secs(2)..Duration::from_millis(2100)).contains(&took), "{took:?}");
        let unlimited = Pace::new(Rate::Unlimited);
        for _ in 0..1000 {
            unlimited.turn().await;
        }
        assert_eq!(began.elapsed(), took);
    }

    #[test]
    fn rates_are_numbers_or_unlimited() {
        assert_eq!("unlimited".parse::<Rate>(), Ok(Rate::Unlimited));
        assert_eq!("0".parse::<Rate>(), Ok(Rate::Unlimited));
        assert_eq!("2.5".parse::<Rate>(), Ok(Rate::PerSecond(2.5)));
        assert_eq!(Rate::PerSecond(50.0).duration(100), Some(Duration::from_secs(2)));
        for wrong in ["-1", "fast", "NaN", "inf", "1e9", ""] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }
}
