//! Which deliveries: one filter for listings, exports and replays, and its SQL.
//!
//! The conditions are put together from fixed pieces, with every value bound. Indexes answer them without reading a row,
//! since a row holds the body; see migration 0008.

use std::fmt;

use sqlx::AssertSqlSafe;
use sqlx::any::{Any, AnyArguments};
use sqlx::query::Query;

use super::accounts::id_and_login;
use super::deliveries::DeliveryName;
use crate::access::{AccountPattern, RootPattern, ScopeKind};
use crate::delivery::Timestamp;
use crate::ledger::outcome::Outcome;

/// Which deliveries. Every part that is given narrows it; the default is all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryFilter {
    /// Only those with one of these outcomes.
    pub outcomes: Vec<Outcome>,
    /// Only those of this source.
    pub source: Option<String>,
    /// Only those of this provider.
    pub provider: Option<String>,
    /// Only those of this event: with its action, or without for all of its actions.
    pub event: Option<String>,
    /// Only those that did something to such an account.
    pub account: Option<AccountPattern>,
    /// Only those that told something of such a scope, or of one in it.
    pub scope: Option<RootPattern>,
    /// Only these.
    pub names: Vec<DeliveryName>,
    /// Only those received at this time or later.
    pub since: Option<Timestamp>,
    /// Only those received before this time.
    pub until: Option<Timestamp>,
    /// Only those with this text in the reason of their outcome; ASCII letters of either case.
    pub reason: Option<String>,
}

impl DeliveryFilter {
    /// Whether it leaves nothing out.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it chooses few, which are found one by one.
    pub(super) fn is_selective(&self) -> bool {
        self.account.is_some() || !self.names.is_empty()
    }

    /// Whether no index has the chosen rows in the order of their ids. Then SQLite must not be let to walk the table in
    /// that order, bodies and all, until it has found enough of them.
    pub(super) fn is_unordered(&self) -> bool {
        self.provider.is_some()
            || self.event.is_some()
            || self.since.is_some()
            || self.until.is_some()
            || self.reason.is_some()
    }

    /// Adds the conditions on `deliveries`.
    pub(in crate::ledger) fn conditions(&self, sql: &mut Sql) {
        sql.push("1 = 1");
        if !self.outcomes.is_empty() {
            sql.push(" AND outcome IN (");
            sql.list(self.outcomes.iter().map(|outcome| Value::from(outcome.as_str())));
            sql.push(")");
        }
        let equal = [(" AND source = ", &self.source), (" AND provider = ", &self.provider)];
        for (text, value) in equal {
            if let Some(value) = value {
                sql.push(text);
                sql.bind(value.as_str());
            }
        }
        if let Some(event) = &self.event {
            sql.push(" AND (event = ");
            sql.bind(event.as_str());
            // The next character after the dot ends the range; names are compared by their bytes.
            sql.push(" OR (event >= ");
            sql.bind(format!("{event}."));
            sql.push(" AND event < ");
            sql.bind(format!("{event}/"));
            sql.push("))");
        }
        if let Some(since) = self.since {
            sql.push(" AND received_at >= ");
            sql.bind(since.micros());
        }
        if let Some(until) = self.until {
            sql.push(" AND received_at < ");
            sql.bind(until.micros());
        }
        if !self.names.is_empty() {
            sql.push(" AND (id IN (0");
            for name in &self.names {
                if let DeliveryName::Row(row) = name {
                    sql.push(", ");
                    sql.bind(*row);
                }
            }
            sql.push(") OR delivery IN (''");
            for name in &self.names {
                if let DeliveryName::Id(id) = name {
                    sql.push(", ");
                    sql.bind(id.as_str());
                }
            }
            sql.push("))");
        }
        if let Some(account) = &self.account {
            sql.push(" AND id IN (SELECT row FROM effects WHERE account IN (");
            accounts(sql, account);
            sql.push("))");
        }
        if let Some(scope) = &self.scope {
            sql.push(" AND id IN (SELECT row FROM changes WHERE scope IN (SELECT id FROM scopes WHERE ");
            named(sql, scope);
            sql.push(" OR root IN (SELECT id FROM scopes WHERE ");
            named(sql, scope);
            sql.push(")))");
        }
        if let Some(reason) = &self.reason {
            // Whatever is the reason now was once noted in the history, whose rows are short.
            let pattern = like(reason);
            sql.push(" AND id IN (SELECT outcomes.delivery FROM outcomes WHERE lower(outcomes.reason) LIKE ");
            sql.bind(pattern.as_str());
            sql.push(" ESCAPE '!') AND lower(reason) LIKE ");
            sql.bind(pattern);
            sql.push(" ESCAPE '!'");
        }
    }
}

/// Adds a query of the ids of the accounts that a pattern names. A login names everybody who was ever seen with it.
pub(in crate::ledger) fn accounts(sql: &mut Sql, pattern: &AccountPattern) {
    let (id, login) = id_and_login(pattern);
    sql.push("SELECT accounts.id FROM accounts WHERE 1 = 1");
    let equal = [
        (" AND accounts.provider = ", pattern.provider.as_deref()),
        (" AND accounts.host = ", pattern.host.as_deref()),
        (" AND accounts.stable = ", id),
    ];
    for (text, value) in equal {
        if let Some(value) = value {
            sql.push(text);
            sql.bind(value);
        }
    }
    if let Some(login) = login {
        sql.push(" AND accounts.id IN (SELECT account FROM logins WHERE login = ");
        sql.bind(login);
        sql.push(")");
    }
}

fn named(sql: &mut Sql, scope: &RootPattern) {
    sql.push("(kind = ");
    sql.bind(scope.kind.as_str());
    if scope.kind != ScopeKind::Instance {
        sql.push(if scope.by_id { " AND stable = " } else { " AND lower(name) = " });
        sql.bind(if scope.by_id { scope.name.clone() } else { scope.name.to_ascii_lowercase() });
    }
    sql.push(")");
}

/// The pattern of a text somewhere in another.
pub(super) fn like(text: &str) -> String {
    let mut pattern = "%".to_owned();
    for c in text.to_ascii_lowercase().chars() {
        if matches!(c, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

impl fmt::Display for DeliveryFilter {
    /// As the options of the command line: `outcome parked, source acme-github`; `all` for no condition.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.outcomes.is_empty() {
            let outcomes: Vec<&str> = self.outcomes.iter().map(|outcome| outcome.as_str()).collect();
            parts.push(format!("outcome {}", outcomes.join(" or ")));
        }
        let mut part = |what: &str, value: Option<String>| parts.extend(value.map(|value| format!("{what} {value}")));
        part("source", self.source.clone());
        part("provider", self.provider.clone());
        part("event", self.event.clone());
        part("account", self.account.as_ref().map(ToString::to_string));
        part("scope", self.scope.as_ref().map(ToString::to_string));
        part("since", self.since.map(|since| since.to_string()));
        part("until", self.until.map(|until| until.to_string()));
        part("reason", self.reason.as_ref().map(|reason| format!("{reason:?}")));
        match self.names.as_slice() {
            [] => {}
            [one] => parts.push(format!("delivery {one}")),
            many => parts.push(format!("{} deliveries by id", many.len())),
        }
        f.write_str(if parts.is_empty() { "all" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

/// A statement that is put together from fixed text and bound values.
#[derive(Clone, Debug, Default)]
pub(in crate::ledger) struct Sql {
    text: String,
    values: Vec<Value>,
}

/// A bound value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ledger) enum Value {
    Text(String),
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl Sql {
    /// Begins a statement.
    pub(in crate::ledger) fn new(text: &'static str) -> Self {
        Self { text: text.to_owned(), values: Vec::new() }
    }

    /// Adds text. It is part of the program, so that nothing from outside can become SQL.
    pub(in crate::ledger) fn push(&mut self, text: &'static str) {
        self.text.push_str(text);
    }

    /// Adds a value.
    pub(in crate::ledger) fn bind(&mut self, value: impl Into<Value>) {
        self.values.push(value.into());
        self.text.push_str(&format!("${}", self.values.len()));
    }

    fn list(&mut self, values: impl Iterator<Item = Value>) {
        for (n, value) in values.enumerate() {
            if n > 0 {
                self.push(", ");
            }
            self.bind(value);
        }
    }

    /// The statement, ready to run.
    pub(in crate::ledger) fn query(&self) -> Query<'static, Any, AnyArguments> {
        self.query_as(self.text.clone())
    }

    /// What the database would do for it.
    #[cfg(test)]
    pub(in crate::ledger) fn explained(&self) -> Query<'static, Any, AnyArguments> {
        self.query_as(format!("EXPLAIN QUERY PLAN {}", self.text))
    }

    fn query_as(&self, text: String) -> Query<'static, Any, AnyArguments> {
        self.values.iter().fold(sqlx::query(AssertSqlSafe(text)), |query, value| match value {
            Value::Text(text) => query.bind(text.clone()),
            Value::Number(number) => query.bind(*number),
        })
    }
}
