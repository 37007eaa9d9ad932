//! Who has access to what, and in which order to believe it.
//!
//! This is vocabulary: accounts, scopes, changes, and the two pure rules on which everything rests: the total order of
//! changes ([`ChangeKey`]) and what a set of changes means for an account ([`access`]). It uses nothing of ours but
//! [`crate::delivery`]'s names and times.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::delivery::{DeliveryId, InvalidName, SourceName, Timestamp};

/// A user account at a provider, named by what never changes: provider, host (from the configuration, never from a
/// header) and the provider's stable id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccountKey {
    /// The provider's name in the registry.
    pub provider: String,
    /// The host that the source is configured for.
    pub host: String,
    /// The provider's stable id of the account.
    pub id: String,
}

impl fmt::Display for AccountKey {
    /// `github@github.com:#583231`; [`AccountPattern`] reads it back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:#{}", self.provider, self.host, self.id)
    }
}

/// An account as an event speaks of it. Login and e-mail are labels that change and are reused by others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Account {
    /// What never changes.
    pub key: AccountKey,
    /// The provider's second id of the same account, where it has one (GitHub's node id).
    pub node_id: Option<String>,
    /// The login at the time of the event.
    pub login: Option<String>,
    /// The e-mail address that the event gives for the account itself. Never one of a commit or a pusher.
    pub email: Option<String>,
    /// Whether a person or a machine uses it.
    pub kind: AccountKind,
}

/// Whether a person or a machine uses an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountKind {
    /// A person, as far as the provider tells.
    #[default]
    Person,
    /// A bot, an app or a service account: never linked.
    Bot,
}

/// How people name an account on the command line and in `people.csv`: `github:octocat`,
/// `github@git.acme.example:octocat`, `github:#583231`, or just `octocat` where that is enough.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct AccountPattern {
    /// The provider, if given.
    pub provider: Option<String>,
    /// The host, if given.
    pub host: Option<String>,
    /// The stable id or the login.
    pub name: AccountName,
}

/// The last part of an [`AccountPattern`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountName {
    /// `#583231`: the stable id.
    Id(String),
    /// A login, compared without regard to case.
    Login(String),
}

impl FromStr for AccountPattern {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |why| InvalidName { what: "account", why };
        let (place, name) = match text.trim().split_once(':') {
            Some((place, name)) => (Some(place), name),
            None => (None, text.trim()),
        };
        let name = match name.strip_prefix('#') {
            Some("") => return Err(invalid("has no id after '#'")),
            Some(id) => AccountName::Id(id.to_owned()),
            None if name.is_empty() => return Err(invalid("has no login; write github:octocat or github:#583231")),
            None => AccountName::Login(name.to_owned()),
        };
        let (provider, host) = match place {
            Some(place) => match place.split_once('@') {
                Some((provider, host)) if !provider.is_empty() && !host.is_empty() => (Some(provider), Some(host)),
                None if !place.is_empty() => (Some(place), None),
                _ => return Err(invalid("has an empty provider or host; write github@git.acme.example:octocat")),
            },
            None => (None, None),
        };
        Ok(Self { provider: provider.map(str::to_owned), host: host.map(str::to_owned), name })
    }
}

impl fmt::Display for AccountPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(provider) = &self.provider {
            f.write_str(provider)?;
            if let Some(host) = &self.host {
                write!(f, "@{host}")?;
            }
            f.write_str(":")?;
        }
        match &self.name {
            AccountName::Id(id) => write!(f, "#{id}"),
            AccountName::Login(login) => f.write_str(login),
        }
    }
}

/// What kind of thing access is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScopeKind {
    /// The whole instance. It holds every other scope of its host.
    Instance,
    /// An organisation or workspace.
    Org,
    /// A group (GitLab).
    Group,
    /// A user's own namespace.
    User,
    /// A team.
    Team,
    /// A repository or project.
    Repo,
}

impl ScopeKind {
    const ALL: [Self; 6] = [Self::Instance, Self::Org, Self::Group, Self::User, Self::Team, Self::Repo];

    /// The word used in configuration, ledger and listings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Org => "org",
            Self::Group => "group",
            Self::User => "user",
            Self::Team => "team",
            Self::Repo => "repo",
        }
    }

    /// Whether a scope of this kind is a root when the configuration names none.
    #[must_use]
    pub const fn is_root_by_default(self) -> bool {
        matches!(self, Self::Instance | Self::Org | Self::Group)
    }
}

impl FromStr for ScopeKind {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or(InvalidName { what: "scope kind", why: "must be one of instance, org, group, user, team and repo" })
    }
}

/// A scope by what never changes: kind and stable id. Provider and host come from the source that speaks of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ScopeId {
    /// What kind of thing it is.
    pub kind: ScopeKind,
    /// The provider's stable id.
    pub id: String,
}

impl fmt::Display for ScopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:#{}", self.kind.as_str(), self.id)
    }
}

/// A scope as an event speaks of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Scope {
    /// What never changes.
    pub id: ScopeId,
    /// Its name at the time of the event.
    pub name: Option<String>,
    /// The scope at the top that it is in, with its name, if the event tells. `None` for a scope that is itself at the
    /// top, and where the ancestry is unknown.
    pub root: Option<(ScopeId, Option<String>)>,
}

impl Scope {
    /// A scope at the top.
    #[must_use]
    pub fn top(kind: ScopeKind, id: impl Into<String>, name: Option<String>) -> Self {
        Self { id: ScopeId { kind, id: id.into() }, name, root: None }
    }

    /// A scope inside this one.
    #[must_use]
    pub fn part(&self, kind: ScopeKind, id: impl Into<String>, name: Option<String>) -> Self {
        let root = self.root.clone().unwrap_or_else(|| (self.id.clone(), self.name.clone()));
        Self { id: ScopeId { kind, id: id.into() }, name, root: Some(root) }
    }

    /// The scope at the top: this one's root, or itself.
    #[must_use]
    pub fn top_id(&self) -> &ScopeId {
        self.root.as_ref().map_or(&self.id, |(id, _)| id)
    }

    /// The name of the scope at the top.
    #[must_use]
    pub fn top_name(&self) -> Option<&str> {
        self.root.as_ref().map_or(self.name.as_deref(), |(_, name)| name.as_deref())
    }
}

/// A root as the configuration names it: `org:acme` by name, `org:#42` by id, `instance` alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RootPattern {
    /// The kind of scope.
    pub kind: ScopeKind,
    /// Its id or name. Empty for `instance`.
    pub name: String,
    /// Whether `name` is the id.
    pub by_id: bool,
}

impl RootPattern {
    /// Whether this names that scope. Names are compared without regard to case.
    #[must_use]
    pub fn matches(&self, id: &ScopeId, name: Option<&str>) -> bool {
        self.kind == id.kind
            && (self.kind == ScopeKind::Instance
                || if self.by_id {
                    self.name == id.id
                } else {
                    name.is_some_and(|name| name.eq_ignore_ascii_case(&self.name))
                })
    }
}

impl FromStr for RootPattern {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid =
            InvalidName { what: "scope", why: "must look like org:acme, org:#42, group:platform or instance" };
        if text == ScopeKind::Instance.as_str() {
            return Ok(Self { kind: ScopeKind::Instance, name: String::new(), by_id: false });
        }
        let (kind, name) = text.split_once(':').ok_or(invalid)?;
        let kind = kind.parse().map_err(|_| invalid)?;
        let (name, by_id) = name.strip_prefix('#').map_or((name, false), |id| (id, true));
        if name.is_empty() || kind == ScopeKind::Instance {
            return Err(invalid);
        }
        Ok(Self { kind, name: name.to_owned(), by_id })
    }
}

impl fmt::Display for RootPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ScopeKind::Instance => f.write_str("instance"),
            kind => write!(f, "{}:{}{}", kind.as_str(), if self.by_id { "#" } else { "" }, self.name),
        }
    }
}

impl From<RootPattern> for String {
    fn from(pattern: RootPattern) -> Self {
        pattern.to_string()
    }
}

impl TryFrom<String> for RootPattern {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Where a scope stands towards the roots of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// One of the roots.
    Root,
    /// In a root, or of unknown ancestry.
    Part,
    /// Outside the roots: none of our business.
    Foreign,
}

/// Where `scope` stands towards `roots`. Without configured roots every organisation, top group and instance is one.
#[must_use]
pub fn place(roots: &[RootPattern], scope: &Scope) -> Place {
    let is_root = |id: &ScopeId, name: Option<&str>| {
        if roots.is_empty() { id.kind.is_root_by_default() } else { roots.iter().any(|root| root.matches(id, name)) }
    };
    match &scope.root {
        Some((id, name)) if is_root(id, name.as_deref()) => Place::Part,
        None if is_root(&scope.id, scope.name.as_deref()) => Place::Root,
        // The instance holds everything on its host.
        _ if roots.iter().any(|root| root.kind == ScopeKind::Instance) => Place::Part,
        Some(_) if roots.is_empty() => Place::Part,
        Some(_) => Place::Foreign,
        // An organisation or group that isn't named is another root; a team or repository of unknown ancestry is a part.
        None if scope.id.kind.is_root_by_default() => Place::Foreign,
        None => Place::Part,
    }
}

/// What happened to an account's access to a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessKind {
    /// Access began, or goes on with another role.
    Gained,
    /// Access ended.
    Lost,
    /// The account did something that needs access. Never beats a recorded loss.
    Seen,
}

impl AccessKind {
    /// The word used in ledger and listings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gained => "gained",
            Self::Lost => "lost",
            Self::Seen => "seen",
        }
    }
}

impl FromStr for AccessKind {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Gained, Self::Lost, Self::Seen]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or(InvalidName { what: "access", why: "must be one of gained, lost and seen" })
    }
}

/// What a delivery tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// An account gained or lost access to a scope, or was seen in it.
    Access {
        /// The account.
        account: Account,
        /// What the access is to.
        scope: Scope,
        /// What happened.
        kind: AccessKind,
    },
    /// An account has a new login.
    Renamed {
        /// The account, with its new login.
        account: Account,
    },
    /// A scope was lost as a whole: everybody's access to it ended.
    ScopeLost {
        /// The scope.
        scope: Scope,
    },
    /// A scope went to another owner: what was known of access to it is now unknown.
    ScopeMoved {
        /// The scope.
        scope: Scope,
    },
    /// A scope has a new name.
    ScopeRenamed {
        /// The scope, with its new name.
        scope: Scope,
    },
    /// The source will send no more: app uninstalled or suspended, hook deleted. Changes no access.
    SourceBlind {
        /// Why, for people.
        why: String,
    },
    /// The source sends again.
    SourceBack,
}

impl Change {
    /// The scope that it is about, if any.
    #[must_use]
    pub const fn scope(&self) -> Option<&Scope> {
        match self {
            Self::Access { scope, .. }
            | Self::ScopeLost { scope }
            | Self::ScopeMoved { scope }
            | Self::ScopeRenamed { scope } => Some(scope),
            Self::Renamed { .. } | Self::SourceBlind { .. } | Self::SourceBack => None,
        }
    }

    /// Whether it takes access away: such a change wins a tie in time.
    #[must_use]
    pub const fn is_loss(&self) -> bool {
        matches!(self, Self::Access { kind: AccessKind::Lost, .. } | Self::ScopeLost { .. })
    }

    /// The word used in ledger and listings.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Access { kind, .. } => kind.as_str(),
            Self::Renamed { .. } => "renamed",
            Self::ScopeLost { .. } => "scope_lost",
            Self::ScopeMoved { .. } => "scope_moved",
            Self::ScopeRenamed { .. } => "scope_renamed",
            Self::SourceBlind { .. } => "source_blind",
            Self::SourceBack => "source_back",
        }
    }
}

/// The place of a change in the total order of the changes of one grant: event time, then receipt, then loss over gain,
/// then source and delivery id. Changes are a set and a grant is its maximum, so the order of arrival can't matter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ChangeKey {
    /// When it happened, as far as can be told.
    pub event_time: Timestamp,
    /// When it was received, the least over all copies of the delivery.
    pub received_at: Timestamp,
    /// Whether it is a loss, which wins a tie.
    pub loss: bool,
    /// The source.
    pub source: SourceName,
    /// The delivery.
    pub delivery: DeliveryId,
}

/// What the ledger remembers of one (account, scope): the latest of its changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Grant {
    /// What the access is to.
    pub scope: ScopeId,
    /// The scope at the top that it is in, if known.
    pub root: Option<ScopeId>,
    /// The latest change: gained or lost; seen if that is all there is.
    pub kind: AccessKind,
    /// That change's place in the order.
    pub key: ChangeKey,
    /// When the whole scope was lost last, if ever.
    pub scope_lost: Option<ChangeKey>,
    /// When the scope went to another owner last, if ever.
    pub scope_moved: Option<ChangeKey>,
}

/// A root of a connection, and what happened to it as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Root {
    /// The scope, if any event has spoken of it yet; a root that is only configured has no id.
    pub scope: Option<ScopeId>,
    /// Its name, for people.
    pub name: String,
    /// When the whole root was lost last, if ever.
    pub lost: Option<ChangeKey>,
}

/// Whether an account has access through a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "access")]
pub enum Access {
    /// Yes, through this scope.
    Held {
        /// One scope that is held; a root if there is one.
        through: ScopeId,
        /// Whether activity is all that speaks for it: no join was ever recorded.
        seen_only: bool,
    },
    /// No: nothing is held and every root is gone.
    Gone,
    /// Nothing is held, but that isn't enough to say that the account is gone from these roots.
    Unknown {
        /// The names of the roots about which rollcall doesn't know.
        roots: Vec<String>,
    },
}

/// What a set of grants means: the rule of desired statuses.
///
/// * A grant is held if its latest change is a gain (or a sighting), and neither its scope nor its root nor the instance
///   was lost later, and the scope didn't move later.
/// * Losing a part isn't leaving. Losing a root ends every part of it with an earlier time.
/// * The account is gone only if nothing is held and every root of the connection is gone; a root of which rollcall has
///   heard nothing for this account is unknown, and in doubt it is not gone.
#[must_use]
pub fn access(grants: &[Grant], roots: &[Root]) -> Access {
    let held: Vec<&Grant> = grants.iter().filter(|grant| is_held(grant, grants, roots)).collect();
    if let Some(best) =
        held.iter().min_by_key(|grant| (grant.kind == AccessKind::Seen, grant.scope.kind, &grant.scope.id))
    {
        return Access::Held {
            through: best.scope.clone(),
            seen_only: held.iter().all(|g| g.kind == AccessKind::Seen),
        };
    }
    let unknown: Vec<String> =
        roots.iter().filter(|root| !is_gone(root, grants, roots)).map(|root| root.name.clone()).collect();
    if unknown.is_empty() && !roots.is_empty() { Access::Gone } else { Access::Unknown { roots: unknown } }
}

/// Why a grant isn't held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "why", content = "change")]
pub enum Ended<'a> {
    /// The account lost it.
    Lost(&'a ChangeKey),
    /// The scope was lost as a whole, later.
    ScopeLost(&'a ChangeKey),
    /// The scope went to another owner, later.
    ScopeMoved(&'a ChangeKey),
    /// The scope at the top that it is in was lost, later.
    RootLost(&'a ChangeKey),
    /// The account lost the whole instance, later.
    InstanceLost(&'a ChangeKey),
}

/// Why `grant`, one of `grants`, isn't held; none if it is.
#[must_use]
pub fn ended<'a>(grant: &'a Grant, grants: &'a [Grant], roots: &'a [Root]) -> Option<Ended<'a>> {
    if grant.kind == AccessKind::Lost {
        return Some(Ended::Lost(&grant.key));
    }
    let later = |end: Option<&'a ChangeKey>| end.filter(|end| **end > grant.key);
    let root = grant.root.as_ref().unwrap_or(&grant.scope);
    later(grant.scope_lost.as_ref())
        .map(Ended::ScopeLost)
        .or_else(|| later(grant.scope_moved.as_ref()).map(Ended::ScopeMoved))
        .or_else(|| later(end_of(root, grants, roots)).map(Ended::RootLost))
        .or_else(|| later(end_of_instance(grants, roots)).map(Ended::InstanceLost))
}

fn is_held(grant: &Grant, grants: &[Grant], roots: &[Root]) -> bool {
    ended(grant, grants, roots).is_none()
}

/// Whether the account is gone from a root, whatever it may hold since.
#[must_use]
pub fn is_gone(root: &Root, grants: &[Grant], roots: &[Root]) -> bool {
    let own = root.scope.as_ref().is_some_and(|scope| {
        end_of(scope, grants, roots).is_some() || grants.iter().any(|g| g.scope == *scope && g.kind == AccessKind::Lost)
    });
    own || end_of_instance(grants, roots).is_some()
}

/// The latest loss of `scope` for this account: its own, or of the scope as a whole.
fn end_of<'a>(scope: &ScopeId, grants: &'a [Grant], roots: &'a [Root]) -> Option<&'a ChangeKey> {
    let own = grants.iter().filter(|g| g.scope == *scope && g.kind == AccessKind::Lost).map(|g| &g.key);
    let grant_scope = grants.iter().filter(|g| g.scope == *scope).filter_map(|g| g.scope_lost.as_ref());
    let whole = roots.iter().filter(|root| root.scope.as_ref() == Some(scope)).filter_map(|root| root.lost.as_ref());
    own.chain(grant_scope).chain(whole).max()
}

fn end_of_instance<'a>(grants: &'a [Grant], roots: &'a [Root]) -> Option<&'a ChangeKey> {
    let instances = grants.iter().map(|g| &g.scope).chain(roots.iter().filter_map(|root| root.scope.as_ref()));
    instances.filter(|scope| scope.kind == ScopeKind::Instance).filter_map(|scope| end_of(scope, grants, roots)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(time: i64, loss: bool) -> ChangeKey {
        ChangeKey {
            event_time: Timestamp(time),
            received_at: Timestamp(time),
            loss,
            source: "acme".parse().unwrap(),
            delivery: format!("d{time}").parse().unwrap(),
        }
    }

    fn grant(kind: ScopeKind, id: &str, what: AccessKind, time: i64) -> Grant {
        let scope = ScopeId { kind, id: id.into() };
        let root = (!kind.is_root_by_default()).then(|| ScopeId { kind: ScopeKind::Org, id: "1".into() });
        Grant { scope, root, kind: what, key: key(time, what == AccessKind::Lost), scope_lost: None, scope_moved: None }
    }

    fn root(id: &str) -> Root {
        Root { scope: Some(ScopeId { kind: ScopeKind::Org, id: id.into() }), name: format!("org {id}"), lost: None }
    }

    #[test]
    fn losing_the_root_ends_earlier_parts_only() {
        let org = grant(ScopeKind::Org, "1", AccessKind::Lost, 5);
        let repo_before = grant(ScopeKind::Repo, "7", AccessKind::Gained, 4);
        let repo_after = grant(ScopeKind::Repo, "8", AccessKind::Gained, 6);
        assert_eq!(access(&[org.clone(), repo_before], &[root("1")]), Access::Gone);
        assert!(matches!(access(&[org, repo_after], &[root("1")]), Access::Held { .. }));
    }

    #[test]
    fn losing_a_part_is_not_leaving() {
        let repo = grant(ScopeKind::Repo, "7", AccessKind::Lost, 4);
        assert_eq!(access(&[repo], &[root("1")]), Access::Unknown { roots: vec!["org 1".into()] });
    }

    #[test]
    fn a_second_root_of_which_nothing_is_known_keeps_the_account() {
        let left = grant(ScopeKind::Org, "1", AccessKind::Lost, 4);
        assert_eq!(
            access(std::slice::from_ref(&left), &[root("1"), root("2")]),
            Access::Unknown { roots: vec!["org 2".into()] }
        );
        assert_eq!(access(&[left], &[root("1")]), Access::Gone);
    }

    #[test]
    fn a_lost_organisation_is_lost_for_everybody_who_joined_before() {
        let mut gone = root("1");
        gone.lost = Some(key(9, true));
        let before = grant(ScopeKind::Org, "1", AccessKind::Gained, 5);
        let after = grant(ScopeKind::Org, "1", AccessKind::Gained, 10);
        assert_eq!(access(&[before], &[gone.clone()]), Access::Gone);
        assert!(matches!(access(&[after], &[gone]), Access::Held { .. }));
    }

    #[test]
    fn losing_the_instance_ends_everything() {
        let org = grant(ScopeKind::Org, "1", AccessKind::Gained, 5);
        let user_deleted = grant(ScopeKind::Instance, "git.acme.example", AccessKind::Lost, 6);
        assert_eq!(access(&[org, user_deleted], &[root("1")]), Access::Gone);
    }

    #[test]
    fn a_moved_repository_leaves_its_grants_unknown() {
        let mut repo = grant(ScopeKind::Repo, "7", AccessKind::Gained, 4);
        repo.scope_moved = Some(key(5, false));
        assert!(matches!(access(&[repo], &[root("1")]), Access::Unknown { .. }));
    }

    #[test]
    fn a_tie_in_time_goes_to_the_loss() {
        let mut gained = key(5, false);
        gained.delivery = "zzz".parse().unwrap();
        assert!(key(5, true) > gained);
    }

    #[test]
    fn scopes_outside_the_configured_roots_are_foreign() {
        let roots = ["org:acme".parse().unwrap()];
        let acme = Scope::top(ScopeKind::Org, "1", Some("Acme".into()));
        let other = Scope::top(ScopeKind::Org, "2", Some("other".into()));
        assert_eq!(place(&roots, &acme), Place::Root);
        assert_eq!(place(&roots, &acme.part(ScopeKind::Repo, "7", None)), Place::Part);
        assert_eq!(place(&roots, &other), Place::Foreign);
        assert_eq!(place(&roots, &other.part(ScopeKind::Repo, "9", None)), Place::Foreign);
        assert_eq!(place(&roots, &Scope::top(ScopeKind::Repo, "9", None)), Place::Part);
        assert_eq!(place(&[], &other), Place::Root);
    }

    #[test]
    fn accounts_are_named_as_people_write_them() {
        for text in ["octocat", "github:octocat", "github@git.acme.example:octocat", "github:#583231"] {
            assert_eq!(text.parse::<AccountPattern>().unwrap().to_string(), text);
        }
        assert!("github:".parse::<AccountPattern>().is_err());
        assert!("@x:y".parse::<AccountPattern>().is_err());
        assert!("github:#".parse::<AccountPattern>().is_err());
    }
}
