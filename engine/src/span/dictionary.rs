//! Dictionaries of one batch: texts, and tags (a key with a typed value), each distinct one once,
//! numbered from 0 in order of first use.
//!
//! Invariants
//! - Interning something known allocates nothing; after the buffers have grown, neither does
//!   anything else.
//! - `truncate` takes back the newest entries exactly, so that a span can be rolled back.

use hashbrown::HashTable;

use super::hash;
use crate::value::{TooDeep, ValueRef};

/// Distinct byte strings.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    bytes: Vec<u8>,
    entries: Vec<TextEntry>,
    ids: HashTable<u32>,
}

#[derive(Clone, Copy, Debug)]
struct TextEntry {
    hash: u64,
    end: u32,
}

impl Texts {
    /// Number of texts.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of all texts.
    pub(crate) fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// The text of a number given out; empty for any other.
    #[inline]
    pub(crate) fn get(&self, id: u32) -> &[u8] {
        slice_of(&self.bytes, &self.entries, id as usize, |e| e.end)
    }

    /// The text as a string. Only UTF-8 enters as text, so nothing is ever lost.
    #[inline]
    pub(crate) fn text(&self, id: u32) -> &str {
        std::str::from_utf8(self.get(id)).unwrap_or_default()
    }

    /// The number of `text`, new or known.
    pub(crate) fn intern(&mut self, text: &[u8]) -> u32 {
        let hash = Self::hash(text);
        match self.find(hash, text) {
            Some(id) => id,
            None => self.insert(hash, text),
        }
    }

    /// The hash that a text is found by.
    #[inline]
    pub(crate) fn hash(text: &[u8]) -> u64 {
        hash::of_bytes(hash::seed(), text)
    }

    /// The number of a known text.
    #[inline]
    pub(crate) fn find(&self, hash: u64, text: &[u8]) -> Option<u32> {
        let is_it =
            |&id: &u32| slice_of(&self.bytes, &self.entries, id as usize, |e| e.end) == text;
        self.ids.find(hash, is_it).copied()
    }

    /// Adds a text that is not known.
    pub(crate) fn insert(&mut self, hash: u64, text: &[u8]) -> u32 {
        let Self {
            bytes,
            entries,
            ids,
        } = self;
        let id = number(entries.len());
        bytes.extend_from_slice(text);
        entries.push(TextEntry {
            hash,
            end: number(bytes.len()),
        });
        ids.insert_unique(hash, id, |&id| {
            entries.get(id as usize).map_or(0, |e| e.hash)
        });
        id
    }

    /// Adds a text whose number is its place, known or not (a decoder's dictionary).
    pub(crate) fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.entries.push(TextEntry {
            hash: 0,
            end: number(self.bytes.len()),
        });
    }

    /// Takes back all but the first `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        while self.entries.len() > len {
            let id = number(self.entries.len() - 1);
            if let Some(entry) = self.entries.pop()
                && let Ok(found) = self.ids.find_entry(entry.hash, |&known| known == id)
            {
                found.remove();
            }
        }
        self.bytes
            .truncate(self.entries.last().map_or(0, |e| e.end as usize));
    }

    /// Forgets all, keeps the room.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.ids.clear();
    }

    /// Bytes held.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
            + self.entries.capacity() * size_of::<TextEntry>()
            + self.ids.capacity() * 5
    }
}

/// Distinct tags.
#[derive(Debug, Default)]
pub(crate) struct Tags {
    /// Each tag as its key's bytes followed by its encoded value: one hash and one comparison find it.
    bytes: Vec<u8>,
    entries: Vec<TagEntry>,
    ids: HashTable<u32>,
}

#[derive(Clone, Copy, Debug)]
struct TagEntry {
    hash: u64,
    end: u32,
    key_len: u32,
    /// The key's number among the texts.
    key: u32,
}

/// A tag of the batch, resolved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tag<'a> {
    /// The key's number among the texts.
    pub(crate) key: u32,
    /// The encoded value.
    pub(crate) value: &'a [u8],
    /// Hash of key and value together.
    pub(crate) hash: u64,
}

impl Tags {
    /// Number of tags.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of all tags.
    pub(crate) fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// The tag of a number given out; `None` for any other.
    #[inline]
    pub(crate) fn get(&self, id: u32) -> Option<Tag<'_>> {
        let entry = self.entries.get(id as usize)?;
        let whole = slice_of(&self.bytes, &self.entries, id as usize, |e| e.end);
        let value = whole.get(entry.key_len as usize..)?;
        Some(Tag {
            key: entry.key,
            value,
            hash: entry.hash,
        })
    }

    /// The number of a tag, new or known. `texts` gives a new tag's key its number.
    ///
    /// # Errors
    /// [`TooDeep`]; nothing was added.
    #[inline]
    pub(crate) fn intern(
        &mut self,
        texts: &mut Texts,
        key: &str,
        value: ValueRef<'_>,
    ) -> Result<u32, TooDeep> {
        let Self {
            bytes,
            entries,
            ids,
        } = self;
        // The candidate is written behind the others and taken away again if it is known.
        let start = bytes.len();
        bytes.extend_from_slice(key.as_bytes());
        if let Err(error) = value.encode(bytes) {
            bytes.truncate(start);
            return Err(error);
        }
        let (known, candidate) = bytes.split_at(start);
        let key_len = number(key.len());
        let hash = tag_hash(key_len, candidate);
        let found = ids.find(hash, |&id| {
            entries
                .get(id as usize)
                .is_some_and(|e| e.hash == hash && e.key_len == key_len)
                && slice_of(known, entries, id as usize, |e| e.end) == candidate
        });
        if let Some(&id) = found {
            bytes.truncate(start);
            return Ok(id);
        }
        let id = number(entries.len());
        let key = texts.intern(key.as_bytes());
        entries.push(TagEntry {
            hash,
            end: number(bytes.len()),
            key_len,
            key,
        });
        ids.insert_unique(hash, id, |&id| {
            entries.get(id as usize).map_or(0, |e| e.hash)
        });
        Ok(id)
    }

    /// Adds a tag whose number is its place, known or not (a decoder's dictionary).
    pub(crate) fn push(&mut self, key: u32, key_bytes: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key_bytes);
        self.bytes.extend_from_slice(value);
        let key_len = number(key_bytes.len());
        let hash = tag_hash(key_len, self.bytes.get(start..).unwrap_or_default());
        self.entries.push(TagEntry {
            hash,
            end: number(self.bytes.len()),
            key_len,
            key,
        });
    }

    /// Takes back all but the first `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        while self.entries.len() > len {
            let id = number(self.entries.len() - 1);
            if let Some(entry) = self.entries.pop()
                && let Ok(found) = self.ids.find_entry(entry.hash, |&known| known == id)
            {
                found.remove();
            }
        }
        self.bytes
            .truncate(self.entries.last().map_or(0, |e| e.end as usize));
    }

    /// Forgets all, keeps the room.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.ids.clear();
    }

    /// Bytes held.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
            + self.entries.capacity() * size_of::<TagEntry>()
            + self.ids.capacity() * 5
    }
}

/// The hash that a tag's number is found by, for whoever has key and encoded value apart.
pub(crate) fn hash_of_tag(key: &str, value: &[u8], scratch: &mut Vec<u8>) -> u64 {
    scratch.clear();
    scratch.extend_from_slice(key.as_bytes());
    scratch.extend_from_slice(value);
    tag_hash(number(key.len()), scratch)
}

/// Hash of a key of `key_len` bytes followed by its encoded value.
#[inline]
fn tag_hash(key_len: u32, key_and_value: &[u8]) -> u64 {
    hash::of_bytes(hash::seed() ^ u64::from(key_len), key_and_value)
}

#[inline]
fn slice_of<'a, E>(bytes: &'a [u8], entries: &[E], i: usize, end: impl Fn(&E) -> u32) -> &'a [u8] {
    let to = entries.get(i).map_or(0, &end) as usize;
    let from = i
        .checked_sub(1)
        .and_then(|before| entries.get(before))
        .map_or(0, end) as usize;
    bytes.get(from..to).unwrap_or_default()
}

/// A place or length inside one batch, which `SpanWriter::finish` and the log's record bound keep
/// below 4 GiB.
#[inline]
pub(crate) fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
