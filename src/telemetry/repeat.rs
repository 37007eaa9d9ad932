//! A limit on warnings and errors that repeat: in an outage the same trouble comes up a thousand times, and a log that tells
//! each of them fills a disk. The same line is written a few times in a while; how often it came up after that is said
//! once, later. Other levels aren't limited: they tell what is done, and nothing is done in a loop that fails.
//!
//! Two lines are the same if they come from the same place in the code with the same message and the same telling fields:
//! those that say what part is in trouble and why. Which account or delivery it was makes no other line of it.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash as _, Hasher};
use std::mem;
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::metrics::LOG_LINES_DROPPED;

/// How often the same line is written
const TIMES: u32 = 10;
/// in such a time.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// How many different lines are told apart; of more at once, each place in the code counts as one.
const MOST: usize = 1024;
/// How many places in the code are told apart on top of that: more than there are.
const MOST_PLACES: usize = 2 * MOST;
/// The longest part of a message that is kept, in characters.
const MAX_MESSAGE: usize = 200;
/// The fields that make another line of it.
const TELLING: [&str; 12] =
    ["connection", "error", "job", "of", "operation", "reason", "result", "role", "root", "source", "task", "why"];

/// The lines that were written lately. Shared by the filter and by whoever says what was left out.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    lines: Mutex<HashMap<u64, Line>>,
}

#[derive(Debug)]
struct Line {
    began: Instant,
    written: u32,
    left_out: u64,
    level: Level,
    message: String,
}

/// Lines that weren't written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) level: Level,
    pub(super) message: String,
    pub(super) count: u64,
}

impl Repeats {
    /// Whether a line is to be written.
    fn admits(&self, event: &Event<'_>, now: Instant) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN {
            return true;
        }
        let mut seen = Seen::new(metadata);
        event.record(&mut seen);
        self.admit(seen.hash.finish(), seen.place, *metadata.level(), &seen.message, now)
    }

    /// The same for a line of which only this is known. Never waits: whoever panics may be in the middle of another.
    pub(super) fn admits_panic(&self, place: u64, message: &str, now: Instant) -> bool {
        match self.lines.try_lock() {
            Ok(mut lines) => admit(&mut lines, place, place, Level::ERROR, message, now),
            Err(TryLockError::Poisoned(lines)) => {
                admit(&mut lines.into_inner(), place, place, Level::ERROR, message, now)
            }
            Err(TryLockError::WouldBlock) => true,
        }
    }

    fn admit(&self, line: u64, place: u64, level: Level, message: &str, now: Instant) -> bool {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        admit(&mut lines, line, place, level, message, now)
    }

    /// Takes what was left out since the last time, and forgets what doesn't repeat any more.
    pub(super) fn take(&self, now: Instant) -> Vec<LeftOut> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left_out: Vec<LeftOut> = lines.values_mut().filter_map(Line::take).collect();
        lines.retain(|_, line| !line.is_over(now));
        left_out.sort_by(|one, other| other.count.cmp(&one.count).then_with(|| one.message.cmp(&other.message)));
        left_out
    }
}

fn admit(lines: &mut HashMap<u64, Line>, line: u64, place: u64, level: Level, message: &str, now: Instant) -> bool {
    if lines.len() >= MOST && !lines.contains_key(&line) {
        lines.retain(|_, line| !(line.is_over(now) && line.left_out == 0));
    }
    let room = lines.len() < MOST || lines.contains_key(&line);
    let key = if room { line } else { place };
    if lines.len() >= MOST_PLACES && !lines.contains_key(&key) {
        return true;
    }
    let fresh = || Line { began: now, written: 0, left_out: 0, level, message: shortened(message) };
    lines.entry(key).or_insert_with(fresh).admit(now)
}

fn shortened(message: &str) -> String {
    message.chars().take(MAX_MESSAGE).collect()
}

impl Line {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= WINDOW
    }

    fn admit(&mut self, now: Instant) -> bool {
        if self.is_over(now) {
            (self.began, self.written) = (now, 0);
        }
        let admitted = self.written < TIMES;
        if admitted {
            self.written += 1;
        } else {
            self.left_out = self.left_out.saturating_add(1);
            metrics::counter!(LOG_LINES_DROPPED, "reason" => "repeated").increment(1);
        }
        admitted
    }

    fn take(&mut self) -> Option<LeftOut> {
        let count = mem::take(&mut self.left_out);
        (count > 0).then(|| LeftOut { level: self.level, message: self.message.clone(), count })
    }
}

/// What makes a line the same as another.
struct Seen {
    place: u64,
    hash: DefaultHasher,
    message: String,
}

impl Seen {
    fn new(metadata: &Metadata<'_>) -> Self {
        let mut hash = DefaultHasher::new();
        metadata.callsite().hash(&mut hash);
        Self { place: hash.finish(), hash, message: String::new() }
    }

    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let is_message = field.name() == "message";
        if !is_message && !TELLING.contains(&field.name()) {
            return;
        }
        let mut text = String::new();
        // Writing to a string doesn't fail, unless a value's own formatting does; then it counts as it is.
        let _ = text.write_fmt(value);
        field.name().hash(&mut self.hash);
        text.hash(&mut self.hash);
        if is_message {
            self.message = text;
        }
    }
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, format_args!("{value}"));
    }
}

/// Leaves out lines that repeat. Not a filter of one layer: those keep state between their questions, which an event that
/// is left out at its last one leaves behind.
#[derive(Clone, Debug)]
pub(super) struct RepeatLimit(pub(super) &'static Repeats);

impl<S: Subscriber> Layer<S> for RepeatLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.0.admits(event, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::Registry;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// What a subscriber with the filter lets through, as messages.
    fn written(log: impl FnOnce()) -> (Vec<String>, &'static Repeats) {
        struct Keep(std::sync::Arc<Mutex<Vec<String>>>);
        impl<S: Subscriber> Layer<S> for Keep {
            fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                let mut seen = Seen::new(event.metadata());
                event.record(&mut seen);
                self.0.lock().unwrap().push(seen.message);
            }
        }
        let (repeats, kept) = (Box::leak(Box::default()), std::sync::Arc::default());
        let subscriber = Registry::default().with(RepeatLimit(repeats)).with(Keep(std::sync::Arc::clone(&kept)));
        tracing::subscriber::with_default(subscriber, log);
        let kept = kept.lock().unwrap().clone();
        (kept, repeats)
    }

    #[test]
    fn the_same_trouble_is_written_ten_times_whoever_has_it() {
        let (lines, repeats) = written(|| {
            for account in 0..25 {
                tracing::error!(account, error = "no route", "the ledger failed");
                tracing::warn!(account, source = if account % 2 == 0 { "even" } else { "odd" }, "refused");
            }
        });
        assert_eq!(lines.iter().filter(|line| *line == "the ledger failed").count(), 10);
        assert_eq!(lines.iter().filter(|line| *line == "refused").count(), 20);
        let left_out = repeats.take(Instant::now());
        let expected = |level, message: &str, count| LeftOut { level, message: message.to_owned(), count };
        assert_eq!(
            left_out,
            [
                expected(Level::ERROR, "the ledger failed", 15),
                expected(Level::WARN, "refused", 3),
                expected(Level::WARN, "refused", 2),
            ]
        );
        assert!(repeats.take(Instant::now()).is_empty());
    }

    #[test]
    fn what_differs_is_never_left_out() {
        let (lines, repeats) = written(|| {
            for account in 0..5000 {
                tracing::info!(account, "reconciled");
            }
            for gap in 0..1000 {
                tracing::error!("deliveries are missing: {gap}");
            }
        });
        assert_eq!(lines.len(), 6000);
        assert!(repeats.take(Instant::now()).is_empty());
    }

    #[test]
    fn of_more_than_can_be_told_apart_each_place_in_the_code_is_limited() {
        let (lines, repeats) = written(|| {
            for gap in 0..5000 {
                tracing::error!("deliveries are missing: {gap}");
            }
            tracing::warn!("something else");
        });
        assert_eq!(lines.len(), MOST + 10 + 1);
        let left_out: u64 = repeats.take(Instant::now()).iter().map(|left_out| left_out.count).sum();
        assert_eq!(left_out, 5000 - 10 - MOST as u64);
        assert!(repeats.lines.lock().unwrap().len() <= MOST_PLACES);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_while_it_is_written_again_and_forgotten_when_it_stops() {
        let repeats = Repeats::default();
        let admit = || repeats.admit(1, 1, Level::WARN, "slow", Instant::now());
        assert_eq!((0..12).filter(|_| admit()).count(), 10);
        tokio::time::advance(WINDOW).await;
        assert_eq!((0..12).filter(|_| admit()).count(), 10);
        assert_eq!(repeats.take(Instant::now())[0].count, 4);
        tokio::time::advance(WINDOW).await;
        assert!(repeats.take(Instant::now()).is_empty());
        assert!(repeats.lines.lock().unwrap().is_empty());
    }

    #[test]
    fn a_panic_in_the_middle_of_a_line_is_written() {
        let repeats = Repeats::default();
        let _held = repeats.lines.lock().unwrap();
        assert!(repeats.admits_panic(1, "a panic", Instant::now()));
    }
}
