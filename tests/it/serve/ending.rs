//! However a process ends, the next one goes on where it was.

use futures_util::StreamExt as _;
use futures_util::stream;
use rollcall::ledger::outcome::Outcome;
use rstest::rstest;

use crate::harness::github::Account;
use crate::harness::site::{Carrier, Site, becomes, is_settled};
use crate::harness::until;

#[rstest]
#[case::that_was_not_done("timeout:first=1@connect")]
#[case::that_was_done("timeout:applied:first=1@connect")]
#[tokio::test]
async fn a_process_killed_in_mid_call_is_carried_on_by_the_next(#[case] fault: &str) {
    let site = Site::new(Carrier::Embedded, 1).await;
    let account = Account(1);
    site.break_drata(&[fault]);
    let (process, at) = site.serve().await;
    let join = site.github.join(account);
    site.github.accepted(&at.webhook, &join).await;
    until("the call is under way", async || !site.connects(account).is_empty()).await;
    process.kill().await;
    assert_eq!(site.connects(account).len(), 1, "the call had timed out before the process was killed");

    let (process, at) = site.serve().await;
    let ledger = site.ledger().await;
    becomes(&ledger, &join.id, Outcome::Applied).await;
    assert!(site.is_linked(account));

    let leave = site.github.leave(account);
    site.github.accepted(&at.webhook, &leave).await;
    becomes(&ledger, &leave.id, Outcome::Applied).await;
    assert_eq!(site.drata.linked(account.identity()), None);
    assert_eq!(process.stop().await.code, Some(0));
    assert_eq!(site.connects(account).last().unwrap().user_id, None);
    let balance = ledger.balance().await.unwrap();
    assert!(!balance.outcomes.contains_key("pending"), "{balance}");
}

#[rstest]
#[case::embedded(Carrier::Embedded)]
#[case::rabbitmq(Carrier::RabbitMq)]
#[tokio::test]
async fn a_process_told_to_end_under_load_loses_nothing(#[case] carrier: Carrier) {
    let site = Site::new(carrier, 20).await;
    site.break_drata(&["slow=50ms@connect"]);
    let (process, at) = site.serve().await;
    until("it is ready", async || site.ask(&at, "/ready").await.0 == 200).await;
    let deliveries: Vec<_> = (0..10)
        .flat_map(|round| (1..=20).map(move |n| (round, Account(n))))
        .map(|(round, account)| if round % 2 == 0 { site.github.join(account) } else { site.github.leave(account) })
        .collect();

    let mut accepted = Vec::new();
    let mut answers = stream::iter(&deliveries)
        .map(async |delivery| (delivery, site.github.post(&at.webhook, delivery).await))
        .buffer_unordered(16);
    while let Some((delivery, answer)) = answers.next().await {
        if answer.is_some_and(|answer| answer.status == 202) {
            accepted.push(delivery);
        }
        if accepted.len() == 60 {
            process.terminate().await;
        }
    }
    drop(answers);
    let ended = process.ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.log.contains("\"message\":\"ended\""), "it ran out of time: {}", ended.log);
    assert!(accepted.len() < deliveries.len(), "it was told to end when all was done");

    let (process, _) = site.serve().await;
    let ledger = site.ledger().await;
    for delivery in accepted.iter().copied() {
        until("every accepted delivery is settled", async || is_settled(&ledger, &delivery.id).await).await;
    }
    until("nothing is missing", async || {
        let balance = ledger.balance().await.unwrap();
        balance.missing() == 0 && balance.adds_up()
    })
    .await;
    for n in 1..=20 {
        let account = Account(n);
        // A delivery that was refused may have been stored all the same, so the last word is the ledger's.
        let mut last = None;
        for delivery in deliveries.iter().filter(|delivery| delivery.account == account) {
            if is_settled(&ledger, &delivery.id).await {
                last = Some(delivery.joined);
            }
        }
        assert_eq!(Some(site.is_linked(account)), last.or(Some(false)), "{account:?}");
    }
    assert_eq!(process.stop().await.code, Some(0));
}
