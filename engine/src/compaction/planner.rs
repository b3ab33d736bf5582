//! Which blocks are worth merging, and which may be: a pure function of their metadata.
//!
//! Blocks are ordered by their last LSN: of two that hold a sample of one series and time, the one
//! with the higher last LSN wins. Blocks of one sealing have the same and share no sample. A merged
//! block takes the highest of its sources, so a merge is right only if that moves it past no other
//! block: there must be no block B outside and no source S that share time with
//! `S.last_lsn < B.last_lsn <= max(last_lsn of the sources)`. That is what is meant by neighbours.
//!
//! What is merged
//! 1. Blocks of one UTC day: [`FAN_IN`] neighbours of one level become one of the next, so that a
//!    sample is rewritten once a level; and what is left of a day once data of a later time than
//!    [`DAY_SETTLED_AFTER_NS`] behind its end have come, unless it is little beside its largest block.
//! 2. Spanning blocks (days too sparse for a block of their own): [`FAN_IN`] neighbours of one level.
//! 3. Where days and spanning blocks lie across each other, neither finds neighbours. Once more than
//!    [`CROSSED_MAX`] blocks are left over so, some of them become one spanning block together with
//!    whatever stands between them: the fewest bytes for a file less go first.
//! 4. A block by itself that deletes still hide something of.
//!
//! Larger than [`MERGE_BYTES_MAX`] together, blocks are left alone: rewriting would cost more than
//! one file less is worth.

use rootline_wal::Lsn;

use crate::{
    block::{BlockId, BlockMeta},
    time::TimeRange,
};

/// Blocks of one level that become one of the next.
pub(crate) const FAN_IN: usize = 4;
/// How far behind a day's end data must have come for what is left of it to be merged.
pub(crate) const DAY_SETTLED_AFTER_NS: i64 = 2 * 3600 * NS_PER_S;
/// A settled day is merged once what came late is this part of what is there, one to this.
const LATE_SHARE: u64 = 4;
/// Bytes of blocks that are merged at most.
pub(crate) const MERGE_BYTES_MAX: u64 = 16 << 30;
/// Series of a block at most: rows of its index.
const MERGE_SERIES_MAX: u64 = rootline_index::disk::ROWS_MAX as u64;
/// Blocks that are merged at once at most: each is one open file and one cursor.
const MERGE_BLOCKS_MAX: usize = 32;
/// Blocks beyond one for each day that are left lying across each other.
pub(crate) const CROSSED_MAX: usize = 64;
/// Places that are looked at for a merge across days.
const CROSSED_LOOKS_MAX: usize = 256;

const NS_PER_S: i64 = 1_000_000_000;
const NS_PER_DAY: i64 = 24 * 3600 * NS_PER_S;

/// A delete, as far as planning goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingDelete {
    /// Its record.
    pub(crate) lsn: Lsn,
    /// The times it hides.
    pub(crate) range: TimeRange,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The blocks to merge, by rising last LSN. One alone is rewritten without what is deleted.
    pub(crate) sources: Vec<BlockId>,
    /// The level of what they become.
    pub(crate) level: u8,
}

/// How eager to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// What pays in the long run.
    Background,
    /// Whatever can be merged, as an operator asked for.
    Full,
    /// Only what frees space: the disk is full.
    Purge,
}

/// Finds the next merge, the one that frees most files for its bytes first. `None`: nothing is left to do.
///
/// Blocks that are not `sound` are left as they are, and stand in the way of others as before.
pub(crate) fn plan(
    blocks: &[&BlockMeta],
    sound: &dyn Fn(&BlockMeta) -> bool,
    deletes: &[PendingDelete],
    effort: Effort,
) -> Option<Plan> {
    let mut sorted: Vec<&BlockMeta> = blocks.to_vec();
    sorted.sort_by_key(|b| (b.last_lsn, b.id));
    let latest_ns = sorted.iter().map(|b| b.time.end().as_nanos()).max()?;
    let candidates: Vec<&BlockMeta> = sorted.iter().copied().filter(|b| sound(b)).collect();
    if effort == Effort::Purge {
        return purge(&candidates, deletes);
    }
    same_day(&sorted, &candidates, latest_ns, effort)
        .or_else(|| spanning(&sorted, &candidates, effort))
        .or_else(|| crossed(&sorted, &candidates))
        .or_else(|| purge(&candidates, deletes))
}

/// The UTC day of a block's first sample.
fn day(block: &BlockMeta) -> i64 {
    block.time.start().as_nanos().div_euclid(NS_PER_DAY)
}

/// Whether a block made of these holds more than one day.
pub(crate) fn makes_spanning<'b>(mut sources: impl Iterator<Item = &'b BlockMeta> + Clone) -> bool {
    let mut days = sources.clone().map(day);
    let first = days.next();
    days.any(|day| Some(day) != first) || sources.any(|b| b.spanning)
}

fn same_day(
    sorted: &[&BlockMeta],
    candidates: &[&BlockMeta],
    latest_ns: i64,
    effort: Effort,
) -> Option<Plan> {
    let mut by_day: Vec<(i64, &BlockMeta)> = candidates
        .iter()
        .filter(|b| !b.spanning)
        .map(|b| (day(b), *b))
        .collect();
    // Stable: inside a day the order of LSNs stays.
    by_day.sort_by_key(|(day, _)| *day);
    by_day
        .chunk_by(|(a, _), (b, _)| a == b)
        .filter(|group| group.len() > 1)
        .find_map(|group| {
            let blocks: Vec<&BlockMeta> = group.iter().map(|(_, block)| *block).collect();
            let day_end_ns = group
                .first()
                .map_or(i64::MAX, |(day, _)| (day + 1).saturating_mul(NS_PER_DAY));
            let is_settled = latest_ns >= day_end_ns.saturating_add(DAY_SETTLED_AFTER_NS);
            match effort {
                Effort::Full => merge_run(sorted, &blocks, |_| true),
                Effort::Background if is_settled => {
                    merge_run(sorted, &blocks, is_worth_it).or_else(|| level_run(sorted, &blocks))
                }
                Effort::Background | Effort::Purge => level_run(sorted, &blocks),
            }
        })
}

fn spanning(sorted: &[&BlockMeta], candidates: &[&BlockMeta], effort: Effort) -> Option<Plan> {
    let blocks: Vec<&BlockMeta> = candidates.iter().copied().filter(|b| b.spanning).collect();
    if effort == Effort::Full {
        return merge_run(sorted, &blocks, |_| true);
    }
    level_run(sorted, &blocks)
}

/// Blocks that only a merge across days makes fewer, with all that stands between them.
fn crossed(sorted: &[&BlockMeta], candidates: &[&BlockMeta]) -> Option<Plan> {
    // Of a day, or spanning; inside a group the order of LSNs stays.
    let mut grouped: Vec<(Option<i64>, &BlockMeta)> = candidates
        .iter()
        .map(|b| ((!b.spanning).then(|| day(b)), *b))
        .collect();
    grouped.sort_by_key(|(day, _)| *day);
    let groups = || grouped.chunk_by(|(a, _), (b, _)| a == b);
    let left_over: usize = groups().map(|group| group.len() - 1).sum();
    if left_over <= CROSSED_MAX {
        return None;
    }
    groups()
        .flat_map(|group| group.windows(group.len().min(FAN_IN)))
        .filter(|window| window.len() > 1)
        .take(CROSSED_LOOKS_MAX)
        .filter_map(|window| closed(sorted, window.iter().map(|(_, b)| *b).collect()))
        .filter(|sources| {
            sources
                .iter()
                .all(|s| candidates.iter().any(|c| c.id == s.id))
        })
        .min_by_key(|sources| {
            let bytes: u64 = sources.iter().map(|b| b.file_bytes).sum();
            bytes / (sources.len() as u64 - 1)
        })
        .and_then(|sources| accept(sorted, &sources))
}

/// `sources` and all that would have to be merged with them, by rising last LSN; `None` if that is too
/// much.
fn closed<'b>(
    sorted: &[&'b BlockMeta],
    mut sources: Vec<&'b BlockMeta>,
) -> Option<Vec<&'b BlockMeta>> {
    loop {
        let merged_last = sources.iter().map(|b| b.last_lsn).max()?;
        let stands_between = |other: &BlockMeta| {
            other.last_lsn <= merged_last
                && sources
                    .iter()
                    .any(|s| s.last_lsn < other.last_lsn && s.time.overlaps(other.time))
                && !sources.iter().any(|s| s.id == other.id)
        };
        let more: Vec<&BlockMeta> = sorted
            .iter()
            .copied()
            .filter(|b| stands_between(b))
            .collect();
        if more.is_empty() {
            sources.sort_by_key(|b| (b.last_lsn, b.id));
            return Some(sources);
        }
        sources.extend(more);
        if sources.len() > MERGE_BLOCKS_MAX {
            return None;
        }
    }
}

/// Whether the smaller ones together are a quarter of the largest at least: a trickle of late samples
/// does not have the whole day written again.
fn is_worth_it(blocks: &[&BlockMeta]) -> bool {
    let sum: u64 = blocks.iter().map(|b| b.file_bytes).sum();
    let largest = blocks.iter().map(|b| b.file_bytes).max().unwrap_or(0);
    (sum - largest).saturating_mul(LATE_SHARE) >= largest
}

/// The first [`FAN_IN`] neighbours in `candidates` that have one level.
fn level_run(all: &[&BlockMeta], candidates: &[&BlockMeta]) -> Option<Plan> {
    candidates
        .chunk_by(|a, b| a.level == b.level)
        .filter(|run| run.len() >= FAN_IN)
        .find_map(|run| run.windows(FAN_IN).find_map(|window| accept(all, window)))
}

/// The longest run at the start of `candidates`, or at the start of their rest, that may be merged.
fn merge_run(
    all: &[&BlockMeta],
    candidates: &[&BlockMeta],
    wanted: impl Fn(&[&BlockMeta]) -> bool,
) -> Option<Plan> {
    (0..candidates.len()).find_map(|first| {
        let rest = candidates.get(first..).unwrap_or_default();
        let longest = rest.len().min(MERGE_BLOCKS_MAX);
        (2..=longest)
            .rev()
            .filter_map(|count| rest.get(..count))
            .find_map(|run| wanted(run).then(|| accept(all, run)).flatten())
    })
}

/// A block that a delete still hides something of, perhaps.
fn purge(sorted: &[&BlockMeta], deletes: &[PendingDelete]) -> Option<Plan> {
    let hides = |d: &PendingDelete, b: &BlockMeta| d.lsn > b.clean_lsn && d.range.overlaps(b.time);
    let covers = |d: &PendingDelete, b: &BlockMeta| {
        hides(d, b) && d.range.start() <= b.time.start() && b.time.end() <= d.range.end()
    };
    // First what may leave nothing behind, then what takes the least room: on a full disk one that finds
    // no room must not stand before one that needs none.
    let block = sorted
        .iter()
        .filter(|block| deletes.iter().any(|delete| hides(delete, block)))
        .min_by_key(|block| {
            let is_covered = deletes.iter().any(|delete| covers(delete, block));
            (!is_covered, block.file_bytes, block.id)
        })?;
    Some(Plan {
        sources: vec![block.id],
        level: block.level,
    })
}

fn accept(all: &[&BlockMeta], sources: &[&BlockMeta]) -> Option<Plan> {
    let bytes: u64 = sources.iter().map(|b| b.file_bytes).sum();
    let series: u64 = sources.iter().map(|b| b.series).sum();
    if bytes > MERGE_BYTES_MAX || series > MERGE_SERIES_MAX || !are_neighbours(all, sources) {
        return None;
    }
    let level = sources.iter().map(|b| b.level).max()?.saturating_add(1);
    Some(Plan {
        sources: sources.iter().map(|b| b.id).collect(),
        level,
    })
}

/// Whether merging `sources` leaves every other block on its side of what they hold.
pub(crate) fn are_neighbours(all: &[&BlockMeta], sources: &[&BlockMeta]) -> bool {
    let Some(merged_last) = sources.iter().map(|b| b.last_lsn).max() else {
        return true;
    };
    all.iter()
        .filter(|other| other.last_lsn <= merged_last)
        .filter(|other| !sources.iter().any(|source| source.id == other.id))
        .all(|other| {
            sources
                .iter()
                .all(|s| s.last_lsn >= other.last_lsn || !s.time.overlaps(other.time))
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{block::Signal, time::Timestamp};

    const HOUR: i64 = 3600 * NS_PER_S;

    fn block(id: u64, lsns: (u64, u64), hours: (i64, i64)) -> BlockMeta {
        let time = |h: i64| Timestamp::from_nanos(h * HOUR);
        BlockMeta {
            id: BlockId(id),
            signal: Signal::Metrics,
            first_lsn: Lsn(lsns.0),
            last_lsn: Lsn(lsns.1),
            clean_lsn: Lsn(lsns.1),
            time: TimeRange::new(time(hours.0), time(hours.1)).unwrap(),
            level: 0,
            series: 1,
            samples: 1,
            sources: Vec::new(),
            created_ns: 0,
            spanning: false,
            file_bytes: 1000,
        }
    }

    fn spanning(id: u64, lsns: (u64, u64), hours: (i64, i64)) -> BlockMeta {
        BlockMeta {
            spanning: true,
            ..block(id, lsns, hours)
        }
    }

    fn ids(plan: Option<Plan>) -> Vec<u64> {
        plan.map_or_else(Vec::new, |p| p.sources.iter().map(|id| id.0).collect())
    }

    fn next(blocks: &[BlockMeta], effort: Effort) -> Vec<u64> {
        ids(plan(
            &blocks.iter().collect::<Vec<_>>(),
            &|_| true,
            &[],
            effort,
        ))
    }

    #[test]
    fn four_blocks_of_a_day_become_one_of_the_next_level() {
        let mut blocks: Vec<BlockMeta> = (0..3)
            .map(|i| {
                let at = i64::try_from(i).unwrap() * 2;
                block(i, (i * 10 + 1, i * 10 + 10), (at, at + 1))
            })
            .collect();
        assert_eq!(next(&blocks, Effort::Background), [0; 0]);
        assert_eq!(next(&blocks, Effort::Full), [0, 1, 2]);
        blocks.push(block(3, (31, 40), (6, 7)));
        let found = plan(
            &blocks.iter().collect::<Vec<_>>(),
            &|_| true,
            &[],
            Effort::Background,
        );
        assert_eq!(found.as_ref().map(|p| p.level), Some(1));
        assert_eq!(ids(found), [0, 1, 2, 3]);
    }

    #[test]
    fn what_is_left_of_a_day_is_merged_once_later_data_have_come() {
        let mut blocks = vec![block(1, (1, 10), (0, 5)), block(2, (11, 20), (6, 20))];
        blocks.push(block(3, (21, 30), (24, 25)));
        assert_eq!(next(&blocks, Effort::Background), [0; 0]);
        blocks.push(block(4, (31, 40), (26, 27)));
        assert_eq!(next(&blocks, Effort::Background), [1, 2]);
        blocks[0].file_bytes = 4001;
        assert_eq!(next(&blocks, Effort::Background), [0; 0]);
    }

    #[test]
    fn a_merge_never_passes_a_block_that_shares_time_with_an_older_source() {
        // 2 is newer than 1 and holds the same hours: 1 and 3 may not go past it.
        let blocks = [
            spanning(1, (1, 10), (0, 5)),
            block(2, (11, 20), (3, 4)),
            spanning(3, (21, 30), (30, 40)),
        ];
        assert_eq!(next(&blocks, Effort::Full), [0; 0]);
        // If the newer source alone shares its time, it stays newer.
        let blocks = [
            spanning(1, (1, 10), (0, 2)),
            block(2, (11, 20), (3, 4)),
            spanning(3, (21, 30), (3, 40)),
        ];
        assert_eq!(next(&blocks, Effort::Full), [1, 3]);
    }

    #[test]
    fn blocks_of_one_sealing_do_not_stand_in_each_others_way() {
        let blocks = [
            block(1, (1, 10), (0, 5)),
            spanning(2, (1, 10), (-100, 100)),
            block(3, (11, 20), (6, 8)),
        ];
        assert_eq!(next(&blocks, Effort::Full), [1, 3]);
    }

    #[test]
    fn a_block_with_deleted_samples_is_rewritten_alone_until_it_is_clean() {
        let mut one = block(1, (1, 10), (0, 5));
        let delete = |lsn: u64, hours: (i64, i64)| PendingDelete {
            lsn: Lsn(lsn),
            range: block(0, (1, 1), hours).time,
        };
        let found =
            |b: &BlockMeta, d: PendingDelete| ids(plan(&[b], &|_| true, &[d], Effort::Background));
        assert_eq!(found(&one, delete(11, (5, 9))), [1]);
        assert_eq!(found(&one, delete(11, (6, 9))), [0; 0]);
        assert_eq!(found(&one, delete(10, (0, 9))), [0; 0]);
        one.clean_lsn = Lsn(11);
        assert_eq!(found(&one, delete(11, (0, 9))), [0; 0]);
    }

    #[test]
    fn blocks_too_large_together_are_left_alone() {
        let mut blocks = [block(1, (1, 10), (0, 5)), block(2, (11, 20), (6, 20))];
        blocks[0].file_bytes = MERGE_BYTES_MAX;
        assert_eq!(next(&blocks, Effort::Full), [0; 0]);
    }

    /// Seals a busy day and scattered samples again and again; every plan is carried out.
    fn seal_across(seals: u64, days: i64) -> (usize, u64, u64) {
        let mut blocks: Vec<BlockMeta> = Vec::new();
        let (mut next_id, mut written, mut rewritten) = (0, 0, 0);
        let mut random = 12_345u64;
        for seal in 1..=seals {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let at = i64::try_from(random >> 33).unwrap() % days * 24;
            for mut meta in [
                block(0, (seal, seal), (at, at + 20)),
                spanning(0, (seal, seal), (1, days * 24 - 1)),
            ] {
                next_id += 1;
                meta.id = BlockId(next_id);
                written += meta.file_bytes;
                blocks.push(meta);
            }
            while let Some(plan) = plan(
                &blocks.iter().collect::<Vec<_>>(),
                &|_| true,
                &[],
                Effort::Background,
            ) {
                let (sources, rest): (Vec<_>, Vec<_>) = blocks
                    .into_iter()
                    .partition(|b| plan.sources.contains(&b.id));
                blocks = rest;
                next_id += 1;
                let time = |of: fn(&BlockMeta) -> i64| sources.iter().map(of);
                let first = time(|b| b.time.start().as_nanos()).min().unwrap();
                let last = time(|b| b.time.end().as_nanos()).max().unwrap();
                let lsn = sources.iter().map(|b| b.last_lsn.0).max().unwrap();
                let mut merged = block(next_id, (1, lsn), (first / HOUR, last / HOUR));
                merged.spanning = makes_spanning(sources.iter());
                merged.level = plan.level;
                merged.file_bytes = sources.iter().map(|b| b.file_bytes).sum();
                rewritten += merged.file_bytes;
                blocks.push(merged);
            }
        }
        (blocks.len(), written, rewritten)
    }

    #[test]
    fn days_and_spanning_blocks_across_each_other_stay_few() {
        for (seals, days) in [(200, 1), (400, 7), (400, 60), (1000, 60)] {
            let (blocks, written, rewritten) = seal_across(seals, days);
            let bound = usize::try_from(days).unwrap() + CROSSED_MAX + 1;
            assert!(
                blocks <= bound,
                "{blocks} of {seals} seals over {days} days"
            );
            let amplification = rewritten / written;
            assert!(
                amplification <= 8,
                "{amplification} times rewritten, {days} days"
            );
        }
    }

    proptest! {
        /// Carries plans out on blocks that remember for every hour which sealing wrote it last.
        #[test]
        fn any_sequence_of_merges_keeps_the_last_write_of_every_hour(
            seals in prop::collection::vec(prop::collection::vec((0i64..80, any::<bool>()), 1..6), 1..30),
            eager in any::<bool>(),
        ) {
            type Hours = std::collections::BTreeMap<i64, u64>;
            let mut blocks: Vec<(BlockMeta, Hours)> = Vec::new();
            let mut next_id = 0;
            let mut truth = Hours::new();
            let effort = if eager { Effort::Full } else { Effort::Background };
            for (seal, hours) in seals.iter().enumerate() {
                let lsn = seal as u64 + 1;
                let mut days: std::collections::BTreeMap<Option<i64>, Hours> = std::collections::BTreeMap::default();
                for (hour, sparse) in hours {
                    truth.insert(*hour, lsn);
                    // A whole day goes one way.
                    let sparse = *sparse && !days.contains_key(&Some(hour / 24));
                    let own = days.keys().flatten().all(|d| *d != hour / 24) && sparse;
                    let in_spanning = days.get(&None).is_some_and(|h| h.keys().any(|x| x / 24 == hour / 24));
                    let key = if own || in_spanning { None } else { Some(hour / 24) };
                    days.entry(key).or_default().insert(*hour, lsn);
                }
                for (day, hours) in days {
                    next_id += 1;
                    let ends = (*hours.keys().next().unwrap(), *hours.keys().last().unwrap());
                    let mut meta = block(next_id, (lsn, lsn), ends);
                    meta.spanning = day.is_none();
                    blocks.push((meta, hours));
                }
                let mut rounds = 0;
                while let Some(plan) = plan(&blocks.iter().map(|b| &b.0).collect::<Vec<_>>(), &|_| true, &[], effort) {
                    rounds += 1;
                    prop_assert!(rounds < 100, "planning ends");
                    let (mut sources, rest): (Vec<_>, Vec<_>) =
                        blocks.into_iter().partition(|b| plan.sources.contains(&b.0.id));
                    blocks = rest;
                    sources.sort_by_key(|b| b.0.last_lsn);
                    let mut merged = Hours::new();
                    for (_, hours) in &sources {
                        merged.extend(hours.iter().map(|(h, l)| (*h, *l)));
                    }
                    next_id += 1;
                    let ends = (*merged.keys().next().unwrap(), *merged.keys().last().unwrap());
                    let last = sources.iter().map(|b| b.0.last_lsn.0).max().unwrap();
                    let first = sources.iter().map(|b| b.0.first_lsn.0).min().unwrap();
                    let mut meta = block(next_id, (first, last), ends);
                    meta.spanning = makes_spanning(sources.iter().map(|b| &b.0));
                    meta.level = plan.level;
                    blocks.push((meta, merged));
                }
                let mut answer = Hours::new();
                let mut order: Vec<_> = blocks.iter().collect();
                order.sort_by_key(|b| b.0.last_lsn);
                for (_, hours) in order {
                    answer.extend(hours.iter().map(|(h, l)| (*h, *l)));
                }
                prop_assert_eq!(&answer, &truth);
            }
        }
    }
}
