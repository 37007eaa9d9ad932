//! One connection from its first byte to its end.
//!
//! It ends by `Connection: close` on an answer that refuses, when it has lived or served long enough, or when somebody
//! waits for its place; and without an answer only while it has no request. HTTP itself is hyper's.

use std::error::Error as _;
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::header::CONNECTION;
use http::{HeaderValue, Request};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::activity::{Activity, Phase};
use super::client::Peer;
use super::incoming::RequestBody;
use super::places::{Place, Places};
use super::serve::Limits;
use super::stream::ClientStream;

/// What all connections of a listener share.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) limits: Limits,
    pub(super) router: Router,
    pub(super) builder: http1::Builder,
    pub(super) places: Arc<Places>,
    /// Cancelled when the process is to end.
    pub(super) end: CancellationToken,
    /// Cancelled when even a request in work has to.
    pub(super) cut: CancellationToken,
}

/// Serves a connection to its end. Returns the word for why it was ended, if not in good order.
pub(super) async fn serve<S>(stream: S, place: &Place, listening: &Listening) -> Option<&'static str>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let activity = place.activity();
    let Limits { header_timeout, keep_alive, .. } = listening.limits;
    let stream = ClientStream::new(stream, Arc::clone(activity), header_timeout);
    let service = service_fn(|request| answer(listening, activity, request));
    let mut connection = pin!(listening.builder.serve_connection(TokioIo::new(stream), service));
    let mut overdue = pin!(activity.overdue(header_timeout, keep_alive));
    let mut told = false;
    loop {
        // What has come is looked at before the connection is found to do nothing.
        tokio::select! {
            biased;
            served = connection.as_mut() => return served.err().and_then(|error| reason(&error)),
            () = listening.cut.cancelled() => return None,
            () = overdue.as_mut() => return (activity.phase().0 == Phase::Headers).then_some("slow-headers"),
            () = activity.end().cancelled(), if !told => {
                told = true;
                let has_request = matches!(activity.phase().0, Phase::Body | Phase::Request | Phase::Answer);
                if !has_request && !listening.end.is_cancelled() {
                    return Some("made-room");
                }
                // A body that is still to come breaks off with the next poll.
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn answer(
    listening: &Listening,
    activity: &Arc<Activity>,
    mut request: Request<Incoming>,
) -> Result<Response, std::convert::Infallible> {
    let served = activity.requested();
    request.extensions_mut().insert(Peer(activity.peer));
    request.extensions_mut().insert(Arc::clone(&listening.places));
    let request = if request.body().is_end_stream() {
        request.map(Body::new)
    } else {
        request.map(|body| Body::new(RequestBody::new(body, Arc::clone(activity))))
    };
    let mut response = listening.router.clone().oneshot(request).await?;
    let Limits { max_age, max_requests, .. } = listening.limits;
    let status = response.status();
    let refused = status.is_client_error() || status.is_server_error();
    if refused || served >= max_requests || activity.age() >= max_age || listening.places.are_short() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    activity.answered();
    Ok(response)
}

/// The word for a connection that hyper ended, unless the client ended it.
fn reason(error: &hyper::Error) -> Option<&'static str> {
    // Clients break off for reasons of their own.
    tracing::debug!(%error, "connection ended with an error");
    let stalled = |error: &std::io::Error| error.kind() == std::io::ErrorKind::TimedOut;
    if error.is_parse_too_large() {
        Some("headers-too-large")
    } else if error.is_parse() {
        Some("malformed")
    } else {
        let source = error.source().and_then(|source| source.downcast_ref());
        source.is_some_and(stalled).then_some("stalled")
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use axum::routing::get;
    use futures_util::FutureExt as _;
    use http::StatusCode;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::{Instant, sleep};

    use super::super::network::Networks;
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn listening(places: usize) -> Listening {
        let slow = || async {
            sleep(Duration::from_secs(100)).await;
            "done"
        };
        let router = Router::new()
            .route("/", get(|| async { "well" }))
            .route("/slow", get(slow))
            .route("/ready", get(|| async { StatusCode::SERVICE_UNAVAILABLE }));
        let mut builder = http1::Builder::new();
        builder.header_read_timeout(None);
        let limits = Limits {
            listener: "test",
            header_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            max_connections: places,
            max_per_peer: places,
            unshared: Networks::default(),
            max_age: Duration::from_secs(200),
            max_requests: 10,
            grace: Duration::from_secs(1),
        };
        let places = Places::new(places, 10, Networks::default());
        let (end, cut) = (CancellationToken::new(), CancellationToken::new());
        Listening { limits, router, builder, places, end, cut }
    }

    async fn place(listening: &Listening) -> Place {
        listening.places.take(PEER, listening.end.child_token()).await.unwrap()
    }

    /// Asks, and returns whether the answer is the last one.
    async fn asked(client: &mut DuplexStream, path: &str) -> bool {
        client.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut bytes = [0; 1024];
        let n = client.read(&mut bytes).await.unwrap();
        let answer = std::str::from_utf8(&bytes[..n]).unwrap();
        assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
        answer.contains("connection: close\r\n")
    }

    async fn is_closed(client: &mut DuplexStream) -> bool {
        client.read(&mut [0; 1]).await.unwrap() == 0
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_outlast_proxies_and_headers_have_their_own_time() {
        let (mut client, server) = duplex(4096);
        let listening = listening(1);
        let place = place(&listening).await;
        let client = async {
            assert!(!asked(&mut client, "/").await);
            sleep(Duration::from_secs(70)).await;
            assert!(!asked(&mut client, "/").await, "longer than nginx and ALB keep it");
            let idle = Instant::now();
            assert!(is_closed(&mut client).await);
            assert_eq!(idle.elapsed().as_secs(), 75);
        };
        let (reason, ()) = tokio::join!(serve(server, &place, &listening), client);
        assert_eq!(reason, None);

        let (mut client, server) = duplex(4096);
        let client = async {
            assert!(!asked(&mut client, "/").await);
            sleep(Duration::from_secs(60)).await;
            let began = Instant::now();
            client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
            sleep(Duration::from_secs(9)).await;
            client.write_all(b"host: x\r\n").await.unwrap();
            assert!(is_closed(&mut client).await);
            assert_eq!(began.elapsed().as_secs(), 10);
        };
        // A connection of its own.
        drop(place);
        let place = self::place(&listening).await;
        let (reason, ()) = tokio::join!(serve(server, &place, &listening), client);
        assert_eq!(reason, Some("slow-headers"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_by_age_and_number_comes_with_an_answer() {
        let (mut client, server) = duplex(4096);
        let listening = listening(1);
        let first = place(&listening).await;
        let aged = async {
            assert!(!asked(&mut client, "/slow").await);
            sleep(Duration::from_secs(50)).await;
            assert!(
                asked(&mut client, "/slow").await,
                "300 seconds are more than 200, and it is answered all the same"
            );
            assert!(is_closed(&mut client).await);
        };
        tokio::join!(serve(server, &first, &listening), aged);
        drop(first);

        let (mut client, server) = duplex(4096);
        let second = place(&listening).await;
        let many = async {
            for _ in 1..10 {
                assert!(!asked(&mut client, "/").await);
            }
            assert!(asked(&mut client, "/").await);
        };
        tokio::join!(serve(server, &second, &listening), many);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_and_a_newcomer_that_waits_end_a_connection_with_its_answer() {
        let (mut client, server) = duplex(4096);
        let listening = listening(1);
        let first = place(&listening).await;
        let refused = async { assert!(asked(&mut client, "/ready").await) };
        tokio::join!(serve(server, &first, &listening), refused);
        drop(first);

        let (mut client, server) = duplex(4096);
        let second = place(&listening).await;
        let busy = async {
            assert!(!asked(&mut client, "/").await);
            let mut waiting = Box::pin(place(&listening));
            assert!(waiting.as_mut().now_or_never().is_none());
            assert!(asked(&mut client, "/").await);
        };
        assert_eq!(tokio::join!(serve(server, &second, &listening), busy).0, None);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_makes_room_is_closed_unless_a_request_is_in_work() {
        let (mut client, server) = duplex(4096);
        let listening = listening(1);
        let first = place(&listening).await;
        let idle = async {
            assert!(!asked(&mut client, "/").await);
            first.activity().end().cancel();
            assert!(is_closed(&mut client).await);
        };
        assert_eq!(tokio::join!(serve(server, &first, &listening), idle).0, Some("made-room"));
        drop(first);

        let (mut client, server) = duplex(4096);
        let second = place(&listening).await;
        let busy = async {
            let ending = async {
                sleep(Duration::from_secs(1)).await;
                second.activity().end().cancel();
            };
            assert!(tokio::join!(asked(&mut client, "/slow"), ending).0, "it is answered, and that is the last one");
            assert!(is_closed(&mut client).await);
        };
        assert_eq!(tokio::join!(serve(server, &second, &listening), busy).0, None);
    }
}
