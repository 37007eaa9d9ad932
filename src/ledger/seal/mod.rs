//! The seal over the ledger's history: rows that are never changed again are chained by hash, so that whoever changes,
//! removes or inserts one afterwards can be found out.
//!
//! Workers insert freely; one of them at a time seals what has been committed since the last seal ([`sealer`]). A seal
//! ([`chain`]) is a list of rows with their digests, and the hash of that list and of the seal before it. The hash of
//! the latest seal is the *head*: whoever has noted it elsewhere can prove that nothing before it was rewritten
//! ([`verify`]). Which columns of which tables are sealed is said in one place ([`facts`]).
//!
//! Names aren't in the chain, only their hashes with a salt of their own, and bodies are in it as their SHA-256: both can
//! be erased, and the chain still holds.
//!
//! For auditors all of this is told in `deploy/docs/evidence.md`.

pub mod chain;
pub mod facts;
pub mod sealer;
pub mod verify;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Ledger, LedgerError};
use crate::delivery::{InvalidName, Timestamp};

/// How long a row may be committed after one with a higher id, on PostgreSQL: ids are given out before the commit. Far
/// longer than any transaction may last, so that a row which turns up later was put there by somebody else.
pub const LATE: Duration = Duration::from_mins(10);

/// A SHA-256 hash, written as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hash(pub [u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Hash {
    /// Its first 13 hexadecimal digits as a number: as many as a floating-point number holds exactly.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "52 bits fit")]
    pub fn beginning(self) -> f64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        (u64::from_be_bytes(first) >> 12) as f64
    }
}

impl FromStr for Hash {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = InvalidName { what: "hash", why: "must be 64 hexadecimal digits" };
        if text.len() != 64 || !text.is_ascii() {
            return Err(wrong);
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| wrong)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The latest seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Head {
    /// Its number: the first has 1.
    pub number: i64,
    /// When it was made.
    pub at: Timestamp,
    /// Its hash.
    pub hash: Hash,
}

impl fmt::Display for Head {
    /// `7:5e88…`: what [`KnownHead`] reads back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, self.hash)
    }
}

impl Head {
    fn of(row: &AnyRow) -> Result<Self, LedgerError> {
        Ok(Self {
            number: row.try_get("number")?,
            at: Timestamp(row.try_get("at")?),
            hash: super::parsed("hash", &row.try_get::<String, _>("hash")?)?,
        })
    }
}

/// A head that was noted earlier: `7:5e88…`, or the hash alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownHead {
    /// The number of the seal, if it was noted.
    pub number: Option<i64>,
    /// Its hash.
    pub hash: Hash,
}

impl FromStr for KnownHead {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |_| InvalidName { what: "head", why: "must be a hash of 64 hexadecimal digits, or NUMBER:HASH" };
        match text.split_once(':') {
            None => Ok(Self { number: None, hash: text.parse().map_err(wrong)? }),
            Some((number, hash)) => {
                let number = number.parse().map_err(|_| wrong(InvalidName { what: "head", why: "" }))?;
                Ok(Self { number: Some(number), hash: hash.parse().map_err(wrong)? })
            }
        }
    }
}

impl fmt::Display for KnownHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            Some(number) => write!(f, "{number}:{}", self.hash),
            None => self.hash.fmt(f),
        }
    }
}

impl Ledger {
    /// The latest seal, if there is one.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn head(&self) -> Result<Option<Head>, LedgerError> {
        head(&mut *self.read.acquire().await?).await
    }
}

impl Ledger {
    /// How many rows aren't sealed yet.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn unsealed(&self) -> Result<i64, LedgerError> {
        let mut tx = self.begin_reading().await?;
        let now = super::now(&mut tx).await?;
        let mut count = 0;
        for facts in &facts::FACTS {
            for (open, _) in sealer::open(&mut tx, facts.table, now).await? {
                // The table's name is one of ours.
                let text = format!("SELECT COUNT(*) FROM {} WHERE id BETWEEN $1 AND $2", facts.table);
                let counted = sqlx::query(sqlx::AssertSqlSafe(text)).bind(open.first).bind(open.last);
                count += counted.fetch_one(&mut *tx).await?.try_get::<i64, _>(0)?;
            }
        }
        tx.commit().await?;
        Ok(count)
    }
}

pub(super) async fn head(connection: &mut sqlx::AnyConnection) -> Result<Option<Head>, LedgerError> {
    let row = sqlx::query("SELECT number, at, hash FROM seals ORDER BY number DESC LIMIT 1");
    row.fetch_optional(connection).await?.as_ref().map(Head::of).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_back_as_it_is_written() {
        let head = Head { number: 7, at: Timestamp(1), hash: Hash([0xa5; 32]) };
        assert_eq!(format!("{:x}", head.hash.beginning() as u64), head.hash.to_string()[..13]);
        let known: KnownHead = head.to_string().parse().unwrap();
        assert_eq!(known, KnownHead { number: Some(7), hash: head.hash });
        assert_eq!(head.hash.to_string().parse(), Ok(KnownHead { number: None, hash: head.hash }));
        for wrong in ["", "7:", "x:5e88", &"g".repeat(64), &"é".repeat(32), &format!(":{}", head.hash)] {
            assert!(wrong.parse::<KnownHead>().is_err(), "{wrong}");
        }
    }
}
