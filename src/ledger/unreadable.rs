//! Messages that aren't ours, or that can't be read: kept with their bytes for whoever looks. What bears a version of
//! rollcall's is kept with its properties, too, so that a replay can read it again.

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use uuid::Uuid;

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
    /// Whether it bears a version of rollcall's, so that `rollcall replay --unreadable` can read it again.
    pub ours: bool,
    /// The replay that published it again, if one has.
    pub replay: Option<String>,
}

/// A message to keep.
pub(super) struct Unreadable<'a> {
    pub(super) id: Option<&'a str>,
    pub(super) why: &'a str,
    pub(super) body: &'a Bytes,
    pub(super) properties: Option<&'a str>,
}

/// A message that can be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptMessage {
    /// Its number here.
    pub row: i64,
    /// What it had beside its bytes.
    pub properties: String,
    /// Its bytes, as they travelled.
    pub body: Bytes,
}

/// Keeps a message, or counts it once more.
pub(super) async fn keep(tx: &mut AnyConnection, message: Unreadable<'_>, now: Timestamp) -> Result<(), LedgerError> {
    let Unreadable { id, why, body, properties } = message;
    // PostgreSQL's texts can't hold a null character, and a stranger's message id may.
    let (id, why) = (id.map(storable), storable(why));
    sqlx::query(
        "INSERT INTO unreadable (at, seen_at, message, why, body, digest, properties) VALUES ($1, $1, $2, $3, $4, $5, $6) \
         ON CONFLICT (digest) DO UPDATE SET copies = unreadable.copies + 1, seen_at = excluded.seen_at, replay = NULL",
    )
    .bind(now.micros())
    .bind(&id)
    .bind(&why)
    .bind(&body[..])
    .bind(digest(id.as_deref(), &why, body))
    .bind(properties.map(storable))
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
            "SELECT id, at, COALESCE(seen_at, at), copies, message, why, LENGTH(body), \
             CAST(CASE WHEN properties IS NULL THEN 0 ELSE 1 END AS BIGINT), replay FROM unreadable \
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
                ours: row.try_get::<i64, _>(7)? != 0,
                replay: row.try_get(8)?,
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

    /// The next message behind `cursor` that can be read again and wasn't yet. One at a time, since they may be large.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn next_kept_message(&self, cursor: i64) -> Result<Option<KeptMessage>, LedgerError> {
        let found = sqlx::query(
            "SELECT id, properties, body FROM unreadable WHERE id > $1 AND properties IS NOT NULL AND replay IS NULL \
             ORDER BY id LIMIT 1",
        )
        .bind(cursor)
        .fetch_optional(&self.read)
        .await?;
        let kept = |row: AnyRow| {
            let body: Vec<u8> = row.try_get(2)?;
            Ok(KeptMessage { row: row.try_get(0)?, properties: row.try_get(1)?, body: body.into() })
        };
        found.map(kept).transpose()
    }

    /// Notes that a replay has published a message again.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn kept_message_replayed(&self, row: i64, replay: Uuid) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE unreadable SET replay = $2 WHERE id = $1")
            .bind(row)
            .bind(replay.to_string())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }
}
