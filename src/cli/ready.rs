//! `rollcall ready`: asks a process that serves whether it can do its job. Containers, which have no curl, use it as
//! their probe.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use url::Url;

use super::exit::OutOfReach;
use super::{Exit, Place, say};
use crate::outbound;

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 ready, 1 not ready (the answer says which part is missing), 3 nobody answers.")]
pub(super) struct Args {
    /// What to ask [default: /ready on admin.listen of the configuration]
    #[arg(long)]
    url: Option<Url>,
    /// How long to wait for the answer
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

pub(super) async fn run(args: Args, place: &Place) -> anyhow::Result<Exit> {
    let url = match args.url {
        Some(url) => url,
        None => own(place.settings()?.admin.listen)?,
    };
    let client = outbound::builder(&url, args.timeout)?.build().context("setting up the HTTP client")?;
    let unanswered =
        |error: reqwest::Error| OutOfReach(format!("{url}: {:#}", anyhow::Error::from(error.without_url())));
    let answer = client.get(url.clone()).send().await.map_err(unanswered)?;
    let status = answer.status();
    let text = answer.text().await.map_err(unanswered)?;
    if status.is_success() {
        say(format_args!("{}", text.trim()))?;
        return Ok(Exit::Done);
    }
    say(format_args!("{status}: {}", text.trim()))?;
    Ok(Exit::Failed)
}

/// Where the process that listens there is asked from the same machine: a wildcard is no address to connect to.
fn own(listen: SocketAddr) -> Result<Url, url::ParseError> {
    let host = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}/ready", SocketAddr::new(host, listen.port())).parse()
}

#[cfg(test)]
mod tests {
    use super::own;

    #[test]
    fn a_wildcard_is_asked_at_loopback() {
        let url = |listen: &str| own(listen.parse().unwrap()).unwrap().to_string();
        assert_eq!(url("0.0.0.0:9090"), "http://127.0.0.1:9090/ready");
        assert_eq!(url("[::]:9090"), "http://[::1]:9090/ready");
        assert_eq!(url("10.1.2.3:9090"), "http://10.1.2.3:9090/ready");
    }
}
