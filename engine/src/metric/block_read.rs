//! Questions to one block.
//!
//! Indexes and the ends of chunks answer most of them. A block whose time lies in the range as a whole
//! is not looked into further than its index; of one that reaches beyond it, the ends of each series'
//! chunks tell whether the series is there, and only a chunk that begins before the range and
//! ends after it is decoded for that.

use roaring::RoaringBitmap;
use rootline_index::{Labels, Matcher};

use super::{
    block::{ChunkInfo, ColumnCache, MetricBlock, SeriesLabels},
    cardinality::CardinalityBy,
    exemplar::Exemplar,
    part::{Asked, Part},
    series_reader::SeriesReader,
};
use crate::{
    budget::{Holder, Reservation},
    control::QueryControl,
    error::Error,
    time::{TimeRange, Timestamp},
};

/// Rows between two looks at the query's control.
const CHECK_ROWS: u32 = 256;

/// Series whose exemplars are looked up one by one; for more, those that have any are listed first.
const LOOKED_UP_ROWS_MAX: u64 = 64;

/// Tells which series of a block have samples in a range.
#[derive(Debug)]
struct Presence<'v> {
    block: &'v MetricBlock,
    range: TimeRange,
    /// Whether all that have samples have one in the range.
    is_whole: bool,
    cache: ColumnCache,
    chunks: Vec<ChunkInfo>,
    times: Vec<i64>,
    values: Vec<f64>,
}

impl<'v> Presence<'v> {
    fn new(block: &'v MetricBlock, range: TimeRange) -> Self {
        Self {
            block,
            range,
            is_whole: range.union(block.meta().time) == range,
            cache: ColumnCache::default(),
            chunks: Vec::new(),
            times: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Takes rows without samples out at once, where that is all there is to do.
    fn narrow(&self, rows: &mut RoaringBitmap) -> Result<(), Error> {
        if self.is_whole && self.block.has_exemplars() {
            *rows -= self.block.rows_without_samples()?;
        }
        Ok(())
    }

    /// Whether a series has a sample in the range; the row is one that [`narrow`](Self::narrow) left.
    fn has_samples(&mut self, row: u32) -> Result<bool, Error> {
        if self.is_whole {
            return Ok(true);
        }
        let Self { cache, chunks, .. } = self;
        chunks.clear();
        self.block.chunks(row, false, cache, chunks)?;
        chunks.retain(|chunk| chunk.overlaps(self.range));
        let ends_inside = |chunk: &ChunkInfo| {
            let ends = [chunk.first_ns, chunk.last_ns];
            let mut ends = ends.into_iter().map(Timestamp::from_nanos);
            ends.any(|end| self.range.contains(end))
        };
        if chunks.iter().any(ends_inside) {
            return Ok(true);
        }
        for chunk in &*chunks {
            self.times.clear();
            self.values.clear();
            let (times, values) = (&mut self.times, &mut self.values);
            let range = self.range;
            self.block.read_chunk(chunk, range, times, values, cache)?;
            if !self.times.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The series of a block that a question is about, one after the other.
pub(super) struct BlockRows<'v> {
    rows: roaring::bitmap::IntoIter,
    labels: SeriesLabels<'v>,
    /// Tells which series have samples, if the question asks for these alone.
    presence: Option<Presence<'v>>,
    ctl: &'v QueryControl,
    since_check: u32,
    /// The bytes of the rows.
    _held: Reservation,
}

impl<'v> BlockRows<'v> {
    /// The series that satisfy the matchers; with `is_exact` those that have samples in the range.
    pub(super) fn select(
        block: &'v MetricBlock,
        asked: Asked<'v>,
        is_exact: bool,
    ) -> Result<Self, Error> {
        let mut rows = block.selected(asked.matchers, asked.ctl)?;
        let presence = is_exact.then(|| Presence::new(block, asked.range));
        if let Some(presence) = &presence {
            presence.narrow(&mut rows)?;
        }
        let rows_bytes = rows.serialized_size() as u64;
        Ok(Self {
            rows: rows.into_iter(),
            labels: block.labels_cursor(),
            presence,
            ctl: asked.ctl,
            since_check: 0,
            _held: asked.budget.reserve(Holder::Queries, rows_bytes)?,
        })
    }

    /// The next series: its labels, and its row.
    pub(super) fn next(&mut self) -> Result<Option<(Labels, u32)>, Error> {
        for row in self.rows.by_ref() {
            self.since_check += 1;
            if self.since_check == CHECK_ROWS {
                self.since_check = 0;
                self.ctl.check()?;
            }
            if let Some(presence) = &mut self.presence
                && !presence.has_samples(row)?
            {
                continue;
            }
            return Ok(Some((self.labels.labels(row)?, row)));
        }
        Ok(None)
    }
}

impl MetricBlock {
    fn selected(&self, matchers: &[Matcher], ctl: &QueryControl) -> Result<RoaringBitmap, Error> {
        let found = self.select(matchers, &mut || ctl.check().is_ok());
        if found.is_err() {
            // Why it was cancelled, if it was.
            ctl.check()?;
        }
        found
    }

    /// The rows that satisfy the matchers and have samples in the range; `None` if these are all.
    fn present(&self, asked: &Asked<'_>) -> Result<Option<RoaringBitmap>, Error> {
        let mut presence = Presence::new(self, asked.range);
        let is_all = asked.matchers.is_empty() && self.has_all_in(asked.range)?;
        if is_all {
            return Ok(None);
        }
        let mut rows = self.selected(asked.matchers, asked.ctl)?;
        presence.narrow(&mut rows)?;
        if presence.is_whole {
            return Ok(Some(rows));
        }
        let mut present = RoaringBitmap::new();
        for (nth, row) in (0..CHECK_ROWS).cycle().zip(&rows) {
            if nth == 0 {
                asked.ctl.check()?;
            }
            if presence.has_samples(row)? {
                present.insert(row);
            }
        }
        Ok(Some(present))
    }

    /// The first `limit` label names of the series that satisfy the matchers and have samples in the
    /// range. Only where no later delete hides anything.
    pub(super) fn label_names(
        &self,
        asked: &Asked<'_>,
        limit: usize,
    ) -> Result<Vec<String>, Error> {
        let rows = self.present(asked)?;
        let keep_going = || asked.ctl.check().is_ok();
        let names = self.index().label_names(rows.as_ref(), limit, keep_going);
        names.map_err(|error| self.index_error(error))
    }

    /// The first `limit` values that begin with `prefix` and that the label `name` has in these
    /// series. As [`label_names`](Self::label_names).
    pub(super) fn label_values(
        &self,
        asked: &Asked<'_>,
        name: &str,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<String>, Error> {
        let rows = self.present(asked)?;
        let keep_going = || asked.ctl.check().is_ok();
        let index = self.index();
        let values = index.label_values(name, rows.as_ref(), prefix, limit, keep_going);
        values.map_err(|error| self.index_error(error))
    }

    /// The exemplars in the range of the series that satisfy the matchers, in order of arrival;
    /// series in the order of labels.
    pub(super) fn asked_exemplars(
        &self,
        asked: &Asked<'_>,
        held: &mut Reservation,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, Error> {
        let mut found = Vec::new();
        if !self.has_exemplars() {
            return Ok(found);
        }
        let mut rows = self.selected(asked.matchers, asked.ctl)?;
        if rows.len() > LOOKED_UP_ROWS_MAX {
            rows &= self.rows_with_exemplars()?;
        }
        let mut labels = self.labels_cursor();
        for row in rows {
            asked.ctl.check()?;
            let exemplars = self.exemplars(row, asked.range)?;
            if !exemplars.is_empty() {
                held.grow((exemplars.len() * size_of::<Exemplar>()) as u64)?;
                found.push((labels.labels(row)?, exemplars));
            }
        }
        Ok(found)
    }

    /// Widens `bounds` to where the samples of the series that satisfy the matchers lie.
    pub(super) fn time_bounds(
        &self,
        part: &Part<'_>,
        asked: Asked<'_>,
        bounds: &mut Option<TimeRange>,
    ) -> Result<(), Error> {
        let time = self.meta().time;
        let is_known = |bounds: &Option<TimeRange>, more: TimeRange| {
            bounds.is_some_and(|bounds| bounds.union(more) == bounds)
        };
        let add = |bounds: &mut Option<TimeRange>, more: TimeRange| {
            *bounds = Some(bounds.map_or(more, |bounds| bounds.union(more)));
        };
        if is_known(bounds, time) {
            return Ok(());
        }
        // Exemplars count for the time of a block.
        let is_plain = part.hiding.is_empty() && asked.range.union(time) == asked.range;
        if is_plain && asked.matchers.is_empty() && !self.has_exemplars() {
            add(bounds, time);
            return Ok(());
        }
        let mut reader = SeriesReader::new(asked)?;
        let (mut cache, mut chunks) = (ColumnCache::default(), Vec::new());
        let mut labels = self.labels_cursor();
        for row in self.selected(asked.matchers, asked.ctl)? {
            asked.ctl.check()?;
            chunks.clear();
            self.chunks(row, false, &mut cache, &mut chunks)?;
            let (Some(first), Some(last)) = (chunks.first(), chunks.last()) else {
                continue;
            };
            let ends = (first.first_ns, last.last_ns);
            let ends = (Timestamp::from_nanos(ends.0), Timestamp::from_nanos(ends.1));
            let of_row = TimeRange::new(ends.0, ends.1)?;
            if is_known(bounds, of_row) {
                continue;
            }
            if part.hiding.is_empty() && asked.range.union(of_row) == asked.range {
                add(bounds, of_row);
                continue;
            }
            let samples = reader.read_one(part, &labels.labels(row)?, row)?;
            if let Some(found) = samples.bounds() {
                add(bounds, found);
            }
        }
        Ok(())
    }

    /// Whether every series has a sample, and all samples lie in `range`.
    pub(super) fn has_all_in(&self, range: TimeRange) -> Result<bool, Error> {
        let is_whole = range.union(self.meta().time) == range;
        Ok(is_whole && (!self.has_exemplars() || self.rows_without_samples()?.is_empty()))
    }

    /// Bytes of the value columns of a series.
    pub(super) fn value_bytes(&self, row: u32, cache: &mut ColumnCache) -> Result<u64, Error> {
        let mut chunks = Vec::new();
        self.chunks(row, false, cache, &mut chunks)?;
        Ok(chunks.iter().map(ChunkInfo::value_bytes).sum())
    }

    /// The names, values or pairs that stand on most series.
    pub(super) fn largest(
        &self,
        asked: &Asked<'_>,
        by: CardinalityBy<'_>,
        most: usize,
    ) -> Result<Vec<(String, String)>, Error> {
        let keep_going = || asked.ctl.check().is_ok();
        let index = self.index();
        let found = match by {
            CardinalityBy::Name => {
                let names = index.name_cardinality();
                let mut names = names.map_err(|error| self.index_error(error))?;
                names.sort_by_key(|name| std::cmp::Reverse(name.rows));
                names.truncate(most);
                let names = names.into_iter();
                return Ok(names.map(|name| (name.name, String::new())).collect());
            }
            CardinalityBy::Label(name) => index.value_cardinality(name, most, keep_going),
            CardinalityBy::Pair => index.pair_cardinality(most, keep_going),
        };
        let found = found.map_err(|error| self.index_error(error))?;
        let pairs = found.into_iter().map(|pair| (pair.name, pair.value));
        Ok(pairs.collect())
    }

    /// Series that carry a label, or a pair, and how many values the label has.
    pub(super) fn count(
        &self,
        asked: &Asked<'_>,
        name: &str,
        value: Option<&str>,
    ) -> Result<(u64, u64), Error> {
        if let Some(value) = value {
            let rows = self.selected(&[Matcher::equal(name, value)], asked.ctl)?;
            return Ok((rows.len(), 1));
        }
        let names = self.index().name_cardinality();
        let names = names.map_err(|error| self.index_error(error))?;
        let found = names.into_iter().find(|of| of.name == name);
        Ok(found.map_or((0, 0), |of| (of.rows, of.values)))
    }
}
