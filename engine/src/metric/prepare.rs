//! The first half of a write: rows become series, the batch becomes record parts and, grouped by
//! shard, what will be applied.
//!
//! 1. Rows are grouped by the shard of their hash and probed, one lock a shard. What is known by an
//!    alias is looked up by number, again one lock a shard.
//! 2. Unknown rows are parsed, checked and registered one by one.
//! 3. Definitions are encoded of every series used, until two durable records hold them
//!    (`docs/decisions/0004-series-defined-in-two-records.md`).
//! 4. Samples are encoded in the order of the request and counted by shard; then they are put in
//!    their shard's place.

use std::collections::HashSet;

use rootline_wal::Lsn;

use super::{
    batch::MetricBatch,
    exemplar::Exemplar,
    head::MetricHead,
    metadata::Metadata,
    registry::{Resolved, SHARDS_MAX, SeriesNumber, Sharding},
};
use crate::{
    error::Error,
    id::SeriesRef,
    outcome::Rejections,
    record::{RecordWriter, Tag, definitions, exemplars, metadata, samples},
    time::{NS_PER_MS, Timestamp},
};

const _: () = assert!(SHARDS_MAX <= u64::BITS as usize);

/// A row that stands for no series: refused, or without anything to write.
const NO_SERIES: Resolved = Resolved {
    number: SeriesNumber(u32::MAX),
    series: SeriesRef(0),
    defined: Lsn(0),
};

/// Room reused from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    resolved: Vec<Resolved>,
    order: Vec<u32>,
    aliased: Vec<(u32, SeriesNumber)>,
    unknown: Vec<u32>,
    undefined: Vec<(SeriesRef, SeriesNumber)>,
}

impl Scratch {
    pub(crate) fn heap_bytes(&self) -> usize {
        self.resolved.capacity() * size_of::<Resolved>()
            + (self.order.capacity() + self.unknown.capacity()) * size_of::<u32>()
            + self.aliased.capacity() * size_of::<(u32, SeriesNumber)>()
            + self.undefined.capacity() * size_of::<(SeriesRef, SeriesNumber)>()
    }
}

/// A sample on its way to its shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PreparedSample {
    pub(crate) number: SeriesNumber,
    pub(crate) time_ns: i64,
    pub(crate) value: f64,
}

/// What a record's metric parts do to the head; the same whether it was written just now or read
/// back from the log.
#[derive(Debug, Default)]
pub(crate) struct PreparedMetrics {
    /// Grouped by shard; in the order of the request inside.
    samples: Vec<PreparedSample>,
    /// Where each shard's samples start, and where the last one's end. Empty without samples.
    starts: Vec<usize>,
    exemplars: Vec<(SeriesNumber, Exemplar)>,
    /// A bit for each shard with exemplars.
    exemplar_shards: u64,
    metadata: Vec<Metadata>,
    /// Series that the record defines.
    defined: Vec<SeriesNumber>,
    /// First and last time of samples and exemplars, in ns since the epoch.
    times_ns: Option<(i64, i64)>,
}

impl PreparedMetrics {
    /// Whether [`MetricHead::apply`] has anything to do for `shard`.
    pub(crate) fn touches(&self, shard: usize) -> bool {
        !self.samples_of(shard).is_empty()
            || self.exemplar_shards & (1 << shard) != 0
            || (shard == 0 && !self.metadata.is_empty())
    }

    /// Samples to be applied.
    pub(crate) fn sample_count(&self) -> u64 {
        self.samples.len() as u64
    }

    /// First and last time of samples and exemplars, in ns since the epoch.
    pub(crate) fn times_ns(&self) -> Option<(i64, i64)> {
        self.times_ns
    }

    fn reach(&mut self, first_ns: i64, last_ns: i64) {
        let (first, last) = self.times_ns.unwrap_or((first_ns, last_ns));
        self.times_ns = Some((first.min(first_ns), last.max(last_ns)));
    }

    /// Bytes held, about.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.samples.capacity() * size_of::<PreparedSample>()
            + self.starts.capacity() * size_of::<usize>()
            + self.exemplars.capacity() * size_of::<(SeriesNumber, Exemplar)>()
            + self.metadata.capacity() * size_of::<Metadata>()
            + self.defined.capacity() * size_of::<SeriesNumber>()
    }

    pub(super) fn samples_of(&self, shard: usize) -> &[PreparedSample] {
        let range = self.starts.get(shard).zip(self.starts.get(shard + 1));
        range
            .and_then(|(&start, &end)| self.samples.get(start..end))
            .unwrap_or_default()
    }

    pub(super) fn exemplars_of(
        &self,
        shard: usize,
        sharding: Sharding,
    ) -> impl Iterator<Item = &(SeriesNumber, Exemplar)> {
        let all = if self.exemplar_shards & (1 << shard) == 0 {
            &[][..]
        } else {
            &self.exemplars
        };
        all.iter()
            .filter(move |(number, _)| sharding.shard(*number) == shard)
    }

    pub(super) fn metadata(&self) -> &[Metadata] {
        &self.metadata
    }

    pub(super) fn defined(&self) -> &[SeriesNumber] {
        &self.defined
    }

    pub(super) fn push_exemplar(&mut self, number: SeriesNumber, e: Exemplar, sharding: Sharding) {
        self.exemplar_shards |= 1 << sharding.shard(number);
        self.reach(e.time.as_nanos(), e.time.as_nanos());
        self.exemplars.push((number, e));
    }

    pub(super) fn push_metadata(&mut self, metadata: Metadata) {
        self.metadata.push(metadata);
    }

    /// Takes the samples of a record, which gives them in the order of the request.
    pub(super) fn set_samples(
        &mut self,
        samples: impl Iterator<Item = PreparedSample> + Clone,
        sharding: Sharding,
    ) {
        let mut next = [0usize; SHARDS_MAX];
        let mut len = 0;
        let (mut first_ns, mut last_ns) = (i64::MAX, i64::MIN);
        for sample in samples.clone() {
            first_ns = first_ns.min(sample.time_ns);
            last_ns = last_ns.max(sample.time_ns);
            if let Some(count) = next.get_mut(sharding.shard(sample.number)) {
                *count += 1;
                len += 1;
            }
        }
        if len > 0 {
            self.reach(first_ns, last_ns);
        }
        let mut start = 0;
        self.starts.clear();
        self.starts.reserve(sharding.shards() + 1);
        for count in next.iter_mut().take(sharding.shards()) {
            self.starts.push(start);
            let end = start + *count;
            *count = start;
            start = end;
        }
        self.starts.push(start);
        let empty = PreparedSample {
            number: NO_SERIES.number,
            time_ns: 0,
            value: 0.0,
        };
        self.samples.clear();
        self.samples.resize(len, empty);
        for sample in samples {
            if let Some(at) = next.get_mut(sharding.shard(sample.number))
                && let Some(place) = self.samples.get_mut(*at)
            {
                *place = sample;
                *at += 1;
            }
        }
    }
}

impl MetricHead {
    /// Resolves the rows of a batch and encodes its record parts. Rows that are refused are left out
    /// with all their samples and exemplars, and counted in `rejections`. The batch is left as it
    /// was, to be prepared again if the log refuses it.
    ///
    /// `durable` is the log's durable end: series defined by two records at or below it need no
    /// definition.
    ///
    /// # Errors
    /// [`Error::BatchTooLarge`].
    pub(crate) fn prepare(
        &self,
        batch: &mut MetricBatch<'_>,
        durable: Lsn,
        parts: &mut RecordWriter,
        rejections: &mut Rejections,
    ) -> Result<PreparedMetrics, Error> {
        let mut scratch = std::mem::take(&mut batch.scratch);
        let prepared = self.prepare_with(&mut scratch, batch, durable, parts, rejections);
        batch.scratch = scratch;
        prepared
    }

    fn prepare_with(
        &self,
        scratch: &mut Scratch,
        batch: &MetricBatch<'_>,
        durable: Lsn,
        parts: &mut RecordWriter,
        rejections: &mut Rejections,
    ) -> Result<PreparedMetrics, Error> {
        let mut prepared = PreparedMetrics::default();
        let sharding = self.registry.sharding;
        self.resolve_known(scratch, batch);
        if !scratch.unknown.is_empty() {
            self.register_unknown(scratch, batch, rejections);
        }
        self.encode_definitions(scratch, batch, durable, parts, &mut prepared)?;

        let resolved = |row: u32| {
            let row = scratch
                .resolved
                .get(row as usize)
                .copied()
                .unwrap_or(NO_SERIES);
            (row.number != NO_SERIES.number).then_some(row)
        };
        let floor_ns = self.floor_ns();
        let is_kept = |time_ns: i64| time_ns >= floor_ns;
        let mut encoded = Ok(());
        if !batch.samples.is_empty() {
            let whole_ms = batch.samples.iter().all(|s| s.time_ns % NS_PER_MS == 0);
            let too_old = batch.samples.iter();
            let too_old = too_old.filter(|s| !is_kept(s.time_ns) && resolved(s.row).is_some());
            if let Some(first) = too_old.clone().next() {
                let error = too_old_error(first.time_ns, floor_ns);
                rejections.reject_samples(too_old.count() as u64, error);
            }
            encoded = parts.part(Tag::Samples, |out| {
                out.reserve(batch.samples.len() * 12);
                let mut encoder = samples::Encoder::new(out, whole_ms);
                for sample in batch.samples.iter().filter(|s| is_kept(s.time_ns)) {
                    let Some(Resolved { series, .. }) = resolved(sample.row) else {
                        continue;
                    };
                    let (time_ns, value) = (sample.time_ns, sample.value);
                    encoder.push(samples::RefSample {
                        series,
                        time_ns,
                        value,
                    });
                }
            });
            let kept = batch.samples.iter().filter(|s| is_kept(s.time_ns));
            let by_number = kept.filter_map(|sample| {
                let number = resolved(sample.row)?.number;
                Some(PreparedSample {
                    number,
                    time_ns: sample.time_ns,
                    value: sample.value,
                })
            });
            prepared.set_samples(by_number, sharding);
        }
        encoded?;

        if !batch.exemplars.is_empty() {
            parts.part(Tag::Exemplars, |out| {
                let mut encoder = exemplars::Encoder::new(out);
                for (row, exemplar) in &batch.exemplars {
                    let Some(row) = resolved(*row) else { continue };
                    let time_ns = exemplar.time.as_nanos();
                    if !is_kept(time_ns) {
                        rejections.reject_exemplars(1, too_old_error(time_ns, floor_ns));
                        continue;
                    }
                    if let Err(error) = self.registry.limits().check(&exemplar.labels) {
                        rejections.reject_exemplars(1, Error::InvalidLabels(error));
                        continue;
                    }
                    encoder.push(row.series, exemplar);
                    prepared.push_exemplar(row.number, exemplar.clone(), sharding);
                }
            })?;
        }

        if !batch.metadata.is_empty() {
            self.accept_metadata(&batch.metadata, &mut prepared, rejections);
            parts.part(Tag::Metadata, |out| {
                for entry in &prepared.metadata {
                    metadata::encode(out, entry);
                }
            })?;
        }
        Ok(prepared)
    }

    fn resolve_known(&self, scratch: &mut Scratch, batch: &MetricBatch<'_>) {
        let Scratch {
            resolved,
            order,
            aliased,
            unknown,
            ..
        } = scratch;
        let registry = &self.registry;
        resolved.clear();
        resolved.resize(batch.hashes.len(), NO_SERIES);
        aliased.clear();
        unknown.clear();

        let shard_of = |row: &u32| {
            batch
                .hashes
                .get(*row as usize)
                .map_or(0, |&hash| registry.shard_of_hash(hash))
        };
        let rows = u32::try_from(batch.hashes.len()).unwrap_or(u32::MAX);
        let ends = group(order, 0..rows, shard_of);
        let mut start = 0;
        for (shard, end) in ends.into_iter().enumerate() {
            let of_shard = order.get(start..end).unwrap_or_default();
            start = end;
            if of_shard.is_empty() {
                continue;
            }
            let rows = of_shard
                .iter()
                .filter_map(|&row| Some((row, *batch.hashes.get(row as usize)?)));
            let found = |row: u32, series| set(resolved, row, series);
            registry.probe(shard, rows, found, aliased, unknown);
        }
        if aliased.is_empty() {
            return;
        }

        let number_at = |i: &u32| {
            aliased
                .get(*i as usize)
                .copied()
                .unwrap_or((0, NO_SERIES.number))
        };
        let count = u32::try_from(aliased.len()).unwrap_or(u32::MAX);
        let ends = group(order, 0..count, |i| registry.sharding.shard(number_at(i).1));
        let mut start = 0;
        for (shard, end) in ends.into_iter().enumerate() {
            let of_shard = order.get(start..end).unwrap_or_default();
            start = end;
            if !of_shard.is_empty() {
                let found = |row: u32, series| set(resolved, row, series);
                registry.resolve(shard, of_shard.iter().map(number_at), found);
            }
        }
    }

    fn register_unknown(
        &self,
        scratch: &mut Scratch,
        batch: &MetricBatch<'_>,
        rejections: &mut Rejections,
    ) {
        // In the order of the request, so that references rise along it and cost little in the log.
        scratch.unknown.sort_unstable();
        for &row in &scratch.unknown {
            let at = row as usize;
            let samples = batch.row_samples.get(at).copied().unwrap_or_default();
            let exemplars = batch.row_exemplars.get(at).copied().unwrap_or_default();
            let Some((bytes, parse)) = batch.row_key(row).filter(|_| samples + exemplars > 0)
            else {
                continue;
            };
            let hash = batch.hashes.get(at).copied().unwrap_or_default();
            match self.registry.register_raw(hash, bytes, parse) {
                Ok(series) => set(&mut scratch.resolved, row, series),
                Err(error) => {
                    rejections.reject_samples(samples.into(), &error);
                    rejections.reject_exemplars(exemplars.into(), &error);
                }
            }
        }
        self.charge_registry();
    }

    fn encode_definitions(
        &self,
        scratch: &mut Scratch,
        batch: &MetricBatch<'_>,
        durable: Lsn,
        parts: &mut RecordWriter,
        prepared: &mut PreparedMetrics,
    ) -> Result<(), Error> {
        let Scratch {
            resolved,
            undefined,
            ..
        } = scratch;
        undefined.clear();
        let used = batch
            .row_samples
            .iter()
            .zip(&batch.row_exemplars)
            .map(|(s, e)| s + e > 0);
        for (row, is_used) in resolved.iter().zip(used) {
            if row.defined > durable && is_used && row.number != NO_SERIES.number {
                undefined.push((row.series, row.number));
            }
        }
        if undefined.is_empty() {
            return Ok(());
        }
        undefined.sort_unstable();
        undefined.dedup();
        let mut encoder = definitions::Encoder::default();
        let mut pairs = Vec::new();
        for &(series, number) in undefined.iter() {
            self.registry.pairs(number, &mut pairs);
            encoder.push(series, &pairs, &self.registry.symbols.read());
        }
        prepared
            .defined
            .extend(undefined.iter().map(|&(_, number)| number));
        parts.part(Tag::Definitions, |out| encoder.finish(out))
    }

    fn accept_metadata(
        &self,
        given: &[Metadata],
        prepared: &mut PreparedMetrics,
        rejections: &mut Rejections,
    ) {
        let limits = self.registry.limits();
        let store = self.metadata.read();
        let mut accepted = HashSet::new();
        for metadata in given {
            let longest = metadata.unit.len().max(metadata.help.len());
            if metadata.metric.is_empty() {
                rejections.reject_metadata(1, "metadata without a metric name");
            } else if metadata.metric.len().max(longest) > limits.value_bytes_max {
                let max = limits.value_bytes_max;
                rejections.reject_metadata(1, format_args!("metadata text of over {max} bytes"));
            } else if !store.has_room_for(&metadata.metric) {
                let max = super::metadata::METADATA_METRICS_MAX;
                rejections.reject_metadata(1, format_args!("over {max} metrics have metadata"));
            } else {
                // Senders repeat themselves every minute: what is known costs no log.
                if accepted.contains(metadata.metric.as_str()) || !store.is_known(metadata) {
                    accepted.insert(metadata.metric.as_str());
                    prepared.metadata.push(metadata.clone());
                }
            }
        }
    }
}

fn too_old_error(time_ns: i64, floor_ns: i64) -> Error {
    Error::TooOld {
        time: Timestamp::from_nanos(time_ns),
        floor: Timestamp::from_nanos(floor_ns),
    }
}

fn set(resolved: &mut [Resolved], row: u32, series: Resolved) {
    if let Some(place) = resolved.get_mut(row as usize) {
        *place = series;
    }
}

/// Puts items in the order of their shards; returns where each shard's end.
fn group(
    order: &mut Vec<u32>,
    items: std::ops::Range<u32>,
    shard_of: impl Fn(&u32) -> usize,
) -> [usize; SHARDS_MAX] {
    let mut next = [0usize; SHARDS_MAX];
    for item in items.clone() {
        if let Some(count) = next.get_mut(shard_of(&item)) {
            *count += 1;
        }
    }
    let mut start = 0;
    for count in &mut next {
        let end = start + *count;
        *count = start;
        start = end;
    }
    order.clear();
    order.resize(start, 0);
    for item in items {
        if let Some(at) = next.get_mut(shard_of(&item))
            && let Some(place) = order.get_mut(*at)
        {
            *place = item;
            *at += 1;
        }
    }
    next
}
