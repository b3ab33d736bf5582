//! Sets of rows that are found group by group, in rising order: plain bits of 65,536 rows at a time,
//! then a bitmap of all.

use roaring::RoaringBitmap;

use super::block::GROUP_ROWS;
use crate::column::kernel::{Kernel, Op};

/// Words of bits for the rows of a group.
pub(super) const GROUP_WORDS: usize = GROUP_ROWS as usize / 64;
/// Rows whose bits are held at a time: a container of the bitmap.
const HELD_ROWS: u32 = 1 << 16;
const HELD_WORDS: usize = HELD_ROWS as usize / 64;
const HELD_GROUPS: u32 = HELD_ROWS / GROUP_ROWS;

/// Which rows of a group: bit `i % 64` of word `i / 64` for row `i` of it.
pub(super) type GroupMask = [u64; GROUP_WORDS];

/// A set that is being built.
#[derive(Debug)]
pub(super) struct RowSetBuilder {
    words: Vec<u64>,
    /// Which 65,536 rows the words are of.
    held: u32,
    any: bool,
    rows: RoaringBitmap,
}

impl RowSetBuilder {
    pub(super) fn new() -> Self {
        Self {
            words: vec![0; HELD_WORDS],
            held: 0,
            any: false,
            rows: RoaringBitmap::new(),
        }
    }

    /// Adds rows of a group; groups do not fall.
    pub(super) fn add(&mut self, group: u32, mask: &GroupMask) {
        if mask.iter().all(|&word| word == 0) {
            return;
        }
        let held = group / HELD_GROUPS;
        if held != self.held {
            self.flush();
            self.held = held;
        }
        self.any = true;
        let first = (group % HELD_GROUPS) as usize * GROUP_WORDS;
        for (word, more) in self.words.iter_mut().skip(first).zip(mask) {
            *word |= more;
        }
    }

    fn flush(&mut self) {
        if !std::mem::take(&mut self.any) {
            return;
        }
        let count: u32 = self.words.iter().map(|word| word.count_ones()).sum();
        let first = self.held * HELD_ROWS;
        if count < 256 {
            for (word, at) in self.words.iter_mut().zip((first..).step_by(64)) {
                while *word != 0 {
                    self.rows.insert(at + word.trailing_zeros());
                    *word &= *word - 1;
                }
            }
            return;
        }
        let bytes: Vec<u8> = self
            .words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        self.rows |= RoaringBitmap::from_lsb0_bytes(first, &bytes);
        self.words.fill(0);
    }

    /// The set.
    pub(super) fn finish(mut self) -> RoaringBitmap {
        self.flush();
        self.rows
    }
}

/// Which of the values of a group are right.
pub(super) fn mask_where<T: Copy>(values: &[T], right: impl Fn(T) -> bool) -> GroupMask {
    Kernel::best().run(Compare { values, right })
}

/// Compares up to a group of values, first into a byte each, then into bits: both are done in vectors.
struct Compare<'a, T, R> {
    values: &'a [T],
    right: R,
}

impl<T: Copy, R: Fn(T) -> bool> Op for Compare<'_, T, R> {
    type Answer = GroupMask;

    #[expect(clippy::inline_always, reason = "as the trait asks")]
    #[inline(always)]
    fn run(self) -> GroupMask {
        let mut flags = [0u8; GROUP_ROWS as usize];
        for (flag, &value) in flags.iter_mut().zip(self.values) {
            *flag = u8::from((self.right)(value));
        }
        let mut mask = [0u64; GROUP_WORDS];
        for (word, flags) in mask.iter_mut().zip(flags.as_chunks::<64>().0) {
            for (eight, at) in flags.as_chunks::<8>().0.iter().zip((0..).step_by(8)) {
                // Gathers the low bits of eight bytes in the highest byte.
                let bits = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
                *word |= bits << at;
            }
        }
        mask
    }
}

/// The bits of those rows of a group that lie in a range of rows.
pub(super) fn mask_of_range(group: u32, rows: &std::ops::Range<u32>) -> GroupMask {
    let mut mask = [0u64; GROUP_WORDS];
    let first = group.saturating_mul(GROUP_ROWS);
    for (word, at) in mask.iter_mut().zip((first..).step_by(64)) {
        let from = rows.start.saturating_sub(at).min(64);
        let to = rows.end.saturating_sub(at).min(64);
        let below = |bits: u32| {
            if bits == 64 {
                u64::MAX
            } else {
                (1u64 << bits) - 1
            }
        };
        *word = below(to) & !below(from.min(to));
    }
    mask
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_put_in_is_there(
            mut rows in prop::collection::vec(0..300_000u32, 0..600),
            dense in 0..3_000u32,
        ) {
            rows.extend((0..dense).map(|i| 66_000 + i * 2));
            let right: RoaringBitmap = rows.iter().copied().collect();
            let mut set = RowSetBuilder::new();
            for group in 0..=300_000 / GROUP_ROWS {
                let mut mask = [0; GROUP_WORDS];
                for row in right.range(group * GROUP_ROWS..(group + 1) * GROUP_ROWS) {
                    let row = (row % GROUP_ROWS) as usize;
                    mask[row / 64] |= 1 << (row % 64);
                }
                set.add(group, &mask);
            }
            prop_assert_eq!(set.finish(), right);
        }

        #[test]
        fn values_are_compared_one_by_one(
            values in prop::collection::vec(0..9u32, 0..=GROUP_ROWS as usize),
            wanted in 0..9u32,
        ) {
            let mask = mask_where(&values, |value| value == wanted);
            for row in 0..GROUP_ROWS as usize {
                let is_in = mask[row / 64] >> (row % 64) & 1 == 1;
                prop_assert_eq!(is_in, values.get(row) == Some(&wanted));
            }
        }

        #[test]
        fn ranges_are_cut_to_a_group(group in 0..4u32, start in 0..5_000u32, length in 0..5_000u32) {
            let rows = start..start + length;
            let mask = mask_of_range(group, &rows);
            for row in 0..GROUP_ROWS {
                let is_in = mask[row as usize / 64] >> (row % 64) & 1 == 1;
                prop_assert_eq!(is_in, rows.contains(&(group * GROUP_ROWS + row)));
            }
        }
    }
}
