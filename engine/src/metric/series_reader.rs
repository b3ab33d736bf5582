//! Reads one series after the other out of the parts of a view, into columns that are reused.
//!
//! No lock is held while a chunk or a column is decoded. What the columns need is reserved from the
//! budget before they grow.

use rootline_index::Labels;

use super::{
    block::{ChunkInfo, ColumnCache, MetricBlock},
    part::{Asked, Part, PartData},
    registry::SeriesNumber,
    series::{Samples, SeriesCopy},
};
use crate::{
    budget::{Holder, Reservation},
    column::times::COLUMN_SAMPLES_MAX,
    error::Error,
    time::{TimeRange, Timestamp},
};

/// A time and a value, each in the column it is decoded to and in the one runs are merged to.
const SAMPLE_BYTES: u64 = 32;

/// Blocks for which decoded columns are kept from one series to the next. With more of them, some
/// share a place and decode anew: time columns of a day at 10 s and of some targets take 1 MiB each.
const CACHES_MAX: usize = 32;

/// Chunks of a series that are read without asking for their ends first.
const CHUNKS_UNSEEN_MAX: usize = 16;

/// Series between two counts of what is kept of blocks, which grows with the first few.
const COUNT_SERIES: u32 = 64;

/// What is kept of blocks between two series, by the number of the part.
#[derive(Debug, Default)]
pub(super) struct Caches {
    caches: Vec<ColumnCache>,
}

impl Caches {
    pub(super) fn of(&mut self, part: usize) -> &mut ColumnCache {
        let index = part % CACHES_MAX;
        if self.caches.len() <= index {
            self.caches.resize_with(index + 1, ColumnCache::default);
        }
        #[expect(clippy::indexing_slicing, reason = "made just above")]
        &mut self.caches[index]
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.caches.iter().map(ColumnCache::heap_bytes).sum()
    }
}

/// See the module's doc.
#[derive(Debug)]
pub(super) struct SeriesReader<'q> {
    asked: Asked<'q>,
    caches: Caches,
    chunks: Vec<ChunkInfo>,
    copy: SeriesCopy,
    samples: Samples,
    hidden: Vec<TimeRange>,
    reservation: Reservation,
    /// Bytes of `caches` at the last count, and series read since.
    caches_bytes: u64,
    since_count: u32,
}

impl<'q> SeriesReader<'q> {
    pub(super) fn new(asked: Asked<'q>) -> Result<Self, Error> {
        Ok(Self {
            asked,
            caches: Caches::default(),
            chunks: Vec::new(),
            copy: SeriesCopy::default(),
            samples: Samples::default(),
            hidden: Vec::new(),
            reservation: asked.budget.reserve(Holder::Queries, 0)?,
            caches_bytes: 0,
            since_count: COUNT_SERIES,
        })
    }

    /// The samples of a series in the range asked for: `rows` says which parts have it, lowest LSNs
    /// first, and under which row.
    ///
    /// # Errors
    /// What the query's control says, [`Error::MemoryFull`], damage in a block.
    pub(super) fn read(
        &mut self,
        parts: &[Part<'_>],
        labels: &Labels,
        rows: &[(usize, u32)],
    ) -> Result<&Samples, Error> {
        self.asked.ctl.check()?;
        self.samples.clear();
        for &(index, row) in rows {
            if let Some(part) = parts.get(index) {
                self.append(part, index, labels, row)?;
            }
        }
        self.since_count += 1;
        if self.since_count > COUNT_SERIES {
            self.since_count = 0;
            self.caches_bytes = self.caches.heap_bytes() as u64;
        }
        self.samples.settle();
        let count = self.samples.times.len() as u64;
        self.asked.ctl.count_samples(count)?;
        Ok(&self.samples)
    }

    /// The samples of a series in one part.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(super) fn read_one(
        &mut self,
        part: &Part<'_>,
        labels: &Labels,
        row: u32,
    ) -> Result<&Samples, Error> {
        self.read(std::slice::from_ref(part), labels, &[(0, row)])
    }

    /// Whether one part has a sample of the series in the range, the part itself having said that there
    /// is one before deletes that it does not know.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(super) fn has_samples(
        &mut self,
        part: &Part<'_>,
        labels: &Labels,
        row: u32,
    ) -> Result<bool, Error> {
        part.hiding.ranges(labels, &mut self.hidden);
        if self.hidden.is_empty() {
            return Ok(true);
        }
        Ok(!self.read_one(part, labels, row)?.times.is_empty())
    }

    /// Appends what one part has as a run.
    fn append(
        &mut self,
        part: &Part<'_>,
        index: usize,
        labels: &Labels,
        row: u32,
    ) -> Result<(), Error> {
        let Asked { at, range, ctl, .. } = self.asked;
        part.hiding.ranges(labels, &mut self.hidden);
        let start = self.samples.begin_run();
        match part.data {
            PartData::Head(head) => {
                head.copy_series(SeriesNumber(row), at, range, &mut self.copy);
                self.reserve(self.copy.samples_max())?;
                self.copy.append(range, &mut self.samples, || ctl.check())?;
            }
            PartData::Block(block) => self.append_block(block, index, row)?,
        }
        if !self.hidden.is_empty() {
            let hidden = &self.hidden;
            let is_hidden = |time| {
                let time = Timestamp::from_nanos(time);
                hidden.iter().any(|range| range.contains(time))
            };
            self.samples.hide(start, is_hidden);
        }
        Ok(())
    }

    fn append_block(&mut self, block: &MetricBlock, index: usize, row: u32) -> Result<(), Error> {
        let range = self.asked.range;
        let chunks = block.chunk_count(row, self.caches.of(index))?;
        if chunks <= CHUNKS_UNSEEN_MAX {
            self.reserve(chunks * COLUMN_SAMPLES_MAX)?;
            let Samples { times, values, .. } = &mut self.samples;
            return block.read(row, range, times, values, self.caches.of(index));
        }
        let mut chunks = std::mem::take(&mut self.chunks);
        chunks.clear();
        let cache = self.caches.of(index);
        block.chunks(row, false, cache, &mut chunks)?;
        chunks.retain(|chunk| chunk.overlaps(range));
        for chunk in &chunks {
            self.asked.ctl.check()?;
            self.reserve(chunk.count as usize)?;
            let Samples { times, values, .. } = &mut self.samples;
            block.read_chunk(chunk, range, times, values, self.caches.of(index))?;
        }
        self.chunks = chunks;
        Ok(())
    }

    /// Makes sure that so many more samples, and what is kept of blocks, are reserved.
    fn reserve(&mut self, more: usize) -> Result<(), Error> {
        let samples = (self.samples.times.len() + more) as u64;
        let needed = samples.saturating_mul(SAMPLE_BYTES) + self.caches_bytes;
        let held = self.reservation.bytes();
        if needed > held {
            self.reservation.grow(needed - held)?;
        }
        Ok(())
    }
}
