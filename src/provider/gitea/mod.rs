//! Gitea, its fork Forgejo, and Gogs, from which both come: one family, each with headers of its own.
//!
//! The signature is HMAC-SHA256 of the JSON text in hexadecimal digits without a prefix, also where that text comes inside
//! a form. Without a secret the headers come empty. Gitea and Forgejo send GitHub's headers too, validly signed, which is
//! why nothing here guesses a provider from headers. <https://docs.gitea.com/usage/webhooks>,
//! <https://forgejo.org/docs/latest/user/webhooks/>, <https://gogs.io/docs/features/webhook>
//!
//! None of them tells of joins and leaves; activity shows that an account has access.

use http::HeaderMap;
use serde::Deserialize;
use serde_json::json;

use super::fields::{Id, Label, read, text};
use super::scheme::{
    HeadersOf, Loose, NameOf, Over, Scheme, SchemeSigner, SchemeVerifier, blame, cannot_invent, draft, head, json,
    label, signs_only,
};
use super::{Description, Draft, EventRow, Interpreter, Invention, Meaning, Misshapen, Refusal, SettingsError};
use crate::access::{AccessKind, Account, AccountKey, AccountKind, Change, Scope, ScopeKind};
use crate::delivery::{Delivery, EventName, Named, Verified};

const EVENTS: &[EventRow] = &[
    EventRow { event: "push", change: "seen repo", meaning: "whoever pushed has access" },
    EventRow { event: "create", change: "seen repo", meaning: "whoever made a branch or tag has access" },
    EventRow { event: "delete", change: "seen repo", meaning: "whoever deleted a branch or tag has access" },
    EventRow { event: "release.*", change: "seen repo", meaning: "whoever published a release has access" },
    EventRow { event: "issues.*", change: "-", meaning: "an issue may be anybody's" },
    EventRow { event: "pull_request.*", change: "-", meaning: "a pull request may come from a fork of anybody's" },
];

macro_rules! member {
    ($name:literal, $title:literal, $verification:literal, $host:expr, $event:literal, $delivery:literal, $signature:literal) => {
        Description {
            name: $name,
            title: $title,
            verification: $verification,
            default_host: $host,
            client_type: |_| None,
            events: EVENTS,
            hooks: &["Push", "Create", "Delete", "Release"],
            verifier: |settings, secrets| {
                const NAMED: NameOf = |headers, verified| name(headers, verified, $event, $delivery);
                signs_only(settings, $title, $signature)?;
                Ok(Box::new(SchemeVerifier::new(scheme($signature), &secrets, NAMED)?))
            },
            interpreter: |settings| {
                signs_only(settings, $title, $signature)?;
                Ok(Box::new(Family { provider: $name, host: settings.host.clone() }))
            },
            signer: |settings, secret| {
                const HEADERS: HeadersOf = |draft| vec![($event, draft.event.clone()), ($delivery, draft.id.clone())];
                signs_only(settings, $title, $signature)?;
                Ok(Box::new(SchemeSigner::new(scheme($signature), secret, &settings.host, HEADERS, invent)?))
            },
        }
    };
}

/// Gitea.
pub(super) static GITEA: Description = member!(
    "gitea",
    "Gitea",
    "X-Gitea-Signature: HMAC-SHA256 of the JSON text",
    Some("gitea.com"),
    "x-gitea-event",
    "x-gitea-delivery",
    "X-Gitea-Signature"
);

/// Forgejo.
pub(super) static FORGEJO: Description = member!(
    "forgejo",
    "Forgejo",
    "X-Forgejo-Signature: HMAC-SHA256 of the JSON text",
    Some("codeberg.org"),
    "x-forgejo-event",
    "x-forgejo-delivery",
    "X-Forgejo-Signature"
);

/// Gogs.
pub(super) static GOGS: Description = member!(
    "gogs",
    "Gogs",
    "X-Gogs-Signature: HMAC-SHA256 of the JSON text",
    None,
    "x-gogs-event",
    "x-gogs-delivery",
    "X-Gogs-Signature"
);

const fn scheme(header: &'static str) -> Scheme {
    Scheme::Hex { header, prefix: "", over: Over::Json }
}

fn name(headers: &HeaderMap, verified: &Verified, event: &str, delivery: &str) -> Result<Named, Refusal> {
    #[derive(Default, Deserialize)]
    struct Head<'a> {
        #[serde(borrow, default)]
        action: Loose<'a>,
    }

    let event = label(headers, event)?;
    if !event.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')) {
        return Err(Refusal::Malformed("the event's header isn't the name of an event".to_owned()));
    }
    let json = json(verified)?;
    let head: Head<'_> = head(&json)?;
    let named = head.action.text().and_then(|action| format!("{event}.{action}").parse().ok());
    let named: EventName = named.map_or_else(|| event.parse(), Ok)?;
    Ok(Named { id: label(headers, delivery)?.parse()?, event: named, ping: false })
}

#[derive(Debug)]
struct Family {
    provider: &'static str,
    host: String,
}

impl Interpreter for Family {
    fn interpret(&self, delivery: &Delivery) -> Result<Meaning, Misshapen> {
        #[derive(Deserialize)]
        struct Body {
            sender: User,
            repository: Repository,
        }
        #[derive(Deserialize)]
        struct User {
            id: Id,
            login: Option<Label>,
            username: Option<Label>,
            email: Option<Label>,
        }
        #[derive(Deserialize)]
        struct Repository {
            id: Id,
            full_name: Option<Label>,
            owner: User,
        }
        if !matches!(delivery.event.event(), "push" | "create" | "delete" | "release") {
            return Ok(Meaning::nothing("the event says nothing about access"));
        }
        let Body { sender, repository } = read(delivery)?;
        let key = AccountKey { provider: self.provider.to_owned(), host: self.host.clone(), id: sender.id.0 };
        let login = text(sender.login).or_else(|| text(sender.username));
        let account = Account { key, node_id: None, login, email: text(sender.email), kind: AccountKind::Person };
        // Whether the owner is an organisation or a user isn't said.
        let owner = text(repository.owner.login).or_else(|| text(repository.owner.username));
        let owner = Scope::top(ScopeKind::Org, repository.owner.id.0, owner);
        let scope = owner.part(ScopeKind::Repo, repository.id.0, text(repository.full_name));
        Ok(Change::Access { account, scope, kind: AccessKind::Seen }.into())
    }
}

fn invent(_host: &str, invention: &Invention) -> Result<Draft, SettingsError> {
    if invention.event != "push" {
        return Err(cannot_invent(invention, &["push"]));
    }
    let number = |key: &str, text: &str| {
        text.parse::<u64>().map_err(|_| blame(key, format!("{text:?} isn't a whole number, as these ids are")))
    };
    let user = |id: u64, login: &str| json!({ "id": id, "login": login, "username": login, "full_name": "", "email": format!("{login}@example.com") });
    let sender = user(number("id", &invention.account_id)?, &invention.login);
    let part = invention.part.as_deref().unwrap_or("website");
    let body = json!({
        "ref": "refs/heads/main", "commits": [], "pusher": sender.clone(), "sender": sender,
        "repository": {
            "id": number("part id", invention.part_id.as_deref().unwrap_or("1"))?, "name": part,
            "full_name": format!("{}/{part}", invention.root), "owner": user(number("root id", &invention.root_id)?, &invention.root),
        },
    });
    Ok(draft(invention, "push", &body))
}

#[cfg(test)]
mod tests;
