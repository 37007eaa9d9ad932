//! How the state looks on the wire, odd sides included: objects nest and are cut off with `{}`, and a connection's id
//! is a text inside an identity and a number in the list of connections.
//!
//! <https://developers.drata.com/docs/openapi/reference/operation/UserIdentitiesPublicController_updateUserIdentityVersionControlConnection>

use serde_json::{Map, Value, json};

use super::state::{Connection, Event, Identity, Person, State};
use super::switches::{IdentityForm, UnlinkedUser};
use crate::delivery::Timestamp;

/// When everything in the sandbox that has no time of its own came to be.
const FOUNDED: &str = "2025-01-07T09:00:00.000Z";

pub(super) fn identity(state: &State, row: &Identity) -> Value {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    put("id", json!(row.id));
    put("identityId", json!(shown_identity_id(row, state.undocumented.identity_id)));
    put("username", json!(row.username));
    put("email", json!(row.email));
    put("connectedAt", date(row.connected_at));
    put("disconnectedAt", date(row.disconnected_at));
    put("serviceAccount", date(row.service_account));
    put("serviceAccountReason", json!(row.service_account_reason));
    match (row.user_id, state.undocumented.unlinked_user) {
        // Someone who was deleted since is still what the identity is linked to.
        (Some(id), _) => put("user", state.person(id).map_or_else(|| json!({ "id": id }), user)),
        (None, UnlinkedUser::Empty) => put("user", json!({})),
        (None, UnlinkedUser::Null) => put("user", Value::Null),
        (None, UnlinkedUser::Omitted) => None,
    };
    put("serviceAccountDesignator", Value::Null);
    put("hasMfa", json!(true));
    put("connection", state.connection(row.connection_id).map_or_else(|| json!({}), nested_connection));
    put("lastCheckedAt", json!(FOUNDED));
    put("createdAt", json!(FOUNDED));
    put("updatedAt", json!(FOUNDED));
    put("writeAccess", json!(FOUNDED));
    put("pushProductionCodeAccess", Value::Null);
    Value::Object(object)
}

pub(super) fn user(person: &Person) -> Value {
    json!({
        "id": person.id,
        "email": person.email,
        "firstName": person.first_name,
        "lastName": person.last_name,
        "jobTitle": null,
        "avatarUrl": null,
        "drataTermsAgreedAt": FOUNDED,
        "createdAt": FOUNDED,
        "updatedAt": FOUNDED,
        "roles": ["EMPLOYEE"],
        "backgroundChecks": [{
            "id": person.id + 4_000,
            "userId": person.id,
            "status": "OK",
            "type": "MANUAL",
            "source": "DRATA",
            "user": {},
        }],
        "identities": [],
    })
}

pub(super) fn personnel(person: &Person) -> Value {
    let former = person.employment_status.contains("FORMER");
    json!({
        "id": person.personnel_id(),
        "employmentStatus": person.employment_status,
        "user": user(person),
        "startDate": "2025-01-07",
        "separationDate": if former { Value::from("2025-06-30") } else { Value::Null },
        "statusUpdatedAt": null,
        "createdAt": FOUNDED,
        "updatedAt": FOUNDED,
    })
}

pub(super) fn connection(connection: &Connection) -> Value {
    json!({
        "id": connection.id,
        "clientType": connection.client_type,
        "state": "ACTIVE",
        "connected": true,
        "connectedAt": FOUNDED,
        "failedAt": null,
        "clientId": null,
        "clientAlias": connection.alias,
        "aliasUpdatedAt": null,
        "deletedAt": null,
        "providerTypes": [{ "value": connection.provider_type(), "isEnabled": true }],
        "code": null,
        "groupLabel": null,
    })
}

fn nested_connection(of: &Connection) -> Value {
    let mut value = connection(of);
    if let Value::Object(object) = &mut value {
        object.insert("id".to_owned(), json!(of.id.to_string()));
        object.insert("user".to_owned(), json!({}));
        object.insert("product".to_owned(), json!(""));
    }
    value
}

/// <https://developers.drata.com/openapi/reference/v1/overview/>: `EventResponsePublicDto`.
pub(super) fn event(state: &State, event: &Event) -> Value {
    json!({
        "id": format!("00000000-0000-4000-8000-{:012}", event.id),
        "type": event.kind,
        "category": "USER_IDENTITY",
        "source": "PUBLIC_API",
        "description": event.description,
        "metadata": { "targetEntity": null },
        "status": null,
        "createdAt": date(Some(event.at)),
        "user": event.user_id.and_then(|id| state.person(id)).map(user),
        "connection": null,
        "requestDescription": null,
        "issues": [],
    })
}

fn date(at: Option<Timestamp>) -> Value {
    let at = at.and_then(|at| chrono::DateTime::from_timestamp_micros(at.micros()));
    at.map_or(Value::Null, |at| json!(at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)))
}

/// What `identityId` shows of an account.
pub(super) fn shown_identity_id(row: &Identity, form: IdentityForm) -> String {
    match form {
        IdentityForm::Numeric => row.identity_id.clone(),
        IdentityForm::Node => base64(format!("04:User{}", row.identity_id).as_bytes()),
        IdentityForm::Login => row.username.clone(),
    }
}

/// Standard Base64 with padding, as in GitHub's older node ids.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = char::from(ALPHABET[bits >> (18 - 6 * place) & 63]);
            text.push(if place <= chunk.len() { letter } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_is_what_github_makes_of_the_numeric_one() {
        let row = Identity { identity_id: "583231".into(), username: "octocat".into(), ..Identity::default() };
        assert_eq!(shown_identity_id(&row, IdentityForm::Node), "MDQ6VXNlcjU4MzIzMQ==");
        assert_eq!(base64(b"04:User7"), "MDQ6VXNlcjc=");
        assert_eq!(base64(b"04:User12"), "MDQ6VXNlcjEy");
    }
}
