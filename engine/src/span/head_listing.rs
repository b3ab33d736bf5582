//! What there is to search for in one shard of the head, by the rows that carry it.

use std::{collections::BTreeSet, sync::Arc};

use hashbrown::HashMap;
use parking_lot::RwLock;
use roaring::RoaringBitmap;

use super::{
    filter::{SpanFilter, TagScope},
    head_part::HeadPart,
    listing::{NameCounts, ValueCounts},
    model::Attributes,
    rest::Rest,
    row_list::RowList,
    shard::Shard,
};
use crate::{
    control::{CHECK_ROWS, QueryControl},
    error::Error,
    time::TimeRange,
    value::{self, AttributeType},
};

/// Attributes of a resource or scope, and the visible rows that have it.
type OwnerRows = (Attributes, u64);

impl HeadPart {
    /// Counts keys: see [`SpanPart::tag_names`](super::part::SpanPart::tag_names).
    pub(crate) fn tag_names(
        &self,
        of: TagScope,
        prefix: &str,
        ctl: &QueryControl,
        into: &mut NameCounts,
    ) -> Result<(), Error> {
        let Some(lock) = self.lock() else {
            return Ok(());
        };
        match of {
            TagScope::Any | TagScope::Span => {
                let visible = self.visible_rows(ctl)?;
                let keys: Vec<u32> = lock.read().tags.keys().collect();
                let mut rows = RowBits::new(self.row_bound());
                for key in keys {
                    let text = self.catalog().read().symbol(key);
                    if !text.starts_with(prefix) {
                        continue;
                    }
                    rows.clear();
                    let mut types = BTreeSet::new();
                    each_value(lock, key, ctl, &mut |encoded, postings| {
                        if rows.add(postings, &visible) {
                            types.insert(AttributeType::of_encoded(encoded));
                        }
                    })?;
                    into.add(&text, TagScope::Span, types, rows.len());
                }
            }
            TagScope::Resource | TagScope::Scope => {
                for (attributes, spans) in self.owners(of, ctl)? {
                    names_of_owner(&attributes, of, prefix, spans, into);
                }
            }
            TagScope::Event | TagScope::Link => {
                let mut counts: HashMap<u32, (BTreeSet<AttributeType>, u64)> = HashMap::new();
                self.each_rest(of, ctl, &mut |shard, tags| {
                    tags.sort_unstable_by_key(|&tag| shard.tags.key(tag));
                    for same in tags.chunk_by(|&a, &b| shard.tags.key(a) == shard.tags.key(b)) {
                        let key = same.first().map_or(u32::MAX, |&tag| shard.tags.key(tag));
                        let count = counts.entry(key).or_default();
                        count.1 += 1;
                        for &tag in same {
                            count
                                .0
                                .insert(AttributeType::of_encoded(shard.tags.get(tag).1));
                        }
                    }
                })?;
                for (key, (types, spans)) in counts {
                    let text = self.catalog().read().symbol(key);
                    if text.starts_with(prefix) {
                        into.add(&text, of, types, spans);
                    }
                }
            }
        }
        Ok(())
    }

    /// Counts values: see [`SpanPart::tag_values`](super::part::SpanPart::tag_values).
    pub(crate) fn tag_values(
        &self,
        key: &str,
        of: TagScope,
        ctl: &QueryControl,
        into: &mut ValueCounts<'_>,
    ) -> Result<(), Error> {
        let (Some(lock), Some(symbol)) = (self.lock(), self.catalog().read().find(key)) else {
            return Ok(());
        };
        let mut scratch = String::new();
        // Where no span has the key, resources alone say it.
        let of = match of {
            TagScope::Any if lock.read().tags.of_key(symbol).is_none() => TagScope::Resource,
            of => of,
        };
        match of {
            TagScope::Any | TagScope::Span => {
                let visible = self.visible_rows(ctl)?;
                let mut having = RoaringBitmap::new();
                each_value(lock, symbol, ctl, &mut |encoded, postings| {
                    let kind = AttributeType::of_encoded(encoded);
                    let spans = visible.count(postings);
                    into.add(value::display(encoded, &mut scratch), kind, spans);
                    if of == TagScope::Any {
                        postings.union_into(&mut having);
                    }
                })?;
                if of == TagScope::Any {
                    self.resource_values(key, &having, &visible, ctl, into)?;
                }
            }
            TagScope::Resource | TagScope::Scope => {
                for (attributes, spans) in self.owners(of, ctl)? {
                    into.add_all(values_of(&attributes, key), spans);
                }
            }
            TagScope::Event | TagScope::Link => {
                let mut counts: HashMap<u32, u64> = HashMap::new();
                self.each_rest(of, ctl, &mut |shard, tags| {
                    tags.retain(|&tag| shard.tags.key(tag) == symbol);
                    tags.sort_unstable();
                    tags.dedup();
                    for &tag in &*tags {
                        *counts.entry(tag).or_default() += 1;
                    }
                })?;
                let shard = lock.read();
                for (tag, spans) in counts {
                    let encoded = shard.tags.get(tag).1;
                    let kind = AttributeType::of_encoded(encoded);
                    into.add(value::display(encoded, &mut scratch), kind, spans);
                }
            }
        }
        Ok(())
    }

    /// Values that resources have, for the rows that do not have the key themselves.
    fn resource_values(
        &self,
        key: &str,
        having: &RoaringBitmap,
        visible: &Visible,
        ctl: &QueryControl,
        into: &mut ValueCounts<'_>,
    ) -> Result<(), Error> {
        let Some(lock) = self.lock() else {
            return Ok(());
        };
        let mut rows: HashMap<u32, RoaringBitmap> = HashMap::new();
        let mut from = 0;
        loop {
            ctl.check()?;
            let shard = lock.read();
            let tables = self.catalog().read();
            let mut seen = 0;
            for entry in shard.classes.iter_from(from).take(CHECK_ROWS / 16) {
                seen += 1;
                let resource = entry.class.resource;
                let owner = tables.resources.get(resource as usize);
                if owner.is_some_and(|o| values_of(&o.resource.attributes, key).next().is_some()) {
                    entry.rows.union_into(rows.entry(resource).or_default());
                }
            }
            from += seen;
            if seen == 0 {
                break;
            }
        }
        for (resource, mut rows) in rows {
            rows -= having;
            let owner = {
                let tables = self.catalog().read();
                tables.resources.get(resource as usize).cloned()
            };
            if let Some(owner) = owner {
                let spans = visible.count_of(&rows);
                into.add_all(values_of(&owner.resource.attributes, key), spans);
            }
        }
        Ok(())
    }

    /// Resources or scopes of visible rows, with how many there are.
    fn owners(&self, of: TagScope, ctl: &QueryControl) -> Result<Vec<OwnerRows>, Error> {
        let counts = self.count_by_class(&SpanFilter::in_range(TimeRange::ALL), ctl)?;
        let mut by_owner: HashMap<u32, u64> = HashMap::new();
        if let Some(lock) = self.lock() {
            let shard = lock.read();
            for (class, spans) in counts {
                if let Some(entry) = shard.classes.get(class) {
                    let owner = match of {
                        TagScope::Scope => entry.class.scope,
                        _ => entry.class.resource,
                    };
                    *by_owner.entry(owner).or_default() += spans;
                }
            }
        }
        let mut owners = Vec::with_capacity(by_owner.len());
        for (owner, spans) in by_owner {
            let tables = self.catalog().read();
            let attributes = if of == TagScope::Scope {
                let scope = tables.scopes.get(owner as usize);
                scope.map(|scope| scope.attributes.clone())
            } else {
                let entry = tables.resources.get(owner as usize);
                entry.map(|entry| entry.resource.attributes.clone())
            };
            owners.extend(attributes.map(|attributes| (attributes, spans)));
        }
        Ok(owners)
    }

    /// Calls `each` with the attributes of the events or links of every visible row that has any.
    fn each_rest(
        &self,
        of: TagScope,
        ctl: &QueryControl,
        each: &mut dyn FnMut(&Shard, &mut Vec<u32>),
    ) -> Result<(), Error> {
        let mut rest = Rest::default();
        let all = SpanFilter::in_range(TimeRange::ALL);
        self.each_slice(&all, ctl, &mut |shard, rows| {
            for &row in rows {
                if !shard.rest_alone(row, &mut rest) {
                    continue;
                }
                let tags = match of {
                    TagScope::Link => &mut rest.link_tags,
                    _ => &mut rest.event_tags,
                };
                if !tags.is_empty() {
                    each(shard, tags);
                }
            }
        })
    }

    /// The rows that count.
    fn visible_rows(&self, ctl: &QueryControl) -> Result<Visible, Error> {
        let rows = self.row_bound();
        if self.sees_all_rows() {
            return Ok(Visible { rows, these: None });
        }
        let visible = self.select(&SpanFilter::in_range(TimeRange::ALL), ctl)?;
        Ok(Visible {
            rows,
            these: Some(visible.as_bitmap().clone()),
        })
    }
}

/// Visible rows of a shard.
struct Visible {
    /// None from here on.
    rows: u32,
    /// Which of those below; all if `None`.
    these: Option<RoaringBitmap>,
}

/// Rows as plain bits: postings of a key overlap where a span has it twice.
struct RowBits {
    words: Vec<u64>,
}

impl RowBits {
    fn new(rows: u32) -> Self {
        Self {
            words: vec![0; (rows as usize).div_ceil(64)],
        }
    }

    fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Adds the visible ones of some rows; says whether there are any.
    fn add(&mut self, postings: &RowList, visible: &Visible) -> bool {
        let mut any = false;
        for row in postings.iter().take_while(|&row| row < visible.rows) {
            if visible
                .these
                .as_ref()
                .is_some_and(|these| !these.contains(row))
            {
                continue;
            }
            any = true;
            if let Some(word) = self.words.get_mut(row as usize / 64) {
                *word |= 1 << (row % 64);
            }
        }
        any
    }

    fn len(&self) -> u64 {
        self.words
            .iter()
            .map(|word| u64::from(word.count_ones()))
            .sum()
    }
}

impl Visible {
    fn count(&self, postings: &RowList) -> u64 {
        let rows = postings.iter().take_while(|&row| row < self.rows);
        let count = match &self.these {
            Some(these) => rows.filter(|&row| these.contains(row)).count(),
            None => rows.count(),
        };
        count as u64
    }

    fn count_of(&self, rows: &RoaringBitmap) -> u64 {
        match &self.these {
            Some(these) => rows.intersection_len(these),
            None => rows.range_cardinality(..self.rows),
        }
    }
}

/// The values of a key.
pub(crate) fn values_of<'a>(
    attributes: &'a Attributes,
    key: &'a str,
) -> impl Iterator<Item = &'a value::Value> {
    let of_key = attributes.iter().filter(move |(own, _)| &**own == key);
    of_key.map(|(_, value)| value)
}

/// Counts the keys of a resource or scope that so many spans have.
pub(crate) fn names_of_owner(
    attributes: &Attributes,
    of: TagScope,
    prefix: &str,
    spans: u64,
    into: &mut NameCounts,
) {
    let mut keys: Vec<&Arc<str>> = attributes.iter().map(|(key, _)| key).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys.into_iter().filter(|key| key.starts_with(prefix)) {
        let types = values_of(attributes, key).map(AttributeType::of);
        into.add(key, of, types, spans);
    }
}

/// Calls `each` with every value of a key and its rows, some of which may be newer than a view.
fn each_value(
    lock: &RwLock<Shard>,
    key: u32,
    ctl: &QueryControl,
    each: &mut dyn FnMut(&[u8], &RowList),
) -> Result<(), Error> {
    let mut from = 0;
    loop {
        ctl.check()?;
        let shard = lock.read();
        let Some(tags) = shard.tags.of_key(key) else {
            return Ok(());
        };
        // Rows are bounded as well as values: a few values may stand on most rows.
        let (mut seen, mut rows) = (0, 0);
        for &tag in tags.iter_from(from).take(CHECK_ROWS) {
            seen += 1;
            if let Some(postings) = shard.tags.rows(tag) {
                each(shard.tags.get(tag).1, postings);
                rows += postings.len();
            }
            if rows > CHECK_ROWS as u64 {
                break;
            }
        }
        if seen == 0 {
            return Ok(());
        }
        from += seen;
    }
}
