//! Recall: a trace that goes on moves, whole, to the newest part of the store.
//!
//! When a batch brings spans of a trace that the current generation does not have, and an older part
//! has visible spans of it, those are read there and applied together with the new ones: as rows of
//! the current generation, at the LSN of the batch. From that LSN on what the older part has of the
//! trace is *superseded*: hidden as if it had been deleted. So every visible trace lies whole in exactly
//! one part, whatever came when, and no query puts traces together.
//!
//! Recalled rows are neither logged nor acknowledged again. Until the generation is sealed the older
//! part keeps them for replay, which recalls anew; the block that is sealed lists the traces, and whoever
//! opens blocks hides them in all older ones.
//!
//! In a write:
//! 1. While the batch is prepared, its traces that the current generation lacks are looked for in the
//!    older parts, newest first, as of the watermark `r`. What is found is read; no lock is held.
//! 2. Spans of the batch that repeat older ones add nothing. A trace of which all spans are repeats is
//!    not recalled: nothing of it is applied.
//! 3. When the batch gets its LSN `l`, under the commit lock: if a delete of spans has got an LSN
//!    above `r`, 1 and 2 are done again once that delete is visible.
//! 4. Each shard applies the recalled rows, then those of the batch, and the same lane marks the trace
//!    superseded in the frozen generations. Blocks look it up in the current generation.
//!
//! Why that is right
//! - *What was read at `r` is what there is at `l`.* An older part gets no rows. Its rows go by deletes,
//!   which 3 excludes; by retention, of traces that are whole below the floor, see below; by being
//!   superseded, which is the next point.
//! - *Two batches recall one trace at once.* Both read the same rows of the same part. The lane applies
//!   the one with the lower LSN first; the rows of the other are repeats of visible rows and are not
//!   stored again. If a delete comes between the two, 3 has the second read again, and it finds the
//!   trace in the current generation, where the delete has left what it should.
//! - *Two batches bring one new trace at once.* Neither finds it anywhere; both go to the same shard.
//! - *Freezing* takes the writers' lock whole, so no write stands between 1 and 4, and the current
//!   generation is the same in all four. *Sealing* and *compaction* meanwhile put a block in the place
//!   of a part with the same rows, less what was deleted; the view that 1 read from is kept alive.
//! - *Snapshots older than `l`* see neither the recalled rows nor that the older ones are hidden: both
//!   are told by `l`.
//! - *Replay* takes the records behind the cut in the same order into one generation. A trace is recalled
//!   when its first spans come, from the blocks as they are, less what deletes before that record hide.
//!   What deletes after it have physically removed meanwhile is missed, and then deleted again: the same
//!   in the end. A block keeps rows that an unsealed generation has recalled, even expired ones, and
//!   replay does not ask the floor: so it finds at least what was recalled. (It may find more: a trace
//!   that went on after all of it had expired has its expired spans again, until they are removed.)
//! - *A deleted span that is sent again* is found nowhere, so it is stored.
//! - *Damage:* what cannot be read is not recalled. The trace then lies in two parts, and answers over it
//!   are incomplete, as the damage that is reported says.

use std::{collections::HashSet, sync::Arc};

use rootline_wal::Lsn;

use super::{
    SpanBatch, SpanHead, SpanView,
    batch::{LinkFields, ResourceFields, ResourceRow, Row, ScopeFields, ScopeRow, SpanFields},
    head::{PreparedSpans, Recall},
    model::{Attributes, Resource, Scope, Span, Trace},
    view::Damaged,
};
use crate::{
    control::QueryControl,
    error::{Error, ErrorKind},
    id::TraceId,
    outcome::Rejections,
    time::Timestamp,
    value::ValueRef,
};

/// What a span must satisfy beyond being well formed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission {
    /// Spans of one trace.
    pub(crate) trace_spans_max: u64,
}

/// Leaves out spans that end before the floor of retention, and those of traces that are full.
///
/// # Errors
/// [`Error::Storage`]. A trace whose size cannot be read is taken for small.
pub(crate) fn admit(
    view: &SpanView,
    current: &SpanHead,
    admission: Admission,
    batch: &mut SpanBatch,
    rejections: &mut Rejections,
) -> Result<(), Error> {
    if let Some(floor_ns) = view.floor_ns {
        let end_ns = |row: &Row| row.start_ns.wrapping_add_unsigned(row.duration_ns);
        if batch.data.rows.iter().any(|row| end_ns(row) < floor_ns) {
            batch.data.retain_rows(|row| {
                let end_ns = end_ns(row);
                if end_ns < floor_ns {
                    let end = Timestamp::from_nanos(end_ns);
                    let floor = Timestamp::from_nanos(floor_ns);
                    rejections.reject_spans(1, Error::SpanTooOld { end, floor });
                }
                end_ns >= floor_ns
            });
        }
    }
    let max = admission.trace_spans_max;
    let new = batch.len() as u64;
    if view.spans_in_largest_part(current).saturating_add(new) <= max {
        return Ok(());
    }
    let mut room = Vec::with_capacity(batch.data.traces.len());
    for id in &batch.data.traces {
        let held = match current.trace_rows(*id) {
            Some(rows) => u64::from(rows),
            None => view.trace_rows(*id)?,
        };
        room.push(max.saturating_sub(held));
    }
    let traces = batch.data.traces.clone();
    batch.data.retain_rows(|row| {
        let Some(room) = room.get_mut(row.trace as usize) else {
            return true;
        };
        if *room == 0
            && let Some(&id) = traces.get(row.trace as usize)
        {
            rejections.reject_spans(1, Error::TraceTooLarge { id, max });
            return false;
        }
        *room = room.saturating_sub(1);
        true
    });
    Ok(())
}

/// Looks for the traces of a batch in the parts older than `current`, as of `at`.
///
/// # Errors
/// [`Error::MemoryFull`] for traces that do not fit. Damage goes to `damaged`.
pub(crate) fn recall(
    view: &SpanView,
    at: Lsn,
    current: &SpanHead,
    batch: &PreparedSpans,
    damaged: Damaged<'_>,
) -> Result<Recall, Error> {
    if view.is_young() || batch.span_count() == 0 {
        return Ok(Recall::default());
    }
    let unknown = current.unknown(batch);
    recall_traces(view, at, current, batch, &unknown, damaged)
}

/// The same for these traces of the batch.
///
/// # Errors
/// As [`recall`].
pub(crate) fn recall_traces(
    view: &SpanView,
    at: Lsn,
    current: &SpanHead,
    batch: &PreparedSpans,
    unknown: &[TraceId],
    damaged: Damaged<'_>,
) -> Result<Recall, Error> {
    let mut found = Vec::new();
    for &id in unknown {
        match read(view, at, id, damaged) {
            Ok(trace) => found.extend(trace),
            Err(error) if error.kind() == ErrorKind::Corrupted => damaged(error),
            Err(error) => return Err(error),
        }
    }
    if found.is_empty() {
        return Ok(Recall::default());
    }
    let repeated = repeated(&found, batch)?;
    let recalled = found
        .iter()
        .filter(|trace| repeated.binary_search(&trace.id).is_err());
    let traces: Vec<TraceId> = recalled.clone().map(|trace| trace.id).collect();
    let spans = if traces.is_empty() {
        None
    } else {
        let mut spans = batch_of(recalled)?;
        Some(Box::new(current.prepare_recalled(&mut spans)))
    };
    Ok(Recall {
        traces,
        spans,
        repeated,
        read_at: Some(at),
    })
}

/// The trace as the newest older part has it.
fn read(
    view: &SpanView,
    at: Lsn,
    id: TraceId,
    damaged: Damaged<'_>,
) -> Result<Option<Trace>, Error> {
    let ctl = QueryControl::unbounded();
    for frozen in view.frozen.iter().rev() {
        if let Some(trace) = frozen.head.trace(at, id, &ctl)? {
            return Ok(Some(trace));
        }
    }
    for part in view.blocks.iter().rev() {
        let block = &part.block;
        if !block.may_have_trace(id) {
            continue;
        }
        let Some(trace) = block.find_trace(id)? else {
            continue;
        };
        let hidden = part.hidden(view, at, damaged)?;
        if !hidden.hides_all(block.trace_rows(trace)?) {
            return block.trace(trace, &hidden, &ctl).map(Some);
        }
    }
    Ok(None)
}

/// Those of the traces of which the batch has no span that is not there already, sorted.
fn repeated(found: &[Trace], batch: &PreparedSpans) -> Result<Vec<TraceId>, Error> {
    let data = batch.data();
    let known: HashSet<(TraceId, [u8; 8])> = found
        .iter()
        .flat_map(|trace| &trace.spans)
        .map(|span| (span.trace_id, *span.span_id.as_bytes()))
        .collect();
    // A trace with a span id that was not there is not repeated: that settles most.
    let mut candidates: HashSet<TraceId> = found.iter().map(|trace| trace.id).collect();
    for row in &data.rows {
        if let Some(&id) = data.traces.get(row.trace as usize)
            && !known.contains(&(id, row.span_id))
        {
            candidates.remove(&id);
        }
    }
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    // The rest is tried out: the head knows what is equal.
    let traces = found.iter().filter(|trace| candidates.contains(&trace.id));
    let mut spans = batch_of(traces)?;
    let mut repeated: Vec<TraceId> = candidates.iter().copied().collect();
    repeated.sort_unstable();
    let grown = SpanHead::try_out(&mut spans, batch, &repeated);
    repeated.retain(|id| !grown.contains(id));
    Ok(repeated)
}

/// The spans of traces as a batch.
fn batch_of<'t>(traces: impl Iterator<Item = &'t Trace>) -> Result<SpanBatch, Error> {
    let mut batch = SpanBatch::new();
    let mut owners = Owners::default();
    for span in traces.flat_map(|trace| &trace.spans) {
        push(&mut batch, &mut owners, span)?;
    }
    Ok(batch)
}

/// The rows of the owners of the span before: most spans share them with it.
#[derive(Default)]
struct Owners {
    resource: Option<(Arc<Resource>, ResourceRow)>,
    scope: Option<(Arc<Scope>, ScopeRow)>,
}

fn refs(attributes: &Attributes) -> Vec<(&str, ValueRef<'_>)> {
    let refs = attributes.iter();
    refs.map(|(key, value)| (&**key, value.as_ref())).collect()
}

fn push(batch: &mut SpanBatch, owners: &mut Owners, span: &Span) -> Result<(), Error> {
    let resource = match &owners.resource {
        Some((of, row)) if Arc::ptr_eq(of, &span.resource) => *row,
        _ => {
            let row = batch.resource(&ResourceFields {
                attributes: &refs(&span.resource.attributes),
                dropped_attributes_count: span.resource.dropped_attributes_count,
                schema_url: &span.resource.schema_url,
                entity_refs: &span.resource.entity_refs,
            })?;
            owners.resource = Some((Arc::clone(&span.resource), row));
            row
        }
    };
    let scope = match &owners.scope {
        Some((of, row)) if Arc::ptr_eq(of, &span.scope) => *row,
        _ => {
            let row = batch.scope(&ScopeFields {
                name: &span.scope.name,
                version: &span.scope.version,
                attributes: &refs(&span.scope.attributes),
                dropped_attributes_count: span.scope.dropped_attributes_count,
                schema_url: &span.scope.schema_url,
            })?;
            owners.scope = Some((Arc::clone(&span.scope), row));
            row
        }
    };
    let mut writer = batch.span(resource, scope);
    for (key, value) in &span.attributes {
        writer.attribute(key, value.as_ref());
    }
    for event in &span.events {
        writer.event(event.time, &event.name, event.dropped_attributes_count);
        for (key, value) in &event.attributes {
            writer.event_attribute(key, value.as_ref());
        }
    }
    for link in &span.links {
        writer.link(&LinkFields {
            trace_id: link.trace_id,
            span_id: link.span_id,
            trace_state: &link.trace_state,
            flags: link.flags,
            dropped_attributes_count: link.dropped_attributes_count,
        });
        for (key, value) in &link.attributes {
            writer.link_attribute(key, value.as_ref());
        }
    }
    writer.finish(&SpanFields {
        parent_span_id: span.parent_span_id,
        kind: span.kind,
        status: span.status,
        status_message: &span.status_message,
        trace_state: &span.trace_state,
        flags: span.flags,
        dropped_attributes_count: span.dropped_attributes_count,
        dropped_events_count: span.dropped_events_count,
        dropped_links_count: span.dropped_links_count,
        ..SpanFields::new(
            span.trace_id,
            span.span_id,
            &span.name,
            span.start,
            span.end,
        )
    })
}
