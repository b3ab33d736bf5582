//! Which items have a key, or a key with a right value.
//!
//! Values are found in the columns of the key, one for each type, among the fixed pairs, and in the rest.
//! What a column finds are occurrences: the groups that they are of are found by search, and only their
//! shapes are read to say which items they belong to.

use roaring::RoaringBitmap;

use super::{
    AttributeTable, GROUP_ITEMS, ValueType,
    codes::{GroupScratch, Wanted},
    item_set::ItemSet,
    layout::{ColumnEntry, Field, Layout},
    rest::{RestCursor, key_hash},
};
use crate::{
    control::QueryControl,
    error::Error,
    span::block::column::NoClasses,
    value::{self, ValueRef},
};

/// Groups that are read between two looks at the control.
const CHECK_GROUPS: u32 = 16;
/// With candidates in so many times fewer groups than there are, the values of those are looked at, not
/// all values of a column.
const FEW_GROUPS: u64 = 8;

/// What is done with a group and some of its items.
type VisitGroup<'v> = dyn FnMut(u32, &[u32]) -> Result<(), Error> + 'v;

/// What values are looked for.
struct Test<'t> {
    test: &'t dyn Fn(&str) -> bool,
    only: Option<&'t str>,
}

impl Test<'_> {
    fn passes(&self, encoded: &[u8], scratch: &mut String) -> bool {
        let shown = value::display(encoded, scratch);
        match self.only {
            Some(only) => shown == only,
            None => (self.test)(shown),
        }
    }

    /// The encoded values of a type that pass, if there are at most a few and they are known.
    fn encodings(&self, kind: ValueType) -> Option<Vec<Vec<u8>>> {
        let only = self.only?;
        let mut found = Vec::new();
        if kind == ValueType::Str {
            let mut encoded = Vec::new();
            ValueRef::Str(only).encode(&mut encoded).ok()?;
            found.push(encoded);
            return Some(found);
        }
        let all = value::encodings_displayed_as(only, |encoded| {
            if ValueType::of(encoded) == kind {
                found.push(encoded.to_vec());
            }
        });
        // Texts of lists, maps and NaN are none of an integer or a truth value.
        (all || matches!(kind, ValueType::Int | ValueType::Bool)).then_some(found)
    }
}

impl AttributeTable {
    /// The items, among `candidates` if there are any given, that have `key` with a value whose display form
    /// passes `test`. `only` is the one text that does, if there is just one.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`], [`Error::Storage`], and those of `ctl`.
    pub(crate) fn select(
        &self,
        key: &str,
        test: &dyn Fn(&str) -> bool,
        only: Option<&str>,
        candidates: Option<&RoaringBitmap>,
        ctl: &QueryControl,
    ) -> Result<RoaringBitmap, Error> {
        ctl.check()?;
        if candidates.is_some_and(RoaringBitmap::is_empty) {
            return Ok(RoaringBitmap::new());
        }
        let test = Test { test, only };
        let layout = self.layout()?;
        let mut scratch = String::new();
        let mut found = RoaringBitmap::new();
        if let Some(key) = layout.find_key(key) {
            let wanted = layout.shapes_with_fixed(|pair| {
                layout.fixed_key(pair) == key
                    && test.passes(layout.fixed_values.get(pair), &mut scratch)
            });
            found |= self.items_of_shapes(layout, &wanted, candidates, ctl)?;
            for (number, column) in layout.columns.iter().enumerate() {
                if column.key == key {
                    found |= self.select_column(layout, number, column, &test, candidates, ctl)?;
                }
            }
        }
        found |= self.search_rest(key, candidates, ctl, &mut |encoded| {
            test.passes(encoded, &mut scratch)
        })?;
        if let Some(candidates) = candidates {
            found &= candidates;
        }
        Ok(found)
    }

    /// The items, among `candidates` if there are any given, that have `key`.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`], [`Error::Storage`], and those of `ctl`.
    pub(crate) fn having(
        &self,
        key: &str,
        candidates: Option<&RoaringBitmap>,
        ctl: &QueryControl,
    ) -> Result<RoaringBitmap, Error> {
        ctl.check()?;
        let layout = self.layout()?;
        let mut found = RoaringBitmap::new();
        if let Some(key) = layout.find_key(key) {
            let wanted = layout.shapes_with_key(key);
            found |= self.items_of_shapes(layout, &wanted, candidates, ctl)?;
        }
        found |= self.search_rest(key, candidates, ctl, &mut |_| true)?;
        if let Some(candidates) = candidates {
            found &= candidates;
        }
        Ok(found)
    }

    /// Whether an item may have `key`; reads no item.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`] and [`Error::Storage`].
    pub(crate) fn may_have_key(&self, key: &str) -> Result<bool, Error> {
        if self.layout()?.find_key(key).is_some() {
            return Ok(true);
        }
        let (rest, hash) = (self.rest()?, key_hash(key));
        Ok((0..rest.pages()).any(|page| rest.may_have(page, hash)))
    }

    /// The items whose shapes are wanted. What is in groups without candidates may be left out.
    pub(super) fn items_of_shapes(
        &self,
        layout: &Layout,
        wanted: &[bool],
        candidates: Option<&RoaringBitmap>,
        ctl: &QueryControl,
    ) -> Result<RoaringBitmap, Error> {
        let mut found = ItemSet::new();
        if !wanted.contains(&true) {
            return Ok(found.finish());
        }
        if !wanted.contains(&false) {
            let mut all = RoaringBitmap::new();
            all.insert_range(0..self.items());
            return Ok(all);
        }
        let by_class = layout.codes.wanted_by_class(wanted);
        let mut scratch = GroupScratch::default();
        let (mut shapes, mut decided) = (Vec::new(), Vec::new());
        let mut until_check = CHECK_GROUPS;
        for group in 0..self.items().div_ceil(GROUP_ITEMS) {
            if !has_candidates(group, candidates) {
                continue;
            }
            until_check -= 1;
            if until_check == 0 {
                ctl.check()?;
                until_check = CHECK_GROUPS;
            }
            let first = group * GROUP_ITEMS;
            if let Some(by_class) = &by_class
                && layout.codes.wanted_group(
                    &*self.classes,
                    group,
                    by_class,
                    &mut scratch,
                    &mut decided,
                )?
            {
                for (item, &wanted) in (first..).zip(&decided) {
                    if wanted == Wanted::All {
                        found.insert(item);
                    }
                }
                continue;
            }
            self.group_shapes(layout, group, &mut scratch, &mut shapes)?;
            for (item, &shape) in (first..).zip(&shapes) {
                if wanted.get(shape as usize) == Some(&true) {
                    found.insert(item);
                }
            }
        }
        Ok(found.finish())
    }

    fn select_column(
        &self,
        layout: &Layout,
        number: usize,
        column: &ColumnEntry,
        test: &Test<'_>,
        candidates: Option<&RoaringBitmap>,
        ctl: &QueryControl,
    ) -> Result<RoaringBitmap, Error> {
        let encodings = test.encodings(column.kind);
        if encodings.as_ref().is_some_and(Vec::is_empty) {
            return Ok(RoaringBitmap::new());
        }
        let only = match encodings.as_deref() {
            Some([only]) => Some(only.as_slice()),
            _ => None,
        };
        let groups = u64::from(self.items().div_ceil(GROUP_ITEMS));
        let few = candidates.filter(|few| few.len() < groups / FEW_GROUPS);
        let among = match few {
            Some(few) => Some(self.occurrences_of(layout, number, few, ctl)?),
            None => None,
        };
        let mut scratch = String::new();
        let occurrences = column.open(&self.source)?.find(
            &mut |encoded| test.passes(encoded, &mut scratch),
            only,
            among.as_ref(),
            &NoClasses,
            &mut || ctl.check(),
        )?;
        self.items_of_occurrences(layout, number, &occurrences, candidates, ctl)
    }

    /// The items that occurrences of a column belong to. What is in groups without candidates may be left
    /// out.
    pub(super) fn items_of_occurrences(
        &self,
        layout: &Layout,
        column: usize,
        occurrences: &RoaringBitmap,
        candidates: Option<&RoaringBitmap>,
        ctl: &QueryControl,
    ) -> Result<RoaringBitmap, Error> {
        let mut found = ItemSet::new();
        let Some(entry) = layout.columns.get(column) else {
            return Ok(found.finish());
        };
        let mut occurrences = occurrences.iter();
        let Some(mut next) = occurrences.next() else {
            return Ok(found.finish());
        };
        let begins = entry.begins.read_all(&self.source)?;
        let in_shape = layout.occurrences_by_shape(column);
        let mut scratch = GroupScratch::default();
        let mut shapes = Vec::new();
        let mut until_check = CHECK_GROUPS;
        loop {
            until_check -= 1;
            if until_check == 0 {
                ctl.check()?;
                until_check = CHECK_GROUPS;
            }
            // The last group that begins at the occurrence or before: those without any begin there too.
            let group = begins.partition_point(|&begin| begin <= next);
            let (Some(&begin), Some(&end)) = (
                group.checked_sub(1).and_then(|at| begins.get(at)),
                begins.get(group),
            ) else {
                return Err(self.beyond_column());
            };
            let group = u32::try_from(group).unwrap_or(u32::MAX) - 1;
            if has_candidates(group, candidates) {
                self.group_shapes(layout, group, &mut scratch, &mut shapes)?;
                let mut until = begin;
                for (item, &shape) in (group * GROUP_ITEMS..).zip(&shapes) {
                    let here = in_shape.get(shape as usize).copied().unwrap_or_default();
                    until = until.saturating_add(u32::from(here));
                    if next < until {
                        found.insert(item);
                        while next < until {
                            match occurrences.next() {
                                Some(after) => next = after,
                                None => return Ok(found.finish()),
                            }
                        }
                        if next >= end {
                            break;
                        }
                    }
                }
                if next < end {
                    return Err(self.beyond_column());
                }
            } else {
                occurrences.advance_to(end);
                match occurrences.next() {
                    Some(after) => next = after,
                    None => return Ok(found.finish()),
                }
            }
        }
    }

    /// The occurrences of a column that belong to items.
    pub(super) fn occurrences_of(
        &self,
        layout: &Layout,
        column: usize,
        items: &RoaringBitmap,
        ctl: &QueryControl,
    ) -> Result<RoaringBitmap, Error> {
        let mut found = ItemSet::new();
        let Some(entry) = layout.columns.get(column) else {
            return Ok(found.finish());
        };
        let begins = entry.begins.read_all(&self.source)?;
        let in_shape = layout.occurrences_by_shape(column);
        let mut scratch = GroupScratch::default();
        let mut shapes = Vec::new();
        self.each_group_of(items, ctl, &mut |group, items| {
            let begin = begins.get(group as usize).copied();
            let end = begins.get(group as usize + 1).copied();
            let (Some(mut until), Some(end)) = (begin, end) else {
                return Ok(());
            };
            if until == end {
                return Ok(());
            }
            self.group_shapes(layout, group, &mut scratch, &mut shapes)?;
            let mut items = items.iter().copied().peekable();
            for (item, &shape) in (group * GROUP_ITEMS..).zip(&shapes) {
                let from = until;
                let here = in_shape.get(shape as usize).copied().unwrap_or_default();
                until = until.saturating_add(u32::from(here));
                if items.next_if_eq(&item).is_some() {
                    if until > end {
                        return Err(self.beyond_column());
                    }
                    for occurrence in from..until {
                        found.insert(occurrence);
                    }
                }
            }
            Ok(())
        })?;
        Ok(found.finish())
    }

    /// Calls `visit` with each group that has some of the items, and those.
    pub(super) fn each_group_of(
        &self,
        items: &RoaringBitmap,
        ctl: &QueryControl,
        visit: &mut VisitGroup<'_>,
    ) -> Result<(), Error> {
        let mut of_group = Vec::new();
        let mut until_check = CHECK_GROUPS;
        let mut items = items
            .iter()
            .take_while(|&item| item < self.items())
            .peekable();
        while let Some(&first) = items.peek() {
            until_check -= 1;
            if until_check == 0 {
                ctl.check()?;
                until_check = CHECK_GROUPS;
            }
            let group = first / GROUP_ITEMS;
            of_group.clear();
            while let Some(item) = items.next_if(|item| item / GROUP_ITEMS == group) {
                of_group.push(item);
            }
            visit(group, &of_group)?;
        }
        Ok(())
    }

    /// The items with an entry of the rest of this key whose encoded value passes.
    pub(super) fn search_rest(
        &self,
        key: &str,
        candidates: Option<&RoaringBitmap>,
        ctl: &QueryControl,
        passes: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<RoaringBitmap, Error> {
        let mut found = ItemSet::new();
        let rest = self.rest()?;
        let hash = key_hash(key);
        let mut cursor = RestCursor::default();
        for page in 0..rest.pages() {
            if !rest.may_have(page, hash) {
                continue;
            }
            let items = rest.items_of_page(page);
            let is_wanted = |(first, last): (u32, u32)| {
                candidates.is_none_or(|c| c.range_cardinality(first..=last) > 0)
            };
            if !items.is_some_and(is_wanted) {
                continue;
            }
            ctl.check()?;
            rest.visit_page(&self.source, page, &mut cursor, &mut |item, of, value| {
                if of == key && item < self.items() && passes(value) {
                    found.insert(item);
                }
                Ok(())
            })?;
        }
        Ok(found.finish())
    }
}

fn has_candidates(group: u32, candidates: Option<&RoaringBitmap>) -> bool {
    let first = group * GROUP_ITEMS;
    candidates.is_none_or(|c| c.range_cardinality(first..=first | (GROUP_ITEMS - 1)) > 0)
}

impl Layout {
    /// By shape, whether it has a fixed pair that is wanted.
    fn shapes_with_fixed(&self, mut wanted: impl FnMut(u32) -> bool) -> Vec<bool> {
        let pairs = u32::try_from(self.fixed_keys.len()).unwrap_or(u32::MAX);
        let wanted: Vec<bool> = (0..pairs).map(&mut wanted).collect();
        let mut by_shape = vec![false; self.shapes.len() as usize];
        if !wanted.contains(&true) {
            return by_shape;
        }
        for (shape, has) in (0..).zip(&mut by_shape) {
            let fields = self.shapes.fields(shape).iter();
            *has = fields.map(|&field| self.field(field)).any(|field| {
                matches!(field, Field::Fixed(pair) if wanted.get(pair as usize) == Some(&true))
            });
        }
        by_shape
    }

    /// By shape, whether it has a key, but for the rest.
    pub(super) fn shapes_with_key(&self, key: u32) -> Vec<bool> {
        let has = |shape| {
            let fields = self.shapes.fields(shape).iter();
            fields
                .copied()
                .any(|field| self.key_of_field(field) == Some(key))
        };
        (0..self.shapes.len()).map(has).collect()
    }

    /// The key of a field; none for the rest.
    pub(super) fn key_of_field(&self, field: u32) -> Option<u32> {
        match self.field(field) {
            Field::Rest => None,
            Field::Column(column) => self.columns.get(column).map(|column| column.key),
            Field::Fixed(pair) => Some(self.fixed_key(pair)),
        }
    }
}
