//! The write path: prepare, log, apply, acknowledge.
//!
//! 1. *Prepare*: resolve series, validate, encode the record; read the spans that the batch recalls from
//!    older parts (`span/recall.rs`). No lock but the heads' own.
//! 2. *Order*: under the commit lock the record gets its LSN and is queued in every lane it touches,
//!    so that lanes fill in LSN order. A recall that a delete may have overtaken is read again first.
//! 3. *Log*: wait until the record is durable; one writer syncs for all who came meanwhile.
//! 4. *Apply*: drain the lanes up to the durable end; see `lanes.rs`.
//! 5. *Visible*: wait until the watermark has reached the batch; then it is acknowledged.
//!
//! A failure in 1 or 2 leaves nothing of the batch behind but unused series definitions. After a
//! failure in 3 the log is closed and the batch is never shown.
//!
//! Every write holds the *writers' lock* shared from preparing to acknowledging, so that whoever takes
//! it whole finds no batch in flight. Freezing does: the cut between two generations is then exactly
//! the watermark. Waiting for memory comes before the lock.
//!
//! Lock order: writers' lock → commit lock → the log's own → a lane's queue, the view's lock.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use rootline_index::Matcher;
use rootline_wal::{Clock, Durability, Lsn, Wal};

use crate::{
    batch::WriteBatch,
    block::Signal,
    budget::{Budget, Holder, Reservation},
    disk::DiskReserve,
    error::Error,
    files::StoreFiles,
    heads::{Heads, Prepared},
    id::TraceId,
    lanes::{Lanes, Shards},
    maintenance::Bell,
    manifest::BySignal,
    metric::{FrozenGeneration, MetricHead},
    outcome::WriteOutcome,
    record::{self, RecordWriter, Tag, deletes, deletes::Delete},
    seal::Windows,
    span::{
        FrozenSpans, PreparedSpans, SpanFilter, SpanHead,
        recall::{self, Admission},
    },
    store::{Store, View},
    time::TimeRange,
    tombstone::{SpanTombstone, Tombstone},
    visibility::{Pin, Visibility},
};

/// Share of the memory limit past which writers wait, then are refused.
const WRITERS_WAIT_PERCENT: u64 = 85;
/// The metric head is sealed when it holds this share of the memory limit ...
const HEAD_PERCENT: u64 = 40;
/// ... or when all holders together hold this, and sealing it is worth it.
const USED_PERCENT: u64 = 70;
/// A generation of spans is sealed when it holds so much ...
const SPANS_BYTES_MAX: u64 = 96 << 20;
/// ... or this share of the memory limit, what it recalled not counted.
const SPANS_PERCENT: u64 = 10;

#[derive(Debug)]
pub(crate) struct Committer {
    /// The writers' lock: held shared by every write, whole by freezing and closing.
    heads: RwLock<Heads>,
    pub(crate) store: Store,
    pub(crate) visibility: Arc<Visibility>,
    pub(crate) wal: Arc<Wal>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) files: Arc<StoreFiles>,
    lanes: Lanes<Prepared>,
    order: Mutex<()>,
    durability: Durability,
    memory_wait: Duration,
    closed: AtomicBool,
    /// Why nothing can be written, if so.
    read_only: Option<String>,
    clock: Arc<dyn Clock>,
    /// What the current generation was written to.
    windows: Mutex<Windows>,
    /// The last record that brought or deleted anything, by signal.
    written: BySignal<AtomicU64>,
    /// The last record that deleted spans. Written under the commit lock.
    span_delete: AtomicU64,
    /// When spans were last written, by the monotonic clock in ns.
    spans_written_ns: AtomicU64,
    admission: Admission,
    /// Wakes whoever seals.
    bell: Arc<Bell>,
    pub(crate) disk: DiskReserve,
}

/// What became of a batch under the commit lock.
enum Ordered {
    /// It has its LSN; whether it touches any lane.
    Queued { lsn: Lsn, touches: bool },
    /// A delete may concern what it recalled.
    Overtaken { batch: Box<Prepared>, by: Lsn },
}

fn monotonic_ns(clock: &dyn Clock) -> u64 {
    u64::try_from(clock.monotonic().as_nanos()).unwrap_or(u64::MAX)
}

/// What a new committer starts from.
pub(crate) struct Start {
    pub(crate) heads: Heads,
    pub(crate) store: Store,
    pub(crate) visibility: Arc<Visibility>,
    pub(crate) wal: Arc<Wal>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) durability: Durability,
    pub(crate) memory_wait: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) windows: Windows,
    pub(crate) files: Arc<StoreFiles>,
    /// The last record of each signal in the log.
    pub(crate) written: BySignal<Lsn>,
    pub(crate) admission: Admission,
    pub(crate) bell: Arc<Bell>,
    pub(crate) read_only: Option<String>,
    pub(crate) disk: DiskReserve,
}

impl Committer {
    pub(crate) fn new(start: Start) -> Self {
        Self {
            lanes: Lanes::new(start.heads.lanes()),
            written: BySignal {
                metrics: AtomicU64::new(start.written.metrics.0),
                spans: AtomicU64::new(start.written.spans.0),
            },
            span_delete: AtomicU64::new(start.written.spans.0),
            spans_written_ns: AtomicU64::new(monotonic_ns(&*start.clock)),
            admission: start.admission,
            files: start.files,
            heads: RwLock::new(start.heads),
            store: start.store,
            visibility: start.visibility,
            wal: start.wal,
            budget: start.budget,
            order: Mutex::new(()),
            durability: start.durability,
            memory_wait: start.memory_wait,
            closed: AtomicBool::new(false),
            read_only: start.read_only,
            clock: start.clock,
            windows: Mutex::new(start.windows),
            bell: start.bell,
            disk: start.disk,
        }
    }

    pub(crate) fn write(&self, batch: &mut WriteBatch<'_>) -> Result<WriteOutcome, Error> {
        self.check_open()?;
        self.disk.check()?;
        self.wait_for_memory()?;
        let heads = self.enter()?;
        batch.record.clear();
        let WriteBatch {
            metrics,
            spans,
            rejections,
            record,
        } = batch;
        let prepared = Prepared {
            metrics: heads
                .metrics
                .prepare(metrics, self.wal.durable_lsn(), record, rejections)?,
            spans: {
                let view = self.store.view();
                let (view, head) = (&view.spans, &heads.spans);
                recall::admit(view, head, self.admission, spans, rejections)?;
                head.prepare(spans, record)?
            },
            deletes: Vec::new(),
        };
        let mut outcome = WriteOutcome {
            lsn: None,
            samples: prepared.metrics.sample_count(),
            spans: prepared.spans.span_count(),
            rejections: std::mem::take(rejections),
        };
        if !record.is_empty() {
            let times = prepared.metrics.times_ns();
            let has_spans = prepared.spans.span_count() > 0;
            outcome.lsn = Some(self.commit(&heads, prepared, record)?);
            if let Some((first_ns, last_ns)) = times {
                let now = self.clock.monotonic();
                self.windows
                    .lock()
                    .note(first_ns, last_ns, outcome.samples, now);
                if self.is_full(&heads.metrics) {
                    self.bell.ring();
                }
            }
            if has_spans {
                let now_ns = monotonic_ns(&*self.clock);
                self.spans_written_ns.store(now_ns, Ordering::Relaxed);
                if self.is_full_of_spans(&heads.spans) {
                    self.bell.ring();
                }
            }
        }
        Ok(outcome)
    }

    /// Whether memory says that the generation should be sealed.
    pub(crate) fn is_full(&self, head: &MetricHead) -> bool {
        let limit = self.budget.limit_bytes();
        let head_bytes = head.charged_bytes();
        head_bytes > limit / 100 * HEAD_PERCENT
            || (self.budget.used_bytes() > limit / 100 * USED_PERCENT
                && self.budget.is_worth_sealing(head_bytes))
    }

    /// Whether memory says that the generation of spans should be sealed.
    pub(crate) fn is_full_of_spans(&self, head: &SpanHead) -> bool {
        let limit = self.budget.limit_bytes();
        head.written_bytes() > SPANS_BYTES_MAX.min(limit / 100 * SPANS_PERCENT)
            || (self.budget.used_bytes() > limit / 100 * USED_PERCENT
                && self.budget.is_worth_sealing(head.charged_bytes()))
    }

    /// Whether no span was written for so long.
    pub(crate) fn spans_are_idle(&self, now: Duration, idle: Duration) -> bool {
        let written = Duration::from_nanos(self.spans_written_ns.load(Ordering::Relaxed));
        now.saturating_sub(written) >= idle
    }

    /// The last record that brought or deleted anything of a signal, as far as it has its LSN.
    pub(crate) fn last_written(&self, signal: Signal) -> Lsn {
        Lsn(self.written.get(signal).load(Ordering::Acquire))
    }

    /// Whether enough of the current generation was not written to for so long.
    pub(crate) fn is_idle(&self, now: Duration, idle: Duration) -> bool {
        self.windows.lock().is_due(now, idle)
    }

    pub(crate) fn delete_series(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Lsn, Error> {
        let mut record = RecordWriter::default();
        record.part(Tag::DeleteSeries, |out| {
            deletes::encode_series(out, matchers, range);
        })?;
        let matchers = matchers.to_vec();
        self.delete(&Delete::Series { matchers, range }, &record)
    }

    pub(crate) fn delete_trace(&self, id: TraceId) -> Result<Lsn, Error> {
        let mut record = RecordWriter::default();
        record.part(Tag::DeleteTrace, |out| out.extend_from_slice(id.as_bytes()))?;
        self.delete(&Delete::Trace(id), &record)
    }

    /// Deletes the spans that match.
    pub(crate) fn delete_spans(&self, filter: &SpanFilter) -> Result<Lsn, Error> {
        let mut record = RecordWriter::default();
        record.part(Tag::DeleteSpans, |out| deletes::encode_spans(out, filter))?;
        self.delete(&Delete::Spans(filter.clone()), &record)
    }

    /// Stops taking writes and waits for those under way. Reads go on.
    pub(crate) fn stop(&self) {
        self.closed.store(true, Ordering::Release);
        drop(self.heads.write());
    }

    /// Syncs and closes the log, after [`stop`](Self::stop).
    pub(crate) fn close(&self) -> Result<(), Error> {
        self.wal.close()?;
        Ok(())
    }

    /// A snapshot of now.
    pub(crate) fn pin(&self) -> (Pin, Arc<View>) {
        self.store.pin(&self.visibility)
    }

    /// Ends the current generation of metrics and starts the next: waits for the writes under way,
    /// and keeps new ones waiting meanwhile, which takes no longer than one sync. `None` if there is
    /// no record after `metric_cut`, up to where all is sealed, and the youngest frozen generation.
    ///
    /// # Errors
    /// [`Error::Closed`] if a write failed on its way: what it left behind is neither in nor out.
    pub(crate) fn freeze(&self, metric_cut: Lsn) -> Result<Option<FrozenGeneration>, Error> {
        let mut heads = self.heads.write();
        let cut = self.settled()?;
        let view = self.store.view();
        let frozen = view.metrics.frozen.last().map(|frozen| frozen.cut);
        if cut <= frozen.unwrap_or(metric_cut).max(metric_cut) {
            return Ok(None);
        }
        let next = Arc::new(heads.metrics.successor());
        let frozen = FrozenGeneration {
            head: std::mem::replace(&mut heads.metrics, Arc::clone(&next)),
            cut,
        };
        self.store.swap(|view| {
            view.metrics.frozen.push(frozen.clone());
            view.metrics.current = next;
        });
        *self.windows.lock() = Windows::default();
        Ok(Some(frozen))
    }

    /// Ends the current generation of spans and starts the next. `None` if no record after `span_cut`,
    /// and the youngest frozen generation, concerns spans.
    ///
    /// # Errors
    /// As [`freeze`](Self::freeze).
    pub(crate) fn freeze_spans(&self, span_cut: Lsn) -> Result<Option<FrozenSpans>, Error> {
        let mut heads = self.heads.write();
        let cut = self.settled()?;
        let view = self.store.view();
        let frozen = view.spans.frozen.last().map(|frozen| frozen.cut);
        if self.last_written(Signal::Spans) <= frozen.unwrap_or(span_cut).max(span_cut) {
            return Ok(None);
        }
        let next = Arc::new(heads.spans.successor());
        let frozen = FrozenSpans {
            head: std::mem::replace(&mut heads.spans, Arc::clone(&next)),
            cut,
        };
        heads.frozen_spans.lock().push(Arc::clone(&frozen.head));
        self.store.swap(|view| {
            view.spans.frozen.push(frozen.clone());
            view.spans.current = next;
        });
        Ok(Some(frozen))
    }

    /// A frozen generation of spans is shown by new views no more.
    pub(crate) fn thaw_spans(&self, head: &Arc<SpanHead>) {
        let heads = self.heads.read();
        heads
            .frozen_spans
            .lock()
            .retain(|other| !Arc::ptr_eq(other, head));
    }

    /// Raises the floor below which spans are refused and traces hidden, for writes and snapshots to
    /// come: with no write under way, so that none recalls what has expired. What has expired in memory
    /// is deleted by a record, so that replay and older snapshots know when.
    ///
    /// Called with no block coming or going.
    ///
    /// # Errors
    /// [`Error::Storage`]; as a delete. The floor is where it was then.
    pub(crate) fn raise_span_floor(&self, floor_ns: i64) -> Result<(), Error> {
        let mut damaged = |error: Error| self.files.note_damage(&error, PathBuf::new());
        let mut raised = self.store.view().spans.clone();
        raised.raise_floor(floor_ns, &mut damaged)?;
        let heads = self.heads.write();
        let frozen = heads.frozen_spans.lock().clone();
        let mut expired = Vec::new();
        for head in frozen.iter().chain([&heads.spans]) {
            head.expired(floor_ns, &mut expired);
        }
        if !expired.is_empty() {
            self.check_open()?;
            let mut record = RecordWriter::default();
            for id in &expired {
                record.part(Tag::DeleteTrace, |out| out.extend_from_slice(id.as_bytes()))?;
            }
            let prepared = Prepared {
                deletes: expired.into_iter().map(Delete::Trace).collect(),
                ..Prepared::default()
            };
            self.commit(&heads, prepared, &record)?;
        }
        self.store.swap(|view| {
            view.spans.floor_ns = raised.floor_ns;
            view.spans.blocks = raised.blocks;
        });
        Ok(())
    }

    /// The watermark, with no write under way.
    fn settled(&self) -> Result<Lsn, Error> {
        let cut = self.visibility.visible();
        if cut != self.wal.last_lsn() {
            return Err(Error::Closed {
                reason: "a batch could not be stored; reopen the store".to_owned(),
            });
        }
        Ok(cut)
    }

    // A delete frees memory in the end, so it does not wait for any.
    fn delete(&self, delete: &Delete, record: &RecordWriter) -> Result<Lsn, Error> {
        let heads = self.enter()?;
        let prepared = || Prepared {
            deletes: vec![delete.clone()],
            ..Prepared::default()
        };
        let mut committed = self.commit(&heads, prepared(), record);
        if committed.as_ref().is_err_and(Error::is_disk_full) {
            // What frees space may use what was kept for it.
            self.disk.release();
            self.bell.ring();
            committed = self.commit(&heads, prepared(), record);
        }
        let lsn = committed?;
        // Shards give back what no snapshot can see any more when they are next written to; one at
        // rest is told here.
        heads.metrics.reclaim(self.visibility.floor());
        Ok(lsn)
    }

    fn check_open(&self) -> Result<(), Error> {
        if let Some(reason) = &self.read_only {
            return Err(Error::ReadOnly {
                reason: reason.clone(),
            });
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed {
                reason: "it was closed".to_owned(),
            });
        }
        Ok(())
    }

    fn enter(&self) -> Result<RwLockReadGuard<'_, Heads>, Error> {
        // `close` sets the flag first, so a writer that got past the lock saw it unset before.
        self.check_open()?;
        let heads = self.heads.read();
        self.check_open()?;
        Ok(heads)
    }

    fn wait_for_memory(&self) -> Result<(), Error> {
        if self.budget.used_bytes() > self.budget.limit_bytes() / 100 * WRITERS_WAIT_PERCENT {
            self.bell.ring();
        }
        if self
            .budget
            .wait_below(WRITERS_WAIT_PERCENT, self.memory_wait)
        {
            return Ok(());
        }
        Err(Error::MemoryFull {
            used_bytes: self.budget.used_bytes(),
            limit_bytes: self.budget.limit_bytes(),
            wanted_bytes: 0,
        })
    }

    fn commit(
        &self,
        heads: &Heads,
        mut prepared: Prepared,
        record: &RecordWriter,
    ) -> Result<Lsn, Error> {
        loop {
            self.recall(heads, &mut prepared.spans)?;
            match self.order(heads, prepared, record)? {
                Ordered::Queued { lsn, touches } => {
                    self.wal.wait_durable(lsn)?;
                    if !touches {
                        self.visibility.applied(lsn);
                    }
                    self.settle(heads, lsn)?;
                    return Ok(lsn);
                }
                Ordered::Overtaken { batch, by } => {
                    prepared = *batch;
                    self.wal.wait_durable(by)?;
                    self.settle(heads, by)?;
                }
            }
        }
    }

    /// Waits until a record that is durable is visible.
    fn settle(&self, heads: &Heads, lsn: Lsn) -> Result<(), Error> {
        self.lanes
            .drain(heads, &self.visibility, self.apply_limit());
        self.visibility.wait(lsn)
    }

    /// Gives the record its LSN, and the batch its place in every lane.
    fn order(
        &self,
        heads: &Heads,
        prepared: Prepared,
        record: &RecordWriter,
    ) -> Result<Ordered, Error> {
        let reservation = self.reserve(&prepared, record)?;
        let _order = self.order.lock();
        let deleted = Lsn(self.span_delete.load(Ordering::Relaxed));
        if prepared
            .spans
            .recall()
            .read_at
            .is_some_and(|at| at < deleted)
        {
            return Ok(Ordered::Overtaken {
                batch: Box::new(prepared),
                by: deleted,
            });
        }
        let lsn = self.wal.append(record::KIND_BATCH, &[record.payload()])?;
        heads.metrics.logged(&prepared.metrics, lsn);
        let (metrics, spans) = heads.signals(&prepared);
        if metrics {
            self.written.metrics.store(lsn.0, Ordering::Release);
        }
        if spans {
            self.written.spans.store(lsn.0, Ordering::Release);
        }
        for delete in &prepared.deletes {
            if let Delete::Series { matchers, range } = delete {
                self.store.add_tombstone(Tombstone {
                    lsn,
                    matchers: matchers.clone(),
                    range: *range,
                });
            }
        }
        let of_spans = prepared.deletes.iter();
        let of_spans = of_spans.filter_map(|delete| SpanTombstone::of(lsn, delete));
        let of_spans: Vec<SpanTombstone> = of_spans.collect();
        if !of_spans.is_empty() {
            self.span_delete.store(lsn.0, Ordering::Relaxed);
            self.store.add_span_tombstones(of_spans);
        }
        let touches = self.lanes.push(heads, lsn, prepared, Some(reservation));
        Ok(Ordered::Queued { lsn, touches })
    }

    /// Reads what the batch recalls from older parts as of now.
    fn recall(&self, heads: &Heads, spans: &mut PreparedSpans) -> Result<(), Error> {
        if spans.span_count() == 0 {
            return Ok(());
        }
        let (pin, view) = self.pin();
        let mut damaged = |error: Error| self.files.note_damage(&error, PathBuf::new());
        let found = recall::recall(&view.spans, pin.lsn(), &heads.spans, spans, &mut damaged)?;
        spans.set_recall(found);
        Ok(())
    }

    /// The record stays in the log's buffer and the batch in its lanes until both are done with it.
    fn reserve(&self, prepared: &Prepared, record: &RecordWriter) -> Result<Reservation, Error> {
        let bytes =
            record.payload().len() + prepared.metrics.heap_bytes() + prepared.spans.heap_bytes();
        if prepared.deletes.is_empty() {
            return self.budget.reserve(Holder::Log, bytes as u64);
        }
        self.budget.reserve(Holder::Log, 0)
    }

    fn apply_limit(&self) -> Lsn {
        match self.durability {
            Durability::Sync => self.wal.durable_lsn(),
            // Acknowledged by name before it is durable.
            Durability::Interval(_) => self.wal.last_lsn(),
        }
    }
}
