//! Counts and logs what is refused. The log says which check failed, which the client isn't told; a flood of refusals
//! of one kind is logged once in a while, with their number.

use std::borrow::Cow;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use metrics::Counter;

use super::problem::Problem;
use crate::delivery::Timestamp;
use crate::provider::Refusal;
use crate::telemetry::metrics::REFUSED;

/// How long refusals of one source and kind are only counted after one was logged, in microseconds.
const QUIET: i64 = 10_000_000;

/// A request that is refused, and why, for our own log.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) problem: Problem,
    pub(super) why: Cow<'static, str>,
}

impl Refused {
    pub(super) fn new(problem: Problem, why: impl Into<Cow<'static, str>>) -> Self {
        Self { problem, why: why.into() }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unverified(why) => Self::new(Problem::Unverified, why),
            Refusal::Malformed(why) => Self::new(Problem::Malformed, why),
        }
    }
}

/// The refusals of one source.
#[derive(Debug)]
pub(super) struct Refusals {
    source: String,
    kinds: [Kind; Problem::ALL.len()],
}

#[derive(Debug)]
struct Kind {
    counter: Counter,
    quiet_until: AtomicI64,
    unlogged: AtomicU64,
}

impl Refusals {
    pub(super) fn new(source: &str) -> Self {
        let kinds = Problem::ALL.map(|problem| Kind {
            counter: metrics::counter!(REFUSED, "source" => source.to_owned(), "reason" => problem.slug()),
            quiet_until: AtomicI64::new(i64::MIN),
            unlogged: AtomicU64::new(0),
        });
        Self { source: source.to_owned(), kinds }
    }

    pub(super) fn record(&self, refused: &Refused, now: Timestamp) {
        let Refused { problem, why } = refused;
        let Some((_, kind)) = Problem::ALL.iter().zip(&self.kinds).find(|(known, _)| *known == problem) else { return };
        kind.counter.increment(1);
        let (source, status, reason) = (&self.source, problem.status().as_u16(), problem.slug());
        let loud = |until: i64| (until <= now.micros()).then(|| now.micros().saturating_add(QUIET));
        if kind.quiet_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, loud).is_ok() {
            let unlogged = kind.unlogged.swap(0, Ordering::Relaxed);
            tracing::warn!(source, status, reason, why = %why, unlogged, "request refused");
        } else {
            kind.unlogged.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(source, status, reason, why = %why, "request refused");
        }
    }
}
