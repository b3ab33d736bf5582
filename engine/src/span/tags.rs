//! A shard's attributes: each distinct (key, typed value) once, with the rows that carry it.
//!
//! Invariants
//! - Numbers rise from 0 in order of arrival and never change their meaning.
//! - `rows` of a tag rise; only attributes of spans have rows, those of events and links do not.
//! - Texts (status messages, trace states, event names) are tags under [`TEXT_KEY`], without rows.

use hashbrown::HashMap;

use super::{
    arena::{Arena, Place},
    column::Column,
    row_list::RowList,
    stripes::Stripes,
};

/// The key of texts: no symbol has this number.
pub(crate) const TEXT_KEY: u32 = u32::MAX;

#[derive(Debug)]
struct Entry {
    key: u32,
    value_len: u32,
    value: Place,
    rows: RowList,
}

/// The dictionary.
#[derive(Debug, Default)]
pub(crate) struct TagTable {
    values: Arena,
    entries: Column<Entry>,
    ids: Stripes,
    /// Tags by key, in order of arrival.
    by_key: HashMap<u32, Column<u32>>,
    key_bytes: usize,
    rows_bytes: usize,
}

impl TagTable {
    /// Number of tags.
    pub(crate) fn len(&self) -> u32 {
        self.entries.rows()
    }

    /// Key and encoded value.
    #[inline]
    pub(crate) fn get(&self, id: u32) -> (u32, &[u8]) {
        match self.entries.get(id) {
            Some(entry) => (entry.key, self.values.get(entry.value, entry.value_len)),
            None => (TEXT_KEY, &[]),
        }
    }

    /// The key alone.
    #[inline]
    pub(crate) fn key(&self, id: u32) -> u32 {
        self.entries.get(id).map_or(TEXT_KEY, |entry| entry.key)
    }

    /// A text interned by [`intern_text`](Self::intern_text).
    pub(crate) fn text(&self, id: u32) -> &str {
        std::str::from_utf8(self.get(id).1).unwrap_or_default()
    }

    /// The rows that carry a tag.
    pub(crate) fn rows(&self, id: u32) -> Option<&RowList> {
        self.entries.get(id).map(|entry| &entry.rows)
    }

    /// The tags of a key, in order of arrival.
    pub(crate) fn of_key(&self, key: u32) -> Option<&Column<u32>> {
        self.by_key.get(&key)
    }

    /// All keys that tags have, in no order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = u32> {
        self.by_key.keys().copied().filter(|&key| key != TEXT_KEY)
    }

    /// The number of a tag that exists. `hash` must be the one it was interned with.
    pub(crate) fn find(&self, hash: u64, key: u32, value: &[u8]) -> Option<u32> {
        self.ids
            .find(spread(hash, key), |id| self.get(id) == (key, value))
    }

    /// The number of a tag, new or known. `hash` depends on key and value only.
    pub(crate) fn intern(&mut self, hash: u64, key: u32, value: &[u8]) -> u32 {
        let hash = spread(hash, key);
        if let Some(id) = self.ids.find(hash, |id| self.get(id) == (key, value)) {
            return id;
        }
        let id = self.entries.rows();
        self.entries.push(Entry {
            key,
            value_len: u32::try_from(value.len()).unwrap_or(u32::MAX),
            value: self.values.store(value),
            rows: RowList::default(),
        });
        self.ids.insert(hash, id);
        let of_key = self.by_key.entry(key).or_default();
        let before = of_key.heap_bytes();
        of_key.push(id);
        self.key_bytes += of_key.heap_bytes() - before;
        id
    }

    /// A tag that may be the one with this hash and key; see [`Stripes::candidate`].
    #[inline]
    pub(crate) fn candidate(&self, hash: u64, key: u32) -> Option<u32> {
        self.ids.candidate(spread(hash, key))
    }

    /// The number of a text.
    pub(crate) fn intern_text(&mut self, text: &[u8]) -> u32 {
        let hash = super::hash::of_bytes(super::hash::seed(), text);
        self.intern(hash, TEXT_KEY, text)
    }

    /// Notes that `row`, the newest, carries a tag. A tag twice on a row counts once.
    #[inline]
    pub(crate) fn add_row(&mut self, id: u32, row: u32) {
        if let Some(entry) = self.entries.get_mut(id) {
            self.rows_bytes += entry.rows.push(row);
        }
    }

    /// Bytes held.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.values.heap_bytes()
            + self.entries.heap_bytes()
            + self.ids.heap_bytes()
            + self.key_bytes
            + self.by_key.len() * 64
            + self.rows_bytes
    }
}

/// Only half of a hash is kept, so both halves are folded into one; the key is part of it, because a
/// text and a value may share their bytes.
#[inline]
fn spread(hash: u64, key: u32) -> u64 {
    (hash ^ (hash >> 32) ^ u64::from(key.wrapping_mul(0x9E37_79B1))) & u64::from(u32::MAX)
}
