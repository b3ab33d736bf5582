//! What the documents say is true: README's commands run as written, and every file that a page names or
//! links to is there.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rootline_tests::binary::{self, repository};

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All pages of the repository.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    let mut folders = vec![repository().join("docs")];
    for entry in fs::read_dir(repository()).unwrap() {
        pages.push(entry.unwrap().path());
    }
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                pages.push(path);
            }
        }
    }
    pages.retain(|p| p.extension().is_some_and(|e| e == "md"));
    pages
}

/// The content of fenced blocks with this info string.
fn blocks(page: &str, info: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut current: Option<String> = None;
    for line in page.lines() {
        match &mut current {
            Some(_) if line.trim() == "```" => blocks.extend(current.take()),
            Some(block) => {
                block.push_str(line);
                block.push('\n');
            }
            None if line.trim() == format!("```{info}") => current = Some(String::new()),
            None => {}
        }
    }
    blocks
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// All `sh` blocks of the README, one after the other in one shell, at the root of the repository. Only
/// ports differ, by environment variables, so that tests can run side by side.
#[test]
fn the_commands_of_the_readme_run_as_written() {
    let commands = blocks(&read(&repository().join("README.md")), "sh").concat();
    assert!(commands.contains("rootline send"), "{commands}");
    let script = format!("set -eu\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n{commands}");
    let [grpc, otlp_http, http] = [free_port(), free_port(), free_port()];
    let binaries = binary::rootline()
        .parent()
        .expect("the binary is in a folder");
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("bash")
        .args(["-x", "-c", &script])
        .current_dir(repository())
        .stdin(Stdio::null())
        .env("PATH", format!("{}:{path}", binaries.display()))
        .env("ROOTLINE_GRPC_LISTEN", format!("127.0.0.1:{grpc}"))
        .env(
            "ROOTLINE_OTLP_HTTP_LISTEN",
            format!("127.0.0.1:{otlp_http}"),
        )
        .env("ROOTLINE_HTTP_LISTEN", format!("127.0.0.1:{http}"))
        .env("ROOTLINE_ENDPOINT", format!("http://127.0.0.1:{grpc}"))
        .env(
            "ROOTLINE_OTLP_HTTP",
            format!("http://127.0.0.1:{otlp_http}"),
        )
        .env(
            "ROOTLINE_REMOTE_WRITE",
            format!("http://127.0.0.1:{http}/api/v1/write"),
        )
        .output()
        .expect("bash runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.contains("sent "), "{stdout}");
    assert!(stdout.contains("checkout"), "{stdout}");
}

#[test]
fn links_between_pages_lead_somewhere() {
    for page in pages() {
        let text = read(&page);
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = page.parent().expect("a page is in a folder").join(target);
            assert!(path.exists(), "{} links to {target}", page.display());
        }
    }
}

/// A path in backticks that begins with a folder of the workspace names something that exists.
#[test]
fn files_that_pages_name_are_there() {
    const FOLDERS: [&str; 9] = [
        "wal/", "index/", "engine/", "query/", "server/", "benches/", "tests/", "fuzz/", "docs/",
    ];
    for page in pages() {
        // The history of what was may name what is no more.
        if page.ends_with("CHANGELOG.md") || page.to_string_lossy().contains("decisions") {
            continue;
        }
        for name in read(&page).split('`').skip(1).step_by(2) {
            let is_path = FOLDERS.iter().any(|f| name.starts_with(f))
                && name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            if is_path {
                let there = repository().join(name).exists();
                assert!(there, "{} names {name}", page.display());
            }
        }
    }
}

#[test]
fn every_folder_of_tests_is_explained() {
    let page = read(&repository().join("docs/testing.md"));
    let manifest = read(&repository().join("tests/Cargo.toml"));
    for name in manifest
        .split("[[test]]\nname = \"")
        .skip(1)
        .filter_map(|r| r.split('"').next())
    {
        assert!(
            page.contains(&format!("`tests/{name}/`")),
            "docs/testing.md lacks {name}"
        );
    }
}
