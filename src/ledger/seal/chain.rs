//! One seal: its rows with their digests, and its hash.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::Hash;
use super::facts::{Facts, facts};
use crate::delivery::Timestamp;
use crate::ledger::LedgerError;

/// The first line of what a hash is over: a later form will have another.
const FORM: &str = "rollcall seal 1";

/// A seal as it is stored.
#[derive(Debug)]
pub(super) struct Seal {
    pub(super) number: i64,
    pub(super) at: Timestamp,
    pub(super) previous: Hash,
    pub(super) entries: String,
    pub(super) salts: String,
    pub(super) hash: Hash,
}

/// A row in a seal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) facts: &'static Facts,
    pub(super) id: i64,
    pub(super) digest: Hash,
    /// What its labels are hashed with; empty if it has none, or it was erased.
    pub(super) salt: &'a str,
}

impl Seal {
    /// The hash over its number, its time, the hash before it and its rows: of the text that has one of them a line.
    pub(super) fn true_hash(&self) -> Hash {
        let Self { number, at, previous, entries, .. } = self;
        Hash(Sha256::digest(format!("{FORM}\n{number}\n{}\n{previous}\n{entries}\n", at.micros())).into())
    }

    /// Its rows; none if they can't be read.
    pub(super) fn entries(&self) -> Option<Vec<Entry<'_>>> {
        let mut salts = self.salts.split('\n');
        let read = |line: &str| {
            let mut words = line.split(' ');
            let (table, id, digest) = (words.next()?, words.next()?, words.next()?);
            Some((facts(table)?, id.parse().ok()?, digest.parse().ok()?))
        };
        let entry = |line| {
            let (facts, id, digest) = read(line)?;
            Some(Entry { facts, id, digest, salt: salts.next().unwrap_or_default() })
        };
        self.entries.split('\n').map(entry).collect()
    }

    /// The seal that follows a number.
    pub(super) async fn after(connection: &mut AnyConnection, number: i64) -> Result<Option<Self>, LedgerError> {
        let row = sqlx::query(
            "SELECT number, at, previous, entries, salts, hash FROM seals WHERE number > $1 ORDER BY number LIMIT 1",
        );
        row.bind(number).fetch_optional(connection).await?.as_ref().map(Self::of).transpose()
    }

    fn of(row: &AnyRow) -> Result<Self, LedgerError> {
        // A hash that isn't one is no hash of anything: the comparison fails where it should.
        let hash = |column| Ok::<_, LedgerError>(row.try_get::<String, _>(column)?.parse().unwrap_or_default());
        Ok(Self {
            number: row.try_get("number")?,
            at: Timestamp(row.try_get("at")?),
            previous: hash("previous")?,
            entries: row.try_get("entries")?,
            salts: row.try_get("salts")?,
            hash: hash("hash")?,
        })
    }

    /// Adds it to the chain. Fails if another one has its number: there is only one chain.
    pub(super) async fn store(&self, tx: &mut AnyConnection) -> Result<(), LedgerError> {
        sqlx::query("INSERT INTO seals (number, at, previous, entries, salts, hash) VALUES ($1, $2, $3, $4, $5, $6)")
            .bind(self.number)
            .bind(self.at.micros())
            .bind(self.previous.to_string())
            .bind(&self.entries)
            .bind(&self.salts)
            .bind(self.hash.to_string())
            .execute(tx)
            .await?;
        Ok(())
    }
}

/// The rows of a seal that is being made.
#[derive(Debug, Default)]
pub(super) struct Entries {
    pub(super) count: usize,
    pub(super) entries: String,
    pub(super) salts: String,
}

impl Entries {
    pub(super) fn push(&mut self, table: &str, id: i64, digest: Hash, salt: &str) {
        if self.count > 0 {
            self.entries.push('\n');
            self.salts.push('\n');
        }
        self.count += 1;
        // Writing to a text can't fail.
        let _written = write!(self.entries, "{table} {id} {digest}");
        self.salts.push_str(salt);
    }
}
