//! What each event means, on payloads of the documented shape with invented people.

use http::{HeaderMap, HeaderValue};
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::access::{AccessKind, AccountKind, Change, Scope};
use crate::delivery::{Delivery, Encoding, SecretName, Timestamp, Unverified};
use crate::provider::{Meaning, Misshapen};

fn settings(roots: &[&str], sightings: bool) -> SourceSettings {
    SourceSettings {
        name: "larkspur".parse().unwrap(),
        host: "git.larkspur.example".to_owned(),
        roots: roots.iter().map(|root| root.parse().unwrap()).collect(),
        sightings,
        verify: Some("token".to_owned()),
        header: None,
        own: toml::Table::new(),
    }
}

fn interpreted(roots: &[&str], body: &Value) -> Result<Meaning, Misshapen> {
    let delivery = Delivery {
        source: "larkspur".parse().unwrap(),
        provider: NAME.to_owned(),
        id: "d-1".parse().unwrap(),
        event: "whatever".parse().unwrap(),
        encoding: Encoding::Json,
        received_at: Timestamp(1_790_000_000_000_000),
        secret: SecretName("env:S".into()),
        stamp: None,
        replay: None,
        body: body.to_string().into_bytes().into(),
    };
    (DESCRIPTION.interpreter)(&settings(roots, true)).unwrap().interpret(&delivery)
}

fn member(event: &str, group: u64) -> Value {
    json!({
        "created_at": "2026-03-01T10:00:00Z", "updated_at": "2026-03-02T10:00:00Z", "event_name": event,
        "group_id": group, "group_name": "Garden", "group_path": "garden", "group_access": "Developer", "expires_at": null,
        "user_id": 71, "user_username": "rosalind", "user_name": "Rosalind Fern", "user_email": "rosalind@larkspur.example",
        "project_id": 9, "project_name": "beds", "project_path": "beds", "project_path_with_namespace": "garden/beds",
        "access_level": "Developer", "project_visibility": "private",
    })
}

fn only(meaning: Meaning) -> Change {
    let [change] = <[Change; 1]>::try_from(meaning.changes).unwrap();
    change
}

fn access(change: Change) -> (crate::access::Account, Scope, AccessKind) {
    match change {
        Change::Access { account, scope, kind } => (account, scope, kind),
        other => panic!("{other:?}"),
    }
}

#[rstest]
#[case("user_add_to_group", AccessKind::Gained, "group:#42")]
#[case("user_update_for_group", AccessKind::Gained, "group:#42")]
#[case("user_remove_from_group", AccessKind::Lost, "group:#42")]
#[case("user_add_to_team", AccessKind::Gained, "repo:#9")]
#[case("user_update_for_team", AccessKind::Gained, "repo:#9")]
#[case("user_remove_from_team", AccessKind::Lost, "repo:#9")]
fn members_gain_and_lose_groups_and_projects(#[case] event: &str, #[case] kind: AccessKind, #[case] scope: &str) {
    let (account, found, found_kind) = access(only(interpreted(&[], &member(event, 42)).unwrap()));
    assert_eq!((found_kind, found.id.to_string().as_str()), (kind, scope));
    assert_eq!(account.key.to_string(), "gitlab@git.larkspur.example:#71");
    assert_eq!(account.login.as_deref(), Some("rosalind"));
    assert_eq!(account.email.as_deref(), Some("rosalind@larkspur.example"));
}

#[test]
fn leaving_a_subgroup_is_not_leaving_the_root() {
    let left = |group| access(only(interpreted(&["group:#42"], &member("user_remove_from_group", group)).unwrap())).1;
    assert_eq!(left(42).root, None);
    assert_eq!(left(43).top_id().to_string(), "group:#42");
    // Without a root nobody knows what the group is in, so that leaving it can't be leaving everything.
    let (_, scope, _) = access(only(interpreted(&[], &member("user_remove_from_group", 42)).unwrap()));
    assert_eq!(scope.top_id().to_string(), "instance:#git.larkspur.example");
}

#[test]
fn a_memberships_events_have_their_order_whatever_order_they_come_in() {
    let at = |event: &str| interpreted(&[], &member(event, 42)).unwrap().at.unwrap();
    assert!(at("user_add_to_group") < at("user_update_for_group"));
    assert!(at("user_update_for_group") < at("user_remove_from_group"));
    let mut never_changed = member("user_remove_from_group", 42);
    never_changed["updated_at"] = never_changed["created_at"].clone();
    assert!(at("user_add_to_group") < interpreted(&[], &never_changed).unwrap().at.unwrap());
    // The next membership is a row of its own, made later.
    let mut again = member("user_add_to_group", 42);
    again["created_at"] = "2026-03-02 10:00:01 UTC".into();
    assert!(at("user_remove_from_group") < interpreted(&[], &again).unwrap().at.unwrap());
    again["created_at"] = "yesterday".into();
    assert_eq!(interpreted(&[], &again).unwrap().at, None);
}

#[rstest]
#[case("user_create", Some(AccessKind::Gained))]
#[case("user_destroy", Some(AccessKind::Lost))]
#[case("user_rename", None)]
fn accounts_of_an_instance_are_made_deleted_and_renamed(#[case] event: &str, #[case] kind: Option<AccessKind>) {
    let body = json!({
        "created_at": "2020-03-01T10:00:00Z", "updated_at": "2020-03-01T10:00:00Z", "event_name": event, "user_id": 71,
        "username": "rosalind", "old_username": "rose", "name": "Rosalind Fern", "email": "[REDACTED]",
    });
    let meaning = interpreted(&["instance"], &body).unwrap();
    // The times are the account's own; what happened to it happened now.
    assert_eq!(meaning.at, None);
    match (only(meaning), kind) {
        (Change::Access { account, scope, kind }, Some(expected)) => {
            assert_eq!((kind, scope.id.kind, account.email), (expected, ScopeKind::Instance, None));
        }
        (Change::Renamed { account }, None) => assert_eq!(account.login.as_deref(), Some("rosalind")),
        (other, _) => panic!("{other:?}"),
    }
}

#[rstest]
#[case("project_1234_bot", AccountKind::Bot)]
#[case("project_1234_bot1", AccountKind::Bot)]
#[case("group_77_bot_5f3a", AccountKind::Bot)]
#[case("project_manager", AccountKind::Person)]
#[case("group_77_botany", AccountKind::Person)]
#[case("rosalind", AccountKind::Person)]
fn tokens_are_bots(#[case] login: &str, #[case] kind: AccountKind) {
    let mut body = member("user_add_to_group", 42);
    body["user_username"] = login.into();
    assert_eq!(access(only(interpreted(&[], &body).unwrap())).0.kind, kind);
}

#[rstest]
#[case("group_destroy", "scope_lost")]
#[case("subgroup_destroy", "scope_lost")]
#[case("group_rename", "scope_renamed")]
#[case("project_destroy", "scope_lost")]
#[case("project_rename", "scope_renamed")]
#[case("project_transfer", "scope_renamed")]
fn groups_and_projects_end_and_are_renamed(#[case] event: &str, #[case] change: &str) {
    let body = json!({
        "event_name": event, "name": "beds", "path": "beds", "group_id": 42, "group_path": "garden", "project_id": 9,
        "path_with_namespace": "garden/beds", "old_path_with_namespace": "garden/old",
    });
    let meaning = only(interpreted(&["instance"], &body).unwrap());
    assert_eq!(meaning.as_str(), change);
    assert!(["group:#42", "repo:#9"].contains(&meaning.scope().unwrap().id.to_string().as_str()));
}

#[test]
fn activity_is_a_sighting_and_requests_are_nothing() {
    let push = json!({
        "object_kind": "push", "event_name": "push", "user_id": 71, "user_username": "rosalind", "user_email": "",
        "project_id": 9, "project": { "id": 9, "path_with_namespace": "garden/beds" },
    });
    let (account, scope, kind) = access(only(interpreted(&["group:#42"], &push).unwrap()));
    assert_eq!((kind, scope.name.as_deref(), account.email), (AccessKind::Seen, Some("garden/beds"), None));
    for event in ["user_access_request_to_group", "user_failed_login", "key_create", "project_create", "merge_request"]
    {
        let meaning = interpreted(&[], &json!({ "event_name": event })).unwrap();
        assert!(meaning.changes.is_empty() && meaning.note.is_some(), "{event}");
    }
}

#[test]
fn a_body_that_lacks_what_its_event_has_is_misshapen() {
    for (field, event) in
        [("user_id", "user_add_to_group"), ("group_id", "user_add_to_group"), ("project_id", "user_add_to_team")]
    {
        let mut body = member(event, 42);
        body.as_object_mut().unwrap().remove(field);
        interpreted(&[], &body).unwrap_err();
    }
    let mut body = member("user_add_to_group", 42);
    body["user_id"] = "71".into();
    interpreted(&[], &body).unwrap_err();
    interpreted(&[], &json!([1])).unwrap_err();
}

#[test]
fn the_truth_table_has_every_event_that_changes_something() {
    for row in events::EVENTS {
        let mut body = member(row.event, 42);
        body["username"] = "rosalind".into();
        body["path_with_namespace"] = "garden/beds".into();
        let meaning = interpreted(&["instance"], &body).unwrap();
        let told = meaning.changes.first().map_or("-", Change::as_str);
        assert_eq!(row.change.split(' ').next(), Some(told), "{}", row.event);
    }
}

#[test]
fn a_source_has_one_root_that_can_be_told() {
    for (roots, good) in [
        (&["instance"][..], true),
        (&["group:#42"], true),
        (&[], true),
        (&["group:garden"], false),
        (&["group:#42", "group:#43"], false),
        (&["org:acme"], false),
    ] {
        assert_eq!((DESCRIPTION.interpreter)(&settings(roots, false)).is_ok(), good, "{roots:?}");
    }
}

#[test]
fn the_delivery_id_is_the_one_that_a_resent_copy_shares() {
    let id = |named: &[(&'static str, &'static str)], body: &str| {
        let mut headers = HeaderMap::new();
        for (name, value) in named {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        let body = body.to_owned().into_bytes().into();
        let request = Unverified { headers: &headers, encoding: Encoding::Json, body: &body };
        let named = name(&headers, &request.verified_by(SecretName("env:S".into()))).unwrap();
        (named.id.as_str().to_owned(), named.event.as_str().to_owned())
    };
    let body = r#"{"event_name": "user_create"}"#;
    assert_eq!(id(&[("webhook-id", "w-1"), ("idempotency-key", "k-1")], body).0, "w-1");
    assert_eq!(
        id(&[("idempotency-key", "k-1"), ("x-gitlab-event-uuid", "u-1")], body),
        ("k-1".into(), "user_create".into())
    );
    let (old, _) = id(&[("x-gitlab-event-uuid", "u-1")], body);
    assert!(old.starts_with("u-1:") && old != id(&[("x-gitlab-event-uuid", "u-1")], &format!("{body} ")).0);
    assert_eq!(id(&[("x-gitlab-event", "Member Hook"), ("idempotency-key", "k")], "[]").1, "member_hook");
}
