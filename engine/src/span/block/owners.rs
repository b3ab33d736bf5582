//! The section of owners: names, resources, scopes, and the classes that rows are of.
//!
//! A *class* is what spans of one operation share: (resource, scope, name, kind, status, flags). Classes
//! are numbered in the order of (status, service, kind, name, resource, scope, flags), so that one service
//! and status are one range of numbers, and a condition on any of them is decided once a class.
//! *Symbols* are the texts of names and services, sorted.
//!
//! Symbols and classes stand in the directory; resources and scopes in the section, an item each.
//!
//! Invariants
//! - Only what a row uses is in the tables, and nothing twice.
//! - Numbers in classes lie below the lengths of the tables: checked when they are opened.

use std::{collections::HashMap, sync::Arc};

use super::{
    super::edge::ClassOwner,
    super::model::{Attributes, Resource, Scope, SpanKind, StatusCode},
    directory::{HeadReader, Wrong, put_integers},
};
use crate::{
    block::{Block, BlockWriter, SectionKind},
    error::Error,
    varint,
};

const SECTION: SectionKind = SectionKind::SpanOwners;

/// What spans of one operation share. The order of the fields is the order of classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClassRow {
    /// How its spans ended.
    pub(crate) status: StatusCode,
    /// Symbol: the service of the resource.
    pub(crate) service: u32,
    /// Role in a call.
    pub(crate) kind: SpanKind,
    /// Symbol: name of the operation.
    pub(crate) name: u32,
    /// Number of the resource.
    pub(crate) resource: u32,
    /// Number of the scope.
    pub(crate) scope: u32,
    /// OTLP's flags.
    pub(crate) flags: u32,
}

/// A source's tables, of which the block being written takes what is used.
pub(super) trait OwnerSource {
    /// The classes.
    fn classes(&self) -> &[ClassRow];
    /// The text of a symbol.
    fn symbol(&self, symbol: u32) -> Arc<str>;
    /// A resource.
    fn resource(&self, resource: u32) -> Result<Arc<Resource>, Error>;
    /// A scope.
    fn scope(&self, scope: u32) -> Result<Arc<Scope>, Error>;
}

/// The tables of the block being written.
#[derive(Debug, Default)]
pub(super) struct Owners {
    symbols: Vec<Arc<str>>,
    /// Encoded, and the symbol of each one's service.
    resources: Vec<(Vec<u8>, u32)>,
    scopes: Vec<Vec<u8>>,
    pub(super) classes: Vec<ClassRow>,
    counts: Vec<u64>,
    /// By source and its class: the class here.
    pub(super) class_of: Vec<Vec<u32>>,
}

/// Numbers of distinct things in the order of first use.
#[derive(Debug)]
struct Interner<T> {
    ids: HashMap<T, u32>,
}

impl<T: std::hash::Hash + Eq + Ord + Clone> Interner<T> {
    fn new() -> Self {
        Self {
            ids: HashMap::new(),
        }
    }

    fn intern(&mut self, item: T) -> u32 {
        let next = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        *self.ids.entry(item).or_insert(next)
    }

    /// The things sorted, and for each number that was given out the place.
    fn sorted(self) -> (Vec<T>, Vec<u32>) {
        let mut items: Vec<(T, u32)> = self.ids.into_iter().collect();
        items.sort_unstable();
        let mut place_of = vec![0; items.len()];
        for ((_, id), place) in items.iter().zip(0u32..) {
            if let Some(slot) = place_of.get_mut(*id as usize) {
                *slot = place;
            }
        }
        (items.into_iter().map(|(item, _)| item).collect(), place_of)
    }
}

/// What of one table of a source got which number: each thing is looked at once.
fn mapped(
    known: &mut Vec<Option<u32>>,
    number: u32,
    find: impl FnOnce() -> Result<u32, Error>,
) -> Result<u32, Error> {
    let place = number as usize;
    if known.len() <= place {
        known.resize(place + 1, None);
    }
    match known.get_mut(place) {
        Some(Some(found)) => Ok(*found),
        Some(slot) => Ok(*slot.insert(find()?)),
        None => Ok(0),
    }
}

impl Owners {
    /// What edges need of each class.
    pub(super) fn edge_classes(&self) -> Vec<ClassOwner> {
        let owner = |class: &ClassRow| ClassOwner {
            service: class.service,
            error: class.status == StatusCode::Error,
        };
        self.classes.iter().map(owner).collect()
    }

    /// The text of a symbol.
    pub(super) fn symbol(&self, symbol: u32) -> Arc<str> {
        let text = self.symbols.get(symbol as usize);
        text.cloned().unwrap_or_default()
    }

    /// Unites what is used of the sources' tables. `counts` says by source how many rows of each of its
    /// classes are taken.
    pub(super) fn unite(sources: &[&dyn OwnerSource], counts: &[Vec<u64>]) -> Result<Self, Error> {
        let mut symbols = Interner::new();
        // Sorted by service first.
        let mut resources: Interner<(Arc<str>, Vec<u8>)> = Interner::new();
        let mut scopes: Interner<Vec<u8>> = Interner::new();
        // In terms of the interners, with the source and its class.
        let mut used = Vec::new();
        for ((number, source), counts) in sources.iter().enumerate().zip(counts) {
            let mut symbol_of = Vec::new();
            let mut resource_of = Vec::new();
            let mut scope_of = Vec::new();
            let classes = source.classes().iter().zip(counts).enumerate();
            for (class, (row, &count)) in classes.filter(|(_, (_, count))| **count > 0) {
                let mut symbol = |symbol| {
                    mapped(&mut symbol_of, symbol, || {
                        Ok(symbols.intern(source.symbol(symbol)))
                    })
                };
                let (service, name) = (symbol(row.service)?, symbol(row.name)?);
                let resource = mapped(&mut resource_of, row.resource, || {
                    let mut bytes = Vec::new();
                    encode_resource(&*source.resource(row.resource)?, &mut bytes);
                    Ok(resources.intern((source.symbol(row.service), bytes)))
                })?;
                let scope = mapped(&mut scope_of, row.scope, || {
                    let mut bytes = Vec::new();
                    encode_scope(&*source.scope(row.scope)?, &mut bytes);
                    Ok(scopes.intern(bytes))
                })?;
                let here = ClassRow {
                    service,
                    name,
                    resource,
                    scope,
                    ..*row
                };
                used.push((here, number, class, count));
            }
        }
        let (symbols, symbol_of) = symbols.sorted();
        let (resources, resource_of) = resources.sorted();
        let (scopes, scope_of) = scopes.sorted();
        let place = |places: &[u32], id: u32| places.get(id as usize).copied().unwrap_or(0);
        for (row, ..) in &mut used {
            row.service = place(&symbol_of, row.service);
            row.name = place(&symbol_of, row.name);
            row.resource = place(&resource_of, row.resource);
            row.scope = place(&scope_of, row.scope);
        }
        used.sort_unstable();
        let mut owners = Self {
            class_of: counts.iter().map(|c| vec![u32::MAX; c.len()]).collect(),
            scopes,
            ..Self::default()
        };
        for (row, source, class, count) in used {
            if owners.classes.last() != Some(&row) {
                owners.classes.push(row);
                owners.counts.push(0);
            }
            let here = u32::try_from(owners.classes.len() - 1).unwrap_or(u32::MAX);
            if let Some(total) = owners.counts.last_mut() {
                *total += count;
            }
            let slot = owners.class_of.get_mut(source);
            if let Some(slot) = slot.and_then(|classes| classes.get_mut(class)) {
                *slot = here;
            }
        }
        let service_of = |text: &Arc<str>| {
            let found = symbols.binary_search(text);
            found.map_or(0, |place| u32::try_from(place).unwrap_or(0))
        };
        owners.resources = resources
            .into_iter()
            .map(|(service, bytes)| (bytes, service_of(&service)))
            .collect();
        owners.symbols = symbols;
        Ok(owners)
    }

    /// Writes section and head.
    pub(super) fn write(&self, writer: &mut BlockWriter, head: &mut Vec<u8>) -> Result<(), Error> {
        writer.begin(SECTION)?;
        varint::put_u64(head, self.symbols.len() as u64);
        for symbol in &self.symbols {
            varint::put_bytes(head, symbol.as_bytes());
        }
        varint::put_u64(head, self.resources.len() as u64);
        put_integers(
            head,
            self.resources
                .iter()
                .map(|(_, service)| i64::from(*service)),
        );
        write_items(
            writer,
            head,
            self.resources.iter().map(|(bytes, _)| bytes.as_slice()),
        )?;
        varint::put_u64(head, self.scopes.len() as u64);
        write_items(writer, head, self.scopes.iter().map(Vec::as_slice))?;
        varint::put_u64(head, self.classes.len() as u64);
        let columns: [fn(&ClassRow) -> u32; 7] = [
            |class| class.status as u32,
            |class| class.service,
            |class| class.kind as u32,
            |class| class.name,
            |class| class.resource,
            |class| class.scope,
            |class| class.flags,
        ];
        for column in columns {
            put_integers(
                head,
                self.classes.iter().map(|class| i64::from(column(class))),
            );
        }
        put_integers(head, self.counts.iter().map(|count| count.cast_signed()));
        Ok(())
    }
}

/// Writes items end to end, and into `head` how long each is.
fn write_items<'a>(
    writer: &mut BlockWriter,
    head: &mut Vec<u8>,
    items: impl Iterator<Item = &'a [u8]>,
) -> Result<(), Error> {
    let mut start_bytes = None;
    let mut lengths = Vec::new();
    for item in items {
        let offset_bytes = writer.write(item)?;
        start_bytes.get_or_insert(offset_bytes);
        lengths.push(i64::try_from(item.len()).unwrap_or(i64::MAX));
    }
    varint::put_u64(head, start_bytes.unwrap_or(0));
    put_integers(head, lengths.into_iter());
    Ok(())
}

/// The tables of a block.
#[derive(Debug)]
pub(crate) struct OwnerTables {
    symbols: Vec<Arc<str>>,
    resources: Items,
    service_of: Vec<u32>,
    scopes: Items,
    classes: Vec<ClassRow>,
    counts: Vec<u64>,
}

/// Where the items of a table lie.
#[derive(Debug)]
struct Items {
    /// Of item `i` from `[i]` to `[i + 1]`.
    bounds_bytes: Vec<u64>,
}

impl Items {
    fn open(count: u32, head: &mut HeadReader<'_>) -> Result<Self, Wrong> {
        let mut at = head.u64()?;
        let mut lengths = Vec::new();
        head.integers(count, &mut lengths)?;
        let mut bounds_bytes = vec![at];
        for length in lengths {
            let length = u64::try_from(length).map_err(|_| "an item of a negative length")?;
            at = at.checked_add(length).ok_or("items too long")?;
            bounds_bytes.push(at);
        }
        Ok(Self { bounds_bytes })
    }

    fn len(&self) -> u32 {
        u32::try_from(self.bounds_bytes.len() - 1).unwrap_or(u32::MAX)
    }

    /// Decodes an item.
    fn get<T>(
        &self,
        block: &Block,
        item: u32,
        decode: impl FnOnce(&mut HeadReader<'_>) -> Result<T, Wrong>,
    ) -> Result<T, Error> {
        let bounds = self.bounds_bytes.get(item as usize..);
        let Some(&[start, end, ..]) = bounds else {
            return Err(block.damage(SECTION, 0, "an owner past the last"));
        };
        let bytes = block.section(SECTION)?.bytes(start..end)?;
        let mut reader = HeadReader::new(&bytes);
        let decoded = decode(&mut reader).and_then(|decoded| reader.end().map(|()| decoded));
        decoded.map_err(|reason| block.damage(SECTION, start, reason))
    }
}

impl OwnerTables {
    pub(super) fn open(mut head: HeadReader<'_>, rows: u32) -> Result<Self, Wrong> {
        let head = &mut head;
        let mut symbols = Vec::new();
        for _ in 0..head.u64()? {
            // Ends with the head at the latest: each takes a byte.
            symbols.push(Arc::from(head.text()?));
        }
        let symbol_max = u32::try_from(symbols.len().saturating_sub(1));
        let symbol_max = symbol_max.map_err(|_| "too many symbols")?;
        let resource_count = head.u32()?;
        let service_of = head.numbers(resource_count, symbol_max)?;
        let resources = Items::open(resource_count, head)?;
        let scope_count = head.u32()?;
        let scopes = Items::open(scope_count, head)?;
        let count = head.u32()?;
        if count > rows
            || (count > 0 && (symbols.is_empty() || resource_count == 0 || scope_count == 0))
        {
            return Err("classes of nothing");
        }
        let statuses = head.numbers(count, 2)?;
        let services = head.numbers(count, symbol_max)?;
        let kinds = head.numbers(count, 5)?;
        let names = head.numbers(count, symbol_max)?;
        let resource_of = head.numbers(count, resource_count.saturating_sub(1))?;
        let scope_of = head.numbers(count, scope_count.saturating_sub(1))?;
        let flags = head.numbers(count, u32::MAX)?;
        let counts = head.numbers(count, rows)?;
        head.end()?;
        let mut classes = Vec::with_capacity(statuses.len());
        let columns = statuses.iter().zip(&services).zip(&kinds).zip(&names);
        let owned = resource_of.iter().zip(&scope_of).zip(&flags);
        for ((((&status, &service), &kind), &name), ((&resource, &scope), &flags)) in
            columns.zip(owned)
        {
            let status = i32::try_from(status).ok().and_then(StatusCode::from_number);
            let kind = i32::try_from(kind).ok().and_then(SpanKind::from_number);
            classes.push(ClassRow {
                status: status.ok_or("an unknown status")?,
                service,
                kind: kind.ok_or("an unknown kind")?,
                name,
                resource,
                scope,
                flags,
            });
        }
        if !classes.is_sorted() {
            return Err("classes out of order");
        }
        Ok(Self {
            symbols,
            resources,
            service_of,
            scopes,
            classes,
            counts: counts.into_iter().map(u64::from).collect(),
        })
    }

    /// All symbols, sorted: names of operations, and of services.
    pub(super) fn symbols(&self) -> &[Arc<str>] {
        &self.symbols
    }

    /// The classes, by number.
    pub(super) fn classes(&self) -> &[ClassRow] {
        &self.classes
    }

    /// Rows of each class.
    pub(super) fn counts(&self) -> &[u64] {
        &self.counts
    }

    pub(super) fn resource_count(&self) -> u32 {
        self.resources.len()
    }

    pub(super) fn scope_count(&self) -> u32 {
        self.scopes.len()
    }

    /// The symbol of a resource's service.
    pub(super) fn service_of(&self, resource: u32) -> u32 {
        self.service_of.get(resource as usize).copied().unwrap_or(0)
    }

    pub(super) fn resource(&self, block: &Block, resource: u32) -> Result<Arc<Resource>, Error> {
        self.resources
            .get(block, resource, decode_resource)
            .map(Arc::new)
    }

    pub(super) fn scope(&self, block: &Block, scope: u32) -> Result<Arc<Scope>, Error> {
        self.scopes.get(block, scope, decode_scope).map(Arc::new)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let texts: usize = self.symbols.iter().map(|text| text.len() + 16).sum();
        texts
            + self.symbols.capacity() * size_of::<Arc<str>>()
            + (self.resources.bounds_bytes.capacity() + self.scopes.bounds_bytes.capacity())
                * size_of::<u64>()
            + self.service_of.capacity() * size_of::<u32>()
            + self.classes.capacity() * size_of::<ClassRow>()
            + self.counts.capacity() * size_of::<u64>()
    }
}

fn put_attributes(out: &mut Vec<u8>, attributes: &Attributes) {
    varint::put_u64(out, attributes.len() as u64);
    for (key, value) in attributes {
        varint::put_bytes(out, key.as_bytes());
        // What was stored is not nested too deep.
        let _ = value.as_ref().encode(out);
    }
}

fn take_attributes(input: &mut HeadReader<'_>) -> Result<Attributes, Wrong> {
    let mut attributes = Attributes::new();
    for _ in 0..input.u64()? {
        let key = Arc::from(input.text()?);
        attributes.push((key, input.value()?));
    }
    Ok(attributes)
}

/// Appends a resource: attributes, dropped, schema, entity refs.
pub(super) fn encode_resource(resource: &Resource, out: &mut Vec<u8>) {
    put_attributes(out, &resource.attributes);
    varint::put_u64(out, resource.dropped_attributes_count.into());
    varint::put_bytes(out, resource.schema_url.as_bytes());
    varint::put_bytes(out, &resource.entity_refs);
}

fn decode_resource(input: &mut HeadReader<'_>) -> Result<Resource, Wrong> {
    Ok(Resource {
        attributes: take_attributes(input)?,
        dropped_attributes_count: input.u32()?,
        schema_url: input.text()?.to_owned(),
        entity_refs: input.bytes()?.to_vec(),
    })
}

/// Appends a scope: name, version, attributes, dropped, schema.
pub(super) fn encode_scope(scope: &Scope, out: &mut Vec<u8>) {
    varint::put_bytes(out, scope.name.as_bytes());
    varint::put_bytes(out, scope.version.as_bytes());
    put_attributes(out, &scope.attributes);
    varint::put_u64(out, scope.dropped_attributes_count.into());
    varint::put_bytes(out, scope.schema_url.as_bytes());
}

fn decode_scope(input: &mut HeadReader<'_>) -> Result<Scope, Wrong> {
    Ok(Scope {
        name: input.text()?.to_owned(),
        version: input.text()?.to_owned(),
        attributes: take_attributes(input)?,
        dropped_attributes_count: input.u32()?,
        schema_url: input.text()?.to_owned(),
    })
}
