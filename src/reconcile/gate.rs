//! The halt: when the platform refuses everything, calls stop and recording goes on.
//!
//! A refusal such as 401 or 402 isn't about an account. No attempt is spent on it and nothing is parked for it: one due
//! account at a time goes ahead as a probe, until one succeeds.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::broker::{Health, State};
use crate::delivery::Timestamp;

const FIRST_PROBE: Duration = Duration::from_secs(5);
const LONGEST_PROBE: Duration = Duration::from_secs(60);

/// Whether calls may be made.
#[derive(Debug)]
pub(super) struct Gate(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    halt: Option<Halt>,
    since: Timestamp,
}

#[derive(Debug)]
struct Halt {
    reason: String,
    next_probe: Instant,
    wait: Duration,
}

impl Gate {
    /// An open gate.
    #[must_use]
    pub(super) fn new(now: Timestamp) -> Self {
        Self(Mutex::new(Inner { halt: None, since: now }))
    }

    /// How long until an account may be worked on: none while the gate is open.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.lock().halt.as_ref().map(|halt| halt.next_probe.saturating_duration_since(Instant::now()))
    }

    /// Everything is refused, or so it seems. Returns whether that is news.
    pub(super) fn halt(&self, reason: &str, now: Timestamp) -> bool {
        let mut inner = self.lock();
        let news = inner.halt.is_none();
        let at = Instant::now();
        let wait = match &inner.halt {
            None => FIRST_PROBE,
            // No probe, but a call that was under way when the halt began: it says nothing new.
            Some(halt) if at < halt.next_probe => return false,
            Some(halt) => (halt.wait * 2).min(LONGEST_PROBE),
        };
        inner.halt = Some(Halt { reason: reason.to_owned(), next_probe: at + wait, wait });
        if news {
            inner.since = now;
        }
        news
    }

    /// A call went through. Returns whether that ended a halt.
    pub(super) fn open(&self, now: Timestamp) -> bool {
        let mut inner = self.lock();
        let news = inner.halt.take().is_some();
        if news {
            inner.since = now;
        }
        news
    }

    /// For `/health`.
    pub(super) fn health(&self) -> Health {
        let inner = self.lock();
        match &inner.halt {
            None => Health { state: State::Ok, reason: None, since: inner.since },
            Some(halt) => Health { state: State::Halted, reason: Some(halt.reason.clone()), since: inner.since },
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn calls_that_were_under_way_make_no_probe_rarer() {
        let gate = Gate::new(Timestamp(0));
        assert!(gate.halt("401", Timestamp(1)));
        for _ in 0..7 {
            assert!(!gate.halt("401", Timestamp(1)));
        }
        assert_eq!(gate.wait(), Some(FIRST_PROBE));
    }

    #[tokio::test(start_paused = true)]
    async fn probes_become_rarer_and_a_success_opens() {
        let gate = Gate::new(Timestamp(0));
        assert_eq!(gate.wait(), None);
        assert!(gate.halt("401", Timestamp(1)));
        assert_eq!(gate.wait(), Some(FIRST_PROBE));
        tokio::time::advance(FIRST_PROBE).await;
        assert_eq!(gate.wait(), Some(Duration::ZERO));
        assert!(!gate.halt("401", Timestamp(2)));
        assert_eq!(gate.wait(), Some(FIRST_PROBE * 2));
        assert_eq!(gate.health().since, Timestamp(1));
        assert!(gate.open(Timestamp(3)));
        assert_eq!(gate.wait(), None);
    }
}
