//! Keys and values with how many items have them, and the values of given items.
//!
//! Counts come from shapes and dictionaries; only what they count wrongly is read item by item: hidden
//! items, items that have a key several times, and items with the key in the rest.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use roaring::RoaringBitmap;

use super::{
    AttributeCursor, AttributeTable, GROUP_ITEMS, ValueType,
    codes::GroupScratch,
    layout::{Field, Layout},
    reader::Origin,
    rest::{RestCursor, key_hash},
};
use crate::{
    control::QueryControl,
    error::Error,
    span::block::column::{NoClasses, ValueTable},
    value::Value,
};

/// Items that are read one by one between two looks at the control.
const CHECK_ITEMS: u32 = 1024;

/// A key and type, and how many items have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttributeKey {
    pub(crate) key: Arc<str>,
    pub(crate) kind: ValueType,
    /// Items that have it, hidden or not.
    pub(crate) items: u64,
}

/// The first value that each of some items has of a key.
#[derive(Clone, Debug, Default)]
pub(crate) struct AttributeValues {
    /// By item asked for, in rising order: the number of its value, or `u32::MAX` if it has none.
    pub(crate) codes: Vec<u32>,
    /// Values by number, each once.
    pub(crate) values: Vec<Value>,
}

/// Where the first value of a key stands, for all items of a shape.
#[derive(Clone, Copy, Debug)]
enum First {
    Nowhere,
    Fixed(u32),
    /// The column, by its place among those of the key.
    Column(usize),
    /// In the rest perhaps: to be looked at item by item.
    Look,
}

/// A column of the key that is asked for.
#[derive(Debug)]
struct KeyColumn {
    number: usize,
    in_shape: Vec<u16>,
    begins: Vec<u32>,
    wanted: RoaringBitmap,
    /// Which answers the wanted occurrences are.
    answers: Vec<usize>,
}

/// Distinct values by number.
#[derive(Default)]
struct Distinct {
    numbers: HashMap<Vec<u8>, u32>,
    values: Vec<Value>,
}

impl Distinct {
    /// The number of an encoded value; `None` if it is none.
    fn intern(&mut self, encoded: &[u8]) -> Option<u32> {
        if let Some(&number) = self.numbers.get(encoded) {
            return Some(number);
        }
        let mut input = encoded;
        let value = Value::decode(&mut input).filter(|_| input.is_empty())?;
        let number = u32::try_from(self.values.len()).ok()?;
        self.values.push(value);
        self.numbers.insert(encoded.to_vec(), number);
        Some(number)
    }
}

impl AttributeTable {
    /// All keys by type, with how many items have them; in no order.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`], [`Error::Storage`], and those of `ctl`.
    pub(crate) fn keys(&self, ctl: &QueryControl) -> Result<Vec<AttributeKey>, Error> {
        ctl.check()?;
        let layout = self.layout()?;
        let mut counts: HashMap<Arc<str>, [u64; ValueType::ALL.len()]> = HashMap::new();
        let mut of_shape = Vec::new();
        for shape in 0..layout.shapes.len() {
            layout.kinds_of_shape(shape, &mut of_shape);
            for &(key, kind) in &of_shape {
                let Some(key) = layout.keys.get(key as usize) else {
                    continue;
                };
                let of_key = counts.entry(Arc::clone(key)).or_default();
                if let Some(count) = of_key.get_mut(kind as usize) {
                    *count += u64::from(layout.shapes.items(shape));
                }
            }
        }
        self.count_rest_keys(layout, &mut counts, ctl)?;
        let mut keys = Vec::new();
        for (key, counts) in counts {
            for (kind, items) in ValueType::ALL.into_iter().zip(counts) {
                if items > 0 {
                    keys.push(AttributeKey {
                        key: Arc::clone(&key),
                        kind,
                        items,
                    });
                }
            }
        }
        Ok(keys)
    }

    /// Adds what items have in the rest, but not in a column or fixed as well.
    fn count_rest_keys(
        &self,
        layout: &Layout,
        counts: &mut HashMap<Arc<str>, [u64; ValueType::ALL.len()]>,
        ctl: &QueryControl,
    ) -> Result<(), Error> {
        let rest = self.rest()?;
        let (mut cursor, mut scratch) = (RestCursor::default(), GroupScratch::default());
        let mut shapes = Vec::new();
        let mut group = None;
        let mut last_item = None;
        // What the item has, by hash of the key where it is in no column.
        let mut has: HashSet<(u64, ValueType)> = HashSet::new();
        let mut of_shape = Vec::new();
        for page in 0..rest.pages() {
            ctl.check()?;
            rest.visit_page(&self.source, page, &mut cursor, &mut |item, key, value| {
                if item >= self.items() {
                    return Ok(());
                }
                if last_item != Some(item) {
                    last_item = Some(item);
                    has.clear();
                    if group != Some(item / GROUP_ITEMS) {
                        group = Some(item / GROUP_ITEMS);
                        self.group_shapes(layout, item / GROUP_ITEMS, &mut scratch, &mut shapes)?;
                    }
                    let shape = shapes.get((item % GROUP_ITEMS) as usize).copied();
                    layout.kinds_of_shape(shape.unwrap_or(u32::MAX), &mut of_shape);
                    for &(key, kind) in &of_shape {
                        let key = layout.keys.get(key as usize).map_or("", |key| key);
                        has.insert((key_hash(key), kind));
                    }
                }
                let kind = ValueType::of(value);
                if has.insert((key_hash(key), kind)) {
                    let of_key = match counts.get_mut(key) {
                        Some(of_key) => of_key,
                        None => counts.entry(Arc::from(key)).or_default(),
                    };
                    if let Some(count) = of_key.get_mut(kind as usize) {
                        *count += 1;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Calls `visit` with every encoded value that items have of a key, each once, and how many items that
    /// are not `hidden` have it: one at least.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`], [`Error::Storage`], those of `ctl`, and what `visit` returned.
    pub(crate) fn value_counts(
        &self,
        key: &str,
        hidden: &RoaringBitmap,
        ctl: &QueryControl,
        visit: &mut dyn FnMut(&[u8], u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        ctl.check()?;
        let layout = self.layout()?;
        let number = layout.find_key(key);
        let mut special = self.search_rest(key, None, ctl, &mut |_| true)?;
        if let Some(number) = number {
            if !hidden.is_empty() {
                let wanted = layout.shapes_with_key(number);
                special |= self.items_of_shapes(layout, &wanted, Some(hidden), ctl)? & hidden;
            }
            let several: Vec<bool> = (0..layout.shapes.len())
                .map(|shape| {
                    let fields = layout.shapes.fields(shape).iter();
                    let of_key = fields.filter(|f| layout.key_of_field(**f) == Some(number));
                    of_key.count() > 1
                })
                .collect();
            special |= self.items_of_shapes(layout, &several, None, ctl)?;
        }
        let mut corrections = self.corrections(key, &special, hidden, ctl)?;
        let mut corrected = |value: &[u8], count: u64| {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            let by = corrections.remove(value).unwrap_or(0);
            match u64::try_from(count.saturating_add(by)) {
                Ok(count) if count > 0 => visit(value, count),
                _ => Ok(()),
            }
        };
        if let Some(number) = number {
            let pairs = u32::try_from(layout.fixed_keys.len()).unwrap_or(u32::MAX);
            let mut counts = vec![0_u64; pairs as usize];
            for shape in 0..layout.shapes.len() {
                let items = u64::from(layout.shapes.items(shape));
                for &field in layout.shapes.fields(shape) {
                    if let Field::Fixed(pair) = layout.field(field)
                        && let Some(count) = counts.get_mut(pair as usize)
                    {
                        *count += items;
                    }
                }
            }
            for (pair, &count) in (0..).zip(&counts) {
                if layout.fixed_key(pair) == number {
                    corrected(layout.fixed_values.get(pair), count)?;
                }
            }
            for column in layout.columns.iter().filter(|column| column.key == number) {
                ctl.check()?;
                let opened = column.open(&self.source)?;
                opened.counts(&NoClasses, &mut corrected)?;
            }
        }
        for (value, count) in corrections {
            match u64::try_from(count) {
                Ok(count) if count > 0 => visit(&value, count)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// By how much shapes and columns count the values of these items wrongly.
    fn corrections(
        &self,
        key: &str,
        items: &RoaringBitmap,
        hidden: &RoaringBitmap,
        ctl: &QueryControl,
    ) -> Result<HashMap<Vec<u8>, i64>, Error> {
        let mut corrections: HashMap<Vec<u8>, i64> = HashMap::new();
        let mut cursor = AttributeCursor::default();
        // Values of an item, end to end; where each ends, and whether it was counted.
        let mut values = ValueTable::default();
        let mut counted = Vec::new();
        let mut until_check = CHECK_ITEMS;
        for item in items {
            until_check -= 1;
            if until_check == 0 {
                ctl.check()?;
                until_check = CHECK_ITEMS;
            }
            values.clear();
            counted.clear();
            self.visit_item(item, Some(key), &mut cursor, &mut |_, _, value, origin| {
                counted.push(origin != Origin::Rest);
                let pushed = values.push(value).map(|_| ());
                pushed.ok_or_else(|| self.beyond_column())
            })?;
            let is_hidden = hidden.contains(item);
            let mut seen: HashSet<&[u8]> = HashSet::new();
            for (value, &counted) in values.iter().zip(&counted) {
                let wanted = i64::from(seen.insert(value) && !is_hidden);
                let by = wanted - i64::from(counted);
                if by != 0 {
                    match corrections.get_mut(value) {
                        Some(correction) => *correction += by,
                        None => {
                            corrections.insert(value.to_vec(), by);
                        }
                    }
                }
            }
        }
        Ok(corrections)
    }

    /// The first value of a key that each of `items` has.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`], [`Error::Storage`], and those of `ctl`.
    pub(crate) fn values_of(
        &self,
        items: &RoaringBitmap,
        key: &str,
        ctl: &QueryControl,
    ) -> Result<AttributeValues, Error> {
        ctl.check()?;
        let layout = self.layout()?;
        let number = layout.find_key(key);
        let rest = self.rest()?;
        let hash = key_hash(key);
        let in_rest = (0..rest.pages()).any(|page| rest.may_have(page, hash));
        let mut columns = Vec::new();
        for (at, entry) in layout.columns.iter().enumerate() {
            if Some(entry.key) == number {
                columns.push(KeyColumn {
                    number: at,
                    in_shape: layout.occurrences_by_shape(at),
                    begins: entry.begins.read_all(&self.source)?,
                    wanted: RoaringBitmap::new(),
                    answers: Vec::new(),
                });
            }
        }
        let first: Vec<First> = (0..layout.shapes.len())
            .map(|shape| layout.first_of_key(shape, number, in_rest, &columns))
            .collect();
        let mut codes: Vec<u32> = Vec::new();
        let mut distinct = Distinct::default();
        let mut fixed_codes = vec![u32::MAX; layout.fixed_keys.len()];
        let mut cursor = AttributeCursor::default();
        let mut scratch = GroupScratch::default();
        let mut shapes = Vec::new();
        let mut next = Vec::new();
        self.each_group_of(items, ctl, &mut |group, items| {
            self.group_shapes(layout, group, &mut scratch, &mut shapes)?;
            next.clear();
            let begins = columns
                .iter()
                .map(|column| column.begins.get(group as usize));
            next.extend(begins.map(|begin| begin.copied().unwrap_or(u32::MAX)));
            let mut wanted = items.iter().copied().peekable();
            for (item, &shape) in (group * GROUP_ITEMS..).zip(&shapes) {
                if wanted.peek().is_none() {
                    break;
                }
                if wanted.next_if_eq(&item).is_some() {
                    let mut code = u32::MAX;
                    match first.get(shape as usize) {
                        Some(&First::Fixed(pair)) => {
                            if let Some(known) = fixed_codes.get_mut(pair as usize) {
                                if *known == u32::MAX {
                                    let value = layout.fixed_values.get(pair);
                                    *known = self.interned(&mut distinct, value)?;
                                }
                                code = *known;
                            }
                        }
                        Some(&First::Column(at)) => {
                            if let (Some(column), Some(&next)) = (columns.get_mut(at), next.get(at))
                            {
                                let occurrences = column.begins.last().copied();
                                if next >= occurrences.unwrap_or(0)
                                    || column.wanted.try_push(next).is_err()
                                {
                                    return Err(self.beyond_column());
                                }
                                column.answers.push(codes.len());
                            }
                        }
                        Some(First::Look) => {
                            let mut found = None;
                            self.visit_item(
                                item,
                                Some(key),
                                &mut cursor,
                                &mut |_, _, value, _| {
                                    if found.is_none() {
                                        found = Some(self.interned(&mut distinct, value)?);
                                    }
                                    Ok(())
                                },
                            )?;
                            code = found.unwrap_or(u32::MAX);
                        }
                        Some(First::Nowhere) | None => {}
                    }
                    codes.push(code);
                }
                for (column, next) in columns.iter().zip(&mut next) {
                    let here = column.in_shape.get(shape as usize).copied();
                    *next = next.saturating_add(u32::from(here.unwrap_or_default()));
                }
            }
            Ok(())
        })?;
        for column in columns {
            ctl.check()?;
            let Some(entry) = layout.columns.get(column.number) else {
                continue;
            };
            if column.wanted.is_empty() {
                continue;
            }
            let opened = entry.open(&self.source)?;
            let coded = opened.codes_of(&column.wanted, &NoClasses)?;
            let mut numbers = Vec::with_capacity(coded.values.len());
            for value in coded.values.iter() {
                numbers.push(self.interned(&mut distinct, value)?);
            }
            for (&answer, &code) in column.answers.iter().zip(&coded.codes) {
                if let (Some(of_item), Some(&number)) =
                    (codes.get_mut(answer), numbers.get(code as usize))
                {
                    *of_item = number;
                }
            }
        }
        // Items beyond the last have nothing.
        codes.resize(usize::try_from(items.len()).unwrap_or(usize::MAX), u32::MAX);
        Ok(AttributeValues {
            codes,
            values: distinct.values,
        })
    }

    fn interned(&self, distinct: &mut Distinct, value: &[u8]) -> Result<u32, Error> {
        let number = distinct.intern(value);
        number.ok_or_else(|| {
            self.source
                .damaged(self.directory_start(), "an attribute has no value")
        })
    }
}

impl Layout {
    /// The keys and types of a shape, each once, but for the rest.
    fn kinds_of_shape(&self, shape: u32, out: &mut Vec<(u32, ValueType)>) {
        out.clear();
        for &field in self.shapes.fields(shape) {
            let kind = match self.field(field) {
                Field::Rest => continue,
                Field::Column(column) => self.columns.get(column).map(|c| (c.key, c.kind)),
                Field::Fixed(pair) => Some((
                    self.fixed_key(pair),
                    ValueType::of(self.fixed_values.get(pair)),
                )),
            };
            out.extend(kind);
        }
        out.sort_unstable();
        out.dedup();
    }

    fn first_of_key(
        &self,
        shape: u32,
        key: Option<u32>,
        in_rest: bool,
        columns: &[KeyColumn],
    ) -> First {
        for &field in self.shapes.fields(shape) {
            match self.field(field) {
                Field::Rest if in_rest => return First::Look,
                Field::Rest => {}
                Field::Column(number) => {
                    if let Some(at) = columns.iter().position(|column| column.number == number) {
                        return First::Column(at);
                    }
                }
                Field::Fixed(pair) => {
                    if Some(self.fixed_key(pair)) == key {
                        return First::Fixed(pair);
                    }
                }
            }
        }
        First::Nowhere
    }
}
