//! The one that sends requests to providers' own APIs ([`crate::provider::api`]): with the source's token, to that API's
//! origin only, patiently but not for ever.
//!
//! A server that fails or can't be reached is asked again a few times. A rate limit is waited out as the provider says:
//! `Retry-After`, or the time at which [GitHub](https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api#handle-rate-limit-errors-appropriately)
//! (`x-ratelimit-reset`) and [GitLab](https://docs.gitlab.com/administration/settings/user_and_ip_rate_limits/#response-headers)
//! (`RateLimit-Reset`) let requests through again, if `…-remaining` is zero. A page that came with an `ETag` is asked for
//! [with it](https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api#use-conditional-requests-if-appropriate)
//! the next time, which costs nothing of the limit if it is still the same.

mod cache;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};
use http::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;
use url::Url;

use self::cache::Cache;
use crate::backoff::{Backoff, spread};
use crate::delivery::Timestamp;
use crate::outbound;
use crate::provider::api::{Answer, ApiDescription, Ask, To, TokenPlace, UnreadableAnswer};

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer that is read, in bytes. A page of a hundred members is some 150 KiB.
const MAX_BODY: usize = 16 << 20;
/// The largest part of an error answer that is looked at, in bytes.
const MAX_ERROR_BODY: usize = 64 << 10;
/// How often a request that failed is sent again.
const TRIES: u32 = 4;
/// How long to wait before that.
const AGAIN: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(20) };
/// The shortest and the longest wait that is believed when an answer says when to come again. No provider's limit is
/// longer than a day, and a wait that was longer would be no wait but an end.
const BELIEVED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(24));
/// How long to wait at a rate limit that doesn't say how long; GitHub asks for
/// [a minute](https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api#handle-rate-limit-errors-appropriately).
const THROTTLED: Duration = Duration::from_mins(1);

/// A client can't be made of these settings.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The address can't be one of an API.
    #[error("the API's address {0}")]
    Base(&'static str),
    /// The token can't travel in a header.
    #[error("the API token is empty or has characters that can't travel in a header")]
    Token,
    /// TLS can't be set up.
    #[error("can't set up TLS")]
    Tls(#[from] rustls::Error),
    /// The HTTP client can't be set up, most likely because the system has no CA certificates to trust; the source says.
    #[error("can't set up the HTTP client (https:// needs the system's CA certificates)")]
    Http(#[source] reqwest::Error),
}

/// The API didn't give what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The token isn't valid, or may not do this.
    #[error("{status} from {place}: the token isn't valid or may not do this{}", said(.message))]
    Refused {
        /// 401 or 403.
        status: u16,
        /// What was asked, without its query.
        place: String,
        /// What the provider said.
        message: String,
    },
    /// There is no such thing, or the token may not see it.
    #[error("404 from {place}: there is no such thing, or the token may not see it{}", said(.message))]
    Missing {
        /// What was asked, without its query.
        place: String,
        /// What the provider said.
        message: String,
    },
    /// Another 3xx or 4xx.
    #[error("{status} from {place}{}", said(.message))]
    Unexpected {
        /// The status.
        status: u16,
        /// What was asked, without its query.
        place: String,
        /// What the provider said.
        message: String,
    },
    /// The rate limit lasts longer than there was time to wait.
    #[error("{place} is over its rate limit for another {} seconds", .wait.as_secs())]
    Throttled {
        /// What was asked, without its query.
        place: String,
        /// For how long.
        wait: Duration,
    },
    /// It failed or couldn't be reached, however often it was asked.
    #[error("{place}: {why}")]
    Failed {
        /// What was asked, without its query.
        place: String,
        /// How.
        why: String,
    },
    /// An answer named an address at another origin, or outside the API.
    #[error("an answer of the API names {0}, which isn't below the API's own address; the token isn't sent there")]
    Elsewhere(String),
    /// The answer isn't what the provider documents.
    #[error(transparent)]
    Unreadable(#[from] UnreadableAnswer),
}

impl ApiError {
    /// Whether asking again later may help without anybody doing anything about it.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Throttled { .. } | Self::Failed { .. })
    }
}

/// A part of the error's text.
fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message:?})") }
}

/// A source's way to its provider's API.
#[derive(Debug)]
pub struct Api {
    base: Url,
    http: reqwest::Client,
    patience: Duration,
    cache: Cache,
}

impl Api {
    /// A way to the API of `host`, or to the one at `base` instead. `patience` is how long one request may wait for the
    /// rate limit and for a failing server, all in all.
    ///
    /// # Errors
    /// If the address or the token can't be used, or TLS can't be set up.
    pub fn new(
        api: &ApiDescription,
        host: &str,
        base: Option<&Url>,
        token: &SecretString,
        patience: Duration,
    ) -> Result<Self, BuildError> {
        let base = match base {
            Some(base) => base.clone(),
            None => {
                Url::parse(&(api.base)(host)).map_err(|_| BuildError::Base("can't be told from the source's host"))?
            }
        };
        check(&base)?;
        let http = outbound::builder(&base, TIMEOUT)?
            .default_headers(headers(api, token)?)
            .build()
            .map_err(BuildError::Http)?;
        Ok(Self { base, http, patience, cache: Cache::default() })
    }

    /// Sends a request until it is answered with 2xx or there is no use in going on.
    ///
    /// # Errors
    /// See [`ApiError`]. A `POST` that may have been carried out isn't sent again.
    pub async fn ask(&self, ask: &Ask) -> Result<Answer, ApiError> {
        let url = self.url(&ask.to)?;
        let place = format!("{}{}", url.host_str().unwrap_or_default(), url.path());
        let began = Instant::now();
        let (mut failures, mut throttles) = (0, 0);
        loop {
            let (wait, error) = match self.once(&ask.method, &url, &place).await {
                Once::Done(result) => return result,
                Once::Throttled(wait) => {
                    // A limit that is always over in a moment, and never is, isn't asked every second.
                    let least = AGAIN.pause(throttles, fastrand::f64());
                    throttles += 1;
                    let error = ApiError::Throttled { place: place.clone(), wait };
                    (spread(wait, fastrand::f64()).max(least), error)
                }
                Once::Failed { why, perhaps_done } => {
                    failures += 1;
                    let error = ApiError::Failed { place: place.clone(), why };
                    if failures == TRIES || (perhaps_done && ask.method != Method::GET) {
                        return Err(error);
                    }
                    (AGAIN.pause(failures - 1, fastrand::f64()), error)
                }
            };
            if wait > self.patience.saturating_sub(began.elapsed()) {
                return Err(error);
            }
            tracing::debug!(%error, wait_ms = wait.as_millis(), "a provider's API will be asked again");
            tokio::time::sleep(wait).await;
        }
    }

    fn url(&self, to: &To) -> Result<Url, ApiError> {
        match to {
            To::Below { path, query } => {
                let mut url = self.base.clone();
                // Only a URL that can't be a base has no segments, and such a one was refused when this was built.
                if let Ok(mut segments) = url.path_segments_mut() {
                    segments.pop_if_empty().extend(path);
                }
                if !query.is_empty() {
                    url.query_pairs_mut().extend_pairs(query);
                }
                Ok(url)
            }
            To::Named(url) => {
                let base = self.base.path().trim_end_matches('/');
                let below = url.path().strip_prefix(base).is_some_and(|rest| rest.starts_with('/'));
                let anonymous = url.username().is_empty() && url.password().is_none();
                if url.origin() == self.base.origin() && below && anonymous {
                    Ok(url.clone())
                } else {
                    Err(ApiError::Elsewhere(format!("{}{}", url.origin().ascii_serialization(), url.path())))
                }
            }
        }
    }

    async fn once(&self, method: &Method, url: &Url, place: &str) -> Once {
        let mut request = self.http.request(method.clone(), url.clone());
        let known = if *method == Method::GET { self.cache.get(url) } else { None };
        if let Some((etag, _)) = &known {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                // Nothing was sent where no connection was made.
                return Once::Failed { why: outbound::unanswered(&error), perhaps_done: !error.is_connect() };
            }
        };
        let status = response.status();
        metrics::counter!("rollcall_provider_api_requests_total", "status" => status.as_str().to_owned()).increment(1);
        if let (StatusCode::NOT_MODIFIED, Some((_, answer))) = (status, known) {
            return Once::Done(Ok(answer));
        }
        let limit = if status.is_success() { MAX_BODY } else { MAX_ERROR_BODY };
        let body = read(&mut response, limit).await;
        let headers = std::mem::take(response.headers_mut());
        if status.is_success() {
            return match body {
                Ok(body) => {
                    let answer = Answer { headers, body };
                    if let Some(etag) = answer.headers.get(ETAG).filter(|_| *method == Method::GET) {
                        self.cache.put(url, etag.clone(), &answer);
                    }
                    Once::Done(Ok(answer))
                }
                Err(Broken::TooLong) => {
                    Once::Done(Err(UnreadableAnswer(format!("it has more than {} MiB", MAX_BODY >> 20)).into()))
                }
                Err(Broken::Off(why)) => Once::Failed { why, perhaps_done: true },
            };
        }
        if let Some(wait) = throttled(status, &headers, Timestamp::now()) {
            return Once::Throttled(wait);
        }
        if status.is_server_error() {
            return Once::Failed { why: format!("it answers {status}"), perhaps_done: true };
        }
        Once::Done(Err(refused(status, place.to_owned(), message(&body.unwrap_or_default()))))
    }
}

/// What became of one try.
enum Once {
    Done(Result<Answer, ApiError>),
    Throttled(Duration),
    Failed { why: String, perhaps_done: bool },
}

enum Broken {
    TooLong,
    Off(String),
}

async fn read(response: &mut reqwest::Response, limit: usize) -> Result<Bytes, Broken> {
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Ok(body.freeze()),
            Ok(Some(chunk)) if body.len() + chunk.len() <= limit => body.extend_from_slice(&chunk),
            Ok(Some(_)) => return Err(Broken::TooLong),
            Err(error) => return Err(Broken::Off(outbound::unanswered(&error))),
        }
    }
}

fn refused(status: StatusCode, place: String, message: String) -> ApiError {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            ApiError::Refused { status: status.as_u16(), place, message }
        }
        StatusCode::NOT_FOUND => ApiError::Missing { place, message },
        _ => ApiError::Unexpected { status: status.as_u16(), place, message },
    }
}

/// How long to wait, if the answer says that there were too many requests. GitHub says so with 403, too. Whatever the
/// answer says, it is a wait that can be waited.
fn throttled(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<i128>().ok();
    let either = |github: &str, gitlab: &str| number(github).or_else(|| number(gitlab));
    let exhausted = either("x-ratelimit-remaining", "ratelimit-remaining") == Some(0);
    let retry_after = outbound::retry_after(headers, now);
    let is_throttled = match status {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::FORBIDDEN => exhausted || retry_after.is_some(),
        StatusCode::SERVICE_UNAVAILABLE => retry_after.is_some(),
        _ => false,
    };
    let reset = either("x-ratelimit-reset", "ratelimit-reset").filter(|_| exhausted);
    let sent = i128::from(outbound::sent_at(headers).unwrap_or(now).micros() / 1_000_000);
    let until = |reset: i128| {
        let left = reset.saturating_sub(sent).saturating_add(1).max(0);
        Duration::from_secs(u64::try_from(left).unwrap_or(u64::MAX))
    };
    let wait = retry_after.or_else(|| reset.map(until)).unwrap_or(THROTTLED);
    is_throttled.then(|| wait.clamp(BELIEVED.0, BELIEVED.1))
}

/// What an error answer says, shortened: its `message` or `error`, as most providers have it.
fn message(body: &[u8]) -> String {
    const LONGEST: usize = 200;
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = ["message", "error_description", "error"].iter().find_map(|key| match &json[key] {
        serde_json::Value::String(text) => Some(text.as_str()),
        serde_json::Value::Object(inner) => inner.get("message").and_then(serde_json::Value::as_str),
        _ => None,
    });
    text.unwrap_or_default().chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

/// Whether an API can be at that address.
///
/// # Errors
/// If not.
pub fn check(base: &Url) -> Result<(), BuildError> {
    let wrong = |why| Err(BuildError::Base(why));
    if !matches!(base.scheme(), "http" | "https") {
        return wrong("must start with https:// (or http://, for a stand-in)");
    }
    if !base.username().is_empty() || base.password().is_some() {
        return wrong("must have no user name or password in it: the token has its own setting");
    }
    if base.query().is_some() || base.fragment().is_some() {
        return wrong("must have no query or fragment");
    }
    Ok(())
}

fn headers(api: &ApiDescription, token: &SecretString) -> Result<HeaderMap, BuildError> {
    let token = token.expose_secret().trim();
    if token.is_empty() {
        return Err(BuildError::Token);
    }
    let basic = |text: &str| {
        use base64::Engine as _;
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
    };
    let (name, value) = match api.token {
        TokenPlace::Bearer => (AUTHORIZATION, format!("Bearer {token}")),
        TokenPlace::AuthorizationToken => (AUTHORIZATION, format!("token {token}")),
        TokenPlace::Header(name) => (HeaderName::from_static(name), token.to_owned()),
        TokenPlace::Password => (AUTHORIZATION, basic(&format!(":{token}"))),
        TokenPlace::BasicOrBearer if token.contains(':') => (AUTHORIZATION, basic(token)),
        TokenPlace::BasicOrBearer => (AUTHORIZATION, format!("Bearer {token}")),
    };
    let mut value = HeaderValue::try_from(value).map_err(|_| BuildError::Token)?;
    value.set_sensitive(true);
    let own = api.headers.iter().map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    Ok(own.chain([(name, value)]).collect())
}
