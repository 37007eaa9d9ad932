//! How listings look: aligned columns, wrapped sentences, JSON.
//!
//! Names and messages come from outside, so nothing reaches a terminal without passing [`plain`]: a login must not be
//! able to move the cursor or to turn the text around.

use std::convert::Infallible;
use std::io::{self, Write};

use serde::Serialize;

use crate::delivery::Timestamp;

/// How wide the output may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct Width {
    /// Columns that sentences are fitted into; cells are never cut [default: the terminal's, 100 without one]
    #[arg(long = "width", env = "COLUMNS", hide_env_values = true, value_name = "COLUMNS", default_value_t = usual(),
          hide_default_value = true, value_parser = columns, hide_short_help = true)]
    columns: usize,
}

impl Default for Width {
    fn default() -> Self {
        Self { columns: usual() }
    }
}

/// As wide as the terminal, if standard output is one.
fn usual() -> usize {
    terminal_size::terminal_size_of(io::stdout()).map_or(100, |(width, _)| usize::from(width.0).max(40))
}

/// An odd `COLUMNS` is no reason to show nothing.
#[expect(clippy::unnecessary_wraps, reason = "the shape of a clap parser")]
fn columns(text: &str) -> Result<usize, Infallible> {
    Ok(text.trim().parse().ok().filter(|columns| *columns > 0).map_or(100, |columns: usize| columns.max(40)))
}

/// Rows of aligned cells, each with an optional note on a line of its own.
#[derive(Debug)]
pub(super) struct Table {
    header: Vec<&'static str>,
    rows: Vec<(Vec<String>, String)>,
}

impl Table {
    pub(super) fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. The note may be empty.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N], note: &str) {
        debug_assert_eq!(N, self.header.len(), "a row has as many cells as the header");
        self.rows.push((cells.iter().map(|cell| plain(cell)).collect(), plain(note)));
    }

    /// Writes the table. Notes are shortened to the width.
    pub(super) fn write(&self, out: &mut dyn Write, indent: usize, width: Width) -> io::Result<()> {
        self.write_part(out, indent, width, true)
    }

    /// Writes the rows, below a header that was written before.
    pub(super) fn write_more(&self, out: &mut dyn Write, width: Width) -> io::Result<()> {
        self.write_part(out, 0, width, false)
    }

    fn write_part(&self, out: &mut dyn Write, indent: usize, width: Width, header: bool) -> io::Result<()> {
        let widths: Vec<usize> = (0..self.header.len())
            .map(|column| {
                let cells = self.rows.iter().map(|(cells, _)| cells[column].chars().count());
                cells.chain([self.header[column].chars().count()]).max().unwrap_or_default()
            })
            .collect();
        let line = |out: &mut dyn Write, cells: &mut dyn Iterator<Item = &str>| {
            let mut text = " ".repeat(indent);
            for (cell, width) in cells.zip(&widths) {
                text.push_str(&format!("{cell:<width$}  "));
            }
            writeln!(out, "{}", text.trim_end())
        };
        if header {
            line(out, &mut self.header.iter().copied())?;
        }
        for (cells, note) in &self.rows {
            line(out, &mut cells.iter().map(String::as_str))?;
            if !note.is_empty() {
                let indent = indent + 4;
                writeln!(out, "{:indent$}{}", "", shortened(note, width.columns.saturating_sub(indent)))?;
            }
        }
        Ok(())
    }
}

/// Writes a sentence, wrapped to the width; further lines are indented a little more.
pub(super) fn sentence(out: &mut dyn Write, indent: usize, width: Width, text: &str) -> io::Result<()> {
    let mut line = " ".repeat(indent);
    let mut empty = true;
    for word in plain(text).split(' ') {
        if !empty && line.chars().count() + 1 + word.chars().count() > width.columns {
            writeln!(out, "{line}")?;
            line = " ".repeat(indent + 2);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    writeln!(out, "{line}")
}

/// Writes JSON for machines and people.
pub(super) fn json(out: &mut dyn Write, value: &impl Serialize) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)?;
    Ok(())
}

/// A time to the second: the rest is in the JSON.
pub(super) fn time(at: Timestamp) -> String {
    at.whole_second().to_string()
}

/// A text without anything that a terminal might obey: control characters, and marks that turn text around.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

fn shortened(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let kept: String = text.chars().take(columns.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_aligned_and_notes_are_shortened() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["müller".into(), "due".into()], "a reason that goes on and on beyond forty columns");
        table.row(["x".into(), "settled".into()], "");
        insta::assert_snapshot!(written(|out| table.write(out, 0, Width { columns: 40 })), @r"
        NAME    STATE
        müller  due
            a reason that goes on and on beyond…
        x       settled
        ");
    }

    #[test]
    fn sentences_break_between_words() {
        let text = "It should be unlinked, because nothing is held any more.";
        insta::assert_snapshot!(written(|out| sentence(out, 0, Width { columns: 40 }, text)), @r"
        It should be unlinked, because nothing
          is held any more.
        ");
    }

    #[test]
    fn a_terminal_is_not_told_what_to_do() {
        assert_eq!(plain("a\u{1b}[2Jb\u{202e}c\nd"), "a\u{fffd}[2Jb\u{fffd}c d");
    }

    #[test]
    fn an_odd_width_is_no_error() {
        assert_eq!(["120", "", "0", "wide", "7"].map(|text| columns(text).unwrap()), [120, 100, 100, 100, 40]);
    }
}
