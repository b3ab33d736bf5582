//! A frozen generation of metrics as blocks.
//!
//! Series come in the order of labels, each as of the cut, and are split at UTC days: the days with the
//! most samples get a block each, all others share one *spanning* block. So samples scattered over
//! years make few files, and retention and compaction find whole days as a rule.
//!
//! Deletes that came after the cut are carried out as well, as a merge does: on a full disk what they
//! hide may be what there is no room for.
//!
//! One pass, one open writer for each block; memory beside the head is what the writers hold.

use std::collections::BTreeMap;

use rootline_index::Symbol;
use rootline_wal::{Lsn, StoreId};

use crate::{
    block::{BlockId, BlockMeta},
    budget::{Budget, Charge, Holder},
    error::Error,
    files::StoreFiles,
    metric::{
        BlockOrigin, Exemplar, FrozenGeneration, FrozenReader, Metadata, MetricBlockWriter,
        Samples, SeriesNumber,
    },
    time::{NS_PER_S, TimeRange, Timestamp},
    tombstone::Tombstone,
};

/// Days are those of UTC.
const DAY_NS: i64 = 24 * 3600 * NS_PER_S;
/// Days that get a block of their own, at most.
const DAYS_MAX: usize = 16;
/// A generation of no more days than this gives each its block.
const FEW_DAYS: usize = 4;
/// Of more days, one with fewer samples than this joins the spanning block.
const DAY_SAMPLES_MIN: u64 = 8_192;
/// Series between two looks at what the writers hold.
const SERIES_PER_CHARGE: u64 = 4_096;

fn day_of(time_ns: i64) -> i64 {
    time_ns.div_euclid(DAY_NS)
}

/// Which day goes into which block.
#[derive(Debug, PartialEq, Eq)]
struct Days {
    /// Those with a block of their own, sorted. All others go into the spanning block.
    own: Vec<i64>,
}

impl Days {
    fn plan(samples_by_day: &BTreeMap<i64, u64>) -> Self {
        let mut days: Vec<(i64, u64)> = samples_by_day.iter().map(|(d, n)| (*d, *n)).collect();
        if days.len() > FEW_DAYS {
            days.retain(|(_, samples)| *samples >= DAY_SAMPLES_MIN);
            days.sort_by_key(|(day, samples)| (u64::MAX - samples, *day));
            days.truncate(DAYS_MAX);
        }
        let mut own: Vec<i64> = days.into_iter().map(|(day, _)| day).collect();
        own.sort_unstable();
        Self { own }
    }

    /// The block of a day: its place among those of their own, or the last for the spanning one.
    fn route(&self, day: i64) -> usize {
        self.own.binary_search(&day).unwrap_or(self.own.len())
    }

    fn spanning(&self) -> usize {
        self.own.len()
    }
}

/// Sorting takes so many times the list of series: it, what it becomes, and a key of 16 bytes for each.
const SORTING_FACTOR: u64 = 6;
/// Series that are fetched at once. Few enough for the first cache.
const FETCHED_SERIES: usize = 32;

/// Where a generation comes from and goes to.
pub(crate) struct Sealing<'a> {
    pub(crate) files: &'a StoreFiles,
    pub(crate) store: StoreId,
    pub(crate) frozen: &'a FrozenGeneration,
    /// The first record after the cut before.
    pub(crate) first_lsn: Lsn,
    /// Deletes up to here are carried out: at least the cut, and visible and durable.
    pub(crate) clean_lsn: Lsn,
    /// Deletes after the cut that are carried out.
    pub(crate) deletes: &'a [Tombstone],
    /// To be kept beside the samples.
    pub(crate) metadata: &'a [(Lsn, Metadata)],
    /// Charged with what the writers hold.
    pub(crate) budget: &'a Budget,
    /// Asked now and then; an error ends the sealing.
    pub(crate) check: &'a dyn Fn() -> Result<(), Error>,
}

/// The writers, and which of them have the series at hand.
struct Writers<'a> {
    sealing: &'a Sealing<'a>,
    days: Days,
    by_block: Vec<Option<Open>>,
    pairs: Vec<(Symbol, Symbol)>,
    series: u64,
    times: Vec<i64>,
    values: Vec<f64>,
    held: Charge<'a>,
}

struct Open {
    writer: MetricBlockWriter,
    /// The last series that it was given.
    series: u64,
}

impl Sealing<'_> {
    /// Writes the blocks of the generation; none if it holds nothing. On an error nothing is left.
    ///
    /// # Errors
    /// [`Error::Storage`], and what `check` says.
    pub(crate) fn write(&self) -> Result<Vec<BlockMeta>, Error> {
        let reader = FrozenReader::new(&self.frozen.head, self.frozen.cut);
        let numbers = reader.numbers();
        let mut samples_by_day: BTreeMap<i64, u64> = BTreeMap::new();
        // Most samples are of the day of those before.
        let (mut run_day, mut run_samples) = (0, 0);
        for &number in &numbers {
            reader.count_by(number, DAY_NS, &mut |day, samples| {
                if day != run_day {
                    *samples_by_day.entry(run_day).or_default() += run_samples;
                    (run_day, run_samples) = (day, 0);
                }
                run_samples += samples;
            });
        }
        *samples_by_day.entry(run_day).or_default() += run_samples;
        samples_by_day.retain(|_, samples| *samples > 0);
        (self.check)()?;
        let list_bytes = size_of_val(numbers.as_slice()) as u64;
        let mut held = Charge::new(self.budget, Holder::Sealing);
        held.set(list_bytes * SORTING_FACTOR);
        let order = reader.by_labels(&numbers);
        drop(numbers);
        held.set(list_bytes);
        (self.check)()?;
        let days = Days::plan(&samples_by_day);
        let mut writers = Writers {
            by_block: (0..=days.own.len()).map(|_| None).collect(),
            days,
            sealing: self,
            pairs: Vec::new(),
            series: 0,
            times: Vec::new(),
            values: Vec::new(),
            held: Charge::new(self.budget, Holder::Sealing),
        };
        let mut samples = Samples::default();
        for run in order.chunks(FETCHED_SERIES) {
            (self.check)()?;
            reader.fetch(run);
            for &number in run {
                reader.samples(number, &mut samples);
                let mut exemplars = reader.exemplars(number);
                if !self.deletes.is_empty() {
                    let hidden = self.hidden(&reader, number);
                    let hides = |time| hidden.iter().any(|range| range.contains(time));
                    samples.hide(0, |time_ns| hides(Timestamp::from_nanos(time_ns)));
                    exemplars.retain(|exemplar| !hides(exemplar.time));
                }
                if samples.times.is_empty() && exemplars.is_empty() {
                    continue;
                }
                reader.pairs(number, &mut writers.pairs);
                writers.take(&samples, &exemplars)?;
            }
        }
        writers.finish(&reader)
    }

    /// The times of a series that deletes after the cut hide.
    fn hidden(&self, reader: &FrozenReader<'_>, number: SeriesNumber) -> Vec<TimeRange> {
        let concerns = |delete: &&Tombstone| {
            let mut matchers = delete.matchers.iter();
            matchers.all(|matcher| matcher.matches(reader.label(number, matcher.name())))
        };
        let deletes = self.deletes.iter().filter(concerns);
        deletes.map(|delete| delete.range).collect()
    }
}

impl Writers<'_> {
    fn take(&mut self, samples: &Samples, exemplars: &[Exemplar]) -> Result<(), Error> {
        if self.series.is_multiple_of(SERIES_PER_CHARGE) {
            let writers = self.by_block.iter().flatten();
            let bytes = writers.map(|open| open.writer.heap_bytes() as u64);
            self.held.set(bytes.sum());
        }
        self.series += 1;
        self.take_samples(&samples.times, &samples.values)?;
        for exemplar in exemplars {
            let block = self.days.route(day_of(exemplar.time.as_nanos()));
            self.writer(block)?.exemplar(exemplar)?;
        }
        Ok(())
    }

    fn take_samples(&mut self, times: &[i64], values: &[f64]) -> Result<(), Error> {
        let mut scattered = (
            std::mem::take(&mut self.times),
            std::mem::take(&mut self.values),
        );
        scattered.0.clear();
        scattered.1.clear();
        let mut start = 0;
        while let Some(&first) = times.get(start) {
            let day = day_of(first);
            let rest = times.get(start..).unwrap_or_default();
            let end = start + rest.partition_point(|&time| day_of(time) <= day);
            let run = (
                times.get(start..end).unwrap_or_default(),
                values.get(start..end).unwrap_or_default(),
            );
            let block = self.days.route(day);
            if block == self.days.spanning() {
                // In one piece, so that it makes columns of its own and not one for each day.
                scattered.0.extend_from_slice(run.0);
                scattered.1.extend_from_slice(run.1);
            } else {
                self.writer(block)?.samples(run.0, run.1)?;
            }
            start = end;
        }
        if !scattered.0.is_empty() {
            let spanning = self.days.spanning();
            self.writer(spanning)?.samples(&scattered.0, &scattered.1)?;
        }
        (self.times, self.values) = scattered;
        Ok(())
    }

    /// The writer of a block, which has the series at hand begun.
    fn writer(&mut self, block: usize) -> Result<&mut MetricBlockWriter, Error> {
        let Some(place) = self.by_block.get_mut(block) else {
            return Err(Error::BadRange(TimeRange::ALL));
        };
        let open = if let Some(open) = place {
            open
        } else {
            let files = self.sealing.files;
            let id = files.manifest.next_block_id();
            let writer = MetricBlockWriter::create(
                &files.storage,
                &files.blocks_dir,
                self.sealing.store,
                id,
            )?;
            place.insert(Open { writer, series: 0 })
        };
        if open.series != self.series {
            open.series = self.series;
            open.writer.start_series(&self.pairs);
        }
        Ok(&mut open.writer)
    }

    fn finish(mut self, reader: &FrozenReader<'_>) -> Result<Vec<BlockMeta>, Error> {
        let open = self.by_block.iter_mut().flatten();
        if let Some(largest) = open.max_by_key(|open| open.writer.sample_count()) {
            for (lsn, entry) in self.sealing.metadata {
                largest.writer.metadata(*lsn, entry);
            }
        }
        let mut written: Vec<BlockMeta> = Vec::new();
        let spanning = self.days.spanning();
        for (block, open) in self.by_block.into_iter().enumerate() {
            let Some(open) = open else { continue };
            let origin = BlockOrigin {
                first_lsn: self.sealing.first_lsn,
                last_lsn: self.sealing.frozen.cut,
                clean_lsn: self.sealing.clean_lsn,
                level: 0,
                sources: Vec::new(),
                created_ns: self.sealing.files.clock.wall_ns(),
                spanning: block == spanning,
            };
            let finished = (self.sealing.check)();
            let finished = finished.and_then(|()| open.writer.finish(reader.symbols(), origin));
            match finished {
                Ok(meta) => written.extend(meta),
                Err(error) => {
                    let ids = written.iter().map(|meta| meta.id);
                    self.sealing.files.remove_blocks(ids);
                    return Err(error);
                }
            }
        }
        Ok(written)
    }
}

/// The numbers of blocks.
pub(crate) fn ids(blocks: &[BlockMeta]) -> impl Iterator<Item = BlockId> {
    blocks.iter().map(|meta| meta.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(days: &[(i64, u64)]) -> Vec<i64> {
        Days::plan(&days.iter().copied().collect()).own
    }

    #[test]
    fn few_days_get_a_block_each_however_small() {
        assert_eq!(plan(&[(-1, 1), (0, 100_000), (7, 3)]), [-1, 0, 7]);
        assert_eq!(plan(&[]), [0; 0]);
    }

    #[test]
    fn of_many_days_the_largest_get_a_block_each() {
        let days: Vec<(i64, u64)> = (0..100i64)
            .map(|day| (day, 10_000 + day.unsigned_abs()))
            .collect();
        assert_eq!(plan(&days), (84..100).collect::<Vec<i64>>());
        let sparse: Vec<(i64, u64)> = (0..200_000).map(|day| (day, 1)).collect();
        assert!(plan(&sparse).is_empty());
        let mixed: Vec<(i64, u64)> = (0..5i64)
            .map(|day| (day, 9_000 * (day.unsigned_abs() % 2)))
            .collect();
        let days = Days::plan(&mixed.into_iter().collect());
        assert_eq!(days.own, [1, 3]);
        assert_eq!(
            (days.route(1), days.route(3), days.route(2)),
            (0, 1, days.spanning())
        );
    }
}
