//! Minutes, hours and days of UTC, and how few of them make up a range.

use std::ops::RangeInclusive;

use crate::time::{NS_PER_S, TimeRange, Timestamp};

/// How long a period is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Level {
    Minute,
    Hour,
    Day,
}

impl Level {
    /// From the longest to the shortest.
    pub(super) const COARSEST_FIRST: [Self; 3] = [Self::Day, Self::Hour, Self::Minute];

    /// Its length.
    pub(super) const fn ns(self) -> i64 {
        match self {
            Self::Minute => 60 * NS_PER_S,
            Self::Hour => 3_600 * NS_PER_S,
            Self::Day => 86_400 * NS_PER_S,
        }
    }

    /// The number of the period that holds a moment; the epoch begins number 0.
    #[inline]
    pub(super) const fn number(self, at_ns: i64) -> i64 {
        at_ns.div_euclid(self.ns())
    }

    /// The moments of the periods `first..=last`, as far as there are such.
    fn moments(self, first: i64, last: i64) -> RangeInclusive<i64> {
        let start = first.saturating_mul(self.ns());
        let end = last
            .saturating_add(1)
            .checked_mul(self.ns())
            .map_or(i64::MAX, |next| next.saturating_sub(1));
        start..=end
    }

    /// The first and the last period of this length that lie wholly in `first_ns..=last_ns`. A period
    /// that only the ends of time cut short counts as whole.
    fn within(self, first_ns: i64, last_ns: i64) -> Option<(i64, i64)> {
        let (mut first, mut last) = (self.number(first_ns), self.number(last_ns));
        if *self.moments(first, first).start() < first_ns {
            first += 1;
        }
        if *self.moments(last, last).end() > last_ns {
            last -= 1;
        }
        (first <= last).then_some((first, last))
    }
}

/// A range as whole periods and what is left of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cover {
    /// Periods by length, first and last, that do not overlap.
    pub(super) periods: Vec<(Level, i64, i64)>,
    /// The moments that the periods cover, which follow each other; `None` if there is no period.
    pub(super) whole: Option<TimeRange>,
    /// What lies in no whole minute: before the periods and behind them.
    pub(super) rest: Vec<TimeRange>,
}

impl Cover {
    /// The coarsest one.
    pub(super) fn of(range: TimeRange) -> Self {
        let (first_ns, last_ns) = (range.start().as_nanos(), range.end().as_nanos());
        let mut cover = Self::default();
        let Some((first, last)) = Level::Minute.within(first_ns, last_ns) else {
            cover.rest.push(range);
            return cover;
        };
        let whole = Level::Minute.moments(first, last);
        cover.whole = span(*whole.start(), *whole.end());
        // What is not covered yet: one stretch at first, then one on each side.
        let mut open = vec![(*whole.start(), *whole.end())];
        for level in Level::COARSEST_FIRST {
            let mut left = Vec::new();
            for (start_ns, end_ns) in open {
                let Some((first, last)) = level.within(start_ns, end_ns) else {
                    left.push((start_ns, end_ns));
                    continue;
                };
                cover.periods.push((level, first, last));
                let moments = level.moments(first, last);
                if start_ns < *moments.start() {
                    left.push((start_ns, *moments.start() - 1));
                }
                if *moments.end() < end_ns {
                    left.push((*moments.end() + 1, end_ns));
                }
            }
            open = left;
        }
        debug_assert!(open.is_empty(), "whole minutes are covered by minutes");
        if first_ns < *whole.start() {
            cover.rest.extend(span(first_ns, *whole.start() - 1));
        }
        if *whole.end() < last_ns {
            cover.rest.extend(span(*whole.end() + 1, last_ns));
        }
        cover
    }
}

fn span(first_ns: i64, last_ns: i64) -> Option<TimeRange> {
    TimeRange::new(
        Timestamp::from_nanos(first_ns),
        Timestamp::from_nanos(last_ns),
    )
    .ok()
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(first_ns: i64, last_ns: i64) -> TimeRange {
        span(first_ns, last_ns).unwrap()
    }

    #[test]
    fn a_day_and_a_bit_is_a_day_hours_and_minutes() {
        let minute = Level::Minute.ns();
        // From 22:58:30 to two days later, 01:02:00 exactly.
        let start = (22 * 60 + 58) * minute + minute / 2;
        let end = (2 * 24 * 60 + 62) * minute - 1;
        let mut cover = Cover::of(range(start, end));
        cover.periods.sort_unstable();
        assert_eq!(
            cover.periods,
            [
                (Level::Minute, 22 * 60 + 59, 22 * 60 + 59),
                (Level::Minute, 49 * 60, 49 * 60 + 1),
                (Level::Hour, 23, 23),
                (Level::Hour, 48, 48),
                (Level::Day, 1, 1),
            ]
        );
        assert_eq!(cover.rest, [range(start, start + minute / 2 - 1)]);
    }

    #[test]
    fn less_than_a_minute_is_all_rest_and_all_of_time_has_none() {
        let cover = Cover::of(range(5, 7));
        assert_eq!((cover.periods.len(), cover.rest.len()), (0, 1));
        let cover = Cover::of(TimeRange::ALL);
        assert_eq!((cover.whole, cover.rest.len()), (Some(TimeRange::ALL), 0));
    }

    proptest! {
        #[test]
        fn every_moment_lies_in_exactly_one_piece(
            start in any::<i64>(), length in prop_oneof![0i64..200_000_000_000, any::<i64>()],
            at in 0.0f64..=1.0,
        ) {
            let end = start.saturating_add(length.max(0));
            let cover = Cover::of(range(start, end));
            let inside = start.saturating_add(((end.saturating_sub(start)) as f64 * at) as i64);
            for moment in [start, end, inside.clamp(start, end)] {
                let periods = cover.periods.iter()
                    .filter(|(level, first, last)| (*first..=*last).contains(&level.number(moment)))
                    .count();
                let rest = cover.rest.iter()
                    .filter(|rest| rest.contains(Timestamp::from_nanos(moment))).count();
                prop_assert_eq!(periods + rest, 1);
                let whole = cover.whole.is_some_and(|w| w.contains(Timestamp::from_nanos(moment)));
                prop_assert_eq!(whole, periods == 1);
            }
            prop_assert!(cover.periods.len() <= 5 && cover.rest.len() <= 2);
        }
    }
}
