//! Gitea: <https://docs.gitea.com/api/>, the organisation's part.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{Asked, Host, TOKEN, linked, problem};

pub(super) fn answer(host: &Host, asked: &Asked<'_>) -> Response {
    if !asked.has("authorization", &format!("token {TOKEN}")) {
        return problem(401, "invalid username, password or token");
    }
    match asked.path().as_slice() {
        ["orgs", "acme"] => {
            axum::Json(json!({ "id": 4201, "name": "acme", "username": "acme", "visibility": "public" }))
                .into_response()
        }
        ["orgs", "acme", "members"] => {
            let visible: Vec<_> = host.members.values().filter(|person| host.sees_all || person.public).collect();
            let total = visible.len();
            let (page, next) = asked.page(visible, "limit", host.page);
            let users: Vec<Value> = page
                .iter()
                .map(|it| json!({ "id": it.id, "login": it.login, "full_name": "", "email": format!("{}@acme.example", it.login) }))
                .collect();
            let mut response = linked(&json!(users), next);
            response.headers_mut().insert("x-total-count", HeaderValue::from(total));
            response
        }
        ["orgs", "acme", "members", login] if host.sees_all => {
            let found = host.members.values().any(|person| person.login == *login);
            if found { StatusCode::NO_CONTENT.into_response() } else { problem(404, "not found") }
        }
        ["orgs", "acme", "members", login] => {
            let public = format!("{}/orgs/acme/public_members/{login}", asked.base);
            (StatusCode::SEE_OTHER, [(header::LOCATION, public)]).into_response()
        }
        _ => problem(404, "not found"),
    }
}
