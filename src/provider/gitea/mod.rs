//! Gitea, its fork Forgejo, and Gogs, from which both come: one family, each with headers of its own.
//!
//! The signature is HMAC-SHA256 of the JSON text in hexadecimal digits without a prefix, also where that text comes inside
//! a form, which itself isn't signed: the text becomes the delivery, however the form was written. Without a secret the headers come empty. Gitea and Forgejo send GitHub's headers too, validly signed, which is
//! why nothing here guesses a provider from headers. <https://docs.gitea.com/usage/webhooks>,
//! <https://forgejo.org/docs/latest/user/webhooks/>, <https://gogs.io/docs/features/webhook>
//!
//! None of them tells of joins and leaves; activity shows that an account has access.
//!
//! <!-- events of gitea forgejo gogs -->
//! | event | change | meaning |
//! |---|---|---|
//! | `push` | seen repo | whoever pushed has access |
//! | `create` | seen repo | whoever made a branch or tag has access |
//! | `delete` | seen repo | whoever deleted a branch or tag has access |
//! | `release.*` | seen repo | whoever published a release has access |
//! | `issues.*` | - | an issue may be anybody's |
//! | `pull_request*` | seen repo or - | whoever works on a pull request of a private repository has access |
//! | `issue_comment.*` | - | a comment may be anybody's |
//! | `fork` | - | a fork may be anybody's |
//! | `repository.*` | - | says nothing about access |
//! <!-- /events -->

mod roster;

use http::HeaderMap;
use serde::Deserialize;
use serde_json::json;

use super::fields::{Loose, Serial, json_text, read};
use super::scheme::{
    HeadersOf, NameOf, Over, Scheme, SchemeSigner, SchemeVerifier, blame, cannot_invent, draft, head, label, signs_only,
};
use super::{Description, Draft, EventRow, Interpreter, Invention, Meaning, Misshapen, Refusal, SettingsError};
use crate::access::{AccessKind, Account, AccountKey, AccountKind, Change, Scope, ScopeKind};
use crate::delivery::{Delivery, Encodings, EventName, Named, Verified};
use crate::provider::api::{ApiDescription, TokenPlace};

const EVENTS: &[EventRow] = &[
    EventRow { event: "push", change: "seen repo", meaning: "whoever pushed has access" },
    EventRow { event: "create", change: "seen repo", meaning: "whoever made a branch or tag has access" },
    EventRow { event: "delete", change: "seen repo", meaning: "whoever deleted a branch or tag has access" },
    EventRow { event: "release.*", change: "seen repo", meaning: "whoever published a release has access" },
    EventRow { event: "issues.*", change: "-", meaning: "an issue may be anybody's" },
    EventRow {
        event: "pull_request*",
        change: "seen repo or -",
        meaning: "whoever works on a pull request of a private repository has access",
    },
    EventRow { event: "issue_comment.*", change: "-", meaning: "a comment may be anybody's" },
    EventRow { event: "fork", change: "-", meaning: "a fork may be anybody's" },
    EventRow { event: "repository.*", change: "-", meaning: "says nothing about access" },
];

/// All three send forms if the administrator chooses so, and sign the JSON text in them.
const ENCODINGS: Encodings = Encodings::JsonOrForm;

const INVENTABLE: &[&str] = &["push"];

macro_rules! member {
    ($name:literal, $title:literal, $verification:literal, $host:expr, $event:literal, $delivery:literal, $signature:literal, $roster:expr) => {
        Description {
            name: $name,
            title: $title,
            verification: $verification,
            default_host: $host,
            client_type: |_| None,
            // <https://docs.gitea.com/development/api-usage#authentication>
            api: Some(ApiDescription {
                base: |host| format!("https://{host}/api/v1"),
                token: TokenPlace::AuthorizationToken,
                headers: &[("accept", "application/json")],
            }),
            roster: $roster,
            encodings: ENCODINGS,
            events: EVENTS,
            hooks: &["Push", "Create", "Delete", "Release"],
            invents: INVENTABLE,
            verifier: |settings, secrets| {
                const NAMED: NameOf = |headers, verified| name(headers, verified, $event, $delivery);
                signs_only(settings, $title, $signature)?;
                Ok(Box::new(SchemeVerifier::new(scheme($signature), &secrets, NAMED, &[$event, $delivery])?))
            },
            interpreter: |settings| {
                signs_only(settings, $title, $signature)?;
                Ok(Box::new(Family { provider: $name, host: settings.host.clone() }))
            },
            recover: None,
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
    "X-Gitea-Signature",
    Some(|settings| Box::new(roster::FamilyRoster { provider: "gitea", host: settings.host.clone() }))
);

/// Forgejo.
pub(super) static FORGEJO: Description = member!(
    "forgejo",
    "Forgejo",
    "X-Forgejo-Signature: HMAC-SHA256 of the JSON text",
    Some("codeberg.org"),
    "x-forgejo-event",
    "x-forgejo-delivery",
    "X-Forgejo-Signature",
    Some(|settings| Box::new(roster::FamilyRoster { provider: "forgejo", host: settings.host.clone() }))
);

/// Gogs.
pub(super) static GOGS: Description = member!(
    "gogs",
    "Gogs",
    "X-Gogs-Signature: HMAC-SHA256 of the JSON text",
    None,
    "x-gogs-event",
    "x-gogs-delivery",
    "X-Gogs-Signature",
    None
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
    let json = verified.json();
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

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default)]
    sender: Loose<'a>,
    /// Of a push; the same as the sender, whom the oldest versions leave out.
    #[serde(borrow, default)]
    pusher: Loose<'a>,
    #[serde(borrow, default)]
    repository: Loose<'a>,
    #[serde(borrow, default, rename = "ref")]
    reference: Loose<'a>,
    #[serde(borrow, default)]
    release: Loose<'a>,
    #[serde(borrow, default)]
    pull_request: Loose<'a>,
    #[serde(borrow, default)]
    issue: Loose<'a>,
    #[serde(borrow, default)]
    comment: Loose<'a>,
    #[serde(borrow, default)]
    forkee: Loose<'a>,
}

#[derive(Default, Deserialize)]
struct User<'a> {
    #[serde(borrow, default)]
    id: Loose<'a>,
    #[serde(borrow, default)]
    login: Loose<'a>,
    #[serde(borrow, default)]
    username: Loose<'a>,
    #[serde(borrow, default)]
    email: Loose<'a>,
}

impl User<'_> {
    fn login(&self) -> Option<String> {
        self.login.label().or_else(|| self.username.label())
    }
}

#[derive(Deserialize)]
struct Repository<'a> {
    #[serde(borrow, default)]
    id: Loose<'a>,
    #[serde(borrow, default)]
    full_name: Loose<'a>,
    #[serde(borrow, default)]
    private: Loose<'a>,
    #[serde(borrow, default)]
    owner: Loose<'a>,
}

impl Interpreter for Family {
    fn interpret(&self, delivery: &Delivery) -> Result<Meaning, Misshapen> {
        let (mark, needs_access) = match delivery.event.event() {
            "push" | "create" | "delete" => ("ref", true),
            "release" => ("release", true),
            // Each kind of review has an event of its own: pull_request_approved, pull_request_comment.
            event if event.starts_with("pull_request") => ("pull_request", false),
            _ => return Ok(Meaning::nothing("the event says nothing about access")),
        };
        let json = json_text(delivery, ENCODINGS)?;
        let body: Body<'_> = read(&json)?;
        // The event's name isn't signed: a body of another event must not pass for one that shows access.
        let marks = [
            ("ref", body.reference),
            ("release", body.release),
            ("pull_request", body.pull_request),
            ("issue", body.issue),
            ("comment", body.comment),
            ("forkee", body.forkee),
        ];
        if !marks.iter().any(|(key, value)| *key == mark && value.is_there()) {
            return Err(Misshapen::of(mark, "isn't there, though every such event has it"));
        }
        if let Some((key, _)) = marks.iter().find(|(key, value)| *key != mark && value.is_there()) {
            return Err(Misshapen::of(key, "belongs to another event"));
        }
        let sender = if body.sender.is_there() { body.sender } else { body.pusher };
        // Gogs leaves them out of some events.
        if !sender.is_there() || !body.repository.is_there() {
            return Ok(Meaning::nothing("it doesn't say which account did it, and where"));
        }
        let sender: User<'_> = sender.get("sender")?;
        let repository: Repository<'_> = body.repository.get("repository")?;
        if !needs_access && !repository.private.is_true() {
            return Ok(Meaning::nothing("in a public repository it takes no access to do that"));
        }
        if !sender.id.is_there() || !repository.id.is_there() {
            return Ok(Meaning::nothing("it names account or repository without their ids"));
        }
        let Serial(Some(id)) = sender.id.serial("sender.id")? else {
            return Ok(Meaning::nothing("whoever did it is the server itself, or was deleted"));
        };
        let key = AccountKey { provider: self.provider.to_owned(), host: self.host.clone(), id };
        let (login, email) = (sender.login(), sender.email.label());
        let account = Account { key, node_id: None, login, email, kind: AccountKind::Person };
        // Whether the owner is an organisation or a user isn't said.
        let owner: User<'_> = repository.owner.find().unwrap_or_default();
        let (id, name) = (repository.id.number("repository.id")?, repository.full_name.label());
        let scope = match owner.id.find() {
            Some(Serial(Some(owner_id))) => {
                Scope::top(ScopeKind::Org, owner_id, owner.login()).part(ScopeKind::Repo, id, name)
            }
            _ => Scope::top(ScopeKind::Repo, id, name),
        };
        Ok(Change::Access { account, scope, kind: AccessKind::Seen }.into())
    }
}

fn invent(_host: &str, invention: &Invention) -> Result<Draft, SettingsError> {
    if invention.event != "push" {
        return Err(cannot_invent(invention, INVENTABLE));
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
