//! The ledger: what was delivered, what it told, what should be so at the platform, and what was done about it.
//!
//! SQLite when one process does everything, PostgreSQL when several share the work. Both take the same statements; the few
//! places where they part are in [`database`]. The tables and what they mean are in `migrations/`; each area has a file:
//!
//! * [`record`]: deliveries and their changes come in, in one transaction a batch;
//! * [`grants`], [`labels`], [`whole`]: the latest change of each access, the rows of accounts and scopes, and what
//!   befalls a scope as a whole;
//! * [`view`]: everything that decides about one account's status;
//! * [`work`]: due accounts go out under a lease, and come back settled;
//! * [`step`]: what a look at one writes meanwhile;
//! * [`halt`]: calls to the platform stand still, for all workers;
//! * [`workers`]: which workers are at work;
//! * [`balance`]: accepted = the sum of the outcomes + the gaps;
//! * [`begun`]: messages that killed their worker;
//! * [`unreadable`]: messages that aren't ours or can't be read;
//! * [`kept`]: a delivery as it was recorded;
//! * [`recoveries`]: what providers failed to deliver, and what became of it;
//! * [`replays`]: runs that publish deliveries again;
//! * [`sweep`]: what a sweep reads and marks;
//! * [`rosters`]: what rosters are compared with, and what their readings showed;
//! * [`seal`]: the history is chained by hash, so that nobody can change it unseen;
//! * [`secrets`]: what each secret has verified, and what was refused;
//! * [`approve`]: an operator's yes to what is held;
//! * [`actions`]: what operators did;
//! * [`jobs`]: what is done on a schedule, by one worker at a time;
//! * [`learned`]: what was learned once and is then kept to;
//! * [`people`]: whose accounts are, as operators say it;
//! * [`outcome`]: what became of a delivery;
//! * [`show`]: what people look at;
//! * [`error`], [`health`], [`tables`]: what can go wrong, for whom it does, and whether the tables may be written;
//! * [`transaction`]: where transactions begin and end.
//!
//! These rules hold everywhere. Times of leases and schedules are the database's own (`clock`). A transaction that changes
//! what an account's status should be locks the account's row before its statuses, effects and deliveries, and bumps the
//! version of its status rows; work is settled only at the version that it looked at. Recording is one transaction at a
//! time, whichever worker it comes from: a grant is the maximum of a set that others would be adding to.

pub mod actions;
pub mod approve;
pub mod balance;
pub mod begun;
pub mod database;
mod error;
mod grants;
pub mod halt;
pub mod health;
pub mod jobs;
pub mod kept;
mod labels;
pub mod learned;
pub mod outcome;
pub mod people;
pub mod record;
pub mod recoveries;
pub mod replays;
pub mod rosters;
pub mod seal;
pub mod secrets;
pub mod show;
mod step;
pub mod sweep;
mod tables;
mod transaction;
pub mod unreadable;
pub mod view;
mod whole;
pub mod work;
pub mod workers;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{AnyConnection, AnyPool, Row};

use self::database::{Database, Server};
pub use self::error::LedgerError;
use self::transaction::Stale;
use crate::delivery::Timestamp;

/// How long closing may take.
const CLOSE: Duration = Duration::from_secs(5);

/// The SQLite ledger's file in its folder.
pub const FILE: &str = "ledger.db";

/// The ledger. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger {
    database: Database,
    /// SQLite has one writer at a time: a pool of one queues them fairly, where its own lock would make them poll.
    write: AnyPool,
    read: AnyPool,
    /// Where PostgreSQL is, if that is the database.
    server: Option<Arc<Server>>,
    waiting: step::Waiting,
    stale: Stale,
    health: health::Troubles,
}

impl Ledger {
    /// Opens the SQLite ledger in a folder, and brings its tables up to date.
    ///
    /// # Errors
    /// If the file can't be opened or migrated.
    pub async fn open(folder: &Path) -> Result<Self, LedgerError> {
        let ledger = Self::sqlite(folder).await?;
        ledger.migrate().await?;
        Ok(ledger)
    }

    /// Connects to the PostgreSQL ledger. With `migrate` its tables are brought up to date, else they must be.
    ///
    /// # Errors
    /// If PostgreSQL can't be reached or the tables can't be, or aren't, brought up to date.
    pub async fn connect(url: &secrecy::SecretString, migrate: bool) -> Result<Self, LedgerError> {
        let ledger = Self::postgresql(url).await?;
        ledger.prepare(migrate).await?;
        Ok(ledger)
    }

    /// Which database it is in.
    #[must_use]
    pub const fn database(&self) -> Database {
        self.database
    }

    /// Host, port and database of PostgreSQL, if that is the database.
    fn place(&self) -> String {
        self.server.as_ref().map(|server| server.place.clone()).unwrap_or_default()
    }

    /// The database's clock.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn now(&self) -> Result<Timestamp, LedgerError> {
        now(&mut *self.read.acquire().await?).await
    }

    /// Closes all connections, within a few seconds: one whose other end has vanished can't be closed in good order.
    pub async fn close(&self) {
        let closing = async {
            self.read.close().await;
            self.write.close().await;
        };
        if tokio::time::timeout(CLOSE, closing).await.is_err() {
            tracing::warn!("a connection of the ledger's didn't close in time and is cut off");
        }
    }
}

/// Runs a transaction again when another one got in its way.
async fn unless_in_conflict<T, F>(transaction: impl Fn() -> F) -> Result<T, LedgerError>
where
    F: Future<Output = Result<T, LedgerError>>,
{
    for _ in 1..CONFLICTS {
        match transaction().await {
            Err(error) if error.is_conflict() => tracing::debug!(%error, "two transactions met; once more"),
            done => return done,
        }
    }
    transaction().await
}

/// How often a transaction is tried in all when others get in its way.
const CONFLICTS: u32 = 10;

async fn now(connection: &mut AnyConnection) -> Result<Timestamp, LedgerError> {
    let row = sqlx::query("SELECT now_us FROM clock").fetch_one(connection).await?;
    Ok(Timestamp(row.try_get(0)?))
}

/// Reads a column that holds one of our own words or names.
fn parsed<T: std::str::FromStr>(what: &str, text: &str) -> Result<T, LedgerError> {
    text.parse().map_err(|_| LedgerError::Unreadable(format!("the {what} {text:?}")))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod trial;
