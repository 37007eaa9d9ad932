//! Any sender of Standard Webhooks: an in-house Git host, an identity provider. What its events mean is said in the
//! source's table, by rules of JSON pointers, so that it takes part without code.
//!
//! The signature covers `webhook-id`, `webhook-timestamp` and the raw body.
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>
//!
//! <!-- events of standard-webhooks -->
//! | event | change | meaning |
//! |---|---|---|
//! | `*` | gained or lost or seen or - | what the source's rules say: { event, change, account, login, email, scope, scope_kind, scope_name, at } |
//! <!-- /events -->

mod pointer;
mod rules;

use http::HeaderMap;
use serde_json::json;

use self::pointer::Pointer;
use self::rules::Rules;
use super::fields::{Loose, json_text};
use super::scheme::{NameOf, Scheme, SchemeSigner, SchemeVerifier, WEBHOOK_ID, cannot_invent, draft, label};
use super::{
    Apparent, Description, Draft, EventRow, Interpreter, Invention, Meaning, Misshapen, Refusal, SettingsError,
    Verifier,
};
use crate::access::{Account, AccountKey, AccountKind, Change, Scope, ScopeKind, When};
use crate::delivery::{Delivery, Encodings, Named, Timestamp, Unverified, Verified};

const NAME: &str = "standard-webhooks";

/// Standard Webhooks.
pub(super) static DESCRIPTION: Description = Description {
    name: NAME,
    title: "Standard Webhooks",
    verification: "webhook-signature: HMAC-SHA256 of webhook-id, webhook-timestamp and the raw body",
    encodings: Encodings::JsonOnly,
    default_host: None,
    client_type: |_| None,
    api: None,
    roster: None,
    events: &[EventRow {
        event: "*",
        change: "gained or lost or seen or -",
        meaning: "what the source's rules say: { event, change, account, login, email, scope, scope_kind, scope_name, at }",
    }],
    hooks: &["the events that the source's rules name"],
    invents: &["member.added", "member.removed"],
    verifier: |settings, secrets| {
        const NAME: NameOf = |_, _| Err(Refusal::Malformed("the event's pointer is the source's".to_owned()));
        let rules = Rules::read(settings)?;
        let inner = SchemeVerifier::new(Scheme::Standard, &secrets, NAME, &[WEBHOOK_ID])?;
        Ok(Box::new(StandardVerifier { inner, rules }))
    },
    interpreter: |settings| Ok(Box::new(Standard { host: settings.host.clone(), rules: Rules::read(settings)? })),
    recover: None,
    signer: |settings, secret| {
        Ok(Box::new(SchemeSigner::new(Scheme::Standard, secret, &settings.host, |_| Vec::new(), invent)?))
    },
};

#[derive(Debug)]
struct StandardVerifier {
    inner: SchemeVerifier,
    rules: Rules,
}

impl Verifier for StandardVerifier {
    fn precheck(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        self.inner.precheck(headers)
    }

    fn verify(&self, request: Unverified<'_>, now: Timestamp) -> Result<Verified, Refusal> {
        self.inner.verify(request, now)
    }

    fn apparent(&self, headers: &HeaderMap) -> Apparent {
        self.inner.apparent(headers)
    }

    fn name(&self, headers: &HeaderMap, verified: &Verified) -> Result<Named, Refusal> {
        let json = verified.json();
        let malformed = |what: &str| Refusal::Malformed(format!("the body {what}"));
        let text = std::str::from_utf8(&json).map_err(|_| malformed("isn't UTF-8"))?;
        let [event] = self
            .rules
            .event_alone()
            .find(text)
            .map_err(|fault| malformed(&format!("{} {}", fault.path, fault.message)))?;
        let event = event.text().ok_or_else(|| malformed(&format!("has no text at {}", self.rules.event)))?;
        Ok(Named { id: label(headers, WEBHOOK_ID)?.parse()?, event: event.parse()?, ping: false })
    }
}

#[derive(Debug)]
struct Standard {
    host: String,
    rules: Rules,
}

/// The text or whole number that an id is.
fn id(value: Loose<'_>, pointer: &Pointer) -> Result<String, Misshapen> {
    let number = || value.find::<u64>().map(|number| number.to_string());
    let id = value.label().or_else(number);
    id.ok_or_else(|| Misshapen::of(pointer.as_str(), "isn't a text or a whole number"))
}

impl Interpreter for Standard {
    fn interpret(&self, delivery: &Delivery) -> Result<Meaning, Misshapen> {
        let json = json_text(delivery, DESCRIPTION.encodings)?;
        let [event] = self.rules.event_alone().find(&json)?;
        let Some((rule, pointers)) = event.text().and_then(|event| self.rules.of(&event)) else {
            return Ok(Meaning::nothing("no rule of the source is about this event"));
        };
        let [account, login, email, scope, scope_name, at] = pointers.find(&json)?;
        let key = AccountKey { provider: NAME.to_owned(), host: self.host.clone(), id: id(account, &rule.account)? };
        let (login, email) = (login.label(), email.label());
        let account = Account { key, node_id: None, login, email, kind: AccountKind::Person };
        let scope = match &rule.scope {
            Some(pointer) => Scope::top(rule.scope_kind, id(scope, pointer)?, scope_name.label()),
            None => Scope::top(ScopeKind::Instance, self.host.clone(), Some(self.host.clone())),
        };
        let at = rule.at.as_ref().map(|pointer| time(at, pointer)).transpose()?;
        let changes = vec![Change::Access { account, scope, kind: rule.change }];
        Ok(Meaning { changes, note: None, when: When { at, turn: None } })
    }

    fn explained(&self) -> Vec<String> {
        self.rules.explained(&self.host)
    }
}

fn time(value: Loose<'_>, pointer: &Pointer) -> Result<Timestamp, Misshapen> {
    let seconds = || value.find::<i64>()?.checked_mul(1_000_000).map(Timestamp);
    let time = value.text().and_then(|text| text.parse().ok()).or_else(seconds);
    time.ok_or_else(|| Misshapen::of(pointer.as_str(), "isn't a time"))
}

fn invent(_host: &str, invention: &Invention) -> Result<Draft, SettingsError> {
    if !matches!(invention.event.as_str(), "member.added" | "member.removed") {
        return Err(cannot_invent(invention, DESCRIPTION.invents));
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
