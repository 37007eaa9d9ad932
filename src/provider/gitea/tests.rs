//! Sightings and the signature inside a form, with invented people.

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::delivery::{Encoding, SecretName, Timestamp, Unverified};
use crate::provider::{Secret, SourceSettings};

fn settings() -> SourceSettings {
    SourceSettings {
        name: "larkspur".parse().unwrap(),
        host: "git.larkspur.example".to_owned(),
        roots: Vec::new(),
        sightings: false,
        verify: None,
        header: None,
        own: toml::Table::new(),
    }
}

fn interpreted(event: &str, body: &serde_json::Value) -> Result<Meaning, Misshapen> {
    let delivery = Delivery {
        source: "larkspur".parse().unwrap(),
        provider: "forgejo".to_owned(),
        id: "d-1".parse().unwrap(),
        event: event.parse().unwrap(),
        encoding: Encoding::Json,
        received_at: Timestamp(1_790_000_000_000_000),
        secret: SecretName("env:S".into()),
        stamp: None,
        replay: None,
        body: body.to_string().into_bytes().into(),
    };
    (FORGEJO.interpreter)(&settings()).unwrap().interpret(&delivery)
}

#[test]
fn whoever_pushes_is_seen_in_the_repository() {
    let user = |id: u64, login: &str| json!({ "id": id, "login": login, "email": format!("{login}@larkspur.example") });
    let body = json!({
        "ref": "refs/heads/main", "sender": user(71, "rosalind"),
        "repository": { "id": 9, "name": "beds", "full_name": "garden/beds", "owner": user(2, "garden") },
    });
    let meaning = interpreted("push", &body).unwrap();
    let [Change::Access { account, scope, kind: AccessKind::Seen }] = meaning.changes.as_slice() else {
        panic!("{meaning:?}")
    };
    assert_eq!(account.key.to_string(), "forgejo@git.larkspur.example:#71");
    assert_eq!(account.email.as_deref(), Some("rosalind@larkspur.example"));
    assert_eq!((scope.top_name(), scope.name.as_deref()), (Some("garden"), Some("garden/beds")));
    assert!(interpreted("issues.opened", &body).unwrap().changes.is_empty());
    assert_eq!(interpreted("push", &json!({ "sender": { "id": 0 } })).unwrap_err().path, "sender.id");
}

#[test]
fn the_signature_is_over_the_json_text_inside_a_form() {
    let secret = Secret { name: SecretName("env:S".into()), value: "s".into() };
    let verifier = (GOGS.verifier)(&settings(), vec![secret]).unwrap();
    let mut headers = HeaderMap::new();
    // HMAC-SHA256 of {"a":1} under the key s.
    let tag =
        crate::provider::signature::HmacKey::of_bytes(SecretName("env:S".into()), b"s").unwrap().sign(&[br#"{"a":1}"#]);
    headers.insert("x-gogs-signature", tag.to_string().parse().unwrap());
    let form = Bytes::from_static(b"payload=%7B%22a%22%3A1%7D");
    let request = Unverified { headers: &headers, encoding: Encoding::Form, body: &form };
    verifier.verify(request, Timestamp(0)).unwrap();
    let without = Bytes::from_static(b"other=%7B%22a%22%3A1%7D");
    let request = Unverified { headers: &headers, encoding: Encoding::Form, body: &without };
    verifier.verify(request, Timestamp(0)).unwrap_err();
}
