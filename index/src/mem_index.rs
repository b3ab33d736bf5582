//! The index of a head: which rows carry which label pairs, in memory.
//!
//! Invariants
//! - A row has at most one value of a name, so the postings of one name are disjoint, and their
//!   union is the name's rows.
//! - A name or value without rows is not in the index.
//!
//! The owner guards the index by one lock. Nothing here runs a regular expression under it unless
//! asked to: see [`MemIndex::plan`].

use hashbrown::HashMap;
use roaring::RoaringBitmap;

use crate::matcher::Matcher;
use crate::postings::{Postings, bitmap_heap_bytes};
use crate::select::{SelectPlan, Selection};
use crate::symbols::{Symbol, Symbols};

/// Rows by label name and value.
#[derive(Debug, Default)]
pub struct MemIndex {
    names: HashMap<Symbol, NameRows>,
    rows: RoaringBitmap,
}

/// What the index holds of one label name.
#[derive(Debug, Default)]
pub(crate) struct NameRows {
    pub(crate) values: HashMap<Symbol, Postings>,
    pub(crate) rows: Postings,
}

/// How much stands under one label name. See [`MemIndex::cardinality`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LabelCardinality {
    /// The label name.
    pub name: Symbol,
    /// Distinct values.
    pub values: u64,
    /// Rows that carry the label.
    pub rows: u64,
}

impl MemIndex {
    /// An empty index.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row with its label pairs. Rows that rise are added fastest. A name given twice keeps
    /// its first value.
    pub fn insert(&mut self, row: u32, pairs: &[(Symbol, Symbol)]) {
        self.rows.insert(row);
        for (name, value) in pairs {
            let name = self.names.entry(*name).or_default();
            if name.rows.push(row) {
                name.values.entry(*value).or_default().push(row);
            }
        }
    }

    /// Takes a row out. `pairs` are those it was inserted with; others change nothing.
    pub fn remove(&mut self, row: u32, pairs: &[(Symbol, Symbol)]) {
        self.rows.remove(row);
        for (name, value) in pairs {
            let Some(of_name) = self.names.get_mut(name) else {
                continue;
            };
            let Some(of_value) = of_name.values.get_mut(value) else {
                continue;
            };
            if !of_value.remove(row) {
                continue;
            }
            if of_value.is_empty() {
                of_name.values.remove(value);
            }
            of_name.rows.remove(row);
            if of_name.values.is_empty() {
                self.names.remove(name);
            }
        }
    }

    /// All rows.
    pub fn rows(&self) -> &RoaringBitmap {
        &self.rows
    }

    /// Rows in the index.
    pub fn len(&self) -> u64 {
        self.rows.len()
    }

    /// Whether the index has no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows that carry one pair.
    pub fn postings(&self, name: Symbol, value: Symbol) -> Option<&Postings> {
        self.names.get(&name)?.values.get(&value)
    }

    /// The rows that satisfy every matcher; all rows if there is none. Regular expressions run in
    /// here: with many values and a lock held, use [`plan`](Self::plan) instead.
    pub fn select(&self, matchers: &[Matcher], symbols: &Symbols) -> RoaringBitmap {
        self.select_rows(&self.plan(matchers, symbols).evaluate(symbols))
    }

    /// The first of three steps of a selection whose regular expressions run outside the lock:
    ///
    /// 1. under the index's lock, `plan` copies the symbols of the values that must be looked at;
    /// 2. without it, [`SelectPlan::evaluate`] runs the matchers on them;
    /// 3. under it again, [`select_rows`](Self::select_rows) joins the postings.
    ///
    /// Rows inserted between 1 and 3 may come out right or wrong. So a caller takes its snapshot
    /// before 1 and drops rows that the snapshot does not see, which it does in any case.
    pub fn plan(&self, matchers: &[Matcher], symbols: &Symbols) -> SelectPlan {
        SelectPlan::new(self, matchers, symbols)
    }

    /// The last step of a selection; see [`plan`](Self::plan).
    pub fn select_rows(&self, selection: &Selection) -> RoaringBitmap {
        selection.rows(self)
    }

    /// Every label name with the rows that carry it, in no order.
    pub fn label_names(&self) -> impl Iterator<Item = (Symbol, &Postings)> {
        self.names
            .iter()
            .map(|(name, of_name)| (*name, &of_name.rows))
    }

    /// Every value of a label with the rows that carry it, in no order; none for an unknown name.
    pub fn label_values(&self, name: Symbol) -> impl Iterator<Item = (Symbol, &Postings)> {
        let values = self.names.get(&name).map(|of_name| &of_name.values);
        values
            .into_iter()
            .flatten()
            .map(|(value, rows)| (*value, rows))
    }

    /// Distinct values and rows of every label name, in no order. Cheap: a walk over the names.
    pub fn cardinality(&self) -> impl Iterator<Item = LabelCardinality> {
        self.names.iter().map(|(name, of_name)| LabelCardinality {
            name: *name,
            values: of_name.values.len() as u64,
            rows: of_name.rows.len(),
        })
    }

    /// The `count` values of a label that stand on most rows, most first; equal ones by symbol.
    pub fn largest_values(&self, name: Symbol, count: usize) -> Vec<(Symbol, u64)> {
        let mut values: Vec<_> = self
            .label_values(name)
            .map(|(value, rows)| (value, rows.len()))
            .collect();
        values.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        values.truncate(count);
        values
    }

    /// Bytes allocated. Walks every label value (about 10 ms for a million): for a report or a
    /// budget's periodic recount, not for every write.
    pub fn heap_bytes(&self) -> usize {
        let of_name = |of_name: &NameRows| {
            of_name.rows.heap_bytes()
                + of_name.values.allocation_size()
                + of_name
                    .values
                    .values()
                    .map(Postings::heap_bytes)
                    .sum::<usize>()
        };
        bitmap_heap_bytes(&self.rows)
            + self.names.allocation_size()
            + self.names.values().map(of_name).sum::<usize>()
    }

    pub(crate) fn name_rows(&self, name: Symbol) -> Option<&NameRows> {
        self.names.get(&name)
    }
}
