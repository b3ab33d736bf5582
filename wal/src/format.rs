//! The bytes of a segment: header, groups, frames. Page: `docs/formats/wal.md`.
//!
//! Invariants
//! - Everything is little-endian. A group starts at a multiple of [`BLOCK_BYTES`] and is written once.
//! - Decoders are total: any bytes give a value or `None`, and nothing is believed before its checksum.

use crate::{checksum::Seed, store_id::StoreId};

/// Unit of placement: groups start at multiples of it, so that reading can resume behind damage.
pub(crate) const BLOCK_BYTES: u64 = BLOCK_LEN as u64;

/// The same as a length in memory.
pub(crate) const BLOCK_LEN: usize = 4096;

/// First bytes of a segment.
pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"RTLNWAL\n";

/// The version written, and the newest one read.
pub(crate) const VERSION: u32 = 1;

/// Bytes of a segment's header. Its copy is in the same block; the rest of that is zero.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 80;

/// Where the copy of a segment's header stands: half a block away, as damage is often of whole sectors.
pub(crate) const SEGMENT_HEADER_COPY_AT: usize = BLOCK_LEN / 2;

/// Bytes of a group's header.
pub(crate) const GROUP_HEADER_BYTES: usize = 40;

/// Bytes before a record's payload.
pub(crate) const FRAME_HEADER_BYTES: usize = 21;

/// Largest payload of a record: 1 GiB. A length on disk is a `u32`, and a record is held in memory.
pub const RECORD_BYTES_MAX: u64 = 1 << 30;

const GROUP_MAGIC: [u8; 4] = *b"RLGR";

// A group of unsynced bytes and one record more still counts its bytes in a `u32`.
const _: () = assert!(RECORD_BYTES_MAX * 2 + BLOCK_BYTES * 2 < u32::MAX as u64);
const _: () = assert!(GROUP_HEADER_BYTES + FRAME_HEADER_BYTES < BLOCK_LEN);
const _: () = assert!(SEGMENT_HEADER_BYTES <= SEGMENT_HEADER_COPY_AT);
const _: () = assert!(SEGMENT_HEADER_COPY_AT + SEGMENT_HEADER_BYTES <= BLOCK_LEN);

/// Rounds up to a multiple of [`BLOCK_BYTES`].
pub(crate) fn align_up(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES)
}

/// What stands at the start of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) store: StoreId,
    /// Its number; the file name has it too.
    pub(crate) segment: u64,
    /// Every record up to here had been synced when this header was written.
    pub(crate) synced_lsn: u64,
    /// Segments from this number on, below this one, have lost their records from `replaces_from` on
    /// to this one. 0: none.
    pub(crate) replaces_segment: u64,
    pub(crate) replaces_from: u64,
    pub(crate) created_wall_ns: i64,
}

/// What the first bytes of a file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentHeaderRead {
    Header(SegmentHeader),
    /// The header is damaged; this is its copy.
    Copy(SegmentHeader),
    /// The checksum does not hold.
    Damaged,
    /// The checksum holds, the version is not ours.
    Version(u32),
    /// The checksum holds, the magic is not ours.
    Magic([u8; 8]),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BLOCK_LEN);
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        let rest_at = out.len();
        out.extend_from_slice(self.store.as_bytes());
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.synced_lsn.to_le_bytes());
        out.extend_from_slice(&self.replaces_segment.to_le_bytes());
        out.extend_from_slice(&self.replaces_from.to_le_bytes());
        out.extend_from_slice(&self.created_wall_ns.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        let checksum = crc32fast::hash(&out);
        out.splice(rest_at..rest_at, checksum.to_le_bytes());
        debug_assert_eq!(out.len(), SEGMENT_HEADER_BYTES);
        let header = out.clone();
        out.resize(SEGMENT_HEADER_COPY_AT, 0);
        out.extend_from_slice(&header);
        out.resize(BLOCK_LEN, 0);
        out
    }

    /// Decodes the first block of the file of segment `number`: its header or, if that does not
    /// verify, the copy of it. A copy of another segment's header is none.
    pub(crate) fn decode_block(block: &[u8], number: u64) -> SegmentHeaderRead {
        let first = Self::decode(block);
        if matches!(first, SegmentHeaderRead::Header(_)) {
            return first;
        }
        let copy = block.get(SEGMENT_HEADER_COPY_AT..).unwrap_or_default();
        match Self::decode(copy) {
            SegmentHeaderRead::Header(copy) if copy.segment == number => {
                SegmentHeaderRead::Copy(copy)
            }
            _ => first,
        }
    }

    fn decode(bytes: &[u8]) -> SegmentHeaderRead {
        Self::decode_fields(bytes).unwrap_or(SegmentHeaderRead::Damaged)
    }

    fn decode_fields(bytes: &[u8]) -> Option<SegmentHeaderRead> {
        let bytes = bytes.get(..SEGMENT_HEADER_BYTES)?;
        let (front, rest) = (bytes.get(..12)?, bytes.get(16..)?);
        if crate::checksum::plain(&[front, rest]) != u32_at(bytes, 12)? {
            return None;
        }
        let magic: [u8; 8] = array_at(bytes, 0)?;
        if magic != SEGMENT_MAGIC {
            return Some(SegmentHeaderRead::Magic(magic));
        }
        let version = u32_at(bytes, 8)?;
        if version != VERSION {
            return Some(SegmentHeaderRead::Version(version));
        }
        Some(SegmentHeaderRead::Header(Self {
            store: StoreId::from_bytes(array_at(bytes, 16)?),
            segment: u64_at(bytes, 32)?,
            synced_lsn: u64_at(bytes, 40)?,
            replaces_segment: u64_at(bytes, 48)?,
            replaces_from: u64_at(bytes, 56)?,
            created_wall_ns: i64::from_le_bytes(array_at(bytes, 64)?),
        }))
    }
}

/// What stands before the records that were written together. A group without records is a *marker*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    /// Where in the segment it stands, so that a misplaced write does not verify.
    pub(crate) offset: u64,
    /// Bytes of its frames.
    pub(crate) body_bytes: u32,
    pub(crate) records: u32,
    /// LSN of its first record, or of the next record to come.
    pub(crate) first_lsn: u64,
    /// Every record up to here had been synced when this group was written.
    pub(crate) synced_lsn: u64,
}

impl GroupHeader {
    pub(crate) fn encode(&self, seed: Seed) -> [u8; GROUP_HEADER_BYTES] {
        let mut out = [0; GROUP_HEADER_BYTES];
        put(&mut out, 0, &GROUP_MAGIC);
        put(&mut out, 8, &self.offset.to_le_bytes());
        put(&mut out, 16, &self.body_bytes.to_le_bytes());
        put(&mut out, 20, &self.records.to_le_bytes());
        put(&mut out, 24, &self.first_lsn.to_le_bytes());
        put(&mut out, 32, &self.synced_lsn.to_le_bytes());
        let checksum = seed.checksum([&GROUP_MAGIC, out.get(8..).unwrap_or_default()]);
        put(&mut out, 4, &checksum.to_le_bytes());
        out
    }

    /// The header at `offset` of a segment, if one of that segment stands there.
    pub(crate) fn decode(bytes: &[u8], seed: Seed, offset: u64) -> Option<Self> {
        let bytes = bytes.get(..GROUP_HEADER_BYTES)?;
        let magic = bytes.get(..4)?;
        if magic != GROUP_MAGIC || seed.checksum([magic, bytes.get(8..)?]) != u32_at(bytes, 4)? {
            return None;
        }
        let header = Self {
            offset: u64_at(bytes, 8)?,
            body_bytes: u32_at(bytes, 16)?,
            records: u32_at(bytes, 20)?,
            first_lsn: u64_at(bytes, 24)?,
            synced_lsn: u64_at(bytes, 32)?,
        };
        (header.offset == offset
            && header.first_lsn > 0
            && header
                .first_lsn
                .checked_add(header.records.into())
                .is_some())
        .then_some(header)
    }

    /// LSN of its last record; of a marker, of the record before it.
    pub(crate) fn last_lsn(&self) -> u64 {
        (self.first_lsn + u64::from(self.records)).saturating_sub(1)
    }

    /// Where the next group starts.
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(align_up(
            GROUP_HEADER_BYTES as u64 + u64::from(self.body_bytes),
        ))
    }
}

/// What stands before a record's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) payload_bytes: u32,
    pub(crate) payload_checksum: u32,
    pub(crate) kind: u8,
    pub(crate) lsn: u64,
}

impl FrameHeader {
    pub(crate) fn encode(&self, seed: Seed) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0; FRAME_HEADER_BYTES];
        put(&mut out, 0, &self.payload_bytes.to_le_bytes());
        put(&mut out, 8, &self.payload_checksum.to_le_bytes());
        put(&mut out, 12, &[self.kind]);
        put(&mut out, 13, &self.lsn.to_le_bytes());
        let checksum = seed.checksum([
            out.get(..4).unwrap_or_default(),
            out.get(8..).unwrap_or_default(),
        ]);
        put(&mut out, 4, &checksum.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8], seed: Seed) -> Option<Self> {
        let bytes = bytes.get(..FRAME_HEADER_BYTES)?;
        if seed.checksum([bytes.get(..4)?, bytes.get(8..)?]) != u32_at(bytes, 4)? {
            return None;
        }
        let header = Self {
            payload_bytes: u32_at(bytes, 0)?,
            payload_checksum: u32_at(bytes, 8)?,
            kind: *bytes.get(12)?,
            lsn: u64_at(bytes, 13)?,
        };
        (u64::from(header.payload_bytes) <= RECORD_BYTES_MAX).then_some(header)
    }

    /// The LSN that stands in a header which has not been verified.
    pub(crate) fn peek_lsn(bytes: &[u8]) -> Option<u64> {
        u64_at(bytes, 13)
    }

    pub(crate) fn frame_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + u64::from(self.payload_bytes)
    }
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = out.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment_header() -> impl Strategy<Value = SegmentHeader> {
        (any::<[u8; 16]>(), any::<[u64; 4]>(), any::<i64>()).prop_map(|(store, n, created)| {
            SegmentHeader {
                store: StoreId::from_bytes(store),
                segment: n[0],
                synced_lsn: n[1],
                replaces_segment: n[2],
                replaces_from: n[3],
                created_wall_ns: created,
            }
        })
    }

    fn group_header() -> impl Strategy<Value = GroupHeader> {
        (
            any::<u64>(),
            any::<[u32; 2]>(),
            1..u64::MAX / 2,
            any::<u64>(),
        )
            .prop_map(|(offset, [body_bytes, records], first_lsn, synced_lsn)| {
                GroupHeader {
                    offset,
                    body_bytes,
                    records,
                    first_lsn,
                    synced_lsn,
                }
            })
    }

    fn frame_header() -> impl Strategy<Value = FrameHeader> {
        (0..=1_u32 << 30, any::<u32>(), any::<u8>(), any::<u64>()).prop_map(
            |(payload_bytes, payload_checksum, kind, lsn)| FrameHeader {
                payload_bytes,
                payload_checksum,
                kind,
                lsn,
            },
        )
    }

    fn seed() -> impl Strategy<Value = Seed> {
        (any::<[u8; 16]>(), any::<u64>())
            .prop_map(|(store, segment)| Seed::new(&StoreId::from_bytes(store), segment))
    }

    proptest! {
        #[test]
        fn segment_headers_round_trip(header in segment_header()) {
            let bytes = header.encode();
            prop_assert_eq!(bytes.len() as u64, BLOCK_BYTES);
            prop_assert_eq!(SegmentHeader::decode(&bytes), SegmentHeaderRead::Header(header));
            let cut = &bytes[..SEGMENT_HEADER_BYTES - 1];
            prop_assert_eq!(SegmentHeader::decode(cut), SegmentHeaderRead::Damaged);
        }

        #[test]
        fn a_damaged_segment_header_is_read_from_its_copy(
            header in segment_header(), at in 0..SEGMENT_HEADER_BYTES, bit in 0..8_u8,
        ) {
            let number = header.segment;
            let mut bytes = header.encode();
            prop_assert_eq!(
                SegmentHeader::decode_block(&bytes, number), SegmentHeaderRead::Header(header)
            );
            bytes[at] ^= 1_u8 << bit;
            prop_assert_eq!(
                SegmentHeader::decode_block(&bytes, number), SegmentHeaderRead::Copy(header)
            );
            prop_assert_eq!(
                SegmentHeader::decode_block(&bytes, number ^ 1), SegmentHeaderRead::Damaged
            );
            let cut = &bytes[..SEGMENT_HEADER_COPY_AT + SEGMENT_HEADER_BYTES - 1];
            prop_assert_eq!(SegmentHeader::decode_block(cut, number), SegmentHeaderRead::Damaged);
            bytes[SEGMENT_HEADER_COPY_AT + at] ^= 1_u8 << bit;
            prop_assert_eq!(SegmentHeader::decode_block(&bytes, number), SegmentHeaderRead::Damaged);
        }

        #[test]
        fn group_headers_round_trip(header in group_header(), seed in seed()) {
            let bytes = header.encode(seed);
            prop_assert_eq!(GroupHeader::decode(&bytes, seed, header.offset), Some(header));
            prop_assert_eq!(GroupHeader::decode(&bytes, seed, header.offset ^ 4096), None);
            prop_assert!(header.end() >= header.offset);
        }

        #[test]
        fn frame_headers_round_trip(header in frame_header(), seed in seed()) {
            let bytes = header.encode(seed);
            prop_assert_eq!(FrameHeader::decode(&bytes, seed), Some(header));
            prop_assert_eq!(FrameHeader::peek_lsn(&bytes), Some(header.lsn));
        }

        #[test]
        fn a_flipped_bit_is_found(
            s in segment_header(), g in group_header(), f in frame_header(), seed in seed(),
            at in 0..SEGMENT_HEADER_BYTES, bit in 0..8_u8,
        ) {
            let flip = |bytes: &mut [u8]| {
                let at = at % bytes.len();
                bytes[at] ^= 1_u8 << bit;
            };
            let mut bytes = s.encode();
            flip(&mut bytes[..SEGMENT_HEADER_BYTES]);
            prop_assert_eq!(SegmentHeader::decode(&bytes), SegmentHeaderRead::Damaged);
            let mut bytes = g.encode(seed);
            flip(&mut bytes);
            prop_assert_eq!(GroupHeader::decode(&bytes, seed, g.offset), None);
            let mut bytes = f.encode(seed);
            flip(&mut bytes);
            prop_assert_eq!(FrameHeader::decode(&bytes, seed), None);
        }

        #[test]
        fn any_bytes_decode_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..120), seed in seed(),
        ) {
            let _ = SegmentHeader::decode_block(&bytes, 1);
            let _ = GroupHeader::decode(&bytes, seed, 4096);
            let _ = FrameHeader::decode(&bytes, seed);
            let _ = FrameHeader::peek_lsn(&bytes);
        }

        #[test]
        fn another_store_or_segment_does_not_verify(g in group_header(), f in frame_header()) {
            let store = StoreId::from_bytes([7; 16]);
            let here = Seed::new(&store, 1);
            for elsewhere in [Seed::new(&store, 2), Seed::new(&StoreId::from_bytes([8; 16]), 1)] {
                prop_assert_eq!(GroupHeader::decode(&g.encode(here), elsewhere, g.offset), None);
                prop_assert_eq!(FrameHeader::decode(&f.encode(here), elsewhere), None);
            }
        }
    }

    #[test]
    fn a_newer_version_and_another_magic_are_told_from_damage() {
        let header = SegmentHeader {
            store: StoreId::from_bytes([1; 16]),
            segment: 3,
            synced_lsn: 0,
            replaces_segment: 0,
            replaces_from: 0,
            created_wall_ns: 0,
        };
        let with = |at: usize, byte: u8| {
            let mut bytes = header.encode();
            bytes[at] = byte;
            let checksum = crate::checksum::plain(&[&bytes[..12], &bytes[16..80]]);
            bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
            SegmentHeader::decode(&bytes)
        };
        assert_eq!(with(8, 2), SegmentHeaderRead::Version(2));
        assert_eq!(with(0, b'X'), SegmentHeaderRead::Magic(*b"XTLNWAL\n"));
    }
}
