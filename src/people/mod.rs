//! Which person an account belongs to.
//!
//! What an operator has said comes first ([`crate::ledger::people`]), then the people map's file (`people.csv`), then the
//! account's own e-mail address as an event gave it, then the identity's at the platform: exact, without regard to case.
//! Nobody found is nobody: never a guess. Only an operator or the file may override a link that is there already.
//!
//! * [`mod@file`]: reading `people.csv`;
//! * [`suggest`]: whose an account might be, for people to decide.

pub mod file;
pub mod suggest;

use std::path::Path;
use std::sync::{Arc, RwLock};

use self::file::{PeopleError, Row};
use crate::access::{Account, AccountName, AccountPattern};
use crate::ledger::{Ledger, LedgerError};
use crate::target::{PersonFrom, PersonRef};

/// The people map. Cheap to clone; all clones see a new reading.
#[derive(Clone, Debug, Default)]
pub struct People {
    rows: Arc<RwLock<Vec<Row>>>,
}

/// Whom an account belongs to, according to an operator or the file; none for nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The person.
    pub person: Option<PersonRef>,
    /// Who says so.
    pub from: PersonFrom,
}

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
        let rows = file::read(path)?;
        let count = rows.len();
        if let Ok(mut current) = self.rows.write() {
            *current = rows;
        }
        Ok(count)
    }

    /// Whom an operator or the file gives the account to. What names a login is bound to the first account seen with it.
    ///
    /// # Errors
    /// If the ledger fails.
    pub async fn mapped(
        &self,
        ledger: &Ledger,
        account_row: i64,
        account: &Account,
    ) -> Result<Option<Mapped>, LedgerError> {
        if let Some(person) = ledger.said_of(account_row, account).await? {
            return Ok(Some(Mapped { person, from: PersonFrom::Operator }));
        }
        let mapped = |row: Row| Some(Mapped { person: row.person, from: PersonFrom::PeopleFile });
        let rows: Vec<Row> = match self.rows.read() {
            Ok(rows) => rows.iter().filter(|row| matches(&row.account, account)).cloned().collect(),
            Err(_) => Vec::new(),
        };
        // A row that names the id says more than one that names the login.
        if let Some(row) = rows.iter().find(|row| matches!(row.account.name, AccountName::Id(_))) {
            return Ok(mapped(row.clone()));
        }
        for row in rows {
            if ledger.bind_login(&row.account.to_string().to_lowercase(), account_row).await? {
                return Ok(mapped(row));
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
