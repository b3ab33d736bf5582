//! Makes one block of several.
//!
//! 1. The traces of all sources are listed by (start, id). One that is hidden whole is left out; one of
//!    which some rows are hidden is read, and rebuilt of what is left: its parents are found anew.
//! 2. What stays as it is and what was rebuilt is written column by column (`writer.rs`).
//!
//! Invariants
//! - A trace is visible in one source at most. Were it in several, it would be rebuilt of all of them, so
//!   that a trace is whole in one place again.
//! - What is hidden leaves nothing behind, not in any table either.

use std::{collections::HashSet, path::Path, sync::Arc};

use rootline_wal::{Storage, StoreId};

use super::{
    super::{hidden::Hidden, model::Span},
    loose::LooseRows,
    loose_traces::LooseBuilder,
    reader::SpanBlock,
    trace::whole_trace,
    traces::TraceCursor,
    writer::{Go, RowRun, RowSource, SpanBlockOrigin, write_block},
};
use crate::{
    block::{BlockId, BlockMeta},
    control::CHECK_ROWS,
    error::Error,
    id::TraceId,
};

/// A trace of the new block.
#[derive(Clone, Copy, Debug)]
struct Taken {
    start_ns: i64,
    id: TraceId,
    source: u32,
    first_row: u32,
    rows: u32,
}

/// Merges blocks, the oldest first, without the rows that are hidden in them, into block `id`.
/// `keep_superseded` says whether a block older than all of them may have a trace. `None` if nothing is
/// left.
#[expect(clippy::too_many_arguments, reason = "what a block is made of")]
pub(crate) fn merge(
    storage: &Arc<dyn Storage>,
    dir: &Path,
    store: StoreId,
    id: BlockId,
    sources: &[(Arc<SpanBlock>, Arc<Hidden>)],
    keep_superseded: &dyn Fn(TraceId) -> bool,
    origin: SpanBlockOrigin,
    ctl: Go<'_>,
) -> Result<Option<BlockMeta>, Error> {
    let mut found = Found::default();
    for ((block, hidden), source) in sources.iter().zip(0u32..) {
        find_traces(block, hidden, source, &mut found, ctl)?;
    }
    let Found {
        whole: mut taken,
        mut partial,
    } = found;
    partial.sort_unstable();
    partial.extend(take_split(&mut taken, &partial));
    let loose = rebuilt(sources, partial, ctl)?;
    let loose_source = u32::try_from(sources.len()).unwrap_or(u32::MAX);
    let ends = loose.traces().iter().skip(1).map(|trace| trace.first_row);
    let of_loose = loose.traces().iter().zip(ends.chain([loose.rows()]));
    taken.extend(of_loose.map(|(trace, end)| Taken {
        start_ns: trace.start_ns,
        id: trace.id,
        source: loose_source,
        first_row: trace.first_row,
        rows: end - trace.first_row,
    }));
    // The traces of each source stand in order already.
    taken.sort_by_key(|trace| (trace.start_ns, trace.id));
    let runs = runs_of(&taken);
    drop(taken);
    let superseded = sources.iter().flat_map(|(block, _)| block.superseded());
    let mut superseded: Vec<TraceId> = superseded.copied().collect();
    superseded.sort_unstable();
    superseded.dedup();
    superseded.retain(|id| keep_superseded(*id));
    let blocks = sources.iter().map(|(block, _)| RowSource::Block(block));
    let all: Vec<RowSource<'_>> = blocks.chain([RowSource::Loose(&loose)]).collect();
    write_block(
        storage,
        dir,
        store,
        id,
        &all,
        &runs,
        &superseded,
        origin,
        ctl,
    )
}

/// The visible traces of the sources.
#[derive(Debug, Default)]
struct Found {
    /// All rows of them are visible.
    whole: Vec<Taken>,
    /// Some rows of them are hidden.
    partial: Vec<TraceId>,
}

fn find_traces(
    block: &SpanBlock,
    hidden: &Hidden,
    source: u32,
    found: &mut Found,
    ctl: Go<'_>,
) -> Result<(), Error> {
    let mut cursor = TraceCursor::default();
    for trace in 0..block.traces() {
        if (trace as usize).is_multiple_of(CHECK_ROWS) {
            ctl()?;
        }
        let rows = block.trace_rows_with(trace, &mut cursor)?;
        let count = rows.end - rows.start;
        let hidden_rows = hidden.rows.range_cardinality(rows.clone());
        if hidden_rows >= u64::from(count) {
            continue;
        }
        let id = block.trace_id_with(trace, &mut cursor)?;
        if hidden_rows > 0 {
            found.partial.push(id);
            continue;
        }
        found.whole.push(Taken {
            start_ns: block.trace_start_with(trace, &mut cursor)?,
            id,
            source,
            first_row: rows.start,
            rows: count,
        });
    }
    Ok(())
}

/// Takes traces out that are there more than once, or among `partial`, and gives their ids.
fn take_split(taken: &mut Vec<Taken>, partial: &[TraceId]) -> Vec<TraceId> {
    let ids = taken.iter().map(|trace| trace.id);
    let mut ids: Vec<TraceId> = ids.chain(partial.iter().copied()).collect();
    ids.sort_unstable();
    let pairs = ids.iter().zip(ids.iter().skip(1));
    let mut split: Vec<TraceId> = pairs.filter(|(a, b)| a == b).map(|(a, _)| *a).collect();
    split.dedup();
    if !split.is_empty() {
        taken.retain(|trace| split.binary_search(&trace.id).is_err());
    }
    split
}

/// Rebuilds traces of what is visible of them in all sources.
fn rebuilt(
    sources: &[(Arc<SpanBlock>, Arc<Hidden>)],
    mut ids: Vec<TraceId>,
    ctl: Go<'_>,
) -> Result<LooseRows, Error> {
    ids.sort_unstable();
    ids.dedup();
    let mut builder = LooseBuilder::default();
    for id in ids {
        let mut spans: Vec<Span> = Vec::new();
        for (block, hidden) in sources {
            let Some(trace) = block.find_trace(id)? else {
                continue;
            };
            let rows = block.trace_rows(trace)?;
            let read = block.read_trace(trace, rows, hidden, ctl)?;
            if spans.is_empty() {
                spans = read.spans;
            } else {
                let known: HashSet<u128> = spans.iter().map(Span::content_hash).collect();
                let new = read.spans.into_iter();
                spans.extend(new.filter(|span| !known.contains(&span.content_hash())));
            }
        }
        builder.push(&whole_trace(id, spans))?;
    }
    Ok(builder.finish())
}

/// Traces that follow each other in their source and here are one run.
fn runs_of(taken: &[Taken]) -> Vec<RowRun> {
    let mut runs: Vec<RowRun> = Vec::new();
    for trace in taken {
        match runs.last_mut() {
            Some(last)
                if last.source == trace.source && last.first_row + last.rows == trace.first_row =>
            {
                last.rows += trace.rows;
            }
            _ => runs.push(RowRun {
                source: trace.source,
                first_row: trace.first_row,
                rows: trace.rows,
            }),
        }
    }
    runs
}
