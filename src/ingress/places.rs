//! The places of a listener: how many connections may be open in all, and from one peer.
//!
//! When all are taken, somebody who waits for a place gets that of a connection that does nothing. Whoever has been at its
//! headers for a while, or at a body that hardly arrives, goes first, then whoever has been idle longest. A connection with a
//! complete request keeps its place until the answer, and ends with it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::activity::{Activity, IDLE_BEFORE_ROOM, Phase};
use super::network::Networks;
use super::shares::{Shares, holder};

/// How often somebody who waits for a place looks for a connection that can make room.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The places of a listener.
#[derive(Debug)]
pub(super) struct Places {
    slots: Arc<Semaphore>,
    shares: Shares,
    /// Peers that may have any number.
    unshared: Networks,
    open: Mutex<Open>,
    /// Whether somebody waits for a place.
    short: AtomicBool,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, Arc<Activity>>,
}

/// A peer has its share of the places, and none of its connections can make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HasItsShare;

impl Places {
    pub(super) fn new(most: usize, most_per_peer: usize, unshared: Networks) -> Arc<Self> {
        Arc::new(Self {
            slots: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            shares: Shares::new(most_per_peer),
            unshared,
            open: Mutex::default(),
            short: AtomicBool::new(false),
        })
    }

    /// The most that one peer may have.
    pub(super) const fn most_per_peer(&self) -> usize {
        self.shares.most()
    }

    /// Whether somebody waits for a place, so that connections end with their next answer.
    pub(super) fn are_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    /// A place for a connection from this peer, as soon as there is one. `end` ends the connection.
    pub(super) async fn take(self: &Arc<Self>, peer: IpAddr, end: CancellationToken) -> Result<Place, HasItsShare> {
        let shared = !self.unshared.contains(peer);
        if shared && !self.shares.add(peer, 1, self.shares.most()) {
            // Until one of its own has made room, the peer has one more. It is counted first: nobody is ended for a
            // connection that is refused.
            if !self.shares.add(peer, 1, self.shares.most().saturating_add(1)) {
                return Err(HasItsShare);
            }
            if !self.make_room(Some(holder(peer))) {
                self.shares.give_back(peer, 1);
                return Err(HasItsShare);
            }
        }
        // From here on, dropping it gives everything back.
        let activity = Arc::new(Activity::new(peer, end));
        let mut place = Place { places: Arc::clone(self), activity, number: 0, shared, slot: None };
        place.slot = self.slot().await;
        place.number = self.open().add(&place.activity);
        Ok(place)
    }

    async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Some(slot);
        }
        let _short = Short::begin(&self.short);
        loop {
            self.make_room(None);
            // It can only fail on a closed semaphore, and nobody closes this one.
            if let Ok(slot) = timeout(LOOK_EVERY, Arc::clone(&self.slots).acquire_owned()).await {
                return slot.ok();
            }
        }
    }

    /// Ends a connection that does nothing, of this peer or of any. Returns whether there was one.
    fn make_room(&self, of: Option<IpAddr>) -> bool {
        let chosen = self.open().least_busy(of, Instant::now());
        if let Some(activity) = &chosen {
            activity.make_room();
        }
        chosen.is_some()
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Held for a few instructions that can't panic, so a poisoned lock holds sound data.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn add(&mut self, activity: &Arc<Activity>) -> u64 {
        self.next += 1;
        self.connections.insert(self.next, Arc::clone(activity));
        self.next
    }

    /// The connection that is missed least, among those that do nothing and weren't chosen before.
    fn least_busy(&self, of: Option<IpAddr>, now: Instant) -> Option<Arc<Activity>> {
        let candidates = self.connections.values().filter_map(|activity| {
            let (phase, since) = activity.phase();
            let waited = now.saturating_duration_since(since) >= IDLE_BEFORE_ROOM;
            let can = match phase {
                Phase::New | Phase::Headers | Phase::Idle => waited,
                Phase::Body => activity.body_is_slow(since, now),
                Phase::Request | Phase::Answer => false,
            };
            let other = of.is_some_and(|peer| peer != holder(activity.peer));
            (can && !other && !activity.end().is_cancelled()).then_some((phase == Phase::Idle, since, activity))
        });
        candidates.min_by_key(|(idle, since, _)| (*idle, *since)).map(|(_, _, activity)| Arc::clone(activity))
    }
}

/// Somebody waits for a place until this is dropped.
struct Short<'a>(&'a AtomicBool);

impl<'a> Short<'a> {
    fn begin(short: &'a AtomicBool) -> Self {
        short.store(true, Ordering::Relaxed);
        Self(short)
    }
}

impl Drop for Short<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    activity: Arc<Activity>,
    number: u64,
    shared: bool,
    slot: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// What the connection does.
    pub(super) const fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.open().connections.remove(&self.number);
        if self.shared {
            self.places.shares.give_back(self.activity.peer, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const ATTACKER: [u8; 4] = [192, 0, 2, 1];
    const HONEST: [u8; 4] = [192, 0, 2, 2];

    fn at_once(places: &Arc<Places>, peer: [u8; 4]) -> Option<Result<Place, HasItsShare>> {
        places.take(peer.into(), CancellationToken::new()).now_or_never()
    }

    fn now(places: &Arc<Places>, peer: [u8; 4]) -> Place {
        at_once(places, peer).unwrap().unwrap()
    }

    fn in_request(place: &Place) {
        place.activity().received();
        place.activity().requested();
    }

    fn idle(place: &Place) {
        in_request(place);
        place.activity().answered();
        place.activity().flushed();
    }

    fn is_ended(place: &Place) -> bool {
        place.activity().end().is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn one_peer_gets_its_share_and_leaves_the_rest_to_others() {
        let places = Places::new(4, 2, Networks::this_machine());
        let held = [now(&places, ATTACKER), now(&places, ATTACKER)];
        held.iter().for_each(in_request);
        assert_eq!(at_once(&places, ATTACKER).unwrap().unwrap_err(), HasItsShare);
        let _others = [now(&places, HONEST), now(&places, [127, 0, 0, 1])];
        drop(held);
        let _again = now(&places, ATTACKER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_with_its_share_loses_its_own_idle_connection_for_a_new_one() {
        let places = Places::new(8, 2, Networks::default());
        let held = [now(&places, ATTACKER), now(&places, ATTACKER)];
        let other = now(&places, HONEST);
        held.iter().for_each(idle);
        idle(&other);
        assert_eq!(at_once(&places, ATTACKER).unwrap().unwrap_err(), HasItsShare, "they are about to be used");
        tokio::time::advance(IDLE_BEFORE_ROOM).await;
        in_request(&held[0]);
        let third = now(&places, ATTACKER);
        assert!(!is_ended(&held[0]) && is_ended(&held[1]) && !is_ended(&other));
        in_request(&third);
        assert_eq!(at_once(&places, ATTACKER).unwrap().unwrap_err(), HasItsShare, "one more at most");
    }

    #[tokio::test(start_paused = true)]
    async fn newcomers_that_are_refused_end_nobody() {
        let places = Places::new(8, 4, Networks::default());
        let held = [(); 4].map(|()| now(&places, ATTACKER));
        held.iter().for_each(idle);
        tokio::time::advance(IDLE_BEFORE_ROOM).await;
        let newcomers: Vec<_> = (0..4).map(|_| at_once(&places, ATTACKER).unwrap()).collect();
        let admitted = newcomers.iter().filter(|place| place.is_ok()).count();
        assert_eq!((admitted, held.iter().filter(|place| is_ended(place)).count()), (1, 1));
        drop(newcomers);
        held.iter().for_each(in_request);
        assert_eq!(at_once(&places, ATTACKER).unwrap().unwrap_err(), HasItsShare, "nobody can make room");
        drop(held);
        let _all = [(); 4].map(|()| now(&places, ATTACKER));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_hardly_arrives_makes_room_and_one_that_does_keeps_its_place() {
        let places = Places::new(3, 3, Networks::default());
        let (idles, sends, stalls) = (now(&places, HONEST), now(&places, HONEST), now(&places, ATTACKER));
        idle(&idles);
        for body in [&sends, &stalls] {
            in_request(body);
            body.activity().awaits_body();
            body.activity().body_received(2);
        }
        tokio::time::advance(IDLE_BEFORE_ROOM).await;
        sends.activity().body_received(16 * 1024);
        let mut ended = Vec::new();
        for _ in 0..3 {
            assert!(at_once(&places, ATTACKER).is_none());
            ended.push([&stalls, &idles, &sends].map(is_ended));
        }
        assert_eq!(ended, [[true, false, false], [true, true, false], [true, true, false]]);
        assert!(stalls.activity().makes_room());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_place_of_whoever_does_nothing() {
        let places = Places::new(4, 4, Networks::default());
        let (works, idles, silent) = (now(&places, HONEST), now(&places, HONEST), now(&places, HONEST));
        let longer = now(&places, HONEST);
        in_request(&works);
        idle(&longer);
        tokio::time::advance(Duration::from_secs(1)).await;
        idle(&idles);
        tokio::time::advance(Duration::from_secs(1)).await;
        let mut ended = Vec::new();
        for _ in 0..3 {
            let mut waiting = Box::pin(places.take(ATTACKER.into(), CancellationToken::new()));
            assert!(waiting.as_mut().now_or_never().is_none() && places.are_short());
            drop(waiting);
            assert!(!places.are_short(), "nobody waits any more");
            ended.push([&works, &silent, &longer, &idles].map(is_ended));
        }
        let expected = [[false, true, false, false], [false, true, true, false], [false, true, true, true]];
        assert_eq!(
            ended, expected,
            "first who never completed its headers, then who is idle longest, and none that works"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_served_when_a_place_is_free() {
        let places = Places::new(1, 1, Networks::default());
        let first = now(&places, ATTACKER);
        let ended = async {
            first.activity().end().cancelled().await;
            let waited = first.activity().age();
            drop(first);
            waited
        };
        let (second, waited) = tokio::join!(places.take(HONEST.into(), CancellationToken::new()), ended);
        assert!(second.is_ok() && waited >= IDLE_BEFORE_ROOM && waited < IDLE_BEFORE_ROOM * 2, "{waited:?}");
        assert!(!places.are_short());
    }
}
