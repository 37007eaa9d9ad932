//! Log lines on standard error: text for a terminal, one JSON object a line for machines.
//!
//! Nothing that is logged can stop whoever logs it: [`super::writer`] says how. Lines that repeat are limited.

use std::fmt::Arguments;
use std::io::{IsTerminal, Write as _};
use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Level;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use super::repeat::{LeftOut, RepeatLimit, Repeats};
use super::writer::LineWriter;
use super::{panics, repeat};

/// How and what to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How lines are written.
    pub format: Format,
    /// What is logged: a level, or levels by module.
    pub filter: String,
}

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Text, Self::Json];

    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        }
    }

    const fn is_json(self, terminal: bool) -> bool {
        match self {
            Self::Auto => !terminal,
            Self::Text => false,
            Self::Json => true,
        }
    }
}

/// Reads a filter.
///
/// # Errors
/// If it isn't one.
pub fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(text)
}

/// What is never logged, whatever the filter says: lapin's warnings print whole messages, headers and bodies included.
/// Our own supervisor says once what matters.
const QUIET: [&str; 1] = ["lapin=off"];

/// How long the last lines may take to be written at the end.
const LAST: Duration = Duration::from_secs(1);
/// How many different lines are told of that were left out, at once.
const TOLD: usize = 20;

/// What this process logs through, once it does.
static LOG: OnceLock<Log> = OnceLock::new();

#[derive(Debug)]
struct Log {
    writer: LineWriter,
    repeats: Repeats,
}

/// Logging can't be started.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The filter can't be read.
    #[error(transparent)]
    Filter(#[from] ParseError),
    /// There is no thread that could write.
    #[error("can't start the thread that writes the log")]
    Thread(#[from] std::io::Error),
}

/// Starts logging. `no_color` is whether the user asked for no colours (<https://no-color.org>). If somebody in this
/// process has started logging before, that stays.
///
/// # Errors
/// If the filter can't be read, or no thread be started.
pub fn install(settings: &Settings, no_color: bool) -> Result<(), InstallError> {
    let filter = QUIET.into_iter().try_fold(filter(&settings.filter)?, |filter, directive| {
        Ok::<_, ParseError>(filter.add_directive(directive.parse()?))
    })?;
    if LOG.get().is_some() {
        return Ok(());
    }
    let started = Log { writer: LineWriter::stderr()?, repeats: Repeats::default() };
    let log = LOG.get_or_init(|| started);
    let terminal = std::io::stderr().is_terminal();
    let json = settings.format.is_json(terminal);
    // What its writer does wrong must not be printed: printing fails where writing did, and panics.
    let layer = fmt::layer().with_writer(log.writer.clone()).log_internal_errors(false);
    let layer = if json {
        layer.json().flatten_event(true).with_current_span(false).boxed()
    } else {
        layer.with_ansi(terminal && !no_color).with_target(false).boxed()
    };
    panics::write_to(log.writer.clone(), &log.repeats, json);
    // A second start in one process (tests) is no fault, and the first subscriber goes on.
    let _already_started =
        tracing_subscriber::registry().with(filter).with(RepeatLimit(&log.repeats)).with(layer).try_init();
    Ok(())
}

/// Waits until what was logged is written, for a moment.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.writer.flush(LAST);
    }
}

/// Writes a line for people to standard error, after all that was logged. Whether anybody reads it makes no difference.
pub fn last_line(line: Arguments<'_>) {
    match LOG.get() {
        Some(log) => {
            log.writer.line(format!("{line}\n").as_bytes());
            log.writer.flush(LAST);
        }
        None => {
            // Nobody is left to tell if standard error is closed, too.
            let _told = writeln!(std::io::stderr(), "{line}");
        }
    }
}

/// Says again and again, until the token is cancelled, which lines were left out because they repeat.
pub async fn summarize(token: CancellationToken) {
    let mut tick = tokio::time::interval(repeat::WINDOW);
    while token.run_until_cancelled(tick.tick()).await.is_some() {
        summary();
    }
    summary();
}

fn summary() {
    let Some(log) = LOG.get() else { return };
    let left_out = log.repeats.take(Instant::now());
    for LeftOut { level, message, count } in left_out.iter().take(TOLD) {
        if *level == Level::ERROR {
            tracing::error!(suppressed = count, of = message, "suppressed {count} similar lines");
        } else {
            tracing::warn!(suppressed = count, of = message, "suppressed {count} similar lines");
        }
    }
    let others: u64 = left_out.iter().skip(TOLD).map(|left_out| left_out.count).sum();
    if others > 0 {
        tracing::warn!(suppressed = others, of = "other messages", "suppressed {others} similar lines");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_text_on_a_terminal_and_json_elsewhere() {
        assert!(!Format::Auto.is_json(true));
        assert!(Format::Auto.is_json(false));
        assert!(!Format::Text.is_json(false));
        assert!(Format::Json.is_json(true));
    }

    #[test]
    fn installing_twice_is_harmless_and_a_bad_filter_is_an_error() {
        let settings = Settings { format: Format::Json, filter: "error".to_owned() };
        assert!(install(&settings, true).is_ok());
        assert!(install(&settings, true).is_ok());
        assert!(filter("info,rollcall::ingress=debug").is_ok());
        assert!(filter("info,=").is_err());
    }
}
