//! Outages of the platform, from the first failure to the last account that was owed, on a clock that the test turns.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use rstest::rstest;
use tokio::net::TcpListener;
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;
use crate::access::{AccessKind, Account, AccountKey, AccountKind, Change, Scope, ScopeKind, When};
use crate::broker::State;
use crate::delivery::{Delivery, SecretName};
use crate::drata;
use crate::ledger::database::Database;
use crate::ledger::outcome::Outcome;
use crate::ledger::record::{Entry, Placed, Reading, Record};
use crate::ledger::trial::Trial;
use crate::sandbox::{Fault, Identity, Options, Person, Sandbox};
use crate::target::ConnectionRef;

const HOUR: Duration = Duration::from_hours(1);
const BEGAN: Timestamp = Timestamp(1_790_000_000_000_000);
/// Accounts that had joined before the outage, and leave in it; as many others join in it.
const ACCOUNTS: i64 = 10;

struct Site {
    trial: Trial,
    drata: Sandbox,
    base_url: url::Url,
    now: Timestamp,
    tasks: Tasks,
}

impl Site {
    async fn open() -> Self {
        let drata = Sandbox::new(Options {
            people: Some((1..=2 * ACCOUNTS).map(person).collect()),
            identities: Some((1..=2 * ACCOUNTS).map(identity).collect()),
            requests_per_minute: None,
            ..Options::default()
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/public", listener.local_addr().unwrap()).parse().unwrap();
        let tasks = Tasks::new();
        tasks.short_lived("test", drata.clone().serve(listener, tasks.token().clone()));
        let trial = Trial::open(Database::Sqlite).await;
        trial.set_clock(BEGAN).await;
        Self { trial, drata, base_url, now: BEGAN, tasks }
    }

    fn reconciler(&self, request_timeout: Duration) -> Reconciler {
        self.reconciler_that(OnAccessLost::Unlink, request_timeout)
    }

    fn reconciler_that(&self, on_access_lost: OnAccessLost, request_timeout: Duration) -> Reconciler {
        let mut policies = Policies::default();
        policies.add(ConnectionRef::Id(12), on_access_lost, Drift::Report, &["org:#1001".parse().unwrap()]);
        let client = drata::Settings {
            requests_per_minute: 600_000,
            timeout: request_timeout,
            ..drata::Settings::new(self.base_url.clone())
        };
        let (first, max) = (Duration::from_secs(2), Duration::from_mins(10));
        Reconciler::new(
            self.trial.ledger.clone(),
            Client::new(client, "key".into()).unwrap(),
            People::default(),
            policies,
            Settings {
                second_look: Duration::from_secs(120),
                schedule: Schedule { first, factor: 2.0, max, attempts: 12 },
                waiting: Duration::from_mins(15),
                deadline: Duration::from_hours(72),
                request_timeout,
                concurrency: 8,
                dry_run: false,
            },
        )
    }

    async fn record(&self, accounts: impl IntoIterator<Item = i64>, kind: AccessKind) {
        let batch: Vec<Record> = accounts.into_iter().map(|n| record(n, kind, self.now)).collect();
        self.trial.ledger.record(&batch).await.unwrap();
    }

    /// Works on whatever is due and lets time pass to whatever is next, until nothing is, or the time is over.
    async fn work(&mut self, reconciler: &Reconciler, until: Option<Timestamp>) {
        for batch in 0.. {
            let leases = reconciler.take(8, batch).await.unwrap();
            if !leases.is_empty() {
                join_all(leases.iter().map(|lease| reconciler.work(lease))).await;
                continue;
            }
            let Some(next) = self.next().await.filter(|next| until.is_none_or(|until| *next < until)) else {
                break;
            };
            self.now = next;
            self.trial.set_clock(next).await;
        }
        if let Some(until) = until {
            self.now = until;
            self.trial.set_clock(until).await;
        }
    }

    /// When something can next be taken.
    async fn next(&self) -> Option<Timestamp> {
        let after = self.trial.ledger.next_due().await.unwrap()?;
        let due = self.now.plus(after.max(Duration::from_millis(1)));
        let probe = self.trial.number("SELECT MAX(probe_at) FROM halts").await.map_or(due, Timestamp);
        Some(due.max(probe))
    }
}

fn person(n: i64) -> Person {
    Person {
        id: 500 + n,
        email: format!("dev-{n}@acme.example"),
        first_name: format!("dev-{n}"),
        last_name: String::new(),
        employment_status: "CURRENT_EMPLOYEE".to_owned(),
    }
}

fn identity(n: i64) -> Identity {
    Identity {
        id: 9000 + n,
        identity_id: n.to_string(),
        username: format!("dev-{n}"),
        connection_id: 12,
        client_type: "GITHUB".to_owned(),
        ..Identity::default()
    }
}

fn record(n: i64, kind: AccessKind, at: Timestamp) -> Record {
    let account = Account {
        key: AccountKey { provider: "github".into(), host: "github.com".into(), id: n.to_string() },
        node_id: None,
        login: Some(format!("dev-{n}")),
        email: Some(format!("dev-{n}@acme.example")),
        kind: AccountKind::Person,
    };
    let placed = Placed {
        change: Change::Access { account, scope: Scope::top(ScopeKind::Org, "1001", Some("acme".into())), kind },
        connection: Some(ConnectionRef::Id(12)),
        host: "github.com".into(),
        top_is_root: true,
        mass_change_limit: 50,
        turn: None,
    };
    let id = format!("{kind:?}-{n}");
    let delivery = Delivery {
        source: "acme-github".parse().unwrap(),
        provider: "github".into(),
        id: id.parse().unwrap(),
        event: "organization.member_added".parse().unwrap(),
        received_at: at,
        secret: SecretName("env:HOOK".into()),
        stamp: None,
        replay: None,
        body: Bytes::from(id),
    };
    let reading = Reading::Told { changes: vec![placed], note: None, when: When::default() };
    Record::Delivery(Box::new(Entry { delivery, reading, approved: false }))
}

#[rstest]
#[case::refusing("401", 24)]
#[case::failing("500", 6)]
#[case::failing_to_connect("503@connect", 6)]
#[case::silent("timeout", 6)]
#[tokio::test]
async fn hours_of_an_outage_cost_probes_and_no_attempts_and_each_account_is_settled_once_afterwards(
    #[case] fault: &str,
    #[case] hours: u32,
) {
    let mut site = Site::open().await;
    let healthy = site.reconciler(Duration::from_secs(5));
    site.record(1..=ACCOUNTS, AccessKind::Gained).await;
    site.work(&healthy, None).await;
    assert_eq!(site.drata.requests().iter().filter(|seen| seen.method == "PUT").count(), 10);

    site.drata.set_faults(vec![fault.parse::<Fault>().unwrap()]);
    let before = site.drata.requests().len();
    // An answer that never comes is waited for in real time.
    let patience = if fault == "timeout" { Duration::from_millis(20) } else { Duration::from_secs(5) };
    let suffering = site.reconciler(patience);
    let over = site.now.plus(HOUR * hours);
    site.record(ACCOUNTS + 1..=2 * ACCOUNTS, AccessKind::Gained).await;
    let half = site.now.plus(HOUR * hours / 2);
    site.work(&suffering, Some(half)).await;
    // Recording goes on.
    site.record(1..=ACCOUNTS, AccessKind::Lost).await;
    site.work(&suffering, Some(over)).await;

    let ledger = &site.trial.ledger;
    let halt = ledger.halt().await.unwrap().expect("a halt stands");
    // One a minute at the most, once the waits have grown.
    let most = i64::from(hours) * 60 + 10;
    assert!(halt.probes > most / 2 && halt.probes <= most, "{halt:?}");
    let calls = site.drata.requests().len() - before;
    // A probe is one call where nothing is let in, and at most three: the identity, the person, the status.
    let of_a_probe = if fault.ends_with("@connect") { 3 } else { 1 };
    assert!(calls <= usize::try_from(most).unwrap() * of_a_probe + 8 * 3, "{calls} calls");
    assert_eq!(ledger.counts().await.unwrap().parked, 0);
    let attempts = site.trial.number("SELECT MAX(attempts) FROM statuses").await;
    assert!(attempts <= Some(1), "{attempts:?}: the ones that opened the breaker");
    for n in ACCOUNTS + 1..=2 * ACCOUNTS {
        let source = "acme-github".parse().unwrap();
        let (outcome, _) = ledger.outcome_of(&source, &format!("Gained-{n}").parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(outcome, Outcome::Pending);
    }

    site.drata.set_faults(Vec::new());
    let before = site.drata.requests().len();
    site.work(&healthy, None).await;
    assert_eq!(site.trial.ledger.halt().await.unwrap(), None);
    let connects: Vec<_> = site.drata.requests().split_off(before);
    let connects: Vec<_> = connects.iter().filter(|seen| seen.method == "PUT").collect();
    let mut paths: Vec<&str> = connects.iter().map(|seen| seen.path.as_str()).collect();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!((connects.len(), paths.len()), (20, 20), "each account is settled once: {connects:?}");
    // The first went ahead to show that the outage is over, whoever's turn it was; eight at a time follow.
    let first_links = connects.iter().skip(1).position(|seen| seen.user_id.is_some()).unwrap();
    assert!(first_links >= 8, "losses go first: {connects:?}");
    for n in 1..=2 * ACCOUNTS {
        assert_eq!(site.drata.linked(9000 + n), (n > ACCOUNTS).then_some(500 + n), "{n}");
    }
    site.tasks.token().cancel();
}

/// An unanswered request is waited out, what it did is read, and after one more look it is done with, whatever has become
/// of the account meanwhile.
#[rstest]
#[case::the_link_stays(OnAccessLost::Keep, true)]
#[case::the_identity_is_gone(OnAccessLost::Unlink, false)]
#[case::both(OnAccessLost::Keep, false)]
#[tokio::test]
async fn a_request_that_was_never_answered_is_not_asked_about_for_ever(
    #[case] on_access_lost: OnAccessLost,
    #[case] identity_stays: bool,
) {
    let mut site = Site::open().await;
    // The work is done, and the answer never comes.
    site.drata.set_faults(vec!["timeout:applied@connect".parse::<Fault>().unwrap()]);
    site.record([1], AccessKind::Gained).await;
    let suffering = site.reconciler_that(on_access_lost, Duration::from_millis(20));
    site.work(&suffering, Some(site.now.plus(Duration::from_millis(100)))).await;
    assert!(site.trial.number("SELECT intent_at FROM statuses").await.is_some());

    site.drata.set_faults(Vec::new());
    if !identity_stays {
        site.drata.remove_identity(9001);
    }
    site.record([1], AccessKind::Lost).await;
    let before = site.drata.requests().len();
    let healthy = site.reconciler_that(on_access_lost, Duration::from_secs(5));
    site.work(&healthy, Some(site.now.plus(HOUR * 24))).await;
    let asked = site.drata.requests().len() - before;
    assert!((1..=4).contains(&asked), "{asked} calls");
    assert_eq!(site.trial.number("SELECT due_at FROM statuses").await, None);
    assert_eq!(site.trial.number("SELECT intent_at FROM statuses").await, None);
    let source = "acme-github".parse().unwrap();
    let (outcome, _) = site.trial.ledger.outcome_of(&source, &"Lost-1".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(outcome, Outcome::Unchanged);
    site.tasks.token().cancel();
}

/// A subscriber that panics when the account of that login is told as reconciled: as a log does whose write fails.
struct PanicsAt(&'static str);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for PanicsAt {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut fields = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            write!(fields, "{field}={value:?} ").unwrap();
        });
        let told = fields.contains("message=reconciled") && fields.contains(&format!("login={:?}", self.0));
        assert!(!told, "can't write about {}", self.0);
    }
}

#[tokio::test]
async fn an_account_whose_work_panics_is_parked_after_its_attempts_and_the_others_go_on() {
    let mut site = Site::open().await;
    let reconciler = site.reconciler(Duration::from_secs(5));
    site.record(1..=3, AccessKind::Gained).await;
    {
        let subscriber = tracing_subscriber::registry().with(PanicsAt("dev-2"));
        let _panicking = tracing::subscriber::set_default(subscriber);
        site.work(&reconciler, None).await;
    }
    assert_eq!([1, 2, 3].map(|n| site.drata.linked(9000 + n)), [Some(501), Some(502), Some(503)]);
    let parked = "SELECT COUNT(*) FROM statuses WHERE state = 'parked' AND lease_owner IS NULL AND \
                  reason LIKE 'after 12 attempts: rollcall panicked while reconciling it%can''t write about dev-2'";
    assert_eq!(site.trial.number(parked).await, Some(1));
    let attempts = "SELECT COUNT(*) FROM attempts WHERE operation = 'reconcile' AND result = 'transient'";
    assert_eq!(site.trial.number(attempts).await, Some(12));
    assert_eq!(reconciler.progress().state, State::Ok);
    assert_eq!(site.trial.number("SELECT COUNT(*) FROM statuses WHERE state = 'settled'").await, Some(2));
}

/// A row that this version can't read is met again by every attempt.
#[tokio::test]
async fn an_account_under_which_the_ledger_alone_fails_is_parked_after_its_attempts_and_the_others_go_on() {
    let mut site = Site::open().await;
    let reconciler = site.reconciler(Duration::from_secs(5));
    site.record(1..=3, AccessKind::Gained).await;
    let later = "UPDATE changes SET kind = 'a kind of a later version' \
                 WHERE account = (SELECT id FROM accounts WHERE login = 'dev-2')";
    site.trial.run(later).await;
    site.work(&reconciler, None).await;
    assert_eq!([1, 2, 3].map(|n| site.drata.linked(9000 + n)), [Some(501), None, Some(503)]);
    let parked = "SELECT COUNT(*) FROM statuses WHERE state = 'parked' AND lease_owner IS NULL AND \
                  reason LIKE 'after 12 attempts: the ledger fails under this account alone%a kind of a later version%'";
    assert_eq!(site.trial.number(parked).await, Some(1));
    assert_eq!(reconciler.progress().state, State::Ok);
}
