//! What the tests of all providers start from: a source of invented people, and its deliveries.

use serde_json::Value;

use super::{Description, Meaning, Misshapen, SourceSettings};
use crate::access::{AccessKind, Account, Change, Scope};
use crate::delivery::{Delivery, SecretName, Timestamp};

/// When every delivery of the tests is received.
pub(super) const NOW: Timestamp = Timestamp(1_790_000_000_000_000);

/// A source that says nothing but its name and host.
pub(super) fn settings() -> SourceSettings {
    SourceSettings {
        name: "larkspur".parse().unwrap(),
        host: "git.larkspur.example".to_owned(),
        roots: Vec::new(),
        sightings: true,
        verify: None,
        header: None,
        own: toml::Table::new(),
    }
}

pub(super) fn delivery(provider: &str, event: &str, body: Vec<u8>) -> Delivery {
    Delivery {
        source: "larkspur".parse().unwrap(),
        provider: provider.to_owned(),
        id: "d-1".parse().unwrap(),
        event: event.parse().unwrap(),
        received_at: NOW,
        secret: SecretName("env:S".into()),
        stamp: None,
        replay: None,
        body: body.into(),
    }
}

/// What a source of `provider` with these settings makes of a body.
pub(super) fn interpreted(
    provider: &Description,
    settings: &SourceSettings,
    event: &str,
    body: &Value,
) -> Result<Meaning, Misshapen> {
    let delivery = delivery(provider.name, event, body.to_string().into_bytes());
    (provider.interpreter)(settings).unwrap().interpret(&delivery)
}

/// The one change that a meaning has, which has to be about access.
pub(super) fn access(meaning: Meaning) -> (Account, Scope, AccessKind) {
    match <[Change; 1]>::try_from(meaning.changes) {
        Ok([Change::Access { account, scope, kind }]) => (account, scope, kind),
        other => panic!("{other:?}"),
    }
}

/// What a meaning comes to, in the words of the truth table: `gained group`, `-`.
pub(super) fn told(meaning: &Meaning) -> String {
    let Some(change) = meaning.changes.first() else { return "-".to_owned() };
    match change.scope() {
        Some(scope) => format!("{} {}", change.as_str(), scope.id.kind.as_str()),
        None => format!("{} account", change.as_str()),
    }
}
