//! What the demo shows: live lines, the table, the balance; or one JSON object.

use std::io::Write;

use serde::Serialize;

use super::stage::Stage;
use super::story::Story;
use crate::ledger::balance::Balance;
use crate::ledger::outcome::Outcome;

/// What became of one delivery.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Delivered {
    pub(super) event: String,
    /// Whether it was delivered before.
    pub(super) again: bool,
    /// The HTTP status that the provider got.
    pub(super) answer: u16,
    /// Its outcome and why, if it was accepted.
    pub(super) outcome: Option<(Outcome, Option<String>)>,
}

/// How a story ended.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Ended {
    /// Whether the account is linked at the stand-in.
    pub(super) linked: bool,
    /// How many calls were made to set its status.
    pub(super) calls: usize,
    /// Whether that is what the story says.
    pub(super) as_told: bool,
}

#[derive(Debug, Serialize)]
struct Told {
    story: String,
    account: String,
    title: String,
    expected: &'static str,
    because: String,
    deliveries: Vec<Delivered>,
    #[serde(flatten)]
    ended: Option<Ended>,
}

#[derive(Debug, Serialize)]
struct Summary<'a> {
    stories: &'a [Told],
    balance: Option<&'a Balance>,
    adds_up: bool,
    ok: bool,
}

/// Collects and shows.
#[derive(Debug)]
pub(super) struct Report {
    json: bool,
    told: Vec<Told>,
    balance: Option<Balance>,
}

impl Report {
    pub(super) const fn new(json: bool) -> Self {
        Self { json, told: Vec::new(), balance: None }
    }

    pub(super) fn opening(&self, stage: &Stage) -> std::io::Result<()> {
        let broker = if stage.rabbitmq.is_some() { "RabbitMQ" } else { "embedded" };
        self.line(format_args!("rollcall demo: everything in one process, on loopback and in a temporary folder"))?;
        self.line(format_args!("  webhooks  {}webhooks/…", stage.webhooks))?;
        self.line(format_args!("  admin     http://{}/health", stage.running.admin))?;
        self.line(format_args!("  Drata     {} (a stand-in)", stage.drata))?;
        self.line(format_args!("  broker    {broker}"))
    }

    pub(super) fn story(&mut self, story: &Story) -> std::io::Result<()> {
        self.told.push(Told {
            story: story.name.clone(),
            account: story.account.login.clone(),
            title: story.title.clone(),
            expected: story.expect.as_str(),
            because: story.because.clone(),
            deliveries: Vec::new(),
            ended: None,
        });
        self.line(format_args!("\n{}", story.title))
    }

    pub(super) fn delivered(&mut self, story: &Story, delivered: &Delivered) -> std::io::Result<()> {
        let again = if delivered.again { " (again)" } else { "" };
        let became = match &delivered.outcome {
            Some((outcome, Some(reason))) => format!("{outcome}: {reason}"),
            Some((outcome, None)) => outcome.to_string(),
            None => "refused".to_owned(),
        };
        self.line(format_args!("  {} {:<36} → {became}", delivered.answer, format!("{}{again}", delivered.event)))?;
        if let Some(told) = self.told.iter_mut().rfind(|told| told.story == story.name) {
            told.deliveries.push(delivered.clone());
        }
        Ok(())
    }

    pub(super) fn ended(&mut self, story: &Story, ended: Ended) {
        if let Some(told) = self.told.iter_mut().rfind(|told| told.story == story.name) {
            told.ended = Some(ended);
        }
    }

    pub(super) fn balance(&mut self, balance: Balance) {
        self.balance = Some(balance);
    }

    /// How many deliveries were answered with 202.
    pub(super) fn accepted(&self) -> i64 {
        let accepted = self.told.iter().flat_map(|told| &told.deliveries).filter(|delivered| delivered.answer == 202);
        i64::try_from(accepted.count()).unwrap_or(i64::MAX)
    }

    /// Shows the table and the balance. Returns whether everything is as it should be.
    pub(super) fn closing(&self) -> std::io::Result<bool> {
        let as_told = self.told.iter().all(|told| told.ended.is_some_and(|ended| ended.as_told));
        let adds_up = self
            .balance
            .as_ref()
            .is_some_and(|balance| balance.adds_up() && balance.missing() == 0 && balance.accepted == self.accepted());
        let ok = as_told && adds_up;
        if self.json {
            let summary = Summary { stories: &self.told, balance: self.balance.as_ref(), adds_up, ok };
            let text = serde_json::to_string_pretty(&summary).map_err(std::io::Error::other)?;
            print(format_args!("{text}"))?;
            return Ok(ok);
        }
        self.line(format_args!("\n{:<12} {:<48} {:<10} {:>5}", "ACCOUNT", "WHAT HAPPENED", "AT DRATA", "CALLS"))?;
        for told in &self.told {
            let Some(ended) = told.ended else { continue };
            let status = if ended.linked { "linked" } else { "unlinked" };
            let wrong = if ended.as_told { "" } else { "  ✗ should be " };
            let expected = if ended.as_told { "" } else { told.expected };
            self.line(format_args!(
                "{:<12} {:<48} {status:<10} {:>5}{wrong}{expected}",
                told.account, told.title, ended.calls
            ))?;
        }
        if let Some(balance) = &self.balance {
            self.line(format_args!("\nbalance: {balance}"))?;
        }
        let verdict = match (as_told, adds_up) {
            (true, true) => "every account is as its story says, and nothing is missing",
            (false, _) => "an account is NOT as its story says",
            (true, false) => "the balance does NOT add up",
        };
        self.line(format_args!("{verdict}"))?;
        Ok(ok)
    }

    pub(super) fn keep_running(&self, stage: &Stage) -> std::io::Result<()> {
        let names: Vec<String> = stage.sources().map(ToString::to_string).collect();
        self.line(format_args!("\nStill running, with the sources {}; Ctrl-C ends it.", names.join(", ")))
    }

    fn line(&self, line: std::fmt::Arguments<'_>) -> std::io::Result<()> {
        if self.json { Ok(()) } else { print(line) }
    }
}

fn print(line: std::fmt::Arguments<'_>) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
