//! Counts and logs what is refused. The log says which check failed, which the client isn't told; a flood of refusals
//! of one kind is logged once in a while, with their number.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue};
use metrics::Counter;
use sha2::{Digest, Sha256};

use super::problem::Problem;
use crate::delivery::{RefusedCount, Timestamp};
use crate::provider::Refusal;
use crate::telemetry::metrics::REFUSED;

/// How long refusals of one source and kind are only counted after one was logged, in microseconds.
const QUIET: i64 = 10_000_000;

/// How many senders of one source are told apart in one run. Whoever wants to be a thousand can't fill the ledger.
const SENDERS: usize = 32;
/// All the others.
const OTHERS: &str = "others";

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

/// What a request says of its sender. It may say what it likes; it is only kept as a [fingerprint](Said::fingerprint).
#[derive(Debug)]
pub(super) struct Said {
    agent: Option<HeaderValue>,
    forwarded_for: Option<HeaderValue>,
}

impl Said {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self { agent: headers.get(USER_AGENT).cloned(), forwarded_for: headers.get("x-forwarded-for").cloned() }
    }

    /// Tells senders apart without telling who they are.
    fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for value in [&self.agent, &self.forwarded_for] {
            hash.update(value.as_ref().map_or(&b"-"[..], HeaderValue::as_bytes));
            hash.update([0]);
        }
        hash.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The refusals of one source.
#[derive(Debug)]
pub(super) struct Refusals {
    source: String,
    kinds: [Kind; Problem::ALL.len()],
    senders: Mutex<BTreeMap<(Problem, String), Sum>>,
}

/// What was refused of one sender for one reason since the run began.
#[derive(Clone, Copy, Debug)]
struct Sum {
    count: u64,
    /// What a confirmed checkpoint has told of it.
    told: u64,
    last_at: Timestamp,
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
        Self { source: source.to_owned(), kinds, senders: Mutex::default() }
    }

    pub(super) fn record(&self, refused: &Refused, said: &Said, now: Timestamp) {
        let Refused { problem, why } = refused;
        let Some((_, kind)) = Problem::ALL.iter().zip(&self.kinds).find(|(known, _)| *known == problem) else { return };
        kind.counter.increment(1);
        self.add(*problem, said.fingerprint(), now);
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

    fn add(&self, problem: Problem, sender: String, now: Timestamp) {
        let mut senders = self.senders();
        let room = senders.len() < SENDERS || senders.contains_key(&(problem, sender.clone()));
        let sender = if room { sender } else { OTHERS.to_owned() };
        let sum = senders.entry((problem, sender)).or_insert(Sum { count: 0, told: 0, last_at: now });
        sum.count += 1;
        sum.last_at = now;
    }

    /// What there is to tell since the last confirmed checkpoint.
    pub(super) fn news(&self) -> Vec<RefusedCount> {
        let senders = self.senders();
        let news = senders.iter().filter(|(_, sum)| sum.count > sum.told);
        news.map(|((problem, sender), sum)| RefusedCount {
            reason: problem.slug().to_owned(),
            sender: sender.clone(),
            count: sum.count,
            last_at: sum.last_at,
        })
        .collect()
    }

    /// A checkpoint that told this was confirmed.
    pub(super) fn told(&self, news: &[RefusedCount]) {
        let mut senders = self.senders();
        for ((problem, sender), sum) in senders.iter_mut() {
            let told = news.iter().find(|news| news.reason == problem.slug() && news.sender == *sender);
            sum.told = told.map_or(sum.told, |news| news.count);
        }
    }

    fn senders(&self) -> MutexGuard<'_, BTreeMap<(Problem, String), Sum>> {
        // Held for a few instructions that can't panic, so a poisoned lock holds sound data.
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(agent: &str) -> Said {
        Said { agent: Some(HeaderValue::from_str(agent).unwrap()), forwarded_for: None }
    }

    #[test]
    fn refusals_are_told_once_as_sums_and_many_senders_as_others() {
        let refusals = Refusals::new("acme");
        let refused = || Refused::new(Problem::Unverified, "no");
        refusals.record(&refused(), &said("hookshot"), Timestamp(1));
        refusals.record(&refused(), &said("hookshot"), Timestamp(2));
        let news = refusals.news();
        assert_eq!((news.len(), news[0].count, news[0].last_at), (1, 2, Timestamp(2)));
        assert_eq!((news[0].reason.as_str(), news[0].sender.len()), ("unverified", 8));
        refusals.record(&refused(), &said("hookshot"), Timestamp(3));
        refusals.told(&news);
        assert_eq!(refusals.news()[0].count, 3, "what came meanwhile is still news");
        refusals.told(&refusals.news());
        assert!(refusals.news().is_empty());

        for n in 0..100 {
            refusals.record(&refused(), &said(&format!("agent {n}")), Timestamp(4));
        }
        let news = refusals.news();
        assert_eq!(news.len(), SENDERS);
        assert_eq!(news.iter().find(|news| news.sender == OTHERS).unwrap().count, 69);
    }
}
