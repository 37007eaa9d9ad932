//! How pages show times and accounts. Names are escaped by the templates, and `<bdi>` keeps marks that turn text around
//! within them.

use crate::delivery::Timestamp;
use crate::ledger::show::AccountLabel;

/// A time to the second: `2026-11-24 08:00:00`.
#[must_use]
pub fn shown(at: Timestamp) -> String {
    at.to_string().chars().take(19).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

/// A time that may not be known.
#[must_use]
pub fn shown_or_dash(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), shown)
}

/// An account as a cell has it: its login, if it has one, and what names it for good.
#[derive(Clone, Debug, Default)]
pub struct Named {
    /// The login.
    pub login: String,
    /// What names it for good; empty if there is no account.
    pub key: String,
}

impl From<Option<&AccountLabel>> for Named {
    fn from(account: Option<&AccountLabel>) -> Self {
        let Some(AccountLabel { key, login }) = account else { return Self::default() };
        Self { login: login.clone().unwrap_or_default(), key: key.to_string() }
    }
}
