//! Every status, and which one wins.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method};

use super::*;

async fn status_of(request: Request<Body>) -> (u16, String) {
    let (ingress, broker) = ingress();
    let verdict = verdict(send(&ingress, request).await).await;
    assert_eq!(broker.published(), [], "nothing that is refused may be published");
    verdict
}

fn refused(status: u16, slug: &str) -> (u16, String) {
    (status, slug.to_owned())
}

#[tokio::test]
async fn a_good_request_is_published_as_it_came_and_answered_with_202() {
    let (ingress, broker) = ingress();
    let body = "{ \"yo\" : \"\\u001b\" }\n";
    let response = send(&ingress, request(body)).await;
    assert_eq!(response.status(), 202);
    assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    assert_eq!(text(response).await, r#"{"delivery":"d-1","status":"accepted"}"#);
    let published = broker.published();
    assert_eq!(published.len(), 1);
    assert_eq!(published[0].body, body);
    assert_eq!((published[0].source.as_str(), published[0].provider.as_str()), ("acme", "test"));
    assert_eq!(published[0].event.as_str(), "member.added");
    assert_eq!(published[0].secret.to_string(), "env:TEST");
    let stamp = published[0].stamp.unwrap();
    assert_eq!((stamp.run, stamp.sequence), (ingress.run(), 1));
    assert!(published[0].received_at.since(Timestamp(0)) > Duration::from_secs(1));
}

#[tokio::test]
async fn sequences_count_up_without_holes() {
    let (ingress, broker) = ingress();
    for _ in 0..3 {
        assert_eq!(send(&ingress, request("{}")).await.status(), 202);
    }
    let sequences: Vec<u64> = broker.published().iter().map(|delivery| delivery.stamp.unwrap().sequence).collect();
    assert_eq!(sequences, [1, 2, 3]);
}

#[tokio::test]
async fn a_ping_is_verified_answered_and_not_published() {
    let (ingress, broker) = ingress();
    let mut ping = request("{}");
    ping.headers_mut().insert("x-test-event", HeaderValue::from_static("ping"));
    let response = send(&ingress, ping).await;
    assert_eq!(response.status(), 200);
    assert_eq!(text(response).await, r#"{"status":"pong"}"#);
    assert_eq!(broker.published(), []);

    let mut forged = request("{}");
    forged.headers_mut().insert("x-test-event", HeaderValue::from_static("ping"));
    *forged.body_mut() = Body::from("{ }");
    assert_eq!(send(&ingress, forged).await.status(), 401);
}

/// Each request has its own fault and all later ones too.
#[tokio::test]
async fn of_several_faults_the_first_in_order_is_the_answer() {
    let bad_at_everything = |length: &'static str| {
        let mut request = request_with(Body::from("nope"));
        request.headers_mut().insert("x-test-signature", HeaderValue::from_static("short"));
        if !length.is_empty() {
            *request.body_mut() = Body::from("x".repeat(length.parse().unwrap()));
        }
        request
    };
    let too_long = "1048577";

    let mut nowhere = bad_at_everything(too_long);
    *nowhere.method_mut() = Method::GET;
    nowhere.headers_mut().remove(CONTENT_TYPE);
    *nowhere.uri_mut() = "/webhooks/other".parse().unwrap();
    assert_eq!(status_of(nowhere).await, refused(404, "not-found"));

    let mut not_post = bad_at_everything(too_long);
    *not_post.method_mut() = Method::PUT;
    not_post.headers_mut().remove(CONTENT_TYPE);
    assert_eq!(status_of(not_post).await, refused(405, "method"));

    let mut not_json = bad_at_everything(too_long);
    not_json.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    assert_eq!(status_of(not_json).await, refused(415, "media-type"));

    assert_eq!(status_of(bad_at_everything(too_long)).await, refused(413, "too-large"));
    assert_eq!(status_of(bad_at_everything("")).await, refused(401, "unverified"));

    let mut forged = request_with(Body::from("not JSON"));
    forged.headers_mut().remove("x-test-event");
    assert_eq!(status_of(forged).await, refused(401, "unverified"));
    assert_eq!(status_of(request("not JSON")).await, refused(400, "malformed"));
}

/// What comes before the rest: whom the source isn't for, what HTTP demands, and whether there is such a source.
#[tokio::test]
async fn whose_address_is_wrong_is_told_before_what_the_request_is_about() {
    let bad = |path: &str, peer: &str| {
        let mut request = request("nope");
        *request.method_mut() = Method::PUT;
        *request.uri_mut() = path.parse().unwrap();
        request.headers_mut().remove("host");
        request.headers_mut().append("transfer-encoding", HeaderValue::from_static("gzip"));
        request.extensions_mut().insert(client::Peer(peer.parse().unwrap()));
        request
    };
    let with_host = |mut request: Request<Body>| {
        request.headers_mut().insert("host", HeaderValue::from_static("hooks.test"));
        request
    };
    let encoded = |mut request: Request<Body>| {
        request.headers_mut().remove("transfer-encoding");
        request
    };
    let allow_from = Some(["192.0.2.0/24"].iter().map(|network| network.parse::<Network>().unwrap()).collect());
    let (ingress, _broker) = ingress_for(settings(), IngressSource { allow_from, ..source(Encodings::JsonOrForm) });
    let verdict = async |request| verdict(send(&ingress, request).await).await;
    let (acme, other) = ("/webhooks/acme", "/webhooks/other");
    assert_eq!(verdict(bad(acme, "203.0.113.1")).await, refused(403, "forbidden"));
    for path in [acme, other] {
        assert_eq!(verdict(bad(path, "192.0.2.1")).await, refused(400, "malformed"), "{path}");
        assert_eq!(verdict(with_host(bad(path, "192.0.2.1"))).await, refused(501, "transfer-encoding"), "{path}");
    }
    assert_eq!(verdict(encoded(with_host(bad(other, "192.0.2.1")))).await, refused(404, "not-found"));
    assert_eq!(verdict(encoded(with_host(bad(acme, "192.0.2.1")))).await, refused(405, "method"));
}

/// Bytes of strangers aren't waited for.
#[tokio::test(start_paused = true)]
async fn nothing_is_read_of_a_body_from_an_address_that_may_not_send() {
    let allow_from = Some(["192.0.2.0/24"].iter().map(|network| network.parse::<Network>().unwrap()).collect());
    let (ingress, _broker) = ingress_for(settings(), IngressSource { allow_from, ..source(Encodings::JsonOrForm) });
    let body = stream::poll_fn(|_| -> std::task::Poll<Option<Result<Bytes, Infallible>>> { panic!("it is read") });
    let request = request_with(Body::from_stream(body));
    assert_eq!(verdict(send(&ingress, request).await).await, refused(403, "forbidden"));
}

#[tokio::test]
async fn paths_that_are_no_source_are_404() {
    for path in [
        "/",
        "/webhooks",
        "/webhooks/",
        "/webhooks//",
        "/webhooks/acme//",
        "/webhooks/acme/x",
        "//webhooks/acme",
        "/webhooks//acme",
        "/webhooks/ACME",
        "/webhooks/%61cme",
        "/live",
    ] {
        let mut nowhere = request("{}");
        *nowhere.uri_mut() = path.parse().unwrap();
        assert_eq!(status_of(nowhere).await, refused(404, "not-found"), "{path}");
    }
}

#[tokio::test]
async fn a_slash_at_the_end_is_no_difference() {
    let (ingress, broker) = ingress();
    let mut slash = request("{}");
    *slash.uri_mut() = "/webhooks/acme/".parse().unwrap();
    assert_eq!(send(&ingress, slash).await.status(), 202);
    assert_eq!(broker.published()[0].source.as_str(), "acme");
}

/// What rests on a header rests on its one value.
#[tokio::test]
async fn headers_on_which_something_rests_come_exactly_once() {
    for (name, values, status, slug) in [
        ("host", &[][..], 400, "malformed"),
        ("host", &["hooks.test", "hooks.test"], 400, "malformed"),
        ("content-type", &[], 415, "media-type"),
        ("content-type", &["application/json", "application/json"], 415, "media-type"),
        ("content-type", &["application/json", "application/x-www-form-urlencoded"], 415, "media-type"),
        ("content-type", &["application/json, application/json"], 415, "media-type"),
        ("content-encoding", &["identity", "identity"], 415, "media-type"),
        ("content-encoding", &["identity", "gzip"], 415, "media-type"),
        ("content-encoding", &["identity, gzip"], 415, "media-type"),
        ("content-encoding", &["gzip"], 415, "media-type"),
        ("transfer-encoding", &["gzip, chunked"], 501, "transfer-encoding"),
        ("transfer-encoding", &["chunked", "chunked"], 501, "transfer-encoding"),
        ("transfer-encoding", &["gzip", "chunked"], 501, "transfer-encoding"),
    ] {
        let mut bad = request("{}");
        bad.headers_mut().remove(name);
        for value in values {
            bad.headers_mut().append(name, HeaderValue::from_static(value));
        }
        assert_eq!(status_of(bad).await, refused(status, slug), "{name} {values:?}");
    }
}

#[tokio::test]
async fn before_http_1_1_there_was_no_host() {
    let (ingress, _broker) = ingress();
    let mut old = request("{}");
    old.headers_mut().remove("host");
    *old.version_mut() = http::Version::HTTP_10;
    assert_eq!(send(&ingress, old).await.status(), 202);
}

#[tokio::test]
async fn a_provider_that_never_sends_forms_answers_415_to_one() {
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    for (encodings, status) in [(Encodings::JsonOnly, 415), (Encodings::JsonOrForm, 202)] {
        let (ingress, broker) = ingress_of(encodings);
        let mut request = request("payload=%7B%7D");
        request.headers_mut().insert(CONTENT_TYPE, form.clone());
        assert_eq!(send(&ingress, request).await.status(), status);
        assert_eq!(broker.published().len(), usize::from(status == 202));
    }
}

/// The content type isn't signed: it decides whether a request is taken, never how its body is read.
#[tokio::test]
async fn how_a_body_is_read_follows_from_its_bytes() {
    for content_type in ["application/json", "application/x-www-form-urlencoded"] {
        for (body, status) in [
            ("{}", 202),
            ("payload=%7B%7D", 202),
            ("payload=%7B%7D&a=1", 400),
            ("a=1&payload=%7B%7D", 400),
            ("payload=%7B%7D&payload=%7B%7D", 400),
            (r#"{"message": "x&payload=%7B%7D&y="}"#, 202),
        ] {
            let (ingress, broker) = ingress();
            let mut request = request(body);
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            assert_eq!(send(&ingress, request).await.status(), status, "{body} as {content_type}");
            let media_types: Vec<&str> = broker.published().iter().map(Delivery::media_type).collect();
            let is = if body.starts_with('{') { "application/json" } else { "application/x-www-form-urlencoded" };
            assert_eq!(media_types, if status == 202 { vec![is] } else { vec![] }, "{body} as {content_type}");
        }
    }
}

#[tokio::test]
async fn only_plain_json_and_forms_are_taken() {
    let mut missing = request("{}");
    missing.headers_mut().remove(CONTENT_TYPE);
    assert_eq!(status_of(missing).await, refused(415, "media-type"));
    let mut zipped = request("{}");
    zipped.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    assert_eq!(status_of(zipped).await, refused(415, "media-type"));
    let mut text = request("{}");
    text.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    assert_eq!(status_of(text).await, refused(415, "media-type"));
    let (ingress, _broker) = ingress();
    let mut identity = request("{}");
    identity.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("identity"));
    assert_eq!(send(&ingress, identity).await.status(), 202);
}

#[tokio::test]
async fn a_verified_request_without_a_usable_name_is_400() {
    for header in ["x-test-event", "x-test-delivery"] {
        let mut nameless = request("{}");
        nameless.headers_mut().remove(header);
        assert_eq!(status_of(nameless).await, refused(400, "malformed"));
        let mut blank = request("{}");
        blank.headers_mut().insert(header, HeaderValue::from_static("  "));
        assert_eq!(status_of(blank).await, refused(400, "malformed"));
        let mut long = request("{}");
        long.headers_mut().insert(header, "x".repeat(256).parse().unwrap());
        assert_eq!(status_of(long).await, refused(400, "malformed"));
    }
    assert_eq!(status_of(request("")).await, refused(400, "malformed"));
}

#[tokio::test]
async fn problems_are_rfc_9457_and_say_what_to_do() {
    let (ingress, broker) = ingress();
    let mut unsigned = request("{}");
    unsigned.headers_mut().remove("x-test-signature");
    let response = send(&ingress, unsigned).await;
    assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    let problem: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    let expected = serde_json::json!({
        "type": "/problems/unverified", "title": "The request could not be verified.", "status": 401,
    });
    assert_eq!(problem, expected);

    let mut get = request("{}");
    *get.method_mut() = Method::GET;
    assert_eq!(send(&ingress, get).await.headers()[ALLOW], "POST");
    broker.is(Mood::Fails);
    let response = send(&ingress, request("{}")).await;
    assert_eq!(response.headers()[RETRY_AFTER], "10");
    assert_eq!(verdict(response).await, refused(503, "unavailable"));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_never_answers_gives_503_within_the_request_time_out() {
    let (ingress, broker) = ingress();
    broker.is(Mood::Waits);
    let started = tokio::time::Instant::now();
    assert_eq!(verdict(send(&ingress, request("{}")).await).await, refused(503, "unavailable"));
    assert_eq!(started.elapsed().as_secs(), SOON.as_secs());
}

#[tokio::test]
async fn what_is_larger_than_the_broker_takes_is_413() {
    let (ingress, broker) = ingress();
    broker.is(Mood::FindsItTooLarge);
    assert_eq!(verdict(send(&ingress, request("{}")).await).await, refused(413, "too-large"));
}

#[tokio::test]
async fn a_body_of_unknown_length_is_413_as_soon_as_it_is_too_long() {
    static SENT: AtomicUsize = AtomicUsize::new(0);
    let chunks = stream::repeat(Bytes::from_static(&[b' '; 64 * 1024])).map(|chunk| {
        SENT.fetch_add(chunk.len(), Ordering::Relaxed);
        Ok::<_, Infallible>(chunk)
    });
    assert_eq!(status_of(request_with(Body::from_stream(chunks))).await, refused(413, "too-large"));
    assert_eq!(SENT.load(Ordering::Relaxed), 1024 * 1024 + 64 * 1024);
}

#[tokio::test]
async fn a_body_in_many_pieces_is_put_together() {
    let (ingress, broker) = ingress();
    let body = format!("[{}1]", "1,".repeat(1000));
    let pieces: Vec<_> =
        body.as_bytes().chunks(7).map(|piece| Ok::<_, Infallible>(Bytes::copy_from_slice(piece))).collect();
    let whole = request(&body).map(|_| Body::from_stream(stream::iter(pieces)));
    assert_eq!(send(&ingress, whole).await.status(), 202);
    assert_eq!(broker.published()[0].body, body);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_comes_is_408() {
    let silent = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    let started = tokio::time::Instant::now();
    assert_eq!(status_of(request_with(silent)).await, refused(408, "too-slow"));
    assert_eq!(started.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_drips_is_408_before_its_time_out() {
    let drops = stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Some((Ok::<_, Infallible>(Bytes::from_static(b" ")), ()))
    });
    let started = tokio::time::Instant::now();
    assert_eq!(status_of(request_with(Body::from_stream(drops))).await, refused(408, "too-slow"));
    assert!(started.elapsed() < Duration::from_millis(2500), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_body_at_a_fair_rate_has_until_its_time_out() {
    let flow = stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Some((Ok::<_, Infallible>(Bytes::from_static(&[b' '; 1024])), ()))
    });
    let started = tokio::time::Instant::now();
    assert_eq!(status_of(request_with(Body::from_stream(flow))).await, refused(408, "too-slow"));
    assert_eq!(started.elapsed().as_secs(), SOON.as_secs());
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_published() {
    let broken = stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("gone"))]);
    assert_eq!(status_of(request_with(Body::from_stream(broken))).await, refused(400, "malformed"));
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_well_formed_signature_is_refused_before_its_body_is_needed() {
    let mut unsigned = request_with(Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()));
    unsigned.headers_mut().remove("x-test-signature");
    assert_eq!(status_of(unsigned).await, refused(401, "unverified"));
}

#[tokio::test]
async fn requests_over_the_limit_are_shed_and_bad_ones_still_get_their_answer() {
    let (ingress, broker) = ingress_with(Settings { max_in_flight: 1, ..settings() });
    broker.is(Mood::Waits);
    let tasks = Tasks::new();
    let first = {
        let ingress = ingress.clone();
        tasks.short_lived("test", async move { send(&ingress, request("{}")).await.status() })
    };
    broker.one_has_begun().await;
    let response = send(&ingress, request("{}")).await;
    assert_eq!(response.headers()[RETRY_AFTER], "2");
    assert_eq!(verdict(response).await, refused(503, "busy"));
    let mut unsigned = request("{}");
    unsigned.headers_mut().remove("x-test-signature");
    assert_eq!(send(&ingress, unsigned).await.status(), 401);
    broker.release.add_permits(2);
    assert_eq!(soon(first).await.unwrap(), 202);
    assert_eq!(send(&ingress, request("{}")).await.status(), 202);
}

#[tokio::test]
async fn bodies_over_the_budget_are_shed() {
    let (ingress, _broker) = ingress_with(Settings { body_budget: 1024, small_reserve: 0, ..settings() });
    let large = format!("\"{}\"", "x".repeat(1024));
    assert_eq!(verdict(send(&ingress, request(&large)).await).await, refused(503, "busy"));
    assert_eq!(send(&ingress, request("{}")).await.status(), 202);
}

#[tokio::test]
async fn a_form_travels_as_a_form() {
    let mut form = request("payload=%7B%7D");
    form.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    let (ingress, broker) = ingress();
    assert_eq!(send(&ingress, form).await.status(), 202);
    assert_eq!(broker.published()[0].body, "payload=%7B%7D");
    assert_eq!(broker.published()[0].json(Encodings::JsonOrForm).as_ref(), b"{}");
}
