//! The promise guarded here: `rootline.v1` over a real connection answers what was written, refuses what
//! is wrong with the right code, and its client puts streams together whole.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::Path, sync::Arc, time::Duration};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status},
};
use prost::Message as _;
use rootline::{
    client::{Client, v1},
    config::Config,
    run::RunningNode,
};
use rootline_engine::SystemClock;
use tonic::Code;

const S: i64 = 1_000_000_000;
const T0: i64 = 1_700_000_000 * S;

struct Node {
    running: RunningNode,
    client: Client,
    _dir: tempfile::TempDir,
}

impl Node {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut running = RunningNode::start(config(dir.path()), Arc::new(SystemClock::new()))
            .await
            .unwrap();
        running.ready().await.unwrap();
        let endpoint = format!("http://{}", running.addresses().grpc);
        let client = Client::connect(&endpoint).await.unwrap();
        Self {
            running,
            client,
            _dir: dir,
        }
    }
}

fn config(dir: &Path) -> Config {
    let mut config = Config::new(dir);
    let any_port = "127.0.0.1:0".parse().unwrap();
    config.grpc_listen = any_port;
    config.otlp_http_listen = any_port;
    config.http_listen = any_port;
    config.memory_limit_bytes = 1 << 30;
    config
}

fn labels(pairs: &[(&str, &str)]) -> Vec<v1::Label> {
    pairs
        .iter()
        .map(|(n, v)| v1::Label {
            name: (*n).into(),
            value: (*v).into(),
        })
        .collect()
}

fn series(pairs: &[(&str, &str)], samples: &[(i64, f64)]) -> v1::SeriesWrite {
    v1::SeriesWrite {
        labels: labels(pairs),
        times_ns: samples.iter().map(|s| s.0).collect(),
        values: samples.iter().map(|s| s.1).collect(),
        exemplars: vec![],
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as the messages take it")]
fn selector(text: &str) -> Option<v1::SeriesSelector> {
    Some(v1::SeriesSelector {
        selector: text.into(),
        matchers: vec![],
    })
}

/// `(span id, parent, service, start ms, end ms)` of one trace.
fn trace(id: u8, spans: &[(u8, u8, &str, i64, i64)]) -> Vec<u8> {
    let text = |key: &str, value: &str| KeyValue {
        key: key.into(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.into())),
        }),
        ..Default::default()
    };
    let ns = |ms: i64| u64::try_from(T0 + ms * 1_000_000).unwrap();
    let resource_spans = spans
        .iter()
        .map(|&(span, parent, service, start, end)| ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", service)],
                ..Default::default()
            }),
            scope_spans: vec![ScopeSpans {
                spans: vec![Span {
                    trace_id: vec![id; 16],
                    span_id: vec![span; 8],
                    parent_span_id: if parent == 0 { vec![] } else { vec![parent; 8] },
                    name: format!("{service} op"),
                    kind: 2,
                    start_time_unix_nano: ns(start),
                    end_time_unix_nano: ns(end),
                    attributes: vec![text("user", "ada")],
                    status: (service == "postgres").then(|| Status {
                        message: "deadlock".into(),
                        code: 2,
                    }),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        })
        .collect();
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

fn request_of_six_services(id: u8) -> Vec<u8> {
    trace(
        id,
        &[
            (5, 3, "postgres", 270, 290),
            (4, 3, "rating-service", 240, 260),
            (1, 0, "api-gateway", 0, 350),
            (2, 1, "game-service", 20, 220),
            (3, 1, "matchmaking", 230, 310),
            (6, 1, "notification", 320, 340),
        ],
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn one_batch_of_both_signals_is_answered_from() {
    let Node {
        running,
        client,
        _dir,
    } = Node::start().await;
    let mut with_exemplar = series(
        &[("__name__", "latency_seconds"), ("service", "api-gateway")],
        &[(T0, 0.1), (T0 + S, 0.35), (T0 + 2 * S, 0.2)],
    );
    with_exemplar.exemplars.push(v1::Exemplar {
        time_ns: T0 + S,
        value: 0.35,
        trace_id: "07".repeat(16),
        span_id: "01".repeat(8),
        labels: vec![],
    });
    let stored = client
        .write(v1::WriteRequest {
            series: vec![
                with_exemplar,
                series(
                    &[("__name__", "latency_seconds"), ("service", "stock")],
                    &[(T0, 7.0)],
                ),
                series(
                    &[("__name__", "bad"), ("", "x")],
                    &[(T0, 1.0), (T0 + 1, 1.0)],
                ),
            ],
            metadata: vec![v1::MetricMetadata {
                metric: "latency_seconds".into(),
                kind: v1::metric_metadata::Kind::Gauge.into(),
                unit: "seconds".into(),
                help: "how long".into(),
            }],
            otlp_traces: request_of_six_services(7),
        })
        .await
        .unwrap();
    assert_eq!((stored.stored_samples, stored.stored_spans), (4, 6));
    assert_eq!((stored.rejected_samples, stored.rejected_spans), (2, 0));
    assert!(
        stored.lsn > 0 && !stored.first_rejection.is_empty(),
        "{stored:?}"
    );

    // Samples, by both forms of a selector together.
    let matcher = v1::Matcher {
        r#type: v1::matcher::Type::Regex.into(),
        name: "service".into(),
        value: "api-.*".into(),
    };
    let selected = client
        .select(v1::SelectRequest {
            series: Some(v1::SeriesSelector {
                selector: "latency_seconds".into(),
                matchers: vec![matcher],
            }),
            range: Some(v1::TimeRange {
                start_ns: Some(T0 + S),
                end_ns: Some(T0 + 2 * S),
            }),
            series_limit: 0,
        })
        .await
        .unwrap();
    assert_eq!(selected.series.len(), 1);
    assert_eq!(selected.series[0].times_ns, [T0 + S, T0 + 2 * S]);
    assert_eq!(selected.series[0].values, [0.35, 0.2]);
    assert_eq!(selected.info.snapshot_lsn, stored.lsn);
    assert!(selected.info.exact && !selected.info.empty);

    // What is known of series.
    let of_latency = || selector("latency_seconds");
    let (found, _) = client
        .series(v1::SeriesRequest {
            series: of_latency(),
            range: None,
            limit: 1,
        })
        .await
        .unwrap();
    assert_eq!(
        found[0].labels,
        labels(&[("__name__", "latency_seconds"), ("service", "api-gateway")])
    );
    let names = client
        .label_names(v1::LabelNamesRequest::default())
        .await
        .unwrap()
        .names;
    assert_eq!(names, ["__name__", "service"]);
    let request = v1::LabelValuesRequest {
        name: "service".into(),
        limit: 1,
        ..Default::default()
    };
    let (values, info) = client.label_values(request).await.unwrap();
    assert_eq!(
        (values, info.truncated),
        (vec!["api-gateway".to_owned()], true)
    );
    let request = v1::LabelNamesRequest {
        limit: 1,
        ..Default::default()
    };
    let answer = client.label_names(request).await.unwrap();
    assert_eq!(answer.names, ["__name__"]);
    assert!(answer.info.unwrap().truncated);
    let beginning = |prefix: &str| v1::LabelValuesRequest {
        name: "service".into(),
        prefix: prefix.into(),
        ..Default::default()
    };
    let (values, _) = client.label_values(beginning("api-")).await.unwrap();
    assert_eq!(values, ["api-gateway"]);
    let (values, info) = client.label_values(beginning("zzz")).await.unwrap();
    assert!(values.is_empty() && info.empty && info.data_start_ns.is_some());
    let (exemplars, _) = client
        .exemplars(v1::ExemplarsRequest {
            series: of_latency(),
            range: None,
        })
        .await
        .unwrap();
    assert_eq!(exemplars[0].exemplars[0].trace_id, "07".repeat(16));
    let (metadata, _) = client.metadata("").await.unwrap();
    assert_eq!((metadata.len(), metadata[0].help.as_str()), (1, "how long"));

    // Sealed, it is the same.
    let flushed = client.flush().await.unwrap();
    assert_eq!((flushed.blocks, flushed.samples), (2, 4));
    assert!(flushed.spans > 0);
    assert_eq!(flushed.spans_in_memory, 0);

    // Statistics.
    let request = v1::MetricStatsRequest {
        series: of_latency(),
        by: vec!["service".into()],
        ..Default::default()
    };
    let (groups, _) = client.metric_stats(request).await.unwrap();
    let statistics = groups[0].statistics.unwrap();
    assert_eq!(
        (groups.len(), statistics.count, statistics.max),
        (2, 3, Some(0.35))
    );
    assert_eq!(statistics.p50, Some(0.2));

    // The trace.
    let trace = client.trace(&"07".repeat(16)).await.unwrap();
    assert_eq!((trace.summary.spans, trace.summary.errors), (6, 1));
    assert_eq!(trace.summary.root_service, "api-gateway");
    let tree: Vec<_> = trace
        .rows
        .iter()
        .map(|r| (r.service.as_str(), r.depth))
        .collect();
    assert_eq!(
        tree,
        [
            ("api-gateway", 0),
            ("game-service", 1),
            ("matchmaking", 1),
            ("rating-service", 2),
            ("postgres", 2),
            ("notification", 1),
        ]
    );
    assert_eq!((trace.resources.len(), trace.scopes.len()), (6, 1));
    let postgres = trace.rows[4].span.as_ref().unwrap();
    assert_eq!(postgres.status_message, "deadlock");
    let own = |name: &str| {
        let time = trace.services.iter().find(|t| t.service == name).unwrap();
        (time.own_ns / 1_000_000, time.inclusive_ns / 1_000_000)
    };
    assert_eq!(
        (own("api-gateway"), own("matchmaking")),
        ((50, 350), (40, 80))
    );

    // Dependencies and durations.
    let graph = client
        .dependencies(v1::GetDependenciesRequest::default())
        .await
        .unwrap();
    let edges: Vec<_> = graph
        .dependencies
        .iter()
        .map(|e| (e.caller.as_str(), e.callee.as_str()))
        .collect();
    assert_eq!(
        edges,
        [
            ("api-gateway", "game-service"),
            ("api-gateway", "matchmaking"),
            ("api-gateway", "notification"),
            ("matchmaking", "postgres"),
            ("matchmaking", "rating-service"),
        ]
    );
    let postgres = &graph.dependencies[3];
    assert_eq!((postgres.calls, postgres.errors), (1, 1));
    assert!((postgres.p99_ns - 20e6).abs() < 1e-3);
    let request = v1::SpanStatsRequest {
        by: v1::span_stats_request::By::Operation.into(),
        ..Default::default()
    };
    assert_eq!(client.span_stats(request).await.unwrap().groups.len(), 6);

    // Deletes.
    client.delete_trace(&"07".repeat(16)).await.unwrap();
    let gone = client.trace(&"07".repeat(16)).await.unwrap_err();
    assert_eq!(gone.code(), Some(Code::NotFound), "{gone}");
    let request = v1::DeleteSeriesRequest {
        series: of_latency(),
        range: None,
    };
    assert!(client.delete_series(request).await.unwrap() > stored.lsn);
    let request = v1::SelectRequest {
        series: of_latency(),
        ..Default::default()
    };
    let emptied = client.select(request).await.unwrap();
    assert!(emptied.series.is_empty() && emptied.info.empty);
    let stats = client.stats().await.unwrap();
    assert!(stats.visible_lsn >= stored.lsn && stats.memory_limit_bytes == 1 << 30);
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_answer_says_where_data_lie() {
    let Node { client, .. } = &Node::start().await;
    let request = v1::WriteRequest {
        series: vec![series(&[("__name__", "m")], &[(T0, 1.0), (T0 + S, 2.0)])],
        otlp_traces: request_of_six_services(1),
        ..Default::default()
    };
    client.write(request).await.unwrap();
    let later = Some(v1::TimeRange {
        start_ns: Some(T0 + 3600 * S),
        end_ns: None,
    });

    let request = v1::SelectRequest {
        series: selector("m"),
        range: later,
        series_limit: 0,
    };
    let info = client.select(request).await.unwrap().info;
    assert_eq!(
        (info.empty, info.data_start_ns, info.data_end_ns),
        (true, Some(T0), Some(T0 + S))
    );
    assert_eq!(info.range, later);

    let conditions = v1::SpanConditions {
        service: "postgres".into(),
        ..Default::default()
    };
    let request = v1::FindTracesRequest {
        conditions: Some(conditions.clone()),
        range: later,
        ..Default::default()
    };
    let info = client.find_traces(request).await.unwrap().info.unwrap();
    let at = Some(T0 + 270_000_000);
    assert_eq!(
        (info.empty, info.data_start_ns, info.data_end_ns),
        (true, at, at)
    );

    let nowhere = v1::SpanConditions {
        service: "nobody".into(),
        ..Default::default()
    };
    let request = v1::FindTracesRequest {
        conditions: Some(nowhere),
        ..Default::default()
    };
    let info = client.find_traces(request).await.unwrap().info.unwrap();
    assert_eq!((info.empty, info.data_start_ns), (true, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn long_series_come_in_chunks_and_are_put_together() {
    let Node { client, .. } = &Node::start().await;
    let samples: Vec<(i64, f64)> = (0..200_000i32)
        .map(|i| (T0 + i64::from(i) * S, f64::from(i)))
        .collect();
    let batch = vec![
        series(&[("__name__", "m"), ("s", "1")], &samples),
        series(&[("__name__", "m"), ("s", "2")], &samples[..70_000]),
    ];
    let request = v1::WriteRequest {
        series: batch,
        ..Default::default()
    };
    assert_eq!(client.write(request).await.unwrap().stored_samples, 270_000);

    let request = || v1::SelectRequest {
        series: selector("m"),
        ..Default::default()
    };
    let mut stream = client.select_stream(request()).await.unwrap();
    let mut messages = 0;
    while let Some(message) = stream.message().await.unwrap() {
        messages += 1;
        assert!(
            message
                .chunks
                .iter()
                .all(|chunk| chunk.times_ns.len() <= 65_536)
        );
    }
    assert!(messages > 3, "{messages} messages");
    let selected = client.select(request()).await.unwrap();
    assert_eq!(selected.series.len(), 2);
    assert_eq!(selected.series[0].times_ns.len(), 200_000);
    assert_eq!(
        selected.series[0].values[199_999].to_bits(),
        199_999f64.to_bits()
    );
    assert_eq!(selected.series[1].labels[1].value, "2");

    let limited = v1::SelectRequest {
        series_limit: 1,
        ..request()
    };
    let limited = client.select(limited).await.unwrap();
    assert_eq!((limited.series.len(), limited.info.truncated), (1, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_search_are_stable() {
    let Node { client, .. } = &Node::start().await;
    for id in 1..=5 {
        let request = v1::WriteRequest {
            otlp_traces: request_of_six_services(id),
            ..Default::default()
        };
        client.write(request).await.unwrap();
    }
    let mut ids = Vec::new();
    let mut token = String::new();
    loop {
        let tag = v1::Matcher {
            name: "user".into(),
            value: "ada".into(),
            ..Default::default()
        };
        let conditions = v1::SpanConditions {
            tags: vec![tag],
            ..Default::default()
        };
        let request = v1::FindTracesRequest {
            conditions: Some(conditions),
            limit: 2,
            page_token: token,
            ..Default::default()
        };
        let page = client.find_traces(request).await.unwrap();
        assert!(page.traces.iter().all(|t| t.matched_spans == 6));
        ids.extend(page.traces.into_iter().map(|t| t.trace_id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
        let more = request_of_six_services(u8::try_from(100 + ids.len()).unwrap());
        let request = v1::WriteRequest {
            otlp_traces: more,
            ..Default::default()
        };
        client.write(request).await.unwrap();
    }
    let expected: Vec<String> = (1..=5)
        .rev()
        .map(|id| format!("{id:02x}").repeat(16))
        .collect();
    assert_eq!(ids, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_questions_are_refused_with_the_right_code() {
    let Node {
        client, running, ..
    } = &Node::start().await;
    let select = |text: &str| v1::SelectRequest {
        series: selector(text),
        ..Default::default()
    };
    for text in ["", "{}", "m{", "m[5m]", r#"m{a=~"("}"#, r#"{a=~".*"}"#] {
        let refused = client.select(select(text)).await.unwrap_err();
        assert_eq!(
            refused.code(),
            Some(Code::InvalidArgument),
            "{text}: {refused}"
        );
    }
    let backwards = Some(v1::TimeRange {
        start_ns: Some(2),
        end_ns: Some(1),
    });
    let request = v1::SelectRequest {
        series: selector("m"),
        range: backwards,
        series_limit: 0,
    };
    assert_eq!(
        client.select(request).await.unwrap_err().code(),
        Some(Code::InvalidArgument)
    );
    for id in ["", "abc", &"0".repeat(32), &"g".repeat(32)] {
        let refused = client.trace(id).await.unwrap_err();
        assert_eq!(
            refused.code(),
            Some(Code::InvalidArgument),
            "{id}: {refused}"
        );
    }
    let missing = client.trace(&"ab".repeat(16)).await.unwrap_err();
    assert_eq!(missing.code(), Some(Code::NotFound));
    for (limit, page_token) in [(1001, ""), (10, "nonsense")] {
        let page_token = page_token.to_owned();
        let request = v1::FindTracesRequest {
            limit,
            page_token,
            ..Default::default()
        };
        let refused = client.find_traces(request).await.unwrap_err();
        assert_eq!(refused.code(), Some(Code::InvalidArgument), "{refused}");
    }
    let everything = client
        .delete_series(v1::DeleteSeriesRequest::default())
        .await
        .unwrap_err();
    assert_eq!(everything.code(), Some(Code::InvalidArgument));
    for name in ["", "..", "a/b"] {
        let refused = client.create_snapshot(name).await.unwrap_err();
        assert_eq!(refused.code(), Some(Code::InvalidArgument), "{refused}");
    }

    let traces = b"\xff\xff\xff".to_vec();
    let request = v1::WriteRequest {
        otlp_traces: traces,
        ..Default::default()
    };
    assert_eq!(
        client.write(request).await.unwrap_err().code(),
        Some(Code::InvalidArgument)
    );
    let uneven = v1::SeriesWrite {
        values: vec![],
        ..series(&[("__name__", "m")], &[(T0, 1.0)])
    };
    let request = v1::WriteRequest {
        series: vec![uneven],
        ..Default::default()
    };
    let stored = client.write(request).await.unwrap();
    assert_eq!(
        (stored.stored_samples, stored.rejected_samples, stored.lsn),
        (0, 1, 0)
    );
    assert_eq!(running.state().engine().unwrap().budget().used_bytes(), {
        let stats = client.stats().await.unwrap();
        stats
            .memory
            .iter()
            .filter(|m| m.holder.ends_with("_head") || m.holder == "buffers")
            .map(|m| m.bytes)
            .sum::<u64>()
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_stops_its_query_and_gives_its_memory_back() {
    let Node {
        client, running, ..
    } = &Node::start().await;
    let samples: Vec<(i64, f64)> = (0..100_000).map(|i| (T0 + i, 1.0)).collect();
    for s in 0..10 {
        let name = s.to_string();
        let batch = vec![series(&[("__name__", "m"), ("s", &name)], &samples)];
        client
            .write(v1::WriteRequest {
                series: batch,
                ..Default::default()
            })
            .await
            .unwrap();
    }
    let request = v1::SelectRequest {
        series: selector("m"),
        ..Default::default()
    };
    let mut stream = client.select_stream(request).await.unwrap();
    assert!(stream.message().await.unwrap().is_some());
    let engine = running.state().engine().unwrap().clone();
    assert!(
        engine.stats().memory_queries_bytes > 0,
        "the stream is under way"
    );
    drop(stream);
    let freed = || engine.stats().memory_queries_bytes == 0;
    assert!(rootline::run::wait_until(Duration::from_secs(5), freed).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_stream_that_nobody_reads() {
    let Node {
        client, running, ..
    } = &Node::start().await;
    let samples: Vec<(i64, f64)> = (0..100_000).map(|i| (T0 + i, 1.0)).collect();
    for s in 0..10 {
        let name = s.to_string();
        let batch = vec![series(&[("__name__", "m"), ("s", &name)], &samples)];
        client
            .write(v1::WriteRequest {
                series: batch,
                ..Default::default()
            })
            .await
            .unwrap();
    }
    let hasty = client.clone().with_timeout(Duration::from_millis(700));
    let request = v1::SelectRequest {
        series: selector("m"),
        ..Default::default()
    };
    let stream = hasty.select_stream(request).await.unwrap();
    let engine = running.state().engine().unwrap().clone();
    let freed = || engine.stats().memory_queries_bytes == 0;
    assert!(rootline::run::wait_until(Duration::from_secs(10), freed).await);
    drop(stream);
}

#[tokio::test]
async fn many_large_patterns_hold_nobody_up_and_end_at_their_deadline() {
    let node = Node::start().await;
    let pattern = |n: usize| v1::Matcher {
        r#type: v1::matcher::Type::Regex.into(),
        name: "x".into(),
        value: format!(r"{n}|[\pL\pN]{{100}}b"),
    };
    let asked = v1::SelectRequest {
        series: Some(v1::SeriesSelector {
            selector: String::new(),
            matchers: (0..rootline_query::PATTERNS_MAX).map(pattern).collect(),
        }),
        ..Default::default()
    };
    let endpoint = format!("http://{}", node.running.addresses().grpc);
    let channel = tonic::transport::Endpoint::from_shared(endpoint).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut questions = v1::metrics_client::MetricsClient::new(channel);
    let ended = async {
        let mut request = tonic::Request::new(asked);
        // Not `set_timeout`: that would also end the call on this side.
        let timeout = "300m".parse().unwrap();
        request.metadata_mut().insert("grpc-timeout", timeout);
        match questions.select(request).await {
            Ok(answer) => answer.into_inner().message().await.map(|_| ()),
            Err(status) => Err(status),
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(30), ended).await;
    let status = ended.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
}

#[tokio::test]
async fn a_delete_gives_memory_back_without_another_write() {
    let node = Node::start().await;
    let names: Vec<String> = (0..2_000).map(|n| n.to_string()).collect();
    let written = names.iter();
    let batch =
        written.map(|n| series(&[("__name__", "m"), ("n", n)], &[(T0, 1.0), (T0 + 1, 2.0)]));
    let request = v1::WriteRequest {
        series: batch.collect(),
        ..Default::default()
    };
    node.client.write(request).await.unwrap();
    let engine = node.running.state().engine().unwrap().clone();
    let before = engine.stats();
    let request = v1::DeleteSeriesRequest {
        series: selector("m"),
        range: None,
    };
    node.client.delete_series(request).await.unwrap();
    let after = engine.stats();
    assert_eq!((before.metrics.samples, after.metrics.samples), (4_000, 0));
    assert!(
        after.memory_metric_head_bytes < before.memory_metric_head_bytes,
        "{before:?} {after:?}"
    );
}
