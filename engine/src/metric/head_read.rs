//! Questions to one generation, each at a snapshot's LSN.
//!
//! 1. The index names the series that satisfy the matchers.
//! 2. Shard by shard, in short runs under its lock, those that cannot have a sample in the range are
//!    left out.
//! 3. The rest is put in the order of labels.
//! 4. Series by series: closed chunks are taken out of the lock by counter and decoded outside, the
//!    open one and the side chunk are copied out.
//!
//! Deletes that were made while the generation took writes are applied in it; later ones are the
//! matter of the [`Part`] that it is.

use std::collections::{BTreeSet, HashMap, HashSet};

use rootline_index::{Labels, Matcher, Symbol};
use rootline_wal::Lsn;

use super::{
    exemplar::Exemplar,
    head::MetricHead,
    part::{Asked, Part},
    registry::SeriesNumber,
    series::{Bounds, Series, SeriesCopy},
    series_reader::SeriesReader,
};
use crate::{
    budget::{Holder, Reservation},
    control::QueryControl,
    error::Error,
    time::TimeRange,
};

/// Series looked at under one hold of a shard's lock: some ten microseconds.
const RUN_SERIES: usize = 256;

/// Series of a head in the order of labels.
type Listed = Vec<(Labels, SeriesNumber)>;

impl MetricHead {
    /// Copies what reading a series in `range` takes.
    pub(super) fn copy_series(
        &self,
        number: SeriesNumber,
        at: Lsn,
        range: TimeRange,
        copy: &mut SeriesCopy,
    ) {
        let sharding = self.registry.sharding;
        let shard = self.shard(sharding.shard(number)).read();
        match shard.get(sharding.slot(number)) {
            Some(series) => series.copy_into(at, range, copy),
            None => *copy = SeriesCopy::default(),
        }
    }

    /// The series that satisfy the matchers and that may have samples in the range by the ends of
    /// chunks, with `is_exact` those that have some; in the order of labels. With what holds the
    /// bytes of the list.
    pub(super) fn candidates(
        &self,
        asked: &Asked<'_>,
        is_exact: bool,
    ) -> Result<(Listed, Reservation), Error> {
        let mut wanted = Vec::new();
        self.for_each_candidate(asked.matchers, asked.ctl, |number, series| {
            let is_wanted = if is_exact {
                series.has_samples(asked.at, asked.range)
            } else {
                series.may_have_samples(asked.at, asked.range)
            };
            if is_wanted {
                wanted.push(number);
            }
            Ok(())
        })?;
        self.listed(&wanted, asked)
    }

    /// Series in the order of labels, and what holds the bytes of the list.
    fn listed(
        &self,
        numbers: &[SeriesNumber],
        asked: &Asked<'_>,
    ) -> Result<(Listed, Reservation), Error> {
        let entry_bytes = size_of::<(Labels, SeriesNumber)>() + size_of::<SeriesNumber>();
        let list_bytes = (numbers.len() * entry_bytes) as u64;
        let mut held = asked.budget.reserve(Holder::Queries, list_bytes)?;
        let mut list = Vec::with_capacity(numbers.len());
        let mut pairs = Vec::new();
        for run in numbers.chunks(RUN_SERIES) {
            asked.ctl.check()?;
            let mut bytes = 0;
            for &number in run {
                let (_, labels) = self.registry.labels(number, &mut pairs);
                bytes += labels.heap_bytes();
                list.push((labels, number));
            }
            held.grow(bytes as u64)?;
        }
        list.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        asked.ctl.check()?;
        Ok((list, held))
    }
}

// Labels. Only for questions from which no later delete hides anything of this generation.
impl MetricHead {
    /// The label names of the series that satisfy the matchers and have samples in the range.
    pub(super) fn label_names(&self, asked: &Asked<'_>) -> Result<BTreeSet<String>, Error> {
        let mut names: HashSet<Symbol> = HashSet::new();
        let mut missing = 0;
        if asked.matchers.is_empty() {
            missing = self.probe(&self.index.names(), asked, &mut names)?;
        }
        if missing > 0 || !asked.matchers.is_empty() {
            // Series share few shapes: one visible series of each is enough.
            let mut by_shape: HashMap<u32, bool> = HashMap::new();
            self.for_each_candidate(asked.matchers, asked.ctl, |number, series| {
                let Some(shape) = self.registry.shape_of(number) else {
                    return Ok(());
                };
                let is_seen = by_shape.entry(shape).or_default();
                if !*is_seen {
                    *is_seen = series.has_samples(asked.at, asked.range);
                }
                Ok(())
            })?;
            for (shape, _) in by_shape.into_iter().filter(|(_, is_seen)| *is_seen) {
                names.extend(self.registry.shape_names(shape).iter());
            }
        }
        Ok(self.sorted_texts(names, "", usize::MAX))
    }

    /// The first `limit` values that begin with `prefix` and that the label `name` has in the series
    /// that satisfy the matchers and have samples in the range.
    pub(super) fn label_values(
        &self,
        asked: &Asked<'_>,
        name: &str,
        prefix: &str,
        limit: usize,
    ) -> Result<BTreeSet<String>, Error> {
        let Some(name) = self.registry.symbols.get(name) else {
            return Ok(BTreeSet::new());
        };
        let mut values: HashSet<Symbol> = HashSet::new();
        let mut missing = 0;
        if asked.matchers.is_empty() {
            missing = self.probe(&self.index.values(name), asked, &mut values)?;
        }
        if missing > 0 || !asked.matchers.is_empty() {
            let mut pairs = Vec::new();
            self.for_each_candidate(asked.matchers, asked.ctl, |number, series| {
                self.registry.pairs(number, &mut pairs);
                let value = pairs.iter().find(|(n, _)| *n == name);
                if let Some(&(_, value)) = value
                    && !values.contains(&value)
                    && series.has_samples(asked.at, asked.range)
                {
                    values.insert(value);
                }
                Ok(())
            })?;
        }
        Ok(self.sorted_texts(values, prefix, limit))
    }

    /// Adds to `found` the symbols whose example has samples in the range. Returns how many do not:
    /// other series may have them too.
    fn probe(
        &self,
        examples: &[(Symbol, SeriesNumber)],
        asked: &Asked<'_>,
        found: &mut HashSet<Symbol>,
    ) -> Result<usize, Error> {
        let sharding = self.registry.sharding;
        for run in examples.chunks(RUN_SERIES) {
            asked.ctl.check()?;
            for &(symbol, number) in run {
                let shard = self.shard(sharding.shard(number)).read();
                let series = shard.get(sharding.slot(number));
                if series.is_some_and(|series| series.has_samples(asked.at, asked.range)) {
                    found.insert(symbol);
                }
            }
        }
        Ok(examples.len() - found.len())
    }

    fn sorted_texts(
        &self,
        symbols: HashSet<Symbol>,
        prefix: &str,
        limit: usize,
    ) -> BTreeSet<String> {
        let table = self.registry.symbols.read();
        let texts: BTreeSet<&str> = symbols
            .into_iter()
            .filter_map(|symbol| table.try_resolve(symbol))
            .filter(|text| text.starts_with(prefix))
            .collect();
        texts.into_iter().take(limit).map(str::to_owned).collect()
    }
}

impl MetricHead {
    /// Widens `bounds` to where the samples of the series that satisfy the matchers lie.
    pub(super) fn time_bounds(
        &self,
        part: &Part<'_>,
        asked: Asked<'_>,
        bounds: &mut Option<TimeRange>,
    ) -> Result<(), Error> {
        let mut unclear = Vec::new();
        self.for_each_candidate(asked.matchers, asked.ctl, |number, series| {
            match series.bounds(asked.at) {
                Bounds::Known(None) => {}
                Bounds::Known(Some(known)) => {
                    if bounds.is_some_and(|bounds| bounds.union(known) == bounds) {
                        // Whatever is hidden of it: it does not reach further.
                    } else if part.hiding.is_empty() && asked.range.union(known) == asked.range {
                        *bounds = Some(bounds.map_or(known, |bounds| bounds.union(known)));
                    } else {
                        unclear.push(number);
                    }
                }
                Bounds::NeedsRead => unclear.push(number),
            }
            Ok(())
        })?;
        let (listed, _held) = self.listed(&unclear, &asked)?;
        let mut reader = SeriesReader::new(asked)?;
        for (labels, number) in listed {
            let samples = reader.read_one(part, &labels, number.0)?;
            if let Some(found) = samples.bounds() {
                *bounds = Some(bounds.map_or(found, |bounds| bounds.union(found)));
            }
        }
        Ok(())
    }

    /// The exemplars in the range of the series that satisfy the matchers, by rising arrival; series
    /// in the order of labels.
    pub(super) fn exemplars(
        &self,
        asked: &Asked<'_>,
        held: &mut Reservation,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, Error> {
        let mut found = Vec::new();
        self.for_each_candidate(asked.matchers, asked.ctl, |number, series| {
            let exemplars = series.exemplars(asked.at, asked.range);
            if !exemplars.is_empty() {
                held.grow((exemplars.len() * size_of::<Exemplar>()) as u64)?;
                found.push((number, exemplars));
            }
            Ok(())
        })?;
        let mut pairs = Vec::new();
        let labelled = found.into_iter().map(|(number, exemplars)| {
            let (_, labels) = self.registry.labels(number, &mut pairs);
            (labels, exemplars)
        });
        let mut answer: Vec<_> = labelled.collect();
        answer.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(answer)
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
}
