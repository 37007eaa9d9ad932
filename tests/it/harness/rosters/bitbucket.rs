//! Bitbucket Cloud: <https://developer.atlassian.com/cloud/bitbucket/rest/api-group-workspaces/>.

use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{Asked, Host, TOKEN, problem};

const WORKSPACE: &str = "{00000000-0000-4000-8000-000000004201}";

pub(super) fn answer(host: &Host, asked: &Asked<'_>) -> Response {
    if !asked.has("authorization", &format!("Bearer {TOKEN}")) {
        return problem(401, "Token is invalid, expired, or not supported for this endpoint.");
    }
    match asked.path().as_slice() {
        ["workspaces", "acme" | WORKSPACE] => {
            axum::Json(json!({ "type": "workspace", "uuid": WORKSPACE, "slug": "acme", "name": "Acme" }))
                .into_response()
        }
        ["workspaces", "acme" | WORKSPACE, "members"] => {
            let (page, next) = asked.page(host.members.values().collect(), "pagelen", host.page);
            let values: Vec<Value> = page
                .iter()
                .map(|it| {
                    let uuid = format!("{{00000000-0000-4000-8000-{:012}}}", it.id);
                    let user = json!({ "type": "user", "uuid": uuid, "account_id": format!("557058:{}", it.id),
                        "nickname": it.login, "display_name": it.login });
                    json!({ "type": "workspace_membership", "user": user, "workspace": { "uuid": WORKSPACE, "slug": "acme" } })
                })
                .collect();
            let mut body = json!({ "values": values, "pagelen": host.page, "page": asked.number("page", 1) });
            if let Some(next) = next {
                body["next"] = json!(next);
            }
            axum::Json(body).into_response()
        }
        _ => problem(404, "Resource not found"),
    }
}
