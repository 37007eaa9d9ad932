//! A stand-in for Drata's public API: the documented paths, checks, pages, error bodies and rate limit, faults on
//! demand, and a switch for each thing that Drata leaves undocumented.
//!
//! It is for trying rollcall, for the demo and for tests. It uses nothing of [`crate::drata`], so that a mistake about
//! Drata's API can't hide by being made on both sides. Every reply derives from one state, as a real server's would. It keeps all of it in memory and it is no place for real people.
//!
//! The paths are served as they are and under `/public`, where Drata's base URL points. `/_sandbox/…` is the stand-in's
//! own and needs no key:
//!
//! | request | does |
//! |---|---|
//! | `GET /_sandbox/requests` | lists every request seen: when, what, its answer, the fault applied, the user id of a PUT |
//! | `GET /_sandbox/state` | shows people, identities, connections, faults and switches |
//! | `POST /_sandbox/people` | adds or replaces the people in a JSON array |
//! | `POST /_sandbox/identities` | adds or replaces the identities in a JSON array |
//! | `POST /_sandbox/faults` | replaces the faults: a JSON array of rules such as `"500:20%@connect"` ([`Fault`]) |

mod faults;
mod gate;
mod limit;
mod options;
mod problem;
mod query;
mod requests;
mod routes;
mod seed;
mod serve;
mod state;
mod switches;
mod wire;

#[cfg(test)]
mod tests;

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use secrecy::SecretString;
use tokio::sync::watch;

pub use self::faults::{Effect, Fault, InvalidFault, Operation};
pub use self::options::Options;
pub use self::requests::Seen;
pub use self::seed::{SeedError, identities_from_file, people_from_file};
pub use self::state::{Connection, Identity, Person};
pub use self::switches::{IdentityForm, InvalidSwitch, QueryMatch, Switch, Undocumented, UnlinkedUser};

use crate::shutdown::Tasks;

/// The stand-in: a handle that is cheap to clone; all clones are the same server.
#[derive(Clone, Debug)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    api_key: Option<SecretString>,
    state: Mutex<state::State>,
    faults: Mutex<faults::Faults>,
    requests: Mutex<requests::Log>,
    limit: Option<limit::Limit>,
    retry_after: bool,
    /// What is done late, whether or not anybody waits for it.
    late: Tasks,
    /// Counts answered requests, so that somebody can wait for the next one.
    answered: watch::Sender<u64>,
}

impl Sandbox {
    /// A stand-in with these options.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let Options {
            api_key,
            people,
            identities,
            faults,
            seed,
            undocumented,
            requests_per_minute,
            retry_after,
            terms_accepted,
            plan_paid,
        } = options;
        let people = people.unwrap_or_else(seed::people);
        let identities = identities.unwrap_or_else(seed::identities);
        let mut state = state::State::new(seed::connections(), undocumented, terms_accepted, plan_paid);
        people.into_iter().for_each(|person| state.put_person(person));
        identities.into_iter().for_each(|identity| state.put_identity(identity));
        let shared = Shared {
            api_key,
            state: Mutex::new(state),
            faults: Mutex::new(faults::Faults::new(faults, seed)),
            requests: Mutex::default(),
            limit: requests_per_minute.and_then(NonZeroU32::new).map(limit::Limit::per_minute),
            retry_after,
            late: Tasks::new(),
            answered: watch::Sender::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// All routes. A `drop` fault needs [`Sandbox::serve`]; here it is a truncated answer.
    pub fn router(&self) -> Router {
        routes::router(self.clone())
    }

    /// The person that an identity is linked to, by the identity's id. `None` if unlinked or unknown.
    #[must_use]
    pub fn linked(&self, identity: i64) -> Option<i64> {
        self.state().identity(identity).and_then(|row| row.user_id)
    }

    /// The person that an identity is linked to, by its username in a connection. `None` if unlinked or unknown.
    #[must_use]
    pub fn linked_login(&self, connection: i64, username: &str) -> Option<i64> {
        let state = self.state();
        let row = state.identities().find(|row| row.connection_id == connection && row.username == username)?;
        row.user_id
    }

    /// An identity as it is now.
    #[must_use]
    pub fn identity(&self, id: i64) -> Option<Identity> {
        self.state().identity(id).cloned()
    }

    /// All identities, by id.
    #[must_use]
    pub fn identities(&self) -> Vec<Identity> {
        self.state().identities().cloned().collect()
    }

    /// All people, by id.
    #[must_use]
    pub fn people(&self) -> Vec<Person> {
        self.state().people().cloned().collect()
    }

    /// Adds a person, or replaces the one with that id.
    pub fn put_person(&self, person: Person) {
        self.state().put_person(person);
    }

    /// Adds an identity, or replaces the one with that id, and its connection if that is new.
    pub fn put_identity(&self, identity: Identity) {
        self.state().put_identity(identity);
    }

    /// Forgets a person, as if they had been deleted. Links to them stay.
    pub fn remove_person(&self, id: i64) {
        self.state().remove_person(id);
    }

    /// Forgets an identity, as if the account's connection had been deleted.
    pub fn remove_identity(&self, id: i64) {
        self.state().remove_identity(id);
    }

    /// Replaces all fault rules; their counts start anew.
    pub fn set_faults(&self, faults: Vec<Fault>) {
        lock(&self.shared.faults).replace(faults);
    }

    /// Sets one switch for undocumented behaviour.
    pub fn set_switch(&self, switch: Switch) {
        self.state().undocumented.set(switch);
    }

    /// Whether Drata's terms are accepted; while not, everything is 412.
    pub fn set_terms_accepted(&self, accepted: bool) {
        self.state().terms_accepted = accepted;
    }

    /// Whether the plan has the API; while not, everything is 402.
    pub fn set_plan_paid(&self, paid: bool) {
        self.state().plan_paid = paid;
    }

    /// The requests seen, oldest first, without those to `/_sandbox`. Only the latest 100,000 are kept.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        lock(&self.shared.requests).list()
    }

    /// The number of requests answered or given up so far; wait on it instead of polling.
    #[must_use]
    pub fn answered(&self) -> watch::Receiver<u64> {
        self.shared.answered.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, state::State> {
        lock(&self.shared.state)
    }
}

/// Takes a lock whatever became of its last holder: the state is consistent between any two statements that matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
