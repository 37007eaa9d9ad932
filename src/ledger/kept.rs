//! A delivery as it was recorded, so that it can be read and recorded again.

use bytes::Bytes;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::show::filter::{DeliveryFilter, Sql};
use super::{Ledger, LedgerError, parsed};
use crate::delivery::{Delivery, SecretName, Timestamp};

impl Ledger {
    /// The delivery of a row, with its exact bytes. None if there is no such row, or if it was ignored and kept no body.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn kept(&self, row: i64) -> Result<Option<Delivery>, LedgerError> {
        let found = sqlx::query(
            "SELECT source, provider, delivery, event, secret, received_at, body FROM deliveries \
             WHERE id = $1 AND body IS NOT NULL",
        )
        .bind(row)
        .fetch_optional(&self.read)
        .await?;
        found.as_ref().map(kept_of).transpose()
    }

    /// The deliveries that a filter chooses and whose bodies are kept, each with its row: at most `limit`, behind `after`,
    /// in the order in which they were recorded first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn kept_page(
        &self,
        filter: &DeliveryFilter,
        after: i64,
        limit: i64,
    ) -> Result<Vec<(i64, Delivery)>, LedgerError> {
        let mut sql = Sql::new(
            "SELECT id, source, provider, delivery, event, secret, received_at, body FROM deliveries \
             WHERE body IS NOT NULL AND id > ",
        );
        sql.bind(after);
        sql.push(" AND id IN (SELECT id FROM deliveries WHERE ");
        filter.conditions(&mut sql);
        sql.push(") ORDER BY id LIMIT ");
        sql.bind(limit);
        let rows = sql.query().fetch_all(&self.read).await?;
        rows.iter().map(|row| Ok((row.try_get("id")?, kept_of(row)?))).collect()
    }

    /// Which sources are blind, and why.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn blind_sources(&self) -> Result<Vec<(String, Option<String>, Timestamp)>, LedgerError> {
        sqlx::query("SELECT source, why, event_time FROM source_states WHERE blind = 1 ORDER BY source")
            .fetch_all(&self.read)
            .await?
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, Timestamp(row.try_get(2)?))))
            .collect()
    }
}

/// Reads a delivery from a row that has its columns, the body among them.
pub(super) fn kept_of(row: &AnyRow) -> Result<Delivery, LedgerError> {
    Ok(Delivery {
        source: parsed("source", &row.try_get::<String, _>("source")?)?,
        provider: row.try_get("provider")?,
        id: parsed("delivery id", &row.try_get::<String, _>("delivery")?)?,
        event: parsed("event", &row.try_get::<String, _>("event")?)?,
        received_at: Timestamp(row.try_get("received_at")?),
        secret: SecretName(row.try_get::<String, _>("secret")?.into()),
        stamp: None,
        replay: None,
        body: Bytes::from(row.try_get::<Vec<u8>, _>("body")?),
    })
}
