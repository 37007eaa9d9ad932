//! GitLab: gitlab.com, Self-Managed and Dedicated; group hooks and system hooks.
//!
//! From 19.0 on a hook can have a signing token: Standard Webhooks, which sign id, time and body. Before that there is the
//! secret token in `X-Gitlab-Token`, which proves nothing of the body. Which of the two a source has says `verify`; there
//! is no fallback from one to the other, since whoever knows the token could then leave the signature out.
//! <https://docs.gitlab.com/user/project/integrations/webhooks/>
//!
//! Group hooks tell of members of the group and all groups below; system hooks of everything on an instance. What each
//! event means is in [`events`], the code to it in [`interpret`].

mod events;
mod interpret;
mod recover;
mod roster;

use http::{HeaderMap, HeaderName};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::fields::Loose;
use super::scheme::{
    HeadersOf, Scheme, SchemeSigner, SchemeVerifier, WEBHOOK_ID, blame, cannot_invent, draft, head, label,
};
use super::{Description, Draft, Invention, Refusal, SettingsError, SourceSettings};
use crate::access::ScopeKind;
use crate::delivery::{DeliveryId, Encodings, EventName, Named, Verified};
use crate::provider::api::{ApiDescription, TokenPlace};

const NAME: &str = "gitlab";
const HEADER_TOKEN: &str = "x-gitlab-token";
const HEADER_EVENT: &str = "X-Gitlab-Event";
const HEADER_KEY: &str = "Idempotency-Key";
const HEADER_UUID: &str = "X-Gitlab-Event-UUID";

/// GitLab.
pub(super) static DESCRIPTION: Description = Description {
    name: NAME,
    title: "GitLab",
    verification: "verify = \"signature\": Standard Webhooks (19.0 and newer); verify = \"token\": X-Gitlab-Token",
    encodings: Encodings::JsonOnly,
    default_host: Some("gitlab.com"),
    client_type: |host| Some(if host.eq_ignore_ascii_case("gitlab.com") { "GITLAB" } else { "GITLAB_ON_PREM" }),
    // <https://docs.gitlab.com/api/rest/authentication/>
    api: Some(ApiDescription {
        base: |host| format!("https://{host}/api/v4"),
        token: TokenPlace::Header("private-token"),
        headers: &[("accept", "application/json")],
    }),
    roster: Some(|settings| Box::new(roster::GitLabRoster { host: settings.host.clone() })),
    events: events::EVENTS,
    hooks: &[
        "group hook: Member events, Project events, Subgroup events",
        "or system hook (Admin area): all of it is sent; Push events only for sightings",
    ],
    invents: INVENTABLE,
    verifier: |settings, secrets| {
        Ok(Box::new(SchemeVerifier::new(scheme(settings)?, &secrets, name, &[HEADER_EVENT])?))
    },
    interpreter: |settings| {
        scheme(settings)?;
        Ok(Box::new(interpret::GitLabInterpreter::new(settings)))
    },
    signer: |settings, secret| {
        const HEADERS: HeadersOf = headers;
        Ok(Box::new(SchemeSigner::new(scheme(settings)?, secret, &settings.host, HEADERS, invent)?))
    },
    recover: Some(|settings| Ok(Box::new(recover::GitLabRecover::new(settings)?))),
};

/// The scheme that the source's table chooses; also everything else of it that only GitLab can judge.
fn scheme(settings: &SourceSettings) -> Result<Scheme, SettingsError> {
    settings.only_own_keys(&["hook"])?;
    recover::GitLabRecover::new(settings)?;
    if settings.header.is_some() {
        return Err(blame("header", "GitLab's headers are always the same; leave the key out"));
    }
    match settings.roots.as_slice() {
        [] => {}
        [root] if root.kind == ScopeKind::Instance || (root.kind == ScopeKind::Group && root.by_id) => {}
        _ => {
            return Err(blame(
                "scopes",
                "GitLab doesn't say which group a group is in, so a source has one root: \"group:#42\" (by id) for the hook \
                 of that group, \"instance\" for a system hook",
            ));
        }
    }
    match settings.verify.as_deref() {
        Some("signature") => Ok(Scheme::Standard),
        Some("token") => Ok(Scheme::Plain { header: HeaderName::from_static(HEADER_TOKEN) }),
        _ => Err(blame(
            "verify",
            "must be chosen: \"signature\" for a hook with a signing token (whsec_…, GitLab 19.0 and newer), \"token\" for \
             one with a secret token, which proves nothing of the body",
        )),
    }
}

#[derive(Default, serde::Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    event_name: Loose<'a>,
    #[serde(borrow, default)]
    object_kind: Loose<'a>,
}

fn name(headers: &HeaderMap, verified: &Verified) -> Result<Named, Refusal> {
    let json = verified.json();
    let head: Head<'_> = head(&json)?;
    let event = match head.event_name.text().or_else(|| head.object_kind.text()) {
        Some(event) => event.into_owned(),
        None => label(headers, HEADER_EVENT)?.to_ascii_lowercase().replace(' ', "_"),
    };
    let event: EventName = event.parse()?;
    Ok(Named { id: id(headers, verified)?, event, ping: false })
}

/// The same for all copies: `webhook-id` and `Idempotency-Key` are (17.4 and newer). Before that only the event has an id,
/// which the hooks that one event sets off in turn share, so that the body has to tell them apart.
fn id(headers: &HeaderMap, verified: &Verified) -> Result<DeliveryId, Refusal> {
    for header in [WEBHOOK_ID, HEADER_KEY] {
        if headers.contains_key(header) {
            return Ok(label(headers, header)?.parse()?);
        }
    }
    let digest = Sha256::digest(verified.body());
    let digest: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let id = if headers.contains_key(HEADER_UUID) {
        format!("{}:{digest}", label(headers, HEADER_UUID)?)
    } else {
        format!("sha256:{digest}")
    };
    Ok(id.parse()?)
}

fn headers(draft: &Draft) -> Vec<(&'static str, String)> {
    let hook = match draft.event.as_str() {
        "push" => "Push Hook",
        event if event.ends_with("_group") => "Member Hook",
        _ => "System Hook",
    };
    vec![
        ("user-agent", "GitLab/19.0.0".to_owned()),
        ("x-gitlab-event", hook.to_owned()),
        ("idempotency-key", draft.id.clone()),
    ]
}

const INVENTABLE: &[&str] = &[
    "user_add_to_group",
    "user_update_for_group",
    "user_remove_from_group",
    "user_add_to_team",
    "user_update_for_team",
    "user_remove_from_team",
    "user_create",
    "user_destroy",
    "user_rename",
];

fn invent(_host: &str, invention: &Invention) -> Result<Draft, SettingsError> {
    let number = |what: &str, text: &str| {
        text.parse::<u64>().map_err(|_| blame(what, format!("{text:?} isn't a whole number, as GitLab's ids are")))
    };
    let id = invention.id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    // Each invention is of a row made then, so that one sent after another is also the later of the two.
    let made = id.parse::<DeliveryId>().ok().and_then(|id| id.time());
    let now = made.map_or_else(|| "2026-01-01T00:00:00Z".to_owned(), |made| made.to_string());
    let user = number("id", &invention.account_id)?;
    let email = format!("{}@example.com", invention.login);
    let event = invention.event.as_str();
    let body = match event {
        "user_add_to_group" | "user_update_for_group" | "user_remove_from_group" => json!({
            "created_at": now, "updated_at": now, "event_name": event, "group_id": number("root id", &invention.root_id)?,
            "group_name": invention.root, "group_path": invention.root, "group_access": "Developer", "group_plan": null,
            "expires_at": null, "user_id": user, "user_username": invention.login, "user_name": invention.login,
            "user_email": email,
        }),
        "user_add_to_team" | "user_update_for_team" | "user_remove_from_team" => {
            let part = invention.part.as_deref().unwrap_or("website");
            json!({
                "created_at": now, "updated_at": now, "event_name": event, "access_level": "Developer",
                "project_id": number("part id", invention.part_id.as_deref().unwrap_or("1"))?, "project_name": part,
                "project_path": part, "project_path_with_namespace": format!("{}/{part}", invention.root),
                "project_visibility": "private", "user_id": user, "user_username": invention.login,
                "user_name": invention.login, "user_email": email,
            })
        }
        "user_create" | "user_destroy" => json!({
            "created_at": now, "updated_at": now, "event_name": event, "user_id": user, "username": invention.login,
            "name": invention.login, "email": email,
        }),
        "user_rename" => json!({
            "created_at": now, "updated_at": now, "event_name": event, "user_id": user, "username": invention.login,
            "old_username": "former-login", "name": invention.login, "email": email,
        }),
        _ => return Err(cannot_invent(invention, INVENTABLE)),
    };
    Ok(Draft { id, ..draft(invention, event, &body) })
}

#[cfg(test)]
mod tests;
