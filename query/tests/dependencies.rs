//! The promise guarded here: the dependency graph of any range, whatever was flushed, merged, deleted or
//! came late, equals what a plain loop over whole traces finds.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};
use rootline_engine::{
    EdgeKind, EdgeKinds, Engine, LinkFields, QueryLimits, ResourceFields, ScopeFields, Settings,
    Snapshot, Span, SpanCondition, SpanFields, SpanFilter, SpanId, SpanKind, StatusCode,
    StringMatch, TimeRange, Timestamp, Trace, TraceId, ValueRef,
};
use rootline_query::{
    ChangeBounds, Dependencies, DependencyQuery, Memory, Statistics, dependency_difference,
    dependency_graph,
};
use tempfile::TempDir;

const SERVICES: [&str; 4] = ["cart", "frontend", "payment", "stock"];
const TRACES: u64 = 5;
const MINUTE: i64 = 60_000_000_000;

/// What a span may say of its peer.
const PEERS: [&[(&str, &str)]; 7] = [
    &[],
    &[("db.system", "postgresql"), ("db.name", "orders")],
    &[("db.system.name", "redis")],
    &[
        ("messaging.system", "kafka"),
        ("messaging.destination.name", "orders"),
    ],
    &[("messaging.system", "rabbitmq")],
    &[("net.peer.name", "bank.example")],
    &[("http.url", "https://tax.example:443/vat"), ("user", "7")],
];

#[derive(Clone, Debug)]
struct TestSpan {
    trace: u64,
    id: u64,
    parent: Option<u64>,
    service: usize,
    kind: i32,
    start: i64,
    duration: i64,
    error: bool,
    peer: usize,
    link: Option<(u64, u64)>,
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<TestSpan>),
    DeleteTrace(u64),
    /// The spans of a service that failed.
    DeleteErrors(usize),
    Flush,
    Compact,
}

fn any_span() -> impl Strategy<Value = TestSpan> {
    let start = prop_oneof![
        4 => 0i64..5 * MINUTE,
        1 => 0i64..3_000 * MINUTE,
        1 => (0i64..5).prop_map(|minute| minute * MINUTE),
    ];
    let place = (
        0..TRACES,
        0u64..9,
        proptest::option::of(0u64..9),
        0..SERVICES.len(),
    );
    let times = (start, prop_oneof![0i64..200, 0i64..40 * MINUTE]);
    let link = proptest::option::weighted(0.2, (0..TRACES + 1, 0u64..9));
    let rest = (0i32..6, any::<bool>(), 0..PEERS.len(), link);
    (place, times, rest).prop_map(
        |((trace, id, parent, service), (start, duration), (kind, error, peer, link))| TestSpan {
            trace,
            id,
            parent,
            service,
            kind,
            start,
            duration,
            error,
            peer,
            link,
        },
    )
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => vec(any_span(), 1..25).prop_map(Step::Write),
        1 => (0..TRACES).prop_map(Step::DeleteTrace),
        1 => (0..SERVICES.len()).prop_map(Step::DeleteErrors),
        3 => Just(Step::Flush),
        1 => Just(Step::Compact),
    ];
    vec(step, 1..10)
}

fn trace_id(n: u64) -> TraceId {
    TraceId::from_slice(&u128::from(n + 1).to_be_bytes()).unwrap()
}

fn span_id(n: u64) -> SpanId {
    SpanId::from_slice(&(n + 1).to_be_bytes()).unwrap()
}

fn range(start: i64, end: i64) -> TimeRange {
    TimeRange::new(Timestamp::from_nanos(start), Timestamp::from_nanos(end)).unwrap()
}

struct Store {
    engine: Engine,
    _dir: TempDir,
}

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::default();
        let engine = Engine::builder(dir.path())
            .settings(settings)
            .open()
            .unwrap();
        Self { engine, _dir: dir }
    }

    fn after(steps: &[Step]) -> Self {
        let store = Self::new();
        for step in steps {
            match step {
                Step::Write(spans) => store.write(spans),
                Step::DeleteTrace(trace) => {
                    store.engine.delete_trace(trace_id(*trace)).unwrap();
                }
                Step::DeleteErrors(service) => {
                    let service = StringMatch::equal(SERVICES[*service]);
                    let failed = SpanFilter::in_range(TimeRange::ALL)
                        .and(SpanCondition::Service(service))
                        .and(SpanCondition::Status(StatusCode::Error));
                    store.engine.delete_spans(&failed).unwrap();
                }
                Step::Flush => {
                    store.engine.flush().unwrap();
                }
                Step::Compact => {
                    store.engine.compact().unwrap();
                }
            }
        }
        store
    }

    fn write(&self, spans: &[TestSpan]) {
        let mut batch = self.engine.batch();
        for span in spans {
            let attributes = [("service.name", ValueRef::Str(SERVICES[span.service]))];
            let fields = ResourceFields {
                attributes: &attributes,
                ..ResourceFields::default()
            };
            let resource = batch.spans().resource(&fields).unwrap();
            let scope = batch.spans().scope(&ScopeFields::default()).unwrap();
            let mut writer = batch.spans().span(resource, scope);
            for (key, value) in PEERS[span.peer] {
                writer.attribute(key, ValueRef::Str(value));
            }
            if let Some((trace, id)) = span.link {
                writer.link(&LinkFields {
                    trace_id: Some(trace_id(trace)),
                    span_id: Some(span_id(id)),
                    trace_state: "",
                    flags: 0,
                    dropped_attributes_count: 0,
                });
            }
            let start = Timestamp::from_nanos(span.start);
            let end = Timestamp::from_nanos(span.start + span.duration);
            let fields = SpanFields {
                parent_span_id: span.parent.map(span_id),
                kind: SpanKind::from_number(span.kind).unwrap(),
                status: if span.error {
                    StatusCode::Error
                } else {
                    StatusCode::Unset
                },
                ..SpanFields::new(trace_id(span.trace), span_id(span.id), "op", start, end)
            };
            writer.finish(&fields).unwrap();
        }
        self.engine.write(&mut batch).unwrap();
    }

    fn graph(&self, snapshot: &Snapshot, query: &DependencyQuery) -> Dependencies {
        let control = self.engine.query_control(None, QueryLimits::default());
        let mut memory = Memory::new(self.engine.budget());
        dependency_graph(snapshot, query, &control, &mut memory).unwrap()
    }

    fn traces(&self, snapshot: &Snapshot) -> Vec<Trace> {
        let control = self.engine.query_control(None, QueryLimits::default());
        (0..TRACES)
            .filter_map(|trace| snapshot.trace(trace_id(trace), &control).unwrap())
            .collect()
    }
}

type Name = (String, String, EdgeKind, String);
/// Errors and durations.
type Plain = BTreeMap<Name, (u64, Vec<f64>)>;

fn attribute<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    let mut found = span.attributes.iter().filter(|(k, _)| &**k == key);
    found.next().and_then(|(_, value)| value.as_str())
}

fn first(span: &Span, keys: &[&str]) -> Option<String> {
    keys.iter()
        .find_map(|key| attribute(span, key))
        .map(str::to_owned)
}

/// The kind, peer and system that a span's own attributes say.
fn plain_peer(span: &Span, answered: bool) -> Option<(EdgeKind, String, String)> {
    let client = span.kind == SpanKind::Client;
    if let Some(system) = first(span, &["db.system.name", "db.system"]).filter(|_| client) {
        let peer = first(span, &["db.name"]).unwrap_or_else(|| system.clone());
        return (!answered).then_some((EdgeKind::Database, peer, system));
    }
    if let Some(system) = first(span, &["messaging.system"]) {
        let sends = client || span.kind == SpanKind::Producer;
        let peer = first(span, &["messaging.destination.name"]).unwrap_or_else(|| system.clone());
        return sends.then_some((EdgeKind::Messaging, peer, system));
    }
    let url = attribute(span, "http.url").map(|_| "tax.example".to_owned());
    let peer = first(span, &["net.peer.name"]).or(url)?;
    (client && !answered).then_some((EdgeKind::External, peer, String::new()))
}

fn plain_graph(traces: &[Trace], query: &DependencyQuery) -> (Plain, u64) {
    let (mut edges, mut unresolved) = (Plain::new(), 0);
    let mut add = |kind, caller: &str, callee: &str, system: &str, span: &Span| {
        let wanted = |wanted: &Option<String>, name| wanted.as_ref().is_none_or(|w| w == name);
        if !query.kinds.contains(kind)
            || !wanted(&query.caller, caller)
            || !wanted(&query.callee, callee)
        {
            return;
        }
        let name = (
            caller.to_owned(),
            callee.to_owned(),
            kind,
            system.to_owned(),
        );
        let edge = edges.entry(name).or_default();
        edge.0 += u64::from(span.status == StatusCode::Error);
        edge.1.push(span.duration_ns() as f64);
    };
    for trace in traces {
        let parent_of = |i: usize| trace.parents[i].map(|parent| &trace.spans[parent as usize]);
        for (i, span) in trace.spans.iter().enumerate() {
            if !query.range.contains(span.start) {
                continue;
            }
            if let Some(parent) = parent_of(i).filter(|p| p.service() != span.service()) {
                add(EdgeKind::Call, parent.service(), span.service(), "", span);
            }
            let answered = (0..trace.spans.len()).any(|child| {
                trace.parents[child].is_some_and(|parent| parent as usize == i)
                    && trace.spans[child].service() != span.service()
            });
            if let Some((kind, peer, system)) = plain_peer(span, answered) {
                add(kind, span.service(), &peer, &system, span);
            }
            for link in &span.links {
                let target = traces
                    .iter()
                    .filter(|trace| Some(trace.id) == link.trace_id)
                    .flat_map(|trace| &trace.spans)
                    .filter(|target| Some(target.span_id) == link.span_id)
                    .min_by_key(|target| (target.start, target.service().to_owned()));
                match target {
                    Some(target) if target.service() != span.service() => {
                        add(EdgeKind::Link, target.service(), span.service(), "", span);
                    }
                    Some(_) => {}
                    None => {
                        let wanted = query.callee.as_ref().is_none_or(|c| c == span.service());
                        unresolved += u64::from(wanted && query.kinds.contains(EdgeKind::Link));
                    }
                }
            }
        }
    }
    (edges, unresolved)
}

fn assert_near(found: f64, exact: f64) {
    assert!(
        (found - exact).abs() <= exact * 0.01 + 1e-9,
        "{found} instead of {exact}"
    );
}

fn assert_same(found: &Dependencies, (plain, unresolved): (Plain, u64), exact: bool) {
    assert_eq!(found.unresolved_links, unresolved);
    let names: Vec<Name> = found
        .edges
        .iter()
        .map(|e| (e.caller.clone(), e.callee.clone(), e.kind, e.system.clone()))
        .collect();
    assert_eq!(names, plain.keys().cloned().collect::<Vec<_>>());
    for (edge, (errors, mut durations)) in found.edges.iter().zip(plain.into_values()) {
        let expected = Statistics::of(&mut durations).unwrap();
        let figures = edge.duration_ns;
        assert_eq!(
            (edge.errors, figures.count, edge.exact),
            (errors, expected.count, exact)
        );
        assert_near(figures.mean, expected.mean);
        for (found, expected) in [
            (figures.p50, expected.p50),
            (figures.p95, expected.p95),
            (figures.p99, expected.p99),
            (figures.min, expected.min),
            (figures.max, expected.max),
        ] {
            if exact {
                assert_eq!(found.to_bits(), expected.to_bits());
            } else {
                assert_near(found, expected);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_range_of_any_history_is_what_the_traces_say(
        steps in any_steps(),
        starts in vec(prop_oneof![(0i64..8).prop_map(|m| m * MINUTE), 0i64..6 * MINUTE], 2..4),
        length in prop_oneof![(1i64..9).prop_map(|m| m * MINUTE - 1), 0i64..4_000 * MINUTE],
        caller in proptest::option::weighted(0.3, 0..SERVICES.len()),
        callee in proptest::option::weighted(0.3, 0..SERVICES.len()),
    ) {
        let store = Store::after(&steps);
        let snapshot = store.engine.snapshot().unwrap();
        let traces = store.traces(&snapshot);
        let ranges = starts.iter().map(|&start| range(start, start + length));
        for range in ranges.chain([TimeRange::ALL]) {
            for kinds in [EdgeKinds::CALLS, EdgeKinds::ALL] {
                let all = DependencyQuery::calls_in(range).of_kinds(kinds);
                let coarse = DependencyQuery { exact_calls_max: 0, ..all.clone() };
                let some = DependencyQuery {
                    caller: caller.map(|service| SERVICES[service].to_owned()),
                    callee: callee.map(|service| SERVICES[service].to_owned()),
                    ..all.clone()
                };
                for (query, exact) in [(all, true), (coarse, false), (some, true)] {
                    let found = store.graph(&snapshot, &query);
                    assert_same(&found, plain_graph(&traces, &query), exact);
                }
            }
        }
    }
}

fn call(trace: u64, callee: usize, start: i64, duration: i64, error: bool) -> [TestSpan; 2] {
    let root = TestSpan {
        trace,
        id: 0,
        parent: None,
        service: 1,
        kind: 3,
        start,
        duration,
        error,
        peer: 0,
        link: None,
    };
    let child = TestSpan {
        id: 1,
        parent: Some(0),
        service: callee,
        kind: 2,
        ..root.clone()
    };
    [root, child]
}

#[test]
fn two_ranges_differ_by_what_is_new_gone_slower_and_failing() {
    let store = Store::new();
    let mut spans = Vec::new();
    for i in 0..100u64 {
        let at = i64::try_from(i).unwrap() * 1_000_000;
        spans.extend(call(3 * i, 0, at, 1_000, false));
        spans.extend(call(3 * i + 1, 0, 2 * MINUTE + at, 1_000, i < 10));
        let callee = if i < 50 { 2 } else { 3 };
        let at = if i < 50 { at } else { 2 * MINUTE + at };
        spans.extend(call(3 * i + 2, callee, at, 1_000, false));
    }
    store.write(&spans);
    let (before, after) = (range(0, MINUTE - 1), range(2 * MINUTE, 3 * MINUTE - 1));
    let snapshot = store.engine.snapshot().unwrap();
    let control = store.engine.query_control(None, QueryLimits::default());
    let mut memory = Memory::new(store.engine.budget());
    let query = DependencyQuery::calls_in(TimeRange::ALL);
    let mut compare = |bounds| {
        dependency_difference(
            &snapshot,
            before,
            after,
            &query,
            bounds,
            &control,
            &mut memory,
        )
        .unwrap()
    };
    let found = compare(ChangeBounds::default());
    let names = |changes: &[rootline_query::DependencyChange]| -> Vec<String> {
        changes.iter().map(|change| change.callee.clone()).collect()
    };
    assert_eq!(names(&found.new), ["stock"]);
    assert_eq!(names(&found.gone), ["payment"]);
    assert_eq!(names(&found.changed), ["cart"]);
    assert_eq!(found.unchanged, 0);
    let (was, is) = (
        found.changed[0].before.unwrap(),
        found.changed[0].after.unwrap(),
    );
    assert_eq!(
        (was.calls, is.calls, was.errors, is.errors),
        (100, 100, 0, 10)
    );
    assert_near(is.error_rate, 0.1);
    assert_near(is.calls_per_s, 100.0 / 60.0);
    let lenient = ChangeBounds {
        error_rate: 0.2,
        ..ChangeBounds::default()
    };
    let found = compare(lenient);
    assert_eq!((found.changed.len(), found.unchanged), (0, 1));
}

#[test]
fn a_span_that_comes_late_changes_the_minute_it_belongs_to() {
    let store = Store::new();
    let [root, child] = call(0, 2, 5 * MINUTE + 7, 1_000, true);
    store.write(&[child]);
    store.engine.flush().unwrap();
    let as_of = |moment: i64| {
        let moment = Timestamp::from_nanos(moment);
        DependencyQuery::as_of(moment, std::time::Duration::from_mins(2))
    };
    let snapshot = store.engine.snapshot().unwrap();
    assert!(store.graph(&snapshot, &as_of(5 * MINUTE)).edges.is_empty());
    store.write(&[root]);
    assert!(store.graph(&snapshot, &as_of(5 * MINUTE)).edges.is_empty());
    let snapshot = store.engine.snapshot().unwrap();
    for (minute, calls) in [(4, 0), (5, 1), (6, 1), (7, 0)] {
        let graph = store.graph(&snapshot, &as_of(minute * MINUTE + 30));
        assert_eq!(graph.edges.len(), calls, "as of minute {minute}");
    }
}
