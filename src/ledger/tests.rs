//! The ledger on real databases: SQLite in a temporary folder, PostgreSQL in a schema of its own.

mod accounts;
mod balancing;
mod gitlab;
mod halting;
mod jobs;
mod order;
mod people;
mod recording;
mod recovering;
mod replaying;
mod rosters;
mod scopes;
mod sealing;
mod sharing;
mod silence;
mod stories;
mod sweeping;

use std::time::Duration;

use bytes::Bytes;
use rstest::rstest;
use sqlx::Row;
use uuid::Uuid;

use super::Ledger;
use super::database::Database::{self, PostgreSql, Sqlite};
use super::outcome::Outcome;
use super::record::{Entry, Placed, Reading, Record};
use super::trial::Trial;
use super::view::View;
use super::work::{Held, Lease, Settled, Settlement};
use crate::access::{
    Access, AccessKind, Account, AccountKey, AccountKind, Change, Place, RootPattern, Scope, ScopeKind, When, access,
    place,
};
use crate::delivery::{Delivery, SecretName, Stamp, Timestamp};
use crate::target::{ConnectionRef, IdentityRef, LinkStatus, PersonId};

const LEASE: Duration = Duration::from_mins(1);
const PERSON: LinkStatus = LinkStatus::Linked(PersonId(518));

/// A ledger of its own, and an ingress that stamps what it is given.
struct Site {
    ledger: Ledger,
    run: Uuid,
    sequence: u64,
    _trial: Trial,
}

impl Site {
    async fn open(on: Database) -> Self {
        let trial = Trial::open(on).await;
        Self { ledger: trial.ledger.clone(), run: Uuid::from_u128(7), sequence: 0, _trial: trial }
    }

    /// Records deliveries in one batch, each accepted anew. Returns whether an account became due.
    async fn record(&mut self, entries: impl IntoIterator<Item = Entry>) -> bool {
        let batch: Vec<Record> = entries
            .into_iter()
            .map(|mut entry| {
                if entry.delivery.replay.is_none() {
                    self.sequence += 1;
                    entry.delivery.stamp = Some(Stamp { run: self.run, sequence: self.sequence });
                }
                Record::Delivery(Box::new(entry))
            })
            .collect();
        let due = self.ledger.record(&batch).await.unwrap();
        let balance = self.ledger.balance().await.unwrap();
        assert!(balance.adds_up(), "{balance}");
        due
    }

    async fn take(&self) -> Vec<Lease> {
        self.ledger.take_due("worker", LEASE, 1000).await.unwrap().leases
    }

    /// Takes the one account that is due.
    async fn take_one(&self) -> (Lease, View) {
        let leases = self.take().await;
        let [lease] = leases.as_slice() else { panic!("one account should be due, not {}", leases.len()) };
        (lease.clone(), self.ledger.view(lease, &|_| Vec::new()).await.unwrap())
    }

    /// Reconciles whatever is due as if the platform did everything that it is asked for. Returns whose turn it was.
    async fn reconcile(&self, roots: &[RootPattern]) -> Vec<(Account, Access)> {
        let mut looked_at = Vec::new();
        for lease in self.take().await {
            let view = self.ledger.view(&lease, &|_| roots.to_vec()).await.unwrap();
            let access = access(&view.grants, &view.roots);
            let held = self.ledger.settle(&lease, view.version, &settlement_of(&access), Vec::new()).await.unwrap();
            assert_eq!(held, Held::Written);
            looked_at.push((view.account, access));
        }
        looked_at
    }

    /// Outcome, copies, repeated and conflicting of the deliveries with an id, in the order of their recording.
    async fn deliveries(&self, id: &str) -> Vec<(Outcome, i64, bool, bool)> {
        sqlx::query("SELECT outcome, copies, repeated, conflicting FROM deliveries WHERE delivery = $1 ORDER BY id")
            .bind(id)
            .fetch_all(&self.ledger.read)
            .await
            .unwrap()
            .iter()
            .map(|row| {
                let outcome: String = row.try_get(0).unwrap();
                let (repeated, conflicting): (i64, i64) = (row.try_get(2).unwrap(), row.try_get(3).unwrap());
                (outcome.parse().unwrap(), row.try_get(1).unwrap(), repeated != 0, conflicting != 0)
            })
            .collect()
    }

    async fn outcome(&self, id: &str) -> Outcome {
        self.deliveries(id).await[0].0
    }

    /// What the outcome of a delivery was, and why, from the first on.
    async fn history(&self, id: &str) -> Vec<(String, Option<String>)> {
        sqlx::query(
            "SELECT outcomes.outcome, outcomes.reason FROM outcomes JOIN deliveries ON deliveries.id = outcomes.delivery \
             WHERE deliveries.delivery = $1 ORDER BY outcomes.id",
        )
        .bind(id)
        .fetch_all(&self.ledger.read)
        .await
        .unwrap()
        .iter()
        .map(|row| (row.try_get(0).unwrap(), row.try_get(1).unwrap()))
        .collect()
    }

    async fn count(&self, table: &'static str) -> i64 {
        let count = format!("SELECT COUNT(*) FROM {table}");
        sqlx::query(sqlx::AssertSqlSafe(count)).fetch_one(&self.ledger.read).await.unwrap().try_get(0).unwrap()
    }
}

/// One worker of several: records its batches one after the other, and after each reconciles some of what is due.
async fn work(ledger: &Ledger, worker: u64, batches: Vec<Vec<Entry>>, roots: &[RootPattern]) {
    for batch in batches {
        let batch: Vec<Record> = batch.into_iter().map(|entry| Record::Delivery(Box::new(entry))).collect();
        ledger.record(&batch).await.unwrap();
        for lease in ledger.take_due(&format!("worker {worker}"), LEASE, 3).await.unwrap().leases {
            let mut held = Held::Moved;
            while held == Held::Moved {
                let view = ledger.view(&lease, &|_| roots.to_vec()).await.unwrap();
                let settlement = settlement_of(&access(&view.grants, &view.roots));
                held = ledger.settle(&lease, view.version, &settlement, Vec::new()).await.unwrap();
            }
            assert_eq!(held, Held::Written);
        }
    }
}

/// What the reconciler writes down, were every call to succeed.
fn settlement_of(access: &Access) -> Settlement {
    match access {
        Access::Held { .. } => settled(Settled::Applied, Some(PERSON), Some(PERSON)),
        Access::Gone => settled(Settled::Applied, Some(LinkStatus::Unlinked), Some(LinkStatus::Unlinked)),
        Access::Unknown { .. } => settled(Settled::Unchanged, None, Some(PERSON)),
    }
}

fn settled(result: Settled, desired: Option<LinkStatus>, actual: Option<LinkStatus>) -> Settlement {
    Settlement {
        result,
        reason: None,
        desired,
        actual,
        identity: Some(IdentityRef(71)),
        person_from: None,
        keep_drift: false,
        keep_intent: false,
        due_at: None,
    }
}

fn account(id: &str) -> Account {
    Account {
        key: AccountKey { provider: "github".into(), host: "github.com".into(), id: id.into() },
        node_id: Some(format!("U_{id}")),
        login: Some(format!("login-{id}")),
        email: None,
        kind: AccountKind::Person,
    }
}

fn org() -> Scope {
    Scope::top(ScopeKind::Org, "1001", Some("acme".into()))
}

fn repo(id: &str) -> Scope {
    org().part(ScopeKind::Repo, id, Some(format!("acme/{id}")))
}

fn gained(id: &str, scope: Scope) -> Change {
    Change::Access { account: account(id), scope, kind: AccessKind::Gained }
}

fn lost(id: &str, scope: Scope) -> Change {
    Change::Access { account: account(id), scope, kind: AccessKind::Lost }
}

fn seen(id: &str, scope: Scope) -> Change {
    Change::Access { account: account(id), scope, kind: AccessKind::Seen }
}

/// As the worker places a change of a source with these roots; none if it is foreign.
fn placed(roots: &[RootPattern], change: Change) -> Option<Placed> {
    let top_is_root = match change.scope() {
        Some(scope) if place(roots, scope) == Place::Foreign => return None,
        Some(scope) => {
            let top = Scope { id: scope.top_id().clone(), name: scope.top_name().map(str::to_owned), root: None };
            place(roots, &top) == Place::Root
        }
        None => false,
    };
    Some(Placed {
        change,
        connection: Some(ConnectionRef::Only("GITHUB".into())),
        host: "github.com".into(),
        top_is_root,
        mass_change_limit: 50,
        turn: None,
    })
}

/// A delivery of which the ledger knows only when it was received: at so many seconds.
fn delivery(id: &str, second: i64) -> Delivery {
    Delivery {
        source: "acme-github".parse().unwrap(),
        provider: "github".into(),
        id: id.parse().unwrap(),
        event: "organization.member_added".parse().unwrap(),
        received_at: Timestamp(1_790_000_000_000_000 + second * 1_000_000),
        secret: SecretName("env:HOOK".into()),
        stamp: None,
        replay: None,
        body: Bytes::from(format!("{{\"of\":\"{id}\"}}")),
    }
}

/// A delivery that tells one thing.
fn told(id: &str, second: i64, change: Change) -> Entry {
    let changes = placed(&[], change).into_iter().collect();
    Entry {
        delivery: delivery(id, second),
        reading: Reading::Told { changes, note: None, when: When::default() },
        approved: false,
    }
}
