//! Bitbucket Cloud and Bitbucket Data Center. They have the signature's header in common, and little else.
//!
//! `X-Hub-Signature: sha256=…` is HMAC-SHA256 of the raw body: the header that GitHub uses for SHA-1.
//! <https://support.atlassian.com/bitbucket-cloud/docs/manage-webhooks/>,
//! <https://confluence.atlassian.com/bitbucketserver/manage-webhooks-938025878.html>
//!
//! Neither tells of joins and leaves. What they tell is activity: whoever acts has access, so an account that nobody knew
//! becomes known. That somebody lost access can only be found out by asking.
//!
//! bitbucket-cloud:
//!
//! <!-- events of bitbucket-cloud -->
//! | event | change | meaning |
//! |---|---|---|
//! | `repo.push` | seen repo | whoever pushed has access |
//! | `pullrequest.fulfilled` | seen repo | whoever merged has access |
//! | `pullrequest.*` | seen repo or - | whoever works on a pull request of a private repository has access |
//! | `issue.*` | - | an issue may be anybody's |
//! | `repo.*` | - | says nothing about access |
//! | `project.*` | - | says nothing about access |
//! <!-- /events -->
//!
//! bitbucket-data-center:
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

use http::HeaderMap;
use serde::Deserialize;
use serde_json::json;

use super::fields::{Loose, Serial, json_text, read};
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
        EventRow { event: "pullrequest.fulfilled", change: "seen repo", meaning: "whoever merged has access" },
        EventRow {
            event: "pullrequest.*",
            change: "seen repo or -",
            meaning: "whoever works on a pull request of a private repository has access",
        },
        EventRow { event: "issue.*", change: "-", meaning: "an issue may be anybody's" },
        EventRow { event: "repo.*", change: "-", meaning: "says nothing about access" },
        EventRow { event: "project.*", change: "-", meaning: "says nothing about access" },
    ],
    invents: &["repo.push"],
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

const NO_ACCESS: &str = "the event says nothing about access";
const PUBLIC: &str = "in a public repository it takes no access to do that";
const NOBODY: &str = "it doesn't say which account did it";
const NOWHERE: &str = "it doesn't say which repository it was in";

fn seen(account: Account, scope: Scope) -> Meaning {
    Change::Access { account, scope, kind: AccessKind::Seen }.into()
}

#[derive(Debug)]
struct Cloud {
    host: String,
}

#[derive(Deserialize)]
struct CloudBody<'a> {
    #[serde(borrow, default)]
    actor: Loose<'a>,
    #[serde(borrow, default)]
    repository: Loose<'a>,
    #[serde(borrow, default)]
    push: Loose<'a>,
    #[serde(borrow, default)]
    pullrequest: Loose<'a>,
}

#[derive(Deserialize)]
struct CloudActor<'a> {
    #[serde(borrow, default)]
    uuid: Loose<'a>,
    #[serde(borrow, default)]
    account_id: Loose<'a>,
    #[serde(borrow, default, rename = "type")]
    kind: Loose<'a>,
}

#[derive(Deserialize)]
struct CloudRepository<'a> {
    #[serde(borrow, default)]
    uuid: Loose<'a>,
    #[serde(borrow, default)]
    full_name: Loose<'a>,
    #[serde(borrow, default)]
    is_private: Loose<'a>,
    #[serde(borrow, default)]
    workspace: Loose<'a>,
    /// The same account as the workspace's, in bodies from before there were workspaces.
    #[serde(borrow, default)]
    owner: Loose<'a>,
}

#[derive(Deserialize)]
struct CloudPullRequest<'a> {
    #[serde(borrow, default)]
    state: Loose<'a>,
}

#[derive(Default, Deserialize)]
struct CloudWorkspace<'a> {
    #[serde(borrow, default)]
    uuid: Loose<'a>,
    #[serde(borrow, default)]
    slug: Loose<'a>,
}

impl Cloud {
    /// The account's id is its `uuid`; `account_id`, the same person's at all of Atlassian, may be missing. A nickname is
    /// neither unique nor a login, so it isn't kept.
    fn account(&self, actor: &CloudActor<'_>) -> Result<Account, &'static str> {
        let kind = match actor.kind.text().as_deref() {
            Some("user") | None => AccountKind::Person,
            Some("app_user" | "AppUser") => AccountKind::Bot,
            Some(_) => return Err("whoever acted isn't a user"),
        };
        let atlassian = actor.account_id.label();
        let id = actor.uuid.label().or_else(|| atlassian.clone()).ok_or(NOBODY)?;
        let key = AccountKey { provider: "bitbucket-cloud".to_owned(), host: self.host.clone(), id };
        Ok(Account { key, node_id: atlassian, login: None, email: None, kind })
    }
}

impl Interpreter for Cloud {
    fn interpret(&self, delivery: &Delivery) -> Result<Meaning, Misshapen> {
        let event = delivery.event.as_str();
        let push = event == "repo.push";
        if !push && !event.starts_with("pullrequest.") {
            return Ok(Meaning::nothing(NO_ACCESS));
        }
        let json = json_text(delivery)?;
        let body: CloudBody<'_> = read(&json)?;
        // The event's name isn't signed: a body of another event must not pass for one that needs access.
        let (mark, there) = if push { ("push", body.push) } else { ("pullrequest", body.pullrequest) };
        if !there.is_there() {
            return Err(Misshapen::of(mark, "isn't there, though every such event has it"));
        }
        if !body.actor.is_there() || !body.repository.is_there() {
            return Ok(Meaning::nothing(NOBODY));
        }
        let actor: CloudActor<'_> = body.actor.get("actor")?;
        let repository: CloudRepository<'_> = body.repository.get("repository")?;
        let merged = || {
            let request = body.pullrequest.find::<CloudPullRequest<'_>>();
            event == "pullrequest.fulfilled" && request.is_some_and(|it| it.state.text().as_deref() == Some("MERGED"))
        };
        if !push && !repository.is_private.is_true() && !merged() {
            return Ok(Meaning::nothing(PUBLIC));
        }
        let account = match self.account(&actor) {
            Ok(account) => account,
            Err(why) => return Ok(Meaning::nothing(why)),
        };
        if !repository.uuid.is_there() {
            return Ok(Meaning::nothing(NOWHERE));
        }
        let (id, full_name) = (repository.uuid.id("repository.uuid")?, repository.full_name.label());
        let workspace: CloudWorkspace<'_> =
            repository.workspace.find().or_else(|| repository.owner.find()).unwrap_or_default();
        let slug = workspace.slug.label().or_else(|| Some(full_name.as_deref()?.split_once('/')?.0.to_owned()));
        let scope = match workspace.uuid.label() {
            Some(uuid) => Scope::top(ScopeKind::Org, uuid, slug).part(ScopeKind::Repo, id, full_name),
            None => Scope::top(ScopeKind::Repo, id, full_name),
        };
        Ok(seen(account, scope))
    }
}

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
        let pull_request = event.starts_with("pr.");
        if !pull_request && event != "repo.refs_changed" {
            return Ok(Meaning::nothing(NO_ACCESS));
        }
        let json = json_text(delivery)?;
        let body: ServerBody<'_> = read(&json)?;
        // The body says it too, and signed; the header's name isn't.
        if body.event_key.text().is_some_and(|key| key.replace(':', ".") != event) {
            return Err(Misshapen::of("eventKey", "is that of another event than the header's"));
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

fn invent_cloud(_host: &str, invention: &Invention) -> Result<Draft, SettingsError> {
    if invention.event != "repo.push" {
        return Err(cannot_invent(invention, CLOUD.invents));
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
        return Err(cannot_invent(invention, DATA_CENTER.invents));
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
