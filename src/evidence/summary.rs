//! The figures of a report.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

use crate::ledger::outcome::Outcome;
use crate::ledger::show::evidence::EvidenceRow;

/// A length of time, in microseconds in JSON and in words elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Took(pub i64);

impl Serialize for Took {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0)
    }
}

impl fmt::Display for Took {
    /// `120 ms`, `4.5 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0 / 1000;
        let seconds = millis / 1000;
        match seconds {
            ..1 => write!(f, "{millis} ms"),
            1..60 => write!(f, "{seconds}.{} s", millis % 1000 / 100),
            60..3_600 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            3_600..86_400 => write!(f, "{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
            _ => write!(f, "{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
        }
    }
}

/// How long it took from the receipt of changes to the platform's confirmation, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Delay {
    /// Half of them took no longer.
    pub median: Took,
    /// 95 of 100 took no longer.
    pub p95: Took,
    /// None took longer.
    pub worst: Took,
}

impl Delay {
    fn of(mut delays: Vec<i64>) -> Option<Self> {
        delays.sort_unstable();
        // The least value that so many of a hundred don't exceed.
        let of_hundred = |share: usize| delays.get((delays.len() * share).div_ceil(100).max(1) - 1).copied().map(Took);
        Some(Self { median: of_hundred(50)?, p95: of_hundred(95)?, worst: of_hundred(100)? })
    }
}

/// How many changes of one kind came to what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// The kind; `-` for deliveries that concern nobody yet.
    pub change: String,
    /// What became of them.
    pub outcome: Outcome,
    /// How many.
    pub count: i64,
}

/// The figures of a report.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// How many changes there were.
    pub changes: i64,
    /// How many of them the platform was told of, and confirmed.
    pub told: i64,
    /// How many of those the platform's own log has an entry of.
    pub evidenced: i64,
    /// How long it took; null if none was told.
    pub delay: Option<Delay>,
    /// By kind and outcome.
    pub counts: Vec<Count>,
    /// The deliveries of the period by outcome, those that say nothing about access included.
    pub deliveries: Vec<(Outcome, i64)>,
}

/// The figures, while the rows go by.
#[derive(Debug, Default)]
pub(super) struct Tally {
    changes: i64,
    evidenced: i64,
    delays: Vec<i64>,
    counts: BTreeMap<(String, Outcome), i64>,
}

impl Tally {
    pub(super) fn add(&mut self, row: &EvidenceRow, evidenced: bool) {
        self.changes += 1;
        self.evidenced += i64::from(evidenced);
        self.delays.extend(row.told.as_ref().map(|told| told.delay_us));
        let change = row.change.clone().unwrap_or_else(|| "-".to_owned());
        *self.counts.entry((change, row.outcome)).or_default() += 1;
    }

    pub(super) fn end(self, deliveries: Vec<(Outcome, i64)>) -> Summary {
        let counts = self.counts.into_iter().map(|((change, outcome), count)| Count { change, outcome, count });
        Summary {
            changes: self.changes,
            told: i64::try_from(self.delays.len()).unwrap_or(i64::MAX),
            evidenced: self.evidenced,
            delay: Delay::of(self.delays),
            counts: counts.collect(),
            deliveries,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_one_of_the_delays_and_the_worst_is_the_last() {
        assert_eq!(Delay::of(vec![]), None);
        let delay = |median, p95, worst| Some(Delay { median: Took(median), p95: Took(p95), worst: Took(worst) });
        assert_eq!(Delay::of(vec![7]), delay(7, 7, 7));
        assert_eq!(Delay::of((1..=100).rev().collect()), delay(50, 95, 100));
        assert_eq!(Delay::of(vec![3, 1, 2]), delay(2, 3, 3));
    }

    #[test]
    fn a_length_of_time_is_said_in_the_two_units_that_matter() {
        let shown =
            [120_000, 4_560_000, 200_000_000, 7_500_000_000, 273_600_000_000].map(|took| Took(took).to_string());
        assert_eq!(shown, ["120 ms", "4.5 s", "3 min 20 s", "2 h 5 min", "3 d 4 h"]);
    }
}
