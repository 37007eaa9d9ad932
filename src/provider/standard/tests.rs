//! Rules, and what they make of bodies.

use rstest::rstest;

use super::*;
use crate::delivery::{Encoding, SecretName};

fn settings(own: &str) -> SourceSettings {
    SourceSettings {
        name: "larkspur".parse().unwrap(),
        host: "git.larkspur.example".to_owned(),
        roots: Vec::new(),
        sightings: false,
        verify: None,
        header: None,
        own: own.parse().unwrap(),
    }
}

const OWN: &str = r#"
event = "/event/name"
[[rules]]
event = "joined"
change = "gained"
account = "/who/id"
login = "/who/login"
email = "/who/mail"
scope = "/where/id"
scope_kind = "group"
scope_name = "/where/name"
at = "/event/at"
[[rules]]
event = "gone"
change = "lost"
account = "/who/id"
"#;

fn interpreted(own: &str, body: &Value) -> Result<Meaning, Misshapen> {
    let delivery = Delivery {
        source: "larkspur".parse().unwrap(),
        provider: NAME.to_owned(),
        id: "d-1".parse().unwrap(),
        event: "joined".parse().unwrap(),
        encoding: Encoding::Json,
        received_at: Timestamp(1_790_000_000_000_000),
        secret: SecretName("env:S".into()),
        stamp: None,
        replay: None,
        body: body.to_string().into_bytes().into(),
    };
    (DESCRIPTION.interpreter)(&settings(own)).unwrap().interpret(&delivery)
}

#[test]
fn a_rule_finds_account_scope_and_time() {
    let body = json!({
        "event": { "name": "joined", "at": "2026-03-01T10:00:00Z" },
        "who": { "id": 71, "login": "rosalind", "mail": "rosalind@larkspur.example" },
        "where": { "id": "g-1", "name": "garden" },
    });
    let meaning = interpreted(OWN, &body).unwrap();
    assert_eq!(meaning.at, Some("2026-03-01T10:00:00Z".parse().unwrap()));
    let [Change::Access { account, scope, kind: AccessKind::Gained }] = meaning.changes.as_slice() else {
        panic!("{meaning:?}")
    };
    assert_eq!(account.key.to_string(), "standard-webhooks@git.larkspur.example:#71");
    assert_eq!(
        (account.login.as_deref(), account.email.as_deref()),
        (Some("rosalind"), Some("rosalind@larkspur.example"))
    );
    assert_eq!((scope.id.to_string().as_str(), scope.name.as_deref()), ("group:#g-1", Some("garden")));
}

#[test]
fn a_rule_without_a_scope_is_about_the_instance_and_an_event_without_a_rule_means_nothing() {
    let meaning = interpreted(OWN, &json!({ "event": { "name": "gone" }, "who": { "id": "x" } })).unwrap();
    let [Change::Access { scope, kind: AccessKind::Lost, .. }] = meaning.changes.as_slice() else {
        panic!("{meaning:?}")
    };
    assert_eq!(scope.id.kind, ScopeKind::Instance);
    for body in [json!({ "event": { "name": "other" } }), json!([]), json!({})] {
        assert!(interpreted(OWN, &body).unwrap().changes.is_empty());
    }
}

#[rstest]
#[case(json!({ "event": { "name": "gone" } }), "/who/id")]
#[case(json!({ "event": { "name": "gone" }, "who": { "id": "" } }), "/who/id")]
#[case(json!({ "event": { "name": "gone" }, "who": { "id": 1.5 } }), "/who/id")]
#[case(json!({ "event": { "name": "joined", "at": 1 }, "who": { "id": 1 } }), "/where/id")]
#[case(json!({ "event": { "name": "joined", "at": "soon" }, "who": { "id": 1 }, "where": { "id": 1 } }), "/event/at")]
fn what_a_rule_needs_and_does_not_find_parks_the_delivery(#[case] body: Value, #[case] path: &str) {
    assert_eq!(interpreted(OWN, &body).unwrap_err().path, path);
}

#[rstest]
#[case("event = \"type\"", "event", "is no JSON pointer")]
#[case("[[rules]]\nevent = \"a\"\nchange = \"joined\"\naccount = \"/id\"", "rules", "joined")]
#[case("[[rules]]\nevent = \"a\"\nchange = \"lost\"", "rules", "account")]
#[case("[[rules]]\nevent = \"a\"\nchange = \"lost\"\naccount = \"/id\"\nacount = \"/id\"", "rules", "acount")]
#[case("rule = []", "rule", "did you mean rules?")]
fn wrong_rules_are_settings_errors(#[case] own: &str, #[case] key: &str, #[case] says: &str) {
    let error = (DESCRIPTION.interpreter)(&settings(own)).unwrap_err();
    assert!(error.key == key && error.message.contains(says), "{error}");
}
