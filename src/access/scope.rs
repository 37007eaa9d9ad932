//! Scopes: what access is to, and where it stands towards the roots of a source.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::delivery::InvalidName;

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
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
