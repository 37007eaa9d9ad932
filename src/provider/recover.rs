//! What a provider's API tells of deliveries that failed, and how it is asked to deliver them again: requests and the
//! reading of answers, as values. [`crate::recover`] is the one that goes through with it.
//!
//! Nothing of a delivery is ever taken from the API: the provider posts it again, signed, to the source's endpoint.

use std::time::Duration;

use url::Url;

use super::api::{Answer, Ask, UnreadableAnswer};
use super::{EventRow, SettingsError};
use crate::delivery::Timestamp;

/// A hook by its path below the API's base: `orgs/acme/hooks/12345`. It names the hook in the ledger and to people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HookPath(pub String);

impl HookPath {
    /// A path of these segments.
    pub(super) fn of(segments: &[&str]) -> Self {
        Self(segments.join("/"))
    }

    /// A request below it.
    pub(super) fn ask(&self, below: &[&str], of: impl Fn(&[&str]) -> Ask) -> Ask {
        let segments: Vec<&str> = self.0.split('/').chain(below.iter().copied()).collect();
        of(&segments)
    }
}

impl std::fmt::Display for HookPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// How the hooks of a source are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hooks {
    /// The source's table names it.
    Named(HookPath),
    /// They are in these lists, by the address that they post to.
    Listed(Vec<HookList>),
}

/// A list of hooks, of a root of the source's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookList(pub HookPath);

/// A hook in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookRow {
    /// Where it is.
    pub path: HookPath,
    /// Where it posts to, if that is told.
    pub url: Option<String>,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What is on it.
    pub rows: Vec<T>,
    /// Where the next one is.
    pub next: Option<Url>,
}

/// One attempt to deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The provider's id of the attempt.
    pub id: String,
    /// The delivery's id, the same in all attempts, as the source's verifier reads it.
    pub delivery: String,
    /// The event and its action.
    pub event: String,
    /// When, if that is told.
    pub at: Option<Timestamp>,
    /// Whether it was answered with success.
    pub delivered: bool,
    /// Whether an earlier attempt may have failed.
    pub again: bool,
    /// How it went: the provider's words, or the status that it was answered with.
    pub status: String,
    /// Why it can't be delivered again, if so.
    pub lost: Option<&'static str>,
}

/// How often may be asked for a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// So many requests …
    pub requests: usize,
    /// … in so long.
    pub per: Duration,
}

/// A provider's API of deliveries, for one source.
pub trait Recover: Send + Sync + std::fmt::Debug {
    /// How the source's hooks are known.
    ///
    /// # Errors
    /// If the source's settings don't tell, with the way out.
    fn hooks(&self) -> Result<Hooks, SettingsError>;

    /// Asks for a list of hooks.
    fn list_hooks(&self, list: &HookList) -> Ask;

    /// Reads a page of such a list.
    ///
    /// # Errors
    /// If it isn't one.
    fn read_hooks(&self, list: &HookList, answer: &Answer) -> Result<Page<HookRow>, UnreadableAnswer>;

    /// Asks for a hook's attempts, the latest first.
    fn list_attempts(&self, hook: &HookPath) -> Ask;

    /// Reads a page of attempts.
    ///
    /// # Errors
    /// If it isn't one.
    fn read_attempts(&self, answer: &Answer) -> Result<Page<Attempt>, UnreadableAnswer>;

    /// Asks to deliver again what an attempt was to deliver.
    fn deliver_again(&self, hook: &HookPath, attempt: &str) -> Ask;

    /// How far back the provider tells of attempts and delivers again.
    fn window(&self) -> Duration;

    /// How often it may be asked to.
    fn pace(&self) -> Pace;

    /// After how many failed attempts in a row the provider may stop to attempt, so that its list isn't the whole truth.
    fn gives_up_after(&self) -> Option<i64> {
        None
    }

    /// What the token needs, for people.
    fn permission(&self) -> &'static str;
}

/// Whether an event of that name means anything to the ledger, by the provider's truth table. Sightings do only where the
/// source takes them, or its provider tells of nothing else.
#[must_use]
pub fn matters(events: &[EventRow], sightings: bool, event: &str) -> bool {
    let exact = events.iter().find(|row| row.event == event);
    let row = exact.or_else(|| {
        events.iter().find(|row| row.event.strip_suffix('*').is_some_and(|prefix| event.starts_with(prefix)))
    });
    row.is_some_and(|row| {
        row.change.split(" or ").any(|change| change != "-" && (sightings || !change.starts_with("seen")))
    })
}
