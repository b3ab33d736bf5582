//! Single bits in and out of bytes, most significant bit first.
//!
//! Invariants
//! - The writer leaves the unused low bits of the last byte zero.
//! - The reader gives zeros behind the end and counts how far it was asked to go, so that a decoder
//!   checks the end once a sample ([`BitReader::is_past_end`]) and not once a field.

/// Smallest step by which a stream grows.
const GROWTH_BYTES_MIN: usize = 16;
/// Allocators hand out multiples of 16 bytes less their own header of 8.
const GROWTH_ALIGN_BYTES: usize = 16;
const ALLOCATOR_HEADER_BYTES: usize = 8;

/// Appends bits to bytes.
#[derive(Debug)]
pub(crate) struct BitWriter<'b> {
    bytes: &'b mut Vec<u8>,
    /// Unused low bits of the last byte, 0 to 7.
    free_bits: u32,
}

impl<'b> BitWriter<'b> {
    /// Goes on behind the used bits of `bytes`, whose last byte has `free_bits` (0 to 7) unused.
    pub(crate) fn new(bytes: &'b mut Vec<u8>, free_bits: u32) -> Self {
        debug_assert!(free_bits < 8, "a byte with nothing used is not there");
        Self { bytes, free_bits }
    }

    /// Unused low bits of the last byte.
    pub(crate) fn free_bits(&self) -> u32 {
        self.free_bits
    }

    /// Appends the `count` low bits of `value`; `count` is 1 to 64.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the shift leaves at most seven bits"
    )]
    pub(crate) fn write(&mut self, value: u64, count: u32) {
        debug_assert!((1..=64).contains(&count), "1 to 64 bits at a time");
        let mut aligned = value << (64 - count);
        let mut count = count;
        if self.free_bits > 0 {
            if let Some(last) = self.bytes.last_mut() {
                *last |= (aligned >> (64 - self.free_bits)) as u8;
            }
            if count <= self.free_bits {
                self.free_bits -= count;
                return;
            }
            aligned <<= self.free_bits;
            count -= self.free_bits;
        }
        let bytes = aligned.to_be_bytes();
        let used = bytes.get(..count.div_ceil(8) as usize).unwrap_or(&bytes);
        if self.bytes.capacity() - self.bytes.len() < used.len() {
            grow(self.bytes, used.len());
        }
        self.bytes.extend_from_slice(used);
        self.free_bits = count.wrapping_neg() & 7;
    }
}

/// Makes room for `needed` more bytes: a quarter more than there is, so that little is wasted.
#[cold]
fn grow(bytes: &mut Vec<u8>, needed: usize) {
    let step = (bytes.len() / 4).max(GROWTH_BYTES_MIN).max(needed);
    let capacity = (bytes.len() + step + ALLOCATOR_HEADER_BYTES)
        .next_multiple_of(GROWTH_ALIGN_BYTES)
        - ALLOCATOR_HEADER_BYTES;
    bytes.reserve_exact(capacity - bytes.len());
}

/// Reads bits from bytes. Total: behind the end there are zeros.
#[derive(Debug, Clone)]
pub(crate) struct BitReader<'b> {
    bytes: &'b [u8],
    at_bits: usize,
}

impl<'b> BitReader<'b> {
    /// Starts at the first bit of `bytes`.
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, at_bits: 0 }
    }

    /// The next bits from the top of the word downwards; at least 57 of them are valid.
    #[inline]
    pub(crate) fn peek(&self) -> u64 {
        let rest = self.bytes.get(self.at_bits / 8..).unwrap_or_default();
        let word = match rest.first_chunk() {
            Some(bytes) => u64::from_be_bytes(*bytes),
            None => padded(rest),
        };
        word << (self.at_bits % 8)
    }

    /// Goes on by `count` bits.
    #[inline]
    pub(crate) fn skip(&mut self, count: u32) {
        self.at_bits += count as usize;
    }

    /// The next `count` bits as a number; `count` is 1 to 64.
    #[inline]
    pub(crate) fn read(&mut self, count: u32) -> u64 {
        debug_assert!((1..=64).contains(&count), "1 to 64 bits at a time");
        if count <= 57 {
            let value = self.peek() >> (64 - count);
            self.skip(count);
            return value;
        }
        let high = self.peek() >> 32;
        self.skip(32);
        let low = self.peek() >> (96 - count);
        self.skip(count - 32);
        high << (count - 32) | low
    }

    /// Whether more bits were taken than there are.
    #[inline]
    pub(crate) fn is_past_end(&self) -> bool {
        self.at_bits > self.bytes.len() * 8
    }

    /// Bits taken so far.
    pub(crate) fn at_bits(&self) -> usize {
        self.at_bits
    }
}

/// Up to seven bytes at the top of a word, zeros behind them.
#[cold]
fn padded(rest: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(rest) {
        *to = *from;
    }
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn low_bits(value: u64, count: u32) -> u64 {
        value & (u64::MAX >> (64 - count))
    }

    #[test]
    fn bits_stand_most_significant_first() {
        let mut bytes = Vec::new();
        let mut writer = BitWriter::new(&mut bytes, 0);
        writer.write(0b1, 1);
        writer.write(0b0110, 4);
        writer.write(0x3ff, 10);
        assert_eq!(writer.free_bits(), 1);
        assert_eq!(bytes, [0b1011_0111, 0b1111_1110]);
    }

    #[test]
    fn behind_the_end_are_zeros() {
        let mut reader = BitReader::new(&[0xff]);
        assert_eq!(reader.read(64), 0xff << 56);
        assert!(reader.is_past_end());
        assert_eq!(reader.read(64), 0);
        let mut empty = BitReader::new(&[]);
        assert!(!empty.is_past_end());
        assert_eq!(empty.read(1), 0);
        assert!(empty.is_past_end());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(fields in prop::collection::vec((any::<u64>(), 1_u32..=64), 0..60)) {
            let mut bytes = Vec::new();
            let mut free_bits = 0;
            for (value, count) in &fields {
                let mut writer = BitWriter::new(&mut bytes, free_bits);
                writer.write(*value, *count);
                free_bits = writer.free_bits();
            }
            let bits: usize = fields.iter().map(|(_, count)| *count as usize).sum();
            prop_assert_eq!(bytes.len() * 8 - free_bits as usize, bits);
            prop_assert!(bytes.capacity() <= bytes.len() + bytes.len() / 4 + 40);
            let mut reader = BitReader::new(&bytes);
            for (value, count) in fields {
                prop_assert_eq!(reader.peek() >> 63, low_bits(value, count) >> (count - 1));
                prop_assert_eq!(reader.read(count), low_bits(value, count));
                prop_assert!(!reader.is_past_end());
            }
            prop_assert_eq!(reader.at_bits(), bits);
        }
    }
}
