//! Requests for a source that doesn't exist. Most are strangers'; one that nearly names a source is an administrator's
//! slip, and every delivery to it is lost, so that it is logged, once an hour, with the source that was probably meant.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::delivery::Timestamp;

/// How many wrong paths are logged in one [`PERIOD`]. Beyond that they are only counted: who makes up names can't fill the log.
const MOST: usize = 64;

/// How long a path is remembered as logged, in microseconds: then all are forgotten, so that made-up names can't keep an
/// administrator's slip out of the log for good.
const PERIOD: i64 = 3600 * 1_000_000;

/// How much of a stranger's path is shown, in characters.
const SHOWN: usize = 100;

/// The wrong paths that were logged.
#[derive(Debug, Default)]
pub(super) struct Lost(Mutex<Logged>);

#[derive(Debug, Default)]
struct Logged {
    since: Timestamp,
    paths: BTreeSet<String>,
}

impl Lost {
    /// Why a path leads nowhere, for the log of refusals. A path that nearly names a source is logged here, once an hour.
    pub(super) fn explain<'s>(
        &self,
        path: &str,
        sources: impl Iterator<Item = &'s str>,
        now: Timestamp,
    ) -> Cow<'static, str> {
        let shown = cleaned(path);
        let Some(nearest) = nearest(path, sources) else {
            return format!("{shown} is no source").into();
        };
        if self.is_new(&shown, now) {
            tracing::warn!(
                path = shown,
                nearest,
                "a request asks for a source that doesn't exist; the nearest is /webhooks/{nearest}"
            );
        }
        "there is no such source, but one with nearly that name".into()
    }

    fn is_new(&self, shown: &str, now: Timestamp) -> bool {
        // Held for a few instructions that can't panic, so a poisoned lock holds sound data.
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.micros().saturating_sub(logged.since.micros()).saturating_abs() >= PERIOD {
            *logged = Logged { since: now, paths: BTreeSet::new() };
        }
        logged.paths.len() < MOST && logged.paths.insert(shown.to_owned())
    }
}

/// The source that the path was probably meant to name: wrong case, doubled slashes or a prefix of a proxy's are no
/// difference, and a few letters may be wrong.
fn nearest<'s>(path: &str, sources: impl Iterator<Item = &'s str>) -> Option<&'s str> {
    let wanted = path.split('/').rfind(|part| !part.is_empty())?;
    if wanted.len() > SHOWN {
        return None;
    }
    let wanted = wanted.to_lowercase();
    let length = wanted.chars().count();
    sources
        .filter_map(|source| {
            let most = (source.len() / 3).clamp(1, 3);
            // Names of sources are ASCII. So many letters more or fewer are at least as many differences.
            let near = length.abs_diff(source.len()) <= most;
            let distance = near.then(|| strsim::damerau_levenshtein(&wanted, source))?;
            (distance <= most).then_some((distance, source))
        })
        .min()
        .map(|(_, source)| source)
}

/// A stranger's words, fit for a log: bounded, and without control characters.
fn cleaned(text: &str) -> String {
    text.chars().take(SHOWN).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const SOURCES: [&str; 3] = ["acme-github", "acme-gitlab", "hub"];

    #[rstest]
    #[case("/webhooks/ACME-GitHub", Some("acme-github"))]
    #[case("//webhooks/acme-github", Some("acme-github"))]
    #[case("/webhooks//acme-github", Some("acme-github"))]
    #[case("/webhooks/acme-github//", Some("acme-github"))]
    #[case("/rollcall/webhooks/acme-github", Some("acme-github"))]
    #[case("/acme-github", Some("acme-github"))]
    #[case("/webhooks/acme-githb", Some("acme-github"))]
    #[case("/webhooks/acme-gitlabs", Some("acme-gitlab"))]
    #[case("/webhooks/hubs", Some("hub"))]
    // Bytes and letters are not the same number.
    #[case("/webhooks/äcme-githüb", Some("acme-github"))]
    #[case("/webhooks/acme-github1234", None)]
    #[case("/webhooks/robots.txt", None)]
    #[case("/webhooks/", None)]
    #[case("/", None)]
    #[case("", None)]
    fn the_nearest_source_is_what_was_meant(#[case] path: &str, #[case] expected: Option<&str>) {
        assert_eq!(nearest(path, SOURCES.into_iter()), expected);
    }

    #[test]
    fn what_strangers_say_is_bounded_and_cleaned() {
        assert_eq!(cleaned("/a\n\u{1b}[31mb"), "/a\u{fffd}\u{fffd}[31mb");
        assert_eq!(cleaned(&"x".repeat(10_000)).len(), SHOWN);
        assert_eq!(nearest(&format!("/{}", "x".repeat(10_000)), SOURCES.into_iter()), None);
        let lost = Lost::default();
        let now = Timestamp(PERIOD);
        assert!(lost.is_new("/webhooks/one", now) && !lost.is_new("/webhooks/one", now));
        let logged = (0..1000).filter(|n| lost.is_new(&format!("/webhooks/{n}"), now)).count();
        assert_eq!(logged, MOST - 1);
        let (before, after) = (Timestamp(2 * PERIOD - 1), Timestamp(2 * PERIOD));
        assert!(!lost.is_new("/webhooks/slip", before), "made-up names keep a slip out of the log for a while");
        assert!(lost.is_new("/webhooks/slip", after), "and no longer");
        assert!(lost.is_new("/webhooks/one", after));
    }
}
