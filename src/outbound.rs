//! How HTTP requests of ours go out: TLS, proxies, no redirects, no retries behind anybody's back.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use url::{Host, Url};

/// How long to wait for a connection, at most.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client for requests to that address.
///
/// # Errors
/// If TLS can't be set up.
pub fn builder(url: &Url, timeout: Duration) -> Result<reqwest::ClientBuilder, rustls::Error> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("rollcall/", env!("CARGO_PKG_VERSION")))
        .timeout(timeout)
        .connect_timeout(timeout.min(CONNECT_TIMEOUT))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never());
    if is_loopback(url) {
        builder = builder.no_proxy();
    }
    if url.scheme() == "http" {
        builder = builder.tls_backend_preconfigured(no_tls()?);
    }
    Ok(builder)
}

/// A TLS set-up that trusts nobody. A client of an `http://` address never uses TLS, but would read the system's
/// certificates all the same, and fail where there are none.
pub(crate) fn no_tls() -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth())
}

/// Whether the address is on this machine, where no proxy could reach it.
pub(crate) fn is_loopback(url: &Url) -> bool {
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
