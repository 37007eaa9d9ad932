//! `user`: accounts of a whole instance of Enterprise Server, sent to its global hooks.

use super::GitHubInterpreter;
use super::body::Body;
use super::unknown_action;
use crate::access::{AccessKind, Scope, ScopeKind};
use crate::provider::{Meaning, Misshapen};

impl GitHubInterpreter {
    pub(super) fn user(&self, body: &Body<'_>) -> Result<Meaning, Misshapen> {
        let kind = match body.action()?.as_str() {
            "created" => AccessKind::Gained,
            "deleted" => AccessKind::Lost,
            _ => return Ok(unknown_action()),
        };
        body.is("user", &["user"], &[])?;
        let instance = Scope::top(ScopeKind::Instance, self.host.clone(), Some(self.host.clone()));
        Ok(self.access(body.find("user")?, instance, kind))
    }
}
