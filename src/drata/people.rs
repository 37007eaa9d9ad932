//! People: one by e-mail address, or all of them.

use reqwest::Method;
use serde_json::value::RawValue;

use super::call::Operation;
use super::client::Client;
use super::wire::{self, Found};
use crate::target::{Failure, FailureClass, PersonId};

/// A person at Drata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The user id, which a link takes. Never the personnel id.
    pub id: PersonId,
    /// The e-mail address, if the answer had it.
    pub email: Option<String>,
    /// The first and the last name, as far as the answer had them.
    pub name: (Option<String>, Option<String>),
    /// The employment status, such as `FORMER_EMPLOYEE`, if the answer had it.
    pub employment: Option<String>,
}

impl Person {
    /// Whether they are known to have left. The words are those of
    /// [personnel](https://developers.drata.com/openapi/reference/v1/tag/Personnel/).
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.employment.as_deref().is_some_and(|status| status.contains("FORMER"))
    }
}

impl Client {
    /// The person with this e-mail address, compared without regard to case. Remembered for some minutes; that there is
    /// nobody, for some seconds.
    ///
    /// # Errors
    /// If Drata can't be asked, or refuses. That nobody has the address is no failure.
    pub async fn person_by_email(&self, email: &str) -> Result<Option<Person>, Failure> {
        let email = email.trim();
        // Without an "@" it is no address, and as a path it might mean something else (a user id, a list).
        if !email.contains('@') {
            return Ok(None);
        }
        let key = email.to_lowercase();
        if let Some(person) = self.shared.people.recall(&key) {
            return Ok(person);
        }
        let person = self.ask_for_person(email).await?;
        let settings = &self.shared.settings;
        let ttl = if person.is_some() { settings.person_ttl } else { settings.absent_person_ttl };
        self.shared.people.keep(key, person.clone(), ttl);
        Ok(person)
    }

    /// All people, in as few requests as there are pages: from the personnel list, which also tells the employment status,
    /// or from the users if that is out of the key's reach.
    ///
    /// # Errors
    /// If Drata can't be asked, refuses, or its list can't be read to the end.
    pub async fn people(&self) -> Result<Vec<Person>, Failure> {
        let read = |found: Option<Found>| found.and_then(|found| Some((found.user_id?.0, told(found)?)));
        let personnel = |row: &RawValue| read(wire::personnel(row.get().as_bytes()));
        match self.list(Operation::ListPersonnel, &["personnel"], &[], personnel).await {
            Err(failure) if failure.status == Some(403) => {
                let user = |row: &RawValue| read(wire::user(row.get().as_bytes()));
                self.list(Operation::ListUsers, &["users"], &[], user).await
            }
            listed => listed,
        }
    }

    /// Makes the next [`Client::person_by_email`] for this address ask Drata.
    pub fn forget_person(&self, email: &str) {
        self.shared.people.forget(&email.trim().to_lowercase());
    }

    /// Makes the next [`Client::person_by_email`] for this address ask Drata, if it is remembered that nobody has it.
    pub fn forget_absence(&self, email: &str) {
        let key = email.trim().to_lowercase();
        if self.shared.people.recall(&key) == Some(None) {
            self.shared.people.forget(&key);
        }
    }

    /// Asks for personnel first, which also tells the employment status. That may be out of the key's reach (403) where
    /// users are not.
    async fn ask_for_person(&self, email: &str) -> Result<Option<Person>, Failure> {
        let request = self.request(Method::GET, &["personnel", email, "email"]);
        match self.send(Operation::FindPersonnel, request, None).await {
            Ok(body) => {
                if let Some(found) = body.as_deref().and_then(wire::personnel).filter(|found| found.user_id.is_some()) {
                    return Ok(person(found, email));
                }
            }
            Err(failure) if says_nobody(&failure) || failure.status == Some(403) => {}
            Err(failure) => return Err(failure),
        }
        let request = self.request(Method::GET, &["users", email, "email"]);
        match self.send(Operation::FindUser, request, None).await {
            Ok(body) => match body.as_deref().and_then(wire::user) {
                Some(found) => Ok(person(found, email)),
                None => Err(Failure {
                    class: FailureClass::Transient,
                    status: Some(200),
                    retry_after: None,
                    message: "Drata's answer about a person can't be read".to_owned(),
                }),
            },
            Err(failure) if says_nobody(&failure) => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

/// 404 is documented for personnel only, and 400 has been seen for what isn't found.
fn says_nobody(failure: &Failure) -> bool {
    matches!(failure.status, Some(404 | 400))
}

/// The person found, unless it is somebody with another address.
fn person(found: Found, asked: &str) -> Option<Person> {
    if found.email.as_deref().is_some_and(|email| email.trim().to_lowercase() != asked.to_lowercase()) {
        tracing::warn!("Drata found somebody with another e-mail address than the one asked for");
        return None;
    }
    told(found)
}

fn told(found: Found) -> Option<Person> {
    let Found { user_id, email, name, employment } = found;
    Some(Person { id: user_id?, email, name, employment })
}
