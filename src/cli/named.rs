//! Names on the command line that name nothing, or more than one thing.

use super::table::plain;
use crate::access::AccountPattern;
use crate::ledger::Ledger;

/// A name doesn't name exactly one thing. Whoever typed it can put that right, so it is a usage error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It names nothing.
    #[error("{what} {name:?} isn't in the ledger; {hint}")]
    NotFound {
        /// What it was to name.
        what: &'static str,
        /// The name.
        name: String,
        /// The way out.
        hint: &'static str,
    },
    /// It names several.
    #[error("{what} {name:?} is ambiguous; name one of them:{}", listed(.candidates))]
    Ambiguous {
        /// What it was to name.
        what: &'static str,
        /// The name.
        name: String,
        /// Names that name one each, and what tells them apart.
        candidates: Vec<(String, String)>,
    },
    /// It names one that hasn't got what was asked for.
    #[error("{what} {name:?} {lacks}")]
    Lacking {
        /// What it names.
        what: &'static str,
        /// The name.
        name: String,
        /// What it hasn't got, and why.
        lacks: &'static str,
    },
}

fn listed(candidates: &[(String, String)]) -> String {
    candidates.iter().map(|(name, note)| format!("\n  {}  {}", plain(name), plain(note))).collect()
}

/// The row of the one account that a pattern names.
///
/// # Errors
/// [`NameError`] if it names none or several, or if the ledger fails.
pub(super) async fn one_account(pattern: &AccountPattern, ledger: &Ledger) -> anyhow::Result<i64> {
    let matches = ledger.accounts_named(pattern).await?;
    match matches.as_slice() {
        [one] => Ok(one.row),
        [] => Err(not_known(pattern).into()),
        several => {
            let candidates = several.iter().map(|one| {
                let login = one.label.login.as_ref().map_or_else(String::new, |login| format!("now {login}"));
                (format!("'{}'", one.label.key), login)
            });
            let name = pattern.to_string();
            Err(NameError::Ambiguous { what: "account", name, candidates: candidates.collect() }.into())
        }
    }
}

/// No delivery has spoken of such an account.
pub(super) fn not_known(pattern: &AccountPattern) -> NameError {
    let hint = "`rollcall accounts` lists who is; no delivery has spoken of this one yet";
    NameError::NotFound { what: "account", name: pattern.to_string(), hint }
}
