//! Selecting rows by matchers: plan, evaluate, join.
//!
//! 1. Every matcher is turned into a set of label values: those for which its bare condition
//!    (without the negation) holds. Listed values are looked up; for the rest, all values of the
//!    name are copied as candidates and the matcher runs over them later.
//! 2. A matcher that a missing label does not satisfy is *positive*: its rows are the union of the
//!    postings of matching values, and the result lies inside. One that a missing label satisfies
//!    is *negative*: the rows of values that do not match are taken away.
//! 3. Positive matchers are joined from the smallest on, then the negative ones are subtracted.
//!
//! Because the postings of one name are disjoint, a set of values can be held by its complement
//! wherever that is shorter.

use roaring::{MultiOps as _, RoaringBitmap};

use crate::error::Error;
use crate::matcher::Matcher;
use crate::mem_index::{MemIndex, NameRows};
use crate::postings::{Postings, sorted_bitmap};
use crate::symbols::{SharedSymbols, Symbol, Symbols};

/// Values looked at between two questions whether to go on, and under one hold of a shared
/// table's lock: some 100 microseconds with an automaton.
const VALUES_PER_STEP: usize = 1024;

/// A selection whose matchers may still have to run over candidate values.
/// See [`MemIndex::plan`].
#[derive(Debug)]
pub struct SelectPlan {
    terms: Vec<Term>,
    /// Terms before this one are evaluated.
    current: usize,
}

/// A selection ready to be joined. See [`MemIndex::plan`].
#[derive(Debug)]
pub struct Selection {
    terms: Vec<Term>,
}

#[derive(Debug)]
struct Term {
    matcher: Matcher,
    /// The matcher's label, if any row ever had it.
    name: Option<Symbol>,
    /// Values still to be looked at; taken from the end.
    candidates: Vec<Symbol>,
    /// Values for which the bare condition holds, as far as known.
    holding: Values,
}

/// A set of values of one name.
#[derive(Debug, Clone)]
struct Values {
    listed: Vec<Symbol>,
    /// Whether the set is all values of the name except those listed.
    complement: bool,
}

impl SelectPlan {
    pub(crate) fn new(index: &MemIndex, matchers: &[Matcher], symbols: &Symbols) -> Self {
        let terms = matchers
            .iter()
            .map(|m| Term::new(index, m, symbols))
            .collect();
        Self { terms, current: 0 }
    }

    /// Candidate values that the matchers must still look at.
    pub fn candidates_len(&self) -> usize {
        self.terms.iter().map(|term| term.candidates.len()).sum()
    }

    /// Runs the matchers over the candidates.
    pub fn evaluate(mut self, symbols: &Symbols) -> Selection {
        self.sort_candidates();
        while self.step(symbols) {}
        Selection { terms: self.terms }
    }

    /// As [`evaluate`](Self::evaluate), with the table's lock taken for a run of values at a time
    /// and `keep_going` asked between runs.
    ///
    /// # Errors
    /// [`Error::Cancelled`] once `keep_going` says no.
    pub fn evaluate_shared(
        mut self,
        symbols: &SharedSymbols,
        mut keep_going: impl FnMut() -> bool,
    ) -> Result<Selection, Error> {
        self.sort_candidates();
        while self.step(&symbols.read()) {
            if !keep_going() {
                return Err(Error::Cancelled);
            }
        }
        Ok(Selection { terms: self.terms })
    }

    /// Strings stand in memory in the order of their symbols; in any other order, each of a million
    /// would be a cache miss.
    fn sort_candidates(&mut self) {
        for term in &mut self.terms {
            term.candidates.sort_unstable();
        }
    }

    /// Looks at the next values. Returns whether there may be more.
    fn step(&mut self, symbols: &Symbols) -> bool {
        let Some(term) = self.terms.get_mut(self.current) else {
            return false;
        };
        let left = term.candidates.len().saturating_sub(VALUES_PER_STEP);
        for value in term.candidates.drain(left..) {
            let holds = symbols
                .try_resolve(value)
                .is_some_and(|text| term.matcher.holds(text));
            if holds {
                term.holding.listed.push(value);
            }
        }
        if left == 0 {
            self.current += 1;
        }
        true
    }
}

impl Term {
    fn new(index: &MemIndex, matcher: &Matcher, symbols: &Symbols) -> Self {
        let name = symbols.get(matcher.name());
        let of_name = name.and_then(|name| index.name_rows(name));
        let mut holding = Values {
            listed: Vec::new(),
            complement: false,
        };
        let mut candidates = Vec::new();
        if let Some(values) = matcher.listed_values() {
            let known = |value: &Symbol| of_name.is_some_and(|n| n.values.contains_key(value));
            holding.listed = values
                .iter()
                .filter_map(|v| symbols.get(v))
                .filter(known)
                .collect();
        } else if matcher.holds_for_all_present() {
            holding.complement = true;
        } else if let Some(of_name) = of_name {
            candidates = of_name.values.keys().copied().collect();
        }
        Self {
            matcher: matcher.clone(),
            name,
            candidates,
            holding,
        }
    }
}

impl Selection {
    pub(crate) fn rows(&self, index: &MemIndex) -> RoaringBitmap {
        let mut positive = Vec::new();
        let mut negative = Vec::new();
        for term in &self.terms {
            let of_name = term.name.and_then(|name| index.name_rows(name));
            // The rows to keep are those whose value matches, to take away those whose value does
            // not; both are the holding values or all others.
            let is_negative = term.matcher.matches_empty();
            let inverted = term.matcher.op().is_negative() != is_negative;
            let Some(of_name) = of_name else {
                if is_negative {
                    continue;
                }
                return RoaringBitmap::new();
            };
            let rows = TermRows {
                of_name,
                values: &term.holding,
                inverted,
            };
            if is_negative {
                negative.push(rows);
            } else {
                positive.push((rows.count(), rows));
            }
        }
        positive.sort_by_key(|(count, _)| *count);
        let mut positive = positive.into_iter();
        let mut selected = match positive.next() {
            Some((0, _)) => return RoaringBitmap::new(),
            Some((_, rows)) => rows.to_bitmap(),
            None => index.rows().clone(),
        };
        for (_, rows) in positive {
            if selected.is_empty() {
                return selected;
            }
            rows.intersect_into(&mut selected);
        }
        for rows in negative {
            if selected.is_empty() {
                return selected;
            }
            rows.subtract_from(&mut selected);
        }
        selected
    }
}

/// The rows of one name whose value is in a set.
struct TermRows<'i> {
    of_name: &'i NameRows,
    values: &'i Values,
    /// Whether the set is taken the other way round.
    inverted: bool,
}

impl TermRows<'_> {
    fn is_complement(&self) -> bool {
        self.values.complement != self.inverted
    }

    fn listed(&self) -> impl Iterator<Item = &Postings> {
        self.values
            .listed
            .iter()
            .filter_map(|value| self.of_name.values.get(value))
    }

    fn count(&self) -> u64 {
        let listed: u64 = self.listed().map(Postings::len).sum();
        if self.is_complement() {
            self.of_name.rows.len().saturating_sub(listed)
        } else {
            listed
        }
    }

    fn to_bitmap(&self) -> RoaringBitmap {
        let listed = union(self.listed());
        if self.is_complement() {
            self.of_name.rows.to_bitmap() - listed
        } else {
            listed
        }
    }

    fn intersect_into(&self, selected: &mut RoaringBitmap) {
        if self.is_complement() {
            self.of_name.rows.intersect_into(selected);
            *selected -= union(self.listed());
        } else if let ([_], Some(postings)) = (&*self.values.listed, self.listed().next()) {
            postings.intersect_into(selected);
        } else {
            *selected &= union(self.listed());
        }
    }

    fn subtract_from(&self, selected: &mut RoaringBitmap) {
        if self.is_complement() {
            *selected -= self.to_bitmap();
        } else if let ([_], Some(postings)) = (&*self.values.listed, self.listed().next()) {
            postings.subtract_from(selected);
        } else {
            *selected -= union(self.listed());
        }
    }
}

/// The union of many postings: short ones are gathered and sorted once, which is far cheaper than
/// inserting a million scattered rows one by one.
fn union<'p>(postings: impl Iterator<Item = &'p Postings>) -> RoaringBitmap {
    let mut bitmaps = Vec::new();
    let mut rows = Vec::new();
    for postings in postings {
        match postings.as_bitmap() {
            Some((bitmap, tail)) => {
                bitmaps.push(bitmap);
                rows.extend_from_slice(tail);
            }
            None => rows.extend_from_slice(postings.rows()),
        }
    }
    rows.sort_unstable();
    rows.dedup();
    let gathered = sorted_bitmap(&rows);
    if bitmaps.is_empty() {
        return gathered;
    }
    bitmaps.push(&gathered);
    bitmaps.union()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::labels::Labels;
    use crate::matcher::MatchOp;

    /// An index beside the plain list of what is in it.
    #[derive(Default)]
    struct Twin {
        index: MemIndex,
        symbols: Symbols,
        rows: Vec<Option<Labels>>,
    }

    impl Twin {
        fn pairs(&mut self, labels: &Labels) -> Vec<(Symbol, Symbol)> {
            labels
                .iter()
                .map(|(n, v)| (self.symbols.intern(n), self.symbols.intern(v)))
                .collect()
        }

        fn insert(&mut self, labels: Labels) {
            let pairs = self.pairs(&labels);
            self.index
                .insert(u32::try_from(self.rows.len()).unwrap(), &pairs);
            self.rows.push(Some(labels));
        }

        fn remove(&mut self, row: usize) {
            if let Some(labels) = self.rows[row].take() {
                let pairs = self.pairs(&labels);
                self.index.remove(u32::try_from(row).unwrap(), &pairs);
            }
        }

        fn expected(&self, matchers: &[Matcher]) -> Vec<u32> {
            let matching = |labels: &Labels| matchers.iter().all(|m| m.matches_labels(labels));
            let rows = (0_u32..).zip(&self.rows);
            rows.filter(|(_, l)| l.as_ref().is_some_and(matching))
                .map(|(row, _)| row)
                .collect()
        }
    }

    fn label_sets(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Labels>> {
        let pairs = prop::collection::btree_map("[abc]", "[xyz]{1,2}", 0..4);
        prop::collection::vec(
            pairs.prop_map(|map| Labels::from_pairs(map).unwrap()),
            count,
        )
    }

    fn matchers() -> impl Strategy<Value = Vec<Matcher>> {
        let op = prop::sample::select(
            &[
                MatchOp::Equal,
                MatchOp::NotEqual,
                MatchOp::Regex,
                MatchOp::NotRegex,
            ][..],
        );
        let value = prop_oneof![
            "[xyz]{0,2}",
            prop::sample::select(
                &[
                    "x.*", ".*", ".+", ".*y", "x|yz", "x|", "(xy?)*", "[xy]+", "|z.*", "x?",
                    "[a&&b]"
                ][..]
            )
            .prop_map(str::to_owned),
        ];
        let matcher = (op, "[abcd]", value)
            .prop_map(|(op, name, value)| Matcher::new(op, &name, &value).unwrap());
        prop::collection::vec(matcher, 0..4)
    }

    #[test]
    fn no_matcher_selects_every_row() {
        let mut twin = Twin::default();
        twin.insert(Labels::empty());
        twin.insert(Labels::from_pairs([("a", "x")]).unwrap());
        assert_eq!(twin.index.select(&[], &twin.symbols).len(), 2);
    }

    #[test]
    fn a_cancelled_evaluation_says_so() {
        let symbols = SharedSymbols::new();
        let mut index = MemIndex::new();
        for row in 0..5_000 {
            let pairs = symbols.intern_pairs([("a", row.to_string().as_str())].into_iter());
            index.insert(row, &pairs);
        }
        let matchers = [Matcher::new(MatchOp::Regex, "a", "[0-9]+7").unwrap()];
        let plan = index.plan(&matchers, &symbols.read());
        assert_eq!(plan.candidates_len(), 5_000);
        let mut left = 2;
        let answer = plan.evaluate_shared(&symbols, || {
            left -= 1;
            left > 0
        });
        assert_eq!(answer.unwrap_err(), Error::Cancelled);
        let plan = index.plan(&matchers, &symbols.read());
        let selection = plan.evaluate_shared(&symbols, || true).unwrap();
        assert_eq!(index.select_rows(&selection).len(), 499);
    }

    #[test]
    fn removing_every_row_leaves_an_empty_index() {
        let mut twin = Twin::default();
        for i in 0..100 {
            let labels = Labels::from_pairs([("a", "x".to_owned()), ("b", i.to_string())]).unwrap();
            twin.insert(labels);
        }
        for row in 0..100 {
            twin.remove(row);
        }
        assert!(twin.index.is_empty());
        assert_eq!(twin.index.label_names().count(), 0);
        assert_eq!(twin.index.cardinality().count(), 0);
    }

    proptest! {
        #[test]
        fn select_agrees_with_trying_every_row(
            first in label_sets(0..60), removed in prop::collection::vec(0_usize..60, 0..10),
            late in label_sets(0..10), matchers in matchers(),
        ) {
            let mut twin = Twin::default();
            for labels in first {
                twin.insert(labels);
            }
            for row in removed.into_iter().filter(|row| *row < twin.rows.len()).collect::<Vec<_>>() {
                twin.remove(row);
            }
            let expected = twin.expected(&matchers);
            let selected = twin.index.select(&matchers, &twin.symbols);
            prop_assert!(selected.iter().eq(expected.iter().copied()), "{:?}", matchers);

            // Rows that arrive between the steps do not disturb the answer for earlier ones.
            let plan = twin.index.plan(&matchers, &twin.symbols);
            let rows_before = u32::try_from(twin.rows.len()).unwrap();
            for labels in late {
                twin.insert(labels);
            }
            let selection = plan.evaluate(&twin.symbols);
            let mut selected = twin.index.select_rows(&selection);
            selected.remove_range(rows_before..);
            prop_assert!(selected.iter().eq(expected));
        }

        #[test]
        fn names_values_and_counts_agree_with_the_rows(sets in label_sets(0..60)) {
            let mut twin = Twin::default();
            for labels in sets {
                twin.insert(labels);
            }
            for name in ["a", "b", "c", "d"] {
                let matcher = Matcher::new(MatchOp::NotEqual, name, "").unwrap();
                let expected = twin.expected(std::slice::from_ref(&matcher));
                let symbol = twin.symbols.get(name);
                let listed = symbol.into_iter().flat_map(|n| twin.index.label_values(n));
                let mut rows: Vec<u32> = listed.flat_map(|(_, rows)| rows.iter()).collect();
                rows.sort_unstable();
                prop_assert_eq!(&rows, &expected);
                let counted = twin.index.cardinality().find(|c| Some(c.name) == symbol);
                prop_assert_eq!(counted.map_or(0, |c| c.rows), expected.len() as u64);
                if let Some(symbol) = symbol {
                    let largest = twin.index.largest_values(symbol, usize::MAX);
                    prop_assert!(largest.is_sorted_by(|a, b| a.1 >= b.1));
                    prop_assert_eq!(largest.iter().map(|v| v.1).sum::<u64>(), expected.len() as u64);
                }
            }
        }
    }
}
