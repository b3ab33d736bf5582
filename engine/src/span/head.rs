//! One generation of the span head: its spans in memory, searchable when acknowledged.
//!
//! A generation takes writes until it is frozen; then another takes its place
//! ([`SpanHead::successor`]), and rows are added to it no more. Deletes still come, and so do the
//! marks that a later generation has recalled a trace: both only hide.
//!
//! Traces are spread over shards by a hash of their id, so that a trace is whole in one shard. A
//! record is prepared once ([`SpanHead::prepare`] or [`SpanHead::decode`]) and applied shard by
//! shard in order of LSN; one thread at a time applies to a shard. Reads are at an LSN: they see
//! exactly what records up to it stored and did not delete.
//!
//! Locks: each shard's, then the catalogue's. None is held while a caller's code runs.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use roaring::RoaringBitmap;
use rootline_wal::Lsn;

use super::{
    batch::{SpanBatch, SpanData},
    catalog::{Catalog, SymbolId, Translation},
    dictionary::number,
    filter::SpanFilter,
    model::{Span, Trace},
    read,
    select::RowCursor,
    shard::{Buffers, NONE, SHARD_ROWS_MAX, Shard, View, trace_hash},
};
use crate::{
    budget::{Budget, Holder},
    control::QueryControl,
    error::Error,
    id::TraceId,
    record::{Part, RecordWriter, Tag, spans},
    settings::Settings,
};

/// Spans of a trace that are read under one lock.
const SPANS_AT_ONCE: usize = 1024;
/// Prepared batches whose buffers are kept for the next ones.
const POOL_BATCHES_MAX: usize = 8;
/// Buffers larger than this are given back to the allocator.
const POOL_BATCH_BYTES_MAX: usize = 4 << 20;

/// A batch of spans, encoded or decoded, ready to be applied.
#[derive(Debug, Default)]
pub(crate) struct PreparedSpans {
    parts: Parts,
    pool: Option<Arc<Pool>>,
    recall: Recall,
}

/// What a batch takes over from older parts of the store; see `super::recall`.
#[derive(Debug, Default)]
pub(crate) struct Recall {
    /// The traces, each with visible spans in an older part.
    pub(crate) traces: Vec<TraceId>,
    /// Their spans there.
    pub(crate) spans: Option<Box<PreparedSpans>>,
    /// Traces of the batch whose spans an older part has all, sorted: nothing of them is applied.
    pub(crate) repeated: Vec<TraceId>,
    /// As of which record older parts were read; `None` if nothing depends on it.
    pub(crate) read_at: Option<Lsn>,
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

    /// Its distinct traces.
    pub(crate) fn traces(&self) -> &[TraceId] {
        &self.parts.data.traces
    }

    /// Its columns.
    pub(crate) fn data(&self) -> &SpanData {
        &self.parts.data
    }

    /// What it takes over from older parts.
    pub(crate) fn recall(&self) -> &Recall {
        &self.recall
    }

    /// Sets what it takes over from older parts, in place of what was set before.
    pub(crate) fn set_recall(&mut self, recall: Recall) {
        self.recall = recall;
    }

    /// Bytes held.
    pub(crate) fn heap_bytes(&self) -> usize {
        let recalled = self.recall.spans.as_ref();
        recalled.map_or(0, |spans| spans.heap_bytes())
            + self.parts.data.heap_bytes()
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
    /// Bytes charged for the shards.
    charged_bytes: AtomicU64,
    /// Those of them that came with recalled spans.
    recalled_bytes: AtomicU64,
}

impl SpanHead {
    /// An empty head.
    pub(crate) fn new(settings: &Settings, budget: Arc<Budget>) -> Self {
        Self::with(settings.span_shards.max(1), budget, Arc::default())
    }

    /// The generation that takes this one's place: empty, with as many shards.
    pub(crate) fn successor(&self) -> Self {
        let (budget, pool) = (Arc::clone(&self.budget), Arc::clone(&self.pool));
        Self::with(self.shards.len(), budget, pool)
    }

    fn with(shards: usize, budget: Arc<Budget>, pool: Arc<Pool>) -> Self {
        Self {
            shards: (0..shards).map(|_| RwLock::default()).collect(),
            rows: (0..shards).map(|_| AtomicU32::new(0)).collect(),
            catalog: Catalog::new(Arc::clone(&budget)),
            budget,
            pool,
            charged_bytes: AtomicU64::new(0),
            recalled_bytes: AtomicU64::new(0),
        }
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

    /// Bytes held.
    pub(crate) fn charged_bytes(&self) -> u64 {
        self.charged_bytes.load(Ordering::Relaxed) + self.catalog.held_bytes()
    }

    /// Rows of the shard that has most.
    pub(crate) fn rows_in_largest_shard(&self) -> u64 {
        let rows = self.rows.iter().map(|rows| rows.load(Ordering::Relaxed));
        u64::from(rows.max().unwrap_or(0))
    }

    /// Bytes held by what was written to this generation: without what it recalled.
    pub(crate) fn written_bytes(&self) -> u64 {
        let recalled = self.recalled_bytes.load(Ordering::Relaxed);
        self.charged_bytes().saturating_sub(recalled)
    }

    /// The traces of a batch that it never had a span of.
    pub(crate) fn unknown(&self, batch: &PreparedSpans) -> Vec<TraceId> {
        let data = &batch.parts.data;
        let mut seen = vec![false; data.traces.len()];
        let mut unknown = Vec::new();
        for (shard, lock) in self.shards.iter().enumerate() {
            let rows = batch.rows_of(shard).iter();
            let traces = rows.filter_map(|row| Some(data.rows.get(*row as usize)?.trace));
            let new = traces.filter(|trace| {
                let seen = seen.get_mut(*trace as usize);
                seen.is_some_and(|seen| !std::mem::replace(seen, true))
            });
            let ids: Vec<TraceId> = new
                .filter_map(|trace| data.traces.get(trace as usize).copied())
                .collect();
            if !ids.is_empty() {
                let shard = lock.read();
                unknown.extend(ids.into_iter().filter(|id| shard.find_trace(*id).is_none()));
            }
        }
        unknown
    }

    /// Of these traces (sorted) those of which the batch has a span that `known` does not have, tried
    /// out on the side.
    pub(crate) fn try_out(
        known: &mut SpanBatch,
        batch: &PreparedSpans,
        traces: &[TraceId],
    ) -> HashSet<TraceId> {
        let aside = Self::with(1, Budget::new(u64::MAX), Arc::default());
        let known = aside.prepare_recalled(known);
        aside.apply(0, Lsn(1), &known, Lsn::ZERO);
        let counts = |id: &TraceId| (*id, aside.trace_rows(*id));
        let before: Vec<_> = traces.iter().map(counts).collect();
        let data = &batch.parts.data;
        let mut translation = Translation::default();
        aside.catalog.translate(data, &mut translation);
        let is_wanted = |row: &super::batch::Row| {
            let id = data.traces.get(row.trace as usize);
            id.is_some_and(|id| traces.binary_search(id).is_ok())
        };
        let rows: Vec<u32> = (0u32..)
            .zip(&data.rows)
            .filter(|(_, row)| is_wanted(row))
            .map(|(place, _)| place)
            .collect();
        if let Some(shard) = aside.shards.first() {
            shard.write().apply(Lsn(2), data, &rows, &translation);
        }
        let grown = before
            .into_iter()
            .filter(|(id, rows)| aside.trace_rows(*id) != *rows);
        grown.map(|(id, _)| id).collect()
    }

    /// How many spans of a trace it has, hidden ones included; `None` if it never had one.
    pub(crate) fn trace_rows(&self, id: TraceId) -> Option<u32> {
        let shard = self.shards.get(self.shard_of(id))?.read();
        let entry = shard.traces.get(shard.find_trace(id)?)?;
        Some(entry.rows)
    }

    /// The traces that it recalled in records after `after`, up to `at`; one may come twice.
    pub(crate) fn recalled_between(&self, after: Lsn, at: Lsn, each: &mut dyn FnMut(Lsn, TraceId)) {
        for lock in &self.shards {
            let shard = lock.read();
            let recalled = shard.recalled_between(after, at);
            recalled.for_each(|(lsn, id)| each(lsn, id));
        }
    }

    /// Encodes a batch as a part of its record and takes its content over; the batch is empty after.
    /// Spans that cannot be stored were refused before.
    ///
    /// # Errors
    /// [`Error::BatchTooLarge`] for a part past 4 GiB, [`Error::MemoryFull`] if a shard has no row
    /// numbers left. The batch is then unchanged.
    pub(crate) fn prepare(
        &self,
        batch: &mut SpanBatch,
        parts: &mut RecordWriter,
    ) -> Result<PreparedSpans, Error> {
        if batch.is_empty() {
            batch.clear();
            return Ok(PreparedSpans::default());
        }
        let new = batch.len() as u64;
        if self.rows_in_largest_shard() + new > u64::from(SHARD_ROWS_MAX) {
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

    /// Spans read from older parts, to be applied with a batch that recalls their traces.
    pub(crate) fn prepare_recalled(&self, batch: &mut SpanBatch) -> PreparedSpans {
        self.prepared(Parts {
            data: batch.take(SpanData::default()),
            ..Parts::default()
        })
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
            recall: Recall::default(),
        }
    }

    /// Applies a record to a shard. Nothing is kept per record that an old floor would have to keep:
    /// marks are 16 bytes, and all of them stay, so that any past LSN can be read.
    pub(crate) fn apply(&self, shard: usize, lsn: Lsn, prepared: &PreparedSpans, _floor: Lsn) {
        let rows = prepared.rows_of(shard);
        let (Some(lock), false) = (self.shards.get(shard), rows.is_empty()) else {
            return;
        };
        let mut guard = lock.write();
        let mut growth = 0;
        if let Some(recalled) = &prepared.recall.spans {
            let traces = prepared.recall.traces.iter().copied();
            guard.note_recalled(lsn, traces.filter(|id| self.shard_of(*id) == shard));
            let rows = recalled.rows_of(shard);
            guard.apply(lsn, &recalled.parts.data, rows, &recalled.parts.translation);
            growth = guard.growth_bytes();
            self.recalled_bytes.fetch_add(growth, Ordering::Relaxed);
        }
        let Parts {
            data, translation, ..
        } = &prepared.parts;
        if prepared.recall.repeated.is_empty() {
            guard.apply(lsn, data, rows, translation);
        } else {
            let is_new = |row: &u32| {
                let row = data.rows.get(*row as usize);
                let id = row.and_then(|row| data.traces.get(row.trace as usize));
                id.is_some_and(|id| prepared.recall.repeated.binary_search(id).is_err())
            };
            let rows: Vec<u32> = rows.iter().copied().filter(is_new).collect();
            guard.apply(lsn, data, &rows, translation);
        }
        growth += guard.growth_bytes();
        let rows_now = guard.idents.rows();
        drop(guard);
        self.charged_bytes.fetch_add(growth, Ordering::Relaxed);
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
    #[cfg(test)]
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

    /// Whether a snapshot sees a span of a trace.
    pub(crate) fn sees_trace(&self, at: Lsn, id: TraceId) -> bool {
        let Some(lock) = self.shards.get(self.shard_of(id)) else {
            return false;
        };
        let shard = lock.read();
        let view = shard.view(at);
        let trace = shard
            .find_trace(id)
            .and_then(|trace| shard.traces.get(trace));
        let mut row = trace.map_or(NONE, |trace| trace.first);
        while row < view.rows {
            if shard.is_visible(row, view) {
                return true;
            }
            row = shard.next_of_trace(row);
        }
        false
    }

    /// Calls `each` with the spans of a trace that a snapshot sees, in the order they came. No lock is held
    /// meanwhile.
    ///
    /// # Errors
    /// What `each` returns.
    pub(crate) fn each_span(
        &self,
        at: Lsn,
        id: TraceId,
        each: &mut dyn FnMut(&Span) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(lock) = self.shards.get(self.shard_of(id)) else {
            return Ok(());
        };
        let (mut row, view) = {
            let shard = lock.read();
            let trace = shard
                .find_trace(id)
                .and_then(|trace| shard.traces.get(trace));
            (trace.map_or(NONE, |trace| trace.first), shard.view(at))
        };
        let (mut buffers, mut spans) = (Buffers::default(), Vec::new());
        while row < view.rows {
            {
                let shard = lock.read();
                let tables = self.catalog.read();
                for _ in 0..SPANS_AT_ONCE {
                    if row >= view.rows {
                        break;
                    }
                    if shard.is_visible(row, view) {
                        spans.extend(shard.span(row, &tables, &mut buffers));
                    }
                    row = shard.next_of_trace(row);
                }
            }
            for span in spans.drain(..) {
                each(&span)?;
            }
        }
        Ok(())
    }

    /// Adds the traces that are seen now and of which every span ended before the floor.
    pub(crate) fn expired(&self, floor_ns: i64, expired: &mut Vec<TraceId>) {
        for lock in &self.shards {
            let shard = lock.read();
            let mut pages = (0..shard.bounds.rows()).filter_map(|page| shard.bounds.get(page));
            if pages.all(|page| page.start_min >= floor_ns) {
                continue;
            }
            let view = shard.view(Lsn(u64::MAX));
            let mut ends_ns = vec![None::<i64>; shard.traces.len()];
            for row in (0..view.rows).filter(|row| shard.is_visible(*row, view)) {
                let Some(ident) = shard.idents.get(row) else {
                    continue;
                };
                let start_ns = shard.starts.get(row).copied().unwrap_or_default();
                let duration_ns = shard.durations.get(row).copied().unwrap_or_default();
                let end_ns = start_ns.wrapping_add_unsigned(duration_ns);
                if let Some(last_ns) = ends_ns.get_mut(ident.trace as usize) {
                    *last_ns = (*last_ns).max(Some(end_ns));
                }
            }
            let ended = (0u32..).zip(ends_ns);
            let ended = ended.filter(|(_, end_ns)| end_ns.is_some_and(|end_ns| end_ns < floor_ns));
            expired.extend(ended.filter_map(|(trace, _)| Some(shard.traces.get(trace)?.id)));
        }
    }

    /// Hides the spans of a shard that match now from snapshots at or above `lsn`.
    pub(crate) fn delete_spans(&self, shard: usize, lsn: Lsn, filter: &SpanFilter) {
        let Some(lock) = self.shards.get(shard) else {
            return;
        };
        // A delete that is in the log is carried out to its end: nothing bounds it.
        let ctl = QueryControl::unbounded();
        let view = lock.read().view(lsn);
        let Ok(mut cursor) = RowCursor::new(lock, &self.catalog, filter, view, &ctl) else {
            return;
        };
        let (mut found, mut rows) = (RoaringBitmap::new(), Vec::new());
        while cursor.next_slice(&lock.read(), &self.catalog, &mut rows) > 0 {
            found.extend(rows.iter().copied());
        }
        lock.write().delete_rows(lsn, found);
    }

    /// Another generation has taken these traces over at `lsn`: hides what is here of them from
    /// snapshots at or above it.
    pub(crate) fn supersede(&self, shard: usize, lsn: Lsn, traces: &[TraceId]) {
        if let Some(lock) = self.shards.get(shard) {
            let mut shard = lock.write();
            for id in traces {
                shard.delete_trace(lsn, *id);
            }
        }
    }

    /// A trace of a shard by its number there.
    pub(crate) fn trace_of(
        &self,
        shard: &RwLock<Shard>,
        trace: u32,
        view: View,
        ctl: &QueryControl,
    ) -> Result<Option<Trace>, Error> {
        read::trace_of(shard, &self.catalog, &self.budget, trace, view, ctl)
    }

    /// What a list of traces says of one; `None` if the snapshot sees no span of it.
    ///
    /// # Errors
    /// Those of the query's control.
    #[cfg(test)]
    pub(crate) fn trace_summary(
        &self,
        at: Lsn,
        id: TraceId,
        ctl: &QueryControl,
    ) -> Result<Option<super::model::TraceSummary>, Error> {
        match self.shards.get(self.shard_of(id)) {
            Some(shard) => read::summary(shard, &self.catalog, at, id, ctl),
            None => Ok(None),
        }
    }

    /// The text of a symbol of a [`SpanHit`].
    pub(crate) fn symbol(&self, symbol: SymbolId) -> Arc<str> {
        self.catalog.read().symbol(symbol)
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

    /// One of its shards.
    pub(crate) fn shard(&self, shard: usize) -> Option<&RwLock<Shard>> {
        self.shards.get(shard)
    }
}

impl Drop for SpanHead {
    fn drop(&mut self) {
        let charged = self.charged_bytes.get_mut();
        self.budget.release(Holder::SpanHead, *charged);
    }
}
