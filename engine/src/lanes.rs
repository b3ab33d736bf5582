//! Applies durable batches to the shards of both heads, strictly in order of their sequence numbers.
//!
//! There is one lane a shard: a queue filled under the commit lock, so in LSN order, and a turn that
//! one thread holds while it takes batches off the front and applies them. Whoever finds its batch
//! durable drains the lanes it touches; it applies what others queued before it too, so no batch
//! waits for the thread that wrote it. When the last lane has applied a batch, the watermark moves.
//!
//! Invariants
//! - A batch is applied to a lane only after every older batch queued there.
//! - Nothing is applied before the log says so (`limit`): durable, or appended in interval mode.
//!
//! Lock order: commit lock (in `commit.rs`) → a lane's `queue`; a lane's `turn` → its `queue` →
//! locks of the head → `Visibility`.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use rootline_wal::Lsn;

use crate::{
    budget::Reservation,
    metric::{MetricHead, PreparedMetrics},
    record::deletes::Delete,
    span::{PreparedSpans, SpanHead},
    visibility::Visibility,
};

/// A batch resolved against the heads, live or replayed.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    pub(crate) metrics: PreparedMetrics,
    pub(crate) spans: PreparedSpans,
    pub(crate) deletes: Vec<Delete>,
}

/// Both heads, and which lane serves which shard: metric shards first, then span shards.
#[derive(Debug)]
pub(crate) struct Heads {
    pub(crate) metrics: MetricHead,
    pub(crate) spans: SpanHead,
}

impl Heads {
    pub(crate) fn lanes(&self) -> usize {
        self.metrics.shards() + self.spans.shards()
    }

    pub(crate) fn touches(&self, lane: usize, prepared: &Prepared) -> bool {
        match lane.checked_sub(self.metrics.shards()) {
            None => {
                prepared.metrics.touches(lane)
                    || prepared.deletes.iter().any(|d| matches!(d, Delete::Series { .. }))
            }
            Some(shard) => {
                prepared.spans.touches(shard)
                    || prepared.deletes.iter().any(
                        |d| matches!(d, Delete::Trace(id) if self.spans.shard_of(*id) == shard),
                    )
            }
        }
    }

    /// Applies one lane's share. Calls for one lane come one at a time, in LSN order.
    pub(crate) fn apply(&self, lane: usize, lsn: Lsn, prepared: &Prepared, floor: Lsn) {
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

#[derive(Debug)]
struct Queued {
    lsn: Lsn,
    prepared: Prepared,
    lanes_left: AtomicUsize,
    /// Memory of the batch itself, given back when the last lane is done with it.
    _reservation: Reservation,
}

#[derive(Debug, Default)]
struct Lane {
    turn: Mutex<()>,
    queue: Mutex<VecDeque<Arc<Queued>>>,
}

#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: Box<[Lane]>,
}

impl Lanes {
    pub(crate) fn new(count: usize) -> Self {
        Self { lanes: (0..count).map(|_| Lane::default()).collect() }
    }

    /// Queues a batch in every lane it touches. Called under the commit lock. Returns whether it
    /// touches any; one that touches none is applied by that.
    pub(crate) fn push(
        &self,
        heads: &Heads,
        lsn: Lsn,
        prepared: Prepared,
        reservation: Reservation,
    ) -> bool {
        let touched: Vec<&Lane> = self
            .lanes
            .iter()
            .enumerate()
            .filter(|(lane, _)| heads.touches(*lane, &prepared))
            .map(|(_, lane)| lane)
            .collect();
        let queued = Arc::new(Queued {
            lsn,
            prepared,
            lanes_left: AtomicUsize::new(touched.len()),
            _reservation: reservation,
        });
        for lane in &touched {
            lane.queue.lock().push_back(Arc::clone(&queued));
        }
        !touched.is_empty()
    }

    /// Applies everything queued up to `limit`. A panic in a head fails the watermark before it
    /// goes on: no later write is quietly accepted.
    pub(crate) fn drain(&self, heads: &Heads, visibility: &Visibility, limit: Lsn) {
        for (index, lane) in self.lanes.iter().enumerate() {
            let due = |queue: &VecDeque<Arc<Queued>>| {
                queue.front().is_some_and(|queued| queued.lsn <= limit)
            };
            if !due(&lane.queue.lock()) {
                continue;
            }
            let _turn = lane.turn.lock();
            loop {
                let queued = {
                    let mut queue = lane.queue.lock();
                    if !due(&queue) {
                        break;
                    }
                    queue.pop_front()
                };
                let Some(queued) = queued else { break };
                let guard = FailOnPanic(visibility);
                heads.apply(index, queued.lsn, &queued.prepared, visibility.floor());
                std::mem::forget(guard);
                if queued.lanes_left.fetch_sub(1, Ordering::AcqRel) == 1 {
                    visibility.applied(queued.lsn);
                }
            }
        }
    }
}

struct FailOnPanic<'a>(&'a Visibility);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        self.0.fail();
    }
}
