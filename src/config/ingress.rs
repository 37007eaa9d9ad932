//! `[ingress]`: the HTTP edge.

use std::net::SocketAddr;

use bytesize::ByteSize;

use super::layers::Layers;
use crate::ingress;

/// The section's settings.
#[derive(Clone, Debug)]
pub struct Ingress {
    /// The address on which webhooks come in.
    pub listen: SocketAddr,
    /// Its limits.
    pub settings: ingress::Settings,
}

impl Ingress {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        let listen = layers.required("ingress.listen");
        let max_body = bytes(layers, "ingress.max_body");
        let body_budget = bytes(layers, "ingress.body_budget");
        let small_reserve = bytes(layers, "ingress.small_reserve");
        let max_in_flight = layers.required("ingress.max_in_flight");
        let max_connections = layers.required("ingress.max_connections");
        let header_timeout = layers.required("ingress.header_timeout");
        let body_timeout = layers.required("ingress.body_timeout");
        let least_rate = bytes(layers, "ingress.least_rate");
        let request_timeout = layers.required("ingress.request_timeout");
        let shutdown_grace = layers.required("ingress.shutdown_grace");
        let settings = ingress::Settings {
            max_body: max_body?,
            body_budget: body_budget?,
            small_reserve: small_reserve?,
            max_in_flight: max_in_flight?,
            max_connections: max_connections?,
            header_timeout: header_timeout?,
            body_timeout: body_timeout?,
            least_rate: least_rate?,
            request_timeout: request_timeout?,
            shutdown_grace: shutdown_grace?,
        };
        if settings.body_budget.saturating_sub(settings.small_reserve) < settings.max_body {
            layers.blame_value(
                "ingress.body_budget",
                "must be at least ingress.max_body + ingress.small_reserve, else the largest body never fits",
            );
        }
        Some(Self { listen: listen?, settings })
    }
}

/// A size that this machine can address.
fn bytes(layers: &mut Layers, path: &str) -> Option<usize> {
    let size: ByteSize = layers.required(path)?;
    let size = usize::try_from(size.as_u64()).ok();
    if size.is_none() {
        layers.blame_value(path, "is more than this machine can address");
    }
    size
}
