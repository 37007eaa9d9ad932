//! A small ledger with one of everything, on a fixed clock: what the tests of listings look at.

use std::time::Duration;

use uuid::Uuid;

use crate::access::{AccessKind, Account, AccountKey, AccountKind, Change, Scope, ScopeKind, When};
use crate::delivery::{Delivery, SecretName, Stamp, Timestamp};
use crate::ledger::Ledger;
use crate::ledger::database::Database;
use crate::ledger::record::{Entry, Placed, Reading, Record};
use crate::ledger::trial::Trial;
use crate::ledger::work::{Attempt, Held, Lease, Settled, Settlement};
use crate::target::{ConnectionRef, FailureClass, IdentityRef, LinkStatus, PersonId};

/// 2026-11-24T08:00:00Z.
const START: Timestamp = Timestamp(1_795_507_200_000_000);
const LEASE: Duration = Duration::from_secs(60);

/// The ledger, and the folder that it lives in.
pub(crate) struct Sample {
    pub(crate) ledger: Ledger,
    trial: Trial,
    sequence: u64,
}

/// The minutes after the start.
fn minute(minutes: i64) -> Timestamp {
    START.plus_micros(minutes * 60_000_000)
}

fn account(id: &str, login: &str) -> Account {
    let key = AccountKey { provider: "github".into(), host: "github.com".into(), id: id.into() };
    Account { key, node_id: None, login: Some(login.into()), email: None, kind: AccountKind::Person }
}

fn org() -> Scope {
    Scope::top(ScopeKind::Org, "1", Some("acme".into()))
}

impl Sample {
    async fn empty() -> Self {
        let trial = Trial::open(Database::Sqlite).await;
        Self { ledger: trial.ledger.clone(), trial, sequence: 0 }
    }

    /// The ledger of the stories below.
    pub(crate) async fn new() -> Self {
        let mut sample = Self::empty().await;
        let joined = |id, login| (account(id, login), org(), AccessKind::Gained);

        // Octocat joins, in two copies; the platform is told.
        for _ in 0..2 {
            sample.told(0, "join-1", "organization.member_added", joined("583231", "octocat")).await;
        }
        let lease = sample.lease(1).await;
        let version = sample.intend(&lease, LinkStatus::Linked(PersonId(518))).await;
        let told = sample.attempt(&lease, 200, None, None).await;
        let done = sample.settlement(Settled::Applied, Some(LinkStatus::Linked(PersonId(518))), None);
        sample.settle(&lease, version, done, vec![told]).await;

        // An older copy of the story arrives late; a repository is lost, which isn't leaving.
        sample.told(-30, "late-1", "organization.member_added", joined("583231", "octocat")).await;
        let web = org().part(ScopeKind::Repo, "7", Some("acme/web".into()));
        let lost = (account("583231", "octocat"), web, AccessKind::Lost);
        sample.told(3, "left-repo", "member.removed", lost).await;
        let lease = sample.lease(3).await;
        let unchanged = sample.settlement(Settled::Unchanged, Some(LinkStatus::Linked(PersonId(518))), None);
        let version = sample.version(&lease).await;
        sample.settle(&lease, version, unchanged, Vec::new()).await;

        // Two accounts have had the login mona; nobody knows whose the second one is.
        sample.told(4, "join-2", "organization.member_added", joined("7", "mona")).await;
        sample
            .told(4, "left-2", "organization.member_removed", (account("7", "mona-old"), org(), AccessKind::Lost))
            .await;
        let lease = sample.lease(5).await;
        let version = sample.version(&lease).await;
        let settlement = Settlement {
            desired: Some(LinkStatus::Unlinked),
            actual: Some(LinkStatus::Unlinked),
            ..sample.settlement(Settled::Unchanged, None, Some("the platform had it already"))
        };
        sample.settle(&lease, version, settlement, Vec::new()).await;
        sample.told(6, "join-3", "organization.member_added", joined("77", "mona")).await;
        let lease = sample.lease(6).await;
        let version = sample.version(&lease).await;
        let settlement = Settlement {
            due_at: Some(minute(66)),
            identity: None,
            ..sample.settlement(Settled::Waiting, None, Some("nobody knows whose account it is"))
        };
        sample.settle(&lease, version, settlement, Vec::new()).await;

        // A call for hubber isn't answered.
        sample.told(7, "join-4", "organization.member_added", joined("9", "hubber")).await;
        let lease = sample.lease(7).await;
        let version = sample.intend(&lease, LinkStatus::Linked(PersonId(77))).await;
        let failed = sample.attempt(&lease, 500, Some(FailureClass::Transient), Some("Internal server error")).await;
        let settlement = Settlement {
            desired: Some(LinkStatus::Linked(PersonId(77))),
            keep_intent: true,
            due_at: Some(minute(9)),
            ..sample.settlement(Settled::Failed, None, Some("500: Internal server error"))
        };
        sample.settle(&lease, version, settlement, vec![failed]).await;

        // Two that aren't about anybody.
        sample.record(8, "star-1", "star.created", Reading::Ignored("it says nothing about access".into())).await;
        let misshapen = Reading::Parked("organization.login: missing field".into());
        sample.record(8, "odd-1", "organization.member_added", misshapen).await;
        let (why, body) = ("it isn't one of ours: it has no headers".to_owned(), "hello".into());
        let stranger = Record::Unreadable { id: Some("m-1".to_owned()), why, body, properties: None };
        for minutes in [8, 9] {
            sample.clock(minute(minutes)).await;
            sample.ledger.record(std::slice::from_ref(&stranger)).await.unwrap();
        }
        sample.clock(minute(10)).await;
        sample
    }

    /// Gives an account another login, as a label from outside may be anything.
    pub(crate) async fn call(&self, id: &str, login: &str) {
        let query = sqlx::query("UPDATE accounts SET login = $2 WHERE stable = $1").bind(id).bind(login);
        query.execute(&self.ledger.write).await.unwrap();
    }

    /// Stops the database's clock at a time.
    async fn clock(&self, at: Timestamp) {
        self.trial.set_clock(at).await;
    }

    async fn told(&mut self, minutes: i64, id: &str, event: &str, what: (Account, Scope, AccessKind)) {
        let (account, scope, kind) = what;
        let placed = Placed {
            change: Change::Access { account, scope, kind },
            connection: Some(ConnectionRef::Id(12)),
            host: "github.com".into(),
            top_is_root: true,
            mass_change_limit: 50,
            turn: None,
        };
        self.record(minutes, id, event, Reading::Told { changes: vec![placed], note: None, when: When::default() })
            .await;
    }

    async fn record(&mut self, minutes: i64, id: &str, event: &str, reading: Reading) {
        self.sequence += 1;
        let delivery = Delivery {
            source: "acme-github".parse().unwrap(),
            provider: "github".into(),
            id: id.parse().unwrap(),
            event: event.parse().unwrap(),
            received_at: minute(minutes),
            secret: SecretName("env:GITHUB_WEBHOOK_SECRET".into()),
            stamp: Some(Stamp { run: Uuid::nil(), sequence: self.sequence }),
            replay: None,
            body: format!("{{\"delivery\":\"{id}\"}}").into_bytes().into(),
        };
        self.clock(minute(minutes.max(0))).await;
        let entry = Entry { delivery, reading, approved: false };
        self.ledger.record(&[Record::Delivery(Box::new(entry))]).await.unwrap();
    }

    async fn lease(&self, minutes: i64) -> Lease {
        self.clock(minute(minutes)).await;
        self.ledger.take_due("worker", LEASE, 1).await.unwrap().leases.pop().unwrap()
    }

    async fn version(&self, lease: &Lease) -> i64 {
        self.ledger.view(lease, &|_| Vec::new()).await.unwrap().version
    }

    async fn intend(&self, lease: &Lease, wanted: LinkStatus) -> i64 {
        let version = self.version(lease).await;
        assert_eq!(self.ledger.intend(lease, version, wanted, LEASE, Vec::new()).await.unwrap(), Held::Written);
        version
    }

    async fn attempt(
        &self,
        lease: &Lease,
        answer: u16,
        failure: Option<FailureClass>,
        message: Option<&str>,
    ) -> Attempt {
        let wanted = self.ledger.view(lease, &|_| Vec::new()).await.unwrap().intent.map(|(wanted, _)| wanted);
        Attempt {
            operation: "connect",
            wanted,
            answer: Some(answer),
            failure,
            duration: Duration::from_millis(120),
            message: message.map(ToOwned::to_owned),
        }
    }

    fn settlement(&self, result: Settled, status: Option<LinkStatus>, reason: Option<&str>) -> Settlement {
        Settlement {
            result,
            reason: reason.map(ToOwned::to_owned),
            desired: status,
            actual: status,
            identity: Some(IdentityRef(9001)),
            person_from: None,
            keep_drift: false,
            keep_intent: false,
            due_at: None,
        }
    }

    async fn settle(&self, lease: &Lease, version: i64, settlement: Settlement, attempts: Vec<Attempt>) {
        assert_eq!(self.ledger.settle(lease, version, &settlement, attempts).await.unwrap(), Held::Written);
    }
}
