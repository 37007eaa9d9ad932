//! Reads a body within its bounds: size, memory, time and a least rate.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::EXPECT;
use http::request::Parts;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::budget::{Full, Held};
use super::client::Client;
use super::gather::{Gathered, NoRoom};
use super::incoming::PlaceNeeded;
use super::places::Places;
use super::problem::Problem;
use super::refusal::Refused;
use super::{Edge, Settings};

/// How long a body may come at any rate.
const RATE_GRACE: Duration = Duration::from_secs(2);

/// How long the rest of a body that nobody wants is read, so that the client gets its answer and not a reset.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// How long nothing of it may come meanwhile: whoever refuses to send it mustn't hold a place with it.
const LINGER_GAP: Duration = Duration::from_millis(500);

/// How long it is read where that keeps others waiting: enough for what is on its way.
pub(super) const BRIEF_LINGER: Duration = Duration::from_millis(150);

/// Reads the whole body. What it takes of the budget is held as long as the second value.
pub(super) async fn read<'a>(
    body: &mut Body,
    edge: &'a Edge,
    client: Client,
    started: Instant,
) -> Result<(Bytes, Held<'a>), Refused> {
    let settings = &edge.settings;
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    // Of a body in chunks nobody says how long it will be.
    let most = body.size_hint().exact().and_then(|exact| usize::try_from(exact).ok()).unwrap_or(settings.max_body);
    let mut held = edge.budget.hold(expected, client.budgeted_as(&edge.unshared));
    let mut whole = Gathered::Nothing;
    loop {
        let frame = match timeout_at(deadline(settings, started, whole.len()), body.frame()).await {
            Err(_elapsed) => return Err(Refused::new(Problem::TooSlow, "the body came too slowly")),
            Ok(None) => {
                held.complete();
                return Ok((whole.into_bytes(), held));
            }
            Ok(Some(Err(error))) if error.source().is_some_and(|error| error.is::<PlaceNeeded>()) => {
                return Err(Refused::new(
                    Problem::Busy,
                    "the body came slowly, and others waited for the connection's place",
                ));
            }
            Ok(Some(Err(_broken))) => return Err(Refused::new(Problem::Malformed, "the body broke off")),
            Ok(Some(Ok(frame))) => frame,
        };
        // Trailers mean nothing to us.
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > settings.max_body - whole.len() {
            return Err(Refused::new(Problem::TooLarge, "the body grew over ingress.max_body"));
        }
        held.grow(data.len(), body.is_end_stream()).map_err(|full| match full {
            Full::Budget => Refused::new(Problem::Busy, "ingress.body_budget is used up"),
            Full::Share => {
                let why = format!("the client ({client}) has its share of ingress.body_budget (ingress.peer_share)");
                Refused::new(Problem::Busy, why)
            }
        })?;
        whole.add(data, most).map_err(|NoRoom| Refused::new(Problem::Busy, "the system has no memory for it"))?;
    }
}

/// Every byte buys time, up to the end of `body_timeout`.
fn deadline(settings: &Settings, started: Instant, read: usize) -> Instant {
    let bought = Duration::from_millis((read as u64).saturating_mul(1000) / (settings.least_rate.max(1) as u64));
    started + settings.body_timeout.min(RATE_GRACE.saturating_add(bought))
}

/// Reads a body away after a refusal: a socket that is closed with unread bytes resets the connection, and the client
/// never sees why. A client that waits for `100 Continue` hasn't sent anything, and isn't asked to.
pub(super) async fn linger(parts: &Parts, body: &mut Body, mut left: usize, time: Duration) {
    if body.is_end_stream() || parts.headers.contains_key(EXPECT) {
        return;
    }
    let short = parts.extensions.get::<Arc<Places>>().is_some_and(|places| places.are_short());
    let until = Instant::now() + if short { time.min(BRIEF_LINGER) } else { time };
    while let Ok(Some(Ok(frame))) = timeout_at(until.min(Instant::now() + LINGER_GAP), body.frame()).await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
