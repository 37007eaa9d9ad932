//! The ledger: what was delivered, what it told, what should be so at the platform, and what was done about it.
//!
//! SQLite when one process does everything. Every statement is written so that PostgreSQL takes it too. The tables and
//! what they mean are in `migrations/`; each area has a file:
//!
//! * [`record`]: deliveries and their changes come in, in one transaction a batch;
//! * [`grants`], [`labels`], [`whole`]: the latest change of each access, the rows of accounts and scopes, and what
//!   befalls a scope as a whole;
//! * [`view`]: everything that decides about one account's status;
//! * [`work`]: due accounts go out under a lease, and come back settled;
//! * [`balance`]: accepted = the sum of the outcomes + the gaps;
//! * [`begun`]: messages that killed their worker;
//! * [`kept`]: a delivery as it was recorded;
//! * [`learned`]: what was learned once and is then kept to;
//! * [`outcome`]: what became of a delivery;
//! * [`show`]: what people look at.
//!
//! Two rules hold everywhere. Times of leases and schedules are the database's own (`clock`). A transaction that changes
//! what an account's status should be bumps the version of its status rows, and work is settled only at the version that
//! it looked at.

pub mod balance;
pub mod begun;
mod grants;
pub mod kept;
mod labels;
pub mod learned;
pub mod outcome;
pub mod record;
pub mod show;
pub mod view;
mod whole;
pub mod work;

use std::path::Path;
use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::{AnyConnection, AnyPool, Row};

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
}

impl LedgerError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Database(error) => !matches!(
                error,
                sqlx::Error::ColumnDecode { .. }
                    | sqlx::Error::ColumnNotFound(_)
                    | sqlx::Error::Decode(_)
                    | sqlx::Error::Configuration(_)
            ),
            Self::Migration(_) | Self::Unreadable(_) => false,
        }
    }
}

/// The SQLite ledger's file in its folder.
pub const FILE: &str = "ledger.db";

/// The ledger. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// SQLite has one writer at a time: a pool of one queues them fairly, where its own lock would make them poll.
    write: AnyPool,
    read: AnyPool,
}

static SQLITE: sqlx::migrate::Migrator = sqlx::migrate!("src/ledger/migrations/sqlite");

impl Ledger {
    /// Opens the SQLite ledger in a folder, and brings its tables up to date.
    ///
    /// # Errors
    /// If the file can't be opened or migrated.
    pub async fn open(folder: &Path) -> Result<Self, LedgerError> {
        sqlx::any::install_default_drivers();
        let url = url::Url::from_file_path(std::path::absolute(folder.join(FILE)).map_err(sqlx::Error::Io)?)
            .map_err(|()| LedgerError::Unreadable("a path".to_owned()))?;
        let url = format!("sqlite://{}?mode=rwc", url.path());
        let write = sqlite_pool(1).connect(&url).await?;
        SQLITE.run(&write).await?;
        let read = sqlite_pool(4).connect(&url).await?;
        Ok(Self { write, read })
    }

    /// The database's clock.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn now(&self) -> Result<Timestamp, LedgerError> {
        now(&mut *self.read.acquire().await?).await
    }

    /// Begins a writing transaction: the write lock is taken at once, so that two never deadlock half-way.
    async fn begin(&self) -> Result<sqlx::Transaction<'static, sqlx::Any>, LedgerError> {
        Ok(self.write.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

fn sqlite_pool(connections: u32) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(connections)
        .min_connections(1)
        .acquire_timeout(Duration::from_secs(10))
        .after_connect(|connection, _| {
            Box::pin(async move {
                // FULL: a commit is on the disk before it is acked, also when the power fails.
                for pragma in [
                    "PRAGMA busy_timeout = 10000",
                    "PRAGMA journal_mode = WAL",
                    "PRAGMA synchronous = FULL",
                    "PRAGMA foreign_keys = ON",
                ] {
                    sqlx::query(pragma).execute(&mut *connection).await?;
                }
                Ok(())
            })
        })
}

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
