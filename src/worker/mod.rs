//! The worker: one delivery → its changes, committed, acked. That is all that a message does; the work that follows
//! belongs to the account.
//!
//! Messages are recorded in batches, one transaction each. While the ledger takes nothing, nothing is acked and nothing is
//! lost: the batch waits here, the rest in the broker, and [`Recording`] says so. A message that the ledger refuses for its
//! own sake is parked with the error, and the others go on. A message that was handed out before may have killed the worker
//! that had it; such a one is recorded alone, before all others, and parked after a few tries of its own.
//!
//! Bodies wait as they travel, compressed, and are decoded for one transaction at a time: what a worker holds is bounded by
//! the bytes of what is decoded. A body that is larger than that bound is recorded alone, too.

mod connections;
mod read;
mod recording;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use self::connections::Connections;
pub use self::read::{Reader, WorkerSource};
use self::recording::Ending;
pub use self::recording::Recording;

use crate::broker::{AckTag, Consumer, EncodedPayload, Lane, Message, NotDecoded, Payload, SharedBroker};
use crate::delivery::{Delivery, Timestamp, TryKey};
use crate::ledger::record::{Entry, Reading, Record};
use crate::ledger::{Ledger, LedgerError};
use crate::reconcile::Reconciler;

/// How many messages are recorded in one transaction at the most.
const BATCH: usize = 256;
/// After so many tries that never finished a message is parked.
pub const TRIES: i64 = 3;
/// How often it is tried to get the memory for one body: for some twenty seconds.
const MEMORY_ATTEMPTS: u32 = 9;
/// How long the end of the process waits for the tries of a message to be forgotten.
const FORGET: Duration = Duration::from_secs(2);

/// Consumes deliveries and records them.
#[derive(Debug)]
pub struct Worker {
    ledger: Ledger,
    reader: Reader,
    reconciler: Arc<Reconciler>,
    recording: Arc<Recording>,
    /// How many bytes of bodies are decoded at a time.
    max_batch: usize,
}

impl Worker {
    /// A worker that doesn't run yet. It decodes at most `max_batch` bytes of bodies at a time, or one body.
    #[must_use]
    pub fn new(ledger: Ledger, reader: Reader, reconciler: Arc<Reconciler>, max_batch: usize) -> Self {
        Self { ledger, reader, reconciler, recording: Arc::default(), max_batch }
    }

    /// The state of recording, as others see it.
    #[must_use]
    pub fn recording(&self) -> Arc<Recording> {
        Arc::clone(&self.recording)
    }

    /// Works until the token is cancelled or the broker is closed.
    pub async fn run(self, broker: SharedBroker, prefetch: u16, token: CancellationToken) {
        self.recording.limit_left(prefetch);
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
            self.recording.holds(&[]);
        }
    }

    async fn batch(
        &self,
        consumer: &mut dyn Consumer,
        batch: Vec<Message>,
        token: &CancellationToken,
    ) -> Result<(), Ending> {
        self.recording.holds(&batch);
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
                let messages = records.into_iter().zip(std::mem::take(&mut together.tags)).collect();
                let (due, recorded) = self.record_each(messages, token).await?;
                together.tags = recorded;
                due
            }
        };
        if due {
            self.reconciler.wake();
        }
        Ok(())
    }

    /// Records messages one by one, each as well as it can be. Returns whether an account became due, and the tags of what
    /// is recorded. The others stay in the broker, and nobody waits for them, unless it is the database that takes nothing.
    async fn record_each(
        &self,
        mut messages: Vec<(Record, AckTag)>,
        token: &CancellationToken,
    ) -> Result<(bool, Vec<AckTag>), Ending> {
        let (mut due, mut tags) = (false, Vec::with_capacity(messages.len()));
        let mut takes_others = false;
        for attempt in 0.. {
            let mut refused = Vec::new();
            for (record, tag) in messages {
                match self.record_somehow(&record, token).await? {
                    Ok(now_due) => {
                        due |= now_due;
                        tags.push(tag);
                    }
                    Err(error) => refused.push((record, tag, error)),
                }
            }
            let Some((first, _, error)) = refused.first() else { break };
            if takes_others {
                self.recording.resume();
                for (record, tag, error) in refused {
                    let message = name_of(&record);
                    tracing::error!(message, %error, "a message can't be recorded in any way; it stays in the broker");
                    self.recording.leaves(tag, received_at(&record), &error);
                }
                break;
            }
            // What is refused although others are taken has one more try: the database may just have come back.
            takes_others = self.takes_others(first, token).await?;
            if !takes_others {
                self.recording.pause(token, error, attempt).await?;
            }
            messages = refused.into_iter().map(|(record, tag, _)| (record, tag)).collect();
        }
        Ok((due, tags))
    }

    /// Whether the database would take another delivery of the same source, which says nothing.
    async fn takes_others(&self, refused: &Record, token: &CancellationToken) -> Result<bool, Ending> {
        let like = match refused {
            Record::Delivery(entry) => Some(&entry.delivery),
            Record::Checkpoint(_) | Record::Unreadable { .. } => None,
        };
        let tried =
            self.recording.until_done(&self.ledger, token, LedgerError::is_outage, || self.ledger.try_recording(like));
        Ok(tried.await?.is_ok())
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
            let again = |error: &LedgerError| error.is_outage() && !(error.is_timeout() && size > 1);
            match self.recording.until_done(&self.ledger, token, again, || self.ledger.record(part)).await? {
                Ok(now_due) => {
                    self.recording.resume();
                    (rest, due) = (later, due | now_due);
                }
                Err(error) if error.is_timeout() => {
                    size = part.len().div_ceil(2);
                    tracing::error!(%error, size, "the ledger doesn't take deliveries; trying fewer at a time");
                }
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(due))
    }

    /// Records a message as what it means; if the ledger can't take that, as a parked delivery, or as bytes that can't be
    /// read. An error if it takes none of them.
    async fn record_somehow(
        &self,
        record: &Record,
        token: &CancellationToken,
    ) -> Result<Result<bool, LedgerError>, Ending> {
        let mut form = record.clone();
        loop {
            match self.persist(token, || self.ledger.record(std::slice::from_ref(&form))).await? {
                Ok(due) => {
                    self.recording.resume();
                    return Ok(Ok(due));
                }
                Err(error) => match lesser(form, &error) {
                    Some(next) => form = next,
                    None => return Ok(Err(error)),
                },
            }
        }
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
        let record = self.decode_alone(&payload, key.as_ref(), lane, token).await?;
        drop(payload);
        let mut together = Together::default();
        together.add(record, tag);
        let recorded = self.record(&mut together, token).await;
        if let Some(key) = &key {
            match &recorded {
                Ok(()) => self.forget_tries(key, token).await?,
                // An end in good order is nothing that the message has done. If that can't be said, it counts as a try.
                Err(Ending) => drop(timeout(FORGET, self.ledger.finish_delivery(key)).await),
            }
        }
        recorded?;
        self.settle(consumer, &mut together, token).await
    }

    /// What to record of a message that has its memory to itself. While there is none for it, it is waited for.
    async fn decode_alone(
        &self,
        payload: &EncodedPayload,
        key: Option<&TryKey>,
        lane: Lane,
        token: &CancellationToken,
    ) -> Result<Record, Ending> {
        for attempt in 1.. {
            let tries = match key {
                None => 1,
                Some(key) => self.persist(token, || self.ledger.begin_delivery(key)).await?.unwrap_or_else(|error| {
                    tracing::error!(%error, "the tries of a message can't be counted");
                    1
                }),
            };
            if tries > TRIES {
                // Not even parking it comes to an end, for which it is decoded.
                let why = format!("it was begun {tries} times and never finished; it is kept as it travelled");
                return Ok(self.understand(payload.unreadable(why), lane));
            }
            match payload.decode(usize::MAX) {
                Ok(Payload::Delivery(delivery)) if tries == TRIES => {
                    tracing::error!(
                        source = %delivery.source, id = %delivery.id, tries,
                        "a delivery was begun again and again and never finished; it is parked"
                    );
                    return Ok(entry(
                        delivery,
                        Reading::Parked(format!("it was begun {tries} times and never finished")),
                    ));
                }
                Ok(decoded) => return Ok(self.understand(decoded, lane)),
                Err(error) if attempt < MEMORY_ATTEMPTS => {
                    // It has killed nobody.
                    if let Some(key) = key {
                        self.forget_tries(key, token).await?;
                    }
                    self.recording.pause(token, &error, attempt).await?;
                }
                Err(error) => {
                    let why = format!("{error}, {attempt} times in a row; it is kept as it travelled");
                    return Ok(self.understand(payload.unreadable(why), lane));
                }
            }
        }
        Err(Ending)
    }

    async fn forget_tries(&self, key: &TryKey, token: &CancellationToken) -> Result<(), Ending> {
        if let Err(error) = self.persist(token, || self.ledger.finish_delivery(key)).await? {
            tracing::warn!(%error, "the tries of a message can't be forgotten");
        }
        Ok(())
    }

    /// Does something with the ledger until it is done or can't be: while the ledger takes nothing it waits.
    async fn persist<T, F>(
        &self,
        token: &CancellationToken,
        work: impl Fn() -> F,
    ) -> Result<Result<T, LedgerError>, Ending>
    where
        F: Future<Output = Result<T, LedgerError>>,
    {
        self.recording.until_done(&self.ledger, token, LedgerError::is_outage, work).await
    }
}

/// When a delivery was received that waits since then: a replay doesn't.
fn received_at(record: &Record) -> Option<Timestamp> {
    match record {
        Record::Delivery(entry) => Some(entry.delivery.received_at).filter(|_| entry.delivery.replay.is_none()),
        Record::Checkpoint(_) | Record::Unreadable { .. } => None,
    }
}

/// What a message is called in the log.
fn name_of(record: &Record) -> String {
    match record {
        Record::Delivery(entry) => format!("{} {}", entry.delivery.source, entry.delivery.id),
        Record::Checkpoint(checkpoint) => format!("checkpoint {} {}", checkpoint.source, checkpoint.run),
        Record::Unreadable { id, .. } => format!("unreadable {}", id.as_deref().unwrap_or_default()),
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
