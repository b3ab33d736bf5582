//! More data than memory: a node with a small limit seals while it is written to, and takes all.

use rootline_tests::{Node, remote_write};
use tempfile::tempdir;

use crate::{allocated_bytes, flush, is_full, write_patiently};

const NOW_MS: i64 = 1_780_000_000_000;
const SERIES: u64 = 1_000;
/// Samples of a series in one request.
const SAMPLES: i64 = 10;
/// What a process takes beside what it is asked to hold: stacks, tables of the runtime, free pages.
const PROCESS_BYTES: u64 = 8 << 20;
/// Requests after which hosts are replaced by others.
const REQUESTS_OF_HOST: i64 = 8;
const LOG_BYTES_MAX: u64 = 32 << 20;
/// The log takes what comes while a generation is sealed, and allocates segments ahead.
const LOG_SLACK_BYTES: u64 = 96 << 20;

/// Values of the kinds that a host has: counters, decimals, whole numbers, noise.
fn value(series: u64, i: i64) -> f64 {
    let n = i.unsigned_abs();
    match series % 4 {
        0 => (n * 17 + series) as f64,
        1 => ((n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as f64) / 10.0,
        2 => (n / 40 % 7) as f64,
        _ => f64::from_bits(0x3ff0_0000_0000_0000 | n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 12),
    }
}

#[test]
fn a_node_with_little_memory_takes_more_than_it_can_hold() {
    let limit_mib = std::env::var("ROOTLINE_GROWTH_LIMIT_MIB").map_or(20, |n| n.parse().unwrap());
    // Three days of samples every 10 s, or some hours.
    let requests = if is_full() { 2_592 } else { 320 };
    let dir = tempdir().unwrap();
    let limit = format!("{limit_mib}MiB");
    let node = Node::start_with(
        dir.path(),
        &[
            "--memory-limit",
            &limit,
            "--log-bytes-max",
            "32MiB",
            "--max-request-bytes",
            "4MiB",
        ],
    );
    let (mut refused, mut most_memory, mut most_log) = (0, 0, 0);
    for request in 0..requests {
        let all: Vec<Vec<u8>> = (0..SERIES)
            .map(|series| {
                let host = format!("host_{}_{}", series / 20, request / REQUESTS_OF_HOST);
                let metric = format!("metric_{}", series % 20);
                let labels: [(&[u8], &[u8]); 2] = [
                    (b"__name__", metric.as_bytes()),
                    (b"hostname", host.as_bytes()),
                ];
                let samples: Vec<(i64, f64)> = (request * SAMPLES..(request + 1) * SAMPLES)
                    .map(|i| (NOW_MS + i * 10_000, value(series, i)))
                    .collect();
                remote_write::series(&labels, &samples)
            })
            .collect();
        refused += write_patiently(&node, &remote_write::request(&all));
        most_memory = most_memory.max(node.anonymous_bytes().unwrap_or(0));
        most_log = most_log.max(allocated_bytes(&dir.path().join("wal")));
    }
    let stats = node.cli_json(&["admin", "stats", "--json"]);
    let seals = stats["seals"]["count"].as_u64().unwrap();
    println!(
        "refused for now {refused} times, memory {most_memory}, log {most_log}, seals {seals}"
    );
    assert!(seals >= 1, "{stats}");
    assert!(
        most_memory <= (limit_mib << 20) + PROCESS_BYTES,
        "{most_memory} bytes of memory"
    );
    assert!(
        most_log <= LOG_BYTES_MAX + LOG_SLACK_BYTES,
        "{most_log} bytes of log"
    );
    flush(&node);
    let stats = node.cli_json(&["admin", "stats", "--json"]);
    let samples = SERIES * (requests * SAMPLES).unsigned_abs();
    assert_eq!(stats["blocks"]["samples"], samples, "{stats}");
    assert!(allocated_bytes(&dir.path().join("wal")) <= 1 << 20);
    let of_host = REQUESTS_OF_HOST * SAMPLES;
    let expected: f64 = (0..of_host).map(|i| value(4, i)).sum();
    let answer = node.cli_json(&[
        "query",
        "stats",
        "metric_4{hostname=\"host_0_0\"}",
        "--all-time",
        "--json",
    ]);
    let statistics = &answer["groups"][0]["statistics"];
    assert_eq!(statistics["count"], of_host, "{answer}");
    assert_eq!(statistics["sum"].as_f64(), Some(expected), "{answer}");
}
