//! Parts of the span store against a plain evaluation over whole traces: whatever holds the spans, the
//! answers are the same.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use proptest::prelude::*;
use rootline_wal::{Lsn, PowerCutStorage, Storage, StoreId};

use super::{
    block::{LooseRows, RowRun, RowSource, SpanBlock, SpanBlockOrigin, write_block},
    hidden::Hidden,
    tests::{
        Op, apply_all, control, filters, naive_match, naive_parents, naive_values, new_head, ops,
        plain, trace_id, visible, write,
    },
    *,
};
use crate::{
    block::{Block, BlockId},
    control::{QueryControl, QueryLimits},
    error::Error,
    id::TraceId,
    time::{TimeRange, Timestamp},
    value::{AttributeType, Value},
};

const AXES: [Axis; 5] = [
    Axis::Child,
    Axis::Parent,
    Axis::Descendant,
    Axis::Ancestor,
    Axis::Sibling,
];

const SCOPES: [TagScope; 6] = [
    TagScope::Any,
    TagScope::Span,
    TagScope::Resource,
    TagScope::Event,
    TagScope::Link,
    TagScope::Scope,
];

/// What is known of a row, in words that do not depend on the part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    trace: TraceId,
    id: [u8; 8],
    start: i64,
    duration: u64,
    kind: SpanKind,
    status: StatusCode,
    service: String,
    name: String,
    parent_id: Option<[u8; 8]>,
    /// Service, name, kind and status.
    parent: Option<(String, String, SpanKind, StatusCode)>,
    own_time: u64,
    depth: u32,
    children: u32,
    /// First value of the key `a`, by scope.
    values: Vec<Option<String>>,
}

/// A trace, read the plain way.
struct Known {
    spans: Vec<Span>,
    parents: Vec<Option<u32>>,
    rows: Vec<Row>,
}

impl Known {
    fn new(spans: Vec<Span>) -> Self {
        let parents = naive_parents(&spans);
        let rows = (0..spans.len())
            .map(|i| row_of(&spans, &parents, i))
            .collect();
        Self {
            spans,
            parents,
            rows,
        }
    }

    fn parent(&self, i: usize) -> Option<usize> {
        self.parents[i].map(|p| p as usize)
    }

    fn is_above(&self, above: usize, below: usize) -> bool {
        let mut at = self.parent(below);
        while let Some(parent) = at {
            if parent == above {
                return true;
            }
            at = self.parent(parent);
        }
        false
    }

    /// Whether `a` is `axis` of `b`.
    fn related(&self, a: usize, b: usize, axis: Axis) -> bool {
        match axis {
            Axis::Child => self.parent(a) == Some(b),
            Axis::Parent => self.parent(b) == Some(a),
            Axis::Descendant => self.is_above(b, a),
            Axis::Ancestor => self.is_above(a, b),
            Axis::Sibling => a != b && self.parent(a).is_some() && self.parent(a) == self.parent(b),
        }
    }
}

/// Nanosecond by nanosecond would be plainer still; spans of the tests may be ages long.
fn own_time(spans: &[Span], parents: &[Option<u32>], i: usize) -> u64 {
    let (start, end) = (spans[i].start.as_nanos(), spans[i].end.as_nanos());
    let children: Vec<(i64, i64)> = (0..spans.len())
        .filter(|&c| parents[c].map(|p| p as usize) == Some(i))
        .map(|c| {
            (
                spans[c].start.as_nanos().clamp(start, end),
                spans[c].end.as_nanos().clamp(start, end),
            )
        })
        .collect();
    let mut edges: Vec<i64> = children.iter().flat_map(|&(from, to)| [from, to]).collect();
    edges.extend([start, end]);
    edges.sort_unstable();
    let free = edges.windows(2).filter(|pair| {
        !children
            .iter()
            .any(|&(from, to)| from <= pair[0] && pair[1] <= to)
    });
    free.map(|pair| pair[1].wrapping_sub(pair[0]).cast_unsigned())
        .sum()
}

fn first_value(span: &Span, of: TagScope) -> Option<String> {
    naive_values(span, "a", of).into_iter().next()
}

fn row_of(spans: &[Span], parents: &[Option<u32>], i: usize) -> Row {
    let span = &spans[i];
    let parent = parents[i].map(|p| &spans[p as usize]);
    let mut depth = 0;
    let mut at = parents[i];
    while let Some(parent) = at {
        depth += 1;
        at = parents[parent as usize];
    }
    let children = parents
        .iter()
        .filter(|&&p| p.map(|p| p as usize) == Some(i))
        .count();
    Row {
        trace: span.trace_id,
        id: *span.span_id.as_bytes(),
        start: span.start.as_nanos(),
        duration: span.duration_ns(),
        kind: span.kind,
        status: span.status,
        service: span.service().to_owned(),
        name: span.name.to_string(),
        parent_id: span.parent_span_id.map(|id| *id.as_bytes()),
        parent: parent.map(|p| (p.service().to_owned(), p.name.to_string(), p.kind, p.status)),
        own_time: own_time(spans, parents, i),
        depth,
        children: u32::try_from(children).unwrap(),
        values: SCOPES.iter().map(|&of| first_value(span, of)).collect(),
    }
}

/// Everything a part says of some rows.
fn rows_of(part: &SpanPart, rows: &SpanRows, ctl: &QueryControl) -> Vec<Row> {
    let hits = part.hits(rows, ctl).unwrap();
    assert_eq!(hits.len() as u64, rows.len());
    let (mut durations, mut starts, mut classes, mut parents) = (vec![], vec![], vec![], vec![]);
    let (mut traces, mut own, mut depths, mut children) = (vec![], vec![], vec![], vec![]);
    part.durations(rows, ctl, &mut durations).unwrap();
    part.starts(rows, ctl, &mut starts).unwrap();
    part.classes(rows, ctl, &mut classes).unwrap();
    part.parent_classes(rows, ctl, &mut parents).unwrap();
    part.traces(rows, ctl, &mut traces).unwrap();
    part.own_times(rows, ctl, &mut own).unwrap();
    part.depths(rows, ctl, &mut depths).unwrap();
    part.child_counts(rows, ctl, &mut children).unwrap();
    let values: Vec<RowValues> = SCOPES
        .iter()
        .map(|&of| part.values(rows, "a", of, ctl).unwrap())
        .collect();
    let symbol = |id| part.symbol(id).to_string();
    let mut found = Vec::new();
    for (i, hit) in hits.iter().enumerate() {
        let class = part.class(classes[i]);
        assert_eq!((class.kind, class.status), (hit.kind, hit.status));
        assert_eq!((class.service, class.name), (hit.service, hit.name));
        assert_eq!(
            (starts[i], durations[i]),
            (hit.start.as_nanos(), hit.duration_ns)
        );
        assert_eq!(part.trace_id(traces[i]).unwrap(), hit.trace_id);
        let parent = (parents[i] != u32::MAX).then(|| part.class(parents[i]));
        assert_eq!(parent.map(|p| p.service), hit.parent_service);
        let value = |values: &RowValues| {
            let code = values.codes[i];
            (code != u32::MAX).then(|| values.values[code as usize].to_string())
        };
        found.push(Row {
            trace: hit.trace_id,
            id: *hit.span_id.as_bytes(),
            start: starts[i],
            duration: durations[i],
            kind: class.kind,
            status: class.status,
            service: symbol(class.service),
            name: symbol(class.name),
            parent_id: hit.parent_span_id.map(|id| *id.as_bytes()),
            parent: parent.map(|p| (symbol(p.service), symbol(p.name), p.kind, p.status)),
            own_time: own[i],
            depth: depths[i],
            children: children[i],
            values: values.iter().map(value).collect(),
        });
    }
    found.sort();
    found
}

/// Rows in all parts of what `select` finds in each.
fn all_rows(
    parts: &[SpanPart],
    ctl: &QueryControl,
    select: impl Fn(&SpanPart) -> SpanRows,
) -> Vec<Row> {
    let mut rows: Vec<Row> = parts
        .iter()
        .flat_map(|part| rows_of(part, &select(part), ctl))
        .collect();
    rows.sort();
    rows
}

/// Compares all that parts answer for two filters with what the traces say.
fn check(parts: &[SpanPart], traces: &[Known], filter: &SpanFilter, among: &SpanFilter) {
    let ctl = &control();
    let matching = |trace: &Known, filter: &SpanFilter| -> Vec<usize> {
        let all = 0..trace.spans.len();
        all.filter(|&i| naive_match(&trace.spans[i], filter))
            .collect()
    };
    let expect = |choose: &dyn Fn(&Known, usize) -> bool| {
        let mut rows: Vec<Row> = Vec::new();
        for trace in traces {
            let all = 0..trace.spans.len();
            rows.extend(
                all.filter(|&i| choose(trace, i))
                    .map(|i| trace.rows[i].clone()),
            );
        }
        rows.sort();
        rows
    };
    let select = |part: &SpanPart| part.select(filter, ctl).unwrap();
    let expected = expect(&|trace, i| naive_match(&trace.spans[i], filter));
    assert_eq!(all_rows(parts, ctl, select), expected, "{filter:?}");
    let counted: u64 = parts
        .iter()
        .map(|part| part.count(filter, ctl).unwrap())
        .sum();
    assert_eq!(counted, expected.len() as u64, "{filter:?}");
    check_classes(parts, &expected, filter, ctl);
    for axis in AXES {
        let related = |part: &SpanPart| part.relatives(&select(part), axis, ctl).unwrap();
        let expected = expect(&|trace, i| {
            matching(trace, filter)
                .into_iter()
                .any(|of| trace.related(i, of, axis))
        });
        assert_eq!(
            all_rows(parts, ctl, related),
            expected,
            "{axis:?} of {filter:?}"
        );
        let both = |part: &SpanPart| related(part).and(&part.select(among, ctl).unwrap());
        let expected = expect(&|trace, i| {
            naive_match(&trace.spans[i], among)
                && matching(trace, filter)
                    .into_iter()
                    .any(|of| trace.related(i, of, axis))
        });
        assert_eq!(
            all_rows(parts, ctl, both),
            expected,
            "{axis:?} of {filter:?} among {among:?}"
        );
    }
    check_newest(parts, traces, filter, ctl);
    for part in parts {
        let all = part
            .select(&SpanFilter::in_range(TimeRange::ALL), ctl)
            .unwrap();
        assert!(all.len() <= part.spans());
        let mut starts = Vec::new();
        part.starts(&all, ctl, &mut starts).unwrap();
        for start in starts {
            assert!(
                part.start_bounds()
                    .unwrap()
                    .contains(Timestamp::from_nanos(start))
            );
        }
    }
}

fn check_classes(parts: &[SpanPart], rows: &[Row], filter: &SpanFilter, ctl: &QueryControl) {
    let mut found: BTreeMap<_, u64> = BTreeMap::new();
    for part in parts {
        let counts = part.count_by_class(filter, ctl).unwrap();
        assert!(counts.is_sorted_by(|a, b| a.0 < b.0));
        for (class, count) in counts {
            assert!(count > 0 && class < part.class_count());
            let class = part.class(class);
            let (service, name) = (part.symbol(class.service), part.symbol(class.name));
            let key = (
                service.to_string(),
                name.to_string(),
                class.kind,
                class.status,
            );
            *found.entry(key).or_default() += count;
        }
    }
    let mut expected: BTreeMap<_, u64> = BTreeMap::new();
    for row in rows {
        let key = (row.service.clone(), row.name.clone(), row.kind, row.status);
        *expected.entry(key).or_default() += 1;
    }
    assert_eq!(found, expected, "{filter:?}");
}

fn check_newest(parts: &[SpanPart], traces: &[Known], filter: &SpanFilter, ctl: &QueryControl) {
    let mut expected: Vec<(Timestamp, TraceId, u64)> = Vec::new();
    for trace in traces {
        let matched = trace
            .spans
            .iter()
            .filter(|span| naive_match(span, filter))
            .count();
        if matched > 0 {
            let start = trace.spans.iter().map(|span| span.start).min().unwrap();
            expected.push((start, trace.spans[0].trace_id, matched as u64));
        }
    }
    expected.sort_unstable_by(|a, b| b.cmp(a));
    for limit in [1, 2, 9] {
        // Page by page, each from where the one before ended.
        let mut found: Vec<(Timestamp, TraceId, u64)> = Vec::new();
        loop {
            let before = found.last().map(|last| (last.0, last.1));
            let mut page: Vec<_> = Vec::new();
            for part in parts {
                let newest = part.newest_traces(filter, before, limit, ctl).unwrap();
                assert!(newest.len() <= limit);
                assert!(
                    newest.is_sorted_by_key(|trace| std::cmp::Reverse((trace.start, trace.id)))
                );
                for trace in newest {
                    assert_eq!(part.trace_id(trace.trace).unwrap(), trace.id);
                    assert_eq!(part.trace_start(trace.trace).unwrap(), trace.start);
                    let summary = part.summary(trace.trace, ctl).unwrap();
                    assert_eq!((summary.id, summary.start), (trace.id, trace.start));
                    page.push((trace.start, trace.id, trace.matched));
                }
            }
            page.sort_unstable_by(|a, b| b.cmp(a));
            page.truncate(limit);
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        assert_eq!(found, expected, "{filter:?}");
    }
}

/// The values of a key where it stands, each once.
fn values_at<'s>(span: &'s Span, key: &str, of: TagScope) -> BTreeSet<(String, AttributeType)> {
    fn of_key<'a>(attributes: &'a Attributes, key: &str) -> Vec<&'a Value> {
        let own = attributes.iter().filter(|(own, _)| &**own == key);
        own.map(|(_, value)| value).collect()
    }
    let own: Vec<&'s Value> = match of {
        TagScope::Any if span.attributes.iter().all(|(own, _)| &**own != key) => {
            of_key(&span.resource.attributes, key)
        }
        TagScope::Any | TagScope::Span => of_key(&span.attributes, key),
        TagScope::Resource => of_key(&span.resource.attributes, key),
        TagScope::Scope => of_key(&span.scope.attributes, key),
        TagScope::Event => span
            .events
            .iter()
            .flat_map(|e| of_key(&e.attributes, key))
            .collect(),
        TagScope::Link => span
            .links
            .iter()
            .flat_map(|l| of_key(&l.attributes, key))
            .collect(),
    };
    own.into_iter()
        .map(|value| (value.to_string(), AttributeType::of(value)))
        .collect()
}

/// Compares names, values, services, operations and bounds with what the traces say. A span with two
/// values of one type that read the same counts for each of them, so those are left out by the callers.
fn check_listings(parts: &[SpanPart], traces: &[Known]) {
    let ctl = &control();
    let spans: Vec<&Span> = traces.iter().flat_map(|trace| &trace.spans).collect();
    let services: BTreeSet<String> = spans.iter().map(|s| s.service().to_owned()).collect();
    let found = listing::services(parts, TimeRange::ALL, ctl).unwrap();
    assert!(found.into_iter().eq(services));
    let shop = spans.iter().filter(|s| s.service() == "shop");
    let names: BTreeSet<String> = shop.map(|s| s.name.to_string()).collect();
    let found = listing::operations(parts, Some("shop"), TimeRange::ALL, ctl).unwrap();
    assert!(found.into_iter().eq(names));
    for of in SCOPES {
        for key in ["", "a", "b", "nowhere", SERVICE_NAME] {
            let mut values: BTreeMap<(String, AttributeType), u64> = BTreeMap::new();
            for value in spans.iter().flat_map(|span| values_at(span, key, of)) {
                *values.entry(value).or_default() += 1;
            }
            let found = listing::tag_values(parts, key, of, "", usize::MAX, ctl).unwrap();
            let found: Vec<_> = found
                .into_iter()
                .map(|v| ((v.value, v.kind), v.spans))
                .collect();
            let doubtful =
                |kind: AttributeType| matches!(kind, AttributeType::Other | AttributeType::Double);
            let sure = |((text, kind), spans): ((String, AttributeType), u64)| {
                ((text, kind), if doubtful(kind) { 0 } else { spans })
            };
            let expected: Vec<_> = values.into_iter().collect();
            let sure_all = |all: &[((String, AttributeType), u64)]| -> Vec<_> {
                all.iter().cloned().map(sure).collect()
            };
            assert_eq!(sure_all(&found), sure_all(&expected), "{key:?} {of:?}");
            let first = listing::tag_values(parts, key, of, "", 2, ctl).unwrap();
            let first: Vec<_> = first
                .into_iter()
                .map(|v| ((v.value, v.kind), v.spans))
                .collect();
            assert_eq!(first, found[..found.len().min(2)], "{key:?} {of:?}");
            if of != TagScope::Any {
                let having = spans
                    .iter()
                    .filter(|span| !values_at(span, key, of).is_empty())
                    .count();
                let types: BTreeSet<_> = expected.iter().map(|((_, kind), _)| *kind).collect();
                let found = listing::tag_names(parts, of, key, usize::MAX, ctl).unwrap();
                let found = found.into_iter().find(|name| &*name.key == key);
                let found = found.map(|name| (name.spans, name.types));
                let right = (having > 0).then(|| (having as u64, types.into_iter().collect()));
                assert_eq!(found, right, "{key:?} {of:?}");
            }
        }
    }
    let bounds: Vec<TimeRange> = parts
        .iter()
        .filter_map(|part| part.time_bounds(ctl).unwrap())
        .collect();
    let start = bounds.iter().map(|bounds| bounds.start()).min();
    let end = bounds.iter().map(|bounds| bounds.end()).max();
    assert_eq!(start, spans.iter().map(|s| s.start).min());
    assert_eq!(end, spans.iter().map(|s| s.end).max());
    for trace in traces {
        let id = trace.spans[0].trace_id;
        let found: Vec<Trace> = parts
            .iter()
            .filter_map(|part| part.find_trace(id, ctl).unwrap().map(|trace| (part, trace)))
            .filter_map(|(part, trace)| part.trace(trace, ctl).unwrap())
            .collect();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (&found[0].spans, &found[0].parents),
            (&trace.spans, &trace.parents)
        );
    }
}

fn known(ops: &[Op], at: usize) -> Vec<Known> {
    let traces = (0..3).map(|trace| visible(ops, at, trace_id(trace)));
    traces
        .filter(|spans| !spans.is_empty())
        .map(Known::new)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn shards_of_the_head_answer_as_the_traces_do(
        ops in ops(),
        filters in prop::collection::vec(filters(), 3),
        back in 0usize..3,
    ) {
        let head = Arc::new(new_head(2));
        apply_all(&head, &ops, false);
        let at = ops.len().saturating_sub(back);
        let parts: Vec<_> = SpanPart::of_head(&head, Lsn(at as u64)).collect();
        let traces = known(&ops, at);
        for (filter, among) in filters.iter().zip(filters.iter().rev()) {
            check(&parts, &traces, filter, among);
        }
        check_listings(&parts, &traces);
    }
}

// ---- blocks -------------------------------------------------------------------------------------

/// The head's spans at an LSN as a block; `None` if there are none.
fn sealed(head: &SpanHead, at: Lsn) -> Option<Arc<SpanBlock>> {
    let (dir, store) = (Path::new("/blocks"), StoreId::from_bytes([7; 16]));
    let storage: Arc<dyn Storage> = Arc::new(PowerCutStorage::new());
    storage.create_dir_all(dir).unwrap();
    let go = &mut || Ok(());
    let loose = LooseRows::from_head(head, at, go).unwrap();
    let runs = [RowRun {
        source: 0,
        first_row: 0,
        rows: loose.rows(),
    }];
    let origin = SpanBlockOrigin {
        first_lsn: Lsn(1),
        last_lsn: at,
        clean_lsn: at,
        level: 0,
        sources: Vec::new(),
        created_ns: 0,
    };
    let (id, sources) = (BlockId(1), [RowSource::Loose(&loose)]);
    write_block(&storage, dir, store, id, &sources, &runs, &[], origin, go).unwrap()?;
    let block = Block::open(&storage, dir, Some(store), id, &Arc::default()).unwrap();
    Some(Arc::new(SpanBlock::open(Arc::new(block), None).unwrap()))
}

fn whole(block: &Arc<SpanBlock>) -> SpanPart {
    SpanPart::of_block(Arc::clone(block), Arc::default())
}

/// A block without the spans that a filter finds in it.
fn without(block: &Arc<SpanBlock>, filter: &SpanFilter) -> SpanPart {
    let found = whole(block).select(filter, &control()).unwrap();
    let mut hidden = Hidden::default();
    hidden.hide_rows(block, found.as_bitmap()).unwrap();
    SpanPart::of_block(Arc::clone(block), Arc::new(hidden))
}

/// The same ops with other traces.
fn shifted(ops: &[Op], by: u8) -> Vec<Op> {
    let shift = |id: TraceId| TraceId::new([id.as_bytes()[0] + by; 16]).unwrap();
    let ops = ops.iter().cloned();
    ops.map(|op| match op {
        Op::Write(mut spans) => {
            for span in &mut spans {
                span.trace_id = shift(span.trace_id);
            }
            Op::Write(spans)
        }
        Op::Delete(id) => Op::Delete(shift(id)),
    })
    .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_block_answers_as_its_traces_do(
        ops in ops(),
        filters in prop::collection::vec(filters(), 3),
    ) {
        let head = new_head(2);
        apply_all(&head, &ops, false);
        let at = Lsn(ops.len() as u64);
        let traces = known(&ops, ops.len());
        let parts: Vec<_> = sealed(&head, at).iter().map(whole).collect();
        for (filter, among) in filters.iter().zip(filters.iter().rev()) {
            check(&parts, &traces, filter, among);
        }
        check_listings(&parts, &traces);
    }

    /// What is left of traces behaves as if the hidden spans had never come.
    #[test]
    fn what_is_left_of_a_block_answers_for_itself(
        ops in ops(),
        hidden in filters(),
        filters in prop::collection::vec(filters(), 3),
    ) {
        let head = new_head(2);
        apply_all(&head, &ops, false);
        let at = Lsn(ops.len() as u64);
        let left = known(&ops, ops.len()).into_iter().filter_map(|trace| {
            let spans = trace.spans.into_iter().filter(|span| !naive_match(span, &hidden));
            let spans: Vec<Span> = spans.collect();
            (!spans.is_empty()).then(|| Known::new(spans))
        });
        let traces: Vec<Known> = left.collect();
        let parts: Vec<_> =
            sealed(&head, at).iter().map(|block| without(block, &hidden)).collect();
        for (filter, among) in filters.iter().zip(filters.iter().rev()) {
            check(&parts, &traces, filter, among);
        }
        check_listings(&parts, &traces);
    }

    #[test]
    fn blocks_and_heads_are_added_up(
        sealed_ops in ops(),
        ops in ops(),
        filters in prop::collection::vec(filters(), 2),
    ) {
        let (old, new) = (new_head(1), Arc::new(new_head(2)));
        let ops = shifted(&ops, 3);
        apply_all(&old, &sealed_ops, false);
        apply_all(&new, &ops, false);
        let mut parts: Vec<_> =
            sealed(&old, Lsn(sealed_ops.len() as u64)).iter().map(whole).collect();
        parts.extend(SpanPart::of_head(&new, Lsn(ops.len() as u64)));
        let mut traces = known(&sealed_ops, sealed_ops.len());
        let shifted = (3..6).map(|trace| visible(&ops, ops.len(), trace_id(trace)));
        traces.extend(shifted.filter(|spans| !spans.is_empty()).map(Known::new));
        for (filter, among) in filters.iter().zip(filters.iter().rev()) {
            check(&parts, &traces, filter, among);
        }
        check_listings(&parts, &traces);
    }
}

/// Some ten thousand spans: several pages of the head, groups of a block, windows of a search.
fn many_spans() -> Vec<Span> {
    let service = |name: &str| {
        Arc::new(Resource {
            attributes: vec![(Arc::from(SERVICE_NAME), Value::Str(name.into()))],
            ..Resource::default()
        })
    };
    let services = [service("shop"), service("cart"), service("rare")];
    let mut random = 7u64;
    let mut next = move |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) % below
    };
    let mut spans = Vec::new();
    for trace in 1..=4_000u32 {
        let mut id = [0; 16];
        id[12..].copy_from_slice(&trace.to_be_bytes());
        let began = next(50_000).cast_signed();
        for place in 1..=1 + next(9) {
            let start = began + next(100).cast_signed();
            let of = if next(500) == 0 { 2 } else { next(2) };
            spans.push(Span {
                trace_id: TraceId::new(id).unwrap(),
                end: Timestamp::from_nanos(start + next(1_000).cast_signed()),
                status: StatusCode::from_number(i32::from(next(20) == 0) * 2).unwrap(),
                resource: Arc::clone(&services[usize::try_from(of).unwrap()]),
                attributes: vec![("n".into(), Value::Int(next(300).cast_signed()))],
                ..plain(0, place, place - 1, start)
            });
        }
    }
    spans
}

#[test]
fn many_rows_are_searched_like_few() {
    let ctl = &control();
    let spans = many_spans();
    let head = Arc::new(new_head(1));
    for (batch, lsn) in spans.chunks(5_000).zip(1..) {
        write(&head, lsn, batch, false);
    }
    let service = |name| SpanCondition::Service(StringMatch::equal(name));
    let tag = |value| SpanCondition::Tag {
        key: "n".into(),
        of: TagScope::Any,
        matches: StringMatch::equal(value),
    };
    let all = || SpanFilter::in_range(TimeRange::ALL);
    let some = TimeRange::new(Timestamp::from_nanos(20_000), Timestamp::from_nanos(30_000));
    let some = || SpanFilter::in_range(some.as_ref().unwrap().to_owned());
    let long = SpanCondition::DurationNs {
        min: 990,
        max: 1_000,
    };
    let error = || SpanCondition::Status(StatusCode::Error);
    let filters = [
        all(),
        some(),
        all().and(service("rare")),
        all().and(service("cart")).and(error()),
        some().and(service("shop")),
        all().and(tag("17")),
        some().and(tag("17")).and(error()),
        all().and(long.clone()),
        some().and(long),
    ];
    let hidden = all().and(tag("7"));
    let block = sealed(&head, Lsn(99)).unwrap();
    let head = SpanPart::of_head(&head, Lsn(99)).next().unwrap();
    let left: Vec<&Span> = spans
        .iter()
        .filter(|span| !naive_match(span, &hidden))
        .collect();
    let every: Vec<&Span> = spans.iter().collect();
    for (part, spans) in [
        (head, &every),
        (whole(&block), &every),
        (without(&block, &hidden), &left),
    ] {
        let mut traces: BTreeMap<TraceId, Vec<&Span>> = BTreeMap::new();
        for span in spans {
            traces.entry(span.trace_id).or_default().push(span);
        }
        for filter in &filters {
            let mut expected: Vec<_> = spans
                .iter()
                .filter(|span| naive_match(span, filter))
                .map(|span| (span.trace_id, span.span_id))
                .collect();
            expected.sort_unstable();
            let rows = part.select(filter, ctl).unwrap();
            let hits = part.hits(&rows, ctl).unwrap();
            let mut found: Vec<_> = hits.iter().map(|hit| (hit.trace_id, hit.span_id)).collect();
            found.sort_unstable();
            assert_eq!(found, expected, "{filter:?}");
            assert_eq!(part.count(filter, ctl).unwrap(), expected.len() as u64);
            let mut newest: Vec<_> = traces
                .iter()
                .filter_map(|(&id, spans)| {
                    let matched = spans
                        .iter()
                        .filter(|span| naive_match(span, filter))
                        .count();
                    let start = spans.iter().map(|span| span.start).min()?;
                    (matched > 0).then_some((start, id, matched as u64))
                })
                .collect();
            newest.sort_unstable_by(|a, b| b.cmp(a));
            let middle = newest
                .get(newest.len() / 2)
                .map(|&(start, id, _)| (start, id));
            for before in [None, middle] {
                let below = newest.iter().copied();
                let below = below.filter(|trace| before.is_none_or(|b| (trace.0, trace.1) < b));
                let found = part.newest_traces(filter, before, 20, ctl).unwrap();
                let found = found
                    .iter()
                    .map(|trace| (trace.start, trace.id, trace.matched));
                assert!(found.eq(below.take(20)), "{filter:?} before {before:?}");
            }
        }
    }
}

/// A chain, a star and twins: none may be quadratic or recurse, or this test does not end.
#[test]
fn huge_traces_of_every_shape_are_walked_in_linear_time() {
    let deep: Vec<Span> = (1..=60_000u64)
        .map(|i| plain(0, i, i - 1, i.cast_signed()))
        .collect();
    let star: Vec<Span> = (1..=60_000u64)
        .map(|i| plain(1, i, u64::from(i > 1), i.cast_signed()))
        .collect();
    let twins: Vec<Span> = (1..=20_000).map(|i| plain(2, 1, 1, i)).collect();
    let head = Arc::new(new_head(1));
    for (spans, lsn) in [deep, star, twins].into_iter().zip(1..) {
        write(&head, lsn, &spans, false);
    }
    let parts: Vec<_> = SpanPart::of_head(&head, Lsn(9)).collect();
    walk_giants(&parts[0], 140_000);
    let block = sealed(&head, Lsn(9)).unwrap();
    walk_giants(&whole(&block), 140_000);
}

/// Every axis and column over all rows.
fn walk_giants(part: &SpanPart, spans: u64) {
    let ctl = &control();
    let all = part
        .select(&SpanFilter::in_range(TimeRange::ALL), ctl)
        .unwrap();
    assert_eq!(all.len(), spans);
    for axis in AXES {
        assert!(part.relatives(&all, axis, ctl).unwrap().len() >= 59_999);
    }
    let mut depths = Vec::new();
    part.depths(&all, ctl, &mut depths).unwrap();
    assert_eq!(depths.iter().max(), Some(&59_999));
    let (mut own, mut children, mut parents) = (vec![], vec![], vec![]);
    part.own_times(&all, ctl, &mut own).unwrap();
    part.child_counts(&all, ctl, &mut children).unwrap();
    assert_eq!(children.iter().max(), Some(&59_999));
    part.parent_classes(&all, ctl, &mut parents).unwrap();
    assert_eq!(
        parents.iter().filter(|&&class| class == u32::MAX).count(),
        3
    );
    assert_eq!(part.hits(&all, ctl).unwrap().len() as u64, spans);
    let filter = SpanFilter::in_range(TimeRange::ALL);
    assert_eq!(part.newest_traces(&filter, None, 9, ctl).unwrap().len(), 3);
}

#[test]
fn a_cancelled_or_bounded_question_ends() {
    let head = Arc::new(new_head(1));
    let spans: Vec<Span> = (1..=20_000u64).map(|i| plain(0, i, i - 1, 1)).collect();
    write(&head, 1, &spans, false);
    let part = SpanPart::of_head(&head, Lsn(1)).next().unwrap();
    let filter = SpanFilter::in_range(TimeRange::ALL);
    let all = part.select(&filter, &control()).unwrap();
    let ctl = control();
    ctl.cancel();
    assert!(part.select(&filter, &ctl).is_err());
    for axis in AXES {
        assert!(part.relatives(&all, axis, &ctl).is_err());
    }
    let limits = QueryLimits {
        spans_max: 5_000,
        ..QueryLimits::default()
    };
    let clock = Arc::new(rootline_wal::SystemClock::new());
    let bounded = || QueryControl::new(clock.clone(), None, limits.clone());
    assert!(part.select(&filter, &bounded()).is_err());
    assert!(part.relatives(&all, Axis::Child, &bounded()).is_err());
}

#[test]
fn rows_of_another_part_are_refused() {
    let head = Arc::new(new_head(1));
    write(&head, 1, &[plain(0, 1, 0, 1)], false);
    write(&head, 2, &[plain(0, 2, 1, 2)], false);
    let (ctl, block) = (control(), sealed(&head, Lsn(1)).unwrap());
    let newer: SpanRows = [1].into_iter().collect();
    for part in [
        SpanPart::of_head(&head, Lsn(1)).next().unwrap(),
        whole(&block),
    ] {
        let refused = part.durations(&newer, &ctl, &mut Vec::new());
        assert!(matches!(refused, Err(Error::NoSuchRow { row: 1 })));
        assert!(matches!(
            part.relatives(&newer, Axis::Child, &ctl),
            Err(Error::NoSuchRow { .. })
        ));
        assert!(matches!(
            part.summary(7, &ctl),
            Err(Error::NoSuchTrace { trace: 7 })
        ));
        assert!(matches!(
            part.trace_id(7),
            Err(Error::NoSuchTrace { trace: 7 })
        ));
    }
}

#[test]
fn values_are_told_apart_by_type() {
    let head = Arc::new(new_head(1));
    let values = [Value::Int(5), Value::Str("5".into()), Value::Int(5)];
    let spans: Vec<Span> = values
        .into_iter()
        .zip(1..)
        .map(|(value, id)| Span {
            attributes: vec![("code".into(), value)],
            ..plain(0, id, 0, 1)
        })
        .collect();
    write(&head, 1, &spans, false);
    let part = SpanPart::of_head(&head, Lsn(1)).next().unwrap();
    let ctl = control();
    let all = part
        .select(&SpanFilter::in_range(TimeRange::ALL), &ctl)
        .unwrap();
    let found = part.values(&all, "code", TagScope::Span, &ctl).unwrap();
    assert_eq!(found.values.len(), 2);
    assert_eq!(found.codes[0], found.codes[2]);
    assert_ne!(found.codes[0], found.codes[1]);
}
