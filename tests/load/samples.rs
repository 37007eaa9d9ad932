//! What a run measured: how many in which time, and how long each took.

use std::time::Duration;

/// The latencies of everything that began after the warm-up and was confirmed in the measured time.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    micros: Vec<u32>,
    seconds: f64,
}

impl Samples {
    pub(crate) fn new(parts: impl IntoIterator<Item = Vec<u32>>, measured: Duration) -> Self {
        let mut micros: Vec<u32> = parts.into_iter().flatten().collect();
        micros.sort_unstable();
        Self { micros, seconds: measured.as_secs_f64() }
    }

    pub(crate) fn count(&self) -> usize {
        self.micros.len()
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.count() as f64 / self.seconds
    }

    /// The quantile in milliseconds.
    pub(crate) fn millis(&self, quantile: f64) -> f64 {
        let last = self.count().saturating_sub(1);
        let index = (last as f64 * quantile).round() as usize;
        self.micros.get(index).map_or(f64::NAN, |micros| f64::from(*micros) / 1000.0)
    }
}

/// A latency as it is kept.
pub(crate) fn micros(took: Duration) -> u32 {
    u32::try_from(took.as_micros()).unwrap_or(u32::MAX)
}
