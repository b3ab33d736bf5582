//! Writes a metric block in one pass. Bytes: `docs/formats/metric-block.md`.
//!
//! 1. Series come in the order of `Labels`. A series that gets no sample and no exemplar is left out.
//! 2. Its samples become columns of at most [`COLUMN_SAMPLES_MAX`] samples, evenly. Value columns and
//!    exemplars go to the file at once; time columns (each distinct one once), the chunk directory and
//!    the index are held, encoded, and written by `finish`.
//!
//! Owned by one thread. Dropped unfinished, it leaves nothing behind.

use std::{cell::RefCell, path::Path, sync::Arc};

use rootline_index::{Symbol, Symbols, disk::DiskIndexWriter};
use rootline_wal::{Lsn, Storage, StoreId};

use super::{
    chunks::{DirectoryWriter, TimePlace},
    exemplars::ExemplarsWriter,
    metadata::MetadataWriter,
    stats::{ChunkStats, STATS_SAMPLES_MIN},
    time_columns::TimeColumnsWriter,
};
use crate::{
    block::{BlockId, BlockMeta, BlockWriter, SectionKind, Signal},
    budget::{Budget, Holder, Reservation},
    column::{times::COLUMN_SAMPLES_MAX, values},
    error::Error,
    metric::{Exemplar, Metadata},
    time::{TimeRange, Timestamp},
};

/// Where the content of a block comes from: what its writer cannot know.
#[derive(Clone, Debug)]
pub(crate) struct BlockOrigin {
    /// The records it was made of lie between these two, both included.
    pub(crate) first_lsn: Lsn,
    /// See `first_lsn`.
    pub(crate) last_lsn: Lsn,
    /// Deletes up to here are applied in it.
    pub(crate) clean_lsn: Lsn,
    /// How often its content was merged.
    pub(crate) level: u8,
    /// The blocks it replaces.
    pub(crate) sources: Vec<BlockId>,
    /// Wall clock, ns since the Unix epoch.
    pub(crate) created_ns: i64,
    /// It holds days that were too sparse for a block of their own.
    pub(crate) spanning: bool,
}

/// A chunk as another block holds it: its columns, and what the directory says of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EncodedChunk<'a> {
    /// The time column.
    pub(crate) times: &'a [u8],
    /// The value column.
    pub(crate) values: &'a [u8],
    /// Samples.
    pub(crate) count: u32,
    /// The first timestamp.
    pub(crate) first_ns: i64,
    /// The last timestamp.
    pub(crate) last_ns: i64,
    /// Its statistics, if it has any.
    pub(crate) stats: Option<ChunkStats>,
}

/// Rows between two looks at what a writer holds.
const ROWS_PER_CHARGE: u32 = 1_024;
/// What a writer holds whatever is written: the page at hand, and scratch of the codecs.
const OUTPUT_BYTES: usize = 256 << 10;

/// A metric block that is being written.
pub(crate) struct MetricBlockWriter {
    block: BlockWriter,
    index: DiskIndexWriter,
    directory: DirectoryWriter,
    times: TimeColumnsWriter,
    exemplars: ExemplarsWriter,
    metadata: MetadataWriter,
    encoder: values::Encoder,
    /// The labels of the series that is open, until it has a row.
    labels: Vec<(Symbol, Symbol)>,
    has_row: bool,
    samples: u64,
    /// From the first to the last timestamp so far.
    time: Option<TimeRange>,
    column: Vec<u8>,
    /// Its memory on the ledger, brought up to date every [`ROWS_PER_CHARGE`] rows.
    held: Option<Reservation>,
}

impl std::fmt::Debug for MetricBlockWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetricBlockWriter")
            .field("block", &self.block)
            .field("series", &self.directory.rows())
            .field("samples", &self.samples)
            .finish_non_exhaustive()
    }
}

impl MetricBlockWriter {
    /// Begins block `id` of `store` in `dir`, which exists.
    pub(crate) fn create(
        storage: &Arc<dyn Storage>,
        dir: &Path,
        store: StoreId,
        id: BlockId,
    ) -> Result<Self, Error> {
        let mut block = BlockWriter::create(storage, dir, store, id)?;
        block.begin(SectionKind::Values)?;
        Ok(Self {
            block,
            index: DiskIndexWriter::new(),
            directory: DirectoryWriter::default(),
            times: TimeColumnsWriter::default(),
            exemplars: ExemplarsWriter::default(),
            metadata: MetadataWriter::default(),
            encoder: values::Encoder::default(),
            labels: Vec::new(),
            has_row: false,
            samples: 0,
            time: None,
            column: Vec::new(),
            held: None,
        })
    }

    /// Keeps what it holds on a ledger.
    pub(crate) fn charge_to(&mut self, budget: &Arc<Budget>) {
        self.held = Some(budget.charged(Holder::Sealing, self.heap_bytes() as u64));
    }

    /// Holds fewer time columns, so that a test sees some stand inline.
    #[cfg(test)]
    pub(super) fn hold_times_at_most(&mut self, bytes: usize) {
        self.times.hold_at_most(bytes);
    }

    /// Begins a series, later in the order of `Labels` than those before. Its pairs are sorted by the
    /// text of their names; `finish` gets the table of the symbols.
    pub(crate) fn start_series(&mut self, labels: &[(Symbol, Symbol)]) {
        self.labels.clear();
        self.labels.extend_from_slice(labels);
        self.has_row = false;
    }

    /// Adds samples to the series that is open: rising, and later than those before. One call makes
    /// columns of its own, so it should get as many samples as there are.
    pub(crate) fn samples(&mut self, times_ns: &[i64], values: &[f64]) -> Result<(), Error> {
        debug_assert_eq!(times_ns.len(), values.len(), "a value for each timestamp");
        debug_assert!(times_ns.is_sorted_by(|a, b| a < b), "timestamps rise");
        let samples = times_ns.len().min(values.len());
        let columns = samples.div_ceil(COLUMN_SAMPLES_MAX);
        for column in 0..columns {
            let range = samples * column / columns..samples * (column + 1) / columns;
            let times_ns = times_ns.get(range.clone()).unwrap_or_default();
            let values = values.get(range).unwrap_or_default();
            self.chunk(times_ns, values)?;
        }
        Ok(())
    }

    /// Adds a chunk of another block to the series that is open, unchanged. It lies behind what the
    /// series has.
    pub(crate) fn copy_chunk(&mut self, chunk: &EncodedChunk<'_>) -> Result<(), Error> {
        self.ensure_row()?;
        let place = self.times.place_encoded(chunk.times);
        self.column.clear();
        self.column.extend_from_slice(chunk.values);
        self.push(
            place,
            chunk.count as usize,
            (chunk.first_ns, chunk.last_ns),
            chunk.stats,
        )
    }

    /// Adds an exemplar to the series that is open. They come in the order of their arrival.
    pub(crate) fn exemplar(&mut self, exemplar: &Exemplar) -> Result<(), Error> {
        self.ensure_row()?;
        self.exemplars.push(self.directory.rows() - 1, exemplar);
        self.reach(exemplar.time, exemplar.time);
        Ok(())
    }

    /// Sets what record `lsn` said of a metric; the latest record holds.
    pub(crate) fn metadata(&mut self, lsn: Lsn, metadata: &Metadata) {
        self.metadata.set(lsn, metadata);
    }

    /// Samples so far.
    pub(crate) fn sample_count(&self) -> u64 {
        self.samples
    }

    /// Memory held, about.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.index.heap_bytes()
            + self.directory.heap_bytes()
            + self.times.heap_bytes()
            + self.exemplars.heap_bytes()
            + OUTPUT_BYTES
    }

    /// Makes the block durable under its name, and says what it is; `None` if no series had anything.
    /// `symbols` gave out the symbols of the labels.
    pub(crate) fn finish(
        mut self,
        symbols: &Symbols,
        origin: BlockOrigin,
    ) -> Result<Option<BlockMeta>, Error> {
        let rows = self.directory.rows();
        let Some(time) = self.time.filter(|_| rows > 0) else {
            return Ok(None);
        };
        self.write_exemplars(true)?;
        // The index is sorted and written from what is held: all of it counts until the end.
        let _held = self.held;
        let mut block = self.block;
        block.begin(SectionKind::Times)?;
        self.times.finish(&mut |item| block.write(item))?;
        block.begin(SectionKind::Chunks)?;
        self.directory.finish(&mut |item| block.write(item))?;
        if self.exemplars.count() > 0 {
            block.begin(SectionKind::Exemplars)?;
            self.exemplars.finish(rows, &mut |item| block.write(item))?;
        }
        if !self.metadata.is_empty() {
            block.begin(SectionKind::Metadata)?;
            self.metadata.finish(&mut |item| block.write(item))?;
        }
        write_index(&mut block, self.index, symbols)?;
        let meta = block.finish(BlockMeta {
            id: BlockId(0),
            signal: Signal::Metrics,
            first_lsn: origin.first_lsn,
            last_lsn: origin.last_lsn,
            clean_lsn: origin.clean_lsn,
            time,
            level: origin.level,
            series: rows.into(),
            samples: self.samples,
            sources: origin.sources,
            created_ns: origin.created_ns,
            spanning: origin.spanning,
            file_bytes: 0,
        })?;
        Ok(Some(meta))
    }

    fn chunk(&mut self, times_ns: &[i64], values: &[f64]) -> Result<(), Error> {
        let (Some(&first), Some(&last)) = (times_ns.first(), times_ns.last()) else {
            return Ok(());
        };
        self.ensure_row()?;
        let place = self.times.place(times_ns);
        let stats = (values.len() >= STATS_SAMPLES_MIN).then(|| ChunkStats::of(values));
        self.column.clear();
        self.encoder.encode(values, &mut self.column);
        self.push(place, values.len(), (first, last), stats)
    }

    /// Writes the value column that stands in `column`, and the time column if it is inline.
    fn push(
        &mut self,
        place: TimePlace,
        count: usize,
        (first_ns, last_ns): (i64, i64),
        stats: Option<ChunkStats>,
    ) -> Result<(), Error> {
        let expected_bytes = self.directory.values_end_bytes();
        let mut offset_bytes = None;
        if let TimePlace::Inline(_) = place {
            offset_bytes = Some(self.block.write(self.times.inline_bytes())?);
        }
        let values_bytes = self.block.write(&self.column)?;
        debug_assert_eq!(
            offset_bytes.unwrap_or(values_bytes),
            expected_bytes,
            "a section has no gaps"
        );
        let bytes = u32::try_from(self.column.len()).unwrap_or(u32::MAX);
        self.directory.push(place, bytes, stats);
        self.samples += count as u64;
        self.reach(
            Timestamp::from_nanos(first_ns),
            Timestamp::from_nanos(last_ns),
        );
        Ok(())
    }

    /// Gives the open series its row.
    fn ensure_row(&mut self) -> Result<(), Error> {
        if !self.has_row {
            if self.directory.rows() == u32::MAX {
                return Err(Error::Unsupported("a block of 2^32 series"));
            }
            self.write_exemplars(false)?;
            self.index.push(&self.labels);
            self.directory.start_row();
            self.has_row = true;
            if self.directory.rows().is_multiple_of(ROWS_PER_CHARGE) {
                let bytes = self.heap_bytes() as u64;
                if let Some(held) = &mut self.held {
                    held.set(bytes);
                }
            }
        }
        if !self.directory.has_room() {
            return Err(Error::Unsupported(
                "a series of so many chunks in one block",
            ));
        }
        Ok(())
    }

    /// Writes exemplars of the rows so far between the values, if they make an item, or if `all`.
    fn write_exemplars(&mut self, all: bool) -> Result<(), Error> {
        if let Some(item) = self.exemplars.take_item(all) {
            self.directory.skip(item.len());
            let offset_bytes = self.block.write(&item)?;
            self.exemplars.written(item, offset_bytes);
        }
        Ok(())
    }

    fn reach(&mut self, first: Timestamp, last: Timestamp) {
        if let Ok(time) = TimeRange::new(first, last) {
            self.time = Some(self.time.map_or(time, |all| all.union(time)));
        }
    }
}

/// Writes the two sections of the series index, strings first.
fn write_index(
    block: &mut BlockWriter,
    index: DiskIndexWriter,
    symbols: &Symbols,
) -> Result<(), Error> {
    block.begin(SectionKind::Strings)?;
    let block = RefCell::new(block);
    let mut has_begun = false;
    index.finish(
        symbols,
        &mut |item| block.borrow_mut().write(item),
        &mut |item| {
            let mut block = block.borrow_mut();
            if !has_begun {
                has_begun = true;
                block.begin(SectionKind::SeriesIndex)?;
            }
            block.write(item)
        },
    )
}
