//! The summaries of a block less what is hidden of it say, edge by edge and bucket by bucket, what its
//! visible rows say; and damage in them changes no answer.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::{collections::BTreeMap, path::Path, sync::Arc};

use proptest::{collection::vec, prelude::*};
use rootline_wal::{Lsn, PowerCutStorage, Storage, StoreId};

use super::{
    super::{
        block::{LooseRows, RowRun, RowSource, SpanBlock, SpanBlockOrigin, write_block},
        hidden::Hidden,
        model::Span,
        part::SpanPart,
        tests::{control, new_head, span, trace_id, write},
    },
    period::Level,
    *,
};
use crate::{
    block::{Block, BlockId, SectionKind},
    error::Error,
    time::{TimeRange, Timestamp},
};

const STORE: StoreId = StoreId::from_bytes([9; 16]);

fn storage() -> Arc<dyn Storage> {
    let storage: Arc<dyn Storage> = Arc::new(PowerCutStorage::new());
    storage.create_dir_all(Path::new("/blocks")).unwrap();
    storage
}

fn write_spans(storage: &Arc<dyn Storage>, spans: &[Span]) {
    let head = new_head(1);
    write(&head, 1, spans, false);
    let loose = LooseRows::from_head(&head, Lsn(1), &mut || Ok(())).unwrap();
    let runs = [RowRun {
        source: 0,
        first_row: 0,
        rows: loose.rows(),
    }];
    let origin = SpanBlockOrigin {
        first_lsn: Lsn(1),
        last_lsn: Lsn(1),
        clean_lsn: Lsn(1),
        level: 0,
        sources: Vec::new(),
        created_ns: 0,
    };
    let (dir, id, sources) = (Path::new("/blocks"), BlockId(1), [RowSource::Loose(&loose)]);
    let go = &mut || Ok(());
    write_block(storage, dir, STORE, id, &sources, &runs, &[], origin, go).unwrap();
}

fn open(storage: &Arc<dyn Storage>) -> Arc<SpanBlock> {
    let dir = Path::new("/blocks");
    let block = Block::open(storage, dir, Some(STORE), BlockId(1), &Arc::default()).unwrap();
    Arc::new(SpanBlock::open(Arc::new(block), None).unwrap())
}

type Sums = BTreeMap<(String, String), (u64, u64, u128, Vec<(u16, u64)>)>;

fn sums(graph: EdgeGraph) -> Sums {
    let of_edge = |edge: Edge| {
        let sums = &edge.sums;
        let buckets = sums.durations().buckets().collect();
        let figures = (sums.calls(), sums.errors(), sums.duration_sum_ns(), buckets);
        ((edge.caller.to_string(), edge.callee.to_string()), figures)
    };
    graph.into_edges().map(of_edge).collect()
}

fn of_rows(part: &SpanPart, filter: &EdgeFilter) -> Sums {
    let mut graph = EdgeGraph::new(0);
    part.add_edges_of_rows(filter, &control(), &mut graph)
        .unwrap();
    sums(graph)
}

/// By summaries; `None` if they were of no use.
fn of_summaries(part: &SpanPart, filter: &EdgeFilter) -> Option<Sums> {
    let (block, hidden) = part.block().unwrap();
    let mut graph = EdgeGraph::new(0);
    let gone = block::gone(block, hidden).unwrap();
    let ctl = control();
    let used = block::add_less(part, block, hidden, &gone, filter, &ctl, &mut graph).unwrap();
    used.then(|| sums(graph))
}

fn any_spans() -> impl Strategy<Value = Vec<Span>> {
    let placed = (span(), 0i64..3_000).prop_map(|(mut span, seconds)| {
        let start = span.start.as_nanos();
        if (0..5).contains(&start) {
            let length = span.end.as_nanos() - start;
            let start = (seconds * 1_000_000_000) / (start + 1) - 600_000_000_000;
            span.start = Timestamp::from_nanos(start);
            span.end = Timestamp::from_nanos(start + length * 100_000);
        }
        span
    });
    vec(placed, 1..60)
}

fn any_range() -> impl Strategy<Value = TimeRange> {
    let minute = Level::Minute.ns();
    let at = prop_oneof![
        (-12i64..50).prop_map(move |number| number * minute),
        -12 * minute..50 * minute,
    ];
    let between =
        (at, prop_oneof![Just(minute - 1), 0..90 * minute]).prop_map(|(start, length)| {
            let end = Timestamp::from_nanos(start + length);
            TimeRange::new(Timestamp::from_nanos(start), end).unwrap()
        });
    prop_oneof![4 => between, 1 => Just(TimeRange::ALL)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn summaries_less_what_is_hidden_are_what_the_rows_say(
        spans in any_spans(),
        hidden_rows in vec(0u32..60, 0..4),
        hidden_trace in proptest::option::of(0u8..3),
        ranges in vec(any_range(), 1..5),
        callee in proptest::option::of(prop_oneof![Just("shop"), Just("cart"), Just("")]),
    ) {
        let storage = storage();
        write_spans(&storage, &spans);
        let block = open(&storage);
        let mut hidden = Hidden::default();
        if let Some(trace) = hidden_trace {
            hidden.hide_trace(&block, trace_id(trace)).unwrap();
        }
        let rows = hidden_rows.into_iter().filter(|row| *row < block.rows()).collect();
        hidden.hide_rows(&block, &rows).unwrap();
        let parts = [Hidden::default(), hidden]
            .map(|hidden| SpanPart::of_block(Arc::clone(&block), Arc::new(hidden)));
        for range in ranges {
            let filter = EdgeFilter {
                callee: callee.map(str::to_owned),
                ..EdgeFilter::calls_in(range)
            };
            for part in &parts {
                let rows = of_rows(part, &filter);
                if let Some(found) = of_summaries(part, &filter) {
                    prop_assert_eq!(found, rows);
                }
            }
            let used = of_summaries(&parts[0], &EdgeFilter::calls_in(TimeRange::ALL));
            prop_assert!(used.is_some(), "nothing is hidden, everything is asked");
        }
    }
}

/// A trace of a client in one service and its server in another, a minute after the last one.
fn calls(count: u8) -> Vec<Span> {
    use super::super::{
        model::{Resource, SERVICE_NAME},
        tests::plain,
    };
    use crate::value::Value;

    let resource = |service: &str| {
        Arc::new(Resource {
            attributes: vec![(Arc::from(SERVICE_NAME), Value::Str(service.into()))],
            ..Resource::default()
        })
    };
    let (shop, cart) = (resource("shop"), resource("cart"));
    let of_trace = |trace: u8| {
        let start = i64::from(trace) * Level::Minute.ns();
        let mut spans = [plain(trace, 1, 0, start), plain(trace, 2, 1, start)];
        spans[0].resource = Arc::clone(&shop);
        spans[1].resource = Arc::clone(&cart);
        spans
    };
    (0..count).flat_map(of_trace).collect()
}

#[test]
fn damaged_summaries_are_counted_from_the_rows() {
    let storage = storage();
    write_spans(&storage, &calls(100));
    let block = open(&storage);
    let path = block.block().path().to_owned();
    let filter = EdgeFilter::calls_in(TimeRange::ALL);
    let part = SpanPart::of_block(block, Arc::default());
    let expected = of_rows(&part, &filter);
    assert_eq!(of_summaries(&part, &filter).as_ref(), Some(&expected));
    let counted: u64 = expected.values().map(|sums| sums.0).sum();
    assert_eq!(counted, 100);

    // A byte of the section: it is found by what an intact block has there.
    let section = part
        .block()
        .unwrap()
        .0
        .block()
        .section(SectionKind::SpanEdges)
        .unwrap();
    let bytes = section
        .bytes(0..section.len_bytes())
        .unwrap()
        .into_cow()
        .into_owned();
    let file = storage.open(&path).unwrap();
    let mut whole = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    assert_eq!(file.read_at(0, &mut whole).unwrap(), whole.len());
    let at = whole
        .windows(bytes.len())
        .position(|window| window == bytes)
        .unwrap();
    let at = at + bytes.len() / 2;
    file.write_at(at as u64, &[!whole[at]]).unwrap();
    let part = SpanPart::of_block(open(&storage), Arc::default());
    assert_eq!(of_summaries(&part, &filter), None);
    let mut graph = EdgeGraph::new(0);
    part.add_edges(&filter, &control(), &mut graph).unwrap();
    assert_eq!(sums(graph), expected);
    let (block, _) = part.block().unwrap();
    let damage = section::EdgeDirectory::open(block.block());
    assert!(matches!(damage, Err(Error::CorruptBlock { .. })));
}
