//! A body, read one level deep: which keys it has, and each part typed when somebody asks for it.
//!
//! This is where an event's shape is held against its name, and where faults get their JSON path. No message carries
//! a value of the body. It doesn't know what any event means.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::marks::{COMMON, known};
use crate::provider::Misshapen;

/// The body's object.
#[derive(Default)]
pub(super) struct Body<'a> {
    parts: BTreeMap<&'static str, &'a RawValue>,
    /// Whether it has keys that [`known`] doesn't list.
    has_unknown: bool,
}

impl<'a> Body<'a> {
    /// Reads the JSON text.
    ///
    /// # Errors
    /// If it isn't JSON, isn't an object, or has a key twice: readers would differ in which one they believe.
    pub(super) fn read(json: &'a [u8]) -> Result<Self, Misshapen> {
        let text = std::str::from_utf8(json).map_err(|_| misshapen(".", "isn't UTF-8"))?;
        serde_json::from_str(text).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => misshapen(".", expectation(&error.to_string())),
            _ => misshapen(".", "isn't JSON"),
        })
    }

    /// Holds the body against an event: every key of `has` is there, and no mark of another event, which is every
    /// known key that is neither common nor in `has` or `may`. `null` counts as there.
    pub(super) fn is(&self, event: &str, has: &[&str], may: &[&str]) -> Result<(), Misshapen> {
        if let Some(missing) = has.iter().find(|key| !self.has(key)) {
            return Err(misshapen(missing, format!("is missing, but every `{event}` event has it")));
        }
        let is_ours = |key: &str| COMMON.contains(&key) || has.contains(&key) || may.contains(&key);
        match self.parts.keys().find(|key| !is_ours(key)) {
            Some(foreign) => Err(misshapen(foreign, format!("belongs to another event than `{event}`"))),
            None => Ok(()),
        }
    }

    /// As [`Body::is`], for events that end everybody's access and have no key of their own: here a key of which we
    /// know nothing may be the mark of an event of which we know nothing.
    pub(super) fn is_only(&self, event: &str, has: &[&str], may: &[&str]) -> Result<(), Misshapen> {
        self.is(event, has, may)?;
        if self.has_unknown {
            return Err(misshapen(".", format!("has keys that a `{event}` event isn't known to have")));
        }
        Ok(())
    }

    /// Whether the key is there, `null` or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.parts.contains_key(key)
    }

    /// Refuses a common key that this event doesn't have.
    pub(super) fn lacks(&self, event: &str, key: &str) -> Result<(), Misshapen> {
        if self.has(key) {
            return Err(misshapen(key, format!("belongs to another event than `{event}`")));
        }
        Ok(())
    }

    /// The `action`: signed, unlike the event's name.
    pub(super) fn action(&self) -> Result<String, Misshapen> {
        self.get("action")
    }

    /// A part that must be there.
    pub(super) fn get<T: Deserialize<'a>>(&self, key: &'static str) -> Result<T, Misshapen> {
        let raw = self.parts.get(key).ok_or_else(|| misshapen(key, "is missing"))?;
        typed(key, raw)
    }

    /// A part that may be missing or `null`.
    pub(super) fn find<T: Deserialize<'a>>(&self, key: &'static str) -> Result<Option<T>, Misshapen> {
        self.parts.get(key).map_or(Ok(None), |raw| typed(key, raw))
    }
}

impl fmt::Debug for Body<'_> {
    /// The keys alone, so that no log line can carry the body.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.parts.keys()).finish()
    }
}

fn typed<'a, T: Deserialize<'a>>(key: &str, raw: &'a RawValue) -> Result<T, Misshapen> {
    let mut json = serde_json::Deserializer::from_str(raw.get());
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let inner = error.path().to_string();
        let path = if inner == "." { key.to_owned() } else { format!("{key}.{inner}") };
        misshapen(&path, expectation(&error.inner().to_string()))
    })
}

fn misshapen(path: &str, message: impl Into<String>) -> Misshapen {
    Misshapen { path: path.to_owned(), message: message.into() }
}

/// What serde expected, without what it found: "invalid type: string "s3cret", expected u64 at line 1 column 9" becomes
/// "is not u64". The text after the last "expected" is always ours.
fn expectation(error: &str) -> String {
    let error = error.rsplit_once(" at line ").map_or(error, |(message, _)| message);
    if error.starts_with("missing field `") || error.starts_with("duplicate field `") {
        return error.to_owned();
    }
    match error.rsplit_once(", expected ") {
        Some((_, expected)) => format!("is not {expected}"),
        None => "has the wrong shape".to_owned(),
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Body<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Body<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body<'de>, A::Error> {
                let mut body = Body::default();
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    match known(&key) {
                        Some(key) if body.parts.insert(key, map.next_value()?).is_some() => {
                            return Err(A::Error::duplicate_field(key));
                        }
                        Some(_) => {}
                        None => {
                            body.has_unknown = true;
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(body)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("[]", ".: is not an object")]
    #[case("7", ".: is not an object")]
    #[case("{", ".: isn't JSON")]
    #[case("{} x", ".: isn't JSON")]
    #[case("", ".: isn't JSON")]
    #[case(r#"{"action":"a","action":"b"}"#, ".: duplicate field `action`")]
    fn what_is_not_one_object_is_misshapen(#[case] json: &str, #[case] fault: &str) {
        assert_eq!(Body::read(json.as_bytes()).unwrap_err().to_string(), fault);
    }

    #[test]
    fn shapes_are_told_by_the_keys_they_have_and_lack() {
        let body = Body::read(br#"{"action":"x","team":{},"sender":{},"novelty":1}"#).unwrap();
        assert!(body.is("team", &["team"], &[]).is_ok());
        assert!(body.is("other", &[], &["team"]).is_ok());
        assert_eq!(body.is("member", &["member"], &[]).unwrap_err().path, "member");
        assert_eq!(body.is("organization", &[], &[]).unwrap_err().path, "team");
        assert_eq!(body.is_only("team", &["team"], &[]).unwrap_err().path, ".");
        assert_eq!(body.lacks("organization", "sender").unwrap_err().path, "sender");
    }

    #[test]
    fn a_mark_counts_even_if_it_is_null() {
        let body = Body::read(br#"{"action":"deleted","repository":{},"starred_at":null}"#).unwrap();
        assert_eq!(body.is("repository", &["repository"], &[]).unwrap_err().path, "starred_at");
    }

    #[test]
    fn faults_have_a_path_and_no_values() {
        #[derive(Debug, Deserialize)]
        struct Outer {
            #[expect(dead_code, reason = "only its shape matters")]
            inner: Inner,
        }
        #[derive(Debug, Deserialize)]
        struct Inner {
            #[expect(dead_code, reason = "only its shape matters")]
            id: u64,
        }
        let fault = |json: &str| Body::read(json.as_bytes()).unwrap().get::<Outer>("team").unwrap_err().to_string();
        assert_eq!(fault(r#"{"team":{"inner":{"id":"s3cret, expected x at line 2"}}}"#), "team.inner.id: is not u64");
        assert_eq!(fault(r#"{"team":{"inner":{"id":-5}}}"#), "team.inner.id: is not u64");
        assert_eq!(fault(r#"{"team":{"inner":{}}}"#), "team.inner: missing field `id`");
        assert_eq!(fault(r#"{"team":"s3cret"}"#), "team: is not struct Outer");
        assert_eq!(fault(r"{}"), "team: is missing");
    }
}
