//! The parts of GitHub's bodies that rollcall reads, with no more fields than it uses.
//!
//! Lenient on everything else: GitHub adds fields, and its servers of other versions leave some out. What they mean is
//! the business of the event files.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};

pub(super) use crate::provider::fields::{Id, Label, text};

/// `null` is a value, but the key must be there. (Serde takes a missing key for `null` by itself.)
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

/// An account: a person's, a bot's, or one that can't have access at all.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an account")]
pub(in crate::provider::github) struct User {
    pub(super) id: Id,
    pub(super) node_id: Option<Label>,
    pub(in crate::provider::github) login: Option<Label>,
    pub(super) email: Option<Label>,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
}

/// `membership` of an `organization` event.
#[derive(Debug, Deserialize)]
#[serde(expecting = "a membership")]
pub(super) struct Membership {
    #[serde(deserialize_with = "nullable")]
    pub(super) user: Option<User>,
}

/// An organisation, or another owner of repositories.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an account")]
pub(super) struct Owner {
    pub(super) id: Id,
    pub(super) login: Option<Label>,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
}

/// A repository.
#[derive(Debug, Deserialize)]
#[serde(expecting = "a repository")]
pub(super) struct Repository {
    pub(super) id: Id,
    pub(super) name: Option<Label>,
    pub(super) full_name: Option<Label>,
    pub(super) owner: Option<Owner>,
}

/// A team. All that is left of a deleted one is `id` and `name`.
#[derive(Debug, Deserialize)]
#[serde(expecting = "a team")]
pub(super) struct Team {
    pub(super) id: Id,
    pub(super) name: Option<Label>,
}

/// `changes` of a `team.edited` event: only whether the name is among them.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub(super) struct TeamChanges {
    pub(super) name: Option<IgnoredAny>,
}

/// `changes` of a `repository.transferred` event.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub(super) struct Transfer {
    pub(super) owner: FormerOwner,
}

/// The owner before.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub(super) struct FormerOwner {
    pub(super) from: FormerOwnerKind,
}

/// One of the two.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub(super) struct FormerOwnerKind {
    pub(super) organization: Option<Owner>,
}

/// `installation` of an `installation` event. Other events have only its ids.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an installation")]
pub(super) struct Installation {
    #[serde(deserialize_with = "nullable")]
    pub(super) account: Option<Owner>,
}

/// `target_type` of an `installation_target` event: what `account` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub(super) enum TargetType {
    Organization,
    User,
    /// An enterprise, or what GitHub may invent.
    Other,
}

impl From<String> for TargetType {
    fn from(text: String) -> Self {
        match text.as_str() {
            "Organization" => Self::Organization,
            "User" => Self::User,
            _ => Self::Other,
        }
    }
}
