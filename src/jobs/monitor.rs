//! How each job stands: its last success and its last failure, whichever worker ran it, read from the ledger every few
//! seconds; and whether this process can ask the ledger about it at all.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::FAILED;
use crate::broker::{Health, State};
use crate::delivery::Timestamp;
use crate::ledger::jobs::JobRow;
use crate::ledger::{Ledger, LedgerError};
use crate::telemetry::metrics as names;

/// How often the ledger is read.
const EVERY: Duration = Duration::from_secs(5);
/// A job is overdue when it hasn't succeeded for so many of its intervals
const INTERVALS: u32 = 3;
/// and so long on top: another worker may have died in the middle of it, and short intervals are no promise.
const SLACK: Duration = Duration::from_mins(5);

/// The jobs that this process takes part in.
#[derive(Clone, Debug)]
pub struct Jobs {
    began: Timestamp,
    jobs: Arc<Mutex<Vec<Job>>>,
}

/// A job. Only [`Jobs::add`] makes one, so that none can run without `/health` and metrics telling how it stands.
#[derive(Clone, Debug)]
pub struct Job {
    name: Cow<'static, str>,
    every: Duration,
    standing: Arc<Mutex<Standing>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing {
    /// Since when it is known of.
    began: Timestamp,
    succeeded_at: Option<Timestamp>,
    /// Its last failure: when, since when it fails without a success in between, and why.
    failed: Option<Failed>,
    /// Whether it has failed since its last success.
    is_failing: bool,
    is_overdue: bool,
    /// Since when, and why, the ledger can't be asked about it.
    ledger: Option<(Timestamp, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Failed {
    at: Timestamp,
    since: Timestamp,
    why: String,
}

impl Jobs {
    /// No jobs yet.
    #[must_use]
    pub fn new(began: Timestamp) -> Self {
        Self { began, jobs: Arc::default() }
    }

    /// A job of that name, the same in all workers, that is done again so long after its end.
    #[must_use]
    pub fn add(&self, name: impl Into<Cow<'static, str>>, every: Duration) -> Job {
        let standing = Standing {
            began: self.began,
            succeeded_at: None,
            failed: None,
            is_failing: false,
            is_overdue: false,
            ledger: None,
        };
        let job = Job { name: name.into(), every, standing: Arc::new(Mutex::new(standing)) };
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).push(job.clone());
        job
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<Job> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads from the ledger how they stand, until the token is cancelled.
    pub async fn watch(self, ledger: Ledger, token: CancellationToken) {
        let mut tick = tokio::time::interval(EVERY);
        while token.run_until_cancelled(tick.tick()).await.is_some() {
            let read = async { Ok((ledger.now().await?, ledger.jobs().await?)) };
            match ledger.soon(read).await {
                Ok((now, rows)) => self.update(now, &rows),
                // Each job says for itself when it can't ask. Time goes on all the same, if by another clock.
                Err(error) => {
                    tracing::warn!(%error, "the ledger can't be asked how the jobs stand; trying again");
                    self.update(Timestamp::now(), &[]);
                }
            }
        }
    }

    fn update(&self, now: Timestamp, rows: &[JobRow]) {
        for job in self.all() {
            let standing = job.update(now, rows.iter().find(|row| row.name == job.name));
            let seconds = |at: Option<Timestamp>| at.map_or(0.0, |at| at.since(Timestamp(0)).as_secs_f64());
            let label = || job.name.to_string();
            metrics::gauge!(names::JOB_SUCCEEDED, "job" => label()).set(seconds(standing.succeeded_at));
            let failed_at = standing.failed.map(|failed| failed.at);
            metrics::gauge!(names::JOB_FAILED, "job" => label()).set(seconds(failed_at));
            metrics::gauge!(names::JOB_OVERDUE, "job" => label()).set(f64::from(u8::from(standing.is_overdue)));
        }
    }
}

impl Job {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long after its end it is done again.
    #[must_use]
    pub const fn every(&self) -> Duration {
        self.every
    }

    fn standing(&self) -> std::sync::MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reached_ledger(&self) {
        self.standing().ledger = None;
    }

    pub(super) fn ledger_failed(&self, error: &LedgerError, now: Timestamp) {
        let mut standing = self.standing();
        let since = standing.ledger.as_ref().map_or(now, |(since, _)| *since);
        standing.ledger = Some((since, error.to_string()));
    }

    /// Takes in what the ledger has of it. Its table keeps the latest run alone, so that an earlier success is known only
    /// to a process that has seen it.
    fn update(&self, now: Timestamp, row: Option<&JobRow>) -> Standing {
        let mut standing = self.standing();
        if let Some((at, result)) = row.and_then(|row| row.ended_at.zip(row.result.as_deref())) {
            match result.strip_prefix(FAILED) {
                None => {
                    standing.succeeded_at = Some(at);
                    standing.is_failing = false;
                }
                Some(why) => {
                    let earlier = standing.failed.as_ref().filter(|_| standing.is_failing);
                    let since = earlier.map_or(at, |earlier| earlier.since);
                    standing.failed = Some(Failed { at, since, why: why.to_owned() });
                    standing.is_failing = true;
                }
            }
        }
        let known = standing.succeeded_at.unwrap_or(standing.began).max(standing.began);
        standing.is_overdue = now.since(known) > self.every.saturating_mul(INTERVALS).saturating_add(SLACK);
        standing.clone()
    }

    /// How it stands, for `/health`. A job that fails or isn't done doesn't keep the process from its work.
    #[must_use]
    pub fn health(&self) -> Health {
        let standing = self.standing();
        let degraded = |since, reason| Health { state: State::Degraded, reason: Some(reason), since };
        if let Some((since, why)) = &standing.ledger {
            return degraded(*since, format!("the ledger can't be asked about it: {why}"));
        }
        if let Some(Failed { at, since, why }) = standing.failed.as_ref().filter(|_| standing.is_failing) {
            let before = standing.succeeded_at.map_or_else(String::new, |at| format!("; its last success was at {at}"));
            return degraded(*since, format!("its last run failed at {at}: {why}{before}"));
        }
        if standing.is_overdue {
            let since = standing.succeeded_at.unwrap_or(standing.began);
            let every = humantime::format_duration(self.every);
            return degraded(since, format!("it should succeed every {every} and hasn't since {since}"));
        }
        Health { state: State::Ok, reason: None, since: standing.succeeded_at.unwrap_or(standing.began) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn row(ended_at: i64, result: &str) -> JobRow {
        JobRow {
            name: "seal".to_owned(),
            due_at: Timestamp(0),
            running: false,
            began_at: None,
            ended_at: Some(Timestamp(ended_at)),
            result: Some(result.to_owned()),
        }
    }

    fn seconds(seconds: u64) -> Timestamp {
        Timestamp(0).plus(Duration::from_secs(seconds))
    }

    #[test]
    fn a_job_is_degraded_from_its_first_failure_to_its_next_success() {
        let jobs = Jobs::new(Timestamp(0));
        let job = jobs.add("seal", HOUR);
        assert_eq!((job.health().state, job.health().since), (State::Ok, Timestamp(0)));
        job.update(seconds(1), Some(&row(10, "sealed")));
        job.update(seconds(1), Some(&row(20, "failed: a disk")));
        job.update(seconds(1), Some(&row(30, "failed: another disk")));
        let health = job.health();
        assert_eq!((health.state, health.since), (State::Degraded, Timestamp(20)));
        let reason = health.reason.unwrap();
        assert!(reason.contains("another disk") && reason.contains("last success"), "{reason}");
        job.update(seconds(1), Some(&row(40, "sealed")));
        assert_eq!((job.health().state, job.health().since), (State::Ok, Timestamp(40)));
        job.update(seconds(1), Some(&row(50, "failed: again")));
        assert_eq!(job.health().since, Timestamp(50));
    }

    #[test]
    fn a_job_that_nobody_does_is_overdue_after_three_intervals() {
        let jobs = Jobs::new(Timestamp(0));
        let job = jobs.add("seal", HOUR);
        assert!(!job.update(seconds(3 * 3600), None).is_overdue);
        assert!(job.update(seconds(3 * 3600 + 301), None).is_overdue);
        let reason = job.health().reason.unwrap();
        assert!(reason.contains("every 1h"), "{reason}");
        job.update(seconds(3 * 3600 + 302), Some(&row(3 * 3_600_000_000, "sealed")));
        assert_eq!(job.health().state, State::Ok);
        // A success from before this process began, long ago, is no reason to worry before it has had its chance.
        let late = Jobs::new(seconds(90_000)).add("seal", HOUR);
        assert!(!late.update(seconds(90_010), Some(&row(0, "sealed"))).is_overdue);
        // An interval without end is never over.
        assert!(!jobs.add("never", Duration::MAX).update(seconds(1_000_000), None).is_overdue);
    }

    #[test]
    fn a_ledger_that_cannot_be_asked_is_told_since_it_began() {
        let job = Jobs::new(Timestamp(0)).add("seal", HOUR);
        job.ledger_failed(&LedgerError::Address, Timestamp(7));
        job.ledger_failed(&LedgerError::Address, Timestamp(8));
        assert_eq!((job.health().state, job.health().since), (State::Degraded, Timestamp(7)));
        job.reached_ledger();
        assert_eq!(job.health().state, State::Ok);
    }

    #[test]
    fn successes_and_failures_are_told_as_metrics() {
        let (recorder, metrics) = names::recorder().unwrap();
        let jobs = Jobs::new(Timestamp(0));
        let _seal = jobs.add("seal", HOUR);
        metrics::with_local_recorder(&recorder, || jobs.update(seconds(60), &[row(30_000_000, "failed: no")]));
        let text = metrics.render();
        for line in [
            "rollcall_job_last_failure_timestamp_seconds{job=\"seal\"} 30",
            "rollcall_job_last_success_timestamp_seconds{job=\"seal\"} 0",
            "rollcall_job_overdue{job=\"seal\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in {text}");
        }
    }
}
