//! One section of a metric block for reading: its bytes, and errors that name the place in the file.

use std::ops::Range;

use crate::{
    block::{Block, Section, SectionBytes, SectionKind},
    column::ColumnError,
    error::Error,
};

/// A section, its kind and its block.
pub(super) struct SectionReader<'b> {
    block: &'b Block,
    kind: SectionKind,
    section: Section<'b>,
}

impl<'b> SectionReader<'b> {
    /// The section; empty if the block has none of this kind.
    pub(super) fn open(block: &'b Block, kind: SectionKind) -> Result<Self, Error> {
        let section = block.section(kind)?;
        Ok(Self {
            block,
            kind,
            section,
        })
    }

    pub(super) fn len_bytes(&self) -> u64 {
        self.section.len_bytes()
    }

    /// Verified bytes. A range that is not inside the section is damage: it was read from the block.
    pub(super) fn bytes(&self, range: Range<u64>) -> Result<SectionBytes<'b>, Error> {
        if range.start > range.end || range.end > self.len_bytes() {
            return Err(self.damaged(range.start, "a reference points out of its section"));
        }
        self.section.bytes(range)
    }

    /// The last `N` bytes, from which on a section is read.
    pub(super) fn trailer<const N: usize>(&self) -> Result<[u8; N], Error> {
        let start = self.len_bytes().checked_sub(N as u64);
        let start = start.ok_or_else(|| self.damaged(0, "shorter than its trailer"))?;
        let bytes = self.bytes(start..self.len_bytes())?;
        <[u8; N]>::try_from(&*bytes).map_err(|_| self.damaged(start, "shorter than its trailer"))
    }

    /// The error for something wrong at `offset_bytes` of the section.
    pub(super) fn damaged(&self, offset_bytes: u64, reason: &str) -> Error {
        self.block.damage(self.kind, offset_bytes, reason)
    }

    /// Gives the result of decoding what starts at `start_bytes` its place in the file.
    pub(super) fn placed<T>(
        &self,
        start_bytes: u64,
        result: Result<T, ColumnError>,
    ) -> Result<T, Error> {
        result.map_err(|error| match error {
            ColumnError::Damaged {
                offset_bytes,
                reason,
            } => self.damaged(start_bytes.saturating_add(offset_bytes as u64), reason),
        })
    }
}

/// A little-endian number at a fixed place of an array; 0 past its end.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let bytes = bytes.get(offset..).and_then(|b| b.first_chunk());
    bytes.map_or(0, |b| u32::from_le_bytes(*b))
}

/// A little-endian number at a fixed place of an array; 0 past its end.
pub(super) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let bytes = bytes.get(offset..).and_then(|b| b.first_chunk());
    bytes.map_or(0, |b| u64::from_le_bytes(*b))
}
