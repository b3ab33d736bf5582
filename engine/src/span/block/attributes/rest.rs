//! Entries that are in no column: item, key and encoded value, in the order of items and of their
//! attributes, in pages.
//!
//! A page holds about 32 KiB of entries, compressed where that pays; a larger entry has a page of its own.
//! The directory says between which items a page lies, and has a filter of its keys, so that a key is
//! looked for in few pages.

use hashbrown::HashSet;
use xxhash_rust::xxh3::xxh3_64;

use super::placed::{Fields, Place, StretchWriter, write_bytes};
use crate::{
    error::Error,
    span::block::column::{ColumnSource, Sink},
    varint::{put_bytes, put_u64},
};

/// Bytes of the entries of a page, but for one larger entry.
const PAGE_BYTES: usize = 32 << 10;
/// A page expands to at most this, or to [`EXPANSION_MAX`] times its bytes.
const EXPANDED_BYTES_ALWAYS: usize = 256 << 10;
/// What would expand more is stored as it is.
const EXPANSION_MAX: usize = 64;
/// The level at which text like this packs as well as at higher ones.
const ZSTD_LEVEL: i32 = 1;
/// Bits of a page's filter for each of its keys: one in a hundred is found in vain.
const FILTER_BITS_PER_KEY: usize = 10;
/// Bits that a key sets.
const FILTER_HASHES: u64 = 5;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// Writes entries; items rise.
#[derive(Default)]
pub(super) struct RestWriter {
    raw: Vec<u8>,
    first_item: u32,
    last_item: u32,
    keys: HashSet<u64>,
    stored: StretchWriter,
    directory: Vec<u8>,
    pages: u64,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    page: Vec<u8>,
}

impl RestWriter {
    /// Appends an entry.
    pub(super) fn push(
        &mut self,
        item: u32,
        key: &str,
        value: &[u8],
        sink: &mut Sink<'_>,
    ) -> Result<(), Error> {
        if !self.raw.is_empty() && self.raw.len() + key.len() + value.len() > PAGE_BYTES {
            self.end_page(sink)?;
        }
        if self.raw.is_empty() {
            self.first_item = item;
        }
        self.last_item = item;
        put_u64(&mut self.raw, u64::from(item - self.first_item));
        put_bytes(&mut self.raw, key.as_bytes());
        put_bytes(&mut self.raw, value);
        self.keys.insert(xxh3_64(key.as_bytes()));
        Ok(())
    }

    fn end_page(&mut self, sink: &mut Sink<'_>) -> Result<(), Error> {
        if self.raw.is_empty() {
            return Ok(());
        }
        self.page.clear();
        self.compress();
        let page = &self.page;
        let start = self.stored.push(sink, |out| out.extend_from_slice(page))?;
        put_u64(&mut self.directory, u64::from(self.first_item));
        let items = self.last_item - self.first_item;
        put_u64(&mut self.directory, u64::from(items));
        put_u64(&mut self.directory, start);
        put_u64(&mut self.directory, page.len() as u64);
        let bytes = (self.keys.len() * FILTER_BITS_PER_KEY).div_ceil(8);
        let mut filter = vec![0; bytes];
        for &hash in &self.keys {
            for bit in filter_bits(hash, bytes) {
                if let Some(byte) = filter.get_mut(bit / 8) {
                    *byte |= 1 << (bit % 8);
                }
            }
        }
        put_bytes(&mut self.directory, &filter);
        self.pages += 1;
        self.keys.clear();
        self.raw.clear();
        Ok(())
    }

    /// Makes the page of the entries that are held.
    fn compress(&mut self) {
        if self.zstd.is_none() {
            self.zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
        }
        let compressed = self.zstd.as_mut().map(|zstd| zstd.compress(&self.raw));
        if let Some(Ok(bytes)) = compressed
            && bytes.len() < self.raw.len()
            && self.raw.len() <= expanded_max(bytes.len())
        {
            self.page.push(ZSTD);
            put_u64(&mut self.page, self.raw.len() as u64);
            self.page.extend_from_slice(&bytes);
        } else {
            self.page.push(PLAIN);
            self.page.extend_from_slice(&self.raw);
        }
    }

    /// Gives where the directory lies, and where the pages begin.
    pub(super) fn finish(mut self, sink: &mut Sink<'_>) -> Result<(Place, u64), Error> {
        self.end_page(sink)?;
        let pages = self.stored.finish(sink)?;
        let mut directory = Vec::with_capacity(self.directory.len() + 8);
        put_u64(&mut directory, self.pages);
        directory.extend_from_slice(&self.directory);
        Ok((write_bytes(sink, &directory)?, pages.start))
    }
}

fn expanded_max(stored_bytes: usize) -> usize {
    EXPANDED_BYTES_ALWAYS.max(stored_bytes.saturating_mul(EXPANSION_MAX))
}

/// The bits of a key in a filter of so many bytes.
fn filter_bits(hash: u64, bytes: usize) -> impl Iterator<Item = usize> {
    let bits = (bytes as u64 * 8).max(1);
    let step = hash.rotate_left(32) | 1;
    (0..FILTER_HASHES).map(move |i| {
        let mixed = hash.wrapping_add(step.wrapping_mul(i));
        usize::try_from(mixed % bits).unwrap_or(0)
    })
}

/// Where the entries lie.
#[derive(Debug, Default)]
pub(super) struct Rest {
    pages: Vec<RestPage>,
    filters: Vec<u8>,
}

#[derive(Debug)]
struct RestPage {
    first_item: u32,
    last_item: u32,
    place: Place,
    filter_end: usize,
}

/// The page that was read last.
#[derive(Debug, Default)]
pub(super) struct RestCursor {
    page: Option<usize>,
    raw: Vec<u8>,
    entries: Vec<RestEntry>,
}

/// An entry of the page that is held.
#[derive(Clone, Copy, Debug)]
struct RestEntry {
    item: u32,
    key_start: usize,
    key_end: usize,
    value_start: usize,
    value_end: usize,
}

impl RestCursor {
    fn key(&self, entry: &RestEntry) -> &str {
        let bytes = self.raw.get(entry.key_start..entry.key_end);
        // It was checked when the page was read.
        std::str::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
    }

    fn value(&self, entry: &RestEntry) -> &[u8] {
        let bytes = self.raw.get(entry.value_start..entry.value_end);
        bytes.unwrap_or_default()
    }
}

/// What is done with an entry: item, key, encoded value.
pub(super) type VisitEntry<'v> = dyn FnMut(u32, &str, &[u8]) -> Result<(), Error> + 'v;

impl Rest {
    pub(super) fn open(
        source: &ColumnSource,
        directory: Place,
        pages_start: u64,
    ) -> Result<Self, Error> {
        let bytes = directory.read(source)?;
        let mut rest = Self::default();
        if bytes.is_empty() {
            return Ok(rest);
        }
        let mut input = Fields::new(source, directory.start, &bytes);
        let mut last_item = 0;
        for _ in 0..input.count()? {
            let first_item = input.number_to(u32::MAX, "an item beyond all")?;
            let items = input.number_to(u32::MAX - first_item, "an item beyond all")?;
            let start = input.number()?.checked_add(pages_start);
            let place = Place {
                start: start.ok_or_else(|| input.damaged("a page of the rest lies nowhere"))?,
                bytes: input.number()?,
            };
            rest.filters.extend_from_slice(input.bytes()?);
            if first_item < last_item {
                return Err(input.damaged("pages of the rest are out of order"));
            }
            last_item = first_item + items;
            rest.pages.push(RestPage {
                first_item,
                last_item,
                place,
                filter_end: rest.filters.len(),
            });
        }
        Ok(rest)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.pages.capacity() * size_of::<RestPage>() + self.filters.capacity()
    }

    /// How many pages there are.
    pub(super) fn pages(&self) -> usize {
        self.pages.len()
    }

    /// The items that a page's entries lie between, both included.
    pub(super) fn items_of_page(&self, page: usize) -> Option<(u32, u32)> {
        let page = self.pages.get(page)?;
        Some((page.first_item, page.last_item))
    }

    /// Whether a page may have entries of the key with this hash.
    pub(super) fn may_have(&self, page: usize, key_hash: u64) -> bool {
        let Some(end) = self.pages.get(page).map(|page| page.filter_end) else {
            return false;
        };
        let before = page
            .checked_sub(1)
            .and_then(|before| self.pages.get(before));
        let start = before.map_or(0, |before| before.filter_end);
        let filter = self.filters.get(start..end).unwrap_or_default();
        let set = |bit: usize| {
            let byte = filter.get(bit / 8).copied().unwrap_or_default();
            byte & 1 << (bit % 8) != 0
        };
        filter_bits(key_hash, filter.len()).all(set)
    }

    /// Visits the entries of a page.
    pub(super) fn visit_page(
        &self,
        source: &ColumnSource,
        page: usize,
        cursor: &mut RestCursor,
        visit: &mut VisitEntry<'_>,
    ) -> Result<(), Error> {
        self.load(source, page, cursor)?;
        for entry in &cursor.entries {
            visit(entry.item, cursor.key(entry), cursor.value(entry))?;
        }
        Ok(())
    }

    /// Visits the entries of an item, in order.
    pub(super) fn visit_item(
        &self,
        source: &ColumnSource,
        item: u32,
        cursor: &mut RestCursor,
        visit: &mut dyn FnMut(&str, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let first = self.pages.partition_point(|page| page.last_item < item);
        for page in first..self.pages.len() {
            if self
                .pages
                .get(page)
                .is_none_or(|page| page.first_item > item)
            {
                break;
            }
            self.load(source, page, cursor)?;
            let from = cursor.entries.partition_point(|entry| entry.item < item);
            for entry in cursor.entries.iter().skip(from) {
                if entry.item != item {
                    break;
                }
                visit(cursor.key(entry), cursor.value(entry))?;
            }
        }
        Ok(())
    }

    fn load(
        &self,
        source: &ColumnSource,
        page: usize,
        cursor: &mut RestCursor,
    ) -> Result<(), Error> {
        if cursor.page == Some(page) {
            return Ok(());
        }
        cursor.page = None;
        let Some(entry) = self.pages.get(page) else {
            return Err(source.damaged(0, "a page of the rest that there is not"));
        };
        let stored = entry.place.read(source)?;
        let mut input = Fields::new(source, entry.place.start, &stored);
        match input.slice(1)? {
            [PLAIN] => {
                cursor.raw.clear();
                cursor.raw.extend_from_slice(input.slice(input.left())?);
            }
            [ZSTD] => {
                let bytes = usize::try_from(input.number()?).unwrap_or(usize::MAX);
                let packed = input.slice(input.left())?;
                if bytes > expanded_max(packed.len()) {
                    return Err(input.damaged("a page of the rest says that it is too large"));
                }
                let raw = zstd::bulk::decompress(packed, bytes).ok();
                let raw = raw.filter(|raw| raw.len() == bytes);
                cursor.raw = raw.ok_or_else(|| input.damaged("a page of the rest is no zstd"))?;
            }
            _ => return Err(input.damaged("unknown form of a page of the rest")),
        }
        cursor.entries.clear();
        // Offsets in what was unpacked say little about the file: errors name the page.
        let wrong = |reason| source.damaged(entry.place.start, reason);
        let mut input = Fields::new(source, entry.place.start, &cursor.raw);
        let mut last = entry.first_item;
        while input.left() > 0 {
            let cut = |_| wrong("an entry of the rest is cut short");
            let from_first = input.number().map_err(cut)?;
            let item = u32::try_from(u64::from(entry.first_item).saturating_add(from_first)).ok();
            let item = item.filter(|item| *item >= last && *item <= entry.last_item);
            last = item.ok_or_else(|| wrong("an entry of the rest is of another item"))?;
            let key = input.bytes().map_err(cut)?;
            if std::str::from_utf8(key).is_err() {
                return Err(wrong("a key of the rest is not UTF-8"));
            }
            let key_end = cursor.raw.len() - input.left();
            let key_start = key_end - key.len();
            let value = input.bytes().map_err(cut)?;
            let value_end = cursor.raw.len() - input.left();
            cursor.entries.push(RestEntry {
                item: last,
                key_start,
                key_end,
                value_start: value_end - value.len(),
                value_end,
            });
        }
        cursor.page = Some(page);
        Ok(())
    }
}

/// The hash of a key, as filters have it.
pub(super) fn key_hash(key: &str) -> u64 {
    xxh3_64(key.as_bytes())
}
