//! What happened to an account, or with a delivery, in order of time: deliveries, calls, replays, and people's part in it.

use std::time::Duration;

use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::accounts::State;
use super::deliveries::{Story, Winner, effect_of};
use super::{AccountLabel, ScopeLabel, account_label, optional_status, optional_time, status};
use crate::access::observation::is_made_here;
use crate::delivery::Timestamp;
use crate::ledger::outcome::Outcome;
use crate::ledger::{Ledger, LedgerError, parsed};
use crate::target::LinkStatus;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// When: a delivery's receipt, else when the ledger had it.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Happening {
    /// A delivery was received that concerned the account.
    Delivery {
        /// Its row.
        row: i64,
        /// The provider's id of it.
        delivery: String,
        /// The source.
        source: String,
        /// The event and action.
        event: String,
        /// Whether it is rollcall's own, of what the provider's list shows.
        roster: bool,
        /// What it told.
        change: String,
        /// Of which scope.
        scope: Option<ScopeLabel>,
        /// What became of that.
        effect: Outcome,
        /// Why.
        reason: Option<String>,
        /// The delivery that won, where a newer one did.
        superseded_by: Option<Winner>,
    },
    /// A delivery came to something.
    Outcome {
        /// What.
        outcome: Outcome,
        /// Why.
        reason: Option<String>,
    },
    /// A delivery was published again, and recorded.
    Replay {
        /// The replay.
        replay: String,
        /// Who started it; null if it was in another deployment.
        operator: Option<String>,
        /// The row of the delivery.
        row: i64,
        /// The provider's id of the delivery.
        delivery: String,
        /// Its outcome before.
        before: Option<Outcome>,
    },
    /// An operator did something.
    Action {
        /// Who.
        operator: String,
        /// What, in one word.
        action: String,
        /// More, for people.
        detail: Option<String>,
    },
    /// The platform was called.
    Call {
        /// The connection.
        connection: String,
        /// What was called.
        operation: String,
        /// What it was to set.
        #[serde(serialize_with = "status")]
        wanted: Option<LinkStatus>,
        /// The HTTP status, if there was an answer.
        http_status: Option<i64>,
        /// `done`, or the class of the failure.
        result: String,
        /// How long it took, in microseconds.
        duration_us: i64,
        /// What was said.
        message: Option<String>,
    },
}

/// What a delivery still waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wait {
    /// Whose status.
    #[serde(flatten)]
    pub account: AccountLabel,
    /// In which connection.
    pub connection: String,
    /// Where the work stands.
    pub state: State,
    /// What it waits for.
    pub reason: Option<String>,
    /// When it is looked at again, if ever.
    pub due_at: Option<Timestamp>,
    /// Since when it waits for something outside, if it does.
    pub waiting_since: Option<Timestamp>,
    /// When it is given up on if it still waits then; null if nobody has said how long that may take.
    pub gives_up_at: Option<Timestamp>,
    /// Failed tries in a row.
    pub attempts: i64,
}

impl Explanation {
    /// The same, if what waits is given up on after that long.
    #[must_use]
    pub fn waiting_at_most(mut self, deadline: Duration) -> Self {
        for wait in &mut self.waits_for {
            wait.gives_up_at = wait.state.gives_up_at(wait.waiting_since, deadline);
        }
        self
    }
}

/// A delivery with all that came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The delivery.
    #[serde(flatten)]
    pub story: Story,
    /// What it waits for; nothing if it is done.
    pub waits_for: Vec<Wait>,
    /// What happened, in order of time.
    pub happened: Vec<Moment>,
}

impl Ledger {
    /// The delivery with that row and all that came of it, if there is one.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn explanation(&self, row: i64) -> Result<Option<Explanation>, LedgerError> {
        let Some(story) = self.story(row).await? else { return Ok(None) };
        let mut tx = self.begin_reading().await?;
        let mut happened: Vec<Moment> = story
            .history
            .iter()
            .map(|line| Moment {
                at: line.at,
                what: Happening::Outcome { outcome: line.outcome, reason: line.reason.clone() },
            })
            .collect();
        happened.extend(replays(&mut tx, "replay_deliveries.delivery = $1", row).await?);
        happened.extend(actions(&mut tx, "delivery = $1", row).await?);
        let calls = "attempts.status IN (SELECT status FROM effects WHERE row = $1) \
            AND attempts.at >= (SELECT recorded_at FROM deliveries WHERE id = $1)";
        happened.extend(self::calls(&mut tx, calls, row).await?);
        happened.sort_by_key(|moment| moment.at);
        let waits_for = waits(&mut tx, row).await?;
        tx.commit().await?;
        Ok(Some(Explanation { story, waits_for, happened }))
    }
}

/// What happened to an account.
pub(super) async fn of_account(tx: &mut AnyConnection, account: i64) -> Result<Vec<Moment>, LedgerError> {
    let mut happened = deliveries(tx, account).await?;
    let concerning = "replay_deliveries.delivery IN (SELECT row FROM effects WHERE account = $1)";
    happened.extend(replays(tx, concerning, account).await?);
    let about = "account = $1 OR delivery IN (SELECT row FROM effects WHERE effects.account = $1)";
    happened.extend(actions(tx, about, account).await?);
    happened.extend(calls(tx, "attempts.status IN (SELECT id FROM statuses WHERE account = $1)", account).await?);
    happened.sort_by_key(|moment| moment.at);
    Ok(happened)
}

async fn deliveries(tx: &mut AnyConnection, account: i64) -> Result<Vec<Moment>, LedgerError> {
    let rows = sqlx::query(
        "SELECT deliveries.id, deliveries.received_at, deliveries.source, deliveries.delivery, deliveries.event, \
         deliveries.secret, accounts.provider, accounts.host, accounts.stable, accounts.login, \
         effects.kind AS change, effects.effect, \
         effects.reason AS effect_reason, scopes.kind AS scope_kind, scopes.stable AS scope_id, \
         scopes.name AS scope_name, statuses.connection, winner.row AS winner_row, winner.delivery AS winner \
         FROM effects JOIN deliveries ON deliveries.id = effects.row JOIN accounts ON accounts.id = effects.account \
         LEFT JOIN scopes ON scopes.id = effects.scope LEFT JOIN statuses ON statuses.id = effects.status \
         LEFT JOIN grants ON grants.account = effects.account AND grants.scope = effects.scope \
         LEFT JOIN changes AS winner ON winner.id = grants.change \
         WHERE effects.account = $1 ORDER BY deliveries.received_at, deliveries.id",
    )
    .bind(account)
    .fetch_all(tx)
    .await?;
    let moment = |row: &AnyRow| {
        let effect = effect_of(row)?;
        Ok(Moment {
            at: Timestamp(row.try_get("received_at")?),
            what: Happening::Delivery {
                row: row.try_get("id")?,
                delivery: row.try_get("delivery")?,
                source: row.try_get("source")?,
                event: row.try_get("event")?,
                roster: is_made_here(&row.try_get::<String, _>("secret")?),
                change: effect.change,
                scope: effect.scope,
                effect: effect.effect,
                reason: effect.reason,
                superseded_by: effect.superseded_by,
            },
        })
    };
    rows.iter().map(moment).collect()
}

async fn replays(tx: &mut AnyConnection, which: &'static str, row: i64) -> Result<Vec<Moment>, LedgerError> {
    let text = sqlx::AssertSqlSafe(format!(
        "SELECT replay_deliveries.recorded_at, replay_deliveries.replay, replays.started_by, replay_deliveries.before, \
         deliveries.id, deliveries.delivery FROM replay_deliveries \
         LEFT JOIN replays ON replays.id = replay_deliveries.replay \
         JOIN deliveries ON deliveries.id = replay_deliveries.delivery \
         WHERE replay_deliveries.recorded_at IS NOT NULL AND {which} ORDER BY replay_deliveries.recorded_at"
    ));
    let moment = |row: &AnyRow| {
        let before: Option<String> = row.try_get("before")?;
        Ok(Moment {
            at: Timestamp(row.try_get("recorded_at")?),
            what: Happening::Replay {
                replay: row.try_get("replay")?,
                operator: row.try_get("started_by")?,
                row: row.try_get("id")?,
                delivery: row.try_get("delivery")?,
                before: before.map(|before| parsed("outcome", &before)).transpose()?,
            },
        })
    };
    sqlx::query(text).bind(row).fetch_all(tx).await?.iter().map(moment).collect()
}

async fn actions(tx: &mut AnyConnection, which: &'static str, row: i64) -> Result<Vec<Moment>, LedgerError> {
    let text =
        sqlx::AssertSqlSafe(format!("SELECT at, operator, action, detail FROM actions WHERE {which} ORDER BY id"));
    let moment = |row: &AnyRow| {
        Ok(Moment {
            at: Timestamp(row.try_get("at")?),
            what: Happening::Action {
                operator: row.try_get("operator")?,
                action: row.try_get("action")?,
                detail: row.try_get("detail")?,
            },
        })
    };
    sqlx::query(text).bind(row).fetch_all(tx).await?.iter().map(moment).collect()
}

async fn calls(tx: &mut AnyConnection, which: &'static str, row: i64) -> Result<Vec<Moment>, LedgerError> {
    let text = sqlx::AssertSqlSafe(format!(
        "SELECT attempts.at, attempts.operation, attempts.wanted, attempts.answer, attempts.result, \
         attempts.duration_us, attempts.message, statuses.connection FROM attempts \
         JOIN statuses ON statuses.id = attempts.status WHERE {which} ORDER BY attempts.id"
    ));
    let moment = |row: &AnyRow| {
        Ok(Moment {
            at: Timestamp(row.try_get("at")?),
            what: Happening::Call {
                connection: row.try_get("connection")?,
                operation: row.try_get("operation")?,
                wanted: optional_status(row, "wanted")?,
                http_status: row.try_get("answer")?,
                result: row.try_get("result")?,
                duration_us: row.try_get("duration_us")?,
                message: row.try_get("message")?,
            },
        })
    };
    sqlx::query(text).bind(row).fetch_all(tx).await?.iter().map(moment).collect()
}

async fn waits(tx: &mut AnyConnection, row: i64) -> Result<Vec<Wait>, LedgerError> {
    let rows = sqlx::query(
        "SELECT accounts.provider, accounts.host, accounts.stable, accounts.login, statuses.connection, statuses.state, \
         statuses.reason, statuses.due_at, statuses.attempts, statuses.waiting_since FROM effects \
         JOIN statuses ON statuses.id = effects.status JOIN accounts ON accounts.id = effects.account \
         WHERE effects.row = $1 AND effects.effect IN ('pending', 'waiting', 'parked') ORDER BY effects.account",
    )
    .bind(row)
    .fetch_all(tx)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Wait {
                account: account_label(row)?,
                connection: row.try_get("connection")?,
                state: parsed("state", &row.try_get::<String, _>("state")?)?,
                reason: row.try_get("reason")?,
                due_at: optional_time(row, "due_at")?,
                waiting_since: optional_time(row, "waiting_since")?,
                gives_up_at: None,
                attempts: row.try_get("attempts")?,
            })
        })
        .collect()
}
