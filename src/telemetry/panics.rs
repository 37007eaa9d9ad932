//! What a panic looks like in the log. The standard library's own message would be a line of text in a log of JSON, written
//! by whoever panics, and might wait for ever for a reader.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::panic::{self, PanicHookInfo};

use serde::Serialize;
use tokio::time::Instant;

use super::repeat::Repeats;
use super::writer::LineWriter;
use crate::delivery::Timestamp;
use crate::shutdown::message;

/// The longest backtrace that is written, in bytes.
const MAX_BACKTRACE: usize = 16 << 10;

/// A panic as a line of JSON, with the fields that events have there.
#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'static str,
    message: &'static str,
    panic: &'a str,
    location: &'a str,
    thread: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    backtrace: Option<&'a str>,
    target: &'static str,
}

/// Writes panics as lines of the log from now on. Not as events: a panic may come out of the subscriber itself, and a hook
/// that panics ends the process at once.
pub(super) fn write_to(writer: LineWriter, repeats: &'static Repeats, json: bool) {
    panic::set_hook(Box::new(move |info| {
        let (message, location) = (message(info.payload()), place(info));
        let mut place = DefaultHasher::new();
        location.hash(&mut place);
        if repeats.admits_panic(place.finish(), &message, Instant::now()) {
            let thread = std::thread::current();
            let backtrace = backtrace();
            let line = Line {
                timestamp: Timestamp::now().to_string(),
                level: "ERROR",
                message: "panicked",
                panic: &message,
                location: &location,
                thread: thread.name().unwrap_or("-"),
                backtrace: backtrace.as_deref(),
                target: "rollcall::panic",
            };
            writer.line(line.written(json).as_bytes());
        }
    }));
}

fn place(info: &PanicHookInfo<'_>) -> String {
    info.location().map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// Only if `RUST_BACKTRACE` asks for it.
fn backtrace() -> Option<String> {
    let backtrace = std::backtrace::Backtrace::capture();
    (backtrace.status() == std::backtrace::BacktraceStatus::Captured).then(|| {
        let mut text = backtrace.to_string();
        text.truncate(text.floor_char_boundary(MAX_BACKTRACE));
        text
    })
}

impl Line<'_> {
    fn written(&self, json: bool) -> String {
        let mut line = if json { serde_json::to_string(self).unwrap_or_default() } else { self.text() };
        line.push('\n');
        line
    }

    fn text(&self) -> String {
        let Self { timestamp, level, message, panic, location, thread, .. } = self;
        let backtrace = self.backtrace.map_or_else(String::new, |backtrace| format!("\n{backtrace}"));
        format!("{timestamp} {level} {message} panic={panic:?} location={location} thread={thread:?}{backtrace}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_one_line_of_json_or_of_text() {
        let line = Line {
            timestamp: "2026-01-01T00:00:00Z".to_owned(),
            level: "ERROR",
            message: "panicked",
            panic: "no \"such\" thing",
            location: "src/a.rs:1:2",
            thread: "main",
            backtrace: None,
            target: "rollcall::panic",
        };
        insta::assert_snapshot!(line.written(true), @r#"{"timestamp":"2026-01-01T00:00:00Z","level":"ERROR","message":"panicked","panic":"no \"such\" thing","location":"src/a.rs:1:2","thread":"main","target":"rollcall::panic"}"#);
        insta::assert_snapshot!(line.written(false), @r#"2026-01-01T00:00:00Z ERROR panicked panic="no \"such\" thing" location=src/a.rs:1:2 thread="main""#);
    }
}
