//! `rootline restore`: makes a data directory of a snapshot.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use rootline_engine::{FsStorage, Storage, backup::restore};
use serde_json::json;

use super::{Answer, EXIT_WELL};
use crate::{
    cli::{
        ask::json_text,
        show::{bytes, count, plain},
    },
    send::error_chain,
};

/// Make a data directory of a snapshot
///
/// The snapshot is verified first, and stays as it is. DIR must not exist, or be empty; a node can serve
/// it afterwards. Blocks are linked where both are on one disk, else copied.
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
    let storage: Arc<dyn Storage> = Arc::new(FsStorage::new());
    let copied =
        restore(&storage, &args.snapshot, &args.dir).map_err(|error| error_chain(&error))?;
    let text = if args.json {
        json_text(&json!({
            "dir": copied.dir.display().to_string(),
            "blocks": copied.blocks,
            "linked_bytes": copied.linked_bytes,
            "copied_bytes": copied.copied_bytes,
        }))
    } else {
        format!(
            "{}: {} blocks, {} linked, {} copied\n",
            plain(&copied.dir.display().to_string()),
            count(copied.blocks),
            bytes(copied.linked_bytes),
            bytes(copied.copied_bytes)
        )
    };
    Ok((text, EXIT_WELL))
}
