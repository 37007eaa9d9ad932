//! The two databases, and the few places where their SQL parts.
//!
//! SQLite has one writer at a time, so a transaction is alone with everything it sees. PostgreSQL runs at READ COMMITTED
//! with explicit locks: recording under one advisory lock, then an account's row, then what hangs on it. Transactions
//! that still meet crosswise are run again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use sqlx::any::AnyPoolOptions;
use sqlx::migrate::Migrator;
use sqlx::migrate::{Migrate, MigrateError};
use sqlx::pool::PoolConnectionMetadata;
use sqlx::{AnyConnection, AssertSqlSafe, Connection};
use url::Url;

use super::health::Troubles;
use super::step::Waiting;
use super::transaction::Stale;
use super::{FILE, Ledger, LedgerError};

static SQLITE: Migrator = sqlx::migrate!("src/ledger/migrations/sqlite");
static POSTGRESQL: Migrator = sqlx::migrate!("src/ledger/migrations/postgres");

/// How many connections to PostgreSQL one process opens at the most.
const CONNECTIONS: u32 = 10;
/// How long to wait for a connection.
const ACQUIRE: Duration = Duration::from_secs(10);
/// How long a connection may take to answer when it is given back. Whoever gave up a call that had to wait for a server
/// that is gone leaves a connection behind that answers nobody, and a pool that waits for it has that much less to give.
const RELEASE: Duration = Duration::from_secs(5);
/// How long a call may take that has little to do and tells whether the database answers at all: with the interval in which
/// it is made, and another such call before it, `/health` tells within half a minute of a database that has gone silent.
const SOON: Duration = Duration::from_secs(12);
/// How long a statement of a command may take.
const STATEMENT: Duration = Duration::from_mins(1);

/// Which database the ledger is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// A file of one process's.
    Sqlite,
    /// A server that several processes share.
    PostgreSql,
}

impl Database {
    /// Its name, for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::PostgreSql => "PostgreSQL",
        }
    }

    /// How a transaction begins that only reads and sees one state throughout.
    pub(super) const fn begin_reading(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN",
            Self::PostgreSql => "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
        }
    }

    /// The table of deliveries, where sums over very many of them need no more than an index has. SQLite would look the
    /// rows up, which hold the bodies; PostgreSQL keeps long bodies elsewhere by itself.
    pub(super) const fn listed(self) -> &'static str {
        match self {
            Self::Sqlite => "deliveries INDEXED BY deliveries_by_outcome",
            Self::PostgreSql => "deliveries",
        }
    }

    const fn migrations(self) -> &'static Migrator {
        match self {
            Self::Sqlite => &SQLITE,
            Self::PostgreSql => &POSTGRESQL,
        }
    }
}

impl Ledger {
    /// The SQLite ledger of a folder, as it is: its tables may be out of date.
    ///
    /// # Errors
    /// If the file can't be opened.
    pub async fn sqlite(folder: &Path) -> Result<Self, LedgerError> {
        sqlx::any::install_default_drivers();
        crate::files::prepare_database(&folder.join(FILE)).map_err(sqlx::Error::Io)?;
        let url = Url::from_file_path(std::path::absolute(folder.join(FILE)).map_err(sqlx::Error::Io)?)
            .map_err(|()| LedgerError::Unreadable("a path".to_owned()))?;
        let url = format!("sqlite://{}?mode=rwc", url.path());
        // FULL: a commit is on the disk before it is acked, also when the power fails.
        let stale = Stale::default();
        let pool = |connections| {
            pool(
                connections,
                &stale,
                [
                    "PRAGMA busy_timeout = 10000",
                    "PRAGMA journal_mode = WAL",
                    "PRAGMA synchronous = FULL",
                    "PRAGMA foreign_keys = ON",
                    // A batch changes some thousand pages all over the file. What doesn't fit is written twice: to make
                    // room, and at the commit.
                    "PRAGMA cache_size = -32768",
                    "PRAGMA wal_autocheckpoint = 8192",
                ]
                .map(str::to_owned),
            )
            // A connection to a file doesn't break while nobody uses it, and doesn't age.
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
        };
        let write = pool(1).connect(&url).await?;
        let read = pool(4).connect(&url).await?;
        Ok(Self {
            database: Database::Sqlite,
            write,
            read,
            waiting: Waiting::default(),
            stale,
            health: Troubles::default(),
            server: None,
        })
    }

    /// The PostgreSQL ledger at an address, whether or not anybody answers there: it is connected to when it is first
    /// needed, and again whenever a connection breaks. No statement takes longer than the time-out.
    ///
    /// # Errors
    /// If the address can't be used.
    pub fn lazy(url: &SecretString, timeout: Duration) -> Result<Self, LedgerError> {
        sqlx::any::install_default_drivers();
        let parsed = Url::parse(url.expose_secret()).map_err(|_| LedgerError::Address)?;
        if !matches!(parsed.scheme(), "postgres" | "postgresql") {
            return Err(LedgerError::Address);
        }
        let settings = [
            // What a frozen process holds in a transaction is given up in its stead.
            "SET idle_in_transaction_session_timeout = '15s'".to_owned(),
            "SET lock_timeout = '20s'".to_owned(),
            format!("SET statement_timeout = {}", timeout.as_millis().max(1)),
        ];
        // What is wrong with it may quote the address, password and all.
        let stale = Stale::default();
        let pool = pool(CONNECTIONS, &stale, settings)
            .after_release(answers)
            .connect_lazy(url.expose_secret())
            .map_err(|_| LedgerError::Address)?;
        let server = Server { url: url.clone(), place: place(&parsed), patience: timeout * 3 };
        Ok(Self {
            database: Database::PostgreSql,
            read: pool.clone(),
            write: pool,
            waiting: Waiting::default(),
            stale,
            health: Troubles::default(),
            server: Some(Arc::new(server)),
        })
    }

    /// The PostgreSQL ledger at an address, as it is: its tables may be out of date.
    ///
    /// # Errors
    /// If the address can't be used or PostgreSQL can't be reached.
    pub async fn postgresql(url: &SecretString) -> Result<Self, LedgerError> {
        let ledger = Self::lazy(url, STATEMENT)?;
        ledger.reach().await?;
        Ok(ledger)
    }

    /// Looks whether PostgreSQL answers. A pool would try until its patience is at an end, and then only say that it is.
    async fn reach(&self) -> Result<(), LedgerError> {
        let Some(server) = &self.server else { return Ok(()) };
        let unreachable = |why| LedgerError::Unreachable { place: server.place.clone(), why };
        let asked = async { AnyConnection::connect(server.url.expose_secret()).await?.close().await };
        tokio::time::timeout(ACQUIRE, asked).await.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(unreachable)
    }

    /// Sees to it that the tables are as they should be: with `migrate` they are brought up to date, else they must be.
    ///
    /// # Errors
    /// If PostgreSQL can't be reached, or the tables can't be, or aren't, brought up to date.
    pub async fn prepare(&self, migrate: bool) -> Result<(), LedgerError> {
        self.reach().await?;
        if migrate {
            return self.migrate().await;
        }
        match self.pending().await?.len() {
            0 => Ok(()),
            pending => Err(LedgerError::Pending { pending }),
        }
    }

    /// Waits for a call to the ledger, and gives it up when it takes longer than any call that is answered: a connection
    /// whose other end has vanished doesn't say so, and whoever waits for it waits for ever.
    ///
    /// # Errors
    /// Whatever the call fails with, or [`LedgerError::Silent`].
    pub async fn in_time<T>(&self, call: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
        self.within(Duration::MAX, call).await
    }

    /// Waits for a call that has little to do as [`Ledger::in_time`] does, but for some seconds at the most.
    ///
    /// # Errors
    /// Whatever the call fails with, or [`LedgerError::Silent`].
    pub async fn soon<T>(&self, call: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
        self.within(SOON, call).await
    }

    async fn within<T>(
        &self,
        most: Duration,
        call: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<T, LedgerError> {
        // A file has nobody at its other end who might vanish.
        let Some(server) = &self.server else { return call.await };
        let after = server.patience.min(most);
        tokio::time::timeout(after, call).await.unwrap_or(Err(LedgerError::Silent { after }))
    }
}

/// Where PostgreSQL is.
#[derive(Debug)]
pub(super) struct Server {
    url: SecretString,
    /// Host, port and database.
    pub(super) place: String,
    /// How long a call may take, with all its statements.
    patience: Duration,
}

/// Connections are opened when they are needed: a pool that keeps some in reserve would try for minutes on end to open one
/// in the place of those that were closed, and keep it from whoever needs it then.
fn pool(connections: u32, stale: &Stale, settings: impl IntoIterator<Item = String>) -> AnyPoolOptions {
    let settings: Arc<[String]> = settings.into_iter().collect();
    let stale = stale.clone();
    AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE)
        .before_acquire(move |connection, about| {
            let may_use = stale.may_use(connection, about.age);
            Box::pin(async move { Ok(may_use) })
        })
        .after_connect(move |connection, _| {
            let settings = Arc::clone(&settings);
            Box::pin(async move {
                for setting in settings.iter() {
                    // Settings of ours, with nothing in them that anybody else has written.
                    sqlx::query(AssertSqlSafe(setting.clone())).execute(&mut *connection).await?;
                }
                Ok(())
            })
        })
}

/// Whether a connection that is given back answers. The pool asks that itself, but waits for the answer for ever, and holds
/// the connection's place meanwhile.
fn answers(connection: &mut AnyConnection, _: PoolConnectionMetadata) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
    Box::pin(async move {
        if let Ok(answer) = tokio::time::timeout(RELEASE, connection.ping()).await {
            return answer.map(|()| true);
        }
        // To close it the pool would wait for its last word, again for ever: TLS ends with one from either side. So it is
        // dropped here, and the pool closes another one in its stead.
        *connection = AnyConnection::connect("sqlite::memory:").await?;
        Ok(false)
    })
}

/// Host, port and database of an address, and nothing else of it.
fn place(url: &Url) -> String {
    let host = url.host_str().filter(|host| !host.is_empty()).unwrap_or("localhost");
    format!("{host}:{}{}", url.port().unwrap_or(5432), url.path())
}

/// Where sqlx keeps which migrations were applied.
const MIGRATIONS: &str = "_sqlx_migrations";

impl Ledger {
    /// Brings the tables up to date. Several processes may do it at once: one does, the others wait.
    ///
    /// # Errors
    /// If they can't be; also if they are newer than this version knows.
    pub async fn migrate(&self) -> Result<(), LedgerError> {
        Ok(self.database.migrations().run(&self.write).await?)
    }

    /// The migrations that are still to be applied, in order.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn pending(&self) -> Result<Vec<String>, LedgerError> {
        let mut connection = self.read.acquire().await?;
        let applied = match connection.list_applied_migrations(MIGRATIONS).await {
            Ok(applied) => applied,
            // Nothing was ever applied: there isn't even that table.
            Err(MigrateError::Execute(sqlx::Error::Database(_))) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let pending = |version| !applied.iter().any(|applied| applied.version == version);
        let migrations = self.database.migrations().iter().filter(|migration| pending(migration.version));
        Ok(migrations.map(|migration| format!("{:04} {}", migration.version, migration.description)).collect())
    }
}

/// Whether explicit locks are to be taken.
fn shares(connection: &AnyConnection) -> bool {
    connection.backend_name() == "PostgreSQL"
}

/// Makes recording one transaction at a time. The lock's key is the table's own id, so that every schema has its own.
pub(super) async fn lock_recording(tx: &mut AnyConnection) -> Result<(), LedgerError> {
    if shares(tx) {
        sqlx::query(
            "SELECT CASE WHEN pg_advisory_xact_lock(CAST(CAST('stamps' AS regclass) AS BIGINT)) IS NULL THEN 0 ELSE 1 END",
        )
        .execute(tx)
        .await?;
    }
    Ok(())
}

/// Locks an account's row until the transaction ends: what should be so for it doesn't change meanwhile.
pub(super) async fn lock_account(tx: &mut AnyConnection, account: i64) -> Result<(), LedgerError> {
    lock(tx, "SELECT id FROM accounts WHERE id = $1 FOR UPDATE", account).await
}

/// Locks the row of the account that a status belongs to.
pub(super) async fn lock_account_of(tx: &mut AnyConnection, status: i64) -> Result<(), LedgerError> {
    let text = "SELECT id FROM accounts WHERE id = (SELECT account FROM statuses WHERE id = $1) FOR UPDATE";
    lock(tx, text, status).await
}

/// Locks a delivery's row: its outcome follows from effects on several accounts.
pub(super) async fn lock_delivery(tx: &mut AnyConnection, row: i64) -> Result<(), LedgerError> {
    lock(tx, "SELECT id FROM deliveries WHERE id = $1 FOR UPDATE", row).await
}

async fn lock(tx: &mut AnyConnection, text: &'static str, id: i64) -> Result<(), LedgerError> {
    if shares(tx) {
        sqlx::query(text).bind(id).execute(tx).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_shows_where_and_not_who() {
        let url = Url::parse("postgres://rollcall:hunter2@db.example/rollcall?sslmode=require").unwrap();
        assert_eq!(place(&url), "db.example:5432/rollcall");
    }

    #[tokio::test]
    async fn what_is_no_postgresql_address_is_refused_without_being_shown() {
        let error = Ledger::postgresql(&"mysql://rollcall:hunter2@db/x".into()).await.unwrap_err();
        assert!(matches!(error, LedgerError::Address));
        assert!(!error.to_string().contains("hunter2"));
    }
}
