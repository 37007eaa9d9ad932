//! Replays: deliveries are published again, from the ledger or from an export, through the broker or over HTTP.
//!
//! The command line and the console call the same functions; nothing here parses arguments or prints. A replay keeps the
//! delivery's id and its first receipt, so it can't do harm: the ledger knows the delivery, a grant is the maximum of a set
//! that the replay adds nothing to, and nobody who has left is connected again. It counts as no new acceptance.
//!
//! * [`plan`]: what a replay would do, without doing it;
//! * [`export`]: deliveries as lines of text with a seal, and back;
//! * [`destination`]: where they go;
//! * [`unreadable`]: messages that couldn't be read, read again;
//! * [`pace`]: how fast.

pub mod destination;
pub mod export;
pub mod pace;
pub mod plan;
pub mod unreadable;

use std::collections::BTreeMap;
use std::future::ready;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::destination::{Destination, Sent};
use self::export::{ExportError, Lines};
use self::pace::{Pace, Rate};
use crate::delivery::Delivery;
use crate::ledger::replays::ReplayProgress;
use crate::ledger::{Ledger, LedgerError};

/// How many deliveries are read from the ledger, or from a file, at a time.
const PAGE: i64 = 256;
/// How often a run tells the ledger how far it has come. Killed, it publishes again what it had published since.
const NOTE: Duration = Duration::from_secs(1);

/// A replay can't go on. What it had published is on record, so that it can be resumed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The file can't be read.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// Where the deliveries go can't be reached.
    #[error("{0}")]
    Unreachable(String),
}

/// Where the deliveries come from.
#[derive(Debug)]
pub enum Origin {
    /// What the run chose in the ledger.
    Ledger,
    /// The lines of an export.
    File(Box<Lines>),
    /// The messages that couldn't be read and bear a version of rollcall's.
    Unreadable,
}

impl Origin {
    async fn page(&mut self, ledger: &Ledger, id: Uuid, cursor: i64) -> Result<Vec<(i64, Delivery)>, ReplayError> {
        match self {
            Self::Ledger => Ok(ledger.replay_page(id, cursor, PAGE).await?),
            Self::File(lines) => Ok(lines.page(cursor, PAGE).await?),
            Self::Unreadable => Ok(unreadable::next(ledger, cursor).await?.into_iter().collect()),
        }
    }
}

/// A run under way.
#[derive(Debug)]
pub struct Run<'a> {
    /// Where it is on record.
    pub ledger: &'a Ledger,
    /// Its id, under which it is on record already.
    pub id: Uuid,
    /// Where the deliveries come from.
    pub origin: Origin,
    /// Where they go.
    pub destination: &'a Destination,
    /// How fast.
    pub rate: Rate,
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// How far it has come.
    pub progress: ReplayProgress,
    /// Whether everything was published; else it was interrupted.
    pub finished: bool,
    /// What was answered, and how often; for those that couldn't be published, why.
    pub answers: BTreeMap<String, i64>,
}

impl Run<'_> {
    /// Publishes what is left, from `progress` on, and tells about each delivery. When the token is cancelled, it begins no
    /// more, finishes what is under way, and notes exactly how far it has come.
    ///
    /// # Errors
    /// If the ledger, the file or the destination fails.
    pub async fn go(
        mut self,
        progress: ReplayProgress,
        token: &CancellationToken,
        told: &mut (dyn FnMut(ReplayProgress) + Send),
    ) -> Result<Ended, ReplayError> {
        let mut ended = Ended { progress, ..Ended::default() };
        let published = self.publish(&mut ended, token, told).await;
        // Also after a failure: whatever was published needn't be published again.
        self.ledger.note_replay(self.id, ended.progress, ended.finished).await?;
        published.map(|()| ended)
    }

    async fn publish(
        &mut self,
        ended: &mut Ended,
        token: &CancellationToken,
        told: &mut (dyn FnMut(ReplayProgress) + Send),
    ) -> Result<(), ReplayError> {
        let (id, destination) = (self.id, self.destination);
        let pace = Pace::new(self.rate);
        let mut noted = Instant::now();
        while !token.is_cancelled() {
            let page = self.origin.page(self.ledger, id, ended.progress.cursor).await?;
            if page.is_empty() {
                ended.finished = true;
                return Ok(());
            }
            // One turn after the other, so that what is begun is always everything up to some delivery.
            let paced = stream::iter(page)
                .then(|next| async { token.run_until_cancelled(pace.turn()).await.map(|()| next) })
                .take_while(|next| ready(next.is_some()))
                .filter_map(ready);
            let mut sending = Box::pin(
                paced
                    .map(|(at, delivery)| async move {
                        (at, destination.send(Delivery { replay: Some(id), ..delivery }).await)
                    })
                    .buffered(destination.window()),
            );
            while let Some((at, sent)) = sending.next().await {
                match sent {
                    Sent::Taken(answer) => {
                        ended.progress.published += 1;
                        if let Origin::Unreadable = self.origin {
                            self.ledger.kept_message_replayed(at, id).await?;
                        }
                        *ended.answers.entry(answer).or_default() += 1;
                    }
                    Sent::Refused(why) => {
                        ended.progress.failed += 1;
                        *ended.answers.entry(why).or_default() += 1;
                    }
                    Sent::Unreachable(why) => return Err(ReplayError::Unreachable(why)),
                }
                ended.progress.cursor = at;
                told(ended.progress);
                if noted.elapsed() >= NOTE {
                    self.ledger.note_replay(id, ended.progress, false).await?;
                    noted = Instant::now();
                }
            }
        }
        Ok(())
    }
}
