//! `[drata]`: the compliance platform.

use std::time::Duration;

use url::Url;

use super::layers::Layers;
use super::secret::{SecretRef, is_clear, meant};

/// The section's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drata {
    /// The base URL of the public API.
    pub base_url: Url,
    /// Whether an `http://` address is meant although the key then goes over the network in the clear.
    pub insecure: bool,
    /// Where the API key is. Only the worker needs it.
    pub api_key: Option<SecretRef>,
    /// The most requests a minute.
    pub requests_per_minute: u32,
    /// How long one request may take.
    pub timeout: Duration,
}

impl Drata {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        let base_url = layers.required::<Url>("drata.base_url");
        let insecure = layers.required("drata.insecure");
        let api_key = layers.optional("drata.api_key");
        let requests_per_minute = layers.required("drata.requests_per_minute");
        let timeout = layers.required("drata.timeout");
        let base_url = base_url?;
        if !matches!(base_url.scheme(), "https" | "http") {
            layers.blame_value("drata.base_url", "must begin with https:// (or http:// for the sandbox)");
        }
        if insecure == Some(false) && is_clear(&base_url) {
            layers.blame_value("drata.base_url", format!("must begin with https://{}", meant("drata.insecure")));
        }
        if !base_url.username().is_empty() || base_url.password().is_some() || base_url.query().is_some() {
            layers.blame_value(
                "drata.base_url",
                "must have no user, password or query; the key belongs in drata.api_key",
            );
        }
        Some(Self {
            base_url,
            insecure: insecure?,
            api_key: api_key?,
            requests_per_minute: requests_per_minute?,
            timeout: timeout?,
        })
    }
}
