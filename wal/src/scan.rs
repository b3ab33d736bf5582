//! Reading one segment, whatever state it is in.
//!
//! 1. Groups are followed from header to header. Where none stands, every later block boundary is tried.
//! 2. Inside a group, frames are followed by their lengths. Behind a frame whose header is damaged, and
//!    in blocks whose group header is damaged, every byte is tried as the start of a frame: its LSN has
//!    to be one that is missing, and its checksum has to hold. So damage costs the records it touches.
//!
//! No length is used before the checksum over it held, and none reads past the end of the file.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    checksum::{self, Seed},
    error::Error,
    format::{
        BLOCK_BYTES, FRAME_HEADER_BYTES, FrameHeader, GROUP_HEADER_BYTES, GroupHeader,
        SegmentHeader, SegmentHeaderRead,
    },
    storage::StorageFile,
};

/// Bytes read at a time.
const READ_BYTES: u64 = 256 << 10;

/// What is told about a segment, in the order of its bytes.
pub(crate) trait Visitor {
    /// The last record known, or known to be lost: only later ones are wanted.
    fn last_lsn(&self) -> u64;

    /// Records up to here were durable; only those are worth looking for behind damage.
    fn synced_lsn(&self) -> u64;

    /// A group starts. `Break` if nothing from here on is wanted.
    fn group(&mut self, header: &GroupHeader) -> Result<ControlFlow<()>, Error>;

    /// A record that verified. `Break` if nothing from here on is wanted.
    fn record(&mut self, found: &FoundRecord<'_>) -> Result<ControlFlow<()>, Error>;

    /// At `offset`, where record `lsn` should be, something else is. `Break` if it is the torn end.
    fn damage(&mut self, lsn: u64, offset: u64, sort: Damage) -> ControlFlow<()>;
}

/// What is wrong at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// No group's header, and none behind it in this segment: damage, or just where the groups end.
    GroupsEnd,
    /// No group's header, but one behind it.
    GroupHeader,
    FrameHeader,
    Payload,
}

impl Damage {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::GroupsEnd => "no group where the next one should be",
            Self::GroupHeader => "group header does not match its checksum",
            Self::FrameHeader => "record header does not match its checksum",
            Self::Payload => "payload does not match its checksum",
        }
    }
}

/// A record as found in a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FoundRecord<'a> {
    pub(crate) lsn: u64,
    pub(crate) kind: u8,
    pub(crate) payload: &'a [u8],
}

/// Reads a segment file.
#[derive(Debug)]
pub(crate) struct SegmentReader {
    path: PathBuf,
    file: Arc<dyn StorageFile>,
    len: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl SegmentReader {
    pub(crate) fn new(path: PathBuf, file: Arc<dyn StorageFile>) -> Result<Self, Error> {
        let len = file.len().map_err(|source| Error::Io {
            operation: "measure",
            path: path.clone(),
            source,
        })?;
        Ok(Self {
            path,
            file,
            len,
            buffer: Vec::new(),
            buffer_at: 0,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn file(&self) -> &Arc<dyn StorageFile> {
        &self.file
    }

    /// Gives back the memory it read into.
    pub(crate) fn release(&mut self) {
        self.buffer = Vec::new();
    }

    /// The header of the segment, which is `number` by the name of its file.
    pub(crate) fn header(&mut self, number: u64) -> Result<SegmentHeaderRead, Error> {
        Ok(SegmentHeader::decode_block(
            self.bytes(0, BLOCK_BYTES)?,
            number,
        ))
    }

    /// The first group at `offset` or a later boundary.
    pub(crate) fn next_group(
        &mut self,
        seed: Seed,
        offset: u64,
    ) -> Result<Option<GroupHeader>, Error> {
        let mut at = offset;
        while at.saturating_add(GROUP_HEADER_BYTES as u64) <= self.len {
            let bytes = self.bytes(at, GROUP_HEADER_BYTES as u64)?;
            if let Some(header) = GroupHeader::decode(bytes, seed, at) {
                return Ok(Some(header));
            }
            at += BLOCK_BYTES;
        }
        Ok(None)
    }

    /// Tells `visitor` what the segment holds. `upper` is the last LSN it can be expected to hold;
    /// `groups_end`, if known, is where its last group ends.
    pub(crate) fn scan(
        &mut self,
        seed: Seed,
        upper: u64,
        groups_end: Option<u64>,
        visitor: &mut dyn Visitor,
    ) -> Result<ControlFlow<()>, Error> {
        let mut at = BLOCK_BYTES;
        loop {
            let known_empty = groups_end.is_some_and(|end| at >= end);
            let done = visitor.last_lsn() >= upper;
            let group = if known_empty || done {
                None
            } else {
                self.next_group(seed, at)?
            };
            let group = group.filter(|group| group.first_lsn <= upper);
            let missing_to = group.map_or(upper, |group| group.first_lsn - 1);
            let region_end = group.map_or(self.len, |group| group.offset);
            let missing = visitor.last_lsn() < missing_to;
            // Groups leave no room between them: even where no record is missing, a marker is.
            if region_end > at && (missing || group.is_some()) {
                let lsn = (visitor.last_lsn() + 1).min(missing_to);
                let sort = if group.is_some() {
                    Damage::GroupHeader
                } else {
                    Damage::GroupsEnd
                };
                if visitor.damage(lsn, at, sort).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                let wanted_to = missing_to.min(visitor.synced_lsn());
                if self
                    .salvage(seed, at, region_end, wanted_to, visitor)?
                    .is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
            }
            let Some(group) = group else {
                return Ok(ControlFlow::Continue(()));
            };
            if visitor.group(&group)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            if self.scan_group(seed, &group, upper, visitor)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            at = group.end();
        }
    }

    fn scan_group(
        &mut self,
        seed: Seed,
        group: &GroupHeader,
        upper: u64,
        visitor: &mut dyn Visitor,
    ) -> Result<ControlFlow<()>, Error> {
        let mut at = group.offset + GROUP_HEADER_BYTES as u64;
        let end = (at + u64::from(group.body_bytes)).min(self.len);
        let last = group.last_lsn().min(upper);
        let mut expected = group.first_lsn;
        while expected <= last {
            let header = FrameHeader::decode(self.bytes(at, FRAME_HEADER_BYTES as u64)?, seed)
                .filter(|frame| frame.lsn == expected && at + frame.frame_bytes() <= end);
            let Some(frame) = header else {
                if visitor.damage(expected, at, Damage::FrameHeader).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                match self.find_frame(seed, at + 1, end, expected, last)? {
                    Some((found_at, frame)) => {
                        at = found_at;
                        expected = frame.lsn;
                        continue;
                    }
                    None => return Ok(ControlFlow::Continue(())),
                }
            };
            if self.visit_record(at, &frame, visitor)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            at += frame.frame_bytes();
            expected += 1;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Looks for frames of missing records where no group header tells where they are.
    fn salvage(
        &mut self,
        seed: Seed,
        from: u64,
        to: u64,
        last: u64,
        visitor: &mut dyn Visitor,
    ) -> Result<ControlFlow<()>, Error> {
        let mut at = from;
        while let Some((found_at, frame)) =
            self.find_frame(seed, at, to, visitor.last_lsn() + 1, last)?
        {
            if self.visit_record(found_at, &frame, visitor)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            at = found_at + frame.frame_bytes();
        }
        Ok(ControlFlow::Continue(()))
    }

    fn visit_record(
        &mut self,
        at: u64,
        frame: &FrameHeader,
        visitor: &mut dyn Visitor,
    ) -> Result<ControlFlow<()>, Error> {
        let payload = self.bytes(at + FRAME_HEADER_BYTES as u64, frame.payload_bytes.into())?;
        if payload.len() == frame.payload_bytes as usize
            && checksum::plain(&[payload]) == frame.payload_checksum
        {
            visitor.record(&FoundRecord {
                lsn: frame.lsn,
                kind: frame.kind,
                payload,
            })
        } else {
            Ok(visitor.damage(frame.lsn, at, Damage::Payload))
        }
    }

    /// The first byte in `from..to` at which a whole frame with an LSN in `first..=last` starts.
    fn find_frame(
        &mut self,
        seed: Seed,
        from: u64,
        to: u64,
        first: u64,
        last: u64,
    ) -> Result<Option<(u64, FrameHeader)>, Error> {
        let mut at = from;
        while first <= last && at.saturating_add(FRAME_HEADER_BYTES as u64) <= to {
            let window = self.bytes(at, READ_BYTES.min(to - at))?;
            let mut tried = 0;
            for bytes in window.windows(FRAME_HEADER_BYTES) {
                let here = at + tried;
                tried += 1;
                let wanted =
                    FrameHeader::peek_lsn(bytes).is_some_and(|lsn| lsn >= first && lsn <= last);
                if wanted
                    && let Some(frame) = FrameHeader::decode(bytes, seed)
                    && here + frame.frame_bytes() <= to
                {
                    return Ok(Some((here, frame)));
                }
            }
            if tried == 0 {
                break;
            }
            at += tried;
        }
        Ok(None)
    }

    /// The bytes from `offset` on, `len` of them or as many as the file has.
    fn bytes(&mut self, offset: u64, len: u64) -> Result<&[u8], Error> {
        let len = len.min(self.len.saturating_sub(offset));
        let have = self.buffer_at..self.buffer_at + self.buffer.len() as u64;
        if offset < have.start || offset + len > have.end {
            let wanted = len.max(READ_BYTES).min(self.len.saturating_sub(offset));
            self.buffer
                .resize(usize::try_from(wanted).unwrap_or(usize::MAX), 0);
            self.buffer_at = offset;
            let read = self.file.read_at(offset, &mut self.buffer);
            let read = read.map_err(|source| {
                self.buffer.clear();
                Error::Io {
                    operation: "read",
                    path: self.path.clone(),
                    source,
                }
            })?;
            self.buffer.truncate(read);
        }
        let start = usize::try_from(offset - self.buffer_at).unwrap_or(usize::MAX);
        let rest = self.buffer.get(start..).unwrap_or_default();
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
        Ok(rest.get(..len).unwrap_or_default())
    }
}
