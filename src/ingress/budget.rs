//! The memory that the bodies of all requests may take together, with a reserve that only small ones may use.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::SMALL_BODY;

#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicUsize,
    total: usize,
    /// What bodies that aren't small may fill: the total without the reserve.
    for_all: usize,
}

impl Budget {
    pub(super) const fn new(total: usize, small_reserve: usize) -> Self {
        Self { used: AtomicUsize::new(0), total, for_all: total.saturating_sub(small_reserve) }
    }

    /// A hold of nothing yet, for a body that says it will have `expected` bytes.
    pub(super) const fn hold(&self, expected: usize) -> Held<'_> {
        Held { budget: self, bytes: 0, expected }
    }
}

/// What one body holds of the budget. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Held<'a> {
    budget: &'a Budget,
    bytes: usize,
    expected: usize,
}

impl Held<'_> {
    /// Takes more. Returns whether there was enough.
    pub(super) fn grow(&mut self, more: usize) -> bool {
        let small = self.expected.max(self.bytes.saturating_add(more)) <= SMALL_BODY;
        let limit = if small { self.budget.total } else { self.budget.for_all };
        let fits = |used: usize| used.checked_add(more).filter(|used| *used <= limit);
        let taken = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if taken {
            self.bytes += more;
        }
        taken
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_cannot_take_the_reserve_and_small_ones_can() {
        let budget = Budget::new(3 * SMALL_BODY, SMALL_BODY);
        let mut large = budget.hold(SMALL_BODY + 1);
        assert!(large.grow(2 * SMALL_BODY));
        assert!(!large.grow(1));
        let mut small = budget.hold(0);
        assert!(small.grow(SMALL_BODY));
        assert!(!budget.hold(0).grow(1));
        drop(large);
        assert!(budget.hold(0).grow(1));
    }

    #[test]
    fn a_body_that_outgrows_what_is_small_loses_the_reserve() {
        let budget = Budget::new(3 * SMALL_BODY, 2 * SMALL_BODY);
        let mut body = budget.hold(0);
        assert!(body.grow(SMALL_BODY));
        assert!(!body.grow(1));
    }
}
