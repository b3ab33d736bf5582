//! Where a search goes on: the last trace or span shown.
//!
//! A token is text: hexadecimal digits for `lsn u64 | trace start i64 | trace id 16 bytes`, of a search
//! for spans also `span start i64 | span id 8 bytes | hash u64`, then `check u32`, all big-endian. The
//! check covers the other fields and the search's conditions, so a damaged token, and one of another
//! search, are told from a good one. It guards against mistakes, not against forgery: a forged token
//! shows nothing that a search would not.

use rootline_engine::{Lsn, SpanId, Timestamp, TraceId};

use crate::error::Error;

const TRACE_BYTES: usize = 32;
const SPAN_BYTES: usize = 24;
const CHECK_BYTES: usize = 4;
/// Characters of a foreign token that an error repeats.
const SHOWN_CHARS_MAX: usize = 80;

/// A place between two pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageToken {
    /// Snapshot of the page before. It is not read again; it tells a token of another store or of the
    /// time before a restore.
    pub lsn: Lsn,
    /// Start of the last trace shown.
    pub start: Timestamp,
    /// The last trace shown.
    pub trace_id: TraceId,
    /// The last span shown of it, in a search for spans.
    pub span: Option<SpanPlace>,
}

/// Where a span stands in its trace: spans are shown in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpanPlace {
    /// Its start.
    pub start: Timestamp,
    /// Its id.
    pub span_id: SpanId,
    /// Hash of what else is shown of it.
    pub hash: u64,
}

impl PageToken {
    /// As text, for the search that `fingerprint` stands for.
    pub fn encode(&self, fingerprint: &[u8]) -> String {
        use std::fmt::Write as _;
        let mut bytes = Vec::with_capacity(TRACE_BYTES + SPAN_BYTES + CHECK_BYTES);
        bytes.extend_from_slice(&self.lsn.0.to_be_bytes());
        bytes.extend_from_slice(&self.start.as_nanos().to_be_bytes());
        bytes.extend_from_slice(self.trace_id.as_bytes());
        if let Some(span) = &self.span {
            bytes.extend_from_slice(&span.start.as_nanos().to_be_bytes());
            bytes.extend_from_slice(span.span_id.as_bytes());
            bytes.extend_from_slice(&span.hash.to_be_bytes());
        }
        bytes.extend_from_slice(&check(&bytes, fingerprint).to_be_bytes());
        let mut text = String::with_capacity(2 * bytes.len());
        for byte in bytes {
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
        Self::parse(text, fingerprint).ok_or_else(|| refused(text))
    }

    /// Where a page begins; `None` for the first one, whose token is empty.
    ///
    /// # Errors
    /// As [`PageToken::decode`]; for a token of the future, which came from another store or from
    /// before a restore.
    pub(crate) fn after(text: &str, fingerprint: &[u8], now: Lsn) -> Result<Option<Self>, Error> {
        if text.is_empty() {
            return Ok(None);
        }
        let token = Self::decode(text, fingerprint)?;
        if token.lsn > now {
            return Err(refused(text));
        }
        Ok(Some(token))
    }

    fn parse(text: &str, fingerprint: &[u8]) -> Option<Self> {
        let longest = 2 * (TRACE_BYTES + SPAN_BYTES + CHECK_BYTES);
        if text.len() > longest || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = Vec::with_capacity(text.len() / 2);
        for at in (0..text.len()).step_by(2) {
            bytes.push(u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?);
        }
        let (fields, found_check) = bytes.split_last_chunk::<CHECK_BYTES>()?;
        if *found_check != check(fields, fingerprint).to_be_bytes() {
            return None;
        }
        let (lsn, rest) = fields.split_first_chunk::<8>()?;
        let (start, rest) = rest.split_first_chunk::<8>()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        Some(Self {
            lsn: Lsn(u64::from_be_bytes(*lsn)),
            start: Timestamp::from_nanos(i64::from_be_bytes(*start)),
            trace_id: TraceId::from_slice(id)?,
            span: match rest {
                [] => None,
                rest => Some(SpanPlace::parse(rest)?),
            },
        })
    }
}

impl SpanPlace {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (start, rest) = bytes.split_first_chunk::<8>()?;
        let (id, hash) = rest.split_first_chunk::<8>()?;
        Some(Self {
            start: Timestamp::from_nanos(i64::from_be_bytes(*start)),
            span_id: SpanId::from_slice(id)?,
            hash: u64::from_be_bytes(hash.try_into().ok()?),
        })
    }
}

fn refused(text: &str) -> Error {
    Error::PageToken {
        found: text.chars().take(SHOWN_CHARS_MAX).collect(),
    }
}

/// FNV-1a over fields and fingerprint, folded to 32 bits.
fn check(fields: &[u8], fingerprint: &[u8]) -> u32 {
    let hash = hash(fields.iter().chain(fingerprint));
    #[expect(clippy::cast_possible_truncation, reason = "the halves are folded")]
    let folded = (hash >> 32) as u32 ^ hash as u32;
    folded
}

/// FNV-1a.
pub(crate) fn hash<'b>(bytes: impl Iterator<Item = &'b u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
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
            span: None,
        }
    }

    fn span_token() -> PageToken {
        let span = SpanPlace {
            start: Timestamp::from_nanos(7),
            span_id: SpanId::from_slice(&[3; 8]).unwrap(),
            hash: 5,
        };
        PageToken {
            span: Some(span),
            ..token()
        }
    }

    #[test]
    fn a_token_comes_back_for_its_own_search_only() {
        let text = token().encode(b"service=a");
        assert_eq!(PageToken::decode(&text, b"service=a").unwrap(), token());
        let of_span = span_token().encode(b"");
        assert_eq!(PageToken::decode(&of_span, b"").unwrap(), span_token());
        assert!(matches!(
            PageToken::decode(&text, b"service=b"),
            Err(Error::PageToken { .. })
        ));
    }

    #[test]
    fn one_changed_digit_is_noticed() {
        for text in [token().encode(b""), span_token().encode(b"")] {
            for at in 0..text.len() {
                let mut changed = text.clone().into_bytes();
                changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
                let changed = String::from_utf8(changed).unwrap();
                assert!(PageToken::decode(&changed, b"").is_err(), "digit {at}");
                assert!(PageToken::decode(&text[..at], b"").is_err(), "cut at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            prop_assert!(PageToken::decode(&text, b"x").is_err());
        }
    }
}
