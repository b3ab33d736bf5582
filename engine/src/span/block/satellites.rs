//! What hangs on rows: events, links, and the extras that few spans have.
//!
//! Items of one kind are numbered in the order of their rows, and of the span they came with. Two tables
//! of attributes hold what they say: *fields*, which are those of the kind under names of our own, and
//! *attributes*, which senders choose. `sparse.rs` holds the row of each item.
//!
//! | kind | fields |
//! | --- | --- |
//! | extras, one item a row | `message`, `trace_state`, `dropped_attributes`, `dropped_events`, `dropped_links`; no attributes |
//! | events | `time` (ns from the span's start), `name`, `dropped` |
//! | links | `trace`, `span` (ids as bytes), `trace_state`, `flags`, `dropped` |
//!
//! A field that says nothing (an empty text, a zero) is left out, but for an event's time and name.

use std::{ops::Range, sync::Arc};

use hashbrown::HashMap;
use roaring::RoaringBitmap;

use super::{
    attributes::{
        AttributeCursor, AttributeSource, AttributeTable, ItemContext, ItemRun, LooseAttributes,
        OneClass, write_attributes,
    },
    directory::{HeadReader, Wrong},
    groups::GroupCache,
    sparse::{SparseRows, SparseWriter},
    writer::{Go, RowRun},
};
use crate::{
    block::{Block, BlockWriter, SectionKind},
    error::Error,
    span::model::Attributes,
    value::ValueRef,
    varint,
};

/// The text that is said of how a span ended.
pub(crate) const MESSAGE: &str = "message";
/// W3C trace state, of spans and of links.
pub(crate) const TRACE_STATE: &str = "trace_state";
/// Attributes of a span that the sender left out.
pub(crate) const DROPPED_ATTRIBUTES: &str = "dropped_attributes";
/// Events that the sender left out.
pub(crate) const DROPPED_EVENTS: &str = "dropped_events";
/// Links that the sender left out.
pub(crate) const DROPPED_LINKS: &str = "dropped_links";
/// When an event happened, from the start of its span, ns.
pub(crate) const TIME: &str = "time";
/// What happened.
pub(crate) const NAME: &str = "name";
/// Attributes of an event or link that the sender left out.
pub(crate) const DROPPED: &str = "dropped";
/// The trace that a link points to.
pub(crate) const TRACE: &str = "trace";
/// The span that a link points to.
pub(crate) const SPAN: &str = "span";
/// OTLP's flags of a link.
pub(crate) const FLAGS: &str = "flags";

/// Items in memory.
#[derive(Debug, Default)]
pub(super) struct LooseItems {
    /// The row of each, rising.
    pub(super) rows: Vec<u32>,
    pub(super) fields: LooseAttributes,
    pub(super) attributes: LooseAttributes,
    field_keys: HashMap<&'static str, u32>,
    /// Pairs of fields that come again, by key and encoded value.
    known: HashMap<(u32, Vec<u8>), u32>,
    /// The fields of the item at hand.
    open: Vec<u32>,
    scratch: Vec<u8>,
}

/// Fields that are kept once however often they come.
const KNOWN_MAX: usize = 1 << 16;

impl LooseItems {
    /// Memory held.
    pub(super) fn heap_bytes(&self) -> usize {
        let known = self.known.keys().map(|(_, value)| value.len() + 48);
        self.rows.capacity() * size_of::<u32>()
            + self.fields.heap_bytes()
            + self.attributes.heap_bytes()
            + known.sum::<usize>()
    }

    /// Adds a field to the item at hand.
    pub(super) fn field(&mut self, key: &'static str, value: ValueRef<'_>) -> Result<(), Error> {
        let number = match self.field_keys.get(key) {
            Some(number) => *number,
            None => {
                let number = u32::try_from(self.fields.keys.len()).unwrap_or(u32::MAX);
                self.fields.keys.push(Arc::from(key));
                self.field_keys.insert(key, number);
                number
            }
        };
        let mut value_bytes = std::mem::take(&mut self.scratch);
        value_bytes.clear();
        // Plain values are not nested.
        let _ = value.encode(&mut value_bytes);
        let id = (number, value_bytes);
        let pair = match self.known.get(&id) {
            Some(pair) => Some(*pair),
            None => {
                let pair = self.fields.values.push(number, &id.1);
                if let (true, Some(pair)) = (self.known.len() < KNOWN_MAX, pair) {
                    self.known.insert(id.clone(), pair);
                }
                pair
            }
        };
        self.scratch = id.1;
        self.open.push(pair.ok_or(TOO_LARGE)?);
        Ok(())
    }

    /// Ends the item at hand, which is of `row`. Its attributes are still to be appended.
    pub(super) fn end(&mut self, row: u32) {
        self.rows.push(row);
        self.fields.push_tags(self.open.drain(..));
    }

    /// Ends the item at hand, which has no attributes. One without any field is none.
    pub(super) fn end_if_any(&mut self, row: u32) {
        if !self.open.is_empty() {
            self.end(row);
            self.attributes.push_tags([]);
        }
    }

    /// The items of a range of rows.
    pub(super) fn items_of(&self, rows: Range<u32>) -> Range<u32> {
        let place = |row| self.rows.partition_point(|&other| other < row);
        let number = |place| u32::try_from(place).unwrap_or(u32::MAX);
        number(place(rows.start))..number(place(rows.end))
    }
}

/// What is said when tables of memory have no numbers left.
pub(super) const TOO_LARGE: Error = Error::Unsupported("4 GiB of attribute values in one block");

/// Where the items of a run of rows come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum ItemSource<'a> {
    Block(&'a Block, &'a Satellites),
    Loose(&'a LooseItems),
}

/// Writes the items of the rows of `runs` as section `section`, and gives its head; `None`, and no
/// section, if there are none. `trace_of` says the trace of each row of the new block.
pub(super) fn write(
    writer: &mut BlockWriter,
    section: SectionKind,
    sources: &[ItemSource<'_>],
    runs: &[RowRun],
    trace_of: &[u32],
    ctl: Go<'_>,
) -> Result<Option<Vec<u8>>, Error> {
    let (item_runs, rows) = moved_items(sources, runs, ctl)?;
    if rows.is_empty() {
        return Ok(None);
    }
    writer.begin(section)?;
    let mut head = Vec::new();
    let mut sparse = SparseWriter::new();
    for &row in &rows {
        sparse.push(writer, row)?;
    }
    sparse.finish(writer, &mut head)?;
    let class_of = vec![0; rows.len()];
    let mut owner_of = rows;
    for row in &mut owner_of {
        *row = trace_of.get(*row as usize).copied().unwrap_or(u32::MAX);
    }
    let context = ItemContext {
        class_of: &class_of,
        owner_of: &owner_of,
    };
    let tables: [fn(ItemSource<'_>) -> AttributeSource<'_>; 2] = [
        |source| match source {
            ItemSource::Block(_, items) => AttributeSource::Table(&items.fields),
            ItemSource::Loose(items) => AttributeSource::Loose(&items.fields),
        },
        |source| match source {
            ItemSource::Block(_, items) => AttributeSource::Table(&items.attributes),
            ItemSource::Loose(items) => AttributeSource::Loose(&items.attributes),
        },
    ];
    for table in tables {
        let sources: Vec<AttributeSource<'_>> =
            sources.iter().map(|&source| table(source)).collect();
        let bytes = write_attributes(writer, &sources, &item_runs, &context, ctl)?;
        varint::put_bytes(&mut head, &bytes);
    }
    Ok(Some(head))
}

/// Runs of items, and the row of each in the new block.
fn moved_items(
    sources: &[ItemSource<'_>],
    runs: &[RowRun],
    ctl: Go<'_>,
) -> Result<(Vec<ItemRun>, Vec<u32>), Error> {
    let mut item_runs: Vec<ItemRun> = Vec::new();
    let mut rows = Vec::new();
    let mut cursors: Vec<GroupCache> = Vec::new();
    cursors.resize_with(sources.len(), GroupCache::default);
    let mut first_row = 0u32;
    for run in runs {
        let range = run.first_row..run.first_row.saturating_add(run.rows);
        let source = sources.get(run.source as usize);
        let cursor = cursors.get_mut(run.source as usize);
        if let (Some(source), Some(cursor)) = (source, cursor) {
            let moved = |row: u32| row.wrapping_sub(run.first_row).wrapping_add(first_row);
            let items = match source {
                ItemSource::Loose(items) => {
                    let found = items.items_of(range);
                    let of_run = items.rows.get(found.start as usize..found.end as usize);
                    rows.extend(of_run.unwrap_or_default().iter().map(|row| moved(*row)));
                    found
                }
                ItemSource::Block(block, items) => {
                    let found = items.rows.items_of(block, range, cursor)?;
                    for item in found.clone() {
                        rows.push(moved(items.rows.row(block, item, cursor)?));
                    }
                    found
                }
            };
            push_run(&mut item_runs, run.source, items);
        }
        first_row += run.rows;
        ctl()?;
    }
    Ok((item_runs, rows))
}

/// Appends a run, to the one before if it goes on there.
fn push_run(runs: &mut Vec<ItemRun>, source: u32, items: Range<u32>) {
    let new = ItemRun {
        source,
        first: items.start,
        items: items.end - items.start,
    };
    match runs.last_mut() {
        _ if items.is_empty() => {}
        Some(last) if last.source == source && last.first + last.items == new.first => {
            last.items += new.items;
        }
        _ => runs.push(new),
    }
}

/// Items of a block.
#[derive(Debug)]
pub(crate) struct Satellites {
    rows: SparseRows,
    fields: AttributeTable,
    attributes: AttributeTable,
}

/// What a reader of items keeps.
#[derive(Debug, Default)]
pub(crate) struct SatelliteCursor {
    rows: GroupCache,
    fields: AttributeCursor,
    attributes: AttributeCursor,
}

impl Satellites {
    /// `head` is what [`write`] gave; `None` for a block that has no such items.
    pub(super) fn open(
        block: &Arc<Block>,
        section: SectionKind,
        head: &[u8],
        rows: u32,
    ) -> Result<Option<Self>, Error> {
        if head.is_empty() {
            return Ok(None);
        }
        let mut head = HeadReader::new(head);
        let mut parts = || -> Result<_, Wrong> {
            let rows = SparseRows::open(section, rows, &mut head)?;
            let (fields, attributes) = (head.bytes()?, head.bytes()?);
            head.end()?;
            Ok((rows, fields, attributes))
        };
        let damaged = |reason| block.damage(SectionKind::SpanDirectory, 0, reason);
        let (rows, fields, attributes) = parts().map_err(damaged)?;
        let table = |head| {
            let classes = OneClass { items: rows.len() };
            AttributeTable::open(Arc::clone(block), section, head, Arc::new(classes))
        };
        let (fields, attributes) = (table(fields)?, table(attributes)?);
        if fields.items() != rows.len() || attributes.items() != rows.len() {
            return Err(damaged("tables of items of another number of them"));
        }
        Ok(Some(Self {
            rows,
            fields,
            attributes,
        }))
    }

    /// Items.
    pub(crate) fn len(&self) -> u32 {
        self.rows.len()
    }

    /// What they say under names of ours.
    pub(crate) fn fields(&self) -> &AttributeTable {
        &self.fields
    }

    /// What they say under names of the senders'.
    pub(crate) fn attributes(&self) -> &AttributeTable {
        &self.attributes
    }

    /// Memory held.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.rows.heap_bytes() + self.fields.heap_bytes() + self.attributes.heap_bytes()
    }

    /// The items of a range of rows.
    pub(crate) fn items_of(
        &self,
        block: &Block,
        rows: Range<u32>,
        cursor: &mut SatelliteCursor,
    ) -> Result<Range<u32>, Error> {
        self.rows.items_of(block, rows, &mut cursor.rows)
    }

    /// The row of an item; it rises with the item.
    pub(crate) fn row(
        &self,
        block: &Block,
        item: u32,
        cursor: &mut SatelliteCursor,
    ) -> Result<u32, Error> {
        self.rows.row(block, item, &mut cursor.rows)
    }

    /// The rows that have one of `items`.
    pub(crate) fn rows_of(
        &self,
        block: &Block,
        items: &RoaringBitmap,
    ) -> Result<RoaringBitmap, Error> {
        let mut rows = RoaringBitmap::new();
        let mut cursor = GroupCache::default();
        for item in items {
            rows.insert(self.rows.row(block, item, &mut cursor)?);
        }
        Ok(rows)
    }

    /// Replaces `fields` and `attributes` by those of an item.
    pub(super) fn read(
        &self,
        item: u32,
        cursor: &mut SatelliteCursor,
        fields: &mut Attributes,
        attributes: &mut Attributes,
    ) -> Result<(), Error> {
        fields.clear();
        attributes.clear();
        self.fields.attributes(item, &mut cursor.fields, fields)?;
        self.attributes
            .attributes(item, &mut cursor.attributes, attributes)
    }
}
