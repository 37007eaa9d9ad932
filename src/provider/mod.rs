//! Providers: kinds of Git host, how each signs its webhooks and what its events mean.
//!
//! A provider is one folder and one line in [`REGISTRY`]. Routes, command-line values, listings and tests derive from
//! the registry, so nothing outside the folder changes for a new one. Everything here is pure: no IO, no clock, no
//! environment; time is an argument. What each side may know is in the traits: a [`Verifier`] (ingress) holds secrets
//! and never interprets, an [`Interpreter`] (worker) holds none, a [`Signer`] (`send`, demo, tests) is the verifier's
//! other direction.
//!
//! # Adding a provider
//!
//! 1. **Facts first.** From the provider's own pages and, better, its source: which header authenticates a delivery, over
//!    which bytes and by which algorithm; which header or field has the delivery's id, and whether a repeated delivery keeps
//!    it; where the event's name is and whether it is signed; whether it ever sends forms ([`Encodings`]); which events tell of access, which stable id an account has
//!    there, and what of a body is missing in older versions.
//! 2. **A folder** `src/provider/NAME` with a `mod.rs` whose documentation says all that, with links, and which holds a
//!    `static DESCRIPTION: `[`Description`]. Copy `azure/mod.rs`, the smallest.
//! 3. **Verifying and signing** are one choice in `scheme/mod.rs`: `Scheme::Hex`, `Standard`, `Plain` or `Basic`, from which
//!    `SchemeVerifier` and `SchemeSigner` are built. The verifier also takes the headers that only this provider sends, signed
//!    or not, so that health can tell a hook without a secret from a stranger ([`Apparent`]). A new way to sign is a new variant there, with its known vectors as a
//!    test. What the source's table may say is judged in one function that verifier, interpreter and signer all call
//!    (`signs_only` where there is only one way); where there are several ways, `verify` is required.
//! 4. **The name** of a delivery: a function from headers and verified body to [`Named`]. It reads headers by `label`, the
//!    body by `head` and [`fields`]' `Loose`, which looks at no more than it is asked for.
//! 5. **The interpreter** reads the body into a struct of `Loose` fields by `fields::read`, and asks each for what it needs:
//!    `get`, `serial` and `id` where a change rests on it, `label` where it only names something. If the event's name isn't
//!    signed, it first holds the body to the shape of that event. Activity is [`AccessKind::Seen`] and only where it takes
//!    access to act; a loss whose time isn't told has none ([`When`]).
//! 6. **The truth table**: an [`EventRow`] for each event that means something and for those of which people may think so,
//!    and two comment lines `<!-- events of NAME -->` and `<!-- /events -->` in the folder's documentation.
//!    If its API tells which deliveries failed and delivers them again, `recover.rs` knows it: [`recover::Recover`].
//! 7. **One line in [`REGISTRY`]**, and `mod NAME;` above it.
//! 8. **Rosters**, if its API lists who has access: `roster.rs`, the questions and how to read their answers
//!    ([`roster::Roster`]); else `roster: None`. Who sees only a part of the list must be found out ([`roster::About::Sight`]).
//! 9. **Tests.** In the folder: the truth table against the code, each required field broken, each label missing, on bodies
//!    of invented people. Then a line in `CASES` of `provider/tests.rs` and its headers in `marks` there, which runs every
//!    hostile header and body against it, and one in `SENT` of `tests/it/serve/providers.rs`, which does so through the
//!    real binary; tests fail and say so
//!    until both are there. `ROLLCALL_BLESS=1 cargo test --test it docs -- --test-threads=1` writes the tables of the
//!    documentation anew.
//!
//! [`AccessKind::Seen`]: crate::access::AccessKind::Seen

pub mod api;
mod azure;
mod bitbucket;
mod fields;
mod gitea;
mod github;
mod gitlab;
pub mod recover;
pub mod roster;
mod scheme;
pub mod signature;
mod standard;

use http::HeaderMap;
use secrecy::SecretString;

use self::recover::Recover;
use crate::access::{Change, RootPattern, When};
use crate::delivery::{
    Delivery, Encoding, Encodings, InvalidName, Named, SecretName, SourceName, Timestamp, Unverified, Verified,
};

/// Every provider that rollcall speaks.
pub static REGISTRY: &[&Description] = &[
    &github::DESCRIPTION,
    &gitlab::DESCRIPTION,
    &bitbucket::CLOUD,
    &bitbucket::DATA_CENTER,
    &gitea::GITEA,
    &gitea::FORGEJO,
    &gitea::GOGS,
    &azure::DESCRIPTION,
    &standard::DESCRIPTION,
];

/// The provider of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Description> {
    REGISTRY.iter().copied().find(|provider| provider.name == name)
}

/// One side of a provider, built for a source.
pub type Built<T> = Result<Box<T>, SettingsError>;

/// What builds what reads a source's rosters.
pub type BuildRoster = fn(&SourceSettings) -> Box<dyn roster::Roster>;

/// What builds a source's [`Recover`].
pub type BuildRecover = fn(&SourceSettings) -> Built<dyn Recover>;

/// What rollcall knows of a provider.
#[derive(Debug)]
pub struct Description {
    /// Its name in configuration, metrics and routing keys.
    pub name: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// How it authenticates its deliveries, for people.
    pub verification: &'static str,
    /// The encodings in which it sends its bodies.
    pub encodings: Encodings,
    /// The host that a source has if it names none.
    pub default_host: Option<&'static str>,
    /// The platform's client type for connections to that host (Drata's `GITHUB`), if there is one.
    pub client_type: fn(host: &str) -> Option<&'static str>,
    /// Its API, if it has one that rollcall asks: for rosters, and for deliveries that it failed to bring.
    pub api: Option<api::ApiDescription>,
    /// Builds what reads a source's rosters, if its API has any that rollcall reads.
    pub roster: Option<BuildRoster>,
    /// The truth table: every event that it understands and what that means.
    pub events: &'static [EventRow],
    /// What to switch on at the provider, where that isn't called as the events are.
    pub hooks: &'static [&'static str],
    /// The events that its signer can invent.
    pub invents: &'static [&'static str],
    /// Builds the verifier of a source.
    pub verifier: fn(&SourceSettings, Vec<Secret>) -> Built<dyn Verifier>,
    /// Builds the interpreter of a source. Also how a source's own settings are checked: it needs no secret.
    pub interpreter: fn(&SourceSettings) -> Built<dyn Interpreter>,
    /// Builds a signer for a source.
    pub signer: fn(&SourceSettings, Secret) -> Built<dyn Signer>,
    /// Builds what knows its API of deliveries, if it has one.
    pub recover: Option<BuildRecover>,
}

/// One row of a provider's truth table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// The event and action as [`crate::delivery::EventName`] has them; a `*` at the end stands for anything.
    pub event: &'static str,
    /// What it does to the ledger, in the words of [`Change::as_str`], and to whom: `gained org`, `-` for nothing, with
    /// ` or ` between where the body decides.
    pub change: &'static str,
    /// What it means, for people.
    pub meaning: &'static str,
}

/// What every source has, and the part of its table that only its provider understands.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// The source.
    pub name: SourceName,
    /// The host: half of what names an account.
    pub host: String,
    /// The roots; empty if every root that the source speaks of is one.
    pub roots: Vec<RootPattern>,
    /// Whether activity counts as a sighting.
    pub sightings: bool,
    /// Which of several ways to verify, where the provider knows more than one.
    pub verify: Option<String>,
    /// The name of the header that carries the secret, for `verify = "header"`.
    pub header: Option<String>,
    /// The keys of the source's table that are the provider's own.
    pub own: toml::Table,
}

/// The keys of a source's table that every provider has: a mistyped one ends up among the provider's own.
const COMMON_KEYS: &[&str] = &[
    "api_token",
    "api_url",
    "drata_connection",
    "header",
    "host",
    "name",
    "on_access_lost",
    "provider",
    "scopes",
    "secrets",
    "service_accounts",
    "sightings",
    "verify",
];

impl SourceSettings {
    /// Refuses every key of the provider's own that isn't `known`, and suggests the nearest right one.
    ///
    /// # Errors
    /// [`SettingsError`] that names the key.
    pub fn only_own_keys(&self, known: &[&str]) -> Result<(), SettingsError> {
        /// Two letters swapped, or a plural forgotten; beyond that a suggestion is a guess.
        const NEAR: usize = 2;
        let Some(key) = self.own.keys().find(|key| !known.contains(&key.as_str())) else { return Ok(()) };
        let distance = |right: &str| strsim::damerau_levenshtein(key, right);
        let nearest = known.iter().chain(COMMON_KEYS).min_by_key(|right| distance(right));
        let hint = match nearest.filter(|right| distance(right) <= NEAR) {
            Some(right) => format!("; did you mean {right}?"),
            None => String::new(),
        };
        Err(SettingsError { key: key.clone(), message: format!("source {} has no such key{hint}", self.name) })
    }
}

/// A source's settings don't fit its provider.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct SettingsError {
    /// The key.
    pub key: String,
    /// What is wrong and the way out.
    pub message: String,
}

/// A secret and where it comes from.
#[derive(Clone, Debug)]
pub struct Secret {
    /// The name that may be shown.
    pub name: SecretName,
    /// The secret itself.
    pub value: SecretString,
}

/// Why a request is refused. Nothing in it tells the sender which check failed beyond the status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No signature, a malformed one, a wrong one, or one too old: 401. The text is for our log: which header was
    /// expected and which came, never their values.
    #[error("{0}")]
    Unverified(String),
    /// Verified, but it doesn't say what it is: 400.
    #[error("{0}")]
    Malformed(String),
}

impl From<InvalidName> for Refusal {
    fn from(invalid: InvalidName) -> Self {
        Self::Malformed(invalid.to_string())
    }
}

/// Whose a refused request is by its headers. Anybody can write such headers, so that it decides nothing but what health and
/// alerts say; what scans the Internet for servers doesn't write them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apparent {
    /// It has a signature, token or password of the source's form, right or wrong.
    Signed,
    /// It has none, but a header that only the provider sends, such as that of its event: as from a hook without a secret.
    Unsigned,
    /// Anybody's.
    Stranger,
}

/// Checks requests at the ingress.
pub trait Verifier: Send + Sync + std::fmt::Debug {
    /// Looks at the headers alone, before the body is read: is there a well-formed signature at all?
    ///
    /// # Errors
    /// [`Refusal::Unverified`] if no body could make it good.
    fn precheck(&self, headers: &HeaderMap) -> Result<(), Refusal>;

    /// Checks the signature over the raw body.
    ///
    /// # Errors
    /// [`Refusal::Unverified`] if no secret verifies it.
    fn verify(&self, request: Unverified<'_>, now: Timestamp) -> Result<Verified, Refusal>;

    /// Whose a request is by its headers. Only asked of those that are refused.
    fn apparent(&self, headers: &HeaderMap) -> Apparent;

    /// What the verified request calls itself. Reads no more of the body than it must, but finds out if it isn't JSON.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] if the body isn't JSON, or event name or id are missing or unusable.
    fn name(&self, headers: &HeaderMap, verified: &Verified) -> Result<Named, Refusal>;
}

/// What a delivery means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meaning {
    /// What it tells, in the order of the body.
    pub changes: Vec<Change>,
    /// Why there is no change, or what people should know besides.
    pub note: Option<String>,
    /// When it happened, where the body says so, and its place in the order.
    pub when: When,
}

impl Meaning {
    /// It tells nothing about access.
    #[must_use]
    pub fn nothing(note: impl Into<String>) -> Self {
        Self { changes: Vec::new(), note: Some(note.into()), when: When::default() }
    }
}

impl From<Change> for Meaning {
    fn from(change: Change) -> Self {
        Self { changes: vec![change], note: None, when: When::default() }
    }
}

/// A verified body isn't of the shape that its event promises. The delivery is parked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct Misshapen {
    /// The JSON path of the fault, `.` for the whole body.
    pub path: String,
    /// What is wrong there, without any of the body's values.
    pub message: String,
}

impl Misshapen {
    fn of(path: &str, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), message: message.into() }
    }
}

/// Says what a delivery means, from the body's shape and not from its unsigned event name alone.
pub trait Interpreter: Send + Sync + std::fmt::Debug {
    /// What the delivery means. Total: any bytes give an answer or an error, never a panic.
    ///
    /// # Errors
    /// If the body isn't positively of the event's shape, or bears the mark of another event.
    fn interpret(&self, delivery: &Delivery) -> Result<Meaning, Misshapen>;

    /// What the source's own table makes of its events, in sentences, where that is for the table to say.
    fn explained(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A delivery to send as the provider would.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The delivery id.
    pub id: String,
    /// The event, without its action: what the provider's header says.
    pub event: String,
    /// How to write the body.
    pub encoding: Encoding,
    /// The JSON text.
    pub json: Vec<u8>,
}

/// What to put into an invented event.
#[derive(Clone, Debug)]
pub struct Invention {
    /// The delivery id; a fresh one if none is given.
    pub id: Option<String>,
    /// The event and action: `organization.member_added`.
    pub event: String,
    /// The account's login.
    pub login: String,
    /// The account's stable id.
    pub account_id: String,
    /// The root's name.
    pub root: String,
    /// The root's stable id.
    pub root_id: String,
    /// The name of the team or repository, where the event has one.
    pub part: Option<String>,
    /// Its stable id.
    pub part_id: Option<String>,
}

/// A signed request, ready to post.
#[derive(Clone, Debug)]
pub struct SignedRequest {
    /// All headers that the provider would send.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

/// Signs deliveries as the provider does.
pub trait Signer: Send + Sync + std::fmt::Debug {
    /// Signs a draft.
    ///
    /// # Errors
    /// If a header value can't travel.
    fn sign(&self, draft: &Draft, now: Timestamp) -> Result<SignedRequest, SettingsError>;

    /// Writes the JSON text of an invented event, in the provider's own shape.
    ///
    /// # Errors
    /// If the provider has no such event that can be invented; the message lists those that can.
    fn invent(&self, invention: &Invention) -> Result<Draft, SettingsError>;
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trial;
