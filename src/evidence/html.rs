//! One page that needs nothing else. Its summary stands on top and is known last, so the rows wait in a file of their own.

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek, Write};

use askama::Template;

use super::page::{Named, shown, shown_or_dash};
use super::summary::Took;
use super::{About, Summary, Writer};
use crate::drata::LinkEvent;
use crate::ledger::outcome::Outcome;
use crate::ledger::show::evidence::{ActionRow, EvidenceRow};

pub(super) struct Html<'a> {
    out: &'a mut (dyn Write + Send),
    rows: BufWriter<File>,
    actions: bool,
}

#[derive(Template)]
#[template(path = "report_top.html", config = "src/evidence/askama.toml")]
struct Top<'a> {
    about: &'a About,
    summary: &'a Summary,
}

/// One line of the page; what isn't known is empty.
#[derive(Template)]
#[template(path = "report_change.html", config = "src/evidence/askama.toml")]
struct Change<'a> {
    happened: String,
    received: String,
    told: String,
    took: String,
    logged: String,
    account: Named,
    change: &'a str,
    scope: String,
    outcome: Outcome,
    status: String,
    reason: &'a str,
    by: &'static str,
    operator: &'a str,
    delivery: &'a str,
    event: &'a str,
    source: &'a str,
}

#[derive(Template)]
#[template(path = "report_action.html", config = "src/evidence/askama.toml")]
struct Action<'a> {
    at: String,
    operator: &'a str,
    action: &'a str,
    account: Named,
    delivery: &'a str,
    detail: &'a str,
}

const NO_MORE: &str = "</tbody>\n</table>\n";
const ACTIONS: &str = "<h2>What operators did</h2>\n<table>\n<thead><tr><th>When</th><th>Who</th><th>What</th>\
    <th>Account</th><th>Delivery</th><th>More</th></tr></thead>\n<tbody>\n";

impl<'a> Html<'a> {
    pub(super) fn begin(out: &'a mut (dyn Write + Send)) -> anyhow::Result<Self> {
        Ok(Self { out, rows: BufWriter::new(tempfile::tempfile()?), actions: false })
    }
}

impl Writer for Html<'_> {
    fn change(&mut self, row: &EvidenceRow, event: Option<&LinkEvent>) -> anyhow::Result<()> {
        let told = row.told.as_ref();
        let change = Change {
            happened: shown_or_dash(row.happened_at),
            received: shown(row.received_at),
            told: shown_or_dash(told.map(|told| told.at)),
            took: told.map(|told| Took(told.delay_us).to_string()).unwrap_or_default(),
            logged: event.map(|event| shown(event.at)).unwrap_or_default(),
            account: row.account.as_ref().into(),
            change: row.change.as_deref().unwrap_or("-"),
            scope: row.scope.as_ref().map(ToString::to_string).unwrap_or_default(),
            outcome: row.outcome,
            status: told.and_then(|told| told.status).map(|status| status.to_string()).unwrap_or_default(),
            reason: row.reason.as_deref().unwrap_or_default(),
            by: row.cause.as_str(),
            operator: row.cause.operator().unwrap_or_default(),
            delivery: &row.delivery,
            event: &row.event,
            source: &row.source,
        };
        Ok(change.write_into(&mut self.rows)?)
    }

    fn action(&mut self, row: &ActionRow) -> anyhow::Result<()> {
        if !self.actions {
            self.actions = true;
            self.rows.write_all(format!("{NO_MORE}{ACTIONS}").as_bytes())?;
        }
        let action = Action {
            at: shown(row.at),
            operator: &row.operator,
            action: &row.action,
            account: row.account.as_ref().into(),
            delivery: row.delivery.as_deref().unwrap_or("-"),
            detail: row.detail.as_deref().unwrap_or_default(),
        };
        Ok(action.write_into(&mut self.rows)?)
    }

    fn end(self: Box<Self>, about: &About, summary: &Summary) -> anyhow::Result<()> {
        let Self { out, rows, .. } = *self;
        Top { about, summary }.write_into(&mut *out)?;
        let mut rows = rows.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        rows.rewind()?;
        std::io::copy(&mut BufReader::new(rows), &mut *out)?;
        out.write_all(NO_MORE.as_bytes())?;
        out.write_all(b"</body>\n</html>\n")?;
        Ok(out.flush()?)
    }
}
