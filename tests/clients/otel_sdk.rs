//! The OpenTelemetry Python SDK: traces and metrics, gRPC and HTTP, each instrument in each temporality,
//! across a refusal of each kind and a restart.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use rootline::client::{Client, TraceAnswer, v1};
use rootline_tests::{Node, binary::repository, http, requirement};
use serde_json::Value;
use tempfile::tempdir;

use crate::pressure::{self, Ports};

/// A Python that has the SDK.
fn python() -> Option<PathBuf> {
    let python =
        std::env::var_os("ROOTLINE_TESTS_PYTHON").map_or_else(|| "python3".into(), PathBuf::from);
    let import = "import opentelemetry.sdk.metrics, \
                  opentelemetry.exporter.otlp.proto.grpc.trace_exporter, \
                  opentelemetry.exporter.otlp.proto.http.trace_exporter";
    let tried = Command::new(&python)
        .args(["-c", import])
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success()).then_some(python)
}

/// The script under `otel_sdk.py`, waiting for commands.
struct Sdk {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Sdk {
    fn start(python: &PathBuf, protocol: &str, endpoint: &str, temporality: &str) -> Self {
        let mut child = Command::new(python)
            .arg(repository().join("tests/clients/otel_sdk.py"))
            .args([protocol, endpoint, temporality])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            commands,
            answers,
        }
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"))
    }

    fn step(&mut self, n: u32) -> String {
        self.tell(&format!("step {n}"));
        self.exported()
    }

    /// The id of the trace, once all was exported.
    fn exported(&mut self) -> String {
        let answer = self.answer();
        assert_eq!(
            (&answer["spans"], &answer["metrics"]),
            (&true.into(), &true.into()),
            "{answer}"
        );
        answer["trace_id"].as_str().unwrap_or_default().to_owned()
    }
}

impl Drop for Sdk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A figure of the node itself, summed over its labels.
fn self_metric(node: &Node, name: &str) -> f64 {
    let text = http::get(node.http, "/metrics").unwrap().text();
    let lines = text.lines().filter(|l| l.starts_with(name));
    lines
        .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

struct Asked {
    client: Client,
    service: String,
    delta: bool,
}

impl Asked {
    async fn values(&self, metric: &str, labels: &str) -> Vec<f64> {
        let temporality = if self.delta && !metric.contains("gauge") {
            ",__temporality__=\"delta\""
        } else {
            ",__temporality__=\"\""
        };
        let service = &self.service;
        let selector = format!("{metric}{{service_name=\"{service}\"{labels}{temporality}}}");
        let series = v1::SeriesSelector {
            selector: selector.clone(),
            matchers: Vec::new(),
        };
        let request = v1::SelectRequest {
            series: Some(series),
            range: None,
            series_limit: 0,
        };
        let selected = self.client.select(request).await.unwrap();
        let [series] = &selected.series[..] else {
            panic!(
                "{selector}: {} series: {:?}",
                selected.series.len(),
                selected.series
            )
        };
        series.values.clone()
    }

    /// Values that were exported in each step: as totals, or as what each step added.
    async fn expect(&self, metric: &str, labels: &str, totals: &[f64]) {
        let expected: Vec<f64> = if self.delta && !metric.contains("gauge") {
            let before = std::iter::once(&0.0).chain(totals);
            totals
                .iter()
                .zip(before)
                .map(|(now, before)| now - before)
                .collect()
        } else {
            totals.to_vec()
        };
        let found = self.values(metric, labels).await;
        let close = |(f, e): (&f64, &f64)| (f - e).abs() < 1e-9;
        let same = found.len() == expected.len() && found.iter().zip(&expected).all(close);
        assert!(
            same,
            "{}: {metric}{{{labels}}}: {found:?} instead of {expected:?}",
            self.service
        );
    }
}

fn check_trace(trace: &TraceAnswer, step: u32) {
    let [root, child] = &trace.rows[..] else {
        panic!("{:?}", trace.rows)
    };
    let (root_span, child_span) = (root.span.as_ref().unwrap(), child.span.as_ref().unwrap());
    assert_eq!(root_span.name, format!("step {step}"));
    assert_eq!(child.parent_row, Some(0));
    assert_eq!(child_span.status(), v1::StatusCode::Error);
    assert_eq!(child_span.status_message, "told to fail");
    assert_eq!(child_span.events.len(), 1);
    assert_eq!(child_span.links[0].span_id, root_span.span_id);
    let value = |key: &str| {
        let found = root_span.attributes.iter().find(|a| a.key == key).unwrap();
        found.value.clone().unwrap().value.unwrap()
    };
    assert_eq!(
        value("text"),
        v1::value::Value::StringValue("straße".into())
    );
    assert_eq!(value("whole"), v1::value::Value::IntValue(-(1 << 62)));
    assert_eq!(value("share"), v1::value::Value::DoubleValue(0.1));
    assert_eq!(value("flag"), v1::value::Value::BoolValue(true));
}

fn run(protocol: &str, temporality: &str) {
    let Some(python) = python() else {
        return requirement::skip("otel-sdk", "the OpenTelemetry SDK for Python");
    };
    let dir = tempdir().unwrap();
    let node = pressure::narrow(dir.path());
    let endpoint = if protocol == "grpc" {
        node.grpc
    } else {
        node.otlp_http
    };
    let mut sdk = Sdk::start(
        &python,
        protocol,
        &format!("http://{endpoint}"),
        temporality,
    );
    let mut traces = vec![sdk.step(1)];

    // Refused for good: exponential histograms. All else in the same request is stored.
    let before = self_metric(&node, "rootline_samples_rejected_total");
    sdk.tell("exponential");
    sdk.answer();
    assert!(self_metric(&node, "rootline_samples_rejected_total") > before);
    traces.push(sdk.step(2));

    // Refused for now: no memory. Then the node is killed, and comes back with room.
    let stored = self_metric(&node, "rootline_spans_stored_total");
    pressure::fill(&node);
    sdk.tell("step 3");
    std::thread::sleep(Duration::from_secs(2));
    assert!((self_metric(&node, "rootline_spans_stored_total") - stored).abs() < 0.5);
    let ports = Ports::of(&node);
    node.kill();
    let node = pressure::wide(dir.path(), &ports);
    traces.push(sdk.exported());

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = Client::connect(&node.endpoint()).await.unwrap();
        for (step, id) in (1..).zip(&traces) {
            check_trace(&client.trace(id).await.unwrap(), step);
        }
        let service = format!("sdk-{protocol}-{temporality}");
        let asked = Asked {
            client,
            service,
            delta: temporality == "delta",
        };
        let k = ",k=\"v\"";
        // The extra export with the exponential histogram repeats the totals of step 1.
        let totals = |steps: [f64; 3]| match temporality {
            "delta" => steps.to_vec(),
            _ => vec![steps[0], steps[0], steps[1], steps[2]],
        };
        asked
            .expect("sdk_counter_total", k, &totals([1.0, 3.0, 6.0]))
            .await;
        asked
            .expect("sdk_updown_bytes", k, &totals([-1.0, 1.0, -2.0]))
            .await;
        asked
            .expect("sdk_histogram_seconds_count", k, &totals([3.0, 6.0, 9.0]))
            .await;
        let sum = 0.001 + 0.3 + 40.0;
        asked
            .expect(
                "sdk_histogram_seconds_sum",
                k,
                &totals([sum, 3.0 * sum, 6.0 * sum]),
            )
            .await;
        let all = ",k=\"v\",le=\"+Inf\"";
        asked
            .expect(
                "sdk_histogram_seconds_bucket",
                all,
                &totals([3.0, 6.0, 9.0]),
            )
            .await;
        // Gauges and what is observed are exported each time, deltas of 0 too.
        asked
            .expect("sdk_gauge_ratio", k, &[10.25, 10.25, 20.5, 30.75])
            .await;
        asked
            .expect(
                "sdk_observed_counter_total",
                k,
                &[100.0, 100.0, 200.0, 300.0],
            )
            .await;
        asked
            .expect("sdk_observed_updown", k, &[6.0, 6.0, 5.0, 4.0])
            .await;
        asked
            .expect("sdk_observed_gauge", k, &[1.5, 1.5, 2.5, 3.5])
            .await;
    });
    sdk.tell("end");
}

#[test]
fn over_grpc_with_totals() {
    run("grpc", "cumulative");
}

#[test]
fn over_grpc_with_deltas() {
    run("grpc", "delta");
}

#[test]
fn over_http_with_totals() {
    run("http", "cumulative");
}

#[test]
fn over_http_with_deltas() {
    run("http", "delta");
}
