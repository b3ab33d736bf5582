//! One generation of the metric head: its series in memory, in shards.
//!
//! A generation takes writes until it is frozen; then another takes its place
//! ([`MetricHead::successor`]) and it never changes again. It gives its memory back when the last
//! reader drops it.
//!
//! ```text
//! MetricBatch -> prepare -> (the log) -> logged -> apply, shard by shard -> visible
//! record      -> decode  ----------------------->
//! ```
//!
//! Who holds what: the registry knows series by hash, number and labels; a shard has the slab of its
//! series' data; the index finds series by label; metadata stand apart, in a map that all generations
//! share. The core calls `apply` and
//! `delete` for one shard from one thread at a time, in rising LSN order.
//!
//! Locks, in this order: a shard's data -> the index -> symbols. The registry's locks are taken
//! under a shard's data lock, never the other way round. Readers hold a shard's lock for one series
//! or a short run of cheap look-ups, and none while a visitor runs.
//!
//! Invariants
//! - What a snapshot at LSN `s` sees is the effect of the records up to `s` alone, whatever was
//!   applied since.
//! - Replay of the same records ends in the same answers.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use rootline_index::{Matcher, Symbol, disk};
use rootline_wal::Lsn;

use super::{
    index::HeadIndex,
    metadata::{Metadata, SharedMetadata},
    pages::Pages,
    prepare::{PreparedMetrics, PreparedSample},
    registry::{Registry, SeriesNumber},
    series::{Change, Series},
    series_hash::HashKey,
};
use crate::{
    budget::{Budget, Holder},
    error::Error,
    id::SeriesRef,
    record::{Part, Tag, definitions, exemplars, metadata, samples},
    settings::Settings,
    time::TimeRange,
    varint::put_u64,
};

/// See the module's doc.
#[derive(Debug)]
pub(crate) struct MetricHead {
    pub(super) registry: Registry,
    pub(super) index: HeadIndex,
    shards: Vec<RwLock<Shard>>,
    pub(super) metadata: Arc<SharedMetadata>,
    /// Samples before this time are refused; of all generations.
    floor_ns: Arc<AtomicI64>,
    pub(super) budget: Arc<Budget>,
    /// Bytes charged for the registry, which is counted as a whole.
    registry_bytes: Mutex<u64>,
    /// Bytes charged in all, shared metadata not among them.
    charged_bytes: AtomicU64,
    orphaned: AtomicU64,
}

/// The data of one shard's series.
#[derive(Debug, Default)]
pub(super) struct Shard {
    /// By slot.
    series: Pages<Series>,
    /// Deletes whose samples some snapshot may still see, by rising LSN.
    unreclaimed: VecDeque<(Lsn, u32)>,
    pub(super) counts: Change,
}

impl Shard {
    pub(super) fn get(&self, slot: usize) -> Option<&Series> {
        self.series.get(slot)
    }

    fn get_mut(&mut self, slot: usize) -> &mut Series {
        while self.series.len() <= slot {
            self.series.push(Series::default());
        }
        self.series
            .get_mut(slot)
            .expect("the slab was grown to hold the slot")
    }

    /// Drops what deletes at or below the floor hide.
    fn reclaim(&mut self, floor: Lsn, change: &mut Change) {
        while let Some(&(lsn, slot)) = self.unreclaimed.front()
            && lsn <= floor
        {
            self.unreclaimed.pop_front();
            if let Some(series) = self.series.get_mut(slot as usize) {
                series.reclaim(floor, change);
            }
        }
    }

    fn heap_bytes(&self) -> i64 {
        let queue = self.unreclaimed.capacity() * size_of::<(Lsn, u32)>();
        i64::try_from(self.series.heap_bytes() + queue).unwrap_or(i64::MAX)
    }

    fn count(&mut self, change: Change) {
        self.counts.bytes += change.bytes;
        self.counts.samples += change.samples;
        self.counts.side_samples += change.side_samples;
        self.counts.chunks += change.chunks;
        self.counts.exemplars += change.exemplars;
    }
}

/// Sizes of the metric head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetricStats {
    /// Series known, with or without samples.
    pub series: u64,
    /// Samples held, older versions of a time included.
    pub samples: u64,
    /// Of these, samples in side chunks.
    pub side_samples: u64,
    /// Chunks of main streams, open ones included.
    pub chunks: u64,
    /// Exemplars held.
    pub exemplars: u64,
    /// Distinct label names and values.
    pub symbols: u64,
    /// Bytes charged to the memory budget.
    pub bytes: u64,
}

impl MetricHead {
    pub(crate) fn new(settings: &Settings, budget: Arc<Budget>) -> Self {
        // A generation becomes a block, whose index has so many rows at most.
        let series_max = settings.series_max.min(u64::from(disk::ROWS_MAX));
        let registry = Registry::new(settings.metric_shards, settings.labels, series_max)
            .limit_labels(settings.series_max_per_label.clone());
        let metadata = Arc::new(SharedMetadata::new(Arc::clone(&budget)));
        Self::with(
            registry,
            metadata,
            Arc::new(AtomicI64::new(i64::MIN)),
            budget,
        )
    }

    /// The generation that takes this one's place: empty, with the same hash key and sharding; series
    /// references go on, metadata are shared. Called while nobody writes.
    pub(crate) fn successor(&self) -> Self {
        Self::with(
            self.registry.successor(),
            Arc::clone(&self.metadata),
            Arc::clone(&self.floor_ns),
            Arc::clone(&self.budget),
        )
    }

    fn with(
        registry: Registry,
        metadata: Arc<SharedMetadata>,
        floor_ns: Arc<AtomicI64>,
        budget: Arc<Budget>,
    ) -> Self {
        let shards = (0..registry.sharding.shards())
            .map(|_| RwLock::default())
            .collect();
        Self {
            registry,
            index: HeadIndex::default(),
            shards,
            metadata,
            floor_ns,
            budget,
            registry_bytes: Mutex::new(0),
            charged_bytes: AtomicU64::new(0),
            orphaned: AtomicU64::new(0),
        }
    }

    /// The key that batches hash series with.
    pub(crate) fn hash_key(&self) -> HashKey {
        self.registry.key().clone()
    }

    /// How many shards there are: the setting, rounded up to a power of two.
    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    pub(super) fn shard(&self, shard: usize) -> &RwLock<Shard> {
        self.shards
            .get(shard)
            .expect("a shard number is below `shards`")
    }

    /// Every shard, held still. Whoever applies waits meanwhile: for frozen generations.
    pub(super) fn read_all(&self) -> Vec<RwLockReadGuard<'_, Shard>> {
        self.shards.iter().map(RwLock::read).collect()
    }

    /// Remembers that record `lsn` holds the definitions that were prepared. Called when the record
    /// has its LSN, before it is durable.
    pub(crate) fn logged(&self, prepared: &PreparedMetrics, lsn: Lsn) {
        self.registry.set_defined(prepared.defined(), lsn);
    }

    /// Reads a metric part of a record. Definitions come before what uses them, as they were
    /// written; a repeat of a known one is fine. A series that is used but not defined was defined
    /// in a record that is damaged: what it has here is left out and counted, see
    /// [`orphaned_samples`](Self::orphaned_samples), so that the damage costs no more.
    ///
    /// # Errors
    /// [`Error::CorruptRecord`] for bytes that do not decode or a definition that contradicts an
    /// earlier one. [`Error::UnknownRecord`] for a part that is not of metrics.
    pub(crate) fn decode(&self, part: Part<'_>, into: &mut PreparedMetrics) -> Result<(), Error> {
        match part.tag {
            Tag::Definitions => self.decode_definitions(part),
            Tag::Samples => self.decode_samples(part, into),
            Tag::Exemplars => {
                for exemplar in exemplars::decode(part) {
                    let (series, exemplar) = exemplar?;
                    let number = self.registry.by_ref().get(series.0);
                    match number {
                        Some(number) => {
                            into.push_exemplar(number, exemplar, self.registry.sharding);
                        }
                        None => self.orphan(series),
                    }
                }
                Ok(())
            }
            Tag::Metadata => {
                for metadata in metadata::decode(part) {
                    into.push_metadata(metadata?);
                }
                Ok(())
            }
            tag => {
                let (lsn, found) = (part.lsn.0, u32::from(tag as u8));
                Err(Error::UnknownRecord {
                    lsn,
                    what: "metric part",
                    found,
                })
            }
        }
    }

    fn decode_definitions(&self, part: Part<'_>) -> Result<(), Error> {
        let definitions = definitions::decode(part)?;
        let strings = definitions.strings();
        let symbols: Vec<Symbol> = strings
            .iter()
            .map(|text| self.registry.symbols.intern(text))
            .collect();
        let mut canonical = Vec::new();
        let mut pairs = Vec::new();
        let text = |number: u32| strings.get(number as usize).copied().unwrap_or_default();
        let symbol = |number: u32| symbols.get(number as usize).copied();
        definitions.for_each(|series, numbers| {
            pairs.clear();
            for &(name, value) in numbers {
                pairs.extend(symbol(name).zip(symbol(value)));
            }
            if self.registry.restore_again(series, &pairs, part.lsn) {
                return Ok(());
            }
            canonical.clear();
            for &(name, value) in numbers {
                push_canonical(&mut canonical, text(name), text(value));
            }
            let restored = self.registry.restore(series, &canonical, &pairs, part.lsn);
            restored.map(|_| ()).map_err(|reason| part.corrupt(reason))
        })?;
        self.charge_registry();
        Ok(())
    }

    fn decode_samples(&self, part: Part<'_>, into: &mut PreparedMetrics) -> Result<(), Error> {
        if into.sample_count() > 0 {
            return Err(part.corrupt("a second samples part"));
        }
        let mut decoded = Vec::with_capacity(part.bytes.len() / 6);
        let by_ref = self.registry.by_ref();
        // Samples of one series often follow each other.
        let mut last = None;
        for sample in samples::decode(part)? {
            let sample = sample?;
            let number = match last {
                Some((series, number)) if series == sample.series => number,
                _ => {
                    let Some(number) = by_ref.get(sample.series.0) else {
                        self.orphan(sample.series);
                        continue;
                    };
                    number
                }
            };
            last = Some((sample.series, number));
            decoded.push(PreparedSample {
                number,
                time_ns: sample.time_ns,
                value: sample.value,
            });
        }
        into.set_samples(decoded.iter().copied(), self.registry.sharding);
        Ok(())
    }

    /// Counts an item whose series the log uses but does not define. The reference stays taken: the
    /// damaged record may be read again one day.
    fn orphan(&self, series: SeriesRef) {
        self.registry.saw_ref(series);
        self.orphaned.fetch_add(1, Ordering::Relaxed);
    }

    /// Samples and exemplars left out by [`decode`](Self::decode) because their series was defined
    /// only in damaged records.
    pub(crate) fn orphaned_samples(&self) -> u64 {
        self.orphaned.load(Ordering::Relaxed)
    }

    /// Gives back what only replay needs. Called once after the last [`decode`](Self::decode).
    pub(crate) fn replayed(&self) {
        self.registry.replayed();
        self.charge_registry();
    }

    /// Applies what record `lsn` does to one shard. `floor` is the oldest LSN that a snapshot, open
    /// or to come, can have.
    pub(crate) fn apply(&self, shard: usize, lsn: Lsn, prepared: &PreparedMetrics, floor: Lsn) {
        let sharding = self.registry.sharding;
        let mut change = Change::default();
        {
            let mut fresh: Vec<SeriesNumber> = Vec::new();
            let mut data = self.shard(shard).write();
            let before = data.heap_bytes();
            data.reclaim(floor, &mut change);
            for sample in prepared.samples_of(shard) {
                let series = data.get_mut(sharding.slot(sample.number));
                if !series.is_used() {
                    fresh.push(sample.number);
                }
                series.append(lsn, sample.time_ns, sample.value, floor, &mut change);
            }
            for (number, exemplar) in prepared.exemplars_of(shard, sharding) {
                let series = data.get_mut(sharding.slot(*number));
                if !series.is_used() {
                    fresh.push(*number);
                }
                series.push_exemplar(lsn, exemplar, floor, &mut change);
            }
            if !fresh.is_empty() {
                change.bytes += self.index.insert(&self.registry, &fresh);
            }
            change.bytes += data.heap_bytes() - before;
            data.count(change);
        }
        if shard == 0 && !prepared.metadata().is_empty() {
            self.metadata.apply(lsn, prepared.metadata(), floor);
        }
        self.charge(change.bytes);
    }

    /// Applies the delete of record `lsn` to one shard: what is older and inside `range` is hidden
    /// from snapshots at or after `lsn`, in all series that satisfy every matcher.
    pub(crate) fn delete(
        &self,
        shard: usize,
        lsn: Lsn,
        matchers: &[Matcher],
        range: TimeRange,
        floor: Lsn,
    ) {
        let sharding = self.registry.sharding;
        // A delete that is in the log is carried out to its end.
        let selected = self.index.select(matchers, &self.registry.symbols, || true);
        let mut change = Change::default();
        let mut data = self.shard(shard).write();
        let before = data.heap_bytes();
        data.reclaim(floor, &mut change);
        for number in selected
            .into_iter()
            .flatten()
            .filter(|n| sharding.shard(*n) == shard)
        {
            let slot = sharding.slot(number);
            if data.get_mut(slot).delete(lsn, range, &mut change) {
                let slot = u32::try_from(slot).expect("a slot is part of a 32-bit number");
                data.unreclaimed.push_back((lsn, slot));
            }
        }
        data.reclaim(floor, &mut change);
        change.bytes += data.heap_bytes() - before;
        data.count(change);
        drop(data);
        self.charge(change.bytes);
    }

    /// Drops what deletes at or below the floor hide, in all shards. `apply` and `delete` do this
    /// for their shard; a node at rest calls it so that a delete gives its memory back.
    pub(crate) fn reclaim(&self, floor: Lsn) {
        for shard in &self.shards {
            let mut change = Change::default();
            let mut data = shard.write();
            let before = data.heap_bytes();
            data.reclaim(floor, &mut change);
            change.bytes += data.heap_bytes() - before;
            data.count(change);
            drop(data);
            self.charge(change.bytes);
        }
    }

    /// Bytes of the texts that labels are made of, each once, about.
    pub(crate) fn label_text_bytes(&self) -> u64 {
        self.registry.symbols.read().heap_bytes() as u64
    }

    pub(crate) fn stats(&self) -> MetricStats {
        let mut counts = Change::default();
        for shard in &self.shards {
            let of_shard = shard.read().counts;
            counts.samples += of_shard.samples;
            counts.side_samples += of_shard.side_samples;
            counts.chunks += of_shard.chunks;
            counts.exemplars += of_shard.exemplars;
        }
        let count = |n: i64| u64::try_from(n).unwrap_or_default();
        MetricStats {
            series: self.registry.len(),
            samples: count(counts.samples + counts.side_samples),
            side_samples: count(counts.side_samples),
            chunks: count(counts.chunks),
            exemplars: count(counts.exemplars),
            symbols: self.registry.symbols.len() as u64,
            bytes: self.charged_bytes() + self.metadata.charged_bytes(),
        }
    }

    /// Bytes of this generation alone: what its end gives back.
    pub(crate) fn charged_bytes(&self) -> u64 {
        self.charged_bytes.load(Ordering::Relaxed)
    }

    /// Refuses samples before this time from here on, in this generation and those that follow.
    pub(crate) fn raise_floor(&self, floor_ns: i64) {
        self.floor_ns.fetch_max(floor_ns, Ordering::Relaxed);
    }

    pub(super) fn floor_ns(&self) -> i64 {
        self.floor_ns.load(Ordering::Relaxed)
    }

    /// The lowest series reference that was never given out.
    pub(crate) fn next_ref(&self) -> SeriesRef {
        self.registry.next_ref()
    }

    /// Makes sure that no new series gets a reference below `next`.
    pub(crate) fn start_refs_at(&self, next: SeriesRef) {
        if let Some(last) = next.0.checked_sub(1) {
            self.registry.saw_ref(SeriesRef(last));
        }
    }

    /// Metadata that came after record `after` up to `up_to`, by rising name.
    pub(crate) fn metadata_between(&self, after: Lsn, up_to: Lsn) -> Vec<(Lsn, Metadata)> {
        self.metadata.read().between(after, up_to).collect()
    }

    /// Takes metadata that blocks hold, before any record is replayed; by rising LSN.
    pub(crate) fn restore_metadata(&self, lsn: Lsn, entry: &Metadata) {
        self.metadata.apply(lsn, std::slice::from_ref(entry), lsn);
    }

    /// Whether this is the last word on its metric.
    pub(crate) fn is_latest_metadata(&self, entry: &Metadata) -> bool {
        self.metadata.read().is_known(entry)
    }

    /// Charges what the registry has grown by since the last call.
    pub(super) fn charge_registry(&self) {
        let mut charged = self.registry_bytes.lock();
        let now = self.registry.heap_bytes() as u64;
        let grown =
            i64::try_from(now).unwrap_or(i64::MAX) - i64::try_from(*charged).unwrap_or(i64::MAX);
        *charged = now;
        self.charge(grown);
    }

    fn charge(&self, bytes: i64) {
        let amount = bytes.unsigned_abs();
        if bytes >= 0 {
            self.budget.charge(Holder::MetricHead, amount);
            self.charged_bytes.fetch_add(amount, Ordering::Relaxed);
        } else {
            self.charged_bytes.fetch_sub(amount, Ordering::Relaxed);
            self.budget.release(Holder::MetricHead, amount);
        }
    }
}

impl Drop for MetricHead {
    fn drop(&mut self) {
        let charged = self.charged_bytes.load(Ordering::Relaxed);
        self.budget.release(Holder::MetricHead, charged);
    }
}

/// Appends one pair in the form of `Labels::encode_canonical`, which a test compares it with.
fn push_canonical(out: &mut Vec<u8>, name: &str, value: &str) {
    let length = |bytes: usize| {
        let bits = usize::BITS - (bytes | 1).leading_zeros();
        bits.div_ceil(7) as usize
    };
    let inner = 2 + length(name.len()) + name.len() + length(value.len()) + value.len();
    out.push(0x0a);
    put_u64(out, inner as u64);
    out.push(0x0a);
    put_u64(out, name.len() as u64);
    out.extend_from_slice(name.as_bytes());
    out.push(0x12);
    put_u64(out, value.len() as u64);
    out.extend_from_slice(value.as_bytes());
}
