//! Where a column's bytes lie: a section of a block, or bytes in memory.

use std::{borrow::Cow, ops::Range, path::PathBuf, sync::Arc};

use crate::{
    block::{Block, SectionKind},
    error::Error,
};

/// Reads verified bytes of a section. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum ColumnSource {
    /// A section of a block.
    Section(Arc<Block>, SectionKind),
    /// The bytes of a section, for tests and fuzzers.
    Bytes(Arc<[u8]>),
}

impl ColumnSource {
    /// A range of the section, in one piece.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`], also for a range that the section does not have; [`Error::Storage`].
    pub(crate) fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, Error> {
        match self {
            Self::Section(block, section) => Ok(block.section(*section)?.bytes(range)?.into_cow()),
            Self::Bytes(bytes) => {
                let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
                bytes
                    .get(index(range.start)..index(range.end))
                    .map(Cow::Borrowed)
                    .ok_or_else(|| self.damaged(range.start, "a range beyond the section"))
            }
        }
    }

    /// `bytes` bytes from `start` on.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn read_at(&self, start: u64, bytes: u64) -> Result<Cow<'_, [u8]>, Error> {
        match start.checked_add(bytes) {
            Some(end) => self.read(start..end),
            None => Err(self.damaged(start, "a range beyond the section")),
        }
    }

    /// An error about what stands at an offset of the section.
    #[cold]
    pub(crate) fn damaged(&self, offset_bytes: u64, reason: &str) -> Error {
        match self {
            Self::Section(block, section) => block.damage(*section, offset_bytes, reason),
            Self::Bytes(_) => Error::CorruptBlock {
                path: PathBuf::new(),
                offset_bytes,
                reason: reason.to_owned(),
            },
        }
    }
}
