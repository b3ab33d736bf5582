//! Figures of a running log.

use std::{sync::atomic::AtomicU64, time::Duration};

use crate::lsn::Lsn;

/// Figures as of now. Counts start at open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Segments with records, and those prepared or kept for reuse.
    pub segments: u64,
    /// Bytes all of them take on disk.
    pub disk_bytes: u64,
    /// Records appended.
    pub records: u64,
    /// Bytes of their payloads.
    pub record_bytes: u64,
    /// Bytes written to segments, framing and padding included.
    pub written_bytes: u64,
    /// Groups synced, markers included.
    pub groups: u64,
    /// Markers among them.
    pub markers: u64,
    /// How long the last group took to write and sync.
    pub sync_last: Duration,
    /// How long all groups took to write and sync.
    pub sync_total: Duration,
    /// Segments made, recycled ones included.
    pub segments_made: u64,
    /// Segments that were recycled.
    pub segments_recycled: u64,
    /// Times that a segment could not be made for lack of room.
    pub disk_full: u64,
    /// Bytes appended and not synced yet.
    pub unsynced_bytes: u64,
    /// The last record appended.
    pub last_lsn: Lsn,
    /// The last record that survives a power cut.
    pub durable_lsn: Lsn,
    /// The log takes no more records because a write or sync failed.
    pub poisoned: bool,
}

/// Counters that no lock guards.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) written_bytes: AtomicU64,
    pub(crate) groups: AtomicU64,
    pub(crate) markers: AtomicU64,
    pub(crate) sync_last_ns: AtomicU64,
    pub(crate) sync_total_ns: AtomicU64,
    pub(crate) segments_made: AtomicU64,
    pub(crate) segments_recycled: AtomicU64,
    pub(crate) disk_full: AtomicU64,
}
