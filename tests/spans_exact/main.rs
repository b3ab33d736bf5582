//! Spans that were written answer every question as the truth says, wherever they lie: in the head, sealed,
//! over several blocks, after SIGKILL, compacted, reopened.
//!
//! With any data set of the load generator that `ROOTLINE_TESTS_TRACES` names (a directory with
//! `spans.otlp` and its truth), in a release build:
//!
//! ```text
//! ROOTLINE_TESTS_TRACES=dir cargo test --release -p rootline-tests --test spans_exact
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod data_set;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use data_set::{DataSet, quantile};
use rootline::client::{Client, v1};
use rootline_tests::{Node, http, otlp};
use serde_json::Value;
use tempfile::tempdir;
use tokio::runtime::Runtime;

const OPTIONS: [&str; 2] = ["--query-timeout", "600s"];
/// Traces of the truth that are compared span by span at each stage.
const TRACES_COMPARED: usize = 300;
/// Questions of each class at each stage.
const QUESTIONS: usize = 12;

/// One stage of the data's life, asked everything.
struct Stage<'a> {
    runtime: &'a Runtime,
    client: Client,
    data: &'a DataSet,
    when: &'a str,
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

impl Stage<'_> {
    fn check(&self) {
        self.services_and_operations();
        self.figures_by_service();
        self.questions();
        self.traces();
        self.dependencies();
    }

    fn aggregate(&self, span_set: &str, by: &[&str]) -> Vec<v1::SpanGroup> {
        let request = v1::AggregateSpansRequest {
            span_set: span_set.to_owned(),
            by: by.iter().map(|by| (*by).to_owned()).collect(),
            ..Default::default()
        };
        let answer = self.runtime.block_on(self.client.aggregate_spans(request));
        let answer = answer.unwrap_or_else(|e| panic!("{}: {span_set}: {e}", self.when));
        assert!(answer.info.unwrap().exact, "{}: {span_set}", self.when);
        answer.groups
    }

    fn services_and_operations(&self) {
        let request = v1::ListServicesRequest::default();
        let found = self.runtime.block_on(self.client.list_services(request));
        let services = list(&self.data.truth["services"]);
        let mut names: Vec<String> = services.iter().map(|s| text(&s["name"])).collect();
        names.sort();
        assert_eq!(found.unwrap().services, names, "{}", self.when);
        for service in services {
            let request = v1::ListOperationsRequest {
                service: text(&service["name"]),
                ..Default::default()
            };
            let found = self.runtime.block_on(self.client.list_operations(request));
            let mut operations: Vec<String> =
                list(&service["operations"]).iter().map(text).collect();
            operations.sort();
            operations.dedup();
            assert_eq!(found.unwrap().operations, operations, "{}", self.when);
        }
    }

    fn figures_by_service(&self) {
        let total = self.aggregate("", &[]);
        assert_eq!(
            total[0].spans,
            number(&self.data.truth["spans"]),
            "{}",
            self.when
        );
        assert_eq!(total[0].spans, self.data.spans);
        assert_eq!(
            total[0].errors,
            number(&self.data.truth["error_spans"]),
            "{}",
            self.when
        );
        let by_service = self.aggregate("", &["service"]);
        let found: BTreeMap<String, (u64, u64)> = by_service
            .iter()
            .map(|group| (group.by[0].clone(), (group.spans, group.errors)))
            .collect();
        let services = list(&self.data.truth["services"]).iter();
        let expected: BTreeMap<String, (u64, u64)> = services
            .map(|s| {
                (
                    text(&s["name"]),
                    (number(&s["spans"]), number(&s["error_spans"])),
                )
            })
            .collect();
        assert_eq!(found, expected, "{}", self.when);
        let entries = self.aggregate("{kind=server} or {kind=consumer}", &["service"]);
        assert_eq!(entries.len(), self.data.entry_durations_ns.len());
        for group in entries {
            let durations = &self.data.entry_durations_ns[&group.by[0]];
            let figures = group.figures_ns.unwrap();
            assert_eq!(figures.count, durations.len() as u64);
            for (q, found) in [(0.5, figures.p50), (0.95, figures.p95), (0.99, figures.p99)] {
                let (expected, found) = (quantile(durations, q), found.unwrap());
                assert!(
                    (found - expected).abs() <= 1e-9 * expected,
                    "{}: {} p{q}: {found} instead of {expected}",
                    self.when,
                    group.by[0]
                );
            }
        }
    }

    fn questions(&self) {
        let mut asked: BTreeMap<String, usize> = BTreeMap::new();
        for predicate in list(&self.data.truth["predicates"]) {
            let class = text(&predicate["class"]);
            let times = asked.entry(class.clone()).or_default();
            *times += 1;
            if *times > QUESTIONS {
                continue;
            }
            let service = &predicate["service"];
            let ancestor = &predicate["ancestor"];
            let set = match class.as_str() {
                "service_op" => format!("{{service={service} name={}}}", predicate["operation"]),
                "user" => format!("{{user.id={}}}", predicate["user_id"]),
                "error" => format!("{{service={service} status=error}}"),
                "http500" => format!("{{service={service} http.status_code=500}}"),
                "duration" => format!(
                    "{{service={service} duration > {}us}}",
                    predicate["min_duration_us"]
                ),
                "descendant" => format!(
                    "{{service={service} status=error}} with ancestor {{service={ancestor}}}"
                ),
                "child" => {
                    format!("{{service={service} status=error}} with parent {{service={ancestor}}}")
                }
                other => panic!("a class of questions that is not known: {other}"),
            };
            let groups = self.aggregate(&set, &[]);
            let spans = groups.first().map_or(0, |group| group.spans);
            assert_eq!(spans, number(&predicate["spans"]), "{}: {set}", self.when);
            let found = self.find_all(&set);
            let expected = self.data.set(predicate);
            assert_eq!(found.len(), expected.len(), "{}: {set}", self.when);
            let found: BTreeSet<String> = found.into_iter().collect();
            assert_eq!(found, expected, "{}: {set}", self.when);
        }
    }

    /// The traces of all pages, in order.
    fn find_all(&self, span_set: &str) -> Vec<String> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::FindTracesRequest {
                span_set: span_set.to_owned(),
                limit: 1000,
                page_token,
                ..Default::default()
            };
            let page = self.runtime.block_on(self.client.find_traces(request));
            let page = page.unwrap_or_else(|e| panic!("{}: {span_set}: {e}", self.when));
            all.extend(page.traces.iter().map(|t| (t.start_ns, t.trace_id.clone())));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert!(
            all.is_sorted_by(|a, b| a > b),
            "{}: {span_set}: newest first, each once",
            self.when
        );
        all.into_iter().map(|(_, id)| id).collect()
    }

    fn traces(&self) {
        for expected in list(&self.data.truth["sampled"])
            .iter()
            .take(TRACES_COMPARED)
        {
            let id = text(&expected["trace_id"]);
            let trace = self.runtime.block_on(self.client.trace(&id));
            let trace = trace.unwrap_or_else(|e| panic!("{}: trace {id}: {e}", self.when));
            let depth = trace.rows.iter().map(|row| u64::from(row.depth) + 1).max();
            assert_eq!(depth, expected["depth"].as_u64(), "{}: {id}", self.when);
            assert_eq!(trace.summary.root_service, text(&expected["root_service"]));
            let mut found: Vec<_> = trace.rows.iter().map(found_span).collect();
            found.sort();
            let mut spans: Vec<_> = list(&expected["spans"]).iter().map(true_span).collect();
            spans.sort();
            assert_eq!(found, spans, "{}: trace {id}", self.when);
        }
        let missing = self
            .runtime
            .block_on(self.client.trace("00000000000000000000000000000abc"));
        assert!(missing.is_err());
    }

    fn dependencies(&self) {
        use v1::DependencyKind as Kind;
        let ask = |kinds: &[Kind]| {
            let request = v1::GetDependenciesRequest {
                kinds: kinds.iter().map(|kind| i32::from(*kind)).collect(),
                ..Default::default()
            };
            let answer = self.runtime.block_on(self.client.dependencies(request));
            answer.unwrap().dependencies
        };
        let edges = |name: &str| -> BTreeMap<(String, String), (u64, u64)> {
            let edges = list(&self.data.truth[name]).iter();
            edges
                .map(|e| {
                    let ends = (text(&e["parent"]), text(&e["child"]));
                    (ends, (number(&e["calls"]), number(&e["errors"])))
                })
                .collect()
        };
        let found: BTreeMap<_, _> = ask(&[])
            .into_iter()
            .map(|e| ((e.caller, e.callee), (e.calls, e.errors)))
            .collect();
        assert_eq!(found, edges("dependencies"), "{}", self.when);
        let mut peers: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
        for edge in ask(&[Kind::Database, Kind::Messaging]) {
            let sum = peers.entry((edge.caller, edge.peer_system)).or_default();
            *sum = (sum.0 + edge.calls, sum.1 + edge.errors);
        }
        assert_eq!(peers, edges("external_dependencies"), "{}", self.when);
    }
}

/// What both sides say of a span.
type Seen = (
    String,
    String,
    String,
    String,
    i64,
    (i64, i64),
    bool,
    String,
    String,
    (usize, usize),
);

fn found_span(row: &v1::SpanRow) -> Seen {
    let span = row.span.as_ref().unwrap();
    let attribute = |key: &str| -> String {
        let found = span.attributes.iter().find(|a| a.key == key);
        match found.and_then(|a| a.value.as_ref()?.value.clone()) {
            Some(v1::value::Value::StringValue(text)) => text,
            Some(v1::value::Value::IntValue(int)) => int.to_string(),
            None => String::new(),
            other => panic!("{other:?}"),
        }
    };
    (
        span.span_id.clone(),
        span.parent_span_id.clone(),
        row.service.clone(),
        span.name.clone(),
        span.kind.into(),
        (span.start_ns, span.end_ns),
        span.status == 2,
        attribute("http.status_code"),
        attribute("user.id"),
        (span.events.len(), span.links.len()),
    )
}

fn true_span(span: &Value) -> Seen {
    let http = number(&span["http_status"]);
    let size = |key: &str| usize::try_from(number(&span[key])).unwrap();
    (
        text(&span["id"]),
        text(&span["parent"]),
        text(&span["service"]),
        text(&span["name"]),
        span["kind"].as_i64().unwrap(),
        (
            span["start_ns"].as_i64().unwrap(),
            span["end_ns"].as_i64().unwrap(),
        ),
        span["error"].as_bool().unwrap(),
        if http == 0 {
            String::new()
        } else {
            http.to_string()
        },
        text(&span["user_id"]),
        (size("events"), size("links")),
    )
}

fn flush(node: &Node) {
    let answer = http::request(node.http, "POST", "/api/v1/admin/flush", &[], b"").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn start(dir: &Path) -> Node {
    Node::start_with(dir, &OPTIONS)
}

#[test]
fn a_data_set_answers_as_its_truth_says() {
    let Some(dir) = std::env::var_os("ROOTLINE_TESTS_TRACES") else {
        return;
    };
    let data = DataSet::open(Path::new(&dir));
    let runtime = Runtime::new().unwrap();
    let check = |node: &Node, when: &str| {
        let client = runtime.block_on(Client::connect(&node.endpoint())).unwrap();
        let stage = Stage {
            runtime: &runtime,
            client,
            data: &data,
            when,
        };
        stage.check();
        eprintln!("{when}: as the truth says");
    };
    let dir = tempdir().unwrap();
    let node = start(dir.path());
    let channel = {
        let endpoint = tonic::transport::Endpoint::from_shared(node.endpoint()).unwrap();
        runtime.block_on(endpoint.connect()).unwrap()
    };
    data.each_body(&mut |body| {
        let sent = runtime.block_on(otlp::call(&channel, otlp::EXPORT_TRACES, body));
        assert!(sent.is_ok_and(|answer| answer.is_empty()));
    });
    check(&node, "as it was written");
    node.kill();
    let node = start(dir.path());
    check(&node, "after SIGKILL");
    flush(&node);
    check(&node, "sealed");
    let compacted = node.cli(&["admin", "compact"]);
    assert!(compacted.status.success(), "{compacted:?}");
    check(&node, "compacted");
    node.kill();
    let node = start(dir.path());
    check(&node, "reopened after SIGKILL");
    assert!(node.terminate().0.success());
    let node = start(dir.path());
    check(&node, "reopened after a clean stop");
}
