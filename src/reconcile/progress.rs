//! Whether due accounts are worked on, from the point of view of whoever does it: the part `reconcile` of `/health`.
//!
//! What Drata does is another part's to tell ([`super::gate`]); this one tells of the ledger under the reconciler, and of
//! accounts that stay due for too long while nothing is halted.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::broker::{Health, State};
use crate::delivery::Timestamp;
use crate::ledger::LedgerError;

/// How long an account may be due before somebody should look.
const OVERDUE: Duration = Duration::from_mins(10);
/// After so many accounts in a row under which the ledger failed, it isn't the accounts.
const IN_A_ROW: usize = 3;
/// How many accounts are remembered under which the ledger failed,
const MOST: usize = 64;
/// and for how long at the least, unless it fails under them again: another worker may have settled them since.
const REMEMBERED: Duration = Duration::from_mins(2);

#[derive(Debug)]
pub(super) struct Progress {
    state: Mutex<Standing>,
    /// How long an account is remembered.
    remembered: Duration,
}

#[derive(Debug)]
struct Standing {
    /// Since when all is well, if it is.
    well_since: Timestamp,
    taking: Option<Trouble>,
    heartbeat: Option<Trouble>,
    overdue: Option<Trouble>,
    /// The accounts under which the ledger failed.
    accounts: BTreeMap<i64, Failing>,
    /// How many of them came in a row, without one that went well.
    in_a_row: usize,
}

#[derive(Clone, Debug)]
struct Trouble {
    since: Timestamp,
    why: String,
}

#[derive(Debug)]
struct Failing {
    trouble: Trouble,
    last: Timestamp,
}

impl Progress {
    /// An account under which the ledger fails comes again after so long at the most.
    pub(super) fn new(again: Duration, now: Timestamp) -> Self {
        let standing = Standing {
            well_since: now,
            taking: None,
            heartbeat: None,
            overdue: None,
            accounts: BTreeMap::new(),
            in_a_row: 0,
        };
        Self { state: Mutex::new(standing), remembered: REMEMBERED.max(again.saturating_mul(2)) }
    }

    fn change(&self, now: Timestamp, change: impl FnOnce(&mut Standing)) {
        let mut standing = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let was_well = standing.is_well();
        change(&mut standing);
        if !was_well && standing.is_well() {
            standing.well_since = now;
        }
    }

    /// Due accounts were taken from the ledger, or couldn't be.
    pub(super) fn took(&self, result: Result<(), &LedgerError>, now: Timestamp) {
        self.change(now, |standing| note(&mut standing.taking, result.err().map(ToString::to_string), now));
    }

    /// The worker has told the ledger that it is at work, or couldn't.
    pub(super) fn heartbeat(&self, result: Result<(), &LedgerError>, now: Timestamp) {
        self.change(now, |standing| note(&mut standing.heartbeat, result.err().map(ToString::to_string), now));
    }

    /// For how long the account that has been due for the longest time has been so.
    pub(super) fn overdue(&self, longest: Option<Duration>, now: Timestamp) {
        let too_long = longest.filter(|longest| *longest > OVERDUE).map(|longest| {
            let minutes = Duration::from_secs(longest.as_secs() / 60 * 60);
            format!("an account has been due for {}", humantime::format_duration(minutes))
        });
        self.change(now, |standing| note(&mut standing.overdue, too_long, now));
    }

    /// An account was worked on; the ledger may have failed under it.
    pub(super) fn account(&self, status: i64, error: Option<&LedgerError>, now: Timestamp) {
        self.change(now, |standing| match error {
            None => {
                standing.accounts.remove(&status);
                standing.in_a_row = 0;
            }
            Some(error) => standing.failed(status, error, now),
        });
    }

    pub(super) fn health(&self, now: Timestamp) -> Health {
        let recent = |failing: &Failing| now.since(failing.last) < self.remembered;
        self.change(now, |standing| standing.accounts.retain(|_, failing| recent(failing)));
        let standing = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let health = |state, trouble: &Trouble, what: &str| Health {
            state,
            reason: Some(format!("{what}{}", trouble.why)),
            since: trouble.since,
        };
        if let Some(trouble) = &standing.taking {
            return health(State::Down, trouble, "due accounts can't be taken from the ledger: ");
        }
        if let Some(Failing { trouble, .. }) = standing.accounts.values().min_by_key(|failing| failing.trouble.since) {
            let state = if standing.in_a_row >= IN_A_ROW { State::Down } else { State::Degraded };
            let what = format!("the ledger failed under {} of the latest accounts: ", standing.accounts.len());
            return health(state, trouble, &what);
        }
        if let Some(trouble) = &standing.overdue {
            return health(State::Degraded, trouble, "");
        }
        if let Some(trouble) = &standing.heartbeat {
            return health(State::Degraded, trouble, "the ledger doesn't take this worker's heartbeat: ");
        }
        Health { state: State::Ok, reason: None, since: standing.well_since }
    }
}

impl Standing {
    fn is_well(&self) -> bool {
        self.taking.is_none() && self.heartbeat.is_none() && self.overdue.is_none() && self.accounts.is_empty()
    }

    fn failed(&mut self, status: i64, error: &LedgerError, now: Timestamp) {
        match self.accounts.get_mut(&status) {
            Some(failing) => {
                failing.last = now;
                failing.trouble.why = error.to_string();
            }
            None => {
                self.in_a_row = self.in_a_row.saturating_add(1);
                if self.accounts.len() < MOST {
                    let trouble = Trouble { since: now, why: error.to_string() };
                    self.accounts.insert(status, Failing { trouble, last: now });
                }
            }
        }
    }
}

/// Keeps since when it is so.
fn note(trouble: &mut Option<Trouble>, why: Option<String>, now: Timestamp) {
    *trouble = why.map(|why| Trouble { since: trouble.as_ref().map_or(now, |known| known.since), why });
}

#[cfg(test)]
mod tests {
    use super::*;

    const ERROR: LedgerError = LedgerError::Address;

    fn minutes(minutes: u64) -> Timestamp {
        Timestamp(0).plus(Duration::from_mins(minutes))
    }

    fn state(progress: &Progress, now: Timestamp) -> (State, Timestamp) {
        let health = progress.health(now);
        (health.state, health.since)
    }

    #[test]
    fn it_is_down_while_due_accounts_cannot_be_taken() {
        let progress = Progress::new(Duration::ZERO, minutes(0));
        assert_eq!(state(&progress, minutes(1)), (State::Ok, minutes(0)));
        progress.took(Err(&ERROR), minutes(2));
        progress.took(Err(&ERROR), minutes(3));
        assert_eq!(state(&progress, minutes(3)), (State::Down, minutes(2)));
        assert!(progress.health(minutes(3)).reason.unwrap().contains(&ERROR.to_string()));
        progress.took(Ok(()), minutes(4));
        assert_eq!(state(&progress, minutes(5)), (State::Ok, minutes(4)));
    }

    #[test]
    fn one_account_degrades_it_and_several_in_a_row_take_it_down() {
        let progress = Progress::new(Duration::ZERO, minutes(0));
        for _ in 0..5 {
            progress.account(1, Some(&ERROR), minutes(1));
        }
        assert_eq!(state(&progress, minutes(1)), (State::Degraded, minutes(1)));
        progress.account(2, Some(&ERROR), minutes(2));
        progress.account(3, Some(&ERROR), minutes(2));
        assert_eq!(state(&progress, minutes(2)), (State::Down, minutes(1)));
        progress.account(2, None, minutes(2));
        assert_eq!(state(&progress, minutes(2)), (State::Degraded, minutes(1)));
        progress.account(1, None, minutes(2));
        progress.account(3, None, minutes(2));
        assert_eq!(state(&progress, minutes(2)), (State::Ok, minutes(2)));
    }

    #[test]
    fn what_another_worker_may_have_settled_is_forgotten() {
        let progress = Progress::new(Duration::ZERO, minutes(0));
        progress.account(1, Some(&ERROR), minutes(1));
        assert_eq!(state(&progress, minutes(2)).0, State::Degraded);
        assert_eq!(state(&progress, minutes(4)), (State::Ok, minutes(4)));

        let patient = Progress::new(Duration::from_mins(5), minutes(0));
        patient.account(1, Some(&ERROR), minutes(1));
        assert_eq!(state(&patient, minutes(10)).0, State::Degraded, "it comes again after five minutes");
    }

    #[test]
    fn an_account_that_stays_due_for_too_long_degrades_it() {
        let progress = Progress::new(Duration::ZERO, minutes(0));
        progress.overdue(Some(OVERDUE), minutes(1));
        assert_eq!(state(&progress, minutes(1)).0, State::Ok);
        progress.overdue(Some(Duration::from_secs(755)), minutes(2));
        progress.overdue(Some(Duration::from_secs(760)), minutes(3));
        assert_eq!(state(&progress, minutes(3)), (State::Degraded, minutes(2)));
        assert_eq!(progress.health(minutes(3)).reason.unwrap(), "an account has been due for 12m");
        progress.overdue(None, minutes(4));
        assert_eq!(state(&progress, minutes(4)).0, State::Ok);
    }

    #[test]
    fn a_heartbeat_that_is_not_taken_degrades_it() {
        let progress = Progress::new(Duration::ZERO, minutes(0));
        progress.heartbeat(Err(&ERROR), minutes(1));
        assert_eq!(state(&progress, minutes(1)), (State::Degraded, minutes(1)));
        progress.heartbeat(Ok(()), minutes(2));
        assert_eq!(state(&progress, minutes(2)).0, State::Ok);
    }
}
