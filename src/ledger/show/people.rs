//! Whose accounts are, and from where that is known: one row an (account, connection), and one for each account that an
//! operator has spoken of and that nobody has seen yet.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::accounts::State;
use super::filter::{self, Sql};
use super::optional_time;
use crate::access::{AccountName, AccountPattern};
use crate::delivery::{InvalidName, Timestamp};
use crate::ledger::{Ledger, LedgerError, parsed};
use crate::target::{ConnectionRef, PersonFrom, PersonRef};

/// Which rows to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeopleFilter {
    /// Only such accounts.
    pub account: Option<AccountPattern>,
    /// Only those of this provider.
    pub provider: Option<String>,
    /// Only those of this connection.
    pub connection: Option<ConnectionRef>,
    /// Only those of this person.
    pub person: Option<PersonRef>,
    /// Only those of which it is known from there.
    pub from: Option<PersonFrom>,
    /// Only those of which it isn't known.
    pub unknown: bool,
}

/// A place in the listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeopleCursor {
    account: i64,
    status: i64,
    word: i64,
}

impl fmt::Display for PeopleCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.account, self.status, self.word)
    }
}

impl FromStr for PeopleCursor {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = InvalidName { what: "place", why: "must be what a listing of people has given out" };
        let mut parts = text.split('.').map(|part| part.parse::<i64>().map_err(|_| invalid));
        let mut next = || parts.next().unwrap_or(Err(invalid));
        let cursor = Self { account: next()?, status: next()?, word: next()? };
        if parts.next().is_some() { Err(invalid) } else { Ok(cursor) }
    }
}

/// Whose an account is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeopleRow {
    /// The account in its full form; with a login if nobody has been seen with it yet.
    pub account: String,
    /// Its latest login, if it is known.
    pub login: Option<String>,
    /// The connection; null if the platform has none, or the account isn't known.
    pub connection: Option<String>,
    /// The person: an e-mail address or `user:518`, `nobody` if an operator has said so; null if it isn't known.
    pub person: Option<String>,
    /// From where that is known.
    pub from: Option<PersonFrom>,
    /// Which operator said so, if one did.
    pub operator: Option<String>,
    /// When.
    pub said_at: Option<Timestamp>,
    /// Where the work stands; null without a connection.
    pub state: Option<State>,
    /// Why.
    pub reason: Option<String>,
    /// Its place in the listing: `--after` goes on behind it.
    #[serde(rename = "after", serialize_with = "super::as_text")]
    pub place: PeopleCursor,
}

/// The rows that the filter chooses from. A status is written as `unknown`, `unlinked`, or the person's id.
const ROWS: &str = "SELECT listed.* FROM (\
    SELECT accounts.provider || '@' || accounts.host || ':#' || accounts.stable AS account, accounts.login, \
    statuses.connection, statuses.state, statuses.reason, said.operator, said.said_at, \
    CASE WHEN said.id IS NOT NULL THEN COALESCE(said.person, 'nobody') \
    WHEN statuses.desired NOT IN ('unknown', 'unlinked') THEN 'user:' || statuses.desired \
    WHEN statuses.desired IS NULL AND statuses.actual NOT IN ('unknown', 'unlinked') THEN 'user:' || statuses.actual \
    END AS person, \
    CASE WHEN statuses.desired NOT IN ('unknown', 'unlinked') THEN 'user:' || statuses.desired END AS linked, \
    CASE WHEN said.id IS NOT NULL THEN 'operator' WHEN statuses.person_from IS NOT NULL THEN statuses.person_from \
    WHEN statuses.desired IS NULL AND statuses.actual NOT IN ('unknown', 'unlinked') THEN 'platform' \
    END AS person_from, \
    accounts.id AS place_account, COALESCE(statuses.id, 0) AS place_status, CAST(0 AS BIGINT) AS place_word \
    FROM accounts LEFT JOIN statuses ON statuses.account = accounts.id \
    LEFT JOIN people AS said ON said.account = accounts.id \
    UNION ALL SELECT name, NULL, NULL, NULL, NULL, operator, said_at, \
    COALESCE(person, 'nobody'), NULL, 'operator', CAST(0 AS BIGINT), CAST(0 AS BIGINT), id \
    FROM people WHERE account IS NULL) AS listed WHERE 1 = 1";

impl Ledger {
    /// Lists whose accounts are: at most `limit`, with `after` those behind that place.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn people(
        &self,
        filter: &PeopleFilter,
        after: Option<PeopleCursor>,
        limit: i64,
    ) -> Result<Vec<PeopleRow>, LedgerError> {
        let mut sql = Sql::new(ROWS);
        let connection = filter.connection.as_ref().map(ToString::to_string);
        let equal = [
            (" AND connection = ", connection.as_deref()),
            (" AND person_from = ", filter.from.map(PersonFrom::as_str)),
        ];
        for (text, value) in equal {
            if let Some(value) = value {
                sql.push(text);
                sql.bind(value);
            }
        }
        if let Some(provider) = &filter.provider {
            sql.push(" AND account LIKE ");
            sql.bind(format!("{provider}@%"));
        }
        if let Some(account) = &filter.account {
            sql.push(" AND (place_account IN (");
            filter::accounts(&mut sql, account);
            // Of an account that nobody has seen there is only the name.
            sql.push(") OR (place_account = 0 AND account LIKE ");
            sql.bind(ahead(account));
            sql.push("))");
        }
        if let Some(person) = &filter.person {
            sql.push(" AND (person = ");
            sql.bind(person.to_string());
            sql.push(" OR linked = ");
            sql.bind(person.to_string());
            sql.push(")");
        }
        if filter.unknown {
            sql.push(" AND person IS NULL");
        }
        if let Some(PeopleCursor { account, status, word }) = after {
            sql.push(" AND (place_account, place_status, place_word) > (");
            for (text, value) in [("", account), (", ", status), (", ", word)] {
                sql.push(text);
                sql.bind(value);
            }
            sql.push(")");
        }
        sql.push(" ORDER BY place_account, place_status, place_word LIMIT ");
        sql.bind(limit);
        sql.query().fetch_all(&self.read).await?.iter().map(row_of).collect()
    }
}

/// The pattern of the names of accounts that nobody has seen yet.
fn ahead(account: &AccountPattern) -> String {
    let provider = account.provider.as_deref().unwrap_or("%");
    let host = account.host.as_deref().unwrap_or("%");
    match &account.name {
        AccountName::Id(id) => format!("{provider}@{host}:#{id}"),
        AccountName::Login(login) => format!("{provider}@{host}:{}", login.to_lowercase()),
    }
}

fn row_of(row: &AnyRow) -> Result<PeopleRow, LedgerError> {
    let from: Option<String> = row.try_get("person_from")?;
    Ok(PeopleRow {
        account: row.try_get("account")?,
        login: row.try_get("login")?,
        connection: row.try_get("connection")?,
        person: row.try_get("person")?,
        from: from.as_deref().and_then(PersonFrom::named),
        operator: row.try_get("operator")?,
        said_at: optional_time(row, "said_at")?,
        state: match row.try_get::<Option<String>, _>("state")? {
            Some(state) => Some(parsed("state", &state)?),
            None => None,
        },
        reason: row.try_get("reason")?,
        place: PeopleCursor {
            account: row.try_get("place_account")?,
            status: row.try_get("place_status")?,
            word: row.try_get("place_word")?,
        },
    })
}
