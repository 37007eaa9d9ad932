//! Azure DevOps service hooks. Nothing covers the body: a delivery is authenticated by a secret that comes with it, as
//! HTTP Basic (`verify = "basic"`, a secret of the form `user:password`) or in a header of the operator's choice
//! (`verify = "header"`, `header = "X-Name"`). <https://learn.microsoft.com/en-us/azure/devops/service-hooks/services/webhooks>
//!
//! It tells nothing of joins and leaves; activity shows that an account has access.

use http::{HeaderMap, HeaderName};
use serde::Deserialize;
use serde_json::json;

use super::fields::{Label, read, text};
use super::scheme::{Loose, Scheme, SchemeSigner, SchemeVerifier, blame, cannot_invent, draft, head, json};
use super::{
    Description, Draft, EventRow, Interpreter, Invention, Meaning, Misshapen, Refusal, SettingsError, SourceSettings,
};
use crate::access::{AccessKind, Account, AccountKey, AccountKind, Change, Scope, ScopeKind};
use crate::delivery::{Delivery, Named, Verified};

/// Azure DevOps.
pub(super) static DESCRIPTION: Description = Description {
    name: "azure-devops",
    title: "Azure DevOps",
    verification: "verify = \"basic\": HTTP Basic; verify = \"header\": the secret in a header of your choice",
    default_host: Some("dev.azure.com"),
    client_type: |host| host.eq_ignore_ascii_case("dev.azure.com").then_some("AZURE_REPOS"),
    events: &[
        EventRow { event: "git.push", change: "seen repo", meaning: "whoever pushed has access" },
        EventRow {
            event: "git.pullrequest.created",
            change: "seen repo",
            meaning: "whoever opened a pull request has access",
        },
        EventRow { event: "git.pullrequest.*", change: "-", meaning: "names who opened it, and not who acted now" },
    ],
    hooks: &["Code pushed", "Pull request created"],
    verifier: |settings, secrets| Ok(Box::new(SchemeVerifier::new(scheme(settings)?, &secrets, name)?)),
    interpreter: |settings| {
        scheme(settings)?;
        Ok(Box::new(Azure { host: settings.host.clone() }))
    },
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

    let json = json(verified)?;
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

impl Interpreter for Azure {
    fn interpret(&self, delivery: &Delivery) -> Result<Meaning, Misshapen> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Body {
            resource: Option<Resource>,
            resource_containers: Option<Containers>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Resource {
            pushed_by: Option<Identity>,
            created_by: Option<Identity>,
            repository: Option<Repository>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Identity {
            id: Label,
            unique_name: Option<Label>,
        }
        #[derive(Deserialize)]
        struct Repository {
            id: Label,
            name: Option<Label>,
        }
        #[derive(Deserialize)]
        struct Containers {
            account: Option<Container>,
            collection: Option<Container>,
        }
        #[derive(Deserialize)]
        struct Container {
            id: Label,
        }
        let push = delivery.event.as_str() == "git.push";
        if !push && delivery.event.as_str() != "git.pullrequest.created" {
            return Ok(Meaning::nothing("the event says nothing about access"));
        }
        let Body { resource, resource_containers } = read(delivery)?;
        let details = "it has no details: set \"Resource details to send\" to All in the subscription";
        let Some(resource) = resource else { return Ok(Meaning::nothing(details)) };
        let actor = if push { resource.pushed_by } else { resource.created_by };
        let (Some(actor), Some(repository)) = (actor, resource.repository) else {
            return Ok(Meaning::nothing(details));
        };
        let (Some(id), Some(repository_id)) = (text(Some(actor.id)), text(Some(repository.id))) else {
            return Err(Misshapen { path: "resource".to_owned(), message: "has an empty id".to_owned() });
        };
        let login = text(actor.unique_name);
        // It may also be `DOMAIN\user`.
        let email = login.clone().filter(|name| name.contains('@') && !name.contains('\\'));
        let key = AccountKey { provider: "azure-devops".to_owned(), host: self.host.clone(), id };
        let account = Account { key, node_id: None, login, email, kind: AccountKind::Person };
        let organisation = resource_containers.and_then(|containers| containers.account.or(containers.collection));
        let name = text(repository.name);
        let scope = match organisation.and_then(|container| text(Some(container.id))) {
            Some(id) => Scope::top(ScopeKind::Org, id, None).part(ScopeKind::Repo, repository_id, name),
            None => Scope::top(ScopeKind::Repo, repository_id, name),
        };
        Ok(Change::Access { account, scope, kind: AccessKind::Seen }.into())
    }
}

fn invent(_host: &str, invention: &Invention) -> Result<Draft, SettingsError> {
    if invention.event != "git.push" {
        return Err(cannot_invent(invention, &["git.push"]));
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
