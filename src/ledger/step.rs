//! What a look at an account writes: its intent before a call, and how it ended. Each is one transaction.
//!
//! On SQLite, where transactions come one after another and each waits for the disk, those that come at once share one
//! commit: whoever gets the connection does the work of all that wait for it. A step that fails is taken back alone.
//! PostgreSQL brings commits that come at once to disk together by itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::{AnyConnection, Row};
use tokio::sync::oneshot;

use super::database::{Database, lock_account_of};
use super::outcome::{self, Counts, Outcome};
use super::work::{Attempt, Held, Lease, Settled, Settlement, text_of};
use super::{Ledger, LedgerError, now, unless_in_conflict};
use crate::delivery::Timestamp;
use crate::target::{FailureClass, LinkStatus, PersonFrom};

/// One transaction of a look.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) lease: Lease,
    /// The calls since the step before. They were made, whether or not the rest holds.
    pub(super) attempts: Vec<Attempt>,
    pub(super) write: Write,
}

/// What a step writes besides the calls.
#[derive(Debug)]
pub(super) enum Write {
    Intend(Intent),
    Settle { version: i64, settlement: Settlement },
}

/// The intent to set a status.
#[derive(Debug)]
pub(super) struct Intent {
    pub(super) version: i64,
    pub(super) wanted: LinkStatus,
    /// How long the lease goes on from here.
    pub(super) renew: Duration,
}

/// The steps that wait for SQLite's one writing connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting(Arc<Mutex<Vec<Queued>>>);

#[derive(Debug)]
struct Queued {
    step: Step,
    answer: oneshot::Sender<Result<Held, LedgerError>>,
}

impl Waiting {
    fn push(&self, queued: Queued) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(queued);
    }

    fn take(&self) -> Vec<Queued> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Ledger {
    /// Does a step. When it says [`Held::Written`], it is on disk.
    pub(super) async fn step(&self, step: Step) -> Result<Held, LedgerError> {
        match self.database() {
            Database::PostgreSql => unless_in_conflict(|| self.alone(&step)).await,
            Database::Sqlite => self.together(step).await,
        }
    }

    async fn alone(&self, step: &Step) -> Result<Held, LedgerError> {
        let mut tx = self.begin().await?;
        let (held, counts) = step.write(&mut tx).await?;
        tx.commit().await?;
        counts.publish();
        Ok(held)
    }

    async fn together(&self, step: Step) -> Result<Held, LedgerError> {
        let (answer, mut answered) = oneshot::channel();
        self.waiting.push(Queued { step, answer });
        // Only the wait for the connection is given up on: what has begun on it isn't broken off.
        let connection = tokio::select! {
            biased;
            held = &mut answered => return held.unwrap_or(Err(LedgerError::Together)),
            connection = self.write.acquire() => connection?,
        };
        let mut tx = self.begin_on(connection).await?;
        // Nobody waits for the others any more, and what nobody is told of mustn't be written.
        let mut queued = self.waiting.take();
        queued.retain(|queued| !queued.answer.is_closed());
        let mut done = Vec::with_capacity(queued.len());
        for Queued { step, answer } in queued {
            tx.run("SAVEPOINT step").await?;
            let written = step.write(&mut tx).await;
            if written.is_err() {
                tx.run("ROLLBACK TO step").await?;
            }
            tx.run("RELEASE step").await?;
            done.push((answer, written));
        }
        tx.commit().await?;
        for (answer, written) in done {
            let written = written.map(|(held, counts)| {
                counts.publish();
                held
            });
            // Whoever has gone away since looks at the account again.
            drop(answer.send(written));
        }
        answered.await.unwrap_or(Err(LedgerError::Together))
    }
}

impl Step {
    async fn write(&self, tx: &mut AnyConnection) -> Result<(Held, Counts), LedgerError> {
        let mut counts = Counts::default();
        let Self { lease, attempts, write } = self;
        if let Write::Settle { .. } = write {
            lock_account_of(tx, lease.status).await?;
        }
        let now = now(tx).await?;
        for attempt in attempts {
            insert(tx, lease, attempt, now).await?;
        }
        let updated = match write {
            Write::Intend(intent) => intend(tx, lease, intent, now).await?,
            Write::Settle { version, settlement } => settle(tx, &mut counts, lease, *version, settlement, now).await?,
        };
        Ok((held(tx, lease, updated, now).await?, counts))
    }
}

async fn insert(tx: &mut AnyConnection, lease: &Lease, attempt: &Attempt, now: Timestamp) -> Result<(), LedgerError> {
    sqlx::query(
        "INSERT INTO attempts (status, at, operation, wanted, answer, result, duration_us, message) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(lease.status)
    .bind(now.micros())
    .bind(attempt.operation)
    .bind(attempt.wanted.map(|status| text_of(Some(status))))
    .bind(attempt.answer.map(i64::from))
    .bind(attempt.failure.map_or("done", FailureClass::as_str))
    .bind(i64::try_from(attempt.duration.as_micros()).unwrap_or(i64::MAX))
    .bind(&attempt.message)
    .execute(&mut *tx)
    .await?;
    Ok(())
}

async fn intend(tx: &mut AnyConnection, lease: &Lease, intent: &Intent, now: Timestamp) -> Result<u64, LedgerError> {
    let updated = sqlx::query(
        "UPDATE statuses SET intent = $4, intent_at = $5, actual = 'unknown', desired = $4, lease_until = $6 \
         WHERE id = $1 AND lease_owner = $2 AND version = $3 AND lease_until > $5",
    )
    .bind(lease.status)
    .bind(&lease.owner)
    .bind(intent.version)
    .bind(text_of(Some(intent.wanted)))
    .bind(now.micros())
    .bind(now.plus(intent.renew).micros())
    .execute(&mut *tx)
    .await?
    .rows_affected();
    Ok(updated)
}

async fn settle(
    tx: &mut AnyConnection,
    counts: &mut Counts,
    lease: &Lease,
    version: i64,
    settlement: &Settlement,
    now: Timestamp,
) -> Result<u64, LedgerError> {
    let settled =
        matches!(settlement.result, Settled::Applied | Settled::Unchanged | Settled::Parked | Settled::GaveUp);
    let updated = sqlx::query(
        "UPDATE statuses SET state = $4, reason = $5, desired = $6, actual = $7, identity = $8, \
         intent = CASE WHEN $9 = 1 THEN intent ELSE NULL END, \
         intent_at = CASE WHEN $9 = 1 THEN intent_at ELSE NULL END, \
         due_at = $10, attempts = CASE $11 WHEN 1 THEN attempts + 1 WHEN 2 THEN 0 ELSE attempts END, \
         owed_since = CASE WHEN $12 = 1 THEN NULL ELSE owed_since END, \
         losing = CASE WHEN $12 = 1 THEN 0 ELSE losing END, \
         refusals = CASE WHEN $12 = 1 THEN 0 ELSE refusals END, person_from = $14, \
         drifted_at = CASE WHEN $15 = 1 THEN drifted_at ELSE NULL END, \
         waiting_since = CASE $16 WHEN 0 THEN NULL WHEN 1 THEN COALESCE(waiting_since, $13) ELSE waiting_since END, \
         lease_owner = NULL, lease_until = NULL \
         WHERE id = $1 AND lease_owner = $2 AND version = $3 AND lease_until > $13",
    )
    .bind(lease.status)
    .bind(&lease.owner)
    .bind(version)
    .bind(settlement.result.state())
    .bind(&settlement.reason)
    .bind(settlement.desired.map(|status| text_of(Some(status))))
    .bind(text_of(settlement.actual))
    .bind(settlement.identity.map(|identity| identity.0))
    .bind(i64::from(settlement.keep_intent))
    .bind(settlement.due_at.map(Timestamp::micros))
    .bind(match settlement.result {
        Settled::Failed => 1_i64,
        Settled::Applied | Settled::Unchanged | Settled::Waiting => 2,
        Settled::Postponed | Settled::Parked | Settled::GaveUp => 0,
    })
    .bind(i64::from(settled))
    .bind(now.micros())
    .bind(settlement.person_from.map(PersonFrom::as_str))
    .bind(i64::from(settlement.keep_drift))
    .bind(match settlement.result {
        Settled::Applied | Settled::Unchanged | Settled::Parked => 0_i64,
        Settled::Waiting => 1,
        Settled::Failed | Settled::Postponed | Settled::GaveUp => 2,
    })
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if updated == 0 {
        // The next look starts from what this one has learned.
        sqlx::query(
            "UPDATE statuses SET actual = $3, identity = $4, \
             intent = CASE WHEN $5 = 1 THEN intent ELSE NULL END, \
             intent_at = CASE WHEN $5 = 1 THEN intent_at ELSE NULL END \
             WHERE id = $1 AND lease_owner = $2 AND lease_until > $6",
        )
        .bind(lease.status)
        .bind(&lease.owner)
        .bind(text_of(settlement.actual))
        .bind(settlement.identity.map(|identity| identity.0))
        .bind(i64::from(settlement.keep_intent))
        .bind(now.micros())
        .execute(&mut *tx)
        .await?;
    } else {
        settle_effects(tx, counts, lease.status, settlement, now).await?;
    }
    Ok(updated)
}

async fn held(tx: &mut AnyConnection, lease: &Lease, updated: u64, now: Timestamp) -> Result<Held, LedgerError> {
    if updated == 1 {
        return Ok(Held::Written);
    }
    let still = sqlx::query("SELECT id FROM statuses WHERE id = $1 AND lease_owner = $2 AND lease_until > $3")
        .bind(lease.status)
        .bind(&lease.owner)
        .bind(now.micros())
        .fetch_optional(tx)
        .await?;
    Ok(if still.is_some() { Held::Moved } else { Held::Lost })
}

async fn settle_effects(
    tx: &mut AnyConnection,
    counts: &mut Counts,
    status: i64,
    settlement: &Settlement,
    now: Timestamp,
) -> Result<(), LedgerError> {
    let open = sqlx::query(
        "SELECT row, account, kind FROM effects WHERE status = $1 AND effect IN ('pending', 'waiting', 'parked') ORDER BY row",
    )
    .bind(status)
    .fetch_all(&mut *tx)
    .await?;
    for effect in open {
        let (row, account): (i64, i64) = (effect.try_get(0)?, effect.try_get(1)?);
        let kind: String = effect.try_get(2)?;
        let takes_away = matches!(kind.as_str(), "lost" | "scope_lost" | "scope_moved");
        // A delivery is applied if the platform was told what it told, not the opposite.
        let agrees = match settlement.desired {
            Some(LinkStatus::Linked(_)) => !takes_away,
            Some(LinkStatus::Unlinked) => takes_away,
            None => true,
        };
        let still_has_access = takes_away && !agrees;
        let (outcome, reason) = match settlement.result {
            Settled::Applied if agrees => (Outcome::Applied, settlement.reason.as_deref()),
            _ if still_has_access => (Outcome::Unchanged, Some("the account still has access otherwise")),
            // It was unlinked although it has access: it is nobody's.
            Settled::Applied if settlement.person_from.is_some() => (Outcome::Unchanged, settlement.reason.as_deref()),
            Settled::Applied => (Outcome::Unchanged, Some("the account has lost access since")),
            Settled::Unchanged => (Outcome::Unchanged, settlement.reason.as_deref()),
            Settled::Waiting => (Outcome::Waiting, settlement.reason.as_deref()),
            Settled::Failed | Settled::Postponed => (Outcome::Pending, settlement.reason.as_deref()),
            Settled::Parked | Settled::GaveUp => (Outcome::Parked, settlement.reason.as_deref()),
        };
        sqlx::query("UPDATE effects SET effect = $3, reason = $4 WHERE row = $1 AND account = $2")
            .bind(row)
            .bind(account)
            .bind(outcome.as_str())
            .bind(reason)
            .execute(&mut *tx)
            .await?;
        outcome::recompute(&mut *tx, counts, row, now).await?;
    }
    Ok(())
}
