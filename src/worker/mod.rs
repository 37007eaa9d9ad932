//! The worker: one delivery → its changes, committed, acked. That is all that a message does; the work that follows
//! belongs to the account.
//!
//! Messages are recorded in batches, one transaction each. While the ledger is down nothing is acked and nothing is
//! lost: the batch waits here, the rest in the broker. A message that was handed out before may have killed the worker
//! that had it; such a one is recorded alone, and parked after a few tries of its own.

mod connections;
mod read;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use self::connections::Connections;
pub use self::read::{Reader, WorkerSource};

use crate::broker::{AckTag, Consumer, Lane, Message, Payload, SharedBroker};
use crate::delivery::Delivery;
use crate::ledger::record::{Entry, Reading, Record};
use crate::ledger::{Ledger, LedgerError};
use crate::reconcile::Reconciler;

/// How many messages are recorded in one transaction at the most.
const BATCH: usize = 256;
/// After so many tries that never finished a message is parked.
const TRIES: i64 = 3;
/// How long to wait for the ledger between tries.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Consumes deliveries and records them.
#[derive(Debug)]
pub struct Worker {
    ledger: Ledger,
    reader: Reader,
    reconciler: Arc<Reconciler>,
}

/// The process is to end; what isn't acked comes again.
struct Ending;

impl Worker {
    /// A worker that doesn't run yet.
    #[must_use]
    pub const fn new(ledger: Ledger, reader: Reader, reconciler: Arc<Reconciler>) -> Self {
        Self { ledger, reader, reconciler }
    }

    /// Works until the token is cancelled or the broker is closed.
    pub async fn run(self, broker: SharedBroker, prefetch: u16, token: CancellationToken) {
        let mut consumer = broker.consume(prefetch).await;
        while let Some(Some(first)) = token.run_until_cancelled(consumer.next()).await {
            let mut batch = vec![first];
            while batch.len() < BATCH
                && let Some(message) = consumer.try_next()
            {
                batch.push(message);
            }
            if self.batch(consumer.as_mut(), batch, &token).await.is_err() {
                return;
            }
        }
    }

    async fn batch(
        &self,
        consumer: &mut dyn Consumer,
        batch: Vec<Message>,
        token: &CancellationToken,
    ) -> Result<(), Ending> {
        let mut records = Vec::with_capacity(batch.len());
        let mut tags: Vec<AckTag> = Vec::with_capacity(batch.len());
        for message in batch {
            if let (true, Payload::Delivery(delivery)) = (message.redelivered, &message.payload) {
                // What came before it is recorded first, so that it really is alone.
                self.record(&mut records, token).await?;
                self.alone(delivery, message.lane, token).await?;
            } else {
                records.push(self.understand(message.payload, message.lane));
            }
            tags.push(message.tag);
        }
        self.record(&mut records, token).await?;
        let late = consumer.ack(&tags).await;
        if late > 0 {
            tracing::debug!(late, "acks came after their session; those messages come again, and change nothing");
        }
        Ok(())
    }

    fn understand(&self, payload: Payload, lane: Lane) -> Record {
        match payload {
            Payload::Delivery(delivery) => {
                let reading = match lane {
                    Lane::Work | Lane::Replay => self.reader.read(&delivery),
                    Lane::Parked => Reading::Parked("the broker gave up on it (delivery limit)".to_owned()),
                };
                entry(delivery, reading)
            }
            Payload::Checkpoint(checkpoint) => Record::Checkpoint(checkpoint),
            Payload::Unreadable { id, why, body } => {
                tracing::error!(id, why, bytes = body.len(), "a message can't be read; it is kept as unreadable");
                Record::Unreadable { id, why, body }
            }
        }
    }

    /// Records what has come together, however long the ledger takes.
    async fn record(&self, records: &mut Vec<Record>, token: &CancellationToken) -> Result<(), Ending> {
        if records.is_empty() {
            return Ok(());
        }
        let due = match self.persist(token, || self.ledger.record(records)).await? {
            Ok(due) => due,
            Err(error) => {
                // Something in the batch can't be recorded at all: find out what, and let the others through.
                tracing::error!(%error, messages = records.len(), "a batch can't be recorded; trying its messages one by one");
                let mut due = false;
                for record in records.iter() {
                    due |= self.record_one(record, token).await?;
                }
                due
            }
        };
        records.clear();
        if due {
            self.reconciler.wake();
        }
        Ok(())
    }

    async fn record_one(&self, record: &Record, token: &CancellationToken) -> Result<bool, Ending> {
        match self.persist(token, || self.ledger.record(std::slice::from_ref(record))).await? {
            Ok(due) => Ok(due),
            Err(error) => {
                let parked = match record {
                    Record::Delivery(entry) => Record::Delivery(Box::new(Entry {
                        reading: Reading::Parked(format!("it can't be recorded as what it means: {error}")),
                        ..(**entry).clone()
                    })),
                    other => other.clone(),
                };
                if let Err(error) = self.persist(token, || self.ledger.record(std::slice::from_ref(&parked))).await? {
                    tracing::error!(%error, "a message can't be recorded at all; it stays in the broker");
                    return Err(Ending);
                }
                Ok(false)
            }
        }
    }

    /// Records a message that was handed out before.
    async fn alone(&self, delivery: &Delivery, lane: Lane, token: &CancellationToken) -> Result<(), Ending> {
        let tries = match self.persist(token, || self.ledger.begin_delivery(delivery)).await? {
            Ok(tries) => tries,
            Err(error) => {
                tracing::error!(%error, "the tries of a message can't be counted");
                1
            }
        };
        let record = if tries >= TRIES {
            entry(delivery.clone(), Reading::Parked(format!("it was begun {tries} times and never finished")))
        } else {
            self.understand(Payload::Delivery(delivery.clone()), lane)
        };
        self.record(&mut vec![record], token).await?;
        if let Err(error) = self.persist(token, || self.ledger.finish_delivery(delivery)).await? {
            tracing::warn!(%error, "the tries of a recorded message can't be forgotten");
        }
        Ok(())
    }

    /// Does something with the ledger until it is done or can't be: while the ledger is down it waits.
    async fn persist<T, F>(
        &self,
        token: &CancellationToken,
        work: impl Fn() -> F,
    ) -> Result<Result<T, LedgerError>, Ending>
    where
        F: Future<Output = Result<T, LedgerError>>,
    {
        let mut pause = FIRST_PAUSE;
        loop {
            match work().await {
                Err(error) if error.is_transient() => {
                    tracing::error!(%error, "the ledger doesn't take deliveries; consumption pauses");
                    if token.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                        return Err(Ending);
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                done => return Ok(done),
            }
        }
    }
}

fn entry(delivery: Delivery, reading: Reading) -> Record {
    Record::Delivery(Box::new(Entry { delivery, reading, approved: false }))
}
