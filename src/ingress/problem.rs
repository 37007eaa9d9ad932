//! What a request is told that isn't taken: RFC 9457 problems with fixed texts, which say no more than the status does.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// There is no such source.
    NotFound,
    /// The source isn't for the address that it comes from.
    Forbidden,
    /// It isn't a POST.
    Method,
    /// Its transfer encoding isn't one that we speak.
    TransferEncoding,
    /// The body is of no media type that the provider sends, or it is compressed.
    MediaType,
    /// The body is larger than the edge or the broker takes.
    TooLarge,
    /// The body didn't come in time.
    TooSlow,
    /// The signature is missing, wrong or too old.
    Unverified,
    /// It is verified, but doesn't say what it is.
    Malformed,
    /// It couldn't be made durable.
    Unavailable,
    /// There is too much to do.
    Busy,
}

impl Problem {
    /// Every problem, in the order in which they are first looked for: some are at several points.
    pub const ALL: [Self; 11] = [
        Self::Forbidden,
        Self::Busy,
        Self::Malformed,
        Self::TransferEncoding,
        Self::NotFound,
        Self::Method,
        Self::MediaType,
        Self::TooLarge,
        Self::Unverified,
        Self::TooSlow,
        Self::Unavailable,
    ];

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TransferEncoding => StatusCode::NOT_IMPLEMENTED,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Unverified => StatusCode::UNAUTHORIZED,
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Unavailable | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The word in the problem's `type` (`/problems/unverified`) and in the metric's `reason`.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::Forbidden => "forbidden",
            Self::Method => "method",
            Self::TransferEncoding => "transfer-encoding",
            Self::MediaType => "media-type",
            Self::TooLarge => "too-large",
            Self::TooSlow => "too-slow",
            Self::Unverified => "unverified",
            Self::Malformed => "malformed",
            Self::Unavailable => "unavailable",
            Self::Busy => "busy",
        }
    }

    /// One sentence for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::NotFound => "There is no such webhook source.",
            Self::Forbidden => "Requests from this address are not allowed.",
            Self::Method => "Webhooks are sent with POST.",
            Self::TransferEncoding => "The only supported transfer encoding is chunked.",
            Self::MediaType => {
                "The body must be application/json, or a form where the provider sends forms; not compressed."
            }
            Self::TooLarge => "The body is too large.",
            Self::TooSlow => "The body did not arrive in time.",
            Self::Unverified => "The request could not be verified.",
            Self::Malformed => "The request is not a usable delivery.",
            Self::Unavailable => "The delivery could not be stored. Send it again later.",
            Self::Busy => "There is too much to do at the moment. Send it again later.",
        }
    }

    const fn retry_after(self) -> Option<&'static str> {
        match self {
            Self::Unavailable => Some("10"),
            Self::Busy => Some("2"),
            _ => None,
        }
    }

    fn json(self) -> String {
        let (status, slug, title) = (self.status(), self.slug(), self.title());
        let body = serde_json::json!({
            "type": format!("/problems/{slug}"),
            "title": title,
            "status": status.as_u16(),
        });
        body.to_string()
    }

    /// The answer as it is sent on a connection that ends with it, where no HTTP server is at work.
    pub(super) fn as_http(self) -> String {
        let (status, body) = (self.status(), self.json());
        let retry_after = self.retry_after().map_or_else(String::new, |seconds| format!("retry-after: {seconds}\r\n"));
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\n{retry_after}content-length: {}\r\n\
             connection: close\r\n\r\n{body}",
            body.len()
        )
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.json()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        if self == Self::Method {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}
