//! Which periods have been looked at, and which haven't.

use crate::ledger::recoveries::Period;

/// The same periods in order, with those joined that touch or overlap.
#[must_use]
pub fn joined(periods: impl IntoIterator<Item = Period>) -> Vec<Period> {
    let mut periods: Vec<Period> = periods.into_iter().filter(|period| period.from <= period.to).collect();
    periods.sort_unstable();
    let mut joined: Vec<Period> = Vec::with_capacity(periods.len());
    for period in periods {
        match joined.last_mut() {
            Some(last) if period.from <= last.to => last.to = last.to.max(period.to),
            _ => joined.push(period),
        }
    }
    joined
}

/// What of a period isn't in any of the `covered` ones, which are in order and apart.
#[must_use]
pub fn left_out(covered: &[Period], within: Period) -> Vec<Period> {
    let mut left_out = Vec::new();
    let mut from = within.from;
    for period in covered.iter().filter(|period| period.to > within.from && period.from < within.to) {
        if period.from > from {
            left_out.push(Period { from, to: period.from });
        }
        from = from.max(period.to);
    }
    if from < within.to {
        left_out.push(Period { from, to: within.to });
    }
    left_out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Timestamp;

    fn period(from: i64, to: i64) -> Period {
        Period { from: Timestamp(from), to: Timestamp(to) }
    }

    #[test]
    fn periods_that_touch_are_one() {
        let all = [period(5, 9), period(0, 2), period(2, 4), period(6, 7), period(20, 10)];
        assert_eq!(joined(all), [period(0, 4), period(5, 9)]);
    }

    #[test]
    fn what_is_left_out_lies_before_between_and_after() {
        let covered = joined([period(2, 4), period(6, 8)]);
        assert_eq!(left_out(&covered, period(0, 10)), [period(0, 2), period(4, 6), period(8, 10)]);
        assert_eq!(left_out(&covered, period(3, 7)), [period(4, 6)]);
        assert_eq!(left_out(&covered, period(2, 4)), []);
        assert_eq!(left_out(&[], period(1, 3)), [period(1, 3)]);
    }
}
