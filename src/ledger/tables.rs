//! Whether the tables are all there, and may be written: an operator may have forgotten a grant or restored half of a
//! database, and nothing may arrive for hours that would show it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, Row};

use super::database::Database;
use super::{Ledger, LedgerError};

/// The tables, and what is done with them besides reading: deploy/postgres/role.sql grants it.
const TABLES: &[(&str, &[&str])] = &[
    ("accounts", &["INSERT", "UPDATE"]),
    ("actions", &["INSERT"]),
    ("attempts", &["INSERT"]),
    ("begun", &["INSERT", "UPDATE", "DELETE"]),
    ("bindings", &["INSERT"]),
    ("changes", &["INSERT", "UPDATE"]),
    ("deliveries", &["INSERT", "UPDATE"]),
    ("effects", &["INSERT", "UPDATE"]),
    ("gaps", &["INSERT", "DELETE"]),
    ("grants", &["INSERT", "UPDATE"]),
    ("halts", &["INSERT", "UPDATE", "DELETE"]),
    ("identity_forms", &["INSERT"]),
    ("jobs", &["INSERT", "UPDATE"]),
    ("logins", &["INSERT"]),
    ("marks", &["INSERT", "UPDATE"]),
    ("outcomes", &["INSERT"]),
    ("people", &["INSERT", "UPDATE", "DELETE"]),
    ("receipts", &["INSERT"]),
    ("recoveries", &["INSERT", "UPDATE"]),
    ("refusals", &["INSERT", "UPDATE", "DELETE"]),
    ("replay_deliveries", &["INSERT", "UPDATE"]),
    ("replays", &["INSERT", "UPDATE"]),
    ("roots", &["INSERT"]),
    ("roster_differences", &["INSERT", "DELETE"]),
    ("roster_readings", &["INSERT", "UPDATE", "DELETE"]),
    ("scopes", &["INSERT", "UPDATE"]),
    ("seals", &["INSERT"]),
    ("secrets", &["INSERT", "UPDATE"]),
    ("source_states", &["INSERT", "UPDATE"]),
    ("stamps", &["INSERT", "UPDATE"]),
    ("statuses", &["INSERT", "UPDATE"]),
    ("undelivered", &["INSERT", "UPDATE", "DELETE"]),
    ("unreadable", &["INSERT", "UPDATE"]),
    ("unsealed", &["INSERT", "DELETE"]),
    ("workers", &["INSERT", "UPDATE", "DELETE"]),
];

/// The columns that are updated of a table of which the others may not be.
const COLUMNS: &[(&str, &str)] = &[("unreadable", "copies"), ("unreadable", "replay"), ("unreadable", "seen_at")];

impl Ledger {
    /// Looks whether all tables are there and may be written. It asks the database's catalogue, and writes nothing.
    ///
    /// # Errors
    /// If they aren't ([`LedgerError::Tables`]), or the database fails.
    pub async fn check_tables(&self) -> Result<(), LedgerError> {
        match self.database() {
            Database::Sqlite => self.check_sqlite().await,
            Database::PostgreSql => self.check_postgresql().await,
        }
    }

    async fn check_sqlite(&self) -> Result<(), LedgerError> {
        let rows = sqlx::query("SELECT name FROM sqlite_schema WHERE type = 'table'").fetch_all(&self.read).await?;
        let known: BTreeSet<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        match TABLES.iter().find(|(table, _)| !known.contains(*table)) {
            Some((table, _)) => Err(missing(table)),
            None => Ok(()),
        }
    }

    async fn check_postgresql(&self) -> Result<(), LedgerError> {
        let mut needed = String::new();
        for (table, privileges) in TABLES {
            for privilege in ["SELECT"].iter().chain(*privileges) {
                let comma = if needed.is_empty() { "" } else { ", " };
                let _ = write!(needed, "{comma}('{table}', '{privilege}')");
            }
        }
        let columns: Vec<String> = COLUMNS.iter().map(|(table, column)| format!("('{table}', '{column}')")).collect();
        // Where only some columns are updated, each is looked at by itself. The names are ours.
        let text = AssertSqlSafe(format!(
            "SELECT name, privilege, CASE WHEN to_regclass(name) IS NULL THEN 1 ELSE 0 END FROM (VALUES {needed}) \
             AS needed (name, privilege) WHERE COALESCE(CASE privilege \
             WHEN 'DELETE' THEN has_table_privilege(to_regclass(name), privilege) \
             ELSE has_any_column_privilege(to_regclass(name), privilege) END, FALSE) = FALSE \
             UNION ALL SELECT name, 'UPDATE of ' || col, 0 FROM (VALUES {}) AS updated (name, col) \
             WHERE has_column_privilege(to_regclass(name), col, 'UPDATE') = FALSE ORDER BY name LIMIT 1",
            columns.join(", ")
        ));
        let Some(row) = sqlx::query(text).fetch_optional(&self.read).await? else { return Ok(()) };
        let (table, privilege): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        if row.try_get::<i32, _>(2)? == 1 {
            return Err(missing(&table));
        }
        let how = "run deploy/postgres/role.sql again as the tables' owner";
        Err(LedgerError::Tables(format!("{privilege} on {table} isn't granted; {how}")))
    }
}

fn missing(table: &str) -> LedgerError {
    LedgerError::Tables(format!("the table {table} is missing"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use rstest::rstest;

    use super::super::trial::Trial;
    use super::Database::{PostgreSql, Sqlite};
    use super::*;

    #[rstest]
    #[tokio::test]
    async fn a_missing_table_is_named(#[values(Sqlite, PostgreSql)] on: Database) {
        let trial = Trial::open(on).await;
        trial.ledger.check_tables().await.unwrap();
        sqlx::query("ALTER TABLE receipts RENAME TO elsewhere").execute(&trial.ledger.write).await.unwrap();
        let error = trial.ledger.check_tables().await.unwrap_err();
        assert_eq!(error.to_string(), "the ledger's tables: the table receipts is missing");
        assert!(error.is_outage() && !error.is_transient());
    }

    /// What the code does with tables, by its own statements.
    #[test]
    fn every_table_that_is_written_is_looked_at() {
        let mut used: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/ledger")), &mut used);
        let known: BTreeMap<String, BTreeSet<&str>> = TABLES
            .iter()
            .map(|(table, privileges)| ((*table).to_owned(), privileges.iter().copied().collect()))
            .collect();
        assert_eq!(known, used);
    }

    #[test]
    fn the_role_may_update_the_columns_that_are_updated() {
        let role = include_str!("../../deploy/postgres/role.sql");
        let granted = role.split("GRANT UPDATE (").nth(1).unwrap().split(')').next().unwrap();
        let code = include_str!("unreadable.rs");
        for (table, column) in COLUMNS {
            assert_eq!(*table, "unreadable");
            assert!(granted.split(", ").any(|granted| granted == *column), "{column}");
            assert!(code.contains(&format!("{column} = ")), "{column}");
        }
        let restricted = granted.split(", ").count();
        assert_eq!(restricted, COLUMNS.len());
    }

    fn read(folder: &Path, used: &mut BTreeMap<String, BTreeSet<&'static str>>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                if name != "tests" && name != "migrations" {
                    read(&path, used);
                }
                continue;
            }
            if ["trial.rs", "tests.rs", "sample.rs", "tables.rs"].contains(&name.as_str()) {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let words: Vec<&str> =
                code.split(|c: char| c.is_whitespace() || c == '"').filter(|word| !word.is_empty()).collect();
            let mut inserting = None;
            for at in 0..words.len() {
                let word = |after: usize| words.get(at + after).copied().unwrap_or_default();
                match (word(0), word(1)) {
                    ("INSERT", "INTO") => {
                        inserting = Some(word(2).to_owned());
                        used.entry(word(2).to_owned()).or_default().insert("INSERT");
                    }
                    ("DO", "UPDATE") => {
                        used.entry(inserting.clone().unwrap()).or_default().insert("UPDATE");
                    }
                    ("DELETE", "FROM") => {
                        used.entry(word(2).to_owned()).or_default().insert("DELETE");
                    }
                    ("UPDATE", table) if word(2) == "SET" => {
                        used.entry(table.to_owned()).or_default().insert("UPDATE");
                    }
                    _ => {}
                }
            }
        }
    }
}
