//! GitHub: <https://docs.github.com/en/rest/orgs/members>, <https://docs.github.com/en/rest/orgs/outside-collaborators>.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Asked, Host, Person, TOKEN, linked, problem};

pub(super) fn answer(host: &Host, asked: &Asked<'_>) -> Response {
    if !asked.has("authorization", &format!("Bearer {TOKEN}")) {
        return problem(401, "Bad credentials");
    }
    let mut response = match asked.path().as_slice() {
        ["orgs", "acme"] | ["organizations", "4201"] => {
            axum::Json(json!({ "id": 4201, "login": "acme", "node_id": "O_1", "type": "Organization" })).into_response()
        }
        ["orgs", "acme", "members"] | ["organizations", "4201", "members"] => {
            let role = asked.query.get("role").map_or("all", String::as_str);
            let visible = |person: &&Person| {
                (host.sees_all || person.public) && (role == "all" || (role == "admin") == (person.role == "admin"))
            };
            list(host, asked, host.members.values().filter(visible).collect())
        }
        ["orgs", "acme", "outside_collaborators"] | ["organizations", "4201", "outside_collaborators"] => {
            list(host, asked, host.others.values().collect())
        }
        ["orgs", "acme", "members", login] if host.sees_all => {
            let found = host.members.values().any(|person| person.login == *login);
            if found { StatusCode::NO_CONTENT.into_response() } else { problem(404, "Not Found") }
        }
        ["orgs", "acme", "members", login] => {
            let public = format!("{}orgs/acme/public_members/{login}", asked.base);
            (StatusCode::FOUND, [(header::LOCATION, public)]).into_response()
        }
        _ => problem(404, "Not Found"),
    };
    for (name, value) in [("x-ratelimit-limit", "5000"), ("x-ratelimit-remaining", "4999"), ("x-ratelimit-reset", "1")]
    {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A page, with its `ETag`; nothing but that to whoever has it already.
fn list(host: &Host, asked: &Asked<'_>, people: Vec<&Person>) -> Response {
    let (page, next) = asked.page(people, "per_page", host.page);
    // GitHub's own links name the organisation by its id.
    let next = next.map(|next| next.replace("/orgs/acme/", "/organizations/4201/"));
    let body: Vec<Value> = page
        .iter()
        .map(|it| json!({ "id": it.id, "node_id": format!("U_{}", it.id), "login": it.login, "type": "User", "site_admin": false }))
        .collect();
    let body = json!(body);
    let digest = Sha256::digest(format!("{body}{next:?}"));
    let etag = format!("W/\"{:02x}{:02x}{:02x}\"", digest[0], digest[1], digest[2]);
    let mut response =
        if asked.has("if-none-match", &etag) { StatusCode::NOT_MODIFIED.into_response() } else { linked(&body, next) };
    response.headers_mut().insert(header::ETAG, HeaderValue::try_from(etag).unwrap());
    response
}
