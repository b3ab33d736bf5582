//! What all shards of the span head share: names and attribute keys as symbols, resources, scopes.
//!
//! Few in any sane workload, so that queries decide conditions on them once per entry instead of
//! once per row. Entries live as long as the head.
//!
//! A resource or scope is found by a 128-bit hash of its encoding, seeded per process: two different
//! ones are taken for one with probability 2^-128 per pair.

use std::{collections::HashMap, sync::Arc};

use hashbrown::HashTable;
use parking_lot::{RwLock, RwLockReadGuard};

use super::{
    batch::{Owner, SpanData},
    dictionary::number,
    hash,
    model::{Attributes, Resource, Scope},
};
use crate::{
    budget::{Budget, Holder},
    value::Value,
    varint,
};

/// The number of a text all shards share: a span name, an attribute key, a service. Numbers mean
/// the same as long as the engine is open, and nothing beyond that.
pub type SymbolId = u32;

/// No symbol: batch texts that are neither name nor key.
pub(crate) const NO_SYMBOL: u32 = u32::MAX;

/// An interned resource or scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interned {
    /// Its number.
    pub(crate) id: u32,
    /// The number of the first one that is equal but for the order of attributes.
    pub(crate) canonical: u32,
}

/// A resource and what queries ask of it most.
#[derive(Clone, Debug)]
pub(crate) struct ResourceEntry {
    pub(crate) resource: Arc<Resource>,
    pub(crate) service: SymbolId,
}

/// The tables.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    symbols: Vec<Arc<str>>,
    symbol_ids: HashTable<u32>,
    pub(crate) resources: Vec<ResourceEntry>,
    pub(crate) scopes: Vec<Arc<Scope>>,
    resource_ids: HashMap<u128, Interned>,
    resource_canonical: HashMap<u128, u32>,
    scope_ids: HashMap<u128, Interned>,
    scope_canonical: HashMap<u128, u32>,
    held_bytes: u64,
}

impl Tables {
    /// The text of a symbol.
    pub(crate) fn symbol(&self, id: u32) -> Arc<str> {
        self.symbols
            .get(id as usize)
            .cloned()
            .unwrap_or_else(|| Arc::from(""))
    }

    /// The text of a symbol, borrowed.
    pub(crate) fn text(&self, id: u32) -> &str {
        self.symbols.get(id as usize).map_or("", |text| text)
    }

    /// Symbols given out.
    pub(crate) fn symbol_count(&self) -> usize {
        self.symbols.len()
    }

    /// The symbol of a text that has one.
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        let hash = hash::of_bytes(hash::seed(), text.as_bytes());
        self.symbol_ids
            .find(hash, |&id| self.text(id) == text)
            .copied()
    }

    fn intern(&mut self, text: &str) -> u32 {
        if let Some(id) = self.find(text) {
            return id;
        }
        let id = number(self.symbols.len());
        self.symbols.push(Arc::from(text));
        let Self {
            symbols,
            symbol_ids,
            ..
        } = self;
        let hash_of = |text: &str| hash::of_bytes(hash::seed(), text.as_bytes());
        symbol_ids.insert_unique(hash_of(text), id, |&id| {
            symbols.get(id as usize).map_or(0, |text| hash_of(text))
        });
        // The text behind its two counts, the pointer to it, the table's slot.
        self.held_bytes += 16 + text.len() as u64 + 16 + 8;
        id
    }

    fn attributes(&mut self, data: &SpanData, tags: &[u32]) -> Attributes {
        let tags = tags.iter().filter_map(|&tag| data.tags.get(tag));
        tags.filter_map(|tag| {
            let key = self.intern(data.texts.text(tag.key));
            let value = Value::decode(&mut { tag.value })?;
            self.held_bytes += 48 + tag.value.len() as u64;
            Some((self.symbol(key), value))
        })
        .collect()
    }

    fn intern_resource(&mut self, data: &SpanData, i: usize, keys: &OwnerKeys) -> Interned {
        if let Some(&known) = self.resource_ids.get(&keys.as_sent) {
            return known;
        }
        let id = number(self.resources.len());
        let canonical = *self.resource_canonical.entry(keys.canonical).or_insert(id);
        let interned = Interned { id, canonical };
        let Some(owner) = data.resources.get(i) else {
            return interned;
        };
        let resource = Resource {
            attributes: self.attributes(data, data.resource_tags_of(i)),
            dropped_attributes_count: owner.dropped,
            schema_url: data.texts.text(owner.schema_url).to_owned(),
            entity_refs: data.texts.get(owner.first).to_vec(),
        };
        let service = self.intern(resource.service());
        self.held_bytes += 256 + (resource.schema_url.len() + resource.entity_refs.len()) as u64;
        self.resources.push(ResourceEntry {
            resource: Arc::new(resource),
            service,
        });
        self.resource_ids.insert(keys.as_sent, interned);
        interned
    }

    fn intern_scope(&mut self, data: &SpanData, i: usize, keys: &OwnerKeys) -> Interned {
        if let Some(&known) = self.scope_ids.get(&keys.as_sent) {
            return known;
        }
        let id = number(self.scopes.len());
        let canonical = *self.scope_canonical.entry(keys.canonical).or_insert(id);
        let interned = Interned { id, canonical };
        let Some(owner) = data.scopes.get(i) else {
            return interned;
        };
        let scope = Scope {
            name: data.texts.text(owner.first).to_owned(),
            version: data.texts.text(owner.second).to_owned(),
            attributes: self.attributes(data, data.scope_tags_of(i)),
            dropped_attributes_count: owner.dropped,
            schema_url: data.texts.text(owner.schema_url).to_owned(),
        };
        self.held_bytes +=
            256 + (scope.name.len() + scope.version.len() + scope.schema_url.len()) as u64;
        self.scopes.push(Arc::new(scope));
        self.scope_ids.insert(keys.as_sent, interned);
        interned
    }
}

/// Hashes a resource or scope is found by.
struct OwnerKeys {
    as_sent: u128,
    canonical: u128,
}

/// `texts` are the owner's texts: a resource has two, a scope three.
fn owner_keys(
    data: &SpanData,
    owner: &Owner,
    texts: &[u32],
    tags: &[u32],
    scratch: &mut Vec<u8>,
) -> OwnerKeys {
    let mut sorted: Vec<_> = tags.iter().filter_map(|&tag| data.tags.get(tag)).collect();
    let mut hash_of = |tags: &[super::dictionary::Tag<'_>]| {
        scratch.clear();
        varint::put_u64(scratch, u64::from(owner.dropped));
        for &text in texts {
            varint::put_bytes(scratch, data.texts.get(text));
        }
        for tag in tags {
            varint::put_bytes(scratch, data.texts.get(tag.key));
            scratch.extend_from_slice(tag.value);
        }
        hash::wide(hash::seed(), scratch)
    };
    let as_sent = hash_of(&sorted);
    sorted.sort_unstable_by(|a, b| {
        (data.texts.get(a.key), a.value).cmp(&(data.texts.get(b.key), b.value))
    });
    OwnerKeys {
        as_sent,
        canonical: hash_of(&sorted),
    }
}

/// A batch's numbers in terms of the catalogue.
#[derive(Debug, Default)]
pub(crate) struct Translation {
    /// By text number; [`NO_SYMBOL`] for texts that are neither name nor key.
    pub(crate) symbols: Vec<u32>,
    /// By resource of the batch.
    pub(crate) resources: Vec<Interned>,
    /// By scope of the batch.
    pub(crate) scopes: Vec<Interned>,
}

impl Translation {
    /// Bytes held.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.symbols.capacity() * 4 + (self.resources.capacity() + self.scopes.capacity()) * 8
    }
}

/// The tables behind their lock. Lock order: a shard's lock before this one.
#[derive(Debug)]
pub(crate) struct Catalog {
    tables: RwLock<Tables>,
    budget: Arc<Budget>,
}

impl Catalog {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self {
            tables: RwLock::default(),
            budget,
        }
    }

    /// The tables to read. Hold briefly.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read()
    }

    /// Bytes held.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.tables.read().held_bytes
    }

    /// Finds or adds what a batch uses. Takes the write lock only if something is new.
    pub(crate) fn translate(&self, data: &SpanData, into: &mut Translation) {
        into.symbols.clear();
        into.symbols.resize(data.texts.len(), NO_SYMBOL);
        into.resources.clear();
        into.scopes.clear();
        let mut scratch = Vec::new();
        let mut resource_keys = Vec::with_capacity(data.resources.len());
        for (i, owner) in data.resources.iter().enumerate() {
            let texts = [owner.schema_url, owner.first];
            let tags = data.resource_tags_of(i);
            resource_keys.push(owner_keys(data, owner, &texts, tags, &mut scratch));
        }
        let mut scope_keys = Vec::with_capacity(data.scopes.len());
        for (i, owner) in data.scopes.iter().enumerate() {
            let texts = [owner.schema_url, owner.first, owner.second];
            let tags = data.scope_tags_of(i);
            scope_keys.push(owner_keys(data, owner, &texts, tags, &mut scratch));
        }
        // Keys of all tags, those of resources included, and names of all classes.
        let mut missing = Vec::new();
        {
            let tables = self.tables.read();
            let keys = (0..number(data.tags.len())).filter_map(|id| data.tags.get(id));
            let names = data.classes.iter().map(|class| class.name);
            for text in keys.map(|tag| tag.key).chain(names) {
                let Some(symbol) = into.symbols.get_mut(text as usize) else {
                    continue;
                };
                if *symbol != NO_SYMBOL {
                    continue;
                }
                match tables.find(data.texts.text(text)) {
                    Some(known) => *symbol = known,
                    None => missing.push(text),
                }
            }
            let known = resource_keys
                .iter()
                .map_while(|k| tables.resource_ids.get(&k.as_sent));
            into.resources.extend(known.copied());
            let known = scope_keys
                .iter()
                .map_while(|k| tables.scope_ids.get(&k.as_sent));
            into.scopes.extend(known.copied());
        }
        if missing.is_empty()
            && into.resources.len() == resource_keys.len()
            && into.scopes.len() == scope_keys.len()
        {
            return;
        }
        let mut tables = self.tables.write();
        let before = tables.held_bytes;
        for text in missing {
            if let Some(symbol) = into.symbols.get_mut(text as usize) {
                *symbol = tables.intern(data.texts.text(text));
            }
        }
        for (i, keys) in resource_keys.iter().enumerate().skip(into.resources.len()) {
            into.resources.push(tables.intern_resource(data, i, keys));
        }
        for (i, keys) in scope_keys.iter().enumerate().skip(into.scopes.len()) {
            into.scopes.push(tables.intern_scope(data, i, keys));
        }
        self.budget
            .charge(Holder::SpanHead, tables.held_bytes - before);
    }
}

impl Drop for Catalog {
    fn drop(&mut self) {
        self.budget
            .release(Holder::SpanHead, self.tables.get_mut().held_bytes);
    }
}
