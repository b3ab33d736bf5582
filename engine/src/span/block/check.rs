//! Reads whatever a span block holds, for fuzzers and tests.

use std::{path::Path, sync::Arc};

use rootline_wal::{Lsn, PowerCutStorage, Storage, StoreId};

use super::{
    RowCursor, SpanBlock, SpanBlockOrigin, TraceCursor, merge, satellites::SatelliteCursor,
};
use crate::{
    block::{Block, BlockId, BlockMeta, BlockWriter, SectionKind, Signal},
    error::Error,
    span::{hidden::Hidden, model::Attributes},
    time::TimeRange,
};

/// Traces, groups and rows that are read at most: enough for every path.
const READ_MAX: u32 = 200;

/// The sections, in the order [`check_span_block`] takes them.
pub(super) const KINDS: [SectionKind; 10] = [
    SectionKind::SpanTraces,
    SectionKind::SpanOwners,
    SectionKind::SpanRows,
    SectionKind::SpanIds,
    SectionKind::SpanExtras,
    SectionKind::SpanAttributes,
    SectionKind::SpanEvents,
    SectionKind::SpanLinks,
    SectionKind::SpanOrphans,
    SectionKind::SpanDirectory,
];

/// Makes a block of these sections, whose checksums hold, of so many spans and traces, and reads all of
/// it: in the order of traces, owners, rows, ids, extras, attributes, events, links, orphans, directory.
/// Whatever the bytes, it ends in data or in an error. For fuzzers.
///
/// # Errors
/// [`Error::CorruptBlock`] for the first thing that does not hold.
pub fn check_span_block(spans: u32, traces: u32, sections: [&[u8]; 10]) -> Result<(), Error> {
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
    let copy = sections.last().copied().unwrap_or_default();
    let kinds = KINDS.into_iter().zip(sections);
    for (kind, bytes) in kinds.chain([(SectionKind::SpanDirectoryCopy, copy)]) {
        writer.begin(kind)?;
        writer.write(bytes)?;
    }
    writer.finish(BlockMeta {
        id: BlockId(1),
        signal: Signal::Spans,
        first_lsn: Lsn(1),
        last_lsn: Lsn(1),
        clean_lsn: Lsn(1),
        time: TimeRange::ALL,
        level: 0,
        series: traces.into(),
        samples: spans.into(),
        sources: Vec::new(),
        created_ns: 0,
        spanning: false,
        file_bytes: 0,
    })?;
    let block = Block::open(&storage, dir, Some(store), BlockId(1), &Arc::default())?;
    let block = Arc::new(SpanBlock::open(Arc::new(block), None)?);
    read_columns(&block)?;
    read_traces(&block)?;
    let origin = SpanBlockOrigin {
        first_lsn: Lsn(1),
        last_lsn: Lsn(1),
        clean_lsn: Lsn(1),
        level: 1,
        sources: vec![BlockId(1)],
        created_ns: 0,
    };
    let mut hidden = Hidden::default();
    hidden.rows.insert(0);
    let sources = [(block, Arc::new(hidden))];
    let mut left = READ_MAX;
    let mut go = || {
        left = left.checked_sub(1).ok_or(Error::Cancelled)?;
        Ok(())
    };
    merge(
        &storage,
        dir,
        store,
        BlockId(2),
        &sources,
        &|_| true,
        origin,
        &mut go,
    )?;
    Ok(())
}

/// Decodes every group of the columns of rows, and what hangs on rows.
fn read_columns(block: &SpanBlock) -> Result<(), Error> {
    let (mut numbers, mut times, mut durations) = (Vec::new(), Vec::new(), Vec::new());
    for group in 0..block.row_groups().min(READ_MAX) {
        block.class_group(group, &mut numbers)?;
        block.parent_group(group, &mut numbers)?;
        block.subtree_group(group, &mut numbers)?;
        block.start_group(group, &mut times)?;
        block.duration_group(group, &mut durations)?;
    }
    for resource in 0..block.resource_count().min(READ_MAX) {
        block.resource(resource)?;
    }
    for scope in 0..block.scope_count().min(READ_MAX) {
        block.scope(scope)?;
    }
    let (mut fields, mut attributes) = (Attributes::new(), Attributes::new());
    for items in [block.extras(), block.events(), block.links()] {
        let Some(items) = items else { continue };
        let mut cursor = SatelliteCursor::default();
        for item in 0..items.len().min(READ_MAX) {
            items.row(block.block(), item, &mut cursor)?;
            items.read(item, &mut cursor, &mut fields, &mut attributes)?;
        }
    }
    Ok(())
}

/// Reads traces, found by their ids.
fn read_traces(block: &SpanBlock) -> Result<(), Error> {
    let mut cursor = TraceCursor::default();
    let mut rows_cursor = RowCursor::new(block);
    let mut left = READ_MAX;
    let mut go = || {
        left = left.checked_sub(1).ok_or(Error::Cancelled)?;
        Ok(())
    };
    for trace in 0..block.traces().min(READ_MAX) {
        let rows = block.trace_rows_with(trace, &mut cursor)?;
        block.trace_of_row_with(rows.start, &mut cursor)?;
        block.trace_bounds_with(trace, &mut cursor)?;
        let id = block.trace_id_with(trace, &mut cursor)?;
        block.find_trace(id)?;
        block.parent_id_as_sent(rows.start, &mut rows_cursor)?;
        block.read_trace(trace, rows, &Hidden::default(), &mut go)?;
    }
    Ok(())
}
