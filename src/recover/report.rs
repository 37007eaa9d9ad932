//! What a look at a hook came to, or would.

use std::fmt;

use serde::Serialize;

use crate::delivery::Timestamp;
use crate::ledger::recoveries::{HookKey, Period, Undelivered};

/// What it came to for one hook.
#[derive(Clone, Debug, Serialize)]
pub struct HookReport {
    /// The hook.
    #[serde(flatten)]
    pub hook: HookKey,
    /// What was looked at; null if everything was looked at before.
    pub looked_at: Option<Period>,
    /// How many attempts were read.
    pub read: i64,
    /// How many deliveries were asked for.
    pub asked: usize,
    /// How many arrived meanwhile.
    pub arrived: u64,
    /// What is missing, and why.
    pub missing: Vec<Undelivered>,
    /// Why the provider's list may not be the whole truth.
    pub doubt: Option<String>,
    /// The end of what was looked at before, if the provider no longer told of what came right after it.
    pub lapsed_from: Option<Timestamp>,
}

impl fmt::Display for HookReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.hook.hook)?;
        match (&self.looked_at, self.missing.len()) {
            (None, 0) => f.write_str("nothing new to look at")?,
            (Some(Period { from, to }), 0) => {
                write!(f, "no gap between {} and {}", from.whole_second(), to.whole_second())?
            }
            (_, 1) => f.write_str("a delivery that matters is missing")?,
            (_, missing) => write!(f, "{missing} deliveries that matter are missing")?,
        }
        write!(f, " ({} attempts read, {} asked for again, {} arrived)", self.read, self.asked, self.arrived)
    }
}

/// What it would come to for one hook.
#[derive(Clone, Debug, Serialize)]
pub struct HookPlan {
    /// The hook.
    #[serde(flatten)]
    pub hook: HookKey,
    /// What was looked at.
    pub looked_at: Period,
    /// How many attempts were read.
    pub read: i64,
    /// What would be asked for.
    pub would_ask: Vec<Wanted>,
}

/// A delivery that would be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wanted {
    /// Its id.
    pub delivery: String,
    /// The event.
    pub event: String,
    /// When it failed, if that is told.
    pub failed_at: Option<Timestamp>,
    /// How, in the provider's words.
    pub status: String,
    /// Why it can't be asked for, if so.
    pub lost: Option<&'static str>,
}
