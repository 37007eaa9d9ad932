//! The report for auditors: every change of access in a period, in CSV, JSON or HTML.
//!
//! It is written as it is read: nothing here grows with the number of changes but eight bytes for each delay, since a
//! median needs them all, and the platform's own entries. What the ledger says is [`crate::ledger::show::evidence`]; that
//! it wasn't rewritten is proved by [`crate::ledger::seal`].

mod csv;
mod html;
mod json;
pub mod page;
pub mod platform;
pub mod summary;
#[cfg(test)]
mod tests;

use std::io::Write;

use serde::Serialize;

use self::platform::PlatformEvents;
use self::summary::{Summary, Tally};
use crate::delivery::Timestamp;
use crate::drata::LinkEvent;
use crate::ledger::Ledger;
use crate::ledger::seal::Head;
use crate::ledger::show::evidence::{ActionRow, EvidenceRow, Period};

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One line a change, for spreadsheets
    Csv,
    /// One object, for machines
    Json,
    /// One page that needs nothing else, to read and to print
    Html,
}

/// What a report says of itself: how it was chosen, and what it rests on.
#[derive(Clone, Debug, Serialize)]
pub struct About {
    /// The version of rollcall that made it.
    pub version: &'static str,
    /// When it was made.
    pub made_at: Timestamp,
    /// What was received from then on.
    pub from: Timestamp,
    /// What was received before then.
    pub to: Timestamp,
    /// Only what concerned this account.
    pub account: Option<String>,
    /// All times are in this time zone.
    pub time_zone: &'static str,
    /// The latest seal over the history.
    pub head: Option<Head>,
    /// How many rows of the history aren't sealed yet.
    pub unsealed: i64,
    /// Whether the platform's own log was read.
    #[serde(serialize_with = "crate::ledger::show::as_text")]
    pub platform_events: PlatformEvents,
}

/// One way to write a report.
trait Writer {
    fn change(&mut self, row: &EvidenceRow, event: Option<&LinkEvent>) -> anyhow::Result<()>;
    fn action(&mut self, row: &ActionRow) -> anyhow::Result<()>;
    fn end(self: Box<Self>, about: &About, summary: &Summary) -> anyhow::Result<()>;
}

/// Writes the report of a period.
///
/// # Errors
/// If the ledger or `out` fails.
pub async fn write(
    ledger: &Ledger,
    period: Period,
    about: &mut About,
    format: Format,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<Summary> {
    let mut evidence = ledger.evidence(period).await?;
    let mut events = std::mem::take(&mut about.platform_events);
    let mut tally = Tally::default();
    let mut writer: Box<dyn Writer + Send + '_> = match format {
        Format::Csv => Box::new(csv::Csv::begin(out)?),
        Format::Json => Box::new(json::Json::begin(out)),
        Format::Html => Box::new(html::Html::begin(out)?),
    };
    while let Some(rows) = evidence.changes().await? {
        for row in &rows {
            let event = row.told.as_ref().and_then(|told| events.of(told));
            tally.add(row, event.is_some());
            writer.change(row, event)?;
        }
    }
    while let Some(rows) = evidence.actions().await? {
        for row in &rows {
            writer.action(row)?;
        }
    }
    about.platform_events = events;
    let summary = tally.end(evidence.outcomes().await?);
    evidence.end().await?;
    writer.end(about, &summary)?;
    Ok(summary)
}
