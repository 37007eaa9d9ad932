//! Fields that the bodies of several providers have, and how a body is read into them.
//!
//! Strict on what decides, lenient on the rest: providers of other versions leave fields out, and an administrator may
//! have changed a template. So a body is read into [`Loose`] values, each of which is looked at only if it is needed, and
//! a label that is missing or unusable costs nothing but the label. What nobody asks for is skipped and never built.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Unexpected, Visitor};
use serde_json::value::RawValue;

use super::Misshapen;
use crate::delivery::{Delivery, Encodings};

/// The JSON text of a delivery, by the encodings of its provider. It must be UTF-8.
///
/// # Errors
/// [`Misshapen`] if it isn't.
pub(crate) fn json_text(delivery: &Delivery, encodings: Encodings) -> Result<Cow<'_, str>, Misshapen> {
    let not_utf8 = |_| Misshapen::of(".", "isn't UTF-8");
    match delivery.json(encodings) {
        Cow::Borrowed(json) => std::str::from_utf8(json).map(Cow::Borrowed).map_err(not_utf8),
        Cow::Owned(json) => String::from_utf8(json).map(Cow::Owned).map_err(|error| not_utf8(error.utf8_error())),
    }
}

/// Reads a JSON object into the fields that are needed of it, in one pass.
///
/// # Errors
/// [`Misshapen`] with the path of what doesn't fit. The message has none of the body's values.
pub(crate) fn read<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, Misshapen> {
    // Serde would take an array for an object's fields one after the other.
    if !json.trim_start().starts_with('{') {
        return Err(Misshapen::of(".", "isn't a JSON object"));
    }
    serde_json::from_str(json).map_err(|error| {
        if !error.is_data() {
            return Misshapen::of(".", "isn't JSON");
        }
        // Keeping track of the path costs a fifth of the time, so it is found out only when it is needed.
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let path = match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
            Err(error) => error.path().to_string(),
            Ok(_) => ".".to_owned(),
        };
        Misshapen::of(&path, "isn't there, comes twice, or isn't what it should be")
    })
}

/// A value of a body that nobody has looked at yet. Missing and `null` are the same.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Loose<'a>(#[serde(borrow)] Option<&'a RawValue>);

impl<'a> From<&'a RawValue> for Loose<'a> {
    fn from(raw: &'a RawValue) -> Self {
        Self((raw.get() != "null").then_some(raw))
    }
}

impl<'a> Loose<'a> {
    /// Whether there is something.
    pub(crate) const fn is_there(self) -> bool {
        self.0.is_some()
    }

    /// The value, if it is of that type.
    pub(crate) fn find<T: Deserialize<'a>>(self) -> Option<T> {
        serde_json::from_str(self.0?.get()).ok()
    }

    /// The value, which has to be there and of that type.
    ///
    /// # Errors
    /// [`Misshapen`] with `path`, and what is below it.
    pub(crate) fn get<T: Deserialize<'a>>(self, path: &str) -> Result<T, Misshapen> {
        let Some(raw) = self.0 else { return Err(Misshapen::of(path, "isn't there")) };
        read(raw.get()).map_err(|fault| match fault.path.as_str() {
            "." => Misshapen { path: path.to_owned(), ..fault },
            below => Misshapen { path: format!("{path}.{below}"), ..fault },
        })
    }

    /// The text, if it is one and not blank.
    pub(crate) fn text(self) -> Option<Cow<'a, str>> {
        #[derive(Deserialize)]
        #[serde(transparent)]
        struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
        let Text(text) = self.find()?;
        (!text.trim().is_empty()).then_some(text)
    }

    /// The text, if it can be a label for people or an id: bounded, and without control characters, which not every
    /// database would take.
    pub(crate) fn label(self) -> Option<String> {
        self.text().filter(|text| is_label(text)).map(Cow::into_owned)
    }

    /// As [`Loose::label`], where there has to be one.
    ///
    /// # Errors
    /// [`Misshapen`] with `path`.
    pub(crate) fn id(self, path: &str) -> Result<String, Misshapen> {
        self.label().ok_or_else(|| Misshapen::of(path, if self.is_there() { "isn't an id" } else { "isn't there" }))
    }

    /// The number of an account, where there has to be one.
    ///
    /// # Errors
    /// [`Misshapen`] with `path`.
    pub(crate) fn serial(self, path: &str) -> Result<Serial, Misshapen> {
        self.find()
            .ok_or_else(|| Misshapen::of(path, if self.is_there() { "isn't a numeric id" } else { "isn't there" }))
    }

    /// The number of something that always has one.
    ///
    /// # Errors
    /// [`Misshapen`] with `path`.
    pub(crate) fn number(self, path: &str) -> Result<String, Misshapen> {
        self.serial(path)?.0.ok_or_else(|| Misshapen::of(path, "is the number of nothing"))
    }

    /// Whether it is `true`.
    pub(crate) fn is_true(self) -> bool {
        self.0.is_some_and(|raw| raw.get() == "true")
    }
}

/// Whether a text can be a label for people, or an id.
pub(crate) fn is_label(text: &str) -> bool {
    text.len() <= 1024 && !text.chars().any(char::is_control)
}

/// An account's number, as a JSON number or as its digits. Zero and below are nobody's: Gitea's ghost is -1, its Actions
/// are -2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Serial(pub(crate) Option<String>);

impl<'de> Deserialize<'de> for Serial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Serial;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Serial, E> {
                Ok(Serial((number > 0).then(|| number.to_string())))
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Serial, E> {
                Ok(Serial((number > 0).then(|| number.to_string())))
            }

            fn visit_str<E: serde::de::Error>(self, digits: &str) -> Result<Serial, E> {
                match digits.parse::<u64>() {
                    // Only the one spelling: two ids of one account would be two accounts.
                    Ok(number) if number.to_string() == digits => self.visit_u64(number),
                    _ => Err(E::invalid_value(Unexpected::Other("a text"), &self)),
                }
            }
        }
        deserializer.deserialize_any(Number)
    }
}

/// A numeric id: never zero, and kept as its decimal text.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "std::num::NonZeroU64")]
pub(crate) struct Id(pub(crate) String);

impl From<std::num::NonZeroU64> for Id {
    fn from(id: std::num::NonZeroU64) -> Self {
        Self(id.to_string())
    }
}

/// A name, login or e-mail: a label for people, which also has to fit into a database's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label(pub(crate) String);

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Label;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a label of at most 1024 bytes without control characters")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Label, E> {
                if !is_label(text) {
                    return Err(E::invalid_value(Unexpected::Other("another text"), &self));
                }
                Ok(Label(text.to_owned()))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// The text of a label that is there and not empty.
pub(crate) fn text(label: Option<Label>) -> Option<String> {
    label.map(|Label(text)| text).filter(|text| !text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Body<'a> {
        #[serde(borrow, default)]
        id: Loose<'a>,
    }

    fn id(json: &str) -> Loose<'_> {
        read::<Body<'_>>(json).unwrap().id
    }

    #[rstest]
    #[case(r#"{"id": 71}"#, Some(Some("71")))]
    #[case(r#"{"id": "71"}"#, Some(Some("71")))]
    #[case(r#"{"id": 18446744073709551615}"#, Some(Some("18446744073709551615")))]
    #[case(r#"{"id": 0}"#, Some(None))]
    #[case(r#"{"id": -2}"#, Some(None))]
    #[case(r#"{"id": "071"}"#, None)]
    #[case(r#"{"id": "+71"}"#, None)]
    #[case(r#"{"id": 71.0}"#, None)]
    #[case(r#"{"id": 18446744073709551616}"#, None)]
    #[case(r#"{"id": 1e999999}"#, None)]
    #[case(r#"{"id": true}"#, None)]
    #[case(r#"{"id": null}"#, None)]
    #[case("{}", None)]
    fn numbers_of_accounts_are_whole_and_have_one_spelling(#[case] json: &str, #[case] number: Option<Option<&str>>) {
        let found = id(json).serial("id").ok().map(|Serial(number)| number);
        assert_eq!(found, number.map(|number| number.map(str::to_owned)));
    }

    #[rstest]
    #[case(r#"{"id": "rosalind"}"#, Some("rosalind"))]
    #[case(r#"{"id": "ros\u0061lind"}"#, Some("rosalind"))]
    #[case(r#"{"id": "  "}"#, None)]
    #[case(r#"{"id": "a\u0000b"}"#, None)]
    #[case(r#"{"id": 71}"#, None)]
    #[case(r#"{"id": {"a": 1}}"#, None)]
    fn a_label_that_cannot_be_one_is_none(#[case] json: &str, #[case] label: Option<&str>) {
        assert_eq!(id(json).label().as_deref(), label);
    }

    #[rstest]
    #[case("[1]", ".")]
    #[case("{\"id\": 1, \"id\": 1}", ".")]
    #[case("{\"id\": 1", ".")]
    #[case("{} {}", ".")]
    fn what_is_not_one_object_or_says_something_twice_is_misshapen(#[case] json: &str, #[case] path: &str) {
        assert_eq!(read::<Body<'_>>(json).unwrap_err().path, path);
    }

    #[test]
    fn a_fault_further_down_has_its_whole_path_and_no_value() {
        #[derive(Debug, Deserialize)]
        struct Inner {
            #[expect(dead_code, reason = "only its shape matters")]
            number: u8,
        }
        let fault = id(r#"{"id": {"number": "s3cret"}}"#).get::<Inner>("id").unwrap_err();
        assert_eq!(fault.to_string(), "id.number: isn't there, comes twice, or isn't what it should be");
    }
}
