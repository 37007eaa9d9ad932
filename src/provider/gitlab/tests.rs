//! What each event means, on payloads of the documented shape with invented people.

use http::{HeaderMap, HeaderValue};
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::access::{AccessKind, AccountKind, Change, ChangeKey, Step, Turn};
use crate::delivery::{SecretName, Timestamp, Unverified};
use crate::provider::trial::{self, access, told};
use crate::provider::{Meaning, Misshapen};

fn settings(roots: &[&str], sightings: bool) -> SourceSettings {
    SourceSettings {
        roots: roots.iter().map(|root| root.parse().unwrap()).collect(),
        sightings,
        verify: Some("token".to_owned()),
        ..trial::settings()
    }
}

fn interpreted(roots: &[&str], body: &Value) -> Result<Meaning, Misshapen> {
    trial::interpreted(&DESCRIPTION, &settings(roots, true), "whatever", body)
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

#[rstest]
#[case("user_add_to_group", AccessKind::Gained, "group:#42")]
#[case("user_update_for_group", AccessKind::Gained, "group:#42")]
#[case("user_remove_from_group", AccessKind::Lost, "group:#42")]
#[case("user_add_to_team", AccessKind::Gained, "repo:#9")]
#[case("user_update_for_team", AccessKind::Gained, "repo:#9")]
#[case("user_remove_from_team", AccessKind::Lost, "repo:#9")]
fn members_gain_and_lose_groups_and_projects(#[case] event: &str, #[case] kind: AccessKind, #[case] scope: &str) {
    let (account, found, found_kind) = access(interpreted(&[], &member(event, 42)).unwrap());
    assert_eq!((found_kind, found.id.to_string().as_str()), (kind, scope));
    assert_eq!(account.key.to_string(), "gitlab@git.larkspur.example:#71");
    assert_eq!(account.login.as_deref(), Some("rosalind"));
    assert_eq!(account.email.as_deref(), Some("rosalind@larkspur.example"));
}

#[test]
fn leaving_a_subgroup_is_not_leaving_the_root() {
    let left = |group| access(interpreted(&["group:#42"], &member("user_remove_from_group", group)).unwrap()).1;
    assert_eq!(left(42).root, None);
    assert_eq!(left(43).top_id().to_string(), "group:#42");
    // Without a root nobody knows what the group is in, so that leaving it can't be leaving everything.
    let (_, scope, _) = access(interpreted(&[], &member("user_remove_from_group", 42)).unwrap());
    assert_eq!(scope.top_id().to_string(), "instance:#git.larkspur.example");
}

/// The place of an event of one membership, received at that second.
fn key(body: &Value, received: i64) -> ChangeKey {
    let meaning = interpreted(&[], body).unwrap();
    let received_at = Timestamp(received * 1_000_000);
    let event_time = meaning.when.at.map_or(received_at, |at| at.min(received_at));
    ChangeKey {
        turn: meaning.when.turn.unwrap_or(Turn::at(event_time)),
        event_time,
        received_at,
        loss: meaning.changes[0].is_loss(),
        source: "larkspur".parse().unwrap(),
        delivery: "d-1".parse().unwrap(),
    }
}

#[test]
fn a_memberships_events_have_their_order_whatever_order_they_come_in() {
    // The later an event, the earlier it is received here.
    let (added, updated, removed) =
        ["user_add_to_group", "user_update_for_group", "user_remove_from_group"].map(|event| member(event, 42)).into();
    let mut updated_later = updated.clone();
    updated_later["updated_at"] = "2026-03-03T10:00:00Z".into();
    // The next membership is a row of its own, made later; old versions write times otherwise.
    let mut again = member("user_add_to_group", 42);
    again["created_at"] = "2026-03-02 10:00:01 UTC".into();
    let order = [added, updated, updated_later, removed, again];
    let keys: Vec<ChangeKey> = order
        .iter()
        .zip((1_790_000_000..).step_by(60).take(5).collect::<Vec<_>>().iter().rev())
        .map(|(body, at)| key(body, *at))
        .collect();
    assert!(keys.is_sorted_by(|a, b| a < b), "{keys:#?}");
}

#[test]
fn of_the_same_second_the_loss_is_believed_and_so_is_a_removal_without_a_time() {
    let mut removed = member("user_remove_from_group", 42);
    removed["updated_at"] = removed["created_at"].clone();
    let mut added = member("user_add_to_group", 42);
    added["updated_at"] = added["created_at"].clone();
    assert!(key(&removed, 1) > key(&added, 2));
}

#[test]
fn a_removal_happened_when_it_is_told_and_not_when_its_row_changed_last() {
    let when = |event: &str| interpreted(&[], &member(event, 42)).unwrap().when;
    assert_eq!(when("user_remove_from_group").at, None);
    assert_eq!(when("user_add_to_group").at, Some("2026-03-02T10:00:00Z".parse().unwrap()));
    let mut timeless = member("user_remove_from_group", 42);
    timeless["created_at"] = "yesterday".into();
    assert_eq!(interpreted(&[], &timeless).unwrap().when.turn, None);
}

#[test]
fn nothing_comes_after_the_end_of_an_account() {
    let deleted = json!({ "event_name": "user_destroy", "user_id": 71, "created_at": "2020-03-01T10:00:00Z" });
    let created = json!({ "event_name": "user_create", "user_id": 71 });
    assert!(key(&deleted, 1) > key(&created, 1_000_000_000));
    let late = json!({ "event_name": "user_add_to_group", "user_id": 71, "group_id": 42 });
    assert!(key(&deleted, 1).is_after(&key(&late, 1_000_000_000)));
}

#[rstest]
#[case(json!("2026-12-14T00:00:00Z"), AccessKind::Gained, Some("as Developer, until 2026-12-14T00:00:00Z"))]
#[case(json!("2026-12-14"), AccessKind::Gained, Some("as Developer, until 2026-12-14"))]
#[case(json!(null), AccessKind::Gained, Some("as Developer"))]
#[case(json!("soon"), AccessKind::Gained, Some("as Developer, until soon"))]
#[case(json!("2026-03-01"), AccessKind::Lost, Some("the membership had expired already"))]
#[case(json!("2026-03-02T10:00:00Z"), AccessKind::Lost, Some("the membership had expired already"))]
fn a_membership_that_had_expired_when_it_was_told_is_none(
    #[case] expires: Value,
    #[case] kind: AccessKind,
    #[case] note: Option<&str>,
) {
    let mut body = member("user_update_for_group", 42);
    body["expires_at"] = expires;
    let meaning = interpreted(&[], &body).unwrap();
    assert_eq!(meaning.note.as_deref(), note);
    assert_eq!(
        meaning.when.turn,
        Some(Turn::Of { began: "2026-03-01T10:00:00Z".parse().unwrap(), step: Step::Changed })
    );
    assert_eq!(access(meaning).2, kind);
}

#[rstest]
#[case("user_create", "gained instance")]
#[case("user_destroy", "lost instance")]
#[case("user_rename", "renamed account")]
fn accounts_of_an_instance_are_made_deleted_and_renamed(#[case] event: &str, #[case] expected: &str) {
    let body = json!({
        "created_at": "2020-03-01T10:00:00Z", "updated_at": "2020-03-01T10:00:00Z", "event_name": event, "user_id": 71,
        "username": "rosalind", "old_username": "rose", "name": "Rosalind Fern", "email": "[REDACTED]",
    });
    let meaning = interpreted(&["instance"], &body).unwrap();
    assert_eq!(told(&meaning), expected);
    // To a source whose root is a group, a new account is nobody yet, and a deleted one is nobody any more.
    let of_a_group = told(&interpreted(&["group:#42"], &body).unwrap());
    assert_eq!(of_a_group, expected.replace("gained instance", "-").replace("instance", "group"));
    let (Change::Access { account, .. } | Change::Renamed { account }) = &meaning.changes[0] else {
        panic!("{meaning:?}")
    };
    assert_eq!((account.login.as_deref(), &account.email), (Some("rosalind"), &None));
}

#[rstest]
#[case("project_1234_bot", AccountKind::Bot)]
#[case("project_1234_bot1", AccountKind::Bot)]
#[case("group_77_bot_5f3a", AccountKind::Bot)]
#[case("service_account_group_345_6018816a18e515214e0c34c2b33523fc", AccountKind::Bot)]
#[case("service_account_6018816a18e515214e0c34c2b33523fc", AccountKind::Bot)]
#[case("service_account_rosalind", AccountKind::Person)]
#[case("project_bot", AccountKind::Person)]
#[case("project_manager", AccountKind::Person)]
#[case("group_77_botany", AccountKind::Person)]
#[case("rosalind", AccountKind::Person)]
fn tokens_are_bots(#[case] login: &str, #[case] kind: AccountKind) {
    let mut body = member("user_add_to_group", 42);
    body["user_username"] = login.into();
    assert_eq!(access(interpreted(&[], &body).unwrap()).0.kind, kind);
}

#[rstest]
#[case("group_destroy", "scope_lost", "group:#42")]
#[case("subgroup_destroy", "scope_lost", "group:#42")]
#[case("group_rename", "scope_renamed", "group:#42")]
#[case("project_destroy", "scope_lost", "repo:#9")]
#[case("project_rename", "scope_renamed", "repo:#9")]
#[case("project_transfer", "scope_renamed", "repo:#9")]
fn groups_and_projects_end_and_are_renamed(#[case] event: &str, #[case] change: &str, #[case] scope: &str) {
    let body = json!({
        "event_name": event, "name": "beds", "path": "beds", "group_id": 42, "group_path": "garden", "project_id": 9,
        "path_with_namespace": "garden/beds", "old_path_with_namespace": "garden/old",
    });
    let meaning = interpreted(&["instance"], &body).unwrap();
    let [told] = meaning.changes.as_slice() else { panic!("{meaning:?}") };
    assert_eq!((told.as_str(), told.scope().unwrap().id.to_string().as_str()), (change, scope));
}

#[test]
fn activity_is_a_sighting_and_requests_are_nothing() {
    let push = json!({
        "object_kind": "push", "event_name": "push", "user_id": 71, "user_username": "rosalind", "user_email": "",
        "project_id": 9, "project": { "id": 9, "path_with_namespace": "garden/beds" },
    });
    let (account, scope, kind) = access(interpreted(&["group:#42"], &push).unwrap());
    assert_eq!((kind, scope.name.as_deref(), account.email), (AccessKind::Seen, Some("garden/beds"), None));
    let mut by_a_deploy_key = push.clone();
    by_a_deploy_key["user_id"] = Value::Null;
    assert!(interpreted(&[], &by_a_deploy_key).unwrap().changes.is_empty());
    for event in ["user_access_request_to_group", "user_failed_login", "key_create", "project_create", "merge_request"]
    {
        // What an event that isn't about access has in its fields is nobody's business.
        let meaning =
            interpreted(&[], &json!({ "event_name": event, "user_id": "x", "project": [], "email": 5 })).unwrap();
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
    for id in [json!("7x"), json!(0), json!(-1), json!(7.5), json!({})] {
        body["user_id"] = id;
        interpreted(&[], &body).unwrap_err();
    }
    interpreted(&[], &json!([1])).unwrap_err();
    let twice = trial::delivery(
        NAME,
        "x",
        br#"{"event_name": "user_create", "event_name": "user_destroy", "user_id": 71}"#.to_vec(),
    );
    let interpreter = (DESCRIPTION.interpreter)(&settings(&[], false)).unwrap();
    assert_eq!(interpreter.interpret(&twice).unwrap_err().path, ".");
}

#[test]
fn what_a_template_leaves_out_or_changes_costs_only_the_label() {
    let mut body = member("user_add_to_group", 42);
    for label in ["user_username", "user_email", "group_path", "group_access"] {
        body.as_object_mut().unwrap().remove(label);
    }
    (body["user_id"], body["user_name"]) = ("71".into(), json!({ "first": "Rosalind" }));
    let (account, scope, _) = access(interpreted(&[], &body).unwrap());
    assert_eq!((account.key.id.as_str(), account.login, scope.name), ("71", None, None));
}

#[test]
fn the_truth_table_is_what_the_code_does() {
    for row in events::EVENTS {
        let mut body = member(row.event, 42);
        body["username"] = "rosalind".into();
        body["path_with_namespace"] = "garden/beds".into();
        let mut told_of = vec![told(&interpreted(&["instance"], &body).unwrap())];
        body["expires_at"] = body["created_at"].clone();
        told_of.push(told(&interpreted(&["instance"], &body).unwrap()));
        told_of.dedup();
        assert_eq!(row.change, told_of.join(" or "), "{}", row.event);
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
        let request = Unverified::new(&headers, &body, DESCRIPTION.encodings);
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
