//! Which series there are: from the hash of their label bytes to their number, reference and labels.
//!
//! A *series number* (`u32`) is dense and lives as long as its generation: the low bits are the shard,
//! the rest the slot in it. A [`SeriesRef`] is what the log knows the series by, within a generation;
//! references go on from one generation to the next and are never given out again.
//!
//! Each shard has one lock over its table and rows. A series belongs to the shard that the hash of
//! its canonical bytes names. Other forms of its bytes (a sender's own) are *aliases*, which live in
//! the shard of their own hash and hold nothing but the number.
//!
//! Locks: a shard's lock is never held while another shard's is taken; `symbols` and `shapes` are
//! leaves, and are not taken under a shard's lock.
//!
//! Invariants
//! - A series, once registered, keeps number, reference and labels while its generation lives.
//! - One label set has one series: the canonical hash is probed again under the write lock.

use std::{
    collections::HashMap as StdHashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use hashbrown::HashTable;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use rootline_index::{LabelFault, LabelLimits, Labels, LabelsBuilder, SharedSymbols, Symbol};
use rootline_wal::Lsn;

use super::{
    batch::ParseLabels,
    pages::Pages,
    ref_table::RefTable,
    series_hash::{DOMAIN_CANONICAL, HashKey},
};
use crate::{error::Error, id::SeriesRef};

/// `defined` of a series whose definition was never logged.
const NEVER: u64 = u64::MAX;
/// Set in `defined` while one record alone holds the definition; the rest is that record's LSN. Makes
/// the number larger than every LSN, so that one comparison says whether two records are durable.
const DEFINED_ONCE: u64 = 1 << 63;

/// Aliases allowed beside two for each series: a sender that shuffles its labels has every request
/// parsed instead of filling the memory.
const ALIASES_FREE: u64 = 4096;
const ALIASES_PER_SERIES: u64 = 2;

/// Values of label sets stand in pages of this many symbols.
const VALUES_PAGE: usize = 4096;

/// Largest number of shards: leaves 26 bits for slots.
pub(crate) const SHARDS_MAX: usize = 64;

/// The dense number of a series: slot and shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SeriesNumber(pub(crate) u32);

/// How a series number splits. Copied to whoever must split many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sharding {
    bits: u32,
}

impl Sharding {
    /// At least `wanted` shards, as a power of two of at most [`SHARDS_MAX`].
    pub(crate) fn new(wanted: usize) -> Self {
        Self {
            bits: wanted
                .clamp(1, SHARDS_MAX)
                .next_power_of_two()
                .trailing_zeros(),
        }
    }

    pub(crate) fn shards(self) -> usize {
        1 << self.bits
    }

    #[inline]
    pub(crate) fn shard(self, number: SeriesNumber) -> usize {
        (number.0 & ((1 << self.bits) - 1)) as usize
    }

    #[inline]
    pub(crate) fn slot(self, number: SeriesNumber) -> usize {
        (number.0 >> self.bits) as usize
    }

    #[inline]
    fn of_hash(self, hash: u128) -> usize {
        // The table takes the low half; the top bits are free.
        ((hash >> 64) as u64).unbounded_shr(64 - self.bits) as usize
    }

    fn number(self, shard: usize, slot: usize) -> Option<SeriesNumber> {
        let number = (slot << self.bits) | shard;
        u32::try_from(number).ok().map(SeriesNumber)
    }
}

/// What a row of a batch turned out to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resolved {
    pub(crate) number: SeriesNumber,
    pub(crate) series: SeriesRef,
    /// The second record that defines it; larger than any LSN if there are not two yet.
    pub(crate) defined: Lsn,
}

/// How many series each value of some labels has, and may have.
#[derive(Debug, Default)]
struct LabelCounts {
    limits: Vec<(String, u64)>,
    /// By limit and value.
    counts: Mutex<StdHashMap<(usize, Box<str>), u64>>,
}

impl LabelCounts {
    /// Counts a series; with `is_checked` only if no limit stands against it.
    fn add(&self, pairs: &[(&str, &str)], is_checked: bool) -> Result<(), Error> {
        if self.limits.is_empty() {
            return Ok(());
        }
        let mut counts = self.counts.lock();
        for (label, value, limit) in self.limited(pairs) {
            let max = self.limits.get(limit).map_or(u64::MAX, |(_, max)| *max);
            let count = counts.get(&(limit, value.into())).copied();
            if is_checked && count.unwrap_or(0) >= max {
                return Err(Error::SeriesLimitOfLabel {
                    label: label.to_owned(),
                    value: value.to_owned(),
                    max,
                });
            }
        }
        for (_, value, limit) in self.limited(pairs) {
            *counts.entry((limit, value.into())).or_default() += 1;
        }
        Ok(())
    }

    fn remove(&self, pairs: &[(&str, &str)]) {
        let mut counts = self.counts.lock();
        for (_, value, limit) in self.limited(pairs) {
            if let Some(count) = counts.get_mut(&(limit, value.into())) {
                *count = count.saturating_sub(1);
            }
        }
    }

    fn limited<'a>(
        &'a self,
        pairs: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = (&'a str, &'a str, usize)> {
        self.limits
            .iter()
            .enumerate()
            .filter_map(|(limit, (name, _))| {
                let (_, value) = pairs.iter().find(|(n, _)| n == name)?;
                Some((name.as_str(), *value, limit))
            })
    }
}

/// All series of the head.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) sharding: Sharding,
    key: HashKey,
    limits: LabelLimits,
    series_max: u64,
    of_labels: LabelCounts,
    shards: Vec<RwLock<RegistryShard>>,
    pub(crate) symbols: SharedSymbols,
    shapes: RwLock<Shapes>,
    series: AtomicU64,
    aliases: AtomicU64,
    next_ref: AtomicU64,
    /// Series number by reference, for references read from the log; built by replay.
    by_ref: RwLock<RefTable>,
}

#[derive(Debug, Default)]
struct RegistryShard {
    /// Slots, found by the canonical hash of their row.
    slots: HashTable<u32>,
    aliases: HashTable<Alias>,
    rows: Pages<Row>,
    values: Vec<Vec<Symbol>>,
    values_capacity: usize,
}

#[derive(Debug)]
struct Row {
    /// The canonical hash, low half first. In halves, to need no padding.
    hash: [u64; 2],
    series: SeriesRef,
    defined: AtomicU64,
    shape: u32,
    /// Page and offset of the first value: `page * VALUES_PAGE + offset`.
    values: u32,
}

/// A hash that stands for a series beside its canonical one. In words, to need no padding.
#[derive(Clone, Copy, Debug)]
struct Alias {
    hash: [u32; 4],
    number: SeriesNumber,
}

/// The sorted names of label sets, each kept once.
#[derive(Debug, Default)]
struct Shapes {
    numbers: StdHashMap<Arc<[Symbol]>, u32>,
    names: Vec<Arc<[Symbol]>>,
}

fn words(hash: u128) -> [u32; 4] {
    #[expect(clippy::cast_possible_truncation, reason = "one word at a time")]
    [
        hash as u32,
        (hash >> 32) as u32,
        (hash >> 64) as u32,
        (hash >> 96) as u32,
    ]
}

#[inline]
fn halves(hash: u128) -> [u64; 2] {
    #[expect(clippy::cast_possible_truncation, reason = "one half at a time")]
    [hash as u64, (hash >> 64) as u64]
}

#[inline]
fn low(hash: u128) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
    let low = hash as u64;
    low
}

impl Alias {
    fn low(&self) -> u64 {
        let [a, b, ..] = self.hash;
        u64::from(a) | (u64::from(b) << 32)
    }
}

/// All series, held still: for a walk over a registry that nobody writes to.
#[derive(Debug)]
pub(crate) struct RegistryRows<'r> {
    sharding: Sharding,
    shards: Vec<RwLockReadGuard<'r, RegistryShard>>,
    shapes: RwLockReadGuard<'r, Shapes>,
}

impl RegistryRows<'_> {
    /// Every series, shard by shard.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = SeriesNumber> {
        let sharding = self.sharding;
        self.shards
            .iter()
            .enumerate()
            .flat_map(move |(shard, table)| {
                let slots = 0..table.rows.len();
                slots.filter_map(move |slot| sharding.number(shard, slot))
            })
    }

    /// The label pairs of a series, sorted by the names' text.
    pub(crate) fn pairs(&self, number: SeriesNumber) -> impl Iterator<Item = (Symbol, Symbol)> {
        let (names, values) = self.names_and_values(number).unwrap_or_default();
        names.iter().copied().zip(values.iter().copied())
    }

    /// The label names of each shape, sorted by their text.
    pub(crate) fn shapes(&self) -> &[Arc<[Symbol]>] {
        &self.shapes.names
    }

    /// The shape of a series, and the value of each of its names.
    #[inline]
    pub(crate) fn shape_and_values(&self, number: SeriesNumber) -> Option<(usize, &[Symbol])> {
        let table = self.shards.get(self.sharding.shard(number))?;
        let row = table.rows.get(self.sharding.slot(number))?;
        let names = self.shapes.names.get(row.shape as usize)?;
        Some((row.shape as usize, table.values(row, names.len())))
    }

    fn names_and_values(&self, number: SeriesNumber) -> Option<(&[Symbol], &[Symbol])> {
        let (shape, values) = self.shape_and_values(number)?;
        Some((self.shapes.names.get(shape)?, values))
    }
}

impl RegistryShard {
    #[inline]
    fn find(&self, hash: u128) -> Option<(u32, &Row)> {
        let wanted = halves(hash);
        let slot = *self.slots.find(low(hash), |&slot| {
            self.rows
                .get(slot as usize)
                .is_some_and(|row| row.hash == wanted)
        })?;
        Some((slot, self.rows.get(slot as usize)?))
    }

    fn find_alias(&self, hash: u128) -> Option<SeriesNumber> {
        let words = words(hash);
        Some(self.aliases.find(low(hash), |a| a.hash == words)?.number)
    }

    fn values(&self, row: &Row, count: usize) -> &[Symbol] {
        let (page, offset) = (
            row.values as usize / VALUES_PAGE,
            row.values as usize % VALUES_PAGE,
        );
        let values = self
            .values
            .get(page)
            .and_then(|page| page.get(offset..offset + count));
        values.unwrap_or_default()
    }

    /// Stores values in one piece; `None` once the offsets are used up.
    fn push_values(&mut self, values: impl ExactSizeIterator<Item = Symbol>) -> Option<u32> {
        let fits = |page: &Vec<Symbol>| {
            page.capacity() - page.len() >= values.len() && page.len() < VALUES_PAGE
        };
        if !self.values.last().is_some_and(fits) {
            // Only the first page of a shard grows, so that a small head stays small.
            let capacity = if self.values.is_empty() {
                64
            } else {
                VALUES_PAGE
            };
            let page = Vec::with_capacity(capacity.max(values.len()));
            self.values_capacity += page.capacity();
            self.values.push(page);
        }
        let page_number = self.values.len() - 1;
        let page = self.values.last_mut()?;
        let place = u32::try_from(page_number * VALUES_PAGE + page.len()).ok()?;
        page.extend(values);
        Some(place)
    }

    fn heap_bytes(&self) -> usize {
        self.slots.allocation_size()
            + self.aliases.allocation_size()
            + self.rows.heap_bytes()
            + self.values_capacity * size_of::<Symbol>()
            + self.values.capacity() * size_of::<Vec<Symbol>>()
    }
}

impl Registry {
    pub(crate) fn new(shards: usize, limits: LabelLimits, series_max: u64) -> Self {
        let sharding = Sharding::new(shards);
        Self {
            sharding,
            key: HashKey::random(),
            limits,
            series_max,
            of_labels: LabelCounts::default(),
            shards: (0..sharding.shards()).map(|_| RwLock::default()).collect(),
            symbols: SharedSymbols::new(),
            shapes: RwLock::default(),
            series: AtomicU64::new(0),
            aliases: AtomicU64::new(0),
            next_ref: AtomicU64::new(1),
            by_ref: RwLock::default(),
        }
    }

    /// Bounds how many series one value of these labels has.
    pub(crate) fn limit_labels(mut self, limits: Vec<(String, u64)>) -> Self {
        self.of_labels.limits = limits;
        self
    }

    /// The registry of the generation that follows: empty, with the same key, limits and sharding;
    /// references go on. Called while nobody registers in this one.
    pub(crate) fn successor(&self) -> Self {
        let next = Self::new(self.sharding.shards(), self.limits, self.series_max)
            .limit_labels(self.of_labels.limits.clone());
        Self {
            key: self.key.clone(),
            next_ref: AtomicU64::new(self.next_ref.load(Ordering::Relaxed)),
            ..next
        }
    }

    /// All series, held still. Whoever registers waits meanwhile.
    pub(crate) fn rows(&self) -> RegistryRows<'_> {
        RegistryRows {
            sharding: self.sharding,
            shards: self.shards.iter().map(RwLock::read).collect(),
            shapes: self.shapes.read(),
        }
    }

    /// The lowest reference that was never given out.
    pub(crate) fn next_ref(&self) -> SeriesRef {
        SeriesRef(self.next_ref.load(Ordering::Relaxed))
    }

    pub(crate) fn key(&self) -> &HashKey {
        &self.key
    }

    pub(crate) fn limits(&self) -> &LabelLimits {
        &self.limits
    }

    /// Series registered.
    pub(crate) fn len(&self) -> u64 {
        self.series.load(Ordering::Relaxed)
    }

    fn shard_at(&self, shard: usize) -> &RwLock<RegistryShard> {
        self.shards
            .get(shard)
            .expect("a shard number comes from the sharding of this registry")
    }

    /// Shard in which a hash is looked up.
    #[inline]
    pub(crate) fn shard_of_hash(&self, hash: u128) -> usize {
        self.sharding.of_hash(hash)
    }

    /// Looks up rows of a batch whose hashes all belong to `shard`, under one lock. `found` gets the
    /// index of each known one; `aliased` those that are known by an alias only, for
    /// [`resolve`](Self::resolve); the rest goes to `unknown`.
    pub(crate) fn probe(
        &self,
        shard: usize,
        rows: impl Iterator<Item = (u32, u128)>,
        mut found: impl FnMut(u32, Resolved),
        aliased: &mut Vec<(u32, SeriesNumber)>,
        unknown: &mut Vec<u32>,
    ) {
        let table = self.shard_at(shard).read();
        for (index, hash) in rows {
            if let Some((slot, row)) = table.find(hash) {
                let Some(number) = self.sharding.number(shard, slot as usize) else {
                    continue;
                };
                found(index, resolved(number, row));
            } else if let Some(number) = table.find_alias(hash) {
                aliased.push((index, number));
            } else {
                unknown.push(index);
            }
        }
    }

    /// What is known of series by number, all of `shard`, under one lock.
    pub(crate) fn resolve(
        &self,
        shard: usize,
        rows: impl Iterator<Item = (u32, SeriesNumber)>,
        mut found: impl FnMut(u32, Resolved),
    ) {
        let table = self.shard_at(shard).read();
        for (index, number) in rows {
            if let Some(row) = table.rows.get(self.sharding.slot(number)) {
                found(index, resolved(number, row));
            }
        }
    }

    /// Registers the series of a sender's bytes, whose hash was not known a moment ago.
    ///
    /// # Errors
    /// Labels that do not parse or are refused by the limits; [`Error::SeriesLimit`].
    pub(crate) fn register_raw(
        &self,
        hash: u128,
        bytes: &[u8],
        parse: ParseLabels,
    ) -> Result<Resolved, Error> {
        // Another writer, or an earlier row of this batch, may have been faster.
        if let Some(known) = self.lookup(hash) {
            return Ok(known);
        }
        let mut builder = LabelsBuilder::default();
        parse(bytes, &mut builder).map_err(Error::InvalidLabels)?;
        let labels = builder
            .build_within(&self.limits)
            .map_err(Error::InvalidLabels)?;
        if labels.is_empty() {
            let error = rootline_index::Error::InvalidLabel {
                label: rootline_index::METRIC_NAME.to_owned(),
                fault: LabelFault::EmptyValue,
            };
            return Err(Error::InvalidLabels(error));
        }
        let mut canonical = Vec::new();
        labels.encode_canonical(&mut canonical);
        let canonical_hash = self.key.hash(DOMAIN_CANONICAL, &canonical);
        let known = if canonical_hash == hash {
            None
        } else {
            self.lookup(canonical_hash)
        };
        let registered = match known {
            Some(known) => known,
            None => self.register_new(canonical_hash, &labels)?,
        };
        if canonical_hash != hash {
            self.add_alias(hash, registered.number);
        }
        Ok(registered)
    }

    fn register_new(&self, hash: u128, labels: &Labels) -> Result<Resolved, Error> {
        let over = || Error::SeriesLimit {
            max: self.series_max,
        };
        self.series
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < self.series_max).then_some(n + 1)
            })
            .map_err(|_| over())?;
        let texts: Vec<(&str, &str)> = labels.iter().collect();
        if let Err(error) = self.of_labels.add(&texts, true) {
            self.series.fetch_sub(1, Ordering::Relaxed);
            return Err(error);
        }
        let pairs = self.symbols.intern_pairs(labels.iter());
        let inserted = self.insert(hash, None, &pairs);
        // One who lost the race counted a series that is not there.
        if !matches!(inserted, Some((_, true))) {
            self.series.fetch_sub(1, Ordering::Relaxed);
            self.of_labels.remove(&texts);
        }
        inserted.map(|(resolved, _)| resolved).ok_or_else(over)
    }

    /// Inserts a series, or finds it. `None` if the numbers are used up; else whether it is new.
    fn insert(
        &self,
        hash: u128,
        series: Option<SeriesRef>,
        pairs: &[(Symbol, Symbol)],
    ) -> Option<(Resolved, bool)> {
        let shape = self.shape(pairs);
        let shard = self.sharding.of_hash(hash);
        let mut table = self.shard_at(shard).write();
        if let Some((slot, row)) = table.find(hash) {
            let number = self.sharding.number(shard, slot as usize)?;
            return Some((resolved(number, row), false));
        }
        let slot = table.rows.len();
        let number = self.sharding.number(shard, slot)?;
        let slot = u32::try_from(slot).ok()?;
        let values = table.push_values(pairs.iter().map(|&(_, value)| value))?;
        let series =
            series.unwrap_or_else(|| SeriesRef(self.next_ref.fetch_add(1, Ordering::Relaxed)));
        let row = Row {
            hash: halves(hash),
            series,
            defined: AtomicU64::new(NEVER),
            shape,
            values,
        };
        let resolved = resolved(number, &row);
        let RegistryShard { slots, rows, .. } = &mut *table;
        rows.push(row);
        let rehash = |&slot: &u32| rows.get(slot as usize).map_or(0, |row| row.hash[0]);
        slots.insert_unique(low(hash), slot, rehash);
        Some((resolved, true))
    }

    fn add_alias(&self, hash: u128, number: SeriesNumber) {
        let max = ALIASES_FREE + ALIASES_PER_SERIES * self.len();
        if self.aliases.load(Ordering::Relaxed) >= max {
            return;
        }
        let mut table = self.shard_at(self.sharding.of_hash(hash)).write();
        if table.find_alias(hash).is_none() {
            self.aliases.fetch_add(1, Ordering::Relaxed);
            let alias = Alias {
                hash: words(hash),
                number,
            };
            table.aliases.insert_unique(low(hash), alias, Alias::low);
        }
    }

    fn lookup(&self, hash: u128) -> Option<Resolved> {
        let shard = self.sharding.of_hash(hash);
        let alias = {
            let table = self.shard_at(shard).read();
            if let Some((slot, row)) = table.find(hash) {
                let number = self.sharding.number(shard, slot as usize)?;
                return Some(resolved(number, row));
            }
            table.find_alias(hash)?
        };
        self.get(alias)
    }

    fn get(&self, number: SeriesNumber) -> Option<Resolved> {
        let table = self.shard_at(self.sharding.shard(number)).read();
        Some(resolved(
            number,
            table.rows.get(self.sharding.slot(number))?,
        ))
    }

    fn shape(&self, pairs: &[(Symbol, Symbol)]) -> u32 {
        let names: Vec<Symbol> = pairs.iter().map(|&(name, _)| name).collect();
        if let Some(&shape) = self.shapes.read().numbers.get(names.as_slice()) {
            return shape;
        }
        let mut shapes = self.shapes.write();
        if let Some(&shape) = shapes.numbers.get(names.as_slice()) {
            return shape;
        }
        let names: Arc<[Symbol]> = names.into();
        let shape = u32::try_from(shapes.names.len()).expect("fewer shapes than series");
        shapes.names.push(Arc::clone(&names));
        shapes.numbers.insert(names, shape);
        shape
    }

    /// Remembers that record `lsn` defines these series; the first two records that do count. Called
    /// in rising LSN order.
    pub(crate) fn set_defined(&self, numbers: &[SeriesNumber], lsn: Lsn) {
        for &number in numbers {
            let table = self.shard_at(self.sharding.shard(number)).read();
            if let Some(row) = table.rows.get(self.sharding.slot(number)) {
                note_defined(&row.defined, lsn);
            }
        }
    }

    /// The label pairs of a series, sorted by the names' text, in `pairs`.
    pub(crate) fn pairs(
        &self,
        number: SeriesNumber,
        pairs: &mut Vec<(Symbol, Symbol)>,
    ) -> SeriesRef {
        pairs.clear();
        let shards = &self.shards;
        let Some(shard) = shards.get(self.sharding.shard(number)) else {
            return SeriesRef(0);
        };
        let (shape, series) = {
            let table = shard.read();
            let Some(row) = table.rows.get(self.sharding.slot(number)) else {
                return SeriesRef(0);
            };
            (row.shape, row.series)
        };
        let names = self.shape_names(shape);
        let table = shard.read();
        if let Some(row) = table.rows.get(self.sharding.slot(number)) {
            let values = table.values(row, names.len());
            pairs.extend(names.iter().copied().zip(values.iter().copied()));
        }
        series
    }

    /// The number of a series' shape: equal for series with the same label names.
    pub(crate) fn shape_of(&self, number: SeriesNumber) -> Option<u32> {
        let table = self.shard_at(self.sharding.shard(number)).read();
        Some(table.rows.get(self.sharding.slot(number))?.shape)
    }

    /// The sorted names of a shape.
    pub(crate) fn shape_names(&self, shape: u32) -> Arc<[Symbol]> {
        let shapes = self.shapes.read();
        shapes
            .names
            .get(shape as usize)
            .cloned()
            .unwrap_or_default()
    }

    /// A series' reference and labels. `pairs` is room that is reused.
    pub(crate) fn labels(
        &self,
        number: SeriesNumber,
        pairs: &mut Vec<(Symbol, Symbol)>,
    ) -> (SeriesRef, Labels) {
        let series = self.pairs(number, pairs);
        let symbols = self.symbols.read();
        let texts = pairs
            .iter()
            .map(|&(n, v)| (symbols.resolve(n), symbols.resolve(v)));
        let labels = Labels::from_pairs(texts).expect("a registered set was checked when it came");
        (series, labels)
    }

    /// Takes the second definition of a series from the log, if it says what the first one said: as a
    /// rule a record repeats it, and comparing symbols is cheaper than to look it up again.
    pub(crate) fn restore_again(
        &self,
        series: SeriesRef,
        pairs: &[(Symbol, Symbol)],
        lsn: Lsn,
    ) -> bool {
        let Some(number) = self.by_ref.read().get(series.0) else {
            return false;
        };
        let shapes = self.shapes.read();
        let table = self.shard_at(self.sharding.shard(number)).read();
        let Some(row) = table.rows.get(self.sharding.slot(number)) else {
            return false;
        };
        let Some(names) = shapes.names.get(row.shape as usize) else {
            return false;
        };
        let known = names.iter().zip(table.values(row, names.len()));
        let is_same = row.series == series
            && names.len() == pairs.len()
            && known
                .zip(pairs)
                .all(|(known, pair)| known == (&pair.0, &pair.1));
        if is_same {
            note_defined(&row.defined, lsn);
        }
        is_same
    }

    /// Takes a definition from the log: reference and sorted pairs. Canonical bytes are given for
    /// the hash. One label set may come under several references, one for each generation that the
    /// log holds; the first is the one it goes on with.
    ///
    /// # Errors
    /// What contradicts an earlier definition, as the reason of a corrupt record.
    pub(crate) fn restore(
        &self,
        series: SeriesRef,
        canonical: &[u8],
        pairs: &[(Symbol, Symbol)],
        lsn: Lsn,
    ) -> Result<SeriesNumber, String> {
        self.saw_ref(series);
        let hash = self.key.hash(DOMAIN_CANONICAL, canonical);
        let by_ref = self.by_ref.read().get(series.0);
        let known = self.lookup(hash);
        let number = match (by_ref, known) {
            (None, None) => {
                let (resolved, is_new) = self
                    .insert(hash, Some(series), pairs)
                    .ok_or("series numbers are used up")?;
                if is_new {
                    self.series.fetch_add(1, Ordering::Relaxed);
                    self.count_restored(pairs);
                }
                self.by_ref.write().insert(series.0, resolved.number);
                resolved.number
            }
            (None, Some(known)) => {
                self.by_ref.write().insert(series.0, known.number);
                if known.series != series {
                    // What this record defines is the reference of another generation.
                    return Ok(known.number);
                }
                known.number
            }
            (Some(by_ref), Some(known)) if by_ref == known.number && known.series != series => {
                return Ok(by_ref);
            }
            (Some(by_ref), Some(known)) if by_ref == known.number => by_ref,
            (Some(_), _) => {
                return Err(format!(
                    "series {series} is defined again with other labels"
                ));
            }
        };
        self.set_defined(&[number], lsn);
        Ok(number)
    }

    fn count_restored(&self, pairs: &[(Symbol, Symbol)]) {
        if self.of_labels.limits.is_empty() {
            return;
        }
        let symbols = self.symbols.read();
        let text = |symbol| symbols.try_resolve(symbol).unwrap_or_default();
        let texts: Vec<_> = pairs.iter().map(|&(n, v)| (text(n), text(v))).collect();
        // What is in the log is stored, whatever the limits are now.
        let _ = self.of_labels.add(&texts, false);
    }

    /// The series numbers of references in the log, held still for a run of look-ups.
    pub(crate) fn by_ref(&self) -> RwLockReadGuard<'_, RefTable> {
        self.by_ref.read()
    }

    /// Makes sure that no new series gets this reference, which the log has used.
    pub(crate) fn saw_ref(&self, series: SeriesRef) {
        self.next_ref
            .fetch_max(series.0.saturating_add(1), Ordering::Relaxed);
    }

    /// Gives back what only replay needs.
    pub(crate) fn replayed(&self) {
        *self.by_ref.write() = RefTable::default();
    }

    /// Bytes allocated. Takes every shard's lock once.
    pub(crate) fn heap_bytes(&self) -> usize {
        let shards: usize = self
            .shards
            .iter()
            .map(|shard| shard.read().heap_bytes())
            .sum();
        let shapes = {
            let shapes = self.shapes.read();
            let symbols: usize = shapes.names.iter().map(|names| names.len()).sum();
            symbols * size_of::<Symbol>() + shapes.names.capacity() * 64
        };
        let by_ref = self.by_ref.read().heap_bytes();
        shards + shapes + by_ref + self.symbols.heap_bytes()
    }
}

/// Record `lsn` defines the series; the first two records that do count.
fn note_defined(defined: &AtomicU64, lsn: Lsn) {
    let _ = defined.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
        if now == NEVER {
            Some(lsn.0 | DEFINED_ONCE)
        } else if now & DEFINED_ONCE != 0 && now != lsn.0 | DEFINED_ONCE {
            Some(lsn.0)
        } else {
            None
        }
    });
}

fn resolved(number: SeriesNumber, row: &Row) -> Resolved {
    let defined = Lsn(row.defined.load(Ordering::Relaxed));
    Resolved {
        number,
        series: row.series,
        defined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(series_max: u64) -> Registry {
        Registry::new(4, LabelLimits::default(), series_max)
    }

    fn parse<'b>(
        bytes: &'b [u8],
        builder: &mut LabelsBuilder<'b>,
    ) -> Result<(), rootline_index::Error> {
        *builder = LabelsBuilder::from_encoded(bytes)?;
        Ok(())
    }

    fn canonical(labels: &Labels) -> Vec<u8> {
        let mut bytes = Vec::new();
        labels.encode_canonical(&mut bytes);
        bytes
    }

    fn register(registry: &Registry, bytes: &[u8]) -> Result<Resolved, Error> {
        registry.register_raw(registry.key.hash(0, bytes), bytes, parse)
    }

    #[test]
    fn unsorted_bytes_are_an_alias_of_the_series() {
        let registry = registry(10);
        let a = Labels::from_pairs([("a", "1"), ("b", "2")]).unwrap();
        let first = register(&registry, &canonical(&a)).unwrap();
        let mut swapped = canonical(&Labels::from_pairs([("b", "2")]).unwrap());
        swapped.extend(canonical(&Labels::from_pairs([("a", "1")]).unwrap()));
        for _ in 0..2 {
            let again = register(&registry, &swapped).unwrap();
            assert_eq!((again.number, again.series), (first.number, first.series));
        }
        assert_eq!(registry.len(), 1);
        assert_eq!(registry.aliases.load(Ordering::Relaxed), 1);
        assert_eq!(
            registry.labels(first.number, &mut Vec::new()),
            (first.series, a)
        );
    }

    #[test]
    fn the_series_limit_and_empty_labels_are_refused() {
        let registry = registry(1);
        let set = |v: &str| canonical(&Labels::from_pairs([("a", v)]).unwrap());
        register(&registry, &set("1")).unwrap();
        assert!(matches!(
            register(&registry, &set("2")),
            Err(Error::SeriesLimit { max: 1 })
        ));
        assert!(register(&registry, &set("1")).is_ok());
        assert!(matches!(
            register(&registry, &[]),
            Err(Error::InvalidLabels(_))
        ));
        assert_eq!(registry.len(), 1);
    }

    #[test]
    fn a_value_of_a_limited_label_has_so_many_series_in_each_generation() {
        let limited = registry(100).limit_labels(vec![("job".to_owned(), 2)]);
        let next = limited.successor();
        for registry in [&limited, &next] {
            let add = |job: &str, i: u64| {
                let labels = Labels::from_pairs([("i", &*i.to_string()), ("job", job)]).unwrap();
                register(registry, &canonical(&labels))
            };
            add("a", 1).unwrap();
            add("a", 2).unwrap();
            assert!(add("a", 2).is_ok(), "known");
            let refused = add("a", 3).unwrap_err();
            assert!(
                matches!(&refused, Error::SeriesLimitOfLabel { value, max: 2, .. } if value == "a"),
                "{refused}"
            );
            assert_eq!(refused.kind(), crate::ErrorKind::InvalidRequest);
            add("b", 3).unwrap();
            assert_eq!(registry.len(), 3);
        }
    }

    #[test]
    fn aliases_are_bounded() {
        let registry = registry(10);
        let number = register(
            &registry,
            &canonical(&Labels::from_pairs([("a", "1")]).unwrap()),
        )
        .unwrap()
        .number;
        for i in 0..10_000u128 {
            registry.add_alias(i, number);
        }
        let aliases = registry.aliases.load(Ordering::Relaxed);
        assert_eq!(aliases, ALIASES_FREE + ALIASES_PER_SERIES);
    }

    #[test]
    fn label_sets_of_any_size_are_kept() {
        let registry = registry(10_000);
        let mut sets = Vec::new();
        for i in 0..2000usize {
            let count = if i % 500 == 0 { 120 } else { i % 17 + 1 };
            let pairs = (0..count).map(|l| (format!("l{l}"), format!("{}", i * l)));
            let labels =
                Labels::from_pairs(pairs.chain([("i".to_owned(), i.to_string())])).unwrap();
            let resolved = register(&registry, &canonical(&labels)).unwrap();
            sets.push((resolved.number, labels));
        }
        let mut pairs = Vec::new();
        for (number, labels) in &sets {
            assert_eq!(registry.labels(*number, &mut pairs).1, *labels);
        }
    }

    #[test]
    fn a_definition_that_contradicts_an_earlier_one_is_refused() {
        let registry = registry(10);
        let restore = |series: u64, v: &str| {
            let labels = Labels::from_pairs([("a", v)]).unwrap();
            let pairs = registry.symbols.intern_pairs(labels.iter());
            registry.restore(SeriesRef(series), &canonical(&labels), &pairs, Lsn(1))
        };
        let first = restore(7, "x").unwrap();
        assert_eq!(restore(7, "x").unwrap(), first);
        assert!(
            restore(7, "y")
                .unwrap_err()
                .contains("series 7 is defined again")
        );
        assert_eq!(
            restore(8, "x").unwrap(),
            first,
            "another generation knew the same series by another reference"
        );
        assert!(restore(8, "y").is_err());
        let labels = Labels::from_pairs([("new", "x")]).unwrap();
        let next = register(&registry, &canonical(&labels)).unwrap();
        assert!(
            next.series > SeriesRef(8),
            "references in the log are never given out again"
        );
    }

    #[test]
    fn writers_that_meet_agree_on_the_series() {
        let registry = registry(1000);
        let numbers = |_: usize| {
            (0..200u32)
                .map(|i| {
                    let labels = Labels::from_pairs([("i", i.to_string())]).unwrap();
                    register(&registry, &canonical(&labels)).unwrap().number
                })
                .collect::<Vec<_>>()
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|t| scope.spawn(move || numbers(t))).collect();
            let all: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
            assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
        });
        assert_eq!(registry.len(), 200);
    }
}
