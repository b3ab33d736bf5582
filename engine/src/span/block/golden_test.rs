//! The promise: version 1 of a span block reads the same for ever.
//!
//! A block with everything in it is kept in `engine/tests/golden/v1/span-block.rlb`. It must read as
//! what it was made of, and today's writer must still write the same bytes in the sections that this
//! folder defines; tables of attributes and edges have golden files of their own.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::{path::Path, sync::Arc};

use rootline_wal::{FsStorage, Lsn, PowerCutStorage, Storage, StoreId};

use super::{
    super::{Attributes, Event, Link, Resource, Scope, Span, SpanKind, StatusCode, Trace},
    RowRun, RowSource, SpanBlock, SpanBlockOrigin,
    loose_traces::LooseBuilder,
    trace::whole_trace,
    write_block,
};
use crate::{
    block::{Block, BlockId, SectionKind},
    control::{QueryControl, QueryLimits},
    id::{SpanId, TraceId},
    span::hidden::Hidden,
    time::Timestamp,
    value::Value,
};

const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/v1/span-block.rlb");
const STORE: StoreId = StoreId::from_bytes(*b"a golden store!!");
const ID: BlockId = BlockId(7);
const START_NS: i64 = 1_700_000_000_000_000_000;

fn pairs(pairs: &[(&str, Value)]) -> Attributes {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| (Arc::from(*key), value.clone()))
        .collect()
}

fn span(trace: u8, id: u8, parent: u8, since_ns: i64) -> Span {
    let service = ["shop", "cart"][usize::from(id % 2)];
    let start_ns = START_NS + i64::from(trace) * 1_000_000 + since_ns;
    Span {
        trace_id: TraceId::new([trace; 16]).unwrap(),
        span_id: SpanId::new([id; 8]).unwrap(),
        parent_span_id: SpanId::new([parent; 8]),
        trace_state: String::new(),
        flags: 1,
        name: Arc::from(["GET /", "query"][usize::from(id % 2)]),
        kind: [SpanKind::Server, SpanKind::Client][usize::from(id % 2)],
        start: Timestamp::from_nanos(start_ns),
        end: Timestamp::from_nanos(start_ns + 5_000 * i64::from(id)),
        attributes: pairs(&[("n", Value::Int(id.into())), ("ok", Value::Bool(true))]),
        dropped_attributes_count: 0,
        events: Vec::new(),
        dropped_events_count: 0,
        links: Vec::new(),
        dropped_links_count: 0,
        status: StatusCode::Unset,
        status_message: String::new(),
        resource: Arc::new(Resource {
            attributes: pairs(&[("service.name", Value::Str(service.to_owned()))]),
            ..Resource::default()
        }),
        scope: Arc::default(),
    }
}

/// A plain trace, one with everything that is rare, and one with a cycle and an orphan.
fn given() -> Vec<Trace> {
    let plain = (1..=40).map(|id| span(1, id, id / 3, i64::from(id) * 700));
    let mut rich = span(2, 9, 0, 5);
    rich.trace_state = "vendor=1".to_owned();
    rich.status = StatusCode::Error;
    rich.status_message = "no such item".to_owned();
    rich.dropped_attributes_count = 1;
    rich.dropped_events_count = 2;
    rich.dropped_links_count = 3;
    rich.events = vec![
        Event {
            time: Timestamp::from_nanos(START_NS),
            name: "exception".to_owned(),
            attributes: pairs(&[("stack", Value::Str("at ü".to_owned()))]),
            dropped_attributes_count: 4,
        },
        Event {
            time: rich.end,
            name: String::new(),
            attributes: Vec::new(),
            dropped_attributes_count: 0,
        },
    ];
    rich.links = vec![Link {
        trace_id: TraceId::new([1; 16]),
        span_id: SpanId::new([3; 8]),
        trace_state: "a=b".to_owned(),
        flags: 256,
        attributes: pairs(&[("why", Value::Array(vec![Value::Double(0.5), Value::Empty]))]),
        dropped_attributes_count: 5,
    }];
    rich.resource = Arc::new(Resource {
        attributes: Vec::new(),
        dropped_attributes_count: 6,
        schema_url: "https://example.org/schema".to_owned(),
        entity_refs: vec![26, 0],
    });
    rich.scope = Arc::new(Scope {
        name: "library".to_owned(),
        version: "1.2".to_owned(),
        attributes: pairs(&[("x", Value::Bytes(vec![0, 255]))]),
        dropped_attributes_count: 7,
        schema_url: "https://example.org/scope".to_owned(),
    });
    let odd = vec![
        span(3, 1, 2, 10),
        span(3, 2, 1, 20),
        span(3, 3, 77, 30),
        span(3, 4, 4, 40),
    ];
    [plain.collect(), vec![rich], odd]
        .into_iter()
        .map(|spans: Vec<Span>| whole_trace(spans[0].trace_id, spans))
        .collect()
}

fn superseded() -> [TraceId; 2] {
    [8, 9].map(|n| TraceId::new([n; 16]).unwrap())
}

fn write(storage: &Arc<dyn Storage>, dir: &Path) {
    let mut builder = LooseBuilder::default();
    for trace in given() {
        builder.push(&trace).unwrap();
    }
    let loose = builder.finish();
    let runs = [RowRun {
        source: 0,
        first_row: 0,
        rows: loose.rows(),
    }];
    let origin = SpanBlockOrigin {
        first_lsn: Lsn(1),
        last_lsn: Lsn(9),
        clean_lsn: Lsn(9),
        level: 0,
        sources: Vec::new(),
        created_ns: START_NS,
    };
    let sources = [RowSource::Loose(&loose)];
    let ids = superseded();
    write_block(
        storage,
        dir,
        STORE,
        ID,
        &sources,
        &runs,
        &ids,
        origin,
        &mut || Ok(()),
    )
    .unwrap();
}

#[test]
fn the_golden_block_reads_as_what_it_was_made_of() {
    let dir = tempfile::tempdir().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(FsStorage::new());
    std::fs::write(dir.path().join("block-0000000000000007.rlb"), GOLDEN).unwrap();
    let block = Block::open(&storage, dir.path(), Some(STORE), ID, &Arc::default()).unwrap();
    let block = SpanBlock::open(Arc::new(block), None).unwrap();
    assert_eq!((block.rows(), block.traces()), (45, 3));
    assert_eq!(block.superseded(), superseded());
    let clock = Arc::new(rootline_wal::SystemClock::new());
    let ctl = QueryControl::new(clock, None, QueryLimits::default());
    for trace in given() {
        let found = block.find_trace(trace.id).unwrap().unwrap();
        assert_eq!(block.trace(found, &Hidden::default(), &ctl).unwrap(), trace);
    }
}

#[test]
fn the_writer_still_writes_the_sections_of_the_golden_block() {
    let dir = tempfile::tempdir().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(FsStorage::new());
    std::fs::write(dir.path().join("block-0000000000000007.rlb"), GOLDEN).unwrap();
    let golden = Block::open(&storage, dir.path(), Some(STORE), ID, &Arc::default());
    let written_in = Path::new("/blocks");
    let disk = PowerCutStorage::new();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    storage.create_dir_all(written_in).unwrap();
    write(&storage, written_in);
    let written = Block::open(&storage, written_in, None, ID, &Arc::default()).unwrap();
    for kind in [
        SectionKind::SpanTraces,
        SectionKind::SpanOwners,
        SectionKind::SpanRows,
        SectionKind::SpanIds,
        SectionKind::SpanOrphans,
    ] {
        let bytes = |block: &Block| {
            let section = block.section(kind).unwrap();
            section.bytes(0..section.len_bytes()).unwrap().to_vec()
        };
        let is_same = golden
            .as_ref()
            .is_ok_and(|golden| bytes(golden) == bytes(&written));
        if !is_same {
            let kept = std::env::temp_dir().join("span-block.rlb");
            std::fs::write(&kept, disk.content(written.path()).unwrap()).unwrap();
            panic!("{kind:?} differs; today's block is {}", kept.display());
        }
    }
}
