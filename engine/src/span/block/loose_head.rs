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
    loose::{LooseRows, PlainRow, TraceAppender},
    order::Preorder,
    owners::ClassRow,
};
use crate::{control::CHECK_ROWS, error::Error, id::TraceId};

/// The visible rows of a shard, by trace.
struct ShardRows {
    /// Rows, those of one trace together and rising.
    rows: Vec<u32>,
    /// Where in `rows` the rows of each trace end.
    ends: Vec<u32>,
    /// For each class of the shard, the class of the loose rows; [`NONE`] until it is met.
    class_of: Vec<u32>,
}

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
        let shards: Vec<(&RwLock<Shard>, View)> = head.views(cut).collect();
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
        let mut until_check = CHECK_ROWS;
        for found in &found {
            let shard = &mut grouped[found.shard];
            let (lock, _) = shards[found.shard];
            let from = found.trace.checked_sub(1).map_or(0, |t| shard.ends[t as usize]);
            let rows = &shard.rows[from as usize..shard.ends[found.trace as usize] as usize];
            trace.arrange(lock, head.catalog(), found.trace, rows);
            loose.append(lock, found.id, &trace, &mut shard.class_of);
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
        class_of: &mut [u32],
    ) {
        let mut appender = TraceAppender::new(self, id);
        let tree = trace.preorder.parents.iter().zip(&trace.preorder.subtrees);
        let mut rows = trace.preorder.order.iter().zip(tree);
        // Readers of the head share the lock; a delete waits for a slice of a large trace at most.
        while rows.len() > 0 {
            let shard = lock.read();
            for (&place, (&parent, &subtree)) in rows.by_ref().take(CHECK_ROWS) {
                let row = trace.sorted[place as usize].row;
                if let Some(plain) = plain_row(appender.loose, &shard, row, class_of) {
                    appender.push(&plain, parent, subtree);
                }
            }
        }
        appender.finish();
    }
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
        class_of: vec![NONE; classes],
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
                let parent = ident.and_then(|ident| rows.binary_search(&ident.first_parent()?).ok());
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
                sorted_place.get(parent as usize).copied().unwrap_or(NO_PARENT)
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
