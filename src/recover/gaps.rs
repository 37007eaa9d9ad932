//! What is known of gaps: which periods were looked at, what of them is missing, and which nobody has looked at.

use serde::Serialize;

use super::coverage::{joined, left_out};
use crate::delivery::{SourceName, Timestamp};
use crate::ledger::recoveries::{Fate, Period, Undelivered};
use crate::ledger::{Ledger, LedgerError};

/// A source.
#[derive(Clone, Debug, Serialize)]
pub struct SourceGaps {
    /// Its name.
    pub source: SourceName,
    /// Since when it has been heard of; null if it hasn't.
    pub heard_of: Option<Timestamp>,
    /// Its hooks, as far as they were looked at.
    pub hooks: Vec<HookGaps>,
    /// What nobody has looked at, if no hook was looked at.
    pub never_looked_at: Vec<Period>,
}

/// A hook.
#[derive(Clone, Debug, Serialize)]
pub struct HookGaps {
    /// Its path in the provider's API.
    pub hook: String,
    /// The periods that were looked at.
    pub looked_at: Vec<Covered>,
    /// The periods that weren't.
    pub never_looked_at: Vec<Period>,
    /// What is missing.
    pub missing: Vec<Undelivered>,
}

/// A period that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Covered {
    /// Which.
    #[serde(flatten)]
    pub period: Period,
    /// How much failed in it at first and has arrived since.
    pub recovered: usize,
    /// How much that failed in it is missing.
    pub missing: usize,
    /// Why the provider's list may not be the whole truth of it.
    pub doubts: Vec<String>,
}

impl SourceGaps {
    /// How much is missing.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.hooks.iter().map(|hook| hook.missing.len()).sum()
    }
}

/// What is known of a source's gaps.
///
/// # Errors
/// If the ledger fails.
pub async fn gaps(ledger: &Ledger, source: &SourceName) -> Result<SourceGaps, LedgerError> {
    let now = ledger.now().await?;
    let heard_of = ledger.heard_of(source).await?;
    let looks = ledger.looks(source).await?;
    let failed = ledger.undelivered(source, true).await?;
    let mut names: Vec<String> = looks.iter().map(|look| look.hook.hook.clone()).collect();
    names.extend(failed.iter().map(|undelivered| undelivered.hook.hook.clone()));
    names.sort();
    names.dedup();
    let life = heard_of.map(|from| Period { from, to: now });
    let mut hooks = Vec::with_capacity(names.len());
    for hook in names {
        let of_hook = || looks.iter().filter(|look| look.hook.hook == hook);
        let failed: Vec<&Undelivered> = failed.iter().filter(|undelivered| undelivered.hook.hook == hook).collect();
        let covered = joined(of_hook().map(|look| look.period));
        let looked_at = covered.iter().map(|period| {
            let within = |at: Timestamp| period.from <= at && at <= period.to;
            let arrived = |undelivered: &&&Undelivered| undelivered.state == Fate::Arrived;
            let failed: Vec<&&Undelivered> = failed.iter().filter(|undelivered| within(undelivered.at())).collect();
            let recovered = failed.iter().copied().filter(arrived).count();
            let mut doubts: Vec<String> =
                of_hook().filter(|look| within(look.period.to)).filter_map(|look| look.doubt.clone()).collect();
            doubts.sort();
            doubts.dedup();
            Covered { period: *period, recovered, missing: failed.len() - recovered, doubts }
        });
        hooks.push(HookGaps {
            looked_at: looked_at.collect(),
            never_looked_at: life.map(|life| left_out(&covered, life)).unwrap_or_default(),
            missing: failed.into_iter().filter(|undelivered| undelivered.state != Fate::Arrived).cloned().collect(),
            hook,
        });
    }
    let never_looked_at = if hooks.is_empty() { life.into_iter().collect() } else { Vec::new() };
    Ok(SourceGaps { source: source.clone(), heard_of, hooks, never_looked_at })
}
