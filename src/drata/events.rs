//! `GET /events`: what Drata itself has written down of the links that were changed through its API.
//!
//! The shape is that of `EventResponsePublicDto` in <https://developers.drata.com/openapi/reference/v1/overview/>. What
//! `metadata` holds isn't documented beyond its fields' names, and neither is the form of the dates, so whole days are
//! asked for and the rest is left out here.

use serde_json::value::RawValue;

use super::call::Operation;
use super::client::Client;
use super::wire;
use crate::delivery::Timestamp;
use crate::target::{Failure, IdentityRef};

/// An entry of Drata's own event log: a link was changed through the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkEvent {
    /// Its id.
    pub id: String,
    /// When Drata wrote it.
    pub at: Timestamp,
    /// The identity that it is about, where it says so.
    pub identity: Option<IdentityRef>,
}

impl Client {
    /// What was written from one time to another, the oldest first.
    ///
    /// # Errors
    /// If Drata can't be asked, its list can't be read, or it refuses: the key may lack the permission
    /// *Event Tracking: List Events*.
    pub async fn link_events(&self, from: Timestamp, to: Timestamp) -> Result<Vec<LinkEvent>, Failure> {
        const DAY: i64 = 86_400_000_000;
        let day = |at: Timestamp| at.to_string().chars().take(10).collect::<String>();
        let query = [
            ("source", "PUBLIC_API".to_owned()),
            ("type", "USER_IDENTITY_VERSION_CONTROL_LINK_UPDATED".to_owned()),
            ("createdAtStartDate", day(from.plus_micros(-DAY))),
            ("createdAtEndDate", day(to.plus_micros(DAY))),
        ];
        let read = |row: &RawValue| wire::link_event(row.get().as_bytes());
        let mut events = self.list(Operation::ListEvents, &["events"], &query, read).await?;
        events.retain(|event| (from..to).contains(&event.at));
        events.sort_by_key(|event| event.at);
        Ok(events)
    }
}
