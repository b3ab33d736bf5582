//! Reads a span block. Bytes: `docs/formats/span-block.md`.
//!
//! Invariants
//! - Opening reads the directory and the filter, whatever the block's size.
//! - A question touches the groups and pages it needs; a page that does not verify costs what lies on
//!   it, and nothing else.
//! - Numbers in the block come from outside: one that does not hold gives [`Error::CorruptBlock`] with
//!   its place in the file.
//!
//! No locks; shared in an `Arc`. Whoever reads owns cursors.

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

use super::{
    super::model::{Resource, Scope},
    attributes::{AttributeTable, ItemClasses},
    directory::Directory,
    groups::{GROUP_ROWS, GroupCache},
    orphans::Orphans,
    owners::{ClassRow, OwnerSource, OwnerTables},
    rows::{RowBounds, RowGroups, Rows},
    satellites::Satellites,
    traces::{TraceCursor, Traces},
};
use crate::{
    block::{Block, BlockMeta, SectionKind},
    budget::{Budget, Holder, Reservation},
    error::Error,
    id::TraceId,
};

/// Bytes of a span id.
const ID_BYTES: u64 = 8;

/// An open block of spans.
#[derive(Debug)]
pub(crate) struct SpanBlock {
    block: Arc<Block>,
    row_count: u32,
    traces: Traces,
    owners: OwnerTables,
    rows: Arc<Rows>,
    orphans: Orphans,
    attributes: AttributeTable,
    extras: Option<Satellites>,
    events: Option<Satellites>,
    links: Option<Satellites>,
    superseded: Vec<TraceId>,
    /// Keys that some resource has, sorted: found when first asked for.
    resource_keys: OnceLock<Vec<Arc<str>>>,
    /// What it holds, on the ledger.
    _held: Option<Reservation>,
}

impl SpanBlock {
    /// Makes sense of a block's directory.
    pub(crate) fn open(block: Arc<Block>, budget: Option<&Arc<Budget>>) -> Result<Self, Error> {
        let damaged = |reason| block.damage(SectionKind::SpanDirectory, 0, reason);
        let row_count = u32::try_from(block.meta().samples);
        let row_count = row_count.map_err(|_| damaged("more rows than can be numbered"))?;
        // From here on the number of rows is bounded by the bytes that are there.
        if block.section(SectionKind::SpanIds)?.len_bytes() != u64::from(row_count) * ID_BYTES {
            return Err(damaged("span ids of another number of rows"));
        }
        let directory = Directory::open(&block)?;
        let owners = OwnerTables::open(directory.reader(SectionKind::SpanOwners), row_count);
        let owners = owners.map_err(damaged)?;
        let classes = u32::try_from(owners.classes().len()).unwrap_or(u32::MAX);
        let rows = Rows::open(directory.reader(SectionKind::SpanRows), row_count, classes);
        let rows = Arc::new(rows.map_err(damaged)?);
        let mut head = directory.reader(SectionKind::SpanOrphans);
        let orphans = Orphans::open(&mut head, row_count).map_err(damaged)?;
        let classes = Arc::new(RowClasses {
            block: Arc::clone(&block),
            rows: Arc::clone(&rows),
        });
        let section = SectionKind::SpanAttributes;
        let head = directory.head(section);
        let attributes = AttributeTable::open(Arc::clone(&block), section, head, classes)?;
        if attributes.items() != row_count {
            return Err(damaged("attributes of another number of rows"));
        }
        let items = |section| Satellites::open(&block, section, directory.head(section), row_count);
        let extras = items(SectionKind::SpanExtras)?;
        let events = items(SectionKind::SpanEvents)?;
        let links = items(SectionKind::SpanLinks)?;
        let traces = Traces::open(&block, directory.reader(SectionKind::SpanTraces), row_count)?;
        if u64::from(traces.len()) != block.meta().series {
            return Err(damaged("directory and footer disagree about the traces"));
        }
        let (ids, rest) = directory
            .head(SectionKind::SpanSuperseded)
            .as_chunks::<16>();
        let superseded: Option<Vec<TraceId>> = ids.iter().map(|id| TraceId::new(*id)).collect();
        let superseded = superseded
            .filter(|ids| rest.is_empty() && ids.is_sorted_by(|a, b| a < b))
            .ok_or_else(|| damaged("superseded traces out of order"))?;
        let mut opened = Self {
            block,
            row_count,
            traces,
            owners,
            rows,
            orphans,
            attributes,
            extras,
            events,
            links,
            superseded,
            resource_keys: OnceLock::new(),
            _held: None,
        };
        let bytes = opened.heap_bytes() as u64;
        opened._held = budget.map(|budget| budget.charged(Holder::Blocks, bytes));
        Ok(opened)
    }

    /// Memory held beside the mapping.
    pub(crate) fn heap_bytes(&self) -> usize {
        // The manifest's version and the view know of it, too.
        size_of::<Self>()
            + 2 * size_of::<BlockMeta>()
            + self.block.heap_bytes()
            + self.traces.heap_bytes()
            + self.owners.heap_bytes()
            + self.rows.heap_bytes()
            + self.orphans.heap_bytes()
            + self.attributes.heap_bytes()
            + [&self.extras, &self.events, &self.links]
                .into_iter()
                .flatten()
                .map(Satellites::heap_bytes)
                .sum::<usize>()
            + self.superseded.capacity() * size_of::<TraceId>()
    }

    /// What is known of the block.
    pub(crate) fn meta(&self) -> &BlockMeta {
        self.block.meta()
    }

    /// The container.
    pub(crate) fn block(&self) -> &Arc<Block> {
        &self.block
    }

    /// Rows: spans.
    pub(crate) fn rows(&self) -> u32 {
        self.row_count
    }

    /// Traces.
    pub(crate) fn traces(&self) -> u32 {
        self.traces.len()
    }

    /// Traces that are hidden in older blocks, sorted.
    pub(crate) fn superseded(&self) -> &[TraceId] {
        &self.superseded
    }

    /// Whether the block may have a trace; reads nothing. One that it does not have passes about once
    /// in 65,000 times.
    pub(crate) fn may_have_trace(&self, id: TraceId) -> bool {
        self.traces.may_have(id)
    }

    /// The number of a trace, if the block has it, hidden or not.
    pub(crate) fn find_trace(&self, id: TraceId) -> Result<Option<u32>, Error> {
        self.traces
            .find(&self.block, id, &mut TraceCursor::default())
    }

    /// A trace's id. For many, see [`trace_id_with`](Self::trace_id_with).
    pub(crate) fn trace_id(&self, trace: u32) -> Result<TraceId, Error> {
        self.trace_id_with(trace, &mut TraceCursor::default())
    }

    /// A trace's id.
    pub(crate) fn trace_id_with(
        &self,
        trace: u32,
        cursor: &mut TraceCursor,
    ) -> Result<TraceId, Error> {
        self.traces.id(&self.block, trace, cursor)
    }

    /// A trace's rows. For many, see [`trace_rows_with`](Self::trace_rows_with).
    pub(crate) fn trace_rows(&self, trace: u32) -> Result<Range<u32>, Error> {
        self.trace_rows_with(trace, &mut TraceCursor::default())
    }

    /// A trace's rows: at least one.
    pub(crate) fn trace_rows_with(
        &self,
        trace: u32,
        cursor: &mut TraceCursor,
    ) -> Result<Range<u32>, Error> {
        self.traces.rows(&self.block, trace, cursor)
    }

    /// The trace of a row. For many, see [`trace_of_row_with`](Self::trace_of_row_with).
    pub(crate) fn trace_of_row(&self, row: u32) -> Result<u32, Error> {
        self.trace_of_row_with(row, &mut TraceCursor::default())
    }

    /// The trace of a row.
    pub(crate) fn trace_of_row_with(
        &self,
        row: u32,
        cursor: &mut TraceCursor,
    ) -> Result<u32, Error> {
        self.traces.of_row(&self.block, row, cursor)
    }

    /// Earliest start and latest end of a trace, ns since the epoch, hidden rows included.
    pub(crate) fn trace_bounds(&self, trace: u32) -> Result<(i64, i64), Error> {
        self.trace_bounds_with(trace, &mut TraceCursor::default())
    }

    /// The same.
    pub(crate) fn trace_bounds_with(
        &self,
        trace: u32,
        cursor: &mut TraceCursor,
    ) -> Result<(i64, i64), Error> {
        self.traces.bounds(&self.block, trace, cursor)
    }

    /// Earliest start of a trace, ns since the epoch: it rises with the numbers of traces.
    pub(crate) fn trace_start_with(
        &self,
        trace: u32,
        cursor: &mut TraceCursor,
    ) -> Result<i64, Error> {
        self.traces.start_ns(&self.block, trace, cursor)
    }

    /// The classes by number, in the order of (status, service, kind, name, ..).
    pub(crate) fn classes(&self) -> &[ClassRow] {
        self.owners.classes()
    }

    /// Rows of a class, hidden or not.
    pub(crate) fn class_rows(&self, class: u32) -> u64 {
        self.owners
            .counts()
            .get(class as usize)
            .copied()
            .unwrap_or(0)
    }

    /// Texts of names and services by number, sorted.
    pub(crate) fn symbols(&self) -> &[Arc<str>] {
        self.owners.symbols()
    }

    /// Resources are numbered below this.
    pub(crate) fn resource_count(&self) -> u32 {
        self.owners.resource_count()
    }

    /// Scopes are numbered below this.
    pub(crate) fn scope_count(&self) -> u32 {
        self.owners.scope_count()
    }

    /// Room for the keys that some resource has, sorted.
    pub(crate) fn resource_keys(&self) -> &OnceLock<Vec<Arc<str>>> {
        &self.resource_keys
    }

    /// The symbol of a resource's service.
    pub(crate) fn service_of(&self, resource: u32) -> u32 {
        self.owners.service_of(resource)
    }

    /// A resource, decoded.
    pub(crate) fn resource(&self, resource: u32) -> Result<Arc<Resource>, Error> {
        self.owners.resource(&self.block, resource)
    }

    /// A scope, decoded.
    pub(crate) fn scope(&self, scope: u32) -> Result<Arc<Scope>, Error> {
        self.owners.scope(&self.block, scope)
    }

    /// Groups of rows: of [`GROUP_ROWS`] each, the last of what is left.
    pub(crate) fn row_groups(&self) -> u32 {
        self.row_count.div_ceil(GROUP_ROWS)
    }

    /// What is known of each group of rows.
    pub(crate) fn group_bounds(&self) -> &[RowBounds] {
        self.rows.bounds()
    }

    /// Decodes the classes of a group of rows.
    pub(crate) fn class_group(&self, group: u32, out: &mut Vec<u32>) -> Result<(), Error> {
        self.rows.class_group(&self.block, group, out)
    }

    /// Hands the classes of a group of rows over as they are decoded, unchecked.
    pub(crate) fn with_class_group<T>(
        &self,
        group: u32,
        take: impl FnOnce(&[i64]) -> T,
    ) -> Result<T, Error> {
        self.rows.with_class_group(&self.block, group, take)
    }

    /// Decodes the distances back to parents, 0 for none, of a group of rows.
    pub(crate) fn parent_group(&self, group: u32, out: &mut Vec<u32>) -> Result<(), Error> {
        self.rows.parent_group(&self.block, group, out)
    }

    /// Decodes the numbers of descendants of a group of rows.
    pub(crate) fn subtree_group(&self, group: u32, out: &mut Vec<u32>) -> Result<(), Error> {
        self.rows.subtree_group(&self.block, group, out)
    }

    /// Decodes the starts of a group of rows, ns since the epoch.
    pub(crate) fn start_group(&self, group: u32, out: &mut Vec<i64>) -> Result<(), Error> {
        let mut parents = Vec::new();
        self.rows.parent_group(&self.block, group, &mut parents)?;
        self.rows.start_group(&self.block, group, &parents, out)
    }

    /// Decodes the durations of a group of rows, ns.
    pub(crate) fn duration_group(&self, group: u32, out: &mut Vec<u64>) -> Result<(), Error> {
        self.rows.duration_group(&self.block, group, out)
    }

    /// A row's span id, never zeros in an intact block.
    pub(crate) fn span_id(&self, row: u32) -> Result<[u8; 8], Error> {
        let mut id = [[0; 8]];
        self.span_ids(row, &mut id)?;
        let [id] = id;
        Ok(id)
    }

    /// The span ids of the rows from `first` on, as many as there is room for.
    pub(crate) fn span_ids(&self, first: u32, out: &mut [[u8; 8]]) -> Result<(), Error> {
        let start = u64::from(first) * ID_BYTES;
        let section = self.block.section(SectionKind::SpanIds)?;
        let bytes = section.bytes(start..start + out.len() as u64 * ID_BYTES)?;
        let (ids, _) = bytes.as_chunks::<8>();
        for (out, id) in out.iter_mut().zip(ids) {
            *out = *id;
        }
        Ok(())
    }

    /// Calls `each` with those of a range of rows that have no parent here but were sent with one, and
    /// the id that was sent.
    pub(crate) fn each_orphan(
        &self,
        rows: Range<u32>,
        each: impl FnMut(u32, [u8; 8]),
    ) -> Result<(), Error> {
        self.orphans
            .each(&self.block, rows, &mut GroupCache::default(), each)
    }

    /// The id of the parent that a row was sent with; zeros for none.
    pub(crate) fn parent_id_as_sent(
        &self,
        row: u32,
        cursor: &mut RowCursor<'_>,
    ) -> Result<[u8; 8], Error> {
        if let Some(parent) = cursor.parent(row)? {
            return self.span_id(parent);
        }
        let mut id = [0; 8];
        self.each_orphan(row..row.saturating_add(1), |_, sent| id = sent)?;
        Ok(id)
    }

    /// Attributes of rows.
    pub(crate) fn attributes(&self) -> &AttributeTable {
        &self.attributes
    }

    /// What few spans have, an item a row.
    pub(crate) fn extras(&self) -> Option<&Satellites> {
        self.extras.as_ref()
    }

    /// Events of rows, in the order sent.
    pub(crate) fn events(&self) -> Option<&Satellites> {
        self.events.as_ref()
    }

    /// Links of rows, in the order sent.
    pub(crate) fn links(&self) -> Option<&Satellites> {
        self.links.as_ref()
    }

    /// An error about what stands in a section.
    pub(super) fn damage(&self, section: SectionKind, reason: &str) -> Error {
        self.block.damage(section, 0, reason)
    }
}

/// The classes of rows, by which their attributes are written.
#[derive(Debug)]
struct RowClasses {
    block: Arc<Block>,
    rows: Arc<Rows>,
}

impl ItemClasses for RowClasses {
    fn class_group(&self, group: u32, out: &mut Vec<u32>) -> Result<(), Error> {
        self.rows.class_group(&self.block, group, out)
    }
}

impl OwnerSource for SpanBlock {
    fn classes(&self) -> &[ClassRow] {
        self.classes()
    }

    fn symbol(&self, symbol: u32) -> Arc<str> {
        let text = self.symbols().get(symbol as usize).cloned();
        text.unwrap_or_else(|| Arc::from(""))
    }

    fn resource(&self, resource: u32) -> Result<Arc<Resource>, Error> {
        self.resource(resource)
    }

    fn scope(&self, scope: u32) -> Result<Arc<Scope>, Error> {
        self.scope(scope)
    }
}

/// Reads rows in any order; fastest where one is near the one before. Keeps a group of each column.
#[derive(Clone, Debug)]
pub(crate) struct RowCursor<'b> {
    block: &'b SpanBlock,
    groups: RowGroups,
}

impl<'b> RowCursor<'b> {
    pub(crate) fn new(block: &'b SpanBlock) -> Self {
        Self {
            block,
            groups: RowGroups::default(),
        }
    }

    /// Its class: the table has it.
    #[inline]
    pub(crate) fn class(&mut self, row: u32) -> Result<u32, Error> {
        let SpanBlock { rows, block, .. } = self.block;
        self.groups.class(rows, block, row)
    }

    /// The row of its parent, which lies before it.
    #[inline]
    pub(crate) fn parent(&mut self, row: u32) -> Result<Option<u32>, Error> {
        let distance = self.parent_distance(row)?;
        Ok(row.checked_sub(distance).filter(|_| distance > 0))
    }

    /// The distance back to its parent; 0: it has none.
    #[inline]
    pub(crate) fn parent_distance(&mut self, row: u32) -> Result<u32, Error> {
        let SpanBlock { rows, block, .. } = self.block;
        self.groups.parent(rows, block, row)
    }

    /// Its descendants, which are the rows right behind it.
    #[inline]
    pub(crate) fn subtree(&mut self, row: u32) -> Result<u32, Error> {
        let SpanBlock { rows, block, .. } = self.block;
        self.groups.subtree(rows, block, row)
    }

    /// Its start, ns since the epoch.
    #[inline]
    pub(crate) fn start_ns(&mut self, row: u32) -> Result<i64, Error> {
        let SpanBlock { rows, block, .. } = self.block;
        self.groups.start_ns(rows, block, row)
    }

    /// Its duration, ns.
    #[inline]
    pub(crate) fn duration_ns(&mut self, row: u32) -> Result<u64, Error> {
        let SpanBlock { rows, block, .. } = self.block;
        self.groups.duration_ns(rows, block, row)
    }
}
