//! PostgreSQL answers and takes nothing: it is read-only, a grant or a table is missing. Deliveries are accepted, nothing
//! is parked or lost, and health says who can't do what, also when nothing arrives.

use std::time::Duration;

use rollcall::ledger::outcome::Outcome;
use rstest::rstest;
use tokio::time::Instant;

use crate::harness::github::{Account, Posted};
use crate::harness::postgresql::Role;
use crate::harness::process::Addresses;
use crate::harness::site::{Carrier, Site, becomes};
use crate::harness::until;

/// By then health has to say so.
const TOLD_WITHIN: Duration = Duration::from_secs(30);

/// A site whose processes serve as a role of their own.
pub(super) async fn site_of_a_role(carrier: Carrier, people: i64) -> (Site, Role) {
    let mut site = Site::new(carrier, people).await;
    site.in_postgresql().await;
    site.set("ledger", "migrate", false);
    assert_eq!(site.run(&["migrate"]).ended().await.code, Some(0));
    let role = site.serves_as_a_role().await;
    (site, role)
}

/// Waits until a part of health is down, for a reason that says this. The whole of it is then 503.
async fn is_down(site: &Site, at: &Addresses, part: &str, why: &str) {
    let began = Instant::now();
    until(&format!("{part} is down because {why}"), async || {
        let (status, health) = site.ask(at, "/health").await;
        let part = &health["parts"][part];
        part["state"] == "down" && status == 503 && part["reason"].as_str().is_some_and(|told| told.contains(why))
    })
    .await;
    assert!(began.elapsed() < TOLD_WITHIN, "it took {:?}", began.elapsed());
}

async fn gauge(site: &Site, at: &Addresses, name: &str) -> f64 {
    let metrics = site.ask(at, "/metrics").await.1;
    let text = metrics.as_str().unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()).unwrap_or(0.0)
}

/// Waits until all is applied and well, and the gauges are back at zero.
async fn all_goes_on(site: &Site, at: &Addresses, deliveries: &[Posted]) {
    let ledger = site.ledger().await;
    for delivery in deliveries {
        becomes(&ledger, &delivery.id, Outcome::Applied).await;
    }
    until("health is well", async || site.ask(at, "/health").await.0 == 200).await;
    for name in ["rollcall_recording_paused_seconds", "rollcall_oldest_unrecorded_seconds"] {
        until(&format!("{name} is 0"), async || gauge(site, at, name).await == 0.0).await;
    }
    let balance = ledger.balance().await.unwrap();
    assert!(balance.adds_up() && balance.missing() == 0 && !balance.outcomes.contains_key("parked"), "{balance}");
}

#[rstest]
#[case::embedded(Carrier::Embedded)]
#[case::rabbitmq(Carrier::RabbitMq)]
#[tokio::test]
async fn a_read_only_postgresql_is_told_and_all_goes_on_when_it_is_writable(#[case] carrier: Carrier) {
    let (site, role) = site_of_a_role(carrier, 6).await;
    let (process, at) = site.serve().await;
    let deliveries: Vec<Posted> = (1..=6).map(|n| site.github.join(Account(n))).collect();
    site.github.accepted(&at.webhook, &deliveries[0]).await;
    becomes(&site.ledger().await, &deliveries[0].id, Outcome::Applied).await;

    role.may_write(false).await;
    role.end_sessions().await;
    // Nothing arrives.
    is_down(&site, &at, "ledger", "is read-only").await;
    assert_eq!(site.ask(&at, "/ready").await.0, 200, "it can still make deliveries durable");

    for delivery in &deliveries[1..] {
        site.github.accepted(&at.webhook, delivery).await;
    }
    is_down(&site, &at, "recording", "is read-only").await;
    let grows = async |name: &str| {
        until(&format!("{name} grows"), async || gauge(&site, &at, name).await >= 2.0).await;
    };
    grows("rollcall_recording_paused_seconds").await;
    grows("rollcall_oldest_unrecorded_seconds").await;

    // Its sessions from before stay read-only; nobody ends them.
    role.may_write(true).await;
    all_goes_on(&site, &at, &deliveries).await;
    assert_eq!(process.stop().await.code, Some(0));
}

/// What an operator has forgotten.
#[derive(Clone, Copy, Debug)]
enum Forgotten {
    Grant(&'static str, &'static str),
    Table(&'static str),
}

#[rstest]
#[case::to_insert(Forgotten::Grant("INSERT", "changes"), "INSERT on changes isn't granted", "changes")]
#[case::to_update(Forgotten::Grant("UPDATE", "statuses"), "UPDATE on statuses isn't granted", "statuses")]
#[case::a_table(Forgotten::Table("effects"), "the table effects is missing", "effects")]
#[tokio::test]
async fn a_forgotten_grant_or_table_is_named_and_nothing_is_parked_for_it(
    #[case] forgotten: Forgotten,
    #[case] told: &str,
    #[case] table: &str,
) {
    let (site, role) = site_of_a_role(Carrier::Embedded, 4).await;
    let (process, at) = site.serve().await;
    let deliveries: Vec<Posted> = (1..=4).map(|n| site.github.join(Account(n))).collect();
    site.github.accepted(&at.webhook, &deliveries[0]).await;
    becomes(&site.ledger().await, &deliveries[0].id, Outcome::Applied).await;

    match forgotten {
        Forgotten::Grant(privilege, table) => role.may(privilege, table, false).await,
        Forgotten::Table(table) => site.schema().unwrap().rename(table, "elsewhere").await,
    }
    // Nothing arrives.
    is_down(&site, &at, "ledger", told).await;
    for delivery in &deliveries[1..] {
        site.github.accepted(&at.webhook, delivery).await;
    }
    is_down(&site, &at, "recording", table).await;
    match forgotten {
        Forgotten::Grant(privilege, table) => role.may(privilege, table, true).await,
        Forgotten::Table(table) => site.schema().unwrap().rename("elsewhere", table).await,
    }
    all_goes_on(&site, &at, &deliveries).await;
    assert_eq!(process.stop().await.code, Some(0));
}
