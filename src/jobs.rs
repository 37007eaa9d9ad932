//! Work on a schedule: done by one worker at a time, whichever comes first ([`crate::ledger::jobs`]).
//!
//! * [`monitor`]: how each job stands, for `/health` and metrics.

mod monitor;

use std::fmt::Display;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use self::monitor::{Job, Jobs};

use crate::backoff::spread;
use crate::delivery::Timestamp;
use crate::ledger::jobs::{JobLease, JobTurn};
use crate::ledger::{Ledger, LedgerError};
use crate::shutdown::caught;

/// How long a worker that has gone silent keeps a job.
const LEASE: Duration = Duration::from_mins(2);
/// How often it is kept for longer.
const KEEP: Duration = Duration::from_secs(30);
/// How long to wait at the most before the ledger is asked again: another worker's schedule may be shorter.
const ASK: Duration = Duration::from_mins(1);
/// How long to wait after the ledger has failed.
const LEDGER_AGAIN: Duration = Duration::from_secs(10);

/// What the result of a job that failed begins with.
pub const FAILED: &str = "failed: ";

/// Does a job whenever it is due, until the token is cancelled. What `work` returns is kept as the job's latest result.
/// `work` is dropped where it is when the token is cancelled or another worker has taken the job over, so whatever it
/// writes must hold by itself. A panic of `work` is kept as a failed run, so that a process that is started again doesn't
/// run into it at once, and goes on.
pub async fn run<T, E, F>(ledger: &Ledger, job: &Job, token: &CancellationToken, work: impl Fn() -> F)
where
    T: Display,
    E: Display,
    F: Future<Output = Result<T, E>>,
{
    let owner = Uuid::now_v7();
    let keep_doing = async {
        loop {
            let asked = Instant::now();
            let wait = match ledger.soon(ledger.take_job(job.name(), owner, LEASE)).await {
                Ok(JobTurn::Mine(lease)) => done(ledger, job, (lease, asked), &work).await,
                Ok(JobTurn::Later(wait)) => {
                    job.reached_ledger();
                    wait.min(ASK)
                }
                Err(error) => unreachable_ledger(job, &error),
            };
            tokio::time::sleep(spread(wait, fastrand::f64())).await;
        }
    };
    token.run_until_cancelled(keep_doing).await;
    // It may have been in the middle of it. Nobody else is to wait for its lease to run out.
    if let Err(error) = ledger.soon(ledger.give_back_job(job.name(), owner)).await {
        unreachable_ledger(job, &error);
    }
}

/// Does it once, with a lease and since when it holds. Returns how long to wait before the ledger is asked again.
async fn done<T, E, F>(
    ledger: &Ledger,
    job: &Job,
    (lease, since): (JobLease, Instant),
    work: impl Fn() -> F,
) -> Duration
where
    T: Display,
    E: Display,
    F: Future<Output = Result<T, E>>,
{
    job.reached_ledger();
    let ended = tokio::select! {
        ended = caught(async { work().await }) => ended,
        why = until_lost(ledger, job, &lease, since) => {
            tracing::warn!(job = job.name(), "{why}");
            return ASK;
        }
    };
    let (result, panic) = match ended {
        Ok(Ok(result)) => {
            tracing::info!(job = job.name(), %result, "done");
            (result.to_string(), None)
        }
        Ok(Err(error)) => {
            tracing::warn!(job = job.name(), %error, "failed");
            (format!("{FAILED}{error}"), None)
        }
        Err(panic) => (format!("{FAILED}it panicked: {}", panic.message), Some(panic)),
    };
    let ended = ledger.in_time(ledger.end_job(lease, job.every(), &result)).await;
    if let Some(panic) = panic {
        panic.resume();
    }
    match ended {
        Ok(()) => job.every().min(ASK),
        Err(error) => unreachable_ledger(job, &error),
    }
}

/// Keeps the job. Returns, with why, when it is somebody else's or may be; a ledger that fails may come back before the
/// lease ends.
async fn until_lost(ledger: &Ledger, job: &Job, lease: &JobLease, mut since: Instant) -> &'static str {
    loop {
        let keep = async {
            tokio::time::sleep(KEEP).await;
            (Instant::now(), ledger.soon(ledger.keep_job(lease, LEASE)).await)
        };
        match tokio::time::timeout_at(since + LEASE, keep).await {
            Ok((asked, Ok(true))) => {
                since = asked;
                job.reached_ledger();
            }
            Ok((_, Ok(false))) => return "another worker has taken this job over",
            Ok((_, Err(error))) => {
                unreachable_ledger(job, &error);
            }
            Err(_) => {
                unreachable_ledger(job, &LedgerError::Silent { after: LEASE });
                return "this job couldn't be kept for as long as its lease holds; another worker may have it by now";
            }
        }
    }
}

fn unreachable_ledger(job: &Job, error: &LedgerError) -> Duration {
    tracing::warn!(job = job.name(), %error, "the ledger can't be asked about this job");
    job.ledger_failed(error, Timestamp::now());
    LEDGER_AGAIN
}

#[cfg(test)]
mod tests;
