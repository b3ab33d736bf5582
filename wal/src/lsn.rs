//! The sequence number of a log record: the one order of everything that is written.

use std::fmt;

/// Sequence number of a record. The first record of a log is 1 and they rise by one; 0 stands for
/// "nothing yet". After unacknowledged records were cut as a torn tail, their numbers are given out
/// again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before the first record.
    pub const ZERO: Self = Self(0);

    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
