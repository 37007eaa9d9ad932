//! Changes, and the total order in which to believe them.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Account, Scope};
use crate::delivery::{DeliveryId, InvalidName, SourceName, Timestamp};

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
