//! Selecting rows by matchers.
//!
//! Every matcher becomes a set of codes of its label, where 0 stands for a row without the label;
//! rows are those whose code is in the set, for every matcher. A listed value is looked up; a pattern
//! runs over the values that start with its literal prefix.

use roaring::RoaringBitmap;

use super::Source;
use super::dictionary::{Dictionary, DictionaryCursor};
use super::directory::NameRecord;
use super::error::Error;
use super::reader::{DiskIndex, Steps};
use crate::matcher::Matcher;

/// Codes of a label, 0 for its absence: rising ranges that do not touch, ends included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CodeSet {
    ranges: Vec<(u32, u32)>,
}

impl CodeSet {
    /// Adds codes above all there are, or next to the last.
    pub(crate) fn push(&mut self, first: u32, last: u32) {
        if first > last {
            return;
        }
        match self.ranges.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => self.ranges.push((first, last)),
        }
    }

    /// All other codes up to `max`.
    fn complement(&self, max: u32) -> Self {
        let mut others = Self::default();
        let mut next = Some(0);
        for (first, last) in &self.ranges {
            if let (Some(from), Some(to)) = (next, first.checked_sub(1)) {
                others.push(from, to);
            }
            next = last.checked_add(1);
        }
        if let Some(from) = next {
            others.push(from, max);
        }
        others
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether all codes up to `max` are in it.
    fn is_full(&self, max: u32) -> bool {
        matches!(&*self.ranges, [(0, last)] if *last >= max)
    }

    pub(crate) fn contains(&self, code: u32) -> bool {
        let before = self.ranges.partition_point(|(_, last)| *last < code);
        self.ranges
            .get(before)
            .is_some_and(|(first, _)| *first <= code)
    }

    /// Whether one of the codes is in the range, ends included.
    fn touches(&self, first: u32, last: u32) -> bool {
        let before = self.ranges.partition_point(|(_, end)| *end < first);
        self.ranges
            .get(before)
            .is_some_and(|(start, _)| *start <= last)
    }
}

/// A matcher that may leave rows out.
struct Term {
    record: NameRecord,
    codes: CodeSet,
}

impl<S: Source> DiskIndex<S> {
    /// The rows that satisfy every matcher; all rows if there is none.
    ///
    /// # Errors
    /// [`Error::Damaged`], or [`Error::Cancelled`] once `keep_going` says no.
    pub fn select(
        &self,
        matchers: &[Matcher],
        mut keep_going: impl FnMut() -> bool,
    ) -> Result<RoaringBitmap, Error<S::Error>> {
        let mut steps = Steps::new(&mut keep_going);
        let mut terms = Vec::new();
        for matcher in matchers {
            let Some((_, record)) = self.find_name(matcher.name())? else {
                if matcher.matches_empty() {
                    continue;
                }
                return Ok(RoaringBitmap::new());
            };
            let values = self.values(&record);
            let codes = codes_of(matcher, values, &mut steps)?;
            if codes.is_empty() {
                return Ok(RoaringBitmap::new());
            }
            if !codes.is_full(values.count()) {
                terms.push(Term { record, codes });
            }
        }
        let mut terms = terms.into_iter();
        let Some(first) = terms.next() else {
            let mut all = RoaringBitmap::new();
            all.insert_range(0..self.rows());
            return Ok(all);
        };
        let mut rows = self.scan(&first, &mut steps)?;
        for term in terms {
            self.keep(&term, &mut rows, &mut steps)?;
        }
        let rows = RoaringBitmap::from_sorted_iter(rows);
        Ok(rows.unwrap_or_default())
    }

    /// The rows of a term, rising.
    fn scan(&self, term: &Term, steps: &mut Steps<'_>) -> Result<Vec<u32>, Error<S::Error>> {
        let mut column = self.column(&term.record);
        let mut found = Vec::new();
        let mut row = 0;
        while row < self.rows() {
            let group = column.group_of(row)?;
            if let Some(code) = group.constant() {
                if term.codes.contains(code) {
                    found.extend(group.rows.clone());
                }
            } else if term.codes.touches(group.base, group.max()) {
                group.each(|row, code| {
                    if term.codes.contains(code) {
                        found.push(row);
                    }
                });
            }
            steps.step(256)?;
            row = group.rows.end;
        }
        Ok(found)
    }

    /// Leaves out rows that a term does not select.
    fn keep(
        &self,
        term: &Term,
        rows: &mut Vec<u32>,
        steps: &mut Steps<'_>,
    ) -> Result<(), Error<S::Error>> {
        let mut column = self.column(&term.record);
        let mut failed = None;
        rows.retain(|row| {
            let code = steps.step(1).and_then(|()| column.get(*row));
            match code {
                Ok(code) => term.codes.contains(code),
                Err(error) => {
                    failed.get_or_insert(error);
                    false
                }
            }
        });
        failed.map_or(Ok(()), Err)
    }
}

/// The codes that satisfy a matcher.
fn codes_of<S: Source>(
    matcher: &Matcher,
    values: Dictionary<'_, S>,
    steps: &mut Steps<'_>,
) -> Result<CodeSet, Error<S::Error>> {
    let max = values.count();
    let mut codes = CodeSet::default();
    if matcher.holds("") {
        codes.push(0, 0);
    }
    if let Some(listed) = matcher.listed_values() {
        for value in listed.iter().filter(|value| !value.is_empty()) {
            steps.step(16)?;
            if let Some(code) = values.find(value)? {
                codes.push(code, code);
            }
        }
    } else if matcher.holds_for_all_present() {
        codes.push(1, max);
    } else {
        let mut cursor = DictionaryCursor::new(values);
        for code in values.with_prefix(matcher.literal_prefix())? {
            steps.step(1)?;
            cursor.seek(code)?;
            if matcher.holds(cursor.text()?) {
                codes.push(code, code);
            }
        }
    }
    if matcher.op().is_negative() {
        codes = codes.complement(max);
    }
    Ok(codes)
}
