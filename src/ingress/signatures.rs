//! Whether a source's deliveries are refused. A wrong secret or a wrong `allow_from` would go unnoticed: refusals are counted
//! and logged like any stranger's.
//!
//! Counted is what is refused since the last delivery that verified, and only what is the provider's by its headers
//! ([`Apparent`]): a wrong signature always, a missing one or a forbidden address only beside a header that the provider
//! alone sends. What scans the Internet for servers sends none of those. Whoever means to forge them can, and gets no more
//! than a health that says so.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use metrics::Counter;

use crate::broker::{Health, State};
use crate::delivery::Timestamp;
use crate::provider::Apparent;
use crate::telemetry::metrics::REFUSED_DELIVERIES;

/// From so many refusals for one cause on, with nothing verified since, health says so. Fewer may be a test.
const ENOUGH: u64 = 3;

/// How long ago the last verified delivery must be, in microseconds: until then the secret was right just now.
const SILENCE: i64 = 3600 * 1_000_000;

/// Instead of a time.
const NEVER: i64 = i64::MIN;

/// Why a delivery was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// `allow_from` doesn't have its address.
    Address,
    /// It has no signature, or none of the right form.
    Unsigned,
    /// Its signature is wrong.
    Signature,
}

impl Cause {
    /// In the order in which they are kept.
    const ALL: [Self; 3] = [Self::Address, Self::Unsigned, Self::Signature];

    /// Of a request without a good signature; none if it may be anybody's.
    pub(super) const fn of_unverified(apparent: Apparent) -> Option<Self> {
        match apparent {
            Apparent::Signed => Some(Self::Signature),
            Apparent::Unsigned => Some(Self::Unsigned),
            Apparent::Stranger => None,
        }
    }

    /// Of a request from an address that isn't allowed; none if it may be anybody's.
    pub(super) const fn of_forbidden(apparent: Apparent) -> Option<Self> {
        if matches!(apparent, Apparent::Stranger) { None } else { Some(Self::Address) }
    }

    /// The word in the metric's label.
    const fn label(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Unsigned => "unsigned",
            Self::Signature => "signature",
        }
    }

    /// What health says of it.
    const fn why(self) -> &'static str {
        match self {
            Self::Address => "because of their address",
            Self::Unsigned => "because they bear no signature",
            Self::Signature => "for their signature",
        }
    }

    /// What to look at if nothing has ever verified, and if something has.
    const fn question(self, ever: bool) -> &'static str {
        match (self, ever) {
            (Self::Address, false) => "is allow_from right (and ingress.trusted_proxies)?",
            (Self::Address, true) => "is allow_from still right (and ingress.trusted_proxies)?",
            (Self::Unsigned, false) => "is a secret set at the provider?",
            (Self::Unsigned, true) => "was the secret removed at the provider?",
            (Self::Signature, false) => "is the secret right?",
            (Self::Signature, true) => "was the secret changed?",
        }
    }
}

/// What became of one source's deliveries since the last one that verified, or since the process began. Requests at the
/// same time may count one too many or too few, which changes nothing.
#[derive(Debug)]
pub(super) struct Signatures {
    /// Since when all is well, as far as it is.
    well_since: AtomicI64,
    verified_at: AtomicI64,
    /// When the first was refused.
    refused_since: AtomicI64,
    refused: [(AtomicU64, Counter); Cause::ALL.len()],
}

impl Signatures {
    pub(super) fn new(source: &str, began: Timestamp) -> Self {
        let refused = Cause::ALL.map(|cause| {
            let labels = [("source", source.to_owned()), ("cause", cause.label().to_owned())];
            (AtomicU64::new(0), metrics::counter!(REFUSED_DELIVERIES, &labels))
        });
        Self {
            well_since: AtomicI64::new(began.micros()),
            verified_at: AtomicI64::new(NEVER),
            refused_since: AtomicI64::new(NEVER),
            refused,
        }
    }

    /// A delivery was refused.
    pub(super) fn refused(&self, cause: Cause, now: Timestamp) {
        for (_, (count, counter)) in Cause::ALL.iter().zip(&self.refused).filter(|(known, _)| **known == cause) {
            count.fetch_add(1, Ordering::Relaxed);
            counter.increment(1);
        }
        // It fails if it isn't the first.
        let _first = self.refused_since.compare_exchange(NEVER, now.micros(), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// A delivery's signature was good.
    pub(super) fn verified(&self, now: Timestamp) {
        if self.refused_since.load(Ordering::Relaxed) != NEVER {
            if self.doubt(now).is_some() {
                self.well_since.store(now.micros(), Ordering::Relaxed);
            }
            self.refused.iter().for_each(|(count, _)| count.store(0, Ordering::Relaxed));
            self.refused_since.store(NEVER, Ordering::Relaxed);
        }
        self.verified_at.store(now.micros(), Ordering::Relaxed);
    }

    pub(super) fn health(&self, now: Timestamp) -> Health {
        match self.doubt(now) {
            Some(reason) => {
                let since = Timestamp(self.refused_since.load(Ordering::Relaxed));
                Health { state: State::Degraded, reason: Some(reason), since }
            }
            None => {
                let since = Timestamp(self.well_since.load(Ordering::Relaxed));
                Health { state: State::Ok, reason: None, since }
            }
        }
    }

    /// What is probably wrong: the more frequent of signature and address, if it is frequent enough.
    fn doubt(&self, now: Timestamp) -> Option<String> {
        let [address, unsigned, wrong] = self.refused.each_ref().map(|(count, _)| count.load(Ordering::Relaxed));
        let (signature, all) = (unsigned + wrong, address + unsigned + wrong);
        let (count, cause) = match () {
            () if address > signature => (address, Cause::Address),
            // A hook without a secret never signs.
            () if wrong == 0 => (unsigned, Cause::Unsigned),
            () => (signature, Cause::Signature),
        };
        let verified_at = self.verified_at.load(Ordering::Relaxed);
        let ever = verified_at != NEVER;
        if count < ENOUGH || (ever && now.micros().saturating_sub(verified_at) < SILENCE) {
            return None;
        }
        let (why, question) = (cause.why(), cause.question(ever));
        Some(if ever {
            let last = Timestamp(verified_at).whole_second();
            format!("refused {count} deliveries {why} since the last good one at {last}: {question}")
        } else {
            format!("refused {count} of {all} deliveries {why}: {question}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(since: i64) -> Health {
        Health { state: State::Ok, reason: None, since: Timestamp(since) }
    }

    fn degraded(since: i64, reason: &str) -> Health {
        Health { state: State::Degraded, reason: Some(reason.to_owned()), since: Timestamp(since) }
    }

    #[test]
    fn a_source_of_which_every_delivery_is_refused_is_degraded_and_the_first_good_one_mends_it() {
        let signatures = Signatures::new("acme", Timestamp(1));
        signatures.refused(Cause::Signature, Timestamp(2));
        signatures.refused(Cause::Signature, Timestamp(3));
        assert_eq!(signatures.health(Timestamp(3)), ok(1), "two may be a test");
        signatures.refused(Cause::Signature, Timestamp(4));
        signatures.refused(Cause::Signature, Timestamp(5));
        let reason = "refused 4 of 4 deliveries for their signature: is the secret right?";
        assert_eq!(signatures.health(Timestamp(5)), degraded(2, reason));
        signatures.verified(Timestamp(6));
        assert_eq!(signatures.health(Timestamp(6)), ok(6));
    }

    #[test]
    fn a_secret_that_is_changed_later_is_told_an_hour_after_the_last_good_delivery() {
        let signatures = Signatures::new("acme", Timestamp(1));
        signatures.verified(Timestamp(2));
        for at in 3..8 {
            signatures.refused(Cause::Signature, Timestamp(at));
        }
        assert_eq!(signatures.health(Timestamp(1 + SILENCE)), ok(1), "it verified a moment ago");
        let reason = "refused 5 deliveries for their signature since the last good one at 1970-01-01T00:00:00Z: \
                      was the secret changed?";
        assert_eq!(signatures.health(Timestamp(2 + SILENCE)), degraded(3, reason));
        signatures.verified(Timestamp(3 + SILENCE));
        assert_eq!(signatures.health(Timestamp(3 + SILENCE)), ok(3 + SILENCE));
        // What was refused before that is over.
        signatures.refused(Cause::Signature, Timestamp(4 + SILENCE));
        signatures.refused(Cause::Signature, Timestamp(5 + SILENCE));
        assert_eq!(signatures.health(Timestamp(9 * SILENCE)), ok(3 + SILENCE));
        signatures.refused(Cause::Signature, Timestamp(9 * SILENCE));
        assert_eq!(signatures.health(Timestamp(9 * SILENCE)).since, Timestamp(4 + SILENCE));
    }

    #[test]
    fn each_cause_has_its_question() {
        for (cause, other, first, later) in [
            (
                Cause::Address,
                Cause::Signature,
                "refused 3 of 4 deliveries because of their address: is allow_from right (and ingress.trusted_proxies)?",
                "is allow_from still right (and ingress.trusted_proxies)?",
            ),
            (
                Cause::Unsigned,
                Cause::Address,
                "refused 3 of 4 deliveries because they bear no signature: is a secret set at the provider?",
                "was the secret removed at the provider?",
            ),
        ] {
            let signatures = Signatures::new("acme", Timestamp(1));
            signatures.refused(other, Timestamp(2));
            for _ in 0..3 {
                signatures.refused(cause, Timestamp(3));
            }
            assert_eq!(signatures.health(Timestamp(3)), degraded(2, first));
            signatures.verified(Timestamp(4));
            for _ in 0..3 {
                signatures.refused(cause, Timestamp(5));
            }
            let reason = signatures.health(Timestamp(4 + SILENCE)).reason.unwrap();
            assert!(reason.starts_with("refused 3 deliveries ") && reason.ends_with(later), "{reason}");
        }
    }

    #[test]
    fn a_source_that_was_never_in_doubt_is_well_since_the_start() {
        let signatures = Signatures::new("acme", Timestamp(1));
        signatures.refused(Cause::Signature, Timestamp(2));
        signatures.verified(Timestamp(3));
        assert_eq!(signatures.health(Timestamp(9 * SILENCE)).since, Timestamp(1));
    }
}
