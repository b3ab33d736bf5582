//! The memory budget: one ledger that owns all bytes.
//!
//! Requests in flight, heads and queries reserve here before they allocate. Past the limit a
//! reservation is refused at once with [`Error::MemoryFull`], the transient refusal; a writer may
//! choose to wait while something that will be released stands in the way ([`Budget::wait_below`]).
//! The ledger counts what was reserved, not what the allocator holds; heads charge capacities.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use crate::error::Error;

/// Who holds bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holder {
    /// Bodies being received, decompressed and decoded.
    Requests,
    /// Records encoded but not yet applied.
    Log,
    /// Series, chunks and their index.
    MetricHead,
    /// Spans and their index.
    SpanHead,
    /// Answers being computed or sent.
    Queries,
    /// Room of written batches, kept for the next ones.
    Buffers,
    /// What is known of open blocks.
    Blocks,
    /// Blocks being written, of what is sealed or of other blocks.
    Sealing,
}

const HOLDERS: usize = 8;

/// Sealing gives back enough to wait for if a head holds this share of the limit.
const WORTH_SEALING: u64 = 16;

/// The ledger. Shared by `Arc`; all methods may be called from any thread.
#[derive(Debug)]
pub struct Budget {
    limit_bytes: u64,
    used_bytes: AtomicU64,
    by_holder: [AtomicU64; HOLDERS],
    /// Sealing works, so what heads hold will be given back.
    seals: AtomicBool,
    waiters: Mutex<()>,
    released: Condvar,
}

impl Budget {
    /// A ledger over `limit_bytes`.
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes,
            used_bytes: AtomicU64::new(0),
            by_holder: Default::default(),
            seals: AtomicBool::new(false),
            waiters: Mutex::new(()),
            released: Condvar::new(),
        })
    }

    /// The limit.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Bytes reserved now.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Bytes reserved now by one holder.
    pub fn held_bytes(&self, holder: Holder) -> u64 {
        self.counter(holder).load(Ordering::Relaxed)
    }

    /// Reserves `bytes` until the reservation is dropped.
    ///
    /// # Errors
    /// [`Error::MemoryFull`] if the limit would be passed.
    pub fn reserve(self: &Arc<Self>, holder: Holder, bytes: u64) -> Result<Reservation, Error> {
        let mut reservation = Reservation {
            budget: Arc::clone(self),
            holder,
            bytes: 0,
        };
        reservation.grow(bytes)?;
        Ok(reservation)
    }

    /// Holds `bytes` until the reservation is dropped, limit or not: for what makes room in the end.
    /// See [`charge`](Self::charge).
    pub(crate) fn charged(self: &Arc<Self>, holder: Holder, bytes: u64) -> Reservation {
        self.charge(holder, bytes);
        Reservation {
            budget: Arc::clone(self),
            holder,
            bytes,
        }
    }

    /// Charges bytes that are already allocated (a head that grew), limit or not: what is
    /// acknowledged must be applied. The next reservation is refused instead.
    pub fn charge(&self, holder: Holder, bytes: u64) {
        self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.counter(holder).fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives charged bytes back.
    pub fn release(&self, holder: Holder, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.counter(holder).fetch_sub(bytes, Ordering::Relaxed);
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
        drop(self.waiters.lock());
        self.released.notify_all();
    }

    /// Says whether heads are being sealed when memory gets short, so that waiting for them
    /// makes sense.
    pub(crate) fn set_seals(&self, seals: bool) {
        self.seals.store(seals, Ordering::Relaxed);
    }

    /// Whether a head holds so much that sealing it is worth while.
    pub(crate) fn is_worth_sealing(&self, head_bytes: u64) -> bool {
        head_bytes >= self.limit_bytes / WORTH_SEALING
    }

    /// Waits at most `timeout` until less than `percent` of the limit is used, as long as requests,
    /// queries or a head that is being sealed hold enough that their end can bring it there. Returns
    /// whether it is.
    pub fn wait_below(&self, percent: u64, timeout: Duration) -> bool {
        let bound = self.limit_bytes / 100 * percent;
        let passing = || {
            [
                Holder::Requests,
                Holder::Log,
                Holder::Queries,
                Holder::Sealing,
            ]
            .into_iter()
            .map(|h| self.held_bytes(h))
            .sum::<u64>()
                + self.sealable_bytes()
        };
        let mut guard = self.waiters.lock();
        let mut left = timeout;
        loop {
            let used = self.used_bytes();
            if used < bound {
                return true;
            }
            if left.is_zero() || used.saturating_sub(passing()) >= bound {
                return false;
            }
            // Short turns instead of a deadline: the ledger needs no clock of its own.
            let turn = left.min(Duration::from_millis(20));
            self.released.wait_for(&mut guard, turn);
            left = left.saturating_sub(turn);
        }
    }

    fn sealable_bytes(&self) -> u64 {
        if !self.seals.load(Ordering::Relaxed) {
            return 0;
        }
        let heads = [Holder::MetricHead, Holder::SpanHead].into_iter();
        let held = heads.map(|head| self.held_bytes(head));
        held.filter(|bytes| self.is_worth_sealing(*bytes)).sum()
    }

    fn try_take(&self, holder: Holder, bytes: u64) -> Result<(), Error> {
        // A delete wants nothing and makes room: it passes even where charges went past the limit.
        if bytes == 0 {
            return Ok(());
        }
        let taken = self
            .used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes)
                    .filter(|&sum| sum <= self.limit_bytes)
            });
        match taken {
            Ok(_) => {
                self.counter(holder).fetch_add(bytes, Ordering::Relaxed);
                Ok(())
            }
            Err(used_bytes) => Err(Error::MemoryFull {
                used_bytes,
                limit_bytes: self.limit_bytes,
                wanted_bytes: bytes,
            }),
        }
    }

    fn counter(&self, holder: Holder) -> &AtomicU64 {
        let [
            requests,
            log,
            metric_head,
            span_head,
            queries,
            buffers,
            blocks,
            sealing,
        ] = &self.by_holder;
        match holder {
            Holder::Requests => requests,
            Holder::Log => log,
            Holder::MetricHead => metric_head,
            Holder::SpanHead => span_head,
            Holder::Queries => queries,
            Holder::Buffers => buffers,
            Holder::Blocks => blocks,
            Holder::Sealing => sealing,
        }
    }
}

/// Bytes held until dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    holder: Holder,
    bytes: u64,
}

impl Reservation {
    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Holds `bytes` more.
    ///
    /// # Errors
    /// [`Error::MemoryFull`]; what was held stays held.
    pub fn grow(&mut self, bytes: u64) -> Result<(), Error> {
        self.budget.try_take(self.holder, bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Holds `bytes` from now on, limit or not.
    pub(crate) fn set(&mut self, bytes: u64) {
        if bytes > self.bytes {
            self.budget.charge(self.holder, bytes - self.bytes);
            self.bytes = bytes;
        } else {
            self.shrink_to(bytes);
        }
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let spare = self.bytes.saturating_sub(bytes);
        self.bytes -= spare;
        self.budget.release(self.holder, spare);
    }
}

/// Bytes that are charged whatever the limit says, and given back on drop.
#[derive(Debug)]
pub(crate) struct Charge<'b> {
    budget: &'b Budget,
    holder: Holder,
    bytes: u64,
}

impl<'b> Charge<'b> {
    pub(crate) fn new(budget: &'b Budget, holder: Holder) -> Self {
        Self {
            budget,
            holder,
            bytes: 0,
        }
    }

    /// Holds so many bytes now.
    pub(crate) fn set(&mut self, bytes: u64) {
        if bytes >= self.bytes {
            self.budget.charge(self.holder, bytes - self.bytes);
        } else {
            self.budget.release(self.holder, self.bytes - bytes);
        }
        self.bytes = bytes;
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.release(self.holder, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_wants_nothing_is_not_refused_past_the_limit() {
        let budget = Budget::new(100);
        budget.charge(Holder::MetricHead, 150);
        assert!(budget.reserve(Holder::Log, 1).is_err());
        assert_eq!(budget.reserve(Holder::Log, 0).unwrap().bytes(), 0);
    }

    #[test]
    fn a_reservation_past_the_limit_is_refused_and_changes_nothing() {
        let budget = Budget::new(100);
        let held = budget.reserve(Holder::Requests, 60).unwrap();
        let refused = budget.reserve(Holder::Queries, 41);
        assert!(matches!(
            refused,
            Err(Error::MemoryFull { used_bytes: 60, .. })
        ));
        assert_eq!(budget.used_bytes(), 60);
        drop(held);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn who_asks_for_nothing_is_not_refused_when_heads_are_past_the_limit() {
        let budget = Budget::new(100);
        budget.charge(Holder::MetricHead, 120);
        assert!(budget.reserve(Holder::Log, 0).is_ok());
        assert!(budget.reserve(Holder::Log, 1).is_err());
    }

    #[test]
    fn what_makes_room_is_counted_and_never_refused() {
        let budget = Budget::new(100);
        let mut held = budget.charged(Holder::Blocks, 90);
        held.set(150);
        assert_eq!(budget.held_bytes(Holder::Blocks), 150);
        assert!(budget.reserve(Holder::Log, 1).is_err());
        held.set(40);
        assert_eq!((held.bytes(), budget.used_bytes()), (40, 40));
        drop(held);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn waiting_is_pointless_when_heads_alone_are_past_the_bound() {
        let budget = Budget::new(100);
        budget.charge(Holder::MetricHead, 90);
        assert!(!budget.wait_below(85, Duration::from_mins(1)));
    }

    #[test]
    fn a_waiter_goes_on_when_a_generation_is_sealed() {
        let budget = Budget::new(100);
        budget.charge(Holder::MetricHead, 90);
        budget.set_seals(true);
        std::thread::scope(|s| {
            let waiter = s.spawn(|| budget.wait_below(85, Duration::from_secs(30)));
            budget.release(Holder::MetricHead, 80);
            assert!(waiter.join().unwrap());
        });
    }

    #[test]
    fn a_waiter_goes_on_when_a_request_ends() {
        let budget = Budget::new(100);
        let held = budget.reserve(Holder::Requests, 90).unwrap();
        std::thread::scope(|s| {
            let waiter = s.spawn(|| budget.wait_below(85, Duration::from_secs(30)));
            drop(held);
            assert!(waiter.join().unwrap());
        });
    }
}
