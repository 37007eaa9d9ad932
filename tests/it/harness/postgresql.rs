//! A schema of a test's own in PostgreSQL, dropped in the end.

use sqlx::{AnyConnection, AssertSqlSafe, Connection};
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

impl Drop for Schema {
    fn drop(&mut self) {
        let end = format!(
            "SELECT CAST(COUNT(pg_terminate_backend(pid, 5000)) AS BIGINT) FROM pg_stat_activity \
             WHERE application_name = '{}'",
            self.name
        );
        let drop = format!("DROP SCHEMA {} CASCADE", self.name);
        // The test's own runtime may be about to end.
        let dropping = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                run(&end).await;
                run(&drop).await;
            });
        });
        dropping.join().unwrap();
    }
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
