//! What the spool holds, counted in memory: how many deliveries, how much of its room, and which numbers of which run.
//!
//! Room is taken before anything is written, so that no number of requests at once can go over the bound, and given back
//! when the write fails or the broker has the message. Pure: no IO; the time is an argument.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::Gauge;
use uuid::Uuid;

use crate::broker::Item;
use crate::broker::embedded::Stored;
use crate::broker::envelope::CHECKPOINT;
use crate::delivery::{SourceName, Timestamp};
use crate::telemetry::metrics as names;

/// What a message takes besides its body, in bytes.
const AROUND: u64 = 512;

/// What one message counts for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    bytes: u64,
    /// Whether it is a delivery; else it is a checkpoint.
    is_delivery: bool,
    /// The run and source whose number it bears.
    stamp: Option<(Uuid, SourceName, u64)>,
    received_at: Option<Timestamp>,
}

impl Share {
    pub(super) fn of(item: &Item) -> Self {
        match item {
            Item::Delivery(delivery) => Self {
                bytes: AROUND + delivery.body.len() as u64,
                is_delivery: true,
                stamp: delivery.stamp.map(|stamp| (stamp.run, delivery.source.clone(), stamp.sequence)),
                received_at: Some(delivery.received_at),
            },
            Item::Checkpoint(checkpoint) => Self {
                bytes: AROUND + (checkpoint.voids.len() * size_of::<u64>()) as u64,
                is_delivery: false,
                stamp: None,
                received_at: None,
            },
        }
    }

    pub(super) fn of_unreadable(length: usize) -> Self {
        Self { bytes: AROUND + length as u64, is_delivery: true, stamp: None, received_at: None }
    }

    fn of_stored(row: &Stored) -> Self {
        let is_delivery = row.kind != CHECKPOINT;
        let stamp = || {
            let run = Uuid::try_parse(row.run.as_deref()?).ok()?;
            Some((run, row.source.as_deref()?.parse().ok()?, u64::try_from(row.sequence?).ok()?))
        };
        Self {
            bytes: AROUND + u64::try_from(row.length).unwrap_or_default(),
            is_delivery,
            stamp: is_delivery.then(stamp).flatten(),
            received_at: row.received_at.map(Timestamp),
        }
    }
}

/// How much there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) max_bytes: u64,
    pub(super) max_age: Duration,
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// It would be more than `max_bytes`.
    Full,
    /// The oldest delivery is older than `max_age`.
    TooOld,
}

/// The counts.
#[derive(Debug)]
pub(super) struct Contents {
    bounds: Bounds,
    counts: Mutex<Counts>,
    deliveries: Gauge,
    bytes: Gauge,
    aside: Gauge,
}

#[derive(Debug, Default)]
struct Counts {
    deliveries: u64,
    bytes: u64,
    aside: u64,
    /// When the oldest delivery was received, as far as it is known.
    oldest: Option<Timestamp>,
    held: BTreeMap<(Uuid, SourceName), Numbers>,
}

/// How it looks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) deliveries: u64,
    pub(super) bytes: u64,
    pub(super) aside: u64,
    pub(super) oldest: Option<Timestamp>,
}

impl Contents {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            counts: Mutex::default(),
            deliveries: metrics::gauge!(names::SPOOL_DELIVERIES),
            bytes: metrics::gauge!(names::SPOOL_BYTES),
            aside: metrics::gauge!(names::SPOOL_ASIDE),
        }
    }

    /// Replaces all counts by those of what is stored.
    pub(super) fn load(&self, rows: &[Stored]) {
        let mut counts = self.counts();
        *counts = Counts::default();
        for row in rows {
            counts.add(&Share::of_stored(row));
        }
        self.show(&counts);
    }

    /// Takes room for a message. Whoever doesn't store it after all must [`Contents::remove`] it again.
    pub(super) fn add(&self, share: &Share, now: Timestamp) -> Result<(), NoRoom> {
        let mut counts = self.counts();
        self.bounds.check(&counts, share.bytes, now)?;
        counts.add(share);
        self.show(&counts);
        Ok(())
    }

    /// A message isn't there any more.
    pub(super) fn remove(&self, share: &Share) {
        let mut counts = self.counts();
        counts.remove(share);
        self.show(&counts);
    }

    /// A message is kept apart.
    pub(super) fn set_aside(&self, share: &Share) {
        let mut counts = self.counts();
        counts.remove(share);
        counts.aside += 1;
        self.show(&counts);
    }

    /// The oldest delivery is this old now.
    pub(super) fn oldest_is(&self, received_at: Timestamp) {
        self.counts().oldest = Some(received_at);
    }

    pub(super) fn look(&self) -> Look {
        let Counts { deliveries, bytes, aside, oldest, .. } = *self.counts();
        Look { deliveries, bytes, aside, oldest }
    }

    /// Whether there is no room even for a small delivery.
    pub(super) fn no_room(&self, now: Timestamp) -> Option<NoRoom> {
        const SMALL: u64 = 8 * 1024;
        self.bounds.check(&self.counts(), SMALL.min(self.bounds.max_bytes / 16), now).err()
    }

    /// The least number of that run and source.
    pub(super) fn least(&self, run: Uuid, source: &SourceName) -> Option<u64> {
        self.counts().held.get(&(run, source.clone())).and_then(Numbers::least)
    }

    /// The least number of every run and source.
    pub(super) fn all_least(&self) -> Vec<(Uuid, SourceName, u64)> {
        let counts = self.counts();
        let held = counts.held.iter();
        held.filter_map(|((run, source), numbers)| Some((*run, source.clone(), numbers.least()?))).collect()
    }

    fn show(&self, counts: &Counts) {
        self.deliveries.set(gauged(counts.deliveries));
        self.bytes.set(gauged(counts.bytes));
        self.aside.set(gauged(counts.aside));
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bounds {
    fn check(self, counts: &Counts, more: u64, now: Timestamp) -> Result<(), NoRoom> {
        if counts.oldest.is_some_and(|oldest| now.since(oldest) > self.max_age) {
            return Err(NoRoom::TooOld);
        }
        if counts.bytes.saturating_add(more) > self.max_bytes { Err(NoRoom::Full) } else { Ok(()) }
    }
}

impl Counts {
    fn add(&mut self, share: &Share) {
        self.bytes += share.bytes;
        if share.is_delivery {
            self.deliveries += 1;
            self.oldest = self.oldest.or(share.received_at);
        }
        if let Some((run, source, number)) = &share.stamp {
            self.held.entry((*run, source.clone())).or_default().insert(*number);
        }
    }

    fn remove(&mut self, share: &Share) {
        self.bytes = self.bytes.saturating_sub(share.bytes);
        if share.is_delivery {
            self.deliveries = self.deliveries.saturating_sub(1);
            if self.deliveries == 0 {
                self.oldest = None;
            }
        }
        if let Some((run, source, number)) = &share.stamp {
            let key = (*run, source.clone());
            if let Some(numbers) = self.held.get_mut(&key) {
                numbers.remove(*number);
                if numbers.least().is_none() {
                    self.held.remove(&key);
                }
            }
        }
    }
}

/// A set of numbers that mostly follow one another, as runs from first to last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Numbers(BTreeMap<u64, u64>);

impl Numbers {
    fn least(&self) -> Option<u64> {
        self.0.first_key_value().map(|(first, _)| *first)
    }

    fn insert(&mut self, number: u64) {
        let before = self.0.range(..=number).next_back().map(|(first, last)| (*first, *last));
        let first = match before {
            Some((_, last)) if last >= number => return,
            Some((first, last)) if last + 1 == number => first,
            _ => number,
        };
        let last = number.checked_add(1).and_then(|next| self.0.remove(&next)).unwrap_or(number);
        self.0.insert(first, last);
    }

    fn remove(&mut self, number: u64) {
        let Some((&first, &last)) = self.0.range(..=number).next_back() else { return };
        if number > last {
            return;
        }
        self.0.remove(&first);
        if first < number {
            self.0.insert(first, number - 1);
        }
        if number < last {
            self.0.insert(number + 1, last);
        }
    }
}

/// Gauges are floating point; no spool comes near where that matters.
fn gauged(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    let count = count as f64;
    count
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { max_bytes: 10 * AROUND, max_age: Duration::from_secs(60) };

    fn share(number: u64, received_at: i64) -> Share {
        Share {
            bytes: AROUND,
            is_delivery: true,
            stamp: Some((Uuid::from_u128(1), "acme".parse().unwrap(), number)),
            received_at: Some(Timestamp(received_at)),
        }
    }

    #[test]
    fn room_is_bounded_and_comes_back() {
        let contents = Contents::new(BOUNDS);
        for number in 1..=10 {
            contents.add(&share(number, 0), Timestamp(0)).unwrap();
        }
        assert_eq!(contents.add(&share(11, 0), Timestamp(0)), Err(NoRoom::Full));
        assert_eq!(contents.no_room(Timestamp(0)), Some(NoRoom::Full));
        contents.remove(&share(1, 0));
        contents.add(&share(11, 0), Timestamp(0)).unwrap();
        assert_eq!(contents.look().deliveries, 10);
    }

    #[test]
    fn what_is_too_old_keeps_new_deliveries_out_until_it_is_gone() {
        let contents = Contents::new(BOUNDS);
        contents.add(&share(1, 0), Timestamp(0)).unwrap();
        let late = Timestamp(60_000_001);
        assert_eq!(contents.add(&share(2, late.micros()), late), Err(NoRoom::TooOld));
        contents.remove(&share(1, 0));
        contents.add(&share(2, late.micros()), late).unwrap();
        assert_eq!(contents.look().oldest, Some(late));
    }

    #[test]
    fn the_least_number_of_a_run_is_known_until_all_are_gone() {
        let contents = Contents::new(BOUNDS);
        let (run, source) = (Uuid::from_u128(1), "acme".parse().unwrap());
        for number in [7, 5, 6] {
            contents.add(&share(number, 0), Timestamp(0)).unwrap();
        }
        assert_eq!(contents.least(run, &source), Some(5));
        contents.remove(&share(5, 0));
        assert_eq!(contents.all_least(), [(run, source.clone(), 6)]);
        contents.set_aside(&share(6, 0));
        contents.remove(&share(7, 0));
        assert_eq!(contents.least(run, &source), None);
        assert_eq!(contents.look(), Look { deliveries: 0, bytes: 0, aside: 1, oldest: None });
    }

    proptest! {
        #[test]
        fn numbers_are_a_set(steps in proptest::collection::vec((any::<bool>(), 0_u64..30), 0..100)) {
            let (mut numbers, mut set) = (Numbers::default(), BTreeSet::new());
            for (insert, number) in steps {
                if insert {
                    numbers.insert(number);
                    set.insert(number);
                } else {
                    numbers.remove(number);
                    set.remove(&number);
                }
                let all: Vec<u64> = numbers.0.iter().flat_map(|(first, last)| *first..=*last).collect();
                prop_assert_eq!(all, set.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(numbers.least(), set.first().copied());
            }
        }
    }
}
