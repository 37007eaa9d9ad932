//! Whether a source's deliveries verify at all. One of which every delivery is refused has the wrong secret, most likely,
//! and nobody would notice: refusals are counted and logged like any stranger's.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::broker::{Health, State};
use crate::delivery::Timestamp;

/// From so many refusals on, with nothing verified, it is said. Fewer may be a test, or a passing stranger.
const ENOUGH: u64 = 3;

/// What became of one source's signatures since the process began.
#[derive(Debug)]
pub(super) struct Signatures(Mutex<Tally>);

#[derive(Clone, Copy, Debug)]
struct Tally {
    /// Since when all is well, as far as it is.
    well_since: Timestamp,
    verified: bool,
    refused: u64,
    /// When the first was refused.
    refused_since: Option<Timestamp>,
}

impl Signatures {
    pub(super) const fn new(began: Timestamp) -> Self {
        Self(Mutex::new(Tally { well_since: began, verified: false, refused: 0, refused_since: None }))
    }

    /// A delivery was refused for its signature.
    pub(super) fn refused(&self, now: Timestamp) {
        let mut tally = self.tally();
        tally.refused = tally.refused.saturating_add(1);
        tally.refused_since.get_or_insert(now);
    }

    /// A delivery's signature was good.
    pub(super) fn verified(&self, now: Timestamp) {
        let mut tally = self.tally();
        if !tally.verified && tally.refused >= ENOUGH {
            tally.well_since = now;
        }
        tally.verified = true;
    }

    pub(super) fn health(&self) -> Health {
        let tally = *self.tally();
        match tally.refused_since {
            Some(since) if !tally.verified && tally.refused >= ENOUGH => {
                let refused = tally.refused;
                let reason =
                    format!("refused {refused} of {refused} deliveries for their signature: is the secret right?");
                Health { state: State::Degraded, reason: Some(reason), since }
            }
            _ => Health { state: State::Ok, reason: None, since: tally.well_since },
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        // Held for a few instructions that can't panic, so a poisoned lock holds sound data.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_source_of_which_every_delivery_is_refused_is_degraded_and_the_first_good_one_mends_it() {
        let signatures = Signatures::new(Timestamp(1));
        let ok = |since| Health { state: State::Ok, reason: None, since: Timestamp(since) };
        signatures.refused(Timestamp(2));
        signatures.refused(Timestamp(3));
        assert_eq!(signatures.health(), ok(1), "two may be a test");
        signatures.refused(Timestamp(4));
        signatures.refused(Timestamp(5));
        let reason = "refused 4 of 4 deliveries for their signature: is the secret right?".to_owned();
        let degraded = Health { state: State::Degraded, reason: Some(reason), since: Timestamp(2) };
        assert_eq!(signatures.health(), degraded);
        signatures.verified(Timestamp(6));
        assert_eq!(signatures.health(), ok(6));
        for at in 7..20 {
            signatures.refused(Timestamp(at));
        }
        assert_eq!(signatures.health(), ok(6), "its secret is right, whoever else knocks");
    }

    #[test]
    fn a_source_that_was_never_in_doubt_is_well_since_the_start() {
        let signatures = Signatures::new(Timestamp(1));
        signatures.refused(Timestamp(2));
        signatures.verified(Timestamp(3));
        assert_eq!(signatures.health().since, Timestamp(1));
    }
}
