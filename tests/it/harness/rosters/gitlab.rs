//! GitLab: <https://docs.gitlab.com/api/members/>, <https://docs.gitlab.com/api/groups/>,
//! <https://docs.gitlab.com/api/users/>. Group 4201 is `acme`, group 43 is below it.

use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{Asked, Host, Person, TOKEN, linked, problem};

pub(super) fn answer(host: &Host, asked: &Asked<'_>) -> Response {
    if !asked.has("private-token", TOKEN) {
        return problem(401, "401 Unauthorized");
    }
    let mut response = match asked.path().as_slice() {
        ["groups", "4201"] => {
            axum::Json(json!({ "id": 4201, "name": "Acme", "path": "acme", "full_path": "acme" })).into_response()
        }
        ["groups", "4201", "descendant_groups"] => linked(&json!([{ "id": 43, "full_path": "acme/platform" }]), None),
        ["groups", "4201", "projects"] => linked(&json!([]), None),
        ["groups", "4201", "members", "all"] => list(host, asked, host.members.values().collect(), member),
        ["groups", "43", "members"] => list(host, asked, host.others.values().collect(), member),
        ["users"] => list(host, asked, host.members.values().collect(), |it| user(it, host.sees_all)),
        _ => problem(404, "404 Not found"),
    };
    for (name, value) in [("ratelimit-limit", "2000"), ("ratelimit-remaining", "1999"), ("ratelimit-reset", "1")] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn list(host: &Host, asked: &Asked<'_>, people: Vec<&Person>, written: impl Fn(&Person) -> Value) -> Response {
    let total = people.len();
    let (page, next) = asked.page(people, "per_page", host.page);
    let mut response = linked(&json!(page.into_iter().map(written).collect::<Vec<_>>()), next);
    response.headers_mut().insert("x-total", HeaderValue::from(total));
    response
}

fn member(it: &Person) -> Value {
    json!({
        "id": it.id, "username": it.login, "name": it.login, "state": it.state, "locked": false, "access_level": 30,
        "created_at": it.created_at, "expires_at": null, "membership_state": "active",
    })
}

/// Administrators are told more.
fn user(it: &Person, to_admin: bool) -> Value {
    let mut user = json!({ "id": it.id, "username": it.login, "name": it.login, "state": it.state, "locked": false });
    if to_admin {
        user["created_at"] = json!(it.created_at);
        user["is_admin"] = json!(false);
        user["email"] = json!(format!("{}@acme.example", it.login));
    }
    user
}
