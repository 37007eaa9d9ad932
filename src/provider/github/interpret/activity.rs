//! Activity as a sighting: only what needs write access, and only by `sender`, whom GitHub itself names.
//!
//! Never by the e-mail address of a commit or a pusher, which anybody may write. Issues, pull requests and comments
//! are no sightings: strangers may open them. Manual workflow runs need write access, says GitHub's page "Manually
//! running a workflow"; publishing a release does, says "Managing releases in a repository".

use super::GitHubInterpreter;
use super::body::Body;
use super::payload::User;
use super::repository::repository_scope;
use crate::access::AccessKind;
use crate::provider::{Meaning, Misshapen};

impl GitHubInterpreter {
    pub(super) fn push(&self, body: &Body<'_>) -> Result<Meaning, Misshapen> {
        let has = ["ref", "before", "after", "repository"];
        let may = ["base_ref", "commits", "compare", "created", "deleted", "forced", "head_commit", "pusher"];
        body.is("push", &has, &may)?;
        self.sighting(body)
    }

    pub(super) fn create(&self, body: &Body<'_>) -> Result<Meaning, Misshapen> {
        body.is("create", &["ref", "ref_type", "master_branch", "repository"], &["description", "pusher_type"])?;
        self.by_a_user(body)
    }

    pub(super) fn delete(&self, body: &Body<'_>) -> Result<Meaning, Misshapen> {
        body.is("delete", &["ref", "ref_type", "repository"], &["pusher_type"])?;
        self.by_a_user(body)
    }

    pub(super) fn release(&self, body: &Body<'_>) -> Result<Meaning, Misshapen> {
        if body.action()? != "published" {
            return Ok(Meaning::nothing("of a release's actions only its publication counts as a sighting"));
        }
        body.is("release", &["release", "repository"], &[])?;
        self.sighting(body)
    }

    pub(super) fn workflow_dispatch(&self, body: &Body<'_>) -> Result<Meaning, Misshapen> {
        body.is("workflow_dispatch", &["inputs", "workflow", "ref", "repository"], &[])?;
        self.sighting(body)
    }

    /// With a deploy key nobody was there: the sender is whoever once added the key.
    fn by_a_user(&self, body: &Body<'_>) -> Result<Meaning, Misshapen> {
        match body.find::<String>("pusher_type")?.as_deref() {
            Some("user") | None => self.sighting(body),
            Some(_) => Ok(Meaning::nothing("it was done with a deploy key, not by an account")),
        }
    }

    fn sighting(&self, body: &Body<'_>) -> Result<Meaning, Misshapen> {
        Ok(match body.find::<User>("sender")? {
            Some(sender) if matches!(sender.kind.as_deref(), Some("User" | "Bot")) => {
                self.access(Some(sender), repository_scope(body)?, AccessKind::Seen)
            }
            _ => Meaning::nothing("GitHub doesn't say which user or bot did it"),
        })
    }
}
