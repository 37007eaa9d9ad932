use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use super::*;

fn roster() -> FamilyRoster {
    FamilyRoster { provider: "forgejo", host: "git.acme.example".to_owned() }
}

fn read(question: &Question, body: &Value, link: Option<&str>, found: &mut Found) -> Vec<Question> {
    let headers: HeaderMap = link.map(|link| (http::header::LINK, link.parse().unwrap())).into_iter().collect();
    roster().read(question, &Answer { headers, body: Bytes::from(body.to_string()) }, found).unwrap()
}

#[test]
fn an_organisation_is_its_members_and_whether_the_token_sees_them_all_is_asked_once() {
    let mut found = Found::default();
    let first = roster().begin(&"org:acme".parse().unwrap()).unwrap();
    let members = read(&first, &json!({ "id": 6, "username": "acme" }), None, &mut found).remove(0);
    let link = "<https://git.acme.example/api/v1/orgs/acme/members?limit=50&page=2>; rel=\"next\"";
    let page = json!([{ "id": 1, "login": "rosalind", "email": "r@acme.example" }]);
    let further = read(&members, &page, Some(link), &mut found);
    assert_eq!(further[1].about, About::Sight);
    assert_eq!(further[1].ask, Ask::get(&["orgs", "acme", "members", "rosalind"]));
    let page = json!([{ "id": 2, "login": "orlando", "prohibit_login": true }]);
    assert!(read(&further[0], &page, None, &mut found).is_empty());
    let whole = found.whole().unwrap();
    let members = &whole.scopes[&whole.root.id].members;
    assert_eq!(members.values().map(|it| it.active).collect::<Vec<_>>(), [true, false]);
    assert_eq!(members["1"].account.key.provider, "forgejo");
}

#[test]
fn roots_without_a_roster_are_refused_with_a_way_out() {
    for root in ["instance", "org:#6", "repo:acme/website"] {
        assert!(roster().begin(&root.parse().unwrap()).is_err(), "{root}");
    }
}
