//! The rows of accounts and scopes: what never changes names them, and their labels follow the newest event.

use sqlx::Row;

use super::LedgerError;
use super::record::{Recorder, Told};
use crate::access::{Account, Scope, ScopeId};
use crate::delivery::Timestamp;

impl Recorder<'_> {
    pub(super) async fn account(&mut self, account: &Account, at: Timestamp) -> Result<i64, LedgerError> {
        let kind = match account.kind {
            crate::access::AccountKind::Person => "person",
            crate::access::AccountKind::Bot => "bot",
        };
        let row = sqlx::query(
            "INSERT INTO accounts (provider, host, stable, node_id, login, email, kind, labels_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (provider, host, stable) DO UPDATE SET \
             node_id = COALESCE(excluded.node_id, accounts.node_id), \
             login = CASE WHEN excluded.labels_at >= accounts.labels_at THEN COALESCE(excluded.login, accounts.login) ELSE COALESCE(accounts.login, excluded.login) END, \
             email = CASE WHEN excluded.labels_at >= accounts.labels_at THEN COALESCE(excluded.email, accounts.email) ELSE COALESCE(accounts.email, excluded.email) END, \
             kind = CASE WHEN excluded.labels_at >= accounts.labels_at THEN excluded.kind ELSE accounts.kind END, \
             labels_at = CASE WHEN excluded.labels_at >= accounts.labels_at THEN excluded.labels_at ELSE accounts.labels_at END \
             RETURNING id",
        )
        .bind(&account.key.provider)
        .bind(&account.key.host)
        .bind(&account.key.id)
        .bind(&account.node_id)
        .bind(&account.login)
        .bind(&account.email)
        .bind(kind)
        .bind(at.micros())
        .fetch_one(&mut *self.tx)
        .await?;
        let id = row.try_get(0)?;
        if let Some(login) = &account.login {
            sqlx::query(
                "INSERT INTO logins (provider, host, login, account, seen_at) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (provider, host, login, account) DO NOTHING",
            )
            .bind(&account.key.provider)
            .bind(&account.key.host)
            .bind(login.to_lowercase())
            .bind(id)
            .bind(at.micros())
            .execute(&mut *self.tx)
            .await?;
        }
        Ok(id)
    }

    pub(super) async fn scope(&mut self, scope: &Scope, told: &Told<'_>) -> Result<i64, LedgerError> {
        let root = match &scope.root {
            Some((id, name)) => Some(self.one_scope(id, name.as_deref(), None, told).await?),
            None => None,
        };
        let own = self.one_scope(&scope.id, scope.name.as_deref(), root, told).await?;
        if let (true, Some(connection)) = (told.placed.top_is_root, &told.placed.connection) {
            sqlx::query(
                "INSERT INTO roots (connection, scope) VALUES ($1, $2) ON CONFLICT (connection, scope) DO NOTHING",
            )
            .bind(connection.to_string())
            .bind(root.unwrap_or(own))
            .execute(&mut *self.tx)
            .await?;
        }
        Ok(own)
    }

    async fn one_scope(
        &mut self,
        id: &ScopeId,
        name: Option<&str>,
        root: Option<i64>,
        told: &Told<'_>,
    ) -> Result<i64, LedgerError> {
        let row = sqlx::query(
            "INSERT INTO scopes (provider, host, kind, stable, name, named_at, root) VALUES ($1, $2, $3, $4, $5, $6, $7) \
             ON CONFLICT (provider, host, kind, stable) DO UPDATE SET \
             name = CASE WHEN excluded.named_at >= scopes.named_at THEN COALESCE(excluded.name, scopes.name) ELSE scopes.name END, \
             root = CASE WHEN excluded.named_at >= scopes.named_at THEN COALESCE(excluded.root, scopes.root) ELSE COALESCE(scopes.root, excluded.root) END, \
             named_at = CASE WHEN excluded.named_at >= scopes.named_at THEN excluded.named_at ELSE scopes.named_at END \
             RETURNING id",
        )
        .bind(&told.delivery.provider)
        .bind(&told.placed.host)
        .bind(id.kind.as_str())
        .bind(&id.id)
        .bind(name)
        .bind(told.event_time.micros())
        .bind(root)
        .fetch_one(&mut *self.tx)
        .await?;
        Ok(row.try_get(0)?)
    }
}
