//! A TCP proxy with weather: it can cut everything that goes through it and refuse what comes, delay it, or hold it
//! still; then it lets it through again.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rollcall::shutdown::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How much one direction of a connection holds back at the most, in bytes, besides what the kernel does.
const CHUNK: usize = 16 << 10;

/// The proxy. Dropping it cuts everything.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    wire: Arc<Wire>,
    tasks: Tasks,
}

/// What all connections of a proxy share.
struct Wire {
    /// One after the other, beginning anew with each connection.
    upstreams: Vec<SocketAddr>,
    next: AtomicUsize,
    /// Cancelled while the wire is cut; a new token each time that it is mended.
    whole: Mutex<CancellationToken>,
    weather: watch::Sender<Weather>,
    /// What makes the wire mute once it has passed.
    last_words: Mutex<Option<Vec<u8>>>,
}

/// How what goes through is treated.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    /// How long each piece takes longer.
    delay: Duration,
    /// Nothing arrives, and nobody is told: connections stay open, new ones too.
    still: bool,
    /// Answers don't arrive.
    mute: bool,
}

impl Proxy {
    /// A proxy to there, through which everything goes.
    pub(crate) async fn to(upstream: SocketAddr) -> Self {
        Self::to_any(vec![upstream]).await
    }

    /// A proxy to these in turn: each connection goes to the next one that takes it.
    pub(crate) async fn to_any(upstreams: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wire = Wire {
            upstreams,
            next: AtomicUsize::new(0),
            whole: Mutex::new(CancellationToken::new()),
            weather: watch::Sender::default(),
            last_words: Mutex::default(),
        };
        let proxy = Self { address: listener.local_addr().unwrap(), wire: Arc::new(wire), tasks: Tasks::new() };
        let (wire, tasks) = (Arc::clone(&proxy.wire), proxy.tasks.clone());
        proxy.tasks.short_lived(
            "test",
            proxy.tasks.token().clone().run_until_cancelled_owned(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let whole = wire.whole.lock().unwrap().clone();
                    let wire = Arc::clone(&wire);
                    // A connection that comes while the wire is cut is closed at once.
                    tasks.short_lived("test", async move { whole.run_until_cancelled(wire.carry(stream)).await });
                }
            }),
        );
        proxy
    }

    /// Cuts every connection in the middle of whatever it carries, and refuses new ones.
    pub(crate) fn cut(&self) {
        self.wire.whole.lock().unwrap().cancel();
    }

    /// Lets everything through that much later.
    pub(crate) fn delay(&self, delay: Duration) {
        self.wire.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Holds everything still, as a network does that has lost its way: nothing arrives, nothing is refused.
    pub(crate) fn hold(&self) {
        self.wire.weather.send_modify(|weather| weather.still = true);
    }

    /// Holds every answer back from when a request has gone through that contains these bytes.
    pub(crate) fn mute_after(&self, request: &[u8]) {
        *self.wire.last_words.lock().unwrap() = Some(request.to_vec());
    }

    /// Whether answers are held back.
    pub(crate) fn is_mute(&self) -> bool {
        self.wire.weather.borrow().mute
    }

    /// Lets everything through again, and what was held still first.
    pub(crate) fn mend(&self) {
        self.wire.weather.send_replace(Weather::default());
        let mut whole = self.wire.whole.lock().unwrap();
        if whole.is_cancelled() {
            *whole = CancellationToken::new();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.tasks.token().cancel();
    }
}

impl Wire {
    async fn carry(&self, near: TcpStream) {
        for _ in &self.upstreams {
            let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.upstreams.len();
            if let Ok(far) = TcpStream::connect(self.upstreams[turn]).await {
                let _ = (near.set_nodelay(true), far.set_nodelay(true));
                let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                tokio::join!(self.pump(near_read, far_write, false), self.pump(far_read, near_write, true));
                return;
            }
        }
    }

    /// Carries one direction. Either end may be cut off at any time: that is what the proxy is for.
    async fn pump(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, answers: bool) {
        let mut weather = self.weather.subscribe();
        let mut chunk = vec![0; CHUNK];
        while let Ok(length) = from.read(&mut chunk).await {
            if !answers {
                self.listen(&chunk[..length]);
            }
            let passable = weather.wait_for(|weather| !(weather.still || answers && weather.mute)).await;
            let Ok(delay) = passable.map(|weather| weather.delay) else { break };
            tokio::time::sleep(delay).await;
            if length == 0 || to.write_all(&chunk[..length]).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    }

    /// Becomes mute after the last words.
    fn listen(&self, request: &[u8]) {
        let mut last_words = self.last_words.lock().unwrap();
        if last_words.as_ref().is_some_and(|words| request.windows(words.len()).any(|part| part == words)) {
            *last_words = None;
            self.weather.send_modify(|weather| weather.mute = true);
        }
    }
}
