//! What goes on beside reads and writes: generations are frozen and sealed, the log is cut.
//!
//! A generation goes through these steps; after each of them a crash leaves a store that opens with
//! all that was acknowledged, once:
//!
//! 1. *Frozen*: another generation takes the writes. Nothing on disk has changed.
//! 2. *Written*: its blocks are durable under their names. No manifest names them: the next open
//!    removes them and replays the log.
//! 3. *Published*: one edit of the manifest adds the blocks and moves the metric cut. From here on
//!    replay skips what they hold.
//! 4. *Shown*: the view has the blocks in the place of the generation. Snapshots from before keep it.
//! 5. *Cut*: log segments that nothing unsealed needs are removed.
//!
//! An error before 3 leaves the generation frozen, and in the log; it is tried again after a while.
//! Generations are sealed oldest first, one at a time.
//!
//! One thread, owned here, looks every second whether something is due, or when writers ring. It can
//! be left out (`Settings::maintenance_thread`); then [`Core::tick`] is called from outside.
//!
//! Locks: `sealing` → `state`, and those of the committer and the files.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use rootline_wal::{Clock, Lsn};

use crate::{
    allocator,
    backup::{self, Copied},
    block::{BlockMeta, Signal},
    commit::Committer,
    compaction::Compaction,
    error::{Error, ErrorKind},
    files::{self, StoreFiles},
    manifest::{BySignal, Change},
    metric::{FrozenGeneration, Metadata},
    seal::{self, Sealing, SpanSealing},
    settings::Settings,
    span::{FrozenSpans, SpanBlockPart},
    tombstone::Tombstone,
};

/// How often the thread looks.
const TICK: Duration = Duration::from_secs(1);
/// After a failure, and twice as long after each further one ...
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// ... up to this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// What a sample takes in a block, a series, and a block at least: generous, for the disk reserve.
const SEALED_SAMPLE_BYTES: u64 = 9;
const SEALED_SERIES_BYTES: u64 = 48;
/// The same for a span.
const SEALED_SPAN_BYTES: u64 = 64;
const BLOCK_BYTES_MIN: u64 = 256 << 10;

/// What [`Engine::flush`](crate::Engine::flush) did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flushed {
    /// Blocks written.
    pub blocks: u64,
    /// Samples in them.
    pub samples: u64,
    /// Spans in them.
    pub spans: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Flushed {
    fn add(&mut self, blocks: &[BlockMeta]) {
        self.blocks += blocks.len() as u64;
        for meta in blocks {
            match meta.signal {
                Signal::Metrics => self.samples += meta.samples,
                Signal::Spans => self.spans += meta.samples,
            }
            self.bytes += meta.file_bytes;
        }
    }
}

/// Which current generations are frozen and sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Freeze {
    pub(crate) metrics: bool,
    pub(crate) spans: bool,
}

impl Freeze {
    /// Both.
    pub(crate) const ALL: Self = Self {
        metrics: true,
        spans: true,
    };
}

/// What sealing has done since the store was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SealStats {
    /// Generations sealed.
    pub seals: u64,
    /// Their blocks.
    pub written: Flushed,
    /// How long the last one took.
    pub last: Duration,
    /// Why the last try failed, if it did.
    pub last_error: Option<String>,
    /// Tries that failed.
    pub failures: u64,
}

/// Wakes the maintenance thread.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    pub(crate) fn ring(&self) {
        let mut rung = self.rung.lock();
        if !*rung {
            *rung = true;
            self.changed.notify_all();
        }
    }

    pub(crate) fn wait(&self, timeout: Duration) {
        let mut rung = self.rung.lock();
        if !*rung {
            self.changed.wait_for(&mut rung, timeout);
        }
        *rung = false;
    }
}

/// Everything of a store but its handles; shared with the maintenance thread.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) committer: Committer,
    pub(crate) files: Arc<StoreFiles>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Settings,
    pub(crate) bell: Arc<Bell>,
    pub(crate) compaction: Compaction,
    /// Held while a generation is sealed.
    sealing: Mutex<()>,
    state: Mutex<State>,
    /// Bytes of log that were replayed.
    replayed_bytes: u64,
    stopping: AtomicBool,
    /// When sealing must end, by the monotonic clock in ns; `u64::MAX` for no bound.
    seal_until_ns: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    stats: SealStats,
    /// Failures in a row, and when to try again.
    failures: u32,
    retry_at: Duration,
    /// Metadata up to here are in blocks or in the manifest.
    metadata_sealed: Lsn,
    /// Where in the log, in bytes, what is not sealed of a signal begins at most.
    log_bases: BySignal<u64>,
    /// A cut that failed: to be tried again.
    cut_is_due: bool,
}

/// What a new core starts from.
pub(crate) struct Start {
    pub(crate) committer: Committer,
    pub(crate) files: Arc<StoreFiles>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Settings,
    pub(crate) bell: Arc<Bell>,
    pub(crate) metadata_sealed: Lsn,
    pub(crate) replayed_bytes: u64,
}

impl Core {
    pub(crate) fn new(start: Start) -> Self {
        let seals = start.files.manifest.read_only().is_none();
        start.committer.budget.set_seals(seals);
        let compaction = Compaction::new(&start.files.manifest.version(), &*start.clock);
        Self {
            compaction,
            committer: start.committer,
            files: start.files,
            clock: start.clock,
            settings: start.settings,
            bell: start.bell,
            sealing: Mutex::new(()),
            state: Mutex::new(State {
                metadata_sealed: start.metadata_sealed,
                ..State::default()
            }),
            replayed_bytes: start.replayed_bytes,
            stopping: AtomicBool::new(false),
            seal_until_ns: AtomicU64::new(u64::MAX),
        }
    }

    pub(crate) fn seal_stats(&self) -> SealStats {
        self.state.lock().stats.clone()
    }

    /// Does what is due. Errors are kept for the figures and tried again later.
    pub(crate) fn tick(&self) {
        if self.files.manifest.read_only().is_some() {
            return;
        }
        let was_low = self.committer.disk.is_low();
        let to_come = self.sealed_bytes_to_come();
        self.committer.disk.update(to_come);
        let is_low = self.committer.disk.is_low();
        let now = self.clock.monotonic();
        let (retry_at, cut_is_due) = {
            let state = self.state.lock();
            (state.retry_at, state.cut_is_due)
        };
        if now < retry_at {
            return;
        }
        let view = self.committer.store.view();
        let has_frozen = !view.metrics.frozen.is_empty() || !view.spans.frozen.is_empty();
        drop(view);
        // On a full disk sealing is what lets the log go.
        let makes_room = is_low && !was_low && self.oldest_unsealed().is_some();
        // And it needs room first: later its log may have taken that.
        let makes_room = makes_room || self.committer.disk.is_tight_for(to_come);
        let due = if has_frozen {
            Freeze::default()
        } else if makes_room {
            Freeze::ALL
        } else {
            self.due(now)
        };
        if has_frozen || due != Freeze::default() {
            let _ = self.seal(due);
        } else if cut_is_due {
            let _one_at_a_time = self.sealing.lock();
            self.cut_log();
        }
    }

    /// Which current generations should be sealed.
    fn due(&self, now: Duration) -> Freeze {
        let view = self.committer.store.view();
        let idle = self.settings.seal_idle;
        let log_is_long = |signal| self.log_bytes(signal) > self.settings.log_bytes_max;
        Freeze {
            metrics: self.committer.is_full(&view.metrics.current)
                || log_is_long(Signal::Metrics)
                || self.committer.is_idle(now, idle),
            spans: self.is_unsealed(Signal::Spans)
                && (self.committer.is_full_of_spans(&view.spans.current)
                    || log_is_long(Signal::Spans)
                    || self.committer.spans_are_idle(now, idle)),
        }
    }

    /// Whether there are records of a signal that are not in blocks.
    fn is_unsealed(&self, signal: Signal) -> bool {
        let cut = *self.files.manifest.version().cuts.get(signal);
        self.committer.last_written(signal) > cut
    }

    /// About what sealing all that is unsealed will take on disk; 0 if nothing is.
    fn sealed_bytes_to_come(&self) -> u64 {
        if self.oldest_unsealed().is_none() {
            return 0;
        }
        let view = self.committer.store.view();
        let heads = view.metrics.frozen.iter().map(|frozen| &frozen.head);
        let sizes = heads.chain([&view.metrics.current]).map(|head| {
            let stats = head.stats();
            stats.samples * SEALED_SAMPLE_BYTES
                + stats.series * SEALED_SERIES_BYTES
                + head.label_text_bytes()
        });
        let spans = view.spans.frozen.iter().map(|frozen| &frozen.head);
        let spans = spans
            .chain([&view.spans.current])
            .map(|head| head.stats().spans);
        sizes.sum::<u64>() + spans.sum::<u64>() * SEALED_SPAN_BYTES + BLOCK_BYTES_MIN
    }

    /// Bytes of log that a signal needs, at most.
    fn log_bytes(&self, signal: Signal) -> u64 {
        if !self.is_unsealed(signal) {
            return 0;
        }
        let base = *self.state.lock().log_bases.get(signal);
        self.log_end_bytes().saturating_sub(base)
    }

    fn log_end_bytes(&self) -> u64 {
        self.committer.wal.stats().written_bytes + self.replayed_bytes
    }

    /// Seals what is frozen, oldest generation first, and the current generations that `freezes` names.
    /// What goes wrong with one signal does not keep the other.
    ///
    /// # Errors
    /// [`Error::ReadOnly`]; [`Error::Storage`] and [`Error::Wal`], of kind `Retry` if the disk is full.
    /// What could not be sealed stays in memory and in the log.
    pub(crate) fn seal(&self, freezes: Freeze) -> Result<Flushed, Error> {
        if let Some(reason) = self.files.manifest.read_only() {
            return Err(Error::ReadOnly { reason });
        }
        let _one_at_a_time = self.sealing.lock();
        let started = self.clock.monotonic();
        let mut flushed = Flushed::default();
        let mut freed_bytes = 0;
        let mut seal = || {
            let metrics = self.seal_metrics(freezes.metrics, &mut flushed, &mut freed_bytes);
            let spans = self.seal_spans(freezes.spans, &mut flushed, &mut freed_bytes);
            metrics.and(spans)
        };
        let mut sealed = seal();
        if sealed.as_ref().is_err_and(Error::is_disk_full) && self.committer.disk.release() {
            sealed = seal();
        }
        allocator::freed(freed_bytes);
        let now = self.clock.monotonic();
        {
            let mut state = self.state.lock();
            state.stats.written.blocks += flushed.blocks;
            state.stats.written.samples += flushed.samples;
            state.stats.written.spans += flushed.spans;
            state.stats.written.bytes += flushed.bytes;
            match &sealed {
                Ok(()) => {
                    state.failures = 0;
                    state.stats.last_error = None;
                    if flushed.blocks > 0 {
                        state.stats.last = now.saturating_sub(started);
                    }
                }
                Err(error) => {
                    let wait = RETRY_AFTER.saturating_mul(1 << state.failures.min(10));
                    state.retry_at = now.saturating_add(wait.min(RETRY_AFTER_MAX));
                    state.failures += 1;
                    state.stats.failures += 1;
                    state.stats.last_error = Some(error.to_string());
                }
            }
        }
        self.committer.budget.set_seals(sealed.is_ok());
        self.cut_log();
        self.committer.disk.update(self.sealed_bytes_to_come());
        sealed.map(|()| flushed)
    }

    fn metric_cut(&self) -> Lsn {
        self.files.manifest.version().cuts.metrics
    }

    fn seal_metrics(
        &self,
        freezes: bool,
        flushed: &mut Flushed,
        freed_bytes: &mut u64,
    ) -> Result<(), Error> {
        self.seal_frozen(flushed, freed_bytes)?;
        if freezes {
            let log_end_bytes = self.log_end_bytes();
            self.committer.freeze(self.metric_cut())?;
            self.seal_frozen(flushed, freed_bytes)?;
            self.state.lock().log_bases.metrics = log_end_bytes;
        }
        Ok(())
    }

    fn seal_spans(
        &self,
        freezes: bool,
        flushed: &mut Flushed,
        freed_bytes: &mut u64,
    ) -> Result<(), Error> {
        self.seal_frozen_spans(flushed, freed_bytes)?;
        if freezes {
            let log_end_bytes = self.log_end_bytes();
            let cut = self.files.manifest.version().cuts.spans;
            self.committer.freeze_spans(cut)?;
            self.seal_frozen_spans(flushed, freed_bytes)?;
            self.state.lock().log_bases.spans = log_end_bytes;
        }
        Ok(())
    }

    fn seal_frozen_spans(&self, flushed: &mut Flushed, freed_bytes: &mut u64) -> Result<(), Error> {
        loop {
            let view = self.committer.store.view();
            let Some(frozen) = view.spans.frozen.first().cloned() else {
                return Ok(());
            };
            drop(view);
            let block = self.seal_one_of_spans(&frozen)?;
            flushed.add(block.as_slice());
            *freed_bytes += frozen.head.charged_bytes();
            self.committer.thaw_spans(&frozen.head);
            self.state.lock().stats.seals += 1;
        }
    }

    fn seal_one_of_spans(&self, frozen: &FrozenSpans) -> Result<Option<BlockMeta>, Error> {
        let version = self.files.manifest.version();
        let wal_store = self.committer.wal.store_id();
        let store = StoreFiles::store_id(&version).unwrap_or(wal_store);
        let view = self.committer.store.view();
        let named = version.blocks.values();
        let named = named.filter(|meta| meta.signal == Signal::Spans).count();
        let sealing = SpanSealing {
            files: &self.files,
            store,
            frozen,
            first_lsn: version.cuts.spans.next(),
            older: &view.spans.blocks,
            has_unread: named > view.spans.blocks.len(),
            budget: &self.committer.budget,
            check: &|| self.check_may_seal(),
        };
        let block = sealing.write()?;
        drop(view);
        let published = self
            .wait_durable(frozen.cut)
            .and_then(|()| self.publish_spans(frozen, store, block.as_ref()));
        if let Err(error) = published {
            // An edit that may hold after the next open needs its files.
            if error.kind() != ErrorKind::Closed {
                self.files.remove_blocks(block.iter().map(|meta| meta.id));
            }
            return Err(error);
        }
        Ok(block)
    }

    fn publish_spans(
        &self,
        frozen: &FrozenSpans,
        store: rootline_wal::StoreId,
        block: Option<&BlockMeta>,
    ) -> Result<(), Error> {
        let opened = match block {
            Some(meta) => Some(self.files.open_span_block(meta.id, Some(store))?),
            None => None,
        };
        let mut damaged = |error: Error| self.files.note_damage(&error, PathBuf::new());
        self.files.publish_made(
            &self.committer.store,
            |version, view| {
                let spans = &view.spans;
                let mut parts = spans.blocks.clone();
                if let Some(block) = opened {
                    for part in &mut parts {
                        if let Some(less) = part.superseded_by(block.superseded(), &mut damaged)? {
                            *part = Arc::new(less);
                        }
                    }
                    let meta = block.meta().clone();
                    let newer = std::iter::empty();
                    let floor_ns = spans.floor_ns;
                    let part = SpanBlockPart::new(block, meta, newer, floor_ns, &mut damaged)?;
                    parts.push(Arc::new(part));
                }
                let mut changes = files::span_cut_changes(version, spans, frozen.cut, store);
                changes.extend(block.cloned().map(Change::AddBlock));
                Ok((changes, parts))
            },
            |view, parts| {
                let sealed = |other: &FrozenSpans| Arc::ptr_eq(&other.head, &frozen.head);
                view.spans.frozen.retain(|other| !sealed(other));
                view.spans.blocks = parts;
            },
        )?;
        Ok(())
    }

    fn seal_frozen(&self, flushed: &mut Flushed, freed_bytes: &mut u64) -> Result<(), Error> {
        loop {
            let view = self.committer.store.view();
            let Some(frozen) = view.metrics.frozen.first().cloned() else {
                return Ok(());
            };
            drop(view);
            let blocks = self.seal_one(&frozen)?;
            flushed.add(&blocks);
            *freed_bytes += frozen.head.charged_bytes();
            self.state.lock().stats.seals += 1;
        }
    }

    fn seal_one(&self, frozen: &FrozenGeneration) -> Result<Vec<BlockMeta>, Error> {
        // Deletes up to here are in the view that is read after it, and no snapshot of the view that
        // shows the blocks will be older.
        let visible = self.committer.visibility.visible();
        let clean_lsn = visible
            .min(self.committer.wal.durable_lsn())
            .max(frozen.cut);
        let view = self.committer.store.view();
        let later = view.metrics.tombstones.iter();
        let later = later.filter(|t| t.lsn > frozen.cut && t.lsn <= clean_lsn);
        let deletes: Vec<Tombstone> = later.cloned().collect();
        drop(view);
        let version = self.files.manifest.version();
        let wal_store = self.committer.wal.store_id();
        let store = StoreFiles::store_id(&version).unwrap_or(wal_store);
        let metadata_sealed = self.state.lock().metadata_sealed;
        let mut metadata = files::loose_metadata(&version);
        metadata.extend(frozen.head.metadata_between(metadata_sealed, frozen.cut));
        let sealing = Sealing {
            files: &self.files,
            store,
            frozen,
            clean_lsn,
            deletes: &deletes,
            first_lsn: version.cuts.metrics.next(),
            metadata: &metadata,
            budget: &self.committer.budget,
            check: &|| self.check_may_seal(),
        };
        let blocks = sealing.write()?;
        let published = self
            .wait_durable(frozen.cut)
            .and_then(|()| self.publish(frozen, store, &blocks, &metadata));
        if let Err(error) = published {
            // An edit that may hold after the next open needs its files.
            if error.kind() != ErrorKind::Closed {
                self.files.remove_blocks(seal::ids(&blocks));
            }
            return Err(error);
        }
        self.state.lock().metadata_sealed = frozen.cut;
        Ok(blocks)
    }

    fn publish(
        &self,
        frozen: &FrozenGeneration,
        store: rootline_wal::StoreId,
        blocks: &[BlockMeta],
        metadata: &[(Lsn, Metadata)],
    ) -> Result<(), Error> {
        let mut opened = Vec::with_capacity(blocks.len());
        for meta in blocks {
            opened.push(self.files.open_block(meta.id, Some(store))?);
        }
        self.files.publish(
            &self.committer.store,
            |version, view| {
                let next = frozen.head.next_ref();
                // Merging may have added some since the blocks were written.
                let mut loose = files::loose_metadata(version);
                loose.retain(|entry| !metadata.contains(entry));
                if blocks.is_empty() {
                    loose.extend(metadata.iter().cloned());
                }
                let mut changes =
                    files::cut_changes(version, &view.metrics, frozen.cut, next, store, &loose);
                changes.extend(blocks.iter().cloned().map(Change::AddBlock));
                Ok(changes)
            },
            |view| {
                view.metrics.frozen.retain(|other| other.cut != frozen.cut);
                view.metrics.blocks.extend(opened);
            },
        )?;
        Ok(())
    }

    /// A cut must not be ahead of the log: numbers that a power cut takes back are given out again.
    fn wait_durable(&self, cut: Lsn) -> Result<(), Error> {
        self.check_may_seal()?;
        Ok(self.committer.wal.sync_to(cut)?)
    }

    fn check_may_seal(&self) -> Result<(), Error> {
        let until_ns = self.seal_until_ns.load(Ordering::Relaxed);
        if until_ns == u64::MAX {
            return Ok(());
        }
        if self.clock.monotonic() >= Duration::from_nanos(until_ns) {
            return Err(Error::Cancelled);
        }
        Ok(())
    }

    /// Removes what nothing unsealed needs from the log.
    fn cut_log(&self) {
        // In this order: what is written meanwhile has a higher number.
        let end = self.committer.visibility.visible().next();
        let below = self.oldest_unsealed().map_or(end, |oldest| oldest.min(end));
        let cut = self.committer.wal.cut(below);
        self.state.lock().cut_is_due = cut.is_err();
    }

    /// Copies the store in `from` to `dir`; see [`Engine::snapshot_to`](crate::Engine::snapshot_to).
    pub(crate) fn snapshot_to(&self, from: &Path, dir: &Path) -> Result<Copied, Error> {
        self.seal(Freeze::ALL)?;
        let visible = self.committer.visibility.visible();
        self.wait_durable(visible)?;
        // No log is cut and no edit made until it is copied: sealing cuts, publishing edits.
        let _sealing = self.sealing.lock();
        self.files.hold_still(|version| {
            let mut blocks = version.blocks.keys().copied();
            backup::copy(&self.files.storage, from, dir, &mut blocks)
        })
    }

    /// The oldest record that is needed to bring memory back.
    pub(crate) fn oldest_unsealed(&self) -> Option<Lsn> {
        let cuts = self.files.manifest.version().cuts;
        let signals = [Signal::Metrics, Signal::Spans].into_iter();
        let unsealed = signals.filter(|signal| self.is_unsealed(*signal));
        unsealed.map(|signal| cuts.get(signal).next()).min()
    }

    /// Ends sealing that is under way, and what may follow, at this moment.
    pub(crate) fn seal_until(&self, until: Duration) {
        let until_ns = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX - 1);
        self.seal_until_ns.store(until_ns, Ordering::Relaxed);
    }
}

/// A thread of the store, if it has threads (`Settings::maintenance_thread`).
#[derive(Debug)]
pub(crate) struct BackgroundThread(Mutex<Option<JoinHandle<()>>>);

impl BackgroundThread {
    /// # Errors
    /// [`Error::Storage`] if the system has no thread.
    pub(crate) fn start(core: &Arc<Core>, name: &str, run: fn(&Core)) -> Result<Self, Error> {
        if !core.settings.maintenance_thread {
            return Ok(Self(Mutex::new(None)));
        }
        let of_thread = Arc::clone(core);
        let spawned = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&of_thread));
        let thread = spawned.map_err(|source| Error::Storage {
            operation: "start a thread for",
            path: core.files.blocks_dir.clone(),
            source,
        })?;
        Ok(Self(Mutex::new(Some(thread))))
    }

    /// Waits for its end, which the caller has asked for.
    pub(crate) fn join(&self) {
        if let Some(thread) = self.0.lock().take() {
            // A panic there was printed; here is nobody to hand it to.
            let _ = thread.join();
        }
    }
}

/// The thread that seals. Dropping it ends it, and the sealing it is at.
#[derive(Debug)]
pub(crate) struct Maintenance {
    core: Arc<Core>,
    thread: BackgroundThread,
}

impl Maintenance {
    /// # Errors
    /// [`Error::Storage`] if the system has no thread.
    pub(crate) fn start(core: &Arc<Core>) -> Result<Self, Error> {
        Ok(Self {
            core: Arc::clone(core),
            thread: BackgroundThread::start(core, "rootline-maintenance", run)?,
        })
    }

    /// Ends the thread. What it seals may go on until the core's bound.
    pub(crate) fn stop(&self) {
        self.core.stopping.store(true, Ordering::Release);
        self.core.bell.ring();
        self.thread.join();
    }
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        self.core.seal_until(Duration::ZERO);
        self.stop();
    }
}

fn run(core: &Core) {
    while !core.stopping.load(Ordering::Acquire) {
        core.tick();
        core.bell.wait(core.clock.wait_bound(TICK));
    }
}
