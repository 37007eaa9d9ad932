//! The process that is measured: the ingress as `rollcall serve` runs it, with its default limits, and nothing else.
//!
//! It is this program once more. The first line of its input says where to publish, the first line of its output is its
//! port, and it ends with its input.

use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use rollcall::broker::embedded::{self, Embedded};
use rollcall::broker::rabbitmq::{self, Compression, RabbitMq};
use rollcall::broker::{Broker, SharedBroker, State};
use rollcall::config;
use rollcall::ingress::{Ingress, IngressSource};
use rollcall::provider;
use rollcall::shutdown::Tasks;
use rollcall::telemetry::{logs, metrics};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{ChildStdin, Command};
use tokio::time::{Duration, sleep, timeout};

use crate::PATIENCE;
use crate::generator::{SOURCE, secret, source};

/// Where the ingress publishes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Place {
    /// To RabbitMQ.
    RabbitMq { url: String, prefix: String, compress: bool },
    /// To the embedded broker.
    Embedded { folder: PathBuf },
}

/// The child as its parent sees it.
pub(crate) struct Child {
    process: tokio::process::Child,
    input: ChildStdin,
    address: SocketAddr,
}

impl Child {
    /// Starts it and waits until it can make deliveries durable.
    pub(crate) async fn start(place: &Place) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .arg("--ingress-child")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut input = process.stdin.take().unwrap();
        let line = serde_json::to_string(place).unwrap() + "\n";
        input.write_all(line.as_bytes()).await.unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut port = String::new();
        timeout(PATIENCE, output.read_line(&mut port)).await.unwrap().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port.trim().parse().unwrap()));
        Self { process, input, address }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id().unwrap()
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it as an operator would: what is in work is finished.
    pub(crate) async fn end(mut self) {
        drop(self.input);
        let status = timeout(PATIENCE, self.process.wait()).await.unwrap().unwrap();
        assert!(status.success(), "the ingress ended with {status}");
    }
}

/// The child itself.
pub(crate) async fn run() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let place: Place = serde_json::from_str(&line).unwrap();

    let defaults = config::Sources { file: None, env: Default::default(), registry: provider::REGISTRY };
    let defaults = config::load(defaults).unwrap();
    let quiet = logs::Settings { filter: "warn".to_owned(), ..defaults.log };
    logs::install(&quiet, true).unwrap();
    metrics::install().unwrap();

    // The broker outlives the edge: requests in work and the last checkpoint are still to be published.
    let (tasks, below) = (Tasks::new(), Tasks::new());
    let broker: SharedBroker = match place {
        Place::RabbitMq { url, prefix, compress } => Arc::new(rabbitmq(&url, &prefix, compress, &below)),
        Place::Embedded { folder } => Arc::new(Embedded::open(embedded::Settings::new(folder), &below).await.unwrap()),
    };
    until_ready(broker.as_ref()).await;
    let (description, settings) = source();
    let verifier = (description.verifier)(&settings, vec![secret()]).unwrap();
    let sources = vec![IngressSource {
        name: SOURCE.parse().unwrap(),
        provider: description.name,
        allow_from: None,
        encodings: description.encodings,
        verifier,
    }];
    let ingress = Ingress::new(defaults.ingress.settings, sources, broker.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());

    let end = tasks.token().clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        end.cancel();
    });
    let all_finished = ingress.serve(listener, &tasks).await;
    broker.close().await;
    let ended = tasks.end(PATIENCE).await && below.end(PATIENCE).await;
    assert!(all_finished && ended, "the ingress didn't end in order");
}

/// RabbitMQ as rollcall speaks to it.
pub(crate) fn rabbitmq(url: &str, prefix: &str, compress: bool, tasks: &Tasks) -> RabbitMq {
    let compression = if compress { Compression::Lz4 } else { Compression::None };
    let settings = rabbitmq::Settings {
        prefix: prefix.to_owned(),
        compression,
        ..rabbitmq::Settings::new(SecretString::from(url))
    };
    RabbitMq::connect(settings, tasks).unwrap()
}

/// Waits until a broker is connected.
pub(crate) async fn until_ready(broker: &dyn Broker) {
    let connected = async {
        while broker.health().state != State::Ok {
            sleep(Duration::from_millis(10)).await;
        }
    };
    if timeout(PATIENCE, connected).await.is_err() {
        panic!("no broker: {:?}", broker.health());
    }
}
