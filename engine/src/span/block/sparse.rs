//! Items that few rows have, or some rows several of: the row of each item, rising.
//!
//! In groups of 1,024; the directory has the first row of each group, so that the items of a range of
//! rows are found by decoding the groups at its two ends.

use std::ops::Range;

use super::{
    directory::{HeadReader, Wrong, put_integers},
    groups::{GROUP_ROWS, GroupCache, Groups, GroupsWriter},
};
use crate::{
    block::{Block, BlockWriter, SectionKind},
    error::Error,
    varint,
};

/// Writes the rows of items.
#[derive(Debug)]
pub(super) struct SparseWriter {
    groups: GroupsWriter,
    firsts: Vec<i64>,
    items: u32,
}

impl SparseWriter {
    pub(super) fn new() -> Self {
        Self {
            groups: GroupsWriter::new(),
            firsts: Vec::new(),
            items: 0,
        }
    }

    /// Appends an item of `row`, which is not below the row before.
    pub(super) fn push(&mut self, writer: &mut BlockWriter, row: u32) -> Result<(), Error> {
        if self.items.is_multiple_of(GROUP_ROWS) {
            self.firsts.push(row.into());
        }
        self.items += 1;
        self.groups.push(writer, row.into())
    }

    pub(super) fn finish(self, writer: &mut BlockWriter, head: &mut Vec<u8>) -> Result<(), Error> {
        varint::put_u64(head, self.items.into());
        self.groups.finish(writer, head)?;
        put_integers(head, self.firsts.into_iter());
        Ok(())
    }
}

/// The rows of items, to read.
#[derive(Debug)]
pub(crate) struct SparseRows {
    groups: Groups,
    firsts: Vec<u32>,
    rows: u32,
}

impl SparseRows {
    /// `rows` is the number of rows of the block.
    pub(super) fn open(
        section: SectionKind,
        rows: u32,
        head: &mut HeadReader<'_>,
    ) -> Result<Self, Wrong> {
        let items = head.u32()?;
        let groups = Groups::open(section, items, head)?;
        let firsts = head.numbers(items.div_ceil(GROUP_ROWS), rows.saturating_sub(1))?;
        if !firsts.is_sorted() {
            return Err("rows of items do not rise");
        }
        Ok(Self {
            groups,
            firsts,
            rows,
        })
    }

    /// Items.
    pub(super) fn len(&self) -> u32 {
        self.groups.len()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.groups.heap_bytes() + self.firsts.capacity() * size_of::<u32>()
    }

    /// The row of an item.
    pub(super) fn row(
        &self,
        block: &Block,
        item: u32,
        cursor: &mut GroupCache,
    ) -> Result<u32, Error> {
        let row = cursor.get(&self.groups, block, item)?;
        let row = u32::try_from(row).ok().filter(|row| *row < self.rows);
        row.ok_or_else(|| block.damage(self.groups.section(), 0, "an item of no row"))
    }

    /// The items of a range of rows.
    pub(super) fn items_of(
        &self,
        block: &Block,
        rows: Range<u32>,
        cursor: &mut GroupCache,
    ) -> Result<Range<u32>, Error> {
        let start = self.first_at(block, rows.start, cursor)?;
        let end = self.first_at(block, rows.end, cursor)?;
        Ok(start..end.max(start))
    }

    /// The first item whose row is not below `row`.
    fn first_at(&self, block: &Block, row: u32, cursor: &mut GroupCache) -> Result<u32, Error> {
        // The last group that begins below: no earlier one has an item that is not.
        let below = self.firsts.partition_point(|&first| first < row);
        let Some(group) = u32::try_from(below).ok().and_then(|n| n.checked_sub(1)) else {
            return Ok(0);
        };
        let values = cursor.group(&self.groups, block, group)?;
        let before = values.partition_point(|&value| value < i64::from(row));
        Ok(group * GROUP_ROWS + u32::try_from(before).unwrap_or(0))
    }
}
