//! Both heads behind one face: which shard a batch touches, and how it is applied there.
//!
//! Lanes number the shards: metric shards first, then span shards.

use std::sync::Arc;

use parking_lot::Mutex;
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

/// What writes go to: the current generations.
#[derive(Debug)]
pub(crate) struct Heads {
    pub(crate) metrics: Arc<MetricHead>,
    pub(crate) spans: Arc<SpanHead>,
    /// Frozen generations of spans that some view may show: deletes and recalls are marked in them.
    /// A leaf among locks, held for a copy.
    pub(crate) frozen_spans: Mutex<Vec<Arc<SpanHead>>>,
}

impl Heads {
    pub(crate) fn new(metrics: Arc<MetricHead>, spans: Arc<SpanHead>) -> Self {
        Self {
            metrics,
            spans,
            frozen_spans: Mutex::default(),
        }
    }

    /// Whether a batch brings or deletes metrics, and whether spans.
    pub(crate) fn signals(&self, prepared: &Prepared) -> (bool, bool) {
        let mut metric_shards = 0..self.metrics.shards();
        let metrics = metric_shards.any(|shard| prepared.metrics.touches(shard));
        let deletes = prepared.deletes.iter();
        let (spans, series): (Vec<_>, Vec<_>) = deletes.partition(|delete| delete.concerns_spans());
        (
            metrics || !series.is_empty(),
            prepared.spans.span_count() > 0 || !spans.is_empty(),
        )
    }

    fn apply_spans(&self, shard: usize, lsn: Lsn, prepared: &Prepared, floor: Lsn) {
        let frozen = self.frozen_spans.lock().clone();
        if prepared.spans.touches(shard) {
            self.spans.apply(shard, lsn, &prepared.spans, floor);
            let recalled = &prepared.spans.recall().traces;
            if !recalled.is_empty() {
                for head in &frozen {
                    head.supersede(shard, lsn, recalled);
                }
            }
        }
        for head in frozen.iter().chain([&self.spans]) {
            for delete in &prepared.deletes {
                match delete {
                    Delete::Trace(id) if head.shard_of(*id) == shard => {
                        head.delete_trace(shard, lsn, *id, floor);
                    }
                    Delete::Spans(filter) => head.delete_spans(shard, lsn, filter),
                    Delete::Trace(_) | Delete::Series { .. } => {}
                }
            }
        }
    }
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
                let concerns = |delete: &Delete| match delete {
                    Delete::Trace(id) => self.spans.shard_of(*id) == shard,
                    Delete::Spans(_) => true,
                    Delete::Series { .. } => false,
                };
                prepared.spans.touches(shard) || prepared.deletes.iter().any(concerns)
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
            Some(shard) => self.apply_spans(shard, lsn, prepared, floor),
        }
    }
}
