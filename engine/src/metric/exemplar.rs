//! Exemplars: samples that carry the trace and span they came from, and the window of them that a
//! series keeps.
//!
//! A series answers with the last [`EXEMPLARS_PER_SERIES_MAX`] distinct exemplars it received, less
//! those deleted. What falls out of that window depends on the order of arrival alone, never on
//! which snapshots were open, so that replay ends in the same answers.

use rootline_index::Labels;
use rootline_wal::Lsn;

use crate::{
    id::{SpanId, TraceId},
    time::Timestamp,
};

/// Exemplars that a series answers with. A histogram's bucket gets one every scrape or export at
/// most, so this is half an hour at 15 s; a series that had none costs nothing.
pub const EXEMPLARS_PER_SERIES_MAX: usize = 128;

/// A sample that points at the trace it came from.
#[derive(Clone, Debug)]
pub struct Exemplar {
    /// When it was measured.
    pub time: Timestamp,
    /// What was measured; any bits.
    pub value: f64,
    /// The trace it was measured in.
    pub trace_id: Option<TraceId>,
    /// The span it was measured in.
    pub span_id: Option<SpanId>,
    /// What else was recorded with it. May be empty.
    pub labels: Labels,
}

impl Exemplar {
    /// Whether the two are equal bit by bit.
    pub fn is_same(&self, other: &Self) -> bool {
        self.time == other.time
            && self.value.to_bits() == other.value.to_bits()
            && self.trace_id == other.trace_id
            && self.span_id == other.span_id
            && self.labels == other.labels
    }

    fn heap_bytes(&self) -> usize {
        self.labels.heap_bytes()
    }
}

/// The exemplars of one series, in order of arrival. It holds at least what every snapshot at or
/// after the floor answers with.
#[derive(Debug, Default)]
pub(crate) struct ExemplarWindow {
    kept: Vec<(Lsn, Exemplar)>,
    labels_bytes: usize,
}

impl ExemplarWindow {
    /// Adds an exemplar received at `lsn`, and drops what no snapshot from `floor` on can see.
    /// A repeat of one in the window, unless `is_hidden` (deleted), changes nothing.
    pub(crate) fn push(
        &mut self,
        lsn: Lsn,
        exemplar: &Exemplar,
        floor: Lsn,
        is_hidden: impl Fn(Lsn, &Exemplar) -> bool,
    ) {
        let mut window = self.kept.iter().rev().take(EXEMPLARS_PER_SERIES_MAX);
        if window.any(|(at, e)| e.is_same(exemplar) && !is_hidden(*at, e)) {
            return;
        }
        self.labels_bytes += exemplar.heap_bytes();
        self.kept.push((lsn, exemplar.clone()));
        let at_floor = self.kept.partition_point(|(lsn, _)| *lsn <= floor);
        // In batches, so that a full window is not moved for every exemplar.
        let spare = at_floor.saturating_sub(EXEMPLARS_PER_SERIES_MAX);
        if spare >= EXEMPLARS_PER_SERIES_MAX / 4 {
            let dropped = self
                .kept
                .drain(..spare)
                .map(|(_, e)| e.heap_bytes())
                .sum::<usize>();
            self.labels_bytes -= dropped;
        }
    }

    /// The window as the snapshot `at` sees it, in order of arrival.
    pub(crate) fn at(&self, at: Lsn) -> impl Iterator<Item = (Lsn, &Exemplar)> {
        let end = self.kept.partition_point(|(lsn, _)| *lsn <= at);
        let start = end.saturating_sub(EXEMPLARS_PER_SERIES_MAX);
        self.kept
            .iter()
            .take(end)
            .skip(start)
            .map(|(lsn, exemplar)| (*lsn, exemplar))
    }

    /// Everything kept: what some snapshot at or after the floor may answer with.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (Lsn, &Exemplar)> {
        self.kept.iter().map(|(lsn, exemplar)| (*lsn, exemplar))
    }

    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.kept.capacity() * size_of::<(Lsn, Exemplar)>() + self.labels_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exemplar(n: u32) -> Exemplar {
        Exemplar {
            time: Timestamp::from_nanos(n.into()),
            value: n.into(),
            trace_id: None,
            span_id: None,
            labels: Labels::empty(),
        }
    }

    fn times(window: &ExemplarWindow, at: u64) -> Vec<i64> {
        window.at(Lsn(at)).map(|(_, e)| e.time.as_nanos()).collect()
    }

    #[test]
    fn eviction_never_changes_what_a_snapshot_sees() {
        let mut free = ExemplarWindow::default();
        let mut pinned = ExemplarWindow::default();
        for n in 1..1000u32 {
            let lsn = u64::from(n);
            free.push(Lsn(lsn), &exemplar(n), Lsn(lsn - 1), |_, _| false);
            pinned.push(Lsn(lsn), &exemplar(n), Lsn((lsn - 1).min(300)), |_, _| {
                false
            });
        }
        assert_eq!(times(&pinned, 300), (173..=300).collect::<Vec<i64>>());
        assert_eq!(times(&pinned, 400), (273..=400).collect::<Vec<i64>>());
        assert_eq!(times(&pinned, 999), times(&free, 999));
        assert!(free.len() <= EXEMPLARS_PER_SERIES_MAX * 5 / 4 + 1);
    }

    #[test]
    fn a_repeat_is_kept_once_unless_the_first_was_deleted() {
        let mut window = ExemplarWindow::default();
        for lsn in 1..4 {
            window.push(Lsn(lsn), &exemplar(7), Lsn(0), |_, _| false);
        }
        assert_eq!(window.len(), 1);
        window.push(Lsn(4), &exemplar(7), Lsn(0), |lsn, _| lsn < Lsn(4));
        assert_eq!(window.len(), 2);
    }
}
