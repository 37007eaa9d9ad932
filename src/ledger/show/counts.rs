//! How much work there is: what the metrics and `/health` show.

use std::time::Duration;

use serde::Serialize;
use sqlx::Row;

use crate::delivery::Timestamp;
use crate::ledger::outcome::Outcome;
use crate::ledger::work::DRY_RUN;
use crate::ledger::{Ledger, LedgerError, parsed};

/// How much work there is, by the database's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Statuses that are due now, whether or not a worker is on them.
    pub due: i64,
    /// Statuses that wait for an identity or a person.
    pub waiting: i64,
    /// Statuses that nobody tries any more by itself.
    pub parked: i64,
    /// Statuses that only wait because of a dry run: they would be applied.
    pub would_apply: i64,
    /// Statuses that somebody has changed at the platform and that are left so.
    pub drifted: i64,
    /// Messages that can't be read, each counted once however often it came.
    pub unreadable: i64,
}

/// Deliveries of a source that aren't done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OpenDeliveries {
    /// The source.
    pub source: String,
    /// What has become of them so far.
    pub outcome: Outcome,
    /// How many they are.
    pub count: i64,
}

/// The oldest change of a source that hasn't reached the platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OldestUnapplied {
    /// The source.
    pub source: String,
    /// Whether rollcall still has to bring it there (pending), or waits for something outside (waiting).
    pub outcome: Outcome,
    /// How long ago it was received, by the database's clock.
    pub age: Duration,
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
             (SELECT COUNT(*) FROM statuses WHERE state = 'waiting' AND reason LIKE $1 || '%'), \
             (SELECT COUNT(*) FROM unreadable WHERE replay IS NULL), \
             (SELECT COUNT(*) FROM statuses WHERE drifted_at IS NOT NULL)",
        )
        .bind(DRY_RUN)
        .fetch_one(&self.read)
        .await?;
        Ok(Counts {
            due: row.try_get(0)?,
            waiting: row.try_get(1)?,
            parked: row.try_get(2)?,
            would_apply: row.try_get(3)?,
            unreadable: row.try_get(4)?,
            drifted: row.try_get(5)?,
        })
    }

    /// How many deliveries aren't done, by source and outcome. An index holds only these, so that a million done ones
    /// cost nothing.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn open_deliveries(&self) -> Result<Vec<OpenDeliveries>, LedgerError> {
        let rows = sqlx::query(
            "SELECT source, outcome, COUNT(*) FROM deliveries \
             WHERE outcome IN ('parked', 'held', 'waiting', 'pending') GROUP BY source, outcome",
        )
        .fetch_all(&self.read)
        .await?;
        let open = rows.iter().map(|row| {
            let outcome = parsed("outcome", &row.try_get::<String, _>(1)?)?;
            Ok(OpenDeliveries { source: row.try_get(0)?, outcome, count: row.try_get(2)? })
        });
        open.collect()
    }

    /// The oldest change of each source that hasn't reached the platform.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn oldest_unapplied(&self) -> Result<Vec<OldestUnapplied>, LedgerError> {
        let rows = sqlx::query(
            "SELECT d.source, e.effect, MIN(d.received_at), (SELECT now_us FROM clock) \
             FROM effects e JOIN deliveries d ON d.id = e.row \
             WHERE e.effect IN ('pending', 'waiting') GROUP BY d.source, e.effect",
        )
        .fetch_all(&self.read)
        .await?;
        let oldest = rows.iter().map(|row| {
            let outcome = parsed("effect", &row.try_get::<String, _>(1)?)?;
            let age = Timestamp(row.try_get(3)?).since(Timestamp(row.try_get(2)?));
            Ok(OldestUnapplied { source: row.try_get(0)?, outcome, age })
        });
        oldest.collect()
    }
}
