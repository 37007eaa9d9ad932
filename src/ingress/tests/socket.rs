//! The edge over a real connection: what only shows on the wire.

use std::net::SocketAddr;

use futures_util::{StreamExt as _, stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::*;

struct Server {
    address: SocketAddr,
    broker: Arc<FakeBroker>,
    tasks: Tasks,
    serving: JoinHandle<bool>,
}

impl Server {
    async fn start(settings: Settings) -> Self {
        Self::of(ingress_with(settings)).await
    }

    async fn of((ingress, broker): (Ingress, Arc<FakeBroker>)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new();
        let serving = {
            let inner = tasks.clone();
            tasks.spawn(async move { ingress.serve(listener, &inner).await })
        };
        Self { address, broker, tasks, serving }
    }

    async fn connect(&self) -> TcpStream {
        soon(TcpStream::connect(self.address)).await.unwrap()
    }

    /// Sends bytes on a new connection and reads until it is closed.
    async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        rest(&mut stream).await
    }

    /// Tells the process to end, without waiting.
    fn end(&self) {
        self.tasks.token().cancel();
    }
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset ends the connection as well as a close does.
    let _closed_or_reset = soon(stream.read_to_end(&mut bytes)).await;
    String::from_utf8(bytes).unwrap()
}

/// Reads until the answer's head and body are there.
async fn answer(stream: &mut TcpStream) -> String {
    let mut read = String::new();
    while !read.contains("}") {
        let mut bytes = [0; 1024];
        let n = soon(stream.read(&mut bytes)).await.unwrap();
        assert_ne!(n, 0, "closed after {read:?}");
        read.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
    }
    read
}

fn head(body: &[u8], more: &str) -> String {
    format!(
        "POST /webhooks/acme HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nx-test-signature: {}\r\n\
         x-test-event: push\r\nx-test-delivery: d-1\r\n{more}\r\n",
        signature(body)
    )
}

fn good() -> String {
    head(b"{}", "content-length: 2\r\n") + "{}"
}

fn last(request: &str) -> String {
    request.replacen("host: x", "host: x\r\nconnection: close", 1)
}

#[tokio::test]
async fn two_requests_go_over_one_connection() {
    let server = Server::start(settings()).await;
    let both = server.exchange((good() + &last(&good())).as_bytes()).await;
    assert_eq!(both.matches("HTTP/1.1 202 Accepted").count(), 2, "{both}");
    assert_eq!(server.broker.published().len(), 2);
}

#[tokio::test]
async fn a_chunked_body_is_taken_and_one_that_grows_too_long_is_413() {
    let server = Server::start(Settings { max_body: 10, ..settings() }).await;
    let fits = head(b"[1,2]", "transfer-encoding: chunked\r\n") + "2\r\n[1\r\n3\r\n,2]\r\n0\r\n\r\n";
    assert!(server.exchange(last(&fits).as_bytes()).await.starts_with("HTTP/1.1 202"));
    let grows = head(b"", "transfer-encoding: chunked\r\n") + "6\r\n[1,2,3\r\n6\r\n,4,5,6\r\n";
    let refused = server.exchange(grows.as_bytes()).await;
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
    assert_eq!(server.broker.published().len(), 1);
}

#[tokio::test]
async fn headers_that_come_too_slowly_end_the_connection() {
    let server = Server::start(Settings { header_timeout: Duration::from_millis(300), ..settings() }).await;
    let nothing = server.exchange(b"POST /webhooks/acme HTTP/1.1\r\nhost: x\r\n").await;
    assert_eq!(nothing, "", "there is no request to answer");
}

#[tokio::test]
async fn an_idle_connection_is_kept_as_long_as_it_says_and_not_by_the_time_out_for_headers() {
    let brief = Duration::from_millis(200);
    let server = Server::start(Settings { header_timeout: brief, keep_alive: brief * 4, ..settings() }).await;
    let mut idle = server.connect().await;
    idle.write_all(good().as_bytes()).await.unwrap();
    answer(&mut idle).await;
    let answered = Instant::now();
    assert_eq!(rest(&mut idle).await, "");
    assert!(answered.elapsed() >= brief * 3, "{:?}", answered.elapsed());

    // The same for one that has begun another request: that has as long as any headers.
    let server = Server::start(Settings { header_timeout: brief, ..settings() }).await;
    let mut slow = server.connect().await;
    slow.write_all(good().as_bytes()).await.unwrap();
    answer(&mut slow).await;
    slow.write_all(b"POST /webhooks/acme HTTP/1.1\r\n").await.unwrap();
    let began = Instant::now();
    assert_eq!(rest(&mut slow).await, "");
    assert!(began.elapsed() < SOON / 2, "{:?}", began.elapsed());
}

/// Whether the answer says that the connection is closed after it, and it is.
async fn is_last_answer(stream: &mut TcpStream) -> bool {
    let last = answer(stream).await.contains("connection: close\r\n");
    if last {
        assert_eq!(rest(stream).await, "");
    }
    last
}

#[tokio::test]
async fn a_connection_ends_with_the_answer_that_refuses() {
    let server = Server::start(settings()).await;
    for refused in ["/webhooks/other", "/webhooks/acme"] {
        let mut stream = server.connect().await;
        stream.write_all(good().as_bytes()).await.unwrap();
        assert!(!is_last_answer(&mut stream).await);
        let forged = good().replace("/webhooks/acme", refused).replace("{}", "[]");
        stream.write_all(forged.as_bytes()).await.unwrap();
        assert!(is_last_answer(&mut stream).await, "{refused}");
    }
    server.broker.is(Mood::Fails);
    let mut stream = server.connect().await;
    stream.write_all(good().as_bytes()).await.unwrap();
    assert!(is_last_answer(&mut stream).await, "503");
}

#[tokio::test]
async fn a_connection_ends_with_its_last_answer_by_number_and_by_age() {
    let server = Server::start(Settings { max_connection_requests: 3, ..settings() }).await;
    let mut stream = server.connect().await;
    for last in [false, false, true] {
        stream.write_all(good().as_bytes()).await.unwrap();
        assert_eq!(is_last_answer(&mut stream).await, last);
    }
    let server = Server::start(Settings { max_connection_age: Duration::from_micros(1), ..settings() }).await;
    let mut stream = server.connect().await;
    stream.write_all(good().as_bytes()).await.unwrap();
    assert!(is_last_answer(&mut stream).await, "what is too old is answered all the same");
    assert_eq!(server.broker.published().len(), 1);
}

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
    let mut silent = server.connect().await;
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
    let server = Server::of(ingress_for(allow_from, settings)).await;
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

#[tokio::test]
async fn one_client_of_a_proxy_has_its_share_of_the_requests() {
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
    server.broker.release.add_permits(4);
    for mut stream in held {
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 202"));
    }
    server.broker.is(Mood::Takes);
    assert!(answer(&mut sent("203.0.113.1").await).await.starts_with("HTTP/1.1 202"), "it has given back");
}

#[tokio::test]
async fn headers_that_are_too_large_are_refused() {
    let server = Server::start(settings()).await;
    let large = head(b"{}", &format!("content-length: 2\r\nx-large: {}\r\n", "x".repeat(64 * 1024)));
    let refused = server.exchange(large.as_bytes()).await;
    // The rest of the headers is never read, so that a reset may overtake the 431.
    assert!(!refused.contains("HTTP/1.1 202") && server.broker.published().is_empty(), "{refused}");
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_told_so() {
    let server = Server::start(Settings { body_timeout: Duration::from_millis(50), ..settings() }).await;
    let refused = server.exchange((head(b"{}", "content-length: 2\r\n") + "{").as_bytes()).await;
    assert!(refused.starts_with("HTTP/1.1 408") && refused.contains("/problems/too-slow"), "{refused}");
}

#[tokio::test]
async fn a_refusal_before_the_body_was_read_reaches_the_client() {
    let server = Server::start(settings()).await;
    let body = "x".repeat(200 * 1024);
    let unsigned = format!(
        "POST /webhooks/acme HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let refused = server.exchange(unsigned.as_bytes()).await;
    assert!(refused.starts_with("HTTP/1.1 401") && refused.contains("/problems/unverified"), "{refused}");
}

#[tokio::test]
async fn a_client_that_asks_first_is_refused_without_sending() {
    let server = Server::start(settings()).await;
    let asks = head(b"", "content-length: 2000000\r\nexpect: 100-continue\r\n");
    let refused = server.exchange(asks.as_bytes()).await;
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_their_turn() {
    let server = Server::start(Settings { max_connections: 1, ..settings() }).await;
    server.broker.is(Mood::Waits);
    let mut first = server.connect().await;
    first.write_all(good().as_bytes()).await.unwrap();
    server.broker.one_has_begun().await;
    let mut second = server.connect().await;
    second.write_all(last(&good()).as_bytes()).await.unwrap();
    server.broker.release.add_permits(2);
    assert!(rest(&mut first).await.starts_with("HTTP/1.1 202"), "and is closed for the one that waits");
    assert!(rest(&mut second).await.starts_with("HTTP/1.1 202"));
}

#[tokio::test]
async fn the_end_finishes_requests_in_work_and_closes_the_tail() {
    let server = Server::start(settings()).await;
    server.broker.is(Mood::Waits);
    let mut working = server.connect().await;
    working.write_all(good().as_bytes()).await.unwrap();
    server.broker.one_has_begun().await;
    let mut idle = server.connect().await;
    server.end();
    assert_eq!(rest(&mut idle).await, "", "an idle connection is closed");
    server.broker.release.add_permits(1);
    let finished = rest(&mut working).await;
    assert!(finished.starts_with("HTTP/1.1 202"), "{finished}");
    assert!(soon(server.serving).await.unwrap(), "all requests finished");
    assert_eq!(server.broker.take_checkpoints(), [(1, vec![])]);
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn the_end_cuts_off_what_does_not_finish_in_time() {
    let server = Server::start(Settings { shutdown_grace: Duration::from_millis(50), ..settings() }).await;
    server.broker.is(Mood::Waits);
    let mut stuck = server.connect().await;
    stuck.write_all(good().as_bytes()).await.unwrap();
    server.broker.one_has_begun().await;
    server.end();
    assert_eq!(rest(&mut stuck).await, "", "no answer, so the provider counts it as failed");
    assert!(!soon(server.serving).await.unwrap());
    assert_eq!(server.broker.take_checkpoints(), [(1, vec![1])], "and its number is void");
}
