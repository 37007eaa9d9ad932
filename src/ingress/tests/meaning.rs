//! Nothing unsigned decides: whoever may change a request's headers, and any text inside its body, never makes it mean
//! something else. Every provider of the registry, from its signed request through the edge to its interpreter.

use std::collections::BTreeSet;

use bytes::Bytes;
use form_urlencoded::byte_serialize;
use http::{HeaderName, HeaderValue};

use super::*;
use crate::access::{Change, When};
use crate::delivery::Encoding;
use crate::provider::samples::{Source, drafts, sources};
use crate::provider::{Draft, Interpreter, Signer};

/// The headers that name the event, by all providers.
const EVENT: [&str; 6] =
    ["x-github-event", "x-gitlab-event", "x-event-key", "x-gitea-event", "x-forgejo-event", "x-gogs-event"];
/// The headers that name the delivery.
const ID: [&str; 8] = [
    "x-github-delivery",
    "idempotency-key",
    "webhook-id",
    "x-request-uuid",
    "x-request-id",
    "x-gitea-delivery",
    "x-forgejo-delivery",
    "x-gogs-delivery",
];
/// The providers that sign the JSON text in a form, and not the form.
const SIGN_THE_TEXT: [&str; 3] = ["gitea", "forgejo", "gogs"];
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq)]
enum Became {
    Refused(u16),
    Ping,
    Parked,
    Nothing,
    Means(Vec<Change>, When),
}

struct Trial {
    source: Source,
    ingress: Ingress,
    broker: Arc<FakeBroker>,
    signer: Box<dyn Signer>,
    interpreter: Box<dyn Interpreter>,
}

impl Trial {
    fn new(source: Source) -> Self {
        let Source { provider, settings, secret } = &source;
        let edge = IngressSource {
            name: "acme".parse().unwrap(),
            provider: provider.name,
            allow_from: None,
            encodings: provider.encodings,
            verifier: (provider.verifier)(settings, vec![secret.clone()]).unwrap(),
        };
        let (ingress, broker) = ingress_for(super::settings(), edge);
        let signer = (provider.signer)(settings, secret.clone()).unwrap();
        let interpreter = (provider.interpreter)(settings).unwrap();
        Self { ingress, broker, signer, interpreter, source }
    }

    /// The draft as the provider sends it.
    fn signed(&self, draft: &Draft) -> (HeaderMap, Vec<u8>) {
        let request = self.signer.sign(draft, Timestamp::now()).unwrap();
        let mut headers = request.headers;
        headers.insert("host", HeaderValue::from_static("hooks.test"));
        (headers, request.body)
    }

    async fn became(&self, headers: &HeaderMap, body: &[u8]) -> Became {
        self.delivered(headers, body).await.0
    }

    /// What becomes of a request, and the body of the delivery that it is, if it is one.
    async fn delivered(&self, headers: &HeaderMap, body: &[u8]) -> (Became, Option<Bytes>) {
        let mut request = Request::post("/webhooks/acme").body(Body::from(body.to_owned())).unwrap();
        *request.headers_mut() = headers.clone();
        let status = send(&self.ingress, request).await.status().as_u16();
        let published = std::mem::take(&mut *self.broker.published.lock().unwrap());
        let became = match (status, published.as_slice()) {
            (202, [delivery]) => match self.interpreter.interpret(delivery) {
                Err(_) => Became::Parked,
                Ok(meaning) if meaning.changes.is_empty() => Became::Nothing,
                Ok(meaning) => Became::Means(meaning.changes, meaning.when),
            },
            (200, []) => Became::Ping,
            (status, []) => Became::Refused(status),
            other => panic!("{other:?}"),
        };
        (became, published.into_iter().next().map(|delivery| delivery.body))
    }

    /// Every value that the provider's event header may have, as far as we know, and some that it never has.
    fn event_names(&self) -> BTreeSet<HeaderValue> {
        let named = |event: &str| {
            let draft =
                Draft { id: "1".into(), event: event.to_owned(), encoding: Encoding::Json, json: b"{}".to_vec() };
            let headers = self.signed(&draft).0;
            EVENT.iter().find_map(|name| headers.get(*name)).cloned()
        };
        let provider = self.source.provider;
        let rows = provider.events.iter().flat_map(|row| {
            let whole = row.event.replace('*', "created");
            [whole.split('.').next().unwrap_or_default().to_owned(), whole]
        });
        let drafts = drafts(provider.name).into_iter().map(|draft| draft.event);
        let strange = ["ping", "diagnostics.ping", "nonsense"].map(str::to_owned);
        rows.chain(drafts).chain(strange).filter_map(|event| named(&event)).collect()
    }
}

/// The draft with a text in it that holds a form with another event: anybody who may push chooses such texts.
fn with_a_form_inside(draft: &Draft, other: &Draft) -> Draft {
    let mut json: serde_json::Value = serde_json::from_slice(&draft.json).unwrap();
    let encoded: String = byte_serialize(&other.json).collect();
    let text = serde_json::Value::from(format!("x&payload={encoded}&y="));
    // Once where everybody looks past it, once in a place that some events have.
    for place in ["/head_commit/message", "/repository/description"] {
        let (parent, key) = place.rsplit_once('/').unwrap();
        if let Some(parent) = json.pointer_mut(parent).and_then(serde_json::Value::as_object_mut) {
            parent.insert(key.to_owned(), text.clone());
        }
    }
    json["title"] = text;
    Draft { json: json.to_string().into_bytes(), ..draft.clone() }
}

#[tokio::test]
async fn no_header_and_no_text_in_a_body_gives_a_signed_request_another_meaning() {
    for source in sources() {
        let trial = Trial::new(source);
        let provider = trial.source.provider;
        let drafts = drafts(provider.name);
        let names = trial.event_names();
        let mut meanings = BTreeSet::new();
        for draft in &drafts {
            // The victim is whatever means something else.
            let other = drafts.iter().find(|other| other.event != draft.event).unwrap();
            let mut sent = vec![draft.clone(), with_a_form_inside(draft, other)];
            if provider.encodings.include(Encoding::Form) {
                sent.push(Draft { encoding: Encoding::Form, ..draft.clone() });
            }
            for draft in sent {
                let (headers, body) = trial.signed(&draft);
                let rightly = trial.became(&headers, &body).await;
                meanings.insert(format!("{rightly:?}"));
                let check = async |what: &str, name: &str, values: &[&HeaderValue]| {
                    for content_type in [JSON, FORM] {
                        let mut changed = headers.clone();
                        changed.insert("content-type", HeaderValue::from_static(content_type));
                        changed.remove(name);
                        for value in values {
                            changed.append(name.parse::<HeaderName>().unwrap(), (*value).clone());
                        }
                        let became = trial.became(&changed, &body).await;
                        let harmless = matches!(became, Became::Refused(_) | Became::Parked | Became::Nothing);
                        assert!(
                            harmless || became == rightly,
                            "{} {} is {rightly:?}; with {what} {name} {values:?} as {content_type} it became {became:?}",
                            provider.name,
                            draft.event
                        );
                    }
                };
                for (content_type, encoding) in [(JSON, Encoding::Json), (FORM, Encoding::Form)] {
                    let mut changed = headers.clone();
                    changed.insert("content-type", HeaderValue::from_static(content_type));
                    let sends = provider.encodings.include(encoding);
                    let expected = if sends { rightly.clone() } else { Became::Refused(415) };
                    let became = trial.became(&changed, &body).await;
                    assert_eq!(became, expected, "{} {} as {content_type}", provider.name, draft.event);
                }
                for name in EVENT.iter().filter(|name| headers.contains_key(**name)) {
                    for value in &names {
                        check("another event", name, &[value]).await;
                    }
                    let own = &headers[*name];
                    check("no event", name, &[]).await;
                    check("the event twice", name, &[own, own]).await;
                }
                for name in ID.iter().filter(|name| headers.contains_key(**name)) {
                    for id in ["72d3162e-cc78-11e3-81ab-4c9367dc0958", "0193d5a4-7b7c-7000-8000-000000000000", "x"] {
                        check("another id", name, &[&HeaderValue::from_static(id)]).await;
                    }
                    check("no id", name, &[]).await;
                }
            }
        }
        // Else nothing was tried.
        assert!(meanings.iter().any(|became| became.starts_with("Means")), "{}: {meanings:?}", provider.name);
    }
}

#[tokio::test]
async fn a_media_type_that_the_provider_never_sends_is_refused_and_the_same_body_is_taken_as_what_it_is() {
    for source in sources() {
        let trial = Trial::new(source);
        let provider = trial.source.provider;
        let draft = drafts(provider.name).remove(0);
        let (mut headers, body) = trial.signed(&draft);
        let rightly = trial.became(&headers, &body).await;
        assert!(!matches!(rightly, Became::Refused(_)), "{} {rightly:?}", provider.name);
        headers.insert("content-type", HeaderValue::from_static(FORM));
        let expected = if provider.encodings.include(Encoding::Form) { rightly } else { Became::Refused(415) };
        assert_eq!(trial.became(&headers, &body).await, expected, "{}", provider.name);
    }
}

/// The same form, otherwise written.
fn written_otherwise(json: &[u8]) -> Vec<Vec<u8>> {
    let usual: String = byte_serialize(json).collect();
    let every_byte: String = json.iter().map(|byte| format!("%{byte:02x}")).collect();
    let lower = usual.split('%').enumerate().map(|(n, part)| match part.split_at_checked(2) {
        Some((digits, rest)) if n > 0 => format!("%{}{rest}", digits.to_lowercase()),
        _ => part.to_owned(),
    });
    let bare = String::from_utf8(json.to_vec()).unwrap().replace('%', "%25").replace('+', "%2B").replace('&', "%26");
    [usual.replace('+', "%20"), lower.collect(), every_byte, bare]
        .map(|value| format!("payload={value}").into_bytes())
        .to_vec()
}

#[tokio::test]
async fn a_form_that_is_written_otherwise_is_the_same_delivery_or_refused() {
    for source in sources().into_iter().filter(|source| source.provider.encodings.include(Encoding::Form)) {
        let trial = Trial::new(source);
        let provider = trial.source.provider;
        for draft in drafts(provider.name) {
            let mut json: serde_json::Value = serde_json::from_slice(&draft.json).unwrap();
            json["title"] = "a text with spaces".into();
            let draft = Draft { encoding: Encoding::Form, json: json.to_string().into_bytes(), ..draft };
            let (headers, form) = trial.signed(&draft);
            let rightly = trial.delivered(&headers, &form).await;
            let signs_the_text = SIGN_THE_TEXT.contains(&provider.name);
            if let Some(body) = &rightly.1 {
                let signed = if signs_the_text { &draft.json } else { &form };
                assert_eq!(body, signed, "{}: what was signed", provider.name);
            }
            for other in written_otherwise(&draft.json) {
                assert_ne!(other, form);
                let expected = if signs_the_text { rightly.clone() } else { (Became::Refused(401), None) };
                assert_eq!(trial.delivered(&headers, &other).await, expected, "{} {}", provider.name, draft.event);
            }
        }
    }
}
