//! What a sweep reads of all accounts of a connection at once, and what it marks. It settles nothing: whatever it finds is
//! due, or known to have drifted, and the reconciler does the rest.
//!
//! Each mark holds only if the account still stands as it was read, before the platform was asked: what was done about it
//! meanwhile is newer than what the sweep has found.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::database::lock_account_of;
use super::show::accounts::State;
use super::view::account_of;
use super::work::{status_of, text_of};
use super::{Ledger, LedgerError, now, parsed, unless_in_conflict};
use crate::access::Account;
use crate::delivery::Timestamp;
use crate::target::{ConnectionRef, IdentityRef, LinkStatus, PersonFrom};

/// How many accounts are marked in one transaction.
const TOGETHER: usize = 100;

/// How an account stood in a connection when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The status row.
    pub status: i64,
    /// Its version.
    pub version: i64,
    /// The account's row.
    pub account_row: i64,
    /// The account.
    pub account: Account,
    /// Whether no other account was ever seen with its login.
    pub login_is_its_own: bool,
    /// Where the work stands.
    pub state: State,
    /// Why.
    pub reason: Option<String>,
    /// What should be so, as of the last look.
    pub desired: Option<LinkStatus>,
    /// What is so, as of the last answer or reading.
    pub actual: Option<LinkStatus>,
    /// The platform's row for it, if it was found before.
    pub identity: Option<IdentityRef>,
    /// From where it is known whose it is.
    pub person_from: Option<PersonFrom>,
    /// Since when it waits; also if it was parked because that took too long.
    pub waiting_since: Option<Timestamp>,
    /// Since when it is known that somebody has set another status at the platform.
    pub drifted_at: Option<Timestamp>,
    /// Whether it is at rest: nobody is on it, and nobody will be by itself.
    pub at_rest: bool,
}

/// What a sweep makes of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// What it waited for may have come: it is due. What was read of its identity is what is so.
    Due {
        /// Its identity, and the status that it was read with.
        #[serde(skip)]
        read: Option<(IdentityRef, LinkStatus)>,
    },
    /// What is so is unknown: it is due, and looked up before anything is sent.
    Unknown,
    /// Somebody has set this at the platform, and it is left so.
    Drifted(LinkStatus),
    /// It is again as it should be.
    Returned(LinkStatus),
}

impl Ledger {
    /// When that is, and how every account of a connection stands.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn standings(&self, connection: &ConnectionRef) -> Result<(Timestamp, Vec<Standing>), LedgerError> {
        let mut tx = self.begin_reading().await?;
        let now = now(&mut tx).await?;
        let rows = sqlx::query(
            "SELECT statuses.id AS status, statuses.version, statuses.state, statuses.reason, statuses.desired, \
             statuses.actual, statuses.identity, statuses.person_from, statuses.waiting_since, statuses.drifted_at, \
             CASE WHEN statuses.due_at IS NULL AND statuses.lease_owner IS NULL AND statuses.intent IS NULL \
             THEN 1 ELSE 0 END AS at_rest, \
             accounts.id, accounts.provider, accounts.host, accounts.stable, accounts.node_id, accounts.login, \
             accounts.email, accounts.kind FROM statuses JOIN accounts ON accounts.id = statuses.account \
             WHERE statuses.connection = $1 ORDER BY statuses.id",
        )
        .bind(connection.to_string())
        .fetch_all(&mut *tx)
        .await?;
        let shared = shared_logins(&mut tx).await?;
        tx.commit().await?;
        Ok((now, rows.iter().map(|row| standing_of(row, &shared)).collect::<Result<_, _>>()?))
    }

    /// Every login that each account was ever seen with, of those that have a status in a connection.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn logins_in(&self, connection: &ConnectionRef) -> Result<HashMap<i64, Vec<String>>, LedgerError> {
        let rows = sqlx::query(
            "SELECT logins.account, logins.login FROM logins JOIN statuses ON statuses.account = logins.account \
             WHERE statuses.connection = $1 ORDER BY logins.account, logins.seen_at",
        )
        .bind(connection.to_string())
        .fetch_all(&self.read)
        .await?;
        let mut logins: HashMap<i64, Vec<String>> = HashMap::new();
        for row in rows {
            logins.entry(row.try_get(0)?).or_default().push(row.try_get(1)?);
        }
        Ok(logins)
    }

    /// Marks accounts that still stand as they were read. Returns how many of them did.
    ///
    /// # Errors
    /// If the database fails; then some may be marked.
    pub async fn mark(&self, marks: &[(&Standing, Mark, Option<String>)]) -> Result<usize, LedgerError> {
        let mut sorted: Vec<_> = marks.iter().collect();
        sorted.sort_by_key(|(standing, ..)| standing.account_row);
        let mut marked = 0;
        for together in sorted.chunks(TOGETHER) {
            marked += unless_in_conflict(|| self.mark_once(together)).await?;
        }
        Ok(marked)
    }

    async fn mark_once(&self, marks: &[&(&Standing, Mark, Option<String>)]) -> Result<usize, LedgerError> {
        let mut tx = self.begin().await?;
        let now = now(&mut tx).await?;
        let mut marked = 0;
        for (standing, mark, reason) in marks {
            lock_account_of(&mut tx, standing.status).await?;
            let updated = match *mark {
                Mark::Due { read } => due(&mut tx, standing, read, now).await?,
                Mark::Unknown => unknown(&mut tx, standing, now).await?,
                Mark::Drifted(found) => found_otherwise(&mut tx, standing, found, Some(now), reason.as_deref()).await?,
                Mark::Returned(found) => found_otherwise(&mut tx, standing, found, None, reason.as_deref()).await?,
            };
            marked += usize::from(updated > 0);
        }
        tx.commit().await?;
        Ok(marked)
    }
}

/// The logins that more than one account was seen with, by provider and host.
async fn shared_logins(tx: &mut AnyConnection) -> Result<HashSet<[String; 3]>, LedgerError> {
    let rows = sqlx::query(
        "SELECT provider, host, login FROM logins GROUP BY provider, host, login HAVING COUNT(DISTINCT account) > 1",
    )
    .fetch_all(tx)
    .await?;
    rows.iter().map(|row| Ok([row.try_get(0)?, row.try_get(1)?, row.try_get(2)?])).collect()
}

fn standing_of(row: &AnyRow, shared: &HashSet<[String; 3]>) -> Result<Standing, LedgerError> {
    let status = |column| match row.try_get::<Option<String>, _>(column)? {
        Some(text) => status_of(&text),
        None => Ok(None),
    };
    let from: Option<String> = row.try_get("person_from")?;
    let time = |column| Ok::<_, LedgerError>(row.try_get::<Option<i64>, _>(column)?.map(Timestamp));
    let account = account_of(row)?;
    let login = account.login.as_ref().map(|login| login.to_lowercase());
    let its_own =
        login.is_none_or(|login| !shared.contains(&[account.key.provider.clone(), account.key.host.clone(), login]));
    Ok(Standing {
        status: row.try_get("status")?,
        version: row.try_get("version")?,
        account_row: row.try_get("id")?,
        account,
        login_is_its_own: its_own,
        state: parsed("state", &row.try_get::<String, _>("state")?)?,
        reason: row.try_get("reason")?,
        desired: status("desired")?,
        actual: status("actual")?,
        identity: row.try_get::<Option<i64>, _>("identity")?.map(IdentityRef),
        person_from: from.as_deref().and_then(PersonFrom::named),
        waiting_since: time("waiting_since")?,
        drifted_at: time("drifted_at")?,
        at_rest: row.try_get::<i64, _>("at_rest")? != 0,
    })
}

/// One that waits, or was parked because that took too long, is looked at now.
async fn due(
    tx: &mut AnyConnection,
    standing: &Standing,
    read: Option<(IdentityRef, LinkStatus)>,
    now: Timestamp,
) -> Result<u64, LedgerError> {
    let (identity, actual) = read.unzip();
    let updated = sqlx::query(
        "UPDATE statuses SET version = version + 1, state = 'waiting', due_at = $3, \
         identity = CASE WHEN intent IS NULL THEN COALESCE($4, identity) ELSE identity END, \
         actual = CASE WHEN intent IS NULL THEN COALESCE($5, actual) ELSE actual END \
         WHERE id = $1 AND version = $2 AND state = $6 AND lease_owner IS NULL",
    )
    .bind(standing.status)
    .bind(standing.version)
    .bind(now.micros())
    .bind(identity.map(|identity| identity.0))
    .bind(actual.map(|actual| text_of(Some(actual))))
    .bind(standing.state.as_str())
    .execute(tx)
    .await?;
    Ok(updated.rows_affected())
}

async fn unknown(tx: &mut AnyConnection, standing: &Standing, now: Timestamp) -> Result<u64, LedgerError> {
    let updated = sqlx::query(
        "UPDATE statuses SET version = version + 1, state = 'pending', reason = NULL, due_at = $3, attempts = 0, \
         actual = 'unknown', drifted_at = NULL \
         WHERE id = $1 AND version = $2 AND state = 'settled' AND due_at IS NULL AND lease_owner IS NULL AND intent IS NULL",
    )
    .bind(standing.status)
    .bind(standing.version)
    .bind(now.micros())
    .execute(tx)
    .await?;
    Ok(updated.rows_affected())
}

async fn found_otherwise(
    tx: &mut AnyConnection,
    standing: &Standing,
    found: LinkStatus,
    drifted_at: Option<Timestamp>,
    reason: Option<&str>,
) -> Result<u64, LedgerError> {
    let updated = sqlx::query(
        "UPDATE statuses SET version = version + 1, actual = $3, drifted_at = CASE WHEN $4 IS NULL THEN NULL \
         ELSE COALESCE(drifted_at, $4) END, reason = $5 \
         WHERE id = $1 AND version = $2 AND state = 'settled' AND due_at IS NULL AND lease_owner IS NULL AND intent IS NULL",
    )
    .bind(standing.status)
    .bind(standing.version)
    .bind(text_of(Some(found)))
    .bind(drifted_at.map(Timestamp::micros))
    .bind(reason)
    .execute(tx)
    .await?;
    Ok(updated.rows_affected())
}
