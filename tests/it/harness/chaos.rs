//! A TCP proxy that can cut everything that goes through it, refuse what comes, swallow what is said without a word, and
//! let it through again.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rollcall::shutdown::Tasks;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The proxy. Dropping it cuts everything.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    wire: Wire,
    silence: watch::Sender<bool>,
    tasks: Tasks,
}

/// Cancelled while the wire is cut; a new token each time that it is mended.
type Wire = Arc<Mutex<CancellationToken>>;

impl Proxy {
    /// A proxy to there, through which everything goes.
    pub(crate) async fn to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            wire: Arc::new(Mutex::new(CancellationToken::new())),
            silence: watch::Sender::new(false),
            tasks: Tasks::new(),
        };
        let (wire, tasks, silence) = (Arc::clone(&proxy.wire), proxy.tasks.clone(), proxy.silence.clone());
        proxy.tasks.spawn(proxy.tasks.token().clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let whole = wire.lock().unwrap().clone();
                // A connection that comes while the wire is cut is closed at once.
                let silent = silence.subscribe();
                tasks.spawn(async move { whole.run_until_cancelled(carry(stream, upstream, silent)).await });
            }
        }));
        proxy
    }

    /// Cuts every connection in the middle of whatever it carries, and refuses new ones.
    pub(crate) fn cut(&self) {
        self.wire.lock().unwrap().cancel();
    }

    /// Lets new connections through again.
    pub(crate) fn mend(&self) {
        *self.wire.lock().unwrap() = CancellationToken::new();
    }
}

impl Proxy {
    /// From now on carries nothing more over any connection, old or new, and closes none: what a host is like that has
    /// vanished from the network.
    pub(crate) fn silence(&self) {
        self.silence.send_replace(true);
    }

    /// Ends the silence for new connections. Those that were silenced never speak again.
    pub(crate) fn speak(&self) {
        self.silence.send_replace(false);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.tasks.token().cancel();
    }
}

async fn carry(mut near: TcpStream, upstream: SocketAddr, mut silent: watch::Receiver<bool>) {
    let carried = async {
        if let Ok(mut far) = TcpStream::connect(upstream).await {
            // Either end may be cut off at any time: that is what the proxy is for.
            let _ = copy_bidirectional(&mut near, &mut far).await;
        }
    };
    tokio::select! {
        () = carried => return,
        _ = silent.wait_for(|silent| *silent) => {}
    }
    // The near end stays open, and nobody reads it or answers.
    std::future::pending().await
}
