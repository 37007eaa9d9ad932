//! The SQL of the embedded queue, and nothing else.
//!
//! One table of messages, whose ids ascend in the order of publishing and are never used again, and one number: up to
//! which id messages may have been handed out. It must not know who reads and writes, or when.

use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row as _};

use crate::broker::encoded::EncodedPayload;
use crate::broker::envelope::Envelope;
use crate::broker::{Item, Payload};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS message (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    kind         TEXT NOT NULL,
    delivery_id  TEXT,
    content_type TEXT,
    source       TEXT,
    provider     TEXT,
    event        TEXT,
    received_at  INTEGER,
    secret       TEXT,
    run          TEXT,
    sequence     INTEGER,
    replay       TEXT,
    version      INTEGER,
    body         BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS handed_out (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    up_to    INTEGER NOT NULL
);
INSERT OR IGNORE INTO handed_out (only_row, up_to) VALUES (1, 0);
CREATE TABLE IF NOT EXISTS aside (
    id           INTEGER PRIMARY KEY,
    kind         TEXT,
    delivery_id  TEXT,
    content_type TEXT,
    source       TEXT,
    provider     TEXT,
    event        TEXT,
    received_at  INTEGER,
    secret       TEXT,
    run          TEXT,
    sequence     INTEGER,
    replay       TEXT,
    version      INTEGER,
    body         BLOB,
    why          TEXT NOT NULL
);
";

/// What is stored of a message, for those who only count. A value that can't be read is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Row {
    pub(in crate::broker) kind: String,
    pub(in crate::broker) source: Option<String>,
    pub(in crate::broker) run: Option<String>,
    pub(in crate::broker) sequence: Option<i64>,
    pub(in crate::broker) received_at: Option<i64>,
    /// The body's length in bytes.
    pub(in crate::broker) length: i64,
}

/// Opens the file. Every commit is on disk when it returns.
pub(super) async fn connect(file: &Path, busy_timeout: Duration) -> sqlx::Result<SqliteConnection> {
    SqliteConnectOptions::new()
        .filename(file)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(busy_timeout)
        .disable_statement_logging()
        // Rows are read ahead of whoever takes them, and a row may be a large body.
        .row_buffer_size(4)
        .connect()
        .await
}

/// Up to which id messages may have been handed out.
#[derive(Clone, Copy, Debug)]
pub(super) struct HandedOut {
    /// What the file says.
    pub(super) written: i64,
    /// The same, as far as messages exist: it was written ahead, and what didn't exist can't have been handed out.
    pub(super) existing: i64,
}

/// Creates the tables, and reads what was handed out. It writes nothing that a process which consumes relies on: one that
/// only publishes comes by here, too.
pub(super) async fn prepare(connection: &mut SqliteConnection) -> sqlx::Result<HandedOut> {
    sqlx::raw_sql(SCHEMA).execute(&mut *connection).await?;
    let (written, last): (i64, i64) = sqlx::query_as(
        "SELECT up_to, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'message'), 0) FROM handed_out",
    )
    .fetch_one(connection)
    .await?;
    Ok(HandedOut { written, existing: written.min(last) })
}

/// Adds a message at the end.
pub(super) async fn insert(connection: &mut SqliteConnection, item: &Item) -> sqlx::Result<()> {
    let (envelope, body) = match item {
        Item::Delivery(delivery) => (Envelope::of_delivery(delivery), delivery.body.clone()),
        Item::Checkpoint(checkpoint) => (Envelope::of_checkpoint(checkpoint), Envelope::settled(checkpoint)),
    };
    sqlx::query(
        "INSERT INTO message (kind, delivery_id, content_type, source, provider, event, received_at, secret, run, \
         sequence, replay, version, body) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(envelope.kind.as_ref())
    .bind(envelope.id.as_deref())
    .bind(envelope.content_type.as_deref())
    .bind(envelope.source.as_deref())
    .bind(envelope.provider.as_deref())
    .bind(envelope.event.as_deref())
    .bind(envelope.received_at)
    .bind(envelope.secret.as_deref())
    .bind(envelope.run.as_deref())
    .bind(envelope.sequence)
    .bind(envelope.replay.as_deref())
    .bind(envelope.version)
    .bind(body.as_ref())
    .execute(connection)
    .await
    .map(drop)
}

/// Removes the messages from `first` to `last`, both included.
pub(super) async fn delete(connection: &mut SqliteConnection, (first, last): (i64, i64)) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM message WHERE id BETWEEN $1 AND $2")
        .bind(first)
        .bind(last)
        .execute(connection)
        .await
        .map(drop)
}

/// Notes that messages up to this id may have been handed out. Writes to the file even if that is known already.
pub(super) async fn note_handed_out(connection: &mut SqliteConnection, up_to: i64) -> sqlx::Result<()> {
    sqlx::query("UPDATE handed_out SET up_to = max(up_to, $1)").bind(up_to).execute(connection).await.map(drop)
}

/// Up to `limit` messages after `cursor`, in order; the first, and then as many as have at most `room` bytes together. What
/// isn't returned isn't read either.
pub(super) async fn read(
    connection: &mut SqliteConnection,
    cursor: i64,
    limit: i64,
    room: usize,
) -> sqlx::Result<Vec<(i64, EncodedPayload)>> {
    let lengths: Vec<(i64, i64)> =
        sqlx::query_as("SELECT id, length(body) FROM message WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(cursor)
            .bind(limit)
            .fetch_all(&mut *connection)
            .await?;
    let mut bytes = 0_usize;
    let fits = |(_, length): &&(i64, i64)| {
        let first = bytes == 0;
        bytes = bytes.saturating_add(usize::try_from(*length).unwrap_or(usize::MAX).max(1));
        first || bytes <= room
    };
    let Some((last, _)) = lengths.iter().take_while(fits).last() else { return Ok(Vec::new()) };
    let mut rows = sqlx::query("SELECT * FROM message WHERE id > $1 AND id <= $2 ORDER BY id")
        .bind(cursor)
        .bind(last)
        .fetch(connection);
    let mut messages = Vec::new();
    while let Some(row) = rows.try_next().await? {
        let body: Vec<u8> = row.try_get("body").unwrap_or_default();
        // A row whose values are of other types than we write must not keep those behind it from being read.
        let payload = match envelope(&row) {
            Ok(envelope) => envelope.with_body(body.into()),
            Err(error) => EncodedPayload::from(Payload::Unreadable {
                id: None,
                why: format!("its row can't be read: {error}"),
                body: body.into(),
                properties: None,
            }),
        };
        messages.push((row.try_get("id")?, payload));
    }
    Ok(messages)
}

/// Tells of every message, in order, without reading the bodies.
pub(super) async fn each(connection: &mut SqliteConnection, mut tell: impl FnMut(Row)) -> sqlx::Result<()> {
    let mut rows =
        sqlx::query("SELECT kind, source, run, sequence, received_at, length(body) AS length FROM message ORDER BY id")
            .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        tell(Row {
            kind: row.try_get("kind").unwrap_or_default(),
            source: row.try_get("source").unwrap_or_default(),
            run: row.try_get("run").unwrap_or_default(),
            sequence: row.try_get("sequence").unwrap_or_default(),
            received_at: row.try_get("received_at").unwrap_or_default(),
            length: row.try_get("length").unwrap_or_default(),
        });
    }
    Ok(())
}

/// Takes a message out of the queue and keeps it, with the reason.
pub(super) async fn set_aside(connection: &mut SqliteConnection, id: i64, why: &str) -> sqlx::Result<()> {
    sqlx::query("INSERT OR REPLACE INTO aside SELECT *, $2 FROM message WHERE id = $1")
        .bind(id)
        .bind(why)
        .execute(&mut *connection)
        .await?;
    delete(connection, (id, id)).await
}

/// Does something in a transaction, and gives the connection back when it is committed. One that has failed in any way is
/// dropped, and so closed: after a full disk SQLite may have taken the transaction back by itself, which nobody else has
/// learned of, and after a failed write or fsync nobody knows what the connection's cache is worth.
#[expect(clippy::disallowed_methods, reason = "this is where the embedded broker's transactions begin")]
pub(super) async fn transaction<T>(
    mut connection: SqliteConnection,
    work: impl AsyncFnOnce(&mut SqliteConnection) -> sqlx::Result<T>,
) -> sqlx::Result<(SqliteConnection, T)> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let done = work(&mut transaction).await?;
    transaction.commit().await?;
    Ok((connection, done))
}

/// Puts what was set aside back into its places, so that it is tried once more. Returns how many messages that were. In a
/// transaction.
pub(super) async fn put_back(connection: &mut SqliteConnection) -> sqlx::Result<u64> {
    let back = sqlx::query(
        "INSERT OR IGNORE INTO message SELECT id, coalesce(kind, ''), delivery_id, content_type, source, provider, \
         event, received_at, secret, run, sequence, replay, version, coalesce(body, x'') FROM aside",
    )
    .execute(&mut *connection)
    .await?
    .rows_affected();
    sqlx::query("DELETE FROM aside").execute(&mut *connection).await?;
    Ok(back)
}

fn envelope(row: &SqliteRow) -> sqlx::Result<Envelope<'_>> {
    let text = |column| Ok::<_, sqlx::Error>(row.try_get::<Option<&str>, _>(column)?.map(Into::into));
    Ok(Envelope {
        kind: row.try_get::<&str, _>("kind")?.into(),
        id: text("delivery_id")?,
        content_type: text("content_type")?,
        content_encoding: None,
        source: text("source")?,
        provider: text("provider")?,
        event: text("event")?,
        received_at: row.try_get("received_at")?,
        secret: text("secret")?,
        run: text("run")?,
        sequence: row.try_get("sequence")?,
        replay: text("replay")?,
        version: row.try_get("version")?,
    })
}

/// A number that differs from before if another connection has written since.
pub(super) async fn data_version(connection: &mut SqliteConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("PRAGMA data_version").fetch_one(connection).await
}
