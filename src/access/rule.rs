//! The rule of desired statuses: what a set of grants means for an account.

use serde::Serialize;

use super::{AccessKind, ChangeKey, ScopeId, ScopeKind, Turn};

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
/// * Losing a part isn't leaving. Losing a root ends every part of it with an earlier time. A root that is a group
///   doesn't when only the account lost it: a membership in a group further down is one of its own, which goes on unless
///   it is ended too (<https://gitlab.com/gitlab-org/gitlab/-/merge_requests/55980>). It does end what was only seen.
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
    let later = |end: Option<&'a ChangeKey>| end.filter(|end| end.is_after(&grant.key));
    let root = grant.root.as_ref().unwrap_or(&grant.scope);
    let of_its_own = root.kind == ScopeKind::Group && grant.kind == AccessKind::Gained;
    let root_end = end_of(root, grants, roots).filter(|end| !of_its_own || end.turn == Turn::Final);
    let root_end = root_end.or_else(|| end_as_a_whole(root, grants, roots));
    later(grant.scope_lost.as_ref())
        .map(Ended::ScopeLost)
        .or_else(|| later(grant.scope_moved.as_ref()).map(Ended::ScopeMoved))
        .or_else(|| later(root_end).map(Ended::RootLost))
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
    own.chain(end_as_a_whole(scope, grants, roots)).max_by(|a, b| a.by_time().cmp(&b.by_time()))
}

/// The latest loss of `scope` as a whole.
fn end_as_a_whole<'a>(scope: &ScopeId, grants: &'a [Grant], roots: &'a [Root]) -> Option<&'a ChangeKey> {
    let grant_scope = grants.iter().filter(|g| g.scope == *scope).filter_map(|g| g.scope_lost.as_ref());
    let whole = roots.iter().filter(|root| root.scope.as_ref() == Some(scope)).filter_map(|root| root.lost.as_ref());
    grant_scope.chain(whole).max_by(|a, b| a.by_time().cmp(&b.by_time()))
}

fn end_of_instance<'a>(grants: &'a [Grant], roots: &'a [Root]) -> Option<&'a ChangeKey> {
    let instances = grants.iter().map(|g| &g.scope).chain(roots.iter().filter_map(|root| root.scope.as_ref()));
    instances
        .filter(|scope| scope.kind == ScopeKind::Instance)
        .filter_map(|scope| end_of(scope, grants, roots))
        .max_by(|a, b| a.by_time().cmp(&b.by_time()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Step;
    use crate::delivery::Timestamp;

    fn key(time: i64, loss: bool) -> ChangeKey {
        ChangeKey {
            turn: Turn::at(Timestamp(time)),
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
    fn whoever_leaves_a_group_keeps_memberships_of_their_own_further_down_and_nothing_that_was_only_seen() {
        let group = |id: &str| ScopeId { kind: ScopeKind::Group, id: id.into() };
        let roots = [Root { scope: Some(group("42")), name: "group 42".into(), lost: None }];
        let left = Grant { scope: group("42"), ..grant(ScopeKind::Group, "42", AccessKind::Lost, 9) };
        let below = |kind, what| Grant { root: Some(group("42")), ..grant(kind, "7", what, 5) };
        let member = below(ScopeKind::Group, AccessKind::Gained);
        assert!(matches!(access(&[left.clone(), member.clone()], &roots), Access::Held { .. }));
        let seen = below(ScopeKind::Repo, AccessKind::Seen);
        assert_eq!(access(&[left.clone(), seen], &roots), Access::Gone);
        let mut deleted = roots.clone();
        deleted[0].lost = Some(key(10, true));
        assert_eq!(access(&[left.clone(), member.clone()], &deleted), Access::Gone);
        let mut for_good = left;
        for_good.key.turn = Turn::Final;
        assert_eq!(access(&[for_good, member], &roots), Access::Gone);
    }

    #[test]
    fn the_end_of_an_account_ends_what_is_told_of_it_later_too() {
        let mut late = grant(ScopeKind::Group, "7", AccessKind::Gained, 50);
        late.root = Some(ScopeId { kind: ScopeKind::Instance, id: "git.acme.example".into() });
        let mut end = grant(ScopeKind::Instance, "git.acme.example", AccessKind::Lost, 6);
        assert!(matches!(access(&[late.clone(), end.clone()], &[]), Access::Held { .. }));
        end.key.turn = Turn::Final;
        assert!(matches!(ended(&late, &[late.clone(), end.clone()], &[]), Some(Ended::RootLost(_))));
    }

    #[test]
    fn a_turn_decides_within_a_grant_and_time_between_grants() {
        let row = |began, step, time| ChangeKey {
            turn: Turn::Of { began: Timestamp(began), step },
            ..key(time, step == Step::Ended)
        };
        // Removed long after the last change, and made anew: the times of receipt say nothing.
        assert!(row(1, Step::Ended, 2) > row(1, Step::Changed, 90));
        assert!(row(3, Step::Made, 1) > row(1, Step::Ended, 90));
        assert!(row(1, Step::Ended, 90).is_after(&row(3, Step::Made, 1)));
    }

    #[test]
    fn a_tie_in_time_goes_to_the_loss() {
        let mut gained = key(5, false);
        gained.delivery = "zzz".parse().unwrap();
        assert!(key(5, true) > gained);
    }
}
