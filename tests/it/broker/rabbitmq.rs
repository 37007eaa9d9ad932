//! What RabbitMQ must do besides, and what it must survive.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use lapin::options::{
    BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, ExchangeKind};
use rollcall::broker::rabbitmq::{RabbitMq, Settings};
use rollcall::broker::{Broker, Lane, Payload, PublishError, State};
use rollcall::shutdown::Tasks;
use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::{delivery, drain, next, next_delivery};
use crate::harness::chaos::Proxy;
use crate::harness::rabbitmq::{Names, Node, Side, url};
use crate::harness::{soon, until};

fn settings(names: &Names) -> Settings {
    let mut settings = Settings::new(names.url.clone().into());
    settings.prefix = names.prefix.clone();
    settings.publish_timeout = Duration::from_secs(30);
    settings
}

fn connect(settings: Settings) -> RabbitMq {
    RabbitMq::connect(settings, &Tasks::new()).unwrap()
}

async fn until_well(broker: &RabbitMq) {
    until("RabbitMQ is well", || async { broker.health().state == State::Ok }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_publishes_in_flight_exactly_the_unroutable_ones_fail() {
    let names = Names::new(&url().await);
    let side = Side::open(&names.url).await;
    // The broker's owner has bound the work queue to GitHub's events alone.
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let exchange = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    side.channel
        .exchange_declare(names.exchange().into(), ExchangeKind::Topic, exchange, FieldTable::default())
        .await
        .unwrap();
    for queue in [names.work(), names.replays(), names.parked()] {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        side.channel.queue_declare(queue.into(), durable, arguments).await.unwrap();
    }
    let (work, bind) = (names.work().into(), QueueBindOptions::default());
    side.channel
        .queue_bind(work, names.exchange().into(), "github.#".into(), bind, FieldTable::default())
        .await
        .unwrap();

    let mut settings = settings(&names);
    settings.declare = false;
    settings.publish_timeout = Duration::from_secs(5);
    let broker = connect(settings);
    until_well(&broker).await;
    // A client that pairs returns and confirms by arrival gets this wrong about every other time.
    let deliveries: Vec<_> = (0..4000)
        .map(|n| {
            let mut delivery = delivery(&format!("d-{n:04}"), vec![b'x'; 512]);
            if matches!(n % 20, 0 | 7 | 13) {
                delivery.provider = "gitlab".to_owned();
            }
            delivery
        })
        .collect();
    for round in deliveries.chunks(2000) {
        let published = join_all(round.iter().map(|delivery| broker.publish(delivery))).await;
        for (delivery, published) in round.iter().zip(&published) {
            assert_eq!(published.is_ok(), delivery.provider == "github", "{delivery:?}: {published:?}");
        }
    }

    let mut consumer = broker.consume(500).await;
    let expected: BTreeSet<_> =
        deliveries.iter().filter(|d| d.provider == "github").map(|d| d.id.to_string()).collect();
    let mut seen = BTreeSet::new();
    while seen.len() < expected.len() {
        let (message, delivery) = next_delivery(&mut consumer).await;
        seen.insert(delivery.id.to_string());
        consumer.ack(&[message.tag]).await;
    }
    assert_eq!(seen, expected);
    broker.close().await;
    side.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_took_too_long_to_begin_keeps_no_messages() {
    let names = Names::new(&url().await);
    let real: url::Url = names.url.parse().unwrap();
    let proxy = Proxy::to(real.socket_addrs(|| Some(5672)).unwrap()[0]).await;
    let mut through = real.clone();
    through.set_ip_host(proxy.address.ip()).unwrap();
    through.set_port(Some(proxy.address.port())).unwrap();
    let mut settings = settings(&names);
    settings.url = through.to_string().into();
    let broker = connect(settings);
    until_well(&broker).await;
    broker.publish(&delivery("d-1", "{}")).await.unwrap();
    let side = Side::open(&names.url).await;
    // Class 60, method 20: basic.consume.
    proxy.mute_after(&[0, 60, 0, 20]);
    let mut consumer = broker.consume(500).await;
    until("the consumer is half begun", async || side.consumers(&names.work()).await == 1).await;
    assert!(proxy.is_mute());
    until("the attempt was given up", async || {
        broker.health().reason.is_some_and(|reason| reason.contains("didn't answer within"))
    })
    .await;
    proxy.mend();
    assert_eq!(drain(&mut consumer, 1).await, ["d-1"]);
    assert_eq!(side.consumers(&names.work()).await, 1);
    broker.close().await;
    side.close().await;
}

/// What a killed worker held must not kill the next one by coming all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_redelivered_comes_a_few_at_a_time_until_a_message_is_new() {
    let names = Names::new(&url().await);
    let broker = connect(settings(&names));
    until_well(&broker).await;
    let side = Side::open(&names.url).await;
    let waiting = async |count| until("so many wait", || async { side.depth(&names.work()).await == count }).await;
    let publish = async |ids: std::ops::Range<u32>| {
        for n in ids {
            broker.publish(&delivery(&format!("d-{n:02}"), "{}")).await.unwrap();
        }
    };
    publish(0..30).await;
    let mut killed = broker.consume(20).await;
    for _ in 0..20 {
        assert!(!next(&mut killed).await.redelivered);
    }
    waiting(10).await;
    drop(killed);
    waiting(30).await;

    let mut consumer = broker.consume(20).await;
    let (mut ids, mut unacked) = (BTreeSet::new(), Vec::new());
    for rest in [22, 14] {
        for _ in 0..8 {
            let (message, delivery) = next_delivery(&mut consumer).await;
            assert!(message.redelivered);
            unacked.push(message.tag);
            ids.insert(delivery.id.to_string());
        }
        waiting(rest).await;
        assert!(consumer.try_next().is_none());
        assert_eq!(side.depth(&names.work()).await, rest);
        assert_eq!(consumer.ack(&std::mem::take(&mut unacked)).await, 0);
    }
    publish(30..60).await;
    while unacked.len() < 20 {
        let (message, delivery) = next_delivery(&mut consumer).await;
        assert_eq!(message.redelivered, ids.len() < 20, "{delivery:?}");
        unacked.push(message.tag);
        ids.insert(delivery.id.to_string());
    }
    waiting(24).await;
    assert!(consumer.try_next().is_none());
    assert_eq!(consumer.ack(&unacked).await, 0);
    ids.extend(drain(&mut consumer, 24).await);
    assert_eq!(ids.len(), 60);
    broker.close().await;
    side.close().await;
}

/// Messages that can't be recorded in any way keep their place, and others must get past them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redelivered_messages_that_stay_unacked_do_not_stop_the_others() {
    let names = Names::new(&url().await);
    let broker = connect(settings(&names));
    until_well(&broker).await;
    let side = Side::open(&names.url).await;
    for n in 0..20 {
        broker.publish(&delivery(&format!("d-{n:02}"), "{}")).await.unwrap();
    }
    let mut killed = broker.consume(20).await;
    for _ in 0..20 {
        next(&mut killed).await;
    }
    drop(killed);
    let mut consumer = broker.consume(20).await;
    for _ in 0..20 {
        assert!(next(&mut consumer).await.redelivered);
    }
    broker.close().await;
    side.close().await;
}

/// Two consumers share a channel then. An ack that covers all before it mustn't cover what hasn't been handed out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_full_prefetch_messages_are_handed_out_in_the_order_of_their_tags() {
    let names = Names::new(&url().await);
    let broker = Arc::new(connect(settings(&names)));
    until_well(&broker).await;
    let count: usize = 3000;
    let publishing = Tasks::new().short_lived("test", {
        let broker = broker.clone();
        async move {
            let deliveries: Vec<_> = (0..count).map(|n| delivery(&format!("d-{n:04}"), "{}")).collect();
            for round in deliveries.chunks(100) {
                for published in join_all(round.iter().map(|delivery| broker.publish(delivery))).await {
                    published.unwrap();
                }
            }
        }
    });
    let mut consumer = broker.consume(50).await;
    let mut tags = Vec::new();
    let mut ids = BTreeSet::new();
    for number in 1..=count {
        let (message, delivery) = next_delivery(&mut consumer).await;
        assert_eq!(message.tag.number, u64::try_from(number).unwrap());
        assert!(!message.redelivered);
        ids.insert(delivery.id.to_string());
        tags.push(message.tag);
        if number % 3 == 0 {
            assert_eq!(consumer.ack(&std::mem::take(&mut tags)).await, 0);
        }
    }
    assert_eq!(ids.len(), count);
    soon("the publisher", publishing).await.unwrap();
    assert_eq!(broker.health().state, State::Ok);
    broker.close().await;
}

/// The same for the second consumer, which begins while messages are taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_consumer_that_took_too_long_to_begin_keeps_no_messages() {
    let names = Names::new(&url().await);
    let (mut settings, real) = (settings(&names), names.url.parse::<url::Url>().unwrap());
    let proxy = Proxy::to(real.socket_addrs(|| Some(5672)).unwrap()[0]).await;
    let mut through = real;
    through.set_ip_host(proxy.address.ip()).unwrap();
    through.set_port(Some(proxy.address.port())).unwrap();
    settings.url = through.to_string().into();
    let broker = connect(settings);
    until_well(&broker).await;
    for n in 0..20 {
        broker.publish(&delivery(&format!("d-{n}"), "{}")).await.unwrap();
    }
    let side = Side::open(&names.url).await;
    let mut consumer = broker.consume(500).await;
    until("all lanes are consumed", async || side.consumers(&names.parked()).await == 1).await;
    // Class 60, method 20: basic.consume.
    proxy.mute_after(&[0, 60, 0, 20]);
    let consuming = Tasks::new().short_lived("test", async move {
        let mut ids = BTreeSet::new();
        while ids.len() < 20 {
            let (_, delivery) = next_delivery(&mut consumer).await;
            ids.insert(delivery.id.to_string());
        }
        consumer
    });
    until("the second consumer is half begun", async || side.consumers(&names.work()).await == 2).await;
    assert!(proxy.is_mute());
    until("the session was given up", async || broker.health().state == State::Down).await;
    proxy.mend();
    drop(soon("all of them", consuming).await.unwrap());
    until("nobody holds any", async || side.depth(&names.work()).await == 20).await;
    broker.close().await;
    side.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binding_that_was_lost_is_made_again_before_a_publish_succeeds() {
    let names = Names::new(&url().await);
    let broker = connect(settings(&names));
    until_well(&broker).await;
    let side = Side::open(&names.url).await;
    let (work, exchange) = (names.work().into(), names.exchange().into());
    side.channel.queue_unbind(work, exchange, "#".into(), FieldTable::default()).await.unwrap();
    broker.publish(&delivery("d-1", "{}")).await.unwrap();
    assert_eq!(drain(&mut broker.consume(10).await, 1).await, ["d-1"]);
    broker.close().await;
    side.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_of_another_shape_is_named_and_taken_up_once_it_is_gone() {
    let names = Names::new(&url().await);
    let side = Side::open(&names.url).await;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    side.channel.queue_declare(names.work().into(), durable, FieldTable::default()).await.unwrap();
    let mut impatient = settings(&names);
    impatient.publish_timeout = Duration::from_millis(500);
    let broker = connect(impatient);
    let work = names.work();
    until("the conflict is named", || async {
        let reason = broker.health().reason.unwrap_or_default();
        reason.contains(&work) && reason.contains("x-") && reason.contains("broker.declare = false")
    })
    .await;
    let error = broker.publish(&delivery("d-1", "{}")).await.unwrap_err();
    assert!(error.to_string().contains(&work), "{error}");

    side.channel.queue_delete(names.work().into(), QueueDeleteOptions::default()).await.unwrap();
    until_well(&broker).await;
    broker.publish(&delivery("d-2", "{}")).await.unwrap();
    broker.close().await;
    side.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_whose_queue_is_deleted_finds_the_new_one() {
    let names = Names::new(&url().await);
    let broker = connect(settings(&names));
    let mut consumer = broker.consume(10).await;
    broker.publish(&delivery("d-1", "{}")).await.unwrap();
    drain(&mut consumer, 1).await;
    let side = Side::open(&names.url).await;
    side.channel.queue_delete(names.work().into(), QueueDeleteOptions::default()).await.unwrap();
    until("the consumer has declared the queue again", || async {
        let channel = side.connection.create_channel().await.unwrap();
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(names.work().into(), passive, FieldTable::default()).await.is_ok()
    })
    .await;
    broker.publish(&delivery("d-2", "{}")).await.unwrap();
    assert_eq!(drain(&mut consumer, 1).await, ["d-2"]);
    broker.close().await;
    side.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_publish_is_handed_out_unreadable_and_the_parked_queue_is_consumed_too() {
    let names = Names::new(&url().await);
    let broker = connect(settings(&names));
    until_well(&broker).await;
    let side = Side::open(&names.url).await;
    let properties = BasicProperties::default().with_message_id("m-1".into());
    let options = BasicPublishOptions::default();
    for (exchange, key) in [(names.exchange(), "acme.news".to_owned()), (String::new(), names.parked())] {
        let publish = side.channel.basic_publish(exchange.into(), key.into(), options, b"hello", properties.clone());
        publish.await.unwrap().await.unwrap();
    }
    let mut consumer = broker.consume(10).await;
    let mut lanes = BTreeSet::new();
    for _ in 0..2 {
        let message = next(&mut consumer).await;
        let Ok(Payload::Unreadable { id, why, body, .. }) = message.payload.decode(usize::MAX) else {
            panic!("{message:?}")
        };
        assert_eq!((id.as_deref(), body.as_ref()), (Some("m-1"), &b"hello"[..]));
        assert!(why.contains("isn't one of ours"), "{why}");
        lanes.insert(message.lane);
        assert_eq!(consumer.ack(&[message.tag]).await, 0);
    }
    assert_eq!(lanes, BTreeSet::from([Lane::Work, Lane::Parked]));
    broker.close().await;
    assert_eq!((side.depth(&names.work()).await, side.depth(&names.parked()).await), (0, 0));
    side.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_goes_to_its_own_queue_alone() {
    let names = Names::new(&url().await);
    let broker = connect(settings(&names));
    until_well(&broker).await;
    let side = Side::open(&names.url).await;
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let own = side.channel.queue_declare("".into(), options, FieldTable::default()).await.unwrap();
    let own = own.name().clone();
    let bind = QueueBindOptions::default();
    side.channel
        .queue_bind(own.clone(), names.exchange().into(), "github.#".into(), bind, FieldTable::default())
        .await
        .unwrap();
    let mut replay = delivery("d-1", "{}");
    replay.replay = Some(Uuid::from_u128(1));
    broker.publish(&replay).await.unwrap();
    broker.publish(&delivery("d-2", "{}")).await.unwrap();
    assert_eq!((side.depth(&names.work()).await, side.depth(&names.replays()).await), (1, 1));
    let mut drained = drain(&mut broker.consume(10).await, 2).await;
    drained.sort();
    assert_eq!(drained, ["d-1", "d-2"]);
    until("the other consumer has the delivery", || async { side.depth(own.as_str()).await == 1 }).await;
    broker.close().await;
    side.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_comes_late_is_found() {
    let mut node = Node::new();
    let names = Names::new(&node.url());
    let mut settings = settings(&names);
    settings.publish_timeout = Duration::from_millis(300);
    let broker = connect(settings);
    let mut consumer = broker.consume(10).await;
    let began = Instant::now();
    let error = broker.publish(&delivery("d-1", "{}")).await.unwrap_err();
    assert!(matches!(error, PublishError::Unavailable(_)));
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(broker.health().state, State::Down);
    assert!(broker.health().reason.is_some());

    node.start().await;
    until_well(&broker).await;
    broker.publish(&delivery("d-2", "{}")).await.unwrap();
    assert_eq!(drain(&mut consumer, 1).await, ["d-2"]);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_short_of_memory_fails_publishes_in_time_and_takes_them_again_afterwards() {
    let mut node = Node::new();
    node.start().await;
    let names = Names::new(&node.url());
    let mut settings = settings(&names);
    settings.confirm_timeout = Duration::from_millis(500);
    settings.publish_timeout = Duration::from_secs(2);
    let broker = connect(settings);
    until_well(&broker).await;
    broker.publish(&delivery("d-1", "{}")).await.unwrap();

    node.control(&["set_vm_memory_high_watermark", "0.0000001"]).await;
    for id in ["d-2", "d-3"] {
        let began = Instant::now();
        let error = broker.publish(&delivery(id, "{}")).await.unwrap_err();
        assert!(matches!(error, PublishError::Unavailable(_)), "{error}");
        assert!(began.elapsed() < Duration::from_secs(4));
    }
    let health = broker.health();
    assert_eq!(health.state, State::Down);
    assert!(health.reason.as_deref().unwrap_or_default().contains("memory"), "{health:?}");

    node.control(&["set_vm_memory_high_watermark", "0.8"]).await;
    until_well(&broker).await;
    broker.publish(&delivery("d-4", "{}")).await.unwrap();
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_confirmed_is_consumed_although_the_broker_is_killed_in_mid_load() {
    let mut node = Node::new();
    node.start().await;
    let names = Names::new(&node.url());
    let tasks = Tasks::new();
    let broker = Arc::new(RabbitMq::connect(settings(&names), &tasks).unwrap());
    until_well(&broker).await;

    let born = Instant::now();
    let confirmed = Arc::new(Mutex::new(BTreeSet::new()));
    let killed = Arc::new(AtomicBool::new(false));
    let sequence = Arc::new(AtomicUsize::new(0));
    // After the outage, so many more.
    let enough = 1000;
    let after = Arc::new(AtomicUsize::new(0));
    let publishers: Vec<_> = (0..32)
        .map(|_| {
            let (broker, confirmed, sequence) = (broker.clone(), confirmed.clone(), sequence.clone());
            let (killed, after) = (killed.clone(), after.clone());
            tasks.short_lived("test", async move {
                while after.load(Ordering::Relaxed) < enough {
                    let id = format!("d-{:06}", sequence.fetch_add(1, Ordering::Relaxed));
                    if broker.publish(&delivery(&id, vec![b'x'; 2000])).await.is_ok() {
                        confirmed.lock().await.insert(id);
                        if killed.load(Ordering::Relaxed) {
                            after.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            })
        })
        .collect();
    let mut consumer = broker.consume(100).await;
    let consumed = Arc::new(Mutex::new(BTreeSet::new()));
    let consuming = tasks.short_lived("test", {
        let consumed = consumed.clone();
        async move {
            while let Some(message) = consumer.next().await {
                let Ok(Payload::Delivery(delivery)) = message.payload.decode(usize::MAX) else { panic!("{message:?}") };
                consumed.lock().await.insert(delivery.id.to_string());
                consumer.ack(&[message.tag]).await;
            }
        }
    });

    // RabbitMQ itself puts a new queue's place on disk only now and then; one killed right after its birth never comes
    // back. So this one gets to be some seconds old.
    until("the queue is of age", || async { born.elapsed() > Duration::from_secs(3) }).await;
    let before = confirmed.lock().await.len();
    until("load is flowing", || async { confirmed.lock().await.len() > before + 50 }).await;
    node.kill().await;
    until("the outage is seen", || async { broker.health().state == State::Down }).await;
    killed.store(true, Ordering::Relaxed);
    node.start().await;
    for publisher in publishers {
        soon("the publishers", publisher).await.unwrap();
    }
    let confirmed = confirmed.lock().await.clone();
    until("all that was confirmed is consumed", || async { confirmed.is_subset(&*consumed.lock().await) }).await;
    broker.close().await;
    soon("the consumer", consuming).await.unwrap();
}
