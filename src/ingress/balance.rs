//! The sequence numbers of one source in one run, and how far they are settled.
//!
//! A number is handed out right before a publish. It is settled when that publish was confirmed, or when it failed for
//! the client, by error, time-out or disconnect: then the number is *void*. A checkpoint tells the highest number below
//! which all are settled, and the voids, so that the ledger can tell a lost delivery from one that was never accepted.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many voids one checkpoint lists at most, so that its message stays small after a long outage.
const MAX_VOIDS: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Balance {
    handed_out: AtomicU64,
    settled: Mutex<Settled>,
}

#[derive(Debug, Default)]
struct Settled {
    /// Every number up to this one is settled.
    low: u64,
    /// Settled numbers above it.
    ahead: BTreeSet<u64>,
    /// Voids that no confirmed checkpoint has listed.
    voids: BTreeSet<u64>,
    /// The sequence of the last confirmed checkpoint.
    told: u64,
}

/// What a checkpoint is to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) sequence: u64,
    pub(super) voids: Vec<u64>,
}

impl Balance {
    /// Hands out the next number. It is void unless the ticket is confirmed.
    pub(super) fn draw(&self) -> Ticket<'_> {
        let number = self.handed_out.fetch_add(1, Ordering::Relaxed) + 1;
        Ticket { balance: self, number, confirmed: false }
    }

    /// What there is to tell since the last confirmed checkpoint.
    pub(super) fn progress(&self) -> Option<Progress> {
        let settled = self.settled();
        let mut reached = settled.voids.range(..=settled.low);
        let voids: Vec<u64> = reached.by_ref().take(MAX_VOIDS).copied().collect();
        // Beyond the last void that is listed nothing may be claimed yet: an unlisted void would look like a gap.
        let sequence = reached.next().map_or(settled.low, |unlisted| unlisted - 1);
        (sequence > settled.told || !voids.is_empty()).then_some(Progress { sequence, voids })
    }

    /// What was told last: for a checkpoint that has other news.
    pub(super) fn settled_so_far(&self) -> Progress {
        Progress { sequence: self.settled().told, voids: Vec::new() }
    }

    /// A checkpoint that told this was confirmed.
    pub(super) fn told(&self, progress: &Progress) {
        let mut settled = self.settled();
        settled.told = settled.told.max(progress.sequence);
        for void in &progress.voids {
            settled.voids.remove(void);
        }
    }

    fn settle(&self, number: u64, confirmed: bool) {
        let mut settled = self.settled();
        if !confirmed {
            settled.voids.insert(number);
        }
        if number != settled.low + 1 {
            settled.ahead.insert(number);
            return;
        }
        settled.low = number;
        while settled.ahead.first().is_some_and(|first| *first == settled.low + 1) {
            settled.ahead.pop_first();
            settled.low += 1;
        }
    }

    fn settled(&self) -> MutexGuard<'_, Settled> {
        // Held for a few instructions that can't panic, so a poisoned lock holds sound data.
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number that was handed out. Dropping it without [`Ticket::confirm`], as happens when a client hangs up, voids it.
#[derive(Debug)]
pub(super) struct Ticket<'a> {
    balance: &'a Balance,
    number: u64,
    confirmed: bool,
}

impl Ticket<'_> {
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// The delivery with this number is durable.
    pub(super) fn confirm(mut self) {
        self.confirmed = true;
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.balance.settle(self.number, self.confirmed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(sequence: u64, voids: &[u64]) -> Option<Progress> {
        Some(Progress { sequence, voids: voids.to_vec() })
    }

    #[test]
    fn numbers_start_at_one_and_nothing_is_told_before_the_first() {
        let balance = Balance::default();
        assert_eq!(balance.progress(), None);
        assert_eq!(balance.draw().number(), 1);
        assert_eq!(balance.draw().number(), 2);
    }

    #[test]
    fn a_checkpoint_stops_below_the_first_number_in_work() {
        let balance = Balance::default();
        let (first, second, third) = (balance.draw(), balance.draw(), balance.draw());
        third.confirm();
        assert_eq!(balance.progress(), None);
        first.confirm();
        assert_eq!(balance.progress(), progress(1, &[]));
        second.confirm();
        assert_eq!(balance.progress(), progress(3, &[]));
    }

    #[test]
    fn a_void_is_told_until_a_checkpoint_with_it_was_confirmed() {
        let balance = Balance::default();
        balance.draw().confirm();
        drop(balance.draw());
        let first = balance.progress().unwrap();
        assert_eq!(Some(first.clone()), progress(2, &[2]));
        balance.draw().confirm();
        assert_eq!(balance.progress(), progress(3, &[2]));
        balance.told(&first);
        assert_eq!(balance.progress(), progress(3, &[]));
        balance.told(&balance.progress().unwrap());
        assert_eq!(balance.progress(), None);
    }

    #[test]
    fn many_voids_are_told_in_pieces_that_claim_no_more_than_they_list() {
        let balance = Balance::default();
        for _ in 0..=MAX_VOIDS {
            drop(balance.draw());
        }
        let piece = balance.progress().unwrap();
        assert_eq!((piece.sequence, piece.voids.len()), (10_000, MAX_VOIDS));
        balance.told(&piece);
        assert_eq!(balance.progress(), progress(10_001, &[10_001]));
    }
}
