//! A block of spans that does not open any more: answers come from the rest and say so.

use prost::Message as _;
use rootline_tests::{Node, otlp};
use serde_json::Value;
use tempfile::tempdir;

const START_NS: u64 = 1_700_000_000_000_000_000;

fn send(node: &Node, trace: u128) {
    let spans = (1..100).map(|n| otlp::span(trace, n, None, START_NS + n, START_NS + 2 * n));
    let body = otlp::traces("shop", spans.collect()).encode_to_vec();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let endpoint = tonic::transport::Endpoint::from_shared(node.endpoint()).unwrap();
    runtime.block_on(async {
        let channel = endpoint.connect().await.unwrap();
        let sent = otlp::call(&channel, otlp::EXPORT_TRACES, body).await;
        assert!(sent.unwrap().is_empty());
    });
    assert!(node.cli(&["admin", "flush"]).status.success());
}

#[test]
fn answers_without_a_block_of_spans_are_not_called_exact() {
    let dir = tempdir().unwrap();
    let node = Node::start(dir.path());
    send(&node, 7);
    send(&node, 8);
    let count = |node: &Node| -> (Value, Value) {
        let args = [
            "query",
            "aggregate",
            "--of",
            "nothing",
            "--all-time",
            "--json",
        ];
        let answer = node.cli_json(&args);
        let spans = answer["groups"][0]["spans"].clone();
        (spans, answer["info"]["exact"].clone())
    };
    assert_eq!(count(&node), (198.into(), true.into()));
    assert!(node.terminate().0.success());

    let blocks = std::fs::read_dir(dir.path().join("blocks")).unwrap();
    let mut blocks: Vec<_> = blocks.map(|entry| entry.unwrap().path()).collect();
    blocks.retain(|path| path.extension().is_some_and(|ending| ending == "rlb"));
    blocks.sort();
    assert_eq!(blocks.len(), 2);
    let whole = std::fs::metadata(&blocks[0]).unwrap().len();
    let file = std::fs::File::options().write(true).open(&blocks[0]);
    file.unwrap().set_len(whole / 2).unwrap();

    let node = Node::start(dir.path());
    assert_eq!(count(&node), (99.into(), false.into()));
    let lost = node.cli(&["query", "trace", &format!("{:032x}", 7)]);
    let said = String::from_utf8_lossy(&lost.stderr).into_owned();
    assert!(
        !lost.status.success() && said.contains("could not be opened"),
        "{said}"
    );
    let there = node.cli(&["query", "trace", &format!("{:032x}", 8)]);
    assert!(there.status.success(), "{there:?}");
}
