//! Rosters on a schedule: each source's are one job.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{RosterError, RosterSource, Rosters};
use crate::access::RootPattern;
use crate::jobs::{self, Job};
use crate::ledger::LedgerError;
use crate::telemetry::metrics as names;

/// Reads a source's rosters again and again until the token is cancelled. `wake` is called when an account became due.
pub async fn run(
    rosters: Rosters<'_>,
    source: &RosterSource,
    every: Duration,
    this_run: Uuid,
    token: &CancellationToken,
    wake: impl Fn(),
) {
    let name = format!("roster:{}", source.name);
    let job = Job { name: &name, every };
    jobs::run(rosters.ledger, this_run, job, token, async || all(&rosters, source, &wake).await).await;
}

/// Reads each root. One that can't be read doesn't keep the others from it.
async fn all(rosters: &Rosters<'_>, source: &RosterSource, wake: &impl Fn()) -> Result<String, String> {
    let failed = |root: &str, error: &RosterError| format!("{root}: {error}");
    let roots = match source.roots(rosters.ledger).await {
        Ok(roots) => roots,
        Err(error) => {
            note_failure(rosters, source, "no root", &error).await.map_err(|error| error.to_string())?;
            return Err(error.to_string());
        }
    };
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
    rosters: &Rosters<'_>,
    source: &RosterSource,
    root: &RootPattern,
    wake: &impl Fn(),
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
    rosters: &Rosters<'_>,
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
