//! Deliveries and what they tell come in: one transaction a batch.
//!
//! A delivery is one row, however often it comes. Its changes join an append-only set; a grant is the maximum of its
//! changes, computed from the set each time, so the order of arrival can't matter. Whoever's status may have to change
//! is marked due, and that is all: the work belongs to the account from here on.

use sha2::{Digest, Sha256};
use sqlx::{AnyConnection, Row};

use super::balance::{self, Tally};
use super::outcome::{self, Outcome};
use super::{Ledger, LedgerError, now};
use crate::access::{AccessKind, Account, Change, Scope, ScopeId};
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
    },
}

impl Ledger {
    /// Records a batch: all of it or nothing. Returns whether an account became due.
    ///
    /// # Errors
    /// If the database fails; then nothing was recorded.
    pub async fn record(&self, batch: &[Record]) -> Result<bool, LedgerError> {
        let mut tx = self.begin().await?;
        let now = now(&mut tx).await?;
        let mut tally = Tally::default();
        let mut due = false;
        for record in batch {
            match record {
                Record::Delivery(entry) => {
                    let accepted = match entry.delivery.stamp {
                        Some(stamp) => tally.arrived(&mut tx, &entry.delivery.source, stamp, now).await?,
                        None => false,
                    };
                    due |= Recorder { tx: &mut tx, now }.delivery(entry, accepted).await?;
                }
                Record::Checkpoint(checkpoint) => tally.checkpoint(&mut tx, checkpoint, now).await?,
                Record::Unreadable { id, why, body } => {
                    sqlx::query("INSERT INTO unreadable (at, message, why, body) VALUES ($1, $2, $3, $4)")
                        .bind(now.micros())
                        .bind(id)
                        .bind(why)
                        .bind(body.to_vec())
                        .execute(&mut *tx)
                        .await?;
                }
            }
        }
        balance::store(&mut tx, tally).await?;
        tx.commit().await?;
        Ok(due)
    }
}

/// The digest that tells two bodies apart.
#[must_use]
pub fn digest(body: &[u8]) -> Vec<u8> {
    Sha256::digest(body).to_vec()
}

struct Recorder<'a> {
    tx: &'a mut AnyConnection,
    now: Timestamp,
}

impl Recorder<'_> {
    async fn delivery(&mut self, entry: &Entry, accepted: bool) -> Result<bool, LedgerError> {
        let delivery = &entry.delivery;
        let digest = digest(&delivery.body);
        let (first, reason) = match &entry.reading {
            Reading::Parked(why) => (Outcome::Parked, Some(why)),
            Reading::Ignored(why) => (Outcome::Ignored, Some(why)),
            Reading::Told { note, .. } => (Outcome::Pending, note.as_ref()),
        };
        let body = (first != Outcome::Ignored).then(|| delivery.body.to_vec());
        let inserted = sqlx::query(
            "INSERT INTO deliveries (source, provider, delivery, digest, event, encoding, body, secret, received_at, \
             recorded_at, copies, replays, repeated, conflicting, outcome, reason) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, \
             CASE WHEN EXISTS (SELECT 1 FROM deliveries WHERE source = $1 AND digest = $4 AND delivery <> $3) THEN 1 ELSE 0 END, \
             CASE WHEN EXISTS (SELECT 1 FROM deliveries WHERE source = $1 AND delivery = $3 AND digest <> $4) THEN 1 ELSE 0 END, \
             $13, $14) ON CONFLICT (source, delivery, digest) DO NOTHING RETURNING id",
        )
        .bind(delivery.source.as_str())
        .bind(&delivery.provider)
        .bind(delivery.id.as_str())
        .bind(&digest)
        .bind(delivery.event.as_str())
        .bind(delivery.encoding.media_type())
        .bind(body)
        .bind(delivery.secret.0.as_ref())
        .bind(delivery.received_at.micros())
        .bind(self.now.micros())
        .bind(i64::from(accepted))
        .bind(i64::from(delivery.replay.is_some()))
        .bind(first.as_str())
        .bind(reason)
        .fetch_optional(&mut *self.tx)
        .await?;
        if let Some(row) = inserted {
            let row = row.try_get(0)?;
            outcome::note(self.tx, row, first, reason.map(String::as_str), self.now).await?;
            return self.read(row, delivery.received_at, entry).await;
        }
        let known =
            sqlx::query("SELECT id, received_at FROM deliveries WHERE source = $1 AND delivery = $2 AND digest = $3")
                .bind(delivery.source.as_str())
                .bind(delivery.id.as_str())
                .bind(&digest)
                .fetch_one(&mut *self.tx)
                .await?;
        let (row, received_at) = (known.try_get(0)?, Timestamp(known.try_get(1)?));
        self.copy(row, received_at, entry, accepted).await
    }

    /// A delivery that the ledger has already: counted, its receipt set to the earliest of all copies. A replay is read
    /// anew on top, since what it means may have changed with the configuration.
    async fn copy(&mut self, row: i64, known: Timestamp, entry: &Entry, accepted: bool) -> Result<bool, LedgerError> {
        let replayed = entry.delivery.replay.is_some();
        sqlx::query("UPDATE deliveries SET copies = copies + $2, replays = replays + $3 WHERE id = $1")
            .bind(row)
            .bind(i64::from(accepted))
            .bind(i64::from(replayed))
            .execute(&mut *self.tx)
            .await?;
        let received_at = known.min(entry.delivery.received_at);
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
        sqlx::query("UPDATE deliveries SET received_at = $2 WHERE id = $1")
            .bind(row)
            .bind(received_at.micros())
            .execute(&mut *self.tx)
            .await?;
        sqlx::query("UPDATE changes SET received_at = $2, event_time = $3 WHERE row = $1")
            .bind(row)
            .bind(received_at.micros())
            .bind(event_time(&entry.delivery.id, received_at).micros())
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
                outcome::set(self.tx, row, Outcome::Parked, Some(why), self.now).await?;
                return Ok(false);
            }
            Reading::Ignored(why) => {
                outcome::set(self.tx, row, Outcome::Ignored, Some(why), self.now).await?;
                return Ok(false);
            }
            Reading::Told { changes, note } => (changes, note),
        };
        let mut due = false;
        let mut effects = 0;
        for (ordinal, placed) in changes.iter().enumerate() {
            let told = Told {
                row,
                ordinal: i64::try_from(ordinal).unwrap_or(i64::MAX),
                received_at,
                event_time: event_time(&entry.delivery.id, received_at),
                delivery: &entry.delivery,
                approved: entry.approved,
                placed,
            };
            match self.change(&told).await? {
                Recorded::Held(reason) => {
                    outcome::set(self.tx, row, Outcome::Held, Some(&reason), self.now).await?;
                    return Ok(due);
                }
                Recorded::Effects { count, due: now_due } => {
                    effects += count;
                    due |= now_due;
                }
            }
        }
        if effects > 0 {
            outcome::recompute(self.tx, row, self.now).await?;
        } else {
            outcome::set(self.tx, row, Outcome::Unchanged, note.as_deref(), self.now).await?;
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

    /// A scope was lost or moved as a whole: everybody who holds it, or a part of it, is concerned.
    async fn whole_scope(&mut self, told: &Told<'_>, scope: i64) -> Result<Recorded, LedgerError> {
        let concerned = self.concerned(scope).await?;
        let limit = told.placed.mass_change_limit;
        let count = i64::try_from(concerned.len()).unwrap_or(i64::MAX);
        if count > limit && !told.approved {
            return Ok(Recorded::Held(format!(
                "it concerns {count} accounts at once, more than mass_change_limit = {limit}; \
                 `rollcall deliveries approve '#{}'` does it",
                told.row
            )));
        }
        self.store(told, None, Some(scope)).await?;
        self.mark(scope, told.placed.change.as_str()).await?;
        self.look_again(scope).await?;
        for (account, connection) in &concerned {
            let status = self.owe(*account, connection, told.received_at, told.placed.change.is_loss()).await?;
            self.effect(told, *account, Some(scope), Some(status), Outcome::Pending, None).await?;
        }
        Ok(Recorded::Effects { count: concerned.len(), due: !concerned.is_empty() })
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

    async fn account(&mut self, account: &Account, at: Timestamp) -> Result<i64, LedgerError> {
        let kind = match account.kind {
            crate::access::AccountKind::Person => "person",
            crate::access::AccountKind::Bot => "bot",
        };
        let row = sqlx::query(
            "INSERT INTO accounts (provider, host, stable, node_id, login, email, kind, labels_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (provider, host, stable) DO UPDATE SET \
             node_id = COALESCE(excluded.node_id, accounts.node_id), \
             login = CASE WHEN excluded.labels_at >= accounts.labels_at THEN COALESCE(excluded.login, accounts.login) ELSE COALESCE(accounts.login, excluded.login) END, \
             email = CASE WHEN excluded.labels_at >= accounts.labels_at THEN COALESCE(excluded.email, accounts.email) ELSE COALESCE(accounts.email, excluded.email) END, \
             kind = CASE WHEN excluded.labels_at >= accounts.labels_at THEN excluded.kind ELSE accounts.kind END, \
             labels_at = CASE WHEN excluded.labels_at >= accounts.labels_at THEN excluded.labels_at ELSE accounts.labels_at END \
             RETURNING id",
        )
        .bind(&account.key.provider)
        .bind(&account.key.host)
        .bind(&account.key.id)
        .bind(&account.node_id)
        .bind(&account.login)
        .bind(&account.email)
        .bind(kind)
        .bind(at.micros())
        .fetch_one(&mut *self.tx)
        .await?;
        let id = row.try_get(0)?;
        if let Some(login) = &account.login {
            sqlx::query(
                "INSERT INTO logins (provider, host, login, account, seen_at) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (provider, host, login, account) DO NOTHING",
            )
            .bind(&account.key.provider)
            .bind(&account.key.host)
            .bind(login.to_lowercase())
            .bind(id)
            .bind(at.micros())
            .execute(&mut *self.tx)
            .await?;
        }
        Ok(id)
    }

    async fn scope(&mut self, scope: &Scope, told: &Told<'_>) -> Result<i64, LedgerError> {
        let root = match &scope.root {
            Some((id, name)) => Some(self.one_scope(id, name.as_deref(), None, told).await?),
            None => None,
        };
        let own = self.one_scope(&scope.id, scope.name.as_deref(), root, told).await?;
        if let (true, Some(connection)) = (told.placed.top_is_root, &told.placed.connection) {
            sqlx::query(
                "INSERT INTO roots (connection, scope) VALUES ($1, $2) ON CONFLICT (connection, scope) DO NOTHING",
            )
            .bind(connection.to_string())
            .bind(root.unwrap_or(own))
            .execute(&mut *self.tx)
            .await?;
        }
        Ok(own)
    }

    async fn one_scope(
        &mut self,
        id: &ScopeId,
        name: Option<&str>,
        root: Option<i64>,
        told: &Told<'_>,
    ) -> Result<i64, LedgerError> {
        let row = sqlx::query(
            "INSERT INTO scopes (provider, host, kind, stable, name, named_at, root) VALUES ($1, $2, $3, $4, $5, $6, $7) \
             ON CONFLICT (provider, host, kind, stable) DO UPDATE SET \
             name = CASE WHEN excluded.named_at >= scopes.named_at THEN COALESCE(excluded.name, scopes.name) ELSE scopes.name END, \
             root = CASE WHEN excluded.named_at >= scopes.named_at THEN COALESCE(excluded.root, scopes.root) ELSE COALESCE(scopes.root, excluded.root) END, \
             named_at = CASE WHEN excluded.named_at >= scopes.named_at THEN excluded.named_at ELSE scopes.named_at END \
             RETURNING id",
        )
        .bind(&told.delivery.provider)
        .bind(&told.placed.host)
        .bind(id.kind.as_str())
        .bind(&id.id)
        .bind(name)
        .bind(told.event_time.micros())
        .bind(root)
        .fetch_one(&mut *self.tx)
        .await?;
        Ok(row.try_get(0)?)
    }

    /// Adds a change to the set. Returns its id, also if it was there already.
    async fn store(&mut self, told: &Told<'_>, account: Option<i64>, scope: Option<i64>) -> Result<i64, LedgerError> {
        let change = &told.placed.change;
        let row = sqlx::query(
            "INSERT INTO changes (row, ordinal, account, scope, connection, kind, event_time, received_at, loss, source, delivery) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
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
        .fetch_one(&mut *self.tx)
        .await?;
        Ok(row.try_get(0)?)
    }

    /// Sets a grant to the maximum of its changes. Returns that change.
    async fn grant(&mut self, account: i64, scope: i64) -> Result<i64, LedgerError> {
        let row = sqlx::query(
            "INSERT INTO grants (account, scope, change) \
             SELECT account, scope, id FROM changes WHERE account = $1 AND scope = $2 \
             ORDER BY CASE WHEN kind = 'seen' THEN 0 ELSE 1 END DESC, \
             event_time DESC, received_at DESC, loss DESC, source DESC, delivery DESC, id DESC LIMIT 1 \
             ON CONFLICT (account, scope) DO UPDATE SET change = excluded.change RETURNING change",
        )
        .bind(account)
        .bind(scope)
        .fetch_one(&mut *self.tx)
        .await?;
        Ok(row.try_get(0)?)
    }

    /// Sets the mark of a scope to the latest of its changes of that kind.
    async fn mark(&mut self, scope: i64, kind: &str) -> Result<(), LedgerError> {
        sqlx::query(
            "INSERT INTO marks (scope, kind, change) \
             SELECT scope, kind, id FROM changes WHERE scope = $1 AND account IS NULL AND kind = $2 \
             ORDER BY event_time DESC, received_at DESC, loss DESC, source DESC, delivery DESC, id DESC LIMIT 1 \
             ON CONFLICT (scope, kind) DO UPDATE SET change = excluded.change",
        )
        .bind(scope)
        .bind(kind)
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    /// Every account that the loss of a scope may concern, with its connection: who holds the scope or a part of it, and,
    /// if it is a root, whose link was kept because not enough was known; now it may be enough.
    async fn concerned(&mut self, scope: i64) -> Result<Vec<(i64, String)>, LedgerError> {
        let rows = sqlx::query(
            "SELECT grants.account, changes.connection FROM grants \
             JOIN changes ON changes.id = grants.change JOIN scopes ON scopes.id = grants.scope \
             WHERE (grants.scope = $1 OR scopes.root = $1) AND changes.connection IS NOT NULL AND changes.kind <> 'lost' \
             UNION SELECT statuses.account, statuses.connection FROM statuses \
             JOIN roots ON roots.connection = statuses.connection \
             WHERE roots.scope = $1 AND statuses.state = 'settled' AND statuses.desired IS NULL ORDER BY 1, 2",
        )
        .bind(scope)
        .fetch_all(&mut *self.tx)
        .await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// A root was lost: whoever is looking at an account of its connection at this moment looks again.
    async fn look_again(&mut self, scope: i64) -> Result<(), LedgerError> {
        sqlx::query(
            "UPDATE statuses SET version = version + 1 WHERE state <> 'settled' \
             AND connection IN (SELECT connection FROM roots WHERE scope = $1)",
        )
        .bind(scope)
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    /// Marks an account's status due, and whatever is under way for it as out of date.
    async fn owe(
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

    async fn effect(
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

    /// What older changes of the same grant were still to do is no longer to be done.
    async fn supersede(&mut self, newest: i64, id: &str, account: i64, scope: i64) -> Result<(), LedgerError> {
        let rows = sqlx::query(
            "UPDATE effects SET effect = 'superseded', reason = $4 WHERE account = $1 AND scope = $2 AND row <> $3 \
             AND effect IN ('pending', 'waiting', 'parked') AND kind IN ('gained', 'lost', 'seen') RETURNING row",
        )
        .bind(account)
        .bind(scope)
        .bind(newest)
        .bind(format!("delivery {id} is newer"))
        .fetch_all(&mut *self.tx)
        .await?;
        for row in rows {
            outcome::recompute(self.tx, row.try_get(0)?, self.now).await?;
        }
        Ok(())
    }

    /// A change has become the latest of its grant because another one moved back: it is no longer superseded, and what
    /// is older than it is.
    async fn reinstate(&mut self, latest: i64, account: i64, scope: i64, status: i64) -> Result<(), LedgerError> {
        let change = sqlx::query("SELECT row, delivery FROM changes WHERE id = $1")
            .bind(latest)
            .fetch_one(&mut *self.tx)
            .await?;
        let (row, id): (i64, String) = (change.try_get(0)?, change.try_get(1)?);
        self.supersede(row, &id, account, scope).await?;
        sqlx::query(
            "UPDATE effects SET effect = 'pending', reason = NULL, status = $3 \
             WHERE row = $1 AND account = $2 AND effect = 'superseded'",
        )
        .bind(row)
        .bind(account)
        .bind(status)
        .execute(&mut *self.tx)
        .await?;
        outcome::recompute(self.tx, row, self.now).await
    }
}

/// One change of one delivery, with its place in the order.
struct Told<'a> {
    row: i64,
    ordinal: i64,
    received_at: Timestamp,
    event_time: Timestamp,
    delivery: &'a Delivery,
    approved: bool,
    placed: &'a Placed,
}

enum Recorded {
    /// An operator has to say yes first.
    Held(String),
    Effects {
        count: usize,
        due: bool,
    },
}
