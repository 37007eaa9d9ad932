//! What has to exist in RabbitMQ: an exchange for everybody, a work queue that takes all of it, a queue for replays, a
//! parked queue.
//!
//! Declared at every connect, since declaring what exists already does nothing. Shape and limits are arguments of the
//! queue, so a queue of another shape is a conflict (406) that nobody but its owner can solve: it becomes a sentence
//! that names the queue, the argument and the way out, and is tried again. What happens over the connection belongs to
//! [`super::link`].

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, Error, ErrorKind, ExchangeKind};

use super::Shared;

/// A queue that nobody limits still gets an explicit limit: RabbitMQ 4 would drop a message after its default of 20.
const NO_LIMIT: i64 = 1_000_000_000;

/// The names of exchange and queues.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// The topic exchange that deliveries are published to.
    pub(super) exchange: ShortString,
    /// The work queue.
    pub(super) work: ShortString,
    /// Where replays wait, which are published to it alone.
    pub(super) replays: ShortString,
    /// Where the broker puts what it gave up on.
    pub(super) parked: ShortString,
}

impl Names {
    /// # Errors
    /// If the prefix can't begin a name; says why.
    pub(super) fn new(prefix: &str) -> Result<Self, String> {
        let usable = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if prefix.is_empty() || prefix.len() > 200 || !prefix.bytes().all(usable) || prefix.starts_with("amq.") {
            return Err("the broker's prefix must have 1 to 200 letters, digits, '-', '_' and '.', \
                        and not begin with \"amq.\""
                .to_owned());
        }
        Ok(Self {
            exchange: format!("{prefix}.deliveries").into(),
            work: format!("{prefix}.work").into(),
            replays: format!("{prefix}.replays").into(),
            parked: format!("{prefix}.parked").into(),
        })
    }
}

/// Declares everything, or checks that it is there.
///
/// # Errors
/// One sentence that names what is wrong and the way out.
pub(super) async fn establish(connection: &Connection, shared: &Shared) -> Result<(), String> {
    let channel = connection.create_channel().await.map_err(|error| explain(&error))?;
    let declared = declare(&channel, shared).await;
    if declared.is_ok() {
        // A failed declaration has closed the channel already.
        channel.close(200, "OK".into()).await.map_err(|error| explain(&error))?;
    }
    declared
}

async fn declare(channel: &Channel, shared: &Shared) -> Result<(), String> {
    let Names { exchange, work, .. } = &shared.names;
    let passive = !shared.settings.declare;
    declare_exchange(channel, exchange, passive).await.map_err(|error| refused("exchange", exchange, &error))?;
    for queue in queues(&shared.names, shared.settings.delivery_limit) {
        declare_queue(channel, &queue, passive).await.map_err(|error| refused("queue", &queue.name, &error))?;
    }
    if passive {
        return Ok(());
    }
    channel
        .queue_bind(work.clone(), exchange.clone(), BINDING.into(), QueueBindOptions::default(), FieldTable::default())
        .await
        .map_err(|error| refused("queue", work, &error))
}

/// Declares the exchange, or asks whether it is there.
pub(super) async fn declare_exchange(channel: &Channel, name: &ShortString, passive: bool) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { durable: true, passive, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(name.clone(), ExchangeKind::Topic, options, FieldTable::default()).await
}

/// Declares a queue, or asks whether it is there.
pub(super) async fn declare_queue(channel: &Channel, queue: &Queue, passive: bool) -> lapin::Result<lapin::Queue> {
    let options = QueueDeclareOptions { durable: true, passive, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.name.clone(), options, queue.table()).await
}

/// The routing key that binds the work queue: everything.
pub(super) const BINDING: &str = "#";

/// A queue that has to exist.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    pub(super) name: ShortString,
    /// Its arguments, named as in policies: an argument has `x-` before it. The type can't be given by a policy.
    pub(super) arguments: Vec<(&'static str, Argument)>,
}

/// The value of an argument.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub(super) enum Argument {
    Text(String),
    Number(i64),
}

/// The argument that is no tunable: what kind of queue it is.
pub(super) const TYPE: &str = "queue-type";

impl Queue {
    fn table(&self) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in &self.arguments {
            let value = match value {
                Argument::Text(text) => AMQPValue::LongString(text.as_str().into()),
                Argument::Number(number) => AMQPValue::LongLongInt(*number),
            };
            table.insert(format!("x-{name}").into(), value);
        }
        table
    }
}

/// The queues, those first that others refer to.
pub(super) fn queues(names: &Names, delivery_limit: u32) -> [Queue; 3] {
    let text = |value: &str| Argument::Text(value.to_owned());
    let parked = vec![(TYPE, text("quorum")), ("delivery-limit", Argument::Number(NO_LIMIT))];
    let work = vec![
        (TYPE, text("quorum")),
        ("delivery-limit", Argument::Number(delivery_limit.into())),
        ("dead-letter-exchange", text("")),
        ("dead-letter-routing-key", text(names.parked.as_str())),
        // At least once works only together with reject-publish: https://www.rabbitmq.com/docs/quorum-queues#dead-lettering
        ("dead-letter-strategy", text("at-least-once")),
        ("overflow", text("reject-publish")),
    ];
    [
        Queue { name: names.parked.clone(), arguments: parked },
        Queue { name: names.work.clone(), arguments: work.clone() },
        Queue { name: names.replays.clone(), arguments: work },
    ]
}

/// Why a declaration was refused, with the way out.
pub(super) fn refused(what: &str, name: &ShortString, error: &Error) -> String {
    let said = explain(error);
    match soft(error) {
        Some(AMQPSoftError::PRECONDITIONFAILED) => {
            // inequivalent arg 'x-delivery-limit' for queue 'rollcall.work' in vhost '/': received '1000' but current is none
            let argument = said.split('\'').nth(1).unwrap_or("shape");
            format!(
                "{what} {name} exists with another {argument}: delete it once it is empty, \
                 or set broker.declare = false to use it as it is ({said})"
            )
        }
        Some(AMQPSoftError::NOTFOUND) => format!(
            "{what} {name} doesn't exist, and broker.declare is false: create it, or set broker.declare = true ({said})"
        ),
        Some(AMQPSoftError::ACCESSREFUSED) => format!(
            "the broker's user may not configure {what} {name}: grant it, \
             or create everything yourself and set broker.declare = false ({said})"
        ),
        _ => format!("can't declare {what} {name}: {said}"),
    }
}

pub(super) fn soft(error: &Error) -> Option<AMQPSoftError> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(soft) => Some(soft.clone()),
            AMQPErrorKind::Hard(_) => None,
        },
        _ => None,
    }
}

/// What an AMQP error says, for people.
pub(super) fn explain(error: &Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Hard(AMQPHardError::CONNECTIONFORCED) => {
                format!("RabbitMQ ended the connection: {}", error.get_message())
            }
            _ => error.get_message().to_string(),
        },
        ErrorKind::IOError(error) => error.to_string(),
        ErrorKind::MissingHeartbeatError => "RabbitMQ gave no sign of life".to_owned(),
        _ => error.to_string(),
    }
}

/// The largest message that the broker takes, in bytes, if the error is about that.
///
/// It closes the channel with `PRECONDITION_FAILED - message size 20 is larger than configured max size 10`.
pub(super) fn size_limit(error: &Error) -> Option<usize> {
    if soft(error)? != AMQPSoftError::PRECONDITIONFAILED {
        return None;
    }
    size_limit_in(&explain(error))
}

fn size_limit_in(text: &str) -> Option<usize> {
    text.contains("message size").then_some(())?;
    let (_, limit) = text.rsplit_once("max size ")?;
    limit.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok()
}

#[cfg(test)]
mod tests {
    use lapin::protocol::AMQPError;

    use super::*;

    fn protocol_error(kind: AMQPSoftError, message: &str) -> Error {
        ErrorKind::ProtocolError(AMQPError::new(kind.into(), message.into())).into()
    }

    #[test]
    fn a_conflict_names_queue_argument_and_way_out() {
        let error = protocol_error(
            AMQPSoftError::PRECONDITIONFAILED,
            "PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue 'rollcall.work' in vhost '/': \
             received '1000' but current is none",
        );
        let reason = refused("queue", &"rollcall.work".into(), &error);
        assert!(reason.starts_with("queue rollcall.work exists with another x-delivery-limit: delete it"), "{reason}");
        assert!(reason.contains("broker.declare = false"), "{reason}");
    }

    #[test]
    fn the_brokers_size_limit_is_read_from_its_refusal() {
        let text = "PRECONDITION_FAILED - message size 17000000 is larger than configured max size 16777216";
        assert_eq!(size_limit(&protocol_error(AMQPSoftError::PRECONDITIONFAILED, text)), Some(16_777_216));
        assert_eq!(size_limit(&protocol_error(AMQPSoftError::PRECONDITIONFAILED, "unknown delivery tag 7")), None);
    }

    #[test]
    fn prefixes_that_cannot_name_a_queue_are_refused() {
        assert_eq!(Names::new("rollcall").unwrap().work.as_str(), "rollcall.work");
        assert!(Names::new("").is_err());
        assert!(Names::new("amq.x").is_err());
        assert!(Names::new("a b").is_err());
    }
}
