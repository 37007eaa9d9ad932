//! Several workers on one ledger at once. On SQLite they take turns; on PostgreSQL they truly meet.

use futures_util::future::join_all;

use super::*;
use crate::shutdown::Tasks;

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn batches_recorded_and_settled_at_once_end_as_if_one_after_the_other(
    #[values(Sqlite, PostgreSql)] on: Database,
) {
    const WORKERS: u64 = 4;
    const ACCOUNTS: i64 = 6;
    let site = Site::open(on).await;
    // Everybody joins, leaves and joins or leaves again; each delivery goes to two workers, in orders of their own.
    let mut entries = Vec::new();
    for round in 0..5_i64 {
        for n in 1..=ACCOUNTS {
            let id = n.to_string();
            let change = if (round + n) % 2 == 0 { gained(&id, org()) } else { lost(&id, org()) };
            let mut entry = told(&format!("{round}-{n}"), round * 10 + n, change);
            let sequence = u64::try_from(round * ACCOUNTS + n).unwrap();
            entry.delivery.stamp = Some(Stamp { run: site.run, sequence });
            entries.push(entry);
        }
    }
    // And the organisation was lost as a whole, before all of it.
    entries.push(told("gone", -50, Change::ScopeLost { scope: org() }));
    let tasks = Tasks::new();
    let workers = (0..WORKERS).map(|worker| {
        let (ledger, mut mine) = (site.ledger.clone(), [entries.clone(), entries.clone()].concat());
        fastrand::Rng::with_seed(worker).shuffle(&mut mine);
        tasks.short_lived("test", async move {
            work(&ledger, worker, mine.chunks(7).map(<[Entry]>::to_vec).collect(), &[]).await;
        })
    });
    for ended in join_all(workers).await {
        ended.unwrap();
    }
    site.reconcile(&[]).await;
    assert!(site.take().await.is_empty());
    let statuses = sqlx::query("SELECT id, desired FROM statuses").fetch_all(&site.ledger.read).await.unwrap();
    assert_eq!(statuses.len(), usize::try_from(ACCOUNTS).unwrap());
    for row in statuses {
        let lease = Lease { status: row.get(0), owner: String::new(), probe: false };
        let view = site.ledger.view(&lease, &|_| Vec::new()).await.unwrap();
        let n: i64 = view.account.key.id.parse().unwrap();
        let held = matches!(access(&view.grants, &view.roots), Access::Held { .. });
        assert_eq!(held, (4 + n) % 2 == 0, "account {n}");
        let desired: Option<String> = row.get(1);
        assert_eq!(desired.as_deref(), Some(if held { "518" } else { "unlinked" }), "account {n}");
    }
    let balance = site.ledger.balance().await.unwrap();
    assert!(balance.adds_up() && balance.missing() == 0, "{balance}");
    assert_eq!(balance.accepted, 5 * ACCOUNTS);
    assert!(!balance.outcomes.contains_key("pending"), "{balance}");
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_account_is_ever_two_workers_at_once(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    for n in 1..=40 {
        site.record([told(&format!("join-{n}"), n, gained(&n.to_string(), org()))]).await;
    }
    let tasks = Tasks::new();
    let takers = (0..8).map(|worker| {
        let ledger = site.ledger.clone();
        tasks.short_lived("test", async move {
            let mut taken = Vec::new();
            loop {
                let leases = ledger.take_due(&format!("worker {worker}"), LEASE, 3).await.unwrap().leases;
                if leases.is_empty() && ledger.next_due().await.unwrap().is_none_or(|due| !due.is_zero()) {
                    return taken;
                }
                taken.extend(leases.into_iter().map(|lease| lease.status));
            }
        })
    });
    let mut taken: Vec<i64> = join_all(takers).await.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(taken.len(), 40);
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken.len(), 40);
}

#[rstest]
#[tokio::test]
async fn workers_count_each_other_until_they_leave(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = Site::open(on).await;
    let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
    assert_eq!(site.ledger.attend(one).await.unwrap(), 1);
    assert_eq!(site.ledger.attend(two).await.unwrap(), 2);
    assert_eq!(site.ledger.attend(one).await.unwrap(), 2);
    site.ledger.leave(two).await.unwrap();
    assert_eq!(site.ledger.attend(one).await.unwrap(), 1);
    // One that died without a word counts no more after a while.
    sqlx::query("UPDATE workers SET seen_at = seen_at - 16000000").execute(&site.ledger.write).await.unwrap();
    assert_eq!(site.ledger.attend(two).await.unwrap(), 1);
}
