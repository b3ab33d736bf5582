//! Memory that a query holds while it computes, booked on the store's budget.

use std::sync::Arc;

use rootline_engine::{Budget, Holder, Reservation};

use crate::error::Error;

/// Smallest step in which a query books memory, so that small pieces do not each touch the ledger.
const STEP_BYTES: u64 = 64 * 1024;

/// What one query may hold. Books in steps, nothing before it is needed; gives everything back when
/// dropped.
#[derive(Debug)]
pub struct Memory {
    budget: Arc<Budget>,
    reservation: Option<Reservation>,
    used_bytes: u64,
}

impl Memory {
    /// An empty account. Even with a full budget there is one: a question that holds next to nothing, or
    /// a delete that makes room, has to pass.
    pub fn new(budget: &Arc<Budget>) -> Self {
        Self {
            budget: Arc::clone(budget),
            reservation: None,
            used_bytes: 0,
        }
    }

    /// Books `bytes` more.
    ///
    /// # Errors
    /// [`rootline_engine::Error::MemoryFull`]: the query ends, nothing else is harmed.
    pub fn take(&mut self, bytes: u64) -> Result<(), Error> {
        self.used_bytes = self.used_bytes.saturating_add(bytes);
        let held = self.reservation.as_ref().map_or(0, Reservation::bytes);
        let missing = self.used_bytes.saturating_sub(held);
        if missing > 0 {
            let step = missing.max(STEP_BYTES);
            match &mut self.reservation {
                Some(reservation) => reservation.grow(step)?,
                none => *none = Some(self.budget.reserve(Holder::Queries, step)?),
            }
        }
        Ok(())
    }

    /// Books what `vec` will grow by if `more` items are added to it now.
    ///
    /// # Errors
    /// As [`Memory::take`].
    pub fn take_growth<T>(&mut self, vec: &mut Vec<T>, more: usize) -> Result<(), Error> {
        if vec.capacity() - vec.len() < more {
            let before = vec.capacity();
            // Doubling is what `Vec` would do; booked before it is allocated.
            let added = more.max(before).max(16);
            self.take((added * size_of::<T>()) as u64)?;
            vec.reserve_exact(before - vec.len() + added);
        }
        Ok(())
    }

    /// Gives back `bytes` that were taken and are free again.
    pub fn give_back(&mut self, bytes: u64) {
        self.used_bytes = self.used_bytes.saturating_sub(bytes);
        // One step is kept: the next piece needs it.
        if let Some(reservation) = &mut self.reservation {
            reservation.shrink_to(self.used_bytes + STEP_BYTES);
        }
    }

    /// Bytes in use.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_query_holds_stands_in_the_budget_until_it_ends() {
        let budget = Budget::new(1 << 20);
        let mut memory = Memory::new(&budget);
        memory.take(10).unwrap();
        assert_eq!(budget.held_bytes(Holder::Queries), STEP_BYTES);
        memory.take(200_000).unwrap();
        assert!(budget.held_bytes(Holder::Queries) >= 200_010);
        memory.give_back(200_000);
        assert!(budget.held_bytes(Holder::Queries) <= 2 * STEP_BYTES);
        drop(memory);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn a_full_budget_refuses_bytes_but_not_the_account() {
        let budget = Budget::new(10);
        budget.charge(Holder::MetricHead, 20);
        let mut memory = Memory::new(&budget);
        memory.take(0).unwrap();
        assert!(memory.take(1).is_err());
    }

    #[test]
    fn a_query_past_the_budget_is_refused() {
        let budget = Budget::new(100_000);
        let mut memory = Memory::new(&budget);
        let mut values: Vec<f64> = Vec::new();
        let refused = (0..100_000).try_for_each(|i| {
            memory.take_growth(&mut values, 1)?;
            values.push(f64::from(i));
            Ok::<_, Error>(())
        });
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), rootline_engine::ErrorKind::Retry);
        assert!(values.capacity() * 8 <= 100_000);
    }
}
