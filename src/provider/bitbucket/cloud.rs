//! Bitbucket Cloud.
//!
//! <!-- events of bitbucket-cloud -->
//! | event | change | meaning |
//! |---|---|---|
//! | `repo.push` | seen repo | whoever pushed has access |
//! | `pullrequest.fulfilled` | seen repo | whoever merged has access |
//! | `pullrequest.*` | seen repo or - | whoever works on a pull request of a private repository, or has merged it, has access |
//! | `issue.*` | - | an issue may be anybody's |
//! | `repo.*` | - | says nothing about access |
//! | `project.*` | - | says nothing about access |
//! <!-- /events -->

use serde::Deserialize;
use serde_json::json;

use super::roster;
use super::{HEADER_EVENT, NO_ACCESS, NOBODY, NOWHERE, PUBLIC, SCHEME, check, name, seen, sent};
use crate::access::{Account, AccountKey, AccountKind, Scope, ScopeKind};
use crate::delivery::{Delivery, Encodings};
use crate::provider::api::{ApiDescription, TokenPlace};
use crate::provider::fields::{Loose, json_text, read};
use crate::provider::scheme::{NameOf, SchemeSigner, SchemeVerifier, cannot_invent, draft};
use crate::provider::{Description, Draft, EventRow, Interpreter, Invention, Meaning, Misshapen, SettingsError};

/// Bitbucket Cloud.
pub(crate) static CLOUD: Description = Description {
    name: "bitbucket-cloud",
    title: "Bitbucket Cloud",
    verification: "X-Hub-Signature: HMAC-SHA256 of the raw body",
    encodings: Encodings::JsonOnly,
    default_host: Some("bitbucket.org"),
    client_type: |_| Some("BITBUCKET"),
    // An access token is a bearer; an API token is the password of the account's e-mail address:
    // <https://developer.atlassian.com/cloud/bitbucket/rest/intro/#authentication>
    api: Some(ApiDescription {
        base: |_| "https://api.bitbucket.org/2.0".to_owned(),
        token: TokenPlace::BasicOrBearer,
        headers: &[("accept", "application/json")],
    }),
    roster: Some(|settings| Box::new(roster::CloudRoster { host: settings.host.clone() })),
    hooks: &["Repository: Push", "Pull request: Created, Updated, Approved, Merged, Declined"],
    events: &[
        EventRow { event: "repo.push", change: "seen repo", meaning: "whoever pushed has access" },
        EventRow { event: "pullrequest.fulfilled", change: "seen repo", meaning: "whoever merged has access" },
        EventRow {
            event: "pullrequest.*",
            change: "seen repo or -",
            meaning: "whoever works on a pull request of a private repository, or has merged it, has access",
        },
        EventRow { event: "issue.*", change: "-", meaning: "an issue may be anybody's" },
        EventRow { event: "repo.*", change: "-", meaning: "says nothing about access" },
        EventRow { event: "project.*", change: "-", meaning: "says nothing about access" },
    ],
    invents: &["repo.push"],
    verifier: |settings, secrets| {
        const NAME: NameOf = |headers, verified| name(headers, verified, "X-Request-UUID");
        check(settings)?;
        Ok(Box::new(SchemeVerifier::new(SCHEME, &secrets, NAME, &[HEADER_EVENT])?))
    },
    interpreter: |settings| {
        check(settings)?;
        Ok(Box::new(Cloud { host: settings.host.clone() }))
    },
    recover: None,
    signer: |settings, secret| {
        check(settings)?;
        let headers = |draft: &Draft| sent(draft, "x-request-uuid");
        Ok(Box::new(SchemeSigner::new(SCHEME, secret, &settings.host, headers, invent)?))
    },
};

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
    #[serde(borrow, default)]
    issue: Loose<'a>,
    #[serde(borrow, default)]
    fork: Loose<'a>,
    #[serde(borrow, default)]
    commit: Loose<'a>,
    #[serde(borrow, default)]
    commit_status: Loose<'a>,
}

impl CloudBody<'_> {
    /// The event's name isn't signed: a body of another event must not pass for one that shows access. Each has a key that
    /// the others don't.
    fn is(&self, mark: &str) -> Result<(), Misshapen> {
        let marks = [
            ("push", self.push),
            ("pullrequest", self.pullrequest),
            ("issue", self.issue),
            ("fork", self.fork),
            ("commit", self.commit),
            ("commit_status", self.commit_status),
        ];
        if !marks.iter().any(|(key, value)| *key == mark && value.is_there()) {
            return Err(Misshapen::of(mark, "isn't there, though every such event has it"));
        }
        match marks.iter().find(|(key, value)| *key != mark && value.is_there()) {
            Some((key, _)) => Err(Misshapen::of(key, "belongs to another event")),
            None => Ok(()),
        }
    }
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

#[derive(Default, Deserialize)]
struct CloudPullRequest<'a> {
    #[serde(borrow, default)]
    state: Loose<'a>,
    /// Who merged it.
    #[serde(borrow, default)]
    closed_by: Loose<'a>,
}

impl CloudPullRequest<'_> {
    /// Whether the body itself says that this account merged it: it is the same whatever the event's name says, as of a
    /// comment on what somebody else had merged.
    fn was_merged_by(&self, account: &Account) -> bool {
        let closer = self.closed_by.find::<CloudActor<'_>>();
        self.state.text().as_deref() == Some("MERGED")
            && closer.is_some_and(|it| it.id().as_ref() == Some(&account.key.id))
    }
}

impl CloudActor<'_> {
    /// The account's id is its `uuid`; `account_id`, the same person's at all of Atlassian, may be missing.
    fn id(&self) -> Option<String> {
        self.uuid.label().or_else(|| self.account_id.label())
    }
}

#[derive(Default, Deserialize)]
struct CloudWorkspace<'a> {
    #[serde(borrow, default)]
    uuid: Loose<'a>,
    #[serde(borrow, default)]
    slug: Loose<'a>,
}

impl Cloud {
    /// A nickname is neither unique nor a login, so it isn't kept.
    fn account(&self, actor: &CloudActor<'_>) -> Result<Account, &'static str> {
        let kind = match actor.kind.text().as_deref() {
            Some("user") | None => AccountKind::Person,
            Some("app_user" | "AppUser") => AccountKind::Bot,
            Some(_) => return Err("whoever acted isn't a user"),
        };
        let atlassian = actor.account_id.label();
        let id = actor.id().ok_or(NOBODY)?;
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
        let json = json_text(delivery, CLOUD.encodings)?;
        let body: CloudBody<'_> = read(&json)?;
        body.is(if push { "push" } else { "pullrequest" })?;
        if !body.actor.is_there() || !body.repository.is_there() {
            return Ok(Meaning::nothing(NOBODY));
        }
        let actor: CloudActor<'_> = body.actor.get("actor")?;
        let repository: CloudRepository<'_> = body.repository.get("repository")?;
        let account = match self.account(&actor) {
            Ok(account) => account,
            Err(why) => return Ok(Meaning::nothing(why)),
        };
        let merged = || body.pullrequest.find::<CloudPullRequest<'_>>().unwrap_or_default().was_merged_by(&account);
        if !push && !repository.is_private.is_true() && !merged() {
            return Ok(Meaning::nothing(PUBLIC));
        }
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

fn invent(_host: &str, invention: &Invention) -> Result<Draft, SettingsError> {
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
