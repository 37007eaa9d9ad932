//! The worker: one delivery → its changes, committed, acked. That is all that a message does; the work that follows
//! belongs to the account.
//!
//! Messages are recorded in batches, one transaction each. While the ledger is down nothing is acked and nothing is
//! lost: the batch waits here, the rest in the broker. A message that was handed out before may have killed the worker
//! that had it; such a one is recorded alone, before all others, and parked after a few tries of its own.
//!
//! Bodies wait as they travel, compressed, and are decoded for one transaction at a time: what a worker holds is bounded by
//! the bytes of what is decoded. A body that is larger than that bound is recorded alone, too.

mod connections;
mod read;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use self::connections::Connections;
pub use self::read::{Reader, WorkerSource};

use crate::backoff::Backoff;
use crate::broker::{AckTag, Consumer, EncodedPayload, Lane, Message, NotDecoded, Payload, SharedBroker};
use crate::delivery::Delivery;
use crate::ledger::record::{Entry, Reading, Record};
use crate::ledger::{Ledger, LedgerError};
use crate::reconcile::Reconciler;

/// How many messages are recorded in one transaction at the most.
const BATCH: usize = 256;
/// After so many tries that never finished a message is parked.
pub const TRIES: i64 = 3;
/// How long to wait for the ledger between tries.
const AGAIN: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(5) };

/// Consumes deliveries and records them.
#[derive(Debug)]
pub struct Worker {
    ledger: Ledger,
    reader: Reader,
    reconciler: Arc<Reconciler>,
    /// How many bytes of bodies are decoded at a time.
    max_batch: usize,
}

/// The process is to end; what isn't acked comes again.
struct Ending;

impl Worker {
    /// A worker that doesn't run yet. It decodes at most `max_batch` bytes of bodies at a time, or one body.
    #[must_use]
    pub const fn new(ledger: Ledger, reader: Reader, reconciler: Arc<Reconciler>, max_batch: usize) -> Self {
        Self { ledger, reader, reconciler, max_batch }
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
        // Before anything else is decoded: any of these may be what killed a worker.
        let (again, first): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|message| message.redelivered && message.payload.is_delivery());
        for message in again {
            self.alone(consumer, message, token).await?;
        }
        let mut together = Together::default();
        let mut room = self.max_batch;
        for message in first {
            if message.payload.declared_len() > room {
                self.settle(consumer, &mut together, token).await?;
                room = self.max_batch;
            }
            match message.payload.decode(room) {
                Ok(payload) => {
                    room = room.saturating_sub(payload.body_len());
                    together.add(self.understand(payload, message.lane), message.tag);
                }
                Err(NotDecoded::TooLong | NotDecoded::OutOfMemory) => {
                    self.settle(consumer, &mut together, token).await?;
                    room = self.max_batch;
                    self.alone(consumer, message, token).await?;
                }
            }
        }
        self.settle(consumer, &mut together, token).await
    }

    /// Records what has come together, and acks what is recorded.
    async fn settle(
        &self,
        consumer: &mut dyn Consumer,
        together: &mut Together,
        token: &CancellationToken,
    ) -> Result<(), Ending> {
        self.record(together, token).await?;
        if !together.tags.is_empty() {
            let late = consumer.ack(&together.tags).await;
            if late > 0 {
                tracing::debug!(late, "acks came after their session; those messages come again, and change nothing");
            }
        }
        together.tags.clear();
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
            Payload::Unreadable { id, why, body, properties } => {
                tracing::error!(id, why, bytes = body.len(), "a message can't be read; it is kept as unreadable");
                Record::Unreadable { id, why, body, properties }
            }
        }
    }

    /// Records what has come together, however long the ledger takes. What can't be recorded in any way loses its tag.
    async fn record(&self, together: &mut Together, token: &CancellationToken) -> Result<(), Ending> {
        if together.records.is_empty() {
            return Ok(());
        }
        let records = std::mem::take(&mut together.records);
        let due = match self.record_all(&records, token).await? {
            Ok(due) => due,
            Err(error) => {
                // Something in the batch can't be recorded at all: find out what, and let the others through.
                tracing::error!(%error, messages = records.len(), "a batch can't be recorded; trying its messages one by one");
                let mut due = false;
                let mut recorded = Vec::with_capacity(records.len());
                for (record, tag) in records.into_iter().zip(std::mem::take(&mut together.tags)) {
                    if let Some(now_due) = self.record_somehow(record, token).await? {
                        due |= now_due;
                        recorded.push(tag);
                    }
                }
                together.tags = recorded;
                due
            }
        };
        if due {
            self.reconciler.wake();
        }
        Ok(())
    }

    /// Records messages in one transaction; in smaller ones if the database is too slow for so many in the time that it
    /// is waited for. Returns whether an account became due.
    async fn record_all(
        &self,
        records: &[Record],
        token: &CancellationToken,
    ) -> Result<Result<bool, LedgerError>, Ending> {
        let (mut rest, mut size, mut due) = (records, records.len(), false);
        while !rest.is_empty() {
            let (part, later) = rest.split_at(size.min(rest.len()));
            let again = |error: &LedgerError| {
                error.is_transient() && !(matches!(error, LedgerError::Silent { .. }) && size > 1)
            };
            match self.persist_while(token, again, || self.ledger.record(part)).await? {
                Ok(now_due) => (rest, due) = (later, due | now_due),
                Err(error @ LedgerError::Silent { .. }) => {
                    size = part.len().div_ceil(2);
                    tracing::error!(%error, size, "the ledger doesn't take deliveries; trying fewer at a time");
                }
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(due))
    }

    /// Records a message as what it means; if the ledger can't take that, as a parked delivery, or as bytes that can't be
    /// read. None if it takes none of them: then it stays in the broker, and nobody else waits for it.
    async fn record_somehow(&self, record: Record, token: &CancellationToken) -> Result<Option<bool>, Ending> {
        let mut next = Some(record);
        while let Some(record) = next {
            match self.persist(token, || self.ledger.record(std::slice::from_ref(&record))).await? {
                Ok(due) => return Ok(Some(due)),
                Err(error) => {
                    next = lesser(record, &error);
                    if next.is_none() {
                        tracing::error!(%error, "a message can't be recorded in any way; it stays in the broker");
                    }
                }
            }
        }
        Ok(None)
    }

    /// Records one message with nothing else beside it. Its tries are counted before it is decoded, since that may be what
    /// kills.
    async fn alone(
        &self,
        consumer: &mut dyn Consumer,
        message: Message,
        token: &CancellationToken,
    ) -> Result<(), Ending> {
        let Message { payload, lane, tag, .. } = message;
        let key = payload.try_key();
        let mut attempt = 0;
        let record = loop {
            attempt += 1;
            let tries = match &key {
                None => attempt,
                Some(key) => match self.persist(token, || self.ledger.begin_delivery(key)).await? {
                    Ok(tries) => tries,
                    Err(error) => {
                        tracing::error!(%error, "the tries of a message can't be counted");
                        attempt
                    }
                },
            };
            match self.try_alone(&payload, lane, tries) {
                Ok(record) => break record,
                Err(error) => {
                    tracing::error!(%error, tries, "a message can't be decoded at the moment; will try again");
                    let pause = AGAIN.pause(u32::try_from(tries).unwrap_or(u32::MAX), fastrand::f64());
                    if token.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                        return Err(Ending);
                    }
                }
            }
        };
        drop(payload);
        let mut together = Together::default();
        together.add(record, tag);
        self.record(&mut together, token).await?;
        if let Some(key) = &key
            && let Err(error) = self.persist(token, || self.ledger.finish_delivery(key)).await?
        {
            tracing::warn!(%error, "the tries of a recorded message can't be forgotten");
        }
        self.settle(consumer, &mut together, token).await
    }

    /// What to record of a message at this try. An error if it can't be decoded now, and may be another time.
    fn try_alone(&self, payload: &EncodedPayload, lane: Lane, tries: i64) -> Result<Record, NotDecoded> {
        if tries > TRIES {
            // Not even parking it comes to an end, for which it is decoded.
            let why = format!("it was begun {tries} times and never finished; it is kept as it travelled");
            return Ok(self.understand(payload.unreadable(why), lane));
        }
        let decoded = payload.decode(usize::MAX)?;
        Ok(match decoded {
            Payload::Delivery(delivery) if tries == TRIES => {
                tracing::error!(
                    source = %delivery.source, id = %delivery.id, tries,
                    "a delivery was begun again and again and never finished; it is parked"
                );
                entry(delivery, Reading::Parked(format!("it was begun {tries} times and never finished")))
            }
            decoded => self.understand(decoded, lane),
        })
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
        self.persist_while(token, LedgerError::is_transient, work).await
    }

    async fn persist_while<T, F>(
        &self,
        token: &CancellationToken,
        again: impl Fn(&LedgerError) -> bool,
        work: impl Fn() -> F,
    ) -> Result<Result<T, LedgerError>, Ending>
    where
        F: Future<Output = Result<T, LedgerError>>,
    {
        let mut attempt = 0;
        loop {
            match self.ledger.in_time(work()).await {
                Err(error) if again(&error) => {
                    tracing::error!(%error, "the ledger doesn't take deliveries; consumption pauses");
                    let pause = AGAIN.pause(attempt, fastrand::f64());
                    if token.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                        return Err(Ending);
                    }
                    attempt += 1;
                }
                done => return Ok(done),
            }
        }
    }
}

/// Records that go into one transaction, and the tags to ack when it is committed.
#[derive(Default)]
struct Together {
    records: Vec<Record>,
    tags: Vec<AckTag>,
}

impl Together {
    fn add(&mut self, record: Record, tag: AckTag) {
        self.records.push(record);
        self.tags.push(tag);
    }
}

/// What else a message can be recorded as that the ledger refused.
fn lesser(refused: Record, error: &LedgerError) -> Option<Record> {
    let Record::Delivery(refused) = refused else { return None };
    Some(match &refused.reading {
        Reading::Parked(_) => Record::Unreadable {
            id: Some(refused.delivery.id.to_string()),
            why: format!("a delivery of source {} can't be recorded: {error}", refused.delivery.source),
            properties: crate::broker::kept_properties(&refused.delivery),
            body: refused.delivery.body,
        },
        _ => {
            let why = format!("it can't be recorded as what it means: {error}");
            Record::Delivery(Box::new(Entry { reading: Reading::Parked(why), ..*refused }))
        }
    })
}

fn entry(delivery: Delivery, reading: Reading) -> Record {
    Record::Delivery(Box::new(Entry { delivery, reading, approved: false }))
}

#[cfg(test)]
mod tests;
