//! Reads one value, from TOML or from an environment variable, into the type that a setting has.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;

use crate::ingress::{Network, Networks};

/// A value as it was written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Written<'a> {
    /// In a file.
    Toml(&'a toml::Value),
    /// In an environment variable, which only knows text.
    Env(&'a str),
}

impl<'a> Written<'a> {
    pub(super) fn text(self, expected: &str) -> Result<&'a str, String> {
        match self {
            Self::Toml(toml::Value::String(text)) => Ok(text),
            Self::Env(text) => Ok(text),
            Self::Toml(other) => Err(format!("must be {expected}, in quotes, not {}", a(other))),
        }
    }

    fn integer(self, expected: &str) -> Result<i64, String> {
        match self {
            Self::Toml(toml::Value::Integer(n)) => Ok(*n),
            Self::Toml(other) => Err(format!("must be {expected}, not {}", a(other))),
            Self::Env(text) => text.trim().parse().map_err(|_| format!("must be {expected}")),
        }
    }
}

/// The kind of a value, with its article.
pub(super) fn a(value: &toml::Value) -> &'static str {
    match value {
        toml::Value::String(_) => "a text",
        toml::Value::Integer(_) => "a whole number",
        toml::Value::Float(_) => "a fraction",
        toml::Value::Boolean(_) => "true or false",
        toml::Value::Datetime(_) => "a date",
        toml::Value::Array(_) => "a list",
        toml::Value::Table(_) => "a table",
    }
}

/// A type that a setting can have.
pub(super) trait Setting: Sized {
    /// Reads it. `folder` is what relative paths are relative to.
    ///
    /// # Errors
    /// What is wrong, and the fix.
    fn read(written: Written<'_>, folder: &Path) -> Result<Self, String>;
}

impl Setting for String {
    fn read(written: Written<'_>, _: &Path) -> Result<Self, String> {
        match written.text("a text")? {
            "" => Err("is empty; give it a value, or leave the key out".to_owned()),
            text => Ok(text.to_owned()),
        }
    }
}

impl Setting for bool {
    fn read(written: Written<'_>, _: &Path) -> Result<Self, String> {
        match written {
            Written::Toml(toml::Value::Boolean(yes)) => Ok(*yes),
            Written::Env("true") => Ok(true),
            Written::Env("false") => Ok(false),
            _ => Err("must be true or false, without quotes".to_owned()),
        }
    }
}

impl Setting for u64 {
    fn read(written: Written<'_>, _: &Path) -> Result<Self, String> {
        let expected = "a whole number from 1 up";
        positive(written.integer(expected)?, expected)
    }
}

impl Setting for u16 {
    fn read(written: Written<'_>, _: &Path) -> Result<Self, String> {
        let expected = "a whole number from 1 to 65535";
        positive(written.integer(expected)?, expected)
    }
}

impl Setting for u32 {
    fn read(written: Written<'_>, _: &Path) -> Result<Self, String> {
        let expected = "a whole number from 1 up";
        positive(written.integer(expected)?, expected)
    }
}

impl Setting for usize {
    fn read(written: Written<'_>, _: &Path) -> Result<Self, String> {
        let expected = "a whole number from 1 up";
        positive(written.integer(expected)?, expected)
    }
}

fn positive<T: TryFrom<i64>>(number: i64, expected: &str) -> Result<T, String> {
    (number > 0).then(|| T::try_from(number).ok()).flatten().ok_or_else(|| format!("must be {expected}"))
}

impl Setting for f64 {
    fn read(written: Written<'_>, _: &Path) -> Result<Self, String> {
        match written {
            Written::Toml(toml::Value::Float(n)) => Some(*n),
            #[expect(clippy::cast_precision_loss, reason = "nobody writes a factor of 2^53")]
            Written::Toml(toml::Value::Integer(n)) => Some(*n as Self),
            Written::Env(text) => text.parse().ok(),
            Written::Toml(_) => None,
        }
        .filter(|n: &Self| n.is_finite())
        .ok_or_else(|| "must be a number, without quotes".to_owned())
    }
}

impl Setting for Duration {
    fn read(written: Written<'_>, _: &Path) -> Result<Self, String> {
        let expected = "a duration with its unit, such as \"500ms\", \"8s\" or \"10m\"";
        match humantime::parse_duration(written.text(expected)?) {
            Ok(duration) if !duration.is_zero() => Ok(duration),
            _ => Err(format!("must be {expected}, and more than zero")),
        }
    }
}

impl Setting for ByteSize {
    fn read(written: Written<'_>, _: &Path) -> Result<Self, String> {
        let expected = "a size with its unit, such as \"256KiB\" or \"25MiB\"";
        match written.text(expected)?.parse() {
            Ok(size) if size > Self::b(0) => Ok(size),
            _ => Err(format!("must be {expected}, and more than zero")),
        }
    }
}

impl Setting for SocketAddr {
    fn read(written: Written<'_>, _: &Path) -> Result<Self, String> {
        let expected = "an IP address and a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"";
        written.text(expected)?.parse().map_err(|_| format!("must be {expected}"))
    }
}

/// A list in a file; in an environment variable, which only knows text, with commas.
impl Setting for Networks {
    fn read(written: Written<'_>, _: &Path) -> Result<Self, String> {
        let expected = "a list of networks, such as [\"10.0.0.0/8\"]";
        let texts: Vec<&str> = match written {
            Written::Env(text) => text.split(',').map(str::trim).collect(),
            Written::Toml(toml::Value::Array(items)) => {
                let texts: Option<_> = items.iter().map(toml::Value::as_str).collect();
                texts.ok_or_else(|| format!("must be {expected}, each in quotes"))?
            }
            Written::Toml(other) => return Err(format!("must be {expected}, not {}", a(other))),
        };
        if texts.is_empty() {
            return Err("is empty; name a network, or leave the key out".to_owned());
        }
        texts.iter().map(|text| text.parse::<Network>().map_err(|error| format!("{text:?}: {error}"))).collect()
    }
}

impl Setting for PathBuf {
    fn read(written: Written<'_>, folder: &Path) -> Result<Self, String> {
        match written.text("a path")? {
            "" => Err("is empty; give it a path, or leave the key out".to_owned()),
            path => Ok(folder.join(path)),
        }
    }
}
