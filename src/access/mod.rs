//! Who has access to what, and in which order to believe it.
//!
//! This is vocabulary: accounts, scopes, changes, and the two pure rules on which everything rests: the total order of
//! changes ([`ChangeKey`]) and what a set of changes means for an account ([`access`]). It uses nothing of ours but
//! [`crate::delivery`]'s names and times.

mod account;
mod change;
pub mod observation;
mod rule;
mod scope;

pub use self::account::{Account, AccountKey, AccountKind, AccountName, AccountPattern};
pub use self::change::{AccessKind, Change, ChangeKey, Step, Turn, When};
pub use self::rule::{Access, Ended, Grant, Root, access, ended, is_gone};
pub use self::scope::{Place, RootPattern, Scope, ScopeId, ScopeKind, place};
