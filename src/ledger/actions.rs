//! What operators did: an append-only history, so that whoever asks later why an account is as it is finds people's part
//! in it, too.

use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::{Ledger, LedgerError, now};
use crate::delivery::Timestamp;

/// Something that an operator does, to be noted in the transaction that does it.
#[derive(Clone, Copy, Debug)]
pub struct NewAction<'a> {
    /// Who.
    pub operator: &'a str,
    /// What, in one word: `link`, `approve`.
    pub action: &'static str,
    /// The row of the account that it is about.
    pub account: Option<i64>,
    /// The row of the delivery that it is about.
    pub delivery: Option<i64>,
    /// More, for people.
    pub detail: Option<&'a str>,
}

/// What an operator did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Action {
    /// Its number: later ones have higher numbers.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub operator: String,
    /// What, in one word.
    pub action: String,
    /// The row of the account that it was about.
    #[serde(skip)]
    pub account: Option<i64>,
    /// The row of the delivery that it was about.
    #[serde(skip)]
    pub delivery: Option<i64>,
    /// More, for people.
    pub detail: Option<String>,
}

/// What an action is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The account of that row.
    Account(i64),
    /// The delivery of that row.
    Delivery(i64),
}

/// Notes what an operator does.
pub(super) async fn note(tx: &mut AnyConnection, action: NewAction<'_>) -> Result<(), LedgerError> {
    let at = now(&mut *tx).await?;
    sqlx::query(
        "INSERT INTO actions (at, operator, action, account, delivery, detail) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(at.micros())
    .bind(action.operator)
    .bind(action.action)
    .bind(action.account)
    .bind(action.delivery)
    .bind(action.detail)
    .execute(tx)
    .await?;
    Ok(())
}

impl Ledger {
    /// Notes what an operator does where nothing else is written.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn note_action(&self, action: NewAction<'_>) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        note(&mut tx, action).await?;
        tx.commit().await?;
        Ok(())
    }

    /// What operators did about an account or a delivery, the oldest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn actions(&self, about: About) -> Result<Vec<Action>, LedgerError> {
        let (account, delivery) = match about {
            About::Account(row) => (Some(row), None),
            About::Delivery(row) => (None, Some(row)),
        };
        let rows = sqlx::query(
            "SELECT id, at, operator, action, account, delivery, detail FROM actions \
             WHERE account = $1 OR delivery = $2 ORDER BY id",
        )
        .bind(account)
        .bind(delivery)
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(action_of).collect()
    }
}

fn action_of(row: &AnyRow) -> Result<Action, LedgerError> {
    Ok(Action {
        id: row.try_get("id")?,
        at: Timestamp(row.try_get("at")?),
        operator: row.try_get("operator")?,
        action: row.try_get("action")?,
        account: row.try_get("account")?,
        delivery: row.try_get("delivery")?,
        detail: row.try_get("detail")?,
    })
}
