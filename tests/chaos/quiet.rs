//! Waiting until all is quiet: everything recorded, nothing due, no halt, nothing in the broker.

use std::time::Duration;

use tokio::time::Instant;

use crate::harness::rabbitmq::Side;
use crate::ledger::{Look, Work};
use crate::stage::Stage;

/// How long nothing may happen while there still is something to do. A halt's next probe may be a minute away.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long it may take in all, whatever goes on.
const IN_ALL: Duration = Duration::from_secs(360);

/// Waits until all is quiet and stays so. An error says what isn't.
pub(crate) async fn wait(stage: &Stage, look: &mut Look, deliveries: i64) -> Result<(), String> {
    let began = Instant::now();
    let mut moved = began;
    let mut before: Option<Work> = None;
    let mut same = 0;
    loop {
        let work = look.work().await;
        let depth = depth(stage).await;
        let done = work.recorded >= deliveries && (work.due, work.halts, depth) == (0, 0, 0);
        same = if done && before == Some(work) { same + 1 } else { 0 };
        if same >= 4 {
            return Ok(());
        }
        if before != Some(work) {
            moved = Instant::now();
        }
        if moved.elapsed() > PATIENCE || began.elapsed() > IN_ALL {
            return Err(format!("it never becomes quiet: {deliveries} deliveries, {depth} in the broker, {work:?}"));
        }
        if before != Some(work) {
            stage.notes.say(&format!("not quiet yet: {work:?}, {depth} messages wait"));
        }
        before = Some(work);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Waits until no ingress holds anything back. An error says who does.
pub(crate) async fn wait_for_the_spools(stage: &Stage) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut held = Vec::new();
        for host in &stage.hosts {
            held.push(host.spooled(&stage.site).await.unwrap_or(0));
        }
        if held.iter().all(|deliveries| *deliveries == 0) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("the hosts' spools are never empty, but hold {held:?}"));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Waits until nothing is missing that was accepted. An error names what is.
pub(crate) async fn wait_for_the_balance(look: &Look) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let balance = look.balance().await;
        let missing: Vec<String> = balance.gaps.iter().filter(|gap| gap.accepted).map(ToString::to_string).collect();
        if missing.is_empty() && balance.adds_up() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("{balance}; missing: {missing:?}"));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// How many messages the broker still has to hand out. Unacked ones come after a stop.
async fn depth(stage: &Stage) -> u32 {
    let Some(broker) = stage.broker().await else { return 0 };
    let (_, queue) = stage.site.work_queue();
    let side = Side::open(&broker).await;
    let depth = side.depth(&queue).await;
    side.close().await;
    depth
}
