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
    block::{Block, BlockId},
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
        let key = (block.trace_bounds(trace).unwrap().0, block.trace_id(trace).unwrap());
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
                    children.push((cursor.start_ns(other).unwrap(), block.span_id(other).unwrap()));
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

/// What the slice at hand carries.
fn comparable(mut trace: Trace) -> Trace {
    for span in &mut trace.spans {
        span.attributes.clear();
        span.events.clear();
        span.links.clear();
        span.trace_state.clear();
        span.status_message.clear();
        span.dropped_attributes_count = 0;
        span.dropped_events_count = 0;
        span.dropped_links_count = 0;
    }
    trace
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
            let (got, expected) = (got.map(comparable), expected.map(comparable));
            let twins = expected.iter().any(|trace| {
                let keys = |pair: &[super::super::Span]| {
                    (pair[0].start, pair[0].span_id) == (pair[1].start, pair[1].span_id)
                };
                trace.spans.windows(2).any(keys)
            });
            prop_assert!(twins || got == expected);
        }
        prop_assert_eq!(block.as_ref().map_or(0, |block| block.rows() as usize), spans);
        if let Some(block) = &block {
            check_structure(block);
        }
    }
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
        assert_eq!(trace_of(&block, id).map(comparable), expected.map(comparable));
    }
    assert_eq!(block.find_trace(TraceId::new([255; 16]).unwrap()).unwrap(), None);
}
