//! What `serve` refuses to start with, and what it starts without.

use std::net::TcpListener;

use rollcall::ledger::outcome::Outcome;
use rstest::rstest;
use serde_json::Value;

use crate::harness::github::{Account, SECRET};
use crate::harness::site::{Carrier, Site, becomes};

fn unknown_key(site: &mut Site) {
    site.set("retry", "atempts", 3);
}

fn no_choice_about_lost_access(site: &mut Site) {
    site.source().remove("on_access_lost");
}

fn unknown_provider(site: &mut Site) {
    site.source().insert("provider".to_owned(), "github.com".into());
}

fn url_of_another_kind(site: &mut Site) {
    site.set("drata", "base_url", "ftp://drata.example");
}

fn no_url_at_all(site: &mut Site) {
    site.set("drata", "base_url", "drata.example");
}

fn broker_of_another_kind(site: &mut Site) {
    site.set("broker", "url", "http://127.0.0.1:5672/");
}

fn duration_without_unit(site: &mut Site) {
    site.set("drata", "timeout", "10");
}

#[rstest]
#[case(unknown_key, "retry.atempts", "did you mean `attempts`?")]
#[case(no_choice_about_lost_access, "source[acme-github].on_access_lost", "\"unlink\"")]
#[case(unknown_provider, "source[acme-github].provider", "github")]
#[case(url_of_another_kind, "drata.base_url", "https://")]
#[case(no_url_at_all, "drata.base_url", "URL")]
#[case(broker_of_another_kind, "broker.url", "amqp")]
#[case(duration_without_unit, "drata.timeout", "\"8s\"")]
#[tokio::test]
async fn a_mistake_in_the_file_is_told_with_its_place_and_the_way_out(
    #[case] make: fn(&mut Site),
    #[case] key: &str,
    #[case] way_out: &str,
) {
    let mut site = Site::new(Carrier::Embedded, 0).await;
    make(&mut site);
    let taken = occupy(&mut site);
    let ended = site.start().ended().await;
    drop(taken);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert_eq!(ended.output, "");
    let place = format!("{}: {key}: ", site.config_file().display());
    assert!(ended.log.contains(&place), "{key} at its place in: {}", ended.log);
    assert!(ended.log.contains(way_out), "{way_out} in: {}", ended.log);
}

#[rstest]
#[case::missing(None, "isn't set")]
#[case::empty(Some(""), "is empty")]
#[tokio::test]
async fn a_source_without_its_secret_is_refused(#[case] secret: Option<&str>, #[case] why: &str) {
    let mut site = Site::new(Carrier::Embedded, 0).await;
    let taken = occupy(&mut site);
    let mut environment = vec![("DRATA_API_KEY", "a key".to_owned())];
    environment.extend(secret.map(|secret| ("GITHUB_WEBHOOK_SECRET", secret.to_owned())));
    let ended = site.start_with(&environment).ended().await;
    drop(taken);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let place =
        format!("{}: source[acme-github].secrets[0]: env:GITHUB_WEBHOOK_SECRET: ", site.config_file().display());
    assert!(ended.log.contains(&place) && ended.log.contains(why), "{}", ended.log);
}

#[tokio::test]
async fn a_missing_api_key_is_refused() {
    let mut site = Site::new(Carrier::Embedded, 0).await;
    let taken = occupy(&mut site);
    let ended = site.start_with(&[("GITHUB_WEBHOOK_SECRET", SECRET.to_owned())]).ended().await;
    drop(taken);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.log.contains("drata.api_key: env:DRATA_API_KEY: "), "{}", ended.log);
}

/// Takes both ports away. Binding one would fail with another exit code than a wrong configuration does.
fn occupy(site: &mut Site) -> [TcpListener; 2] {
    ["ingress", "admin"].map(|section| {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        site.set(section, "listen", taken.local_addr().unwrap().to_string());
        taken
    })
}

#[tokio::test]
async fn a_port_that_is_taken_is_no_fault_of_the_configuration() {
    let mut site = Site::new(Carrier::Embedded, 0).await;
    let _taken = occupy(&mut site);
    let ended = site.start().ended().await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.log.contains("can't listen on 127.0.0.1:"), "{}", ended.log);
}

#[tokio::test]
async fn two_processes_never_share_a_data_folder() {
    let site = Site::new(Carrier::Embedded, 1).await;
    let (first, at) = site.serve().await;
    let second = site.start().ended().await;
    assert_eq!(second.code, Some(3), "{second:?}");
    assert!(second.log.contains("another rollcall is running on it"), "{}", second.log);

    let join = site.github.join(Account(1));
    site.github.accepted(&at.webhook, &join).await;
    becomes(&site.ledger().await, &join.id, Outcome::Applied).await;
    assert_eq!(first.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_broker_out_of_reach_without_a_spool_keeps_deliveries_away_and_the_process_up() {
    let mut site = Site::new(Carrier::Embedded, 1).await;
    site.set("spool", "enabled", false);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    site.set("broker", "url", format!("amqp://guest:guest@{nobody}/%2f"));
    site.set("broker", "confirm_timeout", "500ms");
    site.set("broker", "publish_timeout", "500ms");
    let (process, at) = site.serve().await;

    let answer = site.github.post(&at.webhook, &site.github.join(Account(1))).await.unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.retry_after.unwrap().parse::<u32>().unwrap() > 0);
    assert_eq!(site.ask(&at, "/ready").await, (503, Value::from("not ready: broker\n")));
    assert_eq!(site.ask(&at, "/live").await.0, 200);
    let (status, health) = site.ask(&at, "/health").await;
    assert_eq!((status, &health["parts"]["broker"]["state"]), (503, &Value::from("down")));
    assert!(!health.to_string().contains("guest:guest"), "{health}");
    let ended = process.stop().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.log.contains("guest:guest"), "{}", ended.log);
}
