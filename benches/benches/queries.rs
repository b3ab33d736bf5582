//! What does a question cost over data in the heads: statistics of a million samples, durations and
//! dependencies of 200,000 spans, the newest traces with a tag, a trace's tree?

use std::{hint::black_box, ops::ControlFlow};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rootline_engine::{
    Engine, Labels, Matcher, QueryControl, QueryLimits, ResourceFields, ScopeFields, SpanFields,
    SpanId, TimeRange, Timestamp, TraceId, ValueRef,
};
use rootline_query::{
    GroupSamplesBy, GroupSpansBy, Memory, Selector, SpanConditions, Statistics, TraceTree,
    dependencies, duration_stats, find_traces, metric_stats,
};

const SERIES: u64 = 1_000;
const SAMPLES_A_SERIES: u64 = 1_000;
const TRACES: u64 = 10_000;
const SPANS_A_TRACE: u64 = 20;
const SERVICES: [&str; 5] = ["frontend", "checkout", "payment", "stock", "mail"];

/// The same numbers every time, spread over the range of `u64` (splitmix64).
fn scattered(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn moment(n: u64) -> Timestamp {
    Timestamp::from_unix_nanos(1_700_000_000_000_000_000 + n).expect("before 2262")
}

fn write_samples(engine: &Engine) {
    let mut batch = engine.batch();
    for s in 0..SERIES {
        let (instance, job) = (s.to_string(), (s % 10).to_string());
        let pairs = [
            ("__name__", "m"),
            ("instance", instance.as_str()),
            ("job", job.as_str()),
        ];
        let row = batch
            .metrics()
            .series(&Labels::from_pairs(pairs).expect("good labels"));
        for i in 0..SAMPLES_A_SERIES {
            let value = (scattered(s * SAMPLES_A_SERIES + i) % 100_000) as f64 / 100.0;
            batch
                .metrics()
                .sample(row, moment(i * 15_000_000_000), value);
        }
        if s % 100 == 99 {
            engine.write(&mut batch).expect("stored");
            batch.clear();
        }
    }
}

fn trace_id(trace: u64) -> TraceId {
    TraceId::new(u128::from(scattered(trace)).wrapping_add(1).to_be_bytes()).expect("not zero")
}

fn write_spans(engine: &Engine) {
    let mut batch = engine.batch();
    for trace in 0..TRACES {
        for span in 0..SPANS_A_TRACE {
            let n = trace * SPANS_A_TRACE + span;
            let service = SERVICES
                .iter()
                .cycle()
                .nth(usize::try_from(span % 5).unwrap_or(0));
            let attributes = [(
                "service.name",
                ValueRef::Str(service.unwrap_or(&"frontend")),
            )];
            let fields = ResourceFields {
                attributes: &attributes,
                ..ResourceFields::default()
            };
            let resource = batch.spans().resource(&fields).expect("a resource");
            let scope = batch
                .spans()
                .scope(&ScopeFields::default())
                .expect("a scope");
            let mut writer = batch.spans().span(resource, scope);
            writer.attribute(
                "user",
                ValueRef::Int((scattered(trace) % 1_000).cast_signed()),
            );
            let id = |n: u64| SpanId::new((n + 1).to_be_bytes()).expect("not zero");
            let start = trace * 1_000_000 + span * 1_000;
            let length = 1_000 + scattered(n) % 900_000;
            let (start, end) = (moment(start), moment(start + length));
            let fields = SpanFields {
                // A tree in which span n hangs below span n / 2.
                parent_span_id: (span > 0).then(|| id(trace * SPANS_A_TRACE + span / 2)),
                ..SpanFields::new(trace_id(trace), id(n), "op", start, end)
            };
            writer.finish(&fields).expect("a span");
        }
        if trace % 100 == 99 {
            engine.write(&mut batch).expect("stored");
            batch.clear();
        }
    }
}

fn bench_queries(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let engine = Engine::builder(dir.path()).open().expect("an engine");
    write_samples(&engine);
    write_spans(&engine);
    let snapshot = engine.snapshot().expect("a snapshot");
    let control = || -> QueryControl {
        let limits = QueryLimits {
            series_max: u64::MAX,
            samples_max: u64::MAX,
            spans_max: u64::MAX,
        };
        engine.query_control(None, limits)
    };
    let memory = || Memory::new(engine.budget());

    let mut group = c.benchmark_group("queries");
    group.sample_size(20);

    group.throughput(Throughput::Elements(1_000_000));
    group.bench_function("statistics_of_a_million_numbers", |bench| {
        let numbers: Vec<f64> = (0..1_000_000)
            .map(|n| (scattered(n) % 100_000) as f64)
            .collect();
        bench.iter_batched(
            || numbers.clone(),
            |mut numbers| Statistics::of(&mut numbers),
            BatchSize::LargeInput,
        );
    });

    let matchers = [Matcher::equal("__name__", "m")];
    group.throughput(Throughput::Elements(SERIES * SAMPLES_A_SERIES));
    for (name, by) in [
        (
            "metric_stats_by_job",
            GroupSamplesBy::Labels(vec!["job".to_owned()]),
        ),
        ("metric_stats_of_each_series", GroupSamplesBy::Series),
    ] {
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let visit = &mut |group| {
                    black_box(group);
                    Ok(ControlFlow::Continue(()))
                };
                let (control, mut memory) = (control(), memory());
                metric_stats(
                    &snapshot,
                    &matchers,
                    TimeRange::ALL,
                    &by,
                    &control,
                    &mut memory,
                    visit,
                )
                .expect("an answer")
            });
        });
    }

    group.throughput(Throughput::Elements(TRACES * SPANS_A_TRACE));
    group.bench_function("duration_stats_by_service", |bench| {
        let all = SpanConditions::default();
        let by = GroupSpansBy::Service;
        bench.iter(|| {
            duration_stats(
                &snapshot,
                &all,
                TimeRange::ALL,
                by,
                &control(),
                &mut memory(),
            )
            .expect("an answer")
        });
    });
    group.bench_function("dependencies", |bench| {
        bench.iter(|| {
            dependencies(
                &snapshot,
                TimeRange::ALL,
                None,
                None,
                &control(),
                &mut memory(),
            )
            .expect("an answer")
        });
    });
    group.bench_function("newest_traces_of_a_service", |bench| {
        let conditions = SpanConditions {
            service: Some("payment".to_owned()),
            ..SpanConditions::default()
        };
        bench.iter(|| {
            let (control, mut memory) = (control(), memory());
            find_traces(
                &snapshot,
                &conditions,
                TimeRange::ALL,
                20,
                "",
                &control,
                &mut memory,
            )
            .expect("an answer")
        });
    });
    group.bench_function("newest_traces_with_a_tag", |bench| {
        let conditions = SpanConditions {
            tags: vec![Matcher::equal("user", "7")],
            ..SpanConditions::default()
        };
        bench.iter(|| {
            let (control, mut memory) = (control(), memory());
            find_traces(
                &snapshot,
                &conditions,
                TimeRange::ALL,
                20,
                "",
                &control,
                &mut memory,
            )
            .expect("an answer")
        });
    });

    group.throughput(Throughput::Elements(SPANS_A_TRACE));
    group.bench_function("trace_tree", |bench| {
        let control = control();
        bench.iter(|| {
            let trace = snapshot.trace(trace_id(77), &control).expect("an answer");
            let trace = trace.expect("the trace is stored");
            TraceTree::of(&trace, &control, &mut memory()).expect("a tree")
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("parse_a_selector", |bench| {
        let text = r#"http_requests_total{job="api",code=~"5..",instance!="a:1"}"#;
        bench.iter(|| Selector::parse(black_box(text)).expect("a selector"));
    });
    group.finish();
}

criterion_group!(benches, bench_queries);
criterion_main!(benches);
