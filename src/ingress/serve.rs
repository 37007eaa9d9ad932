//! Serves a router on a listener until the process is to end: bounded connections, bounded headers, and an end that
//! finishes what is in work.
//!
//! `axum::serve` has no time-out for headers, so that one slow client in a thousand places would use up the machine;
//! hyper's own connection builder has it.

use std::error::Error as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::patient::{Patient, Spoke};
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

/// What bounds connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The listener's name in metrics.
    pub listener: &'static str,
    /// How long a client may take for its headers or to take some of an answer, and how long an idle connection is kept.
    pub header_timeout: Duration,
    /// How many connections may be open at once; more wait in the kernel's queue.
    pub max_connections: usize,
    /// How long requests in work may take to finish at the end.
    pub grace: Duration,
}

/// Serves until the token is cancelled, then stops accepting, closes idle connections, and waits for the others to
/// finish, at most as long as the grace. Returns whether all of them did.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, tasks: &Tasks) -> bool {
    let connections = tasks.child();
    let cut = CancellationToken::new();
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let open = metrics::gauge!(CONNECTIONS, "listener" => limits.listener);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_BUFFER);
    while let Some((slot, stream)) = connections.token().run_until_cancelled(next(&listener, &slots)).await {
        let stream = Patient::new(stream, limits.header_timeout);
        let spoke = stream.spoke();
        let serving = serve_one(stream, router.clone(), builder.clone(), connections.token().clone(), cut.clone());
        let open = open.clone();
        open.increment(1.0);
        connections.short_lived("connection", async move {
            if let Some(reason) = serving.await.and_then(|error| reason(&error, &spoke)) {
                metrics::counter!(CONNECTIONS_CUT, "listener" => limits.listener, "reason" => reason).increment(1);
            }
            open.decrement(1.0);
            drop(slot);
        });
    }
    drop(listener);
    let all_finished = connections.end(limits.grace).await;
    if !all_finished {
        tracing::warn!(grace = ?limits.grace, "requests were still in work at the end of the grace and are cut off");
        cut.cancel();
        connections.end(CUT).await;
    }
    all_finished
}

async fn next(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (Option<tokio::sync::OwnedSemaphorePermit>, TcpStream) {
    // It can only fail on a closed semaphore, and nobody closes this one.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _peer)) => {
                // Answers are small and are waited for.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "can't set TCP_NODELAY");
                }
                return (slot, stream);
            }
            Err(error) => {
                tracing::warn!(%error, "can't accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves a connection to its end. Returns why it ended, if not in good order.
async fn serve_one(
    stream: Patient<TcpStream>,
    router: Router,
    builder: http1::Builder,
    end: CancellationToken,
    cut: CancellationToken,
) -> Option<hyper::Error> {
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = end.cancelled() => {
            connection.as_mut().graceful_shutdown();
            cut.run_until_cancelled(connection.as_mut()).await?
        }
    };
    let error = served.err()?;
    // Clients break off for reasons of their own.
    tracing::debug!(%error, "connection ended with an error");
    Some(error)
}

/// The word for a connection that we ended, unless it was only idle, or the client ended it.
fn reason(error: &hyper::Error, spoke: &Spoke) -> Option<&'static str> {
    let stalled = |error: &std::io::Error| error.kind() == std::io::ErrorKind::TimedOut;
    if error.is_parse_too_large() {
        Some("headers-too-large")
    } else if error.is_parse() {
        Some("malformed")
    } else if error.is_timeout() {
        spoke.last().then_some("slow-headers")
    } else {
        let source = error.source().and_then(|source| source.downcast_ref());
        source.is_some_and(stalled).then_some("stalled")
    }
}
