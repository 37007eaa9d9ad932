//! A ledger of a test's own, on either database: a folder, or a schema that is dropped in the end.
//!
//! PostgreSQL is the one at `ROLLCALL_TEST_POSTGRES`, by default [`DEFAULT`].

use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection, Row};
use tempfile::TempDir;
use uuid::Uuid;

use super::Ledger;
use super::database::Database;
use crate::delivery::Timestamp;

const DEFAULT: &str = "postgres://postgres@127.0.0.1:5432/test";

/// The ledger, until it is dropped.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) ledger: Ledger,
    _place: Place,
}

#[derive(Debug)]
enum Place {
    Folder { _folder: TempDir },
    Schema(String),
}

impl Trial {
    pub(crate) async fn open(on: Database) -> Self {
        match on {
            Database::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                Self { ledger: Ledger::open(folder.path()).await.unwrap(), _place: Place::Folder { _folder: folder } }
            }
            Database::PostgreSql => {
                let schema = format!("rollcall_trial_{}", Uuid::now_v7().simple());
                run(&format!("CREATE SCHEMA {schema}")).await;
                let place = Place::Schema(schema.clone());
                // It doesn't outlive a crash, and needn't.
                let options = format!("options[search_path]={schema}&options[synchronous_commit]=off");
                let url = SecretString::from(format!("{}?{options}&application_name={schema}", url()));
                Self { ledger: Ledger::connect(&url, true).await.unwrap(), _place: place }
            }
        }
    }
}

impl Trial {
    /// Stops the database's clock at a time.
    pub(crate) async fn set_clock(&self, at: Timestamp) {
        let mut tx = self.ledger.begin().await.unwrap();
        sqlx::query("CREATE TABLE IF NOT EXISTS stopped (now_us BIGINT)").execute(&mut *tx).await.unwrap();
        sqlx::query("DELETE FROM stopped").execute(&mut *tx).await.unwrap();
        sqlx::query("INSERT INTO stopped VALUES ($1)").bind(at.micros()).execute(&mut *tx).await.unwrap();
        sqlx::query("DROP VIEW clock").execute(&mut *tx).await.unwrap();
        sqlx::query("CREATE VIEW clock AS SELECT now_us FROM stopped").execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// The number that a question has for an answer.
    pub(crate) async fn number(&self, question: &'static str) -> Option<i64> {
        sqlx::query(question).fetch_one(&self.ledger.read).await.unwrap().try_get(0).unwrap()
    }

    /// Lets a table refuse the rows of which that is true, as a constraint does.
    pub(crate) async fn refuse(&self, table: &str, condition: &str) {
        let statement = match self.ledger.database() {
            Database::Sqlite => format!(
                "CREATE TRIGGER refuse_{table} BEFORE INSERT ON {table} WHEN NEW.{condition} \
                 BEGIN SELECT RAISE(ABORT, 'refused by a test'); END"
            ),
            // Whatever is in it already may stay.
            Database::PostgreSql => {
                format!("ALTER TABLE {table} ADD CONSTRAINT refuse_{table} CHECK (NOT ({condition})) NOT VALID")
            }
        };
        self.run(statement).await;
    }

    /// Ends that.
    pub(crate) async fn refuse_no_longer(&self, table: &str) {
        self.run(match self.ledger.database() {
            Database::Sqlite => format!("DROP TRIGGER refuse_{table}"),
            Database::PostgreSql => format!("ALTER TABLE {table} DROP CONSTRAINT refuse_{table}"),
        })
        .await;
    }

    /// Lets SQLite pass over such rows of a table without a word.
    pub(crate) async fn ignore(&self, table: &str, condition: &str) {
        let statement = format!(
            "CREATE TRIGGER ignore_{table} BEFORE INSERT ON {table} WHEN NEW.{condition} \
             BEGIN SELECT RAISE(IGNORE); END"
        );
        self.run(statement).await;
    }

    /// Gives a table another name.
    pub(crate) async fn rename(&self, table: &str, name: &str) {
        self.run(format!("ALTER TABLE {table} RENAME TO {name}")).await;
    }

    /// Gives the seals a head that can't be read.
    pub(crate) async fn break_head(&self) {
        self.run("INSERT INTO seals VALUES (1, 0, '', '', '', 'not a hash')").await;
    }

    /// Runs a statement.
    pub(crate) async fn run(&self, statement: impl Into<String>) {
        sqlx::query(AssertSqlSafe(statement.into())).execute(&self.ledger.write).await.unwrap();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Self::Schema(schema) = self {
            // The test's own runtime may be about to end, and with it whatever its connections were about to do.
            let end = format!(
                "SELECT CAST(COUNT(pg_terminate_backend(pid, 5000)) AS BIGINT) FROM pg_stat_activity \
                 WHERE application_name = '{schema}'"
            );
            let drop = format!("DROP SCHEMA {schema} CASCADE");
            let dropping = std::thread::spawn(move || {
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                    run(&end).await;
                    run(&drop).await;
                });
            });
            dropping.join().unwrap();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "tests learn here where PostgreSQL is")]
pub(super) fn url() -> String {
    std::env::var("ROLLCALL_TEST_POSTGRES").unwrap_or_else(|_| DEFAULT.to_owned())
}

async fn run(text: &str) {
    sqlx::any::install_default_drivers();
    let mut connection = sqlx::AnyConnection::connect(&url())
        .await
        .expect("PostgreSQL should answer at ROLLCALL_TEST_POSTGRES; tests/run starts one if need be");
    sqlx::query(AssertSqlSafe(text.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}
