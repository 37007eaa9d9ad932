//! Deliveries as lines of text (JSON Lines) with the provider's exact bytes, so that one deployment's traffic can be run
//! again in another: a staging copy, a bug report.
//!
//! Each line bears a *seal*, made with a secret of its source over everything in it, and is verified by it on import. It
//! isn't the provider's signature, on purpose. That isn't kept: it covers the body alone, so that a line with it could be
//! posted to an ingress under a new delivery id, and an old join would look like a new one. And it would prove nothing of
//! id, event and receipt, nor anything at all where the provider sends a token. The seal does, for every provider, and no
//! ingress takes it: its key is derived from the secret.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::delivery::{Delivery, InvalidName, SecretName, SourceName, Timestamp};
use crate::provider::Secret;
use crate::provider::signature::{HmacKey, HmacKeys, Tag};

/// What a line is, and its version.
const FORMAT: &str = "rollcall-delivery/1";
/// What the key of a seal is derived from a secret by.
const SEAL: &[u8] = b"rollcall-delivery/1 seal";
/// The longest line to read, in bytes: the largest body in base64, and room for the rest.
const LONGEST: usize = 36 * 1024 * 1024;
/// How many bytes of bodies to hold at a time.
const ENOUGH: usize = 32 * 1024 * 1024;

/// A file isn't an export, or not one for this deployment.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The file can't be read.
    #[error("{}: {why}", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        why: std::io::Error,
    },
    /// A line can't be used.
    #[error("{} line {line}: {why}", .file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: i64,
        /// Why, without anything of its content.
        why: String,
    },
}

/// One delivery as a line. The field names are an interface.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    format: String,
    source: SourceName,
    provider: String,
    delivery: String,
    event: String,
    content_type: String,
    received_at: Timestamp,
    /// The *name* of the secret that verified it.
    secret: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seal: Option<String>,
}

/// The keys that seal and verify a source's lines.
#[derive(Debug)]
pub struct Seals(HmacKeys);

impl Seals {
    /// Derives the keys of a source's secrets. None without secrets.
    #[must_use]
    pub fn new(secrets: &[Secret]) -> Option<Self> {
        let key = |secret: &Secret| {
            let derived = HmacKey::new(secret).ok()?.sign(&[SEAL]);
            HmacKey::of_bytes(secret.name.clone(), derived.as_bytes()).ok()
        };
        HmacKeys::of(secrets.iter().map(key).collect::<Option<Vec<_>>>()?).ok().map(Self)
    }

    fn seal(secret: &Secret, parts: &[&[u8]]) -> Option<Tag> {
        let derived = HmacKey::new(secret).ok()?.sign(&[SEAL]);
        Some(HmacKey::of_bytes(secret.name.clone(), derived.as_bytes()).ok()?.sign(parts))
    }
}

/// What is sealed besides the body: each field with its length before it, so that none can run into the next.
fn sealed(delivery: &Delivery, content_type: &str) -> Vec<u8> {
    let received_at = delivery.received_at.micros().to_be_bytes();
    let fields: [&[u8]; 8] = [
        FORMAT.as_bytes(),
        delivery.source.as_str().as_bytes(),
        delivery.provider.as_bytes(),
        delivery.id.as_str().as_bytes(),
        delivery.event.as_str().as_bytes(),
        content_type.as_bytes(),
        &received_at,
        delivery.secret.0.as_bytes(),
    ];
    let mut text = Vec::new();
    for field in fields {
        text.extend((field.len() as u64).to_be_bytes());
        text.extend(field);
    }
    text
}

/// Writes a delivery as a line without its end, sealed by the secret of its source if there is one.
///
/// # Errors
/// If it can't be written as JSON, which no delivery is known to cause.
pub fn write(delivery: &Delivery, secret: Option<&Secret>) -> Result<String, serde_json::Error> {
    let text = std::str::from_utf8(&delivery.body).ok();
    let seal =
        secret.and_then(|secret| Seals::seal(secret, &[&sealed(delivery, delivery.media_type()), &delivery.body]));
    serde_json::to_string(&Line {
        format: FORMAT.to_owned(),
        source: delivery.source.clone(),
        provider: delivery.provider.clone(),
        delivery: delivery.id.to_string(),
        event: delivery.event.to_string(),
        content_type: delivery.media_type().to_owned(),
        received_at: delivery.received_at,
        secret: delivery.secret.to_string(),
        body: text.map(str::to_owned),
        body_base64: text.is_none().then(|| BASE64.encode(&delivery.body)),
        seal: seal.map(|seal| seal.to_string()),
    })
}

/// A line read back, with what its seal should cover and the seal as it is.
struct Sealed {
    delivery: Delivery,
    sealed: Vec<u8>,
    seal: Option<String>,
}

/// Reads a line back. Its content type is for other readers: how the body is read follows from its bytes.
fn read(text: &str) -> Result<Sealed, String> {
    let line: Line = serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            format!("it isn't a line of `rollcall deliveries export` (column {})", error.column())
        }
        _ => "it isn't JSON".to_owned(),
    })?;
    if line.format != FORMAT {
        return Err(format!("its format isn't {FORMAT}"));
    }
    let body = match (line.body, line.body_base64) {
        (Some(text), None) => text.into_bytes(),
        (None, Some(text)) => BASE64.decode(text).map_err(|_| "its body_base64 isn't base64".to_owned())?,
        _ => return Err("it must have either body or body_base64".to_owned()),
    };
    let invalid = |error: InvalidName| error.to_string();
    let delivery = Delivery {
        source: line.source,
        provider: line.provider,
        id: line.delivery.parse().map_err(invalid)?,
        event: line.event.parse().map_err(invalid)?,
        received_at: line.received_at,
        secret: SecretName(line.secret.into()),
        stamp: None,
        replay: None,
        body: Bytes::from(body),
    };
    Ok(Sealed { sealed: sealed(&delivery, &line.content_type), delivery, seal: line.seal })
}

/// What an import has to know of a source.
#[derive(Debug)]
pub struct ImportSource {
    /// Its provider.
    pub provider: &'static str,
    /// What verifies its lines; none if its secrets aren't at hand, and then only a trusted import takes them.
    pub seals: Option<Seals>,
}

/// How the lines of a file are taken.
#[derive(Debug)]
pub struct Import {
    /// The sources of this deployment.
    pub sources: BTreeMap<SourceName, ImportSource>,
    /// The source to take all lines for, instead of the one that each names.
    pub into: Option<SourceName>,
    /// Whether lines are taken without verification.
    pub trusted: bool,
}

impl Import {
    fn take(&self, text: &str) -> Result<Delivery, String> {
        let Sealed { mut delivery, sealed, seal } = read(text)?;
        let named = self.into.as_ref().unwrap_or(&delivery.source);
        let source = self
            .sources
            .get(named)
            .ok_or_else(|| format!("no source {named} is configured here; --into takes the lines for one that is"))?;
        if source.provider != delivery.provider {
            return Err(format!(
                "it is of provider {}, and source {named} is of provider {}",
                delivery.provider, source.provider
            ));
        }
        if !self.trusted {
            let wrong = |why: &str| {
                format!(
                    "delivery {} {why}; --trusted takes the lines as they are, if you know where they come from",
                    delivery.id
                )
            };
            let seals =
                source.seals.as_ref().ok_or_else(|| wrong("can't be verified: its source's secrets aren't at hand"))?;
            let seal = seal.ok_or_else(|| wrong("bears no seal, since it was exported without the source's secret"))?;
            let tag = Tag::from_hex(seal.as_bytes()).ok_or_else(|| wrong("bears a malformed seal"))?;
            if seals.0.matching(&[&sealed, &delivery.body], &[tag]).is_none() {
                return Err(wrong(
                    "doesn't fit its seal under any secret of the source: it was changed, or sealed with another secret",
                ));
            }
        }
        if let Some(into) = &self.into {
            delivery.source = into.clone();
        }
        Ok(delivery)
    }
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Contents {
    /// How many deliveries, one a line.
    pub deliveries: i64,
    /// How many of them differ.
    pub distinct: i64,
    /// How many of each source.
    pub sources: BTreeMap<String, i64>,
    /// When the first was received.
    pub first: Option<Timestamp>,
    /// When the last was received.
    pub last: Option<Timestamp>,
    /// What tells this file from another, as hexadecimal digits.
    pub digest: String,
}

/// A file that is read line by line.
#[derive(Debug)]
pub struct Lines {
    file: PathBuf,
    import: Import,
    reader: BufReader<File>,
    line: i64,
}

impl Lines {
    /// Opens the file.
    ///
    /// # Errors
    /// If it can't be opened.
    pub async fn open(file: &Path, import: Import) -> Result<Self, ExportError> {
        let failed = |why| ExportError::File { file: file.to_owned(), why };
        let reader = BufReader::with_capacity(256 * 1024, File::open(file).await.map_err(failed)?);
        Ok(Self { file: file.to_owned(), import, reader, line: 0 })
    }

    /// Reads the whole file, and finds out whether all of it can be taken.
    ///
    /// # Errors
    /// The first line that can't be.
    pub async fn check(mut self) -> Result<(Contents, Import), ExportError> {
        let mut contents = Contents::default();
        let mut digest = Sha256::new();
        let mut different = BTreeSet::new();
        while let Some(text) = self.next().await? {
            digest.update(text.as_bytes());
            digest.update(b"\n");
            let delivery = self.take(&text)?;
            contents.deliveries += 1;
            let body = Sha256::digest(&delivery.body);
            different.insert((delivery.source.clone(), delivery.id.clone(), body));
            *contents.sources.entry(delivery.source.to_string()).or_default() += 1;
            let at = delivery.received_at;
            contents.first = Some(contents.first.map_or(at, |first| first.min(at)));
            contents.last = Some(contents.last.map_or(at, |last| last.max(at)));
        }
        contents.distinct = i64::try_from(different.len()).unwrap_or(i64::MAX);
        contents.digest = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((contents, self.import))
    }

    /// The deliveries of at most `limit` lines behind the line `cursor`, each with its line.
    pub(super) async fn page(&mut self, cursor: i64, limit: i64) -> Result<Vec<(i64, Delivery)>, ExportError> {
        let (mut page, mut bytes) = (Vec::new(), 0);
        while i64::try_from(page.len()).is_ok_and(|len| len < limit) && bytes < ENOUGH {
            let Some(text) = self.next().await? else { break };
            if self.line > cursor {
                let delivery = self.take(&text)?;
                bytes += delivery.body.len();
                page.push((self.line, delivery));
            }
        }
        Ok(page)
    }

    fn take(&self, text: &str) -> Result<Delivery, ExportError> {
        let wrong = |why| ExportError::Line { file: self.file.clone(), line: self.line, why };
        self.import.take(text).map_err(wrong)
    }

    /// The next line that isn't blank.
    async fn next(&mut self) -> Result<Option<String>, ExportError> {
        loop {
            let mut text = Vec::new();
            self.line += 1;
            let wrong = |why: &str| ExportError::Line { file: self.file.clone(), line: self.line, why: why.to_owned() };
            loop {
                let failed = |why| ExportError::File { file: self.file.clone(), why };
                let part = self.reader.fill_buf().await.map_err(failed)?;
                let end = part.iter().position(|byte| *byte == b'\n');
                let taken = end.map_or(part.len(), |end| end + 1);
                text.extend_from_slice(&part[..end.unwrap_or(taken)]);
                self.reader.consume(taken);
                if end.is_some() || taken == 0 {
                    if taken == 0 && text.is_empty() {
                        return Ok(None);
                    }
                    break;
                }
                if text.len() > LONGEST {
                    return Err(wrong("it is longer than any delivery"));
                }
            }
            let text = String::from_utf8(text).map_err(|_| wrong("it isn't UTF-8"))?;
            if !text.trim().is_empty() {
                return Ok(Some(text));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret(value: &str) -> Secret {
        Secret { name: SecretName("env:HOOK".into()), value: value.into() }
    }

    fn delivery(body: Vec<u8>) -> Delivery {
        Delivery {
            source: "acme-github".parse().unwrap(),
            provider: "github".into(),
            id: "d-1".parse().unwrap(),
            event: "organization.member_added".parse().unwrap(),
            received_at: Timestamp(1_795_507_200_123_456),
            secret: SecretName("env:HOOK".into()),
            stamp: None,
            replay: None,
            body: body.into(),
        }
    }

    fn import(value: &str, trusted: bool) -> Import {
        let source = ImportSource { provider: "github", seals: Seals::new(&[secret("other"), secret(value)]) };
        Import { sources: BTreeMap::from([("acme-github".parse().unwrap(), source)]), into: None, trusted }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_as_they_were(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let delivery = delivery(body);
            let line = write(&delivery, Some(&secret("s3cret"))).unwrap();
            prop_assert!(!line.contains('\n') && !line.contains("s3cret"));
            let back = import("s3cret", false).take(&line).unwrap();
            prop_assert!(back == delivery);
        }
    }

    #[test]
    fn whatever_is_changed_in_a_line_breaks_its_seal() {
        let line = write(&delivery(b"{\"a\":1}".to_vec()), Some(&secret("s3cret"))).unwrap();
        for (from, to) in [
            ("{\\\"a\\\":1}", "{\\\"a\\\":2}"),
            ("\"d-1\"", "\"d-2\""),
            ("member_added", "member_removed"),
            ("00.123456Z", "00.123457Z"),
            ("env:HOOK", "env:HOOP"),
            ("application/json", "application/x-www-form-urlencoded"),
        ] {
            let changed = line.replacen(from, to, 1);
            assert_ne!(changed, line, "{from}");
            let why = import("s3cret", false).take(&changed).unwrap_err();
            assert!(why.contains("doesn't fit its seal"), "{why}");
            assert!(import("s3cret", true).take(&changed).is_ok());
        }
        assert!(import("another", false).take(&line).unwrap_err().contains("doesn't fit its seal"));
        let unsealed = write(&delivery(Vec::new()), None).unwrap();
        assert!(import("s3cret", false).take(&unsealed).unwrap_err().contains("bears no seal"));
    }

    #[test]
    fn a_seal_is_no_signature_that_an_ingress_takes() {
        let (delivery, secret) = (delivery(b"{}".to_vec()), secret("s3cret"));
        let line: Line = serde_json::from_str(&write(&delivery, Some(&secret)).unwrap()).unwrap();
        let seal = Tag::from_hex(line.seal.unwrap().as_bytes()).unwrap();
        let keys = HmacKeys::new(std::slice::from_ref(&secret)).unwrap();
        assert!(keys.matching(&[&delivery.body], &[seal]).is_none());
        assert!(keys.matching(&[&sealed(&delivery, delivery.media_type()), &delivery.body], &[seal]).is_none());
    }

    #[test]
    fn lines_for_other_sources_are_refused_or_mapped() {
        let mut line = delivery(b"{}".to_vec());
        line.source = "elsewhere".parse().unwrap();
        let line = write(&line, Some(&secret("s3cret"))).unwrap();
        let mut import = import("s3cret", false);
        assert!(import.take(&line).unwrap_err().starts_with("no source elsewhere is configured here"));
        import.into = Some("acme-github".parse().unwrap());
        assert_eq!(import.take(&line).unwrap().source.as_str(), "acme-github");
        let other = line.replace("\"github\"", "\"gitlab\"");
        assert!(import.take(&other).unwrap_err().contains("provider gitlab"));
        assert_eq!(import.take("{}").unwrap_err(), "it isn't a line of `rollcall deliveries export` (column 2)");
        assert_eq!(import.take("nonsense").unwrap_err(), "it isn't JSON");
    }
}
