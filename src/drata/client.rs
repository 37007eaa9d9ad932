//! The client itself: its settings and what all clones share.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use super::memory::Memory;
use super::pace::Pace;
use super::people::Person;
use super::transport::{self, BuildError};
use crate::target::Connection;

/// The settings of a [`Client`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the API is, with its path: `https://public-api.drata.com/public`.
    pub base_url: Url,
    /// How many requests a minute to send at most; Drata's documented limit is 500 per address.
    pub requests_per_minute: u32,
    /// How long one request may take, its answer included.
    pub timeout: Duration,
    /// How long a call may wait for its turn (rate limit, or the pause after a 429) before it gives up as throttled.
    pub max_wait: Duration,
    /// How long a person found by e-mail is remembered.
    pub person_ttl: Duration,
    /// How long it is remembered that nobody has an e-mail address.
    pub absent_person_ttl: Duration,
    /// How long the list of connections is remembered.
    pub connections_ttl: Duration,
}

impl Settings {
    /// Drata's documented limits and our usual times, for an API at this address.
    #[must_use]
    pub const fn new(base_url: Url) -> Self {
        Self {
            base_url,
            requests_per_minute: 500,
            timeout: Duration::from_secs(10),
            max_wait: Duration::from_secs(15),
            person_ttl: Duration::from_secs(300),
            absent_person_ttl: Duration::from_secs(30),
            connections_ttl: Duration::from_secs(300),
        }
    }
}

/// A client of Drata's API. Clones are cheap and share connections, rate limit and what is remembered.
#[derive(Clone, Debug)]
pub struct Client {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) http: reqwest::Client,
    pub(super) pace: Pace,
    pub(super) people: Memory<String, Option<Person>>,
    pub(super) connections: Memory<(), Vec<Connection>>,
}

impl Client {
    /// A client that uses this API key.
    ///
    /// # Errors
    /// If the address or the key can't be used, or TLS can't be set up.
    pub fn new(settings: Settings, api_key: SecretString) -> Result<Self, BuildError> {
        let http = transport::build(&settings, &api_key)?;
        let pace = Pace::new(settings.requests_per_minute, settings.max_wait);
        let (people, connections) = (Memory::default(), Memory::default());
        Ok(Self { shared: Arc::new(Shared { settings, http, pace, people, connections }) })
    }

    /// Takes its share of the rate, where so many clients in all call from the same address.
    pub fn share_with(&self, clients: u32) {
        self.shared.pace.share(clients);
    }
}
