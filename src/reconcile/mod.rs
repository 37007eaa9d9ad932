//! Reconcile: bring one account's actual status at the platform to its desired one.
//!
//! It takes due accounts from the ledger under a lease, works out what should be so *then*, and calls the platform only
//! if that differs from what is so. It always goes to the latest desired status, so that duplicates, reordering, replay
//! and old retries are harmless. It speaks [`crate::target`]'s words; only [`crate::drata`] knows Drata's.
//!
//! * [`look`]: one look at one account, from what is known to how it ended;
//! * [`identity`]: which identity at the platform an account is;
//! * [`policy`]: what the configuration decides;
//! * [`schedule`]: when to try again;
//! * [`progress`]: whether due accounts are worked on at all;
//! * [`gate`]: the halt, as this worker knows it, and the circuit breaker.

mod gate;
pub(crate) mod identity;
mod look;
mod policy;
mod progress;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

pub use self::policy::{Drift, OnAccessLost, Policies, Policy};
pub use self::schedule::Schedule;

use self::gate::Gate;
pub(crate) use self::look::drifted;
use self::look::{Ended, Look, Probe};
use self::progress::Progress;
use crate::backoff::Backoff;
use crate::broker::Health;
use crate::delivery::Timestamp;
use crate::drata::Client;
use crate::ledger::health::Activity;
use crate::ledger::work::{Held, Lease, Settled};
use crate::ledger::{Ledger, LedgerError};
use crate::people::People;
use crate::shutdown::{Tasks, caught};
use crate::telemetry::metrics as names;

/// How to reconcile.
#[derive(Clone, Debug)]
pub struct Settings {
    /// When to try again after transient failures.
    pub schedule: Schedule,
    /// How often an account that waits for something outside is looked at again.
    pub waiting: Duration,
    /// How long it may wait before it is parked.
    pub deadline: Duration,
    /// How long after a request that was never answered its account is looked at once more.
    pub second_look: Duration,
    /// How long a call to the platform may take; leases are longer than that.
    pub request_timeout: Duration,
    /// How many accounts are worked on at once.
    pub concurrency: usize,
    /// Whether to change nothing at the platform, and only to say what would be changed.
    pub dry_run: bool,
}

/// How long to be idle at the most: another process may have made an account due.
const IDLE: Duration = Duration::from_secs(1);

/// How long to wait after the ledger has failed.
const AGAIN: Backoff = Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(10) };

/// How long to wait for more looks to end before others are begun, while most still go on.
const GATHER: Duration = Duration::from_millis(2);

/// How often a worker says that it is at work.
const ATTEND: Duration = Duration::from_secs(5);

/// Works on due accounts. Shared by everybody who makes accounts due.
#[derive(Debug)]
pub struct Reconciler {
    ledger: Ledger,
    client: Client,
    people: People,
    policies: Policies,
    settings: Settings,
    gate: Gate,
    progress: Progress,
    due: Notify,
    run: uuid::Uuid,
}

impl Reconciler {
    /// A reconciler that doesn't run yet.
    #[must_use]
    pub fn new(ledger: Ledger, client: Client, people: People, policies: Policies, settings: Settings) -> Self {
        let gate = Gate::new(Timestamp::now());
        let progress = Progress::new(lease(&settings).saturating_mul(2), Timestamp::now());
        let run = uuid::Uuid::now_v7();
        Self { ledger, client, people, policies, settings, gate, progress, due: Notify::new(), run }
    }

    /// Says that an account may have become due.
    pub fn wake(&self) {
        self.due.notify_one();
    }

    /// How the platform is doing, for `/health`.
    #[must_use]
    pub fn health(&self) -> Health {
        self.gate.health()
    }

    /// Whether due accounts are worked on, for `/health`.
    #[must_use]
    pub fn progress(&self) -> Health {
        self.progress.health(Timestamp::now())
    }

    /// The longest that one look may hold an account: twice the request's time-out and a margin for what is around it.
    const fn lease(&self) -> Duration {
        lease(&self.settings)
    }

    /// Says that this worker is at work, and takes its share of the platform's rate limit: all workers are taken to call
    /// from one address. Until the others have heard of a new one they may send too much together; then the platform
    /// answers 429, which costs a pause and no attempt.
    pub async fn attend(self: Arc<Self>, token: CancellationToken) {
        let mut tick = tokio::time::interval(ATTEND);
        while token.run_until_cancelled(tick.tick()).await.is_some() {
            match self.ledger.watched(Activity::Heartbeat, self.ledger.attend(self.run)).await {
                Ok(workers) => {
                    self.client.share_with(workers);
                    self.progress.heartbeat(Ok(()), Timestamp::now());
                }
                Err(error) => {
                    tracing::warn!(%error, "can't tell how many workers share the rate limit");
                    self.progress.heartbeat(Err(&error), Timestamp::now());
                }
            }
            match self.ledger.soon(self.ledger.longest_due()).await {
                Ok(longest) => self.progress.overdue(longest.filter(|_| !self.gate.is_halted()), Timestamp::now()),
                Err(error) => tracing::warn!(%error, "can't tell for how long accounts have been due"),
            }
        }
        if let Err(error) = self.ledger.in_time(self.ledger.leave(self.run)).await {
            tracing::warn!(%error, "can't say that this worker has ended; it counts for some seconds more");
        }
    }

    /// Works until the token is cancelled; what is under way then is finished.
    pub async fn run(self: Arc<Self>, token: CancellationToken) {
        let looks = Tasks::new();
        let slots = Arc::new(Semaphore::new(self.settings.concurrency));
        let mut batch: u64 = 0;
        let mut failures = 0;
        while !token.is_cancelled() {
            if slots.available_permits() < self.settings.concurrency / 2 {
                // Looks that settle together end together: one taking then serves them all.
                tokio::time::sleep(GATHER).await;
            }
            let free = slots.available_permits();
            batch += 1;
            let leases = match self.take(free, batch).await {
                Ok(leases) => leases,
                Err(error) => {
                    tracing::error!(%error, "can't take due accounts; trying again");
                    self.progress.took(Err(&error), Timestamp::now());
                    let pause = AGAIN.pause(failures, fastrand::f64());
                    token.run_until_cancelled(tokio::time::sleep(pause)).await;
                    failures += 1;
                    continue;
                }
            };
            failures = 0;
            self.progress.took(Ok(()), Timestamp::now());
            let idle = leases.len() < free || free == 0;
            for lease in leases {
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
                let this = Arc::clone(&self);
                looks.short_lived("account", async move {
                    this.work(&lease).await;
                    drop(slot);
                    this.due.notify_one();
                });
            }
            if idle {
                let pause = self.pause().await;
                tokio::select! {
                    () = token.cancelled() => {}
                    () = self.due.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
        if !looks.end(self.lease()).await {
            tracing::warn!("accounts are still being worked on; their leases end by themselves");
        }
    }

    async fn take(&self, free: usize, batch: u64) -> Result<Vec<Lease>, LedgerError> {
        if free == 0 {
            return Ok(Vec::new());
        }
        let owner = format!("{}/{batch}", self.run);
        let limit = i64::try_from(free).unwrap_or(i64::MAX);
        let taken = self.ledger.watched(Activity::Leasing, self.ledger.take_due(&owner, self.lease(), limit)).await?;
        self.gate.observe(taken.halt, Timestamp::now());
        Ok(taken.leases)
    }

    async fn pause(&self) -> Duration {
        let due = self.ledger.in_time(self.ledger.next_due()).await.ok().flatten();
        due.filter(|due| !due.is_zero()).unwrap_or(IDLE).min(IDLE)
    }

    /// Looks at an account until what was settled is settled at its latest version. A look that outlasts its lease, and
    /// the one time that it is renewed, has nothing to say any more.
    async fn work(&self, lease: &Lease) {
        let looking = async { while !self.look(lease).await {} };
        let after = self.lease().saturating_mul(2);
        if tokio::time::timeout(after, looking).await.is_err() {
            tracing::error!(status = lease.status, "a look at an account took longer than its lease; it stays due");
            self.progress.account(lease.status, Some(&LedgerError::Silent { after }), Timestamp::now());
        }
    }

    /// Looks once. Returns whether that is enough.
    async fn look(&self, lease: &Lease) -> bool {
        let ended = match caught(self.once(lease)).await {
            Ok(Err(error)) if !error.is_outage() => {
                let reason = format!("the ledger fails under this account alone, which is a bug: {error}");
                self.failed(lease, reason).await
            }
            Ok(ended) => ended,
            Err(panic) => {
                panic.count("account");
                let reason = format!(
                    "rollcall panicked while reconciling it, which is a bug: {message}",
                    message = panic.message
                );
                self.failed(lease, reason).await
            }
        };
        self.progress.account(lease.status, ended.as_ref().err(), Timestamp::now());
        match ended {
            Ok(Held::Moved) => false,
            Ok(Held::Written | Held::Lost) => true,
            Err(error) => {
                // The lease ends by itself, and the account is due all the same.
                tracing::error!(%error, status = lease.status, "the ledger failed under an account; it stays due");
                true
            }
        }
    }

    /// A bug that one account's work meets is that account's trouble: it counts as a failed attempt, so that the account is
    /// parked in the end, and all others go on.
    async fn failed(&self, lease: &Lease, reason: String) -> Result<Held, LedgerError> {
        tracing::error!(
            status = lease.status,
            reason,
            "reconciling an account met a bug; it counts as a failed attempt"
        );
        let delay = |failures| self.settings.schedule.delay(failures, fastrand::f64());
        let held = self.ledger.in_time(self.ledger.fail_attempt(lease, &reason, delay)).await?;
        if lease.probe {
            self.probed(lease, Probe::Nothing { wait: Duration::ZERO }).await?;
        }
        Ok(held)
    }

    async fn once(&self, lease: &Lease) -> Result<Held, LedgerError> {
        let view = self.ledger.view(lease, &|connection| self.policies.roots(connection)).await?;
        let policy = self.policies.of(&view.connection);
        let Ended { settlement, attempts, probe } = Look::new(self, lease, &view, policy).settle().await?;
        let held = match settlement {
            Ok(settlement) => {
                tracing::info!(
                    account = %view.account.key,
                    login = view.account.login,
                    connection = %view.connection,
                    result = ?settlement.result,
                    reason = settlement.reason,
                    "reconciled"
                );
                let held = self.ledger.settle(lease, view.version, &settlement, attempts).await?;
                if let (Held::Written, Settled::Applied, Some(since)) = (held, settlement.result, view.owed_since) {
                    metrics::histogram!(names::RECEIPT_TO_TARGET_SECONDS)
                        .record(Timestamp::now().since(since).as_secs_f64());
                }
                held
            }
            Err(held) => held,
        };
        if lease.probe && held != Held::Moved {
            self.probed(lease, probe).await?;
        }
        Ok(held)
    }

    /// What a probe has shown: the halt ends, or somebody else's turn comes.
    async fn probed(&self, lease: &Lease, probe: Probe) -> Result<(), LedgerError> {
        metrics::counter!(names::PROBES, "result" => probe.as_str()).increment(1);
        match probe {
            // The halt was told already.
            Probe::Failed => {}
            Probe::Succeeded => {
                if let Some(parked) = self.ledger.end_halt(lease).await? {
                    tracing::info!(parked, "a probe went through; the halt is over");
                }
            }
            Probe::Nothing { wait } => self.ledger.release_probe(lease, wait).await?,
        }
        Ok(())
    }
}

const fn lease(settings: &Settings) -> Duration {
    settings.request_timeout.saturating_mul(3).saturating_add(Duration::from_secs(5))
}

#[cfg(test)]
mod tests;
