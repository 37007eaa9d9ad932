//! A log that nobody reads, or that has no room, through outages of everything around: it never decides whether the service
//! works.

use std::fs::File;
use std::io::{PipeReader, Write as _, pipe};
use std::net::TcpListener;
use std::process::Stdio;

use rollcall::ledger::outcome::Outcome;
use rstest::rstest;
use tokio::net::TcpStream;

use crate::harness::github::{Account, Posted};
use crate::harness::process::Addresses;
use crate::harness::site::{Carrier, SOURCE, Site, becomes};
use crate::harness::until;

/// What standard output and standard error are.
#[derive(Clone, Copy, Debug)]
enum Log {
    /// A pipe whose reader has gone, as of `serve 2>&1 | head -1`.
    BrokenPipe,
    /// A disk without room.
    FullDisk,
    /// A pipe that is full, and nobody reads it.
    UnreadPipe,
}

impl Log {
    /// The streams, and what keeps them as they are.
    fn streams(self) -> ([Stdio; 2], Option<PipeReader>) {
        let (reader, mut writer) = pipe().unwrap();
        match self {
            Self::BrokenPipe => {
                drop(reader);
                ([writer.try_clone().unwrap().into(), writer.into()], None)
            }
            Self::FullDisk => {
                let full = || File::options().write(true).open("/dev/full").unwrap().into();
                ([full(), full()], None)
            }
            Self::UnreadPipe => {
                // As much as a pipe holds.
                writer.write_all(&[b'\n'; 64 << 10]).unwrap();
                ([writer.try_clone().unwrap().into(), writer.into()], Some(reader))
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Away {
    RabbitMq,
    PostgreSql,
    Drata,
}

/// Addresses that the process can't tell.
fn addresses(site: &mut Site) -> Addresses {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [webhook, admin] = listeners.map(|listener| listener.local_addr().unwrap());
    site.set("ingress", "listen", webhook.to_string());
    site.set("admin", "listen", admin.to_string());
    Addresses {
        webhook: format!("http://{webhook}/webhooks/{SOURCE}").parse().unwrap(),
        admin: format!("http://{admin}/").parse().unwrap(),
    }
}

async fn is_ready(site: &Site, at: &Addresses) -> bool {
    let admin = at.admin.socket_addrs(|| None).unwrap()[0];
    TcpStream::connect(admin).await.is_ok() && site.ask(at, "/ready").await.0 == 200
}

#[rstest]
#[tokio::test]
async fn a_log_that_takes_nothing_stops_nothing(
    #[values(Log::BrokenPipe, Log::FullDisk, Log::UnreadPipe)] log: Log,
    #[values(Away::RabbitMq, Away::PostgreSql, Away::Drata)] away: Away,
) {
    let mut site = Site::new(Carrier::Embedded, 30).await;
    let (part, proxy) = match away {
        Away::RabbitMq => ("broker", site.carried_through_a_proxy().await),
        Away::PostgreSql => ("ledger", site.in_postgresql_behind_a_proxy().await),
        Away::Drata => ("drata", site.drata_behind_a_proxy().await),
    };
    let at = addresses(&mut site);
    let (streams, _unread) = log.streams();
    let mut process = site.serve_writing_to(streams);
    until("it is ready", async || process.has_ended() || is_ready(&site, &at).await).await;
    assert!(!process.has_ended(), "nobody reads its log, and it ended");

    let post = async |accounts: std::ops::RangeInclusive<i64>| -> Vec<Posted> {
        let joins: Vec<_> = accounts.map(|n| site.github.join(Account(n))).collect();
        for join in &joins {
            site.github.accepted(&at.webhook, join).await;
        }
        joins
    };
    let mut joins = post(1..=10).await;
    let ledger = site.ledger().await;
    for join in &joins {
        becomes(&ledger, &join.id, Outcome::Applied).await;
    }
    proxy.cut();
    joins.extend(post(11..=20).await);
    until("health says so", async || site.ask(&at, "/health").await.1["parts"][part]["state"] == "down").await;
    proxy.mend();
    joins.extend(post(21..=30).await);
    for join in &joins {
        becomes(&ledger, &join.id, Outcome::Applied).await;
    }
    assert!((1..=30).all(|n| site.is_linked(Account(n))));
    until("it is ready and well", async || is_ready(&site, &at).await && site.ask(&at, "/health").await.0 == 200).await;
    let metrics = site.ask(&at, "/metrics").await.1.to_string();
    assert!(!metrics.contains("rollcall_panics_total"), "{metrics}");
    let reason = match log {
        Log::BrokenPipe => Some("broken-pipe"),
        Log::FullDisk => Some("disk-full"),
        // It waits in memory: there is room for more than this.
        Log::UnreadPipe => None,
    };
    if let Some(reason) = reason {
        assert!(metrics.contains(&format!("rollcall_log_lines_dropped_total{{reason=\\\"{reason}\\\"}}")), "{metrics}");
    }
    assert_eq!(process.stop().await.code, Some(0));
}
