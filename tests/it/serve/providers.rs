//! Every provider through the real binary: `rollcall send` signs as it does, `rollcall serve` verifies and understands.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use rollcall::delivery::{DeliveryId, Encoding, SecretName, Timestamp};
use rollcall::ledger::outcome::Outcome;
use rollcall::outbound;
use rollcall::provider::{self, Draft, REGISTRY, Secret, SourceSettings};
use toml::Table;
use url::Url;

use crate::harness::site::{Carrier, Site};
use crate::harness::until;

const WHSEC: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const OTHER_WHSEC: &str = "whsec_ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";

/// A source: its name, what else is in its table, its secret and another one, what is sent, and what becomes of it.
struct Sent {
    source: &'static str,
    table: &'static str,
    secrets: [&'static str; 2],
    arguments: &'static [&'static str],
    outcome: Outcome,
}

const SENT: [Sent; 14] = [
    Sent {
        source: "hub",
        table: "provider = 'github'",
        secrets: ["a secret of some length", "another secret"],
        arguments: &["github", "organization.member_added"],
        outcome: Outcome::Waiting,
    },
    Sent {
        source: "hub-form",
        table: "provider = 'github'",
        secrets: ["a secret of some length", "another secret"],
        arguments: &["github", "organization.member_added", "--form"],
        outcome: Outcome::Waiting,
    },
    Sent {
        source: "lab-signed",
        table: "provider = 'gitlab'\nverify = 'signature'\nscopes = ['group:#42']",
        secrets: [WHSEC, OTHER_WHSEC],
        arguments: &["gitlab", "user_add_to_group", "--verify", "signature", "--organization-id", "42"],
        outcome: Outcome::Waiting,
    },
    Sent {
        source: "lab-token",
        table: "provider = 'gitlab'\nverify = 'token'\nscopes = ['instance']\nhost = 'git.larkspur.example'",
        secrets: ["a token of some length", "another token"],
        arguments: &["gitlab", "user_destroy", "--verify", "token"],
        outcome: Outcome::Waiting,
    },
    Sent {
        source: "cloud",
        table: "provider = 'bitbucket-cloud'",
        secrets: ["a secret of some length", "another secret"],
        arguments: &["bitbucket-cloud", "repo.push", "--id", "{6f1c}", "--organization-id", "{ws}"],
        outcome: Outcome::Waiting,
    },
    Sent {
        source: "data-center",
        table: "provider = 'bitbucket-data-center'\nhost = 'git.larkspur.example'",
        secrets: ["a secret of some length", "another secret"],
        arguments: &["bitbucket-data-center", "repo.refs_changed"],
        outcome: Outcome::Unchanged,
    },
    Sent {
        source: "gitea",
        table: "provider = 'gitea'",
        secrets: ["a secret of some length", "another secret"],
        arguments: &["gitea", "push"],
        outcome: Outcome::Unchanged,
    },
    Sent {
        source: "gitea-form",
        table: "provider = 'gitea'",
        secrets: ["a secret of some length", "another secret"],
        arguments: &["gitea", "push", "--form"],
        outcome: Outcome::Unchanged,
    },
    Sent {
        source: "gogs-form",
        table: "provider = 'gogs'\nhost = 'git.larkspur.example'",
        secrets: ["a secret of some length", "another secret"],
        arguments: &["gogs", "push", "--form"],
        outcome: Outcome::Unchanged,
    },
    Sent {
        source: "forgejo",
        table: "provider = 'forgejo'",
        secrets: ["a secret of some length", "another secret"],
        arguments: &["forgejo", "push", "--form"],
        outcome: Outcome::Unchanged,
    },
    Sent {
        source: "gogs",
        table: "provider = 'gogs'\nhost = 'git.larkspur.example'",
        secrets: ["a secret of some length", "another secret"],
        arguments: &["gogs", "push"],
        outcome: Outcome::Unchanged,
    },
    Sent {
        source: "azure-basic",
        table: "provider = 'azure-devops'\nverify = 'basic'",
        secrets: ["hooks:a secret of some length", "hooks:another"],
        arguments: &["azure-devops", "git.push", "--verify", "basic"],
        outcome: Outcome::Waiting,
    },
    Sent {
        source: "azure-header",
        table: "provider = 'azure-devops'\nverify = 'header'\nheader = 'X-Hook-Secret'",
        secrets: ["a secret of some length", "another secret"],
        arguments: &["azure-devops", "git.push", "--verify", "header", "--header", "X-Hook-Secret"],
        outcome: Outcome::Waiting,
    },
    Sent {
        source: "in-house",
        table: "provider = 'standard-webhooks'\nhost = 'git.larkspur.example'\ndrata_connection = 12\n\
                [[rules]]\nevent = 'member.added'\nchange = 'gained'\naccount = '/data/user/id'\n\
                login = '/data/user/login'\nscope = '/data/organization/id'",
        secrets: [WHSEC, OTHER_WHSEC],
        arguments: &["standard-webhooks", "member.added"],
        outcome: Outcome::Waiting,
    },
];

#[tokio::test]
async fn every_provider_is_verified_and_understood() {
    for provider in REGISTRY {
        assert!(SENT.iter().any(|sent| sent.arguments[0] == provider.name), "{}", provider.name);
    }
    let mut site = Site::new(Carrier::Embedded, 0).await;
    site.set("retry", "waiting", "1h");
    let sources = site.config["source"].as_array_mut().unwrap();
    sources.clear();
    let mut environment = vec![("DRATA_API_KEY".to_owned(), "a key".to_owned())];
    for sent in &SENT {
        let name = sent.source.to_uppercase().replace('-', "_");
        let mut table: Table = sent.table.parse().unwrap();
        table.insert("name".to_owned(), sent.source.into());
        table.insert("on_access_lost".to_owned(), "unlink".into());
        let secret: Table = format!("env = '{name}'").parse().unwrap();
        table.insert("secrets".to_owned(), toml::Value::Array(vec![secret.into()]));
        sources.push(table.into());
        environment.push((name, sent.secrets[0].to_owned()));
    }
    let environment: Vec<(&str, String)> =
        environment.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let mut process = site.start_with(&environment);
    let at = process.ready().await;
    let base = at.webhook.as_str().rsplit_once('/').unwrap().0.to_owned();
    let ledger = site.ledger().await;
    for (number, sent) in SENT.iter().enumerate() {
        let url = format!("{base}/{}", sent.source);
        let send = async |secret: &str, id: &str| {
            let [provider, event, more @ ..] = sent.arguments else { panic!("a provider and an event") };
            let line = [
                "send",
                "--url",
                &url,
                "--provider",
                provider,
                "--event",
                event,
                "--secret-env",
                "S",
                "--delivery",
                id,
            ];
            site.run_in(&[&line, more].concat(), &[("S", secret.to_owned())]).ended().await
        };
        let refused = send(sent.secrets[1], "d-refused").await;
        assert_eq!(refused.code, Some(1), "{}: {refused:?}", sent.source);
        assert!(refused.output.starts_with("401 "), "{}: {refused:?}", sent.source);

        let id = format!("d-{number}");
        let accepted = send(sent.secrets[0], &id).await;
        assert_eq!(accepted.code, Some(0), "{}: {accepted:?}", sent.source);
        assert!(accepted.output.starts_with("202 ") && accepted.output.contains(&id), "{}: {accepted:?}", sent.source);
        let id: DeliveryId = id.parse().unwrap();
        let source = sent.source.parse().unwrap();
        until(&format!("{} has its outcome", sent.source), async || {
            let known = ledger.outcome_of(&source, &id).await.unwrap();
            known.is_some_and(|(outcome, _)| outcome == sent.outcome)
        })
        .await;
        assert!(ledger.outcome_of(&source, &"d-refused".parse().unwrap()).await.unwrap().is_none());
    }
    for sent in &SENT {
        spoiled(&base, sent).await;
    }
    let check = site.run_in(&["check"], &environment).ended().await;
    for line in [
        "Enter at GitLab for lab-signed:",
        "Code pushed, Pull request created",
        "secret token  the value of env:LAB_TOKEN",
        "header X-Hook-Secret: the value of env:AZURE_HEADER",
        "means         member.added: the account at /data/user/id gained the org at /data/organization/id, login at /data/user/login",
        "--provider azure-devops --secret-env NAME --event git.push --verify header --header X-Hook-Secret",
    ] {
        assert!(check.output.contains(line), "{line} in {}", check.output);
    }
    let ended = process.stop().await;
    for sent in &SENT {
        for secret in sent.secrets {
            assert!(!ended.log.contains(secret), "{}", sent.source);
        }
    }
}

/// Posts the same delivery well and ill, and holds each answer to what it should be.
async fn spoiled(base: &str, sent: &Sent) {
    let table: Table = sent.table.parse().unwrap();
    let word = |key: &str| table.get(key).map(|value| value.as_str().unwrap().to_owned());
    let provider = provider::find(sent.arguments[0]).unwrap();
    let settings = SourceSettings {
        name: sent.source.parse().unwrap(),
        host: "git.larkspur.example".to_owned(),
        roots: Vec::new(),
        sightings: false,
        verify: word("verify"),
        header: word("header"),
        own: Table::new(),
    };
    let secret = Secret { name: SecretName("test".into()), value: sent.secrets[0].into() };
    let signer = (provider.signer)(&settings, secret).unwrap();
    let signs = !matches!(settings.verify.as_deref(), Some("token" | "basic" | "header"));
    let form = sent.arguments.contains(&"--form");
    let encoding = if form { Encoding::Form } else { Encoding::Json };
    let signed = |json: &[u8]| {
        let event = sent.arguments[1].split('.').next().unwrap();
        let event = if provider.name.starts_with("bitbucket") { sent.arguments[1] } else { event };
        let draft = Draft { id: "d-spoiled".into(), event: event.into(), encoding, json: json.to_vec() };
        let request = signer.sign(&draft, Timestamp::now()).unwrap();
        (request.headers, request.body)
    };
    let url: Url = format!("{base}/{}", sent.source).parse().unwrap();
    let client = outbound::builder(&url, Duration::from_secs(10)).unwrap().build().unwrap();
    let post = async |what: &str, (headers, body): (HeaderMap, Vec<u8>), expected: u16| {
        let answer = client.post(url.clone()).headers(headers).body(body).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), expected, "{} {what}: {}", sent.source, answer.text().await.unwrap());
    };
    let good = || signed(br#"{"id": "e-1", "eventType": "build.complete", "type": "other", "event_name": "other"}"#);
    post("well", good(), 202).await;

    let (headers, mut body) = good();
    let last = body.len() - 1;
    body[last] ^= 4;
    if signs {
        post("another body", (headers, body), 401).await;
    }
    let marks = ["signature", "token", "authorization", "x-hook-secret"];
    let (headers, body) = good();
    let mark = headers.keys().find(|name| marks.iter().any(|mark| name.as_str().contains(mark))).unwrap().clone();
    let value = headers[&mark].clone();
    let with = |values: &[HeaderValue]| {
        let mut headers = headers.clone();
        headers.remove(&mark);
        for value in values {
            headers.append(&mark, value.clone());
        }
        (headers, body.clone())
    };
    post("without a mark", with(&[]), 401).await;
    post("with an empty one", with(&[HeaderValue::from_static("")]), 401).await;
    post("with two good ones", with(&[value.clone(), value.clone()]), 401).await;
    let cut = HeaderValue::from_bytes(&value.as_bytes()[..value.len() - 1]).unwrap();
    post("with one cut off", with(&[cut]), 401).await;
    let (mut headers, body) = good();
    headers.insert("content-type", HeaderValue::from_static("text/plain"));
    post("as plain text", (headers, body), 415).await;
    let (mut headers, body) = good();
    let charset = format!("{}; charset=utf-8", encoding.media_type());
    headers.insert("content-type", charset.parse().unwrap());
    post("with a charset", (headers, body), 202).await;
    post("empty", signed(b""), 400).await;
    post("not UTF-8", signed(b"{\"id\": \"\xff\"}"), 400).await;
    post("cut off", signed(br#"{"id": "e-1", "eventType": "#), 400).await;
}
