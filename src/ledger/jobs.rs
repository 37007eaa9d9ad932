//! What is done on a schedule: each job by one worker at a time, whichever comes first, under a lease by the database's
//! clock. A worker that dies in the middle leaves the job to the next one as soon as its lease has run out.

use std::time::Duration;

use serde::Serialize;
use sqlx::Row;
use uuid::Uuid;

use super::{Ledger, LedgerError, now};
use crate::delivery::Timestamp;

/// The right to do a job now.
#[derive(Debug)]
pub struct JobLease {
    name: String,
    owner: String,
}

/// Whose turn it is.
#[derive(Debug)]
pub enum JobTurn {
    /// The asker's.
    Mine(JobLease),
    /// Nobody's before so long from now, or somebody else's until then at least.
    Later(Duration),
}

/// How a job stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JobRow {
    /// Its name.
    pub name: String,
    /// When it is due.
    pub due_at: Timestamp,
    /// Whether somebody is at it.
    pub running: bool,
    /// When it was begun last.
    pub began_at: Option<Timestamp>,
    /// When it was ended last.
    pub ended_at: Option<Timestamp>,
    /// What it came to then, for people.
    pub result: Option<String>,
}

impl Ledger {
    /// Asks for a job. One that was never done is due at once.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn take_job(&self, name: &str, owner: Uuid, lease: Duration) -> Result<JobTurn, LedgerError> {
        let mut tx = self.begin().await?;
        let now = now(&mut tx).await?;
        sqlx::query("INSERT INTO jobs (name, due_at) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
            .bind(name)
            .bind(now.micros())
            .execute(&mut *tx)
            .await?;
        let taken = sqlx::query(
            "UPDATE jobs SET owner = $2, until = $3, began_at = $4 \
             WHERE name = $1 AND due_at <= $4 AND (owner IS NULL OR until <= $4)",
        )
        .bind(name)
        .bind(owner.to_string())
        .bind(now.plus(lease).micros())
        .bind(now.micros())
        .execute(&mut *tx)
        .await?
        .rows_affected();
        let free_at: i64 = sqlx::query(
            "SELECT CASE WHEN owner IS NOT NULL AND until > due_at THEN until ELSE due_at END FROM jobs WHERE name = $1",
        )
        .bind(name)
        .fetch_one(&mut *tx)
        .await?
        .try_get(0)?;
        tx.commit().await?;
        Ok(if taken > 0 {
            JobTurn::Mine(JobLease { name: name.to_owned(), owner: owner.to_string() })
        } else {
            JobTurn::Later(Duration::from_micros(u64::try_from(free_at - now.micros()).unwrap_or(0)))
        })
    }

    /// Keeps a job for longer. Returns whether it is still the asker's: if not, it must stop.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn keep_job(&self, job: &JobLease, lease: Duration) -> Result<bool, LedgerError> {
        let mut tx = self.begin().await?;
        let until = now(&mut tx).await?.plus(lease);
        let kept = sqlx::query("UPDATE jobs SET until = $3 WHERE name = $1 AND owner = $2")
            .bind(&job.name)
            .bind(&job.owner)
            .bind(until.micros())
            .execute(&mut *tx)
            .await?
            .rows_affected();
        tx.commit().await?;
        Ok(kept > 0)
    }

    /// Ends a job, to be done again after that long; what it came to is for people. Nothing happens if it was somebody
    /// else's by now.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn end_job(&self, job: JobLease, again: Duration, result: &str) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        let now = now(&mut tx).await?;
        sqlx::query(
            "UPDATE jobs SET owner = NULL, until = NULL, due_at = $3, ended_at = $4, result = $5 \
             WHERE name = $1 AND owner = $2",
        )
        .bind(&job.name)
        .bind(&job.owner)
        .bind(now.plus(again).micros())
        .bind(now.micros())
        .bind(result)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Gives a job back that was broken off, if it is still the asker's: whoever comes next may do it at once.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn give_back_job(&self, name: &str, owner: Uuid) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE jobs SET owner = NULL, until = NULL WHERE name = $1 AND owner = $2")
            .bind(name)
            .bind(owner.to_string())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    /// All jobs, by name.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn jobs(&self) -> Result<Vec<JobRow>, LedgerError> {
        let rows = sqlx::query(
            "SELECT name, due_at, until, began_at, ended_at, result, (SELECT now_us FROM clock) AS now_us FROM jobs \
             ORDER BY name",
        )
        .fetch_all(&self.read)
        .await?;
        let time = |micros: Option<i64>| micros.map(Timestamp);
        let read = |row: &sqlx::any::AnyRow| {
            Ok(JobRow {
                name: row.try_get("name")?,
                due_at: Timestamp(row.try_get("due_at")?),
                running: row.try_get::<Option<i64>, _>("until")? > Some(row.try_get("now_us")?),
                began_at: time(row.try_get("began_at")?),
                ended_at: time(row.try_get("ended_at")?),
                result: row.try_get("result")?,
            })
        };
        rows.iter().map(read).collect()
    }
}
