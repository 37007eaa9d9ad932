//! What no section can see alone: settings that contradict each other.

use super::layers::Layers;
use super::source::Source;
use super::{Settings, keys};
use crate::target::ConnectionRef;

pub(super) fn cross_check(settings: &Settings, layers: &mut Layers) {
    let (webhooks, admin) = (settings.ingress.listen, settings.admin.listen);
    if webhooks == admin && admin.port() != 0 {
        layers.blame_value("admin.listen", "is the address of ingress.listen too; give it another port");
    }
    if settings.broker.publish_timeout >= settings.ingress.settings.request_timeout {
        layers.blame_value(
            "broker.publish_timeout",
            "must be less than ingress.request_timeout, else a request ends before its publish does",
        );
    }
    if settings.spool.after.saturating_mul(2) > settings.ingress.settings.request_timeout {
        layers.blame_value(
            "spool.after",
            "must be at most half of ingress.request_timeout, so that there is time left to write to the spool",
        );
    }
    if settings.spool.max_bytes < settings.broker.max_message {
        layers.blame_value("spool.max_bytes", "must be at least broker.max_message, else the largest never fits");
    }
    for (n, source) in settings.sources.iter().enumerate() {
        for earlier in settings.sources.iter().take(n) {
            compare(earlier, source, layers);
        }
    }
}

fn compare(earlier: &Source, later: &Source, layers: &mut Layers) {
    let (earlier_name, name) = (&earlier.settings.name, &later.settings.name);
    if earlier_name == name {
        layers.blame(keys::SOURCE, format!("there are two sources named {name}; give each a name of its own"));
        return;
    }
    let key = |key: &str| format!("source[{name}].{key}");
    if let Some(shared) = later.connections.all().find(|connection| earlier.connections.all().any(|e| e == *connection))
        && earlier.on_access_lost != later.on_access_lost
    {
        layers.blame(
            key("on_access_lost"),
            format!(
                "is {:?} here but {:?} in source {earlier_name}, and both belong to connection {shared}; an account \
                 can only have one status there, so make them agree",
                later.on_access_lost.as_str(),
                earlier.on_access_lost.as_str(),
            ),
        );
    }
    if let Some(shared) = later.connections.all().find(|connection| earlier.connections.all().any(|e| e == *connection))
        && earlier.drift != later.drift
    {
        layers.blame(
            key("drift"),
            format!(
                "is {:?} here but {:?} in source {earlier_name}, and both belong to connection {shared}; an account \
                 has one link there, so make them agree",
                later.drift.as_str(),
                earlier.drift.as_str(),
            ),
        );
    }
    if let Some(client_type) = mixed(earlier, later).or_else(|| mixed(later, earlier)) {
        layers.blame(
            key("drata_connection"),
            format!(
                "of this source and of {earlier_name}, one names its connection and the other takes the only one of \
                 client type {client_type}, which may be the same one; name it in both"
            ),
        );
    }
}

/// The client type by which `one` finds its connection, if `other` names one of that type by id.
fn mixed(one: &Source, other: &Source) -> Option<String> {
    let ConnectionRef::Only(client_type) = one.connections.all().next()? else { return None };
    let names_an_id = other.connections.all().any(|connection| matches!(connection, ConnectionRef::Id(_)));
    let same_type = (other.provider.client_type)(&other.settings.host) == Some(client_type.as_str());
    (names_an_id && same_type).then(|| client_type.clone())
}
