//! Reading an index: names, values, labels of rows. Selecting is in `select.rs`.

use roaring::RoaringBitmap;

use super::Source;
use super::column::Column;
use super::dictionary::{Dictionary, DictionaryCursor};
use super::directory::{NameRecord, RECORD_BYTES, Trailer};
use super::error::{Error, Part};
use super::region::Region;
use crate::labels::Labels;

/// Rows or values looked at between two questions whether to go on.
pub(crate) const STEPS_PER_QUESTION: u32 = 4096;

/// The index of a block. Cheap to open; holds nothing of the index in memory.
#[derive(Debug)]
pub struct DiskIndex<S> {
    strings: S,
    index: S,
    trailer: Trailer,
}

impl<S: Source> DiskIndex<S> {
    /// Opens an index: reads its trailer, of fixed size.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::UnknownVersion`] if the index part does not end in a trailer
    /// that fits it.
    pub fn open(strings: S, index: S) -> Result<Self, Error<S::Error>> {
        let region = Region::new(&index, Part::Index);
        let trailer = Trailer::read(region)?;
        let records = u64::from(trailer.names.count) * RECORD_BYTES as u64;
        let end = trailer.records_bytes.checked_add(records);
        if end.is_none_or(|end| end > index.len_bytes()) {
            return Err(region.damaged(trailer.records_bytes, "more labels than bytes"));
        }
        Ok(Self {
            strings,
            index,
            trailer,
        })
    }

    /// Rows of the block.
    pub fn rows(&self) -> u32 {
        self.trailer.rows
    }

    /// The labels of a row. For many rows, use a [cursor](Self::labels_cursor).
    ///
    /// # Errors
    /// [`Error::Damaged`], also for a row that the block does not have.
    pub fn labels(&self, row: u32) -> Result<Labels, Error<S::Error>> {
        self.labels_cursor().labels(row)
    }

    /// Reads the labels of many rows; fastest in rising order, as neighbours share most.
    pub fn labels_cursor(&self) -> LabelsCursor<'_, S> {
        LabelsCursor {
            index: self,
            names: Vec::new(),
        }
    }

    /// The first `limit` label names in rising order; with `rows`, only those that one of the rows
    /// has.
    ///
    /// # Errors
    /// [`Error::Damaged`], or [`Error::Cancelled`] once `keep_going` says no.
    pub fn label_names(
        &self,
        rows: Option<&RoaringBitmap>,
        limit: usize,
        mut keep_going: impl FnMut() -> bool,
    ) -> Result<Vec<String>, Error<S::Error>> {
        let mut cursor = DictionaryCursor::new(self.names());
        let mut names = Vec::new();
        for code in 1..=self.trailer.names.count {
            if names.len() >= limit {
                break;
            }
            if let Some(rows) = rows {
                let record = self.record(code)?;
                let mut codes = self.codes_of_rows(&record, rows, &mut keep_going)?;
                codes.remove(0);
                if codes.is_empty() {
                    continue;
                }
            }
            cursor.seek(code)?;
            names.push(cursor.text()?.to_owned());
        }
        Ok(names)
    }

    /// The first `limit` values of a label that start with `prefix`, in rising order; with `rows`,
    /// only those that one of the rows has.
    ///
    /// # Errors
    /// [`Error::Damaged`], or [`Error::Cancelled`] once `keep_going` says no.
    pub fn label_values(
        &self,
        name: &str,
        rows: Option<&RoaringBitmap>,
        prefix: &str,
        limit: usize,
        mut keep_going: impl FnMut() -> bool,
    ) -> Result<Vec<String>, Error<S::Error>> {
        let mut values = Vec::new();
        let Some((_, record)) = self.find_name(name)? else {
            return Ok(values);
        };
        let dictionary = self.values(&record);
        let range = dictionary.with_prefix(prefix)?;
        let mut cursor = DictionaryCursor::new(dictionary);
        let mut push = |code: u32| {
            cursor.seek(code)?;
            values.push(cursor.text()?.to_owned());
            Ok(())
        };
        let mut steps = Steps::new(&mut keep_going);
        if let Some(rows) = rows {
            let codes = self.codes_of_rows(&record, rows, steps.keep_going)?;
            for code in codes.range(range).take(limit) {
                steps.step(1)?;
                push(code)?;
            }
        } else {
            for code in range.take(limit) {
                steps.step(1)?;
                push(code)?;
            }
        }
        Ok(values)
    }

    /// The codes that a label has in some rows; 0 if one of them lacks it.
    fn codes_of_rows(
        &self,
        record: &NameRecord,
        rows: &RoaringBitmap,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<RoaringBitmap, Error<S::Error>> {
        let mut column = self.column(record);
        let mut codes = RoaringBitmap::new();
        let mut steps = Steps::new(keep_going);
        let mut previous = None;
        for row in rows {
            steps.step(1)?;
            let code = column.get(row)?;
            if previous != Some(code) {
                codes.insert(code);
                previous = Some(code);
            }
        }
        Ok(codes)
    }

    pub(crate) fn strings_region(&self) -> Region<'_, S> {
        Region::new(&self.strings, Part::Strings)
    }

    pub(crate) fn index_region(&self) -> Region<'_, S> {
        Region::new(&self.index, Part::Index)
    }

    pub(crate) fn names(&self) -> Dictionary<'_, S> {
        Dictionary::new(self.strings_region(), self.trailer.names)
    }

    pub(crate) fn values(&self, record: &NameRecord) -> Dictionary<'_, S> {
        Dictionary::new(self.strings_region(), record.values)
    }

    pub(crate) fn column(&self, record: &NameRecord) -> Column<'_, S> {
        Column::new(self.index_region(), record.column, self.trailer.rows)
    }

    pub(crate) fn record(&self, code: u32) -> Result<NameRecord, Error<S::Error>> {
        let record = NameRecord::read(self.index_region(), &self.trailer, code)?;
        // A string takes at least two bytes, or one in front of a block.
        if u64::from(record.values.count) > self.strings.len_bytes() {
            let at = self.trailer.records_bytes;
            return Err(self.index_region().damaged(at, "more values than bytes"));
        }
        Ok(record)
    }

    pub(crate) fn find_name(
        &self,
        name: &str,
    ) -> Result<Option<(u32, NameRecord)>, Error<S::Error>> {
        match self.names().find(name)? {
            Some(code) => Ok(Some((code, self.record(code)?))),
            None => Ok(None),
        }
    }
}

/// Asks now and then whether to go on.
pub(crate) struct Steps<'k> {
    pub(crate) keep_going: &'k mut dyn FnMut() -> bool,
    done: u32,
}

impl<'k> Steps<'k> {
    pub(crate) fn new(keep_going: &'k mut dyn FnMut() -> bool) -> Self {
        Self {
            keep_going,
            done: 0,
        }
    }

    #[inline]
    pub(crate) fn step<E>(&mut self, count: u32) -> Result<(), Error<E>> {
        self.done = self.done.saturating_add(count);
        if self.done >= STEPS_PER_QUESTION {
            self.done = 0;
            if !(self.keep_going)() {
                return Err(Error::Cancelled);
            }
        }
        Ok(())
    }
}

/// Reads the labels of rows. See [`DiskIndex::labels_cursor`].
#[derive(Debug)]
pub struct LabelsCursor<'a, S> {
    index: &'a DiskIndex<S>,
    names: Vec<NameState<'a, S>>,
}

#[derive(Debug)]
struct NameState<'a, S> {
    name: String,
    column: Column<'a, S>,
    values: DictionaryCursor<'a, S>,
}

impl<S: Source> LabelsCursor<'_, S> {
    /// The labels of a row.
    ///
    /// # Errors
    /// [`Error::Damaged`], also for a row that the block does not have.
    pub fn labels(&mut self, row: u32) -> Result<Labels, Error<S::Error>> {
        if self.names.is_empty() {
            let mut cursor = DictionaryCursor::new(self.index.names());
            for code in 1..=self.index.trailer.names.count {
                cursor.seek(code)?;
                let record = self.index.record(code)?;
                self.names.push(NameState {
                    name: cursor.text()?.to_owned(),
                    column: self.index.column(&record),
                    values: DictionaryCursor::new(self.index.values(&record)),
                });
            }
        }
        if row >= self.index.rows() {
            return Err(self
                .index
                .index_region()
                .damaged(0, "a row beyond the block"));
        }
        let mut present = Vec::new();
        for (at, state) in self.names.iter_mut().enumerate() {
            let code = state.column.get(row)?;
            if code != 0 {
                state.values.seek(code)?;
                present.push(at);
            }
        }
        let mut pairs = Vec::with_capacity(present.len());
        for state in present.iter().filter_map(|at| self.names.get(*at)) {
            pairs.push((state.name.as_str(), state.values.text()?));
        }
        let rises = pairs.is_sorted_by(|a, b| a.0 < b.0);
        if !rises
            || pairs
                .iter()
                .any(|(name, value)| name.is_empty() || value.is_empty())
        {
            let index = self.index.strings_region();
            return Err(index.damaged(0, "labels of a row do not rise, or one is empty"));
        }
        Ok(Labels::from_checked_pairs(pairs.iter().copied()))
    }
}
