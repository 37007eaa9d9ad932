//! Several workers share a ledger in PostgreSQL, and several ingresses a broker.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use futures_util::stream;
use rollcall::ledger::outcome::Outcome;

use crate::harness::github::Account;
use crate::harness::site::{Carrier, Site, becomes, is_settled};
use crate::harness::until;

const ACCOUNTS: i64 = 20;

#[tokio::test]
async fn two_ingresses_and_two_workers_lose_nothing_when_a_worker_is_killed() {
    let mut site = Site::new(Carrier::RabbitMq, ACCOUNTS).await;
    site.in_postgresql().await;
    site.break_drata(&["slow=20ms@connect", "500:10%@connect"]);
    let (mut first, mut second) = (site.start_ingress(), site.start_ingress());
    let doors = [first.ready().await, second.ready().await];
    for door in &doors {
        until("the ingress is ready", async || site.ask(door, "/ready").await.0 == 200).await;
    }
    let (mut killed, mut steady) = (site.start_worker(), site.start_worker());
    killed.works().await;
    steady.works().await;

    let mut deliveries = Vec::new();
    for round in 0..6 {
        for account in (1..=ACCOUNTS).map(Account) {
            if round < 5 || account.0 % 2 == 0 {
                deliveries.push(if round % 2 == 0 { site.github.join(account) } else { site.github.leave(account) });
            }
        }
    }
    let last: BTreeMap<Account, bool> = deliveries.iter().map(|posted| (posted.account, posted.joined)).collect();
    deliveries.extend(deliveries.clone());
    fastrand::Rng::with_seed(11).shuffle(&mut deliveries);
    let mut killed = Some(killed);
    let mut posts = stream::iter(deliveries.iter().zip(doors.iter().cycle()))
        .map(async |(posted, door)| site.github.accepted(&door.webhook, posted).await)
        .buffer_unordered(8);
    let mut answered = 0;
    while posts.next().await.is_some() {
        answered += 1;
        if answered == deliveries.len() / 2 {
            killed.take().unwrap().kill().await;
        }
    }
    drop(posts);
    let mut third = site.start_worker();
    third.works().await;

    let ledger = site.ledger().await;
    for posted in &deliveries {
        until("every accepted delivery is settled", async || is_settled(&ledger, &posted.id).await).await;
    }
    for (account, joined) in last {
        assert_eq!(site.is_linked(account), joined, "{account:?}: {:?}", site.connects(account));
    }
    until("nothing is missing", async || ledger.balance().await.unwrap().missing() == 0).await;
    for process in [first, second] {
        assert_eq!(process.stop().await.code, Some(0));
    }
    until("the balance adds up", async || {
        let balance = ledger.balance().await.unwrap();
        balance.adds_up() && balance.missing() == 0 && balance.accepted == i64::try_from(deliveries.len()).unwrap()
    })
    .await;
    assert_eq!(ledger.runs().await.unwrap().len(), 2);
    // Nobody was called for twice at once.
    for account in (1..=ACCOUNTS).map(Account) {
        let mut calls = site.connects(account);
        calls.sort_by_key(|seen| seen.begun);
        for pair in calls.windows(2) {
            assert!(pair[0].ended.is_none_or(|ended| ended <= pair[1].begun), "{pair:?}");
        }
    }
    for process in [steady, third] {
        assert_eq!(process.stop().await.code, Some(0));
    }
}

#[tokio::test]
async fn a_frozen_worker_is_taken_over_from_and_changes_nothing_when_it_thaws() {
    let mut site = Site::new(Carrier::RabbitMq, 1).await;
    site.in_postgresql().await;
    site.break_drata(&["slow=500ms:first=1@connect"]);
    let mut ingress = site.start_ingress();
    let at = ingress.ready().await;
    until("the ingress is ready", async || site.ask(&at, "/ready").await.0 == 200).await;
    let mut frozen = site.start_worker();
    frozen.works().await;
    let join = site.github.join(Account(1));
    site.github.accepted(&at.webhook, &join).await;
    until("the call is on its way", async || !site.connects(Account(1)).is_empty()).await;
    frozen.freeze().await;

    let leave = site.github.leave(Account(1));
    site.github.accepted(&at.webhook, &leave).await;
    let mut other = site.start_worker();
    other.works().await;
    let ledger = site.ledger().await;
    becomes(&ledger, &leave.id, Outcome::Applied).await;
    assert!(!site.is_linked(Account(1)));

    frozen.thaw().await;
    for process in [frozen, other, ingress] {
        assert_eq!(process.stop().await.code, Some(0));
    }
    assert!(!site.is_linked(Account(1)));
    assert!(is_settled(&ledger, &join.id).await);
}
