//! What GitHub's events mean: one file per family of events, chosen by the event's (unsigned) name.
//!
//! The name only says where to look. Each family holds the body against its shape first, takes the action from the
//! body, which is signed, and reads the fields it needs; a body of another shape is [`Misshapen`]. An event or action
//! that isn't known means nothing and is never an error. The truth table is [`super::events::EVENTS`].

mod activity;
mod app;
mod body;
mod instance;
mod marks;
mod organization;
mod payload;
mod repository;
mod team;

use body::Body;
pub(super) use payload::User;
use payload::{Id, Owner, Team, text};

use super::{DESCRIPTION, NAME, is_cloud};
use crate::access::{
    AccessKind, Account, AccountKey, AccountKind, Change, Place, RootPattern, Scope, ScopeKind, place,
};
use crate::delivery::Delivery;
use crate::provider::{Interpreter, Meaning, Misshapen, SourceSettings};

/// Interprets the deliveries of one source.
#[derive(Debug)]
pub(super) struct GitHubInterpreter {
    host: String,
    roots: Vec<RootPattern>,
    sightings: bool,
}

impl GitHubInterpreter {
    pub(super) fn new(settings: &SourceSettings) -> Self {
        Self { host: settings.host.clone(), roots: settings.roots.clone(), sightings: settings.sightings }
    }

    /// The account of a user, or why there is none to speak of.
    fn account(&self, user: Option<User>) -> Result<Account, &'static str> {
        let user = user.ok_or("GitHub doesn't say who it was: the user is null, as it is for a deleted account")?;
        account_of(&self.host, user)
    }

    fn access(&self, user: Option<User>, scope: Scope, kind: AccessKind) -> Meaning {
        match self.account(user) {
            Ok(account) => Change::Access { account, scope, kind }.into(),
            Err(why) => Meaning::nothing(why),
        }
    }

    /// Whether an account that the app is installed on is any of this source's business.
    fn concerns(&self, scope: &Scope) -> bool {
        let named = || self.roots.iter().any(|root| root.matches(&scope.id, scope.name.as_deref()));
        self.roots.is_empty()
            || if scope.id.kind == ScopeKind::Org { place(&self.roots, scope) != Place::Foreign } else { named() }
    }
}

/// The account of a user, in an event or in a list; or why it is none that has access.
pub(super) fn account_of(host: &str, user: User) -> Result<Account, &'static str> {
    let kind = match user.kind.as_deref() {
        // Older servers leave the type out.
        Some("User") | None => AccountKind::Person,
        Some("Bot") => AccountKind::Bot,
        Some("Organization") => return Err("the user is an organisation, which has no access of its own"),
        Some("Mannequin") => {
            return Err("the user is a mannequin: a placeholder of an import that nobody can log in to");
        }
        Some(_) => return Err("the user is of a type that rollcall doesn't know"),
    };
    let key = AccountKey { provider: NAME.to_owned(), host: host.to_owned(), id: user.id.0 };
    let (node_id, login, email) = (text(user.node_id), text(user.login), text(user.email));
    Ok(Account { key, node_id, login, email, kind })
}

/// The organisation that the body names, if it does.
fn organization(body: &Body<'_>) -> Result<Option<Scope>, Misshapen> {
    Ok(body.find::<Owner>("organization")?.map(|owner| owner_scope(ScopeKind::Org, owner)))
}

fn owner_scope(kind: ScopeKind, owner: Owner) -> Scope {
    Scope::top(kind, owner.id.0, text(owner.login))
}

/// A part of `root`, or a scope of unknown ancestry.
fn part_of(root: Option<&Scope>, kind: ScopeKind, id: Id, name: Option<String>) -> Scope {
    match root {
        Some(root) => root.part(kind, id.0, name),
        None => Scope::top(kind, id.0, name),
    }
}

/// The team, in the organisation that the body names.
fn team_scope(body: &Body<'_>) -> Result<Scope, Misshapen> {
    let team: Team = body.get("team")?;
    Ok(part_of(organization(body)?.as_ref(), ScopeKind::Team, team.id, text(team.name)))
}

fn unknown_action() -> Meaning {
    Meaning::nothing("rollcall knows no meaning of this action")
}

impl Interpreter for GitHubInterpreter {
    fn interpret(&self, delivery: &Delivery) -> Result<Meaning, Misshapen> {
        let json = delivery.json(DESCRIPTION.encodings);
        let body = Body::read(&json)?;
        match delivery.event.event() {
            "organization" => self.organization(&body),
            "org_block" => self.org_block(&body),
            "member" => self.member(&body),
            "repository" => self.repository(&body),
            "membership" => self.membership(&body),
            "team" => self.team(&body),
            "installation" => self.installation(&body),
            "installation_target" => self.installation_target(&body),
            "meta" => self.meta(&body),
            "user" if is_cloud(&self.host) => Ok(Meaning::nothing("only Enterprise Server has `user` events")),
            "user" => self.user(&body),
            "push" | "create" | "delete" | "release" | "workflow_dispatch" if !self.sightings => {
                Ok(Meaning::nothing("activity counts only with `sightings = true`"))
            }
            "push" => self.push(&body),
            "create" => self.create(&body),
            "delete" => self.delete(&body),
            "release" => self.release(&body),
            "workflow_dispatch" => self.workflow_dispatch(&body),
            "team_add" => Ok(Meaning::nothing(team::INDIRECT)),
            "github_app_authorization" | "personal_access_token_request" => {
                Ok(Meaning::nothing("it is about a token; the account's own access stays as it is"))
            }
            "ping" => {
                body.is("ping", &["zen", "hook_id"], &["hook"])?;
                Ok(Meaning::nothing("it is the greeting of a new webhook"))
            }
            "enterprise" => Ok(Meaning::nothing("it is about anonymous access, which no account has")),
            _ => Ok(Meaning::nothing("the event says nothing about access")),
        }
    }
}

#[cfg(test)]
mod tests;
