//! Everything that decides about one account's status, read in one transaction.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::work::{Lease, status_of};
use super::{Ledger, LedgerError, now, parsed};
use crate::access::{Account, AccountKey, AccountKind, ChangeKey, Grant, Root, RootPattern, ScopeId, Turn};
use crate::delivery::Timestamp;
use crate::target::{ConnectionRef, IdentityRef, LinkStatus};

/// The configured roots of a connection, which the ledger doesn't know; empty if every root spoken of is one.
pub type RootsOf<'a> = &'a (dyn Fn(&ConnectionRef) -> Vec<RootPattern> + Send + Sync);

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
    /// Since when it waits for something outside.
    pub waiting_since: Option<Timestamp>,
    /// What had been applied before somebody set another status at the platform, if that is known.
    pub drifted_from: Option<LinkStatus>,
    /// When the oldest change that isn't settled yet was received.
    pub owed_since: Option<Timestamp>,
    /// Transient failures so far.
    pub attempts: i64,
    /// The time of the reading, by the database's clock.
    pub now: Timestamp,
}

impl Ledger {
    /// Everything that decides about one account's status.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn view(&self, lease: &Lease, roots: RootsOf<'_>) -> Result<View, LedgerError> {
        let mut tx = self.begin_reading().await?;
        let now = now(&mut tx).await?;
        let row = sqlx::query(
            "SELECT statuses.version, statuses.connection, statuses.actual, statuses.identity, statuses.intent, \
             statuses.intent_at, statuses.attempts, statuses.owed_since, statuses.waiting_since, \
             CASE WHEN statuses.drifted_at IS NOT NULL THEN statuses.desired END AS drifted_from, accounts.id, accounts.provider, accounts.host, accounts.stable, \
             accounts.node_id, accounts.login, accounts.email, accounts.kind, \
             (SELECT CASE WHEN attempts.result = 'transient' THEN attempts.wanted END FROM attempts \
             WHERE attempts.status = statuses.id AND attempts.operation = 'connect' \
             AND attempts.at >= statuses.owed_since ORDER BY attempts.id DESC LIMIT 1) AS doubted FROM statuses JOIN accounts ON accounts.id = statuses.account WHERE statuses.id = $1",
        )
        .bind(lease.status)
        .fetch_one(&mut *tx)
        .await?;
        let connection: String = row.try_get("connection")?;
        let reference: ConnectionRef = parsed("connection", &connection)?;
        let account_row = row.try_get("id")?;
        let account = account_of(&row)?;
        let intent: Option<String> = row.try_get("intent")?;
        let intent_at: Option<i64> = row.try_get("intent_at")?;
        let view = View {
            version: row.try_get("version")?,
            account_row,
            login_is_its_own: !shares_login(&mut tx, account_row, &account).await?,
            account,
            grants: grants(&mut tx, account_row, &connection).await?,
            roots: connection_roots(&mut tx, &connection, &roots(&reference)).await?,
            connection: reference,
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
            waiting_since: row.try_get::<Option<i64>, _>("waiting_since")?.map(Timestamp),
            drifted_from: match row.try_get::<Option<String>, _>("drifted_from")? {
                Some(applied) => status_of(&applied)?,
                None => None,
            },
            owed_since: row.try_get::<Option<i64>, _>("owed_since")?.map(Timestamp),
            attempts: row.try_get("attempts")?,
            now,
        };
        tx.commit().await?;
        Ok(view)
    }
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

pub(super) fn key_of(row: &AnyRow) -> Result<ChangeKey, LedgerError> {
    Ok(ChangeKey {
        turn: Turn::of_numbers(row.try_get("began")?, row.try_get("step")?),
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
         changes.delivery, changes.began, changes.step FROM grants JOIN changes ON changes.id = grants.change JOIN scopes ON scopes.id = grants.scope \
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
        "SELECT changes.event_time, changes.received_at, changes.loss, changes.source, changes.delivery, \
         changes.began, changes.step FROM marks JOIN changes ON changes.id = marks.change WHERE marks.scope = $1 AND marks.kind = $2",
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
