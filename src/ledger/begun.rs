//! Messages that were begun and never finished.
//!
//! A message that the broker hands out a second time may have killed the worker that had it first. Such a one is handled
//! alone, and the ledger counts how often it was begun, so that after a few tries of its own it is parked and harms
//! nobody else's.

use sqlx::Row;

use super::{Ledger, LedgerError};
use crate::delivery::TryKey;

impl Ledger {
    /// Counts another try of a delivery, durably, before it is begun. Returns how many there were, with this one.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn begin_delivery(&self, key: &TryKey) -> Result<i64, LedgerError> {
        let mut tx = self.begin().await?;
        let tries = sqlx::query(
            "INSERT INTO begun (source, delivery, digest, tries) VALUES ($1, $2, $3, 1) \
             ON CONFLICT (source, delivery, digest) DO UPDATE SET tries = begun.tries + 1 RETURNING tries",
        )
        .bind(key.source.as_str())
        .bind(key.delivery.as_str())
        .bind(&key.digest)
        .fetch_one(&mut *tx)
        .await?
        .try_get(0)?;
        tx.commit().await?;
        Ok(tries)
    }

    /// Forgets the tries of a delivery: it is recorded.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn finish_delivery(&self, key: &TryKey) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM begun WHERE source = $1 AND delivery = $2 AND digest = $3")
            .bind(key.source.as_str())
            .bind(key.delivery.as_str())
            .bind(&key.digest)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }
}
