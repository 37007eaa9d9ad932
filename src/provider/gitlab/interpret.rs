//! What GitLab's events mean. The event's name is in the body, so it is as good as the rest of it.

use std::borrow::Cow;

use chrono::{DateTime, NaiveDate, NaiveDateTime};
use serde::Deserialize;

use super::{DESCRIPTION, NAME};
use crate::access::{
    AccessKind, Account, AccountKey, AccountKind, Change, RootPattern, Scope, ScopeId, ScopeKind, Step, Turn, When,
};
use crate::delivery::{Delivery, Timestamp};
use crate::provider::fields::{Loose, json_text, read};
use crate::provider::{Interpreter, Meaning, Misshapen, SourceSettings};

/// Interprets the deliveries of one source.
#[derive(Debug)]
pub(super) struct GitLabInterpreter {
    host: String,
    root: Option<RootPattern>,
    sightings: bool,
}

/// What is needed of any event. The events are flat, and share the names of their fields.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default)]
    event_name: Loose<'a>,
    #[serde(borrow, default)]
    object_kind: Loose<'a>,
    #[serde(borrow, default)]
    created_at: Loose<'a>,
    #[serde(borrow, default)]
    updated_at: Loose<'a>,
    #[serde(borrow, default)]
    expires_at: Loose<'a>,
    #[serde(borrow, default)]
    user_id: Loose<'a>,
    /// Of a member. An account's own events say `username` and `email`.
    #[serde(borrow, default)]
    user_username: Loose<'a>,
    #[serde(borrow, default)]
    user_email: Loose<'a>,
    #[serde(borrow, default)]
    username: Loose<'a>,
    #[serde(borrow, default)]
    email: Loose<'a>,
    #[serde(borrow, default)]
    group_id: Loose<'a>,
    #[serde(borrow, default)]
    group_path: Loose<'a>,
    #[serde(borrow, default)]
    group_access: Loose<'a>,
    #[serde(borrow, default)]
    project_id: Loose<'a>,
    #[serde(borrow, default)]
    project_path_with_namespace: Loose<'a>,
    #[serde(borrow, default)]
    access_level: Loose<'a>,
    /// Of a group or project that the event is about.
    #[serde(borrow, default)]
    path: Loose<'a>,
    #[serde(borrow, default)]
    full_path: Loose<'a>,
    #[serde(borrow, default)]
    path_with_namespace: Loose<'a>,
    #[serde(borrow, default)]
    project: Loose<'a>,
}

impl Body<'_> {
    /// The event's name. System hooks and group hooks have `event_name`; a few events only `object_kind`.
    fn event(&self) -> Cow<'_, str> {
        self.event_name.text().or_else(|| self.object_kind.text()).unwrap_or_default()
    }

    fn user_id(&self) -> Result<String, Misshapen> {
        self.user_id.number("user_id")
    }

    /// When a membership's event happened, and its turn. A removal bears the times of its row's making and last change,
    /// and none of its own.
    fn when(&self, step: Step) -> When {
        let made = time(self.created_at);
        let changed = time(self.updated_at).or(made);
        let at = if step == Step::Ended { None } else { changed };
        When { at, turn: made.map(|began| Turn::Of { began, step }) }
    }

    /// Whether the membership had expired already when the event was made, by the event's own clock.
    fn had_expired(&self) -> bool {
        let told = time(self.updated_at).or_else(|| time(self.created_at));
        time(self.expires_at).zip(told).is_some_and(|(expires, told)| expires <= told)
    }

    /// The level of access and how long it lasts, for people.
    fn level(&self) -> Option<String> {
        let level = self.group_access.label().or_else(|| self.access_level.label())?;
        Some(match self.expires_at.label() {
            Some(expires) => format!("as {level}, until {expires}"),
            None => format!("as {level}"),
        })
    }
}

/// RFC 3339; or as old versions write it, `2012-07-21 07:30:54 UTC`; or a day.
fn time(text: Loose<'_>) -> Option<Timestamp> {
    let text = text.text()?;
    let micros = DateTime::parse_from_rfc3339(&text).map(|time| time.timestamp_micros());
    let old =
        |_| NaiveDateTime::parse_from_str(&text, "%Y-%m-%d %H:%M:%S UTC").map(|time| time.and_utc().timestamp_micros());
    let day = |_| {
        let midnight = |day: NaiveDate| day.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros();
        NaiveDate::parse_from_str(&text, "%Y-%m-%d").map(midnight)
    };
    micros.or_else(old).or_else(day).ok().map(Timestamp)
}

impl GitLabInterpreter {
    pub(super) fn new(settings: &SourceSettings) -> Self {
        let root = settings.roots.first().cloned();
        Self { host: settings.host.clone(), root, sightings: settings.sightings }
    }

    fn account(&self, id: String, login: Loose<'_>, email: Loose<'_>) -> Account {
        let login = login.label();
        let kind = if login.as_deref().is_some_and(is_bot) { AccountKind::Bot } else { AccountKind::Person };
        let key = AccountKey { provider: NAME.to_owned(), host: self.host.clone(), id };
        // Private addresses come as [REDACTED].
        Account { key, node_id: None, login, email: email.label().filter(|email| email.contains('@')), kind }
    }

    fn instance(&self) -> Scope {
        Scope::top(ScopeKind::Instance, self.host.clone(), Some(self.host.clone()))
    }

    /// What holds every other scope of this source: the group whose hook it is, else the instance.
    fn top(&self) -> Scope {
        match &self.root {
            Some(root) if root.kind == ScopeKind::Group => Scope::top(ScopeKind::Group, root.name.clone(), None),
            _ => self.instance(),
        }
    }

    fn group(&self, id: String, path: Option<String>) -> Scope {
        let top = self.top();
        if top.id == (ScopeId { kind: ScopeKind::Group, id: id.clone() }) {
            return Scope::top(ScopeKind::Group, id, path);
        }
        top.part(ScopeKind::Group, id, path)
    }

    fn project(&self, id: String, path: Option<String>) -> Scope {
        self.top().part(ScopeKind::Repo, id, path)
    }

    /// `user_*_group` and `user_*_team`: a team is a project.
    fn member(&self, body: &Body<'_>, of_group: bool, step: Step) -> Result<Meaning, Misshapen> {
        let account = self.account(body.user_id()?, body.user_username, body.user_email);
        let scope = if of_group {
            self.group(body.group_id.number("group_id")?, body.group_path.label())
        } else {
            self.project(body.project_id.number("project_id")?, body.project_path_with_namespace.label())
        };
        let (kind, note) = if step == Step::Ended {
            (AccessKind::Lost, None)
        } else if body.had_expired() {
            (AccessKind::Lost, Some("the membership had expired already".to_owned()))
        } else {
            (AccessKind::Gained, body.level())
        };
        Ok(Meaning { changes: vec![Change::Access { account, scope, kind }], note, when: body.when(step) })
    }

    /// An account of the instance was made or deleted. Ids aren't used again, so nothing comes after a deletion. Where the
    /// root is a group, the deletion ends that, and being made is no membership in it.
    fn user(&self, body: &Body<'_>, kind: AccessKind) -> Result<Meaning, Misshapen> {
        let account = self.account(body.user_id()?, body.username, body.email);
        let scope = self.top();
        if kind == AccessKind::Gained && scope.id.kind != ScopeKind::Instance {
            return Ok(Meaning::nothing("an account of the instance isn't a member of the source's group yet"));
        }
        let when = match kind {
            AccessKind::Lost => When { at: None, turn: Some(Turn::Final) },
            _ => When { at: time(body.created_at), turn: None },
        };
        Ok(Meaning { changes: vec![Change::Access { account, scope, kind }], note: None, when })
    }

    fn renamed(&self, body: &Body<'_>) -> Result<Meaning, Misshapen> {
        Ok(Change::Renamed { account: self.account(body.user_id()?, body.username, body.email) }.into())
    }

    fn whole_group(&self, body: &Body<'_>) -> Result<Scope, Misshapen> {
        let path = body.full_path.label().or_else(|| body.path.label()).or_else(|| body.group_path.label());
        Ok(self.group(body.group_id.number("group_id")?, path))
    }

    fn whole_project(&self, body: &Body<'_>) -> Result<Scope, Misshapen> {
        Ok(self.project(body.project_id.number("project_id")?, body.path_with_namespace.label()))
    }

    fn push(&self, body: &Body<'_>) -> Result<Meaning, Misshapen> {
        #[derive(Default, Deserialize)]
        struct Project<'a> {
            #[serde(borrow, default)]
            path_with_namespace: Loose<'a>,
        }
        // With a deploy key nobody was there.
        if !body.user_id.is_there() {
            return Ok(Meaning::nothing("it doesn't say which account did it"));
        }
        // The address that a push gives may be empty, private or of somebody's choosing.
        let account = self.account(body.user_id()?, body.user_username, Loose::default());
        let project: Project<'_> = body.project.find().unwrap_or_default();
        let scope = self.project(body.project_id.number("project_id")?, project.path_with_namespace.label());
        Ok(Change::Access { account, scope, kind: AccessKind::Seen }.into())
    }
}

/// Tokens of projects and groups, and service accounts, are users of such names; nothing else in an event tells them from
/// people. <https://docs.gitlab.com/user/project/settings/project_access_tokens/#bot-users-for-projects>,
/// <https://docs.gitlab.com/api/service_accounts/>
pub(super) fn is_bot(login: &str) -> bool {
    let numbered = |text: &str| {
        let tail = text.trim_start_matches(|c: char| c.is_ascii_digit());
        (tail.len() < text.len()).then(|| tail.to_owned())
    };
    let of_something = |text: &str| numbered(text.strip_prefix("project_").or_else(|| text.strip_prefix("group_"))?);
    if let Some(service) = login.strip_prefix("service_account_") {
        let hash =
            of_something(service).map_or_else(|| service.to_owned(), |tail| tail.trim_start_matches('_').to_owned());
        return hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    of_something(login).is_some_and(|tail| {
        tail.strip_prefix("_bot").is_some_and(|tail| tail.starts_with('_') || tail.bytes().all(|b| b.is_ascii_digit()))
    })
}

impl Interpreter for GitLabInterpreter {
    fn interpret(&self, delivery: &Delivery) -> Result<Meaning, Misshapen> {
        let json = json_text(delivery, DESCRIPTION.encodings)?;
        let body: Body<'_> = read(&json)?;
        match &*body.event() {
            "user_add_to_group" => self.member(&body, true, Step::Made),
            "user_update_for_group" => self.member(&body, true, Step::Changed),
            "user_remove_from_group" => self.member(&body, true, Step::Ended),
            "user_add_to_team" => self.member(&body, false, Step::Made),
            "user_update_for_team" => self.member(&body, false, Step::Changed),
            "user_remove_from_team" => self.member(&body, false, Step::Ended),
            "user_create" => self.user(&body, AccessKind::Gained),
            "user_destroy" => self.user(&body, AccessKind::Lost),
            "user_rename" => self.renamed(&body),
            "group_destroy" | "subgroup_destroy" => Ok(Change::ScopeLost { scope: self.whole_group(&body)? }.into()),
            "project_destroy" => Ok(Change::ScopeLost { scope: self.whole_project(&body)? }.into()),
            "group_rename" => Ok(Change::ScopeRenamed { scope: self.whole_group(&body)? }.into()),
            "project_rename" | "project_transfer" => {
                Ok(Change::ScopeRenamed { scope: self.whole_project(&body)? }.into())
            }
            "push" | "tag_push" | "repository_update" if self.sightings => self.push(&body),
            "push" | "tag_push" | "repository_update" => {
                Ok(Meaning::nothing("activity counts only with `sightings = true`"))
            }
            "user_failed_login" => {
                Ok(Meaning::nothing("a blocked user tried to sign in; GitLab doesn't tell of blocking"))
            }
            "expiring_access_token" | "access_token" => {
                Ok(Meaning::nothing("it is about a token; the account's own access stays as it is"))
            }
            "gitlab_subscription_member_approval" | "gitlab_subscription_member_approvals" => {
                Ok(Meaning::nothing("an approval gives no access; the membership that follows is told by itself"))
            }
            event if event.starts_with("user_access_request") => {
                Ok(Meaning::nothing("a request gives no access before it is granted"))
            }
            _ => Ok(Meaning::nothing("the event says nothing about access")),
        }
    }
}
