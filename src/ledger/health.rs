//! How the ledger is for those who use it. What keeps failing is kept, by activity, until the same activity succeeds: a
//! database that can be read may take nothing, and one that takes one thing may refuse another.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Ledger, LedgerError};
use crate::delivery::Timestamp;

/// What the ledger is used for, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    /// Getting ready to be worked with.
    Preparing,
    /// Deliveries come in.
    Recording,
    /// Due accounts go out.
    Leasing,
    /// A worker says that it is at work: a write every few seconds, whatever else there is to do.
    Heartbeat,
    /// It is looked at whether all tables are there, and may be written.
    Tables,
    /// What gauges and health tell is read.
    Observing,
}

impl Activity {
    /// Whether the call is the same each time.
    const fn repeats_itself(self) -> bool {
        match self {
            Self::Preparing | Self::Heartbeat | Self::Tables | Self::Observing => true,
            Self::Recording | Self::Leasing => false,
        }
    }
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preparing => "it isn't ready",
            Self::Recording => "deliveries can't be recorded",
            Self::Leasing => "due accounts can't be taken",
            Self::Heartbeat => "a worker's heartbeat can't be written",
            Self::Tables => "not everything can be written",
            Self::Observing => "it can't be read",
        })
    }
}

/// What is wrong with the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Since when.
    pub since: Timestamp,
    /// What it keeps from being done, and why.
    pub reason: String,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Troubles(Arc<Mutex<BTreeMap<Activity, Trouble>>>);

impl Ledger {
    /// Waits for a call as [`Ledger::in_time`] does, or [`Ledger::soon`] where there is little to do, and keeps how it ended.
    ///
    /// # Errors
    /// Whatever the call fails with, or [`LedgerError::Silent`].
    pub async fn watched<T>(
        &self,
        activity: Activity,
        call: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<T, LedgerError> {
        let done = match activity {
            Activity::Heartbeat | Activity::Tables => self.soon(call).await,
            Activity::Preparing | Activity::Recording | Activity::Leasing | Activity::Observing => {
                self.in_time(call).await
            }
        };
        self.note(activity, done.as_ref().err());
        done
    }

    /// Keeps how an activity ended. An error that is about one call alone says nothing about the ledger, unless the
    /// activity makes the same call each time: then nothing else would tell that it keeps failing.
    pub fn note(&self, activity: Activity, error: Option<&LedgerError>) {
        let mut troubles = self.health.0.lock().unwrap_or_else(PoisonError::into_inner);
        match error {
            None => {
                troubles.remove(&activity);
            }
            Some(error) if error.is_outage() || activity.repeats_itself() => {
                let reason = format!("{activity}: {error}");
                let since = troubles.get(&activity).map_or_else(Timestamp::now, |known| known.since);
                troubles.insert(activity, Trouble { since, reason });
            }
            Some(_) => {}
        }
    }

    /// All that is wrong with it, if anything is, in the order in which it began.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        let mut troubles: Vec<Trouble> =
            self.health.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        troubles.sort_by_key(|trouble| trouble.since);
        let since = troubles.first()?.since;
        let reasons: Vec<String> = troubles.into_iter().map(|trouble| trouble.reason).collect();
        Some(Trouble { since, reason: reasons.join("; ") })
    }
}

#[cfg(test)]
mod tests {
    use super::super::database::Database;
    use super::super::trial::Trial;
    use super::*;

    #[tokio::test]
    async fn what_fails_is_kept_until_the_same_activity_succeeds() {
        let ledger = Trial::open(Database::Sqlite).await.ledger;
        let full = || async { Err::<(), _>(sqlx::Error::PoolTimedOut.into()) };
        let missing = || async { Err::<(), _>(LedgerError::Tables("the table changes is missing".to_owned())) };
        assert_eq!(ledger.trouble(), None);
        ledger.watched(Activity::Heartbeat, full()).await.unwrap_err();
        let first = ledger.trouble().unwrap();
        assert!(first.reason.starts_with("a worker's heartbeat can't be written: "), "{first:?}");
        ledger.watched(Activity::Tables, missing()).await.unwrap_err();
        ledger.watched(Activity::Heartbeat, full()).await.unwrap_err();
        let both = ledger.trouble().unwrap();
        assert_eq!(both.since, first.since, "it goes on since it began");
        assert!(both.reason.starts_with(&first.reason) && both.reason.contains("changes is missing"), "{both:?}");
        ledger.watched(Activity::Observing, async { Ok(()) }).await.unwrap();
        ledger.watched(Activity::Heartbeat, async { Ok(()) }).await.unwrap();
        let second = ledger.trouble().unwrap();
        assert!(second.reason.starts_with("not everything can be written: "), "{second:?}");
        ledger.watched(Activity::Tables, async { Ok(()) }).await.unwrap();
        assert_eq!(ledger.trouble(), None);
    }

    #[tokio::test]
    async fn an_error_that_is_about_one_call_alone_says_nothing_about_the_ledger() {
        let ledger = Trial::open(Database::Sqlite).await.ledger;
        let bug = async { Err::<(), _>(sqlx::Error::RowNotFound.into()) };
        ledger.watched(Activity::Recording, bug).await.unwrap_err();
        assert_eq!(ledger.trouble(), None);
    }

    #[tokio::test]
    async fn any_error_of_a_call_that_is_the_same_each_time_is_kept() {
        let ledger = Trial::open(Database::Sqlite).await.ledger;
        let row = || LedgerError::Unreadable("the state \"odd\"".to_owned());
        for activity in [Activity::Preparing, Activity::Heartbeat, Activity::Tables, Activity::Observing] {
            for error in [row(), sqlx::Error::RowNotFound.into(), sqlx::Error::Decode("no".into()).into()] {
                let why = error.to_string();
                ledger.watched(activity, async { Err::<(), _>(error) }).await.unwrap_err();
                let trouble = ledger.trouble().unwrap();
                assert_eq!(trouble.reason, format!("{activity}: {why}"));
            }
            ledger.watched(activity, async { Ok(()) }).await.unwrap();
            assert_eq!(ledger.trouble(), None);
        }
    }
}
