//! The index of a block: which rows satisfy matchers, and what rows are called, from bytes on disk.
//!
//! Rows are numbered from 0 in the order of their [`Labels`](crate::Labels). The bytes are described
//! in `docs/formats/series-index.md`; they lie in two parts, strings and index, behind a [`Source`]
//! each, which gives verified bytes.
//!
//! Invariants
//! - Opening reads a trailer of fixed size and nothing else.
//! - Every offset, length and count is checked before it is used; damaged bytes give an error or
//!   other answers, never a panic, and no allocation is larger than the part or a row's bit or number.
//! - Values of a label are sorted and known by their place, so that a prefix is a range of codes.

mod cardinality;
mod codes;
mod column;
mod dictionary;
mod directory;
mod error;
mod packed;
mod postings;
mod reader;
mod region;
mod row_map;
mod select;
mod shapes;
mod sink;
mod writer;

use std::borrow::Cow;
use std::ops::Range;

pub use cardinality::{NameCardinality, PairCardinality};
pub use directory::ROWS_MAX;
pub use error::{Error, Part};
pub use reader::{DiskIndex, LabelsCursor};
pub use sink::ItemWriter;
pub use writer::DiskIndexWriter;

/// Where the bytes of a part come from.
pub trait Source: Send + Sync {
    /// Why bytes could not be read.
    type Error: std::error::Error + 'static;

    /// Bytes of the part.
    fn len_bytes(&self) -> u64;

    /// Verified bytes of the part; the range lies within it.
    ///
    /// # Errors
    /// When they could not be read or are not what was written.
    fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, Self::Error>;
}

impl Source for &[u8] {
    type Error = std::convert::Infallible;

    fn len_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, Self::Error> {
        Ok(Cow::Borrowed(slice(self, range)))
    }
}

impl Source for Vec<u8> {
    type Error = std::convert::Infallible;

    fn len_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, Self::Error> {
        Ok(Cow::Borrowed(slice(self, range)))
    }
}

fn slice(bytes: &[u8], range: Range<u64>) -> &[u8] {
    let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
    bytes
        .get(at(range.start)..at(range.end))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
