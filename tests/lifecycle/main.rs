//! A node's life: it says when it is ready, one directory serves one process, SIGTERM ends it well, and
//! what was acknowledged is there again, whether from the log or from blocks.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod directory;
mod lost_block;
mod sealing;

use std::{fs::File, time::Duration};

use rootline_engine::{Clock, SystemClock};
use rootline_tests::{Node, binary, http, remote_write};
use tempfile::tempdir;

const NOW_MS: i64 = 1_700_000_000_000;

fn write_one(node: &Node, value: f64) {
    let labels: [(&[u8], &[u8]); 2] = [(b"__name__", b"lifecycle"), (b"job", b"test")];
    let body = remote_write::request(&[remote_write::series(&labels, &[(NOW_MS, value)])]);
    let response = remote_write::post(node.http, &body).expect("an answer");
    assert!((200..300).contains(&response.status), "{response:?}");
}

fn stats(node: &Node) -> serde_json::Value {
    let from = "2023-11-14T22:13:00Z";
    let to = "2023-11-14T22:14:00Z";
    node.cli_json(&[
        "query",
        "stats",
        "lifecycle",
        "--from",
        from,
        "--to",
        to,
        "--json",
    ])
}

#[test]
fn a_node_is_ready_on_three_ports_and_says_so() {
    let dir = tempdir().unwrap();
    let node = Node::start(dir.path());
    for path in ["/health", "/health/live", "/health/ready"] {
        assert_eq!(http::get(node.http, path).unwrap().status, 200, "{path}");
    }
    let metrics = http::get(node.http, "/metrics").unwrap();
    assert_eq!(metrics.status, 200);
    assert!(metrics.text().contains("rootline_"), "{}", metrics.text());
}

#[test]
fn sigterm_ends_a_node_with_0_and_loses_nothing() {
    let dir = tempdir().unwrap();
    let node = Node::start(dir.path());
    write_one(&node, 4.5);
    let (status, log) = node.terminate();
    assert_eq!(status.code(), Some(0), "{log}");
    let node = Node::start(dir.path());
    let answer = stats(&node).to_string();
    assert!(answer.contains("4.5"), "{answer}");
}

#[test]
fn sigkill_loses_nothing_that_was_acknowledged() {
    let dir = tempdir().unwrap();
    let node = Node::start(dir.path());
    write_one(&node, 7.25);
    node.kill();
    let node = Node::start(dir.path());
    let answer = stats(&node).to_string();
    assert!(answer.contains("7.25"), "{answer}");
}

#[test]
fn a_second_process_is_refused_the_directory() {
    let dir = tempdir().unwrap();
    let node = Node::start(dir.path());
    let output = Node::fail(Node::command(dir.path()));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("in use by another process"), "{stderr}");
    assert!(node.is_healthy());
}

#[test]
fn wrong_usage_exits_with_2_and_an_unreachable_node_with_1() {
    let rootline = |args: &[&str]| binary::command().args(args).output().unwrap();
    assert_eq!(
        rootline(&["serve", "--no-such-option"]).status.code(),
        Some(2)
    );
    assert_eq!(rootline(&["no-such-command"]).status.code(), Some(2));
    let unreachable = ["query", "labels", "--endpoint", "http://127.0.0.1:9"];
    let output = rootline(&unreachable);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(rootline(&["--help"]).status.success());
}

#[test]
fn an_address_beyond_loopback_needs_to_be_allowed() {
    let dir = tempdir().unwrap();
    let mut command = binary::command();
    command.arg("serve").arg("--data-dir").arg(dir.path());
    command.args(["--http-listen", "0.0.0.0:0", "--grpc-listen", "127.0.0.1:0"]);
    command.args(["--otlp-http-listen", "127.0.0.1:0"]);
    let output = Node::fail(command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(stderr.contains("insecure-allow-network"), "{stderr}");
}

/// The demo prints three commands; each answers in under a second with something to see.
#[test]
fn the_demo_shows_its_fault_and_cleans_up() {
    let temp = tempdir().unwrap();
    let said = tempdir().unwrap();
    let said = said.path().join("stdout");
    let mut command = binary::command();
    command.arg("demo").env("TMPDIR", temp.path());
    // Its default ports may be taken by another test, and then it takes free ones.
    let node = Node::spawn_to(command, File::create(&said).unwrap().into());
    let text = std::fs::read_to_string(&said).unwrap();
    let commands: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.contains(" query "))
        .filter_map(|line| line.trim().split_once(' '))
        .filter(|(program, _)| program.ends_with("rootline"))
        .map(|(_, args)| args.split(' ').collect())
        .collect();
    assert_eq!(commands.len(), 3, "{text}");
    let clock = SystemClock::new();
    for (args, shows) in commands
        .iter()
        .zip(["frontend POST /checkout", "checkout", "stock-db"])
    {
        let began = clock.monotonic();
        let output = node.cli(args);
        let took = clock.monotonic().saturating_sub(began);
        let answer = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{args:?}: {output:?}");
        assert!(answer.contains(shows), "{args:?}: {answer}");
        assert!(took < Duration::from_secs(1), "{args:?} took {took:?}");
    }
    assert!(std::fs::read_dir(temp.path()).unwrap().next().is_some());
    let (status, log) = node.terminate();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(
        std::fs::read_dir(temp.path()).unwrap().next().is_none(),
        "the directory is left"
    );
}

#[test]
fn the_demo_can_end_as_soon_as_it_is_loaded() {
    let temp = tempdir().unwrap();
    let mut command = binary::command();
    command
        .args(["demo", "--exit-after-load", "--seed", "7"])
        .env("TMPDIR", temp.path());
    let output = Node::fail(command);
    assert!(output.status.success(), "{output:?}");
    assert!(
        std::fs::read_dir(temp.path()).unwrap().next().is_none(),
        "the directory is left"
    );
}
