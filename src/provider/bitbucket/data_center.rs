//! Bitbucket Data Center, and Bitbucket Server before it.
//!
//! <!-- events of bitbucket-data-center -->
//! | event | change | meaning |
//! |---|---|---|
//! | `repo.refs_changed` | seen repo | whoever pushed has access |
//! | `pr.merged` | seen repo | whoever merged has access |
//! | `pr.*` | seen repo or - | whoever works on a pull request has access, except in a public repository |
//! | `diagnostics.ping` | - | the test button; answered and not published |
//! | `mirror.*` | - | says nothing about access |
//! | `repo.*` | - | says nothing about access |
//! <!-- /events -->

use serde::Deserialize;
use serde_json::json;

use super::{HEADER_EVENT, NO_ACCESS, NOBODY, NOWHERE, PUBLIC, SCHEME, check, name, seen, sent};
use crate::access::{Account, AccountKey, AccountKind, Scope, ScopeKind};
use crate::delivery::{Delivery, Encodings, Named};
use crate::provider::api::{ApiDescription, TokenPlace};
use crate::provider::fields::{Loose, Serial, json_text, read};
use crate::provider::scheme::{NameOf, SchemeSigner, SchemeVerifier, blame, cannot_invent, draft, head};
use crate::provider::{Description, Draft, EventRow, Interpreter, Invention, Meaning, Misshapen, SettingsError};

/// Bitbucket Data Center and Server.
pub(crate) static DATA_CENTER: Description = Description {
    name: "bitbucket-data-center",
    title: "Bitbucket Data Center",
    verification: "X-Hub-Signature: HMAC-SHA256 of the raw body",
    encodings: Encodings::JsonOnly,
    default_host: None,
    client_type: |_| None,
    // <https://confluence.atlassian.com/bitbucketserver/http-access-tokens-939515499.html>
    api: Some(ApiDescription {
        base: |host| format!("https://{host}/rest/api/latest"),
        token: TokenPlace::Bearer,
        headers: &[("accept", "application/json")],
    }),
    roster: None,
    hooks: &["Repository: Push", "Pull request: Opened, Source branch updated, Approved, Merged, Declined"],
    events: &[
        EventRow { event: "repo.refs_changed", change: "seen repo", meaning: "whoever pushed has access" },
        EventRow { event: "pr.merged", change: "seen repo", meaning: "whoever merged has access" },
        EventRow {
            event: "pr.*",
            change: "seen repo or -",
            meaning: "whoever works on a pull request has access, except in a public repository",
        },
        EventRow { event: "diagnostics.ping", change: "-", meaning: "the test button; answered and not published" },
        EventRow { event: "mirror.*", change: "-", meaning: "says nothing about access" },
        EventRow { event: "repo.*", change: "-", meaning: "says nothing about access" },
    ],
    invents: &["repo.refs_changed"],
    verifier: |settings, secrets| {
        check(settings)?;
        let name: NameOf = |headers, verified| {
            #[derive(Default, Deserialize)]
            struct Head<'a> {
                #[serde(borrow, default)]
                test: Loose<'a>,
            }
            let named = name(headers, verified, "X-Request-Id")?;
            // The event's name isn't signed: a body of another event must not be answered and forgotten as a ping.
            let test = || head::<Head<'_>>(&verified.json()).is_ok_and(|head| head.test.is_true());
            Ok(Named { ping: named.event.as_str() == "diagnostics.ping" && test(), ..named })
        };
        Ok(Box::new(SchemeVerifier::new(SCHEME, &secrets, name, &[HEADER_EVENT])?))
    },
    interpreter: |settings| {
        check(settings)?;
        Ok(Box::new(DataCenter { host: settings.host.clone() }))
    },
    recover: None,
    signer: |settings, secret| {
        check(settings)?;
        let headers = |draft: &Draft| sent(draft, "x-request-id");
        Ok(Box::new(SchemeSigner::new(SCHEME, secret, &settings.host, headers, invent)?))
    },
};

#[derive(Debug)]
struct DataCenter {
    host: String,
}

#[derive(Deserialize)]
struct ServerBody<'a> {
    #[serde(borrow, default, rename = "eventKey")]
    event_key: Loose<'a>,
    #[serde(borrow, default)]
    actor: Loose<'a>,
    #[serde(borrow, default)]
    repository: Loose<'a>,
    #[serde(borrow, default)]
    changes: Loose<'a>,
    #[serde(borrow, default, rename = "pullRequest")]
    pull_request: Loose<'a>,
}

#[derive(Deserialize)]
struct ServerActor<'a> {
    #[serde(borrow, default)]
    id: Loose<'a>,
    #[serde(borrow, default)]
    name: Loose<'a>,
    #[serde(borrow, default)]
    slug: Loose<'a>,
    #[serde(borrow, default, rename = "emailAddress")]
    email: Loose<'a>,
    #[serde(borrow, default, rename = "type")]
    kind: Loose<'a>,
}

#[derive(Deserialize)]
struct ServerPullRequest<'a> {
    #[serde(borrow, default, rename = "toRef")]
    to: Loose<'a>,
}

#[derive(Deserialize)]
struct ServerRef<'a> {
    #[serde(borrow, default)]
    repository: Loose<'a>,
}

#[derive(Deserialize)]
struct ServerRepository<'a> {
    #[serde(borrow, default)]
    id: Loose<'a>,
    #[serde(borrow, default)]
    slug: Loose<'a>,
    #[serde(borrow, default)]
    public: Loose<'a>,
    #[serde(borrow, default)]
    project: Loose<'a>,
}

/// A personal project's key is `~` and its owner's name.
#[derive(Default, Deserialize)]
struct ServerProject<'a> {
    #[serde(borrow, default)]
    key: Loose<'a>,
    #[serde(borrow, default)]
    public: Loose<'a>,
}

impl Interpreter for DataCenter {
    fn interpret(&self, delivery: &Delivery) -> Result<Meaning, Misshapen> {
        let event = delivery.event.as_str();
        let json = json_text(delivery, DATA_CENTER.encodings)?;
        let body: ServerBody<'_> = read(&json)?;
        // The body says it too, and signed; the header's name isn't.
        let key = body.event_key.text().map(|key| key.replace(':', "."));
        if key.as_ref().is_some_and(|key| key != event) {
            return Err(Misshapen::of("eventKey", "is that of another event than the header's"));
        }
        let pull_request = event.starts_with("pr.");
        if !pull_request && event != "repo.refs_changed" {
            return Ok(Meaning::nothing(NO_ACCESS));
        }
        if key.is_none() {
            return Err(Misshapen::of("eventKey", "isn't there, though every such event has it"));
        }
        let repository = if pull_request {
            let request: ServerPullRequest<'_> = body.pull_request.get("pullRequest")?;
            let to: ServerRef<'_> = request.to.get("pullRequest.toRef")?;
            to.repository
        } else if body.changes.is_there() {
            body.repository
        } else {
            return Err(Misshapen::of("changes", "isn't there, though every such event has it"));
        };
        if !repository.is_there() {
            return Ok(Meaning::nothing(NOWHERE));
        }
        let repository: ServerRepository<'_> = repository.get("repository")?;
        let project: ServerProject<'_> = repository.project.find().unwrap_or_default();
        let public = repository.public.is_true() || project.public.is_true();
        if pull_request && event != "pr.merged" && public {
            return Ok(Meaning::nothing(PUBLIC));
        }
        if !body.actor.is_there() {
            return Ok(Meaning::nothing(NOBODY));
        }
        let actor: ServerActor<'_> = body.actor.get("actor")?;
        if !actor.id.is_there() || !repository.id.is_there() {
            return Ok(Meaning::nothing(if repository.id.is_there() { NOBODY } else { NOWHERE }));
        }
        let Serial(Some(id)) = actor.id.serial("actor.id")? else { return Ok(Meaning::nothing(NOBODY)) };
        let kind = match actor.kind.text().as_deref() {
            Some("NORMAL") | None => AccountKind::Person,
            Some(_) => AccountKind::Bot,
        };
        let key = AccountKey { provider: "bitbucket-data-center".to_owned(), host: self.host.clone(), id };
        let login = actor.name.label().or_else(|| actor.slug.label());
        let account = Account { key, node_id: None, login, email: actor.email.label(), kind };
        let name = project.key.label().zip(repository.slug.label()).map(|(key, slug)| format!("{key}/{slug}"));
        let instance = Scope::top(ScopeKind::Instance, self.host.clone(), Some(self.host.clone()));
        Ok(seen(account, instance.part(ScopeKind::Repo, repository.id.number("repository.id")?, name)))
    }
}

fn invent(_host: &str, invention: &Invention) -> Result<Draft, SettingsError> {
    if invention.event != "repo.refs_changed" {
        return Err(cannot_invent(invention, DATA_CENTER.invents));
    }
    let number = |key: &str, text: &str| {
        text.parse::<u64>().map_err(|_| blame(key, format!("{text:?} isn't a whole number, as Bitbucket's ids are")))
    };
    let body = json!({
        "eventKey": "repo:refs_changed", "date": "2026-01-01T00:00:00+0000",
        "actor": { "id": number("id", &invention.account_id)?, "name": invention.login, "slug": invention.login,
            "displayName": invention.login, "emailAddress": format!("{}@example.com", invention.login), "active": true, "type": "NORMAL" },
        "repository": { "id": number("part id", invention.part_id.as_deref().unwrap_or("1"))?,
            "slug": invention.part.as_deref().unwrap_or("website"), "project": { "id": number("root id", &invention.root_id)?, "key": invention.root } },
        "changes": [],
    });
    Ok(draft(invention, "repo.refs_changed", &body))
}
