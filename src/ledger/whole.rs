//! What concerns many accounts at once: a scope is lost or moves as a whole, or a roster lacks everybody.

use sqlx::Row;

use super::LedgerError;
use super::database::lock_account;
use super::outcome::Outcome;
use super::record::{Entry, Placed, Recorded, Recorder, Told};
use crate::access::Change;

impl Recorder<'_> {
    /// A scope was lost or moved as a whole: everybody who holds it, or a part of it, is concerned.
    pub(super) async fn whole_scope(&mut self, told: &Told<'_>, scope: i64) -> Result<Recorded, LedgerError> {
        let concerned = self.concerned(scope).await?;
        let limit = told.placed.mass_change_limit;
        let count = i64::try_from(concerned.len()).unwrap_or(i64::MAX);
        if count > limit && !told.approved && !self.is_stored(told.row, told.ordinal).await? {
            return Ok(Recorded::Held(held(count, limit, told.row)));
        }
        self.store(told, None, Some(scope)).await?;
        self.mark(scope, told.placed.change.as_str()).await?;
        self.look_again(scope).await?;
        for (account, connection) in &concerned {
            lock_account(self.tx, *account).await?;
            let status = self.owe(*account, connection, told.received_at, told.placed.change.is_loss()).await?;
            self.effect(told, *account, Some(scope), Some(status), Outcome::Pending, None).await?;
        }
        Ok(Recorded::Effects { count: concerned.len(), due: !concerned.is_empty() })
    }

    /// Why a delivery waits for an operator's yes, if it takes access from more accounts by name than it may.
    pub(super) async fn takes_too_many(
        &mut self,
        row: i64,
        entry: &Entry,
        changes: &[Placed],
    ) -> Result<Option<String>, LedgerError> {
        let losing = |placed: &&Placed| matches!(placed.change, Change::Access { .. }) && placed.change.is_loss();
        let count = i64::try_from(changes.iter().filter(losing).count()).unwrap_or(i64::MAX);
        let limit = changes.iter().map(|placed| placed.mass_change_limit).min().unwrap_or(i64::MAX);
        if count <= limit || entry.approved || self.is_stored(row, 0).await? {
            return Ok(None);
        }
        Ok(Some(held(count, limit, row)))
    }

    /// Whether the change is in the set already: an operator said yes to it, or it concerned fewer accounts then. Reading
    /// it again doesn't ask again.
    async fn is_stored(&mut self, row: i64, ordinal: i64) -> Result<bool, LedgerError> {
        let stored = sqlx::query("SELECT id FROM changes WHERE row = $1 AND ordinal = $2")
            .bind(row)
            .bind(ordinal)
            .fetch_optional(&mut *self.tx)
            .await?;
        Ok(stored.is_some())
    }

    /// Sets the mark of a scope to the latest of its changes of that kind.
    pub(super) async fn mark(&mut self, scope: i64, kind: &str) -> Result<(), LedgerError> {
        sqlx::query(
            "INSERT INTO marks (scope, kind, change) \
             SELECT scope, kind, id FROM changes WHERE scope = $1 AND account IS NULL AND kind = $2 \
             ORDER BY event_time DESC, received_at DESC, loss DESC, source DESC, delivery DESC, id DESC LIMIT 1 \
             ON CONFLICT (scope, kind) DO UPDATE SET change = excluded.change",
        )
        .bind(scope)
        .bind(kind)
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    /// Every account that the loss of a scope may concern, with its connection: who holds the scope or a part of it, and,
    /// if it is a root, whose link was kept because not enough was known; now it may be enough.
    pub(super) async fn concerned(&mut self, scope: i64) -> Result<Vec<(i64, String)>, LedgerError> {
        let rows = sqlx::query(
            "SELECT grants.account, changes.connection FROM grants \
             JOIN changes ON changes.id = grants.change JOIN scopes ON scopes.id = grants.scope \
             WHERE (grants.scope = $1 OR scopes.root = $1) AND changes.connection IS NOT NULL AND changes.kind <> 'lost' \
             UNION SELECT statuses.account, statuses.connection FROM statuses \
             JOIN roots ON roots.connection = statuses.connection \
             WHERE roots.scope = $1 AND statuses.state = 'settled' AND statuses.desired IS NULL ORDER BY 1, 2",
        )
        .bind(scope)
        .fetch_all(&mut *self.tx)
        .await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// A root was lost: whoever is looking at an account of its connection at this moment looks again.
    pub(super) async fn look_again(&mut self, scope: i64) -> Result<(), LedgerError> {
        sqlx::query(
            "UPDATE statuses SET version = version + 1 WHERE state <> 'settled' \
             AND connection IN (SELECT connection FROM roots WHERE scope = $1)",
        )
        .bind(scope)
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }
}

fn held(count: i64, limit: i64, row: i64) -> String {
    format!(
        "it concerns {count} accounts at once, more than mass_change_limit = {limit}; \
         `rollcall approve '#{row}'` does it"
    )
}
