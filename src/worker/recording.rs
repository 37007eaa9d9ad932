//! The state of recording, and the only loop that retries it: nobody can wait for the ledger without saying so.
//!
//! While the ledger refuses whatever comes, recording is paused: `/health` says since when and why, and two gauges go on
//! growing, whatever the worker itself waits for.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::broker::{AckTag, Health, Lane, Message, State};
use crate::delivery::Timestamp;
use crate::ledger::health::Activity;
use crate::ledger::{Ledger, LedgerError};
use crate::telemetry::metrics as names;

/// How long to wait for the ledger between tries.
pub(super) const AGAIN: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(5) };
/// So many messages that can't be recorded are an outage, or half of those that the broker hands out unacked if these are
/// fewer: soon nothing else would be handed out.
const MANY: usize = 16;
/// How often the gauges are brought up to date.
const TICK: Duration = Duration::from_secs(1);

/// The process is to end; what isn't acked comes again.
pub(super) struct Ending;

/// How recording is doing.
#[derive(Debug)]
pub struct Recording(Mutex<Condition>);

#[derive(Debug)]
struct Condition {
    began: Timestamp,
    paused: Option<Paused>,
    /// The receipt of the oldest delivery that the worker has in hand.
    in_hand: Option<Timestamp>,
    /// The messages of this session that can't be recorded in any way, with their receipts. They stay in the broker.
    left: BTreeMap<AckTag, Option<Timestamp>>,
    /// So many of these are an outage.
    many: usize,
    /// Since when there are such, and why the latest can't be recorded.
    leaving: Option<(Timestamp, String)>,
}

#[derive(Debug)]
struct Paused {
    since: Timestamp,
    why: String,
}

impl Default for Recording {
    fn default() -> Self {
        Self(Mutex::new(Condition {
            began: Timestamp::now(),
            paused: None,
            in_hand: None,
            left: BTreeMap::new(),
            many: MANY,
            leaving: None,
        }))
    }
}

impl Recording {
    /// Does something with the ledger until it is done or can't be. While the error calls for another try, recording is
    /// paused; it [goes on](Self::resume) when something is recorded, and not before.
    pub(super) async fn until_done<T, F>(
        &self,
        ledger: &Ledger,
        token: &CancellationToken,
        again: impl Fn(&LedgerError) -> bool,
        work: impl Fn() -> F,
    ) -> Result<Result<T, LedgerError>, Ending>
    where
        F: Future<Output = Result<T, LedgerError>>,
    {
        for attempt in 0.. {
            let done = ledger.watched(Activity::Recording, work()).await;
            match done {
                Err(error) if again(&error) => self.pause(token, &error, attempt).await?,
                done => return Ok(done),
            }
        }
        Err(Ending)
    }

    /// Waits before another try, and says why.
    pub(super) async fn pause(
        &self,
        token: &CancellationToken,
        error: &(impl Display + Sync),
        attempt: u32,
    ) -> Result<(), Ending> {
        let pause = AGAIN.pause(attempt, fastrand::f64());
        tracing::error!(%error, "nothing is recorded; trying again in {pause:.1?}");
        self.paused(error);
        token.run_until_cancelled(tokio::time::sleep(pause)).await.ok_or(Ending)
    }

    /// Nothing is recorded at present.
    pub(crate) fn paused(&self, error: &impl Display) {
        let why = error.to_string();
        let mut condition = self.lock();
        let since = condition.paused.as_ref().map_or_else(Timestamp::now, |paused| paused.since);
        condition.paused = Some(Paused { since, why });
    }

    /// Something is recorded, or may be.
    pub(crate) fn resume(&self) {
        if let Some(Paused { since, .. }) = self.lock().paused.take() {
            let seconds = Timestamp::now().since(since).as_secs_f64();
            tracing::info!(seconds, "deliveries are recorded again");
        }
    }

    /// The broker hands out so many messages unacked.
    pub(super) fn limit_left(&self, prefetch: u16) {
        self.lock().many = MANY.min(usize::from(prefetch / 2)).max(1);
    }

    /// The worker has these messages in hand. What an earlier session has left in the broker was handed out anew, to
    /// whichever worker.
    pub(super) fn holds(&self, batch: &[Message]) {
        // A replay was received long ago.
        let waiting = batch.iter().filter(|message| message.lane != Lane::Replay);
        let mut condition = self.lock();
        condition.in_hand = waiting.filter_map(|message| message.payload.received_at()).min();
        if let Some(first) = batch.first() {
            condition.left.retain(|tag, _| tag.session == first.tag.session);
            if condition.left.is_empty() {
                condition.leaving = None;
            }
        }
    }

    /// A message can't be recorded in any way, and stays in the broker.
    pub(super) fn leaves(&self, tag: AckTag, received_at: Option<Timestamp>, error: &LedgerError) {
        let mut condition = self.lock();
        condition.left.insert(tag, received_at);
        let since = condition.leaving.as_ref().map_or_else(Timestamp::now, |(since, _)| *since);
        condition.leaving = Some((since, error.to_string()));
    }

    /// How recording is, for `/health`.
    #[must_use]
    pub fn health(&self) -> Health {
        let condition = self.lock();
        if let Some(Paused { since, why }) = &condition.paused {
            let reason = Some(format!("nothing is recorded: {why}"));
            return Health { state: State::Down, reason, since: *since };
        }
        if let Some((since, why)) = &condition.leaving {
            let count = condition.left.len();
            let reason = Some(format!(
                "{count} messages can't be recorded in any way and stay in the broker; a restart tries them again: {why}"
            ));
            // Each holds a place among those that the broker hands out unacked.
            let state = if count < condition.many { State::Degraded } else { State::Down };
            return Health { state, reason, since: *since };
        }
        Health { state: State::Ok, reason: None, since: condition.began }
    }

    /// Keeps the gauges up to date, until the token is cancelled.
    pub async fn report(&self, token: &CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        while token.run_until_cancelled(tick.tick()).await.is_some() {
            let (paused, oldest) = self.ages(Timestamp::now());
            metrics::gauge!(names::RECORDING_PAUSED).set(paused.as_secs_f64());
            metrics::gauge!(names::OLDEST_UNRECORDED).set(oldest.as_secs_f64());
        }
    }

    /// For how long recording has been paused, and how old the oldest delivery is that waits for it.
    fn ages(&self, now: Timestamp) -> (Duration, Duration) {
        let condition = self.lock();
        let paused = condition.paused.as_ref().map(|paused| paused.since);
        let oldest = condition.left.values().flatten().copied().chain(condition.in_hand).min();
        let age = |since: Option<Timestamp>| since.map_or(Duration::ZERO, |since| now.since(since));
        (age(paused), age(oldest))
    }

    fn lock(&self) -> MutexGuard<'_, Condition> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::broker::Payload;
    use crate::delivery::{Delivery, SecretName};

    fn full() -> LedgerError {
        sqlx::Error::PoolTimedOut.into()
    }

    #[test]
    fn a_pause_goes_on_since_it_began_until_recording_does() {
        let recording = Recording::default();
        assert_eq!(recording.health().state, State::Ok);
        recording.paused(&full());
        let first = recording.health();
        assert_eq!(first.state, State::Down);
        assert!(first.reason.as_ref().unwrap().starts_with("nothing is recorded: "), "{first:?}");
        recording.paused(&LedgerError::Tables("the table changes is missing".to_owned()));
        let second = recording.health();
        assert_eq!(second.since, first.since);
        assert!(second.reason.unwrap().contains("changes is missing"));
        recording.resume();
        assert_eq!(recording.health().state, State::Ok);
    }

    #[test]
    fn the_gauges_grow_while_it_is_paused_and_fall_when_all_is_recorded() {
        let recording = Recording::default();
        let now = Timestamp::now();
        let later = |seconds| now.plus(Duration::from_secs(seconds));
        let received =
            |ago: u64, lane, session| message(now.plus_micros(-i64::try_from(ago * 1_000_000).unwrap()), lane, session);
        recording.holds(&[received(5, Lane::Work, 1), received(90_000, Lane::Replay, 1)]);
        recording.paused(&full());
        let (paused, oldest) = recording.ages(later(10));
        assert!(paused >= Duration::from_secs(9), "{paused:?}");
        assert_eq!(oldest, Duration::from_secs(15), "a replay has waited long before it was one");
        let left = received(60, Lane::Work, 1);
        recording.leaves(left.tag, left.payload.received_at(), &full());
        recording.resume();
        recording.holds(&[]);
        assert_eq!(recording.ages(later(10)), (Duration::ZERO, Duration::from_secs(70)));
        assert_eq!(recording.health().state, State::Degraded);
        recording.limit_left(2);
        assert_eq!(recording.health().state, State::Down, "nothing else would be handed out");
        recording.holds(&[received(0, Lane::Work, 2)]);
        recording.holds(&[]);
        assert_eq!(recording.ages(later(10)), (Duration::ZERO, Duration::ZERO));
        assert_eq!(recording.health().state, State::Ok);
    }
    fn message(received_at: Timestamp, lane: Lane, session: u64) -> Message {
        let delivery = Delivery {
            source: "acme".parse().unwrap(),
            provider: "github".to_owned(),
            id: "1".parse().unwrap(),
            event: "push".parse().unwrap(),
            received_at,
            secret: SecretName("env:A".into()),
            stamp: None,
            replay: None,
            body: Bytes::new(),
        };
        let tag = AckTag { session, lane, number: 1 };
        Message { tag, lane, redelivered: false, payload: Payload::Delivery(delivery).into() }
    }
}
