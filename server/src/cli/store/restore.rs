//! `rootline restore`: makes a data directory of a snapshot.

use std::path::PathBuf;

use clap::Args;

use super::Answer;

/// Make a data directory of a snapshot
///
/// DIR must not exist, or be empty; a node can serve it afterwards. The snapshot stays as it is. Files
/// of blocks are linked where both are on one disk, else copied and verified.
///
/// Exit codes: 0 done, 2 it could not be done.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The snapshot: a directory made by `rootline admin snapshot`
    #[arg(value_name = "SNAPSHOT")]
    snapshot: PathBuf,
    /// Where the store goes
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Answer in JSON, with the fields of docs/cli.md
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &RestoreArgs) -> Answer {
    let _ = args.json;
    Err(format!(
        "cannot restore {} to {}: not in this release",
        args.snapshot.display(),
        args.dir.display()
    ))
}
