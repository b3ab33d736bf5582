//! Nodes that can be brought to refuse everything for now, and back.

use std::{path::Path, time::Duration};

use rootline_tests::{Node, remote_write};

const NOW_MS: i64 = 1_700_000_000_000;

/// The addresses of a node, for one that takes its place.
#[derive(Debug)]
pub(crate) struct Ports([String; 3]);

impl Ports {
    pub(crate) fn of(node: &Node) -> Self {
        Self([node.grpc, node.otlp_http, node.http].map(|a| a.to_string()))
    }
}

/// A node with little memory that does not let writers wait for it.
pub(crate) fn narrow(dir: &Path) -> Node {
    Node::start_with(dir, &["--memory-limit", "48MiB", "--memory-wait", "50ms"])
}

/// The same node with room again, where its clients look for it.
pub(crate) fn wide(dir: &Path, ports: &Ports) -> Node {
    let mut command = Node::command_on(dir, ports.0.each_ref().map(String::as_str));
    command.args(["--memory-limit", "1GiB"]);
    Node::spawn(command)
}

/// Writes until not even one series is taken any more.
pub(crate) fn fill(node: &Node) {
    let mut next = 0u64;
    for series_in_request in [4_000, 400, 40, 4, 1] {
        loop {
            let series: Vec<_> = (next..next + series_in_request)
                .map(|n| {
                    let id = format!("{n:x}-{}", "ballast".repeat(20));
                    let labels: [(&[u8], &[u8]); 2] =
                        [(b"__name__", b"ballast"), (b"id", id.as_bytes())];
                    remote_write::series(&labels, &[(NOW_MS, 1.0)])
                })
                .collect();
            let response = remote_write::post(node.http, &remote_write::request(&series)).unwrap();
            match response.status {
                200..300 => next += series_in_request,
                503 => {
                    assert!(response.header("retry-after").is_some(), "{response:?}");
                    break;
                }
                _ => panic!("{response:?}"),
            }
        }
    }
}

/// Looks again and again until `done`, for at most half a minute.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..300 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{what}: not within 30 s");
}
