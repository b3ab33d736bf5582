//! How much stands under label names and pairs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Source;
use super::dictionary::DictionaryCursor;
use super::directory::NameRecord;
use super::error::Error;
use super::reader::{DiskIndex, Steps};

/// How much stands under one label name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameCardinality {
    /// The label name.
    pub name: String,
    /// Distinct values.
    pub values: u64,
    /// Rows that carry the label.
    pub rows: u64,
    /// Bytes of its distinct values.
    pub value_bytes: u64,
}

/// How many rows carry one label pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairCardinality {
    /// The label name.
    pub name: String,
    /// The label value.
    pub value: String,
    /// Rows that carry the pair.
    pub rows: u64,
}

impl<S: Source> DiskIndex<S> {
    /// Values, rows and bytes of every label name, in rising order of names. Reads the directory
    /// only.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn name_cardinality(&self) -> Result<Vec<NameCardinality>, Error<S::Error>> {
        let mut cursor = DictionaryCursor::new(self.names());
        let mut names = Vec::new();
        for code in 1..=self.names().count() {
            cursor.seek(code)?;
            let record = self.record(code)?;
            names.push(NameCardinality {
                name: cursor.text()?.to_owned(),
                values: u64::from(record.values.count),
                rows: u64::from(record.rows),
                value_bytes: record.value_bytes,
            });
        }
        Ok(names)
    }

    /// The `limit` values of a label that stand on most rows, most first, equal ones in rising order;
    /// none for an unknown name. Reads the whole column of the label.
    ///
    /// # Errors
    /// [`Error::Damaged`], or [`Error::Cancelled`] once `keep_going` says no.
    pub fn value_cardinality(
        &self,
        name: &str,
        limit: usize,
        mut keep_going: impl FnMut() -> bool,
    ) -> Result<Vec<PairCardinality>, Error<S::Error>> {
        let Some((name, record)) = self.find_name(name)? else {
            return Ok(Vec::new());
        };
        let mut largest = Largest::new(limit);
        let mut steps = Steps::new(&mut keep_going);
        let weights = self.weights(&mut steps)?;
        self.offer_values(name, &record, &weights, &mut largest, &mut steps)?;
        self.named(largest)
    }

    /// The `limit` label pairs that stand on most rows, most first, equal ones in rising order.
    /// Reads every column: some milliseconds for a million rows.
    ///
    /// # Errors
    /// [`Error::Damaged`], or [`Error::Cancelled`] once `keep_going` says no.
    pub fn pair_cardinality(
        &self,
        limit: usize,
        mut keep_going: impl FnMut() -> bool,
    ) -> Result<Vec<PairCardinality>, Error<S::Error>> {
        let mut largest = Largest::new(limit);
        let mut steps = Steps::new(&mut keep_going);
        let weights = self.weights(&mut steps)?;
        for name in 1..=self.names().count() {
            let record = self.record(name)?;
            self.offer_values(name, &record, &weights, &mut largest, &mut steps)?;
        }
        self.named(largest)
    }

    fn offer_values(
        &self,
        name: u32,
        record: &NameRecord,
        weights: &Weights,
        largest: &mut Largest,
        steps: &mut Steps<'_>,
    ) -> Result<(), Error<S::Error>> {
        for (code, rows) in (0..)
            .zip(self.rows_by_code(name, record, weights, steps)?)
            .skip(1)
        {
            largest.offer(rows, name, code);
        }
        Ok(())
    }

    /// By code, the rows that have it.
    fn rows_by_code(
        &self,
        name: u32,
        record: &NameRecord,
        weights: &Weights,
        steps: &mut Steps<'_>,
    ) -> Result<Vec<u64>, Error<S::Error>> {
        let mut counts = vec![0_u64; record.values.count as usize + 1];
        let mut add = |code: u32, rows: u64| {
            if let Some(count) = counts.get_mut(code as usize) {
                *count += rows;
            }
        };
        if name == self.trailer().lead {
            for run in 0..self.row_map().runs() {
                steps.step(16)?;
                let run = self.row_map().run(run)?;
                add(run.lead, run.rows.len() as u64);
            }
            return Ok(counts);
        }
        let mut column = self.column(record);
        let mut body = 0;
        while body < self.bodies() {
            steps.step(1024)?;
            let group = column.numbers_of(body)?;
            match (group.constant(), weights) {
                (Some(code), Weights::One) => add(code, group.rows.len() as u64),
                _ => group.each(|body, code| add(code, weights.of(body))),
            }
            body = group.rows.end;
        }
        Ok(counts)
    }

    /// How many rows each body stands for.
    fn weights(&self, steps: &mut Steps<'_>) -> Result<Weights, Error<S::Error>> {
        let map = self.row_map();
        if map.is_identity() {
            return Ok(Weights::One);
        }
        let mut weights = vec![0_u32; self.bodies() as usize];
        for run in 0..map.runs() {
            let run = map.run(run)?;
            steps.step(u32::try_from(run.rows.len()).unwrap_or(u32::MAX))?;
            map.each(&run, run.rows.clone(), |_, body| {
                if let Some(weight) = weights.get_mut(body as usize) {
                    *weight += 1;
                }
            })?;
        }
        Ok(Weights::Of(weights))
    }

    fn named(&self, largest: Largest) -> Result<Vec<PairCardinality>, Error<S::Error>> {
        let mut names = DictionaryCursor::new(self.names());
        let mut pairs = Vec::new();
        for (rows, name, value) in largest.sorted() {
            names.seek(name)?;
            let mut values = DictionaryCursor::new(self.values(&self.record(name)?));
            values.seek(value)?;
            pairs.push(PairCardinality {
                name: names.text()?.to_owned(),
                value: values.text()?.to_owned(),
                rows,
            });
        }
        Ok(pairs)
    }
}

/// Rows by body.
enum Weights {
    One,
    Of(Vec<u32>),
}

impl Weights {
    fn of(&self, body: u32) -> u64 {
        match self {
            Self::One => 1,
            Self::Of(weights) => weights.get(body as usize).copied().map_or(0, u64::from),
        }
    }
}

/// Rows, then name and code of the value.
type Counted = (u64, Reverse<(u32, u32)>);

/// The largest counts seen, so many at most.
struct Largest {
    limit: usize,
    /// Least first.
    heap: BinaryHeap<Reverse<Counted>>,
}

impl Largest {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            heap: BinaryHeap::new(),
        }
    }

    fn offer(&mut self, count: u64, name: u32, code: u32) {
        if count == 0 || self.limit == 0 {
            return;
        }
        let entry = Reverse((count, Reverse((name, code))));
        if self.heap.len() < self.limit {
            self.heap.push(entry);
        } else if self.heap.peek().is_some_and(|least| entry < *least) {
            self.heap.pop();
            self.heap.push(entry);
        }
    }

    fn sorted(self) -> impl Iterator<Item = (u64, u32, u32)> {
        let sorted = self.heap.into_sorted_vec();
        sorted
            .into_iter()
            .map(|Reverse((count, Reverse((name, code))))| (count, name, code))
    }
}
