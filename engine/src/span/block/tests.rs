//! Blocks against the head they were made of: every trace comes back as it was sent.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::{path::Path, sync::Arc};

use proptest::prelude::*;
use rootline_wal::{Lsn, PowerCutStorage, Storage, StoreId};

use super::{
    super::{
        SpanHead,
        hidden::Hidden,
        model::Trace,
        tests::{Op, apply_all, control, new_head, ops, plain, write},
    },
    *,
};
use crate::{
    block::{Block, BlockId, SectionKind},
    id::TraceId,
};

const DIR: &str = "/blocks";

fn storage() -> Arc<dyn Storage> {
    let storage: Arc<dyn Storage> = Arc::new(PowerCutStorage::new());
    storage.create_dir_all(Path::new(DIR)).unwrap();
    storage
}

fn store() -> StoreId {
    StoreId::from_bytes([7; 16])
}

fn origin() -> SpanBlockOrigin {
    SpanBlockOrigin {
        first_lsn: Lsn(1),
        last_lsn: Lsn(9),
        clean_lsn: Lsn(9),
        level: 0,
        sources: Vec::new(),
        created_ns: 0,
    }
}

fn go() -> impl FnMut() -> Result<(), crate::error::Error> {
    || Ok(())
}

fn open(storage: &Arc<dyn Storage>, id: u64) -> SpanBlock {
    let block = Block::open(
        storage,
        Path::new(DIR),
        Some(store()),
        BlockId(id),
        &Arc::default(),
    );
    SpanBlock::open(Arc::new(block.unwrap()), None).unwrap()
}

fn whole(loose: &LooseRows) -> Vec<RowRun> {
    vec![RowRun {
        source: 0,
        first_row: 0,
        rows: loose.rows(),
    }]
}

/// The head's spans at an LSN as a block; `None` if there are none.
fn sealed(storage: &Arc<dyn Storage>, id: u64, head: &SpanHead, at: Lsn) -> Option<SpanBlock> {
    let loose = LooseRows::from_head(head, at, &mut go()).unwrap();
    let meta = write_block(
        storage,
        Path::new(DIR),
        store(),
        BlockId(id),
        &[RowSource::Loose(&loose)],
        &whole(&loose),
        &[],
        origin(),
        &mut go(),
    );
    meta.unwrap().map(|_| open(storage, id))
}

fn ids_of(ops: &[Op]) -> Vec<TraceId> {
    let mut ids: Vec<TraceId> = ops
        .iter()
        .flat_map(|op| match op {
            Op::Write(spans) => spans.iter().map(|span| span.trace_id).collect(),
            Op::Delete(id) => vec![*id],
        })
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn trace_of(block: &SpanBlock, id: TraceId) -> Option<Trace> {
    let trace = block.find_trace(id).unwrap()?;
    assert_eq!(block.trace_id(trace).unwrap(), id);
    let read = block.trace(trace, &Hidden::default(), &control()).unwrap();
    let bounds = block.trace_bounds(trace).unwrap();
    let starts = read.spans.iter().map(|span| span.start.as_nanos());
    let ends = read.spans.iter().map(|span| span.end.as_nanos());
    assert_eq!(bounds, (starts.min().unwrap(), ends.max().unwrap()));
    Some(read)
}

/// Rows are in the order that is promised, and what the columns say of the tree agrees with the spans.
fn check_structure(block: &SpanBlock) {
    let mut cursor = RowCursor::new(block);
    let mut counts = vec![0u64; block.classes().len()];
    let mut before = None;
    for trace in 0..block.traces() {
        let rows = block.trace_rows(trace).unwrap();
        let key = (
            block.trace_bounds(trace).unwrap().0,
            block.trace_id(trace).unwrap(),
        );
        assert!(before < Some(key), "traces rise by (start, id)");
        before = Some(key);
        let mut roots = Vec::new();
        for row in rows.clone() {
            assert_eq!(block.trace_of_row(row).unwrap(), trace);
            counts[cursor.class(row).unwrap() as usize] += 1;
            let subtree = cursor.subtree(row).unwrap();
            let key = (cursor.start_ns(row).unwrap(), block.span_id(row).unwrap());
            let mut children = Vec::new();
            for other in rows.clone() {
                let mut up = Some(other);
                while up.is_some_and(|up| up != row) {
                    up = cursor.parent(up.unwrap()).unwrap();
                }
                let below = other > row && other - row <= subtree;
                assert_eq!(below, up.is_some() && other != row);
                if cursor.parent(other).unwrap() == Some(row) {
                    children.push((
                        cursor.start_ns(other).unwrap(),
                        block.span_id(other).unwrap(),
                    ));
                }
            }
            assert!(children.is_sorted());
            if cursor.parent(row).unwrap().is_none() {
                roots.push(key);
            }
            let bounds = block.group_bounds()[group_of(row) as usize];
            assert!((bounds.start_min_ns..=bounds.start_max_ns).contains(&key.0));
            assert!(cursor.duration_ns(row).unwrap() <= bounds.duration_max_ns);
        }
        assert!(roots.is_sorted());
    }
    for (count, class) in counts.iter().zip(0u32..) {
        assert_eq!(block.class_rows(class), *count);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_block_answers_what_the_head_answers(ops in ops(), shards in 1usize..4, back in 0usize..3) {
        let storage = storage();
        let head = new_head(shards);
        apply_all(&head, &ops, false);
        let at = Lsn(ops.len().saturating_sub(back) as u64);
        let block = sealed(&storage, 1, &head, at);
        let mut spans = 0;
        for id in ids_of(&ops) {
            let expected = head.trace(at, id, &control()).unwrap();
            spans += expected.as_ref().map_or(0, |trace| trace.spans.len());
            let got = block.as_ref().and_then(|block| trace_of(block, id));
            prop_assert_eq!(got, expected);
        }
        prop_assert_eq!(block.as_ref().map_or(0, |block| block.rows() as usize), spans);
        if let Some(block) = &block {
            check_structure(block);
        }
    }

    /// Generations of a store in which a later one has all of a trace that an earlier one has some of:
    /// what is merged answers what the traces say that are visible.
    #[test]
    fn a_merged_block_answers_what_its_sources_answer(
        generations in prop::collection::vec(ops(), 1..4),
        hide in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let storage = storage();
        let mut blocks: Vec<(Arc<SpanBlock>, Hidden)> = Vec::new();
        for (ops, id) in generations.iter().zip(1..) {
            let head = new_head(2);
            apply_all(&head, ops, false);
            let at = Lsn(ops.len() as u64);
            if let Some(block) = sealed(&storage, id, &head, at) {
                for trace in 0..block.traces() {
                    supersede(&mut blocks, block.trace_id(trace).unwrap());
                }
                blocks.push((Arc::new(block), Hidden::default()));
            }
        }
        for (place, (block, hidden)) in blocks.iter_mut().enumerate() {
            for (row, _) in (0..block.rows()).zip(hide.iter().skip(place)).filter(|(_, hide)| **hide < 60) {
                hidden.rows.insert(row);
            }
        }
        let mut expected = Vec::new();
        for (block, hidden) in &blocks {
            for trace in 0..block.traces() {
                let trace = block.trace(trace, hidden, &control()).unwrap();
                let again = super::trace::whole_trace(trace.id, trace.spans.clone());
                prop_assert_eq!(&trace, &again, "parents are those of the visible spans");
                if !trace.spans.is_empty() {
                    expected.push(trace);
                }
            }
        }
        let sources: Vec<_> = blocks
            .into_iter()
            .map(|(block, hidden)| (block, Arc::new(hidden)))
            .collect();
        let merged = merged(&storage, 90, &sources);
        prop_assert_eq!(
            merged.as_ref().map_or(0, |block| block.traces() as usize),
            expected.len()
        );
        for trace in expected {
            prop_assert_eq!(trace_of(merged.as_ref().unwrap(), trace.id), Some(trace));
        }
        let Some(merged_block) = merged else { return Ok(()) };
        check_structure(&merged_block);
        // Merging what is merged changes nothing, and needs no rebuilding.
        let alone = [(Arc::new(merged_block), Arc::default())];
        let again = merged_bytes(&storage, 91, &alone);
        let once_more = open(&storage, 91);
        prop_assert_eq!(merged_bytes(&storage, 92, &[(Arc::new(once_more), Arc::default())]), again);
    }
}

/// Hides a trace in the blocks so far.
fn supersede(blocks: &mut [(Arc<SpanBlock>, Hidden)], id: TraceId) {
    for (block, hidden) in blocks {
        if let Some(trace) = block.find_trace(id).unwrap() {
            hidden.rows.insert_range(block.trace_rows(trace).unwrap());
        }
    }
}

fn merged(
    storage: &Arc<dyn Storage>,
    id: u64,
    sources: &[(Arc<SpanBlock>, Arc<Hidden>)],
) -> Option<SpanBlock> {
    let meta = merge(
        storage,
        Path::new(DIR),
        store(),
        BlockId(id),
        sources,
        &|_| true,
        origin(),
        &mut go(),
    );
    meta.unwrap().map(|_| open(storage, id))
}

/// The sections of a merged block, to compare.
fn merged_bytes(
    storage: &Arc<dyn Storage>,
    id: u64,
    sources: &[(Arc<SpanBlock>, Arc<Hidden>)],
) -> Vec<(u8, Vec<u8>)> {
    let block = merged(storage, id, sources).unwrap();
    SectionKind::ALL
        .into_iter()
        .map(|kind| {
            let section = block.block().section(kind).unwrap();
            (
                kind as u8,
                section.bytes(0..section.len_bytes()).unwrap().to_vec(),
            )
        })
        .collect()
}

#[test]
fn traces_of_many_groups_are_found_and_read() {
    let storage = storage();
    let head = new_head(2);
    let mut spans = Vec::new();
    for trace in 0..200 {
        for id in 1..=40u64 {
            let mut span = plain(trace, id, id / 2, i64::from(trace) * 7 + id.cast_signed());
            span.trace_id = TraceId::new([trace + 1; 16]).unwrap();
            spans.push(span);
        }
    }
    write(&head, 1, &spans, false);
    let block = sealed(&storage, 1, &head, Lsn(1)).unwrap();
    assert_eq!((block.rows(), block.traces()), (8_000, 200));
    check_structure(&block);
    for trace in 0..200 {
        let id = TraceId::new([trace + 1; 16]).unwrap();
        let expected = head.trace(Lsn(1), id, &control()).unwrap();
        assert_eq!(trace_of(&block, id), expected);
    }
    assert_eq!(
        block.find_trace(TraceId::new([255; 16]).unwrap()).unwrap(),
        None
    );
}
