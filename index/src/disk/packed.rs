//! Numbers in a fixed count of bits each, lowest bits first.

use super::Source;
use super::error::Error;
use super::region::Region;

/// Widest number: with up to seven bits before it, it still lies in eight bytes.
pub(crate) const WIDTH_BITS_MAX: u8 = 57;

/// Bits that `max` needs.
pub(crate) fn width_of(max: u64) -> u8 {
    u8::try_from(u64::BITS - max.leading_zeros()).unwrap_or(u8::MAX)
}

/// Bytes of `count` numbers.
pub(crate) fn packed_len(count: u64, width: u8) -> u64 {
    (count * u64::from(width)).div_ceil(8)
}

/// Appends numbers of at most `width` bits.
pub(crate) fn pack(values: impl IntoIterator<Item = u64>, width: u8, out: &mut Vec<u8>) {
    debug_assert!(width <= WIDTH_BITS_MAX, "{width} bits");
    let mut pending = 0_u64;
    let mut bits = 0_u32;
    for value in values {
        pending |= value << bits;
        bits += u32::from(width);
        while bits >= 8 {
            out.push(pending.to_le_bytes()[0]);
            pending >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        out.push(pending.to_le_bytes()[0]);
    }
}

/// The `index`-th number. Bits behind the end of `bytes` read as zero.
#[inline]
pub(crate) fn unpack(bytes: &[u8], width: u8, index: usize) -> u64 {
    let bit = index * usize::from(width);
    let rest = bytes.get(bit / 8..).unwrap_or_default();
    let window = match rest.first_chunk::<8>() {
        Some(eight) => u64::from_le_bytes(*eight),
        None => short_window(rest),
    };
    (window >> (bit % 8)) & mask(width)
}

/// As [`unpack`], for `count` numbers from the `first`-th on.
#[inline]
pub(crate) fn unpack_range(
    bytes: &[u8],
    width: u8,
    first: usize,
    count: usize,
    mut each: impl FnMut(u64),
) {
    let (step, mask) = (usize::from(width), mask(width));
    let mut bit = first * step;
    for _ in 0..count {
        let rest = bytes.get(bit / 8..).unwrap_or_default();
        let window = match rest.first_chunk::<8>() {
            Some(eight) => u64::from_le_bytes(*eight),
            None => short_window(rest),
        };
        each((window >> (bit % 8)) & mask);
        bit += step;
    }
}

#[cold]
fn short_window(rest: &[u8]) -> u64 {
    let mut eight = [0; 8];
    for (to, from) in eight.iter_mut().zip(rest) {
        *to = *from;
    }
    u64::from_le_bytes(eight)
}

#[inline]
fn mask(width: u8) -> u64 {
    (1_u64 << width.min(63)) - 1
}

/// An array of such numbers in a part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PackedArray {
    pub(crate) offset_bytes: u64,
    pub(crate) count: u64,
    pub(crate) width: u8,
}

impl PackedArray {
    /// Checks that the array lies in its part.
    pub(crate) fn check<S: Source>(&self, region: Region<'_, S>) -> Result<(), Error<S::Error>> {
        let bytes = self.count.checked_mul(u64::from(self.width));
        let end = bytes.and_then(|bits| self.offset_bytes.checked_add(bits.div_ceil(8)));
        if self.width > WIDTH_BITS_MAX || end.is_none_or(|end| end > region.len_bytes()) {
            return Err(region.damaged(self.offset_bytes, "an array reaches beyond its part"));
        }
        Ok(())
    }

    /// One number.
    pub(crate) fn get<S: Source>(
        &self,
        region: Region<'_, S>,
        index: u64,
    ) -> Result<u64, Error<S::Error>> {
        if index >= self.count {
            return Err(region.damaged(self.offset_bytes, "an index beyond the end of an array"));
        }
        if self.width == 0 {
            return Ok(0);
        }
        self.check(region)?;
        let bit = index * u64::from(self.width);
        let start = self.offset_bytes + bit / 8;
        let end = self.offset_bytes + (bit + u64::from(self.width)).div_ceil(8);
        let bytes = region.read(start..end)?;
        Ok((short_window(&bytes) >> (bit % 8)) & mask(self.width))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packed_numbers_round_trip(
            width in 0..=WIDTH_BITS_MAX, values in prop::collection::vec(any::<u64>(), 0..100),
        ) {
            let values: Vec<u64> = values.iter().map(|v| v & mask(width)).collect();
            let mut bytes = Vec::new();
            pack(values.iter().copied(), width, &mut bytes);
            prop_assert_eq!(bytes.len() as u64, packed_len(values.len() as u64, width));
            let mut read = Vec::new();
            unpack_range(&bytes, width, 0, values.len(), |value| read.push(value));
            prop_assert_eq!(&read, &values);
            prop_assert!((0..).zip(&values).all(|(at, v)| unpack(&bytes, width, at) == *v));
            if let Some(max) = values.iter().max() {
                prop_assert!(width_of(*max) <= width);
            }
        }
    }
}
