//! What the configuration decides about a connection: its roots, and what happens when access is lost.

use std::collections::BTreeMap;

use crate::access::RootPattern;
use crate::target::ConnectionRef;

/// What to do with an account's link when it has lost its last access. There is no default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnAccessLost {
    /// Unlink the account from its person.
    Unlink,
    /// Leave the link as it is.
    Keep,
}

impl OnAccessLost {
    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unlink => "unlink",
            Self::Keep => "keep",
        }
    }
}

/// What to do when somebody has changed a link at the platform that rollcall had applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Drift {
    /// Leave it, and say so.
    #[default]
    Report,
    /// Bring it back.
    Correct,
}

impl Drift {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Report, Self::Correct];

    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Correct => "correct",
        }
    }
}

/// What the configuration decides about one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What happens when access is lost.
    pub on_access_lost: OnAccessLost,
    /// What happens when somebody has changed a link at the platform.
    pub drift: Drift,
    /// The configured roots of its sources; empty if every root that is spoken of is one.
    pub roots: Vec<RootPattern>,
}

/// The policies of all connections.
#[derive(Clone, Debug, Default)]
pub struct Policies(BTreeMap<ConnectionRef, Policy>);

impl Policies {
    /// Adds what one source says of one of its connections. Sources that share a connection share its roots; one that
    /// names none makes every root count.
    pub fn add(
        &mut self,
        connection: ConnectionRef,
        on_access_lost: OnAccessLost,
        drift: Drift,
        roots: &[RootPattern],
    ) {
        match self.0.entry(connection) {
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(Policy { on_access_lost, drift, roots: roots.to_vec() });
            }
            std::collections::btree_map::Entry::Occupied(mut known) => {
                let policy = known.get_mut();
                if roots.is_empty() || policy.roots.is_empty() {
                    policy.roots.clear();
                } else {
                    policy.roots.extend(roots.iter().cloned());
                    policy.roots.sort();
                    policy.roots.dedup();
                }
            }
        }
    }

    /// The policy of a connection; none if no source belongs to it any more.
    #[must_use]
    pub fn of(&self, connection: &ConnectionRef) -> Option<&Policy> {
        self.0.get(connection)
    }

    /// All connections that a source belongs to.
    pub fn connections(&self) -> impl Iterator<Item = &ConnectionRef> {
        self.0.keys()
    }

    /// The configured roots of a connection; empty if every root that is spoken of is one.
    #[must_use]
    pub fn roots(&self, connection: &ConnectionRef) -> Vec<RootPattern> {
        self.of(connection).map(|policy| policy.roots.clone()).unwrap_or_default()
    }
}
