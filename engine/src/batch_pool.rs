//! Room of batches that were written, for the next ones: a busy node's batches are some hundred
//! kilobytes each, which the allocator would fetch from the system and give back for every request.
//!
//! Bounded in number and size, and charged to the memory budget while it waits here.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::{
    batch::WriteBatch,
    budget::{Budget, Holder, Reservation},
};

/// Batches kept: about as many as a node decodes at once.
const BATCHES_MAX: usize = 8;

/// A batch that grew beyond this was an exception: its room goes back.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// See the module's doc.
#[derive(Debug)]
pub(crate) struct BatchPool {
    budget: Arc<Budget>,
    batches: Mutex<Vec<(WriteBatch<'static>, Reservation)>>,
}

impl BatchPool {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self {
            budget,
            batches: Mutex::default(),
        }
    }

    /// Room of an earlier batch, if there is any.
    pub(crate) fn take<'a>(&self) -> Option<WriteBatch<'a>> {
        let (batch, _reservation) = self.batches.lock().pop()?;
        Some(batch)
    }

    /// Keeps a batch's room if it is worth it and the budget has place for it.
    pub(crate) fn put(&self, batch: WriteBatch<'_>) {
        let bytes = batch.heap_bytes();
        // A store that is short of memory keeps none of it idle.
        let is_short = self.budget.used_bytes() > self.budget.limit_bytes() / 2;
        if is_short || bytes > BATCH_BYTES_MAX || self.batches.lock().len() >= BATCHES_MAX {
            return;
        }
        if let Ok(reservation) = self.budget.reserve(Holder::Buffers, bytes as u64) {
            self.batches.lock().push((batch.recycle(), reservation));
        }
    }
}
