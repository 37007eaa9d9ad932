//! `member` (collaborators of a repository) and `repository` (the repository as a whole).
//!
//! Only an outside collaborator loses all access with a repository; whether that is so is for the grants to say.

use super::body::Body;
use super::payload::{Repository, Transfer, text};
use super::{GitHubInterpreter, organization, owner_scope, part_of, unknown_action};
use crate::access::{AccessKind, Change, Place, Scope, ScopeId, ScopeKind, place};
use crate::provider::{Meaning, Misshapen};

impl GitHubInterpreter {
    pub(super) fn member(&self, body: &Body<'_>) -> Result<Meaning, Misshapen> {
        let kind = match body.action()?.as_str() {
            // An edit is another role: less access, but access.
            "added" | "edited" => AccessKind::Gained,
            "removed" => AccessKind::Lost,
            _ => return Ok(unknown_action()),
        };
        body.is("member", &["member", "repository"], &[])?;
        Ok(self.access(body.find("member")?, repository_scope(body)?, kind))
    }

    pub(super) fn repository(&self, body: &Body<'_>) -> Result<Meaning, Misshapen> {
        match body.action()?.as_str() {
            "deleted" => {
                body.is_only("repository", &["repository"], &[])?;
                Ok(Change::ScopeLost { scope: repository_scope(body)? }.into())
            }
            "transferred" => {
                body.is("repository", &["repository", "changes"], &[])?;
                Ok(Change::ScopeMoved { scope: self.in_our_roots(repository_scope(body)?, body)? }.into())
            }
            "renamed" => {
                body.is("repository", &["repository", "changes"], &[])?;
                Ok(Change::ScopeRenamed { scope: repository_scope(body)? }.into())
            }
            "created" | "edited" | "archived" | "unarchived" | "privatized" | "publicized" => {
                Ok(Meaning::nothing("collaborators stay as they are"))
            }
            _ => Ok(unknown_action()),
        }
    }

    /// GitHub tells only the new owner of a transfer. An enterprise's hook hears of it all the same, and there the
    /// grants are still known under the former owner: it is that root which must not call the news foreign.
    fn in_our_roots(&self, scope: Scope, body: &Body<'_>) -> Result<Scope, Misshapen> {
        if place(&self.roots, &scope) != Place::Foreign {
            return Ok(scope);
        }
        let transfer: Transfer = body.get("changes")?;
        let former = transfer.owner.from.organization.map(|owner| owner_scope(ScopeKind::Org, owner));
        Ok(match former {
            Some(former) if place(&self.roots, &former) != Place::Foreign => {
                let ScopeId { kind, id } = scope.id;
                former.part(kind, id, scope.name)
            }
            _ => scope,
        })
    }
}

/// The repository, in the organisation that the body names, else in its owner.
pub(super) fn repository_scope(body: &Body<'_>) -> Result<Scope, Misshapen> {
    let repository: Repository = body.get("repository")?;
    let root = match (organization(body)?, repository.owner) {
        (Some(organization), _) => Some(organization),
        (None, Some(owner)) => match owner.kind.as_deref() {
            Some("Organization") => Some(owner_scope(ScopeKind::Org, owner)),
            Some("User") => Some(owner_scope(ScopeKind::User, owner)),
            _ => None,
        },
        (None, None) => None,
    };
    let name = text(repository.full_name).or_else(|| text(repository.name));
    Ok(part_of(root.as_ref(), ScopeKind::Repo, repository.id, name))
}
