//! Which workers are at work: those that have said so lately, by the database's clock.

use std::time::Duration;

use sqlx::Row;
use uuid::Uuid;

use super::{Ledger, LedgerError, now};

/// How long a worker counts after it was last heard of: three times as long as it is silent.
const COUNTS: Duration = Duration::from_secs(15);

impl Ledger {
    /// Says that a worker is at work. Returns how many are, with this one.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn attend(&self, run: Uuid) -> Result<u32, LedgerError> {
        let mut tx = self.begin().await?;
        let now = now(&mut tx).await?;
        sqlx::query(
            "INSERT INTO workers (run, seen_at) VALUES ($1, $2) ON CONFLICT (run) DO UPDATE SET seen_at = excluded.seen_at",
        )
        .bind(run.to_string())
        .bind(now.micros())
        .execute(&mut *tx)
        .await?;
        let silent = now.plus_micros(-i64::try_from(COUNTS.as_micros()).unwrap_or(i64::MAX));
        let counted = sqlx::query("SELECT COUNT(*) FROM workers WHERE seen_at > $1")
            .bind(silent.micros())
            .fetch_one(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(u32::try_from(counted.try_get::<i64, _>(0)?).unwrap_or(u32::MAX))
    }

    /// Says that a worker has ended, and forgets those that ended without a word.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn leave(&self, run: Uuid) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        let now = now(&mut tx).await?;
        let silent = now.plus_micros(-i64::try_from(COUNTS.as_micros()).unwrap_or(i64::MAX));
        sqlx::query("DELETE FROM workers WHERE run = $1 OR seen_at <= $2")
            .bind(run.to_string())
            .bind(silent.micros())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }
}
