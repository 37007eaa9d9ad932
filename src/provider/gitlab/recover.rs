//! GitLab's events API: the attempts of a group's or a project's hook.
//! <https://docs.gitlab.com/api/group_webhooks/>, <https://docs.gitlab.com/api/project_webhooks/>
//!
//! It tells of the last 7 days (17.3 and newer) and sends again (17.4 and newer) five times a minute for one hook and user.
//! What is sent again keeps its `Idempotency-Key`, which is the delivery's id; the addresses in its body are blacked out,
//! since GitLab keeps them so. A hook that fails four times in a row is
//! [switched off](https://docs.gitlab.com/user/project/integrations/webhooks/#auto-disabled-webhooks) for a while at
//! gitlab.com: what happens then is neither sent nor listed. System hooks have no such API.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::access::{RootPattern, ScopeKind};
use crate::delivery::Timestamp;
use crate::provider::api::{Answer, Ask, UnreadableAnswer};
use crate::provider::recover::{Attempt, HookList, HookPath, HookRow, Hooks, Pace, Page, Recover};
use crate::provider::scheme::blame;
use crate::provider::{SettingsError, SourceSettings};

/// The largest page of hooks, and of events: more than that isn't taken there.
const HOOKS_PER_PAGE: u32 = 100;
const EVENTS_PER_PAGE: u32 = 20;
const PACE: Pace = Pace { requests: 5, per: Duration::from_mins(1) };
const WINDOW: Duration = Duration::from_hours(7 * 24);
const GIVES_UP_AFTER: i64 = 4;

const HOOK: &str = "must be the hook's number (with one root in scopes), or its path: \"groups/42/hooks/7\" or \
    \"projects/9/hooks/7\"";
const OVERSIZE: &str = "GitLab kept no body of it, since it was too large";
const NAMELESS: &str =
    "GitLab doesn't say which delivery it is (versions before 17.4 don't), so nobody can say whether it arrived";

/// The events of one source's hook.
#[derive(Debug)]
pub(super) struct GitLabRecover {
    hooks: Result<Hooks, SettingsError>,
}

impl GitLabRecover {
    pub(super) fn new(settings: &SourceSettings) -> Result<Self, SettingsError> {
        let hooks = match settings.own.get("hook") {
            Some(hook) => Ok(Hooks::Named(named(hook, &settings.roots)?)),
            None => listed(&settings.roots),
        };
        Ok(Self { hooks })
    }
}

/// The hook that the source's table names.
fn named(hook: &toml::Value, roots: &[RootPattern]) -> Result<HookPath, SettingsError> {
    match (hook, roots) {
        (toml::Value::Integer(number), [root]) if *number > 0 => Ok(HookPath(format!("{}/{number}", list_of(root)?.0))),
        (toml::Value::String(path), _) => {
            let parts: Vec<&str> = path.split('/').collect();
            match parts.as_slice() {
                ["groups" | "projects", of, "hooks", hook]
                    if of.parse::<u64>().is_ok() && hook.parse::<u64>().is_ok() =>
                {
                    Ok(HookPath::of(&parts))
                }
                _ => Err(blame("hook", HOOK)),
            }
        }
        _ => Err(blame("hook", HOOK)),
    }
}

fn listed(roots: &[RootPattern]) -> Result<Hooks, SettingsError> {
    match roots {
        [root] => Ok(Hooks::Listed(vec![HookList(list_of(root)?)])),
        _ => Err(blame(
            "scopes",
            "is left out, so nobody can say where the hook is; name the group, as in scopes = [\"group:#42\"], or the \
             hook, as in hook = \"groups/42/hooks/7\"",
        )),
    }
}

fn list_of(root: &RootPattern) -> Result<HookPath, SettingsError> {
    if root.kind == ScopeKind::Group {
        return Ok(HookPath::of(&["groups", &root.name, "hooks"]));
    }
    Err(blame(
        "scopes",
        "GitLab has no API for the deliveries of a system hook: only a roster finds what it failed to tell",
    ))
}

#[derive(Deserialize)]
struct Hook {
    id: u64,
    url: Option<String>,
}

#[derive(Deserialize)]
struct Event {
    id: u64,
    #[serde(default)]
    request_headers: BTreeMap<String, Value>,
    #[serde(default)]
    request_data: Value,
    /// The status as text, or words where there was no answer.
    #[serde(default)]
    response_status: Value,
    created_at: Option<Timestamp>,
}

impl Event {
    fn header(&self, name: &str) -> Option<&str> {
        self.request_headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?.1.as_str()
    }

    /// As the source's verifier reads it.
    fn name(&self) -> String {
        let told = |key: &str| self.request_data.get(key).and_then(Value::as_str);
        match told("event_name").or_else(|| told("object_kind")) {
            Some(name) => name.to_owned(),
            None => self.header(super::HEADER_EVENT).unwrap_or_default().to_ascii_lowercase().replace(' ', "_"),
        }
    }
}

impl From<Event> for Attempt {
    fn from(event: Event) -> Self {
        let status = match &event.response_status {
            Value::String(status) => status.clone(),
            status => status.to_string(),
        };
        let key = event.header(super::HEADER_KEY).map(str::to_owned);
        let oversize = event.request_data.get("oversize").is_some_and(|oversize| *oversize == Value::Bool(true));
        Self {
            id: event.id.to_string(),
            lost: match &key {
                None => Some(NAMELESS),
                Some(_) => oversize.then_some(OVERSIZE),
            },
            delivery: key.unwrap_or_else(|| format!("event {}", event.id)),
            event: event.name(),
            at: event.created_at,
            delivered: status.len() == 3 && status.starts_with('2'),
            again: true,
            status,
        }
    }
}

impl Recover for GitLabRecover {
    fn hooks(&self) -> Result<Hooks, SettingsError> {
        self.hooks.clone()
    }

    fn list_hooks(&self, list: &HookList) -> Ask {
        list.0.ask(&[], Ask::get).with("per_page", HOOKS_PER_PAGE)
    }

    fn read_hooks(&self, list: &HookList, answer: &Answer) -> Result<Page<HookRow>, UnreadableAnswer> {
        let hooks: Vec<Hook> = answer.json()?;
        let row = |hook: Hook| HookRow { path: HookPath(format!("{}/{}", list.0, hook.id)), url: hook.url };
        Ok(Page { rows: hooks.into_iter().map(row).collect(), next: answer.next_link() })
    }

    fn list_attempts(&self, hook: &HookPath) -> Ask {
        hook.ask(&["events"], Ask::get).with("per_page", EVENTS_PER_PAGE)
    }

    fn read_attempts(&self, answer: &Answer) -> Result<Page<Attempt>, UnreadableAnswer> {
        let events: Vec<Event> = answer.json()?;
        Ok(Page { rows: events.into_iter().map(Attempt::from).collect(), next: answer.next_link() })
    }

    fn deliver_again(&self, hook: &HookPath, attempt: &str) -> Ask {
        hook.ask(&["events", attempt, "resend"], Ask::post)
    }

    fn window(&self) -> Duration {
        WINDOW
    }

    fn pace(&self) -> Pace {
        PACE
    }

    fn gives_up_after(&self) -> Option<i64> {
        Some(GIVES_UP_AFTER)
    }

    fn permission(&self) -> &'static str {
        "a token with the scope api, of an owner of the group (a maintainer of the project)"
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    fn settings(hook: Option<toml::Value>, scopes: &[&str]) -> SourceSettings {
        SourceSettings {
            name: "acme".parse().unwrap(),
            host: "gitlab.com".to_owned(),
            roots: scopes.iter().map(|scope| scope.parse().unwrap()).collect(),
            sightings: false,
            verify: Some("token".to_owned()),
            header: None,
            own: hook.map(|hook| ("hook".to_owned(), hook)).into_iter().collect(),
        }
    }

    #[test]
    fn a_hook_is_named_or_found_in_its_groups_list() {
        let hooks = |hook: Option<toml::Value>, scopes: &[&str]| {
            GitLabRecover::new(&settings(hook, scopes)).and_then(|recover| recover.hooks())
        };
        let path = |path: &str| HookPath(path.to_owned());
        assert_eq!(hooks(Some(7.into()), &["group:#42"]), Ok(Hooks::Named(path("groups/42/hooks/7"))));
        assert_eq!(hooks(Some("projects/9/hooks/3".into()), &[]), Ok(Hooks::Named(path("projects/9/hooks/3"))));
        assert_eq!(hooks(None, &["group:#42"]), Ok(Hooks::Listed(vec![HookList(path("groups/42/hooks"))])));
        assert!(hooks(None, &["instance"]).unwrap_err().message.contains("system hook"));
        assert_eq!(hooks(None, &[]).unwrap_err().key, "scopes");
        for wrong in [toml::Value::from("groups/acme/hooks/7"), true.into(), (-1).into()] {
            assert_eq!(hooks(Some(wrong), &["group:#42"]).unwrap_err().key, "hook");
        }
    }

    #[test]
    fn events_are_read_whatever_their_version_leaves_out() {
        let body = br#"[
            {"id": 5, "url": "https://hooks.example/x", "trigger": "member_hooks", "response_status": "internal error",
             "request_headers": {"Idempotency-Key": "k-1", "X-Gitlab-Token": "[REDACTED]"},
             "request_data": {"event_name": "user_add_to_group", "user_email": "[REDACTED]"},
             "created_at": "2026-11-20T10:00:02.100Z"},
            {"id": 4, "trigger": "push_hooks", "response_status": "202",
             "request_headers": {"idempotency-key": "k-2"}, "request_data": {"object_kind": "push"}},
            {"id": 3, "trigger": "member_hooks", "response_status": "503",
             "request_headers": {"Idempotency-Key": "k-3", "X-Gitlab-Event": "Member Hook"},
             "request_data": {"oversize": true}},
            {"id": 2, "trigger": "member_hooks", "response_status": 500, "request_headers": {},
             "request_data": {"event_name": "user_add_to_group"}}
        ]"#;
        let recover = GitLabRecover::new(&settings(None, &["group:#42"])).unwrap();
        let answer = Answer { headers: HeaderMap::new(), body: Bytes::from_static(body) };
        let page = recover.read_attempts(&answer).unwrap();
        let seen: Vec<_> = page
            .rows
            .iter()
            .map(|row| {
                (row.delivery.as_str(), row.event.as_str(), row.delivered, row.status.as_str(), row.lost.is_some())
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("k-1", "user_add_to_group", false, "internal error", false),
                ("k-2", "push", true, "202", false),
                ("k-3", "member_hook", false, "503", true),
                ("event 2", "user_add_to_group", false, "500", true),
            ]
        );
        assert_eq!((page.rows[0].at.is_some(), page.rows[1].at, page.next), (true, None, None));
    }
}
