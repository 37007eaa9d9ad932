//! What is so and what should be so: one row an (account, connection).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;
use sqlx::Row;

use super::filter::{self, Sql};
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

    /// When what waits since then is given up on, if that may take so long; none if it doesn't wait.
    pub(super) fn gives_up_at(self, waiting_since: Option<Timestamp>, deadline: Duration) -> Option<Timestamp> {
        waiting_since.filter(|_| self == Self::Waiting).map(|since| since.plus(deadline))
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountFilter {
    /// Only those in this state.
    pub state: Option<State>,
    /// Only those of this connection.
    pub connection: Option<ConnectionRef>,
    /// Only such accounts.
    pub account: Option<AccountPattern>,
    /// Only those of this provider.
    pub provider: Option<String>,
    /// Only those whose status somebody has changed at the platform.
    pub drifted: bool,
    /// Only those with this text in the reason of their state; ASCII letters of either case.
    pub reason: Option<String>,
}

/// A place in a listing of accounts. What comes after it is what comes after it, however the ledger has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountCursor {
    rank: i64,
    due: i64,
    account: i64,
    status: i64,
}

impl fmt::Display for AccountCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let due = if self.due == i64::MAX { "-".to_owned() } else { self.due.to_string() };
        write!(f, "{}.{due}.{}.{}", self.rank, self.account, self.status)
    }
}

impl FromStr for AccountCursor {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = InvalidName { what: "place", why: "must be what a listing of accounts has given out" };
        let parts: Vec<&str> = text.split('.').collect();
        let [rank, due, account, status] = parts.as_slice() else { return Err(invalid) };
        let number = |text: &str| text.parse().map_err(|_| invalid);
        let due = if *due == "-" { i64::MAX } else { number(due)? };
        Ok(Self { rank: number(rank)?, due, account: number(account)?, status: number(status)? })
    }
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
    /// Since when it is known that somebody has set what is so at the platform, where what should be so was applied.
    pub drifted_at: Option<Timestamp>,
    /// Since when it waits; also if it was parked because that took too long.
    pub waiting_since: Option<Timestamp>,
    /// Failed tries in a row.
    pub attempts: i64,
    /// When it is looked at next, if ever.
    pub due_at: Option<Timestamp>,
    /// Its place in the listing: `--after` goes on behind it.
    #[serde(rename = "after", serialize_with = "super::as_text")]
    pub place: AccountCursor,
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
    /// Lists accounts: what needs an operator first, then what is due soonest. At most `limit`, with `after` those
    /// behind that place.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn accounts(
        &self,
        filter: &AccountFilter,
        after: Option<AccountCursor>,
        limit: i64,
    ) -> Result<Vec<AccountRow>, LedgerError> {
        // A table without a name of its own: PostgreSQL can't compare what a SELECT has just named.
        let mut sql = Sql::new(
            "SELECT * FROM (SELECT accounts.provider, accounts.host, accounts.stable, accounts.login, \
             statuses.connection, statuses.desired, statuses.actual, statuses.state, statuses.reason, \
             statuses.drifted_at, statuses.waiting_since, COALESCE(statuses.attempts, 0) AS attempts, statuses.due_at, \
             CAST(CASE statuses.state WHEN 'parked' THEN 0 WHEN 'waiting' THEN 1 WHEN 'pending' THEN 2 \
             WHEN 'settled' THEN 3 ELSE 4 END AS BIGINT) AS place_rank, \
             COALESCE(statuses.due_at, 9223372036854775807) AS place_due, accounts.id AS place_account, \
             COALESCE(statuses.id, 0) AS place_status \
             FROM accounts LEFT JOIN statuses ON statuses.account = accounts.id WHERE 1 = 1",
        );
        let connection = filter.connection.as_ref().map(ToString::to_string);
        let equal = [
            (" AND statuses.state = ", filter.state.map(State::as_str)),
            (" AND statuses.connection = ", connection.as_deref()),
            (" AND accounts.provider = ", filter.provider.as_deref()),
        ];
        for (text, value) in equal {
            if let Some(value) = value {
                sql.push(text);
                sql.bind(value);
            }
        }
        if let Some(account) = &filter.account {
            sql.push(" AND accounts.id IN (");
            filter::accounts(&mut sql, account);
            sql.push(")");
        }
        if filter.drifted {
            sql.push(" AND statuses.drifted_at IS NOT NULL");
        }
        if let Some(reason) = &filter.reason {
            sql.push(" AND lower(statuses.reason) LIKE ");
            sql.bind(filter::like(reason));
            sql.push(" ESCAPE '!'");
        }
        sql.push(") AS listed");
        if let Some(AccountCursor { rank, due, account, status }) = after {
            sql.push(" WHERE (place_rank, place_due, place_account, place_status) > (");
            for (text, value) in [("", rank), (", ", due), (", ", account), (", ", status)] {
                sql.push(text);
                sql.bind(value);
            }
            sql.push(")");
        }
        sql.push(" ORDER BY place_rank, place_due, place_account, place_status LIMIT ");
        sql.bind(limit);
        let rows = sql.query().fetch_all(&self.read).await?;
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
                    drifted_at: optional_time(row, "drifted_at")?,
                    waiting_since: optional_time(row, "waiting_since")?,
                    attempts: row.try_get("attempts")?,
                    due_at: optional_time(row, "due_at")?,
                    place: AccountCursor {
                        rank: row.try_get("place_rank")?,
                        due: row.try_get("place_due")?,
                        account: row.try_get("place_account")?,
                        status: row.try_get("place_status")?,
                    },
                })
            })
            .collect()
    }

    /// Every account that the pattern names. A login names everybody who was ever seen with it.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn accounts_named(&self, pattern: &AccountPattern) -> Result<Vec<AccountMatch>, LedgerError> {
        let mut sql = Sql::new(
            "SELECT accounts.id, accounts.provider, accounts.host, accounts.stable, accounts.login FROM accounts \
             WHERE accounts.id IN (",
        );
        filter::accounts(&mut sql, pattern);
        sql.push(") ORDER BY accounts.id");
        let rows = sql.query().fetch_all(&self.read).await?;
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
