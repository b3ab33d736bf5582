//! The time columns of a block, each distinct one once. Bytes: `docs/formats/metric-block.md`,
//! "Times".
//!
//! Series that are scraped together have the same timestamps, so a chunk names its time column by
//! number. Columns are told apart by content, exactly: a hash only proposes.
//!
//! Columns are held encoded until the values are written. What is held is bounded: past the bound a
//! column that nobody shares goes just before its values instead ([`TimePlace::Inline`]).

use std::{hash::BuildHasher as _, ops::Range};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::{
    chunks::TimePlace,
    item::{Item, put_integers},
    section::{SectionReader, u32_at, u64_at},
};
use crate::{
    column::{ColumnError, times},
    error::Error,
    varint::put_u64,
};

/// Columns whose places are stored, and found, together.
const GROUP_COLUMNS: u32 = 256;
const VERSION: u32 = 1;
/// Version (4), columns (4), offset of the table of groups (8).
const TRAILER_BYTES: usize = 16;
/// Encoded columns are held up to here if hardly any of them is shared.
const HELD_UNSHARED_BYTES_MAX: usize = 16 << 20;
/// Encoded columns are held up to here at all.
const HELD_BYTES_MAX: usize = 64 << 20;

/// Gives each distinct time column its number.
#[derive(Debug, Default)]
pub(super) struct TimeColumnsWriter {
    hasher: DefaultHashBuilder,
    /// Columns one behind the other, and where each ends.
    encoded: Vec<u8>,
    ends: Vec<u32>,
    /// Numbers of columns by the hash of their timestamps.
    by_times: HashTable<ByHash>,
    /// Numbers of columns by the hash of their bytes; filled once a column came encoded.
    by_bytes: HashTable<ByHash>,
    /// How often a column was there already.
    shared: u64,
    /// The column used last, by number and as it was given.
    last: u32,
    last_times: Vec<i64>,
    decoded: Vec<i64>,
    inline: Vec<u8>,
}

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
}

impl TimeColumnsWriter {
    /// The place of a column of rising timestamps: known, new, or inline, when its bytes are those
    /// of [`inline_bytes`](Self::inline_bytes).
    pub(super) fn place(&mut self, times_ns: &[i64]) -> TimePlace {
        if !self.last_times.is_empty() && self.last_times == times_ns {
            self.shared += 1;
            return TimePlace::Shared(self.last);
        }
        // Sorted by labels, the series of one metric follow those of another in the same order of
        // targets: so mostly the column is the one that comes after the one before.
        let next = self.last.wrapping_add(1);
        if self.holds(next, times_ns) {
            return self.found(next, times_ns);
        }
        #[expect(clippy::cast_possible_truncation, reason = "any 32 bits of a hash do")]
        let hash = self.hasher.hash_one(times_ns) as u32;
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
        let place = self.keep(start);
        if let TimePlace::Shared(number) = place {
            self.insert_by_times(hash, number);
            if !self.by_bytes.is_empty() {
                self.insert_by_bytes(number);
            }
            self.set_last(number, times_ns);
        }
        place
    }

    /// As [`place`](Self::place), of a column that another block holds encoded.
    pub(super) fn place_encoded(&mut self, column: &[u8]) -> TimePlace {
        if self.by_bytes.is_empty() {
            for number in 0..self.columns() {
                self.insert_by_bytes(number);
            }
        }
        let next = self.last.wrapping_add(1);
        let known = [self.last, next]
            .into_iter()
            .find(|number| !column.is_empty() && self.bytes(*number) == column);
        if let Some(number) = known.or_else(|| self.find_bytes(column)) {
            self.shared += 1;
            self.last = number;
            self.last_times.clear();
            return TimePlace::Shared(number);
        }
        let start = self.encoded.len();
        self.encoded.extend_from_slice(column);
        let place = self.keep(start);
        if let TimePlace::Shared(number) = place {
            self.insert_by_bytes(number);
            self.last = number;
            self.last_times.clear();
        }
        place
    }

    /// The bytes of the column that was last placed inline.
    pub(super) fn inline_bytes(&self) -> &[u8] {
        &self.inline
    }

    /// Bytes held.
    pub(super) fn heap_bytes(&self) -> usize {
        self.encoded.capacity()
            + self.ends.capacity() * size_of::<u32>()
            + self.by_times.allocation_size()
            + self.by_bytes.allocation_size()
    }

    /// Writes the whole section through `write`, which takes one item and says where it put it.
    pub(super) fn finish(
        self,
        write: &mut dyn FnMut(&[u8]) -> Result<u64, Error>,
    ) -> Result<(), Error> {
        let mut start = 0usize;
        for &end in &self.ends {
            write(self.encoded.get(start..end as usize).unwrap_or_default())?;
            start = end as usize;
        }
        let mut table = Vec::new();
        let mut table_bytes = start as u64;
        let (mut item, mut scratch, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        let mut start = 0u32;
        for group in self.ends.chunks(GROUP_COLUMNS as usize) {
            item.clear();
            lengths.clear();
            put_u64(&mut item, start.into());
            for &end in group {
                lengths.push(i64::from(end - start));
                start = end;
            }
            put_integers(&mut item, &lengths, &mut scratch);
            let offset_bytes = write(&item)?;
            table.extend_from_slice(&offset_bytes.to_le_bytes());
            table_bytes = offset_bytes + item.len() as u64;
        }
        for part in table.chunks(512) {
            write(part)?;
        }
        let mut trailer = Vec::with_capacity(TRAILER_BYTES);
        trailer.extend_from_slice(&VERSION.to_le_bytes());
        trailer.extend_from_slice(&self.columns().to_le_bytes());
        trailer.extend_from_slice(&table_bytes.to_le_bytes());
        write(&trailer)?;
        Ok(())
    }

    fn columns(&self) -> u32 {
        u32::try_from(self.ends.len()).unwrap_or(u32::MAX)
    }

    fn bytes(&self, number: u32) -> &[u8] {
        let number = number as usize;
        let before = number.checked_sub(1).and_then(|n| self.ends.get(n));
        let start = before.copied().unwrap_or(0) as usize;
        let end = self.ends.get(number).copied().unwrap_or(0) as usize;
        self.encoded.get(start..end).unwrap_or_default()
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
        self.set_last(number, times_ns);
        TimePlace::Shared(number)
    }

    fn set_last(&mut self, number: u32, times_ns: &[i64]) {
        self.last = number;
        self.last_times.clear();
        self.last_times.extend_from_slice(times_ns);
    }

    /// Gives the column that was just encoded its number, or takes it out again to stand inline.
    fn keep(&mut self, start: usize) -> TimePlace {
        let held = self.encoded.len();
        let is_unshared = self.shared * 4 < self.ends.len() as u64;
        if held > HELD_BYTES_MAX || (is_unshared && held > HELD_UNSHARED_BYTES_MAX) {
            self.inline.clear();
            self.inline
                .extend_from_slice(self.encoded.get(start..).unwrap_or_default());
            self.encoded.truncate(start);
            let bytes = u32::try_from(self.inline.len()).unwrap_or(u32::MAX);
            return TimePlace::Inline(bytes);
        }
        let number = self.columns();
        self.ends.push(u32::try_from(held).unwrap_or(u32::MAX));
        TimePlace::Shared(number)
    }

    fn find_bytes(&self, column: &[u8]) -> Option<u32> {
        let hash = self.hash_bytes(column);
        let same = |entry: &ByHash| entry.hash == hash && self.bytes(entry.number) == column;
        self.by_bytes
            .find(ByHash::spread(hash), same)
            .map(|entry| entry.number)
    }

    #[expect(clippy::cast_possible_truncation, reason = "any 32 bits of a hash do")]
    fn hash_bytes(&self, column: &[u8]) -> u32 {
        self.hasher.hash_one(column) as u32
    }

    fn insert_by_times(&mut self, hash: u32, number: u32) {
        let entry = ByHash { hash, number };
        self.by_times
            .insert_unique(ByHash::spread(hash), entry, |e| ByHash::spread(e.hash));
    }

    fn insert_by_bytes(&mut self, number: u32) {
        let hash = self.hash_bytes(self.bytes(number));
        let entry = ByHash { hash, number };
        self.by_bytes
            .insert_unique(ByHash::spread(hash), entry, |e| ByHash::spread(e.hash));
    }
}

fn bounds_of(times_ns: &[i64]) -> Option<(usize, i64, i64)> {
    Some((times_ns.len(), *times_ns.first()?, *times_ns.last()?))
}

const _: () = assert!(HELD_BYTES_MAX + times::COLUMN_SAMPLES_MAX * 16 < u32::MAX as usize);

/// The end of the section, from which columns are found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TimeColumns {
    columns: u32,
    table_bytes: u64,
}

/// Places of a group of columns; its memory is used again for the next one.
#[derive(Debug, Default)]
pub(super) struct TimeGroup {
    /// Number of the first column.
    first: u32,
    /// Where each column starts, and one more for the end; empty if nothing was read yet.
    starts_bytes: Vec<u64>,
    lengths: Vec<i64>,
}

impl TimeGroup {
    /// Forgets what was read.
    pub(super) fn clear(&mut self) {
        self.starts_bytes.clear();
    }

    fn place(&self, number: u32) -> Option<Range<u64>> {
        let index = number.checked_sub(self.first)? as usize;
        match self.starts_bytes.get(index..index + 2) {
            Some(&[start, end]) => Some(start..end),
            _ => None,
        }
    }

    fn decode(&mut self, bytes: &[u8], columns: usize, end_bytes: u64) -> Result<(), ColumnError> {
        self.starts_bytes.clear();
        let mut item = Item::new(bytes);
        let mut start = item.take_u64()?;
        item.take_integers(columns, &mut self.lengths)?;
        for &length in &self.lengths {
            self.starts_bytes.push(start);
            let end = u64::try_from(length)
                .ok()
                .and_then(|n| start.checked_add(n));
            let end = end.filter(|end| *end <= end_bytes);
            match end {
                Some(end) => start = end,
                None => {
                    self.starts_bytes.clear();
                    return Err(item.damaged("a time column reaches past its section"));
                }
            }
        }
        self.starts_bytes.push(start);
        Ok(())
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
        let columns = u32_at(&trailer, 4);
        let table_bytes = u64_at(&trailer, 8);
        let groups = u64::from(columns.div_ceil(GROUP_COLUMNS));
        if table_bytes.checked_add(groups * 8) != Some(at) {
            return Err(section.damaged(at, "the table of time columns has another length"));
        }
        Ok(Self {
            columns,
            table_bytes,
        })
    }

    /// Columns in the section.
    pub(super) fn count(&self) -> u32 {
        self.columns
    }

    /// Where column `number` lies in the section. `group` is the group looked at last.
    pub(super) fn place(
        &self,
        section: &SectionReader<'_>,
        number: u32,
        group: &mut TimeGroup,
    ) -> Result<Range<u64>, Error> {
        if let Some(place) = group.place(number) {
            return Ok(place);
        }
        if number >= self.columns {
            return Err(section.damaged(self.table_bytes, "no time column of this number"));
        }
        let index = number / GROUP_COLUMNS;
        let entry_bytes = self.table_bytes + u64::from(index) * 8;
        let is_last = u64::from(index + 1) * u64::from(GROUP_COLUMNS) >= u64::from(self.columns);
        let entries = section.bytes(entry_bytes..entry_bytes + if is_last { 8 } else { 16 })?;
        let start = u64_at(&entries, 0);
        let end = match is_last {
            true => self.table_bytes,
            false => u64_at(&entries, 8),
        };
        if start > end || end > self.table_bytes {
            return Err(section.damaged(entry_bytes, "a group of time columns is misplaced"));
        }
        let bytes = section.bytes(start..end)?;
        group.first = index * GROUP_COLUMNS;
        let columns = GROUP_COLUMNS.min(self.columns - group.first);
        section.placed(start, group.decode(&bytes, columns as usize, start))?;
        group
            .place(number)
            .ok_or_else(|| section.damaged(start, "no time column of this number"))
    }
}
