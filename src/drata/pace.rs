//! When a request may be sent: an even rate, and the pause that a 429 asks for. Shared by all clones of a client.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use governor::clock::Clock;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

/// How many requests may go at once after a quiet time. Small, because Drata's limit is said to bite quickly.
const BURST: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// The pause after a 429 that doesn't say how long.
pub(super) const PAUSE: Duration = Duration::from_secs(5);

/// Tokio's clock, which stands still where a test pauses it.
#[derive(Clone, Copy, Debug)]
struct TokioClock;

impl Clock for TokioClock {
    type Instant = std::time::Instant;
    fn now(&self) -> Self::Instant {
        Instant::now().into_std()
    }
}

#[derive(Debug)]
struct Rate {
    limiter: RateLimiter<NotKeyed, InMemoryState, TokioClock>,
    /// How many clients share it.
    clients: u32,
}

impl Rate {
    fn new(requests_per_minute: u32, clients: u32) -> Self {
        let clients = clients.max(1);
        let quota = Quota::per_minute(NonZeroU32::new(requests_per_minute / clients).unwrap_or(NonZeroU32::MIN));
        let burst = quota.burst_size().min(BURST);
        Self { limiter: RateLimiter::direct_with_clock(quota.allow_burst(burst), TokioClock), clients }
    }
}

#[derive(Debug)]
pub(super) struct Pace {
    rate: RwLock<Rate>,
    requests_per_minute: u32,
    not_before: Mutex<Option<Instant>>,
    max_wait: Duration,
}

/// The turn would come too late: after this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLate(pub(super) Duration);

impl Pace {
    /// So many requests a minute, at least one; nobody waits longer than `max_wait`.
    pub(super) fn new(requests_per_minute: u32, max_wait: Duration) -> Self {
        let rate = RwLock::new(Rate::new(requests_per_minute, 1));
        Self { rate, requests_per_minute, not_before: Mutex::new(None), max_wait }
    }

    /// Keeps to its share, where so many clients have the rate together.
    pub(super) fn share(&self, clients: u32) {
        let mut rate = self.rate.write().unwrap_or_else(PoisonError::into_inner);
        if rate.clients != clients.max(1) {
            *rate = Rate::new(self.requests_per_minute, clients);
        }
    }

    /// Takes a turn, or says how long until there is one.
    fn take(&self) -> Result<(), Duration> {
        let rate = self.rate.read().unwrap_or_else(PoisonError::into_inner);
        rate.limiter.check().map_err(|until| until.wait_time_from(TokioClock.now()))
    }

    /// Waits for the turn of one request. Gives up at once if it is known that the turn comes after `max_wait` or after
    /// `deadline`: a call must not outlast the lease under which it was made.
    pub(super) async fn turn(&self, deadline: Option<Instant>) -> Result<(), TooLate> {
        let latest = Instant::now() + self.max_wait;
        let latest = deadline.map_or(latest, |deadline| deadline.min(latest));
        loop {
            let wait = match self.paused() {
                Some(pause) => pause,
                None => match self.take() {
                    Ok(()) if Instant::now() <= latest => return Ok(()),
                    Ok(()) => return Err(TooLate(Duration::ZERO)),
                    Err(wait) => wait,
                },
            };
            if wait > latest.saturating_duration_since(Instant::now()) {
                return Err(TooLate(wait));
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Sends nothing for a while. A longer pause that is on already stays.
    pub(super) fn pause(&self, pause: Duration) {
        let now = Instant::now();
        // A pause without an end that can be told would never end. What is asked for is bounded long before that.
        let until = now.checked_add(pause).unwrap_or(now);
        let mut not_before = self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
        *not_before = Some(not_before.map_or(until, |earlier| earlier.max(until)));
    }

    /// How much of the pause is left.
    fn paused(&self) -> Option<Duration> {
        let mut not_before = self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
        let left =
            not_before.and_then(|until| until.checked_duration_since(Instant::now())).filter(|left| !left.is_zero());
        if left.is_none() {
            *not_before = None;
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::shutdown::Tasks;

    #[tokio::test(start_paused = true)]
    async fn after_a_small_burst_requests_go_at_the_even_rate_whoever_sends_them() {
        let pace = Arc::new(Pace::new(120, Duration::from_secs(60)));
        let (start, tasks) = (Instant::now(), Tasks::new());
        let senders: Vec<_> = (0..3)
            .map(|_| {
                let pace = Arc::clone(&pace);
                tasks.short_lived("test", async move {
                    for _ in 0..10 {
                        pace.turn(None).await.unwrap();
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.await.unwrap();
        }
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(10_000) && took < Duration::from_millis(10_100), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn two_that_share_a_rate_keep_to_it_together() {
        let (start, both) = (Instant::now(), [(); 2].map(|()| Arc::new(Pace::new(120, Duration::from_secs(60)))));
        let tasks = Tasks::new();
        let senders = both.map(|pace| {
            tasks.short_lived("test", async move {
                pace.share(2);
                for _ in 0..20 {
                    pace.turn(None).await.unwrap();
                }
            })
        });
        for sender in senders {
            sender.await.unwrap();
        }
        // 40 requests, of which 20 in the two bursts, at two a second.
        let took = start.elapsed();
        assert!(took >= Duration::from_secs(10) && took < Duration::from_millis(10_100), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_everybody_and_a_shorter_one_does_not_end_it() {
        let pace = Pace::new(500, Duration::from_secs(60));
        let start = Instant::now();
        pace.pause(Duration::from_secs(20));
        pace.pause(Duration::from_secs(1));
        pace.turn(None).await.unwrap();
        assert!((20..21).contains(&start.elapsed().as_secs()));
        pace.turn(None).await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(21));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_turn_that_comes_too_late() {
        let pace = Pace::new(500, Duration::from_secs(5));
        let start = Instant::now();
        pace.pause(Duration::from_secs(60));
        assert_eq!(pace.turn(None).await, Err(TooLate(Duration::from_secs(60))));
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_comes_before_the_longest_wait() {
        let pace = Pace::new(500, Duration::from_secs(30));
        pace.pause(Duration::from_secs(10));
        assert!(pace.turn(Some(Instant::now() + Duration::from_secs(9))).await.is_err());
        assert!(pace.turn(Some(Instant::now() + Duration::from_secs(11))).await.is_ok());
        let past = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(pace.turn(Some(past)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_of_less_than_the_burst_is_kept_too() {
        let pace = Pace::new(2, Duration::from_secs(100));
        let start = Instant::now();
        for _ in 0..3 {
            pace.turn(None).await.unwrap();
        }
        assert!((29..=31).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    }
}
