//! How many series stand under label names, values and pairs, and how many bytes they take.
//!
//! A series may lie in several parts. While all parts together name at most [`WALKED_SERIES_MAX`], the
//! series of the view are walked, each counted once: the answer is exact. Past that the indexes of
//! the parts are asked and their counts added up, so that a series counts once for each part that
//! it lies in: an upper bound.
//!
//! 1. Each part names what has most series in it.
//! 2. Of all that was named, every part says how many it has.
//! 3. What has most in sum is the answer. Something that stands out in no part but would in their
//!    sum can be missed; each part names several times the limit for that reason.
//!
//! Bytes are those of sealed columns and the head's share by number of series: an estimate, good
//! enough to see what is dear.

use std::{cmp::Reverse, collections::BTreeMap};

use rootline_index::Symbol;
use rootline_wal::Lsn;

use super::{
    block::ColumnCache,
    head::MetricHead,
    part::{Asked, Part, PartData, SeriesMerge},
    series_reader::Caches,
    view::MetricView,
};
use crate::{budget::Holder, control::QueryControl, error::Error, time::TimeRange};

/// Series that are walked for an exact answer: some 100 ms. Tests pass it sooner.
const WALKED_SERIES_MAX: u64 = if cfg!(test) { 1000 } else { 100_000 };

/// Names, values and pairs that a part names for each one asked for, and some more.
const NAMED_FACTOR: usize = 4;
const NAMED_MIN: usize = 64;

/// Bytes of an entry in the counts beside its texts, about.
const ENTRY_BYTES: usize = 128;

/// What series are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CardinalityBy<'a> {
    /// Label names: how many series carry each, and how many values it has.
    Name,
    /// The values of this label; those of `__name__` are the metrics.
    Label(&'a str),
    /// Label pairs.
    Pair,
}

/// One line of an answer about cardinality.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardinalityItem {
    /// The label's name.
    pub name: String,
    /// The label's value; empty if series are counted by name.
    pub value: String,
    /// Series that carry it.
    pub series: u64,
    /// Distinct values of the label; 1 unless series are counted by name.
    pub values: u64,
    /// Bytes of their samples, about.
    pub bytes: u64,
}

/// How many series stand under what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cardinality {
    /// By falling number of series, then by rising name and value.
    pub items: Vec<CardinalityItem>,
    /// All series.
    pub series: u64,
    /// Whether counts are exact; else series that lie in several parts of the store were counted
    /// several times, and deleted ones may have been counted.
    pub exact: bool,
}

/// Counts under one name, value or pair.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    series: u64,
    values: u64,
    bytes: u64,
}

impl Count {
    fn add(&mut self, more: Self) {
        self.series = self.series.saturating_add(more.series);
        self.values = self.values.saturating_add(more.values);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

impl MetricView {
    /// The `limit` names, values or pairs with most series.
    ///
    /// # Errors
    /// What `ctl` says, [`Error::MemoryFull`], damage in a block.
    pub(crate) fn cardinality(
        &self,
        at: Lsn,
        by: CardinalityBy<'_>,
        limit: usize,
        ctl: &QueryControl,
    ) -> Result<Cardinality, Error> {
        let Some(asked) = self.asked(at, &[], TimeRange::ALL, ctl) else {
            return Ok(answer(Counts::new(), limit, 0, true));
        };
        let parts = self.parts(at, asked.range);
        let sizes: Vec<Size> = parts.iter().map(Part::size).collect();
        let series = sizes.iter().map(|size| size.series).sum::<u64>();
        if series <= WALKED_SERIES_MAX {
            return walk(&parts, &sizes, asked, by, limit);
        }
        let mut named = Counts::new();
        let per_part = limit.saturating_mul(NAMED_FACTOR).max(NAMED_MIN);
        for part in &parts {
            ctl.check()?;
            part.name_largest(&asked, by, per_part, &mut named)?;
        }
        let mut filled = Vec::new();
        for (part, size) in parts.iter().zip(&sizes).filter(|(_, s)| s.series > 0) {
            part.count(&asked, by, *size, &mut named)?;
            filled.push(part);
        }
        let exact = match filled.as_slice() {
            [only] => only.counts_exactly(asked.range)?,
            _ => false,
        };
        Ok(answer(named, limit, series, exact))
    }
}

/// Counts by name, then value.
type Counts = BTreeMap<String, BTreeMap<String, Count>>;

/// Counts the series of all parts, each once.
fn walk(
    parts: &[Part<'_>],
    sizes: &[Size],
    asked: Asked<'_>,
    by: CardinalityBy<'_>,
    limit: usize,
) -> Result<Cardinality, Error> {
    let mut merge = SeriesMerge::new(parts, asked, true)?;
    let mut held = asked.budget.reserve(Holder::Queries, 0)?;
    let mut caches = Caches::default();
    let mut counts = Counts::new();
    let mut series = 0;
    while let Some((labels, rows)) = merge.next()? {
        asked.ctl.check()?;
        series += 1;
        let mut bytes = 0;
        for &(index, row) in rows {
            if let (Some(part), Some(size)) = (parts.get(index), sizes.get(index)) {
                bytes += part.series_bytes(row, *size, caches.of(index))?;
            }
        }
        let wanted = |name: &str| match by {
            CardinalityBy::Label(label) => label == name,
            CardinalityBy::Name | CardinalityBy::Pair => true,
        };
        let one = Count {
            series: 1,
            values: 1,
            bytes,
        };
        for (name, value) in labels.iter().filter(|(name, _)| wanted(name)) {
            if let Some(count) = counts.get_mut(name).and_then(|of| of.get_mut(value)) {
                count.series += 1;
                count.bytes += bytes;
                continue;
            }
            held.grow((name.len() + value.len() + ENTRY_BYTES) as u64)?;
            let of_name = counts.entry(name.to_owned()).or_default();
            of_name.insert(value.to_owned(), one);
        }
    }
    if by == CardinalityBy::Name {
        for of_name in counts.values_mut() {
            let mut all = Count::default();
            for count in std::mem::take(of_name).into_values() {
                all.add(count);
            }
            of_name.insert(String::new(), all);
        }
    }
    Ok(answer(counts, limit, series, true))
}

/// The `limit` items with most series.
fn answer(counts: Counts, limit: usize, series: u64, exact: bool) -> Cardinality {
    let mut items = Vec::new();
    for (name, of_name) in counts {
        for (value, count) in of_name {
            if count.series > 0 {
                items.push(CardinalityItem {
                    name: name.clone(),
                    value,
                    series: count.series,
                    values: count.values,
                    bytes: count.bytes,
                });
            }
        }
    }
    // Stable: equal ones stay in the order of name and value.
    items.sort_by_key(|item| Reverse(item.series));
    items.truncate(limit);
    Cardinality {
        items,
        series,
        exact,
    }
}

/// How much a part holds.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// With or without samples.
    series: u64,
    bytes: u64,
}

impl Size {
    /// The share of `series` of them in the bytes.
    fn share_bytes(self, series: u64) -> u64 {
        let share = u128::from(self.bytes) * u128::from(series);
        u64::try_from(share / u128::from(self.series.max(1))).unwrap_or(u64::MAX)
    }
}

impl Part<'_> {
    /// How much it holds.
    fn size(&self) -> Size {
        match self.data {
            PartData::Head(head) => Size {
                series: head.index.len(),
                bytes: head.stats().bytes,
            },
            PartData::Block(block) => Size {
                series: block.meta().series,
                bytes: block.meta().file_bytes,
            },
        }
    }

    /// Bytes of the samples of one series, about.
    fn series_bytes(&self, row: u32, size: Size, cache: &mut ColumnCache) -> Result<u64, Error> {
        match self.data {
            PartData::Head(_) => Ok(size.share_bytes(1)),
            PartData::Block(block) => block.value_bytes(row, cache),
        }
    }

    /// Whether its index counts series as reading them would.
    fn counts_exactly(&self, range: TimeRange) -> Result<bool, Error> {
        match self.data {
            PartData::Head(_) => Ok(false),
            PartData::Block(block) => Ok(self.hiding.is_empty() && block.has_all_in(range)?),
        }
    }

    /// Enters the names, values or pairs with most series.
    fn name_largest(
        &self,
        asked: &Asked<'_>,
        by: CardinalityBy<'_>,
        most: usize,
        named: &mut Counts,
    ) -> Result<(), Error> {
        let found = match self.data {
            PartData::Head(head) => head.largest(by, most),
            PartData::Block(block) => block.largest(asked, by, most)?,
        };
        for (name, value) in found {
            named.entry(name).or_default().entry(value).or_default();
        }
        Ok(())
    }

    /// Adds what the part has of everything named.
    fn count(
        &self,
        asked: &Asked<'_>,
        by: CardinalityBy<'_>,
        size: Size,
        named: &mut Counts,
    ) -> Result<(), Error> {
        for (name, of_name) in named {
            for (value, count) in of_name {
                asked.ctl.check()?;
                let value = (by != CardinalityBy::Name).then_some(value.as_str());
                let (series, values) = match self.data {
                    PartData::Head(head) => head.count(name, value),
                    PartData::Block(block) => block.count(asked, name, value)?,
                };
                count.add(Count {
                    series,
                    values,
                    bytes: size.share_bytes(series),
                });
                if value.is_some() {
                    count.values = 1;
                }
            }
        }
        Ok(())
    }
}

impl MetricHead {
    /// The names, values or pairs that stand on most series.
    fn largest(&self, by: CardinalityBy<'_>, most: usize) -> Vec<(String, String)> {
        let found: Vec<(Symbol, Option<Symbol>)> = match by {
            CardinalityBy::Name => {
                let names = self.index.largest_names(most);
                names.into_iter().map(|name| (name, None)).collect()
            }
            CardinalityBy::Label(label) => {
                let name = self.registry.symbols.get(label);
                let values = name.map(|name| self.index.largest_pairs(Some(name), most));
                values.unwrap_or_default()
            }
            CardinalityBy::Pair => self.index.largest_pairs(None, most),
        };
        let table = self.registry.symbols.read();
        let text = |symbol| table.try_resolve(symbol).unwrap_or_default().to_owned();
        let texts = found.into_iter();
        texts
            .map(|(name, value)| (text(name), value.map(text).unwrap_or_default()))
            .collect()
    }

    /// Series that carry a label, or a pair, and how many values the label has.
    fn count(&self, name: &str, value: Option<&str>) -> (u64, u64) {
        let symbols = self.registry.symbols.read();
        let Some(name) = symbols.get(name) else {
            return (0, 0);
        };
        let value = match value.map(|value| symbols.get(value)) {
            Some(None) => return (0, 0),
            Some(value) => value,
            None => None,
        };
        drop(symbols);
        self.index.count(name, value)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rootline_index::Labels;

    use super::{super::view::FrozenGeneration, *};
    use crate::{
        budget::Budget,
        control::QueryLimits,
        metric::{MetricBatch, model_test::settings},
        outcome::Rejections,
        record::RecordWriter,
        time::Timestamp,
        tombstone::Tombstone,
    };

    /// A generation whose record `lsn` brought series with these ids.
    fn head(lsn: u64, ids: std::ops::Range<u64>) -> Arc<MetricHead> {
        let head = MetricHead::new(&settings(2), Budget::new(u64::MAX));
        let mut batch = MetricBatch::new(head.hash_key());
        for id in ids {
            let (parity, id) = ((id % 2).to_string(), id.to_string());
            let pairs = [("__name__", "m"), ("id", &*id), ("odd", &*parity)];
            let row = batch.series(&Labels::from_pairs(pairs).unwrap());
            batch.sample(row, Timestamp::from_nanos(1), 1.0);
        }
        let (mut writer, mut rejections) = (RecordWriter::default(), Rejections::default());
        let prepared = head
            .prepare(&mut batch, Lsn(0), &mut writer, &mut rejections)
            .unwrap();
        head.logged(&prepared, Lsn(lsn));
        for shard in 0..head.shards() {
            head.apply(shard, Lsn(lsn), &prepared, Lsn(0));
        }
        Arc::new(head)
    }

    fn ask(view: &MetricView, by: CardinalityBy<'_>, limit: usize) -> (Vec<String>, u64, bool) {
        let clock = Arc::new(rootline_wal::SystemClock::new());
        let ctl = QueryControl::new(clock, None, QueryLimits::default());
        let found = view.cardinality(Lsn(9), by, limit, &ctl).unwrap();
        assert!(found.items.iter().all(|item| item.bytes > 0));
        let line = |item: &CardinalityItem| {
            let CardinalityItem {
                name,
                value,
                series,
                values,
                ..
            } = item;
            format!("{name}={value} {series} {values}")
        };
        (
            found.items.iter().map(line).collect(),
            found.series,
            found.exact,
        )
    }

    #[test]
    fn a_series_of_several_parts_counts_once_and_a_deleted_one_not() {
        let mut view = MetricView::of(head(2, 4..10));
        let (head, cut) = (head(1, 0..6), Lsn(1));
        view.frozen.push(FrozenGeneration { head, cut });
        view.tombstones = Arc::from([Tombstone {
            lsn: Lsn(3),
            matchers: vec![rootline_index::Matcher::equal("id", "0")],
            range: TimeRange::ALL,
        }]);
        let want = ["__name__= 9 1", "id= 9 9", "odd= 9 2"].map(str::to_owned);
        assert_eq!(ask(&view, CardinalityBy::Name, 9), (want.to_vec(), 9, true));
        let want = ["odd=1 5 1", "odd=0 4 1"].map(str::to_owned);
        assert_eq!(
            ask(&view, CardinalityBy::Label("odd"), 9),
            (want.to_vec(), 9, true)
        );
        let want = ["__name__=m 9 1", "odd=1 5 1"].map(str::to_owned);
        assert_eq!(ask(&view, CardinalityBy::Pair, 2), (want.to_vec(), 9, true));
    }

    #[test]
    fn indexes_give_an_upper_bound_where_walking_would_take_too_long() {
        let mut view = MetricView::of(head(2, 0..WALKED_SERIES_MAX));
        let (head, cut) = (head(1, 0..4), Lsn(1));
        view.frozen.push(FrozenGeneration { head, cut });
        let all = WALKED_SERIES_MAX + 4;
        let want = vec![format!("__name__= {all} 2"), format!("id= {all} {all}")];
        assert_eq!(ask(&view, CardinalityBy::Name, 2), (want, all, false));
        let want = vec!["id=0 2 1".to_owned(), "id=1 2 1".to_owned()];
        let (found, _, exact) = ask(&view, CardinalityBy::Label("id"), 2);
        assert_eq!((found, exact), (want, false));
        let want = vec![format!("__name__=m {all} 1")];
        assert_eq!(ask(&view, CardinalityBy::Pair, 1), (want, all, false));
    }
}
