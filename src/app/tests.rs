//! A part of a process that fails, as `serve` sees it.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;

use super::*;
use crate::broker::{Broker, Consumer, PublishError};
use crate::config;
use crate::delivery::{Checkpoint, Delivery};
use crate::ledger::database::Database;
use crate::ledger::trial::Trial;
use crate::provider::REGISTRY;
use crate::reconcile::Schedule;
use crate::shutdown::HowFailed;
use crate::telemetry::metrics::recorder;

/// A broker from which nobody can consume without a panic.
#[derive(Debug)]
struct Broken;

#[async_trait]
impl Broker for Broken {
    async fn publish(&self, _: &Delivery) -> Result<(), PublishError> {
        Ok(())
    }

    async fn checkpoint(&self, _: &Checkpoint) -> Result<(), PublishError> {
        Ok(())
    }

    async fn consume(&self, _: u16) -> Box<dyn Consumer> {
        panic!("a subtraction overflowed")
    }

    fn health(&self) -> Health {
        Health { state: State::Ok, reason: None, since: Timestamp(0) }
    }

    async fn close(&self) {}
}

async fn worker(folder: &Path) -> WorkerRole {
    let defaults = config::load(config::Sources { file: None, env: BTreeMap::new(), registry: REGISTRY }).unwrap();
    let second = Duration::from_secs(1);
    WorkerRole {
        sources: Vec::new(),
        ledger: Ledger::open(folder).await.unwrap(),
        unprepared: None,
        client: Client::new(drata::Settings::new("http://127.0.0.1:9/public".parse().unwrap()), "key".into()).unwrap(),
        people: (People::default(), None),
        reconcile: reconcile::Settings {
            schedule: Schedule { first: second, factor: 2.0, max: second, attempts: 3 },
            waiting: second,
            deadline: second,
            second_look: second,
            request_timeout: second,
            concurrency: 1,
            dry_run: false,
        },
        sweep_every: None,
        prefetch: 1,
        max_batch: 1 << 20,
        missing_after: defaults.balance.after,
        recover: (Vec::new(), defaults.recover.every),
        rosters: RosterSchedule { sources: Vec::new(), every: second, apart: second },
        seal_every: defaults.evidence.seal_every,
    }
}

#[tokio::test]
async fn a_worker_that_panics_is_the_process_s_failure_and_all_else_ends_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (_recorder, metrics) = recorder().unwrap();
    let worker = Some(worker(folder.path()).await);
    let setup = Setup { broker: (Arc::new(Broken), Tasks::new()), spool: None, ingress: None, worker, metrics };
    let running = start(setup, listen("127.0.0.1:0".parse().unwrap()).await.unwrap()).unwrap();
    let failure = tokio::time::timeout(Duration::from_secs(30), running.failed()).await.unwrap();
    assert_eq!(failure.task, "worker");
    assert_eq!(failure.how, HowFailed::Panicked("a subtraction overflowed".to_owned()));
    assert_eq!(running.stop(Duration::from_secs(1)).await, Stopped { all_finished: true, failed: true });
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_told_and_keeps_no_other_gauge_from_being_told() {
    let trial = Trial::open(Database::Sqlite).await;
    let (recorder, metrics) = recorder().unwrap();
    let _counted = metrics::set_default_local_recorder(&recorder);
    trial.break_head().await;
    let (ledger, token) = (trial.ledger.clone(), CancellationToken::new());
    let observed = Arc::new(Observed::new(Timestamp(0)));
    let source = vec!["github".parse().unwrap()];
    let after = Duration::from_millis(10);
    let observer = Observer::new(ledger.clone(), Arc::new(Broken), source, BTreeSet::new(), after, observed);
    let told = async {
        while ledger.trouble().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = observer.run(token) => panic!("it observes for ever"),
        told = tokio::time::timeout(Duration::from_secs(30), told) => told.expect("it should be told"),
    }
    let reason = ledger.trouble().unwrap().reason;
    assert!(reason.starts_with("it can't be read: the ledger holds the hash \"not a hash\""), "{reason}");
    let text = metrics.render();
    for line in ["rollcall_parked_accounts 0", "rollcall_missing_deliveries{source=\"github\"} 0"] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in {text}");
    }
}
