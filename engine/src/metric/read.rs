//! Questions to the metric head, each at a snapshot's LSN.
//!
//! 1. The index names the series that satisfy the matchers.
//! 2. Shard by shard, in short runs under its lock, those that cannot have a sample in the range are
//!    left out.
//! 3. The rest is put in the order of labels.
//! 4. Series by series: closed chunks are taken out of the lock by counter and decoded outside, the
//!    open one and the side chunk are copied out.
//!
//! What a question holds in memory is reserved from the budget.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ops::ControlFlow,
};

use rootline_index::{Labels, Matcher, Symbol};
use rootline_wal::Lsn;

use super::{
    exemplar::Exemplar,
    head::MetricHead,
    metadata::Metadata,
    registry::SeriesNumber,
    series::{Bounds, Samples, Series, SeriesCopy},
};
use crate::{
    budget::{Holder, Reservation},
    control::QueryControl,
    error::Error,
    time::{TimeRange, Timestamp},
};

/// Series looked at under one hold of a shard's lock: some ten microseconds.
const RUN_SERIES: usize = 256;

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

/// Reads one series after the other, with room that is reused and reserved.
struct SeriesReader<'h> {
    head: &'h MetricHead,
    at: Lsn,
    ctl: &'h QueryControl,
    copy: SeriesCopy,
    samples: Samples,
    reservation: Reservation,
}

impl<'h> SeriesReader<'h> {
    fn new(head: &'h MetricHead, at: Lsn, ctl: &'h QueryControl) -> Result<Self, Error> {
        let reservation = head.budget.reserve(Holder::Queries, 0)?;
        let (copy, samples) = (SeriesCopy::default(), Samples::default());
        Ok(Self {
            head,
            at,
            ctl,
            copy,
            samples,
            reservation,
        })
    }

    /// Reads the samples of a series in `range`.
    fn read(&mut self, number: SeriesNumber, range: TimeRange) -> Result<&Samples, Error> {
        self.ctl.check()?;
        let sharding = self.head.registry.sharding;
        {
            let shard = self.head.shard(sharding.shard(number)).read();
            match shard.get(sharding.slot(number)) {
                Some(series) => series.copy_into(self.at, range, &mut self.copy),
                None => self.copy = SeriesCopy::default(),
            }
        }
        // Times and values, and both again where side samples are merged.
        let needed = self.copy.samples_max() as u64 * 32;
        if needed > self.reservation.bytes() {
            self.reservation.grow(needed - self.reservation.bytes())?;
        }
        let ctl = self.ctl;
        self.copy.read(range, &mut self.samples, || ctl.check())?;
        ctl.count_samples(self.samples.times.len() as u64)?;
        Ok(&self.samples)
    }
}

impl MetricHead {
    /// Shows `visit` every series that satisfies the matchers and has samples in `range`, in the
    /// order of labels. No lock is held meanwhile.
    ///
    /// # Errors
    /// What `ctl` or `visit` says, [`Error::MemoryFull`].
    pub(crate) fn select(
        &self,
        at: Lsn,
        matchers: &[Matcher],
        range: TimeRange,
        ctl: &QueryControl,
        visit: &mut dyn FnMut(SeriesSamples<'_>) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let may_have = |series: &Series| series.may_have_samples(at, range);
        let (candidates, _held) = self.labelled(matchers, ctl, may_have)?;
        let mut reader = SeriesReader::new(self, at, ctl)?;
        for (labels, number) in &candidates {
            let samples = reader.read(*number, range)?;
            if samples.times.is_empty() {
                continue;
            }
            let (timestamps, values) = (&samples.times, &samples.values);
            if visit(SeriesSamples {
                labels,
                timestamps,
                values,
            })?
            .is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// The series that satisfy the matchers and have a sample in `range`, in the order of labels.
    ///
    /// # Errors
    /// What `ctl` says, [`Error::MemoryFull`].
    pub(crate) fn series(
        &self,
        at: Lsn,
        matchers: &[Matcher],
        range: TimeRange,
        ctl: &QueryControl,
    ) -> Result<Vec<Labels>, Error> {
        let has = |series: &Series| series.has_samples(at, range);
        let (found, _held) = self.labelled(matchers, ctl, has)?;
        Ok(found.into_iter().map(|(labels, _)| labels).collect())
    }

    /// The label names of these series, sorted.
    ///
    /// # Errors
    /// What `ctl` says.
    pub(crate) fn label_names(
        &self,
        at: Lsn,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
        ctl: &QueryControl,
    ) -> Result<Vec<String>, Error> {
        // Series share few shapes: one visible series of each is enough.
        let mut by_shape: HashMap<u32, bool> = HashMap::new();
        self.for_each_candidate(matchers, ctl, |number, series| {
            let Some(shape) = self.registry.shape_of(number) else {
                return Ok(());
            };
            let is_seen = by_shape.entry(shape).or_default();
            if !*is_seen {
                *is_seen = series.has_samples(at, range);
            }
            Ok(())
        })?;
        let mut names: HashSet<Symbol> = HashSet::new();
        for (shape, _) in by_shape.into_iter().filter(|(_, is_seen)| *is_seen) {
            names.extend(self.registry.shape_names(shape).iter());
        }
        Ok(self.sorted_texts(names, "", limit))
    }

    /// The first `limit` values, sorted, that the label `name` has in these series.
    ///
    /// # Errors
    /// What `ctl` says.
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
        let Some(name) = self.registry.symbols.get(name) else {
            return Ok(Vec::new());
        };
        let mut values: HashSet<Symbol> = HashSet::new();
        let mut pairs = Vec::new();
        self.for_each_candidate(matchers, ctl, |number, series| {
            self.registry.pairs(number, &mut pairs);
            let value = pairs
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| *value);
            if let Some(value) = value
                && !values.contains(&value)
                && series.has_samples(at, range)
            {
                values.insert(value);
            }
            Ok(())
        })?;
        Ok(self.sorted_texts(values, prefix, limit))
    }

    /// The exemplars in `range` of the series that satisfy the matchers, in the order of labels.
    ///
    /// # Errors
    /// What `ctl` says, [`Error::MemoryFull`].
    pub(crate) fn exemplars(
        &self,
        at: Lsn,
        matchers: &[Matcher],
        range: TimeRange,
        ctl: &QueryControl,
    ) -> Result<Vec<SeriesExemplars>, Error> {
        let mut held = self.budget.reserve(Holder::Queries, 0)?;
        let mut found = Vec::new();
        self.for_each_candidate(matchers, ctl, |number, series| {
            let exemplars = series.exemplars(at, range);
            if !exemplars.is_empty() {
                held.grow((exemplars.len() * size_of::<Exemplar>()) as u64)?;
                ctl.count_series(1)?;
                found.push((number, exemplars));
            }
            Ok(())
        })?;
        let mut pairs = Vec::new();
        let mut answer: Vec<_> = found
            .into_iter()
            .map(|(number, mut exemplars)| {
                exemplars.sort_by_key(|exemplar| exemplar.time);
                let (_, labels) = self.registry.labels(number, &mut pairs);
                SeriesExemplars { labels, exemplars }
            })
            .collect();
        answer.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(answer)
    }

    /// What is known of one metric or of all, by rising name.
    pub(crate) fn metadata(&self, at: Lsn, metric: Option<&str>) -> Vec<Metadata> {
        self.metadata.read().at(at, metric)
    }

    /// Where the samples of the series that satisfy the matchers lie; `None` if there are none.
    ///
    /// # Errors
    /// What `ctl` says, [`Error::MemoryFull`].
    pub(crate) fn time_bounds(
        &self,
        at: Lsn,
        matchers: &[Matcher],
        ctl: &QueryControl,
    ) -> Result<Option<TimeRange>, Error> {
        let mut bounds: Option<TimeRange> = None;
        let mut unclear = Vec::new();
        let add = |bounds: &mut Option<TimeRange>, more: TimeRange| {
            *bounds = Some(bounds.map_or(more, |bounds| bounds.union(more)));
        };
        self.for_each_candidate(matchers, ctl, |number, series| {
            match series.bounds(at) {
                Bounds::Known(Some(known)) => add(&mut bounds, known),
                Bounds::Known(None) => {}
                Bounds::NeedsRead => unclear.push(number),
            }
            Ok(())
        })?;
        let mut reader = SeriesReader::new(self, at, ctl)?;
        for number in unclear {
            let samples = reader.read(number, TimeRange::ALL)?;
            if let (Some(&first), Some(&last)) = (samples.times.first(), samples.times.last()) {
                let ends = (Timestamp::from_nanos(first), Timestamp::from_nanos(last));
                add(&mut bounds, TimeRange::new(ends.0, ends.1)?);
            }
        }
        Ok(bounds)
    }

    /// Calls `each` with every series that satisfies the matchers, under its shard's lock. In no
    /// promised order; some may not be visible to any snapshot yet.
    fn for_each_candidate(
        &self,
        matchers: &[Matcher],
        ctl: &QueryControl,
        mut each: impl FnMut(SeriesNumber, &Series) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let keep_going = || ctl.check().is_ok();
        let Some(mut found) = self
            .index
            .select(matchers, &self.registry.symbols, keep_going)
        else {
            ctl.check()?;
            return Err(Error::Cancelled);
        };
        let sharding = self.registry.sharding;
        found.sort_unstable_by_key(|&number| (sharding.shard(number), number));
        for of_shard in found.chunk_by(|a, b| sharding.shard(*a) == sharding.shard(*b)) {
            for run in of_shard.chunks(RUN_SERIES) {
                ctl.check()?;
                let Some(&first) = run.first() else { continue };
                let shard = self.shard(sharding.shard(first)).read();
                for &number in run {
                    if let Some(series) = shard.get(sharding.slot(number)) {
                        each(number, series)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The series that satisfy the matchers and `is_wanted`, in the order of labels, and the bytes
    /// reserved for the list.
    #[expect(
        clippy::type_complexity,
        reason = "a private list and what holds its bytes"
    )]
    fn labelled(
        &self,
        matchers: &[Matcher],
        ctl: &QueryControl,
        is_wanted: impl Fn(&Series) -> bool,
    ) -> Result<(Vec<(Labels, SeriesNumber)>, Reservation), Error> {
        let mut wanted = Vec::new();
        self.for_each_candidate(matchers, ctl, |number, series| {
            if is_wanted(series) {
                ctl.count_series(1)?;
                wanted.push(number);
            }
            Ok(())
        })?;
        let entry_bytes = size_of::<(Labels, SeriesNumber)>() + size_of::<SeriesNumber>();
        let list_bytes = (wanted.len() * entry_bytes) as u64;
        let mut held = self.budget.reserve(Holder::Queries, list_bytes)?;
        let mut list = Vec::with_capacity(wanted.len());
        let mut pairs = Vec::new();
        for run in wanted.chunks(RUN_SERIES) {
            ctl.check()?;
            let mut bytes = 0;
            for &number in run {
                let (_, labels) = self.registry.labels(number, &mut pairs);
                bytes += labels.heap_bytes();
                list.push((labels, number));
            }
            held.grow(bytes as u64)?;
        }
        list.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        ctl.check()?;
        Ok((list, held))
    }

    fn sorted_texts(&self, symbols: HashSet<Symbol>, prefix: &str, limit: usize) -> Vec<String> {
        let table = self.registry.symbols.read();
        let texts: BTreeSet<&str> = symbols
            .into_iter()
            .filter_map(|symbol| table.try_resolve(symbol))
            .filter(|text| text.starts_with(prefix))
            .collect();
        texts.into_iter().take(limit).map(str::to_owned).collect()
    }
}
