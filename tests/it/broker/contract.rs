//! What `rollcall::broker` promises, asked of both brokers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rollcall::broker::embedded::{self, Embedded};
use rollcall::broker::rabbitmq::{self, RabbitMq};
use rollcall::broker::{Lane, Payload, PublishError, SharedBroker, State};
use rollcall::delivery::{Checkpoint, Delivery, RefusedCount, Timestamp};
use rollcall::shutdown::Tasks;
use rstest::rstest;
use tempfile::TempDir;
use uuid::Uuid;

use super::{delivery, drain, next, next_delivery};
use crate::harness::rabbitmq::{Names, url};
use crate::harness::{soon, until};

#[derive(Clone, Copy, Debug)]
enum Kind {
    RabbitMq,
    Embedded,
}

/// A place where a broker keeps its messages, however often it is opened.
enum Place {
    RabbitMq(Names),
    Embedded(TempDir),
}

impl Place {
    async fn new(kind: Kind) -> Self {
        match kind {
            Kind::RabbitMq => Self::RabbitMq(Names::new(&url().await)),
            Kind::Embedded => Self::Embedded(tempfile::tempdir().unwrap()),
        }
    }

    async fn open(&self) -> SharedBroker {
        let tasks = Tasks::new();
        match self {
            Self::RabbitMq(names) => {
                let mut settings = rabbitmq::Settings::new(names.url.clone().into());
                settings.prefix = names.prefix.clone();
                settings.max_message = 2 * 1024 * 1024;
                settings.publish_timeout = Duration::from_secs(30);
                Arc::new(RabbitMq::connect(settings, &tasks).unwrap())
            }
            Self::Embedded(folder) => {
                let mut settings = embedded::Settings::new(folder.path());
                settings.max_message = 2 * 1024 * 1024;
                Arc::new(Embedded::open(settings, &tasks).await.unwrap())
            }
        }
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_arrives_byte_for_byte_with_all_that_belongs_to_it(
    #[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind,
) {
    let place = Place::new(kind).await;
    let broker = place.open().await;
    let large: Vec<u8> = (0..1024 * 1024_u32).map(|n| (n % 251) as u8).collect();
    let mut sent =
        vec![delivery("empty", ""), delivery("not UTF-8 é", &b"\xff\x00\xfe{}\r\n"[..]), delivery("large", large)];
    sent.push(delivery("form", "payload=%7B%7D"));
    sent[0].stamp = None;
    sent[2].replay = Some(Uuid::from_u128(9));
    let mut consumer = broker.consume(10).await;
    for sent in sent {
        broker.publish(&sent).await.unwrap();
        let (message, received) = next_delivery(&mut consumer).await;
        assert!(received == sent && received.body == sent.body, "{received:?}");
        assert!(!message.redelivered);
        assert_eq!(consumer.ack(&[message.tag]).await, 0);
    }
    broker.close().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_published_survives_a_broker_that_is_dropped(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    let place = Place::new(kind).await;
    let broker = place.open().await;
    broker.publish(&delivery("d-1", "{}")).await.unwrap();
    drop(broker);
    let broker = place.open().await;
    assert_eq!(drain(&mut broker.consume(10).await, 1).await, ["d-1"]);
    broker.close().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unacked_messages_come_again_marked_and_acked_ones_do_not(
    #[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind,
) {
    let place = Place::new(kind).await;
    let broker = place.open().await;
    for id in ["d-1", "d-2", "d-3", "d-4"] {
        broker.publish(&delivery(id, "{}")).await.unwrap();
    }
    let mut consumer = broker.consume(10).await;
    let mut tags = Vec::new();
    for _ in 0..4 {
        let (message, _) = next_delivery(&mut consumer).await;
        assert!(!message.redelivered);
        tags.push(message.tag);
    }
    assert_eq!(consumer.ack(&[tags[0], tags[2]]).await, 0);
    broker.close().await;
    drop((consumer, broker));

    let broker = place.open().await;
    let mut consumer = broker.consume(10).await;
    for expected in ["d-2", "d-4"] {
        let (message, delivery) = next_delivery(&mut consumer).await;
        assert_eq!(delivery.id.as_str(), expected);
        assert!(message.redelivered);
        consumer.ack(&[message.tag]).await;
    }
    broker.publish(&delivery("d-5", "{}")).await.unwrap();
    let (message, delivery) = next_delivery(&mut consumer).await;
    assert_eq!(delivery.id.as_str(), "d-5");
    assert!(!message.redelivered);
    broker.close().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_deliveries_come_in_the_order_of_publishing(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    let place = Place::new(kind).await;
    let broker = place.open().await;
    let mut consumer = broker.consume(7).await;
    let ids: Vec<String> = (0..100).map(|n| format!("d-{n}")).collect();
    for id in &ids {
        broker.publish(&delivery(id, "{}")).await.unwrap();
    }
    assert_eq!(drain(&mut consumer, ids.len()).await, ids);
    broker.close().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_publishes_all_arrive_once(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    let place = Place::new(kind).await;
    let broker = place.open().await;
    let deliveries: Vec<_> = (0..500).map(|n| delivery(&format!("d-{n:03}"), vec![b'x'; n])).collect();
    let published = join_all(deliveries.iter().map(|delivery| broker.publish(delivery))).await;
    assert!(published.iter().all(Result::is_ok), "{published:?}");

    let mut consumer = broker.consume(50).await;
    let (mut ids, mut tags) = (Vec::new(), Vec::new());
    while ids.len() < deliveries.len() {
        let (message, delivery) = next_delivery(&mut consumer).await;
        ids.push(delivery.id.to_string());
        tags.push(message.tag);
        if tags.len() == 25 {
            assert_eq!(consumer.ack(&tags).await, 0);
            tags.clear();
        }
    }
    ids.sort();
    assert_eq!(ids, deliveries.iter().map(|delivery| delivery.id.to_string()).collect::<Vec<_>>());
    assert!(consumer.try_next().is_none());
    broker.close().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_the_prefetch_is_out_at_a_time(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    let place = Place::new(kind).await;
    let broker = place.open().await;
    for n in 0..5 {
        broker.publish(&delivery(&format!("d-{n}"), "{}")).await.unwrap();
    }
    let mut consumer = broker.consume(3).await;
    let mut tags = Vec::new();
    for _ in 0..3 {
        tags.push(next(&mut consumer).await.tag);
    }
    assert!(tokio::time::timeout(Duration::from_millis(300), consumer.next()).await.is_err());
    assert_eq!(consumer.ack(&tags[1..2]).await, 0);
    assert_eq!(next_delivery(&mut consumer).await.1.id.as_str(), "d-3");
    broker.close().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_replays_wait_work_is_handed_out_at_once(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    let place = Place::new(kind).await;
    let broker = place.open().await;
    let replays: Vec<_> = (0..200)
        .map(|n| Delivery { replay: Some(Uuid::from_u128(9)), stamp: None, ..delivery(&format!("r-{n}"), "{}") })
        .collect();
    let published = join_all(replays.iter().map(|delivery| broker.publish(delivery))).await;
    assert!(published.iter().all(Result::is_ok), "{published:?}");
    let mut consumer = broker.consume(100).await;
    let mut tags = Vec::new();
    while let Ok(message) = tokio::time::timeout(Duration::from_millis(500), consumer.next()).await {
        let message = message.unwrap();
        assert_eq!(message.lane, Lane::Replay);
        tags.push(message.tag);
    }
    assert_eq!(tags.len(), 64, "only a few replays are out at a time");
    broker.publish(&delivery("d-1", "{}")).await.unwrap();
    let (message, received) = next_delivery(&mut consumer).await;
    assert_eq!(received.id.as_str(), "d-1");
    tags.push(message.tag);
    assert_eq!(consumer.ack(&tags).await, 0);
    assert_eq!(next_delivery(&mut consumer).await.0.lane, Lane::Replay);
    broker.close().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ack_from_a_session_that_is_over_is_counted_and_harmless(
    #[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind,
) {
    let place = Place::new(kind).await;
    let broker = place.open().await;
    broker.publish(&delivery("d-1", "{}")).await.unwrap();
    let mut first = broker.consume(10).await;
    let stale = next(&mut first).await.tag;
    drop(first);

    let mut second = broker.consume(10).await;
    let (message, _) = next_delivery(&mut second).await;
    assert!(message.redelivered);
    assert_eq!(second.ack(&[stale]).await, 1);
    assert_eq!(second.ack(&[message.tag, stale]).await, 1);
    assert_eq!(second.ack(&[message.tag]).await, 1);
    broker.close().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_above_the_limit_is_refused_and_one_at_the_limit_is_not(
    #[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind,
) {
    let place = Place::new(kind).await;
    let broker = place.open().await;
    let limit = 2 * 1024 * 1024;
    // Nothing that compression could shorten.
    let mut random = fastrand::Rng::with_seed(1);
    let noise: Vec<u8> = (0..=limit).map(|_| random.u8(..)).collect();
    broker.publish(&delivery("d-1", noise[..limit].to_vec())).await.unwrap();
    let error = broker.publish(&delivery("d-2", noise)).await.unwrap_err();
    assert!(matches!(error, PublishError::TooLarge { size, limit: told } if size == limit + 1 && told == limit));
    assert!(!error.is_transient());
    assert_eq!(drain(&mut broker.consume(10).await, 1).await, ["d-1"]);
    broker.close().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_arrives_behind_what_it_closes(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    let place = Place::new(kind).await;
    let broker = place.open().await;
    let sent = Checkpoint {
        run: Uuid::from_u128(3),
        source: "acme-github".parse().unwrap(),
        sequence: 41,
        voids: vec![7, 40],
        held: None,
        refused: vec![RefusedCount {
            reason: "unverified".to_owned(),
            sender: "9f2c01aa".to_owned(),
            count: 3,
            last_at: Timestamp(1_760_000_000_123_456),
        }],
    };
    broker.publish(&delivery("d-41", "{}")).await.unwrap();
    broker.checkpoint(&sent).await.unwrap();
    let mut consumer = broker.consume(10).await;
    assert_eq!(drain(&mut consumer, 1).await, ["d-41"]);
    let message = next(&mut consumer).await;
    let Ok(Payload::Checkpoint(received)) = message.payload.decode(usize::MAX) else { panic!("{message:?}") };
    assert_eq!(received, sent);
    assert_eq!(consumer.ack(&[message.tag]).await, 0);
    broker.close().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_ends_a_waiting_consumer_and_refuses_publishes(#[values(Kind::RabbitMq, Kind::Embedded)] kind: Kind) {
    let place = Place::new(kind).await;
    let broker = place.open().await;
    broker.publish(&delivery("d-1", "{}")).await.unwrap();
    let mut consumer = broker.consume(10).await;
    drain(&mut consumer, 1).await;
    until("the broker is well", || async { broker.health().state == State::Ok }).await;
    let (ended, ()) = tokio::join!(soon("the end of the consumer", consumer.next()), broker.close());
    assert!(ended.is_none());
    assert!(consumer.next().await.is_none());
    assert!(matches!(broker.publish(&delivery("d-2", "{}")).await, Err(PublishError::Unavailable(_))));
}
