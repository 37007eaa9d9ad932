//! The HTTP edge: takes webhooks, lets the provider's verifier check them, and answers 202 once the broker has them.
//!
//! It reads raw bytes within bounds of size, time and memory, and hands on what was verified, untouched. It parses no
//! payload, keeps no state but the sequence numbers of its run ([`balance`]), and knows neither the ledger nor the
//! platform. Beside it is the [`admin`] listener with health and metrics.
//!
//! `POST /webhooks/{source}` is checked in this order, and the first fault is the answer ([`problem::Problem`]):
//!
//! 1. 403 the source isn't for its address; 503 a proxy's client has its share of the requests in work; 400 without exactly
//!    one `Host` (HTTP/1.1); 501 a transfer encoding other than `chunked`; 404 no such source; 405 not a POST; 415 encoded, or
//!    without exactly one content type that the provider sends; 413 longer than `max_body` by its own account; 401 without a
//!    well-formed signature, which needs no body to see;
//! 2. 413 or 503 as the body grows over `max_body`, or over the memory for all bodies or its client's share of that; 408 if it
//!    comes too slowly, or 503 if it does and somebody waits for its connection's place;
//! 3. 503 too many requests in work, also before the body is read if that is known then;
//! 4. 401 the signature is wrong; 400 verified, but not JSON or without a usable name;
//! 5. 200 a ping; else it is published: 202, or 413 larger than the broker takes, or 503 not durable.
//!
//! What isn't HTTP is answered by hyper itself, before any of this: 400 without a body, also where the last transfer
//! encoding isn't `chunked`, so that nobody can tell where the body ends; 431 where there are too many headers.

mod activity;
pub mod admin;
mod balance;
mod body;
mod budget;
mod client;
mod connection;
mod gather;
mod incoming;
mod lost;
mod network;
mod places;
pub mod problem;
mod receive;
mod refusal;
mod serve;
mod shares;
mod signatures;
mod stream;

use std::collections::HashMap;
use std::sync::{Arc, Once};
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use metrics::{Counter, Gauge, Histogram};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::broker::SharedBroker;
use crate::delivery::{Checkpoint, Encodings, SourceName, Timestamp};
use crate::provider::Verifier;
use crate::shutdown::Tasks;
use crate::telemetry::metrics as names;
pub use activity::IDLE_BEFORE_ROOM;
use admin::{Needed, Part};
use balance::Balance;
use budget::Budget;
use lost::Lost;
pub use network::{InvalidNetwork, Network, Networks};
use refusal::Refusals;
pub use serve::{Limits, MAX_BUFFER, MAX_HEADER_BYTES, MAX_HEADERS, serve};
use shares::Shares;
use signatures::Signatures;

/// The edge's limits. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The largest body.
    pub max_body: usize,
    /// How much all bodies together may take.
    pub body_budget: usize,
    /// The part of the budget that is kept for bodies of at most [`SMALL_BODY`].
    pub small_reserve: usize,
    /// How many bytes of the budget the incomplete bodies of one client may take.
    pub body_bytes_per_client: usize,
    /// How many more of the part for small ones its small bodies may.
    pub small_bytes_per_client: usize,
    /// How many requests may be in work at once. One is from when its body is complete.
    pub max_in_flight: usize,
    /// How many requests one client of a trusted proxy may have there at once.
    pub max_per_client: usize,
    /// How many connections may be open at once.
    pub max_connections: usize,
    /// How many of them may come from one peer that is no trusted proxy.
    pub max_per_peer: usize,
    /// Proxies that are believed when they say for whom they send a request.
    pub trusted_proxies: Networks,
    /// How long a client may take for its headers, or to take some of an answer.
    pub header_timeout: Duration,
    /// How long an idle connection is kept.
    pub keep_alive: Duration,
    /// How old a connection may be when it is used for another request.
    pub max_connection_age: Duration,
    /// How many requests one connection may have.
    pub max_connection_requests: u64,
    /// How long a client may take for its body.
    pub body_timeout: Duration,
    /// The least rate of a body in bytes a second, after a grace of two seconds.
    pub least_rate: usize,
    /// How long a whole request may take.
    pub request_timeout: Duration,
    /// How long requests in work may take to finish at the end.
    pub shutdown_grace: Duration,
}

/// Up to this size in bytes a body counts as small; GitHub's are smaller than 30 KiB, nearly all.
pub const SMALL_BODY: usize = 256 * 1024;

/// How many times its size a body may take in memory: as it came, and its copies while it is published.
pub const TAKES: usize = 1 + budget::COPIES;

/// How often a run tells how far it has come.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);

/// One source, as the edge needs it.
#[derive(Debug)]
pub struct IngressSource {
    /// Its name: the last part of its URL.
    pub name: SourceName,
    /// Its provider's name in the registry.
    pub provider: &'static str,
    /// Who may send to it; everybody if it doesn't say.
    pub allow_from: Option<Networks>,
    /// The encodings in which that sends its bodies.
    pub encodings: Encodings,
    /// Checks its requests.
    pub verifier: Box<dyn Verifier>,
}

/// The HTTP edge. Clones share everything.
#[derive(Clone, Debug)]
pub struct Ingress {
    edge: Arc<Edge>,
}

/// What all requests share.
#[derive(Debug)]
struct Edge {
    settings: Settings,
    run: Uuid,
    endpoints: HashMap<String, Endpoint>,
    nowhere: Refusals,
    lost: Lost,
    broker: SharedBroker,
    budget: Budget,
    slots: Semaphore,
    /// What clients of trusted proxies have in work.
    clients: Shares,
    /// Whether a trusted proxy that names no client has been logged.
    unnamed: Once,
    /// Peers that have many clients, and so no share of their own.
    unshared: Networks,
    in_flight: Gauge,
    seconds: Histogram,
}

/// One source and all that is counted for it.
#[derive(Debug)]
struct Endpoint {
    source: IngressSource,
    balance: Balance,
    accepted: Counter,
    refusals: Refusals,
    signatures: Arc<Signatures>,
}

impl Ingress {
    /// Begins a run: sequences start at 1 under a new id.
    #[must_use]
    pub fn new(settings: Settings, sources: Vec<IngressSource>, broker: SharedBroker) -> Self {
        let endpoints = sources.into_iter().map(|source| {
            let name = source.name.to_string();
            let endpoint = Endpoint {
                balance: Balance::default(),
                accepted: metrics::counter!(names::ACCEPTED, "source" => name.clone()),
                refusals: Refusals::new(&name),
                signatures: Arc::new(Signatures::new(&name, Timestamp::now())),
                source,
            };
            (name, endpoint)
        });
        let edge = Edge {
            run: Uuid::now_v7(),
            endpoints: endpoints.collect(),
            nowhere: Refusals::new("-"),
            lost: Lost::default(),
            broker,
            budget: Budget::new(&settings),
            slots: Semaphore::new(settings.max_in_flight),
            clients: Shares::new(settings.max_per_client),
            unnamed: Once::new(),
            unshared: Networks::this_machine().and(&settings.trusted_proxies),
            in_flight: metrics::gauge!(names::IN_FLIGHT),
            seconds: metrics::histogram!(names::INGRESS_SECONDS),
            settings,
        };
        Self { edge: Arc::new(edge) }
    }

    /// The id of this run.
    #[must_use]
    pub fn run(&self) -> Uuid {
        self.edge.run
    }

    /// The parts of `/health` that are this role's: one a source.
    #[must_use]
    pub fn parts(&self) -> Vec<Part> {
        let part = |(name, endpoint): (&String, &Endpoint)| {
            let signatures = Arc::clone(&endpoint.signatures);
            Part {
                name: format!("source:{name}"),
                health: Arc::new(move || signatures.health(Timestamp::now())),
                needed: Needed::No,
            }
        };
        self.edge.endpoints.iter().map(part).collect()
    }

    /// The routes. Every path ends in [`receive`], which answers all of them alike.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/webhooks/{source}", any(receive::receive))
            .fallback(receive::receive)
            .with_state(Arc::clone(&self.edge))
    }

    /// Serves until the token is cancelled, finishes what is in work, and closes the tail with a last checkpoint.
    /// Returns whether all requests could finish.
    pub async fn serve(&self, listener: TcpListener, tasks: &Tasks) -> bool {
        let settings = &self.edge.settings;
        let limits = Limits {
            listener: "webhooks",
            header_timeout: settings.header_timeout,
            keep_alive: settings.keep_alive,
            max_connections: settings.max_connections,
            max_per_peer: settings.max_per_peer,
            unshared: self.edge.unshared.clone(),
            max_age: settings.max_connection_age,
            max_requests: settings.max_connection_requests,
            grace: settings.shutdown_grace,
        };
        // Its own token, so that checkpoints go on while the last requests finish.
        let drained = CancellationToken::new();
        let serving = async {
            let all_finished = serve(listener, self.router(), limits, tasks).await;
            drained.cancel();
            all_finished
        };
        let (all_finished, ()) = tokio::join!(serving, self.checkpoints(&drained));
        all_finished
    }

    async fn checkpoints(&self, token: &CancellationToken) {
        let mut tick = interval(CHECKPOINT_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while token.run_until_cancelled(tick.tick()).await.is_some() {
            self.checkpoint().await;
        }
        self.checkpoint().await;
    }

    /// Publishes a checkpoint for every source that has come further, or has refused something, since its last one.
    pub async fn checkpoint(&self) {
        for endpoint in self.edge.endpoints.values() {
            loop {
                let refused = endpoint.refusals.news();
                let progress = match endpoint.balance.progress() {
                    Some(progress) => progress,
                    None if refused.is_empty() => break,
                    None => endpoint.balance.settled_so_far(),
                };
                let checkpoint = Checkpoint {
                    run: self.edge.run,
                    source: endpoint.source.name.clone(),
                    sequence: progress.sequence,
                    voids: progress.voids.clone(),
                    held: None,
                    refused,
                };
                if let Err(error) = self.edge.broker.checkpoint(&checkpoint).await {
                    tracing::warn!(source = %checkpoint.source, %error, "checkpoint not published; it is tried again");
                    break;
                }
                endpoint.balance.told(&progress);
                endpoint.refusals.told(&checkpoint.refused);
            }
        }
    }
}

/// Counts something in a gauge for as long as it lives, however that ends.
#[derive(Debug)]
struct Counted(Gauge);

impl Counted {
    fn begin(gauge: Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

#[cfg(test)]
mod tests;
