//! `rollcall topology` as an operator runs it, on a RabbitMQ of the test's own.

use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use rollcall::broker::rabbitmq::{RabbitMq, Settings};
use rollcall::broker::{Broker, State};
use rollcall::shutdown::Tasks;
use rstest::rstest;

use crate::broker::{delivery, next_delivery};
use crate::harness::process::Ended;
use crate::harness::rabbitmq::{Names, Node, Side, url};
use crate::harness::site::{Carrier, Site};
use crate::harness::until;

async fn site_on(node: &Node) -> (Site, Names) {
    let mut site = Site::new(Carrier::Embedded, 0).await;
    let names = Names::new(&node.url());
    site.set("broker", "url", node.url());
    site.set("broker", "prefix", names.prefix.clone());
    (site, names)
}

async fn topology(site: &Site, arguments: &[&str]) -> Ended {
    site.run(&[&["topology"], arguments].concat()).ended().await
}

fn line<'a>(ended: &'a Ended, begins: &str) -> &'a str {
    ended.output.lines().find(|line| line.starts_with(begins)).unwrap_or_else(|| panic!("{begins}: {ended:?}"))
}

fn connect(names: &Names, declare: bool) -> RabbitMq {
    let settings = Settings { prefix: names.prefix.clone(), declare, ..Settings::new(names.url.clone().into()) };
    RabbitMq::connect(settings, &Tasks::new()).unwrap()
}

#[rstest]
#[case::definitions("definitions")]
#[case::policies("policies")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_printed_for_the_owner_can_be_imported_and_is_enough(#[case] format: &str) {
    let mut node = Node::with_management();
    node.start().await;
    let (mut site, names) = site_on(&node).await;
    site.set("broker", "declare", false);

    // Nothing is there yet, and nobody but the owner may make it.
    let ended = topology(&site, &[]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let exchange = format!("WRONG     exchange {}: isn't there, and broker.declare is false", names.exchange());
    assert!(ended.output.contains(&exchange), "{ended:?}");
    assert!(ended.output.contains("`rollcall topology --format definitions`"), "{ended:?}");

    let printed = topology(&site, &["--format", format]).await;
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &printed.output).unwrap();
    node.control(&["import_definitions", file.path().to_str().unwrap()]).await;

    // A policy takes effect a moment after it is there.
    let management = node.management();
    let well = || async {
        let ended = topology(&site, &["--management", &management]).await;
        ended.code == Some(0) && !ended.output.contains("warning")
    };
    until("all is as it should be", well).await;
    let broker = connect(&names, false);
    until("connected", || async { broker.health().state == State::Ok }).await;
    broker.publish(&delivery("d-1", "{}")).await.unwrap();
    let (_, received) = next_delivery(&mut broker.consume(10).await).await;
    assert_eq!(received.id.as_str(), "d-1");
    broker.close().await;
    if format == "definitions" {
        // They are what serve declares by itself.
        let broker = connect(&names, true);
        until("connected", || async { broker.health().state == State::Ok }).await;
        broker.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_shapes_missing_bindings_and_alarms_are_named_with_their_fix() {
    let mut node = Node::with_management();
    node.start().await;
    let management = node.management();
    let (mut site, names) = site_on(&node).await;
    let broker = connect(&names, true);
    until("connected", || async { broker.health().state == State::Ok }).await;
    broker.close().await;
    let well = topology(&site, &["--management", &management]).await;
    assert_eq!(well.code, Some(0), "{well:?}");
    assert!(well.output.starts_with("ok        server: RabbitMQ "), "{well:?}");
    line(&well, &format!("ok        exchange {}: is there, and this user may publish to it", names.exchange()));
    line(&well, &format!("ok        queue {}: is there; 0 messages, 0 consumers", names.work()));
    line(&well, "ok        nodes: 1 node, no alarm");
    line(&well, &format!("ok        binding: {} gets everything from {}", names.work(), names.exchange()));

    let side = Side::open(&names.url).await;
    let (work, exchange) = (names.work(), names.exchange());
    let nothing = FieldTable::default();
    side.channel.queue_unbind(work.clone().into(), exchange.clone().into(), "#".into(), nothing.clone()).await.unwrap();
    site.set("broker", "declare", false);
    let unbound = topology(&site, &["--management", &management]).await;
    assert_eq!(unbound.code, Some(1), "{unbound:?}");
    line(&unbound, &format!("WRONG     binding: {work} isn't bound to {exchange} by #, so deliveries are refused"));

    // Its owner has made the work queue anew, with a limit that parks innocents and dead letters that may be lost.
    node.control(&["delete_queue", &work]).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(3));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    side.channel.queue_declare(work.clone().into(), durable, arguments).await.unwrap();
    side.channel
        .queue_bind(work.clone().into(), exchange.into(), "#".into(), QueueBindOptions::default(), nothing)
        .await
        .unwrap();
    let other = topology(&site, &["--management", &management]).await;
    assert_eq!(other.code, Some(1), "{other:?}");
    line(&other, &format!("warning   queue {work}: delivery-limit is 3"));
    line(&other, &format!("WRONG     queue {work}: dead-letter-strategy isn't set"));
    assert!(other.output.contains("`rollcall topology --format policies` prints one"), "{other:?}");

    // Where rollcall declares by itself, that is a conflict, told without the management API.
    site.set("broker", "declare", true);
    let conflict = topology(&site, &[]).await;
    assert_eq!(conflict.code, Some(1), "{conflict:?}");
    let said = line(&conflict, &format!("WRONG     queue {work}: has another "));
    assert!(said.contains("PRECONDITION_FAILED"), "{said}");
    assert!(conflict.output.contains("rabbitmqctl delete_queue"), "{conflict:?}");
    line(&conflict, "not seen  binding, policies, alarms: ");

    node.control(&["set_vm_memory_high_watermark", "0.0001"]).await;
    let alarmed = || async {
        let ended = topology(&site, &["--management", &management]).await;
        ended.output.contains("has a memory alarm, so publishing is blocked")
    };
    until("the alarm is told", alarmed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_user_may_not_do_is_named_with_the_command_that_allows_it() {
    let mut node = Node::new();
    node.start().await;
    let (mut site, names) = site_on(&node).await;
    let broker = connect(&names, true);
    until("connected", || async { broker.health().state == State::Ok }).await;
    broker.close().await;
    node.control(&["add_user", "rollcall", "hunter2"]).await;
    site.set("broker", "url", node.url().replace("guest:guest", "rollcall:hunter2"));

    node.control(&["set_permissions", "-p", "/", "rollcall", "^$", ".*", ".*"]).await;
    let declaring = topology(&site, &[]).await;
    assert_eq!(declaring.code, Some(1), "{declaring:?}");
    line(&declaring, &format!("WRONG     queue {}: the user rollcall may not declare it", names.work()));
    site.set("broker", "declare", false);
    assert_eq!(topology(&site, &[]).await.code, Some(0));

    node.control(&["set_permissions", "-p", "/", "rollcall", "^$", "^$", "^$"]).await;
    let nothing = topology(&site, &[]).await;
    assert_eq!(nothing.code, Some(1), "{nothing:?}");
    line(&nothing, &format!("WRONG     exchange {}: the user rollcall may not publish to it", names.exchange()));
    line(&nothing, &format!("WRONG     queue {}: the user rollcall may not consume from it", names.work()));

    // What the fix says is enough for all of it.
    let fix = nothing.output.lines().find_map(|line| line.trim().strip_prefix("rabbitmqctl ")).unwrap();
    let arguments: Vec<String> = fix.split(' ').map(|word| word.trim_matches('\'').to_owned()).collect();
    node.control(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
    site.set("broker", "declare", true);
    let granted = topology(&site, &[]).await;
    assert_eq!(granted.code, Some(0), "{granted:?}");
    assert!(![declaring, nothing, granted].iter().any(|ended| format!("{ended:?}").contains("hunter2")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_in_the_way_of_looking_is_told() {
    let mut site = Site::new(Carrier::Embedded, 0).await;
    let embedded = topology(&site, &[]).await;
    assert_eq!(embedded.code, Some(2), "{embedded:?}");
    assert!(embedded.log.contains("broker.url isn't set: the embedded broker is one file in data_dir"), "{embedded:?}");

    site.set("broker", "url", "amqp://guest:hunter2@127.0.0.1:1/%2f");
    let nobody = topology(&site, &["--json"]).await;
    assert_eq!(nobody.code, Some(3), "{nobody:?}");
    let findings: serde_json::Value = serde_json::from_str(&nobody.output).unwrap();
    assert_eq!((&findings[0]["part"], &findings[0]["grade"]), (&"server".into(), &"unreachable".into()));

    let names = Names::new(&url().await);
    site.set("broker", "url", names.url.clone());
    site.set("broker", "prefix", names.prefix.clone());
    let unmanaged = topology(&site, &["--management", "http://127.0.0.1:1"]).await;
    assert_eq!(unmanaged.code, Some(3), "{unmanaged:?}");
    line(&unmanaged, "NO WAY    management API: ");
    assert!(!format!("{nobody:?}{unmanaged:?}").contains("hunter2"));

    // It has changed nothing: what wasn't there still isn't.
    line(&unmanaged, &format!("ok        queue {}: isn't there yet; serve declares it", names.work()));
    let again = topology(&site, &[]).await;
    line(&again, &format!("ok        exchange {}: isn't there yet; serve declares it", names.exchange()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_takes_no_message_from_anybody() {
    let names = Names::new(&url().await);
    let mut site = Site::new(Carrier::Embedded, 0).await;
    site.set("broker", "url", names.url.clone());
    site.set("broker", "prefix", names.prefix.clone());
    let broker = connect(&names, true);
    until("connected", || async { broker.health().state == State::Ok }).await;
    broker.publish(&delivery("d-1", "{}")).await.unwrap();
    let side = Side::open(&names.url).await;
    until("it is queued", || async { side.depth(&names.work()).await == 1 }).await;
    let waiting = topology(&site, &[]).await;
    assert_eq!(waiting.code, Some(0), "{waiting:?}");
    line(&waiting, &format!("warning   queue {}: 1 messages wait, and nobody consumes them", names.work()));
    assert_eq!(side.depth(&names.work()).await, 1);
    let (message, _) = next_delivery(&mut broker.consume(10).await).await;
    assert!(!message.redelivered);
    broker.close().await;
    side.close().await;
}
