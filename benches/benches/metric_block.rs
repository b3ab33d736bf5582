//! What does it cost to seal samples into blocks, to merge blocks, to read them, and to start on them?
//!
//! Through the engine's public face: sealing and merging write, sync and publish files, so the file
//! system has its share. Budget: 30 ns a sample to seal and merge.

use std::{hint::black_box, ops::ControlFlow, path::PathBuf, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rootline_engine::{
    Durability, Engine, Labels, Matcher, QueryControl, QueryLimits, Settings, TimeRange, Timestamp,
};

const SERIES: usize = 500;
const SCRAPES: i64 = 2_880;
const SAMPLES: u64 = SERIES as u64 * SCRAPES as u64;

/// A directory that goes when the benchmark does.
struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        // What is left of a benchmark's data harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn directory(name: &str) -> Dir {
    let name = format!("rootline-bench-{name}-{}", std::process::id());
    let dir = Dir(std::env::temp_dir().join(name));
    let _ = std::fs::remove_dir_all(&dir.0);
    dir
}

fn open(dir: &Dir) -> Engine {
    let mut settings = Settings::default();
    settings.durability = Durability::Interval(Duration::from_secs(1));
    settings.memory_limit_bytes = 4 << 30;
    settings.maintenance_thread = false;
    let engine = Engine::builder(&dir.0).settings(settings).open();
    engine.expect("the directory opens")
}

fn labels(series: usize) -> Labels {
    let pairs = [
        ("__name__", format!("metric_{}", series % 20)),
        ("host", format!("host-{:03}", series / 20)),
        ("job", "node".to_owned()),
    ];
    Labels::from_pairs(pairs).expect("names are unique")
}

/// `SCRAPES` samples 15 s apart for each series, from scrape number `from` on.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    reason = "small numbers"
)]
fn fill(engine: &Engine, sets: &[Labels], from: i64) {
    let start = Timestamp::from_millis(1_700_000_000_000).expect("in range");
    for scrape in from..from + SCRAPES {
        let time = start.saturating_add_ns(scrape * 15_000_000_000);
        let mut batch = engine.batch();
        for (i, labels) in sets.iter().enumerate() {
            let row = batch.metrics().series(labels);
            let noise = (scrape * 7_919 + i as i64 * 104_729) % 1_000;
            let value = match i % 3 {
                0 => (scrape * 50 + noise) as f64,
                1 => noise as f64 / 10.0,
                _ => 4_096.0 * (noise % 7) as f64,
            };
            batch.metrics().sample(row, time, value);
        }
        engine.write(&mut batch).expect("the store takes writes");
    }
}

fn count(engine: &Engine, matchers: &[Matcher], range: TimeRange) -> usize {
    let query = QueryControl::new(engine.clock().clone(), None, QueryLimits::default());
    let snapshot = engine.snapshot().expect("the store is open");
    let mut samples = 0;
    let selected = snapshot.select(matchers, range, &query, &mut |series| {
        samples += black_box(&series.values).len();
        Ok(ControlFlow::Continue(()))
    });
    selected.expect("the block reads");
    samples
}

fn bench_blocks(c: &mut Criterion) {
    let sets: Vec<Labels> = (0..SERIES).map(labels).collect();
    let mut group = c.benchmark_group("metric_block");
    group.sample_size(10);
    group.throughput(Throughput::Elements(SAMPLES));
    group.bench_function("seal", |bench| {
        bench.iter_batched(
            || {
                let dir = directory("seal");
                let engine = open(&dir);
                fill(&engine, &sets, 0);
                (engine, dir)
            },
            |(engine, dir)| {
                engine.flush().expect("samples are sealed");
                (engine, dir)
            },
            BatchSize::PerIteration,
        );
    });
    group.throughput(Throughput::Elements(4 * SAMPLES));
    group.bench_function("compact", |bench| {
        bench.iter_batched(
            || {
                let dir = directory("compact");
                let engine = open(&dir);
                for part in 0..4 {
                    fill(&engine, &sets, part * SCRAPES);
                    engine.flush().expect("samples are sealed");
                }
                (engine, dir)
            },
            |(engine, dir)| {
                engine.compact().expect("blocks are merged");
                (engine, dir)
            },
            BatchSize::PerIteration,
        );
    });

    let dir = directory("read");
    let engine = open(&dir);
    fill(&engine, &sets, 0);
    engine.flush().expect("samples are sealed");
    group.throughput(Throughput::Elements(SAMPLES));
    group.bench_function("read/all", |bench| {
        bench.iter(|| count(&engine, &[], TimeRange::ALL));
    });
    let one = [
        Matcher::equal("__name__", "metric_7"),
        Matcher::equal("host", "host-011"),
    ];
    let start = Timestamp::from_millis(1_700_010_000_000).expect("in range");
    let hour = TimeRange::new(start, start.saturating_add_ns(3_600_000_000_000));
    let hour = hour.expect("an hour ends after it starts");
    group.throughput(Throughput::Elements(240));
    group.bench_function("read/one_series_one_hour", |bench| {
        bench.iter(|| count(&engine, &one, hour));
    });
    drop(engine);
    group.throughput(Throughput::Elements(1));
    group.bench_function("start", |bench| {
        bench.iter(|| {
            let engine = open(&dir);
            assert!(count(&engine, &one, hour) > 0);
        });
    });
    group.finish();
}

criterion_group!(benches, bench_blocks);
criterion_main!(benches);
