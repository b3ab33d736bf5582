//! Reading an index: names, values, labels of rows. Selecting is in `select.rs`.

use roaring::RoaringBitmap;

use super::Source;
use super::codes::CodeBits;
use super::column::Column;
use super::dictionary::{Dictionary, DictionaryCursor};
use super::directory::{NameRecord, RECORD_BYTES, Trailer};
use super::error::{Error, Part};
use super::postings::DiskPostings;
use super::region::Region;
use super::row_map::{BodyCursor, RowMap};
use super::shapes;
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
            bodies: BodyCursor::new(self.row_map()),
            shapes: self.shapes(),
            shape: None,
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
        let push = |code| {
            cursor.seek(code)?;
            names.push(cursor.text()?.to_owned());
            Ok(())
        };
        let Some(rows) = rows else {
            (1..=self.trailer.names.count)
                .take(limit)
                .try_for_each(push)?;
            return Ok(names);
        };
        let mut steps = Steps::new(&mut keep_going);
        let present = self.bodies_of(rows, &mut steps)?;
        let mut codes = CodeBits::new(self.trailer.names.count);
        if present.leads.iter().any(|lead| lead != 0) {
            codes.insert(self.trailer.lead);
        }
        let mut seen = CodeBits::new(self.trailer.shapes.count());
        numbers_of(&mut self.shapes(), &present.bodies, &mut seen, &mut steps)?;
        for shape in seen.range(0..self.trailer.shapes.count()) {
            for name in self.names_of_shape(shape)? {
                codes.insert(name);
            }
        }
        let codes = codes.range(1..self.trailer.names.count + 1);
        codes.take(limit).try_for_each(push)?;
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
        let Some((name, record)) = self.find_name(name)? else {
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
        // Every value stands on some row.
        let rows = rows.filter(|rows| rows.len() < u64::from(self.rows()));
        if let Some(rows) = rows {
            let codes = self.codes_of_rows(name, &record, rows, &mut steps)?;
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

    /// The codes that a label has in some rows.
    fn codes_of_rows(
        &self,
        name: u32,
        record: &NameRecord,
        rows: &RoaringBitmap,
        steps: &mut Steps<'_>,
    ) -> Result<CodeBits, Error<S::Error>> {
        let mut codes = CodeBits::new(record.values.count);
        let present = self.bodies_of(rows, steps)?;
        if name == self.trailer.lead {
            for lead in &present.leads {
                codes.insert(lead);
            }
            return Ok(codes);
        }
        numbers_of(&mut self.column(record), &present.bodies, &mut codes, steps)?;
        Ok(codes)
    }

    /// The different leads and bodies of some rows.
    fn bodies_of(
        &self,
        rows: &RoaringBitmap,
        steps: &mut Steps<'_>,
    ) -> Result<Present, Error<S::Error>> {
        let map = self.row_map();
        let mut present = Present::default();
        if map.is_identity() {
            present.bodies.clone_from(rows);
            present.bodies.remove_range(self.rows()..);
            return Ok(present);
        }
        let mut cursor = BodyCursor::new(map);
        let mut of_run = Vec::new();
        let mut next = 0;
        while let Some(first) = rows.range(next..self.rows()).next() {
            let run = map.run_of(first)?;
            present.leads.insert(run.lead);
            if run.is_whole() && rows.contains_range(run.rows.clone()) {
                steps.step(256)?;
                present.bodies.insert_range(run.first_body..=run.last_body);
            } else {
                of_run.clear();
                for row in rows.range(run.rows.clone()) {
                    steps.step(1)?;
                    of_run.push(cursor.seek(row)?.1);
                }
                let sorted = RoaringBitmap::from_sorted_iter(of_run.iter().copied());
                present.bodies |= sorted.unwrap_or_else(|_| of_run.iter().collect());
            }
            next = run.rows.end;
        }
        Ok(present)
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
        Column::new(self.index_region(), record.column, self.trailer.bodies)
    }

    pub(crate) fn postings(&self, record: &NameRecord) -> Option<DiskPostings<'_, S>> {
        DiskPostings::new(self.index_region(), &record.postings, record.values.count)
    }

    fn shapes(&self) -> Column<'_, S> {
        let region = self.index_region();
        Column::new(region, self.trailer.shapes.column, self.trailer.bodies)
    }

    fn names_of_shape(&self, shape: u32) -> Result<Vec<u32>, Error<S::Error>> {
        let names_max = self.trailer.names.count;
        shapes::names_of(self.index_region(), &self.trailer.shapes, shape, names_max)
    }

    pub(crate) fn row_map(&self) -> RowMap<'_, S> {
        RowMap::new(self.index_region(), self.trailer.row_map, self.trailer.rows)
    }

    pub(crate) fn trailer(&self) -> &Trailer {
        &self.trailer
    }

    pub(crate) fn bodies(&self) -> u32 {
        self.trailer.bodies
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

/// Adds the numbers that some bodies have in a column.
fn numbers_of<S: Source>(
    column: &mut Column<'_, S>,
    bodies: &RoaringBitmap,
    numbers: &mut CodeBits,
    steps: &mut Steps<'_>,
) -> Result<(), Error<S::Error>> {
    let mut next = 0;
    while let Some(first) = bodies.range(next..).next() {
        steps.step(256)?;
        let group = column.numbers_of(first)?;
        if let Some(number) = group.constant() {
            numbers.insert(number);
        } else {
            for body in bodies.range(group.rows.clone()) {
                numbers.insert(group.get(body));
            }
        }
        next = group.rows.end;
    }
    Ok(())
}

/// What some rows consist of.
#[derive(Debug, Default)]
struct Present {
    /// Codes, 0 if one has none. Empty if rows are their own bodies.
    leads: RoaringBitmap,
    bodies: RoaringBitmap,
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
    bodies: BodyCursor<'a, S>,
    shapes: Column<'a, S>,
    /// The last shape, and the codes of its names.
    shape: Option<(u32, Vec<u32>)>,
    /// By the code of a name, those that a row had so far; sorted.
    names: Vec<NameState<'a, S>>,
}

#[derive(Debug)]
struct NameState<'a, S> {
    code: u32,
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
        let (lead, body) = self.bodies.seek(row)?;
        let shape = self.shapes.get(body)?;
        if self.shape.as_ref().is_none_or(|(known, _)| *known != shape) {
            self.shape = Some((shape, self.index.names_of_shape(shape)?));
        }
        let of_shape = self.shape.as_ref().map_or(&[][..], |(_, names)| names);
        let lead_name = (lead != 0).then_some(self.index.trailer.lead);
        let at = of_shape.partition_point(|name| Some(*name) < lead_name);
        let (before, behind) = of_shape.split_at(at);
        let names = before
            .iter()
            .copied()
            .chain(lead_name)
            .chain(behind.iter().copied());
        // States of the row's names, in order.
        let mut places = Vec::with_capacity(of_shape.len() + 1);
        let mut next = 0;
        for name in names {
            let known = self.names.get(next..).unwrap_or_default();
            let place = match known.binary_search_by_key(&name, |state| state.code) {
                Ok(place) => next + place,
                Err(place) => {
                    let state = NameState::new(self.index, name)?;
                    self.names.insert(next + place, state);
                    // States behind it moved; those before did not, as names rise.
                    next + place
                }
            };
            if let Some(state) = self.names.get_mut(place) {
                let code = if Some(name) == lead_name {
                    lead
                } else {
                    state.column.get(body)?
                };
                state.values.seek(code)?;
            }
            places.push(place);
            next = place + 1;
        }
        let mut pairs = Vec::with_capacity(places.len());
        for state in places.iter().filter_map(|place| self.names.get(*place)) {
            pairs.push((state.name.as_str(), state.values.text()?));
        }
        let rises = pairs.is_sorted_by(|a, b| a.0 < b.0);
        if !rises
            || pairs
                .iter()
                .any(|(name, value)| name.is_empty() || value.is_empty())
        {
            let strings = self.index.strings_region();
            return Err(strings.damaged(0, "labels of a row do not rise, or one is empty"));
        }
        Ok(Labels::from_checked_pairs(pairs.iter().copied()))
    }
}

impl<'a, S: Source> NameState<'a, S> {
    fn new(index: &'a DiskIndex<S>, code: u32) -> Result<Self, Error<S::Error>> {
        let mut cursor = DictionaryCursor::new(index.names());
        cursor.seek(code)?;
        let record = index.record(code)?;
        Ok(Self {
            code,
            name: cursor.text()?.to_owned(),
            column: index.column(&record),
            values: DictionaryCursor::new(index.values(&record)),
        })
    }
}
