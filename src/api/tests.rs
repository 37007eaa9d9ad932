//! A way to an API that fails, throttles and misleads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap as Headers, StatusCode as Status};
use axum::response::{IntoResponse, Response};
use rstest::rstest;
use tokio::net::TcpListener;

use super::*;
use crate::provider;
use crate::shutdown::Tasks;

const GITHUB: ApiDescription = ApiDescription {
    base: |host| format!("https://{host}/api/v3"),
    token: TokenPlace::Bearer,
    headers: &[("accept", "application/json")],
};

/// A server that answers the nth request as the nth of these says, and the last one ever after.
struct Server {
    api: Api,
    asked: Arc<AtomicUsize>,
    tasks: Tasks,
}

type Told = fn(&Headers) -> Response;

impl Server {
    async fn telling(told: &'static [Told], patience: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base: Url = format!("http://{}/api/v3", listener.local_addr().unwrap()).parse().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let answer = move |State(asked): State<Arc<AtomicUsize>>, request: Request| async move {
            let n = asked.fetch_add(1, Ordering::SeqCst);
            told[n.min(told.len() - 1)](request.headers())
        };
        let router = Router::new().fallback(move |state, request| answer(state, request)).with_state(asked.clone());
        let tasks = Tasks::new();
        let token = tasks.token().clone();
        tasks.short_lived("test", async move {
            axum::serve(listener, router).with_graceful_shutdown(token.cancelled_owned()).await.unwrap();
        });
        let api = Api::new(&GITHUB, "git.acme.example", Some(&base), &"tok".into(), patience).unwrap();
        Self { api, asked, tasks }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

fn throttled_by_time(_: &Headers) -> Response {
    let reset = (Timestamp::now().micros() / 1_000_000).to_string();
    (Status::FORBIDDEN, [("x-ratelimit-remaining", "0".to_owned()), ("x-ratelimit-reset", reset)]).into_response()
}

fn fine(headers: &Headers) -> Response {
    assert_eq!(headers["authorization"], "Bearer tok");
    (Status::OK, "[1]").into_response()
}

#[tokio::test]
async fn a_rate_limit_is_waited_out_and_a_failure_tried_again() {
    let server = Server::telling(
        &[
            throttled_by_time,
            |_| (Status::TOO_MANY_REQUESTS, [("retry-after", "1")]).into_response(),
            |_| Status::BAD_GATEWAY.into_response(),
            fine,
        ],
        Duration::from_secs(30),
    )
    .await;
    let answer = server.api.ask(&Ask::get(&["orgs", "acme", "members"]).with("per_page", 100)).await.unwrap();
    assert_eq!(answer.json::<Vec<u8>>().unwrap(), [1]);
    assert_eq!(server.asked(), 4);
}

#[tokio::test]
async fn a_rate_limit_that_lasts_too_long_is_said_at_once() {
    let server = Server::telling(
        &[|_| (Status::TOO_MANY_REQUESTS, [("retry-after", "3600")]).into_response()],
        Duration::from_secs(5),
    )
    .await;
    let error = server.api.ask(&Ask::get(&["user"])).await.unwrap_err();
    assert!(matches!(&error, ApiError::Throttled { wait, .. } if wait.as_secs() == 3600), "{error}");
    assert!(error.is_transient());
    assert_eq!(server.asked(), 1);
}

#[rstest]
#[case(429, &[("retry-after", "7")], 7)]
#[case(503, &[("retry-after", "0")], 1)]
#[case(429, &[("retry-after", "9223372036854775807")], 86_400)]
#[case(429, &[("retry-after", "18446744073709551616")], 86_400)]
#[case(403, &[("retry-after", "9223372036854775808")], 86_400)]
#[case(429, &[("retry-after", "-5")], 60)]
#[case(429, &[("retry-after", "soon")], 60)]
#[case(429, &[("retry-after", "Tue, 04 Nov 2025 10:00:30 GMT")], 30)]
#[case(429, &[("retry-after", "Tue, 04 Nov 2025 10:00:30 GMT"), ("date", "Tue, 04 Nov 2025 10:00:10 GMT")], 20)]
#[case(429, &[("retry-after", "Mon, 03 Nov 2025 10:00:30 GMT")], 1)]
#[case(429, &[("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT")], 86_400)]
#[case(403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1762250410")], 11)]
#[case(429, &[("ratelimit-remaining", "0"), ("ratelimit-reset", "1762250410")], 11)]
#[case(403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1762250410"), ("date", "Tue, 04 Nov 2025 10:00:05 GMT")], 6)]
#[case(403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1")], 1)]
#[case(403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "-9223372036854775808")], 1)]
#[case(403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "9223372036854775807")], 86_400)]
#[case(403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "99999999999999999999999")], 86_400)]
#[case(429, &[("x-ratelimit-remaining", "5"), ("x-ratelimit-reset", "1762250410")], 60)]
#[case(429, &[], 60)]
fn whatever_an_answer_says_the_wait_can_be_waited(
    #[case] status: u16,
    #[case] said: &[(&'static str, &'static str)],
    #[case] seconds: u64,
) {
    let headers = said.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    // 1762250400 in seconds.
    let now: Timestamp = "2025-11-04T10:00:00Z".parse().unwrap();
    let wait = throttled(StatusCode::from_u16(status).unwrap(), &headers.collect(), now);
    assert_eq!(wait, Some(Duration::from_secs(seconds)));
}

#[tokio::test]
async fn a_wait_without_an_end_is_said_at_once_whatever_the_patience() {
    let server = Server::telling(
        &[|_| (Status::TOO_MANY_REQUESTS, [("retry-after", "9223372036854775807")]).into_response()],
        Duration::from_mins(65),
    )
    .await;
    let error = server.api.ask(&Ask::get(&["user"])).await.unwrap_err();
    assert!(matches!(&error, ApiError::Throttled { wait, .. } if wait.as_secs() == 86_400), "{error}");
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_again() {
    let server = Server::telling(&[|_| Status::BAD_GATEWAY.into_response()], Duration::from_secs(30)).await;
    let error = server.api.ask(&Ask::post(&["hooks", "1", "attempts"])).await.unwrap_err();
    assert!(matches!(error, ApiError::Failed { .. }), "{error}");
    assert_eq!(server.asked(), 1);
}

#[rstest]
#[case(401, "the token isn't valid or may not do this (\"Bad credentials\")")]
#[case(404, "there is no such thing")]
#[case(302, "302 from ")]
#[tokio::test]
async fn refusals_are_told_apart_and_never_show_the_token(#[case] status: u16, #[case] says: &str) {
    let server = Server::telling(
        match status {
            401 => &[|_| (Status::UNAUTHORIZED, r#"{"message":"Bad credentials"}"#).into_response()],
            404 => &[|_| (Status::NOT_FOUND, "<html>").into_response()],
            _ => &[|_| (Status::FOUND, [("location", "https://elsewhere.example/")]).into_response()],
        },
        Duration::from_secs(30),
    )
    .await;
    let error = server.api.ask(&Ask::get(&["user"]).with("secret", "tok")).await.unwrap_err();
    assert!(error.to_string().contains(says) && !error.to_string().contains("tok="), "{error}");
    assert!(!format!("{error:?}").contains("secret=tok") && !error.is_transient());
    assert_eq!(server.asked(), 1);
}

#[rstest]
#[case("https://evil.example/api/v3/orgs")]
#[case("http://127.0.0.1:1/api/v3/orgs")]
#[tokio::test]
async fn the_token_goes_nowhere_else(#[case] next: Url) {
    let server = Server::telling(&[fine], Duration::from_secs(30)).await;
    let error = server.api.ask(&Ask::named(next)).await.unwrap_err();
    assert!(matches!(error, ApiError::Elsewhere(_)), "{error}");
    let mut outside = server.api.base.clone();
    for (path, allowed) in
        [("/api/v3/orgs", true), ("/api/v30/orgs", false), ("/other", false), ("/api/v3/../x", false)]
    {
        outside.set_path(path);
        assert_eq!(server.api.url(&To::Named(outside.clone())).is_ok(), allowed, "{path}");
    }
    outside.set_path("/api/v3/orgs");
    outside.set_username("somebody").unwrap();
    assert!(server.api.url(&To::Named(outside)).is_err());
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn a_page_that_is_still_the_same_is_not_sent_again() {
    let server = Server::telling(
        &[
            |headers| {
                assert!(!headers.contains_key("if-none-match"));
                (Status::OK, [("etag", "\"v1\""), ("link", "<https://x.example/>; rel=\"next\"")], "[1]")
                    .into_response()
            },
            |headers| {
                assert_eq!(headers["if-none-match"], "\"v1\"");
                Status::NOT_MODIFIED.into_response()
            },
            |_| (Status::OK, [("etag", "\"v2\"")], "[2]").into_response(),
            |headers| {
                assert_eq!(headers["if-none-match"], "\"v2\"");
                Status::NOT_MODIFIED.into_response()
            },
        ],
        Duration::from_secs(30),
    )
    .await;
    let ask = Ask::get(&["orgs", "acme", "members"]);
    for (expected, next) in [(1, true), (1, true), (2, false), (2, false)] {
        let answer = server.api.ask(&ask).await.unwrap();
        assert_eq!((answer.json::<Vec<u8>>().unwrap(), answer.next_link().is_some()), (vec![expected], next));
    }
}

#[tokio::test]
async fn segments_stay_segments() {
    let server = Server::telling(&[fine], Duration::from_secs(30)).await;
    let url = server.api.url(&Ask::get(&["groups", "acme/../x?#"]).with("q", "a b&c").to).unwrap();
    assert!(url.as_str().ends_with("/api/v3/groups/acme%2F..%2Fx%3F%23?q=a+b%26c"), "{url}");
}

#[rstest]
#[case("github", "github.com", "https://api.github.com")]
#[case("github", "acme.ghe.com", "https://api.acme.ghe.com")]
#[case("github", "git.acme.example", "https://git.acme.example/api/v3")]
#[case("gitlab", "gitlab.com", "https://gitlab.com/api/v4")]
#[case("gitea", "git.acme.example:3000", "https://git.acme.example:3000/api/v1")]
fn each_provider_has_its_api_where_it_says(#[case] name: &str, #[case] host: &str, #[case] base: &str) {
    let api = provider::find(name).unwrap().api.as_ref().unwrap();
    assert_eq!((api.base)(host), base);
}

#[rstest]
#[case(TokenPlace::Bearer, "authorization", "Bearer a:b")]
#[case(TokenPlace::AuthorizationToken, "authorization", "token a:b")]
#[case(TokenPlace::Header("private-token"), "private-token", "a:b")]
#[case(TokenPlace::Password, "authorization", "Basic OmE6Yg==")]
#[case(TokenPlace::BasicOrBearer, "authorization", "Basic YTpi")]
fn tokens_travel_as_each_provider_wants_them(#[case] token: TokenPlace, #[case] name: &str, #[case] value: &str) {
    let headers = headers(&ApiDescription { token, ..GITHUB }, &" a:b\n".into()).unwrap();
    assert_eq!(headers[name], value);
    assert!(headers[name].is_sensitive());
}

#[test]
fn addresses_and_tokens_that_cannot_be_used_are_refused() {
    for url in ["ftp://x.example", "https://u:p@x.example", "https://x.example?a=b"] {
        assert!(matches!(check(&url.parse().unwrap()), Err(BuildError::Base(_))), "{url}");
    }
    for token in ["", " \n", "a\nb"] {
        assert!(matches!(headers(&GITHUB, &token.into()), Err(BuildError::Token)));
    }
}
