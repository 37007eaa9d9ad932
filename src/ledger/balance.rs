//! The balance: accepted = the sum of the outcomes + the gaps.
//!
//! Every accepted delivery bears a stamp: (run, source, a sequence from 1). The ledger keeps the highest sequence that it
//! has seen of each and what is missing below it; a checkpoint closes the tail, and says which numbers were handed out
//! to deliveries that in the end weren't accepted (voids).
//!
//! What it sees: every number below the highest that was recorded, or up to a checkpoint, that hasn't arrived, within the
//! time between two checkpoints (10 s) and the next look. A gap isn't yet a loss. Another worker may have the message
//! and be slow or frozen (the broker hands it out again only when that worker's connection ends), a crashed worker's
//! messages come again after later ones, and several consumers record in any order. So a gap is *missing* when it is
//! older than `[balance] after`, and it stops being so when it is filled all the same. What waits in an ingress's spool
//! while later deliveries go past it leaves a gap too; every few seconds that ingress tells from which number on it holds
//! any, and a gap that ends there or later counts as noticed only then.
//!
//! What it can't see: the tail of an ingress that was killed, above the highest number that arrived and the last
//! checkpoint: nobody knows that those numbers were handed out. And a number between the last checkpoint and the highest
//! that arrived may have been handed out to a request that was cut off by the kill, and was never accepted: such a gap is
//! shown as missing with `accepted: false`, since losing one silently is worse than naming one too many.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};
use uuid::Uuid;

use super::outcome::Outcome;
use super::{Ledger, LedgerError, parsed};
use crate::delivery::{Checkpoint, Delivery, SourceName, Stamp, Timestamp};

/// Where the balance stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// Deliveries that some ingress has accepted, as far as stamps and checkpoints tell.
    pub accepted: i64,
    /// How many of them have each outcome.
    pub outcomes: BTreeMap<&'static str, i64>,
    /// Deliveries that were accepted and haven't arrived.
    pub gaps: Vec<Gap>,
}

impl Balance {
    /// How many deliveries are missing.
    #[must_use]
    pub fn missing(&self) -> i64 {
        self.gaps.iter().map(Gap::count).fold(0, i64::saturating_add)
    }

    /// Whether accepted is the sum of the outcomes and the gaps. It isn't only if something was lost or counted twice.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        self.accepted == self.outcomes.values().copied().fold(self.missing(), i64::saturating_add)
    }
}

impl std::fmt::Display for Balance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts: Vec<String> = Outcome::ALL
            .iter()
            .filter_map(|outcome| {
                let count = self.outcomes.get(outcome.as_str()).copied().unwrap_or_default();
                (count > 0).then(|| format!("{count} {outcome}"))
            })
            .collect();
        parts.push(format!("{} missing", self.missing()));
        let sign = if self.adds_up() { "=" } else { "≠" };
        write!(f, "{} accepted {sign} {}", self.accepted, parts.join(" + "))
    }
}

/// Consecutive sequence numbers that haven't arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The run.
    pub run: String,
    /// The source.
    pub source: String,
    /// The first missing number.
    pub first: i64,
    /// The last missing number.
    pub last: i64,
    /// When it was noticed.
    pub since: Timestamp,
    /// Whether the run has told that it accepted them. If not, it may have been killed before it answered.
    pub accepted: bool,
    /// What was recorded with the number before; none if that is the run's beginning or missing, too.
    pub before: Option<Neighbour>,
    /// What was recorded with the number after; none if only a checkpoint came.
    pub after: Option<Neighbour>,
}

/// A recorded delivery beside a gap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Neighbour {
    /// When the ingress received it.
    pub received_at: Timestamp,
    /// The provider's id of it.
    pub delivery: String,
}

impl Gap {
    /// How many deliveries are missing.
    #[must_use]
    pub const fn count(&self) -> i64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} number {} ", self.source, self.first)?;
        if self.last > self.first {
            write!(f, "to {} ", self.last)?;
        }
        write!(f, "of run {}, received ", self.run)?;
        match &self.before {
            Some(before) => write!(f, "after {} ({})", before.received_at, before.delivery)?,
            None => f.write_str("after the run began")?,
        }
        match &self.after {
            Some(after) => write!(f, " and before {} ({})", after.received_at, after.delivery)?,
            None => write!(f, " and before the checkpoint of {}", self.since)?,
        }
        if !self.accepted {
            f.write_str("; the run hasn't told whether it accepted them")?;
        }
        Ok(())
    }
}

/// One ingress process and source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Run {
    /// Its id.
    pub run: String,
    /// The source.
    pub source: String,
    /// When it was first heard of.
    pub since: Timestamp,
    /// When it was last heard of.
    pub seen_at: Timestamp,
    /// Its highest number.
    pub high: i64,
    /// How many of its numbers were handed out to what wasn't accepted.
    pub voids: i64,
}

/// What a batch does to the balance: read once, changed in memory, stored once.
#[derive(Debug, Default)]
pub(super) struct Tally(BTreeMap<(Uuid, SourceName), Count>);

#[derive(Clone, Debug, Default)]
struct Count {
    high: i64,
    voids: i64,
    /// Up to this number the run has told what it accepted.
    told: i64,
    /// The delivery with the highest number; none if a checkpoint or a void has it.
    highest: Option<Neighbour>,
    /// By first number.
    gaps: BTreeMap<i64, Missing>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Missing {
    last: i64,
    since: Timestamp,
    before: Option<Neighbour>,
    after: Option<Neighbour>,
}

/// So far at most a number lies beyond the highest that is known. No ingress is so far ahead of the ledger, and none lives
/// to reach it: a number beyond isn't an ingress's, and neither names deliveries that are missing nor is added up.
const MOST_AHEAD: i64 = 1 << 32;

impl Count {
    /// Whether an ingress may have come to this number.
    const fn is_plausible(&self, number: i64) -> bool {
        number >= 0 && number.saturating_sub(self.high) <= MOST_AHEAD
    }

    /// Takes note of a number, and of the delivery that bore it. Returns whether it was missing until now.
    fn take(&mut self, number: i64, delivery: Option<&Neighbour>, now: Timestamp) -> bool {
        if number > self.high {
            self.close(number - 1, delivery, now);
            self.high = number;
            self.highest = delivery.cloned();
            return true;
        }
        let Some((&first, missing)) = self.gaps.range(..=number).next_back() else { return false };
        if number > missing.last {
            return false;
        }
        let Missing { last, since, before, after } = missing.clone();
        self.gaps.remove(&first);
        // A void says nothing about when: the window stays as wide as it was.
        if first < number {
            let after = delivery.cloned().or_else(|| after.clone());
            self.gaps.insert(first, Missing { last: number - 1, since, before: before.clone(), after });
        }
        if number < last {
            self.gaps.insert(number + 1, Missing { last, since, before: delivery.cloned().or(before), after });
        }
        true
    }

    /// From `number` on, what hasn't arrived may be on its way from a spool: it counts as noticed now.
    fn hold(&mut self, number: i64, now: Timestamp) {
        for missing in self.gaps.values_mut().filter(|missing| missing.last >= number) {
            missing.since = now;
        }
    }

    /// Everything up to `number` was handed out: what hasn't arrived of it is missing.
    fn close(&mut self, number: i64, after: Option<&Neighbour>, now: Timestamp) {
        if number > self.high {
            let missing = Missing { last: number, since: now, before: self.highest.take(), after: after.cloned() };
            self.gaps.insert(self.high + 1, missing);
            self.high = number;
        }
    }
}

impl Tally {
    /// A stamped delivery arrived. Returns whether for the first time.
    pub(super) async fn arrived(
        &mut self,
        tx: &mut AnyConnection,
        delivery: &Delivery,
        stamp: Stamp,
        received_at: Timestamp,
        now: Timestamp,
    ) -> Result<bool, LedgerError> {
        let arrived = Neighbour { received_at, delivery: delivery.id.to_string() };
        let count = self.count(tx, stamp.run, &delivery.source).await?;
        let number = number(stamp.sequence);
        if !count.is_plausible(number) {
            tracing::error!(
                source = %delivery.source, id = %delivery.id, run = %stamp.run, sequence = number, highest = count.high,
                "a delivery has a sequence number that no ingress can have given it; it is left out of the balance"
            );
            return Ok(false);
        }
        Ok(count.take(number, Some(&arrived), now))
    }

    /// An ingress says how far it has come.
    pub(super) async fn checkpoint(
        &mut self,
        tx: &mut AnyConnection,
        checkpoint: &Checkpoint,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let count = self.count(tx, checkpoint.run, &checkpoint.source).await?;
        if !count.is_plausible(number(checkpoint.sequence)) {
            tracing::error!(
                source = %checkpoint.source, run = %checkpoint.run, sequence = checkpoint.sequence, highest = count.high,
                "a checkpoint has a sequence number that no ingress can have come to; it is left out of the balance"
            );
            return Ok(());
        }
        count.close(number(checkpoint.sequence), None, now);
        count.told = count.told.max(number(checkpoint.sequence));
        if let Some(held) = checkpoint.held {
            count.hold(number(held), now);
        }
        // What is beyond the checkpoint's own number it can't know of.
        for void in checkpoint.voids.iter().filter(|void| **void <= checkpoint.sequence) {
            if count.take(number(*void), None, now) {
                count.voids += 1;
            }
        }
        Ok(())
    }

    async fn count(
        &mut self,
        tx: &mut AnyConnection,
        run: Uuid,
        source: &SourceName,
    ) -> Result<&mut Count, LedgerError> {
        match self.0.entry((run, source.clone())) {
            std::collections::btree_map::Entry::Occupied(known) => Ok(known.into_mut()),
            std::collections::btree_map::Entry::Vacant(vacant) => Ok(vacant.insert(load(tx, run, source).await?)),
        }
    }
}

/// Sequences count deliveries of one process; no process lives to 2⁶³ of them.
fn number(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

async fn load(tx: &mut AnyConnection, run: Uuid, source: &SourceName) -> Result<Count, LedgerError> {
    let known =
        sqlx::query("SELECT high, voids, told, high_at, high_delivery FROM stamps WHERE run = $1 AND source = $2")
            .bind(run.to_string())
            .bind(source.as_str())
            .fetch_optional(&mut *tx)
            .await?;
    let Some(known) = known else { return Ok(Count::default()) };
    let gaps = sqlx::query(
        "SELECT first, last, since, before_at, before_delivery, after_at, after_delivery FROM gaps \
         WHERE run = $1 AND source = $2",
    )
    .bind(run.to_string())
    .bind(source.as_str())
    .fetch_all(&mut *tx)
    .await?;
    let gaps = gaps.iter().map(|row| {
        let (before, after) =
            (neighbour(row.try_get(3)?, row.try_get(4)?), neighbour(row.try_get(5)?, row.try_get(6)?));
        Ok((row.try_get(0)?, Missing { last: row.try_get(1)?, since: Timestamp(row.try_get(2)?), before, after }))
    });
    Ok(Count {
        high: known.try_get(0)?,
        voids: known.try_get(1)?,
        told: known.try_get(2)?,
        highest: neighbour(known.try_get(3)?, known.try_get(4)?),
        gaps: gaps.collect::<Result<_, sqlx::Error>>()?,
    })
}

fn neighbour(received_at: Option<i64>, delivery: Option<String>) -> Option<Neighbour> {
    Some(Neighbour { received_at: Timestamp(received_at?), delivery: delivery? })
}

/// Stores what a batch did to the balance.
pub(super) async fn store(tx: &mut AnyConnection, tally: Tally, now: Timestamp) -> Result<(), LedgerError> {
    for ((run, source), count) in tally.0 {
        let run = run.to_string();
        sqlx::query(
            "INSERT INTO stamps (run, source, high, voids, told, since, seen_at, high_at, high_delivery) \
             VALUES ($1, $2, $3, $4, $5, $6, $6, $7, $8) \
             ON CONFLICT (run, source) DO UPDATE SET high = excluded.high, voids = excluded.voids, \
             told = excluded.told, seen_at = excluded.seen_at, high_at = excluded.high_at, \
             high_delivery = excluded.high_delivery",
        )
        .bind(&run)
        .bind(source.as_str())
        .bind(count.high)
        .bind(count.voids)
        .bind(count.told)
        .bind(now.micros())
        .bind(count.highest.as_ref().map(|highest| highest.received_at.micros()))
        .bind(count.highest.map(|highest| highest.delivery))
        .execute(&mut *tx)
        .await?;
        sqlx::query("DELETE FROM gaps WHERE run = $1 AND source = $2")
            .bind(&run)
            .bind(source.as_str())
            .execute(&mut *tx)
            .await?;
        for (first, missing) in count.gaps {
            sqlx::query(
                "INSERT INTO gaps (run, source, first, last, since, before_at, before_delivery, after_at, after_delivery) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            )
            .bind(&run)
            .bind(source.as_str())
            .bind(first)
            .bind(missing.last)
            .bind(missing.since.micros())
            .bind(missing.before.as_ref().map(|before| before.received_at.micros()))
            .bind(missing.before.map(|before| before.delivery))
            .bind(missing.after.as_ref().map(|after| after.received_at.micros()))
            .bind(missing.after.map(|after| after.delivery))
            .execute(&mut *tx)
            .await?;
        }
    }
    Ok(())
}

const GAPS: &str = "SELECT g.run, g.source, g.first, g.last, g.since, g.before_at, g.before_delivery, g.after_at, \
    g.after_delivery, s.told FROM gaps g JOIN stamps s ON s.run = g.run AND s.source = g.source \
    WHERE g.since <= $1 ORDER BY g.since, g.run, g.source, g.first";

fn gap(row: &AnyRow) -> Result<Gap, LedgerError> {
    let (last, told): (i64, i64) = (row.try_get(3)?, row.try_get(9)?);
    Ok(Gap {
        run: row.try_get(0)?,
        source: row.try_get(1)?,
        first: row.try_get(2)?,
        last,
        since: Timestamp(row.try_get(4)?),
        accepted: last <= told,
        before: neighbour(row.try_get(5)?, row.try_get(6)?),
        after: neighbour(row.try_get(7)?, row.try_get(8)?),
    })
}

impl Ledger {
    /// Where the balance stands.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn balance(&self) -> Result<Balance, LedgerError> {
        let mut tx = self.begin_reading().await?;
        let mut accepted: i64 = 0;
        for row in sqlx::query("SELECT high, voids FROM stamps").fetch_all(&mut *tx).await? {
            let (high, voids): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            accepted = accepted.saturating_add(high.saturating_sub(voids));
        }
        let mut outcomes = BTreeMap::new();
        for row in sqlx::query(
            "SELECT outcome, CAST(SUM(copies) AS BIGINT) FROM deliveries GROUP BY outcome HAVING SUM(copies) > 0",
        )
        .fetch_all(&mut *tx)
        .await?
        {
            let outcome: Outcome = parsed("outcome", &row.try_get::<String, _>(0)?)?;
            outcomes.insert(outcome.as_str(), row.try_get(1)?);
        }
        let gaps = sqlx::query(GAPS).bind(i64::MAX).fetch_all(&mut *tx).await?;
        let gaps = gaps.iter().map(gap).collect::<Result<_, LedgerError>>()?;
        tx.commit().await?;
        Ok(Balance { accepted, outcomes, gaps })
    }

    /// What is missing: the gaps that are older than a delivery may be on its way.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn missing(&self, after: Duration) -> Result<Vec<Gap>, LedgerError> {
        let mut connection = self.read.acquire().await?;
        let after = i64::try_from(after.as_micros()).unwrap_or(i64::MAX);
        let before = super::now(&mut connection).await?.micros().saturating_sub(after);
        sqlx::query(GAPS).bind(before).fetch_all(&mut *connection).await?.iter().map(gap).collect()
    }

    /// Every run of an ingress, by source; the latest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn runs(&self) -> Result<Vec<Run>, LedgerError> {
        let rows =
            sqlx::query("SELECT run, source, since, seen_at, high, voids FROM stamps ORDER BY source, since DESC, run")
                .fetch_all(&self.read)
                .await?;
        let runs = rows.iter().map(|row| {
            Ok(Run {
                run: row.try_get(0)?,
                source: row.try_get(1)?,
                since: Timestamp(row.try_get(2)?),
                seen_at: Timestamp(row.try_get(3)?),
                high: row.try_get(4)?,
                voids: row.try_get(5)?,
            })
        });
        runs.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbour(number: i64) -> Neighbour {
        Neighbour { received_at: Timestamp(number), delivery: format!("d{number}") }
    }

    fn count(numbers: &[i64]) -> Count {
        let mut count = Count::default();
        for number in numbers {
            count.take(*number, Some(&neighbour(*number)), Timestamp(0));
        }
        count
    }

    /// First, last, and the numbers of the neighbours.
    fn gaps(count: &Count) -> Vec<(i64, i64, Option<i64>, Option<i64>)> {
        let number = |neighbour: &Option<Neighbour>| neighbour.as_ref().map(|neighbour| neighbour.received_at.0);
        count.gaps.iter().map(|(first, gap)| (*first, gap.last, number(&gap.before), number(&gap.after))).collect()
    }

    #[test]
    fn numbers_out_of_order_leave_no_gap() {
        assert!(count(&[3, 1, 2]).gaps.is_empty());
        assert_eq!(count(&[3, 1, 2]).high, 3);
    }

    #[test]
    fn a_number_that_comes_again_is_not_new() {
        let mut count = count(&[1, 2, 5]);
        assert!(!count.take(2, None, Timestamp(0)));
        assert!(count.take(4, Some(&neighbour(4)), Timestamp(0)));
        assert!(!count.take(4, None, Timestamp(0)));
        assert_eq!(gaps(&count), [(3, 3, Some(2), Some(4))]);
    }

    #[test]
    fn a_gap_is_between_what_was_recorded_around_it() {
        assert_eq!(gaps(&count(&[2])), [(1, 1, None, Some(2))]);
        assert_eq!(gaps(&count(&[1, 9, 5])), [(2, 4, Some(1), Some(5)), (6, 8, Some(5), Some(9))]);
    }

    #[test]
    fn what_a_spool_holds_is_not_missing_yet() {
        let mut count = count(&[1, 3, 6]);
        count.hold(4, Timestamp(9));
        let since: Vec<_> = count.gaps.values().map(|gap| (gap.last, gap.since)).collect();
        assert_eq!(since, [(2, Timestamp(0)), (5, Timestamp(9))]);
    }

    #[test]
    fn a_checkpoint_shows_the_missing_tail() {
        let mut count = count(&[1, 2]);
        count.close(4, None, Timestamp(0));
        assert_eq!(gaps(&count), [(3, 4, Some(2), None)]);
    }
}
