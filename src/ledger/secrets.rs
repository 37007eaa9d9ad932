//! Which secret of a source has verified how much, and what ingresses have refused: so that an old secret can go safely.
//!
//! Both are sums that are kept while recording, since the deliveries themselves may be very many. Nothing of what was
//! refused is kept but the reason and a fingerprint of the sender; an ingress tells them in its checkpoints, as sums of
//! its run, so that a checkpoint which comes twice counts once.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use sqlx::{AnyConnection, Row};

use super::record::clamped;
use super::{Ledger, LedgerError};
use crate::delivery::{Checkpoint, Delivery, Timestamp};

/// How long refusals are kept.
const KEEP: Duration = Duration::from_hours(7 * 24);
/// How many refusals one run can tell of. More than any has, and a sum of such is still a number.
const MOST_REFUSED: i64 = 1 << 40;

/// What one secret of a source has verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SecretRow {
    /// The source.
    pub source: String,
    /// The secret's *name*.
    pub secret: String,
    /// How many accepted deliveries it has verified.
    pub deliveries: i64,
    /// The receipt of the first of them.
    pub first_at: Timestamp,
    /// The receipt of the last of them.
    pub last_at: Timestamp,
}

/// What was refused of a source lately, by reason and sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusalRow {
    /// The source.
    pub source: String,
    /// The reason, as in the metric.
    pub reason: String,
    /// A fingerprint of the sender.
    pub sender: String,
    /// How many requests.
    pub count: i64,
    /// When the last of them came.
    pub last_at: Timestamp,
}

impl Ledger {
    /// What each secret has verified, by source.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn secrets(&self) -> Result<Vec<SecretRow>, LedgerError> {
        let rows = sqlx::query("SELECT source, secret, deliveries, first_at, last_at FROM secrets ORDER BY 1, 2")
            .fetch_all(&self.read)
            .await?;
        let secret = |row: &sqlx::any::AnyRow| {
            Ok(SecretRow {
                source: row.try_get(0)?,
                secret: row.try_get(1)?,
                deliveries: row.try_get(2)?,
                first_at: Timestamp(row.try_get(3)?),
                last_at: Timestamp(row.try_get(4)?),
            })
        };
        rows.iter().map(secret).collect()
    }

    /// What was refused in the last days, by source.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn refusals(&self) -> Result<Vec<RefusalRow>, LedgerError> {
        let rows = sqlx::query(
            "SELECT source, reason, sender, CAST(SUM(count) AS BIGINT), MAX(last_at) FROM refusals \
             WHERE last_at >= (SELECT now_us FROM clock) - $1 GROUP BY source, reason, sender ORDER BY 1, 5 DESC, 2, 3",
        )
        .bind(micros(KEEP))
        .fetch_all(&self.read)
        .await?;
        let refusal = |row: &sqlx::any::AnyRow| {
            Ok(RefusalRow {
                source: row.try_get(0)?,
                reason: row.try_get(1)?,
                sender: row.try_get(2)?,
                count: row.try_get(3)?,
                last_at: Timestamp(row.try_get(4)?),
            })
        };
        rows.iter().map(refusal).collect()
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// What the deliveries of a batch say of the secrets: counted in memory, stored once.
#[derive(Debug, Default)]
pub(super) struct Uses(BTreeMap<(String, String), (i64, Timestamp, Timestamp)>);

impl Uses {
    /// A delivery was accepted.
    pub(super) fn accepted(&mut self, delivery: &Delivery, at: Timestamp) {
        let key = (delivery.source.to_string(), delivery.secret.to_string());
        let (count, first, last) = self.0.entry(key).or_insert((0, at, at));
        *count += 1;
        *first = at.min(*first);
        *last = at.max(*last);
    }

    pub(super) async fn store(self, tx: &mut AnyConnection) -> Result<(), LedgerError> {
        for ((source, secret), (count, first, last)) in self.0 {
            sqlx::query(
                "INSERT INTO secrets (source, secret, deliveries, first_at, last_at) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (source, secret) DO UPDATE SET deliveries = secrets.deliveries + excluded.deliveries, \
                 first_at = CASE WHEN excluded.first_at < secrets.first_at THEN excluded.first_at ELSE secrets.first_at END, \
                 last_at = CASE WHEN excluded.last_at > secrets.last_at THEN excluded.last_at ELSE secrets.last_at END",
            )
            .bind(source)
            .bind(secret)
            .bind(count)
            .bind(first.micros())
            .bind(last.micros())
            .execute(&mut *tx)
            .await?;
        }
        Ok(())
    }
}

/// Takes note of what an ingress has refused so far, and forgets what is old.
pub(super) async fn refused(
    tx: &mut AnyConnection,
    checkpoint: &Checkpoint,
    now: Timestamp,
) -> Result<(), LedgerError> {
    if checkpoint.refused.is_empty() {
        return Ok(());
    }
    for refused in &checkpoint.refused {
        sqlx::query(
            "INSERT INTO refusals (run, source, reason, sender, count, last_at) VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (run, source, reason, sender) DO UPDATE SET count = excluded.count, last_at = excluded.last_at \
             WHERE excluded.count > refusals.count",
        )
        .bind(checkpoint.run.to_string())
        .bind(checkpoint.source.as_str())
        .bind(&refused.reason)
        .bind(&refused.sender)
        .bind(i64::try_from(refused.count).map_or(MOST_REFUSED, |count| count.min(MOST_REFUSED)))
        .bind(clamped(refused.last_at, now).micros())
        .execute(&mut *tx)
        .await?;
    }
    sqlx::query("DELETE FROM refusals WHERE last_at < $1").bind(now.micros() - micros(KEEP)).execute(&mut *tx).await?;
    Ok(())
}
