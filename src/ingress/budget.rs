//! The memory that the bodies of all requests may take together, with a reserve that only small ones may use, and how much
//! of it one client may have.
//!
//! A small body is counted as it arrives. A large one is counted whole once it has shown that it is meant, by outgrowing
//! what is small: else many that come at once would crowd each other out half-way, and none be taken. Before a body is
//! published its copies ([`COPIES`]) are counted too. Those of large ones have room of their own, for which one waits for
//! another.
//!
//! For a client only what waits for more is counted: a body that comes at once is verified at once, and is gone if it is
//! forged. That also keeps the lock away from most requests.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use metrics::Gauge;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::shares::Shares;
use super::{SMALL_BODY, Settings, TAKES};
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
    /// What incomplete bodies take, by client.
    clients: Shares,
    /// How much that may be with a small one.
    small_per_client: usize,
    gauge: Gauge,
}

/// There is no room for more of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// All bodies together take too much.
    Budget,
    /// Those of its client do.
    Share,
}

impl Budget {
    pub(super) fn new(settings: &Settings) -> Self {
        let Settings { body_budget: budget, small_reserve, .. } = *settings;
        let large = budget.saturating_sub(small_reserve);
        let copies = large / TAKES * COPIES;
        Self {
            used: AtomicUsize::new(0),
            total: budget - copies,
            for_all: large - copies,
            copies: Semaphore::new((copies / UNIT).min(Semaphore::MAX_PERMITS)),
            clients: Shares::new(settings.body_bytes_per_client),
            small_per_client: settings.body_bytes_per_client.saturating_add(settings.small_bytes_per_client),
            gauge: metrics::gauge!(BODY_BYTES),
        }
    }

    /// A hold of nothing yet, for a body that says it will have `expected` bytes, of a client that may only have its share.
    pub(super) const fn hold(&self, expected: usize, client: Option<IpAddr>) -> Held<'_> {
        Held { budget: self, bytes: 0, taken: 0, client, counted: 0, copies: 0, permit: None, expected }
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
    /// Who may only have its share.
    client: Option<IpAddr>,
    /// What is counted for that.
    counted: usize,
    /// What a small body's copies take.
    copies: usize,
    /// What a large body's copies take.
    permit: Option<SemaphorePermit<'a>>,
    expected: usize,
}

impl Held<'_> {
    /// Takes more for the body, which is complete then or isn't.
    pub(super) fn grow(&mut self, more: usize, complete: bool) -> Result<(), Full> {
        let bytes = self.bytes.saturating_add(more);
        let wanted = if bytes > SMALL_BODY { self.expected.max(bytes) } else { bytes };
        let Budget { total, for_all, clients, small_per_client, .. } = self.budget;
        let is_small = self.expected.max(bytes) <= SMALL_BODY;
        if let Some(client) = self.client.filter(|_| !complete) {
            let most = if is_small { *small_per_client } else { clients.most() };
            let uncounted = wanted.saturating_sub(self.counted);
            if !clients.add(client, uncounted, most) {
                return Err(Full::Share);
            }
            self.counted += uncounted;
        }
        if !self.budget.take(wanted.saturating_sub(self.taken), if is_small { *total } else { *for_all }) {
            return Err(Full::Budget);
        }
        self.bytes = bytes;
        self.taken = self.taken.max(wanted);
        Ok(())
    }

    /// The body is complete: nothing of it waits for its client any more.
    pub(super) fn complete(&mut self) {
        if let Some(client) = self.client.filter(|_| self.counted > 0) {
            self.budget.clients.give_back(client, std::mem::take(&mut self.counted));
        }
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
        self.complete();
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
        Budget::new(&Settings {
            body_budget: 7 * SMALL_BODY,
            small_reserve: SMALL_BODY,
            body_bytes_per_client: 7 * SMALL_BODY,
            ..super::super::tests::settings()
        })
    }

    /// With bodies that aren't complete yet, of a client without a share.
    fn grows(held: &mut Held<'_>, more: usize) -> bool {
        held.grow(more, false).is_ok()
    }

    fn copies_at_once(held: &mut Held<'_>) -> bool {
        held.copy(Instant::now() + Duration::from_secs(1)).now_or_never().unwrap_or(false)
    }

    #[tokio::test]
    async fn large_bodies_cannot_take_the_reserve_and_small_ones_can() {
        let budget = budget();
        let mut large = budget.hold(SMALL_BODY + 1, None);
        assert!(grows(&mut large, 2 * SMALL_BODY));
        assert!(!grows(&mut large, 1));
        let mut small = budget.hold(0, None);
        assert!(grows(&mut small, SMALL_BODY));
        assert!(!grows(&mut budget.hold(0, None), 1));
        drop(large);
        assert!(grows(&mut budget.hold(0, None), 1));
    }

    #[tokio::test]
    async fn a_large_body_that_has_begun_in_earnest_can_be_finished() {
        let budget = budget();
        let (mut first, mut second) = (budget.hold(2 * SMALL_BODY, None), budget.hold(2 * SMALL_BODY, None));
        assert!(grows(&mut first, 1) && grows(&mut second, 1), "that costs nothing yet");
        drop(second);
        assert!(grows(&mut first, SMALL_BODY));
        assert!(!grows(&mut budget.hold(2 * SMALL_BODY, None), 1), "all is spoken for");
        assert!(grows(&mut first, SMALL_BODY - 1));
    }

    #[tokio::test]
    async fn a_body_that_outgrows_what_is_small_loses_the_reserve() {
        let budget = budget();
        let mut body = budget.hold(0, None);
        let mut other = budget.hold(SMALL_BODY + 1, None);
        assert!(grows(&mut other, SMALL_BODY) && grows(&mut body, SMALL_BODY));
        assert!(!grows(&mut body, 1));
    }

    #[tokio::test]
    async fn copies_of_a_small_body_come_out_of_the_reserve_and_wait_for_nothing() {
        let budget = budget();
        let mut small = budget.hold(SMALL_BODY, None);
        assert!(grows(&mut small, SMALL_BODY) && copies_at_once(&mut small));
        let mut next = budget.hold(0, None);
        assert!(!grows(&mut next, 1));
        drop(small);
        assert!(grows(&mut next, 1) && copies_at_once(&mut next));
    }

    #[tokio::test(start_paused = true)]
    async fn copies_of_large_bodies_wait_for_each_other_and_not_for_ever() {
        let budget = budget();
        let (mut first, mut second) = (budget.hold(SMALL_BODY + 1, None), budget.hold(SMALL_BODY + 1, None));
        assert!(grows(&mut first, SMALL_BODY + 1) && grows(&mut second, SMALL_BODY - 1));
        assert!(copies_at_once(&mut first) && !copies_at_once(&mut second));
        assert!(!second.copy(Instant::now() + Duration::from_secs(1)).await);
        drop(first);
        assert!(copies_at_once(&mut second));
        drop(second);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
        assert_eq!(budget.copies.available_permits() * UNIT, 4 * SMALL_BODY);
    }

    #[tokio::test]
    async fn one_client_has_its_share_of_what_waits_and_leaves_the_rest_to_others() {
        let [attacker, honest] = [1, 2].map(|last| Some(IpAddr::from([192, 0, 2, last])));
        let settings = Settings {
            body_budget: 13 * SMALL_BODY,
            small_reserve: SMALL_BODY,
            body_bytes_per_client: 2 * SMALL_BODY,
            small_bytes_per_client: SMALL_BODY / 2,
            ..super::super::tests::settings()
        };
        let budget = Budget::new(&settings);
        let mut stalls = budget.hold(2 * SMALL_BODY, attacker);
        assert_eq!(stalls.grow(SMALL_BODY + 1, false), Ok(()), "the largest body fits");
        assert_eq!(budget.hold(SMALL_BODY + 1, attacker).grow(1, false), Err(Full::Share));
        let mut large = budget.hold(2 * SMALL_BODY, honest);
        assert_eq!(large.grow(SMALL_BODY + 1, false), Ok(()), "another has its own");
        let mut small = budget.hold(SMALL_BODY / 2, attacker);
        assert_eq!(small.grow(SMALL_BODY / 2, false), Ok(()), "there is some of the reserve besides");
        assert_eq!(budget.hold(10, attacker).grow(1, false), Err(Full::Share));
        assert_eq!(budget.hold(10, attacker).grow(10, true), Ok(()), "what comes at once waits for nothing");
        assert_eq!(budget.hold(10, None).grow(1, false), Ok(()), "who has many clients has no share");
        stalls.complete();
        assert_eq!(budget.hold(10, attacker).grow(1, false), Ok(()));
        drop((stalls, large, small));
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
        assert!([attacker, honest].iter().flatten().all(|client| budget.clients.add(
            *client,
            2 * SMALL_BODY,
            2 * SMALL_BODY
        )));
    }
}
