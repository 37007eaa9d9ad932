//! Making seals. Nothing is asked of those who insert: no lock, no column, no trigger.
//!
//! Rows are found by their ids. On PostgreSQL ids are given out before the commit, so a row may become visible after one
//! with a higher id was sealed, or never. The ids that were passed over are kept for [`LATE`], and a row that turns up
//! among them by then goes into the seal of that time.

use std::fmt;

use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::chain::{Entries, Seal};
use super::facts::{FACTS, Facts, new_salt};
use super::{Hash, Head, LATE, head};
use crate::delivery::Timestamp;
use crate::ledger::{Ledger, LedgerError, now};

/// How many rows of one table go into a seal at the most: what is to be hashed is held in memory.
const ROWS: i64 = 1000;

/// The end of the ids that aren't given out yet.
pub(super) const ALL: i64 = i64::MAX;

/// What a round of sealing came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// How many rows were sealed.
    pub rows: usize,
    /// The latest seal; none if nothing was ever recorded.
    pub head: Option<Head>,
}

impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.head {
            Some(head) => write!(f, "{} rows sealed, the head is {head}", self.rows),
            None => f.write_str("nothing to seal yet"),
        }
    }
}

/// Ids of one table that aren't sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) first: i64,
    pub(super) last: i64,
    /// Since when a row with a higher id is sealed; for the last ones, which have none, without meaning.
    since: Timestamp,
}

/// What a seal will change about the open ids of a table.
struct Moved {
    facts: &'static Facts,
    before: Open,
    /// The ids among them that are sealed now, in order.
    sealed: Vec<i64>,
}

impl Ledger {
    /// Seals everything that is committed, in as many seals as it takes. Two that do so at once can't harm each other: one
    /// of them fails.
    ///
    /// # Errors
    /// If the database fails, or somebody else has sealed meanwhile.
    pub async fn seal(&self) -> Result<Sealed, LedgerError> {
        let mut rows = 0;
        loop {
            let (sealed, more) = self.in_time(self.seal_once()).await?;
            rows += sealed;
            if !more {
                return Ok(Sealed { rows, head: self.head().await? });
            }
        }
    }

    /// Makes one seal, if there is anything to seal. Returns of how many rows, and whether there are more.
    async fn seal_once(&self) -> Result<(usize, bool), LedgerError> {
        let mut tx = self.begin_reading().await?;
        let head = head(&mut tx).await?;
        let began = now(&mut tx).await?;
        let mut entries = Entries::default();
        let mut moved = Vec::new();
        let mut more = false;
        for facts in &FACTS {
            let mut room = ROWS;
            for (open, found) in open(&mut tx, facts.table, began).await? {
                if !found {
                    continue;
                }
                let rows = facts.read(&mut tx, (open.first, open.last), room).await?;
                room -= i64::try_from(rows.len()).unwrap_or(room);
                for row in &rows {
                    let salt = if row.needs_salt() { new_salt() } else { String::new() };
                    if let Some(digest) = row.digest(facts.table, &salt) {
                        entries.push(facts.table, row.id, digest, &salt);
                    }
                }
                moved.push(Moved { facts, before: open, sealed: rows.iter().map(|row| row.id).collect() });
                if room == 0 {
                    more = true;
                    break;
                }
            }
        }
        tx.commit().await?;

        let mut tx = self.begin().await?;
        let at = now(&mut tx).await?;
        let count = entries.count;
        if count > 0 {
            let (number, previous) = head.map_or((1, Hash::default()), |head| (head.number + 1, head.hash));
            let Entries { entries, salts, .. } = entries;
            let mut seal = Seal { number, at, previous, entries, salts, hash: Hash::default() };
            seal.hash = seal.true_hash();
            seal.store(&mut tx).await?;
            for moved in moved {
                moved.store(&mut tx, at).await?;
            }
        }
        // Whatever there was among these has been sealed by now, unless there was too much for one seal.
        if !more {
            sqlx::query("DELETE FROM unsealed WHERE last < $1 AND since <= $2")
                .bind(ALL)
                .bind(began.plus_micros(-i64::try_from(LATE.as_micros()).unwrap_or(0)).micros())
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok((count, more))
    }
}

/// The ids of a table that aren't sealed, and whether there are rows among them. The look-up is one of an index for each
/// range, whatever the database thinks of the rest.
pub(super) async fn open(
    tx: &mut AnyConnection,
    table: &str,
    now: Timestamp,
) -> Result<Vec<(Open, bool)>, LedgerError> {
    // The table's name is one of ours.
    let text = AssertSqlSafe(format!(
        "SELECT first, last, since, (SELECT MIN(id) FROM {table} WHERE id >= unsealed.first AND id <= unsealed.last) \
         AS found FROM unsealed WHERE facts = $1 ORDER BY first"
    ));
    let rows = sqlx::query(text).bind(table).fetch_all(tx).await?;
    if rows.is_empty() {
        return Ok(vec![(Open { first: 1, last: ALL, since: now }, true)]);
    }
    rows.iter()
        .map(|row| {
            let open = Open {
                first: row.try_get("first")?,
                last: row.try_get("last")?,
                since: Timestamp(row.try_get("since")?),
            };
            Ok((open, row.try_get::<Option<i64>, _>("found")?.is_some()))
        })
        .collect()
}

impl Moved {
    /// Puts what is left of the open ids in their place.
    async fn store(&self, tx: &mut AnyConnection, at: Timestamp) -> Result<(), LedgerError> {
        let Self { facts, before, sealed } = self;
        sqlx::query("DELETE FROM unsealed WHERE facts = $1 AND first = $2")
            .bind(facts.table)
            .bind(before.first)
            .execute(&mut *tx)
            .await?;
        for open in left(*before, sealed, at) {
            sqlx::query("INSERT INTO unsealed (facts, first, last, since) VALUES ($1, $2, $3, $4)")
                .bind(facts.table)
                .bind(open.first)
                .bind(open.last)
                .bind(open.since.micros())
                .execute(&mut *tx)
                .await?;
        }
        Ok(())
    }
}

/// What is left of open ids when some of them are sealed.
fn left(before: Open, sealed: &[i64], at: Timestamp) -> Vec<Open> {
    // What has been passed over before goes on to be so since then.
    let since = if before.last == ALL { at } else { before.since };
    let mut left = Vec::new();
    let mut first = before.first;
    for id in sealed {
        if first < *id {
            left.push(Open { first, last: id - 1, since });
        }
        first = id + 1;
    }
    if first <= before.last {
        left.push(Open { first, last: before.last, since });
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_over_stays_open_since_it_was() {
        let open = |first, last, since| Open { first, last, since: Timestamp(since) };
        let at = Timestamp(9);
        assert_eq!(left(open(1, ALL, 5), &[1, 2, 5], at), [open(3, 4, 9), open(6, ALL, 9)]);
        assert_eq!(left(open(3, 4, 5), &[3], at), [open(4, 4, 5)]);
        assert_eq!(left(open(3, 4, 5), &[3, 4], at), []);
    }
}
