//! One webhook request, from its headers to its answer. The order of the checks is the contract.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use http_body::Body as _;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::client::{Client, Peer};
use super::problem::Problem;
use super::refusal::{Refused, Said};
use super::signatures::Cause;
use super::{Counted, Edge, Endpoint, IngressSource, SMALL_BODY, body};
use crate::broker::PublishError;
use crate::delivery::{Delivery, DeliveryId, Encoding, Encodings, Stamp, Timestamp, Unverified};
use crate::provider::signature::{NotOne, only_value};
use crate::provider::{Apparent, Refusal};

pub(super) async fn receive(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let started = Instant::now();
    let said = Said::of(request.headers());
    let Some(endpoint) = edge.endpoint(request.uri().path()) else {
        let (parts, mut body) = request.into_parts();
        let refused = framing(&parts).err().unwrap_or_else(|| edge.lost(parts.uri.path()));
        edge.nowhere.record(&refused, &said, Timestamp::now());
        body::linger(&parts, &mut body, SMALL_BODY, body::LINGER).await;
        return refused.problem.into_response();
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
    /// The source that a path names. A slash at the end is a common slip, and says nothing else.
    fn endpoint(&self, path: &str) -> Option<&Endpoint> {
        let name = path.strip_prefix("/webhooks/")?;
        self.endpoints.get(name.strip_suffix('/').unwrap_or(name))
    }

    fn lost(&self, path: &str) -> Refused {
        Refused::new(
            Problem::NotFound,
            self.lost.explain(path, self.endpoints.keys().map(String::as_str), Timestamp::now()),
        )
    }

    async fn answer(&self, endpoint: &Endpoint, request: Request, started: Instant) -> Result<Answer, Refused> {
        let (parts, mut body) = request.into_parts();
        let verifier = endpoint.source.verifier.as_ref();
        let peer = parts.extensions.get().copied().unwrap_or(Peer::NONE);
        let client = Client::of(peer, &parts.headers, &self.settings.trusted_proxies);
        self.mind_unnamed(client);
        // It is held until the answer, whatever that is.
        let share = client.counted_as().map(|address| self.clients.take(address));
        let has_its_share = matches!(share, Some(None));
        let allowed = allow(&endpoint.source, client)
            .inspect_err(|_forbidden| endpoint.count_refused(&parts.headers, Cause::of_forbidden));
        let admitted = allowed.and_then(|()| {
            if has_its_share {
                let why = format!("the client ({client}) has its share of the requests in work (ingress.peer_share)");
                return Err(Refused::new(Problem::Busy, why));
            }
            self.admit(&parts, &body, endpoint)
        });
        if let Err(refused) = admitted {
            // Of somebody whom the source isn't for nothing is read.
            if refused.problem != Problem::Forbidden {
                let time = if has_its_share { body::BRIEF_LINGER } else { body::LINGER };
                body::linger(&parts, &mut body, self.patience_for(&refused), time).await;
            }
            return Err(refused);
        }
        let (body, mut held) = match body::read(&mut body, self, client, started).await {
            Ok(read) => read,
            Err(refused) => {
                // The rest of a body that is too long or too slow is nothing to wait for.
                if refused.problem == Problem::Busy {
                    body::linger(&parts, &mut body, self.patience_for(&refused), body::LINGER).await;
                }
                return Err(refused);
            }
        };
        // Only now, so that bodies which come slowly, or never, keep no slot from those that are there.
        let _slot = self.slots.try_acquire().map_err(|_full| self.full())?;
        let _counted = Counted::begin(self.in_flight.clone());
        let received_at = Timestamp::now();
        let unverified = Unverified::new(&parts.headers, &body, endpoint.source.encodings);
        let verified = verifier.verify(unverified, received_at).inspect_err(|refusal| {
            if matches!(refusal, Refusal::Unverified(_)) {
                endpoint.count_refused(&parts.headers, Cause::of_unverified);
            }
        })?;
        endpoint.signatures.verified(received_at);
        // It is another body than the verified one where only the text in a form is signed.
        drop(body);
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

    /// Says once that a proxy names nobody. What this machine sends itself needn't have a client.
    fn mind_unnamed(&self, client: Client) {
        if let Client::Direct(proxy) = client
            && self.settings.trusted_proxies.contains(proxy)
            && !proxy.is_loopback()
        {
            self.unnamed.call_once(|| {
                tracing::warn!(
                    %proxy,
                    "a trusted proxy names no client in Forwarded or X-Forwarded-For, so its clients can't be told apart; \
                     configure it to set one of these headers"
                );
            });
        }
    }

    /// How much of a refused body is read away. Whoever is only to come again later is told so, however much there is.
    const fn patience_for(&self, refused: &Refused) -> usize {
        if matches!(refused.problem, Problem::Busy) { self.settings.max_body } else { SMALL_BODY }
    }

    /// Everything that needs no body. If there is no slot, the body isn't worth reading.
    fn admit(&self, parts: &Parts, body: &Body, endpoint: &Endpoint) -> Result<(), Refused> {
        let source = &endpoint.source;
        framing(parts)?;
        media_type(parts, source.encodings)?;
        if body.size_hint().lower() > self.settings.max_body as u64 {
            return Err(Refused::new(Problem::TooLarge, "its length is over ingress.max_body"));
        }
        source
            .verifier
            .precheck(&parts.headers)
            .inspect_err(|_unverified| endpoint.count_refused(&parts.headers, Cause::of_unverified))?;
        if self.slots.available_permits() == 0 { Err(self.full()) } else { Ok(()) }
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

impl Endpoint {
    /// Counts a refused request for health, if it is the provider's by its headers.
    fn count_refused(&self, headers: &HeaderMap, cause: fn(Apparent) -> Option<Cause>) {
        if let Some(cause) = cause(self.source.verifier.apparent(headers)) {
            self.signatures.refused(cause, Timestamp::now());
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

/// 400 and 501: what a server must not overlook, whatever the request is about. What rests on a header takes exactly one
/// value of it, as with signatures: else sender, proxies and we might each believe another.
fn framing(parts: &Parts) -> Result<(), Refused> {
    match only_value(&parts.headers, HOST.as_str()) {
        Ok(_) => {}
        Err(NotOne::Missing) if parts.version < Version::HTTP_11 => {}
        Err(why) => return Err(Refused::new(Problem::Malformed, format!("host {why}"))),
    }
    let chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    match only_value(&parts.headers, TRANSFER_ENCODING.as_str()) {
        Err(NotOne::Missing) => Ok(()),
        Ok(value) if chunked(value) => Ok(()),
        _ => Err(Refused::new(Problem::TransferEncoding, "its transfer encoding isn't just chunked")),
    }
}

/// 405 and 415. Bytes are verified as they came, so an encoded body can't be taken: whoever decoded it on the way would
/// have changed what was signed. The media type decides nothing but whether the request is taken; how the body is read
/// follows from its bytes.
fn media_type(parts: &Parts, encodings: Encodings) -> Result<(), Refused> {
    if parts.method != Method::POST {
        return Err(Refused::new(Problem::Method, "not a POST"));
    }
    match only_value(&parts.headers, CONTENT_ENCODING.as_str()) {
        Err(NotOne::Missing) => {}
        Ok(coding) if coding.as_bytes().eq_ignore_ascii_case(b"identity") => {}
        _ => return Err(Refused::new(Problem::MediaType, "it has a content encoding")),
    }
    let value = only_value(&parts.headers, CONTENT_TYPE.as_str())
        .map_err(|why| Refused::new(Problem::MediaType, format!("content-type {why}")))?;
    match value.to_str().ok().and_then(Encoding::from_content_type) {
        None => Err(Refused::new(Problem::MediaType, "its content type is neither JSON nor a form")),
        Some(encoding) if encodings.include(encoding) => Ok(()),
        Some(_) => Err(Refused::new(Problem::MediaType, "its content type is a form, and the provider sends none")),
    }
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
