//! How requests to Drata travel: what the base URL may be, and the headers that never change.

use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::client::Settings;
use crate::outbound;

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
    outbound::builder(&settings.base_url, settings.timeout)?
        .default_headers(headers(api_key)?)
        .build()
        .map_err(BuildError::Http)
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::outbound::{is_loopback, no_tls};

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
