//! The time columns of a block, each distinct one once. Bytes: `docs/formats/metric-block.md`,
//! "Times".
//!
//! Series that are scraped together have the same timestamps, so a chunk does not hold its time column
//! but names it. Columns are told apart by content, exactly: a hash only proposes.
//!
//! What a chunk names is a *slot*, and several slots may stand for one column. Sorted by labels, the
//! series of one metric follow those of another in the same order of targets; so the slots of the first
//! metric are new ones, one behind the other, and those of the next metrics are the same ones again in
//! the same order: numbers that rise by one cost a chunk nothing, where numbers of columns, in whatever
//! order targets share them, would cost ten bits and more.
//!
//! Columns are held encoded until the values are written. What is held is bounded: past the bound a
//! column that nobody shares goes just before its values instead ([`TimePlace::Inline`]).

use std::{
    hash::{BuildHasher as _, Hash},
    ops::Range,
};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::{
    chunks::TimePlace,
    item::{Item, put_integers},
    section::{SectionReader, u32_at, u64_at},
};
use crate::{
    column::{ColumnError, times},
    error::Error,
};

/// Slots whose columns are stored, and found, together.
const GROUP_SLOTS: u32 = 256;
const VERSION: u32 = 1;
/// Version (4), slots (4), columns (4), offset of the table of groups (8).
const TRAILER_BYTES: usize = 20;
/// Encoded columns are held up to here if hardly any of them is shared.
const HELD_UNSHARED_BYTES_MAX: usize = 16 << 20;
/// Encoded columns are held up to here at all.
const HELD_BYTES_MAX: usize = 64 << 20;

/// How many bytes of encoded columns are held.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    unshared_bytes: usize,
    any_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            unshared_bytes: HELD_UNSHARED_BYTES_MAX,
            any_bytes: HELD_BYTES_MAX,
        }
    }
}

/// Gives each distinct time column its number, and chunks their slots.
#[derive(Debug, Default)]
pub(super) struct TimeColumnsWriter {
    bounds: Bounds,
    hasher: DefaultHashBuilder,
    /// Columns one behind the other, and where each ends.
    encoded: Vec<u8>,
    ends: Vec<u32>,
    /// Numbers of columns by the hash of their timestamps.
    by_times: HashTable<ByHash>,
    /// Numbers of columns by the hash of their bytes; filled once a column came encoded.
    by_bytes: HashTable<ByHash>,
    /// The column of each slot.
    slots: Vec<u32>,
    /// Slots by the hash of the column before them and their own.
    by_pair: HashTable<ByHash>,
    /// How often a column was there already.
    shared: u64,
    /// The slot used last, and its timestamps if they were given.
    last_slot: u32,
    last_times: Vec<i64>,
    decoded: Vec<i64>,
    inline: Vec<u8>,
}

/// An entry of a table that knows its hash: what it names is checked by whoever looks it up.
#[derive(Clone, Copy, Debug)]
struct ByHash {
    hash: u32,
    number: u32,
}

impl ByHash {
    /// The table takes hashes of 64 bits and looks at both ends of them.
    fn spread(hash: u32) -> u64 {
        u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn insert(table: &mut HashTable<Self>, hash: u32, number: u32) {
        let entry = Self { hash, number };
        table.insert_unique(Self::spread(hash), entry, |e| Self::spread(e.hash));
    }
}

impl TimeColumnsWriter {
    /// Holds less, so that a test sees columns stand inline.
    #[cfg(test)]
    pub(super) fn hold_at_most(&mut self, any_bytes: usize) {
        self.bounds = Bounds {
            unshared_bytes: any_bytes / 2,
            any_bytes,
        };
    }

    /// The place of a column of rising timestamps: known, new, or inline, when its bytes are those
    /// of [`inline_bytes`](Self::inline_bytes).
    pub(super) fn place(&mut self, times_ns: &[i64]) -> TimePlace {
        if !self.last_times.is_empty() && self.last_times == times_ns {
            self.shared += 1;
            return TimePlace::Shared(self.last_slot);
        }
        if let Some(number) = self.column_of(self.last_slot + 1)
            && self.holds(number, times_ns)
        {
            return self.found(number, times_ns);
        }
        let hash = self.hash(times_ns);
        let bounds = bounds_of(times_ns);
        let proposed = self.by_times.find(ByHash::spread(hash), |entry| {
            entry.hash == hash && self.bounds(entry.number) == bounds
        });
        if let Some(number) = proposed.map(|entry| entry.number)
            && self.holds(number, times_ns)
        {
            return self.found(number, times_ns);
        }
        let start = self.encoded.len();
        times::encode(times_ns, &mut self.encoded);
        if !self.by_bytes.is_empty() {
            let column = self.encoded.get(start..).unwrap_or_default();
            if let Some(number) = self.find_bytes(column) {
                self.encoded.truncate(start);
                return self.found(number, times_ns);
            }
        }
        let Some(number) = self.keep(start) else {
            return self.inline_place();
        };
        ByHash::insert(&mut self.by_times, hash, number);
        if !self.by_bytes.is_empty() {
            self.insert_by_bytes(number);
        }
        self.turn_to(number, times_ns)
    }

    /// As [`place`](Self::place), of a column that another block holds encoded.
    pub(super) fn place_encoded(&mut self, column: &[u8]) -> TimePlace {
        if self.by_bytes.is_empty() {
            for number in 0..self.columns() {
                self.insert_by_bytes(number);
            }
        }
        let near = [self.last_slot + 1, self.last_slot];
        let mut near = near.into_iter().filter_map(|slot| self.column_of(slot));
        let known = near.find(|number| self.bytes(*number) == column);
        if let Some(number) = known.or_else(|| self.find_bytes(column)) {
            return self.found(number, &[]);
        }
        let start = self.encoded.len();
        self.encoded.extend_from_slice(column);
        let Some(number) = self.keep(start) else {
            return self.inline_place();
        };
        self.insert_by_bytes(number);
        self.turn_to(number, &[])
    }

    /// The bytes of the column that was last placed inline.
    pub(super) fn inline_bytes(&self) -> &[u8] {
        &self.inline
    }

    /// Bytes held.
    pub(super) fn heap_bytes(&self) -> usize {
        self.encoded.capacity()
            + (self.ends.capacity() + self.slots.capacity()) * size_of::<u32>()
            + self.by_times.allocation_size()
            + self.by_bytes.allocation_size()
            + self.by_pair.allocation_size()
    }

    /// Writes the whole section through `write`, which takes one item and says where it put it.
    pub(super) fn finish(
        self,
        write: &mut dyn FnMut(&[u8]) -> Result<u64, Error>,
    ) -> Result<(), Error> {
        for number in 0..self.columns() {
            write(self.bytes(number))?;
        }
        let mut table = Vec::new();
        let mut table_bytes = self.encoded.len() as u64;
        let (mut item, mut scratch) = (Vec::new(), Vec::new());
        let (mut starts, mut lengths) = (Vec::new(), Vec::new());
        for group in self.slots.chunks(GROUP_SLOTS as usize) {
            item.clear();
            starts.clear();
            lengths.clear();
            for &number in group {
                let (start, end) = self.range(number);
                starts.push(i64::from(start));
                lengths.push(i64::from(end - start));
            }
            put_integers(&mut item, &starts, &mut scratch);
            put_integers(&mut item, &lengths, &mut scratch);
            let offset_bytes = write(&item)?;
            table.extend_from_slice(&offset_bytes.to_le_bytes());
            table_bytes = offset_bytes + item.len() as u64;
        }
        for part in table.chunks(512) {
            write(part)?;
        }
        let mut trailer = Vec::with_capacity(TRAILER_BYTES);
        let slots = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        trailer.extend_from_slice(&VERSION.to_le_bytes());
        trailer.extend_from_slice(&slots.to_le_bytes());
        trailer.extend_from_slice(&self.columns().to_le_bytes());
        trailer.extend_from_slice(&table_bytes.to_le_bytes());
        write(&trailer)?;
        Ok(())
    }

    fn columns(&self) -> u32 {
        u32::try_from(self.ends.len()).unwrap_or(u32::MAX)
    }

    fn column_of(&self, slot: u32) -> Option<u32> {
        self.slots.get(slot as usize).copied()
    }

    /// Where a column lies in `encoded`.
    fn range(&self, number: u32) -> (u32, u32) {
        let number = number as usize;
        let before = number.checked_sub(1).and_then(|n| self.ends.get(n));
        let start = before.copied().unwrap_or(0);
        (start, self.ends.get(number).copied().unwrap_or(start))
    }

    fn bytes(&self, number: u32) -> &[u8] {
        let (start, end) = self.range(number);
        let bytes = self.encoded.get(start as usize..end as usize);
        bytes.unwrap_or_default()
    }

    fn bounds(&self, number: u32) -> Option<(usize, i64, i64)> {
        let bounds = times::bounds(self.bytes(number)).ok()?;
        Some((bounds.count as usize, bounds.first_ns, bounds.last_ns))
    }

    fn holds(&mut self, number: u32, times_ns: &[i64]) -> bool {
        if self.bounds(number) != bounds_of(times_ns) {
            return false;
        }
        let mut decoded = std::mem::take(&mut self.decoded);
        decoded.clear();
        let is_read = times::decode(self.bytes(number), &mut decoded).is_ok();
        self.decoded = decoded;
        is_read && self.decoded == times_ns
    }

    fn found(&mut self, number: u32, times_ns: &[i64]) -> TimePlace {
        self.shared += 1;
        self.turn_to(number, times_ns)
    }

    /// Finds or makes a slot for a column: the one after the last, the last itself, or the one that
    /// followed the last column before.
    fn turn_to(&mut self, number: u32, times_ns: &[i64]) -> TimePlace {
        let near = [self.last_slot + 1, self.last_slot];
        let near = near
            .into_iter()
            .find(|slot| self.column_of(*slot) == Some(number));
        let slot = near.unwrap_or_else(|| {
            let hash = self.hash(&[self.column_of(self.last_slot), Some(number)]);
            let same =
                |entry: &ByHash| entry.hash == hash && self.column_of(entry.number) == Some(number);
            if let Some(entry) = self.by_pair.find(ByHash::spread(hash), same) {
                return entry.number;
            }
            let slot = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
            self.slots.push(number);
            ByHash::insert(&mut self.by_pair, hash, slot);
            slot
        });
        self.last_slot = slot;
        self.last_times.clear();
        self.last_times.extend_from_slice(times_ns);
        TimePlace::Shared(slot)
    }

    /// Gives the column that was just encoded its number; `None` if it is to stand inline.
    fn keep(&mut self, start: usize) -> Option<u32> {
        let held = self.encoded.len();
        let is_unshared = self.shared * 4 < self.ends.len() as u64;
        let bounds = self.bounds;
        if held > bounds.any_bytes || (is_unshared && held > bounds.unshared_bytes) {
            let column = self.encoded.get(start..).unwrap_or_default();
            self.inline.clear();
            self.inline.extend_from_slice(column);
            self.encoded.truncate(start);
            return None;
        }
        let number = self.columns();
        self.ends.push(u32::try_from(held).unwrap_or(u32::MAX));
        Some(number)
    }

    fn inline_place(&self) -> TimePlace {
        TimePlace::Inline(u32::try_from(self.inline.len()).unwrap_or(u32::MAX))
    }

    fn find_bytes(&self, column: &[u8]) -> Option<u32> {
        let hash = self.hash(column);
        let same = |entry: &ByHash| entry.hash == hash && self.bytes(entry.number) == column;
        let found = self.by_bytes.find(ByHash::spread(hash), same);
        found.map(|entry| entry.number)
    }

    fn insert_by_bytes(&mut self, number: u32) {
        let hash = self.hash(self.bytes(number));
        ByHash::insert(&mut self.by_bytes, hash, number);
    }

    #[expect(clippy::cast_possible_truncation, reason = "any 32 bits of a hash do")]
    fn hash<T: Hash + ?Sized>(&self, of: &T) -> u32 {
        self.hasher.hash_one(of) as u32
    }
}

fn bounds_of(times_ns: &[i64]) -> Option<(usize, i64, i64)> {
    Some((times_ns.len(), *times_ns.first()?, *times_ns.last()?))
}

const _: () = assert!(HELD_BYTES_MAX + times::COLUMN_SAMPLES_MAX * 16 < u32::MAX as usize);

/// The end of the section, from which columns are found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TimeColumns {
    slots: u32,
    /// Distinct columns.
    pub(super) columns: u32,
    table_bytes: u64,
}

/// Places of a group of columns; its memory is used again for the next one.
#[derive(Debug, Default)]
pub(super) struct TimeGroup {
    /// The first slot.
    first: u32,
    /// Where the columns start, and their lengths; empty if nothing was read yet.
    starts_bytes: Vec<i64>,
    lengths_bytes: Vec<i64>,
    /// Columns lie below it.
    end_bytes: u64,
}

impl TimeGroup {
    /// Forgets what was read.
    pub(super) fn clear(&mut self) {
        self.starts_bytes.clear();
        self.lengths_bytes.clear();
    }

    fn holds(&self, slot: u32) -> bool {
        let index = slot.checked_sub(self.first);
        index.is_some_and(|index| (index as usize) < self.lengths_bytes.len())
    }

    /// Where the column of a slot lies; `None` if the group does not have it, or says nonsense.
    fn place(&self, slot: u32) -> Option<Range<u64>> {
        let index = slot.checked_sub(self.first)? as usize;
        let start = u64::try_from(*self.starts_bytes.get(index)?).ok()?;
        let length = u64::try_from(*self.lengths_bytes.get(index)?).ok()?;
        let end = start.checked_add(length)?;
        (end <= self.end_bytes).then_some(start..end)
    }

    fn decode(&mut self, bytes: &[u8], slots: usize) -> Result<(), ColumnError> {
        self.clear();
        let mut item = Item::new(bytes);
        item.take_integers(slots, &mut self.starts_bytes)?;
        item.take_integers(slots, &mut self.lengths_bytes)
    }
}

impl TimeColumns {
    /// Reads the trailer. An empty section holds no columns.
    pub(super) fn open(section: &SectionReader<'_>) -> Result<Self, Error> {
        let len_bytes = section.len_bytes();
        if len_bytes == 0 {
            return Ok(Self::default());
        }
        let trailer = section.trailer::<TRAILER_BYTES>()?;
        let at = len_bytes - TRAILER_BYTES as u64;
        if u32_at(&trailer, 0) != VERSION {
            return Err(section.damaged(at, "unknown version of the time columns"));
        }
        let slots = u32_at(&trailer, 4);
        let table_bytes = u64_at(&trailer, 12);
        let groups = u64::from(slots.div_ceil(GROUP_SLOTS));
        if table_bytes.checked_add(groups * 8) != Some(at) {
            return Err(section.damaged(at, "the table of time columns has another length"));
        }
        Ok(Self {
            slots,
            columns: u32_at(&trailer, 8),
            table_bytes,
        })
    }

    /// Where the column of a slot lies in the section. `group` is the group looked at last.
    pub(super) fn place(
        &self,
        section: &SectionReader<'_>,
        slot: u32,
        group: &mut TimeGroup,
    ) -> Result<Range<u64>, Error> {
        if !group.holds(slot) {
            self.load(section, slot, group)?;
        }
        let place = group.place(slot);
        place.ok_or_else(|| section.damaged(group.end_bytes, "a time column is misplaced"))
    }

    fn load(
        &self,
        section: &SectionReader<'_>,
        slot: u32,
        group: &mut TimeGroup,
    ) -> Result<(), Error> {
        if slot >= self.slots {
            return Err(section.damaged(self.table_bytes, "no time column of this number"));
        }
        let index = slot / GROUP_SLOTS;
        let first = index * GROUP_SLOTS;
        let slots = GROUP_SLOTS.min(self.slots - first);
        let entry_bytes = self.table_bytes + u64::from(index) * 8;
        let is_last = slots == self.slots - first;
        let entries = section.bytes(entry_bytes..entry_bytes + if is_last { 8 } else { 16 })?;
        let start = u64_at(&entries, 0);
        let end = if is_last {
            self.table_bytes
        } else {
            u64_at(&entries, 8)
        };
        if start > end || end > self.table_bytes {
            return Err(section.damaged(entry_bytes, "a group of time columns is misplaced"));
        }
        let bytes = section.bytes(start..end)?;
        group.first = first;
        group.end_bytes = start;
        let decoded = group.decode(&bytes, slots as usize);
        if decoded.is_err() {
            group.clear();
        }
        section.placed(start, decoded)
    }
}
