//! `organization` and `org_block`: who is in an organisation.
//!
//! The action is the truth: GitHub's examples have `state: pending` in a `member_added`, and `role: unaffiliated` in a
//! `member_removed`. An `organization.deleted` has no key of its own, so that it is known by what it lacks.

use super::body::Body;
use super::payload::Membership;
use super::{GitHubInterpreter, owner_scope, unknown_action};
use crate::access::{AccessKind, Change, Scope, ScopeKind};
use crate::provider::{Meaning, Misshapen};

impl GitHubInterpreter {
    pub(super) fn organization(&self, body: &Body<'_>) -> Result<Meaning, Misshapen> {
        let (own, member) = (&["organization"][..], &["organization", "membership"][..]);
        let is = |has: &[&str], may: &[&str]| {
            body.is("organization", has, may)?;
            body.lacks("organization", "repository")
        };
        match body.action()?.as_str() {
            "member_added" => {
                is(member, &[])?;
                self.membership_changed(body, AccessKind::Gained)
            }
            "member_removed" => {
                is(member, &[])?;
                self.membership_changed(body, AccessKind::Lost)
            }
            "member_invited" => {
                is(&["organization", "invitation"], &["user"])?;
                Ok(Meaning::nothing("an invitation gives no access before it is accepted"))
            }
            "renamed" => {
                is(own, &["membership"])?;
                Ok(Change::ScopeRenamed { scope: the_organization(body)? }.into())
            }
            "deleted" => {
                body.is_only("organization", own, &["membership"])?;
                body.lacks("organization", "repository")?;
                Ok(Change::ScopeLost { scope: the_organization(body)? }.into())
            }
            _ => Ok(unknown_action()),
        }
    }

    fn membership_changed(&self, body: &Body<'_>, kind: AccessKind) -> Result<Meaning, Misshapen> {
        let membership: Membership = body.get("membership")?;
        Ok(self.access(membership.user, the_organization(body)?, kind))
    }

    /// Blocking is for people who aren't members, but it ends the access that an outside collaborator has.
    pub(super) fn org_block(&self, body: &Body<'_>) -> Result<Meaning, Misshapen> {
        match body.action()?.as_str() {
            "blocked" => {
                body.is("org_block", &["organization", "blocked_user"], &[])?;
                Ok(self.access(body.find("blocked_user")?, the_organization(body)?, AccessKind::Lost))
            }
            "unblocked" => {
                body.is("org_block", &["organization", "blocked_user"], &[])?;
                Ok(Meaning::nothing("being unblocked gives no access"))
            }
            _ => Ok(unknown_action()),
        }
    }
}

fn the_organization(body: &Body<'_>) -> Result<Scope, Misshapen> {
    Ok(owner_scope(ScopeKind::Org, body.get("organization")?))
}
