//! A hash table of row numbers in stripes, so that growth moves a small part at a time.
//!
//! Rows are compared where they stand, never stored twice. A hash has 32 useful bits; they stand beside
//! the row, so that one place in memory decides nearly every search, and growth looks at no row.
//!
//! Invariants
//! - A slot is 0 (free), or the 32 bits of a hash above the row + 1.
//! - From a row's home, the slot its hash leads to, to where it stands there is no free slot. Homes rise
//!   with the hash, so growth walks old and new slots in order.
//! - A stripe has a free slot, if it has any.
#![expect(
    clippy::indexing_slicing,
    reason = "slots are found by `home` and `next`, which stay below their number"
)]

const STRIPES: usize = 32;
const STRIPE_BITS: u32 = STRIPES.trailing_zeros();
/// Slots of a stripe's first allocation.
const FIRST_SLOTS: usize = 4;

/// The table.
#[derive(Debug)]
pub(crate) struct Stripes {
    stripes: [Stripe; STRIPES],
    held_bytes: usize,
}

#[derive(Debug, Default)]
struct Stripe {
    slots: Vec<u64>,
    rows: usize,
}

impl Default for Stripes {
    fn default() -> Self {
        Self {
            stripes: std::array::from_fn(|_| Stripe::default()),
            held_bytes: 0,
        }
    }
}

/// Spreads 32 useful bits over 64.
#[inline]
fn mix(half: u64) -> u64 {
    half.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[inline]
fn useful(hash: u64) -> u64 {
    hash & u64::from(u32::MAX)
}

#[inline]
fn stripe(mixed: u64) -> usize {
    (mixed >> (u64::BITS - STRIPE_BITS)) as usize
}

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "a slot's low half is its row + 1"
)]
fn row_of(slot: u64) -> u32 {
    (slot as u32).wrapping_sub(1)
}

impl Stripe {
    /// Where a search begins: a share of the slots as large as what the hash is of all hashes.
    #[inline]
    fn home(mixed: u64, slots: usize) -> usize {
        let share = (mixed << STRIPE_BITS) >> 32;
        ((share * slots as u64) >> 32) as usize
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() {
            0
        } else {
            at + 1
        }
    }

    /// The slot of the row with these useful bits for which `is_it` holds.
    #[inline]
    fn find(&self, half: u64, mixed: u64, is_it: impl Fn(u32) -> bool) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = Self::home(mixed, self.slots.len());
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return None;
            }
            if slot >> 32 == half && is_it(row_of(slot)) {
                return Some(at);
            }
            at = self.next(at);
        }
    }

    #[inline]
    fn insert(&mut self, slot: u64) {
        let mut at = Self::home(mix(slot >> 32), self.slots.len());
        while self.slots[at] != 0 {
            at = self.next(at);
        }
        self.slots[at] = slot;
    }

    #[cold]
    fn grow(&mut self) {
        // By half: with a factor of two, a third of the slots would be wasted on average.
        let slots = (self.slots.len() + self.slots.len() / 2).max(FIRST_SLOTS);
        let old = std::mem::replace(&mut self.slots, vec![0; slots]);
        for slot in old.into_iter().filter(|&slot| slot != 0) {
            self.insert(slot);
        }
    }

    fn remove(&mut self, mut free: usize) {
        let slots = self.slots.len();
        let mut at = free;
        loop {
            at = self.next(at);
            let slot = self.slots[at];
            if slot == 0 {
                break;
            }
            // A row may move back no further than its home.
            let home = Self::home(mix(slot >> 32), slots);
            let from_home = (at + slots - home) % slots;
            let from_free = (at + slots - free) % slots;
            if from_home >= from_free {
                self.slots[free] = slot;
                free = at;
            }
        }
        self.slots[free] = 0;
        self.rows -= 1;
    }
}

impl Stripes {
    /// The row with this hash for which `is_it` holds.
    #[inline]
    pub(crate) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let (half, mixed) = (useful(hash), mix(useful(hash)));
        let stripe = &self.stripes[stripe(mixed)];
        let at = stripe.find(half, mixed, is_it)?;
        Some(row_of(stripe.slots[at]))
    }

    /// A row that may be the one with this hash, by nothing but the table. Looking for many rows one
    /// after the other before they are needed has the processor fetch their slots side by side.
    #[inline]
    pub(crate) fn candidate(&self, hash: u64) -> Option<u32> {
        self.find(hash, |_| true)
    }

    /// Puts `row` in the place of the row with this hash for which `is_it` holds; returns that one.
    #[inline]
    pub(crate) fn replace(
        &mut self,
        hash: u64,
        row: u32,
        is_it: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let (half, mixed) = (useful(hash), mix(useful(hash)));
        let stripe = &mut self.stripes[stripe(mixed)];
        let at = stripe.find(half, mixed, is_it)?;
        let before = row_of(stripe.slots[at]);
        stripe.slots[at] = half << 32 | (u64::from(row) + 1);
        Some(before)
    }

    /// Adds a row that is not there.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u64, row: u32) {
        let (half, mixed) = (useful(hash), mix(useful(hash)));
        let stripe = &mut self.stripes[stripe(mixed)];
        let slots = stripe.slots.len();
        if stripe.rows >= slots - slots.div_ceil(5) {
            stripe.grow();
            self.held_bytes += (stripe.slots.len() - slots) * size_of::<u64>();
        }
        stripe.insert(half << 32 | (u64::from(row) + 1));
        stripe.rows += 1;
    }

    /// Takes out the row with this hash for which `is_it` holds.
    #[inline]
    pub(crate) fn remove(&mut self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let (half, mixed) = (useful(hash), mix(useful(hash)));
        let stripe = &mut self.stripes[stripe(mixed)];
        let at = stripe.find(half, mixed, is_it)?;
        let row = row_of(stripe.slots[at]);
        stripe.remove(at);
        Some(row)
    }

    /// Bytes held.
    #[inline]
    pub(crate) fn heap_bytes(&self) -> usize {
        self.held_bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_are_found_until_removed() {
        let mut table = Stripes::default();
        let hash = |row: u32| u64::from(row.wrapping_mul(2_654_435_761));
        for row in 0..10_000 {
            table.insert(hash(row), row);
        }
        for row in 0..10_000 {
            assert_eq!(table.find(hash(row), |r| r == row), Some(row));
        }
        assert_eq!(table.remove(hash(7), |r| r == 7), Some(7));
        assert_eq!(table.find(hash(7), |r| r == 7), None);
        assert!((80_000..160_000).contains(&table.heap_bytes()));
    }

    proptest! {
        /// Few distinct hashes, so that searches run into each other and over the end.
        #[test]
        fn a_table_is_a_map(
            steps in prop::collection::vec((0u8..4, 0u64..24, 0u32..64), 0..400),
            low in prop_oneof![Just(0u64), Just(u64::from(u32::MAX) - 30)],
        ) {
            let mut table = Stripes::default();
            let mut twin: HashMap<u32, u64> = HashMap::new();
            for (what, hash, row) in steps {
                let hash = hash + low;
                let known = twin.get(&row) == Some(&hash);
                match what {
                    0 | 1 => {
                        if let std::collections::hash_map::Entry::Vacant(free) = twin.entry(row) {
                            free.insert(hash);
                            table.insert(hash, row);
                        }
                    }
                    2 => {
                        prop_assert_eq!(table.remove(hash, |r| r == row), known.then_some(row));
                        if known {
                            twin.remove(&row);
                        }
                    }
                    _ => {
                        let new = row + 1000;
                        prop_assert_eq!(table.replace(hash, new, |r| r == row), known.then_some(row));
                        if known {
                            prop_assert_eq!(table.replace(hash, row, |r| r == new), Some(new));
                        }
                    }
                }
                for (&row, &hash) in &twin {
                    prop_assert_eq!(table.find(hash, |r| r == row), Some(row));
                }
            }
            let rows: usize = table.stripes.iter().map(|stripe| stripe.rows).sum();
            prop_assert_eq!(rows, twin.len());
        }
    }
}
