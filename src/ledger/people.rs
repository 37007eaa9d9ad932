//! Whose accounts are, as operators say it. What they say wins over every other way to know it, and holds until they say
//! otherwise; who said what and when before is among the [`super::actions`].
//!
//! An account that the ledger doesn't know yet can be spoken of, too: by its id, or by a login, which then means the first
//! account that is seen with it.

use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::actions::{self, NewAction};
use super::database::{lock_account, lock_recording};
use super::show::AccountLabel;
use super::show::filter::{self, Sql};
use super::view::account_of;
use super::{Ledger, LedgerError, now, parsed, unless_in_conflict};
use crate::access::{Account, AccountKind, AccountName, AccountPattern};
use crate::delivery::Timestamp;
use crate::target::PersonRef;

/// What an operator says of one account: the person whose it is; none for nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The account.
    pub account: AccountPattern,
    /// The person.
    pub person: Option<PersonRef>,
}

/// How words are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taking {
    /// Nothing is written: only what would be is told.
    Rehearsed,
    /// What is said for the second time changes nothing.
    Once,
    /// What is said for the second time is meant: a link that somebody has set at the platform since then is no longer
    /// left alone.
    Anew,
}

/// What became of a [`Word`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Heard {
    /// The account in its full form, `github@github.com:#583231`, or with a login if nobody has been seen with it yet.
    pub account: String,
    /// The account's latest login, if the ledger knows the account.
    pub login: Option<String>,
    /// Whether the ledger knows the account.
    pub known: bool,
    /// The person whose it is now; null for nobody.
    #[serde(serialize_with = "person_text")]
    pub person: Option<PersonRef>,
    /// What it is compared to what was said before.
    pub news: News,
}

/// What a [`Word`] is compared to what was said before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum News {
    /// Nobody had said anything.
    Added,
    /// Something else had been said.
    Changed {
        /// The person that was named before; null for nobody.
        #[serde(serialize_with = "person_text")]
        before: Option<PersonRef>,
    },
    /// The same had been said.
    Left,
}

/// Why a [`Word`] can't be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unheard {
    /// It names several accounts.
    #[error("account {0} names several; take one of them by its id: {1}")]
    Ambiguous(AccountPattern, String),
    /// The account is a machine's.
    #[error("account {0} is a bot, and bots are never linked")]
    Bot(AccountPattern),
    /// Nobody has been seen with it, and it doesn't say where it would be.
    #[error(
        "account {0} isn't in the ledger; to link it in advance name its provider and host, as in github@github.com:octocat"
    )]
    Nowhere(AccountPattern),
    /// An earlier one is about the same account.
    #[error("account {0} is the same account as {1}")]
    Twice(AccountPattern, AccountPattern),
}

/// What an operator has said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Said {
    /// The account in its full form.
    pub account: String,
    /// The person; null for nobody.
    #[serde(serialize_with = "person_text")]
    pub person: Option<PersonRef>,
    /// Who said it.
    pub operator: String,
    /// When.
    pub said_at: Timestamp,
}

/// Writes a person as people write it.
#[expect(clippy::ref_option, reason = "serde hands over a reference to the field")]
fn person_text<S: serde::Serializer>(person: &Option<PersonRef>, serializer: S) -> Result<S::Ok, S::Error> {
    match person {
        Some(person) => serializer.collect_str(person),
        None => serializer.serialize_none(),
    }
}

impl Ledger {
    /// Takes what an operator says, all of it or nothing: whoever's status may have to change is due at once. Every
    /// [`Unheard`] comes with its place in the list.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn hear(
        &self,
        words: &[Word],
        operator: &str,
        taking: Taking,
    ) -> Result<Result<Vec<Heard>, Vec<(usize, Unheard)>>, LedgerError> {
        unless_in_conflict(|| self.hear_once(words, operator, taking)).await
    }

    async fn hear_once(
        &self,
        words: &[Word],
        operator: &str,
        taking: Taking,
    ) -> Result<Result<Vec<Heard>, Vec<(usize, Unheard)>>, LedgerError> {
        let mut tx = self.begin().await?;
        // An account that is recorded meanwhile would be neither known here nor told of this.
        lock_recording(&mut tx).await?;
        let mut meant: Vec<Meant<'_>> = Vec::with_capacity(words.len());
        let mut unheard = Vec::new();
        let mut names = std::collections::HashMap::with_capacity(words.len());
        for (n, word) in words.iter().enumerate() {
            match means(&mut tx, word).await? {
                Err(why) => unheard.push((n, why)),
                Ok(one) => match names.insert(one.name.clone(), &word.account) {
                    Some(earlier) => unheard.push((n, Unheard::Twice(word.account.clone(), earlier.clone()))),
                    None => meant.push(one),
                },
            }
        }
        if !unheard.is_empty() {
            tx.rollback().await?;
            return Ok(Err(unheard));
        }
        // Accounts are locked in order, so that nobody waits for another in a ring.
        let mut order: Vec<usize> = (0..meant.len()).collect();
        order.sort_by_key(|n| meant[*n].account.as_ref().map(|known| known.row));
        let now = now(&mut tx).await?;
        let mut heard: Vec<Option<Heard>> = vec![None; meant.len()];
        for n in order {
            heard[n] = Some(hear(&mut tx, &meant[n], operator, taking, now).await?);
        }
        if taking == Taking::Rehearsed {
            tx.rollback().await?;
        } else {
            tx.commit().await?;
        }
        Ok(Ok(heard.into_iter().flatten().collect()))
    }

    /// What operators have said of an account, if anything: a person, or nobody. What was said of a login is bound to the
    /// first account that asks for it.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn said_of(&self, row: i64, account: &Account) -> Result<Option<Option<PersonRef>>, LedgerError> {
        let by_login = account.login.as_ref().map(|login| by_login(&account.key.provider, &account.key.host, login));
        let found = sqlx::query(
            "SELECT id, account, person FROM people WHERE account = $1 OR (account IS NULL AND name IN ($2, $3)) \
             ORDER BY CASE WHEN account IS NULL THEN 1 ELSE 0 END, CASE WHEN name = $2 THEN 0 ELSE 1 END LIMIT 1",
        )
        .bind(row)
        .bind(account.key.to_string())
        .bind(by_login)
        .fetch_optional(&self.read)
        .await?;
        let Some(found) = found else { return Ok(None) };
        if found.try_get::<Option<i64>, _>("account")?.is_none() {
            let mut tx = self.begin().await?;
            let bound =
                sqlx::query("UPDATE people SET account = $2 WHERE id = $1 AND (account IS NULL OR account = $2)")
                    .bind(found.try_get::<i64, _>("id")?)
                    .bind(row)
                    .execute(&mut *tx)
                    .await?
                    .rows_affected();
            tx.commit().await?;
            if bound == 0 {
                return Ok(None);
            }
        }
        Ok(Some(person_of(&found)?))
    }

    /// Everything that operators have said and that holds, by account.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn said(&self) -> Result<Vec<Said>, LedgerError> {
        let rows = sqlx::query(
            "SELECT CASE WHEN accounts.id IS NULL THEN people.name \
             ELSE accounts.provider || '@' || accounts.host || ':#' || accounts.stable END AS account, \
             people.person, people.operator, people.said_at FROM people \
             LEFT JOIN accounts ON accounts.id = people.account ORDER BY 1",
        )
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(said_in).collect()
    }
}

/// What an operator has said of an account, if anything, and it is bound to it.
pub(super) async fn said(tx: &mut AnyConnection, account: i64) -> Result<Option<Said>, LedgerError> {
    let row = sqlx::query("SELECT name AS account, person, operator, said_at FROM people WHERE account = $1")
        .bind(account)
        .fetch_optional(tx)
        .await?;
    row.as_ref().map(said_in).transpose()
}

fn said_in(row: &AnyRow) -> Result<Said, LedgerError> {
    Ok(Said {
        account: row.try_get("account")?,
        person: person_of(row)?,
        operator: row.try_get("operator")?,
        said_at: Timestamp(row.try_get("said_at")?),
    })
}

/// An account that somebody speaks of, by its name in `people`.
struct Meant<'a> {
    word: &'a Word,
    name: String,
    /// The name by the login that was used, if it was.
    by_login: Option<String>,
    account: Option<Known>,
}

struct Known {
    row: i64,
    label: AccountLabel,
}

fn by_login(provider: &str, host: &str, login: &str) -> String {
    format!("{provider}@{host}:{}", login.to_lowercase())
}

async fn means<'a>(tx: &mut AnyConnection, word: &'a Word) -> Result<Result<Meant<'a>, Unheard>, LedgerError> {
    let pattern = &word.account;
    let mut sql =
        Sql::new("SELECT id, provider, host, stable, node_id, login, email, kind FROM accounts WHERE id IN (");
    filter::accounts(&mut sql, pattern);
    sql.push(") ORDER BY id");
    let mut found = Vec::new();
    for row in sql.query().fetch_all(&mut *tx).await? {
        found.push((row.try_get::<i64, _>("id")?, account_of(&row)?));
    }
    Ok(match found.as_slice() {
        [] => match (&pattern.provider, &pattern.host) {
            (Some(provider), Some(host)) => Ok(Meant {
                word,
                name: match &pattern.name {
                    AccountName::Id(id) => format!("{provider}@{host}:#{id}"),
                    AccountName::Login(login) => by_login(provider, host, login),
                },
                by_login: None,
                account: None,
            }),
            _ => Err(Unheard::Nowhere(pattern.clone())),
        },
        [(_, account)] if account.kind == AccountKind::Bot && word.person.is_some() => {
            Err(Unheard::Bot(pattern.clone()))
        }
        [(row, account)] => {
            let key = &account.key;
            Ok(Meant {
                word,
                name: key.to_string(),
                by_login: account.login.as_ref().map(|login| by_login(&key.provider, &key.host, login)),
                account: Some(Known {
                    row: *row,
                    label: AccountLabel { key: key.clone(), login: account.login.clone() },
                }),
            })
        }
        several => {
            let several: Vec<String> = several.iter().map(|(_, account)| format!("'{}'", account.key)).collect();
            Err(Unheard::Ambiguous(pattern.clone(), several.join(", ")))
        }
    })
}

async fn hear(
    tx: &mut AnyConnection,
    meant: &Meant<'_>,
    operator: &str,
    taking: Taking,
    now: Timestamp,
) -> Result<Heard, LedgerError> {
    let row = meant.account.as_ref().map(|known| known.row);
    if let Some(row) = row {
        lock_account(&mut *tx, row).await?;
    }
    let before = sqlx::query(
        "SELECT person FROM people WHERE name = $1 OR account = $2 OR (account IS NULL AND name = $3) \
         ORDER BY CASE WHEN name = $1 THEN 0 WHEN account IS NULL THEN 2 ELSE 1 END LIMIT 1",
    )
    .bind(&meant.name)
    .bind(row)
    .bind(&meant.by_login)
    .fetch_optional(&mut *tx)
    .await?;
    let person = &meant.word.person;
    let news = match before.as_ref().map(person_of).transpose()? {
        None => News::Added,
        Some(before) if before == *person => News::Left,
        Some(before) => News::Changed { before },
    };
    if news != News::Left || taking == Taking::Anew {
        write(tx, meant, row, operator, now).await?;
    }
    Ok(Heard {
        account: meant.name.clone(),
        login: meant.account.as_ref().and_then(|known| known.label.login.clone()),
        known: row.is_some(),
        person: person.clone(),
        news,
    })
}

async fn write(
    tx: &mut AnyConnection,
    meant: &Meant<'_>,
    row: Option<i64>,
    operator: &str,
    now: Timestamp,
) -> Result<(), LedgerError> {
    // What was said of this account under its login is said under its id from now on.
    sqlx::query("DELETE FROM people WHERE name <> $1 AND (account = $2 OR (account IS NULL AND name = $3))")
        .bind(&meant.name)
        .bind(row)
        .bind(&meant.by_login)
        .execute(&mut *tx)
        .await?;
    let person = meant.word.person.as_ref().map(ToString::to_string);
    sqlx::query(
        "INSERT INTO people (name, account, person, operator, said_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (name) DO UPDATE SET account = COALESCE(excluded.account, people.account), \
         person = excluded.person, operator = excluded.operator, said_at = excluded.said_at",
    )
    .bind(&meant.name)
    .bind(row)
    .bind(&person)
    .bind(operator)
    .bind(now.micros())
    .execute(&mut *tx)
    .await?;
    if let Some(row) = row {
        sqlx::query(
            "UPDATE statuses SET version = version + 1, state = 'pending', reason = NULL, due_at = $2, attempts = 0, \
             waiting_since = NULL, drifted_at = NULL WHERE account = $1",
        )
        .bind(row)
        .bind(now.micros())
        .execute(&mut *tx)
        .await?;
    }
    let whose = person.as_deref().unwrap_or("nobody");
    let detail = format!("{} is {}", meant.name, if person.is_some() { whose } else { "nobody's" });
    let action = if person.is_some() { "link" } else { "unlink" };
    actions::note(tx, NewAction { operator, action, account: row, delivery: None, detail: Some(&detail) }).await
}

fn person_of(row: &AnyRow) -> Result<Option<PersonRef>, LedgerError> {
    row.try_get::<Option<String>, _>("person")?.map(|person| parsed("person", &person)).transpose()
}
