//! Fields that the bodies of several providers have, and how a body is read into them.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Unexpected, Visitor};

use super::Misshapen;
use crate::delivery::Delivery;

/// Reads a delivery's JSON into the fields that are needed of it.
///
/// # Errors
/// [`Misshapen`] with the path of what doesn't fit. The message has none of the body's values.
pub(crate) fn read<T: DeserializeOwned>(delivery: &Delivery) -> Result<T, Misshapen> {
    let fault = |path: &str, message: String| Misshapen { path: path.to_owned(), message };
    let json = delivery.json().map_err(|missing| fault(".", missing.to_string()))?;
    let mut deserializer = serde_json::Deserializer::from_slice(&json);
    let read = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let message = if error.inner().is_data() { "isn't there, or isn't what it should be" } else { "isn't JSON" };
        fault(&error.path().to_string(), message.to_owned())
    })?;
    deserializer.end().map_err(|_| fault(".", "isn't one JSON value".to_owned()))?;
    Ok(read)
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
                if text.len() > 1024 || text.chars().any(char::is_control) {
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
