//! What the ledger says of deliveries that may be replayed: how many, whose, and in what state their accounts are.
//!
//! A replay adds no change to the set, so what it would do follows from what is recorded: a grant whose latest change the
//! delivery told has its account looked at again; any other change stays superseded. Only what couldn't be understood when
//! it was recorded has to be read again to know; that is done in [`crate::replay::plan`].

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use serde::Serialize;
use sqlx::Row;

use super::filter::{DeliveryFilter, Sql};
use crate::access::{Change, ChangeKey};
use crate::delivery::Timestamp;
use crate::ledger::outcome::Outcome;
use crate::ledger::record::Placed;
use crate::ledger::view::key_of;
use crate::ledger::{Ledger, LedgerError, parsed};

/// What would become of a delivery that was replayed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It couldn't be understood when it was recorded, and has to be read again.
    Unread,
    /// It couldn't be understood, and now it can.
    Understood,
    /// It would mean something else than when it was recorded.
    Otherwise,
    /// An account that waits, or was given up on, is tried again.
    Retried,
    /// It concerns many accounts and waits for an operator's yes.
    Held,
    /// Its accounts are looked at again.
    LookedAt,
    /// A newer change of the same access is known.
    Superseded,
    /// It still can't be understood.
    Parked,
    /// It says nothing about access.
    Ignored,
    /// It told what isn't brought to the platform.
    Nothing,
}

impl Fate {
    const ALL: [Self; 10] = [
        Self::Unread,
        Self::Understood,
        Self::Otherwise,
        Self::Retried,
        Self::Held,
        Self::LookedAt,
        Self::Superseded,
        Self::Parked,
        Self::Ignored,
        Self::Nothing,
    ];

    /// The word in the JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unread => "unread",
            Self::Understood => "understood",
            Self::Otherwise => "otherwise",
            Self::Retried => "retried",
            Self::Held => "held",
            Self::LookedAt => "looked_at",
            Self::Superseded => "superseded",
            Self::Parked => "parked",
            Self::Ignored => "ignored",
            Self::Nothing => "nothing",
        }
    }

    /// What it means, for people.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Unread => "couldn't be understood; not read again for this plan",
            Self::Understood => "couldn't be understood, and now can: recorded as what it tells",
            Self::Otherwise => "would mean something else than when it was recorded",
            Self::Retried => "its account is pending, waits or was given up on: tried again at once",
            Self::Held => "concerns many accounts: still waits for an operator's yes",
            Self::LookedAt => "its account is settled: looked at again, changed only if it has drifted",
            Self::Superseded => "a newer change of the same access is known: nothing changes",
            Self::Parked => "still can't be understood: stays parked",
            Self::Ignored => "says nothing about access: nothing changes",
            Self::Nothing => "told a name, or of what the platform has no connection for: nothing changes",
        }
    }
}

impl std::str::FromStr for Fate {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|fate| fate.as_str() == text).ok_or(())
    }
}

/// The sums over what a filter chooses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outlook {
    /// How many can be replayed.
    pub deliveries: i64,
    /// How many more are chosen and can't be: they were ignored, and keep no body.
    pub without_body: i64,
    /// How many accounts they did something to.
    pub accounts: i64,
    /// The receipt of the first of them.
    pub first: Option<Timestamp>,
    /// The receipt of the last of them.
    pub last: Option<Timestamp>,
    /// How many have each outcome now.
    pub outcomes: BTreeMap<String, i64>,
    /// How many would have each fate, as the ledger tells.
    pub fates: BTreeMap<Fate, i64>,
}

/// A change as it was recorded, without names: what, of which account, in which scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    kind: String,
    account: Option<String>,
    scope: Option<(String, String)>,
}

impl Told {
    /// The same of a change that was read just now.
    #[must_use]
    pub fn of(change: &Change) -> Self {
        let account = match change {
            Change::Access { account, .. } | Change::Renamed { account } => Some(account.key.id.clone()),
            _ => None,
        };
        let scope = change.scope().map(|scope| (scope.id.kind.as_str().to_owned(), scope.id.id.clone()));
        Self { kind: change.as_str().to_owned(), account, scope }
    }
}

/// The fate of each delivery of `kept`. A change of one account's access counts if it is the latest of its grant; one of a
/// scope as a whole always does.
const FATES: &str = "SELECT d.id AS id, d.outcome AS outcome, d.received_at AS received_at, \
    CASE WHEN d.outcome = 'held' THEN 'held' \
    WHEN MAX(CASE WHEN g.change = c.id AND s.state <> 'settled' THEN 1 ELSE 0 END) = 1 THEN 'retried' \
    WHEN MAX(CASE WHEN g.change = c.id AND s.state = 'settled' THEN 1 \
    WHEN c.account IS NULL AND c.kind IN ('scope_lost', 'scope_moved') THEN 1 ELSE 0 END) = 1 THEN 'looked_at' \
    WHEN MAX(CASE WHEN g.change <> c.id AND c.kind IN ('gained', 'lost', 'seen') THEN 1 ELSE 0 END) = 1 \
    THEN 'superseded' WHEN d.outcome = 'parked' THEN 'unread' WHEN d.outcome = 'ignored' THEN 'ignored' \
    ELSE 'nothing' END AS fate FROM kept d LEFT JOIN changes c ON c.row = d.id \
    LEFT JOIN grants g ON g.account = c.account AND g.scope = c.scope \
    LEFT JOIN statuses s ON s.account = c.account AND s.connection = c.connection \
    GROUP BY d.id, d.outcome, d.received_at";

/// Where the bodies of deliveries aren't kept, from an index of just these.
const WITH_BODY: &str = " id NOT IN (SELECT id FROM deliveries WHERE body IS NULL)";

impl Ledger {
    /// Adds a query of the deliveries that a filter chooses.
    fn choose(&self, sql: &mut Sql, columns: &'static str, filter: &DeliveryFilter) {
        let table = if filter.is_selective() { "deliveries" } else { self.database.listed() };
        for text in ["SELECT ", columns, " FROM ", table, " WHERE "] {
            sql.push(text);
        }
        filter.conditions(sql);
    }

    /// Adds a query of id and outcome of the deliveries that a filter chooses and whose bodies are kept.
    pub(in crate::ledger) fn choose_kept(&self, sql: &mut Sql, filter: &DeliveryFilter) {
        self.choose(sql, "id, outcome", filter);
        sql.push(" AND");
        sql.push(WITH_BODY);
    }

    /// The sums over what a filter chooses. One statement, which looks for the chosen ones once.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn outlook(&self, filter: &DeliveryFilter) -> Result<Outlook, LedgerError> {
        let mut sql = Sql::new("WITH chosen AS MATERIALIZED (");
        self.choose(&mut sql, "id, outcome, received_at", filter);
        sql.push("), kept AS MATERIALIZED (SELECT id, outcome, received_at FROM chosen WHERE");
        sql.push(WITH_BODY);
        sql.push("), fates AS MATERIALIZED (");
        sql.push(FATES);
        sql.push(
            ") SELECT 'fate' AS what, outcome, fate, COUNT(*), MIN(received_at), MAX(received_at) FROM fates \
             GROUP BY outcome, fate \
             UNION ALL SELECT 'chosen', '', '', COUNT(*), 0, 0 FROM chosen \
             UNION ALL SELECT 'accounts', '', '', COUNT(DISTINCT account), 0, 0 FROM effects \
             WHERE row IN (SELECT id FROM kept)",
        );
        let mut outlook = Outlook::default();
        let mut chosen = 0;
        for row in sql.query().fetch_all(&self.read).await? {
            let count: i64 = row.try_get(3)?;
            match row.try_get::<String, _>(0)?.as_str() {
                "chosen" => chosen = count,
                "accounts" => outlook.accounts = count,
                _ => {
                    let (first, last) = (Timestamp(row.try_get(4)?), Timestamp(row.try_get(5)?));
                    outlook.deliveries += count;
                    *outlook.outcomes.entry(row.try_get(1)?).or_default() += count;
                    *outlook.fates.entry(parsed("fate", &row.try_get::<String, _>(2)?)?).or_default() += count;
                    outlook.first = Some(outlook.first.map_or(first, |known| known.min(first)));
                    outlook.last = Some(outlook.last.map_or(last, |known| known.max(last)));
                }
            }
        }
        outlook.without_body = chosen - outlook.deliveries;
        Ok(outlook)
    }

    /// The sources of what a filter chooses.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn sources_of(&self, filter: &DeliveryFilter) -> Result<Vec<String>, LedgerError> {
        let mut sql = Sql::new("");
        self.choose(&mut sql, "DISTINCT source", filter);
        sql.push(" ORDER BY source");
        let rows = sql.query().fetch_all(&self.read).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// The fate of each of at most `limit` deliveries, as the ledger tells: those first that have to be read again.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn fates(&self, filter: &DeliveryFilter, limit: i64) -> Result<Vec<(i64, Fate)>, LedgerError> {
        let can_be_parked = filter.outcomes.is_empty() || filter.outcomes.contains(&Outcome::Parked);
        let mut fates = Vec::new();
        if can_be_parked {
            let parked = DeliveryFilter { outcomes: vec![Outcome::Parked], ..filter.clone() };
            let mut sql = Sql::new("WITH kept AS MATERIALIZED (");
            self.choose(&mut sql, "id, outcome, received_at", &parked);
            sql.push(" AND");
            sql.push(WITH_BODY);
            sql.push("), fates AS (");
            sql.push(FATES);
            sql.push(") SELECT id, fate FROM fates WHERE fate = 'unread' ORDER BY id LIMIT ");
            sql.bind(limit);
            fates = self.fates_of(&sql).await?;
        }
        let room = limit - i64::try_from(fates.len()).unwrap_or(limit);
        let mut sql =
            Sql::new("WITH kept AS MATERIALIZED (SELECT id, outcome, received_at FROM deliveries WHERE id IN (");
        if filter.is_unordered() {
            self.choose(&mut sql, "id", filter);
        } else {
            sql.push("SELECT id FROM deliveries WHERE ");
            filter.conditions(&mut sql);
        }
        sql.push(" AND");
        sql.push(WITH_BODY);
        // The first of them are enough, so that not all have to be looked at; some more, since the unread ones drop out.
        sql.push(" ORDER BY id LIMIT ");
        sql.bind(limit.saturating_mul(2));
        sql.push(")), fates AS (");
        sql.push(FATES);
        sql.push(") SELECT id, fate FROM fates WHERE fate <> 'unread' ORDER BY id LIMIT ");
        sql.bind(room);
        fates.extend(self.fates_of(&sql).await?);
        Ok(fates)
    }

    async fn fates_of(&self, sql: &Sql) -> Result<Vec<(i64, Fate)>, LedgerError> {
        let rows = sql.query().fetch_all(&self.read).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, parsed("fate", &row.try_get::<String, _>(1)?)?))).collect()
    }

    /// What the deliveries from `first` to `last` told when they were recorded, by row.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn told(&self, first: i64, last: i64) -> Result<BTreeMap<i64, Vec<Told>>, LedgerError> {
        let mut rows = sqlx::query(
            "SELECT changes.row, changes.kind, accounts.stable AS account, scopes.kind AS scope_kind, \
             scopes.stable AS scope FROM changes LEFT JOIN accounts ON accounts.id = changes.account \
             LEFT JOIN scopes ON scopes.id = changes.scope WHERE changes.row BETWEEN $1 AND $2 \
             ORDER BY changes.row, changes.ordinal",
        )
        .bind(first)
        .bind(last)
        .fetch(&self.read);
        let mut told: BTreeMap<i64, Vec<Told>> = BTreeMap::new();
        while let Some(row) = rows.try_next().await? {
            let scope_kind: Option<String> = row.try_get("scope_kind")?;
            told.entry(row.try_get(0)?).or_default().push(Told {
                kind: row.try_get("kind")?,
                account: row.try_get("account")?,
                scope: match scope_kind {
                    Some(kind) => Some((kind, row.try_get("scope")?)),
                    None => None,
                },
            });
        }
        Ok(told)
    }

    /// Whether a change with this place in the order would be the latest of its access. True of what isn't about one
    /// account's access.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn is_latest(&self, placed: &Placed, key: &ChangeKey) -> Result<bool, LedgerError> {
        let Change::Access { account, scope, .. } = &placed.change else { return Ok(true) };
        let latest = sqlx::query(
            "SELECT changes.event_time, changes.received_at, changes.loss, changes.source, changes.delivery, changes.began, \
             changes.step \
             FROM grants JOIN changes ON changes.id = grants.change JOIN accounts ON accounts.id = grants.account \
             JOIN scopes ON scopes.id = grants.scope WHERE accounts.provider = $1 AND accounts.host = $2 \
             AND accounts.stable = $3 AND scopes.provider = $1 AND scopes.host = $2 AND scopes.kind = $4 \
             AND scopes.stable = $5",
        )
        .bind(&account.key.provider)
        .bind(&account.key.host)
        .bind(&account.key.id)
        .bind(scope.id.kind.as_str())
        .bind(&scope.id.id)
        .fetch_optional(&self.read)
        .await?;
        match latest {
            None => Ok(true),
            Some(latest) => Ok(*key >= key_of(&latest)?),
        }
    }
}
