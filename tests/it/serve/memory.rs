//! What a worker holds is bounded by what bodies have once they are decompressed, and not by what they have on the wire.

use futures_util::{StreamExt as _, stream};
use rollcall::broker::rabbitmq::INITIAL_PREFETCH;
use rollcall::ledger::outcome::Outcome;
use rstest::rstest;

use super::poison::three_workers_die_on_it;
use crate::harness::github::{Account, Posted};
use crate::harness::rabbitmq::Side;
use crate::harness::site::{Carrier, Site, becomes, is_settled, outcome};
use crate::harness::until;

const MIB: usize = 1024 * 1024;
/// How many bytes of bodies the worker decodes at a time by default.
const MAX_BATCH: usize = 32 * MIB;
/// What a worker takes beside the bodies, with what the database's client and the allocator keep.
const BASE: usize = 224 * MIB;
/// How often the largest body exists while it is recorded.
const COPIES: usize = 8;

/// A site whose ingress has taken so many joins of so many bytes each, which RabbitMQ holds now.
async fn site_with(database: Database, joins: i64, bytes: usize) -> (Site, Vec<Posted>) {
    let mut site = Site::new(Carrier::RabbitMq, joins).await;
    if let Database::PostgreSql = database {
        site.in_postgresql().await;
    }
    let posted = take(&site, joins, |n| site.github.padded_join(Account(n), bytes)).await;
    (site, posted)
}

/// Has an ingress take so many deliveries.
async fn take(site: &Site, count: i64, delivery: impl Fn(i64) -> Posted) -> Vec<Posted> {
    // A copy of each is kept until the end of the test, and compressing them takes a debug build a while.
    let mut ingress = site.start_ingress();
    let at = ingress.ready().await;
    until("the ingress is ready", async || site.ask(&at, "/ready").await.0 == 200).await;
    let posted = stream::iter(1..=count)
        .map(|n| {
            let (at, delivery) = (&at, &delivery);
            async move {
                let mut posted = delivery(n);
                site.github.accepted(&at.webhook, &posted).await;
                posted.forget_body();
                posted
            }
        })
        .buffered(2)
        .collect()
        .await;
    assert_eq!(ingress.stop().await.code, Some(0));
    posted
}

#[derive(Clone, Copy, Debug)]
enum Database {
    Sqlite,
    PostgreSql,
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_large_bodies_that_compress_well_take_no_more_than_the_bound(
    #[values(Database::Sqlite, Database::PostgreSql)] database: Database,
) {
    const BYTES: usize = 8 * MIB;
    const JOINS: i64 = 60;
    let (site, joins) = site_with(database, JOINS, BYTES).await;
    let mut worker = site.start_worker();
    worker.works().await;
    let ledger = site.ledger().await;
    for join in &joins {
        becomes(&ledger, &join.id, Outcome::Applied).await;
    }
    let peak = worker.peak_memory();
    assert!(peak < BASE + MAX_BATCH + COPIES * BYTES, "{} MiB were resident", peak / MIB);
    assert_eq!(worker.stop().await.code, Some(0));
}

/// Every worker is killed while it holds all of them. From the second on, the first of them is taken up alone and its tries
/// are counted, before any is decompressed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_message_that_three_workers_died_on_is_parked_and_its_neighbours_are_not() {
    let (site, joins) = site_with(Database::PostgreSql, 20, 4 * MIB).await;
    let ledger = site.ledger().await;
    let hold = site.schema().unwrap().hold("deliveries").await;
    three_workers_die_on_it(&site).await;
    let mut worker = site.start_worker();
    worker.works().await;
    until("it is taken up once more", async || site.schema().unwrap().begun().await == 3).await;
    drop(hold);
    let mut parked = 0;
    for join in &joins {
        until("it is settled", async || is_settled(&ledger, &join.id).await).await;
        let (outcome, reason) = outcome(&ledger, &join.id).await.unwrap();
        match outcome {
            Outcome::Parked => {
                assert_eq!(reason, "it was begun 3 times and never finished");
                parked += 1;
            }
            other => assert_eq!(other, Outcome::Applied, "{reason}"),
        }
    }
    assert_eq!(parked, 1);
    until("nothing is begun and unfinished", async || site.schema().unwrap().begun().await == 0).await;
    assert_eq!(worker.stop().await.code, Some(0));
}

/// A worker that is killed because it was handed more than its memory holds is handed little when it starts again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_large_bodies_that_a_killed_worker_held_the_next_one_holds_a_few() {
    const BYTES: usize = 8 * MIB;
    const COUNT: i64 = 48;
    let (site, small) = site_with(Database::PostgreSql, 1, 0).await;
    let (url, queue) = site.work_queue();
    let side = Side::open(&url).await;
    let ledger = site.ledger().await;
    let mut killed = site.start_worker();
    killed.works().await;
    becomes(&ledger, &small[0].id, Outcome::Applied).await;
    until("it takes the full prefetch", async || side.consumers(&queue).await == 2).await;
    let hold = site.schema().unwrap().hold("deliveries").await;
    let posted = take(&site, COUNT, |_| site.github.large(BYTES)).await;
    until("it holds all of them", async || killed.peak_memory() > BYTES * posted.len()).await;
    killed.kill().await;
    until("they wait again", async || side.depth(&queue).await >= u32::try_from(COUNT).unwrap()).await;
    let waiting = side.depth(&queue).await;

    let mut worker = site.start_worker();
    worker.works().await;
    until("it is on the first of a few", async || {
        site.schema().unwrap().begun().await == 1 && side.depth(&queue).await == waiting - u32::from(INITIAL_PREFETCH)
    })
    .await;
    drop(hold);
    for push in &posted {
        becomes(&ledger, &push.id, Outcome::Ignored).await;
    }
    let peak = worker.peak_memory();
    assert!(
        peak < BASE + MAX_BATCH + (COPIES + usize::from(INITIAL_PREFETCH)) * BYTES,
        "{} MiB were resident",
        peak / MIB
    );
    assert_eq!(worker.stop().await.code, Some(0));
    side.close().await;
}

/// A body for which there is no memory isn't unreadable: it is tried again alone, and in the end kept as it travelled.
/// With memory again it is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_without_memory_for_it_is_kept_as_it_travelled_and_read_again_later() {
    let mut site = Site::new(Carrier::RabbitMq, 3).await;
    // More than the allocator has set aside for a thread.
    site.set("ingress", "max_body", "100MiB");
    site.set("ingress", "body_budget", "512MiB");
    let mut ingress = site.start_ingress();
    let at = ingress.ready().await;
    until("the ingress is ready", async || site.ask(&at, "/ready").await.0 == 200).await;
    let mut worker = site.start_worker();
    worker.works().await;
    let ledger = site.ledger().await;
    let joins = async |join: Posted| {
        site.github.accepted(&at.webhook, &join).await;
        becomes(&ledger, &join.id, Outcome::Applied).await;
    };
    // All that it needs for small ones it has by then.
    joins(site.github.join(Account(1))).await;

    worker.limit_memory(Some(20 * MIB as u64));
    let large = site.github.padded_join(Account(2), 80 * MIB);
    site.github.accepted(&at.webhook, &large).await;
    until("it is kept", async || !ledger.unreadable(10).await.unwrap().is_empty()).await;
    let kept = ledger.unreadable(10).await.unwrap().remove(0);
    assert_eq!((kept.ours, kept.replay), (true, None));
    assert_eq!(kept.why, "there is no memory for the body, 9 times in a row; it is kept as it travelled");
    assert!(kept.bytes < MIB as i64, "{} bytes", kept.bytes);
    joins(site.github.join(Account(3))).await;
    assert_eq!(outcome(&ledger, &large.id).await, None);
    assert!(worker.log().contains("nothing is recorded; trying again in "));

    worker.limit_memory(None);
    let plan = site.run(&["replay", "--unreadable", "--dry-run"]).ended().await;
    assert!(plan.output.contains("1 (1 of acme-github)"), "{plan:?}");
    let replay = site.run(&["replay", "--unreadable", "--yes", "--wait"]).ended().await;
    assert_eq!(replay.code, Some(0), "{replay:?}");
    becomes(&ledger, &large.id, Outcome::Applied).await;
    let listed = site.run(&["deliveries", "unreadable", "--json"]).ended().await;
    let listed: serde_json::Value = serde_json::from_str(&listed.output).unwrap();
    assert!(listed[0]["replay"].is_string(), "{listed}");
    let balance = site.run(&["balance"]).ended().await;
    assert!(balance.output.contains("3 accepted = 3 applied + 0 missing"), "{balance:?}");
    let again = site.run(&["replay", "--unreadable"]).ended().await;
    assert!(again.output.contains("No unreadable message can be read now."), "{again:?}");
    for process in [ingress, worker] {
        assert_eq!(process.stop().await.code, Some(0));
    }
}
