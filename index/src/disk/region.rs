//! One part of an index, read with its bounds checked.

use std::borrow::Cow;
use std::ops::Range;

use super::Source;
use super::error::{Error, Part};

/// A part and its name.
#[derive(Debug)]
pub(crate) struct Region<'a, S> {
    source: &'a S,
    part: Part,
}

impl<S> Clone for Region<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Region<'_, S> {}

impl<'a, S: Source> Region<'a, S> {
    pub(crate) fn new(source: &'a S, part: Part) -> Self {
        Self { source, part }
    }

    pub(crate) fn len_bytes(self) -> u64 {
        self.source.len_bytes()
    }

    /// Bytes of the part; damage if it has no such range.
    pub(crate) fn read(self, range: Range<u64>) -> Result<Cow<'a, [u8]>, Error<S::Error>> {
        if range.start > range.end || range.end > self.source.len_bytes() {
            return Err(self.damaged(range.start, "a range reaches beyond the part"));
        }
        let len = range.end - range.start;
        let bytes = self.source.read(range.clone()).map_err(Error::Source)?;
        if bytes.len() as u64 != len {
            return Err(self.damaged(range.start, "the part ends early"));
        }
        Ok(bytes)
    }

    pub(crate) fn damaged(self, offset_bytes: u64, reason: &'static str) -> Error<S::Error> {
        Error::Damaged {
            part: self.part,
            offset_bytes,
            reason,
        }
    }
}
