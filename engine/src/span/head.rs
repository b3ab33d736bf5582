//! The span head: all spans of the log, in memory, searchable when acknowledged.
//!
//! Traces are spread over shards by a hash of their id, so that a trace is whole in one shard. A
//! record is prepared once ([`SpanHead::prepare`] or [`SpanHead::decode`]) and applied shard by
//! shard in order of LSN; one thread at a time applies to a shard. Reads are at an LSN: they see
//! exactly what records up to it stored and did not delete.
//!
//! Locks: each shard's, then the catalogue's. None is held while a caller's code runs.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use rootline_wal::Lsn;

use super::{
    batch::{SpanBatch, SpanData},
    catalog::{Catalog, SymbolId, Translation},
    dictionary::number,
    filter::SpanFilter,
    hit::{OddTraces, SpanHit, hit_of},
    model::{Trace, TraceSummary},
    read,
    select::RowCursor,
    shard::{SHARD_ROWS_MAX, Shard, View, trace_hash},
};
use crate::{
    budget::{Budget, Holder},
    control::QueryControl,
    error::Error,
    id::TraceId,
    outcome::Rejections,
    record::{Part, RecordWriter, Tag, spans},
    settings::Settings,
    time::{TimeRange, Timestamp},
};

/// Prepared batches whose buffers are kept for the next ones.
const POOL_BATCHES_MAX: usize = 8;
/// Buffers larger than this are given back to the allocator.
const POOL_BATCH_BYTES_MAX: usize = 4 << 20;

/// A batch of spans, encoded or decoded, ready to be applied.
#[derive(Debug, Default)]
pub(crate) struct PreparedSpans {
    parts: Parts,
    pool: Option<Arc<Pool>>,
}

#[derive(Debug, Default)]
struct Parts {
    data: SpanData,
    translation: Translation,
    /// Rows of the batch, by shard and in order within it.
    rows: Vec<u32>,
    /// Where each shard's rows end.
    ends: Vec<u32>,
}

#[derive(Debug, Default)]
struct Pool {
    parts: Mutex<Vec<Parts>>,
}

impl PreparedSpans {
    /// Spans in it.
    pub(crate) fn span_count(&self) -> u64 {
        self.parts.data.rows.len() as u64
    }

    /// Whether a shard has to apply it.
    pub(crate) fn touches(&self, shard: usize) -> bool {
        !self.rows_of(shard).is_empty()
    }

    /// Bytes held.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.parts.data.heap_bytes()
            + self.parts.translation.heap_bytes()
            + (self.parts.rows.capacity() + self.parts.ends.capacity()) * size_of::<u32>()
    }

    fn rows_of(&self, shard: usize) -> &[u32] {
        let end = |shard: usize| self.parts.ends.get(shard).copied();
        let from = shard.checked_sub(1).and_then(end).unwrap_or(0);
        let to = end(shard).unwrap_or(from);
        self.parts
            .rows
            .get(from as usize..to as usize)
            .unwrap_or_default()
    }
}

impl Drop for PreparedSpans {
    fn drop(&mut self) {
        let Some(pool) = self.pool.take() else { return };
        if self.heap_bytes() <= POOL_BATCH_BYTES_MAX {
            let mut parts = std::mem::take(&mut self.parts);
            parts.data.clear();
            let mut pool = pool.parts.lock();
            if pool.len() < POOL_BATCHES_MAX {
                pool.push(parts);
            }
        }
    }
}

/// Counts of what the head holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanStats {
    /// Spans stored, those hidden by deletes included.
    pub spans: u64,
    /// Traces they belong to.
    pub traces: u64,
    /// Distinct attributes (key and value) of spans, events and links.
    pub tags: u64,
    /// Distinct resources.
    pub resources: u64,
    /// Distinct span names, attribute keys and services.
    pub symbols: u64,
    /// Bytes held.
    pub bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct SpanHead {
    shards: Vec<RwLock<Shard>>,
    /// Rows of each shard, to be read without its lock.
    rows: Vec<AtomicU32>,
    catalog: Catalog,
    budget: Arc<Budget>,
    pool: Arc<Pool>,
    /// The first record that brought a span; `u64::MAX` before there is one.
    oldest_lsn: AtomicU64,
}

impl SpanHead {
    /// An empty head.
    pub(crate) fn new(settings: &Settings, budget: Arc<Budget>) -> Self {
        let shards = settings.span_shards.max(1);
        Self {
            shards: (0..shards).map(|_| RwLock::default()).collect(),
            rows: (0..shards).map(|_| AtomicU32::new(0)).collect(),
            catalog: Catalog::new(Arc::clone(&budget)),
            budget,
            pool: Arc::default(),
            oldest_lsn: AtomicU64::new(u64::MAX),
        }
    }

    /// The oldest record that spans in here came in: the log is kept from there. Exact once that
    /// record is visible.
    pub(crate) fn oldest_lsn(&self) -> Option<Lsn> {
        let oldest = self.oldest_lsn.load(Ordering::Acquire);
        (oldest != u64::MAX).then_some(Lsn(oldest))
    }

    /// Number of shards.
    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The shard that holds a trace.
    pub(crate) fn shard_of(&self, trace: TraceId) -> usize {
        // The high half: the low one finds the trace within its shard.
        let hash = (trace_hash(trace) >> 32) as usize;
        hash % self.shards.len()
    }

    /// Encodes a batch as a part of its record and takes its content over; the batch is empty after.
    /// Spans that cannot be stored were refused when they were pushed, so nothing is rejected here.
    ///
    /// # Errors
    /// [`Error::BatchTooLarge`] for a part past 4 GiB, [`Error::MemoryFull`] if a shard has no row
    /// numbers left. The batch is then unchanged.
    pub(crate) fn prepare(
        &self,
        batch: &mut SpanBatch,
        parts: &mut RecordWriter,
        _rejections: &mut Rejections,
    ) -> Result<PreparedSpans, Error> {
        if batch.is_empty() {
            batch.clear();
            return Ok(PreparedSpans::default());
        }
        let new = batch.len() as u64;
        let most = self
            .rows
            .iter()
            .map(|rows| rows.load(Ordering::Relaxed))
            .max()
            .unwrap_or(0);
        if u64::from(most) + new > u64::from(SHARD_ROWS_MAX) {
            return Err(Error::MemoryFull {
                used_bytes: self.budget.used_bytes(),
                limit_bytes: self.budget.limit_bytes(),
                wanted_bytes: batch.heap_bytes() as u64,
            });
        }
        parts.part(Tag::Spans, |out| spans::encode(&batch.data, out))?;
        let mut own = self.pool.parts.lock().pop().unwrap_or_default();
        own.data = batch.take(std::mem::take(&mut own.data));
        Ok(self.prepared(own))
    }

    /// Reads the spans part of a record. At most one per record.
    ///
    /// # Errors
    /// [`Error::CorruptRecord`]; `into` is then empty.
    pub(crate) fn decode(&self, part: Part<'_>, into: &mut PreparedSpans) -> Result<(), Error> {
        let mut own = self.pool.parts.lock().pop().unwrap_or_default();
        *into = PreparedSpans::default();
        if let Err(reason) = spans::decode(part.bytes, &mut own.data) {
            return Err(part.corrupt(reason));
        }
        *into = self.prepared(own);
        Ok(())
    }

    fn prepared(&self, mut parts: Parts) -> PreparedSpans {
        self.catalog.translate(&parts.data, &mut parts.translation);
        let Parts {
            data, rows, ends, ..
        } = &mut parts;
        let shards: Vec<u32> = data
            .traces
            .iter()
            .map(|&id| number(self.shard_of(id)))
            .collect();
        let shard_of = |trace: u32| shards.get(trace as usize).copied().unwrap_or(0);
        rows.clear();
        rows.extend(0..number(data.rows.len()));
        rows.sort_by_key(|&row| {
            data.rows
                .get(row as usize)
                .map_or(0, |row| shard_of(row.trace))
        });
        ends.clear();
        ends.resize(self.shards.len(), 0);
        for row in &data.rows {
            if let Some(count) = ends.get_mut(shard_of(row.trace) as usize) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for end in ends {
            sum += *end;
            *end = sum;
        }
        PreparedSpans {
            parts,
            pool: Some(Arc::clone(&self.pool)),
        }
    }

    /// Applies a record to a shard. Nothing is kept per record that an old floor would have to keep:
    /// marks are 16 bytes, and all of them stay, so that any past LSN can be read.
    pub(crate) fn apply(&self, shard: usize, lsn: Lsn, prepared: &PreparedSpans, _floor: Lsn) {
        let rows = prepared.rows_of(shard);
        let (Some(lock), false) = (self.shards.get(shard), rows.is_empty()) else {
            return;
        };
        self.oldest_lsn.fetch_min(lsn.0, Ordering::AcqRel);
        let mut guard = lock.write();
        guard.apply(lsn, &prepared.parts.data, rows, &prepared.parts.translation);
        let growth = guard.growth_bytes();
        let rows_now = guard.idents.rows();
        drop(guard);
        self.budget.charge(Holder::SpanHead, growth);
        if let Some(rows) = self.rows.get(shard) {
            rows.store(rows_now, Ordering::Relaxed);
        }
    }

    /// Hides the spans that a trace has now from snapshots at or above `lsn`.
    pub(crate) fn delete_trace(&self, shard: usize, lsn: Lsn, trace: TraceId, _floor: Lsn) {
        if let Some(lock) = self.shards.get(shard) {
            lock.write().delete_trace(lsn, trace);
        }
    }

    /// The spans of a trace with their parents; `None` if the snapshot sees none.
    ///
    /// # Errors
    /// Those of the query's control; [`Error::MemoryFull`] for a trace the budget cannot hold.
    pub(crate) fn trace(
        &self,
        at: Lsn,
        id: TraceId,
        ctl: &QueryControl,
    ) -> Result<Option<Trace>, Error> {
        match self.shards.get(self.shard_of(id)) {
            Some(shard) => read::trace(shard, &self.catalog, &self.budget, at, id, ctl),
            None => Ok(None),
        }
    }

    /// What a list of traces says of one; `None` if the snapshot sees no span of it.
    ///
    /// # Errors
    /// Those of the query's control.
    pub(crate) fn trace_summary(
        &self,
        at: Lsn,
        id: TraceId,
        ctl: &QueryControl,
    ) -> Result<Option<TraceSummary>, Error> {
        match self.shards.get(self.shard_of(id)) {
            Some(shard) => read::summary(shard, &self.catalog, at, id, ctl),
            None => Ok(None),
        }
    }

    /// Calls `visit` with every span that satisfies the filter, in no promised order but the same one
    /// each time, until it breaks. No lock is held meanwhile.
    ///
    /// # Errors
    /// Those of the query's control, and the visitor's.
    pub(crate) fn scan(
        &self,
        at: Lsn,
        filter: &SpanFilter,
        ctl: &QueryControl,
        visit: &mut dyn FnMut(&SpanHit) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        for lock in &self.shards {
            let view = lock.read().view(at);
            let mut cursor = RowCursor::new(lock, &self.catalog, filter, view, ctl)?;
            let mut odd = OddTraces::default();
            let (mut rows, mut hits) = (Vec::new(), Vec::new());
            loop {
                ctl.check()?;
                let seen;
                {
                    let shard = lock.read();
                    seen = cursor.next_slice(&shard, &self.catalog, &mut rows);
                    let tables = self.catalog.read();
                    hits.clear();
                    hits.extend(
                        rows.iter()
                            .filter_map(|&row| hit_of(&shard, &tables, row, view)),
                    );
                }
                if seen == 0 {
                    break;
                }
                ctl.count_spans(seen as u64)?;
                for (hit, unsettled) in &mut hits {
                    if let Some(place) = unsettled {
                        let parent = odd.parent_service(lock, &self.catalog, view, *place, ctl)?;
                        hit.parent_service = parent;
                    }
                    if visit(hit)?.is_break() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Calls `each` with slices of rows that satisfy the filter, under the shard's read lock: for
    /// work of some nanoseconds per row.
    pub(crate) fn each_slice(
        &self,
        at: Lsn,
        filter: &SpanFilter,
        ctl: &QueryControl,
        each: &mut dyn FnMut(usize, &Shard, &[u32]),
    ) -> Result<(), Error> {
        for (i, lock) in self.shards.iter().enumerate() {
            let view = lock.read().view(at);
            let mut cursor = RowCursor::new(lock, &self.catalog, filter, view, ctl)?;
            let mut rows = Vec::new();
            loop {
                ctl.check()?;
                let shard = lock.read();
                let seen = cursor.next_slice(&shard, &self.catalog, &mut rows);
                if seen == 0 {
                    break;
                }
                each(i, &shard, &rows);
                drop(shard);
                ctl.count_spans(seen as u64)?;
            }
        }
        Ok(())
    }

    /// The text of a symbol of a [`SpanHit`].
    pub(crate) fn symbol(&self, symbol: SymbolId) -> Arc<str> {
        self.catalog.read().symbol(symbol)
    }

    /// From the earliest start to the latest end of a span; `None` if the snapshot sees none.
    ///
    /// # Errors
    /// Those of the query's control.
    pub(crate) fn time_bounds(
        &self,
        at: Lsn,
        ctl: &QueryControl,
    ) -> Result<Option<TimeRange>, Error> {
        let mut bounds: Option<(i64, i64)> = None;
        let mut widen = |min: i64, max: i64| {
            let (low, high) = bounds.unwrap_or((min, max));
            bounds = Some((low.min(min), high.max(max)));
        };
        for lock in &self.shards {
            let view = lock.read().view(at);
            let mut row = 0;
            while row < view.rows {
                ctl.check()?;
                row = read::page_bounds(&lock.read(), view, row, &mut widen);
            }
        }
        let Some((min, max)) = bounds else {
            return Ok(None);
        };
        TimeRange::new(Timestamp::from_nanos(min), Timestamp::from_nanos(max)).map(Some)
    }

    /// Counts of what is held now.
    pub(crate) fn stats(&self) -> SpanStats {
        let mut stats = SpanStats::default();
        for shard in &self.shards {
            let shard = shard.read();
            stats.spans += u64::from(shard.idents.rows());
            stats.traces += u64::from(shard.traces.rows());
            stats.tags += u64::from(shard.tags.len());
        }
        let tables = self.catalog.read();
        stats.resources = tables.resources.len() as u64;
        stats.symbols = tables.symbol_count() as u64;
        stats.bytes = self.budget.held_bytes(Holder::SpanHead);
        stats
    }

    /// The shared tables.
    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// A shard.
    pub(crate) fn shard(&self, shard: usize) -> Option<&RwLock<Shard>> {
        self.shards.get(shard)
    }

    /// What a snapshot sees of a shard, and the shard.
    pub(crate) fn views(&self, at: Lsn) -> impl Iterator<Item = (&RwLock<Shard>, View)> {
        self.shards
            .iter()
            .map(move |lock| (lock, lock.read().view(at)))
    }
}

impl Drop for SpanHead {
    fn drop(&mut self) {
        let charged = self
            .shards
            .iter_mut()
            .map(|shard| shard.get_mut().charged_bytes())
            .sum();
        self.budget.release(Holder::SpanHead, charged);
    }
}
