//! What a snapshot reads spans from: the parts of the store as they were when it was taken.
//!
//! A *part* is a block, or one shard of a generation: frozen ones first, then the current one. Every
//! trace that a snapshot sees lies whole in exactly one part, the newest that has it (`recall.rs` says
//! how that is kept true), so answers of parts are added up.
//!
//! A view never changes: freezing, sealing, compaction and deletes put another in its place. What the
//! parts of one view hide depends on the LSN of the snapshot as well.
//!
//! Invariants
//! - `frozen` rises by cut, and is newer than every block.
//! - A visible delete is applied in every generation.

use std::sync::Arc;

use rootline_wal::Lsn;

use super::{SpanHead, SpanPart};
use crate::{error::Error, id::TraceId, tombstone::SpanTombstone};

/// A generation that takes no more spans.
#[derive(Clone, Debug)]
pub(crate) struct FrozenSpans {
    /// Its spans. Deletes and recalls after the cut are marked in it all the same.
    pub(crate) head: Arc<SpanHead>,
    /// The last record before it was frozen.
    pub(crate) cut: Lsn,
}

/// See the module's doc.
#[derive(Clone, Debug)]
pub(crate) struct SpanView {
    /// Oldest first.
    pub(crate) frozen: Vec<FrozenSpans>,
    /// The generation that takes writes.
    pub(crate) current: Arc<SpanHead>,
    /// Deletes that some block does not have applied, or may not once it is sealed; by rising LSN.
    pub(crate) tombstones: Arc<[SpanTombstone]>,
    /// Retention: traces that ended before this time are not shown.
    pub(crate) floor_ns: Option<i64>,
}

impl SpanView {
    /// A view of one generation alone.
    pub(crate) fn of(current: Arc<SpanHead>) -> Self {
        Self {
            frozen: Vec::new(),
            current,
            tombstones: Arc::from([]),
            floor_ns: None,
        }
    }

    /// Traces that ended before this are not shown any more.
    pub(crate) fn raise_floor(&mut self, floor_ns: i64) {
        self.floor_ns = Some(self.floor_ns.map_or(floor_ns, |floor| floor.max(floor_ns)));
    }

    /// The parts as a snapshot at `at` sees them, oldest first.
    pub(crate) fn parts(&self, at: Lsn) -> Vec<SpanPart> {
        let heads = self.frozen.iter().map(|frozen| &frozen.head);
        let heads = heads.chain([&self.current]);
        heads.flat_map(|head| SpanPart::of_head(head, at)).collect()
    }

    /// The generations, newest first.
    fn heads(&self) -> impl Iterator<Item = &Arc<SpanHead>> {
        let frozen = self.frozen.iter().rev().map(|frozen| &frozen.head);
        std::iter::once(&self.current).chain(frozen)
    }

    /// The oldest record that spans of a generation came in.
    pub(crate) fn oldest_lsn(&self) -> Option<Lsn> {
        self.heads().filter_map(|head| head.oldest_lsn()).min()
    }

    /// An upper bound of the spans of one trace.
    pub(crate) fn spans_in_largest_part(&self, current: &SpanHead) -> u64 {
        let heads = self.frozen.iter().map(|frozen| &*frozen.head);
        let rows = heads.chain([current]).map(SpanHead::rows_in_largest_shard);
        rows.max().unwrap_or(0)
    }

    /// How many spans the newest part older than the current generation has of a trace, about.
    pub(crate) fn trace_rows(&self, id: TraceId) -> Result<u64, Error> {
        let frozen = self.frozen.iter().rev();
        let rows = frozen.filter_map(|frozen| frozen.head.trace_rows(id)).next();
        Ok(rows.map_or(0, u64::from))
    }

    /// Whether there is nothing but the current generation.
    pub(crate) fn is_young(&self) -> bool {
        self.frozen.is_empty()
    }
}
