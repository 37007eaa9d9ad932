//! How long an operator waits for a listing, a filter, a flight plan or the choice of a replay, in a ledger with very many
//! deliveries whose bodies are as long as GitHub's.
//!
//! `cargo bench --bench listings -- --sqlite`, or `-- --postgresql URL` for a schema of its own in that database, which is
//! dropped in the end. Each question is asked five times; the slowest answer counts.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measuring tool prints, and fails by panicking"
)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use rollcall::delivery::{Delivery, SecretName, Stamp, Timestamp};
use rollcall::ledger::Ledger;
use rollcall::ledger::outcome::Outcome;
use rollcall::ledger::record::{Entry, Reading, Record};
use rollcall::ledger::replays::{Chosen, NewReplay};
use rollcall::ledger::show::accounts::{AccountFilter, State};
use rollcall::ledger::show::filter::DeliveryFilter;
use rollcall::ledger::work::{Settled, Settlement};
use rollcall::provider::{self, Invention, Secret, SourceSettings};
use rollcall::replay::pace::Rate;
use rollcall::replay::plan::plan;
use rollcall::target::{ConnectionRef, IdentityRef, LinkStatus, PersonId};
use rollcall::worker::{Connections, Reader, WorkerSource};
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection};
use tokio::time::Instant;
use uuid::Uuid;

const USAGE: &str = "\
Usage: cargo bench --bench listings -- (--sqlite | --postgresql URL) [options]

  --deliveries N  how many the ledger holds (100000)
  --accounts N    of how many accounts (20000)
  --body N        how long a body is at least, in bytes (8000)";

const PERSON: LinkStatus = LinkStatus::Linked(PersonId(518));

#[tokio::main]
async fn main() -> ExitCode {
    let (mut deliveries, mut accounts, mut body) = (100_000, 20_000, 8_000);
    let (mut asked, mut postgresql) = (false, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} lacks its value"));
        match argument.as_str() {
            "--sqlite" => asked = true,
            "--postgresql" => (asked, postgresql) = (true, Some(value())),
            "--deliveries" => deliveries = value().parse().unwrap(),
            "--accounts" => accounts = value().parse().unwrap(),
            "--body" => body = value().parse().unwrap(),
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
    match postgresql {
        None => {
            let folder = tempfile::tempdir().unwrap();
            measure(Ledger::open(folder.path()).await.unwrap(), deliveries, accounts, body).await;
        }
        Some(url) => {
            let schema = format!("bench_{}", Uuid::now_v7().simple());
            run(&url, format!("CREATE SCHEMA {schema}")).await;
            let address = SecretString::from(format!("{url}?options[search_path]={schema}"));
            measure(Ledger::connect(&address, true).await.unwrap(), deliveries, accounts, body).await;
            run(&url, format!("DROP SCHEMA {schema} CASCADE")).await;
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

fn settings() -> SourceSettings {
    SourceSettings {
        name: "acme-github".parse().unwrap(),
        host: "github.com".to_owned(),
        roots: Vec::new(),
        sightings: false,
        verify: None,
        header: None,
        own: toml::Table::new(),
    }
}

fn reader() -> Reader {
    let source = WorkerSource {
        provider: "github",
        host: "github.com".to_owned(),
        interpreter: (provider::find("github").unwrap().interpreter)(&settings()).unwrap(),
        roots: Vec::new(),
        connections: Connections::One(ConnectionRef::Only("GITHUB".into())),
        mass_change_limit: 50,
    };
    Reader::new(BTreeMap::from([("acme-github".parse().unwrap(), source)]))
}

/// Joins and leaves; one in ten says nothing, one in fifty can't be understood.
async fn fill(ledger: &Ledger, reader: &Reader, deliveries: u64, accounts: u64, body: usize) {
    let secret = Secret { name: SecretName("env:HOOK".into()), value: "a bench's secret".into() };
    let signer = (provider::find("github").unwrap().signer)(&settings(), secret).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let start = Timestamp::now().plus_micros(-i64::try_from(deliveries).unwrap() * 1_000_000);
    let filling = "x".repeat(body);
    let mut batch = Vec::new();
    for number in 1..=deliveries {
        let account = random.u64(1..=accounts);
        let action = if random.bool() { "member_added" } else { "member_removed" };
        let event = format!("organization.{action}");
        let draft = signer
            .invent(&Invention {
                id: None,
                event: event.clone(),
                login: format!("login-{account}"),
                account_id: account.to_string(),
                root: "acme".to_owned(),
                root_id: "1001".to_owned(),
                part: None,
                part_id: None,
            })
            .unwrap();
        let mut json: serde_json::Value = serde_json::from_slice(&draft.json).unwrap();
        json["filling"] = filling.clone().into();
        let delivery = Delivery {
            source: "acme-github".parse().unwrap(),
            provider: "github".into(),
            id: Uuid::new_v4().to_string().parse().unwrap(),
            event: event.parse().unwrap(),
            received_at: start.plus(Duration::from_secs(number)),
            secret: SecretName("env:HOOK".into()),
            stamp: Some(Stamp { run: Uuid::from_u128(1), sequence: number }),
            replay: None,
            body: json.to_string().into(),
        };
        let reading = match number {
            _ if number % 50 == 0 => Reading::Parked("no source acme-github is configured".to_owned()),
            _ if number % 10 == 0 => Reading::Ignored("nothing about access".to_owned()),
            _ => reader.read(&delivery),
        };
        batch.push(Record::Delivery(Box::new(Entry { delivery, reading, approved: false })));
        if batch.len() == 1000 || number == deliveries {
            ledger.record(&std::mem::take(&mut batch)).await.unwrap();
        }
    }
    loop {
        let taken = ledger.take_due("bench", Duration::from_secs(600), 1000).await.unwrap();
        if taken.leases.is_empty() {
            return;
        }
        for (lease, n) in taken.leases.iter().zip(0..) {
            let view = ledger.view(lease, &|_| Vec::new()).await.unwrap();
            let waits = n % 100 == 0;
            let settlement = Settlement {
                result: if waits { Settled::Waiting } else { Settled::Applied },
                reason: waits.then(|| "nobody is known whose account it is".to_owned()),
                desired: Some(PERSON),
                actual: Some(PERSON),
                identity: Some(IdentityRef(71)),
                person_from: None,
                keep_intent: false,
                keep_drift: false,
                due_at: waits.then(|| view.now.plus(Duration::from_secs(3600))),
            };
            ledger.settle(lease, view.version, &settlement, Vec::new()).await.unwrap();
        }
    }
}

async fn measure(ledger: Ledger, deliveries: u64, accounts: u64, body: usize) {
    let reader = reader();
    let began = Instant::now();
    fill(&ledger, &reader, deliveries, accounts, body).await;
    println!(
        "{}: {deliveries} deliveries of {accounts} accounts, bodies of {body} bytes, after {} s",
        ledger.database().name(),
        began.elapsed().as_secs()
    );
    let all = DeliveryFilter::default;
    let now = ledger.now().await.unwrap();
    let filters = [
        ("the latest", all()),
        ("--outcome parked", DeliveryFilter { outcomes: vec![Outcome::Parked], ..all() }),
        ("--outcome held (none)", DeliveryFilter { outcomes: vec![Outcome::Held], ..all() }),
        ("--source", DeliveryFilter { source: Some("acme-github".into()), ..all() }),
        ("--provider gitlab (none)", DeliveryFilter { provider: Some("gitlab".into()), ..all() }),
        ("--event organization", DeliveryFilter { event: Some("organization".into()), ..all() }),
        ("--event push (none)", DeliveryFilter { event: Some("push".into()), ..all() }),
        ("--account login-7", DeliveryFilter { account: Some("login-7".parse().unwrap()), ..all() }),
        ("--scope org:acme", DeliveryFilter { scope: Some("org:acme".parse().unwrap()), ..all() }),
        ("--since 1h", DeliveryFilter { since: Some(now.plus_micros(-3_600_000_000)), ..all() }),
        (
            "--until the first hundred",
            DeliveryFilter {
                until: Some(now.plus_micros(-i64::try_from(deliveries - 100).unwrap() * 1_000_000)),
                ..all()
            },
        ),
        ("--reason 'no source'", DeliveryFilter { reason: Some("no source".into()), ..all() }),
        ("--reason (none)", DeliveryFilter { reason: Some("there is none".into()), ..all() }),
    ];
    println!("\n{:<28}  {:>9}  {:>9}", "", "list, ms", "plan, ms");
    for (name, filter) in &filters {
        let list = slowest(async || drop(ledger.deliveries(filter, None, 50).await.unwrap())).await;
        let planned = slowest(async || drop(plan(&ledger, &reader, filter, Rate::Unlimited).await.unwrap())).await;
        println!("{name:<28}  {list:>9.1}  {planned:>9.1}");
    }
    let everybody = AccountFilter::default;
    for (name, filter) in [
        ("accounts", everybody()),
        ("accounts --state waiting", AccountFilter { state: Some(State::Waiting), ..everybody() }),
        ("accounts --account login-7", AccountFilter { account: Some("login-7".parse().unwrap()), ..everybody() }),
    ] {
        let list = slowest(async || drop(ledger.accounts(&filter, None, 50).await.unwrap())).await;
        println!("{name:<28}  {list:>9.1}");
    }
    let row = ledger.deliveries(&all(), None, 1).await.unwrap()[0].clone();
    let name = row.delivery.parse().unwrap();
    let story = slowest(async || {
        let found = ledger.deliveries_named(&name).await.unwrap();
        drop(ledger.story(found[0].row).await.unwrap());
    });
    println!("{:<28}  {:>9.1}", "deliveries show ID", story.await);
    println!("{:<28}  {:>9.1}", "secrets", slowest(async || drop(ledger.secrets().await.unwrap())).await);
    let filter = all();
    let began = Instant::now();
    let new = NewReplay {
        id: Uuid::now_v7(),
        started_by: "bench",
        choice: "all",
        job: "{}",
        what: Chosen::Deliveries(&filter),
    };
    let chosen = ledger.begin_replay(new).await.unwrap();
    println!("{:<28}  {:>9.1}  ({chosen} deliveries)", "choosing all for a replay", millis(began.elapsed()));
    ledger.close().await;
}

async fn slowest(ask: impl AsyncFn()) -> f64 {
    let mut slowest: f64 = 0.0;
    for _ in 0..5 {
        let began = Instant::now();
        ask().await;
        slowest = slowest.max(millis(began.elapsed()));
    }
    slowest
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}
