//! The edge over a real connection: what only shows on the wire.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;

pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) broker: Arc<FakeBroker>,
    tasks: Tasks,
    serving: JoinHandle<bool>,
}

impl Server {
    pub(super) async fn start(settings: Settings) -> Self {
        Self::of(ingress_with(settings)).await
    }

    pub(super) async fn of((ingress, broker): (Ingress, Arc<FakeBroker>)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new();
        let serving = {
            let inner = tasks.clone();
            tasks.short_lived("test", async move { ingress.serve(listener, &inner).await })
        };
        Self { address, broker, tasks, serving }
    }

    pub(super) async fn connect(&self) -> TcpStream {
        soon(TcpStream::connect(self.address)).await.unwrap()
    }

    /// Sends bytes on a new connection and reads until it is closed.
    pub(super) async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        rest(&mut stream).await
    }

    /// Tells the process to end, without waiting.
    fn end(&self) {
        self.tasks.token().cancel();
    }
}

pub(super) async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset ends the connection as well as a close does.
    let _closed_or_reset = soon(stream.read_to_end(&mut bytes)).await;
    String::from_utf8(bytes).unwrap()
}

/// Reads until the answer's head and body are there.
pub(super) async fn answer(stream: &mut TcpStream) -> String {
    let mut read = String::new();
    while !read.contains("}") {
        let mut bytes = [0; 1024];
        let n = soon(stream.read(&mut bytes)).await.unwrap();
        assert_ne!(n, 0, "closed after {read:?}");
        read.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
    }
    read
}

pub(super) fn head(body: &[u8], more: &str) -> String {
    format!(
        "POST /webhooks/acme HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nx-test-signature: {}\r\n\
         x-test-event: push\r\nx-test-delivery: d-1\r\n{more}\r\n",
        signature(body)
    )
}

pub(super) fn good() -> String {
    head(b"{}", "content-length: 2\r\n") + "{}"
}

pub(super) fn last(request: &str) -> String {
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

/// Each is good but for one header.
#[tokio::test]
async fn what_a_server_must_not_overlook_is_told_and_ends_the_connection_where_nobody_knows_where_the_request_ends() {
    let server = Server::start(settings()).await;
    let chunked = |coding: &str| head(b"{}", &format!("transfer-encoding: {coding}\r\n")) + "2\r\n{}\r\n0\r\n\r\n";
    for (what, request, status, slug) in [
        ("no host", last(&good()).replacen("host: x\r\n", "", 1), "400", "malformed"),
        ("two hosts", last(&good()).replacen("host: x", "host: x\r\nhost: x", 1), "400", "malformed"),
        ("gzip inside", chunked("gzip, chunked"), "501", "transfer-encoding"),
        ("chunked twice", chunked("chunked, chunked"), "501", "transfer-encoding"),
        ("on two lines", chunked("gzip\r\ntransfer-encoding: chunked"), "501", "transfer-encoding"),
    ] {
        let answer = server.exchange(request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
        assert!(answer.contains("content-type: application/problem+json\r\n"), "{what}: {answer}");
        assert!(answer.contains(&format!("/problems/{slug}")), "{what}: {answer}");
        assert!(answer.contains("connection: close\r\n"), "{what}: {answer}");
    }
    // Nobody can tell where such a body ends, and hyper says so itself.
    for coding in ["gzip", "chunked, gzip", "identity"] {
        let answer = server.exchange(chunked(coding).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("content-length: 0\r\n"), "{coding}: {answer}");
    }
    // Of both the length is wrong by definition, and nothing may follow the request.
    let both = chunked("chunked").replacen("host: x", "host: x\r\ncontent-length: 3", 1);
    let answer = server.exchange((both.clone() + &both).as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
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
pub(super) async fn is_last_answer(stream: &mut TcpStream) -> bool {
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
