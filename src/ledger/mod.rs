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
//! * [`secrets`]: what each secret has verified, and what was refused;
//! * [`approve`]: an operator's yes to what is held;
//! * [`actions`]: what operators did;
//! * [`jobs`]: what is done on a schedule, by one worker at a time;
//! * [`learned`]: what was learned once and is then kept to;
//! * [`people`]: whose accounts are, as operators say it;
//! * [`outcome`]: what became of a delivery;
//! * [`show`]: what people look at.
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
mod grants;
pub mod halt;
pub mod jobs;
pub mod kept;
mod labels;
pub mod learned;
pub mod outcome;
pub mod people;
pub mod record;
pub mod recoveries;
pub mod replays;
pub mod secrets;
pub mod show;
mod step;
pub mod sweep;
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
use crate::delivery::Timestamp;

/// The ledger can't do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database failed.
    #[error("the ledger's database: {0}")]
    Database(#[from] sqlx::Error),
    /// The tables can't be brought up to date.
    #[error("the ledger's migrations: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A row holds what this version can't read.
    #[error("the ledger holds {0} that this version can't read")]
    Unreadable(String),
    /// PostgreSQL's address can't be used; says nothing of its content.
    #[error("ledger.url isn't a PostgreSQL address; write postgres://user:password@host:5432/database")]
    Address,
    /// PostgreSQL can't be reached.
    #[error("can't reach PostgreSQL at {place} (ledger.url): {why}")]
    Unreachable {
        /// Host, port and database.
        place: String,
        /// Why.
        why: sqlx::Error,
    },
    /// No answer came in time: the database, or the way to it, has gone silent.
    #[error("the ledger's database didn't answer within {} seconds", .after.as_secs_f64())]
    Silent {
        /// How long it was waited for.
        after: Duration,
    },
    /// A commit that several shared failed for one of the others.
    #[error("the ledger's database failed in a commit that was shared with others")]
    Together,
    /// The tables aren't up to date, and this process isn't to change them.
    #[error(
        "the ledger's tables aren't up to date ({pending} migrations are pending), and ledger.migrate is false; \
         run `rollcall migrate` as their owner"
    )]
    Pending {
        /// How many migrations are pending.
        pending: usize,
    },
}

impl LedgerError {
    /// Whether another transaction got in the way of this one, so that the same call is likely to succeed at once:
    /// PostgreSQL's [serialization failure and deadlock](https://www.postgresql.org/docs/current/errcodes-appendix.html).
    fn is_conflict(&self) -> bool {
        let Self::Database(sqlx::Error::Database(error)) = self else { return false };
        matches!(error.code().as_deref(), Some("40001" | "40P01"))
    }

    /// Whether the same call may succeed later. Not if the database refuses the very data: then waiting is in vain, and
    /// whoever waits would keep everything else waiting too.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Database(error)) => !error.code().is_some_and(|code| is_about_data(&code)),
            Self::Database(error) => !matches!(
                error,
                sqlx::Error::ColumnDecode { .. }
                    | sqlx::Error::ColumnNotFound(_)
                    | sqlx::Error::Decode(_)
                    | sqlx::Error::Encode(_)
                    | sqlx::Error::Configuration(_)
            ),
            // PostgreSQL is there, and doesn't let this user or into this database: that doesn't mend itself.
            Self::Unreachable { why: sqlx::Error::Database(error), .. } => {
                !error.code().is_some_and(|code| code.starts_with("28") || code == "3D000")
            }
            Self::Unreachable { why, .. } => !matches!(why, sqlx::Error::Configuration(_) | sqlx::Error::Tls(_)),
            Self::Silent { .. } | Self::Together => true,
            Self::Migration(_) | Self::Unreadable(_) | Self::Address | Self::Pending { .. } => false,
        }
    }
}

/// Whether an error's code says that the database can't take these values, whenever they come: PostgreSQL's
/// [classes](https://www.postgresql.org/docs/current/errcodes-appendix.html) 22 (a null character in a text, a number out
/// of range), 23 (a constraint) and 54 (too long for an index), or SQLite's
/// [result codes](https://www.sqlite.org/rescode.html) `TOOBIG`, `CONSTRAINT` and `MISMATCH`.
fn is_about_data(code: &str) -> bool {
    if code.len() == 5 {
        return matches!(code.get(..2), Some("22" | "23" | "54"));
    }
    // The lowest byte of an extended code is the primary one.
    code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 18..=20))
}

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

    /// The database's clock.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn now(&self) -> Result<Timestamp, LedgerError> {
        now(&mut *self.read.acquire().await?).await
    }

    /// Begins a writing transaction.
    async fn begin(&self) -> Result<sqlx::Transaction<'static, sqlx::Any>, LedgerError> {
        Ok(self.write.begin_with(self.database.begin()).await?)
    }

    /// Begins a transaction that only reads, and sees one state of the ledger throughout.
    async fn begin_reading(&self) -> Result<sqlx::Transaction<'static, sqlx::Any>, LedgerError> {
        Ok(self.read.begin_with(self.database.begin_reading()).await?)
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
