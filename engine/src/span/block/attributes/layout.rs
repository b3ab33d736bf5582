//! What a reader holds of a table: keys, columns, fixed pairs, shapes, and where everything else lies.

use std::sync::{Arc, OnceLock};

use hashbrown::HashSet;

use super::{
    ValueType,
    codes::{CodePlaces, ShapeCodes},
    placed::{Fields, Place},
    places::Begins,
    shapes::{ALL_REST, FIRST_COLUMN, Shapes},
};
use crate::{
    error::Error,
    span::block::column::{Column, ColumnSource, ValueTable},
    value,
    varint::{put_bytes, put_u64},
};

/// First byte of a head.
const VERSION: u8 = 1;

/// What the owner of a table keeps of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) items: u32,
    pub(super) directory: Place,
    pub(super) codes: CodePlaces,
    pub(super) rest: Place,
    /// Where the pages of the rest begin.
    pub(super) rest_pages: u64,
}

impl Head {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_u64(&mut out, u64::from(self.items));
        self.directory.write(&mut out);
        self.codes.write(&mut out);
        self.rest.write(&mut out);
        put_u64(&mut out, self.rest_pages);
        out
    }

    pub(super) fn decode(head: &[u8], source: &ColumnSource) -> Result<Self, Error> {
        let mut input = Fields::new(source, 0, head);
        if input.slice(1)? != [VERSION] {
            return Err(input.damaged("unknown version of an attribute table"));
        }
        let head = Self {
            items: input.number_to(u32::MAX, "an attribute table of too many items")?,
            directory: input.place()?,
            codes: CodePlaces::read(&mut input)?,
            rest: input.place()?,
            rest_pages: input.number()?,
        };
        if input.left() > 0 {
            return Err(input.damaged("bytes behind the head of an attribute table"));
        }
        Ok(head)
    }
}

/// A column and where it lies.
#[derive(Debug)]
pub(super) struct ColumnEntry {
    /// Number of its key.
    pub(super) key: u32,
    pub(super) kind: ValueType,
    pub(super) begins: Begins,
    head: Box<[u8]>,
    column: OnceLock<Column>,
}

impl ColumnEntry {
    /// The column, opened on first use.
    pub(super) fn open(&self, source: &ColumnSource) -> Result<&Column, Error> {
        if let Some(column) = self.column.get() {
            return Ok(column);
        }
        let column = Column::open(&self.head, source.clone())?;
        if column.needs_classes() || column.len() != self.begins.occurrences() {
            return Err(source.damaged(0, "an attribute column is not the one of its table"));
        }
        Ok(self.column.get_or_init(|| column))
    }
}

/// What is written of a column.
#[derive(Debug)]
pub(super) struct WrittenColumn {
    pub(super) key: u32,
    pub(super) kind: ValueType,
    pub(super) begins: Begins,
    pub(super) head: Vec<u8>,
}

/// Keys, columns, fixed pairs and shapes, while they are written.
#[derive(Debug, Default)]
pub(super) struct DirectoryWriter {
    out: Vec<u8>,
}

impl DirectoryWriter {
    pub(super) fn keys<'k>(&mut self, keys: impl ExactSizeIterator<Item = &'k str>) {
        put_u64(&mut self.out, keys.len() as u64);
        for key in keys {
            put_bytes(&mut self.out, key.as_bytes());
        }
    }

    pub(super) fn columns(&mut self, columns: &[WrittenColumn]) {
        put_u64(&mut self.out, columns.len() as u64);
        for column in columns {
            put_u64(&mut self.out, u64::from(column.key));
            self.out.push(column.kind as u8);
            column.begins.write(&mut self.out);
            put_bytes(&mut self.out, &column.head);
        }
    }

    pub(super) fn fixed<'v>(&mut self, pairs: impl ExactSizeIterator<Item = (u32, &'v [u8])>) {
        put_u64(&mut self.out, pairs.len() as u64);
        for (key, value) in pairs {
            put_u64(&mut self.out, u64::from(key));
            put_bytes(&mut self.out, value);
        }
    }

    pub(super) fn shapes<'f>(&mut self, shapes: impl ExactSizeIterator<Item = (u64, &'f [u32])>) {
        put_u64(&mut self.out, shapes.len() as u64);
        for (items, fields) in shapes {
            put_u64(&mut self.out, items);
            put_u64(&mut self.out, fields.len() as u64);
            for &field in fields {
                put_u64(&mut self.out, u64::from(field));
            }
        }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.out
    }
}

/// A field of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// The next entry of the rest, or all entries.
    Rest,
    /// An occurrence of a column.
    Column(usize),
    /// A fixed pair.
    Fixed(u32),
}

/// What is held of a table.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) keys: Vec<Arc<str>>,
    pub(super) columns: Vec<ColumnEntry>,
    pub(super) fixed_keys: Vec<u32>,
    pub(super) fixed_values: ValueTable,
    pub(super) shapes: Shapes,
    pub(super) codes: ShapeCodes,
}

impl Layout {
    pub(super) fn open(source: &ColumnSource, head: &Head) -> Result<Self, Error> {
        let bytes = head.directory.read(source)?;
        let mut input = Fields::new(source, head.directory.start, &bytes);
        let mut keys: Vec<Arc<str>> = Vec::new();
        let mut known = HashSet::new();
        for _ in 0..input.count()? {
            let key = input.text()?;
            if !known.insert(key) {
                return Err(input.damaged("a key is listed twice"));
            }
            keys.push(Arc::from(key));
        }
        let mut known_columns = HashSet::new();
        let last_key = u32::try_from(keys.len()).unwrap_or(u32::MAX).checked_sub(1);
        let key_of = |input: &mut Fields<'_>| match last_key {
            Some(last) => input.number_to(last, "a key that there is not"),
            None => Err(input.damaged("a key that there is not")),
        };
        let mut columns = Vec::new();
        for _ in 0..input.count()? {
            let key = key_of(&mut input)?;
            let kind = input.slice(1)?.first().copied();
            let kind = kind.and_then(ValueType::from_code);
            let kind = kind.ok_or_else(|| input.damaged("unknown type of a column"))?;
            if !known_columns.insert((key, kind)) {
                return Err(input.damaged("a column is listed twice"));
            }
            columns.push(ColumnEntry {
                key,
                kind,
                begins: Begins::read(&mut input, head.items)?,
                head: Box::from(input.bytes()?),
                column: OnceLock::new(),
            });
        }
        let mut fixed_keys = Vec::new();
        let mut fixed_values = ValueTable::default();
        for _ in 0..input.count()? {
            fixed_keys.push(key_of(&mut input)?);
            let encoded = input.bytes()?;
            let mut rest = encoded;
            if value::skip(&mut rest).is_none() || !rest.is_empty() {
                return Err(input.damaged("a fixed value is none"));
            }
            if fixed_values.push(encoded).is_none() {
                return Err(input.damaged("fixed values of more than 4 GiB"));
            }
        }
        let fields = FIRST_COLUMN as usize + columns.len() + fixed_keys.len();
        let fields = u32::try_from(fields).unwrap_or(u32::MAX);
        let shapes = read_shapes(&mut input, head.items, fields)?;
        if input.left() > 0 {
            return Err(input.damaged("bytes behind the directory of an attribute table"));
        }
        let codes = ShapeCodes::open(source, &head.codes, head.items, shapes.len())?;
        Ok(Self {
            keys,
            columns,
            fixed_keys,
            fixed_values,
            shapes,
            codes,
        })
    }

    /// What a field stands for.
    #[inline]
    pub(super) fn field(&self, field: u32) -> Field {
        match field.checked_sub(FIRST_COLUMN) {
            None => Field::Rest,
            Some(column) if (column as usize) < self.columns.len() => {
                Field::Column(column as usize)
            }
            Some(other) => {
                let columns = u32::try_from(self.columns.len()).unwrap_or(u32::MAX);
                Field::Fixed(other.saturating_sub(columns))
            }
        }
    }

    /// The number and text of the key of a fixed pair.
    pub(super) fn fixed_key(&self, fixed: u32) -> u32 {
        let key = self.fixed_keys.get(fixed as usize).copied();
        key.unwrap_or(u32::MAX)
    }

    /// The numbers of a key: once, but for damage.
    pub(super) fn find_key(&self, key: &str) -> Option<u32> {
        let at = self.keys.iter().position(|known| **known == *key)?;
        u32::try_from(at).ok()
    }

    /// How often a column stands in each shape.
    pub(super) fn occurrences_by_shape(&self, column: usize) -> Vec<u16> {
        let field = FIRST_COLUMN.saturating_add(u32::try_from(column).unwrap_or(u32::MAX));
        let count = |shape| {
            let fields = self.shapes.fields(shape);
            let count = fields.iter().filter(|&&f| f == field).count();
            u16::try_from(count).unwrap_or(u16::MAX)
        };
        (0..self.shapes.len()).map(count).collect()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let of_column = |column: &ColumnEntry| {
            size_of::<ColumnEntry>() + column.begins.heap_bytes() + column.head.len()
        };
        self.keys.iter().map(|key| key.len() + 32).sum::<usize>()
            + self.columns.iter().map(of_column).sum::<usize>()
            + self.fixed_keys.capacity() * size_of::<u32>()
            + self.fixed_values.heap_bytes()
            + self.shapes.heap_bytes()
            + self.codes.heap_bytes()
    }
}

fn read_shapes(input: &mut Fields<'_>, items: u32, fields: u32) -> Result<Shapes, Error> {
    let mut shapes = Shapes::default();
    let mut sum = 0;
    for _ in 0..input.count()? {
        let with_it = input.number_to(items - sum, "more items have shapes than there are")?;
        sum += with_it;
        let count = input.count()?;
        // What counts occurrences of a column in a shape has 16 bits.
        if count > usize::from(u16::MAX) {
            return Err(input.damaged("a shape has too many fields"));
        }
        for _ in 0..count {
            let field = input.number_to(fields - 1, "a shape has a field that there is not")?;
            if field == ALL_REST && count > 1 {
                return Err(input.damaged("a shape has all its fields in the rest, and others"));
            }
            shapes.fields.push(field);
        }
        let end = u32::try_from(shapes.fields.len());
        shapes
            .ends
            .push(end.map_err(|_| input.damaged("shapes have too many fields"))?);
        shapes.items.push(with_it);
    }
    if sum != items {
        return Err(input.damaged("fewer items have shapes than there are"));
    }
    Ok(shapes)
}
