//! Deliveries and what they tell come in: one transaction a batch.
//!
//! A delivery is one row, however often it comes. Its changes join an append-only set; a grant is the maximum of its
//! changes, computed from the set each time, so the order of arrival can't matter. Whoever's status may have to change
//! is marked due, and that is all: the work belongs to the account from here on.

use std::time::Duration;

use sha2::{Digest, Sha256};
use sqlx::{AnyConnection, Row};
use uuid::Uuid;

use super::balance::{self, Tally};
use super::database::{lock_account, lock_recording};
use super::outcome::{self, Counts, Outcome};
use super::secrets::{self, Uses};
use super::unreadable::{self, Unreadable};
use super::{Ledger, LedgerError, now, parsed, replays, unless_in_conflict};
use crate::access::{AccessKind, Change, Turn, When};
use crate::delivery::{Checkpoint, Delivery, Timestamp, event_time};
use crate::target::ConnectionRef;

/// A delivery, and what it was found to mean.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The delivery.
    pub delivery: Delivery,
    /// What it means.
    pub reading: Reading,
    /// Whether an operator said yes to as many accounts as it may concern.
    pub approved: bool,
}

impl Entry {
    fn event_time(&self, received_at: Timestamp) -> Timestamp {
        self.placed_at(received_at).0
    }

    fn turn(&self, received_at: Timestamp) -> Turn {
        self.placed_at(received_at).1
    }

    fn placed_at(&self, received_at: Timestamp) -> (Timestamp, Turn) {
        let unsaid = When::default();
        let when = match &self.reading {
            Reading::Told { when, .. } => when,
            Reading::Parked(_) | Reading::Ignored(_) => &unsaid,
        };
        placed_at(&self.delivery, when, received_at)
    }
}

/// When what a delivery tells happened: as it says, but never after its receipt; else as its id and receipt tell. And its
/// place among the changes of one grant.
pub(crate) fn placed_at(delivery: &Delivery, when: &When, received_at: Timestamp) -> (Timestamp, Turn) {
    let at = when.at.map_or_else(|| event_time(&delivery.id, received_at), |at| at.min(received_at));
    (at, when.turn.unwrap_or_else(|| Turn::at(at)))
}

/// What a delivery was found to mean.
#[derive(Clone, Debug)]
pub enum Reading {
    /// It can't be understood; why.
    Parked(String),
    /// It says nothing about access, or is about somebody else's scopes; why.
    Ignored(String),
    /// It tells something.
    Told {
        /// What it tells.
        changes: Vec<Placed>,
        /// What people should know besides.
        note: Option<String>,
        /// When it happened, where the delivery says so.
        when: When,
    },
}

/// A change, and which connection of the platform it concerns.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The change.
    pub change: Change,
    /// The connection; none if the platform has none for this provider.
    pub connection: Option<ConnectionRef>,
    /// The host of the source.
    pub host: String,
    /// Whether the scope at the top is one of the source's roots.
    pub top_is_root: bool,
    /// Above so many accounts at once a change waits for an operator's yes.
    pub mass_change_limit: i64,
    /// Its own place among the changes of its grant, where it isn't the delivery's.
    pub turn: Option<Turn>,
}

/// What is to be recorded in one transaction.
#[derive(Clone, Debug)]
pub enum Record {
    /// A delivery.
    Delivery(Box<Entry>),
    /// How far an ingress has come.
    Checkpoint(Checkpoint),
    /// A message that can't be read.
    Unreadable {
        /// Its message id, if it had one.
        id: Option<String>,
        /// Why it can't be read.
        why: String,
        /// Its bytes.
        body: bytes::Bytes,
        /// What else there was, if it bears a version of rollcall's, so that it can be read again.
        properties: Option<String>,
    },
}

impl Ledger {
    /// Records a batch: all of it or nothing. Returns whether an account became due.
    ///
    /// # Errors
    /// If the database fails; then nothing was recorded.
    pub async fn record(&self, batch: &[Record]) -> Result<bool, LedgerError> {
        unless_in_conflict(|| self.record_once(batch)).await
    }

    /// Looks whether a delivery that says nothing could be recorded, as a parked one and as a message that can't be read:
    /// it is, and is taken back.
    ///
    /// # Errors
    /// If it couldn't.
    pub async fn try_recording(&self, like: Option<&Delivery>) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        lock_recording(&mut tx).await?;
        let now = now(&mut tx).await?;
        let why = "whether anything can be recorded is tried".to_owned();
        let message = Unreadable { id: None, why: &why, body: &bytes::Bytes::new(), properties: None };
        unreadable::keep(&mut tx, message, now).await?;
        if let Some(like) = like {
            let id = Uuid::now_v7().to_string();
            let delivery = Delivery {
                id: parsed("delivery ID", &id)?,
                received_at: now,
                stamp: None,
                replay: None,
                body: id.into_bytes().into(),
                ..like.clone()
            };
            let entry = Entry { delivery, reading: Reading::Parked(why), approved: false };
            let mut counts = Counts::default();
            Recorder { tx: &mut tx, counts: &mut counts, now }.delivery(&entry, now, false).await?;
        }
        tx.rollback().await
    }

    async fn record_once(&self, batch: &[Record]) -> Result<bool, LedgerError> {
        let mut tx = self.begin().await?;
        lock_recording(&mut tx).await?;
        let now = now(&mut tx).await?;
        let mut tally = Tally::default();
        let mut uses = Uses::default();
        let mut counts = Counts::default();
        let mut due = false;
        for record in batch {
            match record {
                Record::Delivery(entry) => {
                    let received_at = clamped(entry.delivery.received_at, now);
                    let accepted = match entry.delivery.stamp {
                        Some(stamp) => tally.arrived(&mut tx, &entry.delivery, stamp, received_at, now).await?,
                        None => false,
                    };
                    if accepted {
                        uses.accepted(&entry.delivery, received_at);
                    }
                    due |= Recorder { tx: &mut tx, counts: &mut counts, now }
                        .delivery(entry, received_at, accepted)
                        .await?;
                }
                Record::Checkpoint(checkpoint) => {
                    tally.checkpoint(&mut tx, checkpoint, now).await?;
                    secrets::refused(&mut tx, checkpoint, now).await?;
                }
                Record::Unreadable { id, why, body, properties } => {
                    let message = Unreadable { id: id.as_deref(), why, body, properties: properties.as_deref() };
                    unreadable::keep(&mut tx, message, now).await?;
                }
            }
        }
        balance::store(&mut tx, tally, now).await?;
        uses.store(&mut tx).await?;
        tx.commit().await?;
        counts.publish();
        Ok(due)
    }
}

/// How far an ingress's clock may be ahead of the ledger's.
const CLOCKS_APART: Duration = Duration::from_mins(5);

/// A time of receipt as it is believed: an ingress's clock may be wrong, and a time far ahead would win over everything
/// that happens until then.
pub(super) fn clamped(received_at: Timestamp, now: Timestamp) -> Timestamp {
    received_at.clamp(Timestamp(0), now.plus(CLOCKS_APART))
}

/// The digest that tells two bodies apart.
#[must_use]
pub fn digest(body: &[u8]) -> Vec<u8> {
    Sha256::digest(body).to_vec()
}

/// Records a delivery that isn't known yet. Both questions must be answered from an index: a source may have millions.
const INSERT: &str = "INSERT INTO deliveries (source, provider, delivery, digest, event, encoding, body, secret, received_at, \
    recorded_at, copies, replays, repeated, conflicting, outcome, reason) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, \
    CASE WHEN EXISTS (SELECT 1 FROM deliveries WHERE source = $1 AND digest = $4 AND delivery <> $3) THEN 1 ELSE 0 END, \
    CASE WHEN EXISTS (SELECT 1 FROM deliveries WHERE source = $1 AND delivery = $3 AND digest <> $4) THEN 1 ELSE 0 END, \
    $13, $14) ON CONFLICT (source, delivery, digest) DO NOTHING RETURNING id";

/// A recording transaction under way.
pub(super) struct Recorder<'a> {
    pub(super) tx: &'a mut AnyConnection,
    pub(super) counts: &'a mut Counts,
    pub(super) now: Timestamp,
}

impl Recorder<'_> {
    pub(super) async fn delivery(
        &mut self,
        entry: &Entry,
        received_at: Timestamp,
        accepted: bool,
    ) -> Result<bool, LedgerError> {
        let delivery = &entry.delivery;
        let digest = digest(&delivery.body);
        let (first, reason) = match &entry.reading {
            Reading::Parked(why) => (Outcome::Parked, Some(why)),
            Reading::Ignored(why) => (Outcome::Ignored, Some(why)),
            Reading::Told { note, .. } => (Outcome::Pending, note.as_ref()),
        };
        let body = (first != Outcome::Ignored).then_some(&delivery.body[..]);
        let inserted = sqlx::query(INSERT)
            .bind(delivery.source.as_str())
            .bind(&delivery.provider)
            .bind(delivery.id.as_str())
            .bind(&digest)
            .bind(delivery.event.as_str())
            .bind(delivery.media_type())
            .bind(body)
            .bind(delivery.secret.0.as_ref())
            .bind(received_at.micros())
            .bind(self.now.micros())
            .bind(i64::from(accepted))
            .bind(i64::from(delivery.replay.is_some()))
            .bind(first.as_str())
            .bind(reason)
            .fetch_optional(&mut *self.tx)
            .await?;
        if let Some(row) = inserted {
            let row = row.try_get(0)?;
            outcome::note(self.tx, self.counts, row, first, reason.map(String::as_str), self.now).await?;
            self.replayed(row, delivery).await?;
            return self.read(row, received_at, entry).await;
        }
        let known =
            sqlx::query("SELECT id, received_at FROM deliveries WHERE source = $1 AND delivery = $2 AND digest = $3")
                .bind(delivery.source.as_str())
                .bind(delivery.id.as_str())
                .bind(&digest)
                .fetch_one(&mut *self.tx)
                .await?;
        let (row, known) = (known.try_get(0)?, Timestamp(known.try_get(1)?));
        self.replayed(row, delivery).await?;
        self.copy(row, received_at.min(known), known, entry, accepted).await
    }

    async fn replayed(&mut self, row: i64, delivery: &Delivery) -> Result<(), LedgerError> {
        match delivery.replay {
            Some(replay) => replays::recorded(self.tx, replay, row, self.now).await,
            None => Ok(()),
        }
    }

    /// A delivery that the ledger has already: counted, its receipt set to the earliest of all copies. A replay is read
    /// anew on top, since what it means may have changed with the configuration.
    async fn copy(
        &mut self,
        row: i64,
        received_at: Timestamp,
        known: Timestamp,
        entry: &Entry,
        accepted: bool,
    ) -> Result<bool, LedgerError> {
        let replayed = entry.delivery.replay.is_some();
        sqlx::query("UPDATE deliveries SET copies = copies + $2, replays = replays + $3 WHERE id = $1")
            .bind(row)
            .bind(i64::from(accepted))
            .bind(i64::from(replayed))
            .execute(&mut *self.tx)
            .await?;
        let mut due = false;
        if received_at < known {
            due |= self.move_back(row, received_at, entry).await?;
        }
        if replayed || entry.approved {
            due |= self.read(row, received_at, entry).await?;
        } else {
            due |= sqlx::query(
                "UPDATE statuses SET due_at = $2 WHERE state = 'waiting' \
                 AND id IN (SELECT status FROM effects WHERE row = $1 AND effect = 'waiting')",
            )
            .bind(row)
            .bind(self.now.micros())
            .execute(&mut *self.tx)
            .await?
            .rows_affected()
                > 0;
        }
        Ok(due)
    }

    /// An earlier copy turned up: everything that the delivery told happened no later than that.
    async fn move_back(&mut self, row: i64, received_at: Timestamp, entry: &Entry) -> Result<bool, LedgerError> {
        let event_time = entry.event_time(received_at).micros();
        let (began, step) = entry.turn(received_at).to_numbers();
        // What was so before stays in sight: it is part of the history, which is sealed.
        sqlx::query(
            "UPDATE deliveries SET first_received_at = COALESCE(first_received_at, received_at), received_at = $2 WHERE id = $1",
        )
        .bind(row)
        .bind(received_at.micros())
        .execute(&mut *self.tx)
        .await?;
        sqlx::query(
            "UPDATE changes SET first_event_time = COALESCE(first_event_time, event_time), \
             first_began = COALESCE(first_began, began), first_step = COALESCE(first_step, step), \
             received_at = $2, event_time = $3, began = $4, step = $5 WHERE row = $1",
        )
        .bind(row)
        .bind(received_at.micros())
        .bind(event_time)
        .bind(began)
        .bind(step)
        .execute(&mut *self.tx)
        .await?;
        sqlx::query(
            "INSERT INTO receipts (delivery, at, received_at, event_time, began, step) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(row)
        .bind(self.now.micros())
        .bind(received_at.micros())
        .bind(event_time)
        .bind(began)
        .bind(step)
        .execute(&mut *self.tx)
        .await?;
        let changes = sqlx::query("SELECT account, scope, kind, connection FROM changes WHERE row = $1")
            .bind(row)
            .fetch_all(&mut *self.tx)
            .await?;
        let mut due = false;
        for change in changes {
            let (account, scope): (Option<i64>, Option<i64>) = (change.try_get(0)?, change.try_get(1)?);
            let kind: String = change.try_get(2)?;
            let connection: Option<String> = change.try_get(3)?;
            match (account, scope) {
                (Some(account), Some(scope)) => {
                    lock_account(self.tx, account).await?;
                    let latest = self.grant(account, scope).await?;
                    if let Some(connection) = connection {
                        let status = self.owe(account, &connection, received_at, false).await?;
                        self.reinstate(latest, account, scope, status).await?;
                        due = true;
                    }
                }
                (None, Some(scope)) => {
                    self.mark(scope, &kind).await?;
                    self.look_again(scope).await?;
                    for (account, connection) in self.concerned(scope).await? {
                        lock_account(self.tx, account).await?;
                        self.owe(account, &connection, received_at, false).await?;
                        due = true;
                    }
                }
                _ => {}
            }
        }
        Ok(due)
    }

    async fn read(&mut self, row: i64, received_at: Timestamp, entry: &Entry) -> Result<bool, LedgerError> {
        let (changes, note) = match &entry.reading {
            Reading::Parked(why) => {
                outcome::set(self.tx, self.counts, row, Outcome::Parked, Some(why), self.now).await?;
                return Ok(false);
            }
            Reading::Ignored(why) => {
                outcome::set(self.tx, self.counts, row, Outcome::Ignored, Some(why), self.now).await?;
                return Ok(false);
            }
            Reading::Told { changes, note, .. } => (changes, note),
        };
        if let Some(reason) = self.takes_too_many(row, entry, changes).await? {
            outcome::set(self.tx, self.counts, row, Outcome::Held, Some(&reason), self.now).await?;
            return Ok(false);
        }
        let mut due = false;
        let mut effects = 0;
        for (ordinal, placed) in changes.iter().enumerate() {
            let told = Told {
                row,
                ordinal: i64::try_from(ordinal).unwrap_or(i64::MAX),
                received_at,
                event_time: entry.event_time(received_at),
                turn: placed.turn.unwrap_or_else(|| entry.turn(received_at)),
                delivery: &entry.delivery,
                approved: entry.approved,
                placed,
            };
            match self.change(&told).await? {
                Recorded::Held(reason) => {
                    outcome::set(self.tx, self.counts, row, Outcome::Held, Some(&reason), self.now).await?;
                    return Ok(due);
                }
                Recorded::Effects { count, due: now_due } => {
                    effects += count;
                    due |= now_due;
                }
            }
        }
        if effects > 0 {
            outcome::recompute(self.tx, self.counts, row, self.now).await?;
        } else {
            outcome::set(self.tx, self.counts, row, Outcome::Unchanged, note.as_deref(), self.now).await?;
        }
        Ok(due)
    }

    async fn change(&mut self, told: &Told<'_>) -> Result<Recorded, LedgerError> {
        match &told.placed.change {
            Change::Access { account, scope, kind } => {
                let account = self.account(account, told.event_time).await?;
                let scope = self.scope(scope, told).await?;
                self.access(told, account, scope, *kind).await
            }
            Change::Renamed { account } => {
                let account = self.account(account, told.event_time).await?;
                self.store(told, Some(account), None).await?;
                // A new login may be the one that the platform knows the account by.
                let woken = sqlx::query("UPDATE statuses SET due_at = $2 WHERE account = $1 AND state = 'waiting'")
                    .bind(account)
                    .bind(self.now.micros())
                    .execute(&mut *self.tx)
                    .await?
                    .rows_affected();
                self.effect(told, account, None, None, Outcome::Unchanged, Some("the login was noted")).await?;
                Ok(Recorded::Effects { count: 1, due: woken > 0 })
            }
            Change::ScopeLost { scope } | Change::ScopeMoved { scope } => {
                let scope = self.scope(scope, told).await?;
                self.whole_scope(told, scope).await
            }
            Change::ScopeRenamed { scope } => {
                let scope = self.scope(scope, told).await?;
                self.store(told, None, Some(scope)).await?;
                Ok(Recorded::Effects { count: 0, due: false })
            }
            Change::SourceBlind { why } => self.source_state(told, true, Some(why)).await,
            Change::SourceBack => self.source_state(told, false, None).await,
        }
    }

    async fn access(
        &mut self,
        told: &Told<'_>,
        account: i64,
        scope: i64,
        kind: AccessKind,
    ) -> Result<Recorded, LedgerError> {
        let change = self.store(told, Some(account), Some(scope)).await?;
        let latest = self.grant(account, scope).await?;
        if change != latest {
            let reason = if kind == AccessKind::Seen {
                "activity doesn't beat a recorded join or leave"
            } else {
                "a newer change of the same access is known"
            };
            self.effect(told, account, Some(scope), None, Outcome::Superseded, Some(reason)).await?;
            return Ok(Recorded::Effects { count: 1, due: false });
        }
        self.supersede(told.row, told.delivery.id.as_str(), account, scope).await?;
        let Some(connection) = &told.placed.connection else {
            let reason = "the platform has no connection for this provider";
            self.effect(told, account, Some(scope), None, Outcome::Unchanged, Some(reason)).await?;
            return Ok(Recorded::Effects { count: 1, due: false });
        };
        let status = self.owe(account, &connection.to_string(), told.received_at, told.placed.change.is_loss()).await?;
        self.effect(told, account, Some(scope), Some(status), Outcome::Pending, None).await?;
        Ok(Recorded::Effects { count: 1, due: true })
    }

    async fn source_state(
        &mut self,
        told: &Told<'_>,
        blind: bool,
        why: Option<&String>,
    ) -> Result<Recorded, LedgerError> {
        self.store(told, None, None).await?;
        sqlx::query(
            "INSERT INTO source_states (source, blind, why, event_time) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (source) DO UPDATE SET blind = excluded.blind, why = excluded.why, \
             event_time = excluded.event_time WHERE excluded.event_time >= source_states.event_time",
        )
        .bind(told.delivery.source.as_str())
        .bind(i64::from(blind))
        .bind(why)
        .bind(told.event_time.micros())
        .execute(&mut *self.tx)
        .await?;
        Ok(Recorded::Effects { count: 0, due: false })
    }

    /// Adds a change to the set. Returns its id, also if it was there already.
    pub(super) async fn store(
        &mut self,
        told: &Told<'_>,
        account: Option<i64>,
        scope: Option<i64>,
    ) -> Result<i64, LedgerError> {
        let change = &told.placed.change;
        let (began, step) = told.turn.to_numbers();
        let row = sqlx::query(
            "INSERT INTO changes (row, ordinal, account, scope, connection, kind, event_time, received_at, loss, source, \
             delivery, began, step) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
             ON CONFLICT (row, ordinal) DO UPDATE SET connection = excluded.connection RETURNING id",
        )
        .bind(told.row)
        .bind(told.ordinal)
        .bind(account)
        .bind(scope)
        .bind(told.placed.connection.as_ref().map(ToString::to_string))
        .bind(change.as_str())
        .bind(told.event_time.micros())
        .bind(told.received_at.micros())
        .bind(i64::from(change.is_loss()))
        .bind(told.delivery.source.as_str())
        .bind(told.delivery.id.as_str())
        .bind(began)
        .bind(step)
        .fetch_one(&mut *self.tx)
        .await?;
        Ok(row.try_get(0)?)
    }

    /// Marks an account's status due, and whatever is under way for it as out of date.
    pub(super) async fn owe(
        &mut self,
        account: i64,
        connection: &str,
        received_at: Timestamp,
        losing: bool,
    ) -> Result<i64, LedgerError> {
        let row = sqlx::query(
            "INSERT INTO statuses (account, connection, version, state, due_at, owed_since, attempts, losing, actual) \
             VALUES ($1, $2, 1, 'pending', $3, $4, 0, $5, 'unknown') ON CONFLICT (account, connection) DO UPDATE SET \
             version = statuses.version + 1, state = 'pending', reason = NULL, due_at = excluded.due_at, attempts = 0, \
             losing = excluded.losing, \
             waiting_since = CASE statuses.state WHEN 'parked' THEN NULL ELSE statuses.waiting_since END, \
             owed_since = COALESCE(statuses.owed_since, excluded.owed_since) RETURNING id",
        )
        .bind(account)
        .bind(connection)
        .bind(self.now.micros())
        .bind(received_at.micros())
        .bind(i64::from(losing))
        .fetch_one(&mut *self.tx)
        .await?;
        Ok(row.try_get(0)?)
    }

    pub(super) async fn effect(
        &mut self,
        told: &Told<'_>,
        account: i64,
        scope: Option<i64>,
        status: Option<i64>,
        effect: Outcome,
        reason: Option<&str>,
    ) -> Result<(), LedgerError> {
        sqlx::query(
            "INSERT INTO effects (row, account, scope, status, kind, effect, reason) VALUES ($1, $2, $3, $4, $5, $6, $7) \
             ON CONFLICT (row, account) DO UPDATE SET scope = excluded.scope, status = excluded.status, \
             kind = excluded.kind, effect = excluded.effect, reason = excluded.reason",
        )
        .bind(told.row)
        .bind(account)
        .bind(scope)
        .bind(status)
        .bind(told.placed.change.as_str())
        .bind(effect.as_str())
        .bind(reason)
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }
}

/// One change of one delivery, with its place in the order.
pub(super) struct Told<'a> {
    pub(super) row: i64,
    pub(super) ordinal: i64,
    pub(super) received_at: Timestamp,
    pub(super) event_time: Timestamp,
    pub(super) turn: Turn,
    pub(super) delivery: &'a Delivery,
    pub(super) approved: bool,
    pub(super) placed: &'a Placed,
}

/// What recording a change came to.
pub(super) enum Recorded {
    /// An operator has to say yes first.
    Held(String),
    Effects {
        count: usize,
        due: bool,
    },
}

#[cfg(test)]
mod tests {
    use sqlx::Row;

    use super::super::database::Database;
    use super::super::trial::Trial;

    #[tokio::test]
    async fn recording_looks_nothing_up_by_reading_all_deliveries_of_a_source() {
        let trial = Trial::open(Database::Sqlite).await;
        let plan = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", super::INSERT));
        let mut explained = sqlx::query(plan);
        for _ in 0..14 {
            explained = explained.bind(1);
        }
        let rows = explained.fetch_all(&trial.ledger.read).await.unwrap();
        let searches: Vec<String> = rows.iter().map(|row| row.try_get::<String, _>(3).unwrap()).collect();
        let searches: Vec<_> = searches.iter().filter(|step| step.starts_with("SEARCH deliveries USING")).collect();
        assert_eq!(searches.len(), 2, "{searches:?}");
        assert!(searches.iter().all(|step| step.matches("=?").count() == 2), "{searches:?}");
    }
}
