//! One part of a view, as a question sees it: its series by label, their samples, and the deletes
//! that it does not have applied itself.
//!
//! A head gives its candidates as a list of labels, sorted for the question; a block gives them as
//! row numbers, which rise with the labels, and resolves one at a time.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc, vec};

use rootline_index::{Labels, Matcher};
use rootline_wal::Lsn;

use super::{
    MetricHead, block::MetricBlock, block_read::BlockRows, registry::SeriesNumber,
    series_reader::SeriesReader, view::MetricView,
};
use crate::{
    budget::{Budget, Reservation},
    control::QueryControl,
    error::Error,
    time::{TimeRange, Timestamp},
    tombstone::Tombstone,
};

/// What a question is asked with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'q> {
    /// The snapshot's LSN.
    pub(super) at: Lsn,
    pub(super) matchers: &'q [Matcher],
    /// Not before the retention floor.
    pub(super) range: TimeRange,
    pub(super) ctl: &'q QueryControl,
    pub(super) budget: &'q Arc<Budget>,
}

/// A part that may hold samples in the range asked for.
#[derive(Debug)]
pub(super) struct Part<'v> {
    pub(super) data: PartData<'v>,
    pub(super) hiding: Hiding<'v>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum PartData<'v> {
    Head(&'v MetricHead),
    Block(&'v MetricBlock),
}

/// The deletes that hide something of a part from a question.
#[derive(Debug, Default)]
pub(super) struct Hiding<'v> {
    tombstones: Vec<&'v Tombstone>,
}

impl<'v> Hiding<'v> {
    /// Of `all`, those that the snapshot `at` sees, that are newer than what the part has applied and
    /// that touch `range`.
    pub(super) fn new(all: &'v [Tombstone], at: Lsn, clean_lsn: Lsn, range: TimeRange) -> Self {
        let hides = |t: &&Tombstone| clean_lsn < t.lsn && t.lsn <= at && t.range.overlaps(range);
        Self {
            tombstones: all.iter().filter(hides).collect(),
        }
    }

    /// Whether nothing of any series is hidden.
    pub(super) fn is_empty(&self) -> bool {
        self.tombstones.is_empty()
    }

    /// The times that are hidden of the series with these labels, in the place of what `out` held.
    pub(super) fn ranges(&self, labels: &Labels, out: &mut Vec<TimeRange>) {
        out.clear();
        let selects = |t: &&&Tombstone| t.matchers.iter().all(|m| m.matches_labels(labels));
        let hiding = self.tombstones.iter().filter(selects);
        out.extend(hiding.map(|tombstone| tombstone.range));
    }
}

impl MetricView {
    /// `range` without what retention has dropped; `None` if nothing is left.
    pub(super) fn kept(&self, range: TimeRange) -> Option<TimeRange> {
        let Some(floor) = self.floor_ns else {
            return Some(range);
        };
        let start = range.start().max(Timestamp::from_nanos(floor));
        TimeRange::new(start, range.end()).ok()
    }

    /// The parts that may hold samples in `range`, lowest LSNs first.
    pub(super) fn parts(&self, at: Lsn, range: TimeRange) -> Vec<Part<'_>> {
        let mut parts = Vec::with_capacity(self.blocks.len() + self.frozen.len() + 1);
        let mut add = |data, clean_lsn| {
            let hiding = Hiding::new(&self.tombstones, at, clean_lsn, range);
            parts.push(Part { data, hiding });
        };
        for block in &self.blocks {
            let meta = block.meta();
            if meta.time.overlaps(range) {
                add(PartData::Block(block), meta.clean_lsn);
            }
        }
        for frozen in &self.frozen {
            add(PartData::Head(&frozen.head), frozen.cut);
        }
        add(PartData::Head(&self.current), Lsn(u64::MAX));
        parts
    }
}

/// Series of one part that a question may be about, in the order of labels.
pub(super) struct Candidates<'v> {
    part: &'v Part<'v>,
    rows: Rows<'v>,
    /// Reads the series of which something is hidden, to tell whether anything is left.
    check: Option<SeriesReader<'v>>,
}

enum Rows<'v> {
    Head {
        list: vec::IntoIter<(Labels, SeriesNumber)>,
        /// The bytes of the list.
        _held: Reservation,
    },
    Block(Box<BlockRows<'v>>),
}

impl<'v> Part<'v> {
    /// The series that satisfy the matchers and may have samples in the range; with `is_exact` only
    /// those that have.
    ///
    /// # Errors
    /// What the query's control says, [`Error::MemoryFull`], damage in a block.
    pub(super) fn candidates(
        &'v self,
        asked: Asked<'v>,
        is_exact: bool,
    ) -> Result<Candidates<'v>, Error> {
        let rows = match self.data {
            PartData::Head(head) => {
                let (list, held) = head.candidates(&asked, is_exact)?;
                let list = list.into_iter();
                Rows::Head { list, _held: held }
            }
            PartData::Block(block) => {
                Rows::Block(Box::new(BlockRows::select(block, asked, is_exact)?))
            }
        };
        let check = if is_exact && !self.hiding.is_empty() {
            Some(SeriesReader::new(asked)?)
        } else {
            None
        };
        Ok(Candidates {
            part: self,
            rows,
            check,
        })
    }
}

impl Candidates<'_> {
    /// The next series: its labels, and its row in the part.
    ///
    /// # Errors
    /// As [`Part::candidates`].
    pub(super) fn next(&mut self) -> Result<Option<(Labels, u32)>, Error> {
        loop {
            let next = match &mut self.rows {
                Rows::Head { list, .. } => list.next().map(|(labels, number)| (labels, number.0)),
                Rows::Block(rows) => rows.next()?,
            };
            let Some((labels, row)) = next else {
                return Ok(None);
            };
            if let Some(check) = &mut self.check
                && !check.has_samples(self.part, &labels, row)?
            {
                continue;
            }
            return Ok(Some((labels, row)));
        }
    }

    /// Series that are known before the first is looked at.
    fn listed(&self) -> usize {
        match &self.rows {
            Rows::Head { list, .. } => list.len(),
            Rows::Block(_) => 0,
        }
    }
}

/// What a series is called, and its row in each part that has it, by number of part.
pub(super) type SeriesRows<'m> = (Labels, &'m [(usize, u32)]);

/// The next series of one part. In order of labels, and of parts where they are equal.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Next {
    labels: Labels,
    part: usize,
    row: u32,
}

/// The candidates of all parts, each series once, in the order of labels.
///
/// Labels of a block are resolved one series ahead, so that the answer is never held whole.
pub(super) struct SeriesMerge<'v> {
    parts: Vec<Candidates<'v>>,
    heads: BinaryHeap<Reverse<Next>>,
    rows: Vec<(usize, u32)>,
    /// The longest list of a head.
    listed: usize,
}

impl<'v> SeriesMerge<'v> {
    pub(super) fn new(
        parts: &'v [Part<'v>],
        asked: Asked<'v>,
        is_exact: bool,
    ) -> Result<Self, Error> {
        let mut merge = Self {
            parts: Vec::with_capacity(parts.len()),
            heads: BinaryHeap::with_capacity(parts.len()),
            rows: Vec::with_capacity(parts.len()),
            listed: 0,
        };
        for part in parts {
            asked.ctl.check()?;
            let candidates = part.candidates(asked, is_exact)?;
            merge.listed = merge.listed.max(candidates.listed());
            merge.parts.push(candidates);
            merge.advance(merge.parts.len() - 1)?;
        }
        Ok(merge)
    }

    /// Series that are known before the first is read: those of the head that has most.
    pub(super) fn listed(&self) -> usize {
        self.listed
    }

    fn advance(&mut self, part: usize) -> Result<(), Error> {
        if let Some(candidates) = self.parts.get_mut(part)
            && let Some((labels, row)) = candidates.next()?
        {
            self.heads.push(Reverse(Next { labels, part, row }));
        }
        Ok(())
    }

    /// The next series.
    ///
    /// # Errors
    /// As [`Part::candidates`].
    pub(super) fn next(&mut self) -> Result<Option<SeriesRows<'_>>, Error> {
        self.rows.clear();
        let Some(Reverse(first)) = self.heads.pop() else {
            return Ok(None);
        };
        self.rows.push((first.part, first.row));
        while let Some(same) = self.heads.peek()
            && same.0.labels == first.labels
        {
            if let Some(Reverse(same)) = self.heads.pop() {
                self.rows.push((same.part, same.row));
            }
        }
        for index in 0..self.rows.len() {
            if let Some(&(part, _)) = self.rows.get(index) {
                self.advance(part)?;
            }
        }
        Ok(Some((first.labels, &self.rows)))
    }
}
