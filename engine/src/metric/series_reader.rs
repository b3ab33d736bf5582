//! Reads one series after the other out of the parts of a view, into columns that are reused.
//!
//! No lock is held while a chunk or a column is decoded. What the columns need is reserved from the
//! budget before they grow.

use rootline_index::Labels;

use super::{
    part::{Asked, Part, PartData},
    registry::SeriesNumber,
    series::{Samples, SeriesCopy},
};
use crate::{
    budget::{Holder, Reservation},
    error::Error,
    time::{TimeRange, Timestamp},
};

/// A time and a value, each in the column it is decoded to and in the one runs are merged to.
const SAMPLE_BYTES: u64 = 32;

/// See the module's doc.
#[derive(Debug)]
pub(super) struct SeriesReader<'q> {
    asked: Asked<'q>,
    copy: SeriesCopy,
    samples: Samples,
    hidden: Vec<TimeRange>,
    reservation: Reservation,
}

impl<'q> SeriesReader<'q> {
    pub(super) fn new(asked: Asked<'q>) -> Result<Self, Error> {
        Ok(Self {
            asked,
            copy: SeriesCopy::default(),
            samples: Samples::default(),
            hidden: Vec::new(),
            reservation: asked.budget.reserve(Holder::Queries, 0)?,
        })
    }

    /// The samples of a series in the range asked for: `rows` says which parts have it, lowest LSNs
    /// first, and under which row.
    ///
    /// # Errors
    /// What the query's control says, [`Error::MemoryFull`], damage in a block.
    pub(super) fn read(
        &mut self,
        parts: &[Part<'_>],
        labels: &Labels,
        rows: &[(usize, u32)],
    ) -> Result<&Samples, Error> {
        self.asked.ctl.check()?;
        self.samples.clear();
        let mut most = 0;
        for &(part, row) in rows {
            if let Some(part) = parts.get(part) {
                self.append(part, labels, row, &mut most)?;
            }
        }
        self.samples.settle();
        let count = self.samples.times.len() as u64;
        self.asked.ctl.count_samples(count)?;
        Ok(&self.samples)
    }

    /// The samples of a series in one part.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(super) fn read_one(
        &mut self,
        part: &Part<'_>,
        labels: &Labels,
        row: u32,
    ) -> Result<&Samples, Error> {
        self.read(std::slice::from_ref(part), labels, &[(0, row)])
    }

    /// Whether one part has a sample of the series in the range, the part itself having said that there
    /// is one before deletes that it does not know.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(super) fn has_samples(
        &mut self,
        part: &Part<'_>,
        labels: &Labels,
        row: u32,
    ) -> Result<bool, Error> {
        part.hiding.ranges(labels, &mut self.hidden);
        if self.hidden.is_empty() {
            return Ok(true);
        }
        Ok(!self.read_one(part, labels, row)?.times.is_empty())
    }

    /// Appends what one part has as a run. `most` is how many samples the runs before may have had.
    fn append(
        &mut self,
        part: &Part<'_>,
        labels: &Labels,
        row: u32,
        most: &mut u64,
    ) -> Result<(), Error> {
        let Asked { at, range, ctl, .. } = self.asked;
        part.hiding.ranges(labels, &mut self.hidden);
        let start = self.samples.begin_run();
        match part.data {
            PartData::Head(head) => {
                head.copy_series(SeriesNumber(row), at, range, &mut self.copy);
                *most += self.copy.samples_max() as u64;
                self.reserve(*most)?;
                self.copy.append(range, &mut self.samples, || ctl.check())?;
            }
            PartData::Block(block) => match *block {},
        }
        if !self.hidden.is_empty() {
            let hidden = &self.hidden;
            let is_hidden = |time| {
                hidden
                    .iter()
                    .any(|range| range.contains(Timestamp::from_nanos(time)))
            };
            self.samples.hide(start, is_hidden);
        }
        Ok(())
    }

    fn reserve(&mut self, samples: u64) -> Result<(), Error> {
        let needed = samples.saturating_mul(SAMPLE_BYTES);
        let held = self.reservation.bytes();
        if needed > held {
            self.reservation.grow(needed - held)?;
        }
        Ok(())
    }
}
