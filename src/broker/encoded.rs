//! A message whose body is as it travels. It is decoded when it is needed and no sooner, so that what waits costs as
//! little as it does on the wire, and whoever decodes says how much memory that may take.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::Payload;
use super::compression::{self, LZ4, NotDecompressed};
use super::envelope::{Envelope, settle};
use crate::delivery::{Timestamp, TryKey};

/// The longest body that is decompressed, in bytes, so that a few bytes of a stranger can't fill the memory. It is far
/// above what any provider sends (GitHub: 25 MiB); what is longer than that travels as it is.
pub(super) const MOST: usize = 128 * 1024 * 1024;
/// The same for a checkpoint: half a million numbers, where an ingress has a handful.
const MOST_OF_CHECKPOINT: usize = 4 * 1024 * 1024;

/// How a body travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyEncoding {
    /// As it is.
    Identity,
    /// As an LZ4 frame.
    Lz4,
    /// In a way that rollcall doesn't know.
    Unknown,
}

impl BodyEncoding {
    /// The one that a `content_encoding` names.
    pub(super) fn of(content_encoding: Option<&str>) -> Self {
        match content_encoding {
            None => Self::Identity,
            Some(LZ4) => Self::Lz4,
            Some(_) => Self::Unknown,
        }
    }

    const fn content_encoding(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Lz4 => Some(LZ4),
            Self::Unknown => Some("unknown"),
        }
    }
}

/// A message whose body is as it travels.
pub struct EncodedPayload {
    /// The message without its body.
    head: Payload,
    encoding: BodyEncoding,
    body: Bytes,
}

/// Why a body wasn't decoded. That says nothing about the message: decoded another time, it may well be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDecoded {
    /// It is longer than the limit.
    #[error("the body is longer than the limit")]
    TooLong,
    /// There is no memory for it at the moment.
    #[error("there is no memory for the body")]
    OutOfMemory,
}

impl EncodedPayload {
    /// A message of this head, which has an empty body.
    pub(super) const fn new(head: Payload, encoding: BodyEncoding, body: Bytes) -> Self {
        Self { head, encoding, body }
    }

    /// The length of its body as it travels, in bytes.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        self.body.len()
    }

    /// The length that its body is said to have once decoded, in bytes. Whoever sent it may have lied, so
    /// [`EncodedPayload::decode`] has a limit of its own.
    #[must_use]
    pub fn declared_len(&self) -> usize {
        match self.encoding {
            BodyEncoding::Lz4 => compression::declared_len(&self.body),
            BodyEncoding::Identity | BodyEncoding::Unknown => self.body.len(),
        }
    }

    /// What the message says, if its body has at most `limit` bytes. Takes no more memory than that, whatever the body
    /// turns out to be.
    ///
    /// # Errors
    /// If the body is longer, or there is no memory for it.
    pub fn decode(&self, limit: usize) -> Result<Payload, NotDecoded> {
        let most = match &self.head {
            Payload::Delivery(_) => MOST,
            Payload::Checkpoint(_) => MOST_OF_CHECKPOINT,
            // Nothing is gained by decoding it.
            Payload::Unreadable { why, .. } => return Ok(self.unreadable(why.clone())),
        };
        let decoded = match self.encoding {
            BodyEncoding::Identity if self.body.len() > limit => return Err(NotDecoded::TooLong),
            BodyEncoding::Identity => Ok(self.body.clone()),
            BodyEncoding::Lz4 => compression::decompress(&self.body, limit.min(most)),
            BodyEncoding::Unknown => return Ok(self.unreadable(format!("its content encoding isn't {LZ4}"))),
        };
        match decoded {
            Ok(body) => Ok(self.with_body(body)),
            Err(NotDecompressed::OutOfMemory) => Err(NotDecoded::OutOfMemory),
            Err(NotDecompressed::TooLong) if limit < most => Err(NotDecoded::TooLong),
            Err(NotDecompressed::TooLong) => {
                Ok(self.unreadable(format!("its body has more than {most} bytes once decompressed")))
            }
            Err(NotDecompressed::Malformed(why)) => Ok(self.unreadable(format!("its body isn't an LZ4 frame: {why}"))),
        }
    }

    fn with_body(&self, body: Bytes) -> Payload {
        match &self.head {
            Payload::Delivery(delivery) => {
                let mut delivery = delivery.clone();
                delivery.body = body;
                Payload::Delivery(delivery)
            }
            Payload::Checkpoint(checkpoint) => {
                let mut checkpoint = checkpoint.clone();
                match settle(&mut checkpoint, &body) {
                    Ok(()) => Payload::Checkpoint(checkpoint),
                    Err(why) => self.unreadable(why),
                }
            }
            Payload::Unreadable { why, .. } => self.unreadable(why.clone()),
        }
    }

    /// The message as one that can't be read, with its body as it travels.
    #[must_use]
    pub fn unreadable(&self, why: String) -> Payload {
        let of = |mut envelope: Envelope<'_>| {
            envelope.content_encoding = self.encoding.content_encoding().map(Into::into);
            (envelope.id.as_deref().map(str::to_owned), envelope.properties())
        };
        let (id, properties) = match &self.head {
            Payload::Delivery(delivery) => of(Envelope::of_delivery(delivery)),
            Payload::Checkpoint(checkpoint) => of(Envelope::of_checkpoint(checkpoint)),
            Payload::Unreadable { id, properties, .. } => (id.clone(), properties.clone()),
        };
        Payload::Unreadable { id, why, body: self.body.clone(), properties }
    }

    /// Whether it is a delivery. What else there is decodes to very little, or isn't decoded at all.
    #[must_use]
    pub const fn is_delivery(&self) -> bool {
        matches!(self.head, Payload::Delivery(_))
    }

    /// When a delivery was received. None for other messages.
    #[must_use]
    pub const fn received_at(&self) -> Option<Timestamp> {
        match &self.head {
            Payload::Delivery(delivery) => Some(delivery.received_at),
            Payload::Checkpoint(_) | Payload::Unreadable { .. } => None,
        }
    }

    /// By what the tries of a delivery are counted. Nothing is decoded for it. None for other messages.
    #[must_use]
    pub fn try_key(&self) -> Option<TryKey> {
        let Payload::Delivery(delivery) = &self.head else { return None };
        Some(TryKey {
            source: delivery.source.clone(),
            delivery: delivery.id.clone(),
            digest: Sha256::digest(&self.body).to_vec(),
        })
    }

    /// A message that was kept as unreadable, from what was kept of it. None if that isn't what was kept.
    #[must_use]
    pub fn kept(properties: &str, body: Bytes) -> Option<Self> {
        let envelope: Envelope<'_> = serde_json::from_str(properties).ok()?;
        Some(envelope.with_body(body))
    }
}

impl From<Payload> for EncodedPayload {
    /// The message with its body as it is.
    fn from(payload: Payload) -> Self {
        match payload {
            Payload::Delivery(delivery) => {
                let body = delivery.body.clone();
                Envelope::of_delivery(&delivery).with_body(body)
            }
            Payload::Checkpoint(checkpoint) => {
                Envelope::of_checkpoint(&checkpoint).with_body(Envelope::settled(&checkpoint))
            }
            Payload::Unreadable { id, why, body, properties } => {
                let head = Payload::Unreadable { id, why, body: Bytes::new(), properties };
                Self::new(head, BodyEncoding::Identity, body)
            }
        }
    }
}

impl std::fmt::Debug for EncodedPayload {
    /// Leaves the body out, so that no log line can carry one.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncodedPayload")
            .field("head", &self.head)
            .field("encoding", &self.encoding)
            .field("bytes", &self.body.len())
            .finish()
    }
}
