//! Stand-ins for the APIs in which GitHub and GitLab tell of their attempts to deliver. They log each attempt, tell of it
//! page by page, and deliver again by really posting: the same bytes under the same id at GitHub; at GitLab the body that
//! it kept, in which addresses are blacked out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use rollcall::delivery::Timestamp;
use rollcall::outbound;
use rollcall::shutdown::Tasks;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;

use super::github::Posted;

/// The token that may see and do everything.
pub(crate) const TOKEN: &str = "a token that nobody may see";
/// Where the hook posts to, as the provider knows it.
pub(crate) const PUBLIC_URL: &str = "https://hooks.acme.example";
/// The hook.
pub(crate) const HOOK: u64 = 12_345;

/// How one attempt went.
#[derive(Clone, Debug)]
struct Attempt {
    id: u64,
    delivery: String,
    at: Timestamp,
    again: bool,
    /// What it was answered with; none if there was no answer.
    status: Option<u16>,
    event: (String, Option<String>),
    what: What,
}

/// What was to be delivered.
#[derive(Clone, Debug)]
enum What {
    GitHub(Posted),
    GitLab { headers: HeaderMap, body: Value },
}

struct Inner {
    /// Where the hook's address leads to; none if nobody answers there.
    leads_to: Option<Url>,
    attempts: Vec<Attempt>,
    /// What was asked for again, in that order.
    asked: Vec<String>,
    /// What can't be had again.
    refused: Vec<String>,
    /// How many pages of attempts were asked for.
    pages: usize,
    page_size: usize,
    /// What the next requests are answered with instead.
    troubles: VecDeque<Response>,
    /// When GitLab was asked to deliver again.
    resends: VecDeque<Instant>,
    /// Whether no token is good any more.
    forgetful: bool,
    happened: i64,
    began: Timestamp,
}

/// A provider's side.
#[derive(Clone)]
pub(crate) struct DeliveriesApi {
    inner: Arc<Mutex<Inner>>,
    /// How many more pages of attempts are given out.
    pages: Arc<Semaphore>,
    http: reqwest::Client,
    /// The API's base.
    pub(crate) url: Url,
    tasks: Tasks,
}

impl DeliveriesApi {
    pub(crate) async fn github() -> Self {
        let hook = format!("/orgs/acme/hooks/{HOOK}");
        let routes = Router::new()
            .route("/orgs/acme/hooks", get(github_hooks))
            .route(&format!("{hook}/deliveries"), get(github_deliveries))
            .route(&format!("{hook}/deliveries/{{id}}"), get(github_delivery))
            .route(&format!("{hook}/deliveries/{{id}}/attempts"), post(github_again));
        Self::start("/api/v3", routes).await
    }

    pub(crate) async fn gitlab() -> Self {
        let hook = format!("/groups/42/hooks/{HOOK}");
        let routes = Router::new()
            .route("/groups/42/hooks", get(gitlab_hooks))
            .route(&format!("{hook}/events"), get(gitlab_events))
            .route(&format!("{hook}/events/{{id}}/resend"), post(gitlab_again));
        Self::start("/api/v4", routes).await
    }

    async fn start(base: &str, routes: Router<Self>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Url = format!("http://{}{base}", listener.local_addr().unwrap()).parse().unwrap();
        let inner = Inner {
            leads_to: None,
            attempts: Vec::new(),
            asked: Vec::new(),
            refused: Vec::new(),
            pages: 0,
            page_size: 3,
            troubles: VecDeque::new(),
            resends: VecDeque::new(),
            forgetful: false,
            happened: 0,
            began: Timestamp::now().plus_micros(-1_800_000_000),
        };
        let api = Self {
            inner: Arc::new(Mutex::new(inner)),
            pages: Arc::new(Semaphore::new(1_000_000)),
            http: outbound::builder(&url, Duration::from_secs(10)).unwrap().build().unwrap(),
            url,
            tasks: Tasks::new(),
        };
        let app = Router::new().nest(base, routes).layer(axum::middleware::from_fn_with_state(api.clone(), guarded));
        let app = app.with_state(api.clone());
        let token = api.tasks.token().clone();
        api.tasks.short_lived("test", async move {
            axum::serve(listener, app).with_graceful_shutdown(token.cancelled_owned()).await.unwrap();
        });
        api
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// From now on the hook's address leads there, or nowhere.
    pub(crate) fn leads_to(&self, endpoint: Option<&Url>) {
        self.inner().leads_to = endpoint.cloned();
    }

    /// GitHub tries to deliver something. Returns what it was answered with.
    pub(crate) async fn delivers(&self, posted: &Posted) -> Option<u16> {
        self.attempt(posted.id.to_string(), posted.event(), What::GitHub(posted.clone()), false).await
    }

    /// GitLab tries to deliver something.
    pub(crate) async fn sends(&self, key: &str, event: &str, headers: HeaderMap, body: Value) -> Option<u16> {
        self.attempt(key.to_owned(), (event.to_owned(), None), What::GitLab { headers, body }, false).await
    }

    /// It claims to have delivered something again that failed before: somebody else answered.
    pub(crate) fn claims_delivered(&self, posted: &Posted) {
        let mut inner = self.inner();
        let known = inner.attempts.iter().find(|attempt| attempt.delivery == posted.id.as_str()).unwrap().clone();
        let id = inner.next_id();
        inner.happened += 1;
        let at = inner.began.plus_micros(inner.happened * 1_000_000);
        inner.attempts.push(Attempt { id, again: true, at, status: Some(200), ..known });
    }

    /// An operator presses the button.
    pub(crate) async fn delivers_again(&self, delivery: &str) -> Option<u16> {
        let known = self.inner().attempts.iter().find(|attempt| attempt.delivery == delivery).unwrap().clone();
        self.attempt(known.delivery, known.event, known.what, true).await
    }

    async fn attempt(&self, delivery: String, event: (String, Option<String>), what: What, again: bool) -> Option<u16> {
        let leads_to = self.inner().leads_to.clone();
        let status = match (leads_to, &what) {
            (None, _) => None,
            (Some(to), What::GitHub(posted)) => posted.post(&self.http, &to).await,
            (Some(to), What::GitLab { headers, body }) => {
                self.http.post(to).headers(headers.clone()).body(body.to_string()).send().await.ok()
            }
        };
        let status = status.map(|response| response.status().as_u16());
        let mut inner = self.inner();
        inner.happened += 1;
        let at = if again { Timestamp::now() } else { inner.began.plus_micros(inner.happened * 1_000_000) };
        let id = inner.next_id();
        inner.attempts.push(Attempt { id, delivery, at, again, status, event, what });
        status
    }

    /// What was asked for again, in that order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.inner().asked.clone()
    }

    /// How many pages of attempts were asked for.
    pub(crate) fn pages(&self) -> usize {
        self.inner().pages
    }

    /// Gives out so many pages of attempts, and lets whoever asks for more wait.
    pub(crate) fn only_pages(&self, pages: usize) {
        self.pages.forget_permits(usize::MAX);
        self.pages.add_permits(pages);
    }

    /// The next request is answered with this.
    pub(crate) fn trouble(&self, status: u16, headers: &[(&'static str, &'static str)]) {
        let mut response = StatusCode::from_u16(status).unwrap().into_response();
        for (name, value) in headers {
            response.headers_mut().insert(*name, value.parse().unwrap());
        }
        self.inner().troubles.push_back(response);
    }

    /// No token is good any more.
    pub(crate) fn forgets_tokens(&self) {
        self.inner().forgetful = true;
    }

    /// This can't be had again.
    pub(crate) fn refuses(&self, delivery: &str) {
        self.inner().refused.push(delivery.to_owned());
    }
}

impl Inner {
    fn next_id(&self) -> u64 {
        9_007_199_254_740_993 + u64::try_from(self.attempts.len()).unwrap()
    }

    fn attempt(&self, id: u64) -> Option<Attempt> {
        self.attempts.iter().find(|attempt| attempt.id == id).cloned()
    }
}

fn may_ask(headers: &HeaderMap) -> bool {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    header("authorization") == Some(&format!("Bearer {TOKEN}")) || header("private-token") == Some(TOKEN)
}

/// Who has no token learns nothing, and rate limits and failures come first.
async fn guarded(State(api): State<DeliveriesApi>, request: Request, next: Next) -> Response {
    let trouble = api.inner().troubles.pop_front();
    if let Some(trouble) = trouble {
        return trouble;
    }
    let forgetful = api.inner().forgetful;
    if may_ask(request.headers()) && !forgetful {
        return next.run(request).await;
    }
    // As GitHub answers whoever may not see something.
    (StatusCode::NOT_FOUND, Json(json!({"message": "Not Found"}))).into_response()
}

#[derive(Deserialize)]
struct Wanted {
    per_page: usize,
    cursor: Option<u64>,
    page: Option<usize>,
}

impl DeliveriesApi {
    /// A page of attempts, the latest first, and the address of the next.
    async fn page(&self, path: &str, wanted: &Wanted, most: usize, show: impl Fn(&Attempt) -> Value) -> Response {
        self.inner().pages += 1;
        self.pages.acquire().await.unwrap().forget();
        assert!(wanted.per_page <= most, "a page has at most {most}");
        let inner = self.inner();
        let size = wanted.per_page.min(inner.page_size);
        let skip = (wanted.page.unwrap_or(1) - 1) * size;
        let older = |attempt: &&Attempt| wanted.cursor.is_none_or(|cursor| attempt.id <= cursor);
        let mut rows: Vec<&Attempt> = inner.attempts.iter().rev().filter(older).skip(skip).take(size + 1).collect();
        let next = (rows.len() > size).then(|| rows.pop().unwrap());
        let shown: Vec<Value> = rows.into_iter().map(show).collect();
        let mut response = Json(shown).into_response();
        if let Some(next) = next {
            let place = match path.starts_with("orgs") {
                true => format!("cursor={}", next.id),
                false => format!("page={}", wanted.page.unwrap_or(1) + 1),
            };
            let url = format!("{}/{path}?per_page={}&{place}", self.url, wanted.per_page);
            let link = format!("<{url}>; rel=\"next\", <{}/first>; rel=\"first\"", self.url);
            response.headers_mut().insert(header::LINK, link.parse().unwrap());
        }
        response
    }

    fn hook_url() -> String {
        format!("{PUBLIC_URL}/webhooks/acme-github")
    }
}

async fn github_hooks() -> Json<Value> {
    let hook = |id: u64, url: String| {
        json!({"type": "Organization", "id": id, "name": "web", "active": true, "events": ["organization"],
               "config": {"url": url, "content_type": "json", "insecure_ssl": "0"}})
    };
    Json(json!([hook(1, "https://chat.example/hooks/secret-path".to_owned()), hook(HOOK, DeliveriesApi::hook_url())]))
}

fn github_row(attempt: &Attempt) -> Value {
    let status = match attempt.status {
        None => "failed to connect to host".to_owned(),
        Some(200..=299) => "OK".to_owned(),
        Some(status) => format!("Invalid HTTP Response: {status}"),
    };
    json!({"id": attempt.id, "guid": attempt.delivery, "delivered_at": attempt.at, "redelivery": attempt.again,
           "duration": 0.2, "status": status, "status_code": attempt.status.unwrap_or(0), "event": attempt.event.0,
           "action": attempt.event.1, "installation_id": null, "repository_id": null, "throttled_at": null})
}

async fn github_deliveries(State(api): State<DeliveriesApi>, Query(wanted): Query<Wanted>) -> Response {
    api.page(&format!("orgs/acme/hooks/{HOOK}/deliveries"), &wanted, 100, github_row).await
}

async fn github_delivery(State(api): State<DeliveriesApi>, Path(id): Path<u64>) -> Response {
    match api.inner().attempt(id) {
        Some(attempt) => Json(github_row(&attempt)).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn github_again(State(api): State<DeliveriesApi>, Path(id): Path<u64>) -> Response {
    let Some(attempt) = api.inner().attempt(id) else { return StatusCode::NOT_FOUND.into_response() };
    if api.inner().refused.contains(&attempt.delivery) {
        let message = json!({"message": "The delivery can't be redelivered."});
        return (StatusCode::UNPROCESSABLE_ENTITY, Json(message)).into_response();
    }
    api.inner().asked.push(attempt.delivery.clone());
    let again = api.clone();
    api.tasks.short_lived("test", async move { again.delivers_again(&attempt.delivery).await });
    (StatusCode::ACCEPTED, Json(json!({}))).into_response()
}

async fn gitlab_hooks() -> Json<Value> {
    Json(json!([{"id": HOOK, "url": DeliveriesApi::hook_url(), "group_id": 42, "member_events": true,
                 "alert_status": "executable", "disabled_until": null}]))
}

fn gitlab_row(attempt: &Attempt) -> Value {
    let What::GitLab { headers, body } = &attempt.what else { unreachable!("GitLab sends GitLab's") };
    let shown = headers.iter().map(|(name, value)| {
        let secret = name == "x-gitlab-token";
        let value = if secret { "[REDACTED]" } else { value.to_str().unwrap() };
        (name.to_string(), Value::from(value))
    });
    let status = attempt.status.map_or_else(|| "internal error".to_owned(), |status| status.to_string());
    json!({"id": attempt.id, "url": DeliveriesApi::hook_url(), "trigger": "member_hooks",
           "request_headers": Value::Object(shown.collect()), "request_data": blacked_out(body.clone()),
           "response_headers": {}, "response_body": "", "execution_duration": 0.1, "response_status": status,
           "created_at": attempt.at})
}

/// GitLab keeps no addresses.
fn blacked_out(mut body: Value) -> Value {
    for value in body.as_object_mut().unwrap().values_mut() {
        if value.as_str().is_some_and(|text| text.contains('@')) {
            *value = "[REDACTED]".into();
        }
    }
    body
}

async fn gitlab_events(State(api): State<DeliveriesApi>, Query(wanted): Query<Wanted>) -> Response {
    api.page(&format!("groups/42/hooks/{HOOK}/events"), &wanted, 20, gitlab_row).await
}

async fn gitlab_again(State(api): State<DeliveriesApi>, Path(id): Path<u64>) -> Response {
    let Some(attempt) = api.inner().attempt(id) else { return StatusCode::NOT_FOUND.into_response() };
    {
        let mut inner = api.inner();
        let minute = Duration::from_mins(1);
        inner.resends.retain(|at| at.elapsed() < minute);
        if inner.resends.len() >= 5 {
            let error = json!({"message": {"error": "This endpoint has been requested too many times."}});
            return (StatusCode::TOO_MANY_REQUESTS, Json(error)).into_response();
        }
        inner.resends.push_back(Instant::now());
        inner.asked.push(attempt.delivery.clone());
    }
    let Attempt { delivery, event, what, .. } = attempt;
    let What::GitLab { headers, body } = what else { unreachable!("GitLab sends GitLab's") };
    let what = What::GitLab { headers, body: blacked_out(body) };
    match api.attempt(delivery, event, what, true).await {
        Some(status) => (StatusCode::CREATED, Json(json!({"response_status": status}))).into_response(),
        None => (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({"message": "can't connect"}))).into_response(),
    }
}
