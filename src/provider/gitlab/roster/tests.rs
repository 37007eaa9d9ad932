use std::collections::VecDeque;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use super::*;
use crate::access::ScopeId;
use crate::provider::api::To;

fn roster(host: &str) -> GitLabRoster {
    GitLabRoster { host: host.to_owned() }
}

fn asked(question: &Question) -> String {
    match &question.ask.to {
        To::Below { path, .. } => path.join("/"),
        To::Named(url) => format!("{}?{}", url.path().trim_start_matches("/api/v4/"), url.query().unwrap_or_default()),
    }
}

/// Answers every question of a root's roster; a body with a next page comes with its link.
fn read_all(host: &str, root: &str, answers: &[(&str, Value, Option<&str>)]) -> Result<Found, UnreadableAnswer> {
    let (roster, mut found) = (roster(host), Found::default());
    let mut questions = VecDeque::from([roster.begin(&root.parse().unwrap()).unwrap()]);
    while let Some(question) = questions.pop_front() {
        let asked = asked(&question);
        let (_, body, next) =
            answers.iter().find(|(to, ..)| asked == *to).unwrap_or_else(|| panic!("nobody expects {asked}"));
        let link = next.map(|next| format!("<https://{host}/api/v4/{next}>; rel=\"next\"").parse().unwrap());
        let headers: HeaderMap = link.map(|link| (http::header::LINK, link)).into_iter().collect();
        questions.extend(roster.read(
            &question,
            &Answer { headers, body: Bytes::from(body.to_string()) },
            &mut found,
        )?);
    }
    Ok(found)
}

fn member(id: u64, login: &str, state: &str, level: u32) -> Value {
    json!({
        "id": id, "username": login, "name": login, "state": state, "access_level": level, "membership_state": "active",
        "created_at": "2024-03-01T10:00:00.123Z", "expires_at": null,
    })
}

#[test]
fn a_group_is_its_members_and_those_of_everything_below_it() {
    let answers = [
        ("groups/42", json!({ "id": 42, "full_path": "acme" }), None),
        ("groups/42/members/all", json!([member(71, "rosalind", "active", 50)]), Some("groups/42/members/all?page=2")),
        ("groups/42/members/all?page=2", json!([member(72, "orlando", "blocked", 30)]), None),
        ("groups/42/descendant_groups", json!([{ "id": 43, "full_path": "acme/platform" }]), None),
        ("groups/42/projects", json!([{ "id": 9, "path_with_namespace": "acme/website" }]), None),
        ("groups/43/members", json!([]), None),
        ("projects/9/members", json!([member(73, "project_9_bot_ab12", "active", 40)]), None),
    ];
    let whole = read_all("gitlab.com", "group:#42", &answers).unwrap().whole().unwrap();
    let group = |id: &str| ScopeId { kind: ScopeKind::Group, id: id.into() };
    let scopes: Vec<String> = whole.scopes.keys().map(ToString::to_string).collect();
    assert_eq!(scopes, ["group:#42", "group:#43", "repo:#9"]);
    assert!(whole.scopes[&group("43")].members.is_empty());
    let members = &whole.scopes[&group("42")].members;
    assert_eq!((members["71"].role.as_deref(), members["71"].active), (Some("owner"), true));
    assert_eq!(members["71"].began.unwrap().to_string(), "2024-03-01T10:00:00.123Z");
    assert!(!members["72"].active);
    let project = &whole.scopes[&ScopeId { kind: ScopeKind::Repo, id: "9".into() }];
    assert_eq!(project.members["73"].account.kind, AccountKind::Bot);
    assert_eq!(project.scope.top_id(), &group("42"));
    assert_eq!(whole.accounts(), 2);
}

#[test]
fn an_instance_is_its_users_as_an_administrator_sees_them() {
    let user = |id: u64, state: &str| {
        json!({ "id": id, "username": format!("u{id}"), "state": state, "is_admin": false,
        "created_at": "2024-03-01T10:00:00Z", "email": format!("u{id}@acme.example"), "bot": id == 3 })
    };
    let users = json!([user(1, "active"), user(2, "deactivated"), user(3, "active"), user(4, "banned")]);
    let whole = read_all("git.acme.example", "instance", &[("users", users, None)]).unwrap().whole().unwrap();
    let members = &whole.scopes[&whole.root.id].members;
    let active: Vec<_> = members.values().map(|it| (it.active, it.account.kind)).collect();
    let (person, bot) = (AccountKind::Person, AccountKind::Bot);
    assert_eq!(active, [(true, person), (true, person), (true, bot), (false, person)]);
    assert_eq!(members["1"].account.email.as_deref(), Some("u1@acme.example"));

    let seen_by_others = json!([{ "id": 1, "username": "u1", "state": "active" }]);
    let error = read_all("git.acme.example", "instance", &[("users", seen_by_others, None)]).unwrap_err().to_string();
    assert!(error.contains("administrator"), "{error}");
}

#[test]
fn roots_without_a_roster_are_refused_with_a_way_out() {
    for (host, root) in [("gitlab.com", "instance"), ("gitlab.com", "group:acme"), ("git.acme.example", "repo:#9")] {
        assert!(roster(host).begin(&root.parse().unwrap()).is_err(), "{root}");
    }
}
