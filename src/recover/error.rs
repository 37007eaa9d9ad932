//! Why nothing, or not all, could be recovered, and the way out.

use crate::api::ApiError;
use crate::ledger::LedgerError;
use crate::provider::SettingsError;

/// Why nothing, or not all, could be recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The source's settings don't say where its hook is.
    #[error("{0}")]
    Hook(#[from] SettingsError),
    /// The hooks can't be listed.
    #[error("the hooks in {list} can't be listed: {why}{}", needs(.why, .permission))]
    Hooks {
        /// The list.
        list: String,
        /// Why.
        why: ApiError,
        /// What the token needs.
        permission: &'static str,
    },
    /// None of the hooks is the source's.
    #[error(
        "none of the hooks in {lists} posts to {url}{others}; set ingress.public_url to the address that the provider \
         knows, or `hook` in the source's table"
    )]
    NoHook {
        /// The lists.
        lists: String,
        /// Where it should post to.
        url: String,
        /// Where they post to.
        others: String,
    },
    /// The hook's attempts can't be listed.
    #[error("the deliveries of {hook} can't be listed: {why}{}", needs(.why, .permission))]
    Attempts {
        /// The hook.
        hook: String,
        /// Why.
        why: ApiError,
        /// What the token needs.
        permission: &'static str,
    },
    /// The token may not ask for deliveries.
    #[error("{hook} can't be asked to deliver again: {why}{}", needs(.why, .permission))]
    Again {
        /// The hook.
        hook: String,
        /// Why.
        why: ApiError,
        /// What the token needs.
        permission: &'static str,
    },
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl RecoverError {
    /// Whether the provider or the ledger couldn't be reached.
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        match self {
            Self::Hooks { why, .. } | Self::Attempts { why, .. } | Self::Again { why, .. } => why.is_transient(),
            Self::Ledger(_) => true,
            Self::Hook(_) | Self::NoHook { .. } => false,
        }
    }
}

/// The way out, where the token is to blame.
fn needs(why: &ApiError, permission: &str) -> String {
    match why {
        ApiError::Refused { .. } | ApiError::Missing { .. } => format!(". Needed is {permission}"),
        _ => String::new(),
    }
}
