//! The memory that the bodies of all requests may take together, with a reserve that only small ones may use.
//!
//! A small body is counted as it arrives. A large one is counted whole once it has shown that it is meant, by outgrowing
//! what is small: else many that come at once would crowd each other out half-way, and none be taken. Before a body is
//! published its copies ([`COPIES`]) are counted too. Those of large ones have room of their own, for which one waits for
//! another.

use std::sync::atomic::{AtomicUsize, Ordering};

use metrics::Gauge;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::{SMALL_BODY, TAKES};
use crate::telemetry::metrics::BODY_BYTES;

/// How often a body exists besides while it is published: once compressed, or as the database's value, and once in frames
/// or pages.
pub(super) const COPIES: usize = 2;

/// What the room for copies is counted in, in bytes: a semaphore can't count further than 32 bits.
const UNIT: usize = 1024;

#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicUsize,
    total: usize,
    /// What bodies that aren't small may fill: the total without the reserve and the room for copies.
    for_all: usize,
    copies: Semaphore,
    gauge: Gauge,
}

impl Budget {
    pub(super) fn new(budget: usize, small_reserve: usize) -> Self {
        let large = budget.saturating_sub(small_reserve);
        let copies = large / TAKES * COPIES;
        Self {
            used: AtomicUsize::new(0),
            total: budget - copies,
            for_all: large - copies,
            copies: Semaphore::new((copies / UNIT).min(Semaphore::MAX_PERMITS)),
            gauge: metrics::gauge!(BODY_BYTES),
        }
    }

    /// A hold of nothing yet, for a body that says it will have `expected` bytes.
    pub(super) const fn hold(&self, expected: usize) -> Held<'_> {
        Held { budget: self, bytes: 0, taken: 0, copies: 0, permit: None, expected }
    }

    fn take(&self, more: usize, limit: usize) -> bool {
        let fits = |used: usize| used.checked_add(more).filter(|used| *used <= limit);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if taken {
            self.show(more, true);
        }
        taken
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    fn show(&self, bytes: usize, more: bool) {
        self.gauge.increment(if more { bytes as f64 } else { -(bytes as f64) });
    }
}

/// What one body holds of the budget. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Held<'a> {
    budget: &'a Budget,
    /// The body so far.
    bytes: usize,
    /// What is taken for it: as much, or all that it said it would have.
    taken: usize,
    /// What a small body's copies take.
    copies: usize,
    /// What a large body's copies take.
    permit: Option<SemaphorePermit<'a>>,
    expected: usize,
}

impl Held<'_> {
    /// Takes more for the body. Returns whether there was enough.
    pub(super) fn grow(&mut self, more: usize) -> bool {
        let bytes = self.bytes.saturating_add(more);
        let wanted = if bytes > SMALL_BODY { self.expected.max(bytes) } else { bytes };
        let limit = if self.expected.max(bytes) <= SMALL_BODY { self.budget.total } else { self.budget.for_all };
        let fits = self.budget.take(wanted.saturating_sub(self.taken), limit);
        if fits {
            self.bytes = bytes;
            self.taken = self.taken.max(wanted);
        }
        fits
    }

    /// Takes what the copies of the body need. A small one doesn't wait for it. Returns whether there was enough in time.
    pub(super) async fn copy(&mut self, until: Instant) -> bool {
        let more = self.bytes * COPIES;
        if self.expected.max(self.bytes) <= SMALL_BODY {
            let taken = self.budget.take(more, self.budget.total);
            if taken {
                self.copies = more;
            }
            return taken;
        }
        let units = u32::try_from(more.div_ceil(UNIT)).unwrap_or(u32::MAX);
        self.permit = timeout_at(until, self.budget.copies.acquire_many(units)).await.ok().and_then(Result::ok);
        self.budget.show(self.permit.as_ref().map_or(0, |permit| permit.num_permits() * UNIT), true);
        self.permit.is_some()
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.taken + self.copies, Ordering::Relaxed);
        let waited = self.permit.as_ref().map_or(0, |permit| permit.num_permits() * UNIT);
        self.budget.show(self.taken + self.copies + waited, false);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;

    /// Room for two small bodies, which large ones may fill as well, and for one more small one, which they may not.
    fn budget() -> Budget {
        Budget::new(7 * SMALL_BODY, SMALL_BODY)
    }

    fn copies_at_once(held: &mut Held<'_>) -> bool {
        held.copy(Instant::now() + Duration::from_secs(1)).now_or_never().unwrap_or(false)
    }

    #[tokio::test]
    async fn large_bodies_cannot_take_the_reserve_and_small_ones_can() {
        let budget = budget();
        let mut large = budget.hold(SMALL_BODY + 1);
        assert!(large.grow(2 * SMALL_BODY));
        assert!(!large.grow(1));
        let mut small = budget.hold(0);
        assert!(small.grow(SMALL_BODY));
        assert!(!budget.hold(0).grow(1));
        drop(large);
        assert!(budget.hold(0).grow(1));
    }

    #[tokio::test]
    async fn a_large_body_that_has_begun_in_earnest_can_be_finished() {
        let budget = budget();
        let (mut first, mut second) = (budget.hold(2 * SMALL_BODY), budget.hold(2 * SMALL_BODY));
        assert!(first.grow(1) && second.grow(1), "that costs nothing yet");
        drop(second);
        assert!(first.grow(SMALL_BODY));
        assert!(!budget.hold(2 * SMALL_BODY).grow(1), "all is spoken for");
        assert!(first.grow(SMALL_BODY - 1));
    }

    #[tokio::test]
    async fn a_body_that_outgrows_what_is_small_loses_the_reserve() {
        let budget = budget();
        let mut body = budget.hold(0);
        let mut other = budget.hold(SMALL_BODY + 1);
        assert!(other.grow(SMALL_BODY) && body.grow(SMALL_BODY));
        assert!(!body.grow(1));
    }

    #[tokio::test]
    async fn copies_of_a_small_body_come_out_of_the_reserve_and_wait_for_nothing() {
        let budget = budget();
        let mut small = budget.hold(SMALL_BODY);
        assert!(small.grow(SMALL_BODY) && copies_at_once(&mut small));
        let mut next = budget.hold(0);
        assert!(!next.grow(1));
        drop(small);
        assert!(next.grow(1) && copies_at_once(&mut next));
    }

    #[tokio::test(start_paused = true)]
    async fn copies_of_large_bodies_wait_for_each_other_and_not_for_ever() {
        let budget = budget();
        let (mut first, mut second) = (budget.hold(SMALL_BODY + 1), budget.hold(SMALL_BODY + 1));
        assert!(first.grow(SMALL_BODY + 1) && second.grow(SMALL_BODY - 1));
        assert!(copies_at_once(&mut first) && !copies_at_once(&mut second));
        assert!(!second.copy(Instant::now() + Duration::from_secs(1)).await);
        drop(first);
        assert!(copies_at_once(&mut second));
        drop(second);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
        assert_eq!(budget.copies.available_permits() * UNIT, 4 * SMALL_BODY);
    }
}
