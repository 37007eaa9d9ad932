//! `/user-identities/version-control`: finding identities and setting their links.
//!
//! <https://developers.drata.com/docs/openapi/reference/operation/UserIdentitiesPublicController_updateUserIdentityVersionControlConnection>

use reqwest::Method;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::call::Operation;
use super::client::Client;
use super::wire::{self, ConnectBody};
use crate::target::{ConnectionRef, Failure, Identity, IdentityRef, LinkStatus};

/// Which identities to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those of the connection with this id.
    pub connection_id: Option<i64>,
    /// Only those of connections of this client type.
    pub client_type: Option<String>,
}

impl From<&ConnectionRef> for Filter {
    fn from(connection: &ConnectionRef) -> Self {
        match connection {
            ConnectionRef::Id(id) => Self { connection_id: Some(*id), client_type: None },
            ConnectionRef::Only(client_type) => Self { connection_id: None, client_type: Some(client_type.clone()) },
        }
    }
}

impl Client {
    /// Finds identities; with `q`, only those whose id, username or e-mail address Drata finds it in. How it finds
    /// (whole, beginning, anywhere) isn't documented: compare what comes back.
    ///
    /// # Errors
    /// If Drata can't be asked, refuses, or its list can't be read to the end.
    pub async fn find_identities(&self, connection: &Filter, q: Option<&str>) -> Result<Vec<Identity>, Failure> {
        let query: Vec<(&str, String)> = [
            ("connectionId", connection.connection_id.map(|id| id.to_string())),
            ("clientType", connection.client_type.clone()),
            ("q", q.map(str::to_owned)),
        ]
        .into_iter()
        .filter_map(|(key, value)| value.map(|value| (key, value)))
        .collect();
        let read = |row: &RawValue| wire::identity(row.get().as_bytes()).map(|identity| (identity.id.0, identity));
        self.list(Operation::ListIdentities, &["user-identities", "version-control"], &query, read).await
    }

    /// Sets the link of an identity with one request. `Ok` means that Drata has done it; the identity as it is now comes
    /// along if the answer could be read.
    ///
    /// # Errors
    /// If Drata can't be asked, or refuses. After a transient failure it may have done it all the same.
    pub async fn set_status(&self, identity: IdentityRef, status: LinkStatus) -> Result<Option<Identity>, Failure> {
        self.put_status(identity, status, None).await
    }

    /// As [`Client::set_status`], but sends nothing after `send_by`: then it is throttled. For callers under a lease,
    /// whose status may be overtaken while the request waits for its turn under the rate limit.
    ///
    /// # Errors
    /// As [`Client::set_status`].
    pub async fn set_status_by(
        &self,
        identity: IdentityRef,
        status: LinkStatus,
        send_by: Instant,
    ) -> Result<Option<Identity>, Failure> {
        self.put_status(identity, status, Some(send_by)).await
    }

    async fn put_status(
        &self,
        identity: IdentityRef,
        status: LinkStatus,
        send_by: Option<Instant>,
    ) -> Result<Option<Identity>, Failure> {
        let user_id = match status {
            LinkStatus::Linked(person) => Some(person),
            LinkStatus::Unlinked => None,
        };
        let id = identity.to_string();
        let request = self
            .request(Method::PUT, &["user-identities", "version-control", &id, "connect"])
            .json(&ConnectBody { user_id });
        let body = self.send(Operation::Connect, request, send_by).await?;
        // An answer about another identity tells nothing about this one.
        Ok(body.as_deref().and_then(wire::identity).filter(|answered| answered.id == identity))
    }
}
