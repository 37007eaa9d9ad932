//! What travels around a body: the plain values that both brokers carry, and back from them to a [`Payload`].
//!
//! It knows neither AMQP nor SQL: [`super::rabbitmq`] writes an [`Envelope`] into properties and headers,
//! [`super::embedded`] into columns. Reading trusts nothing: whoever may publish to the exchange may send anything, so
//! whatever doesn't fit becomes [`Payload::Unreadable`] with the reason, never an error that could stop a consumer.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::encoded::{BodyEncoding, EncodedPayload};
use crate::broker::Payload;
use crate::delivery::{Checkpoint, Delivery, InvalidName, MAX_NAME, RefusedCount, SecretName, Stamp, Timestamp};

/// The version of the fields below. A reader refuses others.
pub(super) const VERSION: i64 = 1;

/// The kind of a checkpoint. Every other kind is a delivery's routing key.
pub(super) const CHECKPOINT: &str = "rollcall.checkpoint";

/// A message without its body. Text is borrowed wherever it exists already.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Envelope<'a> {
    /// [`CHECKPOINT`], or the delivery's routing key.
    pub(super) kind: Cow<'a, str>,
    /// The provider's delivery id.
    pub(super) id: Option<Cow<'a, str>>,
    /// The media type of the body, for other consumers. We never read it: it isn't signed, and the bytes say it too.
    pub(super) content_type: Option<Cow<'a, str>>,
    /// How the body is compressed, if it is.
    pub(super) content_encoding: Option<Cow<'a, str>>,
    /// The source.
    pub(super) source: Option<Cow<'a, str>>,
    /// The provider's name in the registry.
    pub(super) provider: Option<Cow<'a, str>>,
    /// What the provider calls the event.
    pub(super) event: Option<Cow<'a, str>>,
    /// When ingress had read it, in microseconds since the epoch.
    pub(super) received_at: Option<i64>,
    /// The name of the secret that verified it.
    pub(super) secret: Option<Cow<'a, str>>,
    /// The ingress run that stamped it.
    pub(super) run: Option<Cow<'a, str>>,
    /// Its place in that run.
    pub(super) sequence: Option<i64>,
    /// The replay that published it again.
    pub(super) replay: Option<Cow<'a, str>>,
    /// The version of these fields.
    pub(super) version: Option<i64>,
}

impl<'a> Envelope<'a> {
    /// The envelope of a delivery.
    pub(super) fn of_delivery(delivery: &'a Delivery) -> Self {
        Self {
            kind: delivery.routing_key().into(),
            id: Some(delivery.id.as_str().into()),
            content_type: Some(delivery.media_type().into()),
            content_encoding: None,
            source: Some(delivery.source.as_str().into()),
            provider: Some(delivery.provider.as_str().into()),
            event: Some(delivery.event.as_str().into()),
            received_at: Some(delivery.received_at.micros()),
            secret: Some(delivery.secret.0.as_ref().into()),
            run: delivery.stamp.map(|stamp| stamp.run.to_string().into()),
            sequence: delivery.stamp.map(|stamp| signed(stamp.sequence)),
            replay: delivery.replay.map(|replay| replay.to_string().into()),
            version: Some(VERSION),
        }
    }

    /// The envelope of a checkpoint; its body is [`Envelope::settled`].
    pub(super) fn of_checkpoint(checkpoint: &'a Checkpoint) -> Self {
        Self {
            kind: CHECKPOINT.into(),
            source: Some(checkpoint.source.as_str().into()),
            run: Some(checkpoint.run.to_string().into()),
            sequence: Some(signed(checkpoint.sequence)),
            version: Some(VERSION),
            ..Self::default()
        }
    }

    /// The body of a checkpoint: the JSON list of its voids, which have no bound that a header would hold; where there is
    /// more to tell, an object with all of it.
    pub(super) fn settled(checkpoint: &Checkpoint) -> Bytes {
        let Checkpoint { voids, held, refused, .. } = checkpoint;
        let settled = if held.is_none() && refused.is_empty() {
            Settled::Voids(voids.as_slice().into())
        } else {
            Settled::More { voids: voids.as_slice().into(), held: *held, refused: refused.as_slice().into() }
        };
        serde_json::to_vec(&settled).unwrap_or_default().into()
    }

    /// The message, whose body stays as it travels until it is decoded.
    pub(super) fn with_body(&self, body: Bytes) -> EncodedPayload {
        let head = if self.kind == CHECKPOINT {
            self.checkpoint().map(Payload::Checkpoint)
        } else {
            self.delivery().map(Payload::Delivery)
        };
        let head = head.unwrap_or_else(|why| Payload::Unreadable {
            id: self.id.as_deref().map(str::to_owned),
            why: why.0,
            body: Bytes::new(),
            properties: self.properties(),
        });
        EncodedPayload::new(head, BodyEncoding::of(self.content_encoding.as_deref()), body)
    }

    /// What is kept of it beside the body of a message that can't be read, so that it can be read again. None for what no
    /// version of rollcall has sent.
    pub(super) fn properties(&self) -> Option<String> {
        self.version.and_then(|_| serde_json::to_string(self).ok())
    }

    /// A checkpoint without what its body says.
    fn checkpoint(&self) -> Result<Checkpoint, Why> {
        self.known_version()?;
        let stamp = self.stamp()?.ok_or_else(|| Why("it has no run and sequence".into()))?;
        Ok(Checkpoint {
            run: stamp.run,
            source: required("source", self.source.as_deref())?.parse()?,
            sequence: stamp.sequence,
            voids: Vec::new(),
            held: None,
            refused: Vec::new(),
        })
    }

    /// A delivery without its body.
    fn delivery(&self) -> Result<Delivery, Why> {
        self.known_version()?;
        Ok(Delivery {
            source: required("source", self.source.as_deref())?.parse()?,
            provider: provider(required("provider", self.provider.as_deref())?)?,
            id: required("message id", self.id.as_deref())?.parse()?,
            event: required("event", self.event.as_deref())?.parse()?,
            received_at: Timestamp(required("time of receipt", self.received_at)?),
            secret: SecretName(required("name of a secret", self.secret.as_deref())?.into()),
            stamp: self.stamp()?,
            replay: self.replay.as_deref().map(|text| uuid("replay id", text)).transpose()?,
            body: Bytes::new(),
        })
    }

    fn known_version(&self) -> Result<(), Why> {
        match self.version {
            Some(VERSION) => Ok(()),
            Some(version) => Err(Why(format!("its version is {version}, and this program reads {VERSION}"))),
            None => Err(Why("it isn't one of ours: it has no version".into())),
        }
    }

    fn stamp(&self) -> Result<Option<Stamp>, Why> {
        match (self.run.as_deref(), self.sequence) {
            (None, None) => Ok(None),
            (Some(run), Some(sequence)) => Ok(Some(Stamp {
                run: uuid("run id", run)?,
                sequence: u64::try_from(sequence).map_err(|_| Why("its sequence is negative".into()))?,
            })),
            _ => Err(Why("it has a run without a sequence, or the other way round".into())),
        }
    }
}

/// What the body of a checkpoint says.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Settled<'a> {
    Voids(Cow<'a, [u64]>),
    More {
        voids: Cow<'a, [u64]>,
        #[serde(default)]
        held: Option<u64>,
        #[serde(default)]
        refused: Cow<'a, [RefusedCount]>,
    },
}

/// Reads what the body of a checkpoint says into it.
///
/// # Errors
/// One clause that says what is wrong with it.
pub(super) fn settle(checkpoint: &mut Checkpoint, body: &[u8]) -> Result<(), String> {
    let (voids, held, refused) = match serde_json::from_slice(body) {
        Ok(Settled::Voids(voids)) => (voids.into_owned(), None, Vec::new()),
        Ok(Settled::More { voids, held, refused }) => (voids.into_owned(), held, refused.into_owned()),
        Err(_) => return Err("its body is neither a list of numbers nor an object with one".to_owned()),
    };
    if refused.iter().any(|refused| refused.reason.len() > MAX_NAME || refused.sender.len() > MAX_NAME) {
        return Err("a reason or a sender of its refusals is longer than 255 bytes".to_owned());
    }
    *checkpoint = Checkpoint { voids, held, refused, ..checkpoint.clone() };
    Ok(())
}

/// Why a message can't be read. Never holds any of its values.
struct Why(String);

impl From<InvalidName> for Why {
    fn from(invalid: InvalidName) -> Self {
        Self(invalid.to_string())
    }
}

fn required<T>(what: &str, value: Option<T>) -> Result<T, Why> {
    value.ok_or_else(|| Why(format!("it has no {what}")))
}

fn provider(name: &str) -> Result<String, Why> {
    let usable = !name.is_empty() && name.len() <= MAX_NAME && !name.bytes().any(|b| b.is_ascii_control());
    usable.then(|| name.to_owned()).ok_or_else(|| Why("its provider's name can't be one".into()))
}

fn uuid(what: &str, text: &str) -> Result<Uuid, Why> {
    Uuid::try_parse(text).map_err(|_| Why(format!("its {what} isn't a UUID")))
}

/// AMQP and SQLite carry signed integers. A run would need three hundred thousand years at a million a second to end here.
fn signed(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any delivery that ingress can build.
    pub(in crate::broker) fn any_delivery() -> impl Strategy<Value = Delivery> {
        let name = "[!-~é ]{0,100}[!-~é]";
        (
            ("[a-z0-9][a-z0-9_-]{0,62}", "[a-z][a-z-]{0,30}", name, name),
            (any::<i64>(), "(env|file):[!-~é]{1,300}", any::<Option<(u128, u32)>>(), any::<Option<u128>>()),
            proptest::collection::vec(any::<u8>(), 0..300),
        )
            .prop_map(|((source, provider, id, event), (received_at, secret, stamp, replay), body)| Delivery {
                source: source.parse().unwrap(),
                provider,
                id: id.parse().unwrap(),
                event: event.parse().unwrap(),
                received_at: Timestamp(received_at),
                secret: SecretName(secret.into()),
                stamp: stamp.map(|(run, sequence)| Stamp { run: Uuid::from_u128(run), sequence: sequence.into() }),
                replay: replay.map(Uuid::from_u128),
                body: body.into(),
            })
    }

    proptest! {
        #[test]
        fn a_delivery_comes_back_as_it_was_whatever_its_content_type_says(
            delivery in any_delivery(), content_type in proptest::option::of("[ -~]{0,30}"),
        ) {
            let envelope = Envelope::of_delivery(&delivery);
            prop_assert_eq!(envelope.content_type.as_deref(), Some(delivery.media_type()));
            for content_type in [envelope.content_type.clone(), content_type.map(Cow::Owned)] {
                let travelled = Envelope { content_type, ..envelope.clone() }.with_body(delivery.body.clone());
                match travelled.decode(usize::MAX).unwrap() {
                    Payload::Delivery(back) => prop_assert_eq!(&back, &delivery),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }

        #[test]
        fn a_checkpoint_comes_back_as_it_was(
            run: u128, sequence: u32, voids: Vec<u64>, held: Option<u64>,
            refused in proptest::collection::vec(("[a-z-]{1,20}", any::<u64>()), 0..4),
        ) {
            let refused = refused.into_iter().map(|(reason, count)| RefusedCount {
                reason, sender: "9f2c".to_owned(), count, last_at: Timestamp(1_760_000_000_123_456),
            });
            let checkpoint = Checkpoint {
                run: Uuid::from_u128(run), source: "acme".parse().unwrap(), sequence: sequence.into(), voids, held,
                refused: refused.collect(),
            };
            match Envelope::of_checkpoint(&checkpoint).with_body(Envelope::settled(&checkpoint)).decode(usize::MAX).unwrap() {
                Payload::Checkpoint(back) => prop_assert_eq!(back, checkpoint),
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_unreadable_and_says_why() {
        let why = |envelope: Envelope<'_>| match envelope
            .with_body(Bytes::from_static(b"body"))
            .decode(usize::MAX)
            .unwrap()
        {
            Payload::Unreadable { why, body, .. } => {
                assert_eq!(body, "body");
                why
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(why(Envelope::default()), "it isn't one of ours: it has no version");
        let ours = Envelope { version: Some(1), kind: "github.push".into(), ..Envelope::default() };
        assert_eq!(why(ours.clone()), "it has no source");
        assert_eq!(why(Envelope { version: Some(2), ..ours.clone() }), "its version is 2, and this program reads 1");
        let half = Envelope { kind: CHECKPOINT.into(), source: Some("acme".into()), sequence: Some(3), ..ours };
        assert_eq!(why(half), "it has a run without a sequence, or the other way round");
    }
}
