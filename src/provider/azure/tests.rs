//! Sightings, on payloads of the documented shape with invented people.

use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::delivery::{Encoding, SecretName, Timestamp};

fn settings(verify: Option<&str>, header: Option<&str>) -> SourceSettings {
    SourceSettings {
        name: "larkspur".parse().unwrap(),
        host: "dev.azure.com".to_owned(),
        roots: Vec::new(),
        sightings: false,
        verify: verify.map(str::to_owned),
        header: header.map(str::to_owned),
        own: toml::Table::new(),
    }
}

fn interpreted(event: &str, body: &Value) -> Result<Meaning, Misshapen> {
    let delivery = Delivery {
        source: "larkspur".parse().unwrap(),
        provider: "azure-devops".to_owned(),
        id: "d-1".parse().unwrap(),
        event: event.parse().unwrap(),
        encoding: Encoding::Json,
        received_at: Timestamp(1_790_000_000_000_000),
        secret: SecretName("env:S".into()),
        stamp: None,
        replay: None,
        body: body.to_string().into_bytes().into(),
    };
    (DESCRIPTION.interpreter)(&settings(Some("basic"), None)).unwrap().interpret(&delivery)
}

#[rstest]
#[case("git.push", "pushedBy")]
#[case("git.pullrequest.created", "createdBy")]
fn whoever_acts_is_seen_in_the_repository(#[case] event: &str, #[case] actor: &str) {
    let body = json!({
        "id": "e-1", "eventType": event,
        "resource": {
            actor: { "id": "00067ffe-71", "displayName": "Rosalind Fern", "uniqueName": "rosalind@larkspur.example" },
            "repository": { "id": "beds-1", "name": "beds" },
        },
        "resourceContainers": { "account": { "id": "acc-1" }, "project": { "id": "p-1" } },
    });
    let meaning = interpreted(event, &body).unwrap();
    let [Change::Access { account, scope, kind: AccessKind::Seen }] = meaning.changes.as_slice() else {
        panic!("{meaning:?}")
    };
    assert_eq!(account.key.to_string(), "azure-devops@dev.azure.com:#00067ffe-71");
    assert_eq!(account.email.as_deref(), Some("rosalind@larkspur.example"));
    assert_eq!(scope.top_id().to_string(), "org:#acc-1");
}

#[test]
fn a_name_that_is_no_address_is_a_login_alone() {
    let body = json!({ "resource": { "pushedBy": { "id": "x", "uniqueName": "Windows Live ID\\rosalind@larkspur.example" }, "repository": { "id": "r" } } });
    let meaning = interpreted("git.push", &body).unwrap();
    let [Change::Access { account, .. }] = meaning.changes.as_slice() else { panic!("{meaning:?}") };
    assert_eq!(account.email, None);
}

#[test]
fn a_subscription_without_details_is_told_what_to_do() {
    for body in [json!({}), json!({ "resource": {} })] {
        let note = interpreted("git.push", &body).unwrap().note.unwrap();
        assert!(note.contains("Resource details to send"), "{note}");
    }
    assert!(interpreted("build.complete", &json!({})).unwrap().changes.is_empty());
}

#[rstest]
#[case(None, None, "verify")]
#[case(Some("basic"), Some("X-Secret"), "header")]
#[case(Some("header"), None, "header")]
#[case(Some("header"), Some("not a header"), "header")]
fn how_the_secret_comes_has_to_be_said(#[case] verify: Option<&str>, #[case] header: Option<&str>, #[case] key: &str) {
    assert_eq!((DESCRIPTION.interpreter)(&settings(verify, header)).unwrap_err().key, key);
}
