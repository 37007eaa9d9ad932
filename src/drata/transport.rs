//! How requests travel: TLS, proxies, headers that never change.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

use super::client::Settings;

/// How long to wait for a connection, at most.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client can't be made of these settings.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The address can't be one of an API.
    #[error("the base URL {0}")]
    BaseUrl(&'static str),
    /// The key can't travel in a header.
    #[error("the API key is empty or has characters that can't travel in a header")]
    ApiKey,
    /// TLS can't be set up.
    #[error("can't set up TLS")]
    Tls(#[from] rustls::Error),
    /// The HTTP client can't be set up, most likely because the system has no CA certificates to trust; the source says.
    #[error("can't set up the HTTP client (https:// needs the system's CA certificates)")]
    Http(#[source] reqwest::Error),
}

pub(super) fn build(settings: &Settings, api_key: &SecretString) -> Result<reqwest::Client, BuildError> {
    check(&settings.base_url)?;
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("rollcall/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers(api_key)?)
        .timeout(settings.timeout)
        .connect_timeout(settings.timeout.min(CONNECT_TIMEOUT))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never());
    if is_loopback(&settings.base_url) {
        builder = builder.no_proxy();
    }
    if settings.base_url.scheme() == "http" {
        builder = builder.tls_backend_preconfigured(no_tls()?);
    }
    builder.build().map_err(BuildError::Http)
}

fn check(base_url: &Url) -> Result<(), BuildError> {
    let wrong = |why| Err(BuildError::BaseUrl(why));
    if !matches!(base_url.scheme(), "http" | "https") {
        return wrong("must start with https:// (or http://, for a stand-in)");
    }
    if !base_url.username().is_empty() || base_url.password().is_some() {
        return wrong("must have no user name or password in it: the API key has its own setting");
    }
    if base_url.query().is_some() || base_url.fragment().is_some() {
        return wrong("must have no query or fragment");
    }
    Ok(())
}

fn headers(api_key: &SecretString) -> Result<HeaderMap, BuildError> {
    let key = api_key.expose_secret().trim();
    if key.is_empty() {
        return Err(BuildError::ApiKey);
    }
    let mut bearer = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| BuildError::ApiKey)?;
    bearer.set_sensitive(true);
    Ok(HeaderMap::from_iter([(AUTHORIZATION, bearer), (ACCEPT, HeaderValue::from_static("application/json"))]))
}

/// A TLS set-up that trusts nobody. A client of an `http://` address never uses TLS, but would read the system's
/// certificates all the same, and fail where there are none.
fn no_tls() -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth())
}

/// Whether the address is on this machine, where no proxy could reach it.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost")
        }
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).to_canonical().is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn build_for(url: &str) -> Result<reqwest::Client, BuildError> {
        build(&Settings::new(url.parse().unwrap()), &"key".into())
    }

    #[rstest]
    #[case("http://127.0.0.1:9100/public", true)]
    #[case("http://127.8.9.1", true)]
    #[case("http://localhost:9100", true)]
    #[case("http://drata.localhost./", true)]
    #[case("http://[::1]:9100/", true)]
    #[case("http://[::ffff:127.0.0.1]/", true)]
    #[case("http://sandbox:9100", false)]
    #[case("https://public-api.drata.com/public", false)]
    #[case("http://127.0.0.1.example.com", false)]
    fn only_addresses_of_this_machine_bypass_proxies(#[case] url: Url, #[case] loopback: bool) {
        assert_eq!(is_loopback(&url), loopback);
    }

    #[rstest]
    #[case("ftp://public-api.drata.com", "must start with https://")]
    #[case("https://user:secret@public-api.drata.com", "no user name or password")]
    #[case("https://public-api.drata.com/public?x=1", "no query")]
    fn an_address_that_cannot_be_one_of_an_api_is_refused(#[case] url: &str, #[case] why: &str) {
        let error = build_for(url).unwrap_err().to_string();
        assert!(error.contains(why) && !error.contains("secret"), "{error}");
    }

    #[test]
    fn a_key_that_cannot_travel_is_refused() {
        let settings = Settings::new("http://127.0.0.1:1".parse().unwrap());
        for key in ["", "  ", "a\nb"] {
            assert!(matches!(build(&settings, &key.into()), Err(BuildError::ApiKey)));
        }
    }

    #[test]
    fn http_needs_no_certificates() {
        assert!(no_tls().is_ok());
        assert!(build_for("http://sandbox:9100/public").is_ok());
    }
}
