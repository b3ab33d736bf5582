//! Questions to one block.

use std::collections::BTreeSet;

use rootline_index::Labels;

use super::{
    cardinality::CardinalityBy,
    exemplar::Exemplar,
    part::{Asked, Part},
    view::MetricBlock,
};
use crate::{block::BlockMeta, budget::Reservation, error::Error, time::TimeRange};

impl MetricBlock {
    pub(super) fn meta(&self) -> &BlockMeta {
        match *self {}
    }

    /// The first `limit` label names of the series that satisfy the matchers and have samples in the
    /// range. Only where no later delete hides anything, as the next.
    pub(super) fn label_names(&self, _: &Asked<'_>, _: usize) -> Result<BTreeSet<String>, Error> {
        match *self {}
    }

    pub(super) fn label_values(
        &self,
        _: &Asked<'_>,
        _: &str,
        _: &str,
        _: usize,
    ) -> Result<BTreeSet<String>, Error> {
        match *self {}
    }

    pub(super) fn exemplars(
        &self,
        _: &Asked<'_>,
        _: &mut Reservation,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, Error> {
        match *self {}
    }

    /// Whether every series has a sample, and all samples lie in `range`.
    pub(super) fn has_all_in(&self, _: TimeRange) -> bool {
        match *self {}
    }

    /// Bytes of the columns of a series.
    pub(super) fn sample_bytes(&self, _: u32) -> Result<u64, Error> {
        match *self {}
    }

    /// The names, values or pairs that stand on most series.
    pub(super) fn largest(
        &self,
        _: &Asked<'_>,
        _: CardinalityBy<'_>,
        _: usize,
    ) -> Result<Vec<(String, String)>, Error> {
        match *self {}
    }

    /// Series that carry a label, or a pair, and how many values the label has.
    pub(super) fn count(
        &self,
        _: &Asked<'_>,
        _: &str,
        _: Option<&str>,
    ) -> Result<(u64, u64), Error> {
        match *self {}
    }

    pub(super) fn time_bounds(
        &self,
        _: &Part<'_>,
        _: Asked<'_>,
        _: &mut Option<TimeRange>,
    ) -> Result<(), Error> {
        match *self {}
    }
}

/// The series of a block that a question is about, one after the other.
#[derive(Debug)]
pub(super) struct BlockRows<'v> {
    block: &'v MetricBlock,
}

impl<'v> BlockRows<'v> {
    pub(super) fn select(block: &'v MetricBlock, _: Asked<'v>, _: bool) -> Result<Self, Error> {
        Ok(Self { block })
    }

    pub(super) fn next(&mut self) -> Result<Option<(Labels, u32)>, Error> {
        match *self.block {}
    }
}
