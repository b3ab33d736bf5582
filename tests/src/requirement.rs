//! Things that a test needs and a machine may lack.
//!
//! Without them a test prints `skipped: needs X` and passes, unless `ROOTLINE_TESTS_REQUIRE` is set, as
//! it is in CI for what CI installs: `ROOTLINE_TESTS_REQUIRE=prometheus,otel-sdk`.

use std::{io::Write, path::PathBuf};

use crate::binary::repository;

/// Says that the test is skipped; fails it if the environment asks for `key`.
///
/// # Panics
/// If `ROOTLINE_TESTS_REQUIRE` lists `key`.
pub fn skip(key: &str, needs: &str) {
    let required = std::env::var("ROOTLINE_TESTS_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|k| k.trim() == key),
        "needs {needs}, and ROOTLINE_TESTS_REQUIRE says that {key} is there"
    );
    // Past the capture of passing tests' output: a skip is to be seen.
    let _ = writeln!(std::io::stderr(), "skipped: needs {needs}");
}

/// Recorded data that is not part of the repository: `../shared/data` beside the checkout, or what
/// `ROOTLINE_TESTS_DATA` names.
pub fn data(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("ROOTLINE_TESTS_DATA")
        .map_or_else(|| repository().join("../shared/data"), PathBuf::from);
    let path = root.join(path);
    path.exists().then_some(path)
}
