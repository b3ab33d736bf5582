//! OTLP end to end inside the process: requests in, answers out, and what the store then holds.

use std::{io::Write as _, sync::Arc};

use ::http::{HeaderMap, Request, StatusCode};
use axum::body::{Body, to_bytes};
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse},
        trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    },
    common::v1::{AnyValue, KeyValue, any_value::Value},
    metrics::v1::{
        ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, metric::Data, number_data_point,
    },
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message as _;
use rootline_engine::{Engine, QueryLimits, Settings, SystemClock, TimeRange, TraceId};
use tonic::{Code, codec::CompressionEncoding};
use tonic_types::StatusExt as _;
use tower::ServiceExt as _;

use super::*;
use crate::{config::Config, node::NodeState};

struct Node {
    state: Arc<NodeState>,
    engine: Engine,
    _dir: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map(|v| v.to_str().unwrap())
            .unwrap_or_default()
    }

    /// The `google.rpc.Status` of an error in protobuf.
    fn status_message(&self) -> tonic_types::pb::Status {
        assert_eq!(self.header("content-type"), "application/x-protobuf");
        tonic_types::pb::Status::decode(self.body.as_slice()).unwrap()
    }

    fn json(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Node {
    fn starting() -> Self {
        Self::with(|_| {}, &Settings::default())
    }

    fn new() -> Self {
        let node = Self::starting();
        node.state.set_ready(node.engine.clone());
        node
    }

    fn with(change: impl FnOnce(&mut Config), settings: &Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::builder(dir.path())
            .settings(settings.clone())
            .open()
            .unwrap();
        let mut config = Config::new(dir.path());
        change(&mut config);
        Self {
            state: NodeState::new(config, Arc::new(SystemClock::default())),
            engine,
            _dir: dir,
        }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = routes::<()>(&self.state)
            .with_state(())
            .oneshot(request)
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap().to_vec();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    async fn post(&self, path: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.post_encoded(path, content_type, "identity", body)
            .await
    }

    async fn post_encoded(
        &self,
        path: &str,
        content_type: &str,
        encoding: &str,
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        let request = Request::post(path)
            .header("content-type", content_type)
            .header("content-encoding", encoding)
            .body(Body::from(body.into()))
            .unwrap();
        self.send(request).await
    }

    fn grpc(&self) -> tonic::client::Grpc<axum::Router> {
        let mut routes = tonic::service::Routes::builder();
        routes.add_service(TraceService::new(&self.state));
        routes.add_service(MetricsService::new(&self.state));
        let origin = ::http::Uri::from_static("http://node");
        tonic::client::Grpc::with_origin(routes.routes().into_axum_router(), origin)
    }

    fn spans(&self) -> usize {
        let query = self.engine.query_control(None, QueryLimits::default());
        let snapshot = self.engine.snapshot().unwrap();
        let trace = snapshot
            .trace(TraceId::new([1; 16]).unwrap(), &query)
            .unwrap();
        trace.map_or(0, |trace| trace.spans.len())
    }

    fn series(&self) -> Vec<String> {
        let query = self.engine.query_control(None, QueryLimits::default());
        let snapshot = self.engine.snapshot().unwrap();
        let series = snapshot.series(&[], TimeRange::ALL, &query).unwrap();
        series
            .into_iter()
            .map(|labels| labels.to_string())
            .collect()
    }
}

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

fn span(id: u8) -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: vec![id; 8],
        name: "op".into(),
        start_time_unix_nano: 10,
        end_time_unix_nano: 20,
        ..Default::default()
    }
}

fn traces(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans {
        spans,
        ..Default::default()
    }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans,
            ..Default::default()
        }],
    }
}

fn metrics(attribute: &str, metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let value = Some(AnyValue {
        value: Some(Value::StringValue(attribute.into())),
    });
    let attributes = vec![KeyValue {
        key: "service.name".into(),
        value,
        ..Default::default()
    }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes,
                ..Default::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                metrics,
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
}

fn gauge(points: usize) -> Metric {
    let point = NumberDataPoint {
        time_unix_nano: 7,
        value: Some(number_data_point::Value::AsInt(5)),
        ..Default::default()
    };
    Metric {
        name: "g".into(),
        data: Some(Data::Gauge(Gauge {
            data_points: vec![point; points],
        })),
        ..Default::default()
    }
}

fn exponential() -> Metric {
    Metric {
        name: "e".into(),
        data: Some(Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![ExponentialHistogramDataPoint::default(); 2],
            aggregation_temporality: 2,
        })),
        ..Default::default()
    }
}

#[tokio::test]
async fn traces_are_taken_over_http_in_both_forms() {
    let node = Node::new();
    let answer = node
        .post(
            "/v1/traces",
            PROTOBUF,
            traces(vec![span(1)]).encode_to_vec(),
        )
        .await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (StatusCode::OK, PROTOBUF)
    );
    assert!(answer.body.is_empty());
    let json = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{
        "traceId":"01010101010101010101010101010101","spanId":"0202020202020202","name":"op",
        "startTimeUnixNano":"10","endTimeUnixNano":"20"}]}]}]}"#;
    let answer = node
        .post("/v1/traces", "application/json; charset=utf-8", json)
        .await;
    assert_eq!(
        (answer.status, answer.json()),
        (StatusCode::OK, serde_json::json!({}))
    );
    assert_eq!(node.spans(), 2);
}

#[tokio::test]
async fn compressed_bodies_are_taken() {
    let node = Node::new();
    let body = traces(vec![span(1)]).encode_to_vec();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&body).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(body.as_slice(), 1).unwrap();
    for (encoding, body) in [("gzip", gzip), ("zstd", zstd)] {
        let answer = node
            .post_encoded("/v1/traces", PROTOBUF, encoding, body)
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{encoding}");
    }
    let answer = node
        .post_encoded("/v1/traces", PROTOBUF, "gzip", "not gzip")
        .await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let answer = node.post_encoded("/v1/traces", PROTOBUF, "br", "x").await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(node.spans(), 1);
}

#[tokio::test]
async fn an_empty_request_is_a_success() {
    let node = Node::new();
    for path in ["/v1/traces", "/v1/metrics"] {
        assert_eq!(node.post(path, PROTOBUF, "").await.status, StatusCode::OK);
        assert_eq!(node.post(path, JSON, "{}").await.status, StatusCode::OK);
        assert_eq!(
            node.post(path, JSON, "").await.status,
            StatusCode::BAD_REQUEST
        );
    }
}

#[tokio::test]
async fn what_is_refused_item_by_item_is_a_partial_success() {
    let node = Node::new();
    let bad = Span {
        trace_id: vec![0; 16],
        ..span(1)
    };
    let body = traces(vec![bad, span(2)]).encode_to_vec();
    let answer = node.post("/v1/traces", PROTOBUF, body).await;
    assert_eq!(answer.status, StatusCode::OK);
    let response = ExportTraceServiceResponse::decode(answer.body.as_slice()).unwrap();
    let partial = response.partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 1);
    assert!(
        partial.error_message.contains("trace_id is all zero"),
        "{}",
        partial.error_message
    );
    assert_eq!(node.spans(), 1);

    let body = metrics("cart", vec![exponential(), gauge(1)]).encode_to_vec();
    let answer = node.post("/v1/metrics", PROTOBUF, body).await;
    let response = ExportMetricsServiceResponse::decode(answer.body.as_slice()).unwrap();
    let partial = response.partial_success.unwrap();
    assert_eq!(partial.rejected_data_points, 2);
    assert!(
        partial
            .error_message
            .contains("exponential histograms are not supported")
    );
    assert_eq!(node.series(), [r#"g{job="cart", service_name="cart"}"#]);

    let json = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"e",
        "exponentialHistogram":{"dataPoints":[{},{},{}]}}]}]}]}"#;
    let partial = node.post("/v1/metrics", JSON, json).await.json();
    assert_eq!(partial["partialSuccess"]["rejectedDataPoints"], "3");
}

#[tokio::test]
async fn malformed_bodies_are_invalid_in_the_form_they_came_in() {
    let node = Node::new();
    for path in ["/v1/traces", "/v1/metrics"] {
        let answer = node.post(path, PROTOBUF, [0x0a, 0x05, 0x01]).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        let status = answer.status_message();
        assert_eq!(status.code, Code::InvalidArgument as i32);
        assert!(
            status.message.contains("malformed protobuf at byte 2"),
            "{}",
            status.message
        );
        let answer = node.post(path, JSON, "{").await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(
            answer.json()["message"]
                .as_str()
                .unwrap()
                .contains("malformed OTLP JSON")
        );
        assert_eq!(answer.header("retry-after"), "");
    }
}

#[tokio::test]
async fn other_signals_methods_and_types_are_refused_in_the_protocols_way() {
    let node = Node::new();
    for path in ["/v1/logs", "/v1/profiles", "/v1development/profiles"] {
        let answer = node.post(path, PROTOBUF, "").await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(
            answer
                .status_message()
                .message
                .contains("keeps traces and metrics")
        );
        assert!(node.post(path, JSON, "{}").await.json()["code"].is_number());
    }
    let get = Request::get("/v1/traces").body(Body::empty()).unwrap();
    let answer = node.send(get).await;
    assert_eq!(
        (answer.status, answer.header("allow")),
        (StatusCode::METHOD_NOT_ALLOWED, "POST")
    );
    for content_type in ["text/plain", "application/grpc", ""] {
        let answer = node.post("/v1/traces", content_type, "x").await;
        assert_eq!(
            answer.status,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "{content_type}"
        );
    }
}

#[tokio::test]
async fn a_body_past_the_limit_is_too_large_before_and_after_decompression() {
    let node = Node::with(
        |config| config.max_request_bytes = 1000,
        &Settings::default(),
    );
    node.state.set_ready(node.engine.clone());
    let answer = node.post("/v1/traces", PROTOBUF, vec![0; 2000]).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let bomb = zstd::encode_all(vec![0; 100_000].as_slice(), 1).unwrap();
    let answer = node
        .post_encoded("/v1/traces", PROTOBUF, "zstd", bomb)
        .await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.header("retry-after"), "");
}

#[tokio::test]
async fn a_node_that_starts_asks_to_come_back() {
    let node = Node::starting();
    let answer = node
        .post(
            "/v1/traces",
            PROTOBUF,
            traces(vec![span(1)]).encode_to_vec(),
        )
        .await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_ne!(answer.header("retry-after"), "");
    assert_eq!(answer.status_message().code, Code::Unavailable as i32);
}

#[tokio::test]
async fn labels_that_multiply_past_the_memory_are_refused_for_now() {
    let mut settings = Settings::default();
    settings.memory_limit_bytes = 64 << 20;
    let node = Node::with(|_| {}, &settings);
    node.state.set_ready(node.engine.clone());
    // 200 kB on the wire, 400 MB of labels.
    let body = metrics(&"x".repeat(100_000), vec![gauge(4_000)]).encode_to_vec();
    let answer = node.post("/v1/metrics", PROTOBUF, body).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_ne!(answer.header("retry-after"), "");
    assert_eq!(
        node.engine
            .budget()
            .held_bytes(rootline_engine::Holder::Requests),
        0
    );
}

async fn export<Q, A>(
    mut client: tonic::client::Grpc<axum::Router>,
    path: &'static str,
    request: Q,
) -> Result<A, tonic::Status>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<Q, A>::default();
    let path = ::http::uri::PathAndQuery::from_static(path);
    client
        .unary(tonic::Request::new(request), path, codec)
        .await
        .map(tonic::Response::into_inner)
}

const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

#[tokio::test]
async fn both_signals_are_taken_over_grpc_compressed_or_not() {
    let node = Node::new();
    let compressed = [
        None,
        Some(CompressionEncoding::Gzip),
        Some(CompressionEncoding::Zstd),
    ];
    for (id, encoding) in (1..).zip(compressed) {
        let client = match encoding {
            Some(encoding) => node.grpc().send_compressed(encoding),
            None => node.grpc(),
        };
        let response: ExportTraceServiceResponse =
            export(client.clone(), TRACES, traces(vec![span(id)]))
                .await
                .unwrap();
        assert_eq!(response.partial_success, None);
        let request = metrics("cart", vec![gauge(1), exponential()]);
        let response: ExportMetricsServiceResponse =
            export(client, METRICS, request).await.unwrap();
        assert_eq!(response.partial_success.unwrap().rejected_data_points, 2);
    }
    assert_eq!(node.spans(), 3);
    assert_eq!(node.series().len(), 1);
}

#[tokio::test]
async fn grpc_refusals_say_whether_to_come_back() {
    let starting = Node::starting();
    let answer: Result<ExportTraceServiceResponse, _> =
        export(starting.grpc(), TRACES, traces(vec![span(1)])).await;
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.get_details_retry_info().is_some());

    let node = Node::with(
        |config| config.max_request_bytes = 100,
        &Settings::default(),
    );
    node.state.set_ready(node.engine.clone());
    let many = traces((1..9).map(span).collect());
    let answer: Result<ExportTraceServiceResponse, _> = export(node.grpc(), TRACES, many).await;
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.get_details_retry_info().is_none());

    // A message of another type, whose bytes are no request.
    let odd = tonic_types::pb::Status {
        message: "x".repeat(20),
        ..Default::default()
    };
    let answer: Result<ExportTraceServiceResponse, _> = export(node.grpc(), TRACES, odd).await;
    assert!(answer.is_ok(), "unknown fields are ignored");
    let odd = Resource {
        attributes: vec![KeyValue::default()],
        ..Default::default()
    };
    let odd = ExportTraceServiceResponse::decode(odd.encode_to_vec().as_slice()).unwrap();
    let answer: Result<ExportTraceServiceResponse, _> = export(node.grpc(), TRACES, odd).await;
    assert!(answer.is_ok());
    let broken = KeyValue {
        key: "\u{1}".repeat(3),
        ..Default::default()
    };
    let answer: Result<ExportTraceServiceResponse, _> = export(node.grpc(), TRACES, broken).await;
    assert_eq!(answer.unwrap_err().code(), Code::InvalidArgument);

    for path in [
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
        "/opentelemetry.proto.collector.trace.v1.TraceService/Other",
    ] {
        let answer: Result<ExportTraceServiceResponse, _> =
            export(node.grpc(), path, traces(vec![])).await;
        assert_eq!(answer.unwrap_err().code(), Code::Unimplemented, "{path}");
    }
}

#[tokio::test]
async fn what_streams_meet_in_one_series_is_counted() {
    let node = Node::new();
    let mut request = metrics("cart", vec![gauge(1)]);
    let mut other = request.resource_metrics[0].clone();
    let value = Some(AnyValue {
        value: Some(Value::StringValue("b".into())),
    });
    let zone = KeyValue {
        key: "zone".into(),
        value,
        ..Default::default()
    };
    other.resource.as_mut().unwrap().attributes.push(zone);
    request.resource_metrics.push(other);
    node.post("/v1/metrics", PROTOBUF, request.encode_to_vec())
        .await;
    let text = crate::self_metrics::render(&node.state);
    let counted = text
        .lines()
        .any(|l| l.contains("collisions") && l.ends_with(" 1"));
    assert!(counted, "{text}");
}
