//! Commands on a directory that no node uses, and copies made while one does: verify, inspect, snapshot,
//! restore; and a node over damaged files.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use rootline_tests::{Node, binary, http, remote_write};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

use super::{
    NOW_MS,
    sealing::{SAMPLES, SERIES, answers, blocks, flush, write},
};

fn rootline(args: &[&str], paths: &[&Path]) -> (Output, String) {
    let output = binary::command()
        .args(args)
        .args(paths)
        .output()
        .expect("the binary runs");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, stdout)
}

fn code(args: &[&str], path: &Path) -> (i32, Value) {
    let (output, stdout) = rootline(args, &[path]);
    let code = output.status.code().expect("an exit code");
    let json = serde_json::from_str(&stdout).unwrap_or(Value::Null);
    assert!(code == 2 || !json.is_null(), "{args:?}: {output:?}");
    (code, json)
}

/// A directory with blocks that no node uses, and what a node answered from it.
fn sealed() -> (TempDir, Value) {
    let dir = tempdir().unwrap();
    let node = Node::start(dir.path());
    write(&node);
    let before = answers(&node);
    flush(&node);
    let (status, log) = node.terminate();
    assert!(status.success(), "{log}");
    (dir, before)
}

/// Turns over one bit in the middle of a file.
fn damage(path: &Path) -> u64 {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() / 3;
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
    at as u64
}

fn manifest_files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("manifest")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|p| p.extension().is_some_and(|e| e == "wal"))
        .collect()
}

#[test]
fn an_intact_directory_is_verified_and_inspected() {
    let (dir, _) = sealed();
    let (exit, verified) = code(&["verify", "--json"], dir.path());
    assert_eq!(
        (exit, &verified["intact"]),
        (0, &Value::Bool(true)),
        "{verified}"
    );
    let (exit, inspected) = code(&["inspect", "--json"], dir.path());
    assert_eq!(exit, 0);
    let count = |field: &str| -> u64 {
        let blocks = inspected["blocks"].as_array().unwrap();
        blocks.iter().map(|b| b[field].as_u64().unwrap()).sum()
    };
    assert_eq!(
        (count("samples"), count("series")),
        (SERIES * SAMPLES, SERIES)
    );
    let (output, text) = rootline(&["inspect"], &[dir.path()]);
    assert!(
        output.status.success() && text.contains("BYTES/SAMPLE"),
        "{text}"
    );
}

#[test]
fn one_wrong_bit_in_a_block_is_found_by_file_and_offset() {
    let (dir, _) = sealed();
    let block = blocks(dir.path()).remove(0);
    let at = damage(&block);
    let (exit, verified) = code(&["verify", "--json"], dir.path());
    assert_eq!(exit, 1, "{verified}");
    let found = &verified["damage"][0];
    assert_eq!(found["file"], block.display().to_string(), "{verified}");
    let offset = found["offset_bytes"].as_u64().unwrap();
    assert!(offset <= at && at - offset < 64 * 1024, "{verified}");
}

#[test]
fn a_directory_that_is_none_cannot_be_verified() {
    let dir = tempdir().unwrap();
    for command in ["verify", "inspect"] {
        assert_eq!(code(&[command, "--json"], &dir.path().join("missing")).0, 2);
        assert_eq!(code(&[command, "--json"], dir.path()).0, 2, "{command}");
    }
}

#[test]
fn a_snapshot_is_restored_as_it_was() {
    let dir = tempdir().unwrap();
    let node = Node::start(dir.path());
    write(&node);
    let before = answers(&node);
    let created = node.cli_json(&["admin", "snapshot", "first", "--json"]);
    let snapshot = PathBuf::from(created["path"].as_str().unwrap());
    assert_eq!(snapshot, dir.path().join("snapshots/first"));
    let taken = node.cli(&["admin", "snapshot", "first"]);
    assert_eq!(taken.status.code(), Some(1), "{taken:?}");
    let outside = node.cli(&["admin", "snapshot", "../first"]);
    assert_eq!(outside.status.code(), Some(1), "{outside:?}");
    // What happens to the store does not touch its copy.
    node.cli_json(&["admin", "delete-series", "sealed", "--all-time", "--json"]);
    assert_ne!(answers(&node), before);

    let target = dir.path().join("restored");
    let (output, _) = rootline(&["restore"], &[&snapshot, &target]);
    assert!(output.status.success(), "{output:?}");
    let (again, _) = rootline(&["restore"], &[&snapshot, &target]);
    assert_eq!(again.status.code(), Some(2), "{again:?}");
    assert_eq!(code(&["verify", "--json"], &target).0, 0);
    let restored = Node::start(&target);
    assert_eq!(answers(&restored), before);
}

#[test]
fn a_damaged_manifest_leaves_a_node_that_answers() {
    let (dir, before) = sealed();
    for file in manifest_files(dir.path()) {
        let mut bytes = fs::read(&file).unwrap();
        // In the header of the second group of records; groups begin at multiples of 4 KiB.
        bytes[2 * 4096 + 8] ^= 0x10;
        fs::write(&file, bytes).unwrap();
    }
    assert_eq!(code(&["verify", "--json"], dir.path()).0, 1);
    let node = Node::start(dir.path());
    assert_eq!(answers(&node), before);
    let health = http::get(node.http, "/health").unwrap();
    assert_eq!(health.status, 200);
    assert!(
        health.text().contains("\"status\":\"read-only\""),
        "{}",
        health.text()
    );
    let labels: [(&[u8], &[u8]); 1] = [(b"__name__", b"refused")];
    let series = remote_write::series(&labels, &[(NOW_MS, 1.0)]);
    let refused = remote_write::post(node.http, &remote_write::request(&[series])).unwrap();
    assert_eq!(refused.status, 503, "{}", refused.text());
}
