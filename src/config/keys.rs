//! The list of all keys, read from the comments of the embedded default file, so that code and documentation can't
//! part ways.

/// The default configuration, commented: what `rollcall.toml` looks like if nothing is changed.
pub const DEFAULTS: &str = include_str!("../../deploy/rollcall.toml");

/// One key of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDoc {
    /// Its section; empty at the top, `source` for the keys of `[[source]]`.
    pub section: &'static str,
    /// Its name.
    pub key: &'static str,
    /// Its default, as it is written in TOML.
    pub default: Option<&'static str>,
    /// An example, for a key without a default.
    pub example: Option<&'static str>,
    /// What it is for, in one or two sentences.
    pub meaning: String,
}

impl KeyDoc {
    /// The key with its section.
    #[must_use]
    pub fn path(&self) -> String {
        if self.section.is_empty() { self.key.to_owned() } else { format!("{}.{}", self.section, self.key) }
    }

    /// The environment variable that sets it, unless it belongs to `[[source]]`.
    #[must_use]
    pub fn env(&self) -> Option<String> {
        let scalar = self.section != SOURCE;
        scalar.then(|| format!("{ENV_PREFIX}{}", self.path().to_uppercase().replace('.', "__")))
    }
}

/// The section of the repeated table.
pub(super) const SOURCE: &str = "source";

/// What every environment variable of the configuration begins with.
pub(super) const ENV_PREFIX: &str = "ROLLCALL__";

/// Every key, in the order of the file.
#[must_use]
pub fn keys() -> Vec<KeyDoc> {
    let (mut keys, mut section, mut meaning) = (Vec::new(), "", Vec::new());
    for line in DEFAULTS.lines().map(str::trim) {
        let (text, commented) = line.strip_prefix('#').map_or((line, false), |rest| (rest, true));
        if commented && (text.is_empty() || text.starts_with(' ')) {
            meaning.push(text.trim());
        } else if let Some(name) = text.strip_prefix('[') {
            section = name.trim_matches(['[', ']']);
            meaning.clear();
        } else if let Some((key, value)) = text.split_once(" = ") {
            let (default, example) = if commented { (None, Some(value)) } else { (Some(value), None) };
            keys.push(KeyDoc { section, key, default, example, meaning: meaning.join(" ") });
            meaning.clear();
        } else {
            meaning.clear();
        }
    }
    keys
}
