//! Nothing unsigned decides, on the built binary: what an attacker makes of a signed delivery of somebody's, and how a
//! misconfigured source is noticed.

use std::time::Duration;

use form_urlencoded::byte_serialize;
use http::{HeaderMap, HeaderName, HeaderValue};
use rollcall::delivery::{DeliveryId, Encoding, SecretName, Timestamp};
use rollcall::ledger::outcome::Outcome;
use rollcall::provider::{self, Draft, Invention, Secret, Signer, SourceSettings};
use serde_json::{Value, json};
use toml::Table;

use crate::harness::github::{Account, SECRET};
use crate::harness::process::{Addresses, Process};
use crate::harness::site::{Carrier, Site, becomes};
use crate::harness::{soon, until};

const WHSEC: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const RULES: &str =
    "[[rules]]\nevent = 'member.added'\nchange = 'gained'\naccount = '/data/user/id'\nscope = '/data/organization/id'";

/// A source beside that of GitHub: its name, its table, its secret, and the event that the attacker would like.
const OTHERS: [(&str, &str, &str, &str); 3] = [
    ("cloud", "provider = 'bitbucket-cloud'", "a secret of some length", "repo.push"),
    (
        "lab",
        "provider = 'gitlab'\nverify = 'signature'\nhost = 'git.larkspur.example'\nscopes = ['instance']",
        WHSEC,
        "user_add_to_group",
    ),
    (
        "in-house",
        "provider = 'standard-webhooks'\nhost = 'git.larkspur.example'\ndrata_connection = 12",
        WHSEC,
        "member.added",
    ),
];

fn signer(name: &str, table: &str, secret: &str) -> Box<dyn Signer> {
    let table: Table = table.parse().unwrap();
    let word = |key: &str| table.get(key).map(|value| value.as_str().unwrap().to_owned());
    let settings = SourceSettings {
        name: name.parse().unwrap(),
        host: "git.larkspur.example".to_owned(),
        roots: Vec::new(),
        sightings: false,
        verify: word("verify"),
        header: None,
        own: Table::new(),
    };
    let provider = provider::find(&word("provider").unwrap()).unwrap();
    (provider.signer)(&settings, Secret { name: SecretName("test".into()), value: secret.into() }).unwrap()
}

/// What the attacker would like to be believed.
fn wish(signer: &dyn Signer, event: &str) -> Draft {
    let invention = Invention {
        id: None,
        event: event.to_owned(),
        login: "mallory".to_owned(),
        account_id: "6666".to_owned(),
        root: "acme".to_owned(),
        root_id: "1001".to_owned(),
        part: None,
        part_id: None,
    };
    signer.invent(&invention).unwrap()
}

/// A delivery that means nothing, with the wish in a text that its author chose.
fn carrier(wish: &Draft) -> Vec<u8> {
    let encoded: String = byte_serialize(&wish.json).collect();
    let body: Value = json!({
        "ref": "refs/heads/main", "before": "0", "after": "1", "type": "other", "event_name": "push",
        "object_kind": "push", "head_commit": { "message": format!("x&payload={encoded}&y=") },
        "repository": { "id": 5, "full_name": "acme/site", "owner": { "id": 1001, "login": "acme" } },
    });
    body.to_string().into_bytes()
}

async fn posted(at: &Addresses, source: &str, headers: &HeaderMap, body: &[u8]) -> u16 {
    let url = at.webhook.join(&format!("/webhooks/{source}")).unwrap();
    let client = rollcall::outbound::builder(&url, Duration::from_secs(10)).unwrap().build().unwrap();
    let request = client.post(url).headers(headers.clone()).body(body.to_owned());
    soon("an answer", request.send()).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_form_inside_a_signed_text_and_other_headers_give_nobody_access() {
    let mut site = Site::new(Carrier::Embedded, 1).await;
    let mut environment = vec![("GITHUB_WEBHOOK_SECRET", SECRET.to_owned()), ("DRATA_API_KEY", "a key".to_owned())];
    let names = ["CLOUD", "LAB", "IN_HOUSE"];
    for ((name, table, secret, _), variable) in OTHERS.iter().zip(names) {
        let mut table: Table =
            format!("{table}\nname = '{name}'\non_access_lost = 'unlink'\nsecrets = [{{ env = '{variable}' }}]")
                .parse()
                .unwrap();
        if *name == "in-house" {
            table.extend(RULES.parse::<Table>().unwrap());
        }
        site.config["source"].as_array_mut().unwrap().push(table.into());
        environment.push((variable, (*secret).to_owned()));
    }
    let mut process = site.start_with(&environment);
    let at = process.ready().await;
    let ledger = site.ledger().await;
    let sources = [("acme-github", "provider = 'github'", SECRET, "organization.member_added")];
    for (source, table, secret, event) in sources.into_iter().chain(OTHERS) {
        let signer = signer(source, table, secret);
        let wish = wish(signer.as_ref(), event);
        let id = format!("d-{source}");
        let draft = |id: &str| Draft {
            id: id.to_owned(),
            event: "push".into(),
            encoding: Encoding::Json,
            json: carrier(&wish),
        };
        // The signed bytes as they are, other headers: it comes first, before the provider's own.
        let stolen = signer.sign(&draft(&id), Timestamp::now()).unwrap();
        let wished = signer.sign(&wish, Timestamp::now()).unwrap();
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        for content_type in [form, HeaderValue::from_static("application/json")] {
            for name in ["x-github-event", "x-gitlab-event", "x-event-key"] {
                let name = HeaderName::from_static(name);
                let mut headers = stolen.headers.clone();
                headers.insert("content-type", content_type.clone());
                if let Some(value) = wished.headers.get(&name) {
                    headers.insert(name, value.clone());
                }
                let status = posted(&at, source, &headers, &stolen.body).await;
                assert!(matches!(status, 202 | 400 | 415), "{source} {content_type:?}: {status}");
                if source != "acme-github" && content_type.as_bytes().ends_with(b"urlencoded") {
                    assert_eq!(status, 415, "{source} never sends forms");
                }
            }
        }
        // What was taken of it is settled, and means nothing.
        let id: DeliveryId = id.parse().unwrap();
        until(&format!("{source} is settled"), async || {
            let known = ledger.outcome_of(&source.parse().unwrap(), &id).await.unwrap();
            known.is_some_and(|(outcome, _)| matches!(outcome, Outcome::Ignored | Outcome::Parked))
        })
        .await;
    }
    let accounts = site.run(&["accounts", "--json"]).ended().await;
    assert_eq!(accounts.code, Some(0), "{accounts:?}");
    assert!(!accounts.output.contains("mallory") && !accounts.output.contains("6666"), "{accounts:?}");
    // A genuine one still gets through.
    let join = site.github.join(Account(1));
    site.github.accepted(&at.webhook, &join).await;
    becomes(&ledger, &join.id, Outcome::Applied).await;
    assert!(site.drata.requests().iter().all(|seen| !format!("{seen:?}").contains("6666")));
    assert_eq!(process.stop().await.code, Some(0));
}

async fn health(site: &Site, at: &Addresses) -> (u16, Value) {
    site.ask(at, "/health").await
}

#[tokio::test]
async fn a_source_of_which_every_delivery_is_refused_is_told_in_health_until_one_verifies() {
    let site = Site::new(Carrier::Embedded, 1).await;
    let (process, at) = site.serve().await;
    let part = "source:acme-github";
    for _ in 0..4 {
        let answer = site.github.forge(&at.webhook, &site.github.join(Account(1))).await.unwrap();
        assert_eq!(answer.status, 401);
    }
    let (status, told) = health(&site, &at).await;
    assert_eq!((status, &told["parts"][part]["state"]), (200, &json!("degraded")), "{told}");
    let reason = told["parts"][part]["reason"].as_str().unwrap();
    assert_eq!(reason, "refused 4 of 4 deliveries for their signature: is the secret right?");
    site.github.accepted(&at.webhook, &site.github.join(Account(1))).await;
    assert_eq!(health(&site, &at).await.1["parts"][part]["state"], "ok");
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_slip_in_the_url_is_forgiven_or_logged_once_with_the_nearest_source() {
    let site = Site::new(Carrier::Embedded, 1).await;
    let (process, at) = site.serve().await;
    let slash = at.webhook.join("/webhooks/acme-github/").unwrap();
    site.github.accepted(&slash, &site.github.join(Account(1))).await;
    let slips = ["/webhooks/Acme-GitHub", "/webhooks//acme-github", "//webhooks/acme-github", "/webhooks/acme-githb"];
    for path in slips {
        let mut slip = at.webhook.clone();
        slip.set_path(path);
        for _ in 0..3 {
            let answer = site.github.post(&slip, &site.github.join(Account(1))).await.unwrap();
            assert_eq!(answer.status, 404, "{path}");
        }
    }
    let ended = process.stop().await;
    for path in slips {
        let told: Vec<&str> = ended.log.lines().filter(|line| line.contains(&format!("\"{path}\""))).collect();
        assert!(matches!(told.as_slice(), [line] if line.contains("acme-github")), "{path}: {told:?}");
    }
}

#[tokio::test]
async fn secrets_that_look_wrong_are_warned_of_by_check_and_serve_and_not_shown() {
    let site = Site::new(Carrier::Embedded, 1).await;
    let with = |secret: &str| [("GITHUB_WEBHOOK_SECRET", secret.to_owned()), ("DRATA_API_KEY", "\"a key\"".to_owned())];
    for (secret, says) in [
        ("s3cret", "env:GITHUB_WEBHOOK_SECRET is shorter than 16 characters"),
        ("'s3cret of some length'", "env:GITHUB_WEBHOOK_SECRET is enclosed in quotes"),
        ("s3cret of some length ", "env:GITHUB_WEBHOOK_SECRET begins or ends with white space"),
    ] {
        let check = site.run_in(&["check"], &with(secret)).ended().await;
        assert!(check.output.contains(&format!("warning  source acme-github: the secret {says}")), "{check:?}");
        assert!(
            check.output.contains("warning  drata: the secret env:DRATA_API_KEY is enclosed in quotes"),
            "{check:?}"
        );
        let mut process: Process = site.start_with(&with(secret));
        process.ready().await;
        let ended = process.stop().await;
        for says in [says, "env:DRATA_API_KEY is enclosed in quotes"] {
            assert!(ended.log.lines().any(|line| line.contains("WARN") && line.contains(says)), "{ended:?}");
        }
        for told in [&check.output, &ended.log, &ended.output] {
            assert!(!told.contains("s3cret") && !told.contains("a key"), "{told}");
        }
    }
    // What a file loses at its end, the environment does too.
    let (mut process, delivery) = (site.start_with(&with(&format!("{SECRET}\r\n"))), site.github.join(Account(1)));
    let at = process.ready().await;
    site.github.accepted(&at.webhook, &delivery).await;
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_source_that_says_nothing_of_its_scopes_is_warned_of() {
    let mut site = Site::new(Carrier::Embedded, 1).await;
    let secrets = [("GITHUB_WEBHOOK_SECRET", SECRET.to_owned()), ("DRATA_API_KEY", "a key".to_owned())];
    let warning = "warning  source acme-github: it has no `scopes`";
    for (scopes, warned) in [(Some("org:acme"), false), (None, true)] {
        site.source().remove("scopes");
        if let Some(scope) = scopes {
            site.source().insert("scopes".to_owned(), vec![scope.to_owned()].into());
        }
        let check = site.run_in(&["check"], &secrets).ended().await;
        assert_eq!((check.code, check.output.contains(warning)), (Some(0), warned), "{check:?}");
    }
}
