//! Interned strings: each distinct string once, with a small number that stands for it.
//!
//! Invariants
//! - A [`Symbol`] is given out in rising order from 0 and means the same string as long as its
//!   table lives; nothing is ever removed, a whole table is dropped with its head generation.
//! - String bytes never move: they stand in chunks that are filled once and never grow.
//! - The hash is seeded per process, so that a sender cannot choose strings that collide.

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::{RwLock, RwLockReadGuard};

use crate::varint::{ascii_len_len, push_ascii_len, split_prefixed};

/// Size of a table's first chunk; each next one is twice as large, up to the maximum. Small, so
/// that a table of a few strings costs little.
const CHUNK_BYTES_MIN: usize = 4 * 1024;
/// Size of later chunks. A longer string gets a chunk of its own size.
const CHUNK_BYTES_MAX: usize = 1024 * 1024;

/// The number that stands for a string in one [`Symbols`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol(u32);

impl Symbol {
    /// A symbol from its stored number. Only the table that gave it out can resolve it.
    pub fn from_u32(id: u32) -> Self {
        Self(id)
    }

    /// The number, as given out: 0 for the first string of the table.
    pub fn as_u32(self) -> u32 {
        self.0
    }
}

/// A table of interned strings for one owner. See [`SharedSymbols`] for several.
#[derive(Debug, Default)]
pub struct Symbols {
    hasher: DefaultHashBuilder,
    /// Ids only; the strings they are compared by stand in `chunks`.
    ids: HashTable<u32>,
    /// By id, where its string starts.
    places: Vec<Place>,
    /// Strings, each behind its length in the ASCII form of `varint.rs`.
    chunks: Vec<String>,
    chunk_bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    chunk: u32,
    offset_bytes: u32,
}

impl Symbols {
    /// An empty table, which allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The symbol of `text`, new or known.
    ///
    /// # Panics
    /// If there are 2^32 - 1 strings already: at least 50 GB, which a memory budget refuses long
    /// before.
    pub fn intern(&mut self, text: &str) -> Symbol {
        let hash = self.hasher.hash_one(text);
        if let Some(symbol) = self.find(hash, text) {
            return symbol;
        }
        let id = u32::try_from(self.places.len()).expect("fewer than 2^32 strings fit in memory");
        let place = self.store(text);
        self.places.push(place);
        let Self {
            ids,
            places,
            chunks,
            hasher,
            ..
        } = self;
        let rehash = |&id: &u32| hasher.hash_one(string_at(places, chunks, id).unwrap_or_default());
        ids.insert_unique(hash, id, rehash);
        Symbol(id)
    }

    /// The symbol of `text`, if it was interned.
    pub fn get(&self, text: &str) -> Option<Symbol> {
        self.find(self.hasher.hash_one(text), text)
    }

    /// The string of a symbol.
    ///
    /// # Panics
    /// If this table did not give the symbol out; use [`try_resolve`](Self::try_resolve) for
    /// numbers that came from elsewhere.
    pub fn resolve(&self, symbol: Symbol) -> &str {
        self.try_resolve(symbol)
            .expect("a symbol is resolved by the table that gave it out")
    }

    /// The string of a symbol, if this table has so many.
    pub fn try_resolve(&self, symbol: Symbol) -> Option<&str> {
        string_at(&self.places, &self.chunks, symbol.0)
    }

    /// Every symbol with its string, in the order they were given out.
    pub fn iter(&self) -> impl Iterator<Item = (Symbol, &str)> {
        (0..)
            .map(Symbol)
            .map_while(|symbol| Some((symbol, self.try_resolve(symbol)?)))
    }

    /// Strings in the table.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether the table has no string.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Bytes allocated, free space included. Cheap.
    pub fn heap_bytes(&self) -> usize {
        self.ids.allocation_size()
            + self.places.capacity() * size_of::<Place>()
            + self.chunks.capacity() * size_of::<String>()
            + self.chunk_bytes
    }

    fn find(&self, hash: u64, text: &str) -> Option<Symbol> {
        let same = |&id: &u32| string_at(&self.places, &self.chunks, id) == Some(text);
        self.ids.find(hash, same).copied().map(Symbol)
    }

    /// Writes the string behind the last one, in a new chunk if the last is too full.
    fn store(&mut self, text: &str) -> Place {
        let needed = ascii_len_len(text.len()) + text.len();
        let fits = |chunk: &String| {
            chunk.capacity() - chunk.len() >= needed && u32::try_from(chunk.len()).is_ok()
        };
        if !self.chunks.last().is_some_and(fits) {
            let doublings = self.chunks.len().min(16);
            let bytes = (CHUNK_BYTES_MIN << doublings)
                .min(CHUNK_BYTES_MAX)
                .max(needed);
            let chunk = String::with_capacity(bytes);
            self.chunk_bytes += chunk.capacity();
            self.chunks.push(chunk);
        }
        let index = self.chunks.len() - 1;
        let chunk = self
            .chunks
            .last_mut()
            .expect("a chunk with room was pushed if none was there");
        let place = Place {
            chunk: u32::try_from(index).expect("no more chunks than strings"),
            offset_bytes: u32::try_from(chunk.len()).expect("a chunk that long takes no more"),
        };
        push_ascii_len(chunk, text.len());
        chunk.push_str(text);
        place
    }
}

fn string_at<'s>(places: &[Place], chunks: &'s [String], id: u32) -> Option<&'s str> {
    let place = places.get(id as usize)?;
    let chunk = chunks.get(place.chunk as usize)?;
    let (text, _) = split_prefixed(chunk.get(place.offset_bytes as usize..)?)?;
    Some(text)
}

/// A table of interned strings that several threads use: writers intern rarely (only what is new),
/// readers resolve much and in runs.
///
/// The lock is inside. It is a leaf: whoever holds [`read`](Self::read)'s guard must not take
/// another lock, nor this one again.
#[derive(Debug, Default)]
pub struct SharedSymbols {
    table: RwLock<Symbols>,
}

impl SharedSymbols {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// The table, held still for a run of look-ups. Interning waits meanwhile: keep it short.
    pub fn read(&self) -> RwLockReadGuard<'_, Symbols> {
        self.table.read()
    }

    /// The symbol of `text`, new or known. A known string takes the read lock only.
    pub fn intern(&self, text: &str) -> Symbol {
        if let Some(symbol) = self.table.read().get(text) {
            return symbol;
        }
        self.table.write().intern(text)
    }

    /// The symbols of several pairs, with the locks taken once.
    pub fn intern_pairs<'t>(
        &self,
        pairs: impl Iterator<Item = (&'t str, &'t str)> + Clone,
    ) -> Vec<(Symbol, Symbol)> {
        {
            let table = self.table.read();
            let known = pairs
                .clone()
                .map(|(a, b)| Some((table.get(a)?, table.get(b)?)));
            if let Some(known) = known.collect() {
                return known;
            }
        }
        let mut table = self.table.write();
        pairs
            .map(|(a, b)| (table.intern(a), table.intern(b)))
            .collect()
    }

    /// The symbol of `text`, if it was interned.
    pub fn get(&self, text: &str) -> Option<Symbol> {
        self.table.read().get(text)
    }

    /// Appends the string of a symbol to `out`; nothing if the table did not give it out.
    pub fn resolve_into(&self, symbol: Symbol, out: &mut String) {
        out.push_str(self.table.read().try_resolve(symbol).unwrap_or_default());
    }

    /// Strings in the table.
    pub fn len(&self) -> usize {
        self.table.read().len()
    }

    /// Whether the table has no string.
    pub fn is_empty(&self) -> bool {
        self.table.read().is_empty()
    }

    /// Bytes allocated, free space included. Cheap.
    pub fn heap_bytes(&self) -> usize {
        self.table.read().heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_same_string_keeps_its_symbol() {
        let mut symbols = Symbols::new();
        let a = symbols.intern("a");
        let empty = symbols.intern("");
        assert_eq!(symbols.intern("a"), a);
        assert_eq!((a.as_u32(), empty.as_u32()), (0, 1));
        assert_eq!(symbols.resolve(empty), "");
        assert_eq!(symbols.get("b"), None);
        assert_eq!(symbols.try_resolve(Symbol::from_u32(2)), None);
        assert_eq!(symbols.iter().collect::<Vec<_>>(), [(a, "a"), (empty, "")]);
    }

    #[test]
    fn strings_longer_than_a_chunk_are_kept_whole() {
        let mut symbols = Symbols::new();
        let long = "x".repeat(CHUNK_BYTES_MAX * 2);
        let before = symbols.intern("before");
        let whole = symbols.intern(&long);
        let after = symbols.intern("after");
        assert_eq!(symbols.resolve(whole), long);
        assert_eq!(
            (symbols.resolve(before), symbols.resolve(after)),
            ("before", "after")
        );
    }

    #[test]
    fn many_strings_cost_little_beside_their_bytes() {
        let mut symbols = Symbols::new();
        let mut text_bytes = 0;
        for i in 0..100_000 {
            let text = format!("value-{i}");
            text_bytes += text.len();
            symbols.intern(&text);
        }
        let beside = symbols.heap_bytes() - text_bytes;
        assert!(beside < 100_000 * 36, "{beside} bytes beside the strings");
    }

    #[test]
    fn shared_symbols_agree_between_threads() {
        let shared = SharedSymbols::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for i in 0..500 {
                        let text = (i % 100).to_string();
                        let symbol = shared.intern(&text);
                        assert_eq!(shared.read().resolve(symbol), text);
                    }
                });
            }
        });
        assert_eq!(shared.len(), 100);
        let pairs = shared.intern_pairs([("1", "new"), ("2", "3")].into_iter());
        assert_eq!(shared.read().resolve(pairs[0].1), "new");
        assert_eq!(
            pairs,
            shared.intern_pairs([("1", "new"), ("2", "3")].into_iter())
        );
    }

    proptest! {
        #[test]
        fn a_table_is_a_map_both_ways(texts in prop::collection::vec("\\PC{0,80}|[ab]{0,2}", 0..200)) {
            let mut symbols = Symbols::new();
            let mut twin: HashMap<String, Symbol> = HashMap::new();
            for text in &texts {
                let symbol = symbols.intern(text);
                prop_assert_eq!(*twin.entry(text.clone()).or_insert(symbol), symbol);
            }
            prop_assert_eq!(symbols.len(), twin.len());
            for (text, symbol) in &twin {
                prop_assert_eq!(symbols.resolve(*symbol), text);
                prop_assert_eq!(symbols.get(text), Some(*symbol));
            }
        }
    }
}
