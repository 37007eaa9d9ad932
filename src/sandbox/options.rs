//! What a sandbox can be started with.

use secrecy::SecretString;

use super::{Fault, Identity, Person, Undocumented};

/// The options of a [`super::Sandbox`]. [`Options::default`] is a small invented company, no faults, and Drata's
/// documented limit of 500 requests a minute.
#[derive(Clone, Debug)]
pub struct Options {
    /// The only key that is let in; `None` lets any non-empty key in.
    pub api_key: Option<SecretString>,
    /// The people; `None` for the invented company's.
    pub people: Option<Vec<Person>>,
    /// The identities; `None` for the invented company's.
    pub identities: Option<Vec<Identity>>,
    /// The fault rules, in order.
    pub faults: Vec<Fault>,
    /// Seeds the dice of the fault rules: the same seed and the same requests give the same faults.
    pub seed: u64,
    /// How to behave where Drata's documentation is silent.
    pub undocumented: Undocumented,
    /// The rate limit; `None` or 0 for none. It is the server's, not per address: a sandbox has one client.
    pub requests_per_minute: Option<u32>,
    /// Whether a 429 of the rate limit says `Retry-After`.
    pub retry_after: bool,
    /// Whether Drata's terms are accepted; if not, everything is 412.
    pub terms_accepted: bool,
    /// Whether the plan has the API; if not, everything is 402.
    pub plan_paid: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            api_key: None,
            people: None,
            identities: None,
            faults: Vec::new(),
            seed: 0,
            undocumented: Undocumented::default(),
            requests_per_minute: Some(500),
            retry_after: true,
            terms_accepted: true,
            plan_paid: true,
        }
    }
}
