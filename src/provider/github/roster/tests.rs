use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use super::*;
use crate::access::AccountKind;
use crate::provider::api::To;

const NEXT: &str = "<https://api.github.com/organizations/4201/members?per_page=100&page=2>; rel=\"next\"";

fn roster() -> GitHubRoster {
    GitHubRoster { host: "github.com".to_owned() }
}

fn answer(body: &Value, link: Option<&str>) -> Answer {
    let headers: HeaderMap = link.map(|link| (http::header::LINK, link.parse().unwrap())).into_iter().collect();
    Answer { headers, body: Bytes::from(body.to_string()) }
}

/// Path and query of a request, as they are written here.
fn asked(question: &Question) -> String {
    match &question.ask.to {
        To::Below { path, query } => {
            let query: Vec<String> = query.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("{}?{}", path.join("/"), query.join("&"))
        }
        To::Named(url) => url.to_string(),
    }
}

fn user(id: u64, login: &str) -> Value {
    json!({ "id": id, "node_id": format!("U_{id}"), "login": login, "type": "User", "site_admin": false })
}

/// Answers every question of a root's roster, and says what was asked.
fn read_all(root: &str, answers: &[(&str, Value, Option<&str>)]) -> (Result<Found, UnreadableAnswer>, Vec<String>) {
    let (roster, mut found, mut log) = (roster(), Found::default(), Vec::new());
    let mut questions = std::collections::VecDeque::from([roster.begin(&root.parse().unwrap()).unwrap()]);
    while let Some(question) = questions.pop_front() {
        let asked = asked(&question);
        let (_, body, link) =
            answers.iter().find(|(to, ..)| asked == *to).unwrap_or_else(|| panic!("nobody expects {asked}"));
        log.push(asked);
        match roster.read(&question, &answer(body, *link), &mut found) {
            Ok(further) => questions.extend(further),
            Err(error) => return (Err(error), log),
        }
    }
    (Ok(found), log)
}

#[test]
fn an_organisation_is_its_members_on_all_pages_its_owners_and_its_outside_collaborators() {
    let second = "https://api.github.com/organizations/4201/members?per_page=100&page=2";
    let answers = [
        ("orgs/acme?", json!({ "id": 4201, "login": "Acme" }), None),
        ("orgs/Acme/members?per_page=100", json!([user(2001, "rosalind"), user(2002, "orlando")]), Some(NEXT)),
        ("orgs/Acme/members/rosalind?", json!(null), None),
        (second, json!([user(2002, "orlando"), { "id": 2003, "login": "ci[bot]", "type": "Bot" }]), None),
        ("orgs/Acme/members?per_page=100&role=admin", json!([user(2001, "rosalind")]), None),
        (
            "orgs/Acme/outside_collaborators?per_page=100",
            json!([user(2004, "celia"), { "id": 9, "login": "x", "type": "Mannequin" }]),
            None,
        ),
    ];
    let (found, log) = read_all("org:acme", &answers);
    assert_eq!(log.len(), 6, "{log:?}");
    let whole = found.unwrap().whole().unwrap();
    assert_eq!((whole.root.id.to_string().as_str(), whole.root.name.as_deref()), ("org:#4201", Some("Acme")));
    let members: Vec<_> = whole.scopes[&whole.root.id]
        .members
        .values()
        .map(|it| (it.account.key.id.as_str(), it.role.as_deref(), it.account.kind, it.account.node_id.as_deref()))
        .collect();
    let person = AccountKind::Person;
    assert_eq!(
        members,
        [
            ("2001", Some("owner"), person, Some("U_2001")),
            ("2002", None, person, Some("U_2002")),
            ("2003", None, AccountKind::Bot, None),
            ("2004", Some("outside collaborator"), person, Some("U_2004")),
        ]
    );
}

#[test]
fn a_repository_is_its_collaborators_with_their_roles() {
    let listed = json!([{ "id": 7, "login": "celia", "type": "User", "role_name": "maintain" }]);
    let answers = [
        ("repositories/31?", json!({ "id": 31, "full_name": "acme/website" }), None),
        ("repos/acme/website/collaborators?per_page=100", listed, None),
    ];
    let whole = read_all("repo:#31", &answers).0.unwrap().whole().unwrap();
    assert_eq!(whole.scopes[&whole.root.id].members["7"].role.as_deref(), Some("maintain"));
}

#[test]
fn an_organisation_without_anybody_is_taken_for_one_that_cannot_be_seen() {
    let answers = [
        ("orgs/acme?", json!({ "id": 4201, "login": "acme" }), None),
        ("orgs/acme/members?per_page=100", json!([]), None),
        ("orgs/acme/members?per_page=100&role=admin", json!([]), None),
        ("orgs/acme/outside_collaborators?per_page=100", json!([]), None),
    ];
    let error = read_all("org:acme", &answers).0.unwrap().whole().unwrap_err().to_string();
    assert!(error.contains("never for everybody having left"), "{error}");
}

#[test]
fn a_page_of_another_shape_is_refused_without_quoting_it() {
    for body in [json!({ "message": "s3cret" }), json!([{ "login": "s3cret" }]), json!([{ "id": 0 }]), json!([7])] {
        let answers = [
            ("orgs/acme?", json!({ "id": 4201, "login": "acme" }), None),
            ("orgs/acme/members?per_page=100", body, None),
        ];
        let error = read_all("org:acme", &answers).0.unwrap_err().to_string();
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[test]
fn roots_without_a_roster_are_refused_with_a_way_out() {
    for root in ["instance", "repo:website", "team:platform", "user:rosalind"] {
        assert!(roster().begin(&root.parse().unwrap()).is_err(), "{root}");
    }
}
