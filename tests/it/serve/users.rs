//! RabbitMQ users that can do no more than their role needs, as `deploy/docs/operations.md` and `deploy/rabbitmq` have them.

use rollcall::broker::rabbitmq::{RabbitMq, Settings};
use rollcall::broker::{Broker as _, PublishError};
use rollcall::ledger::outcome::Outcome;
use rollcall::shutdown::Tasks;

use crate::broker::delivery;
use crate::harness::github::Account;
use crate::harness::rabbitmq::{Node, Side};
use crate::harness::site::{Carrier, Site, becomes};
use crate::harness::until;

const OPERATIONS: &str = include_str!("../../../deploy/docs/operations.md");

/// The command of the documentation that begins so, in words.
fn documented(begins: &str) -> Vec<String> {
    let line = OPERATIONS.lines().map(str::trim).find(|line| line.starts_with(begins)).expect("a documented command");
    let words = line.strip_prefix("rabbitmqctl ").unwrap().split(' ');
    let root = env!("CARGO_MANIFEST_DIR");
    words
        .map(|word| match word.trim_matches(['\'', '"']) {
            "$INGRESS_PASSWORD" | "$WORKER_PASSWORD" => "hunter2".to_owned(),
            file if file.starts_with("deploy/") => format!("{root}/{file}"),
            word => word.to_owned(),
        })
        .collect()
}

async fn control(node: &Node, arguments: &[String]) {
    node.control(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

/// The address for a user in the vhost rollcall.
fn url_of(node: &Node, user: &str) -> String {
    node.url().replace("guest:guest", &format!("{user}:hunter2")).replace("%2f", "rollcall")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_works_with_a_user_that_may_do_nothing_else() {
    let mut node = Node::new();
    node.start().await;
    for begins in [
        "rabbitmqctl add_vhost rollcall",
        "rabbitmqctl import_definitions",
        "rabbitmqctl add_user rollcall-ingress",
        "rabbitmqctl add_user rollcall-worker",
        "rabbitmqctl set_permissions -p rollcall rollcall-ingress",
        "rabbitmqctl set_permissions -p rollcall rollcall-worker",
    ] {
        control(&node, &documented(begins)).await;
    }
    works(&node).await;
}

/// As compose does it: RabbitMQ imports users and what has to exist at its start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_compose_lets_rabbitmq_import_is_enough() {
    let mut node = Node::new();
    let definitions = tempfile::tempdir().unwrap();
    let users = include_str!("../../../deploy/rabbitmq/users.json");
    let users = ["INGRESS", "WORKER", "ADMIN"]
        .into_iter()
        .fold(users.to_owned(), |text, who| text.replace(&format!("{who}_PASSWORD"), "hunter2"));
    std::fs::write(definitions.path().join("10-users.json"), users).unwrap();
    let topology = include_str!("../../../deploy/rabbitmq/definitions.json");
    std::fs::write(definitions.path().join("20-topology.json"), topology).unwrap();
    let settings = include_str!("../../../deploy/rabbitmq/compose.conf");
    node.configure(&settings.replace("/etc/rabbitmq/definitions", definitions.path().to_str().unwrap()));
    let admin = url_of(&node, "admin");
    node.start_for(&admin).await;
    works(&node).await;
    let users = node.control(&["list_users", "-q"]).await;
    assert!(!users.contains("guest"), "{users}");
}

/// Runs an ingress and a worker, and tries what neither may do.
async fn works(node: &Node) {
    let (ingress_url, worker_url) = (url_of(node, "rollcall-ingress"), url_of(node, "rollcall-worker"));
    let mut site = Site::new(Carrier::Embedded, 1).await;
    site.set("broker", "declare", false);
    site.set("broker", "url", ingress_url.clone());
    let mut ingress = site.start_ingress();
    let at = ingress.ready().await;
    until("the ingress is ready", async || site.ask(&at, "/ready").await.0 == 200).await;
    let secrets =
        [("GITHUB_WEBHOOK_SECRET", "long enough not to be guessed".to_owned()), ("DRATA_API_KEY", "a key".to_owned())];
    let checked = site.run_in(&["check"], &secrets).ended().await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.output.contains("that is enough for an ingress, and not for a worker"), "{checked:?}");

    site.set("broker", "url", worker_url.clone());
    let mut worker = site.start_worker();
    let admin = worker.works().await;
    until("the worker is ready", async || site.ask_admin(&admin, "/ready").await.0 == 200).await;
    let checked = site.run_in(&["check"], &secrets).ended().await;
    assert!(checked.output.contains("that is enough for a worker, and not for an ingress"), "{checked:?}");
    let join = site.github.join(Account(1));
    site.github.accepted(&at.webhook, &join).await;
    becomes(&site.ledger().await, &join.id, Outcome::Applied).await;
    until("its checkpoint has come", async || {
        let runs = site.ledger().await.runs().await.unwrap();
        !runs.is_empty()
    })
    .await;
    for process in [ingress, worker] {
        assert_eq!(process.stop().await.code, Some(0));
    }

    // Neither may do what the other may, and nobody may make anything.
    let refused = |error: lapin::Error| assert!(error.to_string().contains("ACCESS_REFUSED"), "{error}");
    let side = Side::open(&ingress_url).await;
    let got = side.channel.basic_get("rollcall.work".into(), lapin::options::BasicGetOptions::default()).await;
    refused(got.expect_err("an ingress's user reads nothing"));
    side.close().await;
    for url in [&ingress_url, &worker_url] {
        let side = Side::open(url).await;
        let options = lapin::options::QueueDeclareOptions::default();
        let made =
            side.channel.queue_declare("rollcall.new".into(), options, lapin::types::FieldTable::default()).await;
        refused(made.expect_err("nobody makes a queue"));
        side.close().await;
    }
    let settings = Settings {
        declare: false,
        publish_timeout: std::time::Duration::from_secs(1),
        confirm_timeout: std::time::Duration::from_secs(1),
        ..Settings::new(worker_url.into())
    };
    let broker = RabbitMq::connect(settings, &Tasks::new()).unwrap();
    let published = broker.publish(&delivery("d-1", "{}")).await;
    assert!(matches!(published, Err(PublishError::Unavailable(_))), "{published:?}");
    broker.close().await;
}
