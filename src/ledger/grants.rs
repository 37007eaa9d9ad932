//! Grants: the latest change of each (account, scope), and what that makes of the deliveries that told the others.

use sqlx::Row;

use super::record::Recorder;
use super::{LedgerError, outcome};

impl Recorder<'_> {
    /// Sets a grant to the maximum of its changes. Returns that change.
    pub(super) async fn grant(&mut self, account: i64, scope: i64) -> Result<i64, LedgerError> {
        let row = sqlx::query(
            "INSERT INTO grants (account, scope, change) \
             SELECT account, scope, id FROM changes WHERE account = $1 AND scope = $2 \
             ORDER BY CASE WHEN kind = 'seen' THEN 0 ELSE 1 END DESC, \
             began DESC, step DESC, event_time DESC, received_at DESC, loss DESC, source DESC, delivery DESC, id DESC LIMIT 1 \
             ON CONFLICT (account, scope) DO UPDATE SET change = excluded.change RETURNING change",
        )
        .bind(account)
        .bind(scope)
        .fetch_one(&mut *self.tx)
        .await?;
        Ok(row.try_get(0)?)
    }

    /// What older changes of the same grant were still to do is no longer to be done.
    pub(super) async fn supersede(
        &mut self,
        newest: i64,
        id: &str,
        account: i64,
        scope: i64,
    ) -> Result<(), LedgerError> {
        let rows = sqlx::query(
            "UPDATE effects SET effect = 'superseded', reason = $4 WHERE account = $1 AND scope = $2 AND row <> $3 \
             AND effect IN ('pending', 'waiting', 'parked') AND kind IN ('gained', 'lost', 'seen') RETURNING row",
        )
        .bind(account)
        .bind(scope)
        .bind(newest)
        .bind(format!("delivery {id} is newer"))
        .fetch_all(&mut *self.tx)
        .await?;
        for row in rows {
            outcome::recompute(self.tx, self.counts, row.try_get(0)?, self.now).await?;
        }
        Ok(())
    }

    /// A change has become the latest of its grant because another one moved back: it is no longer superseded, and what
    /// is older than it is.
    pub(super) async fn reinstate(
        &mut self,
        latest: i64,
        account: i64,
        scope: i64,
        status: i64,
    ) -> Result<(), LedgerError> {
        let change = sqlx::query("SELECT row, delivery FROM changes WHERE id = $1")
            .bind(latest)
            .fetch_one(&mut *self.tx)
            .await?;
        let (row, id): (i64, String) = (change.try_get(0)?, change.try_get(1)?);
        self.supersede(row, &id, account, scope).await?;
        sqlx::query(
            "UPDATE effects SET effect = 'pending', reason = NULL, status = $3 \
             WHERE row = $1 AND account = $2 AND effect = 'superseded'",
        )
        .bind(row)
        .bind(account)
        .bind(status)
        .execute(&mut *self.tx)
        .await?;
        outcome::recompute(self.tx, self.counts, row, self.now).await
    }
}
