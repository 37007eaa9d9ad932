//! A delivery that is lost behind rollcall's back is named.

use lapin::options::{BasicAckOptions, BasicGetOptions};
use rollcall::ledger::outcome::Outcome;

use crate::harness::github::Account;
use crate::harness::rabbitmq::Side;
use crate::harness::site::{Carrier, Site, becomes};
use crate::harness::until;

#[tokio::test]
async fn a_message_that_was_stolen_from_the_queue_is_named() {
    let mut site = Site::new(Carrier::RabbitMq, 3).await;
    site.set("balance", "after", "500ms");
    let mut ingress = site.start_ingress();
    let at = ingress.ready().await;
    until("the ingress is ready", async || site.ask(&at, "/ready").await.0 == 200).await;
    let joins: Vec<_> = (1..=3).map(|n| site.github.join(Account(n))).collect();
    let (url, queue) = site.work_queue();
    let thief = Side::open(&url).await;
    // The thief takes the second: the first goes back to the head of the queue.
    for join in &joins {
        site.github.accepted(&at.webhook, join).await;
    }
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(thief.channel.basic_get(queue.clone().into(), BasicGetOptions::default()).await.unwrap().unwrap());
    }
    held[1].delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
    drop(held);
    thief.close().await;

    let mut worker = site.start_worker();
    let admin = worker.works().await;
    let ledger = site.ledger().await;
    becomes(&ledger, &joins[0].id, Outcome::Applied).await;
    becomes(&ledger, &joins[2].id, Outcome::Applied).await;
    until("health says what is missing", async || {
        let health = site.ask_admin(&admin, "/health").await.1;
        let balance = &health["parts"]["balance"];
        balance["state"] == "degraded" && balance["reason"].as_str().unwrap().contains("acme-github number 2 of run ")
    })
    .await;
    let metrics = site.ask_admin(&admin, "/metrics").await.1;
    assert!(metrics.as_str().unwrap().contains("rollcall_missing_deliveries{source=\"acme-github\"} 1"), "{metrics}");
    let log = worker.log();
    let alarms: Vec<_> = log.lines().filter(|line| line.contains("deliveries are missing")).collect();
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    for neighbour in [&joins[0], &joins[2]] {
        assert!(alarms[0].contains(neighbour.id.as_str()), "{} in {}", neighbour.id, alarms[0]);
    }

    // It was only lost on the way to us: GitHub delivers it again, under a new number, and its status is right.
    site.github.accepted(&at.webhook, &joins[1]).await;
    becomes(&ledger, &joins[1].id, Outcome::Applied).await;
    let balance = ledger.balance().await.unwrap();
    assert!(balance.missing() == 1 && balance.adds_up(), "{balance}");
    assert_eq!([ingress.stop().await.code, worker.stop().await.code], [Some(0), Some(0)]);
}
