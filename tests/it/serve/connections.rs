//! Who gets a connection and who has to make room, over real sockets of several addresses against the built binary.

use std::time::Duration;

use rstest::rstest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use url::Url;

use super::limits::{connect, metrics};
use crate::harness::github::Account;
use crate::harness::site::{Carrier, Site};
use crate::harness::{soon, until};

/// A socket of this machine's address that ends with that number, to connect from.
fn from(last: u8) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, last], 0).into()).unwrap();
    socket
}

async fn connect_from(last: u8, to: &Url) -> TcpStream {
    let address = to.socket_addrs(|| None).unwrap()[0];
    soon("a connection", from(last).connect(address)).await.unwrap()
}

/// Sends a request, as the last one of its connection if it is answered otherwise, and reads until that is closed.
async fn exchange(mut stream: TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _closed_or_reset = soon("the end of the connection", stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).unwrap()
}

/// Every few moments each of many sockets sends a small request that is refused, and more of them wait than there are
/// places.
#[tokio::test]
async fn many_sockets_with_small_requests_keep_nobody_out() {
    let mut site = Site::new(Carrier::Embedded, 1).await;
    site.set("ingress", "max_connections", 16);
    let (process, at) = site.serve().await;
    let request = format!("POST {} HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n", at.webhook.path());
    let sockets = (2..42).map(async |last| {
        loop {
            let mut stream = connect_from(last, &at.webhook).await;
            // For as long as it is let. It never closes by itself.
            let mut answer = [0; 1024];
            while stream.write_all(request.as_bytes()).await.is_ok() {
                if !matches!(stream.read(&mut answer).await, Ok(n) if n > 0) {
                    break;
                }
            }
        }
    });
    let flood = futures_util::future::join_all(sockets);
    let honest = async {
        for _ in 0..5 {
            site.github.accepted(&at.webhook, &site.github.join(Account(1))).await;
        }
    };
    tokio::select! {
        _ = flood => unreachable!("it never ends"),
        () = honest => {}
    }
    assert_eq!(process.stop().await.code, Some(0));
}

/// How a request holds its connection without ever being complete.
#[derive(Clone, Copy, Debug)]
enum Incomplete {
    /// A signature of the right form, and two bytes of the body.
    Forged,
    /// Refused already, and the body trickles.
    Refused,
}

/// More addresses than there are places, each of them well within its share.
#[rstest]
#[case(Incomplete::Forged)]
#[case(Incomplete::Refused)]
#[tokio::test]
async fn bodies_that_never_come_from_many_addresses_keep_nobody_out(#[case] incomplete: Incomplete) {
    let mut site = Site::new(Carrier::Embedded, 1).await;
    site.set("ingress", "max_connections", 16);
    let (process, at) = site.serve().await;
    let head = match incomplete {
        Incomplete::Forged => site.github.large(99_999).forged().wire(&at.webhook).0,
        Incomplete::Refused => {
            "POST /webhooks/other HTTP/1.1\r\nhost: test\r\ncontent-length: 99999\r\n\r\n".to_owned()
        }
    };
    let request = format!("{head}{{\"");
    let sockets = (2..42).map(async |last| {
        loop {
            let mut stream = connect_from(last, &at.webhook).await;
            if stream.write_all(request.as_bytes()).await.is_err() {
                continue;
            }
            let mut answer = [0; 1024];
            loop {
                let tick = tokio::time::sleep(Duration::from_millis(100));
                tokio::select! {
                    read = stream.read(&mut answer) => if !matches!(read, Ok(n) if n > 0) { break },
                    () = tick => if matches!(incomplete, Incomplete::Refused) && stream.write_all(b"x").await.is_err() { break },
                }
            }
        }
    });
    let flood = futures_util::future::join_all(sockets);
    let honest = async {
        for _ in 0..4 {
            let accepted = async { site.github.accepted(&at.webhook, &site.github.join(Account(1))).await };
            timeout(Duration::from_secs(3), accepted).await.expect("an answer before most senders give up");
        }
    };
    tokio::select! {
        _ = flood => unreachable!("it never ends"),
        () = honest => {}
    }
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn one_address_has_its_share_of_the_places_and_no_more() {
    let mut site = Site::new(Carrier::Embedded, 1).await;
    site.set("ingress", "max_connections", 8);
    site.set("ingress", "body_timeout", "1m");
    let (process, at) = site.serve().await;
    let (head, body) = site.github.large(8 * 1024 * 1024).wire(&at.webhook);
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let mut stream = connect_from(2, &at.webhook).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let body = body.clone();
        // Bodies that keep coming make room for nobody.
        held.spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(50));
            for piece in body.chunks(16 * 1024) {
                tick.tick().await;
                stream.write_all(piece).await.unwrap();
            }
        });
    }
    let open = "rollcall_connections{listener=\"webhooks\"} 2\n";
    until("they have their places", async || metrics(&site, &at).await.contains(open)).await;
    // A quarter is two.
    let refused = exchange(connect_from(2, &at.webhook).await, "").await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("retry-after: 2\r\n"), "{refused}");
    site.github.accepted(&at.webhook, &site.github.join(Account(1))).await;
    let cut = "rollcall_connections_cut_total{listener=\"webhooks\",reason=\"peer-share\"} 1\n";
    until("it is counted", async || metrics(&site, &at).await.contains(cut)).await;
    drop(held);
    let ended = process.stop().await;
    assert!(ended.log.contains("name it in ingress.trusted_proxies"), "{}", ended.log);
}

/// As many as twice the slots send a signature of the right form and two bytes of a body.
#[tokio::test]
async fn forged_requests_whose_bodies_never_come_hold_no_slot() {
    let mut site = Site::new(Carrier::Embedded, 1).await;
    site.set("ingress", "max_in_flight", 4);
    let (process, at) = site.serve().await;
    let (head, _) = site.github.large(1000).wire(&at.webhook);
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut stream = connect(&at.webhook).await;
        stream.write_all(format!("{head}{{\"").as_bytes()).await.unwrap();
        held.push(stream);
    }
    let open = "rollcall_connections{listener=\"webhooks\"} 8\n";
    until("all of them are there", async || metrics(&site, &at).await.contains(open)).await;
    for _ in 0..3 {
        site.github.accepted(&at.webhook, &site.github.join(Account(1))).await;
    }
    for mut stream in held {
        let mut answer = [0; 12];
        soon("an answer", stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 408");
    }
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_source_with_networks_takes_from_nobody_else() {
    let mut site = Site::new(Carrier::Embedded, 1).await;
    let networks = |networks: &[&str]| toml::Value::Array(networks.iter().map(|it| (*it).into()).collect());
    site.source().insert("allow_from".to_owned(), networks(&["127.0.0.3", "192.30.252.0/22"]));
    site.set("ingress", "trusted_proxies", networks(&["127.0.0.4"]));
    let (process, at) = site.serve().await;
    let sent = async |last: u8, headers: &str| {
        let (head, body) = site.github.join(Account(1)).wire(&at.webhook);
        let head = head.replacen("host: test\r\n", &format!("host: test\r\nconnection: close\r\n{headers}"), 1);
        let answer =
            exchange(connect_from(last, &at.webhook).await, &format!("{head}{}", String::from_utf8_lossy(&body))).await;
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(sent(2, "").await, "403");
    assert_eq!(sent(2, "x-forwarded-for: 192.30.252.1\r\n").await, "403");
    assert_eq!(sent(3, "").await, "202");
    assert_eq!(sent(4, "x-forwarded-for: 192.30.252.1\r\n").await, "202");
    assert_eq!(sent(4, "x-forwarded-for: 192.30.252.1, 203.0.113.9\r\n").await, "403");
    let get = format!("GET {} HTTP/1.1\r\nhost: test\r\n\r\n", at.webhook.path());
    let stranger = exchange(connect_from(2, &at.webhook).await, &get).await;
    assert!(stranger.starts_with("HTTP/1.1 403 ") && stranger.contains("application/problem+json"), "{stranger}");
    assert!(stranger.contains("\"type\":\"/problems/forbidden\""), "{stranger}");
    let refused = "rollcall_refused_total{source=\"acme-github\",reason=\"forbidden\"} 4\n";
    until("they are counted", async || metrics(&site, &at).await.contains(refused)).await;
    assert_eq!(process.stop().await.code, Some(0));
}

/// How somebody keeps the admin listener's places.
#[derive(Clone, Copy, Debug)]
enum Holder {
    Silent,
    Headers,
    Idle,
    Busy,
}

/// The admin listener has places and time-outs of its own, and what does nothing makes room: whoever fills it up takes
/// nothing from webhooks, and fails no probe.
#[rstest]
#[case(Holder::Silent)]
#[case(Holder::Headers)]
#[case(Holder::Idle)]
#[case(Holder::Busy)]
#[tokio::test]
async fn a_full_admin_listener_keeps_no_delivery_away_and_fails_no_probe(#[case] holder: Holder) {
    let site = Site::new(Carrier::Embedded, 1).await;
    let (process, at) = site.serve().await;
    until("it is ready", async || site.ask(&at, "/ready").await.0 == 200).await;
    let asks = "GET /live HTTP/1.1\r\nhost: test\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..70 {
        let mut stream = connect(&at.admin).await;
        match holder {
            Holder::Silent => {}
            Holder::Headers => stream.write_all(b"GET /ready HTTP/1.1\r\nhost").await.unwrap(),
            Holder::Idle | Holder::Busy => stream.write_all(asks.as_bytes()).await.unwrap(),
        }
        held.push(stream);
    }
    let keep_busy = async {
        let connections = held.iter_mut().map(async |stream| {
            // What is closed stays closed: it is the places that are wanted back.
            let mut answer = [0; 1024];
            while matches!(stream.read(&mut answer).await, Ok(n) if n > 0)
                && stream.write_all(asks.as_bytes()).await.is_ok()
            {}
        });
        match holder {
            Holder::Busy => drop(futures_util::future::join_all(connections).await),
            Holder::Silent | Holder::Headers | Holder::Idle => {}
        }
        std::future::pending::<()>().await
    };
    let probes = async {
        for _ in 0..3 {
            let probe =
                exchange(connect(&at.admin).await, "GET /ready HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
            // The shortest time-out of the probes in deploy/kubernetes.
            let answer = timeout(Duration::from_secs(3), probe).await.expect("an answer in a probe's time");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
        site.github.accepted(&at.webhook, &site.github.join(Account(1))).await;
    };
    tokio::select! {
        () = keep_busy => unreachable!("it never ends"),
        () = probes => {}
    }
    drop(held);
    assert_eq!(process.stop().await.code, Some(0));
}
