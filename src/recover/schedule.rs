//! Recovering on a schedule: one job a source, done by one worker at a time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;

use super::{HookReport, Manner, RecoverError, Recovery};
use crate::jobs::{self, Job};
use crate::provider::recover::Hooks;

/// What the names of the jobs begin with; a source's name follows.
pub const JOB: &str = "recover:";

/// How long the schedule waits for what it asked for: the next time it looks again anyway.
const WAIT: Duration = Duration::from_secs(30);

/// What a scheduled run came to.
struct Reports(Vec<HookReport>);

impl fmt::Display for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, report) in self.0.iter().enumerate() {
            write!(f, "{}{report}", if n > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}

/// Whether the configuration says which hook is the source's. If not, nothing is recovered on a schedule: a token alone may
/// be there for something else.
#[must_use]
pub fn knows_its_hook(recovery: &Recovery) -> bool {
    let source = &recovery.source;
    let unknown = match recovery.recover.hooks() {
        Ok(Hooks::Named(_)) => None,
        Ok(Hooks::Listed(_)) if recovery.endpoint.is_some() => None,
        Ok(Hooks::Listed(_)) => Some("ingress.public_url and the source's `hook` aren't set".to_owned()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(why) = &unknown {
        tracing::info!(%source, why, "what the provider fails to deliver isn't recovered: it isn't known which hook to ask about");
    }
    unknown.is_none()
}

/// Recovers whenever it is due, until the token is cancelled.
pub async fn run(recovery: Recovery, job: Job, token: CancellationToken) {
    let ledger = recovery.ledger.clone();
    let recovery = Arc::new(recovery);
    let work = move || {
        let recovery = Arc::clone(&recovery);
        async move { once(&recovery).await }.boxed()
    };
    jobs::run(&ledger, &job, &token, work).await;
}

async fn once(recovery: &Recovery) -> Result<Reports, RecoverError> {
    let manner = Manner { since: None, forgotten: false, wait: WAIT, by: "the schedule", scheduled: true };
    let mut reports = Vec::new();
    let found = recovery.hooks().await?;
    for list in found.without {
        tracing::warn!(source = %recovery.source, list, "none of the hooks there is the source's");
    }
    for hook in found.hooks {
        reports.push(recovery.recover(&hook, &manner, &|_, _| {}).await?);
    }
    Ok(Reports(reports))
}
