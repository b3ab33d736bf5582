//! Finding and building what is under test.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the repository")
}

/// Cargo, the one that runs the tests.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(repository());
    command
}

/// The `rootline` binary of this checkout, built once for each test program with the profile that the
/// tests were built with. `ROOTLINE_TEST_BINARY` names another one.
pub fn rootline() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(binary) = std::env::var_os("ROOTLINE_TEST_BINARY") {
            return binary.into();
        }
        let mut build = cargo();
        build.args([
            "build",
            "--quiet",
            "--package",
            "rootline",
            "--bin",
            "rootline",
        ]);
        build.arg("--message-format=json");
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let output = build.output().expect("cargo runs");
        assert!(
            output.status.success(),
            "building rootline failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let messages = String::from_utf8_lossy(&output.stdout);
        let executable = messages
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter_map(|message| Some(message.get("executable")?.as_str()?.to_owned()))
            .next_back();
        executable
            .expect("cargo names the executable it built")
            .into()
    })
}

/// A command that runs the binary, untouched by what the environment of the tests says to it.
pub fn command() -> Command {
    let mut command = Command::new(rootline());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ROOTLINE_") {
            command.env_remove(name);
        }
    }
    command
}
