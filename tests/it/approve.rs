//! An operator's yes to a delivery that is held.

use rollcall::ledger::actions::About;
use rollcall::ledger::outcome::Outcome;
use serde_json::{Value, json};

use crate::harness::github::{Account, Event, ORGANIZATION};
use crate::harness::process::Ended;
use crate::harness::site::{Carrier, SOURCE, Site, becomes};
use crate::harness::until;

async fn run(site: &Site, arguments: &[&str]) -> Ended {
    site.run_in(&[&["approve"], arguments].concat(), &[("USER", "olga".to_owned())]).ended().await
}

#[tokio::test]
async fn a_deleted_organisation_is_held_shown_and_done_after_a_yes() {
    let mut site = Site::new(Carrier::Embedded, 4).await;
    site.source().insert("mass_change_limit".to_owned(), 3.into());
    let (_process, at) = site.serve().await;
    let ledger = site.ledger().await;
    let accounts: Vec<Account> = (1..=4).map(Account).collect();
    for account in &accounts {
        let join = site.github.join(*account);
        site.github.accepted(&at.webhook, &join).await;
        becomes(&ledger, &join.id, Outcome::Applied).await;
    }
    let (root, root_id) = ORGANIZATION;
    let deleted = site.github.tell(&Event {
        number: 100,
        name: "organization.deleted",
        account: accounts[0],
        login: accounts[0].login(),
        root: (root.to_owned(), root_id.to_owned()),
        part: None,
    });
    site.github.accepted(&at.webhook, &deleted).await;
    let reason = becomes(&ledger, &deleted.id, Outcome::Held).await;
    assert!(
        reason.starts_with("it concerns 4 accounts at once, more than mass_change_limit = 3; `rollcall approve"),
        "{reason}"
    );
    let id = deleted.id.to_string();

    let unasked = run(&site, &[&id]).await;
    assert_eq!(unasked.code, Some(2), "nobody can be asked: {unasked:?}");
    let shown = run(&site, &[&id, "--dry-run"]).await;
    assert!(shown.output.contains("dev-3 (github:#2003)") && shown.output.contains("is unlinked"), "{shown:?}");
    let listed: Value = serde_json::from_str(&run(&site, &[&id, "--dry-run", "--json"]).await.output).unwrap();
    assert_eq!((&listed["approved"], listed["concerned"].as_array().unwrap().len()), (&json!(false), 4));
    assert_eq!(run(&site, &[&id, "--source", "another"]).await.code, Some(2));
    assert!(accounts.iter().all(|account| site.is_linked(*account)), "nothing is done without a yes");

    let approved = run(&site, &[&id, "--source", SOURCE, "--yes"]).await;
    assert_eq!(approved.code, Some(0), "{approved:?}");
    assert!(
        approved.output.ends_with("is approved: 4 accounts are due, and a worker reconciles them at once.\n"),
        "{approved:?}"
    );
    becomes(&ledger, &deleted.id, Outcome::Applied).await;
    until("all are unlinked", async || accounts.iter().all(|account| site.drata.linked(account.identity()).is_none()))
        .await;
    let row = ledger.deliveries_named(&id.parse().unwrap()).await.unwrap()[0].row;
    let noted = ledger.actions(About::Delivery(row)).await.unwrap();
    assert_eq!((noted[0].operator.as_str(), noted[0].action.as_str()), ("olga", "approve"));

    let again = run(&site, &[&id, "--yes"]).await;
    assert_eq!(again.code, Some(2));
    assert!(again.log.contains("isn't held"), "{again:?}");
}
