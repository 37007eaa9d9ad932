//! `GET /connections`

use serde_json::value::RawValue;

use super::call::Operation;
use super::client::Client;
use super::wire;
use crate::target::{Connection, Failure};

impl Client {
    /// All connections that have a client type, of version control or not, without deleted ones. Remembered for a few minutes.
    ///
    /// # Errors
    /// If Drata can't be asked, refuses, or its list can't be read.
    pub async fn connections(&self) -> Result<Vec<Connection>, Failure> {
        if let Some(connections) = self.shared.connections.recall(&()) {
            return Ok(connections);
        }
        let read = |row: &RawValue| wire::connection(row.get().as_bytes());
        let rows = self.list(Operation::ListConnections, &["connections"], &[], read).await?;
        let connections: Vec<Connection> = rows.into_iter().flatten().collect();
        self.shared.connections.keep((), connections.clone(), self.shared.settings.connections_ttl);
        Ok(connections)
    }

    /// Makes the next [`Client::connections`] ask Drata.
    pub fn forget_connections(&self) {
        self.shared.connections.forget(&());
    }
}
