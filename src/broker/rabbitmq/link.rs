//! One supervised connection: connect, declare, build what lives on it, watch it, and do it all again when it breaks.
//!
//! It must not know what the connection is for: a [`Role`] builds that. Nothing here ends for good but by closing: no
//! number of attempts is the last, and no conflict with a queue of another shape stops the supervisor.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::{Connection, ConnectionProperties, Event};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::topology;
use crate::broker::pause::pause;
use crate::broker::{Health, State};
use crate::delivery::Timestamp;
use crate::shutdown::Tasks;

/// How long one attempt to connect and declare may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How long a connection may take to close.
const CLOSE: Duration = Duration::from_secs(2);
/// How long to wait before the topology is declared again. RabbitMQ 3.10 doesn't cancel the consumers of a queue that is
/// deleted and declared again within milliseconds; they hang.
const REPAIR: Duration = Duration::from_secs(1);
/// How often to ask the broker how it sees the session.
const CHECK: Duration = Duration::from_secs(5);
/// A session that lasted this long has proved itself: the next pause is the first one again.
const PROVEN: Duration = Duration::from_secs(5);

/// What a connection is for.
pub(super) trait Role: Send + Sync + 'static {
    /// What lives on the connection.
    type Session: Send + Sync + 'static;
    /// The word for logs and for the connection's name.
    const NAME: &'static str;

    /// Builds it. `ending` ends the session from inside.
    fn build(
        &self,
        connection: &Connection,
        ending: &Ending,
    ) -> impl Future<Output = Result<Self::Session, lapin::Error>> + Send;

    /// Looks whether the broker still sees the session as we do. An error ends it.
    fn check(&self, session: &Self::Session) -> impl Future<Output = Result<(), String>> + Send;
}

/// Ends a session, for the first reason that anyone gives, or asks for its topology to be declared again.
#[derive(Clone, Debug, Default)]
pub(super) struct Ending(Arc<EndingState>);

#[derive(Debug, Default)]
struct EndingState {
    over: CancellationToken,
    reason: OnceLock<String>,
    repair: Notify,
}

impl Ending {
    /// The session can't go on.
    pub(super) fn because(&self, reason: impl Into<String>) {
        self.0.reason.get_or_init(|| reason.into());
        self.0.over.cancel();
    }

    /// Whether it is over.
    pub(super) fn is_over(&self) -> bool {
        self.0.over.is_cancelled()
    }

    /// Waits until it is over.
    pub(super) async fn over(&self) {
        self.0.over.cancelled().await;
    }

    /// The topology seems to have holes.
    pub(super) fn repair(&self) {
        self.0.repair.notify_one();
    }

    fn reason(&self) -> String {
        self.0.reason.get().cloned().unwrap_or_else(|| "the session ended".to_owned())
    }
}

/// How a link stands.
#[derive(Debug)]
pub(super) enum Standing<S> {
    /// No session, and why.
    Down(String),
    /// A session that the broker has blocked, and why.
    Blocked(String),
    /// A session.
    Up(Arc<S>),
    /// Closed for good.
    Closed,
}

impl<S> Standing<S> {
    /// What is wrong, as one sentence.
    pub(super) fn trouble(&self) -> Option<String> {
        match self {
            Self::Up(_) => None,
            Self::Down(reason) => Some(reason.clone()),
            Self::Blocked(reason) => Some(format!("RabbitMQ takes no messages at present: {reason}")),
            Self::Closed => Some("the broker was closed".to_owned()),
        }
    }
}

impl<S> Clone for Standing<S> {
    fn clone(&self) -> Self {
        match self {
            Self::Down(reason) => Self::Down(reason.clone()),
            Self::Blocked(reason) => Self::Blocked(reason.clone()),
            Self::Up(session) => Self::Up(session.clone()),
            Self::Closed => Self::Closed,
        }
    }
}

/// The user's end of a supervised connection.
#[derive(Debug)]
pub(super) struct Link<S> {
    standing: watch::Receiver<Standing<S>>,
    health: watch::Receiver<Health>,
}

impl<S> Link<S> {
    /// The session, if there is one now.
    pub(super) fn now(&self) -> Standing<S> {
        self.standing.borrow().clone()
    }

    /// Waits for a session that `usable` accepts. `None` once closed.
    pub(super) async fn session(&self, usable: impl Fn(&S) -> bool) -> Option<Arc<S>> {
        let mut standing = self.standing.clone();
        let standing = standing
            .wait_for(|standing| match standing {
                Standing::Up(session) => usable(session),
                Standing::Closed => true,
                Standing::Down(_) | Standing::Blocked(_) => false,
            })
            .await;
        match standing.as_deref() {
            Ok(Standing::Up(session)) => Some(session.clone()),
            _ => None,
        }
    }

    /// What health and closing need to see of it.
    pub(super) fn watch(&self) -> Watch {
        Watch(self.health.clone())
    }
}

/// The health of a link.
#[derive(Clone, Debug)]
pub(super) struct Watch(watch::Receiver<Health>);

impl Watch {
    pub(super) fn health(&self) -> Health {
        self.0.borrow().clone()
    }

    /// Whether its supervisor has ended.
    pub(super) fn is_over(&self) -> bool {
        self.0.has_changed().is_err()
    }

    /// Waits until its supervisor has ended, which closing makes it do within seconds.
    pub(super) async fn over(mut self) {
        while self.0.changed().await.is_ok() {}
    }
}

/// Starts the supervisor of a connection, which ends when `closing` is cancelled.
pub(super) fn supervise<R: Role>(
    role: R,
    shared: &Arc<Shared>,
    tasks: &Tasks,
    closing: CancellationToken,
) -> Link<R::Session> {
    let reason = "not connected to RabbitMQ yet".to_owned();
    let (health, health_seen) =
        watch::channel(Health { state: State::Down, reason: Some(reason.clone()), since: Timestamp::now() });
    let (standing, standing_seen) = watch::channel(Standing::Down(reason));
    let tasks = tasks.ending_on(closing.clone());
    let supervisor = Supervisor { role, shared: shared.clone(), closing, standing, health, connected_before: false };
    tasks.essential(format!("RabbitMQ {}", R::NAME), supervisor.run());
    Link { standing: standing_seen, health: health_seen }
}

struct Supervisor<R: Role> {
    role: R,
    shared: Arc<Shared>,
    closing: CancellationToken,
    standing: watch::Sender<Standing<R::Session>>,
    health: watch::Sender<Health>,
    connected_before: bool,
}

impl<R: Role> Supervisor<R> {
    async fn run(mut self) {
        let closing = self.closing.clone();
        let mut attempt = 0;
        while !closing.is_cancelled() {
            let ending = Ending::default();
            let built = tokio::select! {
                built = self.build(&ending) => built,
                () = closing.cancelled() => break,
            };
            match built {
                Ok((connection, session)) => {
                    let began = Instant::now();
                    // Channels that are dropped close themselves, which must not run into the closing of the connection.
                    let _kept = session.clone();
                    self.live(&connection, session, &ending).await;
                    if began.elapsed() >= PROVEN {
                        attempt = 0;
                    }
                    // Whoever still holds the session must stop using it before its connection goes.
                    ending.because("the connection was closed");
                    if !closing.is_cancelled() {
                        self.stand(Standing::Down(ending.reason()));
                    }
                    close(&connection).await;
                }
                Err(reason) => self.stand(Standing::Down(reason)),
            }
            tokio::select! {
                () = sleep(pause(attempt)) => attempt += 1,
                () = closing.cancelled() => {}
            }
        }
        self.stand(Standing::Closed);
    }

    async fn build(&self, ending: &Ending) -> Result<(Connection, Arc<R::Session>), String> {
        let properties = ConnectionProperties::default()
            .with_connection_name(format!("rollcall {}", R::NAME).into())
            .with_client_property("product".into(), "rollcall".into())
            .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
        let deadline = Instant::now() + ATTEMPT;
        let late = |_| format!("RabbitMQ didn't answer within {} seconds", ATTEMPT.as_secs());
        let connection = timeout_at(deadline, Connection::connect_uri(self.shared.uri.clone(), properties))
            .await
            .map_err(late)?
            .map_err(|error| format!("can't connect to RabbitMQ: {}", topology::explain(&error)))?;
        match timeout_at(deadline, self.furnish(&connection, ending)).await.map_err(late).flatten() {
            Ok(session) => Ok((connection, Arc::new(session))),
            Err(reason) => {
                // Dropping it isn't enough: a consumer that is half begun keeps it open, and the broker hands out
                // messages to it that nobody ever sees.
                close(&connection).await;
                Err(reason)
            }
        }
    }

    async fn furnish(&self, connection: &Connection, ending: &Ending) -> Result<R::Session, String> {
        topology::establish(connection, &self.shared).await?;
        self.role.build(connection, ending).await.map_err(|error| topology::explain(&error))
    }

    /// Watches a session until it is over.
    async fn live(&mut self, connection: &Connection, session: Arc<R::Session>, ending: &Ending) {
        let mut events = connection.events_listener();
        let mut tick = interval(CHECK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if self.connected_before {
            metrics::counter!("rollcall_broker_reconnects_total", "role" => R::NAME).increment(1);
        }
        self.connected_before = true;
        self.stand(Standing::Up(session.clone()));
        loop {
            tokio::select! {
                () = self.closing.cancelled() => return,
                () = ending.over() => return,
                // Lost here if something else happens meanwhile, but the next returned message asks again.
                () = async { ending.0.repair.notified().await; sleep(REPAIR).await } => match timeout(ATTEMPT, topology::establish(connection, &self.shared)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(reason)) => return ending.because(reason),
                    Err(_) => return ending.because("RabbitMQ didn't answer a declaration"),
                },
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(reason)) => self.stand(Standing::Blocked(reason)),
                    Some(Event::ConnectionUnblocked) => self.stand(Standing::Up(session.clone())),
                    Some(Event::Error(error)) => return ending.because(topology::explain(&error)),
                    Some(_) => {}
                    None => return ending.because("the connection to RabbitMQ broke"),
                },
                _ = tick.tick() => {
                    // Some ends, such as a close in the middle of a handshake, come without an event.
                    if !connection.status().connected() {
                        return ending.because("the connection to RabbitMQ broke");
                    }
                    match timeout(ATTEMPT, self.role.check(&session)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(reason)) => return ending.because(reason),
                        Err(_) => return ending.because("RabbitMQ didn't answer a question"),
                    }
                }
            }
        }
    }

    /// Changes the standing, and says so once if it means anything new.
    fn stand(&self, standing: Standing<R::Session>) {
        let trouble = standing.trouble();
        if self.health.borrow().reason != trouble {
            let state = match &standing {
                Standing::Up(_) => State::Ok,
                _ => State::Down,
            };
            match &trouble {
                None => tracing::info!(role = R::NAME, "connected to RabbitMQ"),
                Some(_) if matches!(standing, Standing::Closed) => {}
                Some(reason) => tracing::warn!(role = R::NAME, "{reason}"),
            }
            self.health.send_replace(Health { state, reason: trouble, since: Timestamp::now() });
        }
        self.standing.send_replace(standing);
    }
}

/// Closes a connection, or leaves it to the broker to notice.
async fn close(connection: &Connection) {
    let _ = timeout(CLOSE, connection.close(200, "OK".into())).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_for_an_end_is_the_one_that_counts() {
        let ending = Ending::default();
        assert!(!ending.is_over());
        ending.because("first");
        ending.because("second");
        assert!(ending.is_over());
        assert_eq!(ending.reason(), "first");
    }
}
