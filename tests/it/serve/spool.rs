//! RabbitMQ doesn't take deliveries, for every reason that it can have: the ingress answers 202 all the same, and all of it
//! reaches the ledger later, once and as it was received.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use lapin::options::{BasicAckOptions, BasicGetOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use rollcall::delivery::Timestamp;
use rollcall::ledger::Ledger;
use rollcall::ledger::show::deliveries::DeliveryRow;
use rollcall::ledger::show::filter::DeliveryFilter;
use serde_json::Value;
use tokio::time::Instant;

use crate::harness::disk::SmallDisk;
use crate::harness::github::{Account, Posted};
use crate::harness::process::Addresses;
use crate::harness::rabbitmq::{Names, Node, Side};
use crate::harness::site::{Carrier, Site, is_settled};
use crate::harness::until;

/// As long as a request may take; GitHub itself waits for ten seconds.
const IN_TIME: Duration = Duration::from_secs(8);

/// A site on a RabbitMQ of its own, which may not be there yet.
async fn site_on(node: &Node, people: i64) -> Site {
    let mut site = Site::new(Carrier::Embedded, people).await;
    site.carried_by(&node.url(), Names::new(&node.url()));
    site.set("spool", "enabled", true);
    site
}

async fn broker_is(site: &Site, at: &Addresses, state: &str) {
    let health = async || site.ask(at, "/health").await.1["parts"]["broker"]["state"].clone();
    until(&format!("the broker is {state}"), async || health().await == state).await;
}

async fn spool_health(site: &Site, at: &Addresses) -> Value {
    site.ask(at, "/health").await.1["parts"]["spool"].clone()
}

async fn emptied(site: &Site, at: &Addresses) {
    until("the spool is empty", async || spool_health(site, at).await["state"] == "ok").await;
}

/// Posts one after another; each has to be taken in time. Returns when each was posted and answered.
async fn all_accepted(site: &Site, at: &Addresses, deliveries: &[Posted]) -> Vec<(Timestamp, Timestamp)> {
    let mut times = Vec::new();
    for delivery in deliveries {
        let (began, posted) = (Instant::now(), Timestamp::now());
        site.github.accepted(&at.webhook, delivery).await;
        assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());
        times.push((posted, Timestamp::now()));
    }
    times
}

fn joins(site: &Site, accounts: impl IntoIterator<Item = i64>) -> Vec<Posted> {
    accounts.into_iter().map(|n| site.github.join(Account(n))).collect()
}

/// Waits until all are settled and nothing is missing.
async fn all_arrived(ledger: &Ledger, deliveries: &[Posted]) {
    for delivery in deliveries {
        until("every accepted delivery is settled", async || is_settled(ledger, &delivery.id).await).await;
    }
    until("the balance adds up", async || {
        let balance = ledger.balance().await.unwrap();
        balance.missing() == 0 && balance.adds_up()
    })
    .await;
}

/// What the ledger has, in the order in which it was recorded.
async fn recorded(ledger: &Ledger) -> Vec<DeliveryRow> {
    let mut rows = ledger.deliveries(&DeliveryFilter::default(), None, 10_000).await.unwrap();
    rows.sort_by_key(|row| row.row);
    rows
}

/// Holds that the ledger has exactly these, each once and received when it was posted.
async fn each_once_as_it_was_received(ledger: &Ledger, deliveries: &[Posted], times: &[(Timestamp, Timestamp)]) {
    let rows = recorded(ledger).await;
    assert_eq!(rows.len(), deliveries.len());
    for (delivery, (posted, answered)) in deliveries.iter().zip(times) {
        let row = rows.iter().find(|row| row.delivery == delivery.id.as_str()).unwrap();
        assert_eq!(row.copies, 1, "{row:?}");
        assert!(*posted <= row.received_at && row.received_at <= *answered, "{posted} {row:?} {answered}");
    }
}

#[tokio::test]
async fn a_broker_absent_at_the_start_is_no_reason_to_refuse() {
    let mut node = Node::new();
    let mut site = site_on(&node, 30).await;
    // As it is by default where all roles are one process.
    site.config.remove("spool");
    let (process, at) = site.serve().await;
    assert_eq!(site.ask(&at, "/ready").await.0, 200);
    let deliveries = joins(&site, 1..=30);
    let times = all_accepted(&site, &at, &deliveries).await;
    let (status, health) = site.ask(&at, "/health").await;
    let spool = &health["parts"]["spool"];
    assert_eq!((status, &spool["state"]), (503, &Value::from("degraded")), "{health}");
    assert!(spool["reason"].as_str().unwrap().starts_with("30 deliveries ("), "{health}");
    assert_eq!(health["parts"]["broker"]["state"], "down");
    let metrics = site.ask(&at, "/metrics").await.1.to_string();
    assert!(metrics.contains("rollcall_spool_deliveries 30"), "{metrics}");
    assert!(metrics.contains("rollcall_spool_stored_total 30"), "{metrics}");

    node.start().await;
    let ledger = site.ledger().await;
    all_arrived(&ledger, &deliveries).await;
    each_once_as_it_was_received(&ledger, &deliveries, &times).await;
    let order: Vec<String> = recorded(&ledger).await.into_iter().map(|row| row.delivery).collect();
    assert_eq!(order, deliveries.iter().map(|posted| posted.id.to_string()).collect::<Vec<_>>());
    emptied(&site, &at).await;
    let metrics = site.ask(&at, "/metrics").await.1.to_string();
    assert!(metrics.contains("rollcall_spool_deliveries 0"), "{metrics}");
    assert!(metrics.contains("rollcall_spool_forwarded_total 30"), "{metrics}");
    let ended = process.stop().await;
    assert_eq!(ended.code, Some(0));
    assert!(!ended.log.contains("deliveries are missing"), "{}", ended.log);
}

#[tokio::test]
async fn a_broker_short_of_memory_is_no_reason_to_refuse_and_others_see_all_of_it_in_order() {
    let mut node = Node::new();
    node.start().await;
    let site = site_on(&node, 40).await;
    let (process, at) = site.serve().await;
    broker_is(&site, &at, "ok").await;
    let side = Side::open(&node.url()).await;
    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let own = side.channel.queue_declare("".into(), exclusive, FieldTable::default()).await.unwrap().name().clone();
    let exchange = site.work_queue().1.replace(".work", ".deliveries");
    let bind = QueueBindOptions::default();
    side.channel.queue_bind(own.clone(), exchange.into(), "#".into(), bind, FieldTable::default()).await.unwrap();

    let deliveries = joins(&site, 1..=40);
    let mut times = all_accepted(&site, &at, &deliveries[..5]).await;
    node.control(&["set_vm_memory_high_watermark", "0.0000001"]).await;
    times.extend(all_accepted(&site, &at, &deliveries[5..35]).await);
    let health = site.ask(&at, "/health").await.1;
    assert!(health["parts"]["broker"]["reason"].as_str().unwrap().contains("memory"), "{health}");
    assert_eq!(site.ask(&at, "/ready").await.0, 200);

    node.control(&["set_vm_memory_high_watermark", "0.8"]).await;
    emptied(&site, &at).await;
    times.extend(all_accepted(&site, &at, &deliveries[35..]).await);
    let ledger = site.ledger().await;
    all_arrived(&ledger, &deliveries).await;
    each_once_as_it_was_received(&ledger, &deliveries, &times).await;

    let (mut seen, mut order) = (HashSet::new(), Vec::new());
    while let Some(message) = side.channel.basic_get(own.clone(), BasicGetOptions::default()).await.unwrap() {
        let id = message.properties.message_id().as_ref().unwrap().to_string();
        message.acker.ack(BasicAckOptions::default()).await.unwrap();
        if seen.insert(id.clone()) {
            order.push(id);
        }
    }
    assert_eq!(order, deliveries.iter().map(|posted| posted.id.to_string()).collect::<Vec<_>>());
    side.close().await;
    let ended = process.stop().await;
    assert_eq!(ended.code, Some(0));
    assert!(!ended.log.contains("deliveries are missing"), "{}", ended.log);
}

#[tokio::test]
async fn a_queue_of_another_shape_is_no_reason_to_refuse_and_taken_up_once_it_is_gone() {
    let site = Site::new(Carrier::RabbitMq, 5).await;
    let (url, queue) = site.work_queue();
    let side = Side::open(&url).await;
    // A classic queue, of which every declaration of ours is a conflict.
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    side.channel.queue_declare(queue.clone().into(), durable, FieldTable::default()).await.unwrap();
    let (process, at) = site.serve().await;
    let deliveries = joins(&site, 1..=5);
    let times = all_accepted(&site, &at, &deliveries).await;
    let reason = async || site.ask(&at, "/health").await.1["parts"]["broker"]["reason"].to_string();
    until("health names it", async || reason().await.contains(&queue)).await;

    side.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    side.close().await;
    let ledger = site.ledger().await;
    all_arrived(&ledger, &deliveries).await;
    each_once_as_it_was_received(&ledger, &deliveries, &times).await;
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_full_queue_is_no_reason_to_refuse() {
    let mut node = Node::new();
    node.start().await;
    let site = site_on(&node, 60).await;
    let mut ingress = site.start_ingress();
    let at = ingress.ready().await;
    broker_is(&site, &at, "ok").await;
    let full = r#"{"max-length": 5, "overflow": "reject-publish"}"#;
    node.control(&["set_policy", "full", r".*\.work$", full, "--apply-to", "queues"]).await;

    let deliveries = joins(&site, 1..=60);
    let times = all_accepted(&site, &at, &deliveries).await;
    let health = site.ask(&at, "/health").await.1;
    let broker = &health["parts"]["broker"];
    assert_eq!(broker["state"], "degraded", "{health}");
    assert!(broker["reason"].as_str().unwrap().starts_with("deliveries go to the spool"), "{health}");
    assert_eq!(health["parts"]["spool"]["state"], "degraded", "{health}");

    let mut worker = site.start_worker();
    worker.works().await;
    let ledger = site.ledger().await;
    all_arrived(&ledger, &deliveries).await;
    each_once_as_it_was_received(&ledger, &deliveries, &times).await;
    emptied(&site, &at).await;
    broker_is(&site, &at, "ok").await;
    assert_eq!([ingress.stop().await.code, worker.stop().await.code], [Some(0), Some(0)]);
}

#[tokio::test]
async fn a_spool_full_or_too_old_is_a_503_with_its_reason() {
    let node = Node::new();
    let mut site = site_on(&node, 0).await;
    site.set("broker", "max_message", "16KiB");
    site.set("spool", "max_bytes", "16KiB");
    let mut ingress = site.start_ingress();
    let at = ingress.ready().await;
    let mut accepted = 0;
    let refused = loop {
        let answer = site.github.post(&at.webhook, &site.github.join(Account(1))).await.unwrap();
        if answer.status != 202 {
            break answer;
        }
        accepted += 1;
    };
    assert!(accepted > 2);
    assert_eq!(refused.status, 503);
    assert!(refused.retry_after.unwrap().parse::<u32>().unwrap() > 0);
    assert_eq!(site.ask(&at, "/ready").await, (503, Value::from("not ready: broker, spool\n")));
    let health = spool_health(&site, &at).await;
    assert_eq!(health["state"], "down");
    assert!(health["reason"].as_str().unwrap().contains("spool.max_bytes"), "{health}");
    let metrics = site.ask(&at, "/metrics").await.1.to_string();
    assert!(metrics.contains(r#"rollcall_spool_refused_total{reason=\"full\"} 1"#), "{metrics}");
    assert_eq!(ingress.stop().await.code, Some(0));

    site.set("spool", "max_bytes", "1MiB");
    site.set("spool", "max_age", "1ms");
    let mut ingress = site.start_ingress();
    let at = ingress.ready().await;
    let answer = site.github.post(&at.webhook, &site.github.join(Account(1))).await.unwrap();
    assert_eq!(answer.status, 503);
    let health = spool_health(&site, &at).await;
    assert!(health["reason"].as_str().unwrap().contains("spool.max_age"), "{health}");
    assert!(health["reason"].as_str().unwrap().contains(&format!("{accepted} deliveries")), "{health}");
    assert_eq!(ingress.stop().await.code, Some(0));
}

#[tokio::test]
async fn an_ingress_killed_with_a_filled_spool_is_carried_on_by_the_next() {
    let mut node = Node::new();
    let site = site_on(&node, 50).await;
    let mut ingress = site.start_ingress();
    let at = ingress.ready().await;
    let deliveries: Vec<Posted> = (0..6).flat_map(|_| joins(&site, 1..=50)).collect();
    let mut accepted = Vec::new();
    let mut answers = stream::iter(&deliveries)
        .map(async |posted| (posted, site.github.post(&at.webhook, posted).await))
        .buffer_unordered(16);
    let mut running = Some(ingress);
    while let Some((posted, answer)) = answers.next().await {
        if answer.is_some_and(|answer| answer.status == 202) {
            accepted.push(posted.clone());
        }
        if accepted.len() == 200
            && let Some(ingress) = running.take()
        {
            ingress.kill().await;
        }
    }
    drop(answers);
    assert!((200..300).contains(&accepted.len()), "{} were accepted", accepted.len());

    // It comes back before the broker does, is killed again while it forwards, and comes back once more.
    let mut ingress = site.start_ingress();
    let at = ingress.ready().await;
    let health = spool_health(&site, &at).await;
    assert_eq!(health["state"], "degraded", "{health}");
    node.start().await;
    let side = Side::open(&node.url()).await;
    broker_is(&site, &at, "ok").await;
    let queue = site.work_queue().1;
    until("it forwards", async || side.depth(&queue).await > 0).await;
    ingress.kill().await;
    side.close().await;
    let mut ingress = site.start_ingress();
    let at = ingress.ready().await;
    let mut worker = site.start_worker();
    worker.works().await;
    let ledger = site.ledger().await;
    all_arrived(&ledger, &accepted).await;
    emptied(&site, &at).await;
    for row in recorded(&ledger).await {
        assert_eq!(row.copies, 1, "what was sent twice is counted once: {row:?}");
    }
    assert_eq!([ingress.stop().await.code, worker.stop().await.code], [Some(0), Some(0)]);
}

#[tokio::test]
async fn what_is_in_the_spool_at_the_end_stays_for_the_next_start_and_the_folder_is_its_own() {
    let mut node = Node::new();
    let site = site_on(&node, 10).await;
    let mut ingress = site.start_ingress();
    let at = ingress.ready().await;
    let second = site.start_ingress().ended().await;
    assert_eq!(second.code, Some(3), "{second:?}");
    assert!(second.log.contains("another rollcall is running on it"), "{}", second.log);
    let deliveries = joins(&site, 1..=10);
    all_accepted(&site, &at, &deliveries).await;
    let began = Instant::now();
    let ended = ingress.stop().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(began.elapsed() < Duration::from_secs(10), "it waited for a broker that isn't there");

    node.start().await;
    let mut ingress = site.start_ingress();
    let at = ingress.ready().await;
    // An ingress and a worker apart share the data folder, and the ledger in it.
    let mut worker = site.start_worker();
    worker.works().await;
    let ledger = site.ledger().await;
    all_arrived(&ledger, &deliveries).await;
    emptied(&site, &at).await;
    let balance = ledger.balance().await.unwrap();
    assert_eq!(balance.accepted, 10, "the last checkpoint came after what it closes: {balance}");
    assert_eq!([ingress.stop().await.code, worker.stop().await.code], [Some(0), Some(0)]);
}

#[tokio::test]
async fn a_full_disk_is_a_503_until_there_is_room_again() {
    let mut node = Node::new();
    let mut site = site_on(&node, 20).await;
    // What is left free is for this test to decide.
    site.set("spool", "min_free", "1B");
    let disk = SmallDisk::new(site.data(), "2m");
    let mut ingress = site.start_ingress_under(&disk.under());
    let at = ingress.ready().await;
    let deliveries = joins(&site, 1..=20);
    all_accepted(&site, &at, &deliveries[..5]).await;

    let filler = disk.fill(&ingress);
    let refused = site.github.post(&at.webhook, &deliveries[5]).await.unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.retry_after.is_some());
    until("health says so", async || spool_health(&site, &at).await["state"] == "down").await;
    let health = spool_health(&site, &at).await;
    assert!(health["reason"].as_str().unwrap().contains("disk is full"), "{health}");
    assert_eq!(site.ask(&at, "/ready").await.0, 503);

    std::fs::remove_file(&filler).unwrap();
    until("there is room again", async || site.ask(&at, "/ready").await.0 == 200).await;
    all_accepted(&site, &at, &deliveries[5..10]).await;

    // Full once more, this time with a broker to forward to: nothing that was accepted is kept back.
    let filler = disk.fill(&ingress);
    node.start().await;
    let mut worker = site.start_worker();
    worker.works().await;
    let ledger = site.ledger().await;
    all_arrived(&ledger, &deliveries[..10]).await;
    all_accepted(&site, &at, &deliveries[10..]).await;
    all_arrived(&ledger, &deliveries).await;
    std::fs::remove_file(&filler).unwrap();
    emptied(&site, &at).await;
    assert_eq!([ingress.stop().await.code, worker.stop().await.code], [Some(0), Some(0)]);
}

#[tokio::test]
async fn an_answer_comes_after_the_fsync_of_what_it_promises() {
    // The page cache outlives a kill, so that only the system calls themselves can show it.
    let node = Node::new();
    let site = site_on(&node, 0).await;
    let trace = site.config_file().with_file_name("trace");
    let calls = "--trace=pwrite64,write,writev,sendto,fsync,fdatasync";
    let strace = ["strace", "-D", "-f", "-y", "-s", "64", calls, "-o", trace.to_str().unwrap()];
    let mut ingress = site.start_ingress_under(&strace);
    let at = ingress.ready().await;
    let deliveries = joins(&site, 1..=25);
    all_accepted(&site, &at, &deliveries).await;
    assert_eq!(ingress.stop().await.code, Some(0));
    until("the trace is written", async || {
        std::fs::read_to_string(&trace).is_ok_and(|trace| trace.contains("+++ exited with 0 +++"))
    })
    .await;

    let trace = std::fs::read_to_string(&trace).unwrap();
    let (mut answered, mut log) = (0, Log::default());
    for line in trace.lines() {
        if line.contains("HTTP/1.1 202") {
            assert!(log.written && log.synced, "an answer before its fsync, at {line}\n{trace}");
            answered += 1;
            log = Log::default();
        } else {
            log.see(line);
        }
    }
    assert_eq!(answered, deliveries.len());
}

/// What became of the spool's log since the last answer.
#[derive(Default)]
struct Log {
    written: bool,
    synced: bool,
    /// Who is in the middle of an fsync of it.
    syncing: HashSet<String>,
}

impl Log {
    fn see(&mut self, line: &str) {
        let (thread, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        let is_sync = call.starts_with("fsync(") || call.starts_with("fdatasync(");
        if call.starts_with("pwrite64(") && call.contains("queue.db-wal") {
            (self.written, self.synced) = (true, false);
        } else if is_sync && call.contains("queue.db-wal") {
            if call.contains("<unfinished") {
                self.syncing.insert(thread.to_owned());
            } else {
                self.synced = call.ends_with("= 0");
            }
        } else if call.contains("sync resumed>") && self.syncing.remove(thread) {
            self.synced = call.ends_with("= 0");
        }
    }
}
