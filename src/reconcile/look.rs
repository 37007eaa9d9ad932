//! One look at one account: from what the ledger knows to how it ended.

use std::time::Duration;

use tokio::time::Instant;

use super::gate::CONNECT;
use super::identity::{self, Found};
use super::{Drift, OnAccessLost, Policy, Reconciler};
use crate::access::{Access, AccountKind, access};
use crate::backoff::spread;
use crate::delivery::Timestamp;
use crate::ledger::LedgerError;
use crate::ledger::halt::HaltKind;
use crate::ledger::view::View;
use crate::ledger::work::{Attempt, DRY_RUN, Held, Lease, Settled, Settlement};
use crate::people::Mapped;
use crate::target::{Failure, FailureClass, Identity, IdentityRef, LinkStatus, PersonFrom, PersonId, PersonRef};

/// How long after its time-out a request of ours may still reach the platform.
const MARGIN: Duration = Duration::from_secs(2);
/// How long to wait after a 429 that doesn't say.
const THROTTLED: Duration = Duration::from_secs(5);

/// What a look has shown about a halt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// The platform did what it had refused or failed to do.
    Succeeded,
    /// It still doesn't.
    Failed,
    /// Neither; the next probe may go after that long.
    Nothing {
        /// How long to wait.
        wait: Duration,
    },
}

impl Probe {
    /// The word for metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Nothing { .. } => "nothing",
        }
    }
}

/// What stopped a look.
enum Stop {
    /// It is settled.
    Settled(Box<Settlement>),
    /// Nothing may be done: the version has moved or the lease is over.
    Held(Held),
    /// The ledger failed.
    Ledger(LedgerError),
}

impl From<LedgerError> for Stop {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

/// A look under way.
pub(super) struct Look<'a> {
    reconciler: &'a Reconciler,
    lease: &'a Lease,
    view: &'a View,
    policy: Option<&'a Policy>,
    began: Instant,
    /// The status as of a 2xx or a fresh read, as this look goes on.
    actual: Option<LinkStatus>,
    identity: Option<IdentityRef>,
    desired: Option<LinkStatus>,
    /// Whether a request went out, now or earlier, that was never answered.
    unanswered: bool,
    /// From where it is known whose the account is.
    person_from: Option<PersonFrom>,
    /// Whether what somebody has set at the platform is left as it is.
    keep_drift: bool,
    /// Whether this look has asked the platform what it has.
    looked_up: bool,
    /// The e-mail addresses whose persons were asked for.
    asked: Vec<String>,
    /// The calls that aren't written down yet.
    attempts: Vec<Attempt>,
    probe: Probe,
}

/// How a look ended.
pub(super) struct Ended {
    /// What is to be written, or that nothing may be done.
    pub(super) settlement: Result<Settlement, Held>,
    /// The calls that are to be written down with it.
    pub(super) attempts: Vec<Attempt>,
    /// What it has shown about a halt.
    pub(super) probe: Probe,
}

/// Where a look goes.
#[derive(Clone, Copy)]
enum Way<'a> {
    /// It has lost all access, or is nobody's.
    Unlink {
        why: &'a str,
    },
    Link {
        seen_only: bool,
        mapped: Option<&'a Mapped>,
    },
}

impl<'a> Look<'a> {
    pub(super) fn new(
        reconciler: &'a Reconciler,
        lease: &'a Lease,
        view: &'a View,
        policy: Option<&'a Policy>,
    ) -> Self {
        Self {
            reconciler,
            lease,
            view,
            policy,
            began: Instant::now(),
            // After an unanswered request nothing is known until it is read.
            actual: view.actual.filter(|_| view.intent.is_none()),
            identity: view.identity,
            desired: None,
            unanswered: view.intent.is_some() && view.actual.is_none(),
            person_from: None,
            keep_drift: false,
            looked_up: false,
            asked: Vec::new(),
            attempts: Vec::new(),
            probe: Probe::Nothing { wait: Duration::ZERO },
        }
    }

    /// Looks.
    ///
    /// # Errors
    /// If the ledger fails.
    pub(super) async fn settle(mut self) -> Result<Ended, LedgerError> {
        let settlement = match self.go().await {
            Stop::Settled(settlement) => Ok(*settlement),
            Stop::Held(held) => Err(held),
            Stop::Ledger(error) => return Err(error),
        };
        Ok(Ended { settlement, attempts: self.attempts, probe: self.probe })
    }

    async fn go(&mut self) -> Stop {
        let Some(policy) = self.policy else {
            return self.wait(format!("no source is configured for the connection {}", self.view.connection));
        };
        if let (true, Some((_, at))) = (self.unanswered, self.view.intent) {
            // Its bytes may still be on the way: whatever is sent now could be overtaken by them.
            let clear = at.plus(self.reconciler.settings.request_timeout + MARGIN);
            if self.view.now < clear {
                return self.end(Settled::Postponed, "an earlier request may still be on its way", Some(clear));
            }
        }
        if self.view.account.kind == AccountKind::Bot {
            return self.left_as_it_is("it is a bot, and bots are never linked").await;
        }
        let reconciler = self.reconciler;
        let mapped = match reconciler.people.mapped(&reconciler.ledger, self.view.account_row, &self.view.account).await
        {
            Ok(mapped) => mapped,
            Err(error) => return error.into(),
        };
        if let Some(Mapped { person: None, from }) = mapped {
            // Whatever access it has: nobody is to be taken for its owner.
            self.person_from = Some(from);
            return self.until_clear(Way::Unlink { why: "it is nobody's" }).await;
        }
        match access(&self.view.grants, &self.view.roots) {
            Access::Unknown { roots } if roots.is_empty() => {
                self.left_as_it_is("rollcall knows of no root of its connection, so the link stays as it is").await
            }
            Access::Unknown { roots } => {
                let roots = roots.join(", ");
                self.left_as_it_is(format!(
                    "it may still have access through {roots}, of which rollcall has heard nothing for it, so the link stays as it is",
                ))
                .await
            }
            Access::Gone if policy.on_access_lost == OnAccessLost::Keep => {
                self.left_as_it_is(
                    "it has lost all access; on_access_lost = \"keep\" leaves the link for Drata's own sync to mark",
                )
                .await
            }
            Access::Gone => self.until_clear(Way::Unlink { why: "it left" }).await,
            Access::Held { seen_only, .. } => self.until_clear(Way::Link { seen_only, mapped: mapped.as_ref() }).await,
        }
    }

    /// Ends with whatever status there is. If a request was never answered that isn't known, so it is read first.
    async fn left_as_it_is(&mut self, reason: impl Into<String>) -> Stop {
        if self.view.intent.is_some() {
            match self.find().await {
                Ok(Found::One(identity, _)) => self.read(&identity),
                Ok(Found::None | Found::Unclear(_)) => {}
                Err(stop) => return stop,
            }
        }
        self.unchanged(reason)
    }

    /// Runs a way to a status; once more from a fresh read if what it relied on turns out to be gone.
    async fn until_clear(&mut self, way: Way<'_>) -> Stop {
        for _ in 0..2 {
            let ended = match way {
                Way::Unlink { why } => self.unlink(why).await,
                Way::Link { seen_only, mapped } => self.link(seen_only, mapped).await,
            };
            match ended {
                Err(stop) => return stop,
                Ok(Gone) => {
                    self.actual = None;
                    self.identity = None;
                    // The 404 may have meant the person: ask for it anew.
                    self.asked.drain(..).for_each(|email| self.reconciler.client.forget_person(&email));
                }
            }
        }
        self.wait("the platform says that the identity or the person is gone, though it lists the identity")
    }

    async fn unlink(&mut self, why: &str) -> Result<Gone, Stop> {
        self.desired = Some(LinkStatus::Unlinked);
        if self.actual.is_none() || self.identity.is_none() {
            match self.find().await? {
                Found::One(identity, _) => self.read(&identity),
                Found::None => return Err(self.unchanged(format!("{why}, and the platform has no identity for it"))),
                Found::Unclear(why) => return Err(self.wait(why)),
            }
        }
        let why = if self.person_from.is_some() { why } else { "" };
        self.bring(LinkStatus::Unlinked, why).await
    }

    async fn link(&mut self, seen_only: bool, mapped: Option<&Mapped>) -> Result<Gone, Stop> {
        let own_email = self.view.account.email.clone().filter(|email| !email.is_empty());
        let mut email_at_platform = None;
        if self.actual.is_none() || self.identity.is_none() || (mapped.is_none() && own_email.is_none()) {
            match self.find().await? {
                Found::One(identity, _) => {
                    self.read(&identity);
                    if identity.service_account {
                        return Err(self.unchanged("it is marked as a service account at the platform"));
                    }
                    email_at_platform = identity.email.filter(|email| !email.is_empty());
                }
                Found::None if seen_only => {
                    return Err(self.unchanged("it was only seen, and the platform has no identity for it"));
                }
                Found::None => return Err(self.wait("the platform has no identity for it yet")),
                Found::Unclear(why) => return Err(self.wait(why)),
            }
        }
        let person = self.person(mapped, own_email, email_at_platform).await?;
        let wanted = LinkStatus::Linked(person);
        self.desired = Some(wanted);
        self.unless_drifted(wanted)?;
        if let (Some(LinkStatus::Linked(other)), None) = (self.actual, mapped)
            && other != person
        {
            return Err(self.wait(format!(
                "it is linked to another person ({other}) than its e-mail address says ({person}); a row in the people map decides"
            )));
        }
        self.bring(wanted, "").await
    }

    /// Leaves what somebody has set at the platform, if that is the policy and the same still should be so as before.
    fn unless_drifted(&mut self, wanted: LinkStatus) -> Result<(), Stop> {
        let reported = self.policy.is_some_and(|policy| policy.drift == Drift::Report);
        match self.actual {
            Some(found) if reported && found != wanted && self.view.drifted_from == Some(wanted) => {
                self.keep_drift = true;
                Err(self.unchanged(drifted(found, wanted)))
            }
            _ => Ok(()),
        }
    }

    /// Whom the account belongs to: by the people map, else by its own e-mail address, else by the identity's.
    async fn person(
        &mut self,
        mapped: Option<&Mapped>,
        own_email: Option<String>,
        email_at_platform: Option<String>,
    ) -> Result<PersonId, Stop> {
        if let Some(Mapped { person: Some(person), from }) = mapped {
            self.person_from = Some(*from);
            return match self.resolve(person).await? {
                Some(id) => Ok(id),
                None if *from == PersonFrom::Operator => {
                    Err(self.wait("the platform doesn't know the person that an operator has named"))
                }
                None => Err(self.wait("the platform doesn't know the person that the people map names")),
            };
        }
        let emails = [(own_email, PersonFrom::EventEmail), (email_at_platform, PersonFrom::IdentityEmail)];
        for (email, from) in emails.into_iter().filter_map(|(email, from)| Some((email?, from))) {
            if let Some(id) = self.resolve(&PersonRef::Email(email)).await? {
                self.person_from = Some(from);
                return Ok(id);
            }
        }
        Err(match self.actual {
            Some(linked @ LinkStatus::Linked(_)) => {
                self.desired = Some(linked);
                self.person_from = Some(PersonFrom::Platform);
                self.unchanged("the platform has linked it already")
            }
            _ => self.wait("nobody is known whose account it is; a row in the people map says so"),
        })
    }

    async fn resolve(&mut self, person: &PersonRef) -> Result<Option<PersonId>, Stop> {
        match person {
            PersonRef::Id(id) => Ok(Some(*id)),
            PersonRef::Email(email) => {
                let began = Instant::now();
                self.asked.push(email.clone());
                if self.view.waiting_since.is_some() {
                    // It is looked at because somebody may have appeared.
                    self.reconciler.client.forget_absence(email);
                }
                match self.reconciler.client.person_by_email(email).await {
                    Ok(person) => {
                        self.went_through("find person");
                        Ok(person.map(|person| person.id))
                    }
                    Err(failure) => Err(self.failed("find person", None, &failure, began.elapsed()).await?),
                }
            }
        }
    }

    async fn find(&mut self) -> Result<Found, Stop> {
        let began = Instant::now();
        let pinned = self.reconciler.ledger.identity_form(&self.view.connection).await?;
        match identity::find(&self.reconciler.client, self.view, pinned).await {
            Ok(found) => {
                self.went_through("find identity");
                self.looked_up = true;
                if let (Found::One(_, Some(form)), None) = (&found, pinned) {
                    self.reconciler.ledger.learn_identity_form(&self.view.connection, *form).await?;
                }
                if matches!(found, Found::None) {
                    self.identity = None;
                    self.actual = None;
                }
                Ok(found)
            }
            Err(failure) => Err(self.failed("find identity", None, &failure, began.elapsed()).await?),
        }
    }

    /// Takes note of what an identity was read with.
    fn read(&mut self, identity: &Identity) {
        let status = identity.status();
        if self.view.intent.is_some() && self.view.actual.is_some_and(|known| known != status) {
            metrics::counter!("rollcall_overtaken_total").increment(1);
            tracing::warn!(
                account = %self.view.account.key,
                found = %status,
                "an earlier, unanswered request has landed late and overtaken a newer status; correcting it"
            );
        }
        self.identity = Some(identity.id);
        self.actual = Some(status);
    }

    /// Sets a status unless it is there already. `why` is said if it was set.
    async fn bring(&mut self, wanted: LinkStatus, why: &str) -> Result<Gone, Stop> {
        if self.actual == Some(wanted) {
            let unanswered = self.unanswered && self.view.intent.is_some_and(|(intent, _)| intent == wanted);
            return Err(if unanswered {
                self.end(Settled::Applied, "an earlier request had done it, though its answer was lost", None)
            } else if self.view.doubted == Some(wanted) {
                self.end(Settled::Applied, "an earlier request had done it, though it was answered with an error", None)
            } else {
                self.unchanged(format!("it is {wanted} already"))
            });
        }
        self.unless_drifted(wanted)?;
        let Some(identity) = self.identity else { return Ok(Gone) };
        if self.reconciler.settings.dry_run {
            let would = match wanted {
                LinkStatus::Linked(person) => format!("link it to person {person}"),
                LinkStatus::Unlinked => "unlink it".to_owned(),
            };
            return Err(self.wait(format!("{DRY_RUN}: would {would}")));
        }
        let lease = self.reconciler.lease();
        let began = Instant::now();
        let attempts = std::mem::take(&mut self.attempts);
        match self.reconciler.ledger.intend(self.lease, self.view.version, wanted, lease, attempts).await? {
            Held::Written => {}
            held => return Err(Stop::Held(held)),
        }
        self.actual = None;
        let send_by = began + lease - self.reconciler.settings.request_timeout - MARGIN;
        let answer = self.reconciler.client.set_status_by(identity, wanted, send_by).await;
        let duration = began.elapsed();
        match answer {
            Ok(_) => {
                self.attempts.push(Attempt {
                    operation: CONNECT,
                    wanted: Some(wanted),
                    answer: Some(200),
                    failure: None,
                    duration,
                    message: None,
                });
                self.went_through(CONNECT);
                self.actual = Some(wanted);
                Err(self.end(Settled::Applied, why, None))
            }
            Err(failure) if failure.class == FailureClass::Stale => {
                self.write_down(CONNECT, Some(wanted), &failure, duration);
                self.went_through(CONNECT);
                Ok(Gone)
            }
            Err(failure) => {
                self.unanswered |= failure.class == FailureClass::Transient && failure.status.is_none();
                Err(self.failed(CONNECT, Some(wanted), &failure, duration).await?)
            }
        }
    }

    fn went_through(&mut self, operation: &str) {
        self.reconciler.gate.succeeded(self.lease.status, operation);
        if self.lease.probe && self.reconciler.gate.is_ended_by(operation) {
            self.probe = Probe::Succeeded;
        }
    }

    /// The platform refuses or fails, and it isn't for this account: calls stand still.
    async fn halt(&mut self, kind: HaltKind, operation: &str, said: &str) -> Result<(), LedgerError> {
        if self.lease.probe {
            self.probe = Probe::Failed;
            self.reconciler.ledger.keep_halt(self.lease, kind, operation, said).await
        } else {
            self.reconciler.ledger.begin_halt(self.lease, kind, operation, said).await.map(drop)
        }
    }

    fn write_down(
        &mut self,
        operation: &'static str,
        wanted: Option<LinkStatus>,
        failure: &Failure,
        duration: Duration,
    ) {
        self.attempts.push(Attempt {
            operation,
            wanted,
            answer: failure.status,
            failure: Some(failure.class),
            duration,
            message: Some(failure.message.clone()),
        });
    }

    async fn failed(
        &mut self,
        operation: &'static str,
        wanted: Option<LinkStatus>,
        failure: &Failure,
        duration: Duration,
    ) -> Result<Stop, Stop> {
        self.write_down(operation, wanted, failure, duration);
        let said = match failure.status {
            Some(status) => format!("{operation}: {status}: {}", failure.message),
            None => format!("{operation}: {}", failure.message),
        };
        Ok(match failure.class {
            // In a halt no attempt is spent.
            FailureClass::Transient if self.lease.probe || self.reconciler.gate.is_halted() => {
                if self.lease.probe {
                    self.halt(HaltKind::Failing, operation, &said).await?;
                }
                self.end(Settled::Postponed, said, Some(self.now()))
            }
            FailureClass::Transient => {
                if self.reconciler.gate.failed(self.lease.status, operation) {
                    self.halt(HaltKind::Failing, operation, &said).await?;
                }
                let failures = u32::try_from(self.view.attempts + 1).unwrap_or(u32::MAX);
                match self.reconciler.settings.schedule.delay(failures, fastrand::f64()) {
                    Some(delay) => self.end(Settled::Failed, said, Some(self.now().plus(delay))),
                    None if self.reconciler.gate.is_its_own(self.lease.status) => {
                        self.reconciler.gate.given_up(self.lease.status);
                        self.end(Settled::Parked, format!("after {failures} attempts: {said}"), None)
                    }
                    // Nobody got through meanwhile, most likely because nobody else tried: this is the platform's outage
                    // until another account shows that it isn't.
                    None => {
                        self.halt(HaltKind::Failing, operation, &said).await?;
                        self.end(Settled::Postponed, said, Some(self.now()))
                    }
                }
            }
            FailureClass::Throttled => {
                let wait = spread(failure.retry_after.unwrap_or(THROTTLED), fastrand::f64());
                self.probe = Probe::Nothing { wait };
                let until = self.now().plus(wait);
                self.end(Settled::Postponed, said, Some(until))
            }
            // A list that isn't there means that the address is wrong, not the account.
            FailureClass::RefusedAll | FailureClass::Stale => {
                self.halt(HaltKind::Refused, operation, &said).await?;
                self.end(Settled::Postponed, said, Some(self.now()))
            }
            FailureClass::Refused => {
                // It was let in and understood; only this isn't done.
                self.went_through(operation);
                self.end(Settled::Parked, said, None)
            }
        })
    }

    /// Whether the earlier request that was never answered can't come any more, and what the platform has was looked up
    /// since. A status was read from an identity, if there was one; where there is none, there is nothing to overtake.
    fn is_past(&self) -> bool {
        let settings = &self.reconciler.settings;
        let past = |at: Timestamp| at.plus(settings.request_timeout + MARGIN + settings.second_look) <= self.view.now;
        self.looked_up && self.actual.is_none() && self.view.intent.is_some_and(|(_, at)| past(at))
    }

    fn unchanged(&self, reason: impl Into<String>) -> Stop {
        self.end(Settled::Unchanged, reason, None)
    }

    fn wait(&self, reason: impl Into<String>) -> Stop {
        let reason = reason.into();
        let settings = &self.reconciler.settings;
        match self.view.waiting_since {
            Some(since) if !settings.dry_run && since.plus(settings.deadline) <= self.now() => {
                let long = humantime::format_duration(settings.deadline);
                self.end(Settled::GaveUp, format!("it has waited for {long} (sweep.waiting) and still: {reason}"), None)
            }
            _ => {
                let again = self.now().plus(spread(settings.waiting, fastrand::f64()));
                self.end(Settled::Waiting, reason, Some(again))
            }
        }
    }

    /// The database's clock, carried on from when the view was read.
    fn now(&self) -> Timestamp {
        self.view.now.plus(self.began.elapsed())
    }

    fn end(&self, result: Settled, reason: impl Into<String>, due_at: Option<Timestamp>) -> Stop {
        let reason = Some(reason.into()).filter(|reason| !reason.is_empty());
        let settings = &self.reconciler.settings;
        // What was never answered may be done yet, and overtake what is so now.
        let unanswered = self.unanswered && !self.is_past();
        let second_look = unanswered && matches!(result, Settled::Applied | Settled::Unchanged);
        Stop::Settled(Box::new(Settlement {
            result,
            reason,
            desired: self.desired,
            actual: self.actual,
            identity: self.identity,
            person_from: self.person_from,
            keep_drift: self.keep_drift,
            keep_intent: unanswered,
            due_at: if second_look { Some(self.now().plus(settings.second_look)) } else { due_at },
        }))
    }
}

/// Says what somebody has set at the platform.
pub(crate) fn drifted(found: LinkStatus, wanted: LinkStatus) -> String {
    format!(
        "somebody has changed it at the platform: it is {found}, where rollcall had it {wanted}; drift = \"report\" \
         leaves that so, and `rollcall people link` decides"
    )
}

/// What was relied on is gone at the platform.
struct Gone;
