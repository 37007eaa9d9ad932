//! The body of a request on a connection: it tells the connection's activity how it arrives, and breaks off when it hardly
//! does and somebody waits for the connection's place.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::activity::{Activity, Phase};

/// A body that isn't complete yet.
#[derive(Debug)]
pub(super) struct RequestBody<B> {
    body: B,
    activity: Arc<Activity>,
}

/// The rest of a body can't be waited for: the connection has to make room.
#[derive(Debug, thiserror::Error)]
#[error("somebody waits for the connection's place")]
pub(super) struct PlaceNeeded;

impl<B> RequestBody<B> {
    pub(super) fn new(body: B, activity: Arc<Activity>) -> Self {
        activity.awaits_body();
        Self { body, activity }
    }

    /// Whether it has to break off. The connection's task asks again whenever it is polled, also when it is told to end.
    fn makes_room(&self) -> bool {
        let (phase, since) = self.activity.phase();
        self.activity.makes_room() && phase == Phase::Body && self.activity.body_is_slow(since, Instant::now())
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Unpin,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        // What has come is looked at first.
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.activity.body_received(frame.data_ref().map_or(0, Bytes::len));
                if self.body.is_end_stream() {
                    self.activity.body_done();
                }
            }
            Poll::Ready(None) => self.activity.body_done(),
            Poll::Ready(Some(Err(_))) => {}
            Poll::Pending if self.makes_room() => return Poll::Ready(Some(Err(PlaceNeeded.into()))),
            Poll::Pending => {}
        }
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for RequestBody<B> {
    fn drop(&mut self) {
        self.activity.body_done();
    }
}
