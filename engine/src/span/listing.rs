//! What there is to search for: attribute keys, their values, services, operations.
//!
//! Every answer is of the spans that satisfy a filter at a snapshot, and counts them.

use std::{collections::BTreeMap, sync::Arc};

use hashbrown::HashMap;
use parking_lot::RwLock;
use roaring::RoaringBitmap;
use rootline_wal::Lsn;

use super::{
    filter::{SpanCondition, SpanFilter, StringMatch, TagScope},
    head::SpanHead,
    model::{SpanKind, StatusCode},
    row_list::RowList,
    shard::Shard,
};
use crate::{
    control::{CHECK_ROWS, QueryControl},
    error::Error,
    time::TimeRange,
    value,
};

/// An attribute key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagName {
    /// The key.
    pub key: Arc<str>,
    /// Where it stands: [`TagScope::Span`] or [`TagScope::Resource`].
    pub scope: TagScope,
    /// Spans that have it there.
    pub spans: u64,
}

/// A value of an attribute key, in its display form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagValue {
    /// The value.
    pub value: String,
    /// Spans that have it.
    pub spans: u64,
}

/// Service, name and kind of an operation.
type OperationKey = (Arc<str>, Arc<str>, SpanKind);

/// An operation of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Operation {
    service: Arc<str>,
    name: Arc<str>,
    kind: SpanKind,
    spans: u64,
    errors: u64,
}

impl SpanHead {
    /// Services with spans that start in `range`, sorted.
    ///
    /// # Errors
    /// Those of the query's control.
    pub(crate) fn services(
        &self,
        at: Lsn,
        range: TimeRange,
        ctl: &QueryControl,
    ) -> Result<Vec<String>, Error> {
        let operations = self.operations_of(at, &SpanFilter::in_range(range), ctl)?;
        let mut services: Vec<String> = operations
            .iter()
            .map(|operation| operation.service.to_string())
            .collect();
        services.dedup();
        Ok(services)
    }

    /// Names of the spans of a service (of all if `None`) that start in `range`, sorted.
    ///
    /// # Errors
    /// Those of the query's control.
    pub(crate) fn operations(
        &self,
        at: Lsn,
        service: Option<&str>,
        range: TimeRange,
        ctl: &QueryControl,
    ) -> Result<Vec<String>, Error> {
        let mut filter = SpanFilter::in_range(range);
        if let Some(service) = service {
            filter = filter.and(SpanCondition::Service(StringMatch::equal(service)));
        }
        let operations = self.operations_of(at, &filter, ctl)?;
        let mut names: Vec<String> = operations
            .iter()
            .map(|operation| operation.name.to_string())
            .collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Attribute keys of all spans and their resources, sorted by key, then scope.
    ///
    /// # Errors
    /// Those of the query's control.
    pub(crate) fn tag_names(&self, at: Lsn, ctl: &QueryControl) -> Result<Vec<TagName>, Error> {
        self.tag_names_of(at, &SpanFilter::in_range(TimeRange::ALL), ctl)
    }

    /// Values of a key that begin with `prefix`, on spans or else on their resources, sorted, at most
    /// `limit`.
    ///
    /// # Errors
    /// Those of the query's control.
    pub(crate) fn tag_values(
        &self,
        at: Lsn,
        key: &str,
        prefix: &str,
        limit: usize,
        ctl: &QueryControl,
    ) -> Result<Vec<TagValue>, Error> {
        let filter = SpanFilter::in_range(TimeRange::ALL);
        self.tag_values_of(at, key, TagScope::Any, &filter, prefix, limit, ctl)
    }

    /// Attribute keys of spans and of resources, sorted by key, then scope.
    ///
    /// # Errors
    /// Those of the query's control.
    fn tag_names_of(
        &self,
        at: Lsn,
        filter: &SpanFilter,
        ctl: &QueryControl,
    ) -> Result<Vec<TagName>, Error> {
        let mut on_span: HashMap<u32, u64> = HashMap::new();
        let mut by_resource: HashMap<u32, u64> = HashMap::new();
        let by_postings = self.is_everything(at, filter);
        if by_postings {
            for (lock, view) in self.views(at) {
                let keys: Vec<u32> = lock.read().tags.keys().collect();
                for key in keys {
                    let mut rows = RoaringBitmap::new();
                    each_value(lock, key, ctl, &mut |_, postings| {
                        postings.union_into(&mut rows);
                    })?;
                    let spans = rows.range_cardinality(..view.rows);
                    if spans > 0 {
                        *on_span.entry(key).or_default() += spans;
                    }
                }
            }
        }
        let mut tags = Vec::new();
        self.each_slice(at, filter, ctl, &mut |_, shard, rows| {
            for &row in rows {
                if let Some(entry) = shard.class_entry(row) {
                    *by_resource.entry(entry.class.resource).or_default() += 1;
                }
                if by_postings {
                    continue;
                }
                shard.tags_of(row, &mut tags);
                // A key that a span has twice is still one span.
                for tag in &mut tags {
                    *tag = shard.tags.key(*tag);
                }
                tags.sort_unstable();
                tags.dedup();
                for &key in &tags {
                    *on_span.entry(key).or_default() += 1;
                }
            }
        })?;
        let tables = self.catalog().read();
        let mut names: Vec<TagName> = on_span
            .into_iter()
            .map(|(key, spans)| TagName {
                key: tables.symbol(key),
                scope: TagScope::Span,
                spans,
            })
            .collect();
        let mut on_resource: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        for (resource, spans) in by_resource {
            let Some(entry) = tables.resources.get(resource as usize) else {
                continue;
            };
            let mut keys: Vec<&Arc<str>> = entry
                .resource
                .attributes
                .iter()
                .map(|(key, _)| key)
                .collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                *on_resource.entry(Arc::clone(key)).or_default() += spans;
            }
        }
        names.extend(on_resource.into_iter().map(|(key, spans)| TagName {
            key,
            scope: TagScope::Resource,
            spans,
        }));
        names.sort_unstable_by(|a, b| (&a.key, a.scope).cmp(&(&b.key, b.scope)));
        Ok(names)
    }

    /// Values of a key that begin with `prefix`, sorted, at most `limit`. With [`TagScope::Any`] a
    /// resource's value counts for the spans that do not have the key themselves.
    ///
    /// # Errors
    /// Those of the query's control.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one independent choice of the caller"
    )]
    fn tag_values_of(
        &self,
        at: Lsn,
        key: &str,
        scope: TagScope,
        filter: &SpanFilter,
        prefix: &str,
        limit: usize,
        ctl: &QueryControl,
    ) -> Result<Vec<TagValue>, Error> {
        let Some(symbol) = self.catalog().read().find(key) else {
            return Ok(Vec::new());
        };
        let mut found: BTreeMap<String, u64> = BTreeMap::new();
        let mut scratch = String::new();
        let mut add = |text: &str, spans: u64| {
            if spans > 0 && text.starts_with(prefix) {
                match found.get_mut(text) {
                    Some(count) => *count += spans,
                    None => drop(found.insert(text.to_owned(), spans)),
                }
            }
        };
        let mut by_resource: HashMap<u32, u64> = HashMap::new();
        if scope == TagScope::Span && self.is_everything(at, filter) {
            for (lock, view) in self.views(at) {
                each_value(lock, symbol, ctl, &mut |encoded, postings| {
                    let spans = postings.iter().take_while(|&row| row < view.rows).count();
                    add(value::display(encoded, &mut scratch), spans as u64);
                })?;
            }
        } else {
            let mut shards: Vec<HashMap<u32, u64>> = Vec::new();
            let mut tags = Vec::new();
            self.each_slice(at, filter, ctl, &mut |i, shard, rows| {
                shards.resize_with(shards.len().max(i + 1), HashMap::new);
                let Some(counts) = shards.get_mut(i) else {
                    return;
                };
                for &row in rows {
                    tags.clear();
                    if scope != TagScope::Resource {
                        shard.tags_of(row, &mut tags);
                        tags.retain(|&tag| shard.tags.key(tag) == symbol);
                        tags.sort_unstable();
                        tags.dedup();
                        for &tag in &tags {
                            *counts.entry(tag).or_default() += 1;
                        }
                    }
                    if scope != TagScope::Span
                        && tags.is_empty()
                        && let Some(entry) = shard.class_entry(row)
                    {
                        *by_resource.entry(entry.class.resource).or_default() += 1;
                    }
                }
            })?;
            for ((lock, _), counts) in self.views(at).zip(shards) {
                let shard = lock.read();
                for (tag, spans) in counts {
                    add(value::display(shard.tags.get(tag).1, &mut scratch), spans);
                }
            }
        }
        let tables = self.catalog().read();
        for (resource, spans) in by_resource {
            let Some(entry) = tables.resources.get(resource as usize) else {
                continue;
            };
            let mut texts: Vec<String> = entry
                .resource
                .attributes
                .iter()
                .filter(|(own, _)| &**own == key)
                .map(|(_, value)| value.to_string())
                .collect();
            texts.sort_unstable();
            texts.dedup();
            for text in &texts {
                add(text, spans);
            }
        }
        drop(tables);
        let values = found.into_iter().take(limit);
        Ok(values
            .map(|(value, spans)| TagValue { value, spans })
            .collect())
    }

    /// Operations, sorted by service, name and kind.
    ///
    /// # Errors
    /// Those of the query's control.
    fn operations_of(
        &self,
        at: Lsn,
        filter: &SpanFilter,
        ctl: &QueryControl,
    ) -> Result<Vec<Operation>, Error> {
        let mut shards: Vec<HashMap<u32, u64>> = Vec::new();
        self.each_slice(at, filter, ctl, &mut |i, shard, rows| {
            shards.resize_with(shards.len().max(i + 1), HashMap::new);
            let Some(counts) = shards.get_mut(i) else {
                return;
            };
            for class in rows.iter().filter_map(|&row| shard.class_of.get(row)) {
                *counts.entry(*class).or_default() += 1;
            }
        })?;
        let mut operations: BTreeMap<OperationKey, (u64, u64)> = BTreeMap::new();
        for ((lock, _), counts) in self.views(at).zip(shards) {
            let shard = lock.read();
            let tables = self.catalog().read();
            for (class, spans) in counts {
                let Some(entry) = shard.classes.get(class) else {
                    continue;
                };
                let resource = tables.resources.get(entry.class.resource as usize);
                let service = resource.map_or(u32::MAX, |entry| entry.service);
                let key = (
                    tables.symbol(service),
                    tables.symbol(entry.class.name),
                    entry.class.kind,
                );
                let count = operations.entry(key).or_default();
                let errors = if entry.class.status == StatusCode::Error {
                    spans
                } else {
                    0
                };
                *count = (count.0 + spans, count.1 + errors);
            }
        }
        let operations = operations
            .into_iter()
            .map(|((service, name, kind), (spans, errors))| Operation {
                service,
                name,
                kind,
                spans,
                errors,
            });
        Ok(operations.collect())
    }

    /// Whether postings answer for a filter: it takes every span and no delete hides any.
    fn is_everything(&self, at: Lsn, filter: &SpanFilter) -> bool {
        filter.conditions.is_empty()
            && filter.range == TimeRange::ALL
            && self.views(at).all(|(lock, _)| !lock.read().has_deletes())
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
