//! What is sealed: which tables, and which of their columns never change again.
//!
//! Everything else is worked on, or can be worked out anew: what became of a delivery is the last line of its `outcomes`,
//! how often it came is a count, a status is what the changes imply, and a login or a scope's name is a label that
//! follows the latest event.

use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::Hash;
use crate::ledger::LedgerError;

/// What stands in a label's place once it has been erased, before its hash; `deploy/docs/evidence.md` says how.
pub(super) const ERASED: &str = "erased:";

/// How a column enters the digest of its row.
#[derive(Clone, Copy, Debug)]
enum Column {
    /// As the number that it is.
    Number,
    /// As the text that it is.
    Text,
    /// Bytes, as hexadecimal digits.
    Bytes,
    /// A text that may name somebody: as the SHA-256 of the row's salt and the text.
    Label,
}
use Column::{Bytes, Label, Number, Text};

/// One table of the history.
#[derive(Debug)]
pub struct Facts {
    /// The table.
    pub table: &'static str,
    /// Its sealed columns from `$1` to `$2`, at most `$3`, ordered by id, which comes first. The last column is 1 unless
    /// the row contradicts other sealed rows.
    select: &'static str,
    columns: &'static [Column],
}

/// All of them. Their order is that within a seal: what others refer to comes first.
pub static FACTS: [Facts; 7] = [
    Facts {
        table: "accounts",
        select: "SELECT id, provider, host, stable, 1 FROM accounts WHERE id BETWEEN $1 AND $2 ORDER BY id LIMIT $3",
        columns: &[Number, Text, Text, Label],
    },
    Facts {
        table: "deliveries",
        select: "SELECT id, source, provider, delivery, digest, event, encoding, secret, \
            COALESCE(first_received_at, received_at), recorded_at, repeated, conflicting, \
            CASE WHEN first_received_at IS NULL OR received_at = (SELECT receipts.received_at FROM receipts \
            WHERE receipts.delivery = deliveries.id ORDER BY receipts.id DESC LIMIT 1) THEN 1 ELSE 0 END \
            FROM deliveries WHERE id BETWEEN $1 AND $2 ORDER BY id LIMIT $3",
        columns: &[Number, Text, Text, Text, Bytes, Text, Text, Text, Number, Number, Number, Number],
    },
    Facts {
        table: "changes",
        select: "SELECT changes.id, changes.row, changes.ordinal, changes.account, scopes.kind, scopes.stable, \
            changes.kind, COALESCE(changes.first_event_time, changes.event_time), \
            COALESCE(changes.first_began, changes.began), COALESCE(changes.first_step, changes.step), changes.loss, \
            CASE WHEN first_event_time IS NULL OR EXISTS (SELECT 1 FROM receipts WHERE receipts.id = \
            (SELECT MAX(id) FROM receipts AS latest WHERE latest.delivery = changes.row) \
            AND receipts.event_time = changes.event_time AND receipts.began = changes.began \
            AND receipts.step = changes.step) THEN 1 ELSE 0 END \
            FROM changes LEFT JOIN scopes ON scopes.id = changes.scope \
            WHERE changes.id BETWEEN $1 AND $2 ORDER BY changes.id LIMIT $3",
        columns: &[Number, Number, Number, Number, Text, Text, Text, Number, Number, Number, Number],
    },
    Facts {
        table: "receipts",
        select: "SELECT id, delivery, at, received_at, event_time, began, step, 1 FROM receipts \
            WHERE id BETWEEN $1 AND $2 ORDER BY id LIMIT $3",
        columns: &[Number, Number, Number, Number, Number, Number, Number],
    },
    Facts {
        table: "outcomes",
        select: "SELECT id, delivery, at, outcome, reason, 1 FROM outcomes WHERE id BETWEEN $1 AND $2 ORDER BY id LIMIT $3",
        columns: &[Number, Number, Number, Text, Label],
    },
    Facts {
        table: "attempts",
        select: "SELECT attempts.id, statuses.account, statuses.connection, attempts.at, attempts.operation, \
            attempts.wanted, attempts.answer, attempts.result, attempts.duration_us, attempts.message, 1 \
            FROM attempts JOIN statuses ON statuses.id = attempts.status \
            WHERE attempts.id BETWEEN $1 AND $2 ORDER BY attempts.id LIMIT $3",
        columns: &[Number, Number, Text, Number, Text, Text, Number, Text, Number, Label],
    },
    Facts {
        table: "actions",
        select: "SELECT id, at, operator, action, account, delivery, detail, 1 FROM actions \
            WHERE id BETWEEN $1 AND $2 ORDER BY id LIMIT $3",
        columns: &[Number, Number, Label, Text, Number, Number, Label],
    },
];

/// The table with that name.
pub(super) fn facts(table: &str) -> Option<&'static Facts> {
    FACTS.iter().find(|facts| facts.table == table)
}

/// One row's sealed columns.
#[derive(Debug)]
pub(super) struct Fact {
    pub(super) id: i64,
    fields: Vec<(Column, Value)>,
    /// Whether it agrees with the sealed rows that it depends on.
    pub(super) agrees: bool,
}

impl Facts {
    /// The rows of these ids, at most `limit`.
    pub(super) async fn read(
        &self,
        connection: &mut sqlx::AnyConnection,
        (first, last): (i64, i64),
        limit: i64,
    ) -> Result<Vec<Fact>, LedgerError> {
        let rows = sqlx::query(self.select).bind(first).bind(last).bind(limit).fetch_all(connection).await?;
        rows.iter().map(|row| self.fact(row)).collect()
    }

    fn fact(&self, row: &AnyRow) -> Result<Fact, LedgerError> {
        let fields = self.columns.iter().enumerate().map(|(place, column)| {
            let value = match column {
                Number => row.try_get::<Option<i64>, _>(place)?.into(),
                Text | Label => row.try_get::<Option<String>, _>(place)?.into(),
                Bytes => row.try_get::<Option<Vec<u8>>, _>(place)?.map(|bytes| hex(&bytes)).into(),
            };
            Ok((*column, value))
        });
        Ok(Fact {
            id: row.try_get(0)?,
            fields: fields.collect::<Result<_, LedgerError>>()?,
            agrees: row.try_get::<i64, _>(self.columns.len())? == 1,
        })
    }
}

impl Fact {
    /// Whether it has a label that needs a salt.
    pub(super) fn needs_salt(&self) -> bool {
        self.fields.iter().any(|(column, value)| is_label(*column, value) && erased(value).is_none())
    }

    /// Whether a label of it was erased.
    pub(super) fn is_erased(&self) -> bool {
        self.fields.iter().any(|(column, value)| is_label(*column, value) && erased(value).is_some())
    }

    /// The digest of the row: the SHA-256 of a JSON array of the table's name and its columns. None if a label can't be
    /// hashed, because its salt is gone.
    pub(super) fn digest(&self, table: &str, salt: &str) -> Option<Hash> {
        let mut array = vec![Value::from(table)];
        for (column, value) in &self.fields {
            array.push(match (is_label(*column, value), erased(value)) {
                (false, _) => value.clone(),
                (true, Some(hash)) => hash.into(),
                (true, None) if salt.is_empty() => return None,
                (true, None) => commitment(salt, value.as_str().unwrap_or_default()).into(),
            });
        }
        Some(Hash(Sha256::digest(Value::from(array).to_string()).into()))
    }
}

fn is_label(column: Column, value: &Value) -> bool {
    matches!(column, Label) && value.is_string()
}

/// The hash that an erased label has left.
fn erased(value: &Value) -> Option<&str> {
    let hash = value.as_str()?.strip_prefix(ERASED)?;
    hash.parse::<Hash>().is_ok().then_some(hash)
}

/// What of a label is in the chain.
pub(super) fn commitment(salt: &str, label: &str) -> String {
    Hash(Sha256::new().chain_update(salt).chain_update(label).finalize().into()).to_string()
}

/// A salt that nobody can guess.
pub(super) fn new_salt() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
