//! How many nanoseconds and bytes does a value cost in a sealed column?
//!
//! Budget: 1 ns to decode a value with AVX2. Shapes are seeded. Every kernel of the machine decodes: plain code,
//! AVX2, AVX-512. Sizes go to standard error before the timings.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rootline_engine::column::{integers, kernel::Kernel, times, values};

/// Values of an integer column: whole groups and a rest.
const VALUES: usize = 7_500;
/// Timestamps of a column: half a day every 10 s.
const TIMES: i64 = 4_320;
const START_NS: i64 = 1_700_000_000_123_000_000;
const MS_NS: i64 = 1_000_000;

/// A small generator whose numbers never change (xorshift, Marsaglia 2003).
struct Seeded(u64);

impl Seeded {
    fn new() -> Self {
        Self(0x5eed_5eed_5eed_5eed)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A whole number from 0 to `bound` - 1.
    fn below(&mut self, bound: i64) -> i64 {
        (self.next() % bound.cast_unsigned()).cast_signed()
    }
}

fn column(count: usize, mut value: impl FnMut(i64, &mut Seeded) -> i64) -> Vec<i64> {
    let mut seeded = Seeded::new();
    (0..).take(count).map(|i| value(i, &mut seeded)).collect()
}

fn integer_columns() -> Vec<(&'static str, Vec<i64>)> {
    let (mut walk, mut counter, mut bursts) = (0, 0, 0);
    let (mut speed, mut smooth) = (0, 0);
    vec![
        ("constant", column(VALUES, |_, _| 42)),
        ("10 bits", column(VALUES, |_, seeded| seeded.below(1024))),
        ("20 bits", column(VALUES, |_, seeded| seeded.below(1 << 20))),
        (
            "walk",
            column(VALUES, |_, seeded| {
                walk += seeded.below(101) - 50;
                walk
            }),
        ),
        (
            "counter",
            column(VALUES, |_, seeded| {
                counter += seeded.below(300);
                counter
            }),
        ),
        (
            "counter with bursts",
            column(VALUES, |_, seeded| {
                bursts += seeded.below(100) * if seeded.below(50) == 0 { 1_000 } else { 1 };
                bursts
            }),
        ),
        (
            "smooth",
            column(VALUES, |_, seeded| {
                speed += seeded.below(9) - 4;
                smooth += speed;
                smooth
            }),
        ),
        (
            "trend",
            column(VALUES, |i, seeded| i * 10_003 / 10 + seeded.below(100)),
        ),
        (
            "64 bits",
            column(VALUES, |_, seeded| seeded.next().cast_signed()),
        ),
        ("10 values", column(10, |_, seeded| seeded.below(1024))),
    ]
}

fn time_columns() -> Vec<(&'static str, Vec<i64>)> {
    let scrape = |i: i64| START_NS + i * 10_000 * MS_NS;
    let mut arrival = START_NS;
    vec![
        ("regular", (0..TIMES).map(scrape).collect()),
        (
            "50 ms jitter",
            column(4_320, |i, seeded| {
                scrape(i) + (seeded.below(101) - 50) * MS_NS
            }),
        ),
        (
            "50 ms jitter in ns",
            column(4_320, |i, seeded| {
                scrape(i) + seeded.below(100 * MS_NS + 1) - 50 * MS_NS
            }),
        ),
        (
            "1 in 50 missing",
            (0..TIMES).filter(|i| i * i % 50 != 4).map(scrape).collect(),
        ),
        (
            "arrivals",
            column(4_320, |_, seeded| {
                arrival += (1 + seeded.below(20_000)) * MS_NS;
                arrival
            }),
        ),
    ]
}

fn kernels() -> impl Iterator<Item = Kernel> {
    Kernel::ALL
        .into_iter()
        .filter(|kernel| kernel.is_available())
}

fn bench_integers(c: &mut Criterion) {
    for (name, values) in integer_columns() {
        let mut bytes = Vec::new();
        integers::encode(&values, &mut bytes);
        eprintln!(
            "bytes/value column_integers/{name}: {:.3}",
            bytes.len() as f64 / values.len() as f64
        );
        let mut group = c.benchmark_group(format!("column_integers/{name}"));
        group.throughput(Throughput::Elements(values.len() as u64));
        let mut encoded = Vec::new();
        group.bench_function("encode", |b| {
            b.iter(|| {
                encoded.clear();
                integers::encode(black_box(&values), &mut encoded);
            });
        });
        let mut out = Vec::new();
        for kernel in kernels() {
            group.bench_function(format!("decode/{kernel:?}"), |b| {
                b.iter(|| {
                    out.clear();
                    integers::decode_with(kernel, black_box(&bytes), values.len(), &mut out)
                });
            });
            assert!(out.is_empty() || out == values);
        }
        group.finish();
    }
}

fn bench_times(c: &mut Criterion) {
    for (name, times_ns) in time_columns() {
        let mut bytes = Vec::new();
        times::encode(&times_ns, &mut bytes);
        eprintln!(
            "bytes/timestamp column_times/{name}: {:.3}",
            bytes.len() as f64 / times_ns.len() as f64
        );
        let mut group = c.benchmark_group(format!("column_times/{name}"));
        group.throughput(Throughput::Elements(times_ns.len() as u64));
        let mut encoded = Vec::new();
        group.bench_function("encode", |b| {
            b.iter(|| {
                encoded.clear();
                times::encode(black_box(&times_ns), &mut encoded);
            });
        });
        let mut out = Vec::new();
        for kernel in kernels() {
            group.bench_function(format!("decode/{kernel:?}"), |b| {
                b.iter(|| {
                    out.clear();
                    times::decode_with(kernel, black_box(&bytes), &mut out)
                });
            });
            assert!(out.is_empty() || out == times_ns);
        }
        group.bench_function("bounds", |b| b.iter(|| times::bounds(black_box(&bytes))));
        group.finish();
    }
}

fn value_columns() -> Vec<(&'static str, Vec<f64>)> {
    let floats = |count, mut value: Box<dyn FnMut(f64) -> f64>, bound| {
        column(count, |_, seeded| seeded.below(bound))
            .into_iter()
            .map(|draw| value(draw as f64))
            .collect::<Vec<f64>>()
    };
    let (mut counter, mut walk, mut slow) = (0.0, 5_000.0, 70_000.0);
    vec![
        ("constant", vec![34_359_738_368.0; VALUES]),
        (
            "counter",
            floats(
                VALUES,
                Box::new(move |draw| {
                    counter += draw;
                    counter
                }),
                800,
            ),
        ),
        (
            "gauge, 2 decimals",
            floats(
                VALUES,
                Box::new(move |draw| {
                    walk += draw - 30.0;
                    walk / 100.0
                }),
                61,
            ),
        ),
        (
            "small steps",
            floats(
                VALUES,
                Box::new(move |draw| {
                    slow += draw % 9.0 + (draw / 9.0).floor() % 9.0 - 8.0;
                    slow
                }),
                81,
            ),
        ),
        (
            "latency, 3 decimals",
            floats(VALUES, Box::new(|draw| (20.0 + draw) / 1000.0), 200),
        ),
        (
            "decimals that were multiplied",
            floats(VALUES, Box::new(|draw| draw / 10.0 * 1.8 + 32.0), 400),
        ),
        (
            "average",
            floats(
                VALUES,
                Box::new(|draw| (21_000.0 + draw % 700.0) / 1000.0 / (280.0 + draw % 41.0)),
                1 << 20,
            ),
        ),
        (
            "full mantissa",
            floats(VALUES, Box::new(f64::sqrt), 1 << 50),
        ),
        (
            "10 values",
            floats(10, Box::new(|draw| draw / 1000.0), 2_000),
        ),
    ]
}

fn bench_values(c: &mut Criterion) {
    for (name, column) in value_columns() {
        let mut encoder = values::Encoder::default();
        let mut bytes = Vec::new();
        encoder.encode(&column, &mut bytes);
        eprintln!(
            "bytes/value column_values/{name}: {:.3} ({})",
            bytes.len() as f64 / column.len() as f64,
            values::describe(&bytes).unwrap_or("damaged"),
        );
        let mut group = c.benchmark_group(format!("column_values/{name}"));
        group.throughput(Throughput::Elements(column.len() as u64));
        let mut encoded = Vec::new();
        group.bench_function("encode", |b| {
            b.iter(|| {
                encoded.clear();
                encoder.encode(black_box(&column), &mut encoded);
            });
        });
        let mut out = Vec::new();
        group.bench_function("decode", |b| {
            b.iter(|| {
                out.clear();
                values::decode(black_box(&bytes), column.len(), &mut out)
            });
        });
        assert!(out.is_empty() || out == column);
        group.finish();
    }
}

criterion_group!(benches, bench_integers, bench_times, bench_values);
criterion_main!(benches);
