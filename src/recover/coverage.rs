//! Which periods have been looked at, and which haven't.

use std::time::Duration;

use crate::delivery::Timestamp;
use crate::ledger::recoveries::Period;

/// How far a look reaches back into what was looked at before: clocks differ.
pub(super) const OVERLAP: Duration = Duration::from_mins(1);

/// The look that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NextLook {
    /// Which period it is to cover.
    pub(super) period: Period,
    /// The end of what was looked at before, if nobody can tell any more what came right after it.
    pub(super) lapsed_from: Option<Timestamp>,
}

/// The look that is due when the provider can tell of the period `told`: from the first moment of it that nobody has looked
/// at. None if all of it was looked at.
pub(super) fn next_look(covered: &[Period], told: Period) -> Option<NextLook> {
    let first = left_out(covered, told).first().copied()?;
    let lapsed_from = covered.first().and_then(|oldest| {
        let before = left_out(covered, Period { from: oldest.from, to: told.from });
        before.last().filter(|last| last.to == told.from).map(|last| last.from)
    });
    let from = earlier(first.from, OVERLAP).max(told.from);
    Some(NextLook { period: Period { from, to: told.to }, lapsed_from })
}

/// A time moved back.
pub(super) fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    at.plus_micros(-i64::try_from(by.as_micros()).unwrap_or(i64::MAX))
}

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

    fn period(from: i64, to: i64) -> Period {
        Period { from: Timestamp(from), to: Timestamp(to) }
    }

    #[test]
    fn periods_that_touch_are_one() {
        let all = [period(5, 9), period(0, 2), period(2, 4), period(6, 7), period(20, 10)];
        assert_eq!(joined(all), [period(0, 4), period(5, 9)]);
    }

    #[test]
    fn the_next_look_begins_where_nobody_looked_and_tells_what_it_comes_too_late_for() {
        const MINUTE: i64 = 60_000_000;
        let told = period(100 * MINUTE, 200 * MINUTE);
        let next = |covered: &[Period]| next_look(covered, told).map(|next| (next.period, next.lapsed_from));
        assert_eq!(next(&[]), Some((told, None)), "nothing was looked at, so nothing lapsed");
        let on_time = [period(20 * MINUTE, 150 * MINUTE)];
        assert_eq!(next(&on_time), Some((period(149 * MINUTE, 200 * MINUTE), None)));
        let holes = [period(90 * MINUTE, 120 * MINUTE), period(130 * MINUTE, 190 * MINUTE)];
        assert_eq!(next(&holes), Some((period(119 * MINUTE, 200 * MINUTE), None)));
        let late = [period(10 * MINUTE, 60 * MINUTE)];
        assert_eq!(next(&late), Some((told, Some(Timestamp(60 * MINUTE)))));
        let told_before = [period(10 * MINUTE, 60 * MINUTE), period(100 * MINUTE, 180 * MINUTE)];
        assert_eq!(next(&told_before).unwrap().0, period(179 * MINUTE, 200 * MINUTE));
        assert_eq!(next(&[period(0, 300 * MINUTE)]), None);
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
