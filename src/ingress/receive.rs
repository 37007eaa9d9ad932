//! One webhook request, from its headers to its answer. The order of the checks is the contract.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use http_body::Body as _;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::client::{Client, Peer};
use super::problem::Problem;
use super::refusal::{Refused, Said};
use super::{Counted, Edge, Endpoint, IngressSource, SMALL_BODY, Settings, body};
use crate::broker::PublishError;
use crate::delivery::{Delivery, DeliveryId, Encoding, SourceName, Stamp, Timestamp, Unverified};
use crate::provider::Verifier;

pub(super) async fn receive(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let started = Instant::now();
    let said = Said::of(request.headers());
    let name = request.uri().path().strip_prefix("/webhooks/").unwrap_or_default();
    let Some(endpoint) = edge.endpoints.get(name) else {
        let shown = name.parse::<SourceName>().map_or_else(|_| "not a source name".to_owned(), |name| name.to_string());
        edge.nowhere.record(&Refused::new(Problem::NotFound, shown), &said, Timestamp::now());
        let (parts, mut body) = request.into_parts();
        body::linger(&parts.headers, &mut body, SMALL_BODY).await;
        return Problem::NotFound.into_response();
    };
    let answer = edge.answer(endpoint, request, started).await;
    edge.seconds.record(started.elapsed());
    match answer {
        Ok(answer) => answer.into_response(),
        Err(refused) => {
            endpoint.refusals.record(&refused, &said, Timestamp::now());
            refused.problem.into_response()
        }
    }
}

impl Edge {
    async fn answer(&self, endpoint: &Endpoint, request: Request, started: Instant) -> Result<Answer, Refused> {
        let (parts, mut body) = request.into_parts();
        let verifier = endpoint.source.verifier.as_ref();
        let peer = parts.extensions.get().copied().unwrap_or(Peer::NONE);
        let client = Client::of(peer, &parts.headers, &self.settings.trusted_proxies);
        // It is held until the answer, whatever that is.
        let share = client.counted_as().map(|address| self.clients.take(address));
        let has_its_share = matches!(share, Some(None));
        let admitted = allow(&endpoint.source, client).and_then(|()| {
            if has_its_share {
                return Err(Refused::new(Problem::Busy, "its client has its share of the requests in work"));
            }
            self.admit(&parts, &body, verifier)
        });
        let encoding = match admitted {
            Ok(encoding) => encoding,
            Err(refused) => {
                if !has_its_share {
                    body::linger(&parts.headers, &mut body, self.patience_for(&refused)).await;
                }
                return Err(refused);
            }
        };
        let (body, mut held) = match body::read(&mut body, &self.settings, &self.budget, started).await {
            Ok(read) => read,
            Err(refused) => {
                // The rest of a body that is too long or too slow is nothing to wait for.
                if refused.problem == Problem::Busy {
                    body::linger(&parts.headers, &mut body, self.patience_for(&refused)).await;
                }
                return Err(refused);
            }
        };
        // Only now, so that bodies which come slowly, or never, keep no slot from those that are there.
        let _slot = self.slots.try_acquire().map_err(|_full| self.full())?;
        let _counted = Counted::begin(self.in_flight.clone());
        let received_at = Timestamp::now();
        let unverified = Unverified { headers: &parts.headers, encoding, body: &body };
        let verified = verifier.verify(unverified, received_at)?;
        let named = verifier.name(&parts.headers, &verified)?;
        if named.ping {
            tracing::debug!(source = %endpoint.source.name, "ping");
            return Ok(Answer::Pong);
        }
        if !held.copy(started + self.settings.request_timeout).await {
            return Err(Refused::new(Problem::Busy, "ingress.body_budget is used up"));
        }
        let delivery =
            verified.into_delivery(endpoint.source.name.clone(), endpoint.source.provider, named, received_at);
        self.publish(endpoint, delivery, started).await
    }

    /// How much of a refused body is read away. Whoever is only to come again later is told so, however much there is.
    const fn patience_for(&self, refused: &Refused) -> usize {
        if matches!(refused.problem, Problem::Busy) { self.settings.max_body } else { SMALL_BODY }
    }

    /// Everything that needs no body. If there is no slot, the body isn't worth reading.
    fn admit(&self, parts: &Parts, body: &Body, verifier: &dyn Verifier) -> Result<Encoding, Refused> {
        let encoding = encoding(parts, body, &self.settings)?;
        verifier.precheck(&parts.headers)?;
        if self.slots.available_permits() == 0 { Err(self.full()) } else { Ok(encoding) }
    }

    fn full(&self) -> Refused {
        let why = format!("ingress.max_in_flight = {} requests are in work", self.settings.max_in_flight);
        Refused::new(Problem::Busy, why)
    }

    /// 202 comes only after the broker's confirm. Whatever else happens leaves the ticket unconfirmed, also a client
    /// that hangs up, which drops this future.
    async fn publish(&self, endpoint: &Endpoint, mut delivery: Delivery, started: Instant) -> Result<Answer, Refused> {
        let ticket = endpoint.balance.draw();
        delivery.stamp = Some(Stamp { run: self.run, sequence: ticket.number() });
        match timeout_at(started + self.settings.request_timeout, self.broker.publish(&delivery)).await {
            Ok(Ok(())) => {
                ticket.confirm();
                endpoint.accepted.increment(1);
                tracing::debug!(source = %delivery.source, id = %delivery.id, event = %delivery.event, "accepted");
                Ok(Answer::Accepted(delivery.id))
            }
            Ok(Err(error @ PublishError::TooLarge { .. })) => Err(Refused::new(Problem::TooLarge, error.to_string())),
            Ok(Err(error)) => Err(Refused::new(Problem::Unavailable, error.to_string())),
            Err(_elapsed) => Err(Refused::new(Problem::Unavailable, "no confirm within ingress.request_timeout")),
        }
    }
}

/// 403, before anything that the request says is looked at.
fn allow(source: &IngressSource, client: Client) -> Result<(), Refused> {
    let Some(allowed) = &source.allow_from else { return Ok(()) };
    match client.address() {
        Some(address) if allowed.contains(address) => Ok(()),
        Some(address) => Err(Refused::new(Problem::Forbidden, format!("{address} isn't in allow_from"))),
        None => Err(Refused::new(Problem::Forbidden, "the proxy's headers don't say for certain who sends it")),
    }
}

/// 405, 415 and 413, in this order. Bytes are verified as they came, so an encoded body can't be taken: whoever decoded
/// it on the way would have changed what was signed.
fn encoding(parts: &Parts, body: &Body, settings: &Settings) -> Result<Encoding, Refused> {
    if parts.method != Method::POST {
        return Err(Refused::new(Problem::Method, "not a POST"));
    }
    if parts.headers.get(CONTENT_ENCODING).is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Refused::new(Problem::MediaType, "it has a content encoding"));
    }
    let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some(encoding) = Encoding::from_content_type(content_type) else {
        return Err(Refused::new(Problem::MediaType, "its content type is neither JSON nor a form"));
    };
    if body.size_hint().lower() > settings.max_body as u64 {
        return Err(Refused::new(Problem::TooLarge, "its length is over ingress.max_body"));
    }
    Ok(encoding)
}

/// What a request is told that was taken.
enum Answer {
    Accepted(DeliveryId),
    Pong,
}

#[derive(Serialize)]
struct Accepted<'a> {
    delivery: &'a str,
    status: &'static str,
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let (status, body) = match self {
            Self::Accepted(id) => {
                let accepted = Accepted { delivery: id.as_str(), status: "accepted" };
                // A struct of two texts can always be written.
                (StatusCode::ACCEPTED, Body::from(serde_json::to_vec(&accepted).unwrap_or_default()))
            }
            Self::Pong => (StatusCode::OK, Body::from(r#"{"status":"pong"}"#)),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}
