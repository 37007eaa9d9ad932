//! Rosters: who really has access, as a provider's own API lists it. What a webhook didn't tell, or couldn't, is told here.
//!
//! A provider's part is pure: which questions to ask of a root, and how to read each answer into members and further
//! questions. [`crate::roster`] asks them.

use std::collections::BTreeMap;

use super::api::{Answer, Ask, UnreadableAnswer};
use crate::access::{Account, RootPattern, Scope, ScopeId};
use crate::delivery::Timestamp;

/// How the rosters of a source are read.
pub trait Roster: Send + Sync + std::fmt::Debug {
    /// The first question about a root.
    ///
    /// # Errors
    /// Why the provider has no roster of such a root, and the way out.
    fn begin(&self, root: &RootPattern) -> Result<Question, String>;

    /// Reads an answer into what was found so far. Returns what else must be asked before the roster is whole.
    ///
    /// # Errors
    /// If the answer isn't what the provider documents, or shows that the token doesn't see everything.
    fn read(&self, question: &Question, answer: &Answer, found: &mut Found) -> Result<Vec<Question>, UnreadableAnswer>;

    /// Whether whoever isn't in a root's roster has no access to any part of the root either.
    fn is_exhaustive(&self) -> bool;

    /// Whether memberships are ordered by the provider's own record of them ([`crate::access::Turn`]), and not by time.
    fn has_turns(&self) -> bool {
        false
    }
}

/// A request, and what its answer is to tell.
#[derive(Clone, Debug)]
pub struct Question {
    /// What the answer is to tell.
    pub about: About,
    /// The request.
    pub ask: Ask,
    /// What the token needs for it, for people.
    pub needs: &'static str,
}

/// What an answer is to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// The root's id and name.
    Root,
    /// Who is in a scope; in which role, if the answer doesn't say.
    Members(Scope, Option<&'static str>),
    /// Which parts the root has, whose members are asked for next.
    Groups,
    /// The same of repositories.
    Repositories,
    /// Nothing but that the token sees everything: the request would be refused else.
    Sight,
}

impl Question {
    /// The same question, about the next page of its answer.
    #[must_use]
    pub fn next(&self, ask: Ask) -> Self {
        Self { ask, ..self.clone() }
    }
}

/// A member, as a roster lists one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The account.
    pub account: Account,
    /// The role, for people.
    pub role: Option<String>,
    /// When the membership began, by the provider's own record of it.
    pub began: Option<Timestamp>,
    /// Whether the provider lets the account in. A blocked one keeps its membership and has no access.
    pub active: bool,
}

/// Who is in one scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The scope.
    pub scope: Scope,
    /// The members by their stable ids.
    pub members: BTreeMap<String, Member>,
}

/// What was read of a root so far.
#[derive(Clone, Debug, Default)]
pub struct Found {
    root: Option<Scope>,
    scopes: BTreeMap<ScopeId, Listed>,
}

impl Found {
    /// Takes note of the root.
    pub fn root(&mut self, root: Scope) {
        self.scope(&root);
        self.root = Some(root);
    }

    /// The root, once it is known.
    #[must_use]
    pub const fn top(&self) -> Option<&Scope> {
        self.root.as_ref()
    }

    /// Takes note of a scope whose members are being listed; there may be none.
    pub fn scope(&mut self, scope: &Scope) -> &mut Listed {
        let listed = || Listed { scope: scope.clone(), members: BTreeMap::new() };
        self.scopes.entry(scope.id.clone()).or_insert_with(listed)
    }

    /// Takes note of a member. One that is listed again, as on the border of two pages or among the owners, is the same
    /// member.
    pub fn member(&mut self, scope: &Scope, member: Member) {
        let members = &mut self.scope(scope).members;
        match members.get_mut(&member.account.key.id) {
            Some(known) => {
                known.role = member.role.or_else(|| known.role.take());
                known.active |= member.active;
            }
            None => {
                members.insert(member.account.key.id.clone(), member);
            }
        }
    }

    /// The whole roster, once everything was asked.
    ///
    /// # Errors
    /// If nobody is in the root: whoever reads it would be, so it isn't the whole of it.
    pub fn whole(self) -> Result<Whole, UnreadableAnswer> {
        let Self { root: Some(root), scopes } = self else {
            return Err(UnreadableAnswer("it doesn't say what the root is".to_owned()));
        };
        if scopes.get(&root.id).is_none_or(|listed| listed.members.is_empty()) {
            let empty = "nobody is in it. An empty roster is taken for a token that doesn't see the members, never for \
                         everybody having left";
            return Err(UnreadableAnswer(empty.to_owned()));
        }
        Ok(Whole { root, scopes })
    }
}

/// A roster that was read to the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    /// The root.
    pub root: Scope,
    /// Who is in it, and in each of its parts that the provider lists.
    pub scopes: BTreeMap<ScopeId, Listed>,
}

impl Whole {
    /// How many accounts are let into the root or a part of it.
    #[must_use]
    pub fn accounts(&self) -> usize {
        let members = self.scopes.values().flat_map(|listed| &listed.members);
        members.filter(|(_, member)| member.active).map(|(id, _)| id).collect::<std::collections::BTreeSet<_>>().len()
    }
}
