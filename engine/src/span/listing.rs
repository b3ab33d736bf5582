//! What there is to search for: attribute keys, their values, services, operations.
//!
//! Every part counts for itself, by classes, postings and directories where they suffice; here the
//! counts are added up. Of values no more are held than are asked for: one that comes after the last of
//! the first `limit` never becomes one of them again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{filter::TagScope, part::SpanPart};
use crate::{
    control::QueryControl,
    error::Error,
    span::filter::{SpanCondition, SpanFilter, StringMatch},
    time::TimeRange,
    value::{AttributeType, Value},
};

/// An attribute key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TagName {
    /// The key.
    pub key: Arc<str>,
    /// Where it stands; never [`TagScope::Any`].
    pub scope: TagScope,
    /// Types of its values, sorted.
    pub types: Vec<AttributeType>,
    /// Spans that have it there.
    pub spans: u64,
}

/// A value of an attribute key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TagValue {
    /// The value in its display form.
    pub value: String,
    /// Its type. Values of two types that read the same are listed apart.
    pub kind: AttributeType,
    /// Spans that have it.
    pub spans: u64,
}

/// Keys with what is known of them so far.
#[derive(Debug, Default)]
pub(crate) struct NameCounts {
    names: BTreeMap<(Arc<str>, TagScope), (BTreeSet<AttributeType>, u64)>,
}

impl NameCounts {
    /// Adds spans that have a key.
    pub(crate) fn add(
        &mut self,
        key: &Arc<str>,
        scope: TagScope,
        types: impl IntoIterator<Item = AttributeType>,
        spans: u64,
    ) {
        if spans > 0 {
            let name = self.names.entry((Arc::clone(key), scope)).or_default();
            name.0.extend(types);
            name.1 += spans;
        }
    }

    fn finish(self) -> Vec<TagName> {
        let names = self.names.into_iter();
        names
            .map(|((key, scope), (types, spans))| TagName {
                key,
                scope,
                types: types.into_iter().collect(),
                spans,
            })
            .collect()
    }
}

/// The first values of a key, with the spans that have them so far.
#[derive(Debug)]
pub(crate) struct ValueCounts<'p> {
    prefix: &'p str,
    limit: usize,
    values: BTreeMap<(String, AttributeType), u64>,
}

impl<'p> ValueCounts<'p> {
    fn new(prefix: &'p str, limit: usize) -> Self {
        Self {
            prefix,
            limit,
            values: BTreeMap::new(),
        }
    }

    /// Adds spans that have a value.
    pub(crate) fn add(&mut self, text: &str, kind: AttributeType, spans: u64) {
        if spans == 0 || self.limit == 0 || !text.starts_with(self.prefix) {
            return;
        }
        if self.values.len() >= self.limit
            && let Some(((last, last_kind), _)) = self.values.last_key_value()
            && (text, kind) > (last.as_str(), *last_kind)
        {
            return;
        }
        *self.values.entry((text.to_owned(), kind)).or_default() += spans;
        if self.values.len() > self.limit {
            self.values.pop_last();
        }
    }

    /// The same for values of which some occur twice in one owner.
    pub(crate) fn add_all<'v>(&mut self, values: impl Iterator<Item = &'v Value>, spans: u64) {
        let own: BTreeSet<(String, AttributeType)> = values
            .map(|value| (value.to_string(), AttributeType::of(value)))
            .collect();
        for (text, kind) in own {
            self.add(&text, kind, spans);
        }
    }

    fn finish(self) -> Vec<TagValue> {
        let values = self.values.into_iter();
        values
            .map(|((value, kind), spans)| TagValue { value, kind, spans })
            .collect()
    }
}

/// Services with spans that start in `range`, sorted.
pub(crate) fn services(
    parts: &[SpanPart],
    range: TimeRange,
    ctl: &QueryControl,
) -> Result<Vec<String>, Error> {
    let filter = SpanFilter::in_range(range);
    texts_of_classes(parts, &filter, ctl, |part, class| {
        part.symbol(part.class(class).service)
    })
}

/// Names of the spans of a service (of all if `None`) that start in `range`, sorted.
pub(crate) fn operations(
    parts: &[SpanPart],
    service: Option<&str>,
    range: TimeRange,
    ctl: &QueryControl,
) -> Result<Vec<String>, Error> {
    let mut filter = SpanFilter::in_range(range);
    if let Some(service) = service {
        filter = filter.and(SpanCondition::Service(StringMatch::equal(service)));
    }
    texts_of_classes(parts, &filter, ctl, |part, class| {
        part.symbol(part.class(class).name)
    })
}

fn texts_of_classes(
    parts: &[SpanPart],
    filter: &SpanFilter,
    ctl: &QueryControl,
    text: impl Fn(&SpanPart, u32) -> Arc<str>,
) -> Result<Vec<String>, Error> {
    let mut texts: BTreeSet<Arc<str>> = BTreeSet::new();
    for part in parts {
        let counts = part.count_by_class(filter, ctl)?;
        texts.extend(counts.into_iter().map(|(class, _)| text(part, class)));
    }
    Ok(texts.iter().map(ToString::to_string).collect())
}

/// Keys that begin with `prefix`, in one scope or in all, sorted by key, then scope; at most `limit`.
pub(crate) fn tag_names(
    parts: &[SpanPart],
    of: TagScope,
    prefix: &str,
    limit: usize,
    ctl: &QueryControl,
) -> Result<Vec<TagName>, Error> {
    let scopes: &[TagScope] = match &of {
        TagScope::Any => &[
            TagScope::Span,
            TagScope::Resource,
            TagScope::Event,
            TagScope::Link,
            TagScope::Scope,
        ],
        one => std::slice::from_ref(one),
    };
    let mut names = NameCounts::default();
    for part in parts {
        for &scope in scopes {
            part.tag_names(scope, prefix, ctl, &mut names)?;
        }
    }
    let mut names = names.finish();
    names.truncate(limit);
    Ok(names)
}

/// Values of a key that begin with `prefix`, sorted by text, then type; at most `limit`.
pub(crate) fn tag_values(
    parts: &[SpanPart],
    key: &str,
    of: TagScope,
    prefix: &str,
    limit: usize,
    ctl: &QueryControl,
) -> Result<Vec<TagValue>, Error> {
    let mut values = ValueCounts::new(prefix, limit);
    for part in parts {
        part.tag_values(key, of, ctl, &mut values)?;
    }
    Ok(values.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_values_are_counted_whole_in_whatever_order_they_come() {
        let mut counts = ValueCounts::new("a", 2);
        for text in ["a5", "a3", "b", "a1", "a5", "a3", "a2", "a1", "a2", "a3"] {
            counts.add(text, AttributeType::Str, 1);
        }
        let found: Vec<_> = counts.finish();
        let found: Vec<_> = found.iter().map(|v| (v.value.as_str(), v.spans)).collect();
        assert_eq!(found, [("a1", 2), ("a2", 2)]);
    }
}
