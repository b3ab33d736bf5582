//! Series that live for one generation and never come back.

use std::time::Duration;

use rootline_tests::{Node, remote_write};
use tempfile::tempdir;

use crate::{flush, is_full, wait_until, write_patiently};

const PATIENCE: Duration = Duration::from_mins(1);
const NOW_MS: i64 = 1_780_000_000_000;
/// What allocator and threads may differ by, whatever the store holds.
const NOISE_BYTES: u64 = 4 << 20;

fn generation(generation: u64, series: u64) -> Vec<Vec<u8>> {
    let time_ms = NOW_MS + i64::try_from(generation).unwrap() * 60_000;
    let all: Vec<Vec<u8>> = (0..series)
        .map(|i| {
            let pod = format!("pod-{generation:04}-{i:06x}");
            let labels: [(&[u8], &[u8]); 3] = [
                (b"__name__", b"container_cpu_seconds_total"),
                (b"namespace", b"shop"),
                (b"pod", pod.as_bytes()),
            ];
            remote_write::series(
                &labels,
                &[(time_ms, i as f64), (time_ms + 15_000, i as f64)],
            )
        })
        .collect();
    let requests = all.chunks(2_000);
    requests.map(remote_write::request).collect()
}

#[test]
fn memory_after_many_generations_is_that_after_five() {
    let (generations, series) = if is_full() {
        (100, 10_000)
    } else {
        (20, 1_000)
    };
    let dir = tempdir().unwrap();
    let node = Node::start(dir.path());
    let mut after_five = None;
    for number in 1..=generations {
        for body in generation(number, series) {
            write_patiently(&node, &body);
        }
        assert_eq!(flush(&node)["samples"], 2 * series);
        let stats = node.cli_json(&["admin", "stats", "--json"]);
        assert_eq!(stats["series"], 0, "{stats}");
        let Some(bytes) = node.anonymous_bytes() else {
            return;
        };
        if number == 5 {
            after_five = Some(bytes);
        }
        if number % 20 == 0 {
            println!("after {number} generations: {bytes} bytes");
        }
        if number == generations {
            let before = after_five.unwrap();
            println!("anonymous memory after 5: {before}, after {number}: {bytes}");
            // Merges under way hold something, too; they end.
            wait_until("memory is as after five generations", PATIENCE, || {
                let bytes = node.anonymous_bytes().unwrap_or(0);
                bytes <= before + before / 10 + NOISE_BYTES
            });
        }
    }
    let answer = node.cli_json(&[
        "query",
        "stats",
        "container_cpu_seconds_total",
        "--all-time",
        "--json",
    ]);
    assert_eq!(
        answer["groups"][0]["statistics"]["count"],
        2 * series * generations
    );
}
