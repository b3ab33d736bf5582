//! What a snapshot reads metrics from: the parts of the store as they were when it was taken.
//!
//! A *part* is the current generation, a frozen one or a block. Parts have disjoint ranges of LSNs
//! wherever they share time, so of the samples of one series at one time that of the part with the
//! higher LSNs holds. A view never changes: freezing, sealing, compaction and deletes put another
//! in its place, and snapshots keep the one they were taken with.
//!
//! Every question is asked at the LSN of a snapshot that was taken together with the view.
//!
//! Invariants
//! - `frozen` rises by cut, and every block is older than the oldest frozen generation in the times
//!   that they share; `blocks` rise by their last LSN.
//! - A delete that is visible is applied in `current`, and listed in `tombstones` as long as a part
//!   whose `clean_lsn` is below it overlaps it in time.
//! - Metadata are those of `current`, which inherits them.

use std::sync::Arc;

use rootline_wal::Lsn;

use super::{MetricHead, block::MetricBlock};
use crate::tombstone::Tombstone;

/// A generation that takes no writes any more.
#[derive(Clone, Debug)]
pub(crate) struct FrozenGeneration {
    /// Its data; read as of `cut` or before.
    pub(crate) head: Arc<MetricHead>,
    /// The last record before it was frozen. Deletes up to here are applied in it.
    pub(crate) cut: Lsn,
}

/// See the module's doc.
#[derive(Clone, Debug)]
pub(crate) struct MetricView {
    /// Oldest first.
    pub(crate) frozen: Vec<FrozenGeneration>,
    /// The generation that takes writes.
    pub(crate) current: Arc<MetricHead>,
    /// By rising last LSN.
    pub(crate) blocks: Vec<Arc<MetricBlock>>,
    /// Deletes that some block or frozen generation does not have applied.
    pub(crate) tombstones: Arc<[Tombstone]>,
    /// Retention: nothing before this time is shown.
    pub(crate) floor_ns: Option<i64>,
}

impl MetricView {
    /// A view of one generation alone.
    pub(crate) fn of(current: Arc<MetricHead>) -> Self {
        Self {
            frozen: Vec::new(),
            current,
            blocks: Vec::new(),
            tombstones: Arc::from([]),
            floor_ns: None,
        }
    }
}
