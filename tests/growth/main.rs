//! A node that is written to without end: what it holds in memory and on disk stays bounded, a small
//! memory limit and a full disk slow it down and no more.
//!
//! Small forms run as they stand; docs/testing.md has the commands of the long ones.
#![allow(
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod churn;
mod full_disk;
mod small_memory;

use std::{path::Path, time::Duration};

use rootline_engine::{Clock, SystemClock};
use rootline_tests::{Node, http, remote_write};
use serde_json::Value;

/// Whether the long forms are played.
fn is_full() -> bool {
    std::env::var_os("ROOTLINE_GROWTH_FULL").is_some()
}

/// Seals what is in memory; what the node said.
fn flush(node: &Node) -> Value {
    let response = http::request(node.http, "POST", "/api/v1/admin/flush", &[], b"").unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    serde_json::from_slice(&response.body).unwrap()
}

/// Writes a request, again and again while it is refused for now. Answers how often it was.
fn write_patiently(node: &Node, body: &[u8]) -> u32 {
    let mut refused = 0;
    loop {
        let response = remote_write::post(node.http, body).unwrap();
        match response.status {
            200..300 => return refused,
            503 => {
                assert!(response.header("retry-after").is_some(), "{response:?}");
                refused += 1;
                assert!(refused < 300, "refused for good: {}", response.text());
                std::thread::sleep(Duration::from_millis(200));
            }
            _ => panic!("{response:?}"),
        }
    }
}

/// Waits until something holds that the node does by itself.
fn wait_until(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let clock = SystemClock::new();
    let began = clock.monotonic();
    while !holds() {
        let waited = clock.monotonic().saturating_sub(began);
        assert!(waited < patience, "waited {waited:?}: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Bytes on disk of all files below `dir`: what is allocated, not how long they are.
fn allocated_bytes(dir: &Path) -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        // One that was removed meanwhile does not count.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if metadata.is_dir() {
            sum += allocated_bytes(&entry.path());
        } else {
            sum += std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
        }
    }
    sum
}
