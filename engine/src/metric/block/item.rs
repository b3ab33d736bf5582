//! Reading and writing one item of a section: integers, and columns behind their length.
//!
//! Numbers in an item come from outside: every length is checked against the bytes that are there,
//! every count against a bound of the caller's, and an error says where in the item it was found.

use crate::{
    column::{ColumnError, integers},
    varint::{put_u64, take_slice, take_u64},
};

/// An item that is read from front to back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item<'b> {
    length_bytes: usize,
    rest: &'b [u8],
}

impl<'b> Item<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self {
            length_bytes: bytes.len(),
            rest: bytes,
        }
    }

    /// Bytes read so far.
    pub(super) fn offset_bytes(&self) -> usize {
        self.length_bytes - self.rest.len()
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The error for what was just read.
    pub(super) fn damaged(&self, reason: &'static str) -> ColumnError {
        ColumnError::Damaged {
            offset_bytes: self.offset_bytes(),
            reason,
        }
    }

    pub(super) fn take_u64(&mut self) -> Result<u64, ColumnError> {
        take_u64(&mut self.rest).ok_or_else(|| self.damaged("an integer is cut short"))
    }

    /// A number that is at most `max`.
    pub(super) fn take_count(
        &mut self,
        max: usize,
        reason: &'static str,
    ) -> Result<usize, ColumnError> {
        let count = usize::try_from(self.take_u64()?).ok();
        count
            .filter(|count| *count <= max)
            .ok_or_else(|| self.damaged(reason))
    }

    pub(super) fn take_slice(&mut self, bytes: usize) -> Result<&'b [u8], ColumnError> {
        take_slice(&mut self.rest, bytes).ok_or_else(|| self.damaged("bytes are cut short"))
    }

    pub(super) fn take_u8(&mut self) -> Result<u8, ColumnError> {
        let byte = self.take_slice(1)?;
        byte.first()
            .copied()
            .ok_or_else(|| self.damaged("bytes are cut short"))
    }

    /// A length and that many bytes.
    pub(super) fn take_bytes(&mut self) -> Result<&'b [u8], ColumnError> {
        let bytes = self.take_count(self.rest.len(), "a length points past the end")?;
        self.take_slice(bytes)
    }

    /// Reads a column of `count` integers into the emptied `out`. The caller has bounded `count`.
    pub(super) fn take_integers(
        &mut self,
        count: usize,
        out: &mut Vec<i64>,
    ) -> Result<(), ColumnError> {
        let bytes = self.take_bytes()?;
        let start_bytes = self.offset_bytes() - bytes.len();
        out.clear();
        integers::decode(bytes, count, out).map_err(|error| moved_by(error, start_bytes))?;
        if out.len() != count {
            return Err(self.damaged("a column has another count"));
        }
        Ok(())
    }
}

/// Appends a column of integers behind its length.
pub(super) fn put_integers(out: &mut Vec<u8>, values: &[i64], scratch: &mut Vec<u8>) {
    scratch.clear();
    integers::encode(values, scratch);
    put_u64(out, scratch.len() as u64);
    out.extend_from_slice(scratch);
}

/// The error of a column that starts `by_bytes` further on.
pub(super) fn moved_by(error: ColumnError, by_bytes: usize) -> ColumnError {
    match error {
        ColumnError::Damaged {
            offset_bytes,
            reason,
        } => ColumnError::Damaged {
            offset_bytes: offset_bytes.saturating_add(by_bytes),
            reason,
        },
    }
}
