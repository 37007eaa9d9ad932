//! `rollcall recover` and `rollcall gaps` as an operator runs them, and the schedule of a process that serves, against
//! stand-ins of the providers' APIs.

use std::collections::BTreeSet;

use http::HeaderMap;
use rollcall::delivery::{SecretName, Timestamp};
use rollcall::ledger::outcome::Outcome;
use rollcall::provider::{self, Invention, Secret, SourceSettings};
use serde_json::Value;
use url::Url;

use crate::harness::deliveries_api::{DeliveriesApi, HOOK, PUBLIC_URL, TOKEN};
use crate::harness::github::{Account, Posted, SECRET};
use crate::harness::process::{Addresses, Ended, Process};
use crate::harness::site::{Carrier, SOURCE, Site, becomes};
use crate::harness::until;

fn environment() -> Vec<(&'static str, String)> {
    [("GITHUB_WEBHOOK_SECRET", SECRET), ("DRATA_API_KEY", "a key"), ("API_TOKEN", TOKEN), ("USER", "ada")]
        .map(|(name, value)| (name, value.to_owned()))
        .to_vec()
}

/// A site whose source may ask that API. Only commands know which hook is its own, so that nothing is recovered unless one
/// does.
async fn site(api: &DeliveriesApi, people: i64) -> Site {
    let mut site = Site::new(Carrier::Embedded, people).await;
    let source = site.source();
    source.insert("api_token".to_owned(), toml::toml! { env = "API_TOKEN" }.into());
    source.insert("api_url".to_owned(), api.url.as_str().into());
    site
}

async fn serve(site: &Site, api: &DeliveriesApi) -> (Process, Addresses) {
    let mut process = site.start_with(&environment());
    let at = process.ready().await;
    api.leads_to(Some(&at.webhook));
    (process, at)
}

async fn stop(process: Process, api: &DeliveriesApi) {
    api.leads_to(None);
    assert_eq!(process.stop().await.code, Some(0));
}

/// Starts a command.
fn start(site: &Site, arguments: &[&str]) -> Process {
    let public_url = ("ROLLCALL__INGRESS__PUBLIC_URL", PUBLIC_URL.to_owned());
    site.run_in(arguments, &[&environment()[..], &[public_url]].concat())
}

async fn run(site: &Site, arguments: &[&str]) -> Ended {
    let ended = start(site, arguments).ended().await;
    assert!(!format!("{ended:?}").contains(TOKEN), "{ended:?}");
    ended
}

async fn json_of(site: &Site, arguments: &[&str], code: i32) -> Value {
    let ended = run(site, &[arguments, &["--json"]].concat()).await;
    assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:?}");
    serde_json::from_str(&ended.output).unwrap()
}

fn names(deliveries: &Value) -> BTreeSet<String> {
    deliveries.as_array().unwrap().iter().map(|row| row["delivery"].as_str().unwrap().to_owned()).collect()
}

fn ids(posted: &[&Posted]) -> BTreeSet<String> {
    posted.iter().map(|posted| posted.id.to_string()).collect()
}

/// The source's gauge of that name, as the admin listener tells.
async fn gauge(site: &Site, at: &Url, name: &str) -> Option<f64> {
    let (_, text) = site.ask_admin(at, "metrics").await;
    let line = format!("{name}{{source=\"{SOURCE}\"}} ");
    text.as_str()?.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok())
}

#[tokio::test]
async fn exactly_what_matters_and_never_arrived_is_asked_for_and_comes() {
    let api = DeliveriesApi::github().await;
    let site = site(&api, 6).await;
    let (process, _) = serve(&site, &api).await;
    let before = site.github.join(Account(1));
    assert_eq!(api.delivers(&before).await, Some(202));
    stop(process, &api).await;

    let missed = [2, 3, 4].map(|account| site.github.join(Account(account)));
    let elsewhere = site.github.join(Account(5));
    let by_hand = site.github.join(Account(6));
    let irrelevant = site.github.large(10);
    for posted in missed.iter().chain([&elsewhere, &by_hand, &irrelevant]) {
        assert_eq!(api.delivers(posted).await, None);
    }
    let (process, at) = serve(&site, &api).await;
    let ledger = site.ledger().await;
    api.claims_delivered(&elsewhere);
    assert_eq!(api.delivers_again(by_hand.id.as_str()).await, Some(202));
    becomes(&ledger, &by_hand.id, Outcome::Applied).await;

    let never = run(&site, &["gaps"]).await;
    assert_eq!(never.code, Some(0), "{never:?}");
    assert!(never.output.contains("was never looked at"), "{never:?}");
    let plan = json_of(&site, &["recover", "--source", SOURCE, "--since", "24h", "--dry-run"], 1).await;
    assert_eq!(names(&plan[0]["would_ask"]), ids(&missed.each_ref()));
    assert_eq!(api.asked(), [""; 0]);

    // A rate limit is waited out, a failing server asked again.
    api.trouble(502, &[]);
    api.trouble(403, &[("x-ratelimit-remaining", "0"), ("retry-after", "1")]);
    let report = json_of(&site, &["recover", "--source", SOURCE, "--since", "24h"], 0).await;
    assert_eq!((&report[0]["asked"], &report[0]["missing"]), (&3.into(), &Value::Array(Vec::new())), "{report}");
    assert_eq!(report[0]["hook"], format!("orgs/acme/hooks/{HOOK}"));
    let expected: Vec<String> = missed.iter().map(|posted| posted.id.to_string()).collect();
    assert_eq!(api.asked(), expected, "the oldest first, each once");
    for posted in &missed {
        becomes(&ledger, &posted.id, Outcome::Applied).await;
        assert!(site.is_linked(posted.account));
    }
    assert!(!site.is_linked(elsewhere.account));

    let gaps = json_of(&site, &["gaps"], 0).await;
    let hook = &gaps[0]["hooks"][0];
    assert_eq!(
        (&hook["missing"], &hook["never_looked_at"][0]["from"]),
        (&Value::Array(Vec::new()), &hook["looked_at"][0]["to"])
    );
    assert_eq!(
        (&hook["looked_at"][0]["recovered"], &hook["looked_at"][0]["missing"]),
        (&3.into(), &0.into()),
        "{gaps}"
    );
    until("the metric tells", async || gauge(&site, &at.admin, "rollcall_recover_recovered").await == Some(3.0)).await;
    assert_eq!(gauge(&site, &at.admin, "rollcall_recover_missing").await, Some(0.0));
    // What somebody else took isn't a failure, but the ledger doesn't have it.
    let forgotten = json_of(&site, &["recover", "--forgotten", "--dry-run"], 1).await;
    assert_eq!(names(&forgotten[0]["would_ask"]), ids(&[&elsewhere]), "{forgotten}");
    let again = json_of(&site, &["recover", "--since", "24h"], 0).await;
    assert_eq!((&again[0]["asked"], api.asked().len()), (&0.into(), 3));
    assert!(!process.log().contains(TOKEN));
    stop(process, &api).await;
}

#[tokio::test]
async fn a_run_that_is_killed_goes_on_and_asks_for_nothing_twice() {
    let api = DeliveriesApi::github().await;
    let site = site(&api, 8).await;
    let missed: Vec<Posted> = (1..=8).map(|account| site.github.join(Account(account))).collect();
    let (process, at) = serve(&site, &api).await;
    api.leads_to(None);
    for posted in &missed {
        assert_eq!(api.delivers(posted).await, None);
    }

    // Killed while it reads the list: three pages of three, of which it is given two.
    api.only_pages(2);
    let recover = start(&site, &["recover"]);
    until("it asks for the third page", async || api.pages() == 3).await;
    recover.kill().await;
    assert_eq!(api.asked(), [""; 0]);
    api.only_pages(100);

    // Killed while it asks.
    api.leads_to(Some(&at.webhook));
    let recover = start(&site, &["recover"]);
    until("it has asked for some", async || api.asked().len() >= 2).await;
    recover.kill().await;
    assert!(api.asked().len() < missed.len(), "{:?}", api.asked());
    assert_eq!(api.pages(), 3 + 1 + 1, "the rest of the list, and the page with what came since it was begun");

    let ended = run(&site, &["recover", "--width", "80"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.output.contains("missing    0 deliveries"), "{}", ended.output);
    let asked = api.asked();
    assert_eq!((asked.len(), asked.iter().collect::<BTreeSet<_>>().len()), (8, 8), "{asked:?}");
    let ledger = site.ledger().await;
    for posted in &missed {
        becomes(&ledger, &posted.id, Outcome::Applied).await;
    }
    until("the metric tells", async || gauge(&site, &at.admin, "rollcall_recover_requested").await == Some(8.0)).await;
    stop(process, &api).await;
}

#[tokio::test]
async fn what_cannot_be_had_is_told_with_its_reason() {
    let api = DeliveriesApi::github().await;
    let site = site(&api, 1).await;
    let (process, at) = serve(&site, &api).await;
    api.leads_to(None);
    let lost = site.github.leave(Account(1));
    assert_eq!(api.delivers(&lost).await, None);
    api.leads_to(Some(&at.webhook));
    api.refuses(lost.id.as_str());

    let report = json_of(&site, &["recover"], 1).await;
    assert_eq!(names(&report[0]["missing"]), ids(&[&lost]));
    let gaps = run(&site, &["gaps", "--width", "80"]).await;
    assert_eq!(gaps.code, Some(1), "{gaps:?}");
    for told in
        ["1 missing", "1 delivery missing:", lost.id.as_str(), "organization.member_removed", "not looked at yet"]
    {
        assert!(gaps.output.contains(told), "{told}: {}", gaps.output);
    }
    let gaps = json_of(&site, &["gaps"], 1).await;
    let reason = gaps[0]["hooks"][0]["missing"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("422") && reason.contains("can't be redelivered"), "{reason}");
    until("the metric tells", async || gauge(&site, &at.admin, "rollcall_recover_missing").await == Some(1.0)).await;
    stop(process, &api).await;
}

#[tokio::test]
async fn the_schedule_recovers_by_itself() {
    let api = DeliveriesApi::github().await;
    let mut site = site(&api, 2).await;
    let missed = [1, 2].map(|account| site.github.join(Account(account)));
    for posted in &missed {
        assert_eq!(api.delivers(posted).await, None);
    }
    site.set("recover", "every", "200ms");
    site.set("ingress", "public_url", PUBLIC_URL);
    let mut process = site.start_with(&environment());
    // As soon as it listens: its job may be quicker than this test.
    let at = process.ready().await;
    api.leads_to(Some(&at.webhook));
    let ledger = site.ledger().await;
    for posted in &missed {
        becomes(&ledger, &posted.id, Outcome::Applied).await;
    }
    let done = async || process.log().contains("no gap between");
    until("it says that there is no gap", done).await;
    assert_eq!(run(&site, &["gaps"]).await.code, Some(0));
    let reason = async || {
        let (status, health) = site.ask(&at, "health").await;
        assert_eq!(status, 200, "{health}");
        health.to_string().contains("nobody can look at what it fails to deliver")
    };
    assert!(!reason().await);
    api.forgets_tokens();
    until("health tells that nobody can look", reason).await;
    stop(process, &api).await;
}

#[tokio::test]
async fn gitlab_sends_again_and_a_hook_that_may_have_been_switched_off_is_told() {
    const KEYS: [&str; 4] = [
        "0199a000-0000-7000-8000-000000000001",
        "0199a000-0000-7000-8000-000000000002",
        "0199a000-0000-7000-8000-000000000003",
        "0199a000-0000-7000-8000-000000000004",
    ];
    let api = DeliveriesApi::gitlab().await;
    let mut site = site(&api, 1).await;
    let source = site.source();
    source.insert("provider".to_owned(), "gitlab".into());
    source.insert("verify".to_owned(), "token".into());
    source.insert("scopes".to_owned(), vec!["group:#42"].into());
    source.insert("drata_connection".to_owned(), 12.into());
    for (number, key) in KEYS.iter().enumerate() {
        let (headers, body) = member(key, number);
        assert_eq!(api.sends(key, "user_add_to_group", headers, body).await, None);
    }
    let (process, _) = serve(&site, &api).await;
    let report = json_of(&site, &["recover", "--source", SOURCE], 0).await;
    assert_eq!((&report[0]["asked"], &report[0]["read"]), (&4.into(), &4.into()), "{report}");
    assert_eq!(report[0]["hook"], format!("groups/42/hooks/{HOOK}"));
    assert!(report[0]["doubt"].as_str().unwrap().contains("4 attempts failed in a row"), "{report}");
    assert_eq!(api.asked(), KEYS);
    let ledger = site.ledger().await;
    for key in KEYS {
        becomes(&ledger, &key.parse().unwrap(), Outcome::Waiting).await;
    }
    let gaps = run(&site, &["gaps", "--width", "100"]).await;
    assert_eq!(gaps.code, Some(0), "{gaps:?}");
    assert!(gaps.output.contains("no gap (4 recovered)") && gaps.output.contains("failed in a row"), "{}", gaps.output);
    stop(process, &api).await;
}

/// Somebody joins a group at GitLab.
fn member(key: &str, number: usize) -> (HeaderMap, Value) {
    let settings = SourceSettings {
        name: SOURCE.parse().unwrap(),
        host: "gitlab.com".to_owned(),
        roots: vec!["group:#42".parse().unwrap()],
        sightings: false,
        verify: Some("token".to_owned()),
        header: None,
        own: toml::Table::new(),
    };
    let secret = Secret { name: SecretName("test".into()), value: SECRET.into() };
    let signer = (provider::find("gitlab").unwrap().signer)(&settings, secret).unwrap();
    let invention = Invention {
        id: Some(key.to_owned()),
        event: "user_add_to_group".to_owned(),
        login: format!("dev-{number}"),
        account_id: (3000 + number).to_string(),
        root: "larkspur".to_owned(),
        root_id: "42".to_owned(),
        part: None,
        part_id: None,
    };
    let request = signer.sign(&signer.invent(&invention).unwrap(), Timestamp::now()).unwrap();
    (request.headers, serde_json::from_slice(&request.body).unwrap())
}

#[tokio::test]
async fn whoever_cannot_recover_is_told_the_way_out() {
    let api = DeliveriesApi::github().await;
    let mut site = site(&api, 1).await;
    std::fs::create_dir(site.data()).unwrap();
    site.ledger().await;
    let recover = ["recover", "--source", SOURCE];
    let told = async |site: &Site, code: i32, words: &[&str]| {
        let ended = run(site, &recover).await;
        assert_eq!(ended.code, Some(code), "{words:?}: {ended:?}");
        for word in words {
            assert!(ended.log.contains(word), "{word}: {}", ended.log);
        }
    };

    let unknown = site.run_in(&recover, &environment()).ended().await;
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    assert!(unknown.log.contains("ingress.public_url isn't set"), "{unknown:?}");
    let with =
        |url: &str, token: &str| [("ROLLCALL__INGRESS__PUBLIC_URL", url.to_owned()), ("API_TOKEN", token.to_owned())];
    let ended = site.run_in(&recover, &with("https://elsewhere.example", TOKEN)).ended().await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    for word in ["none of the hooks in orgs/acme/hooks posts to https://elsewhere.example", "chat.example", "`hook`"] {
        assert!(ended.log.contains(word), "{word}: {}", ended.log);
    }
    let ended = site.run_in(&recover, &with(PUBLIC_URL, "another token")).ended().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.log.contains("orgs/acme/hooks can't be listed: 404") && ended.log.contains("admin:org_hook"),
        "{ended:?}"
    );

    site.source().insert("hook".to_owned(), "acme/1".into());
    told(&site, 2, &["hook", "orgs/acme/hooks/12345"]).await;
    site.source().insert("hook".to_owned(), i64::try_from(HOOK).unwrap().into());
    assert_eq!(run(&site, &recover).await.code, Some(0));
    let unset = site.run_in(&recover, &[]).ended().await;
    assert_eq!(unset.code, Some(2), "{unset:?}");
    assert!(unset.log.contains("api_token") && unset.log.contains("API_TOKEN"), "{unset:?}");

    let source = site.source();
    for key in ["hook", "api_url", "api_token"] {
        source.remove(key);
    }
    told(&site, 2, &["api_token", "is missing"]).await;
    site.source().insert("provider".to_owned(), "bitbucket-cloud".into());
    told(&site, 2, &["Bitbucket Cloud has no API that tells which deliveries failed", "roster"]).await;
}
