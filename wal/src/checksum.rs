//! CRC-32 (ISO-HDLC, as in zip), plain for payloads and seeded for everything that frames them.
//!
//! Every checksum of a segment but its header's and its payloads' starts from a seed made of store id
//! and segment number. Bytes that an earlier use left behind in a recycled file, and bytes of another
//! store, therefore do not verify. A payload's plain checksum is itself under its frame's seeded one.

use crate::store_id::StoreId;

/// What the checksums of one segment start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(u32);

impl Seed {
    pub(crate) fn new(store: &StoreId, segment: u64) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(store.as_bytes());
        hasher.update(&segment.to_le_bytes());
        Self(hasher.finalize())
    }

    pub(crate) fn checksum(self, parts: [&[u8]; 2]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize()
    }
}

/// Plain checksum of parts laid end to end.
pub(crate) fn plain(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}
