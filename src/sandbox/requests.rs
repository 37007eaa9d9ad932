//! The log of requests seen, for people and for tests that ask what was sent and when.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Serialize;

use super::{Shared, lock};
use crate::delivery::Timestamp;

/// How many requests are kept.
const KEPT: usize = 100_000;

/// One request as the sandbox saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// Counts the requests from 1.
    pub number: u64,
    /// When its body had arrived, in microseconds since 1970.
    pub begun: i64,
    /// When it was answered, or the connection ended; none while it is in progress.
    pub ended: Option<i64>,
    /// The method.
    pub method: String,
    /// The path and query, without `/public`.
    pub path: String,
    /// When the work of a `late` one was done; none for others.
    pub landed: Option<i64>,
    /// The status answered; none while in progress, and if it was never answered.
    pub status: Option<u16>,
    /// The fault rules that hit it.
    pub faults: Vec<String>,
    /// Whether the body of a connect had a `userId` at all.
    pub has_user_id: bool,
    /// The `userId` of a connect; none if it was `null`.
    pub user_id: Option<i64>,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    forgotten: u64,
    kept: VecDeque<Seen>,
}

impl Log {
    pub(super) fn list(&self) -> Vec<Seen> {
        self.kept.iter().cloned().collect()
    }

    fn push(&mut self, mut seen: Seen) -> u64 {
        if self.kept.len() >= KEPT {
            self.kept.pop_front();
            self.forgotten += 1;
        }
        seen.number = self.forgotten + self.kept.len() as u64 + 1;
        let number = seen.number;
        self.kept.push_back(seen);
        number
    }

    fn get(&mut self, number: u64) -> Option<&mut Seen> {
        let index = number.checked_sub(self.forgotten + 1)?;
        self.kept.get_mut(usize::try_from(index).ok()?)
    }
}

/// A request in progress. It ends when this is dropped, also if the client hangs up and nobody answers any more.
#[derive(Debug)]
pub(super) struct InProgress {
    shared: Arc<Shared>,
    number: u64,
    status: Option<u16>,
}

impl InProgress {
    pub(super) fn begin(shared: &Arc<Shared>, seen: Seen) -> Self {
        let number = lock(&shared.requests).push(seen);
        Self { shared: Arc::clone(shared), number, status: None }
    }

    pub(super) fn hit_by(&self, faults: Vec<String>) {
        if let Some(seen) = lock(&self.shared.requests).get(self.number) {
            seen.faults = faults;
        }
    }

    /// What notes that the work was done, whether or not anybody waits any more.
    pub(super) fn landing(&self) -> impl FnOnce() + Send + 'static {
        let (shared, number) = (Arc::clone(&self.shared), self.number);
        move || {
            if let Some(seen) = lock(&shared.requests).get(number) {
                seen.landed = Some(Timestamp::now().micros());
            }
        }
    }

    /// The request was answered.
    pub(super) fn answered(mut self, status: u16) {
        self.status = Some(status);
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        if let Some(seen) = lock(&self.shared.requests).get(self.number) {
            seen.ended = Some(Timestamp::now().micros());
            seen.status = self.status;
        }
        self.shared.answered.send_modify(|count| *count += 1);
    }
}
