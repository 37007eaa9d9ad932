//! Error answers in Drata's shape: `statusCode`, `message`, `code`, `name`.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use serde_json::json;

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    status: StatusCode,
    code: u32,
    message: String,
    /// Seconds.
    retry_after: Option<u64>,
}

impl Problem {
    fn new(status: StatusCode, code: u32, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: None }
    }

    pub(super) fn validation(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, 10020, message)
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, 10170, "Record Not Found")
    }

    /// A user id in a link that nobody has.
    pub(super) fn unknown_person(status: u16) -> Self {
        Self::new(StatusCode::from_u16(status).unwrap_or(StatusCode::NOT_FOUND), 10290, "User Not Found")
    }

    /// An e-mail address in a look-up that nobody has.
    pub(super) fn unknown_email(status: u16) -> Self {
        Self::new(StatusCode::from_u16(status).unwrap_or(StatusCode::NOT_FOUND), 10310, "Personnel Not Found")
    }

    /// A link of a service account.
    pub(super) fn service_account(status: u16) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::CONFLICT);
        Self::new(status, 10390, "This identity is a service account and can't be linked")
    }

    pub(super) fn no_key() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, 12300, "Bearer token not found")
    }

    pub(super) fn wrong_key() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, 12310, "Public API key not found")
    }

    pub(super) fn payment() -> Self {
        Self::new(StatusCode::PAYMENT_REQUIRED, 10740, "You must upgrade your plan to use this feature")
    }

    pub(super) fn terms() -> Self {
        let message = "You must accept the Drata terms and conditions to use the API";
        Self::new(StatusCode::PRECONDITION_FAILED, 10340, message)
    }

    pub(super) fn too_many(retry_after: Option<u64>) -> Self {
        Self { retry_after, ..Self::new(StatusCode::TOO_MANY_REQUESTS, 10010, "Too Many Requests") }
    }

    /// What a fault rule answers.
    pub(super) fn fault(status: StatusCode, retry_after: Option<u64>) -> Self {
        Self { retry_after, ..Self::new(status, 10010, status.canonical_reason().unwrap_or("Fault on demand")) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let reason: String = self.status.canonical_reason().unwrap_or("Error").split([' ', '-']).collect();
        let body = json!({
            "statusCode": self.status.as_u16(),
            "message": self.message,
            "code": self.code,
            "name": format!("{reason}Exception"),
        });
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
