//! Floods of every kind against the built binary: memory stays bounded, what is too much is shed, and what is small and
//! honest gets through meanwhile.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use rstest::rstest;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use url::Url;

use crate::harness::github::{Account, Posted};
use crate::harness::process::Addresses;
use crate::harness::site::{Carrier, Site};
use crate::harness::{soon, until};

const MIB: usize = 1024 * 1024;
/// What a process takes that has nothing to do, with the buffers of the connections that these tests open, and what the
/// allocator keeps of copies.
const BASE: usize = 96 * MIB;

/// What the flood is made of.
#[derive(Clone, Copy, Debug)]
enum Flood {
    /// Large bodies under a signature that isn't theirs.
    Forged,
    /// Large bodies that are what they say.
    Genuine,
}

#[rstest]
#[case::forged_embedded(Flood::Forged, Carrier::Embedded)]
#[case::genuine_embedded(Flood::Genuine, Carrier::Embedded)]
#[case::genuine_rabbitmq(Flood::Genuine, Carrier::RabbitMq)]
#[tokio::test]
async fn a_flood_of_large_bodies_is_shed_before_memory_grows_and_small_ones_get_through(
    #[case] flood: Flood,
    #[case] carrier: Carrier,
) {
    const BUDGET: usize = 96 * MIB;
    let mut site = Site::new(carrier, 1).await;
    site.set("ingress", "body_budget", "96MiB");
    site.set("ingress", "small_reserve", "16MiB");
    let mut process = match carrier {
        Carrier::Embedded => site.start(),
        Carrier::RabbitMq => site.start_ingress(),
    };
    let at = process.ready().await;
    until("it is ready", async || site.ask(&at, "/ready").await.0 == 200).await;

    let large: Posted = match flood {
        Flood::Forged => site.github.large(25 * MIB - 1024).forged(),
        Flood::Genuine => site.github.large(15 * MIB),
    };
    let over = AtomicBool::new(false);
    let flooding = async {
        let mut answers = BTreeMap::new();
        let mut flood = stream::iter(0..192)
            .map(async |_| {
                // A connection of its own for each, so that none waits for another.
                send(&at.webhook, &large).await
            })
            .buffer_unordered(64);
        while let Some(answer) = flood.next().await {
            *answers.entry(answer).or_insert(0) += 1;
        }
        over.store(true, Ordering::Relaxed);
        answers
    };
    let meanwhile = async {
        let mut taken = 0;
        while !over.load(Ordering::Relaxed) {
            site.github.accepted(&at.webhook, &site.github.join(Account(1))).await;
            taken += 1;
        }
        taken
    };
    let (answers, taken) = tokio::join!(flooding, meanwhile);
    let peak = process.peak_memory();
    assert!(peak < BASE + BUDGET, "{} MiB were resident; {answers:?}, {taken} small ones", peak / MIB);
    assert!(taken > 0, "no small delivery was even tried meanwhile");
    let of = |status: &str| answers.get(status).copied().unwrap_or(0);
    let through = match flood {
        Flood::Forged => of("401"),
        Flood::Genuine => of("202"),
    };
    assert!(through > 0 && of("503 2") > 0, "some are let through, and some are shed: {answers:?}");
    // A slow machine may find some bodies too slow. Whoever is to come again is told when.
    assert_eq!(through + of("503 2") + of("408"), 192, "everybody is answered: {answers:?}");
    let metrics = metrics(&site, &at).await;
    assert!(metrics.contains("rollcall_refused_total{source=\"acme-github\",reason=\"busy\"} "), "{metrics}");
    until("the budget is given back", async || self::metrics(&site, &at).await.contains("rollcall_body_bytes 0\n"))
        .await;
    assert_eq!(process.stop().await.code, Some(0));
}

/// Posts a delivery over a connection of its own, as a sender does that takes the answer even if it couldn't say
/// everything: `202`, or `503 2` with its Retry-After.
async fn send(to: &Url, delivery: &Posted) -> String {
    let mut stream = connect(to).await;
    let (head, body) = delivery.wire(to);
    let (mut reader, mut writer) = stream.split();
    let writing = async {
        // An answer may come, and the connection go, before all is said.
        let _said = writer.write_all(head.as_bytes()).await.and(writer.write_all(&body).await);
    };
    let reading = async {
        let mut answer = Vec::new();
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            let mut some = [0; 1024];
            match reader.read(&mut some).await {
                Ok(n) if n > 0 => answer.extend_from_slice(&some[..n]),
                ended => return format!("{ended:?} after {:?}", String::from_utf8_lossy(&answer)),
            }
        }
        let head = String::from_utf8(answer).unwrap();
        let status = head.split(' ').nth(1).unwrap().to_owned();
        let again = head.lines().find_map(|line| line.strip_prefix("retry-after: "));
        again.map_or(status.clone(), |again| format!("{status} {again}"))
    };
    soon("an answer", async { tokio::join!(writing, reading).1 }).await
}

pub(super) async fn connect(to: &Url) -> TcpStream {
    soon("a connection", TcpStream::connect((to.host_str().unwrap(), to.port().unwrap()))).await.unwrap()
}

pub(super) async fn metrics(site: &Site, at: &Addresses) -> String {
    match site.ask(at, "/metrics").await.1 {
        Value::String(text) => text,
        other => panic!("{other}"),
    }
}

/// How a client keeps a connection busy without sending a request.
#[derive(Clone, Copy, Debug)]
enum Loris {
    /// One byte of a header now and then.
    Headers,
    /// One byte of a body now and then.
    Body,
    /// Requests, and nobody who reads the answers.
    Deaf,
    /// Not a word.
    Mute,
}

#[rstest]
#[case::headers(Loris::Headers, Some("slow-headers"))]
#[case::body(Loris::Body, None)]
#[case::deaf(Loris::Deaf, Some("stalled"))]
#[case::mute(Loris::Mute, None)]
#[tokio::test]
async fn connections_that_are_held_open_are_ended_and_honest_ones_get_their_turn(
    #[case] loris: Loris,
    #[case] reason: Option<&str>,
) {
    // It takes thousands of answers until nothing more fits on the way to somebody who is deaf, and they must be good ones:
    // after a refusal the connection is closed.
    let places: usize = if matches!(loris, Loris::Deaf) { 2 } else { 8 };
    let mut site = Site::new(Carrier::Embedded, 1).await;
    // Who waits for a place would get that of a connection which is then not ended for what is looked for here.
    let spare = usize::from(reason.is_some());
    site.set("ingress", "max_connections", i64::try_from(places + spare).unwrap());
    site.set("ingress", "header_timeout", "1s");
    site.set("ingress", "body_timeout", "1s");
    site.set("ingress", "max_connection_requests", 1_000_000);
    let (process, at) = site.serve().await;
    let (head, body) = match loris {
        Loris::Deaf => site.github.ping().wire(&at.webhook),
        _ => site.github.large(100_000).wire(&at.webhook),
    };
    let request = format!("{head}{}", String::from_utf8_lossy(&body));
    let mut held = Vec::new();
    for _ in 0..places {
        let stream = connect(&at.webhook).await;
        let (head, request) = (head.clone(), request.clone());
        held.push(async move { hold(stream, loris, &head, &request).await });
    }
    let holding = futures_util::future::join_all(held);
    let honest = async {
        let open = format!("rollcall_connections{{listener=\"webhooks\"}} {places}\n");
        until("all places are taken", async || metrics(&site, &at).await.contains(&open)).await;
        // Without a spare place it waits until one is free, and is then served.
        site.github.accepted(&at.webhook, &site.github.join(Account(1))).await;
    };
    soon("the end of every connection", async { tokio::join!(holding, honest) }).await;
    if let Some(reason) = reason {
        let cut = format!("rollcall_connections_cut_total{{listener=\"webhooks\",reason=\"{reason}\"}} {places}\n");
        until("they are counted", async || metrics(&site, &at).await.contains(&cut)).await;
    }
    assert_eq!(process.stop().await.code, Some(0));
}

/// Holds a connection until the other end has enough of it.
async fn hold(mut stream: TcpStream, loris: Loris, head: &str, request: &str) {
    let mut drop_by_drop = match loris {
        Loris::Headers => {
            stream.write_all(b"POST /webhooks/acme-github HTTP/1.1\r\nhost: test\r\nx-slow: ").await.unwrap();
            true
        }
        Loris::Body => {
            stream.write_all(head.as_bytes()).await.unwrap();
            true
        }
        Loris::Deaf | Loris::Mute => false,
    };
    if let Loris::Deaf = loris {
        // Until nothing more is taken: the answers have nowhere to go. It isn't read from, so its end shows when written to.
        let asks = request.repeat(100);
        while stream.write_all(asks.as_bytes()).await.is_ok() {}
        return;
    }
    let mut bytes = [0; 1024];
    loop {
        let tick = tokio::time::sleep(Duration::from_millis(100));
        tokio::select! {
            read = stream.read(&mut bytes) => if !matches!(read, Ok(n) if n > 0) { return },
            () = tick, if drop_by_drop => drop_by_drop = stream.write_all(b"x").await.is_ok(),
        }
    }
}

#[tokio::test]
async fn more_connections_than_there_are_places_wait_and_are_all_served() {
    let mut site = Site::new(Carrier::Embedded, 1).await;
    site.set("ingress", "max_connections", 16);
    let (process, at) = site.serve().await;
    let deliveries: Vec<Posted> = (0..200).map(|_| site.github.join(Account(1))).collect();
    let answers: Vec<String> = stream::iter(&deliveries)
        .map(async |delivery| send(&at.webhook, delivery).await)
        .buffer_unordered(200)
        .collect()
        .await;
    assert!(answers.iter().all(|answer| answer == "202"), "{answers:?}");
    assert_eq!(process.stop().await.code, Some(0));
}

#[rstest]
#[case::too_many(format!("{}\r\n", "x-one-more: 1\r\n".repeat(120)))]
#[case::too_large(format!("x-large: {}\r\n\r\n", "x".repeat(40 * 1024)))]
#[tokio::test]
async fn headers_beyond_their_bounds_are_told_so_and_counted(#[case] headers: String) {
    let site = Site::new(Carrier::Embedded, 1).await;
    let (process, at) = site.serve().await;
    let mut stream = connect(&at.webhook).await;
    let request = format!("POST /webhooks/acme-github HTTP/1.1\r\nhost: test\r\n{headers}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 64];
    let n = soon("an answer", stream.read(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..n]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let cut = "rollcall_connections_cut_total{listener=\"webhooks\",reason=\"headers-too-large\"} 1\n";
    until("it is counted", async || metrics(&site, &at).await.contains(cut)).await;
    assert_eq!(process.stop().await.code, Some(0));
}
