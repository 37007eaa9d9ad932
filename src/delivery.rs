//! The delivery: one HTTP request of a provider, as the rest of rollcall sees it.
//!
//! This is vocabulary. It knows neither brokers nor databases nor providers, and it uses nothing of ours.
//!
//! A request is [`Unverified`] until a provider's verifier has found its signature good; only then can it become a
//! [`Delivery`], because a delivery is built from a [`Verified`] body and nothing else.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A point in time, in microseconds since 1970-01-01T00:00:00Z.
///
/// Microseconds because RabbitMQ headers, SQLite and PostgreSQL all carry a 64-bit integer without loss, and because two
/// deliveries of one burst differ in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The current time. Called at the edges only (ingress, command line, loops); everything below is handed a time.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the edge that everybody else must use")]
    pub fn now() -> Self {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// This time moved by a number of microseconds, saturating at the ends.
    #[must_use]
    pub const fn plus_micros(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// This time moved forward, saturating at the end.
    #[must_use]
    pub fn plus(self, duration: std::time::Duration) -> Self {
        self.plus_micros(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
    }

    /// This time without what is less than a second.
    #[must_use]
    pub const fn whole_second(self) -> Self {
        Self(self.0.saturating_sub(self.0.rem_euclid(1_000_000)))
    }

    /// How long ago `earlier` was, zero if it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::from_timestamp_micros(self.0) {
            Some(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            None => write!(f, "{}µs", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = InvalidName;

    /// Reads RFC 3339.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        DateTime::parse_from_rfc3339(text)
            .map(|time| Self(time.timestamp_micros()))
            .map_err(|_| InvalidName { what: "time", why: "is not an RFC 3339 date and time" })
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> Self {
        time.to_string()
    }
}

impl TryFrom<String> for Timestamp {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// A name or id that can't be used, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {what} {why}")]
pub struct InvalidName {
    /// What it was to name.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: &'static str,
}

/// The name of a source: part of its URL, of metrics and of message headers.
///
/// One to 63 of `a-z`, `0-9`, `-` and `_`, starting with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SourceName(Arc<str>);

impl SourceName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SourceName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |why| Err(InvalidName { what: "source name", why });
        if text.is_empty() || text.len() > 63 {
            return invalid("must have 1 to 63 characters");
        }
        if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_') {
            return invalid("may only have lower-case letters, digits, '-' and '_'");
        }
        if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return invalid("must start with a letter or a digit");
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<SourceName> for String {
    fn from(name: SourceName) -> Self {
        name.0.to_string()
    }
}

impl TryFrom<String> for SourceName {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// The longest event name or delivery id, in bytes: what an AMQP short string holds.
pub const MAX_NAME: usize = 255;

fn usable_name(what: &'static str, text: &str) -> Result<(), InvalidName> {
    let why = if text.trim().is_empty() {
        "is missing or blank"
    } else if text.len() > MAX_NAME {
        "is longer than 255 bytes"
    } else if text.bytes().any(|b| b.is_ascii_control()) {
        "has control characters"
    } else {
        return Ok(());
    };
    Err(InvalidName { what, why })
}

/// The provider's own id of a delivery. Unique within one source at most; never compared across sources.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct DeliveryId(String);

impl DeliveryId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The time inside a time-based id (UUID version 1 or 7), if it is one.
    ///
    /// A redelivery keeps its id, so this is the time of the first delivery however late the copy comes.
    #[must_use]
    pub fn time(&self) -> Option<Timestamp> {
        let uuid = Uuid::try_parse(&self.0).ok()?;
        if !matches!(uuid.get_version_num(), 1 | 7) {
            return None;
        }
        let (seconds, nanos) = uuid.get_timestamp()?.to_unix();
        let seconds = i64::try_from(seconds).ok()?;
        Some(Timestamp(seconds.checked_mul(1_000_000)?.checked_add(i64::from(nanos / 1_000))?))
    }
}

impl FromStr for DeliveryId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        usable_name("delivery id", text)?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// By what the tries of a delivery are counted that the broker hands out again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TryKey {
    /// The source.
    pub source: SourceName,
    /// The provider's id of it.
    pub delivery: DeliveryId,
    /// The digest of its body as it travels: what is decoded to be counted may be what kills.
    pub digest: Vec<u8>,
}

/// What the provider calls the event, its action joined on with a dot: `organization.member_added`, `push`.
///
/// At most providers it comes from an unsigned header, so it is a hint: interpreters look at the body.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct EventName(String);

impl EventName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the first dot: what the provider's event header says.
    #[must_use]
    pub fn event(&self) -> &str {
        self.0.split_once('.').map_or(self.0.as_str(), |(event, _)| event)
    }

    /// The AMQP routing key under which a delivery of this event travels: `<provider>.<event>.<action>`, in which
    /// characters other than letters, digits, `_` and `-` become `_`.
    #[must_use]
    pub fn routing_key(&self, provider: &str) -> String {
        let mut key = String::with_capacity(provider.len() + 1 + self.0.len());
        key.push_str(provider);
        key.push('.');
        key.extend(self.0.chars().map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' | '.' => c,
            _ => '_',
        }));
        while key.len() > MAX_NAME {
            key.pop();
        }
        key
    }
}

impl FromStr for EventName {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        usable_name("event name", text)?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a body is written. It follows from its bytes and its provider ([`Encodings::of`]), never from a header, a message
/// property or a column: those aren't signed. The broker carries the signed bytes, so a form travels as a form where the
/// form is signed, and as its JSON text where only that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// `application/json`: the body is the JSON text.
    Json,
    /// `application/x-www-form-urlencoded`: the JSON text is the form's `payload` field.
    Form,
}

impl Encoding {
    /// The media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Form => "application/x-www-form-urlencoded",
        }
    }

    /// Reads a `Content-Type` value, parameters ignored. `None` for every other media type.
    #[must_use]
    pub fn from_content_type(value: &str) -> Option<Self> {
        let media_type = value.split(';').next().unwrap_or_default().trim();
        [Self::Json, Self::Form].into_iter().find(|encoding| media_type.eq_ignore_ascii_case(encoding.media_type()))
    }
}

/// How a form that carries JSON begins. No JSON text does.
const FORM_START: &[u8] = b"payload=";

/// The encodings in which a provider sends its bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encodings {
    /// Always JSON.
    JsonOnly,
    /// JSON, or a form with the JSON text in it: the administrator chooses at the provider.
    JsonOrForm,
}

impl Encodings {
    /// Whether the provider ever sends that encoding.
    #[must_use]
    pub const fn include(self, encoding: Encoding) -> bool {
        matches!((self, encoding), (_, Encoding::Json) | (Self::JsonOrForm, Encoding::Form))
    }

    /// How a body is written: the one place where that is decided. A form is exactly `payload=` and one value, from the
    /// first byte to the last; everything else is JSON or nothing.
    ///
    /// So no part of a JSON text that somebody could choose, such as a commit message, can ever pass for a form's field.
    #[must_use]
    pub fn of(self, body: &[u8]) -> Encoding {
        if self.payload(body).is_some() { Encoding::Form } else { Encoding::Json }
    }

    /// The JSON text of a body: the body itself, or what its form holds, decoded.
    #[must_use]
    pub fn json(self, body: &[u8]) -> Cow<'_, [u8]> {
        self.payload(body).map_or(Cow::Borrowed(body), |value| form_decoded(value).into())
    }

    /// The value of the form, if the body is one.
    fn payload(self, body: &[u8]) -> Option<&[u8]> {
        if !self.include(Encoding::Form) {
            return None;
        }
        body.strip_prefix(FORM_START).filter(|value| !value.contains(&b'&'))
    }
}

/// A request whose signature nobody has checked yet. It offers nothing but what a verifier needs.
#[derive(Clone, Copy, Debug)]
pub struct Unverified<'a> {
    /// The request's headers.
    pub headers: &'a http::HeaderMap,
    /// The raw bytes as they came.
    pub body: &'a Bytes,
    encodings: Encodings,
}

impl<'a> Unverified<'a> {
    /// A request to a source whose provider sends its bodies in these encodings.
    #[must_use]
    pub const fn new(headers: &'a http::HeaderMap, body: &'a Bytes, encodings: Encodings) -> Self {
        Self { headers, body, encodings }
    }

    /// Seals the body as verified. Only a [`crate::provider::Verifier`] has reason to call this, after its check.
    #[must_use]
    pub fn verified_by(self, secret: SecretName) -> Verified {
        Verified { body: self.body.clone(), encodings: self.encodings, secret }
    }

    /// Seals the JSON text of the body, if `check` finds that text signed. For providers that sign it wherever it comes: a
    /// form can be written in many ways without touching the signature, so that its own bytes are nobody's.
    ///
    /// # Errors
    /// Those of `check`.
    pub fn json_verified_by<E>(self, check: impl FnOnce(&[u8]) -> Result<SecretName, E>) -> Result<Verified, E> {
        let body = match self.encodings.json(self.body) {
            Cow::Borrowed(_) => self.body.clone(),
            Cow::Owned(text) => text.into(),
        };
        let secret = check(&body)?;
        Ok(Verified { body, encodings: Encodings::JsonOnly, secret })
    }
}

/// The bytes that its provider's verifier has found signed, and the name of the secret that did it.
#[derive(Clone, Debug)]
pub struct Verified {
    body: Bytes,
    encodings: Encodings,
    secret: SecretName,
}

impl Verified {
    /// The signed bytes.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// The JSON text of the body.
    #[must_use]
    pub fn json(&self) -> Cow<'_, [u8]> {
        self.encodings.json(&self.body)
    }

    /// The name of the secret that verified it.
    #[must_use]
    pub const fn secret(&self) -> &SecretName {
        &self.secret
    }

    /// The delivery that these bytes are.
    #[must_use]
    pub fn into_delivery(
        self,
        source: SourceName,
        provider: &'static str,
        named: Named,
        received_at: Timestamp,
    ) -> Delivery {
        Delivery {
            source,
            provider: provider.to_owned(),
            id: named.id,
            event: named.event,
            received_at,
            secret: self.secret,
            stamp: None,
            replay: None,
            body: self.body,
        }
    }
}

/// The *name* of a secret, such as `env:GITHUB_WEBHOOK_SECRET`: where it comes from, never what it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct SecretName(pub Arc<str>);

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a verified request calls itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The provider's delivery id.
    pub id: DeliveryId,
    /// The event and its action.
    pub event: EventName,
    /// Whether it is the provider's ping, which is answered and never published.
    pub ping: bool,
}

/// Where a delivery stands in the order of what one ingress accepted, so that the ledger can tell what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Stamp {
    /// The run: one start of one ingress process.
    pub run: Uuid,
    /// Counts the deliveries of one source in this run, from 1.
    pub sequence: u64,
}

/// How many deliveries of a source a run has accepted so far: closes the tail that no later stamp would reveal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Checkpoint {
    /// The run.
    pub run: Uuid,
    /// The source.
    pub source: SourceName,
    /// The last sequence up to which every number is settled: confirmed by the broker, or void.
    pub sequence: u64,
    /// Numbers up to `sequence` whose publish failed, so that they were never answered with 202. A message with such a
    /// number may have been stored all the same; then it counts. A void is listed in every checkpoint until one of them
    /// was confirmed, so the reader must take repetition well.
    pub voids: Vec<u64>,
    /// The least number that waits in the ingress's spool, if any does. From there on nothing is missing that hasn't
    /// arrived: it is on its way. It is told again and again for as long as it is so.
    pub held: Option<u64>,
    /// What the run has refused of the source so far, as far as it is news: sums of the whole run, so that repetition does
    /// no harm here either.
    pub refused: Vec<RefusedCount>,
}

/// Requests that were refused for one reason, of one sender. Nothing of what they said is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RefusedCount {
    /// The reason, as in the metric.
    pub reason: String,
    /// A fingerprint of the sender.
    pub sender: String,
    /// How many since the run began.
    pub count: u64,
    /// When the last of them came.
    pub last_at: Timestamp,
}

/// One verified delivery.
///
/// Named by (source, the provider's delivery id). The body is the provider's bytes, never re-serialised.
#[derive(Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The source whose endpoint took it.
    pub source: SourceName,
    /// The provider's name in the registry.
    pub provider: String,
    /// The provider's id of it.
    pub id: DeliveryId,
    /// What the provider calls it.
    pub event: EventName,
    /// When ingress had read it. A replay carries the original's.
    pub received_at: Timestamp,
    /// The name of the secret that verified it.
    pub secret: SecretName,
    /// Its place in the balance; none for replays, which nobody accepted anew.
    pub stamp: Option<Stamp>,
    /// The id of the replay that published it again, if one did.
    pub replay: Option<Uuid>,
    /// The signed bytes.
    pub body: Bytes,
}

impl Delivery {
    /// The AMQP routing key.
    #[must_use]
    pub fn routing_key(&self) -> String {
        self.event.routing_key(&self.provider)
    }

    /// When the event happened, as far as the delivery itself can tell: the time in a time-based id if it lies within
    /// 30 days before and 5 minutes after receipt, else the receipt.
    #[must_use]
    pub fn event_time(&self) -> Timestamp {
        event_time(&self.id, self.received_at)
    }

    /// The media type of the body, for people and for other consumers. It is found in the bytes alone: no body that begins
    /// like a form is accepted of a provider that sends none.
    #[must_use]
    pub fn media_type(&self) -> &'static str {
        Encodings::JsonOrForm.of(&self.body).media_type()
    }

    /// The JSON text, by the encodings of the delivery's provider.
    #[must_use]
    pub fn json(&self, encodings: Encodings) -> Cow<'_, [u8]> {
        encodings.json(&self.body)
    }
}

/// See [`Delivery::event_time`]; the ledger calls it again when an earlier copy turns up.
#[must_use]
pub fn event_time(id: &DeliveryId, received_at: Timestamp) -> Timestamp {
    const DAY: i64 = 24 * 3600 * 1_000_000;
    const MINUTE: i64 = 60 * 1_000_000;
    id.time()
        .filter(|time| *time >= received_at.plus_micros(-30 * DAY) && *time <= received_at.plus_micros(5 * MINUTE))
        .unwrap_or(received_at)
}

/// The bytes that a form's value stands for. They are kept as they are and not made UTF-8, since they may be what
/// is signed.
fn form_decoded(text: &[u8]) -> Vec<u8> {
    let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let coded = match (first, after) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        rest = if coded.is_some() { &after[2..] } else { after };
        decoded.push(coded.unwrap_or(if *first == b'+' { b' ' } else { *first }));
    }
    decoded
}

impl fmt::Debug for Delivery {
    /// Leaves the body out, so that no log line can carry it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("source", &self.source)
            .field("id", &self.id)
            .field("event", &self.event)
            .field("received_at", &self.received_at)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_a_version_1_id_is_its_creation() {
        let id: DeliveryId = "72d3162e-cc78-11e3-81ab-4c9367dc0958".parse().unwrap();
        assert_eq!(id.time().unwrap().to_string(), "2014-04-25T12:52:24.582507Z");
        assert_eq!("0b6f2f4e-3f4e-4c5d-9d3b-3f2d1c0b9a88".parse::<DeliveryId>().unwrap().time(), None);
    }

    #[test]
    fn event_time_trusts_an_id_only_near_its_receipt() {
        let id: DeliveryId = "72d3162e-cc78-11e3-81ab-4c9367dc0958".parse().unwrap();
        let then = id.time().unwrap();
        let day = 24 * 3600 * 1_000_000;
        assert_eq!(event_time(&id, then.plus_micros(29 * day)), then);
        assert_eq!(event_time(&id, then.plus_micros(31 * day)), then.plus_micros(31 * day));
        let ahead = then.plus_micros(-6 * 60 * 1_000_000);
        assert_eq!(event_time(&id, ahead), ahead);
    }

    #[test]
    fn routing_key_keeps_dots_and_replaces_what_is_not_a_word() {
        let event: EventName = "organization.member added/é".parse().unwrap();
        assert_eq!(event.routing_key("github"), "github.organization.member_added__");
    }

    #[test]
    fn names_that_cannot_travel_are_refused() {
        assert!("".parse::<DeliveryId>().is_err());
        assert!("  ".parse::<EventName>().is_err());
        assert!("x".repeat(256).parse::<DeliveryId>().is_err());
        assert!("a\nb".parse::<EventName>().is_err());
        assert!("Acme".parse::<SourceName>().is_err());
        assert!("-acme".parse::<SourceName>().is_err());
        assert!("acme-github_1".parse::<SourceName>().is_ok());
    }

    #[test]
    fn a_form_is_exactly_one_payload_from_the_first_byte_to_the_last() {
        let form = |body: &[u8]| {
            assert_eq!(Encodings::JsonOnly.of(body), Encoding::Json);
            assert_eq!(Encodings::JsonOnly.json(body).as_ref(), body);
            let json = Encodings::JsonOrForm.json(body).into_owned();
            let is_form = Encodings::JsonOrForm.of(body) == Encoding::Form;
            assert!(is_form || json == body);
            is_form.then_some(json)
        };
        assert_eq!(form(b"payload=%7B%22yo%22%3Atrue%7D").unwrap(), br#"{"yo":true}"#);
        assert_eq!(form(b"payload=").unwrap(), b"");
        assert_eq!(form(b"payload=a+b%2=c%26d").unwrap(), b"a b%2=c&d");
        for other in [
            &b""[..],
            b"payload",
            b"Payload=1",
            b"p%61yload=1",
            b" payload=1",
            b"a=1&payload=%7B%7D",
            b"payload=%7B%7D&a=1",
            b"payload=1&payload=2",
            b"payload=1&",
            br#"{"message":"x&payload=%7B%7D&y="}"#,
        ] {
            assert_eq!(form(other), None, "{}", String::from_utf8_lossy(other));
        }
    }

    #[test]
    fn a_form_gives_the_very_bytes_that_were_put_into_it() {
        let all: Vec<u8> = (0..=255).collect();
        let form = format!("payload={}", form_urlencoded::byte_serialize(&all).collect::<String>());
        assert_eq!(Encodings::JsonOrForm.json(form.as_bytes()).as_ref(), all);
    }

    #[test]
    fn content_types_are_compared_without_parameters() {
        assert_eq!(Encoding::from_content_type("Application/JSON; charset=utf-8"), Some(Encoding::Json));
        assert_eq!(Encoding::from_content_type("text/plain"), None);
    }
}
