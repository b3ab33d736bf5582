//! `rootline send`: files of every form arrive, in bounded time, and what does not arrive is said.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::{
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use prost::Message;
use rootline_tests::{Node, binary, otlp, remote_write};
use tempfile::{TempDir, tempdir};

const NOW_NS: u64 = 1_700_000_000_000_000_000;
const NOW_MS: i64 = 1_700_000_000_000;

fn framed(bodies: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for body in bodies {
        out.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
        out.extend_from_slice(body);
    }
    out
}

fn traces(first: u64, count: u64) -> Vec<u8> {
    let spans = (first..first + count)
        .map(|n| otlp::span(u128::from(n), n, None, NOW_NS, NOW_NS + 1_000_000));
    otlp::traces("sent", spans.collect()).encode_to_vec()
}

fn series(samples: i64) -> Vec<u8> {
    let labels: [(&[u8], &[u8]); 2] = [(b"__name__", b"sent_total"), (b"job", b"test")];
    let samples: Vec<_> = (0..samples)
        .map(|n| (NOW_MS + n * 1_000, n as f64))
        .collect();
    remote_write::request(&[remote_write::series(&labels, &samples)])
}

fn gauge() -> Vec<u8> {
    otlp::gauge("sent", "sent_gauge", &[(&[], NOW_NS, 1.5)]).encode_to_vec()
}

fn file(dir: &TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

#[test]
fn every_form_of_file_arrives() {
    let dir = tempdir().unwrap();
    let node = Node::start(&dir.path().join("node"));
    let plain = framed(&[traces(1, 10), gauge(), series(5)]);
    let other = framed(&[traces(11, 10)]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&framed(&[traces(21, 10)])).unwrap();
    let files = [
        file(&dir, "plain", &plain),
        file(&dir, "zstd", &zstd::encode_all(&other[..], 3).unwrap()),
        file(&dir, "gzip", &gzip.finish().unwrap()),
    ];
    let mut args = vec!["--json"];
    args.extend(files.iter().map(|f| text(f)));
    let output = node.send(&args);
    assert!(output.status.success(), "{output:?}");
    let summary = json(&output);
    assert_eq!(summary["spans"], 30, "{summary}");
    assert_eq!(summary["samples"], 6, "{summary}");
    assert_eq!(summary["requests"], 5, "{summary}");
    let stats = node.cli_json(&["admin", "stats", "--json"]);
    assert_eq!(
        (&stats["spans"], &stats["traces"]),
        (&30.into(), &30.into()),
        "{stats}"
    );
    let stats = node.cli_json(&["query", "stats", "sent_total", "--all-time", "--json"]);
    assert_eq!(stats["groups"][0]["statistics"]["count"], 5, "{stats}");
}

#[test]
fn the_collectors_json_lines_arrive_moved_to_now() {
    let dir = tempdir().unwrap();
    let node = Node::start(dir.path());
    let example = binary::repository().join("examples/checkout.otlp.jsonl");
    let output = node.send(&["--shift-to-now", text(&example)]);
    assert!(output.status.success(), "{output:?}");
    let answer = node.cli_json(&["query", "dependencies", "--since", "5m", "--json"]);
    let edge = &answer["dependencies"][0];
    assert_eq!(
        (&edge["caller"], &edge["callee"]),
        (&"checkout".into(), &"payment".into())
    );
    assert_eq!(edge["calls"], 12, "{answer}");
}

#[test]
fn standard_input_is_a_file_too() {
    let dir = tempdir().unwrap();
    let node = Node::start(dir.path());
    let http = format!("http://{}/api/v1/write", node.http);
    let mut child = node
        .cli_command(&["send", "--remote-write", &http, "--json", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(&framed(&[traces(1, 3), series(2)]))
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(json(&output)["spans"], 3);
}

#[test]
fn a_damaged_file_is_sent_up_to_the_damage_and_named() {
    let dir = tempdir().unwrap();
    let node = Node::start(&dir.path().join("node"));
    let mut bytes = framed(&[traces(1, 10), traces(11, 10)]);
    bytes.truncate(bytes.len() - 1);
    let path = file(&dir, "cut.otlp", &bytes);
    let output = node.send(&["--json", text(&path)]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("cut.otlp at byte"), "{stderr}");
    assert_eq!(json(&output)["spans"], 10);
}

#[test]
fn what_is_refused_for_good_is_counted_with_its_reason() {
    let dir = tempdir().unwrap();
    let node = Node::start(&dir.path().join("node"));
    let mut zero = otlp::span(1, 1, None, NOW_NS, NOW_NS);
    zero.trace_id = vec![0; 16];
    let good = otlp::span(2, 2, None, NOW_NS, NOW_NS);
    let spans = otlp::traces("partly", vec![zero, good]).encode_to_vec();
    let bad: [(&[u8], &[u8]); 2] = [(b"__name__", b"bad"), (b"", b"no name")];
    let bad = remote_write::request(&[remote_write::series(&bad, &[(NOW_MS, 1.0)])]);
    let path = file(&dir, "partly", &framed(&[spans, bad, series(1)]));
    let output = node.send(&["--json", text(&path)]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let summary = json(&output);
    assert_eq!(summary["refused_items"], 1, "{summary}");
    assert_eq!(summary["refused_requests"], 1, "{summary}");
    assert_eq!(
        summary["reasons"].as_array().map(Vec::len),
        Some(2),
        "{summary}"
    );
    assert_eq!(summary["samples"], 1, "{summary}");
}

#[test]
fn a_node_that_is_not_there_yet_is_waited_for_and_one_that_never_comes_is_named() {
    let dir = tempdir().unwrap();
    let path = file(&dir, "f", &framed(&[traces(1, 10)]));
    let addr = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let endpoint = format!("http://{addr}");
    let send = |retry_for: &str| {
        let mut command = binary::command();
        command.args([
            "send",
            "--json",
            "--retry-for",
            retry_for,
            "--endpoint",
            &endpoint,
        ]);
        command
            .arg(&path)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    };
    let output = send("1").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains(&addr.to_string()), "{stderr}");

    let waiting = send("120").spawn().unwrap();
    let mut command = binary::command();
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(dir.path().join("node"));
    command.args(["--grpc-listen", &addr.to_string()]);
    command.args([
        "--otlp-http-listen",
        "127.0.0.1:0",
        "--http-listen",
        "127.0.0.1:0",
    ]);
    let node = Node::spawn(command);
    let output = waiting.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let summary = json(&output);
    assert!(summary["retries"].as_u64() > Some(0), "{summary}");
    assert_eq!(node.cli_json(&["admin", "stats", "--json"])["spans"], 10);
}
