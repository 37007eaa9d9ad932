//! Providers' own APIs, as far as they list who has access: pages as each gives them, tokens that see more or less, rate
//! limits, and whatever may go wrong.
//!
//! Written from the providers' documentation alone: it shares nothing with the code that asks.

mod bitbucket;
mod gitea;
mod github;
mod gitlab;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use rollcall::shutdown::Tasks;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::Url;

/// The token that the source has.
pub(crate) const TOKEN: &str = "a token of a test";

/// Whose API it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    GitHub,
    GitLab,
    Bitbucket,
    Gitea,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Another answer.
    Status(u16),
    /// The answer breaks off in the middle.
    BreaksOff,
    /// The rate limit is reached, for a second.
    Throttled,
}

/// Somebody who has access.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) id: u64,
    pub(crate) login: String,
    /// The role, by the provider's own word.
    pub(crate) role: &'static str,
    /// GitLab's state of the account.
    pub(crate) state: &'static str,
    /// When GitLab's record of the membership was made.
    pub(crate) created_at: String,
    /// Whether everybody may see the membership.
    pub(crate) public: bool,
}

impl Person {
    pub(crate) fn new(id: u64, login: &str) -> Self {
        let (login, created_at) = (login.to_owned(), "2024-03-01T10:00:00.000Z".to_owned());
        Self { id, login, role: "member", state: "active", created_at, public: false }
    }
}

/// A host with one organisation, group or workspace, `acme`, whose id is 4201.
#[derive(Debug, Default)]
pub(crate) struct Host {
    /// Who is in it, by id.
    pub(crate) members: BTreeMap<u64, Person>,
    /// Who is in a part of it (GitLab's group 43), or an outside collaborator (GitHub).
    pub(crate) others: BTreeMap<u64, Person>,
    /// How many there are on a page, if the one who asks doesn't want fewer.
    pub(crate) page: usize,
    /// Whether the token is of somebody who sees everything.
    pub(crate) sees_all: bool,
    /// What goes wrong with the requests whose path and query have this in them.
    pub(crate) faults: Vec<(&'static str, Fault)>,
    /// Each request's path and query, and the status of the answer.
    pub(crate) requests: Vec<(String, u16)>,
}

/// The stand-in. It ends when it is dropped.
pub(crate) struct Api {
    pub(crate) url: Url,
    host: Arc<Mutex<Host>>,
    tasks: Tasks,
}

impl Api {
    /// Starts one where everybody is on pages of two.
    pub(crate) async fn new(speaks: Speaks) -> Self {
        let host = Arc::new(Mutex::new(Host { page: 2, sees_all: true, ..Host::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let prefix = match speaks {
            Speaks::GitHub => "/",
            Speaks::GitLab => "/api/v4",
            Speaks::Bitbucket => "/2.0",
            Speaks::Gitea => "/api/v1",
        };
        let url: Url = format!("http://{}{prefix}", listener.local_addr().unwrap()).parse().unwrap();
        let router = Router::new().fallback(answer).with_state((speaks, url.clone(), Arc::clone(&host)));
        let tasks = Tasks::new();
        let token = tasks.token().clone();
        tasks.short_lived("test", async move {
            axum::serve(listener, router).with_graceful_shutdown(token.cancelled_owned()).await.unwrap();
        });
        Self { url, host, tasks }
    }

    /// Looks at the host, or changes it.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Host) -> T) -> T {
        change(&mut self.host.lock().unwrap())
    }

    /// How many requests there were whose path and query have this in them.
    pub(crate) fn asked(&self, what: &str) -> usize {
        self.with(|host| host.requests.iter().filter(|(asked, _)| asked.contains(what)).count())
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

/// A request as the providers' parts look at it.
struct Asked<'a> {
    /// The path below the API's own, in segments.
    path: Vec<String>,
    query: BTreeMap<String, String>,
    headers: &'a HeaderMap,
    base: &'a Url,
}

impl Asked<'_> {
    fn number(&self, key: &str, default: usize) -> usize {
        self.query.get(key).and_then(|text| text.parse().ok()).unwrap_or(default)
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.headers.get(name).is_some_and(|found| found.as_bytes() == value.as_bytes())
    }

    fn path(&self) -> Vec<&str> {
        self.path.iter().map(String::as_str).collect()
    }

    /// The page that was asked for, and the address of the next one, if there is one.
    fn page<'p>(&self, people: Vec<&'p Person>, size: &str, most: usize) -> (Vec<&'p Person>, Option<String>) {
        let (number, size) = (self.number("page", 1), self.number(size, 30).min(most));
        let rest: Vec<&Person> = people.into_iter().skip((number - 1) * size).collect();
        let more = rest.len() > size;
        let next = || {
            let mut url = self.base.clone();
            url.path_segments_mut().unwrap().pop_if_empty().extend(&self.path);
            let others = self.query.iter().filter(|(key, _)| *key != "page");
            url.query_pairs_mut().extend_pairs(others).append_pair("page", &(number + 1).to_string());
            url.to_string()
        };
        (rest.into_iter().take(size).collect(), more.then(next))
    }
}

async fn answer(
    State((speaks, base, host)): State<(Speaks, Url, Arc<Mutex<Host>>)>,
    request: Request,
) -> Result<Response, Infallible> {
    let (parts, _) = request.into_parts();
    let mut host = host.lock().unwrap();
    let asked = read(&parts.uri, &parts.headers, &base);
    let said = parts.uri.path_and_query().unwrap().to_string();
    let fault = host.faults.iter().find(|(what, _)| said.contains(what)).map(|(_, fault)| *fault);
    let response = match fault {
        Some(Fault::Status(status)) => {
            let body = json!({ "message": "as the test wants it" });
            (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
        }
        Some(Fault::Throttled) => {
            host.faults.retain(|(what, _)| !said.contains(what));
            (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")]).into_response()
        }
        Some(Fault::BreaksOff) => {
            let half = [Ok(Bytes::from_static(b"[{\"id\":")), Err(std::io::Error::other("broken off"))];
            Body::from_stream(stream::iter(half)).into_response()
        }
        None => match speaks {
            Speaks::GitHub => github::answer(&host, &asked),
            Speaks::GitLab => gitlab::answer(&host, &asked),
            Speaks::Bitbucket => bitbucket::answer(&host, &asked),
            Speaks::Gitea => gitea::answer(&host, &asked),
        },
    };
    host.requests.push((said, response.status().as_u16()));
    Ok(response)
}

fn read<'a>(uri: &Uri, headers: &'a HeaderMap, base: &'a Url) -> Asked<'a> {
    let url: Url = format!("http://host{uri}").parse().unwrap();
    let below = base.path().trim_matches('/').split('/').filter(|part| !part.is_empty()).count();
    let decoded = |part: &str| {
        let form = format!("x={}", part.replace('+', "%2B"));
        form_urlencoded::parse(form.as_bytes()).next().unwrap().1.into_owned()
    };
    Asked {
        path: url.path_segments().unwrap().skip(below).map(decoded).collect(),
        query: url.query_pairs().into_owned().collect(),
        headers,
        base,
    }
}

fn problem(status: u16, message: &str) -> Response {
    (StatusCode::from_u16(status).unwrap(), axum::Json(json!({ "message": message }))).into_response()
}

/// A page whose next one is named in its `Link` header.
fn linked(body: &Value, next: Option<String>) -> Response {
    let mut response = axum::Json(body).into_response();
    if let Some(next) = next {
        let link = format!("<{next}>; rel=\"next\", <{next}0>; rel=\"last\"");
        response.headers_mut().insert(header::LINK, HeaderValue::try_from(link).unwrap());
    }
    response
}
