//! What a connection is doing, and since when: what decides whether it is overdue, idle, or can make room for another.
//!
//! Its stream and its service say what happens; the task that serves it and the accept loop ask. All of it is one atomic,
//! so that a request costs no lock.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long a connection has done nothing before it has to make room. A client that has just been answered, or that has
/// just connected, is about to send a request, and one that has sent headers is about to send the body.
pub const IDLE_BEFORE_ROOM: Duration = Duration::from_millis(500);

/// The rate in bytes a second at which a body has to arrive, after that time, so that its connection needn't make room.
const RATE_BEFORE_ROOM: u64 = 16 * 1024;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is open, and nothing has come yet.
    New,
    /// A part of a request's headers is there.
    Headers,
    /// A request's headers are complete, and its body isn't.
    Body,
    /// A complete request is in work.
    Request,
    /// Its answer is being written.
    Answer,
    /// Its last request is answered, and nothing has come since.
    Idle,
}

impl Phase {
    const ALL: [Self; 6] = [Self::New, Self::Headers, Self::Body, Self::Request, Self::Answer, Self::Idle];
}

/// How many bits of [`Activity::state`] are the phase's.
const PHASE_BITS: u32 = 3;

/// A connection's activity.
#[derive(Debug)]
pub(super) struct Activity {
    /// Who is at the other end.
    pub(super) peer: IpAddr,
    opened: Instant,
    /// The phase, and above its bits since when: in microseconds after `opened`.
    state: AtomicU64,
    requests: AtomicU64,
    /// How many bytes of the body have arrived in [`Phase::Body`].
    body_bytes: AtomicU64,
    /// When the last of them did: in microseconds after `opened`.
    body_at: AtomicU64,
    /// Whether it is to end because somebody waits for its place.
    makes_room: AtomicBool,
    /// Cancelled when the connection is to end: to make room, or because everything ends.
    end: CancellationToken,
}

impl Activity {
    pub(super) fn new(peer: IpAddr, end: CancellationToken) -> Self {
        Self {
            peer,
            opened: Instant::now(),
            state: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            body_bytes: AtomicU64::new(0),
            body_at: AtomicU64::new(0),
            makes_room: AtomicBool::new(false),
            end,
        }
    }

    /// Cancelled when the connection is to end.
    pub(super) const fn end(&self) -> &CancellationToken {
        &self.end
    }

    /// Ends it, because somebody waits for its place.
    pub(super) fn make_room(&self) {
        self.makes_room.store(true, Ordering::Relaxed);
        self.end.cancel();
    }

    /// Whether it is to end because somebody waits for its place.
    pub(super) fn makes_room(&self) -> bool {
        self.makes_room.load(Ordering::Relaxed)
    }

    /// How long it has been open.
    pub(super) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// What it is doing, and since when.
    pub(super) fn phase(&self) -> (Phase, Instant) {
        let state = self.state.load(Ordering::Relaxed);
        let at = usize::try_from(state & ((1 << PHASE_BITS) - 1)).unwrap_or_default();
        let phase = Phase::ALL.get(at).copied().unwrap_or(Phase::New);
        (phase, self.opened + Duration::from_micros(state >> PHASE_BITS))
    }

    fn enter(&self, phase: Phase) {
        self.enter_at(phase, self.micros());
    }

    fn enter_at(&self, phase: Phase, micros: u64) {
        self.state.store((micros << PHASE_BITS) | phase as u64, Ordering::Relaxed);
    }

    /// Now, in microseconds after it was opened.
    fn micros(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX >> PHASE_BITS)
    }

    /// Bytes have come.
    pub(super) fn received(&self) {
        if matches!(self.phase().0, Phase::New | Phase::Idle) {
            self.enter(Phase::Headers);
        }
    }

    /// A request's headers are complete. Returns how many requests it has had, this one among them.
    pub(super) fn requested(&self) -> u64 {
        self.enter(Phase::Request);
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The request's body isn't complete yet.
    pub(super) fn awaits_body(&self) {
        self.body_bytes.store(0, Ordering::Relaxed);
        let now = self.micros();
        self.body_at.store(now, Ordering::Relaxed);
        self.enter_at(Phase::Body, now);
    }

    /// A part of the request's body has arrived.
    pub(super) fn body_received(&self, bytes: usize) {
        self.body_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.body_at.store(self.micros(), Ordering::Relaxed);
    }

    /// The request's body is complete, or nobody wants the rest of it.
    pub(super) fn body_done(&self) {
        if self.phase().0 == Phase::Body {
            self.enter(Phase::Request);
        }
    }

    /// Whether a body that began to arrive at that time has stalled, or arrives so slowly that it must make room.
    pub(super) fn body_is_slow(&self, since: Instant, now: Instant) -> bool {
        let last = self.opened + Duration::from_micros(self.body_at.load(Ordering::Relaxed));
        let bytes = self.body_bytes.load(Ordering::Relaxed);
        let earned = Duration::from_millis(bytes.saturating_mul(1000) / RATE_BEFORE_ROOM);
        now.saturating_duration_since(last) >= IDLE_BEFORE_ROOM
            || now.saturating_duration_since(since) >= IDLE_BEFORE_ROOM.saturating_add(earned)
    }

    /// A request has its answer.
    pub(super) fn answered(&self) {
        self.enter(Phase::Answer);
    }

    /// All that was to be written is written.
    pub(super) fn flushed(&self) {
        if self.phase().0 == Phase::Answer {
            self.enter(Phase::Idle);
        }
    }

    /// Until when the client must do something: complete its headers, or send another request. A request in work and an
    /// answer have time-outs of their own.
    fn deadline(&self, headers: Duration, idle: Duration) -> Option<Instant> {
        let (phase, since) = self.phase();
        match phase {
            Phase::New | Phase::Headers => Some(since + headers),
            Phase::Idle => Some(since + idle),
            Phase::Body | Phase::Request | Phase::Answer => None,
        }
    }

    /// Waits until the client should have done something and hasn't. It must be polled after whatever changes the phase
    /// was polled, in the same task. The timer is only set to an earlier time, so that requests that follow each other
    /// don't touch it.
    pub(super) async fn overdue(&self, headers: Duration, idle: Duration) {
        let mut timer = pin!(sleep_until(self.opened + headers));
        poll_fn(|cx| {
            while let Some(deadline) = self.deadline(headers, idle) {
                if deadline < timer.deadline() || timer.is_elapsed() {
                    timer.as_mut().reset(deadline);
                }
                ready!(timer.as_mut().poll(cx));
                if deadline <= Instant::now() {
                    return Poll::Ready(());
                }
            }
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const HEADERS: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(75);

    fn activity() -> Activity {
        Activity::new(IpAddr::from([127, 0, 0, 1]), CancellationToken::new())
    }

    fn request(activity: &Activity) {
        activity.received();
        activity.requested();
        activity.answered();
        activity.flushed();
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_says_nothing_at_first_has_as_long_as_for_headers() {
        let activity = activity();
        activity.overdue(HEADERS, IDLE).await;
        assert_eq!(activity.age(), HEADERS);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_outlasts_headers_and_each_request_prolongs_it() {
        let activity = activity();
        let mut overdue = pin!(activity.overdue(HEADERS, IDLE));
        for _ in 0..3 {
            request(&activity);
            assert_eq!(overdue.as_mut().now_or_never(), None);
            tokio::time::sleep(Duration::from_secs(74)).await;
            assert_eq!(overdue.as_mut().now_or_never(), None);
        }
        overdue.await;
        assert_eq!(activity.age().as_secs(), 2 * 74 + 75);
    }

    #[tokio::test(start_paused = true)]
    async fn headers_have_their_time_from_their_first_byte_and_more_bytes_buy_none() {
        let activity = activity();
        let mut overdue = pin!(activity.overdue(HEADERS, IDLE));
        request(&activity);
        assert_eq!(overdue.as_mut().now_or_never(), None);
        tokio::time::sleep(Duration::from_secs(60)).await;
        for _ in 0..4 {
            activity.received();
            assert_eq!(overdue.as_mut().now_or_never(), None);
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        overdue.await;
        assert_eq!((activity.phase().0, activity.age().as_secs()), (Phase::Headers, 70));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_slow_when_it_stalls_or_falls_below_the_rate() {
        let activity = activity();
        let is_slow = || {
            let (phase, since) = activity.phase();
            assert_eq!(phase, Phase::Body);
            activity.body_is_slow(since, Instant::now())
        };
        let step = IDLE_BEFORE_ROOM / 5;
        let arrives = async |bytes: usize| {
            let mut slow = Vec::new();
            for _ in 0..20 {
                tokio::time::advance(step).await;
                activity.body_received(bytes);
                slow.push(is_slow());
            }
            slow
        };
        let per_step = usize::try_from(RATE_BEFORE_ROOM / 10).unwrap() + 1;
        activity.received();
        activity.requested();
        activity.awaits_body();
        assert_eq!(arrives(per_step).await, [false; 20], "it arrives at the rate");
        tokio::time::advance(IDLE_BEFORE_ROOM - Duration::from_millis(1)).await;
        assert!(!is_slow());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(is_slow(), "nothing has come for long enough");
        activity.awaits_body();
        assert_eq!(arrives(1).await, [[false; 4].as_slice(), &[true; 16]].concat(), "a byte now and then buys nothing");
        activity.body_done();
        assert_eq!(activity.phase().0, Phase::Request);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_in_work_is_never_overdue() {
        let activity = activity();
        let mut overdue = pin!(activity.overdue(HEADERS, IDLE));
        assert_eq!(overdue.as_mut().now_or_never(), None);
        activity.received();
        activity.requested();
        tokio::time::sleep(Duration::from_secs(1000)).await;
        assert_eq!(overdue.as_mut().now_or_never(), None);
        activity.flushed();
        assert_eq!(activity.phase().0, Phase::Request, "what is flushed before its answer isn't its answer");
    }
}
