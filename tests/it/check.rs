//! `rollcall check` as an operator runs it.

use rstest::rstest;

use crate::harness::process::{Ended, Process};
use crate::harness::site::{Carrier, Site};

const SECRETS: [(&str, &str); 2] =
    [("GITHUB_WEBHOOK_SECRET", "long enough not to be guessed"), ("DRATA_API_KEY", "a key")];

async fn checked(site: &Site, arguments: &[&str], secrets: &[(&str, &str)]) -> Ended {
    let environment: Vec<(&str, String)> = secrets.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let process: Process = site.run_in(&[&["check"], arguments].concat(), &environment);
    process.ended().await
}

#[tokio::test]
async fn everything_that_is_named_is_tried_and_the_set_up_is_shown() {
    let mut site = Site::new(Carrier::RabbitMq, 1).await;
    site.in_postgresql().await;
    site.set("ingress", "public_url", "https://hooks.acme.example/rollcall/");
    let ended = checked(&site, &[], &SECRETS).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for line in [
        "ok       configuration: valid, 1 source\n",
        " answers; serve declares what isn't there yet",
        "ok       ledger: PostgreSQL; serve applies ",
        "ok       drata: the API key is accepted, and Drata's connections can be listed: ",
        "ok       source acme-github: the secret env:GITHUB_WEBHOOK_SECRET is there\n",
        "ok       source acme-github: belongs to Drata's connection 12 (GITHUB)\n",
        "  payload URL   https://hooks.acme.example/rollcall/webhooks/acme-github\n",
        "  content type  application/json\n",
        "  secret        the value of env:GITHUB_WEBHOOK_SECRET\n",
    ] {
        assert!(ended.output.contains(line), "{line} in {}", ended.output);
    }
    let events = ended.output.lines().find(|line| line.contains("  events ")).unwrap();
    for event in ["organization", "membership", "member", "repository", "team"] {
        assert!(events.split([' ', ',']).any(|word| word == event), "{event} in {events}");
    }
    // It only looked.
    assert!(site.drata.requests().iter().all(|seen| seen.method == "GET"));
    let again = checked(&site, &["--json"], &SECRETS).await;
    let report: serde_json::Value = serde_json::from_str(&again.output).unwrap();
    assert_eq!(report["findings"][2]["state"], "ok");
    assert_eq!(report["sources"][0]["path"], "/webhooks/acme-github");
}

#[rstest]
#[case::a_wrong_key(&["401"], "WRONG    drata: can't list connections: ", "the API key is wrong or has expired")]
#[case::a_missing_permission(&["403@list"], "WRONG    source acme-github: can't read identities: ", "give the API key that permission")]
#[tokio::test]
async fn what_drata_refuses_is_wrong(#[case] faults: &[&str], #[case] begins: &str, #[case] says: &str) {
    let site = Site::new(Carrier::Embedded, 0).await;
    site.break_drata(faults);
    let ended = checked(&site, &[], &SECRETS).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let line = ended.output.lines().find(|line| line.starts_with(begins)).unwrap_or_else(|| panic!("{ended:?}"));
    assert!(line.contains(says), "{line}");
}

#[tokio::test]
async fn a_connection_that_drata_does_not_have_is_named_with_those_it_has() {
    let mut site = Site::new(Carrier::Embedded, 0).await;
    site.source().insert("drata_connection".to_owned(), 77.into());
    let ended = checked(&site, &[], &SECRETS).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.output.contains("Drata has no connection 77; drata_connection must be one of 12 (acme on GitHub)\n"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_missing_or_short_secret_is_said() {
    let site = Site::new(Carrier::Embedded, 0).await;
    let missing = checked(&site, &[], &SECRETS[1..]).await;
    assert_eq!(missing.code, Some(1), "{missing:?}");
    assert!(missing.output.contains("the environment variable isn't set"), "{missing:?}");
    let short = checked(&site, &[], &[("GITHUB_WEBHOOK_SECRET", "short"), SECRETS[1]]).await;
    assert_eq!(short.code, Some(0), "{short:?}");
    assert!(short.output.contains("warning  source acme-github: the secret env:GITHUB_WEBHOOK_SECRET is shorter than"));
}

#[tokio::test]
async fn what_can_not_be_reached_is_named() {
    let mut site = Site::new(Carrier::Embedded, 0).await;
    site.set("broker", "url", "amqp://guest:hunter2@127.0.0.1:1/%2f");
    site.set("ledger", "url", "postgres://rollcall:hunter2@127.0.0.1:1/ledger");
    let ended = checked(&site, &[], &SECRETS).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.output.contains("NO WAY   broker: RabbitMQ can't be reached (broker.url): "), "{ended:?}");
    assert!(ended.output.contains("NO WAY   ledger: can't reach PostgreSQL at 127.0.0.1:1/ledger"), "{ended:?}");
    assert!(!ended.output.contains("hunter2") && !ended.log.contains("hunter2"), "{ended:?}");
}

#[tokio::test]
async fn clients_that_cannot_be_told_apart_behind_a_proxy_are_warned_of() {
    let mut site = Site::new(Carrier::Embedded, 1).await;
    site.set("ingress", "public_url", "https://hooks.acme.example");
    site.set("ingress", "listen", "0.0.0.0:8080");
    site.source().insert("allow_from".to_owned(), toml::Value::Array(vec!["192.30.252.0/22".into()]));
    let ended = checked(&site, &[], &SECRETS).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for line in [
        "warning  source acme-github: has allow_from, but ingress.trusted_proxies is missing: ",
        "warning  ingress: ingress.trusted_proxies is missing: ",
        "which may have 512 connections (ingress.peer_share)",
    ] {
        assert!(ended.output.contains(line), "{line} in {}", ended.output);
    }
    site.set("ingress", "listen", "127.0.0.1:8080");
    let local = checked(&site, &[], &SECRETS).await.output;
    for line in [
        "warning  source acme-github: has allow_from, but ingress.trusted_proxies is missing: only a proxy on this machine ",
        "warning  ingress: ingress.trusted_proxies is missing: only a proxy on this machine ",
        "set ingress.trusted_proxies = [\"127.0.0.1\", \"::1\"]",
    ] {
        assert!(local.contains(line), "{line} in {local}");
    }
    // It needn't be said how providers reach it.
    site.set("ingress", "public_url", "http://hooks.acme.example");
    let unencrypted = checked(&site, &[], &SECRETS).await.output;
    assert!(
        unencrypted.contains("source acme-github: has allow_from, but ingress.trusted_proxies is missing"),
        "{unencrypted}"
    );
    assert!(!unencrypted.contains("warning  ingress: "), "{unencrypted}");
    site.set("ingress", "public_url", "https://hooks.acme.example");
    site.set("ingress", "trusted_proxies", toml::Value::Array(vec!["10.0.0.0/8".into()]));
    let ended = checked(&site, &[], &SECRETS).await;
    assert!(!ended.output.contains("trusted_proxies"), "{}", ended.output);
    site.set("ingress", "trusted_proxies", toml::Value::Array(vec!["0.0.0.0/0".into()]));
    let ended = checked(&site, &[], &SECRETS).await;
    assert!(ended.output.contains("ingress.trusted_proxies trusts every address"), "{}", ended.output);
}

#[tokio::test]
async fn who_else_may_read_secrets_and_change_the_configuration_is_said() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut site = Site::new(Carrier::Embedded, 0).await;
    let folder = site.config_file().parent().unwrap().to_owned();
    let secret = folder.join("webhook-secret");
    std::fs::write(&secret, "long enough not to be guessed").unwrap();
    let reference: toml::Table = "file = \"webhook-secret\"".parse().unwrap();
    site.source().insert("secrets".to_owned(), vec![toml::Value::from(reference)].into());
    std::fs::create_dir(site.data()).unwrap();
    let open = |file: &std::path::Path, mode| {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for (file, mode) in [(&secret, 0o644), (&folder.join("people.csv"), 0o666), (&site.data(), 0o777)] {
        open(file, mode);
    }
    let said = checked(&site, &[], &SECRETS).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    for line in [
        "warning  source acme-github: the secret file:",
        "webhook-secret is open to others than its owner and group (mode 644)",
        "warning  people map: ",
        "people.csv can be changed by everybody on this machine (mode 666)",
        "warning  data_dir: ",
        "can be written by everybody on this machine (mode 777)",
    ] {
        assert!(said.output.contains(line), "{line} in {}", said.output);
    }
    assert!(!said.output.contains("warning  configuration: "), "{said:?}");

    for (file, mode) in [(&secret, 0o640), (&folder.join("people.csv"), 0o644), (&site.data(), 0o755)] {
        open(file, mode);
    }
    let well = checked(&site, &[], &SECRETS).await;
    assert!(!well.output.contains("(mode "), "{well:?}");
}

#[tokio::test]
async fn what_goes_over_a_network_unencrypted_is_said_or_refused() {
    let mut site = Site::new(Carrier::Embedded, 0).await;
    let https = site.config["drata"]["base_url"].clone();
    site.set("drata", "base_url", "http://drata.invalid/public");
    let refused = checked(&site, &[], &SECRETS).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.log.contains("drata.base_url: must begin with https://, "), "{refused:?}");
    assert!(refused.log.contains("write drata.insecure = true beside it"), "{refused:?}");
    site.set("drata", "insecure", true);
    let allowed = checked(&site, &[], &SECRETS).await;
    assert!(allowed.output.contains("warning  drata: drata.base_url isn't encrypted"), "{allowed:?}");

    site.set("drata", "base_url", https);
    site.set("drata", "insecure", false);
    let token: toml::Table = "env = \"GITHUB_API_TOKEN\"".parse().unwrap();
    site.source().insert("api_token".to_owned(), token.into());
    site.source().insert("api_url".to_owned(), "http://git.invalid/api/v3".into());
    let refused = checked(&site, &[], &SECRETS).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.log.contains("source[acme-github].api_url: must begin with https://, "), "{refused:?}");
    site.source().insert("insecure".to_owned(), true.into());
    site.set("broker", "url", "amqp://rollcall:hunter2@mq.invalid/rollcall");
    site.set("ledger", "url", "postgres://rollcall:hunter2@db.invalid/rollcall?sslmode=prefer");
    let secrets = [&SECRETS[..], &[("GITHUB_API_TOKEN", "a token")]].concat();
    let warned = checked(&site, &["--json"], &secrets).await;
    for what in ["api_url isn't encrypted", "amqp:// isn't encrypted", "add ?sslmode=verify-full to ledger.url"] {
        assert!(warned.output.contains(what), "{what} in {warned:?}");
    }
    assert!(warned.output.contains("holds a password and can be read by everybody on this machine"), "{warned:?}");
    assert!(!format!("{warned:?}").contains("hunter2"));
}
