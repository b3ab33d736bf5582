//! Bad input costs only itself (design contract 6): on every port, whatever comes gets the right refusal,
//! memory stays bounded, and the node serves on.
//!
//! Never a 5xx for what will fail again, never a retry asked for it; the valid rest is stored.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use opentelemetry_proto::tonic::collector::{
    metrics::v1::ExportMetricsServiceResponse,
    trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
};
use prost::Message;
use rootline_tests::{
    Node, http, otlp, remote_write,
    seeded::{self, Random},
};
use tempfile::{TempDir, tempdir};
use tonic::{Code, transport::Channel};
use tonic_types::StatusExt;

const NOW_NS: u64 = 1_700_000_000_000_000_000;
const NOW_MS: i64 = 1_700_000_000_000;
/// Resident bytes that a node which stores next to nothing must stay under.
const RESIDENT_BYTES_MAX: u64 = 400 << 20;
const PROTOBUF: &str = "application/x-protobuf";

fn start(options: &[&str]) -> (TempDir, Node) {
    let dir = tempdir().unwrap();
    let node = Node::start_with(dir.path(), options);
    (dir, node)
}

/// The node still takes and answers good requests, and did not grow.
fn serves_on(node: &Node) {
    assert!(node.is_healthy());
    let labels: [(&[u8], &[u8]); 1] = [(b"__name__", b"still_here")];
    let body = remote_write::request(&[remote_write::series(&labels, &[(NOW_MS, 1.0)])]);
    let response = remote_write::post(node.http, &body).unwrap();
    assert!((200..300).contains(&response.status), "{response:?}");
    if let Some(resident) = node.resident_bytes() {
        assert!(resident < RESIDENT_BYTES_MAX, "{resident} bytes resident");
    }
}

fn some_traces() -> Vec<u8> {
    let spans = (1..20).map(|n| otlp::span(7, n, (n > 1).then_some(n / 2), NOW_NS, NOW_NS + n));
    otlp::traces("bad-input", spans.collect()).encode_to_vec()
}

fn some_metrics() -> Vec<u8> {
    let attributes: &[(&str, &str)] = &[("a", "b")];
    otlp::gauge(
        "bad-input",
        "g",
        &[(attributes, NOW_NS, 1.0), (&[], NOW_NS, 2.0)],
    )
    .encode_to_vec()
}

fn some_series() -> Vec<u8> {
    let labels: [(&[u8], &[u8]); 2] = [(b"__name__", b"m"), (b"job", b"j")];
    remote_write::request(&[remote_write::series(
        &labels,
        &[(NOW_MS, 1.0), (NOW_MS + 1, 2.0)],
    )])
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

async fn channel(node: &Node) -> Channel {
    Channel::from_shared(node.endpoint())
        .unwrap()
        .connect()
        .await
        .unwrap()
}

fn damaged(whole: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    if random.below(2) == 0 {
        bytes.truncate(usize::try_from(random.below(bytes.len() as u64)).unwrap());
    }
    for _ in 0..random.below(4) {
        if !bytes.is_empty() {
            let at = usize::try_from(random.below(bytes.len() as u64)).unwrap();
            bytes[at] ^= 1 << random.below(8);
        }
    }
    bytes
}

#[test]
fn damaged_bodies_are_refused_for_good_or_stored_in_part() {
    let (_dir, node) = start(&[]);
    let mut random = Random::new(seeded::seed("damaged bodies"));
    for _ in 0..60 {
        let cases = [
            (
                node.otlp_http,
                "/v1/traces",
                damaged(&some_traces(), &mut random),
            ),
            (
                node.otlp_http,
                "/v1/metrics",
                damaged(&some_metrics(), &mut random),
            ),
        ];
        for (addr, path, body) in cases {
            let response = http::post(addr, path, PROTOBUF, &body).unwrap();
            assert!(
                response.status == 200 || response.status == 400,
                "{path}: {response:?}"
            );
        }
        let body = damaged(&some_series(), &mut random);
        let response = remote_write::post(node.http, &body).unwrap();
        assert!(matches!(response.status, 200..300 | 400), "{response:?}");
        let compressed = snap::raw::Encoder::new()
            .compress_vec(&some_series())
            .unwrap();
        let response =
            remote_write::post_raw(node.http, &damaged(&compressed, &mut random)).unwrap();
        assert!(
            matches!(response.status, 200..300 | 400 | 413),
            "{response:?}"
        );
    }
    block_on(async {
        let channel = channel(&node).await;
        for _ in 0..60 {
            for (method, whole) in [
                (otlp::EXPORT_TRACES, some_traces()),
                (otlp::EXPORT_METRICS, some_metrics()),
            ] {
                if let Err(status) =
                    otlp::call(&channel, method, damaged(&whole, &mut random)).await
                {
                    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
                }
            }
        }
    });
    serves_on(&node);
}

#[test]
fn json_that_is_none_is_a_400_with_a_status_in_json() {
    let (_dir, node) = start(&[]);
    for body in [
        &b"{"[..],
        b"[]",
        b"\xff\xfe",
        b"{\"resourceSpans\": 7}",
        b"",
    ] {
        let response = http::post(node.otlp_http, "/v1/traces", "application/json", body).unwrap();
        assert_eq!(
            response.status,
            400,
            "{:?}: {response:?}",
            String::from_utf8_lossy(body)
        );
        let status: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        assert!(status["message"].is_string(), "{status}");
    }
    serves_on(&node);
}

#[test]
fn oversized_requests_are_413_or_resource_exhausted_without_a_time_to_retry() {
    let (_dir, node) = start(&["--max-request-bytes", "1048576"]);
    let large = vec![0u8; 2 << 20];
    for path in ["/v1/traces", "/v1/metrics"] {
        let response = http::post(node.otlp_http, path, PROTOBUF, &large).unwrap();
        assert_eq!(response.status, 413, "{response:?}");
        assert_eq!(response.header("retry-after"), None);
    }
    let response = remote_write::post(node.http, &large).unwrap();
    assert_eq!(response.status, 413, "{response:?}");
    block_on(async {
        let channel = channel(&node).await;
        let status = otlp::call(&channel, otlp::EXPORT_TRACES, large.clone())
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        assert!(status.get_details_retry_info().is_none(), "{status:?}");
    });
    serves_on(&node);
}

/// 512 MiB of zeros, compressed as small as each format can.
#[test]
fn zip_bombs_are_refused_while_they_unfold() {
    let (_dir, node) = start(&["--max-request-bytes", "4194304"]);
    let zeros = || std::io::repeat(0).take(512 << 20);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::copy(&mut zeros(), &mut gzip).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(zeros(), 1).unwrap();
    for (encoding, bomb) in [("gzip", &gzip), ("zstd", &zstd)] {
        let headers = [("Content-Type", PROTOBUF), ("Content-Encoding", encoding)];
        let response = http::request(node.otlp_http, "POST", "/v1/traces", &headers, bomb).unwrap();
        assert_eq!(response.status, 413, "{encoding}: {response:?}");
    }
    // Snappy says how much it will be, and lies as easily.
    for claim in [1u64 << 31, u64::from(u32::MAX), 1 << 40] {
        let mut bomb = Vec::new();
        remote_write::varint(&mut bomb, claim);
        bomb.extend_from_slice(&[0xfe; 100]);
        let response = remote_write::post_raw(node.http, &bomb).unwrap();
        assert!(matches!(response.status, 400 | 413), "{response:?}");
    }
    serves_on(&node);
}

#[test]
fn wrong_compression_and_types_are_named() {
    let (_dir, node) = start(&[]);
    let body = some_traces();
    for encoding in ["gzip", "zstd"] {
        let headers = [("Content-Type", PROTOBUF), ("Content-Encoding", encoding)];
        let response =
            http::request(node.otlp_http, "POST", "/v1/traces", &headers, &body).unwrap();
        assert_eq!(response.status, 400, "{encoding}: {response:?}");
    }
    let headers = [("Content-Type", PROTOBUF), ("Content-Encoding", "br")];
    let response = http::request(node.otlp_http, "POST", "/v1/traces", &headers, &body).unwrap();
    assert!(matches!(response.status, 400 | 415), "{response:?}");
    let response = http::post(node.otlp_http, "/v1/traces", "text/plain", &body).unwrap();
    assert!(matches!(response.status, 400 | 415), "{response:?}");
    // Not compressed at all, where snappy is the protocol.
    let response = remote_write::post_raw(node.http, &some_series()).unwrap();
    assert_eq!(response.status, 400, "{response:?}");
    serves_on(&node);
}

#[test]
fn what_a_node_does_not_have_is_refused_in_the_protocols_own_way() {
    let (_dir, node) = start(&[]);
    assert_eq!(
        http::post(node.otlp_http, "/v1/logs", PROTOBUF, b"")
            .unwrap()
            .status,
        404
    );
    block_on(async {
        let status = otlp::call(&channel(&node).await, otlp::EXPORT_LOGS, Vec::new())
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
    });
    let response = http::get(node.http, "/api/traces/0123456789abcdef0123456789abcdef").unwrap();
    assert_eq!(response.status, 404);
    let text = response.text();
    assert!(
        text.contains("/tempo") && text.contains("/jaeger"),
        "{text}"
    );
    let response = http::request(
        node.http,
        "GET",
        "/health",
        &[("Host", "evil.example")],
        b"",
    );
    assert!(matches!(response.unwrap().status, 400 | 403 | 421));
    serves_on(&node);
}

/// Sends series of which some are bad; answers the status and how many samples are then stored.
fn stored_of(node: &Node, metric: &str, series: &[Vec<u8>]) -> (u16, String) {
    let response = remote_write::post(node.http, &remote_write::request(series)).unwrap();
    let output = node.cli(&[
        "query",
        "series",
        metric,
        "--from",
        "1970-01-01T00:00:00Z",
        "--to",
        "2200-01-01T00:00:00Z",
        "--json",
    ]);
    (
        response.status,
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

#[test]
fn bad_series_cost_only_themselves() {
    let (_dir, node) = start(&[]);
    let name: (&[u8], &[u8]) = (b"__name__", b"partly");
    let good = remote_write::series(&[name, (b"kind", b"good")], &[(NOW_MS, 1.0)]);
    let bad: Vec<Vec<u8>> = vec![
        remote_write::series(&[name, (b"", b"empty-name")], &[(NOW_MS, 1.0)]),
        remote_write::series(
            &[name, (b"kind", b"twice"), (b"kind", b"twice2")],
            &[(NOW_MS, 1.0)],
        ),
        remote_write::series(&[name, (b"kind", b"\xff\xfe")], &[(NOW_MS, 1.0)]),
        remote_write::series(&[name, (b"\xff", b"not-utf8-name")], &[(NOW_MS, 1.0)]),
        remote_write::series(&[name, (b"kind", b"late")], &[(i64::MAX, 1.0)]),
        remote_write::series(&[name, (b"kind", b"early")], &[(i64::MIN, 1.0)]),
        remote_write::series(&[], &[(NOW_MS, 1.0)]),
    ];
    for (n, one) in bad.into_iter().enumerate() {
        let (status, series) = stored_of(&node, "partly", &[one, good.clone()]);
        assert_eq!(status, 400, "case {n}");
        assert!(
            series.contains("good"),
            "case {n}: the valid rest is missing: {series}"
        );
        for label in ["twice", "late", "early", "empty-name", "not-utf8-name"] {
            assert!(!series.contains(label), "case {n}: {series}");
        }
    }
    serves_on(&node);
}

#[test]
fn a_million_labels_are_one_bad_series() {
    let (_dir, node) = start(&[]);
    let names: Vec<String> = (0..1_000_000).map(|n| format!("l{n:06}")).collect();
    let mut labels: Vec<(&[u8], &[u8])> = vec![(b"__name__", b"many")];
    labels.extend(names.iter().map(|n| (n.as_bytes(), &b"v"[..])));
    let body = remote_write::request(&[remote_write::series(&labels, &[(NOW_MS, 1.0)])]);
    let response = remote_write::post(node.http, &body).unwrap();
    assert_eq!(response.status, 400, "{response:?}");
    serves_on(&node);
}

fn export(node: &Node, request: &ExportTraceServiceRequest) -> (i64, String) {
    let body = request.encode_to_vec();
    let response = http::post(node.otlp_http, "/v1/traces", PROTOBUF, &body).unwrap();
    assert_eq!(response.status, 200, "{response:?}");
    let answer = ExportTraceServiceResponse::decode(&response.body[..]).unwrap();
    answer
        .partial_success
        .map_or((0, String::new()), |p| (p.rejected_spans, p.error_message))
}

#[test]
fn bad_spans_are_counted_and_the_rest_is_stored() {
    let (_dir, node) = start(&[]);
    let good = otlp::span(0xa11, 1, None, NOW_NS, NOW_NS + 5);
    let mut bad = Vec::new();
    for (trace_id, span_id) in [
        (vec![], vec![1; 8]),
        (vec![0; 16], vec![1; 8]),
        (vec![1; 16], vec![]),
        (vec![1; 16], vec![0; 8]),
        (vec![1; 15], vec![1; 9]),
    ] {
        let mut span = good.clone();
        span.trace_id = trace_id;
        span.span_id = span_id;
        bad.push(span);
    }
    let mut late = good.clone();
    late.start_time_unix_nano = u64::MAX;
    late.end_time_unix_nano = u64::MAX;
    bad.push(late);
    for (n, one) in bad.iter().enumerate() {
        let request = otlp::traces("bad-spans", vec![one.clone(), good.clone()]);
        let (rejected, reason) = export(&node, &request);
        assert_eq!(rejected, 1, "case {n}: {reason}");
        assert!(!reason.is_empty());
    }
    let trace = format!("{:032x}", 0xa11);
    let answer = node
        .cli_json(&["query", "trace", &trace, "--json"])
        .to_string();
    assert!(answer.contains("bad-spans"), "{answer}");
    serves_on(&node);
}

#[test]
fn an_end_before_its_start_is_refused_or_shown_as_it_came() {
    let (_dir, node) = start(&[]);
    let request = otlp::traces(
        "backwards",
        vec![otlp::span(0xbad, 1, None, NOW_NS, NOW_NS - 1_000)],
    );
    let (rejected, reason) = export(&node, &request);
    let shown = node.cli(&["query", "trace", &format!("{:032x}", 0xbad), "--json"]);
    assert_eq!(shown.status.success(), rejected == 0, "{reason}");
    serves_on(&node);
}

#[test]
fn parents_that_lead_in_circles_end_somewhere() {
    let (_dir, node) = start(&[]);
    let end = NOW_NS + 10;
    let own_parent = vec![otlp::span(0xc1, 1, Some(1), NOW_NS, end)];
    let pair = vec![
        otlp::span(0xc2, 1, Some(2), NOW_NS, end),
        otlp::span(0xc2, 2, Some(1), NOW_NS + 1, end),
    ];
    let ring: Vec<_> = (0..1_000)
        .map(|n| otlp::span(0xc3, n + 1, Some((n + 1) % 1_000 + 1), NOW_NS + n, end + n))
        .collect();
    let chain: Vec<_> = (1..=20_000)
        .map(|n| {
            otlp::span(
                0xc4,
                n,
                (n > 1).then(|| n - 1),
                NOW_NS + n,
                NOW_NS + 40_000 - n,
            )
        })
        .collect();
    for (trace, spans) in [
        (0xc1, own_parent),
        (0xc2, pair),
        (0xc3, ring),
        (0xc4, chain),
    ] {
        let count = spans.len();
        assert_eq!(export(&node, &otlp::traces("circle", spans)).0, 0);
        let answer = node.cli_json(&["query", "trace", &format!("{trace:032x}"), "--json"]);
        let ids = answer.to_string().matches("\"span_id\"").count();
        assert_eq!(ids, count, "trace {trace:x}");
    }
    let output = node.cli(&[
        "query",
        "dependencies",
        "--from",
        "2023-11-14T00:00:00Z",
        "--to",
        "2023-11-15T00:00:00Z",
        "--json",
    ]);
    assert!(output.status.success());
    serves_on(&node);
}

#[test]
fn bad_data_points_are_counted_and_the_rest_is_stored() {
    let (_dir, node) = start(&[]);
    let request = otlp::gauge(
        "bad-points",
        "temperature",
        &[(&[], u64::MAX, 1.0), (&[], NOW_NS, 2.0)],
    );
    let body = request.encode_to_vec();
    let response = http::post(node.otlp_http, "/v1/metrics", PROTOBUF, &body).unwrap();
    assert_eq!(response.status, 200, "{response:?}");
    let answer = ExportMetricsServiceResponse::decode(&response.body[..]).unwrap();
    let partial = answer.partial_success.expect("a partial success");
    assert_eq!(partial.rejected_data_points, 1);
    assert!(!partial.error_message.is_empty());
    serves_on(&node);
}

/// Opens a connection, sends `bytes`, and then says nothing more.
fn silent(addr: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(bytes).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
}

/// Half-open and slow clients are cut off in time, and nobody else waits for them.
#[test]
fn slow_and_half_open_clients_hold_nobody_up() {
    let (_dir, node) = start(&[
        "--body-idle-timeout",
        "1s",
        "--body-timeout",
        "3s",
        "--idle-timeout",
        "2s",
    ]);
    let head = "POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\nContent-Length: 1000\r\n\r\nabc";
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(silent(node.otlp_http, head.as_bytes()));
        streams.push(silent(node.http, b"GET /health HT"));
        streams.push(silent(node.http, b""));
        streams.push(silent(node.grpc, &preface[..10]));
        streams.push(silent(node.grpc, preface));
    }
    serves_on(&node);
    // The body that stopped coming ends in an answer or a closed connection.
    let mut answer = Vec::new();
    let stopped = streams.first_mut().unwrap().read_to_end(&mut answer);
    assert!(stopped.is_ok() || !answer.is_empty(), "{stopped:?}");
    serves_on(&node);
}

#[test]
fn noise_on_every_port_changes_nothing() {
    let (_dir, node) = start(&[]);
    let mut random = Random::new(seeded::seed("noise"));
    for addr in [node.grpc, node.otlp_http, node.http] {
        for _ in 0..30 {
            let noise: Vec<u8> = (0..random.below(300))
                .map(|_| (random.next_u64() & 0xff) as u8)
                .collect();
            let mut stream = TcpStream::connect(addr).unwrap();
            // The node may close while we still write.
            let _ = stream.write_all(&noise);
        }
    }
    serves_on(&node);
}
