//! Whether deliveries go to the broker at all at the moment: after one that it didn't take none is made to wait for it,
//! until it has taken one from the spool. Pure but for the log.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::delivery::Timestamp;

/// The way past the spool.
#[derive(Debug, Default)]
pub(super) struct Door(Mutex<Option<Shut>>);

/// Since when it is shut, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shut {
    pub(super) reason: String,
    pub(super) since: Timestamp,
}

impl Door {
    /// The broker didn't take something.
    pub(super) fn shut(&self, reason: String, now: Timestamp) {
        let mut shut = self.state();
        match &mut *shut {
            Some(shut) => shut.reason = reason,
            None => {
                tracing::warn!(reason, "deliveries go to the spool until the broker takes them again");
                *shut = Some(Shut { reason, since: now });
            }
        }
    }

    /// The broker took something.
    pub(super) fn open(&self, waiting: u64) {
        if self.state().take().is_some() {
            tracing::info!(waiting, "the broker takes deliveries again");
        }
    }

    /// Why it is shut, if it is.
    pub(super) fn why(&self) -> Option<Shut> {
        self.state().clone()
    }

    fn state(&self) -> MutexGuard<'_, Option<Shut>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_shut_since_the_first_failure_for_the_last_reason() {
        let door = Door::default();
        assert_eq!(door.why(), None);
        door.shut("no confirm".to_owned(), Timestamp(1));
        door.shut("refused".to_owned(), Timestamp(2));
        assert_eq!(door.why(), Some(Shut { reason: "refused".to_owned(), since: Timestamp(1) }));
        door.open(0);
        assert_eq!(door.why(), None);
    }
}
