//! Rosters: who *really* has access, read from the provider's own API and put beside the ledger. What differs enters the
//! ledger as access changes. So missed webhooks come right, and providers that send none of memberships, and accounts from
//! before there was a rollcall.
//!
//! The way of one reading: [`read`] asks the questions of the provider's [`Roster`] until the roster is whole, [`mod@compare`]
//! says what differs and what of that counts already, and what counts is recorded as deliveries of rollcall's own making
//! ([`crate::access::observation`]). What doesn't count yet is remembered until the next reading.

pub mod compare;
pub mod read;
mod schedule;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

pub use self::read::RosterError;
pub use self::schedule::run;

use self::compare::{Difference, Nature, ReadingTimes, Verdict, compare, confirm, shown};
use crate::access::observation::{EVENT, Observed};
use crate::access::{AccessKind, RootPattern, Scope, ScopeKind};
use crate::api::Api;
use crate::delivery::{SourceName, Timestamp};
use crate::ledger::record::{Entry, Record};
use crate::ledger::{Ledger, LedgerError};
use crate::provider::roster::Roster;
use crate::reconcile::Policies;
use crate::target::ConnectionRef;
use crate::worker::{Connections, Reader};

/// How far a roster may lag behind the events: an observation counts from so long before its reading on.
pub const LAG: Duration = Duration::from_mins(5);

/// How many observations are recorded in one transaction at the most.
const BATCH: usize = 256;

/// A source whose rosters can be read.
#[derive(Debug)]
pub struct RosterSource {
    /// Its name.
    pub name: SourceName,
    /// Its provider's name in the registry.
    pub provider: &'static str,
    /// Its host.
    pub host: String,
    /// The way to the provider's API.
    pub api: Api,
    /// Which questions to ask.
    pub roster: Box<dyn Roster>,
    /// The configured roots; if there are none, those that events have spoken of.
    pub roots: Vec<RootPattern>,
    /// The connections of its roots.
    pub connections: Connections,
    /// Above so many losses at once an operator is asked.
    pub mass_change_limit: u32,
}

/// Reads rosters and records what they show.
#[derive(Clone, Debug)]
pub struct Rosters {
    /// The ledger.
    pub ledger: Ledger,
    /// Places what was observed towards the roots and connections of its source, as it does with every delivery.
    pub reader: Arc<Reader>,
    /// The roots of each connection.
    pub policies: Arc<Policies>,
    /// How far apart the two readings must lie that a difference needs.
    pub apart: Duration,
}

/// What one reading showed.
#[derive(Clone, Debug)]
pub struct Look {
    /// The root as it was asked for.
    pub root: RootPattern,
    /// The root itself.
    pub scope: Scope,
    /// When it was read.
    pub times: ReadingTimes,
    /// How many accounts have access.
    pub members: usize,
    /// What differs from the ledger.
    pub verdict: Verdict,
}

/// What a reading came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Recorded {
    /// How many accesses were recorded as gained.
    pub gained: usize,
    /// How many were recorded as lost.
    pub lost: usize,
    /// How many losses wait for an operator's yes.
    pub held: usize,
    /// How many differences must show in another reading.
    pub pending: usize,
    /// Whether an account became due.
    #[serde(skip)]
    pub due: bool,
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} gained, {} lost", self.gained, self.lost)?;
        if self.held > 0 {
            write!(f, ", {} held", self.held)?;
        }
        if self.pending > 0 {
            write!(f, ", {} to be seen again", self.pending)?;
        }
        Ok(())
    }
}

impl RosterSource {
    /// The roots to read.
    ///
    /// # Errors
    /// If there is none, or the ledger fails.
    pub async fn roots(&self, ledger: &Ledger) -> Result<Vec<RootPattern>, RosterError> {
        if !self.roots.is_empty() {
            return Ok(self.roots.clone());
        }
        let spoken = ledger.spoken_roots(self.provider, &self.host).await?;
        if spoken.is_empty() {
            let no_root = "no root is known whose roster could be read: none is configured, and no event has spoken of one \
                           yet; name it, as in scopes = [\"org:acme\"]";
            return Err(RosterError::None(no_root.to_owned()));
        }
        Ok(spoken)
    }

    fn connection(&self, root: &Scope) -> Option<ConnectionRef> {
        self.connections.of(&root.id, root.name.as_deref())
    }
}

impl Look {
    /// How many accounts lose access now that another reading has shown it.
    #[must_use]
    pub fn losses(&self) -> usize {
        losing(&self.verdict.confirmed).len()
    }
}

/// The accounts that lose access.
fn losing(differences: &[(Difference, Timestamp)]) -> BTreeSet<&str> {
    let lost = differences.iter().filter(|(difference, _)| difference.observed.access == AccessKind::Lost);
    lost.map(|(difference, _)| difference.observed.account.key.id.as_str()).collect()
}

impl Rosters {
    /// Reads a root's roster and compares it with the ledger. Changes nothing.
    ///
    /// # Errors
    /// If the roster can't be read to its end, or the ledger fails.
    pub async fn look(&self, source: &RosterSource, root: &RootPattern) -> Result<Look, RosterError> {
        let began = self.ledger.now().await?;
        let whole = read::read(&source.api, source.roster.as_ref(), root).await?;
        let ended = self.ledger.now().await?;
        let connection = source.connection(&whole.root);
        let roots = |connection: &ConnectionRef| self.policies.roots(connection);
        let known = self
            .ledger
            .known_of_root(source.provider, &source.host, &whole.root.id, connection.as_ref(), &roots)
            .await?;
        let at = counts_from(began);
        let differences = compare(&whole, &known, Nature::from(source.roster.as_ref()), at);
        let before = self.ledger.shown_before(&source.name, root).await?;
        let times = ReadingTimes { began, ended };
        let verdict = confirm(differences, &before, times, self.apart);
        Ok(Look { root: root.clone(), members: whole.accounts(), scope: whole.root, times, verdict })
    }

    /// Records what counts, and remembers what doesn't yet. With `import` an operator has said yes to whoever the ledger has
    /// never heard of: nothing is contradicted there.
    ///
    /// # Errors
    /// If the ledger fails.
    pub async fn record(&self, source: &RosterSource, look: Look, import: bool) -> Result<Recorded, LedgerError> {
        let Verdict { confirmed, pending } = look.verdict;
        let (imported, mut pending): (Vec<_>, Vec<_>) =
            pending.into_iter().partition(|(difference, _)| import && is_new(difference));
        let (losses, gains): (Vec<_>, Vec<_>) =
            confirmed.into_iter().partition(|(difference, _)| difference.observed.access == AccessKind::Lost);
        let gains = gains.into_iter().map(|(difference, first)| (difference, Some(first)));
        let gains: Vec<_> = gains.chain(imported.into_iter().map(|(difference, _)| (difference, None))).collect();
        let mut recorded = Recorded { gained: gains.len(), ..Recorded::default() };
        let observed = |differences: &[Difference], first_seen_at| Observed {
            at: counts_from(look.times.began),
            roster: name_of(&look.scope),
            first_seen_at,
            observations: differences.iter().map(|difference| difference.observed.clone()).collect(),
        };
        let mut observations: Vec<Observed> =
            gains.iter().map(|(difference, first)| observed(std::slice::from_ref(difference), *first)).collect();
        if losing(&losses).len() > usize::try_from(source.mass_change_limit).unwrap_or(usize::MAX) {
            // One question for all of them, and only one at a time.
            recorded.held = losses.len();
            if !self.ledger.is_held(&source.name, EVENT).await? {
                let first = losses.iter().map(|(_, first)| *first).min();
                let differences: Vec<Difference> = losses.iter().map(|(difference, _)| difference.clone()).collect();
                observations.push(observed(&differences, first));
            }
            pending.extend(losses);
        } else {
            recorded.lost = losses.len();
            let each = losses.iter().map(|(loss, first)| observed(std::slice::from_ref(loss), Some(*first)));
            observations.extend(each);
        }
        recorded.pending = pending.len() - recorded.held;
        recorded.due = self.tell(source, observations).await?;
        self.ledger.keep_reading(&source.name, &look.root, look.times.began, look.members, &shown(&pending)).await?;
        for (access, count) in [("gained", recorded.gained), ("lost", recorded.lost)] {
            let labels = [("source", source.name.to_string()), ("access", access.to_owned())];
            metrics::counter!(crate::telemetry::metrics::ROSTER_CHANGES, &labels)
                .increment(u64::try_from(count).unwrap_or(u64::MAX));
        }
        Ok(recorded)
    }

    /// Records observations as deliveries. Returns whether an account became due.
    async fn tell(&self, source: &RosterSource, observations: Vec<Observed>) -> Result<bool, LedgerError> {
        let now = self.ledger.now().await?;
        let mut due = false;
        let mut records = Vec::with_capacity(observations.len());
        for observed in observations {
            let delivery = observed
                .delivery(source.name.clone(), source.provider, Uuid::now_v7(), now)
                .map_err(|error| LedgerError::Unreadable(error.to_string()))?;
            let reading = self.reader.read(&delivery);
            records.push(Record::Delivery(Box::new(Entry { delivery, reading, approved: false })));
        }
        for batch in records.chunks(BATCH) {
            due |= self.ledger.record(batch).await?;
        }
        Ok(due)
    }
}

/// Whether a difference is a member of whom the ledger has never heard in that scope.
#[must_use]
pub fn is_new(difference: &Difference) -> bool {
    difference.observed.access == AccessKind::Gained && difference.ledger == compare::LedgerSays::Nothing
}

/// From when on what a reading shows counts.
fn counts_from(began: Timestamp) -> Timestamp {
    let lag = i64::try_from(LAG.as_micros()).unwrap_or(i64::MAX);
    began.plus_micros(-lag)
}

/// A root for people: `org:acme`.
#[must_use]
pub fn name_of(scope: &Scope) -> String {
    match &scope.name {
        _ if scope.id.kind == ScopeKind::Instance => "instance".to_owned(),
        Some(name) => format!("{}:{name}", scope.id.kind.as_str()),
        None => scope.id.to_string(),
    }
}
