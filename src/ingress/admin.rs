//! The admin listener: is the process alive, can it do its job, how are its parts, what are its numbers.
//!
//! It asks the parts and knows none of them. What the platform does never takes an ingress out of its load balancer:
//! `/ready` asks only the parts that the process's own role needs.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;

use super::{Limits, Networks};
use crate::broker::{Health, State as PartState};
use crate::telemetry::metrics::Metrics;

/// How many connections to the admin listener may be open at once; more wait in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 64;

/// How many of them may come from one peer: the rest is for probes and whoever collects metrics.
pub const MAX_PER_PEER: usize = MAX_CONNECTIONS / 4;

/// What bounds the admin listener's connections. A probe waits a second or so: whoever does nothing makes room for it.
#[must_use]
pub fn limits() -> Limits {
    Limits {
        listener: "admin",
        header_timeout: Duration::from_secs(5),
        keep_alive: Duration::from_secs(75),
        max_connections: MAX_CONNECTIONS,
        max_per_peer: MAX_PER_PEER,
        unshared: Networks::this_machine(),
        max_age: Duration::from_secs(60 * 60),
        max_requests: 10_000,
        grace: Duration::from_secs(1),
    }
}

/// Asks a part how it is. Must answer at once.
pub type HealthOf = Arc<dyn Fn() -> Health + Send + Sync>;

/// A part of the process.
#[derive(Clone)]
pub struct Part {
    /// Its name in `/health`: `broker`, `ledger`, `drata`, `source:acme-github`.
    pub name: String,
    /// How it is.
    pub health: HealthOf,
    /// Whether the process can do its role's job without it.
    pub needed: Needed,
}

/// Whether a part is needed for the process to be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needed {
    /// The process does its job without it.
    No,
    /// It doesn't.
    Yes,
    /// It does as long as the part of that name works.
    Unless(&'static str),
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("name", &self.name).field("needed", &self.needed).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Admin {
    parts: Vec<Part>,
    metrics: Metrics,
}

/// The routes `/live`, `/ready`, `/health` and `/metrics`.
pub fn router(parts: Vec<Part>, metrics: Metrics) -> Router {
    Router::new()
        .route("/live", get(live))
        .route("/ready", get(ready))
        .route("/health", get(health))
        .route("/metrics", get(render_metrics))
        .with_state(Arc::new(Admin { parts, metrics }))
}

async fn live() -> &'static str {
    "alive\n"
}

async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    let fails = |part: &Part| !works((part.health)().state);
    let missing: Vec<&str> = admin
        .parts
        .iter()
        .filter(|part| match part.needed {
            Needed::No => false,
            Needed::Yes => fails(part),
            Needed::Unless(other) => fails(part) && !admin.parts.iter().any(|part| part.name == other && !fails(part)),
        })
        .map(|part| part.name.as_str())
        .collect();
    if missing.is_empty() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", missing.join(", "))).into_response()
    }
}

#[derive(Serialize)]
struct Report<'a> {
    status: PartState,
    parts: BTreeMap<&'a str, Health>,
}

async fn health(State(admin): State<Arc<Admin>>) -> Response {
    let mut parts: BTreeMap<&str, Health> = BTreeMap::new();
    for part in &admin.parts {
        let health = (part.health)();
        let merged = match parts.remove(part.name.as_str()) {
            Some(other) => merged(other, health),
            None => health,
        };
        parts.insert(&part.name, merged);
    }
    let worst = parts.values().map(|health| health.state).max_by_key(|state| badness(*state)).unwrap_or(PartState::Ok);
    let status = if works(worst) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Report { status: worst, parts })).into_response()
}

async fn render_metrics(State(admin): State<Arc<Admin>>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.metrics.render()).into_response()
}

/// Two roles of one process may each know something of the same part, as of a source: the worse of the two is how it is,
/// since when it first was, and every reason is told.
fn merged(one: Health, other: Health) -> Health {
    let reasons: Vec<String> = [&one.reason, &other.reason].into_iter().flatten().cloned().collect();
    let since = match badness(one.state).cmp(&badness(other.state)) {
        Ordering::Less => other.since,
        Ordering::Equal => one.since.min(other.since),
        Ordering::Greater => one.since,
    };
    let state = if badness(other.state) > badness(one.state) { other.state } else { one.state };
    Health { state, reason: (!reasons.is_empty()).then(|| reasons.join("; ")), since }
}

const fn works(state: PartState) -> bool {
    matches!(state, PartState::Ok | PartState::Degraded)
}

const fn badness(state: PartState) -> u8 {
    match state {
        PartState::Ok => 0,
        PartState::Degraded => 1,
        PartState::Halted => 2,
        PartState::Down => 3,
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::delivery::Timestamp;
    use crate::telemetry::metrics::{ACCEPTED, recorder};

    fn part(name: &str, state: PartState, needed: bool) -> Part {
        let needed = if needed { Needed::Yes } else { Needed::No };
        let health = Health { state, reason: Some("a test".to_owned()), since: Timestamp(0) };
        Part { name: name.to_owned(), health: Arc::new(move || health.clone()), needed }
    }

    async fn ask(parts: Vec<Part>, path: &str) -> (u16, String) {
        let (recorder, metrics) = recorder().unwrap();
        metrics::with_local_recorder(&recorder, || metrics::counter!(ACCEPTED, "source" => "acme").increment(1));
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(parts, metrics).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_is_about_the_parts_that_the_role_needs() {
        let parts = vec![part("broker", PartState::Degraded, true), part("drata", PartState::Halted, false)];
        assert_eq!(ask(parts, "/ready").await, (200, "ready\n".to_owned()));
        let parts = vec![part("broker", PartState::Down, true)];
        assert_eq!(ask(parts, "/ready").await, (503, "not ready: broker\n".to_owned()));
    }

    #[tokio::test]
    async fn of_two_parts_that_stand_in_for_each_other_one_is_enough() {
        let parts = |broker, spool| {
            let unless = |name, state, other| Part { needed: Needed::Unless(other), ..part(name, state, false) };
            vec![unless("broker", broker, "spool"), unless("spool", spool, "broker")]
        };
        assert_eq!(ask(parts(PartState::Down, PartState::Degraded), "/ready").await.0, 200);
        assert_eq!(ask(parts(PartState::Ok, PartState::Down), "/ready").await.0, 200);
        let (status, body) = ask(parts(PartState::Down, PartState::Down), "/ready").await;
        assert_eq!((status, body.as_str()), (503, "not ready: broker, spool\n"));
    }

    #[tokio::test]
    async fn health_shows_every_part_and_the_worst_decides() {
        let (status, body) = ask(vec![part("broker", PartState::Degraded, true)], "/health").await;
        let expected = r#"{"status":"degraded","parts":{"broker":{"state":"degraded","reason":"a test","since":"1970-01-01T00:00:00Z"}}}"#;
        assert_eq!((status, body.as_str()), (200, expected));
        for (state, word) in [(PartState::Halted, "halted"), (PartState::Down, "down")] {
            let (status, body) = ask(vec![part("a", PartState::Ok, true), part("b", state, false)], "/health").await;
            assert_eq!(status, 503);
            assert!(body.starts_with(&format!("{{\"status\":\"{word}\"")), "{body}");
        }
    }

    #[tokio::test]
    async fn what_two_roles_know_of_one_part_is_told_together() {
        let part = |state, reason: Option<&str>, since: i64| {
            let health = Health { state, reason: reason.map(str::to_owned), since: Timestamp(since * 1_000_000) };
            Part { name: "source:acme".to_owned(), health: Arc::new(move || health.clone()), needed: Needed::No }
        };
        let told = async |parts: Vec<Part>| {
            let body: serde_json::Value = serde_json::from_str(&ask(parts, "/health").await.1).unwrap();
            let part = &body["parts"]["source:acme"];
            [&part["state"], &part["reason"], &part["since"]].map(|it| it.as_str().unwrap_or("-").to_owned())
        };
        let ok = part(PartState::Ok, None, 1);
        let blind = part(PartState::Degraded, Some("uninstalled"), 5);
        let refused = part(PartState::Degraded, Some("refused 3 of 3"), 3);
        let down = part(PartState::Down, Some("gone"), 9);
        assert_eq!(told(vec![ok.clone(), ok.clone()]).await, ["ok", "-", "1970-01-01T00:00:01Z"]);
        for parts in [vec![ok.clone(), blind.clone()], vec![blind.clone(), ok]] {
            assert_eq!(told(parts).await, ["degraded", "uninstalled", "1970-01-01T00:00:05Z"]);
        }
        let both = told(vec![blind.clone(), refused]).await;
        assert_eq!(both, ["degraded", "uninstalled; refused 3 of 3", "1970-01-01T00:00:03Z"]);
        assert_eq!(told(vec![blind, down]).await, ["down", "uninstalled; gone", "1970-01-01T00:00:09Z"]);
    }

    #[tokio::test]
    async fn a_process_is_alive_whatever_its_parts_do() {
        assert_eq!(ask(vec![part("broker", PartState::Down, true)], "/live").await.0, 200);
    }

    #[tokio::test]
    async fn metrics_are_served_as_text() {
        let (status, body) = ask(Vec::new(), "/metrics").await;
        assert_eq!(status, 200);
        assert!(body.contains("rollcall_accepted_total{source=\"acme\"} 1"), "{body}");
    }
}
