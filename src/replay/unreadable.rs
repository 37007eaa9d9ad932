//! Messages that couldn't be read, read again: a newer version may be able to, or there may be memory for them now.
//!
//! Only what bears a version of rollcall's is read; what strangers have sent stays where it is. Each is published as the
//! delivery that it is, with its stamp, so that the balance no longer misses it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::broker::{EncodedPayload, Payload};
use crate::delivery::{Delivery, Timestamp};
use crate::ledger::unreadable::KeptMessage;
use crate::ledger::{Ledger, LedgerError};

/// What can be read again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReadAgain {
    /// How many messages are deliveries that can be read now.
    pub deliveries: i64,
    /// How many of each source.
    pub sources: BTreeMap<String, i64>,
    /// When the first was received.
    pub first: Option<Timestamp>,
    /// When the last was received.
    pub last: Option<Timestamp>,
    /// Those that still can't be read, with the reason; they stay where they are.
    pub unread: Vec<Unread>,
}

/// A message that still can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// Its row among the unreadable messages.
    pub row: i64,
    /// Why it can't be read.
    pub why: String,
}

/// Reads every message again, one after the other.
///
/// # Errors
/// If the ledger fails.
pub async fn plan(ledger: &Ledger) -> Result<ReadAgain, LedgerError> {
    let mut plan = ReadAgain::default();
    let mut cursor = 0;
    while let Some(message) = ledger.next_kept_message(cursor).await? {
        cursor = message.row;
        match read(message) {
            Ok(delivery) => {
                plan.deliveries += 1;
                *plan.sources.entry(delivery.source.to_string()).or_default() += 1;
                let at = delivery.received_at;
                plan.first = Some(plan.first.map_or(at, |first| first.min(at)));
                plan.last = Some(plan.last.map_or(at, |last| last.max(at)));
            }
            Err(why) => plan.unread.push(Unread { row: cursor, why }),
        }
    }
    Ok(plan)
}

/// The next delivery behind `cursor` that can be read, with its row.
pub(super) async fn next(ledger: &Ledger, mut cursor: i64) -> Result<Option<(i64, Delivery)>, LedgerError> {
    while let Some(message) = ledger.next_kept_message(cursor).await? {
        cursor = message.row;
        match read(message) {
            Ok(delivery) => return Ok(Some((cursor, delivery))),
            Err(why) => tracing::debug!(row = cursor, why, "a message still can't be read"),
        }
    }
    Ok(None)
}

fn read(message: KeptMessage) -> Result<Delivery, String> {
    let payload = EncodedPayload::kept(&message.properties, message.body)
        .ok_or_else(|| "what was kept beside its bytes isn't this version's".to_owned())?;
    match payload.decode(usize::MAX).map_err(|error| error.to_string())? {
        Payload::Delivery(delivery) => Ok(delivery),
        Payload::Checkpoint(_) => Err("it is a checkpoint, which later ones have replaced".to_owned()),
        Payload::Unreadable { why, .. } => Err(why),
    }
}
