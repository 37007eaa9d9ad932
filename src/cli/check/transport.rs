//! What goes over a network unencrypted.

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::{Findings, State};
use crate::cli::Place;
use crate::config::{ConfigError, Settings};
use crate::outbound::is_loopback;

pub(super) fn check(settings: &Settings, place: &Place, findings: &mut Findings) -> Result<(), ConfigError> {
    if place.broker_url(settings)?.is_some_and(|url| parsed(&url).is_some_and(|url| is_clear_amqp(&url))) {
        let what = "amqp:// isn't encrypted, and RabbitMQ is on another machine: its password and what providers send can \
                    be read and changed on the way; use amqps://";
        findings.add("broker", State::Warning, what);
    }
    let default = place.env.get("PGSSLMODE").map(String::as_str);
    if place.ledger_url(settings)?.is_some_and(|url| parsed(&url).is_some_and(|url| is_clear_postgres(&url, default))) {
        let what = "the connection to PostgreSQL on another machine needn't be encrypted: its password and the ledger can be \
                    read and changed on the way; add ?sslmode=verify-full to ledger.url";
        findings.add("ledger", State::Warning, what);
    }
    let clear = |url: &Url| url.scheme() == "http" && !is_loopback(url);
    if clear(&settings.drata.base_url) {
        findings.add("drata", State::Warning, "drata.base_url isn't encrypted, as drata.insecure allows: use https://");
    }
    for source in &settings.sources {
        if source.api_url.as_ref().is_some_and(clear) {
            let part = format!("source {}", source.settings.name);
            findings.add(&part, State::Warning, "api_url isn't encrypted, as insecure allows: use https://");
        }
    }
    Ok(())
}

fn parsed(url: &SecretString) -> Option<Url> {
    Url::parse(url.expose_secret()).ok()
}

fn is_clear_amqp(url: &Url) -> bool {
    url.scheme() == "amqp" && !is_loopback(url)
}

/// Whether a connection to that address may be unencrypted: without `sslmode` it is where the server has no TLS.
fn is_clear_postgres(url: &Url, default: Option<&str>) -> bool {
    let last = |names: &[&str]| {
        url.query_pairs().filter(|(name, _)| names.contains(&name.as_ref())).last().map(|(_, value)| value.into_owned())
    };
    // A path stands for a socket on this machine.
    let in_query = last(&["host", "hostaddr"]);
    let host = in_query.as_deref().or(url.host_str()).unwrap_or_default();
    let is_socket = host.is_empty() || host.starts_with('/') || host.to_ascii_lowercase().starts_with("%2f");
    let mode = last(&["sslmode", "ssl-mode"]).or_else(|| default.map(str::to_owned)).unwrap_or_default();
    let is_encrypted = matches!(mode.to_ascii_lowercase().as_str(), "require" | "verify-ca" | "verify-full");
    !is_socket && !is_encrypted && (in_query.is_some() || !is_loopback(url))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("amqp://u:p@mq.example/v", true)]
    #[case("amqp://u:p@10.0.0.7:5672/v", true)]
    #[case("amqps://u:p@mq.example/v", false)]
    #[case("amqp://u:p@127.0.0.1:5672/v", false)]
    #[case("amqp://u:p@[::1]/v", false)]
    #[case("amqp://localhost/v", false)]
    fn amqp_is_clear_off_this_machine(#[case] url: Url, #[case] clear: bool) {
        assert_eq!(is_clear_amqp(&url), clear, "{url}");
    }

    #[rstest]
    #[case("postgres://u@db.example/x", None, true)]
    #[case("postgres://u@db.example/x?sslmode=prefer", None, true)]
    #[case("postgres://u@db.example/x?sslmode=verify-full&sslmode=disable", None, true)]
    #[case("postgres:///x?host=db.example", None, true)]
    #[case("postgres://u@db.example/x?sslmode=verify-full", None, false)]
    #[case("postgres://u@db.example/x?sslmode=require", Some("disable"), false)]
    #[case("postgres://u@db.example/x", Some("verify-ca"), false)]
    #[case("postgres://u@127.0.0.1:5432/x", None, false)]
    #[case("postgres://u@%2Fvar%2Frun%2Fpostgresql/x", None, false)]
    #[case("postgres:///x?host=/var/run/postgresql", None, false)]
    fn postgresql_is_clear_off_this_machine_unless_it_must_be_encrypted(
        #[case] url: Url,
        #[case] default: Option<&str>,
        #[case] clear: bool,
    ) {
        assert_eq!(is_clear_postgres(&url, default), clear, "{url}");
    }
}
