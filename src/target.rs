//! The words in which rollcall speaks of a compliance platform, whichever it is.
//!
//! This is vocabulary: it uses nothing of ours. [`crate::drata`] turns it into Drata's requests, and
//! [`crate::reconcile`] decides with it; neither sees the other's words.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The platform's id of a person: at Drata the user id, not the personnel id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PersonId(pub i64);

impl fmt::Display for PersonId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The platform's row for an account: what a link is set on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IdentityRef(pub i64);

impl fmt::Display for IdentityRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Who a person is, as the people map or an event says it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PersonRef {
    /// The platform's own id.
    Id(PersonId),
    /// An e-mail address, compared without regard to case.
    Email(String),
}

impl fmt::Display for PersonRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "user:{id}"),
            Self::Email(email) => f.write_str(email),
        }
    }
}

impl std::str::FromStr for PersonRef {
    type Err = InvalidPerson;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if let Some(id) = text.strip_prefix("user:") {
            return id.parse().map(|id| Self::Id(PersonId(id))).map_err(|_| InvalidPerson::Id(text.to_owned()));
        }
        match text.split_once('@') {
            Some((name, domain)) if !name.is_empty() && !domain.is_empty() => Ok(Self::Email(text.to_lowercase())),
            _ => Err(InvalidPerson::Neither(text.to_owned())),
        }
    }
}

/// A text that names no person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPerson {
    /// It begins like an id.
    #[error("person {0:?} isn't user: and a number; the user id, not the personnel id")]
    Id(String),
    /// It is neither an id nor an address.
    #[error("person {0:?} is neither an e-mail address nor user:518")]
    Neither(String),
}

/// From where it is known whose an account is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PersonFrom {
    /// An operator has said so.
    Operator,
    /// The people map's file says so.
    PeopleFile,
    /// The person has the account's e-mail address, as an event gave it.
    EventEmail,
    /// The person has the e-mail address of the account's identity at the platform.
    IdentityEmail,
    /// The platform had it linked already.
    Platform,
}

impl PersonFrom {
    /// All of them, in the order in which they count.
    pub const ALL: [Self; 5] =
        [Self::Operator, Self::PeopleFile, Self::EventEmail, Self::IdentityEmail, Self::Platform];

    /// The word used everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::PeopleFile => "people_file",
            Self::EventEmail => "event_email",
            Self::IdentityEmail => "identity_email",
            Self::Platform => "platform",
        }
    }

    /// What it means, for people.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Operator => "an operator said so",
            Self::PeopleFile => "people.csv says so",
            Self::EventEmail => "the person has the account's own e-mail address, as an event gave it",
            Self::IdentityEmail => "the person has the e-mail address that the platform has for the account",
            Self::Platform => "the platform had it linked already",
        }
    }

    /// The one with that word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|from| from.as_str() == word)
    }
}

/// The connection status of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkStatus {
    /// Linked to this person.
    Linked(PersonId),
    /// Linked to nobody.
    Unlinked,
}

impl fmt::Display for LinkStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linked(person) => write!(f, "linked to {person}"),
            Self::Unlinked => f.write_str("unlinked"),
        }
    }
}

/// The platform's own link to a provider, as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionRef {
    /// The connection with this id.
    Id(i64),
    /// The only connection of this client type (`GITHUB`): never guessed between two.
    Only(String),
}

impl fmt::Display for ConnectionRef {
    /// The form in which the ledger keeps it; [`std::str::FromStr`] reads it back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Only(client_type) => f.write_str(client_type),
        }
    }
}

impl std::str::FromStr for ConnectionRef {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.parse().map_or_else(|_| Self::Only(text.to_owned()), Self::Id))
    }
}

/// One connection that the platform lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Connection {
    /// Its id.
    pub id: i64,
    /// Its client type, such as `GITHUB`.
    pub client_type: String,
    /// The name that someone gave it, if any.
    pub alias: Option<String>,
}

/// What an identity looked like when it was read. Everything but the id may be missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// The row to set a link on.
    pub id: IdentityRef,
    /// The provider's id of the account; which of its ids isn't documented.
    pub identity_id: Option<String>,
    /// The account's login, as of the platform's last sync.
    pub username: Option<String>,
    /// The account's e-mail address, as of the platform's last sync.
    pub email: Option<String>,
    /// The person it is linked to.
    pub person: Option<PersonId>,
    /// Whether it is marked as a service account, which can't be linked.
    pub service_account: bool,
    /// The connection it belongs to.
    pub connection: Option<i64>,
}

impl Identity {
    /// The status it was read with.
    #[must_use]
    pub fn status(&self) -> LinkStatus {
        self.person.map_or(LinkStatus::Unlinked, LinkStatus::Linked)
    }
}

/// What kind of failure a call to the platform was: it decides what happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// 5xx, time-out or a broken connection: try again; the actual status is unknown.
    Transient,
    /// 429: wait and try again; costs no attempt.
    Throttled,
    /// 401, 402, 403 or 412: it seems that all calls are refused.
    RefusedAll,
    /// 404: what was looked up is gone.
    Stale,
    /// 400, 409 and every other 4xx: refused for good.
    Refused,
}

impl FailureClass {
    /// The word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Throttled => "throttled",
            Self::RefusedAll => "refused_all",
            Self::Stale => "stale",
            Self::Refused => "refused",
        }
    }
}

/// A call to the platform that didn't succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What happens next.
    pub class: FailureClass,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// How long to wait, if the answer said so.
    pub retry_after: Option<Duration>,
    /// One sentence for people: the platform's message, shortened, without personal data of ours added.
    pub message: String,
}

impl Failure {
    /// Whether another try of the same call may help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self.class, FailureClass::Transient | FailureClass::Throttled)
    }
}
