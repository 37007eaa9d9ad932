//! What a sweep finds: how accounts stand in the ledger, compared with what the platform has. Pure.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;

use crate::delivery::Timestamp;
use crate::drata::Person;
use crate::ledger::learned::IdentityForm;
use crate::ledger::show::accounts::State;
use crate::ledger::sweep::{Mark, Standing};
use crate::ledger::work::DRY_RUN;
use crate::reconcile::identity::{Found, Matches, Sought};
use crate::reconcile::{Drift, drifted};
use crate::target::{Identity, IdentityRef, LinkStatus, PersonFrom, PersonId, PersonRef};

/// What was found of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It waited for its identity, which has appeared.
    IdentityAppeared,
    /// It waited for its person, who has been found.
    PersonFound,
    /// It waited, and somebody has linked it at the platform meanwhile.
    LinkedMeanwhile,
    /// It has waited for too long.
    WaitedTooLong,
    /// Somebody has set another status at the platform than the one that was applied.
    Drifted,
    /// Somebody had, and now it is as it should be.
    Returned,
    /// It was linked by somebody at the platform, who has changed that: nothing of rollcall's is concerned.
    Relinked,
    /// The platform no longer has its identity.
    Vanished,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::IdentityAppeared,
        Self::PersonFound,
        Self::LinkedMeanwhile,
        Self::WaitedTooLong,
        Self::Drifted,
        Self::Returned,
        Self::Relinked,
        Self::Vanished,
    ];

    /// The word used everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IdentityAppeared => "identity_appeared",
            Self::PersonFound => "person_found",
            Self::LinkedMeanwhile => "linked_meanwhile",
            Self::WaitedTooLong => "waited_too_long",
            Self::Drifted => "drifted",
            Self::Returned => "returned",
            Self::Relinked => "relinked",
            Self::Vanished => "vanished",
        }
    }
}

/// What was found of one account, and what is to be marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding<'a> {
    /// How it stood.
    pub standing: &'a Standing,
    /// What was found.
    pub kind: Kind,
    /// What is to be marked.
    pub mark: Mark,
    /// One sentence for people.
    pub told: String,
}

/// Everything that the platform has in one connection, in a form in which it is found quickly.
#[derive(Debug)]
pub struct Platform {
    identities: Vec<Identity>,
    by_row: HashMap<IdentityRef, usize>,
    by_label: HashMap<String, Vec<usize>>,
    form: Option<IdentityForm>,
}

impl Platform {
    /// What was listed; and the form of identity ids, if it is known.
    #[must_use]
    pub fn new(identities: Vec<Identity>, form: Option<IdentityForm>) -> Self {
        let by_row = identities.iter().enumerate().map(|(n, identity)| (identity.id, n)).collect();
        let mut by_label: HashMap<String, Vec<usize>> = HashMap::new();
        for (n, identity) in identities.iter().enumerate() {
            for label in [&identity.identity_id, &identity.username].into_iter().flatten() {
                by_label.entry(label.to_lowercase()).or_default().push(n);
            }
        }
        Self { identities, by_row, by_label, form }
    }

    /// The form of identity ids that an account shows by an exact match, if none is known yet.
    pub(super) fn shows_form(&self, standings: &[Standing]) -> Option<IdentityForm> {
        let shows = |standing: &Standing| match self.find(&Standing { identity: None, ..standing.clone() }) {
            Found::One(_, form) => form,
            Found::None | Found::Unclear(_) => None,
        };
        standings.iter().filter(|_| self.form.is_none()).find_map(shows)
    }

    /// Keeps to a form of identity ids.
    #[must_use]
    pub(super) fn of_form(self, form: IdentityForm) -> Self {
        Self { form: Some(form), ..self }
    }

    /// How many identities there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.identities.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.identities.is_empty()
    }

    /// The identity of an account, if it is clear which one that is.
    #[must_use]
    pub fn identity_of(&self, standing: &Standing) -> Option<Identity> {
        match self.find(standing) {
            Found::One(identity, _) => Some(identity),
            Found::None | Found::Unclear(_) => None,
        }
    }

    /// The identity of an account, as a look-up would find it.
    pub(crate) fn find(&self, standing: &Standing) -> Found {
        if let Some(known) = standing.identity.and_then(|row| self.by_row.get(&row)) {
            return Found::One(self.identities[*known].clone(), None);
        }
        let account = &standing.account;
        let sought = Sought { account, login_is_its_own: standing.login_is_its_own };
        let labels = [Some(&account.key.id), account.node_id.as_ref(), account.login.as_ref()];
        let mut matches = Matches::default();
        for label in labels.into_iter().flatten() {
            for n in self.by_label.get(&label.to_lowercase()).into_iter().flatten() {
                matches.add(&self.identities[*n], sought, self.form);
            }
        }
        matches.found()
    }
}

/// The people of the platform, by e-mail address.
#[derive(Debug)]
pub struct Persons(HashMap<String, PersonId>);

impl Persons {
    /// Those that have an address.
    #[must_use]
    pub fn new(people: &[Person]) -> Self {
        let by_email = |person: &Person| Some((person.email.as_deref()?.trim().to_lowercase(), person.id));
        Self(people.iter().filter_map(by_email).collect())
    }

    fn find(&self, email: &str) -> Option<PersonId> {
        self.0.get(&email.trim().to_lowercase()).copied()
    }
}

/// What there is to know of an account that waits: whom an operator or the people map names, if they do.
pub type Named = HashMap<i64, Option<PersonRef>>;

/// How to compare.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// What happens when somebody has changed a link at the platform.
    pub drift: Drift,
    /// How long an account may wait.
    pub deadline: Duration,
    /// When the accounts were read.
    pub now: Timestamp,
}

/// Compares how accounts stand with what the platform has. `named` has, by status row, those of which an operator or the
/// people map says whose they are; without `persons` nobody is found by e-mail address.
#[must_use]
pub fn compare<'a>(
    standings: &'a [Standing],
    platform: &Platform,
    named: &Named,
    persons: Option<&Persons>,
    rules: Rules,
) -> Vec<Finding<'a>> {
    let compared = standings.iter().filter_map(|standing| {
        let (kind, mark, told) = if awaits(standing) {
            waiting(standing, platform, named.get(&standing.status), persons, rules)
        } else if standing.state == State::Settled && standing.at_rest {
            settled(standing, platform, rules.drift)
        } else {
            // Somebody is on it, or will be soon: that is newer than what a list says.
            None
        }?;
        Some(Finding { standing, kind, mark, told })
    });
    compared.collect()
}

/// Whether an account waits for something, or has given that up.
pub(crate) fn awaits(standing: &Standing) -> bool {
    let given_up = standing.state == State::Parked && standing.waiting_since.is_some();
    // What only a dry run holds back isn't waiting for anything that could come.
    let dry_run = standing.reason.as_ref().is_some_and(|reason| reason.starts_with(DRY_RUN));
    (standing.state == State::Waiting && !dry_run) || given_up
}

type Told = Option<(Kind, Mark, String)>;

fn waiting(
    standing: &Standing,
    platform: &Platform,
    named: Option<&Option<PersonRef>>,
    persons: Option<&Persons>,
    rules: Rules,
) -> Told {
    let too_long = || {
        let since = standing.waiting_since.filter(|_| standing.state == State::Waiting)?;
        let over = since.plus(rules.deadline) <= rules.now;
        let long = humantime::format_duration(rules.deadline);
        over.then(|| (Kind::WaitedTooLong, Mark::Due { read: None }, format!("it has waited for more than {long}")))
    };
    let identity = match platform.find(standing) {
        Found::One(identity, _) if !identity.service_account => identity,
        Found::One(..) => {
            let told = "its identity has appeared, marked as a service account".to_owned();
            return standing.identity.is_none().then_some((Kind::IdentityAppeared, Mark::Due { read: None }, told));
        }
        Found::None | Found::Unclear(_) => return too_long(),
    };
    let read = Some((identity.id, identity.status()));
    let due = |kind, told: String| Some((kind, Mark::Due { read }, told));
    if standing.identity.is_none() {
        return due(Kind::IdentityAppeared, format!("its identity has appeared ({})", identity.id));
    }
    let person = match named {
        Some(Some(PersonRef::Id(id))) => Some(*id),
        Some(Some(PersonRef::Email(email))) => persons.and_then(|persons| persons.find(email)),
        // It is nobody's: all that it could wait for is its identity.
        Some(None) => return due(Kind::PersonFound, "it is nobody's".to_owned()),
        None => [&standing.account.email, &identity.email]
            .into_iter()
            .flatten()
            .find_map(|email| persons.and_then(|persons| persons.find(email))),
    };
    match (person, identity.person) {
        // Only somebody's word overrides a link: as long as there is none it goes on waiting.
        (Some(person), Some(other)) if person != other && named.is_none() => too_long(),
        (Some(person), _) => due(Kind::PersonFound, format!("its person has been found ({person})")),
        (None, Some(person)) if named.is_none() => {
            due(Kind::LinkedMeanwhile, format!("somebody has linked it to person {person} at the platform"))
        }
        (None, _) => too_long(),
    }
}

fn settled(standing: &Standing, platform: &Platform, drift: Drift) -> Told {
    // Where rollcall leaves the link as it is, nothing of its own can drift.
    let (applied, known, row) = (standing.desired?, standing.actual?, standing.identity?);
    let Some(identity) = platform.by_row.get(&row).map(|n| &platform.identities[*n]) else {
        let told = "the platform no longer has its identity".to_owned();
        return matches!(applied, LinkStatus::Linked(_)).then_some((Kind::Vanished, Mark::Unknown, told));
    };
    if identity.service_account {
        return None;
    }
    let found = identity.status();
    if standing.person_from == Some(PersonFrom::Platform) {
        let told = format!("it was {known} by somebody at the platform, and is {found} now");
        return (found != known).then_some((Kind::Relinked, Mark::Unknown, told));
    }
    if found == applied {
        let told = format!("it is {found} again at the platform");
        return (standing.drifted_at.is_some() || known != found).then_some((
            Kind::Returned,
            Mark::Returned(found),
            told,
        ));
    }
    match drift {
        Drift::Correct => {
            let told = format!("it is {found} at the platform, where rollcall had it {applied}; that is corrected");
            Some((Kind::Drifted, Mark::Unknown, told))
        }
        Drift::Report if standing.drifted_at.is_some() && known == found => None,
        Drift::Report => Some((Kind::Drifted, Mark::Drifted(found), drifted(found, applied))),
    }
}

#[cfg(test)]
mod tests;
