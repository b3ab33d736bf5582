//! A whole trace of a block, as the spans it was sent as.
//!
//! Each group and each owner is decoded once. Linear in the spans of the trace, whatever its shape.

use std::{collections::HashMap, ops::Range, sync::Arc};

use super::{
    super::{
        dictionary::number,
        hidden::Hidden,
        model::{Attributes, Event, Link, Resource, Scope, Span, Trace},
        parents::{self, NO_PARENT, Node},
    },
    attributes::AttributeCursor,
    owners::ClassRow,
    reader::{RowCursor, SpanBlock},
    satellites::{self, SatelliteCursor, Satellites},
    writer::Go,
};
use crate::{
    block::SectionKind,
    control::{CHECK_ROWS, QueryControl},
    error::Error,
    id::{SpanId, TraceId},
    time::Timestamp,
    value::Value,
};

impl SpanBlock {
    /// The visible spans of a trace with their parents, as [`Trace`] has them; none of a trace that is
    /// hidden whole.
    pub(crate) fn trace(
        &self,
        trace: u32,
        hidden: &Hidden,
        ctl: &QueryControl,
    ) -> Result<Trace, Error> {
        let rows = self.trace_rows(trace)?;
        ctl.count_spans(u64::from(rows.end - rows.start))?;
        self.read_trace(trace, rows, hidden, &mut || ctl.check())
    }

    /// The same for whoever is not a query.
    pub(super) fn read_trace(
        &self,
        trace: u32,
        rows: Range<u32>,
        hidden: &Hidden,
        go: Go<'_>,
    ) -> Result<Trace, Error> {
        let id = self.trace_id(trace)?;
        let visible: Vec<u32> = rows
            .clone()
            .filter(|&row| !hidden.rows.contains(row))
            .collect();
        let mut reader = SpanReader::new(self, id, &rows)?;
        let mut spans = Vec::new();
        let mut linked = Vec::new();
        for rows in visible.chunks(CHECK_ROWS) {
            go()?;
            for &row in rows {
                let parent = reader.rows.parent(row)?;
                let parent = parent.and_then(|parent| visible.binary_search(&parent).ok());
                linked.push(parent.map_or(NO_PARENT, number));
                spans.push(reader.span(row)?);
            }
        }
        if visible.len() < rows.len() {
            linked = resolved(&spans);
        }
        Ok(sorted(id, spans, &linked))
    }
}

/// A trace of spans whose parents are found by the rule.
pub(super) fn whole_trace(id: TraceId, spans: Vec<Span>) -> Trace {
    let linked = resolved(&spans);
    sorted(id, spans, &linked)
}

/// The parents of spans by the rule, as places.
fn resolved(spans: &[Span]) -> Vec<u32> {
    let mut services: HashMap<&str, u32> = HashMap::new();
    let nodes: Vec<Node> = spans
        .iter()
        .map(|span| {
            let next = number(services.len());
            Node {
                span_id: *span.span_id.as_bytes(),
                parent_id: span.parent_span_id.map_or([0; 8], |id| *id.as_bytes()),
                start_ns: span.start.as_nanos(),
                service: *services.entry(span.service()).or_insert(next),
                called_side: span.kind.is_called_side(),
            }
        })
        .collect();
    parents::resolve(&nodes, |place| {
        spans.get(place as usize).map_or(0, Span::content_hash)
    })
}

/// Puts spans in the order of a [`Trace`]: by (start, id, content hash).
fn sorted(id: TraceId, spans: Vec<Span>, linked: &[u32]) -> Trace {
    let mut spans: Vec<(Span, u32)> = spans.into_iter().zip(0u32..).collect();
    let key = |span: &Span| (span.start, span.span_id);
    spans.sort_unstable_by_key(|(span, _)| key(span));
    for twins in spans.chunk_by_mut(|(a, _), (b, _)| key(a) == key(b)) {
        if twins.len() > 1 {
            twins.sort_by_cached_key(|(span, _)| span.content_hash());
        }
    }
    let mut place_of = vec![NO_PARENT; spans.len()];
    for ((_, from), to) in spans.iter().zip(0u32..) {
        if let Some(place) = place_of.get_mut(*from as usize) {
            *place = to;
        }
    }
    let parent_of = |from: u32| {
        let parent = linked.get(from as usize).copied().unwrap_or(NO_PARENT);
        place_of.get(parent as usize).copied()
    };
    let parents = spans.iter().map(|(_, from)| parent_of(*from)).collect();
    let spans = spans.into_iter().map(|(span, _)| span).collect();
    Trace { id, spans, parents }
}

/// Reads the spans of one trace. Rows are asked for in rising order.
pub(crate) struct SpanReader<'b> {
    block: &'b SpanBlock,
    rows: RowCursor<'b>,
    trace: TraceId,
    first_row: u32,
    span_ids: Vec<[u8; 8]>,
    /// Rows with a parent that is not here, rising, and its id.
    orphans: Vec<(u32, [u8; 8])>,
    resources: HashMap<u32, Arc<Resource>>,
    scopes: HashMap<u32, Arc<Scope>>,
    attributes: AttributeCursor,
    extras: Option<ItemReader<'b>>,
    events: Option<ItemReader<'b>>,
    links: Option<ItemReader<'b>>,
}

/// Reads the items of the rows of one trace, which are asked for in rising order.
struct ItemReader<'b> {
    block: &'b SpanBlock,
    items: &'b Satellites,
    cursor: SatelliteCursor,
    /// Not read yet.
    left: Range<u32>,
    fields: Attributes,
    attributes: Attributes,
}

impl<'b> ItemReader<'b> {
    fn new(
        block: &'b SpanBlock,
        items: Option<&'b Satellites>,
        rows: &Range<u32>,
    ) -> Result<Option<Self>, Error> {
        let Some(items) = items else { return Ok(None) };
        let mut cursor = SatelliteCursor::default();
        let left = items.items_of(block.block(), rows.clone(), &mut cursor)?;
        Ok((!left.is_empty()).then_some(Self {
            block,
            items,
            cursor,
            left,
            fields: Attributes::new(),
            attributes: Attributes::new(),
        }))
    }

    /// Reads the next item of `row` into `fields` and `attributes`; `false` if there is none.
    fn next_of(&mut self, row: u32) -> Result<bool, Error> {
        while !self.left.is_empty() {
            let item = self.left.start;
            let of = self.items.row(self.block.block(), item, &mut self.cursor)?;
            if of > row {
                return Ok(false);
            }
            self.left.start += 1;
            if of == row {
                let Self {
                    items,
                    cursor,
                    fields,
                    attributes,
                    ..
                } = self;
                items.read(item, cursor, fields, attributes)?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A text of a field.
fn text(value: Value) -> String {
    match value {
        Value::Str(text) => text,
        _ => String::new(),
    }
}

/// A count of a field.
fn count(value: &Value) -> u32 {
    match value {
        Value::Int(count) => u32::try_from(*count).unwrap_or(0),
        _ => 0,
    }
}

impl<'b> SpanReader<'b> {
    /// Of a trace, given all its rows.
    pub(crate) fn new(
        block: &'b SpanBlock,
        trace: TraceId,
        rows: &Range<u32>,
    ) -> Result<Self, Error> {
        let mut span_ids = vec![[0; 8]; rows.len()];
        block.span_ids(rows.start, &mut span_ids)?;
        let mut orphans = Vec::new();
        block.each_orphan(rows.clone(), |row, id| orphans.push((row, id)))?;
        Ok(Self {
            block,
            rows: RowCursor::new(block),
            trace,
            first_row: rows.start,
            span_ids,
            orphans,
            resources: HashMap::new(),
            scopes: HashMap::new(),
            attributes: AttributeCursor::default(),
            extras: ItemReader::new(block, block.extras(), rows)?,
            events: ItemReader::new(block, block.events(), rows)?,
            links: ItemReader::new(block, block.links(), rows)?,
        })
    }

    fn span_id(&self, row: u32) -> Result<SpanId, Error> {
        let place = row.checked_sub(self.first_row);
        let id = place.and_then(|place| self.span_ids.get(place as usize));
        id.and_then(|id| SpanId::new(*id)).ok_or_else(|| {
            self.block
                .damage(SectionKind::SpanIds, "a span without an id in its trace")
        })
    }

    fn parent_id(&mut self, row: u32) -> Result<Option<SpanId>, Error> {
        if let Some(parent) = self.rows.parent(row)? {
            return self.span_id(parent).map(Some);
        }
        let sent = self.orphans.binary_search_by_key(&row, |(row, _)| *row);
        let sent = sent.ok().and_then(|place| self.orphans.get(place));
        Ok(sent.and_then(|(_, id)| SpanId::new(*id)))
    }

    /// A row of it.
    pub(crate) fn span(&mut self, row: u32) -> Result<Span, Error> {
        let class = self.rows.class(row)?;
        let class: ClassRow = *self.block.classes().get(class as usize).ok_or_else(|| {
            self.block
                .damage(SectionKind::SpanRows, "a class past the last")
        })?;
        let start_ns = self.rows.start_ns(row)?;
        let duration_ns = self.rows.duration_ns(row)?;
        let name = self.block.symbols().get(class.name as usize).cloned();
        let mut attributes = Attributes::new();
        self.block
            .attributes()
            .attributes(row, &mut self.attributes, &mut attributes)?;
        let mut span = Span {
            trace_id: self.trace,
            span_id: self.span_id(row)?,
            parent_span_id: self.parent_id(row)?,
            trace_state: String::new(),
            flags: class.flags,
            name: name.unwrap_or_else(|| Arc::from("")),
            kind: class.kind,
            start: Timestamp::from_nanos(start_ns),
            end: Timestamp::from_nanos(start_ns.wrapping_add_unsigned(duration_ns)),
            attributes,
            dropped_attributes_count: 0,
            events: Vec::new(),
            dropped_events_count: 0,
            links: Vec::new(),
            dropped_links_count: 0,
            status: class.status,
            status_message: String::new(),
            resource: self.resource(class.resource)?,
            scope: self.scope(class.scope)?,
        };
        self.add_extras(row, &mut span)?;
        self.add_events(row, &mut span)?;
        self.add_links(row, &mut span)?;
        Ok(span)
    }

    fn add_extras(&mut self, row: u32, span: &mut Span) -> Result<(), Error> {
        let Some(extras) = &mut self.extras else {
            return Ok(());
        };
        while extras.next_of(row)? {
            for (key, value) in extras.fields.drain(..) {
                match &*key {
                    satellites::MESSAGE => span.status_message = text(value),
                    satellites::TRACE_STATE => span.trace_state = text(value),
                    satellites::DROPPED_ATTRIBUTES => span.dropped_attributes_count = count(&value),
                    satellites::DROPPED_EVENTS => span.dropped_events_count = count(&value),
                    satellites::DROPPED_LINKS => span.dropped_links_count = count(&value),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn add_events(&mut self, row: u32, span: &mut Span) -> Result<(), Error> {
        let Some(events) = &mut self.events else {
            return Ok(());
        };
        while events.next_of(row)? {
            let mut event = Event {
                time: span.start,
                name: String::new(),
                attributes: std::mem::take(&mut events.attributes),
                dropped_attributes_count: 0,
            };
            for (key, value) in events.fields.drain(..) {
                match (&*key, &value) {
                    (satellites::TIME, Value::Int(since_ns)) => {
                        let time_ns = span.start.as_nanos().wrapping_add(*since_ns);
                        event.time = Timestamp::from_nanos(time_ns);
                    }
                    (satellites::NAME, _) => event.name = text(value),
                    (satellites::DROPPED, _) => event.dropped_attributes_count = count(&value),
                    _ => {}
                }
            }
            span.events.push(event);
        }
        Ok(())
    }

    fn add_links(&mut self, row: u32, span: &mut Span) -> Result<(), Error> {
        let Some(links) = &mut self.links else {
            return Ok(());
        };
        while links.next_of(row)? {
            let mut link = Link {
                trace_id: None,
                span_id: None,
                trace_state: String::new(),
                flags: 0,
                attributes: std::mem::take(&mut links.attributes),
                dropped_attributes_count: 0,
            };
            for (key, value) in links.fields.drain(..) {
                match (&*key, &value) {
                    (satellites::TRACE, Value::Bytes(id)) => {
                        link.trace_id = TraceId::from_slice(id);
                    }
                    (satellites::SPAN, Value::Bytes(id)) => link.span_id = SpanId::from_slice(id),
                    (satellites::TRACE_STATE, _) => link.trace_state = text(value),
                    (satellites::FLAGS, _) => link.flags = count(&value),
                    (satellites::DROPPED, _) => link.dropped_attributes_count = count(&value),
                    _ => {}
                }
            }
            span.links.push(link);
        }
        Ok(())
    }

    fn resource(&mut self, resource: u32) -> Result<Arc<Resource>, Error> {
        if let Some(known) = self.resources.get(&resource) {
            return Ok(Arc::clone(known));
        }
        let read = self.block.resource(resource)?;
        self.resources.insert(resource, Arc::clone(&read));
        Ok(read)
    }

    fn scope(&mut self, scope: u32) -> Result<Arc<Scope>, Error> {
        if let Some(known) = self.scopes.get(&scope) {
            return Ok(Arc::clone(known));
        }
        let read = self.block.scope(scope)?;
        self.scopes.insert(scope, Arc::clone(&read));
        Ok(read)
    }
}
