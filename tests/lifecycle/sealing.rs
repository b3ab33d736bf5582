//! A node's samples move from log and memory into blocks: at a flush, at a clean stop, by themselves. No
//! answer changes by it, and the log shrinks.

use std::{path::Path, time::Duration};

use rootline_engine::{Clock, SystemClock};
use rootline_tests::{Node, http, remote_write};
use serde_json::{Value, json};
use tempfile::tempdir;

use super::NOW_MS;

/// Bytes that the log may keep once nothing is unsealed.
const LOG_EMPTY_BYTES_MAX: u64 = 64 * 1024;
/// Longest wait for something that the node does by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// Series that [`write()`] makes, and samples of each.
pub(super) const SERIES: u64 = 20;
pub(super) const SAMPLES: u64 = 300;

/// The samples of one series: values of several kinds, a NaN with a payload and a negative nought among them.
fn samples(series: u64) -> Vec<(i64, f64)> {
    (0..SAMPLES)
        .map(|i| {
            let at_ms = NOW_MS + i64::try_from(i).unwrap() * 10_000;
            let value = match (series % 4, i) {
                (_, 7) => f64::from_bits(0x7ff8_dead_beef_0001),
                (_, 8) => -0.0,
                (0, i) => i as f64,
                (1, i) => (i * 37 % 1_000) as f64 / 100.0,
                (2, i) => 1.0 / (i + series) as f64,
                _ => 1.0,
            };
            (at_ms, value)
        })
        .collect()
}

/// Writes [`SERIES`] of [`SAMPLES`] and waits for the acknowledgement.
pub(super) fn write(node: &Node) {
    let all: Vec<Vec<u8>> = (0..SERIES)
        .map(|series| {
            let number = series.to_string();
            let labels: [(&[u8], &[u8]); 2] =
                [(b"__name__", b"sealed"), (b"series", number.as_bytes())];
            remote_write::series(&labels, &samples(series))
        })
        .collect();
    let response = remote_write::post(node.http, &remote_write::request(&all)).unwrap();
    assert!((200..300).contains(&response.status), "{response:?}");
}

/// What the node answers about those series, in every way the command line knows.
pub(super) fn answers(node: &Node) -> Value {
    let ask = |args: &[&str]| {
        let mut answer = node.cli_json(&[args, &["--all-time", "--json"]].concat());
        // Everything but the moment of the question.
        answer["info"]["snapshot_lsn"] = Value::Null;
        answer
    };
    json!([
        ask(&["query", "stats", "sealed", "--each"]),
        ask(&["query", "series", "sealed"]),
        ask(&["query", "labels"]),
        ask(&["query", "labels", "series", "--prefix", "1"]),
    ])
}

pub(super) fn flush(node: &Node) -> Value {
    let response = http::request(node.http, "POST", "/api/v1/admin/flush", &[], b"").unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    serde_json::from_slice(&response.body).unwrap()
}

/// Bytes that a directory's files take, its folders' among them.
fn disk_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    entries
        .map(|entry| {
            let metadata = entry.unwrap().metadata().unwrap();
            if metadata.is_dir() { 0 } else { metadata.len() }
        })
        .sum()
}

pub(super) fn blocks(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir.join("blocks")).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut blocks: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|e| e == "rlb"))
        .collect();
    blocks.sort();
    blocks
}

#[test]
fn a_flush_seals_what_is_in_memory_and_cuts_the_log() {
    let dir = tempdir().unwrap();
    let node = Node::start(dir.path());
    write(&node);
    let before = answers(&node);
    let flushed = flush(&node);
    assert_eq!(flushed["samples"], SERIES * SAMPLES);
    assert!(flushed["blocks"].as_u64() >= Some(1), "{flushed}");
    assert_eq!(blocks(dir.path()).len() as u64, flushed["blocks"]);
    assert!(disk_bytes(&dir.path().join("wal")) <= LOG_EMPTY_BYTES_MAX);
    assert_eq!(answers(&node), before);

    // Nothing is left to seal.
    let again = node.cli_json(&["admin", "flush", "--json"]);
    assert_eq!(
        (&again["blocks"], &again["samples"]),
        (&json!(0), &json!(0))
    );
    let wrong = http::get(node.http, "/api/v1/admin/flush").unwrap();
    assert_eq!(wrong.status, 405);

    let stats = node.cli_json(&["admin", "stats", "--json"]);
    assert_eq!(stats["samples"], 0, "{stats}");
    assert_eq!(stats["blocks"]["samples"], SERIES * SAMPLES);
    assert_eq!(stats["seals"]["count"], 1);
    let metrics = http::get(node.http, "/metrics").unwrap().text();
    let blocks_sealed = format!("rootline_block_samples {}\n", SERIES * SAMPLES);
    assert!(metrics.contains(&blocks_sealed), "{metrics}");

    node.kill();
    let node = Node::start(dir.path());
    assert_eq!(answers(&node), before);
}

#[test]
fn a_clean_stop_seals() {
    let dir = tempdir().unwrap();
    let node = Node::start(dir.path());
    write(&node);
    let before = answers(&node);
    let (status, log) = node.terminate();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!blocks(dir.path()).is_empty());
    assert!(disk_bytes(&dir.path().join("wal")) <= LOG_EMPTY_BYTES_MAX);
    let node = Node::start(dir.path());
    assert_eq!(answers(&node), before);
}

#[test]
fn a_stop_without_time_to_seal_keeps_all_in_the_log() {
    let dir = tempdir().unwrap();
    let node = Node::start_with(dir.path(), &["--shutdown-seal", "0s"]);
    write(&node);
    let before = answers(&node);
    let (status, log) = node.terminate();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(blocks(dir.path()).is_empty());
    let node = Node::start(dir.path());
    assert_eq!(answers(&node), before);
}

#[test]
fn what_is_no_longer_written_to_is_sealed_by_itself() {
    let dir = tempdir().unwrap();
    let node = Node::start_with(dir.path(), &["--seal-idle", "100ms"]);
    write(&node);
    let before = answers(&node);
    let clock = SystemClock::new();
    let began = clock.monotonic();
    while blocks(dir.path()).is_empty() {
        let waited = clock.monotonic().saturating_sub(began);
        assert!(waited < PATIENCE, "nothing was sealed in {waited:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(answers(&node), before);
}

#[test]
fn samples_below_the_retention_floor_are_refused_one_by_one() {
    let dir = tempdir().unwrap();
    let node = Node::start_with(dir.path(), &["--retention-age", "1h"]);
    let now_ms = SystemClock::new().wall_ns() / 1_000_000;
    let labels: [(&[u8], &[u8]); 1] = [(b"__name__", b"kept")];
    let samples = [(now_ms - 86_400_000, 1.0), (now_ms, 2.0)];
    let body = remote_write::request(&[remote_write::series(&labels, &samples)]);
    let response = remote_write::post(node.http, &body).unwrap();
    assert_eq!(response.status, 400, "{}", response.text());
    assert!(response.text().contains("retention"), "{}", response.text());
    let answer = node.cli_json(&["query", "stats", "kept", "--all-time", "--json"]);
    assert_eq!(answer["groups"][0]["statistics"]["count"], 1, "{answer}");
}
