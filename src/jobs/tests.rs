//! Jobs that are run, by a ledger.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpListener;
use tokio::time::Instant;

use super::*;
use crate::broker::State;
use crate::ledger::database::Database;
use crate::ledger::trial::Trial;
use crate::shutdown::Tasks;

const HOUR: Duration = Duration::from_hours(1);

/// Waits until there is something.
async fn soon<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain");
        tokio::task::yield_now().await;
    }
}

/// Waits until the ledger has a result of the only job.
async fn result(ledger: &Ledger) -> String {
    soon(async || ledger.jobs().await.unwrap().first()?.result.clone()).await
}

#[tokio::test]
async fn a_job_that_panics_has_failed_and_ends_the_process() {
    let trial = Trial::open(Database::Sqlite).await;
    let (tasks, job) = (Tasks::new(), Jobs::new(Timestamp::now()).add("sweep", HOUR));
    let (ledger, running, token) = (trial.ledger.clone(), job.clone(), tasks.token().clone());
    tasks.essential("job sweep", async move {
        run(&ledger, &running, &token, || async {
            if true {
                panic!("no instant is that late");
            }
            Ok::<_, LedgerError>("done")
        })
        .await;
    });
    assert_eq!(tasks.failed().await.to_string(), "the task \"job sweep\" panicked: no instant is that late");
    // It is done again only after its interval, so that a process that is started again doesn't end at once.
    assert_eq!(result(&trial.ledger).await, "failed: it panicked: no instant is that late");
    assert!(trial.ledger.jobs().await.unwrap()[0].due_at > Timestamp::now().plus(HOUR / 2));
}

#[tokio::test]
async fn a_job_becomes_overdue_while_nobody_can_ask_the_ledger() {
    let (trial, tasks) = (Trial::open(Database::Sqlite).await, Tasks::new());
    let jobs = Jobs::new(Timestamp(0));
    let job = jobs.add("seal", HOUR);
    trial.ledger.close().await;
    tasks.essential("job monitor", jobs.watch(trial.ledger.clone(), tasks.token().clone()));
    let health = soon(async || Some(job.health()).filter(|health| health.state == State::Degraded)).await;
    assert!(health.reason.unwrap().contains("it should succeed every 1h"));
}

#[tokio::test]
async fn how_a_job_stands_is_known_to_workers_that_do_not_run_it() {
    let trial = Trial::open(Database::Sqlite).await;
    let tasks = Tasks::new();
    let (one, other) = (Jobs::new(Timestamp::now()), Jobs::new(Timestamp::now()));
    let (running, watched) = (one.add("seal", HOUR), other.add("seal", HOUR));
    let (ledger, token, runs) = (trial.ledger.clone(), tasks.token().clone(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&runs);
    tasks.essential("job seal", async move {
        run(&ledger, &running, &token, || async {
            counted.fetch_add(1, Ordering::SeqCst);
            Err::<String, _>("the disk is full")
        })
        .await;
    });
    assert_eq!(result(&trial.ledger).await, "failed: the disk is full");
    tasks.essential("job monitor", other.watch(trial.ledger.clone(), tasks.token().clone()));
    let health = soon(async || Some(watched.health()).filter(|health| health.state == State::Degraded)).await;
    assert!(health.reason.unwrap().contains("the disk is full"));
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert!(tasks.end(Duration::from_secs(10)).await);
    assert_eq!(tasks.failure(), None);
}

/// A ledger in a PostgreSQL that takes connections and never says a word; it does for as long as the listener is there.
async fn silent(timeout: Duration) -> (Ledger, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://rollcall@{}/ledger", listener.local_addr().unwrap());
    (Ledger::lazy(&url.into(), timeout).unwrap(), listener)
}

#[tokio::test]
async fn a_ledger_that_says_nothing_is_told_and_keeps_no_job_from_ending() {
    let (ledger, _listener) = silent(Duration::from_millis(100)).await;
    let (tasks, job) = (Tasks::new(), Jobs::new(Timestamp::now()).add("seal", HOUR));
    let (asking, running, token) = (ledger.clone(), job.clone(), tasks.token().clone());
    tasks.essential("job seal", async move {
        run(&asking, &running, &token, || async { Ok::<_, LedgerError>("done") }).await;
    });
    let health = soon(async || Some(job.health()).filter(|health| health.state == State::Degraded)).await;
    let reason = health.reason.unwrap();
    assert!(reason.ends_with("the ledger's database didn't answer within 0.3 seconds"), "{reason}");
    // To give the job back it asks once more.
    assert!(tasks.end(Duration::from_secs(5)).await);
    assert!(matches!(ledger.seal().await, Err(LedgerError::Silent { .. })));
}

#[tokio::test]
async fn a_run_ends_when_its_job_could_not_be_kept_for_as_long_as_the_lease_holds() {
    let trial = Trial::open(Database::Sqlite).await;
    let job = Jobs::new(Timestamp::now()).add("sweep", HOUR);
    let JobTurn::Mine(lease) = trial.ledger.take_job("sweep", Uuid::now_v7(), LEASE).await.unwrap() else {
        panic!("nobody else has it");
    };
    let (ledger, _listener) = silent(Duration::from_mins(1)).await;
    tokio::time::pause();
    let began = Instant::now();
    let work = || std::future::pending::<Result<&str, LedgerError>>();
    let ended = tokio::time::timeout(LEASE * 2, done(&ledger, &job, (lease, began), work)).await;
    assert_eq!(ended.ok(), Some(ASK));
    let took = began.elapsed();
    assert!(took >= LEASE && took < LEASE + KEEP, "{took:?}");
    assert_eq!(job.health().state, State::Degraded);
}
