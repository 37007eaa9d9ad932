//! `[ledger]`: PostgreSQL, or SQLite in the data directory if no address is given.

use std::time::Duration;

use super::layers::Layers;
use super::secret::UrlRef;

/// The section's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// PostgreSQL's address; none for SQLite.
    pub url: Option<UrlRef>,
    /// Whether a start brings PostgreSQL's tables up to date.
    pub migrate: bool,
    /// How long one statement at PostgreSQL may take.
    pub timeout: Duration,
}

impl Ledger {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        let url = layers.optional("ledger.url");
        let migrate = layers.required("ledger.migrate");
        let timeout = layers.required("ledger.timeout");
        let url = url?;
        if let Some(UrlRef::Plain(plain)) = &url
            && !matches!(plain.scheme(), "postgres" | "postgresql")
        {
            layers.blame_value("ledger.url", "must begin with postgres://; leave it out for SQLite in data_dir");
        }
        Some(Self { url, migrate: migrate?, timeout: timeout? })
    }
}
