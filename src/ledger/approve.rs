//! An operator's yes to a delivery that is held because it concerns many accounts at once.

use serde::Serialize;
use sqlx::{AnyConnection, Row};

use super::actions::{self, NewAction};
use super::database::lock_recording;
use super::outcome::{Counts, Outcome};
use super::record::{Entry, Recorder};
use super::show::{AccountLabel, account_label};
use super::view::{RootsOf, connection_roots, grants};
use super::work::status_of;
use super::{Ledger, LedgerError, now, parsed, unless_in_conflict};
use crate::access::{Access, access};
use crate::target::LinkStatus;

/// An account that a delivery concerns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Concerned {
    /// The account.
    #[serde(flatten)]
    pub account: AccountLabel,
    /// The connection.
    pub connection: String,
    /// What is so.
    #[serde(serialize_with = "super::show::status")]
    pub actual: Option<LinkStatus>,
    /// What it would have access to afterwards.
    pub access: Access,
}

impl Ledger {
    /// The accounts that a held delivery concerns, and what would be so for each if an operator said yes: found out by
    /// recording it, and taking that back.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn concerned(&self, row: i64, entry: &Entry, roots: RootsOf<'_>) -> Result<Vec<Concerned>, LedgerError> {
        unless_in_conflict(|| self.concerned_once(row, entry, roots)).await
    }

    async fn concerned_once(&self, row: i64, entry: &Entry, roots: RootsOf<'_>) -> Result<Vec<Concerned>, LedgerError> {
        let mut tx = self.begin().await?;
        // Nothing has become of it.
        let _ = record(&mut tx, entry).await?;
        let rows = sqlx::query(
            "SELECT accounts.id, accounts.provider, accounts.host, accounts.stable, accounts.login, \
             statuses.connection, statuses.actual FROM effects JOIN accounts ON accounts.id = effects.account \
             JOIN statuses ON statuses.id = effects.status WHERE effects.row = $1 ORDER BY accounts.id",
        )
        .bind(row)
        .fetch_all(&mut *tx)
        .await?;
        let mut concerned = Vec::with_capacity(rows.len());
        for row in rows {
            let connection: String = row.try_get("connection")?;
            let configured = roots(&parsed("connection", &connection)?);
            let grants = grants(&mut tx, row.try_get("id")?, &connection).await?;
            let roots = connection_roots(&mut tx, &connection, &configured).await?;
            concerned.push(Concerned {
                account: account_label(&row)?,
                connection,
                actual: status_of(&row.try_get::<String, _>("actual")?)?,
                access: access(&grants, &roots),
            });
        }
        tx.rollback().await?;
        Ok(concerned)
    }

    /// Records a held delivery whatever number of accounts it concerns, and who said yes to that. Returns whether it was
    /// still held.
    ///
    /// # Errors
    /// If the database fails; then nothing was recorded.
    pub async fn approve(&self, row: i64, entry: &Entry, operator: &str, detail: &str) -> Result<bool, LedgerError> {
        unless_in_conflict(|| self.approve_once(row, entry, operator, detail)).await
    }

    async fn approve_once(&self, row: i64, entry: &Entry, operator: &str, detail: &str) -> Result<bool, LedgerError> {
        let mut tx = self.begin().await?;
        lock_recording(&mut tx).await?;
        let outcome: String = sqlx::query("SELECT outcome FROM deliveries WHERE id = $1")
            .bind(row)
            .fetch_one(&mut *tx)
            .await?
            .try_get(0)?;
        if outcome != Outcome::Held.as_str() {
            tx.rollback().await?;
            return Ok(false);
        }
        let counts = record(&mut tx, entry).await?;
        let action =
            NewAction { operator, action: "approve", account: None, delivery: Some(row), detail: Some(detail) };
        actions::note(&mut tx, action).await?;
        tx.commit().await?;
        counts.publish();
        Ok(true)
    }
}

async fn record(tx: &mut AnyConnection, entry: &Entry) -> Result<Counts, LedgerError> {
    lock_recording(&mut *tx).await?;
    let now = now(&mut *tx).await?;
    let approved = Entry { approved: true, ..entry.clone() };
    let mut counts = Counts::default();
    let received_at = approved.delivery.received_at;
    Recorder { tx, counts: &mut counts, now }.delivery(&approved, received_at, false).await?;
    Ok(counts)
}
