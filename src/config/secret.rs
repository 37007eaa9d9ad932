//! References to secrets and to addresses that may hold one. The configuration names where a secret is; its value is
//! read only by the role that uses it, and nothing here ever prints one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::problem::{ConfigError, Problem};
use super::value::{Setting, Written};
use crate::delivery::SecretName;
use crate::outbound::is_loopback;
use crate::provider::Secret;

/// Where a secret is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretRef {
    /// In this environment variable, without the line break at its end.
    Env(String),
    /// In this file, without the line break at its end.
    File(PathBuf),
}

impl fmt::Display for SecretRef {
    /// The secret's name: `env:NAME` or `file:PATH`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl SecretRef {
    /// Reads the secret.
    ///
    /// # Errors
    /// If the variable isn't set, the file can't be read, or the secret is empty.
    pub fn resolve(&self, env: &BTreeMap<String, String>) -> Result<Secret, ConfigError> {
        let wrong = |message: String| ConfigError::from(Problem::new(self.to_string(), "", message));
        let without_line_break = |text: &str| SecretString::from(text.trim_end_matches(['\n', '\r']));
        let value = match self {
            Self::Env(name) => match env.get(name) {
                Some(value) => without_line_break(value),
                None => return Err(wrong("the environment variable isn't set".to_owned())),
            },
            Self::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| wrong(format!("can't be read: {error}")))?;
                without_line_break(&text)
            }
        };
        if value.expose_secret().is_empty() {
            return Err(wrong("the secret is empty, so that anybody could sign with it; put a value there".to_owned()));
        }
        Ok(Secret { name: SecretName(Arc::from(self.to_string())), value })
    }

    fn from_name(text: &str, folder: &Path) -> Option<Self> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Some(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Some(Self::File(folder.join(path))),
            _ => None,
        }
    }

    fn from_table(table: &toml::Table, folder: &Path) -> Result<Self, String> {
        let mut entries = table.iter();
        match (entries.next(), entries.next()) {
            (Some((kind, toml::Value::String(place))), None) if !place.is_empty() => match kind.as_str() {
                "env" => Ok(Self::Env(place.clone())),
                "file" => Ok(Self::File(folder.join(place))),
                _ => Err(NOT_A_REFERENCE.to_owned()),
            },
            _ => Err(NOT_A_REFERENCE.to_owned()),
        }
    }
}

/// What looks wrong about a secret, each as the end of a sentence about it. It is used as it is all the same: only its
/// other side could say whether it is meant so.
#[must_use]
pub fn suspicions(secret: &SecretString) -> Vec<&'static str> {
    let value = secret.expose_secret();
    let quoted = |quote| value.len() > 1 && value.starts_with(quote) && value.ends_with(quote);
    let suspicious = [
        (value.trim() != value, "begins or ends with white space, which counts; is it meant to?"),
        (['"', '\'', '`'].into_iter().any(quoted), "is enclosed in quotes, which count; are they meant to?"),
    ];
    suspicious.into_iter().filter(|(is, _)| *is).map(|(_, what)| what).collect()
}

/// What is suspicious about a webhook secret: that of [`suspicions`], and that it is short.
#[must_use]
pub fn webhook_suspicions(secret: &SecretString) -> Vec<&'static str> {
    const _: () = assert!(SHORTEST == 16, "the text says so");
    let short = secret.expose_secret().chars().count() < SHORTEST;
    let short = short.then_some("is shorter than 16 characters, so it could be guessed; make it 32 random ones");
    short.into_iter().chain(suspicions(secret)).collect()
}

/// A webhook secret that is shorter can be guessed: whoever has one signed delivery can try offline.
const SHORTEST: usize = 16;

const NOT_A_REFERENCE: &str = "must be { env = \"NAME\" } or { file = \"PATH\" }";

const PLAIN_SECRET: &str = "is written out, and files like this one are copied, shown and committed; put the secret \
    into an environment variable or a file, and write { env = \"NAME\" } or { file = \"PATH\" } here";

impl Setting for SecretRef {
    fn read(written: Written<'_>, folder: &Path) -> Result<Self, String> {
        match written {
            Written::Toml(toml::Value::Table(table)) => Self::from_table(table, folder),
            Written::Toml(toml::Value::String(_)) => Err(PLAIN_SECRET.to_owned()),
            Written::Toml(_) => Err(NOT_A_REFERENCE.to_owned()),
            Written::Env(text) => Self::from_name(text, folder).ok_or_else(|| {
                "must be env:NAME or file:PATH, saying where the secret is and not what it is".to_owned()
            }),
        }
    }
}

/// An address, written out or kept as a secret because it has a password in it.
#[derive(Clone, PartialEq, Eq)]
pub enum UrlRef {
    /// Written out. It may still have a password in it.
    Plain(Url),
    /// Kept elsewhere.
    Secret(SecretRef),
}

impl UrlRef {
    /// The address itself, with its password if it has one.
    ///
    /// # Errors
    /// If the secret can't be read or isn't a URL.
    pub fn resolve(&self, env: &BTreeMap<String, String>) -> Result<Url, ConfigError> {
        match self {
            Self::Plain(url) => Ok(url.clone()),
            Self::Secret(secret) => {
                let text = secret.resolve(env)?.value;
                Url::parse(text.expose_secret().trim())
                    .map_err(|_| Problem::new(secret.to_string(), "", "doesn't hold a URL").into())
            }
        }
    }
}

impl fmt::Display for UrlRef {
    /// Leaves out user, password and query: drivers take passwords in the query, too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(url) => f.write_str(&shown(url)),
            Self::Secret(secret) => write!(f, "{secret}"),
        }
    }
}

impl fmt::Debug for UrlRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UrlRef({self})")
    }
}

/// Whether requests to that address go over a network unencrypted.
pub(super) fn is_clear(url: &Url) -> bool {
    url.scheme() == "http" && !is_loopback(url)
}

/// The way out for whoever means an address that is in the clear.
pub(super) fn meant(key: &str) -> String {
    format!(
        ", since what is sent to http:// can be read and changed by whoever is on the way, the key included; write \
         {key} = true beside it if that network is all yours"
    )
}

/// A URL as it may be shown: without user, password, query and fragment.
#[must_use]
pub fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    format!("{}://{host}{port}{}", url.scheme(), url.path())
}

impl Setting for UrlRef {
    fn read(written: Written<'_>, folder: &Path) -> Result<Self, String> {
        match written {
            Written::Toml(toml::Value::Table(_)) => SecretRef::read(written, folder).map(Self::Secret),
            Written::Env(text) if SecretRef::from_name(text, folder).is_some() => {
                SecretRef::read(written, folder).map(Self::Secret)
            }
            _ => Url::read(written, folder).map(Self::Plain),
        }
    }
}

impl Setting for Url {
    fn read(written: Written<'_>, _: &Path) -> Result<Self, String> {
        // The value isn't repeated, since it may have a password in it.
        let invalid = |why: &str| format!("must be a URL with its scheme and host: {why}");
        let text = match written {
            Written::Toml(toml::Value::String(text)) => text,
            Written::Env(text) => text,
            Written::Toml(_) => return Err(invalid("write it in quotes")),
        };
        let url = Self::parse(text.trim()).map_err(|error| invalid(&error.to_string()))?;
        if url.has_host() { Ok(url) } else { Err(invalid("it has no host")) }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn env(name: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn a_secret_is_named_by_its_place_and_never_shown() {
        let secret = SecretRef::Env("HOOK".to_owned()).resolve(&env("HOOK", "hush-hush")).unwrap();
        assert_eq!(secret.name.to_string(), "env:HOOK");
        assert_eq!(secret.value.expose_secret(), "hush-hush");
        assert!(!format!("{secret:?}").contains("hush-hush"));
    }

    #[rstest]
    #[case("hush-hush\n", "hush-hush")]
    #[case("hush-hush\r\n", "hush-hush")]
    #[case(" two words \r\n", " two words ")]
    #[case("a\nb", "a\nb")]
    fn a_secret_in_the_environment_loses_only_the_line_break_at_its_end(#[case] set: &str, #[case] expected: &str) {
        let secret = SecretRef::Env("HOOK".to_owned()).resolve(&env("HOOK", set)).unwrap();
        assert_eq!(secret.value.expose_secret(), expected);
    }

    #[rstest]
    #[case("a secret of some length", &[])]
    #[case("it's \"quoted\" inside", &[])]
    #[case("0123456789abcde", &["shorter than 16"])]
    #[case("0123456789abcdef", &[])]
    #[case("éééééééééééééééé", &[])]
    #[case(" a secret of some length", &["white space"])]
    #[case("a secret of some length\t", &["white space"])]
    #[case("\"a secret of some length\"", &["quotes"])]
    #[case("'a secret of some length'", &["quotes"])]
    #[case("'short'", &["shorter than 16", "quotes"])]
    #[case("\"", &["shorter than 16"])]
    fn what_looks_wrong_about_a_webhook_secret_is_said(#[case] value: &str, #[case] expected: &[&str]) {
        let found = webhook_suspicions(&value.into());
        assert_eq!(found.len(), expected.len(), "{found:?}");
        assert!(found.iter().zip(expected).all(|(found, expected)| found.contains(expected)), "{found:?}");
        assert_eq!(suspicions(&value.into()).len(), found.iter().filter(|found| !found.contains("shorter")).count());
        assert!(found.iter().all(|found| !found.contains(value)));
    }

    #[test]
    fn a_secret_file_loses_only_the_line_break_at_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, " two words \r\n").unwrap();
        let secret = SecretRef::File(path.clone()).resolve(&BTreeMap::new()).unwrap();
        assert_eq!(secret.value.expose_secret(), " two words ");
        assert_eq!(secret.name.to_string(), format!("file:{}", path.display()));
    }

    #[test]
    fn missing_and_empty_secrets_are_errors_that_name_the_place() {
        let missing = SecretRef::Env("HOOK".to_owned()).resolve(&BTreeMap::new()).unwrap_err();
        assert_eq!(missing.to_string(), "env:HOOK: the environment variable isn't set");
        let empty = SecretRef::Env("HOOK".to_owned()).resolve(&env("HOOK", "")).unwrap_err();
        assert!(empty.to_string().starts_with("env:HOOK: the secret is empty"));
        let unreadable = SecretRef::File("/nowhere/secret".into()).resolve(&BTreeMap::new()).unwrap_err();
        assert!(unreadable.to_string().starts_with("file:/nowhere/secret: can't be read"));
    }

    #[test]
    fn addresses_are_shown_without_what_may_be_secret() {
        let url = UrlRef::Plain("amqp://guest:hush@mq.example:5672/%2f?password=hush".parse().unwrap());
        assert_eq!(url.to_string(), "amqp://mq.example:5672/%2f");
        assert_eq!(format!("{url:?}"), "UrlRef(amqp://mq.example:5672/%2f)");
        assert_eq!(url.resolve(&BTreeMap::new()).unwrap().password(), Some("hush"));
    }

    #[test]
    fn an_address_may_be_kept_as_a_secret() {
        let url = UrlRef::Secret(SecretRef::Env("MQ".to_owned()));
        assert_eq!(url.to_string(), "env:MQ");
        let resolved = url.resolve(&env("MQ", "amqps://u:p@mq.example/v\n")).unwrap();
        assert_eq!(resolved.username(), "u");
        let error = url.resolve(&env("MQ", "hush://:x:y")).unwrap_err();
        assert_eq!(error.to_string(), "env:MQ: doesn't hold a URL");
    }
}
