//! Which deliveries came, and what became of each.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::accounts::id_and_login;
use super::{AccountLabel, AttemptRow, ScopeLabel, account_label, scope_label};
use crate::access::AccountPattern;
use crate::delivery::{DeliveryId, InvalidName, Timestamp};
use crate::ledger::outcome::Outcome;
use crate::ledger::{Ledger, LedgerError, parsed};

/// How many of the latest calls a story tells.
const CALLS: i64 = 50;

/// Which deliveries to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryFilter {
    /// Only those with this outcome.
    pub outcome: Option<Outcome>,
    /// Only those of this source.
    pub source: Option<String>,
    /// Only those of this event: with its action, or without for all of its actions.
    pub event: Option<String>,
    /// Only those that did something to such an account.
    pub account: Option<AccountPattern>,
    /// Only those received at this time or later.
    pub since: Option<Timestamp>,
    /// At most so many.
    pub limit: i64,
}

/// How people name a delivery: by the provider's id, or by `#` and the number of its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryName {
    /// `#12`: the row.
    Row(i64),
    /// The provider's id. Several sources may have one with the same id.
    Id(DeliveryId),
}

impl FromStr for DeliveryName {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix('#') {
            Some(row) => row
                .parse()
                .map(Self::Row)
                .map_err(|_| InvalidName { what: "delivery", why: "must be a number after '#'" }),
            None => text.parse().map(Self::Id),
        }
    }
}

impl fmt::Display for DeliveryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row(row) => write!(f, "#{row}"),
            Self::Id(id) => id.fmt(f),
        }
    }
}

/// One delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeliveryRow {
    /// The number of its row: names it for good.
    pub row: i64,
    /// When it was received, the earliest of all copies.
    pub received_at: Timestamp,
    /// The source.
    pub source: String,
    /// The provider.
    pub provider: String,
    /// The provider's id of it.
    pub delivery: String,
    /// The event and action.
    pub event: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Why.
    pub reason: Option<String>,
    /// How many accepted messages brought it.
    pub copies: i64,
    /// How many replays brought it again.
    pub replays: i64,
    /// Whether the same bytes came before under another id.
    pub repeated: bool,
    /// Whether the same id came before with other bytes.
    pub conflicting: bool,
}

/// What a delivery did to an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EffectRow {
    /// The account.
    #[serde(flatten)]
    pub account: AccountLabel,
    /// What befell it, in the words of [`crate::access::Change::as_str`].
    pub change: String,
    /// What it was access to.
    pub scope: Option<ScopeLabel>,
    /// The connection, if the platform has one for it.
    pub connection: Option<String>,
    /// What was done about it.
    pub effect: Outcome,
    /// Why.
    pub reason: Option<String>,
    /// The delivery that won, where a newer one did.
    pub superseded_by: Option<Winner>,
}

/// The delivery that told the latest about an access.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Winner {
    /// Its row.
    pub row: i64,
    /// The provider's id of it.
    pub delivery: String,
}

/// One thing that a delivery told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangeRow {
    /// What, in the words of [`crate::access::Change::as_str`].
    pub change: String,
    /// When it happened, as far as can be told.
    pub event_time: Timestamp,
    /// The account; null for what befell a scope or the source as a whole.
    pub account: Option<AccountLabel>,
    /// The scope.
    pub scope: Option<ScopeLabel>,
}

/// What the outcome of a delivery once was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HistoryRow {
    /// Since when.
    pub at: Timestamp,
    /// The outcome.
    pub outcome: Outcome,
    /// Why.
    pub reason: Option<String>,
}

/// Everything about one delivery but its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Story {
    /// The delivery.
    #[serde(flatten)]
    pub delivery: DeliveryRow,
    /// When the ledger had it first.
    pub recorded_at: Timestamp,
    /// The media type of the body.
    pub media_type: String,
    /// How long the body is, in bytes; null if it isn't kept.
    pub body_bytes: Option<i64>,
    /// The *name* of the secret that verified it.
    pub secret: String,
    /// What it told, in its own order.
    pub changes: Vec<ChangeRow>,
    /// What it did to each account.
    pub effects: Vec<EffectRow>,
    /// All outcomes that it had, the oldest first.
    pub history: Vec<HistoryRow>,
    /// The calls since then for the accounts that it concerns, the latest fifty, the oldest first.
    pub attempts: Vec<AttemptRow>,
}

impl Ledger {
    /// Lists deliveries, the last recorded first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn deliveries(&self, filter: &DeliveryFilter) -> Result<Vec<DeliveryRow>, LedgerError> {
        let (id, login) = filter.account.as_ref().map(id_and_login).unwrap_or_default();
        let rows = sqlx::query(
            "SELECT id, source, provider, delivery, event, outcome, reason, received_at, copies, replays, repeated, \
             conflicting FROM deliveries WHERE (CAST($1 AS TEXT) IS NULL OR outcome = $1) \
             AND (CAST($2 AS TEXT) IS NULL OR source = $2) \
             AND (CAST($3 AS TEXT) IS NULL OR event = $3 OR substr(event, 1, length($3) + 1) = $3 || '.') \
             AND (CAST($4 AS BIGINT) IS NULL OR received_at >= $4) \
             AND (CAST($5 AS BIGINT) = 0 OR id IN (SELECT effects.row FROM effects \
             JOIN accounts ON accounts.id = effects.account WHERE (CAST($6 AS TEXT) IS NULL OR accounts.provider = $6) \
             AND (CAST($7 AS TEXT) IS NULL OR accounts.host = $7) \
             AND (CAST($8 AS TEXT) IS NULL OR accounts.stable = $8) \
             AND (CAST($9 AS TEXT) IS NULL OR EXISTS \
             (SELECT 1 FROM logins WHERE logins.account = accounts.id AND logins.login = $9)))) \
             ORDER BY id DESC LIMIT $10",
        )
        .bind(filter.outcome.map(Outcome::as_str))
        .bind(filter.source.as_deref())
        .bind(filter.event.as_deref())
        .bind(filter.since.map(Timestamp::micros))
        .bind(i64::from(filter.account.is_some()))
        .bind(filter.account.as_ref().and_then(|account| account.provider.as_deref()))
        .bind(filter.account.as_ref().and_then(|account| account.host.as_deref()))
        .bind(id)
        .bind(login)
        .bind(filter.limit)
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(delivery_of).collect()
    }

    /// Every delivery that the name names: several sources may have one with the same id, and one source may have sent
    /// the same id with other bytes.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn deliveries_named(&self, name: &DeliveryName) -> Result<Vec<DeliveryRow>, LedgerError> {
        let (row, id) = match name {
            DeliveryName::Row(row) => (Some(*row), None),
            DeliveryName::Id(id) => (None, Some(id.as_str())),
        };
        let rows = sqlx::query(
            "SELECT id, source, provider, delivery, event, outcome, reason, received_at, copies, replays, repeated, \
             conflicting FROM deliveries WHERE id = CAST($1 AS BIGINT) OR delivery = CAST($2 AS TEXT) ORDER BY id",
        )
        .bind(row)
        .bind(id)
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(delivery_of).collect()
    }

    /// The whole story of the delivery with that row, if there is one.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn story(&self, row: i64) -> Result<Option<Story>, LedgerError> {
        let mut tx = self.begin_reading().await?;
        let Some(found) = sqlx::query(
            "SELECT id, source, provider, delivery, event, outcome, reason, received_at, copies, replays, repeated, \
             conflicting, recorded_at, encoding, secret, CAST(LENGTH(body) AS BIGINT) AS body_bytes \
             FROM deliveries WHERE id = $1",
        )
        .bind(row)
        .fetch_optional(&mut *tx)
        .await?
        else {
            return Ok(None);
        };
        Ok(Some(Story {
            delivery: delivery_of(&found)?,
            recorded_at: Timestamp(found.try_get("recorded_at")?),
            media_type: found.try_get("encoding")?,
            body_bytes: found.try_get("body_bytes")?,
            secret: found.try_get("secret")?,
            changes: changes(&mut tx, row).await?,
            effects: effects(&mut tx, row).await?,
            history: history(&mut tx, row).await?,
            attempts: attempts(&mut tx, row).await?,
        }))
    }

    /// The bytes that the provider signed, if they are kept: an ignored delivery keeps none.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn body(&self, row: i64) -> Result<Option<Vec<u8>>, LedgerError> {
        let found =
            sqlx::query("SELECT body FROM deliveries WHERE id = $1").bind(row).fetch_optional(&self.read).await?;
        Ok(match found {
            Some(row) => row.try_get(0)?,
            None => None,
        })
    }
}

fn delivery_of(row: &AnyRow) -> Result<DeliveryRow, LedgerError> {
    Ok(DeliveryRow {
        row: row.try_get("id")?,
        received_at: Timestamp(row.try_get("received_at")?),
        source: row.try_get("source")?,
        provider: row.try_get("provider")?,
        delivery: row.try_get("delivery")?,
        event: row.try_get("event")?,
        outcome: parsed("outcome", &row.try_get::<String, _>("outcome")?)?,
        reason: row.try_get("reason")?,
        copies: row.try_get("copies")?,
        replays: row.try_get("replays")?,
        repeated: row.try_get::<i64, _>("repeated")? != 0,
        conflicting: row.try_get::<i64, _>("conflicting")? != 0,
    })
}

/// Reads an effect from a row that has the effect's columns and `winner` and `winner_row`.
pub(super) fn effect_of(row: &AnyRow) -> Result<EffectRow, LedgerError> {
    let effect = parsed("effect", &row.try_get::<String, _>("effect")?)?;
    let winner = match (effect, row.try_get::<Option<i64>, _>("winner_row")?) {
        (Outcome::Superseded, Some(winner)) => Some(Winner { row: winner, delivery: row.try_get("winner")? }),
        _ => None,
    };
    Ok(EffectRow {
        account: account_label(row)?,
        change: row.try_get("change")?,
        scope: scope_label(row)?,
        connection: row.try_get("connection")?,
        effect,
        reason: row.try_get("effect_reason")?,
        superseded_by: winner,
    })
}

async fn effects(tx: &mut AnyConnection, row: i64) -> Result<Vec<EffectRow>, LedgerError> {
    let rows = sqlx::query(
        "SELECT accounts.provider, accounts.host, accounts.stable, accounts.login, effects.kind AS change, \
         effects.effect, effects.reason AS effect_reason, scopes.kind AS scope_kind, scopes.stable AS scope_id, \
         scopes.name AS scope_name, statuses.connection, winner.row AS winner_row, winner.delivery AS winner \
         FROM effects JOIN accounts ON accounts.id = effects.account \
         LEFT JOIN scopes ON scopes.id = effects.scope LEFT JOIN statuses ON statuses.id = effects.status \
         LEFT JOIN grants ON grants.account = effects.account AND grants.scope = effects.scope \
         LEFT JOIN changes AS winner ON winner.id = grants.change WHERE effects.row = $1 ORDER BY effects.account",
    )
    .bind(row)
    .fetch_all(tx)
    .await?;
    rows.iter().map(effect_of).collect()
}

async fn changes(tx: &mut AnyConnection, row: i64) -> Result<Vec<ChangeRow>, LedgerError> {
    let rows = sqlx::query(
        "SELECT changes.kind, changes.event_time, accounts.provider, accounts.host, accounts.stable, accounts.login, \
         scopes.kind AS scope_kind, scopes.stable AS scope_id, scopes.name AS scope_name FROM changes \
         LEFT JOIN accounts ON accounts.id = changes.account LEFT JOIN scopes ON scopes.id = changes.scope \
         WHERE changes.row = $1 ORDER BY changes.ordinal",
    )
    .bind(row)
    .fetch_all(tx)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(ChangeRow {
                change: row.try_get("kind")?,
                event_time: Timestamp(row.try_get("event_time")?),
                account: match row.try_get::<Option<String>, _>("stable")? {
                    Some(_) => Some(account_label(row)?),
                    None => None,
                },
                scope: scope_label(row)?,
            })
        })
        .collect()
}

async fn history(tx: &mut AnyConnection, row: i64) -> Result<Vec<HistoryRow>, LedgerError> {
    let rows = sqlx::query("SELECT at, outcome, reason FROM outcomes WHERE delivery = $1 ORDER BY id")
        .bind(row)
        .fetch_all(tx)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(HistoryRow {
                at: Timestamp(row.try_get("at")?),
                outcome: parsed("outcome", &row.try_get::<String, _>("outcome")?)?,
                reason: row.try_get("reason")?,
            })
        })
        .collect()
}

async fn attempts(tx: &mut AnyConnection, row: i64) -> Result<Vec<AttemptRow>, LedgerError> {
    let rows = sqlx::query(
        "SELECT attempts.at, attempts.operation, attempts.wanted, attempts.answer, attempts.result, \
         attempts.duration_us, attempts.message, statuses.connection, accounts.provider, accounts.host, \
         accounts.stable, accounts.login FROM attempts JOIN statuses ON statuses.id = attempts.status \
         JOIN accounts ON accounts.id = statuses.account \
         WHERE attempts.status IN (SELECT status FROM effects WHERE row = $1) \
         AND attempts.at >= (SELECT recorded_at FROM deliveries WHERE id = $1) ORDER BY attempts.id DESC LIMIT $2",
    )
    .bind(row)
    .bind(CALLS)
    .fetch_all(tx)
    .await?;
    rows.iter().rev().map(AttemptRow::of).collect()
}
