//! Sets of items that are found in rising order: bits of 65,536 items at a time, then a bitmap of all.

#![expect(
    clippy::indexing_slicing,
    reason = "an index is the low half of an item's number, and there is a bit for each"
)]

use roaring::RoaringBitmap;

const WORDS: usize = 1024;
/// Items whose bits are held at a time: a container of the bitmap.
const HELD: u32 = 65_536;

/// A set that is being built. Items may come again, but not below the held ones.
#[derive(Debug)]
pub(super) struct ItemSet {
    base: u32,
    any: bool,
    words: Vec<u64>,
    bytes: Vec<u8>,
    done: RoaringBitmap,
}

impl ItemSet {
    pub(super) fn new() -> Self {
        Self {
            base: 0,
            any: false,
            words: vec![0; WORDS],
            bytes: Vec::new(),
            done: RoaringBitmap::new(),
        }
    }

    /// Adds an item.
    #[inline]
    pub(super) fn insert(&mut self, item: u32) {
        if item & !(HELD - 1) != self.base {
            self.flush();
            self.base = item & !(HELD - 1);
        }
        let bit = (item & (HELD - 1)) as usize;
        self.words[bit / 64] |= 1 << (bit % 64);
        self.any = true;
    }

    fn flush(&mut self) {
        if !self.any {
            return;
        }
        self.any = false;
        let count: u32 = self.words.iter().map(|word| word.count_ones()).sum();
        if count <= 64 {
            // A few are cheaper one by one.
            for (at, word) in (0u32..).zip(&mut self.words) {
                while *word != 0 {
                    self.done
                        .insert(self.base + at * 64 + word.trailing_zeros());
                    *word &= *word - 1;
                }
            }
            return;
        }
        self.bytes.clear();
        for word in &mut self.words {
            self.bytes.extend_from_slice(&word.to_le_bytes());
            *word = 0;
        }
        self.done |= RoaringBitmap::from_lsb0_bytes(self.base, &self.bytes);
    }

    /// The set.
    pub(super) fn finish(mut self) -> RoaringBitmap {
        self.flush();
        self.done
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_put_in_is_there(
            mut items in prop::collection::vec(prop_oneof![0..200_000u32, any::<u32>()], 0..400),
            dense in 0..4_000u32,
        ) {
            items.extend((0..dense).map(|i| 130_000 + i * 3));
            items.sort_unstable();
            let mut set = ItemSet::new();
            for &item in &items {
                set.insert(item);
            }
            let expected: RoaringBitmap = items.into_iter().collect();
            prop_assert_eq!(set.finish(), expected);
        }
    }
}
