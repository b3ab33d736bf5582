//! The watermark and the snapshots that hang on it.
//!
//! `visible_lsn` is the highest sequence number such that every batch up to it has been applied to
//! every shard it touches. It only rises, one batch at a time, before that batch is acknowledged. A
//! snapshot is a pin on one value of it.
//!
//! The *floor* is the oldest sequence number that an open or a future snapshot can have. Heads drop
//! what serves only snapshots older than the floor. It never falls: a snapshot opens at the
//! watermark under the same lock that computes the floor, and the floor is at most the watermark.
//!
//! A pin older than its allowed age stops holding the floor back [`EXPIRY_GRACE`] later; readers look
//! at the age *after* they read and before they show, so nothing read past the floor is ever shown.
//!
//! Lock order: `applied` and `pins` are leaves and never held together.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rootline_wal::{Clock, Lsn};

use crate::{
    error::Error,
    sync::{AtomicU64, Condvar, Mutex, Ordering},
};

/// How long after its expiry a pin still holds the floor: the longest a single read between two
/// looks at the age may take.
const EXPIRY_GRACE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Visibility {
    clock: Arc<dyn Clock>,
    snapshot_max_age: Duration,
    visible: AtomicU64,
    /// Applied batches above the watermark that wait for an older one.
    applied: Mutex<Applied>,
    advanced: Condvar,
    pins: Mutex<Pins>,
}

#[derive(Debug, Default)]
struct Applied {
    ahead: BTreeSet<u64>,
    failed: bool,
}

#[derive(Debug, Default)]
struct Pins {
    next: u64,
    open: Vec<OpenPin>,
}

#[derive(Debug)]
struct OpenPin {
    id: u64,
    lsn: u64,
    opened: Duration,
}

/// Keeps a snapshot's versions alive until dropped.
#[derive(Debug)]
pub(crate) struct Pin {
    visibility: Arc<Visibility>,
    id: u64,
    opened: Duration,
    lsn: Lsn,
}

impl Visibility {
    pub(crate) fn new(clock: Arc<dyn Clock>, snapshot_max_age: Duration) -> Arc<Self> {
        Arc::new(Self {
            clock,
            snapshot_max_age,
            visible: AtomicU64::new(0),
            applied: Mutex::new(Applied::default()),
            advanced: Condvar::new(),
            pins: Mutex::new(Pins::default()),
        })
    }

    /// Everything up to `lsn` was replayed. Called once, before the first write or read.
    pub(crate) fn start_at(&self, lsn: Lsn) {
        self.visible.store(lsn.0, Ordering::Release);
    }

    pub(crate) fn visible(&self) -> Lsn {
        Lsn(self.visible.load(Ordering::Acquire))
    }

    /// The batch `lsn` has been applied to every shard it touches.
    pub(crate) fn applied(&self, lsn: Lsn) {
        let mut applied = self.applied.lock();
        let mut visible = self.visible.load(Ordering::Relaxed);
        debug_assert!(lsn.0 > visible, "a batch is applied once");
        if lsn.0 != visible + 1 {
            applied.ahead.insert(lsn.0);
            return;
        }
        visible = lsn.0;
        while applied.ahead.remove(&(visible + 1)) {
            visible += 1;
        }
        self.visible.store(visible, Ordering::Release);
        drop(applied);
        self.advanced.notify_all();
    }

    /// A batch could not be applied: the watermark will never pass it.
    pub(crate) fn fail(&self) {
        self.applied.lock().failed = true;
        self.advanced.notify_all();
    }

    /// Waits until `lsn` is visible.
    ///
    /// # Errors
    /// [`Error::Closed`] after [`fail`](Self::fail).
    pub(crate) fn wait(&self, lsn: Lsn) -> Result<(), Error> {
        if self.visible() >= lsn {
            return Ok(());
        }
        let mut applied = self.applied.lock();
        while self.visible() < lsn {
            if applied.failed {
                return Err(Error::Closed {
                    reason: "applying a batch failed; reopen the store".to_owned(),
                });
            }
            self.advanced.wait(&mut applied);
        }
        Ok(())
    }

    /// Opens a snapshot at the watermark.
    pub(crate) fn pin(self: &Arc<Self>) -> Pin {
        let opened = self.clock.monotonic();
        let mut pins = self.pins.lock();
        let lsn = self.visible();
        let id = pins.next;
        pins.next += 1;
        pins.open.push(OpenPin {
            id,
            lsn: lsn.0,
            opened,
        });
        Pin {
            visibility: Arc::clone(self),
            id,
            opened,
            lsn,
        }
    }

    /// The oldest sequence number an open or future snapshot can have.
    pub(crate) fn floor(&self) -> Lsn {
        let now = self.clock.monotonic();
        let held_until = self.snapshot_max_age.saturating_add(EXPIRY_GRACE);
        let pins = self.pins.lock();
        let visible = self.visible();
        let oldest = pins
            .open
            .iter()
            .filter(|pin| now.saturating_sub(pin.opened) <= held_until)
            .map(|pin| pin.lsn)
            .min();
        Lsn(oldest.map_or(visible.0, |lsn| lsn.min(visible.0)))
    }
}

impl Pin {
    pub(crate) fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// # Errors
    /// [`Error::SnapshotExpired`] once the pin is older than allowed.
    pub(crate) fn check_age(&self) -> Result<(), Error> {
        let age = self
            .visibility
            .clock
            .monotonic()
            .saturating_sub(self.opened);
        if age > self.visibility.snapshot_max_age {
            return Err(Error::SnapshotExpired {
                age_s: age.as_secs(),
            });
        }
        Ok(())
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.visibility
            .pins
            .lock()
            .open
            .retain(|pin| pin.id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use rootline_wal::ManualClock;

    use super::*;

    fn visibility() -> (Arc<ManualClock>, Arc<Visibility>) {
        let clock = Arc::new(ManualClock::new());
        (
            Arc::clone(&clock),
            Visibility::new(clock, Duration::from_mins(1)),
        )
    }

    #[test]
    fn the_watermark_waits_for_the_oldest_batch() {
        let (_, v) = visibility();
        v.start_at(Lsn(4));
        v.applied(Lsn(6));
        v.applied(Lsn(7));
        assert_eq!(v.visible(), Lsn(4));
        v.applied(Lsn(5));
        assert_eq!(v.visible(), Lsn(7));
    }

    #[test]
    fn the_floor_is_the_oldest_open_snapshot() {
        let (_, v) = visibility();
        v.start_at(Lsn(1));
        let old = v.pin();
        v.applied(Lsn(2));
        let new = v.pin();
        assert_eq!((old.lsn(), new.lsn(), v.floor()), (Lsn(1), Lsn(2), Lsn(1)));
        drop(old);
        assert_eq!(v.floor(), Lsn(2));
        drop(new);
        v.applied(Lsn(3));
        assert_eq!(v.floor(), Lsn(3));
    }

    #[test]
    fn an_expired_snapshot_refuses_before_it_frees_the_floor() {
        let (clock, v) = visibility();
        v.start_at(Lsn(1));
        let old = v.pin();
        v.applied(Lsn(2));
        clock.advance(Duration::from_secs(61));
        assert!(matches!(
            old.check_age(),
            Err(Error::SnapshotExpired { age_s: 61 })
        ));
        assert_eq!(v.floor(), Lsn(1));
        clock.advance(EXPIRY_GRACE);
        assert_eq!(v.floor(), Lsn(2));
    }

    #[test]
    fn waiters_learn_of_a_batch_that_could_not_be_applied() {
        let (_, v) = visibility();
        std::thread::scope(|s| {
            let waiter = s.spawn(|| v.wait(Lsn(1)));
            v.fail();
            assert!(matches!(waiter.join().unwrap(), Err(Error::Closed { .. })));
        });
    }
}
