//! Log lines on standard error: text for a terminal, one JSON object a line for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::SubscriberInitExt;

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

/// Starts logging. `no_color` is whether the user asked for no colours (<https://no-color.org>). If somebody in this
/// process has started logging before, that stays.
///
/// # Errors
/// If the filter can't be read.
pub fn install(settings: &Settings, no_color: bool) -> Result<(), ParseError> {
    let filter = QUIET.into_iter().try_fold(filter(&settings.filter)?, |filter, directive| {
        Ok::<_, ParseError>(filter.add_directive(directive.parse()?))
    })?;
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start in one process (tests) is no fault, and the first subscriber goes on.
    let _already_started = if settings.format.is_json(terminal) {
        builder.json().flatten_event(true).with_current_span(false).finish().try_init()
    } else {
        builder.with_ansi(terminal && !no_color).with_target(false).finish().try_init()
    };
    Ok(())
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
