//! `/user-identities/version-control`: the identities and their links.

use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::super::problem::Problem;
use super::super::query::{Page, Query};
use super::super::state::Identity;
use super::super::switches::{QueryMatch, Undocumented};
use super::super::{Sandbox, wire};
use super::{Answer, answer, numeric_id};
use crate::delivery::Timestamp;

const CLIENT_TYPES: &[&str] =
    &["BITBUCKET", "GITHUB", "GITHUB_ENTERPRISE", "GITLAB", "GITLAB_ON_PREM", "AZURE_REPOS", "AWS_CODECOMMIT"];
const SORTS: &[&str] = &[
    "IDENTITY_ID",
    "USERNAME",
    "EMAIL",
    "CONNECTED_AT",
    "DISCONNECTED_AT",
    "SERVICE_ACCOUNT",
    "HAS_MFA",
    "WRITE_ACCESS",
    "PUSH_PROD_CODE_ACCESS",
    "USER",
    "CLIENT_ID",
    "CONNECTION_STATUS",
    "CONNECTION_STATUS_MULTIVERSE",
];

pub(super) async fn list(State(sandbox): State<Sandbox>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::read(query.as_deref());
    let page = Page::read(&query, None)?;
    let client_type = query.word("clientType", CLIENT_TYPES)?;
    let connection = query.number("connectionId")?;
    let sort = query.word("sort", SORTS)?.unwrap_or("USERNAME");
    let descending = query.word("sortDir", &["ASC", "DESC"])? == Some("DESC");
    let wanted = query.text("q").unwrap_or_default().to_lowercase();
    answer(&sandbox, |state| {
        let mut rows: Vec<&Identity> = state
            .identities()
            .filter(|row| client_type.is_none_or(|client_type| client_type == row.client_type))
            .filter(|row| connection.is_none_or(|connection| connection == row.connection_id))
            .filter(|row| finds(row, &wanted, state.undocumented))
            .collect();
        rows.sort_by_key(|row| {
            let key = match sort {
                "IDENTITY_ID" => &row.identity_id,
                "EMAIL" => row.email.as_ref().unwrap_or(&row.username),
                _ => &row.username,
            };
            (key.to_lowercase(), row.id)
        });
        if descending {
            rows.reverse();
        }
        Ok(page.of(&rows, |row| wire::identity(state, row)))
    })
}

/// Whether the lower-case text is found in an identity's id, username or e-mail address.
fn finds(row: &Identity, wanted: &str, undocumented: Undocumented) -> bool {
    let shown = wire::shown_identity_id(row, undocumented.identity_id);
    [Some(shown.as_str()), Some(row.username.as_str()), row.email.as_deref()].into_iter().flatten().any(|value| {
        let value = value.to_lowercase();
        match undocumented.query {
            _ if wanted.is_empty() => true,
            QueryMatch::Exact => value == wanted,
            QueryMatch::Prefix => value.starts_with(wanted),
            QueryMatch::Substring => value.contains(wanted),
        }
    })
}

pub(super) async fn connect(
    State(sandbox): State<Sandbox>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let id = numeric_id(&id)?;
    let user = match object(&headers, &body)?.get("userId") {
        Some(Value::Null) => None,
        Some(user) => Some(user.as_i64().ok_or_else(|| Problem::validation("userId must be a number or null"))?),
        None => return Err(Problem::validation("userId should not be undefined")),
    };
    answer(&sandbox, |state| {
        let row = state.connect(id, user, Timestamp::now())?.clone();
        Ok(wire::identity(state, &row))
    })
}

pub(super) async fn service_account(
    State(sandbox): State<Sandbox>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let id = numeric_id(&id)?;
    let object = object(&headers, &body)?;
    let marked = object.get("serviceAccount").and_then(Value::as_bool);
    let marked = marked.ok_or_else(|| Problem::validation("serviceAccount must be a boolean value"))?;
    let reason = object.get("serviceAccountReason").and_then(Value::as_str).filter(|reason| reason.len() <= 30_000);
    let reason = reason.ok_or_else(|| Problem::validation("serviceAccountReason must be a string"))?;
    answer(&sandbox, |state| {
        let row = state.mark(id, marked, reason, Timestamp::now())?.clone();
        Ok(wire::identity(state, &row))
    })
}

/// The JSON object in a body that says it is JSON.
fn object(headers: &HeaderMap, body: &Bytes) -> Result<Map<String, Value>, Problem> {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !media_type.starts_with("application/json") {
        return Err(Problem::validation("the body must be application/json"));
    }
    serde_json::from_slice(body).map_err(|_| Problem::validation("the body must be a JSON object"))
}
