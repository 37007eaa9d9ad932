//! A roster beside the ledger: what differs, and what of that counts already. Pure.
//!
//! A roster may lag behind the events, so one reading proves nothing. A difference counts once two readings have shown it
//! that lie far enough apart, with nothing recorded of that account and scope between them. What was observed is then a
//! change like any other, with its place in the order of its grant:
//!
//! * by time, where times are all that a provider tells: the reading's start, less what a roster may lag behind;
//! * by turn, where the provider keeps a record of each membership (GitLab): whoever is in has the turn of their own record,
//!   and whoever isn't ended the record that the ledger knows of. So an event of an older record that arrives later is
//!   older, and the end of this very record, should it be told yet, still counts.

use std::collections::{BTreeMap, BTreeSet};

use crate::access::{
    AccessKind, Account, Ended, Grant, Root, Scope, ScopeId, ScopeKind, Step, Turn, ended, observation::Observation,
};
use crate::delivery::Timestamp;
use crate::ledger::rosters::{Known, KnownAccount, Shown, ShownBefore};
use crate::provider::roster::{Member, Roster, Whole};

/// What of a roster's nature matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nature {
    /// Whether whoever isn't in a root has no access to any part of it either.
    pub exhaustive: bool,
    /// Whether changes are ordered by the provider's record of the membership.
    pub turns: bool,
}

impl From<&dyn Roster> for Nature {
    fn from(roster: &dyn Roster) -> Self {
        Self { exhaustive: roster.is_exhaustive(), turns: roster.has_turns() }
    }
}

/// Something in which roster and ledger differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What the roster shows.
    pub observed: Observation,
    /// What the ledger says.
    pub ledger: LedgerSays,
    /// The latest change of that account and scope; 0 for none.
    pub basis: i64,
    /// Whether the observation comes after what the ledger says, in the order of changes. Else it would count for nothing yet.
    pub is_later: bool,
}

/// What the ledger says of an account and a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LedgerSays {
    /// It has access.
    Held,
    /// It was active there; no join was ever recorded.
    Seen,
    /// It has none any more.
    Ended,
    /// Nothing.
    Nothing,
}

impl LedgerSays {
    /// The word in listings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Seen => "seen",
            Self::Ended => "ended",
            Self::Nothing => "unknown",
        }
    }
}

/// Everything in which a whole roster and the ledger differ, by account and scope. The observations count from `at` on.
#[must_use]
pub fn compare(roster: &Whole, known: &Known, nature: Nature, at: Timestamp) -> Vec<Difference> {
    let comparison = Comparison {
        roster,
        known,
        nature,
        at,
        roots: [Root { scope: Some(roster.root.id.clone()), name: String::new(), lost: known.root_lost.clone() }],
        active: roster
            .scopes
            .values()
            .flat_map(|listed| &listed.members)
            .filter(|(_, m)| m.active)
            .map(|(id, _)| id)
            .collect(),
    };
    let mut differences = BTreeMap::new();
    for listed in roster.scopes.values() {
        for (id, member) in listed.members.iter().filter(|(_, member)| member.active) {
            if let Some(difference) = comparison.gained(&listed.scope, member) {
                differences.insert((id.clone(), listed.scope.id.clone()), difference);
            }
        }
    }
    for (id, account) in &known.accounts {
        for difference in comparison.lost(id, account) {
            differences.insert((id.clone(), difference.observed.scope.id.clone()), difference);
        }
    }
    differences.into_values().collect()
}

struct Comparison<'a> {
    roster: &'a Whole,
    known: &'a Known,
    nature: Nature,
    at: Timestamp,
    roots: [Root; 1],
    /// Whoever is let into the root or a part of it.
    active: BTreeSet<&'a String>,
}

impl Comparison<'_> {
    /// A member of whom the ledger doesn't know that access is held.
    fn gained(&self, scope: &Scope, member: &Member) -> Option<Difference> {
        let account = &member.account;
        let observed = |turn| Observation {
            account: account.clone(),
            scope: scope.clone(),
            access: AccessKind::Gained,
            role: member.role.clone(),
            turn,
        };
        let known = self.known.accounts.get(&account.key.id);
        let Some((grant, basis)) =
            known.and_then(|known| known.grants.iter().find(|(grant, _)| grant.scope == scope.id))
        else {
            let turn = self.turn_of_gain(member, None);
            return Some(Difference {
                observed: observed(turn),
                ledger: LedgerSays::Nothing,
                basis: 0,
                is_later: true,
            });
        };
        let end = known.and_then(|known| self.end(grant, known));
        let ledger = match (&end, grant.kind) {
            (None, AccessKind::Gained) => return None,
            (None, _) => LedgerSays::Seen,
            (Some(_), _) => LedgerSays::Ended,
        };
        // Ids aren't used again: whose account was deleted is nobody who could be in a roster.
        if grant.key.turn == Turn::Final {
            return None;
        }
        let turn = self.turn_of_gain(member, Some(grant));
        let after_end = end.is_none_or(|end| self.at > end);
        let is_later = after_end && (grant.kind == AccessKind::Seen || self.comes_after(turn, false, grant));
        Some(Difference { observed: observed(turn), ledger, basis: *basis, is_later })
    }

    /// When a grant ended, if it isn't held.
    fn end(&self, grant: &Grant, known: &KnownAccount) -> Option<Timestamp> {
        let grants: Vec<Grant> = known.grants.iter().map(|(grant, _)| grant.clone()).collect();
        ended(grant, &grants, &self.roots).map(|end| match end {
            Ended::Lost(key)
            | Ended::ScopeLost(key)
            | Ended::ScopeMoved(key)
            | Ended::RootLost(key)
            | Ended::InstanceLost(key) => key.event_time,
        })
    }

    /// What an account holds, as far as the ledger knows, and the roster doesn't show.
    fn lost(&self, id: &String, known: &KnownAccount) -> Vec<Difference> {
        let mut lost = Vec::new();
        let mut ends_root = false;
        for (grant, basis) in &known.grants {
            if self.end(grant, known).is_some() {
                continue;
            }
            match self.roster.scopes.get(&grant.scope) {
                Some(listed) if listed.members.get(id).is_some_and(|member| member.active) => {}
                // Somebody who isn't in the root itself may have been given a part of it alone.
                Some(listed) if listed.scope.id == self.roster.root.id && self.keeps_a_part(id, known) => {}
                Some(listed) => {
                    lost.push(self.loss(known, &listed.scope, listed.members.get(id), Some((grant, *basis))))
                }
                // A part that the roster doesn't list: whoever is nowhere in the root isn't there either.
                None if !self.nature.exhaustive || self.active.contains(id) => {}
                None if self.roster.root.id.kind == ScopeKind::Group && grant.kind == AccessKind::Gained => {
                    // The loss of a group ends no membership of its own further down.
                    let part = self.roster.root.part(grant.scope.kind, grant.scope.id.clone(), None);
                    lost.push(self.loss(known, &part, None, Some((grant, *basis))));
                }
                None => ends_root = true,
            }
        }
        let root = &self.roster.root;
        let told = lost.iter().any(|difference| difference.observed.scope.id == root.id);
        let undecided = known.undecided && !self.active.contains(id) && !self.keeps_a_part(id, known);
        if (ends_root || undecided) && !told {
            let own = known.grants.iter().find(|(grant, _)| grant.scope == root.id);
            lost.push(self.loss(known, root, None, own.map(|(grant, basis)| (grant, *basis))));
        }
        lost
    }

    /// Whether the account has a part of the root that the root's loss would take from it: one that the roster lists, or
    /// one of which it says nothing. A group's loss takes none.
    fn keeps_a_part(&self, id: &String, known: &KnownAccount) -> bool {
        let unlisted = |grant: &Grant| !self.roster.scopes.contains_key(&grant.scope);
        let elsewhere = || known.grants.iter().any(|(grant, _)| unlisted(grant) && self.end(grant, known).is_none());
        (self.roster.root.id.kind != ScopeKind::Group && self.active.contains(id))
            || (!self.nature.exhaustive && elsewhere())
    }

    fn loss(
        &self,
        known: &KnownAccount,
        scope: &Scope,
        listed: Option<&Member>,
        grant: Option<(&Grant, i64)>,
    ) -> Difference {
        let (account, role) = match listed {
            Some(member) => (member.account.clone(), Some("blocked".to_owned())),
            None => (without_labels(&known.account), None),
        };
        let (latest, basis) = grant.unzip();
        let turn = self.turn_of_loss(listed, latest);
        let ledger = match latest {
            None => LedgerSays::Nothing,
            Some(grant) if self.end(grant, known).is_some() => LedgerSays::Ended,
            Some(grant) if grant.kind == AccessKind::Seen => LedgerSays::Seen,
            Some(_) => LedgerSays::Held,
        };
        let is_later = latest.is_none_or(|grant| {
            grant.key.event_time < self.at && (grant.kind == AccessKind::Seen || self.comes_after(turn, true, grant))
        });
        let observed = Observation { account, scope: scope.clone(), access: AccessKind::Lost, role, turn };
        Difference { observed, ledger, basis: basis.unwrap_or(0), is_later }
    }

    fn comes_after(&self, turn: Turn, loss: bool, grant: &Grant) -> bool {
        (turn, self.at, loss) > (grant.key.turn, grant.key.event_time, grant.key.loss)
    }

    /// A member's own record is what counts. If the ledger knows of a later one that has ended, this one has outlived it, as
    /// an invitation by way of another group does; if the member was blocked and isn't any more, the record was changed.
    fn turn_of_gain(&self, member: &Member, latest: Option<&Grant>) -> Turn {
        let Some(began) = member.began.filter(|_| self.nature.turns) else { return Turn::at(self.at) };
        let made = Turn::Of { began, step: Step::Made };
        match latest.filter(|grant| grant.kind == AccessKind::Lost).map(|grant| grant.key.turn) {
            Some(Turn::Of { began: ended, step: Step::Ended }) if ended >= began => {
                Turn::Of { began: ended.plus_micros(1), step: Step::Made }
            }
            Some(Turn::Of { began: known, .. }) if known >= began => Turn::Of { began: known, step: Step::Changed },
            _ => made,
        }
    }

    /// The end of the record that the ledger knows of; a member who is listed and blocked still has it.
    fn turn_of_loss(&self, listed: Option<&Member>, latest: Option<&Grant>) -> Turn {
        if !self.nature.turns {
            return Turn::at(self.at);
        }
        let known = latest.map(|grant| grant.key.turn);
        match (listed.and_then(|member| member.began), known) {
            (Some(began), Some(Turn::Of { began: known, .. })) => {
                Turn::Of { began: began.max(known), step: Step::Changed }
            }
            (Some(began), _) => Turn::Of { began, step: Step::Changed },
            (None, Some(Turn::Of { began, .. })) => Turn::Of { began, step: Step::Ended },
            (None, _) => Turn::Of { began: self.at, step: Step::Ended },
        }
    }
}

/// An account that isn't in the roster has the labels that it had: nothing of them was observed.
fn without_labels(account: &Account) -> Account {
    Account { node_id: None, login: None, email: None, ..account.clone() }
}

/// What a reading comes to, beside what the one before it showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What counts now, with the time at which it was shown first.
    pub confirmed: Vec<(Difference, Timestamp)>,
    /// What has to be shown again.
    pub pending: Vec<(Difference, Timestamp)>,
}

/// A reading's times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadingTimes {
    /// When it began.
    pub began: Timestamp,
    /// When it had come to its end.
    pub ended: Timestamp,
}

/// What of the differences counts: what an earlier reading had shown, far enough back, and nothing was recorded since.
#[must_use]
pub fn confirm(
    differences: Vec<Difference>,
    before: &ShownBefore,
    times: ReadingTimes,
    apart: std::time::Duration,
) -> Verdict {
    let mut verdict = Verdict::default();
    for difference in differences {
        let key = (difference.observed.scope.id.clone(), difference.observed.account.key.id.clone());
        let same = |shown: &&Shown| shown.access == difference.observed.access && shown.basis == difference.basis;
        match before.get(&key).filter(same) {
            Some(shown) if difference.is_later && times.began >= shown.first_at.plus(apart) => {
                verdict.confirmed.push((difference, shown.first_at));
            }
            Some(shown) => verdict.pending.push((difference, shown.first_at)),
            None => verdict.pending.push((difference, times.ended)),
        }
    }
    verdict
}

/// What is to be remembered of these until the next reading.
#[must_use]
pub fn shown(pending: &[(Difference, Timestamp)]) -> ShownBefore {
    let key = |difference: &Difference| -> (ScopeId, String) {
        (difference.observed.scope.id.clone(), difference.observed.account.key.id.clone())
    };
    let shown = |(difference, first_at): &(Difference, Timestamp)| {
        let access = difference.observed.access;
        (key(difference), Shown { access, first_at: *first_at, basis: difference.basis })
    };
    pending.iter().map(shown).collect()
}

#[cfg(test)]
mod tests;
