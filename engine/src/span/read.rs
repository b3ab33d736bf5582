//! Reading whole traces: their rows, their parents, their spans, their summary.
//!
//! All of it is linear in the spans of the trace, iterative, and takes the shard's lock for at most
//! `CHECK_ROWS` rows at a time.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::RwLock;
#[cfg(test)]
use rootline_wal::Lsn;

use super::{
    catalog::Catalog,
    column::PAGE_ROWS,
    dictionary::number,
    model::{ServiceCount, Span, StatusCode, Trace, TraceSummary},
    parents::{self, NO_PARENT, Node},
    shard::{Buffers, NONE, Shard, View},
};
use crate::{
    budget::{Budget, Holder},
    control::{CHECK_ROWS, QueryControl},
    error::Error,
    id::TraceId,
    time::Timestamp,
};

/// What a span of an answer is taken to need while the answer is put together.
const ANSWER_SPAN_BYTES: u64 = 1024;

/// A row without its attributes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LightRow {
    pub(crate) row: u32,
    pub(crate) node: Node,
    pub(crate) duration_ns: u64,
    name: u32,
    status: StatusCode,
    /// What the row's own link says, if nothing of the trace is odd.
    linked: u32,
}

/// The visible rows of a trace, rising.
pub(crate) fn light_rows(
    shard: &RwLock<Shard>,
    catalog: &Catalog,
    trace: u32,
    view: View,
    ctl: &QueryControl,
) -> Result<Vec<LightRow>, Error> {
    let mut light = Vec::new();
    let mut next = {
        let shard = shard.read();
        shard.traces.get(trace).map_or(NONE, |entry| entry.first)
    };
    while next < view.rows {
        ctl.check()?;
        let shard = shard.read();
        let tables = catalog.read();
        for _ in 0..CHECK_ROWS {
            if next >= view.rows {
                break;
            }
            if shard.is_visible(next, view) {
                light.extend(light_row(&shard, &tables, next));
            }
            next = shard.next_of_trace(next);
        }
    }
    ctl.count_spans(light.len() as u64)?;
    Ok(light)
}

fn light_row(shard: &Shard, tables: &super::catalog::Tables, row: u32) -> Option<LightRow> {
    let ident = shard.idents.get(row)?;
    let class = &shard.class_entry(row)?.class;
    let service = tables.resources.get(class.resource as usize)?.service;
    Some(LightRow {
        row,
        node: Node {
            span_id: ident.span_id,
            parent_id: ident.parent_id,
            start_ns: *shard.starts.get(row)?,
            service,
            called_side: class.kind.is_called_side(),
        },
        duration_ns: *shard.durations.get(row)?,
        name: class.name,
        status: class.status,
        linked: ident.first_parent().unwrap_or(NO_PARENT),
    })
}

/// The parents of a trace's rows, as places in `light`.
pub(crate) fn parents(
    shard: &RwLock<Shard>,
    catalog: &Catalog,
    light: &[LightRow],
    odd: bool,
) -> Vec<u32> {
    if odd {
        let nodes: Vec<Node> = light.iter().map(|row| row.node).collect();
        let mut buffers = Buffers::default();
        return parents::resolve(&nodes, |i| {
            let row = light.get(i as usize).map_or(NONE, |row| row.row);
            let span = shard.read().span(row, &catalog.read(), &mut buffers);
            span.map_or(0, |span| span.content_hash())
        });
    }
    // Every id has one row and every parent starts before its child: the links are the rule.
    let place = |row: u32| {
        let found = light.binary_search_by_key(&row, |light| light.row);
        found.map_or(NO_PARENT, number)
    };
    light.iter().map(|row| place(row.linked)).collect()
}

/// The trace, whole.
#[cfg(test)]
pub(crate) fn trace(
    lock: &RwLock<Shard>,
    catalog: &Catalog,
    budget: &Arc<Budget>,
    at: Lsn,
    id: TraceId,
    ctl: &QueryControl,
) -> Result<Option<Trace>, Error> {
    match find(lock, at, id) {
        Some((place, view, _)) => trace_of(lock, catalog, budget, place, view, ctl),
        None => Ok(None),
    }
}

/// The same for a trace by its number.
pub(crate) fn trace_of(
    lock: &RwLock<Shard>,
    catalog: &Catalog,
    budget: &Arc<Budget>,
    place: u32,
    view: View,
    ctl: &QueryControl,
) -> Result<Option<Trace>, Error> {
    let entry = lock
        .read()
        .traces
        .get(place)
        .map(|entry| (entry.id, entry.odd));
    let Some((id, odd)) = entry else {
        return Ok(None);
    };
    let light = light_rows(lock, catalog, place, view, ctl)?;
    if light.is_empty() {
        return Ok(None);
    }
    let _held = budget.reserve(Holder::Queries, light.len() as u64 * ANSWER_SPAN_BYTES)?;
    let by_row = parents(lock, catalog, &light, odd);
    let mut spans: Vec<Span> = Vec::with_capacity(light.len());
    let mut buffers = Buffers::default();
    for slice in light.chunks(CHECK_ROWS / 4) {
        ctl.check()?;
        let shard = lock.read();
        let tables = catalog.read();
        spans.extend(
            slice
                .iter()
                .filter_map(|row| shard.span(row.row, &tables, &mut buffers)),
        );
    }
    let order = order_of(&spans);
    let mut place_of = vec![NO_PARENT; spans.len()];
    for (&from, to) in order.iter().zip(0u32..) {
        if let Some(place) = place_of.get_mut(from as usize) {
            *place = to;
        }
    }
    let parent_of = |from: u32| {
        let parent = by_row.get(from as usize).copied().unwrap_or(NO_PARENT);
        place_of.get(parent as usize).copied()
    };
    let parents = order.iter().map(|&from| parent_of(from)).collect();
    let mut taken: Vec<Option<Span>> = spans.into_iter().map(Some).collect();
    let spans = order
        .iter()
        .filter_map(|&from| taken.get_mut(from as usize)?.take())
        .collect();
    Ok(Some(Trace { id, spans, parents }))
}

/// Places sorted by (start, span id, content hash).
fn order_of(spans: &[Span]) -> Vec<u32> {
    let key = |i: u32| spans.get(i as usize).map(|span| (span.start, span.span_id));
    let mut order: Vec<u32> = (0..number(spans.len())).collect();
    order.sort_unstable_by_key(|&i| key(i));
    // Only twins that start together need the hash.
    for group in order
        .chunk_by_mut(|&a, &b| key(a) == key(b))
        .filter(|group| group.len() > 1)
    {
        group.sort_by_cached_key(|&i| spans.get(i as usize).map(Span::content_hash));
    }
    order
}

/// The trace in short.
#[cfg(test)]
pub(crate) fn summary(
    lock: &RwLock<Shard>,
    catalog: &Catalog,
    at: Lsn,
    id: TraceId,
    ctl: &QueryControl,
) -> Result<Option<TraceSummary>, Error> {
    let Some((place, view, odd)) = find(lock, at, id) else {
        return Ok(None);
    };
    summary_of(lock, catalog, place, id, view, odd, ctl)
}

/// A trace in short, by its number.
pub(crate) fn summary_of(
    lock: &RwLock<Shard>,
    catalog: &Catalog,
    place: u32,
    id: TraceId,
    view: View,
    odd: bool,
    ctl: &QueryControl,
) -> Result<Option<TraceSummary>, Error> {
    let light = light_rows(lock, catalog, place, view, ctl)?;
    let parents = parents(lock, catalog, &light, odd);
    let mut services: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    let (mut start, mut end, mut errors) = (i64::MAX, i64::MIN, 0);
    let mut root: Option<&LightRow> = None;
    for (row, parent) in light.iter().zip(parents) {
        let error = u64::from(row.status == StatusCode::Error);
        let count = services.entry(row.node.service).or_default();
        *count = (count.0 + 1, count.1 + error);
        errors += error;
        start = start.min(row.node.start_ns);
        end = end.max(row.node.start_ns.wrapping_add_unsigned(row.duration_ns));
        let key = |row: &LightRow| (row.node.start_ns, row.node.span_id);
        let earlier = |root: &LightRow| match key(row).cmp(&key(root)) {
            std::cmp::Ordering::Equal => {
                let hash = |row: u32| content_hash(lock, catalog, row);
                hash(row.row) < hash(root.row)
            }
            order => order.is_lt(),
        };
        if parent == NO_PARENT && root.is_none_or(earlier) {
            root = Some(row);
        }
    }
    let Some(root) = root else { return Ok(None) };
    let tables = catalog.read();
    let mut services: Vec<ServiceCount> = services
        .into_iter()
        .map(|(service, (spans, errors))| ServiceCount {
            service: tables.symbol(service),
            spans,
            errors,
        })
        .collect();
    services.sort_unstable_by(|a, b| a.service.cmp(&b.service));
    Ok(Some(TraceSummary {
        id,
        root_service: tables.symbol(root.node.service),
        root_name: tables.symbol(root.name),
        root_is_orphan: root.node.parent_id != [0; 8],
        start: Timestamp::from_nanos(start),
        end: Timestamp::from_nanos(end),
        spans: light.len() as u64,
        errors,
        services,
    }))
}

fn content_hash(lock: &RwLock<Shard>, catalog: &Catalog, row: u32) -> u128 {
    let span = lock
        .read()
        .span(row, &catalog.read(), &mut Buffers::default());
    span.map_or(0, |span| span.content_hash())
}

/// A trace's number, what the snapshot sees of the shard, whether the trace is odd.
#[cfg(test)]
fn find(lock: &RwLock<Shard>, at: Lsn, id: TraceId) -> Option<(u32, View, bool)> {
    let shard = lock.read();
    let place = shard.find_trace(id)?;
    let odd = shard.traces.get(place)?.odd;
    Some((place, shard.view(at), odd))
}

/// Widens the bounds by the page that begins at `row`; returns where the next one begins.
pub(crate) fn page_bounds(
    shard: &Shard,
    view: View,
    row: u32,
    widen: &mut impl FnMut(i64, i64),
) -> u32 {
    let next = row.saturating_add(number(PAGE_ROWS));
    let bounds = shard.bounds.get(row / number(PAGE_ROWS));
    if let Some(bounds) = bounds
        && next <= view.rows
        && !shard.has_deletes()
    {
        widen(bounds.start_min, bounds.end_max);
        return next;
    }
    for row in (row..next.min(view.rows)).filter(|&row| shard.is_visible(row, view)) {
        if let (Some(&start), Some(&duration)) = (shard.starts.get(row), shard.durations.get(row)) {
            widen(start, start.wrapping_add_unsigned(duration));
        }
    }
    next
}
