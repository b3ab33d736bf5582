//! Blocks against the head they were made of: every trace comes back as it was sent.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::{path::Path, sync::Arc};

use proptest::prelude::*;
use rootline_wal::{Lsn, PowerCutStorage, Storage, StoreId};

use super::{
    super::{
        Span, SpanHead,
        hidden::Hidden,
        model::{Event, Link, Resource, Trace},
        tests::{Op, apply_all, control, new_head, ops, plain, write},
    },
    attributes::AttributeCursor,
    *,
};
use crate::{
    block::{Block, BlockId, SectionKind},
    error::ErrorKind,
    id::{SpanId, TraceId},
    time::Timestamp,
    value::Value,
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

/// Many traces with everything that spans may carry, some of it in few of them.
fn rich(traces: u8, spans: u64) -> Vec<Span> {
    let mut all = Vec::new();
    for trace in 0..traces {
        for id in 1..=spans {
            let start = i64::from(trace) * 1_000 + id.cast_signed() * 7;
            let mut span = plain(0, id, id / 2, start);
            span.trace_id = TraceId::new([trace + 1; 16]).unwrap();
            // Not all alike, so that no page holds everything.
            let noise = (u64::from(trace) * 1_000 + id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            span.span_id = SpanId::new((noise | 1).to_le_bytes()).unwrap();
            span.parent_span_id = SpanId::new([0, 0, 0, 0, 0, 0, 0, 9]).filter(|_| id % 50 == 7);
            let text = Value::Str(format!("{noise:x}"));
            span.attributes.push((Arc::from("request"), text));
            if id % 5 == 0 {
                span.status_message = format!("failed {}", noise % 1_000);
                span.trace_state = "a=b".to_owned();
                span.dropped_links_count = 3;
                let event = Event {
                    time: Timestamp::from_nanos(start + 3),
                    name: "exception".to_owned(),
                    attributes: span.attributes.clone(),
                    dropped_attributes_count: 1,
                };
                span.events = vec![event.clone(), event];
                let link = Link {
                    trace_id: Some(span.trace_id),
                    span_id: None,
                    trace_state: String::new(),
                    flags: 1,
                    attributes: span.attributes.clone(),
                    dropped_attributes_count: 0,
                };
                span.links.push(link);
            }
            all.push(span);
        }
    }
    all
}

#[test]
fn a_damaged_page_costs_what_lies_on_it() {
    let disk = Arc::new(PowerCutStorage::new());
    disk.create_dir_all(Path::new(DIR)).unwrap();
    let storage: Arc<dyn Storage> = Arc::<PowerCutStorage>::clone(&disk);
    let head = new_head(2);
    for spans in rich(150, 120).chunks(6_000) {
        write(&head, 1, spans, false);
    }
    let block = sealed(&storage, 1, &head, Lsn(1)).unwrap();
    let path = block.block().path().to_owned();
    let traces: Vec<u32> = (0..block.traces()).step_by(10).collect();
    let read = |block: &SpanBlock, trace: u32| block.trace(trace, &Hidden::default(), &control());
    let expected: Vec<Trace> = traces.iter().map(|t| read(&block, *t).unwrap()).collect();
    let sections: Vec<(u8, u64, usize)> = block.block().sections().collect();
    let mut start = 64;
    for (code, bytes, pages) in sections {
        let kind = SectionKind::from_code(code).unwrap();
        for page in 0..pages as u64 {
            let offset = usize::try_from(start + bytes * page / pages as u64 + 1).unwrap();
            disk.damage(&path, offset, 0x10).unwrap();
            let block = open(&storage, 1);
            let mut refused = 0;
            for (trace, expected) in traces.iter().zip(&expected) {
                match read(&block, *trace) {
                    Ok(read) => assert_eq!(read, *expected),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
                        refused += 1;
                    }
                }
            }
            let doubled = [SectionKind::SpanDirectory, SectionKind::SpanDirectoryCopy];
            if doubled.contains(&kind) {
                assert_eq!(refused, 0, "{kind:?} stands twice");
            }
            if pages > 1 && kind == SectionKind::SpanIds {
                assert!(refused < traces.len(), "{kind:?}: a page of {pages}");
            }
            columns_are_read(&block, kind);
            disk.damage(&path, offset, 0x10).unwrap();
        }
        start += bytes;
    }
}

/// Sections that are not damaged answer.
fn columns_are_read(block: &SpanBlock, damaged: SectionKind) {
    let mut cursor = RowCursor::new(block);
    for row in (0..block.rows()).step_by(1_000) {
        if damaged != SectionKind::SpanRows {
            cursor.class(row).unwrap();
            cursor.parent(row).unwrap();
            cursor.subtree(row).unwrap();
            cursor.start_ns(row).unwrap();
            cursor.duration_ns(row).unwrap();
        }
        if damaged != SectionKind::SpanIds {
            block.span_id(row).unwrap();
        }
        if damaged != SectionKind::SpanTraces {
            let trace = block.trace_of_row(row).unwrap();
            let id = block.trace_id(trace).unwrap();
            assert_eq!(block.find_trace(id).unwrap(), Some(trace));
            assert!(block.may_have_trace(id));
        }
        if damaged != SectionKind::SpanOrphans {
            block.each_orphan(row..row + 1, |_, _| {}).unwrap();
        }
        if damaged != SectionKind::SpanAttributes && damaged != SectionKind::SpanRows {
            let mut out = Vec::new();
            let cursor = &mut AttributeCursor::default();
            block
                .attributes()
                .attributes(row, cursor, &mut out)
                .unwrap();
            assert!(!out.is_empty());
        }
    }
}

#[test]
fn superseded_traces_come_back_and_need_no_span() {
    let storage = storage();
    let ids: Vec<TraceId> = (1..=5).map(|n| TraceId::new([n; 16]).unwrap()).collect();
    let write = |id: u64, superseded: &[TraceId]| {
        write_block(
            &storage,
            Path::new(DIR),
            store(),
            BlockId(id),
            &[],
            &[],
            superseded,
            origin(),
            &mut go(),
        )
        .unwrap()
    };
    assert!(write(1, &[]).is_none());
    assert!(write(2, &ids).is_some());
    assert!(write(3, &ids[1..3]).is_some());
    let block = open(&storage, 2);
    assert_eq!((block.rows(), block.traces()), (0, 0));
    assert_eq!(block.superseded(), ids);
    assert_eq!(block.find_trace(ids[0]).unwrap(), None);
    let sources: Vec<_> = [2, 3]
        .map(|id| (Arc::new(open(&storage, id)), Arc::default()))
        .into();
    let meta = merge(
        &storage,
        Path::new(DIR),
        store(),
        BlockId(4),
        &sources,
        &|id| id != ids[2],
        origin(),
        &mut go(),
    );
    assert!(meta.unwrap().is_some());
    assert_eq!(
        open(&storage, 4).superseded(),
        [ids[0], ids[1], ids[3], ids[4]]
    );
}

#[test]
fn giants_are_written_and_read_in_linear_time() {
    let storage = storage();
    let head = new_head(2);
    let chain = (1..=30_000u64).map(|id| plain(0, id, id - 1, id.cast_signed()));
    let star = (1..=30_000u64).map(|id| plain(1, id, u64::from(id > 1), id.cast_signed()));
    let twins = (1..=1_000).map(|n| plain(2, 7, 7, n));
    let mut wide = plain(3, 1, 0, 1);
    wide.attributes = (0..10_000)
        .map(|n| (Arc::from(format!("key-{n}")), Value::Int(n)))
        .collect();
    let services = (1..=3_000u64).map(|id| {
        let mut span = plain(4, id, 0, 5);
        let name = Value::Str(format!("service-{id}"));
        span.resource = Arc::new(Resource {
            attributes: vec![(Arc::from("service.name"), name)],
            ..Resource::default()
        });
        span
    });
    let all: Vec<Span> = chain
        .chain(star)
        .chain(twins)
        .chain([wide])
        .chain(services)
        .collect();
    write(&head, 1, &all, false);
    let block = Arc::new(sealed(&storage, 1, &head, Lsn(1)).unwrap());
    let mut hidden = Hidden::default();
    // Of the chain its first span, so that it is rebuilt.
    let ids: Vec<TraceId> = (0..5).map(|n| plain(n, 1, 0, 0).trace_id).collect();
    let chain = block.find_trace(ids[0]).unwrap().unwrap();
    hidden.rows.insert(block.trace_rows(chain).unwrap().start);
    let sources = [(Arc::clone(&block), Arc::new(hidden))];
    let merged = merged(&storage, 2, &sources).unwrap();
    for (id, place) in ids.iter().zip(0..) {
        let expected = head.trace(Lsn(1), *id, &control()).unwrap().unwrap();
        assert_eq!(trace_of(&block, *id).as_ref(), Some(&expected));
        let got = trace_of(&merged, *id).unwrap();
        if place == 0 {
            assert_eq!(got.spans, expected.spans[1..]);
            assert_eq!(got.parents[..3], [None, Some(0), Some(1)]);
        } else {
            assert_eq!(got, expected);
        }
    }
}

#[test]
fn any_directory_is_read_or_refused() {
    let storage = storage();
    let head = new_head(1);
    write(&head, 1, &rich(3, 30), false);
    let block = sealed(&storage, 1, &head, Lsn(1)).unwrap();
    let sections: Vec<Vec<u8>> = super::check::KINDS
        .into_iter()
        .map(|kind| {
            let section = block.block().section(kind).unwrap();
            section.bytes(0..section.len_bytes()).unwrap().to_vec()
        })
        .collect();
    let check = |sections: &[Vec<u8>]| {
        let parts: Vec<&[u8]> = sections.iter().map(Vec::as_slice).collect();
        check_span_block(block.rows(), block.traces(), parts.try_into().unwrap())
    };
    check(&sections).unwrap();
    let mut state = 7u64;
    for place in 0..sections.len() {
        for _ in 0..60 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let mut changed = sections.clone();
            let bytes = &mut changed[place];
            if bytes.is_empty() {
                continue;
            }
            let at = usize::try_from(state >> 33).unwrap() % bytes.len();
            bytes[at] ^= u8::try_from(state >> 5 & 0xff).unwrap() | 1;
            let _ = check(&changed);
        }
    }
}
