//! The side chunk of a series: samples that came late or repeat a time, each with its LSN.
//!
//! A two-level sorted list, so that a long backfill in falling order costs a move of one small
//! page for a sample and not of everything.
//!
//! Invariants
//! - Entries rise by (time, LSN); one batch leaves one entry for a time: its last.
//! - No page is empty or longer than [`PAGE_SAMPLES_MAX`].
//! - Of the versions of one time, the newest at or below the floor and all newer ones are kept.

use rootline_wal::Lsn;

use crate::time::TimeRange;

/// Entries of a page: 12 KiB, moved by half for an insert, which costs about 0.2 microseconds.
const PAGE_SAMPLES_MAX: usize = 512;

/// One late or repeated sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SideSample {
    /// Nanoseconds since the epoch.
    pub(crate) time_ns: i64,
    /// The record it came in.
    pub(crate) lsn: Lsn,
    /// Any bits.
    pub(crate) value: f64,
}

impl SideSample {
    fn key(&self) -> (i64, u64) {
        (self.time_ns, self.lsn.0)
    }
}

/// See the module's doc.
#[derive(Debug, Default)]
pub(crate) struct SideChunk {
    pages: Vec<Vec<SideSample>>,
    len: usize,
    /// Entries that the pages have room for.
    capacity: usize,
}

impl SideChunk {
    /// Adds a sample, in the place of one of the same time and LSN, and drops the versions of its
    /// time that no snapshot from `floor` on sees. With `skip_repeat` a sample that has the value of
    /// the newest version of its time is left out: the answers are the same if nothing was deleted
    /// between the two.
    pub(crate) fn insert(&mut self, sample: SideSample, floor: Lsn, skip_repeat: bool) {
        // The first page whose last entry is not before the sample; the last page takes what is
        // behind all.
        let at = self
            .pages
            .partition_point(|p| p.last().is_some_and(|s| s.key() < sample.key()));
        let at = at.min(self.pages.len().saturating_sub(1));
        if self.pages.is_empty() {
            self.pages.push(Vec::new());
        }
        let Some(page) = self.pages.get_mut(at) else {
            return;
        };
        let position = page.partition_point(|s| s.key() < sample.key());
        if let Some(same) = page.get_mut(position).filter(|s| s.key() == sample.key()) {
            same.value = sample.value;
            return;
        }
        if let Some(newest) = position.checked_sub(1).and_then(|at| page.get(at))
            && skip_repeat
            && newest.time_ns == sample.time_ns
            && newest.value.to_bits() == sample.value.to_bits()
        {
            return;
        }
        let capacity = page.capacity();
        page.insert(position, sample);
        self.capacity += page.capacity() - capacity;
        self.len += 1;
        // Older versions stand before the new one, in this page as a rule; one that a page border
        // hides only costs its bytes.
        let is_superseded =
            |old: &SideSample, next: &SideSample| old.time_ns == next.time_ns && next.lsn <= floor;
        let mut position = position;
        while let Some(previous) = position.checked_sub(1) {
            match (page.get(previous), page.get(position)) {
                (Some(old), Some(next)) if is_superseded(old, next) => {
                    page.remove(previous);
                    self.len -= 1;
                }
                (Some(old), Some(next)) if old.time_ns == next.time_ns => {}
                _ => break,
            }
            position = previous;
        }
        if page.len() > PAGE_SAMPLES_MAX {
            // Appends leave the full page full; anything else splits it in the middle.
            let is_append = position + 1 >= page.len() && at + 1 == self.pages.len();
            self.split(at, is_append);
        }
    }

    fn split(&mut self, at: usize, is_append: bool) {
        let Some(page) = self.pages.get_mut(at) else {
            return;
        };
        let middle = if is_append {
            PAGE_SAMPLES_MAX
        } else {
            PAGE_SAMPLES_MAX / 2
        };
        let capacity = page.capacity();
        let tail = page.split_off(middle);
        page.shrink_to_fit();
        self.capacity = self.capacity + page.capacity() + tail.capacity() - capacity;
        self.pages.insert(at + 1, tail);
    }

    /// The latest time, of any version.
    pub(crate) fn time_max(&self) -> Option<i64> {
        Some(self.pages.last()?.last()?.time_ns)
    }

    /// Every entry inside `range`, by rising (time, LSN).
    pub(crate) fn range(&self, range: TimeRange) -> impl Iterator<Item = &SideSample> {
        let (start, end) = (range.start().as_nanos(), range.end().as_nanos());
        let first = self
            .pages
            .partition_point(|p| p.last().is_some_and(|s| s.time_ns < start));
        self.pages
            .iter()
            .skip(first)
            .flatten()
            .skip_while(move |s| s.time_ns < start)
            .take_while(move |s| s.time_ns <= end)
    }

    /// Keeps the entries for which `keep` holds.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&SideSample) -> bool) {
        for page in &mut self.pages {
            let before = page.len();
            page.retain(&mut keep);
            if page.len() < before {
                page.shrink_to_fit();
            }
        }
        self.pages.retain(|page| !page.is_empty());
        self.len = self.pages.iter().map(Vec::len).sum();
        self.capacity = self.pages.iter().map(Vec::capacity).sum();
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.pages.capacity() * size_of::<Vec<SideSample>>()
            + self.capacity * size_of::<SideSample>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::time::Timestamp;

    fn sample(time_ns: i64, lsn: u64, value: f64) -> SideSample {
        SideSample {
            time_ns,
            lsn: Lsn(lsn),
            value,
        }
    }

    #[test]
    fn falling_times_split_pages_and_stay_sorted() {
        let mut side = SideChunk::default();
        for t in (0..5000).rev() {
            side.insert(sample(t, 1, 0.0), Lsn(0), true);
        }
        let times: Vec<_> = side.range(TimeRange::ALL).map(|s| s.time_ns).collect();
        assert_eq!(times, (0..5000).collect::<Vec<_>>());
        assert!(
            side.pages
                .iter()
                .all(|p| !p.is_empty() && p.len() <= PAGE_SAMPLES_MAX)
        );
        assert_eq!(side.len(), 5000);
    }

    #[test]
    fn versions_that_no_snapshot_sees_are_dropped() {
        let mut side = SideChunk::default();
        for lsn in 1..100 {
            side.insert(sample(7, lsn, 0.0), Lsn(lsn - 1), false);
        }
        assert_eq!(side.len(), 2);
    }

    proptest! {
        #[test]
        fn every_snapshot_from_the_floor_sees_its_versions(
            inserts in prop::collection::vec((-20i64..20, 1u32..9, 0u64..3), 1..300),
            lag in 0u64..8,
        ) {
            let mut side = SideChunk::default();
            let mut all: Vec<SideSample> = Vec::new();
            let mut lsn = 1;
            for (t, v, step) in inserts {
                lsn += step;
                let s = sample(t, lsn, v.into());
                side.insert(s, Lsn((lsn - 1).saturating_sub(lag)), v % 2 == 0);
                all.push(s);
            }
            for at in (lsn - 1).saturating_sub(lag)..=lsn {
                let mut want = BTreeMap::new();
                for s in all.iter().filter(|s| s.lsn.0 <= at) {
                    want.insert(s.time_ns, s.value.to_bits());
                }
                let mut got = BTreeMap::new();
                for s in side.range(TimeRange::ALL).filter(|s| s.lsn.0 <= at) {
                    got.insert(s.time_ns, s.value.to_bits());
                }
                prop_assert_eq!(got, want);
            }
            let range = TimeRange::new(Timestamp::from_nanos(-3), Timestamp::from_nanos(5)).unwrap();
            prop_assert!(side.range(range).all(|s| (-3..=5).contains(&s.time_ns)));
            prop_assert_eq!(side.range(TimeRange::ALL).count(), side.len());
        }
    }
}
