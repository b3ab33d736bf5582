//! The calls of a block as a snapshot sees it, in a range.
//!
//! 1. The block's summaries that cover the range are added up.
//! 2. What they count and the snapshot does not see is found in the rows and taken off: hidden rows, and
//!    all rows of traces of which some are hidden.
//! 3. In those traces the parent rule is applied anew to what is visible, and the calls are added.
//! 4. What is left of minutes at the ends of the range is read from the rows.
//!
//! Links and the spans they point to are read here as well.
//!
//! Where the summaries are damaged, left out, or would be taken off for the most part, rows alone
//! answer.

use hashbrown::HashMap;
use roaring::RoaringBitmap;

use super::{
    graph::{EdgeGraph, EdgeSlot},
    kind::EdgeKind,
    part::{EdgeFilter, add_all_calls, add_calls, each_step},
    period::Cover,
    section::EdgeDirectory,
};
use crate::{
    control::{CHECK_ROWS, QueryControl},
    error::Error,
    id::TraceId,
    span::{
        Attributes, SpanPart, SpanRows, StatusCode,
        block::{RowCursor, SatelliteCursor, SpanBlock, attributes::AttributeCursor, satellites},
        hidden::Hidden,
    },
    time::{TimeRange, Timestamp},
    value::Value,
};

/// Summaries do not pay once more than this part of the rows is to be taken off again: a row costs
/// about as much either way, and then those that are left are read as well.
const GONE_PART_MAX: u64 = 4;

/// Adds the calls of a block; false if its summaries are of no use, and nothing was added.
pub(super) fn add(
    part: &SpanPart,
    block: &SpanBlock,
    hidden: &Hidden,
    filter: &EdgeFilter,
    ctl: &QueryControl,
    into: &mut EdgeGraph,
) -> Result<bool, Error> {
    let gone = gone(block, hidden)?;
    if gone.len().saturating_mul(GONE_PART_MAX) > u64::from(block.rows()) {
        return Ok(false);
    }
    add_less(part, block, hidden, &gone, filter, ctl, into)
}

/// The rows of which the summaries say nothing that holds.
pub(super) fn gone(block: &SpanBlock, hidden: &Hidden) -> Result<RoaringBitmap, Error> {
    let mut gone = hidden.rows.clone();
    for trace in &hidden.partial {
        gone.insert_range(block.trace_rows(trace)?);
    }
    Ok(gone)
}

/// [`add`], however many rows are gone.
pub(super) fn add_less(
    part: &SpanPart,
    block: &SpanBlock,
    hidden: &Hidden,
    gone: &RoaringBitmap,
    filter: &EdgeFilter,
    ctl: &QueryControl,
    into: &mut EdgeGraph,
) -> Result<bool, Error> {
    let Some(bounds) = part.start_bounds() else {
        return Ok(false);
    };
    let cover = Cover::of(widened(filter.range, bounds));
    let Some(whole) = cover.whole else {
        return Ok(false);
    };
    let mut graph = into.like();
    let between = |kind: EdgeKind, caller: &str, callee: &str| {
        kind == EdgeKind::Call && filter.is_between(caller, callee)
    };
    let summed = match EdgeDirectory::open(block.block()) {
        Ok(Some(directory)) => directory.add(block.block(), &cover, &between, ctl, &mut graph),
        Ok(None) => return Ok(false),
        Err(error) => Err(error),
    };
    match summed {
        Ok(()) => {}
        Err(Error::CorruptBlock { .. }) => return Ok(false),
        Err(error) => return Err(error),
    }
    take_off(block, gone, whole, filter, ctl, &mut graph)?;
    add_resolved(part, block, hidden, whole, filter, ctl, &mut graph)?;
    for rest in cover.rest {
        let of_rest = filter.within(rest);
        let rows = part.select(&of_rest.spans(filter.callee.as_deref()), ctl)?;
        each_step(&rows, |rows| {
            add_calls(part, &of_rest, rows, ctl, &mut graph)
        })?;
    }
    into.merge(graph);
    Ok(true)
}

/// A range that holds the same rows, and more whole minutes if it can.
fn widened(range: TimeRange, bounds: TimeRange) -> TimeRange {
    let start = if range.start() <= bounds.start() {
        Timestamp::MIN
    } else {
        range.start()
    };
    let end = if range.end() >= bounds.end() {
        Timestamp::MAX
    } else {
        range.end()
    };
    TimeRange::new(start, end).unwrap_or(range)
}

/// Takes off what the block's own columns say of rows that start in `whole`.
fn take_off(
    block: &SpanBlock,
    gone: &RoaringBitmap,
    whole: TimeRange,
    filter: &EdgeFilter,
    ctl: &QueryControl,
    graph: &mut EdgeGraph,
) -> Result<(), Error> {
    let mut child = RowCursor::new(block);
    let mut above = RowCursor::new(block);
    let mut slots: HashMap<(u32, u32), Option<EdgeSlot>> = HashMap::new();
    let symbol = |symbol: u32| block.symbols().get(symbol as usize).map_or("", |text| text);
    for (seen, row) in gone.iter().enumerate() {
        if seen.is_multiple_of(CHECK_ROWS) {
            ctl.check()?;
            ctl.count_spans(
                gone.len()
                    .saturating_sub(seen as u64)
                    .min(CHECK_ROWS as u64),
            )?;
        }
        let Some(parent) = child.parent(row)? else {
            continue;
        };
        let classes = block.classes();
        let own = classes.get(child.class(row)? as usize);
        let parent = classes.get(above.class(parent)? as usize);
        let (Some(own), Some(parent)) = (own, parent) else {
            continue;
        };
        let start = Timestamp::from_nanos(child.start_ns(row)?);
        if own.service == parent.service || !whole.contains(start) {
            continue;
        }
        let slot = *slots
            .entry((parent.service, own.service))
            .or_insert_with(|| {
                let (caller, callee) = (symbol(parent.service), symbol(own.service));
                let wanted = filter.is_between(caller, callee);
                wanted.then(|| graph.slot(EdgeKind::Call, caller, callee, ""))
            });
        if let Some(sums) = slot.and_then(|slot| graph.sums_mut(slot)) {
            sums.remove(child.duration_ns(row)?, own.status == StatusCode::Error);
        }
    }
    Ok(())
}

/// Adds the calls among the visible rows of traces of which others are hidden.
fn add_resolved(
    part: &SpanPart,
    block: &SpanBlock,
    hidden: &Hidden,
    whole: TimeRange,
    filter: &EdgeFilter,
    ctl: &QueryControl,
    graph: &mut EdgeGraph,
) -> Result<(), Error> {
    let mut left = RoaringBitmap::new();
    for trace in &hidden.partial {
        left.insert_range(block.trace_rows(trace)?);
    }
    left -= &hidden.rows;
    let mut inside = SpanRows::new();
    each_step(&SpanRows::from_bitmap(left), |rows| {
        let mut starts = Vec::new();
        part.starts(rows, ctl, &mut starts)?;
        for (row, start) in rows.iter().zip(starts) {
            if whole.contains(Timestamp::from_nanos(start)) {
                inside.insert(row);
            }
        }
        Ok(())
    })?;
    each_step(&inside, |rows| {
        add_calls(part, &filter.within(whole), rows, ctl, graph)
    })
}

/// Calls `each` with every link of rows: the row, the trace and the span pointed to, zeros for what was
/// not sent.
pub(in crate::span) fn each_link(
    block: &SpanBlock,
    rows: &SpanRows,
    ctl: &QueryControl,
    each: &mut dyn FnMut(u32, [u8; 16], [u8; 8]),
) -> Result<(), Error> {
    let rows = rows.as_bitmap();
    let (Some(links), Some(first), Some(last)) = (block.links(), rows.min(), rows.max()) else {
        return Ok(());
    };
    let container = block.block();
    let mut cursor = SatelliteCursor::default();
    let mut of_fields = AttributeCursor::default();
    let mut fields = Attributes::new();
    let items = links.items_of(container, first..last.saturating_add(1), &mut cursor)?;
    for (seen, item) in items.enumerate() {
        if seen.is_multiple_of(CHECK_ROWS) {
            ctl.check()?;
        }
        let row = links.row(container, item, &mut cursor)?;
        if !rows.contains(row) {
            continue;
        }
        fields.clear();
        links
            .fields()
            .attributes(item, &mut of_fields, &mut fields)?;
        let bytes = |wanted: &str| {
            let mut found = fields.iter().filter(|(key, _)| &**key == wanted);
            found.next().and_then(|(_, value)| match value {
                Value::Bytes(bytes) => Some(&**bytes),
                _ => None,
            })
        };
        let trace = bytes(satellites::TRACE).and_then(|id| id.try_into().ok());
        let span = bytes(satellites::SPAN).and_then(|id| id.try_into().ok());
        each(row, trace.unwrap_or_default(), span.unwrap_or_default());
    }
    Ok(())
}

/// Calls `each` with every visible span of a trace: its id, its start and its class.
pub(in crate::span) fn each_span_of(
    block: &SpanBlock,
    hidden: &Hidden,
    id: TraceId,
    ctl: &QueryControl,
    each: &mut dyn FnMut([u8; 8], i64, u32),
) -> Result<(), Error> {
    if !block.may_have_trace(id) {
        return Ok(());
    }
    let Some(trace) = block.find_trace(id)? else {
        return Ok(());
    };
    let rows = block.trace_rows(trace)?;
    if hidden.hides_all(rows.clone()) {
        return Ok(());
    }
    let mut cursor = RowCursor::new(block);
    let mut ids = Vec::new();
    for first in rows.clone().step_by(CHECK_ROWS) {
        ctl.check()?;
        let step = first
            ..rows
                .end
                .min(first.saturating_add(super::number(CHECK_ROWS)));
        ids.clear();
        ids.resize(step.len(), [0; 8]);
        block.span_ids(first, &mut ids)?;
        for (row, id) in step.zip(&ids) {
            if !hidden.rows.contains(row) {
                each(*id, cursor.start_ns(row)?, cursor.class(row)?);
            }
        }
    }
    Ok(())
}
