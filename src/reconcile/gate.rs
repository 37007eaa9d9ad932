//! What this worker knows of the halt, and the count that opens the circuit breaker.
//!
//! The halt itself is a row in the ledger, the same for all workers (see [`crate::ledger::halt`]); each sees it when it
//! takes due accounts. Failures are counted here, by each worker for itself: five in a row over at least two accounts
//! begin a halt. One account's endless trouble is parked as its own if another account got through meanwhile; if nobody
//! did, nobody knows whose trouble it is, and that is a halt as well.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::broker::{Health, State};
use crate::delivery::Timestamp;
use crate::ledger::halt::{Halt, HaltKind};
use crate::telemetry::metrics as names;

/// So many transient failures in a row open the breaker, over at least so many accounts.
const FAILURES: usize = 5;
const ACCOUNTS: usize = 2;

/// The operation that sets a status; a halt over it isn't ended by a look-up that works.
pub(super) const CONNECT: &str = "connect";

/// Whether calls may be made, as this worker knows.
#[derive(Debug)]
pub(super) struct Gate(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    halt: Option<Halt>,
    since: Timestamp,
    /// Failures in a row to look something up, and to connect: a look-up that works ends no row of the others.
    looking_up: Row,
    connecting: Row,
    /// The accounts whose last call failed.
    failing: BTreeMap<i64, Failing>,
}

/// Failures in a row.
#[derive(Debug, Default)]
struct Row {
    failures: usize,
    accounts: BTreeSet<i64>,
}

impl Row {
    /// Counts one more. Returns whether that opens the breaker.
    fn failed(&mut self, account: i64) -> bool {
        self.failures += 1;
        self.accounts.insert(account);
        let opens = self.failures >= FAILURES && self.accounts.len() >= ACCOUNTS;
        if opens {
            *self = Self::default();
        }
        opens
    }
}

#[derive(Debug)]
struct Failing {
    operation: &'static str,
    /// Whether another account got through since.
    others_got_through: bool,
}

impl Gate {
    /// An open gate.
    pub(super) const fn new(now: Timestamp) -> Self {
        Self(Mutex::new(Inner {
            halt: None,
            since: now,
            looking_up: Row { failures: 0, accounts: BTreeSet::new() },
            connecting: Row { failures: 0, accounts: BTreeSet::new() },
            failing: BTreeMap::new(),
        }))
    }

    /// Takes note of the halt as it stands.
    pub(super) fn observe(&self, halt: Option<Halt>, now: Timestamp) {
        let mut inner = self.lock();
        match (&inner.halt, &halt) {
            (None, Some(halt)) => {
                tracing::error!(reason = halt.reason, kind = halt.kind.as_str(), "calls are halted, recording goes on");
                inner.since = halt.since;
            }
            (Some(_), None) => {
                tracing::info!("the platform answers again; going on");
                inner.since = now;
            }
            _ => {}
        }
        for kind in HaltKind::ALL {
            let stands = halt.as_ref().is_some_and(|halt| halt.kind == kind);
            metrics::gauge!(names::HALTED, "kind" => kind.as_str()).set(f64::from(u8::from(stands)));
        }
        inner.halt = halt;
    }

    /// Whether a halt stands.
    pub(super) fn is_halted(&self) -> bool {
        self.lock().halt.is_some()
    }

    /// Whether a success of this operation would end the halt.
    pub(super) fn is_ended_by(&self, operation: &str) -> bool {
        self.lock().halt.as_ref().is_some_and(|halt| halt.operation != CONNECT || operation == CONNECT)
    }

    /// A call failed transiently. Returns whether that opens the breaker.
    pub(super) fn failed(&self, account: i64, operation: &'static str) -> bool {
        let mut inner = self.lock();
        let failing = inner.failing.entry(account).or_insert(Failing { operation, others_got_through: false });
        // To connect it has to look up first, so that failing to connect is the later trouble.
        if operation == CONNECT && failing.operation != CONNECT {
            *failing = Failing { operation, others_got_through: false };
        }
        if operation == CONNECT { inner.connecting.failed(account) } else { inner.looking_up.failed(account) }
    }

    /// A call was answered.
    pub(super) fn succeeded(&self, account: i64, operation: &str) {
        let mut inner = self.lock();
        inner.looking_up = Row::default();
        if operation == CONNECT {
            inner.connecting = Row::default();
        }
        // A look-up that works says nothing about connecting.
        let shows = |failing: &Failing| failing.operation != CONNECT || operation == CONNECT;
        inner.failing.retain(|failed, failing| *failed != account || !shows(failing));
        for failing in inner.failing.values_mut() {
            failing.others_got_through |= shows(failing);
        }
    }

    /// Whether the trouble of an account is its own: another one got through since it began, as far as this worker knows.
    pub(super) fn is_its_own(&self, account: i64) -> bool {
        self.lock().failing.get(&account).is_some_and(|failing| failing.others_got_through)
    }

    /// An account isn't tried any more.
    pub(super) fn given_up(&self, account: i64) {
        self.lock().failing.remove(&account);
    }

    /// For `/health`.
    pub(super) fn health(&self) -> Health {
        let inner = self.lock();
        match &inner.halt {
            None => Health { state: State::Ok, reason: None, since: inner.since },
            Some(halt) => Health {
                state: match halt.kind {
                    HaltKind::Refused => State::Halted,
                    HaltKind::Failing => State::Down,
                },
                reason: Some(format!("{}{}", halt.reason, way_out(halt))),
                since: halt.since,
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an operator can do about it, after what was said.
fn way_out(halt: &Halt) -> String {
    let probes = match halt.probes {
        0 => "calls stand still, recording goes on".to_owned(),
        probes => format!("calls stand still, recording goes on; {probes} probes failed since"),
    };
    match halt.kind {
        HaltKind::Refused => {
            format!(" ({probes}; see to the API key, its permissions and the account at the platform)")
        }
        HaltKind::Failing => format!(" ({probes}; it goes on by itself once the platform answers)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(gate: &Gate, accounts: impl IntoIterator<Item = i64>) -> Vec<bool> {
        accounts.into_iter().map(|account| gate.failed(account, CONNECT)).collect()
    }

    #[test]
    fn five_failures_in_a_row_over_two_accounts_open_the_breaker() {
        let gate = Gate::new(Timestamp(0));
        assert_eq!(failed(&gate, [1, 1, 1, 1, 2, 2]), [false, false, false, false, true, false]);
    }

    #[test]
    fn one_account_never_opens_it_and_a_success_begins_the_count_anew() {
        let gate = Gate::new(Timestamp(0));
        assert!(failed(&gate, [1; 100]).iter().all(|opens| !opens));
        gate.succeeded(3, CONNECT);
        assert!(failed(&gate, [2, 1, 2, 1]).iter().all(|opens| !opens));
        assert_eq!(failed(&gate, [1]), [true]);
    }

    #[test]
    fn look_ups_that_work_hide_no_failures_to_connect() {
        let gate = Gate::new(Timestamp(0));
        let mut opened = Vec::new();
        for account in [1, 2, 3, 4, 5] {
            gate.succeeded(account, "find identity");
            opened.extend(failed(&gate, [account]));
        }
        assert_eq!(opened, [false, false, false, false, true]);
    }

    #[test]
    fn trouble_is_an_accounts_own_once_another_one_got_through() {
        let gate = Gate::new(Timestamp(0));
        gate.succeeded(2, CONNECT);
        failed(&gate, [1]);
        assert!(!gate.is_its_own(1), "that was before");
        gate.succeeded(2, "find identity");
        gate.succeeded(1, "find identity");
        assert!(!gate.is_its_own(1), "a look-up shows nothing about connecting");
        gate.succeeded(2, CONNECT);
        gate.succeeded(1, "find identity");
        assert!(gate.is_its_own(1), "its own look-up doesn't either");
        gate.succeeded(1, CONNECT);
        failed(&gate, [1, 2]);
        gate.succeeded(3, CONNECT);
        assert!(gate.is_its_own(1) && gate.is_its_own(2) && !gate.is_its_own(3));
        gate.given_up(1);
        assert!(!gate.is_its_own(1));
        gate.failed(4, "find identity");
        gate.succeeded(5, "find person");
        assert!(gate.is_its_own(4));
    }

    #[test]
    fn a_look_up_ends_no_halt_over_connecting() {
        let gate = Gate::new(Timestamp(0));
        let halt = Halt {
            kind: HaltKind::Refused,
            operation: CONNECT.to_owned(),
            reason: "connect: 403: Forbidden".to_owned(),
            since: Timestamp(7),
            probes: 2,
        };
        gate.observe(Some(halt.clone()), Timestamp(8));
        assert!(!gate.is_ended_by("find identity") && gate.is_ended_by(CONNECT));
        let health = gate.health();
        assert_eq!((health.state, health.since), (State::Halted, Timestamp(7)));
        assert!(health.reason.unwrap().contains("2 probes failed"));
        gate.observe(Some(Halt { operation: "find identity".to_owned(), ..halt }), Timestamp(9));
        assert!(gate.is_ended_by("find person"));
        gate.observe(None, Timestamp(10));
        assert_eq!((gate.is_halted(), gate.health().since), (false, Timestamp(10)));
    }
}
