//! Writing an index: rows come in order, everything is written when the last has come.

use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher as _;

use super::column::ColumnWriter;
use super::dictionary::DictionaryWriter;
use super::directory::{NameRecord, Trailer};
use super::sink::{ItemWriter, Sink};
use crate::symbols::{Symbol, Symbols};

/// Collects the rows of a block and writes their index.
#[derive(Debug, Default)]
pub struct DiskIndexWriter {
    pairs: PairTable,
    /// Pairs of every row, one row behind the other.
    row_pairs: Vec<u32>,
    /// Where each row ends in `row_pairs`.
    row_ends: Vec<usize>,
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

impl DiskIndexWriter {
    /// A writer without rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row. Rows come in rising order of their `Labels`, the pairs of a row in rising order
    /// of their names' text.
    ///
    /// # Panics
    /// At 2^32 - 1 rows, which no block has.
    pub fn push(&mut self, row: &[(Symbol, Symbol)]) {
        assert!(
            self.row_ends.len() < u32::MAX as usize,
            "rows are numbered in 32 bits"
        );
        for pair in row {
            let number = self.pairs.number(*pair);
            self.row_pairs.push(number);
        }
        self.row_ends.push(self.row_pairs.len());
    }

    /// Rows so far.
    pub fn rows(&self) -> u32 {
        u32::try_from(self.row_ends.len()).unwrap_or(u32::MAX)
    }

    /// Bytes allocated. Cheap.
    pub fn heap_bytes(&self) -> usize {
        self.pairs.heap_bytes()
            + self.row_pairs.capacity() * size_of::<u32>()
            + self.row_ends.capacity() * size_of::<usize>()
    }

    /// Writes the two parts: items of at most 32 KiB, one behind the other from offset 0 on; a part
    /// of the index ends with its last item. `symbols` is the table that the rows' symbols are of.
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
        let rows = self.rows();
        let mut strings = Sink::new(strings);
        let mut index = Sink::new(index);
        let mut order: Vec<u32> = (0_u32..).take(self.pairs.pairs.len()).collect();
        let text = |number: &u32| {
            let pair = self.pairs.pairs.get(*number as usize);
            pair.map_or(("", ""), |(n, v)| {
                (symbols.resolve(*n), symbols.resolve(*v))
            })
        };
        order.sort_unstable_by(|a, b| text(a).cmp(&text(b)));

        // The name and the code of each pair.
        let mut codes = vec![(0_u32, 0_u32); order.len()];
        let mut names: Vec<&str> = Vec::new();
        let mut records: Vec<NameRecord> = Vec::new();
        let mut writer = DictionaryWriter::default();
        let mut value_bytes = 0;
        let mut code = 0;
        for number in &order {
            let (name, value) = text(number);
            if names.last() != Some(&name) {
                if !names.is_empty() {
                    let values = writer.finish(&mut strings)?;
                    records.push(NameRecord {
                        values,
                        column: <_>::default(),
                        rows: 0,
                        value_bytes,
                    });
                }
                names.push(name);
                value_bytes = 0;
                code = 0;
            }
            writer.push(value, &mut strings)?;
            value_bytes += value.len() as u64;
            code += 1;
            if let Some(place) = codes.get_mut(*number as usize) {
                *place = (u32::try_from(names.len() - 1).unwrap_or(u32::MAX), code);
            }
        }
        if !names.is_empty() {
            let values = writer.finish(&mut strings)?;
            records.push(NameRecord {
                values,
                column: <_>::default(),
                rows: 0,
                value_bytes,
            });
        }
        for name in &names {
            writer.push(name, &mut strings)?;
        }
        let names = writer.finish(&mut strings)?;
        strings.flush()?;

        let mut columns: Vec<ColumnWriter> = Vec::new();
        columns.resize_with(records.len(), ColumnWriter::default);
        let mut start = 0;
        for (row, end) in (0_u32..).zip(&self.row_ends) {
            for pair in self.row_pairs.get(start..*end).unwrap_or_default() {
                let (name, code) = codes.get(*pair as usize).copied().unwrap_or_default();
                if let Some(column) = columns.get_mut(name as usize) {
                    column.push(row, code);
                }
                if let Some(record) = records.get_mut(name as usize) {
                    record.rows += 1;
                }
            }
            start = *end;
        }
        for (record, column) in records.iter_mut().zip(columns) {
            record.column = column.finish(rows).write(&mut index)?;
        }
        let mut bytes = Vec::new();
        for record in &records {
            record.encode(&mut bytes);
        }
        let records_bytes = index.push(&bytes)?;
        index.push(
            &Trailer {
                rows,
                names,
                records_bytes,
            }
            .encode(),
        )?;
        index.flush()
    }
}
