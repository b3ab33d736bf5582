//! The promise guarded here: what the query layer computes over a real store equals what a plain loop
//! over the written data gives, and pages of a search miss and repeat nothing that did not change.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use proptest::prelude::*;
use rootline_engine::{
    Engine, ErrorKind, Labels, MatchOp, Matcher, QueryControl, QueryLimits, ResourceFields,
    ScopeFields, Settings, SpanFields, SpanId, SpanKind, StatusCode, TimeRange, Timestamp, TraceId,
    ValueRef,
};
use rootline_query::{
    Error, GroupSamplesBy, GroupSpansBy, Memory, MetricStatsGroup, STALENESS_MARKER_BITS, Selector,
    SpanConditions, dependencies, duration_stats, find_traces, metric_stats, span_starts,
};
use tempfile::TempDir;

const SERVICES: [&str; 4] = ["checkout", "frontend", "payment", "stock"];

struct Store {
    engine: Engine,
    _dir: TempDir,
}

impl Store {
    fn new() -> Self {
        Self::with_memory(1 << 30)
    }

    fn with_memory(limit_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.memory_limit_bytes = limit_bytes;
        let engine = Engine::builder(dir.path())
            .settings(settings)
            .open()
            .unwrap();
        Self { engine, _dir: dir }
    }

    fn control(&self) -> QueryControl {
        self.engine.query_control(None, QueryLimits::default())
    }

    fn memory(&self) -> Memory {
        Memory::new(self.engine.budget())
    }

    fn write_samples(&self, labels: &[(&str, &str)], samples: &[(i64, f64)]) {
        let mut batch = self.engine.batch();
        let row = batch
            .metrics()
            .series(&Labels::from_pairs(labels.iter().copied()).unwrap());
        for &(t, v) in samples {
            batch.metrics().sample(row, Timestamp::from_nanos(t), v);
        }
        self.engine.write(&mut batch).unwrap();
    }

    fn write_spans(&self, spans: &[TestSpan]) {
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
            writer.attribute("user", ValueRef::Int(span.user));
            let (start, end) = (span.start, span.start + span.duration);
            let start = Timestamp::from_nanos(start);
            let end = Timestamp::from_nanos(end);
            let id = span_id(span.id);
            let fields = SpanFields {
                parent_span_id: span.parent.map(span_id),
                kind: SpanKind::Server,
                status: if span.error {
                    StatusCode::Error
                } else {
                    StatusCode::Unset
                },
                ..SpanFields::new(trace_id(span.trace), id, span.name, start, end)
            };
            writer.finish(&fields).unwrap();
        }
        self.engine.write(&mut batch).unwrap();
    }

    fn stats(
        &self,
        selector: &str,
        range: TimeRange,
        by: &GroupSamplesBy,
    ) -> Vec<MetricStatsGroup> {
        let selector = Selector::parse(selector).unwrap();
        let snapshot = self.engine.snapshot().unwrap();
        let mut groups = Vec::new();
        let mut memory = self.memory();
        let matchers = selector.matchers();
        metric_stats(
            &snapshot,
            matchers,
            range,
            by,
            &self.control(),
            &mut memory,
            &mut |group| {
                groups.push(group);
                Ok(ControlFlow::Continue(()))
            },
        )
        .unwrap();
        groups
    }
}

#[derive(Clone, Debug)]
struct TestSpan {
    trace: u64,
    id: u64,
    parent: Option<u64>,
    service: usize,
    name: &'static str,
    start: i64,
    duration: i64,
    error: bool,
    user: i64,
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

fn by(names: &[&str]) -> GroupSamplesBy {
    GroupSamplesBy::Labels(names.iter().map(|&n| n.to_owned()).collect())
}

/// Mean, population deviation and numpy's default quantiles, by sorting.
fn plain_figures(values: &[f64]) -> (f64, f64, [f64; 3]) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let quantiles = [0.5, 0.95, 0.99].map(|q| {
        let h = (n - 1.0) * q;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank"
        )]
        let low = h.floor() as usize;
        let high = (low + 1).min(sorted.len() - 1);
        sorted[low] + (h - h.floor()) * (sorted[high] - sorted[low])
    });
    (mean, variance.sqrt(), quantiles)
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
}

#[test]
fn staleness_markers_and_nan_are_left_out_and_counted() {
    let store = Store::new();
    let stale = f64::from_bits(STALENESS_MARKER_BITS);
    store.write_samples(
        &[("__name__", "m")],
        &[(1, 2.0), (2, f64::NAN), (3, 4.0), (4, stale)],
    );
    let groups = store.stats("m", TimeRange::ALL, &by(&[]));
    let [group] = groups.as_slice() else {
        panic!("{groups:?}")
    };
    let statistics = group.statistics.unwrap();
    assert_eq!(
        (statistics.count, statistics.sum, statistics.max),
        (2, 6.0, 4.0)
    );
    assert_eq!(
        (group.nan_samples, group.stale_samples, group.series),
        (1, 1, 1)
    );
    let times = (Timestamp::from_nanos(1), Timestamp::from_nanos(3));
    assert_eq!(group.times, Some(times));
}

#[test]
fn each_series_is_a_group_when_asked() {
    let store = Store::new();
    store.write_samples(&[("__name__", "m"), ("a", "2")], &[(1, 2.0), (2, 3.0)]);
    store.write_samples(&[("__name__", "m"), ("a", "1")], &[(1, 5.0)]);
    let groups = store.stats("m", TimeRange::ALL, &GroupSamplesBy::Series);
    let counts: Vec<_> = groups
        .iter()
        .map(|g| {
            (
                g.labels.get("a").unwrap().to_owned(),
                g.statistics.unwrap().count,
            )
        })
        .collect();
    assert_eq!(counts, [("1".to_owned(), 1), ("2".to_owned(), 2)]);
}

#[test]
fn statistics_past_the_memory_limit_end_transiently() {
    let store = Store::with_memory(6 << 20);
    let samples: Vec<(i64, f64)> = (0..200_000).map(|i| (i, 1.0)).collect();
    for series in 0..4 {
        let name = series.to_string();
        store.write_samples(&[("__name__", "m"), ("s", &name)], &samples);
    }
    let snapshot = store.engine.snapshot().unwrap();
    let before = store.engine.budget().used_bytes();
    let mut memory = store.memory();
    let matchers = [Matcher::equal("__name__", "m")];
    let mut groups = 0;
    let error = metric_stats(
        &snapshot,
        &matchers,
        TimeRange::ALL,
        &by(&[]),
        &store.control(),
        &mut memory,
        &mut |_| {
            groups += 1;
            Ok(ControlFlow::Continue(()))
        },
    )
    .unwrap_err();
    assert_eq!((error.kind(), groups), (ErrorKind::Retry, 0), "{error}");
    drop(memory);
    assert_eq!(store.engine.budget().used_bytes(), before);
}

#[test]
fn a_cancelled_query_stops() {
    let store = Store::new();
    store.write_spans(&[span(0, 0, None, 0, 10)]);
    let snapshot = store.engine.snapshot().unwrap();
    let control = store.control();
    control.cancel();
    let mut memory = store.memory();
    let all = TimeRange::ALL;
    let stopped = dependencies(&snapshot, all, None, None, &control, &mut memory).unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Cancelled);
}

fn span(trace: u64, id: u64, parent: Option<u64>, service: usize, start: i64) -> TestSpan {
    TestSpan {
        trace,
        id,
        parent,
        service,
        name: "op",
        start,
        duration: 5,
        error: false,
        user: 7,
    }
}

#[test]
fn conditions_meet_in_one_span() {
    let store = Store::new();
    let mut slow = span(1, 10, None, 0, 100);
    slow.duration = 50;
    let mut failed = span(1, 11, Some(10), 1, 110);
    failed.error = true;
    store.write_spans(&[slow, failed, span(2, 20, None, 1, 200)]);
    let snapshot = store.engine.snapshot().unwrap();
    let found = |conditions: &SpanConditions| {
        let (control, mut memory) = (store.control(), store.memory());
        let all = TimeRange::ALL;
        let found = find_traces(&snapshot, conditions, all, 10, "", &control, &mut memory).unwrap();
        found
            .traces
            .iter()
            .map(|t| (t.summary.id, t.matched_spans))
            .collect::<Vec<_>>()
    };
    let conditions = SpanConditions {
        service: Some("frontend".into()),
        ..Default::default()
    };
    assert_eq!(found(&conditions), [(trace_id(2), 1), (trace_id(1), 1)]);
    let conditions = SpanConditions {
        status: Some(StatusCode::Error),
        ..conditions
    };
    assert_eq!(found(&conditions), [(trace_id(1), 1)]);
    let conditions = SpanConditions {
        min_duration_ns: Some(50),
        ..conditions
    };
    assert_eq!(found(&conditions), [], "slow is one span, failed another");
    let user = Matcher::new(MatchOp::Regex, "user", "7|8").unwrap();
    let conditions = SpanConditions {
        tags: vec![user],
        ..Default::default()
    };
    assert_eq!(found(&conditions), [(trace_id(2), 1), (trace_id(1), 2)]);
    let conditions = SpanConditions {
        min_duration_ns: Some(2),
        max_duration_ns: Some(1),
        ..Default::default()
    };
    let refused = conditions.filter(TimeRange::ALL).unwrap_err();
    assert!(matches!(refused, Error::EmptyDurationRange { .. }));
}

#[test]
fn a_trace_that_does_not_change_is_on_one_page_whatever_is_written_meanwhile() {
    let store = Store::new();
    for trace in 0..7 {
        store.write_spans(&[span(
            trace,
            trace,
            None,
            0,
            1_000 + i64::try_from(trace).unwrap(),
        )]);
    }
    let conditions = SpanConditions {
        service: Some(SERVICES[0].into()),
        ..Default::default()
    };
    let mut found: Vec<TraceId> = Vec::new();
    let mut token = String::new();
    for page in 1.. {
        let snapshot = store.engine.snapshot().unwrap();
        let (control, mut memory) = (store.control(), store.memory());
        let all = TimeRange::ALL;
        let answer = find_traces(
            &snapshot,
            &conditions,
            all,
            3,
            &token,
            &control,
            &mut memory,
        )
        .unwrap();
        assert_eq!(answer.lsn, snapshot.lsn());
        found.extend(answer.traces.iter().map(|t| t.summary.id));
        // A newer trace, one in the middle, and another match in a trace already shown.
        store.write_spans(&[
            span(100 + page, 100 + page, None, 0, 5_000),
            span(200 + page, 200 + page, None, 0, 1_002),
            span(6, 300 + page, None, 0, 1_009),
        ]);
        match answer.next {
            Some(next) => token = next,
            None => break,
        }
    }
    // Trace 201 came before its place was passed, at 1,002 and above 2; the others came too late.
    let expected = [6, 5, 4, 3, 201, 2, 1, 0].map(trace_id);
    assert_eq!(found, expected);
}

#[test]
fn a_trace_that_begins_earlier_by_now_is_shown_again_at_its_new_place() {
    let store = Store::new();
    store.write_spans(&[span(1, 1, None, 0, 300), span(2, 2, None, 0, 200)]);
    let ask = |token: &str| {
        let snapshot = store.engine.snapshot().unwrap();
        let (control, mut memory) = (store.control(), store.memory());
        let everything = SpanConditions::default();
        let all = TimeRange::ALL;
        find_traces(&snapshot, &everything, all, 1, token, &control, &mut memory).unwrap()
    };
    let first = ask("");
    assert_eq!(first.traces[0].summary.id, trace_id(1));
    store.write_spans(&[span(1, 3, None, 0, 100)]);
    let second = ask(&first.next.unwrap());
    assert_eq!(second.traces[0].summary.id, trace_id(2));
    let third = ask(&second.next.unwrap());
    assert_eq!(third.traces[0].summary.id, trace_id(1));
    assert_eq!((third.traces[0].matched_spans, third.next), (2, None));
}

#[test]
fn a_token_of_another_search_or_store_is_refused_as_such() {
    let store = Store::new();
    for trace in 0..3 {
        store.write_spans(&[span(trace, trace, None, 0, 10)]);
    }
    let conditions = SpanConditions::default();
    let ask = |store: &Store, range, token: &str| {
        let snapshot = store.engine.snapshot().unwrap();
        let (control, mut memory) = (store.control(), store.memory());
        find_traces(
            &snapshot,
            &conditions,
            range,
            2,
            token,
            &control,
            &mut memory,
        )
    };
    let token = ask(&store, TimeRange::ALL, "").unwrap().next.unwrap();
    assert_eq!(ask(&store, TimeRange::ALL, &token).unwrap().traces.len(), 1);
    for (store, range, token) in [
        (&store, range(0, 100), token.as_str()),
        (&store, TimeRange::ALL, "nonsense"),
        (&Store::new(), TimeRange::ALL, token.as_str()),
    ] {
        let refused = ask(store, range, token).unwrap_err();
        assert!(matches!(refused, Error::PageToken { .. }), "{refused}");
        assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
    }
}

fn any_spans() -> impl Strategy<Value = Vec<TestSpan>> {
    let span = (
        0u64..6,
        0usize..4,
        0i64..1_000,
        0i64..500,
        any::<bool>(),
        any::<u64>(),
        0usize..2,
    );
    prop::collection::vec(span, 1..60).prop_map(|raw| {
        raw.into_iter()
            .enumerate()
            .map(
                |(i, (trace, service, start, duration, error, parent, name))| {
                    let id = i as u64;
                    // A lower id, often in the same trace, sometimes in another or nowhere.
                    let parent = (parent % 4 > 0 && id > 0).then(|| parent % id);
                    let name = ["get", "put"][name];
                    TestSpan {
                        trace,
                        id,
                        parent,
                        service,
                        name,
                        start,
                        duration,
                        error,
                        user: 1,
                    }
                },
            )
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn metric_stats_agree_with_a_plain_loop(
        series in prop::collection::vec(
            ((0..3u8, 0..3u8), prop::collection::btree_map(0i64..200, -1e6f64..1e6, 0..40)), 1..8),
        start in 0i64..150,
        length in 0i64..200,
    ) {
        let store = Store::new();
        let mut stored: BTreeMap<(u8, u8), BTreeMap<i64, f64>> = BTreeMap::new();
        for ((a, b), samples) in series {
            let (la, lb) = (a.to_string(), b.to_string());
            let samples: Vec<(i64, f64)> = samples.into_iter().collect();
            store.write_samples(&[("__name__", "m"), ("a", &la), ("b", &lb)], &samples);
            stored.entry((a, b)).or_default().extend(samples);
        }
        let asked = range(start, start + length);
        let mut expected: BTreeMap<String, (u64, Vec<f64>)> = BTreeMap::new();
        for ((a, _), samples) in &stored {
            let inside: Vec<f64> = samples.range(start..=start + length).map(|s| *s.1).collect();
            if !inside.is_empty() {
                let group = expected.entry(a.to_string()).or_default();
                group.0 += 1;
                group.1.extend(inside);
            }
        }
        let groups = store.stats("m", asked, &by(&["a", "absent"]));
        prop_assert_eq!(groups.len(), expected.len());
        for (group, (a, (series, values))) in groups.iter().zip(expected) {
            prop_assert_eq!(group.labels.get("a").unwrap(), a);
            prop_assert_eq!(group.series, series);
            let s = group.statistics.unwrap();
            let (mean, stddev, quantiles) = plain_figures(&values);
            prop_assert_eq!(s.count, values.len() as u64);
            prop_assert!(near(s.mean, mean) && near(s.stddev, stddev));
            for (found, plain) in [s.p50, s.p95, s.p99].into_iter().zip(quantiles) {
                prop_assert!(near(found, plain));
            }
        }
    }

    #[test]
    fn dependencies_and_durations_agree_with_a_plain_loop(
        spans in any_spans(), start in 0i64..800, length in 0i64..1_000,
    ) {
        let store = Store::new();
        // Children before parents, over several batches.
        let reversed: Vec<TestSpan> = spans.iter().rev().cloned().collect();
        for batch in reversed.chunks(7) {
            store.write_spans(batch);
        }
        let snapshot = store.engine.snapshot().unwrap();
        let (control, mut memory) = (store.control(), store.memory());
        let asked = range(start, start + length);

        let mut edges: BTreeMap<(&str, &str), (u64, Vec<f64>)> = BTreeMap::new();
        let mut groups: BTreeMap<(&str, &str), (u64, Vec<f64>)> = BTreeMap::new();
        let mut starts = BTreeSet::new();
        for span in &spans {
            if span.service == 2 {
                starts.insert(span.start);
            }
            if !(start..=start + length).contains(&span.start) {
                continue;
            }
            let group = groups.entry((SERVICES[span.service], span.name)).or_default();
            group.0 += u64::from(span.error);
            group.1.push(span.duration as f64);
            let parent = spans.iter().find(|p| Some(p.id) == span.parent && p.trace == span.trace);
            if let Some(parent) = parent.filter(|parent| parent.service != span.service) {
                let edge = (SERVICES[parent.service], SERVICES[span.service]);
                let edge = edges.entry(edge).or_default();
                edge.0 += u64::from(span.error);
                edge.1.push(span.duration as f64);
            }
        }

        let graph = dependencies(&snapshot, asked, None, None, &control, &mut memory).unwrap();
        let found: Vec<_> = graph.edges.iter()
            .map(|e| (e.caller.as_str(), e.callee.as_str(), e.duration_ns.count, e.errors)).collect();
        let expected: Vec<_> =
            edges.iter().map(|((a, b), (errors, d))| (*a, *b, d.len() as u64, *errors)).collect();
        prop_assert_eq!(found, expected);
        for (edge, (_, durations)) in graph.edges.iter().zip(edges.values()) {
            let (mean, _, quantiles) = plain_figures(durations);
            let s = edge.duration_ns;
            prop_assert!(near(s.mean, mean) && near(s.p50, quantiles[0]) && near(s.p99, quantiles[2]));
        }
        let one = dependencies(
            &snapshot, asked, Some("frontend"), Some("payment"), &control, &mut memory,
        ).unwrap();
        let wanted = graph.edges.into_iter()
            .filter(|e| e.caller == "frontend" && e.callee == "payment").collect::<Vec<_>>();
        prop_assert_eq!(one.edges, wanted);

        let everything = SpanConditions::default();
        let stats = duration_stats(
            &snapshot, &everything, asked, GroupSpansBy::Operation, &control, &mut memory,
        ).unwrap();
        prop_assert_eq!(stats.groups.len(), groups.len());
        for (found, ((service, name), (errors, durations))) in stats.groups.iter().zip(&groups) {
            prop_assert_eq!(found.service.as_deref(), Some(*service));
            prop_assert_eq!(found.operation.as_deref(), Some(*name));
            prop_assert_eq!((found.errors, found.duration_ns.count), (*errors, durations.len() as u64));
            let (_, stddev, quantiles) = plain_figures(durations);
            prop_assert!(near(found.duration_ns.stddev, stddev));
            prop_assert!(near(found.duration_ns.p95, quantiles[1]));
        }

        let payment = SpanConditions { service: Some("payment".into()), ..Default::default() };
        let bounds = span_starts(&snapshot, &payment, &control).unwrap();
        let ends = bounds.map(|b| (b.start().as_nanos(), b.end().as_nanos()));
        prop_assert_eq!(ends, starts.first().copied().zip(starts.last().copied()));
    }
}
