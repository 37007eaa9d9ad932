//! The signer: the verifier's other direction, over the same table of schemes.

use base64::Engine as _;
use form_urlencoded::byte_serialize;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;

use super::{BASE64, Over, Scheme, WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP, blame, decoded};
use crate::delivery::{Encoding, Timestamp};
use crate::provider::signature::HmacKey;
use crate::provider::{Draft, Invention, Secret, SettingsError, SignedRequest, Signer};

/// The headers that say what a request is, by its provider, in the order in which it sends them.
pub(in crate::provider) type HeadersOf = fn(&Draft) -> Vec<(&'static str, String)>;
/// Writes an event of the provider's own shape.
pub(in crate::provider) type Invent = fn(host: &str, &Invention) -> Result<Draft, SettingsError>;

/// Signs the deliveries of one source by its scheme.
#[derive(Debug)]
pub(in crate::provider) struct SchemeSigner {
    scheme: Scheme,
    secret: Secret,
    host: String,
    headers: HeadersOf,
    invent: Invent,
}

impl SchemeSigner {
    pub(in crate::provider) fn new(
        scheme: Scheme,
        secret: Secret,
        host: &str,
        headers: HeadersOf,
        invent: Invent,
    ) -> Result<Self, SettingsError> {
        scheme.secrets(std::slice::from_ref(&secret))?;
        Ok(Self { scheme, secret, host: host.to_owned(), headers, invent })
    }
}

impl Signer for SchemeSigner {
    fn sign(&self, draft: &Draft, now: Timestamp) -> Result<SignedRequest, SettingsError> {
        let body = match draft.encoding {
            Encoding::Json => draft.json.clone(),
            Encoding::Form => format!("payload={}", byte_serialize(&draft.json).collect::<String>()).into_bytes(),
        };
        let mut headers = HeaderMap::new();
        let mut put = |name: HeaderName, value: &str| match HeaderValue::from_str(value) {
            Ok(value) => {
                headers.insert(name, value);
                Ok(())
            }
            Err(_) => Err(blame(name.as_str(), "its value can't travel in a header: it has control characters")),
        };
        put(http::header::CONTENT_TYPE, draft.encoding.media_type())?;
        for (name, value) in (self.headers)(draft) {
            put(HeaderName::from_bytes(name.as_bytes()).map_err(|_| blame(name, "is no header"))?, &value)?;
        }
        match &self.scheme {
            Scheme::Hex { header, prefix, over } => {
                let signed = if *over == Over::Json { &draft.json } else { &body };
                let tag = HmacKey::new(&self.secret)?.sign(&[signed]);
                put(
                    HeaderName::from_bytes(header.as_bytes()).map_err(|_| blame(header, "is no header"))?,
                    &format!("{prefix}{tag}"),
                )?;
            }
            Scheme::Standard => {
                let timestamp = (now.micros() / 1_000_000).to_string();
                let tag = decoded(&self.secret)?.sign(&[draft.id.as_bytes(), b".", timestamp.as_bytes(), b".", &body]);
                put(HeaderName::from_static(WEBHOOK_ID), &draft.id)?;
                put(HeaderName::from_static(WEBHOOK_TIMESTAMP), &timestamp)?;
                put(HeaderName::from_static(WEBHOOK_SIGNATURE), &format!("v1,{}", BASE64.encode(tag.as_bytes())))?;
            }
            Scheme::Plain { header } => put(header.clone(), self.secret.value.expose_secret())?,
            Scheme::Basic => {
                put(AUTHORIZATION, &format!("Basic {}", BASE64.encode(self.secret.value.expose_secret())))?;
            }
        }
        Ok(SignedRequest { headers, body })
    }

    fn invent(&self, invention: &Invention) -> Result<Draft, SettingsError> {
        (self.invent)(&self.host, invention)
    }
}

/// The draft of an invented event.
pub(in crate::provider) fn draft(invention: &Invention, event: &str, body: &serde_json::Value) -> Draft {
    Draft {
        id: invention.id.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
        event: event.to_owned(),
        encoding: Encoding::Json,
        json: body.to_string().into_bytes(),
    }
}

/// No such event can be invented.
pub(in crate::provider) fn cannot_invent(invention: &Invention, known: &[&str]) -> SettingsError {
    blame("event", format!("{:?} can't be invented; there are {}", invention.event, known.join(", ")))
}
