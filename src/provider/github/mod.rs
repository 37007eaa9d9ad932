//! GitHub: github.com, Enterprise Cloud (`*.ghe.com`) and Enterprise Server. They speak the same webhooks.
//!
//! A delivery is authenticated by `X-Hub-Signature-256`, HMAC-SHA256 over the raw body; nothing else of the request is
//! signed, neither event name nor delivery id nor time. GitHub never retries by itself, so what isn't accepted is lost
//! until somebody redelivers it. See GitHub's pages "Validating webhook deliveries" and "Webhook events and payloads".
//!
//! What each event means is the truth table in [`events`]; [`interpret`] is the code to it.

mod events;
mod interpret;
mod invent;
mod recover;
mod roster;
mod sign;
mod verify;

use super::{Description, Secret, SettingsError, SourceSettings};
use crate::delivery::Encodings;
use crate::provider::api::{ApiDescription, TokenPlace};
use crate::provider::signature::{HmacKey, HmacKeys};

/// The name in the registry, and the provider of every account that is read here.
const NAME: &str = "github";

/// GitHub.
pub(super) static DESCRIPTION: Description = Description {
    name: NAME,
    title: "GitHub",
    verification: "X-Hub-Signature-256: HMAC-SHA256 of the raw body",
    encodings: Encodings::JsonOrForm,
    default_host: Some("github.com"),
    client_type,
    api: Some(ApiDescription {
        base: api_base,
        token: TokenPlace::Bearer,
        headers: &[("accept", "application/vnd.github+json"), ("x-github-api-version", "2022-11-28")],
    }),
    roster: Some(|settings| Box::new(roster::GitHubRoster { host: settings.host.clone() })),
    events: events::EVENTS,
    hooks: &[],
    invents: invent::INVENTABLE,
    verifier: |settings, secrets: Vec<Secret>| {
        check(settings)?;
        Ok(Box::new(verify::GitHubVerifier::new(HmacKeys::new(&secrets)?)))
    },
    interpreter: |settings| {
        check(settings)?;
        Ok(Box::new(interpret::GitHubInterpreter::new(settings)))
    },
    signer: |settings, secret| {
        check(settings)?;
        Ok(Box::new(sign::GitHubSigner::new(&settings.host, HmacKey::new(&secret)?)))
    },
    recover: Some(|settings| Ok(Box::new(recover::GitHubRecover::new(settings)?))),
};

const HEADER_EVENT: &str = "X-GitHub-Event";
const HEADER_DELIVERY: &str = "X-GitHub-Delivery";
const HEADER_SIGNATURE: &str = "X-Hub-Signature-256";
/// What stands before the signature's hexadecimal digits.
const SIGNATURE_PREFIX: &str = "sha256=";

/// Whether GitHub runs that host itself: github.com, or Enterprise Cloud with data residency.
fn is_cloud(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    host == "github.com" || host.ends_with(".ghe.com")
}

#[expect(clippy::unnecessary_wraps, reason = "a provider may have hosts that the platform has no client type for")]
fn client_type(host: &str) -> Option<&'static str> {
    Some(if is_cloud(host) { "GITHUB" } else { "GITHUB_ENTERPRISE" })
}

/// Where the API is: [github.com](https://docs.github.com/en/rest/using-the-rest-api/getting-started-with-the-rest-api),
/// [data residency](https://docs.github.com/en/enterprise-cloud@latest/admin/data-residency/network-details-for-ghecom) and
/// [Enterprise Server](https://docs.github.com/en/enterprise-server@latest/rest/using-the-rest-api/getting-started-with-the-rest-api).
fn api_base(host: &str) -> String {
    if is_cloud(host) { format!("https://api.{host}") } else { format!("https://{host}/api/v3") }
}

/// GitHub has one way to verify, and of its own only the name of the hook.
fn check(settings: &SourceSettings) -> Result<(), SettingsError> {
    let error = |key: &str, message: &str| Err(SettingsError { key: key.to_owned(), message: message.to_owned() });
    if settings.verify.as_deref().is_some_and(|verify| verify != "signature") {
        return error("verify", "GitHub signs its deliveries; leave the key out or set it to \"signature\"");
    }
    if settings.header.is_some() {
        return error("header", "GitHub's signature is always in X-Hub-Signature-256; leave the key out");
    }
    settings.only_own_keys(&["hook"])?;
    recover::GitHubRecover::new(settings).map(drop)
}

#[cfg(test)]
mod tests;
