//! Everything that is known of one account: who it is, what is so, what should be so and why, and how it came about.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::accounts::State;
use super::deliveries::{EffectRow, effect_of};
use super::timeline::{self, Moment};
use super::{AttemptRow, ScopeLabel, optional_status, optional_time, scope_label};
use crate::access::{
    Access, AccessKind, Account, AccountKind, ChangeKey, Ended, Grant, Root, ScopeId, access, ended, is_gone,
};
use crate::delivery::Timestamp;
use crate::ledger::people::{Said, said};
use crate::ledger::view::{RootsOf, account_of, connection_roots, grants};
use crate::ledger::{Ledger, LedgerError, now, parsed};
use crate::target::{ConnectionRef, IdentityRef, LinkStatus, PersonFrom};

/// How many of the latest calls a dossier shows.
const CALLS: i64 = 20;

/// Everything that is known of one account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dossier {
    /// The account.
    #[serde(flatten)]
    pub account: super::AccountLabel,
    /// Whether a person or a machine uses it.
    pub kind: AccountKind,
    /// The provider's second id of it.
    pub node_id: Option<String>,
    /// Every login that it was ever seen with, the first seen first.
    pub logins: Vec<LoginRow>,
    /// What an operator has said of whose it is; null if nobody has.
    pub said: Option<Said>,
    /// Its status in each connection.
    pub connections: Vec<StatusDossier>,
    /// Every delivery that concerned it, the last recorded first.
    pub deliveries: Vec<Concern>,
    /// What happened, in order of time: deliveries, calls, replays and what operators did.
    pub happened: Vec<Moment>,
    /// When this was read, by the database's clock.
    pub now: Timestamp,
}

/// A login that an account was seen with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoginRow {
    /// The login, in lower case.
    pub login: String,
    /// When it was seen first.
    pub seen_at: Timestamp,
    /// Whether another account was seen with it too.
    pub shared: bool,
}

/// The status of an account in one connection, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StatusDossier {
    /// The connection.
    #[serde(serialize_with = "super::as_text")]
    pub connection: ConnectionRef,
    /// Where the work stands.
    pub state: State,
    /// Why.
    pub reason: Option<String>,
    /// What should be so, as of the last look.
    #[serde(serialize_with = "super::status")]
    pub desired: Option<LinkStatus>,
    /// What is so.
    #[serde(serialize_with = "super::status")]
    pub actual: Option<LinkStatus>,
    /// From where it is known whose it is.
    pub person_from: Option<PersonFrom>,
    /// Since when it is known that somebody has set what is so at the platform, where what should be so was applied.
    pub drifted_at: Option<Timestamp>,
    /// Since when it waits; also if it was parked because that took too long.
    pub waiting_since: Option<Timestamp>,
    /// When it is given up on if it still waits then; null if it doesn't wait, or nobody has said how long that may take.
    pub gives_up_at: Option<Timestamp>,
    /// How that is known.
    pub known: Known,
    /// The platform's row for it.
    pub identity: Option<IdentityRef>,
    /// When the oldest change was received that isn't settled yet.
    pub owed_since: Option<Timestamp>,
    /// When it is looked at next, if ever.
    pub due_at: Option<Timestamp>,
    /// Until when a worker has it.
    pub lease_until: Option<Timestamp>,
    /// Failed tries in a row.
    pub attempts: i64,
    /// What its grants and the roots imply.
    pub access: Access,
    /// What it has or had access to.
    pub grants: Vec<GrantRow>,
    /// The roots of the connection, and where it stands towards each.
    pub roots: Vec<RootRow>,
    /// The latest calls, the oldest first.
    pub calls: Vec<AttemptRow>,
}

/// How the actual status is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "how")]
pub enum Known {
    /// The platform was told, and confirmed it.
    Confirmed {
        /// When.
        at: Timestamp,
    },
    /// It was read from the platform.
    Read,
    /// It isn't: a call was sent and no answer confirmed it, so that it may or may not have been done.
    Unanswered {
        /// When it was sent.
        since: Timestamp,
        /// What it was to set.
        #[serde(serialize_with = "super::status")]
        wanted: Option<LinkStatus>,
    },
    /// It isn't: nobody has looked, or the last look didn't find it out.
    Not,
}

/// The latest that is known of one access.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GrantRow {
    /// What the access is to.
    pub scope: ScopeLabel,
    /// Whether it is held.
    pub held: bool,
    /// The latest change.
    pub change: AccessKind,
    /// When and by which delivery.
    #[serde(flatten)]
    pub by: By,
    /// What ended it, if something other than that change did.
    pub ended: Option<EndRow>,
}

/// Where a change comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct By {
    /// When it happened, as far as can be told.
    pub event_time: Timestamp,
    /// The source.
    pub source: String,
    /// The provider's id of the delivery.
    pub delivery: String,
}

impl From<&ChangeKey> for By {
    fn from(key: &ChangeKey) -> Self {
        Self { event_time: key.event_time, source: key.source.to_string(), delivery: key.delivery.to_string() }
    }
}

/// What ended an access besides its own loss.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndRow {
    /// What: `scope_lost`, `scope_moved`, `root_lost` or `instance_lost`.
    pub why: &'static str,
    /// When and by which delivery.
    #[serde(flatten)]
    pub by: By,
}

/// Where an account stands towards a root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RootRow {
    /// The root's name.
    pub root: String,
    /// `held`, `gone` or `unknown`.
    pub standing: &'static str,
}

/// A delivery that concerned an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Concern {
    /// Its row.
    pub row: i64,
    /// When it was received.
    pub received_at: Timestamp,
    /// The source.
    pub source: String,
    /// The provider's id of it.
    pub delivery: String,
    /// The event and action.
    pub event: String,
    /// What it did to the account.
    #[serde(flatten)]
    pub effect: EffectRow,
}

impl Dossier {
    /// The same, if what waits is given up on after that long.
    #[must_use]
    pub fn waiting_at_most(mut self, deadline: Duration) -> Self {
        for status in &mut self.connections {
            status.gives_up_at = status.state.gives_up_at(status.waiting_since, deadline);
        }
        self
    }
}

impl Ledger {
    /// Everything about the account with that row, if there is one, read in one transaction. Takes no lease: a worker
    /// may be on it meanwhile.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn dossier(&self, account_row: i64, roots: RootsOf<'_>) -> Result<Option<Dossier>, LedgerError> {
        let mut tx = self.begin_reading().await?;
        let now = now(&mut tx).await?;
        let Some(found) =
            sqlx::query("SELECT provider, host, stable, node_id, login, email, kind FROM accounts WHERE id = $1")
                .bind(account_row)
                .fetch_optional(&mut *tx)
                .await?
        else {
            tx.commit().await?;
            return Ok(None);
        };
        let Account { key, node_id, login, kind, .. } = account_of(&found)?;
        let names = scope_names(&mut tx, account_row).await?;
        let statuses = sqlx::query(
            "SELECT id, connection, state, reason, due_at, owed_since, attempts, desired, actual, identity, intent, \
             intent_at, lease_until, person_from, drifted_at, waiting_since FROM statuses WHERE account = $1 ORDER BY connection",
        )
        .bind(account_row)
        .fetch_all(&mut *tx)
        .await?;
        let mut connections = Vec::with_capacity(statuses.len());
        for status in statuses {
            let connection: String = status.try_get("connection")?;
            let configured = roots(&parsed("connection", &connection)?);
            let grants = grants(&mut tx, account_row, &connection).await?;
            let roots = connection_roots(&mut tx, &connection, &configured).await?;
            let calls = calls(&mut tx, status.try_get("id")?).await?;
            let confirmed = last_confirmed(&mut tx, status.try_get("id")?).await?;
            connections.push(status_dossier(&status, &grants, &roots, &names, calls, confirmed)?);
        }
        let dossier = Dossier {
            account: super::AccountLabel { key, login },
            kind,
            node_id,
            logins: logins(&mut tx, account_row).await?,
            said: said(&mut tx, account_row).await?,
            connections,
            deliveries: concerns(&mut tx, account_row).await?,
            happened: timeline::of_account(&mut tx, account_row).await?,
            now,
        };
        tx.commit().await?;
        Ok(Some(dossier))
    }
}

fn status_dossier(
    row: &AnyRow,
    grants: &[Grant],
    roots: &[Root],
    names: &HashMap<ScopeId, ScopeLabel>,
    calls: Vec<AttemptRow>,
    confirmed: Option<(Option<LinkStatus>, Timestamp)>,
) -> Result<StatusDossier, LedgerError> {
    let actual = optional_status(row, "actual")?;
    let known = match (actual, optional_time(row, "intent_at")?, confirmed) {
        (None, Some(since), _) => Known::Unanswered { since, wanted: optional_status(row, "intent")? },
        (None, None, _) => Known::Not,
        (Some(_), _, Some((told, at))) if told == actual => Known::Confirmed { at },
        (Some(_), ..) => Known::Read,
    };
    Ok(StatusDossier {
        connection: parsed("connection", &row.try_get::<String, _>("connection")?)?,
        state: parsed("state", &row.try_get::<String, _>("state")?)?,
        reason: row.try_get("reason")?,
        desired: optional_status(row, "desired")?,
        actual,
        person_from: row.try_get::<Option<String>, _>("person_from")?.as_deref().and_then(PersonFrom::named),
        drifted_at: optional_time(row, "drifted_at")?,
        waiting_since: optional_time(row, "waiting_since")?,
        gives_up_at: None,
        known,
        identity: row.try_get::<Option<i64>, _>("identity")?.map(IdentityRef),
        owed_since: optional_time(row, "owed_since")?,
        due_at: optional_time(row, "due_at")?,
        lease_until: optional_time(row, "lease_until")?,
        attempts: row.try_get("attempts")?,
        access: access(grants, roots),
        grants: grants.iter().map(|grant| grant_row(grant, grants, roots, names)).collect(),
        roots: roots.iter().map(|root| root_row(root, grants, roots)).collect(),
        calls,
    })
}

fn grant_row(grant: &Grant, grants: &[Grant], roots: &[Root], names: &HashMap<ScopeId, ScopeLabel>) -> GrantRow {
    let ended = ended(grant, grants, roots);
    let end = |why, key: &ChangeKey| Some(EndRow { why, by: key.into() });
    GrantRow {
        scope: names.get(&grant.scope).cloned().unwrap_or_else(|| ScopeLabel { id: grant.scope.clone(), name: None }),
        held: ended.is_none(),
        change: grant.kind,
        by: (&grant.key).into(),
        ended: match ended {
            None | Some(Ended::Lost(_)) => None,
            Some(Ended::ScopeLost(key)) => end("scope_lost", key),
            Some(Ended::ScopeMoved(key)) => end("scope_moved", key),
            Some(Ended::RootLost(key)) => end("root_lost", key),
            Some(Ended::InstanceLost(key)) => end("instance_lost", key),
        },
    }
}

fn root_row(root: &Root, grants: &[Grant], roots: &[Root]) -> RootRow {
    let held = grants.iter().any(|grant| {
        root.scope.as_ref() == Some(grant.root.as_ref().unwrap_or(&grant.scope))
            && ended(grant, grants, roots).is_none()
    });
    let standing = match (held, is_gone(root, grants, roots)) {
        (true, _) => "held",
        (false, true) => "gone",
        (false, false) => "unknown",
    };
    RootRow { root: root.name.clone(), standing }
}

async fn scope_names(tx: &mut AnyConnection, account: i64) -> Result<HashMap<ScopeId, ScopeLabel>, LedgerError> {
    let rows = sqlx::query(
        "SELECT scopes.kind AS scope_kind, scopes.stable AS scope_id, scopes.name AS scope_name \
         FROM grants JOIN scopes ON scopes.id = grants.scope WHERE grants.account = $1",
    )
    .bind(account)
    .fetch_all(tx)
    .await?;
    let mut names = HashMap::with_capacity(rows.len());
    for row in rows {
        names.extend(scope_label(&row)?.map(|label| (label.id.clone(), label)));
    }
    Ok(names)
}

async fn logins(tx: &mut AnyConnection, account: i64) -> Result<Vec<LoginRow>, LedgerError> {
    let rows = sqlx::query(
        "SELECT logins.login, logins.seen_at, (SELECT COUNT(*) FROM logins AS others \
         WHERE others.provider = logins.provider AND others.host = logins.host AND others.login = logins.login \
         AND others.account <> logins.account) AS others FROM logins WHERE logins.account = $1 \
         ORDER BY logins.seen_at, logins.login",
    )
    .bind(account)
    .fetch_all(tx)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(LoginRow {
                login: row.try_get("login")?,
                seen_at: Timestamp(row.try_get("seen_at")?),
                shared: row.try_get::<i64, _>("others")? > 0,
            })
        })
        .collect()
}

async fn calls(tx: &mut AnyConnection, status: i64) -> Result<Vec<AttemptRow>, LedgerError> {
    let rows = sqlx::query(
        "SELECT attempts.at, attempts.operation, attempts.wanted, attempts.answer, attempts.result, \
         attempts.duration_us, attempts.message, statuses.connection, accounts.provider, accounts.host, \
         accounts.stable, accounts.login FROM attempts JOIN statuses ON statuses.id = attempts.status \
         JOIN accounts ON accounts.id = statuses.account WHERE attempts.status = $1 ORDER BY attempts.id DESC LIMIT $2",
    )
    .bind(status)
    .bind(CALLS)
    .fetch_all(tx)
    .await?;
    rows.iter().rev().map(AttemptRow::of).collect()
}

/// What the platform confirmed last, and when.
async fn last_confirmed(
    tx: &mut AnyConnection,
    status: i64,
) -> Result<Option<(Option<LinkStatus>, Timestamp)>, LedgerError> {
    sqlx::query(
        "SELECT wanted, at FROM attempts WHERE status = $1 AND result = 'done' AND wanted IS NOT NULL \
         ORDER BY id DESC LIMIT 1",
    )
    .bind(status)
    .fetch_optional(tx)
    .await?
    .map(|row| Ok((optional_status(&row, "wanted")?, Timestamp(row.try_get("at")?))))
    .transpose()
}

async fn concerns(tx: &mut AnyConnection, account: i64) -> Result<Vec<Concern>, LedgerError> {
    let rows = sqlx::query(
        "SELECT deliveries.id, deliveries.received_at, deliveries.source, deliveries.delivery, deliveries.event, \
         accounts.provider, accounts.host, accounts.stable, accounts.login, effects.kind AS change, effects.effect, \
         effects.reason AS effect_reason, scopes.kind AS scope_kind, scopes.stable AS scope_id, \
         scopes.name AS scope_name, statuses.connection, winner.row AS winner_row, winner.delivery AS winner \
         FROM effects JOIN deliveries ON deliveries.id = effects.row JOIN accounts ON accounts.id = effects.account \
         LEFT JOIN scopes ON scopes.id = effects.scope LEFT JOIN statuses ON statuses.id = effects.status \
         LEFT JOIN grants ON grants.account = effects.account AND grants.scope = effects.scope \
         LEFT JOIN changes AS winner ON winner.id = grants.change \
         WHERE effects.account = $1 ORDER BY deliveries.id DESC",
    )
    .bind(account)
    .fetch_all(tx)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Concern {
                row: row.try_get("id")?,
                received_at: Timestamp(row.try_get("received_at")?),
                source: row.try_get("source")?,
                delivery: row.try_get("delivery")?,
                event: row.try_get("event")?,
                effect: effect_of(row)?,
            })
        })
        .collect()
}
