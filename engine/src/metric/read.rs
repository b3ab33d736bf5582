//! Questions to a view, each at a snapshot's LSN.
//!
//! 1. Parts that cannot hold anything in the range are left out.
//! 2. Each part names the series that satisfy the matchers, in the order of labels
//!    (`head_read.rs`, `block_read.rs`); the lists are merged as they are walked (`part.rs`).
//! 3. Series by series, what the parts have is put together, the newest part winning
//!    (`series_reader.rs`, `runs.rs`).
//!
//! Whether a series has samples, which label values there are, and where samples lie is told without
//! reading wherever indexes and the ends of chunks suffice. What a question holds in memory is
//! reserved from the budget.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use rootline_index::{Labels, Matcher};
use rootline_wal::Lsn;

use super::{
    exemplar::Exemplar,
    metadata::Metadata,
    part::{Asked, PartData, SeriesMerge},
    series_reader::SeriesReader,
    view::MetricView,
};
use crate::{
    budget::{Holder, Reservation},
    control::QueryControl,
    error::Error,
    time::TimeRange,
};

/// Bytes of a string in a sorted set beside its text, about.
const TEXT_BYTES: usize = 40;

/// Samples of one series, as [`Snapshot`](crate::Snapshot) shows them.
#[derive(Clone, Copy, Debug)]
pub struct SeriesSamples<'a> {
    /// What the series is called, which is what it is: two series never share their labels.
    pub labels: &'a Labels,
    /// Nanoseconds since the epoch, strictly rising. Not empty.
    pub timestamps: &'a [i64],
    /// As many values; staleness markers are ordinary ones.
    pub values: &'a [f64],
}

/// Exemplars of one series.
#[derive(Clone, Debug)]
pub struct SeriesExemplars {
    /// What the series is called.
    pub labels: Labels,
    /// By rising time. Not empty.
    pub exemplars: Vec<Exemplar>,
}

impl MetricView {
    pub(super) fn asked<'q>(
        &'q self,
        at: Lsn,
        matchers: &'q [Matcher],
        range: TimeRange,
        ctl: &'q QueryControl,
    ) -> Option<Asked<'q>> {
        Some(Asked {
            at,
            matchers,
            range: self.kept(range)?,
            ctl,
            budget: &self.current.budget,
        })
    }

    /// Shows `visit` every series that satisfies the matchers and has samples in `range`, in the
    /// order of labels. No lock is held meanwhile.
    ///
    /// # Errors
    /// What `ctl` or `visit` says, [`Error::MemoryFull`], damage in a block.
    pub(crate) fn select(
        &self,
        at: Lsn,
        matchers: &[Matcher],
        range: TimeRange,
        ctl: &QueryControl,
        visit: &mut dyn FnMut(SeriesSamples<'_>) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let Some(asked) = self.asked(at, matchers, range, ctl) else {
            return Ok(());
        };
        let parts = self.parts(at, asked.range);
        let mut series = SeriesMerge::new(&parts, asked, false)?;
        let mut count = SeriesCount::new(&series, ctl)?;
        let mut reader = SeriesReader::new(asked)?;
        while let Some((labels, rows)) = series.next()? {
            let samples = reader.read(&parts, &labels, rows)?;
            if samples.times.is_empty() {
                continue;
            }
            count.add_one(ctl)?;
            let shown = SeriesSamples {
                labels: &labels,
                timestamps: &samples.times,
                values: &samples.values,
            };
            if visit(shown)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The series that satisfy the matchers and have a sample in `range`, in the order of labels.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub(crate) fn series(
        &self,
        at: Lsn,
        matchers: &[Matcher],
        range: TimeRange,
        ctl: &QueryControl,
    ) -> Result<Vec<Labels>, Error> {
        let mut found = Vec::new();
        let Some(asked) = self.asked(at, matchers, range, ctl) else {
            return Ok(found);
        };
        let parts = self.parts(at, asked.range);
        let mut series = SeriesMerge::new(&parts, asked, true)?;
        let mut count = SeriesCount::new(&series, ctl)?;
        let mut held = asked.budget.reserve(Holder::Queries, 0)?;
        while let Some((labels, _)) = series.next()? {
            count.add_one(ctl)?;
            held.grow((size_of::<Labels>() + labels.heap_bytes()) as u64)?;
            found.push(labels);
        }
        Ok(found)
    }

    /// The first `limit` label names of these series, sorted.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub(crate) fn label_names(
        &self,
        at: Lsn,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
        ctl: &QueryControl,
    ) -> Result<Vec<String>, Error> {
        let mut names = BTreeSet::new();
        let Some(asked) = self.asked(at, matchers, range, ctl) else {
            return Ok(Vec::new());
        };
        let mut held = asked.budget.reserve(Holder::Queries, 0)?;
        for part in &self.parts(at, asked.range) {
            ctl.check()?;
            match part.data {
                _ if !part.hiding.is_empty() => {
                    let mut candidates = part.candidates(asked, true)?;
                    while let Some((labels, _)) = candidates.next()? {
                        for (name, _) in &labels {
                            if !names.contains(name) {
                                hold_texts([name], &mut held)?;
                                names.insert(name.to_owned());
                            }
                        }
                    }
                }
                PartData::Head(head) => {
                    let of_part = head.label_names(&asked)?;
                    hold_texts(of_part.iter().map(String::as_str), &mut held)?;
                    names.extend(of_part);
                }
                PartData::Block(block) => {
                    let of_part = block.label_names(&asked, limit)?;
                    hold_texts(of_part.iter().map(String::as_str), &mut held)?;
                    names.extend(of_part);
                }
            }
        }
        Ok(names.into_iter().take(limit).collect())
    }

    /// The first `limit` values, sorted, that begin with `prefix` and that the label `name` has in
    /// these series.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    #[expect(clippy::too_many_arguments, reason = "a question and its bounds")]
    pub(crate) fn label_values(
        &self,
        at: Lsn,
        name: &str,
        matchers: &[Matcher],
        prefix: &str,
        range: TimeRange,
        limit: usize,
        ctl: &QueryControl,
    ) -> Result<Vec<String>, Error> {
        let mut values = BTreeSet::new();
        let Some(asked) = self.asked(at, matchers, range, ctl) else {
            return Ok(Vec::new());
        };
        let mut held = asked.budget.reserve(Holder::Queries, 0)?;
        for part in &self.parts(at, asked.range) {
            ctl.check()?;
            match part.data {
                _ if !part.hiding.is_empty() => {
                    let mut candidates = part.candidates(asked, true)?;
                    while let Some((labels, _)) = candidates.next()? {
                        if let Some(value) = labels.get(name)
                            && value.starts_with(prefix)
                            && !values.contains(value)
                        {
                            hold_texts([value], &mut held)?;
                            values.insert(value.to_owned());
                        }
                    }
                }
                PartData::Head(head) => {
                    let of_part = head.label_values(&asked, name, prefix, limit)?;
                    hold_texts(of_part.iter().map(String::as_str), &mut held)?;
                    values.extend(of_part);
                }
                PartData::Block(block) => {
                    let of_part = block.label_values(&asked, name, prefix, limit)?;
                    hold_texts(of_part.iter().map(String::as_str), &mut held)?;
                    values.extend(of_part);
                }
            }
            // The first of all are among the first of each part.
            while values.len() > limit {
                values.pop_last();
            }
        }
        Ok(values.into_iter().collect())
    }
}

impl MetricView {
    /// The exemplars in `range` of the series that satisfy the matchers, in the order of labels; of
    /// exact repeats one.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub(crate) fn exemplars(
        &self,
        at: Lsn,
        matchers: &[Matcher],
        range: TimeRange,
        ctl: &QueryControl,
    ) -> Result<Vec<SeriesExemplars>, Error> {
        let Some(asked) = self.asked(at, matchers, range, ctl) else {
            return Ok(Vec::new());
        };
        let mut held = asked.budget.reserve(Holder::Queries, 0)?;
        let mut found: BTreeMap<Labels, Vec<Exemplar>> = BTreeMap::new();
        let mut hidden = Vec::new();
        for part in &self.parts(at, asked.range) {
            ctl.check()?;
            let of_part = match part.data {
                PartData::Head(head) => head.exemplars(&asked, &mut held)?,
                PartData::Block(block) => block.asked_exemplars(&asked, &mut held)?,
            };
            for (labels, mut exemplars) in of_part {
                ctl.count_samples(exemplars.len() as u64)?;
                part.hiding.ranges(&labels, &mut hidden);
                exemplars.retain(|e| !hidden.iter().any(|range| range.contains(e.time)));
                if !exemplars.is_empty() {
                    found.entry(labels).or_default().append(&mut exemplars);
                }
            }
        }
        let mut answer = Vec::with_capacity(found.len());
        for (labels, mut exemplars) in found {
            ctl.count_series(1)?;
            exemplars.sort_by_key(|exemplar| exemplar.time);
            drop_repeats(&mut exemplars);
            answer.push(SeriesExemplars { labels, exemplars });
        }
        Ok(answer)
    }

    /// What is known of one metric or of all, by rising name.
    pub(crate) fn metadata(&self, at: Lsn, metric: Option<&str>) -> Vec<Metadata> {
        self.current.metadata.read().at(at, metric)
    }

    /// Where the samples of the series that satisfy the matchers lie; `None` if there are none.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub(crate) fn time_bounds(
        &self,
        at: Lsn,
        matchers: &[Matcher],
        ctl: &QueryControl,
    ) -> Result<Option<TimeRange>, Error> {
        let mut bounds = None;
        let Some(asked) = self.asked(at, matchers, TimeRange::ALL, ctl) else {
            return Ok(bounds);
        };
        for part in &self.parts(at, asked.range) {
            ctl.check()?;
            match part.data {
                PartData::Head(head) => head.time_bounds(part, asked, &mut bounds)?,
                PartData::Block(block) => block.time_bounds(part, asked, &mut bounds)?,
            }
        }
        Ok(bounds)
    }
}

/// Reserves what texts take in a sorted set.
fn hold_texts<'t>(
    texts: impl IntoIterator<Item = &'t str>,
    held: &mut Reservation,
) -> Result<(), Error> {
    let bytes = |text: &str| (text.len() + TEXT_BYTES) as u64;
    held.grow(texts.into_iter().map(bytes).sum())
}

/// Of equal exemplars, which are sorted by time, keeps the first.
fn drop_repeats(exemplars: &mut Vec<Exemplar>) {
    let mut kept: Vec<Exemplar> = Vec::with_capacity(exemplars.len());
    for exemplar in exemplars.drain(..) {
        let mut of_time = kept.iter().rev().take_while(|e| e.time == exemplar.time);
        if !of_time.any(|e| e.is_same(&exemplar)) {
            kept.push(exemplar);
        }
    }
    *exemplars = kept;
}

/// Counts the series of an answer against the query's limit: those that a head has listed at once,
/// so that a question which is too wide ends before it shows anything, the rest as they come.
pub(super) struct SeriesCount {
    counted: usize,
    seen: usize,
}

impl SeriesCount {
    pub(super) fn new(series: &SeriesMerge<'_>, ctl: &QueryControl) -> Result<Self, Error> {
        ctl.count_series(series.listed() as u64)?;
        Ok(Self {
            counted: series.listed(),
            seen: 0,
        })
    }

    pub(super) fn add_one(&mut self, ctl: &QueryControl) -> Result<(), Error> {
        self.seen += 1;
        if self.seen > self.counted {
            ctl.count_series(1)?;
        }
        Ok(())
    }
}
