//! Names on the command line that name nothing, or more than one thing.

use super::table::plain;

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
