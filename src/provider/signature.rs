//! Signatures: reading exactly one header value, and HMAC-SHA256 over raw bytes under any of several secrets.
//!
//! The pieces are what providers have in common; which header, which prefix and which bytes are signed is each
//! provider's own. The algorithm is fixed here and never taken from the request. Nothing here parses a body, and no
//! error carries a header's value.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderValue};
use secrecy::ExposeSecret;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::{Refusal, Secret, SettingsError};
use crate::delivery::SecretName;

type HmacSha256 = Hmac<Sha256>;

/// The length of an HMAC-SHA256 tag in bytes.
pub const TAG_LEN: usize = 32;

/// An HMAC-SHA256 tag, decoded.
///
/// It has no `PartialEq`: tags are compared in constant time, by [`HmacKeys::matching`] and by nothing else.
#[derive(Clone, Copy)]
pub struct Tag([u8; TAG_LEN]);

impl Tag {
    /// Reads exactly 64 hexadecimal digits of either case, and nothing else.
    #[must_use]
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let digit = |byte: u8| (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        if text.len() != 2 * TAG_LEN {
            return None;
        }
        let mut tag = [0; TAG_LEN];
        for (byte, pair) in tag.iter_mut().zip(text.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(tag))
    }

    /// Reads `prefix` (`sha256=`), in exactly that spelling, and then as [`Tag::from_hex`].
    #[must_use]
    pub fn from_prefixed_hex(prefix: &str, text: &[u8]) -> Option<Self> {
        Self::from_hex(text.strip_prefix(prefix.as_bytes())?)
    }

    /// Takes exactly 32 bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; TAG_LEN] {
        &self.0
    }
}

impl fmt::Display for Tag {
    /// 64 lower-case hexadecimal digits, as the providers send them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Tag {
    /// Leaves the value out: a good tag over a known body is what an attacker wants to find in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tag(..)")
    }
}

/// One secret, its HMAC state prepared: hashing the key costs two blocks, and every delivery starts from a clone.
#[derive(Clone)]
pub struct HmacKey {
    name: SecretName,
    keyed: HmacSha256,
}

impl HmacKey {
    /// Prepares a secret.
    ///
    /// # Errors
    /// If it is empty or blank: everybody knows the HMAC under an empty key.
    pub fn new(secret: &Secret) -> Result<Self, SettingsError> {
        let error = |message| SettingsError { key: "secrets".into(), message };
        let value = secret.value.expose_secret();
        if value.trim().is_empty() {
            return Err(error(format!("the secret {} is empty; set it at the provider too", secret.name)));
        }
        Self::of_bytes(secret.name.clone(), value.as_bytes())
    }

    /// Prepares a key that is written otherwise than it is used.
    ///
    /// # Errors
    /// If it can't be a key.
    pub fn of_bytes(name: SecretName, key: &[u8]) -> Result<Self, SettingsError> {
        let wrong =
            |_| SettingsError { key: "secrets".into(), message: format!("the secret {name} can't be used as a key") };
        let keyed = HmacSha256::new_from_slice(key).map_err(wrong)?;
        Ok(Self { name, keyed })
    }

    /// Signs the parts, one after the other without anything between them.
    #[must_use]
    pub fn sign(&self, parts: &[&[u8]]) -> Tag {
        Tag(self.over(parts).finalize().into_bytes().into())
    }

    fn over(&self, parts: &[&[u8]]) -> HmacSha256 {
        let mut mac = self.keyed.clone();
        parts.iter().for_each(|part| mac.update(part));
        mac
    }
}

impl fmt::Debug for HmacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HmacKey").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The secrets of a source, of which any may sign: the old one and the new one while they are being rotated.
#[derive(Clone, Debug)]
pub struct HmacKeys(Vec<HmacKey>);

impl HmacKeys {
    /// Prepares all secrets.
    ///
    /// # Errors
    /// If there is none, or one of them is empty.
    pub fn new(secrets: &[Secret]) -> Result<Self, SettingsError> {
        secrets.iter().map(HmacKey::new).collect::<Result<_, _>>().and_then(Self::of)
    }

    /// Keys that are prepared already.
    ///
    /// # Errors
    /// If there is none.
    pub fn of(keys: Vec<HmacKey>) -> Result<Self, SettingsError> {
        if keys.is_empty() {
            let message = "a source needs at least one secret to verify its deliveries".into();
            return Err(SettingsError { key: "secrets".into(), message });
        }
        Ok(Self(keys))
    }

    /// The name of the first secret under which one of the tags is the signature of the parts. The parts are gone over once
    /// a secret, however many tags there are, and each comparison takes the same time wherever the tags differ.
    #[must_use]
    pub fn matching(&self, parts: &[&[u8]], tags: &[Tag]) -> Option<&SecretName> {
        let signs = |key: &&HmacKey| {
            let good = key.over(parts).finalize().into_bytes();
            tags.iter().any(|tag| good.ct_eq(&tag.0).into())
        };
        self.0.iter().find(signs).map(|key| &key.name)
    }
}

/// A header that has to come exactly once doesn't.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOne {
    /// It isn't there.
    #[error("is missing")]
    Missing,
    /// It came more than once. Sender, proxies and we might each believe another of its values.
    #[error("came more than once")]
    Repeated,
}

/// The one value of a header. The only place that reads a header on which a decision rests.
///
/// # Errors
/// [`NotOne`] if there is no value or more than one.
pub fn only_value<'h>(headers: &'h HeaderMap, name: &str) -> Result<&'h HeaderValue, NotOne> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        (None, _) => Err(NotOne::Missing),
        (Some(_), Some(_)) => Err(NotOne::Repeated),
    }
}

/// The tag in the one value of `header`, written as `prefix` and 64 hexadecimal digits.
///
/// # Errors
/// [`Refusal::Unverified`] that names the header that was expected and those that came.
pub fn hex_header(headers: &HeaderMap, header: &str, prefix: &str) -> Result<Tag, Refusal> {
    let why = match only_value(headers, header) {
        Ok(value) => match Tag::from_prefixed_hex(prefix, value.as_bytes()) {
            Some(tag) => return Ok(tag),
            None => format!("isn't {prefix}<64 hexadecimal digits>"),
        },
        Err(not_one) => not_one.to_string(),
    };
    Err(Refusal::Unverified(format!("{header} {why}; {}", came(headers))))
}

/// Which headers came that might authenticate a request, for our log: names, never values.
#[must_use]
pub fn came(headers: &HeaderMap) -> String {
    const MARKS: [&str; 3] = ["signature", "token", "authorization"];
    /// The sender chooses the names, so that a log line needs a bound.
    const MOST: usize = 6;
    const LONGEST: usize = 64;
    let names: Vec<&str> = headers
        .keys()
        .map(http::HeaderName::as_str)
        .filter(|name| name.len() <= LONGEST && MARKS.iter().any(|mark| name.contains(mark)))
        .take(MOST)
        .collect();
    if names.is_empty() { "no header like a signature came".to_owned() } else { format!("came: {}", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const TAG: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    fn secret(name: &str, value: &str) -> Secret {
        Secret { name: SecretName(name.into()), value: value.into() }
    }

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-hub-signature-256", HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    /// The first is the example of GitHub's own documentation, "Validating webhook deliveries".
    #[rstest]
    #[case("It's a Secret to Everybody", "Hello, World!", TAG)]
    #[case("0123456789abcdef", r#"{"yo":true}"#, "b1f8020f5b4cd42042f807dd939015c4a418bc1ff7f604dd55b0a19b5d953d9b")]
    #[case(
        "0123456789abcdef",
        "payload=%7B%22yo%22%3Atrue%7D",
        "30f622d549ca623f1c553f7e395a80c9487b43b9feaf9af4a1811381ddf5a94d"
    )]
    #[case("123456", r#"{"action": "opened"}"#, "0340d06469a1b35662ebd7a67ea2c0c328239f319f1cfafb221451de629e0430")]
    fn known_vectors_sign_and_verify(#[case] key: &str, #[case] body: &str, #[case] tag: &str) {
        let secret = secret("env:S", key);
        assert_eq!(HmacKey::new(&secret).unwrap().sign(&[body.as_bytes()]).to_string(), tag);
        let keys = HmacKeys::new(&[secret]).unwrap();
        let tag = Tag::from_hex(tag.as_bytes()).unwrap();
        assert!(keys.matching(&[body.as_bytes()], &[tag]).is_some());
        assert!(keys.matching(&[body.as_bytes(), b"\n"], &[tag]).is_none());
    }

    #[test]
    fn parts_are_signed_as_one() {
        let key = HmacKey::new(&secret("env:S", "k")).unwrap();
        assert_eq!(key.sign(&[b"1.2.", b"body"]).to_string(), key.sign(&[b"1.2.body"]).to_string());
    }

    #[test]
    fn the_secret_that_matched_is_named() {
        let (new, old) = (secret("env:NEW", "new"), secret("file:old", "old"));
        let keys = HmacKeys::new(&[new.clone(), old.clone()]).unwrap();
        for secret in [new, old] {
            let tag = HmacKey::new(&secret).unwrap().sign(&[b"{}"]);
            assert_eq!(keys.matching(&[b"{}"], &[tag]), Some(&secret.name));
        }
        let stranger = HmacKey::new(&secret("env:X", "x")).unwrap().sign(&[b"{}"]);
        assert_eq!(keys.matching(&[b"{}"], &[stranger]), None);
    }

    #[test]
    fn empty_secrets_and_no_secrets_are_settings_errors() {
        for secrets in [vec![], vec![secret("env:S", "")], vec![secret("env:A", "a"), secret("env:S", " \n")]] {
            assert_eq!(HmacKeys::new(&secrets).unwrap_err().key, "secrets");
        }
    }

    #[test]
    fn debug_shows_neither_secrets_nor_tags() {
        let keys = HmacKeys::new(&[secret("env:S", "hunter2")]).unwrap();
        let tag = Tag::from_hex(TAG.as_bytes()).unwrap();
        let shown = format!("{keys:?} {tag:?}");
        assert!(shown.contains("env:S") && !shown.contains("hunter2") && !shown.contains("7571"), "{shown}");
    }

    #[test]
    fn hex_of_either_case_is_the_same_tag() {
        let upper = format!("sha256={}", TAG.to_uppercase());
        assert_eq!(
            hex_header(&headers(&[upper.as_bytes()]), "X-Hub-Signature-256", "sha256=").unwrap().to_string(),
            TAG
        );
    }

    #[rstest]
    #[case::empty("")]
    #[case::prefix_alone("sha256=")]
    #[case::no_prefix(TAG)]
    #[case::other_prefix("sha1=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17")]
    #[case::upper_case_prefix("SHA256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17")]
    #[case::short("sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e1")]
    #[case::long("sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e170")]
    #[case::not_hex("sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e1g")]
    #[case::sign("sha256=+57107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17")]
    #[case::space_inside("sha256= 757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e1")]
    #[case::two_in_one("sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17,sha256=75")]
    #[case::not_ascii("sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043eé")]
    fn headers_of_any_other_shape_are_refused_without_their_value(#[case] value: &str) {
        let refusal = hex_header(&headers(&[value.as_bytes()]), "X-Hub-Signature-256", "sha256=").unwrap_err();
        let text = refusal.to_string();
        assert!(text.starts_with("X-Hub-Signature-256 isn't") && !text.contains("7571"), "{text}");
    }

    #[test]
    fn a_header_that_comes_twice_is_refused_even_if_both_are_good() {
        let good = format!("sha256={TAG}");
        let refusal = hex_header(&headers(&[good.as_bytes(); 2]), "X-Hub-Signature-256", "sha256=").unwrap_err();
        assert!(refusal.to_string().contains("came more than once"));
    }

    #[test]
    fn a_missing_header_names_what_came_instead() {
        let mut headers = HeaderMap::new();
        headers.insert("x-gitlab-token", HeaderValue::from_static("hunter2"));
        headers.insert("accept", HeaderValue::from_static("*/*"));
        let text = hex_header(&headers, "X-Hub-Signature-256", "sha256=").unwrap_err().to_string();
        assert_eq!(text, "X-Hub-Signature-256 is missing; came: x-gitlab-token");
    }

    proptest! {
        #[test]
        fn what_is_signed_verifies_and_one_changed_bit_does_not(
            key in "\\S.{0,80}", body in proptest::collection::vec(any::<u8>(), 1..300), at in any::<prop::sample::Index>(),
        ) {
            let secret = secret("env:S", &key);
            let keys = HmacKeys::new(std::slice::from_ref(&secret)).unwrap();
            let tag = HmacKey::new(&secret).unwrap().sign(&[&body]);
            prop_assert!(keys.matching(&[&body], &[tag]).is_some());

            let flip = |bytes: &mut [u8]| { let bit = at.index(bytes.len() * 8); bytes[bit / 8] ^= 1 << (bit % 8); };
            let mut other_body = body.clone();
            flip(&mut other_body);
            prop_assert!(keys.matching(&[&other_body], &[tag]).is_none());
            let mut other_tag = tag;
            flip(&mut other_tag.0);
            prop_assert!(keys.matching(&[&body], &[other_tag]).is_none());
        }

        #[test]
        fn reading_a_tag_never_panics_and_takes_only_hex(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            let hex = text.len() == 64 && text.iter().all(u8::is_ascii_hexdigit);
            prop_assert_eq!(Tag::from_hex(&text).is_some(), hex);
        }
    }
}
