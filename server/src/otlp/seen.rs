//! Attributes met before in a request, found by the bytes they were sent as.
//!
//! Most attributes of a request were in it before, byte for byte. Such a one is neither walked nor
//! checked nor hashed whole again: a few of its bytes lead to a place in a small table, one comparison
//! confirms it.
//!
//! Invariants
//! - What is found was sent with the same bytes in this request, so it means the same.
//! - Rows of attributes hold as long as no span is taken back: who refuses a span clears the table.

use rootline_engine::AttributeRow;

/// Places for two entries each; a power of two.
const SETS: usize = 1024;
/// Longer attributes seldom repeat, and comparing them costs what is saved.
const BYTES_MAX: usize = 256;

#[derive(Clone, Copy)]
struct Entry<'a> {
    sent: &'a [u8],
    row: Option<AttributeRow>,
}

const EMPTY: Entry<'_> = Entry {
    sent: &[],
    row: None,
};

/// See the module.
pub(super) struct SeenAttributes<'a> {
    /// The newer of a pair first.
    sets: Vec<[Entry<'a>; 2]>,
}

impl<'a> SeenAttributes<'a> {
    pub(super) fn new() -> Self {
        Self {
            sets: vec![[EMPTY; 2]; SETS],
        }
    }

    /// Where an attribute's entry would be.
    #[inline]
    pub(super) fn place(sent: &[u8]) -> usize {
        let word = |from: usize| {
            let bytes = sent.get(from..).and_then(<[u8]>::first_chunk::<8>);
            bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
        };
        let len = sent.len();
        // The key, the end of the value, and what lies between tell most attributes apart.
        let mixed = word(4)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .wrapping_add(word(len.saturating_sub(8)))
            .wrapping_mul(0xD6E8_FEB8_6659_FD93)
            .wrapping_add(word(len / 2) ^ len as u64)
            .wrapping_mul(0xA076_1D64_78BD_642F);
        #[expect(clippy::cast_possible_truncation, reason = "below SETS")]
        let place = (mixed >> 40) as usize % SETS;
        place
    }

    /// The row of an attribute that was sent before.
    #[inline]
    pub(super) fn find(&self, place: usize, sent: &[u8]) -> Option<AttributeRow> {
        let set = self.sets.get(place)?;
        let found = set.iter().find(|entry| entry.sent == sent)?;
        found.row
    }

    /// Remembers an attribute in place of the one that came longest ago.
    #[inline]
    pub(super) fn insert(&mut self, place: usize, sent: &'a [u8], row: AttributeRow) {
        if sent.len() > BYTES_MAX {
            return;
        }
        if let Some(set) = self.sets.get_mut(place) {
            let row = Some(row);
            *set = [Entry { sent, row }, set[0]];
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.sets.fill([EMPTY; 2]);
    }
}
