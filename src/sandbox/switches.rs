//! One switch for each thing that Drata's documentation leaves open, so that rollcall can be tried against every answer.

use std::fmt;
use std::str::FromStr;

/// Which of an account's ids the `identityId` of an identity holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdentityForm {
    /// As it was given: for the invented company, the provider's numeric id.
    #[default]
    Numeric,
    /// A GitHub node id made from the numeric id.
    Node,
    /// The login.
    Login,
}

/// How the `q` of a list finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueryMatch {
    /// The whole value.
    Exact,
    /// How it begins.
    Prefix,
    /// Anywhere in it.
    #[default]
    Substring,
}

/// What the `user` of an unlinked identity is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnlinkedUser {
    /// `{}`.
    Empty,
    /// `null`.
    #[default]
    Null,
    /// Not there.
    Omitted,
}

/// One switch and its setting, written `key=value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// `identity-id=numeric|node|login`.
    IdentityId(IdentityForm),
    /// `q=exact|prefix|substring`.
    Query(QueryMatch),
    /// `unknown-person=404|400`: the answer to a link to a user id that doesn't exist.
    UnknownPerson(u16),
    /// `unknown-email=404|400`: the answer to a look-up by an e-mail address that doesn't exist.
    UnknownEmail(u16),
    /// `service-account=409|400`: the answer to a link of a service account.
    ServiceAccount(u16),
    /// `connected-at=moves|stays`: whether the same PUT again moves `connectedAt`.
    ConnectedAtMoves(bool),
    /// `unlinked-user=empty|null|omitted`.
    UnlinkedUser(UnlinkedUser),
}

/// All switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undocumented {
    /// Which id `identityId` holds.
    pub identity_id: IdentityForm,
    /// How `q` finds.
    pub query: QueryMatch,
    /// The status for an unknown user id in a link.
    pub unknown_person: u16,
    /// The status for an unknown e-mail address in a look-up.
    pub unknown_email: u16,
    /// The status for a link of a service account.
    pub service_account: u16,
    /// Whether the same PUT again moves `connectedAt`.
    pub connected_at_moves: bool,
    /// What the `user` of an unlinked identity is.
    pub unlinked_user: UnlinkedUser,
}

impl Default for Undocumented {
    fn default() -> Self {
        Self {
            identity_id: IdentityForm::default(),
            query: QueryMatch::default(),
            unknown_person: 404,
            unknown_email: 404,
            service_account: 409,
            connected_at_moves: false,
            unlinked_user: UnlinkedUser::default(),
        }
    }
}

impl Undocumented {
    /// Sets one switch.
    pub fn set(&mut self, switch: Switch) {
        match switch {
            Switch::IdentityId(form) => self.identity_id = form,
            Switch::Query(how) => self.query = how,
            Switch::UnknownPerson(status) => self.unknown_person = status,
            Switch::UnknownEmail(status) => self.unknown_email = status,
            Switch::ServiceAccount(status) => self.service_account = status,
            Switch::ConnectedAtMoves(moves) => self.connected_at_moves = moves,
            Switch::UnlinkedUser(user) => self.unlinked_user = user,
        }
    }

    /// All switches with their settings.
    pub(super) fn switches(&self) -> [Switch; 7] {
        [
            Switch::IdentityId(self.identity_id),
            Switch::Query(self.query),
            Switch::UnknownPerson(self.unknown_person),
            Switch::UnknownEmail(self.unknown_email),
            Switch::ServiceAccount(self.service_account),
            Switch::ConnectedAtMoves(self.connected_at_moves),
            Switch::UnlinkedUser(self.unlinked_user),
        ]
    }
}

impl FromIterator<Switch> for Undocumented {
    fn from_iter<T: IntoIterator<Item = Switch>>(switches: T) -> Self {
        let mut all = Self::default();
        switches.into_iter().for_each(|switch| all.set(switch));
        all
    }
}

/// A switch that isn't one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no switch; there are {known}", known = SETTINGS.join(", "))]
pub struct InvalidSwitch(String);

const SETTINGS: &[&str] = &[
    "identity-id=numeric|node|login",
    "q=exact|prefix|substring",
    "unknown-person=404|400",
    "unknown-email=404|400",
    "service-account=409|400",
    "connected-at=stays|moves",
    "unlinked-user=null|empty|omitted",
];

impl FromStr for Switch {
    type Err = InvalidSwitch;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.trim() {
            "identity-id=numeric" => Self::IdentityId(IdentityForm::Numeric),
            "identity-id=node" => Self::IdentityId(IdentityForm::Node),
            "identity-id=login" => Self::IdentityId(IdentityForm::Login),
            "q=exact" => Self::Query(QueryMatch::Exact),
            "q=prefix" => Self::Query(QueryMatch::Prefix),
            "q=substring" => Self::Query(QueryMatch::Substring),
            "unknown-person=404" => Self::UnknownPerson(404),
            "unknown-person=400" => Self::UnknownPerson(400),
            "unknown-email=404" => Self::UnknownEmail(404),
            "unknown-email=400" => Self::UnknownEmail(400),
            "service-account=409" => Self::ServiceAccount(409),
            "service-account=400" => Self::ServiceAccount(400),
            "connected-at=stays" => Self::ConnectedAtMoves(false),
            "connected-at=moves" => Self::ConnectedAtMoves(true),
            "unlinked-user=null" => Self::UnlinkedUser(UnlinkedUser::Null),
            "unlinked-user=empty" => Self::UnlinkedUser(UnlinkedUser::Empty),
            "unlinked-user=omitted" => Self::UnlinkedUser(UnlinkedUser::Omitted),
            other => return Err(InvalidSwitch(other.to_owned())),
        })
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IdentityId(IdentityForm::Numeric) => f.write_str("identity-id=numeric"),
            Self::IdentityId(IdentityForm::Node) => f.write_str("identity-id=node"),
            Self::IdentityId(IdentityForm::Login) => f.write_str("identity-id=login"),
            Self::Query(QueryMatch::Exact) => f.write_str("q=exact"),
            Self::Query(QueryMatch::Prefix) => f.write_str("q=prefix"),
            Self::Query(QueryMatch::Substring) => f.write_str("q=substring"),
            Self::UnknownPerson(status) => write!(f, "unknown-person={status}"),
            Self::UnknownEmail(status) => write!(f, "unknown-email={status}"),
            Self::ServiceAccount(status) => write!(f, "service-account={status}"),
            Self::ConnectedAtMoves(moves) => write!(f, "connected-at={}", if *moves { "moves" } else { "stays" }),
            Self::UnlinkedUser(UnlinkedUser::Null) => f.write_str("unlinked-user=null"),
            Self::UnlinkedUser(UnlinkedUser::Empty) => f.write_str("unlinked-user=empty"),
            Self::UnlinkedUser(UnlinkedUser::Omitted) => f.write_str("unlinked-user=omitted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_setting_is_read_and_written_alike() {
        for setting in SETTINGS {
            let (key, values) = setting.split_once('=').unwrap();
            for value in values.split('|') {
                let text = format!("{key}={value}");
                assert_eq!(text.parse::<Switch>().unwrap().to_string(), text);
            }
        }
    }

    #[test]
    fn the_first_listed_value_is_the_default() {
        let defaults: Vec<String> = Undocumented::default().switches().iter().map(ToString::to_string).collect();
        for setting in SETTINGS.iter().filter(|setting| !setting.starts_with("q=")) {
            assert!(defaults.contains(&setting.split('|').next().unwrap().to_owned()), "{setting}");
        }
        assert!(defaults.contains(&"q=substring".to_owned()));
    }

    #[test]
    fn a_wrong_switch_lists_the_right_ones() {
        let error = "identity=node".parse::<Switch>().unwrap_err().to_string();
        assert!(error.contains("\"identity=node\" is no switch") && error.contains("identity-id=numeric|node|login"));
    }
}
