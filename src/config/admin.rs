//! `[admin]`: health and metrics.

use std::net::SocketAddr;

use super::layers::Layers;

/// The section's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The address of `/live`, `/ready`, `/health` and `/metrics`.
    pub listen: SocketAddr,
}

impl Admin {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        Some(Self { listen: layers.required("admin.listen")? })
    }
}
