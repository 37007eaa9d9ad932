//! The paths, one file per resource.

mod connections;
mod control;
mod events;
mod identities;
mod personnel;
mod users;

use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post, put};
use axum::{Json, Router, middleware};
use serde_json::Value;

use super::problem::Problem;
use super::{Sandbox, gate, lock, state};

pub(super) fn router(sandbox: Sandbox) -> Router {
    let api = Router::new()
        .route("/connections", get(connections::list))
        .route("/user-identities/version-control", get(identities::list))
        .route("/user-identities/version-control/{id}/connect", put(identities::connect))
        .route("/user-identities/version-control/{id}/service-account", put(identities::service_account))
        .route("/users", get(users::list))
        .route("/users/{id}", get(users::by_id))
        .route("/users/{email}/email", get(users::by_email))
        .route("/personnel", get(personnel::list))
        .route("/personnel/{id}", get(personnel::by_id))
        .route("/personnel/{email}/email", get(personnel::by_email))
        .route("/events", get(events::list));
    let control = Router::new()
        .route("/requests", get(control::requests))
        .route("/state", get(control::state))
        .route("/people", post(control::people))
        .route("/identities", post(control::identities))
        .route("/faults", post(control::faults));
    Router::new()
        .nest("/_sandbox", control)
        .nest("/public", api.clone())
        .merge(api)
        .fallback(unknown_path)
        .layer(middleware::from_fn_with_state(sandbox.clone(), gate::gate))
        .with_state(sandbox)
}

type Answer = Result<Json<Value>, Problem>;

async fn unknown_path(State(_): State<Sandbox>) -> Response {
    axum::response::IntoResponse::into_response(Problem::not_found())
}

/// Answers from the state.
fn answer(sandbox: &Sandbox, from: impl FnOnce(&mut state::State) -> Result<Value, Problem>) -> Answer {
    from(&mut lock(&sandbox.shared.state)).map(Json)
}

fn numeric_id(text: &str) -> Result<i64, Problem> {
    text.parse().map_err(|_| Problem::validation("id must be a number"))
}
