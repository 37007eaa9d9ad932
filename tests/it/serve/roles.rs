//! Roles in processes of their own: what each needs, and that restarting them one after another loses nothing.

use rollcall::ledger::outcome::Outcome;
use rstest::rstest;
use serde_json::Value;

use crate::harness::github::Account;
use crate::harness::process::{Addresses, Process};
use crate::harness::site::{Carrier, Site, becomes, is_settled};
use crate::harness::until;

#[rstest]
#[case("ingress")]
#[case("worker")]
#[tokio::test]
async fn a_role_apart_without_rabbitmq_is_refused(#[case] role: &str) {
    let site = Site::new(Carrier::Embedded, 0).await;
    let ended = site.serve_with(&["--role", role], &[]).ended().await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.log.contains("broker.url: is missing"), "{}", ended.log);
    assert!(ended.log.contains("lives in one process"), "{}", ended.log);
}

#[tokio::test]
async fn a_role_that_does_not_exist_is_refused() {
    let site = Site::new(Carrier::Embedded, 0).await;
    let ended = site.serve_with(&["--role", "ingres"], &[]).ended().await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.log.contains("[possible values: ingress, worker]"), "{}", ended.log);
}

#[tokio::test]
async fn each_role_does_its_job_with_its_own_secrets_alone() {
    let site = Site::new(Carrier::RabbitMq, 1).await;
    let mut ingress = site.start_ingress();
    let at = ingress.ready().await;
    assert!(!site.data().exists(), "an ingress alone keeps nothing in data_dir");
    let mut worker = site.start_worker();
    let admin = worker.works().await;
    until("both are ready", async || {
        site.ask(&at, "/ready").await.0 == 200 && site.ask_admin(&admin, "/ready").await.0 == 200
    })
    .await;

    let join = site.github.join(Account(1));
    site.github.accepted(&at.webhook, &join).await;
    becomes(&site.ledger().await, &join.id, Outcome::Applied).await;
    assert!(site.is_linked(Account(1)));

    let parts = |health: &Value| health["parts"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(parts(&site.ask(&at, "/health").await.1), ["broker", "source:acme-github"]);
    let health = site.ask_admin(&admin, "/health").await.1;
    let expected =
        ["balance", "broker", "drata", "drift", "job:seal", "ledger", "reconcile", "recording", "source:acme-github"];
    assert_eq!(parts(&health), expected);
    let ended = [ingress.stop().await, worker.stop().await];
    assert!(ended.iter().all(|ended| ended.code == Some(0)), "{ended:?}");
    assert!(ended[0].log.contains("\"roles\":\"ingress\""), "{}", ended[0].log);
    assert_eq!(ended[1].output, "");
}

/// Posts to the ingresses in turn until one of them has taken it, as a load balancer would.
async fn accepted_by_any(site: &Site, delivery: &crate::harness::github::Posted, ingresses: &[Addresses]) {
    until("an ingress takes the delivery", async || {
        let first = usize::try_from(delivery.account.0).unwrap() % ingresses.len();
        for at in ingresses.iter().cycle().skip(first).take(ingresses.len()) {
            if site.github.post(&at.webhook, delivery).await.is_some_and(|answer| answer.status == 202) {
                return true;
            }
        }
        false
    })
    .await;
}

/// Two ingresses and their addresses.
struct Ingresses {
    processes: Vec<Process>,
    at: Vec<Addresses>,
}

impl Ingresses {
    async fn start(site: &Site) -> Self {
        let (mut processes, mut at) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let mut process = site.start_ingress();
            at.push(process.ready().await);
            processes.push(process);
        }
        Self { processes, at }
    }

    /// Tells one to end while the other goes on, and starts it anew.
    async fn restart(&mut self, site: &Site, n: usize) {
        let ended = self.processes.remove(n).stop().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let mut process = site.start_ingress();
        self.at[n] = process.ready().await;
        self.processes.insert(n, process);
    }
}

#[tokio::test]
async fn restarting_all_roles_one_after_another_loses_nothing() {
    let people = 10;
    let site = Site::new(Carrier::RabbitMq, people).await;
    site.break_drata(&["slow=20ms@connect"]);
    let mut ingresses = Ingresses::start(&site).await;
    let mut worker = site.start_worker();
    worker.works().await;

    let mut sent = Vec::new();
    for round in 0..8 {
        let deliveries: Vec<_> = (1..=people)
            .map(|n| if round % 2 == 0 { site.github.leave(Account(n)) } else { site.github.join(Account(n)) })
            .collect();
        let before = ingresses.at.clone();
        let load =
            futures_util::future::join_all(deliveries.iter().map(|delivery| accepted_by_any(&site, delivery, &before)));
        let change = async {
            match round {
                1 => ingresses.restart(&site, 0).await,
                3 => ingresses.restart(&site, 1).await,
                5 => {
                    assert_eq!(worker.stop().await.code, Some(0));
                    worker = site.start_worker();
                    worker.works().await;
                }
                6 => {
                    worker.kill().await;
                    worker = site.start_worker();
                    worker.works().await;
                }
                _ => {}
            }
            worker
        };
        ((), worker) = tokio::join!(async { drop(load.await) }, change);
        sent.extend(deliveries);
    }
    for process in ingresses.processes {
        assert_eq!(process.stop().await.code, Some(0));
    }

    let ledger = site.ledger().await;
    for delivery in &sent {
        until("every accepted delivery is settled", async || is_settled(&ledger, &delivery.id).await).await;
    }
    until("nothing is missing", async || ledger.balance().await.unwrap().missing() == 0).await;
    let balance = ledger.balance().await.unwrap();
    assert!(balance.adds_up() && balance.accepted >= i64::try_from(sent.len()).unwrap(), "{balance}");
    assert_eq!(ledger.runs().await.unwrap().len(), 4, "two ingresses, each restarted once");
    for n in 1..=people {
        assert!(site.is_linked(Account(n)), "{n}");
    }
    assert_eq!(worker.stop().await.code, Some(0));
}
