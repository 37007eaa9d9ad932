//! GitHub's deliveries API: of the hooks of organisations and repositories, and of an app's.
//! <https://docs.github.com/en/rest/orgs/webhooks>, <https://docs.github.com/en/rest/repos/webhooks>,
//! <https://docs.github.com/en/rest/apps/webhooks>
//!
//! GitHub never repeats a failed delivery by itself, and tells of those of the last
//! [3 days](https://docs.github.com/en/webhooks/testing-and-troubleshooting-webhooks/redelivering-webhooks), an Enterprise
//! Server of the last 7. All attempts of a delivery share a `guid`, which is its id. One that timed out has no status of
//! HTTP: what failed is whatever [isn't `OK`](https://docs.github.com/en/webhooks/using-webhooks/handling-failed-webhook-deliveries).
//! The hooks of an enterprise have no such API.

use std::time::Duration;

use serde::Deserialize;

use super::is_cloud;
use crate::access::{RootPattern, ScopeKind};
use crate::delivery::Timestamp;
use crate::provider::api::{Answer, Ask, UnreadableAnswer};
use crate::provider::recover::{Attempt, HookList, HookPath, HookRow, Hooks, Pace, Page, Recover};
use crate::provider::{SettingsError, SourceSettings};

/// The largest page.
const PER_PAGE: u32 = 100;
/// GitHub asks for [a second](https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api#pause-between-mutative-requests)
/// between requests that change something.
const PACE: Pace = Pace { requests: 1, per: Duration::from_secs(1) };
const DAY: Duration = Duration::from_hours(24);

/// What the key may look like.
const HOOK: &str = "must be the hook's number (with one root in scopes), or its path: \"orgs/acme/hooks/12345\", \
    \"repos/acme/website/hooks/12345\", or \"app\" for a GitHub App's";

/// The deliveries of one source's hooks.
#[derive(Debug)]
pub(super) struct GitHubRecover {
    hooks: Result<Hooks, SettingsError>,
    window: Duration,
}

impl GitHubRecover {
    pub(super) fn new(settings: &SourceSettings) -> Result<Self, SettingsError> {
        let window = if is_cloud(&settings.host) { 3 * DAY } else { 7 * DAY };
        let hooks = match settings.own.get("hook") {
            Some(hook) => Ok(Hooks::Named(named(hook, &settings.roots)?)),
            None => listed(&settings.roots),
        };
        Ok(Self { hooks, window })
    }
}

fn blame(key: &str, message: &str) -> SettingsError {
    SettingsError { key: key.to_owned(), message: message.to_owned() }
}

/// The hook that the source's table names.
fn named(hook: &toml::Value, roots: &[RootPattern]) -> Result<HookPath, SettingsError> {
    let wrong = || blame("hook", HOOK);
    match hook {
        toml::Value::Integer(number) if *number > 0 => match roots {
            [root] => Ok(HookPath(format!("{}/{number}", list_of(root)?.0))),
            _ => Err(wrong()),
        },
        toml::Value::String(path) if path == "app" => Ok(HookPath("app/hook".to_owned())),
        toml::Value::String(path) => {
            let parts: Vec<&str> = path.split('/').collect();
            let number = |text: &str| text.parse::<u64>().is_ok();
            let name = |text: &str| !matches!(text, "" | "." | "..");
            match parts.as_slice() {
                ["orgs", org, "hooks", hook] if name(org) && number(hook) => Ok(HookPath::of(&parts)),
                ["repos", owner, repository, "hooks", hook] if name(owner) && name(repository) && number(hook) => {
                    Ok(HookPath::of(&parts))
                }
                _ => Err(wrong()),
            }
        }
        _ => Err(wrong()),
    }
}

/// The lists that the hooks of these roots are in.
fn listed(roots: &[RootPattern]) -> Result<Hooks, SettingsError> {
    if roots.is_empty() {
        return Err(blame(
            "scopes",
            "is left out, so nobody can say where the hook is; name the organisation, as in scopes = [\"org:acme\"], or \
             the hook, as in hook = \"orgs/acme/hooks/12345\"",
        ));
    }
    let lists = roots.iter().map(|root| list_of(root).map(HookList)).collect::<Result<_, _>>()?;
    Ok(Hooks::Listed(lists))
}

fn list_of(root: &RootPattern) -> Result<HookPath, SettingsError> {
    match (root.kind, root.by_id, root.name.split_once('/')) {
        (ScopeKind::Org, false, None) => Ok(HookPath::of(&["orgs", &root.name, "hooks"])),
        (ScopeKind::Repo, false, Some((owner, name))) if !name.contains('/') => {
            Ok(HookPath::of(&["repos", owner, name, "hooks"]))
        }
        (ScopeKind::Instance, ..) => Err(blame(
            "scopes",
            "GitHub has no API for the deliveries of an enterprise's hooks: only a roster finds what they failed to tell",
        )),
        _ => Err(blame(
            "scopes",
            "GitHub's API finds an organisation's hooks by its login; name the hook, as in hook = \"orgs/acme/hooks/12345\"",
        )),
    }
}

#[derive(Deserialize)]
struct Hook {
    id: u64,
    #[serde(default)]
    config: HookConfig,
}

#[derive(Default, Deserialize)]
struct HookConfig {
    url: Option<String>,
}

/// `hook-delivery-item` of GitHub's OpenAPI description.
#[derive(Deserialize)]
struct Delivery {
    id: u64,
    guid: String,
    delivered_at: Timestamp,
    #[serde(default)]
    redelivery: bool,
    status: String,
    #[serde(default)]
    status_code: u16,
    event: String,
    action: Option<String>,
}

impl From<Delivery> for Attempt {
    fn from(delivery: Delivery) -> Self {
        let Delivery { id, guid, delivered_at, redelivery, status, status_code, event, action } = delivery;
        let delivered = status == "OK";
        let code = status_code.to_string();
        Self {
            id: id.to_string(),
            delivery: guid,
            event: action.map_or_else(|| event.clone(), |action| format!("{event}.{action}")),
            at: Some(delivered_at),
            delivered,
            again: redelivery,
            status: if status_code == 0 || status.contains(&code) { status } else { format!("{code} {status}") },
            lost: None,
        }
    }
}

impl Recover for GitHubRecover {
    fn hooks(&self) -> Result<Hooks, SettingsError> {
        self.hooks.clone()
    }

    fn list_hooks(&self, list: &HookList) -> Ask {
        list.0.ask(&[], Ask::get).with("per_page", PER_PAGE)
    }

    fn read_hooks(&self, list: &HookList, answer: &Answer) -> Result<Page<HookRow>, UnreadableAnswer> {
        let hooks: Vec<Hook> = answer.json()?;
        let row = |hook: Hook| HookRow { path: HookPath(format!("{}/{}", list.0, hook.id)), url: hook.config.url };
        Ok(Page { rows: hooks.into_iter().map(row).collect(), next: answer.next_link() })
    }

    fn list_attempts(&self, hook: &HookPath) -> Ask {
        hook.ask(&["deliveries"], Ask::get).with("per_page", PER_PAGE)
    }

    fn read_attempts(&self, answer: &Answer) -> Result<Page<Attempt>, UnreadableAnswer> {
        let deliveries: Vec<Delivery> = answer.json()?;
        Ok(Page { rows: deliveries.into_iter().map(Attempt::from).collect(), next: answer.next_link() })
    }

    fn deliver_again(&self, hook: &HookPath, attempt: &str) -> Ask {
        hook.ask(&["deliveries", attempt, "attempts"], Ask::post)
    }

    fn window(&self) -> Duration {
        self.window
    }

    fn pace(&self) -> Pace {
        PACE
    }

    fn permission(&self) -> &'static str {
        "an owner's classic token with admin:org_hook (admin:repo_hook for a repository's hook), or a fine-grained one \
         with Webhooks: read and write; for an App's hook a JWT of the App"
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;
    use rstest::rstest;

    use super::*;
    use crate::provider::recover::matters;

    fn settings(hook: Option<toml::Value>, scopes: &[&str]) -> SourceSettings {
        SourceSettings {
            name: "acme".parse().unwrap(),
            host: "github.com".to_owned(),
            roots: scopes.iter().map(|scope| scope.parse().unwrap()).collect(),
            sightings: false,
            verify: None,
            header: None,
            own: hook.map(|hook| ("hook".to_owned(), hook)).into_iter().collect(),
        }
    }

    #[rstest]
    #[case(12345.into(), &["org:acme"], "orgs/acme/hooks/12345")]
    #[case(7.into(), &["repo:acme/website"], "repos/acme/website/hooks/7")]
    #[case("orgs/acme/hooks/9".into(), &[], "orgs/acme/hooks/9")]
    #[case("repos/acme/website/hooks/9".into(), &["org:#42"], "repos/acme/website/hooks/9")]
    #[case("app".into(), &["org:acme", "org:other"], "app/hook")]
    fn a_hook_is_named_by_number_or_path(#[case] hook: toml::Value, #[case] scopes: &[&str], #[case] path: &str) {
        let hooks = GitHubRecover::new(&settings(Some(hook), scopes)).unwrap().hooks().unwrap();
        assert_eq!(hooks, Hooks::Named(HookPath(path.to_owned())));
    }

    #[rstest]
    #[case(12345.into(), &["org:acme", "org:other"])]
    #[case(12345.into(), &[])]
    #[case(0.into(), &["org:acme"])]
    #[case("12345".into(), &["org:acme"])]
    #[case("orgs/acme/hooks/x".into(), &["org:acme"])]
    #[case("orgs/../../admin/hooks/1".into(), &["org:acme"])]
    #[case("orgs/../hooks/1".into(), &["org:acme"])]
    #[case(true.into(), &["org:acme"])]
    fn what_names_no_hook_is_refused_with_the_way_out(#[case] hook: toml::Value, #[case] scopes: &[&str]) {
        let error = GitHubRecover::new(&settings(Some(hook), scopes)).unwrap_err();
        assert!(error.key == "hook" && error.message.contains("orgs/acme/hooks/12345"), "{error}");
    }

    #[test]
    fn without_a_name_the_hooks_are_in_the_lists_of_the_roots() {
        let hooks = GitHubRecover::new(&settings(None, &["org:acme", "repo:acme/website"])).unwrap().hooks().unwrap();
        let lists = ["orgs/acme/hooks", "repos/acme/website/hooks"].map(|path| HookList(HookPath(path.to_owned())));
        assert_eq!(hooks, Hooks::Listed(lists.to_vec()));
        for scopes in [&[][..], &["org:#42"], &["instance"]] {
            let error = GitHubRecover::new(&settings(None, scopes)).unwrap().hooks().unwrap_err();
            assert_eq!(error.key, "scopes", "{error}");
        }
    }

    #[test]
    fn a_page_is_read_and_says_where_the_next_one_is() {
        let recover = GitHubRecover::new(&settings(None, &["org:acme"])).unwrap();
        let link =
            "<https://api.github.com/organizations/42/hooks/9/deliveries?cursor=v1_8&per_page=100>; rel=\"next\"";
        let headers = HeaderMap::from_iter([(http::header::LINK, link.parse().unwrap())]);
        let body = br#"[
            {"id": 12, "guid": "g-1", "delivered_at": "2026-11-20T10:00:02Z", "redelivery": true, "duration": 0.3,
             "status": "OK", "status_code": 202, "event": "organization", "action": "member_added",
             "installation_id": null, "repository_id": null, "throttled_at": null},
            {"id": 11, "guid": "g-2", "delivered_at": "2026-11-20T10:00:01Z", "redelivery": false, "duration": 10.0,
             "status": "timed out", "status_code": 0, "event": "push", "action": null, "installation_id": null,
             "repository_id": 7},
            {"id": 10, "guid": "g-1", "delivered_at": "2026-11-20T10:00:00.5Z", "redelivery": false, "duration": 0.1,
             "status": "Invalid HTTP Response: 503", "status_code": 503, "event": "organization",
             "action": "member_added", "installation_id": null, "repository_id": null}
        ]"#;
        let page = recover.read_attempts(&Answer { headers, body: Bytes::from_static(body) }).unwrap();
        let seen: Vec<_> = page
            .rows
            .iter()
            .map(|row| (row.id.as_str(), row.delivery.as_str(), row.event.as_str(), row.delivered, row.status.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                ("12", "g-1", "organization.member_added", true, "202 OK"),
                ("11", "g-2", "push", false, "timed out"),
                ("10", "g-1", "organization.member_added", false, "Invalid HTTP Response: 503"),
            ]
        );
        assert_eq!(page.next.unwrap().query(), Some("cursor=v1_8&per_page=100"));
        assert_eq!(page.rows[2].at.unwrap().to_string(), "2026-11-20T10:00:00.500Z");
    }

    #[test]
    fn only_what_changes_access_matters() {
        let events = super::super::events::EVENTS;
        for (event, sightings, expected) in [
            ("organization.member_added", false, true),
            ("organization.member_invited", false, false),
            ("team.edited", false, true),
            ("team.created", false, false),
            ("push", false, false),
            ("push", true, true),
            ("issues.opened", true, false),
            ("ping", true, false),
        ] {
            assert_eq!(matters(events, sightings, event), expected, "{event}");
        }
    }
}
