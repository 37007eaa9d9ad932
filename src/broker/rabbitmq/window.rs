//! One confirm channel and the publishes in flight on it, each answered for exactly what became of it.
//!
//! The task here is the channel's only user, for two reasons:
//!
//! * lapin numbers a publish and queues its frames in two steps. Two threads that publish on one channel may number in
//!   one order and send in the other, and would then get each other's confirms.
//! * lapin hands a returned (unroutable) message to whichever confirm it resolves next, since the return itself bears
//!   no number. The broker sends a return before the confirm of the same message, so when a publish is confirmed without
//!   a returned message, its own return, if there was one, is in a confirm that was resolved *before*. This task owns
//!   all of them. So it polls until nothing more is ready, collects what was returned by `correlation_id`, and only then
//!   answers. A confirm that carries another message's return is answered "unknown": its own return may be still to
//!   come.
//!
//! It must not know what is published; [`super::publish`] decides whether to try again.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, ConnectionStatus};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::link::Ending;
use super::topology;

/// Without any confirm for so long, though some are awaited and the broker has blocked nothing, the session is over.
const STALL: Duration = Duration::from_secs(10);

/// A message in its AMQP form.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// The exchange; empty for the default one.
    pub(super) exchange: ShortString,
    /// The routing key.
    pub(super) routing_key: ShortString,
    /// Properties and headers, without a correlation id.
    pub(super) properties: BasicProperties,
    /// The body.
    pub(super) body: Bytes,
}

/// A publish to be done.
#[derive(Debug)]
pub(super) struct Job {
    /// What to publish.
    pub(super) message: Outgoing,
    /// Who wants to know. Dropped without an answer if nobody can tell what became of it.
    pub(super) answer: oneshot::Sender<Outcome>,
    /// Its place among those in flight, free again when the broker has answered, however long ago its sender gave up.
    pub(super) place: OwnedSemaphorePermit,
}

/// What became of a publish, as far as it is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Routed and stored.
    Confirmed,
    /// No queue took it.
    Returned(String),
    /// The broker refused to store it.
    Refused,
}

/// Publishes jobs until the session ends or their senders are gone.
pub(super) async fn run(
    channel: Channel,
    status: ConnectionStatus,
    jobs: mpsc::UnboundedReceiver<Job>,
    ending: Ending,
    on_size_limit: impl Fn(usize) + Send,
) {
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut window =
        Window { channel, status, jobs, slots: Vec::new(), published: 0, tick, last_progress: Instant::now() };
    let ended = tokio::select! {
        ended = poll_fn(|cx| window.poll(cx)) => ended,
        () = ending.over() => return,
    };
    match ended {
        Ok(()) => {}
        Err(End::StrangeReturn) => ending.because("RabbitMQ returned a message that nobody published"),
        Err(End::Stalled) => {
            ending.because(format!("RabbitMQ has confirmed nothing for {} seconds", STALL.as_secs()));
        }
        Err(End::Broken(error)) => {
            if let Some(limit) = topology::size_limit(&error) {
                on_size_limit(limit);
            }
            ending.because(topology::explain(&error));
        }
    }
}

enum End {
    Broken(lapin::Error),
    StrangeReturn,
    Stalled,
}

struct Window {
    channel: Channel,
    status: ConnectionStatus,
    jobs: mpsc::UnboundedReceiver<Job>,
    /// In the order of their numbers.
    slots: Vec<Slot>,
    published: u64,
    tick: Interval,
    last_progress: Instant,
}

/// A publish in flight.
struct Slot {
    number: u64,
    confirm: Pin<Box<dyn Future<Output = lapin::Result<Confirmation>> + Send>>,
    confirmation: Option<Confirmation>,
    returned: Option<String>,
    answer: oneshot::Sender<Outcome>,
    _place: OwnedSemaphorePermit,
}

impl Window {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let no_more_jobs = self.begin(cx);
        if let Err(end) = self.collect(cx) {
            return Poll::Ready(Err(end));
        }
        self.answer();
        if no_more_jobs && self.slots.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.tick.poll_tick(cx).is_ready() {
            if self.slots.is_empty() || self.status.blocked() {
                self.last_progress = Instant::now();
            } else if self.last_progress.elapsed() > STALL {
                return Poll::Ready(Err(End::Stalled));
            }
        }
        Poll::Pending
    }

    /// Starts what is waiting. Returns whether nothing more will come.
    fn begin(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            match self.jobs.poll_recv(cx) {
                // Whoever has given up meanwhile is going to publish it again, or told its provider to.
                Poll::Ready(Some(job)) if job.answer.is_closed() => {}
                Poll::Ready(Some(job)) => self.publish(job),
                Poll::Ready(None) => return true,
                Poll::Pending => return false,
            }
        }
    }

    fn publish(&mut self, Job { message, answer, place }: Job) {
        if self.slots.is_empty() {
            self.last_progress = Instant::now();
        }
        self.published += 1;
        let number = self.published;
        let channel = self.channel.clone();
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let confirm = Box::pin(async move {
            let Outgoing { exchange, routing_key, properties, body } = message;
            let properties = properties.with_correlation_id(number.to_string().into());
            channel.basic_publish(exchange, routing_key, options, &body, properties).await?.await
        });
        self.slots.push(Slot { number, confirm, confirmation: None, returned: None, answer, _place: place });
    }

    /// Polls all confirms until none is ready any more, and gives each return to the publish that it belongs to.
    fn collect(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let mut returned = Vec::new();
        let mut more = true;
        while more {
            more = false;
            for slot in self.slots.iter_mut().filter(|slot| slot.confirmation.is_none()) {
                let Poll::Ready(confirmation) = slot.confirm.as_mut().poll(cx) else { continue };
                let confirmation = confirmation.map_err(End::Broken)?;
                if let Confirmation::Ack(Some(message)) | Confirmation::Nack(Some(message)) = &confirmation {
                    returned.push((number_of(message).ok_or(End::StrangeReturn)?, message.reply_text.to_string()));
                }
                slot.confirmation = Some(confirmation);
                more = true;
            }
        }
        for (number, why) in returned {
            match self.slots.binary_search_by_key(&number, |slot| slot.number) {
                Ok(index) => self.slots[index].returned = Some(why),
                // Its confirm carried another message's return, and it was answered "unknown".
                Err(_) if number <= self.published => {}
                Err(_) => return Err(End::StrangeReturn),
            }
        }
        Ok(())
    }

    /// Answers everything that has its confirm. Sound only right after [`Self::collect`] found nothing more.
    fn answer(&mut self) {
        let settled = self.slots.extract_if(.., |slot| slot.confirmation.is_some());
        for Slot { confirmation, returned, answer, .. } in settled {
            self.last_progress = Instant::now();
            // Nobody may be waiting any more, which is all the same here.
            let _ = match (returned, confirmation) {
                (Some(why), _) => answer.send(Outcome::Returned(why)),
                (None, Some(Confirmation::Ack(None))) => answer.send(Outcome::Confirmed),
                (None, Some(Confirmation::Nack(_))) => answer.send(Outcome::Refused),
                // It carries another message's return, so its own may be still to come: unknown.
                (None, _) => continue,
            };
        }
    }
}

fn number_of(message: &BasicReturnMessage) -> Option<u64> {
    message.properties.correlation_id().as_ref()?.as_str().parse().ok()
}
