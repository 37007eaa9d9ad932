//! The contract of the broker port, held by both brokers, and what each must do besides.

mod contract;
mod embedded;
mod rabbitmq;
mod spool;

use bytes::Bytes;
use rollcall::broker::{Consumer, Lane, Message, Payload};
use rollcall::delivery::{Delivery, SecretName, Stamp, Timestamp};
use uuid::Uuid;

use crate::harness::soon;

/// A delivery from our own invention.
pub(crate) fn delivery(id: &str, body: impl Into<Bytes>) -> Delivery {
    Delivery {
        source: "acme-github".parse().unwrap(),
        provider: "github".to_owned(),
        id: id.parse().unwrap(),
        event: "organization.member_added".parse().unwrap(),
        received_at: Timestamp(1_760_000_000_123_456),
        secret: SecretName("env:GITHUB_WEBHOOK_SECRET".into()),
        stamp: Some(Stamp { run: Uuid::from_u128(7), sequence: 1 }),
        replay: None,
        body: body.into(),
    }
}

async fn next(consumer: &mut Box<dyn Consumer>) -> Message {
    soon("the next message", consumer.next()).await.expect("an open broker")
}

/// The next message, which has to be a delivery, from the lane that it belongs to.
pub(crate) async fn next_delivery(consumer: &mut Box<dyn Consumer>) -> (Message, Delivery) {
    let message = next(consumer).await;
    let Ok(Payload::Delivery(delivery)) = message.payload.decode(usize::MAX) else { panic!("{message:?}") };
    assert_eq!(message.lane, if delivery.replay.is_some() { Lane::Replay } else { Lane::Work });
    (message, delivery)
}

/// Takes and acks so many deliveries, and returns their ids in order.
async fn drain(consumer: &mut Box<dyn Consumer>, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let (message, delivery) = next_delivery(consumer).await;
        ids.push(delivery.id.to_string());
        assert_eq!(consumer.ack(&[message.tag]).await, 0);
    }
    ids
}
