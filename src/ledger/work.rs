//! Due accounts go out under a lease and come back settled.
//!
//! A lease is taken by the database's clock, and work is settled only while the lease is held and only at the version
//! that it looked at; else whoever holds it looks again. Before each call an *intent* is committed: from then on the
//! actual status is unknown until an answer or a fresh read.

use std::time::Duration;

use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use uuid::Uuid;

use super::outcome::{self, Outcome};
use super::{Ledger, LedgerError, now, parsed};
use crate::access::{Account, AccountKey, AccountKind, ChangeKey, Grant, Root, RootPattern, ScopeId};
use crate::delivery::Timestamp;
use crate::target::{ConnectionRef, FailureClass, IdentityRef, LinkStatus, PersonId};

/// The right to work on one account's status, until a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The status row.
    pub status: i64,
    /// Who holds it.
    pub owner: String,
}

/// What is known of one (account, connection), all read in one transaction.
#[derive(Clone, Debug)]
pub struct View {
    /// The version that this is.
    pub version: i64,
    /// The account's row.
    pub account_row: i64,
    /// The account.
    pub account: Account,
    /// Whether no other account was ever seen with its login.
    pub login_is_its_own: bool,
    /// The connection.
    pub connection: ConnectionRef,
    /// Its grants there.
    pub grants: Vec<Grant>,
    /// The roots there.
    pub roots: Vec<Root>,
    /// The status as of the last 2xx or fresh read; none if unknown.
    pub actual: Option<LinkStatus>,
    /// The platform's row, if it was found before.
    pub identity: Option<IdentityRef>,
    /// What was sent and never answered, and when.
    pub intent: Option<(LinkStatus, Timestamp)>,
    /// What was sent last for what is owed, if it was answered with a transient failure: it may have been done.
    pub doubted: Option<LinkStatus>,
    /// Transient failures so far.
    pub attempts: i64,
    /// The time of the reading, by the database's clock.
    pub now: Timestamp,
}

/// Whether what was to be written for a lease could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It is written.
    Written,
    /// Nothing is: the version has moved, and the lease still holds. Look again.
    Moved,
    /// Nothing is: the lease is over. Somebody else looks.
    Lost,
}

/// How a look at an account ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// What is now the case.
    pub result: Settled,
    /// One sentence for people.
    pub reason: Option<String>,
    /// What should be so, as far as it could be told.
    pub desired: Option<LinkStatus>,
    /// The status as of a 2xx or a fresh read; none if unknown.
    pub actual: Option<LinkStatus>,
    /// The platform's row.
    pub identity: Option<IdentityRef>,
    /// Whether an intent is still unanswered.
    pub keep_intent: bool,
    /// When to look again, if at all.
    pub due_at: Option<Timestamp>,
}

/// The ways in which a look at an account ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Settled {
    /// The platform was told and confirmed.
    Applied,
    /// Nothing was to be done.
    Unchanged,
    /// It waits for something outside.
    Waiting,
    /// It is to be tried again; this try counts as an attempt.
    Failed,
    /// It is to be tried again; this try doesn't count.
    Postponed,
    /// Nobody tries again by itself.
    Parked,
}

impl Settled {
    const fn state(self) -> &'static str {
        match self {
            Self::Applied | Self::Unchanged => "settled",
            Self::Waiting => "waiting",
            Self::Failed | Self::Postponed => "pending",
            Self::Parked => "parked",
        }
    }
}

/// One call, as history.
#[derive(Clone, Debug)]
pub struct Attempt<'a> {
    /// What was called: `connect` or `look up`.
    pub operation: &'static str,
    /// The status that it was to set.
    pub wanted: Option<LinkStatus>,
    /// The HTTP status, if there was an answer.
    pub answer: Option<u16>,
    /// How it failed; none for success.
    pub failure: Option<FailureClass>,
    /// How long it took.
    pub duration: Duration,
    /// What was said.
    pub message: Option<&'a str>,
}

impl Ledger {
    /// Leases up to `limit` due accounts, those that lost access first. Each lease is one of its own, also among those
    /// of one owner: what a look that took too long settles is not settled under somebody else's lease.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn take_due(&self, owner: &str, lease: Duration, limit: i64) -> Result<Vec<Lease>, LedgerError> {
        let owner = format!("{owner} {}", Uuid::now_v7());
        let mut tx = self.begin().await?;
        let now = now(&mut tx).await?;
        let rows = sqlx::query(
            "UPDATE statuses SET lease_owner = $1, lease_until = $2 WHERE id IN (\
             SELECT id FROM statuses WHERE due_at <= $3 AND (lease_until IS NULL OR lease_until <= $3) \
             ORDER BY CASE WHEN losing = 1 OR desired = 'unlinked' THEN 0 ELSE 1 END, due_at LIMIT $4) \
             RETURNING id, CASE WHEN losing = 1 OR desired = 'unlinked' THEN 0 ELSE 1 END, due_at",
        )
        .bind(&owner)
        .bind(now.plus(lease).micros())
        .bind(now.micros())
        .bind(limit)
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        // What an update returns has no order.
        let mut taken: Vec<(i64, i64, i64)> = rows
            .iter()
            .map(|row| Ok((row.try_get(1)?, row.try_get(2)?, row.try_get(0)?)))
            .collect::<Result<_, sqlx::Error>>()?;
        taken.sort_unstable();
        Ok(taken.into_iter().map(|(_, _, status)| Lease { status, owner: owner.clone() }).collect())
    }

    /// Ends all leases. For a process that is alone with its ledger and has just started: whoever held them is gone, and
    /// what it had sent and not heard of is still waited for (see the intent).
    ///
    /// # Errors
    /// If the database fails.
    pub async fn end_leases(&self) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE statuses SET lease_owner = NULL, lease_until = NULL WHERE lease_owner IS NOT NULL")
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    /// How long until the next account can be taken; none if none ever will. One that is leased can't before that ends.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn next_due(&self) -> Result<Option<Duration>, LedgerError> {
        let row = sqlx::query(
            "SELECT (SELECT MIN(CASE WHEN lease_until > due_at THEN lease_until ELSE due_at END) FROM statuses \
             WHERE due_at IS NOT NULL), (SELECT now_us FROM clock)",
        )
        .fetch_one(&self.read)
        .await?;
        let (due, now): (Option<i64>, i64) = (row.try_get(0)?, row.try_get(1)?);
        Ok(due.map(|due| Timestamp(due).since(Timestamp(now))))
    }

    /// Everything that decides about one account's status. `roots` are the configured roots of its connection; empty if
    /// every root that was spoken of is one.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn view(&self, lease: &Lease, roots: &[RootPattern]) -> Result<View, LedgerError> {
        let mut tx = self.read.begin().await?;
        let now = now(&mut tx).await?;
        let row = sqlx::query(
            "SELECT statuses.version, statuses.connection, statuses.actual, statuses.identity, statuses.intent, \
             statuses.intent_at, statuses.attempts, accounts.id, accounts.provider, accounts.host, accounts.stable, \
             accounts.node_id, accounts.login, accounts.email, accounts.kind, \
             (SELECT CASE WHEN attempts.result = 'transient' THEN attempts.wanted END FROM attempts \
             WHERE attempts.status = statuses.id AND attempts.operation = 'connect' \
             AND attempts.at >= statuses.owed_since ORDER BY attempts.id DESC LIMIT 1) AS doubted FROM statuses JOIN accounts ON accounts.id = statuses.account WHERE statuses.id = $1",
        )
        .bind(lease.status)
        .fetch_one(&mut *tx)
        .await?;
        let connection: String = row.try_get("connection")?;
        let account_row = row.try_get("id")?;
        let account = account_of(&row)?;
        let intent: Option<String> = row.try_get("intent")?;
        let intent_at: Option<i64> = row.try_get("intent_at")?;
        Ok(View {
            version: row.try_get("version")?,
            account_row,
            login_is_its_own: !shares_login(&mut tx, account_row, &account).await?,
            account,
            grants: grants(&mut tx, account_row, &connection).await?,
            roots: connection_roots(&mut tx, &connection, roots).await?,
            connection: parsed("connection", &connection)?,
            actual: status_of(&row.try_get::<String, _>("actual")?)?,
            identity: row.try_get::<Option<i64>, _>("identity")?.map(IdentityRef),
            intent: match (intent, intent_at) {
                (Some(intent), Some(at)) => status_of(&intent)?.map(|status| (status, Timestamp(at))),
                _ => None,
            },
            doubted: match row.try_get::<Option<String>, _>("doubted")? {
                Some(sent) => status_of(&sent)?,
                None => None,
            },
            attempts: row.try_get("attempts")?,
            now,
        })
    }

    /// Commits the intent to set a status: from here on the actual status is unknown. Also renews the lease.
    /// Unless it says [`Held::Written`], nothing may be sent.
    ///
    /// # Errors
    /// If the database fails; then nothing may be sent.
    pub async fn intend(
        &self,
        lease: &Lease,
        version: i64,
        wanted: LinkStatus,
        renew: Duration,
    ) -> Result<Held, LedgerError> {
        let mut tx = self.begin().await?;
        let now = now(&mut tx).await?;
        let updated = sqlx::query(
            "UPDATE statuses SET intent = $4, intent_at = $5, actual = 'unknown', desired = $4, lease_until = $6 \
             WHERE id = $1 AND lease_owner = $2 AND version = $3 AND lease_until > $5",
        )
        .bind(lease.status)
        .bind(&lease.owner)
        .bind(version)
        .bind(text_of(Some(wanted)))
        .bind(now.micros())
        .bind(now.plus(renew).micros())
        .execute(&mut *tx)
        .await?
        .rows_affected();
        let held = held(&mut tx, lease, updated, now).await?;
        tx.commit().await?;
        Ok(held)
    }

    /// Writes down a call.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn attempt(&self, lease: &Lease, attempt: Attempt<'_>) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        let now = now(&mut tx).await?;
        sqlx::query(
            "INSERT INTO attempts (status, at, operation, wanted, answer, result, duration_us, message) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(lease.status)
        .bind(now.micros())
        .bind(attempt.operation)
        .bind(attempt.wanted.map(|status| text_of(Some(status))))
        .bind(attempt.answer.map(i64::from))
        .bind(attempt.failure.map_or("done", FailureClass::as_str))
        .bind(i64::try_from(attempt.duration.as_micros()).unwrap_or(i64::MAX))
        .bind(attempt.message)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Writes down how a look at an account ended, gives the lease back, and settles the effects of its deliveries.
    /// Unless it says [`Held::Written`], nothing of it holds; only what a 2xx or a fresh read has shown is kept while
    /// the lease is.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn settle(&self, lease: &Lease, version: i64, settlement: &Settlement) -> Result<Held, LedgerError> {
        let mut tx = self.begin().await?;
        let now = now(&mut tx).await?;
        let settled = matches!(settlement.result, Settled::Applied | Settled::Unchanged | Settled::Parked);
        let updated = sqlx::query(
            "UPDATE statuses SET state = $4, reason = $5, desired = $6, actual = $7, identity = $8, \
             intent = CASE WHEN $9 = 1 THEN intent ELSE NULL END, \
             intent_at = CASE WHEN $9 = 1 THEN intent_at ELSE NULL END, \
             due_at = $10, attempts = CASE $11 WHEN 1 THEN attempts + 1 WHEN 2 THEN 0 ELSE attempts END, \
             owed_since = CASE WHEN $12 = 1 THEN NULL ELSE owed_since END, \
             losing = CASE WHEN $12 = 1 THEN 0 ELSE losing END, lease_owner = NULL, lease_until = NULL \
             WHERE id = $1 AND lease_owner = $2 AND version = $3 AND lease_until > $13",
        )
        .bind(lease.status)
        .bind(&lease.owner)
        .bind(version)
        .bind(settlement.result.state())
        .bind(&settlement.reason)
        .bind(settlement.desired.map(|status| text_of(Some(status))))
        .bind(text_of(settlement.actual))
        .bind(settlement.identity.map(|identity| identity.0))
        .bind(i64::from(settlement.keep_intent))
        .bind(settlement.due_at.map(Timestamp::micros))
        .bind(match settlement.result {
            Settled::Failed => 1_i64,
            Settled::Applied | Settled::Unchanged | Settled::Waiting => 2,
            Settled::Postponed | Settled::Parked => 0,
        })
        .bind(i64::from(settled))
        .bind(now.micros())
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if updated == 0 {
            // The next look starts from what this one has learned.
            sqlx::query(
                "UPDATE statuses SET actual = $3, identity = $4, \
                 intent = CASE WHEN $5 = 1 THEN intent ELSE NULL END, \
                 intent_at = CASE WHEN $5 = 1 THEN intent_at ELSE NULL END \
                 WHERE id = $1 AND lease_owner = $2 AND lease_until > $6",
            )
            .bind(lease.status)
            .bind(&lease.owner)
            .bind(text_of(settlement.actual))
            .bind(settlement.identity.map(|identity| identity.0))
            .bind(i64::from(settlement.keep_intent))
            .bind(now.micros())
            .execute(&mut *tx)
            .await?;
        } else {
            settle_effects(&mut tx, lease.status, settlement, now).await?;
        }
        let held = held(&mut tx, lease, updated, now).await?;
        tx.commit().await?;
        Ok(held)
    }

    /// Makes every account that waits due now, because something outside has changed. Returns how many.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn wake_waiting(&self) -> Result<u64, LedgerError> {
        let mut tx = self.begin().await?;
        let now = now(&mut tx).await?;
        let woken = sqlx::query("UPDATE statuses SET due_at = $1 WHERE state = 'waiting'")
            .bind(now.micros())
            .execute(&mut *tx)
            .await?
            .rows_affected();
        tx.commit().await?;
        Ok(woken)
    }
}

async fn held(tx: &mut AnyConnection, lease: &Lease, updated: u64, now: Timestamp) -> Result<Held, LedgerError> {
    if updated == 1 {
        return Ok(Held::Written);
    }
    let still = sqlx::query("SELECT id FROM statuses WHERE id = $1 AND lease_owner = $2 AND lease_until > $3")
        .bind(lease.status)
        .bind(&lease.owner)
        .bind(now.micros())
        .fetch_optional(tx)
        .await?;
    Ok(if still.is_some() { Held::Moved } else { Held::Lost })
}

async fn settle_effects(
    tx: &mut AnyConnection,
    status: i64,
    settlement: &Settlement,
    now: Timestamp,
) -> Result<(), LedgerError> {
    let open = sqlx::query(
        "SELECT row, account, kind FROM effects WHERE status = $1 AND effect IN ('pending', 'waiting', 'parked') ORDER BY row",
    )
    .bind(status)
    .fetch_all(&mut *tx)
    .await?;
    for effect in open {
        let (row, account): (i64, i64) = (effect.try_get(0)?, effect.try_get(1)?);
        let kind: String = effect.try_get(2)?;
        let takes_away = matches!(kind.as_str(), "lost" | "scope_lost" | "scope_moved");
        // A delivery is applied if the platform was told what it told, not the opposite.
        let agrees = match settlement.desired {
            Some(LinkStatus::Linked(_)) => !takes_away,
            Some(LinkStatus::Unlinked) => takes_away,
            None => true,
        };
        let still_has_access = takes_away && !agrees;
        let (outcome, reason) = match settlement.result {
            Settled::Applied if agrees => (Outcome::Applied, settlement.reason.as_deref()),
            _ if still_has_access => (Outcome::Unchanged, Some("the account still has access otherwise")),
            Settled::Applied => (Outcome::Unchanged, Some("the account has lost access since")),
            Settled::Unchanged => (Outcome::Unchanged, settlement.reason.as_deref()),
            Settled::Waiting => (Outcome::Waiting, settlement.reason.as_deref()),
            Settled::Failed | Settled::Postponed => (Outcome::Pending, settlement.reason.as_deref()),
            Settled::Parked => (Outcome::Parked, settlement.reason.as_deref()),
        };
        sqlx::query("UPDATE effects SET effect = $3, reason = $4 WHERE row = $1 AND account = $2")
            .bind(row)
            .bind(account)
            .bind(outcome.as_str())
            .bind(reason)
            .execute(&mut *tx)
            .await?;
        outcome::recompute(&mut *tx, row, now).await?;
    }
    Ok(())
}

/// Reads an account from a row that has the account's columns.
pub(super) fn account_of(row: &AnyRow) -> Result<Account, LedgerError> {
    Ok(Account {
        key: AccountKey { provider: row.try_get("provider")?, host: row.try_get("host")?, id: row.try_get("stable")? },
        node_id: row.try_get("node_id")?,
        login: row.try_get("login")?,
        email: row.try_get("email")?,
        kind: if row.try_get::<String, _>("kind")? == "bot" { AccountKind::Bot } else { AccountKind::Person },
    })
}

/// How the ledger writes a status down: `unknown`, `unlinked`, or the person's id.
pub(super) fn text_of(status: Option<LinkStatus>) -> String {
    match status {
        None => "unknown".to_owned(),
        Some(LinkStatus::Unlinked) => "unlinked".to_owned(),
        Some(LinkStatus::Linked(person)) => person.to_string(),
    }
}

/// Reads it back.
pub(super) fn status_of(text: &str) -> Result<Option<LinkStatus>, LedgerError> {
    Ok(match text {
        "unknown" => None,
        "unlinked" => Some(LinkStatus::Unlinked),
        person => Some(LinkStatus::Linked(PersonId(parsed("status", person)?))),
    })
}

fn key_of(row: &AnyRow) -> Result<ChangeKey, LedgerError> {
    Ok(ChangeKey {
        event_time: Timestamp(row.try_get("event_time")?),
        received_at: Timestamp(row.try_get("received_at")?),
        loss: row.try_get::<i64, _>("loss")? != 0,
        source: parsed("source", &row.try_get::<String, _>("source")?)?,
        delivery: parsed("delivery id", &row.try_get::<String, _>("delivery")?)?,
    })
}

pub(super) async fn grants(tx: &mut AnyConnection, account: i64, connection: &str) -> Result<Vec<Grant>, LedgerError> {
    let rows = sqlx::query(
        "SELECT grants.scope, scopes.kind AS scope_kind, scopes.stable AS scope_id, roots.kind AS root_kind, \
         roots.stable AS root_id, changes.kind, changes.event_time, changes.received_at, changes.loss, changes.source, \
         changes.delivery FROM grants JOIN changes ON changes.id = grants.change JOIN scopes ON scopes.id = grants.scope \
         LEFT JOIN scopes AS roots ON roots.id = scopes.root \
         WHERE grants.account = $1 AND changes.connection = $2 ORDER BY grants.scope",
    )
    .bind(account)
    .bind(connection)
    .fetch_all(&mut *tx)
    .await?;
    let mut grants = Vec::with_capacity(rows.len());
    for row in rows {
        let scope: i64 = row.try_get("scope")?;
        let kind: String = row.try_get("kind")?;
        grants.push(Grant {
            scope: ScopeId {
                kind: parsed("scope", &row.try_get::<String, _>("scope_kind")?)?,
                id: row.try_get("scope_id")?,
            },
            root: match row.try_get::<Option<String>, _>("root_kind")? {
                Some(kind) => Some(ScopeId { kind: parsed("scope", &kind)?, id: row.try_get("root_id")? }),
                None => None,
            },
            kind: parsed("change", &kind)?,
            key: key_of(&row)?,
            scope_lost: mark(tx, scope, "scope_lost").await?,
            scope_moved: mark(tx, scope, "scope_moved").await?,
        });
    }
    Ok(grants)
}

/// Whether another account was ever seen with this one's login. Lower case is made here and not by the database, which
/// may know no letters beyond ASCII.
async fn shares_login(tx: &mut AnyConnection, row: i64, account: &Account) -> Result<bool, LedgerError> {
    let Some(login) = &account.login else { return Ok(false) };
    let other = sqlx::query(
        "SELECT account FROM logins WHERE provider = $1 AND host = $2 AND login = $3 AND account <> $4 LIMIT 1",
    )
    .bind(&account.key.provider)
    .bind(&account.key.host)
    .bind(login.to_lowercase())
    .bind(row)
    .fetch_optional(tx)
    .await?;
    Ok(other.is_some())
}

async fn mark(tx: &mut AnyConnection, scope: i64, kind: &str) -> Result<Option<ChangeKey>, LedgerError> {
    sqlx::query(
        "SELECT changes.event_time, changes.received_at, changes.loss, changes.source, changes.delivery \
         FROM marks JOIN changes ON changes.id = marks.change WHERE marks.scope = $1 AND marks.kind = $2",
    )
    .bind(scope)
    .bind(kind)
    .fetch_optional(&mut *tx)
    .await?
    .map(|row| key_of(&row))
    .transpose()
}

/// The roots of a connection: those that are configured, whether or not any event has spoken of them; else all that
/// events have spoken of.
pub(super) async fn connection_roots(
    tx: &mut AnyConnection,
    connection: &str,
    configured: &[RootPattern],
) -> Result<Vec<Root>, LedgerError> {
    let rows = sqlx::query(
        "SELECT scopes.id, scopes.kind, scopes.stable, scopes.name FROM roots JOIN scopes ON scopes.id = roots.scope \
         WHERE roots.connection = $1 ORDER BY scopes.id",
    )
    .bind(connection)
    .fetch_all(&mut *tx)
    .await?;
    let mut known = Vec::with_capacity(rows.len());
    for row in rows {
        let scope = ScopeId { kind: parsed("scope", &row.try_get::<String, _>(1)?)?, id: row.try_get(2)? };
        let name: Option<String> = row.try_get(3)?;
        let lost = mark(tx, row.try_get(0)?, "scope_lost").await?;
        known.push((scope, name, lost));
    }
    let shown = |scope: &ScopeId, name: Option<&String>| {
        name.map_or_else(|| scope.to_string(), |name| format!("{}:{name}", scope.kind.as_str()))
    };
    let mut roots: Vec<Root> = known
        .iter()
        .filter(|(scope, name, _)| {
            configured.is_empty() || configured.iter().any(|root| root.matches(scope, name.as_deref()))
        })
        .map(|(scope, name, lost)| Root {
            name: shown(scope, name.as_ref()),
            scope: Some(scope.clone()),
            lost: lost.clone(),
        })
        .collect();
    for pattern in configured {
        if !known.iter().any(|(scope, name, _)| pattern.matches(scope, name.as_deref())) {
            roots.push(Root { scope: None, name: pattern.to_string(), lost: None });
        }
    }
    Ok(roots)
}
