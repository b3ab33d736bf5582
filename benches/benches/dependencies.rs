//! What does the dependency graph cost, by range, and is it right?
//!
//! Wants the workload of `bench/traces` in the directory that `ROOTLINE_BENCH_TRACES` names: `spans.otlp`
//! (a magic of 8 bytes, then bodies: length and number of spans, 32 bits each, and an
//! `ExportTraceServiceRequest`) and `truth.json`. Without it nothing is measured. Before anything is
//! timed, the graph and the peers of all spans are compared with the truth.
//!
//! Budget: the graph of 3 M spans 5 ms once they are in blocks.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a bench fails by panicking"
)]

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use criterion::{Criterion, criterion_group, criterion_main};
use rootline::otlp::decode_traces;
use rootline_engine::{EdgeKind, EdgeKinds, Engine, QueryLimits, Settings, TimeRange, Timestamp};
use rootline_query::{
    ChangeBounds, Dependencies, DependencyQuery, Memory, dependency_difference, dependency_graph,
};
use serde_json::Value;

const NS_PER_MINUTE: i64 = 60_000_000_000;

fn load(engine: &Engine, dir: &Path) {
    let mut file = BufReader::new(File::open(dir.join("spans.otlp")).unwrap());
    let mut magic = [0; 8];
    file.read_exact(&mut magic).unwrap();
    let mut body = Vec::new();
    let mut head = [0; 8];
    while file.read_exact(&mut head).is_ok() {
        let bytes = u32::from_le_bytes(head[..4].try_into().unwrap());
        body.resize(bytes as usize, 0);
        file.read_exact(&mut body).unwrap();
        let mut batch = engine.batch();
        let (_, spans, rejections) = batch.split();
        decode_traces(&body, spans, rejections).unwrap();
        engine.write(&mut batch).unwrap();
        engine.recycle(batch);
    }
}

struct Store {
    engine: Engine,
}

impl Store {
    fn graph(&self, query: &DependencyQuery) -> Dependencies {
        let snapshot = self.engine.snapshot().unwrap();
        let control = self.engine.query_control(None, QueryLimits::default());
        let mut memory = Memory::new(self.engine.budget());
        dependency_graph(&snapshot, query, &control, &mut memory).unwrap()
    }
}

/// Calls and errors by caller and callee, or the callee's system.
fn counts(graph: &Dependencies, calls: bool) -> BTreeMap<(String, String), (u64, u64)> {
    let mut found = BTreeMap::new();
    for edge in &graph.edges {
        if (edge.kind == EdgeKind::Call) != calls {
            continue;
        }
        let callee = if calls { &edge.callee } else { &edge.system };
        let sums: &mut (u64, u64) = found
            .entry((edge.caller.clone(), callee.clone()))
            .or_default();
        sums.0 += edge.duration_ns.count;
        sums.1 += edge.errors;
    }
    found
}

fn expected(edges: &Value) -> BTreeMap<(String, String), (u64, u64)> {
    let text = |edge: &Value, key: &str| edge[key].as_str().unwrap().to_owned();
    let number = |edge: &Value, key: &str| edge[key].as_u64().unwrap();
    let edges = edges.as_array().unwrap().iter();
    edges
        .map(|edge| {
            let name = (text(edge, "parent"), text(edge, "child"));
            (name, (number(edge, "calls"), number(edge, "errors")))
        })
        .collect()
}

fn check(store: &Store, truth: &Value) {
    let kinds = EdgeKinds::CALLS
        .with(EdgeKind::Database)
        .with(EdgeKind::Messaging);
    let all = DependencyQuery::calls_in(TimeRange::ALL).of_kinds(kinds);
    let graph = store.graph(&all);
    assert_eq!(counts(&graph, true), expected(&truth["dependencies"]));
    assert_eq!(
        counts(&graph, false),
        expected(&truth["external_dependencies"])
    );
    let edges = truth["dependencies"].as_array().unwrap();
    for edge in graph.edges.iter().filter(|e| e.kind == EdgeKind::Call) {
        let of_edge = edges
            .iter()
            .find(|e| e["parent"] == *edge.caller && e["child"] == *edge.callee);
        let p95_ns = of_edge.unwrap()["p95_ns"].as_f64().unwrap();
        // The truth takes another rank's duration: with many calls they lie close together.
        if edge.duration_ns.count > 2_000 {
            let off = (edge.duration_ns.p95 - p95_ns).abs() / p95_ns;
            assert!(off < 0.02, "{edge:?}: p95 {p95_ns}");
        }
    }
}

fn bench(c: &mut Criterion) {
    let Some(dir) = std::env::var_os("ROOTLINE_BENCH_TRACES").map(PathBuf::from) else {
        eprintln!("ROOTLINE_BENCH_TRACES is not set: nothing to measure");
        return;
    };
    let truth: Value =
        serde_json::from_slice(&std::fs::read(dir.join("truth.json")).unwrap()).unwrap();
    let data = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.memory_limit_bytes = 4 << 30;
    let engine = Engine::builder(data.path())
        .settings(settings)
        .open()
        .unwrap();
    let store = Store { engine };
    load(&store.engine, &dir);
    for state in ["as_written", "flushed", "compacted"] {
        match state {
            "flushed" => drop(store.engine.flush().unwrap()),
            "compacted" => drop(store.engine.compact().unwrap()),
            _ => {}
        }
        let stats = store.engine.stats();
        let (blocks, bytes) = (stats.blocks, stats.block_bytes);
        let head = stats.spans.spans;
        eprintln!("dependencies/{state}: {blocks} blocks of {bytes} bytes, {head} spans in memory");
        check(&store, &truth);
        let start = truth["start_ns"].as_i64().unwrap();
        let minutes = |from: i64, to: i64| {
            let at = |minute: i64| Timestamp::from_nanos(start + minute * NS_PER_MINUTE);
            TimeRange::new(at(from), at(to)).unwrap()
        };
        let mut group = c.benchmark_group(format!("dependencies/{state}"));
        group.sample_size(10);
        group.warm_up_time(Duration::from_millis(500));
        group.measurement_time(Duration::from_secs(2));
        let all = DependencyQuery::calls_in(TimeRange::ALL);
        let questions = [
            ("all", all.clone()),
            ("half_an_hour", DependencyQuery::calls_in(minutes(10, 40))),
            ("five_minutes", DependencyQuery::calls_in(minutes(20, 25))),
            (
                "of_one_caller",
                DependencyQuery {
                    caller: Some("api-gateway".to_owned()),
                    exact_calls_max: 0,
                    ..all.clone()
                },
            ),
            ("all_kinds", all.clone().of_kinds(EdgeKinds::ALL)),
        ];
        for (name, query) in questions {
            group.bench_function(name, |bench| bench.iter(|| store.graph(&query)));
        }
        group.bench_function("difference_of_ten_minutes", |bench| {
            bench.iter(|| {
                let snapshot = store.engine.snapshot().unwrap();
                let control = store.engine.query_control(None, QueryLimits::default());
                let mut memory = Memory::new(store.engine.budget());
                dependency_difference(
                    &snapshot,
                    minutes(10, 20),
                    minutes(20, 30),
                    &all,
                    ChangeBounds::default(),
                    &control,
                    &mut memory,
                )
                .unwrap()
            });
        });
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
