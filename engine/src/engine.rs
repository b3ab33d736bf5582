//! The store as an embedder sees it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rootline_index::Matcher;
use rootline_wal::{Clock, FsStorage, Lsn, Storage, SystemClock};

use crate::{
    batch::WriteBatch,
    batch_pool::BatchPool,
    budget::{Budget, Holder},
    commit::Committer,
    control::{QueryControl, QueryLimits},
    error::Error,
    heads::Heads,
    id::TraceId,
    metric::{HashKey, MetricBatch, MetricHead, MetricStats, MetricView},
    outcome::WriteOutcome,
    replay::{Replay, ReplayProgress, Replayed},
    settings::Settings,
    snapshot::Snapshot,
    span::{SpanHead, SpanStats},
    store::Store,
    time::TimeRange,
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

    /// Locks the directory (made if missing), replays its log and opens the store.
    ///
    /// Damage in the log costs the records it hit and is reported in [`EngineStats::replayed`].
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
        let heads = Heads {
            metrics: Arc::new(MetricHead::new(&settings, Arc::clone(&budget))),
            spans: Arc::new(SpanHead::new(&settings, Arc::clone(&budget))),
        };
        let log_settings = rootline_wal::Settings {
            durability: settings.durability,
            segment_bytes_min: settings.segment_bytes.0,
            segment_bytes_max: settings.segment_bytes.1,
            ..rootline_wal::Settings::default()
        };
        let threads = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(8);
        let (wal, replayed) = Replay {
            storage,
            clock: Arc::clone(&clock),
            dir: &dir,
            settings: log_settings,
            heads: &heads,
            budget: &budget,
            progress: &progress,
            threads,
        }
        .run()?;
        let visibility = Visibility::new(Arc::clone(&clock), settings.snapshot_max_age);
        visibility.start_at(wal.last_lsn());
        let store = Store::new(MetricView::of(Arc::clone(&heads.metrics)));
        let hash_key = heads.metrics.hash_key();
        let committer = Committer::new(
            heads,
            store,
            visibility,
            wal,
            budget,
            settings.durability,
            settings.memory_wait,
        );
        Ok(Engine {
            inner: Arc::new(Inner {
                batches: BatchPool::new(Arc::clone(&committer.budget)),
                committer,
                hash_key,
                clock,
                dir,
                replayed,
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
    committer: Committer,
    hash_key: HashKey,
    batches: BatchPool,
    clock: Arc<dyn Clock>,
    dir: PathBuf,
    replayed: Replayed,
}

/// Figures of a running store. Bytes are those the budget counts unless said otherwise.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineStats {
    /// The metric head.
    pub metrics: MetricStats,
    /// The span head.
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
    /// Memory of the metric head.
    pub memory_metric_head_bytes: u64,
    /// Memory of the span head.
    pub memory_span_head_bytes: u64,
    /// Memory of queries.
    pub memory_queries_bytes: u64,
    /// Memory kept for the next batches.
    pub memory_buffers_bytes: u64,
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
        self.inner.committer.write(batch)
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
        self.inner.committer.delete_series(matchers, range)
    }

    /// Deletes every span of a trace. Durable and visible when it returns; a span of the same trace
    /// that is written later is kept.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn delete_trace(&self, id: TraceId) -> Result<Lsn, Error> {
        self.inner.committer.delete_trace(id)
    }

    /// Seals what is in memory into blocks.
    ///
    /// # Errors
    /// [`Error::Unsupported`]: this release keeps both heads in memory, rebuilt from the log.
    pub fn flush(&self) -> Result<(), Error> {
        Err(Error::Unsupported("flush: sealing into blocks"))
    }

    /// A view of both signals as of now: every batch acknowledged before, none by half, nothing later.
    ///
    /// # Errors
    /// None in this release.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        let (pin, view) = self.inner.committer.pin();
        Ok(Snapshot::new(self.clone(), pin, view))
    }

    /// Bounds for a query, by this store's clock.
    pub fn query_control(
        &self,
        timeout: Option<std::time::Duration>,
        limits: QueryLimits,
    ) -> QueryControl {
        QueryControl::new(Arc::clone(&self.inner.clock), timeout, limits)
    }

    /// The memory ledger, for what callers hold on behalf of requests and queries.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.inner.committer.budget
    }

    /// The clock this store goes by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Figures as of now.
    pub fn stats(&self) -> EngineStats {
        let committer = &self.inner.committer;
        let budget = &committer.budget;
        EngineStats {
            metrics: committer.store.view().current.stats(),
            spans: committer.spans.stats(),
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
        }
    }

    /// Stops taking writes, waits for those under way, syncs the log and closes it. Open snapshots
    /// and new ones go on reading.
    ///
    /// # Errors
    /// [`Error::Wal`] if the last sync fails; what was acknowledged before is durable all the same.
    pub fn close(&self) -> Result<(), Error> {
        self.inner.committer.close()
    }

    #[cfg(test)]
    pub(crate) fn committer(&self) -> &Committer {
        &self.inner.committer
    }

    pub(crate) fn spans(&self) -> &SpanHead {
        &self.inner.committer.spans
    }
}
