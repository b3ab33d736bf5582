//! What a snapshot reads spans from: the parts of the store as they were when it was taken.
//!
//! A *part* is a block, or one shard of a generation: blocks first, then frozen generations, then the
//! current one. Every trace that a snapshot sees lies whole in exactly one part, the newest that has it
//! (`recall.rs` says how that is kept true), so answers of parts are added up.
//!
//! A view never changes: freezing, sealing, compaction and deletes put another in its place. What the
//! parts of one view hide depends on the LSN of the snapshot as well.
//!
//! What is hidden of a block
//! - for good: traces that a newer block lists as superseded, and those that ended before the floor of
//!   retention. Found once, when the view is made that has the block and the reason;
//! - for snapshots from some LSN on: traces that a generation recalled, and what deletes hide that the
//!   block does not have applied. It only grows with the LSN, so each block remembers the newest few
//!   versions that it was asked for, and a snapshot older than those is answered from scratch.
//!
//! Invariants
//! - `frozen` rises by cut, and is newer than every block; `blocks` rise by their last LSN.
//! - A visible delete is applied in every generation, and listed in `tombstones` as long as a block needs
//!   it.
//!
//! Locks: what a block remembers is a leaf, held while pages are read.

use std::sync::Arc;

use parking_lot::Mutex;
use roaring::RoaringBitmap;
use rootline_wal::Lsn;

use super::{Hidden, SpanBlock, SpanFilter, SpanHead, SpanPart, block::TraceCursor};
use crate::{
    block::BlockMeta,
    control::QueryControl,
    error::{Error, ErrorKind},
    id::TraceId,
    tombstone::{SpanDelete, SpanTombstone},
};

/// A generation that takes no more spans.
#[derive(Clone, Debug)]
pub(crate) struct FrozenSpans {
    /// Its spans. Deletes and recalls after the cut are marked in it all the same.
    pub(crate) head: Arc<SpanHead>,
    /// The last record before it was frozen.
    pub(crate) cut: Lsn,
}

/// A block, and what is hidden of it.
#[derive(Debug)]
pub(crate) struct SpanBlockPart {
    pub(crate) block: Arc<SpanBlock>,
    /// As the manifest has it: deletes up to its `clean_lsn` are applied, or hide nothing.
    pub(crate) meta: BlockMeta,
    /// Hidden for good, from every snapshot of the views that have this part.
    fixed: Arc<Hidden>,
    newest: Mutex<Newest>,
}

/// What is hidden from the newest snapshots that asked.
#[derive(Debug)]
struct Newest {
    /// Up to here all that hides something is in the last version.
    at: Lsn,
    /// By rising LSN; one at least.
    versions: Vec<HiddenSince>,
}

/// What is hidden from snapshots between two LSNs.
#[derive(Clone, Debug)]
struct HiddenSince {
    /// The last record that hides something of it.
    from: Lsn,
    /// The first that hides more, if it is known.
    until: Lsn,
    hidden: Arc<Hidden>,
}

/// Versions that a block remembers.
const VERSIONS_MAX: usize = 8;

/// A part as a snapshot sees it.
#[derive(Clone, Debug)]
pub(crate) enum ViewPart {
    /// A block and what is hidden of it.
    Block(Arc<SpanBlock>, Arc<Hidden>),
    /// A generation, to be read as of the snapshot.
    Head(Arc<SpanHead>),
}

/// See the module's doc.
#[derive(Clone, Debug)]
pub(crate) struct SpanView {
    /// By rising last LSN.
    pub(crate) blocks: Vec<Arc<SpanBlockPart>>,
    /// Oldest first.
    pub(crate) frozen: Vec<FrozenSpans>,
    /// The generation that takes writes.
    pub(crate) current: Arc<SpanHead>,
    /// Deletes that some block does not have applied, or may not once it is sealed; by rising LSN.
    pub(crate) tombstones: Arc<[SpanTombstone]>,
    /// Retention: traces that ended before this time are not shown.
    pub(crate) floor_ns: Option<i64>,
}

/// Where damage goes that hides from us what is to be hidden.
pub(crate) type Damaged<'d> = &'d mut dyn FnMut(Error);

/// Hands damage on; other errors end the work.
fn unless_damaged<T>(found: Result<T, Error>, damaged: Damaged<'_>) -> Result<Option<T>, Error> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::Corrupted => {
            damaged(error);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl SpanBlockPart {
    /// A block below `newer` ones, with what is hidden of it for good.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn new<'n>(
        block: Arc<SpanBlock>,
        meta: BlockMeta,
        newer: impl Iterator<Item = &'n SpanBlock>,
        floor_ns: Option<i64>,
        damaged: Damaged<'_>,
    ) -> Result<Self, Error> {
        let mut hidden = Hidden::default();
        for id in newer.flat_map(SpanBlock::superseded) {
            unless_damaged(hidden.hide_trace(&block, *id), damaged)?;
        }
        if let Some(floor_ns) = floor_ns {
            unless_damaged(hide_expired(&block, floor_ns, &mut hidden), damaged)?;
        }
        Ok(Self::with(block, meta, Arc::new(hidden)))
    }

    fn with(block: Arc<SpanBlock>, meta: BlockMeta, fixed: Arc<Hidden>) -> Self {
        let newest = Newest {
            at: Lsn::ZERO,
            versions: vec![HiddenSince {
                from: Lsn::ZERO,
                until: Lsn(u64::MAX),
                hidden: Arc::clone(&fixed),
            }],
        };
        Self {
            block,
            meta,
            fixed,
            newest: Mutex::new(newest),
        }
    }

    /// The same block, for views with a newer block that supersedes these traces. `None` if it has none.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn superseded_by(
        &self,
        traces: &[TraceId],
        damaged: Damaged<'_>,
    ) -> Result<Option<Self>, Error> {
        let mut hidden = Hidden::clone(&self.fixed);
        let mut changed = false;
        for id in traces {
            let hides = unless_damaged(hidden.hide_trace(&self.block, *id), damaged)?;
            changed |= hides.unwrap_or(false);
        }
        let (block, meta) = (Arc::clone(&self.block), self.meta.clone());
        Ok(changed.then(|| Self::with(block, meta, Arc::new(hidden))))
    }

    /// The same block, for views with a higher floor.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn above(&self, floor_ns: i64, damaged: Damaged<'_>) -> Result<Option<Self>, Error> {
        if self.meta.time.start().as_nanos() >= floor_ns {
            return Ok(None);
        }
        let mut hidden = Hidden::clone(&self.fixed);
        unless_damaged(hide_expired(&self.block, floor_ns, &mut hidden), damaged)?;
        let (block, meta) = (Arc::clone(&self.block), self.meta.clone());
        Ok(Some(Self::with(block, meta, Arc::new(hidden))))
    }

    /// The same block, with deletes up to `clean_lsn` known to hide nothing more of it.
    pub(crate) fn clean_up_to(&self, clean_lsn: Lsn) -> Self {
        let meta = BlockMeta {
            clean_lsn,
            ..self.meta.clone()
        };
        Self::with(Arc::clone(&self.block), meta, Arc::clone(&self.fixed))
    }

    /// What is hidden for good.
    pub(crate) fn fixed(&self) -> &Arc<Hidden> {
        &self.fixed
    }

    /// What a snapshot of `view`, which has this part, does not see at `at`.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn hidden(
        &self,
        view: &SpanView,
        at: Lsn,
        damaged: Damaged<'_>,
    ) -> Result<Arc<Hidden>, Error> {
        let mut newest = self.newest.lock();
        if at <= newest.at {
            let holds = |version: &&HiddenSince| version.from <= at && at < version.until;
            if let Some(known) = newest.versions.iter().find(holds) {
                return Ok(Arc::clone(&known.hidden));
            }
            drop(newest);
            let mut hidden = Arc::clone(&self.fixed);
            self.hide_between(view, Lsn::ZERO, at, &mut hidden, damaged)?;
            return Ok(hidden);
        }
        let Newest {
            at: known,
            versions,
        } = &mut *newest;
        let last = versions.last().map(|version| Arc::clone(&version.hidden));
        let mut hidden = last.unwrap_or_else(|| Arc::clone(&self.fixed));
        let hides = self.hide_between(view, *known, at, &mut hidden, damaged)?;
        if let Some((first, last)) = hides {
            if let Some(before) = versions.last_mut() {
                before.until = first;
            }
            if versions.len() >= VERSIONS_MAX {
                versions.remove(0);
            }
            versions.push(HiddenSince {
                from: last,
                until: Lsn(u64::MAX),
                hidden: Arc::clone(&hidden),
            });
        }
        *known = at;
        Ok(hidden)
    }

    /// What a merge may leave out: what no snapshot will see that opens later, and what no unsealed
    /// generation needs for replay. Deletes up to `clean_lsn` are visible.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`], [`Error::Storage`].
    pub(crate) fn removable(
        &self,
        view: &SpanView,
        clean_lsn: Lsn,
        damaged: Damaged<'_>,
    ) -> Result<Hidden, Error> {
        let mut hidden = Arc::clone(&self.fixed);
        let newer = view.blocks.iter();
        let newer = newer.filter(|part| part.meta.last_lsn > self.meta.last_lsn);
        let newer: Vec<&SpanBlock> = newer.map(|part| &*part.block).collect();
        for id in view.recalled() {
            if !self.block.may_have_trace(id) {
                continue;
            }
            let mut is_newest = true;
            for block in &newer {
                is_newest &= block.superseded().binary_search(&id).is_err()
                    && (!block.may_have_trace(id) || block.find_trace(id)?.is_none());
            }
            if let (true, Some(trace)) = (is_newest, self.block.find_trace(id)?) {
                let rows = self.block.trace_rows(trace)?;
                Arc::make_mut(&mut hidden).rows.remove_range(rows);
            }
        }
        self.hide_deleted(view, Lsn::ZERO, clean_lsn, &mut hidden, damaged)?;
        Ok(Arc::unwrap_or_clone(hidden))
    }

    /// Whether deletes up to `clean_lsn` that the block does not have applied hide anything of it; `None`
    /// if there are none.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn is_hit(
        &self,
        view: &SpanView,
        clean_lsn: Lsn,
        damaged: Damaged<'_>,
    ) -> Result<Option<bool>, Error> {
        if self.waiting(view, Lsn::ZERO, clean_lsn).next().is_none() {
            return Ok(None);
        }
        let mut hidden = Arc::default();
        let mut is_damaged = false;
        let noted = &mut |error| {
            is_damaged = true;
            damaged(error);
        };
        self.hide_deleted(view, Lsn::ZERO, clean_lsn, &mut hidden, noted)?;
        Ok(Some(is_damaged || !hidden.rows.is_empty()))
    }

    /// Hides what is hidden from snapshots at `at` and was not from those at `after`. Returns the first
    /// and the last record that may hide something of it.
    fn hide_between(
        &self,
        view: &SpanView,
        after: Lsn,
        at: Lsn,
        hidden: &mut Arc<Hidden>,
        damaged: Damaged<'_>,
    ) -> Result<Option<(Lsn, Lsn)>, Error> {
        let mut traces = Vec::new();
        let mut ends: Option<(Lsn, Lsn)> = None;
        let mut reach = |lsn: Lsn| {
            let (first, last) = ends.unwrap_or((lsn, lsn));
            ends = Some((first.min(lsn), last.max(lsn)));
        };
        for head in view
            .frozen
            .iter()
            .map(|frozen| &frozen.head)
            .chain([&view.current])
        {
            head.recalled_between(after, at, &mut |lsn, id| traces.push((lsn, id)));
        }
        for (lsn, id) in traces {
            if self.block.may_have_trace(id) {
                reach(lsn);
                self.hide_trace(id, hidden, damaged)?;
            }
        }
        let deletes = self.waiting(view, after, at);
        deletes.for_each(|tombstone| reach(tombstone.lsn));
        self.hide_deleted(view, after, at, hidden, damaged)?;
        Ok(ends)
    }

    /// The deletes after `after` and up to `at` that the block does not have applied.
    fn waiting<'v>(
        &self,
        view: &'v SpanView,
        after: Lsn,
        at: Lsn,
    ) -> impl Iterator<Item = &'v SpanTombstone> {
        let after = after.max(self.meta.clean_lsn);
        let deletes = view.tombstones.iter();
        deletes.filter(move |t| t.lsn > after && t.lsn <= at)
    }

    /// The same for deletes alone.
    fn hide_deleted(
        &self,
        view: &SpanView,
        after: Lsn,
        at: Lsn,
        hidden: &mut Arc<Hidden>,
        damaged: Damaged<'_>,
    ) -> Result<(), Error> {
        for tombstone in self.waiting(view, after, at) {
            match &tombstone.delete {
                SpanDelete::Trace(id) => self.hide_trace(*id, hidden, damaged)?,
                SpanDelete::Matching(filter) => {
                    let found = matching(&self.block, filter);
                    if let Some(rows) = unless_damaged(found, damaged)? {
                        if rows.is_empty() {
                            continue;
                        }
                        let hides = Arc::make_mut(hidden).hide_rows(&self.block, &rows);
                        unless_damaged(hides, damaged)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn hide_trace(
        &self,
        id: TraceId,
        hidden: &mut Arc<Hidden>,
        damaged: Damaged<'_>,
    ) -> Result<(), Error> {
        if self.block.may_have_trace(id) {
            let hides = Arc::make_mut(hidden).hide_trace(&self.block, id);
            unless_damaged(hides, damaged)?;
        }
        Ok(())
    }
}

/// The rows of a block that match.
fn matching(block: &Arc<SpanBlock>, filter: &SpanFilter) -> Result<RoaringBitmap, Error> {
    let part = SpanPart::of_block(Arc::clone(block), Arc::default());
    let found = part.select(filter, &QueryControl::unbounded())?;
    Ok(found.as_bitmap().clone())
}

/// Hides the traces that ended before the floor.
fn hide_expired(block: &SpanBlock, floor_ns: i64, hidden: &mut Hidden) -> Result<(), Error> {
    let time = block.meta().time;
    if time.start().as_nanos() >= floor_ns {
        return Ok(());
    }
    if time.end().as_nanos() < floor_ns {
        hidden.rows.insert_range(0..block.rows());
        hidden.partial.clear();
        return Ok(());
    }
    let mut cursor = TraceCursor::default();
    for trace in 0..block.traces() {
        // Traces are sorted by start.
        let (start_ns, end_ns) = block.trace_bounds_with(trace, &mut cursor)?;
        if start_ns >= floor_ns {
            break;
        }
        if end_ns < floor_ns {
            hidden
                .rows
                .insert_range(block.trace_rows_with(trace, &mut cursor)?);
            hidden.partial.remove(trace);
        }
    }
    Ok(())
}

impl SpanView {
    /// A view of one generation alone.
    pub(crate) fn of(current: Arc<SpanHead>) -> Self {
        Self {
            blocks: Vec::new(),
            frozen: Vec::new(),
            current,
            tombstones: Arc::from([]),
            floor_ns: None,
        }
    }

    /// The parts as a snapshot at `at` sees them, oldest first.
    ///
    /// # Errors
    /// [`Error::Storage`]. Damage goes to `damaged`: what it keeps from being hidden is shown.
    pub(crate) fn parts(&self, at: Lsn, damaged: Damaged<'_>) -> Result<Vec<ViewPart>, Error> {
        let mut parts = Vec::with_capacity(self.blocks.len() + self.frozen.len() + 1);
        for part in &self.blocks {
            let hidden = part.hidden(self, at, damaged)?;
            parts.push(ViewPart::Block(Arc::clone(&part.block), hidden));
        }
        let frozen = self.frozen.iter().map(|frozen| Arc::clone(&frozen.head));
        parts.extend(frozen.map(ViewPart::Head));
        parts.push(ViewPart::Head(Arc::clone(&self.current)));
        Ok(parts)
    }

    /// An upper bound of the spans of one trace.
    pub(crate) fn spans_in_largest_part(&self, current: &SpanHead) -> u64 {
        let heads = self.frozen.iter().map(|frozen| &*frozen.head);
        let rows = heads.chain([current]).map(SpanHead::rows_in_largest_shard);
        let blocks = self.blocks.iter().map(|part| u64::from(part.block.rows()));
        rows.chain(blocks).max().unwrap_or(0)
    }

    /// How many spans the newest part older than the current generation has of a trace, hidden ones
    /// included.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`], [`Error::Storage`].
    pub(crate) fn trace_rows(&self, id: TraceId) -> Result<u64, Error> {
        let mut frozen = self.frozen.iter().rev();
        if let Some(rows) = frozen.find_map(|frozen| frozen.head.trace_rows(id)) {
            return Ok(u64::from(rows));
        }
        for part in self.blocks.iter().rev() {
            if part.block.may_have_trace(id)
                && let Some(trace) = part.block.find_trace(id)?
            {
                let rows = part.block.trace_rows(trace)?;
                return Ok(u64::from(rows.end - rows.start));
            }
        }
        Ok(0)
    }

    /// Traces that ended before this are not shown any more.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn raise_floor(&mut self, floor_ns: i64, damaged: Damaged<'_>) -> Result<(), Error> {
        if self.floor_ns.is_some_and(|floor| floor >= floor_ns) {
            return Ok(());
        }
        for part in &mut self.blocks {
            if let Some(above) = part.above(floor_ns, damaged)? {
                *part = Arc::new(above);
            }
        }
        self.floor_ns = Some(floor_ns);
        Ok(())
    }

    /// Whether there is nothing but the current generation.
    pub(crate) fn is_young(&self) -> bool {
        self.frozen.is_empty() && self.blocks.is_empty()
    }

    /// Whether some unsealed generation has recalled a trace that the block has: then what the block has
    /// of it is needed until that generation is sealed.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`], [`Error::Storage`].
    pub(crate) fn recalled_from(&self, block: &SpanBlock) -> Result<bool, Error> {
        for id in self.recalled() {
            if block.may_have_trace(id) && block.find_trace(id)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The traces that unsealed generations have recalled.
    pub(crate) fn recalled(&self) -> Vec<TraceId> {
        let mut recalled = Vec::new();
        for head in self
            .frozen
            .iter()
            .map(|frozen| &frozen.head)
            .chain([&self.current])
        {
            head.recalled_between(Lsn::ZERO, Lsn(u64::MAX), &mut |_, id| recalled.push(id));
        }
        recalled
    }
}
