//! Due accounts go out under a lease and come back settled; what is seen under a lease is in [`super::view`].
//!
//! A lease is taken by the database's clock, and work is settled only while the lease is held and only at the version
//! that it looked at; else whoever holds it looks again. Before each call an *intent* is committed: from then on the
//! actual status is unknown until an answer or a fresh read.

use std::time::Duration;

use serde::Serialize;
use sqlx::Row;
use uuid::Uuid;

use super::database::Database;
use super::halt::{self, Halt};
use super::step::{Intent, Step, Write};
use super::{Ledger, LedgerError, now, parsed, unless_in_conflict};
use crate::delivery::Timestamp;
use crate::target::{FailureClass, IdentityRef, LinkStatus, PersonFrom, PersonId};

/// What the reason of an account begins with that only waits because of a dry run.
pub const DRY_RUN: &str = "dry run";

/// The right to work on one account's status, until a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The status row.
    pub status: i64,
    /// Who holds it.
    pub owner: String,
    /// Whether it is to show if a halt can end.
    pub probe: bool,
}

/// What [`Ledger::take_due`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// What is to be worked on.
    pub leases: Vec<Lease>,
    /// The halt, if one stands.
    pub halt: Option<Halt>,
}

/// Whether what was to be written for a lease could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It is written.
    Written,
    /// Nothing is: the version has moved, and the lease still holds. Look again.
    Moved,
    /// Nothing is: the lease is over. Somebody else looks.
    Lost,
}

/// How a look at an account ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// What is now the case.
    pub result: Settled,
    /// One sentence for people.
    pub reason: Option<String>,
    /// What should be so, as far as it could be told.
    pub desired: Option<LinkStatus>,
    /// The status as of a 2xx or a fresh read; none if unknown.
    pub actual: Option<LinkStatus>,
    /// The platform's row.
    pub identity: Option<IdentityRef>,
    /// From where it is known whose the account is, as far as it could be told.
    pub person_from: Option<PersonFrom>,
    /// Whether an intent is still unanswered.
    pub keep_intent: bool,
    /// Whether what somebody has set at the platform is left as it is.
    pub keep_drift: bool,
    /// When to look again, if at all.
    pub due_at: Option<Timestamp>,
}

/// The ways in which a look at an account ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Settled {
    /// The platform was told and confirmed.
    Applied,
    /// Nothing was to be done.
    Unchanged,
    /// It waits for something outside.
    Waiting,
    /// It is to be tried again; this try counts as an attempt.
    Failed,
    /// It is to be tried again; this try doesn't count.
    Postponed,
    /// Nobody tries again by itself.
    Parked,
    /// It has waited for too long. Nobody tries again by itself, unless a sweep finds what it waited for.
    GaveUp,
}

impl Settled {
    pub(super) const fn state(self) -> &'static str {
        match self {
            Self::Applied | Self::Unchanged => "settled",
            Self::Waiting => "waiting",
            Self::Failed | Self::Postponed => "pending",
            Self::Parked | Self::GaveUp => "parked",
        }
    }
}

/// One call, as history. It is written together with what follows from it.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// What was called: `connect` or `look up`.
    pub operation: &'static str,
    /// The status that it was to set.
    pub wanted: Option<LinkStatus>,
    /// The HTTP status, if there was an answer.
    pub answer: Option<u16>,
    /// How it failed; none for success.
    pub failure: Option<FailureClass>,
    /// How long it took.
    pub duration: Duration,
    /// What was said.
    pub message: Option<String>,
}

/// The statement that leases due accounts: `$first` says which go first, `$lock` how it treats rows that others are on.
/// Probes go in turn: one that was refused is due anew, and so comes last.
macro_rules! take {
    ($first:literal, $lock:literal) => {
        concat!(
            "UPDATE statuses SET lease_owner = $1, lease_until = $2 WHERE id IN (",
            "SELECT id FROM statuses WHERE due_at <= $3 AND (lease_until IS NULL OR lease_until <= $3) ORDER BY ",
            $first,
            ", due_at LIMIT $4",
            $lock,
            ") RETURNING id, ",
            $first,
            ", due_at"
        )
    };
}

impl Ledger {
    /// Leases up to `limit` due accounts, those that lost access first. While a halt stands it is one at the most, as a
    /// probe. Each lease is one of its own, also among those of one owner: what a look that took too long settles is not
    /// settled under somebody else's lease.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn take_due(&self, owner: &str, lease: Duration, limit: i64) -> Result<Taken, LedgerError> {
        let owner = format!("{owner} {}", Uuid::now_v7());
        let mut tx = self.begin().await?;
        let now = now(&mut tx).await?;
        let until = now.plus(lease);
        let halt = halt::standing(&mut tx).await?;
        let probe = match &halt {
            None => false,
            Some(_) if limit > 0 && halt::take_probe(&mut tx, &owner, now, until).await? => true,
            Some(_) => {
                tx.commit().await?;
                return Ok(Taken { leases: Vec::new(), halt });
            }
        };
        let rows = sqlx::query(match (self.database(), probe) {
            (Database::Sqlite, false) => take!("CASE WHEN losing = 1 OR desired = 'unlinked' THEN 0 ELSE 1 END", ""),
            (Database::Sqlite, true) => take!("due_at", ""),
            // Whoever records or settles an account right now isn't waited for.
            (Database::PostgreSql, false) => {
                take!("CASE WHEN losing = 1 OR desired = 'unlinked' THEN 0 ELSE 1 END", " FOR UPDATE SKIP LOCKED")
            }
            (Database::PostgreSql, true) => take!("due_at", " FOR UPDATE SKIP LOCKED"),
        })
        .bind(&owner)
        .bind(until.micros())
        .bind(now.micros())
        .bind(if probe { 1 } else { limit })
        .fetch_all(&mut *tx)
        .await?;
        if probe && rows.is_empty() {
            halt::release(&mut tx, &owner, now).await?;
        }
        tx.commit().await?;
        // What an update returns has no order.
        let mut taken: Vec<(i64, i64, i64)> = rows
            .iter()
            .map(|row| Ok((row.try_get(1)?, row.try_get(2)?, row.try_get(0)?)))
            .collect::<Result<_, sqlx::Error>>()?;
        taken.sort_unstable();
        let leases = taken.into_iter().map(|(_, _, status)| Lease { status, owner: owner.clone(), probe }).collect();
        Ok(Taken { leases, halt })
    }

    /// Ends all leases. For a process that is alone with its ledger and has just started: whoever held them is gone, and
    /// what it had sent and not heard of is still waited for (see the intent).
    ///
    /// # Errors
    /// If the database fails.
    pub async fn end_leases(&self) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE statuses SET lease_owner = NULL, lease_until = NULL WHERE lease_owner IS NOT NULL")
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    /// How long until the next account can be taken; none if none ever will. One that is leased can't before that ends.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn next_due(&self) -> Result<Option<Duration>, LedgerError> {
        let row = sqlx::query(
            "SELECT (SELECT MIN(CASE WHEN lease_until > due_at THEN lease_until ELSE due_at END) FROM statuses \
             WHERE due_at IS NOT NULL), (SELECT now_us FROM clock)",
        )
        .fetch_one(&self.read)
        .await?;
        let (due, now): (Option<i64>, i64) = (row.try_get(0)?, row.try_get(1)?);
        Ok(due.map(|due| Timestamp(due).since(Timestamp(now))))
    }

    /// For how long the account that has been due for the longest time has been so, with nobody at work on it.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn longest_due(&self) -> Result<Option<Duration>, LedgerError> {
        let now = self.now().await?;
        let row = sqlx::query(
            "SELECT due_at FROM statuses WHERE due_at <= $1 AND (lease_until IS NULL OR lease_until <= $1) \
             ORDER BY due_at LIMIT 1",
        )
        .bind(now.micros())
        .fetch_optional(&self.read)
        .await?;
        row.map(|row| Ok(now.since(Timestamp(row.try_get(0)?)))).transpose()
    }

    /// Counts a failed attempt of an account of which nothing else is known, because whoever worked on it broke off: what
    /// was desired and known before stays, an intent stands, and the lease is given back. `delay` says how long after that
    /// many failures the next attempt is made, if any.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn fail_attempt(
        &self,
        lease: &Lease,
        reason: &str,
        delay: impl Fn(u32) -> Option<Duration>,
    ) -> Result<Held, LedgerError> {
        let row = sqlx::query(
            "SELECT version, attempts, desired, actual, identity, (SELECT now_us FROM clock) AS now_us FROM statuses \
             WHERE id = $1",
        )
        .bind(lease.status)
        .fetch_optional(&self.read)
        .await?;
        let Some(row) = row else { return Ok(Held::Lost) };
        let failures = u32::try_from(row.try_get::<i64, _>("attempts")?.saturating_add(1)).unwrap_or(u32::MAX);
        let (result, reason, due_at) = match delay(failures) {
            Some(delay) => {
                let due_at = Timestamp(row.try_get("now_us")?).plus(delay);
                (Settled::Failed, reason.to_owned(), Some(due_at))
            }
            None => (Settled::Parked, format!("after {failures} attempts: {reason}"), None),
        };
        let desired = row.try_get::<Option<String>, _>("desired")?;
        let settlement = Settlement {
            result,
            reason: Some(reason.clone()),
            desired: desired.as_deref().map(status_of).transpose()?.flatten(),
            actual: status_of(&row.try_get::<String, _>("actual")?)?,
            identity: row.try_get::<Option<i64>, _>("identity")?.map(IdentityRef),
            person_from: None,
            keep_intent: true,
            keep_drift: true,
            due_at,
        };
        let attempt = Attempt {
            operation: "reconcile",
            wanted: None,
            answer: None,
            failure: Some(FailureClass::Transient),
            duration: Duration::ZERO,
            message: Some(reason),
        };
        self.settle(lease, row.try_get("version")?, &settlement, vec![attempt]).await
    }

    /// Commits the intent to set a status: from here on the actual status is unknown. Also renews the lease, and writes
    /// down the calls that led here. Unless it says [`Held::Written`], nothing may be sent.
    ///
    /// # Errors
    /// If the database fails; then nothing may be sent.
    pub async fn intend(
        &self,
        lease: &Lease,
        version: i64,
        wanted: LinkStatus,
        renew: Duration,
        attempts: Vec<Attempt>,
    ) -> Result<Held, LedgerError> {
        let intent = Intent { version, wanted, renew };
        self.step(Step { lease: lease.clone(), attempts, write: Write::Intend(intent) }).await
    }

    /// Writes down how a look at an account ended and the calls that led there, gives the lease back, and settles the
    /// effects of its deliveries. Unless it says [`Held::Written`], nothing of it holds but the calls; what a 2xx or a
    /// fresh read has shown is kept while the lease is.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn settle(
        &self,
        lease: &Lease,
        version: i64,
        settlement: &Settlement,
        attempts: Vec<Attempt>,
    ) -> Result<Held, LedgerError> {
        let write = Write::Settle { version, settlement: settlement.clone() };
        self.step(Step { lease: lease.clone(), attempts, write }).await
    }

    /// Makes every account that waits due now, because something outside has changed. Returns how many.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn wake_waiting(&self) -> Result<u64, LedgerError> {
        self.wake("").await
    }

    /// Makes every account due now that waits only because of a dry run. Returns how many.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn end_dry_run(&self) -> Result<u64, LedgerError> {
        self.wake(DRY_RUN).await
    }

    async fn wake(&self, reason: &str) -> Result<u64, LedgerError> {
        unless_in_conflict(|| self.wake_once(reason)).await
    }

    async fn wake_once(&self, reason: &str) -> Result<u64, LedgerError> {
        let mut tx = self.begin().await?;
        let now = now(&mut tx).await?;
        let woken = sqlx::query(
            "UPDATE statuses SET due_at = $1 WHERE state = 'waiting' AND COALESCE(reason, '') LIKE $2 || '%'",
        )
        .bind(now.micros())
        .bind(reason)
        .execute(&mut *tx)
        .await?
        .rows_affected();
        tx.commit().await?;
        Ok(woken)
    }
}

/// How the ledger writes a status down: `unknown`, `unlinked`, or the person's id.
pub(super) fn text_of(status: Option<LinkStatus>) -> String {
    match status {
        None => "unknown".to_owned(),
        Some(LinkStatus::Unlinked) => "unlinked".to_owned(),
        Some(LinkStatus::Linked(person)) => person.to_string(),
    }
}

/// Reads it back.
pub(super) fn status_of(text: &str) -> Result<Option<LinkStatus>, LedgerError> {
    Ok(match text {
        "unknown" => None,
        "unlinked" => Some(LinkStatus::Unlinked),
        person => Some(LinkStatus::Linked(PersonId(parsed("status", person)?))),
    })
}
