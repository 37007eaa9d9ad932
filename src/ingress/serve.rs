//! Serves a router on a listener until the process is to end: bounded connections, bounded headers, and an end that
//! finishes what is in work.
//!
//! `axum::serve` has no time-out for headers, so that one slow client in a thousand places would use up the machine, and
//! no bounds for connections. Who gets a place is decided in [`places`](super::places), when a connection ends in
//! [`connection`].

use std::io::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
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
    loop {
        let (stream, peer) = next(listener).await;
        let place = match listening.places.take(peer, listening.end.child_token()).await {
            Ok(place) => place,
            Err(HasItsShare) => {
                cut("peer-share");
                refusals.log(name, peer, listening.places.most_per_peer());
                refuse(stream);
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

/// Tells a peer that has its share to come again later, as far as it takes that at once: nobody waits for it.
fn refuse(stream: TcpStream) {
    let answer = Problem::Busy.as_http();
    if let Err(error) = stream.into_std().and_then(|mut stream| stream.write_all(answer.as_bytes())) {
        tracing::debug!(%error, "can't tell a peer that it has its share of the connections");
    }
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
