//! What the embedded broker must do besides.

use std::time::Duration;

use futures_util::future::join_all;
use rollcall::broker::embedded::{Embedded, Settings};
use rollcall::broker::{Broker, PublishError, State};
use rollcall::shutdown::Tasks;
use sqlx::{ConnectOptions, Connection};

use super::{delivery, drain};
use crate::harness::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_publishes_share_commits() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Embedded::open(Settings::new(folder.path()), &Tasks::new()).await.unwrap();
    let deliveries: Vec<_> = (0..1000).map(|n| delivery(&format!("d-{n}"), "{}")).collect();
    let published = join_all(deliveries.iter().map(|delivery| broker.publish(delivery))).await;
    assert!(published.iter().all(Result::is_ok));
    assert!(broker.commits() <= 20, "{} commits", broker.commits());
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_publishes_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let serving = Embedded::open(Settings::new(folder.path()), &Tasks::new()).await.unwrap();
    let mut consumer = serving.consume(10).await;
    let other = Embedded::open(Settings::new(folder.path()), &Tasks::new()).await.unwrap();
    other.publish(&delivery("d-1", "{}")).await.unwrap();
    other.close().await;
    assert_eq!(drain(&mut consumer, 1).await, ["d-1"]);
    serving.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_written_fails_publishes_until_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(folder.path());
    settings.busy_timeout = Duration::from_millis(50);
    let broker = Embedded::open(settings.clone(), &Tasks::new()).await.unwrap();
    let mut consumer = broker.consume(10).await;
    broker.publish(&delivery("d-1", "{}")).await.unwrap();

    let mut other = sqlx::sqlite::SqliteConnectOptions::new().filename(&settings.file).connect().await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "another process, which holds the file")]
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let error = broker.publish(&delivery("d-2", "{}")).await.unwrap_err();
    assert!(matches!(&error, PublishError::Unavailable(why) if why.contains("locked")), "{error}");
    assert!(error.is_transient());
    let health = broker.health();
    assert_eq!(health.state, State::Down);
    assert!(health.reason.unwrap().contains("queue.db"));

    lock.rollback().await.unwrap();
    until("the broker is well again", || async { broker.health().state == State::Ok }).await;
    broker.publish(&delivery("d-3", "{}")).await.unwrap();
    assert_eq!(drain(&mut consumer, 2).await, ["d-1", "d-3"]);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_consumers_share_the_work_and_one_takes_over_from_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Embedded::open(Settings::new(folder.path()), &Tasks::new()).await.unwrap();
    let (mut first, mut second) = (broker.consume(2).await, broker.consume(10).await);
    for n in 0..6 {
        broker.publish(&delivery(&format!("d-{n}"), "{}")).await.unwrap();
    }
    let mut seen = vec![super::next_delivery(&mut first).await.1.id.to_string()];
    let held = super::next_delivery(&mut second).await;
    seen.push(held.1.id.to_string());
    drop(first);
    seen.extend(drain(&mut second, 5).await);
    seen.sort();
    assert_eq!(seen, ["d-0", "d-0", "d-1", "d-2", "d-3", "d-4", "d-5"]);
    assert_eq!(second.ack(&[held.0.tag]).await, 0);
    broker.close().await;
}
