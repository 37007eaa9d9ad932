//! The order of calls: never two at once for one account, and none that is older than one that was begun before it.
//!
//! The platform's log says when each call began and what it was to set. The ledger says when each delivery was
//! recorded, and the model what the account's status should have been from then on. So for each call there are times at
//! which rollcall may have decided on it. One whose latest such time is before the earliest such time of a call that
//! was begun before it is older than that, for certain. It is forgiven only if bytes could arrive late just then (a
//! frozen process, a wire that was held still, Drata doing things late): that the status is right in the end is checked
//! besides.

use rollcall::sandbox::Seen;

use crate::harness::github::Account;
use crate::model::{Expected, concerns, expected};
use crate::notes::Struck;
use crate::world::{Told, World};

/// How long a call may wait after it was decided on: for its turn under the rate limit, within its lease.
const TURN: i64 = 5_000_000;
/// How long it may take from the time that is written down with a delivery until others see it.
const COMMIT: i64 = 2_000_000;
/// How long after a fault its late bytes may arrive.
const AFTERMATH: i64 = 6_000_000;
/// How exact the times of the log are against each other.
const BLUR: i64 = 2_000;

/// What an account's status should have been, and from when to when: the ledger's state as it grew.
#[derive(Debug)]
pub(crate) struct History(Vec<(i64, i64, Option<Expected>)>);

impl History {
    /// From when each delivery was recorded.
    pub(crate) fn new(world: &World, account: Account, at: &[Option<i64>]) -> Self {
        let mut recorded: Vec<(i64, &Told)> = world
            .told
            .iter()
            .zip(at)
            .filter(|(told, _)| concerns(told, account))
            .filter_map(|(told, at)| Some(((*at)?, told)))
            .collect();
        recorded.sort_by_key(|(at, _)| *at);
        let mut states = Vec::with_capacity(recorded.len());
        for (n, (at, _)) in recorded.iter().enumerate() {
            let until = recorded.get(n + 1).map_or(i64::MAX, |(next, _)| next + COMMIT);
            let state = expected(world, account, recorded[..=n].iter().map(|(_, told)| *told));
            states.push((*at, until, Some(state)));
        }
        Self(states)
    }

    /// When a call may have been decided on: at the earliest and at the latest. None if it never should have been.
    fn decided(&self, call: &Seen) -> Option<(i64, i64)> {
        let wanted = if call.user_id.is_some() { Expected::Linked } else { Expected::Unlinked };
        let spans = || {
            self.0
                .iter()
                .filter(|(from, _, state)| *state == Some(wanted) && *from <= call.begun)
                .map(|(from, until, _)| (*from, (*until).min(call.begun)))
        };
        let latest = spans().map(|(_, until)| until).max()?;
        let recent = spans().filter(|(_, until)| *until >= call.begun - TURN).map(|(from, _)| from).min();
        Some((recent.map_or(latest, |from| from.max(call.begun - TURN)), latest))
    }
}

/// What was found about one account's calls.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    pub(crate) wrong: Vec<String>,
    /// Calls that late bytes overtook.
    pub(crate) overtaken: usize,
}

/// When bytes could arrive late: from when to when.
pub(crate) fn late(struck: &[Struck]) -> Vec<(i64, i64)> {
    let spans = struck.iter().filter(|struck| struck.fault.makes_late());
    spans.map(|s| (s.began.micros(), s.ended.map_or(i64::MAX, |ended| ended.micros() + AFTERMATH))).collect()
}

/// Judges the calls for one account.
pub(crate) fn judge(history: &History, calls: &[Seen], late: &[(i64, i64)]) -> Judged {
    let mut judged = Judged::default();
    let mut calls: Vec<&Seen> = calls.iter().collect();
    calls.sort_by_key(|seen| (seen.begun, seen.number));
    let may_be_late = |call: &Seen| late.iter().any(|(from, to)| (*from..=*to).contains(&call.begun));
    let decided: Vec<_> = calls.iter().map(|call| history.decided(call)).collect();
    for (n, call) in calls.iter().enumerate() {
        if call.landed.is_some_and(|landed| calls.iter().any(|c| c.begun > call.begun && c.begun < landed)) {
            judged.overtaken += 1;
        }
        let Some((_, latest)) = decided[n] else {
            judged.wrong.push(format!("nothing that was recorded asks for this call: {call:?}"));
            continue;
        };
        for (before, decided) in calls.iter().zip(&decided).take(n) {
            // A call that is done late is under way until it is done, or until nobody waits for it any more.
            if before.ended.is_none_or(|ended| ended > call.begun + BLUR) && !may_be_late(before) && !may_be_late(call)
            {
                judged.wrong.push(format!("two calls at once: {before:?} and {call:?}"));
            }
            if decided.is_some_and(|(earliest, _)| latest < earliest) {
                if may_be_late(call) {
                    judged.overtaken += 1;
                } else {
                    judged.wrong.push(format!("an older status after a newer: {before:?}, then {call:?}"));
                }
            }
        }
    }
    judged
}
