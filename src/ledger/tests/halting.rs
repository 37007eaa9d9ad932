//! One halt for all workers: one prober at a time, and nothing parked but an account's own trouble.

use super::*;
use crate::ledger::halt::HaltKind;
use crate::ledger::work::Taken;

/// A site where so many accounts have joined.
async fn with_joins(on: Database, accounts: i64) -> Site {
    let mut site = Site::open(on).await;
    for n in 1..=accounts {
        site.record([told(&format!("join-{n}"), n, gained(&n.to_string(), org()))]).await;
    }
    site
}

async fn take(site: &Site, worker: &str) -> Taken {
    site.ledger.take_due(worker, LEASE, 10).await.unwrap()
}

/// Lets the time for the next probe come.
async fn wait_is_over(site: &Site) {
    sqlx::query("UPDATE halts SET probe_at = 0").execute(&site.ledger.write).await.unwrap();
}

async fn refused(site: &Site, lease: &Lease) {
    let reason = "connect: 403: Forbidden";
    if lease.probe {
        site.ledger.keep_halt(lease, HaltKind::Refused, "connect", reason).await.unwrap();
    } else {
        site.ledger.begin_halt(lease, HaltKind::Refused, "connect", reason).await.unwrap();
    }
    let view = site.ledger.view(lease, &|_| Vec::new()).await.unwrap();
    let postponed = Settlement {
        reason: Some(reason.to_owned()),
        due_at: Some(view.now),
        ..settled(Settled::Postponed, Some(PERSON), None)
    };
    assert_eq!(site.ledger.settle(lease, view.version, &postponed, Vec::new()).await.unwrap(), Held::Written);
}

async fn applied(site: &Site, lease: &Lease) {
    let view = site.ledger.view(lease, &|_| Vec::new()).await.unwrap();
    let done = settled(Settled::Applied, Some(PERSON), Some(PERSON));
    assert_eq!(site.ledger.settle(lease, view.version, &done, Vec::new()).await.unwrap(), Held::Written);
}

#[rstest]
#[tokio::test]
async fn in_a_halt_one_worker_probes_with_one_account(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = with_joins(on, 3).await;
    for lease in take(&site, "one").await.leases {
        refused(&site, &lease).await;
    }
    let halt = site.ledger.halt().await.unwrap().unwrap();
    assert_eq!((halt.kind, halt.operation.as_str(), halt.probes), (HaltKind::Refused, "connect", 0));
    let early = take(&site, "one").await;
    assert_eq!((early.leases.len(), early.halt), (0, Some(halt)));

    wait_is_over(&site).await;
    let (probe, other) = (take(&site, "one").await.leases, take(&site, "two").await.leases);
    assert_eq!((probe.len(), probe[0].probe, other.len()), (1, true, 0));
    refused(&site, &probe[0]).await;
    assert_eq!(site.ledger.halt().await.unwrap().unwrap().probes, 1);
    assert!(take(&site, "two").await.leases.is_empty(), "the next probe has to wait");
}

#[rstest]
#[tokio::test]
async fn probes_take_turns_and_one_success_ends_the_halt_and_parks_nobody(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = with_joins(on, 3).await;
    for lease in take(&site, "one").await.leases {
        refused(&site, &lease).await;
    }
    let mut probed = Vec::new();
    for _ in 0..3 {
        wait_is_over(&site).await;
        let probe = take(&site, "one").await.leases.remove(0);
        refused(&site, &probe).await;
        probed.push(probe.status);
    }
    probed.dedup();
    assert_eq!(probed.len(), 3, "one account after the other");

    wait_is_over(&site).await;
    let probe = take(&site, "two").await.leases.remove(0);
    applied(&site, &probe).await;
    assert_eq!(site.ledger.end_halt(&probe).await.unwrap(), Some(0));
    let after = take(&site, "one").await;
    assert_eq!((after.leases.len(), after.halt), (2, None));
}

#[rstest]
#[tokio::test]
async fn an_account_refused_twice_while_others_are_let_through_is_parked(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = with_joins(on, 3).await;
    let mut leases = take(&site, "one").await.leases;
    refused(&site, &leases.remove(0)).await;
    applied(&site, &leases.remove(0)).await;
    // The third one is still on its way when the halt begins; what it does isn't a probe's word.
    assert_eq!(site.ledger.end_halt(&leases[0]).await.unwrap(), None);
    let view = site.ledger.view(&leases[0], &|_| Vec::new()).await.unwrap();
    let postponed = Settlement { due_at: Some(view.now), ..settled(Settled::Postponed, Some(PERSON), None) };
    site.ledger.settle(&leases[0], view.version, &postponed, Vec::new()).await.unwrap();

    // The first probe is the refused account again, and that counts once in a halt; the second one goes through.
    wait_is_over(&site).await;
    refused(&site, &take(&site, "one").await.leases.remove(0)).await;
    wait_is_over(&site).await;
    let other = take(&site, "one").await.leases.remove(0);
    let view = site.ledger.view(&other, &|_| Vec::new()).await.unwrap();
    site.ledger.settle(&other, view.version, &postponed, Vec::new()).await.unwrap();
    assert_eq!(site.ledger.end_halt(&other).await.unwrap(), Some(0), "once may be bad luck");
    assert_eq!(site.outcome("join-1").await, Outcome::Pending);

    let mut leases = take(&site, "one").await.leases;
    leases.sort_by_key(|lease| lease.status);
    refused(&site, &leases.remove(0)).await;
    let view = site.ledger.view(&leases[0], &|_| Vec::new()).await.unwrap();
    site.ledger.settle(&leases[0], view.version, &postponed, Vec::new()).await.unwrap();
    wait_is_over(&site).await;
    let mut probe = take(&site, "one").await.leases.remove(0);
    if probe.status != leases[0].status {
        refused(&site, &probe).await;
        wait_is_over(&site).await;
        probe = take(&site, "one").await.leases.remove(0);
    }
    applied(&site, &probe).await;
    assert_eq!(site.ledger.end_halt(&probe).await.unwrap(), Some(1));
    assert_eq!(site.outcome("join-1").await, Outcome::Parked);
    let (_, why) = site.history("join-1").await.pop().unwrap();
    assert!(why.unwrap().ends_with("connect: 403: Forbidden"));
    assert!(take(&site, "one").await.leases.is_empty());
}

#[rstest]
#[tokio::test]
async fn a_prober_that_dies_loses_its_lease(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = with_joins(on, 2).await;
    for lease in take(&site, "one").await.leases {
        refused(&site, &lease).await;
    }
    wait_is_over(&site).await;
    let dead = site.ledger.take_due("one", Duration::ZERO, 10).await.unwrap().leases.remove(0);
    let next = take(&site, "two").await.leases.remove(0);
    assert!(next.probe);
    assert_eq!(site.ledger.end_halt(&dead).await.unwrap(), None, "its word counts no more");
    assert_eq!(site.ledger.end_halt(&next).await.unwrap(), Some(0));
}

#[rstest]
#[tokio::test]
async fn a_probe_that_shows_nothing_lets_the_next_one_go(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = with_joins(on, 2).await;
    for lease in take(&site, "one").await.leases {
        refused(&site, &lease).await;
    }
    wait_is_over(&site).await;
    let probe = take(&site, "one").await.leases.remove(0);
    site.ledger.release_probe(&probe, Duration::from_mins(1)).await.unwrap();
    assert!(take(&site, "two").await.leases.is_empty());
    wait_is_over(&site).await;
    let probe = take(&site, "two").await.leases.remove(0);
    site.ledger.release_probe(&probe, Duration::ZERO).await.unwrap();
    assert_eq!(site.ledger.halt().await.unwrap().unwrap().probes, 0);
}
