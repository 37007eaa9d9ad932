//! Drata's JSON, only the fields used, read leniently: everything may be missing or `null`, numbers may be texts and
//! texts numbers. A field of any other kind makes its row unreadable; a guess about whom an account is linked to would
//! be worse.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::events::LinkEvent;
use crate::target::{Connection, Identity, IdentityRef, PersonId};

/// One page of a list, its rows still unread.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) data: Vec<Box<RawValue>>,
    pub(super) limit: Option<usize>,
    pub(super) total: Option<usize>,
}

impl Page {
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Envelope {
            data: Vec<Box<RawValue>>,
            limit: Option<Integer>,
            total: Option<Integer>,
        }
        let Envelope { data, limit, total } = serde_json::from_slice(body).ok()?;
        let count = |number: Option<Integer>| usize::try_from(number?.0).ok();
        Some(Self { data, limit: count(limit), total: count(total) })
    }
}

/// The body of a connect. The key must be there: `null` is what unlinks.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConnectBody {
    pub(super) user_id: Option<PersonId>,
}

/// Reads an identity.
pub(super) fn identity(json: &[u8]) -> Option<Identity> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row {
        id: Integer,
        identity_id: Option<Text>,
        username: Option<Text>,
        email: Option<Text>,
        user: Option<Reference>,
        service_account: Option<Mark>,
        connection: Option<Reference>,
    }
    let row: Row = serde_json::from_slice(json).ok()?;
    Some(Identity {
        id: IdentityRef(row.id.0),
        identity_id: filled(row.identity_id),
        username: filled(row.username),
        email: filled(row.email),
        person: referred(row.user).map(PersonId),
        service_account: row.service_account.is_some_and(|mark| mark.0),
        connection: referred(row.connection),
    })
}

/// Reads a connection. The inner `None` is one that rollcall can't use: deleted, or without a client type.
pub(super) fn connection(json: &[u8]) -> Option<(i64, Option<Connection>)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row {
        id: Integer,
        client_type: Option<Text>,
        client_alias: Option<Text>,
        deleted_at: Option<Mark>,
    }
    let row: Row = serde_json::from_slice(json).ok()?;
    let deleted = row.deleted_at.is_some_and(|mark| mark.0);
    let usable = filled(row.client_type).filter(|_| !deleted).map(|client_type| Connection {
        id: row.id.0,
        client_type,
        alias: filled(row.client_alias),
    });
    Some((row.id.0, usable))
}

/// Reads an entry of the event log, with its id.
pub(super) fn link_event(json: &[u8]) -> Option<(String, LinkEvent)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row {
        id: Text,
        created_at: Text,
        metadata: Option<Metadata>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        target_entity: Option<Reference>,
    }
    let row: Row = serde_json::from_slice(json).ok()?;
    let id = filled(Some(row.id))?;
    let identity = row.metadata.and_then(|metadata| referred(metadata.target_entity)).map(IdentityRef);
    Some((id.clone(), LinkEvent { id, at: filled(Some(row.created_at))?.parse().ok()?, identity }))
}

/// What a look-up by e-mail says of somebody.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) user_id: Option<PersonId>,
    pub(super) email: Option<String>,
    pub(super) name: (Option<String>, Option<String>),
    pub(super) employment: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct User {
    id: Option<Integer>,
    email: Option<Text>,
    first_name: Option<Text>,
    last_name: Option<Text>,
}

/// Reads a user.
pub(super) fn user(json: &[u8]) -> Option<Found> {
    let User { id, email, first_name, last_name } = serde_json::from_slice(json).ok()?;
    let name = (filled(first_name), filled(last_name));
    Some(Found { user_id: id.map(|id| PersonId(id.0)), email: filled(email), name, employment: None })
}

/// Reads a personnel record. Its own id is of another kind than the user's, and a link to it would be to a stranger.
pub(super) fn personnel(json: &[u8]) -> Option<Found> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row {
        employment_status: Option<Text>,
        email: Option<Text>,
        user: Option<User>,
    }
    let Row { employment_status, email, user } = serde_json::from_slice(json).ok()?;
    let User { id, email: of_user, first_name, last_name } =
        user.unwrap_or(User { id: None, email: None, first_name: None, last_name: None });
    Some(Found {
        user_id: id.map(|id| PersonId(id.0)),
        email: filled(of_user).or_else(|| filled(email)),
        name: (filled(first_name), filled(last_name)),
        employment: filled(employment_status),
    })
}

/// Something nested of which only the id matters. Drata cuts off what would recurse: `{}` refers to nothing.
#[derive(Deserialize)]
struct Reference {
    id: Option<Integer>,
}

fn referred(reference: Option<Reference>) -> Option<i64> {
    reference?.id.map(|id| id.0)
}

fn filled(text: Option<Text>) -> Option<String> {
    text.map(|text| text.0).filter(|text| !text.trim().is_empty())
}

/// A whole number, perhaps written as a text.
#[derive(Clone, Copy)]
struct Integer(i64);

/// A text, perhaps written as a number.
struct Text(String);

/// A date that says "marked, since then", or a plain yes or no.
struct Mark(bool);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Text(text) = Text::deserialize(deserializer)?;
        text.trim().parse().map(Self).map_err(|_| de::Error::custom("not a whole number"))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Scalar).and_then(|scalar| match scalar {
            Ok(text) => Ok(Self(text)),
            Err(_) => Err(de::Error::custom("not a text or number")),
        })
    }
}

impl<'de> Deserialize<'de> for Mark {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Scalar).map(|scalar| match scalar {
            Ok(text) => Self(!text.trim().is_empty()),
            Err(marked) => Self(marked),
        })
    }
}

/// Reads a text, or a number as one (`Ok`), or a yes or no (`Err`).
struct Scalar;

impl Visitor<'_> for Scalar {
    type Value = Result<String, bool>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, or a yes or no")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Ok(text.to_owned()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Ok(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Ok(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Ok(number.to_string()))
    }

    fn visit_bool<E>(self, marked: bool) -> Result<Self::Value, E> {
        Ok(Err(marked))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn read(value: &Value) -> Option<Identity> {
        identity(value.to_string().as_bytes())
    }

    #[test]
    fn the_documented_example_is_read() {
        let identity = identity(include_bytes!("fixtures/identity.json")).unwrap();
        let expected = Identity {
            id: IdentityRef(41),
            identity_id: Some("9f81c2".into()),
            username: Some("noor-h".into()),
            email: Some("noor.haddad@acme.example".into()),
            person: Some(PersonId(518)),
            service_account: true,
            connection: Some(12),
        };
        assert_eq!(identity, expected);
    }

    #[test]
    fn an_answer_may_nest_as_deeply_as_it_likes() {
        let mut deep = "{}".to_owned();
        for level in 0..500 {
            deep = format!(
                r#"{{"id":{level},"identities":[{{"id":"{level}","user":{deep},"connection":{{"user":{{}}}}}}]}}"#
            );
        }
        let json = format!(r#"{{"user":{deep},"id":7}}"#);
        assert_eq!(identity(json.as_bytes()).unwrap().person, Some(PersonId(499)));
    }

    #[rstest]
    #[case::omitted(json!({"id": 1}))]
    #[case::null(json!({"id": 1, "user": null}))]
    #[case::cut_off(json!({"id": 1, "user": {}}))]
    #[case::a_null_id(json!({"id": 1, "user": {"id": null}}))]
    #[case::everything_null(json!({"id": "1", "identityId": null, "username": null, "email": null, "user": null,
        "serviceAccount": null, "connection": null}))]
    #[case::everything_empty(json!({"id": "1", "identityId": "", "username": " ", "email": "", "user": {},
        "serviceAccount": "", "connection": {}}))]
    fn an_identity_without_a_person_is_unlinked(#[case] row: Value) {
        let expected = Identity {
            id: IdentityRef(1),
            identity_id: None,
            username: None,
            email: None,
            person: None,
            service_account: false,
            connection: None,
        };
        assert_eq!(read(&row), Some(expected));
    }

    #[test]
    fn numbers_may_be_texts_and_texts_numbers() {
        let row = json!({"id": "41", "identityId": 583231, "user": {"id": "518"}, "connection": {"id": 12}, "serviceAccount": true});
        let identity = read(&row).unwrap();
        assert_eq!((identity.id, identity.identity_id.as_deref()), (IdentityRef(41), Some("583231")));
        assert_eq!(
            (identity.person, identity.connection, identity.service_account),
            (Some(PersonId(518)), Some(12), true)
        );
    }

    #[rstest]
    #[case(json!({"identityId": "1"}))]
    #[case(json!({"id": 1, "user": {"id": "somebody"}}))]
    #[case(json!({"id": 1, "user": 518}))]
    #[case(json!({"id": 1, "user": {"id": 5.5}}))]
    #[case(json!({"id": 1, "username": ["maya"]}))]
    #[case(json!([]))]
    fn an_identity_that_would_take_a_guess_is_unreadable(#[case] row: Value) {
        assert_eq!(read(&row), None);
    }

    #[test]
    fn personnel_are_known_by_their_user() {
        let row =
            json!({"id": 511, "employmentStatus": "CURRENT_EMPLOYEE", "user": {"id": 518, "email": "a@acme.example"}});
        let found = personnel(row.to_string().as_bytes()).unwrap();
        assert_eq!((found.user_id, found.employment.as_deref()), (Some(PersonId(518)), Some("CURRENT_EMPLOYEE")));
        assert_eq!(personnel(br#"{"id": 511}"#).unwrap().user_id, None);
    }

    #[test]
    fn a_deleted_connection_and_one_without_a_client_type_are_of_no_use() {
        let read = |row: Value| connection(row.to_string().as_bytes());
        assert!(read(json!({"id": 1, "clientType": "GITHUB", "deletedAt": null})).unwrap().1.is_some());
        assert_eq!(read(json!({"id": 1, "clientType": "GITHUB", "deletedAt": "2025-01-07"})), Some((1, None)));
        assert_eq!(read(json!({"id": 1, "clientType": null})), Some((1, None)));
        assert_eq!(read(json!({"clientType": "GITHUB"})), None);
    }

    #[test]
    fn an_unlink_says_null_and_does_not_leave_the_key_out() {
        let body = |user_id| serde_json::to_string(&ConnectBody { user_id }).unwrap();
        assert_eq!((body(None), body(Some(PersonId(5)))), (r#"{"userId":null}"#.into(), r#"{"userId":5}"#.into()));
    }
}
