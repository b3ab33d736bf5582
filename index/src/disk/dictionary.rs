//! Sorted strings, each standing for its place among them: code 1 is the first, 0 no string at all.
//!
//! Strings are front-coded in blocks of sixteen; the first of a block is whole. A packed array gives
//! where each block starts. So a string is found by halving over the first strings of blocks, and a
//! code by reading the start of its block. The bytes: `docs/formats/series-index.md`.

use std::borrow::Cow;
use std::ops::Range;

use super::Source;
use super::error::Error;
use super::packed::{PackedArray, pack, packed_len, width_of};
use super::region::Region;
use super::sink::Sink;
use crate::varint::{push_varint, read_varint};

/// Strings of a block: half of them are decoded for a string in the middle.
pub(crate) const BLOCK_STRINGS: u32 = 16;

/// Writes strings that rise strictly.
#[derive(Debug, Default)]
pub(crate) struct DictionaryWriter {
    block: Vec<u8>,
    block_starts: Vec<u64>,
    /// Where the text of the first block lies.
    text_bytes: Option<u64>,
    previous: Vec<u8>,
    count: u32,
}

/// Where a dictionary lies in the strings part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DictionaryRef {
    pub(crate) count: u32,
    /// Start of the first block.
    pub(crate) text_bytes: u64,
    /// By block, where it starts behind `text_bytes`; and where the last one ends.
    pub(crate) starts: PackedArray,
}

impl DictionaryWriter {
    pub(crate) fn push<E>(&mut self, text: &str, sink: &mut Sink<'_, E>) -> Result<(), E> {
        let text = text.as_bytes();
        if self.count.is_multiple_of(BLOCK_STRINGS) {
            self.end_block(sink)?;
            push_varint(&mut self.block, text.len() as u64);
            self.block.extend_from_slice(text);
        } else {
            let shared = shared_len(&self.previous, text);
            let (_, rest) = text.split_at(shared);
            push_varint(&mut self.block, shared as u64);
            push_varint(&mut self.block, rest.len() as u64);
            self.block.extend_from_slice(rest);
        }
        self.previous.clear();
        self.previous.extend_from_slice(text);
        self.count += 1;
        Ok(())
    }

    fn end_block<E>(&mut self, sink: &mut Sink<'_, E>) -> Result<(), E> {
        if self.block.is_empty() {
            return Ok(());
        }
        let offset_bytes = sink.push(&self.block)?;
        let first = *self.text_bytes.get_or_insert(offset_bytes);
        self.block_starts.push(offset_bytes - first);
        self.block.clear();
        Ok(())
    }

    /// Ends the dictionary; the writer is ready for another.
    pub(crate) fn finish<E>(&mut self, sink: &mut Sink<'_, E>) -> Result<DictionaryRef, E> {
        self.end_block(sink)?;
        let text_bytes = self.text_bytes.take().unwrap_or_default();
        let end_bytes = sink.offset_bytes();
        if !self.block_starts.is_empty() {
            self.block_starts.push(end_bytes - text_bytes);
        }
        let width = width_of(self.block_starts.last().copied().unwrap_or_default());
        let mut starts = Vec::new();
        pack(self.block_starts.drain(..), width, &mut starts);
        let count = u64::from(self.count.div_ceil(BLOCK_STRINGS));
        let count = if count == 0 { 0 } else { count + 1 };
        debug_assert_eq!(starts.len() as u64, packed_len(count, width));
        let starts = PackedArray {
            offset_bytes: sink.push(&starts)?,
            count,
            width,
        };
        let dictionary = DictionaryRef {
            count: self.count,
            text_bytes,
            starts,
        };
        self.previous.clear();
        self.count = 0;
        Ok(dictionary)
    }
}

fn shared_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// A dictionary that can be read.
#[derive(Debug)]
pub(crate) struct Dictionary<'a, S> {
    strings: Region<'a, S>,
    at: DictionaryRef,
}

impl<S> Clone for Dictionary<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Dictionary<'_, S> {}

impl<'a, S: Source> Dictionary<'a, S> {
    pub(crate) fn new(strings: Region<'a, S>, at: DictionaryRef) -> Self {
        Self { strings, at }
    }

    pub(crate) fn count(self) -> u32 {
        self.at.count
    }

    /// The code of a string.
    pub(crate) fn find(self, text: &str) -> Result<Option<u32>, Error<S::Error>> {
        let code = self.first_not(|other| other < text.as_bytes())?;
        if code > self.at.count {
            return Ok(None);
        }
        let mut cursor = DictionaryCursor::new(self);
        cursor.seek(code)?;
        Ok((cursor.bytes() == text.as_bytes()).then_some(code))
    }

    /// The codes of the strings that start so.
    pub(crate) fn with_prefix(self, prefix: &str) -> Result<Range<u32>, Error<S::Error>> {
        let prefix = prefix.as_bytes();
        if prefix.is_empty() {
            return Ok(1..self.at.count.saturating_add(1));
        }
        let start = self.first_not(|text| text < prefix)?;
        let end = self.first_not(|text| text < prefix || text.starts_with(prefix))?;
        Ok(start..end.max(start))
    }

    /// The first code for whose string the condition does not hold; it holds for some first strings
    /// and for none behind them.
    fn first_not(self, holds: impl Fn(&[u8]) -> bool) -> Result<u32, Error<S::Error>> {
        let blocks = self.at.count.div_ceil(BLOCK_STRINGS);
        let (mut low, mut high) = (0, blocks);
        let mut cursor = DictionaryCursor::new(self);
        while low < high {
            let middle = low + (high - low) / 2;
            cursor.seek(middle * BLOCK_STRINGS + 1)?;
            if holds(cursor.bytes()) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let Some(block) = low.checked_sub(1) else {
            return Ok(1);
        };
        let first = block * BLOCK_STRINGS + 1;
        let end = self.at.count.min(first + (BLOCK_STRINGS - 1));
        for code in first + 1..=end {
            cursor.seek(code)?;
            if !holds(cursor.bytes()) {
                return Ok(code);
            }
        }
        Ok(end + 1)
    }

    fn block(self, block: u32) -> Result<Cow<'a, [u8]>, Error<S::Error>> {
        let block = u64::from(block);
        let start = self.at.starts.get(self.strings, block)?;
        let end = self.at.starts.get(self.strings, block + 1)?;
        let (start, end) = (
            self.at.text_bytes.checked_add(start),
            self.at.text_bytes.checked_add(end),
        );
        match (start, end) {
            (Some(start), Some(end)) => self.strings.read(start..end),
            _ => Err(self.damaged("a block lies beyond the part")),
        }
    }

    fn damaged(self, reason: &'static str) -> Error<S::Error> {
        self.strings.damaged(self.at.text_bytes, reason)
    }
}

/// A string of a dictionary, and where it stands in its block: rising codes are cheap.
#[derive(Debug)]
pub(crate) struct DictionaryCursor<'a, S> {
    dictionary: Dictionary<'a, S>,
    block: Cow<'a, [u8]>,
    /// Bytes of the block already read.
    read_bytes: usize,
    /// Of `text`; 0 before the first.
    code: u32,
    text: Vec<u8>,
}

impl<'a, S: Source> DictionaryCursor<'a, S> {
    pub(crate) fn new(dictionary: Dictionary<'a, S>) -> Self {
        Self {
            dictionary,
            block: Cow::Borrowed(&[]),
            read_bytes: 0,
            code: 0,
            text: Vec::new(),
        }
    }

    /// Goes to a string.
    pub(crate) fn seek(&mut self, code: u32) -> Result<(), Error<S::Error>> {
        if code == self.code && code != 0 {
            return Ok(());
        }
        let Some(index) = code
            .checked_sub(1)
            .filter(|i| *i < self.dictionary.at.count)
        else {
            return Err(self.dictionary.damaged("a code beyond the dictionary"));
        };
        let block = index / BLOCK_STRINGS;
        let same_block = self.code != 0 && (self.code - 1) / BLOCK_STRINGS == block;
        if !(same_block && self.code < code) {
            self.block = self.dictionary.block(block)?;
            self.read_bytes = 0;
            self.code = block * BLOCK_STRINGS;
            self.text.clear();
        }
        while self.code < code {
            let read = self.step();
            if read.is_none() {
                self.code = 0;
                return Err(self.dictionary.damaged("a block of strings is malformed"));
            }
            self.code += 1;
        }
        Ok(())
    }

    fn step(&mut self) -> Option<()> {
        if self.code.is_multiple_of(BLOCK_STRINGS) {
            self.text.clear();
        } else {
            let shared = usize::try_from(self.varint()?).ok()?;
            if shared > self.text.len() {
                return None;
            }
            self.text.truncate(shared);
        }
        let len = usize::try_from(self.varint()?).ok()?;
        let rest = self.block.get(self.read_bytes..)?.get(..len)?;
        self.text.extend_from_slice(rest);
        self.read_bytes += len;
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let rest = self.block.get(self.read_bytes..)?;
        if let Some(&byte) = rest.first()
            && byte < 0x80
        {
            self.read_bytes += 1;
            return Some(u64::from(byte));
        }
        let (value, len, _) = read_varint(rest)?;
        self.read_bytes += len;
        Some(value)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.text
    }

    /// The string.
    pub(crate) fn text(&self) -> Result<&str, Error<S::Error>> {
        std::str::from_utf8(&self.text)
            .map_err(|_| self.dictionary.damaged("a string is not UTF-8"))
    }
}
