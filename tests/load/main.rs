//! Compares the ingress with a bare publisher on the same broker, in pairs, so that the machine's mood counts for both.
//!
//! `cargo bench --bench load -- --broker amqp://…` measures the ingress on RabbitMQ, `-- --embedded` on the embedded
//! broker. The ingress runs in a process of its own ([`child`]) and is loaded over keep-alive connections
//! ([`generator`]); the bare publisher ([`bare`]) keeps as many messages in flight as there are connections. After each
//! run the queue is emptied and must hold exactly the deliveries that were answered with 202.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measuring tool prints, and fails by panicking"
)]

mod bare;
mod child;
mod drain;
mod generator;
mod options;
mod process;
mod report;
mod samples;

use std::collections::HashSet;
use std::process::ExitCode;
use std::time::Duration;

use rollcall::broker::embedded::{self, Embedded};
use rollcall::broker::{Broker, Payload};
use rollcall::shutdown::Tasks;
use tempfile::TempDir;
use tokio::task::JoinSet;

use child::{Child, Place};
use options::{Options, Wish};
use report::Pair;
use samples::Samples;

/// How long each load runs before it is measured.
const WARM_UP: Duration = Duration::from_millis(500);

/// How long emptying a queue may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> ExitCode {
    match options::parse(std::env::args().skip(1)) {
        Ok(Wish::Measure(options)) => measure(options).await,
        Ok(Wish::BeTheIngress) => {
            child::run().await;
            ExitCode::SUCCESS
        }
        Ok(Wish::Nothing) => ExitCode::SUCCESS,
        Ok(Wish::Usage) => {
            println!("{}", options::USAGE);
            ExitCode::SUCCESS
        }
        Err(problem) => {
            println!("{problem}\n\n{}", options::USAGE);
            ExitCode::from(2)
        }
    }
}

/// Measures, and removes what it made in the broker however that ends.
async fn measure(options: Options) -> ExitCode {
    let prefix = format!("load-{:016x}", fastrand::u64(..));
    declare(&options, &prefix).await;
    let mut measuring = JoinSet::new();
    measuring.spawn(pairs(options.clone(), prefix.clone()));
    let measured = measuring.join_next().await.unwrap();
    bare::remove(&options.broker, &prefix).await;
    match measured {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

/// Lets rollcall declare its own exchange and queues, which the bare publisher then uses too.
async fn declare(options: &Options, prefix: &str) {
    let tasks = Tasks::new();
    let broker = child::rabbitmq(&options.broker, prefix, options.compress, &tasks);
    child::until_ready(&broker).await;
    broker.close().await;
}

/// Returns whether every run added up.
async fn pairs(options: Options, prefix: String) -> bool {
    if let Some(accounts) = options.drain {
        drain::run(&options, &prefix, accounts).await;
        return true;
    }
    println!("{}", report::heading(&options));
    let mut pairs = Vec::new();
    for number in 1..=options.pairs {
        // Whoever goes second finds the broker warmer or fuller, so they take turns.
        let pair = if number % 2 == 1 {
            let (one, four) = (bare(&options, &prefix, 1).await, bare(&options, &prefix, 4).await);
            Pair { one, four, rollcall: ingress(&options, &prefix).await }
        } else {
            let rollcall = ingress(&options, &prefix).await;
            Pair { one: bare(&options, &prefix, 1).await, four: bare(&options, &prefix, 4).await, rollcall }
        };
        println!("{}", report::line(&number.to_string(), &pair.figures()));
        pairs.push(pair);
    }
    println!("{}", report::line("median", &report::medians(&pairs)));
    let faults: Vec<_> = pairs.iter().filter_map(|pair| pair.rollcall.fault.as_deref()).collect();
    for fault in &faults {
        println!("FAULT: {fault}");
    }
    faults.is_empty()
}

async fn bare(options: &Options, prefix: &str, channels: usize) -> Samples {
    let samples = bare::run(options, prefix, channels).await;
    bare::purge(&options.broker, prefix).await;
    samples
}

/// One run of the ingress.
pub(crate) struct Run {
    samples: Samples,
    cpu: Duration,
    idle_bytes: u64,
    load_bytes: u64,
    fault: Option<String>,
}

async fn ingress(options: &Options, prefix: &str) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let place = if options.embedded {
        Place::Embedded { folder: folder.path().to_owned() }
    } else {
        Place::RabbitMq { url: options.broker.clone(), prefix: prefix.to_owned(), compress: options.compress }
    };
    let child = Child::start(&place).await;
    let idle_bytes = process::resident(child.pid());
    let mut loading = JoinSet::new();
    loading.spawn(generator::run(child.address(), options.clone()));
    tokio::time::sleep(WARM_UP).await;
    let before = process::cpu(child.pid());
    let mut load_bytes = 0;
    let steps = options.seconds * 10;
    for _ in 0..steps {
        tokio::time::sleep(Duration::from_millis(100)).await;
        load_bytes = load_bytes.max(process::resident(child.pid()));
    }
    let cpu = process::cpu(child.pid()).saturating_sub(before);
    let loaded = loading.join_next().await.unwrap().unwrap();
    child.end().await;
    let queued = drain(options, prefix, &folder, &loaded.accepted).await;
    Run { fault: fault(&loaded, &queued), samples: loaded.samples, cpu, idle_bytes, load_bytes }
}

/// A 202 whose delivery isn't in the queue is a loss; the converse can only come from a request that got no 202.
fn fault(loaded: &generator::Loaded, queued: &HashSet<String>) -> Option<String> {
    let lost = loaded.accepted.difference(queued).count();
    let unasked = queued.difference(&loaded.accepted).count();
    if lost == 0 && unasked == 0 && loaded.refused == 0 {
        return None;
    }
    let accepted = loaded.accepted.len();
    Some(format!(
        "{accepted} accepted, {} refused; {lost} of the accepted aren't in the queue, {unasked} others are",
        loaded.refused
    ))
}

/// Empties the queue and returns the ids of the deliveries that were in it.
async fn drain(options: &Options, prefix: &str, folder: &TempDir, accepted: &HashSet<String>) -> HashSet<String> {
    let tasks = Tasks::new();
    let broker: Box<dyn Broker> = if options.embedded {
        Box::new(Embedded::open(embedded::Settings::new(folder.path()), &tasks).await.unwrap())
    } else {
        Box::new(child::rabbitmq(&options.broker, prefix, options.compress, &tasks))
    };
    let mut consumer = broker.consume(1000).await;
    let mut found = HashSet::new();
    let mut batch = Vec::new();
    // Ends when nothing more comes for a while; a RabbitMQ that has just connected may need one.
    let mut quiet = PATIENCE;
    while let Ok(Some(message)) = tokio::time::timeout(quiet, consumer.next()).await {
        let mut next = Some(message);
        while let Some(message) = next {
            batch.push(message.tag);
            if let Ok(Payload::Delivery(delivery)) = message.payload.decode(usize::MAX) {
                found.insert(delivery.id.to_string());
            }
            next = consumer.try_next();
        }
        consumer.ack(&batch).await;
        batch.clear();
        quiet = if found.len() < accepted.len() { PATIENCE } else { Duration::from_millis(500) };
    }
    drop(consumer);
    broker.close().await;
    tasks.end(PATIENCE).await;
    found
}
