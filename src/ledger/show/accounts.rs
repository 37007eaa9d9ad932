//! What is so and what should be so: one row an (account, connection).

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use sqlx::Row;

use super::{AccountLabel, account_label, optional_status, optional_time};
use crate::access::{AccountName, AccountPattern};
use crate::delivery::{InvalidName, Timestamp};
use crate::ledger::{Ledger, LedgerError, parsed};
use crate::target::{ConnectionRef, LinkStatus};

/// Where the work on one (account, connection) stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is to be looked at, or to be tried again.
    Pending,
    /// It waits for an identity or a person to appear.
    Waiting,
    /// Nobody tries any more by itself.
    Parked,
    /// Nothing is to be done.
    Settled,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Waiting, Self::Parked, Self::Settled];

    /// The word used everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Waiting => "waiting",
            Self::Parked => "parked",
            Self::Settled => "settled",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for State {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(InvalidName { what: "state", why: "must be one of pending, waiting, parked and settled" })
    }
}

/// Which accounts to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountFilter {
    /// Only those in this state.
    pub state: Option<State>,
    /// Only those of this connection.
    pub connection: Option<ConnectionRef>,
    /// At most so many.
    pub limit: i64,
}

/// One (account, connection).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccountRow {
    /// The account.
    #[serde(flatten)]
    pub account: AccountLabel,
    /// The connection; null if the platform has none for what the account has access to.
    pub connection: Option<String>,
    /// What should be so, as of the last look; unknown before the first one.
    #[serde(serialize_with = "super::status")]
    pub desired: Option<LinkStatus>,
    /// What is so, as of the last answer or reading.
    #[serde(serialize_with = "super::status")]
    pub actual: Option<LinkStatus>,
    /// Where the work stands; null without a connection.
    pub state: Option<State>,
    /// Why.
    pub reason: Option<String>,
    /// Failed tries in a row.
    pub attempts: i64,
    /// When it is looked at next, if ever.
    pub due_at: Option<Timestamp>,
}

/// An account that a pattern names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountMatch {
    /// Its row.
    pub row: i64,
    /// The account.
    pub label: AccountLabel,
}

impl Ledger {
    /// Lists accounts: what needs an operator first, then what is due soonest.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn accounts(&self, filter: &AccountFilter) -> Result<Vec<AccountRow>, LedgerError> {
        let rows = sqlx::query(
            "SELECT accounts.provider, accounts.host, accounts.stable, accounts.login, statuses.connection, \
             statuses.desired, statuses.actual, statuses.state, statuses.reason, \
             COALESCE(statuses.attempts, 0) AS attempts, statuses.due_at \
             FROM accounts LEFT JOIN statuses ON statuses.account = accounts.id \
             WHERE (CAST($1 AS TEXT) IS NULL OR statuses.state = $1) \
             AND (CAST($2 AS TEXT) IS NULL OR statuses.connection = $2) \
             ORDER BY CASE statuses.state WHEN 'parked' THEN 0 WHEN 'waiting' THEN 1 WHEN 'pending' THEN 2 \
             WHEN 'settled' THEN 3 ELSE 4 END, COALESCE(statuses.due_at, 9223372036854775807), accounts.id, \
             statuses.connection LIMIT $3",
        )
        .bind(filter.state.map(State::as_str))
        .bind(filter.connection.as_ref().map(ToString::to_string))
        .bind(filter.limit)
        .fetch_all(&self.read)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(AccountRow {
                    account: account_label(row)?,
                    connection: row.try_get("connection")?,
                    desired: optional_status(row, "desired")?,
                    actual: optional_status(row, "actual")?,
                    state: match row.try_get::<Option<String>, _>("state")? {
                        Some(state) => Some(parsed("state", &state)?),
                        None => None,
                    },
                    reason: row.try_get("reason")?,
                    attempts: row.try_get("attempts")?,
                    due_at: optional_time(row, "due_at")?,
                })
            })
            .collect()
    }

    /// Every account that the pattern names. A login names everybody who was ever seen with it.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn accounts_named(&self, pattern: &AccountPattern) -> Result<Vec<AccountMatch>, LedgerError> {
        let (id, login) = id_and_login(pattern);
        let rows = sqlx::query(
            "SELECT accounts.id, accounts.provider, accounts.host, accounts.stable, accounts.login FROM accounts \
             WHERE (CAST($1 AS TEXT) IS NULL OR accounts.provider = $1) \
             AND (CAST($2 AS TEXT) IS NULL OR accounts.host = $2) AND (CAST($3 AS TEXT) IS NULL OR accounts.stable = $3) \
             AND (CAST($4 AS TEXT) IS NULL OR EXISTS \
             (SELECT 1 FROM logins WHERE logins.account = accounts.id AND logins.login = $4)) ORDER BY accounts.id",
        )
        .bind(pattern.provider.as_deref())
        .bind(pattern.host.as_deref())
        .bind(id)
        .bind(login)
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(|row| Ok(AccountMatch { row: row.try_get("id")?, label: account_label(row)? })).collect()
    }
}

/// The two ways to name an account, one of them null. Logins are kept in lower case.
pub(super) fn id_and_login(pattern: &AccountPattern) -> (Option<&str>, Option<String>) {
    match &pattern.name {
        AccountName::Id(id) => (Some(id), None),
        AccountName::Login(login) => (None, Some(login.to_lowercase())),
    }
}
