//! Names inside a data directory.

/// The log.
pub(crate) const LOG_DIR: &str = "wal";
