//! Jobs on a schedule, and what operators did.

use super::*;
use crate::ledger::actions::{About, NewAction};
use crate::ledger::jobs::{JobLease, JobTurn};

const LEASE: Duration = Duration::from_mins(2);
const HOUR: Duration = Duration::from_hours(1);

impl Site {
    async fn mine(&self, owner: Uuid) -> JobLease {
        match self.ledger.take_job("sweep", owner, LEASE).await.unwrap() {
            JobTurn::Mine(lease) => lease,
            JobTurn::Later(wait) => panic!("only in {wait:?}"),
        }
    }

    async fn later(&self, owner: Uuid) -> Duration {
        match self.ledger.take_job("sweep", owner, LEASE).await.unwrap() {
            JobTurn::Mine(_) => panic!("it was given away twice"),
            JobTurn::Later(wait) => wait,
        }
    }
}

#[rstest]
#[tokio::test]
async fn a_job_is_one_workers_at_a_time_and_comes_again(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = Site::open(on).await;
    let [one, other] = [Uuid::from_u128(1), Uuid::from_u128(2)];
    let lease = site.mine(one).await;
    let wait = site.later(other).await;
    assert!(wait <= LEASE && wait > LEASE / 2, "{wait:?}");
    assert!(site.ledger.jobs().await.unwrap()[0].running);

    // Broken off: by nobody but whose it is.
    site.ledger.give_back_job("sweep", other).await.unwrap();
    site.later(other).await;
    site.ledger.give_back_job("sweep", one).await.unwrap();
    let broken_off = lease;
    let lease = site.mine(other).await;
    assert!(!site.ledger.keep_job(&broken_off, LEASE).await.unwrap());

    site.ledger.end_job(lease, HOUR, "3 accounts").await.unwrap();
    let wait = site.later(one).await;
    assert!(wait <= HOUR && wait > HOUR / 2, "{wait:?}");
    let jobs = site.ledger.jobs().await.unwrap();
    assert_eq!((jobs[0].running, jobs[0].result.as_deref()), (false, Some("3 accounts")));

    sqlx::query("UPDATE jobs SET due_at = 0").execute(&site.ledger.write).await.unwrap();
    site.mine(other).await;
}

#[rstest]
#[tokio::test]
async fn a_worker_that_has_gone_silent_loses_its_job(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = Site::open(on).await;
    let [one, other] = [Uuid::from_u128(1), Uuid::from_u128(2)];
    let frozen = site.mine(one).await;
    assert!(site.ledger.keep_job(&frozen, LEASE).await.unwrap());

    sqlx::query("UPDATE jobs SET until = 0").execute(&site.ledger.write).await.unwrap();
    let taken = site.mine(other).await;
    assert!(!site.ledger.keep_job(&frozen, LEASE).await.unwrap());
    site.ledger.end_job(frozen, HOUR, "late").await.unwrap();
    assert!(site.ledger.keep_job(&taken, LEASE).await.unwrap(), "a job that was taken over can't be ended from behind");
    assert_eq!(site.ledger.jobs().await.unwrap()[0].result, None);
}

#[rstest]
#[tokio::test]
async fn what_operators_did_is_kept_in_order(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = Site::open(on).await;
    site.ledger.record(&[Record::Delivery(Box::new(told("join", 1, gained("1", org()))))]).await.unwrap();
    let account: i64 =
        sqlx::query("SELECT id FROM accounts").fetch_one(&site.ledger.read).await.unwrap().try_get(0).unwrap();
    for (action, account) in [("link", Some(account)), ("import", None), ("unlink", Some(account))] {
        let action = NewAction { operator: "ops", action, account, delivery: None, detail: Some("by hand") };
        site.ledger.note_action(action).await.unwrap();
    }
    let actions = site.ledger.actions(About::Account(account)).await.unwrap();
    let words: Vec<&str> = actions.iter().map(|action| action.action.as_str()).collect();
    assert_eq!(words, ["link", "unlink"]);
    assert!(actions.iter().all(|action| action.operator == "ops" && action.detail.as_deref() == Some("by hand")));
    assert!(site.ledger.actions(About::Delivery(1)).await.unwrap().is_empty());
}
