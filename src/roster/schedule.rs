//! Rosters on a schedule: each source's are one job.

use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;

use super::{RosterError, RosterSource, Rosters};
use crate::access::RootPattern;
use crate::jobs::{self, Job};
use crate::ledger::LedgerError;
use crate::telemetry::metrics as names;

/// Reads a source's rosters again and again until the token is cancelled. `wake` is called when an account became due.
pub async fn run(
    rosters: Rosters,
    source: RosterSource,
    job: Job,
    token: &CancellationToken,
    wake: impl Fn() + Send + Sync + 'static,
) {
    let ledger = rosters.ledger.clone();
    let shared = Arc::new((rosters, source, wake));
    let work = move || {
        let shared = Arc::clone(&shared);
        async move {
            let (rosters, source, wake) = &*shared;
            all(rosters, source, wake).await
        }
        .boxed()
    };
    jobs::run(&ledger, &job, token, work).await;
}

/// Reads each root. One that can't be read doesn't keep the others from it.
async fn all(rosters: &Rosters, source: &RosterSource, wake: &(impl Fn() + Sync)) -> Result<String, String> {
    let failed = |root: &str, error: &RosterError| format!("{root}: {error}");
    let roots = match source.roots(&rosters.ledger).await {
        Ok(roots) => roots,
        Err(error) => {
            note_failure(rosters, source, "no root", &error).await.map_err(|error| error.to_string())?;
            return Err(error.to_string());
        }
    };
    let forgotten = rosters.ledger.forget_other_rosters(&source.name, &roots).await;
    forgotten.map_err(|error| error.to_string())?;
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    for root in &roots {
        match one(rosters, source, root, wake).await {
            Ok(told) => done.push(told),
            Err(error) => {
                note_failure(rosters, source, &root.to_string(), &error).await.map_err(|error| error.to_string())?;
                failures.push(failed(&root.to_string(), &error));
            }
        }
    }
    if failures.is_empty() { Ok(done.join("; ")) } else { Err(failures.join("; ")) }
}

async fn one(
    rosters: &Rosters,
    source: &RosterSource,
    root: &RootPattern,
    wake: &(impl Fn() + Sync),
) -> Result<String, RosterError> {
    let look = rosters.look(source, root).await?;
    let members = look.members;
    let recorded = rosters.record(source, look, false).await?;
    if recorded.due {
        wake();
    }
    count(source, "whole");
    Ok(format!("{root}: {members} have access; {recorded}"))
}

async fn note_failure(
    rosters: &Rosters,
    source: &RosterSource,
    root: &str,
    error: &RosterError,
) -> Result<(), LedgerError> {
    count(source, "failed");
    rosters.ledger.reading_failed(&source.name, root, &error.to_string()).await
}

fn count(source: &RosterSource, result: &'static str) {
    let labels = [("source", source.name.to_string()), ("result", result.to_owned())];
    metrics::counter!(names::ROSTER_READINGS, &labels).increment(1);
}
