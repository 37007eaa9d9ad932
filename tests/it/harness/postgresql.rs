//! A schema of a test's own in PostgreSQL, dropped in the end.

use std::net::SocketAddr;

use sqlx::{AnyConnection, AssertSqlSafe, Connection};
use url::Url;
use uuid::Uuid;

/// Where PostgreSQL is unless `ROLLCALL_TEST_POSTGRES` says so.
const DEFAULT: &str = "postgres://postgres@127.0.0.1:5432/test";

/// The schema, until it is dropped.
pub(crate) struct Schema {
    name: String,
    /// The address of the schema.
    pub(crate) url: String,
}

impl Schema {
    pub(crate) async fn create() -> Self {
        let name = format!("rollcall_site_{}", Uuid::now_v7().simple());
        run(&format!("CREATE SCHEMA {name}")).await;
        let url = format!("{}?options[search_path]={name}&application_name={name}", server());
        Self { name, url }
    }
}

impl Schema {
    /// Where PostgreSQL is.
    pub(crate) fn server() -> SocketAddr {
        let url: Url = server().parse().unwrap();
        url.socket_addrs(|| Some(5432)).unwrap()[0]
    }

    /// The address of the schema by way of a proxy.
    pub(crate) fn url_through(&self, proxy: SocketAddr) -> String {
        let mut url: Url = self.url.parse().unwrap();
        url.set_ip_host(proxy.ip()).unwrap();
        url.set_port(Some(proxy.port())).unwrap();
        url.into()
    }

    /// Ends everybody's sessions, as an administrator may.
    pub(crate) async fn end_sessions(&self) {
        run(&end("application_name", &self.name)).await;
    }

    /// Holds a table until the hold is dropped: whoever records waits.
    pub(crate) async fn hold(&self, table: &str) -> AnyConnection {
        sqlx::any::install_default_drivers();
        let mut connection = AnyConnection::connect(&server()).await.unwrap();
        for text in ["BEGIN".to_owned(), format!("LOCK TABLE {}.{table} IN ACCESS EXCLUSIVE MODE", self.name)] {
            sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
        }
        connection
    }

    /// How many tries the deliveries have that were begun and not finished, the most of any.
    pub(crate) async fn begun(&self) -> i64 {
        let mut connection = AnyConnection::connect(&server()).await.unwrap();
        let text = format!("SELECT COALESCE(MAX(tries), 0) FROM {}.begun", self.name);
        let tries = sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        tries
    }

    /// How many sessions wait for a lock on a table of it.
    pub(crate) async fn waiting(&self) -> i64 {
        let mut connection = AnyConnection::connect(&server()).await.unwrap();
        let text = format!(
            "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = '{}' AND wait_event_type = 'Lock' \
             AND query LIKE 'INSERT INTO deliveries%'",
            self.name
        );
        let waiting = sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        waiting
    }

    /// Puts the database's clock ahead by so many seconds, or back.
    pub(crate) async fn shift_clock(&self, seconds: i64) {
        let micros = seconds * 1_000_000;
        let now = format!("CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT) + ({micros})");
        run(&format!("CREATE OR REPLACE VIEW {}.clock AS SELECT {now} AS now_us", self.name)).await;
    }

    /// Gives a table another name.
    pub(crate) async fn rename(&self, table: &str, name: &str) {
        run(&format!("ALTER TABLE {}.{table} RENAME TO {name}", self.name)).await;
    }

    /// A role that may do in it what the one that serves may.
    pub(crate) async fn role(&self) -> Role {
        let role = Role {
            name: format!("{}_service", self.name),
            schema: self.name.clone(),
            url: self.url.replacen("postgres@", &format!("{}_service@", self.name), 1),
        };
        assert_ne!(role.url, self.url, "ROLLCALL_TEST_POSTGRES should log in as postgres");
        run(&format!("CREATE ROLE {} LOGIN", role.name)).await;
        let text = include_str!("../../../deploy/postgres/role.sql");
        let text: String = text.lines().filter(|line| !line.starts_with("--")).collect();
        let text = text.replace(":\"schema\"", &self.name).replace(":\"role\"", &role.name);
        for statement in text.split(';').filter(|statement| !statement.trim().is_empty()) {
            run(statement).await;
        }
        role
    }
}

/// A role, until it is dropped.
pub(crate) struct Role {
    name: String,
    schema: String,
    /// The address with which it logs in.
    pub(crate) url: String,
}

impl Role {
    /// Lets its sessions write, from the next on, or not.
    pub(crate) async fn may_write(&self, may: bool) {
        let read_only = if may { "off" } else { "on" };
        run(&format!("ALTER ROLE {} SET default_transaction_read_only = {read_only}", self.name)).await;
    }

    /// Ends its sessions, as an administrator may.
    pub(crate) async fn end_sessions(&self) {
        run(&end("usename", &self.name)).await;
    }

    /// Takes a privilege from it, or gives it back.
    pub(crate) async fn may(&self, privilege: &str, table: &str, may: bool) {
        let (verb, to) = if may { ("GRANT", "TO") } else { ("REVOKE", "FROM") };
        run(&format!("{verb} {privilege} ON {}.{table} {to} {}", self.schema, self.name)).await;
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        blocking(vec![
            end("usename", &self.name),
            format!("DROP OWNED BY {}", self.name),
            format!("DROP ROLE {}", self.name),
        ]);
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        blocking(vec![end("application_name", &self.name), format!("DROP SCHEMA {} CASCADE", self.name)]);
    }
}

/// Ends the sessions that have this value.
fn end(column: &str, value: &str) -> String {
    format!(
        "SELECT CAST(COUNT(pg_terminate_backend(pid, 5000)) AS BIGINT) FROM pg_stat_activity WHERE {column} = '{value}'"
    )
}

/// Runs statements although the test's own runtime may be about to end.
fn blocking(statements: Vec<String>) {
    let running = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            for statement in statements {
                run(&statement).await;
            }
        });
    });
    running.join().unwrap();
}

#[expect(clippy::disallowed_methods, reason = "the harness is where tests learn about their surroundings")]
fn server() -> String {
    std::env::var("ROLLCALL_TEST_POSTGRES").unwrap_or_else(|_| DEFAULT.to_owned())
}

async fn run(text: &str) {
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(&server())
        .await
        .expect("PostgreSQL should answer at ROLLCALL_TEST_POSTGRES; tests/run starts one if need be");
    sqlx::query(AssertSqlSafe(text.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}
