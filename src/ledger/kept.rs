//! A delivery as it was recorded, so that it can be read and recorded again.

use bytes::Bytes;
use sqlx::Row;

use super::{Ledger, LedgerError, parsed};
use crate::delivery::{Delivery, Encoding, SecretName, Timestamp};

impl Ledger {
    /// The delivery of a row, with its exact bytes. None if there is no such row, or if it was ignored and kept no body.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn kept(&self, row: i64) -> Result<Option<Delivery>, LedgerError> {
        let found = sqlx::query(
            "SELECT source, provider, delivery, event, encoding, secret, received_at, body FROM deliveries \
             WHERE id = $1 AND body IS NOT NULL",
        )
        .bind(row)
        .fetch_optional(&self.read)
        .await?;
        let Some(found) = found else { return Ok(None) };
        let encoding: String = found.try_get("encoding")?;
        Ok(Some(Delivery {
            source: parsed("source", &found.try_get::<String, _>("source")?)?,
            provider: found.try_get("provider")?,
            id: parsed("delivery id", &found.try_get::<String, _>("delivery")?)?,
            event: parsed("event", &found.try_get::<String, _>("event")?)?,
            encoding: Encoding::from_content_type(&encoding)
                .ok_or_else(|| LedgerError::Unreadable(format!("the encoding {encoding:?}")))?,
            received_at: Timestamp(found.try_get("received_at")?),
            secret: SecretName(found.try_get::<String, _>("secret")?.into()),
            stamp: None,
            replay: None,
            body: Bytes::from(found.try_get::<Vec<u8>, _>("body")?),
        }))
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
