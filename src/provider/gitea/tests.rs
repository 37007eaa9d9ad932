//! Sightings and the signature inside a form, with invented people.

use bytes::Bytes;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::delivery::{SecretName, Timestamp, Unverified};
use crate::provider::Secret;
use crate::provider::trial::{self, access, told};

fn interpreted(event: &str, body: &Value) -> Result<Meaning, Misshapen> {
    trial::interpreted(&FORGEJO, &trial::settings(), event, body)
}

fn body(mark: &str) -> Value {
    let user = |id: u64, login: &str| json!({ "id": id, "login": login, "email": format!("{login}@larkspur.example") });
    json!({
        mark: "there", "sender": user(71, "rosalind"),
        "repository": { "id": 9, "name": "beds", "full_name": "garden/beds", "private": false, "owner": user(2, "garden") },
    })
}

#[rstest]
#[case("push", "ref")]
#[case("create", "ref")]
#[case("delete", "ref")]
#[case("release.published", "release")]
fn whoever_changes_a_repository_is_seen_in_it(#[case] event: &str, #[case] mark: &str) {
    let (account, scope, kind) = access(interpreted(event, &body(mark)).unwrap());
    assert_eq!(kind, AccessKind::Seen);
    assert_eq!(account.key.to_string(), "forgejo@git.larkspur.example:#71");
    assert_eq!(account.email.as_deref(), Some("rosalind@larkspur.example"));
    assert_eq!((scope.top_id().to_string(), scope.top_name()), ("org:#2".into(), Some("garden")));
    assert_eq!(scope.name.as_deref(), Some("garden/beds"));
    assert_eq!(interpreted(event, &body("other")).unwrap_err().path, mark);
    for foreign in ["issue", "comment", "forkee", "pull_request"] {
        let mut another = body(mark);
        another[foreign] = json!({});
        assert_eq!(interpreted(event, &another).unwrap_err().path, foreign);
    }
}

/// A comment's event may be called a review's.
#[test]
fn a_body_of_another_event_does_not_pass_for_one_of_a_pull_request() {
    for foreign in ["issue", "comment", "forkee", "ref", "release"] {
        let mut body = body("pull_request");
        body["repository"]["private"] = true.into();
        assert_eq!(told(&interpreted("pull_request_comment", &body).unwrap()), "seen repo");
        body[foreign] = json!({});
        assert_eq!(interpreted("pull_request_comment", &body).unwrap_err().path, foreign);
    }
}

#[test]
fn on_a_pull_request_only_members_of_a_private_repository_are_seen() {
    let mut body = body("pull_request");
    for event in ["pull_request.opened", "pull_request_approved.reviewed", "pull_request_comment"] {
        body["repository"]["private"] = false.into();
        assert!(interpreted(event, &body).unwrap().changes.is_empty());
        body["repository"]["private"] = true.into();
        assert_eq!(told(&interpreted(event, &body).unwrap()), "seen repo");
    }
}

#[test]
fn older_versions_leave_out_what_only_labels() {
    let mut old = body("ref");
    old["sender"] = json!({ "id": 71, "username": "rosalind" });
    old["repository"] = json!({ "id": 9 });
    let (account, scope, _) = access(interpreted("push", &old).unwrap());
    assert_eq!((account.login.as_deref(), account.email, scope.name), (Some("rosalind"), None, None));
    assert_eq!(scope.root, None);
    old["pusher"] = old["sender"].take();
    assert_eq!(access(interpreted("push", &old).unwrap()).0.key.id, "71");
}

#[test]
fn the_server_itself_and_deleted_users_are_nobody() {
    for id in [-1, -2, 0] {
        let mut body = body("ref");
        body["sender"]["id"] = id.into();
        assert!(interpreted("push", &body).unwrap().changes.is_empty());
    }
    for (part, key) in [("sender", "id"), ("repository", "id"), ("sender", ""), ("repository", "")] {
        let mut body = body("ref");
        match key {
            "" => body[part] = Value::Null,
            key => drop(body[part].as_object_mut().unwrap().remove(key)),
        }
        assert_eq!(told(&interpreted("push", &body).unwrap()), "-", "{part}");
    }
    let mut body = body("ref");
    body["sender"]["id"] = "rosalind".into();
    assert_eq!(interpreted("push", &body).unwrap_err().path, "sender.id");
}

#[test]
fn the_truth_table_is_what_the_code_does() {
    for row in EVENTS {
        let event = row.event.replace('*', "");
        let event = event.trim_end_matches('.');
        let mark = if event == "release" || event == "pull_request" { event } else { "ref" };
        let mut told_of = Vec::new();
        for private in [true, false] {
            let mut body = body(mark);
            body["repository"]["private"] = private.into();
            told_of.push(told(&interpreted(event, &body).unwrap()));
        }
        told_of.dedup();
        assert_eq!(row.change, told_of.join(" or "), "{}", row.event);
    }
}

#[test]
fn the_signature_is_over_the_json_text_inside_a_form_and_nothing_else_may_be_in_it() {
    let secret = Secret { name: SecretName("env:S".into()), value: "s".into() };
    let verifier = (GOGS.verifier)(&trial::settings(), vec![secret]).unwrap();
    let mut headers = HeaderMap::new();
    let tag =
        crate::provider::signature::HmacKey::of_bytes(SecretName("env:S".into()), b"s").unwrap().sign(&[br#"{"a":1}"#]);
    headers.insert("x-gogs-signature", tag.to_string().parse().unwrap());
    let verified = |form: &'static str| {
        let form = Bytes::from_static(form.as_bytes());
        let verified = verifier.verify(Unverified::new(&headers, &form, GOGS.encodings), Timestamp(0));
        // What was signed, however it was written, so that nobody makes another delivery of it.
        verified.inspect(|verified| assert_eq!(verified.body(), br#"{"a":1}"#.as_slice(), "{form:?}")).is_ok()
    };
    assert!(verified("payload=%7B%22a%22%3A1%7D"));
    // The same text, otherwise written.
    assert!(verified("payload=%7b%22a%22:1}"));
    assert!(verified("payload=%7B%22%61%22%3A%31%7D"));
    assert!(!verified("other=%7B%22a%22%3A1%7D"));
    assert!(!verified("payload=%7B%22a%22%3A1%7D&b=2"));
    assert!(!verified("payload=%7B%22a%22%3A1%7D&payload=%7B%22a%22%3A1%7D"));
    assert!(!verified("payload=%7B%22a%22%3A1%7D&"));
    // As JSON it is the same text, whatever the content type says.
    assert!(verified("{\"a\":1}"));
}
