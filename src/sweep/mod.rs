//! The sweep: all accounts at once, compared with what the platform has, in as few calls as its lists have pages.
//!
//! Webhooks come before the platform knows an account, and tell nothing of what people do at the platform. So on a schedule
//! every account that waits is looked for in the lists, and every one that was brought to its status is compared with them.
//! A sweep changes nothing at the platform and settles nothing: it marks accounts as due or as drifted, and the reconciler
//! does what there is to do.
//!
//! * [`mod@compare`]: what it finds, as a pure function.

pub mod compare;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use self::compare::{Finding, Kind, Named, Persons, Platform, Rules, awaits, compare};
use crate::backoff::Backoff;
use crate::drata::Client;
use crate::ledger::show::AccountLabel;
use crate::ledger::sweep::Standing;
use crate::ledger::{Ledger, LedgerError};
use crate::people::People;
use crate::reconcile::{Policies, identity};
use crate::target::{ConnectionRef, Failure};
use crate::telemetry::metrics as names;

/// How often a halt is looked at that stands in the way.
const HALTED: Duration = Duration::from_secs(15);
/// How often the platform is asked again when it fails, and how long after that.
const TRIES: u32 = 6;
const AGAIN: Backoff = Backoff { first: Duration::from_secs(10), longest: Duration::from_mins(5) };

/// Why a sweep couldn't be done.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The platform failed or refused.
    #[error("the platform's list of {what}: {why}")]
    Platform {
        /// What was listed.
        what: &'static str,
        /// Why.
        why: Failure,
    },
    /// Calls to the platform are halted.
    #[error("calls to the platform stand still: {0}")]
    Halted(String),
}

impl SweepError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Ledger(error) => error.is_transient(),
            Self::Platform { why, .. } => why.is_transient(),
            Self::Halted(_) => true,
        }
    }
}

/// What sweeps.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// The ledger.
    pub ledger: Ledger,
    /// The platform.
    pub client: Client,
    /// Whose accounts are.
    pub people: People,
    /// What is to be done in each connection.
    pub policies: Policies,
    /// How long an account may wait.
    pub deadline: Duration,
}

/// What a sweep has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Each connection.
    pub connections: Vec<Swept>,
    /// Why nobody was looked for by e-mail address, if that was so.
    pub people_unlisted: Option<String>,
    /// Whether nothing was marked.
    pub dry_run: bool,
}

/// What a sweep has come to in one connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// The connection.
    pub connection: String,
    /// How many accounts the ledger has there.
    pub accounts: usize,
    /// How many identities the platform has there.
    pub identities: usize,
    /// How many accounts wait on: what they wait for hasn't come.
    pub still_waiting: usize,
    /// How many drifted accounts are left as somebody has set them, with those of earlier sweeps.
    pub drifted: usize,
    /// What was found.
    pub findings: Vec<Found>,
    /// How many were marked: the others have changed while the platform was asked.
    pub marked: usize,
    /// Why it can't be told which connection is meant, if it can't.
    pub unclear: Option<String>,
}

/// What was found of one account, for people and machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The account.
    #[serde(flatten)]
    pub account: AccountLabel,
    /// What was found.
    pub finding: Kind,
    /// One sentence for people.
    pub told: String,
}

impl Report {
    /// How much was found, by kind.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Kind, usize> {
        let mut counts = BTreeMap::new();
        for found in self.connections.iter().flat_map(|swept| &swept.findings) {
            *counts.entry(found.finding).or_default() += 1;
        }
        counts
    }
}

impl fmt::Display for Report {
    /// As a job's result: `120 accounts: 3 identity_appeared, 1 drifted`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accounts: usize = self.connections.iter().map(|swept| swept.accounts).sum();
        let counts: Vec<String> =
            self.counts().into_iter().map(|(kind, count)| format!("{count} {}", kind.as_str())).collect();
        let found = if counts.is_empty() { "nothing to do".to_owned() } else { counts.join(", ") };
        write!(f, "{accounts} accounts: {found}")
    }
}

impl Sweep {
    /// Sweeps every connection, patiently: a halt is waited for, and what fails is tried again.
    ///
    /// # Errors
    /// If it fails for good, or too often.
    pub async fn patiently(&self) -> Result<Report, SweepError> {
        let mut failures = 0;
        loop {
            let swept = self.once(None, false).await;
            let result = if swept.is_ok() { "done" } else { "failed" };
            match swept {
                Err(SweepError::Halted(why)) => {
                    tracing::info!(why, "a sweep waits for the end of a halt");
                    tokio::time::sleep(HALTED).await;
                }
                Err(error) if error.is_transient() && failures + 1 < TRIES => {
                    tracing::warn!(%error, "a sweep failed; trying again");
                    tokio::time::sleep(AGAIN.pause(failures, fastrand::f64())).await;
                    failures += 1;
                }
                ended => {
                    metrics::counter!(names::SWEEPS, "result" => result).increment(1);
                    return ended;
                }
            }
        }
    }

    /// Sweeps once: these connections, else all of them. With `dry_run` nothing is marked.
    ///
    /// # Errors
    /// If the ledger or the platform fails, or a halt stands.
    pub async fn once(&self, only: Option<&[ConnectionRef]>, dry_run: bool) -> Result<Report, SweepError> {
        if let Some(halt) = self.ledger.in_time(self.ledger.halt()).await? {
            return Err(SweepError::Halted(halt.reason));
        }
        let mut report = Report { dry_run, ..Report::default() };
        let mut persons = None;
        for connection in self.policies.connections() {
            if only.is_none_or(|only| only.contains(connection)) {
                report.connections.push(self.connection(connection, &mut persons, dry_run).await?);
            }
        }
        report.people_unlisted = persons.and_then(Result::err);
        Ok(report)
    }

    /// Sweeps one connection. The people are listed once for all, when they are first needed.
    async fn connection(
        &self,
        connection: &ConnectionRef,
        persons: &mut Option<Result<Persons, String>>,
        dry_run: bool,
    ) -> Result<Swept, SweepError> {
        // Before the platform is asked: what is done after that is newer than what its lists say.
        let (now, standings) = self.ledger.in_time(self.ledger.standings(connection)).await?;
        let (platform, unclear) = match self.platform(connection, &standings, dry_run).await? {
            Ok(platform) => (platform, None),
            Err(unclear) => (Platform::new(Vec::new(), None), Some(unclear)),
        };
        let mut swept = Swept {
            connection: connection.to_string(),
            accounts: standings.len(),
            identities: platform.len(),
            still_waiting: 0,
            drifted: 0,
            findings: Vec::new(),
            marked: 0,
            unclear,
        };
        if swept.unclear.is_some() {
            return Ok(swept);
        }
        let named = self.named(&standings).await?;
        if persons.is_none() && standings.iter().any(|standing| awaits(standing) && standing.identity.is_some()) {
            *persons = Some(self.persons().await?);
        }
        let persons = persons.as_ref().and_then(|persons| persons.as_ref().ok());
        let drift = self.policies.of(connection).map(|policy| policy.drift).unwrap_or_default();
        let rules = Rules { drift, deadline: self.deadline, now };
        let findings = compare(&standings, &platform, &named, persons, rules);
        let of = |kind| findings.iter().filter(|found| found.kind == kind).count();
        let waiting = standings.iter().filter(|standing| awaits(standing)).count();
        let come = of(Kind::IdentityAppeared) + of(Kind::PersonFound) + of(Kind::LinkedMeanwhile);
        swept.still_waiting = waiting - come;
        let known = standings.iter().filter(|standing| standing.drifted_at.is_some()).count();
        let told_already = |found: &&Finding<'_>| found.standing.drifted_at.is_some();
        let gone = findings.iter().filter(told_already).filter(|found| !is_left(found)).count();
        let new = findings.iter().filter(|found| is_left(found) && found.standing.drifted_at.is_none()).count();
        swept.drifted = known - gone + new;
        if !dry_run {
            for found in &findings {
                metrics::counter!(names::SWEEP_FINDINGS, "finding" => found.kind.as_str()).increment(1);
                tracing::info!(
                    account = %found.standing.account.key, connection = %connection,
                    finding = found.kind.as_str(), "swept: {}", found.told
                );
            }
            let marks: Vec<_> =
                findings.iter().map(|found| (found.standing, found.mark, Some(found.told.clone()))).collect();
            swept.marked = self.ledger.in_time(self.ledger.mark(&marks)).await?;
        }
        swept.findings = findings.into_iter().map(Found::of).collect();
        Ok(swept)
    }

    /// What the platform has in a connection; or why it can't be told which one is meant.
    async fn platform(
        &self,
        connection: &ConnectionRef,
        standings: &[Standing],
        dry_run: bool,
    ) -> Result<Result<Platform, String>, SweepError> {
        let filter = match identity::filter(&self.client, connection).await.map_err(failed("connections"))? {
            Ok(filter) => filter,
            Err(unclear) => return Ok(Err(unclear)),
        };
        let identities = self.client.find_identities(&filter, None).await.map_err(failed("identities"))?;
        let platform = Platform::new(identities, self.ledger.identity_form(connection).await?);
        Ok(Ok(match platform.shows_form(standings) {
            Some(form) => {
                if !dry_run {
                    self.ledger.learn_identity_form(connection, form).await?;
                }
                platform.of_form(form)
            }
            None => platform,
        }))
    }

    /// Whom an operator or the people map names for those that wait.
    async fn named(&self, standings: &[Standing]) -> Result<Named, LedgerError> {
        let mut named = Named::new();
        for standing in standings.iter().filter(|standing| awaits(standing)) {
            if let Some(mapped) = self.people.mapped(&self.ledger, standing.account_row, &standing.account).await? {
                named.insert(standing.status, mapped.person);
            }
        }
        Ok(named)
    }

    /// All people; or why the key may not list them. Then those whose person is awaited are looked at one by one, as the
    /// reconciler does anyway.
    async fn persons(&self) -> Result<Result<Persons, String>, SweepError> {
        match self.client.people().await {
            Ok(people) => Ok(Ok(Persons::new(&people))),
            Err(why) if matches!(why.status, Some(403 | 404)) => Ok(Err(why.message)),
            Err(why) => Err(SweepError::Platform { what: "people", why }),
        }
    }
}

fn failed(what: &'static str) -> impl FnOnce(Failure) -> SweepError + Send {
    move |why| SweepError::Platform { what, why }
}

/// Whether it has drifted and is left as it is.
fn is_left(found: &Finding<'_>) -> bool {
    matches!(found.mark, crate::ledger::sweep::Mark::Drifted(_))
}

impl Found {
    fn of(found: Finding<'_>) -> Self {
        let account = &found.standing.account;
        Self {
            account: AccountLabel { key: account.key.clone(), login: account.login.clone() },
            finding: found.kind,
            told: found.told,
        }
    }
}
