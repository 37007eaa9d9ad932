//! `[ingress]`: the HTTP edge.

use std::net::SocketAddr;

use bytesize::ByteSize;
use url::Url;

use super::layers::Layers;
use crate::delivery::SourceName;
use crate::ingress;

/// The section's settings.
#[derive(Clone, Debug)]
pub struct Ingress {
    /// The address on which webhooks come in.
    pub listen: SocketAddr,
    /// The address under which providers reach it, if it is known here: what is in front of it may have another.
    pub public_url: Option<Url>,
    /// Its limits.
    pub settings: ingress::Settings,
}

impl Ingress {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        let listen = layers.required("ingress.listen");
        let public_url: Option<Option<Url>> = layers.optional("ingress.public_url");
        let max_body = bytes(layers, "ingress.max_body");
        let body_budget = bytes(layers, "ingress.body_budget");
        let small_reserve = bytes(layers, "ingress.small_reserve");
        let max_in_flight = layers.required("ingress.max_in_flight");
        let max_connections = layers.required("ingress.max_connections");
        let peer_share = peer_share(layers);
        let trusted_proxies = layers.optional("ingress.trusted_proxies");
        let header_timeout = layers.required("ingress.header_timeout");
        let keep_alive = layers.required("ingress.keep_alive");
        let max_connection_age = layers.required("ingress.max_connection_age");
        let max_connection_requests = layers.required("ingress.max_connection_requests");
        let body_timeout = layers.required("ingress.body_timeout");
        let least_rate = bytes(layers, "ingress.least_rate");
        let request_timeout = layers.required("ingress.request_timeout");
        let shutdown_grace = layers.required("ingress.shutdown_grace");
        // What bodies may take before they are published, the copies for that aside.
        let bodies = body_budget?.saturating_sub(small_reserve?) / ingress::TAKES;
        let settings = ingress::Settings {
            max_body: max_body?,
            body_budget: body_budget?,
            small_reserve: small_reserve?,
            // The largest body always fits.
            body_bytes_per_client: share(bodies, peer_share?).max(max_body?),
            small_bytes_per_client: share(small_reserve?, peer_share?),
            max_in_flight: max_in_flight?,
            max_per_client: share(max_in_flight?, peer_share?),
            max_connections: max_connections?,
            max_per_peer: share(max_connections?, peer_share?),
            trusted_proxies: trusted_proxies?.unwrap_or_default(),
            header_timeout: header_timeout?,
            keep_alive: keep_alive?,
            max_connection_age: max_connection_age?,
            max_connection_requests: max_connection_requests?,
            body_timeout: body_timeout?,
            least_rate: least_rate?,
            request_timeout: request_timeout?,
            shutdown_grace: shutdown_grace?,
        };
        if bodies < settings.max_body {
            layers.blame_value(
                "ingress.body_budget",
                "must be at least 3 × ingress.max_body + ingress.small_reserve, else the largest body never fits: while it \
                 is published it exists three times",
            );
        }
        if let Some(Some(url)) = &public_url
            && (!matches!(url.scheme(), "https" | "http") || url.query().is_some() || url.fragment().is_some())
        {
            layers.blame_value("ingress.public_url", "must begin with https:// (or http://) and end with the path");
        }
        Some(Self { listen: listen?, public_url: public_url?, settings })
    }

    /// Where a source's provider is to send its webhooks. `https://<your host>` if the configuration doesn't say.
    #[must_use]
    pub fn webhook_url(&self, source: &SourceName) -> String {
        let base = self.public_url.as_ref().map_or("https://<your host>", Url::as_str);
        format!("{}/webhooks/{source}", base.trim_end_matches('/'))
    }
}

fn peer_share(layers: &mut Layers) -> Option<f64> {
    let share: f64 = layers.required("ingress.peer_share")?;
    let sound = share > 0.0 && share <= 1.0;
    if !sound {
        layers.blame_value("ingress.peer_share", "must be more than 0 and at most 1, as 0.25 for a quarter");
    }
    sound.then_some(share)
}

/// So much of that many, and at least one.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of few"
)]
fn share(of: usize, share: f64) -> usize {
    ((of as f64 * share) as usize).max(1)
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
