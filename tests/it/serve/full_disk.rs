//! The disk under the embedded broker and the SQLite ledger is full, and then has room again: nothing needs a restart, and
//! whatever got a 202 is applied.

use rstest::rstest;
use serde_json::Value;

use crate::harness::disk::SmallDisk;
use crate::harness::github::{Account, Posted};
use crate::harness::process::Addresses;
use crate::harness::site::{Carrier, Site};
use crate::harness::until;

async fn part(site: &Site, at: &Addresses, name: &str) -> Value {
    site.ask(at, "/health").await.1["parts"][name].clone()
}

async fn applied(site: &Site, accounts: impl IntoIterator<Item = Account>) {
    for account in accounts {
        until(&format!("{account:?} is linked"), async || site.is_linked(account)).await;
    }
}

#[rstest]
#[case::under_the_ledger_alone(Carrier::RabbitMq)]
#[case::under_broker_and_ledger(Carrier::Embedded)]
#[tokio::test]
async fn a_full_disk_is_told_and_all_goes_on_with_room_again(#[case] carrier: Carrier) {
    let people = 40;
    let mut site = Site::new(carrier, people).await;
    site.set("spool", "enabled", false);
    let disk = SmallDisk::new(site.data(), "8m");
    let mut process = site.start_under(&disk.under());
    let at = process.ready().await;
    let joins: Vec<Posted> = (1..=people).map(|n| site.github.join(Account(n))).collect();
    for join in &joins[..5] {
        site.github.accepted(&at.webhook, join).await;
    }
    applied(&site, (1..=5).map(Account)).await;

    // Twice, since the second time is met by other connections than the first.
    let mut accepted: Vec<i64> = (1..=5).collect();
    for round in [5..20, 20..35] {
        let filler = disk.fill(&process);
        // Nothing arrives.
        until("health says that the disk is full", async || {
            let ledger = part(&site, &at, "ledger").await;
            ledger["state"] == "down" && ledger["reason"].as_str().is_some_and(|why| why.contains("full"))
        })
        .await;
        assert_eq!(site.ask(&at, "/health").await.0, 503);
        for n in round {
            let answer = site.github.post(&at.webhook, &joins[n]).await.unwrap();
            match answer.status {
                202 => accepted.push(i64::try_from(n).unwrap() + 1),
                status => assert_eq!((status, carrier_is_embedded(carrier)), (503, true)),
            }
        }
        if !carrier_is_embedded(carrier) {
            until("recording is paused", async || part(&site, &at, "recording").await["state"] == "down").await;
        }
        std::fs::remove_file(&filler).unwrap();
        until("all is well", async || site.ask(&at, "/health").await.0 == 200).await;
        applied(&site, accepted.iter().copied().map(Account)).await;
    }
    for (n, join) in joins.iter().enumerate().skip(35) {
        site.github.accepted(&at.webhook, join).await;
        accepted.push(i64::try_from(n).unwrap() + 1);
    }
    applied(&site, accepted.into_iter().map(Account)).await;
    let ended = process.stop().await;
    assert_eq!(ended.code, Some(0));
    assert!(!ended.log.contains("non-zero transaction depth"), "{}", ended.log);
}

const fn carrier_is_embedded(carrier: Carrier) -> bool {
    matches!(carrier, Carrier::Embedded)
}
