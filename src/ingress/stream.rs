//! A client's stream: it says what happens on it, and its other end has to take what it is sent. A client that asks and
//! never reads the answers would hold its place for ever, as no time-out of the HTTP server's is for writing.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::activity::Activity;

/// A stream that gives up when nothing can be written for a while.
#[derive(Debug)]
pub(super) struct ClientStream<S> {
    stream: S,
    activity: Arc<Activity>,
    write_timeout: Duration,
    /// Runs while something waits to be written.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> ClientStream<S> {
    pub(super) const fn new(stream: S, activity: Arc<Activity>, write_timeout: Duration) -> Self {
        Self { stream, activity, write_timeout, waiting: None }
    }

    /// Passes a write's answer on, unless it has waited too long.
    fn written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let timeout = self.write_timeout;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(timeout)));
        if waiting.as_mut().poll(cx).is_ready() {
            waiting.as_mut().reset(Instant::now() + timeout);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes no answer")));
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.activity.received();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The HTTP server flushes when all of an answer is written, not before.
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.activity.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio_util::sync::CancellationToken;

    use super::super::activity::Phase;
    use super::*;

    fn activity() -> Arc<Activity> {
        Arc::new(Activity::new(IpAddr::from([127, 0, 0, 1]), CancellationToken::new()))
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_given_up_on_and_who_takes_slowly_is_not() {
        let (mut client, server) = duplex(4);
        let mut server = ClientStream::new(server, activity(), Duration::from_secs(10));
        let began = Instant::now();
        let writing = async { server.write_all(b"0123456789abcdef").await };
        let reading = async {
            for _ in 0..2 {
                sleep(Duration::from_secs(9)).await;
                client.read_exact(&mut [0; 4]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(writing, reading);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 28);
    }

    #[tokio::test]
    async fn what_comes_and_what_is_flushed_is_told() {
        let (mut client, server) = duplex(64);
        let activity = activity();
        let mut server = ClientStream::new(server, Arc::clone(&activity), Duration::from_secs(10));
        server.flush().await.unwrap();
        assert_eq!(activity.phase().0, Phase::New);
        client.write_all(b"GET").await.unwrap();
        server.read_exact(&mut [0; 3]).await.unwrap();
        assert_eq!(activity.phase().0, Phase::Headers);
        activity.requested();
        activity.answered();
        server.write_all(b"200").await.unwrap();
        assert_eq!(activity.phase().0, Phase::Answer);
        server.flush().await.unwrap();
        assert_eq!(activity.phase().0, Phase::Idle);
    }
}
