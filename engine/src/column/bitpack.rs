//! Bit packing of unsigned integers of 0 to 64 bits, in two layouts.
//!
//! - **Group**: exactly [`GROUP_VALUES`] values as [`LANES`] interleaved lanes of 64-bit words. Value
//!   `i` belongs to lane `i % 16`; a lane is a bit stream, low bits first, of its 64 values; word `w`
//!   of all lanes stand beside each other. So one row of 16 values needs the same shifts in every
//!   lane, and a vector of any length unpacks it with shifts and masks alone.
//! - **Run**: any number of values as one stream of bits, low bits first, the last byte filled with
//!   zero bits.
//!
//! Words and bytes are little-endian. Bytes: `docs/formats/integer-column.md`.

//! Unpacking is plain code, `#[inline(always)]`, so that it takes part in the vectors of the `kernel::Op` that
//! calls it. Packing is not: it is a small part of encoding.

#![expect(
    clippy::indexing_slicing,
    reason = "hot loops; rows are counted by the width, which every entry checks against the bytes"
)]
#![expect(
    clippy::inline_always,
    reason = "only what is inlined into an `Op` is compiled for its vectors"
)]

/// Values of a full group.
pub const GROUP_VALUES: usize = 1024;
/// Interleaved bit streams of a full group: two vectors of AVX-512, four of AVX2.
pub const LANES: usize = 16;
/// One word of every lane.
const ROW_BYTES: usize = LANES * size_of::<u64>();
/// The widest value.
pub const WIDTH_MAX: u32 = u64::BITS;

/// Bytes of a full group at `width` bits.
pub const fn group_bytes(width: u32) -> usize {
    width as usize * ROW_BYTES
}

/// Bytes of a run of `count` values at `width` bits.
pub const fn run_bytes(count: usize, width: u32) -> usize {
    (count * width as usize).div_ceil(8)
}

/// The low `width` bits set.
#[inline]
pub const fn mask(width: u32) -> u64 {
    if width == 0 {
        0
    } else {
        u64::MAX >> (WIDTH_MAX - width)
    }
}

/// Appends a full group; bits of a value above `width` are left out.
pub fn pack_group(values: &[u64; GROUP_VALUES], width: u32, out: &mut Vec<u8>) {
    assert!(width <= WIDTH_MAX, "a width is at most 64 bits");
    let mask = mask(width);
    let mut word = [0_u64; LANES];
    let mut filled = 0;
    for row in values.as_chunks::<LANES>().0 {
        for (word, value) in word.iter_mut().zip(row) {
            *word |= (value & mask) << filled;
        }
        filled += width;
        if filled >= WIDTH_MAX {
            for word in word {
                out.extend_from_slice(&word.to_le_bytes());
            }
            filled -= WIDTH_MAX;
            let kept = width - filled;
            for (word, value) in word.iter_mut().zip(row) {
                *word = (value & mask).checked_shr(kept).unwrap_or(0);
            }
        }
    }
}

/// Unpacks a full group and adds `base` to every value, wrapping. `bytes` are exactly those of the
/// group; otherwise nothing is done and `false` comes back.
#[must_use]
#[inline(always)]
pub fn unpack_group(bytes: &[u8], width: u32, base: i64, out: &mut [i64; GROUP_VALUES]) -> bool {
    if width > WIDTH_MAX || bytes.len() != group_bytes(width) {
        return false;
    }
    if width == 0 {
        out.fill(base);
    } else {
        unpack_rows(bytes, width, base, out);
    }
    true
}

/// One word of every lane.
#[inline(always)]
fn load_row(bytes: &[u8; ROW_BYTES]) -> [u64; LANES] {
    let words = bytes.as_chunks::<8>().0;
    std::array::from_fn(|lane| u64::from_le_bytes(words[lane]))
}

/// A row is computed in an array of its own and then stored: the compiler need not wonder whether what is
/// written overlaps what is read, and keeps it in vectors.
#[inline(always)]
fn unpack_rows(bytes: &[u8], width: u32, base: i64, out: &mut [i64; GROUP_VALUES]) {
    let words = bytes.as_chunks::<ROW_BYTES>().0;
    let mask = mask(width);
    let base = base.cast_unsigned();
    let mut bit = 0;
    for row in out.as_chunks_mut::<LANES>().0 {
        let (at, shift) = (bit as usize / 64, bit % 64);
        let mut values = load_row(&words[at]);
        for value in &mut values {
            *value >>= shift;
        }
        if shift + width > WIDTH_MAX {
            let high = load_row(&words[at + 1]);
            for (value, high) in values.iter_mut().zip(high) {
                *value |= high << (WIDTH_MAX - shift);
            }
        }
        *row = values.map(|value| (value & mask).wrapping_add(base).cast_signed());
        bit += width;
    }
}

/// Appends a run; bits of a value above `width` are left out.
pub fn pack_run(values: &[u64], width: u32, out: &mut Vec<u8>) {
    assert!(width <= WIDTH_MAX, "a width is at most 64 bits");
    let mask = mask(width);
    let (mut word, mut filled) = (0_u128, 0_u32);
    let start = out.len();
    for value in values {
        word |= u128::from(value & mask) << filled;
        filled += width;
        if filled >= WIDTH_MAX {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the low word is what is full"
            )]
            out.extend_from_slice(&(word as u64).to_le_bytes());
            word >>= WIDTH_MAX;
            filled -= WIDTH_MAX;
        }
    }
    out.extend_from_slice(&word.to_le_bytes()[..filled.div_ceil(8) as usize]);
    debug_assert_eq!(out.len() - start, run_bytes(values.len(), width));
}

/// Unpacks a run as long as `out` and adds `base` to every value, wrapping. `bytes` are exactly
/// those of the run; otherwise nothing is done and `false` comes back.
#[must_use]
#[inline(always)]
pub fn unpack_run(bytes: &[u8], width: u32, base: i64, out: &mut [i64]) -> bool {
    if width > WIDTH_MAX || bytes.len() != run_bytes(out.len(), width) {
        return false;
    }
    if width == 0 {
        out.fill(base);
        return true;
    }
    if width <= WORD_SAFE_WIDTH {
        unpack_narrow(bytes, width, base, out);
    } else {
        unpack_wide(bytes, width, base, out);
    }
    true
}

/// Eight bytes at the byte where a value of at most so many bits begins hold all of it.
const WORD_SAFE_WIDTH: u32 = WIDTH_MAX - 7;

#[inline(always)]
fn unpack_narrow(bytes: &[u8], width: u32, base: i64, out: &mut [i64]) {
    let (mask, base, width) = (mask(width), base.cast_unsigned(), width as usize);
    // Values that begin eight bytes before the end at the latest; the others lie in the last eight bytes.
    let whole_words = bytes
        .len()
        .checked_sub(8)
        .map_or(0, |last_at| (last_at * 8 / width + 1).min(out.len()));
    let (front, back) = out.split_at_mut(whole_words);
    let mut bit = 0;
    for value in front {
        let word = bytes[bit / 8..]
            .first_chunk::<8>()
            .map_or(0, |word| u64::from_le_bytes(*word));
        *value = ((word >> (bit % 8)) & mask)
            .wrapping_add(base)
            .cast_signed();
        bit += width;
    }
    if back.is_empty() {
        return;
    }
    let (last, last_bit) = match bytes.last_chunk::<8>() {
        Some(last) => (u64::from_le_bytes(*last), (bytes.len() - 8) * 8),
        None => (load_padded(bytes, 0), 0),
    };
    for value in back {
        *value = ((last >> (bit - last_bit)) & mask)
            .wrapping_add(base)
            .cast_signed();
        bit += width;
    }
}

#[inline(always)]
fn unpack_wide(bytes: &[u8], width: u32, base: i64, out: &mut [i64]) {
    let (mask, base, width) = (mask(width), base.cast_unsigned(), width as usize);
    for (i, value) in out.iter_mut().enumerate() {
        let bit = i * width;
        let (at, shift) = (bit / 8, bit % 8);
        let mut word = load_padded(bytes, at) >> shift;
        if shift + width > 64 {
            word |= u64::from(bytes[at + 8]) << (64 - shift);
        }
        *value = (word & mask).wrapping_add(base).cast_signed();
    }
}

/// Eight bytes from `at`, zeros behind the end.
#[inline]
fn load_padded(bytes: &[u8], at: usize) -> u64 {
    let rest = &bytes[at..];
    match rest.first_chunk::<8>() {
        Some(word) => u64::from_le_bytes(*word),
        None => rest
            .iter()
            .rev()
            .fold(0, |word, &byte| word << 8 | u64::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use proptest::prelude::*;

    use super::*;
    use crate::column::kernel::{Kernel, Op};

    /// Any 64 bits, from a seed.
    fn noise(seed: u64) -> [u64; GROUP_VALUES] {
        let mut state = seed | 1;
        std::array::from_fn(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        })
    }

    /// Unpacks a group, or a run of another length.
    struct Unpack<'a> {
        bytes: &'a [u8],
        width: u32,
        base: i64,
        out: &'a mut [i64],
    }

    impl Op for Unpack<'_> {
        type Answer = bool;

        #[inline(always)]
        fn run(self) -> bool {
            match self.out.as_mut_array() {
                Some(out) => unpack_group(self.bytes, self.width, self.base, out),
                None => unpack_run(self.bytes, self.width, self.base, self.out),
            }
        }
    }

    proptest! {
        // Every case goes through all widths.
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn every_kernel_unpacks_every_width_alike(seed: u64, base: i64, count in 0..1000_usize) {
            let values = noise(seed);
            for width in 0..=WIDTH_MAX {
                let (mut group, mut run) = (Vec::new(), Vec::new());
                pack_group(&values, width, &mut group);
                pack_run(&values[..count], width, &mut run);
                let mut plain = vec![0; GROUP_VALUES];
                prop_assert!(unpack_group(&group, width, base, plain.as_mut_array().unwrap()));
                for kernel in Kernel::ALL {
                    for (bytes, count) in [(&group, GROUP_VALUES), (&run, count)] {
                        let mut out = vec![7; count];
                        let unpack = Unpack { bytes, width, base, out: &mut out };
                        prop_assert!(kernel.run(unpack));
                        prop_assert!(out == plain[..count]);
                    }
                }
            }
        }

        #[test]
        fn groups_of_every_width_come_back(seed: u64, base: i64) {
            let values = noise(seed);
            for width in 0..=WIDTH_MAX {
                let mut bytes = Vec::new();
                pack_group(&values, width, &mut bytes);
                prop_assert_eq!(bytes.len(), group_bytes(width));
                let mut out = [0; GROUP_VALUES];
                prop_assert!(unpack_group(&bytes, width, base, &mut out));
                for (value, out) in values.iter().zip(out) {
                    prop_assert_eq!((value & mask(width)).cast_signed().wrapping_add(base), out);
                }
            }
        }

        #[test]
        fn runs_of_every_width_come_back(seed: u64, base: i64, count in 0..200_usize) {
            let values = &noise(seed)[..count];
            for width in 0..=WIDTH_MAX {
                let mut bytes = Vec::new();
                pack_run(values, width, &mut bytes);
                prop_assert_eq!(bytes.len(), run_bytes(count, width));
                let mut out = vec![0; count];
                prop_assert!(unpack_run(&bytes, width, base, &mut out));
                for (value, out) in values.iter().zip(out) {
                    prop_assert_eq!((value & mask(width)).cast_signed().wrapping_add(base), out);
                }
            }
        }
    }
}
