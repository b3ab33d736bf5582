//! A span as a search answers it: numbers and symbols, nothing owned.

use hashbrown::HashMap;
use parking_lot::RwLock;

use super::{
    catalog::{Catalog, SymbolId, Tables},
    model::{SpanKind, StatusCode},
    parents::NO_PARENT,
    read,
    shard::{Shard, View},
};
use crate::{
    control::QueryControl,
    error::Error,
    id::{SpanId, TraceId},
    time::Timestamp,
};

/// Rows of odd traces whose parents a scan remembers.
const REMEMBERED_ROWS_MAX: usize = 1 << 20;

/// A span that satisfies a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpanHit {
    /// Its trace.
    pub trace_id: TraceId,
    /// Its id.
    pub span_id: SpanId,
    /// The id of the span that caused it, as sent.
    pub parent_span_id: Option<SpanId>,
    /// Name of the operation.
    pub name: SymbolId,
    /// Its service; the empty text if its resource does not say it.
    pub service: SymbolId,
    /// The service of its parent by the parent rule; `None` if it has none in the snapshot. If it
    /// differs from `service`, the span is an edge.
    pub parent_service: Option<SymbolId>,
    /// When it began.
    pub start: Timestamp,
    /// How long it took.
    pub duration_ns: u64,
    /// Role in a call.
    pub kind: SpanKind,
    /// How it ended.
    pub status: StatusCode,
}

impl SpanHit {
    /// When it ended.
    pub fn end(&self) -> Timestamp {
        Timestamp::from_nanos(
            self.start
                .as_nanos()
                .wrapping_add_unsigned(self.duration_ns),
        )
    }
}

/// A row of an odd trace, whose parent only the whole trace tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OddRow {
    trace: u32,
    row: u32,
}

/// A row as a hit. If its trace is odd, its parent is still open.
pub(crate) fn hit_of(
    shard: &Shard,
    tables: &Tables,
    row: u32,
    view: View,
) -> Option<(SpanHit, Option<OddRow>)> {
    let ident = shard.idents.get(row)?;
    let class = &shard.class_entry(row)?.class;
    let trace = shard.traces.get(ident.trace)?;
    let service_of = |resource: u32| {
        tables
            .resources
            .get(resource as usize)
            .map(|entry| entry.service)
    };
    let parent = ident
        .first_parent()
        .filter(|&p| !trace.odd && shard.is_visible(p, view));
    let parent_class = parent.and_then(|parent| shard.class_entry(parent));
    let hit = SpanHit {
        trace_id: trace.id,
        span_id: SpanId::new(ident.span_id)?,
        parent_span_id: SpanId::new(ident.parent_id),
        name: class.name,
        service: service_of(class.resource)?,
        parent_service: parent_class.and_then(|entry| service_of(entry.class.resource)),
        start: Timestamp::from_nanos(*shard.starts.get(row)?),
        duration_ns: *shard.durations.get(row)?,
        kind: class.kind,
        status: class.status,
    };
    let open = trace.odd && hit.parent_span_id.is_some();
    Some((
        hit,
        open.then_some(OddRow {
            trace: ident.trace,
            row,
        }),
    ))
}

/// Parents of odd traces, found once per trace and scan.
#[derive(Debug, Default)]
pub(crate) struct OddTraces {
    /// By trace: rows, rising, with the service of their parent.
    known: HashMap<u32, Vec<(u32, Option<SymbolId>)>>,
    rows: usize,
}

impl OddTraces {
    /// The service of the parent of a row.
    pub(crate) fn parent_service(
        &mut self,
        shard: &RwLock<Shard>,
        catalog: &Catalog,
        view: View,
        place: OddRow,
        ctl: &QueryControl,
    ) -> Result<Option<SymbolId>, Error> {
        if !self.known.contains_key(&place.trace) {
            if self.rows > REMEMBERED_ROWS_MAX {
                self.known.clear();
                self.rows = 0;
            }
            let light = read::light_rows(shard, catalog, place.trace, view, ctl)?;
            let parents = read::parents(shard, catalog, &light, true);
            let services = light
                .iter()
                .zip(parents)
                .map(|(row, parent)| {
                    let parent = (parent != NO_PARENT).then(|| light.get(parent as usize));
                    (row.row, parent.flatten().map(|parent| parent.node.service))
                })
                .collect::<Vec<_>>();
            self.rows += services.len();
            self.known.insert(place.trace, services);
        }
        let rows = self
            .known
            .get(&place.trace)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let found = rows.binary_search_by_key(&place.row, |&(row, _)| row).ok();
        Ok(found
            .and_then(|i| rows.get(i))
            .and_then(|&(_, service)| service))
    }
}
