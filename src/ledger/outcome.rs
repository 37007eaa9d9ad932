//! Effects and outcomes: what became of a delivery.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use sqlx::{AnyConnection, Row};

use super::LedgerError;
use super::database::lock_delivery;
use crate::delivery::{InvalidName, Timestamp};
use crate::telemetry::metrics as names;

/// What a delivery did to an account, and what became of the delivery: its outcome is the first of these, in this
/// order, that any of its effects has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nobody tries any more by itself; an operator has to look.
    Parked,
    /// It waits for an operator's yes.
    Held,
    /// It waits for an identity or a person to appear.
    Waiting,
    /// It isn't reconciled yet.
    Pending,
    /// The platform has it.
    Applied,
    /// The platform had it already, or nothing was to be done.
    Unchanged,
    /// A newer change won.
    Superseded,
    /// It says nothing about access, or speaks of somebody else's scopes.
    Ignored,
}

impl Outcome {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Parked,
        Self::Held,
        Self::Waiting,
        Self::Pending,
        Self::Applied,
        Self::Unchanged,
        Self::Superseded,
        Self::Ignored,
    ];

    /// Those that aren't done: the delivery still has something ahead of it.
    pub const OPEN: [Self; 4] = [Self::Parked, Self::Held, Self::Waiting, Self::Pending];

    /// Those whose change is to reach the platform by itself and hasn't.
    pub const UNAPPLIED: [Self; 2] = [Self::Waiting, Self::Pending];

    /// The word used everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Parked => "parked",
            Self::Held => "held",
            Self::Waiting => "waiting",
            Self::Pending => "pending",
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Superseded => "superseded",
            Self::Ignored => "ignored",
        }
    }

    /// What it means, for people.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Parked => "rollcall stopped trying; everything is kept and an operator has to look",
            Self::Held => "it would change many accounts at once and waits for an operator's yes",
            Self::Waiting => "the platform doesn't know the account yet, or nobody knows whose it is",
            Self::Pending => "recorded, not reconciled yet (or tried, and to be tried again)",
            Self::Applied => "the platform was told and has confirmed",
            Self::Unchanged => "the platform had it already, or nothing was to be done",
            Self::Superseded => "a newer change of the same access won",
            Self::Ignored => "it says nothing about access, or is about somebody else's scopes",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Outcome {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text).ok_or(InvalidName {
            what: "outcome",
            why: "must be one of parked, held, waiting, pending, applied, unchanged, superseded and ignored",
        })
    }
}

/// What became of deliveries in a transaction, to be counted when it is committed: it may be run again, or taken back.
#[derive(Clone, Debug, Default)]
#[must_use]
pub(super) struct Counts(Vec<Outcome>);

impl Counts {
    /// Counts them.
    pub(super) fn publish(self) {
        for outcome in self.0 {
            metrics::counter!(names::OUTCOMES, "outcome" => outcome.as_str()).increment(1);
        }
    }
}

/// Sets the outcome of a delivery anew from its effects, and keeps the old one in its history.
pub(super) async fn recompute(
    tx: &mut AnyConnection,
    counts: &mut Counts,
    row: i64,
    now: Timestamp,
) -> Result<(), LedgerError> {
    lock_delivery(&mut *tx, row).await?;
    let effects = sqlx::query("SELECT effect, reason FROM effects WHERE row = $1 ORDER BY account")
        .bind(row)
        .fetch_all(&mut *tx)
        .await?;
    let mut best: Option<(Outcome, Option<String>)> = None;
    for effect in effects {
        let outcome: Outcome = super::parsed("effect", &effect.try_get::<String, _>(0)?)?;
        if best.as_ref().is_none_or(|(least, _)| outcome < *least) {
            best = Some((outcome, effect.try_get(1)?));
        }
    }
    match best {
        Some((outcome, reason)) => set(tx, counts, row, outcome, reason.as_deref(), now).await,
        None => Ok(()),
    }
}

/// Sets the outcome of a delivery, and keeps it in the history if it is news.
pub(super) async fn set(
    tx: &mut AnyConnection,
    counts: &mut Counts,
    row: i64,
    outcome: Outcome,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<(), LedgerError> {
    let changed = sqlx::query(
        "UPDATE deliveries SET outcome = $2, reason = $3 WHERE id = $1 \
         AND (outcome <> $2 OR COALESCE(reason, '') <> COALESCE($3, ''))",
    )
    .bind(row)
    .bind(outcome.as_str())
    .bind(reason)
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if changed > 0 {
        note(tx, counts, row, outcome, reason, now).await?;
    }
    Ok(())
}

/// Adds a line to a delivery's history.
pub(super) async fn note(
    tx: &mut AnyConnection,
    counts: &mut Counts,
    row: i64,
    outcome: Outcome,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<(), LedgerError> {
    counts.0.push(outcome);
    sqlx::query("INSERT INTO outcomes (delivery, at, outcome, reason) VALUES ($1, $2, $3, $4)")
        .bind(row)
        .bind(now.micros())
        .bind(outcome.as_str())
        .bind(reason)
        .execute(&mut *tx)
        .await?;
    Ok(())
}

impl super::Ledger {
    /// What became of a delivery, if the ledger has it; of the latest, if the id came with other bytes, too.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn outcome_of(
        &self,
        source: &crate::delivery::SourceName,
        delivery: &crate::delivery::DeliveryId,
    ) -> Result<Option<(Outcome, Option<String>)>, LedgerError> {
        let row =
            sqlx::query("SELECT outcome, reason FROM deliveries WHERE source = $1 AND delivery = $2 ORDER BY id DESC")
                .bind(source.as_str())
                .bind(delivery.as_str())
                .fetch_optional(&self.read)
                .await?;
        row.map(|row| Ok((super::parsed("outcome", &row.try_get::<String, _>(0)?)?, row.try_get(1)?))).transpose()
    }
}
