//! From whole traces to rows in the order of a block: traces of which a merge leaves some spans out, and
//! with them what the block said of parents.

use std::{collections::HashMap, sync::Arc};

use super::{
    super::{
        dictionary::number,
        model::{Attributes, Span, Trace},
        parents::NO_PARENT,
    },
    attributes::LooseAttributes,
    loose::{LooseRows, PlainRow},
    order::Preorder,
    owners::{ClassRow, encode_resource, encode_scope},
    satellites::{self, TOO_LARGE},
};
use crate::{error::Error, value::ValueRef};

/// Gathers traces, one at a time.
#[derive(Debug, Default)]
pub(crate) struct LooseBuilder {
    loose: LooseRows,
    symbols: HashMap<Arc<str>, u32>,
    /// By what they are encoded as.
    resources: HashMap<Vec<u8>, u32>,
    scopes: HashMap<Vec<u8>, u32>,
    /// By address, which holds while `resources` and `scopes` of the rows hold them.
    known_resources: HashMap<usize, u32>,
    known_scopes: HashMap<usize, u32>,
    classes: HashMap<ClassRow, u32>,
    keys: [HashMap<Arc<str>, u32>; 3],
    preorder: Preorder,
}

const SPANS: usize = 0;
const EVENTS: usize = 1;
const LINKS: usize = 2;

impl LooseBuilder {
    /// Appends a trace; one without spans is left out.
    pub(crate) fn push(&mut self, trace: &Trace) -> Result<(), Error> {
        let parents = trace
            .parents
            .iter()
            .map(|parent| parent.unwrap_or(NO_PARENT));
        let parents: Vec<u32> = parents.collect();
        let mut preorder = std::mem::take(&mut self.preorder);
        preorder.arrange(&parents);
        let tree = preorder.parents.iter().zip(&preorder.subtrees);
        let first_row = self.loose.rows();
        for (&place, (&parent, &subtree)) in preorder.order.iter().zip(tree) {
            let Some(span) = trace.spans.get(place as usize) else {
                continue;
            };
            let class = self.class(span);
            let plain = PlainRow {
                class,
                span_id: *span.span_id.as_bytes(),
                parent_id: span.parent_span_id.map_or([0; 8], |id| *id.as_bytes()),
                start_ns: span.start.as_nanos(),
                duration_ns: span.duration_ns(),
            };
            self.loose.push_row(&plain, parent, subtree);
            self.tails(span)?;
        }
        self.loose.end_trace(trace.id, first_row);
        self.preorder = preorder;
        Ok(())
    }

    /// The rows.
    pub(crate) fn finish(self) -> LooseRows {
        self.loose
    }

    fn symbol(&mut self, text: &Arc<str>) -> u32 {
        if let Some(known) = self.symbols.get(text) {
            return *known;
        }
        let symbol = number(self.loose.symbols.len());
        self.loose.symbols.push(Arc::clone(text));
        self.symbols.insert(Arc::clone(text), symbol);
        symbol
    }

    fn class(&mut self, span: &Span) -> u32 {
        let resource = self.resource(span);
        let scope = self.scope(span);
        let service = self.loose.services.get(resource as usize).copied();
        let row = ClassRow {
            status: span.status,
            service: service.unwrap_or(0),
            kind: span.kind,
            name: self.symbol(&span.name),
            resource,
            scope,
            flags: span.flags,
        };
        let next = number(self.loose.classes.len());
        let class = *self.classes.entry(row).or_insert(next);
        if class == next {
            self.loose.classes.push(row);
        }
        class
    }

    fn resource(&mut self, span: &Span) -> u32 {
        let address = Arc::as_ptr(&span.resource).addr();
        if let Some(known) = self.known_resources.get(&address) {
            return *known;
        }
        let mut bytes = Vec::new();
        encode_resource(&span.resource, &mut bytes);
        if let Some(known) = self.resources.get(&bytes) {
            return *known;
        }
        let resource = number(self.loose.resources.len());
        self.loose.resources.push(Arc::clone(&span.resource));
        let service = self.symbol(&Arc::from(span.service()));
        self.loose.services.push(service);
        self.resources.insert(bytes, resource);
        self.known_resources.insert(address, resource);
        resource
    }

    fn scope(&mut self, span: &Span) -> u32 {
        let address = Arc::as_ptr(&span.scope).addr();
        if let Some(known) = self.known_scopes.get(&address) {
            return *known;
        }
        let mut bytes = Vec::new();
        encode_scope(&span.scope, &mut bytes);
        if let Some(known) = self.scopes.get(&bytes) {
            return *known;
        }
        let scope = number(self.loose.scopes.len());
        self.loose.scopes.push(Arc::clone(&span.scope));
        self.scopes.insert(bytes, scope);
        self.known_scopes.insert(address, scope);
        scope
    }

    /// Appends what hangs on the row pushed last.
    fn tails(&mut self, span: &Span) -> Result<(), Error> {
        let row = self.loose.rows().saturating_sub(1);
        let LooseRows {
            attributes,
            extras,
            events,
            links,
            ..
        } = &mut self.loose;
        let keys = &mut self.keys;
        let mut append = |table: usize, to: &mut LooseAttributes, attributes: &Attributes| {
            let keys = keys.get_mut(table).ok_or(TOO_LARGE)?;
            append_attributes(attributes, keys, to)
        };
        append(SPANS, attributes, &span.attributes)?;
        let count = |count: u32| ValueRef::Int(count.into());
        let texts = [
            (satellites::MESSAGE, &span.status_message),
            (satellites::TRACE_STATE, &span.trace_state),
        ];
        for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            extras.field(key, ValueRef::Str(text))?;
        }
        let counts = [
            (
                satellites::DROPPED_ATTRIBUTES,
                span.dropped_attributes_count,
            ),
            (satellites::DROPPED_EVENTS, span.dropped_events_count),
            (satellites::DROPPED_LINKS, span.dropped_links_count),
        ];
        for (key, dropped) in counts.into_iter().filter(|(_, dropped)| *dropped != 0) {
            extras.field(key, count(dropped))?;
        }
        extras.end_if_any(row);
        for event in &span.events {
            let since_ns = event.time.as_nanos().wrapping_sub(span.start.as_nanos());
            events.field(satellites::TIME, ValueRef::Int(since_ns))?;
            events.field(satellites::NAME, ValueRef::Str(&event.name))?;
            if event.dropped_attributes_count != 0 {
                let dropped = count(event.dropped_attributes_count);
                events.field(satellites::DROPPED, dropped)?;
            }
            events.end(row);
            append(EVENTS, &mut events.attributes, &event.attributes)?;
        }
        for link in &span.links {
            if let Some(id) = &link.trace_id {
                links.field(satellites::TRACE, ValueRef::Bytes(id.as_bytes()))?;
            }
            if let Some(id) = &link.span_id {
                links.field(satellites::SPAN, ValueRef::Bytes(id.as_bytes()))?;
            }
            if !link.trace_state.is_empty() {
                links.field(satellites::TRACE_STATE, ValueRef::Str(&link.trace_state))?;
            }
            if link.flags != 0 {
                links.field(satellites::FLAGS, count(link.flags))?;
            }
            if link.dropped_attributes_count != 0 {
                links.field(satellites::DROPPED, count(link.dropped_attributes_count))?;
            }
            links.end(row);
            append(LINKS, &mut links.attributes, &link.attributes)?;
        }
        Ok(())
    }
}

fn append_attributes(
    attributes: &Attributes,
    keys: &mut HashMap<Arc<str>, u32>,
    to: &mut LooseAttributes,
) -> Result<(), Error> {
    let mut bytes = Vec::new();
    for (key, value) in attributes {
        bytes.clear();
        // What was stored is not nested too deep.
        let _ = value.as_ref().encode(&mut bytes);
        let next = number(to.keys.len());
        let number = match keys.get(key) {
            Some(known) => *known,
            None => {
                to.keys.push(Arc::clone(key));
                keys.insert(Arc::clone(key), next);
                next
            }
        };
        let pair = to.values.push(number, &bytes).ok_or(TOO_LARGE)?;
        to.tags.push(pair);
    }
    to.push_tags([]);
    Ok(())
}

impl LooseRows {
    /// The rows of these traces, which come in the order of a block's.
    pub(crate) fn from_traces(traces: &[Trace]) -> Result<Self, Error> {
        let mut builder = LooseBuilder::default();
        for trace in traces {
            builder.push(trace)?;
        }
        Ok(builder.finish())
    }
}
