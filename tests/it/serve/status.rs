//! What happens to an account at GitHub is so at Drata in the end.

use rollcall::ledger::outcome::Outcome;
use rstest::rstest;

use crate::harness::github::Account;
use crate::harness::site::{Carrier, Site, becomes};
use crate::harness::until;

#[rstest]
#[case::embedded(Carrier::Embedded)]
#[case::rabbitmq(Carrier::RabbitMq)]
#[tokio::test]
async fn a_join_links_a_leave_unlinks_and_an_old_join_changes_nothing(#[case] carrier: Carrier) {
    let site = Site::new(carrier, 1).await;
    let (process, at) = site.serve().await;
    until("it is ready", async || site.ask(&at, "/ready").await.0 == 200).await;
    let ledger = site.ledger().await;
    let account = Account(1);

    let join = site.github.join(account);
    site.github.accepted(&at.webhook, &join).await;
    becomes(&ledger, &join.id, Outcome::Applied).await;
    assert!(site.is_linked(account));

    let leave = site.github.leave(account);
    site.github.accepted(&at.webhook, &leave).await;
    becomes(&ledger, &leave.id, Outcome::Applied).await;
    assert_eq!(site.drata.linked(account.identity()), None);

    // Whatever comes behind the old join in the queue shows that the old join has been dealt with.
    site.github.accepted(&at.webhook, &join).await;
    let again = site.github.leave(account);
    site.github.accepted(&at.webhook, &again).await;
    becomes(&ledger, &again.id, Outcome::Unchanged).await;
    assert_eq!(site.drata.linked(account.identity()), None);
    let asked: Vec<_> = site.connects(account).iter().map(|seen| seen.user_id).collect();
    assert_eq!(asked, [Some(account.person()), None]);

    let ended = process.stop().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let balance = ledger.balance().await.unwrap();
    assert!(balance.adds_up() && balance.missing() == 0, "{balance}");
}
