//! One request and its answer: the turn, the send, the bounded read, the class of a failure, the measurements.

use http::StatusCode;
use http::header::HeaderMap;
use reqwest::{Method, RequestBuilder, Response};
use tokio::time::Instant;
use url::Url;

use super::answer;
use super::client::Client;
use super::pace::{PAUSE, TooLate};
use crate::backoff::spread;
use crate::delivery::Timestamp;
use crate::outbound::root_cause;
use crate::target::{Failure, FailureClass};

/// The largest answer that is read, in bytes. One identity can carry whole trees of people.
const MAX_BODY: usize = 8 << 20;

/// The largest error answer that is looked at, in bytes.
const MAX_ERROR_BODY: usize = 64 << 10;

/// What a request is for, in metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Connect,
    ListIdentities,
    ListConnections,
    FindPersonnel,
    FindUser,
    ListPersonnel,
    ListUsers,
    ListEvents,
}

impl Operation {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ListIdentities => "list_identities",
            Self::ListConnections => "list_connections",
            Self::FindPersonnel => "find_personnel",
            Self::FindUser => "find_user",
            Self::ListPersonnel => "list_personnel",
            Self::ListUsers => "list_users",
            Self::ListEvents => "list_events",
        }
    }
}

/// A 2xx and its body; none if the body couldn't be read.
pub(super) type Body = Option<Vec<u8>>;

impl Client {
    /// A request to a path below the base URL; each segment is escaped.
    pub(super) fn request(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        self.shared.http.request(method, below(&self.shared.settings.base_url, segments))
    }

    /// Sends one request when its turn has come, unless that is after the deadline.
    pub(super) async fn send(
        &self,
        operation: Operation,
        request: RequestBuilder,
        deadline: Option<Instant>,
    ) -> Result<Body, Failure> {
        self.shared.pace.turn(deadline).await.map_err(|TooLate(wait)| Failure {
            class: FailureClass::Throttled,
            status: None,
            retry_after: Some(wait),
            message: "not sent: the turn under Drata's rate limit comes too late".to_owned(),
        })?;
        let start = Instant::now();
        let outcome = exchange(request).await;
        let took = start.elapsed();
        let (status, outcome) = match outcome {
            Ok((status, headers, body)) if !status.is_success() => {
                let failure = answer::failure(status, &headers, &body.unwrap_or_default(), Timestamp::now());
                (status.as_str().to_owned(), Err(failure))
            }
            Ok((status, _, body)) => (status.as_str().to_owned(), Ok(body)),
            Err(error) => (unanswered(&error).to_owned(), Err(no_answer(&error))),
        };
        if let Err(Failure { class: FailureClass::Throttled, retry_after, .. }) = &outcome {
            self.shared.pace.pause(spread(retry_after.unwrap_or(PAUSE), fastrand::f64()));
        }
        let operation = operation.as_str();
        tracing::debug!(operation, status, took_ms = took.as_secs_f64() * 1000.0, "asked Drata");
        metrics::counter!(
            "rollcall_target_requests_total",
            "target" => "drata", "operation" => operation, "status" => status
        )
        .increment(1);
        metrics::histogram!("rollcall_target_request_seconds", "target" => "drata", "operation" => operation)
            .record(took.as_secs_f64());
        outcome
    }
}

fn below(base_url: &Url, segments: &[&str]) -> Url {
    let mut url = base_url.clone();
    // Only a URL that can't be a base has no segments, and such a one was refused when the client was built.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

async fn exchange(request: RequestBuilder) -> Result<(StatusCode, HeaderMap, Body), reqwest::Error> {
    let mut response = request.send().await?;
    let limit = if response.status().is_success() { MAX_BODY } else { MAX_ERROR_BODY };
    let body = read(&mut response, limit).await;
    Ok((response.status(), std::mem::take(response.headers_mut()), body))
}

/// The body, unless it is too long or breaks off.
async fn read(response: &mut Response, limit: usize) -> Body {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Some(body),
            Ok(Some(chunk)) if body.len() + chunk.len() <= limit => body.extend_from_slice(&chunk),
            Ok(Some(_)) | Err(_) => return None,
        }
    }
}

/// The word for a request without an answer.
fn unanswered(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "timeout"
    } else if error.is_connect() {
        "unreachable"
    } else {
        "broken"
    }
}

fn no_answer(error: &reqwest::Error) -> Failure {
    let message = match unanswered(error) {
        "timeout" => "Drata didn't answer in time".to_owned(),
        "unreachable" => format!("can't connect to Drata: {}", root_cause(error)),
        _ => format!("the connection to Drata broke: {}", root_cause(error)),
    };
    Failure { class: FailureClass::Transient, status: None, retry_after: None, message }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("https://api.example/public", "https://api.example/public/personnel/a+b@x.example/email")]
    #[case("https://api.example/public/", "https://api.example/public/personnel/a+b@x.example/email")]
    #[case("https://api.example", "https://api.example/personnel/a+b@x.example/email")]
    fn the_base_url_keeps_its_path(#[case] base_url: Url, #[case] expected: &str) {
        assert_eq!(below(&base_url, &["personnel", "a+b@x.example", "email"]).as_str(), expected);
    }

    #[test]
    fn a_segment_stays_one_segment_whatever_is_in_it() {
        let url = below(&"https://api.example/public".parse().unwrap(), &["users", "a/../?#%@x", "email"]);
        assert_eq!(url.as_str(), "https://api.example/public/users/a%2F..%2F%3F%23%25@x/email");
    }
}
