//! A whole node in this process, on free ports: its life, its refusals, what it says of itself.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use prost::Message as _;
use rootline::{config::Config, proto::prometheus as pb, run::RunningNode};
use rootline_engine::{MatchOp, Matcher, QueryLimits, SystemClock, TimeRange};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::codegen::tokio_stream::{self, StreamExt as _};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

fn config(dir: &Path) -> Config {
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config::new(dir);
    config.grpc_listen = any_port;
    config.otlp_http_listen = any_port;
    config.http_listen = any_port;
    config
}

async fn start(config: Config) -> RunningNode {
    RunningNode::start(config, Arc::new(SystemClock::new()))
        .await
        .unwrap()
}

async fn started(config: Config) -> RunningNode {
    let mut node = start(config).await;
    node.ready().await.unwrap();
    node
}

/// Status and everything that came back.
async fn exchange(address: SocketAddr, request: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // A reset behind the answer is an end as good as any.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    (status, answer)
}

async fn get(address: SocketAddr, path: &str, headers: &str) -> (u16, String) {
    let host = if headers.contains("Host:") {
        ""
    } else {
        "Host: localhost\r\n"
    };
    let request = format!("GET {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n");
    exchange(address, request.as_bytes()).await
}

async fn post(address: SocketAddr, path: &str, headers: &str, body: &[u8]) -> (u16, String) {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    exchange(address, &[head.as_bytes(), body].concat()).await
}

fn samples(name: &str, count: i64) -> Vec<u8> {
    let label = |name: &str, value: &str| pb::Label {
        name: name.into(),
        value: value.into(),
    };
    let request = pb::WriteRequest {
        timeseries: vec![pb::TimeSeries {
            labels: vec![label("__name__", name)],
            samples: (0..count)
                .map(|t| pb::Sample {
                    value: 1.0,
                    timestamp: t,
                })
                .collect(),
            ..Default::default()
        }],
        metadata: vec![],
    };
    snap::raw::Encoder::new()
        .compress_vec(&request.encode_to_vec())
        .unwrap()
}

const REMOTE_WRITE: &str = "Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n";

async fn write(node: &RunningNode, body: &[u8]) -> (u16, String) {
    post(node.addresses().http, "/api/v1/write", REMOTE_WRITE, body).await
}

async fn channel(address: SocketAddr) -> tonic::transport::Channel {
    let endpoint = tonic::transport::Endpoint::try_from(format!("http://{address}")).unwrap();
    endpoint.connect().await.unwrap()
}

async fn health(node: &RunningNode) -> i32 {
    let mut client = HealthClient::new(channel(node.addresses().grpc).await);
    client
        .check(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner()
        .status
}

#[tokio::test]
async fn ports_answer_before_the_log_is_replayed() {
    let dir = tempfile::tempdir().unwrap();
    // The store opens in the background, but serves only once `ready` has seen it.
    let mut node = start(config(dir.path())).await;
    let addresses = node.addresses();
    assert_eq!(get(addresses.http, "/health/live", "").await.0, 200);
    let (status, answer) = get(addresses.http, "/health/ready", "").await;
    assert_eq!(status, 503);
    assert!(
        answer.contains(r#""status":"starting""#) && answer.contains("total_bytes"),
        "{answer}"
    );
    let (status, answer) = write(&node, &samples("up", 1)).await;
    assert_eq!(status, 503);
    assert!(
        answer.to_lowercase().contains("retry-after: 1\r\n"),
        "{answer}"
    );
    let otlp = post(
        addresses.otlp_http,
        "/v1/traces",
        "Content-Type: application/json\r\n",
        b"{}",
    );
    assert_eq!(otlp.await.0, 503);
    assert_eq!(health(&node).await, 2);

    node.ready().await.unwrap();
    assert_eq!(get(addresses.http, "/health/ready", "").await.0, 200);
    assert_eq!(health(&node).await, 1);
    assert_eq!(write(&node, &samples("up", 1)).await.0, 204);
    node.stop().await.unwrap();
    assert!(TcpStream::connect(addresses.http).await.is_err());
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = started(config(dir.path())).await;
    assert_eq!(write(&node, &samples("up", 5)).await.0, 204);
    node.stop().await.unwrap();
    let node = started(config(dir.path())).await;
    let engine = node.state().engine().unwrap();
    let matchers = [Matcher::new(MatchOp::Equal, "__name__", "up").unwrap()];
    let control = engine.query_control(None, QueryLimits::default());
    let series = engine
        .snapshot()
        .unwrap()
        .series(&matchers, TimeRange::ALL, &control)
        .unwrap();
    assert_eq!(series.len(), 1);
    // The stop has sealed them.
    let stats = engine.stats();
    assert_eq!((stats.metrics.samples, stats.block_samples), (0, 5));
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_node_is_refused_the_directory_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let _first = started(config(dir.path())).await;
    let mut second = start(config(dir.path())).await;
    let error = second.ready().await.unwrap_err().to_string();
    assert!(error.contains("--data-dir"), "{error}");
    let (status, answer) = get(second.addresses().http, "/health/ready", "").await;
    assert_eq!(status, 503);
    assert!(answer.contains(r#""status":"failed""#), "{answer}");
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_option() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(dir.path());
    config.http_listen = taken.local_addr().unwrap();
    let error = RunningNode::start(config, Arc::new(SystemClock::new()))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("option http-listen"), "{error}");
}

#[tokio::test]
async fn names_of_strangers_are_refused_on_every_port() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.allow_hosts = vec!["node.internal".to_owned()];
    let node = started(config).await;
    let addresses = node.addresses();
    for address in [addresses.http, addresses.otlp_http] {
        assert_eq!(
            get(address, "/metrics", "Host: evil.example\r\n").await.0,
            421
        );
    }
    assert_eq!(
        get(addresses.http, "/metrics", "Host: node.internal:1\r\n")
            .await
            .0,
        200
    );
    let endpoint = format!("http://{}", addresses.grpc);
    let endpoint = tonic::transport::Endpoint::try_from(endpoint).unwrap();
    for (origin, allowed) in [
        ("http://evil.example", false),
        ("http://node.internal", true),
    ] {
        let channel = endpoint
            .clone()
            .origin(origin.parse().unwrap())
            .connect()
            .await
            .unwrap();
        let answer = HealthClient::new(channel)
            .check(HealthCheckRequest::default())
            .await;
        let refused = answer.err().map(|status| status.code());
        assert_eq!(refused, (!allowed).then_some(tonic::Code::PermissionDenied));
    }
    node.stop().await.unwrap();
}

#[tokio::test]
async fn wrong_requests_get_the_refusal_that_fits() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.max_request_bytes = 10_000;
    let node = started(config).await;
    let http = node.addresses().http;
    let snappy = "Content-Encoding: snappy\r\n";
    let protobuf = "Content-Type: application/x-protobuf\r\n";
    let v2 = "Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n";
    let good = samples("up", 1);
    for (headers, body, status, says) in [
        (format!("{v2}{snappy}"), &good[..], 415, "2.0"),
        (
            format!("Content-Type: application/json\r\n{snappy}"),
            &good[..],
            415,
            "json",
        ),
        (
            format!("{protobuf}Content-Encoding: gzip\r\n"),
            &good[..],
            415,
            "snappy",
        ),
        (
            format!("{protobuf}{snappy}"),
            b"not snappy at all",
            400,
            "snappy",
        ),
        // A literal of three bytes that are no protobuf.
        (
            format!("{protobuf}{snappy}"),
            b"\x03\x08\xff\xff\xff",
            400,
            "remote write",
        ),
        (
            format!("{protobuf}{snappy}"),
            &samples("up", 5_000),
            413,
            "max-request-bytes",
        ),
        (
            format!("{protobuf}{snappy}"),
            &vec![7; 20_000],
            413,
            "max-request-bytes",
        ),
    ] {
        let (got, answer) = post(http, "/api/v1/write", &headers, body).await;
        assert_eq!(got, status, "{headers}: {answer}");
        assert!(answer.contains(says), "{answer}");
    }
    // Empty is not wrong.
    let empty = snap::raw::Encoder::new().compress_vec(&[]).unwrap();
    assert_eq!(write(&node, &empty).await.0, 204);
    let (status, answer) = post(http, "/api/v1/admin/flush", "", b"").await;
    assert!(
        status == 200 && answer.contains(r#""blocks":0"#),
        "{answer}"
    );
    assert_eq!(get(http, "/api/v1/admin/flush", "").await.0, 405);
    assert_eq!(get(http, "/api/v1/write", "").await.0, 405);
    let (status, answer) = get(http, "/api/traces/1", "").await;
    assert_eq!(status, 404);
    assert!(
        answer.contains("/tempo") && answer.contains("/jaeger"),
        "{answer}"
    );
    // The node serves on.
    assert_eq!(write(&node, &good).await.0, 204);
    let (_, metrics) = get(http, "/metrics", "").await;
    for line in [
        r#"rootline_samples_stored_total{protocol="remote_write"} 1"#,
        r#"rootline_refused_requests_total{protocol="remote_write",reason="too_large"} 2"#,
        r#"rootline_requests_total{protocol="remote_write",code="204"} 2"#,
        "rootline_series 1",
        "rootline_log_poisoned 0",
        r#"rootline_memory_used_bytes{holder="requests"} 0"#,
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} in {metrics}");
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let page = std::fs::read_to_string(page).unwrap();
    for name in metrics
        .lines()
        .filter_map(|l| l.strip_prefix("# HELP ")?.split(' ').next())
    {
        assert!(
            page.contains(&format!("| `{name}` |")),
            "docs/operations.md lacks {name}"
        );
    }
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_large_body_that_is_refused_is_taken_in_so_that_its_sender_reads_why() {
    let dir = tempfile::tempdir().unwrap();
    let node = started(config(dir.path())).await;
    let large = vec![7; 80 << 20];
    let (status, answer) = write(&node, &large).await;
    assert_eq!(status, 413, "{answer}");
    let html = "Content-Type: text/html\r\n";
    let (status, answer) = post(node.addresses().http, "/api/v1/write", html, &large).await;
    assert_eq!(status, 415, "{answer}");
    node.stop().await.unwrap();
}

#[tokio::test]
async fn clients_that_stall_are_let_go_and_hold_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.body_idle_timeout = Duration::from_millis(100);
    config.idle_timeout = Duration::from_millis(200);
    let node = started(config).await;
    let http = node.addresses().http;
    // Half a body.
    let half = format!(
        "POST /api/v1/write HTTP/1.1\r\nHost: localhost\r\n{REMOTE_WRITE}Content-Length: 100\r\n\r\nabc"
    );
    let (status, _) = exchange(http, half.as_bytes()).await;
    assert_eq!(status, 408);
    // Half a request head, and nothing at all: closed without an answer or with 408.
    for port in [http, node.addresses().grpc, node.addresses().otlp_http] {
        for sent in ["POST /api/v1/wr", "", "PRI * HTTP/2"] {
            let exchange = exchange(port, sent.as_bytes());
            let closed = tokio::time::timeout(Duration::from_secs(10), exchange).await;
            let (status, _) = closed.unwrap_or_else(|_| panic!("not closed after {sent:?}"));
            assert!(status == 0 || status == 408, "{status}");
        }
    }
    let budget = node.state().budget().unwrap();
    assert_eq!(budget.held_bytes(rootline_engine::Holder::Requests), 0);
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_request_under_way_is_finished_when_the_node_stops() {
    let dir = tempfile::tempdir().unwrap();
    let node = started(config(dir.path())).await;
    let body = samples("late", 3);
    let mut stream = TcpStream::connect(node.addresses().http).await.unwrap();
    let head = format!(
        "POST /api/v1/write HTTP/1.1\r\nHost: localhost\r\n{REMOTE_WRITE}Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body[..5]).await.unwrap();
    let budget = Arc::clone(node.state().budget().unwrap());
    let held = || budget.held_bytes(rootline_engine::Holder::Requests) > 0;
    assert!(rootline::run::wait_until(Duration::from_secs(10), held).await);
    let state = Arc::clone(node.state());
    let stopping = tokio::spawn(node.stop());
    let is_stopping = || state.phase() == rootline::node::Phase::Stopping;
    assert!(rootline::run::wait_until(Duration::from_secs(10), is_stopping).await);
    stream.write_all(&body[5..]).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(
        answer.starts_with(b"HTTP/1.1 204"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    stopping.await.unwrap().unwrap();
    let node = started(config(dir.path())).await;
    assert_eq!(node.state().engine().unwrap().stats().block_samples, 3);
}

#[tokio::test]
async fn a_full_budget_is_the_transient_refusal_on_every_protocol() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.memory_limit_bytes = 4 << 20;
    config.memory_wait = Duration::from_millis(10);
    let node = started(config).await;
    let budget = Arc::clone(node.state().budget().unwrap());
    let room = budget.limit_bytes() - budget.used_bytes();
    let held = budget
        .reserve(rootline_engine::Holder::Queries, room)
        .unwrap();
    let (status, answer) = write(&node, &samples("up", 1)).await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer.to_lowercase().contains("retry-after"), "{answer}");
    let json = "Content-Type: application/json\r\n";
    let otlp = post(node.addresses().otlp_http, "/v1/metrics", json, b"{}").await;
    assert_eq!(otlp.0, 503);
    drop(held);
    assert_eq!(write(&node, &samples("up", 1)).await.0, 204);
    node.stop().await.unwrap();
}

/// A series past the limit of its label's value costs itself; other values go on.
#[tokio::test]
async fn series_are_limited_by_the_value_of_a_label() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.series_max_per_label = vec![("__name__".to_owned(), 2)];
    let node = started(config).await;
    let series = |name: &str, instance: &str| pb::TimeSeries {
        labels: [("__name__", name), ("instance", instance)]
            .into_iter()
            .map(|(name, value)| pb::Label {
                name: name.into(),
                value: value.into(),
            })
            .collect(),
        samples: vec![pb::Sample {
            value: 1.0,
            timestamp: 1,
        }],
        ..Default::default()
    };
    let send = |timeseries: Vec<pb::TimeSeries>| {
        let request = pb::WriteRequest {
            timeseries,
            metadata: vec![],
        };
        snap::raw::Encoder::new()
            .compress_vec(&request.encode_to_vec())
            .unwrap()
    };
    let body = send(vec![
        series("up", "a"),
        series("up", "b"),
        series("up", "c"),
        series("down", "a"),
    ]);
    let (status, answer) = write(&node, &body).await;
    assert_eq!(status, 400, "{answer}");
    assert!(
        answer.contains("__name__=\"up\"") && answer.contains("series-max-per-label"),
        "{answer}"
    );
    let stats = node.state().engine().unwrap().stats();
    assert_eq!((stats.metrics.series, stats.metrics.samples), (3, 3));
    node.stop().await.unwrap();
}

#[tokio::test]
async fn only_pages_that_were_allowed_may_read_and_none_may_write() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.http_cors_origins = vec!["http://localhost:3000".to_owned()];
    let node = started(config).await;
    let http = node.addresses().http;
    let opens = |answer: &str| {
        answer
            .to_lowercase()
            .contains("access-control-allow-origin")
    };
    let allowed = "Origin: http://localhost:3000\r\n";
    assert!(opens(&get(http, "/metrics", allowed).await.1));
    assert!(!opens(
        &get(http, "/metrics", "Origin: http://evil.example\r\n")
            .await
            .1
    ));
    assert!(!opens(
        &post(http, "/api/v1/admin/flush", allowed, b"").await.1
    ));
    assert!(!opens(&post(http, "/api/v1/write", allowed, b"").await.1));
    node.stop().await.unwrap();
}

#[tokio::test]
async fn reflection_names_the_services_and_logs_are_unimplemented() {
    let dir = tempfile::tempdir().unwrap();
    let node = started(config(dir.path())).await;
    let channel = channel(node.addresses().grpc).await;
    {
        use tonic_reflection::pb::v1::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let mut client = ServerReflectionClient::new(channel.clone());
        let list = ServerReflectionRequest {
            message_request: Some(MessageRequest::ListServices(String::new())),
            ..Default::default()
        };
        let mut answers = client
            .server_reflection_info(tokio_stream::once(list))
            .await
            .unwrap()
            .into_inner();
        let answer = answers.next().await.unwrap().unwrap().message_response;
        let Some(MessageResponse::ListServicesResponse(list)) = answer else {
            panic!("{answer:?}")
        };
        assert!(
            list.service
                .iter()
                .any(|s| s.name == "grpc.health.v1.Health"),
            "{list:?}"
        );
    }
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let path = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
        .parse()
        .unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let answer = client.unary(tonic::Request::new(()), path, codec).await;
    assert_eq!(answer.unwrap_err().code(), tonic::Code::Unimplemented);
    node.stop().await.unwrap();
}
