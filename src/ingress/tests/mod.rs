//! The edge against a small provider of our own and a broker that does what it is told.

mod clients;
mod health;
mod meaning;
mod refusals;
mod socket;
mod statuses;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use sha2::Sha256;
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use super::*;
use crate::broker::{Broker, Consumer, Health, PublishError, State};
use crate::delivery::{Delivery, DeliveryId, EventName, Named, SecretName, Timestamp, Unverified, Verified};
use crate::provider::{Apparent, Refusal};

const SECRET: &[u8] = b"hush-hush";

/// How long a test waits for something that must happen.
const SOON: Duration = Duration::from_secs(10);

fn signature(body: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(SECRET).unwrap().chain_update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Signs with HMAC-SHA256 in `x-test-signature`; event and id are headers too.
#[derive(Debug)]
struct TestVerifier;

impl Verifier for TestVerifier {
    fn precheck(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match headers.get("x-test-signature") {
            Some(value) if value.len() == 64 => Ok(()),
            Some(_) => Err(Refusal::Unverified("x-test-signature isn't 64 hex digits".to_owned())),
            None => Err(Refusal::Unverified("x-test-signature was expected and didn't come".to_owned())),
        }
    }

    fn verify(&self, request: Unverified<'_>, _: Timestamp) -> Result<Verified, Refusal> {
        if request.headers["x-test-signature"] == signature(request.body).as_str() {
            return Ok(request.verified_by(SecretName("env:TEST".into())));
        }
        Err(Refusal::Unverified("x-test-signature doesn't fit the body".to_owned()))
    }

    fn apparent(&self, headers: &HeaderMap) -> Apparent {
        match self.precheck(headers) {
            Ok(()) => Apparent::Signed,
            Err(_) if headers.contains_key("x-test-event") => Apparent::Unsigned,
            Err(_) => Apparent::Stranger,
        }
    }

    fn name(&self, headers: &HeaderMap, verified: &Verified) -> Result<Named, Refusal> {
        serde_json::from_slice::<serde::de::IgnoredAny>(&verified.json())
            .map_err(|_| Refusal::Malformed("the body isn't JSON".to_owned()))?;
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let event: EventName = text("x-test-event").parse()?;
        let id: DeliveryId = text("x-test-delivery").parse()?;
        Ok(Named { id, ping: event.as_str() == "ping", event })
    }
}

#[derive(Clone, Copy, Debug, Default)]
enum Mood {
    #[default]
    Takes,
    Fails,
    FindsItTooLarge,
    /// Publishes wait for a permit of `release`.
    Waits,
}

#[derive(Debug)]
struct FakeBroker {
    mood: Mutex<Mood>,
    published: Mutex<Vec<Delivery>>,
    checkpoints: Mutex<Vec<Checkpoint>>,
    /// Gets a permit with every publish that begins.
    begun: Semaphore,
    release: Semaphore,
}

impl FakeBroker {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            mood: Mutex::default(),
            published: Mutex::default(),
            checkpoints: Mutex::default(),
            begun: Semaphore::new(0),
            release: Semaphore::new(0),
        })
    }

    fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap()
    }

    fn published(&self) -> Vec<Delivery> {
        self.published.lock().unwrap().clone()
    }

    fn take_checkpoints(&self) -> Vec<(u64, Vec<u64>)> {
        let taken = std::mem::take(&mut *self.checkpoints.lock().unwrap());
        taken.into_iter().map(|checkpoint| (checkpoint.sequence, checkpoint.voids)).collect()
    }

    async fn one_has_begun(&self) {
        soon(self.begun.acquire()).await.unwrap().forget();
    }
}

#[async_trait]
impl Broker for FakeBroker {
    async fn publish(&self, delivery: &Delivery) -> Result<(), PublishError> {
        self.begun.add_permits(1);
        match self.mood() {
            Mood::Takes => {}
            Mood::Fails => return Err(PublishError::Unavailable("no connection".to_owned())),
            Mood::FindsItTooLarge => return Err(PublishError::TooLarge { size: delivery.body.len(), limit: 1 }),
            Mood::Waits => self.release.acquire().await.unwrap().forget(),
        }
        self.published.lock().unwrap().push(delivery.clone());
        Ok(())
    }

    async fn checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), PublishError> {
        if matches!(self.mood(), Mood::Fails) {
            return Err(PublishError::Unavailable("no connection".to_owned()));
        }
        self.checkpoints.lock().unwrap().push(checkpoint.clone());
        Ok(())
    }

    async fn consume(&self, _: u16) -> Box<dyn Consumer> {
        panic!("the edge doesn't consume");
    }

    fn health(&self) -> Health {
        Health { state: State::Ok, reason: None, since: Timestamp(0) }
    }

    async fn close(&self) {}
}

pub(super) fn settings() -> Settings {
    Settings {
        max_body: 1024 * 1024,
        body_budget: 8 * 1024 * 1024,
        small_reserve: 1024 * 1024,
        body_bytes_per_client: 8 * 1024 * 1024,
        small_bytes_per_client: 1024 * 1024,
        max_in_flight: 16,
        max_per_client: 16,
        max_connections: 16,
        max_per_peer: 16,
        trusted_proxies: Networks::default(),
        header_timeout: SOON,
        keep_alive: SOON,
        max_connection_age: SOON * 60,
        max_connection_requests: 10_000,
        body_timeout: SOON,
        least_rate: 1024,
        request_timeout: SOON,
        shutdown_grace: SOON,
    }
}

fn ingress_with(settings: Settings) -> (Ingress, Arc<FakeBroker>) {
    ingress_for(settings, source(Encodings::JsonOrForm))
}

/// With a source whose provider sends its bodies in these encodings.
fn ingress_of(encodings: Encodings) -> (Ingress, Arc<FakeBroker>) {
    ingress_for(settings(), source(encodings))
}

fn source(encodings: Encodings) -> IngressSource {
    IngressSource {
        name: "acme".parse().unwrap(),
        provider: "test",
        allow_from: None,
        encodings,
        verifier: Box::new(TestVerifier),
    }
}

fn ingress_for(settings: Settings, source: IngressSource) -> (Ingress, Arc<FakeBroker>) {
    let broker = FakeBroker::new();
    (Ingress::new(settings, vec![source], Arc::clone(&broker) as SharedBroker), broker)
}

fn ingress() -> (Ingress, Arc<FakeBroker>) {
    ingress_with(settings())
}

/// A request that is fine.
fn request(body: &str) -> Request<Body> {
    Request::post("/webhooks/acme")
        .header("host", "hooks.test")
        .header("content-type", "application/json; charset=utf-8")
        .header("x-test-signature", signature(body.as_bytes()))
        .header("x-test-event", "member.added")
        .header("x-test-delivery", "d-1")
        .body(Body::from(body.to_owned()))
        .unwrap()
}

/// A request of which the body is all that matters.
fn request_with(body: Body) -> Request<Body> {
    request("").map(|_| body)
}

async fn send(ingress: &Ingress, request: Request<Body>) -> Response<Body> {
    ingress.router().oneshot(request).await.unwrap()
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// The status and the problem's slug, or `-` if it is none.
async fn verdict(response: Response<Body>) -> (u16, String) {
    let status = response.status().as_u16();
    let json: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    let slug = json["type"].as_str().and_then(|uri| uri.strip_prefix("/problems/")).unwrap_or("-");
    (status, slug.to_owned())
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(SOON, future).await.expect("it didn't happen in time")
}
