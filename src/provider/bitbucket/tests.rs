//! Sightings, on payloads of the documented shape with invented people.

use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::access::AccountKind;
use crate::provider::trial::{self, access, told};
use crate::provider::{Description, Misshapen};

fn interpreted(provider: &Description, event: &str, body: &Value) -> Result<Meaning, Misshapen> {
    trial::interpreted(provider, &trial::settings(), event, body)
}

/// A delivery of Bitbucket Cloud, with the mark of its event.
fn cloud(event: &str) -> Value {
    let mut body = json!({
        "actor": { "type": "user", "uuid": "{6f1c}", "account_id": "557058:71", "nickname": "rosalind", "display_name": "Rosalind Fern" },
        "repository": {
            "uuid": "{beds}", "full_name": "larkspur/beds", "is_private": false,
            "workspace": { "uuid": "{ws}", "slug": "larkspur" }, "owner": { "type": "team", "uuid": "{ws}" },
        },
    });
    match event {
        "repo.push" => body["push"] = json!({ "changes": [] }),
        "pullrequest.fulfilled" => body["pullrequest"] = json!({ "state": "MERGED", "closed_by": body["actor"] }),
        _ if event.starts_with("pullrequest.") => body["pullrequest"] = json!({ "state": "OPEN", "closed_by": null }),
        _ => {}
    }
    body
}

#[rstest]
#[case("repo.push")]
#[case("pullrequest.fulfilled")]
fn whoever_needs_access_to_act_at_bitbucket_cloud_is_seen_in_the_repository(#[case] event: &str) {
    let (account, scope, kind) = access(interpreted(&CLOUD, event, &cloud(event)).unwrap());
    assert_eq!(kind, AccessKind::Seen);
    assert_eq!(account.key.to_string(), "bitbucket-cloud@git.larkspur.example:#{6f1c}");
    assert_eq!((account.node_id.as_deref(), account.login.as_deref()), (Some("557058:71"), None));
    assert_eq!((scope.top_id().to_string(), scope.top_name()), ("org:#{ws}".into(), Some("larkspur")));
    assert_eq!(scope.name.as_deref(), Some("larkspur/beds"));
}

#[rstest]
#[case("pullrequest.created")]
#[case("pullrequest.approved")]
#[case("pullrequest.comment_created")]
fn on_a_pull_request_only_members_of_a_private_repository_are_seen(#[case] event: &str) {
    let mut body = cloud(event);
    assert!(interpreted(&CLOUD, event, &body).unwrap().note.unwrap().contains("public"));
    body["repository"]["is_private"] = true.into();
    assert_eq!(access(interpreted(&CLOUD, event, &body).unwrap()).2, AccessKind::Seen);
}

#[test]
fn bodies_from_before_there_were_workspaces_name_an_owner_or_nothing() {
    let mut body = cloud("repo.push");
    body["repository"].as_object_mut().unwrap().remove("workspace");
    let (_, scope, _) = access(interpreted(&CLOUD, "repo.push", &body).unwrap());
    assert_eq!((scope.top_id().to_string(), scope.top_name()), ("org:#{ws}".into(), Some("larkspur")));
    for label in ["owner", "full_name"] {
        body["repository"].as_object_mut().unwrap().remove(label);
    }
    let (_, scope, _) = access(interpreted(&CLOUD, "repo.push", &body).unwrap());
    assert_eq!((scope.to_owned().root, scope.name), (None, None));
}

#[test]
fn an_actor_is_known_by_uuid_else_by_account_id_and_may_be_nobody() {
    let mut body = cloud("repo.push");
    body["actor"] = json!({ "display_name": "Rosalind Fern", "uuid": "{6f1c}", "username": "rosalind" });
    assert_eq!(access(interpreted(&CLOUD, "repo.push", &body).unwrap()).0.key.id, "{6f1c}");
    body["actor"] = json!({ "type": "user", "account_id": "557058:71" });
    assert_eq!(access(interpreted(&CLOUD, "repo.push", &body).unwrap()).0.key.id, "557058:71");
    body["actor"] = json!({ "type": "app_user", "uuid": "{6f1c}" });
    assert_eq!(access(interpreted(&CLOUD, "repo.push", &body).unwrap()).0.kind, AccountKind::Bot);
    for nobody in [json!({ "type": "team", "uuid": "{ws}" }), json!({ "type": "user" }), json!({ "uuid": "" })] {
        body["actor"] = nobody;
        assert!(interpreted(&CLOUD, "repo.push", &body).unwrap().changes.is_empty());
    }
}

/// A delivery of Data Center, with the parts of a push and of a pull request.
fn data_center(event: &str) -> Value {
    let repository = json!({ "id": 84, "slug": "beds", "public": false, "project": { "id": 2, "key": "GARDEN" } });
    json!({
        "eventKey": event.replace('.', ":"), "date": "2026-03-01T10:00:00+0000", "changes": [],
        "actor": { "id": 71, "name": "rosalind", "slug": "rosalind", "emailAddress": "rosalind@larkspur.example", "active": true, "type": "NORMAL" },
        "repository": repository, "pullRequest": { "id": 5, "toRef": { "repository": repository } },
    })
}

#[rstest]
#[case("repo.refs_changed", "pullRequest")]
#[case("pr.opened", "repository")]
#[case("pr.reviewer.approved", "repository")]
fn whoever_acts_at_data_center_is_seen_with_login_and_address(#[case] event: &str, #[case] not_there: &str) {
    let mut body = data_center(event);
    body.as_object_mut().unwrap().remove(not_there);
    let (account, scope, kind) = access(interpreted(&DATA_CENTER, event, &body).unwrap());
    assert_eq!((account.key.id.as_str(), account.login.as_deref()), ("71", Some("rosalind")));
    assert_eq!(account.email.as_deref(), Some("rosalind@larkspur.example"));
    assert_eq!((scope.name.as_deref(), kind), (Some("GARDEN/beds"), AccessKind::Seen));
    for another in [json!("repo:comment:added"), json!(null), json!(7)] {
        body["eventKey"] = another;
        assert_eq!(interpreted(&DATA_CENTER, event, &body).unwrap_err().path, "eventKey");
    }
}

#[test]
fn a_personal_project_is_named_for_its_owner_and_a_missing_label_costs_only_the_label() {
    let mut body = data_center("repo.refs_changed");
    body["repository"]["project"] = json!({ "key": "~rosalind", "id": 3, "type": "PERSONAL", "owner": { "id": 71 } });
    let named = |body: &Value| access(interpreted(&DATA_CENTER, "repo.refs_changed", body).unwrap());
    assert_eq!(named(&body).1.name.as_deref(), Some("~rosalind/beds"));
    body["actor"] = json!({ "id": 71, "slug": "rosalind" });
    body["repository"] = json!({ "id": 84 });
    let (account, scope, _) = named(&body);
    assert_eq!((account.login.as_deref(), account.email, scope.name), (Some("rosalind"), None, None));
    body["actor"] = json!({ "id": 71, "name": "ci", "type": "SERVICE" });
    assert_eq!(named(&body).0.kind, AccountKind::Bot);
}

#[test]
fn in_a_public_repository_of_data_center_only_a_merge_shows_access() {
    let mut body = data_center("pr.opened");
    for path in ["/pullRequest/toRef/repository/public", "/pullRequest/toRef/repository/project/public"] {
        *body.pointer_mut("/pullRequest/toRef/repository/public").unwrap() = false.into();
        body["pullRequest"]["toRef"]["repository"]["project"]["public"] = false.into();
        *body.pointer_mut(path).unwrap() = true.into();
        body["eventKey"] = "pr:opened".into();
        assert!(interpreted(&DATA_CENTER, "pr.opened", &body).unwrap().changes.is_empty(), "{path}");
        body["eventKey"] = "pr:merged".into();
        assert_eq!(told(&interpreted(&DATA_CENTER, "pr.merged", &body).unwrap()), "seen repo");
    }
}

#[test]
fn a_body_of_another_event_does_not_pass_for_one_that_needs_access() {
    let without = |mut body: Value, key: &str| {
        body.as_object_mut().unwrap().remove(key);
        body
    };
    let path = |provider, event, body: &Value| interpreted(provider, event, body).unwrap_err().path;
    let (push, merge) = (cloud("repo.push"), cloud("pullrequest.fulfilled"));
    assert_eq!(path(&CLOUD, "repo.push", &without(push.clone(), "push")), "push");
    assert_eq!(path(&CLOUD, "pullrequest.fulfilled", &without(merge.clone(), "pullrequest")), "pullrequest");
    assert_eq!(path(&CLOUD, "pullrequest.fulfilled", &push), "pullrequest");
    for foreign in ["issue", "fork", "commit", "commit_status"] {
        for (event, body) in [("repo.push", &push), ("pullrequest.fulfilled", &merge)] {
            let mut body = body.clone();
            body[foreign] = json!({});
            assert_eq!(path(&CLOUD, event, &body), foreign);
        }
    }
    for (event, mark) in [("repo.refs_changed", "changes"), ("pr.opened", "pullRequest")] {
        assert_eq!(path(&DATA_CENTER, event, &without(data_center(event), mark)), mark);
    }
}

/// Anybody may comment on a merged pull request of a public repository, and put another name over that.
#[test]
fn only_whom_the_body_names_has_merged_whatever_the_event_is_called() {
    let merge = cloud("pullrequest.fulfilled");
    for event in ["pullrequest.fulfilled", "pullrequest.comment_created"] {
        assert_eq!(told(&interpreted(&CLOUD, event, &merge).unwrap()), "seen repo", "{event}");
        let mut open = merge.clone();
        open["pullrequest"]["state"] = "OPEN".into();
        let mut commented = merge.clone();
        commented["pullrequest"]["closed_by"] = json!({ "type": "user", "uuid": "{other}" });
        let mut untold = merge.clone();
        untold["pullrequest"].as_object_mut().unwrap().remove("closed_by");
        for body in [open, commented, untold] {
            assert_eq!(told(&interpreted(&CLOUD, event, &body).unwrap()), "-", "{event}");
        }
    }
}

#[rstest]
#[case(&CLOUD, "repo.push", cloud("repo.push"))]
#[case(&DATA_CENTER, "repo.refs_changed", data_center("repo.refs_changed"))]
fn a_body_that_names_nobody_or_nowhere_means_nothing_and_one_of_another_type_is_misshapen(
    #[case] provider: &Description,
    #[case] event: &str,
    #[case] body: Value,
) {
    for (part, ids) in [("actor", ["uuid", "account_id", "id"]), ("repository", ["uuid", "id", "id"])] {
        let mut without = body.clone();
        without[part] = Value::Null;
        assert_eq!(told(&interpreted(provider, event, &without).unwrap()), "-", "{part}");
        let mut nameless = body.clone();
        for id in ids {
            nameless[part].as_object_mut().unwrap().remove(id);
        }
        assert_eq!(told(&interpreted(provider, event, &nameless).unwrap()), "-", "{part}");
        let mut another = body.clone();
        another[part] = "rosalind".into();
        assert_eq!(interpreted(provider, event, &another).unwrap_err().path, part);
    }
}

#[rstest]
#[case(&CLOUD, cloud)]
#[case(&DATA_CENTER, data_center)]
fn the_truth_tables_are_what_the_code_does(#[case] provider: &Description, #[case] body: fn(&str) -> Value) {
    for row in provider.events {
        let event = row.event.replace('*', "something");
        let mut told_of = Vec::new();
        for public in [false, true] {
            let mut body = body(&event);
            body["repository"]["is_private"] = (!public).into();
            body["pullRequest"]["toRef"]["repository"]["public"] = public.into();
            told_of.push(told(&interpreted(provider, &event, &body).unwrap()));
        }
        told_of.dedup();
        assert_eq!(row.change, told_of.join(" or "), "{}", row.event);
    }
}
