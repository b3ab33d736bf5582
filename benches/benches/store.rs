//! The life of samples on disk: sealing, merging, opening, and reading them back.
//!
//! | group | budget |
//! | --- | --- |
//! | `seal` | 30 ns a sample of scraped series; 2 us a series that is new |
//! | `compact` | bytes written per byte merged at most 1.5 (printed) |
//! | `open` | as long with many blocks as with few; a full head 1 s a million series |
//! | `select` | one series among `ROOTLINE_BENCH_SERIES` (default 1,000,000): 50 us |
//! | `scan` | columns of a block: memory speed of what is decoded |

use std::{hint::black_box, ops::ControlFlow, path::Path, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rootline_engine::{
    Engine, Labels, Matcher, QueryControl, QueryLimits, Settings, TimeRange, Timestamp,
};

const START_NS: i64 = 1_700_006_400_000_000_000;
const STEP_NS: i64 = 10_000_000_000;

fn open(dir: &Path) -> Engine {
    let mut settings = Settings::default();
    settings.memory_limit_bytes = 8 << 30;
    settings.maintenance_thread = false;
    let builder = Engine::builder(dir).settings(settings);
    builder.open().expect("a directory of its own")
}

fn control(engine: &Engine) -> QueryControl {
    engine.query_control(None, QueryLimits::default())
}

/// The same numbers every time, spread over the range of `u64` (splitmix64).
fn scattered(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What a host measures: a counter, a gauge with two decimals, a percentage, a noisy latency.
fn value(metric: u64, host: u64, step: u64) -> f64 {
    let noise = scattered(metric << 40 | host << 20 | step);
    match metric {
        0 => (step * 20 + noise % 20) as f64,
        1 => (400 + noise % 100) as f64 / 100.0,
        2 => (50 + noise % 3) as f64,
        _ => (noise % 100_000) as f64 / 1000.0,
    }
}

fn labels(metric: u64, host: u64) -> Labels {
    let (metric, host, rack) = (
        format!("metric_{metric}"),
        format!("host-{host:06}"),
        format!("rack-{}", host % 40),
    );
    let pairs = [
        ("__name__", metric.as_str()),
        ("host", &host),
        ("rack", &rack),
        ("region", "eu-1"),
    ];
    Labels::from_pairs(pairs).expect("good labels")
}

/// Writes `steps` samples of four metrics of every host, from `first_step` on.
fn write(engine: &Engine, hosts: u64, first_step: u64, steps: u64) {
    let all: Vec<Labels> = (0..hosts)
        .flat_map(|host| (0..4).map(move |metric| labels(metric, host)))
        .collect();
    let mut batch = engine.batch();
    for part in 0..=all.len() / 5000 {
        let range = part * 5000..((part + 1) * 5000).min(all.len());
        for step in first_step..first_step + steps {
            batch.clear();
            for (at, labels) in all.iter().enumerate().take(range.end).skip(range.start) {
                let (host, metric) = (at as u64 / 4, at as u64 % 4);
                let row = batch.metrics().series(labels);
                let offset_ns = i64::try_from(host % 1000).unwrap_or(0) * 1_000_000;
                let time_ns = START_NS + i64::try_from(step).unwrap_or(0) * STEP_NS + offset_ns;
                let value = value(metric, host, step);
                let time = Timestamp::from_nanos(time_ns);
                batch.metrics().sample(row, time, value);
            }
            engine.write(&mut batch).expect("stored");
        }
    }
}

fn seal(c: &mut Criterion) {
    let mut group = c.benchmark_group("seal");
    group.sample_size(10);
    for (name, hosts, steps) in [("scraped", 250, 2000), ("new_series", 25_000, 10)] {
        group.throughput(Throughput::Elements(hosts * 4 * steps));
        group.bench_function(name, |b| {
            b.iter_batched(
                || {
                    let dir = tempfile::tempdir().expect("a directory");
                    let engine = open(dir.path());
                    write(&engine, hosts, 0, steps);
                    (dir, engine)
                },
                |(dir, engine)| {
                    let flushed = engine.flush().expect("sealed");
                    assert_eq!(flushed.samples, hosts * 4 * steps);
                    (dir, engine)
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn compact(c: &mut Criterion) {
    const HOSTS: u64 = 250;
    const STEPS: u64 = 500;
    const PARTS: u64 = 4;
    let mut group = c.benchmark_group("compact");
    group.sample_size(10);
    group.throughput(Throughput::Elements(HOSTS * 4 * STEPS * PARTS));
    let mut amplification = 0.0;
    group.bench_function("four_blocks_of_a_day", |b| {
        b.iter_batched(
            || {
                let dir = tempfile::tempdir().expect("a directory");
                let engine = open(dir.path());
                for part in 0..PARTS {
                    write(&engine, HOSTS, part * STEPS, STEPS);
                    engine.flush().expect("sealed");
                }
                (dir, engine)
            },
            |(dir, engine)| {
                let done = engine.compact().expect("merged");
                assert_eq!((done.blocks_before, done.blocks_after), (PARTS, 1));
                amplification = done.bytes_after as f64 / done.bytes_before as f64;
                (dir, engine)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
    println!("bytes written per byte merged: {amplification:.2} (budget 1.5)");
}

fn start_up(c: &mut Criterion) {
    let mut group = c.benchmark_group("open");
    group.sample_size(10);
    for blocks in [1, 100] {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = open(dir.path());
        for part in 0..blocks {
            write(&engine, 25, part * 10, 10);
            engine.flush().expect("sealed");
        }
        engine.close().expect("closed");
        drop(engine);
        group.bench_function(format!("{blocks}_blocks"), |b| {
            b.iter(|| open(dir.path()));
        });
    }
    let dir = tempfile::tempdir().expect("a directory");
    let engine = open(dir.path());
    write(&engine, 25_000, 0, 10);
    drop(engine);
    group.throughput(Throughput::Elements(100_000));
    group.bench_function("head_of_100000_series", |b| b.iter(|| open(dir.path())));
    group.finish();
}

fn select(c: &mut Criterion) {
    let series = std::env::var("ROOTLINE_BENCH_SERIES").ok();
    let series: u64 = series.and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let mut group = c.benchmark_group("select");
    group.measurement_time(Duration::from_secs(3));
    {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = open(dir.path());
        write(&engine, series / 4, 0, 2);
        engine.flush().expect("sealed");
        let snapshot = engine.snapshot().expect("a snapshot");
        let mut host = 0;
        group.bench_function(format!("one_series_of_{series}"), |b| {
            b.iter(|| {
                host = (host + 7919) % (series / 4);
                let wanted = [
                    Matcher::equal("__name__", "metric_1"),
                    Matcher::equal("host", &format!("host-{host:06}")),
                ];
                let mut found = 0;
                let mut count = |series: rootline_engine::SeriesSamples<'_>| {
                    found += series.values.len();
                    Ok(ControlFlow::Continue(()))
                };
                let query = control(&engine);
                snapshot
                    .select(&wanted, TimeRange::ALL, &query, &mut count)
                    .expect("answered");
                assert_eq!(found, 2);
            });
        });
        group.bench_function(format!("label_values_of_{series}"), |b| {
            let query = control(&engine);
            b.iter(|| {
                let values = snapshot
                    .label_values("host", &[], "", TimeRange::ALL, usize::MAX, &query)
                    .expect("answered");
                assert_eq!(values.len() as u64, series / 4);
            });
        });
        let rack = [
            Matcher::equal("__name__", "metric_1"),
            Matcher::equal("rack", "rack-7"),
        ];
        group.bench_function(format!("two_common_labels_of_{series}"), |b| {
            b.iter(|| {
                let query = control(&engine);
                black_box(
                    snapshot
                        .series(&rack, TimeRange::ALL, &query)
                        .expect("answered"),
                )
            });
        });
    }
    group.finish();
}

fn scan(c: &mut Criterion) {
    const HOSTS: u64 = 250;
    const STEPS: u64 = 8000;
    let dir = tempfile::tempdir().expect("a directory");
    let engine = open(dir.path());
    write(&engine, HOSTS, 0, STEPS);
    engine.flush().expect("sealed");
    let snapshot = engine.snapshot().expect("a snapshot");
    let mut group = c.benchmark_group("scan");
    let day = TimeRange::ALL;
    let hour_from = START_NS + 3600 * 10 * 1_000_000_000;
    let hour = TimeRange::new(
        Timestamp::from_nanos(hour_from),
        Timestamp::from_nanos(hour_from + 3600 * 1_000_000_000 - 1),
    )
    .expect("an hour");
    for (name, range, samples) in [("day", day, STEPS), ("hour", hour, 360)] {
        for metric in 0..4 {
            group.throughput(Throughput::Elements(HOSTS * samples));
            group.bench_function(format!("{name}_of_metric_{metric}"), |b| {
                let wanted = [Matcher::equal("__name__", &format!("metric_{metric}"))];
                b.iter(|| {
                    let query = control(&engine);
                    let mut found = 0;
                    let mut look = |series: rootline_engine::SeriesSamples<'_>| {
                        found += black_box(series.values).len();
                        Ok(ControlFlow::Continue(()))
                    };
                    snapshot
                        .select(&wanted, range, &query, &mut look)
                        .expect("answered");
                    assert_eq!(found as u64, HOSTS * samples);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, seal, compact, start_up, select, scan);
criterion_main!(benches);
