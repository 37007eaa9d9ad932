//! The platform's own log as independent evidence: which of its entries tells of which call.
//!
//! An entry names neither the call nor, as far as is documented, the account, so it is matched by its time: the nearest
//! one that isn't taken, within [`NEAR`] of the call. Where it does name the identity, that must be the same.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use crate::drata::LinkEvent;
use crate::ledger::show::evidence::Told;
use crate::target::Failure;

/// How far the platform's clock and ours may be apart.
const NEAR: Duration = Duration::from_secs(30);

/// What is known of the platform's own log.
#[derive(Clone, Debug, Default)]
pub enum PlatformEvents {
    /// It wasn't asked for; why.
    #[default]
    Left,
    /// It can't be read; why.
    Unread(String),
    /// It was read.
    Read(Entries),
}

/// The entries of the platform's log.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    /// In order of time.
    entries: Vec<LinkEvent>,
    taken: Vec<bool>,
    of_call: HashMap<i64, usize>,
}

impl PlatformEvents {
    /// What asking for it came to.
    #[must_use]
    pub fn read(asked: Result<Vec<LinkEvent>, Failure>) -> Self {
        match asked {
            Ok(entries) => Self::Read(Entries { taken: vec![false; entries.len()], entries, of_call: HashMap::new() }),
            Err(Failure { status: Some(403), .. }) => Self::Unread(
                "the API key may not read it (403); it needs the permission Event Tracking: List Events".to_owned(),
            ),
            Err(failure) => Self::Unread(failure.message),
        }
    }

    /// The entry that tells of a call.
    pub fn of(&mut self, told: &Told) -> Option<&LinkEvent> {
        let Self::Read(Entries { entries, taken, of_call }) = self else { return None };
        if let Some(found) = of_call.get(&told.call) {
            return entries.get(*found);
        }
        let near = i64::try_from(NEAR.as_micros()).unwrap_or(i64::MAX);
        let first =
            entries.partition_point(|entry| entry.at < told.at.plus_micros((-near).saturating_sub(told.duration_us)));
        let found = (first..entries.len())
            .take_while(|place| entries[*place].at <= told.at.plus_micros(near))
            .filter(|place| !taken[*place])
            .filter(|place| entries[*place].identity.is_none_or(|identity| Some(identity) == told.identity))
            .min_by_key(|place| entries[*place].at.micros().abs_diff(told.at.micros()))?;
        taken[found] = true;
        of_call.insert(told.call, found);
        entries.get(found)
    }
}

impl fmt::Display for PlatformEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left => f.write_str("the platform's own log was not asked for"),
            Self::Unread(why) => write!(f, "the platform's own log could not be read: {why}"),
            Self::Read(Entries { entries, of_call, .. }) => write!(
                f,
                "the platform's own log was read: {} entries of links changed through its API, {} of them matched by their time to a call",
                entries.len(),
                of_call.len()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Timestamp;
    use crate::target::{FailureClass, IdentityRef};

    fn told(call: i64, second: i64) -> Told {
        Told {
            call,
            at: Timestamp(second * 1_000_000),
            delay_us: 0,
            status: None,
            http_status: Some(200),
            duration_us: 0,
            identity: Some(IdentityRef(7)),
        }
    }

    fn event(id: &str, second: i64, identity: Option<i64>) -> LinkEvent {
        LinkEvent { id: id.to_owned(), at: Timestamp(second * 1_000_000), identity: identity.map(IdentityRef) }
    }

    #[test]
    fn an_entry_belongs_to_the_nearest_call_and_to_no_other_one() {
        let entries =
            vec![event("other", 99, Some(8)), event("a", 100, None), event("b", 101, Some(7)), event("c", 300, None)];
        let mut events = PlatformEvents::read(Ok(entries));
        let mut id = |told: Told| events.of(&told).map(|event| event.id.clone());
        assert_eq!(id(told(1, 100)).as_deref(), Some("a"));
        assert_eq!(id(told(2, 100)).as_deref(), Some("b"));
        assert_eq!(id(told(1, 100)).as_deref(), Some("a"), "several changes are told by one call");
        assert_eq!(id(told(3, 100)), None);
        assert_eq!(id(told(4, 200)), None);
    }

    #[test]
    fn a_key_that_may_not_read_the_log_is_said_plainly() {
        let refused =
            Failure { class: FailureClass::Transient, status: Some(403), retry_after: None, message: String::new() };
        assert!(PlatformEvents::read(Err(refused)).to_string().contains("Event Tracking: List Events"));
    }
}
