//! What the tests need around rollcall: services, and waiting for things without guessing how long they take.

pub(crate) mod chaos;
pub(crate) mod deliveries_api;
pub(crate) mod disk;
pub(crate) mod github;
pub(crate) mod postgresql;
pub(crate) mod process;
pub(crate) mod rabbitmq;
pub(crate) mod rosters;
pub(crate) mod site;

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the condition holds.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for the future.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}
