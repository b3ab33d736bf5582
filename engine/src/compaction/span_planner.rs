//! Which blocks of spans to merge next: a pure function of what is known of them.
//!
//! Blocks stand in the order of their last LSN, and only *neighbours* in it are merged. Why any order of
//! such merges keeps answers right: blocks know of each other through their lists of superseded traces
//! alone, and a list hides its traces in all blocks before it. A merged block takes the last place of
//! its sources, and no other block lies between them; so each list still comes after the same blocks.
//! What a list of one source hides in another source is left out while merging. What stays in the list
//! is what a block before all of the sources may have. Times play no part: a trace is whole in one
//! block, and whole traces are moved.
//!
//! What is merged
//! 1. [`FAN_IN`] neighbours of one level become one of the next, so that a span is rewritten once a
//!    level, up to [`SPANS_MAX`] spans: four such blocks hold what one query can scan in time, and more
//!    would gain little.
//! 2. A block by itself, if a delete still hides something of it, or if more than one row in
//!    [`HIDDEN_SHARE`] is hidden for good.
//!
//! An operator may have all neighbours merged that fit together.

use super::planner::{Effort, Plan};
use crate::block::BlockMeta;

/// Blocks of one level that become one of the next.
const FAN_IN: usize = 8;
/// Spans of a merged block at most.
pub(crate) const SPANS_MAX: u64 = 4_000_000;
/// A block is rewritten when more than one row in so many is hidden for good.
const HIDDEN_SHARE: u64 = 4;

/// What is known of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpanCandidate<'b> {
    pub(crate) meta: &'b BlockMeta,
    /// It can be read. One that cannot is left as it is, and nothing is merged past it.
    pub(crate) is_sound: bool,
    /// Rows hidden for good that may go.
    pub(crate) hidden: u64,
    /// A delete waits to be carried out in it.
    pub(crate) has_deleted: bool,
}

impl SpanCandidate<'_> {
    fn live(&self) -> u64 {
        self.meta.samples.saturating_sub(self.hidden)
    }
}

/// Finds the next merge among blocks by rising last LSN. `None`: nothing is left to do.
pub(crate) fn plan(blocks: &[SpanCandidate<'_>], effort: Effort) -> Option<Plan> {
    if effort == Effort::Purge {
        return purge(blocks);
    }
    let stretches = || blocks.split(|block| !block.is_sound);
    if effort == Effort::Full
        && let Some(run) = stretches().find_map(longest_run)
    {
        return Some(merged(run));
    }
    let of_a_level = stretches().flat_map(|sound| {
        let mut levels: Vec<_> = sound
            .chunk_by(|a, b| a.meta.level == b.meta.level)
            .collect();
        // Those merged least often are the smallest.
        levels.sort_by_key(|run| run.first().map(|block| block.meta.level));
        levels
    });
    of_a_level
        .filter(|run| run.len() >= FAN_IN)
        .find_map(fitting)
        .map(merged)
        .or_else(|| purge(blocks))
}

/// The first neighbours that may be merged of a run of one level.
fn fitting<'r, 'b>(run: &'r [SpanCandidate<'b>]) -> Option<&'r [SpanCandidate<'b>]> {
    (0..=run.len() - FAN_IN).find_map(|first| {
        let window = run.get(first..first + FAN_IN)?;
        let window = window.get(..fits(window))?;
        (window.len() * 2 >= FAN_IN).then_some(window)
    })
}

/// The first two or more neighbours that fit together, as many as do.
fn longest_run<'r, 'b>(sound: &'r [SpanCandidate<'b>]) -> Option<&'r [SpanCandidate<'b>]> {
    (0..sound.len()).find_map(|first| {
        let rest = sound.get(first..)?;
        let run = rest.get(..fits(rest))?;
        (run.len() > 1).then_some(run)
    })
}

/// How many of the first blocks fit into one.
fn fits(blocks: &[SpanCandidate<'_>]) -> usize {
    let mut sum = 0u64;
    let room = blocks.iter().take_while(|block| {
        sum = sum.saturating_add(block.live());
        sum <= SPANS_MAX
    });
    room.count()
}

fn merged(run: &[SpanCandidate<'_>]) -> Plan {
    let level = run.iter().map(|block| block.meta.level).max().unwrap_or(0);
    Plan {
        sources: run.iter().map(|block| block.meta.id).collect(),
        level: level.saturating_add(1),
    }
}

/// Whether so many rows of a block make it worth rewriting.
pub(crate) fn is_much(hidden: u64, meta: &BlockMeta) -> bool {
    hidden > meta.samples / HIDDEN_SHARE
}

/// A block to be rewritten alone: what may leave nothing behind first, then the smallest, so that on a
/// full disk one that finds no room does not stand before one that needs none.
fn purge(blocks: &[SpanCandidate<'_>]) -> Option<Plan> {
    let is_due = |block: &&SpanCandidate<'_>| {
        block.is_sound && (block.has_deleted || is_much(block.hidden, block.meta))
    };
    let due = blocks.iter().filter(is_due);
    let block = due.min_by_key(|block| (block.live(), block.meta.id))?;
    Some(Plan {
        sources: vec![block.meta.id],
        level: block.meta.level,
    })
}

#[cfg(test)]
mod tests {
    use rootline_wal::Lsn;

    use super::*;
    use crate::{
        block::{BlockId, Signal},
        time::{TimeRange, Timestamp},
    };

    fn block(id: u64, level: u8, spans: u64) -> BlockMeta {
        let at = Timestamp::from_nanos(0);
        BlockMeta {
            id: BlockId(id),
            signal: Signal::Spans,
            first_lsn: Lsn(id),
            last_lsn: Lsn(id),
            clean_lsn: Lsn(id),
            time: TimeRange::new(at, at).unwrap(),
            level,
            series: 1,
            samples: spans,
            sources: Vec::new(),
            created_ns: 0,
            spanning: false,
            file_bytes: spans,
        }
    }

    fn sound(meta: &BlockMeta) -> SpanCandidate<'_> {
        SpanCandidate {
            meta,
            is_sound: true,
            hidden: 0,
            has_deleted: false,
        }
    }

    fn next(blocks: &[SpanCandidate<'_>], effort: Effort) -> (Vec<u64>, u8) {
        let plan = plan(blocks, effort);
        let ids = |plan: &Plan| plan.sources.iter().map(|id| id.0).collect();
        plan.map_or((Vec::new(), 0), |plan| (ids(&plan), plan.level))
    }

    #[test]
    fn eight_neighbours_of_a_level_become_one_of_the_next() {
        let metas: Vec<BlockMeta> = (1..=10)
            .map(|id| block(id, u8::from(id < 3), 100))
            .collect();
        let blocks: Vec<_> = metas.iter().map(sound).collect();
        assert_eq!(next(&blocks[..9], Effort::Background), (vec![], 0));
        let eight = (3..=10).collect();
        assert_eq!(next(&blocks, Effort::Background), (eight, 1));
        assert_eq!(next(&blocks, Effort::Full), ((1..=10).collect(), 2));
    }

    #[test]
    fn nothing_is_merged_past_a_block_that_cannot_be_read() {
        let metas: Vec<BlockMeta> = (1..=9).map(|id| block(id, 0, 100)).collect();
        let mut blocks: Vec<_> = metas.iter().map(sound).collect();
        blocks[4].is_sound = false;
        assert_eq!(next(&blocks, Effort::Background), (vec![], 0));
        assert_eq!(next(&blocks, Effort::Full), (vec![1, 2, 3, 4], 1));
    }

    #[test]
    fn merged_blocks_stay_within_their_bound() {
        let metas: Vec<BlockMeta> = (1..=8).map(|id| block(id, 1, SPANS_MAX / 5)).collect();
        let blocks: Vec<_> = metas.iter().map(sound).collect();
        assert_eq!(next(&blocks, Effort::Background), ((1..=5).collect(), 2));
        let large = [block(1, 0, SPANS_MAX), block(2, 0, 1)];
        let large: Vec<_> = large.iter().map(sound).collect();
        assert_eq!(next(&large, Effort::Full), (vec![], 0));
    }

    #[test]
    fn a_block_with_deleted_or_many_hidden_spans_is_rewritten_alone() {
        let metas = [block(1, 3, 100), block(2, 2, 100), block(3, 1, 100)];
        let mut blocks: Vec<_> = metas.iter().map(sound).collect();
        assert_eq!(next(&blocks, Effort::Purge), (vec![], 0));
        blocks[0].has_deleted = true;
        assert_eq!(next(&blocks, Effort::Background), (vec![1], 3));
        blocks[1].hidden = 26;
        assert_eq!(next(&blocks, Effort::Purge), (vec![2], 2));
        blocks[1].hidden = 25;
        assert_eq!(next(&blocks, Effort::Purge), (vec![1], 3));
    }
}
