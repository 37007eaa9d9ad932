//! GitHub tells: each post at its turn, whatever became of those before; again and again until it is taken, as an
//! administrator has GitHub deliver again what failed. On the way the schedule is carried out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::harness::github::{Account, Posted};
use crate::harness::site::identity_of;
use crate::notes::Answered;
use crate::schedule::Strike;
use crate::stage::Stage;
use crate::world::{Post, World};

/// How many posts are under way at the most.
const UNDER_WAY: usize = 400;
/// How long it may take until a post is taken at last.
const PATIENCE: Duration = Duration::from_secs(150);

/// One delivery, and what became of its posts.
pub(crate) struct Delivery {
    pub(crate) posted: Posted,
    /// How often it was answered with 202.
    pub(crate) accepted: AtomicUsize,
    /// How often it was sent at all.
    pub(crate) sent: AtomicUsize,
}

/// All that is told.
pub(crate) fn deliveries(stage: &Stage, world: &World) -> Vec<Delivery> {
    let told = world.told.iter().map(|told| stage.site.github.tell(&told.event));
    told.map(|posted| Delivery { posted, accepted: AtomicUsize::new(0), sent: AtomicUsize::new(0) }).collect()
}

/// Tells everything under this schedule. When it returns, all is taken and every fault is over.
pub(crate) async fn tell(
    stage: &Arc<Stage>,
    world: &World,
    deliveries: &Arc<Vec<Delivery>>,
    schedule: &[Strike],
    rate: usize,
) {
    let mut tasks = JoinSet::new();
    let under_way = Arc::new(Semaphore::new(UNDER_WAY));
    let mut ends: Vec<(usize, oneshot::Sender<()>)> = Vec::new();
    let mut turn = tokio::time::interval(Duration::from_secs(1) / u32::try_from(rate).unwrap());
    for (number, post) in world.posts.iter().enumerate() {
        turn.tick().await;
        for strike in schedule.iter().filter(|strike| strike.begin == number) {
            let (end, ended) = oneshot::channel();
            ends.push((strike.end, end));
            let (stage, fault) = (Arc::clone(stage), strike.fault);
            tasks.spawn_local(async move {
                stage.strike(fault).await;
                // It is over too if nobody is there to say so.
                let _ = ended.await;
                stage.mend(fault).await;
            });
        }
        // What is dropped ends its fault.
        ends.retain(|(end, _)| *end > number);
        if number == world.posts.len() / 2 {
            known_after_all(stage, world);
        }
        let place = Arc::clone(&under_way).acquire_owned().await.unwrap();
        let (stage, deliveries, post) = (Arc::clone(stage), Arc::clone(deliveries), *post);
        tasks.spawn_local(async move {
            deliver(&stage, &deliveries[post.told], post, number).await;
            drop(place);
        });
        while let Some(done) = tasks.try_join_next() {
            done.unwrap();
        }
    }
    ends.clear();
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

/// Drata has heard of some accounts only now.
fn known_after_all(stage: &Stage, world: &World) {
    for account in (1..=world.accounts).map(Account).filter(|account| World::is_unknown(*account).1) {
        stage.site.drata.put_identity(identity_of(account));
    }
}

async fn deliver(stage: &Stage, delivery: &Delivery, post: Post, number: usize) {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(200);
    for turn in number.. {
        if let Some(door) = stage.door(turn) {
            let github = &stage.site.github;
            let answer = if post.forged {
                github.forge(&door, &delivery.posted).await
            } else {
                delivery.sent.fetch_add(1, Ordering::Relaxed);
                github.post(&door, &delivery.posted).await
            };
            let how = match answer.as_ref().map(|answer| answer.status) {
                Some(202) => Answered::Accepted,
                Some(503 | 408) => Answered::Unavailable,
                Some(401) => Answered::Unauthorized,
                Some(_) => Answered::Otherwise,
                None => Answered::NotAtAll,
            };
            stage.notes.answered(how);
            match (how, post.forged) {
                (Answered::Accepted, false) => {
                    delivery.accepted.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                (Answered::Unauthorized, true) => return,
                (Answered::Unavailable | Answered::NotAtAll, _) => {}
                _ => {
                    let what = if post.forged { "forged" } else { "honest" };
                    stage.notes.fault_of_ours(format!("the {what} delivery {} got {answer:?}", delivery.posted.id));
                    return;
                }
            }
        }
        if Instant::now() > deadline {
            stage.notes.fault_of_ours(format!("the delivery {} is never taken", delivery.posted.id));
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}
