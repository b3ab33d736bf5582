//! What there is to search for in a block: by directories and counts of classes; rows are looked at only
//! where some are hidden, or where one row may have a thing several times.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use roaring::RoaringBitmap;

use super::{
    block::{
        SatelliteCursor,
        attributes::{AttributeCursor, AttributeTable, ValueType},
    },
    block_part::{BlockPart, Pace},
    block_tags::ItemKind,
    class_set::ClassSet,
    filter::{SpanFilter, TagScope},
    head_listing::{names_of_owner, values_of},
    listing::{NameCounts, ValueCounts},
    model::Attributes,
    select::ValueTest,
};
use crate::{
    control::QueryControl,
    error::Error,
    time::TimeRange,
    value::{self, AttributeType, Value},
};

impl BlockPart {
    /// Counts keys: see [`SpanPart::tag_names`](super::part::SpanPart::tag_names).
    pub(crate) fn tag_names(
        &self,
        of: TagScope,
        prefix: &str,
        ctl: &QueryControl,
        into: &mut NameCounts,
    ) -> Result<(), Error> {
        match of {
            TagScope::Any | TagScope::Span => {
                let table = self.block.attributes();
                let hidden = &self.hidden.rows;
                names_of_table(table, TagScope::Span, prefix, hidden, ctl, into, None)
            }
            TagScope::Resource | TagScope::Scope => {
                for (owner, spans) in self.owner_counts(of, ctl)? {
                    let attributes = self.owner_attributes(of, owner)?;
                    names_of_owner(&attributes, of, prefix, spans, into);
                }
                Ok(())
            }
            TagScope::Event | TagScope::Link => {
                let Some((items, table)) = self.items(kind_of(of)) else {
                    return Ok(());
                };
                let hidden = self.items_of(items, &self.hidden.rows, ctl)?;
                let spans_of = |having: RoaringBitmap| {
                    let rows = items.rows_of(self.block.block(), &having)?;
                    Ok((rows - &self.hidden.rows).len())
                };
                names_of_table(table, of, prefix, &hidden, ctl, into, Some(&spans_of))
            }
        }
    }

    /// Counts values: see [`SpanPart::tag_values`](super::part::SpanPart::tag_values).
    pub(crate) fn tag_values(
        &self,
        key: &str,
        of: TagScope,
        ctl: &QueryControl,
        into: &mut ValueCounts<'_>,
    ) -> Result<(), Error> {
        match of {
            TagScope::Any | TagScope::Span => {
                let table = self.block.attributes();
                values_of_table(table, key, &self.hidden.rows, ctl, into)?;
                if of == TagScope::Any && self.some_resource_has(key, ctl)? {
                    self.values_of_resources(key, ctl, into)?;
                }
                Ok(())
            }
            TagScope::Resource | TagScope::Scope => {
                for (owner, spans) in self.owner_counts(of, ctl)? {
                    let attributes = self.owner_attributes(of, owner)?;
                    into.add_all(values_of(&attributes, key), spans);
                }
                Ok(())
            }
            TagScope::Event | TagScope::Link => self.values_of_kind(of, key, ctl, into),
        }
    }

    /// Resources or scopes with their visible rows.
    fn owner_counts(&self, of: TagScope, ctl: &QueryControl) -> Result<Vec<(u32, u64)>, Error> {
        let counts = self.count_by_class(&SpanFilter::in_range(TimeRange::ALL), ctl)?;
        Ok(self.by_owner(of, counts))
    }

    fn by_owner(&self, of: TagScope, counts: Vec<(u32, u64)>) -> Vec<(u32, u64)> {
        let mut by_owner: BTreeMap<u32, u64> = BTreeMap::new();
        for (class, spans) in counts {
            if let Some(class) = self.block.classes().get(class as usize) {
                let owner = match of {
                    TagScope::Scope => class.scope,
                    _ => class.resource,
                };
                *by_owner.entry(owner).or_default() += spans;
            }
        }
        by_owner.into_iter().collect()
    }

    /// Values that resources have, for the rows that do not have the key themselves.
    fn values_of_resources(
        &self,
        key: &str,
        ctl: &QueryControl,
        into: &mut ValueCounts<'_>,
    ) -> Result<(), Error> {
        let counts = if self.some_span_has(key)? {
            let of_resources = ClassSet::of_resources(&self.block, (key, ValueTest::Present), ctl)?;
            let right = of_resources.into_iter().map(|found| found.is_some());
            let classes = ClassSet::from_table(&self.block, right.collect());
            let mut without = RoaringBitmap::new();
            without.insert_range(0..self.block.rows());
            without -= self.block.attributes().having(key, None, ctl)?;
            without -= &self.hidden.rows;
            let rows = self.of_classes(&classes, without, ctl)?;
            self.classes_of(rows, ctl)?
        } else {
            self.count_by_class(&SpanFilter::in_range(TimeRange::ALL), ctl)?
        };
        for (resource, spans) in self.by_owner(TagScope::Resource, counts) {
            let attributes = self.owner_attributes(TagScope::Resource, resource)?;
            into.add_all(values_of(&attributes, key), spans);
        }
        Ok(())
    }

    /// Values of events or links. Rows of which several items have the key are counted one by one, so that
    /// each counts once for a value.
    fn values_of_kind(
        &self,
        of: TagScope,
        key: &str,
        ctl: &QueryControl,
        into: &mut ValueCounts<'_>,
    ) -> Result<(), Error> {
        let Some((items, table)) = self.items(kind_of(of)) else {
            return Ok(());
        };
        let mut apart = self.items_of(items, &self.hidden.rows, ctl)?;
        let having = table.having(key, None, ctl)? - &apart;
        let mut cursor = SatelliteCursor::default();
        let mut pace = Pace::new(ctl)?;
        let mut several: Vec<(u32, u32)> = Vec::new();
        let mut last: Option<(u32, u32)> = None;
        for item in having {
            pace.step()?;
            let row = items.row(self.block.block(), item, &mut cursor)?;
            if let Some((last_row, last_item)) = last
                && last_row == row
            {
                if several.last() != Some(&(row, last_item)) {
                    several.push((row, last_item));
                }
                several.push((row, item));
            }
            last = Some((row, item));
        }
        apart.extend(several.iter().map(|&(_, item)| item));
        values_of_table(table, key, &apart, ctl, into)?;
        let mut cursor = AttributeCursor::default();
        let mut attributes = Attributes::new();
        for of_row in several.chunk_by(|a, b| a.0 == b.0) {
            let mut values: Vec<Value> = Vec::new();
            for &(_, item) in of_row {
                pace.step()?;
                attributes.clear();
                table.attributes(item, &mut cursor, &mut attributes)?;
                values.extend(values_of(&attributes, key).cloned());
            }
            into.add_all(values.iter(), 1);
        }
        Ok(())
    }
}

impl From<ValueType> for AttributeType {
    fn from(kind: ValueType) -> Self {
        match kind {
            ValueType::Str => Self::Str,
            ValueType::Int => Self::Int,
            ValueType::Double => Self::Double,
            ValueType::Bool => Self::Bool,
            ValueType::Other => Self::Other,
        }
    }
}

fn kind_of(of: TagScope) -> ItemKind {
    match of {
        TagScope::Link => ItemKind::Links,
        _ => ItemKind::Events,
    }
}

/// How many spans have one of some items.
type SpansOf<'s> = &'s dyn Fn(RoaringBitmap) -> Result<u64, Error>;

/// Counts the keys of a table. `hidden` are items that do not count; each item is a span if there is no
/// `spans_of`.
fn names_of_table(
    table: &AttributeTable,
    of: TagScope,
    prefix: &str,
    hidden: &RoaringBitmap,
    ctl: &QueryControl,
    into: &mut NameCounts,
    spans_of: Option<SpansOf<'_>>,
) -> Result<(), Error> {
    let mut by_key: HashMap<_, (BTreeSet<AttributeType>, u64)> = HashMap::new();
    for key in table.keys(ctl)? {
        if key.key.starts_with(prefix) {
            let known = by_key.entry(key.key).or_default();
            known.0.insert(key.kind.into());
            known.1 += key.items;
        }
    }
    for (key, (mut types, items)) in by_key {
        ctl.check()?;
        let spans = match spans_of {
            Some(spans_of) => spans_of(table.having(&key, None, ctl)?)?,
            None if types.len() > 1 => (table.having(&key, None, ctl)? - hidden).len(),
            None if hidden.is_empty() => items,
            // Few are hidden, and only those are looked at.
            None => items.saturating_sub(table.having(&key, Some(hidden), ctl)?.len()),
        };
        if !hidden.is_empty() && spans > 0 && types.len() > 1 {
            types.clear();
            table.value_counts(&key, hidden, ctl, &mut |encoded, _| {
                types.insert(AttributeType::of_encoded(encoded));
                Ok(())
            })?;
        }
        into.add(&key, of, types, spans);
    }
    Ok(())
}

/// Counts the values of a key of a table; items that are `hidden` do not count.
fn values_of_table(
    table: &AttributeTable,
    key: &str,
    hidden: &RoaringBitmap,
    ctl: &QueryControl,
    into: &mut ValueCounts<'_>,
) -> Result<(), Error> {
    let mut scratch = String::new();
    table.value_counts(key, hidden, ctl, &mut |encoded, items| {
        let kind = AttributeType::of_encoded(encoded);
        into.add(value::display(encoded, &mut scratch), kind, items);
        Ok(())
    })
}
