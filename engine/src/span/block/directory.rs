//! The directory of a span block: what is read when it is opened.
//!
//! Each section's *head* says where in the section everything lies. The heads stand together in a
//! section of their own, and again in a second one: a damaged page of one is read from the other, so
//! that no single page holds the rest of the block to ransom.
//!
//! ```text
//! directory  version | count of heads | (section code | length | head)*
//! ```

use crate::{
    block::{Block, BlockWriter, PAGE_BYTES_MAX, SectionKind},
    column::integers,
    error::Error,
    value::Value,
    varint,
};

/// The version written and read.
const VERSION: u64 = 1;
/// What is wrong with a head.
pub(super) type Wrong = &'static str;

const CUT: Wrong = "a head is cut short";

/// The heads of a block that is being written.
#[derive(Debug, Default)]
pub(super) struct DirectoryWriter {
    heads: Vec<(SectionKind, Vec<u8>)>,
}

impl DirectoryWriter {
    /// Adds a section's head.
    pub(super) fn push(&mut self, section: SectionKind, head: Vec<u8>) {
        self.heads.push((section, head));
    }

    /// Writes them, twice.
    pub(super) fn finish(self, writer: &mut BlockWriter) -> Result<(), Error> {
        let mut bytes = Vec::new();
        varint::put_u64(&mut bytes, VERSION);
        varint::put_u64(&mut bytes, self.heads.len() as u64);
        for (section, head) in self.heads {
            bytes.push(section as u8);
            varint::put_bytes(&mut bytes, &head);
        }
        for section in [SectionKind::SpanDirectory, SectionKind::SpanDirectoryCopy] {
            writer.begin(section)?;
            writer.write(&bytes)?;
        }
        Ok(())
    }
}

/// The heads of a block.
#[derive(Debug)]
pub(super) struct Directory {
    bytes: Vec<u8>,
    heads: Vec<(u8, std::ops::Range<usize>)>,
}

impl Directory {
    /// Reads the heads, page by page from whichever section has the page intact.
    pub(super) fn open(block: &Block) -> Result<Self, Error> {
        let first = block.section(SectionKind::SpanDirectory)?;
        let second = block.section(SectionKind::SpanDirectoryCopy)?;
        let length = first.len_bytes();
        if length != second.len_bytes() {
            let reason = "the directory and its copy differ in length";
            return Err(block.damage(SectionKind::SpanDirectory, 0, reason));
        }
        let mut bytes = Vec::new();
        let mut start = 0;
        while start < length {
            let end = length.min(start + PAGE_BYTES_MAX as u64);
            let page = first.bytes(start..end);
            let page = page.or_else(|error| second.bytes(start..end).map_err(|_| error))?;
            bytes.extend_from_slice(&page);
            start = end;
        }
        let heads = places_of(&bytes)
            .map_err(|reason| block.damage(SectionKind::SpanDirectory, 0, reason))?;
        Ok(Self { bytes, heads })
    }

    /// A section's head; empty if there is none.
    pub(super) fn head(&self, section: SectionKind) -> &[u8] {
        let found = self.heads.iter().find(|(code, _)| *code == section as u8);
        found
            .and_then(|(_, place)| self.bytes.get(place.clone()))
            .unwrap_or_default()
    }

    /// The same, to be read from its front.
    pub(super) fn reader(&self, section: SectionKind) -> HeadReader<'_> {
        HeadReader {
            rest: self.head(section),
        }
    }
}

fn places_of(bytes: &[u8]) -> Result<Vec<(u8, std::ops::Range<usize>)>, Wrong> {
    let mut head = HeadReader { rest: bytes };
    if head.u64()? != VERSION {
        return Err("an unknown version of the directory");
    }
    let mut heads = Vec::new();
    for _ in 0..head.u64()? {
        let code = head.u8()?;
        let found = head.bytes()?;
        let end = bytes.len() - head.rest.len();
        heads.push((code, end - found.len()..end));
    }
    head.end()?;
    Ok(heads)
}

/// A head that is read from front to back. Every number comes from outside.
#[derive(Clone, Debug)]
pub(super) struct HeadReader<'h> {
    rest: &'h [u8],
}

impl<'h> HeadReader<'h> {
    pub(super) fn new(rest: &'h [u8]) -> Self {
        Self { rest }
    }

    pub(super) fn u8(&mut self) -> Result<u8, Wrong> {
        let (&byte, rest) = self.rest.split_first().ok_or(CUT)?;
        self.rest = rest;
        Ok(byte)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Wrong> {
        varint::take_u64(&mut self.rest).ok_or(CUT)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Wrong> {
        varint::take_u32(&mut self.rest).ok_or("a number of a head is cut short or too large")
    }

    pub(super) fn i64(&mut self) -> Result<i64, Wrong> {
        varint::take_i64(&mut self.rest).ok_or(CUT)
    }

    /// So many bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(CUT)?;
        self.rest = rest;
        Ok(*array)
    }

    /// A length and that many bytes.
    pub(super) fn bytes(&mut self) -> Result<&'h [u8], Wrong> {
        varint::take_bytes(&mut self.rest).ok_or(CUT)
    }

    /// A length and that much text.
    pub(super) fn text(&mut self) -> Result<&'h str, Wrong> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "a text is not UTF-8")
    }

    /// An attribute's value.
    pub(super) fn value(&mut self) -> Result<Value, Wrong> {
        Value::decode(&mut self.rest).ok_or("an attribute's value does not decode")
    }

    /// A length and a column of `count` integers in so many bytes.
    pub(super) fn integers(&mut self, count: u32, out: &mut Vec<i64>) -> Result<(), Wrong> {
        out.clear();
        let decoded = integers::decode(self.bytes()?, count as usize, out);
        decoded.map_err(|_| "a column of a head does not decode")
    }

    /// The same for numbers that are at most `max`.
    pub(super) fn numbers(&mut self, count: u32, max: u32) -> Result<Vec<u32>, Wrong> {
        let mut values = Vec::new();
        self.integers(count, &mut values)?;
        let number = |value: i64| u32::try_from(value).ok().filter(|value| *value <= max);
        let numbers = values.into_iter().map(number).collect::<Option<_>>();
        numbers.ok_or("a number of a head is out of its range")
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), Wrong> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err("bytes behind a head")
        }
    }
}

/// Appends a column of integers behind its length.
pub(super) fn put_integers(out: &mut Vec<u8>, values: impl Iterator<Item = i64>) {
    let values: Vec<i64> = values.collect();
    let mut bytes = Vec::new();
    integers::encode(&values, &mut bytes);
    varint::put_bytes(out, &bytes);
}
