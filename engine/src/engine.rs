//! The store as an embedder sees it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rootline_index::Matcher;
use rootline_wal::{Clock, FsStorage, Lsn, Storage, SystemClock};

use crate::{
    backup::Copied,
    batch::WriteBatch,
    batch_pool::BatchPool,
    block::Signal,
    budget::{Budget, Holder},
    commit::{self, Committer},
    compaction::{Compacted, CompactionStats, Compactor},
    control::{QueryControl, QueryLimits},
    disk::DiskReserve,
    error::Error,
    files::{FileDamage, Found, StoreFiles},
    heads::Heads,
    id::TraceId,
    maintenance::{self, Bell, Core, Flushed, Freeze, Maintenance, SealStats},
    metric::{HashKey, MetricBatch, MetricHead, MetricStats, MetricView},
    outcome::WriteOutcome,
    replay::{Replay, ReplayProgress, Replayed},
    settings::Settings,
    snapshot::Snapshot,
    span::{SpanFilter, SpanHead, SpanStats, SpanView, recall::Admission},
    store::{Store, View},
    time::{TimeRange, Timestamp},
    visibility::Visibility,
};

/// Opens a store. Numbers go into [`Settings`], components in here.
#[derive(Debug)]
pub struct Builder {
    dir: PathBuf,
    settings: Settings,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    progress: Arc<ReplayProgress>,
}

impl Builder {
    /// Numbers other than the defaults.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Where files live. Default: the file system.
    #[must_use]
    pub fn storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = storage;
        self
    }

    /// What time it is. Default: the system's clocks.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Where to watch replay from another thread.
    #[must_use]
    pub fn progress(mut self, progress: Arc<ReplayProgress>) -> Self {
        self.progress = progress;
        self
    }

    /// Locks the directory (made if missing), opens its blocks, replays its log and opens the store.
    ///
    /// Damage in the log costs the records it hit and is reported in [`EngineStats::replayed`]; damage
    /// in blocks costs what it hit and is reported in [`EngineStats::damage`]. If the manifest is
    /// damaged, the store opens read-only ([`EngineStats::read_only`]): writes fail with
    /// [`Error::ReadOnly`].
    ///
    /// # Errors
    /// [`Error::Wal`] if the directory is in use, unreadable or of a newer release,
    /// [`Error::ReplayOverBudget`] if the memory limit is too small for what the log holds.
    pub fn open(self) -> Result<Engine, Error> {
        let Self {
            dir,
            settings,
            storage,
            clock,
            progress,
        } = self;
        let budget = Budget::new(settings.memory_limit_bytes);
        let Found {
            files,
            blocks,
            span_blocks,
            cuts,
            tombstones,
            span_tombstones,
            floors_ns,
            series_ref_next,
            metadata,
            metadata_sealed,
            mut read_only,
        } = StoreFiles::open(&storage, &clock, &dir, &budget)?;
        let files = Arc::new(files);
        let heads = Heads::new(
            Arc::new(MetricHead::new(&settings, Arc::clone(&budget))),
            Arc::new(SpanHead::new(&settings, Arc::clone(&budget))),
        );
        heads.metrics.start_refs_at(series_ref_next);
        for (lsn, entry) in &metadata {
            heads.metrics.restore_metadata(*lsn, entry);
        }
        if let Some(floor_ns) = floors_ns.metrics {
            heads.metrics.raise_floor(floor_ns);
        }
        let log_settings = rootline_wal::Settings {
            durability: settings.durability,
            segment_bytes_min: settings.segment_bytes.0,
            segment_bytes_max: settings.segment_bytes.1,
            store: StoreFiles::store_id(&files.manifest.version()),
            ..rootline_wal::Settings::default()
        };
        let threads = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(8);
        let disk = DiskReserve::new(Arc::clone(&storage), &dir, settings.disk_reserve_bytes);
        let replayed = Replay {
            storage,
            clock: Arc::clone(&clock),
            dir: &dir,
            settings: log_settings,
            heads: &heads,
            budget: &budget,
            progress: &progress,
            threads,
            cuts,
            spans: SpanView {
                // Expired traces may have gone on: they are recalled all the same.
                blocks: files.span_parts(&span_blocks, None)?,
                tombstones: span_tombstones.iter().cloned().collect(),
                ..SpanView::of(Arc::clone(&heads.spans))
            },
            files: &files,
        }
        .run()?;
        let wal = replayed.wal;
        let cut = cuts.metrics.max(cuts.spans);
        if wal.last_lsn() < cut {
            let reason = files.note_short_log(&dir, wal.last_lsn(), cut);
            read_only.get_or_insert(reason);
        }
        let visibility = Visibility::new(Arc::clone(&clock), settings.snapshot_max_age);
        visibility.start_at(wal.last_lsn().max(cut));
        let tombstones = tombstones.into_iter().chain(replayed.deletes);
        let view = View {
            metrics: MetricView {
                blocks,
                tombstones: tombstones.collect(),
                floor_ns: floors_ns.metrics,
                ..MetricView::of(Arc::clone(&heads.metrics))
            },
            spans: SpanView {
                blocks: files.span_parts(&span_blocks, floors_ns.spans)?,
                tombstones: span_tombstones
                    .into_iter()
                    .chain(replayed.span_deletes)
                    .collect(),
                floor_ns: floors_ns.spans,
                ..SpanView::of(Arc::clone(&heads.spans))
            },
        };
        let bell = Arc::new(Bell::default());
        let hash_key = heads.metrics.hash_key();
        let committer = Committer::new(commit::Start {
            heads,
            store: Store::new(view, files.has_damaged_blocks()),
            visibility,
            wal,
            budget,
            durability: settings.durability,
            memory_wait: settings.memory_wait,
            clock: Arc::clone(&clock),
            windows: replayed.windows,
            files: Arc::clone(&files),
            written: replayed.written,
            admission: Admission {
                trace_spans_max: settings.trace_spans_max,
            },
            bell: Arc::clone(&bell),
            read_only,
            disk,
        });
        let core = Arc::new(Core::new(maintenance::Start {
            committer,
            files,
            clock,
            settings,
            bell,
            metadata_sealed,
            replayed_bytes: progress.bytes(),
        }));
        core.start_retention();
        Ok(Engine {
            inner: Arc::new(Inner {
                compactor: Compactor::start(&core)?,
                maintenance: Maintenance::start(&core)?,
                batches: BatchPool::new(Arc::clone(&core.committer.budget)),
                core,
                hash_key,
                dir,
                replayed: replayed.replayed,
            }),
        })
    }
}

/// A store of metrics and traces in one directory. A handle: cheap to clone, usable from any thread.
///
/// Calls block; none needs an async runtime. Dropping the last handle without
/// [`close`](Self::close) is like a crash: what was acknowledged is in the log.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use rootline_engine::{Engine, Labels, Matcher, MatchOp, QueryControl, QueryLimits, TimeRange, Timestamp};
/// use std::ops::ControlFlow;
///
/// let dir = tempfile::tempdir()?;
/// let engine = Engine::builder(dir.path()).open()?;
/// let mut batch = engine.batch();
/// let labels = Labels::from_pairs([("__name__", "up"), ("job", "api")])?;
/// let row = batch.metrics().series(&labels);
/// batch.metrics().sample(row, Timestamp::from_millis(1_700_000_000_000)?, 1.0);
/// engine.write(&mut batch)?; // durable and visible from here on
///
/// let snapshot = engine.snapshot()?;
/// let query = engine.query_control(None, QueryLimits::default());
/// let matchers = [Matcher::new(MatchOp::Equal, "__name__", "up")?];
/// snapshot.select(&matchers, TimeRange::ALL, &query, &mut |series| {
///     assert_eq!(series.values, [1.0]);
///     Ok(ControlFlow::Continue(()))
/// })?;
/// engine.close()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Both end their thread when the last handle is dropped.
    compactor: Compactor,
    maintenance: Maintenance,
    core: Arc<Core>,
    hash_key: HashKey,
    batches: BatchPool,
    dir: PathBuf,
    replayed: Replayed,
}

/// Figures of a running store. Bytes are those the budget counts unless said otherwise.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineStats {
    /// The current generation of the metric head.
    pub metrics: MetricStats,
    /// Generations of metrics that are being sealed, or wait for it.
    pub frozen_generations: u64,
    /// Blocks of metrics that make up the store.
    pub blocks: u64,
    /// Series in them; one that is in several counts several times.
    pub block_series: u64,
    /// Samples in them.
    pub block_samples: u64,
    /// Bytes of their files.
    pub block_bytes: u64,
    /// Generations of spans that are being sealed, or wait for it.
    pub frozen_span_generations: u64,
    /// Blocks of spans.
    pub span_blocks: u64,
    /// Traces in them; one that is in several counts several times.
    pub block_traces: u64,
    /// Spans in them, hidden ones included.
    pub block_spans: u64,
    /// Bytes of their files.
    pub span_block_bytes: u64,
    /// Bytes of the manifest.
    pub manifest_bytes: u64,
    /// Deletes that some block or frozen generation does not have applied yet.
    pub tombstones: u64,
    /// Deletes of spans that some block does not have applied yet.
    pub span_tombstones: u64,
    /// What sealing has done.
    pub seals: SealStats,
    /// What compaction, retention and scrub have done.
    pub compactions: CompactionStats,
    /// Bytes free on disk when it was last looked at.
    pub disk_free_bytes: u64,
    /// Bytes set aside on disk for sealing and deletes.
    pub disk_reserve_bytes: u64,
    /// Writes are refused because room on disk is short.
    pub disk_is_low: bool,
    /// Retention: nothing before this time is kept.
    pub retention_floor: Option<Timestamp>,
    /// Samples of records up to here are in blocks.
    pub metric_cut: Lsn,
    /// Spans of records up to here are in blocks.
    pub span_cut: Lsn,
    /// The oldest record that is not in blocks, if there is one: the log is kept from here.
    pub oldest_unsealed_lsn: Option<Lsn>,
    /// Why the store can only be read, if so.
    pub read_only: Option<String>,
    /// Files and pages that cannot be read, as far as they were met.
    pub damage: Vec<FileDamage>,
    /// The current generation of the span head.
    pub spans: SpanStats,
    /// The log.
    pub log: rootline_wal::Stats,
    /// Every batch up to here is visible.
    pub visible_lsn: Lsn,
    /// Every batch up to here survives a power cut.
    pub durable_lsn: Lsn,
    /// What start-up found.
    pub replayed: Replayed,
    /// The memory limit.
    pub memory_limit_bytes: u64,
    /// Memory in use by all holders.
    pub memory_used_bytes: u64,
    /// Memory of requests in flight.
    pub memory_requests_bytes: u64,
    /// Memory of batches on their way through the log.
    pub memory_log_bytes: u64,
    /// Memory of the metric head, frozen generations included.
    pub memory_metric_head_bytes: u64,
    /// Memory of the span head.
    pub memory_span_head_bytes: u64,
    /// Memory of queries.
    pub memory_queries_bytes: u64,
    /// Memory kept for the next batches.
    pub memory_buffers_bytes: u64,
    /// Memory of what is known of open blocks.
    pub memory_blocks_bytes: u64,
    /// Memory of blocks being written, of what is sealed or of other blocks.
    pub memory_sealing_bytes: u64,
}

impl Engine {
    /// Prepares to open the store in `dir`.
    pub fn builder(dir: impl Into<PathBuf>) -> Builder {
        Builder {
            dir: dir.into(),
            settings: Settings::default(),
            storage: Arc::new(FsStorage::new()),
            clock: Arc::new(SystemClock::new()),
            progress: Arc::default(),
        }
    }

    /// An empty batch for this store.
    pub fn batch<'a>(&self) -> WriteBatch<'a> {
        self.inner
            .batches
            .take()
            .unwrap_or_else(|| WriteBatch::new(MetricBatch::new(self.inner.hash_key.clone())))
    }

    /// Gives back a batch that is no longer needed, so that the next [`batch`](Self::batch) has its
    /// room. A batch that is merely dropped costs nothing but the allocation of the next.
    pub fn recycle(&self, batch: WriteBatch<'_>) {
        self.inner.batches.put(batch);
    }

    /// Stores a batch: when it returns, the batch is durable and visible to every later snapshot.
    ///
    /// Items that are wrong in themselves (a bad label, a series past the limit) are left out and
    /// counted in the outcome; the valid rest is stored.
    ///
    /// # Errors
    /// Nothing of the batch was stored if the error's kind is `Retry` (memory or disk is short),
    /// `InvalidRequest` (too large) or `Closed` by [`close`](Self::close). After a failed sync
    /// (`Closed`) the batch was not acknowledged and is not visible; whether it is there after
    /// reopening is open, but never by half.
    pub fn write(&self, batch: &mut WriteBatch<'_>) -> Result<WriteOutcome, Error> {
        self.inner.core.committer.write(batch)
    }

    /// Deletes the samples in `range` of all series that `matchers` select now. Durable and visible
    /// when it returns; what is written later is not touched.
    ///
    /// # Errors
    /// [`Error::InvalidMatcher`]-kind errors for no matchers at all; as [`write`](Self::write).
    pub fn delete_series(&self, matchers: &[Matcher], range: TimeRange) -> Result<Lsn, Error> {
        if matchers.is_empty() {
            return Err(Error::NoMatchers);
        }
        self.inner.core.committer.delete_series(matchers, range)
    }

    /// Deletes every span of a trace. Durable and visible when it returns; a span of the same trace
    /// that is written later is kept.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn delete_trace(&self, id: TraceId) -> Result<Lsn, Error> {
        self.inner.core.committer.delete_trace(id)
    }

    /// Deletes every span that matches now. Durable and visible when it returns; a span that is written
    /// later is kept. The rest of a trace is answered as if what is deleted had never come.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn delete_spans(&self, filter: &SpanFilter) -> Result<Lsn, Error> {
        self.inner.core.committer.delete_spans(filter)
    }

    /// Seals the samples and spans in memory into blocks, and cuts the log as far as nothing needs it.
    ///
    /// # Errors
    /// Of kind `Retry` if the disk is full, `Closed` if the store is read-only or its manifest takes
    /// no more, `Internal` for other failures of the disk. Nothing is lost: what could not be sealed
    /// stays in memory and in the log, and is tried again.
    pub fn flush(&self) -> Result<Flushed, Error> {
        self.inner.core.seal(Freeze::ALL)
    }

    /// Merges blocks until nothing is left to merge, and carries out deletes in them. What the
    /// background does by and by, at once and without rests.
    ///
    /// # Errors
    /// As [`flush`](Self::flush); `Corrupted` for a block that cannot be read: it is left as it is.
    pub fn compact(&self) -> Result<Compacted, Error> {
        self.inner.core.compact()
    }

    /// Reads and verifies every block now. What is damaged stands in [`EngineStats::damage`].
    ///
    /// # Errors
    /// [`Error::Cancelled`] if the store is closed meanwhile.
    pub fn scrub(&self) -> Result<(), Error> {
        self.inner.core.scrub()
    }

    /// Makes a copy of the store in `dir`, which must not exist or be empty: a data directory of its own
    /// that can be opened, or restored with [`backup::restore`](crate::backup::restore). It holds at
    /// least every write and delete acknowledged before the call, each batch whole. Samples are sealed
    /// first; blocks share their bytes with the store where both are on one file system.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`]; as [`flush`](Self::flush).
    pub fn snapshot_to(&self, dir: &Path) -> Result<Copied, Error> {
        self.inner.core.snapshot_to(&self.inner.dir, dir)
    }

    /// Does what is due of what the background threads do every second. For embedders who open the
    /// store without them (`Settings::maintenance_thread`).
    pub fn tick(&self) {
        self.inner.core.tick();
        while self.inner.core.compaction_tick() {}
    }

    /// A view of both signals as of now: every batch acknowledged before, none by half, nothing later.
    ///
    /// # Errors
    /// None in this release.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        let (pin, view) = self.inner.core.committer.pin();
        Ok(Snapshot::new(self.clone(), pin, view))
    }

    /// Bounds for a query, by this store's clock.
    pub fn query_control(&self, timeout: Option<Duration>, limits: QueryLimits) -> QueryControl {
        QueryControl::new(Arc::clone(&self.inner.core.clock), timeout, limits)
    }

    /// The memory ledger, for what callers hold on behalf of requests and queries.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.inner.core.committer.budget
    }

    /// The clock this store goes by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.core.clock
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Figures as of now.
    pub fn stats(&self) -> EngineStats {
        let committer = &self.inner.core.committer;
        let budget = &committer.budget;
        let core = &self.inner.core;
        let parts = committer.store.view();
        let (view, spans) = (&parts.metrics, &parts.spans);
        let version = core.files.manifest.version();
        // Of a damaged manifest the version may be empty; what is read is in the view. Of a sound one it
        // has the blocks that do not open, too.
        let is_read_only = core.files.manifest.read_only().is_some();
        let in_view = view.blocks.iter().map(|block| block.meta());
        let in_view = in_view.chain(spans.blocks.iter().map(|part| &part.meta));
        let all = in_view.filter(|_| is_read_only);
        let all = all.chain(version.blocks.values().filter(|_| !is_read_only));
        let metas = all.clone().filter(|meta| meta.signal == Signal::Metrics);
        let of_spans = all.filter(|meta| meta.signal == Signal::Spans);
        EngineStats {
            metrics: view.current.stats(),
            frozen_generations: view.frozen.len() as u64,
            blocks: metas.clone().count() as u64,
            block_series: metas.clone().map(|meta| meta.series).sum(),
            block_samples: metas.clone().map(|meta| meta.samples).sum(),
            block_bytes: metas.map(|meta| meta.file_bytes).sum(),
            frozen_span_generations: spans.frozen.len() as u64,
            span_blocks: of_spans.clone().count() as u64,
            block_traces: of_spans.clone().map(|meta| meta.series).sum(),
            block_spans: of_spans.clone().map(|meta| meta.samples).sum(),
            span_block_bytes: of_spans.map(|meta| meta.file_bytes).sum(),
            manifest_bytes: core.files.manifest.disk_bytes(),
            tombstones: view.tombstones.len() as u64,
            span_tombstones: spans.tombstones.len() as u64,
            seals: core.seal_stats(),
            compactions: core.compaction.stats(),
            disk_free_bytes: committer.disk.free_bytes(),
            disk_reserve_bytes: committer.disk.held_bytes(),
            disk_is_low: committer.disk.is_low(),
            retention_floor: view.floor_ns.map(Timestamp::from_nanos),
            metric_cut: version.cuts.metrics,
            span_cut: version.cuts.spans,
            oldest_unsealed_lsn: core.oldest_unsealed(),
            read_only: core.files.manifest.read_only(),
            damage: core.files.damage(),
            spans: spans.current.stats(),
            log: committer.wal.stats(),
            visible_lsn: committer.visibility.visible(),
            durable_lsn: committer.wal.durable_lsn(),
            replayed: self.inner.replayed.clone(),
            memory_limit_bytes: budget.limit_bytes(),
            memory_used_bytes: budget.used_bytes(),
            memory_requests_bytes: budget.held_bytes(Holder::Requests),
            memory_log_bytes: budget.held_bytes(Holder::Log),
            memory_metric_head_bytes: budget.held_bytes(Holder::MetricHead),
            memory_span_head_bytes: budget.held_bytes(Holder::SpanHead),
            memory_queries_bytes: budget.held_bytes(Holder::Queries),
            memory_buffers_bytes: budget.held_bytes(Holder::Buffers),
            memory_blocks_bytes: budget.held_bytes(Holder::Blocks),
            memory_sealing_bytes: budget.held_bytes(Holder::Sealing),
        }
    }

    /// Stops taking writes, waits for those under way, syncs the log and closes it. Open snapshots
    /// and new ones go on reading. What is in memory is in the log, for the next open to replay.
    ///
    /// # Errors
    /// [`Error::Wal`] if the last sync fails; what was acknowledged before is durable all the same.
    pub fn close(&self) -> Result<(), Error> {
        self.close_within(Duration::ZERO)
    }

    /// As [`close`](Self::close), but seals first what can be sealed in `seal_for`, so that the next
    /// open has less to replay. What could not be sealed is in the log.
    ///
    /// # Errors
    /// As [`close`](Self::close). Sealing that fails or takes too long is no error.
    pub fn close_within(&self, seal_for: Duration) -> Result<(), Error> {
        let core = &self.inner.core;
        core.seal_until(core.clock.monotonic().saturating_add(seal_for));
        core.committer.stop();
        self.inner.compactor.stop();
        self.inner.maintenance.stop();
        if !seal_for.is_zero() {
            // What failed stands in the figures, and the data in the log.
            let _ = core.seal(Freeze::ALL);
        }
        let manifest = core.files.manifest.close();
        core.committer.close()?;
        manifest
    }

    pub(crate) fn is_whole(&self, signal: Signal, range: TimeRange) -> bool {
        self.inner.core.files.is_whole(signal, range)
    }

    #[cfg(test)]
    pub(crate) fn committer(&self) -> &Committer {
        &self.inner.core.committer
    }

    pub(crate) fn note_damage(&self, error: &Error, path: &Path) {
        self.inner.core.files.note_damage(error, path.to_owned());
    }
}
