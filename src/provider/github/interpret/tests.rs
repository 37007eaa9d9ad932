//! Every fixture against the truth table, against every other event's name, and with every part of it broken.

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use super::marks::{COMMON, MARKS};
use super::*;
use crate::delivery::{SecretName, Timestamp};
use crate::provider::github::events::EVENTS;

const CLOUD: &str = "github.com";
const SERVER: &str = "git.larkspur.example";

/// A body as GitHub would send it. The file is named for its event, with `~variant` where there are several.
struct Fixture {
    name: String,
    event: String,
    json: Vec<u8>,
}

fn fixtures() -> Vec<Fixture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/provider/github/fixtures");
    let mut fixtures: Vec<Fixture> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().strip_suffix(".json").unwrap().to_owned();
            let event = name.split('~').next().unwrap().to_owned();
            Fixture { name, event, json: std::fs::read(path).unwrap() }
        })
        .collect();
    fixtures.sort_by(|a, b| a.name.cmp(&b.name));
    fixtures
}

fn fixture(name: &str) -> Value {
    let found = fixtures().into_iter().find(|fixture| fixture.name == name).unwrap();
    serde_json::from_slice(&found.json).unwrap()
}

fn source(host: &str, roots: &[&str], sightings: bool) -> GitHubInterpreter {
    let roots = roots.iter().map(|root| root.parse().unwrap()).collect();
    GitHubInterpreter { host: host.to_owned(), roots, sightings }
}

fn delivery(event: &str, body: Vec<u8>) -> Delivery {
    Delivery {
        source: "larkspur".parse().unwrap(),
        provider: NAME.to_owned(),
        id: "0b6f2f4e-3f4e-4c5d-9d3b-3f2d1c0b9a88".parse().unwrap(),
        event: event.parse().unwrap(),
        received_at: Timestamp(0),
        secret: SecretName("env:S".into()),
        stamp: None,
        replay: None,
        body: body.into(),
    }
}

fn interpret(source: &GitHubInterpreter, event: &str, body: &Value) -> Result<Meaning, Misshapen> {
    source.interpret(&delivery(event, body.to_string().into_bytes()))
}

/// The host on which the event exists.
fn host_of(event: &str) -> &'static str {
    if event.starts_with("user.") || event.starts_with("enterprise.") { SERVER } else { CLOUD }
}

fn meaning(fixture: &Fixture) -> Meaning {
    source(host_of(&fixture.event), &[], true)
        .interpret(&delivery(&fixture.event, fixture.json.clone()))
        .unwrap_or_else(|misshapen| panic!("{}: {misshapen}", fixture.name))
}

/// In the words of the truth table.
fn summary(meaning: &Meaning) -> String {
    let of = |change: &Change| match (change, change.scope()) {
        (_, Some(scope)) => format!("{} {}", change.as_str(), scope.id.kind.as_str()),
        (Change::Renamed { .. }, None) => format!("{} account", change.as_str()),
        (_, None) => change.as_str().to_owned(),
    };
    if meaning.changes.is_empty() {
        "-".to_owned()
    } else {
        meaning.changes.iter().map(of).collect::<Vec<_>>().join(", ")
    }
}

fn row_of(event: &str) -> &'static str {
    let family = format!("{}.*", event.split('.').next().unwrap());
    let exact = EVENTS.iter().find(|row| row.event == event);
    exact
        .or_else(|| EVENTS.iter().find(|row| row.event == family))
        .unwrap_or_else(|| panic!("{event} has no row"))
        .event
}

#[test]
fn every_row_of_the_truth_table_is_shown_by_fixtures() {
    let fixtures = fixtures();
    for row in EVENTS {
        let shown: BTreeSet<String> =
            fixtures.iter().filter(|it| row_of(&it.event) == row.event).map(|it| summary(&meaning(it))).collect();
        let promised: BTreeSet<String> = row.change.split(" or ").map(str::to_owned).collect();
        assert_eq!(shown, promised, "{}", row.event);
    }
}

#[test]
fn every_fixture_means_what_it_says() {
    let told = |change: &Change| match change {
        Change::Access { account, scope, kind } => format!("{}: {} in {}", kind.as_str(), who(account), place(scope)),
        Change::Renamed { account } => format!("renamed: {}", who(account)),
        Change::SourceBlind { why } => format!("source_blind: {why}"),
        Change::SourceBack => "source_back".to_owned(),
        other => format!("{}: {}", other.as_str(), place(other.scope().unwrap())),
    };
    fn who(it: &Account) -> String {
        let label = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("{} [{}] [{}] [{}] {:?}", it.key, label(&it.node_id), label(&it.login), label(&it.email), it.kind)
    }
    fn place(scope: &Scope) -> String {
        let name = scope.name.as_deref().unwrap_or("?");
        match &scope.root {
            Some((root, of)) => format!("{} {name} of {root} {}", scope.id, of.as_deref().unwrap_or("?")),
            None => format!("{} {name}", scope.id),
        }
    }
    let lines: Vec<String> = fixtures()
        .iter()
        .map(|fixture| {
            let meaning = meaning(fixture);
            let mut parts: Vec<String> = meaning.changes.iter().map(told).collect();
            parts.extend(meaning.note.map(|note| format!("({note})")));
            format!("{}\n    {}", fixture.name, parts.join("\n    "))
        })
        .collect();
    insta::assert_snapshot!("meanings", lines.join("\n"));
}

/// The event's name isn't signed: whoever can change a header may put any name over any body that GitHub signed.
#[test]
fn no_body_passes_for_another_event() {
    let fixtures = fixtures();
    let families: BTreeSet<&str> = EVENTS.iter().map(|row| row.event.split('.').next().unwrap()).collect();
    for host in [CLOUD, SERVER] {
        let source = source(host, &[], true);
        for fixture in &fixtures {
            let own = fixture.event.split('.').next().unwrap();
            for family in families.iter().filter(|family| **family != own) {
                let answer = source.interpret(&delivery(family, fixture.json.clone()));
                let changes = answer.map(|meaning| meaning.changes).unwrap_or_default();
                assert!(changes.is_empty(), "{} passes for {family}: {changes:?}", fixture.name);
            }
        }
    }
}

#[test]
fn the_action_is_the_body_s_whatever_the_header_says() {
    let source = source(CLOUD, &[], false);
    let removed = fixture("organization.member_removed");
    let by_the_header = interpret(&source, "organization.member_added", &removed).unwrap();
    assert_eq!(summary(&by_the_header), "lost org");
    assert_eq!(interpret(&source, "organization", &removed).unwrap(), by_the_header);
}

#[test]
fn the_mark_of_another_event_makes_a_body_misshapen() {
    for fixture in fixtures().iter().filter(|fixture| !meaning(fixture).changes.is_empty()) {
        for mark in ["issue", "starred_at", "projects_v2", "alert"] {
            let mut body: Value = serde_json::from_slice(&fixture.json).unwrap();
            body[mark] = Value::Null;
            let source = source(host_of(&fixture.event), &[], true);
            let misshapen = interpret(&source, &fixture.event, &body).unwrap_err();
            assert_eq!(misshapen.path, mark, "{}", fixture.name);
        }
    }
}

#[rstest]
#[case("organization.deleted")]
#[case("repository.deleted")]
fn an_event_that_ends_all_access_bears_no_unknown_key(#[case] name: &str) {
    let mut body = fixture(name);
    body["something_that_github_may_invent"] = json!({});
    assert!(interpret(&source(CLOUD, &[], false), name, &body).is_err());
}

#[test]
fn unstarring_a_repository_is_not_its_deletion() {
    let mut body = fixture("repository.deleted");
    body["starred_at"] = Value::Null;
    assert_eq!(interpret(&source(CLOUD, &[], false), "repository", &body).unwrap_err().path, "starred_at");
    assert_eq!(interpret(&source(CLOUD, &[], false), "organization", &body).unwrap_err().path, "starred_at");
}

#[test]
fn new_keys_in_other_events_are_nobody_s_trouble() {
    let mut body = fixture("organization.member_added");
    body["something_that_github_may_invent"] = json!({"id": []});
    assert_eq!(summary(&interpret(&source(CLOUD, &[], false), "organization", &body).unwrap()), "gained org");
}

#[rstest]
#[case("organization.member_added", "/membership/user/id", "membership.user: missing field `id`")]
#[case("organization.member_added", "/membership", "membership: is missing, but every `organization` event has it")]
#[case("membership.added", "/team/id", "team: missing field `id`")]
#[case("organization.member_added", "/action", "action: is missing")]
fn a_missing_part_is_named_by_its_path(#[case] name: &str, #[case] pointer: &str, #[case] fault: &str) {
    let mut body = fixture(name);
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    body.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
    assert_eq!(interpret(&source(CLOUD, &[], false), name, &body).unwrap_err().to_string(), fault);
}

/// Puts values of the wrong kind in every place of every fixture.
#[test]
fn nothing_in_a_body_makes_the_interpreter_panic_or_repeat_what_it_read() {
    fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
        let mut inner = |key: &str, value: &Value| pointers(value, &format!("{at}/{key}"), found);
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| inner(key, value)),
            Value::Array(list) => list.iter().enumerate().for_each(|(at, value)| inner(&at.to_string(), value)),
            _ => {}
        }
        found.push(at.to_owned());
    }
    let odd = [json!("s3cret, expected \u{0}"), json!(null), json!(-1), json!([["s3cret"]]), json!({"id": "s3cret"})];
    for fixture in fixtures() {
        let source = source(host_of(&fixture.event), &[], true);
        let body: Value = serde_json::from_slice(&fixture.json).unwrap();
        let mut found = Vec::new();
        pointers(&body, "", &mut found);
        for pointer in found {
            for value in &odd {
                let mut body = body.clone();
                *body.pointer_mut(&pointer).unwrap() = value.clone();
                if let Err(misshapen) = interpret(&source, &fixture.event, &body) {
                    let text = misshapen.to_string();
                    assert!(!text.contains("s3cret"), "{} {pointer}: {text}", fixture.name);
                }
            }
        }
    }
}

#[rstest]
#[case("member.removed", "/member")]
#[case("membership.removed", "/member")]
#[case("organization.member_removed", "/membership/user")]
#[case("org_block.blocked", "/blocked_user")]
#[case("user.deleted", "/user")]
#[case("push", "/sender")]
fn a_null_user_means_nothing_and_says_so(#[case] name: &str, #[case] pointer: &str) {
    let mut body = fixture(name);
    *body.pointer_mut(pointer).unwrap() = Value::Null;
    let meaning = interpret(&source(host_of(name), &[], true), name, &body).unwrap();
    assert!(meaning.changes.is_empty() && meaning.note.is_some());
}

#[rstest]
#[case(json!("User"), Some(AccountKind::Person))]
#[case(json!(null), Some(AccountKind::Person))]
#[case(json!("Bot"), Some(AccountKind::Bot))]
#[case(json!("Organization"), None)]
#[case(json!("Mannequin"), None)]
#[case(json!("Robot"), None)]
fn only_people_and_bots_have_access(#[case] kind: Value, #[case] expected: Option<AccountKind>) {
    let mut body = fixture("member.added");
    body["member"]["type"] = kind;
    let meaning = interpret(&source(CLOUD, &[], false), "member", &body).unwrap();
    let found = meaning.changes.first().map(|change| match change {
        Change::Access { account, .. } => account.kind,
        other => panic!("{other:?}"),
    });
    assert_eq!(found, expected);
    assert_eq!(meaning.note.is_some(), expected.is_none());
}

#[test]
fn scopes_are_parts_of_what_the_body_names() {
    let source = source(CLOUD, &[], false);
    let top = |event: &str, body: &Value| {
        interpret(&source, event, body).unwrap().changes[0].scope().unwrap().root.as_ref().map(|(id, _)| id.to_string())
    };
    let mut member = fixture("member.added");
    member.as_object_mut().unwrap().remove("organization");
    assert_eq!(top("member", &member).as_deref(), Some("org:#90210417"));
    member["repository"]["owner"]["type"] = json!("User");
    assert_eq!(top("member", &member).as_deref(), Some("user:#90210417"));
    member["repository"].as_object_mut().unwrap().remove("owner");
    assert_eq!(top("member", &member), None);
    let mut team = fixture("membership.added");
    team.as_object_mut().unwrap().remove("organization");
    assert_eq!(top("membership", &team), None);
}

#[test]
fn a_team_removal_of_organisation_scope_is_taken_from_the_team_alone() {
    let source = source(CLOUD, &[], false);
    let mut body = fixture("membership.removed");
    body["scope"] = json!("organization");
    let meaning = interpret(&source, "membership", &body).unwrap();
    assert_eq!((summary(&meaning).as_str(), meaning.note.is_some()), ("lost team", true));
    body.as_object_mut().unwrap().remove("team");
    let meaning = interpret(&source, "membership", &body).unwrap();
    assert_eq!((summary(&meaning).as_str(), meaning.note.is_some()), ("-", true));
}

#[test]
fn a_transfer_is_told_under_the_root_that_is_ours() {
    let body = fixture("repository.transferred");
    let root = |roots: &[&str]| {
        let meaning = interpret(&source(CLOUD, roots, false), "repository", &body).unwrap();
        meaning.changes[0].scope().unwrap().top_name().unwrap().to_owned()
    };
    assert_eq!(root(&[]), "larkspur-labs");
    assert_eq!(root(&["org:larkspur-labs"]), "larkspur-labs");
    assert_eq!(root(&["org:larkspur-attic"]), "larkspur-attic");
    assert_eq!(root(&["org:elsewhere"]), "larkspur-labs");
}

#[rstest]
#[case(&[], "source_blind")]
#[case(&["org:larkspur-labs"], "source_blind")]
#[case(&["org:#90210417"], "source_blind")]
#[case(&["instance"], "source_blind")]
#[case(&["org:elsewhere"], "-")]
fn an_uninstalled_app_blinds_the_sources_of_that_organisation(#[case] roots: &[&str], #[case] expected: &str) {
    let body = fixture("installation.deleted");
    let meaning = interpret(&source(CLOUD, roots, false), "installation", &body).unwrap();
    assert_eq!(summary(&meaning), expected);
}

#[test]
fn activity_counts_only_where_it_is_asked_for() {
    for name in ["push", "create", "delete", "release.published", "workflow_dispatch"] {
        assert_eq!(summary(&interpret(&source(CLOUD, &[], false), name, &fixture(name)).unwrap()), "-");
        assert_eq!(summary(&interpret(&source(CLOUD, &[], true), name, &fixture(name)).unwrap()), "seen repo");
    }
    let mut by_key = fixture("create");
    by_key["pusher_type"] = json!("deploy_key");
    assert_eq!(summary(&interpret(&source(CLOUD, &[], true), "create", &by_key).unwrap()), "-");
    let mut untyped = fixture("push");
    untyped["sender"].as_object_mut().unwrap().remove("type");
    assert_eq!(summary(&interpret(&source(CLOUD, &[], true), "push", &untyped).unwrap()), "-");
}

#[test]
fn github_com_has_no_events_about_the_whole_instance() {
    assert_eq!(summary(&interpret(&source(CLOUD, &[], false), "user", &fixture("user.deleted")).unwrap()), "-");
}

#[rstest]
#[case("pull_request", json!({"action": "opened"}))]
#[case("novelty", json!({}))]
#[case("organization", json!({"action": "painted"}))]
#[case("installation_target", json!({"action": "moved"}))]
#[case("member", json!({"action": "promoted", "issue": 1}))]
fn what_is_not_known_means_nothing(#[case] event: &str, #[case] body: Value) {
    let meaning = interpret(&source(CLOUD, &[], true), event, &body).unwrap();
    assert!(meaning.changes.is_empty() && meaning.note.is_some());
}

#[test]
fn forms_are_read_like_json() {
    let json = fixture("organization.member_added").to_string();
    let form = form_urlencoded::Serializer::new(String::new()).append_pair("payload", &json).finish();
    let source = source(CLOUD, &[], false);
    let from_form = source.interpret(&delivery("organization", form.into_bytes())).unwrap();
    assert_eq!(summary(&from_form), "gained org");
    assert!(source.interpret(&delivery("organization", b"x=1".to_vec())).is_err());
    let more =
        form_urlencoded::Serializer::new(String::new()).append_pair("payload", &json).append_pair("a", "1").finish();
    assert!(source.interpret(&delivery("organization", more.into_bytes())).is_err());
}

/// A push whose commit message holds a form in which there is another event.
#[test]
fn a_form_inside_a_signed_text_is_no_form() {
    let source = source(CLOUD, &[], true);
    let joined: String =
        form_urlencoded::byte_serialize(fixture("organization.member_added").to_string().as_bytes()).collect();
    let mut push = fixture("push");
    push["head_commit"]["message"] = format!("x&payload={joined}&y=").into();
    assert_eq!(summary(&interpret(&source, "push", &push).unwrap()), "seen repo");
    assert!(interpret(&source, "organization.member_added", &push).is_err());
}

fn any_json() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        proptest::sample::select([COMMON, MARKS].concat()).prop_map(str::to_owned),
        proptest::sample::select(vec!["id", "login", "type", "user", "from", "owner", "scope"]).prop_map(str::to_owned),
        ".{0,8}",
    ];
    let actions: Vec<String> = EVENTS.iter().filter_map(|row| Some(row.event.split_once('.')?.1.to_owned())).collect();
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        proptest::sample::select(actions).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key.clone(), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_gives_an_answer(body in any_json(), at in any::<prop::sample::Index>(), server in any::<bool>()) {
        let event = at.get(EVENTS).event.replace('*', "x");
        let _ = interpret(&source(if server { SERVER } else { CLOUD }, &[], true), &event, &body);
    }

    #[test]
    fn any_bytes_give_an_answer(body in proptest::collection::vec(any::<u8>(), 0..200), form in any::<bool>()) {
        let body = if form { [b"payload=", body.as_slice()].concat() } else { body };
        let _ = source(CLOUD, &[], true).interpret(&delivery("organization.deleted", body));
    }
}
