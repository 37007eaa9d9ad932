//! The ledger in PostgreSQL: as its owner and as the role that serves see it, away, silent, and with a clock of its own.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use rollcall::ledger::outcome::Outcome;
use rstest::rstest;
use serde_json::Value;
use tokio::time::Instant;

use crate::harness::github::Account;
use crate::harness::site::{Carrier, Site, becomes, is_settled};
use crate::harness::{PATIENCE, until};

#[tokio::test]
async fn a_role_that_may_change_no_table_serves_what_its_owner_has_migrated() {
    let mut site = Site::new(Carrier::Embedded, 1).await;
    site.in_postgresql().await;
    site.set("ledger", "migrate", false);
    let refused = site.start().ended().await;
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(refused.log.contains("ledger.migrate is false; run `rollcall migrate`"), "{}", refused.log);

    let pending = site.run(&["migrate", "--check"]).ended().await;
    assert_eq!(pending.code, Some(1), "{pending:?}");
    assert!(pending.output.starts_with("PostgreSQL: pending 0001 ledger\n"), "{}", pending.output);
    assert_eq!(site.run(&["migrate"]).ended().await.code, Some(0));
    let none = site.run(&["migrate", "--check"]).ended().await;
    assert_eq!((none.code, none.output.as_str()), (Some(0), "PostgreSQL: up to date\n"));

    let _role = site.serves_as_a_role().await;
    let (process, at) = site.serve().await;
    until("health is well", async || site.ask(&at, "/health").await.0 == 200).await;
    let (join, leave) = (site.github.join(Account(1)), site.github.leave(Account(1)));
    let ledger = site.ledger().await;
    site.github.accepted(&at.webhook, &join).await;
    becomes(&ledger, &join.id, Outcome::Applied).await;
    site.github.accepted(&at.webhook, &leave).await;
    becomes(&ledger, &leave.id, Outcome::Applied).await;
    let listed = site.run(&["deliveries"]).ended().await;
    assert!(listed.output.contains(join.id.as_str()), "{listed:?}");
    let forbidden = site.run(&["migrate"]).ended().await;
    assert_eq!(forbidden.code, Some(0), "there is nothing to change: {forbidden:?}");
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_postgresql_that_is_not_there_is_named_without_its_password() {
    let mut site = Site::new(Carrier::Embedded, 0).await;
    site.set("ledger", "url", "postgres://rollcall:hunter2@127.0.0.1:1/ledger");
    let ended = site.run(&["accounts"]).ended().await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.log.contains("can't reach PostgreSQL at 127.0.0.1:1/ledger (ledger.url)"), "{}", ended.log);
    assert!(!ended.log.contains("hunter2"), "{}", ended.log);

    let (process, at) = site.serve().await;
    let (status, health) = site.ask(&at, "/health").await;
    let ledger = &health["parts"]["ledger"];
    assert_eq!((status, &ledger["state"]), (503, &Value::from("down")), "{health}");
    assert!(ledger["reason"].as_str().unwrap().contains("can't reach PostgreSQL at 127.0.0.1:1/ledger"), "{health}");
    assert!(!health.to_string().contains("hunter2"), "{health}");
    let ended = process.stop().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.log.contains("hunter2"), "{}", ended.log);
}

#[tokio::test]
async fn a_postgresql_that_refuses_the_user_is_no_outage() {
    let mut site = Site::new(Carrier::Embedded, 0).await;
    site.in_postgresql().await;
    let nobody = site.schema().unwrap().url.replacen("postgres@", "rollcall_nobody@", 1);
    site.set("ledger", "url", nobody);
    let ended = site.start().ended().await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.log.contains("rollcall_nobody"), "{}", ended.log);
}

#[rstest]
#[case::embedded(Carrier::Embedded)]
#[case::rabbitmq(Carrier::RabbitMq)]
#[tokio::test]
async fn a_process_comes_up_without_postgresql_and_takes_deliveries_for_when_it_is_there(#[case] carrier: Carrier) {
    let mut site = Site::new(carrier, 1).await;
    let proxy = site.in_postgresql_behind_a_proxy().await;
    proxy.cut();
    let (process, at) = site.serve().await;
    // What it takes it can make durable, so that it stays in its load balancer; a worker alone would be out.
    until("it is ready", async || site.ask(&at, "/ready").await.0 == 200).await;
    assert_eq!(site.ask(&at, "/health").await.1["parts"]["ledger"]["state"], "down");
    let join = site.github.join(Account(1));
    site.github.accepted(&at.webhook, &join).await;

    proxy.mend();
    let ledger = site.ledger().await;
    becomes(&ledger, &join.id, Outcome::Applied).await;
    until("health is well", async || site.ask(&at, "/health").await.0 == 200).await;
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_worker_alone_is_not_ready_before_postgresql_is_there_and_ends_when_told_to() {
    let mut site = Site::new(Carrier::RabbitMq, 1).await;
    let proxy = site.in_postgresql_behind_a_proxy().await;
    proxy.cut();
    let mut told = site.start_worker();
    let admin = told.works().await;
    assert_eq!(site.ask_admin(&admin, "/live").await.0, 200);
    until("its broker is there", async || {
        site.ask_admin(&admin, "/ready").await == (503, Value::from("not ready: ledger, recording\n"))
    })
    .await;
    assert_eq!(told.stop().await.code, Some(0));

    let mut worker = site.start_worker();
    let admin = worker.works().await;
    proxy.mend();
    until("it is ready", async || site.ask_admin(&admin, "/ready").await.0 == 200).await;
    assert_eq!(worker.stop().await.code, Some(0));
}

/// How the ledger goes away under load.
#[derive(Clone, Copy, Debug)]
enum Away {
    /// Its connections break, and new ones are refused.
    Cut,
    /// Nothing breaks, and nothing is answered.
    Silent,
    /// An administrator ends its sessions, again and again.
    Terminated,
}

#[rstest]
#[case::cut_embedded(Away::Cut, Carrier::Embedded)]
#[case::cut_rabbitmq(Away::Cut, Carrier::RabbitMq)]
#[case::silent_rabbitmq(Away::Silent, Carrier::RabbitMq)]
#[case::terminated_embedded(Away::Terminated, Carrier::Embedded)]
#[case::terminated_rabbitmq(Away::Terminated, Carrier::RabbitMq)]
#[tokio::test]
async fn a_ledger_that_goes_away_under_load_pauses_consumption_and_loses_nothing(
    #[case] away: Away,
    #[case] carrier: Carrier,
) {
    let people = 20;
    let mut site = Site::new(carrier, people).await;
    let proxy = site.in_postgresql_behind_a_proxy().await;
    if matches!(away, Away::Silent) {
        site.set("ledger", "timeout", "1500ms");
    }
    let (process, at) = site.serve().await;
    until("it is ready", async || site.ask(&at, "/ready").await.0 == 200).await;
    let ledger = site.ledger().await;
    let deliveries: Vec<_> = (0..10)
        .flat_map(|round| (1..=people).map(move |n| (round, Account(n))))
        .map(|(round, account)| if round % 2 == 0 { site.github.join(account) } else { site.github.leave(account) })
        .collect();

    let mut answers = stream::iter(&deliveries)
        .map(async |delivery| site.github.accepted(&at.webhook, delivery).await)
        .buffer_unordered(8);
    let mut answered = 0;
    while answers.next().await.is_some() {
        answered += 1;
        match (away, answered) {
            (Away::Cut, 50) => proxy.cut(),
            (Away::Silent, 50) => proxy.hold(),
            (Away::Terminated, 50 | 80 | 110) => site.schema().unwrap().end_sessions().await,
            _ => {}
        }
    }
    drop(answers);
    if !matches!(away, Away::Terminated) {
        // Everything was taken, and what isn't recorded isn't acked.
        until("health says so", async || site.ask(&at, "/health").await.1["parts"]["ledger"]["state"] == "down").await;
        assert_eq!(site.ask(&at, "/ready").await.0, 200, "it can still make deliveries durable");
        let accepted = i64::try_from(deliveries.len()).unwrap();
        assert!(ledger.balance().await.unwrap().accepted < accepted, "nothing was left to record");
        proxy.mend();
    }

    let ledger = site.ledger().await;
    for delivery in &deliveries {
        until("every delivery is settled", async || is_settled(&ledger, &delivery.id).await).await;
    }
    until("nothing is missing", async || {
        let balance = ledger.balance().await.unwrap();
        balance.missing() == 0 && balance.adds_up() && !balance.outcomes.contains_key("parked")
    })
    .await;
    for n in 1..=people {
        assert!(!site.is_linked(Account(n)), "{n} left last");
    }
    until("health is well", async || site.ask(&at, "/health").await.0 == 200).await;
    assert_eq!(process.stop().await.code, Some(0));
}

/// Leases and schedules are the database's clock: whatever a worker's own says, and however far apart two workers' are.
#[rstest]
#[case::ahead(3 * 3600)]
#[case::behind(-3 * 3600)]
#[tokio::test]
async fn a_clock_that_is_hours_off_changes_no_lease_and_no_schedule(#[case] seconds: i64) {
    let mut site = Site::new(Carrier::RabbitMq, 3).await;
    site.in_postgresql().await;
    let ledger = site.ledger().await;
    site.schema().unwrap().shift_clock(seconds).await;
    let mut ingress = site.start_ingress();
    let at = ingress.ready().await;
    until("the ingress is ready", async || site.ask(&at, "/ready").await.0 == 200).await;

    // Retries come when they are due by the database's clock.
    site.break_drata(&["500:first=3@connect"]);
    let mut first = site.start_worker();
    first.works().await;
    let began = Instant::now();
    let join = site.github.join(Account(1));
    site.github.accepted(&at.webhook, &join).await;
    becomes(&ledger, &join.id, Outcome::Applied).await;
    assert!(began.elapsed() < PATIENCE / 2, "it waited for another clock");

    // A worker is killed in mid-call: its lease holds against the other for its time, and no longer.
    site.break_drata(&["timeout:first=1@connect"]);
    let other = site.github.join(Account(2));
    site.github.accepted(&at.webhook, &other).await;
    until("the call is under way", async || !site.connects(Account(2)).is_empty()).await;
    first.kill().await;
    let mut second = site.start_worker();
    second.works().await;
    becomes(&ledger, &other.id, Outcome::Applied).await;
    let calls = site.connects(Account(2));
    assert_eq!(calls.len(), 2, "{calls:?}");
    // Three times the time-out and five seconds, of which the first call had up to one.
    assert!(calls[1].begun - calls[0].begun > 6_000_000, "the lease was over too early: {calls:?}");

    // Halts begin, probe and end by it too.
    site.break_drata(&["401"]);
    let third = site.github.join(Account(3));
    site.github.accepted(&at.webhook, &third).await;
    until("calls are halted", async || ledger.halt().await.unwrap().is_some()).await;
    site.break_drata(&[]);
    becomes(&ledger, &third.id, Outcome::Applied).await;
    for process in [ingress, second] {
        assert_eq!(process.stop().await.code, Some(0));
    }
}

/// With the time-outs that are the default, of which a statement's alone is longer than that.
#[tokio::test]
async fn a_worker_tells_within_half_a_minute_that_postgresql_has_gone_silent_and_goes_on_by_itself() {
    let mut site = Site::new(Carrier::RabbitMq, 1).await;
    let proxy = site.in_postgresql_behind_a_proxy().await;
    let mut ingress = site.start_ingress();
    let at = ingress.ready().await;
    let mut worker = site.start_worker();
    let admin = worker.works().await;
    let status = async || {
        let (status, health) = site.ask_admin(&admin, "/health").await;
        (status, health["parts"]["ledger"]["state"].clone())
    };
    until("health is well", async || status().await.0 == 200).await;
    proxy.hold();
    let began = Instant::now();
    until("health says so", async || status().await == (503, Value::from("down"))).await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());

    let join = site.github.join(Account(1));
    site.github.accepted(&at.webhook, &join).await;
    proxy.mend();
    let ledger = site.ledger().await;
    becomes(&ledger, &join.id, Outcome::Applied).await;
    until("health is well", async || status().await.0 == 200).await;
    for process in [worker, ingress] {
        assert_eq!(process.stop().await.code, Some(0));
    }
}
