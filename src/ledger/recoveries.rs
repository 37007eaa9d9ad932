//! What providers failed to deliver: each look at what a hook's provider says of its deliveries, what of that matters and
//! hasn't arrived, and what became of it.
//!
//! A look reads the provider's list page by page, the latest first, and each page is one transaction with the place where
//! to go on, so that an interrupted look does. That a delivery is asked for is noted before the provider is asked: whoever
//! goes on after a crash finds it asked for, and waits for it before asking again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use uuid::Uuid;

use super::show::filter::Sql;
use super::{Ledger, LedgerError, now, parsed};
use crate::delivery::{SourceName, Timestamp};

/// What became of a delivery that failed at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is to be asked for, or was asked for and hasn't arrived.
    Open,
    /// It is in the ledger.
    Arrived,
    /// It can't be had any more.
    Lost,
    /// The provider says that it delivered it later. Kept only while a look goes on.
    Delivered,
}

impl Fate {
    const ALL: [Self; 4] = [Self::Open, Self::Arrived, Self::Lost, Self::Delivered];

    /// The word used everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Arrived => "arrived",
            Self::Lost => "lost",
            Self::Delivered => "delivered",
        }
    }
}

impl std::str::FromStr for Fate {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|fate| fate.as_str() == text).ok_or(())
    }
}

/// One hook of a source, by its path in the provider's API.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct HookKey {
    /// The source.
    pub source: SourceName,
    /// The hook.
    pub hook: String,
}

/// A period, from the first moment to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Period {
    /// Its begin.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
}

/// A look that begins.
#[derive(Clone, Debug)]
pub struct NewLook<'a> {
    /// What is looked at.
    pub hook: &'a HookKey,
    /// Who begins it.
    pub started_by: &'a str,
    /// The period that it is to cover.
    pub period: Period,
    /// The end of what was looked at before, if the provider no longer tells of what came right after it.
    pub lapsed_from: Option<Timestamp>,
}

/// A look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Look {
    /// Its id.
    pub look: Uuid,
    /// What it looks at.
    #[serde(flatten)]
    pub hook: HookKey,
    /// The period that it covers.
    #[serde(flatten)]
    pub period: Period,
    /// When it was begun.
    pub started_at: Timestamp,
    /// By whom.
    pub started_by: String,
    /// The end of what was looked at before, if the provider no longer told of what came right after it.
    pub lapsed_from: Option<Timestamp>,
    /// How many attempts were read.
    pub attempts: i64,
    /// Why the provider's list may not be the whole truth.
    pub doubt: Option<String>,
    /// When all of it had been read; null if it hasn't.
    pub listed_at: Option<Timestamp>,
    /// Where in the provider's list it goes on.
    #[serde(skip)]
    pub cursor: Option<String>,
    /// How many of the last attempts that were read failed in a row.
    #[serde(skip)]
    pub failing: i64,
}

/// An attempt to deliver something that matters, as the provider's list has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenAttempt {
    /// The delivery.
    pub delivery: String,
    /// The provider's id of the attempt.
    pub attempt: String,
    /// The event.
    pub event: String,
    /// When, if the provider tells.
    pub at: Option<Timestamp>,
    /// Whether it was delivered.
    pub delivered: bool,
    /// How it went, in the provider's words.
    pub status: String,
    /// Why it can't be delivered again, if so.
    pub lost: Option<&'static str>,
}

/// A page of a look, and how far the look has come with it.
#[derive(Clone, Debug, Default)]
pub struct LookPage {
    /// What matters of it.
    pub attempts: Vec<SeenAttempt>,
    /// How many attempts it had in all.
    pub read: i64,
    /// How many of the last that were read failed in a row.
    pub failing: i64,
    /// Why the provider's list may not be the whole truth.
    pub doubt: Option<String>,
    /// Where to go on; none if the whole period has been read.
    pub cursor: Option<String>,
}

/// A delivery that failed at first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Undelivered {
    /// The hook.
    #[serde(flatten)]
    pub hook: HookKey,
    /// The delivery's id.
    pub delivery: String,
    /// The event.
    pub event: String,
    /// When it failed first, if the provider tells.
    pub failed_at: Option<Timestamp>,
    /// How the latest attempt went, in the provider's words.
    pub status: String,
    /// When it was noticed.
    pub noticed_at: Timestamp,
    /// What became of it.
    pub state: Fate,
    /// How often the provider was asked to deliver it again.
    pub asks: i64,
    /// When it was asked last.
    pub asked_at: Option<Timestamp>,
    /// Whether it is expected to come, since the provider was asked and didn't refuse.
    pub expected: bool,
    /// Since when that is settled.
    pub settled_at: Option<Timestamp>,
    /// Why it is as it is.
    pub reason: Option<String>,
    /// The provider's id of the latest attempt.
    #[serde(skip)]
    pub attempt: String,
    /// When that was.
    #[serde(skip)]
    pub attempt_at: Timestamp,
}

impl Undelivered {
    /// When it failed, or was noticed at the latest.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.failed_at.unwrap_or(self.noticed_at)
    }
}

/// How many deliveries of a source were asked for again, arrived by that, and are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RecoveryCounts {
    /// How often a provider was asked.
    pub requested: i64,
    /// How many arrived after that.
    pub recovered: i64,
    /// How many haven't arrived.
    pub missing: i64,
}

/// Something of a source that can't be recovered any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Irrecoverable {
    /// When it was noticed.
    pub since: Timestamp,
    /// What it is, for people.
    pub what: String,
}

const LOOK: &str = "SELECT id, source, hook, started_at, started_by, begin_at, end_at, lapsed_from, cursor, attempts, \
    failing, doubt, listed_at FROM recoveries";

const UNDELIVERED: &str = "SELECT source, delivery, hook, event, failed_at, attempt, attempt_at, status, noticed_at, \
    state, asks, asked_at, expected, settled_at, reason FROM undelivered";

impl Ledger {
    /// Begins a look.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn begin_look(&self, new: NewLook<'_>) -> Result<Look, LedgerError> {
        let mut tx = self.begin().await?;
        let look = Look {
            look: Uuid::now_v7(),
            hook: new.hook.clone(),
            period: new.period,
            started_at: now(&mut tx).await?,
            started_by: new.started_by.to_owned(),
            lapsed_from: new.lapsed_from,
            attempts: 0,
            doubt: None,
            listed_at: None,
            cursor: None,
            failing: 0,
        };
        sqlx::query(
            "INSERT INTO recoveries (id, source, hook, started_at, started_by, begin_at, end_at, lapsed_from, attempts, \
             failing) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, 0)",
        )
        .bind(look.look.to_string())
        .bind(look.hook.source.as_str())
        .bind(&look.hook.hook)
        .bind(look.started_at.micros())
        .bind(&look.started_by)
        .bind(look.period.from.micros())
        .bind(look.period.to.micros())
        .bind(look.lapsed_from.map(Timestamp::micros))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(look)
    }

    /// The latest look at a hook that was interrupted, if no later one was finished.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn interrupted_look(&self, hook: &HookKey) -> Result<Option<Look>, LedgerError> {
        let mut sql = Sql::new(LOOK);
        sql.push(" WHERE source = ");
        sql.bind(hook.source.as_str());
        sql.push(" AND hook = ");
        sql.bind(hook.hook.as_str());
        sql.push(" ORDER BY started_at DESC, id DESC LIMIT 1");
        let row = sql.query().fetch_optional(&self.read).await?;
        let look = row.as_ref().map(look_of).transpose()?;
        Ok(look.filter(|look| look.listed_at.is_none()))
    }

    /// All looks at a source's hooks that have read their whole period, by hook and begin.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn looks(&self, source: &SourceName) -> Result<Vec<Look>, LedgerError> {
        let mut sql = Sql::new(LOOK);
        sql.push(" WHERE listed_at IS NOT NULL AND source = ");
        sql.bind(source.as_str());
        sql.push(" ORDER BY hook, begin_at, end_at");
        let rows = sql.query().fetch_all(&self.read).await?;
        rows.iter().map(look_of).collect()
    }

    /// Takes note of a page of a look, and of when its period begins: later than it was to, if the provider meanwhile tells
    /// less. What the ledger has, or the provider delivered later, isn't noted as undelivered.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn note_page(&self, look: &Look, page: &LookPage) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        let now = now(&mut tx).await?;
        for attempt in &page.attempts {
            note_attempt(&mut tx, &look.hook, attempt, now).await?;
        }
        let listed = page.cursor.is_none();
        sqlx::query(
            "UPDATE recoveries SET cursor = $2, attempts = attempts + $3, failing = $4, doubt = COALESCE(doubt, $5), \
             listed_at = $6, begin_at = $7 WHERE id = $1",
        )
        .bind(look.look.to_string())
        .bind(page.cursor.as_deref())
        .bind(page.read)
        .bind(page.failing)
        .bind(page.doubt.as_deref())
        .bind(listed.then_some(now.micros()))
        .bind(look.period.from.micros())
        .execute(&mut *tx)
        .await?;
        if listed {
            sqlx::query("DELETE FROM undelivered WHERE source = $1 AND hook = $2 AND state = $3")
                .bind(look.hook.source.as_str())
                .bind(&look.hook.hook)
                .bind(Fate::Delivered.as_str())
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Which of these deliveries of a source are in the ledger.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn has_deliveries(&self, source: &SourceName, deliveries: &[String]) -> Result<Vec<bool>, LedgerError> {
        let mut connection = self.read.acquire().await?;
        let mut found = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            found.push(is_recorded(&mut connection, source, delivery).await?);
        }
        Ok(found)
    }

    /// Settles what has arrived of a hook by now, and what the provider won't deliver again: that whose latest attempt was
    /// before `kept_from`. Returns how many of each.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn settle_undelivered(
        &self,
        hook: &HookKey,
        kept_from: Timestamp,
        window: &str,
    ) -> Result<(u64, u64), LedgerError> {
        let mut tx = self.begin().await?;
        let now = now(&mut tx).await?;
        let arrived = sqlx::query(
            "UPDATE undelivered SET state = 'arrived', settled_at = $3, reason = NULL \
             WHERE source = $1 AND hook = $2 AND state IN ('open', 'lost') AND EXISTS (SELECT 1 FROM deliveries \
             WHERE deliveries.source = undelivered.source AND deliveries.delivery = undelivered.delivery)",
        )
        .bind(hook.source.as_str())
        .bind(&hook.hook)
        .bind(now.micros())
        .execute(&mut *tx)
        .await?
        .rows_affected();
        let lost = sqlx::query(
            "UPDATE undelivered SET state = 'lost', settled_at = $3, \
             reason = CASE WHEN reason IS NULL THEN $5 ELSE reason || '; ' || $5 END \
             WHERE source = $1 AND hook = $2 AND state = 'open' AND attempt_at < $4",
        )
        .bind(hook.source.as_str())
        .bind(&hook.hook)
        .bind(now.micros())
        .bind(kept_from.micros())
        .bind(window)
        .execute(&mut *tx)
        .await?
        .rows_affected();
        tx.commit().await?;
        Ok((arrived, lost))
    }

    /// What of a source hasn't arrived, or all that failed at first; the oldest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn undelivered(&self, source: &SourceName, arrived: bool) -> Result<Vec<Undelivered>, LedgerError> {
        let mut sql = Sql::new(UNDELIVERED);
        sql.push(if arrived { " WHERE state <> 'delivered'" } else { " WHERE state IN ('open', 'lost')" });
        sql.push(" AND source = ");
        sql.bind(source.as_str());
        sql.push(" ORDER BY hook, COALESCE(failed_at, noticed_at), delivery");
        let rows = sql.query().fetch_all(&self.read).await?;
        rows.iter().map(undelivered_of).collect()
    }

    /// Takes the right to ask for a delivery again, and notes that it is asked for. False if somebody else did so since it
    /// was read, or it is settled.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn claim_undelivered(&self, undelivered: &Undelivered) -> Result<bool, LedgerError> {
        let mut tx = self.begin().await?;
        let now = now(&mut tx).await?;
        let claimed = sqlx::query(
            "UPDATE undelivered SET asks = asks + 1, asked_at = $4, expected = 1, \
             reason = 'asked for again, and not arrived yet' WHERE source = $1 AND delivery = $2 AND state = 'open' AND asks = $3",
        )
        .bind(undelivered.hook.source.as_str())
        .bind(&undelivered.delivery)
        .bind(undelivered.asks)
        .bind(now.micros())
        .execute(&mut *tx)
        .await?
        .rows_affected();
        tx.commit().await?;
        Ok(claimed > 0)
    }

    /// Notes why asking for a delivery failed, and whether it may come all the same.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn note_refusal(
        &self,
        undelivered: &Undelivered,
        reason: &str,
        expected: bool,
    ) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "UPDATE undelivered SET reason = $3, expected = $4 WHERE source = $1 AND delivery = $2 AND state = 'open'",
        )
        .bind(undelivered.hook.source.as_str())
        .bind(&undelivered.delivery)
        .bind(reason)
        .bind(i64::from(expected))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// When a source was first heard of: by a delivery, an ingress, or a look.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn heard_of(&self, source: &SourceName) -> Result<Option<Timestamp>, LedgerError> {
        let row = sqlx::query(
            "SELECT MIN(at) FROM (SELECT MIN(received_at) AS at FROM deliveries WHERE source = $1 \
             UNION ALL SELECT MIN(since) FROM stamps WHERE source = $1 AND since > 0 \
             UNION ALL SELECT MIN(begin_at) FROM recoveries WHERE source = $1) AS heard",
        )
        .bind(source.as_str())
        .fetch_one(&self.read)
        .await?;
        Ok(row.try_get::<Option<i64>, _>(0)?.map(Timestamp))
    }

    /// What was asked for, arrived and is missing, by source.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn recovery_counts(&self) -> Result<BTreeMap<String, RecoveryCounts>, LedgerError> {
        let rows = sqlx::query(
            "SELECT source, CAST(SUM(asks) AS BIGINT), \
             CAST(SUM(CASE WHEN state = 'arrived' AND asks > 0 THEN 1 ELSE 0 END) AS BIGINT), \
             CAST(SUM(CASE WHEN state IN ('open', 'lost') THEN 1 ELSE 0 END) AS BIGINT) FROM undelivered GROUP BY source",
        )
        .fetch_all(&self.read)
        .await?;
        let counts = |row: &AnyRow| {
            let counts =
                RecoveryCounts { requested: row.try_get(1)?, recovered: row.try_get(2)?, missing: row.try_get(3)? };
            Ok((row.try_get(0)?, counts))
        };
        rows.iter().map(counts).collect()
    }

    /// What was found to be beyond recovery in that time, by source.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn irrecoverable(&self, lately: Duration) -> Result<BTreeMap<String, Irrecoverable>, LedgerError> {
        let mut connection = self.read.acquire().await?;
        let since = now(&mut connection).await?.micros() - i64::try_from(lately.as_micros()).unwrap_or(i64::MAX);
        let mut found = BTreeMap::new();
        let lost = sqlx::query(
            "SELECT source, COUNT(*), MIN(settled_at) FROM undelivered WHERE state = 'lost' AND settled_at >= $1 \
             GROUP BY source",
        )
        .bind(since)
        .fetch_all(&mut *connection)
        .await?;
        for row in lost {
            let count: i64 = row.try_get(1)?;
            let what = match count {
                1 => "a delivery that matters was missed and can't be recovered any more".to_owned(),
                count => format!("{count} deliveries that matter were missed and can't be recovered any more"),
            };
            found.insert(row.try_get(0)?, Irrecoverable { since: Timestamp(row.try_get(2)?), what });
        }
        let lapsed = sqlx::query(
            "SELECT source, MIN(started_at), MIN(lapsed_from), MAX(begin_at) FROM recoveries \
             WHERE lapsed_from IS NOT NULL AND started_at >= $1 GROUP BY source",
        )
        .bind(since)
        .fetch_all(&mut *connection)
        .await?;
        for row in lapsed {
            let (from, to) = (Timestamp(row.try_get(2)?), Timestamp(row.try_get(3)?));
            let what = format!("nobody can say any more what was missed between {from} and {to}");
            found
                .entry(row.try_get(0)?)
                .and_modify(|known: &mut Irrecoverable| {
                    known.what.push_str("; ");
                    known.what.push_str(&what);
                })
                .or_insert(Irrecoverable { since: Timestamp(row.try_get(1)?), what });
        }
        Ok(found)
    }
}

async fn note_attempt(
    tx: &mut AnyConnection,
    hook: &HookKey,
    attempt: &SeenAttempt,
    now: Timestamp,
) -> Result<(), LedgerError> {
    let at = attempt.at.unwrap_or(now).micros();
    let known = sqlx::query("SELECT state FROM undelivered WHERE source = $1 AND delivery = $2")
        .bind(hook.source.as_str())
        .bind(&attempt.delivery)
        .fetch_optional(&mut *tx)
        .await?;
    let known: Option<Fate> =
        known.map(|row| row.try_get::<String, _>(0)).transpose()?.map(|state| parsed("state", &state)).transpose()?;
    match known {
        // The list has the latest attempt first, but an earlier look may have seen a later one than this.
        Some(Fate::Open) if !attempt.delivered => {
            sqlx::query(
                "UPDATE undelivered SET attempt = CASE WHEN attempt_at <= $3 THEN $4 ELSE attempt END, \
                 status = CASE WHEN attempt_at <= $3 THEN $5 ELSE status END, \
                 attempt_at = CASE WHEN attempt_at <= $3 THEN $3 ELSE attempt_at END, \
                 failed_at = CASE WHEN failed_at <= $3 THEN failed_at ELSE $6 END \
                 WHERE source = $1 AND delivery = $2",
            )
            .bind(hook.source.as_str())
            .bind(&attempt.delivery)
            .bind(at)
            .bind(&attempt.attempt)
            .bind(&attempt.status)
            .bind(attempt.at.map(Timestamp::micros))
            .execute(tx)
            .await?;
            return Ok(());
        }
        Some(_) => return Ok(()),
        None => {}
    }
    if is_recorded(tx, &hook.source, &attempt.delivery).await? {
        return Ok(());
    }
    let state = match (attempt.delivered, attempt.lost) {
        (true, _) => Fate::Delivered,
        (false, Some(_)) => Fate::Lost,
        (false, None) => Fate::Open,
    };
    sqlx::query(
        "INSERT INTO undelivered (source, delivery, hook, event, failed_at, attempt, attempt_at, status, noticed_at, \
         state, asks, expected, settled_at, reason) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, 0, $11, $12)",
    )
    .bind(hook.source.as_str())
    .bind(&attempt.delivery)
    .bind(&hook.hook)
    .bind(&attempt.event)
    .bind(attempt.at.map(Timestamp::micros))
    .bind(&attempt.attempt)
    .bind(at)
    .bind(&attempt.status)
    .bind(now.micros())
    .bind(state.as_str())
    .bind((state == Fate::Lost).then_some(now.micros()))
    .bind(attempt.lost)
    .execute(tx)
    .await?;
    Ok(())
}

async fn is_recorded(tx: &mut AnyConnection, source: &SourceName, delivery: &str) -> Result<bool, LedgerError> {
    let found = sqlx::query("SELECT id FROM deliveries WHERE source = $1 AND delivery = $2 LIMIT 1")
        .bind(source.as_str())
        .bind(delivery)
        .fetch_optional(tx)
        .await?;
    Ok(found.is_some())
}

fn look_of(row: &AnyRow) -> Result<Look, LedgerError> {
    let time = |name: &str| Ok::<_, sqlx::Error>(row.try_get::<Option<i64>, _>(name)?.map(Timestamp));
    Ok(Look {
        look: parsed("look", &row.try_get::<String, _>("id")?)?,
        hook: HookKey { source: parsed("source", &row.try_get::<String, _>("source")?)?, hook: row.try_get("hook")? },
        period: Period { from: Timestamp(row.try_get("begin_at")?), to: Timestamp(row.try_get("end_at")?) },
        started_at: Timestamp(row.try_get("started_at")?),
        started_by: row.try_get("started_by")?,
        lapsed_from: time("lapsed_from")?,
        attempts: row.try_get("attempts")?,
        doubt: row.try_get("doubt")?,
        listed_at: time("listed_at")?,
        cursor: row.try_get("cursor")?,
        failing: row.try_get("failing")?,
    })
}

fn undelivered_of(row: &AnyRow) -> Result<Undelivered, LedgerError> {
    let time = |name: &str| Ok::<_, sqlx::Error>(row.try_get::<Option<i64>, _>(name)?.map(Timestamp));
    Ok(Undelivered {
        hook: HookKey { source: parsed("source", &row.try_get::<String, _>("source")?)?, hook: row.try_get("hook")? },
        delivery: row.try_get("delivery")?,
        event: row.try_get("event")?,
        failed_at: time("failed_at")?,
        status: row.try_get("status")?,
        noticed_at: Timestamp(row.try_get("noticed_at")?),
        state: parsed("state", &row.try_get::<String, _>("state")?)?,
        asks: row.try_get("asks")?,
        asked_at: time("asked_at")?,
        expected: row.try_get::<i64, _>("expected")? != 0,
        settled_at: time("settled_at")?,
        reason: row.try_get("reason")?,
        attempt: row.try_get("attempt")?,
        attempt_at: Timestamp(row.try_get("attempt_at")?),
    })
}
