//! Names inside a data directory.

/// The log.
pub(crate) const LOG_DIR: &str = "wal";
/// Room set aside for sealing and deletes.
pub(crate) const RESERVE_FILE: &str = "reserve";
