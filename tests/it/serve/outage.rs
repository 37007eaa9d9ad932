//! The connection to RabbitMQ breaks under load, with a spool and without; ledger and Drata are away at once.

use std::collections::{BTreeMap, HashSet};

use futures_util::StreamExt as _;
use futures_util::stream;
use rollcall::delivery::DeliveryId;
use rollcall::ledger::outcome::Outcome;
use rstest::rstest;

use crate::harness::github::{Account, Posted};
use crate::harness::site::{Carrier, Site, becomes, is_settled, outcome};
use crate::harness::until;

const ACCOUNTS: i64 = 30;

#[rstest]
#[case::without_a_spool(false)]
#[case::with_a_spool(true)]
#[tokio::test]
async fn a_broker_cut_off_under_load_loses_nothing_and_every_status_is_right(#[case] spool: bool) {
    let mut site = Site::new(Carrier::Embedded, ACCOUNTS).await;
    let proxy = site.carried_through_a_proxy().await;
    site.set("spool", "enabled", spool);
    site.set("broker", "confirm_timeout", "500ms");
    site.set("broker", "publish_timeout", "1s");
    site.break_drata(&["500:10%@connect"]);
    let (process, at) = site.serve().await;
    until("it is ready", async || site.ask(&at, "/ready").await.0 == 200).await;

    let mut deliveries = all_that_happens(&site);
    let last: BTreeMap<Account, bool> = deliveries.iter().map(|posted| (posted.account, posted.joined)).collect();
    deliveries.extend(deliveries.clone());
    fastrand::Rng::with_seed(7).shuffle(&mut deliveries);

    let mut accepted: HashSet<DeliveryId> = HashSet::new();
    let (mut answered, mut refused) = (0, 0);
    let mut answers = stream::iter(&deliveries)
        .map(async |posted| (posted, site.github.post(&at.webhook, posted).await))
        .buffer_unordered(16);
    while let Some((posted, answer)) = answers.next().await {
        let status = answer.expect("an answer, whatever the broker does").status;
        assert!(matches!(status, 202 | 503), "{status}");
        if status == 202 {
            accepted.insert(posted.id.clone());
        } else {
            refused += 1;
        }
        answered += 1;
        match answered {
            80 | 180 => proxy.cut(),
            // All that was under way at the cut has been answered, and as much again.
            112 | 212 => proxy.mend(),
            _ => {}
        }
    }
    drop(answers);
    assert_eq!(refused == 0, spool, "{refused} of {answered} were refused");
    until("it is ready again", async || site.ask(&at, "/ready").await.0 == 200).await;
    // What was refused, an administrator has GitHub deliver again.
    for posted in &deliveries {
        if accepted.insert(posted.id.clone()) {
            site.github.accepted(&at.webhook, posted).await;
        }
    }

    let ledger = site.ledger().await;
    for id in &accepted {
        until("every accepted delivery is settled", async || is_settled(&ledger, id).await).await;
    }
    for (account, joined) in last {
        assert_eq!(site.is_linked(account), joined, "{account:?}: {:?}", site.connects(account));
    }
    until("the balance adds up", async || {
        let balance = ledger.balance().await.unwrap();
        balance.missing() == 0 && balance.adds_up() && !balance.outcomes.contains_key("parked")
    })
    .await;
    assert_eq!(process.stop().await.code, Some(0));
}

/// Everybody joins, and goes and comes a few times; some stay, some don't. In the order in which it happens.
fn all_that_happens(site: &Site) -> Vec<Posted> {
    let mut happened = Vec::new();
    for round in 0..5 {
        for account in (1..=ACCOUNTS).map(Account) {
            if round == 4 && account.0 % 2 == 0 {
                continue;
            }
            happened.push(if round % 2 == 0 { site.github.join(account) } else { site.github.leave(account) });
        }
    }
    happened
}

/// What comes back first.
#[derive(Clone, Copy, Debug)]
enum First {
    Ledger,
    Drata,
}

#[rstest]
#[case::the_ledger(First::Ledger)]
#[case::drata(First::Drata)]
#[tokio::test]
async fn ledger_and_drata_away_at_once_lose_nothing_and_each_account_is_settled_once_losses_first(
    #[case] first: First,
) {
    let leavers = 24;
    let mut site = Site::new(Carrier::RabbitMq, 2 * leavers).await;
    let ledger_wire = site.in_postgresql_behind_a_proxy().await;
    let drata_wire = site.drata_behind_a_proxy().await;
    let (process, at) = site.serve().await;
    until("it is ready", async || site.ask(&at, "/ready").await.0 == 200).await;
    let ledger = site.ledger().await;
    let joins: Vec<_> = (1..=leavers).map(|n| site.github.join(Account(n))).collect();
    for join in &joins {
        site.github.accepted(&at.webhook, join).await;
    }
    for join in &joins {
        becomes(&ledger, &join.id, Outcome::Applied).await;
    }

    ledger_wire.cut();
    drata_wire.cut();
    let before = site.drata.requests().len();
    let mut missed: Vec<_> = (1..=leavers).map(|n| site.github.leave(Account(n))).collect();
    missed.extend((leavers + 1..=2 * leavers).map(|n| site.github.join(Account(n))));
    for delivery in &missed {
        site.github.accepted(&at.webhook, delivery).await;
    }
    until("health says so", async || site.ask(&at, "/health").await.1["parts"]["ledger"]["state"] == "down").await;
    assert_eq!(site.ask(&at, "/ready").await.0, 200);

    // Slow enough that it shows who went first.
    site.break_drata(&["slow=100ms@connect"]);
    match first {
        First::Ledger => {
            ledger_wire.mend();
            for delivery in &missed {
                until("it is recorded", async || outcome(&ledger, &delivery.id).await.is_some()).await;
            }
            until("the breaker is open", async || ledger.halt().await.unwrap().is_some()).await;
            drata_wire.mend();
        }
        First::Drata => {
            drata_wire.mend();
            ledger_wire.mend();
        }
    }
    for delivery in &missed {
        becomes(&ledger, &delivery.id, Outcome::Applied).await;
    }
    let mut connects = site.drata.requests().split_off(before);
    connects.retain(|seen| seen.method == "PUT");
    connects.sort_by_key(|seen| seen.begun);
    assert_eq!(connects.len(), missed.len(), "one call an account: {connects:?}");
    // A probe is whoever's turn it is; then as many losses go at once as there are places.
    let probes = if matches!(first, First::Ledger) { 1 } else { 0 };
    let joined_among_the_first = connects.iter().take(8 + probes).filter(|seen| seen.user_id.is_some()).count();
    assert!(joined_among_the_first <= probes, "losses go first: {connects:?}");
    for n in 1..=2 * leavers {
        assert_eq!(site.is_linked(Account(n)), n > leavers, "{n}");
    }
    until("nothing is missing", async || {
        let balance = ledger.balance().await.unwrap();
        balance.missing() == 0 && balance.adds_up() && !balance.outcomes.contains_key("parked")
    })
    .await;
    until("health is well", async || site.ask(&at, "/health").await.0 == 200).await;
    assert_eq!(process.stop().await.code, Some(0));
}
