//! What a source's table says of its events: the name's place, and a rule for each event that means something.

use serde::Deserialize;

use super::pointer::{Pointer, Pointers};
use crate::access::{AccessKind, ScopeKind};
use crate::provider::scheme::blame;
use crate::provider::{SettingsError, SourceSettings};

/// What one kind of event means.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    /// The event's name.
    pub(super) event: String,
    /// What it does.
    pub(super) change: AccessKind,
    /// Where the account's stable id is.
    pub(super) account: Pointer,
    /// Where its login is.
    login: Option<Pointer>,
    /// Where its e-mail address is.
    email: Option<Pointer>,
    /// Where the scope's stable id is. Without it the scope is the whole instance.
    pub(super) scope: Option<Pointer>,
    /// What kind of scope that is.
    #[serde(default = "org")]
    pub(super) scope_kind: ScopeKind,
    /// Where its name is.
    scope_name: Option<Pointer>,
    /// Where the time is at which it happened: RFC 3339, or seconds since 1970.
    pub(super) at: Option<Pointer>,
}

const fn org() -> ScopeKind {
    ScopeKind::Org
}

impl Rule {
    /// All its pointers, in the order in which [`super::Standard`] takes what they find.
    fn pointers(&self) -> [Option<&Pointer>; 6] {
        [
            Some(&self.account),
            self.login.as_ref(),
            self.email.as_ref(),
            self.scope.as_ref(),
            self.scope_name.as_ref(),
            self.at.as_ref(),
        ]
    }

    fn explained(&self, host: &str) -> String {
        let Self { event, change, account, scope, scope_kind, .. } = self;
        let mut text = format!("{event}: the account at {account} ");
        text.push_str(match change {
            AccessKind::Gained => "gained ",
            AccessKind::Lost => "lost ",
            AccessKind::Seen => "was seen in ",
        });
        match scope {
            Some(scope) => text.push_str(&format!("the {} at {scope}", scope_kind.as_str())),
            None => text.push_str(&format!("the instance {host}")),
        }
        let labels =
            [("login", &self.login), ("e-mail", &self.email), ("name of it", &self.scope_name), ("time", &self.at)];
        for (label, pointer) in labels {
            if let Some(pointer) = pointer {
                text.push_str(&format!(", {label} at {pointer}"));
            }
        }
        text
    }
}

/// The table, ready to be used.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// Where a body names its event.
    pub(super) event: Pointer,
    event_alone: Pointers,
    rules: Vec<(Rule, Pointers)>,
}

impl Rules {
    /// Reads a source's table.
    ///
    /// # Errors
    /// [`SettingsError`] that names the key, and for a rule which one.
    pub(super) fn read(settings: &SourceSettings) -> Result<Self, SettingsError> {
        if settings.verify.as_deref().is_some_and(|verify| verify != "signature") {
            return Err(blame("verify", "Standard Webhooks are signed; leave the key out or set it to \"signature\""));
        }
        if settings.header.is_some() {
            return Err(blame("header", "the headers of Standard Webhooks are always the same; leave the key out"));
        }
        settings.only_own_keys(&["event", "rules"])?;
        let mut own = settings.own.clone();
        let listed = match own.remove("rules") {
            None => Vec::new(),
            Some(toml::Value::Array(listed)) => listed,
            Some(_) => return Err(blame("rules", "must be a list: write each as [[source.rules]]")),
        };
        let event = own.remove("event").unwrap_or_else(|| "/type".into());
        let event: Pointer =
            event.try_into().map_err(|error: toml::de::Error| blame("event", error.message().trim()))?;
        let mut rules: Vec<(Rule, Pointers)> = Vec::with_capacity(listed.len());
        for (number, written) in listed.into_iter().enumerate() {
            let wrong = |message: &str| blame("rules", format!("number {}: {message}", number + 1));
            let rule: Rule = written.try_into().map_err(|error: toml::de::Error| wrong(error.message().trim()))?;
            if rule.event.trim().is_empty() {
                return Err(wrong("event is blank"));
            }
            if rules.iter().any(|(earlier, _)| earlier.event == rule.event) {
                return Err(wrong(&format!("there is a rule for {:?} already", rule.event)));
            }
            if rule.scope.is_none() && rule.scope_name.is_some() {
                return Err(wrong("scope_name without scope; without one it is about the whole instance"));
            }
            if rule.scope.is_some() && rule.scope_kind == ScopeKind::Instance {
                return Err(wrong("the instance is the source's host; leave scope and scope_kind out"));
            }
            let pointers = Pointers::new(rule.pointers());
            rules.push((rule, pointers));
        }
        Ok(Self { event_alone: Pointers::new([Some(&event)]), event, rules })
    }

    /// Where the event's name is, as [`Pointers`].
    pub(super) const fn event_alone(&self) -> &Pointers {
        &self.event_alone
    }

    /// The rule for an event.
    pub(super) fn of(&self, event: &str) -> Option<&(Rule, Pointers)> {
        self.rules.iter().find(|(rule, _)| rule.event == event)
    }

    /// The table in sentences.
    pub(super) fn explained(&self, host: &str) -> Vec<String> {
        let named = format!("the event is named at {}; all that no rule is about means nothing", self.event);
        let rules = self.rules.iter().map(|(rule, _)| rule.explained(host));
        std::iter::once(named).chain(rules).collect()
    }
}
