//! What a snapshot reads metrics from: the generations and blocks of one moment.
//!
//! A view never changes: freezing, publishing and deleting put another in its place, see `store.rs`.
//!
//! Blocks, frozen generations and the current generation are *parts*. Where two share time, their
//! ranges of LSNs are disjoint.

use std::sync::Arc;

use rootline_wal::Lsn;

use super::head::MetricHead;
use crate::tombstone::Tombstone;

/// A generation that takes no more writes and is not yet in blocks.
#[derive(Clone, Debug)]
pub(crate) struct FrozenGeneration {
    /// Its content, which does not change any more.
    pub(crate) head: Arc<MetricHead>,
    /// It holds the records up to here, from the cut before it on.
    pub(crate) cut: Lsn,
}

/// See the module's doc.
#[derive(Clone, Debug)]
pub(crate) struct MetricView {
    /// By rising cut.
    pub(crate) frozen: Vec<FrozenGeneration>,
    /// Takes the writes.
    pub(crate) current: Arc<MetricHead>,
    /// Deletes that some part has not applied itself, by rising LSN.
    pub(crate) tombstones: Arc<[Tombstone]>,
    /// Samples older than this are past retention.
    pub(crate) floor_ns: Option<i64>,
}
