//! Deletes of one series: which of its samples they hide, and from whom.
//!
//! A delete at LSN `d` hides what is older than it from snapshots at or after `d`; what was written
//! later is not touched, and older snapshots see on. Samples of the main stream have no LSN of their
//! own, so a tombstone remembers how many there were.

use rootline_wal::Lsn;

use crate::time::TimeRange;

/// One delete.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tombstone {
    /// The record that deletes.
    pub(crate) lsn: Lsn,
    /// Samples of the main stream that are older.
    pub(crate) main_count: u32,
    /// The times that are deleted.
    pub(crate) range: TimeRange,
}

/// The tombstones of a series, by rising LSN.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tombstones {
    list: Vec<Tombstone>,
}

impl Tombstones {
    pub(crate) fn push(&mut self, tombstone: Tombstone) {
        self.list.push(tombstone);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Tombstone> {
        self.list.iter()
    }

    /// Copies those that the snapshot `at` sees and that touch `range`.
    pub(crate) fn copy_into(&self, at: Lsn, range: TimeRange, out: &mut Self) {
        out.list.clear();
        let seen = self
            .list
            .iter()
            .filter(|t| t.lsn <= at && t.range.overlaps(range));
        out.list.extend(seen.copied());
    }

    /// Whether the snapshot `at` sees the sample number `index` of the main stream deleted.
    #[inline]
    pub(crate) fn hides_main(&self, at: Lsn, index: u32, time_ns: i64) -> bool {
        self.list
            .iter()
            .any(|t| t.lsn <= at && index < t.main_count && t.holds(time_ns))
    }

    /// Whether the snapshot `at` sees something written at `lsn` deleted.
    #[inline]
    pub(crate) fn hides(&self, at: Lsn, lsn: Lsn, time_ns: i64) -> bool {
        self.list
            .iter()
            .any(|t| t.lsn <= at && lsn < t.lsn && t.holds(time_ns))
    }

    /// Whether snapshots from `floor` on see main samples `first..end` between two times all
    /// deleted, by one tombstone.
    pub(crate) fn hides_all(&self, floor: Lsn, end: u32, times: TimeRange) -> bool {
        let covers = |r: TimeRange| r.start() <= times.start() && times.end() <= r.end();
        self.list
            .iter()
            .any(|t| t.lsn <= floor && end <= t.main_count && covers(t.range))
    }

    /// Drops those for which `is_needed` does not hold, and those at or below the floor that a later
    /// one at or below it contains.
    pub(crate) fn prune(&mut self, floor: Lsn, mut is_needed: impl FnMut(&Tombstone) -> bool) {
        let mut kept: Vec<Tombstone> = Vec::with_capacity(self.list.len());
        for tombstone in self.list.iter().rev() {
            let contains = |later: &Tombstone| {
                later.lsn <= floor
                    && later.range.start() <= tombstone.range.start()
                    && tombstone.range.end() <= later.range.end()
            };
            if !kept.iter().any(contains) && is_needed(tombstone) {
                kept.push(*tombstone);
            }
        }
        kept.reverse();
        self.list = kept;
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.list.capacity() * size_of::<Tombstone>()
    }
}

impl Tombstone {
    #[inline]
    fn holds(&self, time_ns: i64) -> bool {
        self.range.start().as_nanos() <= time_ns && time_ns <= self.range.end().as_nanos()
    }
}
