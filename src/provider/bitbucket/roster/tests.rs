use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use super::*;

fn read(question: &Question, body: &Value, found: &mut Found) -> Result<Vec<Question>, UnreadableAnswer> {
    let answer = Answer { headers: HeaderMap::new(), body: Bytes::from(body.to_string()) };
    CloudRoster { host: "bitbucket.org".to_owned() }.read(question, &answer, found)
}

fn membership(uuid: &str, kind: &str) -> Value {
    json!({ "type": "workspace_membership", "user": { "type": kind, "uuid": uuid, "account_id": "557058:a", "nickname": "r" } })
}

#[test]
fn a_workspace_is_its_members_on_all_pages() {
    let roster = CloudRoster { host: "bitbucket.org".to_owned() };
    let mut found = Found::default();
    let first = roster.begin(&"org:acme".parse().unwrap()).unwrap();
    let members = read(&first, &json!({ "uuid": "{w}", "slug": "acme" }), &mut found).unwrap().remove(0);
    let next = "https://api.bitbucket.org/2.0/workspaces/%7Bw%7D/members?pagelen=100&page=2";
    let page = json!({ "values": [membership("{1}", "user"), membership("{2}", "team")], "next": next });
    let second = read(&members, &page, &mut found).unwrap().remove(0);
    assert_eq!(second.ask, Ask::named(next.parse().unwrap()));
    let rest = read(&second, &json!({ "values": [membership("{3}", "app_user")] }), &mut found).unwrap();
    assert!(rest.is_empty());
    let whole = found.whole().unwrap();
    let members = &whole.scopes[&whole.root.id].members;
    assert_eq!(members.keys().collect::<Vec<_>>(), ["{1}", "{3}"]);
    assert_eq!(members["{1}"].account.node_id.as_deref(), Some("557058:a"));
    assert_eq!(members["{3}"].account.kind, AccountKind::Bot);
}

#[test]
fn a_next_page_that_is_no_address_does_not_end_the_roster() {
    let mut found = Found::default();
    let workspace = Scope::top(ScopeKind::Org, "{w}", None);
    let about = About::Members(workspace, None);
    let question = Question { about, ask: Ask::get(&["x"]), needs: NEEDS };
    let page = json!({ "values": [membership("{1}", "user")], "next": "page 2" });
    assert!(read(&question, &page, &mut found).is_err());
}
