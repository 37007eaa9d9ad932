//! Which person an account belongs to.
//!
//! The people map (`people.csv`) comes first, then the account's own e-mail address as an event gave it, then the
//! identity's at the platform: exact, without regard to case. Nobody found is nobody: never a guess. Only the map may
//! override a link that is there already.

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use serde::Deserialize;

use crate::access::{Account, AccountName, AccountPattern};
use crate::ledger::{Ledger, LedgerError};
use crate::target::{PersonId, PersonRef};

/// The people map can't be read.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// The file can't be opened or isn't CSV.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: csv::Error,
    },
    /// The header isn't `account,person`.
    #[error("{path}: the first line must be the header account,person")]
    Header {
        /// The file.
        path: PathBuf,
    },
    /// A row can't be understood.
    #[error("{path}:{line}: {message}")]
    Row {
        /// The file.
        path: PathBuf,
        /// The line.
        line: u64,
        /// What is wrong and the way out.
        message: String,
    },
}

#[derive(Debug, Deserialize)]
struct Line {
    account: String,
    person: String,
}

#[derive(Clone, Debug)]
struct Row {
    account: AccountPattern,
    person: PersonRef,
}

/// The people map. Cheap to clone; all clones see a new reading.
#[derive(Clone, Debug, Default)]
pub struct People {
    rows: Arc<RwLock<Vec<Row>>>,
}

/// Whom an account belongs to, according to the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped(pub PersonRef);

impl People {
    /// Reads the map.
    ///
    /// # Errors
    /// If the file can't be read or a row can't be understood; the message names the line.
    pub fn read(path: &Path) -> Result<Self, PeopleError> {
        let people = Self::default();
        people.read_again(path)?;
        Ok(people)
    }

    /// Reads the map again, for all clones. Returns how many rows it has.
    ///
    /// # Errors
    /// As [`People::read`]; then the old map stays.
    pub fn read_again(&self, path: &Path) -> Result<usize, PeopleError> {
        let rows = rows(path)?;
        let count = rows.len();
        if let Ok(mut current) = self.rows.write() {
            *current = rows;
        }
        Ok(count)
    }

    /// Whom the map gives the account to. A row that names a login is bound to the first account seen with it.
    ///
    /// # Errors
    /// If the ledger fails.
    pub async fn mapped(
        &self,
        ledger: &Ledger,
        account_row: i64,
        account: &Account,
    ) -> Result<Option<Mapped>, LedgerError> {
        let rows: Vec<Row> = match self.rows.read() {
            Ok(rows) => rows.iter().filter(|row| matches(&row.account, account)).cloned().collect(),
            Err(_) => Vec::new(),
        };
        // A row that names the id says more than one that names the login.
        if let Some(row) = rows.iter().find(|row| matches!(row.account.name, AccountName::Id(_))) {
            return Ok(Some(Mapped(row.person.clone())));
        }
        for row in rows {
            if ledger.bind_login(&row.account.to_string().to_lowercase(), account_row).await? {
                return Ok(Some(Mapped(row.person)));
            }
        }
        Ok(None)
    }
}

fn matches(pattern: &AccountPattern, account: &Account) -> bool {
    pattern.provider.as_ref().is_none_or(|provider| *provider == account.key.provider)
        && pattern.host.as_ref().is_none_or(|host| *host == account.key.host)
        && match &pattern.name {
            AccountName::Id(id) => *id == account.key.id,
            AccountName::Login(login) => account.login.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(login)),
        }
}

fn rows(path: &Path) -> Result<Vec<Row>, PeopleError> {
    let file = |source| PeopleError::File { path: path.to_owned(), source };
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_path(path).map_err(file)?;
    if reader.headers().map_err(file)?.iter().ne(["account", "person"]) {
        return Err(PeopleError::Header { path: path.to_owned() });
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(file)?;
        let line = record.position().map_or(0, csv::Position::line);
        let wrong = |message: String| PeopleError::Row { path: path.to_owned(), line, message };
        let line: Line = record.deserialize(None).map_err(file)?;
        let account: AccountPattern = line.account.parse().map_err(|error| wrong(format!("{error}")))?;
        if account.provider.is_none() {
            return Err(wrong(format!("account {:?} names no provider; write github:{}", line.account, line.account)));
        }
        rows.push(Row { account, person: person(&line.person).map_err(wrong)? });
    }
    Ok(rows)
}

fn person(text: &str) -> Result<PersonRef, String> {
    if let Some(id) = text.strip_prefix("user:") {
        return id
            .parse()
            .map(|id| PersonRef::Id(PersonId(id)))
            .map_err(|_| format!("person {text:?} isn't user: and a number; the user id, not the personnel id"));
    }
    match text.split_once('@') {
        Some((name, domain)) if !name.is_empty() && !domain.is_empty() => Ok(PersonRef::Email(text.to_lowercase())),
        _ => Err(format!("person {text:?} is neither an e-mail address nor user:518")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Row>, PeopleError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        rows(file.path())
    }

    #[test]
    fn rows_name_accounts_and_persons() {
        let rows =
            read("account,person\ngithub:octocat, Ada@Acme.example\ngithub:#583231,user:518\n# nobody\n").unwrap();
        assert_eq!(rows[0].person, PersonRef::Email("ada@acme.example".into()));
        assert_eq!(rows[1].account.name, AccountName::Id("583231".into()));
        assert_eq!(rows[1].person, PersonRef::Id(PersonId(518)));
    }

    #[test]
    fn a_bad_row_is_named_by_its_line() {
        let error = read("account,person\ngithub:octocat,ada@acme.example\ngithub:mona,nobody\n").unwrap_err();
        assert!(error.to_string().contains(":3: person \"nobody\" is neither"), "{error}");
        let error = read("account,person\noctocat,a@b\n").unwrap_err();
        assert!(error.to_string().contains("write github:octocat"), "{error}");
        assert!(read("who,what\n").unwrap_err().to_string().contains("account,person"));
    }
}
