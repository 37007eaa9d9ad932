//! What every request passes before its route: the log, the key, the rate limit, the account's state, the faults.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CONTENT_LENGTH};
use http::{HeaderMap, HeaderValue, StatusCode};
use secrecy::ExposeSecret;
use serde_json::Value;

use super::faults::{Effect, Fault, Operation};
use super::problem::Problem;
use super::requests::{InProgress, Seen};
use super::{Sandbox, Shared, lock};
use crate::delivery::Timestamp;

/// The largest request body, in bytes.
const MAX_BODY: usize = 1 << 20;

/// How long a request that is never answered is kept.
const PATIENCE: Duration = Duration::from_secs(60);

/// Marks an answer that must not be given: the connection is closed instead.
#[derive(Clone, Copy, Debug)]
pub(super) struct HangUp;

pub(super) async fn gate(State(sandbox): State<Sandbox>, request: Request, next: Next) -> Response {
    let shared = &sandbox.shared;
    let full_path = request.uri().path();
    if full_path.starts_with("/_sandbox") {
        return next.run(request).await;
    }
    let path = full_path.strip_prefix("/public").unwrap_or(full_path).to_owned();
    let operation = Operation::of(request.method(), &path);
    let shown = request.uri().query().map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        return Problem::validation("the body can't be read").into_response();
    };
    let in_progress = InProgress::begin(shared, seen(parts.method.as_str(), shown, operation, &body));
    let response = match admit(shared, &parts.headers) {
        Err(refusal) => refusal.into_response(),
        Ok(()) => {
            let request = Request::from_parts(parts, Body::from(body));
            match operation {
                None => next.run(request).await,
                Some(operation) => under_faults(shared, &in_progress, operation, &path, request, next).await,
            }
        }
    };
    if response.extensions().get::<HangUp>().is_none() {
        in_progress.answered(response.status().as_u16());
    }
    response
}

fn seen(method: &str, path: String, operation: Option<Operation>, body: &Bytes) -> Seen {
    let body: Option<Value> =
        (operation == Some(Operation::Connect)).then(|| serde_json::from_slice(body).ok()).flatten();
    let user_id = body.as_ref().and_then(|body| body.get("userId"));
    Seen {
        number: 0,
        begun: Timestamp::now().micros(),
        ended: None,
        landed: None,
        method: method.to_owned(),
        path,
        status: None,
        faults: Vec::new(),
        has_user_id: user_id.is_some(),
        user_id: user_id.and_then(Value::as_i64),
    }
}

/// The checks that concern the caller and the account, not the request.
fn admit(shared: &Shared, headers: &HeaderMap) -> Result<(), Problem> {
    check_key(shared, headers)?;
    if let Some(Err(wait)) = shared.limit.as_ref().map(super::limit::Limit::admit) {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        return Err(Problem::too_many(shared.retry_after.then_some(seconds.max(1))));
    }
    let state = lock(&shared.state);
    if !state.plan_paid {
        return Err(Problem::payment());
    }
    if !state.terms_accepted {
        return Err(Problem::terms());
    }
    Ok(())
}

fn check_key(shared: &Shared, headers: &HeaderMap) -> Result<(), Problem> {
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (scheme, key) = value.split_once(' ').unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") || key.trim().is_empty() {
        return Err(Problem::no_key());
    }
    match &shared.api_key {
        Some(wanted) if wanted.expose_secret() != key.trim() => Err(Problem::wrong_key()),
        _ => Ok(()),
    }
}

async fn under_faults(
    shared: &Arc<Shared>,
    in_progress: &InProgress,
    operation: Operation,
    path: &str,
    request: Request,
    next: Next,
) -> Response {
    let verdict = lock(&shared.faults).decide(operation, path);
    in_progress.hit_by(verdict.rules);
    if !verdict.delay.is_zero() {
        tokio::time::sleep(verdict.delay).await;
    }
    let Some(Fault { effect, applied, .. }) = verdict.fault else {
        return next.run(request).await;
    };
    if let Effect::Late(delay) = effect {
        let landed = in_progress.landing();
        let token = shared.late.token().clone();
        let work = shared.late.short_lived(
            "late request",
            token.run_until_cancelled_owned(async move {
                tokio::time::sleep(delay).await;
                let response = next.run(request).await;
                landed();
                response
            }),
        );
        return work.await.ok().flatten().unwrap_or_else(hang_up);
    }
    let done = if applied || effect == Effect::Garbled { Some(next.run(request).await) } else { None };
    match effect {
        Effect::Status(status, retry_after) => Problem::fault(status, retry_after.map(u64::from)).into_response(),
        Effect::Timeout => {
            tokio::time::sleep(PATIENCE).await;
            hang_up()
        }
        Effect::Drop => hang_up(),
        Effect::Garbled => {
            let status = done.map_or(StatusCode::OK, |response| response.status());
            (status, "<html>not what you asked for</html>").into_response()
        }
        Effect::Slow(_) | Effect::Late(_) => done.unwrap_or_else(hang_up),
    }
}

/// An answer that ends the connection. [`Sandbox::serve`] closes it without a byte; any other server sends a head that
/// promises a body, and breaks off.
fn hang_up() -> Response {
    let broken = futures_util::stream::once(async { Err::<Bytes, _>(std::io::Error::other("hung up on demand")) });
    let mut response = Body::from_stream(broken).into_response();
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("512"));
    response.extensions_mut().insert(HangUp);
    response
}
