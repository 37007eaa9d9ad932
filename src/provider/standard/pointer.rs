//! JSON pointers (RFC 6901), followed without building what lies beside them.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::provider::Misshapen;
use crate::provider::fields::Loose;

/// A JSON pointer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Pointer {
    text: String,
    tokens: Vec<String>,
}

impl Pointer {
    /// As it was written.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

impl TryFrom<String> for Pointer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no JSON pointer; write it like \"/data/user/id\"");
        let tokens = text.strip_prefix('/').ok_or_else(wrong)?.split('/').map(unescaped).collect::<Option<_>>();
        Ok(Self { tokens: tokens.ok_or_else(wrong)?, text })
    }
}

/// `~1` stands for a slash and `~0` for a tilde, and a tilde before anything else for nothing.
fn unescaped(token: &str) -> Option<String> {
    let mut pieces = token.split('~');
    let mut whole = pieces.next()?.to_owned();
    for piece in pieces {
        match piece.split_at_checked(1)? {
            ("0", rest) => whole.extend(["~", rest]),
            ("1", rest) => whole.extend(["/", rest]),
            _ => return None,
        }
    }
    Some(whole)
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Several pointers, followed at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Pointers {
    /// Which of the pointers end here.
    ends: Vec<usize>,
    further: Vec<(String, Pointers)>,
}

impl Pointers {
    /// These pointers; their places here are their places in what [`Pointers::find`] returns.
    pub(super) fn new<'p>(pointers: impl IntoIterator<Item = Option<&'p Pointer>>) -> Self {
        let mut all = Self::default();
        for (place, pointer) in pointers.into_iter().enumerate() {
            if let Some(pointer) = pointer {
                all.add(&pointer.tokens, place);
            }
        }
        all
    }

    fn add(&mut self, tokens: &[String], place: usize) {
        let Some((first, rest)) = tokens.split_first() else {
            self.ends.push(place);
            return;
        };
        let at = self.further.iter().position(|(token, _)| token == first).unwrap_or_else(|| {
            self.further.push((first.clone(), Self::default()));
            self.further.len() - 1
        });
        self.further[at].1.add(rest, place);
    }

    /// The values to which the pointers lead; nothing for one that leads nowhere.
    ///
    /// # Errors
    /// If the text isn't JSON, or an object on the way has a key twice: readers would differ in which one they believe.
    pub(super) fn find<'a, const N: usize>(&self, json: &'a str) -> Result<[Loose<'a>; N], Misshapen> {
        let mut found = [Loose::default(); N];
        self.follow(json, ".", &mut found)?;
        Ok(found)
    }

    fn follow<'a>(&self, json: &'a str, path: &str, found: &mut [Loose<'a>]) -> Result<(), Misshapen> {
        let mut values: Vec<Option<&'a RawValue>> = vec![None; self.further.len()];
        let mut deserializer = serde_json::Deserializer::from_str(json);
        Level { pointers: self, values: &mut values }
            .deserialize(&mut deserializer)
            .and_then(|()| deserializer.end())
            .map_err(|error| Misshapen::of(path, if error.is_data() { "has a key twice" } else { "isn't JSON" }))?;
        for ((token, below), value) in self.further.iter().zip(values) {
            let Some(value) = value else { continue };
            for place in &below.ends {
                if let Some(slot) = found.get_mut(*place) {
                    *slot = Loose::from(value);
                }
            }
            if !below.further.is_empty() {
                below.follow(value.get(), &format!("{}/{token}", path.trim_end_matches('.')), found)?;
            }
        }
        Ok(())
    }
}

/// One level of a body: an object, an array, or a value in which no pointer leads further.
struct Level<'l, 'a> {
    pointers: &'l Pointers,
    values: &'l mut [Option<&'a RawValue>],
}

impl<'de: 'a, 'a> DeserializeSeed<'de> for Level<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de: 'a, 'a> Visitor<'de> for Level<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match self.pointers.further.iter().position(|(token, _)| *token == *key) {
                Some(at) if self.values[at].replace(map.next_value()?).is_some() => {
                    return Err(serde::de::Error::custom("a key comes twice"));
                }
                Some(_) => {}
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut index = 0_usize;
        while let Some(value) = seq.next_element::<&'de RawValue>()? {
            let token = index.to_string();
            if let Some(at) = self.pointers.further.iter().position(|(wanted, _)| *wanted == token) {
                self.values[at] = Some(value);
            }
            index += 1;
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::Value;

    use super::*;

    fn pointer(text: &str) -> Pointer {
        text.to_owned().try_into().unwrap()
    }

    fn found(pointer: &Pointer, json: &str) -> Result<Option<Value>, Misshapen> {
        let [value] = Pointers::new([Some(pointer)]).find(json)?;
        Ok(value.find())
    }

    #[rstest]
    #[case("data/id")]
    #[case("")]
    #[case("#/data")]
    #[case("/a~2b")]
    #[case("/a~")]
    fn what_is_no_pointer_is_refused(#[case] text: &str) {
        assert!(Pointer::try_from(text.to_owned()).unwrap_err().contains("/data/user/id"));
    }

    #[test]
    fn several_pointers_are_followed_at_once() {
        let pointers = ["/a/b", "/a", "/c/1/d", "/a~1b", "/m~0n", "/nowhere/x", ""]
            .map(|text| (!text.is_empty()).then(|| pointer(text)));
        let json =
            r#"{"x": [1], "a": {"b": 7, "z": {}}, "c": [0, {"d": "e"}], "a/b": true, "m~n": null, "nowhere": 3}"#;
        let found: [Loose<'_>; 7] = Pointers::new(pointers.iter().map(Option::as_ref)).find(json).unwrap();
        let shown: Vec<String> = found.map(|value| value.find::<Value>().map_or("-".into(), |v| v.to_string())).into();
        assert_eq!(shown, ["7", r#"{"b":7,"z":{}}"#, "\"e\"", "true", "-", "-", "-"]);
    }

    #[rstest]
    #[case(r#"{"a": 1, "a": 2}"#, ".")]
    #[case(r#"{"a": {"b": 1, "b": 2}}"#, "/a")]
    #[case(r#"{"a": 1"#, ".")]
    #[case(r#"{"a": 1} x"#, ".")]
    fn a_key_that_comes_twice_on_the_way_is_misshapen(#[case] json: &str, #[case] path: &str) {
        assert_eq!(found(&pointer("/a/b"), json).unwrap_err().path, path);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u32>().prop_map(Value::from),
            "[a-c/~]{0,2}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[a-c/~]{1}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_pointer_leads_where_the_reference_implementation_leads(
            value in value(), tokens in proptest::collection::vec("a|b|c|~0|~1|0|1|2", 1..4),
        ) {
            let text = format!("/{}", tokens.join("/"));
            let ours = found(&pointer(&text), &value.to_string()).unwrap();
            // A null is nothing to us.
            prop_assert_eq!(ours, value.pointer(&text).filter(|value| !value.is_null()).cloned(), "{}", text);
        }
    }
}
