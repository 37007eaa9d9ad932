//! How HTTP requests of ours go out: TLS, proxies, no redirects, no retries behind anybody's back.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use http::header::{DATE, HeaderMap, RETRY_AFTER};
use url::{Host, Url};

use crate::delivery::Timestamp;

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
            // Only of the web's schemes addresses are told from names.
            let is_address = name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
            let name = name.trim_end_matches('.');
            is_address || name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost")
        }
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).to_canonical().is_loopback(),
        None => false,
    }
}

/// `Retry-After`, in seconds or as a date, just as it says; whoever waits must bound it. A date is measured against the
/// answer's own clock where it tells.
pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() => Some(Duration::MAX),
        Err(_) => Some(http_date(text)?.since(sent_at(headers).unwrap_or(now))),
    }
}

/// When an answer was sent, by its own clock.
pub(crate) fn sent_at(headers: &HeaderMap) -> Option<Timestamp> {
    http_date(headers.get(DATE)?.to_str().ok()?)
}

fn http_date(text: &str) -> Option<Timestamp> {
    DateTime::parse_from_rfc2822(text).ok().map(|date| Timestamp(date.timestamp_micros()))
}

/// Why a request has no answer, or only half of one.
pub(crate) fn unanswered(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        "it didn't answer in time".to_owned()
    } else if error.is_connect() {
        format!("it can't be reached: {}", root_cause(error))
    } else {
        format!("the connection broke: {}", root_cause(error))
    }
}

/// The innermost cause: the outer ones repeat the URL and say less.
pub(crate) fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use reqwest::dns::{Addrs, Name, Resolve, Resolving};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::shutdown::Tasks;

    /// Knows no name the first so many times that it is asked.
    struct Forgetful {
        failures: AtomicUsize,
        address: SocketAddr,
    }

    impl Resolve for Forgetful {
        fn resolve(&self, _: Name) -> Resolving {
            let fails = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            let address = self.address;
            Box::pin(async move {
                match fails {
                    Ok(_) => Err("no such name".into()),
                    Err(_) => Ok(Box::new(std::iter::once(address)) as Addrs),
                }
            })
        }
    }

    #[tokio::test]
    async fn a_name_that_is_not_known_at_first_is_looked_up_again_with_each_request() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new();
        tasks.short_lived(
            "test",
            tasks.token().clone().run_until_cancelled_owned(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let asked = stream.read(&mut [0; 4096]).await.unwrap();
                    assert_ne!(asked, 0, "a client that connects asks something");
                    stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await.unwrap();
                }
            }),
        );
        let url: Url = "http://drata.example/".parse().unwrap();
        let resolver = Arc::new(Forgetful { failures: AtomicUsize::new(2), address });
        let client = builder(&url, Duration::from_secs(5)).unwrap().no_proxy().dns_resolver(resolver).build().unwrap();
        for _ in 0..2 {
            assert!(client.get(url.clone()).send().await.unwrap_err().is_connect());
        }
        assert_eq!(client.get(url).send().await.unwrap().status(), 204);
        tasks.token().cancel();
    }
}
