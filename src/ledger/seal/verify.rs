//! Proving that the history is what was sealed: from the first seal on, every hash is worked out anew from the rows.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::chain::{Entry, Seal};
use super::facts::{FACTS, Facts};
use super::sealer::{ALL, open};
use super::{Hash, Head, KnownHead, LATE};
use crate::delivery::Timestamp;
use crate::ledger::{Ledger, LedgerError, now};

/// How many of the broken places are told; all are counted.
const TOLD: usize = 10;
/// How many ids, or bodies, are read at a time.
const PAGE: i64 = 10_000;
const BODIES: i64 = 200;
/// Rows whose ids are this close together are read in one go.
const CLOSE: i64 = 64;

/// What verifying came to.
#[derive(Debug, Default, Serialize)]
pub struct Verified {
    /// The latest seal; none if nothing was sealed yet.
    pub head: Option<Head>,
    /// How many seals there are.
    pub seals: i64,
    /// How many rows are sealed.
    pub rows: i64,
    /// How many of them have had a name or a text erased.
    pub erased: i64,
    /// How many rows aren't sealed yet.
    pub unsealed: i64,
    /// Whether the head that was noted earlier is in the chain; null if none was given.
    pub known_head: Option<bool>,
    /// How many places are broken.
    pub broken: i64,
    /// The first of them, in the order of the chain; then what doesn't belong there.
    pub first_broken: Vec<Broken>,
}

impl Verified {
    /// Whether nothing is broken.
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.broken == 0
    }

    fn breaks(&mut self, place: Place, what: What) {
        self.broken += 1;
        if self.first_broken.len() < TOLD {
            self.first_broken.push(Broken { place, what });
        }
    }
}

/// One broken place.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What is wrong with it.
    #[serde(serialize_with = "crate::ledger::show::as_text")]
    pub what: What,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.place, self.what)
    }
}

/// A place in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A seal.
    Seal {
        /// Its number.
        number: i64,
    },
    /// A row.
    Row {
        /// Its table.
        table: &'static str,
        /// Its id.
        id: i64,
    },
    /// The end of the chain.
    End,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seal { number } => write!(f, "seal {number}"),
            Self::Row { table, id } => write!(f, "row {id} of {table}"),
            Self::End => f.write_str("the chain"),
        }
    }
}

/// What is wrong with a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A row isn't what was sealed.
    Changed,
    /// A delivery's body isn't the one whose hash was sealed.
    Body,
    /// A row contradicts what was sealed about it elsewhere.
    Contradicts,
    /// A sealed row is gone.
    Deleted,
    /// A row wasn't there when the ids around it were sealed.
    Inserted,
    /// A row is sealed twice.
    Twice,
    /// A label can't be compared any more, and wasn't erased in good order.
    Unsalted,
    /// A seal isn't what its hash says.
    SealChanged,
    /// A seal doesn't follow the one before it.
    Unchained,
    /// A seal is gone from between two others.
    SealMissing,
    /// What comes after the end was sealed once.
    Truncated,
    /// The head that was noted earlier isn't in it.
    HeadUnknown,
    /// The seal of that number had another hash when it was noted.
    HeadOther,
    /// The chain is shorter than when the head was noted.
    HeadGone,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Changed => "was changed after it was sealed",
            Self::Body => "has another body than the one whose SHA-256 was sealed",
            Self::Contradicts => {
                "has another receipt, or another place in the order, than the sealed rows about it say"
            }
            Self::Deleted => "was sealed and is gone",
            Self::Inserted => "was inserted among rows that were sealed before",
            Self::Twice => "is sealed twice",
            Self::Unsalted => "has lost the salt of its names, but not the names",
            Self::SealChanged => "was changed: its hash isn't that of what it holds",
            Self::Unchained => "doesn't follow the seal before it: that one was rewritten",
            Self::SealMissing => "is gone",
            Self::Truncated => "was cut off: more was sealed than it holds",
            Self::HeadUnknown => "doesn't hold the head that was noted: its end was cut off, or it was rewritten",
            Self::HeadOther => "had another hash when its head was noted: the chain was rewritten since",
            Self::HeadGone => "was cut off: it ends before the head that was noted",
        })
    }
}

/// What is known of one table while the seals are gone through.
#[derive(Debug, Default)]
struct Seen {
    /// The sealed ids, as ranges from first to last.
    ranges: BTreeMap<i64, i64>,
    /// Up to which id was sealed by when, in rising order.
    heights: Vec<(i64, Timestamp)>,
}

impl Seen {
    fn contains(&self, id: i64) -> bool {
        self.ranges.range(..=id).next_back().is_some_and(|(_, last)| id <= *last)
    }

    /// Adds an id. Returns whether it is new.
    fn add(&mut self, id: i64) -> bool {
        let before = self.ranges.range(..=id).next_back().map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| id <= last) {
            return false;
        }
        let first = before.filter(|(_, last)| last + 1 == id).map_or(id, |(first, _)| first);
        let last = self.ranges.remove(&(id + 1)).unwrap_or(id);
        self.ranges.insert(first, last);
        true
    }

    fn height(&self) -> i64 {
        self.heights.last().map_or(0, |(height, _)| *height)
    }

    /// When a higher id was sealed first.
    fn passed_over(&self, id: i64) -> Option<Timestamp> {
        self.heights.get(self.heights.partition_point(|(height, _)| *height < id)).map(|(_, at)| *at)
    }
}

/// A verification under way.
struct Verifying<'a> {
    tx: &'a mut AnyConnection,
    found: Verified,
    seen: HashMap<&'static str, Seen>,
    /// When the latest seal so far was made.
    latest: Timestamp,
}

impl Ledger {
    /// Works the chain out anew from the rows, all in one state of the ledger; with a head that was noted earlier, that
    /// must be in it.
    ///
    /// # Errors
    /// If the database fails. That the chain is broken is no error.
    pub async fn verify(&self, known: Option<KnownHead>) -> Result<Verified, LedgerError> {
        let mut tx = self.begin_reading().await?;
        let mut verifying =
            Verifying { tx: &mut tx, found: Verified::default(), seen: HashMap::new(), latest: Timestamp(0) };
        verifying.chain(known).await?;
        for facts in &FACTS {
            verifying.around(facts).await?;
        }
        let found = verifying.found;
        tx.commit().await?;
        Ok(found)
    }
}

impl Verifying<'_> {
    async fn chain(&mut self, known: Option<KnownHead>) -> Result<(), LedgerError> {
        let mut last = (0, Hash::default());
        let mut head_seen = false;
        while let Some(seal) = Seal::after(self.tx, last.0).await? {
            let Seal { number, at, hash, .. } = seal;
            let place = Place::Seal { number };
            let next = last.0.saturating_add(1);
            if number != next {
                self.found.breaks(Place::Seal { number: next }, What::SealMissing);
            } else if seal.previous != last.1 {
                self.found.breaks(place, What::Unchained);
            }
            match seal.entries() {
                Some(entries) if seal.true_hash() == hash => self.rows(&seal, &entries).await?,
                _ => self.found.breaks(place, What::SealChanged),
            }
            if let Some(known) = known {
                head_seen |= known.hash == hash && known.number.is_none_or(|known| known == number);
                if known.number == Some(number) && known.hash != hash {
                    self.found.breaks(place, What::HeadOther);
                }
            }
            self.latest = self.latest.max(at);
            self.found.seals += 1;
            self.found.head = Some(Head { number, at, hash });
            last = (number, hash);
        }
        if let Some(known) = known {
            self.found.known_head = Some(head_seen);
            match known.number {
                Some(number) if number > last.0 => self.found.breaks(Place::End, What::HeadGone),
                None if !head_seen => self.found.breaks(Place::End, What::HeadUnknown),
                _ => {}
            }
        }
        Ok(())
    }

    /// Compares the rows of a seal.
    async fn rows(&mut self, seal: &Seal, entries: &[Entry<'_>]) -> Result<(), LedgerError> {
        for facts in &FACTS {
            let mut sealed: Vec<&Entry<'_>> = entries.iter().filter(|entry| std::ptr::eq(entry.facts, facts)).collect();
            sealed.sort_by_key(|entry| entry.id);
            for close in sealed.chunk_by(|one, next| next.id - one.id <= CLOSE) {
                self.close_rows(facts, close).await?;
            }
            let Some(highest) = sealed.last() else { continue };
            let seen = self.seen.entry(facts.table).or_default();
            for entry in &sealed {
                let place = Place::Row { table: facts.table, id: entry.id };
                if !seen.add(entry.id) {
                    self.found.breaks(place, What::Twice);
                } else if seen.passed_over(entry.id).is_some_and(|at| self.latest >= at.plus(LATE)) {
                    self.found.breaks(place, What::Inserted);
                }
            }
            if highest.id > seen.height() {
                seen.heights.push((highest.id, seal.at));
            }
        }
        Ok(())
    }

    /// Compares rows of one table whose ids are close together.
    async fn close_rows(&mut self, facts: &'static Facts, sealed: &[&Entry<'_>]) -> Result<(), LedgerError> {
        let (Some(first), Some(last)) = (sealed.first(), sealed.last()) else { return Ok(()) };
        let ids = (first.id, last.id);
        let rows = facts.read(self.tx, ids, ALL).await?;
        let mut rows = rows.iter().peekable();
        for entry in sealed {
            while rows.next_if(|row| row.id < entry.id).is_some() {}
            self.found.rows += 1;
            let place = Place::Row { table: facts.table, id: entry.id };
            let Some(row) = rows.next_if(|row| row.id == entry.id) else {
                self.found.breaks(place, What::Deleted);
                continue;
            };
            self.found.erased += i64::from(row.is_erased());
            match row.digest(facts.table, entry.salt) {
                None => self.found.breaks(place, What::Unsalted),
                Some(digest) if digest != entry.digest => self.found.breaks(place, What::Changed),
                Some(_) if !row.agrees => self.found.breaks(place, What::Contradicts),
                Some(_) => {}
            }
        }
        if facts.table == "deliveries" {
            self.bodies(ids).await?;
        }
        Ok(())
    }

    /// Compares the bodies that are kept with their hashes, which are sealed.
    async fn bodies(&mut self, (first, last): (i64, i64)) -> Result<(), LedgerError> {
        let mut after = first - 1;
        loop {
            let rows = sqlx::query(
                "SELECT id, digest, body FROM deliveries WHERE id > $1 AND id <= $2 AND body IS NOT NULL \
                 ORDER BY id LIMIT $3",
            )
            .bind(after)
            .bind(last)
            .bind(BODIES)
            .fetch_all(&mut *self.tx)
            .await?;
            let Some(end) = rows.last() else { return Ok(()) };
            after = end.try_get("id")?;
            for row in rows {
                let (digest, body): (Vec<u8>, Vec<u8>) = (row.try_get("digest")?, row.try_get("body")?);
                if Sha256::digest(&body).as_slice() != digest {
                    let place = Place::Row { table: "deliveries", id: row.try_get("id")? };
                    self.found.breaks(place, What::Body);
                }
            }
        }
    }

    /// Looks for rows of a table that aren't sealed: new ones, late ones, and those that don't belong there.
    async fn around(&mut self, facts: &'static Facts) -> Result<(), LedgerError> {
        let now = now(self.tx).await?;
        let seen = self.seen.remove(facts.table).unwrap_or_default();
        let height = seen.height();
        let open: Vec<_> = open(self.tx, facts.table, now).await?.into_iter().map(|(open, _)| open).collect();
        // What is open at the end begins behind the highest id that was ever sealed.
        if open.iter().any(|open| open.last == ALL && open.first > height + 1) {
            self.found.breaks(Place::End, What::Truncated);
        }
        let mut after = 0;
        while after < height {
            let ids = self.ids(facts.table, (after, height)).await?;
            let Some(last) = ids.last() else { break };
            after = *last;
            for id in ids.into_iter().filter(|id| !seen.contains(*id)) {
                let late = open.iter().any(|open| (open.first..=open.last).contains(&id))
                    && seen.passed_over(id).is_some_and(|at| self.latest < at.plus(LATE));
                if late {
                    self.found.unsealed += 1;
                } else {
                    self.found.breaks(Place::Row { table: facts.table, id }, What::Inserted);
                }
            }
        }
        let text = AssertSqlSafe(format!("SELECT COUNT(*) FROM {} WHERE id > $1", facts.table));
        self.found.unsealed += sqlx::query(text).bind(height).fetch_one(&mut *self.tx).await?.try_get::<i64, _>(0)?;
        Ok(())
    }

    async fn ids(&mut self, table: &str, (after, last): (i64, i64)) -> Result<Vec<i64>, LedgerError> {
        // The table's name is one of ours.
        let text = AssertSqlSafe(format!("SELECT id FROM {table} WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3"));
        let rows = sqlx::query(text).bind(after).bind(last).bind(PAGE).fetch_all(&mut *self.tx).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_ids_grow_together_whatever_their_order() {
        let mut seen = Seen::default();
        for id in [1, 5, 3, 2, 7, 6] {
            assert!(seen.add(id));
        }
        assert!(!seen.add(3));
        assert_eq!(seen.ranges, BTreeMap::from([(1, 3), (5, 7)]));
        assert_eq!([0, 1, 3, 4, 5, 7, 8].map(|id| seen.contains(id)), [false, true, true, false, true, true, false]);
        seen.heights = vec![(4, Timestamp(10)), (9, Timestamp(20))];
        assert_eq!(
            [3, 4, 5, 10].map(|id| seen.passed_over(id)),
            [Some(10), Some(10), Some(20), None].map(|at| at.map(Timestamp))
        );
    }
}
