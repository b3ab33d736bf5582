//! Reads whatever a metric block holds, for fuzzers and tests.

use std::{path::Path, sync::Arc};

use rootline_index::{MatchOp, Matcher, Symbols};
use rootline_wal::{Lsn, PowerCutStorage, Storage, StoreId};

use super::{
    BlockOrigin, ColumnCache, MergeOutput, MetricBlock, MetricBlockWriter, merge,
    row_table::TRAILER_BYTES, section::u32_at,
};
use crate::{
    block::{Block, BlockId, BlockMeta, BlockWriter, SectionKind, Signal},
    error::Error,
    time::TimeRange,
};

/// Series that are read at most: enough for every path.
const SERIES_MAX: u32 = 1_000;

/// Makes a block of these sections, whose checksums hold, and reads all of it: in the order of
/// `Strings`, `SeriesIndex`, `Times`, `Values`, `Chunks`, `Exemplars`, `Metadata`. Whatever the bytes,
/// it ends in data or in an error. For fuzzers.
///
/// # Errors
/// [`Error::CorruptBlock`] for the first thing that does not hold.
pub fn check_metric_block(sections: [&[u8]; 7]) -> Result<(), Error> {
    const KINDS: [SectionKind; 7] = [
        SectionKind::Strings,
        SectionKind::SeriesIndex,
        SectionKind::Times,
        SectionKind::Values,
        SectionKind::Chunks,
        SectionKind::Exemplars,
        SectionKind::Metadata,
    ];
    let storage: Arc<dyn Storage> = Arc::new(PowerCutStorage::new());
    let dir = Path::new("/blocks");
    let failed = |source| Error::Storage {
        operation: "create",
        path: dir.to_owned(),
        source,
    };
    storage.create_dir_all(dir).map_err(failed)?;
    let store = StoreId::from_bytes([1; 16]);
    let mut writer = BlockWriter::create(&storage, dir, store, BlockId(1))?;
    let mut series = 0;
    for (kind, bytes) in KINDS.into_iter().zip(sections) {
        if kind == SectionKind::Chunks {
            let rows_at = bytes.len().saturating_sub(TRAILER_BYTES - 8);
            series = u32_at(bytes, rows_at).into();
        }
        writer.begin(kind)?;
        writer.write(bytes)?;
    }
    writer.finish(BlockMeta {
        id: BlockId(1),
        signal: Signal::Metrics,
        first_lsn: Lsn(1),
        last_lsn: Lsn(1),
        clean_lsn: Lsn(1),
        time: TimeRange::ALL,
        level: 0,
        series,
        samples: 0,
        sources: Vec::new(),
        created_ns: 0,
        spanning: false,
        file_bytes: 0,
    })?;
    let block = Block::open(&storage, dir, Some(store), BlockId(1), &Arc::default())?;
    let block = Arc::new(MetricBlock::open(Arc::new(block))?);
    read_all(&block)?;
    block.metadata()?;
    let mut outputs = [MergeOutput {
        range: TimeRange::ALL,
        writer: MetricBlockWriter::create(&storage, dir, store, BlockId(2))?,
    }];
    let mut symbols = Symbols::new();
    let mut left = SERIES_MAX;
    let mut each = || {
        left = left.checked_sub(1).ok_or(Error::Cancelled)?;
        Ok(())
    };
    merge(&[block], &[], None, &mut outputs, &mut symbols, &mut each)?;
    let [MergeOutput { writer, .. }] = outputs;
    let origin = BlockOrigin {
        first_lsn: Lsn(1),
        last_lsn: Lsn(1),
        clean_lsn: Lsn(1),
        level: 1,
        sources: vec![BlockId(1)],
        created_ns: 0,
        spanning: false,
    };
    writer.finish(&symbols, origin)?;
    Ok(())
}

fn read_all(block: &MetricBlock) -> Result<(), Error> {
    let matchers = [
        Matcher::new(MatchOp::Regex, "__name__", "m.*").map_err(Error::InvalidMatcher)?,
        Matcher::equal("pod", ""),
    ];
    block.select(&matchers, &mut || true)?;
    let mut cache = ColumnCache::default();
    let mut labels = block.labels_cursor();
    let (mut times, mut values, mut chunks) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..block.series_count().min(SERIES_MAX) {
        times.clear();
        values.clear();
        chunks.clear();
        labels.labels(row)?;
        block.chunks(row, true, &mut cache, &mut chunks)?;
        block.read(row, TimeRange::ALL, &mut times, &mut values, &mut cache)?;
        block.exemplars(row, TimeRange::ALL)?;
    }
    Ok(())
}
