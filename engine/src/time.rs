//! Time: one timeline for samples and spans.

use std::fmt;

use crate::error::Error;

/// A moment: signed nanoseconds since 1970-01-01T00:00:00Z, without leap seconds.
///
/// Range: about 1677-09-21 to 2262-04-11. Ordering is that of time. Arithmetic saturates, and says so
/// in the name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Nanoseconds in a millisecond.
pub const NS_PER_MS: i64 = 1_000_000;
/// Nanoseconds in a second.
pub const NS_PER_S: i64 = 1_000_000_000;

impl Timestamp {
    /// The earliest moment.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest moment.
    pub const MAX: Self = Self(i64::MAX);

    /// From nanoseconds since the epoch.
    #[inline]
    pub const fn from_nanos(ns: i64) -> Self {
        Self(ns)
    }

    /// From milliseconds since the epoch, as Prometheus sends them.
    ///
    /// # Errors
    /// [`Error::TimestampOutOfRange`] beyond about ±9.22e12 ms, which nanoseconds cannot hold.
    #[inline]
    pub const fn from_millis(ms: i64) -> Result<Self, Error> {
        match ms.checked_mul(NS_PER_MS) {
            Some(ns) => Ok(Self(ns)),
            None => Err(Error::TimestampOutOfRange {
                value: ms as i128,
                unit: "ms",
            }),
        }
    }

    /// From unsigned nanoseconds, as OTLP sends them.
    ///
    /// # Errors
    /// [`Error::TimestampOutOfRange`] past the year 2262.
    #[inline]
    pub const fn from_unix_nanos(ns: u64) -> Result<Self, Error> {
        if ns > i64::MAX as u64 {
            return Err(Error::TimestampOutOfRange {
                value: ns as i128,
                unit: "ns",
            });
        }
        #[expect(clippy::cast_possible_wrap, reason = "checked just above")]
        Ok(Self(ns as i64))
    }

    /// Nanoseconds since the epoch.
    #[inline]
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Whole milliseconds since the epoch, rounded towards the past.
    #[inline]
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(NS_PER_MS)
    }

    /// `self + ns`, held at the ends of the range.
    #[inline]
    #[must_use]
    pub const fn saturating_add_ns(self, ns: i64) -> Self {
        Self(self.0.saturating_add(ns))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ns", self.0)
    }
}

/// A stretch of time, closed at both ends (Prometheus' convention): it holds `start` and `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeRange {
    start: Timestamp,
    end: Timestamp,
}

impl TimeRange {
    /// All of time.
    pub const ALL: Self = Self {
        start: Timestamp::MIN,
        end: Timestamp::MAX,
    };

    /// From `start` to `end`, both included.
    ///
    /// # Errors
    /// [`Error::EmptyTimeRange`] if `end` is before `start`.
    pub fn new(start: Timestamp, end: Timestamp) -> Result<Self, Error> {
        if end < start {
            return Err(Error::EmptyTimeRange { start, end });
        }
        Ok(Self { start, end })
    }

    /// The first moment inside.
    #[inline]
    pub const fn start(self) -> Timestamp {
        self.start
    }

    /// The last moment inside.
    #[inline]
    pub const fn end(self) -> Timestamp {
        self.end
    }

    /// Whether `t` lies inside.
    #[inline]
    pub fn contains(self, t: Timestamp) -> bool {
        self.start <= t && t <= self.end
    }

    /// Whether the two share a moment.
    #[inline]
    pub fn overlaps(self, other: Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// The smallest range that holds both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            start: self.start.min(other.start),
            end: self.end.max(other.end),
        }
    }
}

impl fmt::Display for TimeRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}]", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_beyond_the_nanosecond_range_are_refused() {
        assert!(Timestamp::from_millis(9_223_372_036_854).is_ok());
        assert!(Timestamp::from_millis(9_223_372_036_855).is_err());
        assert!(Timestamp::from_millis(-9_223_372_036_855).is_err());
        assert!(Timestamp::from_unix_nanos(u64::MAX).is_err());
    }

    #[test]
    fn a_range_holds_both_of_its_ends() {
        let r = TimeRange::new(Timestamp::from_nanos(1), Timestamp::from_nanos(3)).unwrap();
        assert!(r.contains(Timestamp::from_nanos(1)) && r.contains(Timestamp::from_nanos(3)));
        assert!(!r.contains(Timestamp::from_nanos(0)) && !r.contains(Timestamp::from_nanos(4)));
        assert!(TimeRange::new(Timestamp::from_nanos(3), Timestamp::from_nanos(1)).is_err());
    }

    #[test]
    fn millis_round_towards_the_past() {
        assert_eq!(Timestamp::from_nanos(-1).as_millis(), -1);
        assert_eq!(Timestamp::from_nanos(1_999_999).as_millis(), 1);
    }
}
