//! What is done to blocks in the background: retention, merging, carrying out deletes, scrubbing.
//!
//! A thread of its own, so that a long merge keeps no generation in memory. A step reads the view,
//! writes a block that no manifest names, and publishes both in one edit; a crash before that leaves a
//! file that the next open removes. Sources are removed once the edit is durable; a snapshot that
//! reads them keeps them open.
//!
//! In the background a merge works in slices and rests as long as it worked
//! ([`SLICE`]), so that it takes half of one processor at most. A merge that an operator asked for
//! does not rest.
//!
//! Deletes: a merge applies all that are visible when it begins, and its block says so (`clean_lsn`).
//! Not those after: a snapshot taken meanwhile may be older. A block that no row of concerns is not
//! rewritten, it is only noted in the manifest that it is clean.
//!
//! Locks: `stepping` (one step at a time), then those of the files and the view.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rootline_index::Symbols;
use rootline_wal::{Clock, Lsn, StoreId};

use super::{
    planner::{self, Effort, PendingDelete, Plan},
    spans::spare_span_tombstones,
};
use crate::{
    allocator,
    block::{Block, BlockId, BlockMeta, SectionKind, Signal},
    budget::Holder,
    error::{Error, ErrorKind},
    files::{self, StoreFiles},
    maintenance::{BackgroundThread, Bell, Core},
    manifest::{Change, Version},
    metric::{
        MetricView,
        block::{BlockOrigin, MergeOutput, MetricBlock, MetricBlockWriter, merge},
    },
    retention::{self, RetentionClock},
    time::{TimeRange, Timestamp},
    tombstone::Tombstone,
};

/// How often the thread looks.
const TICK: Duration = Duration::from_secs(1);
/// How long a merge works, and then rests, in the background.
const SLICE: Duration = Duration::from_millis(20);
/// Series between two looks at the clock.
const SERIES_PER_LOOK: u32 = 64;
/// After a failure.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// Bytes that the scrub reads between two rests.
const SCRUB_BYTES_PER_REST: u64 = 4 << 20;
/// Beside the writer a merge holds the strings of its sources in a table of symbols, about so many
/// times what they take in blocks ...
const STRING_COPIES: u64 = 3;
/// ... and of each source a decoded chunk and the columns that it may share.
const SOURCE_BYTES: u64 = 256 << 10;
/// What a merge holds of a series until it ends, about.
const HELD_SERIES_BYTES: u64 = 64;
/// How often the clock that retention goes by is written down.
const CLOCK_NOTE_NS: i64 = 3600 * 1_000_000_000;
/// The manifest's name for it.
const STATE_RETENTION_CLOCK: &str = "retention_clock_ns";

/// What [`Engine::compact`](crate::Engine::compact) did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compacted {
    /// Merges carried out; a block that was rewritten without what was deleted counts as one.
    pub merges: u64,
    /// Blocks that were replaced.
    pub blocks_before: u64,
    /// Blocks that replaced them.
    pub blocks_after: u64,
    /// Bytes of the blocks that were replaced.
    pub bytes_before: u64,
    /// Bytes of the blocks that replaced them.
    pub bytes_after: u64,
}

impl Compacted {
    fn add(&mut self, other: Self) {
        self.merges += other.merges;
        self.blocks_before += other.blocks_before;
        self.blocks_after += other.blocks_after;
        self.bytes_before += other.bytes_before;
        self.bytes_after += other.bytes_after;
    }
}

/// What this thread has done since the store was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionStats {
    /// Merges.
    pub done: Compacted,
    /// How long the last merge took.
    pub last: Duration,
    /// Why the last try failed, if it did.
    pub last_error: Option<String>,
    /// Blocks that retention dropped.
    pub retired_blocks: u64,
    /// Their bytes.
    pub retired_bytes: u64,
    /// Retention waits: the wall clock has jumped ahead of the time that passed.
    pub retention_paused: bool,
    /// Times that all blocks were read and verified.
    pub scrubs: u64,
    /// Bytes that the scrub has read.
    pub scrubbed_bytes: u64,
}

/// State of the worker, part of [`Core`].
#[derive(Debug)]
pub(crate) struct Compaction {
    pub(crate) bell: Bell,
    stopping: AtomicBool,
    stepping: Mutex<Memory>,
    stats: Mutex<CompactionStats>,
    scrubbed_bytes: AtomicU64,
}

/// What is known from step to step.
#[derive(Debug)]
pub(super) struct Memory {
    /// Blocks whose damage a merge ran into: they are left as they are.
    pub(super) damaged: HashSet<BlockId>,
    clock: RetentionClock,
    retry_at: Duration,
    scrub_at: Option<Duration>,
}

impl Compaction {
    /// `version` is what the store was opened with.
    pub(crate) fn new(version: &Version, clock: &dyn Clock) -> Self {
        let noted = version.state.get(STATE_RETENTION_CLOCK);
        let noted = noted.and_then(|bytes| <[u8; 8]>::try_from(bytes.as_slice()).ok());
        Self {
            bell: Bell::default(),
            stopping: AtomicBool::new(false),
            stepping: Mutex::new(Memory {
                damaged: HashSet::new(),
                clock: RetentionClock {
                    noted_wall_ns: noted.map_or_else(|| clock.wall_ns(), i64::from_le_bytes),
                    noted_monotonic: clock.monotonic(),
                },
                retry_at: Duration::ZERO,
                scrub_at: None,
            }),
            stats: Mutex::default(),
            scrubbed_bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn stats(&self) -> CompactionStats {
        CompactionStats {
            scrubbed_bytes: self.scrubbed_bytes.load(Ordering::Relaxed),
            ..self.stats.lock().clone()
        }
    }
}

/// Rests between slices of work, and ends it when the store closes.
pub(super) struct Pace<'c> {
    core: &'c Core,
    effort: Effort,
    calls: u32,
    slice_from: Duration,
}

impl<'c> Pace<'c> {
    pub(super) fn new(core: &'c Core, effort: Effort) -> Self {
        Self {
            core,
            effort,
            calls: 0,
            slice_from: core.clock.monotonic(),
        }
    }

    fn step(&mut self) -> Result<(), Error> {
        self.calls += 1;
        if self.calls.is_multiple_of(SERIES_PER_LOOK) {
            self.look()?;
        }
        Ok(())
    }

    pub(super) fn look(&mut self) -> Result<(), Error> {
        let compaction = &self.core.compaction;
        if compaction.stopping.load(Ordering::Acquire) {
            return Err(Error::Cancelled);
        }
        if self.effort == Effort::Full {
            return Ok(());
        }
        if self.core.clock.monotonic().saturating_sub(self.slice_from) >= SLICE {
            compaction.bell.wait(SLICE);
            self.slice_from = self.core.clock.monotonic();
        }
        Ok(())
    }
}

impl Core {
    /// Merges until nothing is left to do.
    ///
    /// # Errors
    /// As [`compact_step`](Self::compact_step). What was merged before stays so.
    pub(crate) fn compact(&self) -> Result<Compacted, Error> {
        let mut all = Compacted::default();
        while let Some(done) = self.compact_step(Effort::Full)? {
            all.add(done);
        }
        Ok(all)
    }

    /// Does what is due: retention, one merge, the scrub. Returns whether there may be more.
    pub(crate) fn compaction_tick(&self) -> bool {
        if self.files.manifest.read_only().is_some() {
            return false;
        }
        let now = self.clock.monotonic();
        let known_damage = {
            let memory = self.compaction.stepping.lock();
            if now < memory.retry_at {
                return false;
            }
            memory.damaged.len()
        };
        let stepped = self.apply_retention().and_then(|()| {
            let effort = if self.committer.disk.is_low() {
                Effort::Purge
            } else {
                Effort::Background
            };
            self.compact_step(effort)
        });
        let goes_on = match stepped {
            Ok(done) => {
                self.compaction.stats.lock().last_error = None;
                done.is_some()
            }
            Err(Error::Cancelled) => false,
            Err(error) => {
                self.compaction.stats.lock().last_error = Some(error.to_string());
                let mut memory = self.compaction.stepping.lock();
                // A block that was set aside makes the next step another one.
                let goes_on = memory.damaged.len() > known_damage;
                if !goes_on {
                    memory.retry_at = now.saturating_add(RETRY_AFTER);
                }
                goes_on
            }
        };
        if !goes_on {
            self.scrub_if_due();
        }
        goes_on
    }

    /// Carries out the next merge. `None`: nothing is left to do.
    ///
    /// # Errors
    /// [`Error::ReadOnly`]. [`Error::CorruptBlock`] for a source that cannot be read; it is left alone
    /// from then on. [`Error::Storage`] and those of the manifest. Nothing has changed then.
    pub(crate) fn compact_step(&self, effort: Effort) -> Result<Option<Compacted>, Error> {
        if let Some(reason) = self.files.manifest.read_only() {
            return Err(Error::ReadOnly { reason });
        }
        let mut memory = self.compaction.stepping.lock();
        let started = self.clock.monotonic();
        // Deletes up to here are in the view that is read after it, and no snapshot will be older.
        let visible = self.committer.visibility.visible();
        let clean_lsn = visible.min(self.committer.wal.durable_lsn());
        let view = self.committer.store.view();
        let deletes: Vec<Tombstone> = view
            .metrics
            .tombstones
            .iter()
            .filter(|t| t.lsn <= clean_lsn)
            .cloned()
            .collect();
        self.note_clean_blocks(&view.metrics, &deletes, clean_lsn, &mut memory)?;
        let view = self.committer.store.view();
        let view = &view.metrics;
        let mut metas: Vec<&BlockMeta> = view.blocks.iter().map(|block| block.meta()).collect();
        // A block that does not open may be mended one day: nothing merges past it.
        let version = self.files.manifest.version();
        let is_shown = |id: BlockId| view.blocks.iter().any(|block| block.meta().id == id);
        let absent = version
            .blocks
            .values()
            .filter(|meta| meta.signal == Signal::Metrics && !is_shown(meta.id));
        let absent: Vec<&BlockMeta> = absent.collect();
        metas.extend(&absent);
        let pending: Vec<PendingDelete> = deletes
            .iter()
            .map(|t| PendingDelete {
                lsn: t.lsn,
                range: t.range,
            })
            .collect();
        let is_sound = |meta: &BlockMeta| {
            !memory.damaged.contains(&meta.id) && !absent.iter().any(|other| other.id == meta.id)
        };
        let plan_for = |effort| planner::plan(&metas, &is_sound, &pending, effort);
        let mut plan = plan_for(effort);
        // Sources go once what replaces them is there. What has no room for that would fill the disk
        // only to fail.
        if effort == Effort::Background
            && let Some(large) = &plan
        {
            let sources = metas.iter().filter(|meta| large.sources.contains(&meta.id));
            let bytes: u64 = sources.map(|meta| meta.file_bytes).sum();
            if bytes > self.committer.disk.spare_bytes() {
                plan = plan_for(Effort::Purge);
            }
        }
        let Some(plan) = plan else {
            let done = self.compact_spans_step(effort, &mut memory)?;
            if let Some(done) = done {
                self.count_merge(done, started);
            }
            return Ok(done);
        };
        let done = self.carry_out(view, &plan, &deletes, clean_lsn, effort);
        if let Err(error) = &done
            && error.kind() == ErrorKind::Corrupted
        {
            self.set_aside(view, &plan, error, &mut memory);
        }
        let done = done?;
        self.count_merge(done, started);
        Ok(Some(done))
    }

    fn count_merge(&self, done: Compacted, started: Duration) {
        let mut stats = self.compaction.stats.lock();
        stats.done.add(done);
        stats.last = self.clock.monotonic().saturating_sub(started);
    }

    /// Writes the merged block and publishes it.
    fn carry_out(
        &self,
        view: &MetricView,
        plan: &Plan,
        deletes: &[Tombstone],
        clean_lsn: Lsn,
        effort: Effort,
    ) -> Result<Compacted, Error> {
        let sources: Vec<Arc<MetricBlock>> = view
            .blocks
            .iter()
            .filter(|block| plan.sources.contains(&block.meta().id))
            .cloned()
            .collect();
        let store = self.store_id();
        let merged = self.merge(view, plan, &sources, deletes, clean_lsn, effort, store)?;
        let published = self.publish_merge(&sources, merged.as_ref(), store);
        if let Err(error) = published {
            // An edit that may hold after the next open needs its files.
            if error.kind() != ErrorKind::Closed {
                self.files.remove_blocks(merged.iter().map(|meta| meta.id));
            }
            return Err(error);
        }
        self.retire(sources.iter().map(|block| block.block()));
        let held = sources.iter().map(|block| block.meta());
        let held = held.map(|meta| meta.file_bytes + meta.series * HELD_SERIES_BYTES);
        allocator::freed(held.sum());
        Ok(Compacted {
            merges: 1,
            blocks_before: sources.len() as u64,
            blocks_after: u64::from(merged.is_some()),
            bytes_before: sources.iter().map(|block| block.meta().file_bytes).sum(),
            bytes_after: merged.map_or(0, |meta| meta.file_bytes),
        })
    }

    /// `None` if nothing is left of the sources.
    #[expect(clippy::too_many_arguments, reason = "one merge and what it stands on")]
    fn merge(
        &self,
        view: &MetricView,
        plan: &Plan,
        sources: &[Arc<MetricBlock>],
        deletes: &[Tombstone],
        clean_lsn: Lsn,
        effort: Effort,
        store: StoreId,
    ) -> Result<Option<BlockMeta>, Error> {
        let metas = || sources.iter().map(|block| block.meta());
        let files = &self.files;
        let id = files.manifest.next_block_id();
        let mut writer = MetricBlockWriter::create(&files.storage, &files.blocks_dir, store, id)?;
        writer.charge_to(&files.budget);
        let mut strings_bytes = 0;
        for source in sources {
            strings_bytes += source.block().section(SectionKind::Strings)?.len_bytes();
        }
        let merging_bytes = strings_bytes * STRING_COPIES + sources.len() as u64 * SOURCE_BYTES;
        let _held = files.budget.charged(Holder::Sealing, merging_bytes);
        let mut outputs = [MergeOutput {
            range: TimeRange::ALL,
            writer,
        }];
        let mut symbols = Symbols::new();
        let mut pace = Pace::new(self, effort);
        merge(
            sources,
            deletes,
            view.floor_ns,
            &mut outputs,
            &mut symbols,
            &mut || pace.step(),
        )?;
        let lsn = |of: fn(&BlockMeta) -> Lsn| metas().map(of);
        let last_lsn = lsn(|m| m.last_lsn).max().unwrap_or(Lsn::ZERO);
        let origin = BlockOrigin {
            first_lsn: lsn(|m| m.first_lsn).min().unwrap_or(Lsn::ZERO),
            last_lsn,
            clean_lsn: clean_lsn.max(last_lsn),
            level: plan.level,
            sources: plan.sources.clone(),
            created_ns: self.clock.wall_ns(),
            spanning: planner::makes_spanning(metas()),
        };
        let [MergeOutput { writer, .. }] = outputs;
        writer.finish(&symbols, origin)
    }

    fn publish_merge(
        &self,
        sources: &[Arc<MetricBlock>],
        merged: Option<&BlockMeta>,
        store: StoreId,
    ) -> Result<(), Error> {
        let opened = match merged {
            Some(meta) => Some(self.files.open_block(meta.id, Some(store))?),
            None => None,
        };
        let dropped: Vec<BlockId> = sources.iter().map(|block| block.meta().id).collect();
        self.files.publish(
            &self.committer.store,
            |version, view| {
                let mut changes: Vec<Change> =
                    dropped.iter().copied().map(Change::DropBlock).collect();
                changes.extend(merged.cloned().map(Change::AddBlock));
                changes.extend(spare_tombstones(version, &view.metrics, &dropped, merged));
                if merged.is_none() {
                    changes.extend(files::carry_metadata(version, &view.metrics, sources));
                }
                Ok(changes)
            },
            |view| {
                view.metrics
                    .blocks
                    .retain(|block| !dropped.contains(&block.meta().id));
                view.metrics.blocks.extend(opened);
            },
        )?;
        Ok(())
    }

    /// Blocks in whose time a delete lies but none of whose series it concerns are as clean as if they
    /// had been rewritten: the manifest is told so, and the delete can be forgotten in the end.
    fn note_clean_blocks(
        &self,
        view: &MetricView,
        deletes: &[Tombstone],
        clean_lsn: Lsn,
        memory: &mut Memory,
    ) -> Result<(), Error> {
        let mut clean: Vec<Arc<MetricBlock>> = Vec::new();
        for block in &view.blocks {
            let meta = block.meta();
            let concern = deletes
                .iter()
                .filter(|t| t.lsn > meta.clean_lsn && t.range.overlaps(meta.time));
            let mut count = 0;
            let mut is_hit = memory.damaged.contains(&meta.id);
            for delete in concern {
                count += 1;
                match block.select(&delete.matchers, &mut || true) {
                    Ok(rows) => is_hit |= !rows.is_empty(),
                    Err(error) if error.kind() == ErrorKind::Corrupted => {
                        self.files
                            .note_damage(&error, block.block().path().to_owned());
                        memory.damaged.insert(meta.id);
                        is_hit = true;
                    }
                    Err(error) => return Err(error),
                }
                if is_hit {
                    break;
                }
            }
            if count > 0 && !is_hit {
                clean.push(Arc::clone(block));
            }
        }
        if clean.is_empty() {
            return Ok(());
        }
        let noted = clean
            .iter()
            .map(|block| Ok(Arc::new(block.with_clean_lsn(clean_lsn)?)))
            .collect::<Result<Vec<Arc<MetricBlock>>, Error>>()?;
        self.files.publish(
            &self.committer.store,
            |version, view| {
                let mut changes = Vec::new();
                for block in &noted {
                    changes.push(Change::DropBlock(block.meta().id));
                    changes.push(Change::AddBlock(block.meta().clone()));
                }
                let metas: Vec<BlockMeta> = noted.iter().map(|b| b.meta().clone()).collect();
                let dropped: Vec<BlockId> = metas.iter().map(|meta| meta.id).collect();
                changes.extend(spare_tombstones(version, &view.metrics, &dropped, &metas));
                Ok(changes)
            },
            |view| {
                for block in &mut view.metrics.blocks {
                    if let Some(noted) = noted.iter().find(|n| n.meta().id == block.meta().id) {
                        *block = Arc::clone(noted);
                    }
                }
            },
        )?;
        Ok(())
    }

    /// Remembers the source that a merge could not read.
    fn set_aside(&self, view: &MetricView, plan: &Plan, error: &Error, memory: &mut Memory) {
        let Error::CorruptBlock { path, .. } = error else {
            // Not known which: none of them is tried again.
            memory.damaged.extend(&plan.sources);
            return;
        };
        self.files.note_damage(error, path.clone());
        let sources = view
            .blocks
            .iter()
            .filter(|block| plan.sources.contains(&block.meta().id));
        for block in sources {
            if block.block().path() == path {
                memory.damaged.insert(block.meta().id);
                return;
            }
        }
        memory.damaged.extend(&plan.sources);
    }

    /// Removes files of blocks that the manifest no longer names. Who still reads them keeps them open.
    pub(super) fn retire<'b>(&self, blocks: impl Iterator<Item = &'b Arc<Block>>) {
        let kept_open = blocks
            .filter(|block| block.keep_open().is_ok())
            .map(|block| block.meta().id);
        // One that cannot be kept open stays until the next open of the store.
        self.files.remove_blocks(kept_open);
    }

    pub(super) fn store_id(&self) -> StoreId {
        StoreFiles::store_id(&self.files.manifest.version())
            .unwrap_or_else(|| self.committer.wal.store_id())
    }

    /// What must hold before the first write: the floor as of now. What fails is tried again later.
    pub(crate) fn start_retention(&self) {
        if self.files.manifest.read_only().is_none()
            && let Err(error) = self.apply_retention()
        {
            self.compaction.stats.lock().last_error = Some(error.to_string());
        }
    }

    /// Raises the floor and drops what lies below it.
    fn apply_retention(&self) -> Result<(), Error> {
        let limits = retention::Limits {
            age: self.settings.retention_age,
            bytes: self.settings.retention_bytes,
        };
        if limits == retention::Limits::default() {
            return Ok(());
        }
        let mut memory = self.compaction.stepping.lock();
        let (wall_ns, monotonic) = (self.clock.wall_ns(), self.clock.monotonic());
        let (now_ns, jumped) = memory.clock.now_ns(wall_ns, monotonic);
        self.compaction.stats.lock().retention_paused = jumped;
        let view = self.committer.store.view();
        let of_spans = view.spans.blocks.iter().map(|part| &part.meta);
        let metas = view.metrics.blocks.iter().map(|block| block.meta());
        let metas: Vec<&BlockMeta> = metas.chain(of_spans).collect();
        let floor = view.metrics.floor_ns.max(view.spans.floor_ns);
        let plan = retention::plan(&metas, limits, floor.map(Timestamp::from_nanos), now_ns);
        let note_ns = memory.clock.note_ns(wall_ns, monotonic);
        let notes_clock = note_ns.saturating_sub(memory.clock.noted_wall_ns) >= CLOCK_NOTE_NS;
        if plan.floor.is_none() && plan.drop.is_empty() && !notes_clock {
            return Ok(());
        }
        let floor_ns = plan.floor.map(Timestamp::as_nanos);
        // Late samples and spans below the floor are refused from before it is shown.
        if let Some(floor_ns) = floor_ns {
            view.metrics.current.raise_floor(floor_ns);
            self.files
                .hold_still(|_| self.committer.raise_span_floor(floor_ns))?;
        }
        let goes = |id: BlockId| plan.drop.contains(&id);
        let metrics = view.metrics.blocks.iter();
        let metrics = metrics.filter(|block| goes(block.meta().id));
        let metrics: Vec<Arc<MetricBlock>> = metrics.cloned().collect();
        let mut retired: Vec<Arc<Block>> = metrics
            .iter()
            .map(|block| Arc::clone(block.block()))
            .collect();
        for part in view.spans.blocks.iter().filter(|part| goes(part.meta.id)) {
            if self.may_retire(part)? {
                retired.push(Arc::clone(part.block.block()));
            }
        }
        drop(view);
        let dropped: Vec<BlockId> = retired.iter().map(|block| block.meta().id).collect();
        self.files.publish(
            &self.committer.store,
            |version, view| {
                let mut changes = vec![Change::SetState {
                    name: STATE_RETENTION_CLOCK.to_owned(),
                    value: note_ns.to_le_bytes().to_vec(),
                }];
                for signal in [Signal::Metrics, Signal::Spans] {
                    changes
                        .extend(floor_ns.map(|time_ns| Change::RetentionFloor { signal, time_ns }));
                }
                changes.extend(dropped.iter().copied().map(Change::DropBlock));
                changes.extend(files::carry_metadata(version, &view.metrics, &metrics));
                let none = None::<&BlockMeta>;
                changes.extend(spare_tombstones(version, &view.metrics, &dropped, none));
                changes.extend(spare_span_tombstones(version, &view.spans, &dropped, none));
                Ok(changes)
            },
            |view| {
                if floor_ns.is_some() {
                    view.metrics.floor_ns = floor_ns;
                }
                let stays = |id: BlockId| !dropped.contains(&id);
                view.metrics.blocks.retain(|block| stays(block.meta().id));
                view.spans.blocks.retain(|part| stays(part.meta.id));
            },
        )?;
        memory.clock = RetentionClock {
            noted_wall_ns: note_ns,
            noted_monotonic: monotonic,
        };
        self.retire(retired.iter());
        let mut stats = self.compaction.stats.lock();
        stats.retired_blocks += retired.len() as u64;
        stats.retired_bytes += retired
            .iter()
            .map(|block| block.meta().file_bytes)
            .sum::<u64>();
        Ok(())
    }

    /// Reads and verifies all blocks if that was last done long enough ago.
    fn scrub_if_due(&self) {
        let Some(interval) = self.settings.scrub_interval else {
            return;
        };
        let now = self.clock.monotonic();
        {
            let mut memory = self.compaction.stepping.lock();
            let at = *memory
                .scrub_at
                .get_or_insert_with(|| now.saturating_add(interval));
            if now < at {
                return;
            }
            memory.scrub_at = Some(now.saturating_add(interval));
        }
        // Stopped on the way, it counts as not done.
        if self.scrub().is_ok() {
            self.compaction.stats.lock().scrubs += 1;
        }
    }

    /// Reads and verifies all blocks; damage is noted.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when the store closes.
    pub(crate) fn scrub(&self) -> Result<(), Error> {
        let view = self.committer.store.view();
        let metrics = view.metrics.blocks.iter();
        let metrics = metrics.map(|block| Arc::clone(block.block()));
        let spans = view.spans.blocks.iter();
        let spans = spans.map(|part| Arc::clone(part.block.block()));
        let blocks: Vec<Arc<Block>> = metrics.chain(spans).collect();
        drop(view);
        let mut pace = Pace::new(self, Effort::Background);
        let mut unrested = 0;
        for block in blocks {
            let path = block.path().to_owned();
            let mut damage = Vec::new();
            let mut rest = |bytes: u64| {
                self.compaction
                    .scrubbed_bytes
                    .fetch_add(bytes, Ordering::Relaxed);
                unrested += bytes;
                if unrested >= SCRUB_BYTES_PER_REST {
                    unrested = 0;
                    pace.look()?;
                }
                Ok(())
            };
            block.verify(&mut rest, &mut |found| damage.push(found))?;
            for found in damage {
                let error = Error::CorruptBlock {
                    path: path.clone(),
                    offset_bytes: found.offset_bytes,
                    reason: format!("{}: {}", found.place, found.reason),
                };
                self.files.note_damage(&error, path.clone());
            }
        }
        Ok(())
    }
}

/// The tombstones that no block needs once `dropped` are gone and `added` are there.
fn spare_tombstones<'a>(
    version: &Version,
    view: &MetricView,
    dropped: &[BlockId],
    added: impl IntoIterator<Item = &'a BlockMeta>,
) -> Vec<Change> {
    let mut after = version.clone();
    after.blocks.retain(|id, _| !dropped.contains(id));
    after
        .blocks
        .extend(added.into_iter().map(|meta| (meta.id, meta.clone())));
    // A frozen generation becomes blocks that need them.
    let by_frozen = |t: &Tombstone| view.frozen.iter().any(|frozen| frozen.cut < t.lsn);
    version
        .tombstones
        .iter()
        .filter(|t| !files::is_needed(&after, t) && !by_frozen(t))
        .map(|t| Change::DropTombstone(t.lsn))
        .collect()
}

/// The thread that merges. Dropping it ends it, and the merge it is at.
#[derive(Debug)]
pub(crate) struct Compactor {
    core: Arc<Core>,
    thread: BackgroundThread,
}

impl Compactor {
    /// # Errors
    /// [`Error::Storage`] if the system has no thread.
    pub(crate) fn start(core: &Arc<Core>) -> Result<Self, Error> {
        Ok(Self {
            core: Arc::clone(core),
            thread: BackgroundThread::start(core, "rootline-compaction", run)?,
        })
    }

    /// Ends the thread; a merge under way is given up.
    pub(crate) fn stop(&self) {
        self.core.compaction.stopping.store(true, Ordering::Release);
        self.core.compaction.bell.ring();
        self.thread.join();
    }
}

impl Drop for Compactor {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(core: &Core) {
    while !core.compaction.stopping.load(Ordering::Acquire) {
        if !core.compaction_tick() {
            core.compaction.bell.wait(core.clock.wait_bound(TICK));
        }
    }
}
