//! Both heads behind one face: which shard a batch touches, and how it is applied there.
//!
//! Lanes number the shards: metric shards first, then span shards.

use std::sync::Arc;

use rootline_wal::Lsn;

use crate::{
    lanes::Shards,
    metric::{MetricHead, PreparedMetrics},
    record::deletes::Delete,
    span::{PreparedSpans, SpanHead},
};

/// A batch resolved against the heads, live or replayed.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    pub(crate) metrics: PreparedMetrics,
    pub(crate) spans: PreparedSpans,
    pub(crate) deletes: Vec<Delete>,
}

/// What writes go to: the current generation of metrics, and spans.
#[derive(Debug)]
pub(crate) struct Heads {
    pub(crate) metrics: Arc<MetricHead>,
    pub(crate) spans: Arc<SpanHead>,
}

impl Shards for Heads {
    type Batch = Prepared;

    fn lanes(&self) -> usize {
        self.metrics.shards() + self.spans.shards()
    }

    fn touches(&self, lane: usize, prepared: &Prepared) -> bool {
        match lane.checked_sub(self.metrics.shards()) {
            None => {
                prepared.metrics.touches(lane)
                    || prepared
                        .deletes
                        .iter()
                        .any(|d| matches!(d, Delete::Series { .. }))
            }
            Some(shard) => {
                prepared.spans.touches(shard)
                    || prepared.deletes.iter().any(
                        |d| matches!(d, Delete::Trace(id) if self.spans.shard_of(*id) == shard),
                    )
            }
        }
    }

    fn apply(&self, lane: usize, lsn: Lsn, prepared: &Prepared, floor: Lsn) {
        match lane.checked_sub(self.metrics.shards()) {
            None => {
                if prepared.metrics.touches(lane) {
                    self.metrics.apply(lane, lsn, &prepared.metrics, floor);
                }
                for delete in &prepared.deletes {
                    if let Delete::Series { matchers, range } = delete {
                        self.metrics.delete(lane, lsn, matchers, *range, floor);
                    }
                }
            }
            Some(shard) => {
                if prepared.spans.touches(shard) {
                    self.spans.apply(shard, lsn, &prepared.spans, floor);
                }
                for delete in &prepared.deletes {
                    if let Delete::Trace(id) = delete
                        && self.spans.shard_of(*id) == shard
                    {
                        self.spans.delete_trace(shard, lsn, *id, floor);
                    }
                }
            }
        }
    }
}
