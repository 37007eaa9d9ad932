//! What people look at: the ledger's rows in the shape in which the command line, the console and the metrics show them.
//!
//! Everything here only reads. The structs are also the JSON that `--json` and the console give out, so their field
//! names are an interface: add to them, never rename. Times are RFC 3339; an account is the text that
//! [`crate::access::AccountPattern`] reads back. Bodies are never part of it; [`Ledger::body`] is the one way to them.
//!
//! * [`deliveries`]: which deliveries came, and what became of each;
//! * [`filter`]: which of them, for listings, exports and replays;
//! * [`outlook`]: what a replay of them would do;
//! * [`accounts`]: what is so and what should be so for each account;
//! * [`people`]: whose they are, and from where that is known;
//! * [`dossier`]: everything that is known of one account, and why its status is what it is;
//! * [`timeline`]: what happened to an account, or with a delivery, in order of time;
//! * [`evidence`]: every change of access in a period, for auditors;
//! * [`counts`]: how much work there is.

pub mod accounts;
pub mod counts;
pub mod deliveries;
pub mod dossier;
pub mod evidence;
pub mod filter;
pub mod outlook;
pub mod people;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
pub mod timeline;

use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use sqlx::Row;
use sqlx::any::AnyRow;

#[cfg(doc)]
use super::Ledger;
use super::work::status_of;
use super::{LedgerError, parsed};
use crate::access::{AccountKey, ScopeId};
use crate::delivery::Timestamp;
use crate::target::{ConnectionRef, LinkStatus};

/// An account, and the login by which people know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccountLabel {
    /// What names it for good.
    #[serde(rename = "account", serialize_with = "as_text")]
    pub key: AccountKey,
    /// Its latest login.
    pub login: Option<String>,
}

/// A scope, and the name by which people know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScopeLabel {
    /// What names it for good: `org:#42`.
    #[serde(serialize_with = "as_text")]
    pub id: ScopeId,
    /// Its latest name.
    pub name: Option<String>,
}

impl fmt::Display for ScopeLabel {
    /// `org:acme`, or `org:#42` where no name is known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{}:{name}", self.id.kind.as_str()),
            None => write!(f, "{}", self.id),
        }
    }
}

/// One call to the platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AttemptRow {
    /// When it was answered, or given up.
    pub at: Timestamp,
    /// The account that it was about.
    #[serde(flatten)]
    pub account: AccountLabel,
    /// The connection.
    #[serde(serialize_with = "as_text")]
    pub connection: ConnectionRef,
    /// What was called: `connect` or `look up`.
    pub operation: String,
    /// The status that it was to set; unknown for a look-up.
    #[serde(serialize_with = "status")]
    pub wanted: Option<LinkStatus>,
    /// The HTTP status, if there was an answer.
    pub http_status: Option<i64>,
    /// `done`, or the class of the failure.
    pub result: String,
    /// How long it took, in microseconds.
    pub duration_us: i64,
    /// What was said.
    pub message: Option<String>,
}

impl AttemptRow {
    fn of(row: &AnyRow) -> Result<Self, LedgerError> {
        Ok(Self {
            at: Timestamp(row.try_get("at")?),
            account: account_label(row)?,
            connection: parsed("connection", &row.try_get::<String, _>("connection")?)?,
            operation: row.try_get("operation")?,
            wanted: optional_status(row, "wanted")?,
            http_status: row.try_get("answer")?,
            result: row.try_get("result")?,
            duration_us: row.try_get("duration_us")?,
            message: row.try_get("message")?,
        })
    }
}

/// Reads the columns `provider`, `host`, `stable` and `login`.
pub(super) fn account_label(row: &AnyRow) -> Result<AccountLabel, LedgerError> {
    let key = AccountKey { provider: row.try_get("provider")?, host: row.try_get("host")?, id: row.try_get("stable")? };
    Ok(AccountLabel { key, login: row.try_get("login")? })
}

/// Reads the columns `scope_kind`, `scope_id` and `scope_name`, all null where there is no scope.
fn scope_label(row: &AnyRow) -> Result<Option<ScopeLabel>, LedgerError> {
    let Some(kind) = row.try_get::<Option<String>, _>("scope_kind")? else { return Ok(None) };
    let id = ScopeId { kind: parsed("scope", &kind)?, id: row.try_get("scope_id")? };
    Ok(Some(ScopeLabel { id, name: row.try_get("scope_name")? }))
}

fn optional_status(row: &AnyRow, column: &str) -> Result<Option<LinkStatus>, LedgerError> {
    row.try_get::<Option<String>, _>(column)?.map_or(Ok(None), |text| status_of(&text))
}

fn optional_time(row: &AnyRow, column: &str) -> Result<Option<Timestamp>, LedgerError> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(Timestamp))
}

/// Writes what has a text form as that text.
pub(crate) fn as_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Writes a status as `{"status": "linked" | "unlinked" | "unknown", "person": 518 | null}`.
#[expect(clippy::ref_option, reason = "serde hands over a reference to the field")]
pub(super) fn status<S: Serializer>(status: &Option<LinkStatus>, serializer: S) -> Result<S::Ok, S::Error> {
    let (word, person) = match status {
        None => ("unknown", None),
        Some(LinkStatus::Unlinked) => ("unlinked", None),
        Some(LinkStatus::Linked(person)) => ("linked", Some(person)),
    };
    let mut fields = serializer.serialize_struct("LinkStatus", 2)?;
    fields.serialize_field("status", word)?;
    fields.serialize_field("person", &person)?;
    fields.end()
}
