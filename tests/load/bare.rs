//! The yardstick: a publisher that does nothing but publish, with pipelined confirms, to rollcall's own exchange.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeleteOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};

use crate::WARM_UP;
use crate::generator::body;
use crate::options::Options;
use crate::samples::{Samples, micros};

const PERSISTENT: u8 = 2;

/// Publishes on one connection for the measured time.
pub(crate) async fn run(options: &Options, prefix: &str, channels: usize) -> Samples {
    let connection = connect(&options.broker).await;
    let body: Arc<[u8]> = body(options.body, 0).into();
    let measured = Duration::from_secs(options.seconds);
    let from = Instant::now() + WARM_UP;
    let mut publishing = JoinSet::new();
    // A channel that is dropped closes itself, which must not run into the closing of the connection.
    let mut open = Vec::new();
    for number in 0..channels {
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let in_flight = (options.connections / channels).max(1);
        let exchange = format!("{prefix}.deliveries");
        open.push(channel.clone());
        publishing.spawn(publish(channel, exchange, number, body.clone(), in_flight, from, from + measured));
    }
    let samples = Samples::new(publishing.join_all().await, measured);
    connection.close(200, "OK".into()).await.unwrap();
    samples
}

async fn publish(
    channel: Channel,
    exchange: String,
    number: usize,
    body: Arc<[u8]>,
    in_flight: usize,
    from: Instant,
    until: Instant,
) -> Vec<u32> {
    let properties =
        BasicProperties::default().with_delivery_mode(PERSISTENT).with_content_type("application/json".into());
    let mut window = FuturesUnordered::new();
    let mut latencies = Vec::new();
    let mut published = 0;
    loop {
        while window.len() < in_flight && Instant::now() < until {
            published += 1;
            let began = Instant::now();
            let properties = properties.clone().with_message_id(format!("bare-{number}-{published}").into());
            let key = "github.organization.member_added";
            let confirm = channel
                .basic_publish(exchange.as_str().into(), key.into(), BasicPublishOptions::default(), &body, properties)
                .await
                .unwrap();
            window.push(async move { (began, confirm.await.unwrap()) });
        }
        let Some((began, confirmation)) = window.next().await else { return latencies };
        assert!(matches!(confirmation, Confirmation::Ack(None)), "{confirmation:?}");
        let now = Instant::now();
        if began >= from && now < until {
            latencies.push(micros(now - began));
        }
    }
}

/// Empties the work queue.
pub(crate) async fn purge(url: &str, prefix: &str) {
    let connection = connect(url).await;
    let channel = connection.create_channel().await.unwrap();
    channel.queue_purge(format!("{prefix}.work").into(), QueuePurgeOptions::default()).await.unwrap();
    connection.close(200, "OK".into()).await.unwrap();
}

/// Removes the exchange and the queues.
pub(crate) async fn remove(url: &str, prefix: &str) {
    let connection = connect(url).await;
    let channel = connection.create_channel().await.unwrap();
    channel.exchange_delete(format!("{prefix}.deliveries").into(), ExchangeDeleteOptions::default()).await.unwrap();
    for queue in ["work", "parked"] {
        channel.queue_delete(format!("{prefix}.{queue}").into(), QueueDeleteOptions::default()).await.unwrap();
    }
    connection.close(200, "OK".into()).await.unwrap();
}

async fn connect(url: &str) -> Connection {
    Connection::connect(url, ConnectionProperties::default()).await.unwrap()
}
