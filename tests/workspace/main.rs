//! The workspace keeps its shape: dependencies point one way, the engine can be embedded without
//! pulling in a protocol or an async runtime, and a package outside of it does embed it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use rootline_tests::binary::{cargo, repository};

fn stdout(mut command: Command) -> String {
    let output = command.output().expect("cargo runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed:\n{stderr}");
    String::from_utf8(output.stdout).expect("cargo prints text")
}

/// Direct dependencies between members, development ones left out.
fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let mut command = cargo();
    command.args(["metadata", "--no-deps", "--format-version=1", "--locked"]);
    let metadata: serde_json::Value = serde_json::from_str(&stdout(command)).expect("metadata");
    let packages = metadata["packages"].as_array().expect("packages");
    let mut edges = BTreeMap::new();
    for package in packages {
        let dependencies = package["dependencies"].as_array().expect("dependencies");
        let own = dependencies
            .iter()
            .filter(|d| d["kind"].is_null())
            .filter_map(|d| d["name"].as_str())
            .filter(|name| name.starts_with("rootline"))
            .map(str::to_owned)
            .collect();
        edges.insert(package["name"].as_str().expect("name").to_owned(), own);
    }
    edges
}

#[test]
fn dependencies_point_one_way() {
    let edges = edges();
    let allowed: &[(&str, &[&str])] = &[
        ("rootline-wal", &[]),
        ("rootline-index", &[]),
        ("rootline-engine", &["rootline-index", "rootline-wal"]),
        ("rootline-query", &["rootline-engine"]),
        ("rootline", &["rootline-engine", "rootline-query"]),
    ];
    for (package, allowed) in allowed {
        let found = &edges[*package];
        let foreign: Vec<_> = found
            .iter()
            .filter(|d| !allowed.contains(&d.as_str()))
            .collect();
        assert!(
            foreign.is_empty(),
            "{package} must not depend on {foreign:?}"
        );
    }
    for (package, dependencies) in &edges {
        for leaf in ["rootline-tests", "rootline-benches"] {
            assert!(!dependencies.contains(leaf), "{package} depends on {leaf}");
        }
    }
}

#[test]
fn the_engine_knows_no_protocol_and_no_async_runtime() {
    for package in ["rootline-engine", "rootline-query"] {
        let mut command = cargo();
        command.args([
            "tree",
            "--locked",
            "--package",
            package,
            "--edges",
            "normal,build",
        ]);
        command.args(["--prefix", "none", "--format", "{p}"]);
        let tree = stdout(command);
        let crates: BTreeSet<&str> = tree
            .lines()
            .filter_map(|line| line.split(' ').next())
            .collect();
        assert!(crates.contains("rootline-wal"), "{crates:?}");
        for banned in [
            "tokio",
            "prost",
            "tonic",
            "hyper",
            "axum",
            "async-std",
            "smol",
        ] {
            assert!(!crates.contains(banned), "{package} pulls in {banned}");
        }
    }
}

/// A stranger's package: it has its own workspace and names `rootline-engine` by path.
#[test]
fn a_package_outside_the_workspace_embeds_the_engine() {
    let package = repository().join("tests/embedding");
    // The versions that are tested here, so that nothing new has to be fetched.
    std::fs::copy(repository().join("Cargo.lock"), package.join("Cargo.lock")).expect("copy");
    let mut command = cargo();
    command.current_dir(&package).args(["run", "--quiet"]);
    command.env("CARGO_TARGET_DIR", repository().join("target/embedding"));
    let said = stdout(command);
    assert!(said.contains("2 samples"), "{said}");
    assert!(said.contains("checkout > payment"), "{said}");
    assert!(said.contains("after reopening"), "{said}");
}
