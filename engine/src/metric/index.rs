//! From label pairs to series: the index of the head.
//!
//! One index over all shards, behind one lock. Rows are given out as series get their first sample,
//! so that they rise and postings only grow at their end.
//!
//! Invariants
//! - A series is entered once, under its shard's lock, before the record that brought it is visible.
//!   So a snapshot finds every series it can see, and perhaps some it cannot.

use std::cmp::Reverse;

use parking_lot::RwLock;
use rootline_index::{Matcher, MemIndex, Postings, SharedSymbols, Symbol};

use super::registry::{Registry, SeriesNumber};
/// Bytes of a row until the first count: eight labels in the postings of common values.
const ROW_BYTES_GUESS: usize = 64;
/// Rows before the first count.
const RECOUNT_ROWS_MIN: usize = 1024;

/// See the module's doc.
#[derive(Debug, Default)]
pub(crate) struct HeadIndex {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    index: MemIndex,
    /// By row.
    series: Vec<SeriesNumber>,
    /// Bytes of `index` at the last count, and how many rows it had.
    counted_bytes: usize,
    counted_rows: usize,
}

impl Inner {
    /// Walking the whole index is dear, so it is counted each time it has grown by a quarter, and
    /// taken to grow evenly between.
    fn heap_bytes(&self) -> usize {
        let rows = self.series.len();
        let row_bytes = self.counted_bytes.checked_div(self.counted_rows);
        let new_rows = rows - self.counted_rows;
        self.counted_bytes
            + new_rows * row_bytes.unwrap_or(ROW_BYTES_GUESS)
            + self.series.capacity() * size_of::<SeriesNumber>()
    }
}

impl HeadIndex {
    /// Enters series. Returns by how many bytes the index grew.
    pub(crate) fn insert(&self, registry: &Registry, fresh: &[SeriesNumber]) -> i64 {
        // Labels are looked up first: the registry's locks are not taken under the index's.
        let mut all_pairs = Vec::with_capacity(fresh.len() * 8);
        let mut ends = Vec::with_capacity(fresh.len());
        let mut pairs: Vec<(Symbol, Symbol)> = Vec::new();
        for &number in fresh {
            registry.pairs(number, &mut pairs);
            all_pairs.extend_from_slice(&pairs);
            ends.push(all_pairs.len());
        }
        let mut inner = self.inner.write();
        let before = inner.heap_bytes();
        let mut start = 0;
        for (&number, &end) in fresh.iter().zip(&ends) {
            let row = u32::try_from(inner.series.len()).expect("series numbers are 32 bits wide");
            inner.series.push(number);
            inner
                .index
                .insert(row, all_pairs.get(start..end).unwrap_or_default());
            start = end;
        }
        let rows = inner.series.len();
        if rows >= RECOUNT_ROWS_MIN && rows >= inner.counted_rows / 4 * 5 {
            inner.counted_bytes = inner.index.heap_bytes();
            inner.counted_rows = rows;
        }
        let grown = inner.heap_bytes();
        i64::try_from(grown).unwrap_or(i64::MAX) - i64::try_from(before).unwrap_or(i64::MAX)
    }

    /// The series that satisfy every matcher; all if there is none. In no promised order. `None` if
    /// `keep_going`, asked now and then, said no.
    pub(crate) fn select(
        &self,
        matchers: &[Matcher],
        symbols: &SharedSymbols,
        keep_going: impl FnMut() -> bool,
    ) -> Option<Vec<SeriesNumber>> {
        let plan = self.inner.read().index.plan(matchers, &symbols.read());
        let selection = plan.evaluate_shared(symbols, keep_going).ok()?;
        let inner = self.inner.read();
        let rows = inner.index.select_rows(&selection);
        Some(
            rows.iter()
                .filter_map(|row| inner.series.get(row as usize).copied())
                .collect(),
        )
    }

    /// Every label name, and a series that has it. In no promised order.
    pub(crate) fn names(&self) -> Vec<(Symbol, SeriesNumber)> {
        let inner = self.inner.read();
        examples(&inner, inner.index.label_names())
    }

    /// Series entered.
    pub(crate) fn len(&self) -> u64 {
        self.inner.read().series.len() as u64
    }

    /// The label names that stand on most series.
    pub(crate) fn largest_names(&self, most: usize) -> Vec<Symbol> {
        let mut names: Vec<_> = self.inner.read().index.cardinality().collect();
        names.sort_unstable_by_key(|name| (Reverse(name.rows), name.name));
        names.truncate(most);
        names.into_iter().map(|name| name.name).collect()
    }

    /// The label pairs that stand on most series; of one name, or of all.
    pub(crate) fn largest_pairs(
        &self,
        name: Option<Symbol>,
        most: usize,
    ) -> Vec<(Symbol, Option<Symbol>)> {
        let inner = self.inner.read();
        let names: Vec<Symbol> = match name {
            Some(name) => vec![name],
            None => inner.index.label_names().map(|(name, _)| name).collect(),
        };
        let mut pairs = Vec::new();
        for name in names {
            let values = inner.index.largest_values(name, most);
            pairs.extend(values.into_iter().map(|(value, rows)| (rows, name, value)));
        }
        pairs.sort_unstable_by_key(|&(rows, name, value)| (Reverse(rows), name, value));
        pairs.truncate(most);
        let pairs = pairs.into_iter();
        pairs.map(|(_, name, value)| (name, Some(value))).collect()
    }

    /// Series that carry a label or a pair, and how many values the label has.
    pub(crate) fn count(&self, name: Symbol, value: Option<Symbol>) -> (u64, u64) {
        let inner = self.inner.read();
        if let Some(value) = value {
            let rows = inner.index.postings(name, value);
            return (rows.map_or(0, Postings::len), 1);
        }
        let of_name = inner.index.cardinality().find(|of| of.name == name);
        of_name.map_or((0, 0), |of| (of.rows, of.values))
    }

    /// Every value of a label, and a series that has it. In no promised order.
    pub(crate) fn values(&self, name: Symbol) -> Vec<(Symbol, SeriesNumber)> {
        let inner = self.inner.read();
        examples(&inner, inner.index.label_values(name))
    }
}

fn examples<'i>(
    inner: &Inner,
    rows: impl Iterator<Item = (Symbol, &'i Postings)>,
) -> Vec<(Symbol, SeriesNumber)> {
    let first = |rows: &Postings| inner.series.get(rows.iter().next()? as usize).copied();
    rows.filter_map(|(symbol, rows)| Some((symbol, first(rows)?)))
        .collect()
}
