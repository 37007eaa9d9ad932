//! Rules, and what they make of bodies.

use rstest::rstest;

use super::*;
use crate::access::AccessKind;
use crate::provider::SourceSettings;
use crate::provider::trial::{self, access};
use serde_json::Value;

fn settings(own: &str) -> SourceSettings {
    SourceSettings { own: own.parse().unwrap(), ..trial::settings() }
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
    trial::interpreted(&DESCRIPTION, &settings(own), "joined", body)
}

#[test]
fn a_rule_finds_account_scope_and_time() {
    let body = json!({
        "event": { "name": "joined", "at": "2026-03-01T10:00:00Z" },
        "who": { "id": 71, "login": "rosalind", "mail": "rosalind@larkspur.example" },
        "where": { "id": "g-1", "name": "garden" },
    });
    let meaning = interpreted(OWN, &body).unwrap();
    assert_eq!(meaning.when.at, Some("2026-03-01T10:00:00Z".parse().unwrap()));
    let (account, scope, kind) = access(meaning);
    assert_eq!(kind, AccessKind::Gained);
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
    let (_, scope, kind) = access(meaning);
    assert_eq!((scope.id.kind, kind), (ScopeKind::Instance, AccessKind::Lost));
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
#[case("event = 7", "event", "string")]
#[case("rules = 7", "rules", "[[source.rules]]")]
#[case("[[rules]]\nevent = \"\"\nchange = \"lost\"\naccount = \"/id\"", "rules", "number 1: event is blank")]
#[case("[[rules]]\nevent = \"a\"\nchange = \"lost\"\naccount = \"id\"", "rules", "number 1: \"id\" is no JSON pointer")]
#[case(
    "[[rules]]\nevent = \"a\"\nchange = \"lost\"\naccount = \"/id\"\nscope_name = \"/n\"",
    "rules",
    "scope_name without scope"
)]
#[case(
    "[[rules]]\nevent = \"a\"\nchange = \"lost\"\naccount = \"/id\"\nscope = \"/n\"\nscope_kind = \"instance\"",
    "rules",
    "leave scope"
)]
#[case(
    "[[rules]]\nevent = \"a\"\nchange = \"lost\"\naccount = \"/id\"\n[[rules]]\nevent = \"a\"\nchange = \"seen\"\naccount = \"/id\"",
    "rules",
    "number 2: there is a rule for \"a\" already"
)]
#[case("[[rules]]\nevent = \"a\"\nchange = \"joined\"\naccount = \"/id\"", "rules", "joined")]
#[case("[[rules]]\nevent = \"a\"\nchange = \"lost\"", "rules", "account")]
#[case("[[rules]]\nevent = \"a\"\nchange = \"lost\"\naccount = \"/id\"\nacount = \"/id\"", "rules", "acount")]
#[case("rule = []", "rule", "did you mean rules?")]
fn wrong_rules_are_settings_errors(#[case] own: &str, #[case] key: &str, #[case] says: &str) {
    let error = (DESCRIPTION.interpreter)(&settings(own)).unwrap_err();
    assert!(error.key == key && error.message.contains(says), "{error}");
}

#[test]
fn the_rules_are_explained_in_sentences() {
    let explained = (DESCRIPTION.interpreter)(&settings(OWN)).unwrap().explained();
    assert_eq!(
        explained,
        [
            "the event is named at /event/name; all that no rule is about means nothing",
            "joined: the account at /who/id gained the group at /where/id, login at /who/login, e-mail at /who/mail, name of \
             it at /where/name, time at /event/at",
            "gone: the account at /who/id lost the instance git.larkspur.example",
        ]
    );
}

#[test]
fn a_key_that_comes_twice_where_a_rule_looks_parks_the_delivery() {
    let body = br#"{"event": {"name": "gone"}, "who": {"id": 1, "id": 2}}"#.to_vec();
    let interpreter = (DESCRIPTION.interpreter)(&settings(OWN)).unwrap();
    assert_eq!(interpreter.interpret(&trial::delivery(NAME, "gone", body)).unwrap_err().path, "/who");
}
