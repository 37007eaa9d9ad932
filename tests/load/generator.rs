//! The load: keep-alive connections, each with one signed request after the other. It must cost little, since it shares
//! the processors with what it measures: every connection has one request in memory and only changes its delivery id.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rollcall::delivery::{Encoding, SecretName, Timestamp};
use rollcall::provider::{self, Description, Draft, Secret, SourceSettings};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};

use crate::WARM_UP;
use crate::options::Options;
use crate::samples::{Samples, micros};

/// The source that is loaded.
pub(crate) const SOURCE: &str = "load";

/// The source's provider and settings.
pub(crate) fn source() -> (&'static Description, SourceSettings) {
    let settings = SourceSettings {
        name: SOURCE.parse().unwrap(),
        host: "github.com".to_owned(),
        roots: Vec::new(),
        sightings: false,
        verify: None,
        header: None,
        own: Default::default(),
    };
    (provider::find("github").unwrap(), settings)
}

/// The source's secret.
pub(crate) fn secret() -> Secret {
    Secret { name: SecretName("env:LOAD".into()), value: SecretString::from("a secret for measuring") }
}

/// A JSON text of about that size, made of many small members, as providers' are.
pub(crate) fn body(size: usize, number: usize) -> Vec<u8> {
    let mut json = format!(
        r#"{{"action":"member_added","membership":{{"role":"member","user":{{"login":"user-{number}","id":{number}}}}},"organization":{{"login":"acme","id":42}},"links":["#
    );
    // With hashes, as real payloads have: it shrinks about 2.5-fold, which is less than those do.
    let mut hash = fastrand::Rng::with_seed(number as u64);
    let mut link = |n: usize| {
        let sha = hash.u128(..);
        format!(r#"{{"id":{n},"sha":"{sha:032x}","url":"https://api.example.test/organizations/42/things/{n}"}}"#)
    };
    json.push_str(&link(0));
    for n in 1.. {
        let link = link(n);
        if json.len() + link.len() + 3 > size {
            break;
        }
        json.push(',');
        json.push_str(&link);
    }
    json.push_str("]}");
    json.into_bytes()
}

/// What came of a load.
pub(crate) struct Loaded {
    /// The latencies of the accepted.
    pub(crate) samples: Samples,
    /// The ids of all that were answered with 202, warm-up included.
    pub(crate) accepted: HashSet<String>,
    /// How many were answered with anything else.
    pub(crate) refused: usize,
}

/// Loads the ingress for the measured time.
pub(crate) async fn run(address: SocketAddr, options: Options) -> Loaded {
    let ids = Arc::new(AtomicU64::new(0));
    let measured = Duration::from_secs(options.seconds);
    let from = Instant::now() + WARM_UP;
    let mut connections = JoinSet::new();
    for number in 0..options.connections {
        let request = Request::new(body(options.body, number));
        connections.spawn(connection(address, request, ids.clone(), from, from + measured));
    }
    let mut latencies = Vec::new();
    let mut accepted = HashSet::new();
    let mut refused = 0;
    for part in connections.join_all().await {
        latencies.push(part.latencies);
        accepted.extend(part.accepted.into_iter().map(id));
        refused += part.refused;
    }
    Loaded { samples: Samples::new(latencies, measured), accepted, refused }
}

#[derive(Default)]
struct Part {
    latencies: Vec<u32>,
    accepted: Vec<u64>,
    refused: usize,
}

async fn connection(
    address: SocketAddr,
    mut request: Request,
    ids: Arc<AtomicU64>,
    from: Instant,
    until: Instant,
) -> Part {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut part = Part::default();
    let mut answer = Vec::with_capacity(4096);
    while Instant::now() < until {
        let number = ids.fetch_add(1, Ordering::Relaxed);
        request.rename(&id(number));
        let began = Instant::now();
        stream.write_all(&request.bytes).await.unwrap();
        let status = status(&mut stream, &mut answer).await;
        let now = Instant::now();
        if status != 202 {
            part.refused += 1;
            continue;
        }
        part.accepted.push(number);
        if began >= from && now < until {
            part.latencies.push(micros(now - began));
        }
    }
    part
}

/// A delivery id, as long as GitHub's.
fn id(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

/// A request in memory.
struct Request {
    bytes: Vec<u8>,
    /// Where its delivery id begins.
    id_at: usize,
}

impl Request {
    fn new(json: Vec<u8>) -> Self {
        let (description, settings) = source();
        let signer = (description.signer)(&settings, secret()).unwrap();
        let draft = Draft { id: id(0), event: "organization".to_owned(), encoding: Encoding::Json, json };
        let signed = signer.sign(&draft, Timestamp::now()).unwrap();
        let mut bytes =
            format!("POST /webhooks/{SOURCE} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {}\r\n", signed.body.len())
                .into_bytes();
        let mut id_at = None;
        for (name, value) in &signed.headers {
            if matches!(name.as_str(), "host" | "content-length") {
                continue;
            }
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            if value.as_bytes() == draft.id.as_bytes() {
                id_at = Some(bytes.len());
            }
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&signed.body);
        Self { bytes, id_at: id_at.unwrap() }
    }

    fn rename(&mut self, id: &str) {
        self.bytes[self.id_at..][..id.len()].copy_from_slice(id.as_bytes());
    }
}

/// Reads one answer to its end and returns its status.
async fn status(stream: &mut TcpStream, answer: &mut Vec<u8>) -> u16 {
    answer.clear();
    loop {
        assert!(stream.read_buf(answer).await.unwrap() > 0, "the ingress closed a connection");
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&answer[..end]).unwrap();
        let length = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(0, |(_, value)| value.trim().parse::<usize>().unwrap());
        if answer.len() >= end + 4 + length {
            return head.split(' ').nth(1).unwrap().parse().unwrap();
        }
    }
}
