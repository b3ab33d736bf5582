//! Writing an index: rows come in order, everything is written when the last has come.
//!
//! 1. `push` gives every label pair a number, splits the row into the pair of its lead label and its
//!    body, and gives every different body a number. Most metrics of a target have the same body, so
//!    the body of the row before's successor is tried first.
//! 2. `finish` sorts the pairs once by text, after which all order is that of integers; sorts the
//!    bodies; and decides whether telling rows apart into leads and bodies pays.
//! 3. It writes the dictionaries, then goes once over the bodies to fill all columns.
//!
//! The lead label is that of the first pair of rows, which is the metric's name in practice.

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::column::ColumnWriter;
use super::dictionary::{DictionaryRef, DictionaryWriter};
use super::directory::{NameRecord, ROWS_MAX, Trailer};
use super::postings;
use super::row_map::{RowMapRef, RowMapWriter};
use super::shapes::ShapesWriter;
use super::sink::{ItemWriter, Sink};
use crate::symbols::{Symbol, Symbols};

/// The number of no pair.
const NO_PAIR: u32 = u32::MAX;
/// Rows that a run must have on average for a row map to pay: a question that does not name its
/// leads asks every run.
const RUN_ROWS_MIN: usize = 16;

/// Collects the rows of a block and writes their index.
#[derive(Debug, Default)]
pub struct DiskIndexWriter {
    pairs: PairTable,
    bodies: BodyTable,
    rows: Vec<Row>,
    /// The lead label. Set by the first row that has a label.
    lead: Option<Symbol>,
    /// Rows that have the lead label.
    lead_rows: usize,
    /// Another label that rows begin with, and how many do, until the lead is settled.
    rival: Option<(Symbol, usize)>,
    /// Pair numbers of the row being pushed.
    scratch: Vec<u32>,
    /// Pairs of the row before, and their numbers.
    previous: Vec<((Symbol, Symbol), u32)>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    /// The pair of the lead label, or [`NO_PAIR`].
    lead: u32,
    body: u32,
}

/// Label pairs, each with a number in order of appearance.
#[derive(Debug, Default)]
struct PairTable {
    hasher: DefaultHashBuilder,
    numbers: HashTable<u32>,
    pairs: Vec<(Symbol, Symbol)>,
}

impl PairTable {
    fn number(&mut self, pair: (Symbol, Symbol)) -> u32 {
        let hash = self.hasher.hash_one(pair);
        let Self {
            hasher,
            numbers,
            pairs,
        } = self;
        let of = |number: &u32| pairs.get(*number as usize).copied();
        if let Some(number) = numbers.find(hash, |number| of(number) == Some(pair)) {
            return *number;
        }
        let number = u32::try_from(pairs.len()).expect("fewer than 2^32 label pairs fit in memory");
        assert!(number != NO_PAIR, "label pairs are numbered in 32 bits");
        numbers.insert_unique(hash, number, |number| {
            hasher.hash_one(of(number).unwrap_or(pair))
        });
        pairs.push(pair);
        number
    }

    fn heap_bytes(&self) -> usize {
        self.numbers.allocation_size() + self.pairs.capacity() * size_of::<(Symbol, Symbol)>()
    }
}

/// Different bodies, each with a number in order of appearance.
#[derive(Debug, Default)]
struct BodyTable {
    hasher: DefaultHashBuilder,
    numbers: HashTable<u32>,
    /// Pairs of every body, one body behind the other.
    pairs: Vec<u32>,
    /// Where each body ends in `pairs`.
    ends: Vec<u32>,
}

impl BodyTable {
    fn get(&self, body: u32) -> Option<&[u32]> {
        body_at(&self.pairs, &self.ends, body)
    }

    fn number(&mut self, body: &[u32]) -> u32 {
        let hash = self.hasher.hash_one(body);
        let Self {
            hasher,
            numbers,
            pairs,
            ends,
        } = self;
        if let Some(number) = numbers.find(hash, |n| body_at(pairs, ends, *n) == Some(body)) {
            return *number;
        }
        let number = u32::try_from(ends.len()).expect("no more bodies than rows");
        numbers.insert_unique(hash, number, |n| {
            hasher.hash_one(body_at(pairs, ends, *n).unwrap_or_default())
        });
        pairs.extend_from_slice(body);
        ends.push(u32::try_from(pairs.len()).expect("fewer than 2^32 labels fit in memory"));
        number
    }

    fn heap_bytes(&self) -> usize {
        self.numbers.allocation_size() + (self.pairs.capacity() + self.ends.capacity()) * 4
    }
}

fn body_at<'p>(pairs: &'p [u32], ends: &[u32], body: u32) -> Option<&'p [u32]> {
    let end = *ends.get(body as usize)?;
    let start = match body.checked_sub(1) {
        Some(before) => *ends.get(before as usize)?,
        None => 0,
    };
    pairs.get(start as usize..end as usize)
}

impl DiskIndexWriter {
    /// A writer without rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row. Rows come in rising order of their `Labels`, the pairs of a row in rising order
    /// of their names' text.
    ///
    /// # Panics
    /// Beyond 2^27 rows, which no block has.
    pub fn push(&mut self, row: &[(Symbol, Symbol)]) {
        assert!(
            self.rows.len() < ROWS_MAX as usize,
            "a block has at most 2^27 rows"
        );
        let first = row.first().map(|(name, _)| *name);
        if self.lead.is_none() {
            self.lead = first;
        } else if first != self.lead
            && let Some(first) = first
        {
            self.consider_lead(first);
        }
        let row = self.split(row);
        self.rows.push(row);
    }

    /// Rows may begin with a label that only few have, such as one in capitals, which sort before
    /// the metric's name; so the label that more rows begin with becomes the lead, once.
    fn consider_lead(&mut self, first: Symbol) {
        let Some((rival, count)) = &mut self.rival else {
            self.rival = Some((first, 1));
            return;
        };
        if *rival != first {
            return;
        }
        *count += 1;
        if *count != self.lead_rows + RUN_ROWS_MIN {
            return;
        }
        self.lead = Some(first);
        self.lead_rows = 0;
        let rows = std::mem::take(&mut self.rows);
        let bodies = std::mem::take(&mut self.bodies);
        let mut pairs = Vec::new();
        for row in rows {
            // So far, the lead's pair was the first of every row that has it.
            let body = bodies.get(row.body).unwrap_or_default();
            let numbers = std::iter::once(&row.lead).chain(body);
            let numbers = numbers.filter(|number| **number != NO_PAIR);
            pairs.clear();
            pairs.extend(numbers.filter_map(|n| self.pairs.pairs.get(*n as usize).copied()));
            let row = self.split(&pairs);
            self.rows.push(row);
        }
    }

    fn split(&mut self, row: &[(Symbol, Symbol)]) -> Row {
        let mut lead = NO_PAIR;
        self.scratch.clear();
        for (at, pair) in row.iter().enumerate() {
            let number = match self.previous.get_mut(at) {
                Some((before, number)) if before == pair => *number,
                Some(before) => {
                    *before = (*pair, self.pairs.number(*pair));
                    before.1
                }
                None => {
                    let number = self.pairs.number(*pair);
                    self.previous.push((*pair, number));
                    number
                }
            };
            if Some(pair.0) == self.lead && lead == NO_PAIR {
                lead = number;
                self.lead_rows += 1;
            } else {
                self.scratch.push(number);
            }
        }
        let expected = self.rows.last().map_or(0, |row| row.body.wrapping_add(1));
        let body = if self.bodies.get(expected) == Some(&*self.scratch) {
            expected
        } else {
            self.bodies.number(&self.scratch)
        };
        Row { lead, body }
    }

    /// Rows so far.
    pub fn rows(&self) -> u32 {
        u32::try_from(self.rows.len()).unwrap_or(u32::MAX)
    }

    /// Bytes allocated. Cheap. `finish` takes about half as much again.
    pub fn heap_bytes(&self) -> usize {
        self.pairs.heap_bytes()
            + self.bodies.heap_bytes()
            + self.rows.capacity() * size_of::<Row>()
            + self.previous.capacity() * size_of::<((Symbol, Symbol), u32)>()
            + self.scratch.capacity() * 4
    }

    /// Writes the two parts: items of at most 32 KiB, one behind the other from offset 0 on; the
    /// index part ends with its last item. `symbols` is the table that the rows' symbols are of.
    ///
    /// # Errors
    /// What the item writers give.
    ///
    /// # Panics
    /// If a symbol is not of the table, or an item was not put behind the one before.
    pub fn finish<E>(
        self,
        symbols: &Symbols,
        strings: ItemWriter<'_, E>,
        index: ItemWriter<'_, E>,
    ) -> Result<(), E> {
        let Self {
            pairs,
            bodies,
            rows,
            ..
        } = self;
        let mut strings = Sink::new(strings);
        let mut index = Sink::new(index);

        let (ranks, of_rank, names, mut records) = write_pairs(&pairs, symbols, &mut strings)?;
        drop(pairs);
        strings.flush()?;

        let rank = |number: u32| ranks.get(number as usize).copied().unwrap_or(NO_PAIR);
        let mut body_pairs = bodies.pairs;
        for number in &mut body_pairs {
            *number = rank(*number);
        }
        let ends = bodies.ends;
        drop(bodies.numbers);
        let body_of = |body: u32| body_at(&body_pairs, &ends, body).unwrap_or_default();
        let body_count = u32::try_from(ends.len()).unwrap_or(u32::MAX);
        let mut order: Vec<u32> = (0..body_count).collect();
        // Stable, as it uses that the bodies of each lead came in order.
        order.sort_by(|a, b| body_of(*a).cmp(body_of(*b)));
        let mut places = vec![0_u32; order.len()];
        for (place, body) in (0_u32..).zip(&order) {
            if let Some(of_body) = places.get_mut(*body as usize) {
                *of_body = place;
            }
        }
        let place = |row: &Row| places.get(row.body as usize).copied().unwrap_or(0);
        let lead_code = |row: &Row| of_rank.get(rank(row.lead) as usize).map_or(0, |p| p.code);

        let mut map = RowMapWriter::default();
        for (number, row) in (0_u32..).zip(&rows) {
            map.push(number, lead_code(row), place(row));
        }
        let lead = rows
            .iter()
            .map(|row| rank(row.lead))
            .find(|rank| *rank != NO_PAIR);
        let lead = lead
            .and_then(|rank| of_rank.get(rank as usize))
            .map(|p| p.name);
        let pays = order.len() * 4 <= rows.len() * 3 && map.runs() * RUN_ROWS_MIN <= rows.len();
        let row_count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let mut columns = Columns::new(records.len());
        let (lead, row_map) = if let (Some(lead), true) = (lead, pays) {
            let mut row_counts = vec![0_u32; order.len()];
            for row in &rows {
                if let Some(count) = row_counts.get_mut(row.body as usize) {
                    *count += 1;
                }
            }
            for body in &order {
                let weight = row_counts.get(*body as usize).copied().unwrap_or_default();
                columns.push(body_of(*body).iter().copied(), &of_rank, weight);
            }
            let leads = rows.iter().filter(|row| row.lead != NO_PAIR).count();
            columns.count(lead, u32::try_from(leads).unwrap_or(u32::MAX));
            (lead + 1, map.write(&mut index)?)
        } else {
            drop(map);
            for row in &rows {
                let lead = Some(rank(row.lead)).filter(|rank| *rank != NO_PAIR);
                columns.push(with_pair(body_of(row.body), lead), &of_rank, 1);
            }
            (0, RowMapRef::default())
        };
        drop(rows);
        let bodies = columns.bodies;
        let shapes = columns.shapes.write(bodies, &mut index)?;
        for (record, column) in records.iter_mut().zip(columns.by_name) {
            record.bodies = column.bodies;
            record.rows = column.rows;
            let finished = column.codes.finish(bodies);
            record.column = finished.write(&mut index)?;
            if record.bodies > 0 {
                let values = record.values.count;
                record.postings = postings::write(&finished, values, bodies, &mut index)?;
            }
        }
        let mut bytes = Vec::new();
        for record in &records {
            record.encode(&mut bytes);
        }
        let records_bytes = index.push(&bytes)?;
        let trailer = Trailer {
            rows: row_count,
            bodies,
            lead,
            names,
            records_bytes,
            row_map,
            shapes,
        };
        index.push(&trailer.encode())?;
        index.flush()
    }
}

/// The pairs of a body with the lead's pair in its place.
fn with_pair(body: &[u32], lead: Option<u32>) -> impl Iterator<Item = u32> {
    let at = lead.map_or(0, |lead| body.partition_point(|pair| *pair < lead));
    let (before, behind) = body.split_at(at);
    before
        .iter()
        .copied()
        .chain(lead)
        .chain(behind.iter().copied())
}

/// What a pair is, by its rank among the sorted pairs.
#[derive(Debug, Clone, Copy)]
struct RankedPair {
    /// Place of the name among the names.
    name: u32,
    /// Code of the value among those of the name.
    code: u32,
}

type WrittenPairs = (Vec<u32>, Vec<RankedPair>, DictionaryRef, Vec<NameRecord>);

/// Sorts the pairs and writes the dictionaries: by pair number its rank; by rank what it is; the
/// names; a record for each.
fn write_pairs<E>(
    table: &PairTable,
    symbols: &Symbols,
    strings: &mut Sink<'_, E>,
) -> Result<WrittenPairs, E> {
    let mut order: Vec<(&str, &str, u32)> = (0_u32..)
        .zip(&table.pairs)
        .map(|(number, (name, value))| (symbols.resolve(*name), symbols.resolve(*value), number))
        .collect();
    order.sort_unstable();
    let mut ranks = vec![0_u32; order.len()];
    let mut of_rank = Vec::with_capacity(order.len());
    let mut names: Vec<&str> = Vec::new();
    let mut records: Vec<NameRecord> = Vec::new();
    let mut writer = DictionaryWriter::default();
    for of_name in order.chunk_by(|a, b| a.0 == b.0) {
        let name = u32::try_from(names.len()).unwrap_or(u32::MAX);
        let mut value_bytes = 0;
        for (code, (_, value, number)) in (1_u32..).zip(of_name) {
            writer.push(value, strings)?;
            value_bytes += value.len() as u64;
            if let Some(rank) = ranks.get_mut(*number as usize) {
                *rank = u32::try_from(of_rank.len()).unwrap_or(u32::MAX);
            }
            of_rank.push(RankedPair { name, code });
        }
        names.extend(of_name.first().map(|(name, _, _)| *name));
        records.push(NameRecord {
            values: writer.finish(strings)?,
            value_bytes,
            ..NameRecord::default()
        });
    }
    for name in names {
        writer.push(name, strings)?;
    }
    let names = writer.finish(strings)?;
    Ok((ranks, of_rank, names, records))
}

/// The columns of all names, filled side by side.
struct Columns {
    by_name: Vec<NameColumn>,
    shapes: ShapesWriter,
    bodies: u32,
    /// Names of the body being pushed.
    names: Vec<u32>,
}

#[derive(Default)]
struct NameColumn {
    codes: ColumnWriter,
    bodies: u32,
    rows: u32,
}

impl Columns {
    fn new(names: usize) -> Self {
        let mut by_name = Vec::new();
        by_name.resize_with(names, NameColumn::default);
        Self {
            by_name,
            shapes: ShapesWriter::default(),
            bodies: 0,
            names: Vec::new(),
        }
    }

    /// Adds a body that stands for so many rows.
    fn push(&mut self, pairs: impl Iterator<Item = u32>, of_rank: &[RankedPair], rows: u32) {
        self.names.clear();
        for pair in pairs.filter_map(|rank| of_rank.get(rank as usize)) {
            self.names.push(pair.name + 1);
            if let Some(column) = self.by_name.get_mut(pair.name as usize) {
                column.codes.push(self.bodies, pair.code);
                column.bodies += 1;
                column.rows += rows;
            }
        }
        self.shapes.push(self.bodies, &self.names);
        self.bodies += 1;
    }

    /// Counts rows that have a name beside their body.
    fn count(&mut self, name: u32, rows: u32) {
        if let Some(column) = self.by_name.get_mut(name as usize) {
            column.rows += rows;
        }
    }
}
