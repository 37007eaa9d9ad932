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

/// What an event itself says of its place among others, besides what its delivery shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct When {
    /// When it happened, where the body says so. It counts for no later than the receipt.
    pub at: Option<Timestamp>,
    /// Its place among the changes of the same grant, where the provider knows more of that than a time.
    pub turn: Option<Turn>,
}

impl From<Timestamp> for When {
    fn from(at: Timestamp) -> Self {
        Self { at: Some(at), turn: None }
    }
}

/// A place among the changes of one grant that rests on the provider's own record of the membership: a record is made,
/// changed and ended, and only then is there another one. A removal bears no time of its own, but it bears its record's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turn {
    /// The membership whose record was made then.
    Of {
        /// When the record was made, by the provider's clock: compared with its other times only, so never bounded.
        began: Timestamp,
        /// What happened to it.
        step: Step,
    },
    /// The end of the account itself, whose id is never used again: nothing comes after it.
    Final,
}

/// What happened to a membership's record. A loss wins over what is told of the same record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// It was made.
    Made,
    /// It was changed.
    Changed,
    /// It was removed.
    Ended,
}

impl Turn {
    /// As two numbers whose order is that of the turns.
    #[must_use]
    pub const fn to_numbers(self) -> (i64, i64) {
        match self {
            Self::Of { began, step } => (began.micros(), step as i64),
            Self::Final => (i64::MAX, Step::Ended as i64),
        }
    }

    /// Reads what [`Turn::to_numbers`] wrote.
    #[must_use]
    pub const fn of_numbers(began: i64, step: i64) -> Self {
        if began == i64::MAX {
            return Self::Final;
        }
        let step = match step {
            0 => Step::Made,
            1 => Step::Changed,
            _ => Step::Ended,
        };
        Self::Of { began: Timestamp(began), step }
    }

    /// The turn of a change of which nothing but its time is known.
    #[must_use]
    pub const fn at(event_time: Timestamp) -> Self {
        Self::Of { began: event_time, step: Step::Made }
    }
}

/// The place of a change in the total order of the changes of one grant: its turn, then event time, receipt, loss over
/// gain, source and delivery id. Changes are a set and a grant is its maximum, so the order of arrival can't matter.
///
/// A turn means something among the changes of one grant only. Between grants, as when a root is lost, times count:
/// [`ChangeKey::is_after`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ChangeKey {
    /// Its turn; that of its event time where the provider gives no other.
    pub turn: Turn,
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

impl ChangeKey {
    /// Whether it happened after a change of another grant or scope: by time, except that nothing comes after the end of
    /// an account.
    #[must_use]
    pub fn is_after(&self, other: &Self) -> bool {
        self.by_time() > other.by_time()
    }

    /// What [`ChangeKey::is_after`] compares.
    #[must_use]
    pub fn by_time(&self) -> impl Ord + use<'_> {
        let Self { turn, event_time, received_at, loss, source, delivery } = self;
        (*turn == Turn::Final, event_time, received_at, loss, source, delivery)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_ordered_as_their_numbers_and_read_back() {
        let of = |began, step| Turn::Of { began: Timestamp(began), step };
        let turns = [
            of(1, Step::Made),
            of(1, Step::Changed),
            of(1, Step::Ended),
            of(2, Step::Made),
            of(i64::MAX - 1, Step::Ended),
            Turn::Final,
        ];
        assert!(turns.is_sorted() && turns.map(Turn::to_numbers).is_sorted());
        for turn in turns {
            let (began, step) = turn.to_numbers();
            assert_eq!(Turn::of_numbers(began, step), turn);
        }
    }
}
