//! Any sender of Standard Webhooks: an in-house Git host, an identity provider. What its events mean is said in the
//! source's table, by rules of JSON pointers, so that it takes part without code.
//!
//! The signature covers `webhook-id`, `webhook-timestamp` and the raw body.
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::fields::read;
use super::scheme::{Scheme, SchemeSigner, SchemeVerifier, WEBHOOK_ID, blame, cannot_invent, draft, json, label};
use super::{
    Description, Draft, EventRow, Interpreter, Invention, Meaning, Misshapen, Refusal, SettingsError, SourceSettings,
    Verifier,
};
use crate::access::{AccessKind, Account, AccountKey, AccountKind, Change, Scope, ScopeKind};
use crate::delivery::{Delivery, Named, Timestamp, Unverified, Verified};

const NAME: &str = "standard-webhooks";

/// Standard Webhooks.
pub(super) static DESCRIPTION: Description = Description {
    name: NAME,
    title: "Standard Webhooks",
    verification: "webhook-signature: HMAC-SHA256 of webhook-id, webhook-timestamp and the raw body",
    default_host: None,
    client_type: |_| None,
    events: &[EventRow {
        event: "*",
        change: "gained or lost or seen",
        meaning: "what the source's rules say: { event, change, account, login, email, scope, scope_kind, scope_name, at }",
    }],
    hooks: &["the events that the source's rules name"],
    verifier: |settings, secrets| {
        let Rules { event, .. } = Rules::read(settings)?;
        let inner = SchemeVerifier::new(Scheme::Standard, &secrets, |_, _| {
            Err(Refusal::Malformed("the event's pointer is the source's".to_owned()))
        })?;
        Ok(Box::new(StandardVerifier { inner, event }))
    },
    interpreter: |settings| Ok(Box::new(Standard { host: settings.host.clone(), rules: Rules::read(settings)? })),
    signer: |settings, secret| {
        Ok(Box::new(SchemeSigner::new(Scheme::Standard, secret, &settings.host, |_| Vec::new(), invent)?))
    },
};

/// What a source's table says of its events.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    /// Where a body names its event.
    #[serde(default = "event_type")]
    event: Pointer,
    #[serde(default)]
    rules: Vec<Rule>,
}

fn event_type() -> Pointer {
    Pointer("/type".to_owned())
}

/// What one kind of event means.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// The event's name.
    event: String,
    /// What it does.
    change: AccessKind,
    /// Where the account's stable id is.
    account: Pointer,
    /// Where its login is.
    login: Option<Pointer>,
    /// Where its e-mail address is.
    email: Option<Pointer>,
    /// Where the scope's stable id is. Without it the scope is the whole instance.
    scope: Option<Pointer>,
    /// What kind of scope that is.
    #[serde(default = "org")]
    scope_kind: ScopeKind,
    /// Where its name is.
    scope_name: Option<Pointer>,
    /// Where the time is at which it happened: RFC 3339, or seconds since 1970.
    at: Option<Pointer>,
}

const fn org() -> ScopeKind {
    ScopeKind::Org
}

/// A JSON pointer (RFC 6901).
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Pointer(String);

impl TryFrom<String> for Pointer {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text.starts_with('/') {
            Ok(Self(text))
        } else {
            Err(format!("{text:?} is no JSON pointer; write it like \"/data/user/id\""))
        }
    }
}

impl Rules {
    fn read(settings: &SourceSettings) -> Result<Self, SettingsError> {
        if settings.verify.as_deref().is_some_and(|verify| verify != "signature") {
            return Err(blame("verify", "Standard Webhooks are signed; leave the key out or set it to \"signature\""));
        }
        if settings.header.is_some() {
            return Err(blame("header", "the headers of Standard Webhooks are always the same; leave the key out"));
        }
        settings.only_own_keys(&["event", "rules"])?;
        let rules: Self = settings.own.clone().try_into().map_err(|error: toml::de::Error| {
            let key =
                if error.message().contains("rules") || settings.own.contains_key("rules") { "rules" } else { "event" };
            blame(key, error.message().trim().to_owned())
        })?;
        Ok(rules)
    }
}

#[derive(Debug)]
struct StandardVerifier {
    inner: SchemeVerifier,
    event: Pointer,
}

impl Verifier for StandardVerifier {
    fn precheck(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        self.inner.precheck(headers)
    }

    fn verify(&self, request: Unverified<'_>, now: Timestamp) -> Result<Verified, Refusal> {
        self.inner.verify(request, now)
    }

    fn name(&self, headers: &HeaderMap, verified: &Verified) -> Result<Named, Refusal> {
        let body: Value = serde_json::from_slice(&json(verified)?)
            .map_err(|_| Refusal::Malformed("the body isn't JSON".to_owned()))?;
        let event = body.pointer(&self.event.0).and_then(Value::as_str);
        let event = event.ok_or_else(|| Refusal::Malformed(format!("the body has no text at {}", self.event.0)))?;
        Ok(Named { id: label(headers, WEBHOOK_ID)?.parse()?, event: event.parse()?, ping: false })
    }
}

#[derive(Debug)]
struct Standard {
    host: String,
    rules: Rules,
}

/// The text or whole number at a pointer.
fn text_at(body: &Value, pointer: &Pointer) -> Option<String> {
    let text = match body.pointer(&pointer.0)? {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_u64() => number.to_string(),
        _ => return None,
    };
    (!text.trim().is_empty() && text.len() <= 1024 && !text.chars().any(char::is_control)).then_some(text)
}

fn must(body: &Value, pointer: &Pointer) -> Result<String, Misshapen> {
    text_at(body, pointer)
        .ok_or_else(|| Misshapen { path: pointer.0.clone(), message: "isn't a text or a whole number".to_owned() })
}

impl Interpreter for Standard {
    fn interpret(&self, delivery: &Delivery) -> Result<Meaning, Misshapen> {
        let body: Value = read(delivery)?;
        let event = body.pointer(&self.rules.event.0).and_then(Value::as_str).unwrap_or_default();
        let Some(rule) = self.rules.rules.iter().find(|rule| rule.event == event) else {
            return Ok(Meaning::nothing("no rule of the source is about this event"));
        };
        let optional = |pointer: &Option<Pointer>| pointer.as_ref().and_then(|pointer| text_at(&body, pointer));
        let key = AccountKey { provider: NAME.to_owned(), host: self.host.clone(), id: must(&body, &rule.account)? };
        let account = Account {
            key,
            node_id: None,
            login: optional(&rule.login),
            email: optional(&rule.email),
            kind: AccountKind::Person,
        };
        let scope = match &rule.scope {
            Some(scope) => Scope::top(rule.scope_kind, must(&body, scope)?, optional(&rule.scope_name)),
            None => Scope::top(ScopeKind::Instance, self.host.clone(), Some(self.host.clone())),
        };
        let at = match &rule.at {
            Some(pointer) => Some(time_at(&body, pointer)?),
            None => None,
        };
        Ok(Meaning { changes: vec![Change::Access { account, scope, kind: rule.change }], note: None, at })
    }
}

fn time_at(body: &Value, pointer: &Pointer) -> Result<Timestamp, Misshapen> {
    let time = match body.pointer(&pointer.0) {
        Some(Value::String(text)) => text.parse().ok(),
        Some(Value::Number(seconds)) => {
            seconds.as_i64().and_then(|seconds| seconds.checked_mul(1_000_000)).map(Timestamp)
        }
        _ => None,
    };
    time.ok_or_else(|| Misshapen { path: pointer.0.clone(), message: "isn't a time".to_owned() })
}

fn invent(_host: &str, invention: &Invention) -> Result<Draft, SettingsError> {
    if !matches!(invention.event.as_str(), "member.added" | "member.removed") {
        return Err(cannot_invent(invention, &["member.added", "member.removed"]));
    }
    let body = json!({
        "type": invention.event, "timestamp": "2026-01-01T00:00:00Z",
        "data": {
            "user": { "id": invention.account_id, "login": invention.login, "email": format!("{}@example.com", invention.login) },
            "organization": { "id": invention.root_id, "name": invention.root },
        },
    });
    Ok(draft(invention, &invention.event, &body))
}

#[cfg(test)]
mod tests;
