//! Identities of series, traces and spans. No arithmetic between kinds; `Display` is the form people
//! search for.

use std::fmt;

/// The store's number for a series, never given to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesRef(pub u64);

impl fmt::Display for SeriesRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A trace's 16 bytes. All zero is not a valid id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId([u8; 16]);

/// A span's 8 bytes, unique within its trace by agreement only. All zero is not a valid id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId([u8; 8]);

macro_rules! byte_id {
    ($name:ident, $bytes:literal) => {
        impl $name {
            /// The id with these bytes; `None` if they are all zero.
            pub fn new(bytes: [u8; $bytes]) -> Option<Self> {
                (bytes != [0; $bytes]).then_some(Self(bytes))
            }

            /// From bytes off the wire; `None` if the length is wrong or all are zero.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Self::new(bytes.try_into().ok()?)
            }

            /// From hexadecimal digits of either case; `None` if it is not an id.
            pub fn from_hex(text: &str) -> Option<Self> {
                let text = text.as_bytes();
                if text.len() != 2 * $bytes {
                    return None;
                }
                let mut bytes = [0u8; $bytes];
                for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
                    let [high, low] = pair else { return None };
                    let high = char::from(*high).to_digit(16)?;
                    let low = char::from(*low).to_digit(16)?;
                    *byte = u8::try_from(high * 16 + low).ok()?;
                }
                Self::new(bytes)
            }

            /// The bytes.
            #[inline]
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

byte_id!(TraceId, 16);
byte_id!(SpanId, 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_as_lower_case_hex_and_parse_back() {
        let id = TraceId::from_hex("4BF92F3577B34DA6A3CE929D0E0E4736").unwrap();
        assert_eq!(id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(TraceId::from_hex(&id.to_string()), Some(id));
    }

    #[test]
    fn zero_short_and_foreign_ids_are_refused() {
        assert_eq!(SpanId::new([0; 8]), None);
        assert_eq!(SpanId::from_slice(&[1; 7]), None);
        assert_eq!(SpanId::from_hex("00f067aa0ba902bg"), None);
        assert_eq!(SpanId::from_hex("é0f067aa0ba902b"), None);
    }
}
