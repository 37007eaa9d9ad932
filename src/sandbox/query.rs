//! Query strings and pages as Drata's lists have them.

use serde_json::{Value, json};

use super::problem::Problem;
use crate::delivery::Timestamp;

/// The parameters of a request, repeated ones included.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn read(raw: Option<&str>) -> Self {
        Self(form_urlencoded::parse(raw.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All values of an array, written `name=a&name=b` or `name[]=a&name[]=b`.
    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        self.0
            .iter()
            .filter(|(key, _)| key.strip_suffix("[]").unwrap_or(key) == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, Problem> {
        self.text(name)
            .map(|text| text.parse().map_err(|_| Problem::validation(format!("{name} must be a number"))))
            .transpose()
    }

    /// A time, or the beginning of a day.
    pub(super) fn day(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        let read = |text: &str| text.parse().or_else(|_| format!("{text}T00:00:00Z").parse());
        let wrong = |_| Problem::validation(format!("{name} must be a date"));
        self.text(name).map(|text| read(text).map_err(wrong)).transpose()
    }

    /// One of the allowed words.
    pub(super) fn word<'a>(&'a self, name: &str, allowed: &[&str]) -> Result<Option<&'a str>, Problem> {
        match self.text(name) {
            Some(word) if !allowed.contains(&word) => {
                Err(Problem::validation(format!("{name} must be one of {}", allowed.join(", "))))
            }
            word => Ok(word),
        }
    }
}

/// Which page of a list is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    number: usize,
    limit: usize,
}

impl Page {
    /// `page` from 1 to `last`, `limit` from 1 to 50; 1 and 20 if not given.
    pub(super) fn read(query: &Query, last: Option<i64>) -> Result<Self, Problem> {
        let last = last.unwrap_or(i64::MAX);
        let within = |name: &str, default, most| match query.number(name)?.unwrap_or(default) {
            number if number < 1 => Err(Problem::validation(format!("{name} must not be less than 1"))),
            number if number > most => Err(Problem::validation(format!("{name} must not be greater than {most}"))),
            number => Ok(usize::try_from(number).unwrap_or(usize::MAX)),
        };
        Ok(Self { number: within("page", 1, last)?, limit: within("limit", 20, 50)? })
    }

    /// The envelope of a list: `data`, `page`, `limit`, `total`.
    pub(super) fn of<T>(self, rows: &[T], render: impl Fn(&T) -> Value) -> Value {
        let skipped = (self.number - 1).saturating_mul(self.limit);
        let data: Vec<Value> = rows.iter().skip(skipped).take(self.limit).map(render).collect();
        json!({ "data": data, "page": self.number, "limit": self.limit, "total": rows.len() })
    }
}
