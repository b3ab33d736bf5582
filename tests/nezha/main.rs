//! A real day of a microservice system, sent with `rootline send`: the answers equal the data set's own
//! ground truth, in memory, after SIGKILL, sealed, merged and opened again.
//!
//! Needs `../shared/data/nezha` beside the checkout (or `ROOTLINE_TESTS_DATA`).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::path::Path;

use rootline_tests::{Node, requirement};
use serde_json::Value;
use tempfile::tempdir;

const DAY: &str = "nezha/2022-08-23";
/// How far percentiles may differ, relatively: the order of floating-point operations.
const TOLERANCE: f64 = 1e-9;

fn truth(day: &Path) -> Value {
    let text = std::fs::read(day.join("ground_truth.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn array(value: &Value) -> &Vec<Value> {
    value
        .as_array()
        .unwrap_or_else(|| panic!("no array: {value}"))
}

fn assert_close(what: &str, found: &Value, expected: &Value) {
    let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
    let bound = TOLERANCE * expected.abs();
    assert!(
        (found - expected).abs() <= bound,
        "{what}: {found} instead of {expected}"
    );
}

/// `in_memory`: nothing was sealed yet, so that what is counted in memory is all there is.
fn check(node: &Node, truth: &Value, in_memory: bool) {
    let all = &truth["all_files_together"];
    let stats = node.cli_json(&["admin", "stats", "--json"]);
    assert_eq!(stats["spans"], all["spans"]);
    assert_eq!(stats["traces"], all["traces"]);
    if in_memory {
        assert_eq!(stats["samples"], truth["metrics"]["samples"]);
        assert_eq!(stats["series"], truth["metrics"]["series"]);
    }

    let edges = node.cli_json(&["query", "dependencies", "--all-time", "--json"]);
    let mut found: Vec<(String, String, u64)> = array(&edges["dependencies"])
        .iter()
        .map(|e| edge(&e["caller"], &e["callee"], &e["calls"]))
        .collect();
    found.sort();
    let mut expected: Vec<_> = array(&all["edges"])
        .iter()
        .map(|e| edge(&e["parent"], &e["child"], &e["calls"]))
        .collect();
    expected.sort();
    assert_eq!(found, expected);

    let answer = node.cli_json(&[
        "query",
        "stats",
        "--spans",
        "--by",
        "service",
        "--all-time",
        "--json",
    ]);
    let groups = array(&answer["groups"]);
    let services = all["services"].as_object().unwrap();
    assert_eq!(groups.len(), services.len());
    for group in groups {
        let service = group["service"].as_str().unwrap();
        compare(service, &group["duration_ns"], &services[service]);
    }

    let answer = node.cli_json(&[
        "query",
        "stats",
        "--spans",
        "--by",
        "operation",
        "--all-time",
        "--json",
    ]);
    let groups = array(&answer["groups"]);
    let operations = array(&all["operations"]);
    assert_eq!(groups.len(), operations.len());
    for expected in operations {
        let group = groups
            .iter()
            .find(|g| {
                g["service"] == expected["service"] && g["operation"] == expected["operation"]
            })
            .unwrap_or_else(|| panic!("{expected} is missing"));
        compare(
            &expected["operation"].to_string(),
            &group["duration_ns"],
            expected,
        );
    }

    for file in array(&truth["files"]).iter().step_by(7) {
        for expected in array(&file["sample_traces"]).iter().take(3) {
            let id = expected["trace_id"].as_str().unwrap();
            let answer = node.cli_json(&["query", "trace", id, "--json"]);
            let trace = &answer["trace"];
            assert_eq!(trace["spans"], expected["spans"], "trace {id}");
            assert_eq!(trace["root_service"], expected["root_service"]);
            assert_eq!(trace["root_name"], expected["root_operation"]);
            let depth = array(&answer["spans"])
                .iter()
                .filter_map(|s| s["depth"].as_u64())
                .max();
            assert_eq!(
                depth.map(|d| d + 1),
                expected["depth"].as_u64(),
                "trace {id}"
            );
        }
    }
}

fn edge(caller: &Value, callee: &Value, calls: &Value) -> (String, String, u64) {
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    (text(caller), text(callee), calls.as_u64().unwrap())
}

fn compare(what: &str, found: &Value, expected: &Value) {
    assert_eq!(found["count"], expected["count"], "{what}");
    for figure in ["min", "max", "p50", "p95", "p99"] {
        assert_close(
            &format!("{what} {figure}"),
            &found[figure],
            &expected[figure],
        );
    }
}

#[test]
fn a_real_day_is_answered_as_its_ground_truth_says_sealed_merged_and_after_sigkill() {
    let Some(day) = requirement::data(DAY) else {
        return requirement::skip("shared-data", "../shared/data");
    };
    let truth = truth(&day);
    let dir = tempdir().unwrap();
    let node = Node::start(dir.path());
    let mut files: Vec<String> = array(&truth["files"])
        .iter()
        .chain([&truth["metrics"]])
        .map(|f| {
            day.join(f["file"].as_str().unwrap())
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    files.sort();
    let mut args = vec!["--json"];
    args.extend(files.iter().map(String::as_str));
    let output = node.send(&args);
    assert!(output.status.success(), "{output:?}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["spans"], truth["all_files_together"]["spans"]);
    check(&node, &truth, true);
    node.kill();
    let node = Node::start(dir.path());
    check(&node, &truth, true);
    for upkeep in ["flush", "compact"] {
        assert!(node.cli(&["admin", upkeep]).status.success());
        check(&node, &truth, false);
    }
    node.kill();
    let node = Node::start(dir.path());
    check(&node, &truth, false);
}
