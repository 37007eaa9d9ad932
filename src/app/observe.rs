//! What the ledger shows from the outside: gauges and the parts of `/health` that can't answer at once. Every few seconds
//! they are read from it; no query here grows with the number of deliveries that are done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::broker::{Health, SharedBroker, State};
use crate::delivery::{SourceName, Timestamp};
use crate::ingress::admin::HealthOf;
use crate::jobs::FAILED;
use crate::ledger::balance::Gap;
use crate::ledger::health::{Activity, Trouble};
use crate::ledger::outcome::Outcome;
use crate::ledger::recoveries::Irrecoverable;
use crate::ledger::{Ledger, LedgerError};
use crate::recover;
use crate::telemetry::metrics as names;

/// How often gauges and health are brought up to date.
const EVERY: Duration = Duration::from_secs(5);
/// For how long health tells of what can't be recovered any more.
const LATELY: Duration = Duration::from_hours(7 * 24);
/// The names of parts.
pub(super) const LEDGER: &str = "ledger";
pub(super) const RECORDING: &str = "recording";
pub(super) const BALANCE: &str = "balance";
pub(super) const DRIFT: &str = "drift";

/// How parts were when they were last asked. A part of which nothing is said is well.
#[derive(Debug)]
pub(super) struct Observed {
    began: Timestamp,
    unwell: Mutex<BTreeMap<String, Health>>,
}

impl Observed {
    pub(super) const fn new(began: Timestamp) -> Self {
        Self { began, unwell: Mutex::new(BTreeMap::new()) }
    }

    pub(super) fn part(self: Arc<Self>, name: &str) -> HealthOf {
        let name = name.to_owned();
        Arc::new(move || {
            let unwell = self.unwell.lock().unwrap_or_else(PoisonError::into_inner);
            unwell.get(&name).cloned().unwrap_or(Health { state: State::Ok, reason: None, since: self.began })
        })
    }

    fn set(&self, unwell: BTreeMap<String, Health>) {
        *self.unwell.lock().unwrap_or_else(PoisonError::into_inner) = unwell;
    }
}

/// How the ledger is for those who write to it and read it.
pub(super) fn ledger_part(ledger: Ledger, began: Timestamp) -> HealthOf {
    Arc::new(move || match ledger.trouble() {
        Some(Trouble { since, reason }) => Health { state: State::Down, reason: Some(reason), since },
        None => Health { state: State::Ok, reason: None, since: began },
    })
}

/// Reads the ledger every few seconds.
pub(super) struct Observer {
    ledger: Ledger,
    broker: SharedBroker,
    sources: Vec<SourceName>,
    /// The sources whose rosters are read.
    rosters: BTreeSet<String>,
    missing_after: Duration,
    observed: Arc<Observed>,
    /// What is missing, as far as is known.
    missing: Vec<Gap>,
    /// The gaps that were logged.
    alarms: BTreeSet<(String, String, i64, i64)>,
    /// Since when drifted accounts are known of.
    drifted_since: Option<Timestamp>,
}

impl Observer {
    pub(super) const fn new(
        ledger: Ledger,
        broker: SharedBroker,
        sources: Vec<SourceName>,
        rosters: BTreeSet<String>,
        missing_after: Duration,
        observed: Arc<Observed>,
    ) -> Self {
        Self {
            ledger,
            broker,
            sources,
            rosters,
            missing_after,
            observed,
            missing: Vec::new(),
            alarms: BTreeSet::new(),
            drifted_since: None,
        }
    }

    pub(super) async fn run(mut self, token: CancellationToken) {
        let mut tick = tokio::time::interval(EVERY.min(self.missing_after));
        while token.run_until_cancelled(tick.tick()).await.is_some() {
            let ledger = self.ledger.clone();
            // Each failure is kept by the ledger itself, for its part of health.
            if let Err(error) = ledger.watched(Activity::Tables, ledger.check_tables()).await {
                tracing::warn!(%error, "the ledger's tables can't be used as they should be");
                if matches!(error, LedgerError::Silent { .. }) {
                    // All that is read now would wait for as long as it may, and the tables for that.
                    continue;
                }
            }
            match ledger.watched(Activity::Observing, self.once()).await {
                Ok(unwell) => self.observed.set(unwell),
                Err(error) => tracing::warn!(
                    %error,
                    "the ledger can't be read for all gauges and health; what can't be told stays as it was last seen"
                ),
            }
        }
    }

    /// Brings up to date whatever can be, and returns what is unwell, or the first error.
    async fn once(&mut self) -> Result<BTreeMap<String, Health>, LedgerError> {
        let mut unwell = BTreeMap::new();
        let told = [
            self.accounts(&mut unwell).await,
            self.seals().await,
            self.open_deliveries().await,
            self.blind(&mut unwell).await,
            self.recovered(&mut unwell).await,
            self.rosters(&mut unwell).await,
            self.missing(&mut unwell).await,
        ];
        told.into_iter().collect::<Result<(), _>>()?;
        Ok(unwell)
    }

    async fn accounts(&mut self, unwell: &mut BTreeMap<String, Health>) -> Result<(), LedgerError> {
        let counts = self.ledger.counts().await?;
        for (name, count) in [
            (names::DUE_ACCOUNTS, counts.due),
            (names::WAITING_ACCOUNTS, counts.waiting),
            (names::PARKED_ACCOUNTS, counts.parked),
            (names::WOULD_APPLY_ACCOUNTS, counts.would_apply),
            (names::DRIFTED_ACCOUNTS, counts.drifted),
            (names::UNREADABLE_MESSAGES, counts.unreadable),
        ] {
            metrics::gauge!(name).set(number(count));
        }
        unwell.extend(self.drift(counts.drifted).map(|health| (DRIFT.to_owned(), health)));
        Ok(())
    }

    async fn seals(&self) -> Result<(), LedgerError> {
        if let Some(head) = self.ledger.head().await? {
            metrics::gauge!(names::SEALS).set(number(head.number));
            metrics::gauge!(names::SEAL_HEAD).set(head.hash.beginning());
        }
        Ok(())
    }

    async fn blind(&self, unwell: &mut BTreeMap<String, Health>) -> Result<(), LedgerError> {
        unwell.extend(self.ledger.blind_sources().await?.into_iter().map(blind));
        Ok(())
    }

    async fn missing(&mut self, unwell: &mut BTreeMap<String, Health>) -> Result<(), LedgerError> {
        // Without the broker nothing arrives: a delivery is only missing when it had the time to.
        let broker = self.broker.health();
        let arrives = broker.state != State::Down && Timestamp::now().since(broker.since) >= self.missing_after;
        if arrives {
            self.missing = self.ledger.missing(self.missing_after).await?;
        }
        unwell.extend(self.balance().map(|health| (BALANCE.to_owned(), health)));
        Ok(())
    }

    /// What providers failed to deliver, and what of that can't be had any more.
    async fn recovered(&self, unwell: &mut BTreeMap<String, Health>) -> Result<(), LedgerError> {
        let counts = self.ledger.recovery_counts().await?;
        for source in &self.sources {
            let of_source = counts.get(source.as_str()).copied().unwrap_or_default();
            for (name, count) in [
                (names::RECOVER_REQUESTED, of_source.requested),
                (names::RECOVER_RECOVERED, of_source.recovered),
                (names::RECOVER_MISSING, of_source.missing),
            ] {
                metrics::gauge!(name, "source" => source.to_string()).set(number(count));
            }
        }
        let mut degrade = |source: &str, since: Timestamp, what: String| {
            let part = format!("source:{source}");
            let reason = match unwell.remove(&part).and_then(|known| known.reason) {
                Some(known) => format!("{known}; {what}"),
                None => what,
            };
            unwell.insert(part, Health { state: State::Degraded, reason: Some(reason), since });
        };
        for (source, Irrecoverable { since, what }) in self.ledger.irrecoverable(LATELY).await? {
            degrade(&source, since, format!("{what}; `rollcall gaps --source {source}` tells more"));
        }
        for job in self.ledger.jobs().await? {
            let failure = job.result.as_deref().and_then(|result| result.strip_prefix(FAILED));
            if let (Some(source), Some(why)) = (job.name.strip_prefix(recover::schedule::JOB), failure) {
                let since = job.ended_at.unwrap_or(job.due_at);
                degrade(source, since, format!("nobody can look at what it fails to deliver: {why}"));
            }
        }
        Ok(())
    }

    /// Gauges of what isn't done yet, for every source, so that they fall to zero when all is.
    async fn open_deliveries(&self) -> Result<(), LedgerError> {
        let open = self.ledger.open_deliveries().await?;
        for source in &self.sources {
            for outcome in Outcome::OPEN {
                let found = open.iter().find(|open| open.source == source.as_str() && open.outcome == outcome);
                let labels = [("source", source.to_string()), ("outcome", outcome.to_string())];
                metrics::gauge!(names::OPEN_DELIVERIES, &labels).set(number(found.map_or(0, |open| open.count)));
            }
        }
        let oldest = self.ledger.oldest_unapplied().await?;
        for source in &self.sources {
            for outcome in Outcome::UNAPPLIED {
                let found = oldest.iter().find(|oldest| oldest.source == source.as_str() && oldest.outcome == outcome);
                let labels = [("source", source.to_string()), ("outcome", outcome.to_string())];
                metrics::gauge!(names::OLDEST_UNAPPLIED, &labels)
                    .set(found.map_or(0.0, |oldest| oldest.age.as_secs_f64()));
            }
        }
        Ok(())
    }

    /// What somebody has changed at the platform is nobody's fault here, and an operator's to decide.
    fn drift(&mut self, drifted: i64) -> Option<Health> {
        if drifted == 0 {
            self.drifted_since = None;
            return None;
        }
        let since = *self.drifted_since.get_or_insert_with(Timestamp::now);
        let reason = format!(
            "{drifted} accounts were linked otherwise at the platform than rollcall had; `rollcall accounts --drifted` lists them"
        );
        Some(Health { state: State::Degraded, reason: Some(reason), since })
    }

    /// How old rosters are, and which of them can't be read.
    async fn rosters(&self, unwell: &mut BTreeMap<String, Health>) -> Result<(), LedgerError> {
        if self.rosters.is_empty() {
            return Ok(());
        }
        let now = self.ledger.now().await?;
        for row in self.ledger.rosters().await?.into_iter().filter(|row| self.rosters.contains(&row.source)) {
            let labels = [("source", row.source.clone()), ("root", row.root.clone())];
            metrics::gauge!(names::ROSTER_PENDING, &labels).set(number(row.differences));
            if let Some(read_at) = row.read_at {
                metrics::gauge!(names::ROSTER_AGE, &labels).set(now.since(read_at).as_secs_f64());
            }
            if let Some((since, why)) = row.failed_at.zip(row.failure) {
                let reason = Some(format!("its roster can't be read ({}): {why}", row.root));
                let health = Health { state: State::Degraded, reason, since };
                unwell.entry(format!("source:{}", row.source)).or_insert(health);
            }
        }
        Ok(())
    }

    /// Says once of each gap that it is missing, and once that it has been filled.
    fn balance(&mut self) -> Option<Health> {
        let missing = self.missing.as_slice();
        for source in &self.sources {
            let of_source = missing.iter().filter(|gap| gap.source == source.as_str()).map(Gap::count).sum();
            metrics::gauge!(names::MISSING_DELIVERIES, "source" => source.to_string()).set(number(of_source));
        }
        let now: BTreeSet<_> =
            missing.iter().map(|gap| (gap.run.clone(), gap.source.clone(), gap.first, gap.last)).collect();
        for gap in missing {
            if !self.alarms.contains(&(gap.run.clone(), gap.source.clone(), gap.first, gap.last)) {
                tracing::error!(
                    source = gap.source,
                    run = gap.run,
                    first = gap.first,
                    last = gap.last,
                    accepted = gap.accepted,
                    "deliveries are missing: {gap}"
                );
            }
        }
        for (run, source, first, last) in self.alarms.difference(&now) {
            tracing::info!(source, run, first, last, "what was missing has arrived, or less is missing than before");
        }
        self.alarms = now;
        let oldest = missing.iter().min_by_key(|gap| gap.since)?;
        let count: i64 = missing.iter().map(Gap::count).sum();
        let reason = format!("{count} missing; the oldest: {oldest}; `rollcall balance` lists all");
        Some(Health { state: State::Degraded, reason: Some(reason), since: oldest.since })
    }
}

fn blind((source, reason, since): (String, Option<String>, Timestamp)) -> (String, Health) {
    (format!("source:{source}"), Health { state: State::Degraded, reason, since })
}

fn number(count: i64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
