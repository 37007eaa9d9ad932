//! Invented events in GitHub's own shape, for `send` and the demo.
//!
//! With more keys than rollcall reads, as GitHub has them, but without the dozens of links that every object carries.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::delivery::Encoding;
use crate::provider::{Draft, Invention, SettingsError};

/// The events that can be invented.
pub(super) const INVENTABLE: &[&str] = &[
    "organization.member_added",
    "organization.member_removed",
    "organization.renamed",
    "organization.deleted",
    "member.added",
    "member.removed",
    "membership.added",
    "membership.removed",
    "team.deleted",
    "repository.deleted",
    "repository.transferred",
    "installation_target.renamed",
    "push",
    "ping",
];

pub(super) fn invent(host: &str, invention: &Invention) -> Result<Draft, SettingsError> {
    if !INVENTABLE.contains(&invention.event.as_str()) {
        let message = format!("can't be invented for GitHub; these can: {}", INVENTABLE.join(", "));
        return Err(SettingsError { key: invention.event.clone(), message });
    }
    let parts = Parts::of(host, invention)?;
    let (event, action) = match invention.event.split_once('.') {
        Some((event, action)) => (event, Some(action)),
        None => (invention.event.as_str(), None),
    };
    let mut body = Map::new();
    if let Some(action) = action {
        body.insert("action".to_owned(), action.into());
    }
    if let Value::Object(own) = parts.own_keys(event, action) {
        body.extend(own);
    }
    body.insert("organization".to_owned(), parts.organization());
    body.insert("sender".to_owned(), parts.user());
    Ok(Draft {
        id: invention.id.clone().unwrap_or_else(|| Uuid::new_v4().to_string()),
        event: event.to_owned(),
        encoding: Encoding::Json,
        json: Value::Object(body).to_string().into_bytes(),
    })
}

/// The invention with its ids as the numbers that they are at GitHub.
struct Parts<'a> {
    host: &'a str,
    login: &'a str,
    account_id: u64,
    root: &'a str,
    root_id: u64,
    part: &'a str,
    part_id: u64,
}

impl<'a> Parts<'a> {
    fn of(host: &'a str, invention: &'a Invention) -> Result<Self, SettingsError> {
        let number = |key: &str, text: &str| match text.parse() {
            Ok(0) | Err(_) => {
                let message = "must be a whole number above zero, as all of GitHub's ids are".to_owned();
                Err(SettingsError { key: key.to_owned(), message })
            }
            Ok(number) => Ok(number),
        };
        Ok(Self {
            host,
            login: &invention.login,
            account_id: number("id", &invention.account_id)?,
            root: &invention.root,
            root_id: number("root id", &invention.root_id)?,
            part: invention.part.as_deref().unwrap_or("website"),
            part_id: invention.part_id.as_deref().map_or(Ok(1), |id| number("part id", id))?,
        })
    }

    /// What the event has besides action, organisation and sender.
    fn own_keys(&self, event: &str, action: Option<&str>) -> Value {
        match (event, action) {
            ("organization", Some("renamed")) => json!({ "changes": { "login": { "from": "former-name" } } }),
            ("organization", Some("deleted")) => json!({}),
            ("organization", action) => {
                let added = action == Some("member_added");
                let (state, role) = if added { ("active", "member") } else { ("inactive", "unaffiliated") };
                json!({ "membership": { "state": state, "role": role, "user": self.user() } })
            }
            ("member", Some("added")) => json!({
                "member": self.user(),
                "changes": { "permission": { "to": "write" }, "role_name": { "to": "write" } },
                "repository": self.repository(),
            }),
            ("member", _) => json!({ "member": self.user(), "repository": self.repository() }),
            ("membership", _) => json!({ "scope": "team", "member": self.user(), "team": self.team() }),
            ("team", _) => json!({ "team": self.team() }),
            ("repository", Some("transferred")) => json!({
                "changes": { "owner": { "from": { "user": self.user() } } },
                "repository": self.repository(),
            }),
            ("repository", _) => json!({ "repository": self.repository() }),
            ("installation_target", _) => json!({
                "account": self.user(),
                "target_type": "User",
                "changes": { "login": { "from": "former-login" } },
                "installation": { "id": 1, "node_id": "I_1" },
            }),
            ("push", _) => json!({
                "ref": "refs/heads/main",
                "before": "6113728f27ae82c7b1a177c8d03f9e96e0adf246",
                "after": "8d1c8b69c3fce7bea45c73efd06983e3c419a92f",
                "base_ref": null,
                "compare": format!("https://{}/{}/{}/compare/6113728f27ae...8d1c8b69c3fc", self.host, self.root, self.part),
                "created": false, "deleted": false, "forced": false,
                "head_commit": null, "commits": [],
                "pusher": { "name": self.login, "email": format!("{}@users.noreply.github.com", self.login) },
                "repository": self.repository(),
            }),
            _ => json!({ "zen": "Who is here is written down.", "hook_id": 1, "hook": {
                "type": "Organization", "id": 1, "name": "web", "active": true, "events": ["*"],
                "config": { "content_type": "json", "insecure_ssl": "0", "secret": "********" },
            } }),
        }
    }

    fn user(&self) -> Value {
        // GitHub gives bots, and nobody else, such logins.
        let kind = if self.login.ends_with("[bot]") { "Bot" } else { "User" };
        json!({
            "login": self.login, "id": self.account_id, "node_id": format!("U_{}", self.account_id),
            "html_url": format!("https://{}/{}", self.host, self.login), "type": kind, "site_admin": false,
        })
    }

    fn organization(&self) -> Value {
        json!({
            "login": self.root, "id": self.root_id, "node_id": format!("O_{}", self.root_id), "description": null,
        })
    }

    fn repository(&self) -> Value {
        json!({
            "id": self.part_id, "node_id": format!("R_{}", self.part_id), "name": self.part,
            "full_name": format!("{}/{}", self.root, self.part), "private": true,
            "owner": { "login": self.root, "id": self.root_id, "type": "Organization", "site_admin": false },
        })
    }

    fn team(&self) -> Value {
        json!({
            "name": self.part, "id": self.part_id, "node_id": format!("T_{}", self.part_id), "slug": self.part,
            "description": null, "privacy": "closed", "permission": "pull", "parent": null,
        })
    }
}
