//! The forwarder: takes what the spool holds to the broker, in order, and deletes only what was confirmed.
//!
//! It begins with one message, which shows whether the broker takes anything, and goes on with more at a time; with few
//! while live deliveries are on their way to the broker, so that those aren't crowded out. Order holds but for what had
//! to be published again. One message that nobody can route or read never keeps the others waiting.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::Shared;
use super::contents::Share;
use crate::broker::pause::pause;
use crate::broker::{AckTag, Broker as _, Consumer, Item, Message, Payload, PublishError, State};
use crate::delivery::{Checkpoint, Timestamp};
use crate::telemetry::metrics as names;

/// How many messages it publishes at once at most: the confirms of a quorum queue gain little from more.
const WINDOW: usize = 64;
/// The same while live deliveries are on their way to the broker.
const BESIDE_LIVE: usize = 8;
/// How many bytes of bodies it publishes at once, unless one alone is larger.
const BYTES: usize = 8 * 1024 * 1024;
/// How many messages it may have in its hands.
const PREFETCH: u16 = 256;
/// How long one that no queue takes has to wait for its next turn.
const UNROUTABLE: u32 = 5;
/// How often to look whether the broker is back.
const LOOK: Duration = Duration::from_millis(100);
/// How often the ledger is told what is held: a few times within the default of `balance.after`.
const TELL: Duration = Duration::from_secs(10);

/// The forwarder.
pub(super) struct Forwarder {
    shared: Arc<Shared>,
    consumer: Box<dyn Consumer>,
    /// In order.
    waiting: VecDeque<Waiting>,
    /// How many messages to publish at once.
    window: usize,
    /// How often in a row nothing was taken.
    attempt: u32,
    /// How many deliveries it has forwarded since the spool was last empty.
    forwarded: u64,
}

/// A message in its hands.
struct Waiting {
    tag: AckTag,
    item: Item,
    share: Share,
    /// How often no queue took it.
    unroutable: u32,
    /// When it is tried, if not in its turn.
    not_before: Option<Instant>,
}

impl Forwarder {
    pub(super) async fn start(shared: Arc<Shared>) -> Option<Self> {
        let consumer = shared.queue.get()?.consume(PREFETCH).await;
        Some(Self { shared, consumer, waiting: VecDeque::new(), window: 1, attempt: 0, forwarded: 0 })
    }

    /// Forwards whatever comes. Dropping it in the middle leaves what wasn't confirmed in the spool.
    pub(super) async fn run(mut self) {
        loop {
            self.something_due().await;
            self.broker_is_back().await;
            self.publish().await;
        }
    }

    /// Waits until there is something to publish.
    async fn something_due(&mut self) {
        loop {
            let now = Instant::now();
            while self.due(now).map(|(_, waiting)| waiting.item.len()).sum::<usize>() < BYTES
                && self.due(now).count() < WINDOW
                && let Some(message) = self.consumer.try_next()
            {
                self.take(message);
            }
            if self.due(now).next().is_some() {
                return;
            }
            if self.shared.contents.look().deliveries == 0 && self.forwarded > 0 {
                tracing::info!(forwarded = self.forwarded, "the spool is empty");
                self.forwarded = 0;
            }
            let turn = self.waiting.iter().filter_map(|waiting| waiting.not_before).min();
            tokio::select! {
                message = self.consumer.next() => match message {
                    Some(message) => self.take(message),
                    // The queue was closed, and this task is about to be.
                    None => std::future::pending().await,
                },
                () = sleep_until(turn.unwrap_or(now)), if turn.is_some() => {}
            }
        }
    }

    fn due(&self, now: Instant) -> impl Iterator<Item = (usize, &Waiting)> {
        let due = move |waiting: &Waiting| waiting.not_before.is_none_or(|turn| turn <= now);
        self.waiting.iter().enumerate().filter(move |(_, waiting)| due(waiting))
    }

    fn take(&mut self, message: Message) {
        let bytes = message.payload.encoded_len();
        // Nothing is compressed in a spool, so that this only says what the message is.
        let item = match message.payload.decode(usize::MAX) {
            Ok(Payload::Delivery(delivery)) => Item::Delivery(delivery),
            Ok(Payload::Checkpoint(checkpoint)) => Item::Checkpoint(checkpoint),
            Ok(Payload::Unreadable { why, .. }) => {
                return self.shared.set_aside(message.tag, &Share::of_unreadable(bytes), &why);
            }
            Err(error) => {
                return self.shared.set_aside(message.tag, &Share::of_unreadable(bytes), &error.to_string());
            }
        };
        let share = Share::of(&item);
        self.waiting.push_back(Waiting { tag: message.tag, item, share, unroutable: 0, not_before: None });
        self.note_oldest();
    }

    fn note_oldest(&self) {
        let received = |waiting: &Waiting| match &waiting.item {
            Item::Delivery(delivery) => Some(delivery.received_at),
            Item::Checkpoint(_) => None,
        };
        if let Some(oldest) = self.waiting.iter().find_map(received) {
            self.shared.contents.oldest_is(oldest);
        }
    }

    /// Waits as long as the broker is known to take nothing. When it comes back is up to its connection, whose attempts
    /// differ from those of other ingresses.
    async fn broker_is_back(&mut self) {
        if self.attempt > 0 && self.shared.broker.publishing().state == State::Ok {
            sleep(pause(self.attempt - 1)).await;
        }
        while self.shared.broker.publishing().state != State::Ok {
            self.window = 1;
            sleep(LOOK).await;
        }
    }

    async fn publish(&mut self) {
        let batch = self.batch(Instant::now());
        let items: Vec<&Item> = batch.iter().map(|index| &self.waiting[*index].item).collect();
        let published = self.shared.broker.publish_in_order(&items).await;

        let (mut tags, mut failure, mut done) = (Vec::new(), None, Vec::new());
        for (index, published) in batch.into_iter().zip(published) {
            let waiting = &mut self.waiting[index];
            match published {
                Ok(()) => {
                    tags.push(waiting.tag);
                    self.shared.contents.remove(&waiting.share);
                    if let Item::Delivery(_) = waiting.item {
                        self.forwarded += 1;
                        metrics::counter!(names::SPOOL_FORWARDED).increment(1);
                    }
                    done.push(index);
                }
                Err(error @ PublishError::TooLarge { .. }) => {
                    self.shared.set_aside(waiting.tag, &waiting.share, &error.to_string());
                    done.push(index);
                }
                Err(PublishError::Unroutable(why)) => {
                    if waiting.unroutable == 0 {
                        tracing::warn!("a delivery stays in the spool, and the others go on: {why}");
                    }
                    waiting.unroutable += 1;
                    waiting.not_before = Some(Instant::now() + pause(UNROUTABLE));
                }
                Err(PublishError::Unavailable(why)) => failure = Some(why),
            }
        }
        for index in done.into_iter().rev() {
            self.waiting.remove(index);
        }
        self.note_oldest();
        let confirmed = !tags.is_empty();
        // None of these acks can be stale: nobody else consumes, and the queue has one session.
        self.consumer.ack(&tags).await;
        self.judge(confirmed, failure);
    }

    /// The first messages that are due, as many as may be published at once.
    fn batch(&self, now: Instant) -> Vec<usize> {
        let limit = if self.shared.live.load(Ordering::Relaxed) > 0 { BESIDE_LIVE } else { WINDOW };
        let mut bytes = 0;
        let within = |(index, waiting): (usize, &Waiting)| {
            let is_first = bytes == 0;
            bytes += waiting.item.len().max(1);
            (is_first || bytes <= BYTES).then_some(index)
        };
        self.due(now).take(self.window.min(limit)).map_while(within).collect()
    }

    /// Draws the conclusions of one round.
    fn judge(&mut self, confirmed: bool, failure: Option<String>) {
        match failure {
            Some(why) => {
                self.window = 1;
                self.attempt = if confirmed { 1 } else { self.attempt + 1 };
                self.shared.door.shut(why, Timestamp::now());
            }
            None if confirmed => {
                if self.window == 1 {
                    self.shared.resumed.notify_one();
                }
                self.window = (self.window * 2).min(WINDOW);
                self.attempt = 0;
                self.shared.door.open(self.shared.contents.look().deliveries);
            }
            // Only messages that no queue takes: that says nothing about the others.
            None => {}
        }
    }
}

/// Tells the ledger which numbers are still on their way, so that it doesn't take them for missing.
pub(super) async fn tell(shared: Arc<Shared>) {
    let mut tick = interval(TELL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = shared.resumed.notified() => {}
        }
        if shared.broker.publishing().state != State::Ok {
            continue;
        }
        for (run, source, held) in shared.contents.all_least() {
            // Of how far the run has come it says nothing: that is for its own checkpoints.
            let checkpoint =
                Checkpoint { run, source, sequence: 0, voids: Vec::new(), held: Some(held), refused: Vec::new() };
            if let Err(error) = shared.broker.checkpoint(&checkpoint).await {
                tracing::debug!(%error, "what the spool holds couldn't be told; it is told again");
                break;
            }
        }
    }
}
