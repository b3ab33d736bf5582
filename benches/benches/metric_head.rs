//! What does it cost to write samples of known and of new series, and to read them back?
//!
//! Through the engine's public face, acknowledged before the sync (`Durability::Interval`), so that
//! the time is that of decoding nothing, resolving, encoding, appending to the log's buffer and
//! applying to the head.

use std::{hint::black_box, ops::ControlFlow, path::PathBuf, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rootline_engine::{
    Durability, Engine, Labels, Matcher, QueryControl, QueryLimits, Settings, TimeRange, Timestamp,
};

const SERIES: usize = 4_000;
const BATCH: usize = 2_000;

/// A directory that goes when the benchmark does.
struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        // What is left of a benchmark's data harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open(name: &str) -> (Dir, Engine) {
    let dir = std::env::temp_dir().join(format!("rootline-bench-{name}-{}", std::process::id()));
    let dir = Dir(dir);
    let mut settings = Settings::default();
    settings.durability = Durability::Interval(Duration::from_secs(1));
    settings.memory_limit_bytes = 8 << 30;
    let engine = Engine::builder(&dir.0).settings(settings).open();
    (dir, engine.expect("a fresh directory opens"))
}

fn labels(series: usize) -> Labels {
    let pairs = [
        ("__name__", format!("metric_{}", series % 50)),
        ("cluster", "prod-eu-1".to_owned()),
        (
            "instance",
            format!("10.0.{}.{}:9100", series / 256 % 256, series % 256),
        ),
        ("job", format!("job-{}", series % 10)),
        ("namespace", format!("ns-{}", series % 37)),
        ("pod", format!("pod-{series:016x}")),
        ("zone", format!("z{}", series % 3)),
    ];
    Labels::from_pairs(pairs).expect("names are unique")
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    reason = "small numbers"
)]
fn write(engine: &Engine, sets: &[Labels], scrape: i64) {
    let mut batch = engine.batch();
    let start = Timestamp::from_millis(1_700_000_000_000).expect("in range");
    let time = start.saturating_add_ns(scrape * 15_000_000_000);
    for (i, labels) in sets.iter().enumerate() {
        let row = batch.metrics().series(labels);
        batch
            .metrics()
            .sample(row, time, (scrape * 17 + i as i64 % 100) as f64);
    }
    engine.write(&mut batch).expect("the store takes writes");
}

fn bench_write(c: &mut Criterion) {
    let mut group = c.benchmark_group("metric_head");
    group.sample_size(10);
    group.throughput(Throughput::Elements(BATCH as u64));

    let sets: Vec<Labels> = (0..SERIES).map(labels).collect();
    let (_dir, engine) = open("known");
    let mut scrape = 0;
    group.bench_function("write/known", |bench| {
        bench.iter(|| {
            scrape += 1;
            let batches = sets.chunks(BATCH);
            batches
                .take(1)
                .for_each(|sets| write(&engine, black_box(sets), scrape));
        });
    });

    let (_dir, fresh) = open("new");
    let mut next = SERIES;
    group.bench_function("write/new_series", |bench| {
        bench.iter_batched(
            || {
                next += BATCH;
                (next..next + BATCH).map(labels).collect::<Vec<_>>()
            },
            |sets| write(&fresh, &sets, 0),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn bench_read(c: &mut Criterion) {
    const SCRAPES: i64 = 240;
    let sets: Vec<Labels> = (0..SERIES).map(labels).collect();
    let (_dir, engine) = open("read");
    for scrape in 0..SCRAPES {
        write(&engine, &sets, scrape);
    }
    let snapshot = engine.snapshot().expect("the store is open");
    let mut group = c.benchmark_group("metric_head");
    group.sample_size(10);
    for (name, matchers) in [
        (
            "one_series",
            vec![Matcher::equal("pod", "pod-0000000000000007")],
        ),
        ("one_job", vec![Matcher::equal("job", "job-3")]),
        ("all", vec![]),
    ] {
        group.bench_function(format!("select/{name}"), |bench| {
            bench.iter(|| {
                let query = QueryControl::new(engine.clock().clone(), None, QueryLimits::default());
                let mut samples = 0;
                let visited = snapshot.select(&matchers, TimeRange::ALL, &query, &mut |series| {
                    samples += series.values.len();
                    Ok(ControlFlow::Continue(()))
                });
                visited.expect("the query is within its limits");
                samples
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench_write, bench_read);
criterion_main!(benches);
