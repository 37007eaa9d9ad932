//! Recovering what a provider failed to deliver: looks at the provider's own list of attempts, asks it to deliver again
//! what matters and never arrived, waits for that, and leaves on record which period was looked at.
//!
//! What is asked for comes in over the ordinary signed way, with its own id; nothing is taken from the API. Everything is
//! in the ledger ([`crate::ledger::recoveries`]) before it is done, so whoever is interrupted, or comes second, goes on
//! where the other was and asks for nothing twice.

pub mod coverage;
mod error;
pub mod gaps;
mod hooks;
mod pace;
mod pages;
mod report;
pub mod schedule;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use url::Url;

pub use self::error::RecoverError;
pub use self::hooks::Found;
pub use self::report::{HookPlan, HookReport, Wanted};

use self::coverage::{OVERLAP, earlier, joined, next_look};
use self::pace::Paced;
use self::pages::Pages;
use crate::api::{Api, ApiError};
use crate::delivery::{SourceName, Timestamp};
use crate::ledger::Ledger;
use crate::ledger::recoveries::{Fate, HookKey, Look, LookPage, NewLook, Period, SeenAttempt, Undelivered};
use crate::provider::Description;
use crate::provider::recover::{Attempt, HookPath, Recover, matters};

/// What happened so short a time ago may not be in the provider's list yet.
const SETTLES: Duration = Duration::from_mins(1);
/// How often it is looked whether what was asked for has arrived.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// For how long a delivery that was asked for isn't asked for again: it may be on its way.
const ON_ITS_WAY: Duration = Duration::from_mins(2);
/// For how long what was delivered may be on its way to the ledger.
const RECORDED: Duration = Duration::from_mins(5);
/// The longest wait between two times that the schedule asks for the same delivery.
const LONGEST: Duration = Duration::from_hours(6);

/// What can be recovered for one source, and by whom.
#[derive(Debug)]
pub struct Recovery {
    /// The source.
    pub source: SourceName,
    /// Its provider.
    pub provider: &'static Description,
    /// Whether sightings matter to it.
    pub sightings: bool,
    /// The provider's side.
    pub recover: Box<dyn Recover>,
    /// The way to the provider.
    pub api: Api,
    /// Where the source's hook posts to, if that is known.
    pub endpoint: Option<Url>,
    /// The ledger.
    pub ledger: Ledger,
}

/// How it is gone about.
#[derive(Clone, Debug)]
pub struct Manner<'a> {
    /// Since when to look; left out, at whatever wasn't looked at yet.
    pub since: Option<Timestamp>,
    /// Whether to ask for what the provider delivered and the ledger doesn't have, too.
    pub forgotten: bool,
    /// How long to wait for what was asked for.
    pub wait: Duration,
    /// Who asks.
    pub by: &'a str,
    /// Whether nobody waits for it: what was asked for in vain is then asked for ever more rarely.
    pub scheduled: bool,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many attempts have been read.
    Reading(i64),
    /// So many of so many deliveries have been asked for.
    Asking(usize, usize),
    /// So many haven't arrived yet.
    Waiting(usize),
}

/// Whoever wants to know how far it has come.
pub type Watcher<'a> = &'a (dyn Fn(&HookPath, Step) + Send + Sync);

impl Recovery {
    /// Looks at a hook, asks for what is missing and waits for it.
    ///
    /// # Errors
    /// If the provider or the ledger fails; what was done is on record, and the next call goes on there.
    pub async fn recover(
        &self,
        hook: &HookPath,
        manner: &Manner<'_>,
        watcher: Watcher<'_>,
    ) -> Result<HookReport, RecoverError> {
        let key = HookKey { source: self.source.clone(), hook: hook.0.clone() };
        let mut report = HookReport {
            hook: key.clone(),
            looked_at: None,
            read: 0,
            asked: 0,
            arrived: 0,
            missing: Vec::new(),
            doubt: None,
            lapsed_from: None,
        };
        self.look(hook, manner, &mut report, watcher).await?;
        self.settle(&key, &mut report).await?;
        self.ask(hook, manner, &mut report, watcher).await?;
        self.wait(hook, manner, &mut report, watcher).await?;
        Ok(report)
    }

    /// Reads the provider's list: the rest of what was interrupted, then what is new.
    async fn look(
        &self,
        hook: &HookPath,
        manner: &Manner<'_>,
        report: &mut HookReport,
        watcher: Watcher<'_>,
    ) -> Result<(), RecoverError> {
        let now = self.ledger.now().await?;
        let known_from = earlier(now, self.recover.window());
        let interrupted = self.ledger.interrupted_look(&report.hook).await?;
        let interrupted =
            interrupted.filter(|look| look.period.to > known_from && look.cursor.is_some() && !manner.forgotten);
        let mut resumed = None;
        if let Some(mut look) = interrupted {
            tracing::debug!(hook = %hook, "an interrupted look goes on");
            // What it hasn't read yet of the time before that isn't told any more.
            look.period.from = look.period.from.max(known_from);
            resumed = Some(look.period);
            self.read(hook, look, manner, report, watcher).await?;
        }
        let Some((period, lapsed_from)) = self.to_look_at(&report.hook, manner, now, resumed).await? else {
            return Ok(());
        };
        let new = NewLook { hook: &report.hook, started_by: manner.by, period, lapsed_from };
        let look = self.ledger.begin_look(new).await?;
        report.lapsed_from = lapsed_from;
        self.read(hook, look, manner, report, watcher).await
    }

    /// Which period to look at now, and the end of what was looked at before if that can't be gone on with.
    async fn to_look_at(
        &self,
        hook: &HookKey,
        manner: &Manner<'_>,
        now: Timestamp,
        resumed: Option<Period>,
    ) -> Result<Option<(Period, Option<Timestamp>)>, RecoverError> {
        let known_from = earlier(now, self.recover.window());
        let to = earlier(now, SETTLES);
        if let Some(since) = manner.since.or(manner.forgotten.then_some(known_from)) {
            let wanted = since.max(known_from).min(to);
            let from = match resumed {
                Some(resumed) if resumed.from <= wanted => earlier(resumed.to, OVERLAP).max(wanted),
                _ => wanted,
            };
            return Ok(Some((Period { from, to }, None)));
        }
        let looks = self.ledger.looks(&hook.source).await?;
        let covered = joined(looks.into_iter().filter(|look| look.hook == *hook).map(|look| look.period));
        Ok(next_look(&covered, Period { from: known_from, to }).map(|next| (next.period, next.lapsed_from)))
    }

    /// Reads the pages of a look from where it is, and notes each.
    async fn read(
        &self,
        hook: &HookPath,
        look: Look,
        manner: &Manner<'_>,
        report: &mut HookReport,
        watcher: Watcher<'_>,
    ) -> Result<(), RecoverError> {
        let mut failing = look.failing;
        let recorded_by = self.recorded_by(manner).await?;
        let mut pages = Pages::new(self, hook, look.cursor.as_deref(), look.period.from);
        while let Some(page) = pages.next().await? {
            for attempt in &page.rows {
                failing = if attempt.delivered { 0 } else { failing + 1 };
                if self.recover.gives_up_after().is_some_and(|limit| failing >= limit) {
                    report.doubt = Some(format!(
                        "{failing} attempts failed in a row: {} may have switched the hook off for a while, and what \
                         happens then is neither sent nor listed",
                        self.provider.title
                    ));
                }
            }
            let read = i64::try_from(page.rows.len()).unwrap_or(i64::MAX);
            let noted = LookPage {
                attempts: self.relevant(page.rows, look.period.from, recorded_by),
                read,
                failing,
                doubt: report.doubt.clone(),
                cursor: page.next.map(String::from),
            };
            self.ledger.note_page(&look, &noted).await?;
            report.read += read;
            watcher(hook, Step::Reading(report.read));
        }
        let from = report.looked_at.map_or(look.period.from, |before| before.from.min(look.period.from));
        report.looked_at = Some(Period { from, to: look.period.to });
        Ok(())
    }

    /// What was delivered before then should be in the ledger by now, if that is asked.
    async fn recorded_by(&self, manner: &Manner<'_>) -> Result<Option<Timestamp>, RecoverError> {
        let now = self.ledger.now().await?;
        Ok(manner.forgotten.then(|| earlier(now, RECORDED)))
    }

    /// What of a page matters: what failed, and what an earlier failure may be mended by; if asked, what was delivered too.
    fn relevant(&self, attempts: Vec<Attempt>, from: Timestamp, recorded_by: Option<Timestamp>) -> Vec<SeenAttempt> {
        let matter = attempts
            .into_iter()
            .filter(|attempt| attempt.at.is_none_or(|at| at >= from))
            .filter(|attempt| !attempt.delivered || attempt.again || recorded_by.is_some())
            .filter(|attempt| matters(self.provider.events, self.sightings, &attempt.event));
        matter
            .map(|attempt| {
                let recorded = recorded_by.zip(attempt.at).is_some_and(|(by, at)| at < by);
                let status = attempt.status;
                SeenAttempt {
                    delivery: attempt.delivery,
                    attempt: attempt.id,
                    event: attempt.event,
                    at: attempt.at,
                    // The ledger itself knows what it has of these.
                    delivered: attempt.delivered && !recorded,
                    status: if attempt.delivered { format!("delivered: {status}") } else { status },
                    lost: attempt.lost,
                }
            })
            .collect()
    }

    /// Settles what has arrived, and what can't any more. Leaves what is missing in the report.
    async fn settle(&self, key: &HookKey, report: &mut HookReport) -> Result<(), RecoverError> {
        let kept_from = earlier(self.ledger.now().await?, self.recover.window());
        let days = self.recover.window().as_secs() / 86_400;
        let why = format!("{} delivers again only what isn't older than {days} days", self.provider.title);
        let (arrived, _) = self.ledger.settle_undelivered(key, kept_from, &why).await?;
        report.arrived += arrived;
        let missing = self.ledger.undelivered(&self.source, false).await?;
        report.missing = missing.into_iter().filter(|undelivered| undelivered.hook == *key).collect();
        Ok(())
    }

    async fn ask(
        &self,
        hook: &HookPath,
        manner: &Manner<'_>,
        report: &mut HookReport,
        watcher: Watcher<'_>,
    ) -> Result<(), RecoverError> {
        let now = self.ledger.now().await?;
        let due: Vec<&Undelivered> = report
            .missing
            .iter()
            .filter(|undelivered| undelivered.state == Fate::Open && may_ask(undelivered, manner, now))
            .collect();
        let mut paced = Paced::new(self.recover.pace());
        for (done, undelivered) in due.iter().enumerate() {
            watcher(hook, Step::Asking(done, due.len()));
            paced.turn().await;
            if !self.ledger.claim_undelivered(undelivered).await? {
                continue;
            }
            let why = match self.api.ask(&self.recover.deliver_again(hook, &undelivered.attempt)).await {
                Ok(_) => {
                    report.asked += 1;
                    continue;
                }
                Err(why) => why,
            };
            let perhaps_done = matches!(why, ApiError::Failed { .. });
            self.ledger.note_refusal(undelivered, &refusal(&why), perhaps_done).await?;
            match why {
                // This one's own trouble.
                ApiError::Missing { .. } | ApiError::Unexpected { .. } => {
                    tracing::warn!(hook = %hook, delivery = undelivered.delivery, error = %why, "not delivered again");
                }
                ApiError::Failed { .. } => report.asked += 1,
                why => {
                    let permission = self.recover.permission();
                    return Err(RecoverError::Again { hook: hook.to_string(), why, permission });
                }
            }
        }
        Ok(())
    }

    /// Waits until nothing is on its way any more, or for so long.
    async fn wait(
        &self,
        hook: &HookPath,
        manner: &Manner<'_>,
        report: &mut HookReport,
        watcher: Watcher<'_>,
    ) -> Result<(), RecoverError> {
        let began = Instant::now();
        loop {
            let key = report.hook.clone();
            self.settle(&key, report).await?;
            let now = self.ledger.now().await?;
            let on_its_way = |undelivered: &&Undelivered| {
                undelivered.state == Fate::Open
                    && undelivered.expected
                    && undelivered.asked_at.is_some_and(|at| now.since(at) < ON_ITS_WAY.max(manner.wait))
            };
            let left = report.missing.iter().filter(on_its_way).count();
            if left == 0 || began.elapsed() >= manner.wait {
                return Ok(());
            }
            watcher(hook, Step::Waiting(left));
            sleep(LOOK_AGAIN).await;
        }
    }

    /// What would be asked for. Nothing is written, and nothing is asked for.
    ///
    /// # Errors
    /// If the provider or the ledger fails.
    pub async fn plan(
        &self,
        hook: &HookPath,
        manner: &Manner<'_>,
        watcher: Watcher<'_>,
    ) -> Result<HookPlan, RecoverError> {
        let key = HookKey { source: self.source.clone(), hook: hook.0.clone() };
        let now = self.ledger.now().await?;
        let recorded_by = self.recorded_by(manner).await?;
        let nothing = Period { from: earlier(now, SETTLES), to: earlier(now, SETTLES) };
        let period = self.to_look_at(&key, manner, now, None).await?.map_or(nothing, |(period, _)| period);
        let mut latest: BTreeMap<String, SeenAttempt> = BTreeMap::new();
        let mut read = 0;
        let mut pages = Pages::new(self, hook, None, period.from);
        while let Some(page) = pages.next().await? {
            read += i64::try_from(page.rows.len()).unwrap_or(i64::MAX);
            for attempt in self.relevant(page.rows, period.from, recorded_by) {
                // The latest attempt comes first, and a delivery failed when it did so for the first time.
                let at = attempt.at;
                let known = latest.entry(attempt.delivery.clone()).or_insert(attempt);
                known.at = at.or(known.at);
            }
            watcher(hook, Step::Reading(read));
        }
        for earlier in self.ledger.undelivered(&self.source, false).await? {
            if earlier.hook == key && earlier.state == Fate::Open {
                latest.entry(earlier.delivery.clone()).or_insert(SeenAttempt {
                    delivery: earlier.delivery,
                    attempt: earlier.attempt,
                    event: earlier.event,
                    at: earlier.failed_at,
                    delivered: false,
                    status: earlier.status,
                    lost: None,
                });
            }
        }
        latest.retain(|_, attempt| !attempt.delivered);
        let names: Vec<String> = latest.keys().cloned().collect();
        let recorded = self.ledger.has_deliveries(&self.source, &names).await?;
        let missing = latest.into_values().zip(recorded).filter(|(_, recorded)| !recorded);
        let mut would_ask: Vec<Wanted> = missing
            .map(|(attempt, _)| Wanted {
                delivery: attempt.delivery,
                event: attempt.event,
                failed_at: attempt.at,
                status: attempt.status,
                lost: attempt.lost,
            })
            .collect();
        would_ask.sort_by_key(|wanted| wanted.failed_at);
        Ok(HookPlan { hook: key, looked_at: period, read, would_ask })
    }
}

/// Whether it is time to ask for a delivery: again only after it had the time to arrive, on a schedule ever more rarely.
fn may_ask(undelivered: &Undelivered, manner: &Manner<'_>, now: Timestamp) -> bool {
    let Some(asked_at) = undelivered.asked_at else { return true };
    let asks = u32::try_from(undelivered.asks).unwrap_or(u32::MAX);
    let wait = if manner.scheduled {
        ON_ITS_WAY.saturating_mul(2_u32.saturating_pow(asks.saturating_sub(1)))
    } else {
        ON_ITS_WAY
    };
    now.since(asked_at) >= wait.min(LONGEST)
}

/// Why a delivery isn't delivered again, for people.
fn refusal(why: &ApiError) -> String {
    match why {
        ApiError::Refused { status, message, .. } | ApiError::Unexpected { status, message, .. } => {
            format!("the provider refuses: {status} {message}")
        }
        ApiError::Missing { message, .. } => format!("the provider refuses: 404 {message}"),
        why => format!("asking for it failed: {why}"),
    }
}
