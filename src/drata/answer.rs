//! What an answer that isn't a success means: its class, how long to wait, and one sentence for people.

use std::time::Duration;

use http::StatusCode;
use http::header::HeaderMap;
use serde::Deserialize;

use crate::delivery::Timestamp;
use crate::outbound;
use crate::target::{Failure, FailureClass};

/// The shortest and the longest `Retry-After` that is believed.
const BELIEVED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// The longest message, in characters.
const MAX_MESSAGE: usize = 200;

/// The class of a status that isn't 2xx.
pub(super) const fn class(status: StatusCode) -> FailureClass {
    match status.as_u16() {
        429 => FailureClass::Throttled,
        401 | 402 | 403 | 412 => FailureClass::RefusedAll,
        404 => FailureClass::Stale,
        // A redirect is never followed: it would carry the key elsewhere. It is a mistake in the base URL, and no try of
        // the same request mends it. 408 is a time-out, told by the other side.
        408 | 500..=599 => FailureClass::Transient,
        _ => FailureClass::Refused,
    }
}

/// The failure that an answer is. `body` is as much of it as could be read.
pub(super) fn failure(status: StatusCode, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Failure {
    Failure {
        class: class(status),
        status: Some(status.as_u16()),
        retry_after: outbound::retry_after(headers, now).map(|wait| wait.clamp(BELIEVED.0, BELIEVED.1)),
        message: message(status, body),
    }
}

/// Drata's own message if there is one, else what the status is called.
fn message(status: StatusCode, body: &[u8]) -> String {
    /// The part of an error body that is for people. Proxies answer with other things, and so has Drata.
    #[derive(Deserialize)]
    struct ErrorBody<'a> {
        #[serde(borrow)]
        message: std::borrow::Cow<'a, str>,
    }
    let said = serde_json::from_slice(body).map(|body: ErrorBody<'_>| tidy(&body.message)).unwrap_or_default();
    let number = status.as_u16();
    match (said.is_empty(), status.canonical_reason()) {
        (false, _) => format!("Drata answered {number}: {said}"),
        (true, Some(reason)) => format!("Drata answered {number} {reason}"),
        (true, None) => format!("Drata answered {number}"),
    }
}

/// One line of at most 200 characters.
fn tidy(text: &str) -> String {
    let spaced = text.replace(|c: char| c.is_control() || c.is_whitespace(), " ");
    let mut line = spaced.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    if line.chars().count() > MAX_MESSAGE {
        line = line.chars().take(MAX_MESSAGE - 1).chain(['…']).collect();
    }
    line
}

#[cfg(test)]
mod tests {
    use http::header::{DATE, RETRY_AFTER};
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(500, FailureClass::Transient)]
    #[case(502, FailureClass::Transient)]
    #[case(599, FailureClass::Transient)]
    #[case(408, FailureClass::Transient)]
    #[case(429, FailureClass::Throttled)]
    #[case(401, FailureClass::RefusedAll)]
    #[case(402, FailureClass::RefusedAll)]
    #[case(403, FailureClass::RefusedAll)]
    #[case(412, FailureClass::RefusedAll)]
    #[case(404, FailureClass::Stale)]
    #[case(400, FailureClass::Refused)]
    #[case(409, FailureClass::Refused)]
    #[case(418, FailureClass::Refused)]
    #[case(302, FailureClass::Refused)]
    fn every_status_has_its_class(#[case] status: u16, #[case] expected: FailureClass) {
        assert_eq!(class(StatusCode::from_u16(status).unwrap()), expected);
    }

    #[rstest]
    #[case("7", None, Some(7))]
    #[case("0", None, Some(1))]
    #[case("86400", None, Some(600))]
    #[case("99999999999999999999999", None, Some(600))]
    #[case("Tue, 04 Nov 2025 10:00:30 GMT", None, Some(30))]
    #[case("Tue, 04 Nov 2025 10:00:30 GMT", Some("Tue, 04 Nov 2025 10:00:10 GMT"), Some(20))]
    #[case("Mon, 03 Nov 2025 10:00:30 GMT", None, Some(1))]
    #[case("soon", None, None)]
    #[case("-3", None, None)]
    fn retry_after_is_read_and_clamped(#[case] value: &str, #[case] date: Option<&str>, #[case] seconds: Option<u64>) {
        let mut headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
        if let Some(date) = date {
            headers.insert(DATE, date.parse().unwrap());
        }
        let now: Timestamp = "2025-11-04T10:00:00Z".parse().unwrap();
        let found = failure(StatusCode::TOO_MANY_REQUESTS, &headers, b"", now).retry_after;
        assert_eq!(found, seconds.map(Duration::from_secs));
    }

    #[rstest]
    #[case(
        404,
        r#"{"statusCode":404,"message":"Record Not Found","code":10170}"#,
        "Drata answered 404: Record Not Found"
    )]
    #[case(400, r#"{"message":"a\n\u0007 b\t"}"#, "Drata answered 400: a b")]
    #[case(400, r#"{"message":["userId must be a number"]}"#, "Drata answered 400 Bad Request")]
    #[case(502, "<html>Bad gateway</html>", "Drata answered 502 Bad Gateway")]
    #[case(500, r#"{"message":""}"#, "Drata answered 500 Internal Server Error")]
    #[case(599, "", "Drata answered 599")]
    fn the_message_is_drata_s_own_or_the_status(#[case] status: u16, #[case] body: &str, #[case] expected: &str) {
        assert_eq!(message(StatusCode::from_u16(status).unwrap(), body.as_bytes()), expected);
    }

    #[test]
    fn a_long_message_is_shortened_at_a_character() {
        let body = serde_json::json!({ "message": "ä".repeat(5000) }).to_string();
        let message = message(StatusCode::BAD_REQUEST, body.as_bytes());
        assert!(message.ends_with("ä…"));
        assert_eq!(message.chars().count(), "Drata answered 400: ".len() + 200);
    }
}
