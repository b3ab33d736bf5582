//! What does it cost to decode OTLP: a span, a data point, and the same spans in JSON?
//!
//! The spans look like an instrumented web service's: a resource of 8 attributes for each 25 spans,
//! 8 attributes a span, 64 operations, 40 requests. `prost` stands beside as what generated code does
//! with the same bytes before anything is kept of them.
//! Budgets: a span's walk and interning 600 ns, a point's walk, labels and hash 400 ns.
#![allow(
    clippy::unnecessary_wraps,
    clippy::cast_possible_wrap,
    clippy::indexing_slicing,
    reason = "a generator of workload: its shape is fixed here"
)]

use std::{fmt::Write as _, hint::black_box};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    metrics::v1::{
        Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
        metric::Data, number_data_point,
    },
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message as _;
use rootline::otlp::{Translation, decode_metrics, decode_traces, traces_to_protobuf};
use rootline_engine::{Engine, Rejections, SpanBatch};

const SPANS: usize = 1000;
const SPANS_PER_RESOURCE: usize = 25;
const POINTS: usize = 4000;

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    let value = Some(AnyValue {
        value: Some(Value::StringValue(value.into())),
    });
    KeyValue {
        key: key.into(),
        value,
        ..KeyValue::default()
    }
}

fn int(key: &str, value: i64) -> KeyValue {
    let value = Some(AnyValue {
        value: Some(Value::IntValue(value)),
    });
    KeyValue {
        key: key.into(),
        value,
        ..KeyValue::default()
    }
}

fn resource(i: usize) -> Resource {
    let attributes = vec![
        text("service.name", format!("service-{i}")),
        text("service.version", "1.4.2"),
        text("service.namespace", "shop"),
        text("service.instance.id", format!("pod-{i}")),
        text("k8s.pod.name", format!("pod-{i}")),
        text("k8s.namespace.name", "prod"),
        text("telemetry.sdk.language", "rust"),
        text("telemetry.sdk.name", "opentelemetry"),
    ];
    Resource {
        attributes,
        ..Resource::default()
    }
}

fn scope() -> Option<InstrumentationScope> {
    let (name, version) = ("tower-http".to_owned(), "0.6".to_owned());
    Some(InstrumentationScope {
        name,
        version,
        ..InstrumentationScope::default()
    })
}

fn span(i: usize) -> Span {
    let number = i as u64;
    let start = 1_700_000_000_000_000_000 + number * 1_000_003;
    let id = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Span {
        trace_id: [(number / 25 + 1).to_be_bytes(), id.to_be_bytes()].concat(),
        span_id: id.to_be_bytes().to_vec(),
        parent_span_id: if i.is_multiple_of(25) {
            vec![]
        } else {
            number.to_be_bytes().to_vec()
        },
        name: format!("GET /items/{}", i % 64),
        kind: 2,
        start_time_unix_nano: start,
        end_time_unix_nano: start + 5_000_000 + number,
        attributes: vec![
            text("http.request.method", "GET"),
            text("url.path", format!("/items/{}", i % 64)),
            int("http.response.status_code", 200),
            text("server.address", "shop.example"),
            int("server.port", 443),
            text("user.id", format!("user-{}", i * 7919 % 5000)),
            text("request.id", format!("{:032x}", i / 25)),
            text("network.protocol.version", "1.1"),
        ],
        flags: 1,
        ..Span::default()
    }
}

fn traces() -> ExportTraceServiceRequest {
    let resource_spans = (0..SPANS / SPANS_PER_RESOURCE)
        .map(|r| {
            let first = r * SPANS_PER_RESOURCE;
            let spans = (first..first + SPANS_PER_RESOURCE).map(span).collect();
            let scope_spans = vec![ScopeSpans {
                scope: scope(),
                spans,
                ..ScopeSpans::default()
            }];
            ResourceSpans {
                resource: Some(resource(r)),
                scope_spans,
                ..ResourceSpans::default()
            }
        })
        .collect();
    ExportTraceServiceRequest { resource_spans }
}

fn metrics(data: impl Fn(usize) -> Data, points_each: usize) -> ExportMetricsServiceRequest {
    let resource_metrics = (0..POINTS / points_each / 10)
        .map(|r| {
            let metric = |m: usize| Metric {
                name: format!("http.server.metric{m}"),
                unit: "By".into(),
                description: "How much of it there was".into(),
                data: Some(data(r)),
                ..Metric::default()
            };
            let metrics = (0..10).map(metric).collect();
            let scope_metrics = vec![ScopeMetrics {
                scope: scope(),
                metrics,
                ..ScopeMetrics::default()
            }];
            ResourceMetrics {
                resource: Some(resource(r)),
                scope_metrics,
                ..ResourceMetrics::default()
            }
        })
        .collect();
    ExportMetricsServiceRequest { resource_metrics }
}

fn attributes(i: usize) -> Vec<KeyValue> {
    vec![
        text("http.request.method", "GET"),
        text("http.route", format!("/items/{i}")),
        int("http.response.status_code", 200),
    ]
}

fn counters(resource: usize) -> Data {
    let point = |i: usize| NumberDataPoint {
        attributes: attributes(i),
        time_unix_nano: 1_700_000_000_000_000_000,
        value: Some(number_data_point::Value::AsInt((i * resource) as i64)),
        ..NumberDataPoint::default()
    };
    let data_points = (0..20).map(point).collect();
    Data::Sum(Sum {
        data_points,
        aggregation_temporality: 2,
        is_monotonic: true,
    })
}

fn histograms(_: usize) -> Data {
    let point = |i: usize| HistogramDataPoint {
        attributes: attributes(i),
        time_unix_nano: 1_700_000_000_000_000_000,
        count: 140,
        sum: Some(12.5),
        bucket_counts: vec![10; 15],
        explicit_bounds: (1..15).map(f64::from).collect(),
        ..HistogramDataPoint::default()
    };
    let data_points = (0..20).map(point).collect();
    Data::Histogram(Histogram {
        data_points,
        aggregation_temporality: 2,
    })
}

/// The spans in JSON, with the fields an SDK sends.
fn json(request: &ExportTraceServiceRequest) -> String {
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    let mut value = serde_json::to_value(request).expect("plain data");
    // The ids once more, by hand: what other encoders send is hexadecimal whatever this one does.
    for (r, resource_spans) in request.resource_spans.iter().enumerate() {
        for (s, span) in resource_spans
            .scope_spans
            .iter()
            .flat_map(|s| &s.spans)
            .enumerate()
        {
            let span_json = &mut value["resourceSpans"][r]["scopeSpans"][0]["spans"][s];
            span_json["traceId"] = hex(&span.trace_id).into();
            span_json["spanId"] = hex(&span.span_id).into();
            span_json["parentSpanId"] = hex(&span.parent_span_id).into();
        }
    }
    value.to_string()
}

fn bench_traces(c: &mut Criterion) {
    let request = traces();
    let bytes = request.encode_to_vec();
    let json = json(&request);
    eprintln!(
        "bytes otlp_decode/spans: protobuf {}, json {} for {SPANS}",
        bytes.len(),
        json.len()
    );
    let mut group = c.benchmark_group("otlp_decode");
    group.throughput(Throughput::Elements(SPANS as u64));
    let mut batch = SpanBatch::new();
    group.bench_function("spans", |bench| {
        bench.iter(|| {
            batch.clear();
            let mut rejections = Rejections::default();
            decode_traces(black_box(&bytes), &mut batch, &mut rejections).expect("well-formed");
            assert_eq!(batch.len(), SPANS);
        });
    });
    group.bench_function("spans_prost", |bench| {
        bench.iter(|| ExportTraceServiceRequest::decode(black_box(bytes.as_slice())).is_ok());
    });
    let mut protobuf = Vec::new();
    group.bench_function("spans_json_to_protobuf", |bench| {
        bench.iter(|| {
            protobuf.clear();
            traces_to_protobuf(black_box(json.as_bytes()), &mut protobuf).expect("well-formed");
        });
    });
    group.finish();
}

fn bench_metrics(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let engine = Engine::builder(dir.path()).open().expect("an empty store");
    let translation = Translation::default();
    let mut group = c.benchmark_group("otlp_decode");
    for (name, request) in [
        ("counter_points", metrics(counters, 20)),
        ("histogram_points", metrics(histograms, 20)),
    ] {
        let bytes = request.encode_to_vec();
        let mut batch = engine.batch();
        group.throughput(Throughput::Elements(POINTS as u64));
        group.bench_function(name, |bench| {
            bench.iter(|| {
                batch.clear();
                let (metrics, _, rejections) = batch.split();
                let stats = decode_metrics(black_box(&bytes), metrics, rejections, &translation);
                assert_eq!(stats.expect("well-formed").points, POINTS as u64);
            });
        });
        group.bench_function(format!("{name}_prost"), |bench| {
            bench.iter(|| ExportMetricsServiceRequest::decode(black_box(bytes.as_slice())).is_ok());
        });
    }
    group.finish();
}

criterion_group!(benches, bench_traces, bench_metrics);
criterion_main!(benches);
