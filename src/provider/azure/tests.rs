//! Sightings, on payloads of the documented shape with invented people.

use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::provider::trial::{self, access, told};

fn settings(verify: Option<&str>, header: Option<&str>) -> SourceSettings {
    let (verify, header) = (verify.map(str::to_owned), header.map(str::to_owned));
    SourceSettings { host: "dev.azure.com".to_owned(), verify, header, ..trial::settings() }
}

fn interpreted(event: &str, body: &Value) -> Result<Meaning, Misshapen> {
    let mut body = body.clone();
    body["eventType"] = event.into();
    trial::interpreted(&DESCRIPTION, &settings(Some("basic"), None), event, &body)
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
    let (account, scope, kind) = access(interpreted(event, &body).unwrap());
    assert_eq!(kind, AccessKind::Seen);
    assert_eq!(account.key.to_string(), "azure-devops@dev.azure.com:#00067ffe-71");
    assert_eq!(account.email.as_deref(), Some("rosalind@larkspur.example"));
    assert_eq!(scope.top_id().to_string(), "org:#acc-1");
}

#[test]
fn a_name_that_is_no_address_is_a_login_alone() {
    let mut body = json!({ "resource": { "pushedBy": { "id": "x", "uniqueName": "Windows Live ID\\rosalind@larkspur.example" }, "repository": { "id": "r" } } });
    let (account, scope, _) = access(interpreted("git.push", &body).unwrap());
    assert_eq!((account.email, scope.root), (None, None));
    body["resource"]["pushedBy"] = json!({ "id": "x" });
    assert_eq!(access(interpreted("git.push", &body).unwrap()).0.login, None);
    // Azure DevOps Server has collections only.
    body["resourceContainers"] = json!({ "collection": { "id": "c-1" }, "project": { "id": "p-1" } });
    assert_eq!(access(interpreted("git.push", &body).unwrap()).1.top_id().to_string(), "org:#c-1");
    body["resource"]["pushedBy"] = json!({ "displayName": "Rosalind Fern" });
    assert_eq!(interpreted("git.push", &body).unwrap_err().path, "resource.pushedBy.id");
}

#[test]
fn a_subscription_without_details_is_told_what_to_do() {
    for body in [json!({}), json!({ "resource": null }), json!({ "resource": { "pushId": 14 } })] {
        let note = interpreted("git.push", &body).unwrap().note.unwrap();
        assert!(note.contains("Resource details to send"), "{note}");
    }
}

#[test]
fn the_truth_table_is_what_the_code_does() {
    let identity = json!({ "id": "00067ffe-71" });
    let body = json!({ "resource": { "pushedBy": identity, "createdBy": identity, "repository": { "id": "beds-1" } } });
    for row in DESCRIPTION.events {
        let meaning = interpreted(&row.event.replace('*', "updated"), &body).unwrap();
        assert_eq!(row.change, told(&meaning), "{}", row.event);
    }
}

#[rstest]
#[case(None, None, "verify")]
#[case(Some("basic"), Some("X-Secret"), "header")]
#[case(Some("header"), None, "header")]
#[case(Some("header"), Some("not a header"), "header")]
fn how_the_secret_comes_has_to_be_said(#[case] verify: Option<&str>, #[case] header: Option<&str>, #[case] key: &str) {
    assert_eq!((DESCRIPTION.interpreter)(&settings(verify, header)).unwrap_err().key, key);
}
