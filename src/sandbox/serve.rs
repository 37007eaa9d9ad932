//! Serving the sandbox on a listener. By hand, because only so can a connection be closed without an answer.

use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::Sandbox;
use super::gate::HangUp;
use crate::shutdown::Tasks;

/// How long requests in progress may take once the sandbox is to end.
const DRAIN: Duration = Duration::from_secs(1);

/// A connection that is closed on demand instead of answered.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("hung up on demand")]
struct HungUp;

impl Sandbox {
    /// Serves until the token is cancelled; requests in progress have a second to end.
    pub async fn serve(self, listener: TcpListener, token: CancellationToken) {
        let connections = Tasks::new();
        loop {
            let accepted = tokio::select! {
                () = token.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    drop(connections.short_lived("connection", connection(self.clone(), stream, token.clone())))
                }
                Err(error) => {
                    tracing::warn!(%error, "the sandbox can't accept a connection");
                    // Out of file descriptors, most likely: trying again at once would only spin.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(listener);
        connections.end(2 * DRAIN).await;
        self.shared.late.end(DRAIN).await;
    }
}

async fn connection(sandbox: Sandbox, stream: TcpStream, token: CancellationToken) {
    // Without this, small answers wait for the client's delayed ACK.
    let _ = stream.set_nodelay(true);
    let router = sandbox.router();
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move {
            let Ok(response) = router.oneshot(request).await;
            if response.extensions().get::<HangUp>().is_some() { Err(HungUp) } else { Ok(response) }
        }
    });
    let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = token.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(DRAIN, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the sandbox ended early");
    }
}
