//! The sweep, by hand and on its schedule: accounts compared with Drata in as few calls as its lists have pages.

use rollcall::ledger::outcome::Outcome;
use rollcall::ledger::show::accounts::{AccountFilter, AccountRow};
use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::github::Account;
use crate::harness::process::Ended;
use crate::harness::site::{Carrier, Site, becomes, identity_of, person_of};
use crate::harness::until;

const ACCOUNT: Account = Account(1);

/// A site that looks at whoever waits only when it is told to.
async fn site(people: i64) -> Site {
    let mut site = Site::new(Carrier::Embedded, people).await;
    site.set("retry", "waiting", "1h");
    site
}

async fn sweep(site: &Site, arguments: &[&str]) -> Ended {
    let ended = site.run_in(&[&["sweep"], arguments].concat(), &[("DRATA_API_KEY", "a key".to_owned())]).ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended
}

async fn report(site: &Site, arguments: &[&str]) -> Value {
    serde_json::from_str(&sweep(site, &[arguments, &["--json"]].concat()).await.output).unwrap()
}

/// What was found, by account.
fn findings(report: &Value) -> Vec<(String, String)> {
    let found = report["connections"][0]["findings"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    found.iter().map(|found| (text(&found["login"]), text(&found["finding"]))).collect()
}

async fn row(site: &Site, account: Account) -> AccountRow {
    let filter = AccountFilter { account: Some(account.login().parse().unwrap()), ..AccountFilter::default() };
    site.ledger().await.accounts(&filter, None, 1).await.unwrap().remove(0)
}

/// Joins one and waits until it is linked.
async fn linked(site: &Site) -> (crate::harness::process::Process, crate::harness::process::Addresses) {
    let (process, at) = site.serve().await;
    let join = site.github.join(ACCOUNT);
    site.github.accepted(&at.webhook, &join).await;
    becomes(&site.ledger().await, &join.id, Outcome::Applied).await;
    (process, at)
}

/// Somebody links it to another person in Drata's own pages.
fn link_by_hand(site: &Site, person: Option<i64>) {
    site.drata.put_identity(rollcall::sandbox::Identity {
        user_id: person,
        ..site.drata.identity(ACCOUNT.identity()).unwrap()
    });
}

#[tokio::test]
async fn accounts_that_wait_cost_pages_and_not_calls_and_are_linked_when_their_identities_appear() {
    const ACCOUNTS: i64 = 120;
    let site = site(0).await;
    let accounts = || (1..=ACCOUNTS).map(Account);
    accounts().for_each(|account| site.drata.put_person(person_of(account)));
    site.write_people(accounts().map(|account| (account, format!("user:{}", account.person()))));
    // Drata knows others by then, so that a list has pages.
    (1001..=1130).map(Account).for_each(|stranger| site.drata.put_identity(identity_of(stranger)));
    let (_process, at) = site.serve().await;
    let ledger = site.ledger().await;
    let mut joins = Vec::new();
    for account in accounts() {
        joins.push(site.github.join(account));
        site.github.accepted(&at.webhook, &joins[joins.len() - 1]).await;
    }
    for join in &joins {
        becomes(&ledger, &join.id, Outcome::Waiting).await;
    }

    let before = site.drata.requests().len();
    let found = report(&site, &[]).await;
    let calls: Vec<_> = site.drata.requests().split_off(before).into_iter().map(|seen| seen.path).collect();
    assert_eq!((&found["connections"][0]["still_waiting"], findings(&found).len()), (&json!(120), 0));
    // The connections, and 130 identities in pages of 50.
    assert_eq!(calls.len(), 4, "{calls:?}");

    accounts().take(100).for_each(|account| site.drata.put_identity(identity_of(account)));
    let found = report(&site, &["--dry-run"]).await;
    assert!(findings(&found).iter().all(|(_, finding)| finding == "identity_appeared"));
    assert_eq!((findings(&found).len(), &found["connections"][0]["marked"]), (100, &json!(0)));
    assert!(site.drata.requests().iter().all(|seen| seen.method == "GET"), "a dry run marks nothing");

    let before = site.drata.requests().len();
    let found = report(&site, &["--source", "acme-github"]).await;
    assert_eq!(
        (&found["connections"][0]["marked"], &found["connections"][0]["still_waiting"]),
        (&json!(100), &json!(20))
    );
    for join in &joins[..100] {
        becomes(&ledger, &join.id, Outcome::Applied).await;
    }
    assert!(accounts().take(100).all(|account| site.is_linked(account)));
    let calls = site.drata.requests().split_off(before);
    let puts = calls.iter().filter(|seen| seen.method == "PUT").count();
    // What the sweep has read isn't looked up again.
    assert_eq!((puts, calls.len() - puts), (100, 1 + 5), "{calls:?}");
}

#[rstest]
#[case::on_the_schedule(true)]
#[case::by_hand(false)]
#[tokio::test]
async fn a_link_that_somebody_has_changed_is_reported_with_both_persons_and_kept(#[case] scheduled: bool) {
    let mut site = site(2).await;
    let (process, at) = linked(&site).await;
    let person = Account(2).person();
    link_by_hand(&site, Some(person));
    let (_process, at) = if scheduled {
        assert_eq!(process.stop().await.code, Some(0));
        site.set("sweep", "every", "500ms");
        site.serve().await
    } else {
        let found = sweep(&site, &[]).await.output;
        assert!(found.contains("drifted") && found.contains("1 found and marked"), "{found}");
        (process, at)
    };
    until("the drift is known", async || row(&site, ACCOUNT).await.drifted_at.is_some()).await;
    let listed = site.run(&["accounts", "--drifted"]).ended().await.output;
    assert!(listed.contains("linked to 501") && listed.contains("linked to 502"), "{listed}");
    let explained = site.run(&["explain", "dev-1"]).ended().await.output;
    let explained = explained.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(explained.contains("it is linked to 502, where rollcall had it linked to 501"), "{explained}");
    until("health tells of it", async || {
        let health = site.ask(&at, "/health").await.1;
        health["parts"]["drift"]["reason"].as_str().is_some_and(|reason| reason.starts_with("1 accounts"))
    })
    .await;
    let metrics = site.ask(&at, "/metrics").await.1;
    assert!(metrics.as_str().unwrap().contains("rollcall_drifted_accounts 1"), "{metrics}");

    // Further news of the account don't overwrite it either.
    let again = site.github.join(ACCOUNT);
    site.github.accepted(&at.webhook, &again).await;
    let reason = becomes(&site.ledger().await, &again.id, Outcome::Unchanged).await;
    assert!(reason.contains("drift = \"report\" leaves that so"), "{reason}");
    assert_eq!(site.drata.linked(ACCOUNT.identity()), Some(person));
    assert_eq!(site.connects(ACCOUNT).len(), 1);

    // An operator decides.
    let ended = site.run(&["people", "link", "dev-1", &format!("user:{}", ACCOUNT.person())]).ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    until("it is as the operator says", async || site.is_linked(ACCOUNT)).await;
    until("the drift is over", async || row(&site, ACCOUNT).await.drifted_at.is_none()).await;
}

#[tokio::test]
async fn a_link_that_somebody_has_changed_is_corrected_where_the_policy_says_so() {
    let mut site = site(2).await;
    site.source().insert("drift".to_owned(), "correct".into());
    let (_process, _) = linked(&site).await;
    for person in [Some(Account(2).person()), None] {
        link_by_hand(&site, person);
        assert_eq!(findings(&report(&site, &[]).await), [("dev-1".to_owned(), "drifted".to_owned())]);
        until("it is corrected", async || site.is_linked(ACCOUNT)).await;
    }
    until("it rests", async || row(&site, ACCOUNT).await.due_at.is_none()).await;
    assert_eq!(findings(&report(&site, &[]).await), []);
}

#[tokio::test]
async fn a_drift_that_somebody_takes_back_is_over() {
    let site = site(2).await;
    let (_process, _) = linked(&site).await;
    link_by_hand(&site, None);
    assert_eq!(findings(&report(&site, &[]).await), [("dev-1".to_owned(), "drifted".to_owned())]);
    assert_eq!(findings(&report(&site, &[]).await), [], "what was reported is no news");
    link_by_hand(&site, Some(ACCOUNT.person()));
    assert_eq!(findings(&report(&site, &[]).await), [("dev-1".to_owned(), "returned".to_owned())]);
    assert_eq!(row(&site, ACCOUNT).await.drifted_at, None);
}

#[tokio::test]
async fn who_waits_for_too_long_is_parked_and_linked_all_the_same_when_a_sweep_finds_it() {
    let mut site = site(0).await;
    site.set("retry", "waiting", "100ms");
    site.set("sweep", "waiting", "1s");
    site.drata.put_person(person_of(ACCOUNT));
    site.write_people([(ACCOUNT, ACCOUNT.email())]);
    let (_process, at) = site.serve().await;
    let ledger = site.ledger().await;
    let join = site.github.join(ACCOUNT);
    site.github.accepted(&at.webhook, &join).await;
    let reason = becomes(&ledger, &join.id, Outcome::Parked).await;
    assert_eq!(reason, "it has waited for 1s (sweep.waiting) and still: the platform has no identity for it yet");

    site.drata.put_identity(identity_of(ACCOUNT));
    assert_eq!(findings(&report(&site, &[]).await), [("dev-1".to_owned(), "identity_appeared".to_owned())]);
    becomes(&ledger, &join.id, Outcome::Applied).await;
    assert!(site.is_linked(ACCOUNT));
}

#[tokio::test]
async fn a_person_who_has_appeared_is_found_in_the_list_of_people() {
    let site = site(0).await;
    site.write_people([]);
    let mut identity = identity_of(ACCOUNT);
    identity.email = Some(ACCOUNT.email());
    site.drata.put_identity(identity);
    let (_process, at) = site.serve().await;
    let ledger = site.ledger().await;
    let join = site.github.join(ACCOUNT);
    site.github.accepted(&at.webhook, &join).await;
    becomes(&ledger, &join.id, Outcome::Waiting).await;
    site.drata.put_person(person_of(ACCOUNT));

    let found = report(&site, &["--dry-run"]).await;
    assert_eq!(findings(&found), [("dev-1".to_owned(), "person_found".to_owned())]);
    assert_eq!(found["people_unlisted"], Value::Null);
    report(&site, &[]).await;
    becomes(&ledger, &join.id, Outcome::Applied).await;
    assert!(site.is_linked(ACCOUNT));
}

#[tokio::test]
async fn a_platform_that_cannot_be_reached_is_said_so() {
    let mut site = site(1).await;
    let (process, _) = site.serve().await;
    assert_eq!(process.stop().await.code, Some(0));
    site.break_drata(&["500"]);
    let ended = site.run_in(&["sweep"], &[("DRATA_API_KEY", "a key".to_owned())]).ended().await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    site.break_drata(&["403"]);
    let ended = site.run_in(&["sweep"], &[("DRATA_API_KEY", "a key".to_owned())]).ended().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let ended = site.run_in(&["sweep", "--source", "nowhere"], &[("DRATA_API_KEY", "a key".to_owned())]).ended().await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    site.set("sweep", "every", "soon");
    let ended = site.run_in(&["sweep"], &[("DRATA_API_KEY", "a key".to_owned())]).ended().await;
    assert!(ended.code == Some(2) && ended.log.contains("or \"off\""), "{ended:?}");
}
