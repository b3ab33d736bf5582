//! What all protocols of the node share: the engine once it is open, the configuration, the self
//! metrics, and the one way to write.
//!
//! [`NodeState`] lives as long as the process, behind an `Arc`; the listeners hold it before the
//! engine exists. It goes from *starting* (the log is being replayed: everything but health and
//! self metrics gets the transient refusal) to *ready* and to *stopping* (transient refusal again),
//! never back.
//!
//! Decoding and writing are plain computation and blocking I/O, so they run on tokio's blocking
//! pool: at most `write-concurrency` at once, at most `max-concurrent-requests` waiting; past that
//! the transient refusal. Every group commit serves all writers that came meanwhile.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rootline_engine::{
    Budget, Clock, Engine, QueryControl, ReplayProgress, WriteBatch, WriteOutcome,
};
use tokio::sync::Semaphore;

use crate::{
    body::{self, BodyLimits, WireBody},
    buffer_pool::BufferPool,
    config::Config,
    refusal::{Refusal, RefusalKind},
    self_metrics::{Protocol, SelfMetrics},
};

/// Flushes, compactions and snapshots that run at once: each holds a thread of the blocking pool for as
/// long as it takes, and deletes must not wait for it.
const UPKEEP_MAX: usize = 2;

/// Where the node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The log is being replayed.
    Starting,
    /// Reads and writes are served.
    Ready,
    /// No new requests are taken.
    Stopping,
}

/// Where a node listens, with real port numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// gRPC.
    pub grpc: SocketAddr,
    /// OTLP over HTTP.
    pub otlp_http: SocketAddr,
    /// HTTP.
    pub http: SocketAddr,
}

/// Shared by every listener and service of one node.
#[derive(Debug)]
pub struct NodeState {
    config: Config,
    addresses: OnceLock<Addresses>,
    clock: Arc<dyn Clock>,
    phase: AtomicU8,
    engine: OnceLock<Engine>,
    /// Room of decompressed bodies, kept for the next.
    buffers: OnceLock<Arc<BufferPool>>,
    progress: Arc<ReplayProgress>,
    metrics: SelfMetrics,
    /// One permit for each write that waits or runs.
    write_places: Arc<Semaphore>,
    /// One permit for each write that runs.
    write_turns: Arc<Semaphore>,
    /// One permit for each flush, compaction or snapshot that runs, whatever way it was asked for.
    upkeep_turns: Arc<Semaphore>,
    /// Why the engine could not be opened, for health.
    open_error: Mutex<Option<String>>,
}

/// A write that was stored.
#[derive(Debug)]
pub struct Written<T> {
    /// What the engine says.
    pub outcome: WriteOutcome,
    /// What the decoder said.
    pub decoded: T,
}

impl NodeState {
    /// A node that is starting.
    pub fn new(config: Config, clock: Arc<dyn Clock>) -> Arc<Self> {
        let turns = config.write_concurrency.max(1);
        let places = turns.saturating_add(config.max_concurrent_requests);
        Arc::new(Self {
            config,
            addresses: OnceLock::new(),
            clock,
            phase: AtomicU8::new(Phase::Starting as u8),
            engine: OnceLock::new(),
            buffers: OnceLock::new(),
            progress: Arc::new(ReplayProgress::default()),
            metrics: SelfMetrics::default(),
            write_places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            write_turns: Arc::new(Semaphore::new(turns.min(Semaphore::MAX_PERMITS))),
            upkeep_turns: Arc::new(Semaphore::new(UPKEEP_MAX)),
            open_error: Mutex::new(None),
        })
    }

    /// How the node was configured.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The ports are bound. Later calls have no effect.
    pub fn set_addresses(&self, addresses: Addresses) {
        let _ = self.addresses.set(addresses);
    }

    /// Where the node listens, once its ports are bound.
    pub fn addresses(&self) -> Option<&Addresses> {
        self.addresses.get()
    }

    /// The node's clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The node's own counters.
    pub fn metrics(&self) -> &SelfMetrics {
        &self.metrics
    }

    /// How far the replay has come.
    pub fn progress(&self) -> &Arc<ReplayProgress> {
        &self.progress
    }

    /// Where the node is in its life.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Stopping,
        }
    }

    /// The engine is open: starts serving, unless the node is stopping already.
    pub fn set_ready(&self, engine: Engine) {
        let _ = self
            .buffers
            .set(BufferPool::new(Arc::clone(engine.budget())));
        let _ = self.engine.set(engine);
        let (from, to) = (Phase::Starting as u8, Phase::Ready as u8);
        let _ = self
            .phase
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The engine could not be opened; health says why.
    pub fn set_open_error(&self, error: String) {
        *self.open_error.lock() = Some(error);
    }

    /// Why the engine could not be opened.
    pub fn open_error(&self) -> Option<String> {
        self.open_error.lock().clone()
    }

    /// From now on every request gets the transient refusal.
    pub fn set_stopping(&self) {
        self.phase.store(Phase::Stopping as u8, Ordering::Release);
    }

    /// The engine, if requests may use it.
    ///
    /// # Errors
    /// The transient refusals "starting" and "stopping".
    pub fn engine(&self) -> Result<&Engine, Refusal> {
        match (self.phase(), self.engine.get()) {
            (Phase::Ready, Some(engine)) => Ok(engine),
            (Phase::Stopping, _) => Err(Refusal::new(
                RefusalKind::Stopping,
                "the node is shutting down",
            )),
            _ => Err(Refusal::new(RefusalKind::Starting, self.starting_message())),
        }
    }

    /// The engine if it was ever opened, in any phase: for closing it and for the self metrics.
    pub fn engine_opened(&self) -> Option<&Engine> {
        self.engine.get()
    }

    /// Why the store takes no writes though it answers questions; `None` if it takes them.
    pub fn read_only(&self) -> Option<String> {
        let stats = self.engine.get()?.stats();
        if stats.log.poisoned {
            return Some(
                "a sync of the log failed: check the disk and restart the node".to_owned(),
            );
        }
        stats.read_only
    }

    /// The memory budget that bodies are read against.
    ///
    /// # Errors
    /// As [`engine`](Self::engine).
    pub fn budget(&self) -> Result<&Arc<Budget>, Refusal> {
        Ok(self.engine()?.budget())
    }

    /// Limits on request bodies.
    pub fn body_limits(&self) -> BodyLimits {
        BodyLimits {
            decoded_bytes_max: self.config.max_request_bytes,
            idle_timeout: self.config.body_idle_timeout,
            total_timeout: self.config.body_timeout,
        }
    }

    /// The control of a new query: `timeout` if the caller has one, within the configured one.
    pub fn query_control(&self, timeout: Option<Duration>) -> QueryControl {
        let configured = self.config.query_timeout;
        let timeout = timeout.map_or(configured, |t| t.min(configured));
        QueryControl::new(
            Arc::clone(&self.clock),
            Some(timeout),
            self.config.query_limits.clone(),
        )
    }

    /// Turns for what looks after the store.
    pub(crate) fn upkeep_turns(&self) -> &Arc<Semaphore> {
        &self.upkeep_turns
    }

    /// Decompresses and decodes `wire` into a batch and writes it, all on a blocking thread.
    /// Returns once the batch is durable and visible.
    ///
    /// `decode` gets the decompressed bytes, which live as long as the batch. What it refuses item
    /// by item goes to [`WriteBatch::rejections`]; what it returns is handed back. If it fails,
    /// nothing is stored.
    ///
    /// # Errors
    /// Whatever refuses the whole request; then nothing of it is stored.
    pub async fn write<T, F>(
        self: &Arc<Self>,
        protocol: Protocol,
        wire: WireBody,
        decode: F,
    ) -> Result<Written<T>, Refusal>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a [u8], &mut WriteBatch<'a>) -> Result<T, Refusal> + Send + 'static,
    {
        // Whoever was let in to send a body may finish while the node drains.
        let engine = match self.phase() {
            Phase::Stopping => self
                .engine
                .get()
                .cloned()
                .map_or_else(|| self.engine().cloned(), Ok)?,
            _ => self.engine()?.clone(),
        };
        let busy =
            || Refusal::overloaded("too many requests wait (option max-concurrent-requests)");
        let place = Arc::clone(&self.write_places)
            .try_acquire_owned()
            .map_err(|_| busy())?;
        let turn = Arc::clone(&self.write_turns)
            .acquire_owned()
            .await
            .map_err(|_| busy())?;
        let limits = self.body_limits();
        let buffers = self.buffers.get().cloned();
        let started = self.clock.monotonic();
        // Once begun, a write runs to its end even if the sender goes away, and keeps its permits.
        let written = tokio::task::spawn_blocking(move || {
            let _permits = (place, turn);
            let wire_bytes = wire.bytes.len() as u64;
            let (bytes, mut reservation) = wire.decompress(&limits, buffers.as_ref())?;
            // The batch's own columns are about as large as what they are decoded from.
            body::grow(&mut reservation, bytes.len() as u64)?;
            let mut batch = engine.batch();
            let decoded = decode(&bytes, &mut batch)?;
            let outcome = engine.write(&mut batch)?;
            engine.recycle(batch);
            Ok((wire_bytes, bytes.len() as u64, Written { outcome, decoded }))
        })
        .await
        .unwrap_or_else(|panic| {
            tracing::error!(error = %panic, "a write failed in an unexpected way");
            Err(Refusal::new(
                RefusalKind::Internal,
                "the write failed in an unexpected way",
            ))
        });
        let elapsed = self.clock.monotonic().saturating_sub(started);
        match written {
            Ok((wire_bytes, decoded_bytes, written)) => {
                self.metrics.written(
                    protocol,
                    &written.outcome,
                    wire_bytes,
                    decoded_bytes,
                    elapsed,
                );
                Ok(written)
            }
            Err(refusal) => Err(refusal),
        }
    }

    fn starting_message(&self) -> String {
        let (done, total) = (self.progress.bytes(), self.progress.total_bytes());
        format!("the node is starting: {done} of {total} log bytes replayed")
    }
}
