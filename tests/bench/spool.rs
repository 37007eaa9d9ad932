//! What the spool costs: `cargo bench --bench spool -- --folder DIR [--broker amqp://…] [--body BYTES] [--seconds N]
//! [--pairs N]`.
//!
//! Deliveries a second that are made durable by 64 requests at a time while the broker is down, beside a bare program that
//! appends the same bodies to a file and shares an fdatasync among all that wait; in pairs on the same disk. With a broker
//! also how fast a backlog is forwarded, and how long live deliveries take meanwhile.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measuring tool prints, and fails by panicking")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rollcall::broker::rabbitmq::{self, RabbitMq};
use rollcall::broker::spool::{Settings, Spool};
use rollcall::broker::{Broker, Consumer, Health, PublishError, State};
use rollcall::delivery::{Checkpoint, Delivery, SecretName, Stamp, Timestamp};
use rollcall::shutdown::Tasks;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// How many requests are under way at once.
const AT_ONCE: usize = 64;
/// How large the backlog is that is forwarded.
const BACKLOG: u64 = 20_000;

#[derive(Debug)]
struct Options {
    folder: Option<PathBuf>,
    broker: Option<String>,
    body: usize,
    seconds: u64,
    pairs: usize,
}

#[tokio::main]
async fn main() {
    let mut options = Options { folder: None, broker: None, body: 8192, seconds: 5, pairs: 5 };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap();
        match argument.as_str() {
            "--folder" => options.folder = Some(value().into()),
            "--broker" => options.broker = Some(value()),
            "--body" => options.body = value().parse().unwrap(),
            "--seconds" => options.seconds = value().parse().unwrap(),
            "--pairs" => options.pairs = value().parse().unwrap(),
            // Cargo's and nextest's own.
            _ => {}
        }
    }
    let Some(folder) = options.folder.clone() else {
        println!("cargo bench --bench spool -- --folder DIR [--broker URL] [--body BYTES] [--seconds N] [--pairs N]");
        return;
    };
    println!(
        "{AT_ONCE} at a time, bodies of {} bytes, {} s each, in {}",
        options.body,
        options.seconds,
        folder.display()
    );
    let mut ratios = Vec::new();
    for _ in 0..options.pairs {
        let bare = bare(&options, &folder).await;
        let spool = spool(&options, &folder).await;
        ratios.push(spool / bare);
        println!("bare {bare:.0}/s, spool {spool:.0}/s, ratio {:.2}", spool / bare);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2}", ratios[ratios.len() / 2]);
    if let Some(url) = options.broker.clone() {
        forward(&options, &folder, &url).await;
    }
}

fn delivery(number: u64, body: &[u8]) -> Delivery {
    Delivery {
        source: "load".parse().unwrap(),
        provider: "github".to_owned(),
        id: format!("{:032x}", u128::from(number)).parse().unwrap(),
        event: "organization.member_added".parse().unwrap(),
        received_at: Timestamp::now(),
        secret: SecretName("env:LOAD".into()),
        stamp: Some(Stamp { run: Uuid::from_u128(1), sequence: number }),
        replay: None,
        body: body.to_vec().into(),
    }
}

/// Half of it shrinks away, as of JSON with hashes in it.
fn body(size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(5);
    (0..size).map(|n| if n % 2 == 0 { b'x' } else { random.alphanumeric() as u8 }).collect()
}

/// Counts what one function call after the other does, `AT_ONCE` of them at a time.
async fn rate<F>(seconds: u64, call: impl Fn(u64) -> F + Clone + Send + 'static) -> f64
where
    F: Future<Output = ()> + Send + 'static,
{
    let (numbers, done) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(0)));
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (numbers, done, call) = (Arc::clone(&numbers), Arc::clone(&done), call.clone());
        callers.spawn(async move {
            while Instant::now() < deadline {
                call(numbers.fetch_add(1, Ordering::Relaxed)).await;
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    callers.join_all().await;
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let done = done.load(Ordering::Relaxed) as f64;
    done / began.elapsed().as_secs_f64()
}

/// Appends to a file, and one fdatasync for all that wait.
async fn bare(options: &Options, folder: &Path) -> f64 {
    let path = folder.join("bare");
    let mut file = std::fs::File::create(&path).unwrap();
    let (sender, mut receiver) = mpsc::unbounded_channel::<(Arc<Vec<u8>>, oneshot::Sender<()>)>();
    let writer = std::thread::spawn(move || {
        while let Some(first) = receiver.blocking_recv() {
            let mut batch = vec![first];
            while let Ok(next) = receiver.try_recv() {
                batch.push(next);
            }
            for (body, _) in &batch {
                file.write_all(body).unwrap();
            }
            file.sync_data().unwrap();
            for (_, answer) in batch {
                let _ = answer.send(());
            }
        }
    });
    let body = Arc::new(body(options.body));
    let rate = rate(options.seconds, move |_| {
        let (body, sender) = (Arc::clone(&body), sender.clone());
        async move {
            let (answer, answered) = oneshot::channel();
            sender.send((body, answer)).unwrap();
            answered.await.unwrap();
        }
    })
    .await;
    writer.join().unwrap();
    std::fs::remove_file(path).unwrap();
    rate
}

async fn spool(options: &Options, folder: &Path) -> f64 {
    let place = tempfile::tempdir_in(folder).unwrap();
    let tasks = Tasks::new();
    let spool = Arc::new(Spool::start(unbounded(place.path()), Arc::new(Away), &tasks).await);
    let (body, publishing) = (Arc::new(body(options.body)), Arc::clone(&spool));
    let rate = rate(options.seconds, move |number| {
        let (body, spool) = (Arc::clone(&body), Arc::clone(&publishing));
        async move { spool.publish(&delivery(number, &body)).await.unwrap() }
    })
    .await;
    spool.close().await;
    tasks.end(Duration::from_secs(30)).await;
    rate
}

fn unbounded(folder: &Path) -> Settings {
    Settings { max_bytes: u64::MAX / 2, min_free: 1, ..Settings::new(folder) }
}

/// How fast a backlog is forwarded, and what live deliveries notice of it.
async fn forward(options: &Options, folder: &Path, url: &str) {
    let place = tempfile::tempdir_in(folder).unwrap();
    let body = Arc::new(body(options.body));
    let tasks = Tasks::new();
    let spool = Spool::start(unbounded(place.path()), Arc::new(Away), &tasks).await;
    for chunk in (1..=BACKLOG).collect::<Vec<_>>().chunks(AT_ONCE) {
        let sent: Vec<_> = chunk.iter().map(|number| delivery(*number, &body)).collect();
        for stored in futures_util::future::join_all(sent.iter().map(|delivery| spool.publish(delivery))).await {
            stored.unwrap();
        }
    }
    spool.close().await;
    tasks.end(Duration::from_secs(30)).await;

    let tasks = Tasks::new();
    let mut settings = rabbitmq::Settings::new(url.to_owned().into());
    settings.prefix = format!("load-{:016x}", fastrand::u64(..));
    let behind = Arc::new(RabbitMq::connect(settings.clone(), &tasks).unwrap());
    while behind.health().state != State::Ok {
        sleep(Duration::from_millis(5)).await;
    }
    let quiet = live(&*behind, &body, Duration::from_secs(options.seconds), || true).await;
    let began = Instant::now();
    let spool = Spool::start(unbounded(place.path()), behind, &tasks).await;
    let busy = live(&spool, &body, Duration::from_secs(600), || spool.spool_health().state != State::Ok).await;
    let took = began.elapsed().as_secs_f64();
    println!("a backlog of {BACKLOG} is forwarded in {took:.1} s, with a live delivery every 5 ms beside it");
    println!("live deliveries: p50 {:.1} ms, p99 {:.1} ms by themselves", quiet.0, quiet.1);
    println!("live deliveries: p50 {:.1} ms, p99 {:.1} ms while it is forwarded", busy.0, busy.1);
    spool.close().await;
    tasks.end(Duration::from_secs(30)).await;
    rabbitmq::remove(&settings).await.unwrap();
}

/// Publishes one delivery every 5 ms; the median and the 99th percentile in milliseconds.
async fn live(broker: &dyn Broker, body: &[u8], most: Duration, goes_on: impl Fn() -> bool) -> (f64, f64) {
    let deadline = Instant::now() + most;
    let mut took = Vec::new();
    while Instant::now() < deadline && goes_on() {
        let began = Instant::now();
        broker.publish(&delivery(BACKLOG + 1 + took.len() as u64, body)).await.unwrap();
        took.push(began.elapsed().as_secs_f64() * 1000.0);
        sleep(Duration::from_millis(5)).await;
    }
    took.sort_by(f64::total_cmp);
    (took[took.len() / 2], took[took.len() * 99 / 100])
}

/// A broker that isn't there.
#[derive(Debug)]
struct Away;

#[async_trait]
impl Broker for Away {
    async fn publish(&self, _: &Delivery) -> Result<(), PublishError> {
        Err(PublishError::Unavailable("it is away".to_owned()))
    }

    async fn checkpoint(&self, _: &Checkpoint) -> Result<(), PublishError> {
        Err(PublishError::Unavailable("it is away".to_owned()))
    }

    async fn consume(&self, _: u16) -> Box<dyn Consumer> {
        std::future::pending().await
    }

    fn health(&self) -> Health {
        Health { state: State::Down, reason: Some("it is away".to_owned()), since: Timestamp(0) }
    }

    async fn close(&self) {}
}
