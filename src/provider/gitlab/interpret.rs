//! What GitLab's events mean. The event's name is in the body, so it is as good as the rest of it.

use chrono::{DateTime, NaiveDateTime};
use serde::Deserialize;

use super::NAME;
use crate::access::{AccessKind, Account, AccountKey, AccountKind, Change, RootPattern, Scope, ScopeId, ScopeKind};
use crate::delivery::{Delivery, Timestamp};
use crate::provider::fields::{Id, Label, read, text};
use crate::provider::{Interpreter, Meaning, Misshapen, SourceSettings};

/// Interprets the deliveries of one source.
#[derive(Debug)]
pub(super) struct GitLabInterpreter {
    host: String,
    root: Option<RootPattern>,
    sightings: bool,
}

/// `user_*_group` and `user_*_team`.
#[derive(Deserialize)]
struct Member {
    user_id: Id,
    user_username: Option<Label>,
    user_email: Option<Label>,
    #[serde(flatten)]
    group: Group,
    #[serde(flatten)]
    project: Project,
    #[serde(flatten)]
    times: Times,
}

/// `user_create`, `user_destroy`, `user_rename`.
#[derive(Deserialize)]
struct User {
    user_id: Id,
    username: Option<Label>,
    email: Option<Label>,
}

#[derive(Deserialize)]
struct Group {
    group_id: Option<Id>,
    group_path: Option<Label>,
    path: Option<Label>,
}

#[derive(Deserialize)]
struct Project {
    project_id: Option<Id>,
    project_path_with_namespace: Option<Label>,
    path_with_namespace: Option<Label>,
}

/// The times of a membership's row. That of a removal isn't among them.
#[derive(Deserialize)]
struct Times {
    created_at: Option<String>,
    updated_at: Option<String>,
}

impl Times {
    /// A place in the order of one membership's events: a row is made, changed, removed, and only then is there another
    /// row. A removal bears the time of the last change before it, so it counts as just after.
    fn place(&self, event: &str) -> Option<Timestamp> {
        let created = time(self.created_at.as_deref()?)?;
        let updated = self.updated_at.as_deref().and_then(time).map_or(created, |updated| updated.max(created));
        Some(if event.starts_with("user_add") {
            created
        } else if event.starts_with("user_update") {
            updated.plus_micros(1)
        } else {
            updated.plus_micros(2)
        })
    }
}

/// RFC 3339, or as old versions write it: `2012-07-21 07:30:54 UTC`.
fn time(text: &str) -> Option<Timestamp> {
    let micros = DateTime::parse_from_rfc3339(text).map(|time| time.timestamp_micros());
    let old =
        || NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S UTC").map(|time| time.and_utc().timestamp_micros());
    micros.or_else(|_| old()).ok().map(Timestamp)
}

impl GitLabInterpreter {
    pub(super) fn new(settings: &SourceSettings) -> Self {
        let root = settings.roots.first().cloned();
        Self { host: settings.host.clone(), root, sightings: settings.sightings }
    }

    fn account(&self, id: Id, login: Option<Label>, email: Option<Label>) -> Account {
        let login = text(login);
        let kind = if login.as_deref().is_some_and(is_bot) { AccountKind::Bot } else { AccountKind::Person };
        let key = AccountKey { provider: NAME.to_owned(), host: self.host.clone(), id: id.0 };
        // Private addresses come as [REDACTED].
        Account { key, node_id: None, login, email: text(email).filter(|email| email.contains('@')), kind }
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

    fn group(&self, id: Id, path: Option<Label>) -> Scope {
        let top = self.top();
        if top.id == (ScopeId { kind: ScopeKind::Group, id: id.0.clone() }) {
            return Scope::top(ScopeKind::Group, id.0, text(path));
        }
        top.part(ScopeKind::Group, id.0, text(path))
    }

    fn project(&self, id: Id, path: Option<Label>) -> Scope {
        self.top().part(ScopeKind::Repo, id.0, text(path))
    }

    fn member(&self, delivery: &Delivery, event: &str, kind: AccessKind) -> Result<Meaning, Misshapen> {
        let Member { user_id, user_username, user_email, group, project, times } = read(delivery)?;
        let scope = if event.ends_with("_group") {
            self.group(there("group_id", group.group_id)?, group.group_path)
        } else {
            self.project(there("project_id", project.project_id)?, project.project_path_with_namespace)
        };
        let account = self.account(user_id, user_username, user_email);
        Ok(Meaning { changes: vec![Change::Access { account, scope, kind }], note: None, at: times.place(event) })
    }

    fn user(&self, delivery: &Delivery) -> Result<Account, Misshapen> {
        let User { user_id, username, email } = read(delivery)?;
        Ok(self.account(user_id, username, email))
    }

    fn whole_group(&self, delivery: &Delivery) -> Result<Scope, Misshapen> {
        let Group { group_id, group_path, path } = read(delivery)?;
        Ok(self.group(there("group_id", group_id)?, path.or(group_path)))
    }

    fn whole_project(&self, delivery: &Delivery) -> Result<Scope, Misshapen> {
        let Project { project_id, path_with_namespace, .. } = read(delivery)?;
        Ok(self.project(there("project_id", project_id)?, path_with_namespace))
    }

    fn push(&self, delivery: &Delivery) -> Result<Meaning, Misshapen> {
        #[derive(Deserialize)]
        struct Push {
            user_id: Id,
            user_username: Option<Label>,
            project_id: Id,
            project: Option<Project>,
        }
        let Push { user_id, user_username, project_id, project } = read(delivery)?;
        // The address that a push gives may be empty, private or of somebody's choosing.
        let account = self.account(user_id, user_username, None);
        let scope = self.project(project_id, project.and_then(|project| project.path_with_namespace));
        Ok(Change::Access { account, scope, kind: AccessKind::Seen }.into())
    }
}

/// Tokens of projects and groups are users of such names; nothing else in an event tells them from people.
fn is_bot(login: &str) -> bool {
    let numbered = login.strip_prefix("project_").or_else(|| login.strip_prefix("group_"));
    numbered.is_some_and(|rest| {
        let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        rest == "_bot"
            || rest.starts_with("_bot_")
            || rest.strip_prefix("_bot").is_some_and(|tail| tail.bytes().all(|b| b.is_ascii_digit()))
    })
}

fn there<T>(path: &str, value: Option<T>) -> Result<T, Misshapen> {
    value.ok_or_else(|| Misshapen { path: path.to_owned(), message: "isn't there".to_owned() })
}

impl Interpreter for GitLabInterpreter {
    fn interpret(&self, delivery: &Delivery) -> Result<Meaning, Misshapen> {
        #[derive(Deserialize)]
        struct Named {
            event_name: Option<String>,
            object_kind: Option<String>,
        }
        let Named { event_name, object_kind } = read(delivery)?;
        let event = event_name.or(object_kind).unwrap_or_default();
        match event.as_str() {
            "user_add_to_group" | "user_update_for_group" | "user_add_to_team" | "user_update_for_team" => {
                self.member(delivery, &event, AccessKind::Gained)
            }
            "user_remove_from_group" | "user_remove_from_team" => self.member(delivery, &event, AccessKind::Lost),
            "user_create" | "user_destroy" => {
                let kind = if event == "user_create" { AccessKind::Gained } else { AccessKind::Lost };
                Ok(Change::Access { account: self.user(delivery)?, scope: self.instance(), kind }.into())
            }
            "user_rename" => Ok(Change::Renamed { account: self.user(delivery)? }.into()),
            "group_destroy" | "subgroup_destroy" => Ok(Change::ScopeLost { scope: self.whole_group(delivery)? }.into()),
            "project_destroy" => Ok(Change::ScopeLost { scope: self.whole_project(delivery)? }.into()),
            "group_rename" => Ok(Change::ScopeRenamed { scope: self.whole_group(delivery)? }.into()),
            "project_rename" | "project_transfer" => {
                Ok(Change::ScopeRenamed { scope: self.whole_project(delivery)? }.into())
            }
            "push" | "tag_push" if self.sightings => self.push(delivery),
            "push" | "tag_push" => Ok(Meaning::nothing("activity counts only with `sightings = true`")),
            "user_failed_login" => {
                Ok(Meaning::nothing("a blocked user tried to sign in; GitLab doesn't tell of blocking"))
            }
            event if event.starts_with("user_access_request") => {
                Ok(Meaning::nothing("a request gives no access before it is granted"))
            }
            _ => Ok(Meaning::nothing("the event says nothing about access")),
        }
    }
}
