//! Reads a metric block. Bytes: `docs/formats/metric-block.md`.
//!
//! Invariants
//! - Opening reads the ends of sections, whatever the block's size.
//! - A read touches the directory group of its row, and of the row's chunks only those that overlap
//!   the range: their time columns, and of their values the groups that are wanted.
//! - Numbers in the block come from outside: an offset, a count or a length that does not hold gives
//!   [`Error::CorruptBlock`] with its place in the file.
//!
//! No locks; shared in an `Arc`. Whoever reads owns a [`ColumnCache`].

use std::{
    borrow::Cow,
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, OnceLock},
};

use roaring::RoaringBitmap;
use rootline_index::{
    Labels, Matcher,
    disk::{self, DiskIndex, LabelsCursor},
};
use rootline_wal::Lsn;

use super::{
    chunks::{ChunkGroup, ChunkPlace, TimePlace},
    exemplars, metadata,
    row_table::{RowItem, RowTable},
    section::SectionReader,
    stats::ChunkStats,
    time_columns::{TimeColumns, TimeGroup},
    writer::EncodedChunk,
};
use crate::{
    block::{Block, BlockId, BlockMeta, SectionKind},
    budget::{Budget, Holder, Reservation},
    column::{times, values},
    error::{Error, ErrorKind},
    metric::{Exemplar, Metadata},
    time::TimeRange,
};

/// Decoded time columns that a reader keeps: neighbours in the order of labels share theirs with the
/// neighbours of another metric, a few targets away.
const COLUMNS_KEPT: usize = 16;
/// Chunks of a series from which on a range is searched for.
const SEARCHED_CHUNKS_MIN: usize = 8;

/// An open block of metrics.
#[derive(Debug)]
pub(crate) struct MetricBlock {
    /// As the footer has it, but for deletes that were found not to concern it since.
    meta: BlockMeta,
    block: Arc<Block>,
    index: DiskIndex<IndexPart>,
    directory: RowTable,
    /// `None` if it is damaged: who asks for exemplars meets that.
    exemplars: Option<RowTable>,
    times: TimeColumns,
    /// Rows that have exemplars alone, once somebody asked.
    sampleless: OnceLock<RoaringBitmap>,
    /// What it holds, on the ledger.
    held: Option<Arc<Reservation>>,
}

/// A section that the series index reads.
#[derive(Clone, Debug)]
pub(crate) struct IndexPart {
    block: Arc<Block>,
    kind: SectionKind,
}

impl disk::Source for IndexPart {
    type Error = Error;

    fn len_bytes(&self) -> u64 {
        let section = self.block.section(self.kind);
        section.map_or(0, |section| section.len_bytes())
    }

    fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, Error> {
        let section = self.block.section(self.kind)?;
        Ok(section.bytes(range)?.into_cow())
    }
}

/// What a reader of one block keeps from one series to the next. Of any block: it notices.
#[derive(Debug, Default)]
pub(crate) struct ColumnCache {
    block: Option<BlockId>,
    group: ChunkGroup,
    item: Option<RowItem>,
    stats: Option<Vec<Option<ChunkStats>>>,
    time_group: TimeGroup,
    /// Time columns by where they lie in their section.
    columns: Vec<(u64, Vec<i64>)>,
    /// The time column of a chunk that shares it with nobody.
    inline: Vec<i64>,
}

impl ColumnCache {
    /// Memory held.
    pub(crate) fn heap_bytes(&self) -> usize {
        let columns = self.columns.iter().map(|(_, times)| times.capacity());
        (columns.sum::<usize>() + self.inline.capacity()) * size_of::<i64>()
            + self.group.heap_bytes()
    }

    fn turn_to(&mut self, block: BlockId) {
        if self.block != Some(block) {
            self.block = Some(block);
            self.item = None;
            self.stats = None;
            self.time_group.clear();
            for (_, times) in &mut self.columns {
                times.clear();
            }
        }
    }

    /// The decoded column that starts here; empty if it is not kept.
    fn kept(&self, start_bytes: u64) -> &[i64] {
        match self.columns.get(slot_of(start_bytes)) {
            Some((kept, times)) if *kept == start_bytes => times,
            _ => &[],
        }
    }

    fn slot(&mut self, start_bytes: u64) -> &mut Vec<i64> {
        let index = slot_of(start_bytes);
        if self.columns.len() <= index {
            self.columns.resize_with(index + 1, Default::default);
        }
        #[expect(clippy::indexing_slicing, reason = "made just above")]
        let (kept, times) = &mut self.columns[index];
        *kept = start_bytes;
        times.clear();
        times
    }
}

/// Which of the kept columns a column may be.
fn slot_of(start_bytes: u64) -> usize {
    let spread = start_bytes.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    usize::try_from(spread).unwrap_or(0) % COLUMNS_KEPT
}

/// A chunk of a series.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ChunkInfo {
    place: ChunkPlace,
    /// Samples.
    pub(crate) count: u32,
    /// The first timestamp.
    pub(crate) first_ns: i64,
    /// The last timestamp.
    pub(crate) last_ns: i64,
    /// Statistics, if it has any.
    pub(crate) stats: Option<ChunkStats>,
}

impl ChunkInfo {
    /// Bytes of its value column.
    pub(crate) fn value_bytes(&self) -> u64 {
        self.place.values_bytes.end - self.place.values_bytes.start
    }

    /// From the first to the last timestamp, both included.
    pub(crate) fn overlaps(&self, range: TimeRange) -> bool {
        self.first_ns <= range.end().as_nanos() && range.start().as_nanos() <= self.last_ns
    }
}

impl MetricBlock {
    /// Makes sense of a block's sections. Reads their ends only.
    pub(crate) fn open(block: Arc<Block>) -> Result<Self, Error> {
        let part = |kind| IndexPart {
            block: Arc::clone(&block),
            kind,
        };
        let index = DiskIndex::open(part(SectionKind::Strings), part(SectionKind::SeriesIndex))
            .map_err(|error| index_error(&block, error))?;
        let directory = RowTable::open(&SectionReader::open(&block, SectionKind::Chunks)?)?;
        let exemplars = RowTable::open(&SectionReader::open(&block, SectionKind::Exemplars)?);
        let exemplars = match exemplars {
            Ok(exemplars) => Some(exemplars),
            // Samples are read all the same.
            Err(error) if error.kind() == ErrorKind::Corrupted => None,
            Err(error) => return Err(error),
        };
        let times = TimeColumns::open(&SectionReader::open(&block, SectionKind::Times)?)?;
        if index.rows() != directory.rows || u64::from(index.rows()) != block.meta().series {
            let reason = "index, chunks and footer disagree about the number of series";
            return Err(block.damage(SectionKind::Chunks, 0, reason));
        }
        Ok(Self {
            meta: block.meta().clone(),
            index,
            directory,
            exemplars,
            times,
            sampleless: OnceLock::new(),
            block,
            held: None,
        })
    }

    /// The same, with what it holds on a ledger.
    pub(crate) fn charged_to(mut self, budget: &Arc<Budget>) -> Self {
        // The manifest's version and the view know of it, too.
        let bytes = self.block.heap_bytes() + size_of::<Self>() + 2 * size_of::<BlockMeta>();
        self.held = Some(Arc::new(budget.charged(Holder::Blocks, bytes as u64)));
        self
    }

    /// What is known of the block.
    pub(crate) fn meta(&self) -> &BlockMeta {
        &self.meta
    }

    /// The same block, known to hold nothing that deletes up to `clean_lsn` hide.
    pub(crate) fn with_clean_lsn(&self, clean_lsn: Lsn) -> Result<Self, Error> {
        let mut block = Self::open(Arc::clone(&self.block))?;
        block.meta.clean_lsn = self.meta.clean_lsn.max(clean_lsn);
        block.held.clone_from(&self.held);
        Ok(block)
    }

    /// The container.
    pub(crate) fn block(&self) -> &Arc<Block> {
        &self.block
    }

    /// Series of the block; rows are below it.
    pub(crate) fn series_count(&self) -> u32 {
        self.directory.rows
    }

    /// The index of its series, by row. See [`index_error`](Self::index_error).
    pub(crate) fn index(&self) -> &DiskIndex<IndexPart> {
        &self.index
    }

    /// An error of the index as one of the engine's.
    pub(crate) fn index_error(&self, error: disk::Error<Error>) -> Error {
        index_error(&self.block, error)
    }

    /// The rows that satisfy every matcher. `keep_going` is asked now and then; false ends the
    /// search with [`Error::Cancelled`].
    pub(crate) fn select(
        &self,
        matchers: &[Matcher],
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<RoaringBitmap, Error> {
        let rows = self.index.select(matchers, keep_going);
        rows.map_err(|error| self.index_error(error))
    }

    /// Reads what many series are called; fastest in rising order.
    pub(crate) fn labels_cursor(&self) -> SeriesLabels<'_> {
        SeriesLabels {
            block: &self.block,
            cursor: self.index.labels_cursor(),
        }
    }

    /// What one series is called.
    #[cfg(test)]
    pub(crate) fn labels(&self, row: u32) -> Result<Labels, Error> {
        let labels = self.index.labels(row);
        labels.map_err(|error| self.index_error(error))
    }

    /// Appends the samples of a series that lie in `range`, by rising time.
    pub(crate) fn read(
        &self,
        row: u32,
        range: TimeRange,
        out_times: &mut Vec<i64>,
        out_values: &mut Vec<f64>,
        cache: &mut ColumnCache,
    ) -> Result<(), Error> {
        self.load_group(row, cache)?;
        let sections = self.sections()?;
        let chunks = cache.group.chunks_of(row);
        let from = self.first_reaching(&sections, &chunks, range.start().as_nanos(), cache)?;
        for index in from..chunks.end {
            let place = sections.place(index, cache)?;
            if !self.read_place(&sections, &place, range, out_times, out_values, cache)? {
                break;
            }
        }
        Ok(())
    }

    /// Appends the chunks of a series to `out`, by rising time, and with statistics if asked for.
    pub(crate) fn chunks(
        &self,
        row: u32,
        with_stats: bool,
        cache: &mut ColumnCache,
        out: &mut Vec<ChunkInfo>,
    ) -> Result<(), Error> {
        self.load_group(row, cache)?;
        let sections = self.sections()?;
        if with_stats && cache.stats.is_none() {
            self.load_stats(cache)?;
        }
        for index in cache.group.chunks_of(row) {
            let place = sections.place(index, cache)?;
            let (count, first_ns, last_ns) = self.bounds(&sections, &place, cache)?;
            let stats = cache.stats.as_ref().filter(|_| with_stats);
            out.push(ChunkInfo {
                count,
                first_ns,
                last_ns,
                stats: stats.and_then(|stats| *stats.get(index)?),
                place,
            });
        }
        Ok(())
    }

    /// Appends the samples of one chunk that lie in `range`.
    pub(crate) fn read_chunk(
        &self,
        chunk: &ChunkInfo,
        range: TimeRange,
        out_times: &mut Vec<i64>,
        out_values: &mut Vec<f64>,
        cache: &mut ColumnCache,
    ) -> Result<(), Error> {
        cache.turn_to(self.meta().id);
        let sections = self.sections()?;
        self.read_place(&sections, &chunk.place, range, out_times, out_values, cache)?;
        Ok(())
    }

    /// Hands `take` the columns of a chunk as they stand in the block.
    pub(crate) fn with_columns<T>(
        &self,
        chunk: &ChunkInfo,
        cache: &mut ColumnCache,
        take: impl FnOnce(&EncodedChunk<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        cache.turn_to(self.meta().id);
        let sections = self.sections()?;
        let (section, at) = self.time_place(&sections, &chunk.place, cache)?;
        let times = section.bytes(at)?;
        let values = sections.values.bytes(chunk.place.values_bytes.clone())?;
        take(&EncodedChunk {
            times: &times,
            values: &values,
            count: chunk.count,
            first_ns: chunk.first_ns,
            last_ns: chunk.last_ns,
            stats: chunk.stats,
        })
    }

    /// The exemplars of a series that lie in `range`, in order of arrival.
    pub(crate) fn exemplars(&self, row: u32, range: TimeRange) -> Result<Vec<Exemplar>, Error> {
        if !self.has_exemplars() {
            return Ok(Vec::new());
        }
        let section = SectionReader::open(&self.block, SectionKind::Exemplars)?;
        let values = SectionReader::open(&self.block, SectionKind::Values)?;
        let mut exemplars =
            exemplars::read(&section, &values, self.exemplar_table(&section)?, row)?;
        exemplars.retain(|exemplar| range.contains(exemplar.time));
        Ok(exemplars)
    }

    /// Whether any series has exemplars.
    pub(crate) fn has_exemplars(&self) -> bool {
        self.exemplars.as_ref().is_none_or(|table| table.own > 0)
    }

    fn exemplar_table(&self, section: &SectionReader<'_>) -> Result<&RowTable, Error> {
        if let Some(table) = &self.exemplars {
            return Ok(table);
        }
        // The same damage again, with its place.
        RowTable::open(section)?;
        Err(section.damaged(0, "the table of exemplars was not readable"))
    }

    /// The rows that have exemplars. Reads all of them.
    pub(crate) fn rows_with_exemplars(&self) -> Result<RoaringBitmap, Error> {
        let mut rows = RoaringBitmap::new();
        if self.has_exemplars() {
            let section = SectionReader::open(&self.block, SectionKind::Exemplars)?;
            let values = SectionReader::open(&self.block, SectionKind::Values)?;
            let table = self.exemplar_table(&section)?;
            let mut next = 0;
            while let Some(item) = table.item(&section, next)? {
                let bytes = values.bytes(item.bytes.clone())?;
                let found = exemplars::rows(&bytes, item.first_row, &mut rows);
                values.placed(item.bytes.start, found)?;
                next += 1;
            }
        }
        Ok(rows)
    }

    /// The rows that have exemplars and no samples. The first call reads all exemplars.
    pub(crate) fn rows_without_samples(&self) -> Result<&RoaringBitmap, Error> {
        if let Some(rows) = self.sampleless.get() {
            return Ok(rows);
        }
        let mut cache = ColumnCache::default();
        let mut rows = RoaringBitmap::new();
        for row in self.rows_with_exemplars()? {
            if self.chunk_count(row, &mut cache)? == 0 {
                rows.insert(row);
            }
        }
        Ok(self.sampleless.get_or_init(|| rows))
    }

    /// Chunks of a series.
    pub(crate) fn chunk_count(&self, row: u32, cache: &mut ColumnCache) -> Result<usize, Error> {
        self.load_group(row, cache)?;
        Ok(cache.group.chunks_of(row).len())
    }

    /// Type, unit and help of metrics as they were when the block was made, by rising name.
    pub(crate) fn metadata(&self) -> Result<Vec<(Lsn, Metadata)>, Error> {
        metadata::read(&SectionReader::open(&self.block, SectionKind::Metadata)?)
    }

    /// Counts columns and bytes by encoding, and what the sections take. Reads the directory and the
    /// first bytes of every value column; `each` is called for every series.
    pub(crate) fn describe(
        &self,
        each: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<MetricBlockContents, Error> {
        let mut contents = MetricBlockContents {
            time_columns: self.times.columns,
            exemplars: self.exemplars.as_ref().map_or(0, |table| table.own),
            ..MetricBlockContents::default()
        };
        let mut cache = ColumnCache::default();
        let sections = self.sections()?;
        for row in 0..self.series_count() {
            each()?;
            self.load_group(row, &mut cache)?;
            for index in cache.group.chunks_of(row) {
                let place = sections.place(index, &cache)?;
                let column = sections.values.bytes(place.values_bytes.clone())?;
                let name = values::describe(&column);
                let name = sections.values.placed(place.values_bytes.start, name)?;
                let of_name = contents.encodings.entry(name).or_default();
                of_name.columns += 1;
                of_name.bytes += column.len() as u64;
                contents.chunks += 1;
            }
        }
        Ok(contents)
    }

    fn sections(&self) -> Result<Sections<'_>, Error> {
        Ok(Sections {
            times: SectionReader::open(&self.block, SectionKind::Times)?,
            values: SectionReader::open(&self.block, SectionKind::Values)?,
        })
    }

    /// Decodes the directory group of a row, if it is not the one that is there.
    fn load_group(&self, row: u32, cache: &mut ColumnCache) -> Result<(), Error> {
        cache.turn_to(self.meta().id);
        if cache.item.is_some() && cache.group.rows().contains(&row) {
            return Ok(());
        }
        let section = SectionReader::open(&self.block, SectionKind::Chunks)?;
        if row >= self.directory.rows {
            return Err(section.damaged(0, "a series beyond the block's is asked for"));
        }
        let next = cache.item.take().map(|item| item.index + 1);
        cache.stats = None;
        // Rows mostly come rising, so that the next group is a guess worth a look.
        let mut item = match next {
            Some(next) if cache.group.rows().end == row => self.directory.item(&section, next)?,
            _ => None,
        };
        if item.as_ref().is_none_or(|item| item.first_row != row) {
            item = self.directory.find(&section, row)?;
        }
        let item = item.ok_or_else(|| section.damaged(0, "a series has no group of chunks"))?;
        let bytes = section.bytes(item.bytes.clone())?;
        let values = self.block.section(SectionKind::Values)?.len_bytes();
        let decoded = cache
            .group
            .decode(&bytes, item.first_row, self.directory.rows, values);
        section.placed(item.bytes.start, decoded)?;
        if !cache.group.rows().contains(&row) {
            return Err(section.damaged(item.bytes.start, "a series has no group of chunks"));
        }
        cache.item = Some(item);
        Ok(())
    }

    fn load_stats(&self, cache: &mut ColumnCache) -> Result<(), Error> {
        let Some(item) = &cache.item else {
            return Ok(());
        };
        let section = SectionReader::open(&self.block, SectionKind::Chunks)?;
        let bytes = section.bytes(item.bytes.clone())?;
        let stats = section.placed(item.bytes.start, cache.group.stats(&bytes))?;
        cache.stats = Some(stats);
        Ok(())
    }

    /// The first of the chunks that may reach `start_ns`.
    fn first_reaching(
        &self,
        sections: &Sections<'_>,
        chunks: &Range<usize>,
        start_ns: i64,
        cache: &mut ColumnCache,
    ) -> Result<usize, Error> {
        if chunks.len() < SEARCHED_CHUNKS_MIN {
            return Ok(chunks.start);
        }
        let (mut low, mut high) = (chunks.start, chunks.end);
        while low < high {
            let middle = low + (high - low) / 2;
            let place = sections.place(middle, cache)?;
            let (_, _, last_ns) = self.bounds(sections, &place, cache)?;
            if last_ns < start_ns {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Samples, first and last timestamp of a chunk.
    fn bounds(
        &self,
        sections: &Sections<'_>,
        place: &ChunkPlace,
        cache: &mut ColumnCache,
    ) -> Result<(u32, i64, i64), Error> {
        let (section, at) = self.time_place(sections, place, cache)?;
        let bounds = section.placed(at.start, times::bounds(&section.bytes(at.clone())?))?;
        Ok((bounds.count, bounds.first_ns, bounds.last_ns))
    }

    /// A chunk's time column: its section, and where it lies in it.
    fn time_place<'s, 'b>(
        &self,
        sections: &'s Sections<'b>,
        place: &ChunkPlace,
        cache: &mut ColumnCache,
    ) -> Result<(&'s SectionReader<'b>, Range<u64>), Error> {
        match place.time {
            TimePlace::Shared(slot) => {
                let section = &sections.times;
                let range = self.times.place(section, slot, &mut cache.time_group)?;
                Ok((section, range))
            }
            TimePlace::Inline(_) => {
                let range = place.start_bytes..place.values_bytes.start;
                Ok((&sections.values, range))
            }
        }
    }

    /// Appends the samples of a chunk that lie in `range`; false if the chunk begins after it.
    fn read_place(
        &self,
        sections: &Sections<'_>,
        place: &ChunkPlace,
        range: TimeRange,
        out_times: &mut Vec<i64>,
        out_values: &mut Vec<f64>,
        cache: &mut ColumnCache,
    ) -> Result<bool, Error> {
        let (start_ns, end_ns) = (range.start().as_nanos(), range.end().as_nanos());
        let (section, at) = self.time_place(sections, place, cache)?;
        let is_shared = matches!(place.time, TimePlace::Shared(_));
        if !is_shared || cache.kept(at.start).is_empty() {
            let bytes = section.bytes(at.clone())?;
            let bounds = section.placed(at.start, times::bounds(&bytes))?;
            if bounds.first_ns > end_ns {
                return Ok(false);
            }
            if bounds.last_ns < start_ns {
                return Ok(true);
            }
            let column = if is_shared {
                cache.slot(at.start)
            } else {
                cache.inline.clear();
                &mut cache.inline
            };
            let decoded = times::decode(&bytes, column);
            if decoded.is_err() {
                column.clear();
            }
            section.placed(at.start, decoded)?;
        }
        let times = if is_shared {
            cache.kept(at.start)
        } else {
            &cache.inline
        };
        let (Some(&first_ns), Some(&last_ns)) = (times.first(), times.last()) else {
            return Ok(true);
        };
        if first_ns > end_ns {
            return Ok(false);
        }
        if last_ns < start_ns {
            return Ok(true);
        }
        let column = sections.values.bytes(place.values_bytes.clone())?;
        let before = (out_times.len(), out_values.len());
        let decoded = if start_ns <= first_ns && last_ns <= end_ns {
            out_times.extend_from_slice(times);
            values::decode(&column, times.len(), out_values)
        } else {
            let from = times.partition_point(|t| *t < start_ns);
            let to = times.partition_point(|t| *t <= end_ns).max(from);
            out_times.extend_from_slice(times.get(from..to).unwrap_or_default());
            values::decode_range(&column, times.len(), from..to, out_values)
        };
        if decoded.is_err() {
            out_times.truncate(before.0);
            out_values.truncate(before.1);
        }
        sections.values.placed(place.values_bytes.start, decoded)?;
        Ok(true)
    }
}

/// Reads the labels of series, row by row.
#[derive(Debug)]
pub(crate) struct SeriesLabels<'b> {
    block: &'b Block,
    cursor: LabelsCursor<'b, IndexPart>,
}

impl SeriesLabels<'_> {
    /// What a series is called.
    pub(crate) fn labels(&mut self, row: u32) -> Result<Labels, Error> {
        let labels = self.cursor.labels(row);
        labels.map_err(|error| index_error(self.block, error))
    }
}

/// The two sections that samples stand in.
struct Sections<'b> {
    times: SectionReader<'b>,
    values: SectionReader<'b>,
}

impl Sections<'_> {
    /// Where the columns of a chunk of the decoded group lie.
    fn place(&self, index: usize, cache: &ColumnCache) -> Result<ChunkPlace, Error> {
        let place = cache.group.chunk(index);
        place.ok_or_else(|| self.values.damaged(0, "a chunk that is not there"))
    }
}

/// What a block is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MetricBlockContents {
    /// Value columns.
    pub(crate) chunks: u64,
    /// Distinct time columns that are shared or could be.
    pub(crate) time_columns: u32,
    /// Exemplars.
    pub(crate) exemplars: u64,
    /// Value columns by the name of their encoding.
    pub(crate) encodings: BTreeMap<&'static str, EncodingShare>,
}

/// What one encoding takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EncodingShare {
    /// Columns.
    pub(crate) columns: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

/// The engine's error for one of the index.
fn index_error(block: &Block, error: disk::Error<Error>) -> Error {
    match error {
        disk::Error::Damaged {
            part,
            offset_bytes,
            reason,
        } => {
            let kind = match part {
                disk::Part::Strings => SectionKind::Strings,
                disk::Part::Index => SectionKind::SeriesIndex,
            };
            block.damage(kind, offset_bytes, reason)
        }
        disk::Error::UnknownVersion { version } => Error::UnsupportedBlock {
            path: block.path().to_owned(),
            version: version.into(),
        },
        disk::Error::Cancelled => Error::Cancelled,
        disk::Error::Source(error) => error,
        other => block.damage(SectionKind::SeriesIndex, 0, other.to_string()),
    }
}
