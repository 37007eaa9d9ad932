//! The halt: calls to the platform stand still, recording goes on. One row for all workers.
//!
//! A halt begins when the platform refuses everything, or so it seems (401, 402, 403, 412), or when call after call fails
//! (the circuit breaker). While it stands, due accounts go out one at a time, each as a probe, to whichever worker leases
//! the right to; waits between probes grow. A probe that succeeds ends the halt for all. No attempt is spent in a halt, and
//! nothing is parked because of one: only an account that was refused in two halts, each ended by the success of another
//! account, is parked then, for the trouble is its own.

use std::time::Duration;

use sqlx::{AnyConnection, Row};

use super::database::lock_account_of;
use super::outcome::{self, Counts, Outcome};
use super::work::Lease;
use super::{Ledger, LedgerError, now, unless_in_conflict};
use crate::backoff::spread;
use crate::delivery::Timestamp;

/// The one platform that there is so far.
const TARGET: &str = "drata";
/// How long until the first probe, and between probes at the most.
const FIRST_PROBE: Duration = Duration::from_secs(5);
const LONGEST_PROBE: Duration = Duration::from_secs(60);

/// Why calls stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HaltKind {
    /// The platform refuses everything, or so it seems.
    Refused,
    /// The circuit breaker is open: call after call failed.
    Failing,
}

impl HaltKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Refused, Self::Failing];

    /// The word used everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Failing => "failing",
        }
    }
}

/// A halt that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halt {
    /// Why.
    pub kind: HaltKind,
    /// The operation that was refused or failed.
    pub operation: String,
    /// What was said last.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// How many probes have failed.
    pub probes: i64,
}

impl Ledger {
    /// The halt, if one stands.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn halt(&self) -> Result<Option<Halt>, LedgerError> {
        standing(&mut *self.read.acquire().await?).await
    }

    /// A call was refused as all would be, or one failed too many: begins a halt, unless one stands. Returns whether this
    /// began it.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn begin_halt(
        &self,
        lease: &Lease,
        kind: HaltKind,
        operation: &str,
        reason: &str,
    ) -> Result<bool, LedgerError> {
        let mut tx = self.begin().await?;
        let now = now(&mut tx).await?;
        let began = sqlx::query(
            "INSERT INTO halts (target, kind, operation, reason, since, probes, wait_us, probe_at) \
             VALUES ($1, $2, $3, $4, $5, 0, $6, $7) ON CONFLICT (target) DO NOTHING",
        )
        .bind(TARGET)
        .bind(kind.as_str())
        .bind(operation)
        .bind(reason)
        .bind(now.micros())
        .bind(micros(FIRST_PROBE))
        .bind(now.plus(spread(FIRST_PROBE, fastrand::f64())).micros())
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if kind == HaltKind::Refused {
            refused(&mut tx, lease.status).await?;
        }
        tx.commit().await?;
        Ok(began > 0)
    }

    /// A probe failed: the halt goes on, and the wait until the next probe grows.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn keep_halt(
        &self,
        lease: &Lease,
        kind: HaltKind,
        operation: &str,
        reason: &str,
    ) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        let now = now(&mut tx).await?;
        let kept = sqlx::query(
            "UPDATE halts SET kind = $3, operation = $4, reason = $5, probes = probes + 1, \
             wait_us = CASE WHEN wait_us * 2 < $6 THEN wait_us * 2 ELSE $6 END, \
             probe_at = $7 + CASE WHEN wait_us * 2 < $6 THEN wait_us * 2 ELSE $6 END * $8 / 1000, \
             prober = NULL, probe_until = NULL WHERE target = $1 AND prober = $2",
        )
        .bind(TARGET)
        .bind(&lease.owner)
        .bind(kind.as_str())
        .bind(operation)
        .bind(reason)
        .bind(micros(LONGEST_PROBE))
        .bind(now.micros())
        // Up to a tenth more, so that everybody who waits for the platform doesn't ask it at one moment.
        .bind(fastrand::i64(1000..=1100))
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if kept > 0 && kind == HaltKind::Refused {
            refused(&mut tx, lease.status).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Gives the right to probe back: this probe has shown nothing either way. The next may go after that long.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn release_probe(&self, lease: &Lease, wait: Duration) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        let now = now(&mut tx).await?;
        release(&mut tx, &lease.owner, now.plus(wait)).await?;
        tx.commit().await?;
        Ok(())
    }

    /// A probe succeeded: ends the halt, and parks those that were refused for the second time while others weren't.
    /// Returns how many were parked; none if the halt wasn't this probe's to end.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn end_halt(&self, lease: &Lease) -> Result<Option<u64>, LedgerError> {
        unless_in_conflict(|| self.end_halt_once(lease)).await
    }

    async fn end_halt_once(&self, lease: &Lease) -> Result<Option<u64>, LedgerError> {
        let mut tx = self.begin().await?;
        let now = now(&mut tx).await?;
        let ended = sqlx::query("DELETE FROM halts WHERE target = $1 AND prober = $2 RETURNING since")
            .bind(TARGET)
            .bind(&lease.owner)
            .fetch_optional(&mut *tx)
            .await?;
        let Some(ended) = ended else {
            tx.rollback().await?;
            return Ok(None);
        };
        let since: i64 = ended.try_get(0)?;
        let refused = sqlx::query(
            "SELECT id FROM statuses WHERE refused_in = $1 AND refusals >= 2 AND state = 'pending' AND id <> $2 ORDER BY id",
        )
        .bind(since)
        .bind(lease.status)
        .fetch_all(&mut *tx)
        .await?;
        let mut parked = 0;
        let mut counts = Counts::default();
        for row in refused {
            parked += park(&mut tx, &mut counts, row.try_get(0)?, now).await?;
        }
        tx.commit().await?;
        counts.publish();
        Ok(Some(parked))
    }
}

/// Notes that an account was refused in this halt; however often, it counts once.
async fn refused(tx: &mut AnyConnection, status: i64) -> Result<(), LedgerError> {
    sqlx::query(
        "UPDATE statuses SET refusals = refusals + 1, refused_in = (SELECT since FROM halts WHERE target = $2) \
         WHERE id = $1 AND COALESCE(refused_in, 0) <> COALESCE((SELECT since FROM halts WHERE target = $2), 0)",
    )
    .bind(status)
    .bind(TARGET)
    .execute(tx)
    .await?;
    Ok(())
}

/// Reads the halt.
pub(super) async fn standing(tx: &mut AnyConnection) -> Result<Option<Halt>, LedgerError> {
    sqlx::query("SELECT kind, operation, reason, since, probes FROM halts WHERE target = $1")
        .bind(TARGET)
        .fetch_optional(tx)
        .await?
        .map(|row| {
            let kind: String = row.try_get(0)?;
            Ok(Halt {
                kind: HaltKind::ALL
                    .into_iter()
                    .find(|known| known.as_str() == kind)
                    .ok_or_else(|| LedgerError::Unreadable(format!("the halt {kind:?}")))?,
                operation: row.try_get(1)?,
                reason: row.try_get(2)?,
                since: Timestamp(row.try_get(3)?),
                probes: row.try_get(4)?,
            })
        })
        .transpose()
}

/// Takes the right to probe, if it is time and nobody has it.
pub(super) async fn take_probe(
    tx: &mut AnyConnection,
    owner: &str,
    now: Timestamp,
    until: Timestamp,
) -> Result<bool, LedgerError> {
    let taken = sqlx::query(
        "UPDATE halts SET prober = $2, probe_until = $4 WHERE target = $1 AND probe_at <= $3 \
         AND (prober IS NULL OR probe_until <= $3)",
    )
    .bind(TARGET)
    .bind(owner)
    .bind(now.micros())
    .bind(until.micros())
    .execute(tx)
    .await?
    .rows_affected();
    Ok(taken > 0)
}

/// Gives the right to probe back, if it is this owner's.
pub(super) async fn release(tx: &mut AnyConnection, owner: &str, next: Timestamp) -> Result<(), LedgerError> {
    sqlx::query("UPDATE halts SET prober = NULL, probe_until = NULL, probe_at = $3 WHERE target = $1 AND prober = $2")
        .bind(TARGET)
        .bind(owner)
        .bind(next.micros())
        .execute(tx)
        .await?;
    Ok(())
}

/// Parks an account that is refused while others aren't. Its reason says what was answered.
async fn park(tx: &mut AnyConnection, counts: &mut Counts, status: i64, now: Timestamp) -> Result<u64, LedgerError> {
    lock_account_of(tx, status).await?;
    let parked = sqlx::query(
        "UPDATE statuses SET state = 'parked', due_at = NULL, version = version + 1, owed_since = NULL, losing = 0, waiting_since = NULL, \
         refusals = 0, refused_in = NULL, \
         reason = 'it is refused again and again while other accounts are let through: ' || COALESCE(reason, '') \
         WHERE id = $1 AND state = 'pending' RETURNING reason",
    )
    .bind(status)
    .fetch_optional(&mut *tx)
    .await?;
    let Some(parked) = parked else { return Ok(0) };
    let reason: String = parked.try_get(0)?;
    let rows = sqlx::query(
        "UPDATE effects SET effect = $2, reason = $3 WHERE status = $1 AND effect IN ('pending', 'waiting') RETURNING row",
    )
    .bind(status)
    .bind(Outcome::Parked.as_str())
    .bind(&reason)
    .fetch_all(&mut *tx)
    .await?;
    for row in rows {
        outcome::recompute(&mut *tx, counts, row.try_get(0)?, now).await?;
    }
    Ok(1)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
