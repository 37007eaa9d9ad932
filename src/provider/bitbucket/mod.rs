//! Bitbucket Cloud and Bitbucket Data Center. They have the signature's header in common, and little else.
//!
//! `X-Hub-Signature: sha256=…` is HMAC-SHA256 of the raw body: the header that GitHub uses for SHA-1.
//! <https://support.atlassian.com/bitbucket-cloud/docs/manage-webhooks/>,
//! <https://confluence.atlassian.com/bitbucketserver/manage-webhooks-938025878.html>
//!
//! Neither tells of joins and leaves. What they tell is activity: whoever acts has access, so an account that nobody knew
//! becomes known. That somebody lost access can only be found out by asking.

use http::HeaderMap;
use serde::Deserialize;
use serde_json::json;

use super::fields::{Id, Label, read, text};
use super::scheme::{Over, Scheme, SchemeSigner, SchemeVerifier, cannot_invent, draft, head, json, label, signs_only};
use super::{Description, Draft, EventRow, Interpreter, Invention, Meaning, Misshapen, Refusal, SettingsError};
use crate::access::{AccessKind, Account, AccountKey, AccountKind, Change, Scope, ScopeKind};
use crate::delivery::{Delivery, Named, Verified};

const HEADER_EVENT: &str = "X-Event-Key";
const SCHEME: Scheme = Scheme::Hex { header: "X-Hub-Signature", prefix: "sha256=", over: Over::Body };

/// Bitbucket Cloud.
pub(super) static CLOUD: Description = Description {
    name: "bitbucket-cloud",
    title: "Bitbucket Cloud",
    verification: "X-Hub-Signature: HMAC-SHA256 of the raw body",
    default_host: Some("bitbucket.org"),
    client_type: |_| Some("BITBUCKET"),
    hooks: &["Repository: Push", "Pull request: Created, Updated, Approved, Merged, Declined"],
    events: &[
        EventRow { event: "repo.push", change: "seen repo", meaning: "whoever pushed has access" },
        EventRow { event: "pullrequest.*", change: "seen repo", meaning: "whoever works on a pull request has access" },
        EventRow { event: "issue.*", change: "-", meaning: "an issue may be anybody's" },
        EventRow { event: "repo.*", change: "-", meaning: "says nothing about access" },
    ],
    verifier: |settings, secrets| {
        signs_only(settings, "Bitbucket", "X-Hub-Signature")?;
        Ok(Box::new(SchemeVerifier::new(SCHEME, &secrets, |headers, verified| {
            name(headers, verified, "X-Request-UUID")
        })?))
    },
    interpreter: |settings| {
        signs_only(settings, "Bitbucket", "X-Hub-Signature")?;
        Ok(Box::new(Cloud { host: settings.host.clone() }))
    },
    signer: |settings, secret| {
        signs_only(settings, "Bitbucket", "X-Hub-Signature")?;
        let headers = |draft: &Draft| sent(draft, "x-request-uuid");
        Ok(Box::new(SchemeSigner::new(SCHEME, secret, &settings.host, headers, invent_cloud)?))
    },
};

/// Bitbucket Data Center and Server.
pub(super) static DATA_CENTER: Description = Description {
    name: "bitbucket-data-center",
    title: "Bitbucket Data Center",
    verification: "X-Hub-Signature: HMAC-SHA256 of the raw body",
    default_host: None,
    client_type: |_| None,
    hooks: &["Repository: Push", "Pull request: Opened, Source branch updated, Approved, Merged, Declined"],
    events: &[
        EventRow { event: "repo.refs_changed", change: "seen repo", meaning: "whoever pushed has access" },
        EventRow { event: "pr.*", change: "seen repo", meaning: "whoever works on a pull request has access" },
        EventRow { event: "repo.*", change: "-", meaning: "says nothing about access" },
    ],
    verifier: |settings, secrets| {
        signs_only(settings, "Bitbucket", "X-Hub-Signature")?;
        Ok(Box::new(SchemeVerifier::new(SCHEME, &secrets, |headers, verified| {
            name(headers, verified, "X-Request-Id")
        })?))
    },
    interpreter: |settings| {
        signs_only(settings, "Bitbucket", "X-Hub-Signature")?;
        Ok(Box::new(DataCenter { host: settings.host.clone() }))
    },
    signer: |settings, secret| {
        signs_only(settings, "Bitbucket", "X-Hub-Signature")?;
        let headers = |draft: &Draft| sent(draft, "x-request-id");
        Ok(Box::new(SchemeSigner::new(SCHEME, secret, &settings.host, headers, invent_data_center)?))
    },
};

/// `repo:push` is `repo.push` here, as all events have dots.
fn name(headers: &HeaderMap, verified: &Verified, id: &str) -> Result<Named, Refusal> {
    #[derive(Default, Deserialize)]
    struct Nothing {}

    let key = label(headers, HEADER_EVENT)?;
    let usable = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'-');
    if !key.bytes().all(usable) {
        return Err(Refusal::Malformed(format!("{HEADER_EVENT} isn't the name of an event")));
    }
    // It must be JSON, whatever it says.
    let _: Nothing = head(&json(verified)?)?;
    let id = label(headers, id)?.parse()?;
    Ok(Named { id, event: key.replace(':', ".").parse()?, ping: key == "diagnostics:ping" })
}

fn sent(draft: &Draft, id: &'static str) -> Vec<(&'static str, String)> {
    let key = match draft.event.split_once('.') {
        Some((what, rest)) => format!("{what}:{}", rest.replace('.', ":")),
        None => draft.event.clone(),
    };
    vec![("user-agent", "Bitbucket-Webhooks/2.0".to_owned()), ("x-event-key", key), (id, draft.id.clone())]
}

/// Whether whoever causes such an event must have access.
fn is_activity(event: &str, pull_request: &str) -> bool {
    matches!(event, "repo.push" | "repo.refs_changed")
        || event.strip_prefix(pull_request).is_some_and(|rest| rest.starts_with('.'))
}

#[derive(Debug)]
struct Cloud {
    host: String,
}

impl Interpreter for Cloud {
    /// The account's id is its `uuid`; `account_id`, the same person's at all of Atlassian, may be missing. A nickname is
    /// neither unique nor a login, so it isn't kept.
    fn interpret(&self, delivery: &Delivery) -> Result<Meaning, Misshapen> {
        #[derive(Deserialize)]
        struct Body {
            actor: Actor,
            repository: Repository,
        }
        #[derive(Deserialize)]
        struct Actor {
            uuid: Label,
            account_id: Option<Label>,
            #[serde(rename = "type")]
            kind: Option<String>,
        }
        #[derive(Deserialize)]
        struct Repository {
            uuid: Label,
            full_name: Option<Label>,
            workspace: Option<Workspace>,
        }
        #[derive(Deserialize)]
        struct Workspace {
            uuid: Label,
            slug: Option<Label>,
        }
        if !is_activity(delivery.event.as_str(), "pullrequest") {
            return Ok(Meaning::nothing("the event says nothing about access"));
        }
        let Body { actor, repository } = read(delivery)?;
        let kind = match actor.kind.as_deref() {
            Some("user") | None => AccountKind::Person,
            Some("app_user" | "AppUser") => AccountKind::Bot,
            Some(_) => return Ok(Meaning::nothing("whoever acted isn't a user")),
        };
        let key = AccountKey {
            provider: "bitbucket-cloud".to_owned(),
            host: self.host.clone(),
            id: filled("actor.uuid", actor.uuid)?,
        };
        let account = Account { key, node_id: text(actor.account_id), login: None, email: None, kind };
        let (id, full_name) = (filled("repository.uuid", repository.uuid)?, text(repository.full_name));
        let scope = match repository.workspace {
            Some(workspace) => {
                let slug = text(workspace.slug)
                    .or_else(|| full_name.as_deref()?.split_once('/').map(|(slug, _)| slug.to_owned()));
                Scope::top(ScopeKind::Org, filled("repository.workspace.uuid", workspace.uuid)?, slug).part(
                    ScopeKind::Repo,
                    id,
                    full_name,
                )
            }
            None => Scope::top(ScopeKind::Repo, id, full_name),
        };
        Ok(Change::Access { account, scope, kind: AccessKind::Seen }.into())
    }
}

fn filled(path: &str, label: Label) -> Result<String, Misshapen> {
    text(Some(label)).ok_or_else(|| Misshapen { path: path.to_owned(), message: "is empty".to_owned() })
}

#[derive(Debug)]
struct DataCenter {
    host: String,
}

impl Interpreter for DataCenter {
    fn interpret(&self, delivery: &Delivery) -> Result<Meaning, Misshapen> {
        #[derive(Deserialize)]
        struct Body {
            actor: Actor,
            repository: Option<Repository>,
            #[serde(rename = "pullRequest")]
            pull_request: Option<PullRequest>,
        }
        #[derive(Deserialize)]
        struct Actor {
            id: Id,
            name: Option<Label>,
            #[serde(rename = "emailAddress")]
            email: Option<Label>,
            #[serde(rename = "type")]
            kind: Option<String>,
        }
        #[derive(Deserialize)]
        struct PullRequest {
            #[serde(rename = "toRef")]
            to: To,
        }
        #[derive(Deserialize)]
        struct To {
            repository: Repository,
        }
        #[derive(Deserialize)]
        struct Repository {
            id: Id,
            slug: Option<Label>,
            project: Option<Project>,
        }
        #[derive(Deserialize)]
        struct Project {
            key: Option<Label>,
        }
        if !is_activity(delivery.event.as_str(), "pr") {
            return Ok(Meaning::nothing("the event says nothing about access"));
        }
        let Body { actor, repository, pull_request } = read(delivery)?;
        let Some(repository) = repository.or_else(|| pull_request.map(|request| request.to.repository)) else {
            return Err(Misshapen { path: "repository".to_owned(), message: "isn't there".to_owned() });
        };
        let kind = match actor.kind.as_deref() {
            Some("NORMAL") | None => AccountKind::Person,
            Some(_) => AccountKind::Bot,
        };
        let key = AccountKey { provider: "bitbucket-data-center".to_owned(), host: self.host.clone(), id: actor.id.0 };
        let account = Account { key, node_id: None, login: text(actor.name), email: text(actor.email), kind };
        let project = repository.project.and_then(|project| text(project.key));
        let name = project.zip(text(repository.slug)).map(|(project, slug)| format!("{project}/{slug}"));
        let instance = Scope::top(ScopeKind::Instance, self.host.clone(), Some(self.host.clone()));
        let scope = instance.part(ScopeKind::Repo, repository.id.0, name);
        Ok(Change::Access { account, scope, kind: AccessKind::Seen }.into())
    }
}

fn invent_cloud(_host: &str, invention: &Invention) -> Result<Draft, SettingsError> {
    if invention.event != "repo.push" {
        return Err(cannot_invent(invention, &["repo.push"]));
    }
    let part = invention.part.as_deref().unwrap_or("website");
    let body = json!({
        "actor": { "type": "user", "uuid": invention.account_id, "nickname": invention.login, "display_name": invention.login },
        "repository": {
            "type": "repository", "uuid": invention.part_id.as_deref().unwrap_or("{00000000-0000-4000-8000-000000000001}"),
            "name": part, "full_name": format!("{}/{part}", invention.root),
            "workspace": { "type": "workspace", "uuid": invention.root_id, "slug": invention.root },
        },
        "push": { "changes": [] },
    });
    Ok(draft(invention, "repo.push", &body))
}

fn invent_data_center(_host: &str, invention: &Invention) -> Result<Draft, SettingsError> {
    if invention.event != "repo.refs_changed" {
        return Err(cannot_invent(invention, &["repo.refs_changed"]));
    }
    let number = |key: &str, text: &str| {
        text.parse::<u64>()
            .map_err(|_| super::scheme::blame(key, format!("{text:?} isn't a whole number, as Bitbucket's ids are")))
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

#[cfg(test)]
mod tests;
