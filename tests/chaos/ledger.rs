//! What the ledger holds, read with SQL of our own: of rollcall's code only the balance is asked, and that is checked.

use std::collections::BTreeMap;

use rollcall::ledger::Ledger;
use rollcall::ledger::balance::Balance;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Row};

use crate::harness::site::Site;

/// A look into the ledger.
pub(crate) struct Look {
    connection: AnyConnection,
    ledger: Ledger,
}

/// What became of a delivery.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) outcome: String,
    pub(crate) reason: Option<String>,
    /// When it was recorded, in microseconds.
    pub(crate) at: i64,
    pub(crate) copies: i64,
}

/// How much there still is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Deliveries that were recorded.
    pub(crate) recorded: i64,
    /// Accepted copies that were recorded.
    pub(crate) copies: i64,
    /// Accounts that are due, or will be by themselves, apart from those that wait for something outside.
    pub(crate) due: i64,
    /// Whether a halt stands.
    pub(crate) halts: i64,
    /// Deliveries that aren't settled.
    pub(crate) pending: i64,
}

impl Look {
    pub(crate) async fn into(site: &Site) -> Self {
        let ledger = site.ledger().await;
        let url = match site.schema() {
            Some(schema) => schema.url.clone(),
            None => format!("sqlite://{}?mode=ro", site.data().join("ledger.db").display()),
        };
        Self { connection: AnyConnection::connect(&url).await.unwrap(), ledger }
    }

    async fn number(&mut self, query: &str) -> i64 {
        let row = sqlx::query(AssertSqlSafe(query.to_owned())).fetch_one(&mut self.connection).await.unwrap();
        row.get(0)
    }

    pub(crate) async fn work(&mut self) -> Work {
        Work {
            recorded: self.number("SELECT COUNT(*) FROM deliveries").await,
            copies: self.number("SELECT CAST(COALESCE(SUM(copies), 0) AS BIGINT) FROM deliveries").await,
            due: self.number("SELECT COUNT(*) FROM statuses WHERE due_at IS NOT NULL AND state <> 'waiting'").await,
            halts: self.number("SELECT COUNT(*) FROM halts").await,
            pending: self.number("SELECT COUNT(*) FROM deliveries WHERE outcome = 'pending'").await,
        }
    }

    /// The rows of every delivery, by its id.
    pub(crate) async fn recorded(&mut self) -> BTreeMap<String, Vec<Recorded>> {
        let rows = sqlx::query("SELECT delivery, outcome, reason, recorded_at, copies FROM deliveries")
            .fetch_all(&mut self.connection)
            .await
            .unwrap();
        let mut all: BTreeMap<String, Vec<Recorded>> = BTreeMap::new();
        for row in rows {
            let one = Recorded { outcome: row.get(1), reason: row.get(2), at: row.get(3), copies: row.get(4) };
            all.entry(row.get(0)).or_default().push(one);
        }
        all
    }

    /// The accounts, by the provider's id, that are parked, and why.
    pub(crate) async fn parked(&mut self) -> Vec<(String, String)> {
        let rows = sqlx::query(
            "SELECT accounts.stable, COALESCE(statuses.reason, '') FROM statuses \
             JOIN accounts ON accounts.id = statuses.account WHERE statuses.state = 'parked'",
        )
        .fetch_all(&mut self.connection)
        .await
        .unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    pub(crate) async fn unreadable(&mut self) -> i64 {
        self.number("SELECT COUNT(*) FROM unreadable").await
    }

    pub(crate) async fn balance(&self) -> Balance {
        self.ledger.balance().await.unwrap()
    }
}
