//! A column of integers inside a section, in groups of 1,024 that are decoded alone.
//!
//! The groups lie end to end, each on one page (`crate::column::integers`); the block's directory
//! says where the first begins and how long each is.
//!
//! Invariants
//! - A group of `n` values is an item of at most 16 KiB: one damaged page costs the groups on it.
//! - Numbers of the directory are checked when it is opened, a group's bytes when they are decoded.

use super::directory::{HeadReader, Wrong};
use crate::{
    block::{Block, BlockWriter, SectionKind},
    column::{ColumnError, integers},
    error::Error,
    varint,
};

/// Values of a full group.
pub(crate) const GROUP_ROWS: u32 = 1_024;

const _: () = assert!(GROUP_ROWS as usize == integers::GROUP);

/// The group that holds value `at`.
#[inline]
pub(crate) fn group_of(at: u32) -> u32 {
    at / GROUP_ROWS
}

/// Writes a column, value by value.
#[derive(Debug)]
pub(super) struct GroupsWriter {
    open: Vec<i64>,
    values: u64,
    start_bytes: Option<u64>,
    lengths: Vec<i64>,
    scratch: Vec<u8>,
}

impl GroupsWriter {
    pub(super) fn new() -> Self {
        Self {
            open: Vec::with_capacity(integers::GROUP),
            values: 0,
            start_bytes: None,
            lengths: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Appends a value.
    #[inline]
    pub(super) fn push(&mut self, writer: &mut BlockWriter, value: i64) -> Result<(), Error> {
        self.open.push(value);
        if self.open.len() == integers::GROUP {
            self.end_group(writer)?;
        }
        Ok(())
    }

    fn end_group(&mut self, writer: &mut BlockWriter) -> Result<(), Error> {
        if self.open.is_empty() {
            return Ok(());
        }
        self.scratch.clear();
        integers::encode_group(&self.open, &mut self.scratch);
        let offset_bytes = writer.write(&self.scratch)?;
        self.start_bytes.get_or_insert(offset_bytes);
        self.lengths
            .push(i64::try_from(self.scratch.len()).unwrap_or(i64::MAX));
        self.values += self.open.len() as u64;
        self.open.clear();
        Ok(())
    }

    /// Ends the last group and says in `head` where all lie.
    pub(super) fn finish(
        mut self,
        writer: &mut BlockWriter,
        head: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.end_group(writer)?;
        varint::put_u64(head, self.values);
        varint::put_u64(head, self.start_bytes.unwrap_or(0));
        self.scratch.clear();
        integers::encode(&self.lengths, &mut self.scratch);
        varint::put_bytes(head, &self.scratch);
        Ok(())
    }
}

/// Writes a whole column.
pub(super) fn write(
    writer: &mut BlockWriter,
    head: &mut Vec<u8>,
    values: impl Iterator<Item = i64>,
) -> Result<(), Error> {
    let mut groups = GroupsWriter::new();
    for value in values {
        groups.push(writer, value)?;
    }
    groups.finish(writer, head)
}

/// A column to read.
#[derive(Debug)]
pub(crate) struct Groups {
    section: SectionKind,
    values: u32,
    start_bytes: u64,
    /// Where each group ends, from the start of the first.
    ends_bytes: Vec<u64>,
}

impl Groups {
    /// Reads what [`GroupsWriter::finish`] wrote; the column has `values` values.
    pub(super) fn open(
        section: SectionKind,
        values: u32,
        head: &mut HeadReader<'_>,
    ) -> Result<Self, Wrong> {
        if head.u64()? != u64::from(values) {
            return Err("a column has another number of values");
        }
        let start_bytes = head.u64()?;
        let mut lengths = Vec::new();
        head.integers(values.div_ceil(GROUP_ROWS), &mut lengths)?;
        let mut end_bytes = 0u64;
        let mut ends_bytes = Vec::with_capacity(lengths.len());
        for length in lengths {
            let length = u64::try_from(length).map_err(|_| "a group of a negative length")?;
            end_bytes = end_bytes.checked_add(length).ok_or("groups too long")?;
            ends_bytes.push(end_bytes);
        }
        start_bytes
            .checked_add(end_bytes)
            .ok_or("groups too long")?;
        Ok(Self {
            section,
            values,
            start_bytes,
            ends_bytes,
        })
    }

    /// Values.
    pub(crate) fn len(&self) -> u32 {
        self.values
    }

    /// Where it lies.
    pub(super) fn section(&self) -> SectionKind {
        self.section
    }

    /// Memory held.
    pub(super) fn heap_bytes(&self) -> usize {
        self.ends_bytes.capacity() * size_of::<u64>()
    }

    /// Decodes a group and says how many values it has; behind them, `out` is left as it was.
    pub(crate) fn load(
        &self,
        block: &Block,
        group: u32,
        out: &mut [i64; integers::GROUP],
    ) -> Result<usize, Error> {
        let first = u64::from(group) * u64::from(GROUP_ROWS);
        let count = u64::from(self.values).saturating_sub(first);
        let count = usize::try_from(count.min(GROUP_ROWS.into())).unwrap_or(0);
        let Some(&end) = self.ends_bytes.get(group as usize) else {
            return Err(block.damage(self.section, 0, "a group past the end of its column"));
        };
        let start = group.checked_sub(1).map_or(Some(0), |before| {
            self.ends_bytes.get(before as usize).copied()
        });
        let start_bytes = self.start_bytes + start.unwrap_or(0);
        let section = block.section(self.section)?;
        let bytes = section.bytes(start_bytes..self.start_bytes + end)?;
        let taken = integers::decode_group(&bytes, count, out);
        match taken {
            Ok(taken) if taken == bytes.len() => Ok(count),
            Ok(_) => Err(block.damage(self.section, start_bytes, "bytes behind a group")),
            Err(ColumnError::Damaged {
                offset_bytes,
                reason,
            }) => {
                let at = start_bytes.saturating_add(offset_bytes as u64);
                Err(block.damage(self.section, at, reason))
            }
        }
    }
}

/// A reader of one column: the group decoded last.
#[derive(Clone, Debug)]
pub(crate) struct GroupCache {
    /// `u32::MAX` before the first.
    group: u32,
    values: Vec<i64>,
}

impl Default for GroupCache {
    fn default() -> Self {
        Self {
            group: u32::MAX,
            values: Vec::new(),
        }
    }
}

impl GroupCache {
    /// The values of a group.
    #[inline]
    pub(crate) fn group(
        &mut self,
        groups: &Groups,
        block: &Block,
        group: u32,
    ) -> Result<&[i64], Error> {
        if self.group != group {
            self.group = u32::MAX;
            let mut values = [0; integers::GROUP];
            let count = groups.load(block, group, &mut values)?;
            self.values.clear();
            self.values.extend(values.iter().take(count));
            self.group = group;
        }
        Ok(&self.values)
    }

    /// A value.
    #[inline]
    pub(crate) fn get(&mut self, groups: &Groups, block: &Block, at: u32) -> Result<i64, Error> {
        let section = groups.section;
        let values = self.group(groups, block, group_of(at))?;
        let value = values.get((at % GROUP_ROWS) as usize).copied();
        value.ok_or_else(|| block.damage(section, 0, "a value past the end of its column"))
    }
}
