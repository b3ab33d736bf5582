//! Records on their way to disk: a group is the bytes of one write, in the order they were appended.

use std::sync::Arc;

use crate::{
    checksum::Seed,
    error::Error,
    format::{
        BLOCK_LEN, FRAME_HEADER_BYTES, FrameHeader, GROUP_HEADER_BYTES, GroupHeader, align_up,
    },
    segment::Segment,
};

/// A buffer larger than this is not kept for the next group.
const BUFFER_BYTES_KEPT_MAX: usize = 8 << 20;

/// A group and the place it was given.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) segment: Arc<Segment>,
    pub(crate) bytes: GroupBytes,
}

/// The bytes of a group. Its header is filled in last, because `synced_lsn` is known only then.
#[derive(Debug)]
pub(crate) struct GroupBytes {
    seed: Seed,
    offset: u64,
    first_lsn: u64,
    records: u32,
    bytes: Vec<u8>,
}

/// A record before it has its LSN: what can be computed without the log's lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft<'a> {
    kind: u8,
    parts: &'a [&'a [u8]],
    payload_bytes: u32,
    payload_checksum: u32,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(kind: u8, parts: &'a [&'a [u8]]) -> Result<Self, Error> {
        let bytes = parts.iter().map(|part| part.len() as u64).sum::<u64>();
        let payload_bytes = u32::try_from(bytes)
            .ok()
            .filter(|_| bytes <= crate::RECORD_BYTES_MAX)
            .ok_or(Error::RecordTooLarge {
                bytes,
                max_bytes: crate::RECORD_BYTES_MAX,
            })?;
        Ok(Self {
            kind,
            parts,
            payload_bytes,
            payload_checksum: crate::checksum::plain(parts),
        })
    }

    pub(crate) fn frame_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + u64::from(self.payload_bytes)
    }

    pub(crate) fn payload_bytes(&self) -> u64 {
        self.payload_bytes.into()
    }
}

impl GroupBytes {
    /// An empty group in a buffer used before.
    pub(crate) fn new(seed: Seed, offset: u64, first_lsn: u64, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.resize(GROUP_HEADER_BYTES, 0);
        Self {
            seed,
            offset,
            first_lsn,
            records: 0,
            bytes: buffer,
        }
    }

    pub(crate) fn push(&mut self, record: &Draft<'_>, lsn: u64) {
        debug_assert_eq!(
            lsn,
            self.first_lsn + u64::from(self.records),
            "LSNs rise by one"
        );
        let header = FrameHeader {
            payload_bytes: record.payload_bytes,
            payload_checksum: record.payload_checksum,
            kind: record.kind,
            lsn,
        };
        self.bytes.extend_from_slice(&header.encode(self.seed));
        for part in record.parts {
            self.bytes.extend_from_slice(part);
        }
        self.records += 1;
    }

    /// Where the next group could start, were `more` bytes of frames added.
    pub(crate) fn end_with(&self, more: u64) -> u64 {
        self.offset + align_up(self.bytes.len() as u64 + more)
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn records(&self) -> u32 {
        self.records
    }

    pub(crate) fn last_lsn(&self) -> u64 {
        (self.first_lsn + u64::from(self.records)).saturating_sub(1)
    }

    /// Bytes to write at [`offset`](Self::offset): whole blocks, so that the kernel need not read any.
    pub(crate) fn finish(&mut self, synced_lsn: u64) -> &[u8] {
        let body_bytes = u32::try_from(self.bytes.len() - GROUP_HEADER_BYTES)
            .expect("the bounds on records and unsynced bytes keep a group below 4 GiB");
        let header = GroupHeader {
            offset: self.offset,
            body_bytes,
            records: self.records,
            first_lsn: self.first_lsn,
            synced_lsn,
        };
        if let Some(place) = self.bytes.get_mut(..GROUP_HEADER_BYTES) {
            place.copy_from_slice(&header.encode(self.seed));
        }
        self.bytes
            .resize(self.bytes.len().next_multiple_of(BLOCK_LEN), 0);
        &self.bytes
    }

    /// What [`finish`](Self::finish) returned.
    pub(crate) fn finished(&self) -> &[u8] {
        &self.bytes
    }

    /// The buffer, if it is of a size worth keeping.
    pub(crate) fn into_buffer(self) -> Option<Vec<u8>> {
        (self.bytes.capacity() <= BUFFER_BYTES_KEPT_MAX).then_some(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{SegmentHeader, SegmentHeaderRead};

    /// Promise: what is written today is what version 1 is, byte for byte.
    #[test]
    fn a_group_is_written_as_the_golden_file_has_it() {
        let golden = include_bytes!("../tests/golden/v1/closed/segment-0000000000000001.wal");
        let SegmentHeaderRead::Header(header) = SegmentHeader::decode_block(golden, 1) else {
            panic!("the golden header reads");
        };
        assert!(golden.starts_with(&header.encode()));
        let seed = Seed::new(&header.store, header.segment);
        // A marker, then records 1 to 3 in one group.
        let mut marker = GroupBytes::new(seed, 4096, 1, Vec::new());
        assert_eq!(marker.finish(0), &golden[4096..8192]);
        let mut group = GroupBytes::new(seed, 8192, 1, vec![9; 100]);
        let long = [0xab; 600];
        let records: [(u8, &[&[u8]]); 3] = [(1, &[b"one"]), (2, &[b"tw", b"o"]), (255, &[&long])];
        for (lsn, (kind, parts)) in (1..).zip(records) {
            group.push(&Draft::new(kind, parts).unwrap(), lsn);
        }
        assert_eq!(group.end_with(0), 12288);
        assert_eq!(group.finish(0), &golden[8192..12288]);
    }
}
