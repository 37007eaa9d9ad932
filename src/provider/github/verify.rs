//! The ingress's side: is the request GitHub's, and what does it call itself?

use http::{HeaderMap, HeaderName};
use serde::Deserialize;

use super::{HEADER_DELIVERY, HEADER_EVENT, HEADER_SIGNATURE, SIGNATURE_PREFIX};
use crate::delivery::{EventName, Named, Timestamp, Unverified, Verified};
use crate::provider::fields::Loose;
use crate::provider::scheme::{apparent, head, label};
use crate::provider::signature::{HmacKeys, Tag, hex_header};
use crate::provider::{Apparent, Refusal, Verifier};

/// Verifies the deliveries of one source.
#[derive(Debug)]
pub(super) struct GitHubVerifier {
    keys: HmacKeys,
}

impl GitHubVerifier {
    pub(super) const fn new(keys: HmacKeys) -> Self {
        Self { keys }
    }
}

impl Verifier for GitHubVerifier {
    fn precheck(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        tag(headers).map(|_| ())
    }

    /// The signature is over the bytes as they came, so that of a form is over the encoded form.
    fn verify(&self, request: Unverified<'_>, _now: Timestamp) -> Result<Verified, Refusal> {
        let tag = tag(request.headers)?;
        match self.keys.matching(&[request.body], &[tag]) {
            Some(secret) => Ok(request.verified_by(secret.clone())),
            None => Err(Refusal::Unverified(format!(
                "{HEADER_SIGNATURE} doesn't fit the body under any of the source's secrets; either the secret at \
                 GitHub is another one, or something on the way changed the body"
            ))),
        }
    }

    fn apparent(&self, headers: &HeaderMap) -> Apparent {
        apparent(headers, tag(headers).is_ok(), &[HEADER_EVENT, HEADER_DELIVERY])
    }

    fn name(&self, headers: &HeaderMap, verified: &Verified) -> Result<Named, Refusal> {
        #[derive(Default, Deserialize)]
        struct Head<'a> {
            #[serde(borrow, default)]
            action: Loose<'a>,
            #[serde(borrow, default)]
            zen: Loose<'a>,
        }

        let event = label(headers, HEADER_EVENT)?;
        // GitHub's event names are words; a dot would make the event look like one with an action.
        if !event.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-') {
            return Err(Refusal::Malformed(format!("{HEADER_EVENT} isn't the name of an event")));
        }
        let id = label(headers, HEADER_DELIVERY)?.parse()?;
        let json = verified.json();
        let head: Head<'_> = head(&json)?;
        // An action that can't be part of a name is the interpreter's business: the event is verified all the same.
        let name = head.action.text().and_then(|action| format!("{event}.{action}").parse().ok());
        let name: EventName = name.map_or_else(|| event.parse(), Ok)?;
        // The event's name isn't signed: a body of another event must not be answered and forgotten as a ping.
        Ok(Named { id, ping: event == "ping" && head.zen.is_there(), event: name })
    }
}

/// Headers of hosts that send GitHub's too, validly signed. Their ids are those of other accounts.
const OTHERS: [HeaderName; 3] = [
    HeaderName::from_static("x-gitea-event"),
    HeaderName::from_static("x-forgejo-event"),
    HeaderName::from_static("x-gogs-event"),
];

fn tag(headers: &HeaderMap) -> Result<Tag, Refusal> {
    if let Some(other) = OTHERS.iter().find(|other| headers.contains_key(*other)) {
        return Err(Refusal::Unverified(format!(
            "{other} came, so the sender isn't GitHub; give it a source of its provider"
        )));
    }
    hex_header(headers, HEADER_SIGNATURE, SIGNATURE_PREFIX).map_err(|refusal| {
        let only_legacy = !headers.contains_key(HEADER_SIGNATURE) && headers.contains_key("X-Hub-Signature");
        if !only_legacy {
            return refusal;
        }
        Refusal::Unverified(format!(
            "{HEADER_SIGNATURE} is missing; only the legacy X-Hub-Signature (SHA-1) came, which isn't accepted. GitHub \
             sends both, so something on the way drops one, or the sender isn't GitHub"
        ))
    })
}
