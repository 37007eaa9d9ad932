//! What people look at.

use super::{Ledger, LedgerError};
use sqlx::Row;
use std::time::Duration;
#[derive(Clone, Debug)]
/// c
pub struct Counts {
    /// d
    pub due: i64,
    /// w
    pub waiting: i64,
    /// p
    pub parked: i64,
    /// o
    pub oldest_owed: Option<Duration>,
}
impl Ledger {
    /// c
    /// # Errors
    /// x
    pub async fn counts(&self) -> Result<Counts, LedgerError> {
        let row = sqlx::query("SELECT (SELECT COUNT(*) FROM statuses WHERE due_at IS NOT NULL)")
            .fetch_one(&self.read)
            .await?;
        Ok(Counts { due: row.try_get(0)?, waiting: 0, parked: 0, oldest_owed: None })
    }
}
