//! What rosters are compared with, and what is remembered from one reading to the next.

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::view::{RootsOf, account_of, connection_roots, grants, key_of};
use super::{Ledger, LedgerError, now, parsed};
use crate::access::{
    Access, AccessKind, Account, ChangeKey, Grant, Root, RootPattern, ScopeId, ScopeKind, access, is_gone,
};
use crate::delivery::{SourceName, Timestamp};
use crate::target::ConnectionRef;

/// What the ledger knows of who has access to a root and its parts.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The grants of each account, by its stable id.
    pub accounts: BTreeMap<String, KnownAccount>,
    /// When the root was lost as a whole last, if ever.
    pub root_lost: Option<ChangeKey>,
}

/// One account, as far as a root is concerned.
#[derive(Clone, Debug)]
pub struct KnownAccount {
    /// The account.
    pub account: Account,
    /// Its grants in the root and its parts, each with the latest change that is known of it.
    pub grants: Vec<(Grant, i64)>,
    /// Whether it holds nothing, and only what isn't known of this root keeps it from being gone.
    pub undecided: bool,
}

/// A difference that a reading has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// What it says: gained or lost.
    pub access: AccessKind,
    /// The end of the reading that showed it first.
    pub first_at: Timestamp,
    /// The latest change of that account and scope by then; 0 for none.
    pub basis: i64,
}

/// What the last whole reading showed, by scope and the account's stable id.
pub type ShownBefore = BTreeMap<(ScopeId, String), Shown>;

/// How a root's roster stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RosterRow {
    /// The source.
    pub source: String,
    /// The root, as it is asked for.
    pub root: String,
    /// When the last whole reading began.
    pub read_at: Option<Timestamp>,
    /// How many accounts it found.
    pub members: Option<i64>,
    /// Since when no reading has come to its end.
    pub failed_at: Option<Timestamp>,
    /// Why.
    pub failure: Option<String>,
    /// How many differences were shown once and wait for another reading.
    pub differences: i64,
}

impl Ledger {
    /// What is known of who has access to a root and its parts.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn known_of_root(
        &self,
        provider: &str,
        host: &str,
        root: &ScopeId,
        connection: Option<&ConnectionRef>,
        roots: RootsOf<'_>,
    ) -> Result<Known, LedgerError> {
        let mut tx = self.begin_reading().await?;
        let mut known = Known::default();
        let row = sqlx::query("SELECT id FROM scopes WHERE provider = $1 AND host = $2 AND kind = $3 AND stable = $4")
            .bind(provider)
            .bind(host)
            .bind(root.kind.as_str())
            .bind(&root.id)
            .fetch_optional(&mut *tx)
            .await?;
        if let Some(row) = row {
            let row = row.try_get(0)?;
            let marks = marks(&mut tx, row).await?;
            known.root_lost = marks.get(&(row, "scope_lost".to_owned())).cloned();
            known.accounts = accounts(&mut tx, row, &marks).await?;
        }
        if let Some(connection) = connection {
            undecided(&mut tx, root, connection, roots, &mut known.accounts).await?;
        }
        tx.commit().await?;
        Ok(known)
    }

    /// The roots that events of a provider's host have spoken of so far.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn spoken_roots(&self, provider: &str, host: &str) -> Result<Vec<RootPattern>, LedgerError> {
        let rows = sqlx::query(
            "SELECT DISTINCT scopes.kind, scopes.stable FROM roots JOIN scopes ON scopes.id = roots.scope \
             WHERE scopes.provider = $1 AND scopes.host = $2 ORDER BY 1, 2",
        )
        .bind(provider)
        .bind(host)
        .fetch_all(&self.read)
        .await?;
        let read = |row: &AnyRow| {
            let kind: ScopeKind = parsed("scope", &row.try_get::<String, _>(0)?)?;
            let name = if kind == ScopeKind::Instance { String::new() } else { row.try_get(1)? };
            Ok(RootPattern { kind, by_id: kind != ScopeKind::Instance, name })
        };
        rows.iter().map(read).collect()
    }

    /// What the last whole reading of a root showed.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn shown_before(&self, source: &SourceName, root: &RootPattern) -> Result<ShownBefore, LedgerError> {
        let rows = sqlx::query(
            "SELECT scope, account, access, first_at, basis FROM roster_differences WHERE source = $1 AND root = $2",
        )
        .bind(source.as_str())
        .bind(root.to_string())
        .fetch_all(&self.read)
        .await?;
        let mut shown = ShownBefore::new();
        for row in rows {
            let scope = scope_of(&row.try_get::<String, _>(0)?)?;
            let access = parsed("access", &row.try_get::<String, _>(2)?)?;
            let (first_at, basis) = (Timestamp(row.try_get(3)?), row.try_get(4)?);
            shown.insert((scope, row.try_get(1)?), Shown { access, first_at, basis });
        }
        Ok(shown)
    }

    /// Keeps what a whole reading showed, in place of what the one before did.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn keep_reading(
        &self,
        source: &SourceName,
        root: &RootPattern,
        read_at: Timestamp,
        members: usize,
        shown: &ShownBefore,
    ) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT INTO roster_readings (source, root, read_at, members) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (source, root) DO UPDATE SET read_at = excluded.read_at, members = excluded.members, \
             failed_at = NULL, failure = NULL",
        )
        .bind(source.as_str())
        .bind(root.to_string())
        .bind(read_at.micros())
        .bind(i64::try_from(members).unwrap_or(i64::MAX))
        .execute(&mut *tx)
        .await?;
        sqlx::query("DELETE FROM roster_differences WHERE source = $1 AND root = $2")
            .bind(source.as_str())
            .bind(root.to_string())
            .execute(&mut *tx)
            .await?;
        for ((scope, account), Shown { access, first_at, basis }) in shown {
            sqlx::query(
                "INSERT INTO roster_differences (source, root, scope, account, access, first_at, basis) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(source.as_str())
            .bind(root.to_string())
            .bind(scope.to_string())
            .bind(account)
            .bind(access.as_str())
            .bind(first_at.micros())
            .bind(basis)
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Notes that a reading has failed. What the last whole one showed stays as it is.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn reading_failed(&self, source: &SourceName, root: &str, why: &str) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        let now = now(&mut tx).await?;
        sqlx::query(
            "INSERT INTO roster_readings (source, root, failed_at, failure) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (source, root) DO UPDATE SET \
             failed_at = COALESCE(roster_readings.failed_at, excluded.failed_at), failure = excluded.failure",
        )
        .bind(source.as_str())
        .bind(root)
        .bind(now.micros())
        .bind(why)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Forgets the rosters of a source's other roots: they aren't read any more.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn forget_other_rosters(&self, source: &SourceName, roots: &[RootPattern]) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        let rows = sqlx::query("SELECT root FROM roster_readings WHERE source = $1")
            .bind(source.as_str())
            .fetch_all(&mut *tx)
            .await?;
        for row in rows {
            let root: String = row.try_get(0)?;
            if roots.iter().any(|known| known.to_string() == root) {
                continue;
            }
            for forget in [
                "DELETE FROM roster_differences WHERE source = $1 AND root = $2",
                "DELETE FROM roster_readings WHERE source = $1 AND root = $2",
            ] {
                sqlx::query(forget).bind(source.as_str()).bind(&root).execute(&mut *tx).await?;
            }
        }
        tx.commit().await?;
        Ok(())
    }

    /// How all rosters stand.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn rosters(&self) -> Result<Vec<RosterRow>, LedgerError> {
        let rows = sqlx::query(
            "SELECT source, root, read_at, members, failed_at, failure, (SELECT COUNT(*) FROM roster_differences \
             WHERE roster_differences.source = roster_readings.source AND roster_differences.root = roster_readings.root) \
             AS differences FROM roster_readings ORDER BY source, root",
        )
        .fetch_all(&self.read)
        .await?;
        let read = |row: &AnyRow| {
            Ok(RosterRow {
                source: row.try_get("source")?,
                root: row.try_get("root")?,
                read_at: row.try_get::<Option<i64>, _>("read_at")?.map(Timestamp),
                members: row.try_get("members")?,
                failed_at: row.try_get::<Option<i64>, _>("failed_at")?.map(Timestamp),
                failure: row.try_get("failure")?,
                differences: row.try_get("differences")?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Whether a delivery of that event of a source waits for an operator's yes.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn is_held(&self, source: &SourceName, event: &str) -> Result<bool, LedgerError> {
        let row =
            sqlx::query("SELECT id FROM deliveries WHERE outcome = 'held' AND source = $1 AND event = $2 LIMIT 1")
                .bind(source.as_str())
                .bind(event)
                .fetch_optional(&self.read)
                .await?;
        Ok(row.is_some())
    }
}

/// When a root and its parts were lost or moved as a whole, by row and kind.
async fn marks(tx: &mut AnyConnection, root: i64) -> Result<BTreeMap<(i64, String), ChangeKey>, LedgerError> {
    let rows = sqlx::query(
        "SELECT marks.scope, marks.kind, changes.event_time, changes.received_at, changes.loss, changes.source, \
         changes.delivery, changes.began, changes.step FROM marks JOIN changes ON changes.id = marks.change \
         WHERE marks.scope IN (SELECT id FROM scopes WHERE id = $1 OR root = $1)",
    )
    .bind(root)
    .fetch_all(tx)
    .await?;
    rows.iter().map(|row| Ok(((row.try_get(0)?, row.try_get(1)?), key_of(row)?))).collect()
}

/// Every account that has a grant in a root or a part of it.
async fn accounts(
    tx: &mut AnyConnection,
    root: i64,
    marks: &BTreeMap<(i64, String), ChangeKey>,
) -> Result<BTreeMap<String, KnownAccount>, LedgerError> {
    let rows = sqlx::query(
        "SELECT accounts.provider, accounts.host, accounts.stable, accounts.node_id, accounts.login, accounts.email, \
         accounts.kind, scopes.id AS scope, scopes.kind AS scope_kind, scopes.stable AS scope_id, tops.kind AS root_kind, \
         tops.stable AS root_id, changes.kind AS change, changes.event_time, changes.received_at, changes.loss, \
         changes.source, changes.delivery, changes.began, changes.step, (SELECT MAX(told.id) FROM changes AS told \
         WHERE told.scope = grants.scope AND told.account = grants.account) AS basis FROM grants \
         JOIN scopes ON scopes.id = grants.scope JOIN accounts ON accounts.id = grants.account \
         JOIN changes ON changes.id = grants.change LEFT JOIN scopes AS tops ON tops.id = scopes.root \
         WHERE scopes.id = $1 OR scopes.root = $1",
    )
    .bind(root)
    .fetch_all(tx)
    .await?;
    let mut accounts = BTreeMap::new();
    for row in rows {
        let scope: i64 = row.try_get("scope")?;
        let scope_id = |kind: &str, id: &str| -> Result<ScopeId, LedgerError> {
            Ok(ScopeId { kind: parsed("scope", &row.try_get::<String, _>(kind)?)?, id: row.try_get(id)? })
        };
        let grant = Grant {
            scope: scope_id("scope_kind", "scope_id")?,
            root: match row.try_get::<Option<String>, _>("root_kind")? {
                Some(_) => Some(scope_id("root_kind", "root_id")?),
                None => None,
            },
            kind: parsed("change", &row.try_get::<String, _>("change")?)?,
            key: key_of(&row)?,
            scope_lost: marks.get(&(scope, "scope_lost".to_owned())).cloned(),
            scope_moved: marks.get(&(scope, "scope_moved".to_owned())).cloned(),
        };
        let account = account_of(&row)?;
        accounts
            .entry(account.key.id.clone())
            .or_insert_with(|| KnownAccount { account, grants: Vec::new(), undecided: false })
            .grants
            .push((grant, row.try_get("basis")?));
    }
    Ok(accounts)
}

/// Adds the accounts of a connection that hold nothing there, and whose link is kept because of what isn't known of `root`.
async fn undecided(
    tx: &mut AnyConnection,
    root: &ScopeId,
    connection: &ConnectionRef,
    configured: RootsOf<'_>,
    accounts: &mut BTreeMap<String, KnownAccount>,
) -> Result<(), LedgerError> {
    let name = connection.to_string();
    let roots: Vec<Root> = connection_roots(&mut *tx, &name, &configured(connection)).await?;
    let rows = sqlx::query(
        "SELECT accounts.id, accounts.provider, accounts.host, accounts.stable, accounts.node_id, accounts.login, \
         accounts.email, accounts.kind FROM statuses JOIN accounts ON accounts.id = statuses.account \
         WHERE statuses.connection = $1 AND statuses.state = 'settled' AND statuses.desired IS NULL",
    )
    .bind(&name)
    .fetch_all(&mut *tx)
    .await?;
    for row in rows {
        let grants = grants(&mut *tx, row.try_get("id")?, &name).await?;
        // A root that is only configured so far is the one that is being read: nothing else has told its id.
        let unknown = |it: &Root| it.scope.as_ref().is_none_or(|scope| scope == root) && !is_gone(it, &grants, &roots);
        if matches!(access(&grants, &roots), Access::Unknown { .. }) && roots.iter().any(unknown) {
            let account = account_of(&row)?;
            accounts
                .entry(account.key.id.clone())
                .or_insert_with(|| KnownAccount { account, grants: Vec::new(), undecided: false })
                .undecided = true;
        }
    }
    Ok(())
}

/// Reads what [`ScopeId`] writes.
fn scope_of(text: &str) -> Result<ScopeId, LedgerError> {
    let unreadable = || LedgerError::Unreadable(format!("the scope {text:?}"));
    let (kind, id) = text.split_once(":#").ok_or_else(unreadable)?;
    Ok(ScopeId { kind: parsed("scope", kind)?, id: id.to_owned() })
}
