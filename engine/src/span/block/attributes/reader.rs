//! An open table, and the attributes of single items.

use std::sync::{Arc, OnceLock};

use super::{
    GROUP_ITEMS, ItemClasses,
    codes::GroupScratch,
    layout::{Field, Head, Layout},
    rest::{Rest, RestCursor},
    shapes::ALL_REST,
};
use crate::{
    block::{Block, SectionKind},
    error::Error,
    span::{
        block::column::{ColumnCursor, ColumnSource, NoClasses},
        model::Attributes,
    },
    value::Value,
};

/// An attribute table that can be read. Shared by reference; holds little until something is asked.
#[derive(Debug)]
pub(crate) struct AttributeTable {
    pub(super) source: ColumnSource,
    pub(super) classes: Arc<dyn ItemClasses>,
    head: Head,
    layout: OnceLock<Box<Layout>>,
    rest: OnceLock<Rest>,
}

/// What was decoded last of a table: one group of items, and where the occurrences of its columns stand.
/// One cursor serves one table. Items in rising order cost least.
#[derive(Debug, Default)]
pub(crate) struct AttributeCursor {
    group: Option<u32>,
    scratch: GroupScratch,
    /// The shapes of the group's items.
    shapes: Vec<u32>,
    /// Items of the group whose fields are counted in `counts`.
    counted: usize,
    /// How often each column occurs in them.
    counts: Vec<u32>,
    /// Where the group's occurrences of each column begin, as far as it was asked.
    begins: Vec<Option<u32>>,
    columns: Vec<ColumnCursor>,
    rest: RestCursor,
    /// Entries of the rest that the item has: ends of keys and values in `item_rest_bytes`.
    item_rest: Vec<(usize, usize)>,
    item_rest_bytes: Vec<u8>,
    encoded: Vec<u8>,
}

/// Where an attribute stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Fixed,
    Column,
    Rest,
}

/// What is done with an attribute: its key's number in the layout, if it has one, its key, its encoded
/// value, and where it stands.
pub(super) type VisitAttribute<'v> =
    dyn FnMut(Option<u32>, &str, &[u8], Origin) -> Result<(), Error> + 'v;

impl AttributeTable {
    /// Opens the table with this head in a section. Reads nothing of the section: that is done when
    /// something is asked. `classes` are those that the table was written with.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`].
    pub(crate) fn open(
        block: Arc<Block>,
        section: SectionKind,
        head: &[u8],
        classes: Arc<dyn ItemClasses>,
    ) -> Result<Self, Error> {
        Self::from_source(ColumnSource::Section(block, section), head, classes)
    }

    /// The same for bytes that lie elsewhere.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`].
    pub(crate) fn from_source(
        source: ColumnSource,
        head: &[u8],
        classes: Arc<dyn ItemClasses>,
    ) -> Result<Self, Error> {
        let head = Head::decode(head, &source)?;
        Ok(Self {
            source,
            classes,
            head,
            layout: OnceLock::new(),
            rest: OnceLock::new(),
        })
    }

    /// How many items it has.
    pub(crate) fn items(&self) -> u32 {
        self.head.items
    }

    /// Memory that it takes now.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.layout.get().map_or(0, |layout| layout.heap_bytes())
            + self.rest.get().map_or(0, Rest::heap_bytes)
    }

    pub(super) fn layout(&self) -> Result<&Layout, Error> {
        if let Some(layout) = self.layout.get() {
            return Ok(layout);
        }
        let layout = Layout::open(&self.source, &self.head)?;
        Ok(self.layout.get_or_init(|| Box::new(layout)))
    }

    pub(super) fn rest(&self) -> Result<&Rest, Error> {
        if let Some(rest) = self.rest.get() {
            return Ok(rest);
        }
        let rest = Rest::open(&self.source, self.head.rest, self.head.rest_pages)?;
        Ok(self.rest.get_or_init(|| rest))
    }

    /// Appends the attributes of an item, in the order sent; none for an item that there is not.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`], [`Error::Storage`]. What was appended then is no whole answer.
    pub(crate) fn attributes(
        &self,
        item: u32,
        cursor: &mut AttributeCursor,
        out: &mut Attributes,
    ) -> Result<(), Error> {
        let keys = &self.layout()?.keys;
        self.visit_item(item, None, cursor, &mut |number, key, encoded, _| {
            let mut input = encoded;
            let value = Value::decode(&mut input).filter(|_| input.is_empty());
            let value = value.ok_or_else(|| self.source.damaged(0, "an attribute has no value"))?;
            let known = number.and_then(|number| keys.get(number as usize));
            out.push((known.map_or_else(|| Arc::from(key), Arc::clone), value));
            Ok(())
        })
    }

    /// Decodes the shapes of a group into the emptied `out`.
    pub(super) fn group_shapes(
        &self,
        layout: &Layout,
        group: u32,
        scratch: &mut GroupScratch,
        out: &mut Vec<u32>,
    ) -> Result<(), Error> {
        layout
            .codes
            .decode_group(&self.source, &*self.classes, group, scratch, out)
    }

    /// Visits the attributes of an item, or those of one key, in the order sent.
    pub(super) fn visit_item(
        &self,
        item: u32,
        only_key: Option<&str>,
        cursor: &mut AttributeCursor,
        visit: &mut VisitAttribute<'_>,
    ) -> Result<(), Error> {
        if item >= self.head.items {
            return Ok(());
        }
        let layout = self.layout()?;
        self.seek(layout, item, cursor)?;
        let result = self.visit_fields(layout, item, only_key, cursor, visit);
        if result.is_err() {
            // What was counted of this item is not known.
            cursor.group = None;
        }
        result
    }

    /// Loads the group of an item and counts the fields before it.
    fn seek(&self, layout: &Layout, item: u32, cursor: &mut AttributeCursor) -> Result<(), Error> {
        let group = item / GROUP_ITEMS;
        let at = (item % GROUP_ITEMS) as usize;
        if cursor.group != Some(group) {
            cursor.group = None;
            let AttributeCursor {
                scratch, shapes, ..
            } = cursor;
            self.group_shapes(layout, group, scratch, shapes)?;
            cursor.group = Some(group);
            cursor.begins.clear();
            cursor.begins.resize(layout.columns.len(), None);
            cursor.counted = usize::MAX;
            cursor
                .columns
                .resize_with(layout.columns.len(), ColumnCursor::default);
        }
        if cursor.counted > at {
            cursor.counted = 0;
            cursor.counts.clear();
            cursor.counts.resize(layout.columns.len(), 0);
        }
        let between = cursor.shapes.get(cursor.counted..at);
        for &shape in between.unwrap_or_default() {
            for &field in layout.shapes.fields(shape) {
                if let Field::Column(column) = layout.field(field)
                    && let Some(count) = cursor.counts.get_mut(column)
                {
                    *count += 1;
                }
            }
        }
        cursor.counted = at;
        Ok(())
    }

    /// Visits the item that the cursor stands before, and passes it.
    fn visit_fields(
        &self,
        layout: &Layout,
        item: u32,
        only_key: Option<&str>,
        cursor: &mut AttributeCursor,
        visit: &mut VisitAttribute<'_>,
    ) -> Result<(), Error> {
        let wanted = only_key.map(|key| layout.find_key(key));
        let is_wanted = |key: u32| wanted.is_none_or(|wanted| wanted == Some(key));
        let text = |key: u32| layout.keys.get(key as usize).map_or("", |key| key);
        let shape = cursor.shapes.get(cursor.counted).copied();
        let fields = layout.shapes.fields(shape.unwrap_or(u32::MAX));
        let mut rest_fields = 0;
        for &field in fields {
            match layout.field(field) {
                Field::Rest => {
                    if rest_fields == 0 {
                        self.load_item_rest(item, cursor)?;
                    }
                    let from = rest_fields;
                    rest_fields = if field == ALL_REST {
                        cursor.item_rest.len()
                    } else {
                        from + 1
                    };
                    for entry in from..rest_fields {
                        let Some((key, value)) = cursor.item_rest_entry(entry) else {
                            return Err(self.other_rest());
                        };
                        if only_key.is_none_or(|only| only == key) {
                            visit(None, key, value, Origin::Rest)?;
                        }
                    }
                }
                Field::Fixed(fixed) => {
                    let key = layout.fixed_key(fixed);
                    if is_wanted(key) {
                        let value = layout.fixed_values.get(fixed);
                        visit(Some(key), text(key), value, Origin::Fixed)?;
                    }
                }
                Field::Column(column) => {
                    let Some(entry) = layout.columns.get(column) else {
                        continue;
                    };
                    if is_wanted(entry.key) {
                        self.column_value(layout, column, cursor)?;
                        visit(
                            Some(entry.key),
                            text(entry.key),
                            &cursor.encoded,
                            Origin::Column,
                        )?;
                    }
                    if let Some(count) = cursor.counts.get_mut(column) {
                        *count += 1;
                    }
                }
            }
        }
        if rest_fields > 0 && rest_fields != cursor.item_rest.len() {
            return Err(self.other_rest());
        }
        cursor.counted += 1;
        Ok(())
    }

    #[cold]
    fn other_rest(&self) -> Error {
        self.source.damaged(
            self.head.rest.start,
            "an item has another number of entries in the rest than its shape says",
        )
    }

    /// Reads the occurrence of a column that the cursor stands before into `cursor.encoded`.
    fn column_value(
        &self,
        layout: &Layout,
        column: usize,
        cursor: &mut AttributeCursor,
    ) -> Result<(), Error> {
        let AttributeCursor {
            group,
            counts,
            begins,
            columns,
            encoded,
            ..
        } = cursor;
        let (Some(entry), Some(begin), Some(&count), Some(column_cursor)) = (
            layout.columns.get(column),
            begins.get_mut(column),
            counts.get(column),
            columns.get_mut(column),
        ) else {
            return Err(self.source.damaged(0, "a column that there is not"));
        };
        let first = match *begin {
            Some(first) => first,
            None => *begin.insert(entry.begins.read_one(&self.source, group.unwrap_or(0))?),
        };
        let occurrence = first.checked_add(count);
        let occurrence = occurrence.filter(|&o| o < entry.begins.occurrences());
        let occurrence = occurrence.ok_or_else(|| self.beyond_column())?;
        encoded.clear();
        let opened = entry.open(&self.source)?;
        opened.value(occurrence, &NoClasses, column_cursor, encoded)
    }

    #[cold]
    pub(super) fn beyond_column(&self) -> Error {
        self.source.damaged(
            self.head.directory.start,
            "items have more occurrences of a column than it has",
        )
    }

    fn load_item_rest(&self, item: u32, cursor: &mut AttributeCursor) -> Result<(), Error> {
        let AttributeCursor {
            rest,
            item_rest,
            item_rest_bytes,
            ..
        } = cursor;
        item_rest.clear();
        item_rest_bytes.clear();
        self.rest()?
            .visit_item(&self.source, item, rest, &mut |key, value| {
                item_rest_bytes.extend_from_slice(key.as_bytes());
                let key_end = item_rest_bytes.len();
                item_rest_bytes.extend_from_slice(value);
                item_rest.push((key_end, item_rest_bytes.len()));
                Ok(())
            })
    }

    /// Says for people what the table is made of.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`], [`Error::Storage`].
    #[cfg(test)]
    pub(crate) fn describe(&self, line: &mut dyn FnMut(String)) -> Result<(), Error> {
        let layout = self.layout()?;
        let rest = self.rest()?;
        line(format!(
            "{} items, {} shapes, {} columns, {} fixed pairs, codes {} B, directory {} B, {} pages of rest",
            self.head.items,
            layout.shapes.len(),
            layout.columns.len(),
            layout.fixed_keys.len(),
            self.head.codes.bytes(),
            self.head.directory.bytes,
            rest.pages()
        ));
        for entry in &layout.columns {
            let column = entry.open(&self.source)?;
            let key = layout.keys.get(entry.key as usize).map_or("", |key| key);
            let bytes = column.section_bytes();
            line(format!(
                "{key} ({:?}): {} occurrences, {bytes} B, begins {} B, {}",
                entry.kind,
                column.len(),
                entry.begins.bytes(),
                column.describe()
            ));
        }
        let keys: hashbrown::HashSet<u32> = layout.fixed_keys.iter().copied().collect();
        for key in keys {
            let pairs = layout.fixed_keys.iter().filter(|of| **of == key).count();
            let key = layout.keys.get(key as usize).map_or("", |key| key);
            line(format!("{key}: {pairs} fixed"));
        }
        Ok(())
    }

    /// For errors about the table as a whole.
    pub(super) fn directory_start(&self) -> u64 {
        self.head.directory.start
    }
}

impl AttributeCursor {
    fn item_rest_entry(&self, entry: usize) -> Option<(&str, &[u8])> {
        let &(key_end, value_end) = self.item_rest.get(entry)?;
        let before = entry.checked_sub(1).and_then(|e| self.item_rest.get(e));
        let start = before.map_or(0, |&(_, end)| end);
        let key = std::str::from_utf8(self.item_rest_bytes.get(start..key_end)?).ok()?;
        Some((key, self.item_rest_bytes.get(key_end..value_end)?))
    }
}
