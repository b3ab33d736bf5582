//! Looking after the store, in the terms of `rootline.v1`: flush, compaction, snapshots. gRPC and HTTP
//! share these functions; all of them block.

use rootline_engine::Engine;
use serde_json::{Value, json};

use super::v1;
use crate::refusal::Refusal;

/// Directory of snapshots, below the data directory: on the same disk, as hard links need it.
const SNAPSHOTS: &str = "snapshots";
/// Longest name of a snapshot.
const NAME_BYTES_MAX: usize = 100;

/// Seals what is in memory.
pub(crate) fn flush(engine: &Engine) -> Result<v1::FlushResponse, Refusal> {
    let flushed = engine.flush()?;
    let stats = engine.stats();
    Ok(v1::FlushResponse {
        lsn: stats.metric_cut.min(stats.span_cut).0,
        blocks: flushed.blocks,
        samples: flushed.samples,
        spans: flushed.spans,
        bytes: flushed.bytes,
        spans_in_memory: stats.spans.spans,
    })
}

/// A flush as JSON, the same over HTTP and on the command line.
pub(crate) fn flushed_json(flushed: &v1::FlushResponse) -> Value {
    json!({
        "lsn": flushed.lsn,
        "blocks": flushed.blocks,
        "samples": flushed.samples,
        "spans": flushed.spans,
        "bytes": flushed.bytes,
        "spans_in_memory": flushed.spans_in_memory,
    })
}

/// Merges blocks until nothing is left to merge.
pub(crate) fn compact(engine: &Engine) -> Result<v1::CompactResponse, Refusal> {
    let compacted = engine.compact()?;
    Ok(v1::CompactResponse {
        merges: compacted.merges,
        blocks_before: compacted.blocks_before,
        blocks_after: compacted.blocks_after,
        bytes_before: compacted.bytes_before,
        bytes_after: compacted.bytes_after,
    })
}

/// Makes a snapshot of this name.
pub(crate) fn create_snapshot(
    engine: &Engine,
    name: &str,
) -> Result<v1::CreateSnapshotResponse, Refusal> {
    // A name cannot lead anywhere else: it is one component that is not hidden.
    let dir = engine.dir().join(SNAPSHOTS).join(checked_name(name)?);
    let copied = engine.snapshot_to(&dir)?;
    Ok(v1::CreateSnapshotResponse {
        path: copied.dir.display().to_string(),
        blocks: copied.blocks,
        linked_bytes: copied.linked_bytes,
        copied_bytes: copied.copied_bytes,
    })
}

fn checked_name(name: &str) -> Result<&str, Refusal> {
    let ordinary = |c: char| c.is_ascii_alphanumeric();
    let fits = name.len() <= NAME_BYTES_MAX
        && name.starts_with(ordinary)
        && name.chars().all(|c| ordinary(c) || "-_.".contains(c));
    if fits {
        Ok(name)
    } else {
        Err(Refusal::invalid(format!(
            "a snapshot's name is 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' and '.', the first of \
             them a letter or digit"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_plain_component() {
        for name in ["a", "2026-08-23", "before_upgrade.1", &"n".repeat(100)] {
            assert!(checked_name(name).is_ok(), "{name}");
        }
        for name in [
            "",
            "..",
            ".",
            ".hidden",
            "a/b",
            "/etc",
            "a\\b",
            "a b",
            "ä",
            "-rf",
            &"n".repeat(101),
        ] {
            assert!(checked_name(name).is_err(), "{name}");
        }
    }
}
