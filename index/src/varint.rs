//! Lengths as bytes: LEB128 as in protobuf, and a form of it that is plain ASCII.
//!
//! The ASCII form keeps six bits a byte (bit 6 says that more follow, bit 7 is never set), so that
//! lengths and strings can share one `str` and be cut out of it again without checking UTF-8 anew.

/// Bytes of the longest accepted LEB128 number.
const VARINT_BYTES_MAX: usize = 10;

/// Appends `n` as LEB128.
#[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
pub(crate) fn push_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Bytes that [`push_varint`] appends for `n`.
pub(crate) fn varint_len(n: usize) -> usize {
    let bits = (usize::BITS - n.leading_zeros()).max(1) as usize;
    bits.div_ceil(7)
}

/// Reads a LEB128 number from the front: the number, how many bytes it took, and whether this is
/// its shortest form. `None` if the bytes end early or the number does not fit 64 bits.
pub(crate) fn read_varint(bytes: &[u8]) -> Option<(u64, usize, bool)> {
    let mut n = 0_u64;
    for (i, &byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * u32::try_from(i).ok()?;
        if i == VARINT_BYTES_MAX - 1 && bits > 1 {
            return None;
        }
        n |= bits << shift;
        if byte & 0x80 == 0 {
            return Some((n, i + 1, i == 0 || byte != 0));
        }
    }
    None
}

/// Appends `n` in the ASCII form.
#[expect(clippy::cast_possible_truncation, reason = "six bits at a time")]
pub(crate) fn push_ascii_len(out: &mut String, mut n: usize) {
    while n >= 0x40 {
        out.push(char::from(n as u8 & 0x3f | 0x40));
        n >>= 6;
    }
    out.push(char::from(n as u8));
}

/// Bytes that [`push_ascii_len`] appends for `n`.
pub(crate) fn ascii_len_len(n: usize) -> usize {
    let bits = (usize::BITS - n.leading_zeros()).max(1) as usize;
    bits.div_ceil(6)
}

/// Cuts one length-prefixed string off the front of what [`push_ascii_len`] and the string wrote.
pub(crate) fn split_prefixed(text: &str) -> Option<(&str, &str)> {
    let mut n = 0_usize;
    let mut shift = 0_u32;
    for (i, &byte) in text.as_bytes().iter().enumerate() {
        n |= usize::from(byte & 0x3f).checked_shl(shift)?;
        shift += 6;
        if byte & 0x40 == 0 {
            return text.get(i + 1..)?.split_at_checked(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_round_trip(n: u64, tail: Vec<u8>) {
            let mut bytes = Vec::new();
            push_varint(&mut bytes, n);
            let len = bytes.len();
            bytes.extend_from_slice(&tail);
            prop_assert_eq!(read_varint(&bytes), Some((n, len, true)));
            if let Ok(n) = usize::try_from(n) {
                prop_assert_eq!(varint_len(n), len);
            }
        }

        #[test]
        fn any_bytes_read_without_panic(bytes: Vec<u8>) {
            let _ = read_varint(&bytes);
        }

        #[test]
        fn prefixed_strings_round_trip(text in "\\PC{0,200}", tail in "\\PC{0,9}") {
            let mut out = String::new();
            push_ascii_len(&mut out, text.len());
            prop_assert_eq!(out.len(), ascii_len_len(text.len()));
            out.push_str(&text);
            out.push_str(&tail);
            prop_assert_eq!(split_prefixed(&out), Some((text.as_str(), tail.as_str())));
        }
    }

    #[test]
    fn a_number_beyond_64_bits_is_refused() {
        assert_eq!(read_varint(&[0xff; 11]), None);
        assert_eq!(
            read_varint(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]),
            None
        );
        assert_eq!(read_varint(&[0x80, 0x00]), Some((0, 2, false)));
    }
}
