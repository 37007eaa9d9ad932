//! Azure DevOps service hooks. Nothing covers the body: a delivery is authenticated by a secret that comes with it, as
//! HTTP Basic (`verify = "basic"`, a secret of the form `user:password`) or in a header of the operator's choice
//! (`verify = "header"`, `header = "X-Name"`). <https://learn.microsoft.com/en-us/azure/devops/service-hooks/services/webhooks>
//!
//! It tells nothing of joins and leaves; activity shows that an account has access.
//!
//! <!-- events of azure-devops -->
//! | event | change | meaning |
//! |---|---|---|
//! | `git.push` | seen repo | whoever pushed has access |
//! | `git.pullrequest.created` | seen repo | whoever opened a pull request has access |
//! | `git.pullrequest.*` | - | names who opened it, and not who acted now |
//! | `*` | - | says nothing about access |
//! <!-- /events -->

use http::{HeaderMap, HeaderName};
use serde::Deserialize;
use serde_json::json;

use super::fields::{Loose, json_text, read};
use super::scheme::{Scheme, SchemeSigner, SchemeVerifier, blame, cannot_invent, draft, head};
use super::{
    Description, Draft, EventRow, Interpreter, Invention, Meaning, Misshapen, Refusal, SettingsError, SourceSettings,
};
use crate::access::{AccessKind, Account, AccountKey, AccountKind, Change, Scope, ScopeKind};
use crate::delivery::{Delivery, Encodings, Named, Verified};
use crate::provider::api::{ApiDescription, TokenPlace};

/// Azure DevOps.
pub(super) static DESCRIPTION: Description = Description {
    name: "azure-devops",
    title: "Azure DevOps",
    verification: "verify = \"basic\": HTTP Basic; verify = \"header\": the secret in a header of your choice",
    encodings: Encodings::JsonOnly,
    default_host: Some("dev.azure.com"),
    client_type: |host| host.eq_ignore_ascii_case("dev.azure.com").then_some("AZURE_REPOS"),
    // Who is who is at another host than the repositories; a token is the password of an empty user:
    // <https://learn.microsoft.com/en-us/rest/api/azure/devops/graph/>
    api: Some(ApiDescription {
        base: |_| "https://vssps.dev.azure.com".to_owned(),
        token: TokenPlace::Password,
        headers: &[("accept", "application/json")],
    }),
    // The list of users names them by descriptors, and events by ids, which the API translates one at a time; and no list
    // says which id an organisation has in events. <https://learn.microsoft.com/en-us/rest/api/azure/devops/graph/users/list>
    roster: None,
    events: &[
        EventRow { event: "git.push", change: "seen repo", meaning: "whoever pushed has access" },
        EventRow {
            event: "git.pullrequest.created",
            change: "seen repo",
            meaning: "whoever opened a pull request has access",
        },
        EventRow { event: "git.pullrequest.*", change: "-", meaning: "names who opened it, and not who acted now" },
        EventRow { event: "*", change: "-", meaning: "says nothing about access" },
    ],
    hooks: &["Code pushed", "Pull request created"],
    invents: &["git.push"],
    verifier: |settings, secrets| {
        // Not documented, but seen in what it sends.
        const OWN_HEADERS: &[&str] = &["x-vss-subscriptionid", "x-vss-activityid"];
        Ok(Box::new(SchemeVerifier::new(scheme(settings)?, &secrets, name, OWN_HEADERS)?))
    },
    interpreter: |settings| {
        scheme(settings)?;
        Ok(Box::new(Azure { host: settings.host.clone() }))
    },
    recover: None,
    signer: |settings, secret| {
        Ok(Box::new(SchemeSigner::new(scheme(settings)?, secret, &settings.host, |_| Vec::new(), invent)?))
    },
};

fn scheme(settings: &SourceSettings) -> Result<Scheme, SettingsError> {
    settings.only_own_keys(&[])?;
    match (settings.verify.as_deref(), settings.header.as_deref()) {
        (Some("basic"), None) => Ok(Scheme::Basic),
        (Some("basic"), Some(_)) => Err(blame("header", "only verify = \"header\" has one; leave the key out")),
        (Some("header"), Some(header)) => match HeaderName::try_from(header) {
            Ok(header) => Ok(Scheme::Plain { header }),
            Err(_) => Err(blame("header", "isn't the name of a header; write it like \"X-Webhook-Secret\"")),
        },
        (Some("header"), None) => Err(blame("header", "is missing: which header holds the secret?")),
        _ => Err(blame(
            "verify",
            "must be chosen, since Azure DevOps signs nothing: \"basic\" for a secret user:password, \"header\" for one in a \
             header of your choice",
        )),
    }
}

fn name(_: &HeaderMap, verified: &Verified) -> Result<Named, Refusal> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head<'a> {
        #[serde(borrow, default)]
        id: Loose<'a>,
        #[serde(borrow, default)]
        event_type: Loose<'a>,
    }

    let json = verified.json();
    let head: Head<'_> = head(&json)?;
    let missing = |what: &str| Refusal::Malformed(format!("the body has no {what}"));
    let event = head.event_type.text().ok_or_else(|| missing("eventType"))?.parse()?;
    let id = head.id.text().ok_or_else(|| missing("id"))?.parse()?;
    Ok(Named { id, event, ping: false })
}

#[derive(Debug)]
struct Azure {
    host: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(borrow, default)]
    event_type: Loose<'a>,
    #[serde(borrow, default)]
    resource: Loose<'a>,
    #[serde(borrow, default)]
    resource_containers: Loose<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource<'a> {
    #[serde(borrow, default)]
    pushed_by: Loose<'a>,
    #[serde(borrow, default)]
    created_by: Loose<'a>,
    #[serde(borrow, default)]
    repository: Loose<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity<'a> {
    #[serde(borrow, default)]
    id: Loose<'a>,
    #[serde(borrow, default)]
    unique_name: Loose<'a>,
}

#[derive(Deserialize)]
struct Repository<'a> {
    #[serde(borrow, default)]
    id: Loose<'a>,
    #[serde(borrow, default)]
    name: Loose<'a>,
}

/// The organisation is `account`; at Azure DevOps Server there are only collections.
#[derive(Default, Deserialize)]
struct Containers<'a> {
    #[serde(borrow, default)]
    account: Loose<'a>,
    #[serde(borrow, default)]
    collection: Loose<'a>,
}

#[derive(Default, Deserialize)]
struct Container<'a> {
    #[serde(borrow, default)]
    id: Loose<'a>,
}

impl Interpreter for Azure {
    fn interpret(&self, delivery: &Delivery) -> Result<Meaning, Misshapen> {
        const DETAILS: &str = "it has no details: set \"Resource details to send\" to All in the subscription";
        let json = json_text(delivery, DESCRIPTION.encodings)?;
        let body: Body<'_> = read(&json)?;
        let event = body.event_type.text().unwrap_or_default();
        let push = event == "git.push";
        if !push && event != "git.pullrequest.created" {
            return Ok(Meaning::nothing("the event says nothing about access"));
        }
        if !body.resource.is_there() {
            return Ok(Meaning::nothing(DETAILS));
        }
        let resource: Resource<'_> = body.resource.get("resource")?;
        let (actor, path) =
            if push { (resource.pushed_by, "resource.pushedBy") } else { (resource.created_by, "resource.createdBy") };
        if !actor.is_there() || !resource.repository.is_there() {
            return Ok(Meaning::nothing(DETAILS));
        }
        let actor: Identity<'_> = actor.get(path)?;
        let repository: Repository<'_> = resource.repository.get("resource.repository")?;
        let login = actor.unique_name.label();
        // It may also be `DOMAIN\user`.
        let email = login.clone().filter(|name| name.contains('@') && !name.contains('\\'));
        let key = AccountKey {
            provider: "azure-devops".to_owned(),
            host: self.host.clone(),
            id: actor.id.id(&format!("{path}.id"))?,
        };
        let account = Account { key, node_id: None, login, email, kind: AccountKind::Person };
        let containers: Containers<'_> = body.resource_containers.find().unwrap_or_default();
        let id_of = |container: Loose<'_>| container.find::<Container<'_>>().and_then(|container| container.id.label());
        let (id, name) = (repository.id.id("resource.repository.id")?, repository.name.label());
        let scope = match id_of(containers.account).or_else(|| id_of(containers.collection)) {
            Some(organisation) => Scope::top(ScopeKind::Org, organisation, None).part(ScopeKind::Repo, id, name),
            None => Scope::top(ScopeKind::Repo, id, name),
        };
        Ok(Change::Access { account, scope, kind: AccessKind::Seen }.into())
    }
}

fn invent(_host: &str, invention: &Invention) -> Result<Draft, SettingsError> {
    if invention.event != "git.push" {
        return Err(cannot_invent(invention, DESCRIPTION.invents));
    }
    let mut draft = draft(invention, "git.push", &json!({}));
    let body = json!({
        "id": draft.id, "eventType": "git.push", "publisherId": "tfs", "resourceVersion": "1.0",
        "resource": {
            "pushedBy": { "id": invention.account_id, "displayName": invention.login, "uniqueName": format!("{}@example.com", invention.login) },
            "repository": { "id": invention.part_id.as_deref().unwrap_or("1"), "name": invention.part.as_deref().unwrap_or("website") },
        },
        "resourceContainers": { "account": { "id": invention.root_id } },
        "createdDate": "2026-01-01T00:00:00Z",
    });
    draft.json = body.to_string().into_bytes();
    Ok(draft)
}

#[cfg(test)]
mod tests;
