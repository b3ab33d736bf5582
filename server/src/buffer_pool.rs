//! Buffers that bodies are decompressed into, kept for the next ones.
//!
//! A busy sender's bodies are about a megabyte each once decompressed. Fetched anew for every
//! request, that megabyte is taken from the system, cleared and given back; kept, its bytes are
//! simply written over.
//!
//! Bounded in number and size, and charged to the memory budget while it waits here.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rootline_engine::{Budget, Holder, Reservation};

/// Buffers kept: about as many as a node decodes at once.
const BUFFERS_MAX: usize = 4;
/// A buffer that grew beyond this was an exception: its room goes back.
const BUFFER_BYTES_MAX: usize = 4 << 20;

/// See the module's doc.
#[derive(Debug)]
pub struct BufferPool {
    budget: Arc<Budget>,
    buffers: Mutex<Vec<(Vec<u8>, Reservation)>>,
}

/// A buffer on loan. Its first `len` bytes are what was asked for; dropping it, or
/// the [`Bytes`] made of it, gives it back.
#[derive(Debug)]
pub struct Buffer {
    pool: Arc<BufferPool>,
    bytes: Vec<u8>,
    len: usize,
}

impl BufferPool {
    /// An empty pool that charges `budget`.
    pub fn new(budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self {
            budget,
            buffers: Mutex::default(),
        })
    }

    /// A buffer of `len` bytes, whatever they hold. The caller has reserved them.
    pub fn take(self: &Arc<Self>, len: usize) -> Buffer {
        let kept = self.buffers.lock().pop();
        let mut bytes = kept.map(|(bytes, _reservation)| bytes).unwrap_or_default();
        if bytes.len() < len {
            // Nothing of the old content is worth copying.
            bytes.clear();
            bytes.resize(len, 0);
        }
        Buffer {
            pool: Arc::clone(self),
            bytes,
            len,
        }
    }

    fn put(&self, bytes: Vec<u8>) {
        // A node that is short of memory keeps none of it idle.
        let is_short = self.budget.used_bytes() > self.budget.limit_bytes() / 2;
        let capacity = bytes.capacity();
        if is_short || capacity > BUFFER_BYTES_MAX || self.buffers.lock().len() >= BUFFERS_MAX {
            return;
        }
        if let Ok(reservation) = self.budget.reserve(Holder::Buffers, capacity as u64) {
            self.buffers.lock().push((bytes, reservation));
        }
    }
}

impl Buffer {
    /// Bytes that it holds in memory, at least those asked for.
    pub fn capacity_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// The bytes asked for.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or_default()
    }

    /// The same bytes, shared; the buffer goes back with the last handle.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_last_handle_is_dropped() {
        let budget = Budget::new(1 << 20);
        let pool = BufferPool::new(Arc::clone(&budget));
        let mut buffer = pool.take(1000);
        buffer.bytes_mut().fill(7);
        let bytes = buffer.freeze();
        let clone = bytes.clone();
        drop(bytes);
        assert_eq!((budget.used_bytes(), clone.len(), clone[999]), (0, 1000, 7));
        drop(clone);
        assert!(budget.held_bytes(Holder::Buffers) >= 1000);
        let smaller = pool.take(10);
        assert_eq!(smaller.as_ref().len(), 10);
        assert!(smaller.capacity_bytes() >= 1000);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn no_buffer_is_kept_when_memory_is_short_or_it_is_huge() {
        let budget = Budget::new(16 << 20);
        let pool = BufferPool::new(Arc::clone(&budget));
        drop(pool.take(BUFFER_BYTES_MAX + 1));
        assert_eq!(budget.used_bytes(), 0);
        let held = budget.reserve(Holder::Queries, 9 << 20).unwrap();
        drop(pool.take(1000));
        assert_eq!(budget.used_bytes(), held.bytes());
    }
}
