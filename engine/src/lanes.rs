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

use std::{collections::VecDeque, sync::Arc};

use rootline_wal::Lsn;

use crate::{
    budget::Reservation,
    sync::{AtomicUsize, Mutex, Ordering},
    visibility::Visibility,
};

/// What lanes lead to.
pub(crate) trait Shards {
    /// A batch ready to be applied.
    type Batch;

    /// How many lanes there are.
    fn lanes(&self) -> usize;

    /// Whether the batch has anything for this lane.
    fn touches(&self, lane: usize, batch: &Self::Batch) -> bool;

    /// Applies one lane's share. Calls for one lane come one at a time, in LSN order.
    fn apply(&self, lane: usize, lsn: Lsn, batch: &Self::Batch, floor: Lsn);
}

#[derive(Debug)]
struct Queued<B> {
    lsn: Lsn,
    batch: B,
    lanes_left: AtomicUsize,
    /// Memory of the batch itself, given back when the last lane is done with it.
    _reservation: Option<Reservation>,
}

#[derive(Debug)]
struct Lane<B> {
    turn: Mutex<()>,
    queue: Mutex<VecDeque<Arc<Queued<B>>>>,
}

#[derive(Debug)]
pub(crate) struct Lanes<B> {
    lanes: Box<[Lane<B>]>,
}

impl<B> Lanes<B> {
    pub(crate) fn new(count: usize) -> Self {
        let lane = || Lane {
            turn: Mutex::new(()),
            queue: Mutex::new(VecDeque::new()),
        };
        Self {
            lanes: (0..count).map(|_| lane()).collect(),
        }
    }

    /// Queues a batch in every lane it touches. Called under the commit lock. Returns whether it
    /// touches any; one that touches none is applied by that.
    pub(crate) fn push(
        &self,
        shards: &impl Shards<Batch = B>,
        lsn: Lsn,
        batch: B,
        reservation: Option<Reservation>,
    ) -> bool {
        let touched: Vec<&Lane<B>> = self
            .lanes
            .iter()
            .enumerate()
            .filter(|(lane, _)| shards.touches(*lane, &batch))
            .map(|(_, lane)| lane)
            .collect();
        let queued = Arc::new(Queued {
            lsn,
            batch,
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
    pub(crate) fn drain(
        &self,
        shards: &impl Shards<Batch = B>,
        visibility: &Visibility,
        limit: Lsn,
    ) {
        for (index, lane) in self.lanes.iter().enumerate() {
            let due = |queue: &VecDeque<Arc<Queued<B>>>| {
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
                shards.apply(index, queued.lsn, &queued.batch, visibility.floor());
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rootline_wal::ManualClock;

    use super::*;
    use crate::sync::{AtomicU64, thread};

    /// Lane `i` takes the batches whose bit `i` is set and checks that they come in order.
    struct InOrder {
        applied: Vec<AtomicU64>,
    }

    impl Shards for InOrder {
        type Batch = u8;

        fn lanes(&self) -> usize {
            self.applied.len()
        }

        fn touches(&self, lane: usize, batch: &u8) -> bool {
            batch & (1 << lane) != 0
        }

        fn apply(&self, lane: usize, lsn: Lsn, _: &u8, floor: Lsn) {
            let before = self.applied[lane].swap(lsn.0, Ordering::SeqCst);
            assert!(before < lsn.0, "lane {lane} applied {before}, then {lsn}");
            assert!(floor < lsn, "a batch is applied above the floor");
        }
    }

    /// Writers race through order, log and lanes as `commit.rs` does it; a reader pins snapshots.
    fn race(batches: &'static [u8]) {
        let shards = Arc::new(InOrder {
            applied: (0..3).map(|_| AtomicU64::new(0)).collect(),
        });
        let lanes = Arc::new(Lanes::new(3));
        let visibility = Visibility::new(Arc::new(ManualClock::new()), Duration::from_mins(1));
        let log = Arc::new((Mutex::new(0u64), AtomicU64::new(0)));
        let touching = |lane: usize, up_to: u64, log: &[(u64, u8)]| {
            log.iter()
                .filter(|(l, b)| *l <= up_to && b & (1 << lane) != 0)
                .map(|(l, _)| *l)
                .max()
        };
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut writers = Vec::new();
        for &batch in batches {
            let (shards, lanes, visibility) = (
                Arc::clone(&shards),
                Arc::clone(&lanes),
                Arc::clone(&visibility),
            );
            let (log, order) = (Arc::clone(&log), Arc::clone(&order));
            writers.push(thread::spawn(move || {
                let (lsn, queued) = {
                    let mut last = log.0.lock();
                    *last += 1;
                    order.lock().push((*last, batch));
                    (Lsn(*last), lanes.push(&*shards, Lsn(*last), batch, None))
                };
                log.1.fetch_max(lsn.0, Ordering::SeqCst);
                if !queued {
                    visibility.applied(lsn);
                }
                lanes.drain(&*shards, &visibility, Lsn(log.1.load(Ordering::SeqCst)));
                visibility.wait(lsn).unwrap();
                assert!(visibility.visible() >= lsn);
            }));
        }
        let pin = visibility.pin();
        for (lane, applied) in shards.applied.iter().enumerate() {
            let applied = applied.load(Ordering::SeqCst);
            if let Some(expected) = touching(lane, pin.lsn().0, &order.lock()) {
                assert!(applied >= expected, "a visible batch is applied everywhere");
            }
        }
        assert!(visibility.floor() <= pin.lsn());
        drop(pin);
        for writer in writers {
            writer.join().unwrap();
        }
        assert_eq!(visibility.visible().0, batches.len() as u64);
    }

    #[cfg(not(feature = "shuttle"))]
    #[test]
    fn racing_writers_apply_in_order_and_all_become_visible() {
        for _ in 0..200 {
            race(&[0b001, 0b011, 0b110, 0b111, 0b000]);
        }
    }

    /// The same under a scheduler that tries interleavings:
    /// `cargo test -p rootline-engine --features shuttle lanes`.
    #[cfg(feature = "shuttle")]
    #[test]
    fn every_tried_interleaving_applies_in_order_and_all_become_visible() {
        shuttle::check_random(|| race(&[0b001, 0b011, 0b110, 0b000]), 5_000);
        shuttle::check_pct(|| race(&[0b001, 0b011, 0b110, 0b000]), 5_000, 3);
    }
}
