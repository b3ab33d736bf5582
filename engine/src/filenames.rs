//! Names inside a data directory.

/// The log.
pub(crate) const LOG_DIR: &str = "wal";
/// Room set aside for sealing and deletes.
pub(crate) const RESERVE_FILE: &str = "reserve";
/// Blocks.
pub(crate) const BLOCKS_DIR: &str = "blocks";
/// The manifest.
pub(crate) const MANIFEST_DIR: &str = "manifest";
