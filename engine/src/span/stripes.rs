//! A hash table of row numbers in stripes, so that growth moves a small part at a time.
//!
//! Rows are compared where they stand, never stored twice. Hashes have 32 useful bits: that is what
//! callers keep or can compute again at growth.

use hashbrown::HashTable;

const STRIPES: usize = 32;

/// The table.
#[derive(Debug)]
pub(crate) struct Stripes {
    stripes: [HashTable<u32>; STRIPES],
    held_bytes: usize,
}

impl Default for Stripes {
    fn default() -> Self {
        Self {
            stripes: std::array::from_fn(|_| HashTable::new()),
            held_bytes: 0,
        }
    }
}

/// Spreads 32 useful bits over the 64 that the table looks at.
#[inline]
fn mix(hash: u64) -> u64 {
    (hash & u64::from(u32::MAX))
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .rotate_left(20)
}

#[inline]
fn stripe(hash: u64) -> usize {
    // Bits that neither the place in a stripe (lowest) nor its tag (highest) uses.
    (hash >> 40) as usize % STRIPES
}

impl Stripes {
    /// The row with this hash for which `is_it` holds.
    #[inline]
    pub(crate) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let hash = mix(hash);
        self.stripes
            .get(stripe(hash))?
            .find(hash, |&row| is_it(row))
            .copied()
    }

    /// The place of the row with this hash for which `is_it` holds, to change it.
    #[inline]
    pub(crate) fn find_mut(&mut self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<&mut u32> {
        let hash = mix(hash);
        self.stripes
            .get_mut(stripe(hash))?
            .find_mut(hash, |&row| is_it(row))
    }

    /// Adds a row that is not there. `rehash` gives the hash of any row of the table.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u64, row: u32, rehash: impl Fn(u32) -> u64) {
        let hash = mix(hash);
        if let Some(table) = self.stripes.get_mut(stripe(hash)) {
            let before = table.capacity();
            table.insert_unique(hash, row, |&row| mix(rehash(row)));
            let after = table.capacity();
            if after != before {
                // Slots are filled to 7/8; each has a byte of control.
                self.held_bytes += (after - before) * 8 / 7 * (size_of::<u32>() + 1);
            }
        }
    }

    /// Takes out the row with this hash for which `is_it` holds.
    #[inline]
    pub(crate) fn remove(&mut self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let hash = mix(hash);
        let table = self.stripes.get_mut(stripe(hash))?;
        table
            .find_entry(hash, |&row| is_it(row))
            .ok()
            .map(|found| found.remove().0)
    }

    /// Bytes held.
    #[inline]
    pub(crate) fn heap_bytes(&self) -> usize {
        self.held_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_until_removed() {
        let mut table = Stripes::default();
        let hash = |row: u32| u64::from(row.wrapping_mul(2_654_435_761));
        for row in 0..10_000 {
            table.insert(hash(row), row, hash);
        }
        for row in 0..10_000 {
            assert_eq!(table.find(hash(row), |r| r == row), Some(row));
        }
        assert_eq!(table.remove(hash(7), |r| r == 7), Some(7));
        assert_eq!(table.find(hash(7), |r| r == 7), None);
        assert!(table.heap_bytes() >= 50_000);
    }
}
