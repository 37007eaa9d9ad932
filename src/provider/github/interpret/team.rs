//! `membership` (who is in a team) and `team` (the team as a whole).

use super::body::Body;
use super::payload::TeamChanges;
use super::{GitHubInterpreter, team_scope, unknown_action};
use crate::access::{AccessKind, Change};
use crate::provider::{Meaning, Misshapen};

/// Why a team's access to a repository changes nothing here.
pub(super) const INDIRECT: &str =
    "it changes what the team's members may do, not who is in the team; who is in the organisation is what counts";

impl GitHubInterpreter {
    pub(super) fn membership(&self, body: &Body<'_>) -> Result<Meaning, Misshapen> {
        let kind = match body.action()?.as_str() {
            "added" => AccessKind::Gained,
            "removed" => AccessKind::Lost,
            _ => return Ok(unknown_action()),
        };
        let of_organization = kind == AccessKind::Lost && body.get::<String>("scope")? == "organization";
        if of_organization && !body.has("team") {
            // GitHub's schema allows it, its documentation doesn't know it. Leaving the organisation has its own event.
            body.is("membership", &["member", "scope"], &[])?;
            return Ok(Meaning::nothing("no team is named; `organization.member_removed` tells who left"));
        }
        body.is("membership", &["member", "team", "scope"], &[])?;
        let mut meaning = self.access(body.find("member")?, team_scope(body)?, kind);
        if of_organization && meaning.note.is_none() {
            meaning.note = Some("its scope is the organisation; only the team's loss is taken from it".to_owned());
        }
        Ok(meaning)
    }

    pub(super) fn team(&self, body: &Body<'_>) -> Result<Meaning, Misshapen> {
        match body.action()?.as_str() {
            "deleted" => {
                body.is("team", &["team"], &[])?;
                Ok(Change::ScopeLost { scope: team_scope(body)? }.into())
            }
            "edited" => {
                body.is("team", &["team", "changes"], &[])?;
                match body.get::<TeamChanges>("changes")?.name {
                    Some(_) => Ok(Change::ScopeRenamed { scope: team_scope(body)? }.into()),
                    None => Ok(Meaning::nothing(INDIRECT)),
                }
            }
            "created" => Ok(Meaning::nothing("who is in a new team is told by `membership` events")),
            "added_to_repository" | "removed_from_repository" => Ok(Meaning::nothing(INDIRECT)),
            _ => Ok(unknown_action()),
        }
    }
}
