//! A source of every provider, in every way to verify, and bodies of all that it may send, with invented people: for tests
//! that hold for the whole registry.

use std::path::Path;

use serde_json::{Value, json};

use super::{Description, Draft, REGISTRY, Secret, SourceSettings, trial};
use crate::delivery::{Encoding, SecretName};

const WHSEC: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

const RULES: &str = "
[[rules]]
event = 'member.added'
change = 'gained'
account = '/data/user/id'
scope = '/data/organization/id'
[[rules]]
event = 'member.removed'
change = 'lost'
account = '/data/user/id'
scope = '/data/organization/id'
";

/// A source.
pub(crate) struct Source {
    pub(crate) provider: &'static Description,
    pub(crate) settings: SourceSettings,
    pub(crate) secret: Secret,
}

/// One for each provider and way to verify.
pub(crate) fn sources() -> Vec<Source> {
    let ways = |provider: &Description| -> &[(Option<&str>, Option<&str>, &str)] {
        match provider.name {
            "gitlab" => &[(Some("signature"), None, WHSEC), (Some("token"), None, "a token of some length")],
            "azure-devops" => &[
                (Some("basic"), None, "hooks:a secret of some length"),
                (Some("header"), Some("X-Hook-Secret"), "a secret of some length"),
            ],
            "standard-webhooks" => &[(None, None, WHSEC)],
            _ => &[(None, None, "a secret of some length")],
        }
    };
    let source =
        |provider: &&'static Description, (verify, header, secret): &(Option<&str>, Option<&str>, &str)| Source {
            provider,
            settings: SourceSettings {
                verify: verify.map(str::to_owned),
                header: header.map(str::to_owned),
                own: if provider.name == "standard-webhooks" { RULES.parse().unwrap() } else { toml::Table::new() },
                ..trial::settings()
            },
            secret: Secret { name: SecretName("env:S".into()), value: (*secret).into() },
        };
    REGISTRY.iter().flat_map(|provider| ways(provider).iter().map(move |way| source(provider, way))).collect()
}

/// What a provider sends: at least one body of each of its events that mean something, and of those that nearly do.
pub(crate) fn drafts(provider: &str) -> Vec<Draft> {
    let bodies = match provider {
        "github" => github(),
        "gitlab" => gitlab(),
        "bitbucket-cloud" => bitbucket_cloud(),
        "bitbucket-data-center" => bitbucket_data_center(),
        "gitea" | "forgejo" | "gogs" => gitea(),
        "azure-devops" => azure(),
        "standard-webhooks" => standard(),
        other => panic!("{other} has no samples"),
    };
    let draft = |(event, body): (String, Value)| Draft {
        id: "0b6f2f4e-3f4e-4c5d-9d3b-3f2d1c0b9a88".to_owned(),
        event,
        encoding: Encoding::Json,
        json: body.to_string().into_bytes(),
    };
    bodies.into_iter().map(draft).collect()
}

type Bodies = Vec<(String, Value)>;

/// Every fixture, as a hook and as an app would send it.
fn github() -> Bodies {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/provider/github/fixtures");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut bodies = Bodies::new();
    for path in files {
        let event = path.file_stem().unwrap().to_str().unwrap().split(['.', '~']).next().unwrap().to_owned();
        let hook: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let mut app = hook.clone();
        if app.get("installation").is_none() {
            app["installation"] = json!({ "id": 7, "node_id": "n" });
        }
        bodies.extend([(event.clone(), hook), (event, app)]);
    }
    bodies
}

fn gitlab() -> Bodies {
    let body = |event: &str| {
        json!({
            "event_name": event, "created_at": "2026-03-01T10:00:00Z", "updated_at": "2026-03-02T10:00:00Z",
            "group_id": 42, "group_path": "garden", "group_access": "Developer", "expires_at": null,
            "user_id": 71, "user_username": "rosalind", "username": "rosalind", "old_username": "rose",
            "email": "rosalind@larkspur.example", "user_email": "rosalind@larkspur.example",
            "project_id": 9, "path_with_namespace": "garden/beds", "project": { "path_with_namespace": "garden/beds" },
        })
    };
    let events = super::find("gitlab").unwrap().events.iter();
    let mut bodies: Bodies = events.map(|row| (row.event.to_owned(), body(row.event))).collect();
    let mut kind = body("push");
    kind["object_kind"] = kind["event_name"].take();
    bodies.push(("push".to_owned(), kind));
    bodies
}

fn bitbucket_cloud() -> Bodies {
    let actor = json!({ "type": "user", "uuid": "{6f1c}", "account_id": "557058:71", "nickname": "rosalind" });
    let merged = json!({ "state": "MERGED", "closed_by": actor });
    let merged_by_another = json!({ "state": "MERGED", "closed_by": { "type": "user", "uuid": "{other}" } });
    let open = json!({ "state": "OPEN", "closed_by": null });
    let mut bodies = Bodies::new();
    for private in [true, false] {
        let mut add = |event: &str, parts: Value| {
            let mut body = json!({
                "actor": actor,
                "repository": {
                    "uuid": "{beds}", "full_name": "larkspur/beds", "is_private": private,
                    "workspace": { "uuid": "{ws}", "slug": "larkspur" },
                },
            });
            body.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
            bodies.push((event.to_owned(), body));
        };
        add("repo.push", json!({ "push": { "changes": [] } }));
        add("repo.fork", json!({ "fork": { "uuid": "{f}" } }));
        add("repo.updated", json!({ "changes": { "name": { "new": "a", "old": "b" } } }));
        add("repo.commit_comment_created", json!({ "commit": { "hash": "d1" }, "comment": { "id": 1 } }));
        add("repo.commit_status_created", json!({ "commit_status": { "state": "SUCCESSFUL" } }));
        add("issue.created", json!({ "issue": { "id": 1 } }));
        add("issue.comment_created", json!({ "issue": { "id": 1 }, "comment": { "id": 1 } }));
        add("pullrequest.created", json!({ "pullrequest": open }));
        add("pullrequest.fulfilled", json!({ "pullrequest": merged }));
        add("pullrequest.updated", json!({ "pullrequest": merged_by_another }));
        add("pullrequest.approved", json!({ "pullrequest": open, "approval": { "user": actor } }));
        add("pullrequest.comment_created", json!({ "pullrequest": merged_by_another, "comment": { "id": 1 } }));
    }
    bodies
}

fn bitbucket_data_center() -> Bodies {
    let mut bodies = vec![("diagnostics.ping".to_owned(), json!({ "test": true }))];
    for public in [true, false] {
        let repository = json!({ "id": 84, "slug": "beds", "public": public, "project": { "id": 2, "key": "GARDEN" } });
        let mut add = |event: &str, parts: Value| {
            let mut body = json!({
                "eventKey": event.replace('.', ":"), "date": "2026-03-01T10:00:00+0000",
                "actor": { "id": 71, "name": "rosalind", "type": "NORMAL" },
            });
            body.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
            bodies.push((event.to_owned(), body));
        };
        let request = json!({ "id": 5, "toRef": { "repository": repository } });
        add("repo.refs_changed", json!({ "repository": repository, "changes": [] }));
        add("repo.modified", json!({ "old": repository, "new": repository }));
        add("repo.comment.added", json!({ "repository": repository, "comment": { "id": 1 }, "commit": "d1" }));
        add("mirror.repo_synchronized", json!({ "repository": repository, "changes": [] }));
        for event in ["pr.opened", "pr.merged", "pr.comment.added", "pr.reviewer.approved"] {
            add(event, json!({ "pullRequest": request, "comment": { "id": 1 } }));
        }
    }
    bodies
}

fn gitea() -> Bodies {
    let user = |id: u64, login: &str| json!({ "id": id, "login": login, "email": format!("{login}@larkspur.example") });
    let mut bodies = Bodies::new();
    for private in [true, false] {
        let mut add = |event: &str, parts: Value| {
            let mut body = json!({
                "sender": user(71, "rosalind"),
                "repository": { "id": 9, "full_name": "garden/beds", "private": private, "owner": user(2, "garden") },
            });
            body.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
            bodies.push((event.to_owned(), body));
        };
        let (issue, comment) = (json!({ "id": 1, "ref": "main" }), json!({ "id": 2 }));
        add("push", json!({ "ref": "refs/heads/main", "commits": [], "pusher": user(71, "rosalind") }));
        add("create", json!({ "ref": "topic", "ref_type": "branch", "sha": "d1" }));
        add("delete", json!({ "ref": "topic", "ref_type": "branch", "pusher_type": "user" }));
        add("release", json!({ "action": "published", "release": { "id": 3 } }));
        add("fork", json!({ "forkee": { "id": 9 } }));
        add("repository", json!({ "action": "created", "organization": user(2, "garden") }));
        add("issues", json!({ "action": "opened", "number": 1, "issue": issue }));
        add("issue_comment", json!({ "action": "created", "issue": issue, "comment": comment, "is_pull": false }));
        let of_a_request = json!({
            "action": "created", "issue": issue, "comment": comment, "pull_request": { "id": 4 }, "is_pull": true,
        });
        add("issue_comment", of_a_request);
        add("pull_request", json!({ "action": "opened", "number": 1, "pull_request": { "id": 4 } }));
        add("pull_request_approved", json!({ "action": "reviewed", "pull_request": { "id": 4 }, "review": {} }));
    }
    bodies
}

fn azure() -> Bodies {
    let identity = json!({ "id": "00067ffe-71", "uniqueName": "rosalind@larkspur.example" });
    let body = |event: &str| {
        json!({
            "id": "e-1", "eventType": event,
            "resource": { "pushedBy": identity, "createdBy": identity, "repository": { "id": "beds-1", "name": "beds" } },
            "resourceContainers": { "account": { "id": "acc-1" } },
        })
    };
    let events = ["git.push", "git.pullrequest.created", "git.pullrequest.updated", "build.complete"];
    events.map(|event| (event.to_owned(), body(event))).into()
}

fn standard() -> Bodies {
    let body = |event: &str| json!({ "type": event, "data": { "user": { "id": 71 }, "organization": { "id": 42 } } });
    ["member.added", "member.removed", "other"].map(|event| (event.to_owned(), body(event))).into()
}
