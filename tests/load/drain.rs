//! How fast a backlog is worked off: `rollcall serve --role worker` on RabbitMQ and SQLite, and a bare consumer that makes
//! the same two calls to the platform for each delivery (look the identity up, connect it), as many at a time, and keeps
//! nothing. Both work on the same deliveries, about as many accounts, against the same stand-in in this process.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use rollcall::broker::Broker;
use rollcall::delivery::{Delivery, SecretName, Timestamp};
use rollcall::outbound;
use rollcall::sandbox::{Identity, Options as SandboxOptions, Person, Sandbox};
use rollcall::shutdown::Tasks;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use url::Url;

use crate::child::{rabbitmq, until_ready};
use crate::generator::SOURCE;
use crate::options::Options;

/// As many as `rollcall serve` has at work.
const AT_A_TIME: usize = 16;
const PREFETCH: u16 = 500;
const CONNECTION: i64 = 12;
/// The ids of the accounts begin here: of one length, so that the stand-in's search for one finds no other.
const FIRST: i64 = 10_000_000;
/// How long one run may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures and prints.
pub(crate) async fn run(options: &Options, prefix: &str, accounts: i64) {
    println!(
        "a backlog of {accounts} joins, worked off by rollcall (RabbitMQ, SQLite) and by a bare consumer; the stand-in \
         answers after {} ms\npair     bare/s  rollcall/s  ratio",
        options.latency
    );
    let mut ratios = Vec::new();
    for pair in 1..=options.pairs {
        let (bare, worker) = if pair % 2 == 1 {
            let bare = once(options, prefix, accounts, false).await;
            (bare, once(options, prefix, accounts, true).await)
        } else {
            let worker = once(options, prefix, accounts, true).await;
            (once(options, prefix, accounts, false).await, worker)
        };
        println!("{pair:<7}  {bare:>6.0}  {worker:>10.0}  {:>5.2}", worker / bare);
        ratios.push(worker / bare);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2}", ratios[ratios.len() / 2]);
}

/// One run. Returns how many accounts a second were brought to their status.
async fn once(options: &Options, prefix: &str, accounts: i64, worker: bool) -> f64 {
    let faults = match options.latency {
        0 => Vec::new(),
        latency => vec![format!("slow={latency}ms").parse().unwrap()],
    };
    let sandbox = Sandbox::new(SandboxOptions {
        people: Some((1..=accounts).map(person).collect()),
        identities: Some((1..=accounts).map(identity).collect()),
        faults,
        requests_per_minute: None,
        ..SandboxOptions::default()
    });
    let tasks = Tasks::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base: Url = format!("http://{}/public/", listener.local_addr().unwrap()).parse().unwrap();
    tasks.short_lived("test", sandbox.clone().serve(listener, tasks.token().clone()));
    backlog(options, prefix, accounts).await;

    let mut answered = sandbox.answered();
    let doing = async {
        if worker {
            with_rollcall(options, prefix, &base, accounts, &sandbox).await
        } else {
            bare(options, prefix, &base, accounts).await
        }
    };
    let measuring = async {
        answered.wait_for(|answered| *answered > 0).await.unwrap();
        let began = Instant::now();
        let calls = u64::try_from(accounts).unwrap() * 2;
        while !(1..=accounts).all(|account| sandbox.linked(9_000_000 + account).is_some()) {
            let seen = *answered.borrow_and_update();
            if seen < calls {
                answered.wait_for(|answered| *answered >= calls).await.unwrap();
            } else {
                answered.changed().await.unwrap();
            }
        }
        accounts as f64 / began.elapsed().as_secs_f64()
    };
    let ((), rate) = timeout(PATIENCE, async { tokio::join!(doing, measuring) }).await.unwrap();
    tasks.end(Duration::from_secs(5)).await;
    rate
}

fn person(account: i64) -> Person {
    Person {
        id: 500 + account,
        email: format!("user-{account}@acme.example"),
        first_name: format!("user-{account}"),
        last_name: String::new(),
        employment_status: "CURRENT_EMPLOYEE".to_owned(),
    }
}

fn identity(account: i64) -> Identity {
    Identity {
        id: 9_000_000 + account,
        identity_id: (FIRST + account).to_string(),
        username: format!("user-{account}"),
        connection_id: CONNECTION,
        client_type: "GITHUB".to_owned(),
        ..Identity::default()
    }
}

/// Fills the work queue.
async fn backlog(options: &Options, prefix: &str, accounts: i64) {
    let tasks = Tasks::new();
    let broker = Arc::new(rabbitmq(&options.broker, prefix, options.compress, &tasks));
    until_ready(broker.as_ref()).await;
    let mut publishing = JoinSet::new();
    for account in 1..=accounts {
        let broker = broker.clone();
        let delivery = Delivery {
            source: SOURCE.parse().unwrap(),
            provider: "github".to_owned(),
            id: format!("drain-{account}").parse().unwrap(),
            event: "organization.member_added".parse().unwrap(),
            received_at: Timestamp::now(),
            secret: SecretName("env:LOAD".into()),
            stamp: None,
            replay: None,
            body: format!(
                r#"{{"action":"member_added","membership":{{"state":"active","role":"member","user":{{"login":"user-{account}","id":{},"type":"User"}}}},"organization":{{"login":"acme","id":42}},"sender":{{"login":"owner","id":1,"type":"User"}}}}"#,
                FIRST + account
            )
            .into(),
        };
        publishing.spawn(async move { broker.publish(&delivery).await.unwrap() });
    }
    publishing.join_all().await;
    broker.close().await;
    tasks.end(Duration::from_secs(5)).await;
}

async fn bare(options: &Options, prefix: &str, base: &Url, accounts: i64) {
    let http = outbound::builder(base, Duration::from_secs(10)).unwrap().build().unwrap();
    let connection = Connection::connect(&options.broker, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.unwrap();
    let queue = format!("{prefix}.work").into();
    let mut consumer =
        channel.basic_consume(queue, "".into(), BasicConsumeOptions::default(), FieldTable::default()).await.unwrap();
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    let mut working = JoinSet::new();
    for _ in 0..accounts {
        let delivery = consumer.next().await.unwrap().unwrap();
        let place = places.clone().acquire_owned().await.unwrap();
        let (http, channel) = (http.clone(), channel.clone());
        let list = base.join("user-identities/version-control").unwrap();
        working.spawn(async move {
            let body: Value = serde_json::from_slice(&delivery.data).unwrap();
            let account = body["membership"]["user"]["id"].as_i64().unwrap();
            let query = [
                ("clientType", "GITHUB".to_owned()),
                ("q", account.to_string()),
                ("page", "1".to_owned()),
                ("limit", "50".to_owned()),
            ];
            let found = http.get(list.clone()).query(&query).bearer_auth("a key").send().await.unwrap();
            let found: Value = found.error_for_status().unwrap().json().await.unwrap();
            let rows = found["data"].as_array().unwrap();
            let row = rows.iter().find(|row| row["identityId"] == account.to_string().as_str()).unwrap();
            let connect = format!("{list}/{}/connect", row["id"]);
            let body = serde_json::json!({ "userId": 500 + account - FIRST });
            http.put(connect).bearer_auth("a key").json(&body).send().await.unwrap().error_for_status().unwrap();
            channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await.unwrap();
            drop(place);
        });
    }
    working.join_all().await;
    connection.close(200, "OK".into()).await.unwrap();
}

async fn with_rollcall(options: &Options, prefix: &str, base: &Url, accounts: i64, sandbox: &Sandbox) {
    let folder = tempfile::tempdir().unwrap();
    let people: String =
        (1..=accounts).map(|account| format!("github:#{},user:{}\n", FIRST + account, 500 + account)).collect();
    std::fs::write(folder.path().join("people.csv"), format!("account,person\n{people}")).unwrap();
    let config = folder.path().join("rollcall.toml");
    let text = format!(
        r#"
        data_dir = "data"
        admin = {{ listen = "127.0.0.1:0" }}
        log = {{ filter = "warn" }}
        broker = {{ url = "{}", prefix = "{prefix}", prefetch = {PREFETCH} }}
        people = {{ file = "people.csv" }}
        drata = {{ base_url = "{}", api_key = {{ env = "KEY" }}, requests_per_minute = 100000000 }}
        [[source]]
        name = "{SOURCE}"
        provider = "github"
        secrets = [{{ env = "LOAD" }}]
        on_access_lost = "unlink"
        "#,
        options.broker,
        base.as_str().trim_end_matches('/'),
    );
    std::fs::write(&config, text).unwrap();
    let mut worker = Command::new(env!("CARGO_BIN_EXE_rollcall"))
        .args(["--config", config.to_str().unwrap(), "serve", "--role", "worker"])
        .current_dir(folder.path())
        .env("KEY", "a key")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut answered = sandbox.answered();
    while !(1..=accounts).all(|account| sandbox.linked(9_000_000 + account).is_some()) {
        tokio::select! {
            changed = answered.changed() => changed.unwrap(),
            ended = worker.wait() => panic!("the worker ended: {ended:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Recorded, but not acked yet, is what the next run would find.
    let pid = worker.id().unwrap().to_string();
    Command::new("kill").arg(pid).status().await.unwrap();
    worker.wait().await.unwrap();
}
