//! The three layers of the configuration — environment over file over defaults — and the reading of single keys from
//! them. Whatever is wrong is collected, so that one run tells everything.
//!
//! It knows keys and values, and nothing of what any of them mean.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Table;

use super::keys::{DEFAULTS, ENV_PREFIX, KeyDoc, SOURCE, keys};
use super::problem::{Problem, nearest};
use super::value::{Setting, Written, a};

/// The layers, and what was found wrong in them so far.
#[derive(Debug)]
pub(super) struct Layers {
    defaults: Table,
    file: Table,
    /// From the key with its section to the variable's name and value.
    env: BTreeMap<String, (String, String)>,
    keys: Vec<KeyDoc>,
    /// What problems of the file begin with.
    pub(super) origin: String,
    /// What relative paths in the file are relative to.
    pub(super) folder: PathBuf,
    /// What is wrong.
    pub(super) problems: Vec<Problem>,
}

impl Layers {
    /// Reads the file and picks the configuration's own variables out of the environment.
    pub(super) fn new(path: Option<&Path>, env: &BTreeMap<String, String>) -> Self {
        let mut layers = Self {
            defaults: Table::new(),
            file: Table::new(),
            env: BTreeMap::new(),
            keys: keys(),
            origin: path.map_or_else(|| "configuration".to_owned(), |path| path.display().to_string()),
            folder: path.and_then(Path::parent).map(Path::to_owned).unwrap_or_default(),
            problems: Vec::new(),
        };
        match parse(DEFAULTS) {
            Ok(defaults) => layers.defaults = defaults,
            Err(message) => layers.problems.push(Problem::new("deploy/rollcall.toml", "", message)),
        }
        if let Some(path) = path {
            let text = std::fs::read_to_string(path).map_err(|error| format!("can't be read: {error}"));
            match text.and_then(|text| parse(&text)) {
                Ok(file) => layers.file = file,
                Err(message) => layers.blame("", message),
            }
        }
        layers.pick_env(env);
        layers.refuse_unknown_keys();
        layers
    }

    fn pick_env(&mut self, env: &BTreeMap<String, String>) {
        let known: BTreeMap<String, String> =
            self.keys.iter().filter_map(|key| Some((key.env()?, key.path()))).collect();
        for (name, value) in env.iter().filter(|(name, _)| name.starts_with(ENV_PREFIX)) {
            if let Some(path) = known.get(name) {
                self.env.insert(path.clone(), (name.clone(), value.clone()));
            } else if name.starts_with("ROLLCALL__SOURCE__") {
                self.problems.push(Problem::new(name, "", "sources can only be written in the file; unset it"));
            } else {
                let hint = nearest_upper(name, known.keys());
                self.problems.push(Problem::new(name, "", format!("there is no such setting{hint}")));
            }
        }
    }

    fn refuse_unknown_keys(&mut self) {
        let mut problems = Vec::new();
        for (name, value) in &self.file {
            let in_section: Vec<&str> =
                self.keys.iter().filter(|key| key.section == *name).map(|key| key.key).collect();
            if self.keys.iter().any(|key| key.section.is_empty() && key.key == name) || name == SOURCE {
                continue;
            }
            if in_section.is_empty() {
                let names = self.keys.iter().map(|key| if key.section.is_empty() { key.key } else { key.section });
                let hint = did_you_mean(nearest(name, names));
                problems.push(Problem::new(&self.origin, name, format!("there is no such key or section{hint}")));
                continue;
            }
            let Some(table) = value.as_table() else {
                problems.push(Problem::new(&self.origin, name, format!("must be a section, not {}", a(value))));
                continue;
            };
            for key in table.keys().filter(|key| !in_section.contains(&key.as_str())) {
                let hint = did_you_mean(nearest(key, in_section.iter().copied()));
                let path = format!("{name}.{key}");
                problems.push(Problem::new(&self.origin, path, format!("there is no such key{hint}")));
            }
        }
        self.problems.append(&mut problems);
    }

    /// Records that a key of the file is wrong.
    pub(super) fn blame(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem::new(&self.origin, key, message));
    }

    /// Records that the value of a key is wrong, wherever that value comes from.
    pub(super) fn blame_value(&mut self, path: &str, message: impl Into<String>) {
        let origin = self.env.get(path).map_or_else(|| self.origin.clone(), |(name, _)| name.clone());
        self.problems.push(Problem::new(origin, path, message));
    }

    /// The value of a key that has a default. `None` if it is wrong, which is on record then.
    pub(super) fn required<T: Setting>(&mut self, path: &str) -> Option<T> {
        let value = self.optional(path)?;
        if value.is_none() {
            self.blame(path, "has no value and no default");
        }
        value
    }

    /// The value of a key that may be left out. `None` if it is wrong, which is on record then.
    pub(super) fn optional<T: Setting>(&mut self, path: &str) -> Option<Option<T>> {
        let here = Path::new("");
        let read = if let Some((_, value)) = self.env.get(path) {
            T::read(Written::Env(value), here).map(Some)
        } else if let Some(value) = find(&self.file, path) {
            T::read(Written::Toml(value), &self.folder).map(Some)
        } else {
            find(&self.defaults, path).map(|value| T::read(Written::Toml(value), here)).transpose()
        };
        read.map_err(|message| self.blame_value(path, message)).ok()
    }

    /// Takes the `[[source]]` tables out.
    pub(super) fn take_sources(&mut self) -> Vec<Table> {
        let Some(value) = self.file.remove(SOURCE) else { return Vec::new() };
        let tables = match value {
            toml::Value::Array(values) => values.into_iter().map(|value| value.try_into::<Table>().ok()).collect(),
            _ => None,
        };
        tables.unwrap_or_else(|| {
            self.blame(SOURCE, "must be a list of tables; write [[source]], with two brackets on each side");
            Vec::new()
        })
    }
}

fn find<'a>(table: &'a Table, path: &str) -> Option<&'a toml::Value> {
    match path.split_once('.') {
        Some((section, key)) => table.get(section)?.get(key),
        None => table.get(path),
    }
}

/// Parses TOML. The message has the place but no text of the file, which may hold a password.
fn parse(text: &str) -> Result<Table, String> {
    text.parse::<Table>().map_err(|error| {
        let before = text.get(..error.span().map_or(0, |span| span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        format!("line {line}, column {column}: not valid TOML: {}", error.message())
    })
}

pub(super) fn did_you_mean(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

fn nearest_upper<'a>(written: &str, known: impl Iterator<Item = &'a String>) -> String {
    let lower: Vec<String> = known.map(|name| name.to_lowercase()).collect();
    did_you_mean(nearest(written, lower.iter().map(String::as_str)).map(str::to_uppercase).as_deref())
}
