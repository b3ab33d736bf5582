//! Byte strings in a section, in pages that are read one by one.
//!
//! A page holds about 16 KiB of strings, compressed with zstd where that pays; a longer string has a page
//! of its own. A directory of fixed-width entries says where each page starts and which string is its
//! first. Strings that rise have separators beside it: a string that is looked for costs one page.
//! Bytes: `docs/formats/attribute-column.md`.

use super::{
    head::{HeadReader, put_unsigned},
    numbers::{put_fixed, take_fixed},
    sink::{Gathered, Sink, write_run},
    source::ColumnSource,
    table::ValueTable,
};
use crate::{error::Error, varint};

/// Bytes of the strings of a page, but for one longer string.
const PAGE_BYTES: usize = 16 * 1024;
/// Pages of no more bytes are not compressed: they are few, and read often.
const PLAIN_BYTES_MAX: usize = 2 * 1024;
/// A page expands to at most this, or to [`EXPANSION_MAX`] times its bytes.
const EXPANDED_BYTES_ALWAYS: usize = 128 * 1024;
/// See [`EXPANDED_BYTES_ALWAYS`]: what is compressed better is stored as it is.
const EXPANSION_MAX: usize = 64;
/// Fast, and within a few percent of what costs several times as much.
const ZSTD_LEVEL: i32 = 1;

/// The first byte of a page.
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// Where byte strings lie in the section.
#[derive(Clone, Debug)]
pub(super) struct Texts {
    count: u32,
    pages: u32,
    data_at: u64,
    data_bytes: u64,
    directory_at: u64,
    first_width: u8,
    offset_width: u8,
    /// For strings that rise.
    separators_at: u64,
    separators_bytes: u64,
}

/// The last page that was read.
#[derive(Default)]
pub(super) struct TextsCursor {
    page: Option<u32>,
    first: u32,
    strings: ValueTable,
    bytes: Vec<u8>,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl std::fmt::Debug for TextsCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextsCursor")
            .field("page", &self.page)
            .finish_non_exhaustive()
    }
}

/// What the directory says of a page.
#[derive(Clone, Copy, Debug)]
struct PageEntry {
    first: u32,
    /// The first string of the next page.
    end: u32,
    start: u64,
    bytes: u64,
}

/// Makes pages of strings.
#[derive(Default)]
struct PageWriter {
    strings: ValueTable,
    raw: Vec<u8>,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl PageWriter {
    /// Appends the page of the strings that are held, and forgets them.
    fn write(&mut self, out: &mut Vec<u8>) {
        self.raw.clear();
        for string in self.strings.iter() {
            varint::put_u64(&mut self.raw, string.len() as u64);
        }
        for string in self.strings.iter() {
            self.raw.extend_from_slice(string);
        }
        self.strings.clear();
        let start = out.len();
        if self.raw.len() > PLAIN_BYTES_MAX {
            out.push(ZSTD);
            varint::put_u64(out, self.raw.len() as u64);
            let head = out.len();
            if self.compress(out) {
                let stored = out.len() - start;
                let expands =
                    EXPANDED_BYTES_ALWAYS.max((out.len() - head).saturating_mul(EXPANSION_MAX));
                if stored <= self.raw.len() && self.raw.len() <= expands {
                    return;
                }
            }
            out.truncate(start);
        }
        out.push(PLAIN);
        out.extend_from_slice(&self.raw);
    }

    fn compress(&mut self, out: &mut Vec<u8>) -> bool {
        if self.zstd.is_none() {
            self.zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
        }
        let Some(zstd) = &mut self.zstd else {
            return false;
        };
        let compressed = zstd.compress(&self.raw);
        compressed.is_ok_and(|bytes| {
            out.extend_from_slice(&bytes);
            true
        })
    }
}

/// The shortest string above `before` and not above `first`.
fn separator<'a>(before: &[u8], first: &'a [u8]) -> &'a [u8] {
    let shared = before.iter().zip(first).take_while(|(a, b)| a == b).count();
    first.get(..=shared).unwrap_or(first)
}

impl Texts {
    /// Writes strings in the order given, at most `u32::MAX`. With `rising` they rise strictly and can be
    /// looked for.
    pub(super) fn write<'a>(
        strings: impl Iterator<Item = &'a [u8]>,
        rising: bool,
        sink: &mut Sink<'_>,
    ) -> Result<Self, Error> {
        let mut page = PageWriter::default();
        let mut data = Gathered::default();
        let mut entries: Vec<(u32, u64)> = Vec::new();
        let mut separators = Vec::new();
        let (mut count, mut first) = (0_u32, 0_u32);
        let mut last: &[u8] = &[];
        for string in strings {
            let held = page.strings.total_bytes();
            if held > 0 && held + string.len() > PAGE_BYTES || page.strings.len() >= PAGE_BYTES {
                let at = data.push(sink, |out| page.write(out))?;
                entries.push((first, at));
                first = count;
                if rising {
                    varint::put_bytes(&mut separators, separator(last, string));
                }
            }
            page.strings.push(string).expect("a page is small");
            last = string;
            count = count
                .checked_add(1)
                .expect("a column has at most 2^32 values");
        }
        if !page.strings.is_empty() {
            let at = data.push(sink, |out| page.write(out))?;
            entries.push((first, at));
        }
        let (data_at, data_bytes) = data.finish(sink)?;
        let width = |max: u64| {
            u8::try_from((u64::BITS - max.leading_zeros()).div_ceil(8)).expect("at most eight")
        };
        let first_width = width(entries.last().map_or(0, |entry| u64::from(entry.0)));
        let offset_width = width(entries.last().map_or(0, |entry| entry.1));
        let mut directory = Vec::new();
        for &(first, at) in &entries {
            put_fixed(&mut directory, u64::from(first), first_width);
            put_fixed(&mut directory, at, offset_width);
        }
        let directory_at = write_run(sink, &directory)?;
        let separators_at = write_run(sink, &separators)?;
        Ok(Self {
            count,
            pages: u32::try_from(entries.len()).expect("a page has a string at least"),
            data_at,
            data_bytes,
            directory_at,
            first_width,
            offset_width,
            separators_at,
            separators_bytes: separators.len() as u64,
        })
    }

    pub(super) fn put(&self, head: &mut Vec<u8>) {
        put_unsigned(head, u64::from(self.count));
        put_unsigned(head, u64::from(self.pages));
        put_unsigned(head, self.data_at);
        put_unsigned(head, self.data_bytes);
        put_unsigned(head, self.directory_at);
        head.extend_from_slice(&[self.first_width, self.offset_width]);
        put_unsigned(head, self.separators_at);
        put_unsigned(head, self.separators_bytes);
    }

    pub(super) fn take(head: &mut HeadReader<'_>) -> Result<Self, Error> {
        let texts = Self {
            count: head.count()?,
            pages: head.count()?,
            data_at: head.unsigned()?,
            data_bytes: head.unsigned()?,
            directory_at: head.unsigned()?,
            first_width: head.byte()?,
            offset_width: head.byte()?,
            separators_at: head.unsigned()?,
            separators_bytes: head.unsigned()?,
        };
        let widths_hold = texts.first_width <= 8 && texts.offset_width <= 8;
        if !widths_hold
            || texts.pages > texts.count
            || u64::from(texts.pages) > texts.data_bytes
            || texts.pages == 0 && texts.count > 0
        {
            return Err(head.damaged("strings that cannot be where they are said to be"));
        }
        Ok(texts)
    }

    pub(super) fn len(&self) -> u32 {
        self.count
    }

    #[cfg(test)]
    pub(super) fn section_bytes(&self) -> u64 {
        self.data_bytes + u64::from(self.pages) * self.entry_bytes() + self.separators_bytes
    }

    fn entry_bytes(&self) -> u64 {
        u64::from(self.first_width) + u64::from(self.offset_width)
    }

    fn entry(&self, source: &ColumnSource, page: u32) -> Result<PageEntry, Error> {
        let wrong = || source.damaged(self.directory_at, "a page's place is wrong");
        let is_last = page + 1 >= self.pages;
        let count = if is_last { 1 } else { 2 };
        let at = (self.directory_at).saturating_add(u64::from(page) * self.entry_bytes());
        let bytes = source.read_at(at, count * self.entry_bytes())?;
        let mut bytes = &*bytes;
        let mut next = || {
            let first = take_fixed(&mut bytes, self.first_width)?;
            let start = take_fixed(&mut bytes, self.offset_width)?;
            Some((u32::try_from(first).ok()?, start))
        };
        let (first, start) = next().ok_or_else(wrong)?;
        let (end, end_bytes) = if is_last {
            (self.count, self.data_bytes)
        } else {
            next().ok_or_else(wrong)?
        };
        if first >= end || start >= end_bytes || end > self.count || end_bytes > self.data_bytes {
            return Err(wrong());
        }
        Ok(PageEntry {
            first,
            end,
            start,
            bytes: end_bytes - start,
        })
    }

    fn first_of(&self, source: &ColumnSource, page: u32) -> Result<u32, Error> {
        let at = (self.directory_at).saturating_add(u64::from(page) * self.entry_bytes());
        let bytes = source.read_at(at, u64::from(self.first_width))?;
        let first = take_fixed(&mut &*bytes, self.first_width);
        first
            .and_then(|first| u32::try_from(first).ok())
            .ok_or_else(|| source.damaged(at, "a page's place is wrong"))
    }

    /// The string with this number.
    #[inline]
    pub(super) fn get<'c>(
        &self,
        source: &ColumnSource,
        cursor: &'c mut TextsCursor,
        number: u32,
    ) -> Result<&'c [u8], Error> {
        let has_it = cursor.page.is_some()
            && (number.wrapping_sub(cursor.first) as usize) < cursor.strings.len();
        if !has_it {
            if number >= self.count {
                return Err(source.damaged(self.data_at, "a string beyond the last"));
            }
            // The last page that starts at it or before.
            let (mut low, mut high) = (0, self.pages);
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if self.first_of(source, middle)? <= number {
                    low = middle;
                } else {
                    high = middle;
                }
            }
            self.load_page(source, cursor, low)?;
            if (number.wrapping_sub(cursor.first) as usize) >= cursor.strings.len() {
                return Err(source.damaged(self.directory_at, "pages do not follow each other"));
            }
        }
        Ok(cursor.strings.get(number.wrapping_sub(cursor.first)))
    }

    fn load_page(
        &self,
        source: &ColumnSource,
        cursor: &mut TextsCursor,
        page: u32,
    ) -> Result<(), Error> {
        if cursor.page == Some(page) {
            return Ok(());
        }
        cursor.page = None;
        let entry = self.entry(source, page)?;
        let at = self.data_at.saturating_add(entry.start);
        let stored = source.read_at(at, entry.bytes)?;
        let wrong = |reason| source.damaged(at, reason);
        let mut rest = match stored.split_first() {
            Some((&PLAIN, raw)) => raw,
            Some((&ZSTD, mut rest)) => {
                let raw_bytes = varint::take_u64(&mut rest)
                    .and_then(|bytes| usize::try_from(bytes).ok())
                    .filter(|&bytes| {
                        bytes <= EXPANDED_BYTES_ALWAYS.max(rest.len().saturating_mul(EXPANSION_MAX))
                    })
                    .ok_or_else(|| wrong("a page says that it is larger than it may be"))?;
                if cursor.zstd.is_none() {
                    cursor.zstd = zstd::bulk::Decompressor::new().ok();
                }
                cursor.bytes.clear();
                cursor.bytes.reserve(raw_bytes);
                let read = cursor
                    .zstd
                    .as_mut()
                    .and_then(|zstd| zstd.decompress_to_buffer(rest, &mut cursor.bytes).ok());
                if read != Some(raw_bytes) {
                    return Err(wrong("a page cannot be decompressed"));
                }
                &cursor.bytes
            }
            _ => return Err(wrong("a page of an unknown kind")),
        };
        let strings = (entry.end - entry.first) as usize;
        if strings > rest.len() {
            return Err(wrong("a page has fewer strings than it should"));
        }
        cursor.strings.clear();
        let mut lengths = rest;
        for _ in 0..strings {
            varint::take_u64(&mut rest).ok_or_else(|| wrong("a string's length is cut short"))?;
        }
        for _ in 0..strings {
            let pushed = varint::take_u64(&mut lengths)
                .and_then(|bytes| usize::try_from(bytes).ok())
                .and_then(|bytes| varint::take_slice(&mut rest, bytes))
                .and_then(|string| cursor.strings.push(string));
            pushed.ok_or_else(|| wrong("a string is cut short"))?;
        }
        cursor.first = entry.first;
        cursor.page = Some(page);
        Ok(())
    }

    /// Calls `visit` with every string and its number.
    pub(super) fn each(
        &self,
        source: &ColumnSource,
        mut visit: impl FnMut(u32, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut cursor = TextsCursor::default();
        let mut next = 0;
        for page in 0..self.pages {
            self.load_page(source, &mut cursor, page)?;
            if cursor.first != next {
                return Err(source.damaged(self.directory_at, "pages do not follow each other"));
            }
            for string in cursor.strings.iter() {
                visit(next, string)?;
                next += 1;
            }
        }
        Ok(())
    }

    /// Looks for a string; they rise. `Ok` with its number, or `Err` with how many are less.
    pub(super) fn find(
        &self,
        source: &ColumnSource,
        cursor: &mut TextsCursor,
        wanted: &[u8],
    ) -> Result<Result<u32, u32>, Error> {
        if self.count == 0 {
            return Ok(Err(0));
        }
        let separators = source.read_at(self.separators_at, self.separators_bytes)?;
        let mut rest = &*separators;
        let mut page = 0;
        while let Some(separator) = varint::take_bytes(&mut rest) {
            if separator > wanted || page + 1 >= self.pages {
                break;
            }
            page += 1;
        }
        self.load_page(source, cursor, page)?;
        let (mut low, mut high) = (0, u32::try_from(cursor.strings.len()).unwrap_or(u32::MAX));
        while low < high {
            let middle = low + (high - low) / 2;
            match cursor.strings.get(middle).cmp(wanted) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(Ok(cursor.first + middle)),
            }
        }
        Ok(Err(cursor.first + low))
    }
}
