//! Merging blocks of spans.
//!
//! A merge leaves out what is hidden from every snapshot to come and not needed any more: traces that
//! a newer block supersedes, deletes that are visible when it begins, expired traces. What an unsealed
//! generation has recalled stays, even if it has expired: after a crash it is recalled again from here.
//! What is hidden merely because it was recalled stays too.

use std::{path::PathBuf, sync::Arc};

use rootline_wal::Lsn;

use super::{
    planner::{Effort, Plan},
    span_planner::{self, SpanCandidate},
    worker::{Compacted, Memory, Pace},
};
use crate::{
    block::{BlockId, BlockMeta, Signal},
    budget::Holder,
    error::{Error, ErrorKind},
    files,
    id::TraceId,
    maintenance::Core,
    manifest::{Change, Version},
    span::{
        SpanBlockPart, SpanView,
        block::{SpanBlockOrigin, merge},
    },
};

/// What merging holds of a span, about: one column at a time of all sources, and its order.
const HELD_SPAN_BYTES: u64 = 32;

impl Core {
    /// Carries out the next merge of spans. `None`: nothing is left to do.
    ///
    /// # Errors
    /// As [`compact_step`](Self::compact_step).
    pub(super) fn compact_spans_step(
        &self,
        effort: Effort,
        memory: &mut Memory,
    ) -> Result<Option<Compacted>, Error> {
        // Deletes up to here are in the view that is read after it, and no snapshot will be older.
        let visible = self.committer.visibility.visible();
        let clean_lsn = visible.min(self.committer.wal.durable_lsn());
        let view = self.committer.store.view();
        if view.spans.blocks.is_empty() {
            return Ok(None);
        }
        let waiting = self.note_clean_span_blocks(&view.spans, clean_lsn)?;
        let view = self.committer.store.view();
        let view = &view.spans;
        let version = self.files.manifest.version();
        let mut removable = Vec::with_capacity(view.blocks.len());
        for part in &view.blocks {
            removable.push(self.removable_rows(view, part)?);
        }
        let plan_for = |effort| plan(view, &removable, &version, &waiting, memory, effort);
        let mut plan = plan_for(effort);
        // What has no room would fill the disk only to fail.
        if effort == Effort::Background
            && let Some(large) = &plan
            && Self::source_bytes(view, large) > self.committer.disk.spare_bytes()
        {
            plan = plan_for(Effort::Purge);
        }
        let Some(plan) = plan else {
            return Ok(None);
        };
        let done = self.merge_spans(view, &plan, clean_lsn, effort);
        if let Err(error) = &done
            && error.kind() == ErrorKind::Corrupted
        {
            self.set_span_blocks_aside(view, &plan, error, memory);
        }
        done.map(Some)
    }

    /// Whether nothing needs a block whose time is up: no unsealed generation, and no older block that
    /// has traces that this one hides there. (Such a block is rewritten, and only its list stays.) Asked
    /// once the floor is shown: then no write recalls anything more from it.
    pub(super) fn may_retire(&self, part: &SpanBlockPart) -> Result<bool, Error> {
        let view = self.committer.store.view();
        let older = view.spans.blocks.iter();
        let older = older.filter(|other| other.meta.last_lsn < part.meta.last_lsn);
        let older: Vec<&Arc<SpanBlockPart>> = older.collect();
        let version = self.files.manifest.version();
        let named = version.blocks.values();
        let named = named.filter(|meta| meta.signal == Signal::Spans).count();
        let has_unread = named > view.spans.blocks.len();
        let mut superseded = part.block.superseded().iter();
        let hides =
            |id: &TraceId| has_unread || older.iter().any(|other| other.block.may_have_trace(*id));
        if superseded.any(hides) {
            return Ok(false);
        }
        match view.spans.recalled_from(&part.block) {
            Ok(recalled) => Ok(!recalled),
            Err(error) if error.kind() == ErrorKind::Corrupted => {
                let path = part.block.block().path().to_owned();
                self.files.note_damage(&error, path);
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// How many rows hidden for good a merge would leave out.
    fn removable_rows(&self, view: &SpanView, part: &SpanBlockPart) -> Result<u64, Error> {
        let hidden = part.fixed().rows.len();
        if !span_planner::is_much(hidden, &part.meta) {
            return Ok(hidden);
        }
        // Some of it may have to stay.
        let mut damaged = |error: Error| self.files.note_damage(&error, PathBuf::new());
        match part.removable(view, Lsn::ZERO, &mut damaged) {
            Ok(hidden) => Ok(hidden.rows.len()),
            Err(error) if error.kind() == ErrorKind::Corrupted => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn source_bytes(view: &SpanView, plan: &Plan) -> u64 {
        let metas = view.blocks.iter().map(|part| &part.meta);
        let sources = metas.filter(|meta| plan.sources.contains(&meta.id));
        sources.map(|meta| meta.file_bytes).sum()
    }

    fn merge_spans(
        &self,
        view: &SpanView,
        plan: &Plan,
        clean_lsn: Lsn,
        effort: Effort,
    ) -> Result<Compacted, Error> {
        let is_source = |part: &&Arc<SpanBlockPart>| plan.sources.contains(&part.meta.id);
        let sources: Vec<Arc<SpanBlockPart>> =
            view.blocks.iter().filter(is_source).cloned().collect();
        let metas = || sources.iter().map(|part| &part.meta);
        let mut damaged = |error: Error| self.files.note_damage(&error, PathBuf::new());
        let mut inputs = Vec::with_capacity(sources.len());
        for part in &sources {
            let hidden = part.removable(view, clean_lsn, &mut damaged)?;
            inputs.push((Arc::clone(&part.block), Arc::new(hidden)));
        }
        let first = metas().map(|meta| meta.last_lsn).min().unwrap_or(Lsn::ZERO);
        let older = view.blocks.iter().filter(|part| part.meta.last_lsn < first);
        let older: Vec<&Arc<SpanBlockPart>> = older.collect();
        let version = self.files.manifest.version();
        let named = version.blocks.values();
        let named = named.filter(|meta| meta.signal == Signal::Spans).count();
        let has_unread = named > view.blocks.len();
        let is_kept = |id| has_unread || older.iter().any(|part| part.block.may_have_trace(id));
        let last_lsn = metas().map(|meta| meta.last_lsn).max().unwrap_or(Lsn::ZERO);
        let origin = SpanBlockOrigin {
            first_lsn: metas()
                .map(|meta| meta.first_lsn)
                .min()
                .unwrap_or(Lsn::ZERO),
            last_lsn,
            clean_lsn: clean_lsn.max(last_lsn),
            level: plan.level,
            sources: plan.sources.clone(),
            created_ns: self.clock.wall_ns(),
        };
        let spans: u64 = metas().map(|meta| meta.samples).sum();
        let held = self
            .files
            .budget
            .charged(Holder::Sealing, spans * HELD_SPAN_BYTES);
        let store = self.store_id();
        let mut pace = Pace::new(self, effort);
        let merged = merge(
            &self.files.storage,
            &self.files.blocks_dir,
            store,
            self.files.manifest.next_block_id(),
            &inputs,
            &is_kept,
            origin,
            &mut || pace.look(),
        )?;
        drop(held);
        if let Err(error) = self.publish_span_merge(&sources, merged.as_ref()) {
            // An edit that may hold after the next open needs its files.
            if error.kind() != ErrorKind::Closed {
                self.files.remove_blocks(merged.iter().map(|meta| meta.id));
            }
            return Err(error);
        }
        self.retire(sources.iter().map(|part| part.block.block()));
        crate::allocator::freed(spans * HELD_SPAN_BYTES);
        Ok(Compacted {
            merges: 1,
            blocks_before: sources.len() as u64,
            blocks_after: u64::from(merged.is_some()),
            bytes_before: metas().map(|meta| meta.file_bytes).sum(),
            bytes_after: merged.map_or(0, |meta| meta.file_bytes),
        })
    }

    fn publish_span_merge(
        &self,
        sources: &[Arc<SpanBlockPart>],
        merged: Option<&BlockMeta>,
    ) -> Result<(), Error> {
        let opened = match merged {
            Some(meta) => Some(self.files.open_span_block(meta.id, Some(self.store_id()))?),
            None => None,
        };
        let dropped: Vec<BlockId> = sources.iter().map(|part| part.meta.id).collect();
        let mut damaged = |error: Error| self.files.note_damage(&error, PathBuf::new());
        self.files.publish_made(
            &self.committer.store,
            |version, view| {
                let mut parts = view.spans.blocks.clone();
                let place = parts
                    .iter()
                    .position(|part| dropped.contains(&part.meta.id));
                parts.retain(|part| !dropped.contains(&part.meta.id));
                if let (Some(block), Some(place)) = (opened, place) {
                    let newer = parts.iter().skip(place).map(|part| &*part.block);
                    let (meta, floor_ns) = (block.meta().clone(), view.spans.floor_ns);
                    let part = SpanBlockPart::new(block, meta, newer, floor_ns, &mut damaged)?;
                    parts.insert(place, Arc::new(part));
                }
                let mut changes: Vec<Change> =
                    dropped.iter().copied().map(Change::DropBlock).collect();
                changes.extend(merged.cloned().map(Change::AddBlock));
                changes.extend(spare_span_tombstones(
                    version,
                    &view.spans,
                    &dropped,
                    merged,
                ));
                Ok((changes, parts))
            },
            |view, parts| view.spans.blocks = parts,
        )?;
        Ok(())
    }

    /// Finds the blocks of which a delete hides something. The manifest is told of those that deletes wait
    /// for and hide nothing of: they are as clean as if they had been rewritten.
    fn note_clean_span_blocks(
        &self,
        view: &SpanView,
        clean_lsn: Lsn,
    ) -> Result<Vec<BlockId>, Error> {
        let mut damaged = |error: Error| self.files.note_damage(&error, PathBuf::new());
        let (mut hit, mut clean) = (Vec::new(), Vec::new());
        for part in &view.blocks {
            match part.is_hit(view, clean_lsn, &mut damaged)? {
                Some(true) => hit.push(part.meta.id),
                Some(false) => clean.push(part.meta.id),
                None => {}
            }
        }
        if clean.is_empty() {
            return Ok(hit);
        }
        self.files.publish_made(
            &self.committer.store,
            |version, view| {
                let mut parts = view.spans.blocks.clone();
                let mut metas = Vec::new();
                let mut changes = Vec::new();
                for part in &mut parts {
                    if clean.contains(&part.meta.id) {
                        *part = Arc::new(part.clean_up_to(clean_lsn));
                        changes.push(Change::DropBlock(part.meta.id));
                        changes.push(Change::AddBlock(part.meta.clone()));
                        metas.push(part.meta.clone());
                    }
                }
                changes.extend(spare_span_tombstones(version, &view.spans, &clean, &metas));
                Ok((changes, parts))
            },
            |view, parts| view.spans.blocks = parts,
        )?;
        Ok(hit)
    }

    /// Remembers the source that a merge could not read.
    fn set_span_blocks_aside(
        &self,
        view: &SpanView,
        plan: &Plan,
        error: &Error,
        memory: &mut Memory,
    ) {
        let sources = view.blocks.iter();
        let sources = sources.filter(|part| plan.sources.contains(&part.meta.id));
        if let Error::CorruptBlock { path, .. } = error {
            self.files.note_damage(error, path.clone());
            let mut found = sources.filter(|part| part.block.block().path() == path);
            if let Some(part) = found.next() {
                memory.damaged.insert(part.meta.id);
                return;
            }
        }
        // Not known which: none of them is tried again.
        memory.damaged.extend(&plan.sources);
    }
}

fn plan(
    view: &SpanView,
    removable: &[u64],
    version: &Version,
    waiting: &[BlockId],
    memory: &Memory,
    effort: Effort,
) -> Option<Plan> {
    let is_shown = |id: BlockId| view.blocks.iter().any(|part| part.meta.id == id);
    let shown = view.blocks.iter().zip(removable);
    let shown = shown.map(|(part, &hidden)| SpanCandidate {
        meta: &part.meta,
        is_sound: !memory.damaged.contains(&part.meta.id),
        hidden,
        has_deleted: waiting.contains(&part.meta.id),
    });
    // A block that does not open may be mended one day: nothing is merged past it.
    let absent = version.blocks.values();
    let absent = absent.filter(|meta| meta.signal == Signal::Spans && !is_shown(meta.id));
    let absent = absent.map(|meta| SpanCandidate {
        meta,
        is_sound: false,
        hidden: 0,
        has_deleted: false,
    });
    let mut blocks: Vec<SpanCandidate<'_>> = shown.chain(absent).collect();
    blocks.sort_by_key(|block| (block.meta.last_lsn, block.meta.id));
    span_planner::plan(&blocks, effort)
}

/// The deletes of spans that no block needs once `dropped` are gone and `added` are there.
pub(super) fn spare_span_tombstones<'a>(
    version: &Version,
    view: &SpanView,
    dropped: &[BlockId],
    added: impl IntoIterator<Item = &'a BlockMeta>,
) -> Vec<Change> {
    let mut after = version.clone();
    after.blocks.retain(|id, _| !dropped.contains(id));
    after
        .blocks
        .extend(added.into_iter().map(|meta| (meta.id, meta.clone())));
    // A frozen generation becomes a block that needs them.
    let by_frozen = |lsn: Lsn| view.frozen.iter().any(|frozen| frozen.cut < lsn);
    let spare = version.span_tombstones.iter();
    let spare = spare.filter(|t| !files::is_needed_for_spans(&after, t) && !by_frozen(t.lsn));
    spare.map(|t| Change::DropSpanTombstone(t.lsn)).collect()
}
