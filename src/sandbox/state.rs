//! What the sandbox knows: people, identities, connections and events. Every reply derives from it. No HTTP in here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::switches::Undocumented;
use crate::delivery::Timestamp;

/// A person at Drata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    /// The user id: what a link is set to. The personnel id is another, see [`Person::personnel_id`].
    pub id: i64,
    /// The e-mail address.
    pub email: String,
    /// The first name.
    #[serde(default)]
    pub first_name: String,
    /// The last name.
    #[serde(default)]
    pub last_name: String,
    /// Drata's employment status, such as `CURRENT_EMPLOYEE`.
    #[serde(default = "current_employee")]
    pub employment_status: String,
}

fn current_employee() -> String {
    "CURRENT_EMPLOYEE".to_owned()
}

impl Person {
    /// The id of the personnel record: always another than the user id, as in real accounts.
    #[must_use]
    pub const fn personnel_id(&self) -> i64 {
        self.id - 7
    }
}

/// A version-control identity: Drata's row for an account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The row's id: what a link is set on.
    pub id: i64,
    /// The provider's id of the account.
    pub identity_id: String,
    /// The account's login.
    pub username: String,
    /// The account's e-mail address.
    #[serde(default)]
    pub email: Option<String>,
    /// The connection it belongs to.
    pub connection_id: i64,
    /// That connection's client type.
    pub client_type: String,
    /// The person that it is linked to.
    #[serde(default)]
    pub user_id: Option<i64>,
    /// When it was linked.
    #[serde(skip_deserializing)]
    pub connected_at: Option<Timestamp>,
    /// When it was unlinked.
    #[serde(skip_deserializing)]
    pub disconnected_at: Option<Timestamp>,
    /// When it was marked as a service account.
    #[serde(skip_deserializing)]
    pub service_account: Option<Timestamp>,
    /// Why.
    #[serde(skip_deserializing)]
    pub service_account_reason: Option<String>,
}

/// Drata's own link to a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// Its id.
    pub id: i64,
    /// Its client type.
    pub client_type: String,
    /// The name that someone gave it.
    pub alias: Option<String>,
}

impl Connection {
    /// What kind of provider it is to.
    pub(super) fn provider_type(&self) -> &'static str {
        if self.client_type == "GOOGLE" { "IDENTITY" } else { "VERSION_CONTROL" }
    }
}

/// An entry of the event log.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) id: i64,
    pub(super) kind: &'static str,
    pub(super) description: String,
    pub(super) user_id: Option<i64>,
    pub(super) at: Timestamp,
}

/// The type of the event that a link leaves.
pub(super) const LINK_UPDATED: &str = "USER_IDENTITY_VERSION_CONTROL_LINK_UPDATED";
/// The type of the event that marking a service account leaves.
pub(super) const SERVICE_ACCOUNT_UPDATED: &str = "USER_IDENTITY_VERSION_CONTROL_SERVICE_ACCOUNT_UPDATED";

#[derive(Debug)]
pub(super) struct State {
    people: BTreeMap<i64, Person>,
    identities: BTreeMap<i64, Identity>,
    connections: BTreeMap<i64, Connection>,
    events: Vec<Event>,
    pub(super) undocumented: Undocumented,
    pub(super) terms_accepted: bool,
    pub(super) plan_paid: bool,
}

impl State {
    pub(super) fn new(
        connections: Vec<Connection>,
        undocumented: Undocumented,
        terms_accepted: bool,
        plan_paid: bool,
    ) -> Self {
        Self {
            people: BTreeMap::new(),
            identities: BTreeMap::new(),
            connections: connections.into_iter().map(|connection| (connection.id, connection)).collect(),
            events: Vec::new(),
            undocumented,
            terms_accepted,
            plan_paid,
        }
    }

    pub(super) fn put_person(&mut self, person: Person) {
        self.people.insert(person.id, person);
    }

    pub(super) fn remove_person(&mut self, id: i64) {
        self.people.remove(&id);
    }

    pub(super) fn put_identity(&mut self, identity: Identity) {
        let (id, client_type) = (identity.connection_id, identity.client_type.clone());
        self.connections.entry(id).or_insert(Connection { id, client_type, alias: None });
        self.identities.insert(identity.id, identity);
    }

    pub(super) fn remove_identity(&mut self, id: i64) {
        self.identities.remove(&id);
    }

    pub(super) fn people(&self) -> impl Iterator<Item = &Person> {
        self.people.values()
    }

    pub(super) fn person(&self, id: i64) -> Option<&Person> {
        self.people.get(&id)
    }

    pub(super) fn person_by_email(&self, email: &str) -> Option<&Person> {
        self.people.values().find(|person| person.email.eq_ignore_ascii_case(email))
    }

    pub(super) fn identities(&self) -> impl Iterator<Item = &Identity> {
        self.identities.values()
    }

    pub(super) fn identity(&self, id: i64) -> Option<&Identity> {
        self.identities.get(&id)
    }

    pub(super) fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.values()
    }

    pub(super) fn connection(&self, id: i64) -> Option<&Connection> {
        self.connections.get(&id)
    }

    /// The events, newest first.
    pub(super) fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().rev()
    }

    /// Links an identity to a person, or to nobody.
    pub(super) fn connect(&mut self, id: i64, user: Option<i64>, now: Timestamp) -> Result<&Identity, Problem> {
        let undocumented = self.undocumented;
        let known = user.is_none_or(|user| self.people.contains_key(&user));
        let row = self.identities.get_mut(&id).ok_or_else(Problem::not_found)?;
        if user.is_some() && row.service_account.is_some() {
            return Err(Problem::service_account(undocumented.service_account));
        }
        if !known {
            return Err(Problem::unknown_person(undocumented.unknown_person));
        }
        let same = row.user_id == user;
        row.user_id = user;
        match user {
            Some(_) if !same || undocumented.connected_at_moves || row.connected_at.is_none() => {
                row.connected_at = Some(now);
                row.disconnected_at = None;
            }
            None if !same => row.disconnected_at = Some(now),
            _ => {}
        }
        let description = match user {
            Some(user) => format!("Version control account {} was linked to user {user}", row.username),
            None => format!("Version control account {} was unlinked", row.username),
        };
        record(&mut self.events, LINK_UPDATED, description, user, now);
        Ok(row)
    }

    /// Marks an identity as a service account, or takes the mark away.
    pub(super) fn mark(&mut self, id: i64, marked: bool, reason: &str, now: Timestamp) -> Result<&Identity, Problem> {
        let row = self.identities.get_mut(&id).ok_or_else(Problem::not_found)?;
        row.service_account = marked.then_some(now);
        row.service_account_reason = marked.then(|| reason.to_owned());
        let description = format!("Version control account {}: service account {marked}", row.username);
        record(&mut self.events, SERVICE_ACCOUNT_UPDATED, description, None, now);
        Ok(row)
    }
}

fn record(events: &mut Vec<Event>, kind: &'static str, description: String, user_id: Option<i64>, at: Timestamp) {
    let id = i64::try_from(events.len()).map_or(i64::MAX, |count| count.saturating_add(1));
    events.push(Event { id, kind, description, user_id, at });
}
