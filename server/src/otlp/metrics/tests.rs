use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue as ProtoValue, InstrumentationScope, KeyValue, any_value::Value},
    metrics::v1::{
        self as proto, Gauge, HistogramDataPoint, NumberDataPoint, ResourceMetrics, ScopeMetrics,
        Sum, SummaryDataPoint, metric::Data, number_data_point,
        summary_data_point::ValueAtQuantile,
    },
    resource::v1::Resource as ProtoResource,
};
use proptest::prelude::*;
use prost::Message as _;
use rootline_engine::{Labels, SpanId, TraceId};

use super::*;

/// What a request became, in a form to compare.
#[derive(Debug, Default)]
struct Seen {
    rows: Vec<Labels>,
    samples: Vec<(String, i64, f64)>,
    exemplars: Vec<(String, Exemplar)>,
    metadata: Vec<Metadata>,
}

impl MetricSink for Seen {
    type Row = usize;

    fn series(&mut self, labels: &[u8]) -> usize {
        self.rows
            .push(Labels::decode_canonical(labels).expect("canonical label bytes"));
        self.rows.len() - 1
    }

    fn sample(&mut self, row: usize, time: Timestamp, value: f64) {
        self.samples
            .push((self.rows[row].to_string(), time.as_nanos(), value));
    }

    fn exemplar(&mut self, row: usize, exemplar: Exemplar) {
        self.exemplars.push((self.rows[row].to_string(), exemplar));
    }

    fn metadata(&mut self, metadata: Metadata) {
        self.metadata.push(metadata);
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

struct Decoded {
    seen: Seen,
    stats: DecodeStats,
    rejections: Rejections,
}

impl Decoded {
    /// Every sample as `labels value`, in order.
    fn lines(&self) -> Vec<String> {
        self.seen
            .samples
            .iter()
            .map(|(labels, _, value)| format!("{labels} {value}"))
            .collect()
    }

    fn reason(&self) -> &str {
        self.rejections.first_reason.as_deref().unwrap_or_default()
    }
}

fn decode_with(request: &ExportMetricsServiceRequest, translation: &Translation) -> Decoded {
    let (mut seen, mut rejections) = (Seen::default(), Rejections::default());
    let bytes = request.encode_to_vec();
    let stats = decode_into(&bytes, &mut seen, &mut rejections, translation, &mut |_| {
        true
    })
    .unwrap();
    Decoded {
        seen,
        stats,
        rejections,
    }
}

fn decode(request: &ExportMetricsServiceRequest) -> Decoded {
    decode_with(request, &Translation::default())
}

fn kv(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(ProtoValue { value: Some(value) }),
        ..Default::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    kv(key, Value::StringValue(value.into()))
}

fn point(value: f64) -> NumberDataPoint {
    NumberDataPoint {
        time_unix_nano: 7,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..Default::default()
    }
}

fn metric(name: &str, unit: &str, data: Data) -> proto::Metric {
    proto::Metric {
        name: name.into(),
        unit: unit.into(),
        description: "help".into(),
        data: Some(data),
        ..Default::default()
    }
}

fn gauge(points: Vec<NumberDataPoint>) -> Data {
    Data::Gauge(Gauge {
        data_points: points,
    })
}

fn sum(temporality: i32, is_monotonic: bool, points: Vec<NumberDataPoint>) -> Data {
    Data::Sum(Sum {
        data_points: points,
        aggregation_temporality: temporality,
        is_monotonic,
    })
}

fn histogram(temporality: i32, points: Vec<HistogramDataPoint>) -> Data {
    Data::Histogram(proto::Histogram {
        data_points: points,
        aggregation_temporality: temporality,
    })
}

const DELTA: i32 = 1;
const CUMULATIVE: i32 = 2;

fn resource_metrics(attributes: Vec<KeyValue>, metrics: Vec<proto::Metric>) -> ResourceMetrics {
    ResourceMetrics {
        resource: Some(ProtoResource {
            attributes,
            ..Default::default()
        }),
        scope_metrics: vec![ScopeMetrics {
            metrics,
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn request(resource_metrics: Vec<ResourceMetrics>) -> ExportMetricsServiceRequest {
    ExportMetricsServiceRequest { resource_metrics }
}

fn bare(metrics: Vec<proto::Metric>) -> ExportMetricsServiceRequest {
    request(vec![resource_metrics(vec![], metrics)])
}

fn histogram_point() -> HistogramDataPoint {
    HistogramDataPoint {
        time_unix_nano: 7,
        count: 6,
        sum: Some(12.5),
        bucket_counts: vec![1, 2, 3],
        explicit_bounds: vec![0.5, 10.0],
        ..Default::default()
    }
}

#[test]
fn every_instrument_and_temporality_becomes_its_series() {
    let mut counter = point(3.0);
    counter.attributes = vec![text("http.method", "GET")];
    let metrics = vec![
        metric("cpu.utilization", "1", gauge(vec![point(0.25)])),
        metric(
            "requests",
            "{request}",
            sum(CUMULATIVE, true, vec![counter.clone()]),
        ),
        metric("requests", "{request}", sum(DELTA, true, vec![counter])),
        metric(
            "queue.length",
            "1",
            sum(CUMULATIVE, false, vec![point(-2.0)]),
        ),
        metric("queue.change", "", sum(DELTA, false, vec![point(-1.0)])),
        metric(
            "latency",
            "ms",
            histogram(CUMULATIVE, vec![histogram_point()]),
        ),
        metric("latency", "ms", histogram(DELTA, vec![histogram_point()])),
        metric(
            "rpc",
            "s",
            Data::Summary(proto::Summary {
                data_points: vec![SummaryDataPoint {
                    time_unix_nano: 7,
                    count: 4,
                    sum: 2.0,
                    quantile_values: vec![
                        ValueAtQuantile {
                            quantile: 0.5,
                            value: 0.1,
                        },
                        ValueAtQuantile {
                            quantile: 1.0,
                            value: 0.9,
                        },
                    ],
                    ..Default::default()
                }],
            }),
        ),
    ];
    let decoded = decode(&bare(metrics));
    assert_eq!(
        decoded.lines(),
        [
            "cpu_utilization_ratio 0.25",
            r#"requests_total{http_method="GET"} 3"#,
            r#"requests_total{__temporality__="delta", http_method="GET"} 3"#,
            "queue_length -2",
            r#"queue_change{__temporality__="delta"} -1"#,
            r#"latency_milliseconds_bucket{le="0.5"} 1"#,
            r#"latency_milliseconds_bucket{le="10"} 3"#,
            r#"latency_milliseconds_bucket{le="+Inf"} 6"#,
            "latency_milliseconds_count 6",
            "latency_milliseconds_sum 12.5",
            r#"latency_milliseconds_bucket{__temporality__="delta", le="0.5"} 1"#,
            r#"latency_milliseconds_bucket{__temporality__="delta", le="10"} 3"#,
            r#"latency_milliseconds_bucket{__temporality__="delta", le="+Inf"} 6"#,
            r#"latency_milliseconds_count{__temporality__="delta"} 6"#,
            r#"latency_milliseconds_sum{__temporality__="delta"} 12.5"#,
            r#"rpc_seconds{quantile="0.5"} 0.1"#,
            r#"rpc_seconds{quantile="1"} 0.9"#,
            "rpc_seconds_count 4",
            "rpc_seconds_sum 2",
        ]
    );
    assert!(decoded.rejections.is_empty() && decoded.seen.samples.iter().all(|s| s.1 == 7));
    assert_eq!(
        decoded.stats,
        DecodeStats {
            points: 8,
            collisions: 0
        }
    );
}

#[test]
fn metadata_name_type_unit_and_help_once_a_metric() {
    let metrics = vec![
        metric("g", "1", gauge(vec![point(1.0), point(2.0)])),
        metric("c", "By/s", sum(DELTA, true, vec![point(1.0)])),
        metric("c", "By/s", sum(DELTA, true, vec![point(1.0)])),
        metric("n", "", sum(CUMULATIVE, false, vec![point(1.0)])),
        metric("h", "s", histogram(CUMULATIVE, vec![histogram_point()])),
        metric("none", "s", gauge(vec![])),
        proto::Metric {
            metadata: vec![text("prometheus.type", "unknown")],
            ..metric("u", "", gauge(vec![point(1.0)]))
        },
        proto::Metric {
            metadata: vec![text("prometheus.type", "info")],
            ..metric("i", "", sum(CUMULATIVE, false, vec![point(1.0)]))
        },
    ];
    let decoded = decode(&bare(metrics));
    let got: Vec<_> = decoded
        .seen
        .metadata
        .iter()
        .map(|m| (m.metric.as_str(), m.kind, m.unit.as_str(), m.help.as_str()))
        .collect();
    assert_eq!(
        got,
        [
            ("g_ratio", MetricKind::Gauge, "ratio", "help"),
            (
                "c_bytes_per_second_total",
                MetricKind::Counter,
                "bytes_per_second",
                "help"
            ),
            ("n", MetricKind::Gauge, "", "help"),
            ("h_seconds", MetricKind::Histogram, "seconds", "help"),
            ("u", MetricKind::Unknown, "", "help"),
            ("i", MetricKind::Info, "", "help"),
        ]
    );
}

#[test]
fn a_resource_names_job_instance_promoted_labels_and_target_info() {
    let mut late = point(2.0);
    late.time_unix_nano = 9;
    let decoded = decode(&request(vec![resource_metrics(
        vec![
            text("service.name", "cart"),
            text("service.namespace", "shop"),
            text("service.instance.id", "i-1"),
            text("host.name", "h1"),
            text("os.type", "linux"),
            kv("process.pid", Value::IntValue(42)),
        ],
        vec![metric("g", "", gauge(vec![late, point(1.0)]))],
    )]));
    let labels = r#"host_name="h1", instance="i-1", job="shop/cart", "#;
    let service = r#"service_instance_id="i-1", service_name="cart", service_namespace="shop"}"#;
    assert_eq!(
        decoded.lines(),
        [
            format!("g{{{labels}{service} 2"),
            format!("g{{{labels}{service} 1"),
            format!("target_info{{{labels}os_type=\"linux\", process_pid=\"42\", {service} 1"),
        ]
    );
    assert_eq!(
        decoded.seen.samples[2].1, 9,
        "target_info is as new as the newest point"
    );
}

#[test]
fn a_resource_of_identifying_attributes_alone_needs_no_target_info() {
    for (attributes, labels) in [
        (
            vec![text("service.name", "cart")],
            r#"g{job="cart", service_name="cart"} 1"#,
        ),
        (
            vec![text("service.namespace", "shop")],
            r#"g{service_namespace="shop"} 1"#,
        ),
    ] {
        let metrics = vec![metric("g", "", gauge(vec![point(1.0)]))];
        assert_eq!(
            decode(&request(vec![resource_metrics(attributes, metrics)])).lines(),
            [labels]
        );
    }
}

#[test]
fn resources_that_differ_in_a_promoted_attribute_never_share_a_series() {
    for promoted in crate::otlp::translate::PROMOTED_ATTRIBUTES_DEFAULT {
        let of = |value: &str| {
            let mut point = point(1.0);
            point.attributes = vec![text("service_name", "x"), text(promoted, "y")];
            resource_metrics(
                vec![text(promoted, value)],
                vec![metric("g", "", gauge(vec![point]))],
            )
        };
        let decoded = decode(&request(vec![of("a"), of("b")]));
        let series: Vec<_> = decoded
            .lines()
            .into_iter()
            .filter(|l| l.starts_with("g{"))
            .collect();
        assert_eq!(series.len(), 2);
        assert_ne!(series[0], series[1], "{promoted}");
        assert_eq!(decoded.stats.collisions, 0);
    }
}

#[test]
fn promotion_can_be_configured() {
    let translation = Translation {
        promoted_attributes: vec!["os.type".into()],
        ..Translation::default()
    };
    let attributes = vec![text("os.type", "linux"), text("service.name", "cart")];
    let metrics = vec![metric("g", "", gauge(vec![point(1.0)]))];
    let decoded = decode_with(
        &request(vec![resource_metrics(attributes, metrics)]),
        &translation,
    );
    assert_eq!(decoded.lines()[0], r#"g{job="cart", os_type="linux"} 1"#);
}

#[test]
fn what_different_streams_write_to_one_series_at_one_time_is_counted() {
    let resource = |zone: &str| {
        let attributes = vec![text("service.name", "cart"), text("cloud.zone", zone)];
        resource_metrics(attributes, vec![metric("g", "", gauge(vec![point(1.0)]))])
    };
    // Two targets that only an attribute tells apart that is not promoted.
    assert_eq!(
        decode(&request(vec![resource("a"), resource("b")]))
            .stats
            .collisions,
        1
    );
    // One stream that repeats itself, its resource's attributes in another order.
    let mut again = resource("a");
    again.resource.as_mut().unwrap().attributes.reverse();
    assert_eq!(
        decode(&request(vec![resource("a"), again]))
            .stats
            .collisions,
        0
    );
    // Two metrics whose names meet.
    let metrics = vec![
        metric("a.b", "", gauge(vec![point(1.0)])),
        metric("a_b", "", gauge(vec![point(2.0)])),
        metric("a_b", "", sum(CUMULATIVE, false, vec![point(2.0)])),
    ];
    assert_eq!(decode(&bare(metrics)).stats.collisions, 2);
    // Different points of one metric.
    let mut later = point(1.0);
    later.time_unix_nano = 8;
    let metrics = vec![metric("g", "", gauge(vec![point(1.0), later]))];
    assert_eq!(decode(&bare(metrics)).stats.collisions, 0);
}

#[test]
fn the_scope_stands_on_every_series() {
    let mut with_scope = resource_metrics(vec![], vec![metric("g", "", gauge(vec![point(1.0)]))]);
    with_scope.scope_metrics[0].scope = Some(InstrumentationScope {
        name: "lib".into(),
        version: "1.2".into(),
        attributes: vec![text("short.name", "l"), text("name", "clash")],
        ..Default::default()
    });
    with_scope.scope_metrics[0].schema_url = "https://s".into();
    assert_eq!(
        decode(&request(vec![with_scope])).lines(),
        [concat!(
            r#"g{exported_otel_scope_name="clash", otel_scope_name="lib", "#,
            r#"otel_scope_schema_url="https://s", otel_scope_short_name="l", "#,
            r#"otel_scope_version="1.2"} 1"#
        )]
    );
}

#[test]
fn attributes_never_take_the_labels_that_are_ours() {
    let mut clash = histogram_point();
    clash.attributes = vec![text("le", "9"), text("job", "x"), text("quantile", "q")];
    let attributes = vec![text("service.name", "cart")];
    let metrics = vec![metric("h", "", histogram(CUMULATIVE, vec![clash]))];
    let decoded = decode(&request(vec![resource_metrics(attributes, metrics)]));
    assert_eq!(
        decoded.lines()[2],
        concat!(
            r#"h_bucket{exported_job="x", exported_le="9", job="cart", le="+Inf", "#,
            r#"quantile="q", service_name="cart"} 6"#
        )
    );
    let utf8 = Translation {
        utf8_names: true,
        ..Translation::default()
    };
    let mut named = point(1.0);
    named.attributes = vec![text("__name__", "evil"), text("__temporality__", "delta")];
    let decoded = decode_with(&bare(vec![metric("a.b", "By", gauge(vec![named]))]), &utf8);
    assert_eq!(
        decoded.lines(),
        [r#"{"a.b_bytes", exported___name__="evil", exported___temporality__="delta"} 1"#]
    );
}

#[test]
fn attributes_of_every_type_become_text() {
    let mut typed = point(1.0);
    typed.attributes = vec![
        kv("b", Value::BoolValue(true)),
        kv("d", Value::DoubleValue(0.5)),
        kv("y", Value::BytesValue(vec![1, 2])),
        KeyValue {
            key: "empty".into(),
            ..Default::default()
        },
    ];
    let decoded = decode(&bare(vec![metric("g", "", gauge(vec![typed]))]));
    assert_eq!(decoded.lines(), [r#"g{b="true", d="0.5", y="AQI="} 1"#]);
}

#[test]
fn no_recorded_value_is_a_staleness_marker_on_each_series() {
    let number = NumberDataPoint {
        time_unix_nano: 7,
        flags: 1,
        ..Default::default()
    };
    let empty = HistogramDataPoint {
        time_unix_nano: 7,
        flags: 1,
        ..Default::default()
    };
    let mut bucketed = histogram_point();
    bucketed.flags = 1;
    let summary = SummaryDataPoint {
        time_unix_nano: 7,
        flags: 1,
        quantile_values: vec![ValueAtQuantile {
            quantile: 0.5,
            value: 0.0,
        }],
        ..Default::default()
    };
    let decoded = decode(&bare(vec![
        metric("g", "", gauge(vec![number])),
        metric("h", "", histogram(CUMULATIVE, vec![empty])),
        metric("b", "", histogram(CUMULATIVE, vec![bucketed])),
        metric(
            "s",
            "",
            Data::Summary(proto::Summary {
                data_points: vec![summary],
            }),
        ),
    ]));
    let names: Vec<_> = decoded
        .seen
        .samples
        .iter()
        .map(|(labels, ..)| labels.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "g",
            r#"h_bucket{le="+Inf"}"#,
            "h_count",
            "h_sum",
            r#"b_bucket{le="0.5"}"#,
            r#"b_bucket{le="10"}"#,
            r#"b_bucket{le="+Inf"}"#,
            "b_count",
            "b_sum",
            r#"s{quantile="0.5"}"#,
            "s_count",
            "s_sum",
        ]
    );
    assert!(
        decoded
            .seen
            .samples
            .iter()
            .all(|(.., value)| value.to_bits() == STALE_NAN_BITS)
    );
}

#[test]
fn exponential_histograms_are_refused_point_by_point_and_said_so() {
    let exponential = Data::ExponentialHistogram(proto::ExponentialHistogram {
        data_points: vec![proto::ExponentialHistogramDataPoint::default(); 3],
        aggregation_temporality: CUMULATIVE,
    });
    let decoded = decode(&bare(vec![
        metric("e", "s", exponential),
        metric("g", "", gauge(vec![point(1.0)])),
    ]));
    assert_eq!(decoded.lines(), ["g 1"]);
    assert_eq!((decoded.rejections.samples, decoded.stats.points), (3, 4));
    assert_eq!(
        decoded.reason(),
        r#"metric "e" refused: exponential histograms are not supported"#
    );
}

#[test]
fn a_bad_point_costs_only_itself() {
    let with_time = |time| NumberDataPoint {
        time_unix_nano: time,
        ..point(1.0)
    };
    let cases: Vec<(Data, &str)> = vec![
        (gauge(vec![with_time(0)]), "time_unix_nano is 0"),
        (gauge(vec![with_time(u64::MAX)]), "past the year 2262"),
        (
            gauge(vec![NumberDataPoint {
                value: None,
                ..point(1.0)
            }]),
            "no value",
        ),
        (
            gauge(vec![NumberDataPoint {
                attributes: vec![text("", "x")],
                ..point(1.0)
            }]),
            "an attribute has an empty key",
        ),
        (
            sum(0, true, vec![point(1.0)]),
            "neither delta nor cumulative",
        ),
        (
            histogram(7, vec![histogram_point()]),
            "neither delta nor cumulative",
        ),
        (
            histogram(
                CUMULATIVE,
                vec![HistogramDataPoint {
                    explicit_bounds: vec![2.0, 1.0],
                    ..histogram_point()
                }],
            ),
            "bounds do not rise",
        ),
        (
            histogram(
                CUMULATIVE,
                vec![HistogramDataPoint {
                    explicit_bounds: vec![1.0, f64::NAN],
                    ..histogram_point()
                }],
            ),
            "bounds do not rise",
        ),
        (
            histogram(
                CUMULATIVE,
                vec![HistogramDataPoint {
                    bucket_counts: vec![1],
                    ..histogram_point()
                }],
            ),
            "not one more than its bounds",
        ),
    ];
    for (data, reason) in cases {
        let decoded = decode(&bare(vec![
            metric("bad", "", data),
            metric("good", "", gauge(vec![point(1.0)])),
        ]));
        assert_eq!(decoded.lines(), ["good 1"], "{reason}");
        assert_eq!(decoded.rejections.samples, 1, "{reason}");
        assert!(
            decoded.reason().contains(reason),
            "{} lacks {reason}",
            decoded.reason()
        );
        assert!(decoded.reason().contains("\"bad\""), "{}", decoded.reason());
    }
    let decoded = decode(&bare(vec![metric(
        "…",
        "",
        gauge(vec![point(1.0), point(2.0)]),
    )]));
    assert_eq!((decoded.rejections.samples, decoded.lines().len()), (2, 0));
    assert!(decoded.reason().contains("no usable character"));
}

#[test]
fn text_that_is_not_utf8_costs_what_holds_it() {
    let whole = request(vec![
        resource_metrics(
            vec![text("k", "RESOURCE")],
            vec![metric("a", "", gauge(vec![point(1.0)]))],
        ),
        resource_metrics(
            vec![],
            vec![
                metric("METRIC", "", gauge(vec![point(1.0), point(2.0)])),
                metric(
                    "b",
                    "",
                    gauge(vec![NumberDataPoint {
                        attributes: vec![text("k", "POINT")],
                        ..point(3.0)
                    }]),
                ),
            ],
        ),
    ])
    .encode_to_vec();
    for (spoiled, left) in [("RESOURCE", 3), ("METRIC", 2 + 1), ("POINT", 4)] {
        let mut bytes = whole.clone();
        let at = bytes
            .windows(spoiled.len())
            .position(|w| w == spoiled.as_bytes())
            .unwrap();
        bytes[at] = 0xff;
        let (mut seen, mut rejections) = (Seen::default(), Rejections::default());
        let translation = Translation::default();
        let stats = decode_into(
            &bytes,
            &mut seen,
            &mut rejections,
            &translation,
            &mut |_| true,
        )
        .unwrap();
        assert_eq!(stats.points, 4);
        // The points that are left, and target_info of the first resource.
        assert_eq!(seen.samples.len(), left, "{spoiled}");
        assert!(rejections.first_reason.unwrap().contains("not valid UTF-8"));
    }
}

#[test]
fn exemplars_go_to_the_bucket_they_fell_into() {
    let exemplar = |value: f64| proto::Exemplar {
        time_unix_nano: 5,
        value: Some(proto::exemplar::Value::AsDouble(value)),
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        filtered_attributes: vec![text("user.id", "u1")],
    };
    let mut histogram_point = histogram_point();
    histogram_point.exemplars = vec![
        exemplar(0.5),
        exemplar(0.6),
        exemplar(11.0),
        exemplar(f64::NAN),
    ];
    let mut counted = point(1.0);
    let int = proto::exemplar::Value::AsInt(3);
    counted.exemplars = vec![
        proto::Exemplar {
            value: Some(int),
            time_unix_nano: 0,
            ..proto::Exemplar::default()
        },
        proto::Exemplar {
            trace_id: vec![1; 5],
            ..exemplar(1.0)
        },
        proto::Exemplar {
            value: None,
            ..exemplar(1.0)
        },
    ];
    let decoded = decode(&bare(vec![
        metric("h", "", histogram(DELTA, vec![histogram_point])),
        metric("c", "", sum(CUMULATIVE, true, vec![counted])),
    ]));
    let got: Vec<_> = decoded
        .seen
        .exemplars
        .iter()
        .map(|(labels, e)| (labels.as_str(), e.value.to_string(), e.time.as_nanos()))
        .collect();
    let bucket = |le: &str| format!(r#"h_bucket{{__temporality__="delta", le="{le}"}}"#);
    assert_eq!(
        got,
        [
            (bucket("0.5").as_str(), "0.5".to_owned(), 5),
            (bucket("10").as_str(), "0.6".to_owned(), 5),
            (bucket("+Inf").as_str(), "11".to_owned(), 5),
            (bucket("+Inf").as_str(), "NaN".to_owned(), 5),
            ("c_total", "3".to_owned(), 7),
        ]
    );
    let first = &decoded.seen.exemplars[0].1;
    assert_eq!(
        (first.trace_id, first.span_id),
        (TraceId::new([1; 16]), SpanId::new([2; 8]))
    );
    assert_eq!(first.labels.to_string(), r#"{user_id="u1"}"#);
    assert_eq!(
        (decoded.rejections.exemplars, decoded.rejections.samples),
        (2, 0)
    );
}

#[test]
fn bounds_are_written_as_prometheus_writes_them() {
    let mut point = histogram_point();
    point.explicit_bounds = vec![-1.0, -0.0, 0.005, 1e-7, 2.5, 1e21, f64::INFINITY];
    point.explicit_bounds.sort_by(f64::total_cmp);
    point.bucket_counts = vec![1; 8];
    point.count = 8;
    let decoded = decode(&bare(vec![metric(
        "h",
        "",
        histogram(CUMULATIVE, vec![point]),
    )]));
    let les: Vec<_> = decoded
        .lines()
        .iter()
        .filter_map(|l| Some(l.split('"').nth(1)?.to_owned()))
        .collect();
    let expected = [
        "-1",
        "0",
        "0.0000001",
        "0.005",
        "2.5",
        "1000000000000000000000",
        "+Inf",
    ];
    assert_eq!(les, expected);
}

#[test]
fn a_histogram_without_buckets_is_a_count_and_a_sum() {
    let point = HistogramDataPoint {
        time_unix_nano: 7,
        count: 3,
        ..Default::default()
    };
    let decoded = decode(&bare(vec![metric(
        "h",
        "",
        histogram(CUMULATIVE, vec![point]),
    )]));
    assert_eq!(decoded.lines(), [r#"h_bucket{le="+Inf"} 3"#, "h_count 3"]);
}

#[test]
fn integers_past_53_bits_are_rounded() {
    let value = Some(number_data_point::Value::AsInt((1 << 53) + 1));
    let decoded = decode(&bare(vec![metric(
        "g",
        "",
        gauge(vec![NumberDataPoint {
            value,
            ..point(0.0)
        }]),
    )]));
    let rounded = decoded.seen.samples[0].2.to_bits();
    assert_eq!(rounded, 9_007_199_254_740_992f64.to_bits());
}

#[test]
fn a_resource_may_come_behind_its_points_and_in_pieces() {
    let piece = |attribute| {
        let attributes = vec![attribute];
        let resource = Some(ProtoResource {
            attributes,
            ..Default::default()
        });
        ResourceMetrics {
            resource,
            ..Default::default()
        }
        .encode_to_vec()
    };
    let points = ResourceMetrics {
        resource: None,
        ..resource_metrics(vec![], vec![metric("g", "", gauge(vec![point(1.0)]))])
    };
    // Concatenated protobuf messages are merged.
    let merged = [
        points.encode_to_vec(),
        piece(text("service.name", "cart")),
        piece(text("service.namespace", "shop")),
    ]
    .concat();
    let mut bytes = vec![0x0a];
    crate::otlp::series::put_length(&mut bytes, merged.len());
    bytes.extend_from_slice(&merged);
    let mut seen = Seen::default();
    let (mut rejections, translation) = (Rejections::default(), Translation::default());
    decode_into(
        &bytes,
        &mut seen,
        &mut rejections,
        &translation,
        &mut |_| true,
    )
    .unwrap();
    assert!(seen.samples[0].0.contains(r#"job="shop/cart""#));
}

#[test]
fn a_damaged_request_leaves_an_empty_batch() {
    let mut bytes = bare(vec![metric("g", "", gauge(vec![point(1.0)]))]).encode_to_vec();
    bytes.extend_from_slice(&[0x0a, 0x7f]);
    let mut seen = Seen::default();
    let (mut rejections, translation) = (Rejections::default(), Translation::default());
    let decoded = decode_into(
        &bytes,
        &mut seen,
        &mut rejections,
        &translation,
        &mut |_| true,
    );
    assert!(matches!(decoded, Err(DecodeError::Protobuf { .. })));
    assert!(seen.samples.is_empty());
}

#[test]
fn labels_that_multiply_are_asked_for_before_they_are_held() {
    let long = "x".repeat(100_000);
    let many = vec![point(1.0); 1000];
    let grown = request(vec![resource_metrics(
        vec![text("service.name", &long)],
        vec![metric("g", "", gauge(many))],
    )])
    .encode_to_vec();
    let mut asked = 0;
    let mut seen = Seen::default();
    let (mut rejections, translation) = (Rejections::default(), Translation::default());
    let decoded = decode_into(
        &grown,
        &mut seen,
        &mut rejections,
        &translation,
        &mut |bytes| {
            asked += bytes;
            asked < 10 << 20
        },
    );
    assert_eq!(decoded, Err(DecodeError::NoRoom));
    assert!(asked < 12 << 20);
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        "\\PC{0,8}".prop_map(Value::StringValue),
        any::<bool>().prop_map(Value::BoolValue),
        any::<i64>().prop_map(Value::IntValue),
        any::<f64>().prop_map(Value::DoubleValue),
        prop::collection::vec(any::<u8>(), 0..8).prop_map(Value::BytesValue),
    ]
}

proptest! {
    /// Points without surprises come out one to one, whatever their values and attributes.
    #[test]
    fn every_point_becomes_a_sample(
        points in prop::collection::vec(
            (1..i64::MAX as u64, any::<f64>(), prop::collection::btree_map("[a-z]{1,4}", any_value(), 0..4)),
            0..20,
        ),
    ) {
        let sent: Vec<_> = points
            .iter()
            .map(|(time, value, attributes)| NumberDataPoint {
                time_unix_nano: *time,
                value: Some(number_data_point::Value::AsDouble(*value)),
                attributes: attributes.iter().map(|(k, v)| kv(k, v.clone())).collect(),
                ..Default::default()
            })
            .collect();
        let decoded = decode(&bare(vec![metric("g", "", gauge(sent))]));
        prop_assert_eq!(decoded.seen.samples.len(), points.len());
        for ((labels, time, value), sent) in decoded.seen.samples.iter().zip(&points) {
            prop_assert_eq!(*time, sent.0.cast_signed());
            prop_assert_eq!(value.to_bits(), sent.1.to_bits());
            let strings: BTreeMap<_, _> = sent.2.iter().filter_map(|(k, v)| match v {
                Value::StringValue(s) if !s.is_empty() => Some((k, s)),
                _ => None,
            }).collect();
            for (key, _) in strings {
                let named = format!("{key}=");
                prop_assert!(labels.contains(&named));
            }
        }
    }

    #[test]
    fn damaged_bytes_are_decoded_or_refused(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let request = request(vec![resource_metrics(
            vec![text("service.name", "cart"), text("x", "y")],
            vec![
                metric("h", "s", histogram(DELTA, vec![histogram_point()])),
                metric("g", "s", gauge(vec![point(1.0)])),
            ],
        )]);
        let mut bytes = request.encode_to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            let mut seen = Seen::default();
            let (mut rejections, translation) = (Rejections::default(), Translation::default());
            let _ = decode_into(bytes, &mut seen, &mut rejections, &translation, &mut |_| true);
        }
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
        let mut seen = Seen::default();
        let (mut rejections, translation) = (Rejections::default(), Translation::default());
        let _ = decode_into(&bytes, &mut seen, &mut rejections, &translation, &mut |_| true);
    }
}
