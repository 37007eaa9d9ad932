//! Whether the ledger slows down as it fills: what a delivery costs in a ledger that holds very many, and in one that
//! holds only what this run has put there, in turns, so that the machine's mood counts for both.
//!
//! `cargo bench --bench ledger -- --sqlite`, or `-- --postgresql URL` for two schemas of its own in that database, which
//! are dropped in the end. A cycle records one batch of deliveries about accounts chosen at random and brings each of
//! these accounts to its status, with every step that the worker takes but the calls to the platform.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measuring tool prints, and fails by panicking"
)]

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use rollcall::access::{AccessKind, Account, AccountKey, AccountKind, Change, Scope, ScopeKind, When};
use rollcall::delivery::{Delivery, SecretName, Stamp, Timestamp};
use rollcall::ledger::Ledger;
use rollcall::ledger::record::{Entry, Placed, Reading, Record};
use rollcall::ledger::work::{Attempt, Held, Lease, Settled, Settlement};
use rollcall::target::{ConnectionRef, IdentityRef, LinkStatus, PersonId};
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

const USAGE: &str = "\
Usage: cargo bench --bench ledger -- (--sqlite | --postgresql URL) [options]

Compares what a delivery costs in a ledger that holds many and in a nearly empty one.

  --deliveries N  how many the full one holds (1000000)
  --accounts N    of how many accounts (100000)
  --cycles N      how often each is measured (40)
  --batch N       how many deliveries a cycle has (256)";

/// How many accounts are worked on at a time.
const WORKERS: usize = 16;
const LEASE: Duration = Duration::from_secs(600);
const PERSON: LinkStatus = LinkStatus::Linked(PersonId(518));

struct Options {
    postgresql: Option<String>,
    deliveries: u64,
    accounts: u64,
    cycles: usize,
    batch: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut options = Options { postgresql: None, deliveries: 1_000_000, accounts: 100_000, cycles: 40, batch: 256 };
    let mut asked = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} lacks its value"));
        match argument.as_str() {
            "--sqlite" => asked = true,
            "--postgresql" => (asked, options.postgresql) = (true, Some(value())),
            "--deliveries" => options.deliveries = value().parse().unwrap(),
            "--accounts" => options.accounts = value().parse().unwrap(),
            "--cycles" => options.cycles = value().parse().unwrap(),
            "--batch" => options.batch = value().parse().unwrap(),
            // Cargo's and nextest's own: there are no tests in here.
            "--bench" => {}
            "--list" | "--format" | "--exact" | "--nocapture" | "--test" => return ExitCode::SUCCESS,
            _ => {
                println!("{argument} is no option\n\n{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    if !asked {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let folder = tempfile::tempdir().unwrap();
    match &options.postgresql {
        None => {
            let ledgers = [folder.path().join("empty"), folder.path().join("full")];
            for ledger in &ledgers {
                std::fs::create_dir(ledger).unwrap();
            }
            let [empty, full] = ledgers;
            compare(&options, Ledger::open(&empty).await.unwrap(), Ledger::open(&full).await.unwrap()).await;
        }
        Some(url) => {
            let schema = |name| format!("bench_{name}_{}", Uuid::now_v7().simple());
            let schemas = [schema("empty"), schema("full")];
            for schema in &schemas {
                run(url, format!("CREATE SCHEMA {schema}")).await;
            }
            let measuring = async {
                let [empty, full] = [open(url, &schemas[0]).await, open(url, &schemas[1]).await];
                compare(&options, empty, full).await;
            };
            measuring.await;
            for schema in &schemas {
                run(url, format!("DROP SCHEMA {schema} CASCADE")).await;
            }
        }
    }
    ExitCode::SUCCESS
}

async fn run(url: &str, text: String) {
    sqlx::any::install_default_drivers();
    let mut connection = sqlx::AnyConnection::connect(url).await.unwrap();
    sqlx::query(AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn open(url: &str, schema: &str) -> Ledger {
    Ledger::connect(&SecretString::from(format!("{url}?options[search_path]={schema}")), true).await.unwrap()
}

async fn compare(options: &Options, empty: Ledger, full: Ledger) {
    let database = full.database().name();
    let mut full = Site::new(full, options.accounts);
    let began = Instant::now();
    full.fill(options).await;
    println!(
        "{database}: {} deliveries of {} accounts after {} s; {} cycles of {} deliveries",
        options.deliveries,
        options.accounts,
        began.elapsed().as_secs(),
        options.cycles,
        options.batch
    );
    let mut empty = Site::new(empty, options.accounts);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for number in 0..=options.cycles {
        // Whoever goes second finds the machine warmer, so they take turns; the first cycle isn't counted.
        let costs = if number % 2 == 0 {
            let one = empty.cycle(options.batch).await;
            (one, full.cycle(options.batch).await)
        } else {
            let other = full.cycle(options.batch).await;
            (empty.cycle(options.batch).await, other)
        };
        if number > 0 {
            before.push(costs.0);
            after.push(costs.1);
        }
    }
    println!("{:<9}  {:>17}  {:>17}  {:>5}", "", "nearly empty, µs", "full, µs", "ratio");
    type Step = fn(&Cost) -> f64;
    let steps: [(&str, Step); 3] = [
        ("record", |cost| cost.record),
        ("reconcile", |cost| cost.reconcile),
        ("together", |cost| cost.record + cost.reconcile),
    ];
    for (name, step) in steps {
        let (before, after) = (median(&before, step), median(&after, step));
        println!("{name:<9}  {before:>17.0}  {after:>17.0}  {:>5.2}", after / before);
    }
    empty.ledger.close().await;
    full.ledger.close().await;
}

fn median(costs: &[Cost], of: impl Fn(&Cost) -> f64) -> f64 {
    let mut values: Vec<f64> = costs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What a delivery cost, in microseconds.
struct Cost {
    record: f64,
    reconcile: f64,
}

struct Site {
    ledger: Ledger,
    run: Uuid,
    sequence: u64,
    accounts: u64,
    random: fastrand::Rng,
}

impl Site {
    fn new(ledger: Ledger, accounts: u64) -> Self {
        Self { ledger, run: Uuid::now_v7(), sequence: 0, accounts, random: fastrand::Rng::with_seed(7) }
    }

    async fn fill(&mut self, options: &Options) {
        const LARGE: u64 = 1000;
        while self.sequence < options.deliveries {
            let batch: Vec<Record> =
                (0..LARGE.min(options.deliveries - self.sequence)).map(|_| self.delivery()).collect();
            self.ledger.record(&batch).await.unwrap();
        }
        self.reconcile().await;
    }

    async fn cycle(&mut self, deliveries: u64) -> Cost {
        let batch: Vec<Record> = (0..deliveries).map(|_| self.delivery()).collect();
        let began = Instant::now();
        self.ledger.record(&batch).await.unwrap();
        let recorded = Instant::now();
        self.reconcile().await;
        let each = |took: Duration| took.as_secs_f64() * 1e6 / deliveries as f64;
        Cost { record: each(recorded - began), reconcile: each(recorded.elapsed()) }
    }

    /// A delivery about some account: now it joins the organisation, now it leaves.
    fn delivery(&mut self) -> Record {
        self.sequence += 1;
        let number = self.random.u64(..self.accounts);
        let kind = if self.random.bool() { AccessKind::Gained } else { AccessKind::Lost };
        let account = Account {
            key: AccountKey { provider: "github".into(), host: "github.com".into(), id: number.to_string() },
            node_id: Some(format!("U_{number}")),
            login: Some(format!("login-{number}")),
            email: None,
            kind: AccountKind::Person,
        };
        let scope = Scope::top(ScopeKind::Org, "1001", Some("acme".into()));
        let placed = Placed {
            change: Change::Access { account, scope, kind },
            connection: Some(ConnectionRef::Only("GITHUB".into())),
            host: "github.com".into(),
            top_is_root: true,
            mass_change_limit: 50,
            turn: None,
        };
        let filling = "x".repeat(600);
        let delivery = Delivery {
            source: "acme-github".parse().unwrap(),
            provider: "github".into(),
            id: Uuid::now_v7().to_string().parse().unwrap(),
            event: "organization.member_added".parse().unwrap(),
            received_at: Timestamp::now(),
            secret: SecretName("env:HOOK".into()),
            stamp: Some(Stamp { run: self.run, sequence: self.sequence }),
            replay: None,
            body: Bytes::from(format!(r#"{{"of":{},"filling":"{filling}"}}"#, self.sequence)),
        };
        let reading = Reading::Told { changes: vec![placed], note: None, when: When::default() };
        Record::Delivery(Box::new(Entry { delivery, reading, approved: false }))
    }

    /// Brings every account that is due to its status.
    async fn reconcile(&self) {
        loop {
            let taken = self.ledger.take_due("bench", LEASE, 1000).await.unwrap();
            if taken.leases.is_empty() {
                return;
            }
            let mut working = JoinSet::new();
            for part in taken.leases.chunks(taken.leases.len().div_ceil(WORKERS)) {
                working.spawn(look(self.ledger.clone(), part.to_vec()));
            }
            working.join_all().await;
        }
    }
}

/// What a look at each account writes down, the platform's answers taken for granted.
async fn look(ledger: Ledger, leases: Vec<Lease>) {
    for lease in leases {
        let view = ledger.view(&lease, &|_| Vec::new()).await.unwrap();
        assert_eq!(ledger.intend(&lease, view.version, PERSON, LEASE, Vec::new()).await.unwrap(), Held::Written);
        let attempt = Attempt {
            operation: "connect",
            wanted: Some(PERSON),
            answer: Some(200),
            failure: None,
            duration: Duration::from_millis(80),
            message: None,
        };
        let settlement = Settlement {
            result: Settled::Applied,
            reason: None,
            desired: Some(PERSON),
            actual: Some(PERSON),
            identity: Some(IdentityRef(71)),
            person_from: None,
            keep_drift: false,
            keep_intent: false,
            due_at: None,
        };
        assert_eq!(ledger.settle(&lease, view.version, &settlement, vec![attempt]).await.unwrap(), Held::Written);
    }
}
