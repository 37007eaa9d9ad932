//! Replays, exports, listings and secrets as an operator runs them, beside a process that serves.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, stream};
use rollcall::ledger::Ledger;
use rollcall::ledger::outcome::Outcome;
use rollcall::ledger::show::filter::DeliveryFilter;
use rstest::rstest;
use serde_json::Value;

use crate::harness::github::{Account, Posted, SECRET};
use crate::harness::process::{Addresses, Ended, Process};
use crate::harness::site::{Carrier, SOURCE, Site, becomes, is_settled};
use crate::harness::until;

fn run(site: &Site, arguments: &[&str]) -> Process {
    site.run_in(arguments, &[("GITHUB_WEBHOOK_SECRET", SECRET.to_owned()), ("USER", "ada".to_owned())])
}

async fn done(site: &Site, arguments: &[&str]) -> Ended {
    let ended = run(site, arguments).ended().await;
    assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
    ended
}

async fn post_all(site: &Site, at: &Addresses, deliveries: &[Posted]) {
    stream::iter(deliveries)
        .for_each_concurrent(8, async |posted| site.github.accepted(&at.webhook, posted).await)
        .await;
}

async fn settled(ledger: &Ledger, deliveries: &[Posted]) {
    for posted in deliveries {
        until("every delivery is settled", async || is_settled(ledger, &posted.id).await).await;
    }
}

/// Joins and leaves of so many accounts in so many rounds, so that each has left or not in the end.
fn history(site: &Site, accounts: i64, rounds: i64) -> Vec<Posted> {
    let mut history = Vec::new();
    for round in 0..rounds {
        for account in (1..=accounts).map(Account) {
            if (account.0 + round) % 3 != 0 {
                history.push(if round % 2 == 0 { site.github.join(account) } else { site.github.leave(account) });
            }
        }
    }
    history
}

fn linked(site: &Site, accounts: i64) -> BTreeSet<i64> {
    (1..=accounts).filter(|account| site.is_linked(Account(*account))).collect()
}

/// What the ledger says should be so, by account.
async fn desired(ledger: &Ledger) -> BTreeMap<String, String> {
    let rows = ledger.accounts(&rollcall::ledger::show::accounts::AccountFilter::default(), None, 1000).await.unwrap();
    rows.into_iter().map(|row| (row.account.key.to_string(), format!("{:?} {:?}", row.desired, row.state))).collect()
}

#[rstest]
#[case::embedded(Carrier::Embedded)]
#[case::rabbitmq(Carrier::RabbitMq)]
#[tokio::test]
async fn a_history_that_is_imported_in_any_order_ends_in_the_same_statuses(#[case] carrier: Carrier) {
    const ACCOUNTS: i64 = 150;
    let site = Site::new(carrier, ACCOUNTS).await;
    let (process, at) = site.serve().await;
    let history = history(&site, ACCOUNTS, 11);
    assert!(history.len() > 1000);
    post_all(&site, &at, &history).await;
    let ledger = site.ledger().await;
    settled(&ledger, &history).await;
    assert_eq!(process.stop().await.code, Some(0));

    let exported = done(&site, &["deliveries", "export"]).await;
    assert_eq!(
        exported.log,
        format!("{} deliveries written, 0 left out: they were ignored and keep no body\n", history.len())
    );
    assert!(!exported.output.contains(SECRET));
    let mut lines: Vec<&str> = exported.output.lines().collect();
    fastrand::Rng::with_seed(5).shuffle(&mut lines);

    // Nothing is known there, and what was is read from the file alone.
    let other = Site::new(carrier, ACCOUNTS).await;
    let (process, _) = other.serve().await;
    let file = other.config_file().with_file_name("history.jsonl");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let file = file.to_str().unwrap();
    let replayed =
        done(&other, &["replay", "--from-file", file, "--rate", "unlimited", "--yes", "--wait", "--json"]).await;
    let summary: Value = serde_json::from_str(&replayed.output).unwrap();
    assert_eq!(
        (&summary["published"], &summary["recorded"]),
        (&history.len().into(), &history.len().into()),
        "{summary}"
    );
    let there = other.ledger().await;
    settled(&there, &history).await;
    assert_eq!(linked(&other, ACCOUNTS), linked(&site, ACCOUNTS));
    assert!(!linked(&other, ACCOUNTS).is_empty());
    assert_eq!(desired(&there).await, desired(&ledger).await);
    let balance = there.balance().await.unwrap();
    assert_eq!((balance.accepted, balance.adds_up()), (0, true), "a replay is no acceptance: {balance}");
    assert_eq!(process.stop().await.code, Some(0));
}

#[rstest]
#[case::embedded(Carrier::Embedded)]
#[case::rabbitmq(Carrier::RabbitMq)]
#[tokio::test]
async fn an_old_join_never_connects_somebody_who_has_left(#[case] carrier: Carrier) {
    let site = Site::new(carrier, 1).await;
    let (process, at) = site.serve().await;
    let ledger = site.ledger().await;
    let join = site.github.join(Account(1));
    site.github.accepted(&at.webhook, &join).await;
    becomes(&ledger, &join.id, Outcome::Applied).await;
    let leave = site.github.leave(Account(1));
    site.github.accepted(&at.webhook, &leave).await;
    becomes(&ledger, &leave.id, Outcome::Applied).await;
    let calls = site.connects(Account(1)).len();

    let plan = done(&site, &["replay", "--delivery", join.id.as_str(), "--dry-run", "--width", "80"]).await;
    assert!(plan.output.contains("1  a newer change of the same access is known: nothing changes"), "{}", plan.output);
    assert_eq!(ledger.replays(9).await.unwrap(), [], "a plan leaves nothing behind");
    let replayed = done(&site, &["replay", "--delivery", join.id.as_str(), "--wait"]).await;
    assert!(replayed.output.contains("1 of 1 published."), "{}", replayed.output);
    assert!(replayed.output.contains("applied  superseded  1"), "{}", replayed.output);
    assert_eq!(site.connects(Account(1)).len(), calls);
    assert!(!site.is_linked(Account(1)));

    let story = done(&site, &["deliveries", "show", join.id.as_str()]).await;
    assert!(story.output.contains("replayed") && story.output.contains("  ada "), "{}", story.output);
    let listed = done(&site, &["replay", "list"]).await;
    assert!(
        listed.output.contains("1/1") && listed.output.contains(&format!("delivery {}", join.id)),
        "{}",
        listed.output
    );
    assert_eq!(process.stop().await.code, Some(0));
}

#[rstest]
#[case::embedded(Carrier::Embedded)]
#[case::rabbitmq(Carrier::RabbitMq)]
#[tokio::test]
async fn an_interrupted_replay_goes_on_where_it_was_and_repeats_nothing(#[case] carrier: Carrier) {
    const ACCOUNTS: i64 = 200;
    let site = Site::new(carrier, ACCOUNTS).await;
    let (process, at) = site.serve().await;
    let joins: Vec<Posted> = (1..=ACCOUNTS).map(|account| site.github.join(Account(account))).collect();
    post_all(&site, &at, &joins).await;
    let ledger = site.ledger().await;
    settled(&ledger, &joins).await;

    let unasked = run(&site, &["replay", "--all"]).ended().await;
    assert_eq!(unasked.code, Some(2), "{unasked:?}");
    assert!(unasked.log.contains("it would publish 200 deliveries; add --yes"), "{unasked:?}");
    let unchosen = run(&site, &["replay"]).ended().await;
    assert_eq!(unchosen.code, Some(2), "{unchosen:?}");
    assert!(unchosen.log.contains("or --all of them"), "{unchosen:?}");

    let replay = run(&site, &["replay", "--all", "--yes", "--rate", "40"]);
    until("some are replayed", async || {
        ledger.replays(1).await.unwrap().first().is_some_and(|replay| replay.recorded >= 10)
    })
    .await;
    replay.interrupt().await;
    let ended = replay.ended().await;
    assert_eq!(ended.code, Some(130), "{ended:?}");
    let begun = ledger.replays(1).await.unwrap().remove(0);
    assert!(begun.published >= 10 && begun.published < ACCOUNTS && begun.finished_at.is_none(), "{begun:?}");
    assert!(ended.output.contains(&format!("`rollcall replay --resume {}`", begun.replay)), "{ended:?}");

    // A replay that was begun in between isn't part of it, and neither is what has come since.
    let late = site.github.leave(Account(1));
    site.github.accepted(&at.webhook, &late).await;
    becomes(&ledger, &late.id, Outcome::Applied).await;
    let ended = run(&site, &["replay", "--resume", "--wait"]).ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let finished = ledger.replays(9).await.unwrap();
    assert_eq!(finished.len(), 1);
    assert_eq!((finished[0].published, finished[0].recorded), (ACCOUNTS, ACCOUNTS));
    let rows = ledger.deliveries(&DeliveryFilter::default(), None, 1000).await.unwrap();
    for row in rows {
        assert_eq!(row.replays, i64::from(row.delivery != late.id.as_str()), "{row:?}");
    }
    let over = run(&site, &["replay", "--resume"]).ended().await;
    assert_eq!(over.code, Some(2), "{over:?}");
    assert!(over.log.contains("no replay was interrupted"), "{over:?}");
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn what_was_changed_in_an_export_is_refused_unless_it_is_trusted() {
    let site = Site::new(Carrier::Embedded, 2).await;
    let (process, at) = site.serve().await;
    let ledger = site.ledger().await;
    let join = site.github.join(Account(1));
    site.github.accepted(&at.webhook, &join).await;
    becomes(&ledger, &join.id, Outcome::Applied).await;
    let sealed = done(&site, &["deliveries", "export"]).await.output;
    let unsealed = done(&site, &["deliveries", "export", "--unsealed"]).await.output;
    let nobody = site.run(&["deliveries", "export"]).ended().await;
    assert_eq!(nobody.code, Some(2), "{nobody:?}");
    assert!(nobody.log.contains("--unsealed"), "{nobody:?}");

    let file = site.config_file().with_file_name("export.jsonl");
    let path = file.to_str().unwrap();
    let import = async |lines: &str, arguments: &[&str]| {
        std::fs::write(&file, lines).unwrap();
        run(&site, &[&["replay", "--from-file", path], arguments].concat()).ended().await
    };
    // Somebody else's join, made of mine.
    let changed = sealed.replace("dev-1", "dev-2").replace("2001", "2002");
    for (lines, why) in [
        (changed.as_str(), "line 1: delivery"),
        (changed.as_str(), "doesn't fit its seal"),
        (unsealed.as_str(), "bears no seal"),
        ("{\"format\":1}", "line 1: it isn't a line of `rollcall deliveries export`"),
    ] {
        let refused = import(lines, &[]).await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.log.contains(why), "{why}: {refused:?}");
    }
    assert_eq!(ledger.replays(9).await.unwrap(), []);
    assert_eq!(import(&sealed, &["--wait"]).await.code, Some(0));
    assert!(!site.is_linked(Account(2)));
    let trusted = import(&changed, &["--trusted", "--wait"]).await;
    assert_eq!(trusted.code, Some(0), "{trusted:?}");
    until("the other account is linked", async || site.is_linked(Account(2))).await;
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn deliveries_are_posted_to_another_deployment_signed_anew() {
    const OTHER: &str = "the secret of the other deployment";
    let site = Site::new(Carrier::Embedded, 3).await;
    let (process, at) = site.serve().await;
    let joins: Vec<Posted> = (1..=3).map(|account| site.github.join(Account(account))).collect();
    post_all(&site, &at, &joins).await;
    settled(&site.ledger().await, &joins).await;

    let other = Site::new(Carrier::Embedded, 3).await;
    let mut there =
        other.start_with(&[("GITHUB_WEBHOOK_SECRET", OTHER.to_owned()), ("DRATA_API_KEY", "a key".to_owned())]);
    let address = there.ready().await;
    let to = address.webhook.as_str();
    let secret = [("OTHER_SECRET", OTHER.to_owned())];
    let replay = ["replay", "--source", SOURCE, "--to", to, "--secret-env", "OTHER_SECRET"];
    let ended = site.run_in(&replay, &secret).ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.output.contains("3  202 Accepted"), "{ended:?}");
    let ledger = other.ledger().await;
    settled(&ledger, &joins).await;
    assert_eq!(linked(&other, 3), BTreeSet::from([1, 2, 3]));

    let wrong = site.run_in(&replay, &[("OTHER_SECRET", "a wrong one".to_owned())]).ended().await;
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    assert!(wrong.output.contains("3  401 Unauthorized"), "{wrong:?}");
    assert!(!format!("{ended:?}{wrong:?}").contains(OTHER));
    there.stop().await;
    let nobody = site.run_in(&replay, &secret).ended().await;
    assert_eq!(nobody.code, Some(3), "{nobody:?}");
    assert!(nobody.log.contains("rollcall replay --resume "), "{nobody:?}");

    // What was refused lately is known there: as counts, and by whom only as a fingerprint. It comes with a checkpoint.
    let (again, _) = other.serve().await;
    until("the refusals are recorded", async || !ledger.refusals().await.unwrap().is_empty()).await;
    let secrets = done(&other, &["secrets", "--json"]).await;
    let secrets: Value = serde_json::from_str(&secrets.output).unwrap();
    assert_eq!(secrets["secrets"][0]["deliveries"], 3, "{secrets}");
    assert_eq!(
        (&secrets["refusals"][0]["reason"], &secrets["refusals"][0]["count"]),
        (&"unverified".into(), &3.into())
    );
    assert_eq!(secrets["refusals"][0]["sender"].as_str().unwrap().len(), 8);
    assert_eq!(again.stop().await.code, Some(0));
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_listing_that_is_watched_adds_what_is_new_until_it_is_interrupted() {
    let site = Site::new(Carrier::Embedded, 2).await;
    let (process, at) = site.serve().await;
    let ledger = site.ledger().await;
    let watch = run(&site, &["deliveries", "--watch", "--json"]);
    let accounts = run(&site, &["accounts", "--watch"]);
    until("it has begun", async || accounts.output().contains("No such accounts.")).await;
    let join = site.github.join(Account(1));
    site.github.accepted(&at.webhook, &join).await;
    becomes(&ledger, &join.id, Outcome::Applied).await;
    let last = |text: &str| serde_json::from_str::<Value>(text.lines().last()?).ok();
    until("it is shown", async || last(&watch.output()).is_some_and(|row| row["outcome"] == "applied")).await;
    until("the account is shown", async || accounts.output().contains("dev-1")).await;
    for watching in [watch, accounts] {
        watching.interrupt().await;
        let ended = watching.ended().await;
        assert_eq!((ended.code, ended.log.as_str()), (Some(130), ""), "{ended:?}");
        assert!(!ended.output.contains('\x1b'));
    }
    assert_eq!(process.stop().await.code, Some(0));
}
