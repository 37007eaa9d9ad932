//! Replays: runs that publish deliveries again. What each chose, how far it has come, and what has been recorded of it.
//!
//! What a run chose is written down when it begins: outcomes change while it goes on, and going on later must not mean
//! choosing anew. A run's cursor is the last row, or line of a file, up to which everything was published.

use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use uuid::Uuid;

use super::kept::kept_of;
use super::outcome::Outcome;
use super::show::filter::{DeliveryFilter, Sql};
use super::{Ledger, LedgerError, now, parsed};
use crate::delivery::{Delivery, Timestamp};

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplayRow {
    /// Its id.
    pub replay: Uuid,
    /// When it was started.
    pub started_at: Timestamp,
    /// By whom.
    pub started_by: String,
    /// What was chosen, for people.
    pub choice: String,
    /// How many deliveries it is to publish.
    pub total: i64,
    /// How many of them it has published.
    pub published: i64,
    /// How many couldn't be, for good.
    pub failed: i64,
    /// How many of them the ledger has recorded again.
    pub recorded: i64,
    /// When it last told how far it had come.
    pub seen_at: Timestamp,
    /// When it had published everything; null if it hasn't.
    pub finished_at: Option<Timestamp>,
    /// Everything up to here is done.
    #[serde(skip)]
    pub cursor: i64,
    /// How to go on with it, in the words of whoever began it.
    #[serde(skip)]
    pub job: String,
}

/// A run that begins.
#[derive(Clone, Copy, Debug)]
pub struct NewReplay<'a> {
    /// Its id.
    pub id: Uuid,
    /// Who starts it.
    pub started_by: &'a str,
    /// What is chosen, for people.
    pub choice: &'a str,
    /// How to go on with it.
    pub job: &'a str,
    /// What it publishes.
    pub what: Chosen<'a>,
}

/// What a run publishes.
#[derive(Clone, Copy, Debug)]
pub enum Chosen<'a> {
    /// Deliveries of the ledger, as far as their bodies are kept.
    Deliveries(&'a DeliveryFilter),
    /// So many lines of a file.
    Lines(i64),
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayProgress {
    /// Everything up to here is done.
    pub cursor: i64,
    /// How many deliveries were published.
    pub published: i64,
    /// How many couldn't be, for good.
    pub failed: i64,
}

/// How many of a run's deliveries went from one outcome to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Shift {
    /// The outcome when they were chosen; null if they weren't in the ledger then.
    pub before: Option<Outcome>,
    /// The outcome now.
    pub now: Outcome,
    /// How many.
    pub count: i64,
}

impl Ledger {
    /// Begins a run. Returns how many deliveries it is to publish.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn begin_replay(&self, new: NewReplay<'_>) -> Result<i64, LedgerError> {
        let mut tx = self.begin().await?;
        let now = now(&mut tx).await?;
        let total = match new.what {
            Chosen::Lines(lines) => lines,
            Chosen::Deliveries(filter) => {
                let mut sql = Sql::new("INSERT INTO replay_deliveries (replay, delivery, before) SELECT ");
                sql.bind(new.id.to_string());
                sql.push(", id, outcome FROM (");
                self.choose_kept(&mut sql, filter);
                sql.push(") AS chosen");
                i64::try_from(sql.query().execute(&mut *tx).await?.rows_affected()).unwrap_or(i64::MAX)
            }
        };
        sqlx::query(
            "INSERT INTO replays (id, started_at, started_by, choice, job, total, cursor, published, failed, seen_at) \
             VALUES ($1, $2, $3, $4, $5, $6, 0, 0, 0, $2)",
        )
        .bind(new.id.to_string())
        .bind(now.micros())
        .bind(new.started_by)
        .bind(new.choice)
        .bind(new.job)
        .bind(total)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(total)
    }

    /// The next deliveries of a run behind `cursor`, each with its row, in the order in which they were recorded first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn replay_page(&self, id: Uuid, cursor: i64, limit: i64) -> Result<Vec<(i64, Delivery)>, LedgerError> {
        let rows = sqlx::query(
            "SELECT deliveries.id, deliveries.source, deliveries.provider, deliveries.delivery, deliveries.event, \
             deliveries.secret, deliveries.received_at, deliveries.body FROM replay_deliveries \
             JOIN deliveries ON deliveries.id = replay_deliveries.delivery WHERE replay_deliveries.replay = $1 \
             AND replay_deliveries.delivery > $2 AND deliveries.body IS NOT NULL \
             ORDER BY replay_deliveries.delivery LIMIT $3",
        )
        .bind(id.to_string())
        .bind(cursor)
        .bind(limit)
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(|row| Ok((row.try_get("id")?, kept_of(row)?))).collect()
    }

    /// Notes how far a run has come, and whether that is all.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn note_replay(&self, id: Uuid, progress: ReplayProgress, finished: bool) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        let now = now(&mut tx).await?;
        sqlx::query(
            "UPDATE replays SET cursor = $2, published = $3, failed = $4, seen_at = $5, \
             finished_at = CASE WHEN $6 = 1 THEN $5 ELSE NULL END WHERE id = $1",
        )
        .bind(id.to_string())
        .bind(progress.cursor)
        .bind(progress.published)
        .bind(progress.failed)
        .bind(now.micros())
        .bind(i64::from(finished))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// The latest runs, the latest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn replays(&self, limit: i64) -> Result<Vec<ReplayRow>, LedgerError> {
        let rows = sqlx::query(
            "SELECT id, started_at, started_by, choice, job, total, cursor, published, failed, seen_at, finished_at, \
             (SELECT COUNT(*) FROM replay_deliveries WHERE replay = replays.id AND recorded_at IS NOT NULL) AS recorded \
             FROM replays ORDER BY started_at DESC, id DESC LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(replay_of).collect()
    }

    /// One run, if there is one with that id.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn replay(&self, id: Uuid) -> Result<Option<ReplayRow>, LedgerError> {
        let row = sqlx::query(
            "SELECT id, started_at, started_by, choice, job, total, cursor, published, failed, seen_at, finished_at, \
             (SELECT COUNT(*) FROM replay_deliveries WHERE replay = replays.id AND recorded_at IS NOT NULL) AS recorded \
             FROM replays WHERE id = $1",
        )
        .bind(id.to_string())
        .fetch_optional(&self.read)
        .await?;
        row.as_ref().map(replay_of).transpose()
    }

    /// From which outcome to which the deliveries of a run went that have been recorded again.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn replay_shifts(&self, id: Uuid) -> Result<Vec<Shift>, LedgerError> {
        let rows = sqlx::query(
            "SELECT replay_deliveries.before, deliveries.outcome, COUNT(*) FROM replay_deliveries \
             JOIN deliveries ON deliveries.id = replay_deliveries.delivery \
             WHERE replay_deliveries.replay = $1 AND replay_deliveries.recorded_at IS NOT NULL \
             GROUP BY replay_deliveries.before, deliveries.outcome ORDER BY 1, 2",
        )
        .bind(id.to_string())
        .fetch_all(&self.read)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Shift {
                    before: match row.try_get::<Option<String>, _>(0)? {
                        Some(before) => Some(parsed("outcome", &before)?),
                        None => None,
                    },
                    now: parsed("outcome", &row.try_get::<String, _>(1)?)?,
                    count: row.try_get(2)?,
                })
            })
            .collect()
    }
}

fn replay_of(row: &AnyRow) -> Result<ReplayRow, LedgerError> {
    Ok(ReplayRow {
        replay: parsed("replay", &row.try_get::<String, _>("id")?)?,
        started_at: Timestamp(row.try_get("started_at")?),
        started_by: row.try_get("started_by")?,
        choice: row.try_get("choice")?,
        total: row.try_get("total")?,
        published: row.try_get("published")?,
        failed: row.try_get("failed")?,
        recorded: row.try_get("recorded")?,
        seen_at: Timestamp(row.try_get("seen_at")?),
        finished_at: row.try_get::<Option<i64>, _>("finished_at")?.map(Timestamp),
        cursor: row.try_get("cursor")?,
        job: row.try_get("job")?,
    })
}

/// A delivery of a run was recorded again.
pub(super) async fn recorded(
    tx: &mut AnyConnection,
    replay: Uuid,
    delivery: i64,
    now: Timestamp,
) -> Result<(), LedgerError> {
    sqlx::query(
        "INSERT INTO replay_deliveries (replay, delivery, recorded_at) VALUES ($1, $2, $3) \
         ON CONFLICT (replay, delivery) DO UPDATE SET recorded_at = excluded.recorded_at \
         WHERE replay_deliveries.recorded_at IS NULL",
    )
    .bind(replay.to_string())
    .bind(delivery)
    .bind(now.micros())
    .execute(tx)
    .await?;
    Ok(())
}
