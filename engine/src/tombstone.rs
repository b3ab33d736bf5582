//! A delete as blocks see it.

use rootline_index::Matcher;
use rootline_wal::Lsn;

use crate::time::TimeRange;

/// Hides the samples in `range` of the series that satisfy every matcher, as far as they are older
/// than `lsn`.
#[derive(Clone, Debug)]
pub(crate) struct Tombstone {
    /// The record that deletes.
    pub(crate) lsn: Lsn,
    /// Which series.
    pub(crate) matchers: Vec<Matcher>,
    /// Which times.
    pub(crate) range: TimeRange,
}
