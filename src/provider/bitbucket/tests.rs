//! Sightings, on payloads of the documented shape with invented people.

use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::delivery::{Encoding, SecretName, Timestamp};
use crate::provider::SourceSettings;

fn interpreted(provider: &Description, event: &str, body: &Value) -> Result<Meaning, Misshapen> {
    let settings = SourceSettings {
        name: "larkspur".parse().unwrap(),
        host: "git.larkspur.example".to_owned(),
        roots: Vec::new(),
        sightings: false,
        verify: None,
        header: None,
        own: toml::Table::new(),
    };
    let delivery = Delivery {
        source: "larkspur".parse().unwrap(),
        provider: provider.name.to_owned(),
        id: "d-1".parse().unwrap(),
        event: event.parse().unwrap(),
        encoding: Encoding::Json,
        received_at: Timestamp(1_790_000_000_000_000),
        secret: SecretName("env:S".into()),
        stamp: None,
        replay: None,
        body: body.to_string().into_bytes().into(),
    };
    (provider.interpreter)(&settings).unwrap().interpret(&delivery)
}

fn cloud() -> Value {
    json!({
        "actor": { "type": "user", "uuid": "{6f1c}", "account_id": "557058:71", "nickname": "rosalind", "display_name": "Rosalind Fern" },
        "repository": { "uuid": "{beds}", "full_name": "larkspur/beds", "workspace": { "uuid": "{ws}", "slug": "larkspur" } },
        "push": { "changes": [] },
    })
}

#[rstest]
#[case("repo.push")]
#[case("pullrequest.created")]
fn whoever_acts_at_bitbucket_cloud_is_seen_in_the_repository(#[case] event: &str) {
    let meaning = interpreted(&CLOUD, event, &cloud()).unwrap();
    let [Change::Access { account, scope, kind: AccessKind::Seen }] = meaning.changes.as_slice() else {
        panic!("{meaning:?}")
    };
    assert_eq!(account.key.to_string(), "bitbucket-cloud@git.larkspur.example:#{6f1c}");
    assert_eq!((account.node_id.as_deref(), account.login.as_deref()), (Some("557058:71"), None));
    assert_eq!((scope.top_name(), scope.name.as_deref()), (Some("larkspur"), Some("larkspur/beds")));
}

#[test]
fn apps_are_bots_and_teams_are_nobody() {
    let mut body = cloud();
    body["actor"]["type"] = "app_user".into();
    let meaning = interpreted(&CLOUD, "repo.push", &body).unwrap();
    let [Change::Access { account, .. }] = meaning.changes.as_slice() else { panic!("{meaning:?}") };
    assert_eq!(account.kind, AccountKind::Bot);
    body["actor"]["type"] = "team".into();
    assert!(interpreted(&CLOUD, "repo.push", &body).unwrap().changes.is_empty());
}

fn data_center() -> Value {
    let repository = json!({ "id": 84, "slug": "beds", "project": { "id": 2, "key": "GARDEN" } });
    json!({
        "eventKey": "repo:refs_changed", "date": "2026-03-01T10:00:00+0000",
        "actor": { "id": 71, "name": "rosalind", "slug": "rosalind", "emailAddress": "rosalind@larkspur.example", "active": true, "type": "NORMAL" },
        "repository": repository, "pullRequest": { "toRef": { "repository": repository } },
    })
}

#[rstest]
#[case("repo.refs_changed", true)]
#[case("pr.opened", false)]
fn whoever_acts_at_data_center_is_seen_with_login_and_address(#[case] event: &str, #[case] at_the_top: bool) {
    let mut body = data_center();
    if !at_the_top {
        body.as_object_mut().unwrap().remove("repository");
    }
    let meaning = interpreted(&DATA_CENTER, event, &body).unwrap();
    let [Change::Access { account, scope, kind: AccessKind::Seen }] = meaning.changes.as_slice() else {
        panic!("{meaning:?}")
    };
    assert_eq!((account.key.id.as_str(), account.login.as_deref()), ("71", Some("rosalind")));
    assert_eq!(account.email.as_deref(), Some("rosalind@larkspur.example"));
    assert_eq!(scope.name.as_deref(), Some("GARDEN/beds"));
}

#[test]
fn other_events_mean_nothing_and_broken_ones_are_misshapen() {
    for event in ["repo.fork", "repo.commit_status_created", "issue.created", "project.updated"] {
        assert!(interpreted(&CLOUD, event, &json!({})).unwrap().changes.is_empty(), "{event}");
    }
    interpreted(&CLOUD, "repo.push", &json!({})).unwrap_err();
    let mut nameless = cloud();
    nameless["actor"]["uuid"] = "".into();
    assert_eq!(interpreted(&CLOUD, "repo.push", &nameless).unwrap_err().path, "actor.uuid");
    interpreted(&DATA_CENTER, "pr.opened", &json!({ "actor": { "id": 1 } })).unwrap_err();
}
