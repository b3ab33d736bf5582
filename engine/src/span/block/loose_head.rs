//! From a head to rows in the order of a block: the hot path of sealing.
//!
//! 1. Of each shard, the rows that a snapshot at the cut sees are grouped by trace (a counting sort).
//! 2. The traces of all shards are sorted by (start, id).
//! 3. Each trace is put in preorder and appended.
//!
//! No span is built. A shard's lock is taken to read, for a few thousand rows at a time.

#![expect(
    clippy::indexing_slicing,
    reason = "arrays are made as long as the shard has rows or traces, and places come from them"
)]

use std::sync::Arc;

use parking_lot::RwLock;
use rootline_wal::Lsn;

use super::{
    super::{
        catalog::{Catalog, Tables},
        dictionary::number,
        head::SpanHead,
        parents::{self, NO_PARENT, Node},
        shard::{Buffers, NONE, Shard, View},
    },
    attributes::LooseAttributes,
    loose::{LooseRows, PlainRow},
    order::Preorder,
    owners::ClassRow,
    satellites,
};
use crate::{control::CHECK_ROWS, error::Error, id::TraceId, value::ValueRef};

/// The visible rows of a shard, by trace.
struct ShardRows {
    /// Rows, those of one trace together and rising.
    rows: Vec<u32>,
    /// Where in `rows` the rows of each trace end.
    ends: Vec<u32>,
    maps: ShardMaps,
}

/// What the numbers of a shard are in the loose rows; [`NONE`] until it is met.
#[derive(Debug, Default)]
struct ShardMaps {
    class_of: Vec<u32>,
    /// By tag of the shard, for attributes of spans, of events, of links.
    pairs: [Vec<u32>; 3],
}

/// What the keys of the catalogue are in the tables of attributes: of spans, of events, of links.
#[derive(Debug)]
struct KeyMaps([Vec<u32>; 3]);

const SPANS: usize = 0;
const EVENTS: usize = 1;
const LINKS: usize = 2;

/// A trace to append.
struct Found {
    start_ns: i64,
    id: TraceId,
    shard: usize,
    trace: u32,
}

impl LooseRows {
    /// What a snapshot at `cut` sees of a head. `ctl` is asked now and then whether to go on.
    pub(crate) fn from_head(
        head: &SpanHead,
        cut: Lsn,
        ctl: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let shards = (0..head.shards()).filter_map(|shard| head.shard(shard));
        let shards = shards.map(|lock| (lock, lock.read().view(cut)));
        let shards: Vec<(&RwLock<Shard>, View)> = shards.collect();
        let mut loose = Self::default();
        let mut grouped = Vec::new();
        let mut found = Vec::new();
        for (shard, &(lock, view)) in shards.iter().enumerate() {
            grouped.push(group_by_trace(lock, view, shard, &mut found, ctl)?);
        }
        found.sort_unstable_by_key(|trace| (trace.start_ns, trace.id));
        loose.copy_tables(&head.catalog().read());
        loose.reserve(grouped.iter().map(|shard| shard.rows.len()).sum());
        let mut trace = TraceArranger::default();
        let mut keys = KeyMaps(std::array::from_fn(|_| vec![NONE; loose.symbols.len()]));
        let mut buffers = Buffers::default();
        let mut until_check = CHECK_ROWS;
        for found in &found {
            let shard = &mut grouped[found.shard];
            let (lock, _) = shards[found.shard];
            let from = found
                .trace
                .checked_sub(1)
                .map_or(0, |t| shard.ends[t as usize]);
            let rows = &shard.rows[from as usize..shard.ends[found.trace as usize] as usize];
            trace.arrange(lock, head.catalog(), found.trace, rows);
            loose.append(
                lock,
                found.id,
                &trace,
                &mut shard.maps,
                &mut keys,
                &mut buffers,
            )?;
            until_check = until_check.saturating_sub(rows.len());
            if until_check == 0 {
                ctl()?;
                until_check = CHECK_ROWS;
            }
        }
        Ok(loose)
    }

    fn copy_tables(&mut self, tables: &Tables) {
        self.symbols = (0..number(tables.symbol_count()))
            .map(|symbol| tables.symbol(symbol))
            .collect();
        for entry in &tables.resources {
            self.resources.push(Arc::clone(&entry.resource));
            self.services.push(entry.service);
        }
        self.scopes.clone_from(&tables.scopes);
    }

    fn append(
        &mut self,
        lock: &RwLock<Shard>,
        id: TraceId,
        trace: &TraceArranger,
        maps: &mut ShardMaps,
        keys: &mut KeyMaps,
        buffers: &mut Buffers,
    ) -> Result<(), Error> {
        let first_row = self.rows();
        let tree = trace.preorder.parents.iter().zip(&trace.preorder.subtrees);
        let mut rows = trace.preorder.order.iter().zip(tree);
        // Readers of the head share the lock; a delete waits for a slice of a large trace at most.
        while rows.len() > 0 {
            let shard = lock.read();
            for (&place, (&parent, &subtree)) in rows.by_ref().take(CHECK_ROWS) {
                let row = trace.sorted[place as usize].row;
                let Some(plain) = plain_row(self, &shard, row, &mut maps.class_of) else {
                    continue;
                };
                self.push_row(&plain, parent, subtree);
                shard.rest_of(row, buffers);
                self.append_tails(&shard, &plain, maps, keys, buffers)?;
            }
        }
        self.end_trace(id, first_row);
        Ok(())
    }

    /// Appends the attributes of the row pushed last, and what else hangs on it.
    fn append_tails(
        &mut self,
        shard: &Shard,
        plain: &PlainRow,
        maps: &mut ShardMaps,
        keys: &mut KeyMaps,
        buffers: &Buffers,
    ) -> Result<(), Error> {
        let row = self.rows().saturating_sub(1);
        let Self {
            symbols,
            attributes,
            extras,
            events,
            links,
            ..
        } = self;
        let mut append = |table: usize, to: &mut LooseAttributes, tags: &[u32]| {
            let (pairs, keys) = (&mut maps.pairs[table], &mut keys.0[table]);
            append_tags(shard, tags, pairs, keys, symbols, to)
        };
        append(SPANS, attributes, &buffers.tags)?;
        let rest = &buffers.rest;
        let text = |number: u32| ValueRef::Str(shard.tags.text(number));
        let count = |count: u32| ValueRef::Int(count.into());
        if let Some(message) = rest.status_message {
            extras.field(satellites::MESSAGE, text(message))?;
        }
        if let Some(state) = rest.trace_state {
            extras.field(satellites::TRACE_STATE, text(state))?;
        }
        for (key, dropped) in [
            (satellites::DROPPED_ATTRIBUTES, rest.dropped_attributes),
            (satellites::DROPPED_EVENTS, rest.dropped_events),
            (satellites::DROPPED_LINKS, rest.dropped_links),
        ] {
            if dropped != 0 {
                extras.field(key, count(dropped))?;
            }
        }
        extras.end_if_any(row);
        let mut from = 0;
        for event in &rest.events {
            let since_ns = event.time_ns.wrapping_sub(plain.start_ns);
            events.field(satellites::TIME, ValueRef::Int(since_ns))?;
            events.field(satellites::NAME, text(event.name))?;
            if event.dropped != 0 {
                events.field(satellites::DROPPED, count(event.dropped))?;
            }
            events.end(row);
            let to = event.tags_end as usize;
            let tags = rest.event_tags.get(from..to).unwrap_or_default();
            append(EVENTS, &mut events.attributes, tags)?;
            from = to;
        }
        from = 0;
        for link in &rest.links {
            if link.trace_id != [0; 16] {
                links.field(satellites::TRACE, ValueRef::Bytes(&link.trace_id))?;
            }
            if link.span_id != [0; 8] {
                links.field(satellites::SPAN, ValueRef::Bytes(&link.span_id))?;
            }
            if let Some(state) = link.trace_state {
                links.field(satellites::TRACE_STATE, text(state))?;
            }
            if link.flags != 0 {
                links.field(satellites::FLAGS, count(link.flags))?;
            }
            if link.dropped != 0 {
                links.field(satellites::DROPPED, count(link.dropped))?;
            }
            links.end(row);
            let to = link.tags_end as usize;
            let tags = rest.link_tags.get(from..to).unwrap_or_default();
            append(LINKS, &mut links.attributes, tags)?;
            from = to;
        }
        Ok(())
    }
}

/// Appends an item with these tags of the shard. Each tag is looked at once: then an array knows it.
fn append_tags(
    shard: &Shard,
    tags: &[u32],
    pairs: &mut Vec<u32>,
    keys: &mut [u32],
    symbols: &[Arc<str>],
    to: &mut LooseAttributes,
) -> Result<(), Error> {
    if pairs.len() < shard.tags.len() as usize && !tags.is_empty() {
        pairs.resize(shard.tags.len() as usize, NONE);
    }
    for &tag in tags {
        let Some(pair) = pairs.get_mut(tag as usize) else {
            continue;
        };
        if *pair == NONE {
            let (symbol, value) = shard.tags.get(tag);
            let Some(key) = keys.get_mut(symbol as usize) else {
                continue;
            };
            if *key == NONE {
                *key = number(to.keys.len());
                to.keys.push(Arc::clone(&symbols[symbol as usize]));
            }
            *pair = to.values.push(*key, value).ok_or(satellites::TOO_LARGE)?;
        }
        to.tags.push(*pair);
    }
    to.push_tags([]);
    Ok(())
}

fn plain_row(
    loose: &mut LooseRows,
    shard: &Shard,
    row: u32,
    class_of: &mut [u32],
) -> Option<PlainRow> {
    let ident = shard.idents.get(row)?;
    let class = *shard.class_of.get(row)?;
    let slot = class_of.get_mut(class as usize)?;
    if *slot == NONE {
        let class = &shard.classes.get(class)?.class;
        *slot = number(loose.classes.len());
        // The same class of another shard comes again: whoever writes them unites them.
        loose.classes.push(ClassRow {
            status: class.status,
            service: *loose.services.get(class.resource as usize)?,
            kind: class.kind,
            name: class.name,
            resource: class.resource,
            scope: class.scope,
            flags: class.flags,
        });
    }
    Some(PlainRow {
        class: *slot,
        span_id: ident.span_id,
        parent_id: ident.parent_id,
        start_ns: *shard.starts.get(row)?,
        duration_ns: *shard.durations.get(row)?,
    })
}

/// Groups the visible rows of a shard by trace, and notes the traces.
fn group_by_trace(
    lock: &RwLock<Shard>,
    view: View,
    shard_number: usize,
    found: &mut Vec<Found>,
    ctl: &mut dyn FnMut() -> Result<(), Error>,
) -> Result<ShardRows, Error> {
    let (traces, classes) = {
        let shard = lock.read();
        (shard.traces.len(), shard.classes.len())
    };
    let mut ends = vec![0u32; traces];
    let mut starts_ns = vec![i64::MAX; traces];
    each_visible(lock, view, ctl, |trace, row, shard| {
        ends[trace] += 1;
        let start_ns = shard.starts.get(row).copied().unwrap_or(i64::MAX);
        starts_ns[trace] = starts_ns[trace].min(start_ns);
    })?;
    {
        let shard = lock.read();
        for ((trace, &rows), &start_ns) in (0u32..).zip(&ends).zip(&starts_ns) {
            if let (Some(entry), true) = (shard.traces.get(trace), rows > 0) {
                found.push(Found {
                    start_ns,
                    id: entry.id,
                    shard: shard_number,
                    trace,
                });
            }
        }
    }
    drop(starts_ns);
    // Each end becomes where the trace's rows begin, and moves to their end as they come.
    let mut sum = 0;
    for end in &mut ends {
        let rows = *end;
        *end = sum;
        sum += rows;
    }
    let mut rows = vec![0u32; sum as usize];
    each_visible(lock, view, ctl, |trace, row, _| {
        if let Some(slot) = rows.get_mut(ends[trace] as usize) {
            *slot = row;
            ends[trace] += 1;
        }
    })?;
    Ok(ShardRows {
        rows,
        ends,
        maps: ShardMaps {
            class_of: vec![NONE; classes],
            ..ShardMaps::default()
        },
    })
}

fn each_visible(
    lock: &RwLock<Shard>,
    view: View,
    ctl: &mut dyn FnMut() -> Result<(), Error>,
    mut visit: impl FnMut(usize, u32, &Shard),
) -> Result<(), Error> {
    let mut next = 0;
    while next < view.rows {
        ctl()?;
        let end = view.rows.min(next + number(CHECK_ROWS));
        let shard = lock.read();
        for row in next..end {
            let Some(ident) = shard.idents.get(row) else {
                continue;
            };
            if shard.is_visible(row, view) {
                visit(ident.trace as usize, row, &shard);
            }
        }
        next = end;
    }
    Ok(())
}

/// A row of the trace being arranged.
#[derive(Clone, Copy, Debug)]
struct SortedRow {
    start_ns: i64,
    span_id: [u8; 8],
    row: u32,
    /// Among the trace's rows as they arrived.
    place: u32,
}

/// Puts the rows of one trace in order.
#[derive(Debug, Default)]
struct TraceArranger {
    /// By (start, id, content hash).
    sorted: Vec<SortedRow>,
    preorder: Preorder,
    parent_of: Vec<u32>,
    sorted_place: Vec<u32>,
}

impl TraceArranger {
    /// `rows` rise.
    fn arrange(&mut self, lock: &RwLock<Shard>, catalog: &Catalog, trace: u32, rows: &[u32]) {
        let Self {
            sorted,
            preorder,
            parent_of,
            sorted_place,
        } = self;
        sorted.clear();
        parent_of.clear();
        let odd = {
            let shard = lock.read();
            for (&row, place) in rows.iter().zip(0u32..) {
                let ident = shard.idents.get(row);
                sorted.push(SortedRow {
                    start_ns: shard.starts.get(row).copied().unwrap_or_default(),
                    span_id: ident.map_or([0; 8], |ident| ident.span_id),
                    row,
                    place,
                });
                // Every id has one row and every parent starts before its child: the links are the
                // rule. One that a delete hides is not among the rows.
                let parent =
                    ident.and_then(|ident| rows.binary_search(&ident.first_parent()?).ok());
                parent_of.push(parent.map_or(NO_PARENT, number));
            }
            shard.traces.get(trace).is_some_and(|entry| entry.odd)
        };
        if odd {
            let nodes = nodes_of(lock, catalog, rows);
            *parent_of = parents::resolve(&nodes, |place| {
                content_hash(lock, catalog, rows[place as usize])
            });
        }
        sorted.sort_unstable_by_key(|row| (row.start_ns, row.span_id));
        let key = |row: &SortedRow| (row.start_ns, row.span_id);
        for twins in sorted.chunk_by_mut(|a, b| key(a) == key(b)) {
            if twins.len() > 1 {
                twins.sort_by_cached_key(|row| content_hash(lock, catalog, row.row));
            }
        }
        sorted_place.clear();
        sorted_place.resize(sorted.len(), NO_PARENT);
        for (row, place) in sorted.iter().zip(0u32..) {
            sorted_place[row.place as usize] = place;
        }
        let parent_of: Vec<u32> = sorted
            .iter()
            .map(|row| {
                let parent = parent_of[row.place as usize];
                sorted_place
                    .get(parent as usize)
                    .copied()
                    .unwrap_or(NO_PARENT)
            })
            .collect();
        preorder.arrange(&parent_of);
    }
}

fn nodes_of(lock: &RwLock<Shard>, catalog: &Catalog, rows: &[u32]) -> Vec<Node> {
    let shard = lock.read();
    let tables = catalog.read();
    let node = |&row: &u32| {
        let ident = shard.idents.get(row)?;
        let class = &shard.class_entry(row)?.class;
        Some(Node {
            span_id: ident.span_id,
            parent_id: ident.parent_id,
            start_ns: *shard.starts.get(row)?,
            service: tables.resources.get(class.resource as usize)?.service,
            called_side: class.kind.is_called_side(),
        })
    };
    let nodes: Vec<Node> = rows.iter().filter_map(node).collect();
    debug_assert_eq!(nodes.len(), rows.len(), "a visible row has all its parts");
    nodes
}

fn content_hash(lock: &RwLock<Shard>, catalog: &Catalog, row: u32) -> u128 {
    let shard = lock.read();
    let span = shard.span(row, &catalog.read(), &mut Buffers::default());
    span.map_or(0, |span| span.content_hash())
}
