//! Which deliveries came, and what became of each.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::filter::{DeliveryFilter, Sql};
use super::{AccountLabel, AttemptRow, ScopeLabel, account_label, scope_label};
use crate::delivery::{DeliveryId, InvalidName, Timestamp};
use crate::ledger::outcome::Outcome;
use crate::ledger::{Ledger, LedgerError, parsed};

/// How many of the latest calls a story tells.
const CALLS: i64 = 50;

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

/// One replay of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplayOfIt {
    /// The replay.
    pub replay: String,
    /// When it was started; null if it was in another deployment's ledger.
    pub started_at: Option<Timestamp>,
    /// By whom.
    pub started_by: Option<String>,
    /// The outcome of the delivery when it was chosen; null if it wasn't in this ledger then.
    pub before: Option<Outcome>,
    /// When it was recorded again; null if it hasn't been yet.
    pub recorded_at: Option<Timestamp>,
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
    /// The replays that chose it, the oldest first.
    pub replayed_by: Vec<ReplayOfIt>,
    /// The calls since then for the accounts that it concerns, the latest fifty, the oldest first.
    pub attempts: Vec<AttemptRow>,
}

impl Ledger {
    /// Lists deliveries, the last recorded first, at most `limit`; with `before`, those recorded before that row.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn deliveries(
        &self,
        filter: &DeliveryFilter,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Vec<DeliveryRow>, LedgerError> {
        let rows = listing(filter, before, limit).query().fetch_all(&self.read).await?;
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
             conflicting FROM deliveries WHERE id IN (SELECT CAST($1 AS BIGINT) \
             UNION ALL SELECT id FROM deliveries WHERE delivery = CAST($2 AS TEXT)) ORDER BY id",
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
            tx.commit().await?;
            return Ok(None);
        };
        let story = Story {
            delivery: delivery_of(&found)?,
            recorded_at: Timestamp(found.try_get("recorded_at")?),
            media_type: found.try_get("encoding")?,
            body_bytes: found.try_get("body_bytes")?,
            secret: found.try_get("secret")?,
            changes: changes(&mut tx, row).await?,
            effects: effects(&mut tx, row).await?,
            history: history(&mut tx, row).await?,
            replayed_by: replays(&mut tx, row).await?,
            attempts: attempts(&mut tx, row).await?,
        };
        tx.commit().await?;
        Ok(Some(story))
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

/// The statement of a listing: first the ids alone, from an index, then the rows.
fn listing(filter: &DeliveryFilter, before: Option<i64>, limit: i64) -> Sql {
    let mut sql = Sql::new(
        "SELECT id, source, provider, delivery, event, outcome, reason, received_at, copies, replays, repeated, \
         conflicting FROM deliveries WHERE id IN (SELECT id FROM deliveries WHERE ",
    );
    filter.conditions(&mut sql);
    if let Some(before) = before {
        sql.push(" AND id < ");
        sql.bind(before);
    }
    sql.push(if filter.is_unordered() { " ORDER BY +id DESC LIMIT " } else { " ORDER BY id DESC LIMIT " });
    sql.bind(limit);
    sql.push(") ORDER BY id DESC");
    sql
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

async fn replays(tx: &mut AnyConnection, row: i64) -> Result<Vec<ReplayOfIt>, LedgerError> {
    let rows = sqlx::query(
        "SELECT replay_deliveries.replay, replays.started_at, replays.started_by, replay_deliveries.before, \
         replay_deliveries.recorded_at FROM replay_deliveries LEFT JOIN replays ON replays.id = replay_deliveries.replay \
         WHERE replay_deliveries.delivery = $1 ORDER BY replay_deliveries.replay",
    )
    .bind(row)
    .fetch_all(tx)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(ReplayOfIt {
                replay: row.try_get("replay")?,
                started_at: super::optional_time(row, "started_at")?,
                started_by: row.try_get("started_by")?,
                before: match row.try_get::<Option<String>, _>("before")? {
                    Some(outcome) => Some(parsed("outcome", &outcome)?),
                    None => None,
                },
                recorded_at: super::optional_time(row, "recorded_at")?,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::database::Database;
    use crate::ledger::outcome::Outcome;
    use crate::ledger::trial::Trial;

    async fn plan(filter: &DeliveryFilter) -> Vec<String> {
        let trial = Trial::open(Database::Sqlite).await;
        let rows = listing(filter, Some(7), 50).explained().fetch_all(&trial.ledger.read).await.unwrap();
        rows.iter().map(|row| row.try_get::<String, _>(3).unwrap()).collect()
    }

    /// A row holds the body, so that reading a hundred thousand of them takes seconds.
    #[tokio::test]
    async fn no_filter_reads_all_rows_to_find_some() {
        let all = DeliveryFilter::default;
        let at = Some(Timestamp(1));
        for filter in [
            all(),
            DeliveryFilter { outcomes: vec![Outcome::Parked], ..all() },
            DeliveryFilter { outcomes: vec![Outcome::Parked, Outcome::Held], ..all() },
            DeliveryFilter { source: Some("a".into()), ..all() },
            DeliveryFilter { provider: Some("a".into()), ..all() },
            DeliveryFilter { event: Some("a".into()), ..all() },
            DeliveryFilter { account: Some("octocat".parse().unwrap()), ..all() },
            DeliveryFilter { scope: Some("org:acme".parse().unwrap()), ..all() },
            DeliveryFilter { names: vec!["#1".parse().unwrap(), "x".parse().unwrap()], ..all() },
            DeliveryFilter { since: at, ..all() },
            DeliveryFilter { until: at, ..all() },
            DeliveryFilter { since: at, source: Some("a".into()), event: Some("b".into()), ..all() },
            DeliveryFilter { reason: Some("500".into()), ..all() },
        ] {
            let steps = plan(&filter).await;
            let reads_all = |step: &&String| step.starts_with("SCAN deliveries") && !step.contains("COVERING");
            assert_eq!(steps.iter().find(reads_all), None, "{filter}: {steps:#?}");
        }
    }
}
