//! What an auditor asks for: every change of access in a period, and what became of it, in order of receipt.
//!
//! Read in pages, all in one state of the ledger, so that a period may be as long as it likes.

use std::collections::HashMap;

use serde::Serialize;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::filter::Sql;
use super::{AccountLabel, ScopeLabel, account_label, optional_status, scope_label, status};
use crate::access::observation::is_made_here;
use crate::delivery::Timestamp;
use crate::ledger::outcome::Outcome;
use crate::ledger::transaction::Transaction;
use crate::ledger::{Ledger, LedgerError, parsed};
use crate::target::{IdentityRef, LinkStatus};

/// How many deliveries are read at a time.
const PAGE: i64 = 500;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Period {
    /// From when on, by receipt.
    pub from: Timestamp,
    /// Before when.
    pub to: Timestamp,
    /// Only what concerned the account of this row.
    pub account: Option<i64>,
}

/// What brought a change about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum Cause {
    /// The provider's delivery.
    Delivery,
    /// A delivery that was published again.
    Replay {
        /// The replay.
        replay: String,
        /// Who started it; null if it was in another deployment.
        operator: Option<String>,
    },
    /// The provider's own list of who has access.
    Roster,
    /// An operator.
    Operator {
        /// Who.
        operator: String,
        /// What they did, in one word.
        action: String,
    },
}

impl Cause {
    /// In one word.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Delivery => "delivery",
            Self::Replay { .. } => "replay",
            Self::Roster => "roster",
            Self::Operator { .. } => "operator",
        }
    }

    /// The person behind it, if there is one.
    #[must_use]
    pub fn operator(&self) -> Option<&str> {
        match self {
            Self::Delivery | Self::Roster => None,
            Self::Replay { operator, .. } => operator.as_deref(),
            Self::Operator { operator, .. } => Some(operator),
        }
    }
}

/// One change of the access of one account, or a delivery that nobody could be found for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EvidenceRow {
    /// When it happened at the provider, as far as can be told.
    pub happened_at: Option<Timestamp>,
    /// When it was received.
    pub received_at: Timestamp,
    /// When the ledger had it.
    pub recorded_at: Option<Timestamp>,
    /// The account; null for a delivery that is parked or held, so that it concerns nobody yet.
    pub account: Option<AccountLabel>,
    /// What befell it, in the words of [`crate::access::Change::as_str`].
    pub change: Option<String>,
    /// What it was access to.
    pub scope: Option<ScopeLabel>,
    /// The source.
    pub source: String,
    /// The event and action.
    pub event: String,
    /// The provider's id of the delivery.
    pub delivery: String,
    /// The row of the delivery.
    pub row: i64,
    /// What brought it about.
    #[serde(flatten)]
    pub cause: Cause,
    /// What became of it.
    pub outcome: Outcome,
    /// Why.
    pub reason: Option<String>,
    /// The platform's confirmation, if it was told.
    pub told: Option<Told>,
}

/// The call by which the platform was told, and confirmed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// The number of the call: several changes may have been told by one.
    #[serde(skip)]
    pub call: i64,
    /// When it was confirmed.
    pub at: Timestamp,
    /// How long after the receipt that was, in microseconds.
    pub delay_us: i64,
    /// What it was told.
    #[serde(serialize_with = "status")]
    pub status: Option<LinkStatus>,
    /// The HTTP status of its answer.
    pub http_status: Option<i64>,
    /// How long the call took, in microseconds.
    pub duration_us: i64,
    /// The platform's row for the account.
    pub identity: Option<IdentityRef>,
}

/// What an operator did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ActionRow {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub operator: String,
    /// What, in one word.
    pub action: String,
    /// The account that it was about.
    pub account: Option<AccountLabel>,
    /// The provider's id of the delivery that it was about.
    pub delivery: Option<String>,
    /// More, for people.
    pub detail: Option<String>,
}

/// A reading of the history under way.
#[derive(Debug)]
pub struct Evidence {
    tx: Transaction,
    period: Period,
    /// The receipt and the row of the last delivery of the page before.
    after: (i64, i64),
    /// The last action of the page before.
    after_action: i64,
}

impl Ledger {
    /// Begins to read the history of a period, as it is now.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn evidence(&self, period: Period) -> Result<Evidence, LedgerError> {
        let tx = self.begin_reading().await?;
        Ok(Evidence { tx, period, after: (period.from.micros(), 0), after_action: 0 })
    }
}

impl Evidence {
    /// The next changes, in order of receipt; none when there are no more. A page may be empty and not be the last.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn changes(&mut self) -> Result<Option<Vec<EvidenceRow>>, LedgerError> {
        let page = self.deliveries().await?;
        let Some(last) = page.last() else { return Ok(None) };
        self.after = *last;
        let (first, last) = (page.first().copied().unwrap_or(self.after), self.after);
        let rows = self.rows(first, last).await?;
        let mut told = self.calls(&rows).await?;
        let causes = self.causes(first, last).await?;
        let mut changes = Vec::with_capacity(rows.len());
        for (mut row, attempt) in rows {
            row.told = attempt.and_then(|attempt| told.remove(&(attempt, row.row)));
            if let Some(told) = &mut row.told {
                told.delay_us = told.at.micros().saturating_sub(row.received_at.micros());
            }
            if let Some(cause) = causes.get(&row.row).and_then(|causes| cause(causes, &row)) {
                row.cause = cause;
            }
            changes.push(row);
        }
        Ok(Some(changes))
    }

    /// Receipt and row of the next deliveries. Only an index is read for it.
    async fn deliveries(&mut self) -> Result<Vec<(i64, i64)>, LedgerError> {
        let mut sql = Sql::new("SELECT received_at, id FROM deliveries WHERE (received_at, id) > (");
        sql.bind(self.after.0);
        sql.push(", ");
        sql.bind(self.after.1);
        sql.push(") AND received_at < ");
        sql.bind(self.period.to.micros());
        if let Some(account) = self.period.account {
            sql.push(" AND id IN (SELECT row FROM effects WHERE account = ");
            sql.bind(account);
            sql.push(")");
        }
        sql.push(" ORDER BY received_at, id LIMIT ");
        sql.bind(PAGE);
        let rows = sql.query().fetch_all(&mut *self.tx).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// What these deliveries did to whom, each with the call that told the platform.
    async fn rows(
        &mut self,
        first: (i64, i64),
        last: (i64, i64),
    ) -> Result<Vec<(EvidenceRow, Option<i64>)>, LedgerError> {
        // The columns behind the body of a delivery are read only where there is no other way: a body may be long.
        let mut sql = Sql::new(
            "SELECT deliveries.id, deliveries.received_at, deliveries.source, deliveries.delivery, deliveries.event, \
             accounts.provider, accounts.host, accounts.stable, accounts.login, effects.kind AS change, \
             effects.reason AS effect_reason, scopes.kind AS scope_kind, scopes.stable AS scope_id, \
             scopes.name AS scope_name, \
             CASE WHEN deliveries.event = 'rollcall.roster' THEN deliveries.secret END AS roster_secret, \
             CASE WHEN effects.effect IS NULL THEN deliveries.outcome ELSE effects.effect END AS effect, \
             CASE WHEN effects.effect IS NULL THEN deliveries.reason END AS reason, \
             (SELECT MIN(event_time) FROM changes WHERE changes.row = deliveries.id) AS happened_at, \
             (SELECT MIN(at) FROM outcomes WHERE outcomes.delivery = deliveries.id) AS recorded_at, \
             CASE WHEN effects.effect = 'applied' THEN (SELECT MIN(attempts.id) FROM attempts \
             WHERE attempts.status = effects.status AND attempts.result = 'done' AND attempts.operation = 'connect' \
             AND attempts.wanted IS NOT NULL AND (attempts.wanted = 'unlinked') = \
             (effects.kind IN ('lost', 'scope_lost', 'scope_moved')) AND attempts.at - attempts.duration_us >= \
             (SELECT MIN(at) FROM outcomes WHERE outcomes.delivery = deliveries.id)) END AS attempt \
             FROM deliveries LEFT JOIN effects ON effects.row = deliveries.id \
             LEFT JOIN accounts ON accounts.id = effects.account LEFT JOIN scopes ON scopes.id = effects.scope \
             WHERE (deliveries.received_at, deliveries.id) >= (",
        );
        pair(&mut sql, first);
        sql.push(") AND (deliveries.received_at, deliveries.id) <= (");
        pair(&mut sql, last);
        sql.push(")");
        match self.period.account {
            Some(account) => {
                sql.push(" AND effects.account = ");
                sql.bind(account);
            }
            None => sql.push(" AND (effects.account IS NOT NULL OR deliveries.outcome IN ('parked', 'held'))"),
        }
        sql.push(" ORDER BY deliveries.received_at, deliveries.id, effects.account");
        let rows = sql.query().fetch_all(&mut *self.tx).await?;
        rows.iter().map(|row| Ok((evidence_of(row)?, row.try_get("attempt")?))).collect()
    }

    /// The calls that told the platform, by their id and the row of the delivery.
    async fn calls(&mut self, rows: &[(EvidenceRow, Option<i64>)]) -> Result<HashMap<(i64, i64), Told>, LedgerError> {
        let mut of_call: HashMap<i64, Vec<i64>> = HashMap::new();
        for (row, attempt) in rows {
            if let Some(attempt) = attempt {
                of_call.entry(*attempt).or_default().push(row.row);
            }
        }
        if of_call.is_empty() {
            return Ok(HashMap::new());
        }
        let mut sql = Sql::new(
            "SELECT attempts.id, attempts.at, attempts.wanted, attempts.answer, attempts.duration_us, statuses.identity \
             FROM attempts JOIN statuses ON statuses.id = attempts.status WHERE attempts.id IN (",
        );
        list(&mut sql, of_call.keys().copied());
        sql.push(")");
        let mut calls = HashMap::new();
        for row in sql.query().fetch_all(&mut *self.tx).await? {
            let id: i64 = row.try_get("id")?;
            for delivery in of_call.get(&id).into_iter().flatten() {
                let told = Told {
                    call: id,
                    at: Timestamp(row.try_get("at")?),
                    delay_us: 0,
                    status: optional_status(&row, "wanted")?,
                    http_status: row.try_get("answer")?,
                    duration_us: row.try_get("duration_us")?,
                    identity: row.try_get::<Option<i64>, _>("identity")?.map(IdentityRef),
                };
                calls.insert((id, *delivery), told);
            }
        }
        Ok(calls)
    }

    /// Replays of these deliveries, and what operators did about them, by row, in order of time.
    async fn causes(
        &mut self,
        first: (i64, i64),
        last: (i64, i64),
    ) -> Result<HashMap<i64, Vec<(Timestamp, Cause)>>, LedgerError> {
        let mut causes: HashMap<i64, Vec<(Timestamp, Cause)>> = HashMap::new();
        let mut sql = Sql::new(
            "SELECT replay_deliveries.delivery, replay_deliveries.recorded_at AS at, replay_deliveries.replay, \
             replays.started_by AS operator FROM replay_deliveries \
             LEFT JOIN replays ON replays.id = replay_deliveries.replay WHERE replay_deliveries.recorded_at IS NOT NULL \
             AND replay_deliveries.delivery IN (SELECT id FROM deliveries WHERE (received_at, id) >= (",
        );
        pair(&mut sql, first);
        sql.push(") AND (received_at, id) <= (");
        pair(&mut sql, last);
        sql.push(")) ORDER BY at");
        for row in sql.query().fetch_all(&mut *self.tx).await? {
            let cause = Cause::Replay { replay: row.try_get("replay")?, operator: row.try_get("operator")? };
            causes.entry(row.try_get("delivery")?).or_default().push((Timestamp(row.try_get("at")?), cause));
        }
        let mut sql = Sql::new(
            "SELECT delivery, at, operator, action FROM actions WHERE delivery IN \
             (SELECT id FROM deliveries WHERE (received_at, id) >= (",
        );
        pair(&mut sql, first);
        sql.push(") AND (received_at, id) <= (");
        pair(&mut sql, last);
        sql.push(")) ORDER BY actions.id");
        for row in sql.query().fetch_all(&mut *self.tx).await? {
            let cause = Cause::Operator { operator: row.try_get("operator")?, action: row.try_get("action")? };
            causes.entry(row.try_get("delivery")?).or_default().push((Timestamp(row.try_get("at")?), cause));
        }
        for causes in causes.values_mut() {
            causes.sort_by_key(|(at, _)| *at);
        }
        Ok(causes)
    }

    /// The next things that operators did in the period, in order; none when there are no more.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn actions(&mut self) -> Result<Option<Vec<ActionRow>>, LedgerError> {
        let mut sql = Sql::new(
            "SELECT actions.id, actions.at, actions.operator, actions.action, actions.detail, accounts.provider, \
             accounts.host, accounts.stable, accounts.login, deliveries.delivery FROM actions \
             LEFT JOIN accounts ON accounts.id = actions.account \
             LEFT JOIN deliveries ON deliveries.id = actions.delivery WHERE actions.id > ",
        );
        sql.bind(self.after_action);
        sql.push(" AND actions.at >= ");
        sql.bind(self.period.from.micros());
        sql.push(" AND actions.at < ");
        sql.bind(self.period.to.micros());
        if let Some(account) = self.period.account {
            sql.push(" AND actions.account = ");
            sql.bind(account);
        }
        sql.push(" ORDER BY actions.id LIMIT ");
        sql.bind(PAGE);
        let rows = sql.query().fetch_all(&mut *self.tx).await?;
        let Some(last) = rows.last() else { return Ok(None) };
        self.after_action = last.try_get("id")?;
        rows.iter().map(action_of).collect::<Result<_, _>>().map(Some)
    }

    /// How many deliveries of the period have which outcome.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn outcomes(&mut self) -> Result<Vec<(Outcome, i64)>, LedgerError> {
        let mut sql = Sql::new("SELECT outcome, COUNT(*) FROM deliveries WHERE received_at >= ");
        sql.bind(self.period.from.micros());
        sql.push(" AND received_at < ");
        sql.bind(self.period.to.micros());
        if let Some(account) = self.period.account {
            sql.push(" AND id IN (SELECT row FROM effects WHERE account = ");
            sql.bind(account);
            sql.push(")");
        }
        sql.push(" GROUP BY outcome");
        let rows = sql.query().fetch_all(&mut *self.tx).await?;
        let counted = |row: &AnyRow| Ok((parsed("outcome", &row.try_get::<String, _>(0)?)?, row.try_get(1)?));
        let mut counts: Vec<(Outcome, i64)> = rows.iter().map(counted).collect::<Result<_, LedgerError>>()?;
        counts.sort_unstable();
        Ok(counts)
    }

    /// Ends the reading: one that is dropped instead closes its connection.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn end(self) -> Result<(), LedgerError> {
        self.tx.commit().await
    }
}

fn pair(sql: &mut Sql, (receipt, row): (i64, i64)) {
    sql.bind(receipt);
    sql.push(", ");
    sql.bind(row);
}

fn list(sql: &mut Sql, ids: impl Iterator<Item = i64>) {
    for (place, id) in ids.enumerate() {
        if place > 0 {
            sql.push(", ");
        }
        sql.bind(id);
    }
}

/// What brought a change about, if it wasn't the delivery itself: the last thing that came before the call which told the
/// platform, or before the end where there was none.
fn cause(causes: &[(Timestamp, Cause)], row: &EvidenceRow) -> Option<Cause> {
    let before = row.told.as_ref().map(|told| told.at.plus_micros(-told.duration_us));
    let mut earlier = causes.iter().filter(|(at, _)| before.is_none_or(|before| *at <= before));
    earlier.next_back().map(|(_, cause)| cause.clone())
}

fn evidence_of(row: &AnyRow) -> Result<EvidenceRow, LedgerError> {
    let time = |column| Ok::<_, LedgerError>(row.try_get::<Option<i64>, _>(column)?.map(Timestamp));
    // What rollcall makes of a provider's list comes as a delivery of its own; anybody may call an event so.
    let roster_secret: Option<String> = row.try_get("roster_secret")?;
    let of_effect: Option<String> = row.try_get("effect_reason")?;
    Ok(EvidenceRow {
        happened_at: time("happened_at")?,
        received_at: Timestamp(row.try_get("received_at")?),
        recorded_at: time("recorded_at")?,
        account: match row.try_get::<Option<String>, _>("stable")? {
            Some(_) => Some(account_label(row)?),
            None => None,
        },
        change: row.try_get("change")?,
        scope: scope_label(row)?,
        source: row.try_get("source")?,
        delivery: row.try_get("delivery")?,
        row: row.try_get("id")?,
        cause: if roster_secret.is_some_and(|secret| is_made_here(&secret)) { Cause::Roster } else { Cause::Delivery },
        event: row.try_get("event")?,
        outcome: parsed("outcome", &row.try_get::<String, _>("effect")?)?,
        reason: of_effect.or(row.try_get("reason")?),
        told: None,
    })
}

fn action_of(row: &AnyRow) -> Result<ActionRow, LedgerError> {
    Ok(ActionRow {
        at: Timestamp(row.try_get("at")?),
        operator: row.try_get("operator")?,
        action: row.try_get("action")?,
        account: match row.try_get::<Option<String>, _>("stable")? {
            Some(_) => Some(account_label(row)?),
            None => None,
        },
        delivery: row.try_get("delivery")?,
        detail: row.try_get("detail")?,
    })
}
