//! `--watch`: a listing that goes on until Ctrl-C. On a terminal it is drawn anew; anywhere else only what is new or has
//! changed is added, with `--json` one object a line.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often to look.
const EVERY: Duration = Duration::from_secs(1);

/// To the left upper corner, and nothing below it.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// How to show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Drawn anew each time, for a terminal.
    Redraw,
    /// Lines of a table.
    Append,
    /// Lines of JSON.
    Json,
}

impl Style {
    /// The style for JSON or people, who look at it live or don't.
    pub(super) const fn of(json: bool, live: bool) -> Self {
        match (json, live) {
            (true, _) => Self::Json,
            (false, true) => Self::Redraw,
            (false, false) => Self::Append,
        }
    }
}

/// Shows a listing until the token is cancelled. `list` gives the rows, the latest first; `key` names a row for good;
/// `table` writes rows, with a header if that is asked for.
pub(super) async fn watch<T: PartialEq + Serialize>(
    style: Style,
    token: &CancellationToken,
    out: &mut (dyn Write + Send),
    mut list: impl AsyncFnMut() -> anyhow::Result<Vec<T>>,
    key: impl Fn(&T) -> String,
    table: impl Fn(&[T], bool, &mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut shown: BTreeMap<String, T> = BTreeMap::new();
    let mut first = true;
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while token.run_until_cancelled(tick.tick()).await.is_some() {
        let rows = list().await?;
        if style == Style::Redraw {
            write!(out, "{CLEAR}")?;
            table(&rows, true, out)?;
            writeln!(out, "\nLooked at every second; Ctrl-C ends.")?;
        } else {
            let mut news: Vec<T> = rows.into_iter().filter(|row| shown.get(&key(row)) != Some(row)).collect();
            news.reverse();
            if style == Style::Json {
                for row in &news {
                    serde_json::to_writer(&mut *out, row)?;
                    writeln!(out)?;
                }
            } else if first || !news.is_empty() {
                table(&news, first, out)?;
            }
            shown.extend(news.into_iter().map(|row| (key(&row), row)));
            first = false;
        }
        out.flush()?;
    }
    Ok(())
}
