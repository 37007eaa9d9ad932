//! `installation`, `installation_target` and `meta`: whether the source itself still hears of anything.
//!
//! An app may be installed on many organisations and sends all of it to one endpoint: what happens to an installation
//! outside the source's roots is foreign.

use super::body::Body;
use super::payload::{Installation, Owner, TargetType, User};
use super::{GitHubInterpreter, owner_scope, unknown_action};
use crate::access::{Change, ScopeKind};
use crate::provider::{Meaning, Misshapen};

impl GitHubInterpreter {
    pub(super) fn installation(&self, body: &Body<'_>) -> Result<Meaning, Misshapen> {
        let ended = match body.action()?.as_str() {
            "deleted" => Some("uninstalled from"),
            "suspend" => Some("suspended for"),
            "created" | "unsuspend" => None,
            "new_permissions_accepted" => {
                return Ok(Meaning::nothing("the app's permissions changed, nobody's access"));
            }
            _ => return Ok(unknown_action()),
        };
        body.is("installation", &["installation"], &["repositories", "requester"])?;
        let Installation { account } = body.get("installation")?;
        let scope = account.map(|account| {
            let kind = match account.kind.as_deref() {
                Some("User") => ScopeKind::User,
                _ => ScopeKind::Org,
            };
            owner_scope(kind, account)
        });
        if scope.as_ref().is_some_and(|scope| !self.concerns(scope)) {
            return Ok(Meaning::nothing("the app's installation is on an account outside this source's scopes"));
        }
        let name = scope.and_then(|scope| scope.name).unwrap_or_else(|| "an account".to_owned());
        Ok(match ended {
            Some(ended) => Change::SourceBlind { why: format!("the GitHub App was {ended} {name}") },
            None => Change::SourceBack,
        }
        .into())
    }

    /// The one event by which GitHub tells that somebody's login changed.
    pub(super) fn installation_target(&self, body: &Body<'_>) -> Result<Meaning, Misshapen> {
        if body.action()? != "renamed" {
            return Ok(unknown_action());
        }
        body.is("installation_target", &["account", "target_type", "changes"], &[])?;
        Ok(match body.get("target_type")? {
            TargetType::Organization => {
                Change::ScopeRenamed { scope: owner_scope(ScopeKind::Org, body.get::<Owner>("account")?) }.into()
            }
            TargetType::User => match self.account(Some(body.get::<User>("account")?)) {
                Ok(account) => Change::Renamed { account }.into(),
                Err(why) => Meaning::nothing(why),
            },
            TargetType::Other => Meaning::nothing("what was renamed is neither a user nor an organisation"),
        })
    }

    pub(super) fn meta(&self, body: &Body<'_>) -> Result<Meaning, Misshapen> {
        if body.action()? != "deleted" {
            return Ok(unknown_action());
        }
        body.is("meta", &["hook", "hook_id"], &[])?;
        Ok(Change::SourceBlind { why: "the webhook was deleted at GitHub".to_owned() }.into())
    }
}
