//! Where transactions begin and end.
//!
//! A connection whose transaction didn't end in good order is closed and never used again. SQLite takes a transaction
//! back by itself when the disk is full, and what keeps count of transactions beside it doesn't learn of that;
//! a session of PostgreSQL's that was opened while the server was read-only stays read-only when the server no longer is;
//! a call that was given up on in the middle of a statement leaves an answer behind that nobody has read.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, Row};
use tokio::time::Instant;

use super::database::Database;
use super::{Ledger, LedgerError};

/// A transaction. Whatever isn't committed is taken back; unless that is said ([`Self::rollback`]), something has failed or
/// was given up, and the connection is closed: one that only reads has to end in good order, too ([`Self::commit`]).
#[derive(Debug)]
pub(super) struct Transaction {
    connection: PoolConnection<Any>,
    ended: bool,
}

impl Transaction {
    /// Makes everything that was written durable.
    pub(super) async fn commit(mut self) -> Result<(), LedgerError> {
        self.run("COMMIT").await?;
        self.ended = true;
        Ok(())
    }

    /// Takes everything back, although nothing has failed.
    pub(super) async fn rollback(mut self) -> Result<(), LedgerError> {
        self.run("ROLLBACK").await?;
        self.ended = true;
        Ok(())
    }

    /// Runs a statement of ours that has neither parameters nor an answer.
    pub(super) async fn run(&mut self, statement: &'static str) -> Result<(), LedgerError> {
        sqlx::raw_sql(statement).execute(&mut *self.connection).await?;
        Ok(())
    }
}

impl Deref for Transaction {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.connection
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.close_on_drop();
        }
    }
}

impl Ledger {
    /// Begins a writing transaction.
    pub(super) async fn begin(&self) -> Result<Transaction, LedgerError> {
        self.begin_on(self.write.acquire().await?).await
    }

    /// Begins a writing transaction on a connection of the writing pool.
    pub(super) async fn begin_on(&self, connection: PoolConnection<Any>) -> Result<Transaction, LedgerError> {
        let mut tx = Transaction { connection, ended: false };
        match self.database {
            // The write lock is taken at once, so that two never deadlock half-way.
            Database::Sqlite => tx.run("BEGIN IMMEDIATE").await?,
            Database::PostgreSql => {
                // One round trip, and nothing is done in vain where nothing can be written.
                let begin = "BEGIN; SELECT current_setting('transaction_read_only')";
                let rows = sqlx::raw_sql(begin).fetch_all(&mut *tx).await?;
                let read_only = rows.first().ok_or(sqlx::Error::BeginFailed)?.try_get::<String, _>(0)? == "on";
                if read_only {
                    self.stale.mark();
                    return Err(LedgerError::ReadOnly { place: self.place() });
                }
            }
        }
        Ok(tx)
    }

    /// Begins a transaction that only reads, and sees one state of the ledger throughout.
    pub(super) async fn begin_reading(&self) -> Result<Transaction, LedgerError> {
        let mut tx = Transaction { connection: self.read.acquire().await?, ended: false };
        tx.run(self.database.begin_reading()).await?;
        Ok(tx)
    }
}

/// Which idle connections aren't to be used again: those from before a server was found to be read-only. It may have
/// been replaced since, and its sessions don't learn of that.
#[derive(Clone, Debug, Default)]
pub(super) struct Stale(Arc<Mutex<Option<Instant>>>);

impl Stale {
    fn mark(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether an idle connection that was opened so long ago may be used. One that is still in a transaction couldn't take
    /// it back.
    pub(super) fn may_use(&self, connection: &AnyConnection, age: Duration) -> bool {
        use sqlx::Connection as _;

        let marked = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !connection.is_in_transaction() && marked.is_none_or(|marked| age < marked.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::Trial;
    use super::Database::{PostgreSql, Sqlite};
    use super::*;

    /// Whether the connection of the next transaction is the one that was marked: a temporary table is a connection's own.
    async fn is_marked(ledger: &Ledger) -> bool {
        let mut tx = ledger.begin().await.unwrap();
        let found = sqlx::query("SELECT COUNT(*) FROM mark").fetch_one(&mut *tx).await;
        let found = found.is_ok();
        if found {
            tx.rollback().await.unwrap();
        }
        found
    }

    async fn mark(ledger: &Ledger) {
        let mut tx = ledger.begin().await.unwrap();
        tx.run("CREATE TEMPORARY TABLE mark (id BIGINT)").await.unwrap();
        tx.commit().await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_is_used_again_after_a_good_end_and_closed_after_any_other() {
        let trial = Trial::open(Sqlite).await;
        let ledger = &trial.ledger;
        mark(ledger).await;
        assert!(is_marked(ledger).await);
        let mut failed = ledger.begin().await.unwrap();
        sqlx::query("INSERT INTO nowhere VALUES (1)").execute(&mut *failed).await.unwrap_err();
        drop(failed);
        assert!(!is_marked(ledger).await);
    }

    #[rstest::rstest]
    #[case::writing(false)]
    #[case::reading(true)]
    #[tokio::test]
    async fn a_session_whose_transaction_failed_ends(#[case] reads: bool) {
        let trial = Trial::open(PostgreSql).await;
        let ledger = &trial.ledger;
        let mut failed = if reads { ledger.begin_reading().await.unwrap() } else { ledger.begin().await.unwrap() };
        let session: i32 =
            sqlx::query("SELECT pg_backend_pid()").fetch_one(&mut *failed).await.unwrap().try_get(0).unwrap();
        sqlx::query("SELECT * FROM nowhere").execute(&mut *failed).await.unwrap_err();
        drop(failed);
        let gone = async {
            let question = "SELECT pid FROM pg_stat_activity WHERE pid = $1";
            while sqlx::query(question).bind(session).fetch_optional(&trial.ledger.read).await.unwrap().is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), gone).await.expect("the session should have ended");
    }

    /// The depth that sqlx counts isn't SQLite's any more, as after a disk that was full.
    #[tokio::test]
    async fn a_transaction_that_sqlite_has_taken_back_by_itself_leaves_no_trace() {
        let trial = Trial::open(Sqlite).await;
        let mut tx = trial.ledger.begin().await.unwrap();
        tx.run("ROLLBACK").await.unwrap();
        tx.commit().await.unwrap_err();
        let mut tx = trial.ledger.begin_reading().await.unwrap();
        sqlx::raw_sql("ROLLBACK").execute(&mut *tx).await.unwrap();
        drop(tx);
        mark(&trial.ledger).await;
        assert!(is_marked(&trial.ledger).await);
        // As many as there are connections that read, and one more.
        for _ in 0..5 {
            let mut tx = trial.ledger.begin_reading().await.unwrap();
            sqlx::query("SELECT COUNT(*) FROM deliveries").fetch_one(&mut *tx).await.unwrap();
        }
    }

    #[tokio::test]
    async fn where_nothing_may_be_written_nothing_begins_and_no_session_from_then_is_kept() {
        let trial = Trial::open(PostgreSql).await;
        let ledger = &trial.ledger;
        // Two sessions, as they are on a server that is read-only.
        let read_only = "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY";
        let mut sessions = [ledger.write.acquire().await.unwrap(), ledger.write.acquire().await.unwrap()];
        for session in &mut sessions {
            sqlx::raw_sql(read_only).execute(&mut **session).await.unwrap();
        }
        for mut session in sessions {
            session.return_to_pool().await;
        }
        let error = ledger.begin().await.unwrap_err();
        assert!(matches!(error, LedgerError::ReadOnly { .. }) && error.is_transient(), "{error}");
        ledger.begin().await.unwrap().commit().await.unwrap();
    }
}
