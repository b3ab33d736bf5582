//! Variable-length integers of the log records: LEB128, seven bits a byte, low bits first, at most
//! ten bytes; signed ones in zigzag form first.

/// Appends `value`.
#[inline]
pub(crate) fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the low seven bits are what is meant"
        )]
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "below 0x80 here")]
    out.push(value as u8);
}

/// Appends `value` in zigzag form.
#[inline]
pub(crate) fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// Appends a length and the bytes.
#[inline]
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes a value off the front of `input`; `None` if it is cut short or longer than 64 bits.
#[inline]
pub(crate) fn take_u64(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (i, &byte) in input.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if i == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * i);
        if byte < 0x80 {
            *input = input.get(i + 1..)?;
            return Some(value);
        }
    }
    None
}

/// Takes a zigzag value off the front of `input`.
#[inline]
pub(crate) fn take_i64(input: &mut &[u8]) -> Option<i64> {
    let value = take_u64(input)?;
    Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
}

/// Takes a value that fits 32 bits.
#[inline]
pub(crate) fn take_u32(input: &mut &[u8]) -> Option<u32> {
    u32::try_from(take_u64(input)?).ok()
}

/// Takes `length` bytes off the front of `input`.
#[inline]
pub(crate) fn take_slice<'a>(input: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(length)?;
    *input = rest;
    Some(taken)
}

/// Takes a length and that many bytes.
#[inline]
pub(crate) fn take_bytes<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_u64(input)?).ok()?;
    take_slice(input, length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn integers_come_back(unsigned: u64, signed: i64) {
            let mut out = Vec::new();
            put_u64(&mut out, unsigned);
            put_i64(&mut out, signed);
            let mut input = out.as_slice();
            prop_assert_eq!(take_u64(&mut input), Some(unsigned));
            prop_assert_eq!(take_i64(&mut input), Some(signed));
            prop_assert!(input.is_empty());
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
            let mut input = bytes.as_slice();
            while take_bytes(&mut input).is_some() {}
        }
    }

    #[test]
    fn a_value_past_64_bits_is_refused() {
        assert_eq!(take_u64(&mut [0xff; 11].as_slice()), None);
        let mut max = Vec::new();
        put_u64(&mut max, u64::MAX);
        assert_eq!(take_u64(&mut max.as_slice()), Some(u64::MAX));
    }
}
