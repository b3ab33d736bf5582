//! The end of a section whose items belong to runs of rows: a table of each item's first row and
//! place, and a trailer. Bytes: `docs/formats/metric-block.md`, "Row table".
//!
//! Invariants
//! - Entries rise by first row; an item holds rows from its first on, below the next item's first.
//! - An item is found without reading more of the table than a search touches.
//!
//! In which section the items lie is the owner's business: the table knows offsets.

use std::ops::Range;

use super::section::{SectionReader, u32_at, u64_at};
use crate::error::Error;

/// First row (4), length (4) and offset (8) of an item.
const ENTRY_BYTES: usize = 16;
/// Version (4), entries (4), rows (4), what the owner adds (8), offset of the table (8).
pub(super) const TRAILER_BYTES: usize = 28;
const VERSION: u32 = 1;
/// Entries that are written as one item, and read at once at the end of a search.
const ENTRIES_PER_ITEM: usize = 64;

/// Collects the entries while items are written.
#[derive(Debug, Default)]
pub(super) struct RowTableWriter {
    entries: Vec<u8>,
    count: u32,
}

impl RowTableWriter {
    /// Notes an item of `bytes` bytes at `offset_bytes`; its first row is above those before.
    pub(super) fn push(&mut self, first_row: u32, bytes: usize, offset_bytes: u64) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.entries.extend_from_slice(&first_row.to_le_bytes());
        self.entries.extend_from_slice(&bytes.to_le_bytes());
        self.entries.extend_from_slice(&offset_bytes.to_le_bytes());
        self.count += 1;
    }

    /// Bytes held.
    pub(super) fn heap_bytes(&self) -> usize {
        self.entries.capacity()
    }

    /// Writes table and trailer through `write`, which takes one item and says where it put it.
    /// `table_bytes` is how long the section is before it, `own` a number of the owner's.
    pub(super) fn finish(
        self,
        rows: u32,
        own: u64,
        table_bytes: u64,
        write: &mut dyn FnMut(&[u8]) -> Result<u64, Error>,
    ) -> Result<(), Error> {
        for part in self.entries.chunks(ENTRY_BYTES * ENTRIES_PER_ITEM) {
            write(part)?;
        }
        let mut trailer = Vec::with_capacity(TRAILER_BYTES);
        trailer.extend_from_slice(&VERSION.to_le_bytes());
        trailer.extend_from_slice(&self.count.to_le_bytes());
        trailer.extend_from_slice(&rows.to_le_bytes());
        trailer.extend_from_slice(&own.to_le_bytes());
        trailer.extend_from_slice(&table_bytes.to_le_bytes());
        write(&trailer)?;
        Ok(())
    }
}

/// The trailer of a section that was read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RowTable {
    entries: u64,
    /// Rows of the block.
    pub(super) rows: u32,
    /// The owner's number.
    pub(super) own: u64,
    table_bytes: u64,
}

/// An item and the rows it may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RowItem {
    /// Where it lies.
    pub(super) bytes: Range<u64>,
    /// Its number.
    pub(super) index: u64,
    /// Its first row.
    pub(super) first_row: u32,
}

impl RowTable {
    /// Reads the trailer. An empty section is a table without entries.
    pub(super) fn open(section: &SectionReader<'_>) -> Result<Self, Error> {
        let len_bytes = section.len_bytes();
        if len_bytes == 0 {
            return Ok(Self::default());
        }
        let trailer = section.trailer::<TRAILER_BYTES>()?;
        let at = len_bytes - TRAILER_BYTES as u64;
        if u32_at(&trailer, 0) != VERSION {
            return Err(section.damaged(at, "unknown version of a row table"));
        }
        let entries = u64::from(u32_at(&trailer, 4));
        let table_bytes = u64_at(&trailer, 20);
        if table_bytes.checked_add(entries * ENTRY_BYTES as u64) != Some(at) {
            return Err(section.damaged(at, "a row table has another length"));
        }
        Ok(Self {
            entries,
            rows: u32_at(&trailer, 8),
            own: u64_at(&trailer, 12),
            table_bytes,
        })
    }

    /// The item that may hold `row`; `None` if all items are of later rows.
    pub(super) fn find(
        &self,
        section: &SectionReader<'_>,
        row: u32,
    ) -> Result<Option<RowItem>, Error> {
        // Entries before `low` begin at or below the row, those from `high` on above it.
        let (mut low, mut high) = (0, self.entries);
        while high - low > ENTRIES_PER_ITEM as u64 {
            let middle = low + (high - low) / 2;
            let entry = section.bytes(self.entry_bytes(middle, 1))?;
            if u32_at(&entry, 0) <= row {
                low = middle;
            } else {
                high = middle;
            }
        }
        let near = section.bytes(self.entry_bytes(low, high - low))?;
        let entries = near.chunks_exact(ENTRY_BYTES);
        let at_or_below = entries.take_while(|e| u32_at(e, 0) <= row).count();
        match (low + at_or_below as u64).checked_sub(1) {
            Some(index) => self.item(section, index),
            None => Ok(None),
        }
    }

    /// Item number `index`; `None` past the last.
    pub(super) fn item(
        &self,
        section: &SectionReader<'_>,
        index: u64,
    ) -> Result<Option<RowItem>, Error> {
        if index >= self.entries {
            return Ok(None);
        }
        let entry = section.bytes(self.entry_bytes(index, 1))?;
        let start = u64_at(&entry, 8);
        let Some(end) = start.checked_add(u32_at(&entry, 4).into()) else {
            let at = self.entry_bytes(index, 1).start;
            return Err(section.damaged(at, "a row table points past everything"));
        };
        Ok(Some(RowItem {
            bytes: start..end,
            index,
            first_row: u32_at(&entry, 0),
        }))
    }

    fn entry_bytes(&self, index: u64, count: u64) -> Range<u64> {
        let start = self.table_bytes + index * ENTRY_BYTES as u64;
        start..start + count * ENTRY_BYTES as u64
    }
}
