//! Serves a router on a listener until the process is to end: bounded connections, bounded headers, and an end that
//! finishes what is in work.
//!
//! `axum::serve` has no time-out for headers, so that one slow client in a thousand places would use up the machine, and
//! no bounds for connections. Who gets a place is decided in [`places`](super::places), when a connection ends in
//! [`connection`].

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Counted;
use super::connection::{self, Listening};
use super::network::Networks;
use super::places::{HasItsShare, Places};
use super::problem::Problem;
use crate::shutdown::Tasks;
use crate::telemetry::metrics::{CONNECTIONS, CONNECTIONS_CUT};

/// The most that one request's headers may take, in bytes.
pub const MAX_HEADER_BYTES: usize = 32 * 1024;

/// The most headers that one request may have.
pub const MAX_HEADERS: usize = 100;

/// How much of a connection is buffered at most, in bytes: two reads of it take a common body.
pub const MAX_BUFFER: usize = 64 * 1024;

/// How long to wait when the system has no socket to give (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long connections that were cut off have to notice.
const CUT: Duration = Duration::from_secs(1);

/// How long a refused peer is read from, so that it gets its answer: it is about to send its request, and a socket that
/// has unread bytes, or gets some, when it is closed resets the connection.
const REFUSED_LINGER: Duration = Duration::from_millis(200);

/// How many bytes of it are read at most.
const REFUSED_BYTES: u64 = 256 * 1024;

/// How many refused peers are read from at once. Others are closed when they have their answer.
const REFUSED_AT_ONCE: usize = 64;

/// How long peers that have their share are only counted after one was logged.
const QUIET: Duration = Duration::from_secs(10);

/// What bounds connections.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The listener's name in metrics.
    pub listener: &'static str,
    /// How long a client may take for its headers, or to take some of an answer.
    pub header_timeout: Duration,
    /// How long a connection is kept after an answer for another request.
    pub keep_alive: Duration,
    /// How many connections may be open at once; more wait in the kernel's queue.
    pub max_connections: usize,
    /// How many of them may come from one peer.
    pub max_per_peer: usize,
    /// Peers to which that doesn't apply: proxies, which have many clients.
    pub unshared: Networks,
    /// How old a connection may be when it is used for another request.
    pub max_age: Duration,
    /// How many requests one connection may have.
    pub max_requests: u64,
    /// How long requests in work may take to finish at the end.
    pub grace: Duration,
}

/// Serves until the token is cancelled, then stops accepting, closes idle connections, and waits for the others to
/// finish, at most as long as the grace. Returns whether all of them did.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, tasks: &Tasks) -> bool {
    let connections = tasks.child();
    let cut = CancellationToken::new();
    let mut builder = http1::Builder::new();
    // What waits for a client is timed in `activity`: hyper has one time-out for headers and idle connections.
    builder
        .header_read_timeout(None)
        .max_header_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_BUFFER);
    let listening = Arc::new(Listening {
        places: Places::new(limits.max_connections, limits.max_per_peer, limits.unshared.clone()),
        router,
        builder,
        end: connections.token().clone(),
        cut: cut.clone(),
        limits,
    });
    connections.token().run_until_cancelled(accept_all(&listener, &listening, &connections)).await;
    drop(listener);
    let grace = listening.limits.grace;
    let all_finished = connections.end(grace).await;
    if !all_finished {
        tracing::warn!(?grace, "requests were still in work at the end of the grace and are cut off");
        cut.cancel();
        connections.end(CUT).await;
    }
    all_finished
}

/// Gives each connection a place and a task.
async fn accept_all(listener: &TcpListener, listening: &Arc<Listening>, connections: &Tasks) {
    let name = listening.limits.listener;
    let open = metrics::gauge!(CONNECTIONS, "listener" => name);
    let cut = move |reason| metrics::counter!(CONNECTIONS_CUT, "listener" => name, "reason" => reason).increment(1);
    let mut refusals = Refusals { quiet_until: Instant::now(), unlogged: 0 };
    let lingering = Arc::new(Semaphore::new(REFUSED_AT_ONCE));
    loop {
        let (stream, peer) = next(listener).await;
        let place = match listening.places.take(peer, listening.end.child_token()).await {
            Ok(place) => place,
            Err(HasItsShare) => {
                cut("peer-share");
                refusals.log(name, peer, listening.places.most_per_peer());
                match (refuse(stream), Arc::clone(&lingering).try_acquire_owned()) {
                    (Ok(stream), Ok(permit)) => {
                        connections.short_lived("refused connection", async move {
                            let _permit = permit;
                            read_away(stream).await;
                        });
                    }
                    (Ok(_), Err(_)) => {}
                    (Err(error), _) => tracing::debug!(%error, "can't answer a peer that has its share"),
                }
                continue;
            }
        };
        let (listening, counted) = (Arc::clone(listening), Counted::begin(open.clone()));
        connections.short_lived("connection", async move {
            let _counted = counted;
            if let Some(reason) = connection::serve(stream, &place, &listening).await {
                cut(reason);
            }
        });
    }
}

async fn next(listener: &TcpListener) -> (TcpStream, IpAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are small and are waited for.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "can't set TCP_NODELAY");
                }
                return (stream, peer.ip().to_canonical());
            }
            Err(error) => {
                tracing::warn!(%error, "can't accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Tells a peer that has its share to come again later, as far as it takes that at once, and reads what is there of its
/// request: nobody waits for it.
fn refuse(stream: TcpStream) -> io::Result<TcpStream> {
    let mut stream = stream.into_std()?;
    stream.write_all(Problem::Busy.as_http().as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    match io::copy(&mut (&stream).take(REFUSED_BYTES), &mut io::sink()) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => TcpStream::from_std(stream),
    }
}

/// Reads what a refused peer still sends, for a moment.
async fn read_away(stream: TcpStream) {
    let mut rest = stream.take(REFUSED_BYTES);
    // It is over when the peer closes it, as it does once it has its answer.
    let _over = timeout(REFUSED_LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
}

/// Logs peers that have their share, once in a while.
struct Refusals {
    quiet_until: Instant,
    unlogged: u64,
}

impl Refusals {
    fn log(&mut self, listener: &'static str, peer: IpAddr, share: usize) {
        let now = Instant::now();
        if now < self.quiet_until {
            self.unlogged += 1;
            return;
        }
        self.quiet_until = now + QUIET;
        let unlogged = std::mem::take(&mut self.unlogged);
        tracing::warn!(
            listener, %peer, share, unlogged,
            "a peer has its share of the connections, and more are refused; if it is a proxy, name it in \
             ingress.trusted_proxies"
        );
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// A request that is there already, and one that is still on its way when the answer is sent.
    #[tokio::test]
    async fn a_refused_peer_that_sends_its_request_gets_its_answer_and_no_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let request = [b'x'; 4096];
        for late in [false, true] {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            if !late {
                client.write_all(&request).await.unwrap();
                stream.readable().await.unwrap();
            }
            let stream = refuse(stream).unwrap();
            if late {
                client.write_all(&request).await.unwrap();
            }
            let asks = async move {
                if !late {
                    // It is closed before the client looks.
                    tokio::task::yield_now().await;
                }
                let mut answer = String::new();
                client.read_to_string(&mut answer).await.map(|_| answer)
            };
            let reads_away = async {
                if late {
                    read_away(stream).await;
                } else {
                    drop(stream);
                }
            };
            let answer = tokio::join!(asks, reads_away).0.expect("an answer and an end, and no reset");
            assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with('}'), "{answer}");
        }
    }
}
