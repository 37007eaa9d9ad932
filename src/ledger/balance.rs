//! The balance: accepted = the sum of the outcomes + the gaps.
//!
//! Every accepted delivery bears a stamp: (run, source, a sequence from 1). The ledger keeps the highest sequence that it
//! has seen of each and what is missing below it; a checkpoint closes the tail, and says which numbers were handed out
//! to deliveries that in the end weren't accepted (voids).

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::{AnyConnection, Row};
use uuid::Uuid;

use super::outcome::Outcome;
use super::{Ledger, LedgerError, parsed};
use crate::delivery::{Checkpoint, SourceName, Stamp, Timestamp};

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
        self.gaps.iter().map(|gap| gap.last - gap.first + 1).sum()
    }

    /// Whether accepted is the sum of the outcomes and the gaps. It isn't only if something was lost or counted twice.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        self.accepted == self.outcomes.values().sum::<i64>() + self.missing()
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
}

/// What a batch does to the balance: read once, changed in memory, stored once.
#[derive(Debug, Default)]
pub(super) struct Tally(BTreeMap<(Uuid, SourceName), Run>);

#[derive(Clone, Debug, Default)]
struct Run {
    high: i64,
    voids: i64,
    /// By first number: the last number, and since when it is missing.
    gaps: BTreeMap<i64, (i64, Timestamp)>,
}

impl Run {
    /// Takes note of a number. Returns whether it was missing until now.
    fn take(&mut self, number: i64, now: Timestamp) -> bool {
        if number > self.high {
            self.close(number - 1, now);
            self.high = number;
            return true;
        }
        let Some((&first, &(last, since))) = self.gaps.range(..=number).next_back() else { return false };
        if number > last {
            return false;
        }
        self.gaps.remove(&first);
        if first < number {
            self.gaps.insert(first, (number - 1, since));
        }
        if number < last {
            self.gaps.insert(number + 1, (last, since));
        }
        true
    }

    /// Everything up to `number` was accepted: what hasn't arrived of it is missing.
    fn close(&mut self, number: i64, now: Timestamp) {
        if number > self.high {
            self.gaps.insert(self.high + 1, (number, now));
            self.high = number;
        }
    }
}

impl Tally {
    /// A stamped delivery arrived. Returns whether for the first time.
    pub(super) async fn arrived(
        &mut self,
        tx: &mut AnyConnection,
        source: &SourceName,
        stamp: Stamp,
        now: Timestamp,
    ) -> Result<bool, LedgerError> {
        Ok(self.run(tx, stamp.run, source).await?.take(number(stamp.sequence), now))
    }

    /// An ingress says how far it has come.
    pub(super) async fn checkpoint(
        &mut self,
        tx: &mut AnyConnection,
        checkpoint: &Checkpoint,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let run = self.run(tx, checkpoint.run, &checkpoint.source).await?;
        run.close(number(checkpoint.sequence), now);
        for void in &checkpoint.voids {
            if run.take(number(*void), now) {
                run.voids += 1;
            }
        }
        Ok(())
    }

    async fn run(&mut self, tx: &mut AnyConnection, run: Uuid, source: &SourceName) -> Result<&mut Run, LedgerError> {
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

async fn load(tx: &mut AnyConnection, run: Uuid, source: &SourceName) -> Result<Run, LedgerError> {
    let known = sqlx::query("SELECT high, voids FROM stamps WHERE run = $1 AND source = $2")
        .bind(run.to_string())
        .bind(source.as_str())
        .fetch_optional(&mut *tx)
        .await?;
    let Some(known) = known else { return Ok(Run::default()) };
    let gaps = sqlx::query("SELECT first, last, since FROM gaps WHERE run = $1 AND source = $2")
        .bind(run.to_string())
        .bind(source.as_str())
        .fetch_all(&mut *tx)
        .await?;
    let gaps = gaps
        .iter()
        .map(|row| Ok((row.try_get(0)?, (row.try_get(1)?, Timestamp(row.try_get(2)?)))))
        .collect::<Result<_, sqlx::Error>>()?;
    Ok(Run { high: known.try_get(0)?, voids: known.try_get(1)?, gaps })
}

/// Stores what a batch did to the balance.
pub(super) async fn store(tx: &mut AnyConnection, tally: Tally) -> Result<(), LedgerError> {
    for ((run, source), state) in tally.0 {
        let run = run.to_string();
        sqlx::query(
            "INSERT INTO stamps (run, source, high, voids) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (run, source) DO UPDATE SET high = excluded.high, voids = excluded.voids",
        )
        .bind(&run)
        .bind(source.as_str())
        .bind(state.high)
        .bind(state.voids)
        .execute(&mut *tx)
        .await?;
        sqlx::query("DELETE FROM gaps WHERE run = $1 AND source = $2")
            .bind(&run)
            .bind(source.as_str())
            .execute(&mut *tx)
            .await?;
        for (first, (last, since)) in state.gaps {
            sqlx::query("INSERT INTO gaps (run, source, first, last, since) VALUES ($1, $2, $3, $4, $5)")
                .bind(&run)
                .bind(source.as_str())
                .bind(first)
                .bind(last)
                .bind(since.micros())
                .execute(&mut *tx)
                .await?;
        }
    }
    Ok(())
}

impl Ledger {
    /// Where the balance stands.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn balance(&self) -> Result<Balance, LedgerError> {
        let mut tx = self.begin_reading().await?;
        let accepted = sqlx::query("SELECT CAST(COALESCE(SUM(high - voids), 0) AS BIGINT) FROM stamps")
            .fetch_one(&mut *tx)
            .await?
            .try_get(0)?;
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
        let gaps = sqlx::query("SELECT run, source, first, last, since FROM gaps ORDER BY since, run, source, first")
            .fetch_all(&mut *tx)
            .await?
            .iter()
            .map(|row| {
                Ok(Gap {
                    run: row.try_get(0)?,
                    source: row.try_get(1)?,
                    first: row.try_get(2)?,
                    last: row.try_get(3)?,
                    since: Timestamp(row.try_get(4)?),
                })
            })
            .collect::<Result<_, sqlx::Error>>()?;
        Ok(Balance { accepted, outcomes, gaps })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(numbers: &[i64]) -> Run {
        let mut run = Run::default();
        for number in numbers {
            run.take(*number, Timestamp(0));
        }
        run
    }

    #[test]
    fn numbers_out_of_order_leave_no_gap() {
        assert!(run(&[3, 1, 2]).gaps.is_empty());
        assert_eq!(run(&[3, 1, 2]).high, 3);
    }

    #[test]
    fn a_number_that_comes_again_is_not_new() {
        let mut run = run(&[1, 2, 5]);
        assert!(!run.take(2, Timestamp(0)));
        assert!(run.take(4, Timestamp(0)));
        assert!(!run.take(4, Timestamp(0)));
        assert_eq!(run.gaps.into_iter().collect::<Vec<_>>(), vec![(3, (3, Timestamp(0)))]);
    }

    #[test]
    fn a_checkpoint_shows_the_missing_tail() {
        let mut run = run(&[1, 2]);
        run.close(4, Timestamp(0));
        assert_eq!(run.gaps.into_iter().collect::<Vec<_>>(), vec![(3, (4, Timestamp(0)))]);
    }
}
