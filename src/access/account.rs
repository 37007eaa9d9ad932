//! Accounts, and how people name them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::delivery::InvalidName;

/// A user account at a provider, named by what never changes: provider, host (from the configuration, never from a
/// header) and the provider's stable id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccountKey {
    /// The provider's name in the registry.
    pub provider: String,
    /// The host that the source is configured for.
    pub host: String,
    /// The provider's stable id of the account.
    pub id: String,
}

impl fmt::Display for AccountKey {
    /// `github@github.com:#583231`; [`AccountPattern`] reads it back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:#{}", self.provider, self.host, self.id)
    }
}

/// An account as an event speaks of it. Login and e-mail are labels that change and are reused by others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Account {
    /// What never changes.
    pub key: AccountKey,
    /// The provider's second id of the same account, where it has one (GitHub's node id).
    pub node_id: Option<String>,
    /// The login at the time of the event.
    pub login: Option<String>,
    /// The e-mail address that the event gives for the account itself. Never one of a commit or a pusher.
    pub email: Option<String>,
    /// Whether a person or a machine uses it.
    pub kind: AccountKind,
}

/// Whether a person or a machine uses an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountKind {
    /// A person, as far as the provider tells.
    #[default]
    Person,
    /// A bot, an app or a service account: never linked.
    Bot,
}

/// How people name an account on the command line and in `people.csv`: `github:octocat`,
/// `github@git.acme.example:octocat`, `github:#583231`, or just `octocat` where that is enough.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct AccountPattern {
    /// The provider, if given.
    pub provider: Option<String>,
    /// The host, if given.
    pub host: Option<String>,
    /// The stable id or the login.
    pub name: AccountName,
}

/// The last part of an [`AccountPattern`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountName {
    /// `#583231`: the stable id.
    Id(String),
    /// A login, compared without regard to case.
    Login(String),
}

impl FromStr for AccountPattern {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |why| InvalidName { what: "account", why };
        let (place, name) = match text.trim().split_once(':') {
            Some((place, name)) => (Some(place), name),
            None => (None, text.trim()),
        };
        let name = match name.strip_prefix('#') {
            Some("") => return Err(invalid("has no id after '#'")),
            Some(id) => AccountName::Id(id.to_owned()),
            None if name.is_empty() => return Err(invalid("has no login; write github:octocat or github:#583231")),
            None => AccountName::Login(name.to_owned()),
        };
        let (provider, host) = match place {
            Some(place) => match place.split_once('@') {
                Some((provider, host)) if !provider.is_empty() && !host.is_empty() => (Some(provider), Some(host)),
                None if !place.is_empty() => (Some(place), None),
                _ => return Err(invalid("has an empty provider or host; write github@git.acme.example:octocat")),
            },
            None => (None, None),
        };
        Ok(Self { provider: provider.map(str::to_owned), host: host.map(str::to_owned), name })
    }
}

impl fmt::Display for AccountPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(provider) = &self.provider {
            f.write_str(provider)?;
            if let Some(host) = &self.host {
                write!(f, "@{host}")?;
            }
            f.write_str(":")?;
        }
        match &self.name {
            AccountName::Id(id) => write!(f, "#{id}"),
            AccountName::Login(login) => f.write_str(login),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_named_as_people_write_them() {
        for text in ["octocat", "github:octocat", "github@git.acme.example:octocat", "github:#583231"] {
            assert_eq!(text.parse::<AccountPattern>().unwrap().to_string(), text);
        }
        assert!("github:".parse::<AccountPattern>().is_err());
        assert!("@x:y".parse::<AccountPattern>().is_err());
        assert!("github:#".parse::<AccountPattern>().is_err());
    }
}
