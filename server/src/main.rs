//! The `rootline` binary: see [`rootline::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    rootline::cli::main()
}
