//! The model: what an account's status should be, from the set of what happened. It knows nothing of rollcall.

use std::collections::BTreeSet;

use crate::harness::github::Account;
use crate::world::{Told, What, World};

/// What an account's status should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Linked to its person.
    Linked,
    /// Linked to nobody.
    Unlinked,
    /// As it was: nothing is held, and nothing says that the account is gone.
    Kept,
}

/// What an account's status should be once these things were told, whatever the order in which they are given.
pub(crate) fn expected<'a>(world: &World, account: Account, told: impl IntoIterator<Item = &'a Told>) -> Expected {
    let mut told: Vec<&Told> = told.into_iter().collect();
    told.sort_by_key(|told| told.event.number);
    let mut inside = vec![None; world.roots];
    let mut parts = BTreeSet::new();
    for Told { what, event } in told {
        match *what {
            What::Deleted { part } => drop(parts.remove(&part)),
            _ if event.account != account => {}
            What::Joined { root } => inside[root] = Some(true),
            What::Left { root } => {
                inside[root] = Some(false);
                parts.retain(|part| world.root_of(*part) != root);
            }
            What::Added { part } => drop(parts.insert(part)),
            What::Removed { part } => drop(parts.remove(&part)),
            What::Renamed => {}
        }
    }
    if inside.contains(&Some(true)) || !parts.is_empty() {
        Expected::Linked
    } else if inside.iter().all(|root| *root == Some(false)) {
        Expected::Unlinked
    } else {
        Expected::Kept
    }
}

/// Whether something concerns an account: it is about it, or about a team or repository of anybody's.
pub(crate) fn concerns(told: &Told, account: Account) -> bool {
    told.event.account == account || matches!(told.what, What::Deleted { .. })
}
