//! Where a search goes on: the snapshot of its first page and the last trace shown.
//!
//! A token is text: 72 hexadecimal digits for `lsn u64 | trace start i64 | trace id 16 bytes | check
//! u32`, all big-endian. The check covers the other fields and the search's conditions, so a damaged
//! token, and one of another search, are told from a good one. It guards against mistakes, not against
//! forgery: a forged token shows nothing that a search would not.

use rootline_engine::{Lsn, Timestamp, TraceId};

use crate::error::Error;

const TOKEN_BYTES: usize = 36;
/// Characters of a foreign token that an error repeats.
const SHOWN_CHARS_MAX: usize = 80;

/// A place between two pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageToken {
    /// Snapshot of the first page.
    pub lsn: Lsn,
    /// Start of the last trace shown.
    pub start: Timestamp,
    /// The last trace shown.
    pub trace_id: TraceId,
}

impl PageToken {
    /// As text, for the search that `fingerprint` stands for.
    pub fn encode(&self, fingerprint: &[u8]) -> String {
        use std::fmt::Write as _;
        let fields = self.fields();
        let check = check(&fields, fingerprint);
        let mut text = String::with_capacity(2 * TOKEN_BYTES);
        for byte in fields.iter().chain(&check.to_be_bytes()) {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// From text.
    ///
    /// # Errors
    /// [`Error::PageToken`] unless it came out of [`PageToken::encode`] with the same fingerprint.
    pub fn decode(text: &str, fingerprint: &[u8]) -> Result<Self, Error> {
        Self::parse(text, fingerprint).ok_or_else(|| Error::PageToken {
            found: text.chars().take(SHOWN_CHARS_MAX).collect(),
        })
    }

    fn parse(text: &str, fingerprint: &[u8]) -> Option<Self> {
        if text.len() != 2 * TOKEN_BYTES || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0u8; TOKEN_BYTES];
        for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
        }
        let (fields, found_check) = bytes.split_first_chunk::<32>()?;
        if found_check != check(fields, fingerprint).to_be_bytes() {
            return None;
        }
        let (lsn, rest) = fields.split_first_chunk::<8>()?;
        let (start, id) = rest.split_first_chunk::<8>()?;
        Some(Self {
            lsn: Lsn(u64::from_be_bytes(*lsn)),
            start: Timestamp::from_nanos(i64::from_be_bytes(*start)),
            trace_id: TraceId::from_slice(id)?,
        })
    }

    fn fields(&self) -> [u8; 32] {
        let mut fields = [0u8; 32];
        let all = self
            .lsn
            .0
            .to_be_bytes()
            .into_iter()
            .chain(self.start.as_nanos().to_be_bytes())
            .chain(*self.trace_id.as_bytes());
        for (to, from) in fields.iter_mut().zip(all) {
            *to = from;
        }
        fields
    }
}

/// FNV-1a over fields and fingerprint, folded to 32 bits.
fn check(fields: &[u8], fingerprint: &[u8]) -> u32 {
    let hash = fields
        .iter()
        .chain(fingerprint)
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    #[expect(clippy::cast_possible_truncation, reason = "the halves are folded")]
    let folded = (hash >> 32) as u32 ^ hash as u32;
    folded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> PageToken {
        PageToken {
            lsn: Lsn(77),
            start: Timestamp::from_nanos(-5),
            trace_id: TraceId::from_slice(&[9; 16]).unwrap(),
        }
    }

    #[test]
    fn a_token_comes_back_for_its_own_search_only() {
        let text = token().encode(b"service=a");
        assert_eq!(PageToken::decode(&text, b"service=a").unwrap(), token());
        assert!(matches!(
            PageToken::decode(&text, b"service=b"),
            Err(Error::PageToken { .. })
        ));
    }

    #[test]
    fn one_changed_digit_is_noticed() {
        let text = token().encode(b"");
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(PageToken::decode(&changed, b"").is_err(), "digit {at}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            prop_assert!(PageToken::decode(&text, b"x").is_err());
        }
    }
}
