//! Messages that aren't ours, or that can't be read: kept with their bytes for whoever looks, and never tried again.

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::{AnyConnection, Row};

use super::{Ledger, LedgerError};
use crate::delivery::Timestamp;

/// A message that can't be read. Its field names are the JSON that `--json` gives out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnreadableRow {
    /// Its number here.
    pub row: i64,
    /// When it first came.
    pub first_seen: Timestamp,
    /// When it last came.
    pub last_seen: Timestamp,
    /// How often it came, with this id and these bytes.
    pub copies: i64,
    /// The message id that its publisher gave it.
    pub message: Option<String>,
    /// Why it can't be read.
    pub why: String,
    /// How many bytes it has.
    pub bytes: i64,
}

/// Keeps a message, or counts it once more.
pub(super) async fn keep(
    tx: &mut AnyConnection,
    id: Option<&str>,
    why: &str,
    body: &Bytes,
    now: Timestamp,
) -> Result<(), LedgerError> {
    // PostgreSQL's texts can't hold a null character, and a stranger's message id may.
    let (id, why) = (id.map(storable), storable(why));
    sqlx::query(
        "INSERT INTO unreadable (at, seen_at, message, why, body, digest) VALUES ($1, $1, $2, $3, $4, $5) \
         ON CONFLICT (digest) DO UPDATE SET copies = unreadable.copies + 1, seen_at = excluded.seen_at",
    )
    .bind(now.micros())
    .bind(&id)
    .bind(&why)
    .bind(body.to_vec())
    .bind(digest(id.as_deref(), &why, body))
    .execute(tx)
    .await?;
    Ok(())
}

fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn digest(id: Option<&str>, why: &str, body: &[u8]) -> Vec<u8> {
    let mut digest = Sha256::new();
    for part in [id.unwrap_or_default().as_bytes(), why.as_bytes(), body] {
        digest.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().to_vec()
}

impl Ledger {
    /// The messages that can't be read, the last that came first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn unreadable(&self, limit: i64) -> Result<Vec<UnreadableRow>, LedgerError> {
        sqlx::query(
            "SELECT id, at, COALESCE(seen_at, at), copies, message, why, LENGTH(body) FROM unreadable \
             ORDER BY COALESCE(seen_at, at) DESC, id DESC LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&self.read)
        .await?
        .iter()
        .map(|row| {
            Ok(UnreadableRow {
                row: row.try_get(0)?,
                first_seen: Timestamp(row.try_get(1)?),
                last_seen: Timestamp(row.try_get(2)?),
                copies: row.try_get(3)?,
                message: row.try_get(4)?,
                why: row.try_get(5)?,
                bytes: row.try_get(6)?,
            })
        })
        .collect()
    }

    /// The exact bytes of a message that can't be read.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn unreadable_body(&self, row: i64) -> Result<Option<Vec<u8>>, LedgerError> {
        let found =
            sqlx::query("SELECT body FROM unreadable WHERE id = $1").bind(row).fetch_optional(&self.read).await?;
        Ok(found.map(|row| row.try_get(0)).transpose()?)
    }
}
