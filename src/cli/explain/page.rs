//! What is explained, before it is text or HTML: sentences and tables under headings.

use std::io::Write;

use askama::Template;

use super::super::deliveries::won;
use super::super::table::{Table, Width, sentence, time};
use crate::ledger::show::timeline::{Happening, Moment};

/// An explanation.
#[derive(Debug, Template)]
#[template(path = "explain.html", config = "src/evidence/askama.toml")]
pub(super) struct Page {
    pub(super) title: String,
    pub(super) sections: Vec<Section>,
}

/// A part of it.
#[derive(Debug, Default)]
pub(super) struct Section {
    /// Empty for the first one.
    pub(super) heading: String,
    pub(super) sentences: Vec<String>,
    pub(super) grid: Grid,
}

/// Rows of cells, each with a note that may be empty.
#[derive(Debug, Default)]
pub(super) struct Grid {
    pub(super) header: Vec<&'static str>,
    pub(super) rows: Vec<(Vec<String>, String)>,
}

impl Page {
    pub(super) fn text(&self, width: Width, out: &mut dyn Write) -> anyhow::Result<()> {
        for (place, section) in self.sections.iter().enumerate() {
            let indent = if section.heading.is_empty() { 0 } else { 2 };
            if place > 0 {
                writeln!(out)?;
            }
            if !section.heading.is_empty() {
                sentence(out, 0, width, &section.heading)?;
            }
            for text in &section.sentences {
                sentence(out, indent, width, text)?;
            }
            let Grid { header, rows } = &section.grid;
            if rows.is_empty() {
                continue;
            }
            if !section.sentences.is_empty() {
                writeln!(out)?;
            }
            let mut table = Table::new(header);
            for (cells, note) in rows {
                table.cells(cells, note);
            }
            table.write(out, indent, width)?;
        }
        Ok(())
    }

    pub(super) fn html(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        writeln!(out, "{}", self.render()?)?;
        Ok(())
    }
}

/// What happened, as a section.
pub(super) fn happened(moments: &[Moment]) -> Section {
    Section {
        heading: "What happened, in order of time".to_owned(),
        sentences: Vec::new(),
        grid: Grid { header: vec!["WHEN", "WHAT", "OF IT", "CAME TO"], rows: moments.iter().map(row).collect() },
    }
}

fn row(moment: &Moment) -> (Vec<String>, String) {
    let (what, of_it, came_to, notes) = match &moment.what {
        Happening::Delivery { row, delivery, source, event, roster, change, scope, effect, reason, superseded_by } => {
            let told = scope.as_ref().map_or_else(|| change.clone(), |scope| format!("{change} {scope}"));
            let winner = superseded_by.as_ref().map(won);
            let notes = [Some(told), Some(format!("{delivery} of {source} (#{row})")), winner, reason.clone()];
            (if *roster { "roster" } else { "delivery" }, event.clone(), effect.to_string(), notes)
        }
        Happening::Outcome { outcome, reason } => {
            ("outcome", "-".to_owned(), outcome.to_string(), [reason.clone(), None, None, None])
        }
        Happening::Replay { replay, operator, row, delivery, before } => {
            let before = before.map(|before| format!("it was {before} before"));
            let by = operator.as_ref().map(|operator| format!("by {operator}"));
            (
                "replay",
                format!("#{row}"),
                "recorded".to_owned(),
                [Some(delivery.clone()), before, by, Some(replay.clone())],
            )
        }
        Happening::Action { operator, action, detail } => (
            "operator",
            action.clone(),
            "done".to_owned(),
            [Some(format!("by {operator}")), detail.clone(), None, None],
        ),
        Happening::Call { connection, operation, wanted, http_status, result, duration_us, message } => {
            let answer = http_status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
            let wanted = wanted.map(|wanted| format!("{wanted} in {connection}"));
            let took = format!("{} ms", duration_us / 1000);
            ("call", operation.clone(), format!("{result} ({answer})"), [wanted, message.clone(), Some(took), None])
        }
    };
    let notes: Vec<String> = notes.into_iter().flatten().collect();
    (vec![time(moment.at), what.to_owned(), of_it, came_to], notes.join(" · "))
}
