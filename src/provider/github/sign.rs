//! GitHub's own side, for `send`, the demo and tests: a request just as GitHub posts it.

use form_urlencoded::byte_serialize;
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;

use super::{HEADER_DELIVERY, HEADER_EVENT, HEADER_SIGNATURE, SIGNATURE_PREFIX, invent, is_cloud};
use crate::delivery::{Encoding, Timestamp};
use crate::provider::signature::HmacKey;
use crate::provider::{Draft, Invention, SettingsError, SignedRequest, Signer};

/// The release whose webhooks the signer speaks when it plays Enterprise Server.
const ENTERPRISE_VERSION: &str = "3.19.0";

/// Signs as GitHub does.
#[derive(Debug)]
pub(super) struct GitHubSigner {
    host: String,
    key: HmacKey,
}

impl GitHubSigner {
    pub(super) fn new(host: &str, key: HmacKey) -> Self {
        Self { host: host.to_owned(), key }
    }
}

impl Signer for GitHubSigner {
    fn sign(&self, draft: &Draft, _now: Timestamp) -> Result<SignedRequest, SettingsError> {
        let body = match draft.encoding {
            Encoding::Json => draft.json.clone(),
            Encoding::Form => format!("payload={}", byte_serialize(&draft.json).collect::<String>()).into_bytes(),
        };
        let target = Target::of(&draft.json);
        let signature = format!("{SIGNATURE_PREFIX}{}", self.key.sign(&[&body]));

        let mut headers = HeaderMap::new();
        let mut put = |name: &'static str, value: &str| match HeaderValue::from_str(value) {
            Ok(value) => {
                headers.insert(name, value);
                Ok(())
            }
            Err(_) => {
                let message = "its value can't travel in a header: it has control characters".to_owned();
                Err(SettingsError { key: name.to_owned(), message })
            }
        };
        put("Accept", "*/*")?;
        put("Content-Type", draft.encoding.media_type())?;
        put("User-Agent", "GitHub-Hookshot/rollcall")?;
        put(HEADER_EVENT, &draft.event)?;
        put(HEADER_DELIVERY, &draft.id)?;
        put("X-GitHub-Hook-ID", "1")?;
        put("X-GitHub-Hook-Installation-Target-Type", target.kind)?;
        put("X-GitHub-Hook-Installation-Target-ID", &target.id.to_string())?;
        if !is_cloud(&self.host) {
            put("X-GitHub-Enterprise-Host", &self.host)?;
            put("X-GitHub-Enterprise-Version", ENTERPRISE_VERSION)?;
        }
        put(HEADER_SIGNATURE, &signature)?;
        Ok(SignedRequest { headers, body })
    }

    fn invent(&self, invention: &Invention) -> Result<Draft, SettingsError> {
        invent::invent(&self.host, invention)
    }
}

/// What the hook hangs on: GitHub says so in headers.
struct Target {
    kind: &'static str,
    id: u64,
}

impl Target {
    fn of(json: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        struct Body {
            organization: Option<Part>,
            repository: Option<Part>,
        }
        #[derive(Deserialize)]
        struct Part {
            id: u64,
        }
        let body: Body = serde_json::from_slice(json).unwrap_or_default();
        match (body.organization, body.repository) {
            (Some(organization), _) => Self { kind: "organization", id: organization.id },
            (None, Some(repository)) => Self { kind: "repository", id: repository.id },
            (None, None) => Self { kind: "integration", id: 1 },
        }
    }
}
