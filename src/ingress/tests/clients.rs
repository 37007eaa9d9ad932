//! Several clients over real connections, from addresses of their own: what one of them takes from the others.

use futures_util::{StreamExt as _, stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use super::refusals::capture;
use super::socket::{Server, answer, good, head, is_last_answer, last, rest};
use super::*;

/// A socket of an address of this machine, to connect from.
fn from(address: [u8; 4]) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((address, 0).into()).unwrap();
    socket
}

const ATTACKER: [u8; 4] = [127, 0, 0, 2];
const HONEST: [u8; 4] = [127, 0, 0, 3];

#[tokio::test]
async fn sockets_that_keep_sending_small_requests_keep_nobody_out() {
    // More than there are places, from an address that may have them all; each is refused, and comes again.
    let server = Server::start(Settings { max_connections: 8, ..settings() }).await;
    let attack = async {
        let mut flood = stream::iter(0..)
            .map(async |_| {
                let mut stream = soon(from(ATTACKER).connect(server.address)).await.unwrap();
                // Its body never comes, so that the refusal isn't sent at once either.
                stream
                    .write_all(head(b"", "content-length: 2\r\n").replace("/acme", "/other").as_bytes())
                    .await
                    .unwrap();
                rest(&mut stream).await
            })
            .buffer_unordered(16);
        while flood.next().await.is_some() {}
    };
    let honest = async {
        for _ in 0..2 {
            let mut stream = soon(from(HONEST).connect(server.address)).await.unwrap();
            stream.write_all(good().as_bytes()).await.unwrap();
            let mut read = [0; 12];
            timeout(SOON * 2, stream.read_exact(&mut read)).await.expect("a place in time").unwrap();
            assert_eq!(&read, b"HTTP/1.1 202");
        }
    };
    tokio::select! {
        () = attack => unreachable!("it never ends"),
        () = honest => {}
    }
}

#[tokio::test]
async fn one_peer_has_its_share_of_the_places_and_others_get_theirs_at_once() {
    let server = Server::start(Settings { max_connections: 4, max_per_peer: 2, ..settings() }).await;
    server.broker.is(Mood::Waits);
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = soon(from(ATTACKER).connect(server.address)).await.unwrap();
        stream.write_all(good().as_bytes()).await.unwrap();
        server.broker.one_has_begun().await;
        held.push(stream);
    }
    let mut refused = soon(from(ATTACKER).connect(server.address)).await.unwrap();
    let told = rest(&mut refused).await;
    assert!(told.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{told}");
    assert!(told.contains("retry-after: 2\r\n") && told.contains("\"type\":\"/problems/busy\""), "{told}");
    for _ in 0..2 {
        let mut honest = soon(from(HONEST).connect(server.address)).await.unwrap();
        honest.write_all(good().as_bytes()).await.unwrap();
        server.broker.one_has_begun().await;
        held.push(honest);
    }
    server.broker.release.add_permits(4);
    for mut stream in held {
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 202"));
    }
}

#[tokio::test]
async fn idle_and_silent_connections_make_room_and_busy_ones_are_answered_first() {
    let server = Server::start(Settings { max_connections: 3, ..settings() }).await;
    let mut idle = server.connect().await;
    idle.write_all(good().as_bytes()).await.unwrap();
    assert!(!is_last_answer(&mut idle).await);
    let silent = server.connect().await;
    let mut slow = server.connect().await;
    slow.write_all(b"POST /webhooks/acme HTTP/1.1\r\nhost").await.unwrap();
    server.broker.is(Mood::Waits);
    let mut busy = Vec::new();
    for _ in 0..3 {
        let mut stream = server.connect().await;
        stream.write_all(good().as_bytes()).await.unwrap();
        server.broker.one_has_begun().await;
        busy.push(stream);
    }
    for mut cut in [idle, silent, slow] {
        assert_eq!(rest(&mut cut).await, "");
    }
    // Now nobody can make room before its answer.
    let mut waits = server.connect().await;
    waits.write_all(good().as_bytes()).await.unwrap();
    server.broker.release.add_permits(4);
    assert!(answer(&mut waits).await.starts_with("HTTP/1.1 202"));
    for mut stream in busy {
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 202"));
    }
}

#[tokio::test]
async fn bodies_that_hardly_come_make_room_with_an_answer_and_complete_ones_never_do() {
    let server = Server::start(Settings { max_connections: 3, ..settings() }).await;
    server.broker.is(Mood::Waits);
    let mut works = server.connect().await;
    works.write_all(good().as_bytes()).await.unwrap();
    server.broker.one_has_begun().await;
    let mut stalled = Vec::new();
    for path in ["/webhooks/acme", "/webhooks/other"] {
        let mut stream = server.connect().await;
        let head = head(b"{}  ", "content-length: 4\r\n").replace("/webhooks/acme", path);
        stream.write_all((head + "{}").as_bytes()).await.unwrap();
        stalled.push(stream);
    }
    let mut newcomers = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect().await;
        stream.write_all(good().as_bytes()).await.unwrap();
        server.broker.one_has_begun().await;
        newcomers.push(stream);
    }
    let told = rest(&mut stalled[0]).await;
    assert!(told.starts_with("HTTP/1.1 503 ") && told.contains("retry-after: 2\r\n"), "{told}");
    let told = rest(&mut stalled[1]).await;
    assert!(told.starts_with("HTTP/1.1 404 "), "{told}");
    server.broker.release.add_permits(3);
    for stream in newcomers.iter_mut().chain([&mut works]) {
        assert!(answer(stream).await.starts_with("HTTP/1.1 202"));
    }
}

#[tokio::test]
async fn bodies_that_never_come_hold_no_slot() {
    let server = Server::start(Settings { max_in_flight: 2, max_connections: 32, ..settings() }).await;
    let mut slow = Vec::new();
    for _ in 0..10 {
        let mut stream = server.connect().await;
        stream.write_all((head(b"{}  ", "content-length: 4\r\nexpect: 100-continue\r\n")).as_bytes()).await.unwrap();
        // It is asked for its body once that is waited for.
        let mut asked = [0; 12];
        soon(stream.read_exact(&mut asked)).await.unwrap();
        assert_eq!(&asked, b"HTTP/1.1 100");
        stream.write_all(b"{}").await.unwrap();
        slow.push(stream);
    }
    for _ in 0..3 {
        assert!(server.exchange(last(&good()).as_bytes()).await.starts_with("HTTP/1.1 202"));
    }
    for mut stream in slow {
        assert!(answer(&mut stream).await.contains("HTTP/1.1 408"));
    }
}

fn networks(networks: &[&str]) -> Networks {
    networks.iter().map(|network| network.parse::<Network>().unwrap()).collect()
}

#[tokio::test]
async fn a_source_takes_nothing_from_strangers_and_says_so_before_anything_else() {
    let allow_from = Some(networks(&["127.0.0.3/32", "192.0.2.0/24"]));
    let settings = Settings { trusted_proxies: networks(&["127.0.0.4/32"]), ..settings() };
    let source = IngressSource { allow_from, ..source(Encodings::JsonOrForm) };
    let server = Server::of(ingress_for(settings, source)).await;
    let get = last(&good()).replacen("POST", "GET", 1).replace("application/json", "text/plain");
    let asked = async |address: [u8; 4], request: &str| {
        let mut stream = soon(from(address).connect(server.address)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        rest(&mut stream).await
    };
    let through = |headers: &str| last(&good()).replacen("host: x", &format!("host: x\r\n{headers}"), 1);

    let stranger = asked(ATTACKER, &get).await;
    assert!(stranger.starts_with("HTTP/1.1 403 ") && stranger.contains("\"/problems/forbidden\""), "{stranger}");
    let claims = asked(ATTACKER, &through("x-forwarded-for: 192.0.2.1")).await;
    assert!(claims.starts_with("HTTP/1.1 403 "), "only a trusted proxy is believed: {claims}");
    assert!(asked(HONEST, &get).await.starts_with("HTTP/1.1 405 "));
    assert!(asked(HONEST, &last(&good())).await.starts_with("HTTP/1.1 202 "));
    let proxy = [127, 0, 0, 4];
    assert!(asked(proxy, &last(&good())).await.starts_with("HTTP/1.1 403 "), "the proxy itself is a stranger");
    for (headers, status) in [
        ("x-forwarded-for: 198.51.100.1, 192.0.2.1", "202"),
        ("x-forwarded-for: 192.0.2.1, 198.51.100.1", "403"),
        ("x-forwarded-for: 198.51.100.1\r\nforwarded: for=192.0.2.1", "403"),
        ("forwarded: for=192.0.2.1;proto=https", "202"),
    ] {
        let answered = asked(proxy, &through(headers)).await;
        assert!(answered.starts_with(&format!("HTTP/1.1 {status} ")), "{headers}: {answered}");
    }
}

/// Three large bodies of one address that stall after what is small, of which the budget would take two.
#[tokio::test]
async fn stalled_bodies_of_one_address_leave_room_for_large_ones_of_others() {
    let large = 1024 * 1024;
    let server = Server::start(Settings { body_bytes_per_client: large, ..settings() }).await;
    let stall = async || {
        let mut stream = soon(from(ATTACKER).connect(server.address)).await.unwrap();
        let head = head(b"", &format!("content-length: {large}\r\n"));
        stream.write_all(head.as_bytes()).await.unwrap();
        // It may be refused before all of it is sent.
        let _sent = stream.write_all(&[b' '; SMALL_BODY + 1]).await;
        rest(&mut stream).await
    };
    let mut stalled: stream::FuturesUnordered<_> = (0..3).map(|_| stall()).collect();
    for _ in 0..2 {
        let refused = stalled.next().await.unwrap();
        assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    }
    let body = format!("\"{}\"", "x".repeat(large - 2));
    let request = head(body.as_bytes(), &format!("content-length: {large}\r\n")) + &body;
    let mut honest = soon(from(HONEST).connect(server.address)).await.unwrap();
    honest.write_all(request.as_bytes()).await.unwrap();
    assert!(answer(&mut honest).await.starts_with("HTTP/1.1 202"));
}

#[tokio::test]
async fn one_client_of_a_proxy_has_its_share_of_the_requests() {
    let (captured, _guard) = capture(tracing::Level::WARN);
    let trusted_proxies = networks(&["127.0.0.4/32"]);
    let settings = Settings { max_per_client: 2, max_per_peer: 2, trusted_proxies, ..settings() };
    let server = Server::start(settings).await;
    server.broker.is(Mood::Waits);
    let sent = async |client: &str| {
        let mut stream = soon(from([127, 0, 0, 4]).connect(server.address)).await.unwrap();
        let request = good().replacen("host: x", &format!("host: x\r\nx-forwarded-for: {client}"), 1);
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    };
    let mut held = Vec::new();
    for client in ["203.0.113.1", "203.0.113.1", "203.0.113.2", "203.0.113.3"] {
        held.push(sent(client).await);
        server.broker.one_has_begun().await;
    }
    let refused = rest(&mut sent("203.0.113.1").await).await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("retry-after: 2\r\n"), "{refused}");
    let log = captured.text();
    assert!(
        log.contains("the client (203.0.113.1) has its share of the requests in work (ingress.peer_share)"),
        "{log}"
    );
    server.broker.release.add_permits(4);
    for mut stream in held {
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 202"));
    }
    server.broker.is(Mood::Takes);
    assert!(answer(&mut sent("203.0.113.1").await).await.starts_with("HTTP/1.1 202"), "it has given back");
}

#[tokio::test]
async fn a_proxy_that_names_nobody_is_logged_once() {
    let (captured, _guard) = capture(tracing::Level::WARN);
    let trusted_proxies = networks(&["10.0.0.0/8", "127.0.0.1/32"]);
    let (ingress, _broker) = ingress_with(Settings { trusted_proxies, ..settings() });
    let sent = async |peer: &str, headers: &[(&'static str, &'static str)]| {
        let mut request = request("{}");
        request.extensions_mut().insert(client::Peer(peer.parse().unwrap()));
        request.headers_mut().extend(
            headers
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))),
        );
        assert_eq!(send(&ingress, request).await.status(), 202);
    };
    sent("127.0.0.1", &[]).await;
    sent("192.0.2.1", &[]).await;
    sent("10.0.0.1", &[("x-forwarded-for", "192.0.2.1")]).await;
    assert_eq!(captured.text(), "");
    for _ in 0..3 {
        sent("10.0.0.1", &[]).await;
    }
    let log = captured.text();
    assert_eq!(log.matches("a trusted proxy names no client").count(), 1, "{log}");
    assert!(log.contains("proxy=10.0.0.1"), "{log}");
}
