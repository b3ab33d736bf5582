//! What does a sample cost on its way in: decompressing, walking the request, storing it?
//!
//! One request of 2,000 known series with one sample each, labels as a real scrape has them. Each
//! step is measured alone; throughput is in samples. Budgets (nanoseconds a sample): snappy 54,
//! field walk and hash 24 + 40 (`decode`), everything behind it 10 + 15 and the log (`write`, to a
//! log that is not synced here: `group_commit` measures that).

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message as _;
use rootline::{proto::prometheus as pb, remote_write};
use rootline_engine::{Durability, Engine, Settings};

const SERIES: u32 = 2_000;

fn request(timestamp_ms: i64) -> Vec<u8> {
    let label = |name: &str, value: String| pb::Label {
        name: name.to_owned(),
        value,
    };
    let timeseries = (0..SERIES).map(|i| pb::TimeSeries {
        labels: vec![
            label(
                "__name__",
                format!("http_request_duration_seconds_{}", i % 40),
            ),
            label("cluster", "eu-west-1".to_owned()),
            label("code", format!("{}", 200 + i % 5)),
            label("handler", format!("/api/v1/resource/{}", i % 50)),
            label("instance", format!("10.0.{}.{}:9100", i / 200, i % 200)),
            label("job", "node-exporter".to_owned()),
            label("method", "GET".to_owned()),
            label("pod", format!("frontend-6d4cf56db6-{i:05}")),
        ],
        samples: vec![pb::Sample {
            value: f64::from(i) * 1.5,
            timestamp: timestamp_ms,
        }],
        ..Default::default()
    });
    pb::WriteRequest {
        timeseries: timeseries.collect(),
        metadata: vec![],
    }
    .encode_to_vec()
}

fn store(dir: &std::path::Path) -> Engine {
    let mut settings = Settings::default();
    settings.durability = Durability::Interval(Duration::from_hours(1));
    settings.memory_limit_bytes = 8 << 30;
    Engine::builder(dir)
        .settings(settings)
        .open()
        .expect("a fresh directory opens")
}

fn remote_write_steps(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let engine = store(dir.path());
    let mut group = c.benchmark_group("remote_write");
    group.throughput(Throughput::Elements(u64::from(SERIES)));

    let plain = request(1_700_000_000_000);
    let compressed = snap::raw::Encoder::new()
        .compress_vec(&plain)
        .expect("it compresses");
    group.bench_function("snappy", |b| {
        b.iter(|| snap::raw::Decoder::new().decompress_vec(black_box(&compressed)));
    });
    group.bench_function("decode", |b| {
        b.iter_batched_ref(
            || engine.batch(),
            |batch| {
                let (metrics, _, rejections) = batch.split();
                remote_write::decode(black_box(&plain), metrics, rejections)
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("decode_by_prost", |b| {
        b.iter(|| pb::WriteRequest::decode(black_box(&plain[..])));
    });
    let mut timestamp_ms = 1_700_000_000_000;
    group.bench_function("decode_and_write", |b| {
        b.iter_batched_ref(
            || {
                timestamp_ms += 15_000;
                request(timestamp_ms)
            },
            |body| {
                let mut batch = engine.batch();
                let (metrics, _, rejections) = batch.split();
                remote_write::decode(body, metrics, rejections).expect("it is well formed");
                engine.write(&mut batch).expect("there is room")
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, remote_write_steps);
criterion_main!(benches);
