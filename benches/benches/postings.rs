//! What do postings and selections cost at a million rows?

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rootline_index::{MatchOp, Matcher, MemIndex, Postings, Symbol, Symbols};

const ROWS: u32 = 1_000_000;

/// Every `step`-th row from `first` on.
fn every(step: usize, first: u32) -> Postings {
    (first..ROWS).step_by(step).collect()
}

fn bench_postings(c: &mut Criterion) {
    let mut group = c.benchmark_group("postings");
    group.sample_size(20);
    for (name, step) in [("dense", 1), ("one_in_16", 16), ("one_in_1000", 1000)] {
        let (a, b) = (every(step, 0), every(step, 1));
        eprintln!(
            "bytes postings/{name}: {} for {} rows",
            a.heap_bytes(),
            a.len()
        );
        group.throughput(Throughput::Elements(a.len()));
        group.bench_function(format!("push/{name}"), |bench| {
            bench.iter(|| every(black_box(step), 0));
        });
        group.bench_function(format!("intersect/{name}"), |bench| {
            bench.iter_batched(
                || a.to_bitmap(),
                |mut bitmap| {
                    b.intersect_into(&mut bitmap);
                    bitmap
                },
                BatchSize::LargeInput,
            );
        });
        group.bench_function(format!("union/{name}"), |bench| {
            bench.iter_batched(
                || a.to_bitmap(),
                |mut bitmap| {
                    b.union_into(&mut bitmap);
                    bitmap
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// A million series: one metric in a hundred, ten thousand instances, a label of its own for each.
fn million_series() -> (MemIndex, Symbols, Vec<[(Symbol, Symbol); 3]>) {
    let mut symbols = Symbols::new();
    let [metric, instance, id] = ["__name__", "instance", "id"].map(|name| symbols.intern(name));
    let mut series = Vec::new();
    for row in 0..ROWS {
        series.push([
            (metric, symbols.intern(&format!("metric_{}", row % 100))),
            (
                instance,
                symbols.intern(&format!("10.0.{}.{}:9100", row % 10_000 / 100, row % 100)),
            ),
            (id, symbols.intern(&format!("id-{row:07}"))),
        ]);
    }
    let mut index = MemIndex::new();
    for (row, pairs) in (0..).zip(&series) {
        index.insert(row, pairs);
    }
    (index, symbols, series)
}

fn bench_index(c: &mut Criterion) {
    let (index, symbols, series) = million_series();
    eprintln!(
        "bytes/series at a million: index {:.1}, symbols {:.1}",
        index.heap_bytes() as f64 / f64::from(ROWS),
        symbols.heap_bytes() as f64 / f64::from(ROWS),
    );
    let mut group = c.benchmark_group("mem_index");
    group.sample_size(10);
    group.throughput(Throughput::Elements(u64::from(ROWS)));
    group.bench_function("insert_a_million_series", |b| {
        b.iter(|| {
            let mut index = MemIndex::new();
            for (row, pairs) in (0..).zip(&series) {
                index.insert(row, pairs);
            }
            index
        });
    });
    group.finish();

    let matcher = |op, name, value| Matcher::new(op, name, value).expect("a valid pattern");
    let selections = [
        (
            "equal",
            vec![
                Matcher::equal("__name__", "metric_7"),
                Matcher::equal("id", "id-0000007"),
            ],
        ),
        (
            "metric_and_instance_pattern",
            vec![
                Matcher::equal("__name__", "metric_7"),
                matcher(MatchOp::Regex, "instance", r"10\.0\.[0-4]\..*"),
            ],
        ),
        (
            "prefix_over_a_million_values",
            vec![matcher(MatchOp::Regex, "id", "id-00001.*")],
        ),
        (
            "pattern_over_a_million_values",
            vec![matcher(MatchOp::Regex, "id", "id-.*(12|34)5+")],
        ),
        (
            "negative",
            vec![
                Matcher::equal("__name__", "metric_7"),
                matcher(MatchOp::NotEqual, "instance", "10.0.0.7:9100"),
            ],
        ),
    ];
    let mut group = c.benchmark_group("select");
    group.sample_size(10);
    for (name, matchers) in &selections {
        group.bench_function(*name, |b| {
            b.iter(|| index.select(black_box(matchers), &symbols));
        });
    }
    group.finish();

    let mut group = c.benchmark_group("symbols");
    let names: Vec<String> = (0..1000).map(|i| format!("id-{:07}", i * 997)).collect();
    group.throughput(Throughput::Elements(names.len() as u64));
    group.bench_function("get_among_a_million", |b| {
        b.iter(|| {
            names
                .iter()
                .filter(|name| symbols.get(black_box(name)).is_some())
                .count()
        });
    });
    group.finish();
}

criterion_group!(benches, bench_postings, bench_index);
criterion_main!(benches);
