//! One line a change, then one for each thing that an operator did, for spreadsheets.

use std::io::Write;

use super::{About, Summary, Writer};
use crate::delivery::Timestamp;
use crate::drata::LinkEvent;
use crate::ledger::show::AccountLabel;
use crate::ledger::show::evidence::{ActionRow, Cause, EvidenceRow};
use crate::spreadsheet::guarded;
use crate::target::LinkStatus;

const HEADER: [&str; 24] = [
    "happened_at",
    "received_at",
    "recorded_at",
    "platform_at",
    "delay_ms",
    "change",
    "account",
    "login",
    "scope",
    "scope_name",
    "outcome",
    "reason",
    "status",
    "person",
    "by",
    "operator",
    "replay",
    "source",
    "event",
    "delivery",
    "row",
    "http_status",
    "platform_event",
    "platform_event_at",
];

pub(super) struct Csv<'a>(csv::Writer<&'a mut (dyn Write + Send)>);

impl<'a> Csv<'a> {
    pub(super) fn begin(out: &'a mut (dyn Write + Send)) -> anyhow::Result<Self> {
        let mut writer = csv::Writer::from_writer(out);
        writer.write_record(HEADER)?;
        Ok(Self(writer))
    }

    fn write(&mut self, cells: [Option<String>; HEADER.len()]) -> anyhow::Result<()> {
        Ok(self.0.write_record(cells.iter().map(|cell| guarded(cell.as_deref().unwrap_or_default()).into_owned()))?)
    }
}

impl Writer for Csv<'_> {
    fn change(&mut self, row: &EvidenceRow, event: Option<&LinkEvent>) -> anyhow::Result<()> {
        let told = row.told.as_ref();
        let status = told.and_then(|told| told.status);
        let replay = match &row.cause {
            Cause::Replay { replay, .. } => Some(replay.clone()),
            _ => None,
        };
        self.write([
            time(row.happened_at),
            time(Some(row.received_at)),
            time(row.recorded_at),
            time(told.map(|told| told.at)),
            told.map(|told| (told.delay_us / 1000).to_string()),
            row.change.clone(),
            key(row.account.as_ref()),
            login(row.account.as_ref()),
            row.scope.as_ref().map(|scope| scope.id.to_string()),
            row.scope.as_ref().and_then(|scope| scope.name.clone()),
            Some(row.outcome.to_string()),
            row.reason.clone(),
            status.map(|status| if status == LinkStatus::Unlinked { "unlinked" } else { "linked" }.to_owned()),
            status.and_then(|status| match status {
                LinkStatus::Linked(person) => Some(person.to_string()),
                LinkStatus::Unlinked => None,
            }),
            Some(row.cause.as_str().to_owned()),
            row.cause.operator().map(ToOwned::to_owned),
            replay,
            Some(row.source.clone()),
            Some(row.event.clone()),
            Some(row.delivery.clone()),
            Some(row.row.to_string()),
            told.and_then(|told| told.http_status).map(|status| status.to_string()),
            event.map(|event| event.id.clone()),
            time(event.map(|event| event.at)),
        ])
    }

    fn action(&mut self, row: &ActionRow) -> anyhow::Result<()> {
        let mut cells = [const { None }; HEADER.len()];
        let mut set = |column: &str, cell: Option<String>| {
            if let Some(place) = HEADER.iter().position(|name| *name == column) {
                cells[place] = cell;
            }
        };
        set("happened_at", time(Some(row.at)));
        set("change", Some(row.action.clone()));
        set("account", key(row.account.as_ref()));
        set("login", login(row.account.as_ref()));
        set("reason", row.detail.clone());
        set("by", Some("operator".to_owned()));
        set("operator", Some(row.operator.clone()));
        set("delivery", row.delivery.clone());
        self.write(cells)
    }

    fn end(mut self: Box<Self>, _: &About, _: &Summary) -> anyhow::Result<()> {
        Ok(self.0.flush()?)
    }
}

fn time(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.to_string())
}

fn key(account: Option<&AccountLabel>) -> Option<String> {
    account.map(|account| account.key.to_string())
}

fn login(account: Option<&AccountLabel>) -> Option<String> {
    account.and_then(|account| account.login.clone())
}
