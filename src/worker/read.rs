//! What a delivery means for the ledger: its provider's interpretation, placed towards the roots and connections of its
//! source. Pure: nothing here waits or keeps anything.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Connections;
use crate::access::observation::Observed;
use crate::access::{AccountKey, Change, Place, RootPattern, Scope, When, place};
use crate::delivery::{Delivery, SourceName};
use crate::ledger::record::{Placed, Reading};
use crate::provider::Interpreter;
use crate::target::ConnectionRef;

/// What the worker knows of a source.
#[derive(Debug)]
pub struct WorkerSource {
    /// Its provider's name in the registry.
    pub provider: &'static str,
    /// Its host.
    pub host: String,
    /// Says what its deliveries mean.
    pub interpreter: Box<dyn Interpreter>,
    /// Its configured roots.
    pub roots: Vec<RootPattern>,
    /// The connections of its roots.
    pub connections: Connections,
    /// Above so many accounts at once a change waits for an operator's yes.
    pub mass_change_limit: i64,
}

/// Reads deliveries of all sources.
#[derive(Debug)]
pub struct Reader(BTreeMap<SourceName, WorkerSource>);

impl Reader {
    /// A reader of these sources.
    #[must_use]
    pub const fn new(sources: BTreeMap<SourceName, WorkerSource>) -> Self {
        Self(sources)
    }

    /// What the delivery means for the ledger.
    #[must_use]
    pub fn read(&self, delivery: &Delivery) -> Reading {
        let Some(source) = self.0.get(&delivery.source) else {
            return Reading::Parked(format!("no source {} is configured", delivery.source));
        };
        if source.provider != delivery.provider {
            return Reading::Parked(format!(
                "it is of provider {}, but source {} is of provider {}",
                delivery.provider, delivery.source, source.provider
            ));
        }
        if let Some(observed) = Observed::of(delivery) {
            return observed.map_or_else(Reading::Parked, |observed| source.observed(observed));
        }
        // Interpreters are total and tested to be. Should one panic all the same, it costs this delivery only.
        match catch_unwind(AssertUnwindSafe(|| source.interpreter.interpret(delivery))) {
            Err(_) => Reading::Parked("its interpreter panicked; this is a bug of rollcall's".to_owned()),
            Ok(Err(misshapen)) => Reading::Parked(misshapen.to_string()),
            Ok(Ok(meaning)) => {
                let told = !meaning.changes.is_empty();
                let (changes, foreign) = source.place(meaning.changes);
                match (changes.is_empty(), foreign) {
                    (false, _) => Reading::Told { changes, note: meaning.note, when: meaning.when },
                    (true, Some(foreign)) if told => Reading::Ignored(foreign),
                    (true, _) => Reading::Ignored(meaning.note.unwrap_or_else(|| "nothing about access".to_owned())),
                }
            }
        }
    }
}

impl WorkerSource {
    /// What a roster of this source showed.
    fn observed(&self, observed: Observed) -> Reading {
        let strange = |account: &AccountKey| account.provider != self.provider || account.host != self.host;
        if observed.observations.iter().any(|observation| strange(&observation.account.key)) {
            return Reading::Parked("it observed accounts of another host than its source's".to_owned());
        }
        let note = observed.note();
        let mut changes = Vec::with_capacity(observed.observations.len());
        for observation in observed.observations {
            let (placed, foreign) = self.place(vec![observation.change()]);
            if let Some(foreign) = foreign {
                return Reading::Ignored(foreign);
            }
            changes.extend(placed.into_iter().map(|placed| Placed { turn: Some(observation.turn), ..placed }));
        }
        Reading::Told { changes, note: Some(note), when: When::from(observed.at) }
    }

    /// Places changes; those outside the roots are left out, and the first of them is said.
    fn place(&self, changes: Vec<Change>) -> (Vec<Placed>, Option<String>) {
        let mut foreign = None;
        let mut placed = Vec::with_capacity(changes.len());
        for change in changes {
            let (top_is_root, connection) = match change.scope() {
                None => (false, None),
                Some(scope) => match place(&self.roots, scope) {
                    Place::Foreign => {
                        foreign.get_or_insert_with(|| format!("{} is outside the scopes of this source", shown(scope)));
                        continue;
                    }
                    Place::Root => (true, self.connection(scope)),
                    Place::Part => (self.in_root(scope), self.connection(scope)),
                },
            };
            placed.push(Placed {
                change,
                connection,
                host: self.host.clone(),
                top_is_root,
                mass_change_limit: self.mass_change_limit,
                turn: None,
            });
        }
        (placed, foreign)
    }

    fn connection(&self, scope: &Scope) -> Option<ConnectionRef> {
        self.connections.of(scope.top_id(), scope.top_name())
    }

    fn in_root(&self, scope: &Scope) -> bool {
        scope.root.as_ref().is_some_and(|(id, name)| {
            place(&self.roots, &Scope { id: id.clone(), name: name.clone(), root: None }) == Place::Root
        })
    }
}

fn shown(scope: &Scope) -> String {
    let kind = scope.top_id().kind.as_str();
    scope.top_name().map_or_else(|| scope.top_id().to_string(), |name| format!("{kind}:{name}"))
}
