//! How deliveries are authenticated, once for all providers that do it in a usual way: the verifier, and the signer as
//! its other direction. Which scheme a source has comes from its configuration; the request never chooses.

mod sign;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

pub(super) use self::sign::{HeadersOf, SchemeSigner, cannot_invent, draft};
use super::signature::{HmacKey, HmacKeys, Tag, came, hex_header, only_value};
use super::{Apparent, Refusal, Secret, SettingsError, Verifier};
use crate::delivery::{Named, SecretName, Timestamp, Unverified, Verified};

/// How far the time of a signature may be from ours, both ways: five minutes, as the reference libraries of Standard
/// Webhooks have it (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
const TOLERANCE: i64 = 300;

/// How many signatures one header may hold.
const MOST_SIGNATURES: usize = 16;

/// The headers of Standard Webhooks.
pub(super) const WEBHOOK_ID: &str = "webhook-id";
const WEBHOOK_TIMESTAMP: &str = "webhook-timestamp";
const WEBHOOK_SIGNATURE: &str = "webhook-signature";

/// What is signed of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The bytes as they come.
    Body,
    /// The JSON text, also where it comes inside a form. That text is what becomes the delivery, not the form.
    Json,
}

/// How a source's deliveries are authenticated.
#[derive(Clone, Debug)]
pub(super) enum Scheme {
    /// HMAC-SHA256 in hexadecimal digits after a prefix.
    Hex {
        /// The header.
        header: &'static str,
        /// What stands before the digits.
        prefix: &'static str,
        /// What is signed.
        over: Over,
    },
    /// Standard Webhooks: HMAC-SHA256 of id, time and body.
    Standard,
    /// The secret itself in a header. It proves nothing of the body.
    Plain {
        /// The header.
        header: HeaderName,
    },
    /// HTTP Basic: the secret is `user:password`. It proves nothing of the body.
    Basic,
}

/// The secrets, as the scheme needs them.
#[derive(Debug)]
enum Secrets {
    Hmac(HmacKeys),
    Plain(Vec<(SecretName, SecretString)>),
}

impl Scheme {
    fn secrets(&self, secrets: &[Secret]) -> Result<Secrets, SettingsError> {
        match self {
            Self::Hex { .. } => HmacKeys::new(secrets).map(Secrets::Hmac),
            Self::Standard => {
                let decoded = secrets.iter().map(decoded).collect::<Result<Vec<_>, _>>()?;
                HmacKeys::of(decoded).map(Secrets::Hmac)
            }
            Self::Plain { .. } | Self::Basic => {
                // The same checks: at least one, none empty.
                HmacKeys::new(secrets)?;
                for secret in secrets {
                    let value = secret.value.expose_secret();
                    let password = value.split_once(':').map_or("", |(_, password)| password);
                    let why = if matches!(self, Self::Basic) && password.trim().is_empty() {
                        "must be user:password"
                    } else if HeaderValue::from_str(value).is_err() || value.trim() != value {
                        "can't travel in a header: it has control characters, or spaces at an end"
                    } else {
                        continue;
                    };
                    return Err(blame("secrets", format!("the secret {} {why}", secret.name)));
                }
                Ok(Secrets::Plain(secrets.iter().map(|secret| (secret.name.clone(), secret.value.clone())).collect()))
            }
        }
    }
}

pub(super) fn blame(key: &str, message: impl Into<String>) -> SettingsError {
    SettingsError { key: key.to_owned(), message: message.into() }
}

/// The key of a Standard Webhooks secret: `whsec_` and base64 of 24 to 64 bytes.
fn decoded(secret: &Secret) -> Result<HmacKey, SettingsError> {
    let wrong = || {
        let message = format!("the secret {} must be whsec_ and the base64 text of 24 to 64 bytes", secret.name);
        blame("secrets", message)
    };
    let text = secret.value.expose_secret().strip_prefix("whsec_").ok_or_else(wrong)?;
    let key = BASE64.decode(text).map_err(|_| wrong())?;
    if !(24..=64).contains(&key.len()) {
        return Err(wrong());
    }
    HmacKey::of_bytes(secret.name.clone(), &key)
}

/// What a verified request calls itself, by its provider.
pub(super) type NameOf = fn(&HeaderMap, &Verified) -> Result<Named, Refusal>;

/// Verifies the deliveries of one source by its scheme.
#[derive(Debug)]
pub(super) struct SchemeVerifier {
    scheme: Scheme,
    secrets: Secrets,
    name: NameOf,
    own_headers: &'static [&'static str],
}

impl SchemeVerifier {
    /// `own_headers` are those that only this provider sends, also without a secret.
    pub(super) fn new(
        scheme: Scheme,
        secrets: &[Secret],
        name: NameOf,
        own_headers: &'static [&'static str],
    ) -> Result<Self, SettingsError> {
        Ok(Self { secrets: scheme.secrets(secrets)?, scheme, name, own_headers })
    }
}

/// Whose a request is, by whether it is signed and by the headers that only its provider sends.
pub(super) fn apparent(headers: &HeaderMap, signed: bool, own_headers: &[&str]) -> Apparent {
    if signed {
        Apparent::Signed
    } else if own_headers.iter().any(|name| headers.contains_key(*name)) {
        Apparent::Unsigned
    } else {
        Apparent::Stranger
    }
}

/// The three headers of a Standard Webhooks signature.
struct Stamped<'h> {
    id: &'h [u8],
    timestamp: &'h [u8],
    at: i64,
    tags: Vec<Tag>,
}

impl<'h> Stamped<'h> {
    fn read(headers: &'h HeaderMap) -> Result<Self, Refusal> {
        let one = |name: &str| {
            let value = only_value(headers, name);
            value.map_err(|why| Refusal::Unverified(format!("{name} {why}; {}", came(headers))))
        };
        let (id, timestamp, signature) = (one(WEBHOOK_ID)?, one(WEBHOOK_TIMESTAMP)?, one(WEBHOOK_SIGNATURE)?);
        let digits = timestamp.as_bytes();
        let at = (!digits.is_empty() && digits.len() <= 12 && digits.iter().all(u8::is_ascii_digit))
            .then(|| std::str::from_utf8(digits).ok()?.parse().ok())
            .flatten();
        let at = at.ok_or_else(|| Refusal::Unverified(format!("{WEBHOOK_TIMESTAMP} isn't a number of seconds")))?;
        // Signatures of versions that we don't know are skipped, as the specification wants.
        let listed = signature.as_bytes().split(|byte| *byte == b' ').take(MOST_SIGNATURES);
        let tags: Vec<Tag> = listed.filter_map(|listed| tag_of(listed.strip_prefix(b"v1,")?)).collect();
        if tags.is_empty() || id.is_empty() {
            return Err(Refusal::Unverified(format!("{WEBHOOK_SIGNATURE} has no v1,<base64 of 32 bytes>")));
        }
        Ok(Self { id: id.as_bytes(), timestamp: digits, at, tags })
    }
}

/// The tag that base64 text is.
fn tag_of(text: &[u8]) -> Option<Tag> {
    /// What 32 bytes need at most while they are decoded.
    const ROOM: usize = 36;
    let mut bytes = [0; ROOM];
    let length = BASE64.decode_slice(text, &mut bytes).ok()?;
    Tag::from_bytes(bytes.get(..length)?)
}

impl Verifier for SchemeVerifier {
    fn precheck(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match &self.scheme {
            Scheme::Hex { header, prefix, .. } => hex_header(headers, header, prefix).map(drop),
            Scheme::Standard => Stamped::read(headers).map(drop),
            Scheme::Plain { header } => presented(headers, header).and_then(|value| self.presented_by(value).map(drop)),
            Scheme::Basic => basic(headers).and_then(|value| self.presented_by(&value).map(drop)),
        }
    }

    fn verify(&self, request: Unverified<'_>, now: Timestamp) -> Result<Verified, Refusal> {
        let headers = request.headers;
        let secret = match &self.scheme {
            Scheme::Hex { header, prefix, over } => {
                let tag = hex_header(headers, header, prefix)?;
                let check = |signed: &[u8]| self.signed_by(header, &[signed], &[tag]);
                match over {
                    Over::Body => check(request.body)?,
                    Over::Json => return request.json_verified_by(check),
                }
            }
            Scheme::Standard => {
                let stamped = Stamped::read(headers)?;
                if (now.micros() / 1_000_000).abs_diff(stamped.at) > TOLERANCE.unsigned_abs() {
                    return Err(Refusal::Unverified(format!(
                        "{WEBHOOK_TIMESTAMP} is more than {TOLERANCE} seconds from now; a replay, or a clock that is wrong"
                    )));
                }
                let parts = [stamped.id, b".", stamped.timestamp, b".", request.body];
                self.signed_by(WEBHOOK_SIGNATURE, &parts, &stamped.tags)?
            }
            Scheme::Plain { header } => self.presented_by(presented(headers, header)?)?,
            Scheme::Basic => self.presented_by(&basic(headers)?)?,
        };
        Ok(request.verified_by(secret))
    }

    fn apparent(&self, headers: &HeaderMap) -> Apparent {
        let signed = match &self.scheme {
            Scheme::Hex { header, prefix, .. } => hex_header(headers, header, prefix).is_ok(),
            Scheme::Standard => Stamped::read(headers).is_ok(),
            Scheme::Plain { header } => presented(headers, header).is_ok_and(|value| !value.is_empty()),
            Scheme::Basic => basic(headers).is_ok(),
        };
        apparent(headers, signed, self.own_headers)
    }

    fn name(&self, headers: &HeaderMap, verified: &Verified) -> Result<Named, Refusal> {
        (self.name)(headers, verified)
    }
}

impl SchemeVerifier {
    fn signed_by(&self, header: &str, parts: &[&[u8]], tags: &[Tag]) -> Result<SecretName, Refusal> {
        let Secrets::Hmac(keys) = &self.secrets else {
            return Err(Refusal::Unverified("the source has no keys".to_owned()));
        };
        keys.matching(parts, tags).cloned().ok_or_else(|| {
            Refusal::Unverified(format!(
                "{header} doesn't fit the body under any of the source's secrets; either the secret at the provider is \
                 another one, or something on the way changed the body"
            ))
        })
    }

    /// Compares hashes, so that not even the length of a secret can be told from the time.
    fn presented_by(&self, value: &[u8]) -> Result<SecretName, Refusal> {
        let Secrets::Plain(secrets) = &self.secrets else {
            return Err(Refusal::Unverified("the source has no secrets to compare".to_owned()));
        };
        let presented = Sha256::digest(value);
        let mut matching = None;
        for (name, secret) in secrets {
            let equal: bool = presented.ct_eq(&Sha256::digest(secret.expose_secret().as_bytes())).into();
            if equal && matching.is_none() {
                matching = Some(name.clone());
            }
        }
        matching.ok_or_else(|| {
            Refusal::Unverified(
                "the secret that came is none of the source's; is the one at the provider another?".to_owned(),
            )
        })
    }
}

fn presented<'h>(headers: &'h HeaderMap, header: &HeaderName) -> Result<&'h [u8], Refusal> {
    only_value(headers, header.as_str())
        .map(HeaderValue::as_bytes)
        .map_err(|why| Refusal::Unverified(format!("{header} {why}; {}", came(headers))))
}

/// The pair that the one `Authorization` header carries.
fn basic(headers: &HeaderMap) -> Result<Vec<u8>, Refusal> {
    let value = presented(headers, &AUTHORIZATION)?;
    let wrong = || Refusal::Unverified("authorization isn't Basic and base64".to_owned());
    let (scheme, pair) = value.split_at_checked(6).ok_or_else(wrong)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return Err(wrong());
    }
    BASE64.decode(pair).map_err(|_| wrong())
}

/// The one value of a header that says what the request is.
pub(super) fn label<'h>(headers: &'h HeaderMap, name: &str) -> Result<&'h str, Refusal> {
    let value = only_value(headers, name).map_err(|why| Refusal::Malformed(format!("{name} {why}")))?;
    match value.to_str() {
        Ok(text) if text.trim().is_empty() => Err(Refusal::Malformed(format!("{name} is blank"))),
        Ok(text) => Ok(text),
        Err(_) => Err(Refusal::Malformed(format!("{name} isn't ASCII text"))),
    }
}

/// Reads what the top of a verified body says of itself into `T`, whose fields are [`super::fields::Loose`]. A body that is JSON but of
/// another shape, or that says something twice, says nothing.
pub(super) fn head<'a, T: Default + serde::Deserialize<'a>>(json: &'a [u8]) -> Result<T, Refusal> {
    let malformed = |_| Refusal::Malformed("the body isn't JSON".to_owned());
    let text = std::str::from_utf8(json).map_err(|_| Refusal::Malformed("the body isn't UTF-8".to_owned()))?;
    // Serde would take an array for an object's fields one after the other.
    if !text.trim_start().starts_with('{') {
        return serde_json::from_str::<IgnoredAny>(text).map(|_| T::default()).map_err(malformed);
    }
    match serde_json::from_str::<T>(text) {
        Ok(head) => Ok(head),
        Err(error) if error.is_data() => {
            serde_json::from_str::<IgnoredAny>(text).map(|_| T::default()).map_err(malformed)
        }
        Err(error) => Err(malformed(error)),
    }
}

/// What a provider that signs, and knows no other way, refuses in a source's table.
pub(super) fn signs_only(settings: &super::SourceSettings, title: &str, header: &str) -> Result<(), SettingsError> {
    if settings.verify.as_deref().is_some_and(|verify| verify != "signature") {
        return Err(blame(
            "verify",
            format!("{title} signs its deliveries; leave the key out or set it to \"signature\""),
        ));
    }
    if settings.header.is_some() {
        return Err(blame("header", format!("{title}'s signature is always in {header}; leave the key out")));
    }
    settings.only_own_keys(&[])
}
