//! The AMQP form of an envelope: the documented properties and headers of every message, and back.
//!
//! `message_id` the provider's delivery id · `type` the routing key, or `rollcall.checkpoint` · `content_type` the media
//! type as the bytes have it, for other consumers (rollcall never reads it) ·
//! `delivery_mode` 2 · `timestamp` the second of receipt · `app_id` `rollcall` · `correlation_id` a publisher's own
//! count, of no meaning to others · `content_encoding` `lz4` if the body is compressed. Headers: `x-rollcall-source`, `-provider`, `-event`, `-secret` (a name, never the
//! secret), `-run` and `-replay` are text; `-received-at` (microseconds since the epoch), `-sequence` and `-version`
//! are 64-bit integers.

use std::borrow::Cow;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

use crate::broker::Payload;
use crate::broker::encoded::{BodyEncoding, EncodedPayload};
use crate::broker::envelope::Envelope;

const APP: &str = "rollcall";
const PERSISTENT: u8 = 2;
const SOURCE: &str = "x-rollcall-source";
const PROVIDER: &str = "x-rollcall-provider";
const EVENT: &str = "x-rollcall-event";
const RECEIVED_AT: &str = "x-rollcall-received-at";
const SECRET: &str = "x-rollcall-secret";
const RUN: &str = "x-rollcall-run";
const SEQUENCE: &str = "x-rollcall-sequence";
const REPLAY: &str = "x-rollcall-replay";
const VERSION: &str = "x-rollcall-version";

/// Writes an envelope. Kind, id and content type are at most 255 bytes long, as their types make sure.
pub(super) fn properties(envelope: &Envelope<'_>) -> BasicProperties {
    let mut headers = FieldTable::default();
    let mut text = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        }
    };
    text(SOURCE, envelope.source.as_deref());
    text(PROVIDER, envelope.provider.as_deref());
    text(EVENT, envelope.event.as_deref());
    text(SECRET, envelope.secret.as_deref());
    text(RUN, envelope.run.as_deref());
    text(REPLAY, envelope.replay.as_deref());
    let mut number = |name: &str, value: Option<i64>| {
        if let Some(value) = value {
            headers.insert(name.into(), AMQPValue::LongLongInt(value));
        }
    };
    number(RECEIVED_AT, envelope.received_at);
    number(SEQUENCE, envelope.sequence);
    number(VERSION, envelope.version);

    let mut properties = BasicProperties::default()
        .with_type(envelope.kind.as_ref().into())
        .with_delivery_mode(PERSISTENT)
        .with_app_id(APP.into())
        .with_headers(headers);
    if let Some(id) = envelope.id.as_deref() {
        properties = properties.with_message_id(id.into());
    }
    if let Some(content_type) = envelope.content_type.as_deref() {
        properties = properties.with_content_type(content_type.into());
    }
    if let Some(encoding) = envelope.content_encoding.as_deref() {
        properties = properties.with_content_encoding(encoding.into());
    }
    if let Some(seconds) = envelope.received_at.and_then(|micros| u64::try_from(micros / 1_000_000).ok()) {
        properties = properties.with_timestamp(seconds);
    }
    properties
}

/// Reads a message, whoever sent it. Its body stays as it travels.
pub(super) fn payload(properties: &BasicProperties, body: Vec<u8>) -> EncodedPayload {
    match envelope(properties) {
        Ok(envelope) => envelope.with_body(body.into()),
        Err(why) => {
            let id = properties.message_id().as_ref().map(|id| id.as_str().to_owned());
            let encoding = properties.content_encoding().as_ref().map(|encoding| encoding.as_str());
            let head = Payload::Unreadable { id, why, body: Bytes::new(), properties: None };
            EncodedPayload::new(head, BodyEncoding::of(encoding), body.into())
        }
    }
}

fn envelope(properties: &BasicProperties) -> Result<Envelope<'_>, String> {
    let Some(headers) = properties.headers() else {
        return Err("it isn't one of ours: it has no headers".to_owned());
    };
    Ok(Envelope {
        kind: properties.kind().as_ref().map(|kind| kind.as_str()).unwrap_or_default().into(),
        id: properties.message_id().as_ref().map(|id| id.as_str().into()),
        content_type: properties.content_type().as_ref().map(|value| value.as_str().into()),
        content_encoding: properties.content_encoding().as_ref().map(|value| value.as_str().into()),
        source: text(headers, SOURCE)?,
        provider: text(headers, PROVIDER)?,
        event: text(headers, EVENT)?,
        received_at: number(headers, RECEIVED_AT)?,
        secret: text(headers, SECRET)?,
        run: text(headers, RUN)?,
        sequence: number(headers, SEQUENCE)?,
        replay: text(headers, REPLAY)?,
        version: number(headers, VERSION)?,
    })
}

fn text<'a>(headers: &'a FieldTable, name: &str) -> Result<Option<Cow<'a, str>>, String> {
    let bytes = match headers.inner().get(name) {
        None => return Ok(None),
        Some(AMQPValue::LongString(value)) => value.as_bytes(),
        Some(AMQPValue::ShortString(value)) => value.as_str().as_bytes(),
        Some(_) => return Err(format!("its header {name} isn't text")),
    };
    std::str::from_utf8(bytes).map(|text| Some(text.into())).map_err(|_| format!("its header {name} isn't UTF-8"))
}

fn number(headers: &FieldTable, name: &str) -> Result<Option<i64>, String> {
    Ok(Some(match headers.inner().get(name) {
        None => return Ok(None),
        Some(AMQPValue::LongLongInt(value)) => *value,
        Some(AMQPValue::LongInt(value)) => (*value).into(),
        Some(AMQPValue::LongUInt(value)) => (*value).into(),
        Some(AMQPValue::ShortInt(value)) => (*value).into(),
        Some(AMQPValue::ShortUInt(value)) => (*value).into(),
        Some(AMQPValue::ShortShortInt(value)) => (*value).into(),
        Some(AMQPValue::ShortShortUInt(value)) => (*value).into(),
        Some(_) => return Err(format!("its header {name} isn't an integer")),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::broker::envelope::tests::any_delivery;

    proptest! {
        #[test]
        fn a_delivery_survives_properties_and_headers(delivery in any_delivery()) {
            let properties = properties(&Envelope::of_delivery(&delivery));
            match payload(&properties, delivery.body.to_vec()).decode(usize::MAX).unwrap() {
                Payload::Delivery(back) => prop_assert_eq!(back, delivery),
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }

    #[test]
    fn what_others_send_is_unreadable_and_keeps_its_id() {
        let stranger = BasicProperties::default().with_message_id("m-1".into());
        let read = |properties: &BasicProperties| payload(properties, b"{}".to_vec()).decode(usize::MAX).unwrap();
        let Payload::Unreadable { id, why, .. } = read(&stranger) else { panic!("read") };
        assert_eq!((id.as_deref(), why.as_str()), (Some("m-1"), "it isn't one of ours: it has no headers"));

        let mut headers = FieldTable::default();
        headers.insert(VERSION.into(), AMQPValue::Boolean(true));
        let Payload::Unreadable { why, .. } = read(&stranger.with_headers(headers)) else { panic!("read") };
        assert_eq!(why, "its header x-rollcall-version isn't an integer");
    }
}
