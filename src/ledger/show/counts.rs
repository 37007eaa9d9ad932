//! How much work there is: what the metrics and `/health` show.

use std::time::Duration;

use serde::Serialize;
use sqlx::Row;

use crate::delivery::Timestamp;
use crate::ledger::{Ledger, LedgerError};

/// How much work there is, by the database's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Statuses that are due now, whether or not a worker is on them.
    pub due: i64,
    /// Statuses that wait for an identity or a person.
    pub waiting: i64,
    /// Statuses that nobody tries any more by itself.
    pub parked: i64,
    /// How long ago the oldest change was received that rollcall still has to bring to the platform. What waits for
    /// something outside or is parked doesn't count: it would hide a real delay behind an old one.
    pub oldest_owed: Option<Duration>,
}

impl Ledger {
    /// How much work there is.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn counts(&self) -> Result<Counts, LedgerError> {
        let row = sqlx::query(
            "SELECT (SELECT COUNT(*) FROM statuses WHERE due_at <= (SELECT now_us FROM clock)), \
             (SELECT COUNT(*) FROM statuses WHERE state = 'waiting'), \
             (SELECT COUNT(*) FROM statuses WHERE state = 'parked'), \
             (SELECT MIN(owed_since) FROM statuses WHERE state = 'pending'), (SELECT now_us FROM clock)",
        )
        .fetch_one(&self.read)
        .await?;
        let (oldest, now): (Option<i64>, i64) = (row.try_get(3)?, row.try_get(4)?);
        Ok(Counts {
            due: row.try_get(0)?,
            waiting: row.try_get(1)?,
            parked: row.try_get(2)?,
            oldest_owed: oldest.map(|oldest| Timestamp(now).since(Timestamp(oldest))),
        })
    }
}
