//! A message that kills whoever works on it, and messages of strangers.

use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use rollcall::ledger::outcome::Outcome;

use super::refused_writes::site_of_a_role;
use crate::harness::github::Account;
use crate::harness::rabbitmq::Side;
use crate::harness::site::{Carrier, Site, becomes};
use crate::harness::until;

/// The ledger's table is held, so that the worker can be killed while it is on the message, as often as it takes one up.
#[tokio::test]
async fn a_message_that_three_workers_died_on_is_parked_and_its_neighbours_are_not() {
    let mut site = Site::new(Carrier::RabbitMq, 4).await;
    site.in_postgresql().await;
    let ledger = site.ledger().await;
    let mut ingress = site.start_ingress();
    let at = ingress.ready().await;
    until("the ingress is ready", async || site.ask(&at, "/ready").await.0 == 200).await;
    let deliveries: Vec<_> = (1..=4).map(|n| site.github.join(Account(n))).collect();
    for delivery in &deliveries {
        site.github.accepted(&at.webhook, delivery).await;
    }

    let hold = site.schema().unwrap().hold("deliveries").await;
    three_workers_die_on_it(&site).await;
    let mut worker = site.start_worker();
    let admin = worker.works().await;
    until("it is taken up once more", async || site.schema().unwrap().begun().await == 3).await;
    drop(hold);

    let (poison, neighbours) = deliveries.split_first().unwrap();
    let reason = becomes(&ledger, &poison.id, Outcome::Parked).await;
    assert_eq!(reason, "it was begun 3 times and never finished");
    for neighbour in neighbours {
        becomes(&ledger, &neighbour.id, Outcome::Applied).await;
    }
    until("nothing is begun and unfinished", async || site.schema().unwrap().begun().await == 0).await;
    let listed = site.run(&["deliveries", "--outcome", "parked"]).ended().await;
    assert!(listed.output.contains(poison.id.as_str()) && listed.output.contains("begun 3 times"), "{listed:?}");
    let metrics = site.ask_admin(&admin, "/metrics").await.1;
    assert!(metrics.as_str().unwrap().contains("rollcall_open_deliveries"), "{metrics}");
    for process in [ingress, worker] {
        assert_eq!(process.stop().await.code, Some(0));
    }
}

#[tokio::test]
async fn messages_of_strangers_are_kept_for_whoever_looks_and_cost_no_delivery_anything() {
    // A role that serves may do little with them.
    let (site, _role) = site_of_a_role(Carrier::RabbitMq, 1).await;
    let (process, at) = site.serve().await;
    // Ready it is as soon as the spool is; the queue is there when the broker is.
    until("the broker is there", async || site.ask(&at, "/health").await.1["parts"]["broker"]["state"] == "ok").await;
    let (url, queue) = site.work_queue();
    let stranger = Side::open(&url).await;
    for _ in 0..3 {
        let properties = BasicProperties::default().with_message_id("stranger-1".into());
        let published = stranger.channel.basic_publish(
            "".into(),
            queue.clone().into(),
            BasicPublishOptions::default(),
            b"\0not ours",
            properties,
        );
        published.await.unwrap();
    }
    let join = site.github.join(Account(1));
    site.github.accepted(&at.webhook, &join).await;
    let ledger = site.ledger().await;
    becomes(&ledger, &join.id, Outcome::Applied).await;
    until("they are kept", async || ledger.unreadable(10).await.unwrap().iter().any(|row| row.copies == 3)).await;
    stranger.close().await;

    let listed = site.run(&["deliveries", "unreadable"]).ended().await;
    assert!(listed.output.contains("stranger-1") && listed.output.contains("it has no headers"), "{listed:?}");
    let body = site.run(&["deliveries", "unreadable", "#1"]).ended().await;
    assert_eq!((body.code, body.output.as_str()), (Some(0), "\0not ours"));
    until("the metric shows it", async || {
        let metrics = site.ask(&at, "/metrics").await.1;
        metrics.as_str().unwrap().contains("rollcall_unreadable_messages 1\n")
    })
    .await;
    assert_eq!(process.stop().await.code, Some(0));
}

/// Kills three workers, one after the other, while each is on what it was handed and can't record.
pub(super) async fn three_workers_die_on_it(site: &Site) {
    for death in 0..3 {
        let mut worker = site.start_worker();
        worker.works().await;
        // The first time it is one of a batch; from then on it is taken up alone, and the tries are counted.
        until("the worker is on it", async || {
            site.schema().unwrap().begun().await == death && site.schema().unwrap().waiting().await > 0
        })
        .await;
        worker.kill().await;
    }
}
