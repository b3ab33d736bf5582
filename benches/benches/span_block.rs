//! What does it cost to seal spans into blocks, to merge blocks, and to read a trace of one?
//!
//! Through the engine's public face: sealing and merging write, sync and publish files, so the file
//! system has its share. The spans look like those of a shop: 28 a trace, 12 services, 6 attributes,
//! ids of requests and users among them. With `ROOTLINE_BENCH_SPANS` set to a file as
//! `bench/traces` writes them (8 bytes of magic, then bodies: u32 length, u32 spans, an OTLP request)
//! those are taken. Prints where the bytes of a block go.
//! Budgets: 1,000 ns a span to seal, 800 ns to merge, 300 us for a trace.

use std::{hint::black_box, path::PathBuf, sync::Arc, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rootline::otlp::decode_traces;
use rootline_engine::{
    Durability, Engine, QueryControl, QueryLimits, Rejections, ResourceFields, ScopeFields,
    Settings, SpanFields, SpanId, SpanKind, StatusCode, Timestamp, TraceId, ValueRef, inspect,
};
use rootline_wal::{FsStorage, Storage};

const TRACES: u64 = 4_000;
const SPANS_PER_TRACE: u64 = 28;
const SERVICES: u64 = 12;

/// A directory that goes when the benchmark does.
struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        // What is left of a benchmark's data harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn directory(name: &str) -> Dir {
    let name = format!("rootline-bench-span-{name}-{}", std::process::id());
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

/// Requests of a file, if one is named.
fn recorded() -> Option<Vec<Vec<u8>>> {
    let path = std::env::var_os("ROOTLINE_BENCH_SPANS")?;
    let bytes = std::fs::read(path).expect("the file of spans is read");
    let mut rest = bytes.get(8..).unwrap_or_default();
    let mut bodies = Vec::new();
    while let Some((header, behind)) = rest.split_first_chunk::<8>() {
        let [a, b, c, d, ..] = *header;
        let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).expect("64 bits");
        let (body, behind) = behind.split_at(length.min(behind.len()));
        bodies.push(body.to_vec());
        rest = behind;
    }
    Some(bodies)
}

fn noise(seed: u64) -> u64 {
    let mixed = (seed ^ (seed >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

fn trace_id(trace: u64) -> TraceId {
    let mut bytes = [0; 16];
    let (high, low) = bytes.split_at_mut(8);
    high.copy_from_slice(&noise(trace + 1).to_be_bytes());
    low.copy_from_slice(&noise(trace + 7).to_be_bytes());
    TraceId::new(bytes).expect("noise is not zero")
}

fn span_id(trace: u64, span: u64) -> SpanId {
    let bytes = noise(trace * 1_000 + span + 1).to_be_bytes();
    SpanId::new(bytes).expect("noise is not zero")
}

/// Writes the traces from number `from` on, and says how many spans they have.
fn fill(engine: &Engine, from: u64) -> u64 {
    for trace in from..from + TRACES {
        let mut batch = engine.batch();
        let spans = batch.spans();
        for span in 0..SPANS_PER_TRACE {
            let mixed = noise(trace * 31 + span);
            let service = format!("service-{}", (span * 5 + mixed % 2) % SERVICES);
            let name = format!("operation-{}", span % 9);
            let resource = [
                ("service.name", ValueRef::Str(&service)),
                ("host.name", ValueRef::Str("node-7")),
            ];
            let resource = spans.resource(&ResourceFields {
                attributes: &resource,
                ..ResourceFields::default()
            });
            let scope = spans.scope(&ScopeFields {
                name: "bench",
                ..ScopeFields::default()
            });
            let (resource, scope) = (
                resource.expect("attributes are flat"),
                scope.expect("it has none"),
            );
            let mut writer = spans.span(resource, scope);
            let request = format!("{mixed:016x}");
            let user = format!("user-{}", noise(trace) % 5_000);
            writer.attribute("http.request.method", ValueRef::from("GET"));
            writer.attribute(
                "http.response.status_code",
                ValueRef::from(200 + (mixed % 5).cast_signed()),
            );
            writer.attribute("http.route", ValueRef::from(&*name));
            writer.attribute("user.id", ValueRef::from(&*user));
            writer.attribute("request.id", ValueRef::from(&*request));
            writer.attribute("cache.hit", ValueRef::from(mixed.is_multiple_of(3)));
            let start = Timestamp::from_millis(1_700_000_000_000).expect("in range");
            let start = start.saturating_add_ns((trace * 3_000_000 + span * 40_000).cast_signed());
            let lasts = (mixed % 30_000_000).cast_signed();
            let parent = span.checked_sub(1).map(|parent| parent / 2);
            let fields = SpanFields {
                parent_span_id: parent.map(|parent| span_id(trace, parent)),
                kind: [SpanKind::Server, SpanKind::Client, SpanKind::Internal]
                    .into_iter()
                    .nth(usize::try_from(span % 3).expect("below three"))
                    .unwrap_or_default(),
                status: if mixed.is_multiple_of(50) {
                    StatusCode::Error
                } else {
                    StatusCode::Unset
                },
                ..SpanFields::new(
                    trace_id(trace),
                    span_id(trace, span),
                    &name,
                    start,
                    start.saturating_add_ns(lasts),
                )
            };
            writer.finish(&fields).expect("the span is valid");
        }
        engine.write(&mut batch).expect("the store takes writes");
    }
    TRACES * SPANS_PER_TRACE
}

/// Writes one of two halves: of the recorded requests, or of our own.
fn half(engine: &Engine, recorded: Option<&[Vec<u8>]>, second: bool) -> u64 {
    let Some(bodies) = recorded else {
        return fill(engine, if second { TRACES } else { 0 });
    };
    let (first, last) = bodies.split_at(bodies.len() / 2);
    let mut spans = 0;
    for body in if second { last } else { first } {
        let mut batch = engine.batch();
        let decoded = decode_traces(body, batch.spans(), &mut Rejections::default());
        decoded.expect("the request is well-formed");
        spans += batch.spans().len() as u64;
        engine.write(&mut batch).expect("the store takes writes");
    }
    spans
}

/// Prints bytes a span, by section.
fn report(dir: &Dir) {
    let storage: Arc<dyn Storage> = Arc::new(FsStorage::new());
    let inspected = inspect::inspect(&storage, &dir.0).expect("the directory is a store");
    for block in inspected.blocks.iter().filter(|block| block.is_named) {
        let spans = block.samples.max(1) as f64;
        println!(
            "block of {} spans: {:.2} bytes a span",
            block.samples,
            block.bytes as f64 / spans
        );
        for section in &block.sections {
            println!("  {:<22} {:.3}", section.name, section.bytes as f64 / spans);
        }
    }
}

fn bench_blocks(c: &mut Criterion) {
    let recorded = recorded();
    let recorded = recorded.as_deref();
    let both = |dir: &Dir| {
        let engine = open(dir);
        let mut spans = 0;
        for second in [false, true] {
            spans += half(&engine, recorded, second);
            engine.flush().expect("spans are sealed");
        }
        (engine, spans)
    };
    let dir = directory("read");
    let (engine, spans) = both(&dir);
    report(&dir);
    let query = QueryControl::new(engine.clock().clone(), None, QueryLimits::default());
    let snapshot = engine.snapshot().expect("the store is open");

    let mut group = c.benchmark_group("span_block");
    group.sample_size(10);
    if recorded.is_none() {
        let mut trace = 0;
        group.bench_function("trace_by_id", |bench| {
            bench.iter(|| {
                trace = (trace + 977) % (2 * TRACES);
                let read = snapshot.trace(trace_id(trace), &query);
                black_box(read.expect("the trace is there"))
            });
        });
    }
    drop(snapshot);
    drop(engine);
    group.throughput(Throughput::Elements(spans / 2));
    group.bench_function("seal", |bench| {
        bench.iter_batched(
            || {
                let dir = directory("seal");
                let engine = open(&dir);
                half(&engine, recorded, false);
                (engine, dir)
            },
            |(engine, dir)| {
                engine.flush().expect("spans are sealed");
                (engine, dir)
            },
            BatchSize::PerIteration,
        );
    });
    group.throughput(Throughput::Elements(spans));
    group.bench_function("compact", |bench| {
        bench.iter_batched(
            || {
                let dir = directory("compact");
                let (engine, _) = both(&dir);
                (engine, dir)
            },
            |(engine, dir)| {
                engine.compact().expect("blocks are merged");
                (engine, dir)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, bench_blocks);
criterion_main!(benches);
